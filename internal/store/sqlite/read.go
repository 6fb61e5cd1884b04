package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/store/rows"
)

// stmt returns a prepared statement for readers of a table.
func (s *Store) stmt(l *live, text string) (*sql.Stmt, error) {
	if st, ok := l.stmts.Load(text); ok {
		return st.(*sql.Stmt), nil
	}
	st, err := s.db.PrepareContext(context.Background(), text)
	if err != nil {
		return nil, err
	}
	if other, loaded := l.stmts.LoadOrStore(text, st); loaded {
		_ = st.Close()
		return other.(*sql.Stmt), nil
	}
	return st, nil
}

// readErr says what a reader's error means.
func readErr(l *live, err error) error {
	if lost(err) {
		return errs.New(errs.NotFound, "no table %s", l.spec.Name)
	}
	return told(err)
}

// Get returns the Items found, all as of one moment.
func (s *Store) Get(ctx context.Context, tenant string, keys []store.Lookup) ([]store.Item, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	items := make([]store.Item, len(keys))
	if len(keys) == 1 {
		it, err := s.get(tenant, keys[0], nil)
		items[0] = it
		return items, err
	}
	tx, err := s.db.BeginTx(context.Background(), &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, told(err)
	}
	defer tx.Rollback()
	for i, k := range keys {
		if items[i], err = s.get(tenant, k, tx); err != nil {
			return nil, err
		}
	}
	return items, nil
}

func (s *Store) get(tenant string, k store.Lookup, tx *sql.Tx) (store.Item, error) {
	l, err := s.find(tenant, k.Table)
	if err != nil {
		return nil, err
	}
	h, r, err := rows.Key(l.spec.Key, k.Key)
	if err != nil {
		return nil, err
	}
	st, err := s.stmt(l, "SELECT v FROM "+tableName(l.id)+" WHERE h = ? AND r = ?")
	if err != nil {
		return nil, readErr(l, err)
	}
	if tx != nil {
		st = tx.Stmt(st)
	}
	var raw []byte
	// A context with an end would cost a goroutine a read, and a read of one row is short.
	switch err := st.QueryRowContext(context.Background(), h, r).Scan(&raw); {
	case err == nil:
		return rows.Decode(raw)
	case errors.Is(err, sql.ErrNoRows):
		return nil, nil
	default:
		return nil, readErr(l, err)
	}
}

// clause collects a statement's conditions.
type clause struct {
	where []string
	args  []any
}

func (c *clause) add(cond string, args ...any) {
	c.where = append(c.where, cond)
	c.args = append(c.args, args...)
}

// source says where rows come from and in which order: the table, or an index with its Items.
func source(l *live, index string) (x *store.Index, from, order, at string, err error) {
	if index == "" {
		return nil, "SELECT t.v FROM " + tableName(l.id) + " AS t", "t.h, t.r", "t", nil
	}
	for i := range l.spec.Indexes {
		if l.spec.Indexes[i].Name == index && !l.spec.Building[index] {
			// CROSS JOIN holds SQLite to the order of the index.
			from = "SELECT t.v FROM " + indexName(l.id, l.spec.IDs[i]) + " AS x CROSS JOIN " + tableName(l.id) + " AS t ON t.h = x.th AND t.r = x.tr"
			return &l.spec.Indexes[i], from, "x.h, x.r, x.o, x.th, x.tr", "x", nil
		}
	}
	return nil, "", "", "", errs.New(errs.NotFound, "table %s has no index %s", l.spec.Name, index)
}

func keyOf(l *live, x *store.Index) store.Key {
	if x != nil {
		return x.Key
	}
	return l.spec.Key
}

// Query calls each with the Items of one hash key in order.
func (s *Store) Query(ctx context.Context, tenant string, q store.Query, each func(store.Item) bool) error {
	l, err := s.find(tenant, q.Table)
	if err != nil {
		return err
	}
	x, from, order, at, err := source(l, q.Index)
	if err != nil {
		return err
	}
	var c clause
	c.add(at+".h = ?", rows.HashKey(q.Hash))
	column := at + ".r"
	for i, b := range []store.Bound{q.Low, q.High} {
		if b.Value.Kind == store.None {
			continue
		}
		op := [2]string{" >", " <"}[i]
		if !b.Not {
			op += "="
		}
		c.add(column+op+" ?", rows.Plain(b.Value))
	}
	if q.Prefix.Kind != store.None {
		c.add(column+" >= ?", []byte(q.Prefix.Str))
		if next := store.Successor(q.Prefix.Str); next != "" {
			c.add(column+" < ?", []byte(next))
		}
	}
	op := ">"
	if q.Descending {
		op = "<"
	}
	if err := c.after(l, x, q.After, op); err != nil {
		return err
	}
	if q.Descending {
		order = strings.ReplaceAll(order, ",", " DESC,") + " DESC"
	}
	return s.rows(ctx, l, x, from+" WHERE "+strings.Join(c.where, " AND ")+" ORDER BY "+order, c.args, each)
}

