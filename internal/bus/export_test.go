package bus

import (
	"context"
	"time"
)

// Sweep sets how often what is old is removed.
func Sweep(o Options, d time.Duration) Options {
	o.sweep = d
	return o
}

// MaxFlows sets how many Flows a day may have.
func MaxFlows(o Options, n int) Options {
	o.maxFlows = n
	return o
}

// Check sets how often the clock of schedules is asked at least.
func Check(o Options, d time.Duration) Options {
	o.check = d
	return o
}

// Blocks tells f of the number of items of every block that is written.
func (b *Bus) Blocks(f func(items int)) {
	for _, p := range b.parts {
		p.log.blocks = f
	}
}

// SweepQueues sets how often expired messages are looked for, and how long blocks are known.
func SweepQueues(o Options, d time.Duration) Options {
	o.sweepQueues, o.sendsKept = d, d
	return o
}

// Retain gives a queue a retention shorter than may be asked for.
func Retain(b *Bus, name string, d time.Duration) {
	k, err := b.queue(context.Background(), name, true)
	if err != nil {
		panic(err)
	}
	q := k.spec
	q.Retention = d
	if err := b.putQueue(context.Background(), q.Key(), jsonItem(kindQueuePut, queuePut{q, nonce()})); err != nil {
		panic(err)
	}
}

// Rows counts the rows of a table of the index, over the Partitions that this Node owns.
func Rows(ctx context.Context, b *Bus, table string) (int, error) {
	all := 0
	for _, p := range b.parts {
		p.mu.Lock()
		own := p.mu.own
		p.mu.Unlock()
		if own == nil {
			continue
		}
		n := 0
		if err := own.x.db.QueryRowContext(ctx, "SELECT count(*) FROM "+table).Scan(&n); err != nil {
			return 0, err
		}
		all += n
	}
	return all, nil
}
