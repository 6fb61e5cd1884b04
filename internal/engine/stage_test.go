package engine_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ebb-run/ebb/internal/engine"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/sandbox/fake"
)

func says(text string, d time.Duration) *fake.Program {
	return &fake.Program{InitDelay: 20 * time.Millisecond, Handle: func(g *fake.Guest, _ *invocation.Invocation) fake.Answer {
		g.Sleep(d)
		return fake.Answer{Body: text}
	}}
}

func TestDeploy_TenUnderLoadWithoutAnError(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{MemoryMB: 20 * 128}, func(t *testing.T, l *lab) {
		l.deploy(l.unit("f", "0", says("0", 3*time.Millisecond)))
		var wg sync.WaitGroup
		stop := make(chan struct{})
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
					wg.Go(func() { l.good(l.invoke(background, "f")) })
				}
			}
		})
		for k := range 10 {
			time.Sleep(100 * time.Millisecond)
			rev := fmt.Sprint(k + 1)
			l.deploy(l.unit("f", rev, says(rev, 3*time.Millisecond)))
			if r := l.invoke(background, "f"); r.Body.String() != rev {
				t.Errorf("after deploy %s: %q, %v", rev, r.Body.String(), r.err)
			}
		}
		close(stop)
		wg.Wait()
		time.Sleep(time.Second)
		if s := l.e.Stats(); len(s) != 1 || s[0].Revision != "10" || s[0].Totals.Invocations < 1000 {
			t.Errorf("%+v", s)
		}
	})
}

func TestDeploy_KeepsInstancesOfUnchangedUnits(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
		p := says("x", 0)
		l.deploy(l.unit("same", "1", p), l.unit("other", "1", p), l.unit("gone", "1", p))
		for _, name := range []string{"same", "other", "gone"} {
			l.good(l.invoke(background, name))
		}
		l.deploy(l.unit("same", "1", p), l.unit("other", "2", p))
		synctest.Wait()
		if n := l.driver.Prepared.Load(); n != 4 { // the probe of other
			t.Errorf("%d instances were started", n)
		}
		if n := l.driver.Live.Load(); n != 2 {
			t.Errorf("%d instances live", n)
		}
		if r := l.invoke(background, "gone"); errs.CodeOf(r.err) != errs.NotFound {
			t.Errorf("gone: %v", r.err)
		}
		l.good(l.invoke(background, "same"))
		l.good(l.invoke(background, "other"))
		if n := l.driver.Prepared.Load(); n != 4 {
			t.Errorf("%d instances were started in the end", n)
		}
	})
}

func TestDeploy_WaitersMoveToTheNewRevision(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{MaxInstances: 1}, func(t *testing.T, l *lab) {
		l.deploy(l.unit("f", "1", says("old", 2*time.Second)))
		var wg sync.WaitGroup
		wg.Go(func() {
			if r := l.invoke(background, "f"); r.Body.String() != "old" {
				t.Errorf("running: %q, %v", r.Body.String(), r.err)
			}
		})
		time.Sleep(time.Second)
		wg.Go(func() {
			if r := l.invoke(background, "f"); r.Body.String() != "new" {
				t.Errorf("waiting: %q, %v", r.Body.String(), r.err)
			}
		})
		synctest.Wait()
		l.deploy(l.unit("f", "2", says("new", 0)))
		wg.Wait()
	})
}

