package bus_test

import (
	"bufio"
	"context"
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
	"github.com/ebb-run/ebb/internal/testkit/fault"
)

// childQueues in the environment makes the child of the kill tests one that uses queues.
const childQueues = "EBB_BUS_KILL_QUEUES"

// childPlan in the environment says at which point it ends itself.
const childPlan = "EBB_BUS_KILL_PLAN"

// killQueues are a queue, a FIFO queue and their dead-letter queues.
var killQueues = []bus.Queue{
	{Name: "dead"}, {Name: "dead.fifo", FIFO: true},
	{Name: "q", Visibility: new(300 * time.Millisecond), MaxReceives: 2, DeadLetters: "dead"},
	{Name: "q.fifo", FIFO: true, Visibility: new(300 * time.Millisecond), MaxReceives: 2, DeadLetters: "dead.fifo"},
}

// useQueues sends, receives and deletes from several goroutines, and prints what was acknowledged after it was. What holds a "z" is never deleted.
func useQueues(dir, round string) error {
	ctx := context.Background()
	conn, err := nats.Open(ctx, kept(dir))
	if err != nil {
		return err
	}
	plan, err := fault.Parse(os.Getenv(childPlan))
	if err != nil {
		return err
	}
	o := killOptions(dir, nil)
	o.Passing = func(p bus.Point) { plan.Pass(string(p)) }
	b, err := bus.Open(ctx, conn.JetStream(), o)
	if err != nil {
		return err
	}
	go func() { _ = b.Run(ctx) }()
	for _, q := range killQueues {
		if err := b.PutQueue(ctx, q); err != nil {
			return err
		}
	}
	say("ready")
	failed := make(chan error)
	for _, q := range killQueues[2:] {
		for g := range 2 {
			go func() {
				for i := 0; ; i++ {
					var msgs []bus.Message
					for k := range 5 {
						id := fmt.Sprintf("%s/%s/%d/%d/%d", q.Name, round, g, i, k)
						if (i*5+k)%20 == 19 {
							id += "z"
						}
						m := bus.Message{Body: []byte(id)}
						if q.FIFO {
							m.Group, m.Dedup = fmt.Sprint("g", k), id
						}
						msgs = append(msgs, m)
					}
					out, err := b.Send(ctx, q.Name, msgs)
					if err != nil {
						failed <- err
						return
					}
					for k := range out {
						if out[k].Err == nil {
							say("sent", string(msgs[k].Body))
						}
					}
					time.Sleep(time.Millisecond) // so that receivers keep up
				}
			}()
			go func() {
				for {
					got, err := b.Receive(ctx, q.Name, bus.Receive{Max: 10, Wait: new(time.Second)})
					if err != nil {
						failed <- err
						return
					}
					var done []string
					var ids []string
					for _, m := range got {
						say("got", string(m.Body))
						if !strings.HasSuffix(string(m.Body), "z") {
							done, ids = append(done, m.Receipt), append(ids, string(m.Body))
						}
					}
					for i, err := range b.DeleteMessages(ctx, q.Name, done) {
						if err == nil {
							say("deleted", ids[i])
						}
					}
				}
			}()
		}
	}
	return <-failed
}

// tally is what was said of queues by processes that were killed.
type tally struct {
	sent, deleted map[string]bool
	got, late     map[string]int // late: after its deletion was acknowledged
}

