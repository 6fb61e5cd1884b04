package engine_test

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/engine"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/sandbox/fake"
)

// crowd is a Function with many warm Instances, whose Invocations take what dur says, and a machine that is saturated or not.
type crowd struct {
	*lab
	dur       atomic.Int64
	now, most atomic.Int64 // Invocations at once
	saturated atomic.Bool
}

const warm = 16

// crowded gives f a crowd that has served short Invocations for a while.
func crowded(t *testing.T, f func(t *testing.T, c *crowd)) {
	t.Helper()
	c := &crowd{}
	bubble(t, engine.Options{Starts: 2 * warm, Saturated: c.saturated.Load}, func(t *testing.T, l *lab) {
		c.lab = l
		handle := func(g *fake.Guest, _ *invocation.Invocation) fake.Answer {
			n := c.now.Add(1)
			for most := c.most.Load(); n > most && !c.most.CompareAndSwap(most, n); most = c.most.Load() {
			}
			g.Sleep(time.Duration(c.dur.Load()))
			c.now.Add(-1)
			return fake.Answer{}
		}
		l.deploy(l.unit("f", "1", &fake.Program{InitDelay: 40 * time.Millisecond, Handle: handle}))
		c.dur.Store(int64(time.Second))
		l.burst(warm, "f")
		c.dur.Store(int64(time.Millisecond))
		for range 100 {
			l.invoke(background, "f") // what it takes as a rule is a millisecond
		}
		if n := l.driver.Prepared.Load(); n != warm {
			t.Fatalf("%d instances, want %d", n, warm)
		}
		c.most.Store(0)
		f(t, c)
	})
}

func TestCrowd_ASaturatedMachineRunsFewAtOnce(t *testing.T) {
	t.Parallel()
	crowded(t, func(t *testing.T, c *crowd) {
		c.saturated.Store(true)
		for _, r := range c.burst(100, "f") {
			c.good(r)
		}
		if got, want := c.most.Load(), int64(runtime.GOMAXPROCS(0)+1); got != min(want, warm) {
			t.Errorf("%d at once, want %d", got, want)
		}
		if n := c.driver.Prepared.Load(); n != warm {
			t.Errorf("%d instances, had %d", n, warm)
		}
	})
}

func TestCrowd_AnIdleMachineRunsAllAtOnce(t *testing.T) {
	t.Parallel()
	crowded(t, func(t *testing.T, c *crowd) {
		c.burst(warm, "f")
		if got := c.most.Load(); got != warm {
			t.Errorf("%d at once, want %d", got, warm)
		}
	})
}

func TestCrowd_WhatRunsForLongHoldsNobodyBack(t *testing.T) {
	t.Parallel()
	if runtime.GOMAXPROCS(0)+1 >= warm {
		t.Skipf("%d processors let all %d run at once", runtime.GOMAXPROCS(0), warm)
	}
	crowded(t, func(t *testing.T, c *crowd) {
		c.saturated.Store(true)
		c.dur.Store(int64(time.Second))
		began := time.Now()
		c.burst(warm, "f")
		if took := time.Since(began); took > time.Second+warm*5*time.Millisecond {
			t.Errorf("took %v", took)
		}
		if got := c.most.Load(); got != warm {
			t.Errorf("%d at once, want %d", got, warm)
		}
	})
}

func TestCrowd_HeldInvocationsGoOnWhenTheMachineIsFree(t *testing.T) {
	t.Parallel()
	crowded(t, func(t *testing.T, c *crowd) {
		c.saturated.Store(true)
		c.dur.Store(int64(3 * time.Millisecond))
		time.AfterFunc(time.Millisecond, func() { c.saturated.Store(false) })
		began := time.Now()
		c.burst(3*warm, "f")
		if took := time.Since(began); took > 24*time.Millisecond {
			t.Errorf("took %v", took)
		}
	})
}

func TestCrowd_AShortInvocationThatIsLateStillCounts(t *testing.T) {
	t.Parallel()
	crowded(t, func(t *testing.T, c *crowd) {
		c.saturated.Store(true)
		c.dur.Store(int64(10 * time.Millisecond))
		time.AfterFunc(time.Millisecond, func() { c.dur.Store(int64(time.Millisecond)) })
		c.burst(warm, "f")
		if got, want := c.most.Load(), int64(runtime.GOMAXPROCS(0)+1); got > want {
			t.Errorf("%d at once, want %d", got, want)
		}
	})
}

func TestStart_WaitingThatDoesNotEndStartsOneMore(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
		l.deploy(l.unit("f", "1", &fake.Program{InitDelay: 40 * time.Millisecond, Handle: answer(time.Millisecond)}))
		l.invoke(background, "f")
		var wg sync.WaitGroup
		for range 6 { // each with its next call after the last
			wg.Go(func() {
				for range 1000 {
					l.invoke(background, "f")
				}
			})
		}
		wg.Wait()
		if n := l.driver.Prepared.Load(); n != 6 {
			t.Errorf("%d instances for 6 callers", n)
		}
	})
}

func TestStart_ABurstAfterAPauseFindsNobodyStuck(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
		l.deploy(l.unit("f", "1", &fake.Program{InitDelay: 40 * time.Millisecond, Handle: answer(time.Millisecond)}))
		l.invoke(background, "f")
		time.Sleep(time.Second)
		l.burst(10, "f")
		if n := l.driver.Prepared.Load(); n != 1 {
			t.Errorf("%d instances", n)
		}
	})
}

func TestStart_ASaturatedMachineThatStandsStillStartsNothing(t *testing.T) {
	t.Parallel()
	n := runtime.GOMAXPROCS(0) + 1
	var saturated atomic.Bool
	bubble(t, engine.Options{Starts: n, Saturated: saturated.Load}, func(t *testing.T, l *lab) {
		var still atomic.Int64
		handle := func(g *fake.Guest, _ *invocation.Invocation) fake.Answer {
			g.Sleep(time.Millisecond + time.Duration(still.Load()))
			return fake.Answer{}
		}
		l.deploy(l.unit("f", "1", &fake.Program{InitDelay: 40 * time.Millisecond, Handle: handle}))
		l.burst(n, "f")
		for range 100 {
			l.invoke(background, "f")
		}
		saturated.Store(true)
		had := l.driver.Prepared.Load()
		if had != int64(n) {
			t.Fatalf("%d instances", had)
		}
		still.Store(int64(100 * time.Millisecond))
		time.AfterFunc(50*time.Millisecond, func() { still.Store(0) })
		l.burst(4*n, "f")
		if now := l.driver.Prepared.Load(); now != had {
			t.Errorf("%d instances, had %d", now, had)
		}
		still.Store(int64(2 * time.Second)) // that is no moment any more
		l.burst(4*n, "f")
		if now := l.driver.Prepared.Load(); now == had {
			t.Error("nothing was started although nothing came back")
		}
	})
}

// Invocations that all time out are long ones, although none of them ever came back.
func TestCrowd_InvocationsThatTimeOutAreLong(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{Starts: 2, Saturated: func() bool { return true }}, func(t *testing.T, l *lab) {
		u := l.unit("f", "1", &fake.Program{InitDelay: 40 * time.Millisecond, Handle: func(g *fake.Guest, _ *invocation.Invocation) fake.Answer {
			g.Sleep(time.Hour)
			return fake.Answer{}
		}})
		u.Functions[0].Timeout = time.Second
		l.deploy(u)
		l.invoke(background, "f")
		began := time.Now()
		for _, r := range l.burst(2*warm, "f") {
			l.cause(r, invocation.CauseTimeout)
		}
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("%d calls took %v", 2*warm, took)
		}
	})
}
