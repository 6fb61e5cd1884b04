package bus

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

const (
	// maxMove is how many messages one step moves.
	maxMove = 500
	// moveAgain is the wait before a move is tried again whose target's owner did not answer.
	moveAgain = 200 * time.Millisecond
)

// partitionOfQueue chooses the Partition that a queue lives in.
func (b *Bus) partitionOfQueue(key string) *partition {
	h := hashOf("queue", "", key)
	return b.parts[binary.LittleEndian.Uint64(h[8:])%uint64(len(b.parts))]
}

// bury moves dead letters, which are marked.
func (g *giver) bury(q *liveQueue, dead []given) {
	to, one := q.spec.deadKey(), *q
	g.o.wait.Go(func() {
		if _, err := g.o.moveMessages(g.o.ctx, &one, to, dead, true); err != nil && !g.o.stopping() {
			g.o.b.opt.Log.Warn("dead letters of a queue stay in it", "queue", one.key, "to", to, "err", err)
		}
	})
}

// move starts to move visible messages on request.
func (g *giver) move(a *moving) {
	q := g.o.fold.q.live[a.key]
	if q == nil {
		a.done <- moved{err: noQueue(a.key)}
		return
	}
	var msgs []given
	now := ms(g.o.now())
	where, args := "visible <= ? ORDER BY visible, seq, idx LIMIT ?", []any{q.gen, now, a.max + g.marked[q.gen]}
	if len(a.ids) > 0 {
		ids, _ := json.Marshal(a.ids) // strings encode
		where, args = "id IN (SELECT value FROM json_each(?)) AND visible <= ?", []any{q.gen, string(ids), now}
	}
	_, err := g.o.fold.messages(g.o.ctx, where, args, func(m given, _ int64) bool {
		if _, held := g.marks[spot{m.Seq, m.Idx}]; !held {
			msgs = append(msgs, m)
		}
		return len(msgs) < a.max
	})
	if err != nil || len(msgs) == 0 {
		a.done <- moved{err: err}
		return
	}
	byTarget := map[string][]given{}
	for _, m := range msgs {
		to := a.to
		if to == "" {
			to = m.Dead
		}
		if to != "" {
			byTarget[to] = append(byTarget[to], m)
			g.mark(q.gen, m)
		}
	}
	one := *q
	g.o.wait.Go(func() {
		var sum moved
		for to, some := range byTarget {
			n, err := g.o.moveMessages(g.o.ctx, &one, to, some, false)
			sum.n, sum.err = sum.n+n, errors.Join(sum.err, err)
		}
		if len(byTarget) == 0 {
			sum.err = errs.New(errs.Invalid, "messages of %s did not come from another queue", one.key).WithHint("Name the queue that they are to go to.")
		}
		a.done <- sum
	})
}

// moveMessages moves marked messages. Within the Partition it is one item; to another one they are sent first, under a name that makes a second sending
// after a crash a duplicate, and removed when they stand there.
func (o *owner) moveMessages(ctx context.Context, q *liveQueue, to string, msgs []given, dead bool) (int, error) {
	s := settled{Gen: q.gen, Do: settleMove, Epoch: o.epoch, To: to, Dead: dead, Entries: entries(msgs)}
	free := func(msgs []given, err error) {
		keep := true
		switch errs.CodeOf(err) {
		case errs.Unavailable, errs.Throttled, errs.Timeout: // they may stand there already: nobody is to have them besides
			keep = false
			pause(o.ctx, moveAgain)
		}
		select {
		case o.q.in <- freed{key: q.key, gen: q.gen, msgs: msgs, keep: keep}:
		case <-o.ctx.Done():
		}
	}
	err := o.canMove(ctx, q, to)
	if err != nil {
		free(msgs, err)
		return 0, err
	}
	if o.b.partitionOfQueue(to) != o.p {
		var there []given
		if there, err = o.sendAcross(ctx, q, to, msgs, dead); err != nil {
			free(slices.DeleteFunc(slices.Clone(msgs), func(m given) bool {
				return slices.ContainsFunc(there, func(t given) bool { return t.entry == m.entry })
			}), err)
		}
		if len(there) == 0 {
			return 0, err
		}
		s.Do, s.Entries = settleDrop, entries(there)
	}
	if dead {
		o.b.passes(AtMoving)
	} else {
		o.b.passes(AtRedriving)
	}
	// Whoever asked finds it so.
	if rerr := o.reachBlock(ctx, o.record([]item{jsonItem(kindSettled, s)})); err == nil {
		err = rerr
	}
	return len(s.Entries), err
}

// canMove tells why messages of a queue cannot go to another.
func (o *owner) canMove(ctx context.Context, q *liveQueue, to string) error {
	k, err := o.b.queue(ctx, to, true)
	if err != nil {
		return err
	}
	if k.spec.FIFO != q.spec.FIFO {
		return errs.New(errs.Invalid, "the queues %s and %s are not of the same kind", q.key, to)
	}
	return nil
}

// sendAcross sends messages to a queue of another Partition and gives those that stand there.
func (o *owner) sendAcross(ctx context.Context, q *liveQueue, to string, msgs []given, dead bool) (there []given, _ error) {
	p := o.b.partitionOfQueue(to)
	for len(msgs) > 0 {
		var items []item
		var names []string
		size, large, n := 0, 0, 0
		for _, m := range msgs {
			s, body, err := o.blocks.message(ctx, m.Seq, m.Idx)
			if err != nil {
				return there, err
			}
			s.Queue, s.Move, s.Delay = to, fmt.Sprintf("%d/%d/%d/%d", o.p.num, q.gen, m.Seq, m.Idx), nil
			s.Dead = ""
			if dead {
				s.Dead = q.key
			}
			s.Sent = m.Sent
			it := sendItem(s, body)
			if large += len(it.apart); n > 0 && (size+it.size() > maxBlock || large > maxGiven) {
				break
			}
			items, names, size, n = append(items, it), append(names, s.Move), size+it.size(), n+1
		}
		at, err := p.log.append(ctx, items)
		if err != nil {
			return there, err
		}
		r, err := o.b.ask(ctx, p, question{Queue: &queueQuestion{Do: askMoved, Key: to, Reach: at.seq, Names: names}})
		if err != nil {
			return there, err
		}
		missing := n
		for i, ok := range r.Queue.There {
			if i < n && ok {
				there = append(there, msgs[i])
				missing--
			}
		}
		if missing > 0 { // deleted meanwhile
			return there, noQueue(to)
		}
		msgs = msgs[n:]
	}
	return there, nil
}

// message reads one message of the log.
func (b *blocks) message(ctx context.Context, seq uint64, idx int) (sending, []byte, error) {
	it, err := b.item(ctx, seq, idx)
	if err != nil {
		return sending{}, nil, err
	}
	s, body, err := parseSend(it)
	if err == nil && it.ref != nil {
		body, err = b.load(ctx, it.ref)
	}
	return s, body, err
}
