package bus

import (
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/ebb-run/ebb/internal/errs"
)

// maxReceivers bounds how many calls of Receive wait in one Partition.
const maxReceivers = 20_000

// given is a message that was given to a receiver; its body is in the log.
type given struct {
	entry
	First   int64  `json:"f"` // ms
	Sent    int64  `json:"t"` // ms
	Visible int64  `json:"v"` // ms
	Dead    string `json:"d,omitempty"`
	Size    int    `json:"z,omitempty"` // bytes of the body
	grp     string
}

// receiving is a Receive that waits.
type receiving struct {
	key   string
	max   int
	vis   *int64 // ms; nil means the queue's
	look  bool   // it only waits for one that could be received
	until int64  // ms
	done  chan receivedNow
	state atomic.Int32 // stillThere, answered or left
}

type receivedNow struct {
	gen  int64
	msgs []given
	err  error
}

const (
	stillThere int32 = iota
	answered
	left
)

// answer gives the receiver what it got, and tells whether it is still there.
func (r *receiving) answer(n receivedNow) bool {
	if !r.state.CompareAndSwap(stillThere, answered) {
		return false
	}
	r.done <- n
	return true
}

// moving asks to move messages to another queue.
type moving struct {
	key, to string // to empty: back to where each comes from
	ids     []string
	max     int
	done    chan moved
}

type moved struct {
	n   int
	err error
}

// freed gives back the marks of messages that were not moved.
type freed struct {
	key  string
	msgs []given
	gen  int64
	keep bool // there is nowhere to move them to: their queue gives them to receivers for a while
}

// qlane is one queue, as the owner's goroutine knows it.
type qlane struct {
	waiting []*receiving
	lookers []*receiving
	dirty   bool  // there may be something to give
	next    int64 // ms; when there may be without a change
	keep    int64 // ms; until then nothing goes to the dead-letter queue, which did not take it
	// Of a standard queue: up to here, in the order of visible and place, all that is visible is marked.
	seen cursor
}

// cursor is a message in the order in which a standard queue gives them.
type cursor struct {
	visible int64 // ms
	at      spot
}

// giver gives messages of queues to receivers. It belongs to the owner's goroutine, but for listen and silence.
type giver struct {
	o       *owner
	in      chan any // *receiving, *moving, freed
	lanes   map[string]*qlane
	marks   map[spot]groupName // chosen, and the fold has not read that yet
	marked  map[int64]int      // how many, by generation
	busy    map[groupName]int  // the same by group
	token   uint64
	pending map[uint64]giving
	sweep   bool
	again   int64 // ms; when there is more to sweep
	waiting atomic.Int64
	sub     []*natsgo.Subscription
	remote  struct {
		sync.Mutex
		calls map[string]context.CancelFunc // of other Nodes, by id
	}
}

// giving is a grant under way.
type giving struct {
	r    *receiving
	gen  int64
	msgs []given
}

func newGiver(o *owner) *giver {
	g := &giver{o: o, in: make(chan any, 256), lanes: map[string]*qlane{}, marks: map[spot]groupName{}, marked: map[int64]int{}, busy: map[groupName]int{}, pending: map[uint64]giving{}, again: math.MaxInt64}
	g.remote.calls = map[string]context.CancelFunc{}
	return g
}

// accept takes a request, and what else has come.
func (g *giver) accept(a any) {
	for {
		switch a := a.(type) {
		case *receiving:
			l := g.lane(a.key)
			if l.dirty = true; a.look {
				l.lookers = append(l.lookers, a)
			} else {
				l.waiting = append(l.waiting, a)
			}
		case *moving:
			g.move(a)
		case freed:
			for _, m := range a.msgs {
				g.unmark(spot{m.Seq, m.Idx})
			}
			l := g.lane(a.key)
			l.seen = cursor{}
			if l.dirty = true; a.keep {
				l.keep = ms(g.o.now()) + keepDead.Milliseconds()
			}
		}
		select {
		case a = <-g.in:
		default:
			return
		}
	}
}

