package slots

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// turns is how long a Node keeps what it has where there are more Nodes than slots.
	turns = time.Second
	// apart is the least time between two writes of a Node that lower what it has: one for several runs that ended.
	apart = 20 * time.Millisecond
	// answerWait bounds one question to the bucket.
	answerWait = 5 * time.Second
)

// Pool is a Node's part of one ceiling. Its methods may be called concurrently.
type Pool struct {
	s     *Slots
	key   string
	give  func(n int, until time.Time) (running int)
	poked chan struct{}
	mu    struct {
		sync.Mutex
		ceiling, running, waiting int
		held                      bool // a goroutine looks after it
	}
}

// Tell says how many run and wait on this Node. It returns at once, and may be called under the caller's locks.
func (p *Pool) Tell(running, waiting int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if running == p.mu.running && waiting == p.mu.waiting {
		return
	}
	p.mu.running, p.mu.waiting = running, waiting
	if !p.mu.held {
		p.mu.held = running+waiting > 0 && p.s.enter(p)
	}
	p.poke()
}

// Ceiling changes the ceiling.
func (p *Pool) Ceiling(n int) {
	p.mu.Lock()
	p.mu.ceiling = n
	p.mu.Unlock()
	p.poke()
}

func (p *Pool) poke() {
	select {
	case p.poked <- struct{}{}:
	default:
	}
}

// enter starts the goroutine of a Pool. p.mu is held.
func (s *Slots) enter(p *Pool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return false
	}
	s.wait.Go(func() { p.hold() })
	return true
}

// view is what this Node has seen of the others.
type view struct {
	rec   record
	rev   uint64
	since map[string]time.Time // when the Beat that stands was seen first
	fresh bool                 // nothing has said that there is a newer state
}

// see takes a state of the key.
func (v *view) see(rec record, rev uint64, now time.Time) {
	if rev < v.rev {
		return
	}
	since := map[string]time.Time{}
	for node, l := range rec {
		if at, ok := v.since[node]; ok && v.rec[node].Beat == l.Beat {
			since[node] = at
		} else {
			since[node] = now
		}
	}
	v.rec, v.rev, v.since, v.fresh = rec, rev, since, true
}

// held is what a Pool's goroutine has in mind.
type held struct {
	p      *Pool
	seen   view
	first  uint64 // Beats of this process begin there
	beat   uint64
	good   time.Time // start of the last write that succeeded
	lower  time.Time // when it was written last that there is less
	ample  time.Time // since when there is more than is used; zero: there is not
	peak   int       // most that ran and waited at once since then
	took   time.Time // since when it has some
	rest   time.Time // until when others have their turn
	stands lease     // this Node's, as far as it knows
}

// hold keeps the lease while something runs or waits.
func (p *Pool) hold() {
	begun := uint64(time.Now().UnixNano()) // higher than all before, also those of an earlier process
	h := &held{p: p, first: begun, beat: begun}
	updates := make(chan jetstream.KeyValueEntry, 16)
	watching, unwatch := context.WithCancel(p.s.ctx)
	defer unwatch()
	p.s.wait.Go(func() { p.watch(watching, updates) })
	for p.s.ctx.Err() == nil {
		wait, over := h.step(p.s.ctx)
		if over && p.released() {
			return
		}
		timer := time.NewTimer(wait)
		select {
		case e := <-updates:
			h.see(parse(e.Value()), e.Revision())
		case <-p.poked:
		case <-timer.C:
		case <-p.s.ctx.Done():
		}
		timer.Stop()
	}
	h.leave()
}

// released says whether nothing has come since the lease was given back; then there is no goroutine any more.
func (p *Pool) released() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.held = p.mu.running+p.mu.waiting > 0
	return !p.mu.held
}

