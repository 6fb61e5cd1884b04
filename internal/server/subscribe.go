package server

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/bus/rule"
	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/state"
)

// ownPrefix begins the names of the Subscriptions that somebody has put, which belong to no Stack.
const ownPrefix = "own/" + tenant + "/"

// ownOwner is on whose account the endpoint of such a Subscription is called.
func ownOwner(name string) string { return tenant + "/subscription/" + name }

const (
	// ownAge is how long a delivery may be tried at most, ownAttempts how often: by then its event leaves the log.
	ownAge      = 14 * 24 * time.Hour
	ownAttempts = 10_000
)

// PutSubscription makes a Subscription, or changes it.
func (s *Server) PutSubscription(ctx context.Context, name string, doc []byte, parts bool) (*api.SubscriptionInfo, error) {
	d, err := readDraft(doc, parts)
	if err != nil {
		return nil, err
	}
	if err := d.check(name); err != nil {
		return nil, err
	}
	d.Name = name
	filter, err := d.filter(s.o.Config.Account, region(&app.App{}))
	if err != nil {
		return nil, err
	}
	if err := d.retry(&bus.Subscription{}); err != nil {
		return nil, err
	}
	if err := s.events.bus.Sync(ctx); err != nil { // what was put a moment ago is there
		return nil, err
	}
	if err := s.targetStands(ctx, d); err != nil {
		return nil, err
	}
	if err := s.events.recall(ctx); err != nil {
		return nil, err
	}
	for {
		deployed := s.deploymentOf(d.Function)
		sub, err := s.ownSubscription(ctx, &d.SubscriptionSpec, filter)
		if err != nil {
			return nil, err
		}
		if err := s.subscribe(ctx, sub); err != nil {
			return nil, err
		}
		if d.Function == "" || s.deploymentOf(d.Function) == deployed { // else it has the settings of a Function that was replaced meanwhile
			break
		}
	}
	s.webhooks.forget(ownOwner(name))
	list, err := s.Subscriptions(ctx)
	if err != nil {
		return nil, err
	}
	for _, info := range list {
		if info.Own == name {
			return &info, nil
		}
	}
	return nil, errs.New(errs.Conflict, "subscription %s was deleted while it was put", name)
}

// targetStands says whether what a draft names is there, and sets the Function's full name.
func (s *Server) targetStands(ctx context.Context, d *draft) error {
	if d.Function != "" {
		full, err := s.resolveFunction(d.Function)
		if err != nil {
			return err
		}
		d.Function = full
	}
	if err := s.queueStands(ctx, d.Queue); err != nil {
		return err
	}
	if err := s.queueStands(ctx, d.DeadLetters); err != nil {
		return err
	}
	if d.Topic == "" {
		return nil
	}
	list, err := s.events.bus.Topics(ctx)
	if err != nil {
		return err
	}
	var names []string
	for _, t := range list {
		names = append(names, t.Name)
	}
	return stands("topic", d.Topic, names)
}

func (s *Server) queueStands(ctx context.Context, name string) error {
	if name == "" {
		return nil
	}
	list, err := s.events.bus.Queues(ctx)
	if err != nil {
		return err
	}
	var names []string
	for _, q := range list {
		names = append(names, q.Name)
	}
	return stands("queue", name, names)
}

func stands(kind, name string, names []string) error {
	if slices.Contains(names, name) {
		return nil
	}
	e := errs.New(errs.NotFound, "there is no %s %s", kind, name)
	if near := diag.Nearest(name, names); near != "" {
		return e.WithHint("Did you mean %s?", near)
	}
	return e.WithHint("`ebb %ss ls` lists them.", kind)
}

// retry sets what a draft says of it.
func (d *draft) retry(sub *bus.Subscription) error {
	r := d.Retry
	if r == nil {
		return nil
	}
	if r.Attempts < 0 || r.Attempts > ownAttempts {
		return d.wrong("retry", "attempts are 1 to %d", ownAttempts)
	}
	if r.Attempts > 0 {
		sub.Retry.Attempts = r.Attempts
	}
	for _, one := range []struct {
		name, text string
		into       *time.Duration
	}{{"minBackoff", r.MinBackoff, &sub.Retry.MinBackoff}, {"maxBackoff", r.MaxBackoff, &sub.Retry.MaxBackoff}, {"maxAge", r.MaxAge, &sub.Retry.MaxAge}} {
		if one.text == "" {
			continue
		}
		v, err := time.ParseDuration(one.text)
		if err != nil || v < time.Millisecond || v > ownAge {
			return d.wrong("retry", "%s is %q, not a duration from 1ms to 336h, such as 90s or 1h30m", one.name, one.text)
		}
		*one.into = v
	}
	if r.MinBackoff != "" && r.MaxBackoff == "" {
		sub.Retry.MaxBackoff = max(sub.Retry.MaxBackoff, sub.Retry.MinBackoff)
	}
	if r.MaxBackoff != "" && r.MinBackoff == "" {
		sub.Retry.MinBackoff = min(sub.Retry.MaxBackoff, sub.Retry.MinBackoff)
	}
	if sub.Retry.MaxBackoff < sub.Retry.MinBackoff {
		return d.wrong("retry", "minBackoff is above maxBackoff")
	}
	return nil
}

