package bus

import (
	"context"
	"encoding/json"
	"errors"
	"math/big"
)

// streamSchema is the part of the index that holds streams.
const streamSchema = `
CREATE TABLE streams(id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, spec BLOB NOT NULL, created INTEGER NOT NULL, changed INTEGER NOT NULL);
-- What stood when, for the base; a spec of NULL is a deletion.
CREATE TABLE sversions(seq INTEGER NOT NULL, idx INTEGER NOT NULL, id INTEGER NOT NULL, key TEXT NOT NULL, spec BLOB, created INTEGER NOT NULL, changed INTEGER NOT NULL,
  PRIMARY KEY(seq, idx)) WITHOUT ROWID;
-- Which blocks hold how many records of a shard. The records themselves are found in the block by their hashes.
CREATE TABLE records(stream INTEGER NOT NULL, shard INTEGER NOT NULL, seq INTEGER NOT NULL, n INTEGER NOT NULL, bytes INTEGER NOT NULL, at INTEGER NOT NULL,
  PRIMARY KEY(stream, shard, seq)) WITHOUT ROWID;
CREATE TABLE gonestreams(id INTEGER PRIMARY KEY);
-- Where the mappings of a stream began, and how far they are in each shard: what stands before next is done.
CREATE TABLE starts(mapping TEXT NOT NULL, stream INTEGER NOT NULL, gen INTEGER NOT NULL, way TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY(mapping, stream)) WITHOUT ROWID;
CREATE TABLE points(gen INTEGER NOT NULL, shard INTEGER NOT NULL, next INTEGER NOT NULL, PRIMARY KEY(gen, shard)) WITHOUT ROWID;
`

// liveStream is a stream that stands, as the fold knows it. It is replaced and never changed.
type liveStream struct {
	id               int64
	key              string
	state            streamState
	created, changed int64 // ms
}

type shardKey struct {
	stream int64
	shard  int
}

// portion is what a block holds of a shard.
type portion struct{ n, bytes int }

// streamFold is what the fold keeps of streams besides the tables.
type streamFold struct {
	live  map[string]*liveStream
	block map[shardKey]portion
}

// streamEffects are what a transaction means to those who poll.
type streamEffects struct {
	changed bool              // streams were put or deleted, or mappings began or were forgotten
	fresh   map[shardKey]bool // shards that have new records
}

func (s *streamFold) begin() {
	if s.live == nil {
		s.live, s.block = map[string]*liveStream{}, map[shardKey]portion{}
	}
}

func (f *folder) loadStreams(ctx context.Context) error {
	f.s = streamFold{}
	f.s.begin()
	rows, err := f.x.query(ctx, "SELECT id, key, spec, created, changed FROM streams")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		l := &liveStream{}
		var spec []byte
		if err := errors.Join(rows.Scan(&l.id, &l.key, &spec, &l.created, &l.changed), json.Unmarshal(spec, &l.state)); err != nil {
			return err
		}
		f.s.live[l.key] = l
	}
	return rows.Err()
}

func (f *folder) streamItem(ctx context.Context, at did, now int64, it item) error {
	if it.kind != kindCheckpoint {
		if twice, err := f.writtenTwice(ctx, at, now); twice || err != nil {
			return err
		}
	}
	switch it.kind {
	case kindStreamPut:
		return read(it, func(p streamPut) error { return f.putStream(ctx, at, now, &p) })
	case kindStreamDelete:
		return read(it, func(d streamDeletion) error { return f.deleteStream(ctx, at, d.Stream) })
	case kindCheckpoint:
		return read(it, func(c checkpoint) error { return f.point(ctx, at, &c) })
	}
	return f.record(it)
}

// record notes that the block holds a record. It is in the shard that is open for its hash now, whatever its writer knew.
func (f *folder) record(it item) error {
	r, err := parseRecord(it)
	if err != nil {
		return err
	}
	l := f.s.live[string(r.stream)]
	if l == nil {
		return nil // deleted meanwhile
	}
	h := l.state.open(r.hash)
	if h == nil {
		return nil // the open shards have all hashes
	}
	k := shardKey{l.id, h.N}
	p := f.s.block[k]
	f.s.block[k] = portion{p.n + 1, p.bytes + len(r.data) + it.dataSize() + len(r.key)}
	return nil
}

// flushStreams writes what a block has of records.
func (f *folder) flushStreams(ctx context.Context, seq uint64, now int64, items []item, size int) error {
	if len(f.s.block) > 0 && f.held != nil {
		f.held(seq, items, size)
	}
	for k, p := range f.s.block {
		if err := f.x.exec(ctx, "INSERT INTO records(stream, shard, seq, n, bytes, at) VALUES(?, ?, ?, ?, ?, ?)", k.stream, k.shard, int64(seq), p.n, p.bytes, now); err != nil {
			return err
		}
		if f.out.streams.fresh == nil {
			f.out.streams.fresh = map[shardKey]bool{}
		}
		f.out.streams.fresh[k] = true
	}
	clear(f.s.block)
	return nil
}

func (f *folder) streamVersion(ctx context.Context, at did, l *liveStream, spec []byte) error {
	f.out.streams.changed = true
	return f.x.exec(ctx, "INSERT INTO sversions(seq, idx, id, key, spec, created, changed) VALUES(?, ?, ?, ?, ?, ?, ?)",
		int64(at.Seq), at.Idx, l.id, l.key, spec, l.created, l.changed)
}

