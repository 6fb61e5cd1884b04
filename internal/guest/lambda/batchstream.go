package lambda

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/ebb-run/ebb/internal/arn"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
)

// object appends a record of S3, which the Event's data are: S3 user guide, "Event message structure".
func (b batch) object(dst []byte, it *invocation.Item) ([]byte, error) {
	if d := it.Event.Data; len(d) == 0 || d[0] != '{' || !json.Valid(d) {
		return dst, errs.New(errs.Invalid, "the event %s is not the record of a bucket's notification", it.Event.ID)
	}
	return append(dst, it.Event.Data...), nil
}

// record appends a record of Kinesis: Lambda guide, "How Lambda processes records from Amazon Kinesis Data Streams", "Example event".
func (b batch) record(dst []byte, it *invocation.Item) []byte {
	dst = append(dst, `{"kinesis":{"kinesisSchemaVersion":"1.0"`...)
	dst = appendMember(dst, "partitionKey", it.Key)
	dst = appendMember(dst, "sequenceNumber", it.Sequence)
	dst = appendBytes(appendKey(dst, "data"), it.Event.Data)
	ms := arrived(it).UnixMilli()
	dst = appendKey(dst, "approximateArrivalTimestamp")
	dst = strconv.AppendFloat(dst, float64(ms)/1000, 'f', -1, 64)
	dst = append(dst, `},"eventSource":"aws:kinesis","eventVersion":"1.0"`...)
	dst = appendMember(dst, "eventID", shardID(b.Shard)+":"+it.Sequence)
	dst = appendMember(dst, "eventName", "aws:kinesis:record")
	dst = appendMember(dst, "invokeIdentityArn", arn.New("iam", "", b.unit.Account, "role/"+b.unit.Function).String())
	dst = appendMember(dst, "awsRegion", b.unit.Region)
	return append(appendMember(dst, "eventSourceARN", b.arn("kinesis", "stream/"+b.Source)), '}')
}

// shardID is how Kinesis calls the shard of a number.
func shardID(s string) string {
	if n, err := strconv.ParseUint(s, 10, 64); err == nil {
		return fmt.Sprintf("shardId-%012d", n)
	}
	return s
}

// change appends a record of a DynamoDB stream: Lambda guide, "Using AWS Lambda with Amazon DynamoDB", "Example event", and the API reference of
// DynamoDB Streams, Record and StreamRecord. The Event's data are an [invocation.Change].
func (b batch) change(dst []byte, it *invocation.Item) ([]byte, error) {
	var c invocation.Change
	if err := json.Unmarshal(it.Event.Data, &c); err != nil || !isObject(c.Keys) {
		return dst, errs.New(errs.Invalid, "the event %s is not the change of a table", it.Event.ID)
	}
	name, err := changeName(it.Event.Type)
	if err != nil {
		return dst, err
	}
	dst = appendMember(append(dst, '{'), "eventID", it.Event.ID)
	dst = appendMember(dst, "eventName", name)
	dst = appendMember(dst, "eventVersion", "1.1")
	dst = appendMember(dst, "eventSource", "aws:dynamodb")
	dst = appendMember(dst, "awsRegion", b.unit.Region)
	dst = append(appendKey(dst, "dynamodb"), '{')
	dst = strconv.AppendInt(appendKey(dst, "ApproximateCreationDateTime"), arrived(it).Unix(), 10)
	size := 0
	for _, image := range []struct {
		key string
		raw json.RawMessage
	}{{"Keys", c.Keys}, {"NewImage", c.NewImage}, {"OldImage", c.OldImage}} {
		if !isObject(image.raw) {
			continue
		}
		dst = append(appendKey(dst, image.key), image.raw...)
		size += itemSize(image.raw)
	}
	dst = appendMember(dst, "SequenceNumber", it.Sequence)
	dst = strconv.AppendInt(appendKey(dst, "SizeBytes"), int64(size), 10)
	view := c.View
	if view == "" {
		view = "NEW_AND_OLD_IMAGES"
	}
	dst = append(appendMember(dst, "StreamViewType", view), '}')
	if c.Expired {
		dst = append(appendKey(dst, "userIdentity"), `{"type":"Service","principalId":"dynamodb.amazonaws.com"}`...)
	}
	return append(appendMember(dst, "eventSourceARN", b.tableARN()), '}'), nil
}

// tableARN names the stream of a table's changes.
func (b batch) tableARN() string {
	label := b.Label
	if label == "" {
		label = "1970-01-01T00:00:00.000"
	}
	return b.arn("dynamodb", "table/"+b.Source+"/stream/"+label)
}

// changeName is what was done to the item.
func changeName(kind string) (string, error) {
	word := strings.ToUpper(kind[strings.LastIndexByte(kind, '.')+1:])
	switch word {
	case "INSERT", "MODIFY", "REMOVE":
		return word, nil
	}
	return "", errs.New(errs.Invalid, "an event of type %q is not the change of a table: the type ends in .insert, .modify or .remove", kind)
}

func isObject(raw json.RawMessage) bool { return len(raw) > 0 && raw[0] == '{' }

// itemSize is the size of an item in bytes: DynamoDB developer guide, "DynamoDB item sizes and formats".
func itemSize(raw json.RawMessage) int {
	var item map[string]json.RawMessage
	if json.Unmarshal(raw, &item) != nil {
		return len(raw)
	}
	n := 0
	for name, v := range item {
		n += len(name) + valueSize(v)
	}
	return n
}

// valueSize is the size of one value: of text its bytes, of a number a byte for every two digits and one more, of a list or map three bytes
// and one for every element beside what these are.
func valueSize(raw json.RawMessage) int {
	var v struct {
		S, N *string
		B    []byte
		SS   []string
		NS   []string
		BS   [][]byte
		L    []json.RawMessage
		M    map[string]json.RawMessage
	}
	if json.Unmarshal(raw, &v) != nil {
		return len(raw)
	}
	n := 0
	switch {
	case v.S != nil:
		return len(*v.S)
	case v.N != nil:
		return numberSize(*v.N)
	case v.L != nil:
		n = 3
		for _, e := range v.L {
			n += 1 + valueSize(e)
		}
	case v.M != nil:
		n = 3
		for name, e := range v.M {
			n += 1 + len(name) + valueSize(e)
		}
	case v.B == nil && v.SS == nil && v.NS == nil && v.BS == nil:
		return 1 // null or boolean
	}
	n += len(v.B)
	for _, s := range v.SS {
		n += len(s)
	}
	for _, s := range v.NS {
		n += numberSize(s)
	}
	for _, p := range v.BS {
		n += len(p)
	}
	return n
}

// numberSize counts the digits between the zeros at both ends; a sign costs a byte.
func numberSize(s string) int {
	sign := 0
	if strings.HasPrefix(s, "-") {
		sign = 1
	}
	s, _, _ = strings.Cut(strings.ToLower(strings.TrimLeft(s, "+-")), "e")
	whole, part, _ := strings.Cut(s, ".")
	digits := strings.Trim(whole+part, "0")
	return (len(digits)+1)/2 + 1 + sign
}
