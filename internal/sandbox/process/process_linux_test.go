package process_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/sandbox/process"
	"github.com/ebb-run/ebb/internal/sandbox/sandboxtest"
	"github.com/ebb-run/ebb/internal/testkit/executable"
)

func openV1(dir string) (sandbox.Driver, error) {
	return process.OpenV1(process.Options{Dir: dir})
}

func again(d sandbox.Driver) { process.Again(own(d)) }

// own is the driver itself, of one that gives Templates to code too.
func own(d sandbox.Driver) *process.Driver {
	if over, ok := d.(interface{ Under() sandbox.Driver }); ok {
		d = over.Under()
	}
	return d.(*process.Driver)
}

// charged reports whether a cgroup counts memory.
func charged(d sandbox.Driver) bool { return process.HasMemory(own(d)) }

func newDriver(t testing.TB, o process.Options) *process.Driver {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	d, err := process.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func TestDriver_ConformsWithVersion1Alone(t *testing.T) {
	if !process.HasV1(newDriver(t, process.Options{})) {
		t.Skip("this machine has no version 1 memory and pids cgroups")
	}
	sandboxtest.Run(t, "v1", openV1, walled(t, "cgroups v1", openV1, sandboxtest.Options{
		Extra: []string{"EBB_SANDBOX"}, Memory: true, Processes: true, Concealed: true, Descriptors: true, Cycles: 600,
		Processors: mechanisms(t)["cpu limit"].Mechanism == "cgroup v1", Dependent: true, Icebound: true,
	}))
}

// TestDriver_ConformsRootless runs the suite as a user without rights, in a process of its own.
func TestDriver_ConformsRootless(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the suite runs without rights already")
	}
	t.Parallel()
	dir, err := os.MkdirTemp("", "ebb-rootless-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "process.test")
	syscall.ForkLock.RLock() // or a child that another test forks has it open, and nobody can run it
	err = errors.Join(executable.Write(program, binary), os.Chmod(dir, 0o777))
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "-test.run", "^(TestDriver_Conforms|TestDriver_ConformsWithCopies|TestDriver_ConformsWithCopiesAhead|TestDriver_ConformsFromTemplates|TestDriver_IsolatesHere|TestSandbox_HidesTheHelperFromItsGuest)$", "-test.v", "-test.short", "-sandboxtest.verdicts", filepath.Join(dir, "verdicts"))
	cmd.Dir, cmd.Env = dir, []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + dir, "HOME=" + dir, scriptsVar + "=" + copyScripts(t, dir)}
	const nobody = 65534
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestDriver_Conforms ") || !strings.Contains(string(out), "--- PASS: TestDriver_ConformsFromTemplates ") {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := python(); err == nil && (!strings.Contains(string(out), "--- PASS: TestDriver_ConformsWithCopies ") || !strings.Contains(string(out), "--- PASS: TestDriver_ConformsWithCopiesAhead ")) {
		t.Errorf("no copies without rights:\n%s", out)
	}
	if err := book.Include(filepath.Join(dir, "verdicts")); err != nil {
		t.Error(err)
	}
}

func TestDriver_IsolatesHere(t *testing.T) {
	t.Parallel()
	if ok, why := newDriver(t, process.Options{}).Isolated(); !ok {
		t.Errorf("this machine cannot isolate guests: %v", why)
	}
}

