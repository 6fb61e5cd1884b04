package server

import (
	"context"
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
)

var traceRE = regexp.MustCompile(`^[\x21-\x7e]{1,512}$`)

// Trace tells what caused what, from an ID of any of it.
func (s *Server) Trace(ctx context.Context, id string) (*api.TraceInfo, error) {
	if !traceRE.MatchString(id) {
		return nil, errs.New(errs.Invalid, "%q is no ID", id)
	}
	running := s.sink.running()                    // before and after the log is read
	if err := s.events.bus.Sync(ctx); err != nil { // what was published a moment ago is there
		return nil, err
	}
	list, err := s.events.bus.Find(ctx, id)
	if err != nil {
		return nil, err
	}
	functions, err := s.targets(ctx)
	if err != nil {
		return nil, err
	}
	var found []*api.TraceInfo
	for _, t := range list {
		all, more, err := s.events.bus.Trace(ctx, t)
		if err != nil {
			return nil, err
		}
		for id := range s.sink.running() {
			running[id] = true
		}
		info := traceOf(t, all, functions, running)
		info.More = more
		if _, ok := bus.InvocationPrefix(id); !ok || len(list) == 1 || info.has(id) {
			found = append(found, &info.TraceInfo)
		}
	}
	switch len(found) {
	case 0:
		return nil, errs.New(errs.NotFound, "nothing in the event log has the ID %s", id).
			WithHint("It is the ID of an event, a message of a queue, an invocation or a trace. Invocations whose callers waited are there only where they published events.")
	case 1:
		return found[0], nil
	}
	var names []string
	for _, f := range found {
		names = append(names, f.Trace)
	}
	return nil, errs.New(errs.Conflict, "several traces have something with the ID %s", id).WithHint("Give the ID of one of them: %s.", strings.Join(names, ", "))
}

// targets gives what each Subscription delivers to, as people know it.
func (s *Server) targets(ctx context.Context) (map[string]string, error) {
	subs, err := s.events.bus.Subscriptions(ctx)
	if err != nil {
		return nil, err
	}
	functions := map[string]string{}
	for _, sub := range subs {
		var t target
		if json.Unmarshal(sub.Target, &t) == nil {
			functions[sub.Name] = t.String()
		}
	}
	return functions, nil
}

// invocationOf is the ID of the Invocation of a delivery, the same in all attempts.
func invocationOf(t bus.TraceID, delivery string, published time.Time, source, id string) string {
	return bus.InvocationID(t, "ebb delivery", delivery, strconv.FormatInt(published.UnixMilli(), 10), source, id) // an event's id is its publisher's
}

// tree is a trace while it is put together.
type tree struct {
	api.TraceInfo
	functions map[string]string
	nodes     map[string]*branch // by kind and ID
	order     []*branch
}

// branch is a node whose children are not known yet.
type branch struct {
	api.TraceNode
	children []*branch
	parent   *branch
}

func (t *tree) has(id string) bool { return t.nodes[api.TraceInvocation+id] != nil }

// add puts a node into the tree, or gives the one that is there.
func (t *tree) add(n api.TraceNode) *branch {
	key := n.Kind + n.ID
	if n.Kind == api.TraceEvent {
		key += "\x00" + n.Bus + "\x00" + n.Source
	}
	if old := t.nodes[key]; old != nil {
		return old
	}
	b := &branch{TraceNode: n}
	t.nodes[key] = b
	t.order = append(t.order, b)
	return b
}

// under makes a node a child of another, unless it has a parent, or is above it.
func (b *branch) under(parent *branch) {
	if b.parent != nil {
		return
	}
	for p := parent; p != nil; p = p.parent {
		if p == b {
			return
		}
	}
	b.parent = parent
	parent.children = append(parent.children, b)
}

// traceOf makes the tree of what was found. Of what runs, more will be found.
func traceOf(id bus.TraceID, found []bus.Traced, functions map[string]string, running map[string]bool) *tree {
	t := &tree{TraceInfo: api.TraceInfo{Trace: id.String(), Roots: []api.TraceNode{}}, functions: functions, nodes: map[string]*branch{}}
	slices.SortStableFunc(found, func(a, b bus.Traced) int { return a.At.Compare(b.At) })
	for i := range found {
		if w := found[i].Work; w != nil {
			t.work(w)
		}
	}
	type child struct {
		*branch
		parent, by string
	}
	var children []child
	for i := range found {
		switch f := &found[i]; {
		case f.Event != nil:
			b, parent := t.event(f)
			children = append(children, child{b, parent, f.Event.Extensions[bus.Publisher]})
		case f.Message != nil:
			children = append(children, child{t.message(f), f.Message.Parent, f.Message.Publisher})
		}
	}
	for _, c := range children {
		if c.parent == "" {
			continue
		}
		p := t.nodes[api.TraceInvocation+c.parent]
		if p == nil { // how it went is not written, or not yet
			p = t.add(api.TraceNode{Kind: api.TraceInvocation, ID: c.parent, Function: c.by, At: c.At})
		}
		c.under(p)
	}
	for i := range found {
		if w := found[i].Work; w != nil {
			t.took(w)
		}
	}
	t.finish(running)
	return t
}

