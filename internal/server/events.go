package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/bus/rule"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/state"
)

// What the bus carries is kept apart by channel.
const (
	// asyncChannel has a Function's asynchronous Invocations: their subject is its full name.
	asyncChannel = tenant + "/async"
	// asyncType and asyncSource are those of the events on it; their id is the Invocation's.
	asyncType   = "run.ebb.invocation"
	asyncSource = "/invocations"
	// clientContext is the extension with a direct caller's client context.
	clientContext = "ebbclientcontext"
)

// maxEvent bounds what comes from outside, in bytes.
func (s *Server) maxEvent() int {
	if kb := s.o.Config.MaxEventKB; kb > 0 {
		return kb << 10
	}
	return bus.DefaultData
}

// events is the bus, and what this Node has told it.
type events struct {
	bus   *bus.Bus
	alone bool // no other Node has this bus
	mu    struct {
		sync.Mutex
		subs  map[string][]byte // name → what stands; nil until it was asked for
		async map[string]string // Function → Deployment for which its Subscription was seen to stand
	}
}

// openEvents opens the event log. Nothing is delivered before Run.
func (s *Server) openEvents(ctx context.Context) error {
	o := bus.Options{
		Dir: filepath.Join(s.o.Config.Data, "events"), Alone: s.o.Config.NATS == "", Log: s.o.Log, Seal: s.seal.Box("events"), Deliver: deliverer{s},
		Limits:  event.Limits{Event: 2 * s.maxEvent()}, // what ebb itself publishes holds what came from outside, and an answer
		MaxData: s.maxEvent(), Compile: rule.Compile, Index: rule.NewIndex, Ended: s.ended, Passing: s.o.Passing,
	}
	s.events.alone = o.Alone
	if !o.Alone {
		o.Replicas = s.replicas()
		o.Node = nodeName(s.o.Config.Data)
	}
	var err error
	if s.events.bus, err = bus.Open(ctx, s.nats.JetStream(), o); err != nil {
		return s.oneCopy(err)
	}
	s.closing(s.webhooks.close)
	s.closing(s.events.bus.Close)
	s.closing(s.sink.notes.close)
	return nil
}

// nodeName is this Node's among those that share a store: the host's, and something of its data directory.
func nodeName(dir string) string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "ebb"
	}
	sum := sha256.Sum256([]byte(dir))
	return host + "-" + hex.EncodeToString(sum[:4])
}

// subscribe puts a Subscription unless it stands already.
func (s *Server) subscribe(ctx context.Context, sub bus.Subscription) error {
	spec, err := json.Marshal(sub)
	if err != nil {
		return fmt.Errorf("encode subscription %s: %w", sub.Name, err)
	}
	ev := &s.events
	ev.mu.Lock()
	defer ev.mu.Unlock()
	if err := ev.know(ctx); err != nil {
		return err
	}
	if bytes.Equal(ev.mu.subs[sub.Name], spec) {
		return nil
	}
	if err := ev.bus.Subscribe(ctx, sub); err != nil {
		return err
	}
	ev.mu.subs[sub.Name] = spec
	return nil
}

// unsubscribe takes away those of the Subscriptions that stand; what they have not delivered is cancelled.
func (s *Server) unsubscribe(ctx context.Context, gone func(name string) bool) error {
	ev := &s.events
	ev.mu.Lock()
	defer ev.mu.Unlock()
	if err := ev.know(ctx); err != nil {
		return err
	}
	for name := range ev.mu.subs {
		if !gone(name) {
			continue
		}
		if err := ev.bus.Unsubscribe(ctx, name); err != nil {
			return err
		}
		delete(ev.mu.subs, name)
		delete(ev.mu.async, functionOf(name))
	}
	return nil
}

// know asks once which Subscriptions stand. mu is held.
func (ev *events) know(ctx context.Context) error {
	if ev.mu.subs != nil {
		return nil
	}
	if err := ev.bus.Sync(ctx); err != nil {
		return fmt.Errorf("read subscriptions: %w", err)
	}
	list, err := ev.bus.Subscriptions(ctx)
	if err != nil {
		return fmt.Errorf("read subscriptions: %w", err)
	}
	ev.mu.subs = map[string][]byte{}
	for _, sub := range list {
		if ev.mu.subs[sub.Name], err = json.Marshal(sub); err != nil {
			return fmt.Errorf("encode subscription %s: %w", sub.Name, err)
		}
	}
	return nil
}

