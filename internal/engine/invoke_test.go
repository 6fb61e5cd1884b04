package engine_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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

var background = context.Background()

func TestInvoke_AnswersColdThenWarm(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
		l.deploy(l.unit("f", "1", &fake.Program{InitDelay: 50 * time.Millisecond, Handle: answer(time.Millisecond)}))
		first, second := l.invoke(background, "f"), l.invoke(background, "f")
		l.good(first)
		l.good(second)
		a, b := l.report(first.id), l.report(second.id)
		if !a.Cold || a.Init != 50*time.Millisecond || a.Queued != 0 || a.Duration != time.Millisecond {
			t.Errorf("first report %+v", a)
		}
		if b.Cold || b.Init != 0 || b.Instance != a.Instance {
			t.Errorf("second report %+v", b)
		}
		want := []engine.State{engine.Starting, engine.Idle, engine.Busy, engine.Idle, engine.Busy, engine.Idle}
		if got := l.states[a.Instance]; !slices.Equal(got, want) {
			t.Errorf("states %v, want %v", got, want)
		}
	})
}

func TestInvoke_UnknownFunctionIsNotFound(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
		l.deploy(l.unit("f", "1", &fake.Program{}))
		if r := l.invoke(background, "g"); errs.CodeOf(r.err) != errs.NotFound {
			t.Errorf("err = %v", r.err)
		}
		l.e.Remove("app-dev")
		if r := l.invoke(background, "f"); errs.CodeOf(r.err) != errs.NotFound {
			t.Errorf("after Remove: %v", r.err)
		}
	})
}

func TestInvoke_TimeoutIsExactAndDoesNotWaitForTheKill(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{MemoryMB: 128}, func(t *testing.T, l *lab) {
		l.driver.StopDelay = time.Second
		var hang atomic.Bool
		hang.Store(true)
		p := &fake.Program{InitDelay: 2 * time.Second, Handle: func(g *fake.Guest, _ *invocation.Invocation) fake.Answer {
			g.Print("begun\nunfinished")
			if hang.Load() {
				<-g.Done()
			}
			return fake.Answer{Body: "ok"}
		}}
		l.deploy(l.unit("f", "1", p))
		began := time.Now()
		r := l.invoke(background, "f")
		l.cause(r, invocation.CauseTimeout)
		if got := time.Since(began); got != 5*time.Second {
			t.Errorf("took %v, want Init's 2 s and the timeout's 3 s", got)
		}
		if rep := l.report(r.id); rep.Duration != 3*time.Second || rep.Error == nil || rep.Error.Cause != invocation.CauseTimeout {
			t.Errorf("report %+v", rep)
		}
		if got := l.output(r.id); !slices.Equal(got, []string{"begun", "unfinished"}) {
			t.Errorf("output %q", got)
		}
		hang.Store(false)
		r = l.invoke(background, "f")
		l.good(r)
		if got := time.Since(began); got != 8*time.Second {
			t.Errorf("the next answer came after %v, want it after the kill's 1 s and Init's 2 s", got)
		}
		if l.driver.Peak.Load() != 1 {
			t.Errorf("%d sandboxes lived at once in a budget for one", l.driver.Peak.Load())
		}
	})
}

func TestInvoke_TimeoutEndsASessionThatDoesNotListen(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
		p := &fake.Program{Deaf: true, Handle: func(g *fake.Guest, _ *invocation.Invocation) fake.Answer {
			<-g.Done()
			return fake.Answer{Err: fmt.Errorf("gone")}
		}}
		l.deploy(l.unit("f", "1", p))
		began := time.Now()
		l.cause(l.invoke(background, "f"), invocation.CauseTimeout)
		if got := time.Since(began); got > 3200*time.Millisecond {
			t.Errorf("took %v", got)
		}
	})
}

