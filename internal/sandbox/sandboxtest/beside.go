package sandboxtest

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/sandbox"
)

// company is code whose main program says that it runs on its line, with programs of this package beside it.
func company(token string, beside ...[]string) sandbox.Code {
	c := Guest(token, "tree")
	for _, program := range beside {
		c.Beside = append(c.Beside, sandbox.Program{Command: Guest(token, program...).Command, Env: []string{"OWN=" + program[0]}})
	}
	return c
}

func testBeside(t *testing.T, s *suite) {
	d := s.driver(t)
	if !d.Traits().Mounts || d.Traits().Alone {
		if _, err := d.Prepare(t.Context(), sandbox.Spec{ID: "a", Beside: 1}); errs.CodeOf(err) != errs.Unsupported {
			t.Errorf("programs beside the main one: %v", err)
		}
		return
	}
	r := s.prepare(t, d, sandbox.Spec{Beside: 3, Limits: sandbox.Limits{Processes: 60}})
	var err error
	if r.conn, err = r.Start(t.Context(), company(r.token, []string{"exit", "5"}, []string{"env"}, []string{"dial", r.Addr()})); err != nil {
		t.Fatal(err)
	}
	talks(t, r)
	ends := map[int]sandbox.Exit{}
	for range 2 {
		e := r.end()
		ends[e.Program] = e.Exit
	}
	if ends[0].Code != 5 || ends[1] != (sandbox.Exit{}) {
		t.Errorf("ends are %v", ends)
	}
	r.Flush()
	if out := r.out.String(); !strings.Contains(out, "leaving\n") || !strings.Contains(out, "OWN=env\n") || strings.Contains(out, "PATH") {
		t.Errorf("output:\n%s", out)
	}
	if n := len(processes(t, r.token+"\x00tree")); n != 0 {
		t.Error("the main program runs before it may")
	}
	for range 2 {
		if err := r.conn.Proceed(); err != nil {
			t.Fatal(err)
		}
	}
	r.answer()
	r.stop(0)
	if left := processes(t, r.token); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// talks answers the program "dial".
func talks(t *testing.T, r *trial) {
	t.Helper()
	ln := r.conn.Listener()
	_ = ln.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	c, err := ln.Accept()
	if err != nil {
		t.Fatalf("nobody connects: %v; output:\n%s", err, tail(r.out.String()))
	}
	t.Cleanup(func() { _ = c.Close() })
}

func (r *trial) end() sandbox.End {
	r.t.Helper()
	select {
	case e := <-r.conn.Beside():
		return e
	case <-time.After(patience):
		r.t.Fatalf("no end is told; output:\n%s", tail(r.out.String()))
	}
	return sandbox.End{}
}

func testBesideFailure(t *testing.T, s *suite) {
	d := s.driver(t)
	if !d.Traits().Mounts || d.Traits().Alone {
		return // testBeside says so
	}
	t.Run("the program beside is not there", func(t *testing.T) {
		r := s.prepare(t, d, sandbox.Spec{Beside: 1})
		c := company(r.token, []string{"sleep"})
		c.Beside[0].Command = []string{"/nowhere/" + r.token}
		if _, err := r.Start(t.Context(), c); err == nil || !strings.Contains(err.Error(), "/nowhere/") {
			t.Errorf("%v", err)
		}
	})
	t.Run("another number than was asked for", func(t *testing.T) {
		r := s.prepare(t, d, sandbox.Spec{Beside: 1})
		if _, err := r.Start(t.Context(), company(r.token)); errs.CodeOf(err) != errs.Invalid {
			t.Errorf("%v", err)
		}
	})
	t.Run("the main program cannot start", func(t *testing.T) {
		r := s.prepare(t, d, sandbox.Spec{Beside: 1})
		c := company(r.token, []string{"sleep"})
		c.Command = []string{"/nowhere/main"}
		var err error
		if r.conn, err = r.Start(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if err := r.conn.Proceed(); err != nil {
			t.Fatal(err)
		}
		if e := r.ended(); e.Code == 0 {
			t.Errorf("%v", e)
		}
		r.Flush()
		if out := r.out.String(); !strings.Contains(out, "cannot start: run /nowhere/main: no such file") {
			t.Errorf("output:\n%s", out)
		}
	})
	t.Run("it is stopped before the main program starts", func(t *testing.T) {
		r := s.prepare(t, d, sandbox.Spec{Beside: 1})
		if _, err := r.Start(t.Context(), company(r.token, []string{"sleep"})); err != nil {
			t.Fatal(err)
		}
		r.stop(50 * time.Millisecond)
		if left := processes(t, r.token); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
}
