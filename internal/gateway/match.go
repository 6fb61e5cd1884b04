package gateway

import (
	"strings"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/invocation"
)

// urlPrefix is where function URLs are on every host: urlPrefix + key + "/…".
const urlPrefix = "/_url/"

// match is what a request found.
type match struct {
	front  *front // whose rules answer the request, even where it found no route; nil where nothing is there at all
	route  *route // nil: not found
	params []invocation.Param
	path   string // without stage or function URL prefix
}

// match finds the route of a site for a raw path. Among several fronts the most specific pattern wins; a path that
// begins with the stage is read without it first.
func (s *site) match(method, path string) match {
	if rest, ok := strings.CutPrefix(path, urlPrefix); ok {
		key, tail, _ := strings.Cut(rest, "/")
		if f := s.urls[decode(key)]; f != nil {
			return f.own("/" + tail)
		}
	}
	if s.root != nil {
		return s.root.own(path)
	}
	var best match
	for _, f := range s.fronts {
		if tail, ok := f.strip(path); ok {
			best = better(best, f.match(method, tail))
		}
		best = better(best, f.match(method, path))
	}
	return best
}

// own is the match of a function URL, which takes every path.
func (f *front) own(path string) match { return match{front: f, route: f.def, path: path} }

// strip removes the stage from the front of a path.
func (f *front) strip(path string) (string, bool) {
	if f.prefix == "" || !strings.HasPrefix(path, f.prefix) {
		return "", false
	}
	switch tail := path[len(f.prefix):]; {
	case tail == "":
		return "/", true
	case tail[0] == '/':
		return tail, true
	}
	return "", false
}

// better keeps the more specific of two matches, the first where they are equal.
func better(a, b match) match {
	switch {
	case b.route == nil:
		if a.front == nil {
			return b
		}
		return a
	case a.route == nil:
		return b
	}
	ca, cb := a.route.class(), b.route.class()
	// Two readings of one front, with and without its stage: the first, without it, stays.
	if cb > ca || cb == ca && a.front != b.front && b.route.shape > a.route.shape {
		return b
	}
	return a
}

// match finds a route for a path without stage.
func (f *front) match(method, path string) match {
	m := match{front: f, path: path}
	rest := strings.TrimPrefix(path, "/")
	s := search{method: method}
	if f.kind == app.REST {
		// A REST API takes a path with and without a slash at its end for the same.
		if len(rest) > 1 {
			rest = strings.TrimSuffix(rest, "/")
		}
		s.strict, s.greedy = true, true
		s.walk(&f.tree, rest, rest != "")
	} else if s.walk(&f.tree, rest, rest != ""); s.found == nil {
		s.caps, s.greedy = s.caps[:0], true
		s.walk(&f.tree, rest, rest != "")
	}
	switch {
	case s.found != nil:
		m.route = s.found
	case f.def != nil:
		m.route = f.def
		return m
	default:
		return m
	}
	if len(m.route.params) > 0 {
		m.params = make([]invocation.Param, len(m.route.params))
		for i, name := range m.route.params {
			m.params[i] = invocation.Param{Name: name, Value: s.caps[i]}
		}
	}
	return m
}
