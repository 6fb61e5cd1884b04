package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/event"
)

// liveSub is a Subscription that stands, as the fold knows it.
type liveSub struct {
	id      int64
	spec    Subscription
	matcher Matcher
}

// fresh is a delivery that the fold has made due.
type fresh struct {
	did
	eseq    uint64
	eidx    int
	key     string
	born    int64 // ms; its age counts from here
	at      int64 // ms; when its event was durable
	due     int64
	runs    int
	attempt int
	redrive int
	replay  string
	state   State        // where it stood; only of what a Selection chose
	event   *event.Event // or nil: to be read from the log
}

// effects are what a transaction of the fold means to what is in memory. They take place after its commit.
type effects struct {
	ready     []fresh // pending now, or later when due is later
	ended     []end   // attempts whose outcome of the newest epoch was read
	cancelled []did   // stopped by request
	subs      bool    // the Subscriptions have changed
	replays   bool    // so have the replays
	schedules map[scheduleKey]bool
	epochs    map[uint64]bool // leases that were read
	queues    queueEffects
	streams   streamEffects
}

// end is one attempt, by its number among all of the delivery.
type end struct {
	did
	run int
}

// folder applies blocks to an index. Everything it does follows from the blocks, the window and MaxHops.
type folder struct {
	x       *index
	window  int64 // ms
	maxHops int
	compile Compile
	subs    map[string]*liveSub
	reading map[reading]*room
	index   func() Index                             // nil: none
	held    func(seq uint64, items []item, size int) // told of blocks with records of streams; or nil
	warn    func(text string, args ...any)
	out     effects

	schedules map[scheduleKey]liveSchedule
	q         queueFold
	s         streamFold
	flows     flowFold
	moved     map[countKey]int // by the block that is being folded
	known     map[spot]bool    // duplicates ahead, as the base tells of them: their firsts are not in the log any more
}

// load reads the Subscriptions and Schedules that stand.
func (f *folder) load(ctx context.Context) error {
	f.subs, f.reading = map[string]*liveSub{}, map[reading]*room{}
	rows, err := f.x.query(ctx, "SELECT id, spec FROM subs WHERE live = 1")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		var spec []byte
		if err := rows.Scan(&id, &spec); err != nil {
			return err
		}
		var s Subscription
		if err := json.Unmarshal(spec, &s); err != nil {
			return err
		}
		f.keep(f.live(id, s))
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	if err := f.loadSchedules(ctx); err != nil {
		return err
	}
	if err := errors.Join(f.loadStreams(ctx), f.loadDrops(ctx)); err != nil {
		return err
	}
	return f.loadQueues(ctx)
}

func (f *folder) live(id int64, s Subscription) *liveSub {
	m, err := f.compile(s.Filter)
	if err != nil {
		// Subscribe has compiled it: only another ebb can have put it.
		f.warn("a subscription's filter is not understood; it matches nothing", "subscription", s.Name, "err", err)
		m = nothing{}
	}
	return &liveSub{id, s.orDefaults(), m}
}

// reading is what a Subscription reads before its filter is asked.
type reading struct{ channel, subject string }

func (s *liveSub) reads() reading { return reading{s.spec.Channel, s.spec.Subject} }

// room has the Subscriptions that read the same.
type room struct {
	plain   []*liveSub // asked one by one, in the order of names
	index   Index      // or nil
	indexed map[int64]*liveSub
}

func bySubName(s *liveSub, name string) int { return strings.Compare(s.spec.Name, name) }

// keep adds a Subscription whose name is free.
func (f *folder) keep(s *liveSub) {
	f.subs[s.spec.Name] = s
	r := f.reading[s.reads()]
	if r == nil {
		r = &room{indexed: map[int64]*liveSub{}}
		f.reading[s.reads()] = r
	}
	if f.index != nil && len(s.spec.Filter) > 0 {
		if r.index == nil {
			r.index = f.index()
		}
		if r.index.Add(s.id, s.spec.Filter) {
			r.indexed[s.id] = s
			return
		}
	}
	at, _ := slices.BinarySearchFunc(r.plain, s.spec.Name, bySubName)
	r.plain = slices.Insert(r.plain, at, s)
}

func (f *folder) drop(name string) {
	s, ok := f.subs[name]
	if !ok {
		return
	}
	delete(f.subs, name)
	r := f.reading[s.reads()]
	if r.indexed[s.id] != nil {
		r.index.Remove(s.id)
		delete(r.indexed, s.id)
	} else if at, ok := slices.BinarySearchFunc(r.plain, name, bySubName); ok {
		r.plain = slices.Delete(r.plain, at, at+1)
	}
	if len(r.plain)+len(r.indexed) == 0 {
		delete(f.reading, s.reads())
	}
}

