package api_test

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
)

func (b *backend) Publish(_ context.Context, bus string, events []*event.Event) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range events {
		b.published = append(b.published, bus+" "+e.ID)
	}
	return b.fault
}

func (b *backend) Events(_ context.Context, q api.EventQuery, begun func(), each func(api.RecordedEvent) error) error {
	if q.Bus == "none" {
		return errs.New(errs.NotFound, "there is no bus none")
	}
	begun()
	for _, id := range []string{"1", "2", string(q.Pattern)} {
		if err := each(api.RecordedEvent{Published: q.From, Bus: "default", Event: &event.Event{ID: id, Source: "/s", Type: "t"}}); err != nil {
			return err
		}
	}
	return nil
}

func (b *backend) Subscriptions(context.Context) ([]api.SubscriptionInfo, error) {
	return []api.SubscriptionInfo{{Name: "s", Dead: 3}}, b.fault
}

func (b *backend) Replay(_ context.Context, r api.ReplayRequest) (*api.ReplayInfo, error) {
	return &api.ReplayInfo{ID: "replay of " + r.Subscription}, b.fault
}

func (b *backend) ReplayStatus(_ context.Context, id string) (*api.ReplayInfo, error) {
	return &api.ReplayInfo{ID: id, Found: 7, Done: true}, b.fault
}

func (b *backend) Schedules(_ context.Context, next int) ([]api.ScheduleInfo, error) {
	return []api.ScheduleInfo{{Name: "s", Next: make([]time.Time, next)}}, b.fault
}

func (b *backend) Trace(_ context.Context, id string) (*api.TraceInfo, error) {
	return &api.TraceInfo{Trace: id, Roots: []api.TraceNode{{Kind: api.TraceEvent, ID: "1", Children: []api.TraceNode{{Kind: api.TraceInvocation, ID: "2"}}}}}, b.fault
}

func (b *backend) Graph(_ context.Context, app string) (*api.GraphInfo, error) {
	return &api.GraphInfo{
		Nodes: []api.GraphNode{{ID: "function:f", Name: "f", App: app}, {ID: "function:shop-dev-a", Name: "shop-dev-a", App: "shop"}, {ID: "bus:default", Name: "default"}},
		Edges: []api.GraphEdge{{From: "bus:default", To: "function:f", Kind: "rule"}, {From: "function:shop-dev-a", To: "bus:default", Kind: "publishes"}},
	}, b.fault
}

func (b *backend) Topics(context.Context) ([]api.TopicInfo, error) {
	return []api.TopicInfo{{Name: "news", Subscriptions: 2}}, b.fault
}

func (b *backend) PublishTopic(_ context.Context, topic string, m api.TopicMessage) (*api.PublishedMessage, error) {
	if topic == "none" {
		return nil, errs.New(errs.NotFound, "there is no topic %s", topic)
	}
	return &api.PublishedMessage{ID: strings.Join([]string{topic, m.Message, m.Subject, m.Attributes["a"].Value, m.Group, m.Dedup}, " ")}, nil
}

func (b *backend) TopicSubscriptions(_ context.Context, topic string) ([]api.TopicSubscription, error) {
	return []api.TopicSubscription{{Name: topic, Dead: 1}}, nil
}

func (b *backend) Queues(context.Context) ([]api.QueueInfo, error) {
	return []api.QueueInfo{{Name: "jobs", Visible: 2}}, b.fault
}

func (b *backend) SendMessage(_ context.Context, queue string, m api.QueueMessage) (*api.SentMessage, error) {
	if queue == "none" {
		return nil, errs.New(errs.NotFound, "there is no queue none")
	}
	return &api.SentMessage{ID: queue + " " + m.Body + " " + m.Group + " " + m.Dedup}, b.fault
}

func (b *backend) SendMessages(_ context.Context, queue string, all []api.QueueMessage) (out []api.SentMessage, _ error) {
	for _, m := range all {
		out = append(out, api.SentMessage{ID: queue + " " + m.Body})
	}
	return out, b.fault
}

