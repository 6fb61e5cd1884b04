package bus

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

const (
	// maxReady is how many due deliveries of one Subscription are held in memory.
	maxReady = 512
	// maxAhead is how many may run or wait for their outcomes to be read: the log must not run away from its reader.
	maxAhead = 4096
	// maxBodies bounds the event bodies that are held with them in one Partition; others are read from the log when they run.
	maxBodies = 16 << 20
	// maxResult bounds what is kept of an Outcome's Result, maxText of its error.
	maxResult = 4 << 10
	maxText   = 500
)

// held is a delivery in memory: due, or running.
type held struct {
	fresh
	size    int                // of the event's body, taken from the budget
	running bool               // until the fold has read its outcome
	cancel  context.CancelFunc // of the running call
	alone   bool               // in its batch
	dropped bool               // cancelled while it waited
}

// lane is one Subscription's deliveries in one Partition, as the owner's goroutine knows them.
type lane struct {
	sub     *liveSub
	ready   []*held
	more    bool  // the index may have due ones that are not in ready
	next    int64 // ms; the earliest due time in the index after now, or MaxInt64
	running int   // calls of Deliver
	held    int   // in memory: ready, running, or run and its outcome not read yet
	large   *budget
}

// dispatcher hands due deliveries to the Deliverer. It belongs to the owner's goroutine.
type dispatcher struct {
	o      *owner
	lanes  map[int64]*lane
	held   map[did]*held
	busy   map[string]int // runs by Subscription and key
	bodies budget
}

func newDispatcher(o *owner) *dispatcher {
	d := &dispatcher{o: o, lanes: map[int64]*lane{}, held: map[did]*held{}, busy: map[string]int{}}
	d.bodies.max = maxBodies
	return d
}

func laneKey(sub int64, key string) string {
	if key == "" {
		return ""
	}
	return strconv.FormatInt(sub, 36) + "/" + key
}

// take brings what is in memory up to a commit.
func (d *dispatcher) take(out *effects, now int64) {
	if out.subs {
		d.resubscribe()
	}
	for _, e := range out.ended {
		if h := d.held[e.did]; h != nil && h.running && h.runs+1 == e.run {
			d.release(h)
		}
	}
	for _, id := range out.cancelled {
		h := d.held[id]
		switch {
		case h == nil:
		case h.running && h.alone: // what runs in the same batch has to go on
			h.cancel()
		case h.running:
		default:
			h.dropped = true
		}
	}
	for _, f := range out.ready {
		l := d.lanes[f.Sub]
		switch {
		case l == nil: // deleted in the same commit
		case f.due > now:
			l.next = min(l.next, f.due)
		case l.more || len(l.ready) >= maxReady || d.held[f.did] != nil:
			l.more = true
		default:
			d.hold(l, f)
		}
	}
}

// hold puts a due delivery into memory.
func (d *dispatcher) hold(l *lane, f fresh) {
	h := &held{fresh: f}
	if f.event != nil {
		h.size = f.event.Size()
		if d.bodies.try(h.size) {
			// The data are part of a block, which would be kept whole.
			h.event = f.event.Clone()
			h.event.Data = bytes.Clone(f.event.Data)
		} else {
			h.size, h.event = 0, nil
		}
	}
	d.held[f.did] = h
	l.held++
	l.ready = append(l.ready, h)
}

func (d *dispatcher) release(h *held) {
	if d.held[h.did] == h {
		delete(d.held, h.did)
		if l := d.lanes[h.Sub]; l != nil {
			l.held--
		}
	}
	d.bodies.give(h.size)
	h.size, h.event = 0, nil
}

// resubscribe follows the fold's Subscriptions.
func (d *dispatcher) resubscribe() {
	live := map[int64]bool{}
	for _, s := range d.o.fold.subs {
		live[s.id] = true
		if l := d.lanes[s.id]; l != nil {
			l.sub = s
			continue
		}
		d.lanes[s.id] = &lane{sub: s, more: true, next: math.MaxInt64, large: newBudget(maxLarge)}
	}
	for id, l := range d.lanes {
		if live[id] {
			continue
		}
		for _, h := range l.ready {
			d.release(h)
		}
		for _, h := range d.held {
			if h.Sub == id && h.cancel != nil {
				h.cancel()
			}
		}
		delete(d.lanes, id)
	}
}