// watch passes on what is written to the key.
func (p *Pool) watch(ctx context.Context, updates chan<- jetstream.KeyValueEntry) {
	for ctx.Err() == nil {
		w, err := p.s.kv.Watch(ctx, p.key)
		if err != nil {
			pause(ctx, time.Second)
			continue
		}
		for open := true; open; {
			select {
			case e, ok := <-w.Updates():
				if open = ok; !ok || e == nil {
					break // nil: all that stood has come
				}
				select {
				case updates <- e:
				case <-ctx.Done():
				}
			case <-ctx.Done():
				open = false
			}
		}
		_ = w.Stop()
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

// step brings the lease to what it should be. It tells when to look again at the latest, or that the lease was given back.
func (h *held) step(ctx context.Context) (wait time.Duration, over bool) {
	p, ttl := h.p, h.p.s.o.TTL
	now := time.Now()
	u := h.use(now)
	if u.running+u.waiting == 0 && h.stands.Slots == 0 {
		h.leave()
		return 0, true
	}
	if !h.seen.fresh {
		if err := h.read(ctx); err != nil {
			h.trouble(ctx, err)
			return 0, false
		}
	}
	next, turn := decide(h.others(now), h.stands.Slots, u)
	if turn && now.Sub(h.took) > turns { // others are fewer than the ceiling, and have theirs now
		next.Slots, h.rest = 0, now.Add(turns/2)
	}
	may := next.Slots
	if may < h.stands.Slots {
		// First nobody enters, then others may.
		next.Slots = max(may, p.give(may, h.until()))
	}
	lowers := next.Slots < h.stands.Slots
	renew := h.good.IsZero() || now.Sub(h.good) >= ttl/3
	switch {
	case next.Slots == h.stands.Slots && next.Short == h.stands.Short && !renew:
	case lowers && !renew && now.Sub(h.lower) < apart:
		return apart, false
	default:
		if err := h.write(ctx, next, now); err != nil {
			h.trouble(ctx, err)
			return 0, false
		}
		if lowers {
			h.lower = now
		}
		p.give(min(may, h.stands.Slots), h.until())
	}
	return h.again(now, u, turn), false
}

// use asks what runs and waits now.
func (h *held) use(now time.Time) use {
	h.p.mu.Lock()
	u := use{ceiling: h.p.mu.ceiling, running: h.p.mu.running, waiting: h.p.mu.waiting}
	h.p.mu.Unlock()
	h.peak = max(h.peak, u.running+u.waiting)
	switch {
	case h.stands.Slots <= u.running+u.waiting:
		h.ample, h.peak = time.Time{}, 0
	case h.ample.IsZero():
		h.ample, h.peak = now, u.running+u.waiting
	}
	if h.stands.Slots == 0 {
		h.took = now
	}
	if u.keep = !h.ample.IsZero() && now.Sub(h.ample) < h.p.s.o.idle; !u.keep {
		u.peak = h.peak
		h.ample = time.Time{} // the next span begins
	}
	u.rest = now.Before(h.rest)
	return u
}

// again is when to look again though nothing happens.
func (h *held) again(now time.Time, u use, turn bool) time.Duration {
	wait := h.p.s.o.TTL/3 - time.Since(h.good)
	if u.keep {
		wait = min(wait, h.p.s.o.idle-now.Sub(h.ample))
	}
	if u.rest {
		wait = min(wait, h.rest.Sub(now))
	}
	if turn {
		wait = min(wait, turns)
	}
	return max(wait, time.Millisecond)
}

// until is when this Node has to stop by.
func (h *held) until() time.Time { return h.good.Add(h.p.s.o.TTL * 2 / 3) }

// others are the leases of Nodes that are not gone.
func (h *held) others(now time.Time) record {
	out := maps.Clone(h.seen.rec)
	delete(out, h.p.s.o.Node)
	for node := range out {
		if now.Sub(h.seen.since[node]) > h.p.s.o.TTL {
			delete(out, node)
		}
	}
	return out
}

// trouble waits a little: until the lease ends this Node goes on with what it has.
func (h *held) trouble(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	if !errors.Is(err, errMoved) {
		h.p.s.o.Log.Warn("the slots of a shared ceiling cannot be renewed", "ceiling", h.p.key, "until", h.until(), "err", err)
		pause(ctx, h.p.s.o.TTL/60)
	}
	h.seen.fresh = false
}

var errMoved = errors.New("somebody else has written")

// see takes a state of the key, and with it what this Node has: an answer to a write may have been lost, or others took this Node for gone.
func (h *held) see(rec record, rev uint64) {
	if rev < h.seen.rev {
		return
	}
	h.seen.see(rec, rev, time.Now())
	mine := rec[h.p.s.o.Node]
	if mine.Beat > h.beat || mine.Beat < h.first {
		mine = lease{} // of an earlier process of this Node
	}
	h.stands = mine
}

// read asks for the state that stands.
func (h *held) read(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	e, err := h.p.s.kv.Get(ctx, h.p.key)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		h.seen.rev = 0
		h.see(record{}, 0)
	case err != nil:
		return err
	default:
		h.see(parse(e.Value()), e.Revision())
	}
	return nil
}

// write puts this Node's lease beside those of the others that are not gone.
func (h *held) write(ctx context.Context, next lease, now time.Time) error {
	h.beat++
	next.Beat = h.beat
	rec := h.others(now)
	if next.Slots > 0 || next.Short {
		rec[h.p.s.o.Node] = next
	}
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	var rev uint64
	if h.seen.rev == 0 {
		rev, err = h.p.s.kv.Create(ctx, h.p.key, data)
	} else {
		rev, err = h.p.s.kv.Update(ctx, h.p.key, data, h.seen.rev)
	}
	var api *jetstream.APIError
	switch {
	case errors.Is(err, jetstream.ErrKeyExists) || errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence:
		return errMoved
	case err != nil:
		return err // it may stand nevertheless: the next read tells
	}
	h.seen.see(rec, rev, now)
	h.stands, h.good = next, now
	return nil
}

// leave gives the lease back.
func (h *held) leave() {
	running := h.p.give(0, time.Time{})
	ctx, cancel := context.WithTimeout(context.WithoutCancel(h.p.s.ctx), answerWait)
	defer cancel()
	for tries := 0; tries < 5 && running == 0; tries++ { // what still runs holds its slots until the lease ends
		if !h.seen.fresh && h.read(ctx) != nil {
			continue
		}
		if _, ours := h.seen.rec[h.p.s.o.Node]; !ours || h.write(ctx, lease{}, time.Now()) == nil {
			return
		}
		h.seen.fresh = false
	}
}

// use is what a Node does with its part of a ceiling.
type use struct {
	ceiling, running, waiting int
	keep                      bool // what is not used now is kept for a while
	peak                      int  // how many were used at once in the while that is over
	rest                      bool // others have their turn
}

// decide says what a Node that has so many slots is to have. turn: there are too few for all Nodes that wait.
func decide(others record, has int, u use) (next lease, turn bool) {
	taken, nodes, short := 0, 1, false
	for _, l := range others {
		taken += l.Slots
		nodes++
		short = short || l.Short
	}
	want := min(u.running+u.waiting, u.ceiling)
	n := has
	switch {
	case want > has && !u.rest:
		n = want + want/2 + 1 // some more, so that not each one needs a write
	case want < has && !u.keep:
		n = min(has, max(want, u.peak))
	}
	if short {
		n = min(n, max(u.ceiling/nodes, 1))
	}
	n = max(min(n, u.ceiling-taken), 0)
	return lease{Slots: n, Short: u.running+u.waiting > 0 && want > n}, short && nodes > u.ceiling && has > 0
}