// matched gives the Subscriptions that an event is for, by name, so that the order is the same every time.
func (f *folder) matched(e *event.Event) []*liveSub {
	at := []reading{{e.Extension(Channel), ""}}
	if e.Subject != "" {
		at = append(at, reading{at[0].channel, e.Subject})
	}
	var out []*liveSub
	for _, key := range at {
		r := f.reading[key]
		if r == nil {
			continue
		}
		for _, s := range r.plain {
			if s.matcher.Match(e) {
				out = append(out, s)
			}
		}
		if r.index != nil {
			for _, id := range r.index.Match(e) {
				out = append(out, r.indexed[id])
			}
		}
	}
	slices.SortFunc(out, func(a, b *liveSub) int { return strings.Compare(a.spec.Name, b.spec.Name) })
	return out
}

// block applies one block of the log, stored at the time.
func (f *folder) block(ctx context.Context, seq uint64, at time.Time, data []byte) error {
	if seq <= f.x.applied {
		return nil
	}
	items, err := parseBlock(data)
	if err != nil {
		return fmt.Errorf("block %d: %w", seq, err)
	}
	f.q.begin(data, ms(at))
	f.s.begin()
	clear(f.moved)
	for i, it := range items {
		if err := f.item(ctx, did{Seq: seq, Idx: i}, ms(at), it); err != nil {
			return fmt.Errorf("block %d, item %d: %w", seq, i, err)
		}
	}
	if err := errors.Join(f.flushQueues(ctx), f.flushStreams(ctx, seq, ms(at), items, len(data)), f.flushFlows(ctx, ms(at)), f.flushCounts(ctx)); err != nil {
		return fmt.Errorf("block %d: %w", seq, err)
	}
	f.x.applied = seq
	return nil
}

func (f *folder) item(ctx context.Context, at did, now int64, it item) error {
	switch it.kind {
	case kindEvent:
		e, _, err := event.ParseLog(it.body)
		if err != nil {
			return err
		}
		return f.event(ctx, at, now, e)
	case kindOutcome:
		return read(it, func(o outcome) error { return f.outcome(ctx, now, o) })
	case kindPut:
		return read(it, func(s Subscription) error { return f.put(ctx, at, s, it.body) })
	case kindDelete:
		return read(it, func(d deletion) error { return f.delete(ctx, at, now, d.Name) })
	case kindCancel:
		return read(it, func(s Selection) error { return f.cancel(ctx, now, s) })
	case kindRedrive:
		return read(it, func(s Selection) error { return f.redrive(ctx, now, s) })
	case kindReplay:
		return read(it, func(r replay) error { return f.replay(ctx, at, r, it.body) })
	case kindReplayed:
		return read(it, func(r replayed) error { return f.replayed(ctx, at, now, r) })
	case kindWork:
		return read(it, func(w Work) error { return f.work(ctx, at, now, w) })
	case kindSchedule, kindUnschedule, kindFired:
		return f.schedule(ctx, at, now, it)
	case kindStreamPut, kindStreamDelete, kindRecord, kindCheckpoint:
		return f.streamItem(ctx, at, now, it)
	case kindTopic, kindTopicDelete:
		return f.topic(ctx, at, it)
	case kindLease:
		return read(it, func(l lease) error {
			if l.Epoch > f.x.epoch {
				f.x.epoch = l.Epoch
				if err := f.x.exec(ctx, "INSERT OR REPLACE INTO epochs(seq, epoch) VALUES(?, ?)", int64(at.Seq), int64(l.Epoch)); err != nil {
					return err
				}
			}
			if f.out.epochs == nil {
				f.out.epochs = map[uint64]bool{}
			}
			f.out.epochs[l.Epoch] = true
			return nil
		})
	}
	return f.queueItem(ctx, at, now, it)
}

func read[T any](it item, f func(T) error) error {
	var v T
	if err := json.Unmarshal(it.body, &v); err != nil {
		return fmt.Errorf("item of kind %q: %w", it.kind, err)
	}
	return f(v)
}

