package bus_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
	"github.com/ebb-run/ebb/internal/nats"
)

// patience bounds waits of tests; it is reached only when something is wrong.
const patience = 3 * time.Minute

// target is a Deliverer that records, and answers as told.
type target struct {
	answer func(ctx context.Context, d *bus.Delivery) error // nil is success

	mu struct {
		sync.Mutex
		got  []bus.Delivery
		sig  chan struct{} // closed at every change
		most int           // of a batch
	}
}

func (r *target) Deliver(ctx context.Context, batch []*bus.Delivery) []bus.Outcome {
	r.mu.Lock()
	r.mu.most = max(r.mu.most, len(batch))
	for _, d := range batch {
		r.mu.got = append(r.mu.got, *d)
	}
	r.changed()
	r.mu.Unlock()
	out := make([]bus.Outcome, len(batch))
	for i, d := range batch {
		if r.answer != nil {
			out[i].Err = r.answer(ctx, d)
		}
	}
	return out
}

// changed tells who waits. mu is held.
func (r *target) changed() {
	if r.mu.sig != nil {
		close(r.mu.sig)
	}
	r.mu.sig = make(chan struct{})
}

func (r *target) all() []bus.Delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.mu.got)
}

// wait returns what was delivered when ok says yes to it.
func (r *target) wait(t *testing.T, ok func([]bus.Delivery) bool) []bus.Delivery {
	t.Helper()
	limit := time.After(patience)
	for {
		r.mu.Lock()
		if r.mu.sig == nil {
			r.changed()
		}
		got, sig := slices.Clone(r.mu.got), r.mu.sig
		r.mu.Unlock()
		if ok(got) {
			return got
		}
		select {
		case <-sig:
		case <-limit:
			t.Fatalf("%d deliveries came, not what was waited for", len(got))
		}
	}
}

func count(n int) func([]bus.Delivery) bool {
	return func(d []bus.Delivery) bool { return len(d) >= n }
}

// world is a Bus over an embedded store that runs.
type world struct {
	*bus.Bus
	conn *nats.Conn
	dir  string
	opt  bus.Options
	stop func()
}

