package expr

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strconv"

	"github.com/ebb-run/ebb/internal/store"
)

const (
	wrongOperand = "An operand in the update expression has an incorrect data type"
	wrongPath    = "The document path provided in the update expression is invalid for update"
	noAttribute  = "The provided expression refers to an attribute that does not exist in the item"
)

// NumberFault says what is wrong with a number that a sum came to.
func NumberFault(err error) string {
	switch {
	case errors.Is(err, store.ErrOverflow):
		return "Number overflow. Attempting to store a number with magnitude larger than supported range"
	case errors.Is(err, store.ErrUnderflow):
		return "Number underflow. Attempting to store a number with magnitude smaller than supported range"
	case errors.Is(err, store.ErrPrecision):
		return "Attempting to store more than 38 significant digits in a Number"
	}
	return "The parameter cannot be converted to a numeric value"
}

// Apply returns the Item after the update. All values are those of the Item before it.
func (u *Update) Apply(it store.Item) (store.Item, error) {
	if u == nil {
		return it, nil
	}
	w := work{root: store.Value{Kind: store.M, Map: maps.Clone(it)}, own: map[string]bool{"": true}, beyond: map[string][]late{}}
	if w.root.Map == nil {
		w.root.Map = store.Item{}
	}
	values := make([]store.Value, len(u.actions))
	for i, a := range u.actions {
		if a.op != "SET" {
			continue
		}
		v, f := a.val.compute(it)
		if f != nil {
			return nil, f
		}
		values[i] = v
	}
	for i, a := range u.actions {
		if f := w.do(a, values[i]); f != nil {
			return nil, f
		}
	}
	w.settle()
	return w.root.Map, nil
}

// compute returns the value of what is set.
func (o *operand) compute(it store.Item) (store.Value, *Fault) {
	switch {
	case o.form == literal:
		return o.lit, nil
	case o.form == document:
		if v, ok := o.path.find(it); ok {
			return v, nil
		}
		return store.Value{}, fault(noAttribute)
	case o.name == "if_not_exists":
		if v, ok := o.args[0].path.find(it); ok {
			return v, nil
		}
		return o.args[1].compute(it)
	}
	a, f := o.args[0].compute(it)
	if f != nil {
		return a, f
	}
	b, f := o.args[1].compute(it)
	if f != nil {
		return b, f
	}
	if o.name == "list_append" {
		if a.Kind != store.L || b.Kind != store.L {
			return a, fault(wrongOperand)
		}
		return store.Value{Kind: store.L, List: slices.Concat(a.List, b.List)}, nil
	}
	if a.Kind != store.N || b.Kind != store.N {
		return a, fault(wrongOperand)
	}
	return sum(o.name, a, b)
}

func sum(op string, a, b store.Value) (store.Value, *Fault) {
	add := store.Number.Add
	if op == "-" {
		add = store.Number.Sub
	}
	n, err := add(a.Number(), b.Number())
	if err != nil {
		return a, fault("%s", NumberFault(err))
	}
	return store.Num(n.String()), nil
}

// work is an Item being changed. Containers are copied once, when something in them changes first.
type work struct {
	root   store.Value
	own    map[string]bool   // containers that are copies, by the text of their path
	beyond map[string][]late // what is set behind the end of a list
	gone   []Path            // lists that lost elements
}

type late struct {
	index int
	value store.Value
}

func pathKey(p Path) string {
	var b []byte
	for _, e := range p {
		if e.Name == "" {
			b = strconv.AppendInt(append(b, '['), int64(e.Index), 10)
		} else {
			b = append(append(b, '.'), strconv.Quote(e.Name)...)
		}
	}
	return string(b)
}

