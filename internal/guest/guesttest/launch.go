// Package guesttest runs guest protocols against real guests and holds the suite that every protocol passes.
//
// Main types: [Guest], a Unit that was started as a plain process, and [Suite], which [Run] goes through.
//
// Guarantees:
//
//  1. A Guest's processes are gone when its test ends.
//  2. Launch needs no driver: what fails is the protocol or the guest.
//
// It isolates nothing; drivers are tested by sandboxtest.
package guesttest

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/sandbox"
)

// Guest is a running Unit.
type Guest struct {
	guest.Session
	Unit *guest.Unit

	proto guest.Protocol
	cmd   *exec.Cmd
	done  chan struct{}
	out   struct {
		sync.Mutex
		bytes.Buffer
	}
}

// Launch starts the Unit and waits for its Init; a failed one is the error.
func Launch(t testing.TB, p guest.Protocol, u *guest.Unit) (*Guest, error) {
	t.Helper()
	g := &Guest{Unit: u, proto: p, done: make(chan struct{})}
	line, addr, file := connect(t, p.Transport(u))
	code, err := p.Code(u, addr)
	if err != nil {
		return g, err
	}
	g.cmd = exec.Command(code.Command[0], code.Command[1:]...)
	g.cmd.Env, g.cmd.Dir = code.Env, code.Dir
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if file != nil {
		g.cmd.ExtraFiles = []*os.File{file}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	g.cmd.Stdout, g.cmd.Stderr = w, w
	if err := g.cmd.Start(); err != nil {
		t.Fatalf("start %v: %v", code.Command, err)
	}
	w.Close()
	if file != nil {
		file.Close()
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		g.copyOutput(r)
	}()
	go func() {
		_ = g.cmd.Wait()
		close(g.done)
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-g.cmd.Process.Pid, syscall.SIGKILL)
		<-g.done
		_ = line.Close()
		<-drained
		r.Close()
	})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	go func() { // as the engine does: an ended guest ends the wait
		select {
		case <-g.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	g.Session, err = p.Open(ctx, line, u)
	return g, err
}

func (g *Guest) copyOutput(r *os.File) {
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		g.out.Lock()
		g.out.Write(buf[:n])
		g.out.Unlock()
		if err != nil {
			return
		}
	}
}

// Output is what the guest has written so far.
func (g *Guest) Output() string {
	g.out.Lock()
	defer g.out.Unlock()
	return g.out.String()
}

// OutputLike waits until the output matches the pattern, at most two seconds, and gives it: what the guest has written may not have been
// read yet.
func (g *Guest) OutputLike(pattern string) (string, bool) {
	re := regexp.MustCompile(pattern)
	for end := time.Now().Add(2 * time.Second); ; {
		out := g.Output()
		if re.MatchString(out) {
			return out, true
		}
		if time.Now().After(end) {
			return out, false
		}
		<-time.After(2 * time.Millisecond)
	}
}

// Exit waits until the guest has ended and says how.
func (g *Guest) Exit(t testing.TB) sandbox.Exit {
	t.Helper()
	select {
	case <-g.done:
	case <-time.After(20 * time.Second):
		t.Fatalf("the guest has not ended; its output:\n%s", g.Output())
	}
	e := sandbox.Exit{Code: g.cmd.ProcessState.ExitCode()}
	if ws, ok := g.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		e.Signal = ws.Signal().String()
	}
	return e
}

// Running says whether the guest has not ended.
func (g *Guest) Running() bool {
	select {
	case <-g.done:
		return false
	default:
		return true
	}
}

// Call invokes with raw bytes and a deadline of 20 seconds.
func (g *Guest) Call(t testing.TB, payload string) (*invocation.Buffer, error) {
	t.Helper()
	return g.Do(t, Direct(payload))
}

// Do invokes with a deadline of 20 seconds; the end of the guest ends it.
func (g *Guest) Do(t testing.TB, inv *invocation.Invocation) (*invocation.Buffer, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		select {
		case <-g.done:
			cancel()
		case <-ended:
		}
	}()
	defer close(ended)
	b := &invocation.Buffer{}
	err := g.Invoke(ctx, inv, b)
	if errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("no answer; the guest's output:\n%s", g.Output())
	}
	return b, err
}

// Direct is an Invocation with raw bytes.
func Direct(payload string) *invocation.Invocation {
	now := time.Now()
	return &invocation.Invocation{
		ID: "8476a536-e9f4-11e8-9739-2dfe598c3fcd", Tenant: "default", Function: "demo", Mode: invocation.ModeRequest, Attempt: 1,
		Received: now, Deadline: now.Add(20 * time.Second), Payload: invocation.Raw(payload),
	}
}

// connect makes the host's side of a line, and for Stream the guest's descriptor 3.
func connect(t testing.TB, tr sandbox.Transport) (sandbox.Conn, string, *os.File) {
	t.Helper()
	switch tr {
	case sandbox.Stream:
		fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			syscall.CloseOnExec(fd)
		}
		host := os.NewFile(uintptr(fds[0]), "host")
		c, err := net.FileConn(host)
		if err != nil {
			t.Fatal(err)
		}
		host.Close()
		return conn{stream: c}, "", os.NewFile(uintptr(fds[1]), "guest")
	case sandbox.Listen:
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return conn{ln: ln}, ln.Addr().String(), nil
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	return conn{addr: addr}, addr, nil
}

type conn struct {
	stream net.Conn
	ln     net.Listener
	addr   string
}

func (c conn) Stream() net.Conn       { return c.stream }
func (c conn) Listener() net.Listener { return c.ln }
func (c conn) Dial(ctx context.Context) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", c.addr)
}

func (conn) Beside() <-chan sandbox.End { return nil }
func (conn) Proceed() error             { return nil }

func (c conn) Close() error {
	switch {
	case c.stream != nil:
		return c.stream.Close()
	case c.ln != nil:
		return c.ln.Close()
	}
	return nil
}
