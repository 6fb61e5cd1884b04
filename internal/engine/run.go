package engine

import (
	"context"
	"sync"
	"time"
)

// run is a call on an Instance, and the context that its Session gets. It is a context of its own, not one made of
// context's parts, because each part costs allocations on every Invocation.
type run struct {
	inst  *instance // guarded by pool.mu until it is granted
	since int64     // ns since Engine.epoch
	long  bool      // counted in pool.mu.long; guarded by pool.mu

	caller   context.Context
	deadline time.Time
	done     chan struct{}
	timer    *time.Timer
	unwatch  func() bool // of the caller

	mu struct {
		sync.Mutex
		began    bool
		finished bool
		err      error // of the context
		cause    cause
		killer   *time.Timer
		after    map[*func()]struct{}
	}
}

// cause is why a run's context ended.
type cause uint8

const (
	none     cause = iota
	deadline       // the Function's timeout
	left           // the caller's context ended
	gone           // the Instance ended
)

// lateGrace is how long a Session may take to return after its context ended, before its Sandbox is stopped under it.
const lateGrace = 100 * time.Millisecond

// begin starts the clock.
func (r *run) begin(caller context.Context, now time.Time, timeout time.Duration) {
	r.caller, r.deadline, r.done = caller, now.Add(timeout), make(chan struct{})
	r.mu.Lock()
	r.mu.began = true
	if r.mu.err != nil {
		close(r.done)
	}
	r.mu.Unlock()
	r.timer = time.AfterFunc(timeout, r.expire)
	if caller.Done() != nil {
		r.unwatch = context.AfterFunc(caller, r.leave)
	}
}

func (r *run) expire() { r.end(context.DeadlineExceeded, deadline) }
func (r *run) leave()  { r.end(r.caller.Err(), left) }

// gone ends the run because its Instance has ended.
func (r *run) gone() { r.end(context.Canceled, gone) }

// end ends the context. Only the first end counts.
func (r *run) end(err error, c cause) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.err != nil {
		return
	}
	r.mu.err, r.mu.cause = err, c
	if !r.mu.began {
		return
	}
	close(r.done)
	for f := range r.mu.after {
		go (*f)()
	}
	r.mu.after = nil
	if !r.mu.finished {
		r.mu.killer = time.AfterFunc(lateGrace, r.overdue)
	}
}

// overdue ends an Instance whose Session did not return. run.mu may be taken under pool.mu, not the other way round.
func (r *run) overdue() {
	p := r.inst.pool
	p.mu.Lock()
	r.mu.Lock()
	if !r.mu.finished {
		p.discardLocked(r.inst, 0)
	}
	r.mu.Unlock()
	p.unlock()
}

// finish is called when the Session has returned. It says why the context had ended before, and ends it.
func (r *run) finish() cause {
	r.timer.Stop()
	if r.unwatch != nil {
		r.unwatch()
	}
	r.mu.Lock()
	r.mu.finished = true
	c := r.mu.cause
	if r.mu.killer != nil {
		r.mu.killer.Stop()
	}
	r.mu.Unlock()
	r.end(context.Canceled, none)
	return c
}

// Deadline is that of the Function.
func (r *run) Deadline() (time.Time, bool) { return r.deadline, true }

// Done is closed when the run ends.
func (r *run) Done() <-chan struct{} { return r.done }

// Err says how it ended.
func (r *run) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.err
}

// Value gives the caller's.
func (r *run) Value(key any) any { return r.caller.Value(key) }

// AfterFunc lets package context derive contexts without a goroutine for each.
func (r *run) AfterFunc(f func()) func() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.err != nil {
		go f()
		return func() bool { return false }
	}
	if r.mu.after == nil {
		r.mu.after = map[*func()]struct{}{}
	}
	key := &f
	r.mu.after[key] = struct{}{}
	return func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		_, waits := r.mu.after[key]
		delete(r.mu.after, key)
		return waits
	}
}
