// Package engine runs Units: it places Invocations on Instances, starts and stops Instances within the Node's
// budgets, and ends what is over its deadline.
//
// Main types: [Engine], the [Unit]s it is given by [Engine.Stage], and the [Observer] that is told what happens.
//
// Guarantees:
//
//  1. Every Invoke has exactly one outcome: nil with a whole answer in the Sink (a result or a function error), or an error.
//  2. An Instance never runs more Invocations at once than its Session takes, and a Function never more than its
//     Reserved ceiling, all Revisions together, until what a deadline ended is really gone.
//  3. The memory of all Instances, from before their start until their Sandbox is stopped, is within the Node's budget.
//  4. An Instance is stopped for keep-alive, memory or a deploy only while it runs nothing; taking an idle Instance
//     and stopping it exclude each other.
//  5. Commit swaps a Stack at once; an Invocation that waited moves to the new Revision, one that runs ends on the old.
//  6. A Function's timeout counts from when the guest gets the Invocation. The answer does not wait for the kill; the
//     budget does.
//  7. All Output of an Invocation is given before its InvocationEnded, also when the guest crashed or was ended.
//  8. An Instance is frozen only while it runs nothing, and a Session gets an Invocation only when its Sandbox was thawed before.
//  9. A Unit without Instances costs no goroutine.
//
// An Instance is used again only when Session.Invoke returned nil, so a caller that went away does not cost the
// Instance when the guest came to an end regardless; in all other cases it is discarded. Where a Session takes several
// Invocations at once, those beside a discarded one end first, under their own deadlines.
//
// Locks, in the order in which they may be held together: Engine.mu, then pool.mu (never two), then node.mu or
// ceiling.mu or habit.mu. feed.mu is taken while none of them is held; under it the Observer is called. No I/O under a lock.
//
// It knows nothing of HTTP, events, storage or any provider's names.
package engine

