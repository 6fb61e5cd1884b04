package process_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/sandbox/process"
	"github.com/ebb-run/ebb/internal/sandbox/sandboxtest"
)

var openStemmed = sandboxtest.Templated(open, process.ReadyStem, process.FromTemplate)

// TestDriver_ConformsFromTemplates runs the suite with guests that come from Templates.
func TestDriver_ConformsFromTemplates(t *testing.T) {
	m := mechanisms(t)
	o := walled(t, "", open, sandboxtest.Options{
		Extra: []string{"EBB_SANDBOX"}, Memory: true, Processes: m["process limit"].Strong, Processors: m["cpu limit"].Strong,
		Concealed: m["tree kill"].Strong, Dependent: true, Descriptors: true, Cycles: 200,
	})
	if !o.Isolated {
		t.Skip("without isolation nothing comes from a template")
	}
	connected := o.Connected
	o.Book = nil
	o.Connected = func(dir string, e sandbox.Egress) (sandbox.Driver, error) {
		return sandboxtest.Templated(func(dir string) (sandbox.Driver, error) { return connected(dir, e) }, process.ReadyStem, process.FromTemplate)(dir)
	}
	sandboxtest.Run(t, "stem", openStemmed, o)
}

// stemmed gives a Driver that comes to have stems for guests of sandboxtest, in a folder that its Sandboxes' users reach.
func stemmed(t *testing.T) *process.Driver {
	t.Helper()
	d := newDriver(t, process.Options{})
	if ok, why := d.Isolated(); !ok {
		t.Skipf("without isolation nothing comes from a template: %v", why)
	}
	return d
}

// sprout starts the guest that answers on its line, from a Template that behaves in some way, and gives the Sandbox once it has answered.
func sprout(t *testing.T, d *process.Driver, how, dir string) sandbox.Sandbox {
	t.Helper()
	sb, err := d.Prepare(t.Context(), sandbox.Spec{ID: "stem", Output: io.Discard, Limits: sandbox.Limits{MemoryBytes: 256 << 20, TmpBytes: 16 << 20, Processes: 50}})
	if err != nil {
		t.Fatal(err)
	}
	c := sandboxtest.WithTemplate(sandboxtest.Guest("token", "tree"), how)
	c.Mounts = append(c.Mounts, sandbox.Mount{Source: dir, Target: "/var/task"})
	c.Dir = "/var/task"
	conn, err := sb.Start(t.Context(), c)
	if err != nil {
		sb.Stop(0)
		t.Fatal(err)
	}
	_ = conn.Stream().SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.ReadFull(conn.Stream(), make([]byte, 1)); err != nil {
		t.Errorf("the guest does not answer: %v; %v", err, sb.Exit())
	}
	return sb
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not after a minute: " + what)
		}
	}
}

func TestStem_IsMadeWhereItWasWantedAndUsedOnce(t *testing.T) {
	t.Parallel()
	d := stemmed(t)
	sb := sprout(t, d, "", t.TempDir())
	defer sb.Stop(0)
	if process.FromTemplate(sb) {
		t.Error("the first came from a template that nobody had asked for")
	}
	for i := range 3 {
		until(t, "a stem is ready", func() bool { return d.ReadyFor("test") > 0 })
		sb := sprout(t, d, "", t.TempDir())
		if !process.FromTemplate(sb) || d.Readied() != i+1 {
			t.Errorf("start %d: from a template: %v; %d did", i, process.FromTemplate(sb), d.Readied())
		}
		sb.Stop(0)
	}
}

func TestStem_ThatIsKilledIsReplaced(t *testing.T) {
	t.Parallel()
	d := stemmed(t)
	sprout(t, d, "", t.TempDir()).Stop(0)
	until(t, "a stem is ready", func() bool { return d.ReadyFor("test") > 0 })
	for _, pid := range process.StemPids(d) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		until(t, "it has ended", func() bool {
			stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			return len(stat) == 0 || strings.Contains(string(stat), ") Z ")
		})
	}
	sb := sprout(t, d, "", t.TempDir()) // it may or may not be seen already that they have ended
	defer sb.Stop(0)
	if process.FromTemplate(sb) {
		t.Error("came from a stem that was killed")
	}
	until(t, "another one is ready", func() bool { return d.ReadyFor("test") > 0 })
}

