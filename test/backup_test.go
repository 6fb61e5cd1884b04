package test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/testkit/harness"
)

const backupYAML = `service: kept
provider: {name: aws, runtime: nodejs20.x, region: us-east-1, timeout: 10}
functions:
  hello: {handler: hello.handler, events: [{httpApi: 'GET /hello'}], environment: {WORD: '${ssm:/kept/word}'}}
  work: {handler: work.handler, runtime: python3.11, events: [{sqs: {arn: !GetAtt Jobs.Arn, batchSize: 10, functionResponseType: ReportBatchItemFailures}}]}
resources:
  Resources:
    Jobs: {Type: AWS::SQS::Queue, Properties: {QueueName: backup-jobs, VisibilityTimeout: 12}}
    Files: {Type: AWS::S3::Bucket, Properties: {BucketName: backup-files}}
    Orders:
      Type: AWS::DynamoDB::Table
      Properties:
        TableName: orders
        BillingMode: PAY_PER_REQUEST
        AttributeDefinitions: [{AttributeName: id, AttributeType: S}]
        KeySchema: [{AttributeName: id, KeyType: HASH}]
`

// work does each message by one item.
const backupWork = `import boto3
table = boto3.resource('dynamodb').Table('orders')
def handler(event, context):
    for r in event['Records']:
        table.put_item(Item={'id': 'done/' + r['body']})
    return {'batchItemFailures': []}
`

// acks is what a load was told, by "t 0-17".
type acks struct {
	mu   sync.Mutex
	seen map[string]bool
}

func (a *acks) has() map[string]bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make(map[string]bool, len(a.seen))
	for k := range a.seen {
		out[k] = true
	}
	return out
}

func (a *acks) read(cmd *exec.Cmd, t *testing.T) (ended chan struct{}) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	ended = make(chan struct{})
	go func() {
		defer close(ended)
		for scan := bufio.NewScanner(out); scan.Scan(); {
			a.mu.Lock()
			a.seen[scan.Text()] = true
			a.mu.Unlock()
		}
		_ = cmd.Wait()
	}()
	return ended
}

// keptServer serves the project, and gives what signs calls of AWS's services.
func keptServer(t *testing.T) (s *harness.Server, data, access, secret string) {
	t.Helper()
	if out, err := exec.Command("python3", "-c", "import boto3").CombinedOutput(); err != nil {
		t.Skipf("needs python3 with boto3: %v %s", err, out)
	}
	dir := project(t, map[string]string{"serverless.yml": backupYAML, "work.py": backupWork, "hello.js": `exports.handler = async () => ({ statusCode: 200, body: process.env.WORD });`})
	data = filepath.Join(t.TempDir(), "data")
	s = ebb.Start(t, dir, data, "serve", "--listen", "127.0.0.1:0")
	if strings.Contains(s.Stderr(), "not isolated") {
		t.Skip("functions reach their table in sandboxes alone, which this machine does not give")
	}
	r := ebb.Run(t, dir, "keys", "create", "load", "--role", "deploy", "--json", "--data", data)
	var k struct{ AccessKeyID, SecretAccessKey string }
	if err := json.Unmarshal([]byte(r.Stdout), &k); err != nil {
		t.Fatalf("%+v %v", r, err)
	}
	put := `import boto3, sys
boto3.client('ssm', endpoint_url=sys.argv[1], region_name='us-east-1', aws_access_key_id=sys.argv[2], aws_secret_access_key=sys.argv[3]).put_parameter(Name='/kept/word', Value='sesame', Type='SecureString')`
	if out, err := exec.Command("python3", "-W", "ignore", "-c", put, s.Ready.AWS, k.AccessKeyID, k.SecretAccessKey).CombinedOutput(); err != nil {
		t.Fatalf("put parameter: %v %s", err, out)
	}
	if r := ebb.Run(t, dir, "deploy", "--data", data); r.Code != 0 {
		t.Fatalf("deploy: %+v", r)
	}
	return s, data, k.AccessKeyID, k.SecretAccessKey
}

// there lists what a server has: items with their numbers, or objects, each of which was read.
func there(t *testing.T, s *harness.Server, what, access, secret string) map[string]string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "python3", "-W", "ignore", "testdata/backupload.py", what, s.Ready.AWS, access, secret).Output()
	if err != nil {
		t.Fatalf("list %s: %v %s", what, err, out)
	}
	all := map[string]string{}
	for line := range strings.Lines(string(out)) {
		words := strings.Split(strings.TrimSuffix(line, "\n"), " ")
		all[words[1]] = strings.Join(words[2:], " ")
	}
	return all
}

