// Package fake is a scriptable Driver and guest Protocol in memory, for tests of what runs Sandboxes.
//
// Main types: [Driver], [Protocol] and the [Program] that stands for a guest's code.
//
// Guarantees:
//
//  1. It sleeps by package time only and leaves no goroutine behind a stopped Sandbox, so that it works in testing/synctest.
//  2. Driver counts what was prepared, what lives and what was stopped; a Sandbox that is never stopped shows in Live.
//  3. An Invocation of a frozen Guest, and one that is running when its Guest is frozen, is counted in Caught.
//  4. A Program that takes more Invocations at once than its Concurrency is counted in Overlaps.
//
// It isolates nothing and speaks no provider's protocol.
package fake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/sandbox"
)

// Driver is a sandbox.Driver. The zero value works.
type Driver struct {
	PrepareDelay time.Duration
	StopDelay    time.Duration // how long a Stop takes
	PrepareErr   func() error  // nil means none
	Most         int           // Traits.Concurrency
	Freezable    bool          // Traits.Freezable
	FreezeDelay  time.Duration // how long a Freeze takes
	ThawDelay    time.Duration
	FreezeErr    func() error // nil means none
	ThawErr      func() error // nil means none; the Guest stays frozen

	Prepared atomic.Int64
	Live     atomic.Int64 // prepared and not stopped
	Peak     atomic.Int64 // the most Live has been
	Frozen   atomic.Int64 // Guests that are frozen
	Freezes  atomic.Int64 // how often one became so
	Caught   atomic.Int64 // Invocations that found their Guest frozen, or that were running when it became so
}

// Name is "fake".
func (d *Driver) Name() string { return "fake" }

// Traits gives Most and Freezable.
func (d *Driver) Traits() sandbox.Traits {
	return sandbox.Traits{Concurrency: d.Most, Freezable: d.Freezable}
}

// Sweep finds nothing.
func (d *Driver) Sweep(context.Context) (int, error) { return 0, nil }

// Close does nothing.
func (d *Driver) Close() error { return nil }

// Prepare makes a Sandbox after PrepareDelay.
func (d *Driver) Prepare(ctx context.Context, s sandbox.Spec) (sandbox.Sandbox, error) {
	if err := sleep(ctx, d.PrepareDelay); err != nil {
		return nil, err
	}
	if d.PrepareErr != nil {
		if err := d.PrepareErr(); err != nil {
			return nil, err
		}
	}
	d.Prepared.Add(1)
	live := d.Live.Add(1)
	for peak := d.Peak.Load(); live > peak && !d.Peak.CompareAndSwap(peak, live); peak = d.Peak.Load() {
	}
	return &Guest{Spec: s, driver: d, done: make(chan struct{}), stopped: make(chan struct{})}, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Guest is a Sandbox and what runs in it, as its Program sees it.
type Guest struct {
	Spec   sandbox.Spec
	driver *Driver

	once    sync.Once
	done    chan struct{}
	exit    sandbox.Exit
	stop    sync.Once
	stopped chan struct{}

	outMu   sync.Mutex
	pending []byte // written, and not given to Output yet
	timer   *time.Timer
	running atomic.Int64
	memory  atomic.Int64

	iceMu  sync.Mutex
	frozen bool
	barred bool // stopped; nothing freezes any more

	callMu sync.Mutex
	closed bool           // no more calls
	calls  sync.WaitGroup // Handles that run
}

// enter admits one more Handle, unless the guest is being stopped.
func (g *Guest) enter() bool {
	g.callMu.Lock()
	defer g.callMu.Unlock()
	if !g.closed {
		g.calls.Add(1)
	}
	return !g.closed
}

// outputDelay is how long what a guest writes takes to reach the Output by itself.
const outputDelay = time.Millisecond

// Print writes to the Spec's Output, which gets it after a moment, or with Flush.
func (g *Guest) Print(format string, args ...any) {
	g.outMu.Lock()
	defer g.outMu.Unlock()
	g.pending = fmt.Appendf(g.pending, format, args...)
	if g.timer == nil {
		g.timer = time.AfterFunc(outputDelay, g.Flush)
	} else {
		g.timer.Reset(outputDelay)
	}
}

// Die ends the guest. Only the first end counts.
func (g *Guest) Die(e sandbox.Exit) {
	g.once.Do(func() {
		g.exit = e
		close(g.done)
	})
}

// UseMemory sets the peak that Usage gives.
func (g *Guest) UseMemory(bytes int64) { g.memory.Store(bytes) }

// Sleep waits, and returns false when the guest ended before.
func (g *Guest) Sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-g.done:
		return false
	}
}