// recall asks again which Subscriptions stand, where other Nodes may have put some meanwhile.
func (ev *events) recall(ctx context.Context) error {
	if ev.alone {
		return nil
	}
	ev.mu.Lock()
	defer ev.mu.Unlock()
	ev.mu.subs = nil
	return ev.know(ctx)
}

// asyncName names the Subscription that runs a Function's asynchronous Invocations.
func asyncName(function string) string { return "async/" + tenant + "/" + function }

func functionOf(subscription string) string {
	return strings.TrimPrefix(subscription, "async/"+tenant+"/")
}

const (
	// asyncBackoff is the wait after a first failure, which doubles, and asyncRetries and asyncAge how often and how long it is tried
	// again: Lambda guide, "How Lambda handles errors and retries with asynchronous invocation".
	asyncBackoff = time.Minute
	asyncRetries = 2
	asyncAge     = 6 * time.Hour
	// asyncAtOnce is how many of one Function's are handed to the engine at once: there they wait, or are sent back when it is full.
	asyncAtOnce = 128
)

// targetOf is a Function as a target.
func (s *Server) targetOf(d *state.Deployment, f *app.Function) target {
	t := target{Function: f.Name, Account: s.o.Config.Account, Region: region(d.App)}
	told, _ := s.destinations(s.resolver(d), f)
	t.OnSuccess, t.OnFailure, t.DeadLetter = told.success, told.failure, told.dead
	return t
}

// async is the Subscription of a Function's asynchronous Invocations.
func (s *Server) async(d *state.Deployment, f *app.Function) bus.Subscription {
	retries, age := asyncRetries, asyncAge
	if a := f.Async; a != nil {
		if a.MaxRetries != nil {
			retries = *a.MaxRetries
		}
		if a.MaxAgeSec > 0 {
			age = time.Duration(a.MaxAgeSec) * time.Second
		}
	}
	t := s.targetOf(d, f)
	t.Raw = true
	to, err := json.Marshal(t)
	if err != nil { // strings always encode
		panic(fmt.Sprintf("encode target: %v", err))
	}
	return bus.Subscription{
		Name: asyncName(f.Name), Channel: asyncChannel, Subject: f.Name, Target: to, Concurrency: asyncAtOnce,
		Retry:    bus.Retry{Attempts: retries + 1, MinBackoff: asyncBackoff, MaxBackoff: 5 * time.Minute, MaxAge: age},
		Deadline: time.Duration(f.TimeoutSec)*time.Second + s.o.Config.QueueTimeout + time.Minute,
	}
}

