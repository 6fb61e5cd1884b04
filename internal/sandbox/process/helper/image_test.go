//go:build linux && (amd64 || arm64)

package helper_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebb-run/ebb/internal/sandbox/process/helper"
	"github.com/ebb-run/ebb/internal/testkit/executable"
)

// run starts the program with a list and gives what came on the control descriptor and on standard output until it ended.
func run(t *testing.T, l *helper.List, meanwhile func(p *os.Process)) (control, output []byte, end *os.ProcessState) {
	t.Helper()
	image := filepath.Join(t.TempDir(), "helper")
	if err := executable.Write(image, helper.Image()); err != nil {
		t.Fatal(err)
	}
	steps, data, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	list, err := os.Create(filepath.Join(t.TempDir(), "list"))
	if err != nil {
		t.Fatal(err)
	}
	defer list.Close()
	_, _ = list.WriteAt(steps, 0)
	_, _ = list.WriteAt(append(data, 0), helper.DataAt)
	out, outW, _ := os.Pipe()
	ctl, ctlW, _ := os.Pipe()
	defer out.Close()
	defer ctl.Close()
	null, _ := os.Open(os.DevNull)
	defer null.Close()
	p, err := os.StartProcess(image, []string{"init"}, &os.ProcAttr{Files: []*os.File{null, outW, os.Stderr, null, list, ctlW}})
	outW.Close()
	ctlW.Close()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan []byte)
	go func() { b, _ := io.ReadAll(ctl); done <- b }()
	if meanwhile != nil {
		meanwhile(p)
	}
	if output, err = io.ReadAll(out); err != nil {
		t.Fatal(err)
	}
	if end, err = p.Wait(); err != nil {
		t.Fatal(err)
	}
	return <-done, output, end
}

// guest appends what runs a program as the guest and serves until it has ended.
func guest(l *helper.List, argv ...string) {
	blocked, free := l.Bytes(helper.Blocked()), l.Bytes(make([]byte, 8))
	mask := func(set helper.Arg) {
		l.Call("set signals", unix.SYS_RT_SIGPROCMASK, helper.Int(2), set, helper.Int(0), helper.Int(8))
	}
	mask(blocked)
	path, args, env := l.Text(argv[0]), l.Texts(argv), l.Texts([]string{"A=b"})
	main := l.Fork("fork", unix.SYS_CLONE, []helper.Arg{helper.Int(int(unix.SIGCHLD))}, func() {
		mask(free)
		l.Call("run "+argv[0], unix.SYS_EXECVE, path, args, env)
	})
	l.Call("close output", unix.SYS_CLOSE, helper.Int(1))
	l.Serve(main)
}

func status(b []byte) syscall.WaitStatus {
	if len(b) != 4 {
		return 1<<32 - 1
	}
	return syscall.WaitStatus(binary.LittleEndian.Uint32(b))
}

func TestImage_RunsAGuestAndTellsItsEnd(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]syscall.WaitStatus{"echo $A; exit 7": 7 << 8, "echo $A; kill -9 $$": 9, "echo b": 0} {
		var l helper.List
		guest(&l, "/bin/sh", "-c", script)
		control, output, end := run(t, &l, nil)
		if status(control) != want || string(output) != "b\n" || end.ExitCode() != 0 {
			t.Errorf("%s: control %v, output %q, %v", script, control, output, end)
		}
	}
}

func TestImage_TellsWhatFailed(t *testing.T) {
	t.Parallel()
	var l helper.List
	l.Try("may fail", unix.SYS_CHDIR, l.Text("/missing"))
	l.Call("enter a missing folder", unix.SYS_CHDIR, l.Text("/missing"))
	l.Call("never", unix.SYS_WRITE, helper.Int(1), l.Text("no"), helper.Int(2))
	control, output, end := run(t, &l, nil)
	if err := l.Failure(control); err == nil || err.Error() != "enter a missing folder: no such file or directory" {
		t.Errorf("failure %v", err)
	}
	if end.ExitCode() != helper.Failed || len(output) > 0 {
		t.Errorf("end %v, output %q", end, output)
	}
}

func TestImage_TellsThatAGuestCannotRun(t *testing.T) {
	t.Parallel()
	var l helper.List
	guest(&l, "/missing")
	control, _, _ := run(t, &l, nil)
	// The copy fails, and then the program sees that it has ended.
	if err := l.Failure(control[:min(len(control), helper.FailureSize)]); err == nil || !strings.Contains(err.Error(), "run /missing: no such file") {
		t.Errorf("failure %v", err)
	}
	if got := status(control[helper.FailureSize:]); got != helper.Failed<<8 {
		t.Errorf("status %x", got)
	}
}

func TestImage_GivesResultsToLaterSteps(t *testing.T) {
	t.Parallel()
	var l helper.List
	file := l.Call("open", unix.SYS_OPENAT, helper.Int(unix.AT_FDCWD), l.Text("/proc/self/stat"), helper.Int(0), helper.Int(0))
	room := l.Bytes(make([]byte, 64))
	n := l.Call("read", unix.SYS_READ, file.Result(), room, helper.Int(1))
	l.Store32(room.At(1), file)
	l.Call("write", unix.SYS_WRITE, helper.Int(1), room, helper.Int(5))
	l.Call("write", unix.SYS_WRITE, helper.Int(1), l.Text("xyz"), n.Result())
	l.Call("end", unix.SYS_EXIT_GROUP, n.Result())
	_, output, end := run(t, &l, nil)
	if len(output) != 6 || binary.LittleEndian.Uint32(output[1:]) < 6 || output[5] != 'x' || end.ExitCode() != 1 {
		t.Errorf("output %q, %v", output, end)
	}
}

func TestImage_TakesInOrphans(t *testing.T) {
	t.Parallel()
	var l helper.List
	l.Call("take in orphans", unix.SYS_PRCTL, helper.Int(unix.PR_SET_CHILD_SUBREAPER), helper.Int(1))
	// They end when they get to it, so the guest looks again and again.
	guest(&l, "/bin/sh", "-c", `look() { n=0; for f in /proc/[0-9]*/stat; do read -r p c s pp rest < $f && [ "$pp" = "$PPID" ] && n=$((n+1)); done; } 2>/dev/null
for i in 1 2 3 4 5 6 7 8 9; do (true & true); done
look; tries=0; while [ $n -gt 1 ] && [ $tries -lt 2000 ]; do look; tries=$((tries+1)); done; echo $n`)
	control, output, _ := run(t, &l, nil)
	if got := strings.TrimSpace(string(output)); got != "1" || status(control) == 1<<32-1 {
		t.Errorf("children of the program: %q; want the guest alone", got)
	}
}

func TestList_RefusesWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	var l helper.List
	l.Bytes(bytes.Repeat([]byte{1}, 1<<20))
	if _, _, err := l.Encode(); err == nil {
		t.Error("a list of a megabyte of data was taken")
	}
}