// Addr is empty.
func (g *Guest) Addr() string { return "" }

// Start gives the Conn.
func (g *Guest) Start(ctx context.Context, _ sandbox.Code) (sandbox.Conn, error) {
	return conn{g}, ctx.Err()
}

// Flush gives what was printed to the Output.
func (g *Guest) Flush() {
	g.outMu.Lock()
	defer g.outMu.Unlock()
	if len(g.pending) > 0 && g.Spec.Output != nil {
		_, _ = g.Spec.Output.Write(g.pending)
	}
	g.pending = nil
}

// Usage gives what UseMemory set.
func (g *Guest) Usage() sandbox.Usage { return sandbox.Usage{MemoryPeak: g.memory.Load()} }

// Freeze freezes it after the Driver's FreezeDelay.
func (g *Guest) Freeze() error {
	time.Sleep(g.driver.FreezeDelay)
	g.iceMu.Lock()
	defer g.iceMu.Unlock()
	if g.driver.FreezeErr != nil {
		if err := g.driver.FreezeErr(); err != nil {
			return err
		}
	}
	select {
	case <-g.done:
		return errs.New(errs.Conflict, "freeze sandbox %s: it does not run", g.Spec.ID)
	default:
	}
	if g.barred || g.frozen {
		return nil
	}
	g.frozen = true
	g.driver.Frozen.Add(1)
	g.driver.Freezes.Add(1)
	g.driver.Caught.Add(g.running.Load())
	return nil
}

// Thaw thaws it after the Driver's ThawDelay.
func (g *Guest) Thaw() error {
	time.Sleep(g.driver.ThawDelay)
	g.iceMu.Lock()
	defer g.iceMu.Unlock()
	if g.driver.ThawErr != nil {
		if err := g.driver.ThawErr(); err != nil {
			return err
		}
	}
	g.melt()
	return nil
}

// melt wants iceMu.
func (g *Guest) melt() {
	if g.frozen {
		g.frozen = false
		g.driver.Frozen.Add(-1)
	}
}

func (g *Guest) isFrozen() bool {
	g.iceMu.Lock()
	defer g.iceMu.Unlock()
	return g.frozen
}

// Done is closed by Die and Stop.
func (g *Guest) Done() <-chan struct{} { return g.done }

// Exit says how it ended.
func (g *Guest) Exit() sandbox.Exit { return g.exit }

// Stop ends it after the Driver's StopDelay.
func (g *Guest) Stop(time.Duration) {
	g.stop.Do(func() {
		if g.driver.StopDelay > 0 {
			time.Sleep(g.driver.StopDelay)
		}
		g.iceMu.Lock()
		g.melt()
		g.barred = true
		g.iceMu.Unlock()
		g.Die(sandbox.Exit{Code: -1, Signal: "killed", Stopped: true})
		g.callMu.Lock()
		g.closed = true
		g.callMu.Unlock()
		g.calls.Wait()
		g.Flush()
		g.driver.Live.Add(-1)
		close(g.stopped)
	})
	<-g.stopped
}

type conn struct{ g *Guest }

func (conn) Stream() net.Conn       { panic("a fake Conn has no stream") }
func (conn) Listener() net.Listener { panic("a fake Conn has no listener") }
func (conn) Dial(context.Context) (net.Conn, error) {
	return nil, errors.New("a fake Conn cannot be dialled")
}
func (conn) Close() error { return nil }

func (conn) Beside() <-chan sandbox.End { return nil }
func (conn) Proceed() error             { return nil }

// Program stands for a guest's code. The zero value starts at once and answers "ok".
type Program struct {
	InitDelay   time.Duration
	Concurrency int // Invocations at once; 0 means 1
	// Init runs after InitDelay; a *guest.InitError is what the guest reports. It may Die. nil means success.
	Init func(g *Guest) error
	// Handle gives the answer. It runs on a goroutine of its own, which the guest's end must let go: use Guest.Sleep and
	// Guest.Done. nil answers "ok" without a goroutine.
	Handle func(g *Guest, inv *invocation.Invocation) Answer
	// Deaf makes Invoke stay although its context ended, until the guest ends.
	Deaf bool

	Overlaps atomic.Int64 // Invocations that found too many others on their Guest
	Handled  atomic.Int64
}