// followed brings the bus up to what a Deployment declares, once it serves.
// It tells what does not follow, and why.
func (s *Server) followed(ctx context.Context, d *state.Deployment, before *serving) []string {
	ctx, cancel := context.WithTimeout(ctx, patient)
	defer cancel()
	left := map[string]bool{}
	if before != nil {
		for _, f := range before.functions {
			left[asyncName(f.Name)] = true
		}
	}
	if err := s.events.recall(ctx); err != nil {
		return []string{err.Error()}
	}
	defer s.whose.changed()
	w := s.triggers(d)
	s.uncrossed(ctx, d, &w)
	maps, unmapped := s.mappings(d)
	for _, m := range maps {
		if err := s.mappingCrosses(ctx, m); err != nil {
			unmapped = append(unmapped, fmt.Sprintf("%s: %v", strings.TrimPrefix(m.Name, triggerPrefix(d.Stack)), err))
		}
	}
	faults := slices.Concat(w.faults, unmapped, s.tables(ctx, d), s.queues(ctx, d), s.topics(ctx, d), s.buckets(ctx, d), s.streams(ctx, d, before != nil && before.streams > 0))
	s.poll(d)
	var all []bus.Subscription
	for i := range d.App.Functions {
		f := &d.App.Functions[i]
		_, lacking := s.destinations(s.resolver(d), f)
		faults, all = append(faults, lacking...), append(all, s.async(d, f))
	}
	faults = append(faults, s.reachAll(ctx, d, append(all, w.subs...))...)
	standing := map[string]bool{}
	for _, sub := range w.subs {
		standing[sub.Name] = true
		if err := s.subscribe(ctx, sub); err != nil {
			return append(faults, err.Error())
		}
	}
	had := before != nil && before.triggers+before.declared > 0
	if had || len(w.timed) > 0 {
		if err := s.reschedule(ctx, triggerPrefix(d.Stack), w.timed); err != nil {
			return append(faults, err.Error())
		}
	}
	for i := range d.App.Functions {
		f := &d.App.Functions[i]
		delete(left, asyncName(f.Name))
		if !s.known(asyncName(f.Name)) {
			continue // put by the first asynchronous Invocation
		}
		if err := s.subscribe(ctx, s.async(d, f)); err != nil {
			return append(faults, err.Error())
		}
	}
	faults = append(faults, s.followOwn(ctx, d)...)
	faults = append(faults, s.followRules(ctx, d)...)
	if len(left)+len(w.subs) > 0 || had {
		err := s.unsubscribe(ctx, func(name string) bool {
			return left[name] || strings.HasPrefix(name, triggerPrefix(d.Stack)) && !standing[name]
		})
		if err != nil {
			faults = append(faults, err.Error())
		}
	}
	return append(faults, s.watchBuckets(ctx, d, w.subs)...)
}

// forgetEvents takes away what the bus knows of a removed Stack.
func (s *Server) forgetEvents(ctx context.Context, k state.StackKey, was *serving) error {
	if was == nil {
		return nil
	}
	if was.triggers+was.declared > 0 {
		if err := s.reschedule(ctx, triggerPrefix(k), nil); err != nil {
			return err
		}
	}
	// Those too that an earlier Deployment declared and the last one did not.
	if err := errors.Join(s.dropQueues(ctx, k), s.dropTopics(ctx, k), s.dropBuckets(ctx, k), s.dropTables(ctx, k), s.dropSecrets(ctx, k)); err != nil {
		return err
	}
	if was.streams > 0 {
		if err := s.dropStreams(ctx, k); err != nil {
			return err
		}
	}
	defer s.webhooks.forget(stackID(k))
	gone := map[string]bool{}
	for _, f := range was.functions {
		gone[asyncName(f.Name)] = true
	}
	return s.unsubscribe(ctx, func(name string) bool { return gone[name] || strings.HasPrefix(name, triggerPrefix(k)) })
}

// known says whether a Subscription stands, as far as this Node has asked.
func (s *Server) known(name string) bool {
	s.events.mu.Lock()
	defer s.events.mu.Unlock()
	_, ok := s.events.mu.subs[name]
	return ok
}

// InvokeAsync returns when the Invocation is durable.
func (s *Server) InvokeAsync(ctx context.Context, function string, inv *invocation.Invocation) error {
	full, err := s.resolveFunction(function)
	if err != nil {
		return err
	}
	if err := s.takesAsync(ctx, full); err != nil {
		return err
	}
	inv.ID, inv.Tenant, inv.Function, inv.Mode = newID(), tenant, full, invocation.ModeAsync
	_, err = s.events.bus.Publish(ctx, asyncEvent(inv))
	return err
}

// asyncEvent is an asynchronous Invocation as it is kept.
func asyncEvent(inv *invocation.Invocation) *event.Event {
	payload, _ := inv.Payload.(invocation.Raw)
	e := &event.Event{ID: inv.ID, Source: asyncSource, Type: asyncType, Subject: inv.Function, Time: time.Now().UTC(), DataContentType: "application/octet-stream", Data: payload}
	if json.Valid(payload) {
		e.DataContentType = "application/json"
	}
	e.SetExtension(bus.Channel, asyncChannel)
	if inv.Trace != "" {
		e.SetExtension(bus.TraceParent, inv.Trace)
	}
	e.SetExtension(bus.TraceParent, bus.TraceContext(e))
	if inv.ClientContext != "" {
		e.SetExtension(clientContext, inv.ClientContext)
	}
	return e
}

