package runtimes

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/testkit/executable"
)

// machine is a computer with interpreters that a test makes.
type machine struct {
	t   *testing.T
	dir string
	env map[string]string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	dir := t.TempDir()
	return &machine{t: t, dir: dir, env: map[string]string{
		"HOME": filepath.Join(dir, "home"), "EBB_CACHE": filepath.Join(dir, "cache"), "EBB_RUNTIMES": filepath.Join(dir, "runtimes"), "PATH": filepath.Join(dir, "bin"),
	}}
}

func (m *machine) lookup(k string) (string, bool) { v, ok := m.env[k]; return v, ok }

// install makes an interpreter that answers with the version, and counts how often it was asked.
func (m *machine) install(path, version string) string {
	m.t.Helper()
	full := filepath.Join(m.dir, path)
	m.script(full, fmt.Sprintf("echo x >> %q\nprintf '%%s\\n%%s' %q %q", full+".asked", version, full))
	return full
}

func (m *machine) script(full, body string) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := executable.Write(full, []byte("#!/bin/sh\n"+body+"\n")); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) asked(path string) int {
	text, _ := os.ReadFile(filepath.Join(m.dir, path) + ".asked")
	return strings.Count(string(text), "x")
}

// find resolves on this machine alone: what the test's own machine has installed does not count.
func (m *machine) find(id string) (Found, error) {
	f := New(m.lookup)
	f.system = nil
	return f.Resolve(context.Background(), id)
}

func TestResolve_PicksTheNearest(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	for _, v := range []string{"18.20.1", "20.1.0", "20.9.0", "24.0.0"} {
		m.install("runtimes/node-v"+v+"/bin/node", v)
	}
	for _, v := range []string{"3.8.1", "3.11.4", "3.12.0"} {
		m.install("home/.pyenv/versions/"+v+"/bin/python3", v)
	}
	for _, row := range []struct {
		id, version string
		exact       bool
		note        string
	}{
		{"nodejs20.x", "20.9.0", true, ""},
		{"nodejs22.x", "24.0.0", false, "nodejs22.x asked for, running on Node 24.0.0."},
		{"nodejs12.x", "18.20.1", false, "nodejs12.x asked for"},
		{"nodejs8.10", "18.20.1", false, ""},
		{"nodejs26.x", "24.0.0", false, ""},
		{"nodejs", "24.0.0", true, ""},
		{"python3.11", "3.11.4", true, ""},
		{"python3.9", "3.11.4", false, "pyenv install 3.9"},
		{"python3.14", "3.12.0", false, ""},
		{"python2.7", "3.12.0", false, "code written for Python 2"},
		{"python3", "3.12.0", true, ""},
	} {
		got, err := m.find(row.id)
		if err != nil || got.Version != row.version || got.Exact != row.exact || (got.Note == "") != row.exact || !strings.Contains(got.Note, row.note) {
			t.Errorf("%s: got %+v, %v", row.id, got, err)
		}
		if err == nil && (len(got.Command) != 1 || !filepath.IsAbs(got.Command[0])) {
			t.Errorf("%s: command %v", row.id, got.Command)
		}
	}
}

func TestResolve_RefusesClearly(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	for _, row := range []struct {
		id   string
		code errs.Code
		part string
	}{
		{"nodejs22.x", errs.Unsupported, "none is installed here"},
		{"python3.12", errs.Unsupported, "none is installed here"},
		{"java21", errs.Unsupported, "Java"},
		{"ruby3.3", errs.Unsupported, "Ruby"},
		{"dotnet8", errs.Unsupported, ".NET"},
		{"rust", errs.Unsupported, "not known"},
		{"nodejsx", errs.Unsupported, "not known"},
		{"", errs.Invalid, "no runtime"},
	} {
		_, err := m.find(row.id)
		if errs.CodeOf(err) != row.code || !strings.Contains(err.Error(), row.part) || errs.HintOf(err) == "" {
			t.Errorf("%q: got %v (hint %q)", row.id, err, errs.HintOf(err))
		}
	}
	for _, id := range []string{"provided", "provided.al2", "provided.al2023", "go1.x"} {
		if got, err := m.find(id); err != nil || got.Family != Provided || len(got.Command) != 0 || !got.Exact {
			t.Errorf("%s: got %+v, %v", id, got, err)
		}
	}
}

