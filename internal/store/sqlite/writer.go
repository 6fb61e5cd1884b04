package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"maps"
	"strconv"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/store/rows"
)

// maxGroup is how many requests one transaction serves at most: the first of them waits for the last.
const maxGroup = 256

// request is one step for the writer. A refusal leaves nothing behind; fault is an error of the file, which ends the whole group.
type request struct {
	ctx context.Context
	do  func(tx *tx) (refusal, fault error)
	res chan error
}

// tx is what one group of requests shares.
type tx struct {
	s       *Store
	now     time.Time
	catalog *catalog // a copy once something in it changed
	copied  bool
	counts  map[*counts][2]int64 // what the group adds
	tables  map[*counts]int64
	seq     uint64
	nextID  int64
	dropped []*live
}

// submit hands a step to the writer and waits.
func (s *Store) submit(ctx context.Context, do func(*tx) (refusal, fault error)) error {
	r := &request{ctx: ctx, do: do, res: make(chan error, 1)}
	select {
	case <-s.stop:
		return closed()
	default:
	}
	select {
	case s.queue <- r:
	case <-s.stop:
		return closed()
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-r.res:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-s.done:
		select {
		case err := <-r.res:
			return err
		default:
			return closed()
		}
	}
}

// write is the one writer.
func (s *Store) write() {
	defer close(s.done)
	for {
		select {
		case <-s.stop:
			return
		case first := <-s.queue:
			group := append(make([]*request, 0, 16), first)
			for len(group) < maxGroup {
				select {
				case r := <-s.queue:
					group = append(group, r)
					continue
				default:
				}
				break
			}
			s.serve(group)
		}
	}
}

// serve runs a group in one transaction and answers when it is durable.
func (s *Store) serve(group []*request) {
	s.gate.Lock()
	defer s.gate.Unlock()
	answers := make([]error, len(group))
	t := &tx{s: s, now: s.opt.Now(), catalog: s.catalog.Load(), counts: map[*counts][2]int64{}, tables: map[*counts]int64{}, seq: s.seq, nextID: s.nextID}
	fault := s.run(t, group, answers)
	if fault != nil {
		_, _ = s.w.ExecContext(context.Background(), "ROLLBACK")
		fault = told(fault)
		for i := range answers {
			if answers[i] == nil {
				answers[i] = fault
			}
		}
	} else {
		s.publish(t)
	}
	for i, r := range group {
		r.res <- answers[i]
	}
}

func (s *Store) run(t *tx, group []*request, answers []error) error {
	if err := t.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	for i, r := range group {
		if answers[i] = r.ctx.Err(); answers[i] != nil {
			continue
		}
		refusal, fault := r.do(t)
		if fault != nil {
			return fault
		}
		answers[i] = refusal
	}
	for c, add := range t.counts {
		if err := t.exec("UPDATE tables SET n = n + ?, bytes = bytes + ? WHERE id = ?", add[0], add[1], t.tables[c]); err != nil {
			return err
		}
	}
	if t.seq != s.seq {
		if err := t.exec("UPDATE meta SET v = ? WHERE k = 'seq'", int64(t.seq)); err != nil {
			return err
		}
	}
	if t.nextID != s.nextID {
		if err := t.exec("UPDATE meta SET v = ? WHERE k = 'id'", t.nextID); err != nil {
			return err
		}
	}
	return t.exec("COMMIT")
}

// publish shows readers what is durable now.
func (s *Store) publish(t *tx) {
	for c, add := range t.counts {
		c.items.Add(add[0])
		c.bytes.Add(add[1])
	}
	if t.copied {
		s.catalog.Store(t.catalog)
	}
	for _, d := range t.dropped {
		d.stmts.Range(func(_, st any) bool { _ = st.(*sql.Stmt).Close(); return true })
	}
	s.nextID = t.nextID
	if t.seq != s.seq {
		s.seq = t.seq
		s.changed.Lock()
		close(s.changed.ch)
		s.changed.ch = make(chan struct{})
		s.changed.Unlock()
	}
}

// stmt returns a prepared statement of the writer.
func (t *tx) stmt(text string) (*sql.Stmt, error) {
	if st := t.s.wstmt[text]; st != nil {
		return st, nil
	}
	if len(t.s.wstmt) > 2000 { // of many tables; they are made again as they are needed
		t.forget()
	}
	st, err := t.s.w.PrepareContext(context.Background(), text)
	if err != nil {
		return nil, err
	}
	t.s.wstmt[text] = st
	return st, nil
}

func (t *tx) forget() {
	for _, st := range t.s.wstmt {
		_ = st.Close()
	}
	clear(t.s.wstmt)
}

func (t *tx) exec(text string, args ...any) error {
	st, err := t.stmt(text)
	if err == nil {
		_, err = st.ExecContext(context.Background(), args...)
	}
	return err
}

// set writes a table's description and shows it to the rest of the group.
func (t *tx) set(l *live) error {
	raw, err := json.Marshal(l.spec)
	if err != nil {
		return err
	}
	if err := t.exec("INSERT INTO tables(id, tenant, name, spec, n, bytes) VALUES(?, ?, ?, ?, 0, 0) ON CONFLICT(id) DO UPDATE SET spec = excluded.spec",
		l.id, l.tenant, l.spec.Name, raw); err != nil {
		return err
	}
	t.own()
	t.catalog.tables[name{l.tenant, l.spec.Name}] = l
	return nil
}

