package serverless

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"

	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/frontend"
)

// resolver replaces the variables of a document. It is lazy: an address is followed by resolving only
// the nodes on its way, so that parts of a document may refer to one another in any order.
type resolver struct {
	ctx  context.Context
	p    frontend.Project
	o    frontend.Options
	l    *diag.List
	root *cfn.Node

	stage, region string // as decided; empty while they are being decided
	dotenv        map[string]string
	dotenvUnused  map[string]string // variables of a .env file that the project does not ask to load

	files  map[string]*cfn.Node // by absolute path; nil for a file that is not there
	one    map[*cfn.Node]*cfn.Node
	deep   map[*cfn.Node]*cfn.Node
	busy   map[*cfn.Node]bool
	sizes  map[*cfn.Node]int
	depth  int
	told   map[string]bool // diagnostics that are said once
	failed bool            // some variable could not be resolved
}

// Bounds of a resolution: real projects stay far below, hostile ones end here.
const (
	maxChain    = 500
	maxResolved = 500_000 // nodes, when shared parts are spelled out
)

// unresolved stands where a variable had no value: the fault has been told, nothing more is to be said of it.
const unresolved = "\uFFFDunresolved"

func poison(pos diag.Pos) *cfn.Node { return cfn.Str(pos, unresolved) }

func isPoison(n *cfn.Node) bool { return n != nil && n.Kind == cfn.Scalar && n.Raw == unresolved }

func newResolver(ctx context.Context, p frontend.Project, o frontend.Options, l *diag.List, root *cfn.Node) *resolver {
	return &resolver{
		ctx: ctx, p: p, o: o, l: l, root: root,
		files: map[string]*cfn.Node{}, one: map[*cfn.Node]*cfn.Node{}, deep: map[*cfn.Node]*cfn.Node{},
		busy: map[*cfn.Node]bool{}, sizes: map[*cfn.Node]int{}, told: map[string]bool{},
	}
}

func (r *resolver) errorf(pos diag.Pos, code, hint, format string, args ...any) *cfn.Node {
	r.failed = true
	key := pos.String() + code + fmt.Sprintf(format, args...)
	if !r.told[key] {
		r.told[key] = true
		r.l.Errorf(pos, code, hint, format, args...)
	}
	return poison(pos)
}

func (r *resolver) warnOnce(pos diag.Pos, code, hint, format string, args ...any) {
	key := code + fmt.Sprintf(format, args...)
	if !r.told[key] {
		r.told[key] = true
		r.l.Warnf(pos, code, hint, format, args...)
	}
}

// shallow resolves n itself when it is a string with variables; maps and lists come back as they are.
func (r *resolver) shallow(n *cfn.Node) *cfn.Node {
	if n == nil || n.Kind != cfn.Scalar {
		return n
	}
	s, ok := n.Value.(string)
	if !ok || !strings.Contains(s, "${") {
		return n
	}
	if done, ok := r.one[n]; ok {
		return done
	}
	if r.busy[n] {
		return r.errorf(n.Pos, "variable-cycle", "Break the circle: give one of the variables a plain value.",
			"the variables of %.80q lead back to themselves", s)
	}
	if r.depth > maxChain {
		return r.errorf(n.Pos, "variable-cycle", "", "the chain of variables is longer than %d", maxChain)
	}
	r.busy[n] = true
	r.depth++
	out := r.scalar(n.Pos, s)
	r.depth--
	delete(r.busy, n)
	r.one[n] = out
	return out
}

// scalar resolves a string.
func (r *resolver) scalar(pos diag.Pos, s string) *cfn.Node {
	t, err := parseText(s)
	if err != nil {
		return r.errorf(pos, "variable-syntax", "Write ${source:address, 'fallback'}; a backslash before ${ makes it plain text.", "%v", err)
	}
	return r.text(pos, t)
}

