package engine_test

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/engine"
)

// On a machine that has no processor left a burst starts few Instances, one after the other; on one that has, as many as help.
func TestBurst_StartsAreThriftyOnASaturatedMachine(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name        string
		full        bool
		least, most uint64
	}{{"saturated", true, 1, uint64(2*runtime.GOMAXPROCS(0)) + 2}, {"not saturated", false, 20, 200}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := engine.Options{Saturated: func() bool { return c.full }, QueueTimeout: time.Minute}
			bubble(t, o, func(t *testing.T, l *lab) {
				p := says("x", 50*time.Millisecond)
				p.InitDelay = 200 * time.Millisecond
				l.deploy(l.unit("f", "1", p))
				var done atomic.Int64
				for range 200 {
					go func() {
						l.good(l.invoke(context.Background(), "f"))
						done.Add(1)
					}()
				}
				time.Sleep(time.Second)
				if n := l.e.Stats()[0].Totals.Starts; n < c.least || n > c.most {
					t.Errorf("%d starts in the first second", n)
				}
				for done.Load() < 200 {
					time.Sleep(time.Second)
				}
			})
		})
	}
}