// takesAsync sees to it that a Function has its Subscription. It is asked before each Invocation, and reads a Deployment once.
func (s *Server) takesAsync(ctx context.Context, full string) error {
	id := s.deploymentOf(full)
	ev := &s.events
	ev.mu.Lock()
	ready := id != "" && ev.mu.async[full] == id
	ev.mu.Unlock()
	if ready {
		return nil
	}
	f, d, err := s.declared(ctx, full)
	if err != nil {
		return err
	}
	sub := s.async(d, f)
	for _, fault := range s.reachAll(ctx, d, []bus.Subscription{sub}) { // its deploy may have been killed before the bus followed it
		s.o.Log.Warn("a destination cannot be told", "function", full, "because", fault)
	}
	if err := s.subscribe(ctx, sub); err != nil {
		return err
	}
	ev.mu.Lock()
	defer ev.mu.Unlock()
	if ev.mu.async == nil {
		ev.mu.async = map[string]string{}
	}
	ev.mu.async[full] = d.ID
	return nil
}

// deploymentOf is the ID of the Deployment that serves a Function, or empty.
func (s *Server) deploymentOf(full string) string {
	for _, v := range s.stacks.all() {
		for _, f := range v.functions {
			if f.Name == full {
				return v.deployment
			}
		}
	}
	return ""
}

// declared gives a deployed Function as its App declares it, and its Deployment.
func (s *Server) declared(ctx context.Context, full string) (*app.Function, *state.Deployment, error) {
	for k, v := range s.stacks.all() {
		for _, f := range v.functions {
			if f.Name != full {
				continue
			}
			d, err := s.state.Deployment(ctx, k, v.deployment)
			if err != nil {
				return nil, nil, err
			}
			if f := d.App.Function(full); f != nil {
				return f, d, nil
			}
		}
	}
	return nil, nil, errs.New(errs.NotFound, "no function %s is deployed", full)
}

// Invocation tells of an asynchronous Invocation.
func (s *Server) Invocation(ctx context.Context, id string) (*api.InvocationStatus, error) {
	list, err := s.events.bus.StatusOfEvent(ctx, asyncChannel, asyncSource, id)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 { // it may be acknowledged, and not be in the index yet
		if err := s.events.bus.Sync(ctx); err != nil {
			return nil, err
		}
		if list, err = s.events.bus.StatusOfEvent(ctx, asyncChannel, asyncSource, id); err != nil {
			return nil, err
		}
	}
	if len(list) == 0 {
		return nil, errs.New(errs.NotFound, "no asynchronous invocation has the ID %s", id).
			WithHint("`ebb invocations` lists them. What ended is kept for 14 days; calls that waited for their answer are in `ebb logs --invocation ID` only.")
	}
	st := invocationStatus(list[0])
	return &st, nil
}

func invocationStatus(v bus.Status) api.InvocationStatus {
	out := api.InvocationStatus{
		ID: v.EventID, Function: v.Subject, State: v.State.String(), Cause: string(v.Cause), Accepted: v.Published, Updated: v.Updated, Due: v.Due,
		Running: v.Running, Tries: v.Tries, Redriven: v.Redriven, Delivery: v.ID,
	}
	if out.Function == "" {
		out.Function = functionOf(v.Subscription)
	}
	switch {
	case !v.Running.IsZero():
		out.State, out.Due = "running", time.Time{}
	case v.State == bus.Pending && v.Tries > 0:
		out.State = "retrying"
	case v.State == bus.Done:
		out.State, out.Due = "succeeded", time.Time{}
	}
	for _, a := range v.Attempts {
		out.Attempts = append(out.Attempts, api.InvocationAttempt{Start: a.Start, DurationMS: float64(a.Took.Microseconds()) / 1000, Counts: a.Counts, Error: a.Error, Code: string(a.Code)})
		out.Result = a.Result
	}
	return out
}

