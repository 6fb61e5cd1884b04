package bus_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ebb-run/ebb/internal/bus"
)

// queueDump is all that the index knows of queues, as text.
func queueDump(t *testing.T, w *world) string {
	t.Helper()
	var out []any
	queues, err := w.Queues(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range queues {
		s, err := w.QueueStatus(t.Context(), q.Key())
		if err != nil {
			t.Fatal(err)
		}
		page, err := w.PeekQueue(t.Context(), q.Key(), "", 1000)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, s, page)
	}
	b, err := json.MarshalIndent(out, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// busyQueues makes queues with messages in every state.
func busyQueues(t *testing.T, w *world) {
	t.Helper()
	hour := new(time.Hour)
	w.queue(t, bus.Queue{Name: "dead.fifo", FIFO: true})
	w.queue(t, bus.Queue{Name: "dead"})
	for _, name := range []string{"q", "q.fifo"} {
		w.queue(t, bus.Queue{Name: name, FIFO: name != "q", Visibility: hour, MaxReceives: 1, DeadLetters: strings.Replace(name, "q", "dead", 1)})
		for i := range 20 {
			w.send(t, name, fmt.Sprintf("%d:%d", i%4, i))
		}
		w.remove(t, name, w.receive(t, name, 3))
		w.show(t, name, w.await(t, name, 2))
		w.receive(t, name, 16) // finds two that are dead
		w.send(t, name, "x:20", "x:21", "y:22")
		w.receive(t, name, 1)
	}
	w.send(t, "q.fifo", "0:0", "3:19") // twice
	if _, err := w.Send(t.Context(), "q", []bus.Message{{Body: []byte("late"), Delay: new(15 * time.Minute)}}); err != nil {
		t.Fatal(err)
	}
	w.queue(t, bus.Queue{Name: "purged"})
	w.send(t, "purged", "a", "b")
	if err := w.PurgeQueue(t.Context(), "purged"); err != nil {
		t.Fatal(err)
	}
	w.send(t, "purged", "c")
	w.queue(t, bus.Queue{Name: "gone"})
	w.send(t, "gone", "a")
	if err := w.DeleteQueue(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	until(t, "dead letters", func() (bool, error) {
		for _, q := range []string{"dead", "dead.fifo"} {
			if s, err := w.QueueStatus(t.Context(), q); err != nil || s.Visible == 0 {
				return false, err
			}
		}
		return true, w.Sync(t.Context())
	})
}

func TestQueueIndex_ComesOutTheSameFromTheLog(t *testing.T) {
	t.Parallel()
	for _, parts := range []int{1, 4} {
		t.Run(fmt.Sprint(parts), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			w := start(t, dir, bus.Options{Partitions: parts})
			busyQueues(t, w)
			dump := queueDump(t, w)
			w.stop()
			for _, harm := range []bool{false, true} {
				if harm {
					if err := os.RemoveAll(w.opt.Dir); err != nil {
						t.Fatal(err)
					}
				}
				w = start(t, dir, w.opt)
				until(t, "sync", func() (bool, error) { return true, w.Sync(t.Context()) })
				if got := queueDump(t, w); got != dump {
					t.Errorf("deleted %v: the index came out otherwise:\n%s\nand not\n%s", harm, got, dump)
				}
				w.stop()
			}
		})
	}
}

// What a queue holds keeps its place in the log; the rest of the head goes, and an index made from what is left knows all that stands.
func TestQueuePurge_KeepsWhatQueuesHold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := bus.SweepQueues(bus.Sweep(bus.Options{Partitions: 1, Retention: time.Millisecond, DedupWindow: time.Millisecond}, 10*time.Millisecond), 10*time.Millisecond)
	w := start(t, dir, o)
	log := func() jetstream.StreamState {
		s, err := w.conn.JetStream().Stream(t.Context(), "EBB_BUS_0")
		if err != nil {
			t.Fatal(err)
		}
		return s.CachedInfo().State
	}
	w.queue(t, bus.Queue{Name: "q", Visibility: new(time.Hour), Tags: map[string]string{"a": "b"}})
	w.queue(t, bus.Queue{Name: "q.fifo", FIFO: true})
	w.queue(t, bus.Queue{Name: "other"})
	for i := range 20 {
		w.send(t, "q", fmt.Sprint(i))
		w.remove(t, "q", w.await(t, "q", 1))
	}
	until(t, "first purge", func() (bool, error) { return log().FirstSeq > 20, nil })
	before := log().LastSeq
	w.send(t, "q", "held", "flying")
	w.send(t, "q.fifo", "g:1")
	got := w.await(t, "q", 2)
	w.show(t, "q", got[:1])
	until(t, "second purge", func() (bool, error) {
		w.send(t, "other", "tick") // what is kept for a time is kept by the time of the log, which goes on with what is written
		return log().FirstSeq > before, nil
	})
	dump := queueDump(t, w)
	w.stop()
	if err := os.RemoveAll(w.opt.Dir); err != nil {
		t.Fatal(err)
	}
	w = start(t, dir, w.opt)
	until(t, "sync", func() (bool, error) { return true, w.Sync(t.Context()) })
	if got := queueDump(t, w); got != dump {
		t.Errorf("the index came out otherwise:\n%s\nand not\n%s", got, dump)
	}
	want(t, w.receive(t, "q", 10), "held")
	w.remove(t, "q", got[1:]) // the receipt still holds
	w.counted(t, "q", 0, 1, 0)
}

func TestQueue_DropsWhatIsOlderThanItsRetention(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.SweepQueues(bus.Options{}, 10*time.Millisecond))
	for _, q := range []string{"q", "q.fifo"} {
		w.queue(t, bus.Queue{Name: q, FIFO: q != "q"})
		w.send(t, q, "a:1", "b:2")
		w.receive(t, q, 1)
		w.counted(t, q, 1, 1, 0)
		bus.Retain(w.Bus, q, time.Millisecond)
		until(t, "expiry", func() (bool, error) {
			s, err := w.QueueStatus(t.Context(), q)
			return s.Visible+s.InFlight == 0 && s.Oldest.IsZero(), err
		})
	}
}
