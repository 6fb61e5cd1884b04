package sqs

import (
	"context"
	"crypto/md5" //nolint:gosec // the digest that clients compute
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/wire"
)

type attribute struct {
	DataType    string
	StringValue *string
	BinaryValue []byte
}

// sending is a message as SendMessage and the entries of SendMessageBatch have it.
type sending struct {
	MessageBody             string
	DelaySeconds            *int
	MessageAttributes       map[string]attribute
	MessageSystemAttributes map[string]attribute
	MessageDeduplicationId  *string //nolint:revive // the member's name
	MessageGroupId          *string //nolint:revive // the member's name
}

type sendMessageInput struct {
	QueueUrl                string //nolint:revive // the member's name
	MessageBody             string
	DelaySeconds            *int
	MessageAttributes       map[string]attribute
	MessageSystemAttributes map[string]attribute
	MessageDeduplicationId  *string //nolint:revive // the member's name
	MessageGroupId          *string //nolint:revive // the member's name
}

type sendMessageOutput struct {
	MD5OfMessageBody, MD5OfMessageAttributes, MD5OfMessageSystemAttributes, MessageId, SequenceNumber string //nolint:revive // the member's name
}

func (s *service) sendMessage(ctx context.Context, c *wire.Call, in *sendMessageInput) (*sendMessageOutput, error) {
	st, err := s.spec(ctx, c, in.QueueUrl)
	if err != nil {
		return nil, err
	}
	m, err := messageOf(c, st, &sending{in.MessageBody, in.DelaySeconds, in.MessageAttributes, in.MessageSystemAttributes, in.MessageDeduplicationId, in.MessageGroupId})
	if err != nil {
		return nil, err
	}
	sent, err := s.bus.Send(ctx, st.Key(), []bus.Message{*m})
	if err != nil {
		return nil, err
	}
	if sent[0].Err != nil {
		return nil, sendError(st, m, sent[0].Err)
	}
	return &sendMessageOutput{
		MD5OfMessageBody: digest([]byte(in.MessageBody)), MD5OfMessageAttributes: attributesDigest(m.Attributes), MD5OfMessageSystemAttributes: systemDigest(in.MessageSystemAttributes),
		MessageId: sent[0].ID, SequenceNumber: sent[0].Sequence,
	}, nil
}

// spec gives a queue's settings.
func (s *service) spec(ctx context.Context, c *wire.Call, queue string) (*bus.Queue, error) {
	k, err := key(c, queue)
	if err != nil {
		return nil, err
	}
	return s.bus.QueueSettings(ctx, k)
}

func sendError(q *bus.Queue, m *bus.Message, err error) error {
	if errs.CodeOf(err) == errs.TooLarge {
		size := bus.DefaultData
		if q.MaxSize > 0 {
			size = q.MaxSize
		}
		return wire.Errorf("InvalidParameterValue", "One or more parameters are invalid. Reason: Message must be shorter than %d bytes.", size)
	}
	return err
}

// messageOf checks a message in the order and words of AWS.
func messageOf(c *wire.Call, q *bus.Queue, in *sending) (*bus.Message, error) {
	text := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	m := &bus.Message{Body: []byte(in.MessageBody), Group: text(in.MessageGroupId), Dedup: text(in.MessageDeduplicationId), Sender: c.Caller.UserID}
	cause := c.Caller.Cause
	m.Trace, m.Parent, m.Publisher = cause.Trace, cause.Invocation, cause.Publisher
	if cause.Invocation != "" {
		m.Hops = cause.Hops + 1
	}
	if err := checkBody(in.MessageBody); err != nil {
		return nil, err
	}
	if err := checkOrder(q, in, m); err != nil {
		return nil, err
	}
	if in.DelaySeconds != nil {
		n := *in.DelaySeconds
		if n < 0 || n > 900 {
			return nil, invalid(n, "DelaySeconds", "DelaySeconds must be >= 0 and <= 900.")
		}
		if q.FIFO && n != 0 {
			return nil, invalid(n, "DelaySeconds", "The request include parameter that is not valid for this queue type.")
		}
		if !q.FIFO {
			d := time.Duration(n) * time.Second
			m.Delay = &d
		}
	}
	var err error
	if m.Attributes, err = attributesIn(in.MessageAttributes); err != nil {
		return nil, err
	}
	for name, a := range in.MessageSystemAttributes {
		if name != "AWSTraceHeader" || a.DataType != "String" || a.StringValue == nil {
			return nil, wire.Errorf("InvalidParameterValue", "Message system attribute name '%s' is not one that can be sent: AWSTraceHeader of type String.", name)
		}
		m.Trace = *a.StringValue
	}
	return m, nil
}

