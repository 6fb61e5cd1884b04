package nats

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

// hold locks a folder as the process would, and gives what lets go of it.
func hold(t *testing.T, dir string, pid int) (free func()) {
	t.Helper()
	path := filepath.Join(dir, lockFile)
	if err := os.WriteFile(path, []byte(strconv.Itoa(pid)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	return func() { _ = f.Close() }
}

// dead gives the number of a process that has ended.
func dead(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

func TestLock_WaitsForWhatAKilledProcessWasStarting(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	time.AfterFunc(300*time.Millisecond, hold(t, dir, dead(t)))
	l, err := lockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.release(); err != nil {
		t.Error(err)
	}
	defer hold(t, dir, os.Getpid())() // one that lives
	if _, err := lockDir(dir); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("got %v", err)
	}
}
