package bus

import (
	"container/heap"
	"context"
	"time"

	"github.com/ebb-run/ebb/internal/cron"
)

// clock fires the Schedules of one Partition. It belongs to the owner's goroutine, and has one timer: what is due next is the top of a heap. It keeps
// nothing that the index does not have: each firing is an item of the log, and the Schedule is due again when the fold has read it.
type clock struct {
	o        *owner
	all      map[scheduleKey]*planned
	due      dueHeap
	timer    *time.Timer
	loaded   bool
	busy     bool // an append is under way
	resume   time.Time
	seen     time.Time // the clock at the last look
	appended chan appended
}

// planned is one Schedule that may fire.
type planned struct {
	key   scheduleKey
	live  liveSchedule
	slots *cron.Schedule
	due   time.Time // of the next slot; in the past when it has run its course and is to be deleted
	pos   int       // in the heap, or -1
}

// appended is how an append of firings ended.
type appended struct {
	keys []scheduleKey
	err  error
}

func newClock(o *owner) *clock {
	return &clock{o: o, all: map[scheduleKey]*planned{}, timer: time.NewTimer(0), appended: make(chan appended, 1)}
}

// take brings what is in memory up to a commit.
func (c *clock) take(out *effects) {
	if !c.loaded {
		c.loaded = true
		for key := range c.o.fold.schedules {
			c.refresh(key)
		}
		return
	}
	for key := range out.schedules {
		c.refresh(key)
	}
}

// refresh reads a Schedule from the fold, and queues its next slot.
func (c *clock) refresh(key scheduleKey) {
	e := c.all[key]
	live, ok := c.o.fold.schedules[key]
	if !ok || live.spec.Disabled {
		if e != nil {
			c.unqueue(e)
			delete(c.all, key)
		}
		return
	}
	if e == nil || e.live.gen != live.gen {
		slots, err := live.spec.slots(time.UnixMilli(live.anchor))
		if err != nil {
			// PutSchedule has read it: only another ebb can have put it.
			c.o.b.opt.Log.Warn("a schedule is not understood; it does not fire", "tenant", key.tenant, "schedule", key.name, "err", err)
			if e != nil {
				c.unqueue(e)
				delete(c.all, key)
			}
			return
		}
		if e == nil {
			e = &planned{key: key, pos: -1}
			c.all[key] = e
		}
		e.slots = slots
	}
	e.live = live
	e.due = time.Time{}
	if next := e.slots.Next(live.after()); !next.IsZero() {
		e.due = next.Add(live.spec.offset(next))
	}
	c.queue(e)
}

// queue puts one into the heap, where there is something left to do for it.
func (c *clock) queue(e *planned) {
	if e.due.IsZero() && !e.live.spec.DeleteAfter {
		c.unqueue(e)
		return
	}
	if e.pos >= 0 {
		heap.Fix(&c.due, e.pos)
		return
	}
	heap.Push(&c.due, e)
}

func (c *clock) unqueue(e *planned) {
	if e.pos >= 0 {
		heap.Remove(&c.due, e.pos)
	}
}

// Bounds of one append of firings. What is left over follows when it has been written.
const (
	fireItems = 500
	fireBytes = 512 << 10
)

