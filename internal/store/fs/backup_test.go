package fs_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/store/fs"
)

func TestSnapshot_KeepsTheFilesOfWhatIsDeletedMeanwhile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := fs.Open(t.Context(), dir, fs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	bucket := store.BucketID{Tenant: "t", Name: "b"}
	if err := s.CreateBucket(t.Context(), bucket, store.Bucket{}); err != nil {
		t.Fatal(err)
	}
	body := bytes.Repeat([]byte("x"), 100_000)
	put := func(key string) {
		t.Helper()
		if _, err := s.Put(t.Context(), store.ObjectKey{Bucket: bucket, Key: key}, store.PutObject{Body: bytes.NewReader(body)}); err != nil {
			t.Fatal(err)
		}
	}
	put("a")
	put("b")
	release := s.Hold()
	seen, err := s.Snapshot(t.Context())
	release()
	if err != nil {
		t.Fatal(err)
	}
	put("c") // later
	for _, key := range []string{"a", "b"} {
		if _, err := s.Delete(t.Context(), store.ObjectKey{Bucket: bucket, Key: key}, store.DeleteObject{}); err != nil {
			t.Fatal(err)
		}
	}
	to := t.TempDir()
	if err := seen.Copy(t.Context(), filepath.Join(to, fs.Database)); err != nil {
		t.Fatal(err)
	}
	var files []string
	err = seen.Files(t.Context(), func(path string) error {
		files = append(files, filepath.Join(dir, path))
		data, err := os.ReadFile(filepath.Join(dir, path))
		if err == nil {
			err = os.MkdirAll(filepath.Dir(filepath.Join(to, path)), 0o700)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, path), data, 0o600)
		}
		return err
	})
	if err != nil || len(files) != 2 {
		t.Fatalf("files %v, %v", files, err)
	}
	copied, err := fs.Open(t.Context(), to, fs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer copied.Close()
	for key, want := range map[string]bool{"a": true, "b": true, "c": false} {
		o, err := copied.Open(t.Context(), store.ObjectKey{Bucket: bucket, Key: key}, "")
		if (err == nil) != want {
			t.Errorf("%s: %v", key, err)
		}
		if err != nil {
			continue
		}
		if err := o.Read(t.Context(), io.Discard, 0, o.Info().Size); err != nil {
			t.Errorf("%s: %v", key, err)
		}
		_ = o.Close()
	}
	if err := seen.Close(); err != nil {
		t.Fatal(err)
	}
	// They go when nobody needs them any more.
	for gone := false; !gone; time.Sleep(time.Millisecond) { // polling, not timing
		gone = true
		for _, f := range files {
			if _, err := os.Stat(f); err == nil {
				gone = false
			}
		}
	}
}
