package bus_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/bus"
)

// jumpy is a clock that can be set.
type jumpy struct{ by atomic.Int64 }

func (j *jumpy) now() time.Time          { return time.Now().Add(time.Duration(j.by.Load())) }
func (j *jumpy) set(ahead time.Duration) { j.by.Store(int64(ahead)) }

// once fails each event's first delivery.
func once() *target {
	var n atomic.Int64
	return &target{answer: func(context.Context, *bus.Delivery) error {
		if n.Add(1) == 1 {
			return errors.New("not yet")
		}
		return nil
	}}
}

func TestJump_RetriesComeWhateverTheClockDoes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before, after time.Duration // how far the clock is ahead
		backoff       time.Duration
		restart       bool
	}{
		"put back":                       {0, -time.Hour, 2 * time.Second, false},
		"put ahead":                      {0, 2 * time.Hour, time.Hour, false},
		"put right after a restart":      {5 * time.Hour, 0, 2 * time.Second, true},
		"put right while it is followed": {5 * time.Hour, 0, 2 * time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := &jumpy{}
			j.set(c.before)
			o := bus.Wall(bus.Options{Deliver: once()}, j.now)
			dir := t.TempDir()
			w := start(t, dir, o)
			w.subscribe(t, bus.Subscription{Name: "s", Retry: bus.Retry{Attempts: 2, MinBackoff: c.backoff, MaxBackoff: c.backoff, MaxAge: 100 * time.Hour}})
			w.publish(t, newEvent("1"))
			until(t, "the first try", func() (bool, error) {
				st, err := w.StatusOfEvent(t.Context(), "", "/test", "1")
				return len(st) == 1 && st[0].Tries == 1, err
			})
			j.set(c.after)
			if c.restart {
				w.stop()
				w = start(t, dir, o)
			}
			w.states(t, "s", map[bus.State]int{bus.Done: 1})
			w.publish(t, newEvent("1"), newEvent("2")) // the first one again is still a duplicate
			w.states(t, "s", map[bus.State]int{bus.Done: 2})
		})
	}
}

func TestJump_MessagesBecomeVisibleWhateverTheClockDoes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ after, visibility time.Duration }{
		"put back":  {-time.Hour, 2 * time.Second},
		"put ahead": {2 * time.Hour, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := &jumpy{}
			w := start(t, t.TempDir(), bus.Wall(bus.Options{}, j.now))
			for _, q := range []string{"q", "q.fifo"} {
				j.set(0)
				w.queue(t, bus.Queue{Name: q, FIFO: q != "q", Visibility: &c.visibility})
				w.send(t, q, "g:a")
				if got := w.await(t, q, 1); len(got) != 1 {
					t.Fatalf("%s: got %+v", q, got)
				}
				j.set(c.after)
				if again := w.await(t, q, 1); len(again) != 1 || again[0].Receives != 2 {
					t.Errorf("%s: got %+v", q, again)
				} else {
					w.remove(t, q, again)
				}
			}
		})
	}
}
