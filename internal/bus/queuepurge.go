package bus

import "context"

// baseQueue is a queue that stood where the log now begins.
type baseQueue struct {
	ID      int64  `json:"id"`
	Gen     int64  `json:"gen"`
	Key     string `json:"key"`
	Spec    []byte `json:"spec"`
	Created int64  `json:"created"`
	Changed int64  `json:"changed"`
}

// putBase writes the queues of a base into a new index.
func (x *index) putBase(ctx context.Context, b *base) error {
	for i, q := range b.Queues {
		// Beside the Subscriptions of the base, and before all that follows.
		if err := x.exec(ctx, "INSERT INTO qversions(seq, idx, id, gen, key, spec, created, changed) VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
			int64(b.Seq)-1, i, q.ID, q.Gen, q.Key, q.Spec, q.Created, q.Changed); err != nil {
			return err
		}
		if err := x.exec(ctx, "INSERT INTO queues(id, key, gen, spec, created, changed, n) VALUES(?, ?, ?, ?, ?, ?, 0)",
			q.ID, q.Key, q.Gen, q.Spec, q.Created, q.Changed); err != nil {
			return err
		}
	}
	return nil
}

// queuesAt gives the queues that stood before a block.
func (o *owner) queuesAt(ctx context.Context, floor uint64) ([]baseQueue, error) {
	rows, err := o.x.query(ctx, `SELECT id, gen, key, spec, created, changed FROM qversions v WHERE seq < ?1 AND spec IS NOT NULL
		AND NOT EXISTS(SELECT 1 FROM qversions w WHERE w.key = v.key AND w.seq < ?1 AND (w.seq, w.idx) > (v.seq, v.idx)) ORDER BY id`, int64(floor))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []baseQueue
	for rows.Next() {
		var q baseQueue
		if err := rows.Scan(&q.ID, &q.Gen, &q.Key, &q.Spec, &q.Created, &q.Changed); err != nil {
			return nil, err
		}
		out = append(out, q)
	}
	return out, rows.Err()
}

// queueFloor is the first block that queues need: of their messages, and of what tells duplicates apart, now or when the log is read again.
func (o *owner) queueFloor(ctx context.Context, least int64) (int64, error) {
	for _, q := range []string{"SELECT coalesce(min(seq), ?) FROM messages", "SELECT coalesce(min(seq), ?) FROM dedups", "SELECT coalesce(min(seq), ?) FROM sends"} {
		var v int64
		if _, err := o.x.one(ctx, []any{&v}, q, least); err != nil {
			return 0, err
		}
		least = min(least, v)
	}
	return least, nil
}

// goneStep is how many rows of purged queues are removed at a time.
const goneStep = 2000

// sweepQueues removes from the index what the fold does not ask for any more, and writes into the log what has expired. It tells whether
// there is more to remove.
func (o *owner) sweepQueues(ctx context.Context, now int64) (more bool, err error) {
	// By the time of the log: what is not folded yet may be older than now.
	read := min(now, o.fold.q.at)
	if err := o.x.exec(ctx, "DELETE FROM dedups WHERE at < ?", read-2*o.fold.window); err != nil {
		return false, err
	}
	if err := o.x.exec(ctx, "DELETE FROM sends WHERE at < ?", read-o.b.opt.sendsKept.Milliseconds()); err != nil {
		return false, err
	}
	var items []item
	for _, l := range o.fold.q.live {
		it, ok, err := o.expired(ctx, l, now)
		if err != nil {
			return false, err
		}
		if ok {
			items, more = append(items, it), true
		}
	}
	if len(items) > 0 {
		o.wait.Go(func() { o.record(items) })
	}
	for _, table := range []string{"messages", "groups"} {
		pk := "seq, idx"
		if table == "groups" {
			pk = "gen, grp"
		}
		n, err := o.x.changed(ctx, "DELETE FROM "+table+" WHERE ("+pk+") IN (SELECT "+pk+" FROM "+table+" WHERE gen IN (SELECT gen FROM gone) LIMIT ?)", goneStep)
		if err != nil {
			return false, err
		}
		if n == goneStep {
			return true, nil
		}
	}
	return more, o.x.exec(ctx, "DELETE FROM gone")
}

// expired makes the item that removes what is older than the retention, at most about goneStep messages.
func (o *owner) expired(ctx context.Context, l *liveQueue, now int64) (item, bool, error) {
	cutoff := now - l.spec.retention().Milliseconds()
	var first, last int64
	found, err := o.x.one(ctx, []any{&first}, "SELECT sent FROM messages WHERE gen = ? ORDER BY sent LIMIT 1", l.gen)
	if err != nil || !found || first >= cutoff {
		return item{}, false, err
	}
	found, err = o.x.one(ctx, []any{&last}, "SELECT sent FROM messages WHERE gen = ? AND sent < ? ORDER BY sent LIMIT 1 OFFSET ?", l.gen, cutoff, goneStep)
	if err != nil {
		return item{}, false, err
	}
	if found {
		cutoff = min(cutoff, last+1)
	}
	return jsonItem(kindSettled, settled{Gen: l.gen, Do: settleExpire, At: cutoff}), true, nil
}
