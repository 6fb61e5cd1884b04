package bus

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
)

// The fold's part of schedules. A fired item carries its event: the fold publishes it only if the slot is new, and so decides alone, by the order of the log,
// that no slot has two. Whoever fires may therefore fire again whenever it is in doubt.

// schedulePut puts a Schedule at a time by the clock of schedules.
type schedulePut struct {
	Schedule
	At int64 `json:"at"` // ms
}

// unschedule deletes a Schedule; with Gen only what that put has made.
type unschedule struct {
	Tenant string `json:"tenant"`
	Name   string `json:"name"`
	Gen    *ref   `json:"gen,omitempty"`
}

// firing is the head of a fired item.
type firing struct {
	Tenant string `json:"tenant"`
	Name   string `json:"name"`
	Gen    ref    `json:"gen"`  // the put that it was fired by: after a newer one it counts for nothing, and who fires looks again
	Slot   int64  `json:"slot"` // ms
}

// firedItem is the head's length as a uvarint, the head as JSON, and the log form of the event.
func firedItem(f firing, e *event.Event) item {
	head := jsonItem(kindFired, f).body
	return item{kind: kindFired, body: e.AppendLog(append(binary.AppendUvarint(nil, uint64(len(head))), head...))}
}

func splitFired(body []byte) (head, rest []byte, err error) {
	n, w := binary.Uvarint(body)
	if w <= 0 || n > uint64(len(body)-w) {
		return nil, nil, errs.New(errs.Failed, "a fired item of the event log is cut off")
	}
	return body[w : w+int(n)], body[w+int(n):], nil
}

// event reads the event that an item publishes, without data that stand apart; nil when it publishes none.
func (it item) event() (*event.Event, error) {
	body := it.body
	switch it.kind {
	case kindEvent:
	case kindFired:
		var err error
		if _, body, err = splitFired(body); err != nil {
			return nil, err
		}
	default:
		return nil, nil
	}
	e, _, err := event.ParseLog(body)
	return e, err
}

type scheduleKey struct{ tenant, name string }

// liveSchedule is a Schedule that stands, as the fold knows it.
type liveSchedule struct {
	spec   Schedule
	gen    ref
	anchor int64 // ms; a rate without a Start counts from it
	since  int64 // ms; only slots after it count
	last   int64 // ms; newest slot that was fired, or 0
	fired  ref   // where that was
}

// after is the moment after which the next slot is.
func (l *liveSchedule) after() time.Time { return time.UnixMilli(max(l.since, l.last)) }

const scheduleColumns = "tenant, name, gseq, gidx, anchor, since, last, fseq, fidx"

// scan reads scheduleColumns and a spec.
func (l *liveSchedule) scan(scan func(...any) error, key *scheduleKey) error {
	var spec []byte
	if err := scan(&key.tenant, &key.name, &l.gen.Seq, &l.gen.Idx, &l.anchor, &l.since, &l.last, &l.fired.Seq, &l.fired.Idx, &spec); err != nil {
		return err
	}
	return json.Unmarshal(spec, &l.spec)
}

// loadSchedules reads those that stand.
func (f *folder) loadSchedules(ctx context.Context) error {
	f.schedules = map[scheduleKey]liveSchedule{}
	rows, err := f.x.query(ctx, "SELECT "+scheduleColumns+", spec FROM schedules")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var key scheduleKey
		var l liveSchedule
		if err := l.scan(rows.Scan, &key); err != nil {
			return err
		}
		f.schedules[key] = l
	}
	return rows.Err()
}

// schedule applies an item of schedules.
func (f *folder) schedule(ctx context.Context, at did, now int64, it item) error {
	switch it.kind {
	case kindSchedule:
		return read(it, func(p schedulePut) error { return f.putSchedule(ctx, at, p) })
	case kindUnschedule:
		return read(it, func(u unschedule) error { return f.unschedule(ctx, at, u) })
	}
	head, _, err := splitFired(it.body)
	if err != nil {
		return err
	}
	return read(item{kind: it.kind, body: head}, func(h firing) error { return f.fire(ctx, at, now, h, it) })
}

func (f *folder) putSchedule(ctx context.Context, at did, p schedulePut) error {
	key := scheduleKey{p.Tenant, p.Name}
	l := liveSchedule{spec: p.Schedule, gen: ref{Seq: at.Seq, Idx: at.Idx}, anchor: p.At, since: p.At}
	if p.AtOnce { // the second that it is put in is a slot
		l.since = p.At/1000*1000 - 1
	}
	if old, ok := f.schedules[key]; ok {
		l.last, l.fired = old.last, old.fired
		if p.sameTimes(old.spec) {
			l.anchor, l.since = old.anchor, old.since
			if old.spec.Disabled {
				l.since = p.At
			}
		}
	}
	spec, err := json.Marshal(p.Schedule)
	if err != nil {
		return err
	}
	return f.setSchedule(ctx, at, key, l, spec)
}

// setSchedule records what a Schedule is now; without a spec that one stays.
func (f *folder) setSchedule(ctx context.Context, at did, key scheduleKey, l liveSchedule, spec []byte) error {
	f.schedules[key] = l
	f.touched(key)
	values := []any{key.tenant, key.name, int64(l.gen.Seq), l.gen.Idx, l.anchor, l.since, l.last, int64(l.fired.Seq), l.fired.Idx}
	var err error
	if spec != nil {
		err = f.x.exec(ctx, "INSERT OR REPLACE INTO schedules("+scheduleColumns+", spec) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", append(values, spec)...)
	} else {
		err = f.x.exec(ctx, "UPDATE schedules SET last = ?, fseq = ?, fidx = ? WHERE tenant = ? AND name = ?", l.last, int64(l.fired.Seq), l.fired.Idx, key.tenant, key.name)
	}
	if err != nil {
		return err
	}
	return f.x.exec(ctx, "INSERT INTO schedule_log("+scheduleColumns+", seq, idx, live, spec) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?)", append(values[:9:9], int64(at.Seq), at.Idx, spec)...)
}

