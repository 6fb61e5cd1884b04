package kinesis

import (
	"context"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/wire"
)

type putInput struct {
	StreamName, StreamARN, PartitionKey, ExplicitHashKey string
	Data                                                 []byte
}

type putOutput struct{ ShardId, SequenceNumber, EncryptionType string } //nolint:revive // the member's name

func (s *service) put(ctx context.Context, c *wire.Call, in *putInput) (*putOutput, error) {
	key, err := s.key(c, named{in.StreamName, in.StreamARN})
	if err != nil {
		return nil, err
	}
	out, err := s.bus.PutRecords(ctx, key, []bus.Record{{Data: in.Data, Key: in.PartitionKey, HashKey: in.ExplicitHashKey}})
	if err == nil {
		err = out[0].Err
	}
	if err != nil {
		return nil, absent(c, key, err)
	}
	return &putOutput{out[0].Shard, out[0].Sequence, "NONE"}, nil
}

// key names the stream that is meant; whether it is there is for who asks it.
func (s *service) key(c *wire.Call, n named) (string, error) {
	if n.name() == "" || len(n.name()) > len(bus.TableStream) && n.name()[:len(bus.TableStream)] == bus.TableStream {
		return "", missing(c, n.name())
	}
	return c.Caller.Tenant + "/" + n.name(), nil
}

func absent(c *wire.Call, key string, err error) error {
	if errs.CodeOf(err) == errs.NotFound {
		return missing(c, key[len(c.Caller.Tenant)+1:])
	}
	return err
}

type putEntry struct {
	PartitionKey, ExplicitHashKey string
	Data                          []byte
}

type putAllInput struct {
	StreamName, StreamARN string
	Records               []putEntry
}

type putResult struct{ ShardId, SequenceNumber, ErrorCode, ErrorMessage string } //nolint:revive // the member's name

type putAllOutput struct {
	FailedRecordCount int         `wire:",always"`
	Records           []putResult `wire:",always"`
	EncryptionType    string
}

func (s *service) putAll(ctx context.Context, c *wire.Call, in *putAllInput) (*putAllOutput, error) {
	key, err := s.key(c, named{in.StreamName, in.StreamARN})
	if err != nil {
		return nil, err
	}
	records := make([]bus.Record, len(in.Records))
	for i, r := range in.Records {
		records[i] = bus.Record{Data: r.Data, Key: r.PartitionKey, HashKey: r.ExplicitHashKey}
	}
	got, err := s.bus.PutRecords(ctx, key, records)
	if err != nil {
		return nil, absent(c, key, err)
	}
	out := &putAllOutput{EncryptionType: "NONE", Records: make([]putResult, len(got))}
	for i, r := range got {
		switch errs.CodeOf(r.Err) {
		case errs.Invalid, errs.TooLarge: // Kinesis refuses all where one is not a record
			return nil, invalid("Record %d: %v", i+1, r.Err)
		}
		if out.Records[i] = (putResult{ShardId: r.Shard, SequenceNumber: r.Sequence}); r.Err != nil {
			out.Records[i] = putResult{ErrorCode: "InternalFailure", ErrorMessage: "Internal service failure."}
			if errs.CodeOf(r.Err) == errs.Throttled {
				out.Records[i] = putResult{ErrorCode: "ProvisionedThroughputExceededException", ErrorMessage: r.Err.Error()}
			}
			out.FailedRecordCount++
		}
	}
	return out, nil
}

type iteratorInput struct {
	StreamName, StreamARN, ShardId, ShardIteratorType, StartingSequenceNumber string //nolint:revive // the member's name
	Timestamp                                                                 *time.Time
}

type iteratorOutput struct{ ShardIterator string }

func (s *service) iterator(ctx context.Context, c *wire.Call, in *iteratorInput) (*iteratorOutput, error) {
	key, err := s.key(c, named{in.StreamName, in.StreamARN})
	if err != nil {
		return nil, err
	}
	start := bus.Start{From: bus.From(in.ShardIteratorType), Sequence: in.StartingSequenceNumber}
	switch start.From {
	case bus.AtTimestamp:
		if in.Timestamp == nil {
			return nil, invalid("Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP.")
		}
		start.Time = *in.Timestamp
	case bus.AtSequence, bus.AfterSequence:
		if in.StartingSequenceNumber == "" {
			return nil, invalid("Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or (2) TRIM_HORIZON or LATEST and no StartingSequenceNumber.")
		}
	}
	it, err := s.bus.Iterator(ctx, key, in.ShardId, start)
	if err != nil {
		return nil, err
	}
	return &iteratorOutput{it}, nil
}

type recordsInput struct {
	ShardIterator string
	Limit         int
}

type gotRecord struct {
	SequenceNumber, PartitionKey, EncryptionType string
	ApproximateArrivalTimestamp                  time.Time
	Data                                         []byte `wire:",always"`
}

type child struct {
	ShardId      string //nolint:revive // the member's name
	ParentShards []string
	HashKeyRange hashRange
}

type recordsOutput struct {
	Records            []gotRecord `wire:",always"`
	NextShardIterator  string
	MillisBehindLatest int64 `wire:",always"`
	ChildShards        []child
}

func (s *service) records(ctx context.Context, c *wire.Call, in *recordsInput) (*recordsOutput, error) {
	limit := bus.MaxGet
	if in.Limit > 0 {
		limit = in.Limit
	}
	got, err := s.bus.GetRecords(ctx, in.ShardIterator, bus.Get{Records: limit, Bytes: bus.MaxGetBytes})
	if err != nil {
		return nil, err
	}
	if err := c.Allow(ctx, wire.Subject{Action: "kinesis:GetRecords", Resource: c.ARN("kinesis", "stream/"+strings.TrimPrefix(got.Stream, c.Caller.Tenant+"/"))}); err != nil {
		return nil, err
	}
	out := &recordsOutput{Records: []gotRecord{}, NextShardIterator: got.Next, MillisBehindLatest: got.Behind.Milliseconds()}
	for _, r := range got.Records {
		out.Records = append(out.Records, gotRecord{r.Sequence, r.Key, "NONE", r.Arrived, r.Data})
	}
	for _, h := range got.Children {
		out.ChildShards = append(out.ChildShards, child{h.ID, h.Parents, hashRange{h.First, h.Last}})
	}
	return out, nil
}
