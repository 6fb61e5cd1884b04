package events

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/bus/pattern"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
	"github.com/ebb-run/ebb/internal/wire"
)

// maxEntries is in bytes, of all entries of a request: EventBridge user guide, "Calculating PutEvents event entry size".
const maxEntries = 256 << 10

type putEventsInput struct{ Entries []entry }

type entry struct {
	Time                                                  *time.Time
	Source, DetailType, Detail, EventBusName, TraceHeader string
	Resources                                             []string
}

type putEventsOutput struct {
	FailedEntryCount int `wire:",always"`
	Entries          []entryResult
}

type entryResult struct{ EventId, ErrorCode, ErrorMessage string } //nolint:revive // the member's name

func (e *entry) size() int {
	n := len(e.Source) + len(e.DetailType) + len(e.Detail)
	if e.Time != nil {
		n += 14
	}
	for _, r := range e.Resources {
		n += len(r)
	}
	return n
}

// event makes the event of an entry, and gives the bus that it is for.
func (e *entry) event(now time.Time) (*event.Event, string, *wire.Error) {
	for _, one := range []struct{ name, value string }{{"Source", e.Source}, {"DetailType", e.DetailType}, {"Detail", e.Detail}} {
		if one.value == "" {
			return nil, "", wire.Errorf("InvalidArgument", "Parameter %s is not valid. Reason: %s is a required argument.", one.name, one.name)
		}
	}
	if strings.HasPrefix(e.Source, "aws.") {
		return nil, "", wire.Errorf("NotAuthorizedForSourceException", "Not authorized for the source.")
	}
	on, err := busOf(e.EventBusName)
	if err != nil {
		return nil, "", wire.Errorf("InvalidArgument", "Parameter EventBusName is not valid. Reason: it is neither the name nor the ARN of an event bus.")
	}
	at := now
	if e.Time != nil {
		at = *e.Time
	}
	out, err := event.FromEntry(event.Entry{ID: newUUID(), Time: at, Source: e.Source, DetailType: e.DetailType, Resources: e.Resources, Detail: []byte(e.Detail)})
	if err != nil { // source and detail type are there: it is the detail
		return nil, "", wire.Errorf("MalformedDetail", "Detail is malformed.")
	}
	if err := out.Validate(0); err != nil {
		return nil, "", wire.Errorf("InvalidArgument", "%s", err)
	}
	if trace := traceOf(e.TraceHeader); trace != "" {
		out.SetExtension(bus.TraceParent, trace)
	}
	return out, on, nil
}

func (s *service) putEvents(ctx context.Context, c *wire.Call, in *putEventsInput) (*putEventsOutput, error) {
	size := 0
	for i := range in.Entries {
		size += in.Entries[i].size()
	}
	if size > maxEntries {
		return nil, invalid("Total size of the entries in the request is over the limit.")
	}
	out := &putEventsOutput{Entries: make([]entryResult, len(in.Entries))}
	type group struct {
		events []*event.Event
		at     []int
	}
	groups := map[string]*group{}
	var order []string
	for i := range in.Entries {
		e, on, fault := in.Entries[i].event(c.Now)
		if fault != nil {
			out.Entries[i] = entryResult{ErrorCode: fault.Code, ErrorMessage: fault.Message}
			out.FailedEntryCount++
			continue
		}
		if groups[on] == nil {
			groups[on] = &group{}
			order = append(order, on)
		}
		g := groups[on]
		g.events, g.at = append(g.events, e), append(g.at, i)
	}
	for n, on := range order {
		g := groups[on]
		err := s.node.PutEvents(ctx, c.Caller, on, g.events)
		if errs.CodeOf(err) == errs.Forbidden {
			err = wire.Errorf("AccessDeniedException", "User: %s is not authorized to perform: events:PutEvents on resource: %s: %s", c.Caller.ARN, busARN(c, on), err)
		}
		if err != nil && n == 0 && len(order) == 1 && out.FailedEntryCount == 0 {
			return nil, err // all of the request, which its client may try again as a whole
		}
		for k, i := range g.at {
			if err == nil {
				out.Entries[i].EventId = g.events[k].ID
				continue
			}
			code, text := "InternalFailure", "An internal error has occurred"
			if e, ok := err.(*wire.Error); ok {
				code, text = e.Code, e.Message
			} else if e := translate(c, err); e != nil {
				code, text = e.Code, e.Message
			}
			out.Entries[i] = entryResult{ErrorCode: code, ErrorMessage: text}
			out.FailedEntryCount++
		}
	}
	return out, nil
}

var (
	rootRE   = regexp.MustCompile(`(?:^|;)\s*Root=1-([0-9a-f]{8})-([0-9a-f]{24})(?:;|$)`)
	parentRE = regexp.MustCompile(`(?:^|;)\s*Parent=([0-9a-f]{16})(?:;|$)`)
)

// traceOf is an X-Ray header as a traceparent, or "".
func traceOf(header string) string {
	root := rootRE.FindStringSubmatch(header)
	parent := parentRE.FindStringSubmatch(header)
	if root == nil || parent == nil {
		return ""
	}
	flags := "00"
	if strings.Contains(header, "Sampled=1") {
		flags = "01"
	}
	return "00-" + root[1] + root[2] + "-" + parent[1] + "-" + flags
}

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails; see crypto/rand
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

type testEventPatternInput struct{ EventPattern, Event string }

type testEventPatternOutput struct {
	Result bool `wire:",always"`
}

// patternOf reads an event pattern.
func patternOf(text string) (*pattern.Pattern, error) {
	p, err := pattern.Parse([]byte(text))
	if err != nil {
		return nil, wire.Errorf("InvalidEventPatternException", "Event pattern is not valid. Reason: %s", err)
	}
	return p, nil
}

// needed are the members that an event to test has to have.
var needed = []string{"id", "account", "source", "time", "region", "resources", "detail-type"} // never written

func (s *service) testEventPattern(_ context.Context, _ *wire.Call, in *testEventPatternInput) (*testEventPatternOutput, error) {
	p, err := patternOf(in.EventPattern)
	if err != nil {
		return nil, err
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(in.Event), &members); err != nil || members == nil {
		return nil, invalid("Parameter Event is not valid.")
	}
	for _, name := range needed {
		if _, ok := members[name]; !ok {
			return nil, invalid("Parameter Event is not valid. Reason: it has no %q.", name)
		}
	}
	ok, err := p.Match([]byte(in.Event))
	if err != nil {
		return nil, invalid("Parameter Event is not valid. Reason: %s", err)
	}
	return &testEventPatternOutput{Result: ok}, nil
}
