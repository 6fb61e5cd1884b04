package seal_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/seal"
)

func newKey(t *testing.T) *seal.Key {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := seal.NewKeyFile(path); err != nil {
		t.Fatal(err)
	}
	k, err := seal.ReadKey(path)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestReadKey_RefusesWhatIsNone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	if err := seal.NewKeyFile(good); err != nil {
		t.Fatal(err)
	}
	if err := seal.NewKeyFile(good); errs.CodeOf(err) != errs.Exists || errs.HintOf(err) == "" {
		t.Errorf("made twice: %v", err)
	}
	text, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(good); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v %v", info.Mode(), err)
	}
	for name, c := range map[string]struct {
		text []byte
		mode os.FileMode
		code errs.Code
	}{
		"readable by others": {text, 0o640, errs.Forbidden},
		"empty":              {nil, 0o600, errs.Invalid},
		"cut":                {text[:len(text)-5], 0o600, errs.Invalid},
		"longer":             {bytes.Repeat(text, 2), 0o600, errs.Invalid},
		"no head":            {text[10:], 0o600, errs.Invalid},
		"random bytes":       {bytes.Repeat([]byte{0xff}, 32), 0o600, errs.Invalid},
	} {
		path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
		if err := os.WriteFile(path, c.text, c.mode); err != nil {
			t.Fatal(err)
		}
		_, err := seal.ReadKey(path)
		if errs.CodeOf(err) != c.code || errs.HintOf(err) == "" || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
		if len(c.text) > 20 && strings.Contains(fmt.Sprint(err), string(c.text[15:20])) {
			t.Errorf("%s: the error shows the content: %v", name, err)
		}
	}
	if _, err := seal.ReadKey(filepath.Join(dir, "none")); errs.CodeOf(err) != errs.NotFound || errs.HintOf(err) == "" {
		t.Errorf("missing: %v", err)
	}
	if _, err := seal.ReadKey(dir); err == nil {
		t.Error("a folder was read")
	}
}

func TestOpen_TakesOneKeyAlone(t *testing.T) {
	t.Parallel()
	a, b := newKey(t), newKey(t)
	s := seal.New()
	marker := s.Marker(a)
	again, err := seal.Open(a, marker)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.Key("x"), s.Key("x")) || bytes.Equal(s.Key("x"), s.Key("y")) || len(s.Key("x")) != 32 {
		t.Error("the keys of purposes are wrong")
	}
	if _, err := seal.Open(b, marker); errs.CodeOf(err) != errs.Forbidden || errs.HintOf(err) == "" {
		t.Errorf("another key: %v", err)
	}
	// Another key for the same data.
	moved, err := seal.Open(b, s.Marker(b))
	if err != nil || !bytes.Equal(moved.Key("x"), s.Key("x")) {
		t.Errorf("after another key: %v", err)
	}
	for i := range marker {
		damaged := bytes.Clone(marker)
		damaged[i] ^= 1
		if got, err := seal.Open(a, damaged); err == nil && !bytes.Equal(got.Key("x"), s.Key("x")) {
			t.Errorf("byte %d changed: another key came out", i)
		}
	}
	if _, err := seal.Open(a, []byte(`{"format":2}`)); errs.CodeOf(err) != errs.Unsupported {
		t.Errorf("newer: %v", err)
	}
}

func TestSealer_IsNeverPrinted(t *testing.T) {
	t.Parallel()
	s := seal.New()
	for _, v := range []any{s, s.Box("x"), newKey(t)} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
			if text := fmt.Sprintf(verb, v); len(text) > 12 {
				t.Errorf("%T by %s is %q", v, verb, text)
			}
		}
	}
}