// checkOrder checks what FIFO queues want and others do not take.
func checkOrder(q *bus.Queue, in *sending, m *bus.Message) error {
	const id = "can only include alphanumeric and punctuation characters. 1 to 128 in length"
	if in.MessageGroupId != nil && !plainID(m.Group) {
		return invalid(m.Group, "MessageGroupId", "MessageGroupId "+id+".")
	}
	if in.MessageDeduplicationId != nil && !plainID(m.Dedup) {
		return invalid(m.Dedup, "MessageDeduplicationId", "MessageDeduplicationId "+id+".")
	}
	if !q.FIFO {
		if m.Dedup != "" {
			return invalid(m.Dedup, "MessageDeduplicationId", "The request include parameter that is not valid for this queue type.")
		}
		return nil
	}
	if m.Group == "" {
		return missing("MessageGroupId")
	}
	if m.Dedup == "" && !q.ContentDedup {
		return wire.Errorf("InvalidParameterValue", "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly")
	}
	return nil
}

func plainID(s string) bool {
	if s == "" || len(s) > 128 {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

func checkBody(s string) error {
	if s == "" {
		return missing("MessageBody")
	}
	if !validText(s) {
		return wire.Errorf("InvalidMessageContents", "Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF.")
	}
	return nil
}

func validText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xFFFE || r == 0xFFFF
	})
}

func attributesIn(in map[string]attribute) (map[string]invocation.Attribute, error) {
	if len(in) == 0 {
		return nil, nil
	}
	if len(in) > 10 {
		return nil, wire.Errorf("InvalidParameterValue", "Number of message attributes [%d] exceeds the allowed maximum [10].", len(in))
	}
	out := make(map[string]invocation.Attribute, len(in))
	for _, name := range slices.Sorted(maps.Keys(in)) {
		a := in[name]
		bad := func(why string) error {
			return wire.Errorf("InvalidParameterValue", "The message attribute '%s' %s", name, why)
		}
		low := strings.ToLower(name)
		if !attributeName(name) || strings.HasPrefix(low, "aws.") || strings.HasPrefix(low, "amazon.") {
			return nil, wire.Errorf("InvalidParameterValue", "Message attribute name '%s' is invalid: letters, digits, - _ and single dots within are allowed, and neither AWS. nor Amazon. at its beginning.", name)
		}
		kind, _, _ := strings.Cut(a.DataType, ".")
		v := invocation.Attribute{Type: a.DataType}
		switch {
		case a.DataType == "":
			return nil, bad("must contain a non-empty message attribute type.")
		case kind == "String" || kind == "Number":
			if a.StringValue == nil || *a.StringValue == "" {
				return nil, bad("must contain a non-empty message attribute value for message attribute type '" + kind + "'.")
			}
			if v.Text = *a.StringValue; !validText(v.Text) {
				return nil, bad("contains characters that are not allowed.")
			}
			if _, err := strconv.ParseFloat(v.Text, 64); kind == "Number" && err != nil {
				return nil, bad("value is not a number: Can't cast the value of message (user) attribute '" + name + "' to a number.")
			}
		case kind == "Binary":
			if len(a.BinaryValue) == 0 {
				return nil, bad("must contain a non-empty message attribute value for message attribute type 'Binary'.")
			}
			v.Binary = a.BinaryValue
		default:
			return nil, bad("has an invalid message attribute type, the set of supported type prefixes is Binary, Number, and String.")
		}
		out[name] = v
	}
	return out, nil
}

func attributeName(s string) bool {
	if s == "" || len(s) > 256 || s[0] == '.' || s[len(s)-1] == '.' || strings.Contains(s, "..") {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
	})
}

func digest(data []byte) string {
	sum := md5.Sum(data) //nolint:gosec // as above
	return hex.EncodeToString(sum[:])
}