// text gives the value of a parsed string: of whatever kind when it is one variable, else a string.
func (r *resolver) text(pos diag.Pos, t text) *cfn.Node {
	if v := t.whole(); v != nil {
		n := r.variable(pos, v)
		if s, ok := stringOf(n); ok && !isPoison(n) && strings.Contains(s, "${") {
			return r.shallow(n)
		}
		return n
	}
	var b strings.Builder
	var pieces []*cfn.Node // when a part is known only at deploy
	for _, p := range t {
		if p.vr == nil {
			b.WriteString(p.lit)
			continue
		}
		n := r.shallow(r.variable(pos, p.vr))
		if isPoison(n) {
			return n
		}
		if n.Kind == cfn.Map && p.vr.sources[0].raw == "self:service" {
			n = r.shallow(n.Get("name"))
		}
		if str, ok := n.Text(); ok {
			b.WriteString(str)
		} else if isIntrinsic(n) {
			pieces = append(pieces, cfn.Str(pos, b.String()), n)
			b.Reset()
		} else {
			return r.errorf(pos, "variable-type", "Use the variable alone, or point at one text inside it.",
				"%s is %s and cannot be put into a text", p.vr.raw, kindName(n))
		}
		if b.Len() > maxTextLength {
			return r.errorf(pos, "too-large", "", "the text is longer than %d bytes when its variables are filled in", maxTextLength)
		}
	}
	if pieces == nil {
		return cfn.Str(pos, b.String())
	}
	if b.Len() > 0 {
		pieces = append(pieces, cfn.Str(pos, b.String()))
	}
	return obj(pos, "Fn::Join", cfn.NewList(pos, cfn.Str(pos, ""), cfn.NewList(pos, pieces...)))
}

func stringOf(n *cfn.Node) (string, bool) {
	if n == nil || n.Kind != cfn.Scalar {
		return "", false
	}
	s, ok := n.Value.(string)
	return s, ok
}

func kindName(n *cfn.Node) string {
	switch {
	case n.IsNull():
		return "null"
	case n.Kind == cfn.Map:
		return "a map"
	case n.Kind == cfn.List:
		return "a list"
	}
	return "a text"
}

// isIntrinsic says whether n is a CloudFormation function call: {"Ref": …}, {"Fn::…": …}.
func isIntrinsic(n *cfn.Node) bool {
	if n == nil || n.Kind != cfn.Map || len(n.Entries) != 1 {
		return false
	}
	k := n.Entries[0].Key
	return k == "Ref" || k == "Condition" || strings.HasPrefix(k, "Fn::")
}

// variable tries the sources in order. The result is never nil.
func (r *resolver) variable(pos diag.Pos, v *variable) *cfn.Node {
	var miss missing
	for i := range v.sources {
		src := &v.sources[i]
		if src.isLit {
			return cfn.From(pos, src.literal)
		}
		n, m := r.fetch(pos, src, i+1 < len(v.sources))
		if n != nil {
			if !n.IsNull() {
				return n
			}
			if i+1 == len(v.sources) {
				m = missing{what: src.raw + " is null", hint: fallbackHint}
			}
		}
		if m.fatal {
			return r.errorf(pos, m.code(), m.hint, "cannot resolve %s: %s", v.raw, m.what)
		}
		if miss.what == "" || m.hint != fallbackHint {
			miss = m
		}
	}
	return r.errorf(pos, miss.code(), miss.hint, "cannot resolve %s: %s", v.raw, miss.what)
}

const fallbackHint = "Give it a value, or write a fallback: ${…, 'value'}."

// missing says why a source has no value.
type missing struct {
	what  string
	hint  string
	id    string // diagnostic code; empty means "unresolved-variable"
	fatal bool   // not even a fallback mends it
}

func (m missing) code() string {
	if m.id != "" {
		return m.id
	}
	return "unresolved-variable"
}

