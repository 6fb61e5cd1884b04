package bus

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
)

// Range says which events of the archive are read.
type Range struct {
	From   time.Time // zero means the oldest
	To     time.Time // not included; zero means what is there, or without end where Follow is set
	Follow bool      // go on with what is published
	Filter json.RawMessage
}

// Recorded is an event as the log has it.
type Recorded struct {
	Receipt
	Published time.Time
	Event     *event.Event // not to be changed
}

// Read gives the events of the log to f, one call at a time, those of one Partition in their order; a duplicate that the log holds is given too.
// It ends with f's error, with ctx, or when the range ends.
func (b *Bus) Read(ctx context.Context, r Range, f func(Recorded) error) error {
	m, err := b.compile(r.Filter)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wait sync.WaitGroup
	var one sync.Mutex
	for _, p := range b.parts {
		wait.Go(func() {
			err := b.readPart(ctx, p, r, func(rec Recorded) error {
				if !m.Match(rec.Event) {
					return nil
				}
				one.Lock()
				defer one.Unlock()
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				return f(rec)
			})
			if err != nil {
				cancel(err)
			}
		})
	}
	wait.Wait()
	return context.Cause(ctx)
}

func (b *Bus) readPart(ctx context.Context, p *partition, r Range, f func(Recorded) error) error {
	info, err := p.stream.Info(ctx)
	if err != nil {
		return fault("read the event log", err)
	}
	last := info.State.LastSeq
	if !r.Follow && (info.State.Msgs == 0 || info.State.LastTime.Before(r.From)) {
		return nil
	}
	cfg := jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy}
	if !r.From.IsZero() {
		cfg.DeliverPolicy, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, &r.From
	}
	c, err := p.stream.OrderedConsumer(ctx, cfg)
	if err != nil {
		return fault("read the event log", err)
	}
	msgs, err := c.Messages(jetstream.PullMaxMessages(8))
	if err != nil {
		return fault("read the event log", err)
	}
	defer msgs.Stop()
	one := func(seq uint64, at time.Time, data []byte) error { return p.recorded(ctx, seq, at, data, f) }
	for next := uint64(0); ; {
		m, err := msgs.Next(jetstream.NextContext(ctx))
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fault("read the event log", err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		// The server leaves out of a consumer what it cannot load at that moment.
		for ; next > 0 && next < meta.Sequence.Stream; next++ {
			raw, err := p.stream.GetMsg(ctx, next)
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				continue // purged meanwhile
			}
			if err != nil {
				return fault("read the event log", err)
			}
			if !r.To.IsZero() && !raw.Time.Before(r.To) {
				return nil
			}
			if err := one(next, raw.Time, raw.Data); err != nil {
				return err
			}
		}
		next = meta.Sequence.Stream + 1
		if !r.To.IsZero() && !meta.Timestamp.Before(r.To) {
			return nil
		}
		if err := one(meta.Sequence.Stream, meta.Timestamp, m.Data()); err != nil {
			return err
		}
		if !r.Follow && meta.Sequence.Stream >= last {
			return nil
		}
	}
}

// recorded gives the events of a block.
func (p *partition) recorded(ctx context.Context, seq uint64, at time.Time, data []byte, f func(Recorded) error) error {
	items, err := parseBlock(data)
	if err != nil {
		return err
	}
	for i, it := range items {
		e, err := p.bodies.whole(ctx, it)
		if it.ref != nil && errs.CodeOf(err) == errs.NotFound {
			continue // its data were purged: it is behind the retention
		}
		if err != nil {
			return err
		}
		if e == nil {
			continue
		}
		if err := f(Recorded{Receipt{Partition: p.num, Seq: seq, Item: i}, at.UTC(), e}); err != nil {
			return err
		}
	}
	return nil
}
