package engine_test

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ebb-run/ebb/internal/engine"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/sandbox/fake"
)

// cold is a bubble whose driver can freeze; nothing may be caught by that at the end.
func cold(t *testing.T, o engine.Options, f func(t *testing.T, l *lab)) {
	t.Helper()
	bubble(t, o, func(t *testing.T, l *lab) {
		l.driver.Freezable = true
		f(t, l)
		if n := l.driver.Caught.Load(); n > 0 {
			t.Errorf("%d invocations met a frozen guest", n)
		}
	})
}

func TestFreeze_IdleInstancesAreFrozenAndThawedForWork(t *testing.T) {
	t.Parallel()
	cold(t, engine.Options{FreezeAfter: time.Second}, func(t *testing.T, l *lab) {
		l.deploy(l.unit("f", "1", &fake.Program{Handle: answer(10 * time.Millisecond)}))
		for range 3 {
			for _, r := range l.burst(4, "f") {
				l.good(r)
			}
			if n := l.driver.Frozen.Load(); n != 0 {
				t.Errorf("%d frozen right after work", n)
			}
			time.Sleep(900 * time.Millisecond)
			if n := l.driver.Frozen.Load(); n != 0 {
				t.Errorf("%d frozen before their time", n)
			}
			time.Sleep(300 * time.Millisecond)
			live, frozen := l.driver.Live.Load(), l.driver.Frozen.Load()
			if s := l.e.Stats()[0]; frozen != live || s.Frozen != s.Idle || int64(s.Idle) != live {
				t.Errorf("%d of %d frozen; stats %+v", frozen, live, s)
			}
			time.Sleep(5 * time.Second) // nothing more happens to them
		}
		prepared := l.driver.Prepared.Load()
		l.good(l.invoke(background, "f"))
		if n := l.driver.Live.Load() - l.driver.Frozen.Load(); n != 1 || l.driver.Prepared.Load() != prepared {
			t.Errorf("one invocation thawed %d, started %d", n, l.driver.Prepared.Load()-prepared)
		}
	})
}

func TestFreeze_NeverWhereItCannotOrShallNot(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		can   bool
		after time.Duration
	}{"cannot": {false, time.Second}, "shall not": {true, -1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, engine.Options{FreezeAfter: c.after}, func(t *testing.T, l *lab) {
				l.driver.Freezable = c.can
				l.deploy(l.unit("f", "1", &fake.Program{}))
				l.good(l.invoke(background, "f"))
				time.Sleep(time.Minute)
				if n := l.driver.Freezes.Load(); n != 0 {
					t.Errorf("%d freezes", n)
				}
			})
		})
	}
}

func TestFreeze_NeverWhileSomethingRuns(t *testing.T) {
	t.Parallel()
	cold(t, engine.Options{FreezeAfter: 100 * time.Millisecond}, func(t *testing.T, l *lab) {
		u := l.unit("f", "1", &fake.Program{Concurrency: 3, Handle: answer(5 * time.Second)})
		u.Functions[0].Timeout = time.Minute
		l.deploy(u)
		for range 3 {
			for _, r := range l.burst(2, "f") {
				l.good(r)
			}
		}
	})
}

func TestFreeze_TheDeadlineCountsFromTheThaw(t *testing.T) {
	t.Parallel()
	cold(t, engine.Options{}, func(t *testing.T, l *lab) {
		l.driver.ThawDelay = 10 * time.Second
		u := l.unit("f", "1", &fake.Program{Handle: answer(900 * time.Millisecond)})
		u.Functions[0].Timeout = time.Second
		l.deploy(u)
		l.good(l.invoke(background, "f"))
		time.Sleep(5 * time.Second)
		r := l.invoke(background, "f")
		l.good(r)
		if rep := l.report(r.id); rep.Duration != 900*time.Millisecond || rep.Queued != 10*time.Second || rep.Cold {
			t.Errorf("report %+v", rep)
		}
	})
}