func TestInvoke_TellsHowTheGuestEnded(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		exit sandbox.Exit
		want invocation.Cause
	}{
		{"exit", sandbox.Exit{Code: 3}, invocation.CauseExit},
		{"signal", sandbox.Exit{Code: -1, Signal: "segmentation fault"}, invocation.CauseExit},
		{"memory", sandbox.Exit{Code: -1, OOM: true}, invocation.CauseMemory},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
				var crash atomic.Bool
				crash.Store(true)
				p := &fake.Program{Handle: func(g *fake.Guest, _ *invocation.Invocation) fake.Answer {
					g.Print("last words")
					g.UseMemory(77)
					if crash.Load() {
						g.Die(tc.exit)
						return fake.Answer{Err: fmt.Errorf("broken pipe")}
					}
					return fake.Answer{Body: "ok"}
				}}
				l.deploy(l.unit("f", "1", p))
				r := l.invoke(background, "f")
				l.cause(r, tc.want)
				if got := l.output(r.id); !slices.Equal(got, []string{"last words"}) {
					t.Errorf("output %q", got)
				}
				if got := l.report(r.id).MemoryPeak; got != 77 {
					t.Errorf("memory %d", got)
				}
				crash.Store(false)
				l.good(l.invoke(background, "f"))
			})
		})
	}
}

func TestInvoke_AnswerThatWasCutOffIsAnError(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
		p := &fake.Program{Handle: func(g *fake.Guest, _ *invocation.Invocation) fake.Answer {
			g.Die(sandbox.Exit{Code: 1})
			return fake.Answer{Body: "half", Err: fmt.Errorf("broken pipe"), Cut: true}
		}}
		l.deploy(l.unit("f", "1", p))
		if r := l.invoke(background, "f"); errs.CodeOf(r.err) != errs.Failed || !strings.Contains(r.err.Error(), "exit status 1") {
			t.Errorf("err = %v", r.err)
		}
	})
}

func TestInvoke_UnseenIsTriedOnAnotherInstance(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		fails int
		good  bool
	}{{"three times", 3, true}, {"not a fourth time", 4, false}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
				var left atomic.Int64
				left.Store(int64(tc.fails))
				p := &fake.Program{Handle: func(g *fake.Guest, _ *invocation.Invocation) fake.Answer {
					if left.Add(-1) >= 0 {
						return fake.Answer{Err: guest.ErrUnseen}
					}
					return fake.Answer{Body: "ok"}
				}}
				l.deploy(l.unit("f", "1", p))
				if r := l.invoke(background, "f"); tc.good {
					l.good(r)
				} else {
					l.cause(r, invocation.CauseExit)
				}
			})
		})
	}
}

func TestUnit_IsToldWhichInstanceGetsAnInvocation(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
		type given struct{ instance, id string }
		var mu sync.Mutex
		var told []given
		had := map[string]bool{}
		var left atomic.Int64
		left.Store(2)
		p := &fake.Program{Handle: func(g *fake.Guest, inv *invocation.Invocation) fake.Answer {
			mu.Lock()
			defer mu.Unlock()
			if last := told[len(told)-1]; last.id != inv.ID {
				t.Errorf("%s runs, told was %s", inv.ID, last.id)
			}
			if left.Add(-1) >= 0 {
				return fake.Answer{Err: guest.ErrUnseen}
			}
			return fake.Answer{Body: "ok"}
		}}
		u := l.unit("f", "1", p)
		u.Given = func(instance string, inv *invocation.Invocation) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, given{instance, inv.ID})
			had[instance] = true
		}
		u.Env = func(instance string) []string { return []string{"AT=" + instance} }
		var own []*guest.Unit
		u.Own = func(instance string, g *guest.Unit) {
			mu.Lock()
			defer mu.Unlock()
			g.Note += instance // would grow in what is shared
			own = append(own, g)
		}
		l.deploy(u)
		r := l.invoke(background, "f")
		l.good(r)
		if len(told) != 3 || len(had) != 3 || told[2] != (given{l.report(r.id).Instance, r.id}) {
			t.Errorf("%v", told)
		}
		for _, g := range own {
			if !had[g.Note] || !slices.Equal(g.Env[:1], []string{"AT=" + g.Note}) {
				t.Errorf("an Instance has the note %q and the variables %q", g.Note, g.Env)
			}
		}
		if len(own) != 3 {
			t.Errorf("%d were changed", len(own))
		}
	})
}

