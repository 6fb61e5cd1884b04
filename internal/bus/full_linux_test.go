package bus_test

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
)

// small makes a file system of its own, of the given size, filled but for some bytes by a file that free removes.
func small(t *testing.T, dir, size string, but int64) (free func()) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("cannot mount a file system here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	path := filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var n int64
	for block := make([]byte, 4096); ; n += int64(len(block)) {
		if _, err := f.Write(block); err != nil {
			break
		}
	}
	if err := f.Truncate(max(0, n-but)); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPublish_AFullDiskIsSaidAndLosesNothing(t *testing.T) {
	embedded(t)
	for name, size := range map[string]int{"small": 30 << 10, "large": 1 << 20} { // large data stand apart
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fullDisk(t, size)
		})
	}
}

func fullDisk(t *testing.T, size int) {
	dir := t.TempDir()
	free := small(t, dir, "24m", 6<<20)
	var r target
	w := start(t, dir, bus.Options{Deliver: &r, Limits: event.Limits{Event: 2 << 20}})
	w.subscribe(t, bus.Subscription{Name: "s"})
	var acked []string
	for i := 0; ; i++ {
		e := newEvent(fmt.Sprint(i))
		e.Data, e.DataContentType = make([]byte, size), "image/png"
		start := time.Now()
		_, err := w.Publish(t.Context(), e)
		if err == nil {
			if acked = append(acked, e.ID); i > 1000 {
				t.Fatal("the disk never fills")
			}
			continue
		}
		t.Logf("after %d events, %v: %v", i, time.Since(start), err)
		if errs.CodeOf(err) != errs.Unavailable || errs.HintOf(err) == "" {
			t.Errorf("got %v", err)
		}
		break
	}
	if len(acked) == 0 {
		t.Fatal("nothing was written")
	}
	w.stop()
	free()
	w = start(t, dir, w.opt)
	settle(t, w)
	for _, id := range acked {
		if st, err := w.StatusOfEvent(t.Context(), "", "/test", id); err != nil || len(st) != 1 || st[0].State != bus.Done {
			t.Errorf("%s: %+v, %v", id, st, err)
		}
	}
}

// While the index has no room, events are taken and wait in the log; it goes on by itself when there is room.
func TestIndex_AFullDiskOnlyDelays(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	free := small(t, filepath.Join(dir, "index"), "24m", 600<<10)
	var r target
	w := start(t, dir, bus.Options{Deliver: &r})
	w.subscribe(t, bus.Subscription{Name: "s"})
	const n = 3000
	for i := range n / 50 {
		for k := range 50 {
			w.publish(t, newEvent(fmt.Sprint(i, "-", k)))
		}
	}
	if got := len(r.all()); got >= n {
		t.Errorf("all %d came: the disk was not full", got)
	}
	free()
	w.states(t, "s", map[bus.State]int{bus.Done: n})
}
