package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/arn"
	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/state"
	"github.com/ebb-run/ebb/internal/wire/scheduler"
)

// schedulerPrefix begins the names of the Schedules and Subscriptions that EventBridge Scheduler's API has made; group and name follow.
const schedulerPrefix = "scheduler/" + tenant + "/"

func slotName(v *scheduler.Schedule) string { return schedulerPrefix + v.Group + "/" + v.Name }

// scheduleOf makes what a schedule is on the bus. The error is NotFound for a function that is not deployed.
func (s *Server) scheduleOf(ctx context.Context, v *scheduler.Schedule) (timed, error) {
	d := &state.Deployment{App: &app.App{Region: v.Region}}
	to := target{Account: s.o.Config.Account, Region: v.Region}
	sub := bus.Subscription{Deadline: time.Minute, Batch: 10,
		Retry: bus.Retry{Attempts: ruleRetries + 1, MinBackoff: time.Second, MaxBackoff: 5 * time.Minute, MaxAge: ruleAge}}
	at, err := arn.Parse(v.Target.Arn)
	var absent error
	switch {
	case err != nil:
		return timed{}, errs.New(errs.Invalid, "%w", err)
	case at.Service == "lambda":
		name, err := s.resolveFunction(v.Target.Arn)
		if err != nil {
			absent = err
			break
		}
		f, dep, err := s.declared(ctx, name)
		if err != nil {
			absent = err
			break
		}
		d, sub, to = dep, s.async(dep, f), s.targetOf(dep, f)
	default:
		if _, err := to.sink(d.App, v.Target.Arn); err != nil {
			return timed{}, err
		}
	}
	if v.Target.SqsParameters != nil {
		to.MessageGroup = v.Target.SqsParameters.MessageGroupId
	}
	settings, err := scheduleSettings(v)
	if err != nil {
		return timed{}, err
	}
	input := v.Target.Input
	if text := input != nil && !json.Valid([]byte(*input)); text { // for a queue or topic, any text is
		delete(settings, "Input")
		to.Raw = true
	}
	list, err := s.timedTo(d, &app.Trigger{ID: v.Name, Enabled: v.State != "DISABLED", Schedule: []string{scheduler.Expression(v.ScheduleExpression)}, Settings: settings}, slotName(v), sub, to)
	if err != nil {
		return timed{}, err
	}
	one := list[0]
	one.schedule.DeleteAfter = v.ActionAfterCompletion == "DELETE"
	if to.Raw {
		one.schedule.Event.ContentType, one.schedule.Event.Data = "text/plain", []byte(*input)
	}
	return one, absent
}

// scheduleSettings gives what a schedule says in the form of a Trigger's settings.
func scheduleSettings(v *scheduler.Schedule) (map[string]any, error) {
	out := map[string]any{"Name": v.Name, "GroupName": v.Group, "ScheduleExpressionTimezone": v.ScheduleExpressionTimezone}
	for k, at := range map[string]*time.Time{"StartDate": v.StartDate, "EndDate": v.EndDate} {
		if at != nil {
			out[k] = at.UTC().Format(time.RFC3339Nano)
		}
	}
	t := v.Target
	for k, one := range map[string]any{"FlexibleTimeWindow": v.FlexibleTimeWindow, "Input": t.Input, "RetryPolicy": t.RetryPolicy, "DeadLetterConfig": t.DeadLetterConfig} {
		data, err := json.Marshal(one)
		if err != nil {
			return nil, err
		}
		if string(data) != "null" {
			out[k] = json.RawMessage(data)
		}
	}
	return out, nil
}

// CheckSchedule says what is wrong with a schedule.
func (n wireEvents) CheckSchedule(v *scheduler.Schedule) error {
	_, err := n.s.scheduleOf(context.Background(), v)
	if errs.CodeOf(err) == errs.NotFound { // it may come
		return nil
	}
	return err
}