func TestFinder_LooksEverywhere(t *testing.T) {
	t.Parallel()
	for _, path := range []string{
		"runtimes/node", "runtimes/bin/node", "runtimes/node22/bin/node", "runtimes/node_modules/node/bin/node", "runtimes/node22/node_modules/node/bin/node",
		"cache/runtimes/node22/node_modules/node/bin/node", "home/.nvm/versions/node/v22.1.0/bin/node", "home/.volta/tools/image/node/22.1.0/bin/node",
		"home/.local/share/fnm/node-versions/v22.1.0/installation/bin/node", "home/.asdf/installs/nodejs/22.1.0/bin/node", "bin/node", "bin/nodejs",
	} {
		m := newMachine(t)
		want := m.install(path, "22.1.0")
		if got, err := m.find("nodejs22.x"); err != nil || got.Command[0] != want {
			t.Errorf("%s: got %+v, %v", path, got, err)
		}
	}
}

func TestFinder_TakesOnlyWhatWorks(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.script(filepath.Join(m.dir, "home/.pyenv/versions/3.13.0/bin/python3"), "echo broken >&2; exit 127")
	m.script(filepath.Join(m.dir, "home/.pyenv/versions/3.12.0/bin/python3"), "echo nonsense")
	m.install("home/.pyenv/versions/2.7.18/bin/python", "2.7.18")
	real := m.install("opt/python/bin/python3.10", "3.10.2")
	m.script(filepath.Join(m.dir, "bin/python3"), fmt.Sprintf("printf '3.10.2\\n%s'", real)) // a wrapper gives the interpreter itself
	m.script(filepath.Join(m.dir, "home/.pyenv/shims/python3"), "exit 1")
	m.env["PATH"] += ":" + filepath.Join(m.dir, "home/.pyenv/shims")
	got, err := m.find("python3.13")
	if err != nil || got.Command[0] != real || got.Exact {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestFinder_AsksOnce(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.install("bin/node", "22.1.0")
	for range 3 {
		if _, err := m.find("nodejs22.x"); err != nil {
			t.Fatal(err)
		}
	}
	if got := m.asked("bin/node"); got != 1 {
		t.Errorf("asked %d times", got)
	}
	m.install("bin/node", "24.1.0")
	later := time.Now().Add(time.Minute)
	if err := os.Chtimes(filepath.Join(m.dir, "bin/node"), later, later); err != nil {
		t.Fatal(err)
	}
	if got, err := m.find("nodejs22.x"); err != nil || got.Version != "24.1.0" {
		t.Errorf("after an update: got %+v, %v", got, err)
	}
}

func TestFinder_FirstPlaceWinsAmongEquals(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.install("bin/node", "22.1.0")
	want := m.install("runtimes/mine/bin/node", "22.1.0")
	if got, err := m.find("nodejs22.x"); err != nil || got.Command[0] != want {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestList_NewestFirst(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.install("runtimes/a/bin/node", "18.1.0")
	m.install("runtimes/b/bin/node", "22.1.0")
	m.install("bin/python3", "3.12.0")
	f := New(m.lookup)
	f.system = nil
	list, err := f.List(context.Background())
	var got []string
	for _, x := range list {
		got = append(got, x.Family+x.Version)
	}
	if err != nil || strings.Join(got, " ") != "node22.1.0 node18.1.0 python3.12.0" {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestCacheDir_IsTheUsers(t *testing.T) {
	t.Parallel()
	env := func(kv ...string) func(string) (string, bool) {
		return func(k string) (string, bool) {
			for i := 0; i < len(kv); i += 2 {
				if kv[i] == k {
					return kv[i+1], true
				}
			}
			return "", false
		}
	}
	for want, e := range map[string]func(string) (string, bool){
		"/c":     env("EBB_CACHE", "/c", "HOME", "/h"),
		"/x/ebb": env("EBB_CACHE", "relative", "XDG_CACHE_HOME", "/x"),
	} {
		if got := CacheDir(e); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if got := CacheDir(env()); !filepath.IsAbs(got) {
		t.Errorf("without a home: %s", got)
	}
}