// TestSandbox_HidesTheHelperFromItsGuest matters most without rights: helper and guest are then born as the same user.
func TestSandbox_HidesTheHelperFromItsGuest(t *testing.T) {
	t.Parallel()
	for _, tr := range []sandbox.Transport{sandbox.Stream, sandbox.Dial} { // Dial has a second helper
		out := &sandboxtest.Output{}
		s, err := newDriver(t, process.Options{}).Prepare(t.Context(), sandbox.Spec{ID: "a", Output: out, Transport: tr})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Stop(0)
		script := `for p in /proc/[0-9]*; do [ $p = /proc/$$ ] && continue; for f in mem maps environ fd/5; do [ -e $p/$f ] && head -c 1 $p/$f && echo "read $p/$f"; done; ls $p/fd && echo "listed $p"; done; echo through; exit 7`
		if _, err := s.Start(t.Context(), sandbox.Code{Command: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"}}); err != nil {
			t.Fatal(err)
		}
		<-s.Done()
		s.Flush()
		text := out.String()
		if !strings.Contains(text, "through") || strings.Contains(text, "read /") || strings.Contains(text, "listed") || s.Exit().Code != 7 {
			t.Errorf("exit %+v:\n%s", s.Exit(), text)
		}
	}
}

// TestSandbox_HasWhatProgramsLinkTo: Debian's Java in /usr is a heap of links to /etc, and ends at the first use of java.security without.
func TestSandbox_HasWhatProgramsLinkTo(t *testing.T) {
	t.Parallel()
	var shown []string
	for _, pattern := range []string{"/etc/java-*", "/etc/ImageMagick-*", "/etc/perl"} {
		found, _ := filepath.Glob(pattern)
		shown = append(shown, found...)
	}
	if len(shown) == 0 {
		t.Skip("this machine has none of these programs")
	}
	out := &sandboxtest.Output{}
	s, err := newDriver(t, process.Options{}).Prepare(t.Context(), sandbox.Spec{ID: "a", Output: out})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop(0)
	if _, err := s.Start(t.Context(), sandbox.Code{Command: append([]string{"/bin/ls", "-d"}, shown...), Env: []string{"PATH=/usr/bin:/bin"}}); err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	s.Flush()
	if got, want := strings.Fields(out.String()), slices.Sorted(slices.Values(shown)); !slices.Equal(slices.Sorted(slices.Values(got)), want) {
		t.Errorf("the sandbox has %q, want %q", got, want)
	}
}

// TestConn_DialEndsWithItsContext: process 2 makes the sockets of the guest's network, and the guest can stop it.
func TestConn_DialEndsWithItsContext(t *testing.T) {
	t.Parallel()
	out := &sandboxtest.Output{}
	s, err := newDriver(t, process.Options{}).Prepare(t.Context(), sandbox.Spec{ID: "a", Output: out, Transport: sandbox.Dial})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop(0)
	script := `kill -STOP 2 && echo stopped; trap 'kill -CONT 2 && echo continued' TERM; while :; do sleep 0.01; done`
	c, err := s.Start(t.Context(), sandbox.Code{Command: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"}})
	if err != nil {
		t.Fatal(err)
	}
	says(t, s, out, "stopped")
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if _, err := c.Dial(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Dial while nobody makes sockets: %v", err)
		}
		cancel()
	}
	go s.Stop(time.Minute) // asks it to let the other go on
	says(t, s, out, "continued")
	for range 3 {
		if _, err := c.Dial(t.Context()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("Dial to nobody: %v", err)
		}
	}
	s.Stop(0)
}

func says(t *testing.T, s sandbox.Sandbox, out *sandboxtest.Output, want string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !strings.Contains(out.String(), want); s.Flush() {
		if time.Now().After(end) {
			t.Fatalf("it does not say %q but %q", want, out.String())
		}
	}
}

func TestUsage_CountsTheProcessorOfDescendants(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]sandboxtest.Open{"process": open, "v1": openV1} {
		d, err := open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = d.Close() })
		if !process.CountsCPU(d.(*process.Driver)) {
			t.Logf("%s: this machine counts no processor time by cgroup", name)
			continue
		}
		out := &sandboxtest.Output{}
		s, err := d.Prepare(t.Context(), sandbox.Spec{ID: "a", Output: out})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Stop(0)
		if _, err := s.Start(t.Context(), sandboxtest.Guest("t", "tree", "setsid:burn:100", "middle:burn:100")); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(30 * time.Second); strings.Count(out.String(), "burnt") < 2; s.Flush() {
			if time.Now().After(end) {
				t.Fatalf("%s: not burnt; output %q", name, out.String())
			}
		}
		if u := s.Usage(); u.CPU < 200*time.Millisecond || u.CPU > time.Minute {
			t.Errorf("%s: %s of processor time, of which two children have used 100 ms each", name, u.CPU)
		}
	}
}

