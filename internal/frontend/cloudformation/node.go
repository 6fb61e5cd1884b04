package cloudformation

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/ebb-run/ebb/internal/diag"
)

// Kind is the shape of a Node.
type Kind uint8

// The shapes of a Node.
const (
	Null Kind = iota
	Scalar
	List
	Map
)

// Node is a piece of a YAML or JSON document that knows its place. Map entries keep their order.
// Nodes are shared freely; change one only by making another.
type Node struct {
	Kind    Kind
	Pos     diag.Pos
	Value   any     // of a Scalar: string, bool, int64, float64
	Raw     string  // of a Scalar: the text as written, for keys and numbers that must not change
	Items   []*Node // of a List
	Entries []Entry // of a Map
}

// Entry is one key of a Map.
type Entry struct {
	Key   string
	Pos   diag.Pos // of the key
	Value *Node
}

// Str returns a string Scalar.
func Str(pos diag.Pos, s string) *Node { return &Node{Kind: Scalar, Pos: pos, Value: s, Raw: s} }

// NewMap returns a Map.
func NewMap(pos diag.Pos, entries ...Entry) *Node {
	return &Node{Kind: Map, Pos: pos, Entries: entries}
}

// NewList returns a List.
func NewList(pos diag.Pos, items ...*Node) *Node {
	return &Node{Kind: List, Pos: pos, Items: items}
}

// From turns plain data (maps, slices, strings, numbers, bools, nil, *Node) into Nodes that all
// stand at pos. Map keys are sorted.
func From(pos diag.Pos, x any) *Node {
	switch x := x.(type) {
	case nil:
		return &Node{Kind: Null, Pos: pos}
	case *Node:
		return x
	case map[string]any:
		keys := make([]string, 0, len(x))
		for k := range x {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		n := NewMap(pos)
		for _, k := range keys {
			n.Entries = append(n.Entries, Entry{Key: k, Pos: pos, Value: From(pos, x[k])})
		}
		return n
	case []any:
		n := NewList(pos)
		for _, it := range x {
			n.Items = append(n.Items, From(pos, it))
		}
		return n
	case []string:
		n := NewList(pos)
		for _, it := range x {
			n.Items = append(n.Items, Str(pos, it))
		}
		return n
	case int:
		return From(pos, int64(x))
	case json.Number:
		if i, err := x.Int64(); err == nil {
			return From(pos, i)
		}
		f, err := x.Float64()
		if err != nil { // beyond what a number can be
			return Str(pos, x.String())
		}
		return &Node{Kind: Scalar, Pos: pos, Value: f, Raw: x.String()}
	case float64:
		if x == math.Trunc(x) && math.Abs(x) < 1<<53 {
			return From(pos, int64(x))
		}
		return &Node{Kind: Scalar, Pos: pos, Value: x, Raw: strconv.FormatFloat(x, 'g', -1, 64)}
	}
	return &Node{Kind: Scalar, Pos: pos, Value: x, Raw: fmt.Sprint(x)}
}

// Get returns the value of a Map's key, or nil. It is safe on a nil Node and on other kinds.
func (n *Node) Get(key string) *Node {
	if n == nil || n.Kind != Map {
		return nil
	}
	for i := range n.Entries {
		if n.Entries[i].Key == key {
			return n.Entries[i].Value
		}
	}
	return nil
}

// At follows keys through Maps.
func (n *Node) At(keys ...string) *Node {
	for _, k := range keys {
		n = n.Get(k)
	}
	return n
}

// IsNull says whether n is absent or null.
func (n *Node) IsNull() bool { return n == nil || n.Kind == Null }

// Text returns a Scalar's text: a string as it is, a number or bool as written.
func (n *Node) Text() (string, bool) {
	if n == nil || n.Kind != Scalar {
		return "", false
	}
	if s, ok := n.Value.(string); ok {
		return s, true
	}
	return n.Raw, true
}

// Place returns n's place, also when n is nil.
func (n *Node) Place() diag.Pos {
	if n == nil {
		return diag.Pos{}
	}
	return n.Pos
}

// With returns a copy of the Map n with the key set (replaced in place, else appended).
func (n *Node) With(key string, v *Node) *Node {
	c := &Node{Kind: Map}
	if n != nil && n.Kind == Map {
		*c = *n
		c.Entries = slices.Clone(n.Entries)
	}
	for i := range c.Entries {
		if c.Entries[i].Key == key {
			c.Entries[i].Value = v
			return c
		}
	}
	c.Entries = append(c.Entries, Entry{Key: key, Pos: v.Place(), Value: v})
	return c
}

// Plain returns n as plain data: map[string]any, []any, string, bool, int64, float64, nil.
func (n *Node) Plain() any {
	if n == nil {
		return nil
	}
	switch n.Kind {
	case Scalar:
		return n.Value
	case List:
		out := make([]any, len(n.Items))
		for i, it := range n.Items {
			out[i] = it.Plain()
		}
		return out
	case Map:
		out := make(map[string]any, len(n.Entries))
		for _, e := range n.Entries {
			out[e.Key] = e.Value.Plain()
		}
		return out
	}
	return nil
}

// Limits of a document. A YAML file can name one part many times over; what counts is the size when spelled out.
const (
	maxDepth = 200
	maxNodes = 500_000
	maxText  = 64 << 20 // bytes of all scalars and keys
)

// ParseDoc reads a YAML (or JSON) document. CloudFormation's short tags (!Ref, !GetAtt, !Sub, …) become
// their long forms. Faults are diagnostics at file; the Node is nil when nothing could be read.
func ParseDoc(file string, data []byte) (*Node, diag.List) { return parseDoc(file, data, false) }

// ParseTemplate is ParseDoc for templates: of a key that is there twice the last counts, as in the cloud, with a warning.
func ParseTemplate(file string, data []byte) (*Node, diag.List) { return parseDoc(file, data, true) }

func parseDoc(file string, data []byte, lenient bool) (*Node, diag.List) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if looksJSON(file, data) {
		return parseJSON(file, data)
	}
	var l diag.List
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		pos, hint := syntaxPlace(yamlPos(file, err), err.Error(), data)
		l.Errorf(pos, "syntax", hint, "%s", yamlText(err))
		return nil, l
	}
	if len(doc.Content) == 0 {
		return &Node{Kind: Null, Pos: diag.Pos{File: file}}, l
	}
	r := reader{file: file, diags: &l, lenient: lenient}
	n := r.node(doc.Content[0], 0)
	if l.HasErrors() {
		return nil, l
	}
	return n, l
}

