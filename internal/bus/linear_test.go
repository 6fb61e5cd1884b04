package bus

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/ebb-run/ebb/internal/event"
	"github.com/ebb-run/ebb/internal/nats"
)

// act is one operation of a history: what was asked of which thing. Things are independent of each other.
type act struct{ do, thing, arg string }

// answer is what came of it; not known when the call failed: it may have taken place, also later.
type answer struct {
	value   string
	unknown bool
}

// The states of the models are texts; next gives those that an operation may lead to, none when its answer is impossible.
var next = map[byte]func(state string, a act, out answer) []string{'e': nextEvent, 'q': nextQueue, 's': nextSlot, 'l': nextLease}

// nextEvent: an event that was published, however often, has one delivery, the same for whoever looks.
func nextEvent(state string, a act, out answer) []string {
	published := state
	if state == "" {
		published = "published"
	}
	switch {
	case a.do == "publish" && out.unknown:
		return []string{state, published}
	case a.do == "publish":
		return []string{published}
	case out.unknown || out.value == state && state != "published":
		return []string{state}
	case state == "published" && out.value != "":
		return []string{out.value}
	}
	return nil
}

// nextQueue: one group of a FIFO queue, whose visibility outlasts the test. The state is the messages, with a mark when the first is in flight. A receive
// that finds nothing says nothing: it may not know yet what another Node has sent.
func nextQueue(state string, a act, out answer) []string {
	list := strings.Fields(state)
	flying := len(list) > 0 && list[0] == "!"
	if flying {
		list = list[1:]
	}
	join := func(flying bool, list []string) string {
		if flying {
			list = append([]string{"!"}, list...)
		}
		return strings.Join(list, " ")
	}
	var then []string
	switch a.do {
	case "send":
		then = []string{join(flying, append(slices.Clone(list), a.arg))}
	case "receive":
		if !flying && len(list) > 0 && (out.unknown || out.value == list[0]) {
			then = []string{join(true, list)}
		}
		if out.value == "" {
			then = append(then, state)
		}
	case "delete":
		if flying && list[0] == a.arg {
			then = []string{join(false, list[1:])}
		}
	}
	if out.unknown {
		then = append(then, state)
	}
	return then
}

// nextSlot: a Schedule's newest slot only rises, whoever fires what.
func nextSlot(state string, a act, out answer) []string {
	later := state
	if state == "" || len(a.arg) > 0 && a.arg > state {
		later = a.arg
	}
	switch {
	case a.do == "fire" && out.unknown:
		return []string{state, later}
	case a.do == "fire":
		return []string{later}
	case out.unknown || out.value == state:
		return []string{state}
	}
	return nil
}

// nextLease: whoever takes the lease has a newer epoch than all who had it.
func nextLease(state string, _ act, out answer) []string {
	if out.unknown {
		return []string{state} // what was taken and not told is of no use to anybody
	}
	old, _ := strconv.Atoi(state)
	if epoch, err := strconv.Atoi(out.value); err == nil && epoch > old {
		return []string{out.value}
	}
	return nil
}

func model() porcupine.Model {
	m := porcupine.NondeterministicModel{
		Partition: func(history []porcupine.Operation) (out [][]porcupine.Operation) {
			at := map[string]int{}
			for _, o := range history {
				thing := o.Input.(act).thing
				i, ok := at[thing]
				if !ok {
					i = len(out)
					at[thing], out = i, append(out, nil)
				}
				out[i] = append(out[i], o)
			}
			return out
		},
		Init: func() []any { return []any{""} },
		Step: func(state, in, out any) (to []any) {
			for _, s := range next[in.(act).thing[0]](state.(string), in.(act), out.(answer)) {
				to = append(to, s)
			}
			return to
		},
		DescribeOperation: func(in, out any) string { return fmt.Sprint(in, " → ", out) },
	}
	return m.ToModel()
}

// history records operations.
type history struct {
	began time.Time
	mu    struct {
		sync.Mutex
		all     []porcupine.Operation
		unknown int
	}
}