func TestSandbox_WeighsAsItsShareSays(t *testing.T) {
	t.Parallel()
	d := newDriver(t, process.Options{})
	if !mechanisms(t)["cpu limit"].Strong {
		t.Skip("this machine has no cgroup for processors")
	}
	// cpu.shares and cpu.weight of a group that nobody gave any: 1024, 100.
	for share, want := range map[int64][2]string{
		0: {"", ""}, 1: {"2", "1"}, 72: {"73", "7"}, 1000: {"1024", "100"}, 5788: {"5926", "578"}, 1 << 40: {"262144", "10000"},
	} {
		s, err := d.Prepare(t.Context(), sandbox.Spec{ID: "a", Limits: sandbox.Limits{ShareCPU: share}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Start(t.Context(), sandbox.Code{Command: []string{"/bin/sleep", "1000"}}); err != nil {
			t.Fatal(err)
		}
		v1, v2 := process.WeightOf(d)
		if v1 != want[0] && v2 != want[1] || v1+v2 == "" && share > 0 {
			t.Errorf("share %d: cpu.shares %q, cpu.weight %q, want one of %q", share, v1, v2, want)
		}
		s.Stop(0)
	}
}

func TestSandbox_LeavesNoCgroupAndNoFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := newDriver(t, process.Options{Dir: dir, Plain: true})
	s, err := d.Prepare(t.Context(), sandbox.Spec{ID: "a"})
	if err != nil {
		t.Fatal(err)
	}
	script := `mkdir -p "$TMPDIR/a/b" && echo x > "$TMPDIR/a/b/c" && chmod 0 "$TMPDIR/a" && echo >&3; exec sleep 1000`
	c, err := s.Start(t.Context(), sandbox.Code{Command: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=" + os.Getenv("PATH")}})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Stream().SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.ReadFull(c.Stream(), make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if found, _ := filepath.Glob(filepath.Join(dir, "tmp", "*", "*")); len(found) != 1 {
		t.Errorf("while it runs: temp folders %q, want one", found)
	}
	s.Stop(0)
	if left := process.CgroupsOf(d); len(left) > 0 {
		t.Errorf("cgroups left: %q", left)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "tmp", "*", "*")); len(left) > 0 {
		t.Errorf("temp folders left: %q", left)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*", "*")); len(left) > 0 {
		t.Errorf("left in the runtime folder: %q", left)
	}
	if _, err := d.Prepare(t.Context(), sandbox.Spec{ID: "b"}); errs.CodeOf(err) != errs.Unavailable {
		t.Errorf("Prepare after Close: %v", err)
	}
}

func TestSandbox_InheritsNothingThatTheHostWasBornWith(t *testing.T) {
	t.Parallel()
	fd, err := syscall.Open("/dev/zero", syscall.O_RDONLY, 0) // without close-on-exec, as from a careless parent
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	out := &sandboxtest.Output{}
	s, err := newDriver(t, process.Options{}).Prepare(t.Context(), sandbox.Spec{ID: "a", Output: out})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop(0)
	if _, err := s.Start(t.Context(), sandboxtest.Guest("t", "surroundings")); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.Done():
	case <-time.After(30 * time.Second):
		t.Fatalf("the guest does not end; output:\n%s", out.String())
	}
	if got := out.String(); strings.Contains(got, "zero") || !strings.Contains(got, "fd 3 socket") {
		t.Errorf("inherited:\n%s", got)
	}
}