func TestStage_FailedProbeChangesNothing(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		p    *fake.Program
		want []string
	}{
		{"reported", &fake.Program{Init: func(g *fake.Guest) error {
			g.Print("reading config\n")
			return &guest.InitError{Type: "ImportError", Message: "no module x"}
		}}, []string{"default/app/dev/f does not start: ImportError: no module x", "\n  | reading config"}},
		{"exit", &fake.Program{Init: func(g *fake.Guest) error {
			g.Print("panic: boom")
			g.Die(sandbox.Exit{Code: 2})
			return errors.New("broken pipe")
		}}, []string{"the guest ended during init: exit status 2", "\n  | panic: boom"}},
		{"hangs", &fake.Program{InitDelay: time.Hour}, []string{"init was not over after 10s"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
				l.deploy(l.unit("f", "1", says("old", 0)), l.unit("g", "1", says("old", 0)))
				l.good(l.invoke(background, "f"))
				_, err := l.e.Stage(background, "app-dev", []*engine.Unit{l.unit("f", "2", tc.p), l.unit("g", "2", says("new", 0))}, true)
				var start *engine.StartError
				if errs.CodeOf(err) != errs.Failed || !errors.As(err, &start) {
					t.Fatalf("err = %v", err)
				}
				for _, want := range tc.want {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("error %q lacks %q", err, want)
					}
				}
				for _, name := range []string{"f", "g"} {
					if r := l.invoke(background, name); r.Body.String() != "old" {
						t.Errorf("%s = %q, %v", name, r.Body.String(), r.err)
					}
				}
				synctest.Wait()
				if s := l.e.Stats(); len(s) != 2 {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

func TestStage_AStacksFirstIsNotProbed(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
		l.deploy(l.unit("f", "1", &fake.Program{Init: func(*fake.Guest) error {
			return &guest.InitError{Type: "E", Message: "m"}
		}}))
		if n := l.driver.Prepared.Load(); n != 0 {
			t.Errorf("%d instances were started", n)
		}
		l.cause(l.invoke(background, "f"), invocation.CauseInit)
		l.deploy(l.unit("f", "2", says("mended", 0)))
		l.good(l.invoke(background, "f"))
	})
}

func TestStage_AFullNodeDoesNotFailADeploy(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{MemoryMB: 128}, func(t *testing.T, l *lab) {
		u := l.unit("f", "1", says("old", 30*time.Second))
		u.Functions[0].Timeout = time.Minute
		l.deploy(u)
		var wg sync.WaitGroup
		wg.Go(func() { l.good(l.invoke(background, "f")) })
		synctest.Wait()
		l.deploy(l.unit("f", "2", says("new", 0)))
		wg.Wait()
		if r := l.invoke(background, "f"); r.Body.String() != "new" {
			t.Errorf("%q, %v", r.Body.String(), r.err)
		}
	})
}

func TestStaged_AbortStopsWhatItStarted(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
		l.deploy(l.unit("f", "1", says("old", 0)))
		s, err := l.e.Stage(background, "app-dev", []*engine.Unit{l.unit("f", "2", says("new", 0))}, true)
		if err != nil {
			t.Fatal(err)
		}
		if n := l.driver.Live.Load(); n != 1 {
			t.Errorf("%d probed", n)
		}
		s.Abort()
		s.Commit()
		synctest.Wait()
		if n := l.driver.Live.Load(); n != 0 {
			t.Errorf("%d live after Abort", n)
		}
		if r := l.invoke(background, "f"); r.Body.String() != "old" {
			t.Errorf("%q, %v", r.Body.String(), r.err)
		}
	})
}

func TestStage_RefusesWhatCannotBeServed(t *testing.T) {
	t.Parallel()
	l := newLab(t, engine.Options{})
	defer l.close()
	bad := l.unit("x", "1", says("", 0))
	bad.Driver = nil
	twice := l.unit("y", "1", says("", 0))
	twice.Functions = append(slices.Clone(twice.Functions), twice.Functions...)
	f := l.unit("f", "1", says("", 0))
	for name, units := range map[string][]*engine.Unit{
		"no driver": {bad}, "a function twice": {twice}, "a unit twice": {f, f},
	} {
		if _, err := l.e.Stage(background, "s", units, false); errs.CodeOf(err) != errs.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestStage_WhatNeverStartedKeepsNobodyBack(t *testing.T) {
	t.Parallel()
	broken := func() *fake.Program {
		return &fake.Program{Init: func(*fake.Guest) error { return &guest.InitError{Type: "E", Message: "DB_URL missing"} }}
	}
	bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
		l.deploy(l.unit("f", "1", says("old", 0)), l.unit("bad", "1", broken()))
		s, err := l.e.Stage(background, "app-dev", []*engine.Unit{
			l.unit("f", "2", says("new", 0)), l.unit("bad", "2", broken()), l.unit("added", "2", broken()),
		}, true)
		if err != nil {
			t.Fatal(err)
		}
		if fails := s.Failures(); len(fails) != 2 || !strings.Contains(fails[0].Error(), "DB_URL missing") {
			t.Errorf("failures %v", fails)
		}
		s.Commit()
		if r := l.invoke(background, "f"); r.Body.String() != "new" {
			t.Errorf("f = %q, %v", r.Body.String(), r.err)
		}
		l.cause(l.invoke(background, "added"), invocation.CauseInit)
	})
	// What would start, though it has not been asked to yet, is not replaced by what does not.
	bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
		l.deploy(l.unit("f", "1", says("old", 0)))
		if _, err := l.e.Stage(background, "app-dev", []*engine.Unit{l.unit("f", "2", broken())}, true); errs.CodeOf(err) != errs.Failed {
			t.Errorf("err = %v", err)
		}
		if r := l.invoke(background, "f"); r.Body.String() != "old" {
			t.Errorf("f = %q, %v", r.Body.String(), r.err)
		}
	})
}
