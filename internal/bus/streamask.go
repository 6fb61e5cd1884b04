package bus

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

// What can be asked of a stream's owner besides the stream itself.
const (
	askRecords  = "records"  // where records of a shard are
	askTime     = "time"     // where those begin that came at a time
	askMappings = "mappings" // what polls which stream
)

type streamQuestion struct {
	Do    string `json:"do,omitempty"`
	Key   string `json:"key,omitempty"` // or ID, or all
	ID    int64  `json:"id,omitempty"`
	Reach uint64 `json:"reach,omitempty"` // a block that is to be folded first, for a while
	Count bool   `json:"count,omitempty"` // the records too
	// Of askRecords and askTime.
	Shard int   `json:"shard,omitempty"`
	Next  pos   `json:"next,omitempty"`
	At    int64 `json:"at,omitempty"` // ms
	Limit int   `json:"limit,omitempty"`
	Bytes int   `json:"bytes,omitempty"`
}

type streamReply struct {
	Streams  []streamInfo   `json:"streams,omitempty"`
	Rows     []row          `json:"rows,omitempty"`
	After    int64          `json:"after,omitempty"` // ms; when the first record came that is behind the Rows; 0 where there is none
	Next     pos            `json:"next,omitempty"`
	Mappings []StreamMapped `json:"mappings,omitempty"`
}

// streamInfo is a stream as its owner knows it.
type streamInfo struct {
	ID      int64       `json:"id"`
	Key     string      `json:"key"`
	State   streamState `json:"state"`
	Created int64       `json:"created"`
	Changed int64       `json:"changed"`
	N       int         `json:"n,omitempty"`
}

// row is a block that holds records of a shard.
type row struct {
	Seq   uint64 `json:"s"`
	N     int    `json:"n"`
	Bytes int    `json:"b"`
	At    int64  `json:"t"` // ms
}

// StreamMapped says that a Mapping has begun on a stream.
type StreamMapped struct {
	Mapping string `json:"mapping"`
	Stream  string `json:"stream"` // key
}

func noStream(key string) error { return errs.New(errs.NotFound, "there is no stream %s", clip(key)) }

func noShard(n int) error { return errs.New(errs.NotFound, "there is no shard %s", shardName(n)) }

func (o *owner) lookStream(ctx context.Context, q *streamQuestion) (*streamReply, error) {
	if err := o.reachBlock(ctx, q.Reach); err != nil {
		return nil, err
	}
	r := &streamReply{}
	var err error
	switch {
	case q.Do == askMappings:
		r.Mappings, err = o.mapped(ctx)
		return r, err
	case q.Key == "" && q.ID == 0:
		r.Streams, err = o.streamInfos(ctx, "1", nil)
		return r, err
	case q.ID != 0:
		r.Streams, err = o.streamInfos(ctx, "id = ?", []any{q.ID})
	default:
		r.Streams, err = o.streamInfos(ctx, "key = ?", []any{q.Key})
	}
	if err != nil {
		return nil, err
	}
	if len(r.Streams) == 0 {
		return nil, noStream(q.Key)
	}
	info := &r.Streams[0]
	oldest := ms(time.Now()) - info.State.Stream.retention().Milliseconds()
	switch q.Do {
	case askRecords:
		r.Rows, r.After, err = o.rows(ctx, info.ID, q.Shard, q.Next, max(oldest, q.At), q.Limit, q.Bytes)
	case askTime:
		var seq int64
		found, ferr := o.readOne(ctx, []any{&seq}, "SELECT seq FROM records WHERE stream = ? AND shard = ? AND at >= ? ORDER BY seq LIMIT 1", info.ID, q.Shard, max(oldest, q.At))
		if found {
			r.Next = posOf(uint64(seq), 0)
		}
		err = ferr
	}
	if err == nil && q.Count {
		_, err = o.readOne(ctx, []any{&info.N}, "SELECT coalesce(sum(n), 0) FROM records WHERE stream = ? AND at >= ?", info.ID, oldest)
	}
	return r, err
}