// event adds an event with its deliveries, and gives the Invocation that published it. What is an asynchronous Invocation is shown as that alone.
func (t *tree) event(f *bus.Traced) (*branch, string) {
	e := f.Event
	channel, parent := e.Extensions[bus.Channel], e.Extensions[bus.Parent]
	name, onBus := strings.CutPrefix(channel, busChannel(""))
	if channel == asyncChannel {
		mode := "async"
		if parent != "" {
			mode = "destination"
		}
		b := t.add(api.TraceNode{Kind: api.TraceInvocation, ID: e.ID, At: f.At, Function: e.Subject, Mode: mode, State: "pending"})
		for _, v := range e.Deliveries {
			t.delivery(b, v, mode)
		}
		return b, parent
	}
	n := api.TraceNode{Kind: api.TraceEvent, ID: e.ID, At: f.At, Type: e.Type, Source: e.Source, PublishedBy: e.Extensions[bus.Publisher]}
	mode := "event"
	topic, toTopic := strings.CutPrefix(channel, bus.TopicChannel(tenant+"/"))
	switch {
	case onBus:
		n.Bus = name
	case toTopic:
		n.Topic, mode = topic, "topic"
	case channel == scheduleChannel:
		mode = "schedule"
	}
	b := t.add(n)
	for _, v := range e.Deliveries {
		id := invocationOf(f.Trace, v.ID, v.Published, e.Source, e.ID)
		one := t.add(api.TraceNode{Kind: api.TraceInvocation, ID: id, At: v.Published, Mode: mode})
		t.delivery(one, v, mode)
		one.under(b)
	}
	return b, parent
}

// delivery fills in how an Invocation stands.
func (t *tree) delivery(b *branch, v bus.Status, mode string) {
	st := invocationStatus(v)
	b.State, b.Cause, b.Due, b.Running, b.Tries, b.Attempts = st.State, st.Cause, st.Due, st.Running, st.Tries, st.Attempts
	b.Redriven, b.Replay, b.Delivery, b.Subscribed = v.Redriven, v.Replay, v.ID, v.Subscription
	b.At, b.Mode, b.DurationMS, b.Error = v.Published, mode, 0, ""
	for _, a := range st.Attempts {
		b.DurationMS += a.DurationMS
		b.Error = a.Error
	}
	switch f := t.functions[v.Subscription]; {
	case f != "":
		b.Function = f
	case strings.HasPrefix(v.Subscription, "async/"):
		b.Function = functionOf(v.Subscription)
	case b.Function == "":
		b.Function = v.Subscription // its Stack was removed: what is left is its name
	}
}

// work adds an Invocation that is not a delivery.
func (t *tree) work(w *bus.Work) {
	n := api.TraceNode{
		Kind: api.TraceInvocation, ID: w.ID, At: w.Start, Function: w.Name, Mode: "request", State: "succeeded", DurationMS: float64(w.Took.Microseconds()) / 1000,
		Error: w.Error, Tries: 1, Together: len(w.Messages),
	}
	if w.Queue != "" {
		n.Mode, n.Queue = "queue", bareQueue(w.Queue)
	}
	if w.Error != "" || len(w.Failed) > 0 {
		n.State = "failed"
	}
	if len(w.Failed) > 0 && len(w.Failed) < len(w.Messages) {
		n.State = "failed in part"
	}
	t.add(n)
}

func bareQueue(key string) string { return key[strings.LastIndexByte(key, '/')+1:] }

// message adds a message of a queue. One that was moved is in the log twice.
func (t *tree) message(f *bus.Traced) *branch {
	m := f.Message
	b := t.add(api.TraceNode{Kind: api.TraceMessage, ID: m.ID, At: f.At, Queue: bareQueue(m.Queue), State: "done", PublishedBy: m.Publisher})
	if !m.Moved {
		b.Queue = bareQueue(m.Queue)
	}
	if !f.At.IsZero() && f.At.Unix() > 0 && (b.At.Unix() <= 0 || f.At.Before(b.At)) {
		b.At = f.At
	}
	if m.In == "" {
		return b
	}
	b.In, b.DeadFrom, b.Receives = bareQueue(m.In), "", m.Receives
	switch {
	case m.DeadFrom != "":
		b.State, b.DeadFrom = "dead", bareQueue(m.DeadFrom)
	case m.Receives > 0 && m.Visible.After(time.Now()):
		b.State = "in flight"
	default:
		b.State = "waiting"
	}
	return b
}

// took hangs the Invocation of a Batch below its messages: whole below the first, and named below the others.
func (t *tree) took(w *bus.Work) {
	inv := t.nodes[api.TraceInvocation+w.ID]
	for _, id := range w.Messages {
		m := t.nodes[api.TraceMessage+id]
		switch {
		case m == nil:
		case inv.parent == nil:
			inv.under(m)
		default:
			n := inv.TraceNode
			n.Elsewhere = true
			m.children = append(m.children, &branch{TraceNode: n, parent: m})
		}
		if m != nil && m.At.Unix() <= 0 { // it is gone from its queue, and when it was sent with it
			m.At = inv.At
		}
	}
}

// finish turns the branches into nodes, and counts.
func (t *tree) finish(running map[string]bool) {
	for _, b := range t.order {
		switch {
		case !running[b.ID]:
		case b.Kind == api.TraceInvocation && b.State == "":
			b.State, b.Mode = "running", "request"
		case b.Kind == api.TraceMessage && b.State == "done" && len(b.children) == 0:
			b.State = "in flight"
		}
		switch {
		case b.State == "dead":
			t.Dead++
		case b.State == "pending", b.State == "running", b.State == "retrying", b.State == "waiting", b.State == "in flight":
			t.Open++
		}
	}
	for _, b := range t.order {
		if b.parent == nil {
			t.Roots = append(t.Roots, b.node())
		}
	}
	slices.SortStableFunc(t.Roots, earlier)
}

func earlier(a, b api.TraceNode) int { return a.At.Compare(b.At) }

func (b *branch) node() api.TraceNode {
	n := b.TraceNode
	for _, c := range b.children {
		n.Children = append(n.Children, c.node())
	}
	slices.SortStableFunc(n.Children, earlier)
	return n
}
