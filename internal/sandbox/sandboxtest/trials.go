package sandboxtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ebb-run/ebb/internal/sandbox"
)

func rowBomb(t *testing.T, c *catalogue) (broken []string) {
	const most = 60
	r := c.launch(t, c.d, sandbox.Spec{Limits: sandbox.Limits{Processes: most, MemoryBytes: 512 << 20}}, nil, "bomb")
	peak := 0
	poll(t, "the bomb has gone off, or its first process has ended", func() bool {
		peak = max(peak, len(processes(t, r.token)))
		select {
		case <-r.Done():
			return true // Go gives up when it gets no thread
		default:
			return strings.Count(r.out.String(), "lit") > 3
		}
	})
	peak = max(peak, len(processes(t, r.token)))
	r.stop(0)
	if peak > most {
		broken = append(broken, fmt.Sprintf("%d processes, the limit is %d", peak, most))
	}
	if left := processes(t, r.token); len(left) > 0 {
		broken = append(broken, fmt.Sprintf("left after Stop: %q", left))
	}
	return broken
}

func rowMemfd(t *testing.T, c *catalogue) []string {
	r := c.launch(t, c.d, sandbox.Spec{Limits: sandbox.Limits{MemoryBytes: 96 << 20, TmpBytes: 8 << 20}}, nil, "memfd", "300")
	s := r.hear()
	if s.ended {
		return s.broken
	}
	if e := r.ended(); !e.OOM {
		t.Errorf("exit %+v, want out of memory", e)
	}
	return nil
}

func rowDisk(t *testing.T, c *catalogue) []string {
	const size = 8 << 20
	_, broken := c.attack(t, sandbox.Spec{Limits: sandbox.Limits{MemoryBytes: 256 << 20, TmpBytes: size}}, "disk", fmt.Sprint(size))
	return broken
}

func rowPaths(t *testing.T, c *catalogue) []string {
	path, secret := bait(t)
	_, broken := c.attack(t, sandbox.Spec{}, "paths", path, veiled(secret))
	return broken
}

func rowLinks(t *testing.T, c *catalogue) (broken []string) {
	path, _ := bait(t)
	r, _ := c.attack(t, sandbox.Spec{}, "link", path, filepath.Dir(path))
	r.stop(0)
	if _, err := os.Stat(path); err != nil {
		broken = append(broken, fmt.Sprintf("the host removed what a link led to: %v", err))
	}
	return broken
}

