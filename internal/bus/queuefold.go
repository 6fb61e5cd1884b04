package bus

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
)

// queueSchema is the part of the index that holds queues.
const queueSchema = `
CREATE TABLE queues(id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, gen INTEGER NOT NULL, spec BLOB NOT NULL, created INTEGER NOT NULL, changed INTEGER NOT NULL,
  n INTEGER NOT NULL); -- messages
-- What stood when, for the base; a spec of NULL is a deletion.
CREATE TABLE qversions(seq INTEGER NOT NULL, idx INTEGER NOT NULL, id INTEGER NOT NULL, gen INTEGER NOT NULL, key TEXT NOT NULL, spec BLOB, created INTEGER NOT NULL,
  changed INTEGER NOT NULL, PRIMARY KEY(seq, idx)) WITHOUT ROWID;
-- A purge gives a queue a new generation: what is of an older one is no message any more, and is removed little by little.
CREATE TABLE gone(gen INTEGER PRIMARY KEY);
CREATE TABLE messages(seq INTEGER NOT NULL, idx INTEGER NOT NULL, gen INTEGER NOT NULL, grp TEXT NOT NULL, -- the group in a FIFO queue
  visible INTEGER NOT NULL, sent INTEGER NOT NULL, first INTEGER NOT NULL, receives INTEGER NOT NULL, id TEXT NOT NULL, dead TEXT NOT NULL, size INTEGER NOT NULL, -- bytes of the body
  PRIMARY KEY(seq, idx)) WITHOUT ROWID;
CREATE INDEX visible ON messages(gen, visible, seq, idx);
CREATE INDEX old ON messages(gen, sent);
CREATE INDEX ingroup ON messages(gen, grp, seq, idx) WHERE grp <> '';
CREATE INDEX given ON messages(gen, grp, visible) WHERE grp <> '' AND receives > 0;
-- The groups that have messages, and when the first of each may be given: nothing of the group is in flight then.
CREATE TABLE groups(gen INTEGER NOT NULL, grp TEXT NOT NULL, free INTEGER NOT NULL, PRIMARY KEY(gen, grp)) WITHOUT ROWID;
CREATE INDEX free ON groups(gen, free);
CREATE TABLE dedups(h BLOB PRIMARY KEY, seq INTEGER NOT NULL, idx INTEGER NOT NULL, at INTEGER NOT NULL, id TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX dedupseq ON dedups(seq);
CREATE TABLE sends(h BLOB PRIMARY KEY, seq INTEGER NOT NULL, at INTEGER NOT NULL) WITHOUT ROWID; -- blocks that held messages, lately
-- What was dropped because of an earlier item; an idx of -1 is what a whole block says of queues. A base names those whose first it has not.
CREATE TABLE drops(seq INTEGER NOT NULL, idx INTEGER NOT NULL, first INTEGER NOT NULL, PRIMARY KEY(seq, idx)) WITHOUT ROWID;
`

// liveQueue is a queue that stands, as the fold knows it.
type liveQueue struct {
	id, gen          int64
	key              string
	spec             Queue
	created, changed int64 // ms
}

type groupName struct {
	gen int64
	grp string
}

// spot names a message: where it stands in the log.
type spot struct {
	seq uint64
	idx int
}

// granted is a grant that the fold has read: which of its entries were given.
type granted struct {
	token uint64
	ok    []bool
}

// queueEffects are what a transaction means to receivers.
type queueEffects struct {
	changed bool            // queues were put, deleted or purged
	touched map[int64]int64 // generations in which messages came, went or were hidden or shown, and the least time at which one of them is visible
	grants  []granted       // of the newest epoch
	settled []spot          // whose move or drop was read
}

func (e *queueEffects) touch(gen, visible int64) {
	if e.touched == nil {
		e.touched = map[int64]int64{}
	}
	if old, ok := e.touched[gen]; !ok || visible < old {
		e.touched[gen] = visible
	}
}

