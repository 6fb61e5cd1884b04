package capture

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ebb-run/ebb/internal/sandbox"
)

// originalDst is SO_ORIGINAL_DST of linux/netfilter_ipv4.h and IP6T_SO_ORIGINAL_DST of linux/netfilter_ipv6/ip6_tables.h.
const originalDst = 80

// original asks the kernel where a redirected connection was going.
func original(c net.Conn) (netip.AddrPort, sandbox.Destination, error) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return netip.AddrPort{}, sandbox.Destination{}, errors.New("not a TCP connection")
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, sandbox.Destination{}, err
	}
	local, _ := netip.ParseAddrPort(t.LocalAddr().String())
	var at netip.AddrPort
	var failed error
	err = raw.Control(func(fd uintptr) {
		if local.Addr().Unmap().Is4() {
			at, failed = original4(int(fd))
		} else {
			at, failed = original6(int(fd))
		}
	})
	return at, sandbox.Destination{}, errors.Join(err, failed)
}

func original4(fd int) (netip.AddrPort, error) {
	m, err := unix.GetsockoptIPv6Mreq(fd, unix.SOL_IP, originalDst) // 20 bytes, of which a sockaddr_in takes 16
	if err != nil {
		return netip.AddrPort{}, err
	}
	b := m.Multiaddr
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:4])), nil
}

func original6(fd int) (netip.AddrPort, error) {
	m, err := unix.GetsockoptIPv6MTUInfo(fd, unix.SOL_IPV6, originalDst) // begins with a sockaddr_in6
	if err != nil {
		return netip.AddrPort{}, err
	}
	port := (*[2]byte)(unsafe.Pointer(&m.Addr.Port)) // in network order
	return netip.AddrPortFrom(netip.AddrFrom16(m.Addr.Addr), binary.BigEndian.Uint16(port[:])), nil
}
