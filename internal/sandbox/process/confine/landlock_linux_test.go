package confine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLandlock_GivesWhatEachVersionTakes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		abi, size int
		files     uint64 // handled_access_fs
		scoped    uint64
	}{
		{abi: 0}, {abi: 1},
		{abi: 2, size: 8, files: 1<<14 - 1},
		{abi: 3, size: 8, files: 1<<15 - 1},
		{abi: 4, size: 16, files: 1<<15 - 1},
		{abi: 5, size: 16, files: 1<<16 - 1},
		{abi: 6, size: 24, files: 1<<16 - 1, scoped: 3},
		{abi: 7, size: 24, files: 1<<16 - 1, scoped: 3},
		{abi: 99, size: 24, files: 1<<16 - 1, scoped: 3},
	} {
		ruleset, rules := Landlock(c.abi)
		if len(ruleset) != c.size {
			t.Errorf("version %d: ruleset has %d bytes, want %d", c.abi, len(ruleset), c.size)
			continue
		}
		if c.size == 0 {
			if rules != nil {
				t.Errorf("version %d: rules without a ruleset", c.abi)
			}
			continue
		}
		full := append(ruleset, make([]byte, 24-len(ruleset))...)
		if got := binary.LittleEndian.Uint64(full); got != c.files {
			t.Errorf("version %d: handles %#x of files, want %#x", c.abi, got, c.files)
		}
		if got := binary.LittleEndian.Uint64(full[8:]); got != 0 {
			t.Errorf("version %d: handles %#x of the network", c.abi, got)
		}
		if got := binary.LittleEndian.Uint64(full[16:]); got != c.scoped {
			t.Errorf("version %d: scopes %#x, want %#x", c.abi, got, c.scoped)
		}
		for _, r := range rules {
			if len(r.Attr) != 12 || int32(binary.LittleEndian.Uint32(r.Attr[RuleFD:])) != -1 {
				t.Errorf("version %d: rule for %s is %x", c.abi, r.Path, r.Attr)
			}
			access := binary.LittleEndian.Uint64(r.Attr)
			if access == 0 || access&^c.files != 0 {
				t.Errorf("version %d: rule for %s allows %#x, of which the ruleset does not handle all", c.abi, r.Path, access)
			}
			if access&(unix.LANDLOCK_ACCESS_FS_MAKE_CHAR|unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK) != 0 {
				t.Errorf("version %d: devices can be made in %s", c.abi, r.Path)
			}
		}
	}
}