func (h *history) do(client int, a act, f func() (string, error)) (string, error) {
	call := int64(time.Since(h.began))
	v, err := f()
	o := porcupine.Operation{ClientId: client, Input: a, Call: call, Output: answer{value: v}, Return: int64(time.Since(h.began))}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		o.Output, o.Return = answer{unknown: true}, math.MaxInt64
		// A client does one thing at a time: who does not know how the last ended goes on as another.
		h.mu.unknown++
		o.ClientId = -h.mu.unknown
	}
	h.mu.all = append(h.mu.all, o)
	return v, err
}

func (h *history) check(t *testing.T) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	kinds := map[string]int{}
	for _, o := range h.mu.all {
		if a := o.Input.(act); o.Output.(answer).value != "" || a.do == "publish" || a.do == "send" || a.do == "delete" || a.do == "fire" {
			kinds[a.do]++
		}
	}
	t.Logf("%d operations, of %d the answer was lost; with an effect: %v", len(h.mu.all), h.mu.unknown, kinds)
	for _, part := range model().Partition(h.mu.all) {
		if r := porcupine.CheckOperationsTimeout(model(), part, time.Minute); r != porcupine.Ok {
			text := ""
			slices.SortFunc(part, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
			for _, o := range part {
				text += fmt.Sprintf("%10d %10d %v → %v\n", o.Call/1000, o.Return/1000, o.Input, o.Output)
			}
			t.Errorf("%s: no order explains\n%s", r, text)
		}
	}
}

// party is a Node over a server, on a connection of its own.
type party struct {
	*Bus
	conn *nats.Conn
	stop func()
}

func joinParty(t *testing.T, url, name string) *party {
	t.Helper()
	conn, err := nats.Open(t.Context(), nats.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	ok := DelivererFunc(func(_ context.Context, batch []*Delivery) []Outcome { return make([]Outcome, len(batch)) })
	b, err := Open(t.Context(), conn.JetStream(), Options{Dir: filepath.Join(t.TempDir(), "index"), Node: name, Partitions: 2, Lease: 2 * time.Second, Deliver: ok,
		Now: func() time.Time { return linearEpoch }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = b.Run(ctx) })
	p := &party{Bus: b, conn: conn}
	p.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		_ = b.Close()
		_ = conn.Close()
	})
	t.Cleanup(p.stop)
	return p
}

// DelivererFunc is a function as a Deliverer.
type DelivererFunc func(context.Context, []*Delivery) []Outcome

// Deliver calls it.
func (f DelivererFunc) Deliver(ctx context.Context, batch []*Delivery) []Outcome {
	return f(ctx, batch)
}

// linearEpoch is the time at which the clock of schedules stands: what fires is fired by the test.
var linearEpoch = time.Date(2026, 11, 23, 10, 0, 30, 0, time.UTC)

func tcpServer(t *testing.T) string {
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
	return srv.ClientURL()
}

// users are clients of several Nodes that do random things.
type users struct {
	h     *history
	gens  map[string]firing // of the Schedules
	mu    sync.Mutex
	nodes []*party
}

func (u *users) node(i int) *party {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.nodes[i%len(u.nodes)]
}

