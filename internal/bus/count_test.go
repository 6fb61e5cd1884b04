package bus_test

import (
	"context"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/bus"
)

// Counts are kept with each change, and come out the same from the log: here over all kinds of ends, and a purge. Every other test of a bus compares them at its end too.
func TestCounts_AreWhatStands(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := busy(t, dir, bus.Options{Partitions: 2})
	check := func(when string, w *world) {
		t.Helper()
		if wrong, err := bus.Miscounted(w.Bus); err != nil || len(wrong) > 0 {
			t.Errorf("%s: %q, %v", when, wrong, err)
		}
	}
	check("busy", w)
	id := first(t, w, "late5")
	if err := w.Cancel(t.Context(), bus.Selection{IDs: []string{id, id}}); err != nil { // named twice, ended once
		t.Fatal(err)
	}
	if err := w.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	check("cancelled", w)
	before, err := w.Counts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if before["a"][bus.Dead] == 0 || before["b"][bus.Waiting] == 0 || before["b"][bus.Cancelled] != 2 || before["gone"][bus.Cancelled] == 0 {
		t.Errorf("%v", before)
	}
	w.stop()
	w = start(t, dir, bus.Options{Partitions: 2, Deliver: still(t)})
	if err := w.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	check("again", w)
	w.stop()
	// With a retention that has passed what has ended goes, and is not counted any more.
	w = start(t, dir, bus.Sweep(bus.Options{Partitions: 2, Deliver: still(t), Retention: time.Millisecond, DedupWindow: time.Millisecond}, 20*time.Millisecond))
	until(t, "the dead are swept", func() (bool, error) {
		c, err := w.Counts(t.Context())
		return c["a"][bus.Dead] == 0, err
	})
	check("swept", w)
}

func TestRunning_AreThoseThatTheTargetHas(t *testing.T) {
	t.Parallel()
	begun, done := make(chan struct{}, 8), make(chan struct{})
	w := start(t, t.TempDir(), bus.Options{Deliver: &target{answer: func(ctx context.Context, _ *bus.Delivery) error {
		begun <- struct{}{}
		select {
		case <-done:
		case <-ctx.Done():
		}
		return nil
	}}})
	w.subscribe(t, bus.Subscription{Name: "s", Concurrency: 2})
	w.publish(t, newEvent("1"), newEvent("2"), newEvent("3"))
	<-begun
	<-begun
	if got, err := w.Running(t.Context()); err != nil || got["s"] != 2 {
		t.Errorf("%v, %v", got, err)
	}
	close(done)
	w.states(t, "s", map[bus.State]int{bus.Done: 3})
	until(t, "nothing runs", func() (bool, error) {
		got, err := w.Running(t.Context())
		return len(got) == 0, err
	})
}
