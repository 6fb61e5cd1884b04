// Package snapshot sees a SQLite database as it was at one moment, while others go on writing to it.
//
// Main type: [Snapshot], made by [Open].
//
// Guarantees:
//
//  1. What Query and Copy give is what was committed when Open returned, however long they take.
//  2. A writer is not held up. What it writes stays in the write-ahead log until Close.
//
// It is for databases with a write-ahead log (PRAGMA journal_mode=WAL), and knows nothing of what is in them.
package snapshot

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"sync"

	"modernc.org/sqlite"
)

// pages is how many are copied between two looks at whether the caller still wants them.
const pages = 512

// Snapshot is a database at one moment. It is used by one goroutine at a time.
type Snapshot struct {
	path string
	db   *sql.DB
	conn *sql.Conn
	once sync.Once
	shut error
}

// Open begins to see the database at path, by the VFS with that name: empty for SQLite's own.
func Open(ctx context.Context, path, vfs string) (*Snapshot, error) {
	q := url.Values{"_pragma": {"busy_timeout(10000)", "cache_size(-4000)"}, "mode": {"ro"}}
	if vfs != "" {
		q.Set("vfs", vfs)
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("see %s as it is: %w", path, err)
	}
	s := &Snapshot{path: path, db: db}
	if s.conn, err = db.Conn(ctx); err == nil {
		if _, err = s.conn.ExecContext(ctx, "BEGIN"); err == nil {
			// The first read is what settles the moment.
			var n int
			err = s.conn.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_master").Scan(&n)
		}
	}
	if err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("see %s as it is: %w", path, err)
	}
	return s, nil
}

// Query reads from it; the caller closes the rows.
func (s *Snapshot) Query(ctx context.Context, q string, args ...any) (*sql.Rows, error) {
	return s.conn.QueryContext(ctx, q, args...)
}

// Copy writes the database to a new file at path, which is not synced. On an error no file is left.
func (s *Snapshot) Copy(ctx context.Context, path string) error {
	err := s.conn.Raw(func(driver any) error {
		c, ok := driver.(interface {
			NewBackup(string) (*sqlite.Backup, error)
		})
		if !ok {
			return errors.New("the driver has no backups")
		}
		// The file is a copy and nothing else: one that is not finished is thrown away, so it needs no journal.
		q := url.Values{"_pragma": {"journal_mode(OFF)", "synchronous(OFF)"}}
		b, err := c.NewBackup((&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String())
		if err != nil {
			return err
		}
		for more := true; more && err == nil; {
			if err = ctx.Err(); err == nil {
				more, err = b.Step(pages)
			}
		}
		return errors.Join(err, b.Finish())
	})
	if err != nil {
		return fmt.Errorf("copy %s: %w", s.path, errors.Join(err, remove(path)))
	}
	return os.Chmod(path, 0o600)
}

func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Close ends it.
func (s *Snapshot) Close() error {
	s.once.Do(func() {
		if s.conn != nil {
			s.shut = s.conn.Close()
		}
		s.shut = errors.Join(s.shut, s.db.Close())
	})
	return s.shut
}