// step does one random thing. held are the messages that the client has received, by queue.
func (u *users) step(ctx context.Context, client, i int, r *rand.Rand, held map[string]Received) {
	b := u.node(client + i).Bus
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	switch thing := strconv.Itoa(r.IntN(4)); r.IntN(7) {
	case 0:
		_, _ = u.h.do(client, act{"publish", "e" + thing, ""}, func() (string, error) {
			_, err := b.Publish(ctx, &event.Event{ID: thing, Source: "s", Type: "t"})
			return "", err
		})
	case 1:
		_, _ = u.h.do(client, act{"read", "e" + thing, ""}, func() (string, error) {
			if err := b.Sync(ctx); err != nil {
				return "", err
			}
			st, err := b.StatusOfEvent(ctx, "", "s", thing)
			if len(st) > 1 {
				return "several", err
			}
			if len(st) == 0 {
				return "", err
			}
			return st[0].ID, err
		})
	case 2, 3:
		body := fmt.Sprintf("%d-%d", client, i)
		_, _ = u.h.do(client, act{"send", "q" + thing, body}, func() (string, error) {
			out, err := b.Send(ctx, "q"+thing+".fifo", []Message{{Body: []byte(body), Group: "g", Dedup: body}})
			if err == nil {
				err = out[0].Err
			}
			return "", err
		})
	case 4:
		_, _ = u.h.do(client, act{"receive", "q" + thing, ""}, func() (string, error) {
			got, err := b.Receive(ctx, "q"+thing+".fifo", Receive{})
			if err != nil || len(got) == 0 {
				return "", err
			}
			held[thing] = got[0]
			return string(got[0].Body), nil
		})
		if m, ok := held[thing]; ok {
			delete(held, thing)
			_, _ = u.h.do(client, act{"delete", "q" + thing, string(m.Body)}, func() (string, error) {
				return "", b.DeleteMessages(ctx, "q"+thing+".fifo", []string{m.Receipt})[0]
			})
		}
	case 5:
		f := u.gens[thing]
		slot := linearEpoch.Truncate(time.Minute).Add(time.Duration(1+i/4+r.IntN(3)) * time.Minute)
		f.Slot = ms(slot)
		p := b.partitionOfSchedule("t", thing)
		_, _ = u.h.do(client, act{"fire", "s" + thing, strconv.FormatInt(f.Slot, 10)}, func() (string, error) {
			_, err := p.log.append(ctx, []item{firedItem(f, &event.Event{ID: fmt.Sprint(thing, "/", f.Slot), Source: "clock", Type: "t"})})
			return "", err
		})
	default:
		_, _ = u.h.do(client, act{"last", "s" + thing, ""}, func() (string, error) {
			if err := b.Sync(ctx); err != nil {
				return "", err
			}
			all, err := b.Schedules(ctx, ScheduleQuery{Tenant: "t", Name: thing})
			if err != nil || len(all) != 1 || all[0].Last.IsZero() {
				return "", err
			}
			return strconv.FormatInt(ms(all[0].Last), 10), nil
		})
	}
}

// What several Nodes answer while owners of Partitions are cut off and others take over can be put into one order: events are deduplicated by source and id,
// a group of a FIFO queue is received in its order and what is deleted stays so, and the newest slot of a Schedule only rises.
func TestHistories_AreLinearizable(t *testing.T) {
	t.Parallel()
	url := tcpServer(t)
	u := &users{h: &history{began: time.Now()}, gens: map[string]firing{}}
	for i := range 3 {
		u.nodes = append(u.nodes, joinParty(t, url, fmt.Sprint("n", i)))
	}
	setUp(t, u)
	rounds := 3
	if testing.Short() {
		rounds = 1
	}
	for round := range rounds {
		var wg sync.WaitGroup
		for client := range 6 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(round), uint64(client)))
				held := map[string]Received{}
				for i := range 40 {
					u.step(t.Context(), client, round*40+i, r, held)
				}
			})
		}
		// Whoever owns the first Partition goes, as if its network were cut.
		time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond)
		u.mu.Lock()
		gone := slices.IndexFunc(u.nodes, func(p *party) bool {
			p.parts[0].mu.Lock()
			defer p.parts[0].mu.Unlock()
			return p.parts[0].mu.own != nil
		})
		gone = max(gone, 0)
		old := u.nodes[gone]
		u.mu.Unlock()
		old.conn.Conn().Close()
		fresh := joinParty(t, url, fmt.Sprint("r", round))
		u.mu.Lock()
		u.nodes[gone] = fresh
		u.mu.Unlock()
		wg.Wait()
		old.stop()
	}
	u.h.check(t)
}

