package test

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/testkit/harness"
)

const wireYAML = `service: calls
provider: {name: aws, runtime: nodejs20.x, region: eu-west-1, timeout: 30}
functions:
  v3: {handler: v3.handler, events: [{httpApi: 'GET /v3'}], environment: {URL: !Ref Jobs}}
  v2: {handler: v2.handler, events: [{httpApi: 'GET /v2'}]}
  boto: {handler: boto.handler, runtime: python3.11, events: [{httpApi: 'GET /boto'}]}
  curl: {handler: curl.handler, events: [{httpApi: 'GET /curl'}]}
  work: {handler: work.handler, events: [{sqs: {arn: !GetAtt Jobs.Arn, batchSize: 1}}]}
resources:
  Resources:
    Jobs: {Type: AWS::SQS::Queue, Properties: {QueueName: jobs}}
`

var wireFiles = map[string]string{
	"serverless.yml": wireYAML,
	"v3.js": `const { SQSClient, SendMessageCommand } = require('@aws-sdk/client-sqs');
exports.handler = async () => {
  const r = await new SQSClient({}).send(new SendMessageCommand({ QueueUrl: process.env.URL, MessageBody: 'by v3', MessageAttributes: { k: { DataType: 'String', StringValue: 'v' } } }));
  return { statusCode: 200, body: r.MessageId };
};
`,
	"v2.js": `const AWS = require('aws-sdk');
exports.handler = async () => {
  const sqs = new AWS.SQS({ region: 'us-west-2' });
  const r = await sqs.sendMessage({ QueueUrl: 'https://sqs.us-west-2.amazonaws.com/123456789012/jobs', MessageBody: 'by v2' }).promise();
  return { statusCode: 200, body: r.MessageId };
};
`,
	"boto.py": `import boto3
from botocore.exceptions import ClientError
def handler(event, context):
    r = boto3.resource('sqs', region_name='ap-southeast-1').get_queue_by_name(QueueName='jobs').send_message(MessageBody='by boto3')
    try:
        boto3.client('glue').get_tables(DatabaseName='x')
    except ClientError as e:
        refused = str(e)
    return {'statusCode': 200, 'body': refused + boto3.client('sts').get_caller_identity()['Arn']}
`,
	// What looks where the system has its certificates trusts ebb too, and what has no signature gets no answer.
	"curl.js": `const { execFileSync } = require('child_process');
exports.handler = async () => ({ statusCode: 200, body: execFileSync('curl', ['-s', '--max-time', '20', 'https://sqs.eu-west-1.amazonaws.com/?Action=ListQueues']).toString() });
`,
	"work.js": `exports.handler = async (e) => { for (const r of e.Records) console.log('worked', r.body); };
`,
}

// callsServer runs functions that call AWS's services.
func callsServer(t *testing.T) *harness.Server {
	t.Helper()
	dir := project(t, wireFiles)
	data := filepath.Join(t.TempDir(), "data")
	s := ebb.Start(t, dir, data, "up", "--listen", "127.0.0.1:0")
	t.Cleanup(func() { noteAnswered(t, s.Ready.API, data) })
	if strings.Contains(s.Stderr(), "not isolated") {
		t.Skip("names are captured in sandboxes alone, which this machine does not give")
	}
	return s
}

