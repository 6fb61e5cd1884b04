package sns

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/wire"
)

type subscribeInput struct {
	TopicArn, Protocol, Endpoint string
	Attributes                   map[string]string
}

type subscriptionARN struct{ SubscriptionArn string }

func (s *service) subscribe(ctx context.Context, c *wire.Call, in *subscribeInput) (*subscriptionARN, error) {
	t, err := s.topic(ctx, c, in.TopicArn)
	if err != nil {
		return nil, err
	}
	if in.Endpoint == "" {
		return nil, invalid("Endpoint")
	}
	id, err := s.h.Subscribe(ctx, c, Subscription{Topic: t.Name, Protocol: in.Protocol, Endpoint: in.Endpoint, Attributes: in.Attributes})
	if err != nil {
		return nil, err
	}
	return &subscriptionARN{arnOf(c, t.Name) + ":" + id}, nil
}

// find gives the subscription with the ARN.
func (s *service) find(ctx context.Context, c *wire.Call, arn string) (Subscription, error) {
	list, err := s.h.Subscriptions(ctx, c)
	if err != nil {
		return Subscription{}, err
	}
	at := strings.LastIndexByte(arn, ':')
	topic, id := arn[:max(0, at)], arn[at+1:]
	topic = topic[strings.LastIndexByte(topic, ':')+1:]
	i := slices.IndexFunc(list, func(sub Subscription) bool { return sub.ID == id && sub.Topic == topic }) // who may was asked about the topic
	if i < 0 {
		return Subscription{}, notFound("Subscription")
	}
	return list[i], nil
}

func (s *service) unsubscribe(ctx context.Context, c *wire.Call, in *subscriptionARN) (*none, error) {
	if strings.Count(in.SubscriptionArn, ":") != 6 {
		return nil, invalid("SubscriptionArn Reason: An ARN must have at least 7 elements")
	}
	sub, err := s.find(ctx, c, in.SubscriptionArn)
	if e, ok := err.(*wire.Error); ok && e.Code == "NotFound" {
		return nil, nil // to end what is not there is no error
	}
	if err != nil {
		return nil, err
	}
	return nil, s.h.Unsubscribe(ctx, c, sub.ID)
}

type listed struct{ SubscriptionArn, Owner, Protocol, Endpoint, TopicArn string }

type subscriptionsOutput struct {
	Subscriptions []listed
	NextToken     string
}

func (s *service) list(ctx context.Context, c *wire.Call, token string, keep func(Subscription) bool) (*subscriptionsOutput, error) {
	all, err := s.h.Subscriptions(ctx, c)
	if err != nil {
		return nil, err
	}
	byID := map[string]Subscription{}
	for _, sub := range all {
		if keep(sub) {
			byID[sub.ID] = sub
		}
	}
	ids, next, err := page(slices.Sorted(maps.Keys(byID)), token)
	if err != nil {
		return nil, err
	}
	out := &subscriptionsOutput{Subscriptions: []listed{}, NextToken: next}
	for _, id := range ids {
		sub := byID[id]
		at := arnOf(c, sub.Topic)
		out.Subscriptions = append(out.Subscriptions, listed{at + ":" + id, c.Caller.Account, sub.Protocol, sub.Endpoint, at})
	}
	return out, nil
}

func (s *service) listSubscriptions(ctx context.Context, c *wire.Call, in *nextInput) (*subscriptionsOutput, error) {
	return s.list(ctx, c, in.NextToken, func(Subscription) bool { return true })
}

type byTopicInput struct{ TopicArn, NextToken string }

func (s *service) listByTopic(ctx context.Context, c *wire.Call, in *byTopicInput) (*subscriptionsOutput, error) {
	t, err := s.topic(ctx, c, in.TopicArn)
	if err != nil {
		return nil, err
	}
	return s.list(ctx, c, in.NextToken, func(sub Subscription) bool { return sub.Topic == t.Name })
}

func (s *service) getSubscriptionAttributes(ctx context.Context, c *wire.Call, in *subscriptionARN) (*attributesOutput, error) {
	sub, err := s.find(ctx, c, in.SubscriptionArn)
	if err != nil {
		return nil, err
	}
	at := arnOf(c, sub.Topic)
	out := map[string]string{
		"SubscriptionArn": at + ":" + sub.ID, "TopicArn": at, "Protocol": sub.Protocol, "Endpoint": sub.Endpoint, "Owner": c.Caller.Account,
		"ConfirmationWasAuthenticated": "true", "PendingConfirmation": "false", "RawMessageDelivery": "false",
	}
	maps.Copy(out, sub.Attributes)
	if out["FilterPolicy"] != "" && out["FilterPolicyScope"] == "" {
		out["FilterPolicyScope"] = "MessageAttributes"
	}
	return &attributesOutput{out}, nil
}

type setSubscriptionInput struct{ SubscriptionArn, AttributeName, AttributeValue string }

func (s *service) setSubscriptionAttributes(ctx context.Context, c *wire.Call, in *setSubscriptionInput) (*none, error) {
	sub, err := s.find(ctx, c, in.SubscriptionArn)
	if err != nil {
		return nil, err
	}
	if sub.Attributes = maps.Clone(sub.Attributes); sub.Attributes == nil {
		sub.Attributes = map[string]string{}
	}
	sub.Attributes[in.AttributeName] = in.AttributeValue
	_, err = s.h.Subscribe(ctx, c, sub)
	return nil, err
}
