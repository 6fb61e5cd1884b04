package fs_test

import (
	"bytes"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/seal"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/store/fs"
	"github.com/ebb-run/ebb/internal/store/storetest"
)

func open(t *testing.T, dir string, o fs.Options) *fs.Store {
	t.Helper()
	s, err := fs.Open(t.Context(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func TestStore_KeepsTheContract(t *testing.T) {
	t.Parallel()
	storetest.RunObjects(t, func(t *testing.T) store.Objects { return open(t, t.TempDir(), fs.Options{}) })
}

func TestStore_KeepsTheContractSealed(t *testing.T) {
	t.Parallel()
	storetest.RunObjects(t, func(t *testing.T) store.Objects {
		return open(t, t.TempDir(), fs.Options{Seal: seal.New().Box("objects")})
	})
}

// Nothing of an object is in any file: its bucket, key, metadata, and data, small and large, whole and in parts.
func TestStore_WritesNothingInClear(t *testing.T) {
	t.Parallel()
	for name, box := range map[string]*seal.Box{"clear": nil, "sealed": seal.New().Box("objects")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := open(t, dir, fs.Options{Seal: box})
			in := store.BucketID{Tenant: "default", Name: "canary-bucket"}
			if err := s.CreateBucket(t.Context(), in, store.Bucket{}); err != nil {
				t.Fatal(err)
			}
			for i, size := range []int{1, 100_000} {
				key := store.ObjectKey{Bucket: in, Key: fmt.Sprint("canary-key", i)}
				if _, err := s.Put(t.Context(), key, store.PutObject{Body: strings.NewReader(strings.Repeat("canary-data", size))}); err != nil {
					t.Fatal(err)
				}
				u, err := s.CreateUpload(t.Context(), key, store.CreateUpload{})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := s.PutPart(t.Context(), key, u.ID, 1, store.PutPart{Body: strings.NewReader(strings.Repeat("canary-part", size))}); err != nil {
					t.Fatal(err)
				}
			}
			for _, want := range []string{"canary-bucket", "canary-key", "canary-data", "canary-part"} {
				found := false
				err := iofs.WalkDir(os.DirFS(dir), ".", func(name string, d iofs.DirEntry, err error) error {
					if err != nil || d.IsDir() {
						return err
					}
					data, err := os.ReadFile(filepath.Join(dir, name))
					found = found || bytes.Contains(data, []byte(want))
					return err
				})
				if err != nil || found == (box != nil) {
					t.Errorf("%s in clear: %v %v", want, found, err)
				}
			}
		})
	}
}

// BenchmarkObject puts and gets objects of 1 MB, one at a time.
func BenchmarkObject(b *testing.B) {
	const size = 1 << 20
	body := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	for name, box := range map[string]*seal.Box{"clear": nil, "sealed": seal.New().Box("objects")} {
		s, err := fs.Open(b.Context(), b.TempDir(), fs.Options{Seal: box})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = s.Close() })
		if err := s.CreateBucket(b.Context(), bucket, store.Bucket{}); err != nil {
			b.Fatal(err)
		}
		put := func(b *testing.B) {
			if _, err := s.Put(b.Context(), keyOf("k"), store.PutObject{Body: bytes.NewReader(body)}); err != nil {
				b.Fatal(err)
			}
		}
		b.Run("put/"+name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				put(b)
			}
		})
		b.Run("get/"+name, func(b *testing.B) {
			put(b)
			b.SetBytes(size)
			for b.Loop() {
				obj, err := s.Open(b.Context(), keyOf("k"), "")
				if err != nil {
					b.Fatal(err)
				}
				if err := obj.Read(b.Context(), io.Discard, 0, size); err != nil {
					b.Fatal(err)
				}
				obj.Close()
			}
		})
	}
}
