package capture

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/ebb-run/ebb/internal/sandbox"
)

// book allows every name but those that begin with "no", and is the host's resolver too.
type book struct{}

func (book) Dial(context.Context, sandbox.Destination) (net.Conn, error) {
	return nil, errors.New("no")
}
func (book) Resolves(d sandbox.Destination) bool { return !strings.HasPrefix(d.Host, "no") }

func (book) Missing(_ context.Context, d sandbox.Destination) bool {
	return strings.HasPrefix(d.Host, "missing.")
}

func (book) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	switch {
	case service != "" || proto != "":
		return "", nil, errors.New("the name is complete as it is")
	case name == "_pg._tcp.db.example.":
		return name, []*net.SRV{{Target: "one.db.example.", Port: 5432, Priority: 1, Weight: 2}, {Target: strings.Repeat("x", 300)}}, nil
	case name == "broken.example.":
		return "", nil, &net.DNSError{Err: "server misbehaving"}
	}
	return "", nil, &net.DNSError{Err: "no such host", IsNotFound: true}
}

func (book) LookupTXT(_ context.Context, name string) ([]string, error) {
	if name == "long.example." {
		return []string{strings.Repeat("a", 600), strings.Repeat("b", 900)}, nil
	}
	if name == "txt.example." {
		return []string{"v=1", ""}, nil
	}
	return nil, &net.DNSError{Err: "no such host", IsNotFound: true}
}

func (book) LookupMX(_ context.Context, name string) ([]*net.MX, error) {
	if name == "mail.example." {
		return []*net.MX{{Host: "one.mail.example.", Pref: 5}, {Host: strings.Repeat("x", 300)}, {Host: "two.mail.example.", Pref: 10}}, nil
	}
	return nil, &net.DNSError{Err: "no such host", IsNotFound: true}
}

func dnsNet(t testing.TB, ipv6 bool, limit int) *Net {
	t.Helper()
	n, err := Open(Options{Egress: book{}, Resolver: book{}, Names: limit})
	if err != nil {
		t.Fatal(err)
	}
	n.ipv6 = ipv6
	t.Cleanup(func() { n.Close() })
	return n
}

// ask sends one question through everything but the socket.
func (n *Net) ask(b []byte) []byte {
	q, ok := parse(b)
	if !ok {
		return nil
	}
	if n.remote(&q) {
		return q.bytes(n.lookup(&q), q.size)
	}
	return q.bytes(n.local(&q), q.size)
}

func pack(t testing.TB, name string, kind dnsmessage.Type, edns int) []byte {
	t.Helper()
	full, err := dnsmessage.NewName(name)
	if err != nil {
		t.Fatal(err)
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 77, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: full, Type: kind, Class: dnsmessage.ClassINET}},
	}
	if edns > 0 {
		var h dnsmessage.ResourceHeader
		h.SetEDNS0(edns&0xffff, 0, true)
		h.TTL |= uint32(edns>>16) << 16
		m.Additionals = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{Options: []dnsmessage.Option{{Code: 10, Data: []byte("12345678")}}}}}
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func describe(t *testing.T, b []byte) string {
	t.Helper()
	var m dnsmessage.Message
	if err := m.Unpack(b); err != nil {
		t.Fatalf("the answer is malformed: %v", err)
	}
	if m.ID != 77 || !m.Response || !m.RecursionAvailable || !m.RecursionDesired {
		t.Errorf("the head is %+v", m.Header)
	}
	words := []string{strings.TrimPrefix(m.RCode.String(), "RCode")}
	if m.Truncated {
		words = append(words, "truncated")
	}
	for _, r := range m.Answers {
		switch b := r.Body.(type) {
		case *dnsmessage.AResource:
			words = append(words, net.IP(b.A[:]).String())
		case *dnsmessage.AAAAResource:
			words = append(words, net.IP(b.AAAA[:]).String())
		case *dnsmessage.PTRResource:
			words = append(words, b.PTR.String())
		case *dnsmessage.SRVResource:
			words = append(words, fmt.Sprint(b.Priority, " ", b.Weight, " ", b.Port, " ", b.Target))
		case *dnsmessage.MXResource:
			words = append(words, fmt.Sprint(b.Pref), b.MX.String())
		case *dnsmessage.TXTResource:
			words = append(words, fmt.Sprintf("%q", b.TXT))
		}
	}
	if len(m.Additionals) > 0 {
		words = append(words, "EDNS")
	}
	return strings.Join(words, " ")
}

