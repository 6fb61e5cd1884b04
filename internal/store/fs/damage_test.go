package fs_test

import (
	"bytes"
	"errors"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/seal"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/store/fs"
)

// waitFor waits for a condition, for a minute.
func waitFor(t *testing.T, holds func() bool, said func() string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(said())
		}
	}
}

// dataFiles are the paths of all files of data.
func dataFiles(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(filepath.Join(dir, "data"), func(path string, d iofs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func bucketIn(t *testing.T, s *fs.Store) {
	t.Helper()
	if err := s.CreateBucket(t.Context(), bucket, store.Bucket{}); err != nil {
		t.Fatal(err)
	}
}

func TestStore_GivesNoDamagedData(t *testing.T) {
	t.Parallel()
	for name, box := range map[string]*seal.Box{"clear": nil, "sealed": seal.New().Box("objects")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			givesNoDamagedData(t, box)
		})
	}
}

func givesNoDamagedData(t *testing.T, box *seal.Box) {
	t.Helper()
	const size = 200_000
	for name, harm := range map[string]func(data []byte) []byte{
		"a bit in the last block": func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"a bit in a checksum":     func(b []byte) []byte { b[65536] ^= 1; return b },
		"cut short":               func(b []byte) []byte { return b[:len(b)-10] },
		"cut at a block":          func(b []byte) []byte { return b[:65536] },
		"empty":                   func([]byte) []byte { return nil },
		"blocks changed about": func(b []byte) []byte {
			first := bytes.Clone(b[:65536])
			copy(b, b[65536:131072])
			copy(b[65536:], first)
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := open(t, dir, fs.Options{Seal: box})
			bucketIn(t, s)
			if _, err := s.Put(t.Context(), keyOf("k"), store.PutObject{Body: strings.NewReader(strings.Repeat("0123456789", size/10))}); err != nil {
				t.Fatal(err)
			}
			path := dataFiles(t, dir)[0]
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, harm(data), 0o600); err != nil {
				t.Fatal(err)
			}
			obj, err := s.Open(t.Context(), keyOf("k"), "")
			if err != nil {
				t.Fatal(err)
			}
			defer obj.Close()
			var b bytes.Buffer
			if err := obj.Read(t.Context(), &b, 0, size); !errors.Is(err, store.ErrDamaged) {
				t.Errorf("reading ends with %v", err)
			}
			if !strings.HasPrefix(strings.Repeat("0123456789", size/10), b.String()) {
				t.Error("damaged data were given")
			}
		})
	}
}

func TestStore_RemovesWhatNothingNeeds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, fs.Options{})
	bucketIn(t, s)
	big := strings.Repeat("x", 100_000)
	put := func(key string) {
		if _, err := s.Put(t.Context(), keyOf(key), store.PutObject{Body: strings.NewReader(big)}); err != nil {
			t.Fatal(err)
		}
	}
	put("a")
	put("a")
	put("b")
	if _, err := s.Put(t.Context(), keyOf("c"), store.PutObject{From: &store.ObjectSource{ObjectKey: keyOf("b"), Length: -1}}); err != nil {
		t.Fatal(err)
	}
	count := func(n int) {
		t.Helper()
		waitFor(t, func() bool { return files(t, dir) == n }, func() string { return "files stay that nothing needs, or one that is needed has gone" })
	}
	count(2)
	if _, err := s.Delete(t.Context(), keyOf("b"), store.DeleteObject{}); err != nil {
		t.Fatal(err)
	}
	obj, err := s.Open(t.Context(), keyOf("c"), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Delete(t.Context(), keyOf("c"), store.DeleteObject{}); err != nil {
		t.Fatal(err)
	}
	put("a")
	count(2) // "a", and what is read
	if err := obj.Read(t.Context(), io.Discard, 0, obj.Info().Size); err != nil {
		t.Error(err)
	}
	obj.Close()
	count(1)
	_, err = s.Put(t.Context(), keyOf("d"), store.PutObject{Body: strings.NewReader(big), Verify: func(store.ObjectSums) error { return io.ErrClosedPipe }})
	if !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
	count(1)
}

func TestOpen_RefusesANewerFormatUntouched(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := fs.Open(t.Context(), dir, fs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	fs.SetFormat(t, dir, 99)
	before, err := os.ReadFile(filepath.Join(dir, "objects.db"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fs.Open(t.Context(), dir, fs.Options{}); errs.CodeOf(err) != errs.Unsupported {
		t.Errorf("opening ends with %v", err)
	}
	after, err := os.ReadFile(filepath.Join(dir, "objects.db"))
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the database was changed: %v", err)
	}
}

func TestStore_TakesAndGivesALotInLittleMemory(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), fs.Options{})
	bucketIn(t, s)
	const size = 256 << 20
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	before := m.TotalAlloc
	if _, err := s.Put(t.Context(), keyOf("k"), store.PutObject{Body: io.LimitReader(zeros{}, size)}); err != nil {
		t.Fatal(err)
	}
	obj, err := s.Open(t.Context(), keyOf("k"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer obj.Close()
	if err := obj.Read(t.Context(), io.Discard, 0, size); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&m)
	if used := m.TotalAlloc - before; used > size/2 { // others allocate beside it
		t.Errorf("%d MB were allocated for an object of %d MB", used>>20, size>>20)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
