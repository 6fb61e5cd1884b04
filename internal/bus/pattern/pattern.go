// Package pattern matches events against EventBridge event patterns, one by one or many at once.
//
// Main types: [Pattern], made by [Compile], and [Set], which finds those of many Patterns that match an event.
//
// Guarantees:
//
//  1. All operators that EventBridge documents: exact values, prefix, suffix, anything-but, numeric, cidr, exists, wildcard,
//     equals-ignore-case and $or, with their nestings. What a pattern does not name is not looked at.
//  2. A pattern with faults is refused with every fault that one pass finds, each with its JSON path, line and column.
//  3. Conditions on fields of objects in an array hold for one and the same element, conditions being taken in the order of
//     their paths; so does the absence of a field. A dot in a key is the same as nesting.
//  4. Matching never panics, takes memory by the size of the event (and of what may match it, for a Set, not of what is in it),
//     and its time is bounded.
//  5. A Set gives what its Patterns give one by one.
//
// Numbers are equal by value (300, 300.0 and 3e2), as in AWS's matcher; a text in AWS's guide says otherwise. A number that a
// float64 does not hold exactly is compared by its text and lies in no range. A string that is an IP address is equal to other
// spellings of the address.
//
// It knows nothing of subscriptions, and it does not change events.
package pattern

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/errs"
)

// Limits of patterns and events; zero fields of Options take them.
const (
	MaxBytes        = 4096      // of a pattern: EventBridge quotas, "Event pattern size" at its highest
	MaxDepth        = 64        // of a pattern
	MaxCombinations = 1000      // of $or branches: EventBridge, "Or matching"
	MaxEventBytes   = 130 << 20 // what the bus carries at most, and some more
	maxEventDepth   = 512
	maxFields       = 2000  // of one combination of $or branches; ebb's own, as is the next
	maxConditions   = 50000 // of all combinations
)

// Options say how a pattern is read.
type Options struct {
	File            string // the File of diagnostics
	MaxBytes        int
	MaxDepth        int
	MaxCombinations int
	NumberLimit     float64 // numbers beyond it in a pattern are warned of; 0 means EventBridge's 5e9
}

// Pattern is a compiled pattern. It is immutable.
type Pattern struct {
	source string
	alts   []conj // any of them
	root   *step
}

// conj is a list of conditions that must hold together, in the order of their paths.
type conj struct {
	conds    []cond
	absences bool // some condition may be met by absence
}

// cond is what one path must satisfy: one of its tests, or absence.
type cond struct {
	path   string // keys joined by dots
	step   *step  // of path, in the tree that events are read by
	tests  []test // any of them
	absent bool   // or the field is not there
}

// step is a place in the tree of paths that somebody asks for. Events are read along it.
type step struct {
	children map[string]*step
	parent   *step
	key      string
	refs     int    // conditions that end here or below
	ends     int    // conditions that end here
	index    *index // of a Set
}

// walk finds the step of a path, making what is not there.
func (s *step) walk(path string) *step {
	for key := range strings.SplitSeq(path, ".") {
		next := s.children[key]
		if next == nil {
			if s.children == nil {
				s.children = map[string]*step{}
			}
			next = &step{parent: s, key: key}
			s.children[key] = next
		}
		s = next
	}
	s.ends++
	for at := s; at != nil; at = at.parent {
		at.refs++
	}
	return s
}

// release undoes a walk.
func (s *step) release() {
	s.ends--
	for at := s; at != nil; at = at.parent {
		if at.refs--; at.refs == 0 && at.parent != nil {
			delete(at.parent.children, at.key)
		}
	}
}

// child is where a key of an event leads to, or nil.
func (s *step) child(key []byte) *step {
	next := s.children[string(key)]
	if next != nil || !slices.Contains(key, '.') {
		return next
	}
	for part := range strings.SplitSeq(string(key), ".") {
		if s = s.children[part]; s == nil {
			return nil
		}
	}
	return s
}

// bind gives a copy of c whose conditions lie in the tree at root.
func (c conj) bind(root *step) conj {
	out := conj{conds: slices.Clone(c.conds)}
	for i := range out.conds {
		out.conds[i].step = root.walk(out.conds[i].path)
		out.absences = out.absences || out.conds[i].absent
	}
	return out
}

// Compile reads a pattern. With errors in the list there is no Pattern; warnings leave it usable.
func Compile(source []byte, o Options) (*Pattern, diag.List) {
	c := newCompiler(source, o)
	alts := c.compile()
	if c.list.HasErrors() {
		return nil, c.list.Sorted()
	}
	p := &Pattern{source: string(source), root: &step{}}
	for _, a := range alts {
		slices.SortFunc(a.conds, func(x, y cond) int { return strings.Compare(x.path, y.path) })
		p.alts = append(p.alts, a.bind(p.root))
	}
	return p, c.list.Sorted()
}

// Parse is Compile with the default Options and the first fault as an error.
func Parse(source []byte) (*Pattern, error) {
	p, list := Compile(source, Options{})
	return p, Fault(list)
}

// Fault is the first error of a list as an error of code Invalid, with the place in the message, or nil.
func Fault(list diag.List) error {
	for _, d := range list {
		if d.Severity == diag.Error {
			at := d.Pos.String()
			if d.File == "" && d.Line > 0 {
				at = fmt.Sprintf("line %d, column %d", d.Line, d.Col)
			}
			err := errs.New(errs.Invalid, "%s: %s", at, d.Message)
			err.Hint = d.Hint
			return err
		}
	}
	return nil
}

// String is the pattern's source.
func (p *Pattern) String() string { return p.source }

// Match says whether the pattern matches an event, which must be a JSON object. The errors: Invalid for what is none, TooLarge
// for an event beyond the limits, or one whose arrays lie such that to decide would take too long.
func (p *Pattern) Match(event []byte) (bool, error) {
	ev := events.Get().(*flat)
	defer ev.release()
	if err := ev.read(event, p.root); err != nil {
		return false, err
	}
	for i := range p.alts {
		if ok, err := ev.match(&p.alts[i]); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}
