package server

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/arn"
	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/bus/rule"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
)

// target says what a Subscription delivers to; it is kept in the event log. Exactly one of Function, Queue, Topic, Endpoint, Bus and Forward is set.
type target struct {
	Function string `json:"function,omitempty"` // full name
	Queue    string `json:"queue,omitempty"`    // name
	Topic    string `json:"topic,omitempty"`    // name
	Endpoint string `json:"endpoint,omitempty"` // URL that is posted to
	Bus      string `json:"bus,omitempty"`      // event bus that it is published on again
	Forward  bool   `json:"forward,omitempty"`  // the queue or topic that the event's subject names

	Raw     bool           `json:"raw,omitempty"`    // the event's data are the payload
	Via     invocation.Via `json:"via,omitempty"`    // otherwise: in which form it is given
	Bare    bool           `json:"bare,omitempty"`   // of a topic: the message alone, without the notification around it
	Source  string         `json:"source,omitempty"` // name of the bus, topic … it comes from
	Input   *rule.Input    `json:"input,omitempty"`  // what takes the event's place
	Rule    string         `json:"rule,omitempty"`   // name of the rule, for templates
	Group   string         `json:"group,omitempty"`  // of a schedule
	Label   string         `json:"label,omitempty"`  // of a topic: the Subscription's id
	Account string         `json:"account,omitempty"`
	Region  string         `json:"region,omitempty"`

	MessageGroup string `json:"messageGroup,omitempty"` // in a FIFO queue, where the event has none
	ContentType  string `json:"contentType,omitempty"`  // of what is posted; empty means SNS's own
	Format       string `json:"format,omitempty"`       // of what somebody has put: in which form; empty means as Via says

	Own *api.SubscriptionSpec `json:"own,omitempty"` // as somebody has put it, who may be no App

	Owner string `json:"owner,omitempty"` // on whose account an endpoint is called

	OnSuccess  *destination `json:"onSuccess,omitempty"`
	OnFailure  *destination `json:"onFailure,omitempty"`
	DeadLetter *destination `json:"deadLetter,omitempty"` // of the Function
	Dead       *destination `json:"dead,omitempty"`       // of the Subscription: what the target did not take
}

// targetIn reads a Subscription's target; false where it is none of this ebb.
func targetIn(sub bus.Subscription) (t target, ok bool) {
	return t, json.Unmarshal(sub.Target, &t) == nil
}

// String names a target for people; a Function has a place of its own.
func (t *target) String() string {
	switch {
	case t.Queue != "":
		return "queue " + t.Queue
	case t.Topic != "":
		return "topic " + t.Topic
	case t.Endpoint != "":
		return redacted(t.Endpoint)
	case t.Bus != "":
		return "event bus " + t.Bus
	case t.Forward:
		return "dead letters and destinations"
	}
	return t.Function
}

// arn names the target as its provider does.
func (t *target) arn() string {
	switch {
	case t.Queue != "":
		return arn.New("sqs", t.Region, t.Account, t.Queue).String()
	case t.Topic != "":
		return arn.New("sns", t.Region, t.Account, t.Topic).String()
	case t.Endpoint != "":
		return redacted(t.Endpoint)
	case t.Bus != "":
		return arn.New("events", t.Region, t.Account, "event-bus/"+t.Bus).String()
	}
	return arn.Function(t.Region, t.Account, t.Function).String()
}

// protocol is by what name a publication has a text of its own for the target.
func (t *target) protocol() string {
	switch {
	case t.Queue != "":
		return "sqs"
	case strings.HasPrefix(t.Endpoint, "https:"):
		return "https"
	case t.Endpoint != "":
		return "http"
	}
	return "lambda"
}

func (t *target) unit() *guest.Unit {
	return &guest.Unit{Function: t.Function, ARN: t.arn(), Region: t.Region, Account: t.Account}
}

// batch gives a delivery as a Batch of one Item.
func (t *target) batch(v *bus.Delivery) (*invocation.Batch, error) {
	if t.Via == "" {
		return nil, errs.New(errs.Unsupported, "this ebb does not know the target %s", v.Target)
	}
	it := invocation.Item{Event: v.Event, Arrived: v.Published}
	if t.Via == invocation.ViaTopic {
		it.Attributes, it.Group, it.Dedup = bus.Attributes(v.Event), v.Event.Extension(bus.PartitionKey), bus.Dedup(v.Event)
		if it.Dedup != "" {
			it.Sequence = v.Sequence
		}
		it.Event = v.Event.Clone()
		it.Event.Data = bus.MessageFor(v.Event, t.protocol())
	}
	b := &invocation.Batch{Via: t.Via, Source: t.Source, Group: t.Group, Label: t.Label, Items: []invocation.Item{it}}
	if t.Input == nil {
		return b, nil
	}
	tr, err := t.Input.Compile()
	if err != nil {
		return nil, err
	}
	if t.Group != "" && t.Input.Input != nil {
		b.Input = []byte(t.slotted(*t.Input.Input, v))
		return b, nil
	}
	vars := rule.Vars{RuleName: t.Rule, Ingestion: v.Published}
	if b.Input, err = tr.Apply(event.Envelope(nil, v.Event, t.Account, t.Region), vars); err != nil {
		return nil, errs.New(errs.Invalid, "transform the event: %w", err)
	}
	return b, nil
}