// queueFold is what the fold keeps of queues besides the tables.
type queueFold struct {
	live   map[string]*liveQueue
	gens   map[int64]*liveQueue
	counts map[int64]int      // changes by the block, by the queue's number
	groups map[groupName]bool // touched by the block
	data   []byte             // the block
	asked  bool               // whether it is in the log twice
	twice  bool
	at     int64 // ms; when the last block was stored
}

func (q *queueFold) begin(data []byte, at int64) {
	q.data, q.asked, q.twice, q.at = data, false, false, at
	if q.live == nil {
		q.live, q.gens, q.counts, q.groups = map[string]*liveQueue{}, map[int64]*liveQueue{}, map[int64]int{}, map[groupName]bool{}
	}
}

func (q *queueFold) set(l *liveQueue) {
	if old := q.live[l.key]; old != nil {
		delete(q.gens, old.gen)
	}
	q.live[l.key], q.gens[l.gen] = l, l
}

func (f *folder) loadQueues(ctx context.Context) error {
	f.q = queueFold{}
	f.q.begin(nil, 0)
	rows, err := f.x.query(ctx, "SELECT id, gen, key, spec, created, changed FROM queues")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		l := &liveQueue{}
		var spec []byte
		if err := rows.Scan(&l.id, &l.gen, &l.key, &spec, &l.created, &l.changed); err != nil {
			return err
		}
		if err := json.Unmarshal(spec, &l.spec); err != nil {
			return err
		}
		f.q.set(l)
	}
	return rows.Err()
}

func (f *folder) queueItem(ctx context.Context, at did, now int64, it item) error {
	if it.kind == kindSend || it.kind == kindQueuePut || it.kind == kindQueueDelete {
		if twice, err := f.writtenTwice(ctx, at, now); twice || err != nil {
			return err
		}
	}
	switch it.kind {
	case kindQueuePut:
		return read(it, func(p queuePut) error { return f.putQueue(ctx, at, now, p.Queue) })
	case kindQueueDelete:
		return read(it, func(d queueDeletion) error { return f.deleteQueue(ctx, at, now, d.Queue) })
	case kindSend:
		return f.send(ctx, at, now, it)
	case kindReceived:
		return read(it, func(g grant) error { return f.grant(ctx, g) })
	case kindSettled:
		return read(it, func(s settled) error { return f.settle(ctx, at, now, s) })
	}
	return fmt.Errorf("an item of kind %q is not known", it.kind)
}

// writtenTwice tells whether the same block stands in the log already: its writer repeats it when no answer comes. Nonces make all others differ.
func (f *folder) writtenTwice(ctx context.Context, at did, now int64) (bool, error) {
	if f.q.asked {
		return f.q.twice, nil
	}
	if f.known[spot{at.Seq, wholeBlock}] {
		f.q.asked, f.q.twice = true, true
		return true, nil
	}
	sum := sha256.Sum256(f.q.data)
	n, err := f.x.changed(ctx, "INSERT OR IGNORE INTO sends(h, seq, at) VALUES(?, ?, ?)", sum[:16], int64(at.Seq), now)
	if err != nil {
		return false, err
	}
	f.q.asked, f.q.twice = true, n == 0
	if f.q.twice {
		err = f.x.exec(ctx, "INSERT OR IGNORE INTO drops(seq, idx, first) SELECT ?, ?, seq FROM sends WHERE h = ?", int64(at.Seq), wholeBlock, sum[:16])
	}
	return f.q.twice, err
}

func (f *folder) queueVersion(ctx context.Context, at did, l *liveQueue, spec []byte) error {
	f.out.queues.changed = true
	return f.x.exec(ctx, "INSERT INTO qversions(seq, idx, id, gen, key, spec, created, changed) VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
		int64(at.Seq), at.Idx, l.id, l.gen, l.key, spec, l.created, l.changed)
}

