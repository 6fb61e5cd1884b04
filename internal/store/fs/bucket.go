package fs

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ebb-run/ebb/internal/store"
)

// bucketRow is what writers need of a bucket.
type bucketRow struct {
	id         int64
	versioning store.Versioning
	notify     bool
}

func (t *tx) bucket(id store.BucketID) (bucketRow, error) {
	var b bucketRow
	err := t.row("SELECT id, versioning, notify FROM buckets WHERE tenant = ? AND name = ?", []any{id.Tenant, id.Name}, &b.id, &b.versioning, &b.notify)
	if errors.Is(err, sql.ErrNoRows) {
		err = store.ErrNoBucket
	}
	return b, err
}

// bucketID finds a bucket for readers.
func (s *Store) bucketID(ctx context.Context, id store.BucketID) (n int64, err error) {
	err = s.db.QueryRowContext(ctx, "SELECT id FROM buckets WHERE tenant = ? AND name = ?", id.Tenant, id.Name).Scan(&n)
	if errors.Is(err, sql.ErrNoRows) {
		err = store.ErrNoBucket
	}
	return n, err
}

// CreateBucket implements [store.Objects].
func (s *Store) CreateBucket(ctx context.Context, id store.BucketID, b store.Bucket) error {
	doc, err := json.Marshal(b)
	if err != nil {
		return fmt.Errorf("create bucket: %w", err)
	}
	return step("create bucket", s.write(ctx, func(t *tx) error {
		n, err := t.count("INSERT OR IGNORE INTO buckets(tenant, name, created, versioning, notify, doc) VALUES(?, ?, ?, ?, ?, ?)",
			id.Tenant, id.Name, s.opts.Now().UnixMilli(), string(b.Versioning), b.Notify, doc)
		if err == nil && n == 0 {
			err = store.ErrBucketExists
		}
		return err
	}))
}

const bucketColumns = "name, created, versioning, notify, doc"

func scanBucket(row interface{ Scan(...any) error }) (store.Bucket, error) {
	var b store.Bucket
	var created int64
	var doc []byte
	if err := row.Scan(&b.Name, &created, &b.Versioning, &b.Notify, &doc); err != nil {
		return b, err
	}
	b.Created = time.UnixMilli(created).UTC()
	return b, json.Unmarshal(doc, &b)
}

// Bucket implements [store.Objects].
func (s *Store) Bucket(ctx context.Context, id store.BucketID) (store.Bucket, error) {
	b, err := scanBucket(s.db.QueryRowContext(ctx, "SELECT "+bucketColumns+" FROM buckets WHERE tenant = ? AND name = ?", id.Tenant, id.Name))
	if errors.Is(err, sql.ErrNoRows) {
		err = store.ErrNoBucket
	}
	return b, step("read bucket", err)
}

// SetBucket implements [store.Objects].
func (s *Store) SetBucket(ctx context.Context, id store.BucketID, change func(*store.Bucket) error) error {
	return step("change bucket", s.write(ctx, func(t *tx) error {
		st, err := t.stmt(t.ctx, "SELECT "+bucketColumns+" FROM buckets WHERE tenant = ? AND name = ?")
		if err != nil {
			return err
		}
		b, err := scanBucket(st.QueryRowContext(t.ctx, id.Tenant, id.Name))
		if errors.Is(err, sql.ErrNoRows) {
			err = store.ErrNoBucket
		}
		if err != nil {
			return err
		}
		if err := change(&b); err != nil {
			return err
		}
		doc, err := json.Marshal(b)
		if err != nil {
			return err
		}
		return t.exec("UPDATE buckets SET versioning = ?, notify = ?, doc = ? WHERE tenant = ? AND name = ?", string(b.Versioning), b.Notify, doc, id.Tenant, id.Name)
	}))
}

// DeleteBucket implements [store.Objects].
func (s *Store) DeleteBucket(ctx context.Context, id store.BucketID) error {
	return step("delete bucket", s.write(ctx, func(t *tx) error {
		b, err := t.bucket(id)
		if err != nil {
			return err
		}
		var used bool
		if err := t.row("SELECT EXISTS(SELECT 1 FROM versions WHERE bucket = ?)", []any{b.id}, &used); err != nil {
			return err
		}
		if used {
			return store.ErrBucketNotEmpty
		}
		if err := t.dropUploads(b.id); err != nil {
			return err
		}
		return t.exec("DELETE FROM buckets WHERE id = ?", b.id)
	}))
}

// Buckets implements [store.Objects].
func (s *Store) Buckets(ctx context.Context, tenant string) ([]store.Bucket, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT "+bucketColumns+" FROM buckets WHERE tenant = ? ORDER BY name", tenant)
	if err != nil {
		return nil, fmt.Errorf("list buckets: %w", err)
	}
	defer rows.Close()
	var out []store.Bucket
	for rows.Next() {
		b, err := scanBucket(rows)
		if err != nil {
			return nil, fmt.Errorf("list buckets: %w", err)
		}
		out = append(out, b)
	}
	return out, rows.Err()
}
