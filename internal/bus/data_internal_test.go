package bus

import (
	"bytes"
	"crypto/sha256"
	"reflect"
	"testing"

	"github.com/ebb-run/ebb/internal/event"
)

// What is read as a reference is written back the same, and nothing else is read.
func FuzzApart_ReadsWhatItWrites(f *testing.F) {
	e := &event.Event{ID: "1", Source: "/s", Type: "t", Data: make([]byte, maxInline+1)}
	it := eventItem(e)
	it.ref = &dataRef{size: len(it.apart), sum: sha256.Sum256(it.apart), chunks: []spot{{7, 0}, {8, 4095}}}
	f.Add(appendApart(nil, it))
	f.Add(appendApart(nil, item{kind: kindSend, ref: &dataRef{size: 1, chunks: []spot{{1 << 40, 1}}}}))
	f.Add([]byte{'o', 0, 1})
	f.Add([]byte{'e', 0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseApart(b)
		if err != nil {
			return
		}
		if got.ref == nil || len(got.ref.chunks) == 0 || got.ref.size <= 0 || !got.kind.hasData() {
			t.Fatalf("got %+v", got)
		}
		again, err := parseApart(appendApart(nil, got))
		if err != nil || !reflect.DeepEqual(again.ref, got.ref) || again.kind != got.kind || !bytes.Equal(again.body, got.body) {
			t.Fatalf("%+v became %+v, %v", got, again, err)
		}
	})
}

// A block with data that stand apart has a version that an older ebb refuses; any other has the one that it reads.
func TestBlock_TellsOldReadersOfDataApart(t *testing.T) {
	t.Parallel()
	small, large := eventItem(&event.Event{ID: "1", Source: "/s", Type: "t"}), eventItem(&event.Event{ID: "1", Source: "/s", Type: "t", Data: make([]byte, maxInline+1)})
	large.ref = &dataRef{size: len(large.apart), chunks: []spot{{1, 0}}}
	for _, row := range []struct {
		items   []item
		version byte
	}{
		{[]item{small}, 1},
		{[]item{small, large}, 2},
		{[]item{{kind: kindChunk, body: []byte("x")}}, 2},
	} {
		b := appendBlock(nil, row.items)
		got, err := parseBlock(b)
		if err != nil || b[0] != row.version || len(got) != len(row.items) {
			t.Errorf("version %d, %d items, %v; want %d, %d", b[0], len(got), err, row.version, len(row.items))
		}
	}
	if n := eventItem(&event.Event{Data: make([]byte, 5<<20)}).size(); n > 4096 {
		t.Errorf("an item with data apart counts as %d bytes", n)
	}
	b := appendBlock(nil, []item{small})
	b[0] = blockVersion + 1
	if _, err := parseBlock(b); err == nil {
		t.Error("a newer version is read")
	}
}