func rowSystem(t *testing.T, c *catalogue) []string {
	code := t.TempDir()
	for _, name := range []string{"index.js", "bootstrap"} {
		// Of everybody, writable for everybody: what protects it is the mount.
		if err := os.WriteFile(filepath.Join(code, name), []byte("x"), 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(code, name), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(code, 0o777); err != nil {
		t.Fatal(err)
	}
	r := c.prepare(t, c.d, sandbox.Spec{})
	g := Guest(r.token, "attack", "system", "/var/task/index.js", "/var/task/bootstrap", "/opt/index.js")
	g.Mounts = append(g.Mounts, sandbox.Mount{Source: code, Target: "/var/task"}, sandbox.Mount{Source: code, Target: "/opt"})
	var err error
	if r.conn, err = r.Start(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	broken := r.report().broken
	left, err := os.ReadDir(code)
	if err != nil || len(left) != 2 {
		broken = append(broken, fmt.Sprintf("changed the folder of the code to %v", left))
	}
	return broken
}

func rowMountinfo(t *testing.T, c *catalogue) []string {
	other := t.TempDir()
	r := c.prepare(t, c.d, sandbox.Spec{})
	g := Guest(r.token, "sleep")
	g.Mounts = append(g.Mounts, sandbox.Mount{Source: other, Target: "/var/task"})
	if _, err := r.Start(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	a, broken := c.attack(t, sandbox.Spec{}, "mountinfo", veiled(other))
	a.Flush()
	t.Logf("what a guest sees:\n%s", a.out)
	return broken
}

func rowSignals(t *testing.T, c *catalogue) []string {
	neighbour := c.start(t, c.d, sandbox.Spec{}, "line")
	neighbour.ask(1)
	r, broken := c.attack(t, sandbox.Spec{}, "signals")
	neighbour.ask(1)
	r.stop(0)
	return broken
}

func rowPrivileges(t *testing.T, c *catalogue) []string {
	var args []string
	if c.o.Walled {
		args = append(args, "unbounded")
	}
	return single("privileges", args...)(t, c)
}

func rowTables(t *testing.T, c *catalogue) []string {
	limits := sandbox.Limits{MemoryBytes: 512 << 20, Processes: 200}
	filler, _ := c.attack(t, sandbox.Spec{Limits: limits}, "fill", "3")
	for _, tr := range []sandbox.Transport{sandbox.Listen, sandbox.Dial} { // descriptors are passed for these
		r := c.prepare(t, c.d, sandbox.Spec{Transport: tr})
		r.start("sleep")
	}
	_, broken := c.attack(t, sandbox.Spec{}, "needs")
	select {
	case <-filler.Done():
		t.Errorf("the guest that filled the tables has ended: %v; output:\n%s", filler.Exit(), tail(filler.out.String()))
	default:
	}
	filler.stop(0)
	return broken
}

func rowNeighbour(t *testing.T, c *catalogue) []string {
	canary := "canary-" + rand.Text()
	victim := c.launch(t, c.d, sandbox.Spec{}, []string{"CANARY=" + canary}, "victim", veiled(canary))
	s := victim.report()
	_, broken := c.attack(t, sandbox.Spec{}, "neighbour", veiled(canary), s.notes["home"], s.notes["port"])
	return broken
}

func rowPredecessor(t *testing.T, c *catalogue) []string {
	canary := "canary-" + rand.Text()
	d := c.driver(t) // of its own, where no other Sandbox comes between
	victim := c.launch(t, d, sandbox.Spec{}, []string{"CANARY=" + canary}, "victim", veiled(canary))
	s := victim.report()
	victim.stop(0)
	if c.o.Again != nil { // the worst case: for the kernel this is who left it
		c.o.Again(d)
	}
	r := c.launch(t, d, sandbox.Spec{}, nil, "neighbour", veiled(canary), s.notes["home"], s.notes["port"])
	return r.report().broken
}

// world is a network for guests, in which everything public answers, and what is dialled is noted.
type world struct {
	asked  atomic.Int64
	mu     sync.Mutex
	dialed []netip.AddrPort
	answer func(name string, nth int64) []netip.Addr
}

func (w *world) resolve(_ context.Context, name string) ([]netip.Addr, error) {
	return w.answer(strings.TrimSuffix(name, "."), w.asked.Add(1)), nil
}

func (w *world) dial(_ context.Context, to netip.AddrPort) (net.Conn, error) {
	w.mu.Lock()
	w.dialed = append(w.dialed, to)
	w.mu.Unlock()
	ours, theirs := net.Pipe()
	go func() {
		_, _ = io.ReadAtLeast(theirs, make([]byte, 64), 1)
		_, _ = io.WriteString(theirs, "hello from "+to.String())
		_ = theirs.Close()
	}()
	return ours, nil
}

// outside lists what was dialled that is not one of the public addresses.
func (w *world) outside(public ...string) (all []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range w.dialed {
		if !slices.Contains(public, d.Addr().String()) {
			all = append(all, "the host dialled "+d.String())
		}
	}
	return all
}

// connected is a driver whose guests are in a world.
func (c *catalogue) connected(t *testing.T, w *world) sandbox.Driver {
	t.Helper()
	d, err := c.o.Connected(t.TempDir(), c.o.Egress(w.resolve, w.dial))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

const (
	public   = "192.0.2.1" // TEST-NET-1: RFC 5737
	metadata = "169.254.169.254"
)

func rowForbidden(t *testing.T, c *catalogue) []string {
	w := &world{answer: func(name string, _ int64) []netip.Addr {
		return map[string][]netip.Addr{
			"loop.example":     {netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")},
			"metadata.example": {netip.MustParseAddr(metadata)},
			"mapped.example":   {netip.MustParseAddr("::ffff:127.0.0.1"), netip.MustParseAddr("64:ff9b::a9fe:a9fe")},
			"public.example":   {netip.MustParseAddr(public)},
			// As the real ones answer.
			"metadata.google.internal": {netip.MustParseAddr(metadata)}, "localhost": {netip.MustParseAddr("127.0.0.1")},
		}[name]
	}}
	d := c.connected(t, w)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var accepted atomic.Int64
	go greet(l, &accepted)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	var at []string
	for _, host := range []string{
		"127.0.0.1", "127.0.0.2", "127.1.2.3", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "localhost", "loop.example", "mapped.example",
		metadata, "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "fd00:ec2::254", "fd20:ce::254", "fe80::1", "169.254.170.2",
		"100.100.100.200", "168.63.129.16", "192.0.0.192", "metadata.example", "metadata.google.internal", "255.255.255.255", "224.0.0.1",
	} {
		at = append(at, net.JoinHostPort(host, port))
	}
	broken := c.launch(t, d, sandbox.Spec{Owner: "f"}, nil, "network", at...).report().broken
	broken = append(broken, w.outside()...)
	if n := accepted.Load(); n > 0 {
		broken = append(broken, fmt.Sprintf("the host's loopback was connected to %d times", n))
	}
	// What is allowed works, or else the row says nothing.
	if s := c.launch(t, d, sandbox.Spec{Owner: "f"}, nil, "dials", "1", "public.example:80").report(); s.notes["heard"] != "1" {
		t.Errorf("a public name does not answer: %+v", s)
	}
	return broken
}

// greet answers whoever connects.
func greet(l net.Listener, accepted *atomic.Int64) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		accepted.Add(1)
		_, _ = io.WriteString(conn, "hello from the host")
		_ = conn.Close()
	}
}

func rowRebinding(t *testing.T, c *catalogue) []string {
	turn := []string{public, "127.0.0.1", metadata, "::ffff:127.0.0.1", "::1"}
	w := &world{answer: func(_ string, nth int64) []netip.Addr {
		if nth%7 == 0 { // both at once
			return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr(public)}
		}
		return []netip.Addr{netip.MustParseAddr(turn[int(nth-1)%len(turn)])}
	}}
	s := c.launch(t, c.connected(t, w), sandbox.Spec{Owner: "f"}, nil, "dials", "20", "rebind.example:80").report()
	if s.notes["heard"] == "0" || w.asked.Load() < 2 {
		t.Errorf("nothing was connected, or nothing changed: %+v, %d answers", s, w.asked.Load())
	}
	return append(s.broken, w.outside(public)...)
}

func rowNoNetwork(t *testing.T, c *catalogue) []string {
	addrs := []string{"127.0.0.1"}
	interfaces, _ := net.InterfaceAddrs()
	for _, a := range interfaces {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() {
			addrs = append(addrs, p.Addr().String())
		}
	}
	var accepted atomic.Int64
	var at []string
	for _, a := range addrs {
		l, err := net.Listen("tcp", net.JoinHostPort(a, "0"))
		if err != nil {
			continue
		}
		defer l.Close()
		go greet(l, &accepted)
		at = append(at, l.Addr().String())
	}
	at = append(at, "["+"2001:db8::1]:80", public+":80")
	_, broken := c.attack(t, sandbox.Spec{}, "network", at...)
	if c.o.Connected != nil {
		w := &world{answer: func(string, int64) []netip.Addr { return []netip.Addr{netip.MustParseAddr(public)} }}
		offline := c.launch(t, c.connected(t, w), sandbox.Spec{Owner: "f", Offline: true}, nil, "network", append(at, "public.example:80")...).report()
		broken = append(append(broken, offline.broken...), w.outside()...)
	}
	return broken
}
