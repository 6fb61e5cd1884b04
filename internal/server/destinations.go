package server

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/arn"
	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/state"
)

// destination is what is told of the end of a delivery; exactly one part is set.
type destination struct {
	Function string `json:"function,omitempty"` // full name
	Bus      string `json:"bus,omitempty"`
	Queue    string `json:"queue,omitempty"`
	Topic    string `json:"topic,omitempty"`
}

// What goes to queues and topics is an event on a channel of its own, written with the end that it tells of; one Subscription forwards them all.
const (
	forwardChannel = tenant + "/forward"
	forwardName    = "forward/" + tenant
	forwardType    = "run.ebb.forward"
	forwardSource  = "/forward"
	forwardGroup   = "ebb" // the message group of what has none, in a FIFO queue
)

// address is the subject of what is forwarded; empty for what is told in another way.
func (d *destination) address() string {
	switch {
	case d.Queue != "":
		return "queue/" + d.Queue
	case d.Topic != "":
		return "topic/" + d.Topic
	}
	return ""
}

// forwarding is the Subscription that forwards.
func forwarding() bus.Subscription {
	return bus.Subscription{Name: forwardName, Channel: forwardChannel, Target: json.RawMessage(`{"forward":true}`), Concurrency: 64,
		Retry: bus.Retry{Attempts: 20, MinBackoff: time.Second, MaxBackoff: time.Minute, MaxAge: 24 * time.Hour}, Deadline: time.Minute}
}

// toldOf are a Function's destinations.
type toldOf struct{ success, failure, dead *destination }

// destinations gives a Function's, and what of them cannot be told.
func (s *Server) destinations(r resolver, f *app.Function) (to toldOf, faults []string) {
	if f.Async == nil {
		return to, nil
	}
	read := func(what string, v app.Value) *destination {
		if v.IsZero() {
			return nil
		}
		d, err := destinationOf(r, v)
		if err == nil {
			t := d.thing()
			err = s.mayUse(context.Background(), state.StackKey{Tenant: tenant, App: r.app.Name, Stage: r.app.Stage}, f.Name, t, sends[t.service], "")
		}
		if err != nil {
			d = nil
			faults = append(faults, fmt.Sprintf("%s of function %s: %v", what, f.Key, err))
		}
		return d
	}
	to.success, to.failure = read("the on-success destination", f.Async.OnSuccess), read("the on-failure destination", f.Async.OnFailure)
	to.dead = read("the dead-letter target", f.Async.DeadLetter)
	if to.dead != nil && to.dead.address() == "" {
		faults = append(faults, fmt.Sprintf("the dead-letter target of function %s is no queue and no topic", f.Key))
		to.dead = nil
	}
	return to, faults
}

func destinationOf(r resolver, v app.Value) (*destination, error) {
	text, err := v.Resolve(r.values())
	if err != nil {
		return nil, err
	}
	return destinationAt(text)
}

// destinationAt reads a destination's ARN, or a Function's name.
func destinationAt(text string) (*destination, error) {
	if _, name, ok := strings.Cut(text, ":event-bus/"); ok {
		return &destination{Bus: name}, nil
	}
	a, err := arn.Parse(text)
	switch {
	case !strings.HasPrefix(text, "arn:") || err == nil && a.Service == "lambda":
		name, _, err := arn.FunctionName(text)
		if err != nil {
			return nil, errs.New(errs.Invalid, "%w", err)
		}
		return &destination{Function: name}, nil
	case err == nil && a.Service == "sqs":
		return &destination{Queue: a.Resource}, nil
	case err == nil && a.Service == "sns" && !strings.Contains(a.Resource, ":"): // not a subscription
		return &destination{Topic: a.Resource}, nil
	}
	return nil, errs.New(errs.Unsupported, "%s is declared, not yet active: functions, queues, topics and event buses are", text)
}

