package process

import (
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/sandbox/process/capture"
)

// Stems: Sandboxes with a waiting Template inside, ready to become what a Sandbox is to start. One is used once. This file decides how
// many there are and for how long, the others how one is made and taken over.

const (
	// stemPause lies between the last start from a Template and the making of another stem, which would take the processor from what was
	// just started.
	stemPause = 50 * time.Millisecond
	// stemWindow is over what time starts are counted: as many stems are held ready as there were.
	stemWindow = time.Minute
	// mostStems is how many are held ready of one kind. More than that at once is a burst, which waits for processors anyway.
	mostStems = 4
	// stemKeep is how long after the last start of its kind a stem is kept.
	stemKeep = 10 * time.Minute
	// stemRetry is how long after a stem that ended by itself, or could not be made, the next one is made; twice that after the second.
	stemRetry = time.Second
)

// seed is what one kind of stem is made of. Immutable.
type seed struct {
	key      string
	template sandbox.Template
	limits   sandbox.Limits // of its fence
	tmp      int64          // bytes of its /tmp
	heap     int64          // as a fence's
	late     []string       // folders on which something is mounted when it is assigned, sorted
	plan     []capture.Socket
}

// name gives the seed its key: what is the same for two Sandboxes can come from one kind of stem.
func (s *seed) name() {
	text, _ := json.Marshal([]any{s.template.Command, s.template.Env, s.template.Mounts, s.template.Ahead, s.limits, s.tmp, s.heap, s.late, s.plan}) // plain data
	s.key = string(text)
}

// cell is a stem.
type cell interface {
	// watch returns when the stem has ended by itself, or was claimed or ended.
	watch()
	// claim reports whether the stem can be taken over. It is called once, by who does; who gets false ends it.
	claim() bool
	// end ends it, unless it was taken over. It returns when nothing is left.
	end()
	// bytes is the memory it uses.
	bytes() int64
}

// stems holds the stems of a Driver.
type stems struct {
	sow    func(*seed, *fence) (cell, error) // makes a stem, in an unused fence of its kind where there is one
	drop   func(*fence)                      // removes an unused fence
	budget int64                             // bytes of all that are ready; none are made when it is not positive
	cancel func()                            // ends a making

	wg sync.WaitGroup // whatever runs in the background

	mu struct {
		sync.Mutex
		closed  bool
		busy    bool // tend runs
		pools   map[string]*stemPool
		taken   time.Time // when something was last asked for
		given   int       // how many became Sandboxes
		checkup *time.Timer
	}
}

// stemPool holds the stems of one kind.
type stemPool struct {
	seed   *seed
	ready  []cell
	asked  []time.Time // the last times, at most mostStems
	spare  *fence
	weight int64     // of one, by the last
	failed int       // in a row
	after  time.Time // none is made before
}

// take gives a stem that is ready, and notes that one was wanted. It never waits for one.
func (s *stems) take(k *seed) cell {
	for {
		c := s.pop(k)
		if c == nil || c.claim() {
			return c
		}
		s.away(c)
		k = &seed{key: k.key} // it was noted
	}
}

// pop takes a stem out of its pool. The first time it makes the pool.
func (s *stems) pop(k *seed) cell {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.mu.pools[k.key]
	switch {
	case s.mu.closed || s.budget <= 0:
		return nil
	case p == nil && k.template.Command == nil:
		return nil
	case p == nil:
		p = &stemPool{seed: k}
		s.mu.pools[k.key] = p
	}
	if k.template.Command != nil {
		s.mu.taken = now
		p.asked = append(p.asked, now)
		p.asked = p.asked[max(0, len(p.asked)-mostStems):]
	}
	s.tendLocked()
	if len(p.ready) == 0 {
		return nil
	}
	c := p.ready[0]
	p.ready = slices.Delete(p.ready, 0, 1)
	return c
}

// recycle takes the unused fence of a Sandbox that a stem became, for the next one of its kind.
func (s *stems) recycle(k *seed, f *fence) {
	s.mu.Lock()
	s.mu.given++
	p := s.mu.pools[k.key]
	kept := p != nil && p.spare == nil && !s.mu.closed
	if kept {
		p.spare = f
	}
	s.mu.Unlock()
	if !kept {
		s.apart(func() { s.drop(f) })
	}
}

// away ends a stem.
func (s *stems) away(c cell) { s.apart(c.end) }

// apart does something in the background, unless nobody would wait for that any more.
func (s *stems) apart(do func()) {
	s.mu.Lock()
	closed := s.mu.closed
	if !closed {
		s.wg.Go(do)
	}
	s.mu.Unlock()
	if closed {
		do()
	}
}

// want is how many there should be now.
func (p *stemPool) want(now time.Time) int {
	recent := 0
	for _, at := range p.asked {
		if now.Sub(at) < stemWindow {
			recent++
		}
	}
	return max(1, recent)
}

func (p *stemPool) last() time.Time { return p.asked[len(p.asked)-1] }

// tendLocked sees to it that what is wanted is made.
func (s *stems) tendLocked() {
	if s.mu.closed || s.mu.busy {
		return
	}
	s.mu.busy = true
	s.wg.Go(s.tend)
}

