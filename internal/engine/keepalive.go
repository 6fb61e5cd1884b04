package engine

import (
	"sync"
	"time"
)

// habit is what is known of when a Unit is called. It is shared by the pools of its Revisions, so a deploy forgets nothing.
type habit struct {
	mu struct {
		sync.Mutex
		times   *IdleTimes // nil until there is one
		windows Windows    // of times, unless stale
		stale   bool
		quiet   time.Time // when the last Invocation ended; zero while one is there, and before the first
	}
}

// arrived notes the idle time that the first Invocation after a while ends.
func (h *habit) arrived(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.quiet.IsZero() {
		return
	}
	if h.mu.times == nil {
		h.mu.times = &IdleTimes{}
	}
	h.mu.times.Note(now.Sub(h.mu.quiet))
	h.mu.stale, h.mu.quiet = true, time.Time{}
}

func (h *habit) rest(now time.Time) {
	h.mu.Lock()
	h.mu.quiet = now
	h.mu.Unlock()
}

// look gives the windows, and from when they count; zero while the Unit is busy.
func (h *habit) look(standard time.Duration) (Windows, time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.times == nil {
		return Windows{Keep: standard}, h.mu.quiet
	}
	if h.mu.stale {
		h.mu.windows, h.mu.stale = h.mu.times.Windows(standard), false
	}
	return h.mu.windows, h.mu.quiet
}

// arrivedLocked is called for each Invocation that asks for an Instance.
func (p *pool) arrivedLocked(now time.Time) {
	if !p.unit.Learned || p.mu.running > 0 || p.mu.waiters.len > 0 {
		return
	}
	p.warmAt.Store(0)
	p.totals.habit.arrived(now)
}

// restLocked is called when an Invocation has left its Instance.
func (p *pool) restLocked(now time.Time) {
	if p.unit.Learned && p.mu.running == 0 {
		p.totals.habit.rest(now)
	}
}

// reap stops Instances whose keep-alive has ended and says when the next one's will, or when one is to be started ahead.
func (p *pool) reap(now time.Time) (left time.Duration, some bool) {
	if oldest := p.oldest.Load(); oldest != 0 {
		if left := time.Unix(0, oldest).Add(p.keepAlive).Sub(now); left > 0 && !p.unit.Learned {
			return left, true
		}
		left, some = p.reapIdle(now)
	}
	if at := p.warmAt.Load(); at != 0 {
		until := time.Unix(0, at).Sub(now)
		if until <= 0 {
			p.prewarm(now)
		} else if !some || until < left {
			left, some = until, true
		}
	}
	return left, some
}

func (p *pool) reapIdle(now time.Time) (left time.Duration, some bool) {
	p.mu.Lock()
	defer p.unlock()
	w, quiet := Windows{Keep: p.keepAlive}, time.Time{}
	if p.unit.Learned {
		w, quiet = p.totals.habit.look(p.keepAlive)
	}
	for k := 0; k < len(p.mu.idle) && p.spareLocked(); {
		i := p.mu.idle[k]
		keep := w.Linger()
		if i.ahead {
			keep = max(w.Ahead(), w.Linger())
		}
		if rest := i.idleSince.Add(keep).Sub(now); rest > 0 {
			if !some || rest < left {
				left, some = rest, true
			}
			k++
			continue
		}
		p.discardLocked(i, p.e.o.StopGrace)
	}
	p.planLocked(w, quiet, now)
	return left, some
}

// planLocked sees to it that an Instance is started ahead, where the windows say so.
func (p *pool) planLocked(w Windows, quiet, now time.Time) {
	if w.Prewarm <= 0 || quiet.IsZero() || p.mu.retired || p.mu.serving+p.mu.starting > 0 {
		return
	}
	if at := quiet.Add(w.Prewarm); at.After(now) {
		p.warmAt.Store(at.UnixNano())
	}
}

// prewarm starts an Instance before it is asked for, unless that would be in anybody's way.
func (p *pool) prewarm(now time.Time) {
	p.mu.Lock()
	defer p.unlock()
	if p.warmAt.Swap(0) == 0 || p.mu.retired || p.mu.serving+p.mu.starting > 0 || p.mu.waiters.len > 0 || p.mu.failures > 0 {
		return
	}
	if p.mu.live >= p.e.o.MaxInstances || !p.e.node.spare(p.mem) {
		return
	}
	p.launchLocked().ahead = true
	p.totals.ahead.Add(1)
}

// spare takes the memory and the start of an Instance that nobody asks for: only where nobody is in line for either, and
// a start is left over for whoever comes.
func (n *node) spare(mem int64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.mu.line) > 0 || !n.fitsLocked(mem) || n.mu.starts >= max(n.max/2, 1) {
		return false
	}
	n.mu.used += mem
	n.mu.starts++
	return true
}