// fileTries are done with Landlock alone, by whoever runs the test, root too. The first folder is in /tmp, the second elsewhere.
var fileTries = []struct {
	name string
	do   func(in, out string) error
	want error
}{
	{"read", func(_, out string) error { _, err := os.ReadFile(out + "/file"); return err }, nil},
	{"list", func(_, out string) error { _, err := os.ReadDir(out); return err }, nil},
	{"write", func(_, out string) error { return open(out+"/file", os.O_WRONLY) }, unix.EACCES},
	{"truncate", func(_, out string) error { return os.Truncate(out+"/file", 0) }, unix.EACCES},
	{"create", func(_, out string) error { return open(out+"/new", os.O_WRONLY|os.O_CREATE) }, unix.EACCES},
	{"make folder", func(_, out string) error { return os.Mkdir(out+"/folder", 0o700) }, unix.EACCES},
	{"make link", func(_, out string) error { return os.Symlink("x", out+"/link") }, unix.EACCES},
	{"make socket", func(_, out string) error { _, err := net.Listen("unix", out+"/s"); return err }, unix.EACCES},
	{"remove", func(_, out string) error { return unix.Unlink(out + "/file") }, unix.EACCES},
	{"rename", func(_, out string) error { return os.Rename(out+"/file", out+"/other") }, unix.EACCES},
	{"write to /proc", func(string, string) error { return open("/proc/self/comm", os.O_WRONLY) }, unix.EACCES},
	{"write to a process", func(string, string) error { return open(fmt.Sprintf("/proc/%d/mem", os.Getpid()), os.O_RDWR) }, unix.EACCES},
	{"mount", func(in, _ string) error { return unix.Mount("none", in, "tmpfs", 0, "") }, unix.EPERM},
	{"signal its parent", func(string, string) error { return unix.Kill(os.Getppid(), 0) }, unix.EPERM},
	{"connect to an abstract socket outside", func(string, string) error { _, err := net.Dial("unix", os.Getenv("CONFINE_ABSTRACT")); return err }, unix.EPERM},
	{"in /tmp: create and write", func(in, _ string) error { return os.WriteFile(in+"/new", []byte("x"), 0o600) }, nil},
	{"in /tmp: truncate", func(in, _ string) error { return os.Truncate(in+"/file", 0) }, nil},
	{"in /tmp: rename into another folder", func(in, _ string) error {
		return errors.Join(os.MkdirAll(in+"/a/b", 0o700), os.Rename(in+"/file", in+"/a/b/file"), os.Link(in+"/a/b/file", in+"/again"))
	}, nil},
	{"in /tmp: a nameless file given a name", func(in, _ string) error {
		fd, err := unix.Open(in, unix.O_TMPFILE|unix.O_RDWR, 0o600)
		if err != nil {
			return err
		}
		return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, in+"/named", unix.AT_SYMLINK_FOLLOW)
	}, nil},
	{"in /tmp: socket", func(in, _ string) error {
		if _, err := net.Listen("unix", in+"/s"); err != nil {
			return err
		}
		_, err := net.Dial("unix", in+"/s")
		return err
	}, nil},
	{"in /tmp: device", func(in, _ string) error { return unix.Mknod(in+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))) }, unix.EACCES},
	{"in /tmp: link to what cannot be written", func(in, out string) error { return os.Link(out+"/file", in+"/stolen") }, unix.EXDEV},
	{"/dev/null", func(string, string) error { return open("/dev/null", os.O_RDWR|os.O_TRUNC) }, nil},
	{"/dev/shm", func(string, string) error {
		f, err := os.CreateTemp("/dev/shm", "confine-")
		if err == nil {
			err = os.Remove(f.Name())
		}
		return err
	}, nil},
	{"own abstract socket", func(in, _ string) error {
		if _, err := net.Listen("unix", "@"+in); err != nil {
			return err
		}
		_, err := net.Dial("unix", "@"+in)
		return err
	}, nil},
	{"TCP", func(string, string) error { _, err := net.Listen("tcp", "127.0.0.1:0"); return err }, nil},
	{"execute", func(string, string) error {
		p, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
		if err == nil {
			_, err = p.Wait()
		}
		return err
	}, nil},
}

func open(path string, flags int) error {
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

func confinedFiles(args []string) error {
	// On this thread alone: what other threads of Go's do is not confined, and none of the tries but execute and the network's leave it.
	if err := apply("landlock"); err != nil {
		return err
	}
	for _, try := range fileTries {
		err := try.do(args[0], args[1])
		var errno syscall.Errno
		if err != nil && !errors.As(err, &errno) {
			return fmt.Errorf("%s: %w", try.name, err)
		}
		fmt.Println(int(errno))
	}
	return nil
}

func TestLandlock_HoldsInTheKernel(t *testing.T) {
	t.Parallel()
	if v := LandlockABI(); v < 6 {
		t.Skipf("this kernel has version %d of Landlock; scopes need 6", v)
	}
	in, err := os.MkdirTemp("/tmp", "confine-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(in) })
	out := outside(t)
	for _, dir := range []string{in, out} {
		if err := os.WriteFile(dir+"/file", []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("unix", "@"+in+"-host")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	cmd := self(t, "confine-files", in, out)
	cmd.Env = append(os.Environ(), "CONFINE_ABSTRACT=@"+in+"-host")
	text, err := cmd.CombinedOutput()
	lines := strings.Fields(string(text))
	if err != nil || len(lines) != len(fileTries) {
		t.Fatalf("%v, %d of %d tried:\n%s", err, len(lines), len(fileTries), text)
	}
	for i, l := range lines {
		want := 0
		if e, ok := fileTries[i].want.(syscall.Errno); ok {
			want = int(e)
		}
		if l != fmt.Sprint(want) {
			t.Errorf("%s: error %s, want %d", fileTries[i].name, l, want)
		}
	}
}

// outside is a folder that no rule lets be written.
func outside(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "confine-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
