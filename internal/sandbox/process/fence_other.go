//go:build !linux

package process

import (
	"sync"
	"syscall"
	"time"

	"github.com/ebb-run/ebb/internal/sandbox"
)

// fences know what this machine has to bound guests with: process groups, no more.
type fences struct{}

func openFences(bool) *fences                                        { return &fences{} }
func (f *fences) close()                                             {}
func (f *fences) bases() []string                                    { return nil }
func (f *fences) make(string, sandbox.Limits, int64) (*fence, error) { return &fence{}, nil }

func (f *fences) protections() []Protection {
	return []Protection{
		{Name: "memory limit", Mechanism: "none", Note: "functions can use all memory of this machine", Mend: "run ebb on Linux"},
		{Name: "process limit", Mechanism: "none", Mend: "run ebb on Linux"},
		{Name: "cpu limit", Mechanism: "none", Mend: "run ebb on Linux"},
		{Name: "tree kill", Mechanism: "process group", Note: "a process that leaves its group (setsid) survives its function", Mend: "run ebb on Linux"},
		{Name: "parent death", Mechanism: "none", Note: "functions survive when ebb is killed by SIGKILL", Mend: "run ebb on Linux"},
	}
}

// fence bounds one Sandbox.
type fence struct {
	mu  sync.Mutex
	pid int // the process group; 0 before there is one, or when it is gone
}

func (f *fence) holds(pid int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pid = pid
}

func (f *fence) guard(int, string, func()) {}
func (f *fence) contained()                {}
func (f *fence) exceeded() bool            { return false }
func (f *fence) usage() sandbox.Usage      { return sandbox.Usage{} }
func (f *fence) counts() bool              { return false }
func (f *fence) remove() bool              { return true }
func (f *fence) kill()                     { f.signal(syscall.SIGKILL) }

// signal reports whether there was somebody to signal. A group's number is not given to others while the group has members.
func (f *fence) signal(s syscall.Signal) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pid == 0 {
		return false
	}
	if syscall.Kill(-f.pid, s) != nil { // ESRCH, or EPERM when only zombies are left
		f.pid = 0
		return false
	}
	return true
}

// freeze stops the process group; what has left it goes on.
func (f *fence) freeze() error { f.signal(syscall.SIGSTOP); return nil }

// thaw undoes freeze.
func (f *fence) thaw() error { f.signal(syscall.SIGCONT); return nil }

// clear kills until nothing is left, and reports whether it came to that.
func (f *fence) clear(patience time.Duration) bool {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if !f.signal(syscall.SIGKILL) {
			return true
		}
	}
	return false
}
