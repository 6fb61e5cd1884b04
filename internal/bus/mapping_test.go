package bus_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
)

// consumer records Batches and answers as told.
type consumer struct {
	answer func(b *invocation.Batch, n int) invocation.Verdict // n counts the Batches, from 1

	mu struct {
		sync.Mutex
		got           []*invocation.Batch
		running, most int
	}
}

func (c *consumer) Consume(_ context.Context, b *invocation.Batch) invocation.Verdict {
	c.mu.Lock()
	c.mu.got = append(c.mu.got, b)
	n := len(c.mu.got)
	c.mu.running++
	c.mu.most = max(c.mu.most, c.mu.running)
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.mu.running--
		c.mu.Unlock()
	}()
	if c.answer == nil {
		return invocation.Verdict{}
	}
	return c.answer(b, n)
}

// bodies are those of all Items that came, in their order.
func (c *consumer) bodies() (out []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range c.mu.got {
		for _, it := range b.Items {
			out = append(out, string(it.Event.Data))
		}
	}
	return out
}

// poll runs a Mapping until the test or stop ends it.
func (w *world) poll(t *testing.T, m bus.Mapping, c bus.Consumer) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := w.Poll(ctx, m, c); err != nil {
			t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	return stop
}

// left waits until a queue has so many messages, visible or in flight.
func (w *world) left(t *testing.T, queue string, n int) {
	t.Helper()
	until(t, "what is left", func() (bool, error) {
		s, err := w.QueueStatus(t.Context(), queue)
		return s.Visible+s.InFlight == n, err
	})
}

func failAll(b *invocation.Batch, err error) invocation.Verdict {
	v := invocation.Verdict{Err: err}
	for i := range b.Items {
		v.Failed = append(v.Failed, i)
	}
	return v
}

func TestMapping_DeletesWhatIsDoneAndLeavesWhatFailed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fifo   bool
		sent   []string
		answer func(b *invocation.Batch, n int) invocation.Verdict
		left   []string
	}{
		"all done":        {sent: []string{"a", "b"}},
		"one failed":      {sent: []string{"a", "b", "c"}, answer: func(*invocation.Batch, int) invocation.Verdict { return invocation.Verdict{Failed: []int{1}} }, left: []string{"b"}},
		"an error":        {sent: []string{"a", "b"}, answer: func(b *invocation.Batch, _ int) invocation.Verdict { return failAll(b, errors.New("boom")) }, left: []string{"a", "b"}},
		"only an error":   {sent: []string{"a"}, answer: func(*invocation.Batch, int) invocation.Verdict { return invocation.Verdict{Err: errors.New("boom")} }, left: []string{"a"}},
		"a group stops":   {fifo: true, sent: []string{"a:1", "a:2", "a:3"}, answer: func(*invocation.Batch, int) invocation.Verdict { return invocation.Verdict{Failed: []int{1}} }, left: []string{"a:2", "a:3"}},
		"only that group": {fifo: true, sent: []string{"a:1", "b:1", "a:2", "b:2"}, answer: func(*invocation.Batch, int) invocation.Verdict { return invocation.Verdict{Failed: []int{0}} }, left: []string{"a:1", "a:2"}},
		"throttled, later": {sent: []string{"a"}, answer: func(b *invocation.Batch, n int) invocation.Verdict {
			if n < 3 {
				return failAll(b, errs.New(errs.Throttled, "busy"))
			}
			return invocation.Verdict{}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start(t, t.TempDir(), bus.Options{})
			q := "q"
			if c.fifo {
				q = "q.fifo"
			}
			w.queue(t, bus.Queue{Name: q, FIFO: c.fifo, Visibility: new(time.Hour)})
			w.send(t, q, c.sent...)
			con := &consumer{answer: c.answer}
			stop := w.poll(t, bus.Mapping{Queue: q}, con)
			until(t, "a batch", func() (bool, error) { return len(con.bodies()) > 0, nil })
			w.left(t, q, len(c.left))
			stop()
			page, err := w.PeekQueue(t.Context(), q, "", 10)
			if err != nil {
				t.Fatal(err)
			}
			want(t, page, c.left...)
			for _, m := range page {
				if m.Receives != 1 || time.Until(m.Visible) < time.Minute {
					t.Errorf("%s was received %d times, and is visible at %v", m.Body, m.Receives, m.Visible)
				}
			}
			con.mu.Lock()
			defer con.mu.Unlock()
			b := con.mu.got[0]
			if b.Via != invocation.ViaQueue || b.Source != q || len(b.Items) != len(c.sent) || b.Items[0].Receipt == "" || b.Items[0].Receives != 1 || b.Items[0].Event.Validate(1<<20) != nil {
				t.Errorf("got %+v", b)
			}
		})
	}
}

