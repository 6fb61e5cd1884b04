package server

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/arn"
	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/bus/filter"
	"github.com/ebb-run/ebb/internal/bus/pattern"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/state"
)

// onDemandShards is how many shards a stream has that scales on demand on AWS: those with which it begins there.
const onDemandShards = 4

// streamOf is the stream that a Resource declares.
func (s *Server) streamOf(d *state.Deployment, res *app.Resource) (bus.Stream, error) {
	r := s.resolver(d)
	name, err := r.physicalName(res)
	if err != nil {
		return bus.Stream{}, err
	}
	var p struct {
		ShardCount, RetentionPeriodHours number
		StreamModeDetails                struct{ StreamMode string }
	}
	if err := r.properties(res.Properties, &p); err != nil {
		return bus.Stream{}, err
	}
	st := bus.Stream{Tenant: tenant, Name: name, Shards: int(p.ShardCount), Retention: time.Duration(float64(p.RetentionPeriodHours) * float64(time.Hour)),
		Tags: map[string]string{ownerTag: stackID(d.Stack)}}
	if st.Shards == 0 {
		st.Shards = 1
		if p.StreamModeDetails.StreamMode == "ON_DEMAND" {
			st.Shards = onDemandShards
		}
	}
	if res.Retain {
		st.Tags[retainTag] = "true"
	}
	return st, nil
}

// streams makes the streams that an App declares what they are to be, and forgets how far mappings were that it has no more.
func (s *Server) streams(ctx context.Context, d *state.Deployment, had bool) (faults []string) {
	var want []bus.Stream
	mapped := false
	for i := range d.App.Resources {
		res := &d.App.Resources[i]
		if res.Kind != app.Stream {
			continue
		}
		st, err := s.streamOf(d, res)
		if err != nil {
			faults = append(faults, fmt.Sprintf("stream %s: %v", res.ID, err))
			continue
		}
		want = append(want, st)
	}
	for i := range d.App.Triggers {
		mapped = mapped || d.App.Triggers[i].Kind == "stream"
	}
	if len(want) == 0 && !had && !mapped {
		return faults
	}
	faults = append(faults, settle(ctx, s, "stream", want, s.events.bus.Streams, s.events.bus.PutStream)...)
	if err := s.forgetMappings(ctx, d.Stack, s.streamNames(d)); err != nil {
		faults = append(faults, err.Error())
	}
	return faults
}

// forgetMappings makes the mappings of a Stack begin anew should they come again, but for some.
func (s *Server) forgetMappings(ctx context.Context, k state.StackKey, keep []string) error {
	list, err := s.events.bus.StreamMappings(ctx)
	if err != nil {
		return err
	}
	for _, m := range list {
		if strings.HasPrefix(m.Mapping, triggerPrefix(k)) && !slices.Contains(keep, m.Mapping) {
			if err := s.events.bus.ForgetMapping(ctx, m.Mapping, m.Stream); err != nil {
				return err
			}
		}
	}
	return nil
}

// streamNames are the names of all stream mappings that a Deployment declares, disabled ones too: these go on from where they were.
func (s *Server) streamNames(d *state.Deployment) (out []string) {
	s.eachMapping(d, func(t *app.Trigger, name string) {
		if t.Kind == "stream" {
			out = append(out, name)
		}
	})
	return out
}

func declaredStreams(a *app.App) (n int) {
	for i := range a.Resources {
		if a.Resources[i].Kind == app.Stream {
			n++
		}
	}
	for i := range a.Triggers {
		if a.Triggers[i].Kind == "stream" {
			n++
		}
	}
	return n
}

// dropStreams deletes the streams of a removed Stack, and forgets its mappings.
func (s *Server) dropStreams(ctx context.Context, k state.StackKey) error {
	if err := s.forgetMappings(ctx, k, nil); err != nil {
		return err
	}
	list, err := s.events.bus.Streams(ctx)
	if err != nil {
		return err
	}
	for _, st := range list {
		if st.Tags[ownerTag] != stackID(k) || st.Tags[retainTag] != "" {
			continue
		}
		if err := s.events.bus.DeleteStream(ctx, st.Key()); err != nil && errs.CodeOf(err) != errs.NotFound {
			return err
		}
	}
	return nil
}

// streamName gives the stream that a Trigger polls by an ARN: of a stream of Kinesis, of a consumer of one, or of a table's stream.
func streamName(source string) (name string, kind filter.Source, err error) {
	switch {
	case strings.Contains(source, ":dynamodb:"):
		_, rest, _ := strings.Cut(source, ":table/")
		table, _, _ := strings.Cut(rest, "/")
		return tableStream(table), filter.Table, nil
	case strings.Contains(source, ":stream/"):
		_, rest, _ := strings.Cut(source, ":stream/")
		name, _, _ = strings.Cut(rest, "/") // of a consumer
		return name, filter.Stream, nil
	case source != "" && !strings.Contains(source, ":"):
		return source, filter.Stream, nil
	}
	return "", "", errs.New(errs.Invalid, "%q is not the ARN of a stream", source)
}