func (t *tx) own() {
	if !t.copied {
		t.catalog, t.copied = &catalog{tables: maps.Clone(t.catalog.tables)}, true
	}
}

// step is a Change on its way: the row it is about, and what was and is to be there.
type step struct {
	rows.Row
	t       *live
	expired bool
}

// Write applies the Changes, all or none.
func (s *Store) Write(ctx context.Context, tenant string, changes []store.Change) error {
	return s.submit(ctx, func(t *tx) (error, error) { return t.write(tenant, changes, false) })
}

func (t *tx) write(tenant string, changes []store.Change, expired bool) (refusal, fault error) {
	steps := make([]step, len(changes))
	seen := make(map[string]bool, len(changes))
	for i, c := range changes {
		l, err := t.catalog.find(tenant, c.Table)
		if err != nil {
			return err, nil
		}
		st := &steps[i]
		st.t, st.expired = l, expired
		if st.H, st.R, err = rows.Key(l.spec.Key, c.Key); err != nil {
			return err, nil
		}
		if len(changes) > 1 {
			id := strconv.FormatInt(l.id, 10) + " " + strconv.Itoa(len(st.H)) + " " + string(st.H) + string(st.R)
			if seen[id] {
				return errs.New(errs.Invalid, "two changes name the same item of table %s", c.Table), nil
			}
			seen[id] = true
		}
		if st.Old, err = t.get(l.id, st.H, st.R); err != nil {
			return nil, err
		}
	}
	if err := rows.Decide(changes, func(i int) (store.Key, *rows.Row) { return steps[i].t.spec.Key, &steps[i].Row }); err != nil {
		return err, nil
	}
	for i := range steps {
		if err := t.apply(&steps[i]); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func (t *tx) get(id int64, h, r []byte) (store.Item, error) {
	st, err := t.stmt("SELECT v FROM " + tableName(id) + " WHERE h = ? AND r = ?")
	if err != nil {
		return nil, err
	}
	var raw []byte
	switch err := st.QueryRowContext(context.Background(), h, r).Scan(&raw); err {
	case nil:
		return rows.Decode(raw)
	case sql.ErrNoRows:
		return nil, nil
	default:
		return nil, err
	}
}

// apply writes one step: the row, its places in the indexes, its expiry and its Record.
func (t *tx) apply(st *step) error {
	if rows.Same(st.Old, st.New) {
		return nil
	}
	l := st.t
	var err error
	if st.New == nil {
		err = t.exec("DELETE FROM "+tableName(l.id)+" WHERE h = ? AND r = ?", st.H, st.R)
	} else {
		err = t.exec("INSERT INTO "+tableName(l.id)+"(h, r, v) VALUES(?, ?, ?) ON CONFLICT DO UPDATE SET v = excluded.v", st.H, st.R, rows.Encode(st.New))
	}
	if err != nil {
		return err
	}
	for i := range l.spec.Indexes {
		if err := t.index(l, i, st.Old, st.New); err != nil {
			return err
		}
	}
	if l.spec.TTL != "" {
		if err := t.expiry(l, st); err != nil {
			return err
		}
	}
	t.count(l, st.Old, st.New)
	if shows := rows.Recorded(&l.spec.Table, st.Old, st.New); shows != nil {
		return t.record(st, shows)
	}
	return nil
}

func (t *tx) count(l *live, old, now store.Item) {
	add := t.counts[l.counts]
	if old != nil {
		add[0]--
		add[1] -= int64(old.Size())
	}
	if now != nil {
		add[0]++
		add[1] += int64(now.Size())
	}
	t.counts[l.counts], t.tables[l.counts] = add, l.id
}

// index moves an Item in an index when its key there changed.
func (t *tx) index(l *live, i int, old, now store.Item) error {
	x := &l.spec.Indexes[i]
	was, is := rows.IndexEntry(&l.spec.Table, x, old), rows.IndexEntry(&l.spec.Table, x, now)
	table := indexName(l.id, l.spec.IDs[i])
	if was != nil && is != nil && was.Same(is) {
		return nil
	}
	if was != nil {
		if err := t.exec("DELETE FROM "+table+" WHERE h = ? AND r = ? AND o = ? AND th = ? AND tr = ?", was.Args()...); err != nil {
			return err
		}
	}
	if is != nil {
		return t.exec("INSERT INTO "+table+"(h, r, o, th, tr) VALUES(?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", is.Args()...)
	}
	return nil
}

func (t *tx) expiry(l *live, st *step) error {
	was, had := rows.Due(&l.spec.Table, st.Old)
	is, has := rows.Due(&l.spec.Table, st.New)
	if had && has && was == is {
		return nil
	}
	if had {
		if err := t.exec("DELETE FROM "+expiryName(l.id)+" WHERE at = ? AND h = ? AND r = ?", was, st.H, st.R); err != nil {
			return err
		}
	}
	if has {
		return t.exec("INSERT INTO "+expiryName(l.id)+"(at, h, r) VALUES(?, ?, ?) ON CONFLICT DO NOTHING", is, st.H, st.R)
	}
	return nil
}

// record writes what the stream shows of a step.
func (t *tx) record(st *step, shows *rows.Image) error {
	t.seq++
	expired := 0
	if st.expired {
		expired = 1
	}
	return t.exec("INSERT INTO records(tab, seq, at, op, expired, key, old, new) VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
		st.t.id, int64(t.seq), t.now.UnixMilli(), string(shows.Op), expired, shows.Key, shows.Old, shows.New)
}
