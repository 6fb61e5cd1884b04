package test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/testkit/harness"
)

func handler(version int) string {
	return fmt.Sprintf(`exports.hello = async (e) => ({ statusCode: 200, body: JSON.stringify({ version: %d, name: e.pathParameters.name, pid: process.pid }) });
`, version)
}

func TestCold_200ParallelFirstCallsGet200Answers(t *testing.T) {
	t.Parallel()
	dir := project(t, map[string]string{"serverless.yml": nodeYAML, "handler.js": handler(1)})
	s := ebb.Start(t, dir, filepath.Join(dir, ".ebb"), "up", "--listen", "127.0.0.1:0", "--no-watch")
	var wg sync.WaitGroup
	answers := make([]string, 200)
	for i := range answers {
		wg.Go(func() {
			client := &http.Client{Transport: &http.Transport{}, Timeout: 60 * time.Second}
			status, body := get(client, s.Ready.Gateway+"/hello/n"+strconv.Itoa(i))
			answers[i] = strconv.Itoa(status) + " " + body
		})
	}
	wg.Wait()
	pids := map[string]bool{}
	for i, a := range answers {
		if !strings.HasPrefix(a, "200 ") || !strings.Contains(a, fmt.Sprintf(`"name":"n%d"`, i)) {
			t.Errorf("call %d got %s", i, a)
		}
		if _, pid, ok := strings.Cut(a, `"pid":`); ok {
			pids[pid] = true
		}
	}
	if len(pids) > 100 {
		t.Errorf("%d instances for 200 short calls", len(pids))
	}
}

func TestDeploy_TenUnderConstantLoadAndARestartLoseNothing(t *testing.T) {
	t.Parallel()
	dir := project(t, map[string]string{"serverless.yml": nodeYAML, "handler.js": handler(0)})
	data := filepath.Join(t.TempDir(), "data")
	s := ebb.Start(t, dir, data, "serve", "--listen", "127.0.0.1:0")
	if r := ebb.Run(t, dir, "deploy", "--data", data); r.Code != 0 {
		t.Fatalf("deploy: %+v", r)
	}
	l := startLoad(8, func() string { return s.Ready.Gateway + "/hello/ann" }, func(status int, _ string) bool { return status == 200 })
	for i := 1; i <= 10; i++ {
		write(t, filepath.Join(dir, "handler.js"), handler(i))
		if r := ebb.Run(t, dir, "deploy", "--data", data); r.Code != 0 {
			t.Fatalf("deploy %d: %+v", i, r)
		}
		if status, body := get(http.DefaultClient, s.Ready.Gateway+"/hello/x"); status != 200 || !strings.Contains(body, fmt.Sprintf(`"version":%d,`, i)) {
			t.Errorf("after deploy %d: %d %s", i, status, body)
		}
	}
	before := l.calls.Load()
	l.end(t)
	if before < 200 {
		t.Errorf("only %d calls were made", before)
	}
	// A graceful stop answers what it let in; what comes later is refused, never cut.
	l = startLoad(4, func() string { return s.Ready.Gateway + "/hello/ann" }, func(status int, body string) bool {
		return status == 200 || status == 0 && strings.Contains(body, "refused")
	})
	eventually(t, "some calls", func() bool { return l.calls.Load() > 50 })
	if code := s.Interrupt(t); code != 0 {
		t.Errorf("exit code %d after SIGINT\n%s", code, s.Stderr())
	}
	l.end(t)
	again := ebb.Start(t, dir, data, "serve", "--listen", "127.0.0.1:0")
	if status, body := get(http.DefaultClient, again.Ready.Gateway+"/hello/x"); status != 200 || !strings.Contains(body, `"version":10,`) {
		t.Errorf("after a restart: %d %s", status, body)
	}
	if r := ebb.Run(t, dir, "rollback", "--data", data); r.Code != 0 {
		t.Fatalf("rollback: %+v", r)
	}
	if _, body := get(http.DefaultClient, again.Ready.Gateway+"/hello/x"); !strings.Contains(body, `"version":9,`) {
		t.Errorf("after a rollback: %s", body)
	}
}

func TestKill9_UnderLoadEverythingDeployedAnswersAgainAndNoGuestSurvives(t *testing.T) {
	t.Parallel()
	dir := project(t, map[string]string{"serverless.yml": nodeYAML, "handler.js": handler(0)})
	data := filepath.Join(t.TempDir(), "data")
	acknowledged := -1
	rounds := 5
	if testing.Short() {
		rounds = 2
	}
	for round := range rounds {
		s := ebb.Start(t, dir, data, "serve", "--listen", "127.0.0.1:0")
		if acknowledged >= 0 {
			if status, body := get(http.DefaultClient, s.Ready.Gateway+"/hello/x"); status != 200 || !strings.Contains(body, fmt.Sprintf(`"version":%d,`, acknowledged)) {
				t.Fatalf("round %d: acknowledged version %d, got %d %s", round, acknowledged, status, body)
			}
		}
		write(t, filepath.Join(dir, "handler.js"), handler(round))
		if r := ebb.Run(t, dir, "deploy", "--data", data); r.Code != 0 {
			t.Fatalf("deploy: %+v", r)
		}
		acknowledged = round
		l := startLoad(4, func() string { return s.Ready.Gateway + "/hello/ann" }, func(int, string) bool { return true })
		eventually(t, "some calls", func() bool { return l.calls.Load() > 40 })
		s.Kill()
		l.end(t)
		if round == rounds-1 {
			break
		}
	}
	s := ebb.Start(t, dir, data, "serve", "--listen", "127.0.0.1:0")
	if left := guestsOf(t, data, s); len(left) > 0 {
		t.Errorf("guests of killed servers are alive: %v", left)
	}
	if status, body := get(http.DefaultClient, s.Ready.Gateway+"/hello/x"); status != 200 || !strings.Contains(body, fmt.Sprintf(`"version":%d,`, acknowledged)) {
		t.Errorf("after kill -9: %d %s", status, body)
	}
}

// guestsOf lists processes that run code of the data directory and are not s.
func guestsOf(t *testing.T, data string, s *harness.Server) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Skipf("needs /proc: %v", err)
	}
	var left []string
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == s.PID() {
			continue
		}
		line, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		env, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if strings.Contains(string(line), data) || strings.Contains(string(env), "LAMBDA_TASK_ROOT="+data) {
			left = append(left, e.Name()+" "+strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return left
}
