package process_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/egress"
	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/sandbox/process"
	"github.com/ebb-run/ebb/internal/sandbox/process/helper"
	"github.com/ebb-run/ebb/internal/sandbox/sandboxtest"
	"golang.org/x/sys/unix"
)

// TestStart_LeavesNothingWhereverItFails has each step of a Sandbox's start fail, and the helper end at each. It counts descriptors, so it
// is in a process of its own.
func TestStart_LeavesNothingWhereverItFails(t *testing.T) {
	const alone = "EBB_TEST_FAULTS"
	if os.Getenv(alone) == "" {
		t.Parallel()
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), alone+"=yes")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	p, err := egress.NewPolicy(egress.AllowList, []string{"localhost:5432"})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	d := newDriver(t, process.Options{Dir: dir, Egress: egress.New(egress.Options{Policy: func(string) egress.Policy { return p }})})
	if ok, why := d.Isolated(); !ok {
		t.Skipf("this machine cannot isolate guests: %v", why)
	}
	for _, tr := range []sandbox.Transport{sandbox.Listen, sandbox.Dial, sandbox.Stream} {
		var numbers []uint64
		process.Spoil(d, func(steps []byte) {
			for at := 0; at < len(steps); at += helper.FailureSize {
				numbers = append(numbers, binary.LittleEndian.Uint64(steps[at:]))
			}
		})
		begin(t, d, tr) // also what is made once
		before := things(t, dir)
		for name, number := range map[string]uint64{"fails": 0xffff, "ends": unix.SYS_EXIT_GROUP} {
			started := 0
			seen := map[uint64]int{}
			for n := range numbers {
				if seen[numbers[n]]++; seen[numbers[n]] > 2 && n%29 != 0 {
					continue // the same again
				}
				process.Spoil(d, func(steps []byte) { binary.LittleEndian.PutUint64(steps[n*helper.FailureSize:], number) })
				if begin(t, d, tr) {
					started++
				}
			}
			if started == 0 || started > len(numbers)/2 {
				t.Errorf("transport %v, a step %s: %d of %d starts went well", tr, name, started, len(numbers))
			}
			var after []int
			for end := time.Now().Add(10 * time.Second); ; { // goroutines that have nothing left to do take a moment to end
				if after = things(t, dir); !more(after, before) || time.Now().After(end) {
					break
				}
				runtime.Gosched()
			}
			if more(after, before) {
				t.Errorf("transport %v, a step %s: descriptors, mounts, children, goroutines, folders: before %d, after %d", tr, name, before, after)
			}
		}
		process.Spoil(d, nil)
		if !begin(t, d, tr) {
			t.Error("nothing starts any more")
		}
	}
	if left := process.CgroupsOf(d); len(left) > 0 {
		t.Errorf("cgroups left: %q", left)
	}
}

// begin starts and stops a Sandbox, and reports whether it was started.
func begin(t *testing.T, d *process.Driver, tr sandbox.Transport) bool {
	t.Helper()
	out := &sandboxtest.Output{}
	s, err := d.Prepare(t.Context(), sandbox.Spec{ID: "a", Output: out, Transport: tr, Limits: sandbox.Limits{MemoryBytes: 64 << 20, Processes: 20, TmpBytes: 1 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop(0)
	_, err = s.Start(t.Context(), sandbox.Code{Command: []string{"/bin/sleep", "1000"}})
	return err == nil
}

// things counts what this process holds, and its machine because of it: descriptors, mounts, children, goroutines, files and folders.
func things(t *testing.T, dir string) []int {
	t.Helper()
	count := func(dir string) int { all, _ := os.ReadDir(dir); return len(all) }
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	children := 0
	threads, _ := os.ReadDir("/proc/self/task")
	for _, thread := range threads {
		text, _ := os.ReadFile("/proc/self/task/" + thread.Name() + "/children")
		children += len(strings.Fields(string(text)))
	}
	return []int{count("/proc/self/fd"), bytes.Count(mounts, []byte("\n")), children, runtime.NumGoroutine(), count(dir)}
}

// more reports whether there is more of anything than before.
func more(now, before []int) bool {
	return slices.ContainsFunc([]int{0, 1, 2, 3, 4}, func(k int) bool { return now[k] > before[k] })
}
