package expr

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"

	"github.com/ebb-run/ebb/internal/store"
)

// Match tells whether a condition holds for an Item; nil is the Item that is not there. A nil Condition always holds.
func (c *Condition) Match(it store.Item) bool { return c == nil || c.root.match(it) }

func (n *node) match(it store.Item) bool {
	switch n.op {
	case "and":
		return n.sub[0].match(it) && n.sub[1].match(it)
	case "or":
		return n.sub[0].match(it) || n.sub[1].match(it)
	case "not":
		return !n.sub[0].match(it)
	case "all":
		return !slices.ContainsFunc(n.sub, func(s *node) bool { return !s.match(it) })
	case "any":
		return slices.ContainsFunc(n.sub, func(s *node) bool { return s.match(it) })
	}
	var room [3]store.Value
	values := room[:0]
	for i := range n.args {
		v, _ := n.args[i].eval(it)
		values = append(values, v)
	}
	return compare(n.op, values)
}

// eval returns an operand's value; ok is false, and the Value of no kind, when there is none.
func (o *operand) eval(it store.Item) (store.Value, bool) {
	switch {
	case o.form == literal:
		return o.lit, true
	case o.form == document:
		return o.path.find(it)
	case o.form == function && o.name == "size":
		v, ok := o.args[0].eval(it)
		if !ok {
			return store.Value{}, false
		}
		n, ok := size(v)
		return store.Num(strconv.Itoa(n)), ok
	}
	return store.Value{}, false
}

// size is what the function of that name gives: characters as Java counts them, bytes, or elements.
func size(v store.Value) (int, bool) {
	switch v.Kind {
	case store.S:
		n := 0
		for _, r := range v.Str {
			n += max(1, utf16.RuneLen(r))
		}
		return n, true
	case store.B:
		return len(v.Str), true
	case store.SS, store.NS, store.BS:
		return len(v.Set), true
	case store.L:
		return len(v.List), true
	case store.M:
		return len(v.Map), true
	}
	return 0, false
}

// compare applies a comparator or function to values; those that are not there have no kind.
func compare(op string, v []store.Value) bool {
	a := v[0]
	there := a.Kind != store.None
	switch op {
	case "attribute_exists":
		return there
	case "attribute_not_exists":
		return !there
	case "<>":
		return !there || !a.Equal(v[1])
	case "not_contains":
		return !contains(a, v[1])
	}
	if !there {
		return false
	}
	switch op {
	case "=":
		return a.Equal(v[1])
	case "in":
		return slices.ContainsFunc(v[1:], a.Equal)
	case "contains":
		return contains(a, v[1])
	case "begins_with":
		return a.Kind == v[1].Kind && (a.Kind == store.S || a.Kind == store.B) && strings.HasPrefix(a.Str, v[1].Str)
	case "attribute_type":
		return v[1].Kind == store.S && v[1].Str == a.Kind.String()
	case "between":
		low, ok1 := a.Compare(v[1])
		high, ok2 := a.Compare(v[2])
		return ok1 && ok2 && low >= 0 && high <= 0
	}
	c, ok := a.Compare(v[1])
	if !ok {
		return false
	}
	switch op {
	case "<":
		return c < 0
	case "<=":
		return c <= 0
	case ">":
		return c > 0
	case ">=":
		return c >= 0
	}
	return false
}

// contains tells whether a text or bytes hold a part, a set an element or a list a value.
func contains(in, what store.Value) bool {
	switch in.Kind {
	case store.S, store.B:
		return what.Kind == in.Kind && strings.Contains(in.Str, what.Str)
	case store.SS:
		return what.Kind == store.S && slices.Contains(in.Set, what.Str)
	case store.NS:
		return what.Kind == store.N && slices.Contains(in.Set, what.Str)
	case store.BS:
		return what.Kind == store.B && slices.Contains(in.Set, what.Str)
	case store.L:
		return what.Kind != store.None && slices.ContainsFunc(in.List, what.Equal)
	}
	return false
}
