package engine_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ebb-run/ebb/internal/engine"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/sandbox/fake"
)

func (l *lab) provisioned(n int, name, revision string, p *fake.Program) *engine.Unit {
	u := l.unit(name, revision, p)
	u.KeepAlive, u.Provisioned = time.Minute, engine.Always(n)
	return u
}

// ready fails unless the first Unit has n Instances and all of them are idle.
func (l *lab) ready(n int) {
	l.t.Helper()
	synctest.Wait()
	if s := l.e.Stats()[0]; s.Idle != n || s.Starting+s.Busy != 0 {
		l.t.Errorf("%+v; want %d idle", s, n)
	}
}

func TestProvisioned_AreThereBeforeTheFirstCallAndStay(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
		var told atomic.Int64
		u := l.provisioned(3, "f", "1", says("x", 100*time.Millisecond))
		code := u.Protocol
		u.Protocol = watched{code, func(g *guest.Unit) {
			if g.Provisioned {
				told.Add(1)
			}
		}}
		l.deploy(u)
		time.Sleep(time.Second)
		l.ready(3)
		for _, r := range l.burst(3, "f") {
			l.good(r)
			if l.report(r.id).Cold {
				t.Error("a cold start with provisioned instances")
			}
		}
		for _, r := range l.burst(5, "f") {
			l.good(r)
		}
		time.Sleep(time.Hour)
		l.ready(3)
		if n := told.Load(); n != 3 {
			t.Errorf("%d instances know that they are provisioned", n)
		}
		if s := l.e.Stats()[0]; s.Totals.Spilled == 0 || s.Provisioned != 3 || s.ProvisionedReady != 3 || s.ProvisionedInUse != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// watched sees the Units that are started.
type watched struct {
	guest.Protocol
	see func(*guest.Unit)
}

func (w watched) Code(u *guest.Unit, addr string) (sandbox.Code, error) {
	w.see(u)
	return w.Protocol.Code(u, addr)
}

func TestProvisioned_AreReplacedWhenTheyDie(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
		p := says("x", 0)
		p.Handle = func(g *fake.Guest, _ *invocation.Invocation) fake.Answer {
			g.Die(sandbox.Exit{Code: 1})
			return fake.Answer{Err: errors.New("eof")}
		}
		l.deploy(l.provisioned(2, "f", "1", p))
		time.Sleep(time.Second)
		l.cause(l.invoke(background, "f"), invocation.CauseExit)
		time.Sleep(time.Second)
		l.ready(2)
	})
}

// One that fails in Init, or dies as soon as it is past it, is tried again ever more rarely.
func TestProvisioned_ThatDoNotStayCostLittle(t *testing.T) {
	t.Parallel()
	for name, init := range map[string]func(*fake.Guest) error{
		"fails in init": func(*fake.Guest) error { return &guest.InitError{Type: "E", Message: "m"} },
		"dies after init": func(g *fake.Guest) error {
			time.AfterFunc(time.Millisecond, func() { g.Die(sandbox.Exit{Code: 1}) })
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
				var mended atomic.Bool
				p := &fake.Program{Init: func(g *fake.Guest) error {
					if mended.Load() {
						return nil
					}
					return init(g)
				}}
				l.deploy(l.provisioned(2, "f", "1", p))
				time.Sleep(time.Hour)
				if n := l.e.Stats()[0].Totals.Starts; n < 20 || n > 150 {
					t.Errorf("%d starts in an hour", n)
				}
				mended.Store(true)
				time.Sleep(2*time.Minute + 2*time.Second)
				l.ready(2)
			})
		})
	}
}

func TestProvisioned_AreNotTakenForTheMemoryOfOthers(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{MemoryMB: 4 * 128, QueueTimeout: time.Second}, func(t *testing.T, l *lab) {
		l.deploy(l.provisioned(2, "f", "1", says("x", 0)), l.unit("g", "1", says("g", 100*time.Millisecond)))
		time.Sleep(time.Second)
		for _, r := range l.burst(8, "g") {
			l.good(r)
		}
		for _, r := range l.burst(4, "f") { // takes the memory of g's
			l.good(r)
		}
		for _, r := range l.burst(8, "g") {
			l.good(r)
		}
		synctest.Wait()
		if s := l.e.Stats()[0]; s.Idle < 2 {
			t.Errorf("%+v: provisioned instances were evicted", s)
		}
	})
}

func TestProvisioned_TakeIdleMemoryOfOthers(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{MemoryMB: 4 * 128}, func(t *testing.T, l *lab) {
		f, g := says("x", 0), l.unit("g", "1", says("g", 100*time.Millisecond))
		l.deploy(l.unit("f", "1", f), g)
		l.burst(40, "g")
		l.deploy(l.provisioned(3, "f", "1", f), g)
		time.Sleep(2 * time.Second)
		l.ready(3)
		l.good(l.invoke(background, "g"))
	})
}

func TestProvisioned_ChangeWithADeployAndASchedule(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
		p := says("x", 0)
		l.deploy(l.provisioned(3, "f", "1", p))
		time.Sleep(time.Second)
		l.deploy(l.provisioned(1, "f", "1", p))
		time.Sleep(2 * time.Minute)
		l.ready(1)
		if n := l.driver.Prepared.Load(); n != 3 {
			t.Errorf("%d instances were started", n)
		}
		u := l.unit("f", "1", p)
		u.KeepAlive = time.Minute
		start := time.Now()
		u.Provisioned = func(now time.Time) (int, time.Time) { // two, from the first to the second hour
			switch d := now.Sub(start); {
			case d < time.Hour:
				return 0, start.Add(time.Hour)
			case d < 2*time.Hour:
				return 2, start.Add(2 * time.Hour)
			}
			return 0, time.Time{}
		}
		l.deploy(u)
		for _, n := range []int{0, 2, 0} {
			time.Sleep(30 * time.Minute)
			l.ready(n)
			time.Sleep(30 * time.Minute)
		}
		l.deploy(l.provisioned(2, "f", "1", p))
		time.Sleep(time.Second)
		l.deploy(l.unit("f", "1", p))
		time.Sleep(6 * time.Minute)
		l.ready(0)
	})
}

func TestProvisioned_ADrainWaitsForNone(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
		l.deploy(l.provisioned(3, "f", "1", says("x", 0)))
		time.Sleep(5 * time.Millisecond)
		if err := l.e.Drain(context.Background()); err != nil {
			t.Error(err)
		}
		if n := l.driver.Live.Load(); n != 0 {
			t.Errorf("%d instances after a drain", n)
		}
	})
}
