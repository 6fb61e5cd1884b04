package egress

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ebb-run/ebb/internal/errs"
)

// Mode is what holds for destinations that no entry names.
type Mode uint8

// The modes. The zero Mode is the strictest.
const (
	Closed    Mode = iota // nothing is reachable
	AllowList             // what an entry names
	Anything              // everything but the never-list, and of that what an entry names
)

// String gives the Mode as settings have it.
func (m Mode) String() string {
	switch m {
	case AllowList:
		return "allow-list"
	case Anything:
		return "anything"
	}
	return "closed"
}

// ParseMode reads a Mode's name.
func ParseMode(s string) (Mode, error) {
	for _, m := range []Mode{Closed, AllowList, Anything} {
		if m.String() == s {
			return m, nil
		}
	}
	return Closed, errs.New(errs.Invalid, "egress mode %q is not known", s).WithHint("write anything, allow-list or closed")
}

// Policy is what one owner may reach. The zero Policy is closed. Immutable.
type Policy struct {
	mode    Mode
	entries []entry
}

// anyPort, as an entry's port, means all; as a destination's, some.
const anyPort = 0

// entry is one line of an allow-list: exactly one of its first four fields is set.
type entry struct {
	all     bool         // "*"
	name    string       // "api.example.com"
	below   string       // "*.example.com", as ".example.com"
	network netip.Prefix // "10.0.0.0/8"; of one address where an address was given
	port    uint16
}

// NewPolicy reads an allow-list: "host:port", "host", "*.example.com:443", "*:443", "192.0.2.7:22", "[2001:db8::7]:22", "10.0.0.0/8:5432".
// Without a port, and with port "*", all ports are meant. All entries at fault are told.
func NewPolicy(m Mode, allow []string) (Policy, error) {
	p := Policy{mode: m}
	var failed []error
	for _, s := range allow {
		e, err := parseEntry(s)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		p.entries = append(p.entries, e)
	}
	if len(failed) == 1 {
		return Policy{}, failed[0]
	}
	if len(failed) > 1 {
		err := errors.Join(failed...)
		return Policy{}, errs.New(errs.Invalid, "%s", strings.ReplaceAll(err.Error(), "\n", "; ")).WithHint("%s", errs.HintOf(failed[0]))
	}
	if m == Closed && len(allow) > 0 {
		return Policy{}, errs.New(errs.Invalid, "egress is closed, but %q is to be allowed", allow[0]).WithHint("set the mode to allow-list, or remove the entries")
	}
	return p, nil
}

// Mode returns what holds for destinations that no entry names.
func (p Policy) Mode() Mode { return p.mode }

// Declared is a destination that an entry names, so far as it does.
type Declared struct {
	Host string // a name or an address; "" for any, and for what is known only by wildcard or network
	Port uint16
}

// Declared lists what entries with a port name, in their order. A driver that cannot capture every connection prepares these.
func (p Policy) Declared() []Declared {
	var all []Declared
	for _, e := range p.entries {
		d := Declared{Host: e.name, Port: e.port}
		if e.network.IsSingleIP() {
			d.Host = e.network.Addr().String()
		}
		if d.Port != anyPort && !slices.Contains(all, d) {
			all = append(all, d)
		}
	}
	return all
}

// naming says how a name is allowed.
type naming uint8

const (
	unnamed naming = iota // by nothing; an address of it may be
	covered               // by a wildcard or the mode
	exactly               // by an entry of its own
)

// permitsName reports how a normal name is allowed on a port.
func (p Policy) permitsName(name string, port uint16) naming {
	how := unnamed
	if p.mode == Anything {
		how = covered
	}
	for _, e := range p.entries {
		switch {
		case !e.on(port):
		case e.name != "" && e.name == name:
			return exactly
		case e.all || e.below != "" && strings.HasSuffix(name, e.below):
			how = covered
		}
	}
	if p.mode == Closed {
		return unnamed
	}
	return how
}

// permitsAddr reports whether an address may be dialled on a port, how being what holds for the name that led to it.
func (p Policy) permitsAddr(a netip.Addr, port uint16, how naming) bool {
	if p.mode == Closed || !a.IsValid() || a.Zone() != "" {
		return false
	}
	if how == exactly {
		return true
	}
	bad := Never(a)
	if !bad && (p.mode == Anything || how == covered) {
		return true
	}
	for _, e := range p.entries {
		if !e.on(port) {
			continue
		}
		if e.all && !bad || e.network.IsValid() && e.network.Contains(a) && (!bad || isNever(e.network)) {
			return true
		}
	}
	return false
}

// isNever reports whether a network is one address of the never-list, or lies within one of its ranges: only then does it name
// what it holds of them. 0.0.0.0/0 names no metadata service.
func isNever(n netip.Prefix) bool {
	if n.IsSingleIP() {
		return Never(n.Addr())
	}
	for _, x := range never {
		if x.prefix.Bits() <= n.Bits() && x.prefix.Contains(n.Addr()) {
			return true
		}
	}
	return false
}

// hasNetworks reports whether a name that no entry names could still lead to an allowed address: into a network, not to an
// address of its own, for which nobody needs a name.
func (p Policy) hasNetworks(port uint16) bool {
	return p.mode != Closed && slices.ContainsFunc(p.entries, func(e entry) bool {
		return e.on(port) && e.network.IsValid() && !e.network.IsSingleIP()
	})
}

