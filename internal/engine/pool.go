package engine

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// pool holds the Instances of one Revision of one Unit, and the Invocations that wait for one.
type pool struct {
	e         *Engine
	unit      *Unit
	latest    atomic.Pointer[Unit] // of the same Revision, as committed last; its Guest starts Instances
	stack     string
	mem       int64 // MB of one Instance
	keepAlive time.Duration

	freezeAfter time.Duration // 0 means never

	totals *totals // of the Unit, over its Revisions

	mu struct {
		sync.Mutex
		retired bool // takes nothing more
		killed  bool // and ends what runs

		all   map[*instance]struct{} // not stopped yet; nil while empty
		idle  []*instance            // run nothing; a stack, so the front is the least recently used
		iced  int                    // so many of idle, from the front, are frozen or about to be
		spare []*instance            // run something and can take more

		starting int // Instances in Init
		serving  int // Instances past Init that are not being stopped
		capacity int // Invocations these can take at once
		live     int // Instances that are not stopped yet

		waiters  fifo
		arrivals uint64
		waited   time.Duration // how long somebody waited and no Instance was idle since the last start was over
		tallied  time.Time     // up to when that is known
		running  int
		long     int   // of these, for so long that they hold nobody back
		sumSince int64 // of the runs, to know how long they have been running on average

		lastFree time.Time     // when an Instance last could take something, or the first of the waiters came after that
		initAvg  time.Duration // moving averages; 0 means not known
		durAvg   time.Duration

		proven      bool // an Instance has started
		failures    int  // starts that failed since the last that did not
		lastFailure time.Time
		lastFault   *startFailure

		lastStart time.Time // when the last start that did not fail was over, and how long it took
		lastTook  time.Duration

		floor     int // Instances past Init that are kept
		aging     int // of serving, those that are to be followed by others
		deaths    int // of Instances that had run nothing, since the last that did
		lastDeath time.Time

		timer   *time.Timer // looks again at whether to start more
		timerAt time.Time   // zero when not armed
		room    bool        // makeRoom is to be called after unlocking
	}

	oldest atomic.Int64 // when idle[0] became Idle, in Unix ns; 0 where none may be stopped
	idleN  atomic.Int32 // idle Instances that may be stopped
	inLine atomic.Bool  // in node's line; written under node.mu

	ageAt      atomic.Int64 // when age is to look, in Unix ns; 0 means never
	warmAt     atomic.Int64 // when an Instance is to be started ahead, in Unix ns; 0 means never
	floorUntil atomic.Int64 // when mu.floor is to be asked for again, in Unix ns; 0 means never
	floor      atomic.Int32 // mu.floor
}

// newPool makes a pool; before is that of the Unit's Revision until now, or nil.
func (e *Engine) newPool(stack string, u *Unit, before *pool) *pool {
	p := &pool{e: e, unit: u, stack: stack, mem: int64(u.MemoryMB), keepAlive: u.KeepAlive, totals: &totals{}}
	if before != nil {
		p.totals = before.totals
	}
	if u.Learned && p.totals.habit == nil {
		p.totals.habit = &habit{}
	}
	p.latest.Store(u)
	p.freezeAfter = e.freezeAfterOf(u)
	if p.mem <= 0 {
		p.mem = defaultMemoryMB
	}
	if p.keepAlive <= 0 {
		p.keepAlive = defaultKeepAlive
	}
	return p
}

// unlock ends a critical section and then does what could not be done in it.
func (p *pool) unlock() {
	room := p.mu.room
	p.mu.room = false
	p.mu.Unlock()
	if room {
		p.e.makeRoom()
	}
}

// pump serves waiters and starts Instances as far as that is possible and useful.
func (p *pool) pump() {
	p.mu.Lock()
	p.pumpLocked(time.Now())
	p.unlock()
}