// keepDead is how long a queue gives dead letters to receivers when its dead-letter queue is not there to take them.
const keepDead = 30 * time.Second

func (g *giver) lane(key string) *qlane {
	l := g.lanes[key]
	if l == nil {
		l = &qlane{next: math.MaxInt64}
		g.lanes[key] = l
	}
	return l
}

func (g *giver) mark(gen int64, m given) {
	k := groupName{gen, m.grp}
	g.marks[spot{m.Seq, m.Idx}] = k
	g.marked[gen]++
	if m.grp != "" {
		g.busy[k]++
	}
}

func (g *giver) unmark(s spot) {
	k, ok := g.marks[s]
	if !ok {
		return
	}
	delete(g.marks, s)
	if g.marked[k.gen]--; g.marked[k.gen] <= 0 {
		delete(g.marked, k.gen)
	}
	if k.grp == "" {
		return
	}
	if g.busy[k]--; g.busy[k] <= 0 {
		delete(g.busy, k)
	}
}

// take brings memory up to a commit: grants that were read are answered.
func (g *giver) take(out *queueEffects) {
	for _, gr := range out.grants {
		p, ok := g.pending[gr.token]
		if !ok {
			continue
		}
		delete(g.pending, gr.token)
		var msgs []given
		for i, m := range p.msgs {
			g.unmark(spot{m.Seq, m.Idx})
			if i < len(gr.ok) && gr.ok[i] {
				msgs = append(msgs, m)
			} else if l := g.lanes[p.r.key]; l != nil {
				l.seen = cursor{} // it may still be there
			}
		}
		if len(msgs) == 0 && p.r.state.Load() == stillThere { // all of it was deleted meanwhile
			l := g.lane(p.r.key)
			l.waiting, l.dirty = append(l.waiting, p.r), true
			continue
		}
		if !p.r.answer(receivedNow{gen: p.gen, msgs: msgs}) {
			g.giveBack(p.gen, msgs)
		}
	}
	for _, s := range out.settled {
		if q := g.o.fold.q.gens[g.marks[s].gen]; q != nil {
			if l := g.lanes[q.key]; l != nil {
				l.seen = cursor{} // it may not have been moved
			}
		}
		g.unmark(s)
	}
	for gen, visible := range out.touched {
		if q := g.o.fold.q.gens[gen]; q != nil {
			if l := g.lanes[q.key]; l != nil {
				if l.dirty = true; visible <= l.seen.visible {
					l.seen = cursor{}
				}
			}
		}
	}
	if out.changed {
		for _, l := range g.lanes {
			l.dirty, l.seen = true, cursor{}
		}
	}
}

// giveBack makes messages visible again whose receiver has left.
func (g *giver) giveBack(gen int64, msgs []given) {
	if len(msgs) == 0 {
		return
	}
	items := []item{jsonItem(kindSettled, settled{Gen: gen, Do: settleVisibility, At: ms(g.o.now()), Entries: entries(msgs)})}
	g.o.wait.Go(func() { g.o.record(items) })
}

func entries(msgs []given) []entry {
	out := make([]entry, len(msgs))
	for i, m := range msgs {
		out[i] = m.entry
	}
	return out
}

// work gives what can be given, and returns when it has to be called next, in ms.
func (g *giver) work(ctx context.Context, now int64) (int64, error) {
	next := int64(math.MaxInt64)
	if g.sweep || g.again <= now {
		more, err := g.o.sweepQueues(ctx, now)
		if err != nil {
			return 0, err
		}
		if g.sweep, g.again = false, math.MaxInt64; more {
			g.again = now + 100 // not at once: others have their turn
		}
	}
	next = min(next, g.again)
	for key, l := range g.lanes {
		if len(l.waiting)+len(l.lookers) > 0 && (l.dirty || l.next <= now) {
			if err := g.serve(ctx, key, l, now); err != nil {
				return 0, err
			}
		}
		over := func(r *receiving) bool {
			if r.until <= now {
				r.answer(receivedNow{})
				return true
			}
			return r.state.Load() == left
		}
		l.waiting, l.lookers = slices.DeleteFunc(l.waiting, over), slices.DeleteFunc(l.lookers, over)
		if len(l.waiting)+len(l.lookers) == 0 {
			if l.keep <= now {
				delete(g.lanes, key)
			}
			continue
		}
		next = min(next, l.next)
		for _, all := range [][]*receiving{l.waiting, l.lookers} {
			for _, r := range all {
				next = min(next, r.until)
			}
		}
	}
	return next, nil
}