func TestBox_OpensOnlyWhatWasSealedThere(t *testing.T) {
	t.Parallel()
	s := seal.New()
	box := s.Box("a")
	data := []byte("some data")
	sealed := box.Seal(nil, data, "here")
	if len(sealed) != len(data)+box.Overhead() || bytes.Contains(sealed, data) || bytes.Equal(sealed, box.Seal(nil, data, "here")) {
		t.Errorf("sealed: %q", sealed)
	}
	if got, err := box.Open(nil, sealed, "here"); err != nil || !bytes.Equal(got, data) {
		t.Errorf("opened: %q %v", got, err)
	}
	for i := range sealed {
		changed := bytes.Clone(sealed)
		changed[i] ^= 0x10
		if _, err := box.Open(nil, changed, "here"); !errors.Is(err, seal.ErrOpen) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		if _, err := box.Open(nil, sealed[:i], "here"); !errors.Is(err, seal.ErrOpen) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
	if _, err := box.Open(nil, sealed, "there"); !errors.Is(err, seal.ErrOpen) {
		t.Errorf("another place: %v", err)
	}
	if _, err := s.Box("b").Open(nil, sealed, "here"); !errors.Is(err, seal.ErrOpen) {
		t.Errorf("another purpose: %v", err)
	}
	var none *seal.Box
	if got, err := none.Open(nil, none.Seal(nil, data, "x"), "y"); err != nil || !bytes.Equal(got, data) || none.Overhead() != 0 {
		t.Errorf("none: %q %v", got, err)
	}
}

func TestStream_GivesWhatWasSealedOrAnError(t *testing.T) {
	t.Parallel()
	box := seal.New().Box("s")
	const segment = 64 << 10
	r := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 1, segment - 1, segment, segment + 1, 3 * segment, 3*segment + 7} {
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		var out bytes.Buffer
		w := box.Writer(&out, "p")
		for rest := data; len(rest) > 0; { // in pieces of any size
			n := min(len(rest), 1+r.IntN(segment))
			if m, err := w.Write(rest[:n]); m != n || err != nil {
				t.Fatal(m, err)
			}
			rest = rest[n:]
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		sealed := out.Bytes()
		if got := box.PlainSize(int64(len(sealed))); got != int64(size) || seal.StreamSize(int64(size)) != int64(len(sealed)) {
			t.Errorf("%d bytes: size is said to be %d of %d", size, got, len(sealed))
		}
		open := func(sealed []byte, place string) ([]byte, error) {
			return io.ReadAll(box.Reader(bytes.NewReader(sealed), place))
		}
		if got, err := open(sealed, "p"); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes: %v", size, err)
		}
		if _, err := open(sealed, "q"); !errors.Is(err, seal.ErrOpen) {
			t.Errorf("%d bytes in another place: %v", size, err)
		}
		for range 50 {
			changed := bytes.Clone(sealed)
			switch at := r.IntN(len(changed)); r.IntN(3) {
			case 0:
				changed[at] ^= 1 << r.IntN(8)
			case 1:
				changed = changed[:at]
			case 2:
				changed = append(changed, changed[:at+1]...)
			}
			got, err := open(changed, "p")
			if !errors.Is(err, seal.ErrOpen) || !bytes.HasPrefix(data, got) {
				t.Errorf("%d bytes, changed: %v", size, err)
			}
		}
		// Cut between two segments.
		if whole := segment + seal.Overhead; len(sealed) > whole {
			if _, err := open(sealed[:whole], "p"); !errors.Is(err, seal.ErrOpen) {
				t.Errorf("%d bytes, cut after a segment: %v", size, err)
			}
		}
	}
	var none *seal.Box
	var out bytes.Buffer
	w := none.Writer(&out, "p")
	_, _ = io.WriteString(w, "x")
	if got, err := io.ReadAll(none.Reader(&out, "p")); w.Close() != nil || err != nil || string(got) != "x" {
		t.Errorf("none: %q %v", got, err)
	}
}

// BenchmarkBox seals and opens what SQLite's files and objects' files are made of.
func BenchmarkBox(b *testing.B) {
	box := seal.New().Box("b")
	for _, size := range []int{4 << 10, 64 << 10} {
		buf := make([]byte, seal.NonceSize+size, size+seal.Overhead)
		b.Run(fmt.Sprintf("seal/%d", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				box.SealInPlace(buf, "place")
			}
		})
		sealed := box.Seal(nil, buf[seal.NonceSize:], "place")
		out := make([]byte, 0, size)
		b.Run(fmt.Sprintf("open/%d", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := box.Open(out, sealed, "place"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
