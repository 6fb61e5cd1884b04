package postgres

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ebb-run/ebb/internal/store/rows"
)

// slots is over how many rows a table's counts are spread: lanes of different Nodes seldom wait for the same one.
const slots = 64

const (
	deleteItems = `DELETE FROM ebb.items AS i USING unnest($1::int8[], $2::bytea[], $3::bytea[]) AS k(tab, h, r) WHERE i.tab = k.tab AND i.h = k.h AND i.r = k.r`
	putItems    = `INSERT INTO ebb.items(tab, h, r, v) SELECT * FROM unnest($1::int8[], $2::bytea[], $3::bytea[], $4::bytea[]) ON CONFLICT(tab, h, r) DO UPDATE SET v = excluded.v`

	deleteEntries = `DELETE FROM ebb.entries AS e USING unnest($1::int8[], $2::bytea[], $3::bytea[], $4::bytea[], $5::bytea[], $6::bytea[]) AS k(idx, h, r, o, th, tr)
WHERE e.idx = k.idx AND e.h = k.h AND e.r = k.r AND e.o = k.o AND e.th = k.th AND e.tr = k.tr`
	putEntries = `INSERT INTO ebb.entries(idx, h, r, o, th, tr) SELECT * FROM unnest($1::int8[], $2::bytea[], $3::bytea[], $4::bytea[], $5::bytea[], $6::bytea[]) ON CONFLICT DO NOTHING`

	deleteExpiry = `DELETE FROM ebb.expiry AS e USING unnest($1::int8[], $2::bytea[], $3::bytea[], $4::int8[]) AS k(idx, h, r, at) WHERE e.idx = k.idx AND e.at = k.at AND e.h = k.h AND e.r = k.r`
	putExpiry    = `INSERT INTO ebb.expiry(idx, h, r, at) SELECT * FROM unnest($1::int8[], $2::bytea[], $3::bytea[], $4::int8[]) ON CONFLICT DO NOTHING`

	putRecords = `INSERT INTO ebb.records(stream, seq, at, op, expired, key, old, new)
SELECT k.stream, nextval('ebb.seq'), $1::int8, k.op, k.expired, k.key, k.old, k.new
FROM unnest($2::int8[], $3::text[], $4::bool[], $5::bytea[], $6::bytea[], $7::bytea[]) WITH ORDINALITY AS k(stream, op, expired, key, old, new, n) ORDER BY k.n`

	addCounts = `INSERT INTO ebb.counts(tab, slot, n, bytes) SELECT k.tab, $1::int4, k.n, k.bytes FROM unnest($2::int8[], $3::int8[], $4::int8[]) AS k(tab, n, bytes)
ON CONFLICT(tab, slot) DO UPDATE SET n = counts.n + excluded.n, bytes = counts.bytes + excluded.bytes`
)

// places are rows of indexes.
type places struct {
	idx             []int64
	h, r, o, th, tr [][]byte
}

func (p *places) add(idx int64, e *rows.Entry) {
	p.idx, p.h, p.r = append(p.idx, idx), append(p.h, short(e.H)), append(p.r, e.R)
	p.o, p.th, p.tr = append(p.o, e.O), append(p.th, short(e.TH)), append(p.tr, e.TR)
}

func (p *places) queue(b *pgx.Batch, text string) {
	if len(p.idx) > 0 {
		b.Queue(text, p.idx, p.h, p.r, p.o, p.th, p.tr)
	}
}

// times are rows of expiries.
type times struct {
	columns
	at []int64
}

func (t *times) queue(b *pgx.Batch, text string) {
	if len(t.at) > 0 {
		b.Queue(text, t.set, t.h, t.r, t.at)
	}
}

// effects are the rows that a transaction changes.
type effects struct {
	gone, put             columns
	values                [][]byte
	entriesGone, entryPut places
	timesGone, timePut    times
	counts                map[int64][2]int64
}

// take adds what becomes of one Item.
func (e *effects) take(x *cell) {
	if rows.Same(x.old, x.now) {
		return
	}
	l := x.l
	if x.now == nil {
		e.gone.add(l.id, x.h, x.r)
	} else {
		e.put.add(l.id, x.h, x.r)
		e.values = append(e.values, rows.Encode(x.now))
	}
	for i := range l.spec.Indexes {
		e.index(l, i, x)
	}
	e.expire(x)
	add := e.counts[l.id]
	if x.old != nil {
		add[0]--
		add[1] -= int64(x.old.Size())
	}
	if x.now != nil {
		add[0]++
		add[1] += int64(x.now.Size())
	}
	e.counts[l.id] = add
}

