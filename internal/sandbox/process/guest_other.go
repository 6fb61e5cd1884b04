//go:build !linux

package process

import (
	"github.com/ebb-run/ebb/internal/sandbox"
	"golang.org/x/sys/unix"
)

// peakOf is the memory peak of an ended process; getrusage(2) on Darwin gives bytes.
func peakOf(used *unix.Rusage) int64 { return int64(used.Maxrss) }

// await returns when the process has ended. It holds a thread.
func (g *guest) await() {
	kq, err := unix.Kqueue()
	if err != nil {
		return
	}
	defer unix.Close(kq)
	change := []unix.Kevent_t{{Ident: uint64(g.pid), Filter: unix.EVFILT_PROC, Flags: unix.EV_ADD | unix.EV_ONESHOT, Fflags: unix.NOTE_EXIT}}
	for {
		_, err := unix.Kevent(kq, change, make([]unix.Kevent_t, 1), nil)
		if err != unix.EINTR {
			return // ended, or ESRCH: ended before
		}
	}
}

// liveUsage is not known here before the process ends.
func liveUsage(int) sandbox.Usage { return sandbox.Usage{} }

func lastChild(pid int) int { return pid }
