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