// tend makes stems, one after the other, until there are as many as are wanted.
func (s *stems) tend() {
	for {
		s.mu.Lock()
		if wait := stemPause - time.Since(s.mu.taken); wait > 0 && !s.mu.closed {
			s.mu.Unlock()
			time.Sleep(wait)
			continue
		}
		now := time.Now()
		s.trimLocked(now)
		p := s.lackingLocked(now)
		if p == nil {
			s.mu.busy = false
			s.checkLocked(now)
			s.mu.Unlock()
			return
		}
		spare := p.spare
		p.spare = nil
		s.mu.Unlock()
		c, err := s.sow(p.seed, spare)
		s.mu.Lock()
		if err != nil {
			s.failedLocked(p)
			s.mu.Unlock()
			continue
		}
		if s.mu.closed || s.mu.pools[p.seed.key] != p {
			s.mu.Unlock()
			c.end()
			continue
		}
		p.weight = max(p.weight, c.bytes())
		p.ready, p.failed = append(p.ready, c), p.failed/2
		s.wg.Go(func() { s.watch(p, c) })
		s.mu.Unlock()
	}
}

// usedLocked is what all that are ready use.
func (s *stems) usedLocked() int64 {
	var all int64
	for _, p := range s.mu.pools {
		all += int64(len(p.ready)) * p.weight
	}
	return all
}

// unfit says that one that was taken was of no use.
func (s *stems) unfit(k *seed, c cell) {
	s.mu.Lock()
	if p := s.mu.pools[k.key]; p != nil {
		s.failedLocked(p)
	}
	s.mu.Unlock()
	s.away(c)
}

// failedLocked puts off the next one.
func (s *stems) failedLocked(p *stemPool) {
	p.after = time.Now().Add(stemRetry << min(p.failed, 8))
	p.failed++
}

// watch takes a stem that ends by itself out of its pool.
func (s *stems) watch(p *stemPool, c cell) {
	c.watch()
	s.mu.Lock()
	at := slices.Index(p.ready, c)
	if at >= 0 {
		p.ready = slices.Delete(p.ready, at, at+1)
		s.failedLocked(p)
	}
	s.mu.Unlock()
	if at >= 0 {
		c.end()
	}
}

// lackingLocked chooses the pool that gets the next stem: that which was asked last, among those that lack one. Where memory is out it makes
// room by those that were asked before; but nobody gets room from a pool that was asked later.
func (s *stems) lackingLocked(now time.Time) *stemPool {
	if s.mu.closed {
		return nil
	}
	var best *stemPool
	for _, p := range s.mu.pools {
		if len(p.ready) < p.want(now) && !now.Before(p.after) && (best == nil || p.last().After(best.last())) {
			best = p
		}
	}
	if best == nil {
		return nil
	}
	for s.usedLocked()+best.weight > s.budget {
		var victim *stemPool
		for _, p := range s.mu.pools {
			if len(p.ready) > 0 && p.last().Before(best.last()) && (victim == nil || p.last().Before(victim.last())) {
				victim = p
			}
		}
		if victim == nil {
			return nil
		}
		s.shedLocked(victim)
	}
	return best
}

// shedLocked ends one of a pool's stems.
func (s *stems) shedLocked(p *stemPool) {
	c := p.ready[len(p.ready)-1]
	p.ready = p.ready[:len(p.ready)-1]
	s.wg.Go(c.end)
}

// trimLocked ends stems that are not wanted any more.
func (s *stems) trimLocked(now time.Time) {
	for key, p := range s.mu.pools {
		keep := p.want(now)
		if gone := now.Sub(p.last()) >= stemKeep; gone || s.mu.closed {
			keep = 0
			delete(s.mu.pools, key)
			if f := p.spare; f != nil {
				p.spare = nil
				s.wg.Go(func() { s.drop(f) })
			}
		}
		for len(p.ready) > keep {
			s.shedLocked(p)
		}
	}
}

// checkLocked has a look at all pools after a while, as long as there are any.
func (s *stems) checkLocked(now time.Time) {
	next := stemWindow
	for _, p := range s.mu.pools {
		if wait := p.after.Sub(now); wait > 0 && len(p.ready) < p.want(now) {
			next = min(next, wait)
		}
	}
	switch {
	case len(s.mu.pools) == 0 || s.mu.closed:
	case s.mu.checkup == nil:
		s.mu.checkup = time.AfterFunc(next, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.tendLocked()
		})
	default:
		s.mu.checkup.Reset(next)
	}
}

// Readied is how many Sandboxes came from a Template that was ready.
func (d *Driver) Readied() int {
	d.stems.mu.Lock()
	defer d.stems.mu.Unlock()
	if d.iso != nil {
		return d.stems.mu.given + d.iso.copied()
	}
	return d.stems.mu.given
}

// ReadyFor is how many Templates of a name are ready to become a guest.
func (d *Driver) ReadyFor(name string) (count int) {
	d.stems.mu.Lock()
	defer d.stems.mu.Unlock()
	for _, p := range d.stems.mu.pools {
		if p.seed.template.Name == name {
			count += len(p.ready)
		}
	}
	return count
}

// Templates says how many Templates are ready, what memory they use, and how many Sandboxes came from one.
func (d *Driver) Templates() (ready int, bytes int64, started int) {
	ready, bytes = d.stems.held()
	if d.iso != nil {
		n, more := d.iso.mothers()
		ready, bytes = ready+n, bytes+more
	}
	return ready, bytes, d.Readied()
}

// held is how many are ready and what they use.
func (s *stems) held() (count int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.mu.pools {
		count += len(p.ready)
	}
	return count, s.usedLocked()
}

// close ends all. Nothing is left when it returns.
func (s *stems) close() {
	s.mu.Lock()
	s.mu.closed = true
	if s.cancel != nil {
		s.cancel()
	}
	if s.mu.checkup != nil {
		s.mu.checkup.Stop()
	}
	s.trimLocked(time.Now())
	s.mu.Unlock()
	s.wg.Wait()
}
