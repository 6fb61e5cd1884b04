package fs

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/ebb-run/ebb/internal/store"
)

// note keeps a change of a bucket whose changes are wanted.
func (t *tx) note(b bucketRow, key store.ObjectKey, e store.ObjectEvent, o store.ObjectInfo, at time.Time) error {
	if !b.notify || e.Name == "" {
		return nil
	}
	t.seq++
	doc, err := json.Marshal(store.ObjectChange{Event: e, Key: key.Key, Version: o.Version, Size: o.Size, ETag: o.ETag, Time: at})
	if err != nil {
		return err
	}
	t.changed = true
	return t.exec("INSERT INTO changes(seq, tenant, bucket, doc) VALUES(?, ?, ?, ?)", t.seq, key.Bucket.Tenant, key.Bucket.Name, doc)
}

// Changes implements [store.Objects].
func (s *Store) Changes(ctx context.Context, limit int) ([]store.ObjectChange, error) {
	for {
		s.mu.Lock()
		changed := s.mu.changed
		s.mu.Unlock()
		out, err := s.changes(ctx, limit)
		if err != nil {
			return nil, step("read changes", err)
		}
		if len(out) > 0 {
			return out, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.done.Done():
			return nil, errClosed
		}
	}
}

func (s *Store) changes(ctx context.Context, limit int) ([]store.ObjectChange, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT seq, tenant, bucket, doc FROM changes ORDER BY seq LIMIT ?", limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []store.ObjectChange
	for rows.Next() {
		var seq int64
		var id store.BucketID
		var doc []byte
		if err := rows.Scan(&seq, &id.Tenant, &id.Name, &doc); err != nil {
			return nil, err
		}
		var c store.ObjectChange
		if err := json.Unmarshal(doc, &c); err != nil {
			return nil, fmt.Errorf("change %d: %w", seq, err)
		}
		c.Seq, c.Bucket = uint64(seq), id
		out = append(out, c)
	}
	return out, rows.Err()
}

// ForgetChanges implements [store.Objects].
func (s *Store) ForgetChanges(ctx context.Context, upto uint64) error {
	return step("forget changes", s.write(ctx, func(t *tx) error { return t.exec("DELETE FROM changes WHERE seq <= ?", int64(upto)) }))
}
