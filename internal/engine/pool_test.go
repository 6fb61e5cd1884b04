package engine_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ebb-run/ebb/internal/engine"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/sandbox/fake"
)

func TestBurst_TwoHundredFirstCallsShareFewInstances(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{Starts: 4}, func(t *testing.T, l *lab) {
		l.deploy(l.unit("f", "1", &fake.Program{InitDelay: 100 * time.Millisecond, Handle: answer(time.Millisecond)}))
		began := time.Now()
		for _, r := range l.burst(200, "f") {
			l.good(r)
		}
		// The four that start at once serve 196 in 49 ms, before a fifth could have started.
		if n := l.driver.Prepared.Load(); n > 4 {
			t.Errorf("%d instances", n)
		}
		if took := time.Since(began); took > 150*time.Millisecond {
			t.Errorf("took %v", took)
		}
	})
}

func TestBurst_ThousandOnAColdFunctionIsBounded(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name      string
		init, dur time.Duration
		instances int64         // at most
		within    time.Duration // all answered
	}{
		{"short calls", 100 * time.Millisecond, time.Millisecond, 12, 500 * time.Millisecond},
		{"as long as init", 100 * time.Millisecond, 100 * time.Millisecond, 100, 3 * time.Second},
		{"long calls", 50 * time.Millisecond, 2 * time.Second, 1000, 9 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, engine.Options{Starts: 4}, func(t *testing.T, l *lab) {
				l.deploy(l.unit("f", "1", &fake.Program{InitDelay: tc.init, Handle: answer(tc.dur)}))
				began := time.Now()
				for _, r := range l.burst(1000, "f") {
					l.good(r)
				}
				n, took := l.driver.Prepared.Load(), time.Since(began)
				t.Logf("%d instances, %v", n, took)
				if n > tc.instances || took > tc.within {
					t.Errorf("%d instances and %v, want at most %d and %v", n, took, tc.instances, tc.within)
				}
			})
		})
	}
}

func TestBurst_NeverStartsMoreThanWait(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{Starts: 100}, func(t *testing.T, l *lab) {
		l.deploy(l.unit("f", "1", &fake.Program{InitDelay: time.Second, Handle: answer(time.Minute)}))
		var wg sync.WaitGroup
		for k := range 10 {
			wg.Go(func() { l.invoke(background, "f") })
			synctest.Wait()
			if s := l.e.Stats()[0]; s.Starting != k+1 || s.Queue != k+1 {
				t.Errorf("%d starting for %d waiting", s.Starting, s.Queue)
			}
		}
		wg.Wait()
	})
}

func TestBurst_LongCallsDoNotHoldUpTheNext(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 20} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			besideLongCalls(t, n)
		})
	}
}

// besideLongCalls makes a call to a function of which n Instances are in calls far longer than all before.
func besideLongCalls(t *testing.T, n int) {
	bubble(t, engine.Options{Starts: 20}, func(t *testing.T, l *lab) {
		var long atomic.Bool
		l.deploy(l.unit("f", "1", &fake.Program{InitDelay: 50 * time.Millisecond,
			Handle: func(g *fake.Guest, _ *invocation.Invocation) fake.Answer {
				if long.Load() {
					g.Sleep(2 * time.Second)
				}
				g.Sleep(time.Millisecond)
				return fake.Answer{Body: "ok"}
			}}))
		for range 20 {
			l.good(l.invoke(background, "f"))
		}
		long.Store(true)
		for range n {
			go l.invoke(background, "f")
		}
		time.Sleep(300 * time.Millisecond)
		if busy := l.e.Stats()[0].Busy; busy != n {
			t.Errorf("%d busy, want %d", busy, n)
		}
		long.Store(false)
		began := time.Now()
		l.good(l.invoke(background, "f"))
		if took := time.Since(began); took > 200*time.Millisecond {
			t.Errorf("waited %v beside %d long calls", took, n)
		}
		time.Sleep(3 * time.Second)
	})
}

