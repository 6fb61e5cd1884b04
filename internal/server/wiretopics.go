package server

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/ebb-run/ebb/internal/arn"
	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/bus/filter"
	"github.com/ebb-run/ebb/internal/bus/rule"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/sns"
)

// calledPrefix begins the names of Subscriptions that clients made, and no App declares.
const calledPrefix = "sns/"

// topicHooks are how SNS's clients make and find subscriptions.
func (s *Server) topicHooks() sns.Hooks {
	return sns.Hooks{Subscribe: s.wireSubscribe, Unsubscribe: s.wireUnsubscribe, Subscriptions: s.wireSubscriptions}
}

// wireSubscribe makes a Subscription, or changes the one that the endpoint has.
func (s *Server) wireSubscribe(ctx context.Context, c *wire.Call, in sns.Subscription) (string, error) {
	raw := func(name string) json.RawMessage {
		if v := in.Attributes[name]; v != "" {
			return json.RawMessage(v)
		}
		return nil
	}
	if in.Protocol == "lambda" {
		return s.declaredFor(ctx, c, in)
	}
	p := declaredSubscription{
		Protocol: in.Protocol, Endpoint: in.Endpoint, TopicArn: arn.New("sns", c.Region, c.Caller.Account, in.Topic).String(), FilterPolicy: raw("FilterPolicy"),
		FilterPolicyScope: filter.Scope(in.Attributes["FilterPolicyScope"]), RawMessageDelivery: yes(in.Attributes["RawMessageDelivery"] == "true"),
		RedrivePolicy: raw("RedrivePolicy"), DeliveryPolicy: raw("DeliveryPolicy"),
	}
	for _, doc := range []json.RawMessage{p.FilterPolicy, p.RedrivePolicy, p.DeliveryPolicy} {
		if len(doc) > 0 && !json.Valid(doc) {
			return "", errs.New(errs.Invalid, "an attribute is no JSON: %s", doc)
		}
	}
	name := calledPrefix + in.Topic + "/" + uuid8("sns", in.Protocol, in.Endpoint)
	sub, err := s.subscriptionFor(&p, name, target{Account: c.Caller.Account, Region: c.Region, Bare: bool(p.RawMessageDelivery)})
	if err != nil {
		return "", err
	}
	to, _ := targetIn(*sub)
	return to.Label, s.events.bus.Subscribe(ctx, *sub)
}

// declaredFor finds what an App declares of a Function's subscription to the topic.
func (s *Server) declaredFor(ctx context.Context, c *wire.Call, in sns.Subscription) (string, error) {
	list, err := s.wireSubscriptions(ctx, c)
	if err != nil {
		return "", err
	}
	for _, sub := range list {
		if sub.Protocol == in.Protocol && sub.Topic == in.Topic && lastPart(sub.Endpoint) == lastPart(in.Endpoint) {
			return sub.ID, nil
		}
	}
	return "", errs.New(errs.Unsupported, "functions are subscribed by the app that declares them: %s", in.Endpoint)
}

// wireUnsubscribe removes a Subscription that a client made; those that Apps declare stay.
func (s *Server) wireUnsubscribe(ctx context.Context, _ *wire.Call, id string) error {
	list, err := s.events.bus.Subscriptions(ctx)
	if err != nil {
		return err
	}
	for _, sub := range list {
		if t, ok := targetIn(sub); ok && t.Label == id && strings.HasPrefix(sub.Name, calledPrefix) {
			return s.events.bus.Unsubscribe(ctx, sub.Name)
		}
	}
	return nil
}

// wireSubscriptions lists the Subscriptions to topics.
func (s *Server) wireSubscriptions(ctx context.Context, c *wire.Call) (out []sns.Subscription, err error) {
	if err := s.events.bus.Sync(ctx); err != nil {
		return nil, err
	}
	list, err := s.events.bus.Subscriptions(ctx)
	if err != nil {
		return nil, err
	}
	for _, sub := range list {
		t, ok := targetIn(sub)
		if !ok || t.Label == "" || sub.Channel != bus.TopicChannel(c.Caller.Tenant+"/"+t.Source) {
			continue
		}
		one := sns.Subscription{ID: t.Label, Topic: t.Source, Protocol: t.protocol(), Attributes: map[string]string{}}
		switch {
		case t.Function != "":
			one.Endpoint = arn.Function(c.Region, c.Caller.Account, t.Function).String()
		case t.Queue != "":
			one.Endpoint = arn.New("sqs", c.Region, c.Caller.Account, t.Queue).String()
		default:
			one.Endpoint = t.String()
		}
		if t.Bare {
			one.Attributes["RawMessageDelivery"] = "true"
		}
		var f rule.Filter
		if len(sub.Filter) > 0 && json.Unmarshal(sub.Filter, &f) == nil {
			one.Attributes["FilterPolicy"] = string(f.Policy)
			if f.Scope != "" {
				one.Attributes["FilterPolicyScope"] = string(f.Scope)
			}
		}
		if t.Dead != nil && t.Dead.Queue != "" {
			one.Attributes["RedrivePolicy"] = `{"deadLetterTargetArn":"` + arn.New("sqs", c.Region, c.Caller.Account, t.Dead.Queue).String() + `"}`
		}
		out = append(out, one)
	}
	return out, nil
}
