// Package kinesis answers Amazon Kinesis Data Streams over the bus's streams, in the JSON protocol.
//
// Main type: none; [New] gives the wire.Service. Source: Amazon Kinesis Data Streams API Reference, 2013-12-02.
//
// Guarantees:
//
//  1. PutRecord and PutRecords answer when what is put is durable; of a batch each record is told by itself.
//  2. A stream is found by its name whatever region and account its ARN says: names are the caller's Tenant's.
//
// Differences: a stream is ACTIVE at once and has no limit of throughput; one on demand begins with 4 shards and keeps them; consumers with enhanced
// fan-out (SubscribeToShard), encryption by a key of the client's and resource policies are refused by name.
package kinesis

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/wire"
)

type service struct{ bus *bus.Bus }

// New returns the service.
func New(b *bus.Bus) *wire.Service {
	s := &service{b}
	return &wire.Service{
		Name: "kinesis", Strict: true, MaxBody: 16 << 20, Translate: translate, Subjects: subjects,
		Operations: map[string]wire.Operation{
			"CreateStream": wire.Op(s.create), "DeleteStream": wire.Op(s.remove), "DescribeStream": wire.Op(s.describe),
			"DescribeStreamSummary": wire.Op(s.summary), "ListStreams": wire.Op(s.list), "ListShards": wire.Op(s.listShards), "DescribeLimits": wire.Op(s.limits),
			"PutRecord": wire.Op(s.put), "PutRecords": wire.Op(s.putAll), "GetShardIterator": wire.Op(s.iterator), "GetRecords": wire.Op(s.records),
			"SplitShard": wire.Op(s.split), "MergeShards": wire.Op(s.merge), "UpdateShardCount": wire.Op(s.resize),
			"IncreaseStreamRetentionPeriod": wire.Op(s.keepLonger), "DecreaseStreamRetentionPeriod": wire.Op(s.keepShorter),
			"AddTagsToStream": wire.Op(s.tag), "RemoveTagsFromStream": wire.Op(s.untag), "ListTagsForStream": wire.Op(s.tags),
		},
	}
}

// onDemand is the tag of a stream that was made without a number of shards.
const (
	hidden       = "ebb:"
	onDemand     = hidden + "kinesis:on-demand"
	onDemandMost = 4 // shards
)

type none struct{}

func invalid(format string, args ...any) *wire.Error {
	return wire.Errorf("InvalidArgumentException", format, args...)
}

func translate(_ *wire.Call, err error) *wire.Error {
	switch errs.CodeOf(err) {
	case errs.NotFound:
		return wire.Errorf("ResourceNotFoundException", "%s", err.Error())
	case errs.Invalid, errs.TooLarge, errs.Unsupported:
		return invalid("%s", err.Error())
	case errs.Conflict:
		return wire.Errorf("ExpiredIteratorException", "%s", err.Error())
	case errs.Throttled:
		return wire.Errorf("ProvisionedThroughputExceededException", "%s", err.Error())
	}
	return nil
}

// named are the members that name a stream.
type named struct{ StreamName, StreamARN string }

func (n named) name() string {
	if n.StreamName != "" {
		return n.StreamName
	}
	return wire.NameIn(n.StreamARN, ":stream/")
}

func (s *service) status(ctx context.Context, c *wire.Call, n named) (bus.StreamStatus, error) {
	name := n.name()
	if name == "" || strings.HasPrefix(name, bus.TableStream) {
		return bus.StreamStatus{}, missing(c, name)
	}
	st, err := s.bus.StreamStatus(ctx, c.Caller.Tenant+"/"+name)
	if errs.CodeOf(err) == errs.NotFound {
		err = missing(c, name)
	}
	return st, err
}

func missing(c *wire.Call, name string) error {
	if name == "" {
		return invalid("Either StreamName or StreamARN must be given.")
	}
	return wire.Errorf("ResourceNotFoundException", "Stream %s under account %s not found.", name, c.Caller.Account)
}

