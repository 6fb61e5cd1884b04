package bus_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
)

// large makes JSON data of n bytes that nothing makes smaller, the same for the same seed.
func large(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = 'a' + byte(r.IntN(26))
	}
	copy(b, fmt.Sprintf(`{"n":%d,"x":"`, seed))
	copy(b[n-2:], `"}`)
	return b
}

func largeEvent(seed uint64, n int) *event.Event {
	e := newEvent(fmt.Sprint(seed))
	e.Data, e.DataContentType = large(seed, n), "application/json"
	return e
}

// begins is a Filter that looks at the data of events: it wants them to begin so.
type begins string

func (m begins) Match(e *event.Event) bool { return strings.HasPrefix(string(e.Data), string(m)) }

// byData compiles a JSON text to begins.
func byData(filter json.RawMessage) (bus.Matcher, error) {
	var text string
	err := json.Unmarshal(filter, &text)
	return begins(text), err
}

// Large data come as they were: delivered, filtered by, redriven, replayed and read from the archive, among small ones and in one batch.
func TestData_LargeEventsComeWhole(t *testing.T) {
	t.Parallel()
	fail := make(chan struct{})
	r := &target{answer: func(_ context.Context, d *bus.Delivery) error {
		select {
		case <-fail:
			return nil
		default:
			return errs.New(errs.Failed, "not yet")
		}
	}}
	w := start(t, t.TempDir(), bus.Options{Deliver: r, Compile: byData, Limits: event.Limits{Event: 8 << 20}, Partitions: 2})
	filter, _ := json.Marshal(`{"n":`)
	w.subscribe(t, bus.Subscription{Name: "s", Filter: filter, Batch: 3, Retry: bus.Retry{Attempts: 1}})
	other, _ := json.Marshal(`other`)
	w.subscribe(t, bus.Subscription{Name: "none", Filter: other})
	want := map[string][]byte{}
	var events []*event.Event
	for i, n := range []int{100, 256 << 10, 256<<10 + 1, 1 << 20, 2 << 20, 7 << 20, 1000, 800<<10 + 1} {
		e := largeEvent(uint64(i+1), n)
		events, want[e.ID] = append(events, e), e.Data
	}
	w.publish(t, events[:5]...)
	for _, e := range events[5:] {
		w.publish(t, e)
	}
	w.states(t, "s", map[bus.State]int{bus.Dead: len(events)})
	close(fail)
	if err := w.Redrive(t.Context(), bus.Selection{Subscription: "s"}); err != nil {
		t.Fatal(err)
	}
	w.states(t, "s", map[bus.State]int{bus.Done: len(events)})
	id, err := w.Replay(t.Context(), bus.Replay{Subscription: "s", From: time.Now().Add(-time.Hour), Filter: filter})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "replay", func() (bool, error) {
		s, err := w.ReplayStatus(t.Context(), id)
		return s.Done && s.Found == len(events), err
	})
	for _, d := range r.wait(t, count(3*len(events))) {
		if d.Subscription != "s" || !bytes.Equal(d.Event.Data, want[d.Event.ID]) {
			t.Errorf("%s of %s: %d bytes came, not the %d of it", d.Event.ID, d.Subscription, len(d.Event.Data), len(want[d.Event.ID]))
		}
	}
	found := map[string]bool{}
	err = w.Read(t.Context(), bus.Range{Filter: filter}, func(rec bus.Recorded) error {
		if found[rec.Event.ID] = true; !bytes.Equal(rec.Event.Data, want[rec.Event.ID]) {
			t.Errorf("%s: the archive has %d bytes", rec.Event.ID, len(rec.Event.Data))
		}
		return nil
	})
	if err != nil || len(found) != len(events) {
		t.Errorf("the archive has %d events, %v", len(found), err)
	}
	if st, err := w.StatusOfEvent(t.Context(), "", "/test", "6"); err != nil || len(st) != 2 || st[0].EventID != "6" {
		t.Errorf("got %+v, %v", st, err)
	}
}

