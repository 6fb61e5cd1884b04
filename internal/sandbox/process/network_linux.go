package process

import (
	"encoding/binary"
	"net/netip"
	"os"
	"slices"

	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/sandbox/process/capture"
	"github.com/ebb-run/ebb/internal/sandbox/process/helper"
	"golang.org/x/sys/unix"
)

// answerSize is the length in which the helper passes the kernel's answer to one netlink message on: an nlmsgerr without what was asked
// has 36 bytes.
const answerSize = 40

// messages are what is told to the kernel of a new network namespace.
func (i *isolation) messages() []capture.Message {
	all := capture.SetupMessages(i.ipv6)
	if i.redirect {
		all = append(all, capture.RedirectMessage(), capture.UntrackMessage(), capture.RefuseMessage())
	}
	return all
}

// network brings the network namespace to life, makes its sockets and gives them to the host.
func (b *birth) network() {
	l := &b.list
	all := b.i.messages()
	answers := l.Bytes(make([]byte, answerSize*len(all)))
	for n, m := range all {
		fd := l.Call("make a netlink socket", unix.SYS_SOCKET, helper.Int(unix.AF_NETLINK), helper.Int(unix.SOCK_RAW|unix.SOCK_CLOEXEC), helper.Int(m.Protocol))
		to := []byte{unix.AF_NETLINK, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
		// Its failure shows in the answer.
		l.Try(m.Name, unix.SYS_SENDTO, fd.Result(), l.Bytes(m.Bytes), helper.Int(len(m.Bytes)), helper.Int(0), l.Bytes(to), helper.Int(len(to)))
		l.Try(m.Name, unix.SYS_RECVFROM, fd.Result(), answers.At(answerSize*n), helper.Int(answerSize), helper.Int(unix.MSG_DONTWAIT), helper.Int(0), helper.Int(0))
		l.Call("close", unix.SYS_CLOSE, fd.Result())
	}
	l.Call("pass the answers on", unix.SYS_WRITE, helper.Int(helper.ControlFD), answers, helper.Int(answerSize*len(all)))
	var fds []helper.Step
	if listens(b.spec) {
		fds = append(fds, b.socket(unix.SOCK_STREAM, netip.MustParseAddrPort(apiAddr)))
	}
	for _, s := range b.plan {
		kind := unix.SOCK_STREAM
		switch s.Role {
		case capture.Refusals:
			fds = append(fds, b.refusals())
			continue
		case capture.DNSPackets:
			kind = unix.SOCK_DGRAM
		}
		fds = append(fds, b.socket(kind, s.Addr))
	}
	if len(fds) > 0 {
		b.send(helper.ControlFD, fds...)
	}
	for _, fd := range fds {
		l.Call("close", unix.SYS_CLOSE, fd.Result())
	}
}

// socket makes a socket at an address, listening if it is one for streams; ip(7), ipv6(7).
func (b *birth) socket(kind int, at netip.AddrPort) helper.Step {
	l := &b.list
	family := unix.AF_INET
	addr := binary.NativeEndian.AppendUint16(nil, unix.AF_INET)
	addr = binary.BigEndian.AppendUint16(addr, at.Port())
	if at.Addr().Is6() {
		family = unix.AF_INET6
		binary.NativeEndian.PutUint16(addr, unix.AF_INET6)
		addr = append(addr, 0, 0, 0, 0) // flow
		addr = append(append(addr, at.Addr().AsSlice()...), 0, 0, 0, 0)
	} else {
		addr = append(append(addr, at.Addr().AsSlice()...), make([]byte, 8)...)
	}
	what := " " + at.String()
	fd := l.Call("make a socket for"+what, unix.SYS_SOCKET, helper.Int(family), helper.Int(kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK), helper.Int(0))
	if family == unix.AF_INET6 {
		both := l.Bytes(make([]byte, 4))
		l.Call("take IPv4 at"+what, unix.SYS_SETSOCKOPT, fd.Result(), helper.Int(unix.SOL_IPV6), helper.Int(unix.IPV6_V6ONLY), both, helper.Int(4))
	}
	l.Call("bind"+what, unix.SYS_BIND, fd.Result(), l.Bytes(addr), helper.Int(len(addr)))
	if kind == unix.SOCK_STREAM {
		l.Call("listen at"+what, unix.SYS_LISTEN, fd.Result(), helper.Int(128))
	}
	return fd
}

// refusals makes a socket that hears of refused packets.
func (b *birth) refusals() helper.Step {
	l := &b.list
	fd := l.Call("make a netlink socket", unix.SYS_SOCKET, helper.Int(unix.AF_NETLINK), helper.Int(unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK), helper.Int(unix.NETLINK_NETFILTER))
	m := capture.ListenForRefusals()
	to := []byte{unix.AF_NETLINK, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	// Where the kernel has no such log nothing is heard.
	l.Try("listen for refused packets", unix.SYS_SENDTO, fd.Result(), l.Bytes(m), helper.Int(len(m)), helper.Int(0), l.Bytes(to), helper.Int(len(to)))
	return fd
}

// outcomes judges the answers to all messages.
func (i *isolation) outcomes(answers []byte) error {
	for n, m := range i.messages() {
		if err := capture.Outcome(m, answers[answerSize*n:answerSize*(n+1)]); err != nil && !m.Optional {
			return err
		}
	}
	return nil
}

// planOf lists the sockets of a box's network.
func (i *isolation) planOf(b *box) []capture.Socket {
	if b.spec.Offline {
		return nil
	}
	return i.plan(b.d.opts.Egress, b.spec.Owner)
}

// plan lists the sockets of a Sandbox's network, none where nothing can be reached.
func (i *isolation) plan(e sandbox.Egress, owner string) []capture.Socket {
	if e == nil {
		return nil
	}
	var declared []capture.Destination
	for _, d := range e.Declared(owner) {
		declared = append(declared, capture.Destination{Host: d.Host, Port: d.Port})
	}
	own := netip.MustParseAddrPort(apiAddr)
	return slices.DeleteFunc(capture.Plan(i.ipv6, i.redirect, declared), func(s capture.Socket) bool { return s.Addr == own })
}

// connect serves the network of a guest that runs.
func (b *box) connect(plan []capture.Socket, files []*os.File) error {
	if len(plan) == 0 {
		return nil
	}
	o := capture.Options{
		Owner: b.spec.Owner, Sandbox: b.spec.ID, Egress: b.d.opts.Egress, Sockets: plan, Files: files, Log: b.d.opts.Log, Budget: b.d.iso.connections,
	}
	if b.notices != nil {
		o.Tell = b.notices.Say
	}
	n, err := capture.Open(o)
	if err != nil {
		return err
	}
	b.network = n
	return nil
}
