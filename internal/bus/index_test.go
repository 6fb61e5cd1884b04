package bus_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
)

// busy makes a bus with deliveries in every state.
func busy(t *testing.T, dir string, o bus.Options) *world {
	t.Helper()
	r := &target{answer: func(ctx context.Context, d *bus.Delivery) error {
		switch id := d.Event.ID; {
		case strings.HasPrefix(id, "bad"):
			return errors.New("boom")
		case strings.HasPrefix(id, "late"):
			return errs.New(errs.Throttled, "later")
		case strings.HasPrefix(id, "hang"):
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}}
	o.Deliver = r
	w := start(t, dir, o)
	slow := bus.Retry{Attempts: 2, MinBackoff: time.Hour, MaxBackoff: time.Hour}
	w.subscribe(t, bus.Subscription{Name: "gone"})
	w.subscribe(t, bus.Subscription{Name: "a", Retry: quick, Filter: json.RawMessage(`{"colour":"red"}`)})
	w.subscribe(t, bus.Subscription{Name: "b", Retry: slow, Ordered: true})
	for i := range 20 {
		w.publish(t, newEvent(fmt.Sprint("good", i), "colour", "red"), newEvent(fmt.Sprint("bad", i), "colour", "red"), newEvent(fmt.Sprint("late", i)),
			newEvent(fmt.Sprint("hang", i), bus.PartitionKey, fmt.Sprint("k", i%3)), newEvent(fmt.Sprint("lane", i), bus.PartitionKey, fmt.Sprint("k", i%3)),
			newEvent(fmt.Sprint("loop", i), bus.Hops, "99"))
	}
	w.publish(t, newEvent("good0", "colour", "red"))
	w.states(t, "a", map[bus.State]int{bus.Done: 20, bus.Dead: 20})
	w.subscribe(t, bus.Subscription{Name: "a", Filter: json.RawMessage(`{"colour":"blue"}`), Retry: quick})
	w.publish(t, newEvent("later", "colour", "red"))
	if err := w.Unsubscribe(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	if err := w.Redrive(t.Context(), bus.Selection{Subscription: "a"}); err != nil {
		t.Fatal(err)
	}
	id, err := w.Replay(t.Context(), bus.Replay{Subscription: "b", From: time.Now().Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "replay", func() (bool, error) { s, err := w.ReplayStatus(t.Context(), id); return s.Done, err })
	if err := w.Cancel(t.Context(), bus.Selection{Subscription: "b", IDs: []string{first(t, w, "late3")}}); err != nil {
		t.Fatal(err)
	}
	// What has not hung or waits for an hour has ended.
	until(t, "quiet", func() (bool, error) {
		if err := w.Sync(t.Context()); err != nil {
			return false, err
		}
		pending := bus.Pending
		list, err := w.List(t.Context(), bus.Query{State: &pending, Limit: 1000})
		for _, s := range list {
			if time.Until(s.Due) < time.Minute && s.Key == "" {
				return false, err
			}
		}
		return true, err
	})
	return w
}

// first gives the ID of the event's first delivery to "b".
func first(t *testing.T, w *world, id string) string {
	t.Helper()
	out := ""
	until(t, id, func() (bool, error) {
		all, err := w.StatusOfEvent(t.Context(), "", "/test", id)
		for _, s := range all {
			if s.Subscription == "b" && s.Replay == "" {
				out = s.ID
			}
		}
		return out != "", err
	})
	return out
}

// still is a Deliverer that fails the test when it is called for anything but what hung.
func still(t *testing.T) *target {
	return &target{answer: func(ctx context.Context, d *bus.Delivery) error {
		if d.Event.Extension(bus.PartitionKey) == "" {
			t.Errorf("%s of %s was delivered again", d.Event.ID, d.Subscription)
		}
		<-ctx.Done()
		return ctx.Err()
	}}
}

func TestIndex_ComesOutTheSameFromTheLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := busy(t, dir, bus.Options{Partitions: 2})
	if err := w.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := everything(t, w)
	for _, word := range []string{`"state": 0`, `"state": 1`, `"state": 2`, `"state": 3`, `"state": 4`, `"loop"`, `"exhausted"`, `"unsubscribed"`, `"cancelled"`, "replay-", `"redriven": 1`} {
		if !strings.Contains(want, word) {
			t.Errorf("nothing is %s", word)
		}
	}
	w.stop()
	index := func() []string {
		files, err := filepath.Glob(filepath.Join(w.opt.Dir, "*.db"))
		if err != nil || len(files) != 2 {
			t.Fatalf("got %v, %v", files, err)
		}
		return files
	}
	for name, harm := range map[string]func(path string) error{
		"nothing":   func(string) error { return nil },
		"deleted":   os.Remove,
		"garbage":   func(path string) error { return os.WriteFile(path, []byte(strings.Repeat("garbage ", 5000)), 0o600) },
		"cut off":   func(path string) error { return os.Truncate(path, 20000) },
		"emptied":   func(path string) error { return os.Truncate(path, 0) },
		"of others": func(path string) error { return os.Rename(path, path+"x") },
	} {
		for _, f := range index() {
			if err := harm(f); err != nil {
				t.Fatal(err)
			}
		}
		o := w.opt
		o.Deliver = still(t)
		again := start(t, dir, o)
		until(t, name, func() (bool, error) { return true, again.Sync(t.Context()) })
		if got := everything(t, again); got != want {
			t.Errorf("%s: the index came out otherwise", name)
		}
		again.stop()
		_ = os.Remove(filepath.Join(w.opt.Dir, "p0.dbx"))
	}
}

// What is old and has ended is removed from log and index; the rest, and a new index from what is left of the log, knows all that has not.
func TestPurge_KeepsWhatHasNotEnded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	hold := make(chan struct{})
	r := &target{answer: func(ctx context.Context, d *bus.Delivery) error {
		if d.Event.ID == "held" {
			select {
			case <-hold:
			case <-ctx.Done():
			}
			return ctx.Err()
		}
		return nil
	}}
	o := bus.Sweep(bus.Options{Deliver: r, Partitions: 1, Retention: time.Millisecond, DedupWindow: time.Millisecond}, 10*time.Millisecond)
	w := start(t, dir, o)
	w.subscribe(t, bus.Subscription{Name: "s", Filter: json.RawMessage(`{"type":"t"}`)})
	log := func() jetstream.StreamState {
		s, err := w.conn.JetStream().Stream(t.Context(), "EBB_BUS_0")
		if err != nil {
			t.Fatal(err)
		}
		return s.CachedInfo().State
	}
	for i := range 30 {
		w.publish(t, newEvent(fmt.Sprint("old", i)))
	}
	until(t, "first purge", func() (bool, error) { return log().FirstSeq > 20, nil })
	rec, err := w.Publish(t.Context(), newEvent("held"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		w.publish(t, newEvent(fmt.Sprint("new", i)))
	}
	until(t, "second purge", func() (bool, error) { return log().FirstSeq == rec[0].Seq, nil })
	w.states(t, "s", map[bus.State]int{bus.Pending: 1, bus.Done: 30})
	w.stop()
	if err := os.RemoveAll(w.opt.Dir); err != nil {
		t.Fatal(err)
	}
	close(hold)
	late := &target{}
	o.Deliver = late
	w = start(t, dir, o)
	if got := late.wait(t, count(1)); got[0].Event.ID != "held" {
		t.Errorf("came %v", ids(got))
	}
	w.publish(t, newEvent("last"))
	if got := late.wait(t, count(2)); got[1].Event.ID != "last" {
		t.Errorf("came %v", ids(got))
	}
	until(t, "last purge", func() (bool, error) {
		c, err := w.Counts(t.Context())
		return log().FirstSeq > rec[0].Seq+30 && c["s"][bus.Done] <= 1, err
	})
}

func TestPublish_RefusesWhenTheLogIsFull(t *testing.T) {
	t.Parallel()
	var r target
	dir := t.TempDir()
	w := start(t, dir, bus.Options{Deliver: &r, Partitions: 1, MaxLog: 1 << 20})
	w.subscribe(t, bus.Subscription{Name: "s"})
	n := 0
	for {
		e := newEvent(fmt.Sprint(n))
		e.Data, e.DataContentType = make([]byte, 100<<10), "image/png"
		_, err := w.Publish(t.Context(), e)
		if err != nil {
			if errs.CodeOf(err) != errs.Unavailable || errs.HintOf(err) == "" {
				t.Errorf("got %v", err)
			}
			break
		}
		if n++; n > 20 {
			t.Fatal("it never fills")
		}
	}
	// Outcomes still have room: what was accepted ends.
	w.states(t, "s", map[bus.State]int{bus.Done: n})
	// With more room it goes on, and nothing is lost.
	w.stop()
	o := w.opt
	o.MaxLog = 4 << 20
	w = start(t, dir, o)
	w.publish(t, newEvent("small"))
	w.states(t, "s", map[bus.State]int{bus.Done: n + 1})
}

func TestPublish_GathersMoreTheMoreCallersThereAre(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{Partitions: 1})
	most := make(chan int, 100000)
	w.Blocks(func(n int) { most <- n })
	w.publish(t, newEvent("alone"))
	if n := <-most; n != 1 {
		t.Errorf("a lone event is in a block of %d", n)
	}
	done := make(chan error)
	const callers = 200
	for i := range callers {
		go func() {
			_, err := w.Publish(t.Context(), newEvent(fmt.Sprint(i)))
			done <- err
		}()
	}
	for range callers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	blocks := len(most)
	if blocks > callers/4 {
		t.Errorf("%d events took %d blocks", callers, blocks)
	}
}

func TestPublish_SplitsWhatDoesNotFitIntoABlock(t *testing.T) {
	t.Parallel()
	var r target
	w := start(t, t.TempDir(), bus.Options{Deliver: &r, Partitions: 2})
	w.subscribe(t, bus.Subscription{Name: "s", Ordered: true})
	var events []*event.Event
	for i := range 20 {
		e := newEvent(fmt.Sprintf("%02d", i), bus.PartitionKey, "k")
		e.Data, e.DataContentType = make([]byte, 200<<10), "image/png"
		events = append(events, e)
	}
	w.publish(t, events...)
	w.states(t, "s", map[bus.State]int{bus.Done: 20})
	for i, d := range r.all() {
		if d.Event.ID != fmt.Sprintf("%02d", i) || len(d.Event.Data) != 200<<10 {
			t.Errorf("%d is %s", i, d.Event.ID)
		}
	}
}

func TestPublish_EndsWithItsContextAndWithTheBus(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Publish(ctx, newEvent("a")); err != nil && errs.CodeOf(err) != errs.Canceled && errs.CodeOf(err) != errs.Throttled {
		t.Errorf("got %v", err)
	}
	w.stop()
	if _, err := w.Publish(t.Context(), newEvent("b")); errs.CodeOf(err) != errs.Unavailable {
		t.Errorf("got %v", err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

// A log that was put back from a backup is older than the index: what the index says beyond it never happened.
func TestIndex_IsMadeAgainWhenItIsAheadOfTheLog(t *testing.T) {
	embedded(t)
	t.Parallel()
	dir, backup := t.TempDir(), t.TempDir()
	o := bus.Options{Deliver: &target{}}
	w := start(t, dir, o)
	w.subscribe(t, bus.Subscription{Name: "s"})
	w.publish(t, newEvent("kept"))
	w.states(t, "s", map[bus.State]int{bus.Done: 1})
	w.stop()
	if err := os.CopyFS(backup, os.DirFS(filepath.Join(dir, "nats"))); err != nil {
		t.Fatal(err)
	}
	w = start(t, dir, o)
	for i := range 20 {
		w.publish(t, newEvent(fmt.Sprint("lost", i)))
	}
	w.states(t, "s", map[bus.State]int{bus.Done: 21})
	w.stop()
	if err := os.RemoveAll(filepath.Join(dir, "nats")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(dir, "nats"), os.DirFS(backup)); err != nil {
		t.Fatal(err)
	}
	w = start(t, dir, o)
	w.publish(t, newEvent("lost0"))
	w.states(t, "s", map[bus.State]int{bus.Done: 2})
}
