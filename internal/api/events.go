package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
)

// ActiveTrigger says whether a Node runs Triggers of the kind; the others are declared only.
func ActiveTrigger(kind string) bool {
	return kind == "eventBridge" || kind == "schedule" || kind == "sqs" || kind == "stream" || kind == "sns" || kind == "s3"
}

// Published says that events are durable.
type Published struct {
	Bus    string `json:"bus"`
	Events int    `json:"events"`
}

// RecordedEvent is an event of the log.
type RecordedEvent struct {
	Published time.Time    `json:"published"`
	Bus       string       `json:"bus"`
	Event     *event.Event `json:"event"` // in CloudEvents' JSON format
}

// EventQuery selects events of the log.
type EventQuery struct {
	Bus     string          // empty means all
	From    time.Time       // zero means the oldest
	To      time.Time       // not included; zero means what is there
	Follow  bool            // go on with what is published
	Limit   int             // after as many it ends; 0 means no limit
	Pattern json.RawMessage // an EventBridge pattern
}

// SubscriptionInfo describes what takes events from the bus.
type SubscriptionInfo struct {
	Name     string          `json:"name"`
	Bus      string          `json:"bus,omitempty"` // empty for what is not on a bus: asynchronous invocations
	Function string          `json:"function,omitempty"`
	Target   string          `json:"target,omitempty"` // of what is no function: "queue jobs", a URL
	Filter   json.RawMessage `json:"filter,omitempty"`
	Own      string          `json:"own,omitempty"`    // the name that it was put under; empty for what an App declares
	State    string          `json:"state"`            // SubscriptionActive or SubscriptionResting
	Reason   string          `json:"reason,omitempty"` // why it rests
	Pending  int             `json:"pending"`          // deliveries that have not ended
	Running  int             `json:"running"`          // those of them whose target has them now
	Done     int             `json:"done"`
	Dead     int             `json:"dead"` // dead letters
}

// ReplayRequest asks for the events of a time to be delivered again, to one Subscription.
type ReplayRequest struct {
	Subscription string          `json:"subscription"`
	From         time.Time       `json:"from"`
	To           time.Time       `json:"to,omitzero"` // not included; absent means now
	Pattern      json.RawMessage `json:"pattern,omitempty"`
}

// ReplayInfo says how far a replay is.
type ReplayInfo struct {
	ID    string `json:"id"`
	Found int    `json:"found"` // events that are delivered again
	Done  bool   `json:"done"`  // all were found
}

// ScheduleInfo describes what fires by time.
type ScheduleInfo struct {
	Name       string      `json:"name"`
	Function   string      `json:"function,omitempty"`
	Target     string      `json:"target,omitempty"` // of what runs no function: "queue jobs"
	Expression string      `json:"expression"`
	Zone       string      `json:"zone,omitempty"` // empty means UTC
	Disabled   bool        `json:"disabled,omitempty"`
	Last       time.Time   `json:"last,omitzero"`  // the slot that was fired last
	Next       []time.Time `json:"next,omitempty"` // when it fires, in its zone
}

// EventBackend is what the control API needs for events.
type EventBackend interface {
	// Publish returns when all of the events are durable. An empty bus is the default one.
	Publish(ctx context.Context, bus string, events []*event.Event) error
	Events(ctx context.Context, q EventQuery, begun func(), each func(RecordedEvent) error) error
	Subscriptions(ctx context.Context) ([]SubscriptionInfo, error)
	Replay(ctx context.Context, r ReplayRequest) (*ReplayInfo, error)
	ReplayStatus(ctx context.Context, id string) (*ReplayInfo, error)
	// Schedules tells up to next firings of each.
	Schedules(ctx context.Context, next int) ([]ScheduleInfo, error)
}

// EventLimits bound what a caller publishes at once, where nothing is set.
func EventLimits() event.Limits { return NewIntake(MaxAsyncPayload).limits() }

func (s *Server) publish(w http.ResponseWriter, r *http.Request) error {
	to := r.URL.Query().Get("bus")
	// Whether they were accepted must not be left open by a caller that hangs up while the disk writes.
	ctx := context.WithoutCancel(r.Context())
	return acceptEvents(w, r, s.intake, s.intake.limits(), to, func(events []*event.Event) error { return s.backend.Publish(ctx, to, events) })
}

// moment reads a time of a query, or nothing.
func moment(v url.Values, name string) (time.Time, error) {
	text := v.Get(name)
	if text == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return at, errs.New(errs.Invalid, "%s: %w", name, err)
	}
	return at, nil
}

