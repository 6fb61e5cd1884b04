package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/sandbox"
)

const causeInit = invocation.CauseInit

// maxRetries is how often an Invocation that no guest has seen is tried again.
const maxRetries = 3

// call is one Invoke.
type call struct {
	e       *Engine
	inv     *invocation.Invocation
	sink    answer
	arrived time.Time
	by      time.Time // when it stops waiting
	route   *route
	run     *run
	first   run // the one of the first try, in the same allocation
	retries int
	on      *instance // whose Observer has InvocationStarted, but not InvocationEnded
	told    bool      // the Observer has InvocationStarted
}

// Invoke runs the Function and gives its answer to the Sink. It returns nil when the Sink has a whole answer, be it a
// function error (timeouts, crashes and failed Inits included), and an error when the answer is missing or was cut off.
// Codes: NotFound, Throttled (with a RetryAfter in its chain), Unavailable, Canceled or Timeout when ctx ended, Timeout or Failed when
// the guest was ended or ended after it began to answer. It sets inv.Deadline.
func (e *Engine) Invoke(ctx context.Context, inv *invocation.Invocation, s invocation.Sink) error {
	if !e.enter() {
		return closedErr()
	}
	defer e.leave()
	now := time.Now()
	c := &call{e: e, inv: inv, sink: answer{Sink: s}, arrived: now, by: now.Add(e.o.QueueTimeout)}
	if c.route = e.lookup(inv); c.route == nil {
		return unknown(inv)
	}
	c.run = &c.first
	limit := c.route.ceiling
	if err := limit.enter(ctx, e, inv.Function, c.by); err != nil {
		c.route.pool.totals.count(err)
		return err
	}
	for {
		g, err := c.place(ctx)
		if err == nil && g.fail != nil {
			err = c.initFault(g)
		} else if err == nil {
			if c.run.inst.thaw() != nil {
				// The guest has not seen the Invocation, and never will.
				c.run.inst.pool.give(c.run, discard, 0, nil)
				c.run = &run{}
				continue
			}
			var again, owed bool
			if again, owed, err = c.serve(ctx, g.cold, limit); again {
				continue
			} else if owed {
				return err
			}
		}
		limit.leave()
		c.abandoned(err)
		return err
	}
}

// abandoned tells the Observer the end of an Invocation that it was told the start of, but that no guest has seen in
// the end.
func (c *call) abandoned(err error) {
	if c.on == nil {
		return
	}
	c.on.feed.failed(c.inv, false, Report{
		InvocationID: c.inv.ID, Function: c.inv.Function, Instance: c.on.id, Mode: c.inv.Mode,
		Started: time.Now(), Queued: time.Since(c.arrived), Err: err,
	})
}

func unknown(inv *invocation.Invocation) error {
	return errs.New(errs.NotFound, "there is no function %s", inv.Function)
}

// place finds an Instance for the call, or the failure of the one it waited for.
func (c *call) place(ctx context.Context) (grant, error) {
	for {
		if c.route = c.e.lookup(c.inv); c.route == nil {
			return grant{}, unknown(c.inv)
		}
		p := c.route.pool
		p.mu.Lock()
		if p.mu.retired {
			p.mu.Unlock()
			select {
			case <-c.e.dead:
				return grant{}, closedErr()
			default:
				continue // the routes have changed since
			}
		}
		now := time.Now()
		p.arrivedLocked(now)
		if p.mu.waiters.len == 0 && !p.crowdedLocked(now) {
			if i := p.takeLocked(now); i != nil {
				cold := p.attachLocked(i, c.run, now)
				p.mu.Unlock()
				return grant{inst: i, cold: cold}, nil
			}
		}
		g, err := c.queue(ctx, p)
		if err != nil {
			p.totals.count(err)
		}
		if err != nil || !g.moved {
			return g, err
		}
	}
}

// queue waits for a grant. The caller holds p.mu, which it unlocks.
func (c *call) queue(ctx context.Context, p *pool) (grant, error) {
	if err := p.refuseLocked(); err != nil {
		p.mu.Unlock()
		return grant{}, err
	}
	w := &waiter{ready: make(chan grant, 1), run: c.run}
	p.mu.arrivals++
	w.seq = p.mu.arrivals
	now := time.Now()
	p.tallyLocked(now)
	if p.mu.waiters.len == 0 {
		p.mu.lastFree = now // until now nobody lacked anything
	}
	p.mu.waiters.push(w)
	p.pumpLocked(now)
	p.unlock()

	timer := time.NewTimer(time.Until(c.by))
	defer timer.Stop()
	for {
		select {
		case g := <-w.ready:
			return g, g.err
		case <-ctx.Done():
			if !p.abandon(w) {
				if g := <-w.ready; g.inst != nil {
					p.give(w.run, unused, 0, nil)
				}
			}
			return grant{}, ended(ctx)
		case <-timer.C:
			again, g, err := p.overdue(w)
			if again {
				timer.Reset(overdueCheck)
				continue
			}
			return g, err
		}
	}
}

