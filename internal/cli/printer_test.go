package cli

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ebb-run/ebb/internal/gateway"
)

// stuck takes nothing until it is opened.
type stuck struct {
	open chan struct{}
	mu   sync.Mutex
	got  bytes.Buffer
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.open
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got.Write(p)
}

func (s *stuck) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got.String()
}

func TestPrinter_DropsAndCountsRequestsThatNobodyReads(t *testing.T) {
	t.Parallel()
	for _, json := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			out := &stuck{open: make(chan struct{})}
			c := &command{System: System{Stdout: out, Stderr: io.Discard}, json: json}
			if !json {
				c.Stdout, c.Stderr = io.Discard, out
			}
			c.detach()
			u := &upRun{c: c, lossy: c.passing()}
			path := "/" + strings.Repeat("x", 64<<10)
			const all = 200
			for range all {
				u.access(gateway.Access{Method: "GET", Path: path, Status: 200})
			}
			u.c.failure(fmt.Errorf("kept"))
			close(out.open)
			c.finish()
			lines := strings.Split(strings.TrimSuffix(out.text(), "\n"), "\n")
			shown := 0
			for _, l := range lines {
				if strings.Contains(l, path) {
					shown++
				}
			}
			dropped := all - shown
			if dropped == 0 || shown < 60 {
				t.Errorf("json %v: %d shown, %d dropped", json, shown, dropped)
			}
			kept, last := lines[len(lines)-2], lines[len(lines)-1]
			want := fmt.Sprintf(`{"event":"dropped","count":%d}`, dropped)
			if !json {
				want = fmt.Sprintf("ebb: %d lines not printed: nobody read them in time", dropped)
			}
			if last != want || !strings.Contains(kept, "kept") {
				t.Errorf("json %v: the end is %q %q, want %q", json, kept, last, want)
			}
		})
	}
}

func TestPrinter_EndsThoughNobodyReads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		out := &stuck{open: make(chan struct{})}
		c := &command{System: System{Stdout: out, Stderr: out}, json: true}
		c.detach()
		c.printJSON(map[string]string{"event": "ready"})
		c.failure(fmt.Errorf("no"))
		began := time.Now()
		c.finish()
		if took := time.Since(began); took != lastWords {
			t.Errorf("the end took %v", took)
		}
		if out.text() != "" {
			t.Errorf("it wrote %q", out.text())
		}
		close(out.open) // for the goroutines to end
	})
}

func TestPrinter_KeepsTheOrderAndSaysNothingMore(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	c := &command{System: System{Stdout: &out, Stderr: io.Discard}}
	c.detach()
	var want strings.Builder
	for i := range 1000 {
		w := c.Stdout
		if i%2 == 0 {
			w = c.passing().Stdout
		}
		fmt.Fprintln(w, i)
		fmt.Fprintln(&want, i)
	}
	c.finish()
	if out.String() != want.String() {
		t.Errorf("%d bytes, want %d", out.Len(), want.Len())
	}
}