// event drops a duplicate within the window, or makes a delivery for each Subscription that matches.
func (f *folder) event(ctx context.Context, at did, now int64, e *event.Event) error {
	if f.known[spot{at.Seq, at.Idx}] {
		return f.x.exec(ctx, "INSERT OR IGNORE INTO dups(seq, idx) VALUES(?, ?)", int64(at.Seq), at.Idx)
	}
	h := hashEvent(e)
	n, err := f.x.changed(ctx, `INSERT INTO events(h, seq, idx, at) VALUES(?, ?, ?, ?)
		ON CONFLICT(h) DO UPDATE SET seq = excluded.seq, idx = excluded.idx, at = excluded.at WHERE excluded.at - at >= ?`,
		h[:], int64(at.Seq), at.Idx, now, f.window)
	if err != nil {
		return err
	}
	if n == 0 {
		if err := f.x.exec(ctx, "INSERT INTO drops(seq, idx, first) SELECT ?, ?, seq FROM events WHERE h = ?", int64(at.Seq), at.Idx, h[:]); err != nil {
			return err
		}
		return f.x.exec(ctx, "INSERT INTO dups(seq, idx) VALUES(?, ?)", int64(at.Seq), at.Idx)
	}
	if err := f.trace(ctx, at, TraceOf(e), e.ID); err != nil {
		return err
	}
	to := f.matched(e)
	f.flowOfEvent(now, e, to)
	for _, s := range to {
		d := fresh{did: did{at.Seq, at.Idx, s.id}, eseq: at.Seq, eidx: at.Idx, born: now, at: now, due: now, event: e}
		if s.spec.Ordered {
			d.key = e.Extension(PartitionKey)
		}
		state, cause := Pending, Cause("")
		if hops(e) > f.maxHops {
			state, cause = Dead, CauseLoop
		}
		if err := f.insert(ctx, now, d, state, cause); err != nil {
			return err
		}
	}
	return nil
}

// insert makes a delivery; a pending one waits while its lane has another.
func (f *folder) insert(ctx context.Context, now int64, d fresh, state State, cause Cause) error {
	if state == Pending && d.key != "" {
		busy, err := f.laneBusy(ctx, d.Sub, d.key)
		if err != nil {
			return err
		}
		if busy {
			state = Waiting
		}
	}
	err := f.x.exec(ctx, `INSERT INTO deliveries(seq, idx, sub, eseq, eidx, key, state, at, born, due, updated, runs, attempt, redriven, replay, cause, log)
		VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, ?, ?, '')`,
		int64(d.Seq), d.Idx, d.Sub, int64(d.eseq), d.eidx, d.key, state, d.at, d.born, d.due, now, d.replay, cause)
	f.count(d.Sub, state, 1)
	if err == nil && state == Pending {
		f.out.ready = append(f.out.ready, d)
	}
	return err
}

func (f *folder) laneBusy(ctx context.Context, sub int64, key string) (bool, error) {
	var x int
	return f.x.one(ctx, []any{&x}, "SELECT 1 FROM deliveries WHERE sub = ? AND key = ? AND key <> '' AND state < 2 LIMIT 1", sub, key)
}

// maxAttemptLog is how many attempts a delivery's record keeps.
const maxAttemptLog = 10

// outcome ends an attempt. What an older owner wrote behind the new one's lease is not counted, and neither is a repeated one.
func (f *folder) outcome(ctx context.Context, now int64, o outcome) error {
	if o.Epoch != f.x.epoch {
		return nil
	}
	f.out.ended = append(f.out.ended, end{o.did, o.Run})
	var d fresh
	var state State
	var log string
	found, err := f.x.one(ctx, []any{&state, &d.key, &d.runs, &d.attempt, &log, &d.eseq, &d.eidx, &d.born, &d.at, &d.redrive, &d.replay},
		"SELECT state, key, runs, attempt, log, eseq, eidx, born, at, redriven, replay FROM deliveries WHERE seq = ? AND idx = ? AND sub = ?", int64(o.Seq), o.Idx, o.Sub)
	if err != nil || !found || state != Pending || o.Run != d.runs+1 {
		return err
	}
	d.did, d.runs, d.due = o.did, o.Run, o.Due
	if !o.Free {
		d.attempt++
	}
	err = f.x.exec(ctx, "UPDATE deliveries SET state = ?, runs = ?, attempt = ?, due = ?, cause = ?, updated = ?, log = ? WHERE seq = ? AND idx = ? AND sub = ?",
		o.State, d.runs, d.attempt, o.Due, o.Cause, now, logged(log, o), int64(o.Seq), o.Idx, o.Sub)
	if err != nil {
		return err
	}
	f.move(o.Sub, Pending, o.State)
	if o.State == Pending {
		f.out.ready = append(f.out.ready, d)
		return nil
	}
	return f.promote(ctx, now, o.Sub, d.key)
}