// Messages of queues, also those that go to a dead-letter queue of another Partition, publications and records come whole.
func TestData_LargeMessagesComeWhole(t *testing.T) {
	t.Parallel()
	r := &target{}
	w := start(t, t.TempDir(), bus.Options{Deliver: r, Partitions: 4, MaxData: 3 << 20})
	one, two := bus.Apart(w.Bus, "one", "two")
	w.queue(t, bus.Queue{Name: two, Visibility: new(time.Hour)})
	w.queue(t, bus.Queue{Name: one, MaxReceives: 1, DeadLetters: two, Visibility: new(time.Hour)})
	body := large(1, 3<<20)
	for name, q := range map[string]bus.Queue{"standard": {Name: one}, "fifo": {Name: "q.fifo", FIFO: true}} {
		if q.FIFO {
			w.queue(t, q)
		}
		m := bus.Message{Body: body}
		if q.FIFO {
			m.Group, m.Dedup = "g", "d"
		}
		out, err := w.Send(t.Context(), q.Name, []bus.Message{m})
		if err != nil || out[0].Err != nil {
			t.Fatal(name, err, out)
		}
		if peek, err := w.PeekQueue(t.Context(), q.Name, "", 10); err != nil || len(peek) != 1 || !bytes.Equal(peek[0].Body, body) {
			t.Errorf("%s: %d messages are shown, %v", name, len(peek), err)
		}
		got := w.await(t, q.Name, 1)
		if !bytes.Equal(got[0].Body, body) {
			t.Errorf("%s: %d bytes came", name, len(got[0].Body))
		}
		if !q.FIFO {
			w.show(t, q.Name, got)
		}
	}
	w.receive(t, one, 1) // it goes to the dead letters
	if got := w.await(t, two, 1); !bytes.Equal(got[0].Body, body) {
		t.Errorf("as a dead letter %d bytes came", len(got[0].Body))
	}
	w.topic(t, bus.Topic{Name: "news"})
	w.subscribe(t, bus.Subscription{Name: "reader", Channel: bus.TopicChannel("news")})
	w.note(t, "news", string(body))
	if got := r.wait(t, count(1)); !bytes.Equal(got[0].Event.Data, body) {
		t.Errorf("of the publication %d bytes came", len(got[0].Event.Data))
	}
	w.stream(t, bus.Stream{Name: "s"})
	w.add(t, "s", "k:small", "k:"+string(body[:3<<20-10]), "k:"+string(body[:1<<20]))
	got := w.shardData(t, "s", w.shards(t, "s")[0].ID, 2)
	if len(got) != 3 || got[0] != "k:small" || got[1] != "k:"+string(body[:3<<20-10]) || got[2] != "k:"+string(body[:1<<20]) {
		t.Errorf("%d records came", len(got))
	}
}

// What is over the limit is refused with the number and what raises it.
func TestData_OverTheLimitIsRefused(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{Limits: event.Limits{Event: 1 << 20}})
	w.queue(t, bus.Queue{Name: "q"})
	w.queue(t, bus.Queue{Name: "more", MaxSize: 2 << 20})
	w.stream(t, bus.Stream{Name: "s"})
	refused := func(what string, err error, says string) {
		t.Helper()
		if errs.CodeOf(err) != errs.TooLarge || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	_, err := w.Publish(t.Context(), largeEvent(1, 1<<20))
	refused("event", err, "1048576")
	e := newEvent("attributes", "long", strings.Repeat("x", 600<<10))
	_, err = w.Publish(t.Context(), e)
	refused("attributes", err, "524288")
	sent, err := w.Send(t.Context(), "q", []bus.Message{{Body: large(1, 1<<20+1)}, {Body: large(2, 1<<20)}})
	if err != nil || sent[1].Err != nil {
		t.Fatal(err, sent)
	}
	refused("message", sent[0].Err, "1048576")
	if errs.HintOf(sent[0].Err) == "" {
		t.Error("the refusal has no hint")
	}
	if sent, err = w.Send(t.Context(), "more", []bus.Message{{Body: large(1, 2<<20)}}); err != nil || sent[0].Err != nil {
		t.Error(err, sent)
	}
	put, err := w.PutRecords(t.Context(), "s", []bus.Record{{Key: "k", Data: large(1, 1<<20)}, {Key: "k", Data: large(1, 1<<20-1)}})
	if err != nil || put[1].Err != nil {
		t.Fatal(err, put)
	}
	refused("record", put[0].Err, "1048576")
}

