package process

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"github.com/ebb-run/ebb/internal/sandbox/process/helper"
	"golang.org/x/sys/unix"
)

// control is the host's end of a helper's control descriptor.
type control struct {
	conn *net.UnixConn
	list *helper.List
	tell func(program int, status unix.WaitStatus) // gets the ends of programs beside the guest
}

// newControl gives the host's end and the helper's.
func newControl(l *helper.List) (*control, int, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, -1, fmt.Errorf("make the control line: %w", err)
	}
	f := os.NewFile(uintptr(fds[0]), "control")
	c, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		_ = unix.Close(fds[1])
		return nil, -1, fmt.Errorf("make the control line: %w", err)
	}
	return &control{conn: c.(*net.UnixConn), list: l}, fds[1], nil
}

// follow serves the helper until the guest runs, and gives the descriptors that it sent. users gives its user namespace its users, and judge
// gets the kernel's answers of the network.
func (c *control) follow(users func() error, judge func(answers []byte) error) (files []*os.File, err error) {
	defer func() {
		if err != nil {
			for _, f := range files {
				_ = f.Close()
			}
			files = nil
		}
	}()
	var buf [16 * answerSize]byte
	var oob [1024]byte
	for {
		n, oobn, _, _, err := c.conn.ReadMsgUnix(buf[:], oob[:])
		switch {
		case errors.Is(err, io.EOF) || err == nil && n == 0:
			return files, errors.New("the helper ended")
		case err != nil:
			return files, fmt.Errorf("hear of the helper: %w", err)
		case n == helper.FailureSize:
			return files, c.list.Failure(buf[:n])
		case n >= answerSize && n%answerSize == 0:
			if err := judge(buf[:n]); err != nil {
				return files, fmt.Errorf("set up its network: %w", err)
			}
			continue
		case n == endSize && c.tell != nil:
			c.tell(endOf(buf[:n]))
			continue
		case n != 1:
			return files, errors.New("the guest ended before it ran")
		}
		switch string(buf[:1]) {
		case isRunning:
			return files, nil
		case sendFiles:
			more, err := received(oob[:oobn])
			files = append(files, more...)
			if err != nil {
				return files, fmt.Errorf("take the helper's descriptors: %w", err)
			}
		case isBeside:
			if err := c.answer(); err != nil {
				return files, err
			}
		case askUsers:
			if err := users(); err != nil {
				return files, fmt.Errorf("give the sandbox a user of its own: %w", err)
			}
			if err := c.answer(); err != nil {
				return files, err
			}
		}
	}
}

// answer lets the helper go on that waits.
func (c *control) answer() error {
	if _, err := c.conn.Write([]byte{1}); err != nil {
		return fmt.Errorf("answer the helper: %w", err)
	}
	return nil
}

func received(oob []byte) (files []*os.File, err error) {
	all, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for _, m := range all {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return files, err
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "of the sandbox"))
		}
	}
	return files, nil
}

// mapUsers gives a user namespace its one user and group; user_namespaces(7).
func (b *birth) mapUsers(pid int) error {
	proc := "/proc/" + strconv.Itoa(pid) + "/"
	if err := writeFile(proc+"uid_map", fmt.Sprintf("%d %d 1", b.i.uid, b.outside)); err != nil {
		return err
	}
	return writeFile(proc+"gid_map", fmt.Sprintf("%d %d 1", b.i.gid, b.outside))
}

// running gives what tells how the guest ended. The list, many times as large as all else about a guest that runs, is needed no more.
func (c *control) running() func() (unix.WaitStatus, bool) {
	c.list = nil
	return c.status
}

// status is how the guest ended, once the helper has; false where the helper could not say. It ends the line.
func (c *control) status() (unix.WaitStatus, bool) {
	defer c.conn.Close()
	var buf [helper.FailureSize]byte
	for {
		n, err := c.conn.Read(buf[:])
		if err != nil || n == 0 {
			return 0, false
		}
		if n == 4 {
			return unix.WaitStatus(binary.LittleEndian.Uint32(buf[:])), true
		}
	}
}

// askSockets makes the line on which sockets of the guest's network come, and gives the helper's end.
func (l *line) askSockets() (int, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("make the line for sockets: %w", err)
	}
	f := os.NewFile(uintptr(fds[0]), "sockets")
	c, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		_ = unix.Close(fds[1])
		return -1, fmt.Errorf("make the line for sockets: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.sockets = c
	return fds[1], nil
}

// dialInside connects to the guest in its own network. Its sockets come one after the other.
func (l *line) dialInside(ctx context.Context) (net.Conn, error) {
	l.mu.Lock()
	sockets, closed := l.mu.sockets, l.mu.closed
	l.mu.Unlock()
	if closed || sockets == nil {
		return nil, net.ErrClosed
	}
	f, err := l.socket(ctx, sockets.(*net.UnixConn))
	if err != nil {
		return nil, fmt.Errorf("get a socket of the sandbox: %w", err)
	}
	defer f.Close()
	addr, err := netip.ParseAddrPort(l.addr)
	if err != nil {
		return nil, err
	}
	if err := connect(ctx, f, addr); err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
	}
	return net.FileConn(f)
}

// connect connects a socket that does not block. Over loopback that is mostly done at once, but not on a machine that has much to do.
func connect(ctx context.Context, f *os.File, to netip.AddrPort) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) {
		failed = unix.Connect(int(fd), &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
	}); err != nil {
		return err
	}
	if failed != unix.EINPROGRESS {
		return os.NewSyscallError("connect", failed)
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	var code int
	err = raw.Write(func(fd uintptr) bool {
		at := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		if n, err := unix.Poll(at, 0); n == 0 || err != nil {
			return false
		}
		code, failed = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		return true
	})
	if err != nil {
		return errors.Join(ctx.Err(), err)
	}
	if failed == nil && code != 0 {
		failed = unix.Errno(code)
	}
	return os.NewSyscallError("connect", failed)
}

// socket asks for one, and waits no longer than ctx lasts: the guest can stop who makes them. One that comes too late is the next one's.
func (l *line) socket(ctx context.Context, c *net.UnixConn) (*os.File, error) {
	select {
	case l.asking <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-l.asking }()
	if !l.owed {
		if _, err := c.Write([]byte{1}); err != nil {
			return nil, err
		}
		l.owed = true
	}
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(cut)
		_ = c.SetReadDeadline(time.Unix(1, 0))
	})
	var buf [8]byte
	var oob [64]byte
	_, n, _, _, err := c.ReadMsgUnix(buf[:], oob[:])
	if !stop() {
		<-cut
		_ = c.SetReadDeadline(time.Time{})
	}
	if err != nil {
		return nil, errors.Join(ctx.Err(), err)
	}
	l.owed = false
	files, err := received(oob[:n])
	if err == nil && len(files) != 1 {
		err = fmt.Errorf("%d sockets for one", len(files))
	}
	if err != nil {
		return nil, err
	}
	return files[0], nil
}
