//go:build unix

package lambda

import (
	"errors"
	"syscall"
)

// alive looks, without waiting, whether the guest has closed or broken a connection on which it waits for an answer.
func (c *apiConn) alive() bool {
	sc, ok := c.conn.(syscall.Conn)
	if !ok || c.br.Buffered() > 0 {
		return true
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	open := true
	var room [1]byte
	_ = raw.Read(func(fd uintptr) bool { // its own error is that of a deadline or of a connection closed here, which a write finds
		n, _, err := syscall.Recvfrom(int(fd), room[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		open = n > 0 || errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR)
		return true
	})
	return open
}
