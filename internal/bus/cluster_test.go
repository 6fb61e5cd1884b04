package bus_test

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/nats"
)

// cluster starts three servers on ports of their own.
func cluster(t *testing.T) []*natsserver.Server {
	t.Helper()
	// Each must know where the others will be before it starts: the ports are found free, and given back.
	var routes []*url.URL
	var ports []int
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		routes = append(routes, &url.URL{Scheme: "nats", Host: l.Addr().String()})
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var out []*natsserver.Server
	for i, port := range ports {
		srv, err := natsserver.NewServer(&natsserver.Options{
			ServerName: fmt.Sprint("n", i), Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), SyncAlways: true, NoSigs: true, NoLog: true,
			Cluster: natsserver.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: port}, Routes: routes,
		})
		if err != nil {
			t.Fatal(err)
		}
		go srv.Start()
		t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
		out = append(out, srv)
	}
	for _, srv := range out {
		if !srv.ReadyForConnections(30 * time.Second) {
			t.Fatal("not ready")
		}
	}
	until(t, "a leader", func() (bool, error) {
		for _, s := range out {
			if s.JetStreamIsLeader() {
				return true, nil
			}
		}
		return false, nil
	})
	return out
}

// join makes a Node of the cluster; cut ends its connection as if the Node were gone.
func join(t *testing.T, servers []*natsserver.Server, n int, d bus.Deliverer) (w *world, cut func()) {
	t.Helper()
	var urls []string
	for i := range servers {
		urls = append(urls, servers[(n+i)%len(servers)].ClientURL())
	}
	w = &world{}
	dir := filepath.Join(t.TempDir(), "index")
	until(t, "a node", func() (ok bool, err error) {
		if w.conn == nil {
			if w.conn, err = nats.Open(t.Context(), nats.Options{URL: strings.Join(urls, ",")}); err != nil {
				return false, err
			}
		}
		w.Bus, err = bus.Open(t.Context(), w.conn.JetStream(), bus.Options{Dir: dir, Node: fmt.Sprint("node", n), Replicas: 3, Partitions: 2,
			Lease: 3 * time.Second, Compile: exact, Deliver: d})
		return err == nil, err
	})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = w.Run(ctx) })
	w.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		_ = w.Close()
		_ = w.conn.Close()
	})
	t.Cleanup(w.stop)
	return w, func() { w.conn.Conn().Close() }
}

// Over three servers and three Nodes: a Node that owned Partitions is cut off, then a server is ended under load. Nothing that was acknowledged is lost,
// whoever is asked knows all of it, and no key ran twice at once.
func TestBus_IsOneOverACluster(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three servers")
	}
	t.Parallel()
	servers := cluster(t)
	var mu sync.Mutex
	running := map[string]int{}
	r := &target{}
	r.answer = func(ctx context.Context, d *bus.Delivery) error {
		k := d.Event.Extension(bus.PartitionKey)
		mu.Lock()
		if running[k]++; running[k] > 1 {
			t.Errorf("two of %s run at once", k)
		}
		mu.Unlock()
		time.Sleep(time.Millisecond)
		mu.Lock()
		defer mu.Unlock()
		running[k]--
		return nil
	}
	nodes := make([]*world, 3)
	cuts := make([]func(), 3)
	for i := range nodes {
		nodes[i], cuts[i] = join(t, servers, i, r)
	}
	until(t, "subscribe", func() (bool, error) {
		err := nodes[0].Subscribe(t.Context(), bus.Subscription{Name: "s", Ordered: true})
		return err == nil, err
	})
	acked := map[string]bool{}
	load := func(from, n int, on ...*world) {
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				for i := range n {
					id := fmt.Sprintf("%d/%d/%d", from, g, i)
					e := newEvent(id, bus.PartitionKey, fmt.Sprint("k", g))
					until(t, id, func() (bool, error) { // the same id again until it is acknowledged
						_, err := on[(g+i)%len(on)].Publish(t.Context(), e)
						return err == nil, err
					})
					mu.Lock()
					acked[id] = true
					mu.Unlock()
				}
			})
		}
		wg.Wait()
	}
	load(0, 30, nodes...)
	until(t, "all nodes answer", func() (bool, error) {
		for _, n := range nodes {
			if err := n.Sync(t.Context()); err != nil {
				return false, err
			}
		}
		return true, nil
	})
	var wg sync.WaitGroup
	wg.Go(func() { load(1, 60, nodes[1], nodes[2]) })
	cuts[0]()
	wg.Wait()
	wg.Go(func() { load(2, 60, nodes[1], nodes[2]) })
	servers[1].Shutdown()
	wg.Wait()
	for _, n := range nodes[1:] {
		until(t, "the end", func() (bool, error) {
			if err := n.Sync(t.Context()); err != nil {
				return false, err
			}
			c, err := n.Counts(t.Context())
			return c["s"][bus.Done] == len(acked) && len(c["s"]) == 1, err
		})
	}
	seen := map[string]int{}
	for _, d := range r.all() {
		seen[d.Event.ID]++
	}
	twice := 0
	for id := range acked {
		if seen[id] == 0 {
			t.Errorf("%s was lost", id)
		}
		twice += max(seen[id]-1, 0)
	}
	t.Logf("%d events, %d delivered twice", len(acked), twice)
}
