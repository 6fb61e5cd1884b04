package fs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"modernc.org/sqlite" // the driver of database/sql, too

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/seal"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/vfs"
)

// format is the version of the database and of the files. It rises with any change of either.
const format = 1

const schema = `
CREATE TABLE meta(k TEXT PRIMARY KEY, v INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE buckets(id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, name TEXT NOT NULL, created INTEGER NOT NULL,
  versioning TEXT NOT NULL, notify INTEGER NOT NULL, doc BLOB NOT NULL, UNIQUE(tenant, name));
-- A version has seq below zero, so that the newest of a key comes first.
CREATE TABLE versions(bucket INTEGER NOT NULL, key BLOB NOT NULL, seq INTEGER NOT NULL, version TEXT NOT NULL, latest INTEGER NOT NULL, marker INTEGER NOT NULL,
  size INTEGER NOT NULL, etag TEXT NOT NULL, modified INTEGER NOT NULL, info BLOB NOT NULL, pieces BLOB NOT NULL, PRIMARY KEY(bucket, key, seq)) WITHOUT ROWID;
CREATE INDEX live ON versions(bucket, key) WHERE latest = 1 AND marker = 0;
CREATE TABLE uploads(bucket INTEGER NOT NULL, key BLOB NOT NULL, id TEXT NOT NULL, created INTEGER NOT NULL, info BLOB NOT NULL, PRIMARY KEY(bucket, key, id)) WITHOUT ROWID;
CREATE TABLE parts(upload TEXT NOT NULL, number INTEGER NOT NULL, info BLOB NOT NULL, pieces BLOB NOT NULL, PRIMARY KEY(upload, number)) WITHOUT ROWID;
-- A blob without data is a file.
CREATE TABLE blobs(id INTEGER PRIMARY KEY, refs INTEGER NOT NULL, data BLOB);
-- Files that are to be removed.
CREATE TABLE trash(id INTEGER PRIMARY KEY);
CREATE TABLE changes(seq INTEGER PRIMARY KEY, tenant TEXT NOT NULL, bucket TEXT NOT NULL, doc BLOB NOT NULL);
`

// Options are what a [Store] may be told.
type Options struct {
	Logger *slog.Logger     // nil for none
	Now    func() time.Time // nil for the clock
	Seal   *seal.Box        // what files and the database are sealed by; nil for none
	// Passing, in tests, is told of the steps on the way of what is written.
	Passing func(step string)
}

// Store keeps objects in a folder. It implements [store.Objects].
type Store struct {
	dir    string
	opts   Options
	vfs    *vfs.VFS // nil for a database that is not sealed
	frames frames
	db     *sql.DB  // for reading
	stmts  sync.Map // by their text, of db
	w      *writer
	wg     sync.WaitGroup
	stop   context.CancelFunc
	done   context.Context // ends when the Store closes
	free   sync.Pool       // of frame buffers
	once   sync.Once
	shut   error

	// gate is held for reading from the look into the database until the files found there are pinned, and by the remover of files while it asks
	// for pins: a file that a reader has found cannot go before it is opened.
	gate sync.RWMutex
	mu   struct {
		sync.Mutex
		pins    map[int64]int
		doomed  map[int64]struct{} // in the trash, and pinned when that was seen
		kept    int                // who needs all files, those in the trash too
		next    int64              // the number of the next blob
		limit   int64              // numbers below it are reserved
		pending map[int64]struct{} // taken, and neither committed nor gone
		changed chan struct{}      // closed and replaced when a change was kept
	}
	sweep chan struct{} // there is trash
}

// Open opens the folder, makes it when it is not there, and removes what a crash left behind.
func Open(ctx context.Context, dir string, o Options) (*Store, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Passing == nil {
		o.Passing = func(string) {}
	}
	if err := os.MkdirAll(filepath.Join(dir, "data"), 0o700); err != nil {
		return nil, fmt.Errorf("make folder of objects: %w", err)
	}
	s := &Store{dir: dir, opts: o, frames: frames{o.Seal}, sweep: make(chan struct{}, 1)}
	s.mu.pins, s.mu.doomed, s.mu.pending, s.mu.changed = map[int64]int{}, map[int64]struct{}{}, map[int64]struct{}{}, make(chan struct{})
	s.free.New = func() any { return new([frame]byte) }
	if o.Seal != nil {
		var err error
		if s.vfs, err = vfs.New(o.Seal); err != nil {
			return nil, fmt.Errorf("open objects: %w", err)
		}
	}
	w, err := openWriter(ctx, s.dsn("rwc", "FULL"))
	if err != nil {
		return nil, fmt.Errorf("open objects: %w", errors.Join(err, s.vfs.Close()))
	}
	s.w = w
	if err := s.begin(ctx); err != nil {
		return nil, errors.Join(err, w.close(), s.vfs.Close())
	}
	return s, nil
}

func (s *Store) begin(ctx context.Context) error {
	var err error
	if s.db, err = sql.Open("sqlite", s.dsn("ro", "NORMAL")); err != nil {
		return fmt.Errorf("open objects: %w", err)
	}
	s.db.SetMaxOpenConns(8)
	s.db.SetMaxIdleConns(8)
	if err := s.recover(ctx); err != nil {
		return errors.Join(err, s.db.Close())
	}
	if err := errors.Join(syncFolder(filepath.Join(s.dir, "data")), syncFolder(s.dir)); err != nil {
		return errors.Join(err, s.db.Close())
	}
	s.done, s.stop = context.WithCancel(context.Background())
	s.wg.Go(func() { s.w.run(s.done) })
	s.wg.Go(s.remove)
	return nil
}

// Close ends the Store. What is being written ends with an error.
func (s *Store) Close() error {
	s.once.Do(func() {
		s.stop()
		s.wg.Wait()
		s.shut = errors.Join(s.db.Close(), s.w.close(), s.vfs.Close())
	})
	return s.shut
}

func (s *Store) dsn(mode, sync string) string {
	q := url.Values{"_pragma": {"busy_timeout(10000)", "temp_store(MEMORY)", "journal_mode(WAL)", "synchronous(" + sync + ")", "cache_size(-8000)", "wal_autocheckpoint(2000)"}, "mode": {mode}}
	if s.vfs != nil {
		q.Set("vfs", s.vfs.Name())
	}
	return (&url.URL{Scheme: "file", Path: filepath.Join(s.dir, Database), RawQuery: q.Encode()}).String()
}

// full makes of an error that the disk is full one that says so.
func full(err error) error {
	var e *sqlite.Error
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.As(err, &e) && e.Code()&0xff == 13 {
		return fmt.Errorf("%w: %w", store.ErrDiskFull, err)
	}
	return err
}

// step wraps an error of the store's own with what it was doing; one that has a Code is the caller's and stays.
func step(doing string, err error) error {
	if err == nil {
		return nil
	}
	var e *errs.Error
	if err = full(err); errors.As(err, &e) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%s: %w", doing, err)
}

func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	return nil
}

var _ store.Objects = (*Store)(nil)
