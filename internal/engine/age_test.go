package engine_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ebb-run/ebb/internal/engine"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/sandbox/fake"
)

// ages notes when Instances began and what began on them.
type ages struct {
	mu    sync.Mutex
	born  map[string]time.Time
	worst time.Duration // of an Instance when it was given an Invocation
	used  map[string]int
}

func newAges() *ages { return &ages{born: map[string]time.Time{}, used: map[string]int{}} }

func (a *ages) env(instance string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.born[instance] = time.Now()
	return nil
}

func (a *ages) given(instance string, _ *invocation.Invocation) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.used[instance]++
	a.worst = max(a.worst, time.Since(a.born[instance]))
}

// Under constant load no call fails, none begins on an Instance beyond its age, and none is cut: one that runs when the age is reached ends in peace.
func TestAge_OtherInstancesTakeOverUnderLoad(t *testing.T) {
	t.Parallel()
	for name, provisioned := range map[string]int{"on demand": 0, "provisioned": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
				const age = time.Minute
				a := newAges()
				u := l.unit("f", "1", &fake.Program{Handle: answer(700 * time.Millisecond), Init: func(g *fake.Guest) error { g.Sleep(300 * time.Millisecond); return nil }})
				u.MaxAge, u.Env, u.Given, u.Provisioned = age, a.env, a.given, engine.Always(provisioned)
				u.Functions[0].Timeout = time.Minute
				l.deploy(u)
				time.Sleep(2 * time.Second)
				var wg sync.WaitGroup
				cold := 0
				var mu sync.Mutex
				end := time.Now().Add(10 * age)
				for k := range 3 {
					wg.Go(func() {
						time.Sleep(time.Duration(k) * 100 * time.Millisecond)
						for time.Now().Before(end) {
							r := l.invoke(background, "f")
							l.good(r)
							if l.report(r.id).Cold {
								mu.Lock()
								cold++
								mu.Unlock()
							}
							time.Sleep(50 * time.Millisecond)
						}
					})
				}
				wg.Wait()
				if a.worst > age {
					t.Errorf("a call began on an instance of %v", a.worst)
				}
				if len(a.used) < 3*9 || len(a.used) > 3*25 {
					t.Errorf("%d instances took part in ten ages", len(a.used))
				}
				if provisioned > 0 && cold > 0 {
					t.Errorf("%d cold starts with provisioned instances", cold)
				}
				time.Sleep(2 * time.Second)
				synctest.Wait()
				if s := l.e.Stats()[0]; provisioned > 0 && s.Idle < provisioned {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// One that runs for longer than the age is not cut, and one that idles is there no longer than that; without an age it stays.
func TestAge_EndsWhatIdlesAndNotWhatRuns(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
		u := l.unit("f", "1", &fake.Program{Handle: answer(3 * time.Minute)})
		u.MaxAge, u.KeepAlive, u.Functions[0].Timeout = time.Minute, time.Hour, time.Hour
		l.deploy(u)
		l.good(l.invoke(background, "f"))
		synctest.Wait()
		time.Sleep(time.Second)
		if s := l.e.Stats()[0]; s.Idle+s.Busy+s.Starting != 0 || l.driver.Live.Load() != 0 {
			t.Errorf("after a call that was longer than the age: %+v", s)
		}
		quick := l.unit("g", "1", &fake.Program{Handle: answer(0)})
		quick.MaxAge, quick.KeepAlive = time.Minute, time.Hour
		stays := l.unit("h", "1", &fake.Program{Handle: answer(0)})
		stays.KeepAlive = time.Hour
		l.deploy(u, quick, stays)
		l.good(l.invoke(background, "g"))
		l.good(l.invoke(background, "h"))
		time.Sleep(50 * time.Second)
		if n := l.driver.Live.Load(); n != 2 {
			t.Errorf("%d instances before the age", n)
		}
		time.Sleep(12 * time.Second)
		if n := l.driver.Live.Load(); n != 1 {
			t.Errorf("%d instances after it", n)
		}
		l.good(l.invoke(background, "g"))
	})
}
