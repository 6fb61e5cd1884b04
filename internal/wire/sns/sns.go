// Package sns answers Amazon SNS over the bus's topics, in the query protocol.
//
// Main types: [Hooks], what it needs beside the bus; [New] gives the wire.Service. Source: Amazon SNS API Reference, 2010-03-31.
//
// Guarantees:
//
//  1. Publish and PublishBatch answer when what is published is durable.
//  2. A topic is found by its name whatever region and account its ARN says: names are the caller's Tenant's.
//  3. To subscribe the same endpoint again gives the same subscription.
//
// Differences: endpoints are not asked to confirm; the protocols lambda (of functions that declare it), sqs, http and https deliver; attributes
// without meaning here are kept and given back.
package sns

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/wire"
)

// Subscription is one of a topic's.
type Subscription struct {
	ID         string // the last part of its ARN
	Topic      string // name
	Protocol   string // lambda, sqs, http, https
	Endpoint   string // ARN or URL
	Attributes map[string]string
}

// Hooks are what subscriptions are made and found with. All may be called concurrently.
type Hooks struct {
	Subscribe     func(ctx context.Context, c *wire.Call, s Subscription) (id string, err error)
	Unsubscribe   func(ctx context.Context, c *wire.Call, id string) error // no such one is no error
	Subscriptions func(ctx context.Context, c *wire.Call) ([]Subscription, error)
}

type service struct {
	bus *bus.Bus
	h   Hooks
}

// New returns the service.
func New(b *bus.Bus, h Hooks) *wire.Service {
	s := &service{b, h}
	return &wire.Service{
		Name: "sns", MaxBody: 8 << 20, Translate: translate, Subjects: subjects,
		Operations: map[string]wire.Operation{
			"CreateTopic": wire.Op(s.createTopic), "DeleteTopic": wire.Op(s.deleteTopic), "ListTopics": wire.Op(s.listTopics),
			"GetTopicAttributes": wire.Op(s.getTopicAttributes), "SetTopicAttributes": wire.Op(s.setTopicAttributes),
			"Publish": wire.Op(s.publish), "PublishBatch": wire.Op(s.publishBatch),
			"Subscribe": wire.Op(s.subscribe), "Unsubscribe": wire.Op(s.unsubscribe), "ListSubscriptions": wire.Op(s.listSubscriptions),
			"ListSubscriptionsByTopic": wire.Op(s.listByTopic), "GetSubscriptionAttributes": wire.Op(s.getSubscriptionAttributes),
			"SetSubscriptionAttributes": wire.Op(s.setSubscriptionAttributes),
			"TagResource":               wire.Op(s.tagResource), "UntagResource": wire.Op(s.untagResource), "ListTagsForResource": wire.Op(s.listTags),
		},
	}
}

const (
	hidden       = "ebb:" // begins tags that are not the client's
	attributeTag = hidden + "sns:"
)

type none struct{}

func invalid(format string, args ...any) *wire.Error {
	return wire.Errorf("InvalidParameter", "Invalid parameter: "+format, args...)
}

func notFound(what string) *wire.Error {
	return wire.Errorf("NotFound", "%s does not exist", what).With(404)
}

func translate(_ *wire.Call, err error) *wire.Error {
	switch errs.CodeOf(err) {
	case errs.NotFound:
		return notFound("Topic")
	case errs.Invalid, errs.TooLarge, errs.Unsupported:
		return invalid("%s", err.Error())
	case errs.Throttled:
		return wire.Errorf("Throttled", "%s", err.Error()).With(429)
	case errs.Unavailable, errs.Timeout, errs.Canceled:
		return wire.Errorf("ServiceUnavailable", "The topic cannot be reached now. Please try again.").With(503)
	}
	return nil
}

// key is the topic that an ARN means.
func key(c *wire.Call, arn string) (string, error) {
	part := strings.Split(arn, ":")
	if len(part) != 6 || part[0] != "arn" || part[2] != "sns" || part[5] == "" {
		return "", invalid("TopicArn Reason: An ARN must have at least 6 elements, not %d", len(part))
	}
	return c.Caller.Tenant + "/" + part[5], nil
}

