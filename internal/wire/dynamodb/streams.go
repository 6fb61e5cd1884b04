package dynamodb

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire"
)

// streamShard is the one shard that a stream has here.
const streamShard = "shardId-00000000000000000000-00000001"

// iteratorLife is how long an iterator is good for: DynamoDB Streams, "GetShardIterator".
const iteratorLife = 15 * time.Minute

// maxRecords is how many records one answer has: DynamoDB Streams, "GetRecords".
const maxRecords = 1000

// streams is the API of DynamoDB Streams over the records of tables.
type streams struct{ *service }

// NewStreams returns the service that reads the streams of tables.
func NewStreams(tables store.Tables) *wire.Service {
	s := &streams{&service{tables: tables, now: time.Now}}
	arn := field{"StreamArn", &rule{kind: text, notNull: true}}
	limited := field{"Limit", atLeast(integer, 1)}
	w := &wire.Service{Name: "dynamodbstreams", TypePrefix: ofModel, Operations: map[string]wire.Operation{}, Render: renderError, Translate: translate, Prepare: prepareCall}
	w.Operations["ListStreams"] = operation([]field{{"TableName", &rule{kind: text, pattern: names}}, limited, {"ExclusiveStartStreamArn", anyText}}, s.list)
	w.Operations["DescribeStream"] = operation([]field{arn, limited, {"ExclusiveStartShardId", anyText}}, s.describe)
	w.Operations["GetShardIterator"] = operation([]field{arn, {"ShardId", &rule{kind: text, notNull: true}},
		{"ShardIteratorType", &rule{kind: text, notNull: true, enum: []string{"AT_SEQUENCE_NUMBER", "TRIM_HORIZON", "AFTER_SEQUENCE_NUMBER", "LATEST"}}}, {"SequenceNumber", anyText}}, s.iterator)
	w.Operations["GetRecords"] = operation([]field{{"ShardIterator", &rule{kind: text, notNull: true}}, limited}, s.records)
	return w
}

// sequence is a sequence number as clients see it: digits that order as numbers do.
func sequence(seq uint64) string { return fmt.Sprintf("%021d", seq) }

func (s *streams) list(ctx context.Context, c *call) ([]byte, error) {
	limit := int64(100)
	if n, ok := c.n.num("Limit"); ok {
		limit = min(n, 100)
	}
	all, err := s.tables.List(ctx, c.tenant())
	if err != nil {
		return nil, err
	}
	list := []object{}
	out := object{}
	for _, t := range all {
		arn := c.arn(t.Name) + "/stream/" + t.Label
		if only := c.n.str("TableName"); t.Label == "" || only != "" && only != t.Name || arn <= c.n.str("ExclusiveStartStreamArn") {
			continue
		}
		if int64(len(list)) == limit {
			out["LastEvaluatedStreamArn"] = list[len(list)-1]["StreamArn"]
			break
		}
		list = append(list, object{"StreamArn": arn, "TableName": t.Name, "StreamLabel": t.Label})
	}
	out["Streams"] = list
	return described(out)
}

// streamTable finds the table that the ARN of a stream means. Any label means the stream that the table has.
func (s *streams) streamTable(ctx context.Context, c *call, arn string) (store.Table, error) {
	_, rest, _ := strings.Cut(arn, ":table/")
	name, _, ok := strings.Cut(rest, "/stream/")
	if !ok {
		return store.Table{}, fail("Invalid StreamArn")
	}
	t, err := s.tables.Table(ctx, c.tenant(), name)
	if errs.CodeOf(err) == errs.NotFound || err == nil && t.Label == "" {
		return t, wire.Errorf("ResourceNotFoundException", "Requested resource not found: Stream: %s not found", arn)
	}
	return t, err
}

func (s *streams) describe(ctx context.Context, c *call) ([]byte, error) {
	t, err := s.streamTable(ctx, c, c.n.str("StreamArn"))
	if err != nil {
		return nil, err
	}
	shards := []object{}
	if c.n.str("ExclusiveStartShardId") < streamShard {
		shards = append(shards, object{"ShardId": streamShard, "SequenceNumberRange": object{"StartingSequenceNumber": sequence(0)}})
	}
	status := "ENABLED"
	if t.View == "" {
		status = "DISABLED"
	}
	d := object{"StreamArn": c.arn(t.Name) + "/stream/" + t.Label, "StreamLabel": t.Label, "StreamStatus": status, "StreamViewType": string(t.View), "TableName": t.Name,
		"CreationRequestDateTime": seconds(t.Made), "KeySchema": keyElements(t.Key), "Shards": shards}
	if t.View == "" {
		delete(d, "StreamViewType")
	}
	return described(object{"StreamDescription": d})
}