func TestInstance_ThatDiesIdleIsNeverHandedOut(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
		var last atomic.Pointer[fake.Guest]
		p := &fake.Program{Handle: func(g *fake.Guest, _ *invocation.Invocation) fake.Answer {
			last.Store(g)
			return fake.Answer{Body: "ok"}
		}}
		l.deploy(l.unit("f", "1", p))
		l.good(l.invoke(background, "f"))
		last.Load().Die(sandbox.Exit{Code: 1})
		l.good(l.invoke(background, "f")) // at once: the death may not have been noticed
		last.Load().Die(sandbox.Exit{Code: 1})
		synctest.Wait()
		if s := l.e.Stats()[0]; s.Idle != 0 || s.MemoryMB != 0 || l.driver.Live.Load() != 0 {
			t.Errorf("a dead instance is kept: %+v", s)
		}
		l.good(l.invoke(background, "f"))
		if s := l.e.Stats()[0]; s.Totals.Errors != 0 || s.Totals.ColdStarts != 3 {
			t.Errorf("%+v", s.Totals)
		}
	})
}

func TestInvoke_CallerThatLeavesFreesWhatItHeld(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{MaxInstances: 1}, func(t *testing.T, l *lab) {
		p := &fake.Program{Handle: answer(time.Second)}
		l.deploy(l.unit("f", "1", p))
		running, leave := context.WithCancel(background)
		queued, giveUp := context.WithCancel(background)
		results := make(chan *result, 2)
		go func() { results <- l.invoke(running, "f") }()
		synctest.Wait()
		go func() { results <- l.invoke(queued, "f") }()
		synctest.Wait()
		giveUp()
		if r := <-results; errs.CodeOf(r.err) != errs.Canceled {
			t.Errorf("queued: %v", r.err)
		}
		if q := l.e.Stats()[0].Queue; q != 0 {
			t.Errorf("%d still wait", q)
		}
		began := time.Now()
		leave()
		r := <-results
		if errs.CodeOf(r.err) != errs.Canceled || time.Since(began) > 0 {
			t.Errorf("running: %v after %v", r.err, time.Since(began))
		}
		if rep := l.report(r.id); rep.Duration != 0 || errs.CodeOf(rep.Err) != errs.Canceled {
			t.Errorf("report %+v", rep)
		}
		l.good(l.invoke(background, "f"))
		if p.Overlaps.Load() != 0 {
			t.Error("the guest of the caller that left was used again")
		}
	})
}

func TestInvoke_CallerThatLeavesDoesNotCostAGuestThatIsDone(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
		p := &fake.Program{Deaf: true, Handle: answer(50 * time.Millisecond)}
		l.deploy(l.unit("f", "1", p))
		ctx, cancel := context.WithTimeout(background, 20*time.Millisecond)
		defer cancel()
		l.good(l.invoke(ctx, "f"))
		l.good(l.invoke(background, "f"))
		if n := l.driver.Prepared.Load(); n != 1 {
			t.Errorf("%d instances", n)
		}
	})
}

func TestInit_FailureReachesThoseWhoWaitedForIt(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{Starts: 2}, func(t *testing.T, l *lab) {
		var broken atomic.Bool
		broken.Store(true)
		p := &fake.Program{InitDelay: 100 * time.Millisecond, Init: func(g *fake.Guest) error {
			g.Print("loading\n")
			if broken.Load() {
				return &guest.InitError{Type: "ImportError", Message: "no module x"}
			}
			return nil
		}}
		l.deploy(l.unit("f", "1", p))
		began := time.Now()
		for _, r := range l.burst(50, "f") {
			l.cause(r, invocation.CauseInit)
			if r.Head.Error != nil && r.Head.Error.Message != "no module x" {
				t.Errorf("message %q", r.Head.Error.Message)
			}
		}
		// Two starts begin with the first two calls; the third, after a pause, serves all who came after.
		if n := l.driver.Prepared.Load(); n > 3 || time.Since(began) > 300*time.Millisecond {
			t.Errorf("%d starts in %v for 50 calls", n, time.Since(began))
		}
		for range 20 {
			l.cause(l.invoke(background, "f"), invocation.CauseInit)
		}
		if took := time.Since(began); took < 20*time.Second {
			t.Errorf("20 failing starts within %v: no backoff", took)
		}
		broken.Store(false)
		began = time.Now()
		l.good(l.invoke(background, "f"))
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("the good call waited %v", took)
		}
	})
}

