package engine

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/sandbox/fake"
)

// A freeze is decided on under the pool's lock and done later; the Instance may be granted in between.
func TestInstance_AFreezeThatComesAfterTheThawDoesNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		freeze, thaw time.Duration // when they are called
		frozen       int64
	}{"freeze alone": {0, -1, 1}, "thaw first": {time.Millisecond, 0, 0}, "freeze first": {0, time.Millisecond, 0}, "both at once": {0, 0, 0}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := &fake.Driver{Freezable: true, FreezeDelay: time.Second, ThawDelay: time.Second}
				sb, err := d.Prepare(context.Background(), sandbox.Spec{ID: "i"})
				if err != nil {
					t.Fatal(err)
				}
				defer sb.Stop(0)
				i := &instance{sandbox: sb, done: sb.Done(), ice: make(chan struct{}, 1)}
				i.iced.Store(true) // by nextToFreeze
				time.AfterFunc(c.freeze, i.freeze)
				if c.thaw >= 0 {
					time.AfterFunc(c.thaw, func() {
						if err := i.thaw(); err != nil {
							t.Error(err)
						}
						if n := d.Frozen.Load(); n != 0 {
							t.Errorf("%d frozen after the thaw", n)
						}
					})
				}
				time.Sleep(time.Minute)
				if n := d.Frozen.Load(); n != c.frozen {
					t.Errorf("%d frozen in the end, want %d", n, c.frozen)
				}
			})
		})
	}
}

// told is a Session whose guest wants to know of its end.
type told struct {
	guest.Session
	shutdown func()
}

func (t told) Shutdown(context.Context, guest.Reason) { t.shutdown() }

func TestInstance_AFrozenGuestIsThawedToHearOfItsEnd(t *testing.T) {
	t.Parallel()
	d := &fake.Driver{Freezable: true}
	sb, err := d.Prepare(context.Background(), sandbox.Spec{ID: "i"})
	if err != nil {
		t.Fatal(err)
	}
	defer sb.Stop(0)
	heard := false
	i := &instance{pool: &pool{e: &Engine{}}, sandbox: sb, done: sb.Done(), ice: make(chan struct{}, 1)}
	i.session = told{shutdown: func() {
		heard = true
		if n := d.Frozen.Load(); n != 0 {
			t.Errorf("%d frozen while it is told", n)
		}
	}}
	i.iced.Store(true)
	i.freeze()
	if d.Frozen.Load() != 1 {
		t.Fatal("not frozen")
	}
	i.sayWhy()
	if !heard {
		t.Error("it was not told")
	}
}
