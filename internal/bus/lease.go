package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A lease is a key of the bucket. Its revision is renewed every third of the time to live; the revision of its taking is the epoch. Who wants it
// waits until no new revision has come for the whole time to live by the own clock; the owner stops after two thirds without a renewal, counted from
// the start of the last one that succeeded.

type leaseRecord struct {
	Node  string `json:"node"`
	Epoch uint64 `json:"epoch"` // revision before the taking; the taking's own is not known when it is written
}

func (p *partition) leaseKey() string { return "lease." + strconv.Itoa(p.num) }

// own takes the lease again and again, and owns the Partition while it holds it.
func (b *Bus) own(ctx context.Context, p *partition) {
	for ctx.Err() == nil {
		rev, err := b.acquire(ctx, p)
		if err == nil {
			err = b.hold(ctx, p, rev)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			b.opt.Log.Warn("a partition of the event bus is not served by this node", "partition", p.num, "err", err)
		}
		pause(ctx, time.Second/2+rand.N(time.Second/2))
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// acquire returns the revision of the lease when this Node has it.
func (b *Bus) acquire(ctx context.Context, p *partition) (uint64, error) {
	rec, err := json.Marshal(leaseRecord{Node: b.opt.Node})
	if err != nil {
		return 0, err
	}
	var seen uint64
	var since time.Time
	for {
		call, cancel := context.WithTimeout(ctx, answerWait)
		e, err := b.kv.Get(call, p.leaseKey())
		var rev uint64
		switch {
		case errors.Is(err, jetstream.ErrKeyNotFound):
			rev, err = b.kv.Create(call, p.leaseKey(), rec)
		case err != nil:
		case b.opt.Alone || e.Revision() == seen && time.Since(since) > b.opt.Lease:
			rev, err = b.kv.Update(call, p.leaseKey(), rec, e.Revision())
		case e.Revision() != seen:
			seen, since = e.Revision(), time.Now()
		}
		cancel()
		if rev > 0 && err == nil {
			return rev, nil
		}
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if err != nil && !conflict(err) {
			return 0, fault("take the lease of a partition", err)
		}
		pause(ctx, b.opt.Lease/10+rand.N(b.opt.Lease/20+1))
	}
}

// conflict tells whether somebody else has written the key.
func conflict(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, jetstream.ErrKeyExists) || errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence
}

var errLost = errors.New("the lease was lost")

// hold serves the Partition and renews its lease, until ctx ends, the lease is lost or serving fails. It gives the lease back.
func (b *Bus) hold(ctx context.Context, p *partition, rev uint64) error {
	serve, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	renewed := make(chan uint64, 1)
	go func() {
		last, err := b.renew(serve, p, rev)
		if err != nil {
			stop(err)
		}
		renewed <- last
	}()
	err := b.serve(serve, p, rev)
	if cause := context.Cause(serve); cause != nil && ctx.Err() == nil {
		err = cause
	}
	stop(nil)
	if last := <-renewed; !b.opt.Alone && last > 0 {
		// Others need not wait for the time to live. Serving has ended, so nothing of it runs any more.
		give, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerWait)
		defer cancel()
		_ = b.kv.Delete(give, p.leaseKey(), jetstream.LastRevision(last))
	}
	return err
}

// renew keeps the lease, and returns its last revision, or 0 and an error when it is lost.
func (b *Bus) renew(ctx context.Context, p *partition, rev uint64) (uint64, error) {
	if b.opt.Alone {
		<-ctx.Done()
		return rev, nil
	}
	rec, err := json.Marshal(leaseRecord{Node: b.opt.Node, Epoch: rev})
	if err != nil {
		return 0, err
	}
	good := time.Now()
	for {
		pause(ctx, b.opt.Lease/3)
		for start := time.Now(); ; start = time.Now() {
			if ctx.Err() != nil {
				return rev, nil
			}
			left := b.opt.Lease*2/3 - time.Since(good)
			if left <= 0 {
				return 0, fmt.Errorf("%w: the store does not answer", errLost)
			}
			call, cancel := context.WithTimeout(ctx, min(left, answerWait))
			next, err := b.kv.Update(call, p.leaseKey(), rec, rev)
			cancel()
			if err == nil {
				rev, good = next, start
				break
			}
			if conflict(err) {
				// The answer to an earlier try may have been lost: then the record is this Node's.
				if next, ok := b.mine(ctx, p, rev, rec); ok {
					rev, good = next, start
					break
				}
				if ctx.Err() == nil {
					return 0, errLost
				}
			}
			pause(ctx, b.opt.Lease/60)
		}
	}
}

// mine tells whether the lease's record is the one that this Node writes, and its revision.
func (b *Bus) mine(ctx context.Context, p *partition, rev uint64, rec []byte) (uint64, bool) {
	call, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	e, err := b.kv.Get(call, p.leaseKey())
	if err != nil || string(e.Value()) != string(rec) || e.Revision() <= rev {
		return 0, false
	}
	return e.Revision(), true
}
