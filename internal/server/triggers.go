package server

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
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

// busChannel has the events of an event bus.
func busChannel(name string) string { return tenant + "/bus/" + name }

// defaultBus is the event bus that is always there.
const defaultBus = "default"

var busRE = regexp.MustCompile(`^[A-Za-z0-9._/-]{1,256}$`)

// triggerPrefix begins the names of the Subscriptions that a Stack's Triggers are.
func triggerPrefix(k state.StackKey) string { return "trigger/" + stackID(k) + "/" }

// wanted is what an App's Triggers, rules and subscriptions are on the bus.
type wanted struct {
	subs   []bus.Subscription
	timed  []timed
	faults []string // of those that cannot be made, which do not keep the others back
}

func (s *Server) triggers(d *state.Deployment) (w wanted) {
	names := map[string]int{}
	for i := range d.App.Triggers {
		t := &d.App.Triggers[i]
		name := triggerPrefix(d.Stack) + triggerID(t) + "/" + t.Function
		if names[name]++; names[name] > 1 {
			name += fmt.Sprintf("/%d", names[name])
		}
		var err error
		switch t.Kind {
		case "eventBridge":
			var sub bus.Subscription
			if sub, err = s.ruleOf(d, t); err == nil && t.Enabled {
				sub.Name = name
				w.subs = append(w.subs, sub)
			}
		case "sns":
			var sub bus.Subscription
			if sub, err = s.noticeOf(d, t, name); err == nil && t.Enabled {
				w.subs = append(w.subs, sub)
			}
		case "schedule":
			var list []timed
			list, err = s.timedOf(d, t, name)
			for _, one := range list {
				w.subs, w.timed = append(w.subs, one.sub), append(w.timed, one)
			}
		}
		if err != nil {
			w.faults = append(w.faults, fmt.Sprintf("%s trigger of function %s: %v", t.Kind, t.Function, err))
		}
	}
	s.subscriptions(d, &w)
	s.rules(d, &w)
	return w
}

func triggerID(t *app.Trigger) string {
	if t.ID == "" {
		return t.Kind
	}
	return t.ID
}

// ruleOf is the Subscription of a rule on an event bus.
func (s *Server) ruleOf(d *state.Deployment, t *app.Trigger) (bus.Subscription, error) {
	f := d.App.Function(t.Function)
	if f == nil {
		return bus.Subscription{}, errs.New(errs.NotFound, "there is no function %s", t.Function)
	}
	return s.ruleTo(d, t, s.async(d, f), s.targetOf(d, f))
}

// declaredRule is what a rule's target says.
type declaredRule struct {
	EventPattern json.RawMessage
	declaredRetry
	rule.Input
}

// filter sets the pattern.
func (p *declaredRule) filter(account, region string, sub *bus.Subscription) (err error) {
	f := rule.Filter{Pattern: p.EventPattern, Account: account, Region: region}
	if sub.Filter, err = f.Encode(); err != nil {
		return err
	}
	if _, err := rule.Compile(sub.Filter); len(sub.Filter) > 0 && err != nil {
		return errs.New(errs.Invalid, "its event pattern: %w", err)
	}
	return nil
}

// given sets what the target gets.
func (p *declaredRule) given(to *target, on, called string) error {
	to.Via, to.Source, to.Rule = invocation.ViaEvent, on, called
	if p.Input.Empty() {
		return nil
	}
	if _, err := p.Input.Compile(); err != nil {
		return err
	}
	to.Input = &p.Input
	return nil
}

// busName is the name of the event bus that a value means by name or ARN.
func busName(r resolver, v app.Value) (string, error) {
	if v.IsZero() {
		return defaultBus, nil
	}
	text, err := v.Resolve(r.values())
	if err != nil {
		return "", err
	}
	if strings.HasPrefix(text, "arn:") {
		if _, name, ok := strings.Cut(text, ":event-bus/"); ok {
			text = name
		}
	}
	if text == "" {
		return defaultBus, nil
	}
	return text, nil
}

// plain resolves the values inside declared settings.
func (r resolver) plain(v any) (any, error) {
	switch v := v.(type) {
	case app.Value:
		return v.Resolve(r.values())
	case map[string]any:
		if val, ok := app.AsValue(v); ok { // an App that came over the wire has them in this form
			return val.Resolve(r.values())
		}
		out := make(map[string]any, len(v))
		for k, one := range v {
			p, err := r.plain(one)
			if err != nil {
				return nil, err
			}
			out[k] = p
		}
		return out, nil
	case []any:
		out := make([]any, len(v))
		for i, one := range v {
			p, err := r.plain(one)
			if err != nil {
				return nil, err
			}
			out[i] = p
		}
		return out, nil
	}
	return v, nil
}

// catchUp brings the bus up to what is served: a Node that was killed after a Deployment had become current, and before the bus followed it, left its
// triggers as they were.
func (s *Server) catchUp(ctx context.Context) {
	ev := &s.events
	ev.mu.Lock()
	err := ev.know(ctx)
	var names []string
	for name := range ev.mu.subs {
		names = append(names, name)
	}
	ev.mu.Unlock()
	if err != nil {
		if ctx.Err() == nil {
			s.o.Log.Warn("whether all triggers stand is not known", "error", err)
		}
		return
	}
	for _, fault := range s.followRules(ctx, nil) {
		s.o.Log.Warn("a rule is not followed", "because", fault)
	}
	for k, v := range s.stacks.all() {
		stands := slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(name, triggerPrefix(k)) })
		if v.broken == "" && (stands || v.triggers+v.declared+v.streams > 0) && ctx.Err() == nil {
			s.catchUpStack(ctx, k)
		}
	}
}

