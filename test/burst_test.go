package test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// crowd are clients that keep their connections.
func crowd(n int) *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConns: n, MaxIdleConnsPerHost: n}, Timeout: 2 * time.Minute}
}

func burstYAML(runtime, handler string) string {
	return fmt.Sprintf(`service: burst
provider:
  name: aws
  runtime: %s
  memorySize: 128
functions:
  f:
    handler: %s
    events:
      - httpApi: GET /f
`, runtime, handler)
}

const nodePID = `exports.f = async () => ({ statusCode: 200, body: JSON.stringify({ pid: process.pid }) });
`

const pythonPID = `import json, os
def f(event, context):
    return {"statusCode": 200, "body": json.dumps({"pid": os.getpid()})}
`

// A burst on a cold function gets an answer for each call, from no more Instances than are of use and have memory.
func TestBurst_1000CallsOnAColdFunctionAreAllAnswered(t *testing.T) {
	t.Parallel()
	const calls, memoryMB, most = 1000, 2560, 2560 / 128
	for _, c := range []struct{ name, runtime, file, code, handler string }{
		{"node", "nodejs22.x", "h.js", nodePID, "h.f"},
		{"python", "python3.13", "h.py", pythonPID, "h.f"},
	} {
		t.Run(c.name, func(t *testing.T) { // one after the other: each is about the whole machine
			dir := project(t, map[string]string{"serverless.yml": burstYAML(c.runtime, c.handler), c.file: c.code})
			s := ebb.Start(t, dir, filepath.Join(dir, ".ebb"), "up", "--listen", "127.0.0.1:0", "--no-watch",
				"--memory", strconv.Itoa(memoryMB), "--overcommit", "1", "--queue-timeout", "60s")
			client := crowd(calls)
			answers := make([]string, calls)
			var wg sync.WaitGroup
			began := time.Now()
			for i := range answers {
				wg.Go(func() {
					status, body := get(client, s.Ready.Gateway+"/f")
					answers[i] = strconv.Itoa(status) + " " + body
				})
			}
			wg.Wait()
			took := time.Since(began)
			instances := map[int]bool{}
			for i, a := range answers {
				var got struct{ PID int }
				if body, ok := strings.CutPrefix(a, "200 "); !ok || json.Unmarshal([]byte(body), &got) != nil {
					t.Fatalf("call %d got %s", i, a)
				}
				instances[got.PID] = true
			}
			if len(instances) > most {
				t.Errorf("%d instances answered, and %d have memory", len(instances), most)
			}
			t.Logf("%d answers of %d instances after %v", calls, len(instances), took.Round(time.Millisecond))
			r := ebb.Run(t, dir, "ls", "--json")
			var list struct {
				Stacks []struct{ Instances int }
			}
			if err := json.Unmarshal([]byte(r.Stdout), &list); err != nil || len(list.Stacks) != 1 || list.Stacks[0].Instances > most {
				t.Errorf("ls says %s %v", r.Stdout, err)
			}
		})
	}
}

// At five times what its Instances can do, a function does nearly as much as at capacity, and whoever is turned away is told when
// to come again.
func TestBurst_AtFiveTimesCapacityGoodputHolds(t *testing.T) {
	t.Parallel()
	const instances, nap, over = 4, 100 * time.Millisecond, 5
	code := fmt.Sprintf("exports.f = async () => { await new Promise((r) => setTimeout(r, %d)); return { statusCode: 200, body: 'ok' }; };\n", nap.Milliseconds())
	dir := project(t, map[string]string{"serverless.yml": burstYAML("nodejs22.x", "h.f"), "h.js": code})
	s := ebb.Start(t, dir, filepath.Join(dir, ".ebb"), "up", "--listen", "127.0.0.1:0", "--no-watch",
		"--memory", strconv.Itoa(instances*128), "--overcommit", "1", "--queue", "8")
	client := crowd(400)
	url := s.Ready.Gateway + "/f"
	var good, turned atomic.Int64
	call := func() {
		resp, err := client.Get(url)
		if err != nil {
			t.Errorf("a call got %v", err)
			return
		}
		defer func() { _ = resp.Body.Close() }()
		body, _ := io.ReadAll(resp.Body)
		switch {
		case resp.StatusCode == 200:
			good.Add(1)
		case resp.StatusCode == 429 && resp.Header.Get("Retry-After") != "":
			turned.Add(1)
		default:
			t.Errorf("a call got %d %s, Retry-After %q", resp.StatusCode, body, resp.Header.Get("Retry-After"))
		}
	}
	closed := func(n int) float64 { // n clients, each calling again at once
		good.Store(0)
		began := time.Now()
		var wg sync.WaitGroup
		for range instances {
			wg.Go(func() {
				for range n {
					call()
				}
			})
		}
		wg.Wait()
		return float64(good.Load()) / time.Since(began).Seconds()
	}
	closed(15) // all Instances start
	capacity := closed(30)
	good.Store(0)
	turned.Store(0)
	began := time.Now()
	var wg sync.WaitGroup
	const rounds = 100
	for k := range rounds { // an open loop: calls come whether or not others were answered
		time.Sleep(time.Until(began.Add(time.Duration(k) * nap / 2)))
		for range instances * over / 2 {
			wg.Go(call)
		}
	}
	offered := float64(rounds*(instances*over/2)) / time.Since(began).Seconds()
	wg.Wait()
	goodput := float64(good.Load()) / time.Since(began).Seconds()
	t.Logf("capacity %.1f/s, offered %.1f/s, answered %.1f/s, turned away %d", capacity, offered, goodput, turned.Load())
	if goodput < 0.8*capacity {
		t.Errorf("goodput is %.0f %% of capacity", 100*goodput/capacity)
	}
	if turned.Load() == 0 {
		t.Error("nobody was turned away")
	}
}
