package lambda

import (
	"maps"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
)

// Notice appends the document that queues and endpoints get of a publication: SNS developer guide, "HTTP/HTTPS notification JSON format" and "Message
// delivery for FIFO topics". The Batch has one Item, and the Label of its Subscription; of the Unit it needs Region and Account.
func (p *Protocol) Notice(dst []byte, u *guest.Unit, in *invocation.Batch) []byte {
	b := batch{in, u}
	it := &b.Items[0]
	topic := b.arn("sns", b.Source)
	dst = append(dst, `{"Type":"Notification"`...)
	dst = appendMember(dst, "MessageId", it.Event.ID)
	if it.Sequence != "" {
		dst = appendMember(dst, "SequenceNumber", it.Sequence)
	}
	dst = appendMember(dst, "TopicArn", topic)
	if s := it.Event.Subject; s != "" {
		dst = appendMember(dst, "Subject", s)
	}
	dst = appendString(appendKey(dst, "Message"), body(it.Event))
	dst = appendMember(dst, "Timestamp", arrived(it).UTC().Format("2006-01-02T15:04:05.000Z"))
	dst = b.unsigned(dst, topic, b.Label, "SigningCertURL", "UnsubscribeURL")
	if len(it.Attributes) > 0 {
		dst = topicAttributes(dst, it.Attributes)
	}
	return append(dst, '}')
}

// unsigned appends what stands where SNS signs; the names of two members differ between handlers and others.
func (b batch) unsigned(dst []byte, topic, label, cert, leave string) []byte {
	dst = appendMember(dst, "SignatureVersion", "1")
	dst = appendMember(dst, "Signature", unsigned)
	host := "https://sns." + b.unit.Region + ".amazonaws.com/"
	dst = appendMember(dst, cert, host+"SimpleNotificationService-0000000000000000000000.pem")
	return appendMember(dst, leave, host+"?Action=Unsubscribe&SubscriptionArn="+topic+":"+label)
}

// topicAttributes appends the attributes of a publication as a member.
func topicAttributes(dst []byte, all map[string]invocation.Attribute) []byte {
	dst = append(appendKey(dst, "MessageAttributes"), '{')
	for i, name := range slices.Sorted(maps.Keys(all)) {
		if i > 0 {
			dst = append(dst, ',')
		}
		a := all[name]
		dst = append(appendString(dst, name), ":{"...)
		dst = appendMember(dst, "Type", a.Type)
		if isBinary(a) {
			dst = appendBytes(appendKey(dst, "Value"), a.Binary)
		} else {
			dst = appendMember(dst, "Value", a.Text)
		}
		dst = append(dst, '}')
	}
	return append(dst, '}')
}

// NoticeHeader gives the header fields of a publication's POST: SNS developer guide, "HTTP/HTTPS headers". raw says that the body is the message alone.
func (p *Protocol) NoticeHeader(u *guest.Unit, in *invocation.Batch, raw bool) map[string]string {
	topic := batch{in, u}.arn("sns", in.Source)
	h := map[string]string{
		"X-Amz-Sns-Message-Type": "Notification", "X-Amz-Sns-Message-Id": in.Items[0].Event.ID, "X-Amz-Sns-Topic-Arn": topic,
		"X-Amz-Sns-Subscription-Arn": topic + ":" + in.Label, "User-Agent": "Amazon Simple Notification Service Agent", "Content-Type": "text/plain; charset=UTF-8",
	}
	if raw {
		h["X-Amz-Sns-Rawdelivery"] = "true"
	}
	return h
}

// maxReason bounds the text of an error in a dead letter: Lambda guide, "Adding a dead-letter queue".
const maxReason = 1 << 10

func reason(e *guest.Ending) string {
	s := e.Error
	if len(s) > maxReason {
		s = s[:maxReason]
		for !utf8.ValidString(s) {
			s = s[:len(s)-1]
		}
	}
	if s == "" { // an attribute has a value
		s = "unknown"
	}
	return s
}

// DeadLetter gives the attributes of the message that a dead letter is: Lambda guide, "Adding a dead-letter queue". What a function failed on has the
// status of an invocation that was answered.
func (p *Protocol) DeadLetter(e guest.Ending) map[string]invocation.Attribute {
	status := map[errs.Code]int{
		errs.NotFound: 404, errs.Forbidden: 403, errs.Invalid: 400, errs.TooLarge: 413, errs.Throttled: 429, errs.Unavailable: 503, errs.Internal: 500, errs.Unsupported: 400,
	}[e.Code]
	if status == 0 {
		status = 200
	}
	return map[string]invocation.Attribute{
		"RequestID": {Type: "String", Text: e.Invocation}, "ErrorCode": {Type: "Number", Text: strconv.Itoa(status)}, "ErrorMessage": {Type: "String", Text: reason(&e)},
	}
}

// RuleDeadLetter gives the attributes of the message that an event is which a rule's target did not take: EventBridge user guide, "Using dead-letter queues
// to process undelivered events".
func (p *Protocol) RuleDeadLetter(rule, target string, e guest.Ending) map[string]invocation.Attribute {
	code, known := map[errs.Code]string{
		errs.NotFound: "RESOURCE_NOT_FOUND", errs.Forbidden: "NO_PERMISSIONS", errs.Throttled: "THROTTLING", errs.Timeout: "TIMEOUT",
		errs.Invalid: "INVALID_PARAMETER", errs.TooLarge: "INVALID_PARAMETER",
	}[e.Code]
	if !known {
		code = "SDK_CLIENT_ERROR"
	}
	out := map[string]invocation.Attribute{
		"RULE_ARN": {Type: "String", Text: rule}, "TARGET_ARN": {Type: "String", Text: target}, "ERROR_CODE": {Type: "String", Text: code}, "ERROR_MESSAGE": {Type: "String", Text: reason(&e)},
		"RETRY_ATTEMPTS": {Type: "Number", Text: strconv.Itoa(max(e.Attempts-1, 0))},
	}
	switch {
	case e.Expired:
		out["EXHAUSTED_RETRY_CONDITION"] = invocation.Attribute{Type: "String", Text: "MaximumEventAgeInSeconds"}
	case e.Spent:
		out["EXHAUSTED_RETRY_CONDITION"] = invocation.Attribute{Type: "String", Text: "MaximumRetryAttempts"}
	}
	return out
}

// Event appends the whole event that a handler gets of a Batch.
func (p *Protocol) Event(dst []byte, u *guest.Unit, b *invocation.Batch) ([]byte, error) {
	return appendBatch(dst, u, b)
}
