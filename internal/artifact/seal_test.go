package artifact

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/seal"
)

func openSealed(t *testing.T, dir string, box *seal.Box) *Store {
	t.Helper()
	s, err := OpenSealed(filepath.Join(dir, "artifacts"), filepath.Join(dir, "memory"), box)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// eachFile calls f for every file of a Store.
func eachFile(t *testing.T, dir string, f func(path string, data []byte)) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		f(path, data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestOpenSealed_KeepsNothingInClearAndGivesItBack(t *testing.T) {
	t.Parallel()
	dir, box := t.TempDir(), seal.New().Box("artifacts")
	large := strings.Repeat("canary-content ", 20_000)
	tree := FromFiles(File{Path: "canary-name.js", Mode: 0o644, Data: []byte(large)}, File{Path: "bin/run", Mode: 0o755, Data: []byte("#!/bin/canary")}, File{Path: "empty", Mode: 0o644})
	s := openSealed(t, dir, box)
	digest := put(t, s, tree)
	for range 2 { // by this process, and by the next after what was unpacked has gone
		at, err := s.Materialise(t.Context(), digest)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(at, filepath.Join(dir, "memory")) {
			t.Errorf("unpacked at %s", at)
		}
		got, err := os.ReadFile(filepath.Join(at, "canary-name.js"))
		if err != nil || string(got) != large {
			t.Errorf("%d bytes of %d: %v", len(got), len(large), err)
		}
		if info, err := os.Stat(filepath.Join(at, "bin/run")); err != nil || info.Mode().Perm() != 0o555 {
			t.Errorf("program: %v %v", info, err)
		}
		r, err := s.Open(shaOf(large))
		if err != nil {
			t.Fatal(err)
		}
		if all, err := io.ReadAll(r); err != nil || string(all) != large || r.Close() != nil {
			t.Errorf("open: %d bytes %v", len(all), err)
		}
		if missing := s.Missing(&tree.Manifest); len(missing) > 0 {
			t.Errorf("missing: %v", missing)
		}
		put(t, s, tree)
		eachFile(t, filepath.Join(dir, "artifacts"), func(path string, data []byte) {
			if bytes.Contains(data, []byte("canary")) {
				t.Errorf("%s is in clear", path)
			}
		})
		if err := os.RemoveAll(filepath.Join(dir, "memory")); err != nil {
			t.Fatal(err)
		}
		s = openSealed(t, dir, box)
	}
}

// A changed byte of any file is missing content or an error, never other content; deploying again mends it.
func TestOpenSealed_GivesNoChangedContent(t *testing.T) {
	t.Parallel()
	golden, box := t.TempDir(), seal.New().Box("artifacts")
	tree := sample()
	digest := put(t, openSealed(t, golden, box), tree)
	var files []string
	eachFile(t, filepath.Join(golden, "artifacts"), func(path string, _ []byte) {
		if filepath.Base(path) != "FORMAT" {
			files = append(files, path)
		}
	})
	if len(files) != 3 {
		t.Fatalf("files: %v", files)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, change := range []func([]byte) []byte{
			func(b []byte) []byte { b[0] ^= 1; return b },
			func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
			func(b []byte) []byte { return b[:len(b)-1] },
			func([]byte) []byte { return nil },
		} {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(golden)); err != nil {
				t.Fatal(err)
			}
			rel, err := filepath.Rel(golden, file)
			if err != nil {
				t.Fatal(err)
			}
			at := filepath.Join(dir, rel)
			if err := os.Chmod(at, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(at, change(bytes.Clone(data)), 0o644); err != nil {
				t.Fatal(err)
			}
			s := openSealed(t, dir, box)
			if _, err := s.Materialise(t.Context(), digest); errs.CodeOf(err) != errs.Internal || errs.HintOf(err) == "" {
				t.Errorf("%s changed: %v", rel, err)
			}
			if strings.HasPrefix(rel, "artifacts/blobs") {
				put(t, s, tree)
				if _, err := s.Materialise(t.Context(), digest); err != nil {
					t.Errorf("%s, put again: %v", rel, err)
				}
			}
		}
	}
	other := openSealed(t, golden, seal.New().Box("artifacts"))
	if _, err := other.Manifest(digest); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("another key: %v", err)
	}
}