func TestFreeze_WhatDoesNotThawIsReplaced(t *testing.T) {
	t.Parallel()
	cold(t, engine.Options{}, func(t *testing.T, l *lab) {
		l.driver.ThawErr = func() error { return errors.New("stuck") }
		l.deploy(l.unit("f", "1", &fake.Program{Handle: answer(10 * time.Millisecond)}))
		l.burst(3, "f")
		time.Sleep(5 * time.Second)
		before := l.driver.Prepared.Load()
		l.good(l.invoke(background, "f"))
		time.Sleep(100 * time.Millisecond)
		if live, fresh := l.driver.Live.Load(), l.driver.Prepared.Load()-before; live != 1 || fresh != 1 {
			t.Errorf("%d live, %d new; want the frozen ones gone and one in their place", live, fresh)
		}
	})
}

func TestFreeze_FailureLeavesTheInstanceInUse(t *testing.T) {
	t.Parallel()
	cold(t, engine.Options{}, func(t *testing.T, l *lab) {
		l.driver.FreezeErr = func() error { return errors.New("no") }
		l.deploy(l.unit("f", "1", &fake.Program{}))
		for range 3 {
			l.good(l.invoke(background, "f"))
			time.Sleep(5 * time.Second)
		}
		if n := l.driver.Prepared.Load(); n != 1 {
			t.Errorf("%d instances", n)
		}
	})
}

func TestFreeze_FrozenInstancesEndLikeOthers(t *testing.T) {
	t.Parallel()
	cold(t, engine.Options{MemoryMB: 3 * 128}, func(t *testing.T, l *lab) {
		a, b := l.unit("a", "1", &fake.Program{Handle: answer(time.Second)}), l.unit("b", "1", &fake.Program{Handle: answer(time.Second)})
		a.KeepAlive = time.Minute
		l.deploy(a, b)
		l.burst(3, "a")
		time.Sleep(5 * time.Second)
		if n := l.driver.Frozen.Load(); n != 3 {
			t.Errorf("%d frozen", n)
		}
		for _, r := range l.burst(2, "b") { // for which two have to go
			l.good(r)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if s := l.e.Stats(); s[0].Idle != 0 || l.driver.Live.Load() != int64(s[1].Idle) {
			t.Errorf("after the keep-alive: %+v", s)
		}
	})
}

func TestFreeze_ArrivalsAtTheInstantAreServed(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		most := 1 + rnd.IntN(3)
		freeze, thaw := time.Duration(rnd.IntN(3))*time.Millisecond, time.Duration(rnd.IntN(3))*time.Millisecond
		cold(t, engine.Options{FreezeAfter: 100 * time.Millisecond}, func(t *testing.T, l *lab) {
			l.driver.FreezeDelay, l.driver.ThawDelay = freeze, thaw
			p := &fake.Program{Concurrency: most, Handle: answer(time.Millisecond)}
			u := l.unit("f", "1", p)
			u.KeepAlive = 700 * time.Millisecond
			l.deploy(u)
			l.burst(1+rnd.IntN(4), "f")
			var all sync.WaitGroup
			for range 60 {
				// To the instant, a little before or a little after.
				time.Sleep(100*time.Millisecond*time.Duration(rnd.IntN(3)) + time.Duration(rnd.IntN(9)-4)*time.Millisecond/2)
				for range 1 + rnd.IntN(3) {
					all.Go(func() { l.good(l.invoke(background, "f")) })
				}
			}
			all.Wait()
			if n := p.Overlaps.Load(); n > 0 {
				t.Errorf("%d overlaps", n)
			}
			if l.driver.Freezes.Load() == 0 {
				t.Error("nothing was ever frozen")
			}
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func TestFreeze_ABurstWaitsForTheThawOrStartsMore(t *testing.T) {
	t.Parallel()
	cold(t, engine.Options{}, func(t *testing.T, l *lab) {
		l.driver.ThawDelay = time.Second
		p := &fake.Program{Handle: func(*fake.Guest, *invocation.Invocation) fake.Answer { return fake.Answer{Body: "ok"} }}
		l.deploy(l.unit("f", "1", p))
		l.good(l.invoke(background, "f"))
		time.Sleep(5 * time.Second)
		var all sync.WaitGroup
		for range 3 { // the first thaws, the others wait for it or start their own
			all.Go(func() { l.good(l.invoke(background, "f")) })
		}
		all.Wait()
	})
}
