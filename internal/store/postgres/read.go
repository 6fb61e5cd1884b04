package postgres

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/store/rows"
)

// query is a statement of a read, and what gets its rows.
type query struct {
	text string
	args []any
	each func(pgx.Rows) error
}

// read asks what make says for the newest catalog. make may be called again, and then begins anew.
func (s *Store) read(ctx context.Context, make func(*catalog) (*query, error)) error {
	var err error
	for try := 0; try < 8; try++ {
		c := s.catalog.Load()
		if err = s.ask(ctx, c, make); err == errStale {
			err = s.refresh(ctx)
			if err == nil {
				continue
			}
		}
		if !broken(err) || errs.CodeOf(err) != errs.Internal || ctx.Err() != nil || try > 2 {
			break
		}
	}
	if err == errStale {
		return errs.New(errs.Unavailable, "the tables change all the time")
	}
	return s.unwrapped(err)
}

// unwrapped is what a caller gets of an error.
func (s *Store) unwrapped(err error) error {
	if no, ok := err.(*refused); ok {
		return no.error
	}
	return s.told(err)
}

func (s *Store) ask(ctx context.Context, c *catalog, make func(*catalog) (*query, error)) error {
	q, refusal := make(c)
	conn, err := s.acquire(ctx, s.reads)
	if err != nil {
		return err
	}
	defer conn.Release()
	// A context that a caller ends would cost the connection; the server bounds a statement.
	lasting, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	b := &pgx.Batch{}
	b.Queue(versionSQL)
	if refusal == nil {
		b.Queue(q.text, q.args...)
	}
	answers := conn.SendBatch(lasting, b)
	defer answers.Close()
	var format int
	var version int64
	if err := answers.QueryRow().Scan(&format, &version); err != nil {
		return err
	}
	if err := s.checkFormat(format); err != nil {
		return err
	}
	if version != c.version {
		return errStale
	}
	if refusal != nil {
		return &refused{refusal}
	}
	found, err := answers.Query()
	if err := rowsOf(found, err, q.each); err != nil {
		return err
	}
	return answers.Close()
}

// longest is how many bytes of a hash key stand in an index; longer ones end in a digest. A row of an index has room for 2,700 bytes.
const longest = 128

const getSQL = `SELECT k.n, i.v FROM unnest($1::int8[], $2::bytea[], $3::bytea[]) WITH ORDINALITY AS k(tab, h, r, n) JOIN ebb.items AS i ON i.tab = k.tab AND i.h = k.h AND i.r = k.r`

// Get returns the Items found, all as of one moment.
func (s *Store) Get(ctx context.Context, tenant string, keys []store.Lookup) (found []store.Item, err error) {
	if err := ctx.Err(); err != nil || len(keys) == 0 {
		return []store.Item{}, err
	}
	err = s.read(ctx, func(c *catalog) (*query, error) {
		found = make([]store.Item, len(keys))
		var at columns
		for _, k := range keys {
			l, err := c.find(tenant, k.Table)
			if err != nil {
				return nil, err
			}
			h, r, err := rows.Key(l.spec.Key, k.Key)
			if err != nil {
				return nil, err
			}
			at.add(l.id, short(h), r)
		}
		return &query{text: getSQL, args: at.args(), each: func(r pgx.Rows) (err error) {
			var n int64
			var raw []byte
			if err = r.Scan(&n, &raw); err == nil {
				found[n-1], err = rows.Decode(raw)
			}
			return err
		}}, nil
	})
	return found, err
}

// columns are the keys of many rows.
type columns struct {
	set  []int64
	h, r [][]byte
}

func (k *columns) add(set int64, h, r []byte) {
	k.set, k.h, k.r = append(k.set, set), append(k.h, h), append(k.r, r)
}

func (k *columns) args() []any { return []any{k.set, k.h, k.r} }

// walk is a path along the rows of a table or an index in their order.
type walk struct {
	l     *live
	x     *store.Index
	idx   int64
	down  bool
	where []string
	args  []any
}

// walkOf begins a walk along an index, or the table itself.
func walkOf(c *catalog, tenant, table, index string) (*walk, error) {
	l, err := c.find(tenant, table)
	if err != nil {
		return nil, err
	}
	w := &walk{l: l}
	if index == "" {
		w.add("t.tab = ?", l.id)
		return w, nil
	}
	for i := range l.spec.Indexes {
		if id := l.spec.IDs[i]; l.spec.Indexes[i].Name == index && !l.spec.Building[id] {
			w.x, w.idx = &l.spec.Indexes[i], id
			w.add("x.idx = ?", id)
			return w, nil
		}
	}
	return nil, errs.New(errs.NotFound, "table %s has no index %s", table, index)
}

