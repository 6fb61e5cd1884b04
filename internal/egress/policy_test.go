package egress

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/errs"
)

func TestNewPolicy_NamesTheEntryAndTheMend(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ entry, hint string }{
		{"", "write a host and a port"},
		{":443", "1 to 253 characters"},
		{"https://api.example.com/v1", `give the port: "api.example.com:443"`},
		{"api.example.com/v1", "paths are not part"},
		{"api.example.com:https", `the port "https" is not a number`},
		{"api.example.com:0", `the port "0"`},
		{"api.example.com:65536", `the port "65536"`},
		{"api.example.com:", `the port ""`},
		{"api.*.com:443", "a wildcard stands for"},
		{"*example.com", "a wildcard stands for"},
		{"*.10.0.0.1", "a wildcard stands for"},
		{"*.*.com", "a wildcard stands for"},
		{"10.1.0.0/8:5432", `write the network as "10.0.0.0/8"`},
		{"10.0.0.0/33", "write a network as"},
		{"::ffff:10.0.0.0/104", "as an IPv4 one"},
		{"bücher.example", "xn--"},
		{"2130706433:80", "usual form"},
		{"0x7f.1:80", "usual form"},
		{"127.1", "usual form"},
		{"010.0.0.1", "usual form"},
		{"api..example.com", "1 to 63 characters"},
		{strings.Repeat("a", 64) + ".example", "1 to 63 characters"},
		{"api example.com", "letters, digits"},
		{"user@example.com:22", "letters, digits"},
		{"fe80::1%eth0", "percent sign"},
		{"[::1", "write an IPv6 address"},
		{"[::1]80", "write an IPv6 address"},
		{"::1]:80", "write an IPv6 address"},
		{"[example.com]:80", "brackets are for"},
		{"2001:db8::7:x", "letters, digits"},
	} {
		_, err := NewPolicy(AllowList, []string{"good.example:443", c.entry})
		if errs.CodeOf(err) != errs.Invalid || !strings.Contains(err.Error(), fmt.Sprintf("%q", c.entry)) || !strings.Contains(errs.HintOf(err), c.hint) {
			t.Errorf("%q: %v; hint: %s", c.entry, err, errs.HintOf(err))
		}
	}
	_, err := NewPolicy(AllowList, []string{"a:x", "b", "c:y"})
	if err == nil || !strings.Contains(err.Error(), `"a:x"`) || !strings.Contains(err.Error(), `"c:y"`) || errs.HintOf(err) == "" {
		t.Errorf("two at fault: %v", err)
	}
	if _, err := NewPolicy(Closed, []string{"a:1"}); errs.CodeOf(err) != errs.Invalid || errs.HintOf(err) == "" {
		t.Errorf("closed, with an entry: %v", err)
	}
}

func TestPolicy_DeclaresWhatHasAPort(t *testing.T) {
	t.Parallel()
	p := policy(t, AllowList, "API.example.com:443", "b.example", "*.example.com:8443", "*:80", "10.0.0.0/8:5432", "192.0.2.7:22", "[::ffff:192.0.2.7]:22", "[::1]:6379", " c.example:* ")
	want := "[{api.example.com 443} { 8443} { 80} { 5432} {192.0.2.7 22} {::1 6379}]"
	if got := fmt.Sprint(p.Declared()); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestMode_IsReadAsItIsWritten(t *testing.T) {
	t.Parallel()
	for _, m := range []Mode{Closed, AllowList, Anything} {
		if got, err := ParseMode(m.String()); err != nil || got != m {
			t.Errorf("%v: %v, %v", m, got, err)
		}
	}
	if _, err := ParseMode("open"); errs.CodeOf(err) != errs.Invalid || errs.HintOf(err) == "" {
		t.Errorf("got %v", err)
	}
}

func FuzzPolicy(f *testing.F) {
	for _, s := range []string{"api.example.com:443", "*.example.com", "*:443", "10.0.0.0/8:5432", "[fd00::/8]:1", "[::1]:80", "::1", "*", "127.1", "http://x/"} {
		f.Add(s, "api.example.com", uint16(443))
	}
	f.Fuzz(func(t *testing.T, s, host string, port uint16) {
		h, err := parseHost(host)
		if err == nil && h.addr.IsValid() == (h.name != "") {
			t.Fatalf("%q is both or neither: %+v", host, h)
		}
		p, failed := NewPolicy(AllowList, []string{s})
		if failed != nil {
			if errs.HintOf(failed) == "" {
				t.Fatalf("%q: no hint with %v", s, failed)
			}
			return
		}
		e := p.entries[0]
		kinds := 0
		for _, is := range []bool{e.all, e.name != "", e.below != "", e.network.IsValid()} {
			if is {
				kinds++
			}
		}
		if kinds != 1 {
			t.Fatalf("%q is %+v", s, e)
		}
		// A wide entry never opens the never-list.
		if !e.network.IsSingleIP() && (!e.network.IsValid() || e.network.Bits() == 0) && e.name == "" {
			for _, a := range []string{"127.0.0.1", "::1", "169.254.169.254", "64:ff9b::a9fe:a9fe"} {
				if p.permitsAddr(netip.MustParseAddr(a), port, covered) {
					t.Fatalf("%q opens %s", s, a)
				}
			}
		}
	})
}
