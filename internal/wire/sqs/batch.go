package sqs

import (
	"context"
	"errors"
	"strings"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/wire"
)

const (
	mostEntries   = 10
	mostBatchSize = 1 << 20 // AWS: SendMessageBatch
)

type failure struct {
	Id, Code, Message string //nolint:revive // the member's name
	SenderFault       bool   `wire:",always"`
}

// failureOf is what an entry of a batch answers.
func failureOf(c *wire.Call, id string, err error) failure {
	var e *wire.Error
	if !errors.As(err, &e) {
		if e = translate(c, err); e == nil {
			e = wire.Errorf("InternalFailure", "We encountered an internal error. Please try again.").With(500)
		}
	}
	return failure{Id: id, Code: e.Code, Message: e.Message, SenderFault: e.Status < 500}
}

// checkEntries refuses a batch whose entries cannot be told apart, or are too many.
func checkEntries(kind string, ids []string) error {
	switch {
	case len(ids) == 0:
		return wire.Errorf("EmptyBatchRequest", "There should be at least one %s in the request.", kind)
	case len(ids) > mostEntries:
		return wire.Errorf("TooManyEntriesInBatchRequest", "Maximum number of entries per request are %d. You have sent %d.", mostEntries, len(ids))
	}
	seen := map[string]bool{}
	for _, id := range ids {
		if id == "" || len(id) > 80 || !validName(strings.TrimSuffix(id, ".fifo")) || strings.Contains(id, ".") {
			return wire.Errorf("InvalidBatchEntryId", "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most 80 letters long.")
		}
		if seen[id] {
			return wire.Errorf("BatchEntryIdsNotDistinct", "Id %s repeated.", id)
		}
		seen[id] = true
	}
	return nil
}

func idsOf[E any](entries []E, id func(*E) string) []string {
	var list []string
	for i := range entries {
		list = append(list, id(&entries[i]))
	}
	return list
}

type sendEntry struct {
	Id                      string //nolint:revive // the member's name
	MessageBody             string
	DelaySeconds            *int
	MessageAttributes       map[string]attribute
	MessageSystemAttributes map[string]attribute
	MessageDeduplicationId  *string //nolint:revive // the member's name
	MessageGroupId          *string //nolint:revive // the member's name
}

type sendMessageBatchInput struct {
	QueueUrl string //nolint:revive // the member's name
	Entries  []sendEntry
}

type sentEntry struct {
	Id, MessageId, MD5OfMessageBody, MD5OfMessageAttributes, MD5OfMessageSystemAttributes, SequenceNumber string //nolint:revive // the member's name
}

type sendMessageBatchOutput struct {
	Successful []sentEntry
	Failed     []failure
}

func (s *service) sendMessageBatch(ctx context.Context, c *wire.Call, in *sendMessageBatchInput) (*sendMessageBatchOutput, error) {
	q, err := s.spec(ctx, c, in.QueueUrl)
	if err != nil {
		return nil, err
	}
	if err := checkEntries("SendMessageBatchRequestEntry", idsOf(in.Entries, func(e *sendEntry) string { return e.Id })); err != nil {
		return nil, err
	}
	out := &sendMessageBatchOutput{}
	var msgs []bus.Message
	var at []int
	size := 0
	for i := range in.Entries {
		e := &in.Entries[i]
		m, err := messageOf(c, q, &sending{e.MessageBody, e.DelaySeconds, e.MessageAttributes, e.MessageSystemAttributes, e.MessageDeduplicationId, e.MessageGroupId})
		if err != nil {
			out.Failed = append(out.Failed, failureOf(c, e.Id, err))
			continue
		}
		size += m.Size()
		msgs, at = append(msgs, *m), append(at, i)
	}
	if size > mostBatchSize {
		return nil, wire.Errorf("BatchRequestTooLong", "Batch requests cannot be longer than %d bytes. You have sent %d bytes.", mostBatchSize, size)
	}
	if len(msgs) == 0 {
		return out, nil
	}
	sent, err := s.bus.Send(ctx, q.Key(), msgs)
	if err != nil {
		return nil, err
	}
	for n, v := range sent {
		e := &in.Entries[at[n]]
		if v.Err != nil {
			out.Failed = append(out.Failed, failureOf(c, e.Id, sendError(q, &msgs[n], v.Err)))
			continue
		}
		out.Successful = append(out.Successful, sentEntry{
			Id: e.Id, MessageId: v.ID, MD5OfMessageBody: digest([]byte(e.MessageBody)), MD5OfMessageAttributes: attributesDigest(msgs[n].Attributes),
			MD5OfMessageSystemAttributes: systemDigest(e.MessageSystemAttributes), SequenceNumber: v.Sequence,
		})
	}
	return out, nil
}

type receiptEntry struct{ Id, ReceiptHandle string } //nolint:revive // the member's name

type deleteMessageBatchInput struct {
	QueueUrl string //nolint:revive // the member's name
	Entries  []receiptEntry
}

type doneEntry struct{ Id string } //nolint:revive // the member's name

type batchOutput struct {
	Successful []doneEntry
	Failed     []failure
}

func (o *batchOutput) add(c *wire.Call, id string, err error) {
	if err != nil {
		o.Failed = append(o.Failed, failureOf(c, id, err))
		return
	}
	o.Successful = append(o.Successful, doneEntry{id})
}

func (s *service) deleteMessageBatch(ctx context.Context, c *wire.Call, in *deleteMessageBatchInput) (*batchOutput, error) {
	q, err := s.spec(ctx, c, in.QueueUrl)
	if err != nil {
		return nil, err
	}
	if err := checkEntries("DeleteMessageBatchRequestEntry", idsOf(in.Entries, func(e *receiptEntry) string { return e.Id })); err != nil {
		return nil, err
	}
	receipts := idsOf(in.Entries, func(e *receiptEntry) string { return e.ReceiptHandle })
	out := &batchOutput{}
	for i, err := range s.bus.DeleteMessages(ctx, q.Key(), receipts) {
		out.add(c, in.Entries[i].Id, receiptError(c, receipts[i], err))
	}
	return out, nil
}

type visibilityEntry struct {
	Id, ReceiptHandle string //nolint:revive // the member's name
	VisibilityTimeout *int
}

type visibilityBatchInput struct {
	QueueUrl string //nolint:revive // the member's name
	Entries  []visibilityEntry
}

func (s *service) changeMessageVisibilityBatch(ctx context.Context, c *wire.Call, in *visibilityBatchInput) (*batchOutput, error) {
	q, err := s.spec(ctx, c, in.QueueUrl)
	if err != nil {
		return nil, err
	}
	if err := checkEntries("ChangeMessageVisibilityBatchRequestEntry", idsOf(in.Entries, func(e *visibilityEntry) string { return e.Id })); err != nil {
		return nil, err
	}
	out := &batchOutput{}
	var changes []bus.VisibilityChange
	var at []int
	for i, e := range in.Entries {
		n := 0
		if e.VisibilityTimeout != nil {
			n = *e.VisibilityTimeout
		}
		d, err := visibility(n)
		if err != nil {
			out.add(c, e.Id, err)
			continue
		}
		changes, at = append(changes, bus.VisibilityChange{Receipt: e.ReceiptHandle, Visibility: d}), append(at, i)
	}
	for n, err := range s.bus.ChangeVisibility(ctx, q.Key(), changes) {
		e := in.Entries[at[n]]
		out.add(c, e.Id, visibilityError(c, e.ReceiptHandle, err))
	}
	return out, nil
}