// container returns the map or list at a path as one that may be changed, or nil.
func (w *work) container(p Path) *store.Value {
	if len(p) == 0 {
		return &w.root
	}
	parent := w.container(p[:len(p)-1])
	last := p[len(p)-1]
	var v store.Value
	switch {
	case parent == nil:
		return nil
	case parent.Kind == store.M && last.Name != "":
		v = parent.Map[last.Name]
	case parent.Kind == store.L && last.Name == "" && last.Index < len(parent.List):
		v = parent.List[last.Index]
	}
	if v.Kind != store.M && v.Kind != store.L {
		return nil
	}
	if key := pathKey(p); !w.own[key] {
		w.own[key] = true
		v.Map, v.List = maps.Clone(v.Map), slices.Clone(v.List)
		if v.Kind == store.M && v.Map == nil {
			v.Map = store.Item{}
		}
		if last.Name != "" {
			parent.Map[last.Name] = v
		} else {
			parent.List[last.Index] = v
		}
	}
	if last.Name == "" {
		return &parent.List[last.Index]
	}
	return &v // a map's copy is changed through its reference; a list in a map keeps its length until settle
}

func (w *work) do(a action, v store.Value) *Fault {
	last := a.path[len(a.path)-1]
	up := a.path[:len(a.path)-1]
	c := w.container(up)
	if c == nil || last.Name != "" && c.Kind != store.M || last.Name == "" && c.Kind != store.L {
		return fault(wrongPath)
	}
	var old store.Value
	if last.Name != "" {
		old = c.Map[last.Name]
	} else if last.Index < len(c.List) {
		old = c.List[last.Index]
	}
	switch a.op {
	case "ADD", "DELETE":
		var f *Fault
		if v, f = combine(a.op, old, a.val.lit); f != nil {
			return f
		}
	}
	switch {
	case last.Name != "" && v.Kind == store.None:
		delete(c.Map, last.Name)
	case last.Name != "":
		c.Map[last.Name] = v
	case v.Kind == store.None:
		if last.Index < len(c.List) {
			c.List[last.Index] = store.Value{} // taken out at the end, so that places keep their meaning
			w.gone = append(w.gone, up)
		}
	case last.Index < len(c.List):
		c.List[last.Index] = v
	default:
		key := pathKey(up)
		if w.beyond[key] == nil {
			w.gone = append(w.gone, up)
		}
		w.beyond[key] = append(w.beyond[key], late{last.Index, v})
	}
	return nil
}

// combine returns what ADD or DELETE makes of a value; None means that nothing stays.
func combine(op string, old, by store.Value) (store.Value, *Fault) {
	if old.Kind != store.None && old.Kind != by.Kind {
		return old, fault(wrongOperand)
	}
	switch {
	case by.Kind == store.N:
		if old.Kind == store.None {
			return by, nil
		}
		return sum("+", old, by)
	case op == "ADD":
		set := slices.Clone(old.Set)
		for _, s := range by.Set {
			if !slices.Contains(old.Set, s) {
				set = append(set, s)
			}
		}
		return store.Value{Kind: by.Kind, Set: set}, nil
	}
	set := slices.DeleteFunc(slices.Clone(old.Set), func(s string) bool { return slices.Contains(by.Set, s) })
	if len(set) == 0 {
		return store.Value{}, nil
	}
	return store.Value{Kind: old.Kind, Set: set}, nil
}

// settle takes out what was removed of lists and adds what was set behind their ends, the innermost first.
func (w *work) settle() {
	slices.SortStableFunc(w.gone, func(a, b Path) int { return cmp.Compare(len(b), len(a)) })
	done := map[string]bool{}
	for _, p := range w.gone {
		key := pathKey(p)
		if done[key] {
			continue
		}
		done[key] = true
		c := w.container(p)
		list := slices.DeleteFunc(slices.Clone(c.List), func(v store.Value) bool { return v.Kind == store.None })
		more := w.beyond[key]
		slices.SortStableFunc(more, func(a, b late) int { return cmp.Compare(a.index, b.index) })
		for _, m := range more {
			list = append(list, m.value)
		}
		parent, last := w.container(p[:len(p)-1]), p[len(p)-1]
		if last.Name != "" {
			parent.Map[last.Name] = store.Value{Kind: store.L, List: list}
		} else {
			parent.List[last.Index] = store.Value{Kind: store.L, List: list}
		}
	}
}