// The purge of the log's head keeps the chunks of what stays, and nothing for longer; a new index from what is left delivers it whole.
func TestData_GoesWithTheLogAndNotBefore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	hold := make(chan struct{})
	r := &target{answer: func(ctx context.Context, d *bus.Delivery) error {
		if strings.HasPrefix(d.Event.ID, "9") {
			select {
			case <-hold:
			case <-ctx.Done():
			}
			return ctx.Err()
		}
		return nil
	}}
	const kept = 15 * time.Second // of chunks that may wait for what refers to them
	o := bus.Sweep(bus.Options{Deliver: r, Partitions: 1, Retention: time.Millisecond, DedupWindow: time.Millisecond, Limits: event.Limits{Event: 4 << 20}, Compile: byData}, 10*time.Millisecond)
	o = bus.KeepChunks(o, kept)
	w := start(t, dir, o)
	filter, _ := json.Marshal(`{"n":`)
	w.subscribe(t, bus.Subscription{Name: "s", Filter: filter, Deadline: time.Hour})
	log := func() jetstream.StreamState {
		s, err := w.conn.JetStream().Stream(t.Context(), "EBB_BUS_0")
		if err != nil {
			t.Fatal(err)
		}
		return s.CachedInfo().State
	}
	publish := func(e *event.Event) (rec []bus.Receipt) {
		until(t, "publish", func() (bool, error) { // a slow disk may take longer than chunks are kept here
			var err error
			rec, err = w.Publish(t.Context(), e)
			return err == nil, err
		})
		return rec
	}
	tick := func() { // what is kept for a time is kept by the time of the log, which goes on with what is written
		w.publish(t, newEvent(fmt.Sprint("tick", time.Now())))
		time.Sleep(50 * time.Millisecond) // not too many of them
	}
	for i := range uint64(10) {
		publish(largeEvent(100+i, 1<<20))
	}
	until(t, "first purge", func() (bool, error) {
		tick()
		return log().FirstSeq > 10, nil
	})
	before := log().LastSeq
	held := largeEvent(9, 3<<20) // its chunks are in blocks of their own, before it
	rec := publish(held)
	if rec[0].Seq < before+3 {
		t.Fatalf("it stands in block %d, after %d", rec[0].Seq, before)
	}
	for i := range uint64(10) {
		publish(largeEvent(200+i, 1<<20))
	}
	w.states(t, "s", map[bus.State]int{bus.Pending: 1, bus.Done: 10})
	until(t, "second purge", func() (bool, error) {
		tick()
		return log().FirstSeq > before, nil
	})
	alone := time.Now()
	until(t, "age", func() (bool, error) { // now only the event itself holds its chunks
		tick()
		return time.Since(alone) > kept+time.Second, nil
	})
	if first := log().FirstSeq; first >= rec[0].Seq {
		t.Errorf("the log begins at block %d: the data of %d are gone", first, rec[0].Seq)
	}
	// What is left in front of the index's beginning is no part of the archive's replays.
	if _, err := w.Replay(t.Context(), bus.Replay{Subscription: "s", From: time.Now().Add(-time.Hour)}); err != nil {
		t.Fatal(err)
	}
	w.stop()
	if err := os.RemoveAll(w.opt.Dir); err != nil {
		t.Fatal(err)
	}
	close(hold)
	late := &target{}
	o.Deliver = late
	w = start(t, dir, o)
	got := late.wait(t, func(ds []bus.Delivery) bool {
		for _, d := range ds {
			if d.Event.ID == "9" {
				return true
			}
		}
		return false
	})
	for _, d := range got {
		if d.Event.ID == "9" && !bytes.Equal(d.Event.Data, held.Data) {
			t.Errorf("%d bytes came", len(d.Event.Data))
		}
	}
	until(t, "last purge", func() (bool, error) {
		tick()
		s := log()
		return s.FirstSeq >= rec[0].Seq && s.Bytes < 1<<20, nil
	})
	if n, err := bus.Rows(t.Context(), w.Bus, "data"); err != nil || n > 1 {
		t.Errorf("%d rows are left, %v", n, err)
	}
}

