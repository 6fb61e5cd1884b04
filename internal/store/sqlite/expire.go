package sqlite

import (
	"context"
	"time"

	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/store/rows"
)

// expireRows is how many are removed in one transaction.
const expireRows = 500

// Expire removes Items whose time had come, and old Records.
func (s *Store) Expire(ctx context.Context, now time.Time) (more bool, err error) {
	for _, l := range s.catalog.Load().tables {
		if l.spec.TTL == "" {
			continue
		}
		m, err := s.expire(ctx, l, now)
		if err != nil {
			return more, err
		}
		more = more || m
	}
	old := now.Add(-rows.KeepRecords).UnixMilli()
	var n int
	if err := s.db.QueryRowContext(ctx, "SELECT count(*) FROM (SELECT 1 FROM records INDEXED BY aged WHERE at < ? LIMIT ?)", old, expireRows).Scan(&n); err != nil || n == 0 {
		return more, told(err)
	}
	return more || n == expireRows, s.submit(ctx, func(t *tx) (error, error) {
		return nil, t.exec("DELETE FROM records WHERE (tab, seq) IN (SELECT tab, seq FROM records INDEXED BY aged WHERE at < ? LIMIT ?)", old, expireRows)
	})
}

// expire removes what is due in one table. Between the look and the Write an Item may have got another time: it is asked again.
func (s *Store) expire(ctx context.Context, l *live, now time.Time) (more bool, err error) {
	found, err := s.db.QueryContext(ctx, "SELECT t.v FROM "+expiryName(l.id)+" AS e JOIN "+tableName(l.id)+" AS t ON t.h = e.h AND t.r = e.r WHERE e.at <= ? AND e.at > ? ORDER BY e.at LIMIT ?",
		now.Unix(), now.Add(-rows.TooOld).Unix(), expireRows)
	if err != nil {
		if lost(err) {
			return false, nil // deleted meanwhile
		}
		return false, told(err)
	}
	defer found.Close()
	var changes []store.Change
	for found.Next() {
		var raw []byte
		if err := found.Scan(&raw); err != nil {
			return false, told(err)
		}
		it, err := rows.Decode(raw)
		if err != nil {
			return false, err
		}
		changes = append(changes, store.Change{Table: l.spec.Name, Key: it, Apply: func(old store.Item) (store.Item, error) {
			if at, ok := rows.Due(&l.spec.Table, old); ok && at <= now.Unix() {
				return nil, nil
			}
			return old, nil
		}})
	}
	if err := found.Err(); err != nil || len(changes) == 0 {
		return false, told(err)
	}
	err = s.submit(ctx, func(t *tx) (error, error) { return t.write(l.tenant, changes, true) })
	return len(changes) == expireRows, err
}
