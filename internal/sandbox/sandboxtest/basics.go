package sandboxtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/sandbox"
)

func testEnvironment(t *testing.T, s *suite) {
	for name, env := range map[string][]string{
		"empty":    nil,
		"ordinary": {"A=1", "PATH=/nowhere", "EMPTY=", "SPACES=a b\nc=d"},
		"tmpdir":   {"TMPDIR=/mine"},
	} {
		r := s.prepare(t, s.driver(t), sandbox.Spec{})
		c := Guest(r.token, "env")
		c.Env = env
		if _, err := r.Start(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		r.ended()
		var got []string
		tmp := false
		for _, l := range strings.Split(strings.TrimSuffix(r.out.String(), "\n"), "\n") {
			key, _, _ := strings.Cut(l, "=")
			tmp = tmp || key == "TMPDIR"
			if l != "" && !slices.Contains(s.o.Extra, key) && (key != "TMPDIR" || name == "tmpdir") {
				got = append(got, l)
			}
		}
		want := strings.Split(strings.Join(slices.Sorted(slices.Values(env)), "\n"), "\n")
		if len(env) == 0 {
			want = nil
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: environment %q, want %q", name, got, want)
		}
	}
}

func testSurroundings(t *testing.T, s *suite) {
	if !s.o.Descriptors {
		t.Skip("guests cannot see their descriptors here")
	}
	for _, tr := range []sandbox.Transport{sandbox.Stream, sandbox.Listen} {
		r := s.prepare(t, s.driver(t), sandbox.Spec{Transport: tr})
		c := Guest(r.token, "surroundings")
		c.Dir = "/usr"
		if _, err := r.Start(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		r.ended()
		want := "fd 0 /dev/null\nfd 1 pipe\nfd 2 pipe\n"
		if tr == sandbox.Stream {
			want += "fd 3 socket\n"
		}
		want += "same output true\nterminal false\nown group and session true true\ndir /usr\ninput 0 EOF\n"
		if got := r.out.String(); got != want {
			t.Errorf("transport %d: surroundings\n%s\nwant\n%s", tr, got, want)
		}
	}
}

func testOutput(t *testing.T, s *suite) {
	const lines = 5000
	var want bytes.Buffer
	for i := range lines {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	for _, how := range []string{"exit", "kill", "panic"} {
		r := s.start(t, s.driver(t), sandbox.Spec{}, "write", fmt.Sprint(lines), how)
		r.ended() // no Stop: all must be there when Done is closed
		got := r.out.String()
		if how == "panic" {
			if !strings.Contains(got, "guest crashes") {
				t.Error("panic: the message is lost")
			}
			got = got[:min(want.Len(), len(got))]
		}
		if got != want.String() {
			t.Errorf("%s: %d bytes, want %d; ends with %q", how, len(got), want.Len(), tail(got))
		}
	}
	// Stopped while it lives.
	r := s.start(t, s.driver(t), sandbox.Spec{}, "write", fmt.Sprint(lines), "stay")
	r.answer()
	r.stop(0)
	if got := r.out.String(); got != want.String() {
		t.Errorf("stopped: %d bytes, want %d", len(got), want.Len())
	}
}

func testReopenedOutput(t *testing.T, s *suite) {
	r := s.start(t, s.driver(t), sandbox.Spec{}, "reopen")
	r.ended()
	if got, want := r.out.String(), "to /dev/stdout\nto /dev/stderr\nto /dev/fd/1\n"; got != want {
		t.Errorf("output %q, want %q", got, want)
	}
}

// ask has the program "line" write n bytes.
func (r *trial) ask(n int) {
	r.t.Helper()
	if _, err := r.conn.Stream().Write(binary.BigEndian.AppendUint32(nil, uint32(n))); err != nil {
		r.t.Fatal(err)
	}
	r.answer()
}

func testFlood(t *testing.T, s *suite) {
	const size = 32 << 20
	r := s.start(t, s.driver(t), sandbox.Spec{}, "line")
	r.ask(size)
	r.Flush()
	if got := r.out.Len(); got != size {
		t.Errorf("%d bytes, want %d", got, size)
	}
}

func testFlush(t *testing.T, s *suite) {
	r := s.start(t, s.driver(t), sandbox.Spec{}, "line")
	r.Flush()
	want := 0
	for i := range 500 {
		n := 1 + i*37%9000
		r.ask(n)
		want += n
		r.Flush()
		if got := r.out.Len(); got != want {
			t.Fatalf("round %d: Output has %d bytes after Flush, want %d", i, got, want)
		}
	}
	r.stop(0)
	r.Flush() // at any time
}

func testExit(t *testing.T, s *suite) {
	for name, c := range map[string]struct {
		program []string
		want    sandbox.Exit
	}{
		"good":       {[]string{"exit", "0"}, sandbox.Exit{}},
		"bad":        {[]string{"exit", "3"}, sandbox.Exit{Code: 3}},
		"crash":      {[]string{"crash"}, sandbox.Exit{Code: 2}},
		"killed":     {[]string{"signal", "9"}, sandbox.Exit{Code: -1, Signal: "killed"}},
		"terminated": {[]string{"signal", "15"}, sandbox.Exit{Code: -1, Signal: "terminated"}},
	} {
		r := s.start(t, s.driver(t), sandbox.Spec{Limits: sandbox.Limits{MemoryBytes: 256 << 20}}, c.program...)
		if got := r.ended(); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
		r.stop(0)
		if got := r.Exit(); got != c.want {
			t.Errorf("%s: after Stop %+v, want %+v", name, got, c.want)
		}
	}
}

func testUsage(t *testing.T, s *suite) {
	r := s.start(t, s.driver(t), sandbox.Spec{Limits: sandbox.Limits{MemoryBytes: 512 << 20}}, "use", "50")
	r.answer()
	check := func(when string) {
		u := r.Usage()
		if u.MemoryPeak < 50<<20 || u.MemoryPeak > 512<<20 {
			t.Errorf("%s: memory peak %d, want 50 MB to the limit", when, u.MemoryPeak)
		}
		if u.CPU < 20*time.Millisecond || u.CPU > 10*time.Second {
			t.Errorf("%s: processor time %s, want some 50 ms", when, u.CPU)
		}
	}
	check("running")
	r.stop(0)
	check("stopped")
}

func testStartFailure(t *testing.T, s *suite) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, c := range map[string]struct {
		code sandbox.Code
		want []string
		as   errs.Code
	}{
		"no program":      {sandbox.Code{Command: []string{"/no/such/program"}}, []string{"/no/such/program"}, errs.NotFound},
		"no command":      {sandbox.Code{}, []string{"absolute"}, errs.Invalid},
		"relative":        {sandbox.Code{Command: []string{"sh"}}, []string{"absolute", "sh"}, errs.Invalid},
		"no folder":       {sandbox.Code{Command: Guest("t", "sleep").Command, Dir: "/no/such/folder"}, []string{"/no/such/folder"}, errs.NotFound},
		"no interpreter":  {sandbox.Code{Command: []string{file("script", "#!/no/such/interpreter\n", 0o755)}}, []string{"script"}, errs.Failed},
		"not executable":  {sandbox.Code{Command: []string{file("data", "#!/bin/sh\n", 0o644)}}, []string{"data", "permission"}, errs.Failed},
		"other processor": {sandbox.Code{Command: []string{file("foreign", "\x7fELF\x02\x01\x01 of no machine", 0o755)}}, []string{"foreign"}, errs.Failed},
	} {
		for _, tr := range []sandbox.Transport{sandbox.Stream, sandbox.Listen, sandbox.Dial} {
			r := s.prepare(t, s.driver(t), sandbox.Spec{Transport: tr})
			c.code.Mounts = []sandbox.Mount{{Source: dir, Target: dir}, Guest("t").Mounts[0]}
			_, err := r.Start(t.Context(), c.code)
			if err == nil {
				t.Errorf("%s: started", name)
				continue
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%s: error %q does not say %q", name, err, w)
				}
			}
			if got := errs.CodeOf(err); got != c.as {
				t.Errorf("%s: code %s, want %s: %v", name, got, c.as, err)
			}
			if _, err := r.Start(t.Context(), Guest(r.token, "sleep")); err == nil {
				t.Errorf("%s: started a second time", name)
			}
			r.stop(0)
			r.ended()
		}
	}
	r := s.prepare(t, s.driver(t), sandbox.Spec{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Start(ctx, Guest(r.token, "sleep")); errs.CodeOf(err) != errs.Canceled {
		t.Errorf("cancelled: %v", err)
	}
}

func testTransports(t *testing.T, s *suite) {
	d := s.driver(t)
	// Everything waits for a bounded time: a guest that failed, or a stranger at its address, answers nothing.
	talk := func(c net.Conn) error {
		_ = c.SetDeadline(time.Now().Add(patience / 3))
		sent := bytes.Repeat([]byte("hello, guest\n"), 20000) // more than buffers hold
		go func() { _, _ = c.Write(sent) }()
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(c, got); err != nil {
			return err
		}
		if !bytes.Equal(got, sent) {
			return errors.New("the echo differs")
		}
		return nil
	}
	t.Run("Stream", func(t *testing.T) {
		r := s.start(t, d, sandbox.Spec{Transport: sandbox.Stream}, "tree")
		r.answer()
		if r.Addr() != "" {
			t.Errorf("address %q, want none", r.Addr())
		}
		r.stop(0)
		_ = r.conn.Stream().SetReadDeadline(time.Now().Add(patience))
		if _, err := r.conn.Stream().Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("the line is open after Stop")
		}
		if err := r.conn.Close(); err != nil {
			t.Errorf("close after Stop: %v", err)
		}
	})
	t.Run("Stream ends with the guest", func(t *testing.T) {
		r := s.start(t, d, sandbox.Spec{Transport: sandbox.Stream}, "exit", "0")
		_ = r.conn.Stream().SetReadDeadline(time.Now().Add(patience))
		if _, err := r.conn.Stream().Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("read: %v, want EOF", err)
		}
	})
	t.Run("Listen", func(t *testing.T) {
		r := s.prepare(t, d, sandbox.Spec{Transport: sandbox.Listen})
		r.start("dial", r.Addr())
		if l, ok := r.conn.Listener().(interface{ SetDeadline(time.Time) error }); ok {
			_ = l.SetDeadline(time.Now().Add(patience))
		}
		c, err := r.conn.Listener().Accept()
		if err != nil {
			t.Fatalf("the guest does not dial: %v; %v; output:\n%s", err, r.Exit(), tail(r.out.String()))
		}
		defer c.Close()
		if err := talk(c); err != nil {
			t.Error(err)
		}
		r.stop(0)
		if _, err := r.conn.Listener().Accept(); err == nil {
			t.Error("the address is open after Stop")
		}
	})
	t.Run("Dial", func(t *testing.T) {
		r := s.prepare(t, d, sandbox.Spec{Transport: sandbox.Dial})
		r.start("listen", r.Addr())
		poll(t, "the guest listens", func() bool {
			c, err := r.conn.Dial(t.Context())
			if err != nil {
				return false
			}
			defer c.Close()
			return talk(c) == nil
		})
		r.stop(0)
		if _, err := r.conn.Dial(t.Context()); err == nil {
			t.Error("dialled after Stop")
		}
	})
	t.Run("wrong one panics", func(t *testing.T) {
		r := s.prepare(t, d, sandbox.Spec{Transport: sandbox.Stream})
		r.start("sleep")
		defer func() {
			if recover() == nil {
				t.Error("Listener on a Stream line did not panic")
			}
		}()
		r.conn.Listener()
	})
}
