package server_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
	"github.com/ebb-run/ebb/internal/server"
)

func resource(id, typ string, properties map[string]any) app.Resource {
	kind := map[string]string{"AWS::SNS::Topic": app.Topic, "AWS::SQS::Queue": app.Queue}[typ]
	if kind == "" {
		kind = app.Foreign
	}
	res := app.Resource{ID: id, Kind: kind, Type: typ, Properties: properties}
	for _, key := range []string{"TopicName", "QueueName"} {
		if name, ok := properties[key].(string); ok {
			res.Name = app.Lit(name)
		}
	}
	return res
}

// endpoint is an HTTP server that records what is posted to it.
type endpoint struct {
	*httptest.Server
	status int
	mu     sync.Mutex
	bodies []string
	heads  []http.Header
}

func listen(t *testing.T, status int) *endpoint {
	t.Helper()
	e := &endpoint{status: status}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		e.bodies, e.heads = append(e.bodies, string(data)), append(e.heads, r.Header)
		w.WriteHeader(e.status)
	}))
	t.Cleanup(e.Close)
	return e
}

func (e *endpoint) got() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.bodies)
}

// patience bounds waits; an invocation that is tried again comes after a minute.
const patience = 3 * time.Minute

// eventually asks until the answer is right.
func eventually(t *testing.T, n *node, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) { // there is nothing to wait on but the answer
		if time.Now().After(limit) {
			t.Fatalf("%s: not within %v\n%s", what, patience, n.log)
		}
	}
}

// inQueue gives the messages of a queue without receiving them.
func inQueue(t *testing.T, n *node, queue string) []bus.Received {
	t.Helper()
	var out []bus.Received
	for after := ""; ; {
		page, err := server.Peek(t.Context(), n.Server, queue, after)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			return out
		}
		out, after = append(out, page...), page[len(page)-1].Receipt
	}
}

