// Package sandboxtest is the conformance suite of sandbox drivers: hostile guests, and a host that is killed.
//
// Main function: [Run]. A package that calls it has [Main] as its TestMain, because the guests are the test binary itself, run
// again; no interpreter is needed.
//
// Guarantees:
//
//  1. Every guarantee of package sandbox has a test here that fails when it is broken.
//  2. Every row of the catalogue of hostile guests holds in each mode of a driver, or says why not; what harms nothing is then seen to
//     succeed, so that the attack is known to be one. [Book] makes a table of it.
//  3. Processes are counted from outside, by a token in their arguments, whatever environment, session or namespace they are in.
//
// It does not test what a driver promises beyond the contract.
package sandboxtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/sandbox"
)

// Open opens the driver under test for a runtime folder.
type Open func(dir string) (sandbox.Driver, error)

// Options say what a driver adds and what this machine lets it do.
type Options struct {
	Extra       []string // names of variables that it adds to the environment
	Memory      bool     // Limits.MemoryBytes is enforced
	Processes   bool     // Limits.Processes is enforced
	Processors  bool     // Limits.MilliCPU is enforced
	Concealed   bool     // finds also processes without parent, session and environment of the Sandbox
	Survivors   bool     // cannot find what left the process group, nor anything after kill -9
	Dependent   bool     // the main process of a guest dies with the host, without Sweep
	Icebound    bool     // what is frozen does not die with the host, but only in Sweep
	Descriptors bool     // guests can see their descriptors in /proc/self/fd
	Mode        string   // the driver's way of working, as the catalogue's table has it
	Isolated    bool     // guests have files, processes and a network of their own
	Separate    bool     // each Sandbox is another user for the host
	Charged     bool     // Limits.MemoryBytes counts memory that is in no process, too
	Book        *Book    // takes the catalogue's verdicts; may be nil
	// Connected opens the driver with a network. Egress makes one that allows everything but what no guest may reach, from how names are
	// looked up and connections are made. Both or none.
	Connected func(dir string, e sandbox.Egress) (sandbox.Driver, error)
	Egress    func(resolve func(ctx context.Context, name string) ([]netip.Addr, error), dial func(ctx context.Context, to netip.AddrPort) (net.Conn, error)) sandbox.Egress
	// Again has the next Sandbox of a driver be the same user for the host, and have the same names there, as the last one, which is stopped.
	// nil where a driver does not tell them apart.
	Again func(d sandbox.Driver)
	// Walled: guests without files of their own are confined to what they are given, by Landlock and a filter of system calls.
	Walled bool
	// Scoped: Landlock keeps the signals of such guests to themselves, too.
	Scoped bool
	// Opaque: the host does not see a guest's processes, but some with Spec.ID in their arguments as long as there are any.
	Opaque bool
	// Kernel: a guest has a kernel of its own, whose files in /proc and /dev, priorities and debugging are nobody else's.
	Kernel bool
	Cycles int // how often the test for leaks starts and stops; 3000 when zero, fewer in short tests
}

// patience bounds every wait. It is long since machines are slow, and never waited for when all is well.
const patience = time.Minute

// Run runs the suite. name is the driver's in Main.
func Run(t *testing.T, name string, open Open, o Options) {
	s := &suite{name: name, open: open, o: o}
	var passed sync.Map // by name of test or row
	t.Run("each", func(t *testing.T) {
		for _, c := range []struct {
			name string
			test func(*testing.T, *suite)
		}{
			{"Environment_IsExact", testEnvironment},
			{"Surroundings_AreNotInherited", testSurroundings},
			{"Output_IsCompleteAndInOrder", testOutput},
			{"Output_CanBeOpenedByPath", testReopenedOutput},
			{"Output_OfMegabytesHoldsUpNobody", testFlood},
			{"Flush_GivesAllThatWasWritten", testFlush},
			{"Exit_SaysHowItEnded", testExit},
			{"Done_ClosesWhenMainEndsAndOthersHoldOutput", testHolders},
			{"Stop_LeavesNothing", testTrees},
			{"Stop_GivesGraceAndTakesItBack", testGrace},
			{"Stop_IsIdempotentAndConcurrent", testStopAgain},
			{"Stop_BeforeStart", testStopFirst},
			{"Memory_OverLimitEndsAll", testMemory},
			{"Processes_AreLimited", testProcesses},
			{"Processors_AreLimited", testProcessors},
			{"Usage_CountsMemoryAndProcessor", testUsage},
			{"Freeze_StopsAllAndThawLetsThemGoOn", testFreeze},
			{"Freeze_KeepsWhatWasWrittenAndWhatIsSent", testFreezeLine},
			{"Freeze_IsRefusedWhereNothingRuns", testFreezeRefused},
			{"Freeze_BesideThawAndStop", testFreezeBeside},
			{"Stop_OfAFrozenSandboxLeavesNothing", testStopFrozen},
			{"Start_FailureIsClear", testStartFailure},
			{"Transport_Talks", testTransports},
			{"Beside_RunsFirstAndItsEndIsTold", testBeside},
			{"Beside_FailureIsClear", testBesideFailure},
			{"Sweep_AfterKillLeavesNothing", func(t *testing.T, s *suite) { testSweep(t, s, false) }},
			{"Sweep_AfterKillLeavesNothingFrozen", func(t *testing.T, s *suite) { testSweep(t, s, true) }},
		} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				t.Cleanup(func() { passed.Store(c.name, !t.Failed()) })
				c.test(t, s)
			})
		}
		t.Run("Catalogue", func(t *testing.T) {
			t.Parallel()
			testCatalogue(t, s, func(row string, ok bool) { passed.Store(row, ok) })
		})
	})
	if runtime.GOOS == "linux" && o.Book != nil {
		judged := verdicts(o, func(test string) bool { ok, _ := passed.Load(test); return ok == true })
		if err := o.Book.add(o.Mode, judged); err != nil {
			t.Errorf("write what the catalogue found: %v", err)
		}
	}
	// Alone, since it counts what the whole test process has open.
	t.Run("Cycles_LeakNothing", func(t *testing.T) { testLeaks(t, s) })
}

