package sandboxtest

import (
	"encoding/binary"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/sandbox"
)

func (s *suite) freezable(t *testing.T) bool { return s.driver(t).Traits().Freezable }

// stand is how long no output is taken for standing still. A guest that goes on is seen to, however slow the machine is at times; one
// that stands still is never taken for one that goes on.
const stand = 100 * time.Millisecond

func (r *trial) stands() {
	r.t.Helper()
	before := -1
	poll(r.t, "its output stands still", func() bool {
		r.Flush()
		now := r.out.Len()
		if now == before {
			return true
		}
		before = now
		time.Sleep(stand)
		return false
	})
}

func (r *trial) goesOn() {
	r.t.Helper()
	before := r.out.Len()
	poll(r.t, "its output goes on", func() bool { r.Flush(); return r.out.Len() > before })
}

func (r *trial) freeze() {
	r.t.Helper()
	err := r.Freeze()
	for end := time.Now().Add(patience); errs.CodeOf(err) == errs.Unavailable && time.Now().Before(end); err = r.Freeze() {
		// A loaded machine may take longer to stop processes by signal than a driver waits.
	}
	if err != nil {
		r.t.Fatalf("Freeze: %v", err)
	}
}

func (r *trial) thaw() {
	r.t.Helper()
	if err := r.Thaw(); err != nil {
		r.t.Fatalf("Thaw: %v", err)
	}
}

func testFreeze(t *testing.T, s *suite) {
	if !s.freezable(t) {
		t.Skip("this driver cannot freeze, and says so")
	}
	d := s.driver(t)
	for name, programs := range map[string][]string{
		"alone":             nil,
		"child":             {"hold"},
		"left its group":    {"middle:hold", "setsid:hold"},
		"forks all along":   {"forks"},
		"forks in sessions": {"middle:forks", "setsid:forks"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if s.o.Survivors && name != "alone" && name != "child" {
				t.Skip("this driver cannot find what left the process group, and says so")
			}
			program := append([]string{"tree"}, programs...)
			if programs == nil {
				program = []string{"hold"}
			}
			r := s.start(t, d, sandbox.Spec{}, program...)
			for range 3 {
				r.goesOn()
				r.freeze()
				r.freeze() // idempotent
				r.stands()
				r.thaw()
				r.thaw()
			}
			r.goesOn()
			r.stop(0)
			if left := processes(t, r.token); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
}

func testFreezeLine(t *testing.T, s *suite) {
	if !s.freezable(t) {
		t.Skip("this driver cannot freeze, and says so")
	}
	r := s.start(t, s.driver(t), sandbox.Spec{}, "line")
	want := 0
	for i := range 50 {
		n := 1 + i*3701%200_000
		r.ask(n)
		want += n
		r.freeze()
		r.Flush()
		if got := r.out.Len(); got != want {
			t.Fatalf("round %d: Output has %d bytes, want the %d from before the freeze", i, got, want)
		}
		// What is sent to a frozen guest is there when it goes on.
		if _, err := r.conn.Stream().Write(binary.BigEndian.AppendUint32(nil, 7)); err != nil {
			t.Fatal(err)
		}
		want += 7
		r.thaw()
		r.answer()
		r.Flush()
		if got := r.out.Len(); got != want {
			t.Fatalf("round %d: Output has %d bytes after Thaw, want %d", i, got, want)
		}
	}
	before := r.Usage()
	r.freeze()
	if u := r.Usage(); u.CPU < before.CPU || u.MemoryPeak < before.MemoryPeak {
		t.Errorf("usage of the frozen Sandbox %+v, before %+v", u, before)
	}
}

func testFreezeRefused(t *testing.T, s *suite) {
	if !s.freezable(t) {
		t.Skip("this driver cannot freeze, and says so")
	}
	d := s.driver(t)
	refused := func(when string, r *trial) {
		t.Helper()
		if err := r.Freeze(); errs.CodeOf(err) != errs.Conflict {
			t.Errorf("Freeze %s: %v, want a conflict", when, err)
		}
		if err := r.Thaw(); err != nil {
			t.Errorf("Thaw %s: %v", when, err)
		}
	}
	r := s.prepare(t, d, sandbox.Spec{})
	refused("before Start", r)
	r.start("exit", "0")
	r.ended()
	refused("after the end", r)
	r = s.start(t, d, sandbox.Spec{}, "tree")
	r.answer()
	r.stop(0)
	refused("after Stop", r)
}

func testFreezeBeside(t *testing.T, s *suite) {
	if !s.freezable(t) {
		t.Skip("this driver cannot freeze, and says so")
	}
	d := s.driver(t)
	for range 10 {
		r := s.start(t, d, sandbox.Spec{}, "tree", "hold", "stubborn")
		r.answer()
		stopped := make(chan struct{})
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				for {
					select {
					case <-stopped:
						return
					default:
					}
					if err := r.Freeze(); err != nil && errs.CodeOf(err) != errs.Conflict && errs.CodeOf(err) != errs.Unavailable {
						t.Errorf("Freeze: %v", err)
					}
					if err := r.Thaw(); err != nil {
						t.Errorf("Thaw: %v", err)
					}
				}
			})
		}
		r.stop(time.Millisecond)
		close(stopped)
		all.Wait()
		if left := processes(t, r.token); len(left) > 0 {
			t.Fatalf("left: %q", left)
		}
	}
}

func testStopFrozen(t *testing.T, s *suite) {
	if !s.freezable(t) {
		t.Skip("this driver cannot freeze, and says so")
	}
	d := s.driver(t)
	t.Run("with grace", func(t *testing.T) {
		t.Parallel()
		r := s.start(t, d, sandbox.Spec{}, "polite")
		poll(t, "ready", func() bool { return strings.Contains(r.out.String(), "ready") })
		r.freeze()
		start := time.Now()
		r.stop(patience)
		if took := time.Since(start); took > patience/2 {
			t.Errorf("Stop took %s although the guest ends when it is asked", took)
		}
		if !strings.Contains(r.out.String(), "goodbye") {
			t.Errorf("the guest was not asked to end; output %q", r.out)
		}
	})
	for name, programs := range map[string][]string{
		"alone": {"tree"}, "tree": {"tree", "sleep", "stubborn"}, "left its group": {"tree", "setsid:hold", "middle:middle:stubborn"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if s.o.Survivors && name == "left its group" {
				t.Skip("this driver cannot find what left the process group, and says so")
			}
			r := s.start(t, d, sandbox.Spec{}, programs...)
			r.answer()
			r.freeze()
			r.stop(0)
			if left := processes(t, r.token); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
			if e := r.Exit(); !e.Stopped || e.OOM {
				t.Errorf("exit %+v, want stopped", e)
			}
		})
	}
}

func testProcessors(t *testing.T, s *suite) {
	if !s.o.Processors {
		t.Skip("processors are not limited here")
	}
	start := time.Now()
	r := s.start(t, s.driver(t), sandbox.Spec{Limits: sandbox.Limits{MilliCPU: 100}}, "burn", "200")
	r.ended()
	// A tenth of a processor needs two seconds for it; half of that says that there is a limit, and leaves room for how it is counted.
	if took := time.Since(start); took < time.Second {
		t.Errorf("200 ms of a processor took %s with a limit of 100 thousandths", took)
	}
	if out := r.out.String(); out != "burnt\n" {
		t.Errorf("output %q", out)
	}
}
