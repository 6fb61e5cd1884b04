package process

import (
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// order is one guest to start.
type order struct {
	path  string
	argv  []string
	env   []string
	dir   string
	files []uintptr // become 0, 1, 2, …
	fence *fence
	attr  *syscall.SysProcAttr

	answer chan answer
}

type answer struct {
	guest *guest
	err   error
}

// launcher starts all guests from one thread that lives as long as the Driver: a parent-death signal is sent when the thread
// that forked ends, not the process, and Go ends threads as it likes. The thread also steps into the guest's version 1
// cgroups before it forks, so that the guest is never outside of them.
type launcher struct {
	fences *fences
	orders chan *order
	ended  chan struct{}
}

func startLauncher(f *fences) *launcher {
	l := &launcher{fences: f, orders: make(chan *order), ended: make(chan struct{})}
	settled := make(chan struct{})
	go l.run(settled)
	<-settled
	return l
}

// run serves orders on a thread of its own. settled is closed once it has one.
//
// The thread must not be the process's first: memory of the whole process would be charged to the cgroup that this one is in,
// and the kernel could choose the host when a guest's cgroup runs out of memory while it starts.
func (l *launcher) run(settled chan struct{}) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		go l.run(settled)
		<-settled // the other one cannot be on this thread as long as it is held here
		runtime.UnlockOSThread()
		return
	}
	close(settled)
	defer close(l.ended)
	batch()
	// Never unlocked: the thread ends with this goroutine, and guests that are still there with it.
	for o := range l.orders {
		g, err := l.fork(o)
		o.answer <- answer{g, err}
	}
}

// batch puts this thread, and with it all guests, into the class of those who do not take the processor from others as soon as they
// have something to do (sched(7), SCHED_BATCH). On a saturated machine a guest that answered or was asked otherwise stops whoever is in
// the middle of serving all of them. On a processor that is free, and in how much they get of one, it changes nothing.
func batch() {
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil || attr.Policy != unix.SCHED_NORMAL {
		return // forbidden, or the operator has chosen
	}
	attr.Policy = unix.SCHED_BATCH
	_ = unix.SchedSetAttr(0, attr, 0) // it works without
}

func (l *launcher) start(o *order) (*guest, error) {
	o.answer = make(chan answer, 1)
	l.orders <- o
	a := <-o.answer
	return a.guest, a.err
}

// close ends the thread. No start is under way or follows.
func (l *launcher) close() {
	close(l.orders)
	<-l.ended
}

func (l *launcher) fork(o *order) (*guest, error) {
	// Go's own descriptors close on exec; what the host itself was born with may not. Unknown before Linux 5.11, where the
	// host's parent is trusted.
	_ = unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
	pidfd := -1
	sys := o.attr
	if sys == nil {
		sys = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	}
	sys.PidFD = &pidfd
	if fd := o.fence.cgroup(); fd >= 0 {
		sys.UseCgroupFD, sys.CgroupFD = true, fd
	}
	if err := o.fence.enter(); err != nil {
		l.fences.leave()
		return nil, err
	}
	pid, _, err := syscall.StartProcess(o.path, o.argv, &syscall.ProcAttr{Dir: o.dir, Env: o.env, Files: o.files, Sys: sys})
	l.fences.leave()
	o.fence.entered()
	if err != nil {
		return nil, err
	}
	return newGuest(pid, pidfd), nil
}
