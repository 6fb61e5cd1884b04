package engine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/sandbox"
)

// instance is one running copy of a Unit. Its goroutine, run, owns its life: it starts the guest, waits until the guest
// ends or is to end, stops it and gives the budget back.
type instance struct {
	pool *pool
	id   string
	feed *feed
	seq  uint64        // the last arrival before its start began
	kept bool          // started to reach the pool's floor
	quit chan struct{} // closed when it is to end
	// still is closed when it is to end and runs nothing any more.
	still  chan struct{}
	ctx    context.Context // of its start
	cancel context.CancelFunc

	// Set by start, and read only by those who got the instance from the pool afterwards.
	guest   *guest.Unit
	sandbox sandbox.Sandbox
	done    <-chan struct{}
	conn    sandbox.Conn
	session guest.Session
	slots   int           // Invocations at once
	boot    time.Duration // until the guest ran
	init    time.Duration // of the guest, from then on
	handler time.Duration // of init

	// Guarded by pool.mu.
	runs      []*run
	owed      []*ceiling // places to give back once it is stopped
	idleSince time.Time
	ahead     bool      // started before it was asked for, and not used since
	used      bool      // has been given an Invocation
	fresh     bool      // past Init, and its first Invocation waited for that
	served    bool      // past Init, and takes Invocations
	last      bool      // ends when it runs nothing
	aging     bool      // its successor is to be started
	renew     time.Time // when its successor is to be started, if it is provisioned
	until     time.Time // when it takes nothing more; zero means never
	quitting  bool
	stopped   bool
	grace     time.Duration

	iced atomic.Bool   // frozen, or about to be; see freeze.go
	ice  chan struct{} // cap 1: held while the Sandbox is frozen or thawed

	why      atomic.Pointer[guest.Reason] // it ends; nil means Spindown
	peak     atomic.Int64                 // memory, bytes
	peakRead atomic.Int64                 // when, ns since Engine.epoch; 0 means never
}

// launchLocked starts one more Instance; the caller holds its share of the budget.
func (p *pool) launchLocked() *instance {
	var id [8]byte
	_, _ = rand.Read(id[:])
	i := &instance{
		pool: p, id: hex.EncodeToString(id[:]), seq: p.mu.arrivals,
		quit: make(chan struct{}), still: make(chan struct{}), ice: make(chan struct{}, 1), kept: p.mu.serving+p.mu.starting < p.mu.floor,
	}
	i.feed = &feed{obs: p.e.o.Observer, unit: p.unit, id: i.id}
	if i.feed.obs == nil {
		i.feed.obs = silent{}
	}
	i.ctx, i.cancel = context.WithCancel(context.Background())
	if p.mu.all == nil {
		p.mu.all = map[*instance]struct{}{}
	}
	p.mu.all[i] = struct{}{}
	p.mu.starting++
	p.mu.live++
	p.totals.starts.Add(1)
	p.e.life.Add(1)
	go i.run()
	return i
}

// gone reports whether the guest has ended. A guest may have ended before run noticed.
func (i *instance) gone() bool {
	select {
	case <-i.done:
		return true
	default:
		return false
	}
}

// patience is how long run waits for a Session to let go of an Invocation after its Sandbox was stopped.
const patience = time.Second

func (i *instance) run() {
	p := i.pool
	defer p.e.life.Done()
	defer i.cancel()
	i.feed.change(Starting)
	began := time.Now()
	if fail := i.start(); fail != nil {
		fail.inst, fail.took, fail.tail = i, time.Since(began), i.feed.tail()
		i.feed.change(Draining)
		p.startFailed(i, fail)
	} else {
		i.feed.tail()
		i.feed.change(Idle)
		p.startDone(i, began)
		select {
		case <-i.done:
			p.died(i)
		case <-i.quit:
		}
	}
	p.mu.Lock()
	grace := i.grace
	p.mu.Unlock()
	i.feed.change(Draining)
	i.sayWhy()
	if i.sandbox != nil {
		i.sandbox.Stop(grace)
		i.sandbox.Flush()
	}
	p.stopped(i)
	select {
	case <-i.still:
	case <-time.After(patience):
	}
	if i.session != nil {
		_ = i.session.Close()
	}
	if i.conn != nil {
		_ = i.conn.Close()
	}
	i.feed.change(Stopped)
}

