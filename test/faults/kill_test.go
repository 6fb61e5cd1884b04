package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
	"github.com/ebb-run/ebb/internal/testkit/fault"
)

// atRunning is the point at which a handler is running: the sink ends the server from outside while it holds the handler's call.
const atRunning = "running"

// The ways on which numbers are sent; a number begins with its way.
const (
	viaAsync = "a"
	viaRule  = "r"
	viaQueue = "q"
)

// sender sends numbers to whichever server is up, so many on each way in each round.
type sender struct {
	mu struct {
		sync.Mutex
		quota   int
		pace    time.Duration // between two of a caller
		up      []*node       // numbers go to one after the other
		turn    int
		round   int
		sent    map[string]int    // in the round, by way
		acked   map[string]string // number → ID of its Invocation, or "-"
		of      map[string]int    // number → round in which it was sent
		error   error             // the last refusal
		refused []time.Time
		newest  map[string]time.Time // when the last was acknowledged, by way
		wrong   map[string]error     // refusals without the code Unavailable or a hint, by text
	}
}

func newSender(quota int) *sender {
	s := &sender{}
	s.mu.quota = quota
	s.mu.newest = map[string]time.Time{}
	s.mu.sent, s.mu.acked, s.mu.of = map[string]int{}, map[string]string{}, map[string]int{}
	return s
}

// begin lets a round's numbers out, to a server.
func (s *sender) begin(round int, up ...*node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.up, s.mu.round = up, round
	clear(s.mu.sent)
}

// next gives the next number on a way; empty when the round has had all of its own.
func (s *sender) next(way string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.mu.up) == 0 || s.mu.sent[way] >= s.mu.quota {
		return ""
	}
	n := fmt.Sprintf("%s/%d/%d", way, s.mu.round, s.mu.sent[way])
	if s.mu.sent[way]%10 == 9 {
		n += "z"
	}
	s.mu.sent[way]++
	s.mu.of[n] = s.mu.round
	return n
}

// send tries one number on the server that is up.
func (s *sender) send(ctx context.Context, way, number string) error {
	s.mu.Lock()
	s.mu.turn++
	n, pace := s.mu.up[s.mu.turn%len(s.mu.up)], s.mu.pace
	s.mu.Unlock()
	time.Sleep(pace)
	id := "-"
	var err error
	switch way {
	case viaAsync:
		var a *api.Accepted
		if a, err = n.InvokeAsync(ctx, function, fmt.Appendf(nil, `{"n":%q}`, number), ""); err == nil {
			id = a.ID
		}
	case viaRule:
		_, err = n.Publish(ctx, "", &event.Event{ID: number, Source: "/faults", Type: "numbered", DataContentType: "application/json", Data: fmt.Appendf(nil, `{"n":%q}`, number)})
	default:
		_, err = n.SendMessage(ctx, jobs, api.QueueMessage{Body: number})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.mu.error, s.mu.refused = err, append(s.mu.refused, time.Now())
		if s.mu.wrong != nil && (errs.CodeOf(err) != errs.Unavailable || errs.HintOf(err) == "") {
			s.mu.wrong[err.Error()] = err
		}
		return err
	}
	s.mu.acked[number] = id
	s.mu.newest[way] = time.Now()
	return nil
}

// run sends until ctx ends. An event of a rule is sent again until it is acknowledged, with the same id; on the other ways a number whose answer was lost
// may have been accepted, and a second one would be another.
func (s *sender) run(ctx context.Context, way string) {
	for ctx.Err() == nil {
		number := s.next(way)
		if number == "" {
			time.Sleep(5 * time.Millisecond) // there is nothing to wait on but the next round
			continue
		}
		for s.send(ctx, way, number) != nil && ctx.Err() == nil {
			time.Sleep(5 * time.Millisecond)
			if way != viaRule {
				break
			}
		}
	}
}

// numbers gives what was acknowledged on a way.
func (s *sender) numbers(way string) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]string{}
	for n, id := range s.mu.acked {
		if strings.HasPrefix(n, way+"/") {
			out[n] = id
		}
	}
	return out
}

func (s *sender) refusal() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.error
}

// tally is what became of the numbers that were sent in the rounds of one point.
type tally struct{ Kills, Acked, Done, Dead, Lost, Again int }

// plans gives the rounds: where each ends.
func plans(rounds, quota int) (all []*fault.Plan) {
	most := map[bus.Point]int{bus.AtAccepted: quota, bus.AtMatched: 5, bus.AtDequeued: quota, bus.AtEnded: quota, bus.AtMoving: 1, bus.AtRedriving: 1, atRunning: quota}
	for range rounds {
		for _, p := range []bus.Point{bus.AtAccepted, bus.AtMatched, bus.AtDequeued, atRunning, bus.AtEnded, bus.AtMoving, bus.AtRedriving} {
			all = append(all, &fault.Plan{Point: string(p), Nth: 1 + rand.Int64N(int64(most[p]))})
		}
	}
	return all
}

