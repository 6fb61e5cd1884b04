package capture

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-run/ebb/internal/egress"
	"github.com/ebb-run/ebb/internal/sandbox"
)

// guests are what the test binary does inside of a namespace.
var guests = map[string]func([]string) error{
	"talk":  talk,
	"flood": flood,
	"own":   own,
	"dns":   resolverGuest,
	"bulk":  bulk,

	"port":      onePort,
	"netlink":   netlinkGuest,
	"untracked": untracked,
	"packets":   packets,
	"scan":      scan,
}

// talk dials each of its arguments, says hello, ends its side, and prints what it hears.
func talk(to []string) error {
	for _, a := range to {
		b, err := converse(a, "hello")
		if err != nil {
			b = short(err)
		}
		fmt.Printf("%s: %s\n", a, b)
	}
	return nil
}

// converse sends a line and returns all that comes back. A reset may show in any of its steps.
func converse(to, line string) (string, error) {
	c, err := net.DialTimeout("tcp", to, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, line); err != nil {
		return "", err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	return string(b), err
}

func short(err error) string {
	var code syscall.Errno
	var missing *net.DNSError
	switch {
	case errors.As(err, &code):
		if code == unix.ECONNRESET || code == unix.EPIPE || code == unix.ENOTCONN {
			return "reset"
		}
		return unix.ErrnoName(code)
	case errors.As(err, &missing) && missing.IsNotFound:
		return "no such host"
	}
	return err.Error()
}

// flood dials an address as often as it is told, one connection after the other, and wants the same each time.
func flood(args []string) error {
	times, _ := strconv.Atoi(args[1])
	for range times {
		got, err := converse(args[0], "x")
		if err != nil {
			got = short(err)
		}
		if got != args[2] {
			return fmt.Errorf("got %q", got)
		}
	}
	return nil
}

// bulk sends much and expects as much back.
func bulk(args []string) error {
	c, err := net.Dial("tcp", args[0])
	if err != nil {
		return err
	}
	const size = 32 << 20
	go func() {
		b := make([]byte, 1<<20)
		for range size >> 20 {
			c.Write(b)
		}
		c.(*net.TCPConn).CloseWrite()
	}()
	n, err := io.Copy(io.Discard, c)
	if n != size+4 {
		return fmt.Errorf("%d bytes came back: %w", n, err)
	}
	return nil
}

// onePort holds connections to several places at once that all come from the same port.
func onePort(to []string) error {
	d := net.Dialer{LocalAddr: &net.TCPAddr{Port: 40000}, Timeout: 5 * time.Second, Control: func(_, _ string, c syscall.RawConn) (err error) {
		e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
		return errors.Join(err, e)
	}}
	var all []net.Conn
	for _, a := range to {
		c, err := d.Dial("tcp", a)
		if err != nil {
			return err
		}
		defer c.Close()
		all = append(all, c)
	}
	for i, c := range all {
		c.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(c, "to %s", to[i])
		c.(*net.TCPConn).CloseWrite()
	}
	for _, c := range all {
		b, err := io.ReadAll(c)
		if err != nil {
			return err
		}
		fmt.Println(string(b))
	}
	return nil
}

// netlinkGuest shows what kernels that cannot redirect say.
func netlinkGuest([]string) error {
	change := func(name, from, to string) Message {
		m := RedirectMessage()
		text := strings.Replace(string(m.Bytes), from, to, 1)
		if from != "" {
			text = strings.ReplaceAll(text, "ebb\x00", "abb\x00") // another table
		}
		m.Name, m.Bytes = name, []byte(text)
		return m
	}
	const attr = "\x08\x00\x07\x00nat\x00" // a chain's type
	var none [2]unix.CapUserData
	for _, m := range []Message{
		change("the same again", "", ""),
		change("no redir", "redir\x00", "reder\x00"),
		change("no nat", attr, strings.Replace(attr, "nat", "nit", 1)),
		change("no nf_tables", "\x00\x00\x00\x0a", "\x00\x00\x00\x0c"),
		{Name: "no capability"},
	} {
		if m.Bytes == nil {
			m = change(m.Name, "", "")
			if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0]); err != nil {
				return err
			}
		}
		fmt.Println(send(m))
	}
	return nil
}

