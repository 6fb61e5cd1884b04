package test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var calledFiles = map[string]string{
	"serverless.yml": `service: called
provider: {name: aws, runtime: nodejs20.x, region: eu-west-1, timeout: 20}
functions:
  echo:
    handler: echo.handler
    memorySize: 256
    reservedConcurrency: 3
    maximumRetryAttempts: 1
    environment: {K: v}
    tags: {team: a}
    events: [{sqs: {arn: !GetAtt Jobs.Arn, batchSize: 2}}]
  flow: {handler: flow.handler, url: {invokeMode: RESPONSE_STREAM}}
resources:
  Resources:
    Jobs: {Type: AWS::SQS::Queue, Properties: {QueueName: jobs}}
    Live: {Type: AWS::Lambda::Alias, Properties: {Name: live, FunctionName: !Ref EchoLambdaFunction, FunctionVersion: '1'}}
`,
	"echo.js": `exports.handler = async (e) => { console.log('echoed'); if (e && e.fail) throw new Error(e.fail); return e; };
`,
	"flow.js": `exports.handler = awslambda.streamifyResponse(async (e, out) => {
  out.write('one ');
  await new Promise((r) => setTimeout(r, 50));
  out.write('two');
  out.end();
});
`,
}

// Functions are called and described by boto3; see the script.
func TestWire_FunctionsAreCalledAndDescribed(t *testing.T) {
	t.Parallel()
	needBoto3(t)
	dir, data := project(t, calledFiles), filepath.Join(t.TempDir(), "data")
	s := ebb.Start(t, dir, data, "up", "--listen", "127.0.0.1:0")
	t.Cleanup(func() { noteAnswered(t, s.Ready.API, data) })
	_, access, secret := accessKey(t, dir, data, "deploy")
	out, err := exec.CommandContext(t.Context(), "python3", "-W", "ignore", "testdata/lambda.py", s.Ready.AWS, access, secret).CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), "all of Lambda\n") {
		t.Errorf("%v\n%s", err, out)
	}
}
