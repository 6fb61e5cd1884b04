package capture

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Backlog is listen()'s second argument for every Socket that listens.
const Backlog = 1024

// Family is socket()'s first argument; the second is Kind, the third 0.
func (s Socket) Family() int {
	if s.Addr.Addr().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// Kind is socket()'s second argument, with the flags that descriptors for the host want.
func (s Socket) Kind() int {
	if s.Role == DNSPackets {
		return unix.SOCK_DGRAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	}
	return unix.SOCK_STREAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
}

// Sockaddr is what bind() wants: a sockaddr_in or sockaddr_in6.
func (s Socket) Sockaddr() []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(s.Family()))
	b = binary.BigEndian.AppendUint16(b, s.Addr.Port())
	if s.Addr.Addr().Is4() {
		b = append(b, s.Addr.Addr().AsSlice()...)
		return append(b, make([]byte, 8)...)
	}
	b = append(b, 0, 0, 0, 0) // flow
	b = append(b, s.Addr.Addr().AsSlice()...)
	return append(b, 0, 0, 0, 0) // scope
}