// reach sees to it that a destination can be told; its error says why it cannot.
func (s *Server) reach(ctx context.Context, d *state.Deployment, to *destination) error {
	switch {
	case to.Function != "":
		f := d.App.Function(to.Function)
		if f == nil || f.Name != to.Function {
			var err error
			if f, d, err = s.declared(ctx, to.Function); err != nil {
				return err
			}
		}
		return s.subscribe(ctx, s.async(d, f))
	case to.Queue != "":
		_, err := s.events.bus.QueueStatus(ctx, tenant+"/"+to.Queue)
		return err
	case to.Topic != "":
		_, err := s.events.bus.Topic(ctx, tenant+"/"+to.Topic)
		return err
	}
	return nil
}

// reachAll sees to it that what Subscriptions deliver to and tell can be reached, and tells what cannot.
func (s *Server) reachAll(ctx context.Context, d *state.Deployment, subs []bus.Subscription) (faults []string) {
	seen := map[destination]bool{}
	forwards := false
	for _, sub := range subs {
		t, ok := targetIn(sub)
		if !ok {
			continue
		}
		who := strings.TrimPrefix(sub.Name, triggerPrefix(d.Stack))
		if t.Function != "" {
			who = "function " + t.Function
		}
		all := t.destinations()
		for _, to := range all {
			forwards = forwards || to.address() != ""
		}
		if t.Queue != "" || t.Topic != "" {
			all = append(all, &destination{Queue: t.Queue, Topic: t.Topic})
		}
		for _, to := range all {
			if seen[*to] {
				continue
			}
			seen[*to] = true
			if err := s.reach(ctx, d, to); err != nil {
				faults = append(faults, fmt.Sprintf("%s: what goes to %s cannot be delivered: %v", who, to, err))
			}
		}
	}
	if forwards {
		if err := s.subscribe(ctx, forwarding()); err != nil {
			faults = append(faults, err.Error())
		}
	}
	return faults
}

// String names a destination for people.
func (d *destination) String() string {
	switch {
	case d.Queue != "":
		return "queue " + d.Queue
	case d.Topic != "":
		return "topic " + d.Topic
	case d.Bus != "":
		return "event bus " + d.Bus
	}
	return "function " + d.Function
}

// ended gives what is published because a delivery ended: it is the bus's Ended.
func (s *Server) ended(v *bus.Delivery, st bus.State, cause bus.Cause, last bus.Outcome) []*event.Event {
	var t target
	if json.Unmarshal(v.Target, &t) != nil || len(t.destinations()) == 0 {
		return nil
	}
	e := guest.Ending{
		Invocation: t.invocation(v), ARN: t.arn(), At: time.Now().UTC(), Attempts: v.Attempt, Failed: st != bus.Done,
		Expired: cause == bus.CauseExpired, Spent: cause == bus.CauseExhausted, Response: last.Result,
	}
	if last.Err != nil {
		e.Code, e.Error = errs.CodeOf(last.Err), last.Err.Error()
	}
	var out []*event.Event
	add := func(one *event.Event) {
		if one != nil {
			bus.Caused(one, v.Event)
			if t.Function != "" {
				one.SetExtension(bus.Parent, e.Invocation)
				one.SetExtension(bus.Publisher, t.Function)
			}
			out = append(out, one)
		}
	}
	if t.Function != "" {
		e.Request = s.request(&t, v)
		to := t.OnSuccess
		if e.Failed {
			to = t.OnFailure
		}
		if to != nil {
			add(s.told(to, v, e))
		}
		if e.Failed && t.DeadLetter != nil {
			add(forwarded(t.DeadLetter, "dead letter", v, e, e.Request, s.protocol.DeadLetter(e)))
		}
	}
	// What a Function failed on is the Function's affair, as on AWS: it was delivered. Who puts a Subscription wants all that it did not do.
	if ran := t.Function != "" && t.Own == nil && (e.Spent || v.Attempt > 1); e.Failed && t.Dead != nil && !ran {
		add(s.undelivered(&t, v, e))
	}
	return out
}

// request is the payload that a Function got.
func (s *Server) request(t *target, v *bus.Delivery) []byte {
	if t.Raw {
		return v.Event.Data
	}
	if data, ok, err := t.formatted(v); ok && err == nil {
		return data
	}
	b, err := t.batch(v)
	if err == nil {
		var data []byte
		if data, err = s.protocol.Event(nil, t.unit(), b); err == nil {
			return data
		}
	}
	return event.Envelope(nil, v.Event, t.Account, t.Region) // it never had another form
}