// maxPick is how many messages are chosen at once.
const maxPick = 4096

// serve gives the queue's messages to those that wait, in the order of their coming.
func (g *giver) serve(ctx context.Context, key string, l *qlane, now int64) error {
	q := g.o.fold.q.live[key]
	if q == nil {
		for _, r := range append(l.waiting, l.lookers...) {
			r.answer(receivedNow{err: noQueue(key)})
		}
		l.waiting, l.lookers = nil, nil
		return nil
	}
	l.waiting = slices.DeleteFunc(l.waiting, func(r *receiving) bool { return r.state.Load() == left })
	l.dirty, l.next = false, math.MaxInt64
	for len(l.waiting) > 0 {
		// All who wait at a standard queue are served from one look; a group of a FIFO queue goes to one of them.
		want, most := l.waiting[0].max, 1
		if !q.spec.FIFO {
			for most = 1; most < len(l.waiting) && want < maxPick; most++ {
				want += l.waiting[most].max
			}
		}
		msgs, dead, err := g.pick(ctx, q, l, want, now)
		if err != nil {
			return err
		}
		for _, m := range dead {
			g.mark(q.gen, m)
		}
		if len(dead) > 0 {
			g.bury(q, dead)
		}
		if len(msgs) == 0 && len(dead) == 0 {
			break
		}
		short := len(msgs) < want
		for len(msgs) > 0 && len(l.waiting) > 0 {
			r := l.waiting[0]
			n := fitting(msgs, r.max)
			l.waiting = l.waiting[1:]
			g.give(q, r, slices.Clone(msgs[:n]), now)
			msgs = msgs[n:]
		}
		if len(msgs) > 0 { // too large for those who wait; the next ones get them
			l.seen = cursor{}
		}
		if short && len(dead) == 0 && !q.spec.FIFO {
			break
		}
	}
	err := g.show(ctx, q, l, now)
	if err == nil && len(l.waiting)+len(l.lookers) > 0 {
		l.next, err = g.o.fold.nextMessage(ctx, q, now)
	}
	return err
}

// maxGiven bounds the bodies of one Receive's messages: they are in memory together. One message is given in any case.
const maxGiven = 16 << 20

// fitting is how many messages one receiver gets, who asks for up to most.
func fitting(msgs []given, most int) int {
	size := 0
	for n, m := range msgs {
		if size += m.Size; n == most || n > 0 && size > maxGiven {
			return n
		}
	}
	return len(msgs)
}

// give writes a grant. It is answered when the fold has read it.
func (g *giver) give(q *liveQueue, r *receiving, msgs []given, now int64) {
	vis := q.spec.visibility().Milliseconds()
	if r.vis != nil {
		vis = *r.vis
	}
	g.token++
	for i := range msgs {
		g.mark(q.gen, msgs[i])
		msgs[i].N++
		msgs[i].Visible = now + vis
		if msgs[i].First == 0 {
			msgs[i].First = now
		}
	}
	g.pending[g.token] = giving{r, q.gen, msgs}
	items := []item{jsonItem(kindReceived, grant{Gen: q.gen, Epoch: g.o.epoch, Token: g.token, At: now, Visible: now + vis, Entries: entries(msgs)})}
	g.o.wait.Go(func() { g.o.record(items) })
}