// tableStream is the name of the stream of a table's changes.
func tableStream(table string) string { return bus.TableStream + table }

// streamSource resolves a Trigger's source; a consumer that the project declares stands for its stream.
func (s *Server) streamSource(r resolver, t *app.Trigger) (string, error) {
	for _, id := range t.Source.Refs() {
		for i := range r.app.Resources {
			res := &r.app.Resources[i]
			if res.ID != id || res.Type != "AWS::Kinesis::StreamConsumer" {
				continue
			}
			var p struct{ StreamARN string }
			err := r.properties(res.Properties, &p)
			return p.StreamARN, err
		}
	}
	return t.Source.Resolve(r.values())
}

// streamMappingOf reads an event source mapping of a stream.
func (s *Server) streamMappingOf(d *state.Deployment, t *app.Trigger, name string) (*mapping, error) {
	r := s.resolver(d)
	f := d.App.Function(t.Function)
	if f == nil {
		return nil, errs.New(errs.NotFound, "there is no function %s", t.Function)
	}
	source, err := s.streamSource(r, t)
	if err != nil {
		return nil, err
	}
	stream, kind, err := streamName(source)
	if err != nil {
		return nil, err
	}
	p := streamSettings{}
	if err := r.settings(t, &p); err != nil {
		return nil, err
	}
	sm, err := p.mapping(name, stream)
	if err != nil {
		return nil, err
	}
	m := &mapping{function: f.Name, report: slices.Contains(p.FunctionResponseTypes, "ReportBatchItemFailures"), stream: sm}
	m.Mapping.Name = name
	m.unit = guest.Unit{Function: f.Name, ARN: arn.Function(region(d.App), s.o.Config.Account, f.Name).String(), Region: region(d.App), Account: s.o.Config.Account}
	patterns := p.FilterCriteria.texts()
	if len(patterns) > 0 {
		criteria, list := filter.CompileCriteria(patterns, kind, "")
		if err := pattern.Fault(list); err != nil {
			return nil, errs.New(errs.Invalid, "its filter: %w", err)
		}
		sm.Filter = func(b *invocation.Batch) bool { return s.passes(criteria, m, b) }
	}
	to := p.DestinationConfig.OnFailure.Destination
	if to != "" {
		if strings.Contains(to, ":sqs:") {
			sm.Failed = s.lost(m, tenant+"/"+lastPart(to))
		} else {
			m.lacks = fmt.Sprintf("its on-failure destination %s is declared, not yet active: queues are", to)
		}
	}
	data, err := json.Marshal(struct {
		Mapping  bus.StreamMapping
		Filter   []string // in place of the function
		Failed   string
		Function string
		Report   bool
		Unit     guest.Unit
	}{*sm, patterns, to, m.function, m.report, m.unit})
	if err != nil {
		return nil, errs.New(errs.Invalid, "its settings are not JSON: %w", err)
	}
	m.spec = string(data)
	return m, nil
}

// streamSettings is what an event source mapping of a stream says.
type streamSettings struct {
	BatchSize, MaximumBatchingWindowInSeconds, ParallelizationFactor, TumblingWindowInSeconds number
	StartingPosition                                                                          string
	StartingPositionTimestamp                                                                 json.RawMessage
	MaximumRetryAttempts, MaximumRecordAgeInSeconds                                           *number
	BisectBatchOnFunctionError                                                                yes
	FunctionResponseTypes                                                                     []string
	FilterCriteria                                                                            filterCriteria
	DestinationConfig                                                                         struct{ OnFailure struct{ Destination string } }
}

// filterCriteria are the filters of an event source mapping.
type filterCriteria struct {
	Filters []struct{ Pattern json.RawMessage }
}

// texts are the patterns; templates have each as a JSON text.
func (c filterCriteria) texts() (out []string) {
	for _, one := range c.Filters {
		text := string(one.Pattern)
		var inner string
		if json.Unmarshal(one.Pattern, &inner) == nil {
			text = inner
		}
		out = append(out, text)
	}
	return out
}