func (s *Server) catchUpStack(ctx context.Context, k state.StackKey) {
	s.stacks.deploy.Lock()
	defer s.stacks.deploy.Unlock()
	now := s.stacks.get(k)
	if now == nil || now.broken != "" {
		return // removed or replaced meanwhile
	}
	d, err := s.state.Deployment(ctx, k, now.deployment)
	if err != nil {
		s.o.Log.Warn("whether all triggers stand is not known", "app", k.App, "stage", k.Stage, "error", err)
		return
	}
	for _, fault := range s.followed(ctx, d, &serving{triggers: 1, streams: 1}) { // as if there had been some: what is left of them goes
		s.o.Log.Info("a trigger does not follow", "app", k.App, "stage", k.Stage, "because", fault)
	}
}

// Publish puts events on an event bus.
func (s *Server) Publish(ctx context.Context, name string, events []*event.Event) error {
	if name == "" {
		name = defaultBus
	}
	if !busRE.MatchString(name) {
		return errs.New(errs.Invalid, "%q is no name of an event bus", name).WithHint("Letters, digits and . _ / - are allowed.")
	}
	if err := s.foreign(events); err != nil {
		return err
	}
	s.stamp(name, events)
	_, err := s.events.bus.Publish(ctx, events...)
	return err
}

// foreign says whether others may publish the events.
func (s *Server) foreign(events []*event.Event) error {
	for i, e := range events {
		for ext := range e.Extensions {
			if strings.HasPrefix(ext, "ebb") && ext != event.Resources {
				return errs.New(errs.Invalid, "event %d: extensions that begin with \"ebb\" are ebb's own: %s", i, ext)
			}
		}
	}
	return nil
}

// stamp marks what is published on an event bus.
func (s *Server) stamp(name string, events []*event.Event) {
	for _, e := range events {
		e.SetExtension(bus.Channel, busChannel(name))
		if e.Time.IsZero() { // functions are shown one
			e.Time = time.Now().UTC()
		}
		e.SetExtension(bus.TraceParent, bus.TraceContext(e))
	}
}

// filterOf makes the bus's filter of a pattern.
func (s *Server) filterOf(pattern json.RawMessage) (json.RawMessage, error) {
	if len(pattern) == 0 {
		return nil, nil
	}
	return rule.Filter{Pattern: pattern, Account: s.o.Config.Account, Region: region(&app.App{})}.Encode()
}

var errEnough = errs.New(errs.Canceled, "that is enough")

// Events reads the events of the buses from the log.
func (s *Server) Events(ctx context.Context, q api.EventQuery, begun func(), each func(api.RecordedEvent) error) error {
	filter, err := s.filterOf(q.Pattern)
	if err != nil {
		return err
	}
	if len(filter) > 0 {
		if _, err := rule.Compile(filter); err != nil {
			return err
		}
	}
	if q.Follow {
		var stop context.CancelFunc
		ctx, stop = context.WithCancel(ctx)
		defer stop()
		defer context.AfterFunc(s.following, stop)()
	}
	begun()
	n := 0
	err = s.events.bus.Read(ctx, bus.Range{From: q.From, To: q.To, Follow: q.Follow, Filter: filter}, func(r bus.Recorded) error {
		name, ok := strings.CutPrefix(r.Event.Extension(bus.Channel), busChannel(""))
		if !ok || q.Bus != "" && name != q.Bus {
			return nil
		}
		e := r.Event.Clone()
		e.SetExtension(bus.Channel, nil)
		if err := each(api.RecordedEvent{Published: r.Published, Bus: name, Event: e}); err != nil {
			return err
		}
		if n++; n == q.Limit {
			return errEnough
		}
		return nil
	})
	if err == errEnough || s.following.Err() != nil {
		return nil
	}
	return err
}

// Subscriptions lists what takes events, with how many deliveries stand where.
func (s *Server) Subscriptions(ctx context.Context) ([]api.SubscriptionInfo, error) {
	list, err := s.standing(ctx)
	if err != nil {
		return nil, err
	}
	return s.infos(ctx, list)
}

// Replay delivers events again.
func (s *Server) Replay(ctx context.Context, r api.ReplayRequest) (*api.ReplayInfo, error) {
	filter, err := s.filterOf(r.Pattern)
	if err != nil {
		return nil, err
	}
	list, err := s.standing(ctx)
	if err != nil {
		return nil, err
	}
	sub, err := fitting(list, r.Subscription)
	if err != nil {
		return nil, err
	}
	id, err := s.events.bus.Replay(ctx, bus.Replay{Subscription: sub.Name, From: r.From, To: r.To, Filter: filter})
	if err != nil {
		return nil, err
	}
	return &api.ReplayInfo{ID: id}, nil
}

// ReplayStatus says how far a replay is.
func (s *Server) ReplayStatus(ctx context.Context, id string) (*api.ReplayInfo, error) {
	st, err := s.events.bus.ReplayStatus(ctx, id)
	if err != nil {
		return nil, err
	}
	return &api.ReplayInfo{ID: st.ID, Found: st.Found, Done: st.Done}, nil
}

// patient bounds how long a deploy waits for the bus.
const patient = 30 * time.Second
