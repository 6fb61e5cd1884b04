package sandboxtest

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/sandbox"
)

func testHolders(t *testing.T, s *suite) {
	r := s.start(t, s.driver(t), sandbox.Spec{}, "tree", "hold", "end")
	if got := r.ended(); got != (sandbox.Exit{}) {
		t.Errorf("exit %+v, want that of the main process", got)
	}
	r.stop(0)
	if left := processes(t, r.token); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func testTrees(t *testing.T, s *suite) {
	d := s.driver(t)
	for _, c := range []struct {
		name      string
		programs  []string
		leaves    bool // leaves the process group
		concealed bool
	}{
		{name: "alone"},
		{name: "children", programs: []string{"sleep", "sleep"}},
		{name: "ignores SIGTERM", programs: []string{"stubborn"}},
		{name: "own session", programs: []string{"setsid:stubborn", "setsid:tree:sleep"}, leaves: true},
		{name: "double fork", programs: []string{"middle:stubborn"}, leaves: true},
		{name: "triple fork", programs: []string{"middle:middle:hold"}, leaves: true},
		{name: "holds output", programs: []string{"hold", "middle:hold"}, leaves: true},
		{name: "no environment", programs: []string{"bare:stubborn"}},
		{name: "no environment, double fork", programs: []string{"bare:middle:stubborn"}, leaves: true, concealed: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.leaves && s.o.Survivors || c.concealed && !s.o.Concealed {
				t.Skip("this driver cannot find these here, and says so")
			}
			t.Parallel()
			r := s.start(t, d, sandbox.Spec{}, append([]string{"tree"}, c.programs...)...)
			r.answer()
			// One that is between fork and exec shows nothing yet.
			poll(t, "all processes to run", func() bool { return s.running(t, r.token, 1+len(c.programs)) })
			r.stop(20 * time.Millisecond)
			if left := processes(t, r.token); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
			if e := r.Exit(); !e.Stopped || e.OOM {
				t.Errorf("exit %+v, want stopped", e)
			}
		})
	}
}

func testGrace(t *testing.T, s *suite) {
	t.Run("used", func(t *testing.T) {
		r := s.start(t, s.driver(t), sandbox.Spec{}, "polite")
		poll(t, "ready", func() bool { return strings.Contains(r.out.String(), "ready") })
		start := time.Now()
		r.stop(patience)
		if d := time.Since(start); d > patience/2 {
			t.Errorf("Stop took %s although the guest ended at once", d)
		}
		if !strings.Contains(r.out.String(), "goodbye") {
			t.Errorf("the guest was not asked to end; output %q", r.out)
		}
	})
	t.Run("shortened", func(t *testing.T) {
		r := s.start(t, s.driver(t), sandbox.Spec{}, "stubborn")
		poll(t, "ready", func() bool { return strings.Contains(r.out.String(), "ready") })
		var long sync.WaitGroup
		long.Go(func() { r.Stop(time.Hour) })
		poll(t, "the long Stop has begun", func() bool { return strings.Contains(r.out.String(), "refused") })
		r.stop(10 * time.Millisecond)
		long.Wait()
	})
}

func testStopAgain(t *testing.T, s *suite) {
	r := s.start(t, s.driver(t), sandbox.Spec{}, "tree", "stubborn")
	r.answer()
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			r.Stop(time.Duration(i) * time.Millisecond)
			if left := processes(t, r.token); len(left) > 0 {
				t.Errorf("a Stop returned while there was %q", left)
			}
			_ = r.Usage()
			r.Flush()
		})
	}
	all.Wait()
	r.stop(time.Hour)
	r.ended()
	// Stop beside Start: whichever wins, nothing is left.
	d := s.driver(t)
	for range 20 {
		r := s.prepare(t, d, sandbox.Spec{})
		var both sync.WaitGroup
		both.Go(func() { _, _ = r.Start(t.Context(), Guest(r.token, "sleep")) })
		both.Go(func() { r.Stop(0) })
		both.Wait()
		r.ended()
		if left := processes(t, r.token); len(left) > 0 {
			t.Fatalf("left: %q", left)
		}
	}
}

func testStopFirst(t *testing.T, s *suite) {
	for _, tr := range []sandbox.Transport{sandbox.Stream, sandbox.Listen, sandbox.Dial} {
		r := s.prepare(t, s.driver(t), sandbox.Spec{Transport: tr})
		r.stop(time.Hour)
		if e := r.ended(); !e.Stopped {
			t.Errorf("exit %+v, want stopped", e)
		}
		if _, err := r.Start(t.Context(), Guest(r.token, "sleep")); err == nil {
			t.Error("started after Stop")
		}
	}
}

func testMemory(t *testing.T, s *suite) {
	if !s.o.Memory {
		t.Skip("memory is not limited here")
	}
	for _, program := range []string{"hog", "hogchild"} {
		r := s.start(t, s.driver(t), sandbox.Spec{Limits: sandbox.Limits{MemoryBytes: 96 << 20}}, program, "2000")
		e := r.ended()
		if !e.OOM || e.Stopped {
			t.Errorf("%s: exit %+v, want out of memory", program, e)
		}
		if out := r.out.String(); !strings.Contains(out, "before") || strings.Contains(out, "survived") {
			t.Errorf("%s: output %q", program, tail(out))
		}
		r.stop(0)
		if left := processes(t, r.token); len(left) > 0 {
			t.Errorf("%s: left: %q", program, left)
		}
		if u := r.Usage(); u.MemoryPeak < 90<<20 {
			t.Errorf("%s: memory peak %d, want about the limit", program, u.MemoryPeak)
		}
	}
}

