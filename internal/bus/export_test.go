package bus

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ebb-run/ebb/internal/event"
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

// KeepChunks sets how long chunks of data are kept that nothing refers to.
func KeepChunks(o Options, d time.Duration) Options {
	o.chunksKept = d
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

// OldIterator makes an iterator as old as it may not be.
func OldIterator(text string) string {
	it, err := parseIterator(text)
	if err != nil {
		panic(err)
	}
	it.made -= iteratorLife.Milliseconds() + 1
	return it.String()
}

// Lag counts the records of a stream that a mapping, which has begun, has not done, by its checkpoints.
func Lag(b *Bus, mapping, stream string) (int, error) {
	ctx := context.Background()
	p := b.partitionOfQueue(queueKey("", stream))
	p.mu.Lock()
	o := p.mu.own
	p.mu.Unlock()
	s := &streamPoller{o: o, m: StreamMapping{Name: mapping, Stream: queueKey("", stream)}}
	info, start, err := s.look(ctx)
	if err != nil || info == nil || start.gen == 0 {
		return -1, err
	}
	n := 0
	for i := range info.State.Shards {
		h := &info.State.Shards[i]
		next, err := s.point(ctx, start, h)
		if err != nil {
			return -1, err
		}
		rows, _, err := o.rows(ctx, info.ID, h.N, next, 0, MaxGet, MaxGetBytes)
		if err != nil {
			return -1, err
		}
		recs, _, _, err := p.read(ctx, &shardView{info.Key, *h, false}, rows, next, MaxGet, MaxGetBytes)
		if err != nil {
			return -1, err
		}
		n += len(recs)
	}
	return n, nil
}

// RetainStream gives a stream a retention that may be shorter than may be asked for.
func RetainStream(b *Bus, name string, d time.Duration) {
	ctx := context.Background()
	k, err := b.stream(ctx, name, true)
	if err != nil {
		panic(err)
	}
	s := k.State.Stream
	s.Retention = d
	if err := b.changeStream(ctx, k.Key, jsonItem(kindStreamPut, streamPut{Stream: s, Nonce: nonce()})); err != nil {
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

// Wall sets the clock of all but schedules.
func Wall(o Options, f func() time.Time) Options {
	o.wall = f
	return o
}

// Apart gives names of two queues, beginning with those given, that are in different Partitions.
func Apart(b *Bus, one, two string) (string, string) {
	for b.partitionOfQueue(queueKey("", one)) == b.partitionOfQueue(queueKey("", two)) {
		two += "x"
	}
	return one, two
}

// LeaseKey is where the lease of a queue's Partition is.
func LeaseKey(b *Bus, queue string) string { return b.partitionOfQueue(queueKey("", queue)).leaseKey() }

// LeftOut asks the owner of the first Partition whether blocks from next on and before seq are in the log; what is before purged is removed first.
func LeftOut(ctx context.Context, b *Bus, next, seq, purged uint64) error {
	p := b.parts[0]
	p.mu.Lock()
	own := p.mu.own
	p.mu.Unlock()
	if purged > 0 {
		if err := p.stream.Purge(ctx, jetstream.WithPurgeSequence(purged)); err != nil {
			return err
		}
	}
	return own.leftOut(ctx, next, seq)
}

// PublishInParts publishes an event with large data, and calls between when they are durable and what refers to them is not written yet.
func PublishInParts(ctx context.Context, b *Bus, e *event.Event, between func()) error {
	p, it := b.partitionOf(e, hashEvent(e)), []item{eventItem(e)}
	if err := p.log.store(ctx, it); err != nil {
		return err
	}
	between()
	_, err := p.log.append(ctx, it)
	return err
}

// Miscounted lists what the index counts otherwise than its deliveries stand, of the Partitions that this Bus owns.
func Miscounted(b *Bus) (wrong []string, err error) {
	const q = `SELECT 'counted' w, * FROM (SELECT sub, state, n FROM counts WHERE n <> 0 EXCEPT SELECT sub, state, count(*) FROM deliveries GROUP BY 1, 2)
		UNION ALL SELECT 'stands', * FROM (SELECT sub, state, count(*) FROM deliveries GROUP BY 1, 2 EXCEPT SELECT sub, state, n FROM counts)`
	for _, p := range b.parts {
		p.mu.Lock()
		own := p.mu.own
		p.mu.Unlock()
		if own == nil {
			continue
		}
		rows, err := own.x.db.Query(q)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		for rows.Next() {
			var w string
			var sub, n int64
			var state State
			if err := rows.Scan(&w, &sub, &state, &n); err != nil {
				return nil, err
			}
			wrong = append(wrong, fmt.Sprintf("partition %d, subscription %d, %s: %s %d", p.num, sub, state, w, n))
		}
		if err := rows.Err(); err != nil {
			return nil, err
		}
	}
	return wrong, nil
}

// ForgetBlocks empties what is kept of the log in memory.
func ForgetBlocks(b *Bus) {
	for _, p := range b.parts {
		p.bodies.mu.Lock()
		p.bodies.mu.recent, p.bodies.mu.order, p.bodies.mu.size = map[uint64][]item{}, nil, 0
		p.bodies.mu.Unlock()
	}
}