type suite struct {
	name string
	open Open
	o    Options
}

func (s *suite) driver(t *testing.T) sandbox.Driver {
	t.Helper()
	d, err := s.open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return d
}

// trial is one Sandbox in a test.
type trial struct {
	sandbox.Sandbox
	t     *testing.T
	out   *Output
	conn  sandbox.Conn
	token string
}

func (s *suite) prepare(t *testing.T, d sandbox.Driver, spec sandbox.Spec) *trial {
	t.Helper()
	r := &trial{t: t, out: &Output{}, token: "token-" + rand.Text()}
	spec.ID, spec.Output = r.token, r.out
	var err error
	if r.Sandbox, err = d.Prepare(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Stop(0)
		if r.out.clash.Load() {
			t.Error("Output was written to by two goroutines at once")
		}
	})
	return r
}

// start starts a program of this package in a new Sandbox.
func (s *suite) start(t *testing.T, d sandbox.Driver, spec sandbox.Spec, program ...string) *trial {
	t.Helper()
	r := s.prepare(t, d, spec)
	r.start(program...)
	return r
}

func (r *trial) start(program ...string) {
	r.t.Helper()
	var err error
	if r.conn, err = r.Start(r.t.Context(), Guest(r.token, program...)); err != nil {
		r.t.Fatal(err)
	}
}

// ended waits for Done.
func (r *trial) ended() sandbox.Exit {
	r.t.Helper()
	r.within("Done is not closed", r.Done())
	return r.Exit()
}

func (r *trial) within(what string, c <-chan struct{}) {
	r.t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		r.t.Fatalf("%s after %s; output:\n%s", what, patience, tail(r.out.String()))
	}
}

// answer waits for the one byte by which a guest says that it is ready.
func (r *trial) answer() {
	r.t.Helper()
	c := r.conn.Stream()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		select {
		case <-r.Done():
		case <-time.After(time.Second):
		}
		r.t.Fatalf("the guest does not answer: %v; %v; output:\n%s", err, r.Exit(), tail(r.out.String()))
	}
}

// stop stops and sees to it that this ends.
func (r *trial) stop(grace time.Duration) {
	r.t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); r.Stop(grace) }()
	r.within("Stop has not returned", done)
}

func tail(s string) string {
	if len(s) > 2000 {
		return "…" + s[len(s)-2000:]
	}
	return s
}

// Output collects what a guest writes.
type Output struct {
	mu    sync.Mutex
	b     bytes.Buffer
	busy  atomic.Bool
	clash atomic.Bool
}

// Write takes bytes, and notes when two goroutines write at once.
func (o *Output) Write(p []byte) (int, error) {
	if !o.busy.CompareAndSwap(false, true) {
		o.clash.Store(true)
	}
	defer o.busy.Store(false)
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

// String is all of it so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// Len is how much it is.
func (o *Output) Len() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Len()
}

// processes lists the command lines of living processes with a token in their arguments.
func processes(t *testing.T, token string) []string {
	t.Helper()
	var found []string
	if runtime.GOOS != "linux" {
		all, err := exec.Command("ps", "-A", "-o", "args=").Output()
		if err != nil {
			t.Fatal(err)
		}
		for l := range strings.Lines(string(all)) {
			if strings.Contains(l, token) {
				found = append(found, l)
			}
		}
		return found
	}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		args, _ := os.ReadFile(dir + "/cmdline") // empty for zombies
		if bytes.Contains(args, []byte(token)) {
			found = append(found, strings.ReplaceAll(string(args), "\x00", " "))
		}
	}
	return found
}

// running reports whether n processes with a token run at least, as far as can be seen.
func (s *suite) running(t *testing.T, token string, n int) bool {
	t.Helper()
	if s.o.Opaque {
		n = 1
	}
	return len(processes(t, token)) >= n
}

// poll waits until something is so.
func poll(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); {
		if time.Now().After(end) {
			t.Fatalf("not after %s: %s", patience, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
