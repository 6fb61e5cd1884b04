package server

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/egress"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
	"github.com/ebb-run/ebb/internal/invocation"
)

func topic(id string, properties map[string]any) app.Resource {
	return app.Resource{ID: id, Kind: app.Topic, Type: "AWS::SNS::Topic", Properties: properties}
}

func TestTopicOf_ReadsWhatTemplatesWrite(t *testing.T) {
	t.Parallel()
	s, d := declaring(t, &app.App{Resources: []app.Resource{
		topic("Plain", map[string]any{"DisplayName": "x", "KmsMasterKeyId": app.Attr("none", "Arn")}),
		topic("Fifo", map[string]any{"FifoTopic": "true", "ContentBasedDeduplication": true, "FifoThroughputScope": "MessageGroup"}),
		topic("Bad", map[string]any{"FifoThroughputScope": []any{}}),
	}})
	d.App.Resources[1].Retain = true
	owner := map[string]string{ownerTag: "default/shop/dev"}
	for i, w := range []bus.Topic{
		{Tenant: tenant, Name: "shop-dev-Plain", Tags: owner},
		{Tenant: tenant, Name: "shop-dev-Fifo.fifo", FIFO: true, ContentDedup: true, GroupDedup: true, Tags: map[string]string{ownerTag: "default/shop/dev", retainTag: "true"}},
	} {
		got, err := s.topicOf(d, &d.App.Resources[i])
		if err != nil || !sameJSON(got, w) {
			t.Errorf("%s: %+v, %v\nwant %+v", d.App.Resources[i].ID, got, err, w)
		}
	}
	if _, err := s.topicOf(d, &d.App.Resources[2]); err == nil {
		t.Error("a scope that is no text is taken")
	}
}

