package oci_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/sandbox/oci"
	"github.com/ebb-run/ebb/internal/sandbox/process"
	"github.com/ebb-run/ebb/internal/sandbox/sandboxtest"
	"github.com/ebb-run/ebb/internal/testkit/executable"
)

func TestCheck_RefusesClearly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	program := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	opened := false
	for name, c := range map[string]struct {
		runtime, path string
		code          errs.Code
		want, hint    string
	}{
		"not installed":    {"", dir, errs.Unavailable, "needs the OCI runtime runsc, which is not installed", "--oci-runtime"},
		"no path":          {"", "", errs.Unavailable, "not installed", "Install gVisor's runsc"},
		"named, not there": {dir + "/nowhere/runsc", "", errs.Unavailable, "/nowhere/runsc: ", "--oci-runtime"},
		"not a program":    {program("data", "", 0o644), "", errs.Unavailable, "permission denied", "Install"},
		"ends badly":       {program("bad", "exit 3", 0o755), "", errs.Unavailable, "exit status 3", "Install"},
		"another runtime":  {program("crun", "echo crun version 1.8", 0o755), "", errs.Unsupported, `"crun version 1.8"`, "host's kernel"},
	} {
		d := oci.New(oci.Options{Runtime: c.runtime, Path: c.path, Open: func() (sandbox.Driver, error) { opened = true; return process.Open(process.Options{Dir: dir}) }})
		for what, err := range map[string]error{"Check": d.Check(t.Context()), "Prepare": func() error { _, err := d.Prepare(t.Context(), sandbox.Spec{ID: "a"}); return err }()} {
			if errs.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.want) || !strings.Contains(errs.HintOf(err), c.hint) {
				t.Errorf("%s: %s gives %v (%s), hint %q", name, what, err, errs.CodeOf(err), errs.HintOf(err))
			}
		}
		if err := d.Close(); err != nil || opened {
			t.Errorf("%s: %v; the outer driver was opened: %v", name, err, opened)
		}
	}
}

// TestCheck_TriesTheRuntime: one that calls itself runsc and cannot run anything.
func TestCheck_TriesTheRuntime(t *testing.T) {
	t.Parallel()
	for name, plain := range map[string]bool{"does nothing": false, "no isolation around it": true} {
		dir := t.TempDir()
		fake := filepath.Join(dir, "runsc")
		if err := executable.Write(fake, []byte("#!/bin/sh\n[ \"$1\" = --version ] && echo runsc version 1 && exit\necho it is broken >&2; exit 9\n")); err != nil {
			t.Fatal(err)
		}
		d := oci.New(oci.Options{Path: dir, Open: func() (sandbox.Driver, error) {
			return process.Open(process.Options{Dir: filepath.Join(dir, "run"), Monitors: true, Plain: plain})
		}})
		defer d.Close()
		want := "it is broken"
		if plain {
			want = "this machine does not give"
		}
		if err := d.Check(t.Context()); errs.CodeOf(err) != errs.Unavailable || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSweep_OpensNothingThatWasNotUsed(t *testing.T) {
	t.Parallel()
	d := oci.New(oci.Options{Used: func() bool { return false }, Open: func() (sandbox.Driver, error) { panic("opened") }})
	if n, err := d.Sweep(t.Context()); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if _, err := d.Sweep(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestSandbox_HasAKernelOfItsOwn shows that a guest is in the runtime, as the user and in the files that it has in a Sandbox of the outer driver.
func TestSandbox_HasAKernelOfItsOwn(t *testing.T) {
	t.Parallel()
	needRuntime(t)
	d, err := open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	code := t.TempDir()
	if err := os.WriteFile(filepath.Join(code, "index.js"), []byte("code"), 0o644); err != nil {
		t.Fatal(err)
	}
	out := &sandboxtest.Output{}
	s, err := d.Prepare(t.Context(), sandbox.Spec{ID: "a", Output: out, Limits: sandbox.Limits{MemoryBytes: 256 << 20, TmpBytes: 64 << 20, Processes: 50}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop(0)
	script := `uname -r; id -u; id -g; hostname; pwd; cat index.js; echo; ls /tmp; ls -d /home/* /root /run 2>/dev/null; df -k /tmp | tail -1 | tr -s " " | cut -d" " -f2; exit 5`
	if _, err := s.Start(t.Context(), sandbox.Code{
		Command: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"}, Dir: "/var/task", Mounts: []sandbox.Mount{{Source: code, Target: "/var/task"}},
	}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.Done():
	case <-time.After(30 * time.Second):
		t.Fatal("the guest does not end")
	}
	first, rest, _ := strings.Cut(out.String(), "\n")
	if !strings.HasSuffix(first, "-gvisor") || rest != "993\n990\n169-254-100-1\n/var/task\ncode\n65536\n" || s.Exit() != (sandbox.Exit{Code: 5}) {
		t.Errorf("%v; it says\n%s", s.Exit(), out)
	}
	if err := s.Freeze(); errs.CodeOf(err) != errs.Unsupported {
		t.Errorf("Freeze: %v", err)
	}
}