// A backup is taken under load, the server is killed, and the backup restored elsewhere.
func TestBackup_UnderLoadHoldsWhatWasAcknowledgedAndIsOfOneMoment(t *testing.T) {
	t.Parallel()
	s, data, access, secret := keptServer(t)
	told := &acks{seen: map[string]bool{}}
	cmd := exec.Command("python3", "-W", "ignore", "testdata/backupload.py", "load", s.Ready.AWS, access, secret)
	ended := told.read(cmd, t)
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	eventually(t, "some load", func() bool { return len(told.has()) > 300 })

	file := filepath.Join(t.TempDir(), "b.tar")
	var before map[string]bool
	for range 3 { // of which the last counts
		_ = os.Remove(file)
		before = told.has()
		if r := ebb.Run(t, t.TempDir(), "data", "backup", "-o", file, "--data", data); r.Code != 0 {
			t.Fatalf("backup: %+v", r)
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup has mode %v, %v", info.Mode(), err)
	}
	eventually(t, "the load goes on", func() bool { return len(told.has()) > len(before)+100 })
	s.Kill()
	<-ended
	after := told.has()

	again := filepath.Join(t.TempDir(), "elsewhere")
	if r := ebb.Run(t, t.TempDir(), "data", "restore", file, "--data", again); r.Code != 0 {
		t.Fatalf("restore: %+v", r)
	}
	s2 := ebb.Start(t, t.TempDir(), again, "serve", "--listen", "127.0.0.1:0")
	if status, body := get(http.DefaultClient, s2.Ready.Gateway+"/hello"); status != 200 || body != "sesame" {
		t.Errorf("the function answers %d %q", status, body)
	}
	items, objects := there(t, s2, "items", access, secret), there(t, s2, "objects", access, secret)
	counted := checkRestored(t, before, items, objects)

	// What was in the queue, or being worked on, is done; what was done before stays done.
	undone := func() (n int) {
		have := there(t, s2, "items", access, secret)
		for k := range before {
			if num, ok := strings.CutPrefix(k, "q "); ok {
				if _, done := have["done/"+num]; !done {
					n++
				}
			}
		}
		return n
	}
	// A message that was in flight at that moment comes again when its visibility timeout ends.
	for end := time.Now().Add(3 * time.Minute); undone() > 0; time.Sleep(time.Second) { // polling, not timing
		if time.Now().After(end) {
			t.Fatalf("%d messages that were acknowledged before the backup are not done", undone())
		}
	}
	t.Logf("%d acknowledged before the backup, %d until the kill; %s", len(before), len(after), counted)
}

// checkRestored counts what was acknowledged before the backup and is not there, and what is there without what came before it.
func checkRestored(t *testing.T, before map[string]bool, items, objects map[string]string) string {
	t.Helper()
	last := [4]int{} // of the items that each thread has put, by what is there
	for w := range last {
		last[w] = -1
		for i := 0; ; i++ {
			if _, ok := items[fmt.Sprintf("t/%d-%d", w, i)]; !ok {
				break
			}
			last[w] = i
		}
	}
	for k := range before {
		kind, n, _ := strings.Cut(k, " ")
		w, _ := strconv.Atoi(n[:1])
		i, _ := strconv.Atoi(n[2:])
		if kind != "end" && i > last[w] {
			t.Errorf("%s was acknowledged before the backup, and item %d is the last that is there", k, last[w])
		}
		// An object stands until four later ones were put.
		if _, ok := objects[n]; kind == "o" && !ok && i > last[w]-4 {
			t.Errorf("object %s is not there, item %d is the last", n, last[w])
		}
	}
	for n := range objects {
		if _, ok := items["t/"+n]; !ok {
			t.Errorf("object %s is there without the item that was put before it", n)
		}
	}
	done := 0
	for k := range items {
		if n, ok := strings.CutPrefix(k, "done/"); ok {
			done++
			if _, ok := items["t/"+n]; !ok {
				t.Errorf("message %s was done, and the item put before it was sent is not there", n)
			}
		}
		if w, ok := strings.CutPrefix(k, "last/"); ok {
			w, _ := strconv.Atoi(w)
			if n, err := strconv.Atoi(items[k]); err != nil || n > last[w] || n < last[w]-1 {
				t.Errorf("thread %d: %s is noted as the last, %d is there", w, items[k], last[w])
			}
		}
	}
	return fmt.Sprintf("restored %d items, %d objects, %d messages done", len(items), len(objects), done)
}