// untracked uses its loopback and sends packets to nowhere, and prints how many connections the kernel remembers.
func untracked([]string) error {
	if err := own(nil); err != nil {
		return err
	}
	for i := range 500 {
		for _, to := range []string{"127.0.0.1:%d", "198.51.100.7:%d", "[::1]:%d", "[2001:db8::7]:%d"} {
			c, err := net.Dial("udp", fmt.Sprintf(to, 2000+i))
			if err != nil {
				return err
			}
			c.Write([]byte("x"))
			c.Close()
		}
	}
	b, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
	fmt.Print(string(b))
	return err
}

// own serves on its own loopback, on every kind of it, and dials that.
func own([]string) error {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "127.0.0.7:0", "localhost:0"} {
		l, err := net.Listen("tcp", at)
		if err != nil {
			return err
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				io.WriteString(c, "own")
				c.Close()
			}
		}()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return err
		}
		b, err := io.ReadAll(c)
		if err != nil || string(b) != "own" {
			return fmt.Errorf("%s: %q, %w", at, b, err)
		}
		l.Close()
	}
	return nil
}

// resolverGuest asks a hard-coded server for names, over the network it is told.
func resolverGuest(args []string) error {
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, args[0], args[1])
	}}
	for _, name := range args[2:] {
		a, err := r.LookupHost(context.Background(), name)
		if err != nil {
			fmt.Println(name, short(err))
			continue
		}
		fmt.Println(name, strings.Join(a, " "))
	}
	return nil
}

// as runs a part of the test binary as the guest.
func as(t *testing.T, s setup, w sandbox.Egress, guest string, args ...string) *namespace {
	t.Helper()
	t.Setenv(guestVar, guest)
	return enter(t, s, w, append([]string{"/proc/self/exe"}, args...)...)
}

func both(t *testing.T, f func(t *testing.T, rootless bool)) {
	t.Run("as the test's user", func(t *testing.T) { f(t, false) })
	if os.Getuid() == 0 {
		t.Run("rootless", func(t *testing.T) { f(t, true) })
	}
}