// add adds a condition; each ? of it stands for an argument, and @ for the table or index that the walk is along.
func (w *walk) add(cond string, args ...any) {
	at := "t"
	if w.x != nil {
		at = "x"
	}
	cond = strings.ReplaceAll(cond, "@", at)
	for _, a := range args {
		w.args = append(w.args, a)
		cond = strings.Replace(cond, "?", fmt.Sprintf("$%d", len(w.args)), 1)
	}
	w.where = append(w.where, cond)
}

func (w *walk) text(limit int) (string, []any) {
	from, order := "ebb.items AS t", "t.tab, t.h, t.r"
	args := append([]any(nil), w.args...)
	if w.x != nil {
		args = append(args, w.l.id)
		from = fmt.Sprintf("ebb.entries AS x JOIN ebb.items AS t ON t.tab = $%d AND t.h = x.th AND t.r = x.tr", len(args))
		order = "x.idx, x.h, x.r, x.o, x.th, x.tr"
	}
	if w.down {
		order = strings.ReplaceAll(order, ",", " DESC,") + " DESC"
	}
	args = append(args, limit)
	return fmt.Sprintf("SELECT t.v FROM %s WHERE %s ORDER BY %s LIMIT $%d", from, strings.Join(w.where, " AND "), order, len(args)), args
}

// place is where an Item stands on the walk.
func (w *walk) place(it store.Item) (*rows.Entry, error) {
	h, r, err := rows.Key(w.l.spec.Key, it)
	if err != nil {
		return nil, err
	}
	if w.x == nil {
		return &rows.Entry{H: h, R: r}, nil
	}
	e := rows.IndexEntry(&w.l.spec.Table, w.x, it)
	if e == nil {
		return nil, errs.New(errs.Invalid, "the key to start behind is not one of index %s", w.x.Name)
	}
	return e, nil
}

// Query calls each with the Items of one hash key in order.
func (s *Store) Query(ctx context.Context, tenant string, q store.Query, each func(store.Item) bool) error {
	return s.follow(ctx, q.After, each, func(c *catalog, after store.Item) (*walk, error) {
		w, err := walkOf(c, tenant, q.Table, q.Index)
		if err != nil {
			return nil, err
		}
		w.down = q.Descending
		h := rows.HashKey(q.Hash)
		w.add("@.h = ?", short(h))
		low, high := boundOf(q.Low), boundOf(q.High)
		if q.Prefix.Kind != store.None {
			low = low.inner(bound{at: []byte(q.Prefix.Str), set: true}, 1)
			if next := store.Successor(q.Prefix.Str); next != "" {
				high = high.inner(bound{at: []byte(next), not: true, set: true}, -1)
			}
		}
		if after == nil {
			w.between(low, high)
			return w, nil
		}
		e, err := w.place(after)
		if err != nil {
			return nil, err
		}
		ahead := bytes.Compare(h, e.H)
		if w.down {
			ahead = -ahead
		}
		if ahead != 0 { // it is of another hash key
			if ahead < 0 {
				w.add("false")
			}
			w.between(low, high)
			return w, nil
		}
		// Of two conditions on the same end the index begins at one only: the narrower one is said alone.
		from, op := &low, ">"
		if w.down {
			from, op = &high, "<"
		}
		if c := bytes.Compare(from.at, e.R); from.set && (w.down && c < 0 || !w.down && c > 0) {
			w.between(low, high)
			return w, nil
		}
		*from = bound{}
		w.between(low, high)
		w.behind(op, e, false)
		return w, nil
	})
}

// behind leaves out what stands up to a place; hash says whether other hash keys come too.
func (w *walk) behind(op string, e *rows.Entry, hash bool) {
	names, args := []string{"@.r"}, []any{e.R}
	if hash {
		names, args = []string{"@.h", "@.r"}, []any{short(e.H), e.R}
	}
	if w.x != nil {
		names, args = append(names, "@.o", "@.th", "@.tr"), append(args, e.O, short(e.TH), e.TR)
	}
	w.add("("+strings.Join(names, ", ")+") "+op+" (?"+strings.Repeat(", ?", len(args)-1)+")", args...)
}

// bound is one end of a range of the column r.
type bound struct {
	at       []byte
	not, set bool
}

func boundOf(b store.Bound) bound {
	if b.Value.Kind == store.None {
		return bound{}
	}
	return bound{at: rows.Plain(b.Value), not: b.Not, set: true}
}

// inner returns the narrower of two ends; sign is 1 for the lower one, and -1.
func (b bound) inner(o bound, sign int) bound {
	c := sign * bytes.Compare(o.at, b.at)
	if !b.set || c > 0 || c == 0 && o.not {
		return o
	}
	return b
}

func (w *walk) between(low, high bound) {
	for i, b := range []bound{low, high} {
		if !b.set {
			continue
		}
		op := [2]string{">", "<"}[i]
		if !b.not {
			op += "="
		}
		w.add("@.r "+op+" ?", b.at)
	}
}