// Ended with SIGKILL at every point on the way, again and again, a server loses nothing that it acknowledged: asynchronous invocations, events for a rule
// and messages of a queue each end as a success or as a dead letter, and what is redriven then succeeds.
func TestKill_AtEveryPointLosesNothing(t *testing.T) {
	t.Parallel()
	rounds, quota := 4, 120
	if testing.Short() {
		rounds, quota = 1, 20
	}
	if *page != "" {
		rounds, quota = 8, 150
	}
	k := newSink(t)
	flags := map[string]string{"data": filepath.Join(t.TempDir(), "data"), "egress": k.addr}
	first := start(t, flags, &fault.Plan{})
	deploy(t, first, deployment(k.addr), handler)
	first.kill()

	s := newSender(quota)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, way := range []string{viaAsync, viaRule, viaQueue} {
		for range 4 {
			wg.Go(func() { s.run(ctx, way) })
		}
	}
	defer wg.Wait()
	defer stop()
	all := plans(rounds, quota)
	for i, p := range all {
		round(t, s, k, flags, i, p)
	}
	n := start(t, flags, &fault.Plan{})
	k.begin(len(all), 0, nil)
	s.mu.Lock()
	s.mu.quota = 0 // nothing new
	s.mu.Unlock()
	s.begin(len(all), n)
	until(t, "all events of the rule are acknowledged", func() (bool, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for number := range s.mu.of {
			if _, ok := s.mu.acked[number]; !ok && strings.HasPrefix(number, viaRule) {
				return false, nil
			}
		}
		return true, nil
	})
	stop()
	wg.Wait()
	report(t, count(t, n, s, k, all))
}

// round lets one server live until its point.
func round(t *testing.T, s *sender, k *sink, flags map[string]string, i int, p *fault.Plan) {
	t.Helper()
	theirs := p
	if p.Point == atRunning {
		theirs = &fault.Plan{}
	}
	n, err := tryStart(t, flags, theirs)
	if err != nil && strings.Contains(err.Error(), "killed") {
		return // at something that an earlier round has left
	}
	if err != nil {
		t.Fatalf("round %d, %s: %v", i, p, err)
	}
	if p.Point == atRunning {
		k.begin(i, int(p.Nth), n.kill)
	} else {
		k.begin(i, 0, nil)
	}
	s.begin(i, n)
	limit := time.After(patience)
	for dies := false; !dies; {
		if p.Point == string(bus.AtRedriving) { // one of the two, whichever has something
			if i%2 == 0 {
				_, _ = n.RedriveQueue(t.Context(), dead, "")
			} else {
				_, _ = n.Redrive(t.Context(), api.InvocationChoice{All: true})
			}
		}
		select {
		case <-n.done:
			dies = true
		case <-limit:
			n.kill()
			t.Fatalf("round %d: %s was not passed; last refusal: %v\n%s", i, p, s.refusal(), n.said)
		case <-time.After(20 * time.Millisecond):
		}
	}
	if state := n.cmd.ProcessState.String(); !strings.Contains(state, "killed") {
		t.Fatalf("round %d, %s: the server ended by itself: %s\n%s", i, p, state, n.said)
	}
	n.CloseIdle()
}

// settled waits until nothing is left to do.
func settled(t *testing.T, n *node) (rule api.SubscriptionInfo) {
	t.Helper()
	until(t, "settled", func() (bool, error) {
		list, err := n.Subscriptions(t.Context())
		if err != nil {
			return false, err
		}
		open := 0
		for _, sub := range list {
			if open += sub.Pending; sub.Name == ruleName {
				rule = sub
			}
		}
		q, err := queue(t, n, jobs)
		return open+q.Visible+q.InFlight+q.Delayed == 0, err
	})
	return rule
}

func queue(t *testing.T, n *node, name string) (api.QueueInfo, error) {
	list, err := n.Queues(t.Context())
	for _, q := range list {
		if q.Name == name {
			return q, nil
		}
	}
	if err == nil {
		err = errs.New(errs.NotFound, "no queue %s", name)
	}
	return api.QueueInfo{}, err
}

