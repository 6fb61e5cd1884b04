package engine

import (
	"context"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
)

// run is a call on an Instance, and the context that its Session gets.
type run struct {
	invocation.Ending

	inst  *instance // guarded by pool.mu until it is granted
	since int64     // ns since Engine.epoch
	long  bool      // counted in pool.mu.long; guarded by pool.mu

	caller   context.Context
	deadline time.Time
	timer    *time.Timer
	unwatch  func() bool // of the caller

	mu struct {
		sync.Mutex
		began    bool
		finished bool
		ended    bool
		cause    cause
		killer   *time.Timer
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

// lateGrace is how long a Session may take to return after its context ended, before its Sandbox is stopped under it. Where the caller has
// left, guest.Farewell is added.
const lateGrace = 100 * time.Millisecond

// begin starts the clock.
func (r *run) begin(caller context.Context, now time.Time, timeout time.Duration) {
	r.caller, r.deadline = caller, now.Add(timeout)
	r.mu.Lock()
	r.mu.began = true
	r.mu.Unlock()
	r.timer = time.AfterFunc(timeout, r.expire)
	r.unwatch = invocation.AfterFunc(caller, r.leave)
}

func (r *run) expire() { r.conclude(context.DeadlineExceeded, deadline) }
func (r *run) leave()  { r.conclude(r.caller.Err(), left) }

// gone ends the run because its Instance has ended.
func (r *run) gone() { r.conclude(context.Canceled, gone) }

// conclude ends the context. Only the first end counts.
func (r *run) conclude(err error, c cause) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.ended {
		return
	}
	r.mu.ended, r.mu.cause = true, c
	r.End(err)
	if r.mu.began && !r.mu.finished {
		grace := lateGrace
		if c == left {
			grace += guest.Farewell
		}
		r.mu.killer = time.AfterFunc(grace, r.overdue)
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
	r.unwatch()
	r.mu.Lock()
	r.mu.finished = true
	c := r.mu.cause
	if r.mu.killer != nil {
		r.mu.killer.Stop()
	}
	r.mu.Unlock()
	r.conclude(context.Canceled, none)
	return c
}

// Deadline is that of the Function.
func (r *run) Deadline() (time.Time, bool) { return r.deadline, true }

// Value gives the caller's.
func (r *run) Value(key any) any { return r.caller.Value(key) }