// ownSubscription makes the bus's of what somebody wants, with the settings that its Function has now.
func (s *Server) ownSubscription(ctx context.Context, spec *api.SubscriptionSpec, filter json.RawMessage) (bus.Subscription, error) {
	var f *app.Function
	var dep *state.Deployment
	if spec.Function != "" {
		var err error
		if f, dep, err = s.declared(ctx, spec.Function); err != nil {
			return bus.Subscription{}, err
		}
	}
	sub, to, err := s.ownOf(spec, f, dep)
	if err != nil {
		return sub, err
	}
	sub.Filter = filter
	if dep == nil {
		dep = &state.Deployment{App: &app.App{}}
	}
	for _, fault := range s.reachAll(ctx, dep, []bus.Subscription{sub}) {
		s.o.Log.Warn("a destination cannot be told", "subscription", spec.Name, "target", to.String(), "because", fault)
	}
	return sub, nil
}

// ownOf is the Subscription but its filter; f and dep are those of its Function, where it has one.
func (s *Server) ownOf(spec *api.SubscriptionSpec, f *app.Function, dep *state.Deployment) (sub bus.Subscription, to target, err error) {
	to = target{Account: s.o.Config.Account, Region: region(&app.App{})}
	if f != nil {
		sub, to = s.async(dep, f), s.targetOf(dep, f)
	} else {
		sub.Deadline = time.Minute
		sub.Retry = bus.Retry{Attempts: ruleRetries + 1, MinBackoff: time.Second, MaxBackoff: 5 * time.Minute, MaxAge: ruleAge}
	}
	sub.Name, sub.Subject, sub.Ordered = ownPrefix+spec.Name, "", spec.Ordered
	on := spec.Bus
	if on == "" {
		on = defaultBus
	}
	sub.Channel = busChannel(on)
	to.Via, to.Source, to.Rule, to.Own = invocation.ViaEvent, on, spec.Name, spec
	to.Queue, to.Topic, to.Endpoint = spec.Queue, spec.Topic, spec.Endpoint
	if to.MessageGroup = spec.Group; to.MessageGroup == "" {
		to.MessageGroup = spec.Name
	}
	if spec.DeadLetters != "" {
		to.Dead = &destination{Queue: spec.DeadLetters}
	}
	if in := inputGiven(spec); !in.Empty() {
		to.Input = &in
	}
	if spec.Format != api.FormatEventBridge {
		to.Format = spec.Format
	}
	switch {
	case to.Endpoint != "":
		to.Owner, sub.Deadline = ownOwner(spec.Name), postWaitMost
		if err := to.endpointFormat(spec.Format); err != nil {
			return sub, to, err
		}
	case to.Queue != "":
		sub.Batch = 10
	}
	if err := (&draft{SubscriptionSpec: *spec}).retry(&sub); err != nil {
		return sub, to, err
	}
	sub.Target, err = json.Marshal(to)
	return sub, to, err
}

// followOwn gives the Subscriptions that somebody has put on an App's functions the settings of its Deployment.
func (s *Server) followOwn(ctx context.Context, d *state.Deployment) (faults []string) {
	for _, old := range s.ownOn(func(name string) bool { f := d.App.Function(name); return f != nil && f.Name == name }) {
		t, _ := targetIn(old)
		sub, _, err := s.ownOf(t.Own, d.App.Function(t.Function), d)
		if err == nil {
			sub.Filter = old.Filter
			if faults = append(faults, s.reachAll(ctx, d, []bus.Subscription{sub})...); sameJSON(old, sub) {
				continue
			}
			err = s.subscribe(ctx, sub)
		}
		if err != nil {
			faults = append(faults, fmt.Sprintf("subscription %s: %v", t.Own.Name, err))
		}
	}
	return faults
}