func (f *folder) putStream(ctx context.Context, at did, now int64, p *streamPut) error {
	key, here := p.Stream.Key(), posOf(at.Seq, at.Idx)
	l := &liveStream{id: int64(here), key: key, created: now, changed: now}
	old := f.s.live[key]
	if old != nil {
		l.id, l.created, l.state = old.id, old.created, old.state
		l.state.Shards = append([]shard(nil), old.state.Shards...)
	}
	l.state.Turning = p.Turn
	switch {
	case p.Turn && old == nil:
		return nil
	case p.Turn:
	case p.Split != nil || p.Merge != nil:
		if old == nil || !l.state.reshape(here, now, p) {
			return nil // another one was before it
		}
	default:
		n := p.Stream.Shards
		if n == 0 {
			n = max(l.state.opened(), 1)
		}
		l.state.Stream = p.Stream
		l.state.Stream.Shards = n
		l.state.spread(here, now, n)
	}
	if old != nil { // what was forgotten of shards goes with them
		for i := range old.state.Shards {
			if n := old.state.Shards[i].N; l.state.shard(n) == nil {
				if err := f.x.exec(ctx, "DELETE FROM records WHERE stream = ? AND shard = ?", l.id, n); err != nil {
					return err
				}
			}
		}
	}
	f.s.live[key] = l
	spec := jsonItem(kindStreamPut, l.state).body
	if err := f.streamVersion(ctx, at, l, spec); err != nil {
		return err
	}
	return f.x.exec(ctx, `INSERT INTO streams(id, key, spec, created, changed) VALUES(?, ?, ?, ?, ?)
		ON CONFLICT(id) DO UPDATE SET spec = excluded.spec, changed = excluded.changed`, l.id, l.key, spec, l.created, l.changed)
}

// reshape splits a shard or merges two, and tells whether they are such as can be.
func (s *streamState) reshape(at pos, now int64, p *streamPut) bool {
	open := func(n int) *shard {
		if h := s.shard(n); h != nil && h.End == 0 {
			return h
		}
		return nil
	}
	if p.Split != nil {
		h := open(p.Split.Shard)
		if h == nil || p.Split.At.compare(h.First) <= 0 || p.Split.At.compare(h.Last) > 0 {
			return false
		}
		s.replace(at, now, [][2]hashKey{{h.First, p.Split.At.before()}, {p.Split.At, h.Last}})
		return true
	}
	a, b := open(p.Merge[0]), open(p.Merge[1])
	if a == nil || b == nil {
		return false
	}
	if a.First.compare(b.First) > 0 {
		a, b = b, a
	}
	if a == b || b.First.before() != a.Last {
		return false
	}
	s.replace(at, now, [][2]hashKey{{a.First, b.Last}})
	return true
}

// before is the hash key in front of one that is not the first.
func (h hashKey) before() (out hashKey) {
	n := new(big.Int).SetBytes(h[:])
	if n.Sign() > 0 {
		n.Sub(n, big.NewInt(1)).FillBytes(out[:])
	}
	return out
}

func (f *folder) deleteStream(ctx context.Context, at did, key string) error {
	l := f.s.live[key]
	if l == nil {
		return nil
	}
	delete(f.s.live, key)
	if err := f.streamVersion(ctx, at, l, nil); err != nil {
		return err
	}
	for _, q := range []string{
		"DELETE FROM points WHERE gen IN (SELECT gen FROM starts WHERE stream = ?)", "DELETE FROM starts WHERE stream = ?",
		"INSERT OR IGNORE INTO gonestreams(id) VALUES(?)", "DELETE FROM streams WHERE id = ?",
	} {
		if err := f.x.exec(ctx, q, l.id); err != nil {
			return err
		}
	}
	return nil
}

// point takes a checkpoint. Each is taken such that taking it again, behind later ones, changes nothing: a base holds newer ones than the log's head.
func (f *folder) point(ctx context.Context, at did, c *checkpoint) error {
	if c.Do == pointDrop {
		f.out.streams.changed = true
		if err := f.x.exec(ctx, "DELETE FROM points WHERE gen IN (SELECT gen FROM starts WHERE mapping = ? AND gen < ?)", c.Mapping, int64(posOf(at.Seq, at.Idx))); err != nil {
			return err
		}
		return f.x.exec(ctx, "DELETE FROM starts WHERE mapping = ? AND gen < ?", c.Mapping, int64(posOf(at.Seq, at.Idx)))
	}
	if c.Epoch != f.x.epoch {
		return nil
	}
	if c.Do == pointStart {
		f.out.streams.changed = true
		return f.x.exec(ctx, "INSERT OR IGNORE INTO starts(mapping, stream, gen, way, at) SELECT ?, ?, ?, ?, ? WHERE EXISTS(SELECT 1 FROM streams WHERE id = ?)",
			c.Mapping, c.Stream, int64(posOf(at.Seq, at.Idx)), c.From, c.At, c.Stream)
	}
	return f.x.exec(ctx, `INSERT INTO points(gen, shard, next) SELECT ?, ?, ? WHERE EXISTS(SELECT 1 FROM starts WHERE gen = ?)
		ON CONFLICT(gen, shard) DO UPDATE SET next = max(next, excluded.next)`, c.Gen, c.Shard, int64(c.Next), c.Gen)
}
