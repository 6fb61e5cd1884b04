package dynamodb

import (
	"encoding/base64"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire/dynamodb/expr"
)

// maxLevels is how deep a value may nest: DynamoDB limits, "Nested attribute depth".
const maxLevels = 32

const invalidPrefix = "One or more parameter values were invalid: "

// valueOf makes a Value of an AttributeValue. The message says what is wrong with it, in DynamoDB's words.
func valueOf(n *node, level int) (v store.Value, msg string) {
	if n.kind != 'o' || len(n.members) == 0 {
		return v, "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"
	}
	if level > maxLevels {
		return v, "Nesting Levels have exceeded supported limits"
	}
	for i := range n.members {
		m := &n.members[i]
		v = store.Value{Kind: store.KindOf(m.key)}
		switch v.Kind {
		case store.S:
			v.Str = m.val.text
		case store.B:
			v.Str = bytesOf(&m.val)
		case store.N:
			v.Str, msg = numberOf(m.val.text)
		case store.BOOL:
			v.Bool = m.val.truth
		case store.NULL:
			if !m.val.truth {
				msg = invalidPrefix + "Null attribute value types must have the value of true"
			}
		case store.SS, store.NS, store.BS:
			msg = setOf(&v, &m.val)
		case store.L:
			v.List = make([]store.Value, len(m.val.elems))
			for j := range m.val.elems {
				if v.List[j], msg = valueOf(&m.val.elems[j], level+1); msg != "" {
					break
				}
			}
		case store.M:
			v.Map = make(store.Item, len(m.val.members))
			for j := range m.val.members {
				e := &m.val.members[j]
				if v.Map[e.key], msg = valueOf(&e.val, level+1); msg != "" {
					break
				}
			}
		}
		if msg != "" {
			return v, msg
		}
	}
	if len(n.members) > 1 {
		return v, "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes"
	}
	return v, ""
}

func bytesOf(n *node) string {
	b, _ := base64.StdEncoding.DecodeString(n.text) // its form was checked
	return string(b)
}

func numberOf(text string) (string, string) {
	const not = "The parameter cannot be converted to a numeric value"
	if text == "" {
		return "", not
	}
	n, err := store.ParseNumber(text)
	switch {
	case errors.Is(err, store.ErrNotNumber):
		return "", not + ": " + text
	case err != nil:
		return "", expr.NumberFault(err)
	}
	return n.String(), ""
}

func setOf(v *store.Value, n *node) string {
	if len(n.elems) == 0 {
		switch v.Kind {
		case store.SS:
			return invalidPrefix + "An string set  may not be empty"
		case store.NS:
			return invalidPrefix + "An number set  may not be empty"
		}
		return invalidPrefix + "Binary sets should not be empty"
	}
	v.Set = make([]string, len(n.elems))
	seen := make(map[string]bool, len(n.elems))
	twice := false
	for i := range n.elems {
		e := &n.elems[i]
		switch v.Kind {
		case store.SS:
			v.Set[i] = e.text
		case store.BS:
			v.Set[i] = bytesOf(e)
		default:
			var msg string
			if v.Set[i], msg = numberOf(e.text); msg != "" {
				return msg
			}
		}
		twice = twice || seen[v.Set[i]]
		seen[v.Set[i]] = true
	}
	if !twice {
		return ""
	}
	switch v.Kind {
	case store.NS:
		return "Input collection contains duplicates"
	case store.SS:
		return invalidPrefix + "Input collection " + told(n) + " contains duplicates."
	}
	return invalidPrefix + "Input collection " + told(n) + "of type BS contains duplicates."
}

// told shows a value as messages have it.
func told(n *node) string {
	if n == nil {
		return "null"
	}
	switch n.kind {
	case 's', 'n':
		return n.text
	case 'b':
		return map[bool]string{true: "true", false: "false"}[n.truth]
	case 'a':
		parts := make([]string, len(n.elems))
		for i := range n.elems {
			parts[i] = told(&n.elems[i])
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case 'o':
		return string(appendNode(nil, n))
	}
	return "null"
}

func appendNode(b []byte, n *node) []byte {
	switch n.kind {
	case 's':
		return quote(b, n.text)
	case 'a':
		b = append(b, '[')
		for i := range n.elems {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendNode(b, &n.elems[i])
		}
		return append(b, ']')
	case 'o':
		b = append(b, '{')
		for i := range n.members {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendNode(append(quote(b, n.members[i].key), ':'), &n.members[i].val)
		}
		return append(b, '}')
	}
	return append(b, told(n)...)
}

// itemOf makes an Item of a map of AttributeValues.
func itemOf(n *node) (store.Item, string) {
	if n == nil {
		return nil, ""
	}
	it := make(store.Item, len(n.members))
	for i := range n.members {
		v, msg := valueOf(&n.members[i].val, 1)
		if msg != "" {
			return nil, msg
		}
		it[n.members[i].key] = v
	}
	return it, ""
}

// appendItem writes an Item as JSON, its names in order.
func appendItem(b []byte, it store.Item) []byte {
	b = append(b, '{')
	for i, name := range slices.Sorted(maps.Keys(it)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendValue(append(quote(b, name), ':'), it[name])
	}
	return append(b, '}')
}

func appendValue(b []byte, v store.Value) []byte {
	b = append(append(append(b, '{', '"'), v.Kind.String()...), '"', ':')
	switch v.Kind {
	case store.S, store.N:
		b = quote(b, v.Str)
	case store.B:
		b = appendBytes(b, v.Str)
	case store.BOOL:
		b = append(b, map[bool]string{true: "true", false: "false"}[v.Bool]...)
	case store.NULL:
		b = append(b, "true"...)
	case store.SS, store.NS, store.BS:
		b = append(b, '[')
		for i, s := range v.Set {
			if i > 0 {
				b = append(b, ',')
			}
			if v.Kind == store.BS {
				b = appendBytes(b, s)
			} else {
				b = quote(b, s)
			}
		}
		b = append(b, ']')
	case store.L:
		b = append(b, '[')
		for i, e := range v.List {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendValue(b, e)
		}
		b = append(b, ']')
	case store.M:
		b = appendItem(b, v.Map)
	}
	return append(b, '}')
}

func appendBytes(b []byte, s string) []byte {
	b = append(b, '"')
	b = base64.StdEncoding.AppendEncode(b, []byte(s))
	return append(b, '"')
}
