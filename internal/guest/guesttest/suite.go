package guesttest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
)

// Suite is a protocol with Units that behave in the ways the contract speaks of. A nil maker leaves its tests out.
type Suite struct {
	Protocol func(t testing.TB) guest.Protocol
	Echo     func(t testing.TB) *guest.Unit // answers a direct payload of JSON with itself
	Fail     func(t testing.TB) *guest.Unit // fails in the handler and goes on
	Exit     func(t testing.TB) *guest.Unit // exits with 3 in the handler
	Hang     func(t testing.TB) *guest.Unit // never answers
	BadInit  func(t testing.TB) *guest.Unit // reports a failed Init
}

// Run holds the protocol to the contract of package guest.
func Run(t *testing.T, s Suite) {
	for _, c := range []struct {
		name string
		unit func(t testing.TB) *guest.Unit
		test func(t *testing.T, p guest.Protocol, u *guest.Unit)
	}{
		{"answers one Invocation after another", s.Echo, testEcho},
		{"keeps sessions apart", s.Echo, testApart},
		{"leaves an ended context unsent or cut", s.Echo, testEndedContext},
		{"tells a function error and goes on", s.Fail, testFail},
		{"gives up a guest that exits", s.Exit, testExit},
		{"returns when the context ends", s.Hang, testHang},
		{"reports a failed Init", s.BadInit, testBadInit},
	} {
		if c.unit == nil {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test(t, s.Protocol(t), c.unit(t))
		})
	}
}

func open(t *testing.T, p guest.Protocol, u *guest.Unit) *Guest {
	t.Helper()
	g, err := Launch(t, p, u)
	if err != nil {
		t.Fatalf("%v; output:\n%s", err, g.Output())
	}
	if n := g.Concurrency(); n < 1 {
		t.Errorf("Concurrency() = %d", n)
	}
	return g
}

func echo(g *Guest, i int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	payload := fmt.Sprintf(`"n%d"`, i)
	b := &invocation.Buffer{}
	if err := g.Invoke(ctx, Direct(payload), b); err != nil {
		return err
	}
	if b.Head.Error != nil || b.Head.Status != 0 || b.Body.String() != payload {
		return fmt.Errorf("%+v %s, want %s", b.Head, b.Body.String(), payload)
	}
	return nil
}

func testEcho(t *testing.T, p guest.Protocol, u *guest.Unit) {
	g := open(t, p, u)
	for i := range 20 {
		if err := echo(g, i); err != nil {
			t.Fatalf("invocation %d: %v", i, err)
		}
	}
}

func testApart(t *testing.T, p guest.Protocol, u *guest.Unit) {
	a, b := open(t, p, u), open(t, p, u)
	var wg sync.WaitGroup
	for n, g := range []*Guest{a, b} {
		wg.Go(func() {
			for i := range 20 {
				if err := echo(g, n*1000+i); err != nil {
					t.Errorf("session %d, invocation %d: %v", n, i, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func testEndedContext(t *testing.T, p guest.Protocol, u *guest.Unit) {
	g := open(t, p, u)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	b := &invocation.Buffer{}
	start := time.Now()
	err := g.Invoke(ctx, Direct(`1`), b)
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Invoke: %v", err)
	}
	if err == nil && !b.Started {
		t.Error("neither an answer nor an error")
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("it took %v", d)
	}
}

func testFail(t *testing.T, p guest.Protocol, u *guest.Unit) {
	g := open(t, p, u)
	for range 2 {
		b, err := g.Call(t, `{}`)
		if err != nil {
			t.Fatal(err)
		}
		if e := b.Head.Error; e == nil || e.Cause != invocation.CauseHandler || e.Type == "" || b.Body.Len() == 0 {
			t.Errorf("Head.Error %+v, body %s", e, b.Body.String())
		}
	}
	if !g.Running() {
		t.Error("the guest has ended")
	}
}

func testExit(t *testing.T, p guest.Protocol, u *guest.Unit) {
	g := open(t, p, u)
	inv := Direct(`{}`)
	b, err := g.Do(t, inv)
	if err == nil || b.Started {
		t.Errorf("Invoke: %v, answer started: %v", err, b.Started)
	}
	exit := g.Exit(t)
	if exit.Code != 3 {
		t.Errorf("exit %v", exit)
	}
	if err := p.Fault(inv, u, guest.Fault{Cause: invocation.CauseExit, Exit: exit}, b); err != nil {
		t.Fatal(err)
	}
	if e := b.Head.Error; e == nil || e.Cause != invocation.CauseExit || e.Type == "" || e.Message == "" {
		t.Errorf("Fault gives Head.Error %+v", e)
	}
}

func testHang(t *testing.T, p guest.Protocol, u *guest.Unit) {
	g := open(t, p, u)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	b := &invocation.Buffer{}
	if err := g.Invoke(ctx, Direct(`{}`), b); !errors.Is(err, context.DeadlineExceeded) || b.Started {
		t.Errorf("Invoke: %v, answer started: %v", err, b.Started)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("it took %v", d)
	}
	if err := g.Invoke(context.Background(), Direct(`{}`), b); !errors.Is(err, guest.ErrUnseen) {
		t.Errorf("the next Invocation: %v, want ErrUnseen", err)
	}
}

func testBadInit(t *testing.T, p guest.Protocol, u *guest.Unit) {
	g, err := Launch(t, p, u)
	var e *guest.InitError
	if !errors.As(err, &e) || e.Type == "" || e.Message == "" {
		t.Fatalf("%v is no InitError; output:\n%s", err, g.Output())
	}
}
