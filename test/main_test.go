// Package test runs the real binary with real projects and clients.
//
// It proves what only the whole shows: that nothing is dropped across deploys, restarts and kills, and that mistakes are answered
// with the place and the mend. The parts have their own tests.
package test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/testkit/harness"
)

var ebb *harness.Binary // set once by TestMain

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "ebb-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if ebb, err = harness.Build(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// project writes files into a new folder.
func project(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		write(t, filepath.Join(dir, name), text)
	}
	return dir
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	mode := os.FileMode(0o644)
	if strings.HasPrefix(text, "#!") {
		mode = 0o755
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// get returns status and body, or the error as text with status 0.
func get(client *http.Client, url string) (int, string) {
	resp, err := client.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(body)
}

// eventually polls until ok or 30 s have passed.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
		time.Sleep(20 * time.Millisecond) // polling, not timing
	}
}

// load calls url from n clients until stop is closed, and counts answers that are not 200.
type load struct {
	wg    sync.WaitGroup
	stop  chan struct{}
	calls atomic.Int64
	bad   sync.Map // text -> true
}

func startLoad(n int, url func() string, accept func(status int, body string) bool) *load {
	l := &load{stop: make(chan struct{})}
	for range n {
		l.wg.Go(func() {
			client := &http.Client{Transport: &http.Transport{}, Timeout: 30 * time.Second}
			for {
				select {
				case <-l.stop:
					return
				default:
				}
				status, body := get(client, url())
				l.calls.Add(1)
				if !accept(status, body) {
					l.bad.Store(fmt.Sprintf("%d %s", status, body), true)
				}
			}
		})
	}
	return l
}

func (l *load) end(t testing.TB) {
	t.Helper()
	close(l.stop)
	l.wg.Wait()
	l.bad.Range(func(k, _ any) bool {
		t.Errorf("a call got %v", k)
		return true
	})
}

const nodeYAML = `service: shop
provider:
  name: aws
  runtime: nodejs22.x
functions:
  hello:
    handler: handler.hello
    events:
      - httpApi: GET /hello/{name}
`
