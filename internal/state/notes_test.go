package state_test

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/state"
)

// Notes are read back as they were written, by kind; one that was changed meanwhile is not overwritten, and one that is gone can be made again.
func TestNotes_AreReadBackAfterAReopen(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "nats")
	s, c := openIn(t, dir, state.Options{})
	ctx := t.Context()
	put := func(kind, name, data string, expect uint64) uint64 {
		t.Helper()
		seq, err := s.PutNote(ctx, "default", kind, name, []byte(data), expect)
		if err != nil {
			t.Fatal(err)
		}
		return seq
	}
	put("rule", "b", "B", 0)
	first := put("rule", "a.b/c\n*>", "one", 0)
	put("other", "a", "no rule", 0)
	if _, err := s.PutNote(ctx, "default", "rule", "b", nil, 0); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("a second time: %v", err)
	}
	put("rule", "a.b/c\n*>", "two", first)
	if _, err := s.PutNote(ctx, "default", "rule", "a.b/c\n*>", nil, first); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("over another state: %v", err)
	}
	for name, size := range map[string]int{"": 1, "big": 1 << 20} {
		if _, err := s.PutNote(ctx, "default", "rule", name, make([]byte, size), 0); err == nil {
			t.Errorf("%q with %d bytes was taken", name, size)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	s, _ = openIn(t, dir, state.Options{})
	list, err := s.Notes(ctx, "default", "rule")
	if err != nil || len(list) != 2 || list[0].Name != "a.b/c\n*>" || !bytes.Equal(list[0].Data, []byte("two")) || string(list[1].Data) != "B" {
		t.Fatalf("%+v, %v", list, err)
	}
	if n, err := s.Note(ctx, "default", "rule", "b"); err != nil || n.Seq != list[1].Seq || string(n.Data) != "B" {
		t.Errorf("%+v, %v", n, err)
	}
	for range 2 {
		if err := s.DeleteNote(ctx, "default", "rule", "b"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Note(ctx, "default", "rule", "b"); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("after it was removed: %v", err)
	}
	put("rule", "b", "again", 0)
	if list, err := s.Notes(ctx, "elsewhere", "rule"); err != nil || len(list) != 0 {
		t.Errorf("another tenant has %+v, %v", list, err)
	}
}
