package bus_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/invocation"
)

// places are turns that Nodes share, and count.
type places struct {
	free        chan struct{}
	held, taken atomic.Int64
}

func newPlaces(n int) *places {
	p := &places{free: make(chan struct{}, n)}
	for range n {
		p.free <- struct{}{}
	}
	return p
}

func (p *places) Take(ctx context.Context) (func(), error) {
	select {
	case <-p.free:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	p.held.Add(1)
	p.taken.Add(1)
	return sync.OnceFunc(func() { p.held.Add(-1); p.free <- struct{}{} }), nil
}

// Two Nodes poll one queue with turns that they share: no more run at once than there are, all is consumed, and who waits at an empty queue holds none.
func TestMapping_SharesTurnsAmongNodes(t *testing.T) {
	t.Parallel()
	owner, other := pair(t)
	for _, q := range []bus.Queue{{Name: "q"}, {Name: "q.fifo", FIFO: true}} {
		other.queue(t, q)
		p := newPlaces(2)
		var now, most atomic.Int64
		c := &consumer{answer: func(*invocation.Batch, int) invocation.Verdict {
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			time.Sleep(time.Millisecond) // a run takes its time
			now.Add(-1)
			return invocation.Verdict{}
		}}
		m := bus.Mapping{Queue: q.Name, Batch: 2, MaxConcurrency: 2, Turns: p}
		stop, stopOther := owner.poll(t, m, c), other.poll(t, m, c)
		until(t, "idle", func() (bool, error) { return p.held.Load() == 0, nil })
		before := p.taken.Load()
		var all []string
		for i := range 60 {
			all = append(all, fmt.Sprintf("g%d:%d", i%5, i))
		}
		other.send(t, q.Name, all...)
		other.left(t, q.Name, 0) // it has sent them, and so reads them all
		until(t, "idle again", func() (bool, error) { return p.held.Load() == 0, nil })
		stop()
		stopOther()
		if got := c.bodies(); len(got) != len(all) {
			t.Errorf("%s: %d messages came, not %d", q.Name, len(got), len(all))
		}
		if most.Load() > 2 || before != 0 || p.held.Load() != 0 {
			t.Errorf("%s: %d ran at once; %d turns were taken while there was nothing, %d are held", q.Name, most.Load(), before, p.held.Load())
		}
	}
}

// Who looks learns of a message that becomes visible later, of one that others leave, and of a queue that goes; and takes nothing.
func TestMapping_WaitsForATurnWithoutMessages(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{})
	w.queue(t, bus.Queue{Name: "dead"})
	w.queue(t, bus.Queue{Name: "q", Visibility: new(200 * time.Millisecond), MaxReceives: 1, DeadLetters: "dead"})
	w.queue(t, bus.Queue{Name: "kept", Visibility: new(time.Hour)})
	none, c := newPlaces(0), &consumer{}
	stop := w.poll(t, bus.Mapping{Queue: "kept", Turns: none, MaxConcurrency: 1}, c)
	w.send(t, "kept", "a")
	if got := w.await(t, "kept", 1); got[0].Receives != 1 { // nobody else has it
		t.Errorf("it was received %d times", got[0].Receives)
	}
	stop()
	w.send(t, "q", "a")
	w.await(t, "q", 1)
	some := newPlaces(1)
	stop = w.poll(t, bus.Mapping{Queue: "q", Turns: some, MaxConcurrency: 1}, c)
	w.await(t, "dead", 1) // it is visible again, and moved by who looks
	stop()
	if n := len(c.bodies()); n > 0 || some.taken.Load() > 0 {
		t.Errorf("%d messages came, %d turns were taken", n, some.taken.Load())
	}
	one := newPlaces(1)
	w.poll(t, bus.Mapping{Queue: "late", Turns: one, MaxConcurrency: 5}, c) // which is not there yet
	w.queue(t, bus.Queue{Name: "late", Delay: time.Second})
	w.send(t, "late", "x", "y")
	w.left(t, "late", 0)
	until(t, "all", func() (bool, error) { return len(c.bodies()) == 2 && one.held.Load() == 0, nil })
}
