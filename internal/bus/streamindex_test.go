package bus_test

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
)

// streamDump is all that the index knows of streams, as text.
func streamDump(t *testing.T, w *world, mappings ...string) string {
	t.Helper()
	var out []any
	streams, err := w.Streams(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range streams {
		st, err := w.StreamStatus(t.Context(), s.Key())
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, st)
		for _, h := range st.List {
			out = append(out, w.shardData(t, s.Key(), h.ID, 100))
		}
		for _, m := range mappings {
			n, err := bus.Lag(w.Bus, m, s.Key())
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, n)
		}
	}
	all, err := w.StreamMappings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.MarshalIndent(append(out, all), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestStreamIndex_ComesOutTheSameFromTheLog(t *testing.T) {
	t.Parallel()
	for _, parts := range []int{1, 4} {
		t.Run(fmt.Sprint(parts), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			w := start(t, dir, bus.Options{Partitions: parts})
			for _, s := range []string{"s", "other", "third"} {
				w.stream(t, bus.Stream{Name: s, Shards: 3})
				for i := range 30 {
					w.add(t, s, fmt.Sprintf("%d:%d", i%7, i))
				}
			}
			stop := w.pollStream(t, bus.StreamMapping{Name: "a", Batch: 7}, &consumer{})
			w.consumed(t, "a", "s", 30)
			stop()
			w.pollStream(t, bus.StreamMapping{Name: "forgotten", Batch: 7, Stream: "other"}, &consumer{})()
			if err := w.ForgetMapping(t.Context(), "forgotten", "other"); err != nil {
				t.Fatal(err)
			}
			w.stream(t, bus.Stream{Name: "s", Shards: 2})
			w.add(t, "s", "x:1", "y:2", "z:3")
			if err := w.DeleteStream(t.Context(), "third"); err != nil {
				t.Fatal(err)
			}
			dump := streamDump(t, w, "a")
			w.stop()
			for _, harm := range []bool{false, true} {
				if harm {
					if err := os.RemoveAll(w.opt.Dir); err != nil {
						t.Fatal(err)
					}
				}
				w = start(t, dir, w.opt)
				until(t, "sync", func() (bool, error) { return true, w.Sync(t.Context()) })
				if got := streamDump(t, w, "a"); got != dump {
					t.Errorf("deleted %v: the index came out otherwise:\n%s\nand not\n%s", harm, got, dump)
				}
				w.stop()
			}
		})
	}
}

// What a stream holds keeps its place in the log until its retention has passed; the rest of the head goes, and an index made from what is left knows all
// that stands, how far mappings are too.
func TestStreamPurge_KeepsWhatStreamsHoldAndNoMore(t *testing.T) {
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
	w.stream(t, bus.Stream{Name: "tick"})
	tick := func() {
		w.add(t, "tick", "k:t") // what is kept for a time is kept by the time of the log, which goes on with what is written
		time.Sleep(time.Millisecond)
	}
	w.stream(t, bus.Stream{Name: "s", Shards: 2, Tags: map[string]string{"a": "b"}})
	w.stream(t, bus.Stream{Name: "done", Shards: 2})
	for i := range 20 {
		w.add(t, "s", fmt.Sprintf("%d:%d", i, i))
	}
	stop := w.pollStream(t, bus.StreamMapping{Name: "a", Batch: 3, Start: bus.Start{From: bus.Latest}}, &consumer{})
	until(t, "a start", func() (bool, error) {
		list, err := w.StreamMappings(t.Context())
		return len(list) == 1, err
	})
	first := w.add(t, "s", "kept:1", "x:2")[0]
	w.consumed(t, "a", "s", 2)
	stop()
	bus.RetainStream(w.Bus, "tick", time.Millisecond)
	before := log().LastSeq
	for range 20 { // records of s are older than the Retention of the log, and stay
		tick()
	}
	if n := log().FirstSeq; n > before {
		t.Fatalf("the log begins at %d, records of a stream were at %d", n, before)
	}
	// Its retention passes for what it has.
	bus.RetainStream(w.Bus, "s", time.Millisecond)
	until(t, "purge", func() (bool, error) {
		tick()
		return log().FirstSeq > before, nil
	})
	it := w.iterator(t, "s", first.Shard, bus.Start{From: bus.AtSequence, Sequence: first.Sequence})
	if g := w.get(t, it, 0); len(g.Records) != 0 || g.Next == "" {
		t.Errorf("got %q of what is too old", data(g.Records))
	}
	bus.RetainStream(w.Bus, "s", 24*time.Hour)
	if err := w.DeleteStream(t.Context(), "tick"); err != nil { // what is too old and in the log yet is in the new index, until it is swept
		t.Fatal(err)
	}
	w.add(t, "s", "k:new")
	dump := streamDump(t, w, "a")
	w.stop()
	if err := os.RemoveAll(w.opt.Dir); err != nil {
		t.Fatal(err)
	}
	w = start(t, dir, w.opt)
	until(t, "sync", func() (bool, error) { return true, w.Sync(t.Context()) })
	if got := streamDump(t, w, "a"); got != dump {
		t.Errorf("the index came out otherwise:\n%s\nand not\n%s", got, dump)
	}
	c := &consumer{}
	w.pollStream(t, bus.StreamMapping{Name: "a", Start: bus.Start{From: bus.Latest}}, c)
	c.came(t, "k:new")
	if err := w.DeleteStream(t.Context(), "done"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.StreamStatus(t.Context(), "done"); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("got %v", err)
	}
}
