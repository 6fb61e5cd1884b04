package egress

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/sandbox"
)

// zone is what the tests' resolver knows.
var zone = map[string][]string{
	"api.example.com.":      {"198.51.100.10"},
	"example.com.":          {"198.51.100.11"},
	"notexample.com.":       {"198.51.100.12"},
	"db.corp.":              {"10.1.2.3"},
	"db":                    {"10.1.2.4"},
	"localhost":             {"127.0.0.1", "::1"},
	"rebind.example.com.":   {"127.0.0.1"},
	"metadata.example.com.": {"169.254.169.254"},
	"mapped.example.com.":   {"::ffff:169.254.169.254"},
	"nat64.example.com.":    {"64:ff9b::a9fe:a9fe"},
	"mixed.example.com.":    {"127.0.0.1", "198.51.100.13", "fe80::1", "0.0.0.0"},
	"zoned.example.com.":    {"fe80::1%eth0"},
	"two.corp.":             {"192.168.0.1", "10.1.2.5"},
	"empty.example.com.":    {},
}

func resolve(_ context.Context, name string) ([]netip.Addr, error) {
	list, ok := zone[name]
	if !ok {
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	var all []netip.Addr
	for _, s := range list {
		all = append(all, netip.MustParseAddr(s))
	}
	return all, nil
}

func policy(t testing.TB, m Mode, allow ...string) Policy {
	t.Helper()
	p, err := NewPolicy(m, allow)
	if err != nil {
		t.Fatal(err, errs.HintOf(err))
	}
	return p
}

// network remembers what was dialled and connects all of it to nothing.
type network struct {
	mu struct {
		sync.Mutex
		dialled []string
	}
}

func (n *network) dial(_ context.Context, to netip.AddrPort) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.dialled = append(n.mu.dialled, to.String())
	c, far := net.Pipe()
	far.Close()
	return c, nil
}

