package bus

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/ebb-run/ebb/internal/errs"
)

// What can be asked of a queue's owner.
const (
	askStatus     = "status"
	askList       = "list"
	askMoved      = "moved"      // whether messages of other Partitions stand here
	askFirst      = "first"      // which messages were the first with their dedup IDs
	askDelete     = "delete"     // to delete: FIFO, where a receipt expires
	askVisibility = "visibility" // to change it
	askPeek       = "peek"
)

type queueQuestion struct {
	Do      string       `json:"do"`
	Key     string       `json:"key,omitempty"`
	Reach   uint64       `json:"reach,omitempty"` // a block that is to be folded first, for a while
	Names   []string     `json:"names,omitempty"`
	Changes []receiptFor `json:"changes,omitempty"`
	After   *entry       `json:"after,omitempty"`
	Limit   int          `json:"limit,omitempty"`
	First   []sending    `json:"first,omitempty"` // heads without attributes
}

// receiptFor is what is to be done with a receipt.
type receiptFor struct {
	Receipt string `json:"r"`
	Visible int64  `json:"v,omitempty"` // ms, from now
}

type queueReply struct {
	Queues []queueState `json:"queues,omitempty"`
	There  []bool       `json:"there,omitempty"`
	Sent   []firstSent  `json:"sent,omitempty"`
	Errors []replyError `json:"errors,omitempty"`
	Msgs   []given      `json:"msgs,omitempty"`
	Gen    int64        `json:"gen,omitempty"`
	Seq    uint64       `json:"seq,omitempty"` // of what was written
}

type queueState struct {
	Spec     Queue `json:"spec"`
	Gen      int64 `json:"gen"`
	Created  int64 `json:"created"`
	Changed  int64 `json:"changed"`
	N        int   `json:"n"`
	InFlight int   `json:"inFlight,omitempty"`
	Delayed  int   `json:"delayed,omitempty"`
	Oldest   int64 `json:"oldest,omitempty"`
}

type firstSent struct {
	ID  string `json:"i"`
	Seq uint64 `json:"s"`
	Idx int    `json:"x"`
}

type replyError struct {
	Code errs.Code `json:"c,omitempty"`
	Text string    `json:"t,omitempty"`
	Hint string    `json:"h,omitempty"`
}

func wireError(err error) replyError {
	if err == nil {
		return replyError{}
	}
	return replyError{errs.CodeOf(err), err.Error(), errs.HintOf(err)}
}

func (e replyError) err() error {
	if e.Code == "" {
		return nil
	}
	out := errs.New(e.Code, "%s", e.Text)
	if e.Hint != "" {
		return out.WithHint("%s", e.Hint)
	}
	return out
}

// reachWait bounds how long a question about a queue waits for what its asker has written before.
const reachWait = 2 * time.Second

func (o *owner) reachBlock(ctx context.Context, seq uint64) error {
	ctx, cancel := context.WithTimeout(ctx, reachWait)
	defer cancel()
	err := o.progress.reach(ctx, o.ctx, seq)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil // far behind: what is known so far
	}
	return err
}

func (o *owner) lookQueue(ctx context.Context, all question) (*queueReply, error) {
	q := all.Queue
	if err := o.reachBlock(ctx, q.Reach); err != nil {
		return nil, err
	}
	r := &queueReply{}
	var err error
	if q.Do == askList {
		r.Queues, err = o.queueStates(ctx, "1", nil)
		return r, err
	}
	if r.Queues, err = o.queueStates(ctx, "key = ?", []any{q.Key}); err != nil {
		return nil, err
	}
	if len(r.Queues) == 0 {
		return nil, noQueue(q.Key)
	}
	state := &r.Queues[0]
	switch q.Do {
	case askStatus:
		err = o.countQueue(ctx, state)
	case askMoved:
		for _, name := range q.Names {
			var x int
			found, ferr := o.readOne(ctx, []any{&x}, "SELECT 1 FROM dedups WHERE h = ?", (&liveQueue{id: o.queueID(ctx, q.Key)}).dedupHash(&sending{Move: name}))
			if ferr != nil {
				return nil, ferr
			}
			r.There = append(r.There, found)
		}
	case askFirst:
		err = o.firsts(ctx, q, state, r)
	case askDelete, askVisibility:
		err = o.settleAsked(ctx, q, state, r)
	case askPeek:
		r.Gen = state.Gen
		r.Msgs, err = o.peek(ctx, state.Gen, q.After, q.Limit)
	}
	return r, err
}