// setUp makes what the clients use.
func setUp(t *testing.T, u *users) {
	t.Helper()
	ctx, b := t.Context(), u.nodes[0].Bus
	if err := b.Subscribe(ctx, Subscription{Name: "s"}); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		name := strconv.Itoa(i)
		for limit := time.Now().Add(time.Minute); ; {
			err := b.PutQueue(ctx, Queue{Name: "q" + name + ".fifo", FIFO: true, Visibility: new(MaxVisibility)})
			if err == nil {
				break
			}
			if time.Now().After(limit) {
				t.Fatal(err)
			}
		}
		p := b.partitionOfSchedule("t", name)
		s := schedulePut{Schedule{Tenant: "t", Name: name, Expression: "* * * * *", Event: Template{Type: "t"}}, ms(linearEpoch)}
		at, err := p.log.append(ctx, []item{jsonItem(kindSchedule, s)})
		if err != nil {
			t.Fatal(err)
		}
		u.gens[name] = firing{Tenant: "t", Name: name, Gen: ref{Seq: at.seq, Idx: at.first}}
	}
	if err := b.Sync(ctx); err != nil {
		t.Fatal(err)
	}
}

// However many Nodes want a lease, and however each that has it goes, every taking has a newer epoch than those before it.
func TestLease_EpochsOnlyRise(t *testing.T) {
	t.Parallel()
	url := tcpServer(t)
	h := &history{began: time.Now()}
	var wg sync.WaitGroup
	for client := range 4 {
		conn, err := nats.Open(t.Context(), nats.Options{URL: url})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		b, err := Open(t.Context(), conn.JetStream(), Options{Dir: t.TempDir(), Node: strconv.Itoa(client), Partitions: 1, Lease: 50 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Close() })
		wg.Go(func() {
			for i := range 5 {
				var rev uint64
				_, err := h.do(client, act{"take", "l", ""}, func() (_ string, err error) {
					rev, err = b.acquire(t.Context(), b.parts[0])
					return strconv.FormatUint(rev, 10), err
				})
				if err == nil && (client+i)%2 == 0 { // it is given back; else it runs out
					err = b.kv.Delete(t.Context(), b.parts[0].leaseKey())
				}
				if err != nil && !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	h.check(t)
}

// The models refuse histories that are wrong.
func TestModels_RefuseWhatIsWrong(t *testing.T) {
	t.Parallel()
	op := func(call, ret int64, do, thing, arg, value string) porcupine.Operation {
		return porcupine.Operation{ClientId: int(call), Input: act{do, thing, arg}, Call: call, Return: ret, Output: answer{value: value}}
	}
	for name, ops := range map[string][]porcupine.Operation{
		"two deliveries":           {op(1, 2, "publish", "e", "", ""), op(3, 4, "read", "e", "", "x"), op(5, 6, "read", "e", "", "y")},
		"an event lost":            {op(1, 2, "publish", "e", "", ""), op(3, 4, "read", "e", "", "")},
		"a message twice":          {op(1, 2, "send", "q", "a", ""), op(3, 4, "receive", "q", "", "a"), op(5, 6, "receive", "q", "", "a")},
		"out of order":             {op(1, 2, "send", "q", "a", ""), op(3, 4, "send", "q", "b", ""), op(5, 6, "receive", "q", "", "b")},
		"before its front is done": {op(1, 2, "send", "q", "a", ""), op(3, 4, "send", "q", "b", ""), op(5, 6, "receive", "q", "", "a"), op(7, 8, "receive", "q", "", "b")},
		"deleted, and back":        {op(1, 2, "send", "q", "a", ""), op(3, 4, "receive", "q", "", "a"), op(5, 6, "delete", "q", "a", ""), op(7, 8, "receive", "q", "", "a")},
		"a slot back":              {op(1, 2, "fire", "s", "2", ""), op(3, 4, "fire", "s", "1", ""), op(5, 6, "last", "s", "", "1")},
		"an epoch again":           {op(1, 2, "take", "l", "", "5"), op(3, 4, "take", "l", "", "5")},
	} {
		if porcupine.CheckOperations(model(), ops) {
			t.Errorf("%s is taken", name)
		}
	}
}