func TestSubscriptionOf_SaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	const (
		news, fifo = "arn:aws:sns:us-east-1:1:news", "arn:aws:sns:us-east-1:1:news.fifo"
		jobs, line = "arn:aws:sqs:us-east-1:1:jobs", "arn:aws:sqs:us-east-1:1:jobs.fifo"
	)
	s, d := declaring(t, &app.App{})
	for name, row := range map[string]struct {
		says     string // empty: it is taken
		declared map[string]any
	}{
		"queue":                      {"", map[string]any{"Protocol": "sqs", "TopicArn": news, "Endpoint": jobs}},
		"FIFO queue of FIFO topic":   {"", map[string]any{"Protocol": "sqs", "TopicArn": fifo, "Endpoint": line, "RedrivePolicy": map[string]any{"deadLetterTargetArn": line}}},
		"queue of FIFO topic":        {"", map[string]any{"Protocol": "sqs", "TopicArn": fifo, "Endpoint": jobs}},
		"policy as text":             {"", map[string]any{"Protocol": "sqs", "TopicArn": news, "Endpoint": jobs, "FilterPolicy": `{"a":["b"]}`, "FilterPolicyScope": "MessageBody"}},
		"endpoint":                   {"", map[string]any{"Protocol": "https", "TopicArn": news, "Endpoint": "https://u:p@example.com/x", "DeliveryPolicy": `{"healthyRetryPolicy":{"numRetries":0}}`}},
		"FIFO queue of topic":        {"standard topic", map[string]any{"Protocol": "sqs", "TopicArn": news, "Endpoint": line}},
		"queue by name":              {"the ARN of no queue", map[string]any{"Protocol": "sqs", "TopicArn": news, "Endpoint": "jobs"}},
		"no topic":                   {"names no topic", map[string]any{"Protocol": "sqs", "Endpoint": jobs}},
		"FIFO to endpoint":           {"queues alone", map[string]any{"Protocol": "http", "TopicArn": fifo, "Endpoint": "http://example.com"}},
		"endpoint of other scheme":   {"no http:// URL", map[string]any{"Protocol": "http", "TopicArn": news, "Endpoint": "https://example.com"}},
		"endpoint without host":      {"no http:// URL", map[string]any{"Protocol": "http", "TopicArn": news, "Endpoint": "http:///x"}},
		"endpoint that is none":      {"no URL", map[string]any{"Protocol": "http", "TopicArn": news, "Endpoint": "http://[x"}},
		"mail":                       {"email is declared, not active", map[string]any{"Protocol": "email", "TopicArn": news, "Endpoint": "a@b"}},
		"no protocol":                {"no protocol", map[string]any{"TopicArn": news, "Endpoint": jobs}},
		"function of another app":    {"none of this app", map[string]any{"Protocol": "lambda", "TopicArn": news, "Endpoint": "arn:aws:lambda:us-east-1:1:function:x"}},
		"policy that is none":        {"its filter policy", map[string]any{"Protocol": "sqs", "TopicArn": news, "Endpoint": jobs, "FilterPolicy": map[string]any{"a": "b"}}},
		"scope that is none":         {"its filter policy", map[string]any{"Protocol": "sqs", "TopicArn": news, "Endpoint": jobs, "FilterPolicy": map[string]any{"a": []any{"b"}}, "FilterPolicyScope": "Body"}},
		"nested in attributes":       {"MessageBody", map[string]any{"Protocol": "sqs", "TopicArn": news, "Endpoint": jobs, "FilterPolicy": map[string]any{"a": map[string]any{"b": []any{"c"}}}}},
		"dead letters to a topic":    {"is no queue", map[string]any{"Protocol": "sqs", "TopicArn": news, "Endpoint": jobs, "RedrivePolicy": map[string]any{"deadLetterTargetArn": news}}},
		"FIFO dead letters":          {"has to be FIFO", map[string]any{"Protocol": "sqs", "TopicArn": news, "Endpoint": jobs, "RedrivePolicy": map[string]any{"deadLetterTargetArn": line}}},
		"too many tries":             {"numRetries", map[string]any{"Protocol": "http", "TopicArn": news, "Endpoint": "http://x", "DeliveryPolicy": map[string]any{"healthyRetryPolicy": map[string]any{"numRetries": 101}}}},
		"delays the wrong way round": {"minDelayTarget", map[string]any{"Protocol": "http", "TopicArn": news, "Endpoint": "http://x", "DeliveryPolicy": map[string]any{"healthyRetryPolicy": map[string]any{"minDelayTarget": 9, "maxDelayTarget": 8}}}},
		"unknown reference":          {"is not known", map[string]any{"Protocol": "sqs", "TopicArn": news, "Endpoint": app.Attr("Nothing", "Arn")}},
	} {
		sub, err := s.subscriptionOf(d, "trigger/default/shop/dev/S", row.declared)
		if row.says == "" && (err != nil || sub == nil || !strings.HasPrefix(sub.Channel, "default/topic/news") || sub.Ordered != strings.HasSuffix(sub.Channel, ".fifo")) {
			t.Errorf("%s: %+v, %v", name, sub, err)
		}
		if row.says != "" && (err == nil || !strings.Contains(err.Error()+errs.HintOf(err), row.says)) {
			t.Errorf("%s: %v, want it to say %q", name, err, row.says)
		}
	}
	own := map[string]any{"Protocol": "lambda", "TopicArn": news, "Endpoint": "arn:aws:lambda:us-east-1:1:function:shop-dev-work"}
	if sub, err := s.subscriptionOf(d, "x", own); sub != nil || err != nil {
		t.Errorf("the app's own function: %+v, %v", sub, err)
	}
}

func TestTriggers_SubscribeFunctionsToTopics(t *testing.T) {
	t.Parallel()
	s, d := declaring(t, &app.App{Resources: []app.Resource{topic("News", nil)}, Triggers: []app.Trigger{
		{ID: "A", Function: "work", Kind: "sns", Enabled: true, Source: app.Attr("News", "Ref"), Settings: map[string]any{"FilterPolicy": map[string]any{"a": []any{"b"}}}},
		{ID: "B", Function: "work", Kind: "sns", Enabled: true, Source: app.Lit("arn:aws:sns:us-east-1:1:x.fifo")},
		{ID: "C", Function: "work", Kind: "sns", Enabled: true, Source: app.Attr("News", "Ref"), Settings: map[string]any{"RawMessageDelivery": true}},
		{ID: "D", Function: "work", Kind: "sns", Enabled: true},
	}})
	w := s.triggers(d)
	if len(w.subs) != 1 || len(w.faults) != 3 {
		t.Fatalf("%+v\n%q", w.subs, w.faults)
	}
	sub := w.subs[0]
	to, _ := targetIn(sub)
	if sub.Channel != "default/topic/shop-dev-News" || string(sub.Filter) != `{"policy":{"a":["b"]}}` || to.Function != "shop-dev-work" || to.Via != invocation.ViaTopic || to.Label == "" {
		t.Errorf("%+v %+v", sub, to)
	}
}

