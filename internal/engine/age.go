package engine

import "time"

// An Instance that has reached its Unit's MaxAge takes nothing more: it ends at once where it runs nothing, else with the last Invocation that it runs.
// Provisioned Instances are followed by others before that. Lambda does the same "every few hours": AWS, "Lambda execution environment lifecycle".

// renewal is the part of MaxAge before its end in which a provisioned Instance's successor is started.
const renewal = 10

// bornLocked sets how long an Instance may serve. Those that were started together do not end together.
func (i *instance) bornLocked(began time.Time) {
	age := i.pool.unit.MaxAge
	if age <= 0 {
		return
	}
	sooner := age / renewal / 2 * time.Duration(i.id[0]%16) / 16
	i.until = began.Add(age - sooner)
	i.renew = i.until.Add(-age / renewal)
	if at := i.pool.ageAt.Load(); at == 0 || i.renew.UnixNano() < at {
		i.pool.ageAt.Store(i.renew.UnixNano())
	}
}

// old says whether an Instance may be given nothing more.
func (i *instance) old(now time.Time) bool { return !i.until.IsZero() && !now.Before(i.until) }

// age takes old Instances out of service, and has provisioned ones followed by others. It says when it is to be asked again.
func (p *pool) age(now time.Time) (left time.Duration, some bool) {
	at := p.ageAt.Load()
	if at == 0 {
		return 0, false
	}
	if left := time.Unix(0, at).Sub(now); left > 0 {
		return left, true
	}
	p.mu.Lock()
	defer p.unlock()
	var next time.Time
	soon := func(at time.Time) {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	for i := range p.mu.all {
		switch {
		case !i.served || i.quitting:
			continue
		case i.old(now):
			p.partLocked(i)
			continue
		case !now.Before(i.renew) && p.mu.floor > 0:
			if !i.aging {
				i.aging = true
				p.mu.aging++
			}
			soon(now) // its successor may be there at any time
		case !now.Before(i.renew):
			soon(i.until)
		default:
			soon(i.renew)
		}
	}
	for i := range p.mu.all {
		if i.aging && len(i.runs) == 0 && p.mu.serving-p.mu.aging >= p.mu.floor {
			p.partLocked(i)
		}
	}
	p.pumpLocked(now)
	if next.IsZero() {
		p.ageAt.Store(0)
		return 0, false
	}
	p.ageAt.Store(next.UnixNano())
	if left = next.Sub(now); left <= 0 {
		return 0, false // the usual time
	}
	return left, true
}

// partLocked has an Instance serve no more: what it runs ends in peace.
func (p *pool) partLocked(i *instance) {
	if len(i.runs) == 0 {
		p.discardLocked(i, p.e.o.StopGrace)
		return
	}
	i.last = true
	p.outLocked(i)
	p.countIdleLocked()
	p.dropSpareLocked(i)
}

// outLocked no longer counts an Instance among those that serve.
func (p *pool) outLocked(i *instance) {
	if !i.served {
		return
	}
	i.served = false
	p.mu.serving--
	p.mu.capacity -= i.slots
	if i.aging {
		i.aging = false
		p.mu.aging--
	}
}