// Scan calls each with the Items of a table, an index or a segment.
func (s *Store) Scan(ctx context.Context, tenant string, q store.Scan, each func(store.Item) bool) error {
	first, behind := rows.Segment(q.Segment, q.Segments)
	return s.follow(ctx, q.After, each, func(c *catalog, after store.Item) (*walk, error) {
		w, err := walkOf(c, tenant, q.Table, q.Index)
		if err != nil {
			return nil, err
		}
		if behind != nil {
			w.add("@.h < ?", behind)
		}
		if after == nil {
			if first != nil {
				w.add("@.h >= ?", first)
			}
			return w, nil
		}
		e, err := w.place(after)
		if err != nil {
			return nil, err
		}
		if first != nil && bytes.Compare(e.H, first) < 0 || behind != nil && bytes.Compare(e.H, behind) >= 0 {
			return nil, errs.New(errs.Invalid, "the key to start behind is not in segment %d of %d", q.Segment, q.Segments)
		}
		w.behind(">", e, true)
		return w, nil
	})
}

// How many rows one statement of a walk asks for. Callers stop at a page of 1 MB, or sooner.
const (
	firstRows = 32
	mostRows  = 1000
	aimBytes  = 1 << 20
)

// follow calls each along a walk, some rows at a time: a caller that has enough costs what it saw, and one that is slow holds no connection.
func (s *Store) follow(ctx context.Context, after store.Item, each func(store.Item) bool, along func(*catalog, store.Item) (*walk, error)) error {
	limit := firstRows
	for {
		var found []store.Item
		var w *walk
		size := 0
		err := s.read(ctx, func(c *catalog) (_ *query, err error) {
			found, size = nil, 0
			if w, err = along(c, after); err != nil {
				return nil, err
			}
			text, args := w.text(limit)
			return &query{text: text, args: args, each: func(r pgx.Rows) error {
				raw := r.RawValues()[0]
				size += len(raw)
				it, err := rows.Decode(raw)
				found = append(found, it)
				return err
			}}, nil
		})
		if err != nil {
			return err
		}
		for _, it := range found {
			if err := ctx.Err(); err != nil {
				return err
			}
			if !each(rows.Shown(&w.l.spec.Table, w.x, it)) {
				return nil
			}
		}
		if len(found) < limit {
			return nil
		}
		after = found[len(found)-1]
		limit = min(max(aimBytes/max(size/len(found), 1), firstRows), mostRows)
	}
}

// Records returns up to limit Records of a table's stream.
func (s *Store) Records(ctx context.Context, tenant, table string, after uint64, limit int) (all []store.Record, err error) {
	err = s.read(ctx, func(c *catalog) (*query, error) {
		all = nil
		l, err := c.find(tenant, table)
		if err != nil {
			return nil, err
		}
		text := "SELECT seq, at, op, expired, key, old, new FROM ebb.records WHERE stream = $1 AND seq > $2 ORDER BY stream, seq LIMIT $3"
		return &query{text: text, args: []any{l.spec.Stream, int64(after), limit}, each: func(found pgx.Rows) error {
			var r store.Record
			var seq, at int64
			var op string
			var images [3][]byte
			if err := found.Scan(&seq, &at, &op, &r.Expired, &images[0], &images[1], &images[2]); err != nil {
				return err
			}
			r.Seq, r.At, r.Op = uint64(seq), time.UnixMilli(at), store.Op(op)
			for i, to := range []*store.Item{&r.Key, &r.Old, &r.New} {
				if images[i] == nil {
					continue
				}
				var err error
				if *to, err = rows.Decode(images[i]); err != nil {
					return err
				}
			}
			all = append(all, r)
			return nil
		}}, nil
	})
	return all, err
}

// Last returns the sequence number of a table's newest Record.
func (s *Store) Last(ctx context.Context, tenant, table string) (last uint64, err error) {
	err = s.read(ctx, func(c *catalog) (*query, error) {
		last = 0
		l, err := c.find(tenant, table)
		if err != nil {
			return nil, err
		}
		return &query{text: lastSQL, args: []any{[]int64{l.spec.Stream}}, each: func(r pgx.Rows) error {
			var stream int64
			var seq *int64
			if err := r.Scan(&stream, &seq); err != nil || seq == nil {
				return err
			}
			last = uint64(*seq)
			return nil
		}}, nil
	})
	return last, err
}

// lastSQL is the newest Record of each of some streams.
const lastSQL = "SELECT k.id, (SELECT r.seq FROM ebb.records AS r WHERE r.stream = k.id ORDER BY r.stream DESC, r.seq DESC LIMIT 1) FROM unnest($1::int8[]) AS k(id)"
