package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/nats"
	"github.com/ebb-run/ebb/internal/testkit/fault"
)

// childNATS in the environment makes the test binary one server of a NATS cluster.
const childNATS = "EBB_FAULTS_NATS"

// member is one server of a NATS cluster, in a process of its own.
type member struct {
	Name, Dir    string
	Port, Routed int
	Routes       []string
	cmd          *exec.Cmd
}

// serveNATS is the child.
func serveNATS(text string) error {
	endWithParent()
	var m member
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return err
	}
	var routes []*url.URL
	for _, r := range m.Routes {
		routes = append(routes, &url.URL{Scheme: "nats", Host: r})
	}
	srv, err := natsserver.NewServer(&natsserver.Options{
		ServerName: m.Name, Host: "127.0.0.1", Port: m.Port, JetStream: true, StoreDir: m.Dir, SyncAlways: true, NoSigs: true, NoLog: true,
		Cluster: natsserver.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: m.Routed}, Routes: routes,
	})
	if err != nil {
		return err
	}
	srv.Start()
	select {}
}

func (m *member) start(t *testing.T) {
	t.Helper()
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	m.cmd = exec.Command(os.Args[0])
	m.cmd.Env, m.cmd.Stderr = append(os.Environ(), childNATS+"="+string(text)), os.Stderr
	if _, err := m.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

func (m *member) kill() {
	_ = m.cmd.Process.Kill()
	_ = m.cmd.Wait()
}

// cluster starts three servers, and gives their addresses for clients.
func cluster(t *testing.T) (members []*member, urls []string) {
	t.Helper()
	// Each must know where the others will be before it starts: the ports are found free, and given back.
	free := func() (int, string) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().(*net.TCPAddr).Port, l.Addr().String()
	}
	var routes []string
	for i := range 3 {
		m := &member{Name: fmt.Sprint("n", i), Dir: t.TempDir()}
		var addr, at string
		m.Routed, addr = free()
		m.Port, at = free()
		routes, urls, members = append(routes, addr), append(urls, "nats://"+at), append(members, m)
	}
	for _, m := range members {
		m.Routes = routes
		m.start(t)
		t.Cleanup(m.kill)
	}
	return members, urls
}

// leaders gives who leads each stream, when all have a leader that is not the one given.
func leaders(t *testing.T, js jetstream.JetStream, but string) (map[string]string, bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	out := map[string]string{}
	list := js.ListStreams(ctx)
	for info := range list.Info() {
		if info.Cluster == nil || info.Cluster.Leader == "" || info.Cluster.Leader == but {
			return nil, false
		}
		out[info.Config.Name] = info.Cluster.Leader
	}
	return out, list.Err() == nil && len(out) > 1
}

// current tells whether every replica of every stream is up to date.
func current(t *testing.T, js jetstream.JetStream) (bool, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	n := 0
	list := js.ListStreams(ctx)
	for info := range list.Info() {
		n++
		if info.Cluster == nil || info.Cluster.Leader == "" || len(info.Cluster.Replicas) < 2 {
			return false, nil
		}
		for _, r := range info.Cluster.Replicas {
			if !r.Current || r.Offline {
				return false, nil
			}
		}
	}
	return n > 1, list.Err()
}

// over starts three servers over one store, with what the first has deployed.
func over(t *testing.T, k *sink, urls []string) (nodes []*node) {
	t.Helper()
	a := deployment(k.addr)
	a.Triggers = append(a.Triggers, app.Trigger{ID: "Time", Function: "work", Kind: "schedule", Enabled: true, Schedule: []string{"cron(* * * * ? *)"}})
	root := t.TempDir()
	flags := func(i int) map[string]string {
		return map[string]string{"data": filepath.Join(root, fmt.Sprint(i)), "egress": k.addr, "nats": strings.Join(append(urls[i:len(urls):len(urls)], urls[:i]...), ",")}
	}
	var first *node
	until(t, "a first server", func() (ok bool, err error) {
		first, err = tryStart(t, flags(0), &fault.Plan{})
		return err == nil, err
	})
	deploy(t, first, a, handler)
	first.kill()
	for i := 1; i < 3; i++ { // their keys and code are the same
		for _, part := range []string{"FORMAT", "seal.key", "artifacts"} {
			if out, err := exec.Command("sh", "-c", `mkdir -p "$2" && cp -a "$1" "$2"`, "sh", filepath.Join(root, "0", part), filepath.Join(root, fmt.Sprint(i))).CombinedOutput(); err != nil {
				t.Fatalf("copy: %v\n%s", err, out)
			}
		}
	}
	for i := range 3 {
		nodes = append(nodes, start(t, flags(i), &fault.Plan{}))
	}
	return nodes
}

