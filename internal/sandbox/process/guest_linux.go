package process

import (
	"bytes"
	"os"
	"strconv"
	"time"

	"github.com/ebb-run/ebb/internal/sandbox"
	"golang.org/x/sys/unix"
)

// peakOf is the memory peak of an ended process, or 0 when it cannot be told. The kernel counts also what the process shared
// with the host between fork and exec, so only a peak above the host's own is the guest's.
func peakOf(used *unix.Rusage) int64 {
	var host unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &host) != nil || used.Maxrss <= host.Maxrss {
		return 0
	}
	return int64(used.Maxrss) << 10 // getrusage(2): kilobytes
}

// await returns when the process has ended. Through the runtime's poller, so that an idle guest holds no thread.
func (g *guest) await() {
	if g.pidfd >= 0 {
		_ = unix.SetNonblock(g.pidfd, true) // makes os.NewFile hand it to the poller
		f := os.NewFile(uintptr(g.pidfd), "pidfd")
		defer f.Close()
		raw, err := f.SyscallConn()
		if err == nil {
			err = raw.Read(func(uintptr) bool { return g.ended() })
		}
		if err == nil {
			return
		}
	}
	for {
		err := unix.Waitid(unix.P_PID, g.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			return
		}
	}
}

func (g *guest) ended() bool {
	fds := []unix.PollFd{{Fd: int32(g.pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

// lastChild is the guest of a helper, or the helper itself when it is gone.
func lastChild(pid int) int {
	text, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/task/" + strconv.Itoa(pid) + "/children")
	all := bytes.Fields(text)
	if len(all) == 0 {
		return pid
	}
	child, err := strconv.Atoi(string(all[len(all)-1]))
	if err != nil {
		return pid
	}
	return child
}

// liveUsage is what a running process has used: threads that have ended are included, children are not.
func liveUsage(pid int) sandbox.Usage {
	var u sandbox.Usage
	var ts unix.Timespec
	// The process-wide CPU clock of another process: clock_getcpuclockid(3), CPUCLOCK_SCHED.
	if unix.ClockGettime(int32(^pid<<3|2), &ts) == nil {
		u.CPU = time.Duration(ts.Nano())
	}
	var buf [4096]byte
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/status", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return u
	}
	status := pread(fd, buf[:])
	_ = unix.Close(fd)
	if _, rest, ok := bytes.Cut(status, []byte("\nVmHWM:")); ok {
		kb, _, _ := bytes.Cut(bytes.TrimLeft(rest, " \t"), []byte(" "))
		n, _ := strconv.ParseInt(string(kb), 10, 64)
		u.MemoryPeak = n << 10
	}
	return u
}