func yamlText(err error) string {
	var te *yaml.TypeError
	if errors.As(err, &te) && len(te.Errors) > 0 {
		return te.Errors[0]
	}
	s := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(s, "line "); ok {
		if _, msg, ok := strings.Cut(rest, ": "); ok {
			return msg
		}
	}
	return s
}

func yamlPos(file string, err error) diag.Pos {
	var line int
	if _, rest, ok := strings.Cut(err.Error(), "line "); ok {
		_, _ = fmt.Sscanf(rest, "%d", &line)
	}
	return diag.Pos{File: file, Line: line}
}

type reader struct {
	file  string
	diags *diag.List
	count int
	text  int
	over  bool // the limits are passed; the rest is not read

	lenient bool // of a key that is there twice the last counts
}

func (r *reader) node(y *yaml.Node, depth int) *Node {
	pos := diag.Pos{File: r.file, Line: y.Line, Col: y.Column}
	r.count++
	r.text += len(y.Value)
	if r.over || depth > maxDepth || r.count > maxNodes || r.text > maxText {
		if !r.over {
			r.over = true
			r.diags.Errorf(pos, "too-large", "", "the document is nested too deep or too large when its aliases are spelled out")
		}
		return &Node{Kind: Null, Pos: pos}
	}
	if y.Kind == yaml.AliasNode {
		n := *r.node(y.Alias, depth+1)
		n.Pos = pos
		return &n
	}
	var n *Node
	switch y.Kind {
	case yaml.ScalarNode:
		n = r.scalar(y, pos)
	case yaml.SequenceNode:
		n = NewList(pos)
		for _, c := range y.Content {
			n.Items = append(n.Items, r.node(c, depth+1))
		}
	case yaml.MappingNode:
		n = r.mapping(y, pos, depth)
	default:
		return &Node{Kind: Null, Pos: pos}
	}
	if strings.HasPrefix(y.Tag, "!") && !strings.HasPrefix(y.Tag, "!!") {
		return r.short(y, pos, n)
	}
	return n
}