// told is what a Function's Destination gets.
func (s *Server) told(to *destination, v *bus.Delivery, e guest.Ending) *event.Event {
	record := s.protocol.Tell(nil, e)
	if to.address() != "" {
		return forwarded(to, "ending", v, e, record, nil)
	}
	id := endingID("ending", v, e)
	out := &event.Event{ID: id, Source: asyncSource, Type: asyncType, Subject: to.Function, Time: e.At, DataContentType: "application/json", Data: record}
	channel := asyncChannel
	if to.Bus != "" {
		what := "Success"
		if e.Failed {
			what = "Failure"
		}
		var err error
		out, err = event.FromEntry(event.Entry{ID: id, Time: e.At, Source: "lambda", DetailType: "Lambda Function Invocation Result - " + what, Resources: []string{e.ARN + ":$LATEST"}, Detail: record})
		if err != nil {
			s.o.Log.Error("the end of an invocation is not told", "invocation", e.Invocation, "error", err)
			return nil
		}
		channel = busChannel(to.Bus)
	}
	out.SetExtension(bus.Channel, channel)
	return out
}

// undelivered is what the dead-letter queue of a rule or of a topic's Subscription gets.
func (s *Server) undelivered(t *target, v *bus.Delivery, e guest.Ending) *event.Event {
	if t.Via != invocation.ViaTopic {
		on := arn.New("events", t.Region, t.Account, "rule/"+t.Rule).String()
		body := event.Envelope(nil, v.Event, t.Account, t.Region)
		if data, ok, err := (&target{Format: t.Format}).formatted(v); ok && err == nil {
			body = data
		}
		return forwarded(t.Dead, "undelivered", v, e, body, s.protocol.RuleDeadLetter(on, t.arn(), e))
	}
	body, err := s.text(t, v)
	if err != nil {
		body = v.Event.Data
	}
	attributes := s.protocol.DeadLetter(e)
	if t.Bare {
		for name, a := range bus.Attributes(v.Event) {
			attributes[name] = a
		}
	}
	return forwarded(t.Dead, "undelivered", v, e, body, attributes)
}

// forwarded is the event that brings a message to a queue or topic.
func forwarded(to *destination, what string, v *bus.Delivery, e guest.Ending, body []byte, attributes map[string]invocation.Attribute) *event.Event {
	if len(body) == 0 { // as a handler gets it
		body = []byte("{}")
	}
	out := &event.Event{ID: endingID(what, v, e), Source: forwardSource, Type: forwardType, Subject: to.address(), Time: e.At, Data: body}
	if json.Valid(body) {
		out.DataContentType = "application/json"
	} else {
		out.DataContentType = "application/octet-stream"
	}
	bus.SetAttributes(out, attributes)
	if group := v.Event.Extension(bus.PartitionKey); group != "" && bus.Dedup(v.Event) != "" { // of a FIFO topic
		out.SetExtension(bus.PartitionKey, group)
	}
	out.SetExtension(bus.Channel, forwardChannel)
	return out
}

// endingID names what is told of an end: the same end, written again after a crash, has the same id, and is dropped.
func endingID(what string, v *bus.Delivery, e guest.Ending) string {
	st := bus.Done
	if e.Failed {
		st = bus.Dead
	}
	return uuid8("ebb "+what, v.ID, v.Published.UnixMilli(), v.Redriven, v.Replay, st)
}

// invocation is the ID of a delivery's Invocation, the same in all attempts.
func (t *target) invocation(v *bus.Delivery) string {
	if t.Raw {
		return v.Event.ID
	}
	return invocationOf(bus.TraceOf(v.Event), v.ID, v.Published, v.Event.Source, v.Event.ID)
}

// uuid8 makes a UUID of what is given: version 8, which is free for such use.
func uuid8(parts ...any) string {
	b := sha256.Sum256(fmt.Appendf(nil, "%q", parts))
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}