// pick chooses messages that can be given, and those among them that are dead letters.
func (g *giver) pick(ctx context.Context, q *liveQueue, l *qlane, want int, now int64) (msgs, dead []given, err error) {
	bury := q.spec.deadKey() != "" && l.keep <= now
	take := func(m given) bool {
		if bury && m.N >= q.spec.MaxReceives {
			dead = append(dead, m)
		} else {
			msgs = append(msgs, m)
		}
		return len(msgs) < want && len(dead) < maxMove
	}
	cutoff := now - q.spec.retention().Milliseconds()
	if !q.spec.FIFO {
		// A second comparison with visible lets its index begin there; the plus keeps SQLite from that of sent.
		_, err := g.o.fold.messages(ctx, "visible <= ? AND visible >= ? AND (visible, seq, idx) > (?, ?, ?) AND +sent >= ? ORDER BY visible, seq, idx LIMIT ?",
			[]any{q.gen, now, l.seen.visible, l.seen.visible, int64(l.seen.at.seq), l.seen.at.idx, cutoff, want + g.marked[q.gen]}, func(m given, visible int64) bool {
				at := spot{m.Seq, m.Idx}
				l.seen = cursor{visible, at}
				if _, held := g.marks[at]; held {
					return true
				}
				return take(m)
			})
		return msgs, dead, err
	}
	groups, err := g.o.fold.freeGroups(ctx, q.gen, now, want+len(g.busy))
	if err != nil {
		return nil, nil, err
	}
	for _, grp := range groups {
		if g.busy[groupName{q.gen, grp}] > 0 {
			continue
		}
		before := len(dead)
		_, err := g.o.fold.messages(ctx, "grp = ? AND grp <> '' AND +sent >= ? ORDER BY seq, idx LIMIT ?", []any{q.gen, grp, cutoff, want - len(msgs)}, func(m given, visible int64) bool {
			if len(dead) > before && m.N < q.spec.MaxReceives {
				return false // not before those in front of it are moved
			}
			return visible <= now && take(m)
		})
		if err != nil || len(msgs) >= want || len(dead) >= maxMove {
			return msgs, dead, err
		}
	}
	return msgs, dead, nil
}

// messages reads messages of a queue while take says yes, and returns its last answer.
func (f *folder) messages(ctx context.Context, where string, args []any, take func(m given, visible int64) bool) (bool, error) {
	rows, err := f.x.query(ctx, "SELECT seq, idx, receives, first, sent, dead, size, grp, visible FROM messages WHERE gen = ? AND "+where, args...)
	if err != nil {
		return false, err
	}
	defer rows.Close()
	for rows.Next() {
		var m given
		var visible int64
		if err := rows.Scan(&m.Seq, &m.Idx, &m.N, &m.First, &m.Sent, &m.Dead, &m.Size, &m.grp, &visible); err != nil {
			return false, err
		}
		if !take(m, visible) {
			return false, nil
		}
	}
	return true, rows.Err()
}

func (f *folder) freeGroups(ctx context.Context, gen, now int64, limit int) ([]string, error) {
	rows, err := f.x.query(ctx, "SELECT grp FROM groups WHERE gen = ? AND free <= ? ORDER BY free, grp LIMIT ?", gen, now, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var grp string
		if err := rows.Scan(&grp); err != nil {
			return nil, err
		}
		out = append(out, grp)
	}
	return out, rows.Err()
}

// nextMessage is when a message becomes visible after now without anything being done.
func (f *folder) nextMessage(ctx context.Context, q *liveQueue, now int64) (int64, error) {
	text := "SELECT visible FROM messages WHERE gen = ? AND visible > ? ORDER BY visible LIMIT 1"
	if q.spec.FIFO {
		text = "SELECT free FROM groups WHERE gen = ? AND free > ? ORDER BY free LIMIT 1"
	}
	var at int64
	found, err := f.x.one(ctx, []any{&at}, text, q.gen, now)
	if err != nil || !found {
		return math.MaxInt64, err
	}
	return at, nil
}

func noQueue(key string) error { return errs.New(errs.NotFound, "there is no queue %s", clip(key)) }
