package bus

import (
	"context"
	"slices"
	"strconv"
)

// chosen reads the deliveries of a Selection in the given states.
func (f *folder) chosen(ctx context.Context, s Selection, states string) ([]fresh, error) {
	if s.empty() {
		return nil, nil
	}
	where, args := "state IN ("+states+")", []any(nil)
	if s.Subscription != "" {
		sub, ok := f.subs[s.Subscription]
		if !ok {
			return nil, nil
		}
		where, args = where+" AND sub = ?", append(args, sub.id)
	} else { // what belongs to a deleted Subscription has nowhere to go
		where += " AND sub IN (SELECT id FROM subs WHERE live = 1)"
	}
	if s.Cause != "" {
		where, args = where+" AND cause = ?", append(args, s.Cause)
	}
	if len(s.IDs) == 0 {
		return f.rows(ctx, where, args)
	}
	var out []fresh
	seen := map[did]bool{}
	for _, id := range s.IDs {
		d, _, err := parseID(id)
		if err != nil || seen[d] {
			continue // checked by who wrote it
		}
		seen[d] = true
		rows, err := f.rows(ctx, where+" AND seq = ? AND idx = ? AND sub = ?", append(slices.Clone(args), int64(d.Seq), d.Idx, d.Sub))
		if err != nil {
			return nil, err
		}
		out = append(out, rows...)
	}
	return out, nil
}

func (f *folder) rows(ctx context.Context, where string, args []any) ([]fresh, error) {
	rows, err := f.x.query(ctx, "SELECT "+freshColumns+", state FROM deliveries WHERE "+where+" ORDER BY seq, idx, sub", args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []fresh
	for rows.Next() {
		var d fresh
		if err := rows.Scan(append(d.columns(), &d.state)...); err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, rows.Err()
}

func (f *folder) cancel(ctx context.Context, now int64, s Selection) error {
	all, err := f.chosen(ctx, s, "0, 1")
	if err != nil {
		return err
	}
	for _, d := range all {
		if err := f.x.exec(ctx, "UPDATE deliveries SET state = ?, cause = ?, updated = ? WHERE seq = ? AND idx = ? AND sub = ?",
			Cancelled, CauseCancelled, now, int64(d.Seq), d.Idx, d.Sub); err != nil {
			return err
		}
		f.move(d.Sub, d.state, Cancelled)
		f.out.cancelled = append(f.out.cancelled, d.did)
	}
	// After all are out of the lanes, so that none of them is promoted.
	for _, d := range all {
		if err := f.promote(ctx, now, d.Sub, d.key); err != nil {
			return err
		}
	}
	return nil
}

// redrive gives dead letters all their attempts again. In a lane they wait for what stands in it.
func (f *folder) redrive(ctx context.Context, now int64, s Selection) error {
	all, err := f.chosen(ctx, s, "4")
	if err != nil {
		return err
	}
	for _, d := range all {
		state := Pending
		if d.key != "" {
			busy, err := f.laneBusy(ctx, d.Sub, d.key)
			if err != nil {
				return err
			}
			if busy {
				state = Waiting
			}
		}
		if err := f.x.exec(ctx, "UPDATE deliveries SET state = ?, cause = '', attempt = 0, redriven = redriven + 1, born = ?, due = ?, updated = ? WHERE seq = ? AND idx = ? AND sub = ?",
			state, now, now, now, int64(d.Seq), d.Idx, d.Sub); err != nil {
			return err
		}
		f.move(d.Sub, Dead, state)
		d.attempt, d.born, d.due, d.redrive = 0, now, now, d.redrive+1
		if state == Pending {
			f.out.ready = append(f.out.ready, d)
		}
	}
	return nil
}

func (f *folder) replay(ctx context.Context, at did, r replay, spec []byte) error {
	s, ok := f.subs[r.Sub]
	if !ok {
		return nil
	}
	f.out.replays = true
	return f.x.exec(ctx, "INSERT OR IGNORE INTO replays(id, spec, sub, cursor, upto, live, found) VALUES(?, ?, ?, 0, ?, 1, 0)", r.ID, spec, s.id, int64(at.Seq))
}

// replayIdx numbers the deliveries of one replayed item, beyond the numbers of items.
func replayIdx(item, k int) int { return (item+1)*1_000_000 + k }

// replayed makes deliveries of a part of a replay. One that does not begin where the last ended was written twice, or by an older owner.
func (f *folder) replayed(ctx context.Context, at did, now int64, r replayed) error {
	var sub, cursor int64
	found, err := f.x.one(ctx, []any{&sub, &cursor}, "SELECT sub, cursor FROM replays WHERE id = ? AND live = 1", r.ID)
	if err != nil || !found || uint64(cursor) != r.Cursor {
		return err
	}
	n := 0
	for k, ref := range r.Refs {
		var x int
		if dup, err := f.x.one(ctx, []any{&x}, "SELECT 1 FROM dups WHERE seq = ? AND idx = ?", int64(ref.Seq), ref.Idx); err != nil {
			return err
		} else if dup {
			continue
		}
		n++
		d := fresh{did: did{at.Seq, replayIdx(at.Idx, k), sub}, eseq: ref.Seq, eidx: ref.Idx, key: ref.Key, born: now, at: now, due: now, replay: r.ID}
		if err := f.insert(ctx, now, d, Pending, ""); err != nil {
			return err
		}
	}
	f.out.replays = true
	return f.x.exec(ctx, "UPDATE replays SET cursor = ?, live = ?, found = found + ? WHERE id = ?", int64(r.Next), !r.End, n, r.ID)
}

// id writes a delivery's ID: partition, block, item and Subscription, in hexadecimal.
func (d did) id(part int) string {
	h := func(n uint64) string { return strconv.FormatUint(n, 16) }
	return h(uint64(part)) + "-" + h(d.Seq) + "-" + h(uint64(d.Idx)) + "-" + h(uint64(d.Sub))
}
