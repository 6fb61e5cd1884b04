package process

import (
	"sync"
	"syscall"
	"time"

	"github.com/ebb-run/ebb/internal/sandbox"
	"golang.org/x/sys/unix"
)

// guest is the main process of a Sandbox.
type guest struct {
	pid   int
	pidfd int                            // readable once the process has ended; -1 where there is none
	told  func() (unix.WaitStatus, bool) // how an isolated one ended, whose process is the helper; else nil
	first bool                           // asked to end alone, and not with all that it has started

	mu struct {
		sync.Mutex
		reaped bool // from then on pid may mean somebody else
		usage  sandbox.Usage
	}
}

func newGuest(pid, pidfd int) *guest { return &guest{pid: pid, pidfd: pidfd} }

// wait reaps the process. It is called once.
func (g *guest) wait() sandbox.Exit {
	for {
		g.await()
		if exit, ok := g.reap(); ok {
			return exit
		}
		time.Sleep(5 * time.Millisecond) // only where await cannot wait
	}
}

// reap collects the process if it has ended. It does not block, so that signalGroup never waits for the end it is to bring about.
func (g *guest) reap() (sandbox.Exit, bool) {
	var status unix.WaitStatus
	var used unix.Rusage
	g.mu.Lock()
	defer g.mu.Unlock()
	pid, err := unix.Wait4(g.pid, &status, unix.WNOHANG, &used)
	switch {
	case err == unix.EINTR || err == nil && pid == 0:
		return sandbox.Exit{}, false
	case err != nil:
		g.mu.reaped = true
		return sandbox.Exit{Code: -1}, true // somebody else has reaped it
	}
	g.mu.reaped = true
	g.mu.usage = sandbox.Usage{
		MemoryPeak: peakOf(&used),
		CPU:        time.Duration(used.Utime.Nano() + used.Stime.Nano()),
	}
	if g.told != nil {
		if told, ok := g.told(); ok {
			status = told
		}
	}
	if status.Signaled() {
		return sandbox.Exit{Code: -1, Signal: status.Signal().String()}, true
	}
	return sandbox.Exit{Code: status.ExitStatus()}, true
}

// signalGroup signals the guest's process group, as long as it is certain to be that.
func (g *guest) signalGroup(s syscall.Signal) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.mu.reaped {
		_ = syscall.Kill(-g.pid, s)
	}
}

// ask asks the guest to end.
func (g *guest) ask() {
	if !g.first {
		g.signalGroup(syscall.SIGTERM)
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.reaped {
		return
	}
	// The helper, which reaps it, would pass a signal on to all: a monitor's own processes too, whose end would be the guest's.
	if pid := lastChild(g.pid); pid != g.pid {
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
}

// usage is that of the main process; after its end also that of the children it has waited for.
func (g *guest) usage() sandbox.Usage {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.reaped {
		return g.mu.usage
	}
	if g.told != nil {
		return liveUsage(lastChild(g.pid))
	}
	return liveUsage(g.pid)
}
