package bus

import (
	"context"
	"encoding/json"
	"math"
	"strconv"

	"github.com/ebb-run/ebb/internal/errs"
)

// baseStream is a stream that stood where the log now begins, with how far its Mappings were when the base was written. That may be behind the base's block: what
// follows it in the log is folded onto it again, and changes nothing.
type baseStream struct {
	ID      int64       `json:"id"`
	Key     string      `json:"key"`
	Spec    []byte      `json:"spec"`
	Created int64       `json:"created"`
	Changed int64       `json:"changed"`
	Starts  []baseStart `json:"starts,omitempty"`
}

type baseStart struct {
	Mapping string      `json:"m"`
	Gen     int64       `json:"g"`
	From    From        `json:"f"`
	At      int64       `json:"t,omitempty"`
	Points  map[int]pos `json:"p,omitempty"`
}

func (p *partition) baseStream(seq uint64, n int) string {
	return p.baseKey() + "." + strconv.FormatUint(seq, 10) + ".s" + strconv.Itoa(n)
}

// readBaseStreams reads the streams of a base; each is in a key of its own.
func (b *Bus) readBaseStreams(ctx context.Context, p *partition, to *base) error {
	for i := range to.Streams {
		e, err := b.kv.Get(ctx, p.baseStream(to.Seq, i))
		if err != nil {
			return fault("read the base of the event log", err)
		}
		var s baseStream
		if err := json.Unmarshal(e.Value(), &s); err != nil {
			return errs.New(errs.Failed, "the base of partition %d of the event log cannot be read: %w", p.num, err)
		}
		to.streams = append(to.streams, s)
	}
	return nil
}

// setStreams writes the streams of a base into a new index.
func (x *index) setStreams(ctx context.Context, b *base) error {
	for i, s := range b.streams {
		if err := x.exec(ctx, "INSERT INTO sversions(seq, idx, id, key, spec, created, changed) VALUES(?, ?, ?, ?, ?, ?, ?)",
			int64(b.Seq)-1, i, s.ID, s.Key, s.Spec, s.Created, s.Changed); err != nil {
			return err
		}
		if err := x.exec(ctx, "INSERT INTO streams(id, key, spec, created, changed) VALUES(?, ?, ?, ?, ?)", s.ID, s.Key, s.Spec, s.Created, s.Changed); err != nil {
			return err
		}
		for _, t := range s.Starts {
			if err := x.exec(ctx, "INSERT INTO starts(mapping, stream, gen, way, at) VALUES(?, ?, ?, ?, ?)", t.Mapping, s.ID, t.Gen, t.From, t.At); err != nil {
				return err
			}
			for n, next := range t.Points {
				if err := x.exec(ctx, "INSERT INTO points(gen, shard, next) VALUES(?, ?, ?)", t.Gen, n, int64(next)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// streamsAt gives the streams that stood before a block.
func (o *owner) streamsAt(ctx context.Context, floor uint64) ([]baseStream, error) {
	rows, err := o.x.query(ctx, `SELECT id, key, spec, created, changed FROM sversions v WHERE seq < ?1 AND spec IS NOT NULL
		AND NOT EXISTS(SELECT 1 FROM sversions w WHERE w.key = v.key AND w.seq < ?1 AND (w.seq, w.idx) > (v.seq, v.idx)) ORDER BY id`, int64(floor))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []baseStream
	for rows.Next() {
		var s baseStream
		if err := rows.Scan(&s.ID, &s.Key, &s.Spec, &s.Created, &s.Changed); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	_ = rows.Close()
	for i := range out {
		if out[i].Starts, err = o.startsOf(ctx, out[i].ID); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (o *owner) startsOf(ctx context.Context, stream int64) ([]baseStart, error) {
	rows, err := o.x.query(ctx, "SELECT s.mapping, s.gen, s.way, s.at, p.shard, p.next FROM starts s LEFT JOIN points p ON p.gen = s.gen WHERE s.stream = ? ORDER BY s.gen, p.shard", stream)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []baseStart
	for rows.Next() {
		var t baseStart
		var n *int
		var next *int64
		if err := rows.Scan(&t.Mapping, &t.Gen, &t.From, &t.At, &n, &next); err != nil {
			return nil, err
		}
		if len(out) == 0 || out[len(out)-1].Gen != t.Gen {
			t.Points = map[int]pos{}
			out = append(out, t)
		}
		if n != nil && next != nil {
			out[len(out)-1].Points[*n] = pos(*next)
		}
	}
	return out, rows.Err()
}

// streamFloor is the first block that streams need.
func (o *owner) streamFloor(ctx context.Context, least int64) (int64, error) {
	for _, l := range o.fold.s.live {
		for i := range l.state.Shards {
			v := int64(math.MaxInt64)
			if _, err := o.x.one(ctx, []any{&v}, "SELECT coalesce(min(seq), ?) FROM records WHERE stream = ? AND shard = ?", v, l.id, l.state.Shards[i].N); err != nil {
				return 0, err
			}
			least = min(least, v)
		}
	}
	return least, nil
}

// sweepStreams removes from the index what is older than the retention, which readers pass over already, and what deleted streams have left. It
// tells whether there is more.
func (o *owner) sweepStreams(ctx context.Context, now int64) (more bool, err error) {
	sweep := func(where string, args ...any) error {
		n, err := o.x.changed(ctx, "DELETE FROM records WHERE (stream, shard, seq) IN (SELECT stream, shard, seq FROM records WHERE "+where+" LIMIT ?)", append(args, goneStep)...)
		more = more || n == goneStep
		return err
	}
	for _, l := range o.fold.s.live {
		cutoff := now - l.state.Stream.retention().Milliseconds()
		for i := range l.state.Shards {
			n := l.state.Shards[i].N
			// Up to the first that stays: the order of the log is that of time, but for a clock that was set.
			var upto int64
			found, err := o.x.one(ctx, []any{&upto}, "SELECT seq FROM records WHERE stream = ? AND shard = ? AND at >= ? ORDER BY seq LIMIT 1", l.id, n, cutoff)
			if err == nil && !found {
				upto = math.MaxInt64
			}
			if err == nil {
				err = sweep("stream = ? AND shard = ? AND seq < ?", l.id, n, upto)
			}
			if err != nil {
				return false, err
			}
		}
	}
	if err := sweep("stream IN (SELECT id FROM gonestreams)"); err != nil || more {
		return more, err
	}
	return false, o.x.exec(ctx, "DELETE FROM gonestreams")
}
