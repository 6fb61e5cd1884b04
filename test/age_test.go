package test

import (
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// Under constant load Instances reach their age and others take over, again and again, without a failed call.
func TestAge_NoCallFailsWhenInstancesAreReplaced(t *testing.T) {
	t.Parallel()
	for name, more := range map[string]string{"on demand": "", "provisioned": "    provisionedConcurrency: 2\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := project(t, map[string]string{"serverless.yml": burstYAML("nodejs22.x", "h.f") + more,
				"h.js": "const me = Math.random().toString(36); exports.f = async () => { await new Promise((r) => setTimeout(r, 20)); return { statusCode: 200, body: me }; };\n"})
			s := ebb.Start(t, dir, filepath.Join(dir, ".ebb"), "up", "--listen", "127.0.0.1:0", "--no-watch", "--max-age", "2s")
			var mu sync.Mutex
			seen, calls := map[string]bool{}, 0
			var wg sync.WaitGroup
			client := &http.Client{Timeout: time.Minute}
			defer client.CloseIdleConnections()
			limit := time.Now().Add(3 * time.Minute)
			enough := func() bool {
				mu.Lock()
				defer mu.Unlock()
				return len(seen) >= 8 || t.Failed() || time.Now().After(limit)
			}
			for range 3 {
				wg.Go(func() {
					for !enough() {
						status, body := get(client, s.Ready.Gateway+"/f")
						mu.Lock()
						if seen[body] = true; status != 200 {
							t.Errorf("call %d: %d %s", calls, status, body)
						}
						calls++
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			if len(seen) < 8 {
				t.Errorf("only %d instances answered %d calls", len(seen), calls)
			}
			t.Logf("%d calls, %d instances", calls, len(seen))
		})
	}
}