// count settles everything, says what became of each number, redrives the dead letters and looks again.
func count(t *testing.T, n *node, s *sender, k *sink, all []*fault.Plan) map[string]*tally {
	t.Helper()
	by := map[string]*tally{}
	for _, p := range all {
		if by[p.Point] == nil {
			by[p.Point] = &tally{}
		}
		by[p.Point].Kills++
	}
	of := func(number string) *tally { return by[all[s.mu.of[number]].Point] }
	lost := func(number, format string, args ...any) {
		of(number).Lost++
		t.Errorf("%s: %s", number, fmt.Sprintf(format, args...))
	}
	rule := settled(t, n)
	letters, err := queue(t, n, dead)
	if err != nil {
		t.Fatal(err)
	}
	end := func(number string, isDead bool) {
		of(number).Acked++
		if isDead {
			of(number).Dead++
		} else {
			of(number).Done++
		}
	}
	for number, id := range s.numbers(viaAsync) {
		st, err := n.Invocation(t.Context(), id)
		if err != nil || st.State != "succeeded" && st.State != "dead" {
			lost(number, "it is %+v, %v", st, err)
			continue
		}
		end(number, st.State == "dead")
		if ran, failed := k.seen(number); (st.State == "dead") != poison(number) && st.Redriven == 0 || len(ran)+failed == 0 {
			lost(number, "it is %s, and its handler ran %d times and failed %d times", st.State, len(ran), failed)
		}
	}
	events := s.numbers(viaRule)
	s.mu.Lock()
	unknown := 0 // sent, and the answer lost with the end of the test
	for number := range s.mu.of {
		if _, ok := s.mu.acked[number]; !ok && strings.HasPrefix(number, viaRule+"/") {
			unknown++
		}
	}
	s.mu.Unlock()
	if ended := rule.Done + rule.Dead; ended < len(events) || ended > len(events)+unknown {
		t.Errorf("%d events of the rule were acknowledged, %d have ended: %d and %d dead letters", len(events), rule.Done+rule.Dead, rule.Done, rule.Dead)
	}
	for number := range events {
		end(number, poison(number))
		if ran, failed := k.seen(number); poison(number) && failed == 0 || !poison(number) && len(ran) == 0 {
			lost(number, "its handler ran %d times and failed %d times", len(ran), failed)
		}
	}
	// A message may be a dead letter because the server died with it three times.
	messages, inDead := s.numbers(viaQueue), 0
	for number := range messages {
		ran, _ := k.seen(number)
		end(number, len(ran) == 0)
		if len(ran) == 0 {
			inDead++
		}
	}
	if inDead > letters.Visible {
		t.Errorf("%d messages did not succeed, and there are %d dead letters", inDead, letters.Visible)
	}
	k.heal()
	until(t, "redriven", func() (bool, error) {
		moved, err := n.RedriveQueue(t.Context(), dead, "")
		if err != nil {
			return false, err
		}
		again, err := n.Redrive(t.Context(), api.InvocationChoice{All: true})
		if err != nil {
			return false, err
		}
		settled(t, n)
		left, err := queue(t, n, dead)
		return moved+again+left.Visible+left.InFlight == 0, err
	})
	for _, list := range []map[string]string{s.numbers(viaAsync), messages} {
		for number := range list {
			if ran, _ := k.seen(number); len(ran) == 0 {
				lost(number, "it was redriven, and did not run")
			}
		}
	}
	k.mu.Lock()
	for number, ran := range k.mu.ran {
		if s.mu.acked[number] != "" {
			for _, r := range ran[:len(ran)-1] { // the first of two was cut off by the kill of its round
				by[all[min(r, len(all)-1)].Point].Again++
			}
		}
	}
	k.mu.Unlock()
	return by
}

// report prints the table, and writes it into the page where that is asked for.
func report(t *testing.T, by map[string]*tally) {
	t.Helper()
	var b strings.Builder
	b.WriteString("| killed | kills | acknowledged | succeeded | dead letters | lost | run once more |\n|---|---|---|---|---|---|---|\n")
	sum := tally{}
	row := func(name string, y tally) {
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d | %d |\n", name, y.Kills, y.Acked, y.Done, y.Dead, y.Lost, y.Again)
	}
	for _, p := range []struct{ point, words string }{
		{string(bus.AtAccepted), "after accept: durable, not answered"}, {string(bus.AtMatched), "after match: folded, not committed"}, {string(bus.AtDequeued), "after dequeue: the function not called"},
		{atRunning, "mid-run: the handler is running"}, {string(bus.AtEnded), "before ack: the handler is done, its outcome not written"},
		{string(bus.AtMoving), "during a dead-letter move of the queue"}, {string(bus.AtRedriving), "during a redrive"},
	} {
		y := by[p.point]
		row(p.words, *y)
		sum = tally{sum.Kills + y.Kills, sum.Acked + y.Acked, sum.Done + y.Done, sum.Dead + y.Dead, sum.Lost + y.Lost, sum.Again + y.Again}
	}
	row("**all**", sum)
	t.Logf("\n%s", b.String())
	writePage(t, "kill", b.String())
}

var pageLock sync.Mutex

// writePage puts a text between the page's marks of that name.
func writePage(t *testing.T, mark, text string) {
	t.Helper()
	if *page == "" || t.Failed() {
		return
	}
	pageLock.Lock()
	defer pageLock.Unlock()
	data, err := os.ReadFile(*page)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- "+mark+": measured -->\n", "<!-- end -->"
	before, rest, ok := strings.Cut(string(data), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no marks for %s", *page, mark)
	}
	if err := os.WriteFile(*page, []byte(before+begin+text+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
