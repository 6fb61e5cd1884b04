package lambda

import (
	"crypto/md5" // SQS's own check sums of bodies and attributes
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ebb-run/ebb/internal/arn"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
)

// batch is the translation of one Batch at work.
type batch struct {
	*invocation.Batch
	unit *guest.Unit
}

// appendBatch appends the event that a Batch is for a handler, in the form that its source has on AWS, or the Batch's Input where it has one.
// An event over 6 MB is errs.TooLarge: with fewer Items it may fit.
func appendBatch(dst []byte, u *guest.Unit, in *invocation.Batch) ([]byte, error) {
	if in.Input != nil {
		return appendRaw(dst, in.Input)
	}
	one := in.Via != invocation.ViaQueue && in.Via != invocation.ViaStream && in.Via != invocation.ViaTable
	if n := len(in.Items); n == 0 || one && n > 1 {
		return dst, errs.New(errs.Internal, "a batch of %d items via a %s", n, in.Via)
	}
	start := len(dst)
	b := batch{in, u}
	if !b.listed() {
		dst, err := b.item(dst, 0)
		if n := len(dst) - start; err == nil && n > maxEvent {
			err = tooLarge(n)
		}
		return dst, err
	}
	dst = append(dst, `{"Records":[`...)
	for i := range b.Items {
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = b.item(dst, i); err != nil {
			return dst, fmt.Errorf("item %d: %w", i, err)
		}
		if n := len(dst) - start + len(`]}`); n > maxEvent {
			return dst, tooLarge(n)
		}
	}
	return append(dst, `]}`...), nil
}

// Record appends one element of the event's Records; of rules and schedules, which have none, the event.
func (p *Protocol) Record(dst []byte, u *guest.Unit, b *invocation.Batch, i int) ([]byte, error) {
	if i < 0 || i >= len(b.Items) {
		return dst, errs.New(errs.Internal, "item %d of %d", i, len(b.Items))
	}
	return batch{b, u}.item(dst, i)
}

// listed says whether the source gives its events as Records.
func (b batch) listed() bool { return b.Via != invocation.ViaEvent && b.Via != invocation.ViaSchedule }

// item appends one Item.
func (b batch) item(dst []byte, i int) ([]byte, error) {
	it := &b.Items[i]
	switch b.Via {
	case invocation.ViaEvent:
		return event.Envelope(dst, it.Event, b.unit.Account, b.unit.Region), nil
	case invocation.ViaSchedule:
		return b.schedule(dst, it), nil
	case invocation.ViaTopic:
		return b.notification(dst, it), nil
	case invocation.ViaBucket:
		return b.object(dst, it)
	case invocation.ViaQueue:
		return b.message(dst, it), nil
	case invocation.ViaStream:
		return b.record(dst, it), nil
	case invocation.ViaTable:
		return b.change(dst, it)
	}
	return dst, errs.New(errs.Internal, "a batch via %q", b.Via)
}

// arn names something of the function's own region and account.
func (b batch) arn(service, resource string) string {
	return arn.New(service, b.unit.Region, b.unit.Account, resource).String()
}

// arrived is when the Item came.
func arrived(it *invocation.Item) time.Time {
	if !it.Arrived.IsZero() {
		return it.Arrived
	}
	if !it.Event.Time.IsZero() {
		return it.Event.Time
	}
	return time.Unix(0, 0)
}

// due is the time that a schedule fired for, which may be before the Item came.
func due(it *invocation.Item) time.Time {
	return arrived(&invocation.Item{Event: it.Event})
}

// body is the text of a message. The services take text alone; bytes that are none travel as base64.
func body(e *event.Event) []byte {
	if utf8.Valid(e.Data) {
		return e.Data
	}
	return base64.StdEncoding.AppendEncode(nil, e.Data)
}

// appendBytes appends bytes as a base64 string.
func appendBytes(dst, p []byte) []byte {
	dst = base64.StdEncoding.AppendEncode(append(dst, '"'), p)
	return append(dst, '"')
}

