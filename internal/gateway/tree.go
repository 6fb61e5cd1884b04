package gateway

import "strings"

// node is one path segment of a front's routes. Nodes do not change once built.
type node struct {
	static map[string]*node // by decoded text
	param  *node
	leaf   *leaf // routes that end here
	greedy *leaf // routes that end with {name+} below here
}

// leaf holds the routes of one pattern by method.
type leaf struct {
	methods map[string]*route
	any     *route
}

func (l *leaf) find(method string) *route {
	if r := l.methods[method]; r != nil {
		return r
	}
	return l.any
}

// insert adds a route at its pattern. Of two with the same pattern and method the first stays.
func (n *node) insert(r *route) {
	for rest := strings.TrimPrefix(r.route.Pattern, "/"); rest != ""; {
		var seg string
		seg, rest, _ = strings.Cut(rest, "/")
		name, isParam := paramName(seg)
		switch {
		case isParam && strings.HasSuffix(name, "+"):
			r.params = append(r.params, strings.TrimSuffix(name, "+"))
			r.shape += "1"
			if n.greedy == nil {
				n.greedy = &leaf{methods: map[string]*route{}}
			}
			n.greedy.add(r)
			return
		case isParam:
			r.params = append(r.params, name)
			r.shape += "2"
			if n.param == nil {
				n.param = &node{}
			}
			n = n.param
		default:
			seg = decode(seg)
			r.shape += "3"
			if n.static == nil {
				n.static = map[string]*node{}
			}
			if n.static[seg] == nil {
				n.static[seg] = &node{}
			}
			n = n.static[seg]
		}
	}
	if n.leaf == nil {
		n.leaf = &leaf{methods: map[string]*route{}}
	}
	n.leaf.add(r)
}

func (l *leaf) add(r *route) {
	if r.route.Method == "ANY" {
		if l.any == nil {
			l.any = r
		}
		return
	}
	if l.methods[r.route.Method] == nil {
		l.methods[r.route.Method] = r
	}
}

func paramName(seg string) (string, bool) {
	if len(seg) > 2 && seg[0] == '{' && seg[len(seg)-1] == '}' {
		return seg[1 : len(seg)-1], true
	}
	return "", false
}

// search is one look-up in a tree.
type search struct {
	method string
	strict bool // the pattern is chosen before the method (REST); else both together
	greedy bool // {name+} may match
	wrong  bool // a pattern matched without the method
	found  *route
	caps   []string // raw path segments that parameters took
}

// walk looks for rest below n: static text first, then a parameter, then a greedy one, going back where one leads nowhere.
// more says that rest is a further part of the path, "" included.
func (s *search) walk(n *node, rest string, more bool) bool {
	if !more {
		return s.take(n.leaf)
	}
	seg, tail, deeper := rest, "", false
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		seg, tail, deeper = rest[:i], rest[i+1:], true
	}
	if len(n.static) > 0 {
		if next := n.static[decode(seg)]; next != nil && s.walk(next, tail, deeper) {
			return true
		}
	}
	if n.param != nil && seg != "" {
		kept := len(s.caps)
		s.caps = append(s.caps, seg)
		if s.walk(n.param, tail, deeper) {
			return true
		}
		s.caps = s.caps[:kept]
	}
	if s.greedy && n.greedy != nil && rest != "" {
		s.caps = append(s.caps, rest)
		if s.take(n.greedy) {
			return true
		}
		s.caps = s.caps[:len(s.caps)-1]
	}
	return false
}

func (s *search) take(l *leaf) bool {
	if l == nil || s.found != nil {
		return s.found != nil
	}
	if r := l.find(s.method); r != nil {
		s.found = r
		return true
	}
	s.wrong = true
	return s.strict // the pattern is settled: there is no other way
}

// decode replaces %XX in a path segment; a % without two hex digits stays.
func decode(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) && unhex(s[i+1]) >= 0 && unhex(s[i+2]) >= 0 {
			out = append(out, byte(unhex(s[i+1])<<4|unhex(s[i+2])))
			i += 2
			continue
		}
		out = append(out, s[i])
	}
	return string(out)
}
