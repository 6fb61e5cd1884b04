package sqlite

import (
	"crypto/md5"
	"fmt"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/store"
)

// hashBytes is how much of the hash stands before a hash key: it spreads a Scan's segments evenly.
const hashBytes = 3

// plain returns bytes that order as the Values of one kind do.
func plain(v store.Value) []byte {
	if v.Kind == store.N {
		return v.Number().Sortable(nil)
	}
	return []byte(v.Str)
}

// spread is the hash that DynamoDB orders a Scan by, as far as it is known.
func spread(parts ...[]byte) []byte {
	h := md5.New()
	h.Write([]byte("Outliers"))
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)[:hashBytes]
}

// hashKey is the column h: the hash, then the key itself.
func hashKey(v store.Value) []byte {
	p := plain(v)
	return append(spread(p), p...)
}

// rowKey returns the columns h and r of an Item in its table.
func rowKey(k store.Key, it store.Item) (h, r []byte, err error) {
	for _, a := range []store.Attr{k.Hash, k.Range} {
		if v := it[a.Name]; a.Name != "" && v.Kind != a.Kind {
			return nil, nil, errs.New(errs.Invalid, "the key attribute %s is of kind %q, not %s", a.Name, v.Kind.String(), a.Kind)
		}
	}
	h, r = hashKey(it[k.Hash.Name]), []byte{}
	if k.Range.Name != "" {
		r = plain(it[k.Range.Name])
	}
	return h, r, nil
}

// entry is a row of an index: its own key, the tie-break between Items with the same, and the Item's row.
type entry struct{ h, r, o, th, tr []byte }

func (e *entry) args() []any { return []any{e.h, e.r, e.o, e.th, e.tr} }

func (e *entry) same(o *entry) bool {
	return string(e.h) == string(o.h) && string(e.r) == string(o.r)
}

// indexEntry returns the row of an Item in an index, or nil when it is not in it.
func indexEntry(t *store.Table, x *store.Index, it store.Item) *entry {
	if it == nil || !x.Key.In(it) {
		return nil
	}
	e := &entry{h: hashKey(it[x.Key.Hash.Name]), r: []byte{}, tr: []byte{}}
	if x.Key.Range.Name != "" {
		e.r = plain(it[x.Key.Range.Name])
	}
	th := plain(it[t.Key.Hash.Name])
	if t.Key.Range.Name != "" {
		e.tr = plain(it[t.Key.Range.Name])
	}
	e.o = spread(th, e.tr)
	e.th = append(spread(th), th...)
	return e
}

// shown returns what an index shows of an Item.
func shown(t *store.Table, x *store.Index, it store.Item) store.Item {
	if x == nil || x.All {
		return it
	}
	names := append(append(t.Key.Names(), x.Key.Names()...), x.Attrs...)
	return it.Only(names...)
}

// segment returns the first hash of a segment and the first behind it, nil for none.
func segment(i, of int) (from, upto []byte) {
	if of <= 1 {
		return nil, nil
	}
	bits := 12
	for 1<<bits < of {
		bits = 24
	}
	at := func(i int) []byte {
		if i <= 0 || i >= of {
			return nil
		}
		n := (i<<bits + of - 1) / of << (24 - bits)
		return []byte{byte(n >> 16), byte(n >> 8), byte(n)}
	}
	return at(i), at(i + 1)
}

func tableName(id int64) string        { return fmt.Sprintf("t%d", id) }
func indexName(id, index int64) string { return fmt.Sprintf("x%d_%d", id, index) }
func expiryName(id int64) string       { return fmt.Sprintf("e%d", id) }
