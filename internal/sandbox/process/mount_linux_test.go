package process_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/sandbox/process"
)

func TestMounts_WritableIsWhatSaysSo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := newDriver(t, process.Options{OneUser: true, Dir: filepath.Join(dir, "run")})
	if ok, why := d.Isolated(); !ok {
		t.Skipf("no isolation on this machine: %v", why)
	}
	open, shut := filepath.Join(dir, "open"), filepath.Join(dir, "shut")
	for _, p := range []string{open, filepath.Join(open, "nested"), shut} {
		if err := os.MkdirAll(p, 0o755); err != nil {
			t.Fatal(err)
		}
		if os.Geteuid() == 0 {
			if err := os.Chown(p, d.User(), d.User()); err != nil {
				t.Fatal(err)
			}
		}
	}
	file := filepath.Join(open, "file")
	if err := os.WriteFile(file, []byte("before"), 0o666); err != nil {
		t.Fatal(err)
	}
	script := `echo own > /given/made && mv /given/made /given/moved && ln -s /etc/passwd /given/link && mkdir /given/sub && cp /given/moved /given/sub/copy || echo "writable: refused"
cp /bin/true /given/suid && chmod 4755 /given/suid
( echo x > /given/nested/x ) 2>/dev/null && echo "nested: written"
( echo x > /shut/x ) 2>/dev/null && echo "shut: written"
( mknod /given/null c 1 3 ) 2>/dev/null && echo "device: made"
[ -d /given/nested ] || echo "nested: not there"
grep ' /given ' /proc/self/mountinfo | grep -q nosuid || echo "set-user-id: allowed"
grep ' /given ' /proc/self/mountinfo | grep -q nodev || echo "devices: allowed"
`
	out, exit := mounted(t, d, script, []sandbox.Mount{
		{Source: open, Target: "/given", Writable: true}, {Source: filepath.Join(shut), Target: "/given/nested"}, {Source: shut, Target: "/shut"},
	})
	if out != "" || exit.Code != 0 {
		t.Errorf("got %v:\n%s", exit, out)
	}
	if text, err := os.ReadFile(filepath.Join(open, "sub", "copy")); err != nil || string(text) != "own\n" {
		t.Errorf("what was written is %q (%v)", text, err)
	}
	if list, _ := os.ReadDir(shut); len(list) > 0 {
		t.Errorf("in the folder that is shown alone there is %v", list)
	}
	// The next Sandbox of the same Dir is the same user, also of another Driver.
	again := newDriver(t, process.Options{OneUser: true, Dir: filepath.Join(dir, "run")})
	if again.User() != d.User() {
		t.Errorf("another Driver of the folder has the user %d, not %d", again.User(), d.User())
	}
	if out, exit := mounted(t, again, "echo more >> /given/moved", []sandbox.Mount{{Source: open, Target: "/given", Writable: true}}); out != "" || exit.Code != 0 {
		t.Errorf("got %v:\n%s", exit, out)
	}
}

// TestMounts_ShowWhatLiesInVarTmp: /var/tmp is a link to /tmp inside, and what is made through it before the root is changed is the host's.
func TestMounts_ShowWhatLiesInVarTmp(t *testing.T) {
	t.Parallel()
	d := newDriver(t, process.Options{})
	if ok, why := d.Isolated(); !ok {
		t.Skipf("no isolation on this machine: %v", why)
	}
	dir, err := os.MkdirTemp("/var/tmp", "ebb-shown-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(filepath.Join(dir, "file"), []byte("shown\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	out, exit := mounted(t, d, "cat "+dir+"/file; (echo > "+dir+"/file) 2>/dev/null && echo written; echo > /var/tmp/other", []sandbox.Mount{{Source: dir, Target: dir}})
	if out != "shown\n" || exit.Code != 0 {
		t.Errorf("got %v:\n%s", exit, out)
	}
	if _, err := os.Stat("/tmp/" + filepath.Base(dir)); err == nil {
		t.Error("its mount point was made in the host's /tmp")
	}
}

// mounted runs a script with mounts.
func mounted(t *testing.T, d *process.Driver, script string, mounts []sandbox.Mount) (string, sandbox.Exit) {
	t.Helper()
	var out strings.Builder
	sb, err := d.Prepare(t.Context(), sandbox.Spec{ID: "mounts", Output: &out})
	if err != nil {
		t.Fatal(err)
	}
	defer sb.Stop(0)
	if _, err := sb.Start(t.Context(), sandbox.Code{Command: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"}, Dir: "/", Mounts: mounts}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-sb.Done():
	case <-time.After(30 * time.Second):
		t.Fatal("the script hangs")
	}
	sb.Stop(0)
	return out.String(), sb.Exit()
}
