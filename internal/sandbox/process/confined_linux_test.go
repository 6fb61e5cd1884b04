package process_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/sandbox/process"
	"github.com/ebb-run/ebb/internal/sandbox/sandboxtest"
)

// TestSandbox_ConfinedHasTheSharedTmp is run by TestDriver_ConformsWhereNamespacesAreDenied.
func TestSandbox_ConfinedHasTheSharedTmp(t *testing.T) {
	if os.Getenv("EBB_TEST_DENIED") == "" {
		t.Skip("namespaces are not denied to this process")
	}
	data, err := os.MkdirTemp("/var/tmp", "ebb-confined-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(data) })
	secret := filepath.Join(data, "seal.key")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := newDriver(t, process.Options{Dir: filepath.Join(data, "run")})
	out := &sandboxtest.Output{}
	s, err := d.Prepare(t.Context(), sandbox.Spec{ID: "one", Output: out})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop(0)
	script := `f=/tmp/` + filepath.Base(data) + `; echo written >$f && cat $f && rm $f; (cat ` + secret + `) 2>/dev/null && echo read; echo through`
	if _, err := s.Start(t.Context(), sandbox.Code{Command: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"}}); err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	s.Flush()
	if text := out.String(); text != "written\nthrough\n" {
		t.Errorf("the guest says %q", text)
	}
}

// TestSandbox_ConfinedToItsFiles is run by TestDriver_ConformsWhereNamespacesAreDenied.
func TestSandbox_ConfinedToItsFiles(t *testing.T) {
	if os.Getenv("EBB_TEST_DENIED") == "" {
		t.Skip("namespaces are not denied to this process")
	}
	home, data, code := os.Getenv("HOME"), t.TempDir(), t.TempDir()
	d := newDriver(t, process.Options{Dir: filepath.Join(data, "run")})
	file := func(dir, name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("secret of "+name), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	inHome, inData, given := file(home, "token"), file(data, "seal.key"), file(code, "given")
	run := func(id, script string) (sandbox.Sandbox, *sandboxtest.Output) {
		out := &sandboxtest.Output{}
		s, err := d.Prepare(t.Context(), sandbox.Spec{ID: id, Output: out})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Stop(0) })
		if _, err := s.Start(t.Context(), sandbox.Code{
			Command: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"}, Mounts: []sandbox.Mount{{Source: code, Target: code}},
		}); err != nil {
			t.Fatal(err)
		}
		return s, out
	}
	other, first := run("first", `echo secret of the first > $TMPDIR/own; echo at $TMPDIR; sleep 60`)
	says(t, other, first, "\n")
	tmp := strings.TrimSpace(strings.TrimPrefix(first.String(), "at "))
	script := `for f in ` + strings.Join([]string{inHome, inData, tmp + "/own", "/tmp/own", "/dev/shm/own", given, "$TMPDIR/own"}, " ") + `; do
  (cat $f) 2>/dev/null && echo " read $f"; (echo x >$f) 2>/dev/null && echo "wrote $f"
done
for p in /proc/[0-9]*; do [ $p = /proc/$$ ] && continue; for f in environ mem; do head -c 1 $p/$f >/dev/null 2>&1 && echo "looked into $p/$f"; done; done
(ls ` + data + `) 2>/dev/null && echo listed; pwd; echo through`
	s, out := run("second", script)
	<-s.Done()
	s.Flush()
	text := out.String()
	for _, want := range []string{"secret of given read " + given, "wrote " + filepath.Dir(tmp), "through"} {
		if !strings.Contains(text, want) {
			t.Errorf("the guest does not say %q:\n%s", want, text)
		}
	}
	for _, not := range []string{"token", "seal.key", tmp + "/own", "read /tmp/own", "/dev/shm", "wrote " + given, "looked into", "listed"} {
		if strings.Contains(text, not) {
			t.Errorf("the guest says %q:\n%s", not, text)
		}
	}
	hidden := file(data, "program")
	if err := os.Chmod(hidden, 0o755); err != nil {
		t.Fatal(err)
	}
	s, err := d.Prepare(t.Context(), sandbox.Spec{ID: "third"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop(0)
	if _, err := s.Start(t.Context(), sandbox.Code{Command: []string{hidden}}); errs.CodeOf(err) != errs.Failed || !strings.Contains(err.Error(), "may see") {
		t.Errorf("a program that functions may not see: %v", err)
	}
}
