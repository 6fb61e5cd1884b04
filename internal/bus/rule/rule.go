// Package rule reads what a Subscription of the bus wants, and what its target is to get of it.
//
// Main types: [Filter], the stored form; [Compile], which makes the bus's Matcher of it; [Index], which finds those of many event patterns and filter
// policies that an event matches; and [Input], what takes an event's place.
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
	// Policy is SNS's filter policy, against the message attributes or the message; Scope says which.
	Policy json.RawMessage `json:"policy,omitempty"`
	Scope  filter.Scope    `json:"scope,omitempty"`
	// Account and Region are those of the envelope that a Pattern is matched against.
	Account string `json:"account,omitempty"`
	Region  string `json:"region,omitempty"`
}

// Encode gives the stored form; empty for a Filter that asks for nothing.
func (f Filter) Encode() (json.RawMessage, error) {
	if f.Pattern == nil && f.Filters == nil && f.Policy == nil {
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
	given := 0
	for _, part := range []json.RawMessage{f.Pattern, f.Filters, f.Policy} {
		if part != nil {
			given++
		}
	}
	if given > 1 {
		return f, errs.New(errs.Invalid, "a filter is an event pattern, an expression or a filter policy, not several of them")
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
	case f.Policy != nil:
		p, err := policyOf(f)
		if err != nil {
			return nil, err
		}
		return policed{p}, nil
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

func policyOf(f Filter) (*filter.Policy, error) {
	p, list := filter.CompilePolicy(f.Policy, f.Scope, "")
	return p, pattern.Fault(list)
}

type policed struct{ p *filter.Policy }

func (m policed) Match(e *event.Event) bool {
	ok, err := m.p.Match(messageAttributes(e), e.Data)
	return ok && err == nil
}

// messageAttributes gives those of a publication as policies see them.
func messageAttributes(e *event.Event) map[string]filter.Attribute {
	all := bus.Attributes(e)
	out := make(map[string]filter.Attribute, len(all))
	for name, a := range all {
		out[name] = filter.Attribute{Type: a.Type, Value: a.Text}
	}
	return out
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

// Index is the bus's Index of Filters with patterns or policies.
type Index struct {
	sets   map[place]*pattern.Set[int64]
	places map[int64]place
}

// place is what the view differs by that patterns are matched against: an envelope, or with a scope that of a policy.
type place struct {
	account, region string
	scope           filter.Scope
}

// view is what the patterns of a place see of an event. False means that none matches.
func (at place) view(e *event.Event) ([]byte, bool) {
	if at.scope == "" {
		return event.Envelope(nil, e, at.account, at.region), true
	}
	var attributes map[string]filter.Attribute
	if at.scope == filter.MessageAttributes {
		attributes = messageAttributes(e)
	}
	return filter.View(at.scope, attributes, e.Data)
}

// NewIndex makes an empty Index.
func NewIndex() bus.Index {
	return &Index{sets: map[place]*pattern.Set[int64]{}, places: map[int64]place{}}
}

// Add files a Filter, or says that it is not one for an Index.
func (x *Index) Add(id int64, data json.RawMessage) bool {
	at, p := indexed(data)
	if p == nil {
		return false
	}
	if x.sets[at] == nil {
		x.sets[at] = pattern.NewSet[int64]()
	}
	x.sets[at].Add(id, p)
	x.places[id] = at
	return true
}

// indexed gives the pattern of a Filter and what it is matched against; nil where it has none.
func indexed(data json.RawMessage) (place, *pattern.Pattern) {
	f, err := decode(data)
	switch {
	case err != nil:
	case f.Pattern != nil:
		if p, err := pattern.Parse(f.Pattern); err == nil {
			return place{account: f.Account, region: f.Region}, p
		}
	case f.Policy != nil:
		if p, err := policyOf(f); err == nil {
			return place{scope: p.Scope()}, p.Pattern()
		}
	}
	return place{}, nil
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
		view, ok := at.view(e)
		if !ok {
			continue
		}
		ids, _ = s.Match(view, ids) // an error names what could not be decided on: those do not match
	}
	return ids
}

// Vars are what a template's reserved variables stand for.
type Vars = transform.Vars

// Transformer is a template and the variables in it.
type Transformer = transform.Transformer

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