// subjects names the stream, as AWS's "Actions, resources, and condition keys for Amazon Kinesis Data Streams" has it. Which stream
// an iterator is of is known once it was read.
func subjects(c *wire.Call, in any) []wire.Subject {
	n := named{wire.Member(in, "StreamName"), wire.Member(in, "StreamARN")}
	if n.name() != "" {
		return []wire.Subject{{Action: "kinesis:" + c.Operation, Resource: c.ARN("kinesis", "stream/"+n.name())}}
	}
	if c.Operation == "GetRecords" {
		return nil
	}
	return []wire.Subject{{Action: "kinesis:" + c.Operation, Resource: "*"}}
}

type mode struct{ StreamMode string }

type createInput struct {
	StreamName        string
	ShardCount        int
	StreamModeDetails *mode
}

func (s *service) create(ctx context.Context, c *wire.Call, in *createInput) (*none, error) {
	st := bus.Stream{Tenant: c.Caller.Tenant, Name: in.StreamName, Shards: in.ShardCount}
	demand := in.StreamModeDetails != nil && in.StreamModeDetails.StreamMode == "ON_DEMAND"
	switch {
	case demand && in.ShardCount > 0:
		return nil, invalid("ShardCount must not be given for a stream in ON_DEMAND mode.")
	case demand:
		st.Shards, st.Tags = onDemandMost, map[string]string{onDemand: "true"}
	case in.ShardCount == 0:
		return nil, invalid("ShardCount must be given for a stream in PROVISIONED mode.")
	}
	st.Tags = c.Caller.Mark(st.Tags)
	if _, err := s.bus.StreamStatus(ctx, st.Key()); err == nil {
		return nil, wire.Errorf("ResourceInUseException", "Stream %s under account %s already exists.", in.StreamName, c.Caller.Account)
	}
	return nil, s.bus.PutStream(ctx, st)
}

func (s *service) remove(ctx context.Context, c *wire.Call, in *named) (*none, error) {
	st, err := s.status(ctx, c, *in)
	if err != nil {
		return nil, err
	}
	return nil, s.bus.DeleteStream(ctx, st.Key())
}

// summaryOf is what DescribeStream, DescribeStreamSummary and ListStreams say alike.
type summaryOf struct {
	StreamName, StreamARN, StreamStatus string
	StreamModeDetails                   mode
	StreamCreationTimestamp             time.Time
}

func (s *service) summaryOf(c *wire.Call, st *bus.Stream, created time.Time) summaryOf {
	m := "PROVISIONED"
	if st.Tags[onDemand] != "" {
		m = "ON_DEMAND"
	}
	return summaryOf{st.Name, c.ARN("kinesis", "stream/"+st.Name), "ACTIVE", mode{m}, created}
}

type monitoring struct {
	ShardLevelMetrics []string `wire:",always"`
}

type description struct {
	StreamName, StreamARN, StreamStatus, EncryptionType string
	StreamModeDetails                                   mode
	StreamCreationTimestamp                             time.Time
	RetentionPeriodHours                                int
	EnhancedMonitoring                                  []monitoring
	Shards                                              []shard `wire:",always"`
	HasMoreShards                                       bool    `wire:",always"`
}

type descriptionSummary struct {
	StreamName, StreamARN, StreamStatus, EncryptionType string
	StreamModeDetails                                   mode
	StreamCreationTimestamp                             time.Time
	RetentionPeriodHours                                int
	EnhancedMonitoring                                  []monitoring
	OpenShardCount                                      int `wire:",always"`
	ConsumerCount                                       int `wire:",always"`
}

type describeInput struct {
	StreamName, StreamARN, ExclusiveStartShardId string //nolint:revive // the member's name
	Limit                                        int
}

type describeOutput struct{ StreamDescription description }

func retention(st *bus.Stream) int {
	if st.Retention == 0 {
		return 24
	}
	return int(st.Retention / time.Hour)
}

