package bus_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
)

// pollStream runs a mapping until the test or stop ends it.
func (w *world) pollStream(t *testing.T, m bus.StreamMapping, c bus.Consumer) (stop func()) {
	t.Helper()
	if m.Name == "" {
		m.Name = "m"
	}
	if m.Stream == "" {
		m.Stream = "s"
	}
	if m.Start.From == "" {
		m.Start.From = bus.TrimHorizon
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := w.PollStream(ctx, m, c); err != nil {
			t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	return stop
}

// sizes are those of the Batches that came.
func (c *consumer) sizes() (out []int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range c.mu.got {
		out = append(out, len(b.Items))
	}
	return out
}

// came waits until the records that came are these, in any order of shards.
func (c *consumer) came(t *testing.T, want ...string) {
	t.Helper()
	until(t, fmt.Sprintf("records %q", want), func() (bool, error) { return slices.Equal(c.bodies(), want), nil })
}

// given records what a mapping gave up.
type given struct {
	mu struct {
		sync.Mutex
		got []bus.StreamFailure
	}
	fail int // so many calls first
}

func (g *given) failed(_ context.Context, f *bus.StreamFailure) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.fail > 0 {
		g.fail--
		return errors.New("not now")
	}
	g.mu.got = append(g.mu.got, *f)
	return nil
}

// texts are the data of what was given up, a text for each time.
func (g *given) texts() (out []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, f := range g.mu.got {
		var all []string
		for _, it := range f.Batch.Items {
			all = append(all, string(it.Event.Data))
		}
		out = append(out, fmt.Sprintf("%s after %d", strings.Join(all, " "), f.Tries))
	}
	return out
}

// poison fails Batches that hold a "z", whole or from it on.
func poison(report bool) func(b *invocation.Batch, _ int) invocation.Verdict {
	return func(b *invocation.Batch, _ int) invocation.Verdict {
		for i, it := range b.Items {
			if strings.Contains(string(it.Event.Data), "z") {
				if !report {
					return failAll(b, errors.New("boom"))
				}
				v := invocation.Verdict{}
				for ; i < len(b.Items); i++ {
					v.Failed = append(v.Failed, i)
				}
				return v
			}
		}
		return invocation.Verdict{}
	}
}

func TestStreamMapping_RetriesBisectsAndGivesUp(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		m      bus.StreamMapping
		put    []string
		answer func(b *invocation.Batch, n int) invocation.Verdict
		came   []string // all Batches, in one shard, each with spaces between
		given  []string
	}{
		"all done": {put: []string{"a", "b"}, came: []string{"a b"}},
		"retries, then success": {put: []string{"a", "b"}, answer: func(b *invocation.Batch, n int) invocation.Verdict {
			if n < 3 {
				return failAll(b, errors.New("boom"))
			}
			return invocation.Verdict{}
		}, came: []string{"a b", "a b", "a b"}},
		"throttled is no try": {put: []string{"a"}, m: bus.StreamMapping{Retries: new(0)}, answer: func(b *invocation.Batch, n int) invocation.Verdict {
			if n < 3 {
				return failAll(b, errs.New(errs.Throttled, "busy"))
			}
			return invocation.Verdict{}
		}, came: []string{"a", "a", "a"}},
		"an error alone fails all": {put: []string{"a"}, m: bus.StreamMapping{Retries: new(0)}, answer: func(*invocation.Batch, int) invocation.Verdict { return invocation.Verdict{Err: errors.New("boom")} },
			came: []string{"a"}, given: []string{"a after 1"}},
		"retries spent": {put: []string{"a", "z", "c"}, m: bus.StreamMapping{Retries: new(1)}, answer: poison(false), came: []string{"a z c", "a z c"}, given: []string{"a z c after 2"}},
		"a report":      {put: []string{"a", "z", "c"}, m: bus.StreamMapping{Retries: new(1)}, answer: poison(true), came: []string{"a z c", "z c"}, given: []string{"z c after 2"}},
		"a report begins the retries anew": {put: []string{"a", "b"}, m: bus.StreamMapping{Retries: new(1)}, answer: func(b *invocation.Batch, n int) invocation.Verdict {
			return invocation.Verdict{Failed: [][]int{{0, 1}, {1}, {0}}[n-1]}
		}, came: []string{"a b", "a b", "b"}, given: []string{"b after 2"}},
		"bisect":                  {put: []string{"a", "b", "z", "d", "e"}, m: bus.StreamMapping{Retries: new(1), Bisect: true}, answer: poison(false), came: []string{"a b z d e", "a b z", "a b", "z", "z", "d e"}, given: []string{"z after 4"}},
		"bisect without retries":  {put: []string{"a", "z"}, m: bus.StreamMapping{Retries: new(0), Bisect: true}, answer: poison(false), came: []string{"a z", "a", "z"}, given: []string{"z after 2"}},
		"bisect at what is named": {put: []string{"a", "b", "z", "d"}, m: bus.StreamMapping{Retries: new(0), Bisect: true}, answer: poison(true), came: []string{"a b z d", "z d", "z", "d"}, given: []string{"z after 3"}},
		"small batches":           {put: []string{"a", "b", "c"}, m: bus.StreamMapping{Batch: 2}, came: []string{"a b", "c"}},
		"a filter":                {put: []string{"a", "b", "c"}, m: bus.StreamMapping{Filter: func(b *invocation.Batch) bool { return b.Items[0].Event.Data[2] != 'b' }}, came: []string{"a c"}},
		"too old":                 {put: []string{"a", "b"}, m: bus.StreamMapping{MaxAge: time.Nanosecond}, given: []string{"a b after 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start(t, t.TempDir(), bus.Options{})
			w.stream(t, bus.Stream{Name: "s"})
			var put []string
			for _, s := range c.put {
				put = append(put, "k:"+s)
			}
			w.add(t, "s", put...)
			con, g := &consumer{answer: c.answer}, &given{fail: 1}
			c.m.Failed = g.failed
			stop := w.pollStream(t, c.m, con)
			w.consumed(t, "m", "s", len(c.put))
			got := []string{}
			con.mu.Lock()
			for _, b := range con.mu.got {
				var all []string
				for _, it := range b.Items {
					all = append(all, strings.TrimPrefix(string(it.Event.Data), "k:"))
				}
				got = append(got, strings.Join(all, " "))
			}
			con.mu.Unlock()
			if !slices.Equal(got, c.came) && len(got)+len(c.came) > 0 {
				t.Errorf("got %q\nwant %q", got, c.came)
			}
			if texts := strings.ReplaceAll(strings.Join(g.texts(), ", "), "k:", ""); texts != strings.Join(c.given, ", ") {
				t.Errorf("given up: %q, want %q", texts, c.given)
			}
			// What is done does not come again.
			stop()
			con = &consumer{}
			w.pollStream(t, c.m, con)
			w.add(t, "s", "k:last")
			if c.m.MaxAge == 0 {
				con.came(t, "k:last")
			}
		})
	}
}

