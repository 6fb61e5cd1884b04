package logs

import (
	"cmp"
	"context"
	"crypto/rand"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/telemetry"
	"github.com/ebb-run/ebb/internal/wire"
)

const (
	// ofLatest stands between the day and the Instance in the name of a stream: Lambda guide, "Viewing CloudWatch logs for Lambda functions".
	ofLatest = "/[$LATEST]"
	// noInstance is the stream of what no Instance wrote.
	noInstance = "ebb"
)

// instanceIn gives the Instance that a stream's name says: the day is not looked at.
func instanceIn(name string) (instance string, ok bool) {
	if name == noInstance {
		return "", true
	}
	_, instance, ok = strings.Cut(name, ofLatest)
	return instance, ok && instance != ""
}

// names gives the names of streams, of Instances of a Function. It reads the logs from their beginning for those that it does not know yet.
func (s *service) names(ctx context.Context, q telemetry.Query, instances map[string]bool) (map[string]string, error) {
	out, missing := make(map[string]string, len(instances)), false
	s.mu.Lock()
	for one := range instances {
		if out[one] = s.mu.day[one]; one != "" && out[one] == "" {
			missing = true
		}
	}
	s.mu.Unlock()
	if missing {
		err := s.Output.Walk(ctx, telemetry.Query{Tenant: q.Tenant, App: q.App, Function: q.Function}, func(_ telemetry.Position, r telemetry.Record) error {
			if instances[r.Instance] && out[r.Instance] == "" {
				out[r.Instance] = r.Time.UTC().Format("2006/01/02")
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		s.know(out)
	}
	for one, day := range out {
		if out[one] = day + ofLatest + one; one == "" {
			out[one] = noInstance
		}
	}
	return out, nil
}

const maxKnown = 10_000 // Instances

func (s *service) know(days map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.mu.day)+len(days) > maxKnown || s.mu.day == nil {
		s.mu.day = map[string]string{}
	}
	for one, day := range days {
		if day != "" && len(s.mu.day) < maxKnown {
			s.mu.day[one] = day
		}
	}
}

type streamInput struct{ LogGroupName, LogStreamName string }

func (s *service) createStream(ctx context.Context, c *wire.Call, in *streamInput) (*none, error) {
	if strings.ContainsAny(in.LogStreamName, ":*") {
		return nil, invalid("1 validation error detected: Value '%s' at 'logStreamName' failed to satisfy constraint: Member must satisfy regular expression pattern: [^:*]*", in.LogStreamName)
	}
	exists := func() error {
		return wire.Errorf("ResourceAlreadyExistsException", "The specified log stream already exists")
	}
	g, err := s.group(ctx, c, in.LogGroupName)
	if err != nil {
		return nil, err
	}
	if there, err := s.wrote(ctx, c, &g, in.LogStreamName); there || err != nil {
		return nil, cmp.Or(err, exists())
	}
	_, err = s.change(ctx, c, in.LogGroupName, func(g *group) error {
		if g.stream(in.LogStreamName) != nil {
			return exists()
		}
		return g.add(c, in.LogStreamName)
	})
	return nil, err
}

func (g *group) add(c *wire.Call, name string) error {
	if len(g.rec.Streams) >= maxStreams {
		return wire.Errorf("LimitExceededException", "Resource limit exceeded: the log group %s has %d streams; delete some, or the group.", g.Name, maxStreams)
	}
	g.rec.Streams = append(g.rec.Streams, stream{ID: rand.Text(), Name: name, Created: c.Now.UTC()})
	return nil
}

// wrote says whether a stream is one of an Instance that has written something.
func (s *service) wrote(ctx context.Context, c *wire.Call, g *group, name string) (there bool, err error) {
	instance, ok := instanceIn(name)
	if g.Function == "" || !ok {
		return false, nil
	}
	err = s.Output.Walk(ctx, g.output(c), func(_ telemetry.Position, r telemetry.Record) error {
		there = there || r.Instance == instance
		return nil
	})
	return there, err
}

// output is what is asked for the output of a group's Function.
func (g *group) output(c *wire.Call) telemetry.Query {
	return telemetry.Query{Tenant: c.Caller.Tenant, App: g.App, Function: g.Function}
}

func (s *service) deleteStream(ctx context.Context, c *wire.Call, in *streamInput) (*none, error) {
	_, err := s.change(ctx, c, in.LogGroupName, func(g *group) error {
		before := len(g.rec.Streams)
		g.rec.Streams = slices.DeleteFunc(g.rec.Streams, func(one stream) bool { return one.Name == in.LogStreamName })
		if len(g.rec.Streams) < before {
			return nil
		}
		if _, ok := instanceIn(in.LogStreamName); ok && g.Function != "" {
			return invalid("The output of a function cannot be deleted: the oldest goes when its room is used up.")
		}
		return noStream()
	})
	return nil, err
}

type describeStreamsInput struct {
	LogGroupName, LogGroupIdentifier, LogStreamNamePrefix, NextToken, OrderBy string
	Descending                                                                bool
	Limit                                                                     int
}

type streamOutput struct {
	LogStreamName, Arn, UploadSequenceToken                                  string
	CreationTime, FirstEventTimestamp, LastEventTimestamp, LastIngestionTime int64
	StoredBytes                                                              int64 `wire:",always"` // 0, as AWS has it since 2019
}

// saw counts an event.
func (o *streamOutput) saw(at, came int64) {
	if o.LastIngestionTime == 0 || at < o.FirstEventTimestamp {
		o.FirstEventTimestamp = at
	}
	o.LastEventTimestamp, o.LastIngestionTime = max(o.LastEventTimestamp, at), max(o.LastIngestionTime, came)
}

type describeStreamsOutput struct {
	LogStreams []streamOutput `wire:",always"`
	NextToken  string
}

func (s *service) describeStreams(ctx context.Context, c *wire.Call, in *describeStreamsInput) (*describeStreamsOutput, error) {
	name, err := identified{in.LogGroupName, in.LogGroupIdentifier}.name()
	if err != nil {
		return nil, err
	}
	byTime := in.OrderBy == "LastEventTime"
	if byTime && in.LogStreamNamePrefix != "" {
		return nil, invalid("Cannot order by LastEventTime with a logStreamNamePrefix.")
	}
	g, err := s.group(ctx, c, name)
	if err != nil {
		return nil, err
	}
	list, err := s.streams(ctx, c, &g)
	if err != nil {
		return nil, err
	}
	order := func(a, b streamOutput) int { return strings.Compare(a.LogStreamName, b.LogStreamName) }
	if byTime {
		order = func(a, b streamOutput) int {
			return cmp.Or(cmp.Compare(a.LastEventTimestamp, b.LastEventTimestamp), strings.Compare(a.LogStreamName, b.LogStreamName))
		}
	}
	slices.SortFunc(list, func(a, b streamOutput) int {
		if in.Descending {
			a, b = b, a
		}
		return order(a, b)
	})
	list = slices.DeleteFunc(list, func(one streamOutput) bool { return !strings.HasPrefix(one.LogStreamName, in.LogStreamNamePrefix) })
	if in.NextToken != "" {
		after, err := nameOf(in.NextToken)
		if err != nil {
			return nil, err
		}
		list = list[slices.IndexFunc(list, func(one streamOutput) bool { return one.LogStreamName == after })+1:]
	}
	out := &describeStreamsOutput{LogStreams: list}
	if limit := cmp.Or(in.Limit, pageOfList); len(list) > limit {
		out.LogStreams, out.NextToken = list[:limit], tokenOf(list[limit-1].LogStreamName)
	}
	if out.LogStreams == nil {
		out.LogStreams = []streamOutput{}
	}
	return out, nil
}

// streams gives those of a group, in no order.
func (s *service) streams(ctx context.Context, c *wire.Call, g *group) (list []streamOutput, err error) {
	byName := map[string]*streamOutput{}
	if g.Function != "" {
		found, instances := map[string]*streamOutput{}, map[string]bool{}
		err := s.Output.Walk(ctx, g.output(c), func(_ telemetry.Position, r telemetry.Record) error {
			ms := r.Time.UnixMilli()
			one := found[r.Instance]
			if one == nil {
				one = &streamOutput{CreationTime: ms}
				found[r.Instance], instances[r.Instance] = one, true
			}
			one.saw(ms, ms)
			return nil
		})
		if err != nil {
			return nil, err
		}
		names, err := s.names(ctx, g.output(c), instances)
		if err != nil {
			return nil, err
		}
		for instance, one := range found {
			byName[names[instance]] = one
		}
	}
	if g.rec != nil {
		byID := map[string]*streamOutput{}
		for _, one := range g.rec.Streams {
			if byName[one.Name] == nil {
				byName[one.Name] = &streamOutput{CreationTime: one.Created.UnixMilli()}
			}
			byID[one.ID] = byName[one.Name]
		}
		err = s.Events.Walk(ctx, telemetry.Query{Tenant: c.Caller.Tenant, Function: g.rec.ID}, func(_ telemetry.Position, r telemetry.Record) error {
			if one := byID[r.Instance]; one != nil {
				one.saw(timeIn(&r), r.Time.UnixMilli())
			}
			return nil
		})
	}
	for name, one := range byName {
		one.LogStreamName, one.Arn, one.UploadSequenceToken = name, groupARN(c, g.Name)+":log-stream:"+name, sequence
		list = append(list, *one)
	}
	return list, err
}
