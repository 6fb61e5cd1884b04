package bus

import (
	"context"
	"hash/fnv"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

// shardPoll reads one shard for a Mapping. It belongs to one goroutine, but for what lanes send it.
type shardPoll struct {
	*streamPoller
	ctx   context.Context // until polling ends
	id    int64           // of the stream
	start begun
	n     int // of the shard

	state  streamState
	view   shardView
	turn   int64 // of the hub, when they were read
	cursor pos   // the next record to be read
	lanes  []*streamLane
	order  []pos        // of records that are read and not done, rising
	done   map[pos]bool // those that are all the same
	held   int          // bytes of what is read and not done
	sizes  map[pos]int
	ended  chan laneNews
	wrote  chan pos  // a checkpoint that was written; 0 where it was not
	kept   pos       // the last checkpoint that was written
	writes bool      // one is under way
	last   time.Time // when one was begun
	wait   sync.WaitGroup
}

// streamLane has the records of some partition keys: one Batch of it runs at a time.
type streamLane struct {
	queue []GotRecord
	since time.Time // when the first of the queue was read
	busy  bool
}

// laneNews is what a lane has done.
type laneNews struct {
	lane *streamLane // nil: there is more to come
	done []pos
}

// maxHeld bounds the bytes that are read of a shard and not done: Batches that run, and the next ones.
const maxHeld = 2 * maxPayload

// shard reads a shard until it is done, which it tells, or polling ends.
func (s *streamPoller) shard(ctx context.Context, id int64, start begun, n int) bool {
	p := &shardPoll{streamPoller: s, ctx: ctx, id: id, start: start, n: n, done: map[pos]bool{}, sizes: map[pos]int{}, ended: make(chan laneNews, 2*maxParallel), wrote: make(chan pos, 1)}
	for range s.m.Parallel {
		p.lanes = append(p.lanes, &streamLane{})
	}
	word, leave := s.o.s.followShard(shardKey{id, n})
	defer leave()
	if err := p.refresh(); err != nil || p.view.N != n {
		return false
	}
	next, err := s.point(ctx, start, &p.view.shard)
	if err != nil {
		return false
	}
	p.cursor, p.kept = next, next
	ok := p.loop(word)
	p.finish()
	return ok
}

// refresh reads the shard's state: it may have been closed.
func (p *shardPoll) refresh() error {
	turn := p.o.s.turns.Load()
	if turn == p.turn && p.view.key != "" {
		return nil
	}
	p.turn = turn
	all, err := p.o.streamInfos(p.ctx, "id = ?", []any{p.id})
	if err != nil || len(all) == 0 {
		return err
	}
	p.state = all[0].State
	if h := p.state.shard(p.n); h != nil {
		p.view = shardView{all[0].Key, *h, false}
	}
	return nil
}

// loop reads, hands out Batches and writes checkpoints. It tells false where something could not be read.
func (p *shardPoll) loop(word <-chan struct{}) bool {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for fresh, end := true, false; ; {
		if fresh {
			more, err := p.fill()
			if err != nil {
				if p.ctx.Err() != nil {
					return true
				}
				p.o.b.opt.Log.Warn("a shard cannot be read; it is tried again", "mapping", p.m.Name, "stream", p.m.Stream, "shard", shardName(p.n), "err", err)
				pause(p.ctx, time.Second)
			}
			fresh, end = more, !more && p.view.End != 0
		}
		wait := min(p.dispatch(), p.keep(end))
		if end && p.kept >= p.view.End {
			return true
		}
		if fresh && !p.full() {
			wait = 0
		}
		timer.Reset(wait)
		select {
		case <-word:
			if err := p.refresh(); err != nil {
				return p.ctx.Err() != nil
			}
			fresh = true
		case n := <-p.ended:
			p.settle(n)
		case at := <-p.wrote:
			p.writes, p.kept = false, max(p.kept, at)
		case <-timer.C:
		case <-p.ctx.Done():
			return true
		}
	}
}

// full tells whether nothing more is to be read for now.
func (p *shardPoll) full() bool {
	return len(p.order) >= max(2*p.m.Batch*p.m.Parallel, 200) || p.held >= maxHeld
}

// fill reads as much as there may be in memory. It tells whether there is more to read.
func (p *shardPoll) fill() (more bool, err error) {
	for !p.full() && p.ctx.Err() == nil {
		limit := max(2*p.m.Batch*p.m.Parallel, 200) - len(p.order)
		oldest := ms(time.Now()) - p.state.Stream.retention().Milliseconds()
		if p.start.from == AtTimestamp {
			oldest = max(oldest, p.start.at)
		}
		rows, after, err := p.o.rows(p.ctx, p.id, p.n, p.cursor, oldest, limit, maxHeld-p.held)
		if err != nil {
			return true, err
		}
		if len(rows) == 0 {
			return false, nil
		}
		recs, next, left, err := p.o.p.read(p.ctx, &p.view, rows, p.cursor, limit, maxHeld-p.held)
		p.cursor = next
		p.take(recs)
		if err != nil {
			return true, err
		}
		if left == 0 && after == 0 {
			return false, nil
		}
	}
	return true, nil
}

// take gives records to their lanes.
func (p *shardPoll) take(recs []GotRecord) {
	now := time.Now()
	for i := range recs {
		r := &recs[i]
		if p.m.Filter != nil && !p.m.Filter(p.batch(&p.state, p.n, recs[i:i+1])) {
			continue
		}
		l := p.lanes[0]
		if len(p.lanes) > 1 {
			h := fnv.New32a()
			_, _ = h.Write([]byte(r.Key))
			l = p.lanes[h.Sum32()%uint32(len(p.lanes))]
		}
		if len(l.queue) == 0 {
			l.since = now
		}
		l.queue = append(l.queue, *r)
		size := recordBytes(r)
		p.order, p.sizes[r.at], p.held = append(p.order, r.at), size, p.held+size
	}
}

// recordBytes is about what a record takes in JSON.
func recordBytes(r *GotRecord) int { return streamRecordSize + len(r.Key) + (len(r.Data)+2)/3*4 }

// dispatch starts Batches that are full or have waited for long enough, and tells when to look again.
func (p *shardPoll) dispatch() time.Duration {
	next := time.Hour
	for _, l := range p.lanes {
		if l.busy || len(l.queue) == 0 || p.ctx.Err() != nil {
			continue
		}
		n, size := 0, 0
		for n < len(l.queue) && n < p.m.Batch && (n == 0 || size+recordBytes(&l.queue[n]) <= maxPayload) {
			size += recordBytes(&l.queue[n])
			n++
		}
		if left := p.m.Window - time.Since(l.since); left > 0 && n == len(l.queue) && n < p.m.Batch && !p.full() {
			next = min(next, left)
			continue
		}
		recs := l.queue[:n:n]
		if l.queue = l.queue[n:]; len(l.queue) == 0 {
			l.queue = nil
		}
		l.since, l.busy = time.Now(), true
		b := streamBatch{shardPoll: p, lane: l, stream: p.state}
		p.wait.Go(func() { b.run(recs) })
	}
	return next
}

// settle notes what a lane has done.
func (p *shardPoll) settle(n laneNews) {
	for _, at := range n.done {
		p.done[at] = true
	}
	for len(p.order) > 0 && p.done[p.order[0]] {
		at := p.order[0]
		p.held -= p.sizes[at]
		delete(p.done, at)
		delete(p.sizes, at)
		p.order = p.order[1:]
	}
	if n.lane != nil {
		n.lane.busy = false
	}
}

// next is the place before which all is done.
func (p *shardPoll) next(end bool) pos {
	switch {
	case len(p.order) > 0:
		return p.order[0]
	case end:
		return max(p.cursor, p.view.End)
	}
	return p.cursor
}

func (p *shardPoll) checkpoint(next pos) []item {
	return []item{jsonItem(kindCheckpoint, checkpoint{Do: pointMove, Mapping: p.m.Name, Stream: p.id, Epoch: p.o.epoch, Gen: p.start.gen, Shard: p.n, Next: next})}
}

// keepEvery is how often the checkpoint of a shard is written at most: each costs a sync, and one that is late only lets more come twice after a kill.
const keepEvery = 100 * time.Millisecond

// keep writes a checkpoint when there is something new and none is under way, and tells when to look again. What is done meanwhile is in the next one.
func (p *shardPoll) keep(end bool) time.Duration {
	next := p.next(end)
	if p.writes || next <= p.kept {
		return time.Hour
	}
	if left := keepEvery - time.Since(p.last); left > 0 && (p.view.End == 0 || next < p.view.End) {
		return left
	}
	p.writes, p.last = true, time.Now()
	items := p.checkpoint(next)
	p.wait.Go(func() {
		at, err := p.o.p.log.append(p.ctx, items)
		if err == nil && end { // who begins the shards behind this one looks into the index
			err = p.o.progress.reach(p.ctx, p.o.ctx, at.seq)
		}
		if err != nil {
			if p.ctx.Err() == nil {
				p.o.b.opt.Log.Warn("how far a shard was consumed cannot be written; it is tried again", "mapping", p.m.Name, "err", err)
			}
			pause(p.ctx, time.Second)
			next = 0
		}
		p.wrote <- next
	})
	return time.Hour
}

// finish waits for what runs, and keeps what it did.
func (p *shardPoll) finish() {
	over := make(chan struct{})
	go func() { p.wait.Wait(); close(over) }()
	for waiting := true; waiting; {
		select {
		case n := <-p.ended:
			p.settle(n)
		case at := <-p.wrote:
			p.kept = max(p.kept, at)
		case <-over:
			waiting = false
		}
	}
	for more := true; more; {
		select {
		case n := <-p.ended:
			p.settle(n)
		case at := <-p.wrote:
			p.kept = max(p.kept, at)
		default:
			more = false
		}
	}
	if next := p.next(false); next > p.kept {
		if seq := p.o.record(p.checkpoint(next)); seq > 0 { // who polls next looks into the index
			_ = p.o.reachBlock(context.Background(), seq) // an error says that it is another owner's
		}
	}
}

// streamBatch runs one Batch of a lane to its end.
type streamBatch struct {
	*shardPoll
	lane   *streamLane
	stream streamState // when it began
}

// streamPart is a piece of a Batch, with how often it was tried.
type streamPart struct {
	recs  []GotRecord
	tries int // that count as such
	calls int
	waits int   // of calls in which nothing ran
	err   error // of the last call
}

// run consumes records until all are done or given up, or polling ends.
func (b *streamBatch) run(recs []GotRecord) {
	defer func() { b.ended <- laneNews{lane: b.lane} }()
	retry := Retry{MinBackoff: 200 * time.Millisecond, MaxBackoff: 30 * time.Second}
	for parts := []streamPart{{recs: recs}}; len(parts) > 0 && b.ctx.Err() == nil; {
		p := &parts[0]
		if p.recs = b.expire(p); len(p.recs) == 0 {
			parts = parts[1:]
			continue
		}
		if b.ctx.Err() != nil {
			return
		}
		v := b.c.Consume(b.o.ctx, b.batch(&b.stream, b.n, p.recs))
		p.err = v.Err
		if code := errs.CodeOf(v.Err); v.Err != nil && (code == errs.Throttled || code == errs.Unavailable) { // nothing of it ran
			p.waits++
			b.rest(p, retry.backoff(p.waits))
			continue
		}
		first := len(p.recs)
		if len(v.Failed) > 0 {
			first = min(max(v.Failed[0], 0), first-1)
		} else if v.Err != nil {
			first = 0
		}
		b.report(p.recs[:first])
		if p.recs = p.recs[first:]; len(p.recs) == 0 {
			parts = parts[1:]
			continue
		}
		if p.calls++; first > 0 {
			p.tries, p.calls = 0, 1
		}
		if b.m.Bisect && (first > 0 || len(p.recs) > 1) {
			if first == 0 { // a half is a Batch of its own; splitting is no try
				half := (len(p.recs) + 1) / 2
				parts = append([]streamPart{{recs: p.recs[:half], tries: p.tries, calls: p.calls, err: p.err}, {recs: p.recs[half:], tries: p.tries, calls: p.calls, err: p.err}}, parts[1:]...)
			}
			continue
		}
		if p.tries++; b.m.Retries != nil && p.tries > *b.m.Retries {
			b.giveUp(p.recs, p, false)
			parts = parts[1:]
			continue
		}
		b.rest(p, retry.backoff(p.tries))
	}
}

// rest waits before the next try, but not longer than until something of the part is too old.
func (b *streamBatch) rest(p *streamPart, wait time.Duration) {
	pause(b.ctx, max(min(wait, time.Until(p.recs[0].Arrived.Add(b.age()))), 0))
}

// age is how old records may be.
func (b *streamBatch) age() time.Duration {
	age := b.stream.Stream.retention()
	if b.m.MaxAge > 0 {
		age = min(age, b.m.MaxAge)
	}
	return age
}

// report tells that records are done.
func (b *streamBatch) report(recs []GotRecord) {
	if len(recs) == 0 {
		return
	}
	n := laneNews{}
	for i := range recs {
		n.done = append(n.done, recs[i].at)
	}
	b.ended <- n
}

// expire gives up the records at the beginning that are too old, and gives the others.
func (b *streamBatch) expire(p *streamPart) []GotRecord {
	limit, n := time.Now().Add(-b.age()), 0
	for n < len(p.recs) && p.recs[n].Arrived.Before(limit) {
		n++
	}
	if n > 0 {
		b.giveUp(p.recs[:n], p, true)
	}
	return p.recs[n:]
}

// giveUp tells of records that are not tried any more; then they are done. Where that cannot be told now it is tried again: what is behind them waits.
func (b *streamBatch) giveUp(recs []GotRecord, p *streamPart, expired bool) {
	f := &StreamFailure{Mapping: b.m.Name, Batch: b.batch(&b.stream, b.n, recs), Tries: p.calls, Expired: expired, Err: p.err}
	retry := Retry{MinBackoff: time.Second, MaxBackoff: 30 * time.Second}
	for n := 1; b.m.Failed != nil; n++ {
		err := b.m.Failed(b.o.ctx, f)
		if err == nil {
			break
		}
		b.o.b.opt.Log.Warn("that records were given up cannot be told; it is tried again", "mapping", b.m.Name, "stream", b.m.Stream, "shard", shardName(b.n), "err", err)
		if pause(b.ctx, retry.backoff(n)); b.ctx.Err() != nil {
			return
		}
	}
	b.report(recs)
}
