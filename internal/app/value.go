package app

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Value is a string that may be known only at deploy: a literal, an attribute of a Resource,
// a Secret reference, an import from another Stack, or a template of these. The zero Value is absent.
//
// A call works on a Value that is not known yet: base64, the nth part of it, a replacement, a Secret of that name.
//
// In JSON a literal is a plain string; the others are objects with one key of their own:
// {"$attr":"Table.Arn"}, {"$secret":"ssm:/path"}, {"$import":"name"}, {"$template":["a",{…}]}, {"$call":["pick",{…},"/","2"]}.
type Value struct {
	kind  valueKind
	text  string  // literal text, "ID.Attr", secret name, import name, operation of a call
	parts []Value // of a template; arguments of a call
}

type valueKind uint8

const (
	absent valueKind = iota
	literal
	attribute
	secretRef
	importRef
	template
	call
)

// Lit returns a literal.
func Lit(s string) Value { return Value{kind: literal, text: s} }

// Attr returns the attribute of the Resource (or Function, or API) with the logical ID. The
// attribute "Ref" is what the source format gives for a bare reference: its name or ID.
func Attr(id, attr string) Value { return Value{kind: attribute, text: id + "." + attr} }

// SecretRef returns a reference to a Secret, "ssm:/path" or "secretsmanager:name".
func SecretRef(name string) Value { return Value{kind: secretRef, text: name} }

// Import returns an output exported by another Stack.
func Import(name string) Value { return Value{kind: importRef, text: name} }

// Template returns the concatenation of the parts, folded to the simplest equal Value.
func Template(parts ...Value) Value {
	var out []Value
	var run []string // literals that stand next to each other
	flush := func() {
		if text := strings.Join(run, ""); text != "" {
			out = append(out, Lit(text))
		}
		run = run[:0]
	}
	var add func(ps []Value)
	add = func(ps []Value) {
		for _, p := range ps {
			switch p.kind {
			case absent:
			case literal:
				run = append(run, p.text)
			case template:
				add(p.parts)
			default:
				flush()
				out = append(out, p)
			}
		}
	}
	add(parts)
	flush()
	switch len(out) {
	case 0:
		return Lit("")
	case 1:
		return out[0]
	}
	return Value{kind: template, parts: out}
}

// SecretOf returns a reference to the Secret whose name (as in [SecretRef]) is name.
func SecretOf(name Value) Value {
	if s, ok := name.Literal(); ok {
		return SecretRef(s)
	}
	return Value{kind: call, text: "secret", parts: []Value{name}}
}

// Base64 returns v in standard base64.
func Base64(v Value) Value { return newCall("base64", v) }

// Pick returns the nth part (from 0) of v split at sep; it resolves with an error when there are fewer.
func Pick(v Value, sep string, n int) Value {
	return newCall("pick", v, Lit(sep), Lit(strconv.Itoa(n)))
}

// Replace returns v with every old replaced by with.
func Replace(v Value, old, with string) Value {
	if old == with {
		return v
	}
	return newCall("replace", v, Lit(old), Lit(with))
}

// newCall folds a call whose arguments are all known.
func newCall(op string, args ...Value) Value {
	texts := make([]string, len(args))
	for i, a := range args {
		s, ok := a.Literal()
		if !ok {
			return Value{kind: call, text: op, parts: args}
		}
		texts[i] = s
	}
	if s, err := compute(op, texts); err == nil {
		return Lit(s)
	}
	return Value{kind: call, text: op, parts: args}
}

// compute is the meaning of a call on known arguments.
func compute(op string, args []string) (string, error) {
	switch {
	case op == "base64" && len(args) == 1:
		return base64.StdEncoding.EncodeToString([]byte(args[0])), nil
	case op == "pick" && len(args) == 3:
		parts := strings.Split(args[0], args[1])
		n, err := strconv.Atoi(args[2])
		if err != nil || n < 0 || n >= len(parts) {
			return "", fmt.Errorf("%q split at %q has no part %s", args[0], args[1], args[2])
		}
		return parts[n], nil
	case op == "replace" && len(args) == 3:
		return strings.ReplaceAll(args[0], args[1], args[2]), nil
	}
	return "", fmt.Errorf("no operation %q on %d arguments", op, len(args))
}

// Parts returns what v concatenates: the parts of a template, else v alone; none when absent.
func (v Value) Parts() []Value {
	switch v.kind {
	case absent:
		return nil
	case template:
		return slices.Clone(v.parts)
	}
	return []Value{v}
}

// IsZero says whether v is absent.
func (v Value) IsZero() bool { return v.kind == absent }

// Literal returns the text of a literal.
func (v Value) Literal() (string, bool) { return v.text, v.kind == literal }

// Attribute returns the logical ID and attribute of a reference.
func (v Value) Attribute() (id, attr string, ok bool) {
	if v.kind != attribute {
		return "", "", false
	}
	id, attr, _ = strings.Cut(v.text, ".")
	return id, attr, true
}