func testProcesses(t *testing.T, s *suite) {
	if !s.o.Processes {
		t.Skip("processes are not limited here")
	}
	// Threads count as well, and Go has some.
	r := s.start(t, s.driver(t), sandbox.Spec{Limits: sandbox.Limits{Processes: 60}}, "crowd", "200")
	poll(t, "the guest has met its limit, or ended", func() bool {
		select {
		case <-r.Done():
			return true // Go gives up when it gets no thread
		default:
			return strings.Contains(r.out.String(), "started")
		}
	})
	if n := len(processes(t, r.token)); n > 60 || strings.Contains(r.out.String(), "started 200") {
		t.Errorf("%d processes, limit is 60; output %q", n, tail(r.out.String()))
	}
	r.stop(0)
	if left := processes(t, r.token); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// testSweep kills a host that has guests.
func testSweep(t *testing.T, s *suite, frozen bool) {
	if s.o.Survivors || frozen && !s.freezable(t) {
		t.Skip("this driver cannot freeze, or not find what a killed host left, and says so")
	}
	dir := t.TempDir()
	token := "token-" + filepath.Base(t.TempDir()) + fmt.Sprint(os.Getpid(), "-", time.Now().UnixNano())
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	neighbour := s.start(t, s.driver(t), sandbox.Spec{}, "tree", "middle:sleep")
	neighbour.answer()

	host := exec.Command(self, asHost, s.name, dir, token)
	if frozen {
		host.Args = append(host.Args, "frozen")
	}
	host.Stderr = os.Stderr
	out, err := host.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Start(); err != nil {
		t.Fatal(err)
	}
	said, err := bufio.NewReader(out).ReadString('\n')
	before := processes(t, token)
	_ = host.Process.Kill()
	go func() { _, _ = io.Copy(io.Discard, out) }()
	_ = host.Wait()
	if err != nil || said != "ready\n" {
		t.Fatalf("host said %q, %v", said, err)
	}
	if len(before) < 8 && !s.o.Opaque || len(before) < 1+len(hostGuests) {
		t.Fatalf("only %d processes before: %q", len(before), before)
	}

	if s.o.Dependent && !(frozen && s.o.Icebound) {
		poll(t, "main processes have died with the host", func() bool {
			return !slices.ContainsFunc(processes(t, token), func(args string) bool { return strings.Contains(args, " tree ") || s.o.Opaque })
		})
	}
	d, err := s.open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	own := s.start(t, d, sandbox.Spec{}, "tree", "middle:sleep")
	own.answer()
	n, err := d.Sweep(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if left := processes(t, token); len(left) > 0 {
		t.Errorf("left after Sweep: %q", left)
	}
	// The first guest is one process, which the parent-death signal may have ended without a trace; in a pid namespace all are.
	least := len(hostGuests) - 1
	if d.Traits().Mounts {
		least = 0
	}
	// More may be found: what an earlier process left whose folder had the same number.
	if n < least {
		t.Errorf("Sweep counted %d Sandboxes, want %d at least", n, least)
	}
	if n, err := d.Sweep(t.Context()); n != 0 || err != nil {
		t.Errorf("second Sweep: %d, %v", n, err)
	}
	for name, r := range map[string]*trial{"other folder": neighbour, "same folder": own} {
		if got := len(processes(t, r.token)); got != 2 && !s.o.Opaque || got == 0 {
			t.Errorf("%s: %d processes of a living host are left, want 2", name, got)
		}
	}
	own.stop(0)
}

func testLeaks(t *testing.T, s *suite) {
	d := s.driver(t)
	cycle := func(i int) {
		spec := sandbox.Spec{Transport: sandbox.Transport(i % 3), Limits: sandbox.Limits{MemoryBytes: 256 << 20, Processes: 100}}
		r := &trial{t: t, out: &Output{}, token: "leak"}
		spec.ID, spec.Output = "leak", r.out
		var err error
		if r.Sandbox, err = d.Prepare(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		defer r.Stop(0)
		c := sandbox.Code{Command: []string{"/bin/sleep", "100"}}
		switch i % 4 {
		case 0:
			c.Command = []string{"/bin/sh", "-c", "exit 0"}
		case 1:
			c.Command = []string{"/no/such/program"}
		case 2:
			return // never started
		}
		if _, err := r.Start(t.Context(), c); err != nil {
			return
		}
		if i%4 == 0 {
			r.ended()
		}
	}
	rounds := s.o.Cycles
	if rounds == 0 {
		rounds = 3000
	}
	if testing.Short() {
		rounds = min(rounds, 200)
	}
	for i := range min(24, rounds) { // what is made once
		cycle(i)
	}
	fds, goroutines := openDescriptors(), runtime.NumGoroutine()
	asBefore := func() bool { return openDescriptors() <= fds && runtime.NumGoroutine() <= goroutines }
	func() {
		// What only the garbage collector closes is a leak as well.
		defer debug.SetGCPercent(debug.SetGCPercent(-1))
		for i := range min(60, rounds) {
			cycle(i)
		}
		poll(t, "descriptors and goroutines are as before, without the garbage collector", asBefore)
	}()
	for i := range rounds {
		cycle(i)
	}
	poll(t, "descriptors and goroutines are as before", asBefore)
}

func openDescriptors() int {
	names, err := os.ReadDir("/dev/fd")
	if err != nil {
		return 0
	}
	return len(names)
}