func TestWire_FunctionsReachTheirQueueWithTheSDKsAsTheyAre(t *testing.T) {
	t.Parallel()
	s := callsServer(t)
	client := &http.Client{Timeout: 2 * time.Minute}
	for path, want := range map[string]string{
		"/v3": "-", "/v2": "-", "/boto": "ebb does not have the service glue: GetTables was refusedarn:aws:sts::000000000000:assumed-role/calls-dev-role/calls-dev-boto",
		"/curl": "<Code>MissingAuthenticationToken</Code>",
	} {
		if status, body := get(client, s.Ready.Gateway+path); status != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	for _, what := range []string{"worked by v3", "worked by v2", "worked by boto3", "ebb: does not have the service glue: GetTables was refused"} {
		logged(t, s, what)
	}
}

const outsidePython = `import boto3, json, sys
url, key, secret = sys.argv[1:]
c = lambda name, secret=secret: boto3.client(name, endpoint_url=url, region_name='us-east-2', aws_access_key_id=key, aws_secret_access_key=secret)
s = c('sqs')
u = s.create_queue(QueueName='outside', Attributes={'VisibilityTimeout': '0'})['QueueUrl']
r = s.send_message_batch(QueueUrl=u, Entries=[{'Id': 'a', 'MessageBody': 'x', 'MessageAttributes': {'b': {'DataType': 'Binary', 'BinaryValue': b'\0\xff'}}}])
assert len(r['Successful']) == 1, r
m = s.receive_message(QueueUrl=u, WaitTimeSeconds=20, MessageAttributeNames=['All'])['Messages'][0]
assert m['MessageAttributes']['b']['BinaryValue'] == b'\0\xff', m
try:
    s.get_queue_url(QueueName='nope')
except s.exceptions.QueueDoesNotExist as e:
    print(e.response['Error']['Code'])
try:
    c('sts', 'wrong').get_caller_identity()
except Exception as e:
    print(e.response['Error']['Code'])
print(c('sts').get_caller_identity()['Arn'])
`

// outside starts a server and gives what makes keys for it.
func outside(t *testing.T) (s *harness.Server, dir, data string, key func(role string) (id, access, secret string)) {
	t.Helper()
	needBoto3(t)
	dir = t.TempDir()
	data = filepath.Join(dir, "data")
	s = ebb.Start(t, dir, data, "serve", "--listen", "127.0.0.1:0")
	t.Cleanup(func() { noteAnswered(t, s.Ready.API, data) })
	return s, dir, data, func(role string) (id, access, secret string) {
		return accessKey(t, dir, data, role)
	}
}

func needBoto3(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("python3", "-c", "import boto3").CombinedOutput(); err != nil {
		t.Skipf("needs python3 with boto3: %v %s", err, out)
	}
}

// accessKey makes a key for AWS's clients.
func accessKey(t *testing.T, dir, data, role string) (id, access, secret string) {
	t.Helper()
	r := ebb.Run(t, dir, "keys", "create", role, "--role", role, "--json", "--data", data)
	var k struct{ ID, AccessKeyID, SecretAccessKey string }
	if err := json.Unmarshal([]byte(r.Stdout), &k); err != nil || k.AccessKeyID == "" || k.SecretAccessKey == "" {
		t.Fatalf("%+v %v", r, err)
	}
	return k.ID, k.AccessKeyID, k.SecretAccessKey
}

// What applications do with services, by boto3; see the scripts.
func TestWire_ServicesFromOutside(t *testing.T) {
	t.Parallel()
	s, _, _, key := outside(t)
	_, access, secret := key("deploy")
	for script, last := range map[string]string{"s3.py": "all of S3\n", "buckets.py": "all of buckets\n", "sns.py": "all of SNS\n", "kinesis.py": "all of Kinesis\n", "parameters.py": "all of secrets\n"} {
		out, err := exec.CommandContext(t.Context(), "python3", "-W", "ignore", "testdata/"+script, s.Ready.AWS, access, secret).CombinedOutput()
		if err != nil || !strings.HasSuffix(string(out), last) {
			t.Errorf("%s: %v\n%s", script, err, out)
		}
	}
}

func TestWire_ClientsFromOutsideUseKeys(t *testing.T) {
	t.Parallel()
	s, dir, data, key := outside(t)
	run := func(access, secret string) string {
		cmd := exec.Command("python3", "-W", "ignore", "-c", outsidePython, s.Ready.AWS, access, secret)
		cmd.Env = append(os.Environ(), "AWS_MAX_ATTEMPTS=1")
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	id, access, secret := key("deploy")
	if got, want := run(access, secret), "AWS.SimpleQueueService.NonExistentQueue\nSignatureDoesNotMatch\narn:aws:iam::000000000000:user/deploy\n"; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if r := ebb.Run(t, dir, "keys", "revoke", id, "--data", data); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	if got := run(access, secret); !strings.Contains(got, "UnrecognizedClientException") {
		t.Errorf("a revoked key: %s", got)
	}
	_, access, secret = key("read")
	if got := run(access, secret); !strings.Contains(got, "not authorized to perform: sqs:CreateQueue") {
		t.Errorf("a key that may read: %s", got)
	}
}