// dispatch starts what is due and has room, and returns when it has to be called next, in ms.
func (d *dispatcher) dispatch(ctx context.Context, now int64) (int64, error) {
	next := int64(math.MaxInt64)
	for _, l := range d.lanes {
		if l.next <= now {
			// Taken up when there is room, which the end of something running makes: until then there is nothing to wake up for.
			l.more, l.next = true, math.MaxInt64
		}
		for again := true; again; {
			if l.wants() {
				if err := d.refill(ctx, l, now); err != nil {
					return 0, err
				}
			}
			for l.running < l.sub.spec.Concurrency && l.held-len(l.ready) < maxAhead {
				batch := d.batch(l)
				if len(batch) == 0 {
					break
				}
				d.run(ctx, l, batch)
			}
			// What was ready may have been cancelled meanwhile; a refill that leaves more behind has filled it.
			again = l.running == 0 && l.wants()
		}
		next = min(next, l.next)
	}
	return next, nil
}

// wants tells whether due deliveries are to be taken up from the index.
func (l *lane) wants() bool {
	return l.more && len(l.ready) < maxReady/2 && l.running < l.sub.spec.Concurrency
}

// batch takes from the front of what is ready; of an ordered Subscription nothing whose key is running.
func (d *dispatcher) batch(l *lane) []*held {
	var out, left []*held
	i := 0
	for ; i < len(l.ready) && len(out) < l.sub.spec.Batch; i++ {
		h := l.ready[i]
		switch {
		case h.dropped:
			d.release(h)
		case h.key != "" && d.busy[laneKey(h.Sub, h.key)] > 0:
			left = append(left, h)
		default:
			out = append(out, h)
			if h.key != "" {
				d.busy[laneKey(h.Sub, h.key)]++
			}
		}
	}
	if i > 0 {
		l.ready = append(left, l.ready[i:]...)
	}
	return out
}

// farAhead is how much later than its longest backoff a delivery may be due; what is due later was written by a clock that was ahead, and is due now.
const farAhead = time.Minute

// refill takes up due deliveries from the index.
func (d *dispatcher) refill(ctx context.Context, l *lane, now int64) error {
	// What is held is pending in the index too, and has to be passed over.
	limit := maxReady + l.held
	rows, err := d.o.fold.due(ctx, l.sub.id, now, limit)
	if err != nil {
		return err
	}
	far := now + l.sub.spec.Retry.MaxBackoff.Milliseconds() + farAhead.Milliseconds()
	next, err := d.o.fold.nextDue(ctx, l.sub.id, now)
	if err != nil {
		return err
	}
	if len(rows) == 0 && next > far && next < math.MaxInt64 {
		if rows, err = d.o.fold.due(ctx, l.sub.id, math.MaxInt64, limit); err != nil {
			return err
		}
		next = math.MaxInt64
	}
	l.more, l.next = len(rows) == limit, next
	for _, f := range rows {
		switch {
		case d.held[f.did] != nil:
		case len(l.ready) >= maxReady:
			l.more = true
		default:
			d.hold(l, f)
		}
	}
	return nil
}

// run starts one call of Deliver.
func (d *dispatcher) run(ctx context.Context, l *lane, batch []*held) {
	start := d.o.now()
	ctx, cancel := context.WithCancel(ctx)
	for _, h := range batch {
		h.running, h.cancel, h.alone = true, cancel, len(batch) == 1
		d.o.running.Store(h.did, start)
	}
	l.running++
	sub, large := l.sub, l.large
	d.o.wait.Go(func() {
		defer cancel()
		d.o.deliver(ctx, sub, large, batch)
		d.o.finished <- finished{l, batch}
	})
}