func arnOf(c *wire.Call, name string) string {
	return "arn:aws:sns:" + c.Region + ":" + c.Caller.Account + ":" + name
}

type tag struct{ Key, Value string }

type createTopicInput struct {
	Name       string
	Attributes map[string]string
	Tags       []tag
}

type topicARN struct{ TopicArn string }

func (s *service) createTopic(ctx context.Context, c *wire.Call, in *createTopicInput) (*topicARN, error) {
	t := bus.Topic{Tenant: c.Caller.Tenant, Name: in.Name, FIFO: in.Attributes["FifoTopic"] == "true", Tags: map[string]string{}}
	for k, v := range in.Attributes {
		if err := apply(&t, k, v); err != nil {
			return nil, err
		}
	}
	for _, one := range in.Tags {
		if !strings.HasPrefix(one.Key, hidden) {
			t.Tags[one.Key] = one.Value
		}
	}
	t.Tags = c.Caller.Mark(t.Tags)
	have, err := s.bus.Topic(ctx, t.Key())
	if err == nil {
		if have.FIFO != t.FIFO {
			return nil, invalid("Attributes Reason: Topic already exists with different attributes")
		}
		return &topicARN{arnOf(c, t.Name)}, nil
	}
	if errs.CodeOf(err) != errs.NotFound {
		return nil, err
	}
	if err := s.bus.PutTopic(ctx, t); err != nil {
		return nil, err
	}
	return &topicARN{arnOf(c, t.Name)}, nil
}

// kept are the attributes that are kept and given back, without effect: SNS API, SetTopicAttributes.
var kept = regexp.MustCompile(`^(DeliveryPolicy|DisplayName|Policy|SignatureVersion|TracingConfig|KmsMasterKeyId|ArchivePolicy|DataProtectionPolicy|` +
	`(Application|Firehose|HTTP|Lambda|SQS)(SuccessFeedbackRoleArn|SuccessFeedbackSampleRate|FailureFeedbackRoleArn))$`)

// delivery is the policy that a topic has without one of its own: SNS Developer Guide, "Creating an HTTP/S delivery policy".
const delivery = `{"http":{"defaultHealthyRetryPolicy":{"minDelayTarget":20,"maxDelayTarget":20,"numRetries":3,"numMaxDelayRetries":0,"numNoDelayRetries":0,"numMinDelayRetries":0,` +
	`"backoffFunction":"linear"},"disableSubscriptionOverrides":false,"defaultRequestPolicy":{"headerContentType":"text/plain; charset=UTF-8"}}}`

// ownerOnly is the access policy that a topic has without one of its own: SNS Developer Guide, "Overview of managing access".
func ownerOnly(c *wire.Call, topic string) string {
	return `{"Version":"2008-10-17","Id":"__default_policy_ID","Statement":[{"Sid":"__default_statement_ID","Effect":"Allow","Principal":{"AWS":"*"},"Action":["SNS:GetTopicAttributes",` +
		`"SNS:SetTopicAttributes","SNS:AddPermission","SNS:RemovePermission","SNS:DeleteTopic","SNS:Subscribe","SNS:ListSubscriptionsByTopic","SNS:Publish"],"Resource":"` + arnOf(c, topic) +
		`","Condition":{"StringEquals":{"AWS:SourceOwner":"` + c.Caller.Account + `"}}}]}`
}

// apply sets an attribute of a topic.
func apply(t *bus.Topic, name, value string) error {
	switch name {
	case "FifoTopic":
	case "ContentBasedDeduplication":
		if !t.FIFO {
			return invalid("ContentBasedDeduplication Reason: only FIFO topics have it")
		}
		t.ContentDedup = value == "true"
	case "FifoThroughputScope":
		t.GroupDedup = value == "MessageGroup"
	default:
		if !kept.MatchString(name) {
			return invalid("AttributeName")
		}
		if value == "" {
			delete(t.Tags, attributeTag+name)
		} else {
			t.Tags[attributeTag+name] = value
		}
	}
	return nil
}