// message appends a record of SQS: Lambda guide, "Using Lambda with Amazon SQS", "Example standard queue message event" and "… FIFO …", and
// SQS API reference, ReceiveMessage, for the attributes.
func (b batch) message(dst []byte, it *invocation.Item) []byte {
	text := body(it.Event)
	dst = appendMember(append(dst, '{'), "messageId", it.Event.ID)
	dst = appendMember(dst, "receiptHandle", it.Receipt)
	dst = appendString(appendKey(dst, "body"), text)
	dst = append(appendKey(dst, "attributes"), '{')
	dst = appendMember(dst, "ApproximateReceiveCount", strconv.Itoa(max(it.Receives, 1)))
	if trace := xray(it.Event.Extension("traceparent")); trace != "" {
		dst = appendMember(dst, "AWSTraceHeader", trace)
	}
	dst = appendMember(dst, "SentTimestamp", millis(arrived(it)))
	sender := it.Sender
	if sender == "" {
		sender = b.unit.Account
	}
	for _, a := range [][2]string{
		{"SequenceNumber", it.Sequence}, {"MessageGroupId", it.Group}, {"SenderId", sender}, {"MessageDeduplicationId", it.Dedup},
	} {
		if a[1] != "" {
			dst = appendMember(dst, a[0], a[1])
		}
	}
	first := it.FirstReceived
	if first.IsZero() {
		first = arrived(it)
	}
	dst = appendMember(dst, "ApproximateFirstReceiveTimestamp", millis(first))
	if it.DeadFrom != "" {
		dst = appendMember(dst, "DeadLetterQueueSourceArn", b.arn("sqs", it.DeadFrom))
	}
	dst = append(dst, '}')
	names := slices.Sorted(maps.Keys(it.Attributes))
	dst = append(appendKey(dst, "messageAttributes"), '{')
	for i, name := range names {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, name), ":{"...)
		if a := it.Attributes[name]; isBinary(a) {
			dst = appendBytes(appendKey(dst, "binaryValue"), a.Binary)
		} else {
			dst = appendMember(dst, "stringValue", a.Text)
		}
		dst = append(dst, `,"stringListValues":[],"binaryListValues":[]`...)
		dst = append(appendMember(dst, "dataType", it.Attributes[name].Type), '}')
	}
	dst = append(dst, '}')
	if len(names) > 0 {
		dst = appendMember(dst, "md5OfMessageAttributes", sumAttributes(names, it.Attributes))
	}
	sum := md5.Sum(text)
	dst = appendMember(dst, "md5OfBody", hex.EncodeToString(sum[:]))
	dst = appendMember(dst, "eventSource", "aws:sqs")
	dst = appendMember(dst, "eventSourceARN", b.arn("sqs", b.Source))
	return append(appendMember(dst, "awsRegion", b.unit.Region), '}')
}

func millis(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }

// isBinary says which of its values an attribute has: "Binary", or that with a name of the sender's own, "Binary.gif".
func isBinary(a invocation.Attribute) bool {
	main, _, _ := strings.Cut(a.Type, ".")
	return main == "Binary"
}

// sumAttributes is the MD5 that SQS gives of a message's attributes, whose names come sorted: SQS developer guide, "Calculating the MD5
// message digest for message attributes".
func sumAttributes(names []string, attrs map[string]invocation.Attribute) string {
	var p []byte
	put := func(s string) {
		p = append(binary.BigEndian.AppendUint32(p, uint32(len(s))), s...)
	}
	for _, name := range names {
		a := attrs[name]
		put(name)
		put(a.Type)
		if isBinary(a) {
			p = append(p, 2)
			put(string(a.Binary))
		} else {
			p = append(p, 1)
			put(a.Text)
		}
	}
	sum := md5.Sum(p)
	return hex.EncodeToString(sum[:])
}

// unsigned stands where SNS has a signature: there is no certificate of AWS here. It is base64, so that what decodes it does.
const unsigned = "dW5zaWduZWQ="

// notification appends a record of SNS: Lambda guide, "Invoking Lambda functions with Amazon SNS notifications".
func (b batch) notification(dst []byte, it *invocation.Item) []byte {
	topic := b.arn("sns", b.Source)
	label := b.Label
	if label == "" { // a subscription always has one, and the same each time
		sum := md5.Sum([]byte(topic + "\n" + b.unit.ARN))
		label = fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:])
	}
	dst = append(dst, `{"EventSource":"aws:sns","EventVersion":"1.0"`...)
	dst = appendMember(dst, "EventSubscriptionArn", topic+":"+label)
	dst = append(appendKey(dst, "Sns"), `{"Type":"Notification"`...)
	dst = appendMember(dst, "MessageId", it.Event.ID)
	dst = appendMember(dst, "TopicArn", topic)
	if s := it.Event.Subject; s != "" {
		dst = appendMember(dst, "Subject", s)
	} else {
		dst = appendNull(dst, "Subject")
	}
	dst = appendString(appendKey(dst, "Message"), body(it.Event))
	dst = appendMember(dst, "Timestamp", arrived(it).UTC().Format("2006-01-02T15:04:05.000Z"))
	dst = b.unsigned(dst, topic, label, "SigningCertUrl", "UnsubscribeUrl")
	return append(topicAttributes(dst, it.Attributes), `}}`...)
}

// schedule appends the event of a scheduled rule (EventBridge user guide, "Creating a rule that runs on a schedule"), or that of a schedule
// in a group, whose detail is a string: EventBridge Scheduler gives it where a target has no input of its own.
func (b batch) schedule(dst []byte, it *invocation.Item) []byte {
	e := event.Event{
		ID: it.Event.ID, Time: due(it), Type: "Scheduled Event", Source: "aws.events",
		DataContentType: "application/json", Data: []byte("{}"),
	}
	resource := b.arn("events", "rule/"+b.Source)
	if b.Group != "" {
		e.Source, e.Data = "aws.scheduler", []byte(`"{}"`)
		resource = b.arn("scheduler", "schedule/"+b.Group+"/"+b.Source)
	}
	event.SetResources(&e, []string{resource})
	return event.Envelope(dst, &e, b.unit.Account, b.unit.Region)
}
