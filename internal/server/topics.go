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
	"github.com/ebb-run/ebb/internal/arn"
	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/bus/filter"
	"github.com/ebb-run/ebb/internal/bus/rule"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/state"
)

// topicOf is the topic that a Resource declares.
func (s *Server) topicOf(d *state.Deployment, res *app.Resource) (bus.Topic, error) {
	r := s.resolver(d)
	name, err := r.physicalName(res)
	if err != nil {
		return bus.Topic{}, err
	}
	var p struct {
		FifoTopic, ContentBasedDeduplication yes
		FifoThroughputScope                  string
	}
	if err := r.properties(pick(res.Properties, "FifoTopic", "ContentBasedDeduplication", "FifoThroughputScope"), &p); err != nil {
		return bus.Topic{}, err
	}
	t := bus.Topic{
		Tenant: tenant, Name: name, FIFO: bool(p.FifoTopic), ContentDedup: bool(p.ContentBasedDeduplication), GroupDedup: p.FifoThroughputScope == "MessageGroup",
		Tags: map[string]string{ownerTag: stackID(d.Stack)},
	}
	if res.Retain {
		t.Tags[retainTag] = "true"
	}
	if t.FIFO && !strings.HasSuffix(t.Name, ".fifo") && res.Name.IsZero() {
		t.Name += ".fifo"
	}
	return t, nil
}

// pick gives some of what is declared.
func pick(all map[string]any, keys ...string) map[string]any {
	out := map[string]any{}
	for _, k := range keys {
		if v, ok := all[k]; ok {
			out[k] = v
		}
	}
	return out
}

// properties reads declared properties, their values resolved.
func (r resolver) properties(declared any, into any) error {
	plain, err := r.plain(declared)
	if err != nil {
		return err
	}
	data, err := json.Marshal(plain)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		return errs.New(errs.Invalid, "read its properties: %w", err)
	}
	return nil
}

// topics makes the topics that an App declares what they are to be.
func (s *Server) topics(ctx context.Context, d *state.Deployment) (faults []string) {
	var want []bus.Topic
	for i := range d.App.Resources {
		res := &d.App.Resources[i]
		if res.Kind != app.Topic {
			continue
		}
		t, err := s.topicOf(d, res)
		if err != nil {
			faults = append(faults, fmt.Sprintf("topic %s: %v", res.ID, err))
			continue
		}
		want = append(want, t)
	}
	if len(want) == 0 {
		return faults
	}
	return append(faults, settle(ctx, s, "topic", want, s.events.bus.Topics, s.events.bus.PutTopic)...)
}

// dropTopics deletes the topics of a removed Stack.
func (s *Server) dropTopics(ctx context.Context, k state.StackKey) error {
	list, err := s.events.bus.Topics(ctx)
	if err != nil {
		return err
	}
	for _, t := range list {
		if t.Tags[ownerTag] != stackID(k) || t.Tags[retainTag] != "" {
			continue
		}
		if err := s.events.bus.DeleteTopic(ctx, t.Key()); err != nil && errs.CodeOf(err) != errs.NotFound {
			return err
		}
	}
	return nil
}

// declaredSubscription is a topic's subscription as templates write it.
type declaredSubscription struct {
	Protocol, Endpoint, TopicArn string
	FilterPolicy                 json.RawMessage
	FilterPolicyScope            filter.Scope
	RawMessageDelivery           yes
	RedrivePolicy                json.RawMessage
	DeliveryPolicy               json.RawMessage
}

// inner is a JSON document that may be written as a JSON text.
func inner(doc json.RawMessage) json.RawMessage {
	var text string
	if json.Unmarshal(doc, &text) == nil {
		return json.RawMessage(text)
	}
	return doc
}

const (
	// topicRetries and topicBackoff are those of SNS for what Amazon manages, topicAge is how long it tries: SNS developer guide, "Message delivery retries".
	topicRetries = 100_000
	topicBackoff = 20 * time.Second
	topicAge     = 23 * 24 * time.Hour
	// postRetries, postBackoff and postAge are those of endpoints, without a delivery policy.
	postRetries = 3
	postBackoff = 20 * time.Second
	postAge     = time.Hour
	// postWaitMost is how long a try of a Subscription's endpoint may take, its reading and waiting included.
	postWaitMost = 2 * postWait
)

