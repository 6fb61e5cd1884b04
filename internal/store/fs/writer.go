package fs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"

	"github.com/ebb-run/ebb/internal/errs"
)

// most is how many writes share a transaction.
const most = 256

var errClosed error = unsure{errs.New(errs.Unavailable, "the store is closed")}

// unsure is the error of a write that may have been done or not.
type unsure struct{ error }

func (u unsure) Unwrap() error { return u.error }

// writer does all writes to the database, those that wait in one transaction.
type writer struct {
	db    *sql.DB
	conn  *sql.Conn // the only one of db
	stmts map[string]*sql.Stmt
	jobs  chan *job
	seq   int64      // the newest that a version or a change has had; used by the goroutine alone
	gate  sync.Mutex // held while a transaction is written and answered, and by Hold
}

// job is one write. Its function may be called again when the transaction it was in did not hold.
type job struct {
	ctx  context.Context
	do   func(*tx) error
	done chan error
}

// tx is what a job writes by. It is used by the writer's goroutine alone.
type tx struct {
	*writer
	ctx     context.Context
	trashed bool // files are to be removed
	changed bool // a change was kept
}

func openWriter(ctx context.Context, dsn string) (*writer, error) {
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	w := &writer{db: db, stmts: map[string]*sql.Stmt{}, jobs: make(chan *job, most)}
	if w.conn, err = db.Conn(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if err := w.prepare(ctx); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

// prepare makes the tables, or refuses those of another format.
func (w *writer) prepare(ctx context.Context) error {
	var tables int
	if err := w.conn.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_master").Scan(&tables); err != nil {
		return err
	}
	if tables == 0 {
		_, err := w.conn.ExecContext(ctx, "BEGIN IMMEDIATE;"+schema+fmt.Sprintf("INSERT INTO meta VALUES('format', %d), ('low', 1), ('limit', 1), ('seq', 0); COMMIT", format))
		return err
	}
	var found int
	if err := w.conn.QueryRowContext(ctx, "SELECT v FROM meta WHERE k = 'format'").Scan(&found); err != nil {
		return err
	}
	if found != format {
		return errs.New(errs.Unsupported, "the objects are stored in format %d, this ebb reads %d", found, format).
			WithHint("Use the ebb that wrote them, or another data directory with --data DIR. Nothing was changed.")
	}
	return w.conn.QueryRowContext(ctx, "SELECT v FROM meta WHERE k = 'seq'").Scan(&w.seq)
}

func (w *writer) close() error {
	var err error
	for _, s := range w.stmts {
		err = errors.Join(err, s.Close())
	}
	if w.conn != nil {
		err = errors.Join(err, w.conn.Close())
	}
	return errors.Join(err, w.db.Close())
}

// run writes until ctx ends, and then refuses what waits.
func (w *writer) run(ctx context.Context) {
	for {
		select {
		case j := <-w.jobs:
			batch := []*job{j}
			for len(batch) < most {
				select {
				case j := <-w.jobs:
					batch = append(batch, j)
					continue
				default:
				}
				break
			}
			w.commit(batch)
		case <-ctx.Done():
			for {
				select {
				case j := <-w.jobs:
					j.done <- errClosed
				default:
					return
				}
			}
		}
	}
}

// commit does jobs in one transaction. Each is in a savepoint: one that fails takes back what it did and no more.
func (w *writer) commit(batch []*job) {
	w.gate.Lock()
	defer w.gate.Unlock()
	ctx := context.Background() // a caller that goes away must not break the transaction of the others
	out, before := make([]error, len(batch)), w.seq
	err := w.exec(ctx, "BEGIN IMMEDIATE")
	if err == nil {
		for i, j := range batch {
			if out[i] = j.ctx.Err(); out[i] != nil {
				continue
			}
			if err = w.exec(ctx, "SAVEPOINT job"); err != nil {
				break
			}
			seq := w.seq
			if out[i] = j.do(&tx{writer: w, ctx: ctx}); out[i] != nil {
				w.seq = seq
				if err = w.exec(ctx, "ROLLBACK TO job"); err != nil {
					break
				}
			}
			if err = w.exec(ctx, "RELEASE job"); err != nil {
				break
			}
		}
		if err == nil && w.seq != before {
			err = w.exec(ctx, "UPDATE meta SET v = ? WHERE k = 'seq'", w.seq)
		}
		if err == nil {
			err = w.exec(ctx, "COMMIT")
		}
		if err != nil {
			_ = w.exec(ctx, "ROLLBACK") // refused where SQLite has rolled back by itself
		}
	}
	for i, j := range batch {
		if err != nil && out[i] == nil {
			out[i] = unsure{fmt.Errorf("commit: %w", err)}
		}
		j.done <- out[i]
	}
}

func (w *writer) stmt(ctx context.Context, q string) (*sql.Stmt, error) {
	if s, ok := w.stmts[q]; ok {
		return s, nil
	}
	s, err := w.conn.PrepareContext(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("%w in %q", err, q)
	}
	w.stmts[q] = s
	return s, nil
}

func (w *writer) exec(ctx context.Context, q string, args ...any) error {
	s, err := w.stmt(ctx, q)
	if err != nil {
		return err
	}
	_, err = s.ExecContext(ctx, args...)
	return err
}

func (t *tx) exec(q string, args ...any) error { return t.writer.exec(t.ctx, q, args...) }

// count executes and tells how many rows changed.
func (t *tx) count(q string, args ...any) (int64, error) {
	s, err := t.stmt(t.ctx, q)
	if err != nil {
		return 0, err
	}
	r, err := s.ExecContext(t.ctx, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// row reads one row; sql.ErrNoRows when there is none.
func (t *tx) row(q string, args []any, into ...any) error {
	s, err := t.stmt(t.ctx, q)
	if err != nil {
		return err
	}
	return s.QueryRowContext(t.ctx, args...).Scan(into...)
}

// query gives rows; the caller closes them before it writes.
func (t *tx) query(q string, args ...any) (*sql.Rows, error) {
	s, err := t.stmt(t.ctx, q)
	if err != nil {
		return nil, err
	}
	return s.QueryContext(t.ctx, args...)
}

// write does a job and waits for it. When ctx ends first, whether it was done is not known.
func (s *Store) write(ctx context.Context, do func(*tx) error) error {
	var trashed, changed bool
	j := &job{ctx: ctx, done: make(chan error, 1), do: func(t *tx) error {
		err := do(t)
		trashed, changed = t.trashed, t.changed
		return err
	}}
	select {
	case s.w.jobs <- j:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.done.Done():
		return errClosed
	}
	// Not given up when ctx ends: what follows a write depends on whether it was done, and it is done soon.
	var err error
	select {
	case err = <-j.done:
	case <-s.done.Done():
		select {
		case err = <-j.done:
		default:
			return errClosed
		}
	}
	if err != nil {
		return err
	}
	if trashed {
		s.wake()
	}
	if changed {
		s.mu.Lock()
		close(s.mu.changed)
		s.mu.changed = make(chan struct{})
		s.mu.Unlock()
	}
	return nil
}