func wantLines(t *testing.T, got string, want ...string) {
	t.Helper()
	var lines []string
	for s := bufio.NewScanner(strings.NewReader(got)); s.Scan(); {
		lines = append(lines, s.Text())
	}
	if strings.Join(lines, "\n") != strings.Join(want, "\n") {
		t.Errorf("the guest said\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}

func TestNet_BringsEveryConnectionToEgress(t *testing.T) {
	both(t, func(t *testing.T, rootless bool) {
		far := echo(t, "far")
		w := &world{closed: []string{"hidden.example"}, places: map[string]string{
			"api.example.com:443": far, "198.51.100.7:8443": far, "2001:db8::7:8080": far, "[2001:db8::7]:8080": far,
			"api.example.com:1": far, "mixed.example:80": far, "169.254.169.254:22": far,
		}}
		n := as(t, setup{rootless: rootless}, w, "talk", "api.example.com:443", "198.51.100.7:8443", "[2001:db8::7]:8080", "api.example.com:1",
			"MIXED.Example.:80", "169.254.169.254:80", "api.example.com:444", "hidden.example:443", "198.18.9.9:80", "127.0.0.1:1", "[::1]:1", "127.0.0.1:9", "[::ffff:198.51.100.7]:8443")
		out, ok := n.run(t)
		if !ok {
			t.Fatal(out)
		}
		wantLines(t, out, "api.example.com:443: far hello", "198.51.100.7:8443: far hello", "[2001:db8::7]:8080: far hello", "api.example.com:1: far hello",
			"MIXED.Example.:80: far hello", "169.254.169.254:80: reset", "api.example.com:444: reset", "hidden.example:443: no such host",
			"198.18.9.9:80: reset", "127.0.0.1:1: reset", "[::1]:1: reset", "127.0.0.1:9: ECONNREFUSED",
			"[::ffff:198.51.100.7]:8443: far hello")
		if !w.wasAsked("mixed.example", 80) || !w.wasAsked("169.254.169.254", 80) {
			t.Errorf("asked for %v", w.asked())
		}
		for _, d := range w.asked() {
			if d.Host == "" || d.Host == "127.0.0.1" || d.Host == "::1" || strings.HasPrefix(d.Host, "198.18.") {
				t.Errorf("Egress was asked for %v", d)
			}
		}
		n.net.Close()
		s := n.net.Stats()
		if s.Refused < 5 || s.Open != 0 || s.Sent != 6*5 || s.Received != 6*9 || s.Names != 2 {
			t.Errorf("stats are %+v", s)
		}
	})
}

func TestNet_LeavesTheGuestsOwnServersAlone(t *testing.T) {
	both(t, func(t *testing.T, rootless bool) {
		w := &world{}
		out, ok := as(t, setup{rootless: rootless}, w, "own").run(t)
		if !ok || len(w.asked()) != 0 {
			t.Errorf("%s, and Egress was asked for %v", out, w.asked())
		}
	})
	t.Run("on a kernel that tracks everything", func(t *testing.T) {
		t.Setenv(trackedVar, "1")
		w := &world{places: map[string]string{"198.51.100.7:80": echo(t, "far")}}
		if out, ok := as(t, setup{}, w, "own").run(t); !ok || len(w.asked()) != 0 {
			t.Errorf("%s, and Egress was asked for %v", out, w.asked())
		}
		out, _ := as(t, setup{}, w, "talk", "198.51.100.7:80", "127.0.0.1:1").run(t)
		wantLines(t, out, "198.51.100.7:80: far hello", "127.0.0.1:1: reset")
	})
}

func TestNet_AnswersForEveryResolver(t *testing.T) {
	for _, c := range []struct{ network, server string }{
		{"udp", "8.8.8.8:53"}, {"udp", "[2001:4860:4860::8888]:53"}, {"tcp", "8.8.8.8:53"}, {"tcp", "[2001:4860:4860::8888]:53"},
		{"udp", "127.0.0.53:53"}, {"udp", "127.0.0.1:53"}, {"tcp", "127.0.0.1:53"}, {"udp", "[::1]:53"},
	} {
		t.Run(c.network+" "+c.server, func(t *testing.T) {
			w := &world{closed: []string{"no.example"}}
			out, ok := as(t, setup{}, w, "dns", c.network, c.server, "a.example.", "b.example.", "A.Example.", "no.example.").run(t)
			if !ok {
				t.Fatal(out)
			}
			wantLines(t, out, "a.example. 198.18.0.1 fd65:6262::1", "b.example. 198.18.0.2 fd65:6262::2", "A.Example. 198.18.0.1 fd65:6262::1", "no.example. no such host")
			if len(w.asked()) != 0 {
				t.Errorf("a question became a connection: %v", w.asked())
			}
		})
	}
}

func TestNet_ServesDeclaredDestinationsWithoutARedirect(t *testing.T) {
	both(t, func(t *testing.T, rootless bool) {
		far := echo(t, "far")
		w := &world{places: map[string]string{"db.example:5432": far, "api.example:443": far, "198.51.100.7:8443": far, "localhost:6379": far, "198.51.100.9:80": far, "any.example:80": far}}
		s := setup{rootless: rootless, ports: true, declared: []Destination{{"DB.example.", 5432}, {"api.example", 443}, {"198.51.100.7", 8443}, {"localhost", 6379}, {"", 80}, {"skipped.example", 80}}}
		out, ok := as(t, s, w, "talk", "api.example:443", "db.example:5432", "198.51.100.7:8443", "localhost:6379", "198.51.100.9:80", "any.example:80", "127.0.0.1:80", "db.example:5433", "other.example:443").run(t)
		if !ok {
			t.Fatal(out)
		}
		wantLines(t, out, "api.example:443: far hello", "db.example:5432: far hello", "198.51.100.7:8443: far hello", "localhost:6379: far hello",
			"198.51.100.9:80: far hello", "any.example:80: far hello", "127.0.0.1:80: reset", "db.example:5433: ECONNREFUSED", "other.example:443: ECONNREFUSED")
	})
}

func TestNet_ReachesADeclaredServerOfTheHostOnLoopback(t *testing.T) {
	w := &world{places: map[string]string{"localhost:5432": echo(t, "far")}}
	out, _ := as(t, setup{declared: []Destination{{"localhost", 5432}, {"db.example", 5432}}}, w, "talk", "localhost:5432", "127.0.0.1:5432").run(t)
	wantLines(t, out, "localhost:5432: far hello", "127.0.0.1:5432: far hello")
}

func TestNet_ServesRealClients(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello "+r.Host) }))
	t.Cleanup(web.Close)
	at := web.Listener.Addr().String()
	for _, c := range []struct {
		name string
		argv []string
		want string
	}{
		{"curl by name", []string{"curl", "-sS", "-m", "10", "http://web.example/"}, "hello web.example"},
		{"curl by IPv6", []string{"curl", "-6", "-sS", "-m", "10", "http://web.example/"}, "hello web.example"},
		{"curl by address", []string{"curl", "-sS", "-m", "10", "http://198.51.100.7/"}, "hello 198.51.100.7"},
		{"python", []string{"python3", "-c", `import urllib.request as u; print(u.urlopen("http://web.example/", timeout=10).read().decode(), end="")`}, "hello web.example"},
		{"python, refused name", []string{"python3", "-c", "import socket\ntry: socket.getaddrinfo('hidden.example', 80)\nexcept socket.gaierror as e: print(e.errno == socket.EAI_NONAME, end='')"}, "True"},
		{"python, missing name", []string{"python3", "-c", "import socket\ntry: socket.getaddrinfo('missing.example', 80)\nexcept socket.gaierror as e: print(e.errno == socket.EAI_NONAME, end='')"}, "True"},
		{"node, missing name", []string{"node", "-e", `fetch("http://missing.example/").catch(e => process.stdout.write(e.cause.code))`}, "ENOTFOUND"},
		{"python, reverse", []string{"python3", "-c", "import socket; print(socket.gethostbyaddr(socket.gethostbyname('web.example'))[0], end='')"}, "web.example"},
		{"node", []string{"node", "-e", `fetch("http://web.example/").then(r => r.text()).then(t => process.stdout.write(t))`}, "hello web.example"},
		{"node, c-ares", []string{"node", "-e", `require("dns").promises.resolve4("web.example").then(a => process.stdout.write(a.join()))`}, "198.18.0.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(c.argv[0]); err != nil {
				t.Skipf("no %s on this machine", c.argv[0])
			}
			w := &world{closed: []string{"hidden.example"}, places: map[string]string{"web.example:80": at, "198.51.100.7:80": at}}
			out, ok := enter(t, setup{}, w, c.argv...).run(t)
			if !ok || out != c.want {
				t.Errorf("got %q, want %q", out, c.want)
			}
		})
	}
}

func TestNet_KeepsNoDescriptors(t *testing.T) {
	w := &world{places: map[string]string{"far.example:80": echo(t, "far")}}
	for _, c := range []struct {
		name, to, want string
		times          int
	}{
		{"connections", "far.example:80", "far x", 3000}, {"refusals", "198.51.100.1:80", "reset", 1000}, {"refused names", "other.example:80", "reset", 500},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := descriptors(t)
			n := as(t, setup{}, w, "flood", c.to, strconv.Itoa(c.times), c.want)
			if out, ok := n.run(t); !ok {
				t.Fatal(out)
			}
			n.net.Close()
			n.line.Close()
			if s := n.net.Stats(); s.Connections < int64(c.times) || s.Open != 0 {
				t.Errorf("stats are %+v", s)
			}
			after := descriptors(t)
			for end := time.Now().Add(10 * time.Second); after > before && time.Now().Before(end); after = descriptors(t) {
				runtime.Gosched() // the far servers end a moment after their clients
			}
			if after > before {
				t.Errorf("%d descriptors before, %d after", before, after)
			}
		})
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func TestNet_CarriesMuchBothWays(t *testing.T) {
	w := &world{places: map[string]string{"far.example:80": echo(t, "far")}}
	n := as(t, setup{}, w, "bulk", "far.example:80")
	if out, ok := n.run(t); !ok {
		t.Fatal(out)
	}
	n.net.Close()
	if s := n.net.Stats(); s.Sent != 32<<20 || s.Received != 32<<20+4 {
		t.Errorf("stats are %+v", s)
	}
}

func TestNet_TellsConnectionsFromOnePortApart(t *testing.T) {
	far := echo(t, "far")
	w := &world{places: map[string]string{"198.51.100.7:80": far, "198.51.100.8:80": far, "198.51.100.8:81": far, "a.example:80": far, "2001:db8::7:80": far, "[2001:db8::7]:80": far, "[2001:db8::8]:80": far}}
	to := []string{"198.51.100.7:80", "198.51.100.8:80", "198.51.100.8:81", "a.example:80", "[2001:db8::7]:80", "[2001:db8::8]:80"}
	out, ok := as(t, setup{}, w, "port", to...).run(t)
	if !ok {
		t.Fatal(out)
	}
	var want []string
	for _, a := range to {
		want = append(want, "far to "+a)
	}
	wantLines(t, out, want...)
}

func TestOutcome_TellsAKernelThatCannotRedirect(t *testing.T) {
	out, _ := as(t, setup{}, &world{}, "netlink").run(t)
	wantLines(t, out, "the same again: netlink: file exists", "no redir: netlink: no such file or directory", "no nat: netlink: no such file or directory",
		"no nf_tables: netlink: operation not supported", "no capability: netlink: operation not permitted")
	for _, b := range [][]byte{nil, make([]byte, 19), make([]byte, 36)} {
		if Outcome(RedirectMessage(), b) == nil {
			t.Errorf("%x was taken for a success", b)
		}
	}
}

func TestNet_HasTheKernelRememberOnlyWhatIsCaptured(t *testing.T) {
	out, ok := as(t, setup{}, &world{}, "untracked").run(t)
	if count, err := strconv.Atoi(strings.TrimSpace(out)); !ok || err != nil || count > 2 { // the look-up of "localhost" may have gone to the DNS
		t.Errorf("the kernel remembers %s", out)
	}
}

// The host's own server, on its loopback, is what a guest must not reach by any way but the one that is named.
func TestNet_KeepsGuestsFromTheHost(t *testing.T) {
	both(t, func(t *testing.T, rootless bool) {
		host := echo(t, "host")
		_, port, _ := net.SplitHostPort(host)
		number, _ := strconv.ParseUint(port, 10, 16)
		p, err := egress.NewPolicy(egress.Anything, []string{"named.example:" + port})
		if err != nil {
			t.Fatal(err)
		}
		e := egress.New(egress.Options{Policy: func(string) egress.Policy { return p }, Resolve: func(_ context.Context, name string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		}})
		var to, want []string
		for _, a := range []string{"rebind.example", "0.0.0.0", "169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "::7f00:1", "2002:7f00:1::1", "fe80::1%lo", "fd00:ec2::254"} {
			to = append(to, net.JoinHostPort(a, port))
		}
		to = append(to, net.JoinHostPort("named.example", port))
		out, ok := as(t, setup{rootless: rootless, declared: []Destination{{"localhost", uint16(number)}}}, e, "talk", to...).run(t)
		if !ok {
			t.Fatal(out)
		}
		for _, a := range to[:len(to)-1] {
			want = append(want, a+": reset")
		}
		wantLines(t, out, append(want, to[len(to)-1]+": host hello")...)
	})
}
