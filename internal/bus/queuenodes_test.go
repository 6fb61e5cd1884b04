package bus_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/nats"
)

// pair makes two Nodes over one server, of which the first owns all Partitions until it is stopped.
func pair(t *testing.T) (owner, other *world) {
	t.Helper()
	srv, err := natsserver.NewServer(&natsserver.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	go srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(30 * time.Second) {
		t.Fatal("not ready")
	}
	node := func(name string) *world {
		conn, err := nats.Open(t.Context(), nats.Options{URL: srv.ClientURL()})
		if err != nil {
			t.Fatal(err)
		}
		b, err := bus.Open(t.Context(), conn.JetStream(), bus.Options{Dir: filepath.Join(t.TempDir(), "index"), Node: name, Partitions: 2, Lease: 3 * time.Second, Compile: exact})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { _ = b.Run(ctx) })
		w := &world{Bus: b, conn: conn}
		w.stop = sync.OnceFunc(func() {
			cancel()
			wg.Wait()
			_ = b.Close()
			_ = conn.Close()
		})
		t.Cleanup(w.stop)
		return w
	}
	owner = node("owner")
	until(t, "owner", func() (bool, error) { return true, owner.Sync(t.Context()) })
	return owner, node("other")
}

func TestQueue_WorksFromANodeThatIsNotTheOwner(t *testing.T) {
	t.Parallel()
	owner, other := pair(t)
	hour := new(time.Hour)
	for _, q := range []string{"q", "q.fifo"} { // of two Partitions
		fifo := q != "q"
		other.queue(t, bus.Queue{Name: "dead" + q[1:], FIFO: fifo})
		other.queue(t, bus.Queue{Name: q, FIFO: fifo, Visibility: hour, MaxReceives: 1, DeadLetters: "dead" + q[1:]})
		other.send(t, q, "a:1", "a:2")
		other.counted(t, q, 2, 0, 0)
		got := other.receive(t, q, 10)
		want(t, got, "a:1", "a:2")
		other.remove(t, q, got[:1])
		other.show(t, q, got[1:])
		if err := other.ChangeVisibility(t.Context(), q, []bus.VisibilityChange{{Receipt: got[1].Receipt}})[0]; errs.CodeOf(err) != errs.Conflict || errs.HintOf(err) == "" {
			t.Errorf("got %v", err)
		}
		want(t, other.receive(t, q, 10)) // it goes to the dead letters
		want(t, other.await(t, "dead"+q[1:], 1), "a:2")
		// One waits for what another Node sends.
		done := make(chan []string)
		go func() {
			got, err := other.Receive(t.Context(), q, bus.Receive{Max: 1, Wait: new(bus.MaxWait)})
			if err != nil {
				t.Error(err)
			}
			done <- bodies(got)
		}()
		owner.send(t, q, "b:1")
		if got := <-done; !slices.Equal(got, []string{"b:1"}) {
			t.Errorf("got %q", got)
		}
		large := bus.Message{Body: make([]byte, 250<<10)}
		for i := range 8 { // more than one answer over the network may have
			if fifo {
				large.Group, large.Dedup = "c", fmt.Sprint(i)
			}
			if out, err := other.Send(t.Context(), q, []bus.Message{large}); err != nil || out[0].Err != nil {
				t.Fatal(out, err)
			}
		}
		if got := other.receive(t, q, 10); len(got) != 8 || len(got[7].Body) != 250<<10 {
			t.Errorf("%d came", len(got))
		}
	}
	// A receiver that leaves takes nothing along.
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	other.queue(t, bus.Queue{Name: "left", Visibility: hour})
	if _, err := other.Receive(ctx, "left", bus.Receive{Wait: new(bus.MaxWait)}); err == nil {
		t.Error("no error")
	}
	other.send(t, "left", "x")
	want(t, other.await(t, "left", 1), "x")
}

// The owner goes while receivers wait and messages are in flight: the next one knows all of it.
func TestQueue_SurvivesItsOwner(t *testing.T) {
	t.Parallel()
	owner, other := pair(t)
	other.queue(t, bus.Queue{Name: "q", Visibility: new(time.Hour)})
	other.send(t, "q", "a", "b")
	got := other.receive(t, "q", 1)
	owner.stop()
	until(t, "a new owner", func() (bool, error) { return true, other.Sync(t.Context()) })
	other.counted(t, "q", 1, 1, 0)
	want(t, other.receive(t, "q", 10), "b")
	other.show(t, "q", got)
	again := other.receive(t, "q", 10)
	if len(again) != 1 || again[0].Receives != 2 || string(again[0].Body) != string(got[0].Body) {
		t.Errorf("got %+v", again)
	}
}
