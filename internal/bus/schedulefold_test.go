package bus

import (
	"testing"
	"time"
)

// fires folds the firing of a slot, in seconds, by a put, and tells whether its event was delivered.
func (b *bench) fires(t *testing.T, s Schedule, gen ref, slot int64) bool {
	t.Helper()
	at := time.Unix(slot, 0)
	return len(b.add(t, firedItem(firing{Tenant: s.Tenant, Name: s.Name, Gen: gen, Slot: ms(at)}, s.event(at))).ready) > 0
}

func TestFold_PublishesASlotOnceAndOnlyByThePutThatStands(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.window = 0 // no help from duplicates
	if err := b.loadSchedules(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := Schedule{Tenant: "t", Name: "n", Expression: "rate(1 minute)", Event: Template{Type: "t"}}
	b.add(t, jsonItem(kindPut, Subscription{Name: "s"}))
	put := func(s Schedule, at int64) ref {
		b.add(t, jsonItem(kindSchedule, schedulePut{s, at * 1000}))
		return ref{Seq: b.seq}
	}
	one := put(s, 100)
	expect := func(what string, got, want bool) {
		t.Helper()
		if got != want {
			t.Errorf("%s: published is %v", what, got)
		}
	}
	expect("before the put", b.fires(t, s, one, 100), false)
	expect("the first", b.fires(t, s, one, 160), true)
	expect("it again", b.fires(t, s, one, 160), false)
	expect("a later one", b.fires(t, s, one, 280), true)
	expect("one in between", b.fires(t, s, one, 220), false)
	expect("another schedule's", b.fires(t, Schedule{Tenant: "u", Name: "n", Event: s.Event}, one, 500), false)
	two := put(s, 300)
	expect("by the put before", b.fires(t, s, one, 340), false)
	expect("by the put that stands", b.fires(t, s, two, 340), true)
	// The same times: those that are due at the put stay due.
	three := put(s, 401)
	expect("from before an update", b.fires(t, s, three, 400), true)
	changed := s
	changed.Expression = "rate(2 minutes)"
	four := put(changed, 500)
	expect("from before a change", b.fires(t, changed, four, 490), false)
	b.add(t, jsonItem(kindUnschedule, unschedule{Tenant: "t", Name: "n", Gen: &three}))
	expect("after a deletion of what stood before", b.fires(t, changed, four, 620), true)
	b.add(t, jsonItem(kindUnschedule, unschedule{Tenant: "t", Name: "n"}))
	expect("after the deletion", b.fires(t, changed, four, 740), false)
	five := put(s, 50)
	expect("put anew", b.fires(t, s, five, 60), true)
	var dups int
	if _, err := b.x.one(t.Context(), []any{&dups}, "SELECT count(*) FROM dups"); err != nil || dups != 7 {
		t.Errorf("%d are passed over by replays, %v", dups, err)
	}
	// What is in memory is what is stored.
	have := b.schedules
	if err := b.loadSchedules(t.Context()); err != nil {
		t.Fatal(err)
	}
	key := scheduleKey{"t", "n"}
	if got := b.schedules[key]; len(have) != 1 || got.gen != have[key].gen || got.last != have[key].last || got.since != have[key].since || got.fired != have[key].fired || got.anchor != have[key].anchor {
		t.Errorf("stored is %+v, in memory %+v", got, have)
	}
}

// Whatever is cut off or made up is an error, never a panic.
func FuzzFiredItem(f *testing.F) {
	s := Schedule{Tenant: "t", Name: "n", Event: Template{Type: "t", Data: []byte("x")}}
	whole := firedItem(firing{Tenant: "t", Name: "n", Slot: 1}, s.event(time.Unix(60, 0))).body
	f.Add(whole)
	f.Add(whole[:10])
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := item{kind: kindFired, body: body}.event()
		if (e == nil) == (err == nil) {
			t.Errorf("got %v, %v", e, err)
		}
	})
}
