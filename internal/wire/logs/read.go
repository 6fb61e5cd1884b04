package logs

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/telemetry"
	"github.com/ebb-run/ebb/internal/wire"
)

// selection says which events of a group are told.
type selection struct {
	from, to  int64 // ms, the last one included
	after     *place
	before    *place
	instances map[string]bool // of the Function's; nil means all
	streams   map[string]bool // names of those that clients made; nil means all
	prefix    string          // of a stream's name
	pattern   pattern
}

func (x *selection) takes(at place, message string) bool {
	return at.ms >= x.from && at.ms <= x.to && (x.after == nil || at.compare(*x.after) > 0) && (x.before == nil || at.compare(*x.before) < 0) && x.pattern.matches(message)
}

// collect reads the events of a group into a page.
func (s *service) collect(ctx context.Context, c *wire.Call, g *group, x *selection, p *page) (names map[string]string, err error) {
	if x.after != nil {
		x.from = max(x.from, x.after.ms)
	}
	if since := g.since(c.Now); !since.IsZero() {
		x.from = max(x.from, since.UnixMilli())
	}
	if names, err = s.collectOutput(ctx, c, g, x, p); err != nil || g.rec == nil {
		return names, err
	}
	byID := map[string]string{}
	for _, one := range g.rec.Streams {
		if strings.HasPrefix(one.Name, x.prefix) && (x.streams == nil || x.streams[one.Name]) {
			byID[one.ID] = one.Name
		}
	}
	if len(byID) == 0 {
		return names, nil
	}
	q := telemetry.Query{Tenant: c.Caller.Tenant, Function: g.rec.ID}
	if x.from > 0 {
		q.Since = time.UnixMilli(x.from).Add(-tooNew)
	}
	return names, s.Events.Walk(ctx, q, func(at telemetry.Position, r telemetry.Record) error {
		e := found{place: place{timeIn(&r), true, at}, stream: byID[r.Instance], message: r.Text, came: r.Time.UnixMilli()}
		if e.stream != "" && p.wants(e.place) && x.takes(e.place, e.message) {
			p.add(e)
		}
		return nil
	})
}

// collectOutput is collect for the output of a Function, and gives the names of its streams, by Instance.
func (s *service) collectOutput(ctx context.Context, c *wire.Call, g *group, x *selection, p *page) (names map[string]string, err error) {
	if g.Function == "" || x.instances != nil && len(x.instances) == 0 {
		return nil, nil
	}
	q := g.output(c)
	if x.from > 0 {
		q.Since = time.UnixMilli(x.from)
	}
	seen := map[string]bool{}
	each := func(f func(e found)) error {
		return s.Output.Walk(ctx, q, func(at telemetry.Position, r telemetry.Record) error {
			if x.instances == nil || x.instances[r.Instance] {
				ms := r.Time.UnixMilli()
				f(found{place: place{ms, false, at}, instance: r.Instance, message: r.Text + "\n", came: ms})
			}
			return nil
		})
	}
	if x.prefix != "" { // the names are to be known first
		if err := each(func(e found) { seen[e.instance] = true }); err != nil {
			return nil, err
		}
		if names, err = s.names(ctx, q, seen); err != nil {
			return nil, err
		}
	}
	err = each(func(e found) {
		if strings.HasPrefix(names[e.instance], x.prefix) && p.wants(e.place) && x.takes(e.place, e.message) {
			seen[e.instance] = true
			p.add(e)
		}
	})
	if err != nil || x.prefix != "" {
		return names, err
	}
	return s.names(ctx, q, seen)
}

type getInput struct {
	LogGroupName, LogGroupIdentifier, LogStreamName, NextToken string
	StartTime, EndTime                                         *int64
	Limit                                                      int
	StartFromHead                                              bool
}

type event struct {
	Timestamp     int64 `wire:",always"`
	IngestionTime int64 `wire:",always"`
	Message       string
}

type getOutput struct {
	Events                              []event `wire:",always"`
	NextForwardToken, NextBackwardToken string
}

const (
	forward  = "f/"
	backward = "b/"
	// farthest is behind every event.
	farthest = int64(99999999999999)
)

