package pattern

import (
	"errors"
	"sync"

	"github.com/ebb-run/ebb/internal/bus/rawjson"
	"github.com/ebb-run/ebb/internal/errs"
)

// flat is an event as the leaves that somebody asks for. It belongs to one call at a time.
type flat struct {
	leaves []leaf
	heads  map[*step]int32 // the first leaf of a step, plus one
	tails  map[*step]int32
	places []place // the arrays that leaves lie in, one leaf's after another's
	inside []place // of what is being read
	arrays int32
	nested bool // some leaf lies in an object in an array

	tried map[*conj]struct{} // of a Set's match
	join  joiner
}

// leaf is a scalar of the event, under a path that is asked for.
type leaf struct {
	value
	next     int32 // leaf of the same step, plus one
	from, to int32 // in places
}

// place says that something lies in one element of an array. Scalars do not count as lying in the array that holds them.
type place struct{ array, index int32 }

var events = sync.Pool{New: func() any {
	return &flat{heads: map[*step]int32{}, tails: map[*step]int32{}, tried: map[*conj]struct{}{}}
}}

// release gives the memory back, but for what an unusual event took.
func (f *flat) release() {
	if cap(f.leaves) > 4096 || cap(f.places) > 16384 || len(f.tried) > 4096 || cap(f.join.found) > 4096 {
		return
	}
	for i := range f.leaves { // a value's folded form stays for the next; the event's bytes must not
		if f.leaves[i].text = nil; cap(f.leaves[i].fold) > 256 {
			f.leaves[i].fold = nil
		}
	}
	f.leaves, f.places, f.inside = f.leaves[:0], f.places[:0], f.inside[:0]
	f.arrays, f.nested = 0, false
	clear(f.heads)
	clear(f.tails)
	clear(f.tried)
	events.Put(f)
}

func (f *flat) read(event []byte, root *step) error {
	if len(event) > MaxEventBytes {
		return errs.New(errs.TooLarge, "the event has %d bytes, more than %d", len(event), MaxEventBytes)
	}
	r := rawjson.Reader{Data: event, MaxDepth: maxEventDepth}
	if k := r.Peek(); k != rawjson.Object && k != rawjson.Bad && k != rawjson.End {
		return errs.New(errs.Invalid, "an event must be a JSON object")
	}
	err := f.object(&r, root)
	if err == nil {
		err = r.Finish()
	}
	var syntax *rawjson.SyntaxError
	if errors.As(err, &syntax) {
		line, col := rawjson.Place(event, syntax.Offset)
		return errs.New(errs.Invalid, "the event is not JSON: %s, line %d, column %d", syntax.Msg, line, col)
	}
	return err
}

func (f *flat) object(r *rawjson.Reader, s *step) error {
	return r.Object(func(key []byte, _ int) error {
		next := s.child(key)
		if next == nil {
			_, err := r.Skip()
			return err
		}
		return f.value(r, next)
	})
}

func (f *flat) value(r *rawjson.Reader, s *step) error {
	switch kind := r.Peek(); kind {
	case rawjson.Object:
		return f.object(r, s)
	case rawjson.Array:
		return f.array(r, s)
	case rawjson.String:
		text, err := r.Text()
		f.add(s, kind, text)
		return err
	default:
		text, err := r.Literal()
		f.add(s, kind, text)
		return err
	}
}

func (f *flat) array(r *rawjson.Reader, s *step) error {
	id := f.arrays
	f.arrays++
	return r.Array(func(i int) error {
		if k := r.Peek(); k != rawjson.Object && k != rawjson.Array {
			return f.value(r, s)
		}
		f.inside = append(f.inside, place{array: id, index: int32(i)})
		err := f.value(r, s)
		f.inside = f.inside[:len(f.inside)-1]
		return err
	})
}

// add notes a leaf, if its path is asked for.
func (f *flat) add(s *step, kind rawjson.Kind, text []byte) {
	if s.ends == 0 {
		return
	}
	n := len(f.leaves)
	if n < cap(f.leaves) {
		f.leaves = f.leaves[:n+1] // keeps the old one's folded bytes
	} else {
		f.leaves = append(f.leaves, leaf{})
	}
	l := &f.leaves[n]
	*l = leaf{value: value{kind: kind, text: text, fold: l.fold[:0]}}
	l.from = int32(len(f.places))
	f.places = append(f.places, f.inside...)
	l.to = int32(len(f.places))
	f.nested = f.nested || l.to > l.from
	if tail, ok := f.tails[s]; ok {
		f.leaves[tail].next = int32(n) + 1
	} else {
		f.heads[s] = int32(n) + 1
	}
	f.tails[s] = int32(n)
}

// passes says whether a leaf satisfies one of the tests.
func (c *cond) passes(l *leaf) bool {
	for i := range c.tests {
		if c.tests[i].match(&l.value) {
			return true
		}
	}
	return false
}

// match says whether all conditions hold, each for a leaf of its path, such that no two leaves lie in different elements of
// one array.
func (f *flat) match(c *conj) (bool, error) {
	loose := true // no condition depends on another
	for i := range c.conds {
		met, free := f.meets(c, &c.conds[i])
		if !met {
			return false, nil
		}
		loose = loose && free
	}
	if loose {
		return true, nil
	}
	return f.join.run(f, c)
}

// meets says whether a condition can hold by itself, and whether it does so whatever elements the others are in.
func (f *flat) meets(all *conj, c *cond) (met, free bool) {
	at := f.heads[c.step]
	if at == 0 {
		return c.absent, true
	}
	deep := false
	for ; at != 0; at = f.leaves[at-1].next {
		l := &f.leaves[at-1]
		switch passes := c.passes(l); {
		case passes && l.from == l.to:
			if free = true; !all.absences {
				return true, true
			}
		case passes, c.absent && l.from < l.to: // absent: others may be in another element
			deep = true
		}
	}
	// A leaf in an array binds the others to its element, and that can make a field absent: then it is a choice of its own.
	return free || deep, free && !deep
}