func TestDial_FollowsThePolicy(t *testing.T) {
	t.Parallel()
	list := func(s ...string) []string { return s }
	for _, c := range []struct {
		name  string
		mode  Mode
		allow []string
		host  string
		port  uint16
		want  string // the address dialled, or the code of the error
	}{
		{"closed", Closed, nil, "api.example.com", 443, "forbidden"},
		{"closed, address", Closed, nil, "198.51.100.10", 443, "forbidden"},
		{"anything, name", Anything, nil, "api.example.com", 443, "198.51.100.10:443"},
		{"anything, upper case and dot", Anything, nil, "API.Example.COM.", 443, "198.51.100.10:443"},
		{"anything, address", Anything, nil, "198.51.100.10", 1, "198.51.100.10:1"},
		{"anything, IPv6", Anything, nil, "2001:db8::7", 443, "[2001:db8::7]:443"},
		{"anything, private", Anything, nil, "10.0.0.1", 443, "10.0.0.1:443"},
		{"anything, unique local", Anything, nil, "fd12:3456::1", 443, "[fd12:3456::1]:443"},
		{"anything, private by name", Anything, nil, "db.corp", 5432, "10.1.2.3:5432"},
		{"anything, short name", Anything, nil, "db", 5432, "10.1.2.4:5432"},
		{"anything, no such name", Anything, nil, "nobody.example", 443, "not_found"},
		{"anything, no address", Anything, nil, "empty.example.com", 443, "not_found"},

		{"loopback", Anything, nil, "127.0.0.1", 80, "forbidden"},
		{"loopback elsewhere", Anything, nil, "127.9.9.9", 80, "forbidden"},
		{"loopback IPv6", Anything, nil, "::1", 80, "forbidden"},
		{"loopback, final dot", Anything, nil, "127.0.0.1.", 80, "forbidden"},
		{"unspecified", Anything, nil, "0.0.0.0", 80, "forbidden"},
		{"unspecified net", Anything, nil, "0.1.2.3", 80, "forbidden"},
		{"unspecified IPv6", Anything, nil, "::", 80, "forbidden"},
		{"metadata", Anything, nil, "169.254.169.254", 80, "forbidden"},
		{"metadata, mapped", Anything, nil, "::ffff:169.254.169.254", 80, "forbidden"},
		{"metadata, mapped in hex", Anything, nil, "::ffff:a9fe:a9fe", 80, "forbidden"},
		{"metadata, bracketed", Anything, nil, "[::ffff:169.254.169.254]", 80, "forbidden"},
		{"metadata, compatible", Anything, nil, "::169.254.169.254", 80, "forbidden"},
		{"metadata, translated", Anything, nil, "::ffff:0:169.254.169.254", 80, "forbidden"},
		{"metadata, NAT64", Anything, nil, "64:ff9b::169.254.169.254", 80, "forbidden"},
		{"metadata, local NAT64 /96", Anything, nil, "64:ff9b:1::169.254.169.254", 80, "forbidden"},
		{"loopback, local NAT64 /48", Anything, nil, "64:ff9b:1:7f00:0:100::", 80, "forbidden"},
		{"metadata, local NAT64 /56", Anything, nil, "64:ff9b:1:12a9:fe:a9fe::", 80, "forbidden"},
		{"metadata, local NAT64 /64", Anything, nil, "64:ff9b:1:1234:a9:fea9:fe00:0", 80, "forbidden"},
		{"other local NAT64", Anything, nil, "64:ff9b:1:fffe::198.51.100.10", 80, "[64:ff9b:1:fffe::c633:640a]:80"},
		{"metadata, 6to4", Anything, nil, "2002:a9fe:a9fe::1", 80, "forbidden"},
		{"metadata, Teredo", Anything, nil, "2001:0:1234:5678::5601:5601", 80, "forbidden"},
		{"metadata, ISATAP", Anything, nil, "2001:db8::5efe:169.254.169.254", 80, "forbidden"},
		{"metadata, ISATAP global", Anything, nil, "2001:db8::200:5efe:169.254.169.254", 80, "forbidden"},
		{"metadata of AWS, IPv6", Anything, nil, "fd00:ec2::254", 80, "forbidden"},
		{"metadata of Google, IPv6", Anything, nil, "fd20:ce::254", 80, "forbidden"},
		{"metadata of Alibaba", Anything, nil, "100.100.100.200", 80, "forbidden"},
		{"metadata of Azure", Anything, nil, "168.63.129.16", 80, "forbidden"},
		{"metadata, decimal", Anything, nil, "2852039166", 80, "forbidden"},
		{"metadata, hexadecimal", Anything, nil, "0xa9fea9fe", 80, "forbidden"},
		{"metadata, hexadecimal parts", Anything, nil, "0xa9.0xfe.0xa9.0xfe", 80, "forbidden"},
		{"metadata, octal", Anything, nil, "0251.0376.0251.0376", 80, "forbidden"},
		{"metadata, short", Anything, nil, "169.16689662", 80, "forbidden"},
		{"metadata, full-width digits", Anything, nil, "１69.254.169.254", 80, "forbidden"},
		{"metadata, ideographic dot", Anything, nil, "169。254。169。254", 80, "forbidden"},
		{"other 6to4", Anything, nil, "2002:c633:640a::1", 80, "[2002:c633:640a::1]:80"},
		{"link-local", Anything, nil, "fe80::1", 80, "forbidden"},
		{"link-local with a zone", Anything, nil, "fe80::1%eth0", 80, "forbidden"},
		{"multicast", Anything, nil, "224.0.0.1", 80, "forbidden"},
		{"multicast IPv6", Anything, nil, "ff02::1", 80, "forbidden"},
		{"broadcast", Anything, nil, "255.255.255.255", 80, "forbidden"},
		{"localhost by name", Anything, nil, "localhost", 80, "forbidden"},

		{"rebinding to loopback", Anything, nil, "rebind.example.com", 80, "forbidden"},
		{"rebinding to metadata", Anything, nil, "metadata.example.com", 80, "forbidden"},
		{"rebinding to mapped metadata", Anything, nil, "mapped.example.com", 80, "forbidden"},
		{"rebinding by NAT64", Anything, nil, "nat64.example.com", 80, "forbidden"},
		{"rebinding with a zone", Anything, list("zoned.example.com:80"), "zoned.example.com", 80, "forbidden"},
		{"only the good addresses", Anything, nil, "mixed.example.com", 80, "198.51.100.13:80"},
		{"rebinding under a wildcard", AllowList, list("*.example.com:80"), "rebind.example.com", 80, "forbidden"},
		{"rebinding under any", AllowList, list("*:80"), "rebind.example.com", 80, "forbidden"},

		{"loopback, named", Anything, list("127.0.0.1:5432"), "127.0.0.1", 5432, "127.0.0.1:5432"},
		{"loopback, other port", Anything, list("127.0.0.1:5432"), "127.0.0.1", 5433, "forbidden"},
		{"loopback, named, mapped", Anything, list("127.0.0.1:5432"), "::ffff:127.0.0.1", 5432, "127.0.0.1:5432"},
		{"localhost, named", Anything, list("localhost:5432"), "localhost", 5432, "127.0.0.1:5432"},
		{"a name of loopback, named", AllowList, list("rebind.example.com:80"), "rebind.example.com", 80, "127.0.0.1:80"},
		{"loopback by its network", AllowList, list("127.0.0.0/8:80"), "127.0.0.1", 80, "127.0.0.1:80"},
		{"loopback by all networks", AllowList, list("0.0.0.0/0"), "127.0.0.1", 80, "forbidden"},
		{"loopback by half of all", AllowList, list("0.0.0.0/1"), "127.0.0.1", 80, "forbidden"},
		{"metadata by a wider network", AllowList, list("169.0.0.0/8"), "169.254.169.254", 80, "forbidden"},
		{"metadata by all IPv6", AllowList, list("::/0"), "::ffff:169.254.169.254", 80, "forbidden"},
		{"NAT64 by all IPv6", AllowList, list("::/0"), "64:ff9b::169.254.169.254", 80, "forbidden"},
		{"NAT64, named", AllowList, list("[64:ff9b::a9fe:a9fe]:80"), "64:ff9b::169.254.169.254", 80, "[64:ff9b::a9fe:a9fe]:80"},
		{"metadata by any", AllowList, list("*:80"), "169.254.169.254", 80, "forbidden"},

		{"list, name and port", AllowList, list("api.example.com:443"), "api.example.com", 443, "198.51.100.10:443"},
		{"list, case and dot", AllowList, list("API.example.com.:443"), "api.Example.com.", 443, "198.51.100.10:443"},
		{"list, other port", AllowList, list("api.example.com:443"), "api.example.com", 80, "forbidden"},
		{"list, any port", AllowList, list("api.example.com"), "api.example.com", 80, "198.51.100.10:80"},
		{"list, other name", AllowList, list("api.example.com:443"), "example.com", 443, "forbidden"},
		{"list, its address", AllowList, list("api.example.com:443"), "198.51.100.10", 443, "forbidden"},
		{"wildcard", AllowList, list("*.example.com:443"), "api.example.com", 443, "198.51.100.10:443"},
		{"wildcard, the name itself", AllowList, list("*.example.com:443"), "example.com", 443, "forbidden"},
		{"wildcard, a longer name", AllowList, list("*.example.com:443"), "notexample.com", 443, "forbidden"},
		{"any host", AllowList, list("*:443"), "api.example.com", 443, "198.51.100.10:443"},
		{"any host, address", AllowList, list("*:443"), "198.51.100.10", 443, "198.51.100.10:443"},
		{"any host, other port", AllowList, list("*:443"), "198.51.100.10", 80, "forbidden"},
		{"network", AllowList, list("10.0.0.0/8:5432"), "10.1.2.3", 5432, "10.1.2.3:5432"},
		{"network, outside", AllowList, list("10.0.0.0/8:5432"), "11.1.2.3", 5432, "forbidden"},
		{"network, by name", AllowList, list("10.0.0.0/8:5432"), "db.corp", 5432, "10.1.2.3:5432"},
		{"network, a name outside", AllowList, list("10.0.0.0/8:443"), "api.example.com", 443, "forbidden"},
		{"network, one of two", AllowList, list("10.0.0.0/8:443"), "two.corp", 443, "10.1.2.5:443"},
		{"network IPv6", AllowList, list("[2001:db8::/32]:443"), "2001:db8::1", 443, "[2001:db8::1]:443"},
		{"address, by name", AllowList, list("10.1.2.3:5432"), "db.corp", 5432, "forbidden"},
		{"port 0", AllowList, list("api.example.com:443"), "api.example.com", 0, "forbidden"},
		{"port 0, anything", Anything, nil, "198.51.100.10", 0, "forbidden"},
		{"IDNA", AllowList, list("xn--bcher-kva.example"), "bücher.example", 443, "forbidden"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p, n := policy(t, c.mode, c.allow...), &network{}
			e := New(Options{Policy: func(string) Policy { return p }, Resolve: resolve, Dial: n.dial})
			d := sandbox.Destination{Owner: "app/fn", Host: c.host, Port: c.port}
			conn, err := e.Dial(t.Context(), d)
			got := strings.Join(n.mu.dialled, " ")
			if err != nil {
				got += string(errs.CodeOf(err))
			} else {
				conn.Close()
				if !e.Resolves(d) {
					t.Error("it can be dialled, but not looked up")
				}
			}
			if got != c.want {
				t.Errorf("got %s (%v), want %s", got, err, c.want)
			}
		})
	}
}