// after leaves out what stands up to an Item.
func (c *clause) after(l *live, x *store.Index, key store.Item, op string) error {
	if key == nil {
		return nil
	}
	if x == nil {
		h, r, err := rows.Key(l.spec.Key, key)
		if err != nil {
			return err
		}
		c.add("(t.h, t.r) "+op+" (?, ?)", h, r)
		return nil
	}
	if _, _, err := rows.Key(l.spec.Key, key); err != nil {
		return err
	}
	e := rows.IndexEntry(&l.spec.Table, x, key)
	if e == nil {
		return errs.New(errs.Invalid, "the key to start behind is not one of index %s", x.Name)
	}
	c.add("(x.h, x.r, x.o, x.th, x.tr) "+op+" (?, ?, ?, ?, ?)", e.Args()...)
	return nil
}

// Scan calls each with the Items of a table, an index or a segment.
func (s *Store) Scan(ctx context.Context, tenant string, q store.Scan, each func(store.Item) bool) error {
	l, err := s.find(tenant, q.Table)
	if err != nil {
		return err
	}
	x, from, order, at, err := source(l, q.Index)
	if err != nil {
		return err
	}
	var c clause
	first, behind := rows.Segment(q.Segment, q.Segments)
	if first != nil {
		c.add(at+".h >= ?", first)
	}
	if behind != nil {
		c.add(at+".h < ?", behind)
	}
	if err := c.after(l, x, q.After, ">"); err != nil {
		return err
	}
	if q.After != nil {
		h := rows.HashKey(q.After[keyOf(l, x).Hash.Name])
		if first != nil && bytes.Compare(h, first) < 0 || behind != nil && bytes.Compare(h, behind) >= 0 {
			return errs.New(errs.Invalid, "the key to start behind is not in segment %d of %d", q.Segment, q.Segments)
		}
	}
	if len(c.where) > 0 {
		from += " WHERE " + strings.Join(c.where, " AND ")
	}
	return s.rows(ctx, l, x, from+" ORDER BY "+order, c.args, each)
}

func (s *Store) rows(ctx context.Context, l *live, x *store.Index, text string, args []any, each func(store.Item) bool) error {
	st, err := s.stmt(l, text)
	if err != nil {
		return readErr(l, err)
	}
	found, err := st.QueryContext(context.Background(), args...)
	if err != nil {
		return readErr(l, err)
	}
	defer found.Close()
	for n := 0; found.Next(); n++ {
		if n%64 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		var raw sql.RawBytes
		if err := found.Scan(&raw); err != nil {
			return readErr(l, err)
		}
		it, err := rows.Decode(raw)
		if err != nil {
			return err
		}
		if !each(rows.Shown(&l.spec.Table, x, it)) {
			return nil
		}
	}
	return readErr(l, found.Err())
}

// Records returns up to limit Records of a table's stream.
func (s *Store) Records(ctx context.Context, tenant, table string, after uint64, limit int) ([]store.Record, error) {
	l, err := s.find(tenant, table)
	if err != nil {
		return nil, err
	}
	found, err := s.db.QueryContext(ctx, "SELECT seq, at, op, expired, key, old, new FROM records WHERE tab = ? AND seq > ? ORDER BY seq LIMIT ?", l.id, int64(after), limit)
	if err != nil {
		return nil, told(err)
	}
	defer found.Close()
	var all []store.Record
	for found.Next() {
		var r store.Record
		var seq, at int64
		var images [3][]byte
		if err := found.Scan(&seq, &at, &r.Op, &r.Expired, &images[0], &images[1], &images[2]); err != nil {
			return nil, told(err)
		}
		r.Seq, r.At = uint64(seq), time.UnixMilli(at)
		for i, to := range []*store.Item{&r.Key, &r.Old, &r.New} {
			if images[i] == nil {
				continue
			}
			if *to, err = rows.Decode(images[i]); err != nil {
				return nil, err
			}
		}
		all = append(all, r)
	}
	return all, told(found.Err())
}

// Last returns the sequence number of a table's newest Record.
func (s *Store) Last(ctx context.Context, tenant, table string) (uint64, error) {
	l, err := s.find(tenant, table)
	if err != nil {
		return 0, err
	}
	var seq sql.NullInt64
	err = s.db.QueryRowContext(ctx, "SELECT max(seq) FROM records WHERE tab = ?", l.id).Scan(&seq)
	return uint64(seq.Int64), told(err)
}

// Changed returns a channel that is closed at the next change of a table with a stream.
func (s *Store) Changed() <-chan struct{} {
	s.changed.Lock()
	defer s.changed.Unlock()
	return s.changed.ch
}
