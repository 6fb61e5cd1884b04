package fake_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/sandbox/fake"
)

func TestGuest_HoldsTheContractsItStandsFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var out bytes.Buffer
		d := &fake.Driver{PrepareDelay: time.Second, StopDelay: time.Second}
		p := fake.Protocol{Program: &fake.Program{Handle: func(g *fake.Guest, _ *invocation.Invocation) fake.Answer {
			g.Print("hello")
			g.Sleep(time.Hour)
			g.Print(" and bye")
			return fake.Answer{}
		}}}
		began := time.Now()
		sb, err := d.Prepare(ctx, sandbox.Spec{ID: "x", Output: &out})
		if err != nil || time.Since(began) != time.Second {
			t.Fatalf("Prepare: %v after %v", err, time.Since(began))
		}
		c, err := sb.Start(ctx, sandbox.Code{})
		if err != nil {
			t.Fatal(err)
		}
		s, err := p.Open(ctx, c, &guest.Unit{})
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Second, cancel)
		if err := s.Invoke(ctx, &invocation.Invocation{}, &invocation.Buffer{}); !errors.Is(err, context.Canceled) {
			t.Errorf("Invoke whose context ended: %v", err)
		}
		sb.Stop(0)
		sb.Stop(0)
		if e := sb.Exit(); !e.Stopped || out.String() != "hello and bye" || d.Live.Load() != 0 {
			t.Errorf("exit %+v, output %q, %d live", e, out.String(), d.Live.Load())
		}
		if err := s.Invoke(context.Background(), &invocation.Invocation{}, &invocation.Buffer{}); !errors.Is(err, guest.ErrUnseen) {
			t.Errorf("Invoke after the end: %v", err)
		}
	})
}