// lastWords bounds the time that parts of a guest have for what they do at its end: AWS, "Lambda execution environment lifecycle",
// "Shutdown phase".
const lastWords = 2 * time.Second

// sayWhy tells a guest that wants to know why it ends, before it does.
func (i *instance) sayWhy() {
	s, ok := i.session.(guest.Shutter)
	if !ok || i.gone() || i.pool.isKilled() {
		return
	}
	why := guest.Spindown
	if r := i.why.Load(); r != nil {
		why = *r
	}
	if i.thaw() != nil { // who is frozen cannot hear
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lastWords)
	defer cancel()
	go func() {
		select {
		case <-i.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	s.Shutdown(ctx, why)
}

var (
	errInitTimeout = errors.New("init was not over in time")
	errGuestEnded  = errors.New("the guest ended")
)

// exitWait bounds the wait for a guest's end after its connection broke.
const exitWait = 500 * time.Millisecond

// partWait is the same where a part of the guest has ended: perhaps because all of it has.
const partWait = 50 * time.Millisecond

// start takes the Instance through Init.
func (i *instance) start() *startFailure {
	u := i.pool.unit
	decided := time.Now()
	g, err := i.pool.latest.Load().Guest(i.ctx)
	if err != nil {
		return &startFailure{err: fmt.Errorf("prepare its code: %w", err)}
	}
	own := *g // may be shared
	g = &own
	g.Instance, g.Provisioned = i.id, g.Provisioned || i.kept
	if u.Own != nil {
		u.Own(i.id, g)
	}
	if u.Env != nil {
		g.Env = append(u.Env(i.id), g.Env...)
	}
	i.guest = g
	sb, err := u.Driver.Prepare(i.ctx, sandbox.Spec{
		ID: i.id, Owner: u.ID, Transport: u.Protocol.Transport(g), Beside: u.Protocol.Beside(g), Limits: u.Limits, Output: i.feed,
	})
	if err != nil {
		return &startFailure{err: fmt.Errorf("prepare a sandbox: %w", err)}
	}
	i.sandbox, i.done = sb, sb.Done()
	code, err := u.Protocol.Code(g, sb.Addr())
	if err != nil {
		var init *guest.InitError
		if !errors.As(err, &init) {
			return &startFailure{err: err}
		}
		return &startFailure{fault: guest.Fault{Cause: causeInit, Init: init}}
	}
	code.Patient = i.kept
	within := u.initTimeout()
	ctx, cancel := context.WithTimeoutCause(i.ctx, within, errInitTimeout)
	defer cancel()
	if i.conn, err = sb.Start(ctx, code); err != nil {
		return &startFailure{err: err}
	}
	began := time.Now()
	i.boot = began.Sub(decided)
	session, err := i.open(ctx)
	if i.init = time.Since(began); err != nil {
		return i.initFailed(ctx, err)
	}
	i.sandbox.Flush() // what Init wrote belongs to no Invocation
	i.session = session
	if timed, ok := session.(guest.Timed); ok {
		i.handler = min(max(timed.HandlerInit(), 0), i.init) // a guest's word is no more than that
	}
	i.slots = max(session.Concurrency(), 1)
	if most := u.Driver.Traits().Concurrency; most > 0 {
		i.slots = min(i.slots, most)
	}
	return nil
}

// open is Protocol.Open, but ends as soon as the guest does.
func (i *instance) open(ctx context.Context) (guest.Session, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	opened, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-i.done:
			cancel(errGuestEnded)
		case <-opened:
		}
	}()
	s, err := i.pool.unit.Protocol.Open(ctx, i.conn, i.guest)
	close(opened)
	<-watched
	cancel(nil)
	return s, err
}