func TestRules_ReadTargetsAsTemplatesWriteThem(t *testing.T) {
	t.Parallel()
	const jobs = "arn:aws:sqs:us-east-1:1:jobs"
	pattern := map[string]any{"source": []any{"s"}}
	rule := func(id string, properties map[string]any) app.Resource {
		return app.Resource{ID: id, Kind: app.Foreign, Type: "AWS::Events::Rule", Properties: properties}
	}
	to := func(more map[string]any) map[string]any {
		target := map[string]any{"Id": "1", "Arn": jobs}
		for k, v := range more {
			target[k] = v
		}
		return map[string]any{"EventPattern": pattern, "Targets": []any{target}}
	}
	s, d := declaring(t, &app.App{Resources: []app.Resource{
		rule("Good", to(map[string]any{"RetryPolicy": map[string]any{"MaximumRetryAttempts": "4", "MaximumEventAgeInSeconds": 120}, "DeadLetterConfig": map[string]any{"Arn": jobs}})),
		rule("Own", to(map[string]any{"Arn": "arn:aws:lambda:us-east-1:1:function:shop-dev-work"})), // its Trigger stands for it
		rule("Retries", to(map[string]any{"RetryPolicy": map[string]any{"MaximumRetryAttempts": 186}})),
		rule("Age", to(map[string]any{"RetryPolicy": map[string]any{"MaximumEventAgeInSeconds": 59}})),
		rule("Dead", to(map[string]any{"DeadLetterConfig": map[string]any{"Arn": "arn:aws:sns:us-east-1:1:t"}})),
		rule("Fifo", to(map[string]any{"Arn": jobs + ".fifo"})),
		rule("FifoTopic", to(map[string]any{"Arn": "arn:aws:sns:us-east-1:1:t.fifo"})),
		rule("Foreign", to(map[string]any{"Arn": "arn:aws:lambda:us-east-1:1:function:other"})),
		rule("Path", to(map[string]any{"InputPath": "detail"})),
		rule("Nothing", to(map[string]any{"Arn": "jobs"})),
		{ID: "Night", Kind: app.Foreign, Type: "AWS::Scheduler::Schedule", Properties: map[string]any{"ScheduleExpression": "cron(0 3 * * ? *)", "ScheduleExpressionTimezone": "Europe/Zurich",
			"FlexibleTimeWindow": map[string]any{"Mode": "OFF"}, "Target": map[string]any{"Arn": jobs, "Input": `{"a":1}`, "RetryPolicy": map[string]any{"MaximumRetryAttempts": 0}}}},
	}, Triggers: []app.Trigger{
		{ID: "F", Function: "work", Kind: "eventBridge", Enabled: true, Settings: map[string]any{"EventPattern": pattern, "DeadLetterConfig": map[string]any{"Arn": jobs}, "RetryPolicy": map[string]any{"MaximumRetryAttempts": 9}}},
		{ID: "B", Function: "work", Kind: "eventBridge", Enabled: true, Settings: map[string]any{"EventPattern": pattern, "DeadLetterConfig": map[string]any{"Arn": "x"}}},
	}})
	w := s.triggers(d)
	want := map[string]string{"Retries": "MaximumRetryAttempts is", "Age": "MaximumEventAgeInSeconds", "Dead": "is no queue", "Fifo": "SqsParameters", "FifoTopic": "FIFO topic",
		"Foreign": "none of this app", "Path": "InputPath", "Nothing": "its target"}
	for id, says := range want {
		found := false
		for _, fault := range w.faults {
			found = found || strings.HasPrefix(fault, "rule "+id+":") && strings.Contains(fault, says)
		}
		if !found {
			t.Errorf("no fault of %s says %q in %q", id, says, w.faults)
		}
	}
	if len(w.faults) != len(want)+1 || len(w.subs) != 3 || len(w.timed) != 1 {
		t.Fatalf("%d faults %q, %d subscriptions, %d schedules", len(w.faults), w.faults, len(w.subs), len(w.timed))
	}
	for _, sub := range w.subs {
		got, _ := targetIn(sub)
		switch {
		case strings.HasSuffix(sub.Name, "/Good/queue"):
			if sub.Retry.Attempts != 5 || sub.Retry.MaxAge != 2*time.Minute || got.Dead == nil || got.Dead.Queue != "jobs" || got.Queue != "jobs" {
				t.Errorf("%+v %+v", sub, got)
			}
		case strings.HasSuffix(sub.Name, "/F/work"): // its own settings count for its failures
			if sub.Retry.Attempts != 3 || got.Dead == nil || got.Function != "shop-dev-work" {
				t.Errorf("%+v %+v", sub, got)
			}
		case strings.HasSuffix(sub.Name, "/Night/queue"):
			if sub.Retry.Attempts != 1 || got.Group != "default" || got.Input == nil || w.timed[0].schedule.Zone != "Europe/Zurich" || !w.timed[0].schedule.AtOnce {
				t.Errorf("%+v %+v %+v", sub, got, w.timed[0].schedule)
			}
		default:
			t.Errorf("%+v", sub)
		}
	}
}

