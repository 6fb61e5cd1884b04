package faults

import (
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/artifact"
)

// handler tells the sink each number that it gets, and fails where the sink says so. It takes direct payloads, rules' events and messages of a queue.
const handler = `
import http.client, json, os

conn = None

def tell(n):
    global conn
    for last in (False, True):
        try:
            if conn is None:
                conn = http.client.HTTPConnection(os.environ["SINK"], timeout=60)
            conn.request("POST", "/", n)
            r = conn.getresponse()
            r.read()
            return r.status == 200
        except Exception:
            conn = None
            if last:
                raise

def hello(event, context):
    if "Records" in event:
        bad = [{"itemIdentifier": r["messageId"]} for r in event["Records"] if not tell(r["body"])]
        return {"batchItemFailures": bad}
    if event.get("source") == "aws.events":
        n = "slot/" + event["time"]
    else:
        n = event["detail"]["n"] if "detail" in event else event["n"]
    if not tell(n):
        raise Exception("told to fail")
    return {"n": n}
`

// sink is what functions tell of each number that reaches them.
type sink struct {
	addr string
	mu   struct {
		sync.Mutex
		round  int
		ran    map[string][]int // rounds in which a number came and its handler did not fail
		failed map[string]int   // how often its handler failed
		healed bool             // what is poison succeeds
		wait   int              // hits until held
		held   func()           // called once then, while the handler waits
	}
}

// poison says whether a number's handler fails.
func poison(n string) bool { return strings.HasSuffix(n, "z") }

func newSink(t *testing.T) *sink {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &sink{addr: l.Addr().String()}
	s.mu.ran, s.mu.failed = map[string][]int{}, map[string]int{}
	srv := &http.Server{Handler: s}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(l) })
	t.Cleanup(func() { _ = srv.Close(); wg.Wait() })
	return s
}

// ServeHTTP takes a number.
func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // its sender is gone
	}
	status, held := s.take(string(body))
	if held != nil {
		held()
	}
	w.WriteHeader(status)
}

func (s *sink) take(n string) (status int, held func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.held != nil {
		if s.mu.wait--; s.mu.wait <= 0 {
			held, s.mu.held = s.mu.held, nil
		}
	}
	if poison(n) && !s.mu.healed {
		s.mu.failed[n]++
		return http.StatusTeapot, held
	}
	s.mu.ran[n] = append(s.mu.ran[n], s.mu.round)
	return http.StatusOK, held
}

// begin numbers a round; held is called in the n-th handler that tells something from now on.
func (s *sink) begin(round, n int, held func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.round, s.mu.wait, s.mu.held = round, n, held
}

func (s *sink) heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.healed = true
}

// seen gives the rounds in which a number's handler ran to its end, and how often it failed.
func (s *sink) seen(n string) (ran []int, failed int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.ran[n], s.mu.failed[n]
}

// Names of what deploy makes.
const (
	function = "faults-dev-work"
	jobs     = "faults-dev-Jobs"
	dead     = "faults-dev-Dead"
	ruleName = "trigger/default/faults/dev/Rule/work"
)

// deployment is an App with one Function that takes everything: a rule, and a queue with dead letters. A failure is final at once, but in the queue.
func deployment(sink string) *app.App {
	none, eight := 0, 8
	return &app.App{
		Name: "faults", Stage: "dev", Region: "us-east-1",
		Functions: []app.Function{{
			Key: "work", Name: function, ID: "Work", Runtime: "python3.11", Handler: "handler.hello", MemoryMB: 128, TimeoutSec: 60, Reserved: &eight,
			Env: map[string]app.Value{"SINK": app.Lit(sink)}, Async: &app.Async{MaxRetries: &none},
		}},
		Resources: []app.Resource{
			{ID: "Dead", Kind: app.Queue, Type: "AWS::SQS::Queue"},
			{ID: "Jobs", Kind: app.Queue, Type: "AWS::SQS::Queue", Properties: map[string]any{"VisibilityTimeout": 2,
				"RedrivePolicy": map[string]any{"deadLetterTargetArn": app.Attr("Dead", "Arn"), "maxReceiveCount": 3}}},
		},
		Triggers: []app.Trigger{
			{ID: "Rule", Function: "work", Kind: "eventBridge", Enabled: true, Settings: map[string]any{"EventPattern": map[string]any{"source": []any{"/faults"}}}},
			{ID: "Jobs", Function: "work", Kind: "sqs", Enabled: true, Source: app.Attr("Jobs", "Arn"), Settings: map[string]any{
				"BatchSize": 10, "FunctionResponseTypes": []any{"ReportBatchItemFailures"}, "ScalingConfig": map[string]any{"MaximumConcurrency": 4}}},
		},
	}
}

// deploy puts an App on a server, with the code for all of its Functions.
func deploy(t *testing.T, n *node, a *app.App, code string) {
	t.Helper()
	if _, err := exec.LookPath("python3.11"); err != nil {
		t.Skip("needs python3.11")
	}
	digest, err := n.PutTree(t.Context(), artifact.FromFiles(artifact.File{Path: "handler.py", Mode: 0o644, Data: []byte(code)}), nil)
	if err != nil {
		t.Fatal(err)
	}
	r := api.DeployRequest{App: a}
	for _, f := range a.Functions {
		r.Units = append(r.Units, api.Unit{Key: f.Key, Code: digest, Runtime: f.Runtime, Handler: f.Handler})
	}
	got, err := n.Deploy(t.Context(), r)
	if err != nil {
		t.Fatalf("deploy: %v\n%s", err, n.said)
	}
	for _, w := range got.Warnings {
		t.Log("deploy:", w)
	}
}