func (f *folder) putQueue(ctx context.Context, at did, now int64, s Queue) error {
	l := &liveQueue{id: subID(at), gen: subID(at), key: s.Key(), spec: s, created: now, changed: now}
	if old := f.q.live[l.key]; old != nil {
		l.id, l.gen, l.created = old.id, old.gen, old.created
		l.spec.FIFO = old.spec.FIFO // its name says so too
	}
	f.q.set(l)
	spec := jsonItem(kindQueuePut, l.spec).body
	if err := f.queueVersion(ctx, at, l, spec); err != nil {
		return err
	}
	return f.x.exec(ctx, `INSERT INTO queues(id, key, gen, spec, created, changed, n) VALUES(?, ?, ?, ?, ?, ?, 0)
		ON CONFLICT(id) DO UPDATE SET spec = excluded.spec, changed = excluded.changed`, l.id, l.key, l.gen, spec, l.created, l.changed)
}

func (f *folder) deleteQueue(ctx context.Context, at did, now int64, key string) error {
	l := f.q.live[key]
	if l == nil {
		return nil
	}
	if err := f.flushQueues(ctx); err != nil {
		return err
	}
	delete(f.q.live, key)
	delete(f.q.gens, l.gen)
	if err := f.queueVersion(ctx, at, l, nil); err != nil {
		return err
	}
	if err := f.x.exec(ctx, "INSERT OR IGNORE INTO gone(gen) VALUES(?)", l.gen); err != nil {
		return err
	}
	return f.x.exec(ctx, "DELETE FROM queues WHERE id = ?", l.id)
}

func (f *folder) purgeQueue(ctx context.Context, at did, key string) error {
	old := f.q.live[key]
	if old == nil {
		return nil
	}
	if err := f.flushQueues(ctx); err != nil {
		return err
	}
	l := *old
	l.gen = subID(at)
	f.q.set(&l)
	if err := f.queueVersion(ctx, at, &l, jsonItem(kindQueuePut, l.spec).body); err != nil {
		return err
	}
	if err := f.x.exec(ctx, "INSERT OR IGNORE INTO gone(gen) VALUES(?)", old.gen); err != nil {
		return err
	}
	return f.x.exec(ctx, "UPDATE queues SET gen = ?, n = 0 WHERE id = ?", l.gen, l.id)
}

// dedupHash names what a message is told from its duplicates by, or nil.
func (l *liveQueue) dedupHash(s *sending) []byte {
	var h hash
	id := strconv.FormatInt(l.id, 16)
	switch {
	case s.Move != "":
		h = hashOf("queue", id, "move\x00"+s.Move)
	case !l.spec.FIFO:
		return nil
	case l.spec.GroupDedup:
		h = hashOf("queue", id, "group\x00"+strconv.Itoa(len(s.Group))+"\x00"+s.Group+s.Dedup)
	default:
		h = hashOf("queue", id, "dedup\x00"+s.Dedup)
	}
	return h[:]
}

