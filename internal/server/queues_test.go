package server

import (
	"context"
	"encoding/json"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/config"
	"github.com/ebb-run/ebb/internal/event"
	"github.com/ebb-run/ebb/internal/guest/lambda"
	"github.com/ebb-run/ebb/internal/state"
)

func declaring(t *testing.T, a *app.App) (*Server, *state.Deployment) {
	t.Helper()
	p, err := lambda.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	a.Name, a.Stage = "shop", "dev"
	a.Functions = []app.Function{{Key: "work", Name: "shop-dev-work", TimeoutSec: 3, MemoryMB: 128}}
	// As it comes over the wire.
	data, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	var sent app.App
	if err := json.Unmarshal(data, &sent); err != nil {
		t.Fatal(err)
	}
	door, err := net.Listen("tcp", "127.0.0.1:0") // its address is in what values resolve to
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = door.Close() })
	s := &Server{o: Options{Config: &config.Config{Account: "123456789012"}}, protocol: p}
	s.doors.gateway, s.doors.plain = door, true
	return s, &state.Deployment{Stack: state.StackKey{Tenant: tenant, App: "shop", Stage: "dev"}, App: &sent}
}

func queue(id string, properties map[string]any) app.Resource {
	return app.Resource{ID: id, Kind: app.Queue, Type: "AWS::SQS::Queue", Properties: properties}
}

func TestQueueOf_ReadsWhatTemplatesWrite(t *testing.T) {
	t.Parallel()
	s, d := declaring(t, &app.App{Resources: []app.Resource{
		queue("Plain", nil),
		queue("Full", map[string]any{"VisibilityTimeout": "90", "DelaySeconds": 5, "MessageRetentionPeriod": 3600, "ReceiveMessageWaitTimeSeconds": "20", "MaximumMessageSize": 1048576,
			"RedrivePolicy": map[string]any{"deadLetterTargetArn": app.Attr("Plain", "Arn"), "maxReceiveCount": "3"}}),
		queue("Text", map[string]any{"VisibilityTimeout": 0, "RedrivePolicy": `{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:1:dead","maxReceiveCount":4}`}),
		queue("Fifo", map[string]any{"FifoQueue": "true", "ContentBasedDeduplication": true, "DeduplicationScope": "messageGroup"}),
		queue("Bad", map[string]any{"VisibilityTimeout": "long"}),
	}})
	d.App.Resources[3].Retain = true
	zero, ninety := time.Duration(0), 90*time.Second
	owner := map[string]string{ownerTag: "default/shop/dev"}
	want := []bus.Queue{
		{Tenant: tenant, Name: "shop-dev-Plain", Tags: owner},
		{Tenant: tenant, Name: "shop-dev-Full", Visibility: &ninety, Delay: 5 * time.Second, Retention: time.Hour, Wait: 20 * time.Second, MaxSize: bus.DefaultData,
			MaxReceives: 3, DeadLetters: "shop-dev-Plain", Tags: owner},
		{Tenant: tenant, Name: "shop-dev-Text", Visibility: &zero, MaxReceives: 4, DeadLetters: "dead", Tags: owner},
		{Tenant: tenant, Name: "shop-dev-Fifo.fifo", FIFO: true, ContentDedup: true, GroupDedup: true, Tags: map[string]string{ownerTag: "default/shop/dev", retainTag: "true"}},
	}
	for i, w := range want {
		got, err := s.queueOf(d, &d.App.Resources[i])
		if err != nil || !sameJSON(got, w) {
			t.Errorf("%s: %+v, %v\nwant %+v", d.App.Resources[i].ID, got, err, w)
		}
	}
	if _, err := s.queueOf(d, &d.App.Resources[4]); err == nil {
		t.Error("a visibility timeout that is no number is taken")
	}
}

func TestMappingOf_ReadsTheEventSourceMapping(t *testing.T) {
	t.Parallel()
	s, d := declaring(t, &app.App{Resources: []app.Resource{queue("Jobs", nil)}, Triggers: []app.Trigger{
		{Function: "work", Kind: "sqs", Enabled: true, Source: app.Attr("Jobs", "Arn"), Settings: map[string]any{
			"BatchSize": 50, "MaximumBatchingWindowInSeconds": "7", "FunctionResponseTypes": []any{"ReportBatchItemFailures"},
			"ScalingConfig":  map[string]any{"MaximumConcurrency": 4},
			"FilterCriteria": map[string]any{"Filters": []any{map[string]any{"Pattern": `{"body":{"n":[{"numeric":[">",1]}]}}`}}},
		}},
		{Function: "work", Kind: "sqs", Enabled: false, Source: app.Lit("arn:aws:sqs:us-east-1:1:other")},
		{Function: "work", Kind: "sqs", Enabled: true, Source: app.Lit("arn:aws:sqs:us-east-1:1:other"), Settings: map[string]any{
			"FilterCriteria": map[string]any{"Filters": []any{map[string]any{"Pattern": `{"body":5}`}}},
		}},
	}})
	list, faults := s.mappings(d)
	if len(list) != 1 || len(faults) != 1 {
		t.Fatalf("%d mappings, faults %q; want one of each", len(list), faults)
	}
	m := list[0]
	if m.Queue != "default/shop-dev-Jobs" || m.Batch != 50 || m.Window != 7*time.Second || m.MaxConcurrency != 4 || !m.report || m.function != "shop-dev-work" {
		t.Errorf("%+v", m)
	}
	for body, want := range map[string]bool{`{"n":2}`: true, `{"n":1}`: false, "text": false} {
		if got := m.Filter(&bus.Received{Message: bus.Message{ID: "1", Body: []byte(body)}, Sent: time.Unix(1, 0)}); got != want {
			t.Errorf("%s passes: %v, want %v", body, got, want)
		}
	}
}