func TestOverload_KeepsGoodputAndThrottlesTheRest(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{MemoryMB: 4 * 128, Queue: 100, QueueTimeout: time.Second}, func(t *testing.T, l *lab) {
		l.deploy(l.unit("f", "1", &fake.Program{InitDelay: 50 * time.Millisecond, Handle: answer(10 * time.Millisecond)}))
		var good, refused atomic.Int64
		var wg sync.WaitGroup
		const rate, seconds = 2000, 4 // the budget is for 4 Instances: 400 a second
		for range rate * seconds {
			wg.Go(func() {
				r := l.invoke(background, "f")
				var advice interface{ RetryAfter() time.Duration }
				switch ok := errors.As(r.err, &advice); {
				case r.err == nil && r.Head.Error == nil:
					good.Add(1)
				case errs.CodeOf(r.err) == errs.Throttled && ok && advice.RetryAfter() >= time.Second:
					refused.Add(1)
				default:
					t.Errorf("%+v, %v", r.Head.Error, r.err)
				}
			})
			time.Sleep(time.Second / rate)
		}
		wg.Wait()
		if good.Load() < 400*seconds*8/10 {
			t.Errorf("%d good answers of a capacity of %d", good.Load(), 400*seconds)
		}
		if l.driver.Peak.Load() > 4 {
			t.Errorf("%d instances in a budget for 4", l.driver.Peak.Load())
		}
		t.Logf("%d good, %d refused, %d started", good.Load(), refused.Load(), l.driver.Prepared.Load())
	})
}

func TestQueue_RefusesWhenFullAndWhenLate(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{MaxInstances: 1, Queue: 1}, func(t *testing.T, l *lab) {
		u := l.unit("f", "1", &fake.Program{Handle: answer(time.Minute)})
		u.Functions[0].Timeout = time.Hour
		l.deploy(u)
		var wg sync.WaitGroup
		wg.Go(func() { l.good(l.invoke(background, "f")) })
		synctest.Wait()
		wg.Go(func() {
			began := time.Now()
			r := l.invoke(background, "f")
			if errs.CodeOf(r.err) != errs.Throttled || time.Since(began) != 10*time.Second {
				t.Errorf("queued: %v after %v", r.err, time.Since(began))
			}
		})
		synctest.Wait()
		began := time.Now()
		if r := l.invoke(background, "f"); errs.CodeOf(r.err) != errs.Throttled || time.Since(began) > 0 {
			t.Errorf("full: %v after %v", r.err, time.Since(began))
		}
		wg.Wait()
	})
}

func TestQueue_WaitsForAnInitLongerThanItsDeadline(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
		u := l.unit("f", "1", &fake.Program{InitDelay: 25 * time.Second, Handle: answer(time.Second)})
		u.InitTimeout = 30 * time.Second
		l.deploy(u)
		l.good(l.invoke(background, "f"))
	})
}

func TestKeepAlive_ReapsIdleAndNeverWhatIsTaken(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
		p := &fake.Program{Handle: answer(time.Minute)} // far longer than the keep-alive
		u := l.unit("f", "1", p)
		u.KeepAlive, u.Functions[0].Timeout = 10*time.Second, time.Hour
		l.deploy(u)
		l.good(l.invoke(background, "f"))
		time.Sleep(9 * time.Second)
		if s := l.e.Stats()[0]; s.Idle != 1 {
			t.Errorf("before its end: %+v", s)
		}
		time.Sleep(2 * time.Second)
		if s := l.e.Stats()[0]; s.Idle != 0 || s.MemoryMB != 0 {
			t.Errorf("after its end: %+v", s)
		}
		if l.driver.Live.Load() != 0 {
			t.Error("not scaled to zero")
		}
	})
}