func TestInit_DeathIsNoticedAtOnce(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
		p := &fake.Program{InitDelay: time.Hour}
		l.deploy(l.unit("late", "1", p), l.unit("dies", "1", &fake.Program{Init: func(g *fake.Guest) error {
			g.Die(sandbox.Exit{Code: 9})
			return context.Canceled
		}}))
		began := time.Now()
		r := l.invoke(background, "dies")
		l.cause(r, invocation.CauseInit)
		if r.Body.String() != "exit status 9" || time.Since(began) > 0 {
			t.Errorf("%q after %v", r.Body.String(), time.Since(began))
		}
		l.cause(l.invoke(background, "late"), invocation.CauseInit)
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("Init was ended after %v, want 10 s", took)
		}
	})
}

func TestOutput_IsSplitIntoLinesOfTheRightInvocation(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
		long := strings.Repeat("x", 256<<10)
		p := &fake.Program{
			Init: func(g *fake.Guest) error { g.Print("init\npartial"); return nil },
			Handle: func(g *fake.Guest, inv *invocation.Invocation) fake.Answer {
				g.Print("a")
				g.Print("b\r\n\nc\n")
				g.Print("%sy\n%s\n", long, long)
				g.Print("end of %s", inv.ID)
				return fake.Answer{Body: "ok"}
			},
		}
		l.deploy(l.unit("f", "1", p))
		first, second := l.invoke(background, "f"), l.invoke(background, "f")
		for _, r := range []*result{first, second} {
			want := []string{"ab", "", "c", long, "y", long, "end of " + r.id}
			if got := l.output(r.id); !slices.Equal(got, want) {
				t.Errorf("%d lines, want %d", len(got), len(want))
			}
		}
		if got := l.output(""); !slices.Equal(got, []string{"init", "partial"}) {
			t.Errorf("outside: %q", got)
		}
	})
}

func TestInvoke_APayloadThatCannotBeReadKeepsTheInstance(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
		refuse := true
		l.deploy(l.unit("f", "1", &fake.Program{Handle: func(*fake.Guest, *invocation.Invocation) fake.Answer {
			if refuse {
				return fake.Answer{Err: fmt.Errorf("%w: %w", guest.ErrPayload, errs.New(errs.TooLarge, "too much"))}
			}
			return fake.Answer{}
		}}))
		first := l.invoke(background, "f")
		if errs.CodeOf(first.err) != errs.TooLarge {
			t.Errorf("err = %v", first.err)
		}
		refuse = false
		second := l.invoke(background, "f")
		l.good(second)
		if a, b := l.report(first.id), l.report(second.id); b.Cold || a.Instance != b.Instance {
			t.Errorf("the instance was not kept: %+v, %+v", a, b)
		}
	})
}

func TestInvoke_AnAnswerThatIsCutCostsNoInstance(t *testing.T) {
	t.Parallel()
	bubble(t, engine.Options{}, func(t *testing.T, l *lab) {
		var cut error
		l.deploy(l.unit("f", "1", &fake.Program{Handle: func(*fake.Guest, *invocation.Invocation) fake.Answer { return fake.Answer{Err: cut} }}))
		cut = &guest.CutError{Failure: &invocation.FunctionError{Cause: invocation.CauseHandler, Type: "RangeError"}, Err: errs.New(errs.Failed, "the handler failed")}
		first := l.invoke(background, "f")
		cut = &guest.CutError{Err: errs.New(errs.Canceled, "the reader has gone")}
		second := l.invoke(background, "f")
		cut = nil
		third := l.invoke(background, "f")
		l.good(third)
		if errs.CodeOf(first.err) != errs.Failed || errs.CodeOf(second.err) != errs.Canceled {
			t.Errorf("err = %v, %v", first.err, second.err)
		}
		a, b, c := l.report(first.id), l.report(second.id), l.report(third.id)
		if a.Error == nil || a.Error.Type != "RangeError" || b.Error != nil {
			t.Errorf("reported as %+v, %+v", a.Error, b.Error)
		}
		if a.Instance != b.Instance || b.Instance != c.Instance {
			t.Errorf("the instance was not kept: %+v, %+v, %+v", a, b, c)
		}
	})
}
