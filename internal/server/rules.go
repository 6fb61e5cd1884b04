package server

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/arn"
	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/state"
)

const (
	// ruleRetries and ruleAge are how often and how long EventBridge tries a target that does not say: EventBridge user guide, "Retry policy".
	ruleRetries = 185
	ruleAge     = 24 * time.Hour
)

// declaredRetry is what a rule's or schedule's target says of failures.
type declaredRetry struct {
	RetryPolicy struct {
		MaximumRetryAttempts, MaximumEventAgeInSeconds *number
	}
	DeadLetterConfig struct{ Arn string }
	SqsParameters    struct{ MessageGroupId string }
}

// apply sets them on a Subscription. A Function's failures are tried again by its own rules, as on AWS.
func (r *declaredRetry) apply(sub *bus.Subscription, to *target) error {
	if err := to.deadTo(r.DeadLetterConfig.Arn, false); err != nil {
		return err
	}
	n, age := r.RetryPolicy.MaximumRetryAttempts, r.RetryPolicy.MaximumEventAgeInSeconds
	if n != nil && (*n < 0 || *n > ruleRetries) || age != nil && (*age < 60 || age.seconds() > ruleAge) {
		return errs.New(errs.Invalid, "its RetryPolicy: MaximumRetryAttempts is 0 to %d, MaximumEventAgeInSeconds 60 to %d", ruleRetries, int(ruleAge.Seconds()))
	}
	if to.Function != "" {
		return nil
	}
	if n != nil {
		sub.Retry.Attempts = int(*n) + 1
	}
	if age != nil {
		sub.Retry.MaxAge = age.seconds()
	}
	return nil
}

// rules gives what the App's Resources declare of rules and schedules whose targets are no Functions of the App; those have Triggers.
func (s *Server) rules(d *state.Deployment, w *wanted) {
	for i := range d.App.Resources {
		res := &d.App.Resources[i]
		var targets []any
		switch res.Type {
		case "AWS::Events::Rule":
			targets = listOf(res.Properties["Targets"])
		case "AWS::Scheduler::Schedule":
			targets = []any{res.Properties["Target"]}
		}
		for n, one := range targets {
			name := triggerPrefix(d.Stack) + res.ID
			if len(targets) > 1 {
				name += fmt.Sprintf("/%d", n+1)
			}
			if err := s.ruleTarget(d, res, name, one, w); err != nil {
				w.faults = append(w.faults, fmt.Sprintf("rule %s: %v", strings.TrimPrefix(name, triggerPrefix(d.Stack)), err))
			}
		}
	}
}

// ruleTarget makes Subscriptions of one target of a rule.
func (s *Server) ruleTarget(d *state.Deployment, res *app.Resource, name string, declared any, w *wanted) error {
	r := s.resolver(d)
	m, _ := declared.(map[string]any)
	var at struct{ Arn string }
	if err := r.properties(pick(m, "Arn"), &at); err != nil {
		return err
	}
	to := target{Account: s.o.Config.Account, Region: region(d.App)}
	kind, err := to.sink(d.App, at.Arn)
	if kind == "" || err != nil {
		return err
	}
	sub := bus.Subscription{Name: name + "/" + kind, Deadline: time.Minute, Batch: 10,
		Retry: bus.Retry{Attempts: ruleRetries + 1, MinBackoff: time.Second, MaxBackoff: 5 * time.Minute, MaxAge: ruleAge}}
	var more declaredRetry
	if err := r.properties(pick(m, "RetryPolicy", "DeadLetterConfig", "SqsParameters"), &more); err != nil {
		return err
	}
	if to.MessageGroup = more.SqsParameters.MessageGroupId; to.MessageGroup == "" && strings.HasSuffix(to.Queue, ".fifo") {
		return errs.New(errs.Invalid, "a FIFO queue, %s, needs SqsParameters with a MessageGroupId", to.Queue)
	}
	var of struct{ State, ScheduleExpression, EventBusName, Name string }
	if err := r.properties(pick(res.Properties, "State", "ScheduleExpression", "EventBusName", "Name"), &of); err != nil {
		return err
	}
	t := &app.Trigger{ID: res.ID, Enabled: of.State != "DISABLED", Settings: pick(m, "Input", "InputPath", "InputTransformer", "RetryPolicy", "DeadLetterConfig")}
	for k, v := range pick(res.Properties, "Name", "GroupName", "ScheduleExpressionTimezone", "StartDate", "EndDate", "FlexibleTimeWindow") {
		t.Settings[k] = v
	}
	if of.EventBusName != "" {
		t.Source = app.Lit(of.EventBusName)
	}
	if of.ScheduleExpression != "" {
		t.Schedule = []string{of.ScheduleExpression}
		list, err := s.timedTo(d, t, sub.Name, sub, to)
		if err != nil {
			return err
		}
		for _, one := range list {
			w.subs, w.timed = append(w.subs, one.sub), append(w.timed, one)
		}
	}
	pattern, ok := res.Properties["EventPattern"]
	if !ok || !t.Enabled {
		return nil
	}
	t.Settings["EventPattern"] = pattern
	if sub, err = s.ruleTo(d, t, sub, to); err != nil {
		return err
	}
	if of.ScheduleExpression != "" { // both have a Subscription
		sub.Name += "/pattern"
	}
	w.subs = append(w.subs, sub)
	return nil
}

// sink makes a target of an ARN, and tells its kind; empty for a Function of the App.
func (t *target) sink(a *app.App, at string) (string, error) {
	to, err := arn.Parse(at)
	switch {
	case err != nil:
		return "", errs.New(errs.Invalid, "its target: %w", err)
	case to.Service == "sqs":
		t.Queue = to.Resource
		return "queue", nil
	case to.Service == "sns":
		t.Topic = to.Resource
		if strings.HasSuffix(t.Topic, ".fifo") {
			return "", errs.New(errs.Unsupported, "a rule does not publish to a FIFO topic, %s", t.Topic)
		}
		return "topic", nil
	case to.Service == "lambda":
		if f, _, err := arn.FunctionName(at); err == nil && a.Function(f) != nil {
			return "", nil
		}
		return "", errs.New(errs.Unsupported, "its function %s is none of this app", at).WithHint("Declare the rule in the app of the function.")
	}
	return "", errs.New(errs.Unsupported, "its target %s is declared, not active: functions, queues and topics are", at)
}

// ruleTo is the Subscription of a rule, for a target.
func (s *Server) ruleTo(d *state.Deployment, t *app.Trigger, sub bus.Subscription, to target) (bus.Subscription, error) {
	r := s.resolver(d)
	on, err := busName(r, t.Source)
	if err != nil {
		return sub, err
	}
	var declared declaredRule
	if err := r.settings(t, &declared); err != nil {
		return sub, err
	}
	sub.Channel, sub.Subject = busChannel(on), ""
	if err := declared.filter(s.o.Config.Account, region(d.App), &sub); err != nil {
		return sub, err
	}
	if err := declared.apply(&sub, &to); err != nil {
		return sub, err
	}
	if err := declared.given(&to, on, triggerID(t)); err != nil {
		return sub, err
	}
	sub.Target, err = json.Marshal(to)
	return sub, err
}