func TestKeepAlive_ArrivalsAtTheReapInstantAreServed(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(seed, 1))
			bubble(t, engine.Options{StopGrace: time.Millisecond}, func(t *testing.T, l *lab) {
				u := l.unit("f", "1", &fake.Program{Handle: answer(time.Millisecond)})
				u.KeepAlive = time.Second
				l.deploy(u)
				var wg sync.WaitGroup
				for range 200 {
					for range 1 + rnd.IntN(3) {
						wg.Go(func() { l.good(l.invoke(background, "f")) })
					}
					time.Sleep(time.Second + time.Duration(rnd.IntN(3))*time.Millisecond)
				}
				wg.Wait()
			})
		})
	}
}

func TestReserved_IsACeilingOverRevisions(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
		var running, most atomic.Int64
		p := &fake.Program{Handle: func(g *fake.Guest, _ *invocation.Invocation) fake.Answer {
			if n := running.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer running.Add(-1)
			g.Sleep(100 * time.Millisecond)
			return fake.Answer{Body: "ok"}
		}}
		two := 2
		unit := func(rev string) *engine.Unit {
			u := l.unit("f", rev, p)
			u.Functions[0].Reserved = &two
			return u
		}
		l.deploy(unit("1"))
		var wg sync.WaitGroup
		for k := range 40 {
			wg.Go(func() { l.good(l.invoke(background, "f")) })
			if k%10 == 9 {
				time.Sleep(30 * time.Millisecond)
				l.deploy(unit(fmt.Sprint(k)))
			}
		}
		wg.Wait()
		if most.Load() != 2 {
			t.Errorf("%d at once with a ceiling of 2", most.Load())
		}
	})
}

// part is a Sharer that gives what its test says.
type part struct {
	give func(n int, until time.Time) (running int)
	mu   struct {
		sync.Mutex
		ceiling, running, waiting int
	}
}

func (p *part) Share(_, _ string, ceiling int, give func(int, time.Time) int) engine.Share {
	p.give = give
	p.Ceiling(ceiling)
	return p
}

func (p *part) Tell(running, waiting int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.running, p.mu.waiting = running, waiting
}

func (p *part) Ceiling(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.ceiling = n
}

func TestReserved_IsSharedWithOtherNodes(t *testing.T) {
	t.Parallel()
	others := &part{}
	bubble(t, engine.Options{Sharer: others, QueueTimeout: time.Minute}, func(t *testing.T, l *lab) {
		p := &fake.Program{Handle: func(g *fake.Guest, _ *invocation.Invocation) fake.Answer {
			g.Sleep(time.Second)
			return fake.Answer{Body: "ok"}
		}}
		u := l.unit("f", "1", p)
		five := 5
		u.Functions[0].Reserved = &five
		l.deploy(u)
		tells := func(when string, running, waiting int) {
			t.Helper()
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			others.mu.Lock()
			defer others.mu.Unlock()
			if others.mu.running != running || others.mu.waiting != waiting || others.mu.ceiling != 5 {
				t.Errorf("%s: %d run and %d wait under %d, want %d and %d", when, others.mu.running, others.mu.waiting, others.mu.ceiling, running, waiting)
			}
		}
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() { l.good(l.invoke(background, "f")) })
		}
		tells("before it has a part", 0, 6)
		if n := others.give(2, time.Now().Add(time.Hour)); n != 2 {
			t.Errorf("%d run", n)
		}
		tells("with a part of two", 2, 4)
		if n := others.give(1, time.Now().Add(time.Hour)); n != 2 {
			t.Errorf("%d run", n)
		}
		time.Sleep(time.Second)
		tells("after giving one back", 1, 3)
		others.give(9, time.Now().Add(500*time.Millisecond))
		tells("with more than the ceiling", 4, 0)
		wg.Wait()
		tells("when all is done", 0, 0)
		if r := l.invoke(background, "f"); errs.CodeOf(r.err) != errs.Throttled { // its part has ended
			t.Errorf("got %v", r.err)
		}
		tells("after waiting in vain", 0, 0)
		u = l.unit("f", "2", p)
		l.deploy(u)
		l.good(l.invoke(background, "f"))
	})
}