// finished is the end of a call of Deliver, after its outcomes were appended, or could not be because the owner stops.
type finished struct {
	l     *lane
	batch []*held
}

func (d *dispatcher) finish(f finished) {
	f.l.running--
	for _, h := range f.batch {
		d.o.running.Delete(h.did)
		if h.key == "" {
			continue
		}
		k := laneKey(h.Sub, h.key)
		if d.busy[k]--; d.busy[k] <= 0 {
			delete(d.busy, k)
		}
	}
}

// deliver runs one batch and appends its outcomes, again and again until they are durable or the owner stops.
func (o *owner) deliver(ctx context.Context, sub *liveSub, large *budget, batch []*held) {
	events, faults, free := o.eventsOf(ctx, large, batch)
	defer free()
	ctx, cancel := context.WithTimeoutCause(ctx, sub.spec.Deadline, errs.New(errs.Timeout, "the subscription's deadline of %v has passed", sub.spec.Deadline))
	defer cancel()
	now := o.now()
	var items [][]item
	var run []*held
	var ds []*Delivery
	for i, h := range batch {
		e, err := events[i], faults[i]
		if err != nil {
			switch {
			case ctx.Err() == nil && errs.CodeOf(err) == errs.NotFound:
				items = append(items, []item{jsonItem(kindOutcome, o.ended(sub, h, now, Outcome{Err: err}, CauseLost))})
			case o.stopping():
				return
			default:
				items = append(items, []item{jsonItem(kindOutcome, o.ended(sub, h, now, Outcome{Err: errs.New(errs.Unavailable, "read the event: %w", err)}, ""))})
			}
			continue
		}
		d := &Delivery{ID: h.id(o.p.num), Subscription: sub.spec.Name, Target: sub.spec.Target, Event: e, Published: time.UnixMilli(h.at),
			Attempt: h.attempt + 1, Sequence: sequence(h.eseq, h.eidx), Replay: h.replay, Redriven: h.redrive}
		if oldest := sub.spec.Retry.MaxAge; now.Sub(time.UnixMilli(h.born)) > oldest {
			items = append(items, o.conclude(sub, h, d, now, Outcome{Err: errs.New(errs.Timeout, "it is older than %v", oldest)}, CauseExpired))
			continue
		}
		run, ds = append(run, h), append(ds, d)
	}
	if len(ds) > 0 {
		o.b.passes(AtDequeued)
		outs := o.b.opt.Deliver.Deliver(ctx, ds)
		o.b.passes(AtEnded)
		if len(outs) != len(ds) {
			bad := errs.New(errs.Internal, "the target gave %d outcomes for %d deliveries", len(outs), len(ds))
			outs = slices.Repeat([]Outcome{{Err: bad}}, len(ds))
		}
		for i, h := range run {
			if outs[i].Err != nil && o.stopping() {
				continue // not an outcome of the target: the next owner delivers it again
			}
			items = append(items, o.conclude(sub, h, ds[i], now, outs[i], ""))
		}
	}
	o.outcomes(items)
}

// lastWait bounds the appending of outcomes while the owner stops.
const lastWait = 5 * time.Second

// outcomes records as many at once as a block holds; what is in one group stays together.
func (o *owner) outcomes(groups [][]item) {
	var block []item
	size := 0
	for _, g := range groups {
		n := 0
		for _, it := range g {
			n += it.size()
		}
		if len(block) > 0 && (size+n > maxBlock || len(block)+len(g) > maxItems) {
			o.record(block)
			block, size = nil, 0
		}
		block, size = append(block, g...), size+n
	}
	o.record(block)
}

