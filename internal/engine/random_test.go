package engine_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/engine"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/sandbox/fake"
)

var (
	seeds     = flag.Int("engine.seeds", 25, "how many interleavings TestEngine_RandomInterleavings tries")
	firstSeed = flag.Uint64("engine.seed", 1, "the first of them")
)

// chaos is one random interleaving of arrivals, deploys, departures and failures.
type chaos struct {
	*lab
	faults bool

	mu     sync.Mutex
	rnd    *rand.Rand
	guests []*fake.Guest

	running  [4]atomic.Int64 // of each function
	programs []*fake.Program
}

func (c *chaos) chance(percent int) bool { return c.n(100) < percent }

func (c *chaos) n(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rnd.IntN(n)
}

func (c *chaos) ms(most int) time.Duration { return time.Duration(c.n(most*1000)) * time.Microsecond }

func (c *chaos) fault(percent int) bool { return c.faults && c.chance(percent) }

// reserved is the ceiling of function 1.
const reserved = 2

// program gives a new Revision's behaviour.
func (c *chaos) program(fn int) *fake.Program {
	p := &fake.Program{InitDelay: c.ms(20), Deaf: c.fault(20)}
	if fn == 2 {
		p.Concurrency = 3
	}
	p.Init = func(g *fake.Guest) error {
		g.Print("init")
		c.mu.Lock()
		c.guests = append(c.guests, g)
		c.mu.Unlock()
		switch {
		case c.fault(5):
			return &guest.InitError{Type: "E", Message: "init"}
		case c.fault(3):
			g.Die(sandbox.Exit{Code: 1})
			return errors.New("eof")
		}
		return nil
	}
	p.Handle = func(g *fake.Guest, inv *invocation.Invocation) fake.Answer {
		if n := c.running[fn].Add(1); fn == 1 && n > reserved {
			c.t.Errorf("%d at once with a ceiling of %d", n, reserved)
		}
		defer c.running[fn].Add(-1)
		g.Print("%s\nrest", inv.ID)
		g.Sleep(c.ms(10))
		switch {
		case c.fault(3):
			g.Die(sandbox.Exit{Code: 1, OOM: c.chance(50)})
			return fake.Answer{Err: errors.New("eof")}
		case c.fault(3):
			<-g.Done() // until its timeout
			return fake.Answer{Err: errors.New("eof")}
		case c.fault(3):
			return fake.Answer{Err: guest.ErrUnseen}
		case c.fault(3):
			return fake.Answer{Err: errors.New("eof"), Cut: true, Body: "half"}
		case c.fault(3):
			return fake.Answer{Body: "sorry", Error: &invocation.FunctionError{Cause: invocation.CauseHandler}}
		}
		return fake.Answer{Body: inv.ID}
	}
	c.mu.Lock()
	c.programs = append(c.programs, p)
	c.mu.Unlock()
	return p
}

func (c *chaos) units(rev [4]int) []*engine.Unit {
	var out []*engine.Unit
	for fn := range rev {
		u := c.unit(fmt.Sprint(fn), fmt.Sprint(rev[fn]), c.program(fn))
		u.KeepAlive = time.Millisecond + c.ms(50)
		u.MemoryMB = 128 * (1 + fn/3)
		u.InitTimeout = time.Second
		u.Functions[0].Timeout = 100 * time.Millisecond
		if fn == 1 {
			limit := reserved
			u.Functions[0].Reserved = &limit
		}
		out = append(out, u)
	}
	return out
}