func (p *pool) pumpLocked(now time.Time) {
	p.tallyLocked(now)
	for p.mu.waiters.len > 0 && !p.crowdedLocked(now) {
		i := p.takeLocked(now)
		if i == nil {
			break
		}
		w := p.mu.waiters.pop()
		w.ready <- grant{inst: i, cold: p.attachLocked(i, w.run, now)}
	}
	if p.mu.retired {
		return
	}
	want, again := p.wantLocked(now)
	want, again = p.thriftLocked(now, want, again)
	if lack, later := p.lackLocked(now); lack > want || want == 0 && lack == 0 && again == 0 {
		want, again = lack, later
	}
	for p.mu.starting < want && p.mu.live < p.e.o.MaxInstances {
		ok, memory := p.e.node.acquire(p, p.mu.live == 0 && p.mu.waiters.len > 0)
		if !ok {
			p.mu.room = p.mu.room || memory
			break
		}
		p.launchLocked()
	}
	if p.mu.starting >= want {
		p.e.node.leave(p)
	}
	if again > 0 {
		p.armLocked(now, again)
	}
}

// backoff is how long after a failed start the next may begin.
func backoff(failures int) time.Duration {
	if failures < 2 {
		return 0
	}
	return min(100*time.Millisecond<<min(failures-2, 10), 2*time.Second)
}

// wantLocked says how many Instances should be starting, never more than Invocations wait, and after what time to ask
// again. What the Instances at hand will have absorbed by the time a new one is ready needs no new one; how much that is
// follows from how long Init and Invocations have taken so far, those that run right now included.
func (p *pool) wantLocked(now time.Time) (int, time.Duration) {
	n := p.mu.waiters.len
	if n == 0 {
		return 0, 0
	}
	if p.mu.failures > 0 {
		if left := p.mu.lastFailure.Add(backoff(p.mu.failures)).Sub(now); left > 0 {
			return 0, left
		}
		n = 1
	}
	if p.mu.serving == 0 {
		return n, 0
	}
	if len(p.mu.idle) > 0 {
		return 0, crowdLook // they are held back
	}
	init := max(p.mu.initAvg, time.Millisecond)
	again := max(init/4, time.Millisecond)
	stuck := now.Sub(p.mu.lastFree)
	if stuck < crowdStuck && !p.helpsLocked(now) {
		return 0, again // a machine that stands still for a moment looks like Invocations that take long
	}
	if stuck > init {
		return n, again // all are stuck in something longer than any seen before
	}
	dur := max(p.mu.durAvg, time.Microsecond)
	if p.mu.running > 0 {
		elapsed := now.Sub(p.e.epoch) - time.Duration(p.mu.sumSince/int64(p.mu.running))
		dur = max(dur, elapsed)
	}
	rest := float64(n) - float64(p.mu.capacity)*float64(init)/float64(dur)
	if rest <= 0 {
		if p.mu.waited >= init && p.mu.starting == 0 {
			return 1, again // it does not end: all that waiting would have paid for a start
		}
		return 0, again
	}
	want := math.Ceil(rest * min(1, float64(dur)/float64(init)))
	return min(max(int(want), 1), n), again
}

// tallyLocked adds up how long has been waited; it is called before the waiters or the idle Instances change.
func (p *pool) tallyLocked(now time.Time) {
	if p.mu.waiters.len > 0 && len(p.mu.idle) == 0 {
		p.mu.waited += now.Sub(p.mu.tallied)
	}
	p.mu.tallied = now
}

func (p *pool) armLocked(now time.Time, after time.Duration) {
	at := now.Add(after)
	switch {
	case p.mu.timer == nil:
		p.mu.timer = time.AfterFunc(after, p.recheck)
	case p.mu.timerAt.IsZero() || at.Before(p.mu.timerAt):
		p.mu.timer.Reset(after)
	default:
		return
	}
	p.mu.timerAt = at
}

func (p *pool) recheck() {
	p.mu.Lock()
	p.mu.timerAt = time.Time{}
	now := time.Now()
	p.passLocked(now)
	p.pumpLocked(now)
	p.unlock()
}