func (r *reader) mapping(y *yaml.Node, pos diag.Pos, depth int) *Node {
	n := NewMap(pos)
	seen := map[string]bool{}
	var merged []*Node
	for i := 0; i+1 < len(y.Content); i += 2 {
		k, v := y.Content[i], y.Content[i+1]
		kpos := diag.Pos{File: r.file, Line: k.Line, Col: k.Column}
		if k.Tag == "!!merge" {
			m := r.node(v, depth+1)
			if m.Kind == List {
				merged = append(merged, m.Items...)
			} else {
				merged = append(merged, m)
			}
			continue
		}
		if k.Kind == yaml.AliasNode {
			k = k.Alias
		}
		if k.Kind != yaml.ScalarNode {
			r.diags.Errorf(kpos, "bad-key", "", "a key must be a plain word")
			continue
		}
		if seen[k.Value] && r.lenient {
			r.diags.Warnf(kpos, "duplicate-key", "Remove one of the two.", "the key %q is there twice; the last counts", k.Value)
			n.Entries = slices.DeleteFunc(n.Entries, func(e Entry) bool { return e.Key == k.Value })
		} else if seen[k.Value] {
			r.diags.Errorf(kpos, "duplicate-key", "Remove one of the two.", "the key %q is there twice", k.Value)
			continue
		}
		seen[k.Value] = true
		n.Entries = append(n.Entries, Entry{Key: k.Value, Pos: kpos, Value: r.node(v, depth+1)})
	}
	for _, m := range merged {
		for _, e := range m.Entries {
			if !seen[e.Key] {
				seen[e.Key] = true
				n.Entries = append(n.Entries, e)
			}
		}
	}
	return n
}

func (r *reader) scalar(y *yaml.Node, pos diag.Pos) *Node {
	n := &Node{Kind: Scalar, Pos: pos, Raw: y.Value, Value: y.Value}
	switch y.ShortTag() {
	case "!!null":
		return &Node{Kind: Null, Pos: pos}
	case "!!bool":
		n.Value = strings.EqualFold(y.Value, "true") || strings.EqualFold(y.Value, "yes") || strings.EqualFold(y.Value, "on")
	case "!!int", "!!float":
		if leadingZero(y.Value) {
			return n // an account id or a zip code, not an octal number
		}
	}
	switch y.ShortTag() {
	case "!!int":
		var i int64
		if err := y.Decode(&i); err == nil {
			n.Value = i
		}
	case "!!float":
		var f float64
		if err := y.Decode(&f); err == nil && !math.IsInf(f, 0) && !math.IsNaN(f) {
			n.Value = f
		}
	}
	return n
}

// leadingZero says whether s is digits that start with a 0 which a number would lose.
func leadingZero(s string) bool {
	return len(s) > 1 && s[0] == '0' && strings.Trim(s, "0123456789") == ""
}

// short gives the long form of a CloudFormation short tag.
func (r *reader) short(y *yaml.Node, pos diag.Pos, n *Node) *Node {
	if n.Kind == Scalar || n.Kind == Null {
		n = Str(pos, y.Value)
	}
	name := strings.TrimPrefix(y.Tag, "!")
	switch name {
	case "Ref", "Condition":
	case "GetAtt":
		name = "Fn::GetAtt"
		if s, ok := n.Text(); ok {
			id, attr, _ := strings.Cut(s, ".")
			n = NewList(pos, Str(pos, id), Str(pos, attr))
		}
	case "Base64", "Cidr", "And", "Equals", "If", "Not", "Or", "FindInMap", "GetAZs", "ImportValue", "Join",
		"Length", "Select", "Split", "Sub", "ToJsonString", "Transform", "ForEach":
		name = "Fn::" + name
	default:
		r.diags.Warnf(pos, "unknown-tag", "", "the YAML tag !%s is not known and is ignored", name)
		return n
	}
	return NewMap(pos, Entry{Key: name, Pos: pos, Value: n})
}
