package lambda

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/sandbox"
)

// besideConn is a Sandbox's line with one program beside the runtime.
type besideConn struct {
	sandbox.Conn
	ln       net.Listener
	stream   net.Conn
	ends     chan sandbox.End
	proceeds chan struct{}
}

func (c *besideConn) Listener() net.Listener     { return c.ln }
func (c *besideConn) Stream() net.Conn           { return c.stream }
func (c *besideConn) Beside() <-chan sandbox.End { return c.ends }
func (c *besideConn) Proceed() error             { close(c.proceeds); return nil }

// besideGuest is the extension "outer", and a runtime that speaks frames.
type besideGuest struct {
	*apiClient // the extension's
	id         string
	conn       *besideConn
	runtime    net.Conn
	opened     chan error
	session    guest.Session
}

func startBeside(t *testing.T, within time.Duration) *besideGuest {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host, runtime := net.Pipe()
	g := &besideGuest{runtime: runtime, opened: make(chan error, 1), conn: &besideConn{
		ln: ln, stream: host, ends: make(chan sandbox.End, 1), proceeds: make(chan struct{}),
	}}
	u := &guest.Unit{Function: "f", Version: "$LATEST", Handler: "h", ARN: "arn:aws:lambda:us-east-1:1:function:f", Timeout: 3 * time.Second}
	ctx, cancel := context.WithTimeout(t.Context(), within)
	t.Cleanup(cancel)
	t.Cleanup(func() { runtime.Close() })
	go func() {
		s, err := openExtended(ctx, g.conn, u, true, []string{"outer"}, newPool())
		g.session = s
		g.opened <- err
	}()
	g.apiClient = dialAPI(t, ln.Addr().String())
	return g
}

// ready takes the guest through Init.
func (g *besideGuest) ready() {
	g.t.Helper()
	g.id = g.register("outer", `"INVOKE","SHUTDOWN"`)
	<-g.conn.proceeds
	g.frame(frameReady, "10", 0)
	g.nextEvent(g.id)
	if err := <-g.opened; err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { g.session.Close() })
}

func (g *besideGuest) frame(kind byte, payload string, call uint16) {
	g.t.Helper()
	p, at := openFrame(nil, kind, call)
	p = append(p, payload...)
	closeFrame(p, at)
	if _, err := g.runtime.Write(p); err != nil {
		g.t.Fatal(err)
	}
}

// takes reads an Invocation.
func (g *besideGuest) takes() {
	g.t.Helper()
	r := frameReader{r: g.runtime, buf: make([]byte, 64)}
	for {
		f, err := r.next()
		if err == nil {
			_, err = r.payload(f.length)
		}
		if err != nil {
			g.t.Fatal(err)
		}
		if f.kind == frameEnd {
			return
		}
	}
}

func (g *besideGuest) answers(call uint16) {
	g.t.Helper()
	g.frame(frameHead, "r", call)
	g.frame(frameEnd, "2", call)
}

func TestBeside_ARuntimeStartsWhenTheExtensionsHaveRegistered(t *testing.T) {
	t.Parallel()
	g := startBeside(t, 20*time.Second)
	g.send(getNext)
	if st, _, _ := g.read(); st != "404 Not Found" {
		t.Errorf("the runtime's API: %s", st)
	}
	select {
	case <-g.conn.proceeds:
		t.Fatal("the runtime starts before")
	default:
	}
	id := g.register("outer", `"INVOKE"`)
	<-g.conn.proceeds
	g.frame(frameReady, "10", 0)
	select {
	case err := <-g.opened:
		t.Fatalf("Init is over before the extension is ready: %v", err)
	default:
	}
	g.nextEvent(id)
	if err := <-g.opened; err != nil {
		t.Fatal(err)
	}
	g.session.Close()
}

func TestBeside_AnInvocationLastsUntilAllAreReady(t *testing.T) {
	t.Parallel()
	g := startBeside(t, 20*time.Second)
	g.ready()
	for call := range uint16(3) {
		done := start(t, g.session, direct(`{}`))
		if e := g.event(); e["eventType"] != "INVOKE" || e["requestId"] != testID {
			t.Fatalf("%v", e)
		}
		g.takes()
		g.answers(call + 1)
		select {
		case <-done:
			t.Fatal("the Invocation is over while the extension works")
		default:
		}
		g.nextEvent(g.id)
		if r := <-done; r.err != nil || r.Body.String() != "2" {
			t.Fatalf("%q %v", r.Body.String(), r.err)
		}
	}
}

func TestBeside_InitFailsWithAnExtension(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kind, message string
		do            func(g *besideGuest)
	}{
		"it crashes at once": {"Extension.Crash", "outer has ended: exit status 3", func(g *besideGuest) { g.conn.ends <- sandbox.End{Exit: sandbox.Exit{Code: 3}} }},
		"it is killed while the runtime starts": {"Extension.Crash", "outer has ended: signal: killed", func(g *besideGuest) {
			g.register("outer", ``)
			<-g.conn.proceeds
			g.conn.ends <- sandbox.End{Exit: sandbox.Exit{Code: -1, Signal: "killed"}}
		}},
		"it ends before it is ready": {"Extension.Crash", "exit status 0", func(g *besideGuest) {
			g.register("outer", ``)
			<-g.conn.proceeds
			g.frame(frameReady, "10", 0)
			g.conn.ends <- sandbox.End{}
		}},
		"it says so": {"Extension.InitError", "outer has given up: Extension.NoKey", func(g *besideGuest) {
			id := g.register("outer", ``)
			g.ask("POST", "/2020-01-01/extension/init/error", `{}`, id, "Lambda-Extension-Function-Error-Type: Extension.NoKey")
		}},
		"the runtime does": {"E", "m", func(g *besideGuest) {
			g.register("outer", ``)
			<-g.conn.proceeds
			g.frame(frameFailed, `{"errorType":"E","errorMessage":"m"}`, 0)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startBeside(t, 20*time.Second)
			c.do(g)
			var e *guest.InitError
			if err := <-g.opened; !errors.As(err, &e) || e.Type != c.kind || !strings.HasSuffix(e.Message, c.message) || len(e.Payload) == 0 {
				t.Errorf("%v", err)
			}
		})
	}
	t.Run("it never registers", func(t *testing.T) {
		t.Parallel()
		g := startBeside(t, 100*time.Millisecond)
		if err := <-g.opened; !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "registered") {
			t.Errorf("%v", err)
		}
	})
}

