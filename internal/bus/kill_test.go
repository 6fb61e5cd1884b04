package bus_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/nats"
	"github.com/ebb-run/ebb/internal/seal"
	"github.com/ebb-run/ebb/internal/seal/sealtest"
)

// childDir in the environment makes the test binary the process that is killed; childRound makes its ids unique.
const (
	childDir   = "EBB_BUS_KILL_DIR"
	childRound = "EBB_BUS_KILL_ROUND"
)

func TestMain(m *testing.M) {
	if config := os.Getenv(childServer); config != "" {
		fmt.Println("error", serveMessages(config))
		os.Exit(1)
	}
	if dir := os.Getenv(childSchedules); dir != "" {
		fmt.Println("error", fireForever(dir))
		os.Exit(1)
	}
	if dir := os.Getenv(childDir); dir != "" {
		use := publishForever
		if os.Getenv(childQueues) != "" {
			use = useQueues
		}
		if os.Getenv(childStreams) != "" {
			use = useStreams
		}
		if os.Getenv(childLarge) != "" {
			use = publishLarge
		}
		if err := use(dir, os.Getenv(childRound)); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// say prints one line in one write: a kill leaves at most the last one cut off.
func say(parts ...any) { _, _ = os.Stdout.WriteString(fmt.Sprintln(parts...)) }

// printer is a Deliverer that says what it got, before it answers; each id fails first, then succeeds or, where it holds a "z", is refused for ever.
type printer struct{ seen sync.Map }

func (p *printer) Deliver(_ context.Context, batch []*bus.Delivery) []bus.Outcome {
	out := make([]bus.Outcome, len(batch))
	for i, d := range batch {
		say("got", d.Event.ID, d.ID)
		if _, again := p.seen.LoadOrStore(d.ID, true); !again && len(d.Event.ID)%3 == 0 || strings.Contains(d.Event.ID, "z") {
			out[i].Err = errors.New("not now")
		}
	}
	return out
}

// publishForever publishes from several goroutines and prints what was acknowledged after it was; some of it is published twice.
func publishForever(dir, round string) error {
	ctx := context.Background()
	conn, err := nats.Open(ctx, kept(dir))
	if err != nil {
		return err
	}
	b, err := bus.Open(ctx, conn.JetStream(), killOptions(dir, &printer{}))
	if err != nil {
		return err
	}
	if err := b.Subscribe(ctx, killSub); err != nil {
		return err
	}
	say("ready")
	go func() { _ = b.Run(ctx) }()
	failed := make(chan error)
	for g := range 6 {
		go func() {
			for i := 0; ; i++ {
				letter := "a"
				if i%10 == 9 {
					letter = "z"
				}
				id := fmt.Sprintf("%s/%d/%d%s", round, g, i, letter)
				e := newEvent(id)
				if i%2 == 0 {
					e.SetExtension(bus.PartitionKey, fmt.Sprint("key", g))
				}
				if _, err := b.Publish(ctx, e); err != nil {
					failed <- err
					return
				}
				say("ack", id)
				if i%5 == 0 {
					if _, err := b.Publish(ctx, e); err != nil {
						failed <- err
						return
					}
				}
				if i > 100 {
					time.Sleep(time.Millisecond) // so that deliveries keep up
				}
			}
		}()
	}
	return <-failed
}

var killSub = bus.Subscription{Name: "s", Ordered: true, Retry: bus.Retry{Attempts: 2, MinBackoff: time.Millisecond, MaxBackoff: 2 * time.Millisecond}}

// sealOf is what a test's folder is sealed by: what is in its folder "seal", or nothing.
func sealOf(dir string) *seal.Sealer { return sealtest.Open(filepath.Join(dir, "seal")) }

// kept is the embedded store of a test's folder.
func kept(dir string) nats.Options {
	return nats.Options{Dir: filepath.Join(dir, "nats"), Key: sealOf(dir).Key("nats")}
}

// bothWays runs a test in a folder that is in clear, and in one that is sealed.
func bothWays(t *testing.T, f func(t *testing.T, dir string)) {
	t.Parallel()
	for _, name := range []string{"clear", "sealed"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if name == "sealed" {
				if *overCluster {
					t.Skip("a cluster's servers seal what they keep themselves")
				}
				sealtest.Into(t, filepath.Join(dir, "seal"))
			}
			f(t, dir)
		})
	}
}

func killOptions(dir string, d bus.Deliverer) bus.Options {
	return bus.Options{Dir: filepath.Join(dir, "index"), Alone: true, Deliver: d, Partitions: 3, DedupWindow: time.Hour, Seal: sealOf(dir).Box("events")}
}