// readOne reads one row beside the owner's goroutine.
func (o *owner) readOne(ctx context.Context, dest []any, q string, args ...any) (bool, error) {
	err := o.x.db.QueryRowContext(ctx, q, args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

func (o *owner) queueID(ctx context.Context, key string) (id int64) {
	_, _ = o.readOne(ctx, []any{&id}, "SELECT id FROM queues WHERE key = ?", key) // 0 is nobody's
	return id
}

func (o *owner) queueStates(ctx context.Context, where string, args []any) ([]queueState, error) {
	rows, err := o.x.db.QueryContext(ctx, "SELECT spec, gen, created, changed, n FROM queues WHERE "+where+" ORDER BY key", args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []queueState
	for rows.Next() {
		var s queueState
		var spec []byte
		if err := errors.Join(rows.Scan(&spec, &s.Gen, &s.Created, &s.Changed, &s.N), json.Unmarshal(spec, &s.Spec)); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, rows.Err()
}

func (o *owner) countQueue(ctx context.Context, s *queueState) error {
	if _, err := o.readOne(ctx, []any{&s.InFlight, &s.Delayed}, "SELECT coalesce(sum(receives > 0), 0), coalesce(sum(receives = 0), 0) FROM messages WHERE gen = ? AND visible > ?",
		s.Gen, ms(o.now())); err != nil {
		return err
	}
	_, err := o.readOne(ctx, []any{&s.Oldest}, "SELECT sent FROM messages WHERE gen = ? ORDER BY sent LIMIT 1", s.Gen)
	return err
}

// firsts tells of each message which was the first with its dedup ID.
func (o *owner) firsts(ctx context.Context, q *queueQuestion, s *queueState, r *queueReply) error {
	l := &liveQueue{id: o.queueID(ctx, q.Key), spec: s.Spec}
	for i := range q.First {
		var f firstSent
		if _, err := o.readOne(ctx, []any{&f.ID, &f.Seq, &f.Idx}, "SELECT id, seq, idx FROM dedups WHERE h = ?", l.dedupHash(&q.First[i])); err != nil {
			return err
		}
		r.Sent = append(r.Sent, f)
	}
	return nil
}

// settleAsked deletes messages or changes when they are visible, after a look at whether the receipts still hold.
func (o *owner) settleAsked(ctx context.Context, q *queueQuestion, s *queueState, r *queueReply) error {
	now := ms(o.now())
	byTime := map[int64][]entry{}
	for _, c := range q.Changes {
		rc, err := parseReceipt(c.Receipt)
		at := now + c.Visible
		if q.Do == askDelete {
			at = 0
		}
		if err == nil {
			var act bool
			if act, err = o.holds(ctx, q, s, rc, now); act {
				byTime[at] = append(byTime[at], entry{rc.seq, rc.idx, rc.n})
			}
		}
		if err != nil && errs.CodeOf(err) == errs.Internal {
			return err
		}
		r.Errors = append(r.Errors, wireError(err))
	}
	var items []item
	for at, es := range byTime {
		it := settled{Gen: s.Gen, Do: settleVisibility, At: at, Entries: es}
		if q.Do == askDelete {
			it.Do = settleDelete
		}
		items = append(items, jsonItem(kindSettled, it))
	}
	if len(items) == 0 {
		return nil
	}
	at, err := o.p.log.append(ctx, items)
	r.Seq = at.seq
	return err
}

// holds tells whether a receipt is to be acted on, or why it may not be.
func (o *owner) holds(ctx context.Context, q *queueQuestion, s *queueState, rc receipt, now int64) (bool, error) {
	var n int
	var visible int64
	if rc.part != o.p.num || rc.gen != s.Gen {
		var x int
		found, err := o.readOne(ctx, []any{&x}, "SELECT 1 FROM qversions WHERE gen = ? AND key = ? LIMIT 1", rc.gen, q.Key)
		if err != nil {
			return false, err
		}
		if rc.part != o.p.num || !found {
			return false, errs.New(errs.Invalid, "the receipt is not one of the queue %s", clip(q.Key))
		}
		rc.gen = 0 // of a message that was purged
	}
	found, err := o.readOne(ctx, []any{&n, &visible}, "SELECT receives, visible FROM messages WHERE seq = ? AND idx = ? AND gen = ?", int64(rc.seq), rc.idx, rc.gen)
	switch {
	case err != nil:
		return false, err
	case q.Do == askDelete && (!found || !s.Spec.FIFO):
		return found, nil // what is deleted stays deleted
	case !found:
		return false, errs.New(errs.NotFound, "the message is not in the queue any more")
	case n != rc.n || visible <= now:
		return false, errs.New(errs.Conflict, "the receipt has expired: the message is visible again").WithHint("Receive it again, and ask for a longer visibility timeout.")
	}
	return true, nil
}

func (o *owner) peek(ctx context.Context, gen int64, after *entry, limit int) ([]given, error) {
	if after == nil {
		after = &entry{}
	}
	rows, err := o.x.db.QueryContext(ctx, "SELECT seq, idx, receives, first, sent, visible, dead, size FROM messages WHERE gen = ? AND (seq, idx) > (?, ?) ORDER BY seq, idx LIMIT ?",
		gen, int64(after.Seq), after.Idx, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []given
	for size := 0; rows.Next(); {
		var m given
		if err := rows.Scan(&m.Seq, &m.Idx, &m.N, &m.First, &m.Sent, &m.Visible, &m.Dead, &m.Size); err != nil {
			return nil, err
		}
		if size += m.Size; len(out) > 0 && size > maxGiven {
			break
		}
		out = append(out, m)
	}
	return out, rows.Err()
}

// Receives and moves of other Nodes come by a subject of their own: they wait, and must not take the turns of questions.
const (
	giveSubject  = "ebb.bus.give."
	leaveSubject = "ebb.bus.leave."
)

type giveQuestion struct {
	ID    string   `json:"id"`
	Key   string   `json:"key"`
	Reach uint64   `json:"reach,omitempty"`
	Max   int      `json:"max"`
	Wait  int64    `json:"wait,omitempty"` // ms; below 0 means the queue's
	Vis   *int64   `json:"vis,omitempty"`  // ms
	Look  bool     `json:"look,omitempty"` // tell of a message, and do not give it
	Move  bool     `json:"move,omitempty"`
	To    string   `json:"to,omitempty"`
	IDs   []string `json:"ids,omitempty"`
}

type giveReply struct {
	Gen   int64      `json:"gen,omitempty"`
	Msgs  []given    `json:"msgs,omitempty"`
	Moved int        `json:"moved,omitempty"`
	Error replyError `json:"error"`
}

// listen makes the giver reachable from other Nodes.
func (g *giver) listen() error {
	conn, num := g.o.b.js.Conn(), strconv.Itoa(g.o.p.num)
	for subject, f := range map[string]func(m *natsgo.Msg){
		giveSubject + num: g.asked,
		leaveSubject + num: func(m *natsgo.Msg) {
			g.remote.Lock()
			defer g.remote.Unlock()
			if cancel := g.remote.calls[string(m.Data)]; cancel != nil {
				cancel()
			}
		},
	} {
		sub, err := conn.Subscribe(subject, f)
		if err != nil {
			return fault("listen for receivers", err)
		}
		g.sub = append(g.sub, sub)
	}
	return nil
}

func (g *giver) silence() {
	for _, s := range g.sub {
		_ = s.Unsubscribe() // an error says that the connection is gone
	}
}

func (g *giver) asked(m *natsgo.Msg) {
	var q giveQuestion
	if err := json.Unmarshal(m.Data, &q); err != nil {
		return // of nobody who speaks this
	}
	g.o.p.mu.Lock()
	defer g.o.p.mu.Unlock()
	if g.o.p.mu.own != g.o {
		return
	}
	ctx, cancel := context.WithTimeout(g.o.ctx, MaxWait+askWait)
	g.remote.Lock()
	g.remote.calls[q.ID] = cancel
	g.remote.Unlock()
	g.o.wait.Go(func() {
		defer cancel()
		r := g.o.give(ctx, q)
		g.remote.Lock()
		delete(g.remote.calls, q.ID)
		g.remote.Unlock()
		data, err := json.Marshal(r)
		if err == nil {
			err = m.Respond(data)
		}
		if err != nil && !g.o.stopping() {
			g.o.b.opt.Log.Warn("a receive is not answered", "err", err)
		}
	})
}

// give does what a Node asks for, this one or another.
func (o *owner) give(ctx context.Context, q giveQuestion) giveReply {
	if o.q.waiting.Add(1) > maxReceivers {
		o.q.waiting.Add(-1)
		return giveReply{Error: wireError(errs.New(errs.Throttled, "%d receives wait in this partition of the event bus", maxReceivers))}
	}
	defer o.q.waiting.Add(-1)
	if err := o.reachBlock(ctx, q.Reach); err != nil {
		return giveReply{Error: wireError(err)}
	}
	var req any
	mv := &moving{key: q.Key, to: q.To, ids: q.IDs, max: q.Max, done: make(chan moved, 1)}
	rc := &receiving{key: q.Key, max: q.Max, vis: q.Vis, look: q.Look, until: ms(o.now()) + q.Wait, done: make(chan receivedNow, 1)}
	if req = rc; q.Move {
		req = mv
	}
	select {
	case o.q.in <- req:
	case <-ctx.Done():
		return giveReply{Error: wireError(stopped(ctx, o))}
	case <-o.ctx.Done():
		return giveReply{Error: wireError(stopped(ctx, o))}
	}
	select {
	case n := <-rc.done:
		return giveReply{Gen: n.gen, Msgs: n.msgs, Error: wireError(n.err)}
	case n := <-mv.done:
		return giveReply{Moved: n.n, Error: wireError(n.err)}
	case <-ctx.Done():
	case <-o.ctx.Done():
	}
	if !q.Move && !rc.state.CompareAndSwap(stillThere, left) { // answered meanwhile
		n := <-rc.done
		return giveReply{Gen: n.gen, Msgs: n.msgs, Error: wireError(n.err)}
	}
	return giveReply{Error: wireError(stopped(ctx, o))}
}

// stopped says why a call ended early.
func stopped(ctx context.Context, o *owner) error {
	if o.stopping() || ctx.Err() == nil {
		return errMoved
	}
	return errs.New(errs.CodeOf(context.Cause(ctx)), "wait for messages: %w", context.Cause(ctx))
}