func TestResolves_DeniesWhatNoPortCanReach(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		mode  Mode
		allow string
		host  string
		want  bool
	}{
		{Closed, "", "api.example.com", false},
		{Anything, "", "api.example.com", true},
		{Anything, "", "0x7f.1", false},
		{Anything, "", "127.0.0.1", false},
		{AllowList, "", "api.example.com", false},
		{AllowList, "api.example.com:443", "API.example.com.", true},
		{AllowList, "api.example.com:443", "leak.attacker.example", false},
		{AllowList, "*.example.com:443", "a.b.example.com", true},
		{AllowList, "*.example.com:443", "example.com", false},
		{AllowList, "10.0.0.0/8:5432", "anything.corp", true},
		{AllowList, "10.1.2.3:5432", "leak.attacker.example", false},
	} {
		var allow []string
		if c.allow != "" {
			allow = []string{c.allow}
		}
		p := policy(t, c.mode, allow...)
		e := New(Options{Policy: func(string) Policy { return p }})
		if got := e.Resolves(sandbox.Destination{Host: c.host}); got != c.want {
			t.Errorf("%v %q: %s: %v", c.mode, c.allow, c.host, got)
		}
	}
}

func TestDial_ResolvesOnceAndDialsWhatItChecked(t *testing.T) {
	t.Parallel()
	answers := []string{"198.51.100.1", "127.0.0.1"}
	n := &network{}
	e := New(Options{Policy: func(string) Policy { return policy(t, Anything) }, Dial: n.dial, Resolve: func(context.Context, string) ([]netip.Addr, error) {
		a := netip.MustParseAddr(answers[0])
		answers = answers[1:]
		return []netip.Addr{a}, nil
	}})
	c, err := e.Dial(t.Context(), sandbox.Destination{Host: "rebind.example", Port: 80})
	if err != nil || len(answers) != 1 || n.mu.dialled[0] != "198.51.100.1:80" {
		t.Fatal(err, answers, n.mu.dialled)
	}
	c.Close()
	if _, err := e.Dial(t.Context(), sandbox.Destination{Host: "rebind.example", Port: 80}); errs.CodeOf(err) != errs.Forbidden {
		t.Errorf("the second answer: %v", err)
	}
}