func TestMapping_DeletesWhatItsFilterDoesNotKeep(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{})
	w.queue(t, bus.Queue{Name: "q"})
	w.send(t, "q", "keep1", "drop1", "keep2", "drop2")
	c := &consumer{}
	w.poll(t, bus.Mapping{Queue: "q", Filter: func(m *bus.Received) bool { return m.Body[0] == 'k' }}, c)
	w.left(t, "q", 0)
	if got := c.bodies(); !slices.Equal(got, []string{"keep1", "keep2"}) {
		t.Errorf("got %q", got)
	}
}

func TestMapping_GathersBySizeAndWindow(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{})
	w.queue(t, bus.Queue{Name: "q", MaxSize: bus.MaxMessage})
	c := &consumer{}
	// The window is far longer than the test: a Batch goes when it is full.
	stop := w.poll(t, bus.Mapping{Queue: "q", Batch: 4, Window: 5 * time.Minute, MaxConcurrency: 1}, c)
	for i := range 4 {
		w.send(t, "q", fmt.Sprint(i))
	}
	w.left(t, "q", 0)
	stop()
	if len(c.mu.got) != 1 || len(c.mu.got[0].Items) != 4 {
		t.Errorf("%d batches came", len(c.mu.got))
	}
	// What does not fit into a payload is of the next one.
	var large []bus.Message
	for range 10 {
		large = append(large, bus.Message{Body: make([]byte, 300<<10)}) // zeros take six times as much
	}
	if _, err := w.Send(t.Context(), "q", large); err != nil {
		t.Fatal(err)
	}
	c = &consumer{}
	stop = w.poll(t, bus.Mapping{Queue: "q", Batch: 10, MaxConcurrency: 1}, c)
	w.left(t, "q", 0)
	stop()
	sum := 0
	for _, b := range c.mu.got {
		if sum += len(b.Items); len(b.Items) > 3 {
			t.Errorf("a batch has %d messages", len(b.Items))
		}
	}
	if sum != 10 {
		t.Errorf("%d messages came", sum)
	}
}

func TestMapping_ScalesWithTheBacklogUpToItsConcurrency(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{})
	w.queue(t, bus.Queue{Name: "q"})
	var some []string
	for i := range 100 {
		some = append(some, fmt.Sprint(i))
	}
	w.send(t, "q", some...)
	hold := make(chan struct{})
	c := &consumer{}
	c.answer = func(*invocation.Batch, int) invocation.Verdict {
		c.mu.Lock()
		if c.mu.running == 5 { // all that there may be
			select {
			case <-hold:
			default:
				close(hold)
			}
		}
		c.mu.Unlock()
		<-hold
		return invocation.Verdict{}
	}
	w.poll(t, bus.Mapping{Queue: "q", Batch: 1, MaxConcurrency: 5}, c)
	w.left(t, "q", 0)
	if c.mu.most != 5 || len(c.bodies()) != 100 {
		t.Errorf("%d ran at once, %d came", c.mu.most, len(c.bodies()))
	}
	for name, m := range map[string]bus.Mapping{"batch": {Batch: 10_001}, "window": {Window: time.Hour}, "concurrency": {MaxConcurrency: -1}} {
		if err := w.Poll(t.Context(), m, c); errs.CodeOf(err) != errs.Invalid {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// What a poller holds when it ends is there for others at once.
func TestMapping_GivesBackWhatItHasNotConsumed(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{})
	w.queue(t, bus.Queue{Name: "q", Visibility: new(time.Hour)})
	w.send(t, "q", "a", "b")
	stop := w.poll(t, bus.Mapping{Queue: "q", Batch: 10, Window: 5 * time.Minute}, &consumer{})
	until(t, "received", func() (bool, error) {
		s, err := w.QueueStatus(t.Context(), "q")
		return s.InFlight == 2, err
	})
	stop()
	w.counted(t, "q", 2, 0, 0)
}