func TestTriggers_BecomeSubscriptions(t *testing.T) {
	t.Parallel()
	s, d := declaring(t, &app.App{Triggers: []app.Trigger{
		{ID: "Rule", Function: "work", Kind: "eventBridge", Enabled: true, Source: app.Lit("arn:aws:events:us-east-1:1:event-bus/orders"), Settings: map[string]any{
			"EventPattern": map[string]any{"source": []any{app.Attr("none", "Ref")}}}},
		{ID: "Rule", Function: "work", Kind: "eventBridge", Enabled: true, Settings: map[string]any{"EventPattern": map[string]any{"source": []any{"a"}}}},
		{ID: "Rule", Function: "work", Kind: "eventBridge", Enabled: false, Settings: map[string]any{"EventPattern": map[string]any{"source": []any{"a"}}}},
		{ID: "Rule", Function: "work", Kind: "eventBridge", Enabled: true, Settings: map[string]any{"EventPattern": map[string]any{"source": "a"}}},
		{ID: "Time", Function: "work", Kind: "schedule", Enabled: true, Schedule: []string{"rate(5 minutes)", "cron(0 8 * * ? *)"}, Settings: map[string]any{"Name": "n", "Input": `{"a":1}`}},
		{ID: "Later", Function: "work", Kind: "schedule", Enabled: false, Schedule: []string{"rate(1 hour)"}, Settings: map[string]any{
			"ScheduleExpressionTimezone": "Europe/Zurich", "StartDate": "2030-01-02T03:04:05Z", "FlexibleTimeWindow": map[string]any{"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 15}}},
	}})
	w := s.triggers(d)
	if len(w.faults) != 2 {
		t.Errorf("faults: %q", w.faults)
	}
	var names []string
	for _, sub := range w.subs {
		names = append(names, sub.Name+" on "+sub.Channel)
	}
	want := []string{
		"trigger/default/shop/dev/Rule/work/2 on default/bus/default", "trigger/default/shop/dev/Time/work/1 on default/schedule",
		"trigger/default/shop/dev/Time/work/2 on default/schedule", "trigger/default/shop/dev/Later/work on default/schedule",
	}
	slices.Sort(names)
	slices.Sort(want)
	if !slices.Equal(names, want) {
		t.Errorf("subscriptions %q\nwant %q", names, want)
	}
	later := w.timed[2].schedule
	if !later.Disabled || later.Zone != "Europe/Zurich" || later.Start.Year() != 2030 || later.Window != 15*time.Minute || !later.AtOnce || w.timed[0].schedule.AtOnce {
		t.Errorf("%+v", later)
	}
	var to target
	if err := json.Unmarshal(w.timed[0].sub.Target, &to); err != nil {
		t.Fatal(err)
	}
	p, err := to.takes(&bus.Delivery{Event: &event.Event{ID: "x", Source: "aws.events", Type: "Scheduled Event", Data: []byte("{}")}})
	if b, err2 := json.Marshal(p); err != nil || err2 != nil || !slices.Contains([]string{"eyJhIjoxfQ=="}, inputOf(b)) {
		t.Errorf("the function gets %s, %v", b, err)
	}
}

// inputOf is the Input of a Batch, in base64.
func inputOf(batch []byte) string {
	var b struct{ Input string }
	_ = json.Unmarshal(batch, &b)
	return b.Input
}

func TestPublish_RefusesWhatIsOurs(t *testing.T) {
	t.Parallel()
	s := &Server{}
	e := &event.Event{ID: "1", Source: "/s", Type: "t"}
	e.SetExtension(bus.Channel, asyncChannel) // would be an invocation that nobody allowed
	if err := s.Publish(context.Background(), "", []*event.Event{e}); err == nil {
		t.Error("a publisher chose the channel")
	}
	if err := s.Publish(context.Background(), "a b", nil); err == nil {
		t.Error("a name with a space is taken")
	}
}