// takeLocked returns an Instance that can take one more, the most recently used first.
func (p *pool) takeLocked(now time.Time) *instance {
	for n := len(p.mu.idle); n > 0; n = len(p.mu.idle) {
		i := p.mu.idle[n-1]
		if i.old(now) {
			p.partLocked(i)
			continue
		}
		p.dropIdleLocked(n - 1)
		if !i.gone() {
			return i
		}
	}
	for n := len(p.mu.spare); n > 0; n = len(p.mu.spare) {
		i := p.mu.spare[n-1]
		switch {
		case i.old(now):
			p.partLocked(i)
		case !i.gone():
			return i
		default:
			p.dropSpareLocked(i)
		}
	}
	return nil
}

// attachLocked makes r run on i and reports whether it is the first to.
func (p *pool) attachLocked(i *instance, r *run, now time.Time) (cold bool) {
	r.inst, r.since = i, int64(now.Sub(p.e.epoch))
	i.runs = append(i.runs, r)
	i.ahead, i.used = false, true
	if p.mu.running++; p.mu.floor > 0 && p.mu.running > p.mu.floor*i.slots {
		p.totals.spilled.Add(1)
	}
	p.mu.sumSince += r.since
	switch {
	case len(i.runs) >= i.slots:
		p.dropSpareLocked(i)
	case len(i.runs) == 1:
		p.mu.spare = append(p.mu.spare, i)
	}
	return i.fresh
}

// outcome is what became of an Invocation, as far as the pool cares.
type outcome uint8

const (
	unused  outcome = iota // it never ran
	reuse                  // the Instance can take another
	discard                // it cannot
)

// give takes the Instance back from r. owes says that the Instance is still to be stopped and will give back the place
// in the ceiling then.
func (p *pool) give(r *run, o outcome, took time.Duration, c *ceiling) (owes bool) {
	i := r.inst
	now := time.Now()
	p.mu.Lock()
	k := slices.Index(i.runs, r)
	i.runs = slices.Delete(i.runs, k, k+1)
	p.mu.running--
	if o != unused { // a probe, or a caller that left, says nothing of when the Unit is called
		p.restLocked(now)
	}
	p.mu.sumSince -= r.since
	if r.long {
		r.long = false
		p.mu.long--
	}
	// One that was ended took at least that long; else a Unit whose Invocations all time out would seem to have short ones.
	if o == reuse || o == discard && took > p.mu.durAvg {
		if p.mu.durAvg > 0 {
			took = min(took, 2*p.mu.durAvg+crowdLook) // one outlier says little
		}
		p.mu.durAvg = average(p.mu.durAvg, took)
	}
	if o == reuse {
		p.mu.deaths = 0
	}
	if o == discard {
		i.last = true
		if owes = !i.stopped && c != nil; owes {
			i.owed = append(i.owed, c)
		}
	}
	switch {
	case i.quitting:
		if len(i.runs) == 0 {
			close(i.still)
		}
	case i.last || p.mu.retired:
		p.dropSpareLocked(i)
		if len(i.runs) == 0 {
			p.discardLocked(i, graceAfter(o, p.e.o.StopGrace))
		}
	case len(i.runs) == 0:
		p.dropSpareLocked(i)
		if p.e.node.short.Load() > 0 && p.mu.serving > max(1, p.mu.floor) && p.mu.waiters.len > 0 && p.e.node.claims(p) {
			p.discardLocked(i, p.e.o.StopGrace)
			break
		}
		p.mu.lastFree = now
		p.idleLocked(i, now)
	default:
		p.mu.lastFree = now
		if !slices.Contains(p.mu.spare, i) {
			p.mu.spare = append(p.mu.spare, i)
		}
	}
	p.pumpLocked(now)
	p.mu.room = p.mu.room || p.e.node.short.Load() > 0
	p.unlock()
	return owes
}

