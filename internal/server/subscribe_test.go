package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
)

// subscribe puts a Subscription.
func (n *node) subscribe(t *testing.T, spec api.SubscriptionSpec) *api.SubscriptionInfo {
	t.Helper()
	doc, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	info, err := n.client.PutSubscription(t.Context(), spec.Name, doc, false)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func (n *node) emit(t *testing.T, on string, e event.Event) {
	t.Helper()
	if e.Source == "" {
		e.Source = "/test"
	}
	if e.Type == "" {
		e.Type = "t"
	}
	if _, err := n.client.Publish(t.Context(), on, &e); err != nil {
		t.Fatal(err)
	}
}

func (n *node) detail(t *testing.T, name string) *api.SubscriptionDetail {
	t.Helper()
	d, err := n.client.Subscription(t.Context(), name, 1000)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

const echo = `exports.hello = async (e) => { console.log("GOT", e.id, e["detail-type"]); if (e.detail.fail) throw new Error("no"); };`

func TestSubscriptions_OutliveRestartsAndTheirTargetsApp(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	n := open(t, dir)
	a, tree := shop("shop", "dev", echo)
	a.Resources = []app.Resource{resource("Jobs", "AWS::SQS::Queue", map[string]any{"QueueName": "jobs"})}
	if _, err := n.deploy(t, a, tree); err != nil {
		t.Fatal(err)
	}
	fast := &api.SubscriptionRetry{MinBackoff: "10ms", MaxBackoff: "50ms"}
	n.subscribe(t, api.SubscriptionSpec{Name: "f", Function: "hello", SQL: "type = 'mine'", Retry: fast})
	n.subscribe(t, api.SubscriptionSpec{Name: "q", Queue: "jobs", Pattern: json.RawMessage(`{"detail-type":["mine"]}`), Retry: fast})
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	n = open(t, dir)
	n.emit(t, "", event.Event{ID: "one", Type: "mine"})
	n.emit(t, "", event.Event{ID: "other"})
	eventually(t, n, "the function ran", func() bool { return strings.Contains(n.logs(t), "GOT one mine") })
	eventually(t, n, "the queue has it", func() bool { return len(inQueue(t, n, "jobs")) == 1 })
	if err := n.client.Remove(t.Context(), "shop", "dev"); err != nil {
		t.Fatal(err)
	}
	for name, why := range map[string]string{"f": "function shop-dev-hello is not deployed", "q": "there is no queue jobs"} {
		if d := n.detail(t, name); d.State != api.SubscriptionResting || d.Reason != why {
			t.Errorf("%s: %q %q", name, d.State, d.Reason)
		}
	}
	n.emit(t, "", event.Event{ID: "two", Type: "mine"})
	for _, name := range []string{"f", "q"} {
		eventually(t, n, "it waits", func() bool { d := n.detail(t, name); return d.Pending == 1 && d.Dead == 0 })
	}
	if _, err := n.deploy(t, a, tree); err != nil {
		t.Fatal(err)
	}
	eventually(t, n, "the function ran with what had waited", func() bool { return strings.Contains(n.logs(t), "GOT two mine") })
	eventually(t, n, "the queue has it", func() bool { return len(inQueue(t, n, "jobs")) == 1 })
	if d := n.detail(t, "q"); d.State != api.SubscriptionActive || d.Spec.Queue != "jobs" {
		t.Errorf("%+v", d)
	}
	if strings.Contains(n.logs(t), "GOT other") {
		t.Error("the filter is forgotten")
	}
	if err := n.client.DeleteSubscription(t.Context(), "f"); err != nil {
		t.Fatal(err)
	}
	if _, err := n.client.Subscription(t.Context(), "f", 0); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("after its deletion: %v", err)
	}
	n.emit(t, "", event.Event{ID: "three", Type: "mine"})
	eventually(t, n, "the queue has it", func() bool { return len(inQueue(t, n, "jobs")) == 2 })
	if strings.Contains(n.logs(t), "GOT three") {
		t.Error("what is deleted takes events")
	}
}

// A deploy gives a Subscription what its function now says: here, who is told of failures. Its own dead letters have what a function failed on.
func TestSubscriptions_FollowTheirFunctionsDeploys(t *testing.T) {
	t.Parallel()
	n := open(t, filepath.Join(t.TempDir(), "data"))
	a, tree := shop("shop", "dev", echo)
	a.Resources = []app.Resource{resource("Told", "AWS::SQS::Queue", map[string]any{"QueueName": "told"}), resource("Dead", "AWS::SQS::Queue", map[string]any{"QueueName": "dead"})}
	if _, err := n.deploy(t, a, tree); err != nil {
		t.Fatal(err)
	}
	n.subscribe(t, api.SubscriptionSpec{Name: "f", Function: "hello", Retry: &api.SubscriptionRetry{Attempts: 1}, DeadLetters: "dead"})
	n.emit(t, "", event.Event{ID: "one", Data: []byte(`{"fail":true}`)})
	eventually(t, n, "the dead letter is in its queue", func() bool { return len(inQueue(t, n, "dead")) == 1 })
	a.Functions[0].Async = &app.Async{OnFailure: app.Attr("Told", "Arn")}
	if _, err := n.deploy(t, a, tree); err != nil {
		t.Fatal(err)
	}
	n.emit(t, "", event.Event{ID: "two", Data: []byte(`{"fail":true}`)})
	eventually(t, n, "the dead letter is in its queue", func() bool { return len(inQueue(t, n, "dead")) == 2 })
	eventually(t, n, "the destination is told", func() bool { return len(inQueue(t, n, "told")) == 1 })
	if got := inQueue(t, n, "told"); !strings.Contains(string(got[0].Body), `"two"`) {
		t.Errorf("told %s", got[0].Body)
	}
	for _, m := range inQueue(t, n, "dead") {
		if !strings.Contains(string(m.Body), `"detail-type":"t"`) || m.Attributes["ERROR_CODE"].Text == "" {
			t.Errorf("dead letter %s %v", m.Body, m.Attributes)
		}
	}
}

func TestSubscriptions_GiveEndpointsEachFormat(t *testing.T) {
	t.Parallel()
	n := openWith(t, filepath.Join(t.TempDir(), "data"), map[string]string{"egress": "anything,127.0.0.1"})
	text := `"<x> of <aws.events.rule-name>"`
	at := map[string]*endpoint{}
	for name, spec := range map[string]api.SubscriptionSpec{
		"binary": {}, "structured": {Format: "cloudevents"}, "data": {Format: "data"}, "envelope": {Format: "eventbridge"},
		"input": {InputTransformer: &api.InputTransformer{Paths: map[string]string{"x": "$.detail.x"}, Template: text}},
	} {
		at[name] = listen(t, http.StatusAccepted)
		spec.Name, spec.Bus, spec.Endpoint = name, "mine", at[name].URL+"/in?a=b"
		n.subscribe(t, spec)
	}
	e := event.Event{ID: "7", Source: "/s", Type: "order.paid", Subject: "a b", DataContentType: "application/json; charset=utf-8", Data: []byte(`{"x": "y"}`)}
	e.SetExtension("tenant", "ann")
	n.emit(t, "mine", e)
	for name, want := range map[string]struct {
		kind  string
		check func(body string, h http.Header) bool
	}{
		"binary": {"application/json; charset=utf-8", func(body string, h http.Header) bool {
			return body == `{"x": "y"}` && h.Get("Ce-Id") == "7" && h.Get("Ce-Specversion") == "1.0" && h.Get("Ce-Subject") == "a%20b" && h.Get("Ce-Tenant") == "ann"
		}},
		"structured": {"application/cloudevents+json", func(body string, h http.Header) bool {
			got, err := event.ParseJSON([]byte(body), 0)
			return err == nil && got.ID == "7" && got.Extension("tenant") == "ann" && string(got.Data) == `{"x": "y"}` && h.Get("Ce-Id") == ""
		}},
		"data":     {"application/json; charset=utf-8", func(body string, _ http.Header) bool { return body == `{"x": "y"}` }},
		"envelope": {"application/json", func(body string, _ http.Header) bool { return strings.Contains(body, `"detail-type":"order.paid"`) }},
		"input":    {"application/json", func(body string, _ http.Header) bool { return body == `"y of input"` }},
	} {
		eventually(t, n, name+" is posted", func() bool { return len(at[name].got()) == 1 })
		body, h := at[name].got()[0], at[name].heads[0]
		if h.Get("Content-Type") != want.kind || !want.check(body, h) || strings.Contains(strings.ToLower(fmt.Sprint(h)+body), "ebb") {
			t.Errorf("%s: %s\n%v", name, body, h)
		}
	}
}

// Dead letters of what somebody has put, of rules and of topics are sent again: one, all of a subscription, of a cause, or all.
func TestSubscriptions_RedriveDeadLetters(t *testing.T) {
	t.Parallel()
	bad := listen(t, http.StatusForbidden)
	n := openWith(t, filepath.Join(t.TempDir(), "data"), map[string]string{"egress": "anything,127.0.0.1"})
	a, tree := shop("shop", "dev", echo)
	a.Resources = []app.Resource{
		resource("News", "AWS::SNS::Topic", map[string]any{"TopicName": "news"}),
		resource("Note", "AWS::SNS::Subscription", map[string]any{"Protocol": "http", "Endpoint": bad.URL + "/note", "TopicArn": app.Attr("News", "Ref")}),
		resource("Rule", "AWS::Events::Rule", map[string]any{"EventPattern": map[string]any{"source": []any{"/test"}},
			"Targets": []any{map[string]any{"Id": "1", "Arn": "arn:aws:sqs:us-east-1:123456789012:late"}}}),
	}
	if _, err := n.deploy(t, a, tree); err != nil {
		t.Fatal(err)
	}
	n.subscribe(t, api.SubscriptionSpec{Name: "own", Endpoint: bad.URL + "/own"})
	for _, id := range []string{"1", "2", "3"} {
		n.emit(t, "", event.Event{ID: id})
	}
	n.note(t, "news", api.TopicMessage{Message: "x"})
	names := map[string]int{"own": 3, "Note/http": 1, "Rule/queue": 3}
	for name, dead := range names {
		eventually(t, n, name+" has its dead letters", func() bool { return n.detail(t, name).Dead == dead })
	}
	bad.mu.Lock()
	bad.status = http.StatusOK
	bad.mu.Unlock()
	redrive := func(want int, c api.DeliveryChoice) {
		t.Helper()
		if got, err := n.client.RedriveDeliveries(t.Context(), c); err != nil || got != want {
			t.Errorf("%+v: %d, %v, want %d", c, got, err, want)
		}
	}
	one := n.detail(t, "own").DeadLetters[0]
	if one.Event != "3" || one.Source != "/test" || one.Cause != "refused" || !strings.Contains(one.Error, "403") || one.State != "dead" {
		t.Errorf("the newest dead letter: %+v", one)
	}
	redrive(1, api.DeliveryChoice{IDs: []string{one.ID}})
	eventually(t, n, "one is delivered", func() bool { d := n.detail(t, "own"); return d.Dead == 2 && d.Done == 1 && d.Pending == 0 })
	redrive(0, api.DeliveryChoice{Subscription: "own", Cause: "exhausted"})
	redrive(2, api.DeliveryChoice{Subscription: "own"})
	eventually(t, n, "all of it are delivered", func() bool { d := n.detail(t, "own"); return d.Done == 3 && len(d.DeadLetters) == 0 })
	other, code := shop("other", "dev", echo)
	other.Resources = []app.Resource{resource("Late", "AWS::SQS::Queue", map[string]any{"QueueName": "late"})}
	if _, err := n.deploy(t, other, code); err != nil {
		t.Fatal(err)
	}
	redrive(4, api.DeliveryChoice{Cause: "refused"})
	eventually(t, n, "the queue has the rule's", func() bool { return len(inQueue(t, n, "late")) == 3 })
	eventually(t, n, "nothing is dead", func() bool { return n.detail(t, "Note/http").Done == 1 && n.detail(t, "Rule/queue").Done == 3 })
	redrive(0, api.DeliveryChoice{All: true})
	// What one had that was deleted is not another's who has its name now.
	bad.mu.Lock()
	bad.status = http.StatusForbidden
	bad.mu.Unlock()
	n.emit(t, "", event.Event{ID: "4"})
	eventually(t, n, "it is dead", func() bool { return n.detail(t, "own").Dead == 1 })
	if err := n.client.DeleteSubscription(t.Context(), "own"); err != nil {
		t.Fatal(err)
	}
	n.subscribe(t, api.SubscriptionSpec{Name: "own", Endpoint: bad.URL + "/own"})
	if d := n.detail(t, "own"); d.Dead != 0 || d.Done != 0 || len(d.DeadLetters) != 0 {
		t.Errorf("a new one has %+v", d)
	}
	for _, c := range []api.DeliveryChoice{{}, {IDs: []string{"x"}}, {IDs: []string{one.ID}, All: true}, {IDs: []string{"0-ffff-0-1"}}, {Subscription: "nobody"}} {
		if n, err := n.client.RedriveDeliveries(t.Context(), c); err == nil || n != 0 {
			t.Errorf("%+v is taken", c)
		}
	}
	if err := n.client.DeleteSubscription(t.Context(), "trigger/default/shop/dev/Rule/queue"); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("a declared one is deleted: %v", err)
	}
}