// takes gives the Payload of a delivery to a Function.
func (t *target) takes(v *bus.Delivery) (invocation.Payload, error) {
	if t.Raw {
		return invocation.Raw(v.Event.Data), nil
	}
	if data, ok, err := t.formatted(v); ok || err != nil {
		return invocation.Raw(data), err
	}
	return t.batch(v)
}

// text is what a target that is no Function gets of a delivery.
func (s *Server) text(t *target, v *bus.Delivery) ([]byte, error) {
	if t.Raw {
		return v.Event.Data, nil
	}
	if data, ok, err := t.formatted(v); ok || err != nil {
		return data, err
	}
	b, err := t.batch(v)
	switch {
	case err != nil:
		return nil, err
	case b.Input != nil:
		return b.Input, nil
	case t.Via == invocation.ViaTopic && t.Bare:
		return b.Items[0].Event.Data, nil
	case t.Via == invocation.ViaTopic:
		return s.protocol.Notice(nil, t.unit(), b), nil
	}
	if t.Via == invocation.ViaBucket { // a message of its own, as a Function's event
		record, err := s.protocol.Record([]byte(`{"Records":[`), t.unit(), b, 0)
		return append(record, "]}"...), err
	}
	return s.protocol.Record(nil, t.unit(), b, 0)
}

// deliverer runs what the bus delivers.
type deliverer struct{ s *Server }

// Deliver gives each of the deliveries to their Subscription's target.
func (d deliverer) Deliver(ctx context.Context, batch []*bus.Delivery) []bus.Outcome {
	var t target
	err := json.Unmarshal(batch[0].Target, &t)
	out := d.deliver(ctx, batch, t, err)
	if t.Own != nil { // it stands whether its target does or not: what is not there now may come back
		for i := range out {
			if errs.CodeOf(out[i].Err) == errs.NotFound {
				out[i].Err = errs.New(errs.Unavailable, "%w", out[i].Err)
			}
		}
	}
	return out
}

// deliver does; err is that of reading the target.
func (d deliverer) deliver(ctx context.Context, batch []*bus.Delivery, t target, err error) []bus.Outcome {
	out := make([]bus.Outcome, len(batch))
	if err == nil && t.Queue != "" {
		return d.send(ctx, &t, batch)
	}
	for i, v := range batch {
		switch {
		case err != nil:
			out[i].Err = errs.New(errs.Unsupported, "this ebb does not know the target %s", v.Target)
		case t.Function != "":
			out[i] = d.run(ctx, &t, v)
		case t.Topic != "":
			out[i].Err = d.publish(ctx, &t, v)
		case t.Endpoint != "":
			out[i].Err = d.post(ctx, &t, v)
		case t.Bus != "":
			out[i].Err = d.relay(ctx, &t, v)
		case t.Forward:
			out[i] = d.forward(ctx, v)
		default:
			out[i].Err = errs.New(errs.Unsupported, "this ebb does not know the target %s", v.Target)
		}
	}
	return out
}

// run runs a Function.
func (d deliverer) run(ctx context.Context, t *target, v *bus.Delivery) bus.Outcome {
	payload, err := t.takes(v)
	if err != nil {
		return bus.Outcome{Err: err}
	}
	inv := &invocation.Invocation{
		ID: t.invocation(v), Tenant: tenant, Function: t.Function, Mode: invocation.ModeAsync, Attempt: v.Attempt, Received: v.Published,
		Trace: bus.TraceContext(v.Event), Hops: bus.HopsOf(v.Event), ClientContext: v.Event.Extension(clientContext), Payload: payload,
	}
	var answer invocation.Buffer
	err = invoker(d).Invoke(ctx, inv, &answer)
	if errs.CodeOf(err) == errs.NotFound {
		// What is removed loses its Subscription: this one is deployed, and not served here now.
		err = errs.New(errs.Unavailable, "%w", err)
	}
	out := bus.Outcome{Err: err}
	if json.Valid(answer.Body.Bytes()) {
		out.Result = answer.Body.Bytes()
	}
	if f := answer.Head.Error; err == nil && f != nil {
		out.Err = errs.New(errs.Failed, "%s", failure(f))
	}
	return out
}