// killOnce runs the child until it is killed, and collects what it says.
func killOnce(t *testing.T, dir string, round int, acked map[string]bool, got map[string]map[string]int, env ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir, fmt.Sprintf("%s=%d", childRound, round))
	cmd.Env = append(cmd.Env, env...)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(pipe)
	var killed atomic.Bool
	kill := sync.OnceFunc(func() {
		time.AfterFunc(time.Duration(rand.IntN(400))*time.Millisecond, func() {
			killed.Store(true)
			_ = cmd.Process.Kill()
		})
	})
	for {
		line, err := in.ReadString('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		f := strings.Fields(line)
		switch {
		case len(f) == 1 && f[0] == "ready":
			if round == 0 { // perhaps before anything was done
				kill()
			}
		case len(f) == 2 && f[0] == "ack":
			acked[f[1]] = true
			kill()
		case len(f) == 3 && f[0] == "got":
			if got[f[1]] == nil {
				got[f[1]] = map[string]int{}
			}
			got[f[1]][f[2]]++
		case f[0] == "error":
			t.Fatalf("round %d: %s", round, line)
		}
	}
	_ = cmd.Wait()
	if !killed.Load() {
		t.Fatalf("round %d: the child ended by itself", round)
	}
}

// Killed at any moment, nothing that was acknowledged is lost: each event ends as a success or a dead letter, was delivered, and has one delivery
// although some were published twice. An index that is deleted comes out the same.
func TestBus_LosesNothingToKill(t *testing.T) { bothWays(t, busLosesNothing) }

func busLosesNothing(t *testing.T, dir string) {
	t.Helper()
	rounds := 25
	if testing.Short() {
		rounds = 4
	}
	acked, got := map[string]bool{}, map[string]map[string]int{}
	for i := range rounds {
		if i%6 == 5 {
			if err := os.RemoveAll(filepath.Join(dir, "index")); err != nil {
				t.Fatal(err)
			}
		}
		killOnce(t, dir, i, acked, got)
	}
	if len(acked) < rounds-1 {
		t.Fatalf("only %d events were acknowledged", len(acked))
	}
	late := &target{}
	w := start(t, dir, killOptions(dir, late))
	settle(t, w)
	for _, d := range late.all() {
		if got[d.Event.ID] == nil {
			got[d.Event.ID] = map[string]int{}
		}
		got[d.Event.ID][d.ID]++
	}
	again := 0
	for id := range acked {
		st, err := w.StatusOfEvent(t.Context(), "", "/test", id)
		if err != nil || len(st) != 1 || st[0].State != bus.Done && st[0].State != bus.Dead {
			t.Errorf("%s: %+v, %v", id, st, err)
			continue
		}
		if got[id][st[0].ID] == 0 {
			t.Errorf("%s is %v and was never delivered", id, st[0].State)
		}
		if len(got[id]) != 1 {
			t.Errorf("%s came as %v", id, got[id])
		}
		again += max(got[id][st[0].ID]-st[0].Tries, 0)
	}
	t.Logf("%d rounds, %d events acknowledged, %d delivered once more because of a kill", rounds, len(acked), again)
	before := everything(t, w)
	w.stop()
	if err := os.RemoveAll(w.opt.Dir); err != nil {
		t.Fatal(err)
	}
	none := &target{}
	w = start(t, dir, killOptions(dir, none))
	settle(t, w)
	if after := everything(t, w); after != before {
		t.Error("the index came out otherwise")
	}
	if n := len(none.all()); n > 0 {
		t.Errorf("%d were delivered again", n)
	}
}

// settle waits until nothing is left to do.
func settle(t *testing.T, w *world) {
	t.Helper()
	until(t, "settled", func() (bool, error) {
		if err := w.Sync(t.Context()); err != nil {
			return false, err
		}
		c, err := w.Counts(t.Context())
		open := 0
		for _, states := range c {
			open += states[bus.Pending] + states[bus.Waiting]
		}
		return open == 0, err
	})
}

// everything is all that the index knows of deliveries, as text.
func everything(t *testing.T, w *world) string {
	t.Helper()
	var all []bus.Status
	after := ""
	for {
		page, err := w.List(t.Context(), bus.Query{Limit: 1000, After: after})
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for i := range page {
			page[i].Running = time.Time{} // it is no part of the index
		}
		all, after = append(all, page...), page[len(page)-1].ID
	}
	subs, err := w.Subscriptions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out, err := json.MarshalIndent([]any{subs, all}, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
