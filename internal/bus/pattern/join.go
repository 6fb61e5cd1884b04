package pattern

import (
	"encoding/binary"
	"slices"

	"github.com/ebb-run/ebb/internal/errs"
)

// maxWork bounds what one conj may cost on one event; ordinary ones take some hundreds.
const maxWork = 1 << 20

// joiner finds leaves for all conditions that lie in the same element of each array they share.
//
// It goes from condition to condition with the set of choices made so far (array → element), dropping from each what no later
// condition asks about and what is there twice: what remains grows with the elements of an array, not with their combinations.
type joiner struct {
	work  int
	last  map[int32]int // the last condition that asks about an array
	key   []byte
	found []choice
}

// choice is a set of places, ordered by array.
type choice []place

func (c choice) index(array int32) (int32, bool) {
	for _, p := range c {
		if p.array == array {
			return p.index, true
		}
	}
	return 0, false
}

func (c choice) agrees(places []place) bool {
	for _, p := range places {
		if i, ok := c.index(p.array); ok && i != p.index {
			return false
		}
	}
	return true
}

// tree holds the places of the leaves that satisfy a condition, outermost array first.
type tree struct {
	leaf   bool
	arrays []branch // mostly one
}

type branch struct {
	array    int32
	elements map[int32]*tree
}

func (t *tree) add(places []place) {
	for _, p := range places {
		at := slices.IndexFunc(t.arrays, func(b branch) bool { return b.array == p.array })
		if at < 0 {
			at = len(t.arrays)
			t.arrays = append(t.arrays, branch{array: p.array, elements: map[int32]*tree{}})
		}
		next := t.arrays[at].elements[p.index]
		if next == nil {
			next = &tree{}
			t.arrays[at].elements[p.index] = next
		}
		t = next
	}
	t.leaf = true
}

// part is a condition with its leaves' places.
type part struct {
	accept tree
	absent bool
	others [][]place // of an absent condition: where the field is
}

// parts leaves out the conditions that hold in any case.
func (j *joiner) parts(f *flat, c *conj) []part {
	clear(j.last)
	var parts []part
	for i := range c.conds {
		cd := &c.conds[i]
		if _, free := f.meets(c, cd); free {
			continue
		}
		p := part{absent: cd.absent}
		for at := f.heads[cd.step]; at != 0; at = f.leaves[at-1].next {
			l := &f.leaves[at-1]
			places := f.places[l.from:l.to]
			passes := cd.passes(l)
			if !passes && !cd.absent {
				continue
			}
			for _, q := range places {
				j.last[q.array] = len(parts)
			}
			if cd.absent {
				p.others = append(p.others, places)
			}
			if passes {
				p.accept.add(places)
			}
		}
		parts = append(parts, p)
	}
	return parts
}

func (j *joiner) run(f *flat, c *conj) (bool, error) {
	if j.last == nil {
		j.last = map[int32]int{}
	}
	j.work = 0
	choices := []choice{nil}
	for i, p := range j.parts(f, c) {
		seen := map[string]struct{}{}
		var next []choice
		for _, ch := range choices {
			j.found = j.found[:0]
			if p.absent && !slices.ContainsFunc(p.others, func(o []place) bool { j.work++; return ch.agrees(o) }) {
				j.found = append(j.found, ch)
			} else {
				j.extend(&p.accept, ch, c.absences)
			}
			for _, ch := range j.found {
				ch = j.keep(ch, i)
				if _, ok := seen[string(j.key)]; !ok {
					seen[string(j.key)] = struct{}{}
					next = append(next, ch)
				}
			}
			if j.work > maxWork {
				return false, errs.New(errs.TooLarge, "the event has too many elements in its arrays to match it against a pattern over several of their fields")
			}
		}
		if choices = next; len(choices) == 0 {
			return false, nil
		}
	}
	return true, nil
}

// extend finds the ways to add one of a condition's leaves to a choice.
func (j *joiner) extend(t *tree, ch choice, all bool) {
	if j.work++; j.work > maxWork {
		return
	}
	if t.leaf {
		j.found = append(j.found, ch)
		if !all { // what binds less is better, unless something is to be absent
			return
		}
	}
	for _, b := range t.arrays {
		if i, ok := ch.index(b.array); ok {
			if next := b.elements[i]; next != nil {
				j.extend(next, ch, all)
			}
			continue
		}
		for i, next := range b.elements {
			j.extend(next, append(slices.Clip(ch), place{array: b.array, index: i}), all)
		}
	}
}

// keep drops what no condition behind the i-th asks about, and leaves the rest in key.
func (j *joiner) keep(ch choice, i int) choice {
	out := make(choice, 0, len(ch))
	for _, p := range ch {
		if j.last[p.array] > i {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b place) int { return int(a.array - b.array) })
	j.key = j.key[:0]
	for _, p := range out {
		j.key = binary.LittleEndian.AppendUint64(j.key, uint64(uint32(p.array))<<32|uint64(uint32(p.index)))
	}
	return out
}
