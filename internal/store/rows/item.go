package rows

import (
	"encoding/binary"
	"errors"

	"github.com/ebb-run/ebb/internal/store"
)

// itemFormat is the first byte of an encoded Item.
const itemFormat = 1

// ErrDamaged is the error of bytes that are no Item.
var ErrDamaged = errors.New("an item's bytes are damaged")

// Encode writes an Item: the format, then the map's length and for each attribute its name and value.
func Encode(it store.Item) []byte {
	b := make([]byte, 0, 16+it.Size()*5/4)
	return appendMap(append(b, itemFormat), it)
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendMap(b []byte, it store.Item) []byte {
	b = binary.AppendUvarint(b, uint64(len(it)))
	for name, v := range it {
		b = appendValue(appendText(b, name), v)
	}
	return b
}

func appendValue(b []byte, v store.Value) []byte {
	b = append(b, byte(v.Kind))
	switch v.Kind {
	case store.S, store.N, store.B:
		return appendText(b, v.Str)
	case store.BOOL:
		if v.Bool {
			return append(b, 1)
		}
		return append(b, 0)
	case store.SS, store.NS, store.BS:
		b = binary.AppendUvarint(b, uint64(len(v.Set)))
		for _, s := range v.Set {
			b = appendText(b, s)
		}
	case store.L:
		b = binary.AppendUvarint(b, uint64(len(v.List)))
		for _, e := range v.List {
			b = appendValue(b, e)
		}
	case store.M:
		return appendMap(b, v.Map)
	}
	return b
}

// Decode reads an Item. Its texts share one copy of the bytes.
func Decode(raw []byte) (store.Item, error) {
	if len(raw) == 0 || raw[0] != itemFormat {
		return nil, ErrDamaged
	}
	d := decoder{rest: string(raw[1:])}
	it := d.item(0)
	if d.bad || d.rest != "" {
		return nil, ErrDamaged
	}
	return it, nil
}

type decoder struct {
	rest string
	bad  bool
}

func (d *decoder) length() int {
	var n uint64
	for i := 0; i < len(d.rest) && i < binary.MaxVarintLen64; i++ {
		c := d.rest[i]
		n |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			d.rest = d.rest[i+1:]
			if n > uint64(len(d.rest)) { // an element has a byte at least
				break
			}
			return int(n)
		}
	}
	d.bad = true
	return 0
}

func (d *decoder) text() string {
	n := d.length()
	if d.bad {
		return ""
	}
	s := d.rest[:n]
	d.rest = d.rest[n:]
	return s
}

// maxDepth is beyond what an Item may nest: DynamoDB's limit is 32.
const maxDepth = 64

func (d *decoder) item(depth int) store.Item {
	n := d.length()
	it := make(store.Item, n)
	for range n {
		if d.bad {
			return nil
		}
		name := d.text()
		it[name] = d.value(depth + 1)
	}
	return it
}

func (d *decoder) value(depth int) store.Value {
	if d.bad || d.rest == "" || depth > maxDepth {
		d.bad = true
		return store.Value{}
	}
	v := store.Value{Kind: store.Kind(d.rest[0])}
	d.rest = d.rest[1:]
	switch v.Kind {
	case store.S, store.N, store.B:
		v.Str = d.text()
	case store.BOOL:
		if d.rest == "" {
			d.bad = true
			return v
		}
		v.Bool = d.rest[0] != 0
		d.rest = d.rest[1:]
	case store.NULL:
	case store.SS, store.NS, store.BS:
		n := d.length()
		v.Set = make([]string, 0, n)
		for i := 0; i < n && !d.bad; i++ {
			v.Set = append(v.Set, d.text())
		}
	case store.L:
		n := d.length()
		v.List = make([]store.Value, 0, min(n, 1024))
		for i := 0; i < n && !d.bad; i++ {
			v.List = append(v.List, d.value(depth+1))
		}
	case store.M:
		v.Map = d.item(depth)
	default:
		d.bad = true
	}
	return v
}