func (p *streamSettings) mapping(name, stream string) (*bus.StreamMapping, error) {
	m := &bus.StreamMapping{Name: name, Stream: tenant + "/" + stream, Batch: int(p.BatchSize), Window: p.MaximumBatchingWindowInSeconds.seconds(), Parallel: int(p.ParallelizationFactor),
		Bisect: bool(p.BisectBatchOnFunctionError), Start: bus.Start{From: bus.From(p.StartingPosition)}}
	switch m.Start.From {
	case "":
		m.Start.From = bus.TrimHorizon
	case bus.TrimHorizon, bus.Latest:
	case bus.AtTimestamp:
		at, err := timestamp(p.StartingPositionTimestamp)
		if err != nil {
			return nil, err
		}
		m.Start.Time = at
	default:
		return nil, errs.New(errs.Invalid, "StartingPosition is %q, not %s, %s or %s", p.StartingPosition, bus.TrimHorizon, bus.Latest, bus.AtTimestamp)
	}
	if p.MaximumRetryAttempts != nil && *p.MaximumRetryAttempts >= 0 { // -1 is without end
		n := int(*p.MaximumRetryAttempts)
		m.Retries = &n
	}
	if p.MaximumRecordAgeInSeconds != nil && *p.MaximumRecordAgeInSeconds > 0 {
		m.MaxAge = p.MaximumRecordAgeInSeconds.seconds()
	}
	if p.TumblingWindowInSeconds > 0 {
		return nil, errs.New(errs.Unsupported, "tumbling windows are declared, not yet active")
	}
	return m, m.Validate()
}

// timestamp reads seconds since 1970, as a number or its text, or a time of RFC 3339.
func timestamp(raw json.RawMessage) (time.Time, error) {
	var n number
	if err := json.Unmarshal(raw, &n); err == nil && n > 0 {
		return time.UnixMilli(int64(float64(n) * 1000)).UTC(), nil
	}
	at, err := time.Parse(time.RFC3339Nano, strings.Trim(string(raw), `"`))
	if err != nil {
		return at, errs.New(errs.Invalid, "StartingPositionTimestamp is %s, no time", raw)
	}
	return at, nil
}

// passes asks a filter about the only record of a Batch, in the form that the Function would see.
func (s *Server) passes(c *filter.Criteria, m *mapping, b *invocation.Batch) bool {
	record, err := s.protocol.Record(nil, &m.unit, b, 0)
	if err != nil {
		return true // the Function says what is wrong with it
	}
	ok, err := c.Match(record)
	return ok || err != nil
}

// lost tells a queue of records that a mapping gave up.
func (s *Server) lost(m *mapping, queue string) func(context.Context, *bus.StreamFailure) error {
	return func(ctx context.Context, f *bus.StreamFailure) error {
		l := guest.Lost{At: time.Now(), Tries: f.Tries, Expired: f.Expired, Err: f.Err, Batch: f.Batch}
		if id, ok := m.last.Load(f.Batch.Shard); ok {
			l.Invocation, _ = id.(string)
		} else {
			l.Invocation = newID()
		}
		sent, err := s.events.bus.Send(ctx, queue, []bus.Message{{Body: s.protocol.TellLost(nil, &m.unit, l)}})
		if err == nil {
			err = sent[0].Err
		}
		switch errs.CodeOf(err) {
		case errs.Unavailable, errs.Throttled, errs.Timeout:
			return err
		}
		if err != nil { // it would be so for ever, and hold up what comes behind
			first, last := f.Batch.Items[0].Sequence, f.Batch.Items[len(f.Batch.Items)-1].Sequence
			s.o.Log.Warn("records are given up, and their destination cannot be told", "function", m.function, "queue", queue, "shard", f.Batch.Shard, "first", first, "last", last, "error", err)
		}
		return nil
	}
}

// inHalves runs the Function with one half of a Batch and, where that is done, with the other.
func (m *mapping) inHalves(ctx context.Context, s *Server, b *invocation.Batch) invocation.Verdict {
	half := len(b.Items) / 2
	first, second := *b, *b
	first.Items, second.Items = b.Items[:half], b.Items[half:]
	v := m.consume(ctx, s, &first)
	if len(v.Failed) == 0 && v.Err == nil {
		if v = m.consume(ctx, s, &second); len(v.Failed) == 0 && v.Err == nil {
			return v
		}
		if len(v.Failed) == 0 {
			v.Failed = []int{0}
		}
		v.Failed = []int{v.Failed[0] + half}
		if v.Err != nil { // not of a code that says that nothing of the Batch ran
			v.Err = errs.New(errs.Failed, "%w", v.Err)
		}
	}
	if len(v.Failed) == 0 {
		v.Failed = []int{0}
	}
	from := v.Failed[0]
	v.Failed = nil
	for i := from; i < len(b.Items); i++ {
		v.Failed = append(v.Failed, i)
	}
	return v
}

