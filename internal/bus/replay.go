package bus

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ebb-run/ebb/internal/errs"
)

// Replay says which events are delivered again: those published in [From, To) that match the Subscription and, where one is given, the Filter.
type Replay struct {
	Subscription string
	From, To     time.Time // To zero means until now
	Filter       json.RawMessage
}

// ReplayStatus says how far a replay is, summed over all Partitions.
type ReplayStatus struct {
	ID    string `json:"id"`
	Found int    `json:"found"` // deliveries made
	Done  bool   `json:"done"`  // all of the log was looked through
}

// Replay delivers events of the archive again, to one Subscription, marked with the ID that it returns. Only what the log still holds is found.
func (b *Bus) Replay(ctx context.Context, r Replay) (string, error) {
	open := r.To.IsZero()
	if open {
		r.To = time.Now()
	}
	if !r.From.Before(r.To) {
		return "", errs.New(errs.Invalid, "a replay from %s to %s has no time in it", r.From.Format(time.RFC3339), r.To.Format(time.RFC3339))
	}
	if open { // what stands in the log before the request; the clocks that stamped it may be ahead of this one
		r.To = r.To.Add(24 * time.Hour)
	}
	if _, err := b.compile(r.Filter); err != nil {
		return "", errs.New(errs.CodeOf(err), "replay: %w", err)
	}
	subs, err := b.Subscriptions(ctx)
	if err != nil {
		return "", err
	}
	found := false
	for _, s := range subs {
		found = found || s.Name == r.Subscription
	}
	if !found {
		return "", errs.New(errs.NotFound, "there is no subscription %s", clip(r.Subscription))
	}
	id := "replay-" + rand.Text()[:16]
	return id, b.everywhere(ctx, jsonItem(kindReplay, replay{ID: id, Sub: r.Subscription, From: ms(r.From), To: ms(r.To), Filter: r.Filter}))
}

// ReplayStatus tells how far a replay is.
func (b *Bus) ReplayStatus(ctx context.Context, id string) (ReplayStatus, error) {
	out := ReplayStatus{ID: id, Done: true}
	known := false
	for _, p := range b.parts {
		r, err := b.ask(ctx, p, question{Replay: id})
		if err != nil {
			return out, err
		}
		if r.Replay == nil { // not folded yet
			out.Done = false
			continue
		}
		known = true
		out.Found += r.Replay.Found
		out.Done = out.Done && r.Replay.Done
	}
	if !known {
		return out, errs.New(errs.NotFound, "there is no replay %s", clip(id))
	}
	return out, nil
}

func (o *owner) replayStatus(ctx context.Context, id string) (*ReplayStatus, error) {
	rows, err := o.x.db.QueryContext(ctx, "SELECT found, live = 0 FROM replays WHERE id = ?", id)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	if !rows.Next() {
		return nil, rows.Err()
	}
	r := &ReplayStatus{ID: id}
	return r, rows.Scan(&r.Found, &r.Done)
}

// startReplays reads the log for each live replay that is not being read.
func (o *owner) startReplays() {
	type live struct {
		r            replay
		cursor, upto uint64
		sub          int64
	}
	var all []live
	rows, err := o.x.query(o.ctx, "SELECT spec, cursor, upto, sub FROM replays WHERE live = 1")
	if err == nil {
		for rows.Next() && err == nil {
			var l live
			var spec []byte
			err = errors.Join(rows.Scan(&spec, &l.cursor, &l.upto, &l.sub), json.Unmarshal(spec, &l.r))
			all = append(all, l)
		}
		err = errors.Join(err, rows.Err(), rows.Close())
	}
	if err != nil {
		if !o.stopping() {
			o.fail(indexError(err))
		}
		return
	}
	for _, l := range all {
		if o.replays[l.r.ID] {
			continue
		}
		lane := o.d.lanes[l.sub]
		if lane == nil {
			continue
		}
		o.replays[l.r.ID] = true
		sub := lane.sub
		o.wait.Go(func() {
			for !o.stopping() {
				err := o.readReplay(sub, l.r, &l.cursor, l.upto)
				if err == nil {
					return
				}
				if !o.stopping() {
					o.b.opt.Log.Warn("a replay waits", "replay", l.r.ID, "err", err)
					pause(o.ctx, time.Second)
				}
			}
		})
	}
}

// maxRefs is how many events one part of a replay has.
const maxRefs = 500

// readReplay looks through the log and appends what it finds in parts, each with the place from which the next one goes on.
func (o *owner) readReplay(sub *liveSub, r replay, cursor *uint64, upto uint64) error {
	filter, err := o.b.compile(r.Filter)
	if err != nil {
		filter = nothing{}
	}
	cfg := jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: *cursor}
	if *cursor == 0 {
		from := time.UnixMilli(r.From)
		cfg.DeliverPolicy, cfg.OptStartSeq, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, 0, &from
	}
	c, err := o.p.stream.OrderedConsumer(o.ctx, cfg)
	if err != nil {
		return fault("read the event log", err)
	}
	msgs, err := c.Messages(jetstream.PullMaxMessages(8))
	if err != nil {
		return fault("read the event log", err)
	}
	defer msgs.Stop()
	var refs []ref
	next := *cursor // 0: wherever the span begins
	part := func(next uint64, end bool) error {
		if _, err := o.p.log.append(o.ctx, []item{jsonItem(kindReplayed, replayed{r.ID, *cursor, next, end, refs})}); err != nil {
			return err
		}
		*cursor, refs = next, nil
		return nil
	}
	for {
		m, err := msgs.Next(jetstream.NextContext(o.ctx))
		if err != nil {
			return fault("read the event log", err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		seq, at := meta.Sequence.Stream, ms(meta.Timestamp)
		if next > 0 {
			if err := o.leftOut(o.ctx, next, seq); err != nil {
				return err
			}
		}
		next = seq + 1
		if seq >= upto || at >= r.To {
			return part(seq, true)
		}
		found, err := o.search(m.Data(), seq, sub, filter)
		if err != nil {
			return err
		}
		if at >= r.From && seq >= o.from.Load() {
			refs = append(refs, found...)
		}
		if len(refs) >= maxRefs {
			if err := part(seq+1, false); err != nil {
				return err
			}
		}
	}
}

// search gives the events of a block that match.
func (o *owner) search(data []byte, seq uint64, sub *liveSub, filter Matcher) ([]ref, error) {
	items, err := parseBlock(data)
	if err != nil {
		return nil, err
	}
	var out []ref
	for i, it := range items {
		e, err := it.event()
		if err != nil {
			return nil, err
		}
		if e == nil {
			continue
		}
		if !sub.spec.reads(e) {
			continue
		}
		if e, err = o.blocks.whole(o.ctx, it); errs.CodeOf(err) == errs.NotFound {
			continue // its data were purged: it is behind the retention
		}
		if err != nil {
			return nil, err
		}
		if !sub.matcher.Match(e) || !filter.Match(e) {
			continue
		}
		r := ref{Seq: seq, Idx: i}
		if sub.spec.Ordered {
			r.Key = e.Extension(PartitionKey)
		}
		out = append(out, r)
	}
	return out, nil
}