// consumed waits until a mapping has done n records of a stream, put by one call to one shard.
func (w *world) consumed(t *testing.T, mapping, stream string, n int) {
	t.Helper()
	until(t, "what is done", func() (bool, error) {
		left, err := bus.Lag(w.Bus, mapping, stream)
		return left == 0, err
	})
}

func TestStreamMapping_GivesFunctionsWhatTheyNeed(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{})
	w.stream(t, bus.Stream{Name: "s"})
	w.stream(t, bus.Stream{Name: "table:users", Table: "users", Label: "2026"})
	put := w.add(t, "s", "k:1")
	if _, err := w.PutRecords(t.Context(), "table:users", []bus.Record{{Key: "id", ID: "e1", Type: "ebb.table.insert", Data: []byte(`{"Keys":{}}`)}}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"s", "table:users"} {
		c := &consumer{}
		w.pollStream(t, bus.StreamMapping{Name: name, Stream: name}, c)
		until(t, "a batch", func() (bool, error) { return len(c.sizes()) == 1, nil })
		b := c.mu.got[0]
		it := b.Items[0]
		if b.Shard != shard0 || it.Event.Validate(1<<20) != nil || time.Since(it.Arrived) > time.Hour {
			t.Errorf("got %+v", b)
		}
		if name == "s" && (b.Via != invocation.ViaStream || b.Source != "s" || it.Key != "k" || it.Sequence != put[0].Sequence || it.Event.Type != bus.RecordType) {
			t.Errorf("got %+v", b)
		}
		if name != "s" && (b.Via != invocation.ViaTable || b.Source != "users" || b.Label != "2026" || it.Event.ID != "e1" || it.Event.Type != "ebb.table.insert") {
			t.Errorf("got %+v", b)
		}
	}
}

