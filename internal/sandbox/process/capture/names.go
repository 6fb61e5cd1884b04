package capture

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"sync"
)

// The addresses that stand for names. 198.18.0.0/15 is set aside for tests between networks (RFC 2544), so that nothing real
// is hidden; the IPv6 range is a unique local one (RFC 4193). A name has the same place in both.
var (
	pool4 = netip.MustParsePrefix("198.18.0.0/15")
	pool6 = netip.MustParsePrefix("fd65:6262::/96")
)

// maxNames is what pool4 has room for, without its first and its last address.
const maxNames = 1<<17 - 2

// names gives out addresses for names, in order of first use.
type names struct {
	limit int

	mu struct {
		sync.Mutex
		place map[string]uint32 // from 1
		list  []string          // list[place-1]
		full  bool              // the limit has been met once
	}
}

func newNames(limit int) *names {
	n := &names{limit: limit}
	n.mu.place = map[string]uint32{}
	return n
}

// index returns the place of a normal name and gives it one if need be; 0 when there is no room, and then whether this is the first time.
func (n *names) index(name string) (place uint32, first bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if i, ok := n.mu.place[name]; ok {
		return i, false
	}
	if len(n.mu.list) >= n.limit {
		first = !n.mu.full
		n.mu.full = true
		return 0, first
	}
	name = strings.Clone(name)
	n.mu.list = append(n.mu.list, name)
	i := uint32(len(n.mu.list))
	n.mu.place[name] = i
	return i, false
}

// has reports whether a normal name has its place already.
func (n *names) has(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, ok := n.mu.place[name]
	return ok
}

// name returns whose address this is.
func (n *names) name(a netip.Addr) (string, bool) {
	i := placeOf(a)
	n.mu.Lock()
	defer n.mu.Unlock()
	if i == 0 || int64(i) > int64(len(n.mu.list)) {
		return "", false
	}
	return n.mu.list[i-1], true
}

func (n *names) len() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.mu.list)
}

func inPool(a netip.Addr) bool {
	a = a.Unmap()
	return pool4.Contains(a) || pool6.Contains(a)
}

// place4 and place6 are the addresses of a place.
func place4(i uint32) netip.Addr {
	b := pool4.Addr().As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+i)
	return netip.AddrFrom4(b)
}

func place6(i uint32) netip.Addr {
	b := pool6.Addr().As16()
	binary.BigEndian.PutUint32(b[12:], i)
	return netip.AddrFrom16(b)
}

// placeOf is the reverse of both; 0 when the address is in neither range.
func placeOf(a netip.Addr) uint32 {
	a = a.Unmap()
	switch {
	case pool4.Contains(a):
		b, base := a.As4(), pool4.Addr().As4()
		return binary.BigEndian.Uint32(b[:]) - binary.BigEndian.Uint32(base[:])
	case pool6.Contains(a):
		b := a.As16()
		return binary.BigEndian.Uint32(b[12:])
	}
	return 0
}

// normal returns a name as policies know it: lower-case, without the final dot. It reports false for what no host has: empty or
// overlong labels, and anything but ASCII letters, digits, hyphens and underscores.
func normal(name string) (string, bool) {
	name = strings.TrimSuffix(name, ".")
	if name == "" || len(name) > 253 {
		return "", false
	}
	label := 0
	for i := range len(name) {
		switch c := name[i]; {
		case c == '.':
			if label == 0 {
				return "", false
			}
			label = 0
			continue
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
			label++
		default:
			return "", false
		}
		if label > 63 {
			return "", false
		}
	}
	return strings.ToLower(name), label > 0
}

// isLocalhost reports whether a normal name means the guest's own loopback (RFC 6761, section 6.3).
func isLocalhost(name string) bool {
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}
