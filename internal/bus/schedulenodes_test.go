package bus_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/nats"
)

// node starts one of several Nodes over a store.
func node(t *testing.T, conn *nats.Conn, dir, name string, o bus.Options) *world {
	t.Helper()
	o.Dir, o.Node, o.Lease, o.Partitions = filepath.Join(dir, name), name, time.Second, 2
	w := &world{conn: conn, dir: dir, opt: o}
	var err error
	if w.Bus, err = bus.Open(t.Context(), conn.JetStream(), o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = w.Run(ctx) })
	w.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(w.stop)
	return w
}

// With two Nodes whose clocks differ, of which one goes at a slot and comes back, then the other: each slot has one event, and any Node is told of all.
func TestSchedule_FiresOnceOverNodesThatComeAndGo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	conn, err := nats.Open(t.Context(), nats.Options{Dir: filepath.Join(dir, "nats")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	c, r := clockAt(t, "2026-11-23T10:00:30Z"), &target{}
	o := timed(c, r)
	o.DedupWindow = time.Millisecond // no help from there
	ahead := o
	ahead.Now = func() time.Time { return c.Now().Add(20 * time.Second) }
	options := []bus.Options{o, ahead}
	nodes := []*world{node(t, conn, dir, "a", o), node(t, conn, dir, "b", ahead)}
	nodes[0].subscribe(t, bus.Subscription{Name: "s"})
	names := []string{"a", "b", "c", "d", "e", "f"}
	s := bus.Schedule{Expression: "* * * * *", Missed: bus.MissedAll, Event: bus.Template{Type: "t"}}
	put := func(w *world) {
		for _, s.Name = range names {
			if err := w.PutSchedule(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
		until(t, "put", func() (bool, error) {
			all, err := w.Schedules(t.Context(), bus.ScheduleQuery{})
			return len(all) == len(names), err
		})
		if err := w.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	put(nodes[0])
	var want []string
	for i := range 12 {
		c.add(time.Minute)
		slot := c.Now().Truncate(time.Minute)
		if i%3 == 1 { // it goes, at the slot, and the lease with it
			nodes[i%2].stop()
		}
		for _, name := range names {
			want = append(want, name+"/"+slot.Format(time.RFC3339))
		}
		asked := nodes[(i+1)%2] // the one that is left, where one is
		for _, name := range names {
			until(t, name+" at "+slot.String(), func() (bool, error) {
				all, err := asked.Schedules(t.Context(), bus.ScheduleQuery{Tenant: "default", Name: name})
				if err != nil {
					return false, nil // the lease is on its way
				}
				return len(all) == 1 && !all[0].Last.Before(slot), nil
			})
		}
		if i%3 == 1 {
			nodes[i%2] = node(t, conn, dir, fmt.Sprint(names[i%2], i), options[i%2])
			put(nodes[i%2]) // as a start does
		}
	}
	settle(t, nodes[0])
	slices.Sort(want)
	if got := slices.Compact(r.ids()); !slices.Equal(got, want) {
		t.Errorf("got\n%v\nwant\n%v", got, want)
	}
	for _, id := range want {
		until(t, id, func() (bool, error) { // a lease may be on its way still
			st, err := nodes[1].StatusOfEvent(t.Context(), "", "/ebb/schedules/default", id)
			return len(st) == 1, err
		})
	}
}