func TestSandbox_DoesNotTakeTheProcessorFromTheHost(t *testing.T) {
	t.Parallel()
	out := &sandboxtest.Output{}
	s, err := newDriver(t, process.Options{}).Prepare(t.Context(), sandbox.Spec{ID: "a", Output: out})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop(0)
	if _, err := s.Start(t.Context(), sandbox.Code{Command: []string{"/bin/cat", "/proc/self/stat"}}); err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	s.Flush()
	// proc_pid_stat(5): the field 41 is the scheduling policy, 3 is SCHED_BATCH.
	if f := strings.Fields(out.String()); len(f) < 41 || f[40] != "3" {
		t.Errorf("policy %q of %q", f[min(40, len(f)-1):], out.String())
	}
}

func TestSandbox_ATempFolderInMemoryIsNoHeap(t *testing.T) {
	t.Parallel()
	const mb = 1 << 20
	for name, c := range map[string]struct {
		script string
		oom    bool
		want   string
	}{
		"files within their limit":   {"head -c 60m /dev/zero > /tmp/a && echo fine", false, "fine\n"},
		"files over their limit":     {"head -c 80m /dev/zero > /tmp/a 2>/dev/null || echo full", false, "full\n"},
		"programs over their limit":  {"(head -c 60m /dev/zero; sleep 10) | tail -n 1 > /dev/null; echo not killed", true, ""},
		"both, each within its own":  {"head -c 60m /dev/zero > /tmp/a; head -c 10m /dev/zero | tail -n 1 > /dev/null; echo fine", false, "fine\n"},
		"both, programs over theirs": {"head -c 50m /dev/zero > /tmp/a; (head -c 40m /dev/zero; sleep 10) | tail -n 1 > /dev/null; echo not killed", true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDriver(t, process.Options{})
			if !charged(d) {
				t.Skip("no cgroup counts memory on this machine")
			}
			out := &sandboxtest.Output{}
			s, err := d.Prepare(t.Context(), sandbox.Spec{ID: "a", Output: out, Limits: sandbox.Limits{MemoryBytes: 32 * mb, TmpBytes: 64 * mb}})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Stop(0)
			if _, err := s.Start(t.Context(), sandbox.Code{Command: []string{"/bin/sh", "-c", c.script}, Env: []string{"PATH=/usr/bin:/bin"}}); err != nil {
				t.Fatal(err)
			}
			<-s.Done()
			s.Flush()
			if s.Exit().OOM != c.oom || out.String() != c.want {
				t.Errorf("%v, output %q; want out of memory %v, %q", s.Exit(), out.String(), c.oom, c.want)
			}
		})
	}
}

func TestSandbox_KillsWhatItsMainProcessLeaves(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]process.Options{"process": {}, "plain": {NoCgroups: true}} {
		s, err := newDriver(t, o).Prepare(t.Context(), sandbox.Spec{ID: "a"})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Stop(0)
		c, err := s.Start(t.Context(), sandbox.Code{Command: []string{"/bin/sh", "-c", "sleep 1000 & exit 0"}})
		if err != nil {
			t.Fatal(err)
		}
		// The one that is left holds descriptor 3; no Stop.
		_ = c.Stream().SetReadDeadline(time.Now().Add(30 * time.Second))
		if _, err := c.Stream().Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%s: read: %v, want EOF", name, err)
		}
	}
}