// graceAfter is the grace of a Stop: none for a guest that is over its deadline or whose caller has gone.
func graceAfter(o outcome, grace time.Duration) time.Duration {
	if o == discard {
		return 0
	}
	return grace
}

// average moves old an eighth towards next.
func average(old, next time.Duration) time.Duration {
	if old == 0 {
		return next
	}
	return old + (next-old)/8
}

func (p *pool) idleLocked(i *instance, now time.Time) {
	p.tallyLocked(now)
	i.idleSince = now
	p.mu.idle = append(p.mu.idle, i)
	p.countIdleLocked()
}

func (p *pool) dropIdleLocked(k int) {
	if k < p.mu.iced {
		p.mu.iced--
	}
	p.mu.idle = slices.Delete(p.mu.idle, k, k+1)
	p.countIdleLocked()
}

func (p *pool) countIdleLocked() {
	n := max(min(len(p.mu.idle), p.mu.serving-p.mu.floor), 0)
	p.idleN.Store(int32(n))
	if n == 0 {
		p.oldest.Store(0)
	} else {
		p.oldest.Store(p.mu.idle[0].idleSince.UnixNano())
	}
}

func (p *pool) dropSpareLocked(i *instance) {
	if i.slots > 1 {
		if k := slices.Index(p.mu.spare, i); k >= 0 {
			p.mu.spare = slices.Delete(p.mu.spare, k, k+1)
		}
	}
}

// discardLocked makes i end. Its own goroutine does the work and gives the budget back.
func (p *pool) discardLocked(i *instance, grace time.Duration) {
	if i.quitting {
		return
	}
	i.quitting, i.grace = true, grace
	p.outLocked(i)
	if k := slices.Index(p.mu.idle, i); k >= 0 {
		p.dropIdleLocked(k)
	} else {
		p.countIdleLocked()
	}
	p.dropSpareLocked(i)
	if len(i.runs) == 0 {
		close(i.still)
	}
	p.e.node.freeing(p.mem)
	i.cancel()
	close(i.quit)
}

// evict stops the least recently used idle Instance.
func (p *pool) evict() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.mu.idle) == 0 || !p.spareLocked() {
		return false
	}
	p.discardLocked(p.mu.idle[0], p.e.o.StopGrace)
	if p.unit.Learned {
		w, quiet := p.totals.habit.look(p.keepAlive)
		p.planLocked(w, quiet, time.Now())
	}
	return true
}

// retire takes nothing more: waiters go elsewhere, idle and starting Instances end, busy ones end after their work.
func (p *pool) retire() {
	p.mu.Lock()
	p.retireLocked(grant{moved: true})
	p.closeLocked()
}

// kill is retire, but ends what runs.
func (p *pool) kill() {
	p.mu.Lock()
	p.retireLocked(grant{err: closedErr()})
	p.mu.killed = true
	var runs []*run
	for i := range p.mu.all {
		runs = append(runs, i.runs...)
		p.discardLocked(i, 0)
	}
	p.closeLocked()
	for _, r := range runs {
		r.gone()
	}
}

func (p *pool) retireLocked(g grant) {
	p.mu.retired = true
	p.warmAt.Store(0)
	p.floorUntil.Store(0)
	p.floor.Store(0)
	p.mu.floor = 0
	for w := p.mu.waiters.pop(); w != nil; w = p.mu.waiters.pop() {
		w.ready <- g
	}
	for i := range p.mu.all {
		if len(i.runs) == 0 {
			p.discardLocked(i, p.e.o.StopGrace)
		}
	}
	if p.mu.timer != nil {
		p.mu.timer.Stop()
	}
	p.e.node.leave(p)
}

// closeLocked unlocks, and lets go of a retired pool that holds nothing.
func (p *pool) closeLocked() {
	empty := p.mu.retired && p.mu.live == 0
	p.unlock()
	if empty {
		p.e.forget(p)
	}
}
