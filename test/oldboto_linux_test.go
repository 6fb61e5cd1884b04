package test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// debianPython is where Debian has Python's packages: its boto3 is older than AWS_ENDPOINT_URL and than SQS's JSON.
const debianPython = "/usr/lib/python3/dist-packages"

// oldBoto3 gives Debian's Python with a boto3 before 1.28.
func oldBoto3(t *testing.T) (python string) {
	t.Helper()
	python = "/usr/bin/python3"
	out, err := exec.Command(python, "-c", "import boto3, sys; assert boto3.__file__.startswith(sys.argv[1]); print(boto3.__version__)", debianPython).CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "1.2") {
		t.Skipf("needs Debian 12's package python3-boto3, 1.26: %v %s", err, out)
	}
	return python
}

// An old boto3 is answered what a new one is, in the query protocol where it speaks that.
func TestWire_AnOldBoto3FromOutside(t *testing.T) {
	t.Parallel()
	python := oldBoto3(t)
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	s := ebb.Start(t, dir, data, "serve", "--listen", "127.0.0.1:0")
	_, access, secret := accessKey(t, dir, data, "deploy")
	for script, last := range map[string]string{"sns.py": "all of SNS\n", "parameters.py": "all of secrets\n"} {
		out, err := exec.CommandContext(t.Context(), python, "-W", "ignore", "testdata/"+script, s.Ready.AWS, access, secret).CombinedOutput()
		if err != nil || !strings.HasSuffix(string(out), last) {
			t.Errorf("%s: %v\n%s", script, err, out)
		}
	}
	answers, wrong := opinion(t, python, s.Ready.AWS, access, secret)
	for _, line := range wrong {
		t.Error(line)
	}
	if len(answers) < 240 {
		t.Errorf("only %d calls were answered", len(answers))
	}
}

// A function that brings an old boto3 finds services where that looks for them: it knows no endpoint but AWS's own.
func TestWire_AnOldBoto3InAFunction(t *testing.T) {
	t.Parallel()
	oldBoto3(t)
	dir := project(t, map[string]string{
		"serverless.yml": `service: old
provider: {name: aws, runtime: python3.11, region: eu-west-1, timeout: 60}
functions:
  f: {handler: f.handler}
`,
		"f.py": `import boto3, boto3.session
def handler(event, context):
    q = boto3.resource('sqs').create_queue(QueueName='old')
    q.send_message(MessageBody='x', MessageAttributes={'b': {'DataType': 'Binary', 'BinaryValue': b'\0'}})
    m = q.receive_messages(WaitTimeSeconds=20, MessageAttributeNames=['All'])[0]
    t = boto3.resource('dynamodb', region_name='us-west-2').create_table(TableName='old', BillingMode='PAY_PER_REQUEST',
        AttributeDefinitions=[{'AttributeName': 'k', 'AttributeType': 'S'}], KeySchema=[{'AttributeName': 'k', 'KeyType': 'HASH'}])
    t.wait_until_exists()
    t.put_item(Item={'k': 'a', 'n': 1})
    s3 = boto3.client('s3')
    s3.create_bucket(Bucket='old-boto3', CreateBucketConfiguration={'LocationConstraint': 'eu-west-1'})
    s3.put_object(Bucket='old-boto3', Key='a b', Body=b'object')
    return [boto3.__version__[:4], m.body, m.message_attributes['b']['BinaryValue'].hex(), str(t.get_item(Key={'k': 'a'})['Item']['n']), s3.get_object(Bucket='old-boto3', Key='a b')['Body'].read().decode()]
`,
	})
	for _, name := range []string{"boto3", "botocore", "s3transfer", "jmespath", "dateutil", "urllib3", "six.py"} {
		vendor(t, filepath.Join(debianPython, name), filepath.Join(dir, name))
	}
	data := filepath.Join(t.TempDir(), "data")
	s := ebb.Start(t, dir, data, "up", "--listen", "127.0.0.1:0")
	if strings.Contains(s.Stderr(), "not isolated") {
		t.Skip("names are captured in sandboxes alone, which this machine does not give")
	}
	if r := ebb.Run(t, dir, "invoke", "f"); strings.ReplaceAll(strings.TrimSpace(r.Stdout), " ", "") != `["1.26","x","00","1","object"]` {
		t.Errorf("%+v\n%s", r, ebb.Run(t, dir, "logs", "f").Stdout)
	}
}

// vendor copies a package, of botocore's models only those that the function needs.
func vendor(t *testing.T, from, to string) {
	t.Helper()
	services := []string{"sqs", "dynamodb", "s3", "sts"}
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if filepath.Base(filepath.Dir(path)) == "data" && !slices.Contains(services, d.Name()) || d.Name() == "__pycache__" {
				return fs.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		text, err := os.ReadFile(path) // through links too
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), text, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
}