func TestReserved_ZeroNeverRunsAndHoldsUntilTheKillIsOver(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
		l.driver.StopDelay = time.Second
		zero, one := 0, 1
		off := l.unit("off", "1", &fake.Program{})
		off.Functions[0].Reserved = &zero
		u := l.unit("f", "1", &fake.Program{Handle: func(g *fake.Guest, _ *invocation.Invocation) fake.Answer {
			<-g.Done()
			return fake.Answer{}
		}})
		u.Functions[0].Reserved = &one
		l.deploy(off, u)
		if r := l.invoke(background, "off"); errs.CodeOf(r.err) != errs.Throttled {
			t.Errorf("reserved 0: %v", r.err)
		}
		began := time.Now()
		l.burst(2, "f")
		if took := time.Since(began); took != 7*time.Second {
			t.Errorf("two timeouts of 3 s took %v, want the first one's kill of 1 s between", took)
		}
		if l.driver.Peak.Load() != 1 {
			t.Errorf("%d lived at once", l.driver.Peak.Load())
		}
	})
}

func TestMemory_EvictsTheLeastRecentlyUsedIdleAndNeverABusyOne(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{MemoryMB: 3 * 128, QueueTimeout: time.Second}, func(t *testing.T, l *lab) {
		fast := &fake.Program{Handle: answer(time.Millisecond)}
		slow := &fake.Program{Handle: answer(2 * time.Second)}
		l.deploy(l.unit("a", "1", fast), l.unit("b", "1", fast), l.unit("slow", "1", slow), l.unit("c", "1", fast))
		l.good(l.invoke(background, "a"))
		l.good(l.invoke(background, "b"))
		l.good(l.invoke(background, "a"))
		done := make(chan struct{})
		go func() { l.good(l.invoke(background, "slow")); close(done) }()
		synctest.Wait()
		l.good(l.invoke(background, "c"))
		idle := map[string]int{}
		for _, s := range l.e.Stats() {
			idle[s.ID] = s.Idle + s.Busy
		}
		if idle["default/app/dev/a"] != 1 || idle["default/app/dev/b"] != 0 || idle["default/app/dev/slow"] != 1 || idle["default/app/dev/c"] != 1 {
			t.Errorf("%v", idle)
		}
		<-done
		big := l.unit("big", "1", fast)
		big.MemoryMB = 4 * 128
		s, err := l.e.Stage(background, "other", []*engine.Unit{big}, true)
		if err != nil {
			t.Fatal(err)
		}
		s.Commit()
		if r := l.invoke(background, "big"); errs.CodeOf(r.err) != errs.Unavailable {
			t.Errorf("larger than the node: %v", r.err)
		}
		if l.driver.Peak.Load() > 3 {
			t.Errorf("%d lived at once", l.driver.Peak.Load())
		}
	})
}

func TestMemory_ABusyUnitDoesNotStarveAnother(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{MemoryMB: 4 * 128}, func(t *testing.T, l *lab) {
		l.deploy(l.unit("hot", "1", &fake.Program{Handle: answer(10 * time.Millisecond)}),
			l.unit("cold", "1", &fake.Program{Handle: answer(10 * time.Millisecond)}))
		ctx, cancel := context.WithCancel(background)
		var wg sync.WaitGroup
		for range 40 { // always ten times what fits
			wg.Go(func() {
				for ctx.Err() == nil {
					l.good(l.invoke(background, "hot"))
				}
			})
		}
		time.Sleep(time.Second)
		began := time.Now()
		l.good(l.invoke(background, "cold"))
		if took := time.Since(began); took > time.Second {
			t.Errorf("the cold function waited %v", took)
		}
		cancel()
		wg.Wait()
	})
}