// Answer is what a Handle comes to.
type Answer struct {
	Body  string
	Error *invocation.FunctionError
	Err   error // Session.Invoke's error, the answer is not given
	Cut   bool  // the head is given, then Err
}

// Protocol is a guest.Protocol that runs a Program.
type Protocol struct{ Program *Program }

// Name is "fake".
func (Protocol) Name() string { return "fake" }

// Transport is Stream.
func (Protocol) Transport(*guest.Unit) sandbox.Transport { return sandbox.Stream }

// Beside is 0.
func (Protocol) Beside(*guest.Unit) int { return 0 }

// Code is empty.
func (Protocol) Code(*guest.Unit, string) (sandbox.Code, error) { return sandbox.Code{}, nil }

// Open runs the Program's Init.
func (p Protocol) Open(ctx context.Context, c sandbox.Conn, _ *guest.Unit) (guest.Session, error) {
	g := c.(conn).g
	ended, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := sleep(ended, p.Program.InitDelay); err != nil {
		return nil, err
	}
	if p.Program.Init != nil {
		if err := p.Program.Init(g); err != nil {
			return nil, err
		}
	}
	select {
	case <-g.done:
		return nil, io.ErrUnexpectedEOF
	default:
		return &session{g: g, p: p.Program}, nil
	}
}

// Fault answers with the cause as Type.
func (Protocol) Fault(_ *invocation.Invocation, _ *guest.Unit, f guest.Fault, s invocation.Sink) error {
	e := &invocation.FunctionError{Cause: f.Cause, Type: "Fake." + string(f.Cause), Message: f.Exit.String()}
	if f.Init != nil {
		e.Type, e.Message = f.Init.Type, f.Init.Message
	}
	if f.Cause == invocation.CauseTimeout {
		e.Message = "after " + f.After.String()
	}
	return give(s, Answer{Body: e.Message, Error: e})
}

func give(s invocation.Sink, a Answer) error {
	if err := s.Start(invocation.Head{Error: a.Error, Length: int64(len(a.Body))}); err != nil {
		return err
	}
	_, err := s.Write([]byte(a.Body))
	return err
}

type session struct {
	g *Guest
	p *Program
}

func (s *session) Concurrency() int { return max(s.p.Concurrency, 1) }
func (s *session) Close() error     { return nil }

var ok = Answer{Body: "ok"}

func (s *session) Invoke(ctx context.Context, inv *invocation.Invocation, sink invocation.Sink) error {
	select {
	case <-s.g.done:
		return fmt.Errorf("write to the guest: %w", guest.ErrUnseen)
	default:
	}
	if s.g.isFrozen() {
		s.g.driver.Caught.Add(1)
	}
	s.p.Handled.Add(1)
	if s.g.running.Add(1) > int64(s.Concurrency()) {
		s.p.Overlaps.Add(1)
	}
	if s.p.Handle == nil {
		s.g.running.Add(-1)
		return s.answer(ok, sink)
	}
	got := make(chan Answer, 1)
	if !s.g.enter() {
		s.g.running.Add(-1)
		return fmt.Errorf("write to the guest: %w", guest.ErrUnseen)
	}
	go func() {
		defer s.g.calls.Done()
		a := s.p.Handle(s.g, inv)
		s.g.running.Add(-1)
		got <- a
	}()
	cancelled := ctx.Done()
	if s.p.Deaf {
		cancelled = nil
	}
	select {
	case a := <-got:
		return s.answer(a, sink)
	case <-cancelled:
		return context.Cause(ctx)
	case <-s.g.done:
		select {
		case a := <-got: // it answered, then ended
			return s.answer(a, sink)
		default:
			return io.ErrUnexpectedEOF
		}
	}
}

func (s *session) answer(a Answer, sink invocation.Sink) error {
	if a.Err != nil && !a.Cut {
		return a.Err
	}
	if err := give(sink, a); err != nil {
		return err
	}
	return a.Err
}
