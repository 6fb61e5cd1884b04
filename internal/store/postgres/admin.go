package postgres

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/store/rows"
)

// Create makes a table.
func (s *Store) Create(ctx context.Context, tenant string, want store.Table) (store.Table, error) {
	if err := rows.CheckTable(&want); err != nil {
		return store.Table{}, err
	}
	var made *live
	err := s.alter(ctx, func(a *alteration) (err error) {
		if _, err := a.c.find(tenant, want.Name); err == nil {
			return &refused{errs.New(errs.Exists, "the table %s is there already", want.Name)}
		}
		made = &live{tenant: tenant, spec: spec{Table: want}}
		made.spec.ID, made.spec.Made = rand.Text(), s.opt.Now()
		if made.id, err = a.newID(); err != nil {
			return err
		}
		ids := []*int64{&made.spec.Stream, &made.spec.Expiry}
		made.spec.IDs = make([]int64, len(want.Indexes))
		for i := range made.spec.IDs {
			ids = append(ids, &made.spec.IDs[i])
		}
		for _, id := range ids {
			if *id, err = a.newID(); err != nil {
				return err
			}
		}
		return a.set(made)
	})
	if err != nil {
		return store.Table{}, err
	}
	return made.told(0, 0), nil
}

// Drop deletes a table with all that belongs to it.
func (s *Store) Drop(ctx context.Context, tenant, table string) (store.Table, error) {
	var gone store.Table
	err := s.alter(ctx, func(a *alteration) error {
		l, err := a.c.find(tenant, table)
		if err != nil {
			return &refused{err}
		}
		if l.spec.Protected {
			return &refused{errs.New(errs.Conflict, "the table %s is protected against deletion", table)}
		}
		if gone, err = a.told(l); err != nil {
			return err
		}
		if _, err := a.tx.Exec(ctx, "DELETE FROM ebb.tables WHERE id = $1", l.id); err != nil {
			return err
		}
		if _, err := a.tx.Exec(ctx, "DELETE FROM ebb.counts WHERE tab = $1", l.id); err != nil {
			return err
		}
		for _, id := range l.spec.IDs {
			if err := a.discard(entries, id); err != nil {
				return err
			}
		}
		for kind, id := range map[string]int64{items: l.id, expiry: l.spec.Expiry, records: l.spec.Stream} {
			if err := a.discard(kind, id); err != nil {
				return err
			}
		}
		return nil
	})
	return gone, err
}

// told describes a table as the transaction sees it.
func (a *alteration) told(l *live) (store.Table, error) {
	var n, bytes int64
	err := a.tx.QueryRow(a.ctx, "SELECT coalesce(sum(n), 0)::int8, coalesce(sum(bytes), 0)::int8 FROM ebb.counts WHERE tab = $1", l.id).Scan(&n, &bytes)
	return l.told(n, bytes), err
}

// Alter changes a table's description, and fills what it names anew.
func (s *Store) Alter(ctx context.Context, tenant, table string, fn func(store.Table) (store.Table, error)) (store.Table, error) {
	var now *live
	err := s.alter(ctx, func(a *alteration) error {
		old, err := a.c.find(tenant, table)
		if err != nil {
			return &refused{err}
		}
		was, err := a.told(old)
		if err != nil {
			return err
		}
		want, err := fn(was)
		if err == nil {
			err = rows.CheckTable(&want)
		}
		if err == nil && (want.Name != table || want.Key != old.spec.Key) {
			err = errs.New(errs.Invalid, "the name and key of a table stay as they are")
		}
		if err != nil {
			return &refused{err}
		}
		now, err = a.change(old, want, s)
		return err
	})
	if err == nil {
		err = s.fill(ctx, now)
	}
	if err != nil {
		return store.Table{}, err
	}
	return s.Table(ctx, tenant, table)
}

// change writes a new description. What it names anew gets a set of its own, and what is no more is discarded.
func (a *alteration) change(old *live, want store.Table, s *Store) (*live, error) {
	want.ID, want.Made = old.spec.ID, old.spec.Made
	now := &live{id: old.id, tenant: old.tenant, spec: spec{Table: want, Expiry: old.spec.Expiry, Stream: old.spec.Stream, Building: maps.Clone(old.spec.Building)}}
	if now.spec.Building == nil {
		now.spec.Building = map[int64]bool{}
	}
	now.spec.Indexes = slices.Clone(want.Indexes)
	for i := range now.spec.Indexes {
		x := &now.spec.Indexes[i]
		was := slices.IndexFunc(old.spec.Indexes, func(o store.Index) bool { return o.Name == x.Name && o.Key == x.Key })
		if was >= 0 {
			now.spec.IDs = append(now.spec.IDs, old.spec.IDs[was])
			continue
		}
		id, err := a.newID()
		if err != nil {
			return nil, err
		}
		x.Made = s.opt.Now()
		now.spec.IDs, now.spec.Building[id] = append(now.spec.IDs, id), true
	}
	for _, id := range old.spec.IDs {
		if slices.Contains(now.spec.IDs, id) {
			continue
		}
		delete(now.spec.Building, id)
		if err := a.discard(entries, id); err != nil {
			return nil, err
		}
	}
	var err error
	if old.spec.TTL != want.TTL {
		delete(now.spec.Building, old.spec.Expiry)
		if err = a.renew(expiry, &now.spec.Expiry); err == nil && want.TTL != "" {
			now.spec.Building[now.spec.Expiry] = true
		}
	}
	if err == nil && want.Label != old.spec.Label && want.Label != "" {
		err = a.renew(records, &now.spec.Stream)
	}
	if err != nil {
		return nil, err
	}
	return now, a.set(now)
}

