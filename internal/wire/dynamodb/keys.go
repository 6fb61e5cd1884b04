package dynamodb

import (
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire/dynamodb/expr"
)

// Limits of key attributes, bytes: DynamoDB limits, "Partition key length", "Sort key length".
const (
	maxHash  = 2048
	maxRange = 1024
	maxItem  = 400 << 10
)

const noMatch = "The provided key element does not match the schema"

func attrsOf(k store.Key) []store.Attr {
	if k.Range.Name == "" {
		return []store.Attr{k.Hash}
	}
	return []store.Attr{k.Hash, k.Range}
}

func keySize(v store.Value, hash bool) string {
	switch {
	case v.Kind == store.N:
	case hash && len(v.Str) > maxHash:
		return invalidPrefix + "Size of hashkey has exceeded the maximum size limit of2048 bytes"
	case !hash && len(v.Str) > maxRange:
		return invalidPrefix + "Aggregated size of all range keys has exceeded the size limit of 1024 bytes"
	}
	return ""
}

func empty(v store.Value) bool { return v.Str == "" && (v.Kind == store.S || v.Kind == store.B) }

func emptyWord(v store.Value) string {
	if v.Kind == store.S {
		return "string"
	}
	return "binary"
}

// checkKey tells what is wrong with a key that is to have a schema.
func checkKey(it store.Item, k store.Key) string {
	attrs := attrsOf(k)
	if len(attrs) != len(it) {
		return noMatch
	}
	for i, a := range attrs {
		if msg := checkPiece(it, a, i == 0); msg != "" {
			return msg
		}
	}
	return ""
}

func checkPiece(it store.Item, a store.Attr, hash bool) string {
	v := it[a.Name]
	if v.Kind != a.Kind {
		return noMatch
	}
	if empty(v) {
		return invalidPrefix + "The AttributeValue for a key attribute cannot contain an empty " + emptyWord(v) + " value. Key: " + a.Name
	}
	return keySize(v, hash)
}

// checkItem tells what is wrong with the keys of an Item that is to be written.
func checkItem(it store.Item, t *store.Table) string {
	for i, a := range attrsOf(t.Key) {
		v, ok := it[a.Name]
		switch {
		case !ok:
			return invalidPrefix + "Missing the key " + a.Name + " in the item"
		case v.Kind != a.Kind:
			return invalidPrefix + "Type mismatch for key " + a.Name + " expected: " + a.Kind.String() + " actual: " + v.Kind.String()
		case empty(v):
			return "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty " + emptyWord(v) + " value. Key: " + a.Name
		}
		if msg := keySize(v, i == 0); msg != "" {
			return msg
		}
	}
	for i := range t.Indexes {
		x := &t.Indexes[i]
		for j, a := range attrsOf(x.Key) {
			v, ok := it[a.Name]
			if !ok {
				continue
			}
			if v.Kind != a.Kind {
				return mismatched(a, v.Kind, x)
			}
			if empty(v) && !contains(t.Key, a.Name) {
				return "One or more parameter values are not valid. A value specified for a secondary index key is not supported. The AttributeValue for a key attribute cannot contain an empty " + emptyWord(v) + " value. IndexName: " + x.Name + ", IndexKey: " + a.Name
			}
			if msg := keySize(v, j == 0); msg != "" {
				return msg
			}
		}
	}
	return ""
}

func contains(k store.Key, name string) bool { return k.Hash.Name == name || k.Range.Name == name }

func mismatched(a store.Attr, actual store.Kind, x *store.Index) string {
	return invalidPrefix + "Type mismatch for Index Key " + a.Name + " Expected: " + a.Kind.String() + " Actual: " + actual.String() + " IndexName: " + x.Name
}

// scalarKeys refuses paths into key attributes.
func scalarKeys(t *store.Table, nested func(string) bool) string {
	const msg = "Key attributes must be scalars; list random access '[]' and map lookup '.' are not allowed: "
	for _, a := range attrsOf(t.Key) {
		if nested(a.Name) {
			return msg + "Key: " + a.Name
		}
	}
	for _, x := range t.Indexes {
		for _, a := range attrsOf(x.Key) {
			if nested(a.Name) {
				return msg + "IndexKey: " + a.Name
			}
		}
	}
	return ""
}

// checkUpdates refuses updates of keys, and values of another kind for the keys of indexes.
func checkUpdates(t *store.Table, u *expr.Update, older []expr.AttrUpdate) string {
	find := func(name string) *expr.AttrUpdate {
		for i := range older {
			if older[i].Attr == name {
				return &older[i]
			}
		}
		return nil
	}
	for _, a := range attrsOf(t.Key) {
		if u.Changes(a.Name) || find(a.Name) != nil {
			return invalidPrefix + "Cannot update attribute " + a.Name + ". This attribute is part of the key"
		}
	}
	for i := range t.Indexes {
		x := &t.Indexes[i]
		for _, a := range attrsOf(x.Key) {
			actual := store.None
			if u != nil {
				actual = u.Kind(a.Name)
			} else if o := find(a.Name); o != nil {
				actual = o.Value.Kind
			}
			if actual != store.None && actual != a.Kind {
				return mismatched(a, actual, x)
			}
		}
	}
	if u == nil {
		return ""
	}
	return scalarKeys(t, u.Nested)
}