func (b *backend) PurgeQueue(_ context.Context, queue string) error {
	if queue == "none" {
		return errs.New(errs.NotFound, "there is no queue none")
	}
	return b.fault
}

func (b *backend) RedriveQueue(_ context.Context, queue, to string) (int, error) {
	return len(queue) + len(to), b.fault
}

func TestTopics_AreListedAndPublishedTo(t *testing.T) {
	t.Parallel()
	n := open(t)
	ctx := t.Context()
	if list, err := n.client.Topics(ctx); err != nil || len(list) != 1 || list[0].Subscriptions != 2 {
		t.Errorf("%v, %v", list, err)
	}
	m := api.TopicMessage{Message: "<m>", Subject: "s", Attributes: map[string]api.MessageAttribute{"a": {Value: "v"}}, Group: "g", Dedup: "d"}
	if got, err := n.client.PublishTopic(ctx, "news.fifo", m); err != nil || got.ID != "news.fifo <m> s v g d" {
		t.Errorf("%v, %v", got, err)
	}
	if list, err := n.client.TopicSubscriptions(ctx, "a b"); err != nil || len(list) != 1 || list[0].Name != "a b" {
		t.Errorf("%v, %v", list, err)
	}
	if _, err := n.client.PublishTopic(ctx, "none", m); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("%v", err)
	}
	if got := n.call(t, "POST", "/v1/topics/news/messages", `{"mesage":"x"}`, nil); got.status != http.StatusBadRequest {
		t.Errorf("an unknown field: %d", got.status)
	}
	if got := n.call(t, "POST", "/v1/topics/news/messages", `{"message":"x"}`, nil); got.status != http.StatusAccepted {
		t.Errorf("a message: %d", got.status)
	}
}