func TestStem_OfNoUseMeansTheCommandIsRun(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"hangs", "dies"} {
		d := stemmed(t)
		sprout(t, d, how, t.TempDir()).Stop(0)
		until(t, how+": a stem is ready", func() bool { return d.ReadyFor("test") > 0 })
		sb := sprout(t, d, how, t.TempDir())
		if process.FromTemplate(sb) || d.Readied() != 0 {
			t.Errorf("%s: it became its program", how)
		}
		sb.Stop(0)
	}
	d := stemmed(t)
	for range 3 {
		sb := sprout(t, d, "deaf", t.TempDir())
		if process.FromTemplate(sb) {
			t.Error("deaf: it became its program")
		}
		sb.Stop(0)
	}
	// The one that is being made is ended by Close.
	began := time.Now()
	if err := d.Close(); err != nil || time.Since(began) > 20*time.Second {
		t.Errorf("close: %v after %s", err, time.Since(began))
	}
}

func TestStem_TwoHundredStartsAtOnce(t *testing.T) {
	t.Parallel()
	d := stemmed(t)
	dir := t.TempDir()
	sprout(t, d, "", dir).Stop(0)
	until(t, "a stem is ready", func() bool { return d.ReadyFor("test") > 0 })
	var all sync.WaitGroup
	for range 200 {
		all.Go(func() { sprout(t, d, "", dir).Stop(0) })
	}
	all.Wait()
	if n := d.Readied(); n < 1 || n > 200 {
		t.Errorf("%d came from templates", n)
	}
}

// TestStem_LeavesNothing is not parallel: it counts what the whole process has.
func TestStem_LeavesNothing(t *testing.T) {
	d := stemmed(t)
	dir := t.TempDir()
	count := func() [4]int {
		fds, _ := os.ReadDir("/proc/self/fd")
		mounts, _ := os.ReadFile("/proc/self/mountinfo")
		children := 0
		tasks, _ := filepath.Glob("/proc/self/task/*/children")
		for _, file := range tasks {
			text, _ := os.ReadFile(file)
			children += len(strings.Fields(string(text)))
		}
		return [4]int{len(fds), strings.Count(string(mounts), "\n"), children, len(process.CgroupsOf(d))}
	}
	before := count()
	rounds := 300
	if testing.Short() {
		rounds = 60
	}
	from := 0
	for i := range rounds {
		if i%3 == 0 {
			until(t, "a stem is ready", func() bool { return i == 0 || d.ReadyFor("test") > 0 })
		}
		sb := sprout(t, d, "", dir)
		if process.FromTemplate(sb) {
			from++
		}
		sb.Stop(0)
	}
	if from < rounds/3-2 {
		t.Errorf("%d of %d came from templates", from, rounds)
	}
	process.DropStems(d)
	var after [4]int
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if after = count(); after[0] <= before[0] && after[1] <= before[1] && after[2] <= before[2] && after[3] <= before[3] {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("descriptors, mounts, children, cgroups: %v, before %v", after, before)
		}
	}
}

func TestStem_HostKilledLeavesNothing(t *testing.T) {
	t.Parallel()
	if os.Getenv("EBB_TEST_STEM_HOST") != "" {
		d := newDriver(t, process.Options{Dir: os.Getenv("EBB_TEST_STEM_HOST")})
		sprout(t, d, "", "/usr/bin")
		until(t, "a stem is ready", func() bool { return d.ReadyFor("test") > 0 })
		fmt.Println("pids", process.StemPids(d))
		select {}
	}
	stemmed(t)
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run", "^TestStem_HostKilledLeavesNothing$")
	cmd.Env = append(os.Environ(), "EBB_TEST_STEM_HOST="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscanf(out, "pids [%d", &pid); err != nil {
		t.Error(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	d := newDriver(t, process.Options{Dir: dir})
	swept, err := d.Sweep(t.Context())
	if err != nil || process.HasPids(d) && swept < 2 {
		t.Errorf("swept %d: %v", swept, err)
	}
	if stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); len(stat) > 0 && !strings.Contains(string(stat), ") Z ") { // whoever has it now may not have noticed
		t.Errorf("the stem lives: %s", stat)
	}
	if left := process.CgroupsOf(d); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
