package egress

import (
	"net/netip"
	"slices"
)

// never lists ranges that no guest reaches unless they are named, and what they are.
var never = []struct {
	prefix netip.Prefix
	what   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "an unspecified address, which is this host"},
	{netip.MustParsePrefix("::/128"), "the unspecified address, which is this host"},
	{netip.MustParsePrefix("127.0.0.0/8"), "this host's loopback"},
	{netip.MustParsePrefix("::1/128"), "this host's loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), "a link-local address, where clouds keep their metadata"},
	{netip.MustParsePrefix("fe80::/10"), "a link-local address"},
	{netip.MustParsePrefix("fd00:ec2::/32"), "an address of AWS's metadata"},
	{netip.MustParsePrefix("fd20:ce::/32"), "an address of Google Cloud's metadata"},
	{netip.MustParsePrefix("fd00:42::42/128"), "an address of Scaleway's metadata"},
	{netip.MustParsePrefix("100.100.100.200/32"), "an address of Alibaba Cloud's metadata"},
	{netip.MustParsePrefix("168.63.129.16/32"), "an address of Azure's host services"},
	{netip.MustParsePrefix("192.0.0.192/32"), "an address of Oracle Cloud's metadata"},
	{netip.MustParsePrefix("224.0.0.0/4"), "a multicast address"},
	{netip.MustParsePrefix("ff00::/8"), "a multicast address"},
	{netip.MustParsePrefix("240.0.0.0/4"), "a reserved or broadcast address"},
}

// Never reports whether an address is one that no guest reaches unless it is named.
func Never(a netip.Addr) bool { return neverRange(a) != "" }

// neverRange says what an address of the never-list is, in any of its clothes; "" when it is none.
func neverRange(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	for _, x := range disguises(a) {
		for _, n := range never {
			if n.prefix.Contains(x) {
				return n.what
			}
		}
	}
	return ""
}

var (
	compatible = netip.MustParsePrefix("::/96")           // IPv4-compatible, RFC 4291, section 2.5.5.1
	translated = netip.MustParsePrefix("::ffff:0:0:0/96") // IPv4-translated, RFC 2765, section 2.1
	nat64      = netip.MustParsePrefix("64:ff9b::/96")    // RFC 6052
	nat64Local = netip.MustParsePrefix("64:ff9b:1::/48")  // RFC 8215
	sixToFour  = netip.MustParsePrefix("2002::/16")       // RFC 3056
	teredo     = netip.MustParsePrefix("2001::/32")       // RFC 4380
)

// disguises are the address without zone, and every IPv4 address that a gateway on the way could take it for.
func disguises(a netip.Addr) []netip.Addr {
	a = a.Unmap().WithZone("")
	all := []netip.Addr{a}
	if a.Is4() {
		return all
	}
	b := a.As16()
	v4 := func(at ...int) { all = append(all, netip.AddrFrom4([4]byte{b[at[0]], b[at[1]], b[at[2]], b[at[3]]})) }
	switch {
	case a == netip.IPv6Unspecified(), a.IsLoopback():
	case compatible.Contains(a), translated.Contains(a), nat64.Contains(a):
		v4(12, 13, 14, 15)
	case nat64Local.Contains(a):
		// The operator chooses the length, and with it the place (RFC 6052, section 2.2). At three of four there is something
		// else, often zeros: what is no host's address is passed over.
		v4(6, 7, 9, 10)
		v4(7, 9, 10, 11)
		v4(9, 10, 11, 12)
		v4(12, 13, 14, 15)
		all = slices.DeleteFunc(all, func(a netip.Addr) bool { return a.Is4() && (a.As4()[0] == 0 || a.As4()[0] >= 224) })
	case sixToFour.Contains(a):
		v4(2, 3, 4, 5)
	case teredo.Contains(a):
		v4(4, 5, 6, 7)
		all = append(all, netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]}))
	}
	if b[8]&^3 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe { // ISATAP, RFC 5214, section 6.1
		v4(12, 13, 14, 15)
	}
	return all
}