// index moves an Item in an index when its key there changed.
func (e *effects) index(l *live, i int, x *cell) {
	was, is := rows.IndexEntry(&l.spec.Table, &l.spec.Indexes[i], x.old), rows.IndexEntry(&l.spec.Table, &l.spec.Indexes[i], x.now)
	if was != nil && is != nil && was.Same(is) {
		return
	}
	if was != nil {
		e.entriesGone.add(l.spec.IDs[i], was)
	}
	if is != nil {
		e.entryPut.add(l.spec.IDs[i], is)
	}
}

func (e *effects) expire(x *cell) {
	l := x.l
	if l.spec.TTL == "" {
		return
	}
	was, had := rows.Due(&l.spec.Table, x.old)
	is, has := rows.Due(&l.spec.Table, x.now)
	if had && has && was == is {
		return
	}
	if had {
		e.timesGone.add(l.spec.Expiry, x.h, x.r)
		e.timesGone.at = append(e.timesGone.at, was)
	}
	if has {
		e.timePut.add(l.spec.Expiry, x.h, x.r)
		e.timePut.at = append(e.timePut.at, is)
	}
}

// queue adds the statements to a transaction. Locks are taken in one order everywhere: of Items, of streams, of counts.
func (e *effects) queue(b *pgx.Batch) {
	if len(e.gone.set) > 0 {
		b.Queue(deleteItems, e.gone.args()...)
	}
	if len(e.put.set) > 0 {
		b.Queue(putItems, append(e.put.args(), e.values)...)
	}
	e.entriesGone.queue(b, deleteEntries)
	e.entryPut.queue(b, putEntries)
	e.timesGone.queue(b, deleteExpiry)
	e.timePut.queue(b, putExpiry)
}

func (e *effects) queueCounts(b *pgx.Batch, slot int) {
	var n, bytes []int64
	tabs := slices.Sorted(maps.Keys(e.counts))
	for _, tab := range tabs {
		n, bytes = append(n, e.counts[tab][0]), append(bytes, e.counts[tab][1])
	}
	if len(tabs) > 0 {
		b.Queue(addCounts, slot, tabs, n, bytes)
	}
}

var errNotCommitted = errors.New("the transaction was undone")

// flush writes what the group decided, and commits it.
func (g *batch) flush(ctx context.Context, conn *pgxpool.Conn) error {
	e := &effects{counts: map[int64][2]int64{}}
	for _, x := range g.cells {
		e.take(x)
	}
	b := &pgx.Batch{}
	e.queue(b)
	g.queueRecords(b)
	e.queueCounts(b, (g.s.slot+g.lane)%slots)
	b.Queue("COMMIT")
	g.commits = b.Len() > 1
	answers := conn.SendBatch(ctx, b)
	defer answers.Close()
	for i := range b.Len() {
		tag, err := answers.Exec()
		if err != nil {
			return err
		}
		if i == b.Len()-1 && tag.String() != "COMMIT" {
			return errNotCommitted
		}
	}
	if err := answers.Close(); err != nil {
		return err
	}
	if len(g.records) > 0 {
		g.s.changed.wake()
	}
	return nil
}

// queueRecords numbers the Records while nobody else numbers those of the same streams: who sees one has seen all before it.
func (g *batch) queueRecords(b *pgx.Batch) {
	if len(g.records) == 0 {
		return
	}
	var streams, locks []int64
	var ops []string
	var expired []bool
	var key, old, now [][]byte
	for _, r := range g.records {
		streams, ops, expired = append(streams, r.stream), append(ops, string(r.image.Op)), append(expired, r.expired)
		key, old, now = append(key, r.image.Key), append(old, r.image.Old), append(now, r.image.New)
		locks = append(locks, lockOf(-r.stream, nil, nil))
	}
	slices.Sort(locks)
	b.Queue("SELECT count(pg_advisory_xact_lock(k)) FROM unnest($1::int8[]) AS k", slices.Compact(locks))
	b.Queue(putRecords, g.s.opt.Now().UnixMilli(), streams, ops, expired, key, old, now)
}
