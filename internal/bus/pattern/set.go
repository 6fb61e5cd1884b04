package pattern

import (
	"errors"
	"fmt"
	"slices"
	"sync"
)

// Set finds those of many Patterns that match an event. It is safe for concurrent use; matching shares a lock with matching.
//
// Each alternative of a Pattern is filed under the one of its conditions that the fewest others are filed under so far, by the
// values that the condition accepts. An event's leaves lead to the alternatives that may match, and those are tested whole. So
// the time goes with what nearly matches: an event that differs from all Patterns in a filed value costs the same with ten as with
// ten thousand. What cannot be filed by value (anything-but, exists, a wildcard without fixed ends) is looked at whenever its field
// is there, and Patterns of absences alone always.
type Set[ID comparable] struct {
	mu struct {
		sync.RWMutex
		rules  map[ID]*rule[ID]
		root   *step
		always []*entry // alternatives that no field leads to
	}
}

// rule is a Pattern in a Set.
type rule[ID comparable] struct {
	id      ID
	entries []*entry
}

// entry is one alternative of a rule, where it is filed.
type entry struct {
	conj
	owner any // *rule[ID]
	only  bool
	slots []slot // where it is filed; none for always
	step  *step
}

// NewSet makes an empty Set.
func NewSet[ID comparable]() *Set[ID] {
	s := &Set[ID]{}
	s.mu.rules = map[ID]*rule[ID]{}
	s.mu.root = &step{}
	return s
}

// Len is how many Patterns are in the Set.
func (s *Set[ID]) Len() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.mu.rules)
}

// Add files a Pattern under an ID, in place of what was there.
func (s *Set[ID]) Add(id ID, p *Pattern) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(id)
	r := &rule[ID]{id: id}
	for _, a := range p.alts {
		e := &entry{conj: a.bind(s.mu.root), owner: r, only: len(p.alts) == 1}
		if at := cheapest(e.conds); at == nil {
			s.mu.always = append(s.mu.always, e)
		} else {
			e.step = at.step
			if e.step.index == nil {
				e.step.index = newIndex()
			}
			for i := range at.tests {
				e.slots = at.tests[i].slots(e.slots)
			}
			e.step.index.add(e)
		}
		r.entries = append(r.entries, e)
	}
	s.mu.rules[id] = r
}

// cheapest is the condition that an alternative is best filed under, or nil when absence would do for all.
func cheapest(conds []cond) *cond {
	var best *cond
	least := 0
	for i := range conds {
		c := &conds[i]
		if c.absent {
			continue
		}
		cost := 0
		for k := range c.tests {
			cost += c.tests[k].cost(c.step.index)
		}
		if best == nil || cost < least {
			best, least = c, cost
		}
	}
	return best
}

// Remove takes a Pattern out and says whether it was there.
func (s *Set[ID]) Remove(id ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.remove(id)
}

func (s *Set[ID]) remove(id ID) bool {
	r := s.mu.rules[id]
	if r == nil {
		return false
	}
	delete(s.mu.rules, id)
	for _, e := range r.entries {
		if e.step == nil {
			s.mu.always = without(s.mu.always, e)
		} else if e.step.index.remove(e); e.step.index.empty() {
			e.step.index = nil
		}
		for i := range e.conds {
			e.conds[i].step.release()
		}
	}
	return true
}

// without takes one entry out of a list whose order does not matter.
func without(list []*entry, e *entry) []*entry {
	if i := slices.Index(list, e); i >= 0 {
		last := len(list) - 1
		list[i], list[last] = list[last], nil
		list = list[:last]
	}
	return list
}

// Match appends the IDs of the Patterns that match an event, in no order and each once. Errors are as those of Pattern.Match; with
// one that concerns some Patterns only, those are named in it and the IDs of the others are there.
func (s *Set[ID]) Match(event []byte, ids []ID) ([]ID, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	f := events.Get().(*flat)
	defer f.release()
	if err := f.read(event, s.mu.root); err != nil {
		return ids, err
	}
	var faults []error
	first := len(ids)
	try := func(e *entry) {
		r := e.owner.(*rule[ID])
		if _, done := f.tried[&e.conj]; done {
			return
		}
		f.tried[&e.conj] = struct{}{}
		ok, err := f.match(&e.conj)
		if err != nil {
			faults = append(faults, fmt.Errorf("rule %v: %w", r.id, err))
		} else if ok && (e.only || !slices.Contains(ids[first:], r.id)) {
			ids = append(ids, r.id)
		}
	}
	for _, e := range s.mu.always {
		try(e)
	}
	for at := range f.heads {
		if at.index == nil {
			continue
		}
		for n := f.heads[at]; n != 0; n = f.leaves[n-1].next {
			at.index.find(&f.leaves[n-1].value, try)
		}
	}
	return ids, errors.Join(faults...)
}