// follow walks the address through n, resolving only what is on the way, and resolves the end in full.
func (r *resolver) follow(n *cfn.Node, path []string, name string) (*cfn.Node, missing) {
	at := name
	for _, key := range path {
		n = r.shallow(n)
		if isPoison(n) {
			return n, missing{}
		}
		var next *cfn.Node
		switch {
		case n == nil:
		case n.Kind == cfn.Map:
			if next = n.Get(key); next == nil {
				m := missing{what: fmt.Sprintf("%s has no key %q", at, key), hint: fallbackHint}
				if near := diag.Nearest(key, keysOf(n)); near != "" {
					m.hint = fmt.Sprintf("Did you mean %q?", near)
				}
				return nil, m
			}
		case n.Kind == cfn.List:
			if i, err := strconv.Atoi(key); err == nil && i >= 0 && i < len(n.Items) {
				next = n.Items[i]
			}
		}
		if next == nil {
			return nil, missing{what: fmt.Sprintf("%s has no %q", at, key), hint: fallbackHint}
		}
		if at != "self:" {
			at += "."
		}
		n, at = next, at+key
	}
	return r.full(n), missing{}
}

func keysOf(n *cfn.Node) []string {
	if n == nil {
		return nil
	}
	keys := make([]string, 0, len(n.Entries))
	for _, e := range n.Entries {
		keys = append(keys, e.Key)
	}
	return keys
}

// full resolves n and everything in it.
func (r *resolver) full(n *cfn.Node) *cfn.Node {
	n = r.shallow(n)
	if n == nil || n.Kind == cfn.Scalar || n.Kind == cfn.Null {
		return n
	}
	if done, ok := r.deep[n]; ok {
		return done
	}
	if r.busy[n] {
		return r.errorf(n.Pos, "variable-cycle", "Break the circle: give one of the variables a plain value.",
			"a variable inside this part stands for the whole of it")
	}
	if r.depth > maxChain {
		return r.errorf(n.Pos, "variable-cycle", "", "variables are nested deeper than %d", maxChain)
	}
	r.busy[n] = true
	r.depth++
	defer func() { r.depth--; delete(r.busy, n) }()
	out := &cfn.Node{Kind: n.Kind, Pos: n.Pos}
	size := 1
	grow := func(c *cfn.Node) bool {
		size += max(1, r.sizes[c])
		return size <= maxResolved
	}
	for _, it := range n.Items {
		c := r.full(it)
		if !grow(c) {
			return r.errorf(n.Pos, "too-large", "", "the document is too large when its variables are filled in")
		}
		out.Items = append(out.Items, c)
	}
	for _, e := range n.Entries {
		c := r.full(e.Value)
		if !grow(c) {
			return r.errorf(n.Pos, "too-large", "", "the document is too large when its variables are filled in")
		}
		out.Entries = append(out.Entries, cfn.Entry{Key: e.Key, Pos: e.Pos, Value: c})
	}
	r.deep[n], r.sizes[out] = out, size
	r.deep[out] = out
	return out
}

// document resolves the whole document. Parameters of other stages are left out: nothing of this
// stage can mean them, and what they name may not exist here.
func (r *resolver) document() *cfn.Node {
	out := cfn.NewMap(r.root.Pos)
	for _, e := range r.root.Entries {
		v := e.Value
		if (e.Key == "params" || e.Key == "stages") && v.Kind == cfn.Map {
			kept := cfn.NewMap(v.Pos)
			for _, s := range v.Entries {
				if s.Key == r.stage || s.Key == "default" {
					kept.Entries = append(kept.Entries, s)
				}
			}
			v = kept
		}
		out.Entries = append(out.Entries, cfn.Entry{Key: e.Key, Pos: e.Pos, Value: r.full(v)})
	}
	return out
}

func splitAddress(s string) []string {
	if s == "" {
		return nil
	}
	return slices.DeleteFunc(strings.Split(s, "."), func(k string) bool { return k == "" })
}