// logs is all that functions have logged.
func (n *node) logs(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	err := n.client.Logs(t.Context(), api.LogQuery{}, nil, func(r api.LogRecord) error { out.WriteString(r.Text + "\n"); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func (n *node) note(t *testing.T, topic string, m api.TopicMessage) string {
	t.Helper()
	got, err := n.client.PublishTopic(t.Context(), topic, m)
	if err != nil {
		t.Fatal(err)
	}
	return got.ID
}

// One publication reaches a function, a queue and an endpoint; targets that fail hold up nobody, and what they do not take is in their dead-letter queues.
func TestTopics_FanOutPastBrokenTargets(t *testing.T) {
	t.Parallel()
	good, bad := listen(t, http.StatusNoContent), listen(t, http.StatusServiceUnavailable)
	n := openWith(t, filepath.Join(t.TempDir(), "data"), map[string]string{"egress": "anything,127.0.0.1"})
	a, tree := shop("shop", "dev", `exports.hello = async (e) => { console.log("GOT", e.Records[0].Sns.Message, e.Records[0].EventSubscriptionArn); };`)
	subscription := func(id string, properties map[string]any) app.Resource {
		properties["TopicArn"] = app.Attr("News", "Ref")
		return resource(id, "AWS::SNS::Subscription", properties)
	}
	dead := map[string]any{"deadLetterTargetArn": app.Attr("Dead", "Arn")}
	fast := map[string]any{"healthyRetryPolicy": map[string]any{"numRetries": 1, "minDelayTarget": 1, "maxDelayTarget": 1}}
	a.Resources = []app.Resource{
		resource("News", "AWS::SNS::Topic", map[string]any{"TopicName": "news"}),
		resource("Jobs", "AWS::SQS::Queue", map[string]any{"QueueName": "jobs"}),
		resource("Dead", "AWS::SQS::Queue", map[string]any{"QueueName": "dead"}),
		subscription("ToQueue", map[string]any{"Protocol": "sqs", "Endpoint": app.Attr("Jobs", "Arn")}),
		subscription("ToGood", map[string]any{"Protocol": "http", "Endpoint": good.URL + "/hook"}),
		subscription("ToRaw", map[string]any{"Protocol": "http", "Endpoint": good.URL + "/raw", "RawMessageDelivery": true, "FilterPolicy": `{"raw":["yes"]}`,
			"DeliveryPolicy": map[string]any{"requestPolicy": map[string]any{"headerContentType": "application/json"}}}),
		subscription("ToBad", map[string]any{"Protocol": "http", "Endpoint": bad.URL, "RedrivePolicy": dead, "DeliveryPolicy": fast}),
		subscription("ToNobody", map[string]any{"Protocol": "http", "Endpoint": "http://169.254.169.254/latest/meta-data", "RedrivePolicy": dead}),
		subscription("ToNothing", map[string]any{"Protocol": "sqs", "Endpoint": "arn:aws:sqs:us-east-1:123456789012:nothere", "RedrivePolicy": dead}),
	}
	a.Triggers = []app.Trigger{{ID: "Sub", Function: "hello", Kind: "sns", Enabled: true, Source: app.Attr("News", "Ref")}}
	d, err := n.deploy(t, a, tree)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Warnings) != 1 || !strings.Contains(d.Warnings[0], "queue nothere") {
		t.Errorf("warnings %q, want one of a queue that is not there", d.Warnings)
	}
	const many = 20
	want := map[string]bool{}
	for i := range many {
		m := api.TopicMessage{Message: fmt.Sprint("m", i), Subject: "s", Attributes: map[string]api.MessageAttribute{"n": {Type: "Number", Value: fmt.Sprint(i)}}}
		if i == 7 {
			m.Attributes["raw"] = api.MessageAttribute{Value: "yes"}
		}
		n.note(t, "arn:aws:sns:eu-west-1:000000000000:news", m)
		want[m.Message] = true
	}
	eventually(t, n, "the queue has all", func() bool { return len(inQueue(t, n, "jobs")) == many })
	eventually(t, n, "the endpoint has all", func() bool { return len(good.got()) == many+1 })
	for i := range many {
		eventually(t, n, "the function ran", func() bool { return strings.Contains(n.logs(t), fmt.Sprintf("GOT m%d arn:aws:sns:us-east-1:", i)) })
	}
	for _, m := range inQueue(t, n, "jobs") {
		var notice struct{ Type, Message, Subject, TopicArn, MessageID string }
		if err := json.Unmarshal(m.Body, &notice); err != nil || notice.Type != "Notification" || notice.Subject != "s" || !want[notice.Message] || !strings.HasSuffix(notice.TopicArn, ":news") {
			t.Errorf("the queue has %s", m.Body)
		}
		delete(want, notice.Message)
	}
	raws := 0
	for i, body := range good.got() {
		h := good.heads[i]
		if h.Get("X-Amz-Sns-Message-Type") != "Notification" || !strings.HasSuffix(h.Get("X-Amz-Sns-Topic-Arn"), ":news") || h.Get("X-Amz-Sns-Message-Id") == "" {
			t.Errorf("header %v", h)
		}
		if h.Get("X-Amz-Sns-Rawdelivery") == "true" {
			raws++
			if body != "m7" || h.Get("Content-Type") != "application/json" {
				t.Errorf("raw: %s %v", body, h)
			}
		} else if !strings.Contains(body, `"Type":"Notification"`) || h.Get("Content-Type") != "text/plain; charset=UTF-8" {
			t.Errorf("%s %v", body, h)
		}
	}
	if raws != 1 {
		t.Errorf("%d raw messages, want 1", raws)
	}
	eventually(t, n, "the dead-letter queue has what three did not take", func() bool { return len(inQueue(t, n, "dead")) == 3*many })
	codes := map[string]int{}
	for _, m := range inQueue(t, n, "dead") {
		codes[m.Attributes["ErrorCode"].Text]++
		if m.Attributes["RequestID"].Text == "" || m.Attributes["ErrorMessage"].Text == "" || !strings.Contains(string(m.Body), `"Type":"Notification"`) {
			t.Errorf("dead letter %s %v", m.Body, m.Attributes)
		}
	}
	if codes["200"] != many || codes["403"] != many || codes["404"] != many {
		t.Errorf("error codes of dead letters: %v", codes)
	}
	faults := map[string]string{"/hook": "", bad.URL: "exhausted: " + bad.URL + " answered 503", "169.254": "refused: ", "nothere": "refused: there is no queue"}
	list, err := n.client.TopicSubscriptions(t.Context(), "news")
	if err != nil || len(list) != 7 {
		t.Errorf("%+v, %v", list, err)
	}
	for _, sub := range list {
		for part, fault := range faults {
			if strings.Contains(sub.Endpoint, part) && (!strings.HasPrefix(sub.Fault, fault) || fault == "" && sub.Fault != "") {
				t.Errorf("%s: %q, want %q", sub.Endpoint, sub.Fault, fault)
			}
		}
	}
	if k := len(bad.got()); k < 2*many { // a crash would add to it, nothing takes away
		t.Errorf("the broken endpoint was asked %d times, want %d", k, 2*many)
	}
	if err := n.client.Remove(t.Context(), "shop", "dev"); err != nil {
		t.Fatal(err)
	}
	if _, err := n.client.PublishTopic(t.Context(), "news", api.TopicMessage{Message: "x"}); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("publish to the topic of a removed app: %v", err)
	}
	if list, err := n.client.Subscriptions(t.Context()); err != nil || slices.ContainsFunc(list, func(s api.SubscriptionInfo) bool { return strings.HasPrefix(s.Name, "trigger/") }) {
		t.Errorf("after the removal %v, %v stand", list, err)
	}
}

// In a FIFO topic groups keep their order and duplicates are dropped, through to a FIFO queue.
func TestTopics_FIFOThroughToQueues(t *testing.T) {
	t.Parallel()
	n := open(t, filepath.Join(t.TempDir(), "data"))
	a, tree := shop("shop", "dev", says("x"))
	a.Resources = []app.Resource{
		resource("T", "AWS::SNS::Topic", map[string]any{"TopicName": "t.fifo", "FifoTopic": true, "ContentBasedDeduplication": true}),
		resource("Q", "AWS::SQS::Queue", map[string]any{"QueueName": "q.fifo", "FifoQueue": true}),
		resource("P", "AWS::SQS::Queue", map[string]any{"QueueName": "plain"}),
		resource("S", "AWS::SNS::Subscription", map[string]any{"Protocol": "sqs", "Endpoint": app.Attr("Q", "Arn"), "TopicArn": app.Attr("T", "Ref"), "RawMessageDelivery": "true"}),
		resource("R", "AWS::SNS::Subscription", map[string]any{"Protocol": "sqs", "Endpoint": app.Attr("P", "Arn"), "TopicArn": app.Attr("T", "Ref")}),
	}
	if d, err := n.deploy(t, a, tree); err != nil || len(d.Warnings) > 0 {
		t.Fatal(d, err)
	}
	const many = 30
	want := map[string][]string{}
	for i := range many {
		m := api.TopicMessage{Message: fmt.Sprint(i), Group: fmt.Sprint("g", i%4)}
		if i%5 == 0 {
			m.Dedup = fmt.Sprint("d", i)
		}
		first := n.note(t, "t.fifo", m)
		if again := n.note(t, "t.fifo", m); again != first {
			t.Errorf("a duplicate has the ID %s, the first %s", again, first)
		}
		want[m.Group] = append(want[m.Group], m.Message)
	}
	eventually(t, n, "both queues have all", func() bool { return len(inQueue(t, n, "q.fifo")) == many && len(inQueue(t, n, "plain")) == many })
	got := map[string][]string{}
	for _, m := range inQueue(t, n, "q.fifo") {
		got[m.Group] = append(got[m.Group], string(m.Body))
		if i := string(m.Body); strings.HasSuffix(i, "5") || strings.HasSuffix(i, "0") {
			if m.Dedup != "d"+i {
				t.Errorf("%s has the dedup ID %s", i, m.Dedup)
			}
		}
	}
	for g := range want {
		if !slices.Equal(got[g], want[g]) {
			t.Errorf("group %s: %v, want %v", g, got[g], want[g])
		}
	}
	for _, m := range inQueue(t, n, "plain") {
		var notice struct{ Message, SequenceNumber string }
		if err := json.Unmarshal(m.Body, &notice); err != nil || len(notice.SequenceNumber) != 20 {
			t.Errorf("%s, %v", m.Body, err)
		}
	}
}

// Rules deliver to queues and topics, and what a target does not take is in the rule's dead-letter queue.
func TestRules_DeliverToQueuesAndTopics(t *testing.T) {
	t.Parallel()
	n := open(t, filepath.Join(t.TempDir(), "data"))
	a, tree := shop("shop", "dev", says("x"))
	dead := map[string]any{"Arn": app.Attr("Dead", "Arn")}
	a.Resources = []app.Resource{
		resource("Q", "AWS::SQS::Queue", map[string]any{"QueueName": "q"}),
		resource("F", "AWS::SQS::Queue", map[string]any{"QueueName": "f.fifo", "FifoQueue": true}),
		resource("Dead", "AWS::SQS::Queue", map[string]any{"QueueName": "dead"}),
		resource("T", "AWS::SNS::Topic", map[string]any{"TopicName": "t", "Subscription": []any{map[string]any{"Protocol": "sqs", "Endpoint": app.Attr("Q", "Arn")}}}),
		resource("Rule", "AWS::Events::Rule", map[string]any{"EventPattern": map[string]any{"source": []any{"s"}}, "Targets": []any{
			map[string]any{"Id": "1", "Arn": app.Attr("Q", "Arn"), "InputPath": "$.detail.n"},
			map[string]any{"Id": "2", "Arn": app.Attr("F", "Arn"), "SqsParameters": map[string]any{"MessageGroupId": "g"}},
			map[string]any{"Id": "3", "Arn": app.Attr("T", "Ref")},
			map[string]any{"Id": "4", "Arn": "arn:aws:sqs:us-east-1:1:nothere", "DeadLetterConfig": dead, "RetryPolicy": map[string]any{"MaximumRetryAttempts": 1}},
			map[string]any{"Id": "5", "Arn": "arn:aws:states:us-east-1:1:stateMachine:x"},
		}}),
		resource("Off", "AWS::Events::Rule", map[string]any{"State": "DISABLED", "EventPattern": map[string]any{"source": []any{"s"}}, "Targets": []any{map[string]any{"Id": "1", "Arn": app.Attr("Q", "Arn")}}}),
		resource("Tick", "AWS::Events::Rule", map[string]any{"ScheduleExpression": "rate(7 days)", "Targets": []any{map[string]any{"Id": "1", "Arn": app.Attr("Q", "Arn"), "Input": `{"tick":1}`}}}),
	}
	d, err := n.deploy(t, a, tree)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Warnings) != 2 || !strings.Contains(d.Warnings[0], "rule Rule/5") || !strings.Contains(d.Warnings[1], "queue nothere") {
		t.Errorf("warnings %q", d.Warnings)
	}
	e := &event.Event{ID: "one", Source: "s", Type: "t", DataContentType: "application/json", Data: []byte(`{"n":{"a":1}}`)}
	if err := n.Publish(t.Context(), "", []*event.Event{e}); err != nil {
		t.Fatal(err)
	}
	eventually(t, n, "queues and dead letters", func() bool {
		return len(inQueue(t, n, "q")) == 2 && len(inQueue(t, n, "f.fifo")) == 1 && len(inQueue(t, n, "dead")) == 1
	})
	bodies := []string{}
	for _, m := range inQueue(t, n, "q") {
		bodies = append(bodies, string(m.Body))
	}
	slices.Sort(bodies)
	if bodies[1] != `{"a":1}` && bodies[0] != `{"a":1}` || !strings.Contains(bodies[0]+bodies[1], `\"detail-type\":\"t\"`) {
		t.Errorf("the queue has %q", bodies)
	}
	if f := inQueue(t, n, "f.fifo")[0]; f.Group != "g" || !strings.Contains(string(f.Body), `"detail":{"n":{"a":1}}`) {
		t.Errorf("the FIFO queue has %s in %s", f.Body, f.Group)
	}
	m := inQueue(t, n, "dead")[0]
	if !strings.Contains(string(m.Body), `"id":"one"`) || m.Attributes["ERROR_CODE"].Text != "RESOURCE_NOT_FOUND" || !strings.HasSuffix(m.Attributes["TARGET_ARN"].Text, ":nothere") || !strings.HasSuffix(m.Attributes["RULE_ARN"].Text, ":rule/Rule") {
		t.Errorf("the dead letter is %s %v", m.Body, m.Attributes)
	}
	if list, err := n.client.Schedules(t.Context(), 1); err != nil || len(list) != 1 || list[0].Target != "queue q" {
		t.Errorf("schedules %+v, %v", list, err)
	}
}