func (c *chaos) call() {
	fn := c.n(4)
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	if c.fault(10) {
		defer time.AfterFunc(c.ms(20), cancel).Stop()
	}
	r := c.invoke(ctx, fmt.Sprint(fn))
	if !c.faults {
		if r.err != nil || r.Body.String() != r.id {
			c.t.Errorf("%s of %d = %q, %+v, %v", r.id, fn, r.Body.String(), r.Head.Error, r.err)
		}
		return
	}
	switch code := errs.CodeOf(r.err); {
	case code == "" && r.Head.Error == nil && r.Body.String() != r.id,
		code == "" && !r.Started,
		code != "" && code != errs.Canceled && code != errs.Failed && code != errs.Timeout,
		code == errs.Canceled && ctx.Err() == nil:
		c.t.Errorf("%s of %d = %q, %+v, %v", r.id, fn, r.Body.String(), r.Head.Error, r.err)
	}
}

func (c *chaos) run(steps int) {
	var rev [4]int
	c.deploy(c.units(rev)...)
	var wg sync.WaitGroup
	for range steps {
		switch x := c.n(100); {
		case x < 90:
			for range 1 + c.n(3) {
				wg.Go(c.call)
			}
		case x < 93:
			rev[c.n(4)]++
			units := c.units(rev)
			wg.Go(func() {
				s, err := c.e.Stage(background, "app-dev", units, true)
				switch {
				case err == nil && c.n(5) > 0:
					s.Commit()
				case err == nil:
					s.Abort()
				case !c.faults || errs.CodeOf(err) != errs.Failed:
					c.t.Errorf("Stage: %v", err)
				}
			})
		case x < 96 && c.faults:
			c.mu.Lock()
			if len(c.guests) > 0 {
				c.guests[c.rnd.IntN(len(c.guests))].Die(sandbox.Exit{Code: 1})
			}
			c.mu.Unlock()
		default:
			time.Sleep(c.ms(60)) // long enough for keep-alives to end
		}
		if c.chance(70) {
			time.Sleep(c.ms(6))
		}
	}
	wg.Wait()
}

func TestEngine_RandomInterleavings(t *testing.T) {
	t.Parallel()
	for k := range *seeds {
		seed := *firstSeed + uint64(k)
		for _, faults := range []bool{false, true} {
			t.Run(fmt.Sprintf("seed=%d,faults=%v", seed, faults), func(t *testing.T) {
				t.Parallel()
				rnd := rand.New(rand.NewPCG(seed, 0))
				room := 3 + rnd.IntN(8)
				o := engine.Options{
					MemoryMB: int64(room) * 128, Starts: 1 + rnd.IntN(4), Queue: 10_000, QueueTimeout: time.Minute,
					StopGrace: time.Millisecond, FreezeAfter: time.Millisecond + time.Duration(rnd.IntN(40))*time.Millisecond,
				}
				bubble(t, o, func(t *testing.T, l *lab) {
					l.driver.StopDelay = time.Duration(rnd.IntN(3)) * time.Millisecond
					l.driver.Freezable = rnd.IntN(4) > 0
					l.driver.FreezeDelay, l.driver.ThawDelay = time.Duration(rnd.IntN(2))*time.Millisecond, time.Duration(rnd.IntN(2))*time.Millisecond
					c := &chaos{lab: l, faults: faults, rnd: rnd}
					l.driver.ThawErr = func() error {
						if c.fault(3) {
							return errors.New("stuck")
						}
						return nil
					}
					c.run(400)
					if n := l.driver.Caught.Load(); n > 0 {
						t.Errorf("%d invocations met a frozen guest", n)
					}
					for _, p := range c.programs {
						if n := p.Overlaps.Load(); n > 0 {
							t.Errorf("%d invocations found too many others on their guest", n)
						}
					}
					if peak := l.driver.Peak.Load(); peak > int64(room) {
						t.Errorf("%d sandboxes in a budget for %d", peak, room)
					}
					if c.n(2) == 0 {
						if err := l.e.Drain(background); err != nil {
							t.Errorf("Drain: %v", err)
						}
					}
				})
				if t.Failed() {
					t.Logf("again with: go test ./internal/engine -run RandomInterleavings -engine.seed=%d -engine.seeds=1", seed)
				}
			})
		}
	}
}
