package bus_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
)

// fakeClock is a clock that only a test moves.
type fakeClock struct {
	mu struct {
		sync.Mutex
		now time.Time
	}
}

func clockAt(t *testing.T, text string) *fakeClock {
	t.Helper()
	c := &fakeClock{}
	c.set(t, text)
	return c
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.now
}

func (c *fakeClock) set(t *testing.T, text string) {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.now = at
}

func (c *fakeClock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.now = c.mu.now.Add(d)
}

// timed are options for a bus whose schedules follow the clock.
func timed(c *fakeClock, r *target) bus.Options {
	return bus.Check(bus.Options{Now: c.Now, Deliver: r}, time.Millisecond)
}

func (w *world) put(t *testing.T, s bus.Schedule) {
	t.Helper()
	if s.Event.Type == "" {
		s.Event.Type = "test.tick"
	}
	if err := w.PutSchedule(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	// The folded put, not the acknowledged one, is what a clock that is moved next meets.
	if err := w.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (w *world) schedule(t *testing.T, name string) bus.ScheduleStatus {
	t.Helper()
	all, err := w.Schedules(t.Context(), bus.ScheduleQuery{Tenant: "default", Name: name, Next: 3})
	if err != nil || len(all) != 1 {
		t.Fatalf("schedule %s: %+v, %v", name, all, err)
	}
	return all[0]
}

// lastIs waits until a slot was fired, and all before it that will be.
func (w *world) lastIs(t *testing.T, name, slot string) {
	t.Helper()
	until(t, name+" at "+slot, func() (bool, error) {
		all, err := w.Schedules(t.Context(), bus.ScheduleQuery{Tenant: "default", Name: name})
		return len(all) == 1 && all[0].Last.Format(time.RFC3339) == slot, err
	})
}

// ids are the events that came, sorted; one that came twice is there twice.
func (r *target) ids() []string {
	var out []string
	for _, d := range r.all() {
		out = append(out, d.Event.ID)
	}
	slices.Sort(out)
	return out
}

// came waits until all that was fired has been delivered, and compares.
func came(t *testing.T, w *world, r *target, want ...string) {
	t.Helper()
	settle(t, w)
	if got := r.ids(); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestSchedule_PublishesItsEventAtEachSlot(t *testing.T) {
	t.Parallel()
	c, r := clockAt(t, "2026-11-23T10:00:00Z"), &target{}
	w := start(t, t.TempDir(), timed(c, r))
	w.subscribe(t, bus.Subscription{Name: "s"})
	w.put(t, bus.Schedule{Name: "tick", Expression: "rate(5 minutes)", Event: bus.Template{
		Source: "/app", Type: "ebb.tick", Subject: "x", ContentType: "application/json", Data: []byte(`{"a":1}`), Extensions: map[string]string{"app": "shop"},
	}})
	if s := w.schedule(t, "tick"); len(s.Next) != 3 || s.Next[0].Slot.Format(time.RFC3339) != "2026-11-23T10:05:00Z" || !s.Next[1].Due.Equal(s.Next[1].Slot) || !s.Last.IsZero() {
		t.Errorf("got %+v", s)
	}
	c.add(5*time.Minute - time.Nanosecond)
	c.add(time.Nanosecond)
	w.lastIs(t, "tick", "2026-11-23T10:05:00Z")
	c.add(5*time.Minute + time.Second)
	w.lastIs(t, "tick", "2026-11-23T10:10:00Z")
	came(t, w, r, "tick/2026-11-23T10:05:00Z", "tick/2026-11-23T10:10:00Z")
	d := r.all()[0]
	e := d.Event
	if e.Source != "/app" || e.Type != "ebb.tick" || e.Subject != "x" || string(e.Data) != `{"a":1}` || e.DataContentType != "application/json" ||
		e.Time.Format(time.RFC3339) != "2026-11-23T10:05:00Z" || e.Extension(bus.ExtSchedule) != "tick" || e.Extension(bus.ExtSlot) != "2026-11-23T10:05:00Z" || e.Extension("app") != "shop" {
		t.Errorf("got %+v", e)
	}
	s := w.schedule(t, "tick")
	if s.LastID != "tick/2026-11-23T10:10:00Z" || len(s.Deliveries) != 1 || s.Tenant != "default" {
		t.Errorf("got %+v", s)
	}
	if st, err := w.Status(t.Context(), s.Deliveries[0]); err != nil || st.EventID != s.LastID || st.State != bus.Done {
		t.Errorf("got %+v, %v", st, err)
	}
	// The archive has them, and a replay finds them.
	n := 0
	err := w.Read(t.Context(), bus.Range{}, func(rec bus.Recorded) error { n++; return nil })
	if err != nil || n != 2 {
		t.Errorf("the archive has %d, %v", n, err)
	}
	if _, err := w.Replay(t.Context(), bus.Replay{Subscription: "s", From: time.Now().Add(-time.Hour)}); err != nil {
		t.Fatal(err)
	}
	r.wait(t, count(4))
	if err := w.DeleteSchedule(t.Context(), "", "tick"); err != nil {
		t.Fatal(err)
	}
	if err := w.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.add(time.Hour)
	w.put(t, bus.Schedule{Name: "other", Expression: "rate(1 minute)"})
	c.add(time.Minute)
	w.lastIs(t, "other", "2026-11-23T11:11:01Z")
	if all, err := w.Schedules(t.Context(), bus.ScheduleQuery{}); err != nil || len(all) != 1 {
		t.Errorf("got %+v, %v", all, err)
	}
	settle(t, w)
	if got := r.ids(); len(got) != 5 {
		t.Errorf("got %v", got)
	}
}

// A rate counts from its put, and a Scheduler's has a slot there.
func TestSchedule_BeginsAtOnceWhereAsked(t *testing.T) {
	t.Parallel()
	c, r := clockAt(t, "2026-11-23T10:00:00.7Z"), &target{}
	w := start(t, t.TempDir(), timed(c, r))
	w.subscribe(t, bus.Subscription{Name: "s"})
	put := func() {
		w.put(t, bus.Schedule{Name: "rule", Expression: "rate(5 minutes)"})
		w.put(t, bus.Schedule{Name: "scheduler", Expression: "rate(5 minutes)", AtOnce: true})
		w.put(t, bus.Schedule{Name: "cron", Expression: "* * * * *", AtOnce: true})
	}
	put()
	w.lastIs(t, "scheduler", "2026-11-23T10:00:00Z")
	c.add(time.Minute)
	put()
	w.lastIs(t, "cron", "2026-11-23T10:01:00Z")
	c.add(4 * time.Minute)
	w.lastIs(t, "rule", "2026-11-23T10:05:00Z")
	w.lastIs(t, "scheduler", "2026-11-23T10:05:00Z")
	settle(t, w)
	var got []string
	for _, id := range r.ids() {
		if !strings.HasPrefix(id, "cron/") || strings.HasSuffix(id, "10:00:00Z") {
			got = append(got, id)
		}
	}
	if want := []string{"rule/2026-11-23T10:05:00Z", "scheduler/2026-11-23T10:00:00Z", "scheduler/2026-11-23T10:05:00Z"}; !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestSchedule_FollowsClocksThatChange(t *testing.T) {
	t.Parallel()
	c, r := clockAt(t, "2026-03-28T00:00:00Z"), &target{}
	w := start(t, t.TempDir(), timed(c, r))
	w.subscribe(t, bus.Subscription{Name: "s"})
	w.put(t, bus.Schedule{Name: "night", Expression: "cron(30 2 * * ? *)", Zone: "Europe/Berlin", Missed: bus.MissedAll})
	w.put(t, bus.Schedule{Name: "day", Expression: "rate(1 day)", Zone: "Europe/Berlin", Missed: bus.MissedAll, Start: c.Now().Add(90 * time.Minute)})
	for range 3 * 24 { // over the night of 29 March
		c.add(time.Hour)
		want := c.Now().Add(-90 * time.Minute).Truncate(24 * time.Hour).Add(90 * time.Minute).Format(time.RFC3339)
		if c.Now().Hour() >= 2 {
			w.lastIs(t, "day", want)
		}
	}
	w.lastIs(t, "night", "2026-03-30T00:30:00Z")
	for _, name := range []string{"day", "night"} {
		if err := w.DeleteSchedule(t.Context(), "default", name); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.set(t, "2026-10-24T20:00:00Z")
	w.put(t, bus.Schedule{Name: "night", Expression: "30 2 * * *", Zone: "Europe/Berlin", Missed: bus.MissedAll})
	for range 12 * 30 { // over the night of 25 October, by two minutes
		c.add(2 * time.Minute)
		if n := c.Now().Minute(); n == 30 || n == 32 {
			w.schedule(t, "night")
		}
	}
	w.lastIs(t, "night", "2026-10-25T00:30:00Z")
	c.add(24 * time.Hour)
	w.lastIs(t, "night", "2026-10-26T01:30:00Z")
	settle(t, w)
	var nights []string
	for _, id := range r.ids() {
		if strings.HasPrefix(id, "night/") {
			nights = append(nights, strings.TrimPrefix(id, "night/"))
		}
	}
	// 02:30 was left out on 29 March, and came twice on 25 October.
	if want := []string{"2026-03-28T01:30:00Z", "2026-03-30T00:30:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"}; !slices.Equal(nights, want) {
		t.Errorf("got %v", nights)
	}
}

// A clock that jumps fires what its policy says, and never a slot twice.
func TestSchedule_MissedSlotsFollowThePolicy(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		s    bus.Schedule
		want string
	}{
		"skip":           {bus.Schedule{Expression: "rate(10 minutes)"}, "10:10 10:20 13:30 13:40"},
		"skip, just now": {bus.Schedule{Expression: "28 * * * *"}, "13:28"},
		"once":           {bus.Schedule{Expression: "rate(10 minutes)", Missed: bus.MissedOnce}, "10:10 10:20 13:20 13:30 13:40"},
		"all":            {bus.Schedule{Expression: "rate(30 minutes)", Missed: bus.MissedAll}, "10:30 11:00 11:30 12:00 12:30 13:00 13:30"},
		"all, three":     {bus.Schedule{Expression: "rate(29 minutes)", Missed: bus.MissedAll, MissedLimit: 3}, "12:25 12:54 13:23"},
		"all, an hour":   {bus.Schedule{Expression: "rate(29 minutes)", Missed: bus.MissedAll, MissedAge: time.Hour}, "12:54 13:23"},
		"one-time":       {bus.Schedule{Expression: "at(2026-11-23T12:00:00)"}, "12:00"},
		"one-time, skip": {bus.Schedule{Expression: "at(2026-11-23T12:00:00)", Missed: bus.MissedSkip}, "12:00"}, // its time comes again
		"ended":          {bus.Schedule{Expression: "rate(30 minutes)", Missed: bus.MissedOnce, End: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)}, "12:00"},
		"not begun":      {bus.Schedule{Expression: "rate(30 minutes)", Missed: bus.MissedAll, Start: time.Date(2026, 11, 23, 12, 45, 0, 0, time.UTC)}, "12:45 13:15"},
		"disabled":       {bus.Schedule{Expression: "rate(30 minutes)", Missed: bus.MissedAll, Disabled: true}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clock, r := clockAt(t, "2026-11-23T10:00:00Z"), &target{}
			w := start(t, t.TempDir(), timed(clock, r))
			w.subscribe(t, bus.Subscription{Name: "s"})
			c.s.Name = "x"
			w.put(t, c.s)
			// A schedule of every minute tells that the bus has seen the time.
			probe := bus.Schedule{Name: "probe", Expression: "* * * * *", Event: bus.Template{Type: "probe"}}
			w.put(t, probe)
			look := func() { w.lastIs(t, probe.Name, clock.Now().Truncate(time.Minute).Format(time.RFC3339)) }
			walk := func(minutes int) {
				for range minutes {
					clock.add(time.Minute)
					look()
				}
			}
			walk(20)
			if w.schedule(t, "x").Disabled != c.s.Disabled {
				t.Error("the status does not say whether it is disabled")
			}
			clock.add(3*time.Hour + 9*time.Minute + 30*time.Second)
			look()
			walk(15)
			clock.set(t, "2026-11-23T10:00:00Z")
			probe.Name = "second"
			w.put(t, probe)
			walk(200)
			settle(t, w)
			var got []string
			seen := map[string]bool{}
			for _, id := range r.ids() {
				if seen[id] {
					t.Errorf("%s came twice", id)
				}
				seen[id] = true
				if at, ok := strings.CutPrefix(id, "x/2026-11-23T"); ok {
					got = append(got, at[:5])
				}
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("got %v, want %s", got, c.want)
			}
		})
	}
}

// A put at the moment of a slot neither doubles nor drops it; other times begin anew.
func TestSchedule_AnUpdateKeepsItsPlace(t *testing.T) {
	t.Parallel()
	c, r := clockAt(t, "2026-11-23T10:00:30Z"), &target{}
	w := start(t, t.TempDir(), timed(c, r))
	w.subscribe(t, bus.Subscription{Name: "s"})
	s := bus.Schedule{Name: "x", Expression: "rate(1 minute)"}
	w.put(t, s)
	var want []string
	for i := range 20 {
		c.add(time.Minute)
		s.Event.Data = fmt.Append(nil, i)
		w.put(t, s)
		w.put(t, s)
		want = append(want, "x/"+c.Now().Format(time.RFC3339))
		w.lastIs(t, "x", c.Now().Format(time.RFC3339))
	}
	came(t, w, r, want...)
	// Other times count from now, and what was fired stays fired.
	c.add(30 * time.Second)
	s.Expression = "rate(2 minutes)"
	w.put(t, s)
	if st := w.schedule(t, "x"); st.Next[0].Slot.Format(time.TimeOnly) != "10:23:00" || st.Last.Format(time.TimeOnly) != "10:20:30" {
		t.Errorf("got %+v", st)
	}
	c.add(2 * time.Minute)
	w.lastIs(t, "x", "2026-11-23T10:23:00Z")
	// What passed while it was disabled was not missed; its slots are where they were.
	s.Disabled, s.Missed = true, bus.MissedAll
	w.put(t, s)
	if st := w.schedule(t, "x"); len(st.Next) != 0 {
		t.Errorf("got %+v", st)
	}
	c.add(30*time.Minute + time.Second)
	s.Disabled = false
	w.put(t, s)
	if st := w.schedule(t, "x"); st.Next[0].Slot.Format(time.TimeOnly) != "10:55:00" {
		t.Errorf("got %+v", st)
	}
	c.add(2 * time.Minute)
	w.lastIs(t, "x", "2026-11-23T10:55:00Z")
	came(t, w, r, append(want, "x/2026-11-23T10:23:00Z", "x/2026-11-23T10:55:00Z")...)
}

func TestSchedule_DeletesItselfWhenNoneIsLeft(t *testing.T) {
	t.Parallel()
	c, r := clockAt(t, "2026-11-23T10:00:00Z"), &target{}
	w := start(t, t.TempDir(), timed(c, r))
	w.subscribe(t, bus.Subscription{Name: "s"})
	once := bus.Schedule{Name: "once", Expression: "at(2026-11-23T10:30:00)", DeleteAfter: true}
	w.put(t, once)
	w.put(t, bus.Schedule{Name: "kept", Expression: "at(2026-11-23T10:30:00)"})
	w.put(t, bus.Schedule{Name: "some", Expression: "rate(10 minutes)", DeleteAfter: true, End: c.Now().Add(20 * time.Minute)})
	w.put(t, bus.Schedule{Name: "skipped", Expression: "at(2026-11-23T10:15:00)", DeleteAfter: true, Missed: bus.MissedSkip})
	c.add(10 * time.Minute)
	w.lastIs(t, "some", "2026-11-23T10:10:00Z")
	c.add(20 * time.Minute)
	gone := func(left ...string) {
		until(t, "gone", func() (bool, error) {
			all, err := w.Schedules(t.Context(), bus.ScheduleQuery{Tenant: "default"})
			var names []string
			for _, s := range all {
				names = append(names, s.Name)
			}
			return slices.Equal(names, left), err
		})
	}
	gone("kept")
	// Deployed again, it has run its course.
	if err := w.PutSchedule(t.Context(), bus.Schedule{Name: "once", Expression: once.Expression, DeleteAfter: true, Event: bus.Template{Type: "t"}}); err != nil {
		t.Fatal(err)
	}
	gone("kept")
	came(t, w, r, "kept/2026-11-23T10:30:00Z", "once/2026-11-23T10:30:00Z", "some/2026-11-23T10:10:00Z")
}

// Within a window firings are spread, each at the same moment whoever computes it.
func TestSchedule_SpreadsFiringsOverTheWindow(t *testing.T) {
	t.Parallel()
	c, r := clockAt(t, "2026-11-23T09:59:00Z"), &target{}
	w := start(t, t.TempDir(), timed(c, r))
	w.subscribe(t, bus.Subscription{Name: "s"})
	const n = 40
	for i := range n {
		if err := w.PutSchedule(t.Context(), bus.Schedule{Name: fmt.Sprint("x", i), Expression: "0 * * * *", Window: 10 * time.Minute, Event: bus.Template{Type: "t"}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	due := map[string]time.Time{}
	all, err := w.Schedules(t.Context(), bus.ScheduleQuery{Prefix: "x"})
	if err != nil || len(all) != n {
		t.Fatalf("got %d, %v", len(all), err)
	}
	spread := map[int]int{}
	for _, s := range all {
		f := s.Next[0]
		late := f.Due.Sub(f.Slot)
		if f.Slot.Format(time.TimeOnly) != "10:00:00" || late < 0 || late >= 10*time.Minute {
			t.Errorf("%s: %+v", s.Name, f)
		}
		due[s.Name+"/2026-11-23T10:00:00Z"] = f.Due
		spread[int(late/(2*time.Minute))]++
	}
	if len(spread) != 5 {
		t.Errorf("they are spread %v", spread)
	}
	for range 12 {
		c.add(time.Minute)
		now := c.Now()
		want := 0
		for _, at := range due {
			if !at.After(now) {
				want++
			}
		}
		for _, d := range r.wait(t, count(want)) {
			if due[d.Event.ID].After(now) {
				t.Errorf("%s came before %v", d.Event.ID, due[d.Event.ID])
			}
		}
	}
	settle(t, w)
	if got := r.ids(); len(slices.Compact(got)) != n {
		t.Errorf("got %v", got)
	}
}

// What a slot started may run longer than the distance of slots: each has its own delivery.
func TestSchedule_DoesNotWaitForWhatItStarted(t *testing.T) {
	t.Parallel()
	c := clockAt(t, "2026-11-23T10:00:00Z")
	release := make(chan struct{})
	entered := make(chan string, 10)
	w := start(t, t.TempDir(), timed(c, &target{answer: func(_ context.Context, d *bus.Delivery) error {
		entered <- d.Event.ID
		<-release
		return nil
	}}))
	w.subscribe(t, bus.Subscription{Name: "s"})
	w.put(t, bus.Schedule{Name: "x", Expression: "rate(1 minute)"})
	for i := range 5 {
		c.add(time.Minute)
		if got, want := <-entered, fmt.Sprintf("x/2026-11-23T10:0%d:00Z", i+1); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	close(release)
	w.states(t, "s", map[bus.State]int{bus.Done: 5})
}

// Stopped before, at or after a slot and started again, each slot has one event; an index that is deleted comes out the same.
func TestSchedule_SurvivesRestarts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, r := clockAt(t, "2026-11-23T10:00:30Z"), &target{}
	w := start(t, dir, timed(c, r))
	w.subscribe(t, bus.Subscription{Name: "s"})
	w.put(t, bus.Schedule{Name: "x", Expression: "rate(1 minute)"})
	w.put(t, bus.Schedule{Name: "gone", Expression: "rate(1 minute)"})
	if err := w.DeleteSchedule(t.Context(), "", "gone"); err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := range 12 {
		switch i % 3 {
		case 0: // across it
			w.stop()
			c.add(time.Minute)
			w = start(t, dir, w.opt)
		case 1: // at it: whatever is under way is cut off
			c.add(time.Minute)
			w.stop()
			w = start(t, dir, w.opt)
		case 2: // behind it, with no index left
			c.add(time.Minute)
			w.lastIs(t, "x", c.Now().Format(time.RFC3339))
			w.stop()
			if err := os.RemoveAll(w.opt.Dir); err != nil {
				t.Fatal(err)
			}
			w = start(t, dir, w.opt)
		}
		slot := c.Now().Format(time.RFC3339)
		want = append(want, "x/"+slot)
		w.lastIs(t, "x", slot)
	}
	settle(t, w)
	// A delivery may come again after a crash; an event has one delivery.
	if got := slices.Compact(r.ids()); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	for _, id := range want {
		if st, err := w.StatusOfEvent(t.Context(), "", "/ebb/schedules/default", id); err != nil || len(st) != 1 {
			t.Errorf("%s: %+v, %v", id, st, err)
		}
	}
	before := everySchedule(t, w) + everything(t, w)
	w.stop()
	if err := os.RemoveAll(w.opt.Dir); err != nil {
		t.Fatal(err)
	}
	w = start(t, dir, w.opt)
	if after := everySchedule(t, w) + everything(t, w); after != before {
		t.Errorf("the index came out otherwise:\n%s\nwas\n%s", after, before)
	}
}

func everySchedule(t *testing.T, w *world) string {
	t.Helper()
	all, err := w.Schedules(t.Context(), bus.ScheduleQuery{Next: 10})
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		all[i].Deliveries = nil // these are purged at some time
	}
	out, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// What is purged leaves a base: made again from it and the rest of the log, the index has the same schedules and fires no slot again.
func TestSchedule_OutlivesThePurgeOfItsItems(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, r := clockAt(t, "2026-11-23T10:00:00Z"), &target{}
	o := timed(c, r)
	o.DedupWindow, o.Retention = time.Millisecond, time.Millisecond
	o = bus.Sweep(o, 5*time.Millisecond)
	w := start(t, dir, o)
	w.subscribe(t, bus.Subscription{Name: "s"})
	// More than fits into one value of the bucket.
	for i := range 5 {
		w.put(t, bus.Schedule{Name: fmt.Sprint("big", i), Expression: "@yearly", Event: bus.Template{Type: "t", Data: []byte(strings.Repeat("x", 200<<10))}})
	}
	w.put(t, bus.Schedule{Name: "gone", Expression: "@yearly"})
	if err := w.DeleteSchedule(t.Context(), "", "gone"); err != nil {
		t.Fatal(err)
	}
	w.put(t, bus.Schedule{Name: "x", Expression: "rate(1 minute)"})
	w.put(t, bus.Schedule{Name: "x", Expression: "rate(1 minute)", Event: bus.Template{Type: "second"}})
	for range 6 {
		c.add(time.Minute)
		w.lastIs(t, "x", c.Now().Format(time.RFC3339))
	}
	settle(t, w)
	purged := func() (uint64, error) {
		s, err := w.conn.JetStream().Stream(t.Context(), "EBB_BUS_0")
		if err != nil {
			return 0, err
		}
		return s.CachedInfo().State.FirstSeq, nil
	}
	until(t, "the puts are purged", func() (bool, error) {
		first, err := purged()
		return first > 12, err
	})
	before := everySchedule(t, w)
	w.stop()
	if err := os.RemoveAll(w.opt.Dir); err != nil {
		t.Fatal(err)
	}
	w = start(t, dir, w.opt)
	if after := everySchedule(t, w); after != before {
		t.Errorf("the schedules came out otherwise:\n%.2000s\nwas\n%.2000s", after, before)
	}
	first, err := purged()
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		c.add(time.Minute)
		w.lastIs(t, "x", c.Now().Format(time.RFC3339))
	}
	settle(t, w)
	until(t, "more is purged", func() (bool, error) {
		now, err := purged()
		return now > first, err
	})
	got := r.ids()
	if want := len(slices.Compact(slices.Clone(got))); want != len(got) || want != 9 {
		t.Errorf("got %v", got)
	}
}

// Ten thousand that are due at one moment: one timer, no goroutine each, and one event for each.
func TestSchedule_TenThousandShareOneTimer(t *testing.T) {
	t.Parallel()
	n := 10_000
	if testing.Short() {
		n = 1000
	}
	c, r := clockAt(t, "2026-11-23T10:00:30Z"), &target{}
	o := timed(c, r)
	o.Partitions = 2
	w := start(t, t.TempDir(), o)
	w.subscribe(t, bus.Subscription{Name: "s", Batch: 100})
	var wg sync.WaitGroup
	for g := range 20 {
		wg.Go(func() {
			for i := g; i < n; i += 20 {
				if err := w.PutSchedule(t.Context(), bus.Schedule{Name: fmt.Sprint("x", i), Expression: "cron(0 * * * ? *)", Event: bus.Template{Type: "t"}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := w.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	all, err := w.Schedules(t.Context(), bus.ScheduleQuery{})
	if err != nil || len(all) != n || !slices.IsSortedFunc(all, func(a, b bus.ScheduleStatus) int { return strings.Compare(a.Name, b.Name) }) {
		t.Fatalf("got %d, %v", len(all), err)
	}
	c.add(time.Hour)
	r.wait(t, count(n))
	settle(t, w)
	if got := r.ids(); len(got) != n || len(slices.Compact(got)) != n {
		t.Errorf("%d came", len(got))
	}
}

func TestPutSchedule_RefusesWhatCannotFire(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{})
	good := bus.Schedule{Name: "x", Expression: "rate(1 minute)", Event: bus.Template{Type: "t"}}
	if err := w.PutSchedule(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(s *bus.Schedule){
		"no name":       func(s *bus.Schedule) { s.Name = "" },
		"long name":     func(s *bus.Schedule) { s.Name = strings.Repeat("x", 300) },
		"long tenant":   func(s *bus.Schedule) { s.Tenant = strings.Repeat("x", 300) },
		"no expression": func(s *bus.Schedule) { s.Expression = "" },
		"expression":    func(s *bus.Schedule) { s.Expression = "rate(1 minutes)" },
		"never":         func(s *bus.Schedule) { s.Expression = "cron(0 0 31 2 ? *)" },
		"zone":          func(s *bus.Schedule) { s.Zone = "Mars/Olympus" },
		"window":        func(s *bus.Schedule) { s.Window = 25 * time.Hour },
		"fine window":   func(s *bus.Schedule) { s.Window = time.Millisecond },
		"policy":        func(s *bus.Schedule) { s.Missed = "perhaps" },
		"limit":         func(s *bus.Schedule) { s.MissedLimit = 1001 },
		"age":           func(s *bus.Schedule) { s.MissedAge = -1 },
		"ends early":    func(s *bus.Schedule) { s.Start, s.End = time.Unix(2, 0), time.Unix(1, 0) },
		"no type":       func(s *bus.Schedule) { s.Event.Type = "" },
		"source":        func(s *bus.Schedule) { s.Event.Source = "not a uri %" },
		"key":           func(s *bus.Schedule) { s.Event.Extensions = map[string]string{bus.PartitionKey: "k"} },
		"own extension": func(s *bus.Schedule) { s.Event.Extensions = map[string]string{bus.ExtSlot: "k"} },
		"extension":     func(s *bus.Schedule) { s.Event.Extensions = map[string]string{"No": "k"} },
		"large":         func(s *bus.Schedule) { s.Event.Data = make([]byte, 300<<10) },
	} {
		s := good
		change(&s)
		err := w.PutSchedule(t.Context(), s)
		if code := errs.CodeOf(err); code != errs.Invalid && code != errs.TooLarge && code != errs.Unsupported {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
