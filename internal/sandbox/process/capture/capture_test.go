package capture

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/sandbox"
)

// anything is an Egress that connects everything to one place.
type anything struct {
	dial func(context.Context) (net.Conn, error)
}

func (a anything) Dial(ctx context.Context, _ sandbox.Destination) (net.Conn, error) {
	return a.dial(ctx)
}
func (anything) Resolves(sandbox.Destination) bool { return true }

func (anything) Missing(context.Context, sandbox.Destination) bool { return false }

// serve opens a Net with one declared socket on the test's own loopback, and returns where it is.
func serve(t *testing.T, o Options) (*Net, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	l.Close()
	o.Sockets = append(o.Sockets, Socket{Role: Declared, Addr: netip.MustParseAddrPort(at), Host: "far.example"})
	o.Files = append(o.Files, f)
	n, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n, at
}

func dial(t *testing.T, at string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// pair is a listener's two ends.
func pair(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near = dial(t, l.Addr().String())
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return near, c.(*net.TCPConn)
}

func TestRelay_PassesOnEachEnd(t *testing.T) {
	t.Parallel()
	near, far := pair(t)
	n, at := serve(t, Options{Egress: anything{func(context.Context) (net.Conn, error) { return near, nil }}})
	guest := dial(t, at)
	io.WriteString(guest, "question")
	guest.CloseWrite()
	if b, err := io.ReadAll(far); err != nil || string(b) != "question" {
		t.Fatalf("the far side read %q, %v", b, err)
	}
	io.WriteString(far, "answer, after the end of the question")
	far.Close()
	if b, err := io.ReadAll(guest); err != nil || string(b) != "answer, after the end of the question" {
		t.Fatalf("the guest read %q, %v", b, err)
	}
	n.Close()
	if s := n.Stats(); s.Sent != 8 || s.Received != 37 || s.Open != 0 || len(n.mu.far) != 0 {
		t.Errorf("stats are %+v, and %d far sides are kept", s, len(n.mu.far))
	}
}

func TestRelay_PassesOnAReset(t *testing.T) {
	t.Parallel()
	for _, from := range []string{"far", "guest"} {
		t.Run(from, func(t *testing.T) {
			t.Parallel()
			near, far := pair(t)
			_, at := serve(t, Options{Egress: anything{func(context.Context) (net.Conn, error) { return near, nil }}})
			guest := dial(t, at)
			io.WriteString(guest, "x")
			io.ReadFull(far, make([]byte, 1))
			broken, other := far, guest
			if from == "guest" {
				broken, other = guest, far
			}
			broken.SetLinger(0)
			broken.Close()
			if b, err := io.ReadAll(other); err == nil {
				t.Errorf("the other side read %q and a clean end", b)
			}
		})
	}
}

func TestRelay_EndsWhatCannotBeHalfClosed(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	_, at := serve(t, Options{Egress: anything{func(context.Context) (net.Conn, error) { return near, nil }}})
	guest := dial(t, at)
	guest.CloseWrite()
	if b, err := io.ReadAll(far); err != nil || len(b) != 0 {
		t.Errorf("the far side read %q, %v", b, err)
	}
	io.ReadAll(guest) // ends
}

func TestNet_BoundsItsConnections(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	var lock sync.Mutex
	log := slog.New(slog.NewTextHandler(writer(func(b []byte) { lock.Lock(); out.Write(b); lock.Unlock() }), nil))
	n, at := serve(t, Options{Connections: 2, Log: log, Egress: anything{func(ctx context.Context) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}})
	dial(t, at)
	dial(t, at)
	for range 5 {
		c, err := net.Dial("tcp", at)
		if err == nil {
			_, err = c.Read(make([]byte, 1))
			c.Close()
		}
		if err == nil || errors.Is(err, io.EOF) { // the reset may already show in the dial
			t.Errorf("a connection too many: %v", err)
		}
	}
	if s := n.Stats(); s.Open != 2 || s.Refused != 5 {
		t.Errorf("stats are %+v", s)
	}
	n.Close()
	lock.Lock()
	defer lock.Unlock()
	if strings.Count(out.String(), "too many connections") != 1 {
		t.Errorf("logged: %s", out.String())
	}
}

func TestNet_SharesABudget(t *testing.T) {
	t.Parallel()
	budget := NewBudget(3)
	up := make(chan struct{}, 10)
	wait := anything{func(ctx context.Context) (net.Conn, error) {
		up <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	one, at1 := serve(t, Options{Budget: budget, Egress: wait})
	two, at2 := serve(t, Options{Budget: budget, Egress: wait})
	refused := func(at string) bool {
		c, err := net.Dial("tcp", at)
		if err == nil {
			defer c.Close()
			_, err = c.Read(make([]byte, 1))
		}
		return err != nil && !errors.Is(err, io.EOF)
	}
	for _, at := range []string{at1, at1, at2} {
		dial(t, at)
		<-up
	}
	if !refused(at1) || !refused(at2) {
		t.Error("a connection over the budget is not refused")
	}
	one.Close()
	for range 2 {
		dial(t, at2)
		<-up
	}
	if !refused(at2) {
		t.Error("a connection over the budget is not refused after some were given back")
	}
	two.Close()
	if left := budget.left.Load(); left != 3 {
		t.Errorf("%d of 3 are left in the end", left)
	}
}

type writer func([]byte)

func (w writer) Write(b []byte) (int, error) { w(b); return len(b), nil }

func TestNet_CloseEndsEverything(t *testing.T) {
	before := runtime.NumGoroutine()
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := packets.(*net.UDPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	packets.Close()
	entered := make(chan struct{}, 100)
	var first sync.Once
	n, at := serve(t, Options{
		Sockets: []Socket{{Role: DNSPackets, Addr: netip.MustParseAddrPort(packets.LocalAddr().String())}}, Files: []*os.File{f},
		Egress: anything{func(ctx context.Context) (c net.Conn, err error) {
			first.Do(func() { c, _ = net.Dial("tcp", silent(t)) }) // one has a far side that never ends
			entered <- struct{}{}
			if c != nil {
				return c, nil
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}},
	})
	for range 20 {
		dial(t, at)
		<-entered
	}
	n.Close()
	n.Close()
	// What is left are the test's own: a goroutine of the far side's listener.
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before+1 && time.Now().Before(end); {
		runtime.Gosched()
	}
	if after := runtime.NumGoroutine(); after > before+1 {
		b := make([]byte, 1<<16)
		t.Errorf("%d goroutines before, %d after:\n%s", before, after, b[:runtime.Stack(b, true)])
	}
	if _, err := net.Dial("tcp", at); err == nil {
		t.Error("the socket still listens")
	}
}

func TestNet_CloseEndsWhatTheGuestHasHalfClosed(t *testing.T) {
	t.Parallel()
	near, far := pair(t)
	n, at := serve(t, Options{Egress: anything{func(context.Context) (net.Conn, error) { return near, nil }}})
	guest := dial(t, at)
	guest.CloseWrite()
	if _, err := io.ReadAll(far); err != nil {
		t.Fatal(err)
	}
	n.Close() // returns, although the far side says nothing and does not end
}

// silent is a listener that holds connections open.
func silent(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Error(err)
		return ""
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			if _, err := l.Accept(); err != nil {
				return
			}
		}
	}()
	return l.Addr().String()
}

func TestOpen_ClosesEveryFileWhenOneIsNoSocket(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := Open(Options{Egress: book{}, Sockets: make([]Socket, 2), Files: []*os.File{r, nil}}); err == nil {
		t.Error("a pipe was taken for a socket")
	}
	if _, err := r.Stat(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the file is still there: %v", err)
	}
}

func TestPlan_ListsWhatHasToBeMade(t *testing.T) {
	t.Parallel()
	d := []Destination{{"B.example.", 443}, {"a.example", 443}, {"b.example", 80}, {"b.example", 443}, {"localhost", 5432}, {"::1", 5433}, {"198.51.100.7", 22},
		{"2001:db8::1", 22}, {"", 8080}, {"a.example", 8080}, {"a.example", 53}, {"a b", 443}, {"a.example", 0}}
	for name, c := range map[string]struct {
		ipv6, redirect bool
		want           string
	}{
		"redirect":       {true, true, "[::]:53 [::]:53 [::]:1 refusals localhost@127.0.0.1:5432 ::1@[::1]:5433"},
		"IPv4":           {false, true, "0.0.0.0:53 0.0.0.0:53 0.0.0.0:1 refusals localhost@127.0.0.1:5432 ::1@[::1]:5433"},
		"no redirect":    {true, false, "[::]:53 [::]:53 b.example@198.18.0.1:443 a.example@198.18.0.2:443 b.example@198.18.0.1:80 localhost@127.0.0.1:5432 ::1@[::1]:5433 198.51.100.7@198.51.100.7:22 0.0.0.0:8080"},
		"no redirect, 4": {false, false, "0.0.0.0:53 0.0.0.0:53 b.example@198.18.0.1:443 a.example@198.18.0.2:443 b.example@198.18.0.1:80 localhost@127.0.0.1:5432 ::1@[::1]:5433 198.51.100.7@198.51.100.7:22 0.0.0.0:8080"},
	} {
		var got []string
		for _, s := range Plan(c.ipv6, c.redirect, d) {
			text := s.Addr.String()
			switch {
			case s.Role == Refusals:
				text = "refusals"
			case s.Host != "":
				text = s.Host + "@" + text
			}
			got = append(got, text)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v, want %s", name, got, c.want)
		}
	}
}

func TestNames_HaveTheSamePlaceInBothRanges(t *testing.T) {
	t.Parallel()
	n := newNames(maxNames)
	for range 3 {
		for _, name := range []string{"b", "a", "c"} {
			i, _ := n.index(name)
			for _, a := range []netip.Addr{place4(i), place6(i), netip.AddrFrom16(place4(i).As16())} {
				if got, ok := n.name(a); !ok || got != name {
					t.Errorf("%s is %s's", a, got)
				}
			}
		}
	}
	if !slices.Equal(n.mu.list, []string{"b", "a", "c"}) {
		t.Errorf("order is %v", n.mu.list)
	}
	for _, a := range []string{"198.18.0.0", "198.18.0.4", "198.17.255.255", "198.20.0.1", "fd65:6262::", "fd65:6262::1:1", "fd65:6262:0:1::1", "fd65:6262::ffff:ffff"} {
		if got, ok := n.name(netip.MustParseAddr(a)); ok {
			t.Errorf("%s is %s's", a, got)
		}
	}
	if last := place4(maxNames); last.String() != "198.19.255.254" {
		t.Errorf("the last place is %s", last)
	}
}
