package cloudformation

import (
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/diag"
)

// object reads an evaluated Map; what has the wrong shape becomes a diagnostic.
type object struct {
	l  *loader
	n  *Node
	at diag.Pos // of what is around it, for when n is absent
}

func (l *loader) object(n *Node) object { return object{l, n, n.Place()} }

func (o object) has(key string) bool { return !o.n.Get(key).IsNull() }

func (o object) pos(key string) diag.Pos {
	if v := o.n.Get(key); v != nil {
		return v.Pos
	}
	return o.at
}

func (o object) bad(key, want string) {
	o.l.diags.Errorf(o.pos(key), "bad-value", "", "%s must be %s", key, want)
}

// late says that a setting is known only at deploy, where the App needs it now.
func (o object) late(key string, v app.Value, instead string) {
	o.l.diags.Warnf(o.pos(key), "known-late", "", "%s is %s, which only a deploy knows; %s", key, v, instead)
}

// val returns a text that may be known only at deploy; absent when there is none.
func (o object) val(key string) app.Value {
	n := o.n.Get(key)
	if n.IsNull() || isFaulty(n) {
		return app.Value{}
	}
	v, ok := asText(n)
	if !ok {
		o.bad(key, "one text")
	}
	return v
}

// str returns a text that must be known now.
func (o object) str(key string) string {
	v := o.val(key)
	s, ok := v.Literal()
	if !ok && !v.IsZero() {
		o.late(key, v, "it is left out")
	}
	return s
}

// num returns a whole number, or def.
func (o object) num(key string, def int) int {
	v := o.val(key)
	if v.IsZero() {
		return def
	}
	s, ok := v.Literal()
	if !ok {
		o.late(key, v, "the default is used")
		return def
	}
	// The cloud refuses a unit, but what is meant is plain.
	if m := regexp.MustCompile(`^(\d+)\s*(?i:mb|mib|s|sec|seconds)$`).FindStringSubmatch(strings.TrimSpace(s)); m != nil {
		o.l.diags.Warnf(o.pos(key), "unit", "Write "+m[1]+".", "%s is a plain number, without %q", key, s[len(m[1]):])
		s = m[1]
	}
	f, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<31 {
		o.bad(key, "a whole number, not "+strconv.Quote(s))
		return def
	}
	return int(f)
}

// flag returns a boolean, or def.
func (o object) flag(key string, def bool) bool {
	v := o.val(key)
	if v.IsZero() {
		return def
	}
	s, ok := v.Literal()
	switch {
	case !ok:
		o.late(key, v, "the default is used")
	case strings.EqualFold(s, "true") || strings.EqualFold(s, "yes"):
		return true
	case strings.EqualFold(s, "false") || strings.EqualFold(s, "no"):
		return false
	default:
		o.bad(key, "true or false, not "+strconv.Quote(s))
	}
	return def
}

// items returns the items of a list; a single item may stand for a list of one.
func (o object) items(key string) []*Node {
	n := o.n.Get(key)
	switch {
	case n.IsNull() || isFaulty(n):
		return nil
	case n.Kind == List:
		return n.Items
	}
	return []*Node{n}
}

// vals returns a list of texts.
func (o object) vals(key string) []app.Value {
	var out []app.Value
	for _, it := range o.items(key) {
		v, ok := asText(it)
		if !ok {
			if sep, w, split := pendingSplit(it); split {
				v, ok = app.Replace(w, sep, ","), true
			}
		}
		if !ok {
			o.bad(key, "a list of texts")
			continue
		}
		out = append(out, v)
	}
	return out
}

// strs returns a list of texts that must be known now.
func (o object) strs(key string) []string {
	var out []string
	for _, v := range o.vals(key) {
		s, ok := v.Literal()
		if !ok {
			o.late(key, v, "it is left out")
			continue
		}
		out = append(out, s)
	}
	return out
}

// obj returns an inner Map; it is empty when there is none.
func (o object) obj(key string) object {
	n := o.n.Get(key)
	if !n.IsNull() && n.Kind != Map {
		if !isFaulty(n) {
			o.bad(key, "a map")
		}
		n = nil
	}
	return object{o.l, n, o.pos(key)}
}

// objs returns a list of Maps.
func (o object) objs(key string) []object {
	var out []object
	for _, it := range o.items(key) {
		if it.Kind != Map {
			o.bad(key, "a list of maps")
			continue
		}
		out = append(out, object{o.l, it, it.Pos})
	}
	return out
}

// valMap returns a Map of texts, nil when there is none.
func (o object) valMap(key string) map[string]app.Value {
	var out map[string]app.Value
	in := o.obj(key)
	for _, en := range mapEntries(in.n) {
		v, ok := asText(en.Value)
		switch {
		case en.Value.IsNull():
			continue
		case !ok && isPending(en.Value):
			if sep, w, split := pendingSplit(en.Value); split {
				v, ok = app.Replace(w, sep, ","), true
			}
		}
		if !ok {
			in.bad(en.Key, "one text")
			continue
		}
		if out == nil {
			out = map[string]app.Value{}
		}
		out[en.Key] = v
	}
	return out
}

// strMap returns a Map of texts as far as they are known now, the rest as their printed form.
func (o object) strMap(key string) map[string]string {
	var out map[string]string
	for k, v := range o.valMap(key) {
		if out == nil {
			out = map[string]string{}
		}
		out[k] = v.String()
	}
	return out
}

// plain turns an evaluated Node into the plain data of a Resource's properties: numbers are
// float64, as they are after a round trip through JSON.
func plain(n *Node) any {
	if n == nil {
		return nil
	}
	switch n.Kind {
	case Scalar:
		switch v := n.Value.(type) {
		case int64:
			if v > 1<<53 || v < -1<<53 {
				return n.Raw
			}
			return float64(v)
		case app.Value:
			if s, ok := v.Literal(); ok {
				return s
			}
			return v
		}
		return n.Value
	case List:
		out := make([]any, len(n.Items))
		for i, it := range n.Items {
			out[i] = plain(it)
		}
		return out
	case Map:
		out := make(map[string]any, len(n.Entries))
		for _, en := range n.Entries {
			out[en.Key] = plain(en.Value)
		}
		return out
	}
	return nil
}

// plainMap is plain of a Map; an empty one is nil.
func plainMap(n *Node) map[string]any {
	m, _ := plain(n).(map[string]any)
	if len(m) == 0 {
		return nil
	}
	return m
}

// pick is plain of some keys of o, nil when none is there.
func (o object) pick(keys ...string) map[string]any {
	var out map[string]any
	for _, k := range keys {
		if n := o.n.Get(k); n != nil {
			if out == nil {
				out = map[string]any{}
			}
			out[k] = plain(n)
		}
	}
	return out
}