// touched tells who fires that a Schedule has to be looked at again.
func (f *folder) touched(key scheduleKey) {
	if f.out.schedules == nil {
		f.out.schedules = map[scheduleKey]bool{}
	}
	f.out.schedules[key] = true
}

func (f *folder) unschedule(ctx context.Context, at did, u unschedule) error {
	key := scheduleKey{u.Tenant, u.Name}
	l, ok := f.schedules[key]
	if !ok || u.Gen != nil && *u.Gen != l.gen {
		f.touched(key)
		return nil
	}
	delete(f.schedules, key)
	f.touched(key)
	if err := f.x.exec(ctx, "DELETE FROM schedules WHERE tenant = ? AND name = ?", key.tenant, key.name); err != nil {
		return err
	}
	return f.x.exec(ctx, "INSERT INTO schedule_log("+scheduleColumns+", seq, idx, live, spec) VALUES(?, ?, 0, 0, 0, 0, 0, 0, 0, ?, ?, 0, NULL)", key.tenant, key.name, int64(at.Seq), at.Idx)
}

// fire publishes the event of a slot that is newer than all that were fired before; any other counts as a duplicate.
func (f *folder) fire(ctx context.Context, at did, now int64, h firing, it item) error {
	key := scheduleKey{h.Tenant, h.Name}
	l, ok := f.schedules[key]
	if !ok || l.gen != h.Gen || h.Slot <= max(l.since, l.last) {
		f.touched(key)
		return f.x.exec(ctx, "INSERT INTO dups(seq, idx) VALUES(?, ?)", int64(at.Seq), at.Idx)
	}
	e, err := it.event()
	if err != nil {
		return err
	}
	l.last, l.fired = h.Slot, ref{Seq: at.Seq, Idx: at.Idx}
	if err := f.setSchedule(ctx, at, key, l, nil); err != nil {
		return err
	}
	return f.event(ctx, at, now, e, nil)
}

// baseSchedule is what stood of a Schedule at the first block that is left.
type baseSchedule struct {
	Gen    ref             `json:"gen"`
	Anchor int64           `json:"anchor"`
	Since  int64           `json:"since"`
	Last   int64           `json:"last,omitempty"`
	Fired  ref             `json:"fired,omitzero"`
	Spec   json.RawMessage `json:"spec"`
}

// schedulesAt gives the Schedules that stood before a block.
func (x *index) schedulesAt(ctx context.Context, floor uint64) ([]baseSchedule, error) {
	rows, err := x.query(ctx, `SELECT gseq, gidx, anchor, since, last, fseq, fidx,
		(SELECT spec FROM schedule_log s WHERE s.tenant = l.tenant AND s.name = l.name AND s.spec IS NOT NULL AND (s.seq, s.idx) <= (l.seq, l.idx) ORDER BY s.seq DESC, s.idx DESC LIMIT 1)
		FROM schedule_log l WHERE live = 1 AND seq < ?1
		AND NOT EXISTS(SELECT 1 FROM schedule_log n WHERE n.tenant = l.tenant AND n.name = l.name AND n.seq < ?1 AND (n.seq, n.idx) > (l.seq, l.idx)) ORDER BY tenant, name`, int64(floor))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []baseSchedule
	for rows.Next() {
		var s baseSchedule
		var spec []byte
		if err := rows.Scan(&s.Gen.Seq, &s.Gen.Idx, &s.Anchor, &s.Since, &s.Last, &s.Fired.Seq, &s.Fired.Idx, &spec); err != nil {
			return nil, err
		}
		s.Spec = spec
		out = append(out, s)
	}
	return out, rows.Err()
}

// setSchedules begins a new index with the Schedules of a base.
func (x *index) setSchedules(ctx context.Context, seq uint64, all []baseSchedule) error {
	for _, s := range all {
		var spec Schedule
		if err := json.Unmarshal(s.Spec, &spec); err != nil {
			return err
		}
		values := []any{spec.Tenant, spec.Name, int64(s.Gen.Seq), s.Gen.Idx, s.Anchor, s.Since, s.Last, int64(s.Fired.Seq), s.Fired.Idx, []byte(s.Spec)}
		err := x.exec(ctx, "INSERT INTO schedules("+scheduleColumns+", spec) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values...)
		if err == nil {
			err = x.exec(ctx, "INSERT INTO schedule_log("+scheduleColumns+", spec, seq, idx, live) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 1)", append(values, int64(seq)-1)...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// pruneSchedules removes what no base needs any more, once everything below floor is purged.
func (x *index) pruneSchedules(ctx context.Context, floor uint64) error {
	return errors.Join(
		x.exec(ctx, `DELETE FROM schedule_log AS l WHERE seq < ?1 AND EXISTS(SELECT 1 FROM schedule_log n WHERE n.tenant = l.tenant AND n.name = l.name
			AND n.seq < ?1 AND (n.seq, n.idx) > (l.seq, l.idx) AND (l.spec IS NULL OR n.spec IS NOT NULL OR n.live = 0))`, int64(floor)),
		x.exec(ctx, "DELETE FROM schedule_log WHERE seq < ? AND live = 0", int64(floor)))
}