func TestSandbox_TooSmallToStartHarmsOnlyItself(t *testing.T) {
	t.Parallel()
	d := newDriver(t, process.Options{})
	env := []string{"LONG=" + strings.Repeat("x", 100_000)}
	for _, limit := range []int64{1, 64 << 10, 1 << 20, 4<<20 - 1} {
		_, err := d.Prepare(t.Context(), sandbox.Spec{ID: "a", Limits: sandbox.Limits{MemoryBytes: limit}})
		if errs.CodeOf(err) != errs.Invalid || errs.HintOf(err) == "" {
			t.Errorf("%d bytes: %v; want a refusal with a hint", limit, err)
		}
	}
	s, err := d.Prepare(t.Context(), sandbox.Spec{ID: "a", Limits: sandbox.Limits{MemoryBytes: 4 << 20, Processes: 1}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop(0)
	if _, err := s.Start(t.Context(), sandbox.Code{Command: []string{"/bin/sh", "-c", "sleep 1000 & wait"}, Env: env}); err != nil {
		t.Fatal(err)
	}
	if process.HasPids(d) {
		<-s.Done() // it may not have a second process
		if s.Exit() == (sandbox.Exit{}) {
			t.Error("the guest was satisfied")
		}
	}
	s.Stop(0)
	if left := process.CgroupsOf(d); len(left) > 0 {
		t.Errorf("cgroups left: %q", left)
	}
}

func TestSweep_LeavesLivingRunsOfTheSameFolderAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, b := newDriver(t, process.Options{Dir: dir}), newDriver(t, process.Options{Dir: dir})
	s, err := a.Prepare(t.Context(), sandbox.Spec{ID: "a"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop(0)
	if _, err := s.Start(t.Context(), sandboxtest.Guest("t", "sleep")); err != nil {
		t.Fatal(err)
	}
	if n, err := b.Sweep(t.Context()); n != 0 || err != nil {
		t.Errorf("Sweep: %d, %v", n, err)
	}
	select {
	case <-s.Done():
		t.Errorf("the guest of a living driver was ended: %v", s.Exit())
	default:
	}
}

func TestSweep_EndsWithItsContext(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := newDriver(t, process.Options{Dir: dir})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := d.Sweep(ctx)
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Sweep: %v", err)
	}
}

func TestSweep_TakesDamagedRecords(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := newDriver(t, process.Options{Dir: dir})
	for name, text := range map[string]string{"aaaaaaaaaaaa.json": "{", "bbbbbbbbbbbb.json": ""} {
		if err := os.WriteFile(filepath.Join(dir, "runs", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	newer := filepath.Join(dir, "runs", "cccccccccccc.json")
	if err := os.WriteFile(newer, []byte(`{"version":99}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "tmp", "aaaaaaaaaaaa", "7"), 0o700); err != nil {
		t.Fatal(err)
	}
	if n, err := d.Sweep(t.Context()); n != 1 || err != nil {
		t.Errorf("Sweep: %d, %v; want the one Sandbox with a folder", n, err)
	}
	left, _ := filepath.Glob(filepath.Join(dir, "runs", "*.json"))
	if len(left) != 2 { // the driver's own, and the newer one
		t.Errorf("records left: %q", left)
	}
	if _, err := os.Stat(newer); err != nil {
		t.Errorf("a newer version's record was touched: %v", err)
	}
}

func TestCgroupMount_FindsFolders(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ point, root, path, want string }{
		"whole hierarchy":       {"/cg", "/", "/a/b", "/cg/a/b"},
		"own namespace":         {"/cg", "/", "/", "/cg"},
		"part of the hierarchy": {"/cg", "/docker/x", "/docker/x/y", "/cg/y"},
		"outside":               {"/cg", "/docker/x", "/docker/z", "/cg"},
	} {
		if got := process.Folder(c.point, c.root, c.path); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// BenchmarkStart compares a Sandbox's life with the bare fork and exec of the same program.
func BenchmarkStart(b *testing.B) {
	const program = "/bin/true"
	b.Run("bare", func(b *testing.B) {
		for b.Loop() {
			pid, _, err := syscall.StartProcess(program, []string{program}, &syscall.ProcAttr{})
			if err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			_, _ = syscall.Wait4(pid, nil, 0, nil)
			b.StartTimer()
		}
	})
	for name, c := range map[string]struct {
		o process.Options
		l sandbox.Limits
	}{"isolated": {}, "plain": {o: process.Options{Plain: true}}, "plain without cgroups": {o: process.Options{Plain: true, NoCgroups: true}}, "share": {l: sandbox.Limits{ShareCPU: 72}}, "quota": {l: sandbox.Limits{ShareCPU: 72, MilliCPU: 72}}} {
		b.Run(name, func(b *testing.B) {
			d := newDriver(b, c.o)
			c.l.MemoryBytes, c.l.TmpBytes, c.l.Processes = 128<<20, 512<<20, 1024
			var prepare, start, stop time.Duration
			for b.Loop() {
				t0 := time.Now()
				s, err := d.Prepare(b.Context(), sandbox.Spec{ID: "a", Limits: c.l})
				if err != nil {
					b.Fatal(err)
				}
				t1 := time.Now()
				if _, err := s.Start(b.Context(), sandbox.Code{Command: []string{program}}); err != nil {
					b.Fatal(err)
				}
				t2 := time.Now()
				b.StopTimer()
				s.Stop(0)
				stop += time.Since(t2)
				b.StartTimer()
				prepare, start = prepare+t1.Sub(t0), start+t2.Sub(t1)
			}
			n := float64(b.N)
			b.ReportMetric(float64(prepare.Microseconds())/n, "µs-prepare")
			b.ReportMetric(float64(start.Microseconds())/n, "µs-start")
			b.ReportMetric(float64(stop.Microseconds())/n, "µs-stop")
		})
	}
}

// BenchmarkInvocation measures what is called around each Invocation.
func BenchmarkInvocation(b *testing.B) {
	for name, o := range map[string]process.Options{"process": {}, "without cgroups": {NoCgroups: true}} {
		s, err := newDriver(b, o).Prepare(b.Context(), sandbox.Spec{ID: "a"})
		if err != nil {
			b.Fatal(err)
		}
		defer s.Stop(0)
		if _, err := s.Start(b.Context(), sandbox.Code{Command: []string{"/bin/sleep", "1000"}}); err != nil {
			b.Fatal(err)
		}
		b.Run("Usage/"+name, func(b *testing.B) {
			for b.Loop() {
				s.Usage()
			}
		})
		b.Run("Flush/"+name, func(b *testing.B) {
			for b.Loop() {
				s.Flush()
			}
		})
	}
}

// BenchmarkThaw compares a question to a guest with one to a guest that is thawed for it.
func BenchmarkThaw(b *testing.B) {
	for name, open := range map[string]sandboxtest.Open{"process": open, "v1": openV1, "plain": openPlain} {
		for _, frozen := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/frozen=%v", name, frozen), func(b *testing.B) {
				d, err := open(b.TempDir())
				if err != nil {
					b.Fatal(err)
				}
				defer d.Close()
				s, err := d.Prepare(b.Context(), sandbox.Spec{ID: "a", Output: io.Discard})
				if err != nil {
					b.Fatal(err)
				}
				defer s.Stop(0)
				c, err := s.Start(b.Context(), sandboxtest.Guest("t", "line"))
				if err != nil {
					b.Fatal(err)
				}
				var all, thaws, freezes []time.Duration
				for b.Loop() {
					b.StopTimer()
					if frozen {
						t0 := time.Now()
						if err := s.Freeze(); err != nil {
							b.Fatal(err)
						}
						freezes = append(freezes, time.Since(t0))
					}
					time.Sleep(2 * time.Millisecond)
					b.StartTimer()
					t0 := time.Now()
					if err := s.Thaw(); err != nil {
						b.Fatal(err)
					}
					thaws = append(thaws, time.Since(t0))
					if _, err := c.Stream().Write([]byte{0, 0, 0, 1}); err != nil {
						b.Fatal(err)
					}
					if _, err := io.ReadFull(c.Stream(), make([]byte, 1)); err != nil {
						b.Fatal(err)
					}
					all = append(all, time.Since(t0))
				}
				for what, d := range map[string][]time.Duration{"answer": all, "thaw": thaws, "freeze": freezes} {
					if slices.Sort(d); len(d) > 0 {
						b.ReportMetric(float64(d[len(d)/2].Microseconds()), "µs-"+what+"-p50")
						b.ReportMetric(float64(d[len(d)*99/100].Microseconds()), "µs-"+what+"-p99")
					}
				}
			})
		}
	}
}

func TestOpen_RunsTheHelperByANumberThatNoChildReuses(t *testing.T) {
	t.Parallel()
	if fd := process.ImageFD(newDriver(t, process.Options{})); fd < 32 {
		t.Errorf("descriptor %d", fd)
	}
}
