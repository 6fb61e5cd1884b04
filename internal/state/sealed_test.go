package state_test

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/state"
)

func TestSealed_IsKeptByItsName(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "nats")
	s, c := openIn(t, dir, state.Options{})
	ctx := t.Context()
	long := "/" + string(bytes.Repeat([]byte("ä."), 2000))
	seq, err := s.PutSealed(ctx, "default", "parameter", long, []byte("one"), 0)
	if err != nil {
		t.Fatal(err)
	}
	for name, at := range map[string]uint64{"a second time": 0, "over another state": seq + 5} {
		if _, err := s.PutSealed(ctx, "default", "parameter", long, []byte("two"), at); errs.CodeOf(err) != errs.Conflict {
			t.Errorf("%s: %v", name, err)
		}
	}
	if seq, err = s.PutSealed(ctx, "default", "parameter", long, []byte("two"), seq); err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutSealed(ctx, "default", "secret", long, []byte("other kind"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutSealed(ctx, "default", "secret", "big", make([]byte, state.MaxSealed), 0); err != nil {
		t.Errorf("the largest: %v", err)
	}
	if _, err := s.PutSealed(ctx, "default", "secret", "bigger", make([]byte, state.MaxSealed+1), 0); errs.CodeOf(err) != errs.TooLarge {
		t.Errorf("a larger one: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	s, _ = openIn(t, dir, state.Options{})
	if one, err := s.Sealed(ctx, "default", "parameter", long); err != nil || string(one.Data) != "two" || one.Seq != seq {
		t.Errorf("%q %d %v", one.Data, one.Seq, err)
	}
	n := 0
	if err := s.EachSealed(ctx, "default", "parameter", func(state.Sealed) error { n++; return nil }); err != nil || n != 1 {
		t.Error(n, err)
	}
	if err := s.DeleteSealed(ctx, "default", "parameter", long, seq-1); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("removed in another state: %v", err)
	}
	if err := s.DeleteSealed(ctx, "default", "parameter", long, seq); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sealed(ctx, "default", "parameter", long); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("after it was removed: %v", err)
	}
	if _, err := s.PutSealed(ctx, "default", "parameter", long, []byte("three"), 0); err != nil {
		t.Errorf("made again: %v", err)
	}
}
