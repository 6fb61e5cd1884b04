package sqs

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/wire"
)

type createQueueInput struct {
	QueueName  string
	Attributes map[string]string
	Tags       map[string]string
}

type queueURL struct{ QueueUrl string } //nolint:revive // the member's name

func (s *service) createQueue(ctx context.Context, c *wire.Call, in *createQueueInput) (*queueURL, error) {
	q := bus.Queue{Tenant: c.Caller.Tenant, Name: in.QueueName, FIFO: strings.HasSuffix(in.QueueName, ".fifo"), Tags: map[string]string{}}
	if !validName(in.QueueName) {
		return nil, wire.Errorf("InvalidParameterValue", "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length")
	}
	fifo := in.Attributes["FifoQueue"] == "true"
	switch {
	case q.FIFO && !fifo && in.Attributes["FifoQueue"] != "":
		return nil, wire.Errorf("InvalidParameterValue", "The name of a standard queue cannot end in .fifo")
	case fifo && !q.FIFO:
		return nil, wire.Errorf("InvalidParameterValue", "The name of a FIFO queue can only include alphanumeric characters, hyphens, or underscores, must end with .fifo suffix and be 1 to 80 in length")
	case q.FIFO && !fifo:
		return nil, wire.Errorf("InvalidParameterValue", "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length")
	}
	if err := apply(&q, in.Attributes, true); err != nil {
		return nil, err
	}
	for k, v := range in.Tags {
		if !strings.HasPrefix(k, hidden) {
			q.Tags[k] = v
		}
	}
	q.Tags = c.Caller.Mark(q.Tags)
	st, err := s.bus.QueueStatus(ctx, q.Key())
	if err == nil {
		have, want := attributesOf(c, &st), attributesOf(c, &bus.QueueStatus{Queue: q})
		for name := range in.Attributes {
			if have[name] != want[name] {
				return nil, wire.Errorf("QueueNameExists", "A queue already exists with the same name and a different value for attribute %s", name)
			}
		}
		return &queueURL{urlOf(c, q.Name)}, nil
	}
	if errs.CodeOf(err) != errs.NotFound {
		return nil, err
	}
	if err := s.bus.PutQueue(ctx, q); err != nil {
		return nil, err
	}
	return &queueURL{urlOf(c, q.Name)}, nil
}

func validName(name string) bool {
	stem := strings.TrimSuffix(name, ".fifo")
	return len(name) <= 80 && stem != "" && !strings.ContainsFunc(stem, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	})
}

func (s *service) deleteQueue(ctx context.Context, c *wire.Call, in *queueInput) (*none, error) {
	k, err := key(c, in.QueueUrl)
	if err != nil {
		return nil, err
	}
	return nil, s.bus.DeleteQueue(ctx, k)
}

func (s *service) getQueueURL(ctx context.Context, c *wire.Call, in *struct{ QueueName string }) (*queueURL, error) {
	st, err := s.status(ctx, c, in.QueueName)
	if err != nil {
		return nil, err
	}
	return &queueURL{urlOf(c, st.Name)}, nil
}

type listQueuesInput struct {
	QueueNamePrefix, NextToken string
	MaxResults                 *int
}

type listQueuesOutput struct {
	QueueUrls []string //nolint:revive // the member's name
	NextToken string
}

const mostListed = 1000

// page cuts a sorted list of names behind the token.
func page(names []string, token string, limit *int) (list []string, next string, err error) {
	n := mostListed
	if limit != nil {
		if n = *limit; n < 1 || n > mostListed {
			return nil, "", invalid(n, "MaxResults", "Must be between 1 and 1000, if provided.")
		}
	}
	if token != "" {
		after, err := base64.RawURLEncoding.DecodeString(token)
		if err != nil {
			return nil, "", invalid(token, "NextToken", "It is not one that was given.")
		}
		i, found := slices.BinarySearch(names, string(after))
		if found {
			i++
		}
		names = names[i:]
	}
	if len(names) > n {
		names = names[:n]
		if limit != nil {
			next = base64.RawURLEncoding.EncodeToString([]byte(names[n-1]))
		}
	}
	return names, next, nil
}