func (f *folder) send(ctx context.Context, at did, now int64, it item) error {
	s, body, err := parseSend(it)
	if err != nil {
		return err
	}
	l := f.q.live[s.Queue]
	if l == nil {
		return nil // deleted meanwhile
	}
	if f.known[spot{at.Seq, at.Idx}] {
		return nil
	}
	if h := l.dedupHash(&s); h != nil {
		n, err := f.x.changed(ctx, `INSERT INTO dedups(h, seq, idx, at, id) VALUES(?, ?, ?, ?, ?)
			ON CONFLICT(h) DO UPDATE SET seq = excluded.seq, idx = excluded.idx, at = excluded.at, id = excluded.id WHERE excluded.at - at >= ?`,
			h, int64(at.Seq), at.Idx, now, s.ID, f.window)
		if err != nil {
			return err
		}
		if n == 0 {
			return f.x.exec(ctx, "INSERT OR IGNORE INTO drops(seq, idx, first) SELECT ?, ?, seq FROM dedups WHERE h = ?", int64(at.Seq), at.Idx, h)
		}
	}
	sent, visible, grp := now, now+l.spec.Delay.Milliseconds(), ""
	if s.Delay != nil {
		visible = now + *s.Delay
	}
	if s.Move != "" {
		visible = now
	}
	if s.Sent > 0 && !l.spec.FIFO {
		sent = s.Sent
	}
	if l.spec.FIFO {
		grp = s.Group
		// With messages before it the group's time does not change.
		if err := f.x.exec(ctx, "INSERT OR IGNORE INTO groups(gen, grp, free) VALUES(?, ?, ?)", l.gen, grp, visible); err != nil {
			return err
		}
	}
	f.q.counts[l.id]++
	f.out.queues.touch(l.gen, visible)
	if err := f.trace(ctx, at, s.traceOf(), s.ID); err != nil {
		return err
	}
	if s.Move == "" {
		f.flow(now, flowKey{From: s.Publisher, Over: OverQueue + l.key}, 1)
	}
	return f.x.exec(ctx, "INSERT INTO messages(seq, idx, gen, grp, visible, sent, first, receives, id, dead, size) VALUES(?, ?, ?, ?, ?, ?, 0, 0, ?, ?, ?)",
		int64(at.Seq), at.Idx, l.gen, grp, visible, sent, s.ID, s.Dead, len(body)+it.dataSize())
}

// group marks the message's group as touched.
func (f *folder) group(ctx context.Context, l *liveQueue, e entry) error {
	if !l.spec.FIFO {
		return nil
	}
	var grp string
	found, err := f.x.one(ctx, []any{&grp}, "SELECT grp FROM messages WHERE seq = ? AND idx = ? AND gen = ?", int64(e.Seq), e.Idx, l.gen)
	if found {
		f.q.groups[groupName{l.gen, grp}] = true
	}
	return err
}

// grant makes messages invisible. What was deleted, received or hidden meanwhile is not given; what an older owner wrote is not either.
func (f *folder) grant(ctx context.Context, g grant) error {
	if g.Epoch != f.x.epoch {
		return nil
	}
	out := granted{g.Token, make([]bool, len(g.Entries))}
	if l := f.q.gens[g.Gen]; l != nil {
		for i, e := range g.Entries {
			if err := f.group(ctx, l, e); err != nil {
				return err
			}
			n, err := f.x.changed(ctx, `UPDATE messages SET receives = ?, visible = ?, first = CASE first WHEN 0 THEN ? ELSE first END
				WHERE seq = ? AND idx = ? AND gen = ? AND receives = ? AND visible <= ?`, e.N, g.Visible, g.At, int64(e.Seq), e.Idx, g.Gen, e.N-1, g.At)
			if err != nil {
				return err
			}
			out.ok[i] = n == 1
		}
	}
	f.out.queues.touch(g.Gen, g.Visible)
	f.out.queues.grants = append(f.out.queues.grants, out)
	return nil
}

func (f *folder) settle(ctx context.Context, at did, now int64, s settled) error {
	if s.Do == settlePurge {
		if twice, err := f.writtenTwice(ctx, at, now); twice || err != nil {
			return err
		}
		return f.purgeQueue(ctx, at, s.Queue)
	}
	owned := s.Do == settleMove || s.Do == settleDrop
	if owned && s.Epoch != f.x.epoch {
		return nil
	}
	if owned {
		for _, e := range s.Entries {
			f.out.queues.settled = append(f.out.queues.settled, spot{e.Seq, e.Idx})
		}
	}
	visible := int64(math.MaxInt64)
	if s.Do == settleVisibility {
		visible = s.At
	}
	f.out.queues.touch(s.Gen, visible)
	l := f.q.gens[s.Gen]
	if l == nil {
		return nil
	}
	if s.Do == settleExpire {
		return f.expire(ctx, l, s.At)
	}
	for _, e := range s.Entries {
		if err := f.group(ctx, l, e); err != nil {
			return err
		}
		if err := f.settleOne(ctx, now, l, s, e); err != nil {
			return err
		}
	}
	return nil
}

