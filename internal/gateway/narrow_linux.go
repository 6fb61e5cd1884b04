package gateway

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// narrow makes the system drop new connections to l unseen, so that the queue of those that are complete runs empty and
// closing l resets nobody. A client that comes now tries again a second later, when the port is shut or somebody else's.
func narrow(l net.Listener) {
	sc, ok := l.(syscall.Conn)
	if !ok {
		return
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return
	}
	_ = rc.Control(func(fd uintptr) {
		// A filter of one instruction: keep 0 bytes of every packet. Multipath TCP, which net.Listen asks for, has no
		// filters; there the queue is made as short as it can be, and a reset is possible, but unlikely.
		drop := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}
		program := unix.SockFprog{Len: 1, Filter: &drop}
		if unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program) != nil {
			_ = unix.Listen(int(fd), 0)
		}
	})
}