func TestDial_SaysWhatToSet(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		mode         Mode
		host         string
		wants, hints string
	}{
		{AllowList, "api.example.com", "connection to api.example.com:443 is not allowed", `add "api.example.com:443" to the allow-list of egress for app/fn`},
		{Closed, "2001:db8::1", "connection to [2001:db8::1]:443 is not allowed", `egress is closed for app/fn; open it with "[2001:db8::1]:443" in its allow-list`},
		{Anything, "metadata.example.com", "connection to metadata.example.com:443 is not allowed: 169.254.169.254 is a link-local address, where clouds keep their metadata",
			`allow it with egress anything,metadata.example.com:443`},
		{Anything, "0x7f.1", "connection to 0x7f.1:443: write an address in its usual form, as 192.0.2.7 or 2001:db8::7", ""},
	} {
		e := New(Options{Policy: func(string) Policy { return policy(t, c.mode) }, Resolve: resolve})
		_, err := e.Dial(t.Context(), sandbox.Destination{Owner: "app/fn", Host: c.host, Port: 443})
		if err == nil || err.Error() != c.wants || errs.HintOf(err) != c.hints {
			t.Errorf("got %v (%s), want %s (%s)", err, errs.HintOf(err), c.wants, c.hints)
		}
	}
}

func TestDial_CarriesAndCounts(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		b, _ := io.ReadAll(c)
		fmt.Fprintf(c, "%s, heard", b)
		c.Close()
	}()
	at := netip.MustParseAddrPort(l.Addr().String())
	e := New(Options{Policy: func(owner string) Policy {
		if owner == "app/fn" {
			return policy(t, Anything, at.String())
		}
		return policy(t, Anything)
	}})
	d := sandbox.Destination{Owner: "app/fn", Host: "127.0.0.1", Port: at.Port()}
	c, err := e.Dial(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "hello")
	c.(interface{ CloseWrite() error }).CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != "hello, heard" {
		t.Errorf("%q, %v", b, err)
	}
	c.Close()
	l.Close()
	if _, err := e.Dial(t.Context(), d); errs.CodeOf(err) != errs.Unavailable {
		t.Errorf("nobody listens: %v", err)
	}
	d.Owner = "app/other"
	if _, err := e.Dial(t.Context(), d); errs.CodeOf(err) != errs.Forbidden {
		t.Errorf("of another owner: %v", err)
	}
	want := []Usage{
		{Owner: "app/fn", Destination: at.String(), Connections: 1, Failures: 1, Sent: 5, Received: 12},
		{Owner: "app/other", Destination: at.String(), Refusals: 1},
	}
	if got := e.Usage(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	e.Forget("app/fn")
	if got := e.Usage(); len(got) != 1 {
		t.Errorf("after Forget: %+v", got)
	}
}