// ownOn lists the Subscriptions that somebody has put on some Functions.
func (s *Server) ownOn(some func(function string) bool) (list []bus.Subscription) {
	ev := &s.events
	ev.mu.Lock()
	defer ev.mu.Unlock()
	for name, spec := range ev.mu.subs {
		var sub bus.Subscription
		if !strings.HasPrefix(name, ownPrefix) || json.Unmarshal(spec, &sub) != nil {
			continue
		}
		if t, ok := targetIn(sub); ok && t.Own != nil && t.Function != "" && some(t.Function) {
			list = append(list, sub)
		}
	}
	return list
}

// has says whether a Function is among those of a Stack.
func (v *serving) has(function string) bool {
	return slices.ContainsFunc(v.functions, func(f api.FunctionInfo) bool { return f.Name == function })
}

// DeleteSubscription deletes one that somebody has put.
func (s *Server) DeleteSubscription(ctx context.Context, name string) error {
	list, err := s.standing(ctx)
	if err != nil {
		return err
	}
	full := ownPrefix + name
	var names []string
	for _, sub := range list {
		if sub.Name == name {
			return errs.New(errs.Conflict, "subscription %s is declared by an app", name).WithHint("Take it out of the project and deploy that.")
		}
		if own, ok := strings.CutPrefix(sub.Name, ownPrefix); ok {
			names = append(names, own)
		}
	}
	if !slices.Contains(names, name) {
		e := errs.New(errs.NotFound, "there is no subscription %s that was put", name)
		if near := diag.Nearest(name, names); near != "" {
			return e.WithHint("Did you mean %s?", near)
		}
		return e.WithHint("`ebb subscriptions ls` lists them.")
	}
	if err := s.events.recall(ctx); err != nil {
		return err
	}
	defer s.webhooks.forget(ownOwner(name))
	return s.unsubscribe(ctx, func(name string) bool { return name == full })
}

// standing are the Subscriptions that stand, with what was put a moment ago.
func (s *Server) standing(ctx context.Context) ([]bus.Subscription, error) {
	if err := s.events.bus.Sync(ctx); err != nil {
		return nil, err
	}
	return s.events.bus.Subscriptions(ctx)
}

// fitting is the one Subscription that somebody means: by the name that it was put under, by its whole name, or where only one fits by its
// Function or the end of its name.
func fitting(list []bus.Subscription, name string) (*bus.Subscription, error) {
	var fit []*bus.Subscription
	for i := range list {
		sub := &list[i]
		if sub.Name == name || sub.Name == ownPrefix+name {
			return sub, nil
		}
		t, _ := targetIn(*sub) // what is none fits by name only
		if !t.Raw && (t.Function == name || strings.HasSuffix(sub.Name, "/"+name)) {
			fit = append(fit, sub)
		}
	}
	switch len(fit) {
	case 0:
		return nil, errs.New(errs.NotFound, "there is no subscription %s", name).WithHint("`ebb subscriptions ls` lists them.")
	case 1:
		return fit[0], nil
	}
	var names []string
	for _, sub := range fit {
		names = append(names, sub.Name)
	}
	slices.Sort(names)
	return nil, errs.New(errs.Conflict, "several subscriptions fit %s: %s", name, strings.Join(names, ", ")).WithHint("Give the whole name of one.")
}

// Subscription tells all that is known of one.
func (s *Server) Subscription(ctx context.Context, name string, dead int) (*api.SubscriptionDetail, error) {
	list, err := s.standing(ctx)
	if err != nil {
		return nil, err
	}
	sub, err := fitting(list, name)
	if err != nil {
		return nil, err
	}
	infos, err := s.infos(ctx, []bus.Subscription{*sub})
	if err != nil {
		return nil, err
	}
	out := &api.SubscriptionDetail{SubscriptionInfo: infos[0], DeadLetters: []api.DeliveryInfo{}}
	if t, ok := targetIn(*sub); ok && t.Own != nil {
		spec := *t.Own
		if spec.Endpoint != "" {
			spec.Endpoint = redacted(spec.Endpoint)
		}
		out.Spec = &spec
	}
	if dead == 0 || out.Dead == 0 {
		return out, nil
	}
	st := bus.Dead
	letters, err := s.events.bus.List(ctx, bus.Query{Subscription: sub.Name, Live: true, State: &st, Newest: true, Limit: dead, Events: true})
	if err != nil {
		return nil, err
	}
	for _, v := range letters {
		out.DeadLetters = append(out.DeadLetters, deliveryInfo(v))
	}
	return out, nil
}

