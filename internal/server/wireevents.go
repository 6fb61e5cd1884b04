package server

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/arn"
	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
	"github.com/ebb-run/ebb/internal/state"
	"github.com/ebb-run/ebb/internal/wire"
	eventbridge "github.com/ebb-run/ebb/internal/wire/events"
)

// wireEvents is what EventBridge's API needs of the Node.
type wireEvents struct {
	*state.Store
	s *Server
}

// offChannel is where Subscriptions of rules read that are disabled: nothing is published there, and what they have already is delivered.
const offChannel = tenant + "/off"

// PutEvents publishes for a client.
func (n wireEvents) PutEvents(ctx context.Context, who wire.Caller, name string, list []*event.Event) error {
	s := n.s
	if o := originOf(ctx); o != nil && o.function == who.Function {
		return s.sink.put(ctx, o, name, list)
	}
	for _, e := range list {
		if who.Function != "" {
			e.SetExtension(bus.Publisher, who.Function)
		}
	}
	s.stamp(name, list)
	_, err := s.events.bus.Publish(ctx, list...)
	return err
}

// DeclaredBuses are those of all Apps.
func (n wireEvents) DeclaredBuses() (names []string) {
	for _, v := range n.s.stacks.all() {
		names = append(names, v.buses...)
	}
	return names
}

// DeclaredRules are the rules that Apps declare.
func (n wireEvents) DeclaredRules(ctx context.Context) (out []eventbridge.Rule, err error) {
	for k, v := range n.s.stacks.all() {
		if v.deployment == "" || v.broken != "" {
			continue
		}
		d, err := n.s.state.Deployment(ctx, k, v.deployment)
		if errs.CodeOf(err) == errs.NotFound { // removed meanwhile
			continue
		}
		if err != nil {
			return nil, err
		}
		list := n.s.declaredRules(d)
		for i := range list {
			list[i].Declared = k.App
		}
		out = append(out, list...)
	}
	return out, nil
}

// declaredRules are those of a Deployment: what cannot be resolved was told when it was deployed. Rules whose targets are its functions are Triggers.
func (s *Server) declaredRules(d *state.Deployment) (out []eventbridge.Rule) {
	for i := range d.App.Resources {
		if res := &d.App.Resources[i]; res.Type == "AWS::Events::Rule" {
			if r, err := s.declaredRule(d, res); err == nil {
				out = append(out, r)
			}
		}
	}
	for i := range d.App.Triggers {
		r, err := s.triggerRule(d, &d.App.Triggers[i])
		if err != nil || r.Name == "" {
			continue
		}
		at := slices.IndexFunc(out, func(o eventbridge.Rule) bool { return o.Bus == r.Bus && o.Name == r.Name })
		if at < 0 {
			out = append(out, r)
			continue
		}
		if !slices.ContainsFunc(out[at].Targets, func(t eventbridge.Target) bool { return t.Arn == r.Targets[0].Arn && t.Id == r.Targets[0].Id }) {
			out[at].Targets = append(out[at].Targets, r.Targets...)
		}
	}
	return out
}

// triggerRule is the rule of a Trigger; without a name where it is none.
func (s *Server) triggerRule(d *state.Deployment, t *app.Trigger) (out eventbridge.Rule, err error) {
	f := d.App.Function(t.Function)
	_, scheduler := t.Settings["FlexibleTimeWindow"]
	if f == nil || scheduler || t.Kind != "eventBridge" && t.Kind != "schedule" || len(t.Schedule) > 1 {
		return out, nil
	}
	r := s.resolver(d)
	var of struct {
		Name, Description string
		EventPattern      json.RawMessage
		eventbridge.Target
	}
	if err := r.settings(t, &of); err != nil {
		return out, err
	}
	if out.Bus, err = busName(r, t.Source); err != nil {
		return out, err
	}
	if out.Name = of.Name; out.Name == "" {
		out.Name = triggerID(t)
	}
	out.Disabled, out.About, out.Pattern = !t.Enabled, of.Description, string(of.EventPattern)
	if len(t.Schedule) == 1 {
		out.Schedule = t.Schedule[0]
	}
	if of.Id == "" {
		of.Id = out.Name
	}
	of.Arn = arn.Function(region(d.App), s.o.Config.Account, f.Name).String()
	out.Targets = []eventbridge.Target{of.Target}
	return out, nil
}

func (s *Server) declaredRule(d *state.Deployment, res *app.Resource) (eventbridge.Rule, error) {
	r := s.resolver(d)
	var of struct {
		Name, EventBusName, ScheduleExpression, State, Description string
		EventPattern                                               json.RawMessage
		Targets                                                    []eventbridge.Target
	}
	out := eventbridge.Rule{Bus: defaultBus}
	if err := r.properties(pick(res.Properties, "Name", "EventBusName", "ScheduleExpression", "State", "Description", "EventPattern", "Targets"), &of); err != nil {
		return out, err
	}
	out.Name, out.Schedule, out.Disabled, out.About, out.Targets = of.Name, of.ScheduleExpression, of.State == "DISABLED", of.Description, of.Targets
	if len(of.EventPattern) > 0 {
		out.Pattern = string(of.EventPattern)
	}
	var err error
	if out.Name == "" {
		if out.Name, err = r.physicalName(res); err != nil {
			return out, err
		}
	}
	if of.EventBusName != "" {
		out.Bus, err = busName(r, app.Lit(of.EventBusName))
	}
	return out, err
}

