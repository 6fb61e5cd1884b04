package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"strconv"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/store"
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
	t        *live
	h, r     []byte
	old, new store.Item
	expired  bool
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
		if st.h, st.r, err = rowKey(l.spec.Key, c.Key); err != nil {
			return err, nil
		}
		if len(changes) > 1 {
			id := strconv.FormatInt(l.id, 10) + " " + strconv.Itoa(len(st.h)) + " " + string(st.h) + string(st.r)
			if seen[id] {
				return errs.New(errs.Invalid, "two changes name the same item of table %s", c.Table), nil
			}
			seen[id] = true
		}
		if st.old, err = t.get(l.id, st.h, st.r); err != nil {
			return nil, err
		}
	}
	if err := decide(steps, changes); err != nil {
		return err, nil
	}
	for i := range steps {
		if err := t.apply(&steps[i]); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// decide asks every Change's function; nothing is written yet.
func decide(steps []step, changes []store.Change) error {
	var refused *store.Aborted
	for i, c := range changes {
		item, err := call(c.Apply, steps[i].old)
		if err == nil && item != nil {
			var h, r []byte
			if h, r, err = rowKey(steps[i].t.spec.Key, item); err == nil && (string(h) != string(steps[i].h) || string(r) != string(steps[i].r)) {
				err = errs.New(errs.Invalid, "a change of an item may not change its key")
			}
		}
		if err != nil {
			if refused == nil {
				refused = &store.Aborted{Errs: make([]error, len(changes))}
			}
			refused.Errs[i] = err
		}
		steps[i].new = item
	}
	if refused != nil {
		return refused
	}
	return nil
}

// call keeps a fault in one caller's function from ending the writer of all.
func call(f func(store.Item) (store.Item, error), old store.Item) (it store.Item, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errs.New(errs.Internal, "a change's function panicked: %v", p)
		}
	}()
	return f(old)
}

func (t *tx) get(id int64, h, r []byte) (store.Item, error) {
	st, err := t.stmt("SELECT v FROM " + tableName(id) + " WHERE h = ? AND r = ?")
	if err != nil {
		return nil, err
	}
	var raw []byte
	switch err := st.QueryRowContext(context.Background(), h, r).Scan(&raw); err {
	case nil:
		return decode(raw)
	case sql.ErrNoRows:
		return nil, nil
	default:
		return nil, err
	}
}

// same tells whether a function gave back the very Item it got, which is to change nothing.
func same(a, b store.Item) bool {
	return a == nil && b == nil || a != nil && b != nil && fmt.Sprintf("%p", a) == fmt.Sprintf("%p", b)
}

// apply writes one step: the row, its places in the indexes, its expiry and its Record.
func (t *tx) apply(st *step) error {
	if same(st.old, st.new) {
		return nil
	}
	l := st.t
	var err error
	if st.new == nil {
		err = t.exec("DELETE FROM "+tableName(l.id)+" WHERE h = ? AND r = ?", st.h, st.r)
	} else {
		err = t.exec("INSERT INTO "+tableName(l.id)+"(h, r, v) VALUES(?, ?, ?) ON CONFLICT DO UPDATE SET v = excluded.v", st.h, st.r, encode(st.new))
	}
	if err != nil {
		return err
	}
	for i := range l.spec.Indexes {
		if err := t.index(l, i, st.old, st.new); err != nil {
			return err
		}
	}
	if l.spec.TTL != "" {
		if err := t.expiry(l, st); err != nil {
			return err
		}
	}
	t.count(l, st.old, st.new)
	if l.spec.View != "" && !st.old.Equal(st.new) || l.spec.View != "" && (st.old == nil) != (st.new == nil) {
		return t.record(st)
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
	was, is := indexEntry(&l.spec.Table, x, old), indexEntry(&l.spec.Table, x, now)
	table := indexName(l.id, l.spec.IDs[i])
	if was != nil && is != nil && was.same(is) {
		return nil
	}
	if was != nil {
		if err := t.exec("DELETE FROM "+table+" WHERE h = ? AND r = ? AND o = ? AND th = ? AND tr = ?", was.args()...); err != nil {
			return err
		}
	}
	if is != nil {
		return t.exec("INSERT INTO "+table+"(h, r, o, th, tr) VALUES(?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", is.args()...)
	}
	return nil
}

// tooOld is how long ago an Item's time may have come: DynamoDB leaves alone what is older, as a mistake.
const tooOld = 5 * 365 * 24 * time.Hour

// due returns the second an Item expires.
func due(l *live, it store.Item) (int64, bool) {
	v := it[l.spec.TTL]
	if v.Kind != store.N {
		return 0, false
	}
	f, err := strconv.ParseFloat(v.Str, 64)
	if err != nil || f < 0 || f > math.MaxInt32*1000.0 {
		return 0, false
	}
	return int64(f), true
}

func (t *tx) expiry(l *live, st *step) error {
	was, had := due(l, st.old)
	is, has := due(l, st.new)
	if had && has && was == is {
		return nil
	}
	if had {
		if err := t.exec("DELETE FROM "+expiryName(l.id)+" WHERE at = ? AND h = ? AND r = ?", was, st.h, st.r); err != nil {
			return err
		}
	}
	if has {
		return t.exec("INSERT INTO "+expiryName(l.id)+"(at, h, r) VALUES(?, ?, ?) ON CONFLICT DO NOTHING", is, st.h, st.r)
	}
	return nil
}

// record writes what the stream shows of a step.
func (t *tx) record(st *step) error {
	l := st.t
	t.seq++
	op, it := store.Modify, st.new
	switch {
	case st.old == nil:
		op = store.Insert
	case st.new == nil:
		op, it = store.Remove, st.old
	}
	var old, now []byte
	if st.old != nil && (l.spec.View == store.OldImage || l.spec.View == store.BothViews) {
		old = encode(st.old)
	}
	if st.new != nil && (l.spec.View == store.NewImage || l.spec.View == store.BothViews) {
		now = encode(st.new)
	}
	expired := 0
	if st.expired {
		expired = 1
	}
	return t.exec("INSERT INTO records(tab, seq, at, op, expired, key, old, new) VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
		l.id, int64(t.seq), t.now.UnixMilli(), string(op), expired, encode(it.Only(l.spec.Key.Names()...)), old, now)
}
