package rows

import (
	"math"
	"reflect"
	"strconv"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/store"
)

// Row is what a Change is about: the row of an Item, and what was and is to be there.
type Row struct {
	H, R     []byte
	Old, New store.Item
}

// Decide asks the function of every Change what is to be in its row, which row gives; nothing is written. Refusals are a *store.Aborted.
func Decide(changes []store.Change, row func(i int) (store.Key, *Row)) error {
	var refused *store.Aborted
	for i, c := range changes {
		key, r := row(i)
		item, err := call(c.Apply, r.Old)
		if err == nil && item != nil {
			var h, rest []byte
			if h, rest, err = Key(key, item); err == nil && (string(h) != string(r.H) || string(rest) != string(r.R)) {
				err = errs.New(errs.Invalid, "a change of an item may not change its key")
			}
		}
		if err != nil {
			if refused == nil {
				refused = &store.Aborted{Errs: make([]error, len(changes))}
			}
			refused.Errs[i] = err
		}
		r.New = item
	}
	if refused != nil {
		return refused
	}
	return nil
}

// call keeps a fault in one caller's function from ending the writer of all.
func call(f func(store.Item) (store.Item, error), old store.Item) (it store.Item, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errs.New(errs.Internal, "a change's function panicked: %v", p)
		}
	}()
	return f(old)
}

// CheckTable refuses a table in which no Item could be found.
func CheckTable(t *store.Table) error {
	seen := map[string]bool{}
	keys := []store.Key{t.Key}
	for _, x := range t.Indexes {
		if x.Name == "" || seen[x.Name] {
			return errs.New(errs.Invalid, "the name of index %q is empty or taken", x.Name)
		}
		seen[x.Name] = true
		keys = append(keys, x.Key)
	}
	for _, k := range keys {
		for i, a := range []store.Attr{k.Hash, k.Range} {
			if (a.Name != "" || i == 0) && (a.Name == "" || a.Kind < store.S || a.Kind > store.B) {
				return errs.New(errs.Invalid, "the key attribute %q is of kind %q; keys are S, N or B", a.Name, a.Kind.String())
			}
		}
	}
	if t.Name == "" {
		return errs.New(errs.Invalid, "a table needs a name")
	}
	return nil
}

// TooOld is how long ago an Item's time may have come: DynamoDB leaves alone what is older, as a mistake.
const TooOld = 5 * 365 * 24 * time.Hour

// KeepRecords is how long Records are kept: DynamoDB Streams keeps its records so long.
const KeepRecords = 24 * time.Hour

// Due returns the second an Item of a table expires.
func Due(t *store.Table, it store.Item) (int64, bool) {
	v := it[t.TTL]
	if v.Kind != store.N {
		return 0, false
	}
	f, err := strconv.ParseFloat(v.Str, 64)
	if err != nil || f < 0 || f > math.MaxInt32*1000.0 {
		return 0, false
	}
	return int64(f), true
}

// Image is what a Record shows, encoded; Old and New are nil where the table's View leaves them out.
type Image struct {
	Op            store.Op
	Key, Old, New []byte
}

// Recorded returns what the stream of a table shows of a change from one Item to another, or nil when it shows nothing.
func Recorded(t *store.Table, old, now store.Item) *Image {
	if t.View == "" || (old == nil) == (now == nil) && old.Equal(now) {
		return nil
	}
	r, it := &Image{Op: store.Modify}, now
	switch {
	case old == nil:
		r.Op = store.Insert
	case now == nil:
		r.Op, it = store.Remove, old
	}
	r.Key = Encode(it.Only(t.Key.Names()...))
	if old != nil && (t.View == store.OldImage || t.View == store.BothViews) {
		r.Old = Encode(old)
	}
	if now != nil && (t.View == store.NewImage || t.View == store.BothViews) {
		r.New = Encode(now)
	}
	return r
}

// Same tells whether a function gave back the very Item it got, which is to change nothing.
func Same(a, b store.Item) bool {
	return a == nil && b == nil || a != nil && b != nil && reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer()
}