// Functions tell queues and topics how their invocations ended, and dead letters have the event with what was wrong.
func TestDestinations_AreQueuesAndTopics(t *testing.T) {
	t.Parallel()
	n := open(t, filepath.Join(t.TempDir(), "data"))
	a, tree := shop("shop", "dev", `exports.hello = async (e) => { if (e.bad) throw new Error("no, not " + e.bad); return {ok: e}; };`)
	zero := 0
	a.Functions[0].Async = &app.Async{MaxRetries: &zero, OnSuccess: app.Attr("Good", "Arn"), OnFailure: app.Attr("T", "Ref"), DeadLetter: app.Attr("Dead", "Arn")}
	a.Resources = []app.Resource{
		resource("Good", "AWS::SQS::Queue", map[string]any{"QueueName": "good"}), resource("Told", "AWS::SQS::Queue", map[string]any{"QueueName": "told"}),
		resource("Dead", "AWS::SQS::Queue", map[string]any{"QueueName": "dead"}),
		resource("T", "AWS::SNS::Topic", map[string]any{"TopicName": "t", "Subscription": []any{map[string]any{"Protocol": "sqs", "Endpoint": app.Attr("Told", "Arn")}}}),
	}
	if d, err := n.deploy(t, a, tree); err != nil || len(d.Warnings) > 0 {
		t.Fatal(d, err)
	}
	ids := map[string]string{}
	for _, payload := range []string{`{"n":1}`, `{"bad":2}`} {
		got, err := n.client.InvokeAsync(t.Context(), "hello", []byte(payload), "")
		if err != nil {
			t.Fatal(err)
		}
		ids[payload] = got.ID
	}
	eventually(t, n, "all are told", func() bool {
		return len(inQueue(t, n, "good")) == 1 && len(inQueue(t, n, "told")) == 1 && len(inQueue(t, n, "dead")) == 1
	})
	if m := string(inQueue(t, n, "good")[0].Body); !strings.Contains(m, `"condition":"Success"`) || !strings.Contains(m, `"responsePayload":{"ok":{"n":1}}`) {
		t.Errorf("on success: %s", m)
	}
	if m := string(inQueue(t, n, "told")[0].Body); !strings.Contains(m, `RetriesExhausted`) || !strings.Contains(m, `"Type":"Notification"`) {
		t.Errorf("on failure: %s", m)
	}
	m := inQueue(t, n, "dead")[0]
	if string(m.Body) != `{"bad":2}` || m.Attributes["RequestID"].Text != ids[`{"bad":2}`] || m.Attributes["ErrorCode"].Text != "200" || !strings.Contains(m.Attributes["ErrorMessage"].Text, "no, not 2") {
		t.Errorf("the dead letter is %s %v", m.Body, m.Attributes)
	}
}