func TestUsage_BoundsItsDestinations(t *testing.T) {
	t.Parallel()
	e := New(Options{Policy: func(string) Policy { return Policy{} }})
	for i := range 1000 {
		e.Dial(t.Context(), sandbox.Destination{Owner: "o", Host: fmt.Sprintf("h%d.example", i), Port: 80})
	}
	all := e.Usage()
	if len(all) != pagesOfOwner+1 || all[len(all)-1].Destination != Others || all[len(all)-1].Refusals != 1000-pagesOfOwner {
		t.Errorf("%d destinations, the last %+v", len(all), all[len(all)-1])
	}
}

func TestRefusals_AreLoggedAtABoundedRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		e := New(Options{Policy: func(string) Policy { return Policy{} }, Log: slog.New(slog.NewTextHandler(&out, nil))})
		for range 100 {
			e.Dial(t.Context(), sandbox.Destination{Owner: "o", Host: "h.example", Port: 80})
		}
		if n := strings.Count(out.String(), "\n"); n != linesOfOwner {
			t.Errorf("%d lines", n)
		}
		e.Dial(t.Context(), sandbox.Destination{Owner: "other", Host: "h.example", Port: 80})
		if !strings.Contains(out.String(), "owner=other") {
			t.Error("one owner silences another")
		}
		time.Sleep(window)
		e.Dial(t.Context(), sandbox.Destination{Owner: "o", Host: "h.example", Port: 80})
		if !strings.Contains(out.String(), "unlogged=90") {
			t.Errorf("logged: %s", out.String())
		}
	})
}