func TestDNS_AnswersAsItSays(t *testing.T) {
	t.Parallel()
	const https = dnsmessage.Type(65)
	for _, c := range []struct {
		name string
		ask  string
		kind dnsmessage.Type
		edns int
		want string
	}{
		{"IPv4", "a.example.", dnsmessage.TypeA, 0, "Success 198.18.0.2"},
		{"IPv6", "a.example.", dnsmessage.TypeAAAA, 0, "Success fd65:6262::2"},
		{"upper case", "FIRST.Example.", dnsmessage.TypeA, 0, "Success 198.18.0.1"},
		{"EDNS", "a.example.", dnsmessage.TypeA, 4096, "Success 198.18.0.2 EDNS"},
		{"EDNS of the future", "a.example.", dnsmessage.TypeA, 1<<16 | 4096, "Success EDNS"},
		{"no data", "a.example.", dnsmessage.TypeMX, 0, "Success"},
		{"HTTPS records", "a.example.", https, 0, "Success"},
		{"denied", "no.example.", dnsmessage.TypeA, 0, "NameError"},
		{"a name that does not exist", "missing.example.", dnsmessage.TypeA, 0, "NameError"},
		{"a name that does not exist, IPv6", "Missing.example.", dnsmessage.TypeAAAA, 0, "NameError"},
		{"denied text", "no.example.", dnsmessage.TypeTXT, 0, "NameError"},
		{"spaces", "a b.example.", dnsmessage.TypeA, 0, "NameError"},
		{"raw UTF-8", "bücher.example.", dnsmessage.TypeA, 0, "NameError"},
		{"IDNA", "xn--bcher-kva.example.", dnsmessage.TypeA, 0, "Success 198.18.0.2"},
		{"root", ".", dnsmessage.TypeA, 0, "NameError"},
		{"localhost", "LocalHost.", dnsmessage.TypeA, 0, "Success 127.0.0.1"},
		{"localhost IPv6", "x.localhost.", dnsmessage.TypeAAAA, 0, "Success ::1"},
		{"localhost text", "localhost.", dnsmessage.TypeTXT, 0, "NameError"},
		{"service", "_pg._tcp.db.example.", dnsmessage.TypeSRV, 0, "Success 1 2 5432 one.db.example."},
		{"no such service", "_x._tcp.db.example.", dnsmessage.TypeSRV, 0, "Success"},
		{"mail", "mail.example.", dnsmessage.TypeMX, 0, "Success 5 one.mail.example. 10 two.mail.example."},
		{"no mail", "other.example.", dnsmessage.TypeMX, 0, "Success"},
		{"denied mail", "no.example.", dnsmessage.TypeMX, 0, "NameError"},
		{"broken resolver", "broken.example.", dnsmessage.TypeSRV, 0, "ServerFailure"},
		{"text", "txt.example.", dnsmessage.TypeTXT, 0, `Success ["v=1"] [""]`},
		{"too long", "long.example.", dnsmessage.TypeTXT, 0, "Success truncated"},
		{"too long for EDNS", "long.example.", dnsmessage.TypeTXT, 65535, "Success truncated EDNS"},
		{"reverse", "1.0.18.198.in-addr.arpa.", dnsmessage.TypePTR, 0, "Success first.example."},
		{"reverse IPv6", "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.6.2.6.5.6.d.f.ip6.arpa.", dnsmessage.TypePTR, 0, "Success first.example."},
		{"reverse of nobody", "9.0.18.198.in-addr.arpa.", dnsmessage.TypePTR, 0, "NameError"},
		{"reverse of others", "8.8.8.8.in-addr.arpa.", dnsmessage.TypePTR, 0, "NameError"},
		{"reverse of loopback", "1.0.0.127.in-addr.arpa.", dnsmessage.TypePTR, 0, "Success localhost."},
		{"reverse of nothing", "x.in-addr.arpa.", dnsmessage.TypePTR, 0, "NameError"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := dnsNet(t, true, 0)
			n.ask(pack(t, "first.example.", dnsmessage.TypeA, 0))
			if got := describe(t, n.ask(pack(t, c.ask, c.kind, c.edns))); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestDNS_HasNoIPv6WhereItIsNotCaptured(t *testing.T) {
	t.Parallel()
	n := dnsNet(t, false, 0)
	if got := describe(t, n.ask(pack(t, "a.example.", dnsmessage.TypeAAAA, 0))); got != "Success" {
		t.Error(got)
	}
}

func TestDNS_BoundsTheNames(t *testing.T) {
	t.Parallel()
	n := dnsNet(t, true, 3)
	for i := range 6 {
		want := "Refused"
		if i < 3 {
			want = fmt.Sprintf("Success 198.18.0.%d", i+1)
		}
		if got := describe(t, n.ask(pack(t, fmt.Sprintf("h%d.example.", i), dnsmessage.TypeA, 0))); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if got := describe(t, n.ask(pack(t, "h1.example.", dnsmessage.TypeA, 0))); got != "Success 198.18.0.2" {
		t.Errorf("a known name: %s", got)
	}
	if _, again := n.names.index("h9.example"); again {
		t.Error("the limit is told more than once")
	}
	if got := describe(t, n.ask(pack(t, "no.example.", dnsmessage.TypeA, 0))); got != "NameError" {
		t.Errorf("a denied name: %s", got)
	}
}

func TestDNS_TellsWhatIsWrongWithAPacket(t *testing.T) {
	t.Parallel()
	n := dnsNet(t, true, 0)
	good := pack(t, "a.example.", dnsmessage.TypeA, 0)
	change := func(at int, v byte) []byte {
		b := append([]byte(nil), good...)
		b[at] = v
		return b
	}
	for name, c := range map[string]struct {
		b    []byte
		want string
	}{
		"notify":       {change(2, 4<<3|1), "NotImplemented"},
		"no question":  {change(5, 0), "FormatError"},
		"two":          {change(5, 2), "FormatError"},
		"cut":          {good[:len(good)-3], "FormatError"},
		"other class":  {change(len(good)-1, 3), "Refused"},
		"missing rest": {change(11, 9), "Success 198.18.0.1"},
	} {
		if got := describe(t, n.ask(c.b)); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
	for name, b := range map[string][]byte{"nothing": nil, "half a header": good[:7], "an answer": change(2, 0x80)} {
		if got := n.ask(b); got != nil {
			t.Errorf("%s was answered: %x", name, got)
		}
	}
}

func FuzzDNS(f *testing.F) {
	for _, kind := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeSRV, dnsmessage.TypePTR, dnsmessage.TypeTXT} {
		f.Add(pack(f, "txt.example.", kind, 4096))
		f.Add(pack(f, "1.0.18.198.in-addr.arpa.", kind, 0))
	}
	n := dnsNet(f, true, 1000)
	var answered atomic.Int64
	f.Fuzz(func(t *testing.T, b []byte) {
		out := n.ask(b)
		if out == nil {
			return
		}
		answered.Add(1)
		var m dnsmessage.Message
		if err := m.Unpack(out); err != nil {
			t.Fatalf("%x was answered by %x: %v", b, out, err)
		}
		if len(out) > packet || out[0] != b[0] || out[1] != b[1] {
			t.Fatalf("%x was answered by %x", b, out)
		}
	})
}
