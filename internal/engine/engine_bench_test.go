package engine_test

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"testing"

	"github.com/ebb-run/ebb/internal/engine"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/sandbox/fake"
)

// null is a Sink that costs nothing.
type null struct{}

func (null) Start(invocation.Head) error               { return nil }
func (null) Write(p []byte) (int, error)               { return len(p), nil }
func (null) Upgrade(invocation.Head) (net.Conn, error) { return nil, nil }

func benchUnits(n int, d *fake.Driver) []*engine.Unit {
	var units []*engine.Unit
	for k := range n {
		name := fmt.Sprintf("app-dev-function%d", k)
		units = append(units, &engine.Unit{
			ID: "default/app/dev/" + name, Revision: "1", Tenant: "default", MemoryMB: 128,
			Functions: []engine.Function{{Name: name}}, Driver: d, Protocol: fake.Protocol{Program: &fake.Program{}},
			Guest: func(context.Context) (*guest.Unit, error) { return &guest.Unit{}, nil },
		})
	}
	return units
}

// BenchmarkInvoke_Warm measures what the engine adds to a Session.
func BenchmarkInvoke_Warm(b *testing.B) {
	e := engine.New(engine.Options{MemoryMB: 8 << 10})
	s, err := e.Stage(context.Background(), "app-dev", benchUnits(1000, &fake.Driver{}), false)
	if err != nil {
		b.Fatal(err)
	}
	s.Commit()
	defer e.Close()
	ctx, cancel := context.WithCancel(context.Background()) // as an HTTP server's
	defer cancel()
	call := func(inv *invocation.Invocation) {
		if err := e.Invoke(ctx, inv, null{}); err != nil {
			b.Error(err)
		}
	}
	for _, name := range []string{"one", "parallel"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			if name == "one" {
				inv := &invocation.Invocation{ID: "1", Tenant: "default", Function: "app-dev-function7"}
				for b.Loop() {
					call(inv)
				}
				return
			}
			b.RunParallel(func(pb *testing.PB) {
				inv := &invocation.Invocation{ID: "1", Tenant: "default", Function: "app-dev-function7"}
				for pb.Next() {
					call(inv)
				}
			})
		})
	}
}

func TestEngine_IdleUnitsCostLittle(t *testing.T) {
	// Not parallel: it looks at the whole process.
	const n = 1000
	measure := func() (int, uint64) {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return runtime.NumGoroutine(), m.HeapAlloc
	}
	units := benchUnits(n, &fake.Driver{})
	e := engine.New(engine.Options{})
	goroutines, before := measure()
	s, err := e.Stage(context.Background(), "app-dev", units, true)
	if err != nil {
		t.Fatal(err)
	}
	s.Commit()
	g, after := measure()
	if g > goroutines {
		t.Errorf("%d goroutines more", g-goroutines)
	}
	if each := int64(after-before) / n; each > 4<<10 {
		t.Errorf("%d bytes for each Unit", each)
	} else {
		t.Logf("%d bytes for each Unit", each)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	runtime.KeepAlive(units)
}