func (o *owner) streamInfos(ctx context.Context, where string, args []any) ([]streamInfo, error) {
	rows, err := o.x.db.QueryContext(ctx, "SELECT id, key, spec, created, changed FROM streams WHERE "+where+" ORDER BY key", args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []streamInfo
	for rows.Next() {
		var s streamInfo
		var spec []byte
		if err := errors.Join(rows.Scan(&s.ID, &s.Key, &spec, &s.Created, &s.Changed), json.Unmarshal(spec, &s.State)); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, rows.Err()
}

func (o *owner) mapped(ctx context.Context) ([]StreamMapped, error) {
	rows, err := o.x.db.QueryContext(ctx, "SELECT t.mapping, s.key FROM starts t JOIN streams s ON s.id = t.stream ORDER BY t.mapping, s.key")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []StreamMapped
	for rows.Next() {
		var m StreamMapped
		if err := rows.Scan(&m.Mapping, &m.Stream); err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, rows.Err()
}

// maxRows is how many blocks one answer names.
const maxRows = 1000

// rows gives the blocks with the next records of a shard that came at a time or later: as many as hold limit records or so many bytes, at least one.
func (o *owner) rows(ctx context.Context, stream int64, shard int, next pos, at int64, limit, bytes int) (out []row, after int64, err error) {
	rows, err := o.x.db.QueryContext(ctx, "SELECT seq, n, bytes, at FROM records WHERE stream = ? AND shard = ? AND seq >= ? AND at >= ? ORDER BY seq LIMIT ?",
		stream, shard, int64(next.seq()), at, maxRows+1)
	if err != nil {
		return nil, 0, err
	}
	defer rows.Close()
	n, size := 0, 0
	for rows.Next() {
		var r row
		if err := rows.Scan(&r.Seq, &r.N, &r.Bytes, &r.At); err != nil {
			return nil, 0, err
		}
		if len(out) > 0 && (n >= limit || size >= bytes) || len(out) == maxRows {
			return out, r.At, nil
		}
		if len(out) > 0 { // of the first one some may be behind already
			n, size = n+r.N, size+r.Bytes
		}
		out = append(out, r)
	}
	return out, 0, rows.Err()
}

// ahead is how many blocks are read at once.
const ahead = 8

// shardView is what has to be known to find the records of a shard in blocks.
type shardView struct {
	key string // of the stream
	shard
	hashes bool // their hash keys are wanted
}

// read gives the records of rows from a place on, up to limit and bytes but at least one, the place behind the last, and when the first came that was left.
func (p *partition) read(ctx context.Context, v *shardView, rows []row, from pos, limit, bytes int) (out []GotRecord, next pos, left int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()
	type block struct {
		items []item
		err   error
	}
	blocks := make([]chan block, len(rows))
	get := func(i int) {
		if i >= len(rows) {
			return
		}
		blocks[i] = make(chan block, 1)
		wait.Go(func() {
			items, err := p.bodies.items(ctx, rows[i].Seq)
			blocks[i] <- block{items, err}
		})
	}
	for i := range min(ahead, len(rows)) {
		get(i)
	}
	next = from
	for i, r := range rows {
		b := <-blocks[i]
		get(i + ahead)
		if errs.CodeOf(b.err) == errs.NotFound { // its retention has ended meanwhile
			next = max(next, posOf(r.Seq+1, 0))
			continue
		}
		if b.err != nil {
			return out, next, r.At, b.err
		}
		for idx := range b.items {
			at := posOf(r.Seq, idx)
			if at < next || b.items[idx].kind != kindRecord {
				continue
			}
			rec, err := parseRecord(b.items[idx])
			if err != nil {
				return out, next, r.At, err
			}
			if string(rec.stream) != v.key || !v.holds(rec.hash, at) {
				continue
			}
			size := len(rec.data) + b.items[idx].dataSize() + len(rec.key)
			if len(out) > 0 && (len(out) >= limit || size > bytes) {
				return out, next, r.At, nil
			}
			bytes -= size
			data := slices.Clone(rec.data) // a record must not keep its whole block in memory
			if ref := b.items[idx].ref; ref != nil {
				if data, err = p.bodies.load(ctx, ref); errs.CodeOf(err) == errs.NotFound {
					next = at + 1 // as a block that is gone
					continue
				}
				if err != nil {
					return out, next, r.At, err
				}
			}
			got := GotRecord{Record: Record{Data: data, Key: string(rec.key), ID: string(rec.id), Type: string(rec.kind)},
				Sequence: at.sequence(), Arrived: time.UnixMilli(r.At).UTC(), at: at}
			if v.hashes {
				got.HashKey = rec.hash.String()
			}
			out = append(out, got)
			next = at + 1
		}
		next = max(next, posOf(r.Seq+1, 0))
	}
	return out, next, 0, nil
}

// streamHub tells those who poll streams what is new. But for sweep and again, which are the owner's goroutine's, it may be used by any.
type streamHub struct {
	sweep bool
	again int64        // ms; when there is more to sweep
	turns atomic.Int64 // how often streams or mappings changed
	mu    struct {
		sync.Mutex
		all    map[chan struct{}]bool
		shards map[shardKey]map[chan struct{}]bool
		claims map[string]chan struct{} // closed when the Mapping is not polled any more
	}
}

// claim waits until nobody else polls for the Mapping of a name.
func (h *streamHub) claim(ctx context.Context, name string) (free func(), ok bool) {
	for {
		h.mu.Lock()
		other := h.mu.claims[name]
		if other == nil {
			mine := make(chan struct{})
			h.mu.claims[name] = mine
			h.mu.Unlock()
			return func() {
				h.mu.Lock()
				defer h.mu.Unlock()
				delete(h.mu.claims, name)
				close(mine)
			}, true
		}
		h.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, false
		}
	}
}

func newStreamHub() *streamHub {
	h := &streamHub{again: math.MaxInt64}
	h.mu.all, h.mu.shards, h.mu.claims = map[chan struct{}]bool{}, map[shardKey]map[chan struct{}]bool{}, map[string]chan struct{}{}
	return h
}

// follow gives a channel that gets a word when streams or mappings change.
func (h *streamHub) follow() (c chan struct{}, leave func()) {
	c = make(chan struct{}, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.all[c] = true
	return c, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.mu.all, c)
	}
}

// followShard gives a channel that gets a word when the shard has new records, or streams change.
func (h *streamHub) followShard(k shardKey) (c chan struct{}, leave func()) {
	c = make(chan struct{}, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.shards[k] == nil {
		h.mu.shards[k] = map[chan struct{}]bool{}
	}
	h.mu.shards[k][c] = true
	return c, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if delete(h.mu.shards[k], c); len(h.mu.shards[k]) == 0 {
			delete(h.mu.shards, k)
		}
	}
}

// polled tells whether shards are polled here.
func (h *streamHub) polled() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.mu.shards) > 0
}

func tell(all map[chan struct{}]bool) {
	for c := range all {
		select {
		case c <- struct{}{}:
		default: // it has not looked yet
		}
	}
}

// take tells of a commit.
func (h *streamHub) take(out *streamEffects) {
	if !out.changed && len(out.fresh) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if out.changed {
		h.turns.Add(1)
		tell(h.mu.all)
		for _, all := range h.mu.shards {
			tell(all)
		}
		return
	}
	for k := range out.fresh {
		tell(h.mu.shards[k])
	}
}

// sweepDue sweeps streams when it is time, and gives when it has to be called next, at the latest at next.
func (o *owner) sweepDue(ctx context.Context, now, next int64) (int64, error) {
	if o.s.sweep || o.s.again <= now {
		more, err := o.sweepStreams(ctx, now)
		if err != nil {
			return 0, err
		}
		if o.s.sweep, o.s.again = false, math.MaxInt64; more {
			o.s.again = now + 100 // not at once: others have their turn
		}
	}
	return min(next, o.s.again), nil
}