import (
	"context"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

// Options configure an Engine. Zero values mean the defaults.
type Options struct {
	MemoryMB     int64         // the Node's budget for Instances; 0 means no bound
	Starts       int           // Instances starting at once, default twice the processors
	Queue        int           // waiting Invocations per Unit, default 1000
	QueueTimeout time.Duration // how long an Invocation waits for an Instance, default 10 s
	MaxInstances int           // per Unit, default 1000
	StopGrace    time.Duration // between asking a guest to end and killing it, default 500 ms
	FreezeAfter  time.Duration // how long an Instance is Idle before it is frozen, where its Driver can; default 1 s, negative means never
	// Saturated reports whether all processors have had work lately. It is asked at most once in four milliseconds, under a lock,
	// and must answer at once. nil where nobody knows.
	Saturated func() bool
	Sharer    Sharer // of Reserved ceilings among Nodes; nil where this one is alone
	Observer  Observer
	Log       *slog.Logger
}

// Engine holds the pools of all Stacks of one Node. Its methods may be called concurrently.
type Engine struct {
	o       Options
	node    *node
	epoch   time.Time
	machine machine

	routes atomic.Pointer[routes]  // immutable; swapped under mu
	pools  atomic.Pointer[[]*pool] // immutable; every pool that may hold an Instance, staged and retired ones too

	mu struct {
		sync.Mutex
		seq      uint64
		closed   bool
		stacks   map[string]*deployed
		ceilings map[routeKey]*ceiling
	}

	inflight atomic.Int64  // Invokes that were let in
	closing  atomic.Bool   // no new Invokes
	quiet    chan struct{} // one token when inflight fell to 0 while closing
	dead     chan struct{} // closed by Close
	die      sync.Once
	life     sync.WaitGroup
}

// New returns an Engine without Units.
func New(o Options) *Engine {
	if o.Starts <= 0 {
		o.Starts = 2 * runtime.GOMAXPROCS(0)
	}
	if o.Queue <= 0 {
		o.Queue = 1000
	}
	if o.QueueTimeout <= 0 {
		o.QueueTimeout = 10 * time.Second
	}
	if o.MaxInstances <= 0 {
		o.MaxInstances = 1000
	}
	if o.StopGrace <= 0 {
		o.StopGrace = 500 * time.Millisecond
	}
	if o.FreezeAfter == 0 {
		o.FreezeAfter = time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	e := &Engine{
		o: o, epoch: time.Now(),
		node:  &node{total: max(o.MemoryMB, 0), max: o.Starts},
		quiet: make(chan struct{}, 1),
		dead:  make(chan struct{}),
	}
	e.machine.ask = o.Saturated
	e.mu.stacks = map[string]*deployed{}
	e.mu.ceilings = map[routeKey]*ceiling{}
	e.routes.Store(&routes{})
	e.pools.Store(&[]*pool{})
	return e
}

// reapEvery bounds how late an Instance is reaped.
const reapEvery = time.Second

// Run stops Instances whose keep-alive has ended or that are too old, keeps those that are to be kept and freezes those that are Idle, until ctx ends.
func (e *Engine) Run(ctx context.Context) error {
	t := time.NewTimer(reapEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		next := reapEvery
		now := time.Now()
		for _, p := range *e.pools.Load() {
			p.tend(now)
			if left, some := p.age(now); some {
				next = min(next, left)
			}
			if left, some := p.reap(now); some {
				next = min(next, left)
			}
			if left, some := p.freeze(now); some {
				next = min(next, max(left, freezeEvery))
			}
		}
		t.Reset(max(next, time.Millisecond))
	}
}

// enter lets an Invoke in, unless the Engine is closing.
func (e *Engine) enter() bool {
	e.inflight.Add(1)
	if e.closing.Load() {
		e.leave()
		return false
	}
	return true
}

func (e *Engine) leave() {
	if e.inflight.Add(-1) == 0 && e.closing.Load() {
		select {
		case e.quiet <- struct{}{}:
		default:
		}
	}
}

// Drain takes no new Invocation, waits for those that arrived, and stops all Instances. When ctx ends first
// everything is ended at once and ctx's error returned.
func (e *Engine) Drain(ctx context.Context) error {
	e.closing.Store(true)
	for e.inflight.Load() > 0 {
		select {
		case <-e.quiet:
		case <-e.dead:
			e.life.Wait()
			return nil
		case <-ctx.Done():
			_ = e.Close()
			return errs.New(errs.Timeout, "drain: %w", context.Cause(ctx))
		}
	}
	e.shut(false)
	done := make(chan struct{})
	go func() { e.life.Wait(); close(done) }()
	select {
	case <-done:
		return e.Close()
	case <-ctx.Done():
		_ = e.Close()
		<-done
		return errs.New(errs.Timeout, "drain: %w", context.Cause(ctx))
	}
}

// Close ends all Instances at once, running or not. It returns when nothing is left of them; Invokes that were
// running return an errs.Unavailable error.
func (e *Engine) Close() error {
	e.closing.Store(true)
	e.die.Do(func() { close(e.dead) })
	e.shut(true)
	e.life.Wait()
	return nil
}

// shut retires every pool. After it no Instance starts any more.
func (e *Engine) shut(kill bool) {
	e.mu.Lock()
	e.mu.closed = true
	pools := *e.pools.Load()
	e.mu.Unlock()
	for _, p := range pools {
		if kill {
			p.kill()
		} else {
			p.retire()
		}
	}
}

// addPoolsLocked makes pools known to the reaper, to eviction and to Stats. The caller holds mu.
func (e *Engine) addPoolsLocked(pools []*pool) {
	next := slices.Concat(*e.pools.Load(), pools)
	e.pools.Store(&next)
}

// forget removes a retired pool that holds nothing any more.
func (e *Engine) forget(gone *pool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	old := *e.pools.Load()
	next := make([]*pool, 0, len(old))
	for _, p := range old {
		if p != gone {
			next = append(next, p)
		}
	}
	e.pools.Store(&next)
}
