package state_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"flag"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/state"
)

// The golden data directory of a format is written once, when the format is new:
//
//	go test ./internal/state -run TestGolden -write-golden
//
// From then on every ebb must open it.
var writeGolden = flag.Bool("write-golden", false, "write testdata/v1.tar.gz if it does not exist")

const goldenFile = "testdata/v1.tar.gz"

func TestGolden_OpensTheDataOfEachFormat(t *testing.T) {
	t.Parallel()
	if *writeGolden {
		makeGolden(t)
	}
	dir := t.TempDir()
	untar(t, goldenFile, dir)
	key, err := state.LoadKey(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	s, _ := openIn(t, filepath.Join(dir, "nats"), state.Options{Key: key})
	stacks, err := s.Stacks(t.Context())
	if err != nil || len(stacks) != 2 || stacks[1] != stack || stacks[0].App != "käse & co" {
		t.Fatal(stacks, err)
	}
	p, err := s.Current(t.Context(), stack)
	if err != nil || p.Deployment != "golden2" || p.Previous != "golden1" {
		t.Fatal(p, err)
	}
	for _, id := range []string{"golden1", "golden2"} {
		d, err := s.Deployment(t.Context(), stack, id)
		if err != nil {
			t.Fatal(err)
		}
		f := d.App.Function("hello")
		if f == nil || len(d.Units) != 1 || d.By != "ann" || d.Message != id || !d.Created.Equal(goldenTime) {
			t.Fatalf("got %+v", d)
		}
		if v, _ := f.Env["PASSWORD"].Literal(); v != "hunter2-"+id {
			t.Errorf("environment is %q", v)
		}
	}
	h, err := s.History(t.Context(), stack)
	if err != nil || len(h) != 2 || h[0].ID != "golden2" || !h[0].Current {
		t.Error(h, err)
	}
	arts, err := s.Artifacts(t.Context())
	if err != nil || !arts["sha256:code-golden1"] || len(arts) != 4 {
		t.Error(arts, err)
	}
}

var goldenTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func makeGolden(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(goldenFile); err == nil {
		t.Fatalf("%s exists; a format that was released is never written again", goldenFile)
	}
	dir := t.TempDir()
	key, err := state.LoadKey(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	s, c := openIn(t, filepath.Join(dir, "nats"), state.Options{Key: key})
	for _, k := range []state.StackKey{stack, {Tenant: "default", App: "käse & co", Stage: "$default"}} {
		var p state.Pointer
		for _, id := range []string{"golden1", "golden2"} {
			d := deployment(k, id)
			d.ID, d.Created = id, goldenTime
			if err := s.Put(t.Context(), d); err != nil {
				t.Fatal(err)
			}
			if p, err = s.SetCurrent(t.Context(), k, id, p.Seq); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	zw := gzip.NewWriter(&buf)
	tw := tar.NewWriter(zw)
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == "lock" {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(data)), ModTime: goldenTime}); err != nil {
			return err
		}
		_, err = tw.Write(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(goldenFile, buf.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func untar(t *testing.T, file, dir string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zr, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	tr := tar.NewReader(zr)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, h.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
