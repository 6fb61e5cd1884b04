package capture

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"strconv"
)

// hearRefusals tells of refused packets, once for each destination, until it has told of the most that it may.
func (n *Net) hearRefusals(f *os.File) {
	defer f.Close() // then the kernel keeps no log
	if n.o.Tell == nil {
		return
	}
	b := make([]byte, 4096)
	for {
		size, err := f.Read(b)
		if err != nil {
			return // closed, or the guest sends faster than anybody has to read
		}
		for to := range refusedPackets(b[:size]) {
			host := to.Addr().String()
			if name, ok := n.names.name(to.Addr()); ok {
				host = name
			}
			at := net.JoinHostPort(host, strconv.Itoa(int(to.Port())))
			first, room := n.first("udp " + at)
			if first {
				n.o.Tell("UDP to " + at + " is refused: a sandbox has TCP, DNS and its own loopback")
			}
			if !room {
				return
			}
		}
	}
}

// linux/netfilter/nfnetlink_log.h
const (
	logPacket  = 4 << 8 // NFNL_SUBSYS_ULOG, NFULNL_MSG_PACKET
	logPayload = 9      // NFULA_PAYLOAD
)

// refusedPackets reads the destinations of UDP packets from a datagram of the kernel's log.
func refusedPackets(b []byte) func(yield func(netip.AddrPort) bool) {
	return func(yield func(netip.AddrPort) bool) {
		for len(b) >= 20 { // struct nlmsghdr, struct nfgenmsg
			size := int(binary.NativeEndian.Uint32(b))
			if size < 16 || size > len(b) {
				return
			}
			if binary.NativeEndian.Uint16(b[4:]) == logPacket && size >= 20 {
				if to, ok := destinationOf(attribute(b[20:size], logPayload)); ok && !yield(to) {
					return
				}
			}
			b = b[min(len(b), (size+3)&^3):]
		}
	}
}

// attribute finds a netlink attribute by its kind.
func attribute(b []byte, kind uint16) []byte {
	for len(b) >= 4 {
		size := int(binary.NativeEndian.Uint16(b))
		if size < 4 || size > len(b) {
			return nil
		}
		if binary.NativeEndian.Uint16(b[2:])&0x3fff == kind { // without the flags
			return b[4:size]
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return nil
}

const udp = 17 // RFC 768

// destinationOf reads where an IP packet goes: RFC 791, section 3.1; RFC 8200, section 3. Guests' packets have no extension headers as a rule.
func destinationOf(p []byte) (netip.AddrPort, bool) {
	var to netip.Addr
	var head int
	switch {
	case len(p) >= 20 && p[0]>>4 == 4 && p[9] == udp:
		to, head = netip.AddrFrom4([4]byte(p[16:20])), int(p[0]&0xf)*4
	case len(p) >= 40 && p[0]>>4 == 6 && p[6] == udp:
		to, head = netip.AddrFrom16([16]byte(p[24:40])), 40
	}
	if head < 20 || len(p) < head+4 {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(to, binary.BigEndian.Uint16(p[head+2:])), true
}