func TestBeside_ACrashEndsTheInvocation(t *testing.T) {
	t.Parallel()
	crash := sandbox.End{Exit: sandbox.Exit{Code: 7}}
	for name, do := range map[string]func(g *besideGuest){
		"while the runtime works": func(g *besideGuest) { g.conn.ends <- crash },
		"after the answer": func(g *besideGuest) {
			g.answers(1)
			g.conn.ends <- crash
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startBeside(t, 20*time.Second)
			g.ready()
			done := start(t, g.session, direct(`{}`))
			g.event()
			g.takes()
			do(g)
			var e *guest.InitError
			if r := <-done; !errors.As(r.err, &e) || e.Type != "Extension.Crash" || errors.Is(r.err, guest.ErrUnseen) {
				t.Errorf("%v", r.err)
			}
			if r := <-start(t, g.session, direct(`{}`)); !errors.Is(r.err, guest.ErrUnseen) {
				t.Errorf("the next one: %v", r.err)
			}
		})
	}
}

func TestBeside_ShutdownWaitsForTheProgramsEnd(t *testing.T) {
	t.Parallel()
	g := startBeside(t, 20*time.Second)
	g.ready()
	over := make(chan struct{})
	go func() {
		g.session.(guest.Shutter).Shutdown(t.Context(), guest.Spindown)
		close(over)
	}()
	if e := g.event(); e["eventType"] != "SHUTDOWN" || e["shutdownReason"] != "spindown" {
		t.Fatalf("%v", e)
	}
	g.apiClient.conn.Close() // as a client does that makes a connection for each request
	s := g.session.(*extendedSession).ext
	for gone := false; !gone; {
		s.mu.Lock()
		gone = len(s.mu.conns) == 0
		s.mu.Unlock()
	}
	select {
	case <-over:
		t.Fatal("its last words are not waited for")
	default:
	}
	g.conn.ends <- sandbox.End{}
	<-over
}

func TestBeside_CodeNamesTheExtensions(t *testing.T) {
	t.Parallel()
	p, err := New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	layers := t.TempDir()
	file := func(name, text string, mode os.FileMode) {
		path := filepath.Join(layers, "extensions", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), mode)); err != nil {
			t.Fatal(err)
		}
	}
	file("one", "#!/usr/bin/env python3\n", 0o755)
	file("folder/two", "data", 0o644)
	file("../bootstrap", "#!/bin/sh\n", 0o755)
	u := &guest.Unit{Function: "f", Runtime: "provided.al2023", Handler: "h", Root: t.TempDir(), Layers: layers, Mounts: true, Env: []string{"MINE=1", "_OWN=2"}}
	if n := p.Beside(u); n != 1 {
		t.Errorf("%d programs", n)
	}
	c, err := p.Code(u, "127.0.0.1:9001")
	if err != nil || len(c.Beside) != 1 {
		t.Fatalf("%v %v", c.Beside, err)
	}
	env := c.Beside[0].Env
	for _, kv := range env {
		if name, _, _ := strings.Cut(kv, "="); name[0] == '_' || name == "LAMBDA_TASK_ROOT" || name == "AWS_LAMBDA_LOG_GROUP_NAME" {
			t.Errorf("an extension gets %s", kv)
		}
	}
	for _, kv := range []string{"MINE=1", "AWS_LAMBDA_RUNTIME_API=127.0.0.1:9001", "AWS_LAMBDA_FUNCTION_NAME=f"} {
		if !slices.Contains(env, kv) {
			t.Errorf("an extension does not get %s: %v", kv, env)
		}
	}
	if got := strings.Join(c.Beside[0].Command, " "); got != "/opt/extensions/one" {
		t.Errorf("it is run by %s", got)
	}
	file("plain", "#!/bin/sh\n", 0o644)
	var e *guest.InitError
	if _, err := p.Code(u, "x"); !errors.As(err, &e) || e.Type != "Extension.LaunchError" || !strings.Contains(e.Message, "/opt/extensions/plain") || !strings.Contains(e.Message, "not executable") || !strings.Contains(errs.HintOf(err), "chmod +x") {
		t.Errorf("one that is not executable: %v, hint %s", err, errs.HintOf(err))
	}
	for _, name := range strings.Fields("a b c d e f g h i") {
		file(name, "#!/bin/sh\n", 0o755)
	}
	if _, err := p.Code(u, "x"); !errors.As(err, &e) || !strings.Contains(e.Message, "11 extensions") {
		t.Errorf("eleven: %v", err)
	}
	u.Mounts = false
	if c, err := p.Code(u, "x"); err != nil || len(c.Beside) != 0 || p.Beside(u) != 0 {
		t.Errorf("where they cannot run: %v %v", c.Beside, err)
	}
}
