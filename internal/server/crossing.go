package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/arn"
	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/config"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/policy"
	"github.com/ebb-run/ebb/internal/state"
)

// What is taken from a thing, and what is sent to it, are allowed by these.
var (
	takes = map[string]string{"sqs": "sqs:ReceiveMessage", "kinesis": "kinesis:GetRecords", "dynamodb": "dynamodb:GetRecords", "sns": "sns:Subscribe", "s3": "s3:PutBucketNotification", "events": "events:PutRule"}
	sends = map[string]string{"sqs": "sqs:SendMessage", "sns": "sns:Publish", "events": "events:PutEvents", "lambda": "lambda:InvokeFunction"}
)

// mayUse says whether a Stack may declare that something is taken from a thing or sent to it: its own, nobody's, or another Stack's which a role
// names or whose owner's policy allows it. function is that whose role is asked; empty: those of all. from is the ARN of what
// it is sent from, or empty. It is asked by what has no request.
func (s *Server) mayUse(ctx context.Context, k state.StackKey, function string, t thing, action, from string) error {
	now := s.stacks.get(k)
	if s.o.Config.IAM == config.IAMOff || t.name == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patient)
	defer cancel()
	r := &role{} // of what is removed
	if now != nil && now.roles[function] != nil {
		r = now.roles[function]
	} else if now != nil {
		for _, one := range now.roles {
			r.policy = policy.Join(r.policy, one.policy)
		}
	}
	who := s.asking(k, r, "lambda.amazonaws.com", "sns.amazonaws.com", "events.amazonaws.com", "s3.amazonaws.com", "scheduler.amazonaws.com")
	request := policy.Request{Action: action, Resource: t.arn(), Context: map[string][]string{"aws:sourceaccount": {s.o.Config.Account}}}
	if from != "" {
		request.Context["aws:sourcearn"] = []string{from}
	}
	v, err := s.across(ctx, who, t, request)
	if err != nil || v.owner == "" || v.allowed || v.effect != policy.Deny && r.policy.NamesIn(t.service, t.arn()) {
		return err
	}
	return errs.New(errs.Forbidden, "%s belongs to %s, and is not declared to be reached from here: a statement of the function's role that names it, %s, or a policy of its owner declares it",
		t.arn(), stackName(v.owner), policy.Missing(policy.Request{Action: action, Resource: t.arn()}))
}

// madeMayUse is mayUse for the target of what a Function has put, where made is its Stack: that was nobody's then, and may be another's now.
func (s *Server) madeMayUse(ctx context.Context, made, target string) error {
	part := strings.SplitN(made, "/", 3)
	t, ok := thingIn(target)
	if !ok || len(part) < 3 {
		return nil
	}
	return s.mayUse(ctx, state.StackKey{Tenant: part[0], App: part[1], Stage: part[2]}, "", t, sends[t.service], "")
}

// uncrossed leaves out what takes from other Stacks' things or sends to them undeclared, and says so.
func (s *Server) uncrossed(ctx context.Context, d *state.Deployment, w *wanted) {
	refused := map[string]bool{}
	w.subs = slices.DeleteFunc(w.subs, func(sub bus.Subscription) bool {
		err := s.subscriptionCrosses(ctx, d, &sub)
		if err != nil {
			refused[sub.Name] = true
			w.faults = append(w.faults, fmt.Sprintf("%s: %v", strings.TrimPrefix(sub.Name, triggerPrefix(d.Stack)), err))
		}
		return err != nil
	})
	w.timed = slices.DeleteFunc(w.timed, func(one timed) bool { return refused[one.sub.Name] })
}

// subscriptionCrosses says which thing of another Stack a declared Subscription uses undeclared.
func (s *Server) subscriptionCrosses(ctx context.Context, d *state.Deployment, sub *bus.Subscription) error {
	to, ok := targetIn(*sub)
	if !ok {
		return nil
	}
	own := ""
	if d.App.Function(to.Function) != nil {
		own = to.Function
	}
	from := channelThing(sub.Channel)
	if err := s.mayUse(ctx, d.Stack, own, from, takes[from.service], ""); err != nil {
		return err
	}
	all := append(to.destinations(), &destination{Queue: to.Queue}, &destination{Topic: to.Topic}, &destination{Bus: to.Bus})
	if own == "" {
		all = append(all, &destination{Function: to.Function})
	}
	for _, one := range all {
		t := one.thing()
		if err := s.mayUse(ctx, d.Stack, own, t, sends[t.service], sourceARN(from, &to)); err != nil {
			return err
		}
	}
	return nil
}

// sourceARN names what a Subscription delivers from as policies do: a rule and not its bus.
func sourceARN(from thing, to *target) string {
	switch {
	case from.service == "events" && to.Rule != "":
		name := strings.TrimPrefix(from.name, "event-bus/") + "/" + to.Rule
		return arn.New("events", to.Region, to.Account, "rule/"+strings.TrimPrefix(name, defaultBus+"/")).String()
	case from.service == "s3":
		return from.arn()
	case from.service == "sns":
		return arn.New("sns", to.Region, to.Account, from.name).String()
	}
	return ""
}

// channelThing is what the events of a channel come from; nothing where that belongs to nobody.
func channelThing(channel string) thing {
	for prefix, t := range map[string]thing{busChannel(""): {"events", "event-bus/"}, bucketChannel(""): {"s3", ""}, bus.TopicChannel(tenant + "/"): {"sns", ""}} {
		if name, ok := strings.CutPrefix(channel, prefix); ok {
			return thing{t.service, t.name + name}
		}
	}
	return thing{}
}

// thing is what a destination is.
func (d *destination) thing() thing {
	switch {
	case d.Function != "":
		return thing{"lambda", "function:" + d.Function}
	case d.Queue != "":
		return thing{"sqs", d.Queue}
	case d.Topic != "":
		return thing{"sns", d.Topic}
	case d.Bus != "":
		return thing{"events", "event-bus/" + d.Bus}
	}
	return thing{}
}

// source is what a mapping polls.
func (m *mapping) source() thing {
	if m.stream == nil {
		return thing{"sqs", strings.TrimPrefix(m.Queue, tenant+"/")}
	}
	name := strings.TrimPrefix(m.stream.Stream, tenant+"/")
	if table, ok := strings.CutPrefix(name, bus.TableStream); ok {
		return thing{"dynamodb", "table/" + table}
	}
	return thing{"kinesis", "stream/" + name}
}

// mappingCrosses says why a mapping may not poll. It is asked again for each Batch: what was nobody's may have become another Stack's.
func (s *Server) mappingCrosses(ctx context.Context, m *mapping) error {
	t := m.source()
	return s.mayUse(ctx, m.stack, m.function, t, takes[t.service], "")
}

// mayPoll waits until it is known whether a mapping may poll, or ctx ends.
func (s *Server) mayPoll(ctx context.Context, m *mapping) bool {
	for ctx.Err() == nil {
		err := s.mappingCrosses(ctx, m)
		if err == nil {
			return true
		}
		if errs.CodeOf(err) == errs.Forbidden {
			s.o.Log.Warn("an event source mapping does not poll", "mapping", m.Name, "because", err)
			return false
		}
		wait(ctx, time.Second)
	}
	return false
}

// foreignBatch refuses a Batch that has become another Stack's: the Function does not see it.
func foreignBatch(b *invocation.Batch, err error) invocation.Verdict {
	v := invocation.Verdict{Err: err}
	for i := range b.Items {
		v.Failed = append(v.Failed, i)
	}
	return v
}