// renew gives a table another, empty set.
func (a *alteration) renew(kind string, id *int64) error {
	if err := a.discard(kind, *id); err != nil {
		return err
	}
	fresh, err := a.newID()
	*id = fresh
	return err
}

// fillRows is how many Items one step of filling enters: other writes come between the steps.
const fillRows = 256

// fill enters the Items that were there before into the sets that are being built. Several Nodes may be at it.
func (s *Store) fill(ctx context.Context, l *live) error {
	if len(l.spec.Building) == 0 {
		return nil
	}
	afterH, afterR := []byte{}, []byte{}
	for more := true; more; {
		err := s.transact(ctx, func(tx pgx.Tx) (err error) {
			f := &filling{s: s, ctx: ctx, tx: tx, l: l}
			more, afterH, afterR, err = f.step(afterH, afterR)
			return err
		})
		if err != nil {
			return fmt.Errorf("fill index: %w", err)
		}
	}
	return s.alter(ctx, func(a *alteration) error {
		cur, err := a.c.find(l.tenant, l.spec.Name)
		if err != nil || cur.id != l.id {
			return &refused{errs.New(errs.NotFound, "the table %s was deleted meanwhile", l.spec.Name)}
		}
		done := &live{id: cur.id, tenant: cur.tenant, spec: cur.spec}
		done.spec.Building = maps.Clone(cur.spec.Building)
		for id := range l.spec.Building {
			delete(done.spec.Building, id)
		}
		return a.set(done)
	})
}

// filling is one step of filling.
type filling struct {
	s   *Store
	ctx context.Context
	tx  pgx.Tx
	l   *live
}

// step enters the next Items. Nobody writes to them between the moment they are read and that in which their entries are durable.
func (f *filling) step(afterH, afterR []byte) (more bool, lastH, lastR []byte, err error) {
	if _, err := f.tx.Exec(f.ctx, "SELECT pg_advisory_xact_lock_shared($1, $2)", space, lockCatalog); err != nil {
		return false, nil, nil, err
	}
	c, err := f.s.loadCatalog(f.ctx, f.tx)
	if err != nil {
		return false, nil, nil, err
	}
	cur, err := c.find(f.l.tenant, f.l.spec.Name)
	if err != nil || cur.id != f.l.id {
		return false, nil, nil, &refused{errs.New(errs.NotFound, "the table %s was deleted meanwhile", f.l.spec.Name)}
	}
	var at columns
	var locks []int64
	found, err := f.tx.Query(f.ctx, "SELECT h, r FROM ebb.items WHERE tab = $1 AND (h, r) > ($2, $3) ORDER BY tab, h, r LIMIT $4", cur.id, afterH, afterR, fillRows)
	err = rowsOf(found, err, func(r pgx.Rows) error {
		var h, rest []byte
		err := r.Scan(&h, &rest)
		at.add(cur.id, h, rest)
		locks = append(locks, lockOf(cur.id, h, rest))
		return err
	})
	if err != nil || len(locks) == 0 {
		return false, nil, nil, err
	}
	slices.Sort(locks)
	if _, err := f.tx.Exec(f.ctx, "SELECT count(pg_advisory_xact_lock(k)) FROM unnest($1::int8[]) AS k", locks); err != nil {
		return false, nil, nil, err
	}
	var e effects
	found, err = f.tx.Query(f.ctx, getSQL, at.args()...)
	err = rowsOf(found, err, func(r pgx.Rows) error {
		var n int64
		var raw []byte
		if err := r.Scan(&n, &raw); err != nil {
			return err
		}
		it, err := rows.Decode(raw)
		f.enter(&e, cur, &cell{l: cur, h: at.h[n-1], r: at.r[n-1], now: it})
		return err
	})
	if err != nil {
		return false, nil, nil, err
	}
	b := &pgx.Batch{}
	e.queue(b)
	last := len(locks) - 1
	return len(locks) == fillRows, at.h[last], at.r[last], f.tx.SendBatch(f.ctx, b).Close()
}

// enter adds an Item to the sets that are being built, but to no index that has no room for it: DynamoDB leaves such Items out too.
func (f *filling) enter(e *effects, cur *live, x *cell) {
	for i, id := range cur.spec.IDs {
		if cur.spec.Building[id] && fits(&live{spec: spec{Table: store.Table{Indexes: cur.spec.Indexes[i : i+1]}}}, x.now) == nil {
			e.index(cur, i, x)
		}
	}
	if cur.spec.Building[cur.spec.Expiry] {
		e.expire(x)
	}
}