func TestConcurrency_OneInstanceTakesSeveral(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
		p := &fake.Program{Concurrency: 10, InitDelay: 100 * time.Millisecond}
		p.Handle = func(g *fake.Guest, inv *invocation.Invocation) fake.Answer {
			g.Print("%s\n", inv.ID)
			g.Sleep(50 * time.Millisecond)
			return fake.Answer{Body: "ok"}
		}
		u := l.unit("f", "1", p)
		l.deploy(u)
		one := l.invoke(background, "f")
		l.good(one)
		for _, r := range l.burst(10, "f") {
			l.good(r)
		}
		if n := l.driver.Prepared.Load(); n != 1 || p.Overlaps.Load() != 0 || l.most != 10 {
			t.Errorf("%d instances, %d overlaps, %d at once", n, p.Overlaps.Load(), l.most)
		}
		if got := l.output(one.id); len(got) != 1 {
			t.Errorf("output of the only one: %q", got)
		}
		// One whose caller leaves does not end those beside it, and the guest takes nothing more.
		ctx, leave := context.WithCancel(background)
		var wg sync.WaitGroup
		wg.Go(func() { l.invoke(ctx, "f") })
		wg.Go(func() { l.good(l.invoke(background, "f")) })
		synctest.Wait()
		leave()
		synctest.Wait()
		l.good(l.invoke(background, "f"))
		wg.Wait()
		if n := l.driver.Prepared.Load(); n != 2 {
			t.Errorf("%d instances", n)
		}
	})
}

func TestDrain_EndsWhatArrivedAndTakesNothingNew(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{MaxInstances: 2}, func(t *testing.T, l *lab) {
		l.deploy(l.unit("f", "1", &fake.Program{Handle: answer(time.Second)}))
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { l.good(l.invoke(background, "f")) })
		}
		synctest.Wait()
		wg.Go(func() {
			if err := l.e.Drain(background); err != nil {
				t.Errorf("Drain: %v", err)
			}
			if n := l.driver.Live.Load(); n != 0 {
				t.Errorf("%d live after Drain", n)
			}
		})
		synctest.Wait()
		if r := l.invoke(background, "f"); errs.CodeOf(r.err) != errs.Unavailable {
			t.Errorf("while draining: %v", r.err)
		}
		wg.Wait()
	})
}

func TestDrain_EndsAtItsDeadline(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{MaxInstances: 1}, func(t *testing.T, l *lab) {
		u := l.unit("f", "1", &fake.Program{Handle: answer(time.Hour)})
		u.Functions[0].Timeout = 2 * time.Hour
		l.deploy(u)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if r := l.invoke(background, "f"); errs.CodeOf(r.err) != errs.Unavailable {
					t.Errorf("%+v, %v", r.Head.Error, r.err)
				}
			})
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(background, time.Second)
		defer cancel()
		if err := l.e.Drain(ctx); errs.CodeOf(err) != errs.Timeout {
			t.Errorf("Drain: %v", err)
		}
		wg.Wait()
	})
}

func TestClose_IsIdempotentAndWorksDuringStarts(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
		l.deploy(l.unit("f", "1", &fake.Program{InitDelay: time.Minute}))
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if r := l.invoke(background, "f"); errs.CodeOf(r.err) != errs.Unavailable {
					t.Errorf("%+v, %v", r.Head.Error, r.err)
				}
			})
		}
		synctest.Wait()
		for range 2 {
			wg.Go(func() { _ = l.e.Close() })
		}
		wg.Wait()
	})
}

func TestInstance_CrashLoopEndsEachInvocationOnce(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
		l.deploy(l.unit("f", "1", &fake.Program{Handle: func(g *fake.Guest, _ *invocation.Invocation) fake.Answer {
			g.Sleep(time.Millisecond)
			g.Die(sandbox.Exit{Code: 1})
			<-g.Done()
			return fake.Answer{Err: context.Canceled}
		}}))
		for _, r := range l.burst(100, "f") {
			l.cause(r, invocation.CauseExit)
		}
	})
}