// Refs appends the logical IDs that v refers to.
func (v Value) Refs() []string {
	if id, _, ok := v.Attribute(); ok {
		return []string{id}
	}
	var ids []string
	for _, p := range v.parts {
		ids = append(ids, p.Refs()...)
	}
	return ids
}

// Resolver gives what only the deploy knows. Each function returns an error that names the mend.
type Resolver struct {
	Attr   func(id, attr string) (string, error)
	Secret func(name string) (string, error)
	Import func(name string) (string, error)
}

// Resolve returns v's text.
func (v Value) Resolve(r Resolver) (string, error) {
	switch v.kind {
	case absent:
		return "", nil
	case literal:
		return v.text, nil
	case attribute:
		id, attr, _ := v.Attribute()
		return r.Attr(id, attr)
	case secretRef:
		return r.Secret(v.text)
	case importRef:
		return r.Import(v.text)
	}
	texts := make([]string, len(v.parts))
	for i, p := range v.parts {
		s, err := p.Resolve(r)
		if err != nil {
			return "", err
		}
		texts[i] = s
	}
	switch {
	case v.kind == template:
		return strings.Join(texts, ""), nil
	case v.text == "secret" && len(texts) == 1:
		return r.Secret(texts[0])
	}
	return compute(v.text, texts)
}

// String gives v for people: a literal as it is, the rest as ${…}.
func (v Value) String() string {
	switch v.kind {
	case absent:
		return ""
	case literal:
		return v.text
	case secretRef:
		return "${secret:" + v.text + "}"
	case importRef:
		return "${import:" + v.text + "}"
	case template:
		var b strings.Builder
		for _, p := range v.parts {
			b.WriteString(p.String())
		}
		return b.String()
	case call:
		args := make([]string, len(v.parts))
		for i, p := range v.parts {
			args[i] = p.String()
		}
		return "${" + v.text + "(" + strings.Join(args, ", ") + ")}"
	}
	return "${" + v.text + "}"
}

// Equal says whether v and w are the same Value (for go-cmp).
func (v Value) Equal(w Value) bool {
	if v.kind != w.kind || v.text != w.text || len(v.parts) != len(w.parts) {
		return false
	}
	for i := range v.parts {
		if !v.parts[i].Equal(w.parts[i]) {
			return false
		}
	}
	return true
}

var valueKeys = map[valueKind]string{attribute: "$attr", secretRef: "$secret", importRef: "$import", template: "$template", call: "$call"}

// MarshalJSON encodes v in the form of the type's comment; an absent Value is null.
func (v Value) MarshalJSON() ([]byte, error) {
	switch v.kind {
	case absent:
		return []byte("null"), nil
	case literal:
		return json.Marshal(v.text)
	case template:
		return json.Marshal(map[string]any{"$template": v.parts})
	case call:
		return json.Marshal(map[string]any{"$call": append([]Value{Lit(v.text)}, v.parts...)})
	}
	return json.Marshal(map[string]string{valueKeys[v.kind]: v.text})
}

// UnmarshalJSON decodes the form of the type's comment.
func (v *Value) UnmarshalJSON(data []byte) error {
	var raw any
	if err := json.Unmarshal(data, &raw); err != nil {
		return err
	}
	switch raw := raw.(type) {
	case nil:
		*v = Value{}
		return nil
	case string:
		*v = Lit(raw)
		return nil
	case map[string]any:
		if w, ok := AsValue(raw); ok {
			*v = w
			return nil
		}
	}
	return fmt.Errorf("decode value: %.80s is neither a string nor a reference", data)
}

// AsValue reads the object form of a Value, which it has inside decoded properties.
func AsValue(m map[string]any) (Value, bool) {
	if len(m) != 1 {
		return Value{}, false
	}
	for kind, key := range valueKeys {
		switch x := m[key].(type) {
		case string:
			if kind != template && kind != call {
				return Value{kind: kind, text: x}, true
			}
		case []any:
			if kind != template && kind != call {
				continue
			}
			v := Value{kind: kind}
			if kind == call {
				if len(x) == 0 {
					return Value{}, false
				}
				op, ok := x[0].(string)
				if !ok {
					return Value{}, false
				}
				v.text, x = op, x[1:]
			}
			for _, p := range x {
				if s, ok := p.(string); ok {
					v.parts = append(v.parts, Lit(s))
				} else if pm, ok := p.(map[string]any); ok {
					pv, ok := AsValue(pm)
					if !ok {
						return Value{}, false
					}
					v.parts = append(v.parts, pv)
				} else {
					return Value{}, false
				}
			}
			return v, true
		}
	}
	return Value{}, false
}

// revive turns the object form of Values inside decoded properties back into Values.
func revive(x any) any {
	switch x := x.(type) {
	case map[string]any:
		if v, ok := AsValue(x); ok {
			return v
		}
		for k := range x {
			x[k] = revive(x[k])
		}
	case []any:
		for i := range x {
			x[i] = revive(x[i])
		}
	}
	return x
}