// logged adds an attempt to the record of attempts: JSON objects with commas between.
func logged(log string, o outcome) string {
	a := Attempt{Start: time.UnixMilli(o.Start).UTC(), Took: time.Duration(o.Took) * time.Microsecond, Counts: !o.Free, Code: o.Code, Error: o.Text, Result: o.Result}
	var all []json.RawMessage
	if log != "" {
		if json.Unmarshal([]byte("["+log+"]"), &all) != nil {
			all = nil
		}
	}
	one, err := json.Marshal(a)
	if err != nil {
		a.Result = nil
		one, _ = json.Marshal(a) // nothing in it fails
	}
	all = append(all, one)
	if len(all) > maxAttemptLog {
		all = all[len(all)-maxAttemptLog:]
	}
	parts := make([]string, len(all))
	for i, r := range all {
		parts[i] = string(r)
	}
	return strings.Join(parts, ",")
}

const freshColumns = "seq, idx, sub, eseq, eidx, key, born, at, due, runs, attempt, redriven, replay"

func (d *fresh) columns() []any {
	return []any{&d.Seq, &d.Idx, &d.Sub, &d.eseq, &d.eidx, &d.key, &d.born, &d.at, &d.due, &d.runs, &d.attempt, &d.redrive, &d.replay}
}

// promote makes the next of a lane pending when nothing in it is.
func (f *folder) promote(ctx context.Context, now, sub int64, key string) error {
	if key == "" {
		return nil
	}
	var d fresh
	var state State
	found, err := f.x.one(ctx, append(d.columns(), &state), "SELECT "+freshColumns+", state FROM deliveries WHERE sub = ? AND key = ? AND key <> '' AND state < 2 ORDER BY state, seq, idx LIMIT 1", sub, key)
	if err != nil || !found || state == Pending {
		return err
	}
	f.move(sub, Waiting, Pending)
	d.due = now
	// The age of one that waited counts from its turn: it cannot help what stood before it.
	d.born = now
	f.out.ready = append(f.out.ready, d)
	return f.x.exec(ctx, "UPDATE deliveries SET state = 0, due = ?, born = ? WHERE seq = ? AND idx = ? AND sub = ?", now, now, int64(d.Seq), d.Idx, d.Sub)
}

// subID numbers a Subscription by the item that put it first.
func subID(at did) int64 { return int64(at.Seq)*maxItems + int64(at.Idx) }

func (f *folder) put(ctx context.Context, at did, s Subscription, spec []byte) error {
	id := subID(at)
	if old, ok := f.subs[s.Name]; ok {
		id = old.id
	}
	f.drop(s.Name)
	f.keep(f.live(id, s))
	f.out.subs = true
	if err := f.version(ctx, at, id, s.Name, spec); err != nil {
		return err
	}
	return f.x.exec(ctx, "INSERT OR REPLACE INTO subs(id, name, spec, live) VALUES(?, ?, ?, 1)", id, s.Name, spec)
}

func (f *folder) version(ctx context.Context, at did, id int64, name string, spec []byte) error {
	return f.x.exec(ctx, "INSERT INTO versions(seq, idx, id, name, spec) VALUES(?, ?, ?, ?, ?)", int64(at.Seq), at.Idx, id, name, spec)
}

func (f *folder) delete(ctx context.Context, at did, now int64, name string) error {
	s, ok := f.subs[name]
	if !ok {
		return nil
	}
	f.drop(name)
	f.out.subs = true
	if err := f.version(ctx, at, s.id, name, nil); err != nil {
		return err
	}
	if err := f.x.exec(ctx, "UPDATE subs SET live = 0 WHERE id = ?", s.id); err != nil {
		return err
	}
	if err := f.x.exec(ctx, "UPDATE replays SET live = 0 WHERE sub = ?", s.id); err != nil {
		return err
	}
	for _, from := range []State{Pending, Waiting} {
		n, err := f.x.changed(ctx, "UPDATE deliveries SET state = ?, cause = ?, updated = ? WHERE sub = ? AND state = ?", Cancelled, CauseUnsubscribed, now, s.id, from)
		if err != nil {
			return err
		}
		f.count(s.id, from, -int(n))
		f.count(s.id, Cancelled, int(n))
	}
	return nil
}