func start(t testing.TB, dir string, o bus.Options) *world {
	t.Helper()
	conn, err := nats.Open(t.Context(), stored(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	o.Dir, o.Alone, o.Seal = filepath.Join(dir, "index"), !*overCluster, sealOf(dir).Box("events")
	if *overCluster {
		o.Replicas, o.Node, o.Partitions = 3, "node", max(o.Partitions, 1)
	}
	if o.Compile == nil {
		o.Compile = exact
	}
	b, err := bus.Open(t.Context(), conn.JetStream(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := b.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	w := &world{Bus: b, conn: conn, dir: dir, opt: o}
	w.stop = sync.OnceFunc(func() {
		if wrong, err := bus.Miscounted(b); err != nil || len(wrong) > 0 { // whatever a test did
			t.Errorf("the counts are wrong: %q, %v", wrong, err)
		}
		cancel()
		wg.Wait()
		if err := errors.Join(b.Close(), conn.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(w.stop)
	return w
}

// attributes is a filter for tests: name to value; {"bad": …} is refused.
type attributes map[string]string

func exact(filter json.RawMessage) (bus.Matcher, error) {
	var m attributes
	if err := json.Unmarshal(filter, &m); err != nil || m["bad"] != "" {
		return nil, errs.New(errs.Invalid, "the filter is bad")
	}
	return m, nil
}

func (m attributes) Match(e *event.Event) bool {
	for k, v := range m {
		if e.Attribute(k) != v {
			return false
		}
	}
	return true
}

func newEvent(id string, more ...string) *event.Event {
	e := &event.Event{ID: id, Source: "/test", Type: "t", Data: []byte(`{"id":"` + id + `"}`)}
	for i := 0; i < len(more); i += 2 {
		e.SetExtension(more[i], more[i+1])
	}
	return e
}

func (w *world) publish(t *testing.T, events ...*event.Event) {
	t.Helper()
	if _, err := w.Publish(t.Context(), events...); err != nil {
		t.Fatal(err)
	}
}

func (w *world) subscribe(t *testing.T, s bus.Subscription) {
	t.Helper()
	if err := w.Subscribe(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

// until asks until the answer is right.
func until(t *testing.T, what string, f func() (bool, error)) {
	t.Helper()
	limit := time.Now().Add(patience)
	for {
		ok, err := f()
		if ok && err == nil {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("%s: %v, %v", what, ok, err)
		}
		time.Sleep(5 * time.Millisecond) // there is nothing to wait on but the answer
	}
}

// states waits until the Subscription's deliveries are counted so.
func (w *world) states(t *testing.T, sub string, want map[bus.State]int) {
	t.Helper()
	var got map[bus.State]int
	limit := time.Now().Add(patience)
	for {
		c, err := w.Counts(t.Context())
		if got = c[sub]; err == nil && maps.Equal(got, want) {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("%s: %v, %v; want %v", sub, got, err, want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func ids(ds []bus.Delivery) []string {
	var out []string
	for _, d := range ds {
		out = append(out, d.Event.ID)
	}
	return out
}

// quick retries soon.
var quick = bus.Retry{MinBackoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond}

func TestPublish_ReachesEachMatchingSubscription(t *testing.T) {
	t.Parallel()
	var r target
	w := start(t, t.TempDir(), bus.Options{Partitions: 3, Deliver: &r})
	w.publish(t, newEvent("before"))
	w.subscribe(t, bus.Subscription{Name: "all", Target: json.RawMessage(`{"function":"f"}`)})
	w.subscribe(t, bus.Subscription{Name: "red", Filter: json.RawMessage(`{"colour":"red"}`)})
	w.publish(t, newEvent("a", "colour", "red"))
	w.publish(t, newEvent("b", "colour", "blue"), newEvent("c", "colour", "red"), newEvent("d"))
	got := r.wait(t, count(6))
	bySub := map[string][]string{}
	for _, d := range got {
		bySub[d.Subscription] = append(bySub[d.Subscription], d.Event.ID)
		if d.Attempt != 1 || d.Replay != "" || d.ID == "" || time.Since(d.Published).Abs() > time.Hour || d.Subscription == "all" && string(d.Target) != `{"function":"f"}` {
			t.Errorf("got %+v", d)
		}
		if string(d.Event.Data) != `{"id":"`+d.Event.ID+`"}` {
			t.Errorf("data are %s", d.Event.Data)
		}
	}
	for _, s := range bySub {
		slices.Sort(s)
	}
	if !slices.Equal(bySub["all"], []string{"a", "b", "c", "d"}) || !slices.Equal(bySub["red"], []string{"a", "c"}) {
		t.Errorf("got %v", bySub)
	}
	w.states(t, "all", map[bus.State]int{bus.Done: 4})
	w.states(t, "red", map[bus.State]int{bus.Done: 2})
	st, err := w.Status(t.Context(), got[0].ID)
	if err != nil || st.State != bus.Done || st.EventID != got[0].Event.ID || st.Source != "/test" || len(st.Attempts) != 1 || st.Attempts[0].Code != "" || st.Tries != 1 {
		t.Errorf("got %+v, %v", st, err)
	}
	all, err := w.StatusOfEvent(t.Context(), "", "/test", "a")
	if err != nil || len(all) != 2 || all[0].EventID != "a" {
		t.Errorf("got %+v, %v", all, err)
	}
}

func TestPublish_RefusesBadEventsBeforeAnyIsWritten(t *testing.T) {
	t.Parallel()
	var r target
	w := start(t, t.TempDir(), bus.Options{Deliver: &r})
	w.subscribe(t, bus.Subscription{Name: "s"})
	big := newEvent("big")
	big.Data = make([]byte, 256<<10)
	for _, c := range []struct {
		e    *event.Event
		code errs.Code
	}{{&event.Event{}, errs.Invalid}, {nil, errs.Invalid}, {big, errs.TooLarge}} {
		for _, events := range [][]*event.Event{{c.e}, {newEvent("x"), c.e}} {
			if _, err := w.Publish(t.Context(), events...); errs.CodeOf(err) != c.code {
				t.Errorf("got %v", err)
			}
		}
	}
	w.publish(t, newEvent("last"))
	if got := r.wait(t, count(1)); got[0].Event.ID != "last" {
		t.Errorf("got %v", ids(got))
	}
}

// 500 callers publish at once; every third event is one that others publish too. Nobody is refused for another's duplicate, and each event
// is delivered once.
func TestPublish_MixesDuplicatesAmongManyCallers(t *testing.T) {
	t.Parallel()
	var r target
	w := start(t, t.TempDir(), bus.Options{Partitions: 3, Deliver: &r})
	w.subscribe(t, bus.Subscription{Name: "s", Concurrency: 64})
	const callers, each = 500, 4
	var wg sync.WaitGroup
	var mu sync.Mutex
	want, dups := map[string]bool{}, 0
	for c := range callers {
		wg.Go(func() {
			for i := range each {
				id := fmt.Sprintf("%d-%d", c, i)
				if (c+i)%3 == 0 {
					id = fmt.Sprintf("shared-%d", (c/50+i)%10)
				}
				events := []*event.Event{newEvent(id)}
				if c%10 == 0 { // some bring several, and the same twice
					events = append(events, newEvent(id+"+"), newEvent(id))
				}
				rec, err := w.Publish(t.Context(), events...)
				if err != nil {
					t.Errorf("caller %d: %v", c, err)
					return
				}
				mu.Lock()
				for i, e := range events {
					want[e.ID] = true
					if rec[i].Duplicate {
						dups++
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if dups == 0 {
		t.Error("no caller was told of a duplicate")
	}
	r.wait(t, count(len(want)))
	w.states(t, "s", map[bus.State]int{bus.Done: len(want)})
	seen := map[string]int{}
	for _, d := range r.all() {
		seen[d.Event.ID]++
	}
	for id := range want {
		if seen[id] != 1 {
			t.Errorf("%s came %d times", id, seen[id])
		}
	}
}

func TestPublish_DropsADuplicateWithinTheWindowOnly(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		window time.Duration
		want   int
	}{{time.Hour, 1}, {time.Millisecond, 2}} {
		t.Run(c.window.String(), func(t *testing.T) {
			t.Parallel()
			var r target
			w := start(t, t.TempDir(), bus.Options{Deliver: &r, DedupWindow: c.window})
			w.subscribe(t, bus.Subscription{Name: "s"})
			w.publish(t, newEvent("a"))
			first := time.Now()
			for time.Since(first) < 5*time.Millisecond {
				time.Sleep(time.Millisecond) // the window is one of real time
			}
			w.publish(t, newEvent("a"))
			other := newEvent("a")
			other.Source = "/other"
			w.publish(t, other)
			w.states(t, "s", map[bus.State]int{bus.Done: c.want + 1})
		})
	}
}

func TestDeliver_RetriesAsTheErrorSays(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err      error
		retry    bus.Retry
		attempts int // what the target sees; 0: more than 5
		state    bus.State
		cause    bus.Cause
	}{
		"failure":   {errors.New("boom"), quick, 3, bus.Dead, bus.CauseExhausted},
		"timeout":   {errs.New(errs.Timeout, "slow"), quick, 3, bus.Dead, bus.CauseExhausted},
		"once":      {errors.New("boom"), bus.Retry{Attempts: 1}, 1, bus.Dead, bus.CauseExhausted},
		"not found": {errs.New(errs.NotFound, "gone"), quick, 1, bus.Dead, bus.CauseRefused},
		"forbidden": {fmt.Errorf("x: %w", errs.New(errs.Forbidden, "no")), quick, 1, bus.Dead, bus.CauseRefused},
		"throttled": {errs.New(errs.Throttled, "busy"), quick, 0, bus.Pending, ""},
		"too old":   {errs.New(errs.Unavailable, "busy"), bus.Retry{MinBackoff: time.Millisecond, MaxBackoff: time.Millisecond, MaxAge: 50 * time.Millisecond}, -1, bus.Dead, bus.CauseExpired},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &target{answer: func(context.Context, *bus.Delivery) error { return c.err }}
			w := start(t, t.TempDir(), bus.Options{Deliver: r, Partitions: 1})
			w.subscribe(t, bus.Subscription{Name: "s", Retry: c.retry})
			w.publish(t, newEvent("a"))
			if c.attempts == 0 {
				for _, d := range r.wait(t, count(6)) {
					if d.Attempt != 1 {
						t.Errorf("attempt %d counted", d.Attempt)
					}
				}
				return
			}
			w.states(t, "s", map[bus.State]int{c.state: 1})
			all, err := w.StatusOfEvent(t.Context(), "", "/test", "a")
			if err != nil || len(all) != 1 {
				t.Fatalf("got %v, %v", all, err)
			}
			st := all[0]
			if st.Cause != c.cause || len(st.Attempts) == 0 {
				t.Errorf("got %+v", st)
			}
			last := st.Attempts[len(st.Attempts)-1]
			if last.Code == "" || c.cause != bus.CauseExpired && last.Error != c.err.Error() {
				t.Errorf("got %+v", last)
			}
			if got := r.all(); c.attempts > 0 && (len(got) != c.attempts || got[len(got)-1].Attempt != c.attempts) {
				t.Errorf("came %d times", len(got))
			}
		})
	}
}

func TestRedrive_SendsDeadLettersAgain(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	broken := true
	r := &target{answer: func(_ context.Context, d *bus.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		if !broken {
			return nil
		}
		if strings.HasPrefix(d.Event.ID, "n") {
			return errs.New(errs.NotFound, "gone")
		}
		return errors.New("boom")
	}}
	w := start(t, t.TempDir(), bus.Options{Partitions: 3, Deliver: r})
	w.subscribe(t, bus.Subscription{Name: "s", Retry: quick})
	for i := range 5 {
		w.publish(t, newEvent(fmt.Sprint("n", i)), newEvent(fmt.Sprint("b", i)))
	}
	w.states(t, "s", map[bus.State]int{bus.Dead: 10})
	mu.Lock()
	broken = false
	mu.Unlock()
	if err := w.Redrive(t.Context(), bus.Selection{}); errs.CodeOf(err) != errs.Invalid {
		t.Errorf("got %v", err)
	}
	if err := w.Redrive(t.Context(), bus.Selection{IDs: []string{"x"}}); errs.CodeOf(err) != errs.Invalid {
		t.Errorf("got %v", err)
	}
	dead := bus.Dead
	list, err := w.List(t.Context(), bus.Query{Subscription: "s", State: &dead, Cause: bus.CauseExhausted})
	if err != nil || len(list) != 5 {
		t.Fatalf("got %d, %v", len(list), err)
	}
	if err := w.Redrive(t.Context(), bus.Selection{IDs: []string{list[0].ID}}); err != nil {
		t.Fatal(err)
	}
	w.states(t, "s", map[bus.State]int{bus.Dead: 9, bus.Done: 1})
	if err := w.Redrive(t.Context(), bus.Selection{Cause: bus.CauseRefused}); err != nil {
		t.Fatal(err)
	}
	w.states(t, "s", map[bus.State]int{bus.Dead: 4, bus.Done: 6})
	if err := w.Redrive(t.Context(), bus.Selection{Subscription: "s"}); err != nil {
		t.Fatal(err)
	}
	w.states(t, "s", map[bus.State]int{bus.Done: 10})
	st, err := w.Status(t.Context(), list[0].ID)
	if err != nil || st.Redriven != 1 || st.Cause != "" || len(st.Attempts) != 4 {
		t.Errorf("got %+v, %v", st, err)
	}
	// A list goes on from where it ended.
	var seen []string
	after := ""
	for {
		page, err := w.List(t.Context(), bus.Query{Limit: 1, After: after})
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		seen, after = append(seen, page[0].ID), page[0].ID
	}
	slices.Sort(seen)
	if len(slices.Compact(seen)) != 10 {
		t.Errorf("the pages hold %d", len(seen))
	}
}

func TestCancel_EndsWhatWaitsAndTellsWhatRuns(t *testing.T) {
	t.Parallel()
	told := make(chan struct{}, 1)
	r := &target{answer: func(ctx context.Context, d *bus.Delivery) error {
		if d.Event.ID != "a" {
			return nil
		}
		<-ctx.Done()
		told <- struct{}{}
		return ctx.Err()
	}}
	w := start(t, t.TempDir(), bus.Options{Deliver: r})
	w.subscribe(t, bus.Subscription{Name: "s", Ordered: true})
	w.publish(t, newEvent("a", "partitionkey", "k"), newEvent("b", "partitionkey", "k"), newEvent("c", "partitionkey", "k"))
	w.states(t, "s", map[bus.State]int{bus.Pending: 1, bus.Waiting: 2})
	one := r.wait(t, count(1))[0]
	st, err := w.StatusOfEvent(t.Context(), "", "/test", "b")
	if err != nil || len(st) != 1 || st[0].State != bus.Waiting || st[0].Key != "k" {
		t.Fatalf("got %+v, %v", st, err)
	}
	if err := w.Cancel(t.Context(), bus.Selection{IDs: []string{one.ID, st[0].ID}}); err != nil {
		t.Fatal(err)
	}
	<-told
	w.states(t, "s", map[bus.State]int{bus.Cancelled: 2, bus.Done: 1})
	if got := ids(r.all()); !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("came %v", got)
	}
}

func TestDeliver_KeepsTheOrderOfAKey(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	running := map[string]int{}
	fails := map[string]int{}
	r := &target{}
	r.answer = func(_ context.Context, d *bus.Delivery) error {
		k := d.Event.Extension(bus.PartitionKey)
		mu.Lock()
		if running[k]++; running[k] > 1 {
			t.Errorf("two of %s run at once", k)
		}
		fails[d.Event.ID]++
		fail := len(d.Event.ID)%2 == 0 && fails[d.Event.ID] == 1
		mu.Unlock()
		time.Sleep(100 * time.Microsecond) // lets a second one come, if it would
		mu.Lock()
		defer mu.Unlock()
		running[k]--
		if fail {
			return errors.New("first time")
		}
		return nil
	}
	w := start(t, t.TempDir(), bus.Options{Partitions: 3, Deliver: r})
	w.subscribe(t, bus.Subscription{Name: "s", Ordered: true, Retry: quick, Batch: 4})
	const keys, each = 8, 30
	var wg sync.WaitGroup
	for k := range keys {
		wg.Go(func() {
			for i := range each {
				w.publish(t, newEvent(fmt.Sprintf("%d/%03d%s", k, i, strings.Repeat("x", i%2)), bus.PartitionKey, fmt.Sprint("k", k)))
			}
		})
	}
	wg.Wait()
	w.states(t, "s", map[bus.State]int{bus.Done: keys * each})
	last := map[string]string{}
	for _, d := range r.all() {
		k := d.Event.Extension(bus.PartitionKey)
		if d.Event.ID < last[k] {
			t.Errorf("%s came after %s", d.Event.ID, last[k])
		}
		last[k] = d.Event.ID
	}
}

func TestDeliver_ATargetThatHangsHoldsUpOnlyItself(t *testing.T) {
	t.Parallel()
	r := &target{answer: func(ctx context.Context, d *bus.Delivery) error {
		if d.Subscription == "stuck" {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}}
	w := start(t, t.TempDir(), bus.Options{Deliver: r, Partitions: 1})
	w.subscribe(t, bus.Subscription{Name: "stuck", Concurrency: 2})
	w.subscribe(t, bus.Subscription{Name: "good"})
	const n = 2000
	var events []*event.Event
	for i := range n {
		events = append(events, newEvent(fmt.Sprint(i)))
	}
	w.publish(t, events...)
	w.states(t, "good", map[bus.State]int{bus.Done: n})
	w.states(t, "stuck", map[bus.State]int{bus.Pending: n})
}

func TestDeliver_BatchesAndTakesEachOutcome(t *testing.T) {
	t.Parallel()
	r := &target{answer: func(_ context.Context, d *bus.Delivery) error {
		if strings.HasSuffix(d.Event.ID, "7") {
			return errs.New(errs.Invalid, "a seven")
		}
		return nil
	}}
	w := start(t, t.TempDir(), bus.Options{Deliver: r, Partitions: 1})
	w.subscribe(t, bus.Subscription{Name: "s", Batch: 10, Concurrency: 1})
	var events []*event.Event
	for i := range 100 {
		events = append(events, newEvent(fmt.Sprint(i)))
	}
	w.publish(t, events...)
	w.states(t, "s", map[bus.State]int{bus.Done: 90, bus.Dead: 10})
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.most != 10 {
		t.Errorf("the largest batch has %d", r.mu.most)
	}
}

// wrong gives a number of outcomes that is not the batch's.
type wrong struct{ n int }

func (w wrong) Deliver(context.Context, []*bus.Delivery) []bus.Outcome {
	return make([]bus.Outcome, w.n)
}

func TestDeliver_TakesAWrongNumberOfOutcomesAsFailure(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 2} {
		w := start(t, t.TempDir(), bus.Options{Deliver: wrong{n}, Partitions: 1})
		w.subscribe(t, bus.Subscription{Name: "s", Retry: quick})
		w.publish(t, newEvent("a"))
		w.states(t, "s", map[bus.State]int{bus.Dead: 1})
	}
}

func TestPublish_CutsALoop(t *testing.T) {
	t.Parallel()
	r := &target{}
	w := start(t, t.TempDir(), bus.Options{Deliver: r, MaxHops: 5})
	r.answer = func(ctx context.Context, d *bus.Delivery) error {
		next := newEvent(d.Event.ID + "x")
		bus.Caused(next, d.Event)
		_, err := w.Publish(ctx, next)
		return err
	}
	w.subscribe(t, bus.Subscription{Name: "s"})
	w.publish(t, newEvent("x"))
	w.states(t, "s", map[bus.State]int{bus.Done: 6, bus.Dead: 1})
	dead := bus.Dead
	list, err := w.List(t.Context(), bus.Query{State: &dead})
	if err != nil || len(list) != 1 || list[0].Cause != bus.CauseLoop || list[0].Tries != 0 {
		t.Errorf("got %+v, %v", list, err)
	}
}

func TestReplay_DeliversTheArchiveToOneSubscription(t *testing.T) {
	t.Parallel()
	var r target
	w := start(t, t.TempDir(), bus.Options{Partitions: 3, Deliver: &r})
	w.publish(t, newEvent("early", "colour", "red"))
	from := time.Now()
	for time.Since(from) < 5*time.Millisecond {
		time.Sleep(time.Millisecond) // the store's times have milliseconds here
	}
	from = time.Now()
	for i := range 30 {
		w.publish(t, newEvent(fmt.Sprint("r", i), "colour", "red"), newEvent(fmt.Sprint("b", i), "colour", "blue"))
	}
	w.publish(t, newEvent("r0", "colour", "red")) // a duplicate is not replayed
	w.subscribe(t, bus.Subscription{Name: "other"})
	w.subscribe(t, bus.Subscription{Name: "s", Filter: json.RawMessage(`{"type":"t"}`)})
	until(t, "subscriptions", func() (bool, error) { s, err := w.Subscriptions(t.Context()); return len(s) == 2, err })
	if _, err := w.Replay(t.Context(), bus.Replay{Subscription: "none", From: from}); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("got %v", err)
	}
	if _, err := w.Replay(t.Context(), bus.Replay{Subscription: "s", From: time.Now().Add(time.Hour)}); errs.CodeOf(err) != errs.Invalid {
		t.Errorf("got %v", err)
	}
	id, err := w.Replay(t.Context(), bus.Replay{Subscription: "s", From: from, Filter: json.RawMessage(`{"colour":"red"}`)})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "replay", func() (bool, error) { s, err := w.ReplayStatus(t.Context(), id); return s.Done && s.Found == 30, err })
	w.states(t, "s", map[bus.State]int{bus.Done: 30})
	for _, d := range r.all() {
		if d.Replay != id || d.Subscription != "s" || d.Event.Extension("colour") != "red" || d.Event.ID == "early" {
			t.Errorf("got %+v", d)
		}
	}
}

func TestSubscribe_ReplacesAndDeletes(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	r := &target{answer: func(ctx context.Context, d *bus.Delivery) error {
		select {
		case <-hold:
		case <-ctx.Done():
		}
		return nil
	}}
	w := start(t, t.TempDir(), bus.Options{Deliver: r, Partitions: 2})
	for _, s := range []bus.Subscription{{}, {Name: strings.Repeat("x", 300)}, {Name: "s", Filter: json.RawMessage(`{"bad":"x"}`)}, {Name: "s", Batch: -1}} {
		if err := w.Subscribe(t.Context(), s); errs.CodeOf(err) != errs.Invalid {
			t.Errorf("%.30s: got %v", s.Name, err)
		}
	}
	w.subscribe(t, bus.Subscription{Name: "s", Filter: json.RawMessage(`{"id":"a"}`)})
	w.publish(t, newEvent("a"), newEvent("b"))
	w.subscribe(t, bus.Subscription{Name: "s", Filter: json.RawMessage(`{"id":"c"}`)})
	w.publish(t, newEvent("c"), newEvent("d"))
	w.states(t, "s", map[bus.State]int{bus.Pending: 2})
	if err := w.Unsubscribe(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	w.states(t, "s", map[bus.State]int{bus.Cancelled: 2})
	close(hold)
	w.subscribe(t, bus.Subscription{Name: "s"})
	w.publish(t, newEvent("e"))
	w.states(t, "s", map[bus.State]int{bus.Done: 1}) // what the deleted one had is not this one's
}

func TestRead_GivesTheArchiveAndWhatFollows(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{Partitions: 3})
	read := func(r bus.Range) []string {
		var out []string
		if err := w.Read(t.Context(), r, func(rec bus.Recorded) error { out = append(out, rec.Event.ID); return nil }); err != nil {
			t.Error(err)
		}
		slices.Sort(out)
		return out
	}
	if got := read(bus.Range{}); got != nil {
		t.Errorf("got %v of nothing", got)
	}
	w.publish(t, newEvent("a"), newEvent("b", "colour", "red"))
	middle := time.Now()
	w.subscribe(t, bus.Subscription{Name: "s"})
	w.publish(t, newEvent("c", "colour", "red"), newEvent("d"))
	for name, c := range map[string]struct {
		r    bus.Range
		want []string
	}{
		"all":      {bus.Range{}, []string{"a", "b", "c", "d"}},
		"since":    {bus.Range{From: middle}, []string{"c", "d"}},
		"until":    {bus.Range{To: middle}, []string{"a", "b"}},
		"filtered": {bus.Range{Filter: json.RawMessage(`{"colour":"red"}`)}, []string{"b", "c"}},
		"future":   {bus.Range{From: time.Now().Add(time.Hour)}, nil},
	} {
		if got := read(c.r); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v", name, got)
		}
	}
	if err := w.Read(t.Context(), bus.Range{Filter: json.RawMessage(`{"bad":"x"}`)}, nil); errs.CodeOf(err) != errs.Invalid {
		t.Errorf("got %v", err)
	}
	enough := errors.New("enough")
	n := 0
	var publishing sync.WaitGroup
	err := w.Read(t.Context(), bus.Range{Follow: true}, func(rec bus.Recorded) error {
		if n++; n == 4 {
			publishing.Go(func() {
				if _, err := w.Publish(t.Context(), newEvent("new")); err != nil {
					t.Error(err)
				}
			})
		}
		if rec.Event.ID == "new" {
			return enough
		}
		return nil
	})
	publishing.Wait() // the reader may have the event before the publisher has its answer
	if !errors.Is(err, enough) || n != 5 {
		t.Errorf("got %d, %v", n, err)
	}
}

// A key's next delivery does not begin while the one before still runs, although that was cancelled and the log has promoted the next.
func TestCancel_KeepsAKeyFromRunningTwice(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	r := &target{answer: func(_ context.Context, d *bus.Delivery) error {
		if d.Event.ID == "a" {
			<-release // deaf to its context
		}
		return nil
	}}
	w := start(t, t.TempDir(), bus.Options{Deliver: r})
	let := sync.OnceFunc(func() { close(release) })
	t.Cleanup(let) // before the bus waits for it
	w.subscribe(t, bus.Subscription{Name: "s", Ordered: true})
	w.publish(t, newEvent("a", bus.PartitionKey, "k"), newEvent("b", bus.PartitionKey, "k"), newEvent("free", bus.PartitionKey, "other"))
	got := r.wait(t, count(2))
	id := got[slices.IndexFunc(got, func(d bus.Delivery) bool { return d.Event.ID == "a" })].ID
	if err := w.Cancel(t.Context(), bus.Selection{IDs: []string{id}}); err != nil {
		t.Fatal(err)
	}
	w.states(t, "s", map[bus.State]int{bus.Cancelled: 1, bus.Pending: 1, bus.Done: 1})
	// What is published now is dispatched behind "b" in the same goroutine.
	w.publish(t, newEvent("after", bus.PartitionKey, "third"))
	w.states(t, "s", map[bus.State]int{bus.Cancelled: 1, bus.Pending: 1, bus.Done: 2})
	if slices.Contains(ids(r.all()), "b") {
		t.Error("b began while a still ran")
	}
	let()
	w.states(t, "s", map[bus.State]int{bus.Cancelled: 1, bus.Done: 3})
}

func TestRedrive_GivesAllAttemptsAgain(t *testing.T) {
	t.Parallel()
	r := &target{answer: func(context.Context, *bus.Delivery) error { return errors.New("boom") }}
	w := start(t, t.TempDir(), bus.Options{Deliver: r})
	w.subscribe(t, bus.Subscription{Name: "s", Retry: quick})
	w.publish(t, newEvent("a"))
	w.states(t, "s", map[bus.State]int{bus.Dead: 1})
	if err := w.Redrive(t.Context(), bus.Selection{All: true}); err != nil {
		t.Fatal(err)
	}
	got := r.wait(t, count(6))
	w.states(t, "s", map[bus.State]int{bus.Dead: 1})
	for i, d := range r.all() {
		if d.Attempt != i%3+1 || d.Redriven != i/3 {
			t.Errorf("%d: got attempt %d of round %d", i, d.Attempt, d.Redriven)
		}
	}
	if st, err := w.Status(t.Context(), got[0].ID); err != nil || st.Tries != 6 || len(st.Attempts) != 6 {
		t.Errorf("got %+v, %v", st, err)
	}
}

func TestPublish_TellsOfDuplicatesInOneCall(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{})
	rec, err := w.Publish(t.Context(), newEvent("a"), newEvent("b"), newEvent("a"))
	if err != nil || rec[0].Duplicate || rec[1].Duplicate || !rec[2].Duplicate || rec[2].Seq != rec[0].Seq || rec[2].Item != rec[0].Item || rec[1].Item == rec[0].Item {
		t.Errorf("got %+v, %v", rec, err)
	}
}