// What is received, shown or moved at once is bounded by its bytes, and all of it comes in the end.
func TestData_ManyLargeMessagesComeInParts(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{Partitions: 4, MaxData: 6 << 20})
	one, two := bus.Apart(w.Bus, "one", "two")
	w.queue(t, bus.Queue{Name: one, Visibility: new(time.Hour)})
	w.queue(t, bus.Queue{Name: two, Visibility: new(time.Hour)})
	for i := range uint64(5) {
		if out, err := w.Send(t.Context(), one, []bus.Message{{Body: large(i, 6<<20)}}); err != nil || out[0].Err != nil {
			t.Fatal(err, out)
		}
	}
	if peek, err := w.PeekQueue(t.Context(), one, "", 10); err != nil || len(peek) != 2 {
		t.Errorf("%d messages are shown, %v", len(peek), err)
	}
	if n, err := w.RedriveQueue(t.Context(), bus.QueueRedrive{From: one, To: two}); err != nil || n != 5 {
		t.Errorf("%d messages were moved, %v", n, err)
	}
	seen := map[string]bool{}
	for len(seen) < 5 {
		got := append(w.await(t, two, 1), w.receive(t, two, 10)...)
		if len(got) > 3 {
			t.Errorf("%d messages came at once", len(got))
		}
		for _, m := range got {
			seen[string(m.Body[:6])] = true
		}
		w.remove(t, two, got)
	}
}