func TestStreamMapping_StartsWhereItSays(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{})
	w.stream(t, bus.Stream{Name: "s"})
	w.add(t, "s", "k:1")
	time.Sleep(2 * time.Millisecond) // the clock of the log is one of milliseconds
	r := w.add(t, "s", "k:2")[0]
	at := w.get(t, w.iterator(t, "s", shard0, bus.Start{From: bus.AtSequence, Sequence: r.Sequence}), 0).Records[0].Arrived
	all := map[string]*consumer{}
	starts := map[string]bus.Start{"latest": {From: bus.Latest}, "horizon": {From: bus.TrimHorizon}, "time": {From: bus.AtTimestamp, Time: at}}
	for name, s := range starts {
		all[name] = &consumer{}
		w.pollStream(t, bus.StreamMapping{Name: name, Start: s}, all[name])
	}
	until(t, "all begin", func() (bool, error) {
		list, err := w.StreamMappings(t.Context())
		return len(list) == 3, err
	})
	w.add(t, "s", "k:3")
	all["latest"].came(t, "k:3")
	all["time"].came(t, "k:2", "k:3")
	all["horizon"].came(t, "k:1", "k:2", "k:3")
	for name, m := range map[string]bus.StreamMapping{"name": {Start: bus.Start{From: bus.Latest}}, "start": {Name: "a"}, "sequence": {Name: "a", Start: bus.Start{From: bus.AtSequence}},
		"batch": {Name: "a", Start: bus.Start{From: bus.Latest}, Batch: 10_001}, "parallel": {Name: "a", Start: bus.Start{From: bus.Latest}, Parallel: 11}, "retries": {Name: "a", Start: bus.Start{From: bus.Latest}, Retries: new(-1)}} {
		if err := w.PollStream(t.Context(), m, &consumer{}); errs.CodeOf(err) != errs.Invalid {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// A mapping that was forgotten begins anew; so does one of a stream that was made anew.
func TestStreamMapping_BeginsAnewWhereItIsForgotten(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{})
	w.stream(t, bus.Stream{Name: "s"})
	w.add(t, "s", "k:1")
	for _, forget := range []bool{false, true, true} {
		c := &consumer{}
		stop := w.pollStream(t, bus.StreamMapping{}, c)
		c.came(t, "k:1")
		w.consumed(t, "m", "s", 1)
		stop()
		if forget {
			break
		}
		if err := w.ForgetMapping(t.Context(), "m", "s"); err != nil {
			t.Fatal(err)
		}
	}
	c := &consumer{}
	w.pollStream(t, bus.StreamMapping{}, c)
	if err := w.DeleteStream(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	w.stream(t, bus.Stream{Name: "s"})
	w.add(t, "s", "k:2")
	c.came(t, "k:2")
}

// The window is far longer than the test: a Batch goes when it is full.
func TestStreamMapping_GathersByWindow(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{})
	w.stream(t, bus.Stream{Name: "s"})
	c := &consumer{}
	w.pollStream(t, bus.StreamMapping{Batch: 4, Window: 5 * time.Minute}, c)
	for i := range 8 {
		w.add(t, "s", fmt.Sprint("k:", i))
	}
	until(t, "batches", func() (bool, error) { return slices.Equal(c.sizes(), []int{4, 4}), nil })
	short := &consumer{}
	w.pollStream(t, bus.StreamMapping{Name: "short", Batch: 100, Window: 10 * time.Millisecond}, short)
	until(t, "all", func() (bool, error) { return len(short.bodies()) == 8, nil })
}

// Several Batches of a shard run at once, each key in its order, and one that fails holds up only its own keys.
func TestStreamMapping_KeepsTheOrderOfKeysInParallel(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{})
	w.stream(t, bus.Stream{Name: "s"})
	var mu sync.Mutex
	got := map[string][]string{}
	busy := map[string]bool{}
	both := make(chan struct{})
	running := 0
	c := &consumer{answer: func(b *invocation.Batch, n int) invocation.Verdict {
		mu.Lock()
		keys := map[string]bool{}
		for _, it := range b.Items {
			keys[it.Key] = true
			got[it.Key] = append(got[it.Key], string(it.Event.Data))
		}
		for k := range keys {
			if busy[k] {
				t.Errorf("%s runs twice at once", k)
			}
			busy[k] = true
		}
		if running++; running == 2 {
			select {
			case <-both:
			default:
				close(both)
			}
		}
		mu.Unlock()
		<-both
		mu.Lock()
		defer mu.Unlock()
		running--
		for k := range keys {
			busy[k] = false
		}
		return invocation.Verdict{}
	}}
	var put []string
	want := map[string][]string{}
	for i := range 200 {
		k := fmt.Sprint("k", i%10)
		s := fmt.Sprintf("%s:%d", k, i)
		put, want[k] = append(put, s), append(want[k], s)
	}
	w.add(t, "s", put...)
	w.pollStream(t, bus.StreamMapping{Batch: 3, Parallel: 4}, c)
	w.consumed(t, "m", "s", 200)
	mu.Lock()
	defer mu.Unlock()
	for k := range want {
		if !slices.Equal(got[k], want[k]) {
			t.Errorf("%s: got %q", k, got[k])
		}
	}
}

