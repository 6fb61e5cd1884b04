package test

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const stubbornYAML = `service: stubborn
provider:
  name: aws
  memorySize: 128
  timeout: 1
package:
  patterns: ["!**", "bootstrap", "h.py"]
functions:
  go:
    runtime: provided.al2023
    handler: bootstrap
    events:
      - httpApi: GET /go
  python:
    runtime: python3.13
    handler: h.f
    events:
      - httpApi: GET /python
`

const stubbornPython = `import os, signal, subprocess, sys, time
def f(event, context):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open("/tmp/left", "w").write("x" * 65536)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(1000)
        time.sleep(1000)
    print("held", flush=True)
    time.sleep(1000)
`

// Functions that time out, and do what they can to leave something behind, leave nothing: EBB_TEST_TIMEOUTS says how many calls do.
func TestTimeouts_LeaveEverythingAtItsBaseline(t *testing.T) {
	// Not parallel: it looks at what the whole machine holds.
	calls, clients := 300, 60
	if n, err := strconv.Atoi(os.Getenv("EBB_TEST_TIMEOUTS")); err == nil {
		calls, clients = n, 150
	}
	dir := project(t, map[string]string{"serverless.yml": stubbornYAML, "h.py": stubbornPython})
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "bootstrap"), "./testdata/stubborn")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the function: %v\n%s", err, out)
	}
	data := filepath.Join(dir, ".ebb")
	s := ebb.Start(t, dir, data, "up", "--listen", "127.0.0.1:0", "--no-watch", "--memory", "32768", "--queue-timeout", "120s", "--log-max", "1")
	client := crowd(clients)
	timeOut := func(n int) {
		var wg sync.WaitGroup
		next := make(chan int)
		for range clients {
			wg.Go(func() {
				for i := range next {
					path := "/go"
					if i%8 == 0 {
						path = "/python"
					}
					// As a gateway of AWS answers for a function that has not.
					if status, body := get(client, s.Ready.Gateway+path); status != http.StatusServiceUnavailable && status != http.StatusInternalServerError {
						t.Errorf("call %d got %d %.300s", i, status, body)
					}
				}
			})
		}
		for i := range n {
			next <- i
		}
		close(next)
		wg.Wait()
		client.CloseIdleConnections()
	}
	timeOut(clients) // what is made once is there now
	var before, after map[string]int
	eventually(t, "no processes after the first calls", func() bool {
		before = held(t, s.PID(), data)
		return before["processes"] <= slack["processes"] && before["cgroups"] <= slack["cgroups"]
	})
	timeOut(calls)
	left := func() (more []string) {
		after = held(t, s.PID(), data)
		for _, what := range slices.Sorted(maps.Keys(after)) {
			if after[what] > before[what]+slack[what] {
				more = append(more, fmt.Sprintf("%s: %d, were %d", what, after[what], before[what]))
			}
		}
		return more
	}
	defer func() { t.Logf("%d calls timed out: before %v, after %v", calls, before, after) }()
	settled := false
	for range 300 {
		if settled = len(left()) == 0; settled {
			break
		}
		time.Sleep(100 * time.Millisecond) // polling, not timing
	}
	if !settled {
		t.Errorf("left behind: %s", strings.Join(left(), "; "))
	}
}

// slack is what may come and go by itself.
var slack = map[string]int{
	"threads":    24,
	"data files": 4, // of the store
	// An interpreter that copies are made of stays for some minutes, and is replaced after a number of them. Up to four copies wait in Sandboxes, of
	// two processes and up to six cgroups each, which the host holds a dozen descriptors for; so does another one that is being made or ended.
	"processes": 12, "cgroups": 32, "network namespaces of processes": 6,
	"descriptors": 80, // the server's own files and connections too
}

// held counts what a server and its Sandboxes hold of the machine.
func held(t *testing.T, pid int, data string) map[string]int {
	t.Helper()
	all := map[string]int{"processes": 0, "cgroups": 0}
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	for what, sub := range map[string]string{"descriptors": "fd", "threads": "task"} {
		entries, err := os.ReadDir(filepath.Join(proc, sub))
		if err != nil {
			t.Fatal(err)
		}
		all[what] = len(entries)
	}
	mounts, err := os.ReadFile(filepath.Join(proc, "mountinfo"))
	if err != nil {
		t.Fatal(err)
	}
	all["mounts"] = bytes.Count(mounts, []byte("\n"))
	runs, _ := filepath.Glob(filepath.Join(data, "run", "runs", "*.json"))
	if len(runs) != 1 {
		t.Fatalf("one run is recorded, not %q", runs)
	}
	name := "-" + strings.TrimSuffix(filepath.Base(runs[0]), ".json") + "-" // in the names of all its cgroups
	networks := map[string]bool{}
	pids, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range pids {
		groups, _ := os.ReadFile(filepath.Join(p, "cgroup")) // it may have ended
		stat, _ := os.ReadFile(filepath.Join(p, "stat"))
		_, rest, _ := bytes.Cut(stat, []byte(") "))
		if f := bytes.Fields(rest); bytes.Contains(groups, []byte(name)) || len(f) > 1 && string(f[1]) == strconv.Itoa(pid) {
			all["processes"]++
			if n, err := os.Readlink(filepath.Join(p, "ns", "net")); err == nil {
				networks[n] = true
			}
		}
	}
	all["network namespaces of processes"] = len(networks)
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() && strings.Contains(e.Name(), name) {
			all["cgroups"]++
		}
		return nil
	})
	_ = filepath.WalkDir(data, func(path string, e fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(path, filepath.Join(data, "run")) {
			all["run files"]++
		} else if err == nil && !strings.HasPrefix(path, filepath.Join(data, "logs")) { // whose size has a limit of its own
			all["data files"]++
		}
		return nil
	})
	return all
}
