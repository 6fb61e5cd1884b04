package engine

import (
	"runtime"
	"sync/atomic"
	"time"
)

// Where all processors have work already, one more Instance at work makes nothing faster: it takes the others' processor
// and their caches. So on a saturated machine a pool hands Invocations to few Instances, and lets the rest wait for those
// to come back. Only short Invocations are held back, and one that has been running for a while does not count: what holds it up may be
// anything.

const (
	crowdLook = 4 * time.Millisecond // how often held Invocations are looked at again, and the machine with them
	crowdHold = 8 * time.Millisecond // how long the machine counts as saturated after it was last seen so
	crowdLong = 4 * time.Millisecond // a pool whose Invocations take longer on average holds none back
	// crowdLate is how long an Invocation of such a pool may run before it no longer holds others back. A short one takes several
	// milliseconds now and then because others have the processor, and more Instances at work would then make more of them late.
	crowdLate = 16 * time.Millisecond
	// crowdStuck is how long no Instance may come back before more are started all the same.
	crowdStuck = 250 * time.Millisecond
)

// machine is what Options.Saturated said last.
type machine struct {
	ask  func() bool
	at   atomic.Int64 // when, ns since Engine.epoch; 0 means never
	full atomic.Int64 // when it last was saturated, like at
}

func (m *machine) saturated(at int64) bool {
	if m.ask == nil {
		return false
	}
	if last := m.at.Load(); (last == 0 || at-last >= int64(crowdLook)) && m.at.CompareAndSwap(last, max(at, 1)) {
		if m.ask() {
			m.full.Store(max(at, 1))
		}
	}
	full := m.full.Load()
	return full != 0 && at-full < int64(crowdHold)
}

// crowdedLocked says whether an Invocation is to wait although an Instance is idle.
func (p *pool) crowdedLocked(now time.Time) bool {
	return len(p.mu.idle) > 0 && !p.helpsLocked(now)
}

// helpsLocked says whether one more Instance at work makes anything faster.
func (p *pool) helpsLocked(now time.Time) bool {
	oneEach := p.mu.capacity == p.mu.serving // Instances that take several at once know their own bounds
	return !oneEach || p.mu.durAvg >= crowdLong || p.mu.running-p.mu.long <= runtime.GOMAXPROCS(0) || !p.e.machine.saturated(int64(now.Sub(p.e.epoch)))
}

// passLocked takes what has been running for long out of the count.
func (p *pool) passLocked(now time.Time) {
	if p.mu.waiters.len == 0 || len(p.mu.idle) == 0 {
		return
	}
	before := int64(now.Sub(p.e.epoch) - crowdLate)
	for i := range p.mu.all {
		for _, r := range i.runs {
			if !r.long && r.since <= before {
				r.long = true
				p.mu.long++
			}
		}
	}
}
