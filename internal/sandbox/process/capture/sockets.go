package capture

import (
	"net/netip"
	"slices"
)

// Ports of a Net's sockets. Both are below 1024, where a guest without capabilities cannot bind: its own servers never meet them.
const (
	DNSPort     = 53
	CapturePort = 1
)

// ResolvConf is the /etc/resolv.conf of a guest: names are complete as they are, and answers come at once or not at all.
const ResolvConf = "nameserver 127.0.0.1\noptions ndots:1 timeout:5 attempts:2\n"

// Role is what a socket is for.
type Role uint8

// The roles.
const (
	DNSPackets Role = iota // UDP
	DNSStreams             // TCP; DNS with a length before each message
	Captured               // TCP; what the redirect brings
	Declared               // TCP; one declared destination, without a redirect
	Refusals               // netlink, of the netfilter protocol; ListenForRefusals is sent on it. It has no Addr
)

// Socket is one that has to be made inside the namespace: socket, setsockopt, bind and, for all but DNSPackets, listen. Refusals is another kind.
//
// An IPv6 address that is unspecified means that the socket takes IPv4 too: IPV6_V6ONLY must be 0.
type Socket struct {
	Role Role
	Addr netip.AddrPort
	Host string // Declared: the name that is dialled; "" takes it from the connection's own destination
}

// Destination is one host and port that a guest may declare. Host "" means any.
type Destination struct {
	Host string
	Port uint16
}

// Plan lists the sockets of an Instance, those for names and captured connections first. ipv6 and redirect are what the namespace has:
// HasIPv6, unless the message about IPv6 routes failed, and whether RedirectMessage went well.
//
// With redirect, declared destinations matter only where they are on loopback ("localhost:5432"), because a redirect leaves
// loopback alone: for these the guest finds its host's server on its own loopback. Without, each gets a socket on the address
// that its name will have, and a destination of any host one on all addresses; what is not declared is refused by the kernel.
func Plan(ipv6, redirect bool, d []Destination) []Socket {
	all := netip.IPv4Unspecified()
	if ipv6 {
		all = netip.IPv6Unspecified()
	}
	plan := []Socket{
		{Role: DNSPackets, Addr: netip.AddrPortFrom(all, DNSPort)},
		{Role: DNSStreams, Addr: netip.AddrPortFrom(all, DNSPort)},
	}
	if redirect {
		plan = append(plan, Socket{Role: Captured, Addr: netip.AddrPortFrom(all, CapturePort)}, Socket{Role: Refusals})
	}
	seen := newNames(maxNames)
	wild := func(port uint16) bool { return slices.Contains(d, Destination{Port: port}) }
	for _, x := range d {
		s := Socket{Role: Declared, Host: x.Host}
		ip, err := netip.ParseAddr(x.Host)
		name, named := normal(x.Host)
		own := x.Port == DNSPort || x.Port == CapturePort // ours already
		switch {
		case own || x.Port == 0:
			continue
		case err == nil && ip.IsLoopback(), named && isLocalhost(name):
			s.Host = name
			if err == nil {
				s.Host = ip.Unmap().String()
			}
			s.Addr = netip.AddrPortFrom(loopbackOf(ip), x.Port)
		case redirect:
			continue
		case x.Host == "":
			s.Addr = netip.AddrPortFrom(netip.IPv4Unspecified(), x.Port)
		case wild(x.Port): // one socket on all addresses is there, or will be, and two cannot share a port
			continue
		case err == nil && ip.Unmap().Is4():
			s.Host, s.Addr = ip.Unmap().String(), netip.AddrPortFrom(ip.Unmap(), x.Port)
		case err == nil || !named:
			continue
		default:
			i, _ := seen.index(name)
			s.Host, s.Addr = name, netip.AddrPortFrom(place4(i), x.Port)
		}
		if !slices.ContainsFunc(plan, func(p Socket) bool { return p.Addr == s.Addr }) {
			plan = append(plan, s)
		}
	}
	return plan
}

func loopbackOf(a netip.Addr) netip.Addr {
	if a.Is6() && !a.Is4In6() {
		return netip.IPv6Loopback()
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}
