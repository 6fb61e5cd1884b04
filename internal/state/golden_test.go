package state_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"flag"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/identity"
	"github.com/ebb-run/ebb/internal/state"
)

// The golden data directory of a format, or of a kind of record that is added to one, is written once, when that is new:
//
//	go test ./internal/state -run TestGolden -write-golden
//
// From then on every ebb must open it.
var writeGolden = flag.Bool("write-golden", false, "write those of testdata/v1.tar.gz and v1-keys.tar.gz that do not exist")

const (
	goldenFile = "testdata/v1.tar.gz"
	goldenKeys = "testdata/v1-keys.tar.gz" // keys, and a Deployment of all that an App could declare then
)

func TestGolden_OpensTheDataOfEachFormat(t *testing.T) {
	t.Parallel()
	s := openGolden(t, goldenFile, func(s *state.Store) {
		for _, k := range []state.StackKey{stack, {Tenant: "default", App: "käse & co", Stage: "$default"}} {
			var p state.Pointer
			for _, id := range []string{"golden1", "golden2"} {
				p = putGolden(t, s, deployment(k, id), id, p)
			}
		}
	})
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

// goldenKeyList are keys with every field set in one of them.
func goldenKeyList() []identity.Key {
	hash := sha256.Sum256([]byte("golden"))
	return []identity.Key{
		{ID: "aaaa", Name: "ci", Role: identity.Deploy, App: "shop", Hash: hash[:], Created: goldenTime, By: "ann", Life: time.Hour, Expires: goldenTime.Add(time.Hour)},
		{ID: "bbbb", Name: "old", Role: identity.Read, Hash: hash[:], Created: goldenTime, Revoked: goldenTime.Add(time.Minute)},
		{ID: "cccc", Name: "root", Role: identity.Admin, Hash: hash[:], Created: goldenTime},
	}
}

// goldenDeployment declares what an App of format 1 can; a Deployment of it is read back as it was.
func goldenDeployment() *state.Deployment {
	d := deployment(stack, "golden")
	f, zero := &d.App.Functions[0], 0
	f.ID, f.Description, f.Arch, f.TmpMB, f.Reserved, f.Provisioned = "HelloLambdaFunction", "says hello", "arm64", 1024, &zero, 3
	f.Schedule = []app.Scaling{{When: "cron(0 8 ? * MON-FRI *)", TimeZone: "Europe/Berlin", Provisioned: 5}}
	f.Package = app.Package{Root: "src", Patterns: []string{"!**", "h.js"}, Only: true, Alone: true}
	f.Layers, f.Tags, f.Role = []app.Value{app.Lit("LayerOne")}, map[string]string{"team": "käse"}, "HelloRole"
	d.App.APIs = []app.API{{ID: "HttpApi", Kind: app.HTTP, Name: "shop", Stage: "$default"}}
	d.App.Routes = []app.Route{{API: "HttpApi", Method: "GET", Path: "/hello", Function: "hello", Format: "2.0"}}
	return d
}

func TestGolden_OpensKeysAndAllThatAnAppDeclares(t *testing.T) {
	t.Parallel()
	s := openGolden(t, goldenKeys, func(s *state.Store) {
		for _, k := range goldenKeyList() {
			if _, err := s.PutKey(t.Context(), "default", k, 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.UseKey(t.Context(), "default", "aaaa", goldenTime.Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		putGolden(t, s, goldenDeployment(), "golden", state.Pointer{})
	})
	got, bad := keysOf(t, s)
	if bad != 0 || len(got) != len(goldenKeyList()) {
		t.Fatalf("%d keys, and %d that cannot be read", len(got), bad)
	}
	for _, want := range goldenKeyList() {
		if g := got[want.ID]; g.Key == nil || !reflect.DeepEqual(*g.Key, want) {
			t.Errorf("key %s is %+v, want %+v", want.ID, g.Key, want)
		}
	}
	if used := got["aaaa"].Used; !used.Equal(goldenTime.Add(time.Second)) {
		t.Errorf("last used %v", used)
	}
	// A key that was made then can be changed now.
	k := goldenKeyList()[0]
	k.Revoked = goldenTime
	if _, err := s.PutKey(t.Context(), "default", k, got["aaaa"].Seq); err != nil {
		t.Error(err)
	}
	d, err := s.Deployment(t.Context(), stack, "golden")
	if err != nil {
		t.Fatal(err)
	}
	want := goldenDeployment()
	if !reflect.DeepEqual(d.App, want.App) || !reflect.DeepEqual(d.Units, want.Units) {
		t.Errorf("the deployment is %+v of %+v, want %+v of %+v", d.Units, d.App, want.Units, want.App)
	}
}

// putGolden writes a Deployment with the golden time and makes it current.
func putGolden(t *testing.T, s *state.Store, d *state.Deployment, id string, before state.Pointer) state.Pointer {
	t.Helper()
	d.ID, d.Created = id, goldenTime
	if err := s.Put(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	p, err := s.SetCurrent(t.Context(), d.Stack, id, before.Seq)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// openGolden opens a golden data directory; fill is how it was made.
func openGolden(t *testing.T, file string, fill func(*state.Store)) *state.Store {
	t.Helper()
	if _, err := os.Stat(file); *writeGolden && errors.Is(err, fs.ErrNotExist) {
		makeGolden(t, file, fill)
	}
	dir := t.TempDir()
	untar(t, file, dir)
	key, err := state.LoadKey(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	s, _ := openIn(t, filepath.Join(dir, "nats"), state.Options{Key: key})
	return s
}

func makeGolden(t *testing.T, file string, fill func(*state.Store)) {
	t.Helper()
	dir := t.TempDir()
	key, err := state.LoadKey(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	s, c := openIn(t, filepath.Join(dir, "nats"), state.Options{Key: key})
	fill(s)
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
	if err := os.WriteFile(file, buf.Bytes(), 0o644); err != nil {
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