func (f *folder) settleOne(ctx context.Context, now int64, l *liveQueue, s settled, e entry) error {
	const this = " WHERE seq = ? AND idx = ? AND gen = ?"
	var n int64
	var err error
	switch s.Do {
	case settleDelete: // whichever receive it was: the message is done
		n, err = f.x.changed(ctx, "DELETE FROM messages"+this, int64(e.Seq), e.Idx, l.gen)
		f.q.counts[l.id] -= int(n)
	case settleDrop:
		n, err = f.x.changed(ctx, "DELETE FROM messages"+this+" AND receives = ?", int64(e.Seq), e.Idx, l.gen, e.N)
		f.q.counts[l.id] -= int(n)
		f.flowOfDead(now, l, s, int(n))
	case settleVisibility:
		err = f.x.exec(ctx, "UPDATE messages SET visible = ?"+this+" AND receives = ?", s.At, int64(e.Seq), e.Idx, l.gen, e.N)
	case settleMove:
		to := f.q.live[s.To]
		if to == nil || to.spec.FIFO != l.spec.FIFO || to == l {
			return nil
		}
		dead := ""
		if s.Dead {
			dead = l.key
		}
		n, err = f.x.changed(ctx, "UPDATE messages SET gen = ?, visible = ?, sent = CASE grp WHEN '' THEN sent ELSE ? END, first = 0, receives = 0, dead = ?"+this+" AND receives = ?",
			to.gen, now, now, dead, int64(e.Seq), e.Idx, l.gen, e.N)
		if err != nil || n == 0 {
			return err
		}
		f.q.counts[l.id]--
		f.q.counts[to.id]++
		f.flowOfDead(now, l, s, 1)
		f.out.queues.touch(to.gen, now)
		err = f.group(ctx, to, e)
	}
	return err
}

// expire removes what was sent before a time.
func (f *folder) expire(ctx context.Context, l *liveQueue, before int64) error {
	if l.spec.FIFO {
		rows, err := f.x.query(ctx, "SELECT DISTINCT grp FROM messages WHERE gen = ? AND sent < ?", l.gen, before)
		if err != nil {
			return err
		}
		for rows.Next() {
			var grp string
			if err := rows.Scan(&grp); err != nil {
				_ = rows.Close()
				return err
			}
			f.q.groups[groupName{l.gen, grp}] = true
		}
		if err := rows.Close(); err != nil {
			return err
		}
	}
	n, err := f.x.changed(ctx, "DELETE FROM messages WHERE gen = ? AND sent < ?", l.gen, before)
	f.q.counts[l.id] -= int(n)
	return err
}

// flushQueues writes what a block has changed in counts and groups.
func (f *folder) flushQueues(ctx context.Context) error {
	for id, n := range f.q.counts {
		if err := f.x.exec(ctx, "UPDATE queues SET n = n + ? WHERE id = ?", n, id); err != nil {
			return err
		}
	}
	for g := range f.q.groups {
		var head, given int64
		found, err := f.x.one(ctx, []any{&head}, "SELECT visible FROM messages WHERE gen = ? AND grp = ? AND grp <> '' ORDER BY seq, idx LIMIT 1", g.gen, g.grp)
		if err != nil {
			return err
		}
		if !found {
			if err := f.x.exec(ctx, "DELETE FROM groups WHERE gen = ? AND grp = ?", g.gen, g.grp); err != nil {
				return err
			}
			continue
		}
		if _, err := f.x.one(ctx, []any{&given}, "SELECT coalesce(max(visible), 0) FROM messages WHERE gen = ? AND grp = ? AND grp <> '' AND receives > 0", g.gen, g.grp); err != nil {
			return err
		}
		if err := f.x.exec(ctx, "INSERT OR REPLACE INTO groups(gen, grp, free) VALUES(?, ?, ?)", g.gen, g.grp, max(head, given)); err != nil {
			return err
		}
	}
	clear(f.q.counts)
	clear(f.q.groups)
	return nil
}
