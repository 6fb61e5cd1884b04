package engine_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ebb-run/ebb/internal/engine"
	"github.com/ebb-run/ebb/internal/sandbox/fake"
)

// learned is a Unit whose keep-alive follows from its calls.
func (l *lab) learned(name, revision string, p *fake.Program) *engine.Unit {
	u := l.unit(name, revision, p)
	u.Learned, u.KeepAlive = true, 5*time.Minute
	return u
}

// cycle calls f n times, each so long after the last.
func (l *lab) cycle(n int, f string, gap time.Duration) (cold int) {
	for range n {
		time.Sleep(gap)
		r := l.invoke(background, f)
		l.good(r)
		if l.report(r.id).Cold {
			cold++
		}
	}
	return cold
}

func TestLearned_StartsAheadAndKeepsNothingInBetween(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{MemoryMB: 1024}, func(t *testing.T, l *lab) {
		l.deploy(l.learned("f", "1", says("x", time.Millisecond)))
		if cold := l.cycle(11, "f", 30*time.Minute); cold != 11 {
			t.Errorf("%d of the first 11 were cold: 5 minutes of keep-alive cannot cover 30", cold)
		}
		if cold := l.cycle(10, "f", 30*time.Minute); cold != 0 {
			t.Errorf("%d cold starts of something that comes every 30 minutes", cold)
		}
		for _, c := range []struct {
			after time.Duration
			want  int64
		}{{5 * time.Second, 1}, {time.Minute, 0}, {26 * time.Minute, 0}, {27*time.Minute + 5*time.Second, 1}, {34 * time.Minute, 1}, {35 * time.Minute, 0}, {2 * time.Hour, 0}} {
			r := l.invoke(background, "f")
			l.good(r)
			l.cycle(200, "f", 30*time.Minute) // so that the odd one is one of many
			time.Sleep(c.after)
			synctest.Wait()
			if n := l.driver.Live.Load(); n != c.want {
				t.Errorf("%d instances %v after the last call, want %d", n, c.after, c.want)
			}
		}
	})
}

func TestLearned_ADeployForgetsNothing(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
		l.deploy(l.learned("f", "1", says("1", 0)))
		l.cycle(12, "f", 30*time.Minute)
		l.deploy(l.learned("f", "2", says("2", 0)))
		time.Sleep(20 * time.Minute)
		l.deploy(l.learned("f", "3", says("3", 0))) // in between, and no call
		if cold := l.cycle(1, "f", 10*time.Minute) + l.cycle(3, "f", 30*time.Minute); cold != 0 {
			t.Errorf("%d cold starts after a deploy", cold)
		}
		if s := l.e.Stats()[0].Totals; s.Ahead < 3 {
			t.Errorf("%+v", s)
		}
	})
}

func TestLearned_NeverTakesMemoryThatSomebodyWaitsFor(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{MemoryMB: 128}, func(t *testing.T, l *lab) {
		l.deploy(l.learned("f", "1", says("f", 0)), l.unit("long", "1", says("long", 2*time.Second)))
		l.cycle(12, "f", 30*time.Minute)
		before := l.e.Stats()[0].Totals.Ahead
		time.Sleep(27*time.Minute - 3*time.Second)
		for range 4 { // the node is full when the Instance is due
			r := l.invoke(background, "long")
			l.good(r)
		}
		synctest.Wait()
		if n := l.e.Stats()[0].Totals.Ahead; n != before {
			t.Errorf("%d instances were started ahead on a full node", n-before)
		}
		l.good(l.invoke(background, "f"))
		if p := l.driver.Peak.Load(); p > 1 {
			t.Errorf("%d instances in the memory of one", p)
		}
	})
}

func TestLearned_AheadGivesWayToWhoeverComes(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{MemoryMB: 128}, func(t *testing.T, l *lab) {
		l.deploy(l.learned("f", "1", says("f", 0)), l.unit("other", "1", says("other", 0)))
		l.cycle(12, "f", 30*time.Minute)
		time.Sleep(28 * time.Minute)
		if s := l.e.Stats()[0]; s.Idle != 1 {
			t.Fatalf("%+v: nothing was started ahead", s)
		}
		l.good(l.invoke(background, "other"))
	})
}

// The reaper never takes what runs or has just arrived: arrivals lie around the instants at which Instances are stopped
// and started ahead, under both policies.
func TestKeepAlive_ArrivalsAtTheReapInstantAllSucceed(t *testing.T) {
	t.Parallel()
	for seed := range uint64(*seeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			bubble(t, engine.Options{MemoryMB: 3 * 128, StopGrace: time.Millisecond}, func(t *testing.T, l *lab) {
				rnd := rand.New(rand.NewPCG(seed, 7))
				fixed := l.unit("0", "1", says("0", 300*time.Microsecond))
				fixed.KeepAlive = time.Second
				l.deploy(fixed, l.learned("1", "1", says("1", 300*time.Microsecond)), l.learned("2", "1", says("2", 90*time.Second)))
				l.driver.StopDelay = time.Duration(rnd.IntN(3)) * time.Millisecond
				var wg sync.WaitGroup
				for fn, at := range [][]time.Duration{
					{time.Second, 2 * time.Second},
					{linger, 108 * time.Second, 132 * time.Second, 198 * time.Second},
					{time.Second, 2 * time.Minute},
				} {
					gap := time.Duration(rnd.IntN(int(4 * time.Millisecond)))
					wg.Go(func() {
						own := rand.New(rand.NewPCG(seed, uint64(fn)))
						name := fmt.Sprint(fn)
						if fn == 2 {
							for range 4 { // longer than any window
								l.cause(l.invoke(background, name), "timeout")
							}
							return
						}
						l.cycle(12*fn, name, 2*time.Minute+time.Second)
						for range 150 {
							time.Sleep(at[own.IntN(len(at))] - 2*time.Millisecond + gap)
							var burst sync.WaitGroup
							for range 1 + own.IntN(3) {
								d := time.Duration(own.IntN(int(2 * time.Millisecond)))
								burst.Go(func() {
									time.Sleep(d)
									l.good(l.invoke(background, name))
								})
							}
							burst.Wait()
						}
					})
				}
				wg.Wait()
			})
		})
	}
}

const linger = 10 * time.Second