// A retained topic outlives its app; another app does not take it over.
func TestTopics_BelongToTheirStack(t *testing.T) {
	t.Parallel()
	n := open(t, filepath.Join(t.TempDir(), "data"))
	a, tree := shop("shop", "dev", says("x"))
	a.Resources = []app.Resource{resource("A", "AWS::SNS::Topic", map[string]any{"TopicName": "kept"}), resource("B", "AWS::SNS::Topic", map[string]any{"TopicName": "gone"})}
	a.Resources[0].Retain = true
	if _, err := n.deploy(t, a, tree); err != nil {
		t.Fatal(err)
	}
	if err := n.client.Remove(t.Context(), "shop", "dev"); err != nil {
		t.Fatal(err)
	}
	list, err := n.client.Topics(t.Context())
	if err != nil || len(list) != 1 || list[0].Name != "kept" {
		t.Errorf("%v, %v", list, err)
	}
	b, tree := shop("other", "dev", says("x"))
	b.Resources = []app.Resource{resource("A", "AWS::SNS::Topic", map[string]any{"TopicName": "kept"})}
	d, err := n.deploy(t, b, tree)
	if err != nil || len(d.Warnings) != 1 || !strings.Contains(d.Warnings[0], "topic kept belongs to default/shop/dev") {
		t.Errorf("%v, %v", d, err)
	}
}