// record appends outcomes, again and again until they are durable or the owner stops; then for a short time.
// It returns the block where they are, or 0.
func (o *owner) record(items []item) uint64 {
	for len(items) > 0 {
		last := o.stopping()
		ctx, cancel := o.ctx, context.CancelFunc(func() {})
		if last {
			ctx, cancel = context.WithTimeout(context.WithoutCancel(o.ctx), lastWait)
		}
		at, err := o.p.log.append(ctx, items)
		cancel()
		if err == nil || last {
			return at.seq
		}
		if o.stopping() {
			continue
		}
		o.b.opt.Log.Warn("outcomes cannot be written to the event log", "partition", o.p.num, "err", err)
		select {
		case <-time.After(time.Second):
		case <-o.ctx.Done():
		}
	}
	return 0
}

// maxEnded bounds the bytes of the events that are published with an end.
const maxEnded = maxBlock / 2

// conclude makes the record of an attempt, with what is published because the delivery ended with it.
func (o *owner) conclude(sub *liveSub, h *held, d *Delivery, start time.Time, out Outcome, cause Cause) []item {
	r := o.ended(sub, h, start, out, cause)
	items := []item{jsonItem(kindOutcome, r)}
	if r.State == Pending || o.b.opt.Ended == nil {
		return items
	}
	size := 0
	for _, e := range o.b.opt.Ended(d, r.State, r.Cause, out) {
		it := eventItemOver(e, maxEnded/8)
		if err := e.Validate(o.b.opt.Limits.Event); err != nil || size+it.size() > maxEnded {
			o.b.opt.Log.Error("an event about the end of a delivery is not published", "delivery", d.ID, "err", err, "bytes", it.size())
			continue
		}
		items, size = append(items, it), size+it.size()
	}
	return items
}

// ended makes the record of an attempt, and decides what comes next.
func (o *owner) ended(sub *liveSub, h *held, start time.Time, out Outcome, cause Cause) outcome {
	now := o.now()
	r := outcome{did: h.did, Run: h.runs + 1, Epoch: o.epoch, State: Done, Start: ms(start), Took: now.Sub(start).Microseconds()}
	if len(out.Result) <= maxResult && json.Valid(out.Result) {
		r.Result = out.Result
	}
	if out.Err == nil {
		return r
	}
	r.Code, r.Text, r.State, r.Cause = errs.CodeOf(out.Err), clip(out.Err.Error()), Dead, cause
	retry := sub.spec.Retry
	count := h.attempt + 1
	switch r.Code {
	case errs.Throttled, errs.Unavailable:
		r.Free = true
		count = h.runs + 1 - h.attempt // waits longer while it goes on
	case errs.NotFound, errs.Forbidden, errs.Invalid, errs.TooLarge, errs.Unsupported:
		r.Cause = CauseRefused
		if cause != "" {
			r.Cause = cause
		}
		return r
	}
	if r.Cause != "" {
		r.Free = true // it was not tried
		return r
	}
	due := now.Add(retry.backoff(count))
	switch {
	case !r.Free && count >= retry.Attempts:
		r.Cause = CauseExhausted
	case due.Sub(time.UnixMilli(h.born)) > retry.MaxAge:
		r.Cause = CauseExpired
	default:
		r.State, r.Due = Pending, ms(due)
	}
	return r
}

func clip(s string) string {
	s = strings.ToValidUTF8(s, "\ufffd")
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + "…"
}

// due reads the due deliveries of a Subscription.
func (f *folder) due(ctx context.Context, sub, now int64, limit int) ([]fresh, error) {
	rows, err := f.x.query(ctx, "SELECT "+freshColumns+" FROM deliveries WHERE sub = ? AND state = 0 AND due <= ? ORDER BY due, seq, idx LIMIT ?", sub, now, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []fresh
	for rows.Next() {
		var d fresh
		if err := rows.Scan(d.columns()...); err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, rows.Err()
}

// nextDue is when the next delivery after now is due.
func (f *folder) nextDue(ctx context.Context, sub, now int64) (int64, error) {
	var due int64
	found, err := f.x.one(ctx, []any{&due}, "SELECT due FROM deliveries WHERE sub = ? AND state = 0 AND due > ? ORDER BY due LIMIT 1", sub, now)
	if err != nil || !found {
		return math.MaxInt64, err
	}
	return due, nil
}