func failure(f *invocation.FunctionError) string {
	if f.Type == "" {
		return f.Message
	}
	return f.Type + ": " + f.Message
}

// delivered names what is made of a delivery, the same in all attempts.
func delivered(what string, v *bus.Delivery) string {
	return uuid8("ebb "+what, v.ID, v.Published.UnixMilli(), v.Event.Source, v.Event.ID, v.Redriven, v.Replay)
}

// messageGroup is the group of what a delivery becomes in a FIFO queue or topic. The partitionkey of an event of a bus is its publisher's, and no group.
func (t *target) messageGroup(v *bus.Delivery) string {
	if g := v.Event.Extension(bus.PartitionKey); g != "" && (t.Raw || t.Via == invocation.ViaTopic || t.Own != nil && t.Own.Ordered) {
		return g
	}
	return t.MessageGroup
}

// message is what a queue gets of a delivery. Its ID is the same in all attempts: at a crash between the sending and its record it is sent twice.
func (d deliverer) message(t *target, v *bus.Delivery) (bus.Message, error) {
	body, err := d.s.text(t, v)
	if err != nil {
		return bus.Message{}, err
	}
	m := bus.Message{ID: delivered("message", v), Body: body, Trace: bus.TraceContext(v.Event), Hops: bus.HopsOf(v.Event), Parent: t.invocation(v), Publisher: v.Subscription}
	if t.Raw || t.Bare {
		m.Attributes = bus.Attributes(v.Event)
	}
	fifo := strings.HasSuffix(t.Queue, ".fifo")
	if fifo || t.Via == invocation.ViaTopic {
		m.Group = t.messageGroup(v)
	}
	if fifo {
		if m.Dedup = bus.Dedup(v.Event); m.Dedup == "" || v.Redriven > 0 || v.Replay != "" { // who sends again wants it to arrive
			m.Dedup = m.ID
		}
	}
	return m, nil
}

// send sends deliveries to a queue, in one write.
func (d deliverer) send(ctx context.Context, t *target, batch []*bus.Delivery) []bus.Outcome {
	out := make([]bus.Outcome, len(batch))
	var messages []bus.Message
	var at []int
	for i, v := range batch {
		m, err := d.message(t, v)
		if err != nil {
			out[i].Err = err
			continue
		}
		messages, at = append(messages, m), append(at, i)
	}
	if len(messages) == 0 {
		return out
	}
	sent, err := d.s.events.bus.Send(ctx, tenant+"/"+t.Queue, messages)
	for k, i := range at {
		switch {
		case k < len(sent) && sent[k].Err != nil:
			out[i].Err = sent[k].Err
		case sent == nil: // else an error is one of looking for duplicates: they were sent
			out[i].Err = err
		}
	}
	return out
}

// publish publishes a delivery to a topic.
func (d deliverer) publish(ctx context.Context, t *target, v *bus.Delivery) error {
	body, err := d.s.text(t, v)
	if err != nil {
		return err
	}
	p := bus.Publication{Message: body, Trace: bus.TraceContext(v.Event), Cause: v.Event, Parent: t.invocation(v), Publisher: v.Subscription}
	if t.Raw {
		p.Attributes = bus.Attributes(v.Event)
	}
	if id := delivered("publication", v); strings.HasSuffix(t.Topic, ".fifo") {
		p.Dedup, p.Group = id, t.messageGroup(v)
	} else {
		p.ID = id
	}
	out, err := d.s.events.bus.PublishTopic(ctx, tenant+"/"+t.Topic, p)
	if err != nil {
		return err
	}
	return out[0].Err
}

// forward sends an event to the queue or topic that its subject names.
func (d deliverer) forward(ctx context.Context, v *bus.Delivery) bus.Outcome {
	kind, name, _ := strings.Cut(v.Event.Subject, "/")
	switch kind {
	case "queue":
		return d.send(ctx, &target{Queue: name, Raw: true, MessageGroup: forwardGroup}, []*bus.Delivery{v})[0]
	case "topic":
		return bus.Outcome{Err: d.publish(ctx, &target{Topic: name, Raw: true, MessageGroup: forwardGroup}, v)}
	}
	return bus.Outcome{Err: errs.New(errs.Unsupported, "this ebb does not know the destination %s", v.Event.Subject)}
}

// onlyOnce are the destinations without doubles.
func onlyOnce(all ...*destination) []*destination {
	var out []*destination
	for _, d := range all {
		if d != nil && !slices.ContainsFunc(out, func(o *destination) bool { return *o == *d }) {
			out = append(out, d)
		}
	}
	return out
}

// destinations gives all that is told of how deliveries to the target end.
func (t *target) destinations() []*destination {
	return onlyOnce(t.OnSuccess, t.OnFailure, t.DeadLetter, t.Dead)
}
