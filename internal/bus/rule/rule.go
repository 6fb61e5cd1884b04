// Package rule reads what a Subscription of the bus wants, and what its target is to get of it.
//
// Main types: [Filter], the stored form; [Compile], which makes the bus's Matcher of it; [Index], which finds those of many event patterns that
// an event matches; and [Input], what takes an event's place.
//
// Guarantees:
//
//  1. A Filter that Compile refuses is refused with the place of the first fault and its mend.
//  2. An Index finds what the Matchers one by one would.
//  3. An event that cannot be decided on (its arrays are too large for a pattern) does not match.
//
// It knows nothing of targets, functions or logs.
package rule

import (
	"bytes"
	"encoding/json"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/bus/cesql"
	"github.com/ebb-run/ebb/internal/bus/filter"
	"github.com/ebb-run/ebb/internal/bus/pattern"
	"github.com/ebb-run/ebb/internal/bus/transform"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
)

// Filter is what a Subscription asks of an event. At most one of its parts is given.
type Filter struct {
	Pattern json.RawMessage `json:"pattern,omitempty"` // EventBridge's, against the event's [event.Envelope]
	Filters json.RawMessage `json:"filters,omitempty"` // of the CloudEvents Subscriptions API: one expression, or a list that must all hold
	// Account and Region are those of the envelope that a Pattern is matched against.
	Account string `json:"account,omitempty"`
	Region  string `json:"region,omitempty"`
}

// Encode gives the stored form; empty for a Filter that asks for nothing.
func (f Filter) Encode() (json.RawMessage, error) {
	if f.Pattern == nil && f.Filters == nil {
		return nil, nil
	}
	var data bytes.Buffer
	enc := json.NewEncoder(&data)
	enc.SetEscapeHTML(false) // people read it
	if err := enc.Encode(f); err != nil {
		return nil, errs.New(errs.Invalid, "the filter is not JSON: %w", err)
	}
	return bytes.TrimSuffix(data.Bytes(), []byte("\n")), nil
}

func decode(data json.RawMessage) (Filter, error) {
	var f Filter
	if err := json.Unmarshal(data, &f); err != nil {
		return f, errs.New(errs.Invalid, "read the filter: %w", err)
	}
	if f.Pattern != nil && f.Filters != nil {
		return f, errs.New(errs.Invalid, "a filter is an event pattern or an expression, not both")
	}
	return f, nil
}

// Compile is the bus's Compile.
func Compile(data json.RawMessage) (bus.Matcher, error) {
	f, err := decode(data)
	if err != nil {
		return nil, err
	}
	switch {
	case f.Pattern != nil:
		p, err := pattern.Parse(f.Pattern)
		if err != nil {
			return nil, err
		}
		return patterned{p, f.Account, f.Region}, nil
	case f.Filters != nil:
		x, list := filter.CompileFilter(f.Filters, "")
		if err := pattern.Fault(list); err != nil {
			return nil, err
		}
		return expressed{x}, nil
	}
	return anything{}, nil
}

type anything struct{}

func (anything) Match(*event.Event) bool { return true }

type patterned struct {
	p               *pattern.Pattern
	account, region string
}

func (m patterned) Match(e *event.Event) bool {
	ok, err := m.p.Match(event.Envelope(nil, e, m.account, m.region))
	return ok && err == nil
}

type expressed struct{ f *filter.Filter }

func (m expressed) Match(e *event.Event) bool { return m.f.Match(attributes(e)) }

// attributes gives an event's attributes to CESQL, which knows three types; the others are strings there.
func attributes(e *event.Event) cesql.Attributes {
	return func(name string) (cesql.Value, bool) {
		switch v := e.Extensions[name].(type) {
		case bool:
			return cesql.Boolean(v), true
		case int32:
			return cesql.Integer(v), true
		}
		text := e.Attribute(name)
		return cesql.String(text), text != ""
	}
}

// Index is the bus's Index of Filters with patterns.
type Index struct {
	sets   map[place]*pattern.Set[int64]
	places map[int64]place
}

// place is what an envelope differs by.
type place struct{ account, region string }

// NewIndex makes an empty Index.
func NewIndex() bus.Index {
	return &Index{sets: map[place]*pattern.Set[int64]{}, places: map[int64]place{}}
}

// Add files a Filter, or says that it is not one for an Index.
func (x *Index) Add(id int64, data json.RawMessage) bool {
	f, err := decode(data)
	if err != nil || f.Pattern == nil {
		return false
	}
	p, err := pattern.Parse(f.Pattern)
	if err != nil {
		return false
	}
	at := place{f.Account, f.Region}
	if x.sets[at] == nil {
		x.sets[at] = pattern.NewSet[int64]()
	}
	x.sets[at].Add(id, p)
	x.places[id] = at
	return true
}

// Remove takes a Filter out.
func (x *Index) Remove(id int64) {
	at, ok := x.places[id]
	if !ok {
		return
	}
	delete(x.places, id)
	if s := x.sets[at]; s.Remove(id) && s.Len() == 0 {
		delete(x.sets, at)
	}
}

// Match gives the ids of the Filters that the event passes, in no order.
func (x *Index) Match(e *event.Event) []int64 {
	var ids []int64
	for at, s := range x.sets {
		ids, _ = s.Match(event.Envelope(nil, e, at.account, at.region), ids) // an error names what could not be decided on: those do not match
	}
	return ids
}

// Vars are what a template's reserved variables stand for.
type Vars = transform.Vars

// Input is what a Subscription's target gets in place of the event.
type Input struct {
	transform.Spec
}

// Empty says whether the target gets the event itself.
func (in Input) Empty() bool {
	return in.Input == nil && in.InputPath == nil && in.Transformer == nil
}

// Compile reads the Input, which must not be empty.
func (in Input) Compile() (*transform.Transform, error) {
	t, list := transform.Compile(in.Spec, "")
	return t, pattern.Fault(list)
}
