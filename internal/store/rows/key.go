package rows

import (
	"crypto/md5"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/store"
)

// hashBytes is how much of the hash stands before a hash key: it spreads a Scan's segments evenly.
const hashBytes = 3

// Plain returns bytes that order as the Values of one kind do.
func Plain(v store.Value) []byte {
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

// HashKey is the column h: the hash, then the key itself.
func HashKey(v store.Value) []byte {
	p := Plain(v)
	return append(spread(p), p...)
}

// Key returns the columns h and r of an Item in its table.
func Key(k store.Key, it store.Item) (h, r []byte, err error) {
	for _, a := range []store.Attr{k.Hash, k.Range} {
		if v := it[a.Name]; a.Name != "" && v.Kind != a.Kind {
			return nil, nil, errs.New(errs.Invalid, "the key attribute %s is of kind %q, not %s", a.Name, v.Kind.String(), a.Kind)
		}
	}
	h, r = HashKey(it[k.Hash.Name]), []byte{}
	if k.Range.Name != "" {
		r = Plain(it[k.Range.Name])
	}
	return h, r, nil
}

// Entry is a row of an index: its own key, the tie-break between Items with the same, and the Item's row.
type Entry struct{ H, R, O, TH, TR []byte }

// Args are the columns in their order.
func (e *Entry) Args() []any { return []any{e.H, e.R, e.O, e.TH, e.TR} }

// Same tells whether two Entries of one Item stand at the same place.
func (e *Entry) Same(o *Entry) bool {
	return string(e.H) == string(o.H) && string(e.R) == string(o.R)
}

// IndexEntry returns the row of an Item in an index, or nil when it is not in it.
func IndexEntry(t *store.Table, x *store.Index, it store.Item) *Entry {
	if it == nil || !x.Key.In(it) {
		return nil
	}
	e := &Entry{H: HashKey(it[x.Key.Hash.Name]), R: []byte{}, TR: []byte{}}
	if x.Key.Range.Name != "" {
		e.R = Plain(it[x.Key.Range.Name])
	}
	th := Plain(it[t.Key.Hash.Name])
	if t.Key.Range.Name != "" {
		e.TR = Plain(it[t.Key.Range.Name])
	}
	e.O = spread(th, e.TR)
	e.TH = append(spread(th), th...)
	return e
}

// Shown returns what an index shows of an Item.
func Shown(t *store.Table, x *store.Index, it store.Item) store.Item {
	if x == nil || x.All {
		return it
	}
	names := append(append(t.Key.Names(), x.Key.Names()...), x.Attrs...)
	return it.Only(names...)
}

// Segment returns the first hash of a segment and the first behind it, nil for none.
func Segment(i, of int) (from, upto []byte) {
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