// post asks an endpoint once, and gives the code of what comes of it.
func post(t *testing.T, s *Server, url string) errs.Code {
	t.Helper()
	e := &event.Event{ID: "1", Source: "/s", Type: "t", Data: []byte("x")}
	to := &target{Endpoint: url, Via: invocation.ViaTopic, Source: "news", Owner: "default/shop/dev"}
	err := deliverer{s}.post(t.Context(), to, &bus.Delivery{Event: e, Published: time.Unix(1, 0)})
	if err == nil {
		return ""
	}
	return errs.CodeOf(err)
}

func TestPost_TellsWhatToTryAgain(t *testing.T) {
	t.Parallel()
	var hits atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		switch r.URL.Path {
		case "/200":
			w.Header().Set("Content-Length", "5")
			_, _ = w.Write([]byte("hello"))
		case "/302":
			http.Redirect(w, r, "/200", http.StatusFound)
		case "/cut":
			panic(http.ErrAbortHandler)
		default:
			w.WriteHeader(map[string]int{"/204": 204, "/400": 400, "/404": 404, "/410": 410, "/429": 429, "/500": 500, "/503": 503}[r.URL.Path])
		}
	}))
	defer srv.Close()
	s, _ := declaring(t, &app.App{})
	policy, err := egress.NewPolicy(egress.Anything, []string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	s.egress = egress.New(egress.Options{Policy: func(string) egress.Policy { return policy }})
	t.Cleanup(func() { _ = s.webhooks.close() })
	for path, want := range map[string]errs.Code{"/200": "", "/204": "", "/302": errs.Invalid, "/400": errs.Invalid, "/404": errs.Invalid, "/410": errs.Invalid,
		"/429": errs.Failed, "/500": errs.Failed, "/503": errs.Failed, "/cut": errs.Failed} {
		if got := post(t, s, srv.URL+path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	before := hits.Load()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := "http://" + free.Addr().String()
	_ = free.Close()
	if got := post(t, s, closed); got != errs.Failed {
		t.Errorf("nobody listens: %q", got)
	}
	// What egress forbids is not tried again: metadata, and this host where it is not named, under any name.
	closedTo, err := egress.NewPolicy(egress.Anything, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.egress = egress.New(egress.Options{Policy: func(string) egress.Policy { return closedTo }, Resolve: func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}})
	s.webhooks.forget("default/shop/dev") // its connections were allowed by the old rules
	_, port, _ := net.SplitHostPort(srv.Listener.Addr().String())
	for _, url := range []string{"http://169.254.169.254/latest/meta-data", "http://[::ffff:169.254.169.254]/", srv.URL + "/200", "http://innocent.example:" + port + "/200"} {
		if got := post(t, s, url); got != errs.Forbidden {
			t.Errorf("%s: %q", url, got)
		}
	}
	if hits.Load() != before {
		t.Error("what is forbidden was asked")
	}
}

// An endpoint that does not answer counts as an attempt when its time is over.
func TestPost_GivesUpInTime(t *testing.T) {
	t.Parallel()
	asked, done := make(chan struct{}), make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { close(asked); <-done }))
	defer srv.Close()
	defer close(done)
	s, _ := declaring(t, &app.App{})
	policy, err := egress.NewPolicy(egress.Anything, []string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	s.egress = egress.New(egress.Options{Policy: func(string) egress.Policy { return policy }})
	t.Cleanup(func() { _ = s.webhooks.close() })
	ctx, end := context.WithCancelCause(t.Context())
	go func() { <-asked; end(errs.New(errs.Timeout, "the deadline has passed")) }() // as the Subscription's deadline does
	e := &event.Event{ID: "1", Source: "/s", Type: "t", Data: []byte("x")}
	err = deliverer{s}.post(ctx, &target{Endpoint: srv.URL, Via: invocation.ViaTopic, Source: "news"}, &bus.Delivery{Event: e})
	if errs.CodeOf(err) != errs.Failed || !strings.Contains(err.Error(), "the deadline has passed") {
		t.Errorf("%v", err)
	}
}

// What a target of an older or a newer ebb says is not understood is refused, not lost.
func TestDeliver_RefusesTargetsThatAreNotKnown(t *testing.T) {
	t.Parallel()
	s, _ := declaring(t, &app.App{})
	for _, text := range []string{`{}`, `{"mail":"x"}`, `5`} {
		v := &bus.Delivery{Target: json.RawMessage(text), Event: &event.Event{ID: "1", Source: "/s", Type: "t"}}
		if out := (deliverer{s}).Deliver(t.Context(), []*bus.Delivery{v, v}); len(out) != 2 || errs.CodeOf(out[1].Err) != errs.Unsupported {
			t.Errorf("%s: %+v", text, out)
		}
	}
	v := &bus.Delivery{Target: json.RawMessage(`{"forward":true}`), Event: &event.Event{ID: "1", Source: "/s", Type: "t", Subject: "mail/x"}}
	if out := (deliverer{s}).Deliver(t.Context(), []*bus.Delivery{v}); errs.CodeOf(out[0].Err) != errs.Unsupported {
		t.Errorf("%+v", out)
	}
}

// A Function's own failures are not its subscription's dead letters, as on AWS; what it was never run with is.
func TestEnded_TellsWhoIsConcerned(t *testing.T) {
	t.Parallel()
	s, _ := declaring(t, &app.App{})
	dead, fails := &destination{Queue: "dead"}, &destination{Topic: "fails"}
	for name, row := range map[string]struct {
		to      target
		attempt int
		state   bus.State
		cause   bus.Cause
		code    errs.Code
		want    string
	}{
		"a function that failed":       {target{Function: "f", Via: invocation.ViaTopic, Source: "t", Dead: dead, OnFailure: fails, DeadLetter: &destination{Queue: "own"}}, 3, bus.Dead, bus.CauseExhausted, errs.Failed, "topic/fails queue/own"},
		"a function that was not run":  {target{Function: "f", Via: invocation.ViaTopic, Source: "t", Dead: dead}, 1, bus.Dead, bus.CauseExpired, errs.Throttled, "queue/dead"},
		"a function that was, and old": {target{Function: "f", Via: invocation.ViaTopic, Source: "t", Dead: dead}, 2, bus.Dead, bus.CauseExpired, errs.Throttled, ""},
		"a function that succeeded":    {target{Function: "f", Via: invocation.ViaTopic, Source: "t", Dead: dead, OnSuccess: &destination{Queue: "good"}}, 1, bus.Done, "", "", "queue/good"},
		"a queue":                      {target{Queue: "q", Via: invocation.ViaTopic, Source: "t", Dead: dead}, 1, bus.Dead, bus.CauseRefused, errs.NotFound, "queue/dead"},
		"a queue that took it":         {target{Queue: "q", Via: invocation.ViaTopic, Source: "t", Dead: dead}, 1, bus.Done, "", "", ""},
		"a rule":                       {target{Topic: "t", Via: invocation.ViaEvent, Rule: "r", Dead: dead}, 1, bus.Dead, bus.CauseRefused, errs.NotFound, "queue/dead"},
		"nobody":                       {target{Queue: "q", Via: invocation.ViaEvent}, 1, bus.Dead, bus.CauseRefused, errs.NotFound, ""},
	} {
		data, err := json.Marshal(row.to)
		if err != nil {
			t.Fatal(err)
		}
		v := &bus.Delivery{ID: "0-1-0-1", Target: data, Attempt: row.attempt, Event: &event.Event{ID: "1", Source: "/s", Type: "t", Data: []byte("x")}}
		var last bus.Outcome
		if row.code != "" {
			last.Err = errs.New(row.code, "why")
		}
		var got []string
		once := map[string]bool{}
		for _, e := range s.ended(v, row.state, row.cause, last) {
			got = append(got, e.Subject)
			if err := e.Validate(0); err != nil || once[e.ID] || e.Extension(bus.Channel) != forwardChannel {
				t.Errorf("%s: %+v, %v", name, e, err)
			}
			once[e.ID] = true
		}
		if text := strings.Join(got, " "); text != row.want {
			t.Errorf("%s: %q, want %q", name, text, row.want)
		}
	}
}
