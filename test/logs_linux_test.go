package test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/testkit/harness"
)

var loggedFiles = map[string]string{
	"serverless.yml": `service: logged
provider:
  name: aws
  runtime: nodejs20.x
  region: eu-west-1
  timeout: 30
  logRetentionInDays: 14
  iam: {role: {statements: [{Effect: Allow, Action: 'logs:*', Resource: '*'}]}}
functions:
  say: {handler: say.handler}
resources:
  Resources:
    Audit: {Type: AWS::Logs::LogGroup, Properties: {LogGroupName: /shop/audit, RetentionInDays: 30}}
`,
	"say.js": `process.emitWarning = () => {}; // of the SDK's about this Node
const L = require('@aws-sdk/client-cloudwatch-logs');
const logs = new L.CloudWatchLogsClient({});
exports.handler = async (e, c) => {
  if (e.read) {
    const r = await logs.send(new L.FilterLogEventsCommand({ logGroupName: e.read }));
    return r.events.map((e) => e.message);
  }
  console.log('said', e.what);
  process.stdout.write(JSON.stringify({ level: e.level, n: e.n, tags: e.tags }) + '\n');
  const at = { logGroupName: '/shop/audit', logStreamName: 'by-v3' };
  await logs.send(new L.CreateLogStreamCommand(at)).catch((e) => { if (e.name !== 'ResourceAlreadyExistsException') throw e; });
  await logs.send(new L.PutLogEventsCommand({ ...at, logEvents: [{ timestamp: Date.now(), message: e.put }] }));
  return c.logGroupName + ' ' + c.logStreamName;
};
`,
}

// loggedServer runs a function that writes, and calls it three times; stream is what it is told of its log.
func loggedServer(t *testing.T) (s *harness.Server, dir, data, stream string) {
	t.Helper()
	dir, data = project(t, loggedFiles), filepath.Join(t.TempDir(), "data")
	s = ebb.Start(t, dir, data, "up", "--listen", "127.0.0.1:0")
	t.Cleanup(func() { noteAnswered(t, s.Ready.API, data) })
	if strings.Contains(s.Stderr(), "not isolated") {
		t.Skip("names are captured in sandboxes alone, which this machine does not give")
	}
	for _, e := range []string{
		`{"what":"w1","level":"info","n":1,"tags":["a"],"put":"p1"}`, `{"what":"w2","level":"info","n":2,"tags":["a","b"],"put":"p2"}`, `{"what":"w3","level":"error","n":3,"tags":["b"],"put":"p3"}`,
	} {
		r := ebb.Run(t, dir, "invoke", "say", "--data", e)
		if err := json.Unmarshal([]byte(r.Stdout), &stream); err != nil {
			t.Fatalf("%+v %v", r, err)
		}
	}
	group, stream, _ := strings.Cut(stream, " ")
	if group != "/aws/lambda/logged-dev-say" {
		t.Errorf("the function's group is %s", group)
	}
	return s, dir, data, stream
}

// What the function wrote and put is read by boto3, by the AWS CLI and by the function itself; see the script.
func TestWire_LogsAreReadAsCloudWatchHasThem(t *testing.T) {
	t.Parallel()
	needBoto3(t)
	s, dir, data, stream := loggedServer(t)
	_, access, secret := accessKey(t, dir, data, "deploy")
	out, err := exec.CommandContext(t.Context(), "python3", "-W", "ignore", "testdata/logs.py", s.Ready.AWS, access, secret, "logged-dev-say", stream).CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), "all of CloudWatch Logs\n") {
		t.Errorf("%v\n%s", err, out)
	}
	r := ebb.Run(t, dir, "invoke", "say", "--data", `{"read":"/shop/audit"}`)
	if strings.TrimSpace(r.Stdout) != `["p1","p2","p3"]` {
		t.Errorf("the function reads %+v", r)
	}
	if r := ebb.Run(t, dir, "logs", "say"); strings.Contains(r.Stdout, "would be refused") {
		t.Errorf("a role that allows all of the logs is said to lack something: %s", r.Stdout)
	}
	t.Run("logs tail", func(t *testing.T) {
		cli := awsCLI(t, "logs", "tail")
		cmd := exec.CommandContext(t.Context(), cli, "--endpoint-url", s.Ready.AWS, "logs", "tail", "/aws/lambda/logged-dev-say", "--since", "1h", "--filter-pattern", "said")
		cmd.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID="+access, "AWS_SECRET_ACCESS_KEY="+secret, "AWS_DEFAULT_REGION=eu-west-1", "AWS_PAGER=")
		out, err := cmd.CombinedOutput()
		if lines := strings.Split(strings.TrimSpace(string(out)), "\n"); err != nil || len(lines) != 3 || !strings.HasSuffix(lines[2], "said w3") || !strings.Contains(lines[0], stream) {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

// What was acknowledged is there after a kill.
func TestWire_EventsThatWerePutSurviveAKill(t *testing.T) {
	t.Parallel()
	s, dir, data, key := outside(t)
	_, access, secret := key("deploy")
	run := func(url, script string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "python3", "-W", "ignore", "-c", `import boto3, sys, time
l = boto3.client('logs', endpoint_url=sys.argv[1], region_name='eu-west-1', aws_access_key_id=sys.argv[2], aws_secret_access_key=sys.argv[3])
`+script, url, access, secret).Output()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	run(s.Ready.AWS, `l.create_log_group(logGroupName='g')
l.create_log_stream(logGroupName='g', logStreamName='s')
for i in range(200): l.put_log_events(logGroupName='g', logStreamName='s', logEvents=[{'timestamp': int(time.time() * 1000), 'message': str(i)}])
`)
	s.Kill()
	s = ebb.Start(t, dir, data, "serve", "--listen", "127.0.0.1:0")
	if got := run(s.Ready.AWS, `print([e['message'] for e in l.filter_log_events(logGroupName='g')['events']] == [str(i) for i in range(200)])`); got != "True\n" {
		t.Errorf("not all events are there: %s", got)
	}
}
