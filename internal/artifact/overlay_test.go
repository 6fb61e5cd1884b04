package artifact

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

func text(p, s string) File { return File{Path: p, Mode: 0o644, Data: []byte(s)} }

func TestOverlay_ALaterOneCoversAnEarlierOne(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	a := put(t, s, FromFiles(text("both", "a"), text("only/a", "a"), text("folder", "a"), text("file/x", "a")))
	b := put(t, s, FromFiles(text("both", "b"), text("only/b", "b"), text("folder/x", "b"), text("file", "b")))
	both, err := s.Overlay(a, b)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := s.Materialise(context.Background(), both)
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]string{"both": "b", "only/a": "a", "only/b": "b", "folder/x": "b", "file": "b"} {
		if got, err := os.ReadFile(filepath.Join(dir, p)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v; want %q", p, got, err, want)
		}
	}
	if again, err := s.Overlay(a, b); err != nil || again != both {
		t.Errorf("again: %s, %v", again, err)
	}
	if other, err := s.Overlay(b, a); err != nil || other == both {
		t.Errorf("the other way round: %s, %v", other, err)
	}
	if one, err := s.Overlay(a); err != nil || one != a {
		t.Errorf("one alone: %s, %v, want %s", one, err, a)
	}
}

func TestOverlay_OutlivesWhatItWasMadeOf(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	a, b := put(t, s, FromFiles(text("a", "1"))), put(t, s, FromFiles(text("b", "2")))
	both, err := s.Overlay(a, b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.collect(func(d string) bool { return d == both }, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Manifest(a); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("what nobody keeps stays: %v", err)
	}
	if _, err := s.Materialise(context.Background(), both); err != nil {
		t.Error(err)
	}
}

func TestOverlay_RefusesWhatIsNotHereOrTooLarge(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	a, b := put(t, s, FromFiles(text("a", "12345"))), put(t, s, FromFiles(text("b", "67890")))
	for _, digests := range [][]string{{shaOf("none")}, {a, shaOf("none")}} {
		if _, err := s.Overlay(digests...); errs.CodeOf(err) != errs.NotFound {
			t.Errorf("%v: %v", digests, err)
		}
	}
	s.Limits.Bytes = 9
	if _, err := s.Overlay(a, b); errs.CodeOf(err) != errs.TooLarge {
		t.Errorf("too large: %v", err)
	}
}