// Streams lists streams with their shards.
func (s *Server) Streams(ctx context.Context) ([]api.StreamInfo, error) {
	if err := s.events.bus.Sync(ctx); err != nil { // what was put a moment ago is there
		return nil, err
	}
	list, err := s.events.bus.Streams(ctx)
	if err != nil {
		return nil, err
	}
	out := []api.StreamInfo{}
	for _, st := range list {
		v, err := s.events.bus.StreamStatus(ctx, st.Key())
		if errs.CodeOf(err) == errs.NotFound {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		info := api.StreamInfo{Name: st.Name, Shards: v.Shards, Records: v.Records, RetentionHours: 24, Created: v.Created}
		if st.Retention > 0 {
			info.RetentionHours = int(st.Retention / time.Hour)
		}
		for _, h := range v.List {
			if h.End != "" {
				info.Closed++
			}
		}
		out = append(out, info)
	}
	return out, nil
}

// PutRecords puts records into a stream.
func (s *Server) PutRecords(ctx context.Context, stream string, records []api.StreamRecord) ([]api.PutRecord, error) {
	in := make([]bus.Record, len(records))
	for i, r := range records {
		in[i] = bus.Record{Key: r.Key, HashKey: r.HashKey, Data: r.Data}
	}
	list, err := s.events.bus.PutRecords(ctx, tenant+"/"+stream, in)
	if err != nil {
		return nil, err
	}
	out := make([]api.PutRecord, len(list))
	for i, r := range list {
		out[i] = api.PutRecord{Shard: r.Shard, Sequence: r.Sequence}
		if r.Err != nil {
			out[i] = api.PutRecord{Error: r.Err.Error(), Code: errs.CodeOf(r.Err)}
		}
	}
	return out, nil
}

// tailPause is how long a follower of a stream waits before it looks again.
const tailPause = 200 * time.Millisecond

// Records reads a stream: each shard in its order.
func (s *Server) Records(ctx context.Context, q api.RecordQuery, begun func(), each func(api.StreamRecord) error) error {
	if q.Follow {
		var stop context.CancelFunc
		ctx, stop = context.WithCancel(ctx)
		defer stop()
		defer context.AfterFunc(s.following, stop)()
	}
	t := &tail{s: s, q: q, key: tenant + "/" + q.Stream, each: each}
	start := bus.Start{From: bus.TrimHorizon}
	switch {
	case !q.From.IsZero():
		start = bus.Start{From: bus.AtTimestamp, Time: q.From}
	case q.Follow:
		start.From = bus.Latest
	}
	if err := t.open(ctx, start); err != nil {
		return err
	}
	begun()
	err := t.run(ctx)
	if err == errEnough || s.following.Err() != nil {
		return nil
	}
	return err
}

// tail reads the shards of a stream in turn.
type tail struct {
	s     *Server
	q     api.RecordQuery
	key   string
	each  func(api.StreamRecord) error
	iters map[string]string // by shard; empty at the end of a closed one
	n     int
}

// open begins with the shards that were not there before.
func (t *tail) open(ctx context.Context, start bus.Start) error {
	st, err := t.s.events.bus.StreamStatus(ctx, t.key)
	if err != nil {
		return err
	}
	if t.iters == nil {
		t.iters = map[string]string{}
	}
	found := false
	for _, h := range st.List {
		_, known := t.iters[h.ID]
		if t.q.Shard != "" && h.ID != t.q.Shard {
			continue
		}
		if found = true; known {
			continue
		}
		if t.iters[h.ID], err = t.s.events.bus.Iterator(ctx, t.key, h.ID, start); err != nil {
			return err
		}
	}
	if !found {
		return errs.New(errs.NotFound, "stream %s has no shard %s", t.q.Stream, t.q.Shard)
	}
	return nil
}

func (t *tail) run(ctx context.Context) error {
	for {
		more, closed := false, false
		for _, id := range sortedKeys(t.iters) {
			if t.iters[id] == "" {
				continue
			}
			g, err := t.s.events.bus.GetRecords(ctx, t.iters[id], bus.Get{Records: 500})
			if err != nil {
				return err
			}
			for i := range g.Records {
				r := &g.Records[i]
				if err := t.each(api.StreamRecord{Shard: id, Sequence: r.Sequence, Arrived: r.Arrived, Key: r.Key, HashKey: r.HashKey, Data: r.Data}); err != nil {
					return err
				}
				if t.n++; t.n == t.q.Limit {
					return errEnough
				}
			}
			t.iters[id], more, closed = g.Next, more || g.Behind > 0, closed || g.Next == ""
		}
		switch {
		case closed && t.q.Follow: // others follow it
			if err := t.open(ctx, bus.Start{From: bus.TrimHorizon}); err != nil {
				return err
			}
		case more:
		case !t.q.Follow:
			return nil
		default:
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(tailPause):
			}
		}
	}
}

func sortedKeys(m map[string]string) (out []string) {
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// lastRuns are the IDs of the Invocations that had to do with shards last.
type lastRuns = sync.Map
