package expr

import (
	"slices"

	"github.com/ebb-run/ebb/internal/store"
)

// Projection picks parts of Items.
type Projection struct {
	paths  []Path
	nested map[string]bool
	tree   *pick
}

// pick is what is wanted of a value: all of it, or some of its parts.
type pick struct {
	all    bool
	names  map[string]*pick
	places map[int]*pick
}

// ParseProjection reads a list of paths.
func ParseProjection(text string, scope *Scope) (*Projection, error) {
	if text == "" {
		return nil, fault("The expression can not be empty;")
	}
	p := newParser(text, scope)
	var paths []Path
	for {
		path, f := p.path()
		if f != nil {
			return nil, f
		}
		paths = append(paths, path)
		if p.take(",") {
			continue
		}
		if p.peek().kind != end {
			return nil, p.syntax()
		}
		break
	}
	p.overlaps(paths)
	if msg := p.first("reserved", "name", "overlap", "conflict"); msg != "" {
		return nil, fault("%s", msg)
	}
	return project(paths, p.nested), nil
}

// Attributes picks whole attributes by name.
func Attributes(names []string) *Projection {
	paths := make([]Path, len(names))
	for i, n := range names {
		paths[i] = Path{{Name: n}}
	}
	return project(paths, nil)
}

func project(paths []Path, nested map[string]bool) *Projection {
	root := &pick{}
	for _, path := range paths {
		at := root
		for _, e := range path {
			at = at.part(e)
		}
		at.all = true
	}
	return &Projection{paths: paths, nested: nested, tree: root}
}

func (w *pick) part(e Elem) *pick {
	if e.Name != "" {
		if w.names == nil {
			w.names = map[string]*pick{}
		}
		if w.names[e.Name] == nil {
			w.names[e.Name] = &pick{}
		}
		return w.names[e.Name]
	}
	if w.places == nil {
		w.places = map[int]*pick{}
	}
	if w.places[e.Index] == nil {
		w.places[e.Index] = &pick{}
	}
	return w.places[e.Index]
}

// overlaps notes paths of which one is a part of another, or which take one value for a map and a list.
func (p *parser) overlaps(paths []Path) {
	for i, b := range paths {
		for _, a := range paths[:i] {
			p.overlap(a, b)
		}
	}
}

func (p *parser) overlap(a, b Path) {
	const both = "must remove or rewrite one of these paths; path one: %s, path two: %s"
	for i := range min(len(a), len(b)) {
		if (a[i].Name == "") != (b[i].Name == "") {
			p.note("conflict", "Two document paths conflict with each other; "+both, a, b)
			return
		}
		if a[i] != b[i] {
			return
		}
	}
	p.note("overlap", "Two document paths overlap with each other; "+both, a, b)
}

// Nested returns whether a path leads into the attribute.
func (p *Projection) Nested(name string) bool { return p != nil && p.nested[name] }

// Heads returns the names of the attributes that the paths begin with.
func (p *Projection) Heads() []string {
	var names []string
	for _, path := range p.paths {
		if !slices.Contains(names, path[0].Name) {
			names = append(names, path[0].Name)
		}
	}
	return names
}

// Of returns the parts of an Item, those that are there. A nil Projection gives the Item.
func (p *Projection) Of(it store.Item) store.Item {
	if p == nil || it == nil {
		return it
	}
	out := store.Item{}
	for name, w := range p.tree.names {
		if v, ok := it[name]; ok {
			if part, ok := w.of(v); ok {
				out[name] = part
			}
		}
	}
	return out
}

func (w *pick) of(v store.Value) (store.Value, bool) {
	switch {
	case w.all:
		return v, true
	case v.Kind == store.M && w.names != nil:
		out := store.Item{}
		for name, inner := range w.names {
			if e, ok := v.Map[name]; ok {
				if part, ok := inner.of(e); ok {
					out[name] = part
				}
			}
		}
		return store.Value{Kind: store.M, Map: out}, len(out) > 0
	case v.Kind == store.L && w.places != nil:
		var out []store.Value
		for i, e := range v.List {
			if inner := w.places[i]; inner != nil {
				if part, ok := inner.of(e); ok {
					out = append(out, part)
				}
			}
		}
		return store.Value{Kind: store.L, List: out}, len(out) > 0
	}
	return store.Value{}, false
}