// FollowSchedule brings the bus up to what a schedule says.
func (n wireEvents) FollowSchedule(ctx context.Context, v *scheduler.Schedule) error {
	if err := n.s.events.recall(ctx); err != nil {
		return err
	}
	if err := n.s.sweepSchedules(ctx); err != nil {
		return err
	}
	return n.s.followSchedule(ctx, v)
}

func (s *Server) followSchedule(ctx context.Context, v *scheduler.Schedule) error {
	one, err := s.scheduleOf(ctx, v)
	if err == nil {
		if err = s.madeMayUse(ctx, v.Made, v.Target.Arn); errs.CodeOf(err) == errs.Forbidden {
			s.o.Log.Warn("a schedule fires for nobody", "schedule", v.Name, "group", v.Group, "because", err)
			return s.unsubscribe(ctx, func(name string) bool { return name == one.sub.Name })
		}
	}
	switch {
	case errs.CodeOf(err) == errs.NotFound: // what fires before its function is there has nobody to go to
	case err != nil:
		return err
	default:
		for _, fault := range s.reachAll(ctx, &state.Deployment{App: &app.App{}}, []bus.Subscription{one.sub}) {
			s.o.Log.Warn("the target of a schedule cannot be reached", "schedule", v.Name, "group", v.Group, "because", fault)
		}
		if err := s.subscribe(ctx, one.sub); err != nil {
			return err
		}
	}
	if err := s.events.bus.Sync(ctx); err != nil {
		return err
	}
	standing, err := s.schedulesNamed(ctx, slotName(v))
	if err != nil {
		return err
	}
	if old, ok := standing[slotName(v)]; ok && sameSchedule(old, one.schedule) {
		return nil
	}
	return s.events.bus.PutSchedule(ctx, one.schedule)
}

// schedulesNamed are the Schedules whose names begin so.
func (s *Server) schedulesNamed(ctx context.Context, prefix string) (map[string]bus.Schedule, error) {
	list, err := s.events.bus.Schedules(ctx, bus.ScheduleQuery{Tenant: tenant, Prefix: prefix})
	out := map[string]bus.Schedule{}
	for _, st := range list {
		out[st.Name] = st.Schedule
	}
	return out, err
}

// ForgetSchedule ends a schedule. What it has fired and is not delivered is cancelled.
func (n wireEvents) ForgetSchedule(ctx context.Context, v *scheduler.Schedule) error {
	name := slotName(v)
	if err := n.s.events.recall(ctx); err != nil {
		return err
	}
	if err := n.s.events.bus.DeleteSchedule(ctx, tenant, name); err != nil {
		return err
	}
	return n.s.unsubscribe(ctx, func(other string) bool { return other == name })
}

// FiredSchedules are those that the bus has deleted.
func (n wireEvents) FiredSchedules(ctx context.Context, list []scheduler.Schedule) (fired []scheduler.Schedule, err error) {
	var standing map[string]bus.Schedule
	for _, v := range list {
		if v.ActionAfterCompletion != "DELETE" || !v.Live {
			continue
		}
		if standing == nil {
			if err := n.s.events.bus.Sync(ctx); err != nil {
				return nil, err
			}
			if standing, err = n.s.schedulesNamed(ctx, schedulerPrefix); err != nil {
				return nil, err
			}
		}
		if _, ok := standing[slotName(&v)]; !ok {
			fired = append(fired, v)
		}
	}
	return fired, nil
}

// sweepSchedules takes away the Subscriptions of schedules that have run their course, once all is delivered.
func (s *Server) sweepSchedules(ctx context.Context) error {
	if err := s.events.bus.Sync(ctx); err != nil {
		return err
	}
	standing, err := s.schedulesNamed(ctx, schedulerPrefix)
	if err != nil {
		return err
	}
	counts, err := s.events.bus.Counts(ctx)
	if err != nil {
		return err
	}
	return s.unsubscribe(ctx, func(name string) bool {
		_, stands := standing[name]
		c := counts[name]
		return strings.HasPrefix(name, schedulerPrefix) && !stands && c[bus.Done]+c[bus.Dead] > 0 && c[bus.Pending]+c[bus.Waiting] == 0
	})
}

