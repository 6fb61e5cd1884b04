package server

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/bus/slots"
	"github.com/ebb-run/ebb/internal/nats"
)

// Nodes that share a mapping's maximum stay within it together, each gets its part, and a new deploy's maximum counts for what the old one runs.
func TestTurns_StayWithinTheMaximumOfAllNodes(t *testing.T) {
	t.Parallel()
	srv, err := natsserver.NewServer(&natsserver.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	go srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(time.Minute) {
		t.Fatal("not ready")
	}
	node := func(name string) *Server {
		conn, err := nats.Open(t.Context(), nats.Options{URL: srv.ClientURL()})
		if err != nil {
			t.Fatal(err)
		}
		all, err := slots.Open(t.Context(), conn.JetStream(), slots.Options{Node: name})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = all.Close(); _ = conn.Close() })
		return &Server{slots: all}
	}
	m := &mapping{Mapping: bus.Mapping{Name: "trigger/default/shop/dev/q/work", MaxConcurrency: 3}}
	var now, most atomic.Int64
	var wait sync.WaitGroup
	for _, s := range []*Server{node("a"), node("b")} {
		tn := s.turnsOf(m)
		if tn == nil || s.turnsOf(m) != tn {
			t.Fatal("no turns, or others than before")
		}
		for range 4 {
			wait.Go(func() {
				for range 25 {
					leave, err := tn.Take(t.Context())
					if err != nil {
						t.Error(err)
						return
					}
					if n := now.Add(1); n > most.Load() {
						most.Store(n)
					}
					time.Sleep(time.Millisecond) // a run takes its time
					now.Add(-1)
					leave()
				}
			})
		}
	}
	wait.Wait() // so both had their part
	if most.Load() > 3 {
		t.Errorf("%d ran at once", most.Load())
	}
	if (&Server{}).turnsOf(m) != nil {
		t.Error("a node that is alone asks others")
	}
	m.MaxConcurrency = 0
	if node("c").turnsOf(m) != nil {
		t.Error("what has no maximum has turns")
	}
}