// rulesPrefix begins those of all rules that were put.
const rulesPrefix = "rule/" + tenant + "/"

// rulePrefix begins the names of the Subscriptions and Schedules of a rule that was put; its target's ID follows.
func rulePrefix(r *eventbridge.Rule) string {
	on := strings.ReplaceAll(r.Bus, "/", "%")
	if len(on) > 64 {
		on = "%" + uuid8("event bus", r.Bus)
	}
	return rulesPrefix + on + "/" + r.Name + "/"
}

// ruleDelivery is what a target of a rule is on the bus.
type ruleDelivery struct {
	subs  []bus.Subscription
	timed []timed
}

// ruleTargetOf makes what a target of a rule is on the bus. The error is NotFound for a function that is not deployed.
func (s *Server) ruleTargetOf(ctx context.Context, r *eventbridge.Rule, t *eventbridge.Target) (out ruleDelivery, err error) {
	d := &state.Deployment{App: &app.App{Region: r.Region}}
	to := target{Account: s.o.Config.Account, Region: r.Region}
	sub := bus.Subscription{Deadline: time.Minute, Batch: 10,
		Retry: bus.Retry{Attempts: ruleRetries + 1, MinBackoff: time.Second, MaxBackoff: 5 * time.Minute, MaxAge: ruleAge}}
	at, err := arn.Parse(t.Arn)
	switch {
	case err != nil:
		return out, errs.New(errs.Invalid, "%w", err)
	case at.Service == "lambda":
		name, err := s.resolveFunction(t.Arn)
		if err != nil {
			return out, err
		}
		f, dep, err := s.declared(ctx, name)
		if err != nil {
			return out, err
		}
		d, sub, to = dep, s.async(dep, f), s.targetOf(dep, f)
	case at.Service == "events" && strings.HasPrefix(at.Resource, "event-bus/"):
		to.Bus = strings.TrimPrefix(at.Resource, "event-bus/")
	default:
		if _, err := to.sink(d.App, t.Arn); err != nil {
			return out, err
		}
	}
	settings, err := settingsOf(t)
	if err != nil {
		return out, err
	}
	if t.SqsParameters != nil {
		to.MessageGroup = t.SqsParameters.MessageGroupId
	}
	tr := &app.Trigger{ID: r.Name, Enabled: !r.Disabled, Source: app.Lit(r.Bus), Settings: settings}
	name := rulePrefix(r) + t.Id
	if r.Schedule != "" {
		tr.Schedule = []string{r.Schedule}
		if out.timed, err = s.timedTo(d, tr, name, sub, to); err != nil {
			return out, err
		}
		for _, one := range out.timed {
			out.subs = append(out.subs, one.sub)
		}
		name += "/pattern"
	}
	if r.Pattern == "" {
		return out, nil
	}
	settings["EventPattern"] = json.RawMessage(r.Pattern)
	sub.Subject = "" // of a function's asynchronous Invocations
	if sub, err = s.ruleTo(d, tr, sub, to); err != nil {
		return out, err
	}
	sub.Name = name
	if r.Disabled {
		sub.Channel = offChannel
	}
	out.subs = append(out.subs, sub)
	return out, nil
}

// settingsOf gives what a target says in the form of a Trigger's settings.
func settingsOf(t *eventbridge.Target) (map[string]any, error) {
	data, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, err
	}
	out := map[string]any{}
	for _, k := range []string{"Input", "InputPath", "InputTransformer", "RetryPolicy", "DeadLetterConfig"} {
		if v, ok := m[k]; ok {
			out[k] = v
		}
	}
	return out, nil
}

// CheckTarget says what is wrong with a target.
func (n wireEvents) CheckTarget(r *eventbridge.Rule, t *eventbridge.Target) error {
	_, err := n.s.ruleTargetOf(context.Background(), r, t)
	if errs.CodeOf(err) == errs.NotFound { // it may come
		return nil
	}
	return err
}

// Follow brings the bus up to what a rule says.
func (n wireEvents) Follow(ctx context.Context, r *eventbridge.Rule) error {
	if err := n.s.events.recall(ctx); err != nil {
		return err
	}
	return n.s.followRule(ctx, r)
}