// attributesDigest is that of AWS's developer guide, "Calculating the MD5 message digest for message attributes".
func attributesDigest(attributes map[string]invocation.Attribute) string {
	if len(attributes) == 0 {
		return ""
	}
	var b []byte
	add := func(data []byte) {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(data))), data...)
	}
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		a := attributes[name]
		add([]byte(name))
		add([]byte(a.Type))
		if strings.HasPrefix(a.Type, "Binary") {
			b = append(b, 2)
			add(a.Binary)
		} else {
			b = append(b, 1)
			add([]byte(a.Text))
		}
	}
	return digest(b)
}

func systemDigest(in map[string]attribute) string {
	out := map[string]invocation.Attribute{}
	for name, a := range in {
		if a.StringValue != nil {
			out[name] = invocation.Attribute{Type: a.DataType, Text: *a.StringValue}
		}
	}
	return attributesDigest(out)
}

type receiveMessageInput struct {
	QueueUrl                    string //nolint:revive // the member's name
	AttributeNames              []string
	MessageSystemAttributeNames []string
	MessageAttributeNames       []string
	MaxNumberOfMessages         *int
	VisibilityTimeout           *int
	WaitTimeSeconds             *int
}

type message struct {
	MessageId, ReceiptHandle, MD5OfBody string //nolint:revive // the member's name
	Body                                string
	Attributes                          map[string]string
	MD5OfMessageAttributes              string
	MessageAttributes                   map[string]attribute
}

type receiveMessageOutput struct{ Messages []message }

func (s *service) receiveMessage(ctx context.Context, c *wire.Call, in *receiveMessageInput) (*receiveMessageOutput, error) {
	k, err := key(c, in.QueueUrl)
	if err != nil {
		return nil, err
	}
	r := bus.Receive{Max: 1}
	if in.MaxNumberOfMessages != nil {
		if r.Max = *in.MaxNumberOfMessages; r.Max < 1 || r.Max > 10 {
			return nil, invalid(r.Max, "MaxNumberOfMessages", "Must be between 1 and 10, if provided.")
		}
	}
	if in.WaitTimeSeconds != nil {
		n := *in.WaitTimeSeconds
		if n < 0 || n > 20 {
			return nil, invalid(n, "WaitTimeSeconds", "Must be >= 0 and <= 20, if provided.")
		}
		d := time.Duration(n) * time.Second
		r.Wait = &d
	}
	if in.VisibilityTimeout != nil {
		d, err := visibility(*in.VisibilityTimeout)
		if err != nil {
			return nil, err
		}
		r.Visibility = &d
	}
	for _, name := range slices.Concat(in.AttributeNames, in.MessageSystemAttributeNames) {
		if name != "All" && !slices.Contains(systemAttributes, name) && !isQueueAttribute(name) {
			return nil, wire.Errorf("InvalidAttributeName", "Unknown Attribute %s.", name)
		}
	}
	got, err := s.bus.Receive(ctx, k, r)
	if err != nil {
		if ctx.Err() != nil { // nobody reads the answer
			return nil, wire.Errorf("RequestTimeout", "The client has left.").With(400)
		}
		return nil, err
	}
	out := &receiveMessageOutput{}
	for i := range got {
		out.Messages = append(out.Messages, messageOut(c, &got[i], in))
	}
	return out, nil
}

func visibility(n int) (time.Duration, error) {
	if n < 0 || n > 43200 {
		return 0, invalid(n, "VisibilityTimeout", "VisibilityTimeout must be an integer between 0 and 43200")
	}
	return time.Duration(n) * time.Second, nil
}

var systemAttributes = []string{
	"SenderId", "SentTimestamp", "ApproximateReceiveCount", "ApproximateFirstReceiveTimestamp", "SequenceNumber", "MessageDeduplicationId", "MessageGroupId",
	"AWSTraceHeader", "DeadLetterQueueSourceArn",
}

