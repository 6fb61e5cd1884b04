package slots

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func TestDecide(t *testing.T) {
	t.Parallel()
	other := func(n int, short bool) record { return record{"b": {Slots: n, Short: short}} }
	for _, c := range []struct {
		name   string
		others record
		has    int
		use    use
		want   lease
		turn   bool
	}{
		{"alone it takes some more than it uses", nil, 0, use{ceiling: 10, waiting: 2}, lease{Slots: 4}, false},
		{"never more than the ceiling", nil, 8, use{ceiling: 10, running: 8, waiting: 90}, lease{Slots: 10}, false},
		{"what is left by others", other(7, false), 0, use{ceiling: 10, waiting: 5}, lease{Slots: 3, Short: true}, false},
		{"nothing is left", other(10, false), 0, use{ceiling: 10, waiting: 1}, lease{Short: true}, false},
		{"unused ones are kept a little", nil, 8, use{ceiling: 10, running: 1, keep: true}, lease{Slots: 8}, false},
		{"and then given back", nil, 8, use{ceiling: 10, running: 1}, lease{Slots: 1}, false},
		{"but for what was used now and then", nil, 8, use{ceiling: 10, peak: 3}, lease{Slots: 3}, false},
		{"its part, where another waits", other(2, true), 8, use{ceiling: 10, running: 8}, lease{Slots: 5, Short: true}, false},
		{"no more than its part", other(2, true), 2, use{ceiling: 10, running: 2, waiting: 9}, lease{Slots: 5, Short: true}, false},
		{"another waits, and there is enough", other(2, true), 3, use{ceiling: 10, running: 3}, lease{Slots: 3}, false},
		{"a lower ceiling", other(2, false), 8, use{ceiling: 5, running: 8}, lease{Slots: 3, Short: true}, false},
		{"a ceiling of none", nil, 8, use{ceiling: 0, running: 8}, lease{}, false},
		{"turns where there are too few", other(0, true), 1, use{ceiling: 1, running: 1}, lease{Slots: 1}, true},
		{"another has its turn", other(0, true), 0, use{ceiling: 1, waiting: 1, rest: true}, lease{Short: true}, false},
	} {
		got, turn := decide(c.others, c.has, c.use)
		if got != c.want || turn != c.turn {
			t.Errorf("%s: got %+v %v, want %+v %v", c.name, got, turn, c.want, c.turn)
		}
	}
}

// gate is what uses a Pool: it lets in as many as it may.
type gate struct {
	pool *Pool
	mu   sync.Mutex
	room *sync.Cond
	running,
	waiting, may int
	until time.Time
}

func (s *Slots) gate(name string, ceiling int) *gate {
	g := &gate{}
	g.room = sync.NewCond(&g.mu)
	g.pool = s.Share(name, ceiling, func(n int, until time.Time) int {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.may, g.until = n, until
		g.room.Broadcast()
		return g.running
	})
	return g
}

func (g *gate) run(work func()) {
	g.mu.Lock()
	g.waiting++
	g.pool.Tell(g.running, g.waiting)
	for g.running >= g.may || time.Now().After(g.until) {
		g.room.Wait()
	}
	g.waiting--
	g.running++
	g.pool.Tell(g.running, g.waiting)
	g.mu.Unlock()
	work()
	g.mu.Lock()
	g.running--
	g.pool.Tell(g.running, g.waiting)
	g.room.Broadcast()
	g.mu.Unlock()
}

