package confine

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// step is a raw system call of a trial.
type step struct {
	nr   uintptr
	args [6]uintptr
	fd   int // the argument that is the descriptor opened last, or -1

	answer *int32 // in the memory that the call fills: below 0 it is an error as well; or nil
}

// trial is a list of system calls for a child to try in new namespaces. The child is a fork of this process that runs no program and does nothing
// else, so that it costs well below a millisecond.
type trial struct {
	flags uintptr // CLONE_NEW*
	steps []step
	names []string // of steps
	keep  []any    // what steps point to
}

// opened as an argument stands for the descriptor that an earlier step has opened.
type opened struct{}

// call adds a step. Its arguments are numbers, strings (which get their final 0), bytes or opened.
func (t *trial) call(name string, nr uintptr, args ...any) *trial {
	s := step{nr: nr, fd: -1}
	for i, a := range args {
		switch a := a.(type) {
		case int:
			s.args[i] = uintptr(a)
		case string:
			b := append([]byte(a), 0)
			s.args[i] = t.address(b)
		case []byte:
			s.args[i] = t.address(a)
		case opened:
			s.fd = i
		}
	}
	t.steps, t.names = append(t.steps, s), append(t.names, name)
	return t
}

// address is where bytes are, here and in the child. They are on the heap, where nothing moves.
func (t *trial) address(b []byte) uintptr {
	t.keep = append(t.keep, b)
	return uintptr(unsafe.Pointer(unsafe.SliceData(b)))
}

// write adds steps that write a file.
func (t *trial) write(path, text string) *trial {
	t.call("open "+path, unix.SYS_OPENAT, unix.AT_FDCWD, path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	return t.call("write "+path, unix.SYS_WRITE, opened{}, text, len(text))
}

// outcome is how a trial went.
type outcome struct {
	step  string // what was refused; "" when nothing was
	errno unix.Errno
}

func (o outcome) ok() bool { return o.step == "" }

func (o outcome) String() string {
	if o.ok() {
		return ""
	}
	return o.step + ": " + o.errno.Error()
}

// report is what a child says, in memory that it shares with this process: where it stands, and the kernel's answer if that was a refusal.
type report struct {
	steps int32
	errno uint32
}

const signalSet = 8 // bytes of the kernel's sigset_t

// run runs the trial.
func (t *trial) run() outcome {
	page, err := unix.Mmap(-1, 0, unix.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANON)
	if err != nil {
		return outcome{"mmap", unix.ENOMEM}
	}
	defer func() { _ = unix.Munmap(page) }()
	said := (*report)(unsafe.Pointer(&page[0]))

	// No signal may find Go's handlers in a child that has no Go but its one thread.
	all, before := ^uint64(0), uint64(0)
	runtime.LockOSThread()
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&before)), signalSet, 0, 0)
	pid, errno := fork(t.flags, unsafe.SliceData(t.steps), len(t.steps), said)
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&before)), 0, signalSet, 0, 0)
	runtime.UnlockOSThread()
	if errno != 0 {
		return outcome{"clone", errno}
	}
	defer runtime.KeepAlive(t)
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(int(pid), &status, unix.WALL, nil)
		if err == nil {
			break
		}
		if err != unix.EINTR {
			return outcome{"wait", unix.ECHILD}
		}
	}
	switch {
	case said.errno != 0:
		return outcome{t.names[said.steps], unix.Errno(said.errno)}
	case int(said.steps) < len(t.steps): // killed by a filter, as far as one can tell
		return outcome{t.names[said.steps], unix.ENOSYS}
	}
	return outcome{}
}

// fork makes the child. In it, it does the steps and never returns. The child has none of Go's other threads: it calls nothing but the kernel,
// neither allocates nor writes pointers, and its stack cannot grow. It ends without a signal, so that nobody else reaps it.
//
//go:nosplit
//go:norace
func fork(flags uintptr, steps *step, n int, said *report) (uintptr, syscall.Errno) {
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, flags, 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	fd := uintptr(0)
	for i := 0; i < n; i++ {
		s := (*step)(unsafe.Add(unsafe.Pointer(steps), uintptr(i)*unsafe.Sizeof(step{})))
		a := s.args
		if s.fd >= 0 && s.fd < len(a) {
			a[s.fd] = fd
		}
		r, _, errno := syscall.RawSyscall6(s.nr, a[0], a[1], a[2], a[3], a[4], a[5])
		if errno != 0 {
			said.errno = uint32(errno)
			break
		}
		if s.answer != nil && *s.answer < 0 {
			said.errno = uint32(-*s.answer)
			break
		}
		if opens(s.nr) {
			fd = r
		}
		said.steps++
	}
	for {
		_, _, _ = syscall.RawSyscall6(unix.SYS_EXIT_GROUP, 0, 0, 0, 0, 0, 0)
	}
}

//go:nosplit
//go:norace
func opens(nr uintptr) bool {
	return nr == unix.SYS_OPENAT || nr == unix.SYS_OPEN_TREE || nr == unix.SYS_SOCKET || nr == unix.SYS_LANDLOCK_CREATE_RULESET
}
