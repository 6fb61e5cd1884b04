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
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/nats"
)

// childStreams in the environment makes the child of the kill tests one that uses streams.
const childStreams = "EBB_BUS_KILL_STREAMS"

var killMapping = bus.StreamMapping{Name: "m", Stream: "s", Start: bus.Start{From: bus.TrimHorizon}, Batch: 10, Parallel: 3, Retries: new(2), Bisect: true}

// teller says what it consumes, before it answers; some Batches fail from a record on the first time.
type teller struct {
	say    func(text string)
	failed sync.Map
}

func (c *teller) Consume(_ context.Context, b *invocation.Batch) invocation.Verdict {
	for i, it := range b.Items {
		text := string(it.Event.Data)
		if strings.HasSuffix(text, "13") {
			if _, again := c.failed.LoadOrStore(text, true); !again {
				v := invocation.Verdict{}
				for ; i < len(b.Items); i++ {
					v.Failed = append(v.Failed, i)
				}
				return v
			}
		}
		c.say(text)
	}
	return invocation.Verdict{}
}

// useStreams puts records and consumes them, and prints what was acknowledged after it was.
func useStreams(dir, round string) error {
	ctx := context.Background()
	conn, err := nats.Open(ctx, kept(dir))
	if err != nil {
		return err
	}
	b, err := bus.Open(ctx, conn.JetStream(), killOptions(dir, nil))
	if err != nil {
		return err
	}
	go func() { _ = b.Run(ctx) }()
	n, err := strconv.Atoi(round)
	if err != nil {
		return err
	}
	if n == 0 {
		if err := b.PutStream(ctx, bus.Stream{Name: "s", Shards: 3}); err != nil {
			return err
		}
	}
	say("ready")
	failed := make(chan error)
	go func() {
		failed <- b.PollStream(ctx, killMapping, &teller{say: func(text string) { say("got", text) }})
	}()
	if n%3 == 1 {
		go func() {
			if err := b.PutStream(ctx, bus.Stream{Name: "s", Shards: 2 + n%4}); err != nil {
				failed <- err
			}
		}()
	}
	for g := range 4 {
		go func() {
			for i := n * 1_000_000; ; i += 2 {
				var recs []bus.Record
				for k := range 6 {
					key := fmt.Sprintf("k%d.%d", g, k%3)
					recs = append(recs, bus.Record{Key: key, Data: fmt.Appendf(nil, "%s:%d", key, i+k/3)})
				}
				out, err := b.PutRecords(ctx, "s", recs)
				if err != nil {
					failed <- err
					return
				}
				for k := range out {
					if out[k].Err == nil {
						say("put", string(recs[k].Data))
					}
				}
				time.Sleep(2 * time.Millisecond) // so that the consumer keeps up
			}
		}()
	}
	return <-failed
}

// streamTally is what was said of a stream by processes that were killed.
type streamTally struct {
	put   map[string]bool
	got   map[string]int
	last  map[string]int // the greatest that was consumed, by key
	order []string       // what came too early
}

func (y *streamTally) consumed(text string) {
	y.got[text]++
	key, number, _ := strings.Cut(text, ":")
	n, err := strconv.Atoi(number)
	if err != nil {
		y.order = append(y.order, text)
		return
	}
	y.last[key] = max(y.last[key], n)
}

func (y *streamTally) round(t *testing.T, dir string, round int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir, fmt.Sprintf("%s=%d", childRound, round), childStreams+"=1")
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
	var once sync.Once
	kill := func(after int) {
		once.Do(func() {
			time.AfterFunc(time.Duration(after)*time.Millisecond, func() {
				killed.Store(true)
				_ = cmd.Process.Kill()
			})
		})
	}
	first := map[string]int{} // by key, in this round: it may begin with what was consumed before, but goes on without a gap
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
		case f[0] == "ready":
			if round%3 == 1 {
				kill(1700 + rand.IntN(1000)) // its shards change about then
			}
		case f[0] == "put":
			y.put[f[1]] = true
			if round%3 != 1 {
				kill(300 + rand.IntN(1200))
			}
		case f[0] == "got":
			key, number, _ := strings.Cut(f[1], ":")
			if n, err := strconv.Atoi(number); err != nil || n <= first[key] && first[key] > 0 {
				y.order = append(y.order, fmt.Sprintf("round %d: %s after %d", round, f[1], first[key]))
			} else {
				first[key] = n
			}
			y.consumed(f[1])
		case f[0] == "error":
			t.Fatalf("round %d: %s", round, line)
		}
	}
	_ = cmd.Wait()
	if !killed.Load() {
		t.Fatalf("round %d: the child ended by itself", round)
	}
}

// Killed at any moment, every acknowledged record is in the stream, in the order of its key, and is consumed: none is lost or passed over, and within one life of the
// process each comes once and in order.
func TestStream_LosesNothingToKill(t *testing.T) { bothWays(t, streamLosesNothing) }

func streamLosesNothing(t *testing.T, dir string) {
	t.Helper()
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	y := &streamTally{put: map[string]bool{}, got: map[string]int{}, last: map[string]int{}}
	for i := range rounds {
		if i%5 == 4 {
			if err := os.RemoveAll(filepath.Join(dir, "index")); err != nil {
				t.Fatal(err)
			}
		}
		y.round(t, dir, i)
	}
	w := start(t, dir, killOptions(dir, nil))
	until(t, "sync", func() (bool, error) { return true, w.Sync(t.Context()) })
	there, last, keys := map[string]int{}, map[string]int{}, map[string][]string{}
	st, err := w.StreamStatus(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range st.List { // parents before the shards that follow them
		for _, text := range w.shardData(t, "s", h.ID, 500) {
			key, number, _ := strings.Cut(text, ":")
			n, err := strconv.Atoi(number)
			if err != nil || there[text] > 0 || n <= last[key] && last[key] > 0 {
				t.Errorf("%s: %s stands behind %d", h.ID, text, last[key])
			}
			there[text]++
			last[key] = n
			keys[key] = append(keys[key], text)
		}
	}
	for text := range y.put {
		if there[text] == 0 {
			t.Errorf("%s was lost", text)
		}
	}
	var mu sync.Mutex
	w.pollStream(t, killMapping, &teller{say: func(text string) {
		mu.Lock()
		defer mu.Unlock()
		y.consumed(text)
	}})
	until(t, "the rest is consumed", func() (bool, error) {
		n, err := bus.Lag(w.Bus, "m", "s")
		return n == 0, err
	})
	mu.Lock()
	defer mu.Unlock()
	again := 0
	for text := range there {
		if y.got[text] == 0 {
			t.Errorf("%s was not consumed", text)
		}
		again += y.got[text] - 1
	}
	for _, text := range y.order {
		t.Errorf("out of order: %s", text)
	}
	if len(y.put) < rounds {
		t.Errorf("only %d records were put", len(y.put))
	}
	t.Logf("%d rounds: %d records acknowledged, %d there in %d shards, %d consumed more than once", rounds, len(y.put), len(there), len(st.List), again)
	dump := streamDump(t, w, "m")
	w.stop()
	if err := os.RemoveAll(w.opt.Dir); err != nil {
		t.Fatal(err)
	}
	w = start(t, dir, killOptions(dir, nil))
	until(t, "sync", func() (bool, error) { return true, w.Sync(t.Context()) })
	if got := streamDump(t, w, "m"); got != dump {
		t.Error("the index came out otherwise")
	}
}