func (y *tally) round(t *testing.T, dir string, round int) {
	t.Helper()
	var plan fault.Plan
	wait := time.Duration(100+rand.IntN(900)) * time.Millisecond
	if round%3 == 2 { // between the sending of dead letters to another Partition and their removal
		plan, wait = fault.Plan{Point: string(bus.AtMoving), Nth: 1}, time.Minute
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir, fmt.Sprintf("%s=%d", childRound, round), childQueues+"=1", childPlan+"="+plan.String())
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
	var before = map[string]bool{} // deleted in earlier rounds: in this one another goroutine may still be saying that it has it
	for id := range y.deleted {
		before[id] = true
	}
	kill := sync.OnceFunc(func() {
		time.AfterFunc(wait, func() {
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
		case f[0] == "sent":
			y.sent[f[1]] = true
		case f[0] == "deleted":
			y.deleted[f[1]] = true
			kill() // not before everything has been done once
		case f[0] == "got":
			y.got[f[1]]++
			if before[f[1]] {
				y.late[f[1]]++
			}
		case f[0] == "error":
			t.Fatalf("round %d: %s", round, line)
		}
	}
	_ = cmd.Wait()
	if killed.Load() == (plan.Point != "") || !strings.Contains(cmd.ProcessState.String(), "killed") {
		t.Fatalf("round %d: the child ended with %v", round, cmd.ProcessState)
	}
}

// stands counts where messages stand, and the dead letters among them.
func stands(t *testing.T, w *world) (there map[string]int, dead int, _ error) {
	t.Helper()
	there = map[string]int{}
	// Where messages come from first: one that is moved meanwhile is seen twice, and not never.
	for _, q := range []string{"q", "q.fifo", "dead", "dead.fifo"} {
		after := ""
		for {
			page, err := w.PeekQueue(t.Context(), q, after, 1000)
			if err != nil {
				return nil, 0, err
			}
			if len(page) == 0 {
				break
			}
			for _, m := range page {
				there[string(m.Body)]++
				if m.DeadFrom != "" {
					dead++
				}
			}
			after = page[len(page)-1].Receipt
		}
	}
	return there, dead, nil
}

// Killed at any moment, every acknowledged send ends as a deletion, as a dead letter, or is still there, once; and what was deleted does not come back.
func TestQueue_LosesNothingToKill(t *testing.T) { bothWays(t, queueLosesNothing) }

func queueLosesNothing(t *testing.T, dir string) {
	t.Helper()
	rounds := 15
	if testing.Short() {
		rounds = 3
	}
	y := &tally{map[string]bool{}, map[string]bool{}, map[string]int{}, map[string]int{}}
	for i := range rounds {
		if i%6 == 5 {
			if err := os.RemoveAll(filepath.Join(dir, "index")); err != nil {
				t.Fatal(err)
			}
		}
		y.round(t, dir, i)
	}
	w := start(t, dir, killOptions(dir, nil))
	until(t, "sync", func() (bool, error) { return true, w.Sync(t.Context()) })
	var there map[string]int
	dead := 0
	until(t, "all moves have ended", func() (_ bool, err error) { // which go on when somebody receives
		for _, q := range killQueues[2:] {
			if _, err := w.Receive(t.Context(), q.Name, bus.Receive{Max: 1000}); err != nil {
				return false, err
			}
		}
		if there, dead, err = stands(t, w); err != nil {
			return false, err
		}
		for _, n := range there {
			if n > 1 {
				return false, nil
			}
		}
		return true, nil
	})
	again := 0
	for id := range y.sent {
		// A deletion whose answer the kill took away is known by its message having been received.
		if !y.deleted[id] && there[id] == 0 && (y.got[id] == 0 || strings.HasSuffix(id, "z")) {
			t.Errorf("%s was lost", id)
		}
	}
	for id, n := range there {
		if y.deleted[id] || n > 1 {
			t.Errorf("%s is there %d times; deleted: %v", id, n, y.deleted[id])
		}
	}
	for id, n := range y.late {
		t.Errorf("%s came %d times after it was deleted", id, n)
	}
	for _, n := range y.got {
		again += n - 1
	}
	if len(y.sent) < rounds || len(y.deleted) < rounds-1 {
		t.Errorf("only %d messages were sent, %d deleted", len(y.sent), len(y.deleted))
	}
	t.Logf("%d rounds: %d sent, %d deleted, %d there, of them %d dead letters; %d received more than once", rounds, len(y.sent), len(y.deleted), len(there), dead, again)
	w.stop() // with it ends what receives have begun to move
	w = start(t, dir, killOptions(dir, nil))
	until(t, "nothing is in flight", func() (bool, error) { // which would end by the time
		if err := w.Sync(t.Context()); err != nil {
			return false, err
		}
		flying := 0
		for _, q := range killQueues {
			st, err := w.QueueStatus(t.Context(), q.Name)
			if flying += st.InFlight; err != nil {
				return false, err
			}
		}
		return flying == 0, nil
	})
	dump := queueDump(t, w)
	w.stop()
	if err := os.RemoveAll(w.opt.Dir); err != nil {
		t.Fatal(err)
	}
	w = start(t, dir, killOptions(dir, nil))
	until(t, "sync", func() (bool, error) { return true, w.Sync(t.Context()) })
	if got := queueDump(t, w); got != dump {
		at := 0
		for at < min(len(got), len(dump)) && got[at] == dump[at] {
			at++
		}
		t.Errorf("the index came out otherwise:\n%.300s\nand not\n%.300s", got[max(0, at-150):], dump[max(0, at-150):])
	}
}
