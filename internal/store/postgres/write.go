package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/store/rows"
)

const (
	// maxGroup is how many Items the Writes of one transaction name at most, but for a Write that names more alone.
	maxGroup = 128
	// maxLocks is how many Items are locked one by one; a Write of more shuts out all others. PostgreSQL has room for some 6,400 locks.
	maxLocks = 512
	// maxRange is the longest range key: DynamoDB's own limit, and what an index of PostgreSQL has room for beside the rest.
	maxRange = 1024
)

// request is a Write on its way.
type request struct {
	ctx     context.Context
	tenant  string
	changes []store.Change
	expired bool
	res     chan error
}

// Write applies the Changes, all or none.
func (s *Store) Write(ctx context.Context, tenant string, changes []store.Change) error {
	return s.submit(&request{ctx: ctx, tenant: tenant, changes: changes, res: make(chan error, 1)})
}

func (s *Store) submit(r *request) error {
	if len(r.changes) == 0 {
		return nil
	}
	select {
	case <-s.stop.Done():
		return closed()
	default:
	}
	select {
	case s.lanes[s.lane(r)] <- r:
	case <-s.stop.Done():
		return closed()
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
	select {
	case err := <-r.res:
		return err
	case <-r.ctx.Done():
		return r.ctx.Err()
	case <-s.ended:
		select {
		case err := <-r.res:
			return err
		default:
			return closed()
		}
	}
}

// lane says who serves a Write: always the same for one Item, so that Writes to it wait here and not for locks. Those of a table with
// a stream have one lane, because their Records are numbered one transaction after the other.
func (s *Store) lane(r *request) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(r.tenant + "/" + r.changes[0].Table))
	if l, err := s.catalog.Load().find(r.tenant, r.changes[0].Table); err == nil && l.spec.View == "" {
		if a, b, err := rows.Key(l.spec.Key, r.changes[0].Key); err == nil {
			_, _ = h.Write(a)
			_, _ = h.Write(b)
		}
	}
	return int(h.Sum32() % lanes)
}

// write is the writer of one lane. What it took in is answered before it ends.
func (s *Store) write(lane int) {
	var next *request
	for {
		first := next
		if next = nil; first == nil {
			select {
			case <-s.stop.Done():
				s.refuse(lane)
				return
			case first = <-s.lanes[lane]:
			}
		}
		group, n := []*request{first}, len(first.changes)
	more:
		for n < maxGroup {
			select {
			case r := <-s.lanes[lane]:
				if n += len(r.changes); n > maxGroup {
					next = r
					break more
				}
				group = append(group, r)
			default:
				break more
			}
		}
		s.serve(lane, group)
	}
}

// refuse answers what waits in a lane that is served no more.
func (s *Store) refuse(lane int) {
	for {
		select {
		case r := <-s.lanes[lane]:
			r.res <- closed()
		default:
			return
		}
	}
}

// serve runs a group in one transaction and answers when it is durable. What PostgreSQL refuses of a group is tried one by one.
func (s *Store) serve(lane int, group []*request) {
	g := &batch{s: s, lane: lane, requests: group}
	err := g.run()
	if len(group) > 1 && faulty(err) {
		for _, r := range group {
			s.serve(lane, []*request{r})
		}
		return
	}
	err = s.told(err)
	for i, r := range group {
		if err != nil {
			r.res <- err
			continue
		}
		r.res <- g.answers[i]
	}
}

// faulty tells whether PostgreSQL refuses a value, which is then the fault of one Write of a group. What takes too long or lacks room is not.
func faulty(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Severity == "ERROR" && (strings.HasPrefix(e.Code, "22") || strings.HasPrefix(e.Code, "23") || strings.HasPrefix(e.Code, "54"))
}

// cell is an Item that the group is about: as it was before, and as it is to be.
type cell struct {
	l        *live
	h, r     []byte
	old, now store.Item
}

// record is a Record of the group.
type record struct {
	stream  int64
	expired bool
	image   *rows.Image
}

// batch is the Writes of one transaction. Each sees what those before it left.
type batch struct {
	s        *Store
	lane     int
	requests []*request
	answers  []error
	cells    map[string]*cell
	of       [][]*cell // of each request, by Change; nil where it is refused
	full     [][]rows.Row
	records  []record
	commits  bool // COMMIT was sent
}

// run tries until nothing of others came between.
func (g *batch) run() error {
	var err error
	for try := 0; try < 10; try++ {
		var conn *pgxpool.Conn
		if conn, err = g.s.acquire(context.Background(), g.s.writes); err != nil {
			return err
		}
		if err = g.attempt(conn); err != nil && !broken(err) || err == errStale {
			quit, cancel := context.WithTimeout(context.Background(), connectIn)
			_, _ = conn.Exec(quit, "ROLLBACK")
			cancel()
		}
		conn.Release() // one that is in a transaction still is closed
		switch {
		case err == errStale:
			if err = g.s.refresh(context.Background()); err != nil {
				return err
			}
			err = errStale
		case err == nil, g.commits && !repeat(err):
			return err
		case !repeat(err) && !(broken(err) && errs.CodeOf(err) == errs.Internal && try < 3):
			return err
		}
	}
	if err == errStale {
		return errs.New(errs.Unavailable, "the tables change all the time")
	}
	return err
}

