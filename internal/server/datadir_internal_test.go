package server

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

func TestLockData_WaitsForWhatAKilledServerWasStarting(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	hold := func(pid int) *os.File {
		data, err := json.Marshal(RunFile{PID: pid, API: "http://127.0.0.1:1"})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "server.json"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(filepath.Join(dir, "lock"))
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
			t.Fatal(err)
		}
		return f
	}
	left := hold(cmd.Process.Pid)
	time.AfterFunc(300*time.Millisecond, func() { _ = left.Close() })
	l, err := lockData(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Release(); err != nil {
		t.Error(err)
	}
	defer hold(os.Getpid()).Close() // one that lives
	if _, err := lockData(dir); errs.CodeOf(err) != errs.Exists {
		t.Errorf("got %v", err)
	}
}
