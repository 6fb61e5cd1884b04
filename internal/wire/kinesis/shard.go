package kinesis

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"time"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/wire"
)

type hashRange struct{ StartingHashKey, EndingHashKey string }

type sequenceRange struct{ StartingSequenceNumber, EndingSequenceNumber string }

type shard struct {
	ShardId, ParentShardId, AdjacentParentShardId string //nolint:revive // the member's name
	HashKeyRange                                  hashRange
	SequenceNumberRange                           sequenceRange
}

// shardsOf are the shards of a stream behind one.
func shardsOf(st *bus.StreamStatus, after string) []shard {
	out := []shard{}
	for i := range st.List {
		h := &st.List[i]
		if h.ID <= after {
			continue
		}
		one := shard{ShardId: h.ID, HashKeyRange: hashRange{h.First, h.Last}, SequenceNumberRange: sequenceRange{h.Begin, h.End}}
		if len(h.Parents) > 0 {
			one.ParentShardId = h.Parents[0]
		}
		if len(h.Parents) > 1 {
			one.AdjacentParentShardId = h.Parents[1]
		}
		out = append(out, one)
	}
	return out
}

type shardFilter struct {
	Type, ShardId string //nolint:revive // the member's name
	Timestamp     *time.Time
}

type listShardsInput struct {
	StreamName, StreamARN, NextToken, ExclusiveStartShardId string //nolint:revive // the member's name
	MaxResults                                              int
	ShardFilter                                             *shardFilter
}

type listShardsOutput struct {
	Shards    []shard `wire:",always"`
	NextToken string
}

// next is what a NextToken of ListShards says: it stands for the stream too.
type next struct{ Stream, After string }

func (s *service) listShards(ctx context.Context, c *wire.Call, in *listShardsInput) (*listShardsOutput, error) {
	n, after := named{in.StreamName, in.StreamARN}, in.ExclusiveStartShardId
	if in.NextToken != "" {
		text, err := base64.RawURLEncoding.DecodeString(in.NextToken)
		var t next
		if err != nil || json.Unmarshal(text, &t) != nil || n.name() != "" {
			return nil, invalid("NextToken and StreamName cannot be provided together, and a token is one that ListShards gave.")
		}
		n.StreamName, after = t.Stream, t.After
		if err := c.Allow(ctx, wire.Subject{Action: "kinesis:ListShards", Resource: c.ARN("kinesis", "stream/"+n.name())}); err != nil {
			return nil, err
		}
	}
	st, err := s.status(ctx, c, n)
	if err != nil {
		return nil, err
	}
	limit := 1000
	if in.MaxResults > 0 {
		limit = in.MaxResults
	}
	out := &listShardsOutput{Shards: []shard{}}
	for _, h := range shardsOf(&st, after) {
		if !in.ShardFilter.takes(&h) {
			continue
		}
		if len(out.Shards) == limit {
			token, err := json.Marshal(next{st.Name, out.Shards[limit-1].ShardId})
			if err != nil {
				return nil, err
			}
			out.NextToken = base64.RawURLEncoding.EncodeToString(token)
			break
		}
		out.Shards = append(out.Shards, h)
	}
	return out, nil
}

// takes says whether a filter wants a shard. Those that ask by time get the shards that are there since: all that have records.
func (f *shardFilter) takes(h *shard) bool {
	if f == nil {
		return true
	}
	switch f.Type {
	case "AT_LATEST":
		return h.SequenceNumberRange.EndingSequenceNumber == ""
	case "AFTER_SHARD_ID":
		return h.ShardId > f.ShardId
	}
	return true
}

type splitInput struct{ StreamName, StreamARN, ShardToSplit, NewStartingHashKey string }

func (s *service) split(ctx context.Context, c *wire.Call, in *splitInput) (*none, error) {
	st, err := s.status(ctx, c, named{in.StreamName, in.StreamARN})
	if err != nil {
		return nil, err
	}
	return nil, s.bus.SplitShard(ctx, st.Key(), in.ShardToSplit, in.NewStartingHashKey)
}

type mergeInput struct{ StreamName, StreamARN, ShardToMerge, AdjacentShardToMerge string }

func (s *service) merge(ctx context.Context, c *wire.Call, in *mergeInput) (*none, error) {
	st, err := s.status(ctx, c, named{in.StreamName, in.StreamARN})
	if err != nil {
		return nil, err
	}
	return nil, s.bus.MergeShards(ctx, st.Key(), in.ShardToMerge, in.AdjacentShardToMerge)
}

type resizeInput struct {
	StreamName, StreamARN, ScalingType string
	TargetShardCount                   int
}

type resizeOutput struct {
	StreamName, StreamARN               string
	CurrentShardCount, TargetShardCount int
}

func (s *service) resize(ctx context.Context, c *wire.Call, in *resizeInput) (*resizeOutput, error) {
	st, err := s.status(ctx, c, named{in.StreamName, in.StreamARN})
	if err != nil {
		return nil, err
	}
	now := open(&st)
	if in.TargetShardCount > 2*now || 2*in.TargetShardCount < now {
		return nil, invalid("UpdateShardCount cannot scale up over double your current open shard count, nor down below half of it. Current open shard count: %d, target: %d.", now, in.TargetShardCount)
	}
	out := &resizeOutput{st.Name, c.ARN("kinesis", "stream/"+st.Name), now, in.TargetShardCount}
	st.Shards = in.TargetShardCount
	return out, s.bus.PutStream(ctx, st.Stream)
}