// on fills in what a topic's Subscription has whatever its target: channel, filter, dead letters.
func (p *declaredSubscription) on(sub *bus.Subscription, to *target) error {
	to.Via, to.Source = invocation.ViaTopic, lastPart(p.TopicArn)
	if to.Source == "" {
		return errs.New(errs.Invalid, "it names no topic")
	}
	sub.Channel, sub.Subject = bus.TopicChannel(tenant+"/"+to.Source), ""
	sub.Ordered = strings.HasSuffix(to.Source, ".fifo")
	to.Label = uuid8("ebb topic subscription", sub.Name)
	if policy := inner(p.FilterPolicy); len(policy) > 0 && string(policy) != "null" {
		var err error
		if sub.Filter, err = (rule.Filter{Policy: policy, Scope: p.FilterPolicyScope}).Encode(); err != nil {
			return errs.New(errs.Invalid, "its filter policy: %w", err)
		}
		if _, err := rule.Compile(sub.Filter); err != nil {
			return errs.New(errs.Invalid, "its filter policy: %w", err)
		}
	}
	if len(p.RedrivePolicy) == 0 {
		return nil
	}
	var redrive struct {
		DeadLetterTargetArn string `json:"deadLetterTargetArn"`
	}
	if err := json.Unmarshal(inner(p.RedrivePolicy), &redrive); err != nil {
		return errs.New(errs.Invalid, "read its RedrivePolicy: %w", err)
	}
	return to.deadTo(redrive.DeadLetterTargetArn, strings.HasSuffix(to.Queue, ".fifo"))
}

// deadTo sets the dead-letter queue of a Subscription.
func (t *target) deadTo(at string, fifo bool) error {
	if at == "" {
		return nil
	}
	dead, err := destinationAt(at)
	switch {
	case err != nil || dead.Queue == "":
		return errs.New(errs.Invalid, "its dead-letter target %s is no queue", at)
	case strings.HasSuffix(dead.Queue, ".fifo") != fifo:
		return errs.New(errs.Invalid, "its dead-letter queue %s has to be FIFO where its queue is, and only there", dead.Queue)
	}
	t.Dead = dead
	return nil
}

// noticeOf is the Subscription of a Function to a topic.
func (s *Server) noticeOf(d *state.Deployment, t *app.Trigger, name string) (bus.Subscription, error) {
	r := s.resolver(d)
	f := d.App.Function(t.Function)
	if f == nil {
		return bus.Subscription{}, errs.New(errs.NotFound, "there is no function %s", t.Function)
	}
	var p declaredSubscription
	if err := r.settings(t, &p); err != nil {
		return bus.Subscription{}, err
	}
	var err error
	if p.TopicArn, err = t.Source.Resolve(r.values()); err != nil {
		return bus.Subscription{}, err
	}
	sub, to := s.async(d, f), s.targetOf(d, f)
	sub.Name = name
	switch {
	case strings.HasSuffix(p.TopicArn, ".fifo"):
		return sub, errs.New(errs.Invalid, "a FIFO topic delivers to queues alone").WithHint("Subscribe a queue, and let the function take from that.")
	case bool(p.RawMessageDelivery):
		return sub, errs.New(errs.Invalid, "functions get no raw messages")
	}
	if err := p.on(&sub, &to); err != nil {
		return sub, err
	}
	sub.Target, err = json.Marshal(to)
	return sub, err
}

// subscriptions gives what the App's Resources declare of subscriptions that are no Triggers.
func (s *Server) subscriptions(d *state.Deployment, w *wanted) {
	for i := range d.App.Resources {
		res := &d.App.Resources[i]
		var list []any
		switch {
		case res.Type == "AWS::SNS::Subscription":
			list = []any{res.Properties}
		case res.Kind == app.Topic:
			for _, one := range listOf(res.Properties["Subscription"]) {
				m, _ := one.(map[string]any)
				m = pick(m, "Protocol", "Endpoint")
				m["TopicArn"] = app.Attr(res.ID, "TopicArn")
				list = append(list, m)
			}
		}
		for n, one := range list {
			name := triggerPrefix(d.Stack) + res.ID
			if res.Kind == app.Topic {
				name += fmt.Sprintf("/%d", n+1)
			}
			sub, err := s.subscriptionOf(d, name, one)
			switch {
			case err != nil:
				w.faults = append(w.faults, fmt.Sprintf("subscription %s: %v", strings.TrimPrefix(name, triggerPrefix(d.Stack)), err))
			case sub != nil:
				w.subs = append(w.subs, *sub)
			}
		}
	}
}

func listOf(v any) []any {
	list, _ := v.([]any)
	return list
}

// subscriptionOf reads a declared subscription; nil where it is of a Function of the App, which has a Trigger for it.
func (s *Server) subscriptionOf(d *state.Deployment, name string, declared any) (*bus.Subscription, error) {
	var p declaredSubscription
	if err := s.resolver(d).properties(declared, &p); err != nil {
		return nil, err
	}
	if f, _, err := arn.FunctionName(p.Endpoint); p.Protocol == "lambda" && err == nil && d.App.Function(f) != nil {
		return nil, nil
	}
	return s.subscriptionFor(&p, name, target{Account: s.o.Config.Account, Region: region(d.App), Bare: bool(p.RawMessageDelivery), Owner: stackID(d.Stack)})
}