// Chunks that nothing refers to yet outlast a purge: what does is on its way.
func TestData_OutlastsThePurgeBeforeItsItem(t *testing.T) {
	t.Parallel()
	r := &target{}
	o := bus.Sweep(bus.Options{Deliver: r, Partitions: 1, Retention: time.Millisecond, DedupWindow: time.Millisecond, Limits: event.Limits{Event: 4 << 20}, Compile: byData}, 10*time.Millisecond)
	dir := t.TempDir()
	w := start(t, dir, o)
	filter, _ := json.Marshal(`{"n":`)
	w.subscribe(t, bus.Subscription{Name: "s", Filter: filter})
	e := largeEvent(1, 3<<20)
	purged := func() {
		for i := range 20 {
			w.publish(t, newEvent(fmt.Sprint("small", i, time.Now())))
		}
		until(t, "purge", func() (bool, error) {
			n, err := bus.Rows(t.Context(), w.Bus, "events")
			return n <= 1, err
		})
	}
	err := bus.PublishInParts(t.Context(), w.Bus, e, func() {
		purged()
		w.stop() // the next owner keeps them too
		w = start(t, dir, o)
		until(t, "sync", func() (bool, error) { return true, w.Sync(t.Context()) })
		purged()
	})
	if err == nil {
		t.Fatal("the closed bus took it")
	}
	err = bus.PublishInParts(t.Context(), w.Bus, e, func() {
		purged()
		bus.ForgetBlocks(w.Bus)
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := r.wait(t, count(1)); !bytes.Equal(got[0].Event.Data, e.Data) {
		t.Errorf("%d bytes came", len(got[0].Event.Data))
	}
}

// A Subscription whose target does not answer has a bounded number of large events in memory, and one that takes small ones goes on beside it.
func TestData_DeliveriesWaitForRoomInMemory(t *testing.T) {
	t.Parallel()
	const size, n = 7 << 20, 14 // nine fit
	var now, most atomic.Int64
	next := make(chan struct{})
	r := &target{answer: func(ctx context.Context, d *bus.Delivery) error {
		if d.Subscription != "large" {
			return nil
		}
		if v := now.Add(1); v > most.Load() {
			most.Store(v)
		}
		defer now.Add(-1)
		select {
		case <-next:
		case <-ctx.Done():
		}
		return ctx.Err()
	}}
	w := start(t, t.TempDir(), bus.Options{Deliver: r, Partitions: 1, Limits: event.Limits{Event: 8 << 20}})
	w.subscribe(t, bus.Subscription{Name: "large", Concurrency: 100, Deadline: time.Hour, Filter: json.RawMessage(`{"type":"t"}`)})
	w.subscribe(t, bus.Subscription{Name: "small", Filter: json.RawMessage(`{"type":"small"}`)})
	body := large(1, size)
	for i := range n {
		e := newEvent(fmt.Sprint(i))
		e.Data = body
		w.publish(t, e)
	}
	until(t, "a full house", func() (bool, error) { return now.Load() == 9, nil })
	e := newEvent("beside")
	e.Type = "small"
	w.publish(t, e)
	w.states(t, "small", map[bus.State]int{bus.Done: 1})
	for range n {
		next <- struct{}{}
	}
	w.states(t, "large", map[bus.State]int{bus.Done: n})
	if most.Load() > 9 {
		t.Errorf("%d of them were in memory", most.Load())
	}
}

// What takes so long that its chunks might be removed before it is in the log is refused, and nothing comes of it; small ones are not concerned.
func TestData_WhatTakesTooLongIsRefused(t *testing.T) {
	t.Parallel()
	r := &target{}
	w := start(t, t.TempDir(), bus.KeepChunks(bus.Options{Deliver: r, Limits: event.Limits{Event: 4 << 20}, Partitions: 1}, 2))
	w.subscribe(t, bus.Subscription{Name: "s"})
	if _, err := w.Publish(t.Context(), largeEvent(1, 1<<20)); errs.CodeOf(err) != errs.Unavailable || errs.HintOf(err) == "" {
		t.Errorf("got %v", err)
	}
	w.publish(t, newEvent("small"))
	w.states(t, "s", map[bus.State]int{bus.Done: 1})
	if got := r.all(); len(got) != 1 || got[0].Event.ID != "small" {
		t.Errorf("got %v", ids(got))
	}
}

// A full log refuses large data as it does small ones, and what was accepted ends with the events that tell of it, large ones too.
func TestData_AFullLogTakesWhatTellsOfTheEnd(t *testing.T) {
	t.Parallel()
	r := &target{}
	hold := make(chan struct{})
	r.answer = func(ctx context.Context, d *bus.Delivery) error {
		select {
		case <-hold:
		case <-ctx.Done():
		}
		return ctx.Err()
	}
	told := large(99, 300<<10)
	w := start(t, t.TempDir(), bus.Options{Deliver: r, Partitions: 1, MaxLog: 4 << 20, Limits: event.Limits{Event: 2 << 20}, Ended: func(d *bus.Delivery, _ bus.State, _ bus.Cause, _ bus.Outcome) []*event.Event {
		if d.Subscription != "s" || d.Event.ID != "1" {
			return nil
		}
		var out []*event.Event
		for i := range 2 { // together more than a block has
			e := newEvent(fmt.Sprint("told", i), bus.Channel, "end")
			e.Data = told
			out = append(out, e)
		}
		return out
	}})
	w.subscribe(t, bus.Subscription{Name: "s", Deadline: time.Hour, Concurrency: 100})
	w.subscribe(t, bus.Subscription{Name: "end", Channel: "end"})
	n := 0
	for {
		_, err := w.Publish(t.Context(), largeEvent(uint64(n+1), 1<<20))
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
	close(hold)
	w.states(t, "s", map[bus.State]int{bus.Done: n})
	w.states(t, "end", map[bus.State]int{bus.Done: 2})
	for _, d := range r.all() {
		if d.Subscription == "end" && !bytes.Equal(d.Event.Data, told) {
			t.Errorf("%s came with %d bytes", d.Event.ID, len(d.Event.Data))
		}
	}
}