func (e entry) on(port uint16) bool { return e.port == anyPort || port == anyPort || e.port == port }

func invalid(s, hint string, args ...any) error {
	return errs.New(errs.Invalid, "egress entry %q cannot be read", s).WithHint(hint, args...)
}

func parseEntry(s string) (entry, error) {
	text := strings.TrimSpace(s)
	if _, rest, ok := strings.Cut(text, "://"); ok {
		rest, _, _ = strings.Cut(rest, "/")
		return entry{}, invalid(s, "leave out the scheme and the path, and give the port: %q", rest+":443")
	}
	where, port, err := splitPort(text)
	if err != nil {
		return entry{}, invalid(s, "%s", err)
	}
	e := entry{port: port}
	switch {
	case where == "*":
		e.all = true
		return e, nil
	case strings.Contains(where, "/"):
		e.network, err = parseNetwork(where)
		if err != nil {
			return entry{}, invalid(s, "%s", err)
		}
		return e, nil
	case strings.HasPrefix(where, "*."):
		h, err := parseHost(where[2:])
		if err != nil || h.addr.IsValid() {
			return entry{}, invalid(s, `a wildcard stands for whole labels before a name, as in "*.example.com:443"`)
		}
		e.below = "." + h.name
		return e, nil
	case strings.Contains(where, "*"):
		return entry{}, invalid(s, `a wildcard stands for whole labels before a name, as in "*.example.com:443"`)
	}
	h, err := parseHost(where)
	if err != nil {
		return entry{}, invalid(s, "%s", err)
	}
	if e.name = h.name; h.addr.IsValid() {
		e.network = netip.PrefixFrom(h.addr, h.addr.BitLen())
	}
	return e, nil
}

// splitPort cuts "host:port". A bare IPv6 address or network has no port.
func splitPort(s string) (where string, port uint16, err error) {
	if s == "" {
		return "", 0, errors.New(`write a host and a port: "api.example.com:443"`)
	}
	where, text, found := s, "", false
	if inner, rest, ok := strings.Cut(s, "]"); ok || s[0] == '[' {
		if !ok || s[0] != '[' || rest != "" && rest[0] != ':' {
			return "", 0, errors.New(`write an IPv6 address with a port as "[2001:db8::7]:443"`)
		}
		where, text, found = inner[1:], strings.TrimPrefix(rest, ":"), rest != ""
		if !strings.Contains(where, ":") {
			return "", 0, errors.New("brackets are for IPv6 addresses")
		}
	} else if strings.Count(s, ":") == 1 {
		where, text, found = strings.Cut(s, ":")
	}
	if !found || text == "*" {
		return where, anyPort, nil
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("the port %q is not a number from 1 to 65535, or *", text)
	}
	return where, uint16(n), nil
}

func parseNetwork(s string) (netip.Prefix, error) {
	n, err := netip.ParsePrefix(s)
	if err != nil {
		return n, errors.New(`write a network as "10.0.0.0/8:5432" or "[fd00::/8]:5432"; paths are not part of a destination`)
	}
	if n.Masked() != n {
		return n, fmt.Errorf("write the network as %q, or the one address without a length", n.Masked())
	}
	if n.Addr().Is4In6() {
		return n, errors.New("write the network as an IPv4 one")
	}
	return n, nil
}

// host is a normal name or an address.
type host struct {
	name string
	addr netip.Addr
}

// parseHost reads what a guest asked for, or an entry names: case and one final dot do not matter. What is neither an address in its usual form nor a
// possible name is an error: decimal, octal and hexadecimal forms of addresses, zones, and names that are not ASCII.
func parseHost(s string) (host, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		if a.Zone() != "" {
			return host{}, errors.New("an address with a zone is of one host's network only; leave out what follows the percent sign")
		}
		return host{addr: a.Unmap()}, nil
	}
	name := strings.ToLower(strings.TrimSuffix(s, "."))
	if a, err := netip.ParseAddr(name); err == nil && a.Zone() == "" {
		return host{addr: a.Unmap()}, nil
	}
	if name == "" || len(name) > 253 {
		return host{}, errors.New("a name has 1 to 253 characters")
	}
	labels := strings.Split(name, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 {
			return host{}, errors.New("each part of a name between its dots has 1 to 63 characters")
		}
		for i := range len(l) {
			c := l[i]
			switch {
			case c >= 0x80:
				return host{}, errors.New("write the name in its ASCII form, which begins with xn--")
			case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_':
			default:
				return host{}, errors.New("a name has letters, digits, hyphens and dots")
			}
		}
	}
	if last := labels[len(labels)-1]; numeric(last) {
		return host{}, errors.New("write an address in its usual form, as 192.0.2.7 or 2001:db8::7")
	}
	return host{name: name}, nil
}

// numeric reports whether a last label makes a name an address for programs that read the old forms (WHATWG URL, "ends in a number").
func numeric(label string) bool {
	if _, err := strconv.ParseUint(label, 10, 64); err == nil || strings.Trim(label, "0123456789") == "" {
		return true
	}
	hex, ok := strings.CutPrefix(label, "0x")
	return ok && strings.Trim(hex, "0123456789abcdef") == ""
}