// Invocations lists asynchronous Invocations, the newest first.
func (s *Server) Invocations(ctx context.Context, q api.InvocationQuery) ([]api.InvocationStatus, error) {
	ask := bus.Query{Prefix: "async/", Limit: q.Limit, Newest: true, Events: true, Cause: bus.Cause(q.Cause)}
	if q.Function != "" {
		full, err := s.resolveFunction(q.Function)
		if err != nil {
			return nil, err
		}
		ask.Prefix, ask.Subscription = "", asyncName(full)
	}
	if q.State != "" {
		st, ok := map[string]bus.State{"pending": bus.Pending, "running": bus.Pending, "retrying": bus.Pending, "succeeded": bus.Done, "dead": bus.Dead, "cancelled": bus.Cancelled}[q.State]
		if !ok {
			return nil, errs.New(errs.Invalid, "%q is no state of an invocation", q.State).WithHint("pending, running, retrying, succeeded, dead or cancelled.")
		}
		ask.State = &st
	}
	list, err := s.events.bus.List(ctx, ask)
	if err != nil {
		return nil, err
	}
	out := []api.InvocationStatus{}
	for _, v := range list {
		if st := invocationStatus(v); q.State == "" || st.State == q.State {
			out = append(out, st)
		}
	}
	return out, nil
}

// selection turns what a caller chose into deliveries.
func (s *Server) selection(ctx context.Context, c api.InvocationChoice) ([]bus.Selection, error) {
	if len(c.IDs) > 0 {
		sel := bus.Selection{Cause: bus.Cause(c.Cause)}
		for _, id := range c.IDs {
			st, err := s.Invocation(ctx, id)
			if err != nil {
				return nil, err
			}
			sel.IDs = append(sel.IDs, st.Delivery)
		}
		return []bus.Selection{sel}, nil
	}
	if c.Function != "" {
		full, err := s.resolveFunction(c.Function)
		if err != nil {
			return nil, err
		}
		return []bus.Selection{{Subscription: asyncName(full), Cause: bus.Cause(c.Cause)}}, nil
	}
	if !c.All && c.Cause == "" {
		return nil, errs.New(errs.Invalid, "nothing is chosen").WithHint("Name IDs, a function or a cause, or ask for all.")
	}
	// All is that of the Functions: other deliveries have their own names.
	var out []bus.Selection
	err := s.unsubscribe(ctx, func(name string) bool { // only looks
		if strings.HasPrefix(name, "async/") {
			out = append(out, bus.Selection{Subscription: name, Cause: bus.Cause(c.Cause)})
		}
		return false
	})
	return out, err
}

// RedriveInvocations gives dead letters all their attempts again.
func (s *Server) RedriveInvocations(ctx context.Context, c api.InvocationChoice) (int, error) {
	return s.chosen(ctx, c, []bus.State{bus.Dead}, s.events.bus.Redrive)
}

// CancelInvocations ends Invocations that have not ended.
func (s *Server) CancelInvocations(ctx context.Context, c api.InvocationChoice) (int, error) {
	return s.chosen(ctx, c, []bus.State{bus.Pending, bus.Waiting}, s.events.bus.Cancel)
}

// chosen does something with deliveries, and tells how many stood in one of the states before.
func (s *Server) chosen(ctx context.Context, c api.InvocationChoice, states []bus.State, do func(context.Context, bus.Selection) error) (int, error) {
	list, err := s.selection(ctx, c)
	if err != nil {
		return 0, err
	}
	return s.each(ctx, list, states, do)
}

// each does something with the deliveries of Selections.
func (s *Server) each(ctx context.Context, list []bus.Selection, states []bus.State, do func(context.Context, bus.Selection) error) (int, error) {
	if err := s.events.bus.Sync(ctx); err != nil {
		return 0, err
	}
	n := 0
	for _, sel := range list {
		k, err := s.events.bus.Count(ctx, sel, states...)
		if err != nil {
			return n, err
		}
		if k == 0 {
			continue
		}
		if err := do(ctx, sel); err != nil {
			return n, err
		}
		n += k
	}
	return n, s.events.bus.Sync(ctx)
}

// runEvents delivers until ctx ends, and sees to it that what is deployed is registered.
func (s *Server) runEvents(ctx context.Context, wg *sync.WaitGroup, fail func(error)) {
	wg.Go(func() {
		if err := s.events.bus.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			fail(fmt.Errorf("event bus: %w", err))
		}
	})
	wg.Go(func() { s.catchUp(ctx) })
}