func (s *service) deleteTopic(ctx context.Context, c *wire.Call, in *topicARN) (*none, error) {
	k, err := key(c, in.TopicArn)
	if err != nil {
		return nil, err
	}
	list, err := s.h.Subscriptions(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := s.bus.DeleteTopic(ctx, k); err != nil && errs.CodeOf(err) != errs.NotFound {
		return nil, err
	}
	for _, sub := range list {
		if c.Caller.Tenant+"/"+sub.Topic == k {
			if err := s.h.Unsubscribe(ctx, c, sub.ID); err != nil {
				return nil, err
			}
		}
	}
	return nil, nil
}

const pageSize = 100

// page cuts a sorted list behind the token.
func page(names []string, token string) ([]string, string, error) {
	if token != "" {
		after, err := base64.RawURLEncoding.DecodeString(token)
		if err != nil {
			return nil, "", invalid("NextToken Reason: it is not one that was given")
		}
		i, found := slices.BinarySearch(names, string(after))
		if found {
			i++
		}
		names = names[i:]
	}
	if len(names) <= pageSize {
		return names, "", nil
	}
	names = names[:pageSize]
	return names, base64.RawURLEncoding.EncodeToString([]byte(names[pageSize-1])), nil
}

type nextInput struct{ NextToken string }

type topicsOutput struct {
	Topics    []topicARN
	NextToken string
}

func (s *service) listTopics(ctx context.Context, c *wire.Call, in *nextInput) (*topicsOutput, error) {
	if err := s.bus.Sync(ctx); err != nil { // what was put a moment ago is there
		return nil, err
	}
	all, err := s.bus.Topics(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, t := range all {
		if strings.HasPrefix(t.Key(), c.Caller.Tenant+"/") {
			names = append(names, t.Name)
		}
	}
	slices.Sort(names)
	names, next, err := page(names, in.NextToken)
	if err != nil {
		return nil, err
	}
	out := &topicsOutput{Topics: []topicARN{}, NextToken: next}
	for _, n := range names {
		out.Topics = append(out.Topics, topicARN{arnOf(c, n)})
	}
	return out, nil
}

type attributesOutput struct{ Attributes map[string]string }

func (s *service) getTopicAttributes(ctx context.Context, c *wire.Call, in *topicARN) (*attributesOutput, error) {
	t, err := s.topic(ctx, c, in.TopicArn)
	if err != nil {
		return nil, err
	}
	list, err := s.h.Subscriptions(ctx, c)
	if err != nil {
		return nil, err
	}
	n := 0
	for _, sub := range list {
		if sub.Topic == t.Name {
			n++
		}
	}
	out := map[string]string{
		"TopicArn": arnOf(c, t.Name), "Owner": c.Caller.Account, "DisplayName": "", "SubscriptionsConfirmed": fmt.Sprint(n), "SubscriptionsPending": "0", "SubscriptionsDeleted": "0",
		"Policy": ownerOnly(c, t.Name), "EffectiveDeliveryPolicy": delivery,
	}
	if t.FIFO {
		out["FifoTopic"], out["ContentBasedDeduplication"] = "true", fmt.Sprint(t.ContentDedup)
	}
	for k, v := range t.Tags {
		if name, ok := strings.CutPrefix(k, attributeTag); ok {
			out[name] = v
		}
	}
	return &attributesOutput{out}, nil
}

func (s *service) topic(ctx context.Context, c *wire.Call, arn string) (bus.Topic, error) {
	k, err := key(c, arn)
	if err != nil {
		return bus.Topic{}, err
	}
	return s.bus.Topic(ctx, k)
}

// change changes a topic's settings.
func (s *service) change(ctx context.Context, c *wire.Call, arn string, f func(*bus.Topic) error) error {
	t, err := s.topic(ctx, c, arn)
	if err != nil {
		return err
	}
	if t.Tags = maps.Clone(t.Tags); t.Tags == nil {
		t.Tags = map[string]string{}
	}
	if err := f(&t); err != nil {
		return err
	}
	return s.bus.PutTopic(ctx, t)
}

type setTopicInput struct{ TopicArn, AttributeName, AttributeValue string }

func (s *service) setTopicAttributes(ctx context.Context, c *wire.Call, in *setTopicInput) (*none, error) {
	return nil, s.change(ctx, c, in.TopicArn, func(t *bus.Topic) error { return apply(t, in.AttributeName, in.AttributeValue) })
}

type tagInput struct {
	ResourceArn string
	Tags        []tag
}

func (s *service) tagResource(ctx context.Context, c *wire.Call, in *tagInput) (*none, error) {
	return nil, s.change(ctx, c, in.ResourceArn, func(t *bus.Topic) error {
		for _, one := range in.Tags {
			if !strings.HasPrefix(one.Key, hidden) {
				t.Tags[one.Key] = one.Value
			}
		}
		return nil
	})
}

type untagInput struct {
	ResourceArn string
	TagKeys     []string
}

func (s *service) untagResource(ctx context.Context, c *wire.Call, in *untagInput) (*none, error) {
	return nil, s.change(ctx, c, in.ResourceArn, func(t *bus.Topic) error {
		for _, k := range in.TagKeys {
			if !strings.HasPrefix(k, hidden) {
				delete(t.Tags, k)
			}
		}
		return nil
	})
}

type tagsOutput struct{ Tags []tag }

func (s *service) listTags(ctx context.Context, c *wire.Call, in *struct{ ResourceArn string }) (*tagsOutput, error) {
	t, err := s.topic(ctx, c, in.ResourceArn)
	if err != nil {
		return nil, err
	}
	out := &tagsOutput{Tags: []tag{}}
	for _, k := range slices.Sorted(maps.Keys(t.Tags)) {
		if !strings.HasPrefix(k, hidden) {
			out.Tags = append(out.Tags, tag{k, t.Tags[k]})
		}
	}
	return out, nil
}

type attribute struct {
	DataType    string
	StringValue string
	BinaryValue []byte
}

type publishInput struct {
	TopicArn, TargetArn, PhoneNumber, Message, Subject, MessageStructure string

	MessageGroupId, MessageDeduplicationId string //nolint:revive // the member's name
	MessageAttributes                      map[string]attribute
}

type publishOutput struct{ MessageId, SequenceNumber string } //nolint:revive // the member's name

// publicationOf is a message as the bus takes it.
func publicationOf(c *wire.Call, in *publishInput) (bus.Publication, error) {
	p := bus.Publication{
		Message: []byte(in.Message), Subject: in.Subject, Structured: in.MessageStructure == "json", Group: in.MessageGroupId, Dedup: in.MessageDeduplicationId,
		Trace: c.Caller.Cause.Trace, Parent: c.Caller.Cause.Invocation, Publisher: c.Caller.Cause.Publisher,
	}
	if in.MessageStructure != "" && !p.Structured {
		return p, invalid("MessageStructure Reason: it is json or left out")
	}
	if in.Message == "" {
		return p, invalid("Empty message")
	}
	for name, a := range in.MessageAttributes {
		if p.Attributes == nil {
			p.Attributes = map[string]invocation.Attribute{}
		}
		p.Attributes[name] = invocation.Attribute{Type: a.DataType, Text: a.StringValue, Binary: a.BinaryValue}
	}
	return p, nil
}

func (s *service) publish(ctx context.Context, c *wire.Call, in *publishInput) (*publishOutput, error) {
	if in.PhoneNumber != "" {
		return nil, invalid("PhoneNumber Reason: ebb sends no text messages")
	}
	at := in.TopicArn
	if at == "" {
		at = in.TargetArn
	}
	if at == "" {
		return nil, invalid("TopicArn or TargetArn Reason: no value for required parameter")
	}
	k, err := key(c, at)
	if err != nil {
		return nil, err
	}
	p, err := publicationOf(c, in)
	if err != nil {
		return nil, err
	}
	out, err := s.bus.PublishTopic(ctx, k, p)
	if err != nil {
		return nil, err
	}
	if out[0].Err != nil {
		return nil, out[0].Err
	}
	return &publishOutput{out[0].ID, out[0].Sequence}, nil
}

type batchEntry struct {
	Id, Message, Subject, MessageStructure, MessageGroupId, MessageDeduplicationId string //nolint:revive // the member's name

	MessageAttributes map[string]attribute
}

type batchInput struct {
	TopicArn string
	Entries  []batchEntry `wire:"PublishBatchRequestEntries"`
}

type doneEntry struct{ Id, MessageId, SequenceNumber string } //nolint:revive // the member's name

type failedEntry struct {
	Id, Code, Message string //nolint:revive // the member's name
	SenderFault       bool   `wire:",always"`
}

type batchOutput struct {
	Successful []doneEntry
	Failed     []failedEntry
}

func checkBatch(in *batchInput) error {
	if len(in.Entries) == 0 {
		return wire.Errorf("EmptyBatchRequest", "The batch request doesn't contain any entries.")
	}
	if len(in.Entries) > 10 {
		return wire.Errorf("TooManyEntriesInBatchRequest", "The batch request contains more entries than permissible.")
	}
	seen, size := map[string]bool{}, 0
	for _, e := range in.Entries {
		if e.Id == "" || len(e.Id) > 80 || strings.ContainsFunc(e.Id, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
		}) {
			return wire.Errorf("InvalidBatchEntryId", "The Id of a batch entry in a batch request doesn't abide by the specification.")
		}
		if seen[e.Id] {
			return wire.Errorf("BatchEntryIdsNotDistinct", "Two or more batch entries in the request have the same Id.")
		}
		seen[e.Id] = true
		size += len(e.Message)
	}
	if size > bus.DefaultData {
		return wire.Errorf("BatchRequestTooLong", "The length of all the batch messages put together is more than the limit.")
	}
	return nil
}

func (s *service) publishBatch(ctx context.Context, c *wire.Call, in *batchInput) (*batchOutput, error) {
	k, err := key(c, in.TopicArn)
	if err != nil {
		return nil, err
	}
	if err := checkBatch(in); err != nil {
		return nil, err
	}
	out := &batchOutput{Successful: []doneEntry{}, Failed: []failedEntry{}}
	var all []bus.Publication
	var at []int
	for i, e := range in.Entries {
		p, err := publicationOf(c, &publishInput{
			Message: e.Message, Subject: e.Subject, MessageStructure: e.MessageStructure, MessageGroupId: e.MessageGroupId, MessageDeduplicationId: e.MessageDeduplicationId,
			MessageAttributes: e.MessageAttributes,
		})
		if err != nil {
			out.Failed = append(out.Failed, failureOf(c, e.Id, err))
			continue
		}
		all, at = append(all, p), append(at, i)
	}
	noted, err := s.bus.PublishTopic(ctx, k, all...)
	if err != nil {
		return nil, err
	}
	for n, v := range noted {
		id := in.Entries[at[n]].Id
		if v.Err != nil {
			out.Failed = append(out.Failed, failureOf(c, id, v.Err))
		} else {
			out.Successful = append(out.Successful, doneEntry{id, v.ID, v.Sequence})
		}
	}
	return out, nil
}

func failureOf(c *wire.Call, id string, err error) failedEntry {
	var e *wire.Error
	if !errors.As(err, &e) {
		if e = translate(c, err); e == nil {
			e = wire.Errorf("InternalError", "We encountered an internal error. Please try again.").With(500)
		}
	}
	return failedEntry{Id: id, Code: e.Code, Message: e.Message, SenderFault: e.Status < 500}
}