func TestQueues_AreListedSentToPurgedAndRedriven(t *testing.T) {
	t.Parallel()
	n := open(t)
	ctx := t.Context()
	if list, err := n.client.Queues(ctx); err != nil || len(list) != 1 || list[0].Visible != 2 {
		t.Errorf("%v, %v", list, err)
	}
	if got, err := n.client.SendMessage(ctx, "a.fifo", api.QueueMessage{Body: "<b>", Group: "g", Dedup: "d"}); err != nil || got.ID != "a.fifo <b> g d" {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := n.client.SendMessages(ctx, "a", []api.QueueMessage{{Body: "1"}, {Body: "2"}}); err != nil || len(got) != 2 || got[1].ID != "a 2" {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"[]", `[{"bdy":"x"}]`, "{}", "[" + strings.Repeat(`{"body":"x"},`, 1000) + `{"body":"x"}]`} {
		if got := n.call(t, "POST", "/v1/queues/jobs/messages/batch", bad, nil); got.status != http.StatusBadRequest {
			t.Errorf("%.20s: %+v", bad, got)
		}
	}
	if k, err := n.client.RedriveQueue(ctx, "dead", "xy"); err != nil || k != 6 {
		t.Errorf("%d, %v", k, err)
	}
	if err := n.client.PurgeQueue(ctx, "jobs"); err != nil {
		t.Error(err)
	}
	_, err := n.client.SendMessage(ctx, "none", api.QueueMessage{})
	if errs.CodeOf(err) != errs.NotFound || errs.CodeOf(n.client.PurgeQueue(ctx, "none")) != errs.NotFound {
		t.Errorf("%v", err)
	}
	if got := n.call(t, "POST", "/v1/queues/jobs/messages", `{"bdy":"x"}`, nil); got.status != http.StatusBadRequest {
		t.Errorf("%+v", got)
	}
}

func TestSchedules_AreListed(t *testing.T) {
	t.Parallel()
	n := open(t)
	if list, err := n.client.Schedules(t.Context(), 3); err != nil || len(list) != 1 || len(list[0].Next) != 3 {
		t.Errorf("%v, %v", list, err)
	}
	for _, next := range []int{0, 101} {
		if _, err := n.client.Schedules(t.Context(), next); errs.CodeOf(err) != errs.Invalid {
			t.Errorf("%d: %v", next, err)
		}
	}
}

func TestPublish_TakesEveryModeOfCloudEvents(t *testing.T) {
	t.Parallel()
	n := open(t)
	binary := n.call(t, "POST", "/events?bus=b", `{"x":1}`, func(r *http.Request) {
		for k, v := range map[string]string{"ce-specversion": "1.0", "ce-id": "bin", "ce-source": "/s", "ce-type": "t", "Content-Type": "application/json"} {
			r.Header.Set(k, v)
		}
	})
	if binary.status != http.StatusAccepted || !strings.Contains(binary.body, `"bus":"b"`) {
		t.Errorf("binary: %+v", binary)
	}
	one := &event.Event{ID: "one", Source: "/s", Type: "t"}
	if got, err := n.client.Publish(t.Context(), "", one, &event.Event{ID: "two", Source: "/s", Type: "t"}); err != nil || *got != (api.Published{Bus: "default", Events: 2}) {
		t.Errorf("batch: %v, %v", got, err)
	}
	data, err := json.Marshal(one)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.client.PublishRaw(t.Context(), "c", event.ContentType, data); err != nil {
		t.Errorf("structured: %v", err)
	}
	for body, want := range map[string]errs.Code{"{": errs.Invalid, `{"specversion":"1.0","id":"x"}`: errs.Invalid, `{"specversion":"0.3"}`: errs.Invalid,
		`{"specversion":"1.0","id":"x","source":"/s","type":"t","data":"` + strings.Repeat("x", api.MaxAsyncPayload) + `"}`: errs.TooLarge} {
		if _, err := n.client.PublishRaw(t.Context(), "", event.ContentType, []byte(body)); errs.CodeOf(err) != want {
			t.Errorf("%.60s: %v, want %s", body, err, want)
		}
	}
	n.fault = errs.New(errs.Unavailable, "the disk is full").WithHint("Free some.")
	if _, err := n.client.Publish(t.Context(), "", one); errs.CodeOf(err) != errs.Unavailable || errs.HintOf(err) == "" {
		t.Errorf("a full disk: %v", err)
	}
	if want := []string{"b bin", " one", " two", "c one", " one"}; !slices.Equal(n.published, want) {
		t.Errorf("published %q, want %q", n.published, want)
	}
}

func TestEvents_AreReadAsALine(t *testing.T) {
	t.Parallel()
	n := open(t)
	from := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	var got []string
	ready := false
	err := n.client.Events(t.Context(), api.EventQuery{From: from, Follow: true, Limit: 9, Pattern: json.RawMessage(`{"a":["b"]}`)}, func() { ready = true }, func(e api.RecordedEvent) error {
		if !e.Published.Equal(from) {
			t.Errorf("published %v", e.Published)
		}
		got = append(got, e.Event.ID)
		return nil
	})
	if err != nil || !ready || !slices.Equal(got, []string{"1", "2", `{"a":["b"]}`}) {
		t.Errorf("%v, %v, %q", err, ready, got)
	}
	if err := n.client.Events(t.Context(), api.EventQuery{Bus: "none"}, nil, nil); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("%v", err)
	}
	for _, q := range []string{"from=x", "to=x", "limit=0", "limit=x"} {
		if got := n.call(t, "GET", "/v1/events?"+q, "", nil); got.status != http.StatusBadRequest {
			t.Errorf("%s: %+v", q, got)
		}
	}
}

func TestReplays_AreAskedForAndTold(t *testing.T) {
	t.Parallel()
	n := open(t)
	if got, err := n.client.Replay(t.Context(), api.ReplayRequest{Subscription: "s", From: time.Now()}); err != nil || got.ID != "replay of s" {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := n.client.ReplayStatus(t.Context(), "r/1"); err != nil || *got != (api.ReplayInfo{ID: "r/1", Found: 7, Done: true}) {
		t.Errorf("%v, %v", got, err)
	}
	if list, err := n.client.Subscriptions(t.Context()); err != nil || len(list) != 1 || list[0].Dead != 3 {
		t.Errorf("%v, %v", list, err)
	}
}
