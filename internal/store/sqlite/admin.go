package sqlite

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/store/rows"
)

func (c *catalog) find(tenant, table string) (*live, error) {
	if l := c.tables[name{tenant, table}]; l != nil {
		return l, nil
	}
	return nil, errs.New(errs.NotFound, "no table %s", table)
}

func (s *Store) find(tenant, table string) (*live, error) {
	return s.catalog.Load().find(tenant, table)
}

// told returns a table's description with its counts.
func (l *live) told() store.Table {
	t := l.spec.Table
	t.Items, t.Bytes = l.counts.items.Load(), l.counts.bytes.Load()
	return t
}

// Table describes one.
func (s *Store) Table(_ context.Context, tenant, table string) (store.Table, error) {
	l, err := s.find(tenant, table)
	if err != nil {
		return store.Table{}, err
	}
	return l.told(), nil
}

// List describes all of a tenant, by name.
func (s *Store) List(_ context.Context, tenant string) ([]store.Table, error) {
	var all []store.Table
	for n, l := range s.catalog.Load().tables {
		if n.tenant == tenant {
			all = append(all, l.told())
		}
	}
	slices.SortFunc(all, func(a, b store.Table) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

// Create makes a table.
func (s *Store) Create(ctx context.Context, tenant string, want store.Table) (store.Table, error) {
	if err := rows.CheckTable(&want); err != nil {
		return store.Table{}, err
	}
	var made *live
	err := s.submit(ctx, func(t *tx) (error, error) {
		if _, err := t.catalog.find(tenant, want.Name); err == nil {
			return errs.New(errs.Exists, "the table %s is there already", want.Name), nil
		}
		t.nextID++
		made = newLive()
		made.id, made.tenant, made.spec.Table = t.nextID, tenant, want
		made.spec.ID, made.spec.Made = rand.Text(), t.now
		if err := t.exec("CREATE TABLE " + tableName(made.id) + "(h BLOB NOT NULL, r BLOB NOT NULL, v BLOB NOT NULL, PRIMARY KEY(h, r)) WITHOUT ROWID"); err != nil {
			return nil, err
		}
		if want.TTL != "" {
			if err := t.makeExpiry(made.id); err != nil {
				return nil, err
			}
		}
		for range want.Indexes {
			if err := t.makeIndex(made); err != nil {
				return nil, err
			}
		}
		return nil, t.set(made)
	})
	if err != nil {
		return store.Table{}, err
	}
	return made.told(), nil
}

func (t *tx) makeIndex(l *live) error {
	t.nextID++
	l.spec.IDs = append(l.spec.IDs, t.nextID)
	return t.exec("CREATE TABLE " + indexName(l.id, t.nextID) +
		"(h BLOB NOT NULL, r BLOB NOT NULL, o BLOB NOT NULL, th BLOB NOT NULL, tr BLOB NOT NULL, PRIMARY KEY(h, r, o, th, tr)) WITHOUT ROWID")
}

func (t *tx) makeExpiry(id int64) error {
	return t.exec("CREATE TABLE " + expiryName(id) + "(at INTEGER NOT NULL, h BLOB NOT NULL, r BLOB NOT NULL, PRIMARY KEY(at, h, r)) WITHOUT ROWID")
}

// Drop deletes a table with all that belongs to it.
func (s *Store) Drop(ctx context.Context, tenant, table string) (store.Table, error) {
	var gone *live
	err := s.submit(ctx, func(t *tx) (error, error) {
		var err error
		if gone, err = t.catalog.find(tenant, table); err != nil {
			return err, nil
		}
		if gone.spec.Protected {
			return errs.New(errs.Conflict, "the table %s is protected against deletion", table), nil
		}
		t.forget() // statements hold a table
		drops := []string{tableName(gone.id)}
		for _, id := range gone.spec.IDs {
			drops = append(drops, indexName(gone.id, id))
		}
		if gone.spec.TTL != "" {
			drops = append(drops, expiryName(gone.id))
		}
		for _, d := range drops {
			if _, err := t.s.w.ExecContext(context.Background(), "DROP TABLE "+d); err != nil {
				return nil, err
			}
		}
		if err := t.exec("DELETE FROM records WHERE tab = ?", gone.id); err != nil {
			return nil, err
		}
		if err := t.exec("DELETE FROM tables WHERE id = ?", gone.id); err != nil {
			return nil, err
		}
		t.own()
		delete(t.catalog.tables, name{tenant, table})
		delete(t.counts, gone.counts)
		t.dropped = append(t.dropped, gone)
		return nil, nil
	})
	if err != nil {
		return store.Table{}, err
	}
	return gone.told(), nil
}

// Alter changes a table's description, and makes and fills what it names anew.
func (s *Store) Alter(ctx context.Context, tenant, table string, fn func(store.Table) (store.Table, error)) (store.Table, error) {
	var now *live
	err := s.submit(ctx, func(t *tx) (error, error) {
		old, err := t.catalog.find(tenant, table)
		if err != nil {
			return err, nil
		}
		want, err := fn(old.told())
		if err == nil {
			err = rows.CheckTable(&want)
		}
		if err == nil && (want.Name != table || want.Key != old.spec.Key) {
			err = errs.New(errs.Invalid, "the name and key of a table stay as they are")
		}
		if err != nil {
			return err, nil
		}
		now, err = t.alter(old, want)
		return nil, err
	})
	if err != nil {
		return store.Table{}, err
	}
	if err := s.fill(ctx, now); err != nil {
		return store.Table{}, err
	}
	return s.Table(ctx, tenant, table)
}

// alter makes the tables of new indexes and removes those of indexes that are no more.
func (t *tx) alter(old *live, want store.Table) (*live, error) {
	now := &live{id: old.id, tenant: old.tenant, counts: old.counts, stmts: old.stmts}
	want.ID, want.Made = old.spec.ID, old.spec.Made
	now.spec = spec{Table: want, Building: maps.Clone(old.spec.Building)}
	if now.spec.Building == nil {
		now.spec.Building = map[string]bool{}
	}
	kept := map[int64]bool{}
	for i := range want.Indexes {
		x := &want.Indexes[i]
		was := slices.IndexFunc(old.spec.Indexes, func(o store.Index) bool { return o.Name == x.Name && o.Key == x.Key })
		if was >= 0 {
			now.spec.IDs = append(now.spec.IDs, old.spec.IDs[was])
			kept[old.spec.IDs[was]] = true
			continue
		}
		now.spec.Building[x.Name] = true
		x.Made = t.now
		if err := t.makeIndex(now); err != nil {
			return nil, err
		}
	}
	var drops []string
	for i, id := range old.spec.IDs {
		if !kept[id] {
			drops = append(drops, indexName(old.id, id))
			if want.Index(old.spec.Indexes[i].Name) == nil {
				delete(now.spec.Building, old.spec.Indexes[i].Name)
			}
		}
	}
	if old.spec.TTL != want.TTL && old.spec.TTL != "" {
		drops = append(drops, expiryName(old.id))
	}
	if len(drops) > 0 {
		t.forget()
	}
	for _, d := range drops {
		if _, err := t.s.w.ExecContext(context.Background(), "DROP TABLE "+d); err != nil {
			return nil, err
		}
	}
	if old.spec.TTL != want.TTL && want.TTL != "" {
		now.spec.Building[ttlBuild] = true
		if err := t.makeExpiry(old.id); err != nil {
			return nil, err
		}
	}
	if want.Label != old.spec.Label && want.Label != "" {
		if err := t.exec("DELETE FROM records WHERE tab = ?", old.id); err != nil {
			return nil, err
		}
	}
	return now, t.set(now)
}

// ttlBuild stands among the indexes being built for the table of expiries; no index has such a name.
const ttlBuild = " ttl"

// fillRows is how many Items one step of filling reads: other writes come between the steps.
const fillRows = 1000

// fill enters the Items that were there before into what was made anew.
func (s *Store) fill(ctx context.Context, l *live) error {
	if len(l.spec.Building) == 0 {
		return nil
	}
	afterH, afterR := []byte{}, []byte{}
	for more := true; more; {
		err := s.submit(ctx, func(t *tx) (error, error) {
			cur, err := t.catalog.find(l.tenant, l.spec.Name)
			if err != nil || cur.id != l.id {
				return errs.New(errs.NotFound, "the table %s was deleted meanwhile", l.spec.Name), nil
			}
			more, err = t.fillSome(cur, &afterH, &afterR)
			if err != nil || more {
				return nil, err
			}
			done := &live{id: cur.id, tenant: cur.tenant, spec: cur.spec, counts: cur.counts, stmts: cur.stmts}
			done.spec.Building = maps.Clone(cur.spec.Building)
			for b := range l.spec.Building {
				delete(done.spec.Building, b)
			}
			return nil, t.set(done)
		})
		if err != nil {
			return fmt.Errorf("fill index: %w", err)
		}
	}
	return nil
}

func (t *tx) fillSome(l *live, afterH, afterR *[]byte) (more bool, err error) {
	st, err := t.stmt("SELECT h, r, v FROM " + tableName(l.id) + " WHERE (h, r) > (?, ?) ORDER BY h, r LIMIT ?")
	if err != nil {
		return false, err
	}
	found, err := st.QueryContext(context.Background(), *afterH, *afterR, fillRows)
	if err != nil {
		return false, err
	}
	var steps []step
	for found.Next() {
		one := step{t: l}
		var raw []byte
		if err = found.Scan(&one.H, &one.R, &raw); err == nil {
			one.New, err = rows.Decode(raw)
		}
		if err != nil {
			break
		}
		one.R = append([]byte{}, one.R...) // an empty blob is read as nil, which would be NULL
		steps = append(steps, one)
	}
	if closeErr := found.Close(); err == nil {
		err = cmp.Or(found.Err(), closeErr)
	}
	if err != nil {
		return false, err
	}
	for i := range steps {
		for j, x := range l.spec.Indexes {
			if l.spec.Building[x.Name] {
				if err := t.index(l, j, nil, steps[i].New); err != nil {
					return false, err
				}
			}
		}
		if l.spec.Building[ttlBuild] && l.spec.TTL != "" {
			if err := t.expiry(l, &steps[i]); err != nil {
				return false, err
			}
		}
		*afterH, *afterR = steps[i].H, steps[i].R
	}
	return len(steps) == fillRows, nil
}

// rebuild goes on with what a crash interrupted.
func (s *Store) rebuild(ctx context.Context) error {
	for _, l := range s.catalog.Load().tables {
		if err := s.fill(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

// lost tells whether a statement failed because its table was deleted.
func lost(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "no such table") || strings.Contains(err.Error(), "statement is closed"))
}