func messageOut(c *wire.Call, m *bus.Received, in *receiveMessageInput) message {
	out := message{MessageId: m.ID, ReceiptHandle: m.Receipt, MD5OfBody: digest(m.Body), Body: string(m.Body)}
	system := map[string]string{
		"SenderId": m.Sender, "SentTimestamp": millis(m.Sent), "ApproximateReceiveCount": strconv.Itoa(m.Receives), "ApproximateFirstReceiveTimestamp": millis(m.FirstReceived),
		"SequenceNumber": m.Sequence, "MessageDeduplicationId": m.Dedup, "MessageGroupId": m.Group,
	}
	if strings.HasPrefix(m.Trace, "Root=") {
		system["AWSTraceHeader"] = m.Trace
	}
	if m.DeadFrom != "" {
		system["DeadLetterQueueSourceArn"] = arnOf(c, nameOf(m.DeadFrom))
	}
	if m.Sender == "" {
		system["SenderId"] = c.Caller.Account
	}
	asked := slices.Concat(in.AttributeNames, in.MessageSystemAttributeNames)
	for name, v := range system {
		if v != "" && (slices.Contains(asked, "All") || slices.Contains(asked, name)) {
			if out.Attributes == nil {
				out.Attributes = map[string]string{}
			}
			out.Attributes[name] = v
		}
	}
	given := map[string]invocation.Attribute{}
	for name, a := range m.Attributes {
		if slices.ContainsFunc(in.MessageAttributeNames, func(want string) bool { return matches(want, name) }) {
			given[name] = a
		}
	}
	if len(given) == 0 {
		return out
	}
	out.MD5OfMessageAttributes, out.MessageAttributes = attributesDigest(given), map[string]attribute{}
	for name, a := range given {
		v := attribute{DataType: a.Type, BinaryValue: a.Binary}
		if !strings.HasPrefix(a.Type, "Binary") {
			v.StringValue, v.BinaryValue = &a.Text, nil
		}
		out.MessageAttributes[name] = v
	}
	return out
}

// matches says whether a name of MessageAttributeNames means an attribute.
func matches(want, name string) bool {
	if want == "All" || want == ".*" || want == name {
		return true
	}
	prefix, ok := strings.CutSuffix(want, ".*")
	return ok && strings.HasPrefix(name, prefix)
}

func millis(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return fmt.Sprint(t.UnixMilli())
}

type receiptInput struct{ QueueUrl, ReceiptHandle string } //nolint:revive // the member's name

func (s *service) deleteMessage(ctx context.Context, c *wire.Call, in *receiptInput) (*none, error) {
	k, err := key(c, in.QueueUrl)
	if err != nil {
		return nil, err
	}
	return nil, receiptError(c, in.ReceiptHandle, s.bus.DeleteMessages(ctx, k, []string{in.ReceiptHandle})[0])
}

// receiptError tells of an error that concerns a receipt.
func receiptError(c *wire.Call, receipt string, err error) error {
	switch errs.CodeOf(err) {
	case errs.Invalid:
		return wire.Errorf("ReceiptHandleIsInvalid", "The input receipt handle \"%s\" is not a valid receipt handle.", clip(receipt)).With(404)
	case errs.Conflict:
		return invalid(clip(receipt), "ReceiptHandle", "The receipt handle has expired.")
	}
	return err
}

func clip(s string) string {
	if len(s) > 120 {
		return strings.ToValidUTF8(s[:120], "")
	}
	return s
}

type visibilityInput struct {
	QueueUrl, ReceiptHandle string //nolint:revive // the member's name
	VisibilityTimeout       *int
}

func (s *service) changeMessageVisibility(ctx context.Context, c *wire.Call, in *visibilityInput) (*none, error) {
	k, err := key(c, in.QueueUrl)
	if err != nil {
		return nil, err
	}
	d, err := visibility(*in.VisibilityTimeout)
	if err != nil {
		return nil, err
	}
	return nil, visibilityError(c, in.ReceiptHandle, s.bus.ChangeVisibility(ctx, k, []bus.VisibilityChange{{Receipt: in.ReceiptHandle, Visibility: d}})[0])
}

func visibilityError(c *wire.Call, receipt string, err error) error {
	code := errs.CodeOf(err)
	if code == errs.Conflict || code == errs.NotFound && !strings.Contains(err.Error(), "no queue") {
		return invalid(clip(receipt), "ReceiptHandle", "Message does not exist or is not available for visibility timeout change.")
	}
	return receiptError(c, receipt, err)
}
