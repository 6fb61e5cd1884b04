package bus

import (
	"context"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

// Turns bounds the calls of Consume of one Mapping over all Nodes together.
type Turns interface {
	// Take waits for a turn until ctx ends. leave gives it back, once.
	Take(ctx context.Context) (leave func(), err error)
}

// turn waits until there is something to receive, and then for a turn: who waits at an empty queue holds none, and who waits for a turn holds no messages.
// Without a turn it is to be looked again.
func (p *poller) turn(ctx context.Context) (leave func(), err error) {
	found, err := p.b.look(ctx, p.m.Queue, pollWait)
	if err != nil || !found {
		return nil, err
	}
	return p.m.Turns.Take(ctx)
}

// look waits until a queue has a message that could be received, and receives none.
func (b *Bus) look(ctx context.Context, name string, wait time.Duration) (bool, error) {
	k, err := b.queue(ctx, name, false)
	if err != nil {
		return false, err
	}
	q := giveQuestion{Key: queueKey("", name), Max: 1, Look: true}
	p := b.partitionOfQueue(q.Key)
	for until := time.Now().Add(wait); ; {
		left := max(time.Until(until), 0)
		q.Wait, q.Reach = left.Milliseconds(), k.last.Load()
		reply, err := b.give(ctx, p, q)
		if errs.CodeOf(err) == errs.Unavailable && left > 0 && ctx.Err() == nil { // a new owner may come
			pause(ctx, min(left, 100*time.Millisecond))
			continue
		}
		if err != nil || len(reply.Msgs) > 0 || time.Until(until) <= 0 {
			return len(reply.Msgs) > 0, err
		}
	}
}

// show tells those who look that there is something, after all who receive were served.
func (g *giver) show(ctx context.Context, q *liveQueue, l *qlane, now int64) error {
	for len(l.lookers) > 0 {
		seen := l.seen
		msgs, dead, err := g.pick(ctx, q, l, 1, now)
		if err != nil {
			return err
		}
		l.seen = seen // what was found is not marked
		for _, m := range dead {
			g.mark(q.gen, m)
		}
		if len(dead) > 0 {
			g.bury(q, dead)
		}
		if len(msgs) > 0 {
			for _, r := range l.lookers {
				r.answer(receivedNow{gen: q.gen, msgs: msgs})
			}
			l.lookers = nil
		}
		if len(dead) == 0 {
			break
		}
	}
	return nil
}