func deliveryInfo(v bus.Status) api.DeliveryInfo {
	out := api.DeliveryInfo{
		ID: v.ID, Source: v.Source, Event: v.EventID, State: v.State.String(), Cause: string(v.Cause), Tries: v.Tries, Redriven: v.Redriven,
		Published: v.Published, Updated: v.Updated,
	}
	if n := len(v.Attempts); n > 0 {
		out.Error = v.Attempts[n-1].Error
	}
	return out
}

// resting says why what somebody has put cannot deliver now; empty where it can.
func (s *Server) resting(t *target, queues, topics map[string]bool) string {
	switch {
	case t.Own == nil:
	case t.Function != "" && s.deploymentOf(t.Function) == "":
		return fmt.Sprintf("function %s is not deployed", t.Function)
	case t.Queue != "" && !queues[t.Queue]:
		return fmt.Sprintf("there is no queue %s", t.Queue)
	case t.Topic != "" && !topics[t.Topic]:
		return fmt.Sprintf("there is no topic %s", t.Topic)
	}
	return ""
}

// places are the names of the queues and topics that stand.
func (s *Server) places(ctx context.Context) (queues, topics map[string]bool, err error) {
	queues, topics = map[string]bool{}, map[string]bool{}
	qs, err := s.events.bus.Queues(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, q := range qs {
		queues[q.Name] = true
	}
	ts, err := s.events.bus.Topics(ctx)
	for _, t := range ts {
		topics[t.Name] = true
	}
	return queues, topics, err
}

// RedriveDeliveries gives dead letters all their attempts again.
func (s *Server) RedriveDeliveries(ctx context.Context, c api.DeliveryChoice) (int, error) {
	list, err := s.standing(ctx)
	if err != nil {
		return 0, err
	}
	var chosen []bus.Selection
	switch {
	case len(c.IDs) == 0 && c.Subscription == "" && c.Cause == "" && !c.All:
		return 0, errs.New(errs.Invalid, "nothing is chosen").WithHint("Name IDs, a subscription or a cause, or ask for all.")
	case len(c.IDs) > 0 && (c.Subscription != "" || c.All):
		return 0, errs.New(errs.Invalid, "IDs, and a subscription or all: one or the other")
	case len(c.IDs) > 0:
		for _, id := range c.IDs {
			if _, err := s.events.bus.Status(ctx, id); err != nil {
				return 0, err
			}
		}
		chosen = []bus.Selection{{IDs: c.IDs, Cause: bus.Cause(c.Cause)}}
	case c.Subscription != "":
		sub, err := fitting(list, c.Subscription)
		if err != nil {
			return 0, err
		}
		chosen = []bus.Selection{{Subscription: sub.Name, Cause: bus.Cause(c.Cause)}}
	default:
		for _, sub := range list {
			if !strings.HasPrefix(sub.Name, "async/") { // those have a command of their own
				chosen = append(chosen, bus.Selection{Subscription: sub.Name, Cause: bus.Cause(c.Cause)})
			}
		}
	}
	return s.each(ctx, chosen, []bus.State{bus.Dead}, s.events.bus.Redrive)
}

// infos tells of Subscriptions, with how many deliveries stand where.
func (s *Server) infos(ctx context.Context, list []bus.Subscription) ([]api.SubscriptionInfo, error) {
	counts, err := s.events.bus.Counts(ctx)
	if err != nil {
		return nil, err
	}
	running, err := s.events.bus.Running(ctx)
	if err != nil {
		return nil, err
	}
	queues, topics, err := s.places(ctx)
	if err != nil {
		return nil, err
	}
	out := []api.SubscriptionInfo{}
	for _, sub := range list {
		info := api.SubscriptionInfo{Name: sub.Name, State: api.SubscriptionActive}
		if on, ok := strings.CutPrefix(sub.Channel, busChannel("")); ok {
			info.Bus = on
		}
		if t, ok := targetIn(sub); ok {
			if info.Function = t.Function; t.Function == "" {
				info.Target = t.String()
			}
			if t.Own != nil {
				info.Own = t.Own.Name
			}
			if info.Reason = s.resting(&t, queues, topics); info.Reason != "" {
				info.State = api.SubscriptionResting
			}
		}
		var f rule.Filter
		if len(sub.Filter) > 0 && json.Unmarshal(sub.Filter, &f) == nil {
			info.Filter = f.Pattern
			if f.Filters != nil {
				info.Filter = f.Filters
			}
			if f.Policy != nil {
				info.Filter = f.Policy
			}
		}
		c := counts[sub.Name]
		info.Pending, info.Done, info.Dead = c[bus.Pending]+c[bus.Waiting], c[bus.Done], c[bus.Dead]
		info.Running = min(running[sub.Name], info.Pending) // one may have ended since
		out = append(out, info)
	}
	return out, nil
}