func (g *batch) attempt(conn *pgxpool.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c := g.s.catalog.Load()
	g.answers, g.cells, g.records, g.commits = make([]error, len(g.requests)), map[string]*cell{}, nil, false
	g.of, g.full = make([][]*cell, len(g.requests)), make([][]rows.Row, len(g.requests))
	for i, r := range g.requests {
		if g.answers[i] = r.ctx.Err(); g.answers[i] == nil {
			g.answers[i] = g.resolve(c, i, r)
		}
	}
	if err := g.lock(ctx, conn, c); err != nil {
		return err
	}
	for i, r := range g.requests {
		if g.answers[i] == nil {
			g.answers[i] = g.decide(i, r)
		}
	}
	return g.flush(ctx, conn)
}

// resolve finds what a Write names.
func (g *batch) resolve(c *catalog, i int, r *request) error {
	of, full := make([]*cell, len(r.changes)), make([]rows.Row, len(r.changes))
	seen := make(map[string]bool, len(r.changes))
	for j, ch := range r.changes {
		l, err := c.find(r.tenant, ch.Table)
		if err != nil {
			return err
		}
		row := &full[j]
		if row.H, row.R, err = rows.Key(l.spec.Key, ch.Key); err != nil {
			return err
		}
		if len(row.R) > maxRange {
			return errs.New(errs.Invalid, "a range key of %d bytes; %d is the most", len(row.R), maxRange)
		}
		h := short(row.H)
		id := strconv.FormatInt(l.id, 10) + " " + strconv.Itoa(len(h)) + " " + string(h) + string(row.R)
		if seen[id] {
			return errs.New(errs.Invalid, "two changes name the same item of table %s", ch.Table)
		}
		seen[id] = true
		if g.cells[id] == nil {
			g.cells[id] = &cell{l: l, h: h, r: row.R}
		}
		of[j] = g.cells[id]
	}
	g.of[i], g.full[i] = of, full
	return nil
}

// lock begins the transaction and reads what is there, once nobody else can change it.
func (g *batch) lock(ctx context.Context, conn *pgxpool.Conn, c *catalog) error {
	var at columns
	var ids []int64
	found := make([]*cell, 0, len(g.cells))
	for _, x := range g.cells {
		at.add(x.l.id, x.h, x.r)
		ids = append(ids, lockOf(x.l.id, x.h, x.r))
		found = append(found, x)
	}
	slices.Sort(ids) // one order for all, so that no two wait for each other
	b := &pgx.Batch{}
	b.Queue("BEGIN")
	if len(ids) > maxLocks {
		b.Queue("SELECT pg_advisory_xact_lock($1, $2)", space, lockCatalog)
	} else {
		b.Queue("SELECT pg_advisory_xact_lock_shared($1, $2)", space, lockCatalog)
		b.Queue("SELECT count(pg_advisory_xact_lock(k)) FROM unnest($1::int8[]) AS k", slices.Compact(ids))
	}
	b.Queue(versionSQL)
	b.Queue(getSQL, at.args()...)
	answers := conn.SendBatch(ctx, b)
	defer answers.Close()
	for range b.Len() - 2 {
		if _, err := answers.Exec(); err != nil {
			return err
		}
	}
	var format int
	var version int64
	if err := answers.QueryRow().Scan(&format, &version); err != nil {
		return err
	}
	if err := g.s.checkFormat(format); err != nil {
		return err
	}
	if version != c.version {
		return errStale
	}
	list, err := answers.Query()
	err = rowsOf(list, err, func(r pgx.Rows) error {
		var n int64
		var raw []byte
		err := r.Scan(&n, &raw)
		if err == nil {
			x := found[n-1]
			x.old, err = rows.Decode(raw)
			x.now = x.old
		}
		return err
	})
	if err != nil {
		return err
	}
	return answers.Close()
}

// decide asks a Write's functions, and takes what they say into the group.
func (g *batch) decide(i int, r *request) error {
	of, full := g.of[i], g.full[i]
	for j := range full {
		full[j].Old = of[j].now
	}
	if err := rows.Decide(r.changes, func(j int) (store.Key, *rows.Row) { return of[j].l.spec.Key, &full[j] }); err != nil {
		return err
	}
	for j := range full {
		if err := fits(of[j].l, full[j].New); err != nil {
			return err
		}
	}
	for j := range full {
		x := of[j]
		x.now = full[j].New
		if rows.Same(full[j].Old, full[j].New) {
			continue
		}
		if image := rows.Recorded(&x.l.spec.Table, full[j].Old, full[j].New); image != nil {
			g.records = append(g.records, record{x.l.spec.Stream, r.expired, image})
		}
	}
	return nil
}

// fits refuses an Item that an index has no room for.
func fits(l *live, it store.Item) error {
	for i := range l.spec.Indexes {
		if a := l.spec.Indexes[i].Key.Range; a.Name != "" && it[a.Name].Kind == a.Kind && len(it[a.Name].Str) > maxRange && a.Kind != store.N {
			return errs.New(errs.Invalid, "the range key %s of index %s has %d bytes; %d is the most", a.Name, l.spec.Indexes[i].Name, len(it[a.Name].Str), maxRange)
		}
	}
	return nil
}

// short is a hash key as it stands in the database.
func short(h []byte) []byte {
	if len(h) < longest {
		return h
	}
	sum := sha256.Sum256(h)
	return append(slices.Clone(h[:longest-len(sum)]), sum[:]...)
}

// lockOf is the number of an Item's advisory lock. Two Items with the same one only wait for each other.
func lockOf(tab int64, h, r []byte) int64 {
	sum := sha256.New()
	sum.Write(binary.BigEndian.AppendUint64([]byte("ebb item"), uint64(tab)))
	sum.Write(binary.BigEndian.AppendUint32(nil, uint32(len(h))))
	sum.Write(h)
	sum.Write(r)
	return int64(binary.BigEndian.Uint64(sum.Sum(nil)))
}
