package state_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/nats"
	"github.com/ebb-run/ebb/internal/state"
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
	until(t, 60*time.Second, func() error {
		for _, s := range out {
			if s.JetStreamIsLeader() {
				return nil
			}
		}
		return fmt.Errorf("no leader")
	})
	return out
}

func until(t *testing.T, limit time.Duration, f func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Error(err)
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// raceForPointer puts Deployments and lets all Nodes race to make each current. An answer that an election swallowed shows as a
// conflict later.
func raceForPointer(t *testing.T, stores []*state.Store) state.Pointer {
	t.Helper()
	var p state.Pointer
	for i := range 10 {
		d := deployment(stack, fmt.Sprint(i))
		until(t, 60*time.Second, func() error {
			err := stores[i%3].Put(t.Context(), d)
			if err != nil {
				d.ID = "" // an election may fall on it; whether it was written is not known
			}
			return err
		})
		// All race for it, and each reads what another wrote.
		var wg sync.WaitGroup
		var won atomic.Int32
		for _, s := range stores {
			wg.Go(func() {
				until(t, 60*time.Second, func() error {
					_, err := s.SetCurrent(t.Context(), stack, d.ID, p.Seq)
					switch errs.CodeOf(err) {
					case "":
						won.Add(1)
						return nil
					case errs.Conflict:
						return nil
					}
					return err
				})
			})
		}
		wg.Wait()
		if won.Load() > 1 {
			t.Fatalf("round %d: %d winners", i, won.Load())
		}
		for j, s := range stores {
			until(t, 60*time.Second, func() error {
				cur, err := s.Current(t.Context(), stack)
				if err == nil && (cur.Deployment != d.ID || j > 0 && cur != p) {
					t.Errorf("round %d: store %d has %+v, want %+v", i, j, cur, p)
				}
				p = cur
				return err
			})
		}
	}
	return p
}

func TestStore_IsOneOverACluster(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three servers")
	}
	t.Parallel()
	servers := cluster(t)
	var urls []string
	for _, s := range servers {
		urls = append(urls, s.ClientURL())
	}
	stores := make([]*state.Store, 3)
	for i := range stores {
		// Each Node talks to a server of its own first.
		c, err := nats.Open(t.Context(), nats.Options{URL: strings.Join(append(urls[i:3:3], urls[:i]...), ",")})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		until(t, 60*time.Second, func() (err error) {
			stores[i], err = state.Open(t.Context(), c.JetStream(), state.Options{Key: testKey, Replicas: 3})
			return err
		})
	}
	p := raceForPointer(t, stores)
	last := p.Deployment
	big := deployment(stack, "big")
	// Near the limit: a read through the leader carries it in another form than a direct one.
	noise := make([]byte, 1<<20)
	r := rand.New(rand.NewPCG(5, 6))
	for i := range noise {
		noise[i] = byte('0' + r.UintN(64))
	}
	big.App.Description = string(noise)
	until(t, 60*time.Second, func() error {
		big.ID = ""
		return stores[0].Put(t.Context(), big)
	})
	// One server dies; what was acknowledged is there, and the rest goes on.
	servers[0].Shutdown()
	until(t, 60*time.Second, func() error {
		_, err := stores[0].SetCurrent(t.Context(), stack, big.ID, p.Seq)
		if errs.CodeOf(err) == errs.Conflict { // made, but the answer was lost
			cur, err := stores[0].Current(t.Context(), stack)
			if err == nil && cur.Deployment == big.ID {
				return nil
			}
		}
		return err
	})
	for _, s := range stores {
		until(t, 60*time.Second, func() error {
			cur, err := s.Current(t.Context(), stack)
			if err == nil && (cur.Deployment != big.ID || cur.Previous != last) {
				t.Fatalf("got %+v", cur)
			}
			return err
		})
	}
}
