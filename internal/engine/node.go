package engine

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
)

// node is the Node's budget of memory and of starts at once, with the pools that wait for a share of it.
type node struct {
	total int64 // MB; 0 means no bound
	max   int   // starts at once

	mu struct {
		sync.Mutex
		used    int64 // MB of all Instances that are not stopped yet
		freeing int64 // of these, MB that is being given back
		starts  int
		line    []inLine // in the order of arrival, each pool once
	}
	short atomic.Int32 // pools in line that lack memory
}

type inLine struct {
	p       *pool
	memory  bool // it lacks memory, not only a start
	starved bool // it has no Instance at all
}

func (n *node) fitsLocked(mem int64) bool { return n.total == 0 || n.mu.used+mem <= n.total }

// acquire takes the memory of an Instance of p and a start, or puts p in line. memory says that room is to be made.
func (n *node) acquire(p *pool, starved bool) (ok, memory bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	fits := n.fitsLocked(p.mem)
	if !starved && n.short.Load() > 0 {
		// What is free is for pools that have nothing before it is for more of the same.
		fits = fits && n.fitsLocked(p.mem+n.starvedLocked(p))
	}
	if fits && n.mu.starts < n.max {
		n.mu.used += p.mem
		n.mu.starts++
		n.leaveLocked(p)
		return true, false
	}
	entry := inLine{p: p, memory: !fits, starved: starved}
	if k := n.findLocked(p); k >= 0 {
		n.countLocked(n.mu.line[k], -1)
		n.mu.line[k] = entry
	} else {
		n.mu.line = append(n.mu.line, entry)
		p.inLine.Store(true)
	}
	n.countLocked(entry, 1)
	return false, !fits
}

func (n *node) findLocked(p *pool) int {
	if !p.inLine.Load() {
		return -1
	}
	return slices.IndexFunc(n.mu.line, func(l inLine) bool { return l.p == p })
}

func (n *node) countLocked(l inLine, by int32) {
	if l.memory {
		n.short.Add(by)
	}
}

func (n *node) leaveLocked(p *pool) {
	if k := n.findLocked(p); k >= 0 {
		n.countLocked(n.mu.line[k], -1)
		n.mu.line = slices.Delete(n.mu.line, k, k+1)
		p.inLine.Store(false)
	}
}

// leave takes p out of the line: it needs nothing any more.
func (n *node) leave(p *pool) {
	if p.inLine.Load() {
		n.mu.Lock()
		n.leaveLocked(p)
		n.mu.Unlock()
	}
}

// starvedLocked is the memory that pools without any Instance, but not p, lack.
func (n *node) starvedLocked(p *pool) (mem int64) {
	for _, l := range n.mu.line {
		if l.memory && l.starved && l.p != p {
			mem += l.p.mem
		}
	}
	return mem
}

// next takes the first pool out of the line that could start an Instance now, those that have none before the others.
// One that needs more memory than there is does not hold up those behind it.
func (n *node) next() *pool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.starts >= n.max {
		return nil
	}
	for _, l := range n.mu.line {
		if l.starved && n.fitsLocked(l.p.mem) {
			n.leaveLocked(l.p)
			return l.p
		}
	}
	for _, l := range n.mu.line {
		if !l.starved && n.fitsLocked(l.p.mem+n.starvedLocked(l.p)) {
			n.leaveLocked(l.p)
			return l.p
		}
	}
	return nil
}

func (n *node) started() {
	n.mu.Lock()
	n.mu.starts--
	n.mu.Unlock()
}

func (n *node) freeing(mem int64) {
	n.mu.Lock()
	n.mu.freeing += mem
	n.mu.Unlock()
}

func (n *node) freed(mem int64) {
	n.mu.Lock()
	n.mu.freeing -= mem
	n.mu.used -= mem
	n.mu.Unlock()
}

// claims reports whether a pool without any Instance lacks memory that nobody is giving back yet, so that a pool with
// several should give one up although it has work for it.
func (n *node) claims(from *pool) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	room := n.total - n.mu.used + n.mu.freeing
	for _, l := range n.mu.line {
		if l.memory && l.starved && l.p != from {
			if room -= l.p.mem; room < 0 {
				return true
			}
		}
	}
	return false
}

// lacking lists how much memory has to be given back so that the pools in line that lack it, in their order, could each
// start one Instance.
func (n *node) lacking() []int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []int64
	room := n.total - n.mu.used + n.mu.freeing
	for _, l := range n.mu.line {
		if l.memory {
			room -= l.p.mem
			out = append(out, max(-room, 0))
		}
	}
	return out
}

// wake lets pools in line start what now fits. The caller holds no lock.
func (e *Engine) wake() {
	for p := e.node.next(); p != nil; p = e.node.next() {
		p.pump()
	}
}

// makeRoom evicts idle Instances, the least recently used first, for pools that lack memory; none for a pool that
// would still lack memory afterwards. The caller holds no lock.
func (e *Engine) makeRoom() {
	lacking := e.node.lacking()
	if len(lacking) == 0 || lacking[len(lacking)-1] == 0 {
		return
	}
	type victim struct {
		p     *pool
		since int64
	}
	var victims []victim
	var idle int64
	for _, p := range *e.pools.Load() {
		if since := p.oldest.Load(); since != 0 {
			victims = append(victims, victim{p, since})
			idle += int64(p.idleN.Load()) * p.mem
		}
	}
	var want int64
	for _, l := range lacking {
		if l <= idle {
			want = max(want, l)
		}
	}
	byAge := func(a, b victim) int { return cmp.Compare(a.since, b.since) }
	for want > 0 && len(victims) > 0 {
		k := 0
		for j := range victims {
			if byAge(victims[j], victims[k]) < 0 {
				k = j
			}
		}
		v := &victims[k]
		if v.p.evict() {
			want -= v.p.mem
		}
		if v.since = v.p.oldest.Load(); v.since == 0 {
			victims = slices.Delete(victims, k, k+1)
		}
	}
}