func (s *Server) readEvents(w http.ResponseWriter, r *http.Request) error {
	v := r.URL.Query()
	q := EventQuery{Bus: v.Get("bus"), Follow: v.Get("follow") == "true"}
	var err error
	if q.From, err = moment(v, "from"); err != nil {
		return err
	}
	if q.To, err = moment(v, "to"); err != nil {
		return err
	}
	if n := v.Get("limit"); n != "" {
		if q.Limit, err = strconv.Atoi(n); err != nil || q.Limit < 1 {
			return errs.New(errs.Invalid, "limit: %q is not a number above 0", n)
		}
	}
	if p := v.Get("pattern"); p != "" {
		q.Pattern = json.RawMessage(p)
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	flush := http.NewResponseController(w)
	begun := func() {
		if q.Follow {
			_ = flush.Flush() // the caller learns that following has begun
		}
	}
	return s.backend.Events(r.Context(), q, begun, func(e RecordedEvent) error {
		if err := enc.Encode(e); err != nil {
			return err
		}
		if q.Follow {
			return flush.Flush()
		}
		return nil
	})
}

func (s *Server) subscriptions(w http.ResponseWriter, r *http.Request) error {
	list, err := s.backend.Subscriptions(r.Context())
	if err != nil {
		return err
	}
	writeJSON(w, 200, map[string][]SubscriptionInfo{"subscriptions": list})
	return nil
}

func (s *Server) replay(w http.ResponseWriter, r *http.Request) error {
	var req ReplayRequest
	if err := readJSON(w, r, 1<<20, &req); err != nil {
		return err
	}
	got, err := s.backend.Replay(r.Context(), req)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusAccepted, got)
	return nil
}

func (s *Server) replayStatus(w http.ResponseWriter, r *http.Request) error {
	got, err := s.backend.ReplayStatus(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	writeJSON(w, 200, got)
	return nil
}

func (s *Server) schedules(w http.ResponseWriter, r *http.Request) error {
	next := 1
	if n := r.URL.Query().Get("next"); n != "" {
		var err error
		if next, err = strconv.Atoi(n); err != nil || next < 1 || next > 100 {
			return errs.New(errs.Invalid, "next: %q is not a number from 1 to 100", n)
		}
	}
	list, err := s.backend.Schedules(r.Context(), next)
	if err != nil {
		return err
	}
	writeJSON(w, 200, map[string][]ScheduleInfo{"schedules": list})
	return nil
}

// Schedules lists what fires by time, with up to next firings of each.
func (c *Client) Schedules(ctx context.Context, next int) ([]ScheduleInfo, error) {
	var out struct{ Schedules []ScheduleInfo }
	err := c.call(ctx, "GET", "/v1/schedules?next="+strconv.Itoa(next), nil, &out)
	return out.Schedules, err
}

// Publish sends one event in structured mode; when it returns, that is durable.
func (c *Client) Publish(ctx context.Context, bus string, events ...*event.Event) (*Published, error) {
	data, err := event.FormatBatch(events)
	if err != nil {
		return nil, err
	}
	return c.PublishRaw(ctx, bus, event.BatchContentType, data)
}

// PublishRaw sends a body of a content type of CloudEvents as it is.
func (c *Client) PublishRaw(ctx context.Context, bus, contentType string, body []byte) (*Published, error) {
	path := "/events"
	if bus != "" {
		path += "?bus=" + url.QueryEscape(bus)
	}
	resp, err := c.do(ctx, "POST", path, bytes.NewReader(body), int64(len(body)), map[string]string{"Content-Type": contentType})
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	var p Published
	if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	return &p, nil
}

// Events calls each for every event; with q.Follow until ctx ends. ready, where given, is called once the Node has begun.
func (c *Client) Events(ctx context.Context, q EventQuery, ready func(), each func(RecordedEvent) error) error {
	v := url.Values{}
	if q.Bus != "" {
		v.Set("bus", q.Bus)
	}
	for name, at := range map[string]time.Time{"from": q.From, "to": q.To} {
		if !at.IsZero() {
			v.Set(name, at.Format(time.RFC3339Nano))
		}
	}
	if q.Follow {
		v.Set("follow", "true")
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	if len(q.Pattern) > 0 {
		v.Set("pattern", string(q.Pattern))
	}
	resp, err := c.do(ctx, "GET", "/v1/events?"+v.Encode(), nil, -1, nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if ready != nil {
		ready()
	}
	return eachLine(ctx, resp.Body, "events", each)
}

// Subscriptions lists what takes events from the bus.
func (c *Client) Subscriptions(ctx context.Context) ([]SubscriptionInfo, error) {
	var out struct{ Subscriptions []SubscriptionInfo }
	err := c.call(ctx, "GET", "/v1/subscriptions", nil, &out)
	return out.Subscriptions, err
}

// Replay asks for a replay; when it returns, the request is durable.
func (c *Client) Replay(ctx context.Context, r ReplayRequest) (*ReplayInfo, error) {
	var out ReplayInfo
	return &out, c.call(ctx, "POST", "/v1/replays", r, &out)
}

// ReplayStatus says how far a replay is.
func (c *Client) ReplayStatus(ctx context.Context, id string) (*ReplayInfo, error) {
	var out ReplayInfo
	return &out, c.call(ctx, "GET", "/v1/replays/"+url.PathEscape(id), nil, &out)
}
