package engine

import "time"

// Always is a Unit.Provisioned that does not change.
func Always(n int) func(time.Time) (int, time.Time) {
	if n <= 0 {
		return nil
	}
	return func(time.Time) (int, time.Time) { return n, time.Time{} }
}

// Provisioned Instances are a floor under the pool: Instances past Init that neither keep-alive nor the need of others
// takes away. Any Instance counts; one that was started to reach the floor is told so. They start in the background once
// their Revision serves.

// floorAt asks how many Instances are to be kept now.
func (p *pool) floorAt(now time.Time) {
	n, until := 0, time.Time{}
	if f := p.latest.Load().Provisioned; f != nil {
		n, until = f(now)
	}
	at := int64(0)
	if !until.IsZero() {
		at = max(until.UnixNano(), 1)
	}
	p.mu.Lock()
	defer p.unlock()
	if p.mu.retired {
		return
	}
	p.floorUntil.Store(at)
	p.mu.floor = max(n, 0)
	p.floor.Store(int32(p.mu.floor))
	p.countIdleLocked()
	p.pumpLocked(now)
}

// tend keeps the floor: it follows its schedule, and starts what is missing.
func (p *pool) tend(now time.Time) {
	if at := p.floorUntil.Load(); at != 0 && at <= now.UnixNano() {
		p.floorAt(now)
		return
	}
	if p.floor.Load() == 0 {
		return
	}
	p.mu.Lock()
	defer p.unlock()
	if p.mu.serving-p.mu.aging+p.mu.starting < p.mu.floor {
		p.pumpLocked(now)
	}
}

// spareLocked says whether an idle Instance may be stopped for keep-alive or for the memory of others.
func (p *pool) spareLocked() bool { return p.mu.serving > p.mu.floor }

// mostFloorWait bounds the time between two starts of Instances that do not stay.
const mostFloorWait = time.Minute

// lackLocked is how many Instances should be starting for the floor, and after what time to ask again.
func (p *pool) lackLocked(now time.Time) (int, time.Duration) {
	lack := p.mu.floor - (p.mu.serving - p.mu.aging)
	if lack <= 0 || p.e.node.total > 0 && p.mem > p.e.node.total {
		return 0, 0
	}
	failed, at := p.mu.failures, p.mu.lastFailure
	if p.mu.deaths > 0 {
		failed, at = failed+p.mu.deaths+1, p.mu.lastDeath // one more: where a failed start waits from the second on, it has waited for Init
		if p.mu.lastFailure.After(at) {
			at = p.mu.lastFailure
		}
	}
	if failed == 0 {
		return lack, 0
	}
	wait := backoff(failed)
	if failed > 6 {
		wait = min(wait<<min(failed-6, 5), mostFloorWait)
	}
	if left := at.Add(wait).Sub(now); left > 0 {
		return 0, left
	}
	return 1, 0
}

// wornLocked notes an Instance that died without having run anything.
func (p *pool) wornLocked(i *instance, now time.Time) {
	if !i.used {
		p.mu.deaths++
		p.mu.lastDeath = now
	}
}