// subscriptionFor makes the Subscription of a queue or an endpoint to a topic; to says on whose account.
func (s *Server) subscriptionFor(p *declaredSubscription, name string, to target) (*bus.Subscription, error) {
	sub := &bus.Subscription{Name: name}
	fifo := strings.HasSuffix(p.TopicArn, ".fifo")
	switch p.Protocol {
	case "lambda":
		return nil, errs.New(errs.Unsupported, "its function %s is none of this app", p.Endpoint).WithHint("Declare the subscription in the app of the function.")
	case "sqs":
		sub.Name += "/queue"
		at, err := destinationAt(p.Endpoint)
		switch {
		case err != nil || at.Queue == "":
			return nil, errs.New(errs.Invalid, "its endpoint %s is the ARN of no queue", p.Endpoint)
		case !fifo && strings.HasSuffix(at.Queue, ".fifo"):
			return nil, errs.New(errs.Invalid, "a standard topic does not deliver to a FIFO queue, %s", at.Queue)
		}
		to.Queue, to.Owner = at.Queue, ""
		sub.Batch, sub.Retry, sub.Deadline = 10, managed(), time.Minute
	case "http", "https":
		sub.Name += "/" + p.Protocol
		if fifo {
			return nil, errs.New(errs.Invalid, "a FIFO topic delivers to queues alone")
		}
		if err := endpointURL(p.Protocol, p.Endpoint); err != nil {
			return nil, err
		}
		to.Endpoint = p.Endpoint
		if err := p.deliveryPolicy(sub, &to); err != nil {
			return nil, err
		}
		sub.Deadline = postWaitMost
	case "email", "email-json", "sms", "application", "firehose":
		return nil, errs.New(errs.Unsupported, "the protocol %s is declared, not active: lambda, sqs, http and https are", p.Protocol)
	default:
		return nil, errs.New(errs.Invalid, "%q is no protocol: lambda, sqs, http or https", p.Protocol)
	}
	if err := p.on(sub, &to); err != nil {
		return nil, err
	}
	var err error
	sub.Target, err = json.Marshal(to)
	return sub, err
}

// managed is how often SNS tries a target that is AWS's own.
func managed() bus.Retry {
	return bus.Retry{Attempts: topicRetries, MinBackoff: time.Second, MaxBackoff: topicBackoff, MaxAge: topicAge}
}

// deliveryPolicy reads how often an endpoint is tried: SNS developer guide, "Creating an HTTP/S delivery policy".
func (p *declaredSubscription) deliveryPolicy(sub *bus.Subscription, to *target) error {
	sub.Retry = bus.Retry{Attempts: postRetries + 1, MinBackoff: postBackoff, MaxBackoff: postBackoff, MaxAge: postAge}
	if len(p.DeliveryPolicy) == 0 {
		return nil
	}
	var policy struct {
		Retry *struct {
			Retries *number `json:"numRetries"`
			Least   *number `json:"minDelayTarget"` // seconds
			Most    *number `json:"maxDelayTarget"`
		} `json:"healthyRetryPolicy"`
		Request struct {
			ContentType string `json:"headerContentType"`
		} `json:"requestPolicy"`
	}
	if err := json.Unmarshal(inner(p.DeliveryPolicy), &policy); err != nil {
		return errs.New(errs.Invalid, "read its DeliveryPolicy: %w", err)
	}
	to.ContentType = policy.Request.ContentType
	r := policy.Retry
	if r == nil {
		return nil
	}
	if r.Retries != nil {
		sub.Retry.Attempts = int(*r.Retries) + 1
	}
	if r.Least != nil {
		sub.Retry.MinBackoff = r.Least.seconds()
	}
	if r.Most != nil {
		sub.Retry.MaxBackoff = r.Most.seconds()
	}
	if sub.Retry.Attempts < 1 || sub.Retry.Attempts > 101 || sub.Retry.MinBackoff < time.Second || sub.Retry.MaxBackoff < sub.Retry.MinBackoff || sub.Retry.MaxBackoff > postAge {
		return errs.New(errs.Invalid, "its DeliveryPolicy: numRetries is 0 to 100, minDelayTarget at least 1 and not above maxDelayTarget, which is up to 3600")
	}
	return nil
}

