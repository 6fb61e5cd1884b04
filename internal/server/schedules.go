package server

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/arn"
	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/bus/rule"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/state"
)

// scheduleChannel has what schedules fire: the subject is the schedule's name.
const scheduleChannel = tenant + "/schedule"

// timed is a Trigger by time: a Schedule for each of its expressions, and the Subscription of each.
type timed struct {
	schedule bus.Schedule
	sub      bus.Subscription
}

// declaredSchedule is what a Trigger's settings say beside its expressions.
type declaredSchedule struct {
	Name                       string
	GroupName                  string
	ScheduleExpressionTimezone string
	StartDate, EndDate         string
	FlexibleTimeWindow         struct {
		Mode                   string
		MaximumWindowInMinutes json.Number
	}
	declaredRetry
	rule.Input
}

// timedOf gives what a Trigger by time is on the bus, under a name for it.
func (s *Server) timedOf(d *state.Deployment, t *app.Trigger, name string) ([]timed, error) {
	f := d.App.Function(t.Function)
	if f == nil {
		return nil, errs.New(errs.NotFound, "there is no function %s", t.Function)
	}
	return s.timedTo(d, t, name, s.async(d, f), s.targetOf(d, f))
}

// timedTo is timedOf for any target, with a Subscription to begin with.
func (s *Server) timedTo(d *state.Deployment, t *app.Trigger, name string, sub bus.Subscription, to target) ([]timed, error) {
	r := s.resolver(d)
	var declared declaredSchedule
	if err := r.settings(t, &declared); err != nil {
		return nil, err
	}
	called := declared.Name
	if called == "" {
		called = triggerID(t)
	}
	to.Via, to.Source, to.Rule = invocation.ViaSchedule, called, called
	if _, scheduler := t.Settings["FlexibleTimeWindow"]; scheduler {
		to.Group = "default"
		if declared.GroupName != "" {
			to.Group = declared.GroupName
		}
	}
	one := bus.Schedule{Tenant: tenant, Zone: declared.ScheduleExpressionTimezone, Disabled: !t.Enabled, AtOnce: to.Group != "", Event: bus.Template{
		Type: "Scheduled Event", Source: "aws.events", ContentType: "application/json", Data: []byte("{}"),
		Extensions: map[string]string{bus.Channel: scheduleChannel, event.Resources: arn.New("events", region(d.App), s.o.Config.Account, "rule/"+called).String()},
	}}
	if !declared.Input.Empty() {
		if _, err := declared.Input.Compile(); err != nil {
			return nil, err
		}
		to.Input = &declared.Input
	}
	err := declared.apply(&sub, &to)
	if err != nil {
		return nil, err
	}
	if one.Start, err = scheduleTime(declared.StartDate); err != nil {
		return nil, errs.New(errs.Invalid, "StartDate: %w", err)
	}
	if one.End, err = scheduleTime(declared.EndDate); err != nil {
		return nil, errs.New(errs.Invalid, "EndDate: %w", err)
	}
	if w := declared.FlexibleTimeWindow; w.Mode == "FLEXIBLE" {
		n, err := w.MaximumWindowInMinutes.Int64()
		if err != nil {
			return nil, errs.New(errs.Invalid, "MaximumWindowInMinutes: %w", err)
		}
		one.Window = time.Duration(n) * time.Minute
	}
	var out []timed
	for i, expr := range t.Schedule {
		v := timed{schedule: one, sub: sub}
		v.schedule.Name, v.schedule.Expression = name, expr
		if len(t.Schedule) > 1 {
			v.schedule.Name += fmt.Sprintf("/%d", i+1)
		}
		v.schedule.Event.Subject = v.schedule.Name
		v.sub.Name, v.sub.Channel, v.sub.Subject = v.schedule.Name, scheduleChannel, v.schedule.Name
		if v.sub.Target, err = json.Marshal(to); err != nil {
			return nil, errs.New(errs.Invalid, "its settings are not JSON: %w", err)
		}
		out = append(out, v)
	}
	return out, nil
}

// scheduleTime reads a date as CloudFormation has them, or nothing.
func scheduleTime(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, form := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02"} {
		if at, err := time.Parse(form, text); err == nil {
			return at.UTC(), nil
		}
	}
	return time.Time{}, errs.New(errs.Invalid, "%q is no time such as 2030-01-02T15:04:05Z", text)
}

// settings reads a Trigger's settings, their values resolved.
func (r resolver) settings(t *app.Trigger, into any) error {
	plain, err := r.plain(t.Settings)
	if err != nil {
		return err
	}
	data, err := json.Marshal(plain)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		return errs.New(errs.Invalid, "read its settings: %w", err)
	}
	return nil
}

// reschedule makes the schedules under a prefix what they are to be; one that is not changed goes on undisturbed.
func (s *Server) reschedule(ctx context.Context, prefix string, want []timed) error {
	if err := s.events.bus.Sync(ctx); err != nil {
		return err
	}
	standing, err := s.events.bus.Schedules(ctx, bus.ScheduleQuery{Tenant: tenant, Prefix: prefix})
	if err != nil {
		return err
	}
	have := map[string]bus.Schedule{}
	for _, st := range standing {
		have[st.Name] = st.Schedule
	}
	for _, w := range want {
		old, stands := have[w.schedule.Name]
		delete(have, w.schedule.Name)
		if stands && sameSchedule(old, w.schedule) {
			continue
		}
		if err := s.events.bus.PutSchedule(ctx, w.schedule); err != nil {
			return err
		}
	}
	for name := range have {
		if err := s.events.bus.DeleteSchedule(ctx, tenant, name); err != nil {
			return err
		}
	}
	return nil
}

// sameSchedule compares what is declared; the bus fills in defaults.
func sameSchedule(a, b bus.Schedule) bool {
	for _, v := range []*bus.Schedule{&a, &b} {
		v.MissedLimit, v.MissedAge = 0, 0
	}
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// Schedules lists what fires by time, with the next firings.
func (s *Server) Schedules(ctx context.Context, next int) ([]api.ScheduleInfo, error) {
	if err := s.events.bus.Sync(ctx); err != nil { // what was put a moment ago is there
		return nil, err
	}
	list, err := s.events.bus.Schedules(ctx, bus.ScheduleQuery{Tenant: tenant, Next: next})
	if err != nil {
		return nil, err
	}
	subs, err := s.events.bus.Subscriptions(ctx)
	if err != nil {
		return nil, err
	}
	targets := map[string]target{}
	for _, sub := range subs {
		if t, ok := targetIn(sub); ok {
			targets[sub.Name] = t
		}
	}
	out := []api.ScheduleInfo{}
	for _, st := range list {
		info := api.ScheduleInfo{
			Name: strings.TrimPrefix(st.Name, "trigger/"+tenant+"/"), Function: targets[st.Name].Function, Expression: st.Expression, Zone: st.Zone, Disabled: st.Disabled, Last: st.Last,
		}
		if to := targets[st.Name]; to.Function == "" {
			info.Target = to.String()
		}
		zone, err := time.LoadLocation(st.Zone)
		if err != nil { // of another machine's list of zones
			zone = time.UTC
		}
		for _, f := range st.Next {
			info.Next = append(info.Next, f.Due.In(zone))
		}
		out = append(out, info)
	}
	return out, nil
}