// initFailed finds out why Open failed.
func (i *instance) initFailed(ctx context.Context, err error) *startFailure {
	fault := guest.Fault{Cause: causeInit, After: i.init}
	reported := errors.As(err, &fault.Init)
	late := context.Cause(ctx) == errInitTimeout
	if i.ctx.Err() == nil && !late && !reported {
		wait(i.done, exitWait)
	}
	f := &startFailure{fault: fault}
	switch {
	case i.gone():
		f.fault.Exit, f.exited = i.sandbox.Exit(), true
	case reported:
	case late:
		f.fault.Exit = sandbox.Exit{Stopped: true}
	default:
		f.err = fmt.Errorf("open a session: %w", err)
	}
	i.sandbox.Flush()
	return f
}

// wait waits until c is closed, but not longer than d.
func wait(c <-chan struct{}, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-c:
	case <-t.C:
	}
}

// startDone makes an Instance that is past Init available.
func (p *pool) startDone(i *instance, began time.Time) {
	now := time.Now()
	took := now.Sub(began)
	p.e.node.started()
	p.mu.Lock()
	p.mu.starting--
	p.mu.waited, p.mu.tallied = 0, now
	if !i.quitting {
		p.mu.serving++
		p.mu.capacity += i.slots
		p.mu.proven, p.mu.failures, p.mu.lastFault = true, 0, nil
		p.mu.initAvg = average(p.mu.initAvg, took)
		p.mu.lastFree, p.mu.lastStart, p.mu.lastTook = now, now, took
		i.served, i.fresh = true, true
		i.bornLocked(began) // what it was given at its start may end too, as credentials do
		p.idleLocked(i, now)
		p.pumpLocked(now)
		i.fresh = false
		p.mu.room = p.mu.room || p.e.node.short.Load() > 0
	}
	p.unlock()
	p.e.wake()
}

// startFailed takes an Instance that did not start out of the pool. When nothing is left that could serve them, those
// who were waiting when its start began get the failure: each has then waited for one whole start.
func (p *pool) startFailed(i *instance, f *startFailure) {
	p.e.node.started()
	p.mu.Lock()
	p.mu.starting--
	if !i.quitting {
		p.mu.failures++
		p.mu.lastFailure, p.mu.lastFault = time.Now(), f
		p.totals.failedStarts.Add(1)
		p.discardLocked(i, 0)
		if p.mu.serving == 0 && p.mu.starting == 0 {
			for p.mu.waiters.len > 0 && p.mu.waiters.head.seq <= i.seq {
				p.mu.waiters.pop().ready <- grant{fail: f}
			}
		}
	}
	p.pumpLocked(time.Now())
	p.unlock()
	p.e.wake()
}

// died takes an Instance whose guest ended by itself out of the pool.
func (p *pool) died(i *instance) {
	p.mu.Lock()
	p.wornLocked(i, time.Now())
	p.discardLocked(i, 0)
	runs := append([]*run(nil), i.runs...)
	p.pumpLocked(time.Now())
	p.unlock()
	for _, r := range runs {
		r.gone()
	}
}

// stopped gives the budget back: nothing of the Instance is left.
func (p *pool) stopped(i *instance) {
	p.mu.Lock()
	i.stopped = true
	owed := i.owed
	i.owed = nil
	p.mu.live--
	if delete(p.mu.all, i); len(p.mu.all) == 0 {
		p.mu.all = nil
	}
	p.e.node.freed(p.mem)
	p.closeLocked()
	for _, c := range owed {
		c.leave()
	}
	p.e.wake() // those in line come first
	p.pump()   // for where MaxInstances held it back
}