// server starts a message server, and returns what opens a Node of it.
func server(t *testing.T) func(name string, ttl time.Duration) (*Slots, *natsgo.Conn) {
	t.Helper()
	srv, err := natsserver.NewServer(&natsserver.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	go srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(time.Minute) {
		t.Fatal("not ready")
	}
	return func(name string, ttl time.Duration) (*Slots, *natsgo.Conn) {
		conn, err := natsgo.Connect(srv.ClientURL())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(conn.Close)
		js, err := jetstream.New(conn)
		if err != nil {
			t.Fatal(err)
		}
		s, err := Open(t.Context(), js, Options{Node: name, TTL: ttl, idle: 200 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s, conn
	}
}

func TestSlots_NodesStayWithinTheCeilingAndAllGetTheirPart(t *testing.T) {
	t.Parallel()
	for _, ceiling := range []int{1, 2, 7} {
		t.Run(fmt.Sprint(ceiling), func(t *testing.T) {
			t.Parallel()
			node := server(t)
			var running, most atomic.Int64
			var all sync.WaitGroup
			for i := range 3 {
				s, _ := node(fmt.Sprintf("node%d", i), time.Minute) // no lease ends by time here
				g := s.gate("default/hello", ceiling)
				for range 5 {
					all.Go(func() {
						for range 20 {
							g.run(func() {
								now := running.Add(1)
								for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
								}
								time.Sleep(time.Duration(rand.N(3)) * time.Millisecond) // work, of any length
								running.Add(-1)
							})
						}
					})
				}
			}
			all.Wait()
			if got := most.Load(); got > int64(ceiling) || got < 1 {
				t.Errorf("%d ran at once, the ceiling is %d", got, ceiling)
			}
		})
	}
}

func TestSlots_UnusedOnesComeBackAndCostNothing(t *testing.T) {
	t.Parallel()
	node := server(t)
	a, _ := node("a", time.Minute)
	b, _ := node("b", time.Minute)
	ga, gb := a.gate("f", 4), b.gate("f", 4)
	ga.run(func() {})
	// A's are still a's for a moment; b needs all four at once.
	var inside, all sync.WaitGroup
	inside.Add(4)
	for range 4 {
		all.Go(func() { gb.run(func() { inside.Done(); inside.Wait() }) })
	}
	all.Wait()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		e, err := b.kv.Get(t.Context(), "f")
		if err != nil {
			t.Fatal(err)
		}
		ga.pool.mu.Lock()
		held := ga.pool.mu.held
		ga.pool.mu.Unlock()
		gb.pool.mu.Lock()
		held = held || gb.pool.mu.held
		gb.pool.mu.Unlock()
		if !held && len(parse(e.Value())) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("leases stand: %s", e.Value())
		}
	}
}

func TestSlots_ANodeThatIsGoneLosesItsOwn(t *testing.T) {
	t.Parallel()
	const ttl = 2 * time.Second
	node := server(t)
	a, conn := node("a", ttl)
	b, _ := node("b", ttl)
	ga, gb := a.gate("f", 1), b.gate("f", 1)
	ga.run(func() {})
	ga.mu.Lock()
	before := ga.until
	ga.mu.Unlock()
	cut := time.Now()
	conn.Close() // it cannot renew, and does not know
	ga.pool.Tell(0, 1)
	done := make(chan time.Time)
	go gb.run(func() { done <- time.Now() })
	at := <-done
	ga.mu.Lock()
	defer ga.mu.Unlock()
	if ga.until.After(at) || ga.until.After(cut.Add(ttl)) || before.IsZero() {
		t.Errorf("a could go on until %v, b began at %v", ga.until, at)
	}
}

func TestSlots_CloseGivesBackAtOnce(t *testing.T) {
	t.Parallel()
	node := server(t)
	a, _ := node("a", time.Hour)
	b, _ := node("b", time.Hour)
	a.gate("f", 1).run(func() {})
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	b.gate("f", 1).run(func() {}) // would wait for an hour
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestSlots_ARestartedNodeTakesUpItsOwn(t *testing.T) {
	t.Parallel()
	node := server(t)
	killed, conn := node("a", time.Hour)
	killed.gate("f", 1).run(func() {})
	conn.Close()
	again, _ := node("a", time.Hour)
	again.gate("f", 1).run(func() {}) // would wait for an hour
}

func TestSlots_TheCeilingCanChange(t *testing.T) {
	t.Parallel()
	node := server(t)
	a, _ := node("a", time.Minute)
	g := a.gate("f", 1)
	g.run(func() {
		var inner sync.WaitGroup
		inner.Go(func() { g.run(func() {}) })
		g.pool.Ceiling(2)
		inner.Wait()
	})
}

func TestOpen_Refuses(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	srv := server(t)
	s, _ := srv("a", 0)
	if s.o.TTL != 30*time.Second {
		t.Errorf("got %v", s.o.TTL)
	}
	js, err := jetstream.New(natsgoConn(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, js, Options{Node: "a"}); err == nil {
		t.Error("it opens without a server")
	}
}

// natsgoConn is one that leads nowhere.
func natsgoConn(t *testing.T) *natsgo.Conn {
	conn, err := natsgo.Connect("nats://127.0.0.1:1", natsgo.RetryOnFailedConnect(true))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn
}