// refuseLocked gives the error for an Invocation that cannot even wait.
func (p *pool) refuseLocked() error {
	n := p.e.node
	if n.total > 0 && p.mem > n.total {
		return errs.New(errs.Unavailable, "%s needs %d MB and this node has %d MB for functions", p.unit.ID, p.mem, n.total).
			WithHint("Give the function less memory or the server a larger memory budget.")
	}
	if p.mu.waiters.len >= p.e.o.Queue {
		return throttled(p.delayLocked(), "%d invocations of %s are waiting already", p.mu.waiters.len, p.unit.ID)
	}
	return nil
}

// delayLocked guesses how long the queue will take.
func (p *pool) delayLocked() time.Duration {
	return p.mu.durAvg * time.Duration(p.mu.waiters.len) / time.Duration(max(p.mu.capacity, 1))
}

// abandon takes a waiter out of the queue. It returns false when a grant has been sent.
func (p *pool) abandon(w *waiter) bool {
	p.mu.Lock()
	defer p.unlock()
	if !p.mu.waiters.remove(w) {
		return false
	}
	if p.mu.waiters.len == 0 {
		p.e.node.leave(p)
	}
	return true
}

// overdueCheck is how often a waiter that is over its time looks whether the start it waits for is over.
const overdueCheck = 250 * time.Millisecond

// overdue decides about a waiter over its time. One for whom an Instance is starting goes on waiting, as Init has its
// own timeout.
func (p *pool) overdue(w *waiter) (again bool, g grant, err error) {
	p.mu.Lock()
	defer p.unlock()
	if !w.queued {
		g = <-w.ready
		return false, g, g.err
	}
	ahead := p.mu.starting
	for h := p.mu.waiters.head; h != nil && ahead > 0; h = h.next {
		if ahead--; h == w {
			return true, g, nil
		}
	}
	after, fail := p.delayLocked(), p.mu.lastFault
	p.mu.waiters.remove(w)
	if p.mu.waiters.len == 0 {
		p.e.node.leave(p)
	}
	if fail != nil {
		return false, grant{fail: fail}, nil
	}
	return false, g, throttled(after, "no instance of %s was free for %v", p.unit.ID, p.e.o.QueueTimeout)
}

// initFault answers a call whose Instance failed to start.
func (c *call) initFault(g grant) error {
	f := g.fail
	p := f.inst.pool
	p.totals.invocations.Add(1)
	p.totals.errors.Add(1)
	if f.err != nil {
		return f.error()
	}
	now := time.Now()
	c.inv.Deadline = now.Add(c.route.function.timeout())
	r := Report{
		InvocationID: c.inv.ID, Function: c.inv.Function, Instance: f.inst.id, Mode: c.inv.Mode,
		Started: now, Sandbox: f.inst.boot, Init: f.fault.After, Queued: max(now.Sub(c.arrived)-f.inst.boot-f.fault.After, 0), Cold: true,
		Err: f.error(),
	}
	err := p.unit.Protocol.Fault(c.inv, f.inst.guest, f.fault, &c.sink)
	if r.Error = c.sink.failure; r.Error == nil {
		r.Error = &invocation.FunctionError{Cause: causeInit, Message: r.Err.Error()}
	}
	f.inst.feed.failed(c.inv, !c.told, r)
	c.told, c.on = true, nil
	return err
}

// serve runs the call on the Instance it was granted. again says that no guest has seen it; owed that the Instance gives
// back the place in the ceiling.
func (c *call) serve(parent context.Context, cold bool, limit *ceiling) (again, owed bool, err error) {
	i := c.run.inst
	p := i.pool
	timeout := c.route.function.timeout()
	began := time.Now()
	c.inv.Deadline = began.Add(timeout)
	i.feed.begin(c.inv, !c.told)
	c.told, c.on = true, i
	c.run.begin(parent, began, timeout)

	failed := i.session.Invoke(c.run, c.inv, &c.sink)

	r := Report{
		InvocationID: c.inv.ID, Function: c.inv.Function, Instance: i.id, Mode: c.inv.Mode,
		Started: began, Duration: time.Since(began), Queued: began.Sub(c.arrived), Cold: cold,
	}
	why := c.run.finish()
	if !c.sink.flows.IsZero() {
		r.FirstByte = c.sink.flows.Sub(began)
	}
	if cold {
		r.Sandbox, r.Init, r.Handler, r.Queued = i.boot, i.init, i.handler, max(r.Queued-i.boot-i.init, 0)
	}
	o := reuse
	var cut *guest.CutError
	switch {
	case failed == nil:
		err = c.sink.missing()
		r.Err = err
	case errors.Is(failed, guest.ErrPayload):
		// The caller's fault; the guest has not seen it and takes the next one.
		err = failed
		r.Err = failed
	case errors.As(failed, &cut):
		if err = failed; why == left {
			err = ended(parent)
		}
		r.Err, r.Error = err, cut.Failure
	default:
		o = discard
		if again, err = c.fault(parent, i, why, failed, &r); again {
			i.sandbox.Flush()
			i.feed.end(c.inv.ID, nil)
			p.give(c.run, discard, 0, nil)
			c.run = &run{}
			c.retries++
			return true, false, nil
		}
	}
	if r.Error == nil {
		r.Error = c.sink.failure
	}
	i.sandbox.Flush()
	r.MemoryPeak = i.memoryPeak(int64(began.Sub(c.e.epoch)), o == discard)
	p.totals.invoked(&r)
	i.feed.end(c.inv.ID, &r)
	c.on = nil
	return false, p.give(c.run, o, r.Duration, limit), err
}