// A poison record of one shard does not hold up the others, nor their checkpoints.
func TestStreamMapping_PoisonBlocksOnlyItsShard(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{})
	w.stream(t, bus.Stream{Name: "s", Shards: 2})
	for i, hash := range []string{"0", "340282366920938463463374607431768211455"} {
		if _, err := w.PutRecords(t.Context(), "s", []bus.Record{{Key: "k", HashKey: hash, Data: []byte([]string{"z", "a"}[i])}, {Key: "k", HashKey: hash, Data: []byte([]string{"behind", "b"}[i])}}); err != nil {
			t.Fatal(err)
		}
	}
	c := &consumer{answer: poison(false)}
	stop := w.pollStream(t, bus.StreamMapping{Batch: 1}, c)
	until(t, "the other shard", func() (bool, error) {
		left, err := bus.Lag(w.Bus, "m", "s")
		return left == 2 && slices.Contains(c.bodies(), "b"), err
	})
	until(t, "tries", func() (bool, error) {
		n := 0
		for _, s := range c.bodies() {
			if s == "z" {
				n++
			}
		}
		return n >= 3, nil
	})
	stop()
	if slices.Contains(c.bodies(), "behind") {
		t.Error("what is behind the poison came")
	}
	c = &consumer{}
	w.pollStream(t, bus.StreamMapping{Batch: 1}, c)
	c.came(t, "z", "behind")
}

// The records of closed shards come before those of the shards that follow them.
func TestStreamMapping_ReadsParentsFirst(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{})
	w.stream(t, bus.Stream{Name: "s", Shards: 2})
	want := map[string][]string{}
	put := func(from int) {
		for i := from; i < from+20; i++ {
			k := fmt.Sprint("k", i%5)
			s := fmt.Sprintf("%s:%d", k, i)
			want[k] = append(want[k], s)
			w.add(t, "s", s)
		}
	}
	put(0)
	w.stream(t, bus.Stream{Name: "s", Shards: 3})
	put(20)
	c := &consumer{}
	w.pollStream(t, bus.StreamMapping{Batch: 3}, c)
	until(t, "the first", func() (bool, error) { return len(c.bodies()) == 40, nil })
	w.stream(t, bus.Stream{Name: "s", Shards: 1}) // while it is polled
	put(40)
	until(t, "all", func() (bool, error) { return len(c.bodies()) == 60, nil })
	got := map[string][]string{}
	for _, s := range c.bodies() {
		k, _, _ := strings.Cut(s, ":")
		got[k] = append(got[k], s)
	}
	for k := range want {
		if !slices.Equal(got[k], want[k]) {
			t.Errorf("%s: got %q", k, got[k])
		}
	}
}

// What a stop interrupts is not lost: running Batches end, and what they did is kept.
func TestStreamMapping_EndsWhatRunsWhenItStops(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{})
	w.stream(t, bus.Stream{Name: "s"})
	w.add(t, "s", "k:1", "k:2", "k:3")
	begun, end := make(chan struct{}), make(chan struct{})
	c := &consumer{answer: func(*invocation.Batch, int) invocation.Verdict {
		close(begun)
		<-end
		return invocation.Verdict{}
	}}
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error)
	go func() {
		stopped <- w.PollStream(ctx, bus.StreamMapping{Name: "m", Stream: "s", Start: bus.Start{From: bus.TrimHorizon}, Batch: 2}, c)
	}()
	<-begun
	cancel()
	close(end)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	c.came(t, "k:1", "k:2")
	c = &consumer{}
	w.pollStream(t, bus.StreamMapping{Batch: 2}, c)
	c.came(t, "k:3")
}