// declaredOnBus counts the Resources of an App that are something on the bus.
func declaredOnBus(a *app.App) (n int) {
	for i := range a.Resources {
		switch res := &a.Resources[i]; {
		case res.Kind == app.Queue, res.Kind == app.Topic, res.Kind == app.Bucket, slices.Contains([]string{"AWS::SNS::Subscription", "AWS::Events::Rule", "AWS::Scheduler::Schedule"}, res.Type):
			n++
		}
	}
	return n
}

// topicName is the name of a topic that is given by name or ARN.
func topicName(text string) string {
	if strings.HasPrefix(text, "arn:") {
		return lastPart(text)
	}
	return text
}

// Topics lists topics, with how many Subscriptions each has.
func (s *Server) Topics(ctx context.Context) ([]api.TopicInfo, error) {
	if err := s.events.bus.Sync(ctx); err != nil { // what was put a moment ago is there
		return nil, err
	}
	list, err := s.events.bus.Topics(ctx)
	if err != nil {
		return nil, err
	}
	subs, err := s.events.bus.Subscriptions(ctx)
	if err != nil {
		return nil, err
	}
	on := map[string]int{}
	for _, sub := range subs {
		on[sub.Channel]++
	}
	out := []api.TopicInfo{}
	for _, t := range list {
		out = append(out, api.TopicInfo{Name: t.Name, FIFO: t.FIFO, ContentDedup: t.ContentDedup, Subscriptions: on[bus.TopicChannel(t.Key())]})
	}
	return out, nil
}

// PublishTopic publishes to a topic.
func (s *Server) PublishTopic(ctx context.Context, topic string, p api.TopicMessage) (*api.PublishedMessage, error) {
	pub := bus.Publication{Message: []byte(p.Message), Subject: p.Subject, Structured: p.Structured, Group: p.Group, Dedup: p.Dedup}
	for name, a := range p.Attributes {
		if pub.Attributes == nil {
			pub.Attributes = map[string]invocation.Attribute{}
		}
		if a.Type == "" {
			a.Type = "String"
		}
		pub.Attributes[name] = invocation.Attribute{Type: a.Type, Text: a.Value, Binary: a.Binary}
	}
	out, err := s.events.bus.PublishTopic(ctx, tenant+"/"+topicName(topic), pub)
	if err != nil {
		return nil, err
	}
	if out[0].Err != nil {
		return nil, out[0].Err
	}
	return &api.PublishedMessage{ID: out[0].ID, Sequence: out[0].Sequence}, nil
}

// TopicSubscriptions lists what takes what is published to a topic.
func (s *Server) TopicSubscriptions(ctx context.Context, topic string) ([]api.TopicSubscription, error) {
	if err := s.events.bus.Sync(ctx); err != nil {
		return nil, err
	}
	name := topicName(topic)
	if _, err := s.events.bus.Topic(ctx, tenant+"/"+name); err != nil {
		return nil, err
	}
	list, err := s.events.bus.Subscriptions(ctx)
	if err != nil {
		return nil, err
	}
	counts, err := s.events.bus.Counts(ctx)
	if err != nil {
		return nil, err
	}
	out := []api.TopicSubscription{}
	for _, sub := range list {
		t, ok := targetIn(sub)
		if !ok || sub.Channel != bus.TopicChannel(tenant+"/"+name) {
			continue
		}
		c := counts[sub.Name]
		info := api.TopicSubscription{Name: sub.Name, Protocol: t.protocol(), Raw: t.Bare, Pending: c[bus.Pending] + c[bus.Waiting], Done: c[bus.Done], Dead: c[bus.Dead]}
		switch {
		case t.Function != "":
			info.Endpoint = t.Function
		case t.Queue != "":
			info.Endpoint = t.Queue
		default:
			info.Endpoint = t.String()
		}
		if t.Dead != nil {
			info.DeadLetters = t.Dead.Queue
		}
		if info.Dead > 0 {
			if info.Fault, err = s.fault(ctx, sub.Name); err != nil {
				return nil, err
			}
		}
		var f rule.Filter
		if len(sub.Filter) > 0 && json.Unmarshal(sub.Filter, &f) == nil {
			info.Filter, info.Scope = f.Policy, string(f.Scope)
		}
		out = append(out, info)
	}
	return out, nil
}

// fault tells why a Subscription's newest dead letter is one.
func (s *Server) fault(ctx context.Context, name string) (string, error) {
	dead := bus.Dead
	list, err := s.events.bus.List(ctx, bus.Query{Subscription: name, Live: true, State: &dead, Newest: true, Limit: 1})
	if err != nil || len(list) == 0 {
		return "", err
	}
	text := string(list[0].Cause)
	if n := len(list[0].Attempts); n > 0 && list[0].Attempts[n-1].Error != "" {
		text += ": " + list[0].Attempts[n-1].Error
	}
	return text, nil
}