// calls invokes a function on every Node until ctx ends, and counts failures.
type calls struct {
	wg        sync.WaitGroup
	n, failed atomic.Int64
	last      atomic.Value // an error
	slowest   atomic.Int64
}

func (c *calls) run(ctx context.Context, nodes []*node) {
	for i, n := range nodes {
		c.wg.Go(func() {
			for k := 0; ctx.Err() == nil; k++ {
				began := time.Now()
				_, err := n.Invoke(context.WithoutCancel(ctx), function, fmt.Appendf(nil, `{"n":"direct/%d/%d"}`, i, k), "")
				if err != nil {
					c.failed.Add(1)
					c.last.Store(err)
				}
				c.n.Add(1)
				if took := int64(time.Since(began)); took > c.slowest.Load() {
					c.slowest.Store(took)
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
}

// Three servers over three NATS servers, of which the one that leads most is killed under load, again and again: nothing that was acknowledged is lost,
// calls that wait for their answer do not notice, and what is refused is taken again soon after there are new leaders.
func TestCluster_LosesNothingWithItsLeaders(t *testing.T) {
	if testing.Short() {
		t.Skip("starts six servers")
	}
	members, urls := cluster(t)
	k := newSink(t)
	nodes := over(t, k, urls)
	conn, err := nats.Open(t.Context(), nats.Options{URL: strings.Join(urls, ",")})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js := conn.JetStream()
	s := newSender(1 << 30)
	s.mu.pace = 15 * time.Millisecond
	s.mu.wrong = map[string]error{}
	s.begin(0, nodes...)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var direct calls
	defer wg.Wait()
	defer direct.wg.Wait()
	defer stop()
	ways := []string{viaAsync, viaRule, viaQueue}
	until(t, "all nodes answer", func() (bool, error) {
		for _, n := range nodes {
			if _, err := n.Subscriptions(t.Context()); err != nil {
				return false, err
			}
			if _, err := n.Invoke(t.Context(), function, []byte(`{"n":"warm"}`), ""); err != nil {
				return false, err
			}
		}
		return true, nil
	})
	for _, way := range ways {
		for range 3 {
			wg.Go(func() { s.run(ctx, way) })
		}
	}
	calls, calling := context.WithCancel(ctx)
	defer calling()
	direct.run(calls, nodes)
	var table strings.Builder
	table.WriteString("| leader killed | leads | a new leader after | acknowledged again after that, at the latest | refused meanwhile | refused later than 5 s after that |\n|---|---|---|---|---|---|\n")
	rounds := 2
	if *page != "" {
		rounds = 4
	}
	for i := range rounds {
		until(t, "all replicas are there", func() (bool, error) { return current(t, js) })
		acked := s.acknowledged()
		until(t, "load", func() (bool, error) { return s.acknowledged() > acked+100, nil })
		table.WriteString(s.killLeader(t, js, members, i+1, ways))
	}
	calling()
	direct.wg.Wait()
	// Then the server that came first, and owns what it could take.
	s.begin(0, nodes[1:]...)
	nodes[0].kill()
	gone := time.Now()
	until(t, "the others go on", func() (bool, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, way := range ways {
			if s.mu.newest[way].Before(gone) {
				return false, s.mu.error
			}
		}
		return true, nil
	})
	stop()
	wg.Wait()
	s.mu.Lock()
	for _, err := range s.mu.wrong {
		if !strings.Contains(err.Error(), "refused") && !errors.Is(err, context.Canceled) { // of the server that was killed
			t.Errorf("refused with %v", err)
		}
	}
	s.mu.Unlock()
	y := count(t, nodes[1], s, k, []*fault.Plan{{Point: "leader"}})["leader"]
	fmt.Fprintf(&table, "\n%d acknowledged (invocations, events, messages): %d succeeded, %d dead letters, %d lost, %d run once more; at the end the ebb that served the partitions was killed too. %d calls that waited for their answer: %d failed.\n",
		y.Acked, y.Done, y.Dead, y.Lost, y.Again, direct.n.Load(), direct.failed.Load())
	t.Logf("\n%s\nslowest call: %v", table.String(), time.Duration(direct.slowest.Load()))
	if direct.failed.Load() > 0 {
		t.Errorf("%d of %d calls failed, the last with %v", direct.failed.Load(), direct.n.Load(), direct.last.Load())
	}
	slots(t, nodes[2], k)
	writePage(t, "cluster", table.String())
}

// acknowledged is how many are.
func (s *sender) acknowledged() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mu.acked)
}

// killLeader ends the server that leads most, waits for everything to go on, starts it again and gives a line of the table.
func (s *sender) killLeader(t *testing.T, js jetstream.JetStream, members []*member, round int, ways []string) string {
	t.Helper()
	led := map[string]int{}
	until(t, "leaders", func() (bool, error) {
		all, ok := leaders(t, js, "")
		clear(led)
		for name, who := range all {
			if strings.HasPrefix(name, "EBB_BUS_") {
				led[who]++
			}
		}
		return ok, nil
	})
	victim := members[0]
	for _, m := range members {
		if led[m.Name] > led[victim.Name] {
			victim = m
		}
	}
	killed := time.Now()
	victim.kill()
	until(t, "new leaders", func() (bool, error) { _, ok := leaders(t, js, victim.Name); return ok, nil })
	led1 := time.Now()
	again := led1
	until(t, "all ways go on", func() (bool, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, way := range ways {
			if s.mu.newest[way].Before(led1) {
				return false, s.mu.error
			}
		}
		again = time.Now()
		return true, nil
	})
	for end := led1.Add(8 * time.Second); time.Now().Before(end); {
		time.Sleep(100 * time.Millisecond) // refusals that come late are to be seen
	}
	s.mu.Lock()
	meanwhile, late := 0, 0
	for _, at := range s.mu.refused {
		switch {
		case at.After(led1.Add(5 * time.Second)):
			late++
		case at.After(killed):
			meanwhile++
		}
	}
	s.mu.Unlock()
	if late > 0 && *page != "" { // a loaded machine may be late by itself
		t.Errorf("round %d: %d were refused later than 5 s after a new leader: %v", round, late, s.refusal())
	}
	victim.start(t)
	return fmt.Sprintf("| %d | %d of the 4 partitions | %v | %v | %d | %d |\n", round, led[victim.Name], led1.Sub(killed).Round(10*time.Millisecond), again.Sub(led1).Round(10*time.Millisecond), meanwhile, late)
}

// slots waits for the schedule to have fired, and looks whether each slot has one event.
func slots(t *testing.T, n *node, k *sink) {
	t.Helper()
	fired := func() (slots, runs int) {
		k.mu.Lock()
		defer k.mu.Unlock()
		for number, ran := range k.mu.ran {
			if strings.HasPrefix(number, "slot/") {
				slots, runs = slots+1, runs+len(ran)
			}
		}
		return slots, runs
	}
	until(t, "a slot", func() (bool, error) {
		n, _ := fired()
		return n > 0, nil
	})
	list, err := n.Subscriptions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, sub := range list {
		if strings.Contains(sub.Name, "/Time/") {
			slots, runs := fired()
			t.Logf("%d slots of the schedule: %d events, %d runs", slots, sub.Done, runs)
			if sub.Done > slots {
				t.Errorf("%d slots of the schedule have %d events", slots, sub.Done)
			}
		}
	}
}