func (s *service) describe(ctx context.Context, c *wire.Call, in *describeInput) (*describeOutput, error) {
	st, err := s.status(ctx, c, named{in.StreamName, in.StreamARN})
	if err != nil {
		return nil, err
	}
	limit := 100
	if in.Limit > 0 {
		limit = in.Limit
	}
	all := shardsOf(&st, in.ExclusiveStartShardId)
	o := s.summaryOf(c, &st.Stream, st.Created)
	return &describeOutput{description{
		StreamName: o.StreamName, StreamARN: o.StreamARN, StreamStatus: o.StreamStatus, StreamModeDetails: o.StreamModeDetails, StreamCreationTimestamp: o.StreamCreationTimestamp,
		EncryptionType: "NONE", RetentionPeriodHours: retention(&st.Stream), EnhancedMonitoring: []monitoring{{[]string{}}},
		Shards: all[:min(limit, len(all))], HasMoreShards: len(all) > limit,
	}}, nil
}

type summaryOutput struct{ StreamDescriptionSummary descriptionSummary }

func (s *service) summary(ctx context.Context, c *wire.Call, in *named) (*summaryOutput, error) {
	st, err := s.status(ctx, c, *in)
	if err != nil {
		return nil, err
	}
	o := s.summaryOf(c, &st.Stream, st.Created)
	return &summaryOutput{descriptionSummary{
		StreamName: o.StreamName, StreamARN: o.StreamARN, StreamStatus: o.StreamStatus, StreamModeDetails: o.StreamModeDetails, StreamCreationTimestamp: o.StreamCreationTimestamp,
		EncryptionType: "NONE", RetentionPeriodHours: retention(&st.Stream), EnhancedMonitoring: []monitoring{{[]string{}}}, OpenShardCount: open(&st),
	}}, nil
}

func open(st *bus.StreamStatus) (n int) {
	for i := range st.List {
		if st.List[i].End == "" {
			n++
		}
	}
	return n
}

type listInput struct {
	ExclusiveStartStreamName, NextToken string
	Limit                               int
}

type listOutput struct {
	StreamNames     []string    `wire:",always"`
	StreamSummaries []summaryOf `wire:",always"`
	HasMoreStreams  bool        `wire:",always"`
	NextToken       string
}