func (s *service) get(ctx context.Context, c *wire.Call, in *getInput) (*getOutput, error) {
	name, err := identified{in.LogGroupName, in.LogGroupIdentifier}.name()
	if err != nil {
		return nil, err
	}
	g, err := s.group(ctx, c, name)
	if err != nil {
		return nil, err
	}
	x := &selection{to: farthest, streams: map[string]bool{in.LogStreamName: true}, instances: map[string]bool{}}
	if instance, ok := instanceIn(in.LogStreamName); ok {
		x.instances[instance] = true
	}
	if in.StartTime != nil {
		x.from = *in.StartTime
	}
	if in.EndTime != nil {
		x.to = *in.EndTime - 1 // what is at the end is not told
	}
	p := &page{limit: cmp.Or(in.Limit, pageEvents), back: !in.StartFromHead}
	if in.NextToken != "" {
		at, ok := parsePlace(strings.TrimPrefix(strings.TrimPrefix(in.NextToken, forward), backward))
		if !ok {
			return nil, badToken()
		}
		switch {
		case strings.HasPrefix(in.NextToken, forward):
			x.after, p.back = &at, false
		case strings.HasPrefix(in.NextToken, backward):
			x.before, p.back = &at, true
		default:
			return nil, badToken()
		}
	}
	if _, err := s.collect(ctx, c, &g, x, p); err != nil {
		return nil, err
	}
	out := &getOutput{Events: []event{}}
	list := p.sorted()
	for _, e := range list {
		out.Events = append(out.Events, event{e.ms, e.came, e.message})
	}
	if len(list) > 0 {
		out.NextForwardToken, out.NextBackwardToken = forward+list[len(list)-1].String(), backward+list[0].String()
		return out, nil
	}
	if in.NextToken == "" {
		if err := s.streamThere(ctx, c, &g, in.LogStreamName); err != nil {
			return nil, err
		}
	}
	at := place{ms: x.from} // the same token again says that this is the end
	if x.after != nil {
		at = *x.after
	}
	if x.before != nil {
		at = *x.before
	}
	out.NextForwardToken, out.NextBackwardToken = forward+at.String(), backward+at.String()
	return out, nil
}

// streamThere is nil for a stream that there is.
func (s *service) streamThere(ctx context.Context, c *wire.Call, g *group, name string) error {
	if g.stream(name) != nil {
		return nil
	}
	there, err := s.wrote(ctx, c, g, name)
	if err == nil && !there {
		err = noStream()
	}
	return err
}

type filterInput struct {
	LogGroupName, LogGroupIdentifier, LogStreamNamePrefix, FilterPattern, NextToken string
	LogStreamNames                                                                  []string
	StartTime, EndTime                                                              *int64
	Limit                                                                           int
}

type filtered struct {
	LogStreamName string
	Timestamp     int64 `wire:",always"`
	IngestionTime int64 `wire:",always"`
	Message       string
	EventId       string //nolint:revive // the member's name
}

type filterOutput struct {
	Events             []filtered `wire:",always"`
	SearchedLogStreams []none     `wire:",always"` // empty, as AWS has it since 2019
	NextToken          string
}

func (s *service) filter(ctx context.Context, c *wire.Call, in *filterInput) (*filterOutput, error) {
	name, err := identified{in.LogGroupName, in.LogGroupIdentifier}.name()
	if err != nil {
		return nil, err
	}
	if len(in.LogStreamNames) > 0 && in.LogStreamNamePrefix != "" {
		return nil, invalid("LogStreamNames and LogStreamNamePrefix cannot be given together.")
	}
	x := &selection{to: farthest, prefix: in.LogStreamNamePrefix}
	if x.pattern, err = parsePattern(in.FilterPattern); err != nil {
		return nil, err
	}
	if in.StartTime != nil {
		x.from = *in.StartTime
	}
	if in.EndTime != nil {
		x.to = *in.EndTime
	}
	if in.NextToken != "" {
		at, ok := parsePlace(in.NextToken)
		if !ok {
			return nil, badToken()
		}
		x.after = &at
	}
	g, err := s.group(ctx, c, name)
	if err != nil {
		return nil, err
	}
	if len(in.LogStreamNames) > 0 {
		x.instances, x.streams = map[string]bool{}, map[string]bool{}
		for _, one := range in.LogStreamNames {
			x.streams[one] = true
			if instance, ok := instanceIn(one); ok {
				x.instances[instance] = true
			}
		}
	}
	p := &page{limit: cmp.Or(in.Limit, pageEvents)}
	names, err := s.collect(ctx, c, &g, x, p)
	if err != nil {
		return nil, err
	}
	out := &filterOutput{Events: []filtered{}, SearchedLogStreams: []none{}}
	for _, e := range p.sorted() {
		out.Events = append(out.Events, filtered{cmp.Or(e.stream, names[e.instance]), e.ms, e.came, e.message, e.String()})
	}
	if p.cut != nil {
		out.NextToken = out.Events[len(out.Events)-1].EventId
	}
	return out, s.allThere(ctx, c, &g, in.LogStreamNames, out)
}

// allThere says which of the streams that were asked for is not there; those of events are.
func (s *service) allThere(ctx context.Context, c *wire.Call, g *group, wanted []string, out *filterOutput) error {
	for _, name := range wanted {
		if slices.ContainsFunc(out.Events, func(e filtered) bool { return e.LogStreamName == name }) {
			continue
		}
		if err := s.streamThere(ctx, c, g, name); err != nil {
			return err
		}
	}
	return nil
}