// fault finds out why the Session failed and answers for it. again says that the call may be tried on another Instance.
func (c *call) fault(parent context.Context, i *instance, why cause, failed error, r *Report) (again bool, err error) {
	r.Err = failed
	timeout := c.route.function.timeout()
	fault := guest.Fault{After: r.Duration}
	reason := guest.Failure
	if why == deadline {
		reason = guest.Timeout
	}
	i.why.Store(&reason)
	switch {
	case why == deadline:
		r.Duration = timeout
		fault.Cause, fault.After = invocation.CauseTimeout, timeout
	case why == left:
		r.Err = ended(parent)
		return false, r.Err
	case i.pool.isKilled():
		r.Err = closedErr()
		return false, r.Err
	case c.sink.broken != nil && !i.gone():
		r.Err = c.sink.missing()
		return false, r.Err
	case errors.Is(failed, guest.ErrUnseen) && !c.sink.started && c.retries < maxRetries:
		return true, nil
	default:
		patience := exitWait
		if errors.As(failed, &fault.Init) {
			patience = partWait
		}
		wait(i.done, patience)
		fault.Cause = invocation.CauseExit
		if fault.Exit = (sandbox.Exit{Stopped: true}); i.gone() {
			fault.Exit = i.sandbox.Exit()
		}
		if fault.Exit.OOM {
			fault.Cause, fault.Init = invocation.CauseMemory, nil
		}
	}
	if c.sink.started {
		code := errs.Failed
		if fault.Cause == invocation.CauseTimeout {
			code = errs.Timeout
		}
		r.Error = &invocation.FunctionError{Cause: fault.Cause, Message: describe(fault)}
		r.Err = errs.New(code, "the answer was cut off: %s", describe(fault))
		return false, r.Err
	}
	if err := i.pool.unit.Protocol.Fault(c.inv, i.guest, fault, &c.sink); err != nil {
		r.Error = &invocation.FunctionError{Cause: fault.Cause, Message: describe(fault)}
		return false, fmt.Errorf("answer for the guest: %w", err)
	}
	return false, nil
}

func describe(f guest.Fault) string {
	if f.Cause == invocation.CauseTimeout {
		return fmt.Sprintf("timed out after %v", f.After)
	}
	if f.Init != nil {
		return f.Init.Error()
	}
	return "the guest ended: " + f.Exit.String()
}

// memoryEvery bounds how often a Sandbox is asked for its memory, which costs a system call or more.
const memoryEvery = 100 * time.Millisecond

// memoryPeak asks the Sandbox; at is now, in ns since Engine.epoch.
func (i *instance) memoryPeak(at int64, exact bool) int64 {
	if read := i.peakRead.Load(); !exact && read != 0 && at-read < int64(memoryEvery) {
		return i.peak.Load()
	}
	peak := i.sandbox.Usage().MemoryPeak
	i.peak.Store(peak)
	i.peakRead.Store(at)
	return peak
}

func (p *pool) isKilled() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.killed
}

// answer is the caller's Sink with what the engine has to know of it.
type answer struct {
	invocation.Sink
	started bool
	failure *invocation.FunctionError
	flows   time.Time // when a streamed answer began; zero where none has
	broken  error     // of the reader
}

// missing says what the caller lacks of an answer that the Session took as given.
func (a *answer) missing() error {
	switch {
	case a.broken != nil && errs.CodeOf(a.broken) != errs.Internal:
		return fmt.Errorf("give the answer to the caller: %w", a.broken)
	case a.broken != nil:
		return errs.New(errs.Canceled, "give the answer to the caller: %w", a.broken)
	case !a.started:
		return errs.New(errs.Internal, "the guest's protocol gave no answer")
	}
	return nil
}

// Start notes that the answer has begun.
func (a *answer) Start(h invocation.Head) error {
	a.started, a.failure = true, h.Error
	if h.Length < 0 {
		a.flows = time.Now()
	}
	err := a.Sink.Start(h)
	if err != nil {
		a.broken = err
	}
	return err
}

// Write notes when the reader is gone.
func (a *answer) Write(p []byte) (int, error) {
	n, err := a.Sink.Write(p)
	if err != nil {
		a.broken = err
	}
	return n, err
}

// Upgrade notes that the answer has begun.
func (a *answer) Upgrade(h invocation.Head) (net.Conn, error) {
	c, err := a.Sink.Upgrade(h)
	a.started = a.started || err == nil
	return c, err
}
