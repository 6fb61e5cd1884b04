//go:build unix

package lambda

import "syscall"

// alive looks, without waiting, whether the guest has closed a connection on which it waits for an answer.
func (c *apiConn) alive() bool {
	sc, ok := c.conn.(syscall.Conn)
	if !ok || c.br.Buffered() > 0 {
		return true
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	n := -1
	var room [1]byte
	_ = raw.Read(func(fd uintptr) bool { // its error is that of a closed connection, which a write will find
		n, _, _ = syscall.Recvfrom(int(fd), room[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT) // -1 where nothing is to be read yet
		return true
	})
	return n != 0
}
