package bus_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/nats"
)

// heard is a log that counts lines.
type heard struct {
	mu sync.Mutex
	b  strings.Builder
}

func (h *heard) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.b.Write(p)
}

func (h *heard) count(what string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Count(h.b.String(), what)
}

// A dead letter whose queue is in a Partition that nobody serves for a while may stand there already: nobody receives it meanwhile, and it is moved later.
func TestQueue_KeepsDeadLettersWhileTheirQueueIsAway(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for a question to go unanswered")
	}
	dir := t.TempDir()
	conn, err := nats.Open(t.Context(), nats.Options{Dir: filepath.Join(dir, "nats")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	h := &heard{}
	w := node(t, conn, dir, "one", bus.Options{})
	// The two are in different Partitions: that of the first is kept, the other's lease is taken from outside.
	from, to := bus.Apart(w.Bus, "q", "dead")
	w.queue(t, bus.Queue{Name: to})
	w.queue(t, bus.Queue{Name: from, Visibility: new(time.Duration), MaxReceives: 1, DeadLetters: to})
	w.send(t, from, "a")
	if got := w.await(t, from, 1); len(got) != 1 {
		t.Fatalf("got %+v", got)
	}
	w.stop()
	kv, err := conn.JetStream().KeyValue(t.Context(), "ebb_bus")
	if err != nil {
		t.Fatal(err)
	}
	hold, free := context.WithCancel(t.Context())
	defer free()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer free()
	taken := make(chan struct{})
	key := bus.LeaseKey(w.Bus, to)
	wg.Go(func() {
		for n := 0; hold.Err() == nil; n++ {
			if _, err := kv.Put(t.Context(), key, []byte(`{"node":"away"}`)); err != nil {
				t.Error(err)
				return
			}
			if n == 0 {
				close(taken)
			}
			time.Sleep(100 * time.Millisecond) // as its owner would
		}
	})
	<-taken
	w = node(t, conn, dir, "one", bus.Options{Log: slog.New(slog.NewTextHandler(h, nil))})
	until(t, "an attempt to move it", func() (bool, error) {
		got, err := w.Receive(t.Context(), from, bus.Receive{Wait: new(time.Second)})
		if len(got) > 0 {
			t.Errorf("it was received %d times", got[0].Receives)
		}
		return h.count("dead letters of a queue stay in it") > 0, err
	})
	if got, err := w.Receive(t.Context(), from, bus.Receive{Wait: new(time.Second)}); err != nil || len(got) > 0 {
		t.Errorf("got %+v, %v", got, err)
	}
	free()
	until(t, "its move", func() (bool, error) {
		if _, err := w.Receive(t.Context(), from, bus.Receive{}); err != nil {
			return false, err
		}
		st, err := w.QueueStatus(t.Context(), to)
		return st.Visible == 1, err
	})
}
