package server

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

func TestRunQueue_IsSaturatedWhileMoreWantAProcessorThanThereAre(t *testing.T) {
	t.Parallel()
	f, err := os.Create(filepath.Join(t.TempDir(), "loadavg"))
	if err != nil {
		t.Fatal(err)
	}
	q := &runQueue{file: f}
	defer func() { _ = q.close() }()
	set := func(text string) {
		t.Helper()
		if err := f.Truncate(0); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte(text), 0); err != nil {
			t.Fatal(err)
		}
	}
	read := func(runnable, times int) (now bool) {
		t.Helper()
		set(fmt.Sprintf("0.20 0.18 0.12 %d/80 11206\n", runnable))
		for range times {
			now = q.saturated()
		}
		return now
	}
	n := runtime.NumCPU()
	if read(1, 1) {
		t.Error("saturated by one thread")
	}
	if !read(2*n+2, 1000) {
		t.Error("not saturated by more threads than processors")
	}
	q.last = time.Now().Add(time.Minute) // however slow this test is, its reading is not stale
	if !read(1, 1) {
		t.Error("one quiet reading outweighs a busy while")
	}
	if read(1, 1000) {
		t.Error("saturated for ever")
	}
	for _, broken := range []string{"", "0.20", "a b c d e", "0.20 0.18 0.12 x/80 1"} {
		if set(broken); q.saturated() {
			t.Errorf("%q is taken for saturated", broken)
		}
	}
}

func TestRunQueue_OfThisMachineIsReadable(t *testing.T) {
	t.Parallel()
	q := openRunQueue()
	if q == nil {
		t.Skip("this machine has no /proc/loadavg")
	}
	defer func() { _ = q.close() }()
	if q.saturated(); q.average < 1 {
		t.Errorf("%v threads are running, this one is", q.average)
	}
}
