package audit

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// denialsEvery is how often what was counted is written.
	denialsEvery = time.Minute
	// maxDenials is how many different denials are written in that time; the others are one Record.
	maxDenials = 200
)

// Denials writes denials to a Log. Deny neither blocks nor fails; Run writes.
type Denials struct {
	log   *Log
	every time.Duration
	wake  chan struct{}
	done  atomic.Uint64 // Records that were written
	fail  func(error)

	mu struct {
		sync.Mutex
		seen  map[denial]*Record // since the last flush
		first []*Record          // to be written at once
		over  int                // beyond maxDenials
	}
}

type denial struct{ who, what, on string }

// NewDenials returns what writes denials to a Log. fail is told of what could not be written; it is tried again.
func NewDenials(l *Log, fail func(error)) *Denials {
	return newDenials(l, denialsEvery, fail)
}

func newDenials(l *Log, every time.Duration, fail func(error)) *Denials {
	d := &Denials{log: l, every: every, wake: make(chan struct{}, 1), fail: fail}
	d.mu.seen = map[denial]*Record{}
	return d
}

// Deny notes that something was refused.
func (d *Denials) Deny(r Record) {
	r.clip()
	r.Outcome = Denied
	k := denial{r.Who, r.What, r.On}
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.mu.seen[k]
	switch {
	case old != nil:
		old.Count++
		return
	case len(d.mu.seen) >= maxDenials:
		d.mu.over++
		return
	}
	r.Time = time.Now().UTC()
	again := r // counts those behind the first
	d.mu.seen[k] = &again
	d.mu.first = append(d.mu.first, &r)
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Run writes until ctx ends, and then what is left.
func (d *Denials) Run(ctx context.Context) {
	tick := time.NewTicker(d.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			d.write(last, true)
			return
		case <-tick.C:
			d.write(ctx, true)
		case <-d.wake:
			d.write(ctx, false)
		}
	}
}

// write writes what is new, and at the end of a minute what was counted in it. What cannot be written waits, bounded as all is.
func (d *Denials) write(ctx context.Context, counted bool) {
	d.mu.Lock()
	list := d.mu.first
	d.mu.first = nil
	if counted {
		now := time.Now().UTC()
		for k, r := range d.mu.seen {
			if delete(d.mu.seen, k); r.Count > 0 {
				r.Time = now
				list = append(list, r)
			}
		}
		if d.mu.over > 0 {
			list = append(list, &Record{Who: "others", What: "denials", Outcome: Denied, Count: d.mu.over, Time: now, Text: "too many different ones in a minute: these are only counted"})
			d.mu.over = 0
		}
	}
	d.mu.Unlock()
	for i, r := range list {
		if _, err := d.log.Append(ctx, *r); err != nil {
			d.fail(err)
			d.mu.Lock()
			rest := append(list[i:], d.mu.first...)
			d.mu.first = rest[:min(len(rest), 2*maxDenials)]
			d.mu.Unlock()
			return
		}
		d.done.Add(1)
	}
}

// Written is how many Records were written.
func (d *Denials) Written() uint64 { return d.done.Load() }