// place is where an iterator stands: behind a sequence number of a table's stream.
type place struct {
	Table, ID string
	After     uint64
	Made      int64
}

func (p place) String() string {
	raw, _ := json.Marshal(p) // of texts and numbers alone
	return base64.RawURLEncoding.EncodeToString(raw)
}

// placeIn reads an iterator.
func placeIn(iterator string) (p place, ok bool) {
	raw, err := base64.RawURLEncoding.DecodeString(iterator)
	return p, err == nil && json.Unmarshal(raw, &p) == nil && p.After <= math.MaxInt64
}

func (s *streams) iterator(ctx context.Context, c *call) ([]byte, error) {
	t, err := s.streamTable(ctx, c, c.n.str("StreamArn"))
	if err != nil {
		return nil, err
	}
	if c.n.str("ShardId") != streamShard {
		return nil, wire.Errorf("ResourceNotFoundException", "Requested resource not found: Shard does not exist")
	}
	p := place{Table: t.Name, ID: t.ID, Made: s.now().Unix()}
	switch kind := c.n.str("ShardIteratorType"); kind {
	case "LATEST":
		if p.After, err = s.tables.Last(ctx, c.tenant(), t.Name); err != nil {
			return nil, err
		}
	case "AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER":
		n, err := strconv.ParseUint(c.n.str("SequenceNumber"), 10, 63)
		if err != nil {
			return nil, fail("Invalid SequenceNumber")
		}
		if p.After = n; kind == "AT_SEQUENCE_NUMBER" && n > 0 {
			p.After--
		}
	}
	return described(object{"ShardIterator": p.String()})
}

func (s *streams) records(ctx context.Context, c *call) ([]byte, error) {
	p, ok := placeIn(c.n.str("ShardIterator"))
	if !ok {
		return nil, fail("Invalid ShardIterator")
	}
	if s.now().Sub(time.Unix(p.Made, 0)) > iteratorLife {
		return nil, wire.Errorf("ExpiredIteratorException", "Shard iterator has expired")
	}
	t, err := s.tables.Table(ctx, c.tenant(), p.Table)
	if errs.CodeOf(err) == errs.NotFound || err == nil && t.ID != p.ID {
		return nil, wire.Errorf("ResourceNotFoundException", "Requested resource not found")
	}
	if err != nil {
		return nil, err
	}
	limit := int64(maxRecords)
	if n, ok := c.n.num("Limit"); ok {
		limit = min(n, maxRecords)
	}
	got, err := s.tables.Records(ctx, c.tenant(), p.Table, p.After, int(limit))
	if err != nil {
		return nil, err
	}
	b := []byte(`{"Records":[`)
	for i := range got {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendRecord(b, &got[i], &t, c.Region)
		p.After = got[i].Seq
		if len(b) > pageBytes {
			break
		}
	}
	p.Made = s.now().Unix()
	b = append(b, ']')
	if t.View != "" || len(got) > 0 {
		b = quote(append(b, `,"NextShardIterator":`...), p.String())
	}
	return append(b, '}'), nil
}

func appendRecord(b []byte, r *store.Record, t *store.Table, region string) []byte {
	b = quote(append(b, `{"eventID":`...), EventID(t, r))
	b = quote(append(b, `,"eventName":`...), string(r.Op))
	b = quote(append(b, `,"eventVersion":"1.1","eventSource":"aws:dynamodb","awsRegion":`...), region)
	b = strconv.AppendInt(append(b, `,"dynamodb":{"ApproximateCreationDateTime":`...), r.At.Unix(), 10)
	b = appendItem(append(b, `,"Keys":`...), r.Key)
	size := r.Key.Size()
	for name, it := range map[string]store.Item{"NewImage": r.New, "OldImage": r.Old} {
		if it != nil {
			b = appendItem(append(quote(append(b, ','), name), ':'), it)
			size += it.Size()
		}
	}
	b = quote(append(b, `,"SequenceNumber":`...), sequence(r.Seq))
	b = strconv.AppendInt(append(b, `,"SizeBytes":`...), int64(size), 10)
	b = append(quote(append(b, `,"StreamViewType":`...), string(t.View)), '}')
	if r.Expired {
		b = append(b, `,"userIdentity":{"Type":"Service","PrincipalId":"dynamodb.amazonaws.com"}`...)
	}
	return append(b, '}')
}
