package process

import (
	"errors"

	"golang.org/x/sys/unix"
)

const fionread = unix.TIOCINQ

// pipe returns a reading end that does not block and a writing end for a guest. Both close on exec.
//
// A guest is another user than ebb, and programs that open /dev/stdout or /dev/stderr open the pipe anew: so all may write to it.
// Nobody finds it but who has it, through /proc.
func pipe() (r, w int, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return -1, -1, err
	}
	err = errors.Join(unix.Fchmod(p[1], 0o622), unix.SetNonblock(p[0], true))
	if err != nil {
		_, _ = unix.Close(p[0]), unix.Close(p[1])
		return -1, -1, err
	}
	return p[0], p[1], nil
}

// socketpair returns two connected ends that close on exec; the guest's one blocks, as simple guests expect.
func socketpair() (host, guest int, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, err
	}
	return p[0], p[1], nil
}