func (s *service) list(ctx context.Context, c *wire.Call, in *listInput) (*listOutput, error) {
	all, err := s.bus.Streams(ctx)
	if err != nil {
		return nil, err
	}
	after, limit := in.ExclusiveStartStreamName, 100
	if in.NextToken != "" {
		after = in.NextToken
	}
	if in.Limit > 0 {
		limit = in.Limit
	}
	all = slices.DeleteFunc(all, func(st bus.Stream) bool {
		return st.Key() != c.Caller.Tenant+"/"+st.Name || strings.HasPrefix(st.Name, bus.TableStream) || st.Name <= after
	})
	slices.SortFunc(all, func(a, b bus.Stream) int { return strings.Compare(a.Name, b.Name) })
	out := &listOutput{StreamNames: []string{}, StreamSummaries: []summaryOf{}, HasMoreStreams: len(all) > limit}
	for i := range all[:min(limit, len(all))] {
		st, err := s.bus.StreamStatus(ctx, all[i].Key())
		if errs.CodeOf(err) == errs.NotFound {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		out.StreamNames, out.StreamSummaries = append(out.StreamNames, st.Name), append(out.StreamSummaries, s.summaryOf(c, &st.Stream, st.Created))
	}
	if out.HasMoreStreams {
		out.NextToken = all[limit-1].Name
	}
	return out, nil
}

type limitsOutput struct {
	ShardLimit               int `wire:",always"`
	OpenShardCount           int `wire:",always"`
	OnDemandStreamCount      int `wire:",always"`
	OnDemandStreamCountLimit int `wire:",always"`
}

func (s *service) limits(ctx context.Context, c *wire.Call, _ *none) (*limitsOutput, error) {
	all, err := s.bus.Streams(ctx)
	if err != nil {
		return nil, err
	}
	out := &limitsOutput{ShardLimit: bus.MaxShards, OnDemandStreamCountLimit: bus.MaxShards}
	for i := range all {
		if all[i].Key() != c.Caller.Tenant+"/"+all[i].Name {
			continue
		}
		st, err := s.bus.StreamStatus(ctx, all[i].Key())
		if errs.CodeOf(err) == errs.NotFound {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		if out.OpenShardCount += open(&st); st.Tags[onDemand] != "" {
			out.OnDemandStreamCount++
		}
	}
	return out, nil
}

// change applies fn to a stream's settings.
func (s *service) change(ctx context.Context, c *wire.Call, n named, fn func(*bus.StreamStatus) error) error {
	st, err := s.status(ctx, c, n)
	if err != nil {
		return err
	}
	st.Tags = maps.Clone(st.Tags)
	st.Shards = 0 // as they are
	if err := fn(&st); err != nil {
		return err
	}
	return s.bus.PutStream(ctx, st.Stream)
}

type retentionInput struct {
	StreamName, StreamARN string
	RetentionPeriodHours  int
}

func (s *service) keepLonger(ctx context.Context, c *wire.Call, in *retentionInput) (*none, error) {
	return nil, s.change(ctx, c, named{in.StreamName, in.StreamARN}, func(st *bus.StreamStatus) error {
		if in.RetentionPeriodHours < retention(&st.Stream) {
			return invalid("Requested retention period (%d hours) for stream %s can not be shorter than existing retention period (%d hours). Use DecreaseRetentionPeriod API.", in.RetentionPeriodHours, st.Name, retention(&st.Stream))
		}
		st.Retention = time.Duration(in.RetentionPeriodHours) * time.Hour
		return nil
	})
}

func (s *service) keepShorter(ctx context.Context, c *wire.Call, in *retentionInput) (*none, error) {
	return nil, s.change(ctx, c, named{in.StreamName, in.StreamARN}, func(st *bus.StreamStatus) error {
		if in.RetentionPeriodHours > retention(&st.Stream) {
			return invalid("Requested retention period (%d hours) for stream %s can not be longer than existing retention period (%d hours). Use IncreaseRetentionPeriod API.", in.RetentionPeriodHours, st.Name, retention(&st.Stream))
		}
		st.Retention = time.Duration(in.RetentionPeriodHours) * time.Hour
		return nil
	})
}

type tagInput struct {
	StreamName, StreamARN string
	Tags                  map[string]string
}

func (s *service) tag(ctx context.Context, c *wire.Call, in *tagInput) (*none, error) {
	return nil, s.change(ctx, c, named{in.StreamName, in.StreamARN}, func(st *bus.StreamStatus) error {
		if st.Tags == nil {
			st.Tags = map[string]string{}
		}
		for k, v := range in.Tags {
			if !strings.HasPrefix(k, hidden) {
				st.Tags[k] = v
			}
		}
		return nil
	})
}

type untagInput struct {
	StreamName, StreamARN string
	TagKeys               []string
}

func (s *service) untag(ctx context.Context, c *wire.Call, in *untagInput) (*none, error) {
	return nil, s.change(ctx, c, named{in.StreamName, in.StreamARN}, func(st *bus.StreamStatus) error {
		maps.DeleteFunc(st.Tags, func(k, _ string) bool { return slices.Contains(in.TagKeys, k) && !strings.HasPrefix(k, hidden) })
		return nil
	})
}

type tagOf struct{ Key, Value string }

type tagsInput struct {
	StreamName, StreamARN, ExclusiveStartTagKey string
	Limit                                       int
}

type tagsOutput struct {
	Tags        []tagOf `wire:",always"`
	HasMoreTags bool    `wire:",always"`
}

func (s *service) tags(ctx context.Context, c *wire.Call, in *tagsInput) (*tagsOutput, error) {
	st, err := s.status(ctx, c, named{in.StreamName, in.StreamARN})
	if err != nil {
		return nil, err
	}
	out := &tagsOutput{Tags: []tagOf{}}
	for _, k := range slices.Sorted(maps.Keys(st.Tags)) {
		if strings.HasPrefix(k, hidden) || k <= in.ExclusiveStartTagKey {
			continue
		}
		if in.Limit > 0 && len(out.Tags) == in.Limit {
			out.HasMoreTags = true
			break
		}
		out.Tags = append(out.Tags, tagOf{k, st.Tags[k]})
	}
	return out, nil
}
