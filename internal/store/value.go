package store

import (
	"maps"
	"slices"
	"strings"
)

// Kind is the type of a Value, as DynamoDB names it on its wire.
type Kind uint8

// The kinds. The zero Kind is no Value.
const (
	None Kind = iota
	S         // text
	N         // number
	B         // bytes
	BOOL
	NULL
	M  // map
	L  // list
	SS // set of texts
	NS // set of numbers
	BS // set of bytes
)

var kindNames = [...]string{"", "S", "N", "B", "BOOL", "NULL", "M", "L", "SS", "NS", "BS"}

// String returns the wire name.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "?"
}

// KindOf returns the Kind with a wire name, or None.
func KindOf(name string) Kind {
	return Kind(max(0, slices.Index(kindNames[:], name)))
}

// Value is one attribute's value. It is immutable: whoever changes one makes another, and may share its parts.
type Value struct {
	Kind Kind
	Bool bool
	Str  string   // S; B as bytes; N as Number.String has it
	Set  []string // SS, NS, BS, as Str; without duplicates
	List []Value  // L
	Map  Item     // M
}

// Item is a set of named values: a row of a table, or a map in one.
type Item map[string]Value

// Text, Num and Bytes make a Value; Num wants the form of Number.String.
func Text(s string) Value { return Value{Kind: S, Str: s} }

// Num makes a number of its canonical text.
func Num(s string) Value { return Value{Kind: N, Str: s} }

// Bytes makes a binary Value.
func Bytes(b []byte) Value { return Value{Kind: B, Str: string(b)} }

// Number returns the number of a Value of kind N.
func (v Value) Number() Number {
	n, _ := ParseNumber(v.Str)
	return n
}

// Equal tells whether two Values are the same: of one kind, numbers by value, sets in any order.
func (v Value) Equal(w Value) bool {
	if v.Kind != w.Kind {
		return false
	}
	switch v.Kind {
	case S, N, B:
		return v.Str == w.Str
	case BOOL:
		return v.Bool == w.Bool
	case M:
		return maps.EqualFunc(v.Map, w.Map, Value.Equal)
	case L:
		return slices.EqualFunc(v.List, w.List, Value.Equal)
	case SS, NS, BS:
		if len(v.Set) != len(w.Set) {
			return false
		}
		for _, s := range v.Set {
			if !slices.Contains(w.Set, s) {
				return false
			}
		}
	}
	return true
}

// Compare orders two Values of the same kind out of S, N and B; ok is false for any others.
func (v Value) Compare(w Value) (c int, ok bool) {
	if v.Kind != w.Kind {
		return 0, false
	}
	switch v.Kind {
	case S, B:
		return strings.Compare(v.Str, w.Str), true
	case N:
		return v.Number().Compare(w.Number()), true
	}
	return 0, false
}

// Size is what DynamoDB counts for a value: "DynamoDB item sizes and formats".
func (v Value) Size() int {
	switch v.Kind {
	case S, B:
		return len(v.Str)
	case N:
		return v.Number().size()
	case BOOL, NULL:
		return 1
	case SS, BS:
		n := 0
		for _, s := range v.Set {
			n += len(s)
		}
		return n
	case NS:
		n := 0
		for _, s := range v.Set {
			n += Num(s).Size()
		}
		return n
	case L:
		n := 3
		for _, e := range v.List {
			n += 1 + e.Size()
		}
		return n
	case M:
		return 3 + len(v.Map) + v.Map.Size()
	}
	return 0
}

// Size is what DynamoDB counts for an Item: the names and the values.
func (it Item) Size() int {
	n := 0
	for name, v := range it {
		n += len(name) + v.Size()
	}
	return n
}

// Equal tells whether two Items hold the same.
func (it Item) Equal(other Item) bool { return maps.EqualFunc(it, other, Value.Equal) }

// Only returns the named attributes that the Item has.
func (it Item) Only(names ...string) Item {
	out := make(Item, len(names))
	for _, name := range names {
		if v, ok := it[name]; ok {
			out[name] = v
		}
	}
	return out
}