func (s *Server) followRule(ctx context.Context, r *eventbridge.Rule) error {
	prefix := rulePrefix(r)
	wanted, absent := map[string]bool{}, map[string]bool{}
	var subs []bus.Subscription
	var all []timed
	for i := range r.Targets {
		if err := s.madeMayUse(ctx, r.Made, r.Targets[i].Arn); errs.CodeOf(err) == errs.Forbidden {
			s.o.Log.Warn("a target of a rule gets nothing", "rule", r.Name, "bus", r.Bus, "because", err)
			continue
		} else if err != nil {
			return err
		}
		one, err := s.ruleTargetOf(ctx, r, &r.Targets[i])
		switch {
		case errs.CodeOf(err) == errs.NotFound: // it was, or will be deployed: what it has is left to it
			absent[prefix+r.Targets[i].Id], absent[prefix+r.Targets[i].Id+"/pattern"] = true, true
			continue
		case err != nil:
			return err
		}
		subs, all = append(subs, one.subs...), append(all, one.timed...)
	}
	for _, fault := range s.reachAll(ctx, &state.Deployment{App: &app.App{}}, subs) {
		s.o.Log.Warn("a target of a rule cannot be reached", "rule", r.Name, "bus", r.Bus, "because", fault)
	}
	for _, sub := range subs {
		wanted[sub.Name] = true
		if err := s.subscribe(ctx, sub); err != nil {
			return err
		}
	}
	if err := s.rescheduleRule(ctx, prefix, all, absent); err != nil {
		return err
	}
	return s.unsubscribe(ctx, func(name string) bool { return strings.HasPrefix(name, prefix) && !wanted[name] && !absent[name] })
}

// rescheduleRule is reschedule, which leaves the schedules of absent targets alone.
func (s *Server) rescheduleRule(ctx context.Context, prefix string, want []timed, absent map[string]bool) error {
	if len(absent) == 0 {
		return s.reschedule(ctx, prefix, want)
	}
	standing, err := s.events.bus.Schedules(ctx, bus.ScheduleQuery{Tenant: tenant, Prefix: prefix})
	if err != nil {
		return err
	}
	for _, st := range standing {
		if absent[st.Name] {
			want = append(want, timed{schedule: st.Schedule})
		}
	}
	return s.reschedule(ctx, prefix, want)
}

// followRules gives the rules and schedules that were put on an App's functions the settings of its Deployment; with none, all are followed.
func (s *Server) followRules(ctx context.Context, d *state.Deployment) (faults []string) {
	notes, err := s.state.Notes(ctx, tenant, eventbridge.KindRule)
	if err != nil {
		return []string{err.Error()}
	}
	for _, n := range notes {
		err := s.settled(ctx, eventbridge.KindRule, n, func(n state.Note) error {
			var r eventbridge.Rule
			if err := json.Unmarshal(n.Data, &r); err != nil {
				return err
			}
			on := d == nil || slices.ContainsFunc(r.Targets, func(t eventbridge.Target) bool {
				name, _, err := arn.FunctionName(t.Arn)
				return err == nil && d.App.Function(name) != nil
			})
			if !on {
				return nil
			}
			return s.followRule(ctx, &r)
		}, func(n state.Note) error { // deleted: it had no targets any more
			on, name, _ := strings.Cut(n.Name, "\n")
			return s.followRule(ctx, &eventbridge.Rule{Name: name, Bus: on})
		})
		if err != nil {
			faults = append(faults, fmt.Sprintf("rule %q: %v", n.Name, err))
		}
	}
	return append(faults, s.followSchedules(ctx, d)...)
}

// Replay delivers events of a bus again to what its rules deliver to.
func (n wireEvents) Replay(ctx context.Context, w eventbridge.ReplayWanted) (ids []string, err error) {
	filter, err := n.s.filterOf(w.Pattern)
	if err != nil {
		return nil, err
	}
	list, err := n.s.standing(ctx)
	if err != nil {
		return nil, err
	}
	for _, sub := range list {
		t, ok := targetIn(sub)
		if !ok || sub.Channel != busChannel(w.Bus) || t.Own != nil || w.Rules != nil && !slices.Contains(w.Rules, t.Rule) {
			continue
		}
		id, err := n.s.events.bus.Replay(ctx, bus.Replay{Subscription: sub.Name, From: w.From, To: w.To, Filter: filter})
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// Replayed says whether replays have looked through all of the log.
func (n wireEvents) Replayed(ctx context.Context, ids []string) (bool, error) {
	for _, id := range ids {
		st, err := n.s.events.bus.ReplayStatus(ctx, id)
		if err != nil && errs.CodeOf(err) != errs.NotFound { // the log has forgotten it: it is over
			return false, err
		}
		if err == nil && !st.Done {
			return false, nil
		}
	}
	return true, nil
}

// relay publishes a delivery on another event bus. Its id stays: written twice it is one event.
func (d deliverer) relay(ctx context.Context, t *target, v *bus.Delivery) error {
	e := v.Event.Clone()
	e.Extensions = maps.Clone(e.Extensions)
	bus.Caused(e, v.Event)
	e.SetExtension(bus.Parent, t.invocation(v))
	e.SetExtension(bus.Channel, busChannel(t.Bus))
	if v.Redriven > 0 || v.Replay != "" {
		e.ID = delivered("event", v)
	}
	_, err := d.s.events.bus.Publish(ctx, e)
	return err
}