func (s *service) names(ctx context.Context, c *wire.Call, keep func(*bus.Queue) bool) ([]string, error) {
	if err := s.bus.Sync(ctx); err != nil { // what was put a moment ago is there
		return nil, err
	}
	all, err := s.bus.Queues(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for i := range all {
		tenant, _, _ := strings.Cut(all[i].Key(), "/")
		if tenant == c.Caller.Tenant && keep(&all[i]) {
			names = append(names, all[i].Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

func (s *service) listQueues(ctx context.Context, c *wire.Call, in *listQueuesInput) (*listQueuesOutput, error) {
	names, err := s.names(ctx, c, func(q *bus.Queue) bool { return strings.HasPrefix(q.Name, in.QueueNamePrefix) })
	if err != nil {
		return nil, err
	}
	names, next, err := page(names, in.NextToken, in.MaxResults)
	if err != nil {
		return nil, err
	}
	out := &listQueuesOutput{NextToken: next}
	for _, n := range names {
		out.QueueUrls = append(out.QueueUrls, urlOf(c, n))
	}
	return out, nil
}

type sourcesInput struct {
	QueueUrl, NextToken string //nolint:revive // the member's name
	MaxResults          *int
}

type sourcesOutput struct {
	QueueUrls []string `wire:"queueUrls,always"` //nolint:revive // the member's name
	NextToken string
}

func (s *service) listDeadLetterSourceQueues(ctx context.Context, c *wire.Call, in *sourcesInput) (*sourcesOutput, error) {
	st, err := s.status(ctx, c, in.QueueUrl)
	if err != nil {
		return nil, err
	}
	names, err := s.names(ctx, c, func(q *bus.Queue) bool { return q.DeadLetters != "" && nameOf(q.DeadLetters) == st.Name })
	if err != nil {
		return nil, err
	}
	names, next, err := page(names, in.NextToken, in.MaxResults)
	if err != nil {
		return nil, err
	}
	out := &sourcesOutput{NextToken: next, QueueUrls: []string{}}
	for _, n := range names {
		out.QueueUrls = append(out.QueueUrls, urlOf(c, n))
	}
	return out, nil
}

type attributesInput struct {
	QueueUrl       string //nolint:revive // the member's name
	AttributeNames []string
}

type attributesOutput struct{ Attributes map[string]string }

func (s *service) getQueueAttributes(ctx context.Context, c *wire.Call, in *attributesInput) (*attributesOutput, error) {
	st, err := s.status(ctx, c, in.QueueUrl)
	if err != nil {
		return nil, err
	}
	all := attributesOf(c, &st)
	out := &attributesOutput{}
	for _, name := range in.AttributeNames {
		if name == "All" {
			return &attributesOutput{all}, nil
		}
		if !isQueueAttribute(name) {
			return nil, wire.Errorf("InvalidAttributeName", "Unknown Attribute %s.", name)
		}
		if v, ok := all[name]; ok {
			if out.Attributes == nil {
				out.Attributes = map[string]string{}
			}
			out.Attributes[name] = v
		}
	}
	return out, nil
}

type setAttributesInput struct {
	QueueUrl   string //nolint:revive // the member's name
	Attributes map[string]string
}

// change changes a queue's settings.
func (s *service) change(ctx context.Context, c *wire.Call, queue string, f func(*bus.Queue) error) error {
	st, err := s.status(ctx, c, queue)
	if err != nil {
		return err
	}
	q := st.Queue
	tags := map[string]string{}
	for k, v := range q.Tags {
		tags[k] = v
	}
	q.Tags = tags
	if err := f(&q); err != nil {
		return err
	}
	return s.bus.PutQueue(ctx, q)
}

func (s *service) setQueueAttributes(ctx context.Context, c *wire.Call, in *setAttributesInput) (*none, error) {
	return nil, s.change(ctx, c, in.QueueUrl, func(q *bus.Queue) error { return apply(q, in.Attributes, false) })
}

func (s *service) purgeQueue(ctx context.Context, c *wire.Call, in *queueInput) (*none, error) {
	k, err := key(c, in.QueueUrl)
	if err != nil {
		return nil, err
	}
	return nil, s.bus.PurgeQueue(ctx, k)
}

type tagsOutput struct{ Tags map[string]string }

func (s *service) listQueueTags(ctx context.Context, c *wire.Call, in *queueInput) (*tagsOutput, error) {
	st, err := s.status(ctx, c, in.QueueUrl)
	if err != nil {
		return nil, err
	}
	out := &tagsOutput{}
	for k, v := range st.Tags {
		if strings.HasPrefix(k, hidden) {
			continue
		}
		if out.Tags == nil {
			out.Tags = map[string]string{}
		}
		out.Tags[k] = v
	}
	return out, nil
}

type tagInput struct {
	QueueUrl string //nolint:revive // the member's name
	Tags     map[string]string
}

func (s *service) tagQueue(ctx context.Context, c *wire.Call, in *tagInput) (*none, error) {
	return nil, s.change(ctx, c, in.QueueUrl, func(q *bus.Queue) error {
		n := 0
		for k, v := range in.Tags {
			if strings.HasPrefix(k, hidden) {
				return wire.Errorf("InvalidParameterValue", "Tag keys that begin with %s are ebb's own.", hidden)
			}
			q.Tags[k] = v
		}
		for k := range q.Tags {
			if !strings.HasPrefix(k, hidden) {
				n++
			}
		}
		if n > 50 {
			return wire.Errorf("InvalidParameterValue", "Too many tags added for queue %s.", q.Name)
		}
		return nil
	})
}

type untagInput struct {
	QueueUrl string //nolint:revive // the member's name
	TagKeys  []string
}

func (s *service) untagQueue(ctx context.Context, c *wire.Call, in *untagInput) (*none, error) {
	return nil, s.change(ctx, c, in.QueueUrl, func(q *bus.Queue) error {
		for _, k := range in.TagKeys {
			if !strings.HasPrefix(k, hidden) {
				delete(q.Tags, k)
			}
		}
		return nil
	})
}

// policy is a queue's policy, as far as AddPermission and RemovePermission change it.
type policy struct {
	Version   string           `json:"Version"`
	ID        string           `json:"Id,omitempty"`
	Statement []map[string]any `json:"Statement"`
}

func policyOf(c *wire.Call, q *bus.Queue) policy {
	p := policy{Version: "2008-10-17", ID: arnOf(c, q.Name) + "/SQSDefaultPolicy"}
	if text := q.Tags[attributeTag+"Policy"]; text != "" {
		_ = json.Unmarshal([]byte(text), &p) // what is none is replaced
	}
	return p
}

func (p policy) keep(q *bus.Queue) error {
	if len(p.Statement) == 0 {
		delete(q.Tags, attributeTag+"Policy")
		return nil
	}
	text, err := json.Marshal(p)
	q.Tags[attributeTag+"Policy"] = string(text)
	return err
}

type permissionInput struct {
	QueueUrl, Label        string   //nolint:revive // the member's name
	AWSAccountIds, Actions []string //nolint:revive // the member's name
}

func (s *service) addPermission(ctx context.Context, c *wire.Call, in *permissionInput) (*none, error) {
	return nil, s.change(ctx, c, in.QueueUrl, func(q *bus.Queue) error {
		p := policyOf(c, q)
		var who, what []string
		for _, a := range in.AWSAccountIds {
			who = append(who, "arn:aws:iam::"+a+":root")
		}
		for _, a := range in.Actions {
			what = append(what, "SQS:"+a)
		}
		for _, st := range p.Statement {
			if st["Sid"] == in.Label {
				return invalid(in.Label, "Label", "Already exists.")
			}
		}
		p.Statement = append(p.Statement, map[string]any{"Sid": in.Label, "Effect": "Allow", "Principal": map[string]any{"AWS": who}, "Action": what, "Resource": arnOf(c, q.Name)})
		return p.keep(q)
	})
}

type labelInput struct{ QueueUrl, Label string } //nolint:revive // the member's name

func (s *service) removePermission(ctx context.Context, c *wire.Call, in *labelInput) (*none, error) {
	return nil, s.change(ctx, c, in.QueueUrl, func(q *bus.Queue) error {
		p := policyOf(c, q)
		n := len(p.Statement)
		p.Statement = slices.DeleteFunc(p.Statement, func(st map[string]any) bool { return st["Sid"] == in.Label })
		if len(p.Statement) == n {
			return invalid(in.Label, "Label", "can't find label on existing policy")
		}
		return p.keep(q)
	})
}
