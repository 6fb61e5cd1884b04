package bus

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ebb-run/ebb/internal/errs"
)

// readBase reads what was purged from the log's head, or nil.
func (b *Bus) readBase(ctx context.Context, p *partition) (*base, error) {
	e, err := b.kv.Get(ctx, p.baseKey())
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fault("read the base of the event log", err)
	}
	var out base
	if err := json.Unmarshal(e.Value(), &out); err != nil {
		return nil, errs.New(errs.Failed, "the base of partition %d of the event log cannot be read: %w", p.num, err)
	}
	return &out, errors.Join(b.readBaseSchedules(ctx, p, &out), b.readBaseStreams(ctx, p, &out), b.readBaseDrops(ctx, p, &out))
}

func (p *partition) baseKey() string { return "base." + strconv.Itoa(p.num) }

// writeBase writes a base. Its Schedules and duplicates may be more than one value of the bucket holds: they are in keys of their own, written before it and
// named by its block, so that an old base is whole until the new one is there.
func (o *owner) writeBase(ctx context.Context, b *base) error {
	old, err := o.b.readBase(ctx, o.p)
	if err != nil {
		return err
	}
	put := func(key string, v any) error {
		data, err := json.Marshal(v)
		if err != nil {
			return err
		}
		if _, err := o.b.kv.Put(ctx, key, data); err != nil {
			return fault("write the base of the event log", err)
		}
		return nil
	}
	for rest := b.schedules; len(rest) > 0; b.Parts++ {
		n, size := 0, 0
		for n < len(rest) && (n == 0 || size+len(rest[n].Spec) < maxSpec) {
			size += len(rest[n].Spec) + 256
			n++
		}
		if err := put(o.p.basePart(b.Seq, b.Parts), rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	for ; b.Streams < len(b.streams); b.Streams++ {
		if err := put(o.p.baseStream(b.Seq, b.Streams), b.streams[b.Streams]); err != nil {
			return err
		}
	}
	for rest := b.drops; len(rest) > 0; b.Drops++ {
		n := min(len(rest), maxDrops)
		if err := put(o.p.baseDrops(b.Seq, b.Drops), rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	if err := put(o.p.baseKey(), b); err != nil {
		return err
	}
	if old == nil || old.Seq == b.Seq {
		return nil
	}
	var keys []string
	for i := range old.Parts {
		keys = append(keys, o.p.basePart(old.Seq, i))
	}
	for i := range old.Drops {
		keys = append(keys, o.p.baseDrops(old.Seq, i))
	}
	for _, key := range keys {
		if err := o.b.kv.Purge(ctx, key); err != nil {
			return fault("remove an old base of the event log", err)
		}
	}
	for i := range old.Streams {
		if err := o.b.kv.Purge(ctx, o.p.baseStream(old.Seq, i)); err != nil {
			return fault("remove an old base of the event log", err)
		}
	}
	return nil
}

func (p *partition) basePart(seq uint64, part int) string {
	return p.baseKey() + "." + strconv.FormatUint(seq, 10) + "." + strconv.Itoa(part)
}

func (b *Bus) readBaseSchedules(ctx context.Context, p *partition, to *base) error {
	for i := range to.Parts {
		e, err := b.kv.Get(ctx, p.basePart(to.Seq, i))
		if err != nil {
			return fault("read the base of the event log", err)
		}
		var part []baseSchedule
		if err := json.Unmarshal(e.Value(), &part); err != nil {
			return errs.New(errs.Failed, "the base of partition %d of the event log cannot be read: %w", p.num, err)
		}
		to.schedules = append(to.schedules, part...)
	}
	return nil
}

// purge removes what is older than the retention and not needed any more. The order makes a crash at any point harmless: a base that is ahead of
// the log's head only hides what is to be removed.
func (o *owner) purge(ctx context.Context, now time.Time) error {
	cutoff := ms(now.Add(-o.b.opt.Retention))
	if err := o.x.exec(ctx, "DELETE FROM deliveries WHERE state = 4 AND updated < ?", cutoff); err != nil {
		return err
	}
	floor, err := o.floor(ctx, cutoff)
	if err != nil || floor <= 1 {
		return err
	}
	b, err := o.baseAt(ctx, floor)
	if err != nil {
		return err
	}
	if err := o.writeBase(ctx, b); err != nil {
		return err
	}
	o.from.Store(floor)
	first, err := o.dataFloor(ctx, floor)
	if err != nil {
		return err
	}
	if err := o.p.stream.Purge(ctx, jetstream.WithPurgeSequence(first)); err != nil {
		return fault("purge the event log", err)
	}
	// Each by itself: the log has none of it any more, so half of it does no harm.
	for _, q := range []string{
		"DELETE FROM deliveries WHERE seq < ?", "DELETE FROM events WHERE seq < ?", "DELETE FROM dups WHERE seq < ?", "DELETE FROM replays WHERE upto < ? AND live = 0",
		"DELETE FROM drops WHERE seq < ?", "DELETE FROM found WHERE seq < ?", "DELETE FROM data WHERE seq < ?",
	} {
		if err := o.x.exec(ctx, q, int64(floor)); err != nil {
			return err
		}
	}
	if err := o.x.exec(ctx, "DELETE FROM chunks WHERE seq < ?", int64(first)); err != nil {
		return err
	}
	if err := o.x.exec(ctx, "DELETE FROM flows WHERE day < ?", cutoff/dayMS); err != nil {
		return err
	}
	return errors.Join(o.x.pruneSchedules(ctx, floor), o.x.pruneTopics(ctx, floor))
}

// floor is the first block that has to stay: the first of the retention, of what has not ended, and of replays. 0 means that nothing can go.
func (o *owner) floor(ctx context.Context, cutoff int64) (uint64, error) {
	least := int64(o.x.applied)
	for _, q := range []struct {
		text string
		args []any
	}{
		{"SELECT coalesce(min(seq), ?) FROM events WHERE at >= ?", []any{least, cutoff}},
		{"SELECT coalesce(min(eseq), ?) FROM deliveries WHERE state IN (0, 1, 4)", []any{least}},
		{"SELECT coalesce(min(cursor), ?) FROM replays WHERE live = 1", []any{least}},
	} {
		var v int64
		if _, err := o.x.one(ctx, []any{&v}, q.text, q.args...); err != nil {
			return 0, err
		}
		least = min(least, v)
	}
	least, err := o.streamFloor(ctx, least)
	if err != nil {
		return 0, err
	}
	least, err = o.queueFloor(ctx, least) // after all that may come before it: what was dropped hangs on what stays
	return uint64(max(least, 0)), err
}

// baseAt gives what stood before a block.
func (o *owner) baseAt(ctx context.Context, floor uint64) (*base, error) {
	b := &base{Seq: floor}
	if _, err := o.x.one(ctx, []any{&b.Epoch}, "SELECT coalesce(max(epoch), 0) FROM epochs WHERE seq < ?", int64(floor)); err != nil {
		return nil, err
	}
	rows, err := o.x.query(ctx, `SELECT id, name, spec FROM versions v WHERE seq < ?1 AND spec IS NOT NULL
		AND NOT EXISTS(SELECT 1 FROM versions w WHERE w.name = v.name AND w.seq < ?1 AND (w.seq, w.idx) > (v.seq, v.idx)) ORDER BY id`, int64(floor))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var s baseSub
		if err := rows.Scan(&s.ID, &s.Name, &s.Spec); err != nil {
			return nil, err
		}
		b.Subs = append(b.Subs, s)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, err
	}
	if b.schedules, err = o.x.schedulesAt(ctx, floor); err != nil {
		return nil, err
	}
	if b.drops, err = o.x.dropsAt(ctx, floor); err != nil {
		return nil, err
	}
	if b.streams, err = o.streamsAt(ctx, floor); err != nil {
		return nil, err
	}
	if b.Topics, err = o.x.topicsAt(ctx, floor); err != nil {
		return nil, err
	}
	b.Queues, err = o.queuesAt(ctx, floor)
	return b, err
}
