package bus

import (
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
)

// bench is a folder over an index of its own.
type bench struct {
	*folder
	seq uint64
}

func newBench(t *testing.T) *bench {
	t.Helper()
	x, err := openIndex(t.Context(), filepath.Join(t.TempDir(), "i.db"), nil, "log", 1, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.close() })
	f := &folder{x: x, window: 1000, maxHops: 5, compile: func(json.RawMessage) (Matcher, error) { return everything{}, nil }, subs: map[string]*liveSub{}, reading: map[reading]*room{}}
	return &bench{folder: f}
}

// add folds one block and gives what it means to memory.
func (b *bench) add(t *testing.T, items ...item) effects {
	t.Helper()
	b.seq++
	b.out = effects{}
	if err := b.x.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.block(t.Context(), b.seq, time.UnixMilli(int64(b.seq)), appendBlock(nil, items)); err != nil {
		t.Fatal(err)
	}
	if err := b.x.commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b.out
}

func (b *bench) state(t *testing.T, d did) (s State, runs int) {
	t.Helper()
	found, err := b.x.one(t.Context(), []any{&s, &runs}, "SELECT state, runs FROM deliveries WHERE seq = ? AND idx = ? AND sub = ?", int64(d.Seq), d.Idx, d.Sub)
	if err != nil || !found {
		t.Fatalf("%+v: %v, %v", d, found, err)
	}
	return s, runs
}

func TestFold_TakesEachOutcomeOnceAndOnlyOfTheNewestLease(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.add(t, jsonItem(kindPut, Subscription{Name: "s"}), jsonItem(kindLease, lease{"one", 7}))
	out := b.add(t, eventItem(&event.Event{ID: "1", Source: "s", Type: "t"}))
	if len(out.ready) != 1 {
		t.Fatalf("got %+v", out)
	}
	d := out.ready[0].did
	retry := outcome{did: d, Run: 1, Epoch: 7, State: Pending, Due: 5}
	for name, c := range map[string]struct {
		o     outcome
		state State
		runs  int
		ready int
		ended int
	}{
		"1 of an older lease":    {outcome{did: d, Run: 1, Epoch: 6, State: Done}, Pending, 0, 0, 0},
		"2 of a lease not taken": {outcome{did: d, Run: 1, Epoch: 8, State: Done}, Pending, 0, 0, 0},
		"3 out of turn":          {outcome{did: d, Run: 2, Epoch: 7, State: Done}, Pending, 0, 0, 1},
	} {
		out := b.add(t, jsonItem(kindOutcome, c.o))
		if s, runs := b.state(t, d); s != c.state || runs != c.runs || len(out.ready) != c.ready || len(out.ended) != c.ended {
			t.Errorf("%s: %v, %d runs, %+v", name, s, runs, out)
		}
	}
	if out := b.add(t, jsonItem(kindOutcome, retry)); len(out.ready) != 1 || out.ready[0].due != 5 || out.ready[0].attempt != 1 {
		t.Errorf("got %+v", out)
	}
	// The same written twice after an answer was lost.
	if out := b.add(t, jsonItem(kindOutcome, retry)); len(out.ready) != 0 {
		t.Errorf("got %+v", out)
	}
	if s, runs := b.state(t, d); s != Pending || runs != 1 {
		t.Errorf("%v after %d runs", s, runs)
	}
	b.add(t, jsonItem(kindOutcome, outcome{did: d, Run: 2, Epoch: 7, State: Dead, Cause: CauseExhausted, Code: errs.Failed}))
	b.add(t, jsonItem(kindOutcome, outcome{did: d, Run: 3, Epoch: 7, State: Done}))
	if s, _ := b.state(t, d); s != Dead {
		t.Errorf("a dead letter became %v", s)
	}
	// A lease that was written twice, or late, changes nothing.
	b.add(t, jsonItem(kindLease, lease{"two", 9}), jsonItem(kindLease, lease{"one", 7}))
	if b.x.epoch != 9 {
		t.Errorf("the epoch is %d", b.x.epoch)
	}
}

func TestFold_PassesOverBlocksThatItHas(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.add(t, jsonItem(kindPut, Subscription{Name: "s"}))
	e := eventItem(&event.Event{ID: "1", Source: "s", Type: "t"})
	b.add(t, e)
	b.seq = 0
	if out := b.add(t, eventItem(&event.Event{ID: "2", Source: "s", Type: "t"})); len(out.ready) > 0 {
		t.Errorf("got %+v", out)
	}
}

func TestParseID_ReadsWhatIsWritten(t *testing.T) {
	t.Parallel()
	d := did{Seq: 1 << 40, Idx: replayIdx(4095, 499), Sub: subID(did{Seq: 1 << 40, Idx: 4095})}
	got, part, err := parseID(d.id(17))
	if err != nil || got != d || part != 17 {
		t.Errorf("got %+v, %d, %v", got, part, err)
	}
	for _, s := range []string{"", "1", "1-2-3", "1-2-3-4-5", "x-1-1-1", "1--1-1", "-1-1-1-1", "1-1-1-ffffffffffffffff", "+1-1-1-1"} {
		if _, _, err := parseID(s); errs.CodeOf(err) != errs.Invalid {
			t.Errorf("%q: got %v", s, err)
		}
	}
}

func FuzzParseBlock(f *testing.F) {
	f.Add(appendBlock(nil, []item{{kind: kindEvent, body: []byte("x")}, {kind: kindLease}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		items, err := parseBlock(b)
		if err != nil {
			return
		}
		again, err := parseBlock(appendBlock(nil, items))
		if err != nil || len(again) != len(items) {
			t.Fatalf("%v, %v", again, err)
		}
	})
}