// followSchedules is followRules for schedules that were put.
func (s *Server) followSchedules(ctx context.Context, d *state.Deployment) (faults []string) {
	standing, err := s.schedulesNamed(ctx, schedulerPrefix) // before the notes, which are there before what they say is put
	if err != nil {
		return []string{err.Error()}
	}
	notes, err := s.state.Notes(ctx, tenant, scheduler.KindSchedule)
	if err != nil {
		return []string{err.Error()}
	}
	for _, n := range notes {
		group, name, _ := strings.Cut(n.Name, "\n")
		delete(standing, schedulerPrefix+group+"/"+name)
	}
	for name := range standing { // who deleted it was killed before it was done
		if d != nil {
			break
		}
		if err := s.events.bus.DeleteSchedule(ctx, tenant, name); err != nil {
			return []string{err.Error()}
		}
	}
	for _, n := range notes {
		follow := func(n state.Note) error { return s.followNoted(ctx, d, n) }
		if err := s.settled(ctx, scheduler.KindSchedule, n, follow, func(n state.Note) error { return s.forgetNoted(ctx, n) }); err != nil {
			faults = append(faults, fmt.Sprintf("schedule %q: %v", n.Name, err))
		}
	}
	return faults
}

// followNoted follows a schedule as its note has it.
func (s *Server) followNoted(ctx context.Context, d *state.Deployment, n state.Note) error {
	var v scheduler.Schedule
	if err := json.Unmarshal(n.Data, &v); err != nil {
		return err
	}
	name, _, notFunction := arn.FunctionName(v.Target.Arn)
	if d != nil && (notFunction != nil || d.App.Function(name) == nil) {
		return nil
	}
	gone, err := (wireEvents{s.state, s}).FiredSchedules(ctx, []scheduler.Schedule{v})
	if err != nil || len(gone) > 0 { // it has run its course, and must not do so again
		return err
	}
	if err := s.followSchedule(ctx, &v); err != nil || v.Live {
		return err
	}
	v.Live = true // who made it was killed before it could say so
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if _, err = s.state.PutNote(ctx, tenant, scheduler.KindSchedule, n.Name, data, n.Seq); errs.CodeOf(err) == errs.Conflict {
		return nil // it lives, and says so now
	}
	return err
}

// forgetNoted ends a schedule that was deleted while it was followed.
func (s *Server) forgetNoted(ctx context.Context, n state.Note) error {
	group, name, _ := strings.Cut(n.Name, "\n")
	return wireEvents{s.state, s}.ForgetSchedule(ctx, &scheduler.Schedule{Group: group, Name: name})
}

// settled follows a note until it is what was followed: it may be changed at the same time, or be gone.
func (s *Server) settled(ctx context.Context, kind string, n state.Note, follow, gone func(state.Note) error) error {
	for {
		if err := follow(n); err != nil {
			return err
		}
		now, err := s.state.Note(ctx, tenant, kind, n.Name)
		if errs.CodeOf(err) == errs.NotFound {
			return gone(n)
		}
		if err == nil && bytes.Equal(now.Data, n.Data) {
			return nil
		}
		if err != nil {
			return err
		}
		if n = now; ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// slotted puts what a firing is into a schedule's input: EventBridge Scheduler user guide, "Adding context attributes".
func (t *target) slotted(input string, v *bus.Delivery) string {
	return strings.NewReplacer(
		"<aws.scheduler.schedule-arn>", arn.New("scheduler", t.Region, t.Account, "schedule/"+t.Group+"/"+t.Source).String(),
		"<aws.scheduler.scheduled-time>", v.Event.Time.UTC().Format(time.RFC3339),
		"<aws.scheduler.execution-id>", t.invocation(v),
		"<aws.scheduler.attempt-number>", strconv.Itoa(v.Attempt),
	).Replace(input)
}
