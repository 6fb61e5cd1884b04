//go:build !linux

package process

import (
	"syscall"

	"golang.org/x/sys/unix"
)

const fionread = 0x4004667f // FIONREAD of <sys/filio.h>

// pipe returns a reading end that does not block and a writing end for a guest. Both close on exec.
func pipe() (r, w int, err error) {
	syscall.ForkLock.RLock() // no fork between making them and marking them
	defer syscall.ForkLock.RUnlock()
	var p [2]int
	if err := unix.Pipe(p[:]); err != nil {
		return -1, -1, err
	}
	unix.CloseOnExec(p[0])
	unix.CloseOnExec(p[1])
	return p[0], p[1], unix.SetNonblock(p[0], true)
}

// socketpair returns two connected ends that close on exec; the guest's one blocks, as simple guests expect.
func socketpair() (host, guest int, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return -1, -1, err
	}
	unix.CloseOnExec(p[0])
	unix.CloseOnExec(p[1])
	return p[0], p[1], nil
}