// work fires what is due. An append that failed leaves open whether it took place: it is repeated, and the fold drops the second.
func (c *clock) work() {
	if !c.loaded || c.o.stopping() {
		return
	}
	wait := c.o.b.opt.check
	if c.busy || time.Now().Before(c.resume) {
		c.timer.Reset(wait)
		return
	}
	now := c.o.b.opt.Now()
	if now.Before(c.seen.Add(-time.Second)) { // what was passed over is to come again, unless it was fired
		for key := range c.all {
			c.refresh(key)
		}
	}
	c.seen = now
	var items []item
	var keys []scheduleKey
	size := 0
	for len(c.due) > 0 && !c.due[0].due.After(now) && len(items) < fireItems && size < fireBytes {
		e := c.due[0]
		fire, next := e.plan(now)
		switch {
		case len(fire) > 0:
			keys = append(keys, e.key)
			for _, slot := range fire {
				it := firedItem(firing{Tenant: e.key.tenant, Name: e.key.name, Gen: e.live.gen, Slot: ms(slot)}, e.live.spec.event(slot))
				if items, size = append(items, it), size+it.size(); len(items) >= fireItems || size >= fireBytes {
					break
				}
			}
			c.unqueue(e)
		case next.IsZero() && e.live.spec.DeleteAfter:
			keys = append(keys, e.key)
			it := jsonItem(kindUnschedule, unschedule{Tenant: e.key.tenant, Name: e.key.name, Gen: &e.live.gen})
			items, size = append(items, it), size+it.size()
			c.unqueue(e)
		default:
			e.due = next
			c.queue(e)
		}
	}
	if len(items) > 0 {
		c.append(items, keys)
	}
	if len(c.due) > 0 {
		wait = min(wait, max(c.due[0].due.Sub(now), 0))
	}
	c.timer.Reset(wait)
}

func (c *clock) append(items []item, keys []scheduleKey) {
	c.busy = true
	c.o.wait.Go(func() {
		ctx, cancel := context.WithTimeout(c.o.ctx, appendWait)
		defer cancel()
		_, err := c.o.p.log.append(ctx, items)
		c.appended <- appended{keys, err}
	})
}

// settle goes on after an append. The fold's reading of it, not its end, makes the Schedules due again.
func (c *clock) settle(a appended) {
	c.busy = false
	if a.err == nil {
		return
	}
	if !c.o.stopping() {
		c.o.b.opt.Log.Warn("schedules are not fired; it is tried again", "partition", c.o.p.num, "schedules", len(a.keys), "err", a.err)
	}
	c.resume = time.Now().Add(time.Second)
	for _, key := range a.keys {
		c.refresh(key)
	}
}

// plan gives the slots that fire now, oldest first, and when none does the time at which to look again; zero when no slot is left. Slots come
// in their order: with a window that is longer than their distance one may wait for the one before it.
func (e *planned) plan(now time.Time) (fire []time.Time, next time.Time) {
	spec := e.live.spec.orDefaults()
	policy := spec.Missed
	if policy == "" {
		if policy = MissedSkip; e.slots.Once() {
			policy = MissedOnce
		}
	}
	after := e.live.after()
	edge := now.Add(-Lateness - spec.Window) // every slot before it is missed
	from := edge
	if oldest := now.Add(-spec.MissedAge); policy == MissedAll && oldest.Before(edge) {
		from = oldest
	}
	if from.Before(after) {
		from = after
	}
	var missed, late []time.Time
	for s := e.slots.Next(from); !s.IsZero(); s = e.slots.Next(s) {
		due := s.Add(spec.offset(s))
		if due.After(now) {
			next = due
			break
		}
		if now.Sub(due) <= Lateness {
			late = append(late, s)
		} else if missed = append(missed, s); len(missed) > spec.MissedLimit {
			missed = missed[1:]
		}
	}
	switch policy {
	case MissedAll:
		fire = append(missed, late...)
	case MissedOnce:
		if newest := e.slots.Last(from); newest.After(after) { // before all that were looked at
			missed = append([]time.Time{newest}, missed...)
		}
		fire = append(missed, late...)
		if len(missed) > 0 {
			fire = fire[len(fire)-1:]
		}
	default:
		fire = late
	}
	return fire, next
}

// dueHeap orders entries by due time; it is a container/heap.
type dueHeap []*planned

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i]; h[i].pos, h[j].pos = i, j }

// Push adds one; only package heap calls it.
func (h *dueHeap) Push(x any) {
	e := x.(*planned)
	e.pos = len(*h)
	*h = append(*h, e)
}

// Pop removes the last one; only package heap calls it.
func (h *dueHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	e.pos, *h = -1, old[:len(old)-1]
	return e
}