// slow is a network whose addresses answer after a time, or never.
func slow(times map[string]time.Duration, tried *[]string) func(context.Context, netip.AddrPort) (net.Conn, error) {
	var mu sync.Mutex
	return func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
		mu.Lock()
		*tried = append(*tried, to.Addr().String())
		mu.Unlock()
		d, ok := times[to.Addr().String()]
		if !ok {
			return nil, errors.New("refused")
		}
		select {
		case <-time.After(d):
			c, far := net.Pipe()
			far.Close()
			return c, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func TestDial_TriesAddressesInTurns(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		addrs string
		times map[string]time.Duration
		took  time.Duration
		tried string
		fails bool
	}{
		{"the first", "192.0.2.1 192.0.2.2", map[string]time.Duration{"192.0.2.1": 0}, 0, "192.0.2.1", false},
		{"one that refuses", "192.0.2.1 192.0.2.2", map[string]time.Duration{"192.0.2.2": 0}, 0, "192.0.2.1 192.0.2.2", false},
		{"one that hangs", "192.0.2.1 192.0.2.2", map[string]time.Duration{"192.0.2.1": time.Hour, "192.0.2.2": 0}, fallback, "192.0.2.1 192.0.2.2", false},
		{"families", "2001:db8::1 2001:db8::2 192.0.2.1", map[string]time.Duration{"2001:db8::1": time.Hour, "192.0.2.1": time.Second}, fallback + time.Second, "2001:db8::1 192.0.2.1 2001:db8::2", false},
		{"all refuse", "192.0.2.1 192.0.2.2", nil, 0, "192.0.2.1 192.0.2.2", true},
		{"all hang", "192.0.2.1 192.0.2.2", map[string]time.Duration{"192.0.2.1": time.Hour, "192.0.2.2": time.Hour}, 5 * time.Second, "192.0.2.1 192.0.2.2", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var tried []string
				e := New(Options{Timeout: 5 * time.Second, Policy: func(string) Policy { return policy(t, Anything) }, Dial: slow(c.times, &tried), Resolve: func(context.Context, string) ([]netip.Addr, error) {
					var all []netip.Addr
					for _, s := range strings.Fields(c.addrs) {
						all = append(all, netip.MustParseAddr(s))
					}
					return all, nil
				}})
				begin := time.Now()
				conn, err := e.Dial(t.Context(), sandbox.Destination{Host: "h.example", Port: 80})
				if took := time.Since(begin); took != c.took {
					t.Errorf("took %v", took)
				}
				if (err != nil) != c.fails || c.fails && errs.CodeOf(err) != errs.Unavailable {
					t.Errorf("got %v", err)
				}
				if got := strings.Join(tried, " "); got != c.tried {
					t.Errorf("tried %s", got)
				}
				if conn != nil {
					conn.Close()
				}
			})
		})
	}
}

func TestDial_EndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var tried []string
		e := New(Options{Policy: func(string) Policy { return policy(t, Anything) }, Dial: slow(map[string]time.Duration{"192.0.2.1": time.Hour}, &tried)})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		cancel()
		if _, err := e.Dial(ctx, sandbox.Destination{Host: "192.0.2.1", Port: 80}); errs.CodeOf(err) != errs.Canceled {
			t.Errorf("got %v", err)
		}
	})
}

func TestDial_LooksNoNameUpInVain(t *testing.T) {
	t.Parallel()
	p := policy(t, AllowList, "api.example.com:443", "10.0.0.0/8:5432", "192.0.2.7:80")
	e := New(Options{Policy: func(string) Policy { return p }, Resolve: func(_ context.Context, name string) ([]netip.Addr, error) {
		t.Errorf("%s was looked up", name) // whoever serves the domain reads what the guest wrote into the name
		return nil, nil
	}})
	for _, port := range []uint16{80, 443, 5433} {
		if _, err := e.Dial(t.Context(), sandbox.Destination{Host: "secret.attacker.example", Port: port}); errs.CodeOf(err) != errs.Forbidden {
			t.Errorf("got %v", err)
		}
	}
}
