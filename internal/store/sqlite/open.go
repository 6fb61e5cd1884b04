package sqlite

import (
	"context"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"modernc.org/sqlite"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/seal"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/vfs"
)

// The file says what it is in its header: "PRAGMA application_id" and "PRAGMA user_version".
const (
	application = 0x65626274 // "ebbt"
	format      = 1
)

const schema = `
CREATE TABLE tables(id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, name TEXT NOT NULL, spec BLOB NOT NULL, n INTEGER NOT NULL, bytes INTEGER NOT NULL, UNIQUE(tenant, name));
CREATE TABLE meta(k TEXT PRIMARY KEY, v INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE records(tab INTEGER NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL, op TEXT NOT NULL, expired INTEGER NOT NULL, key BLOB NOT NULL, old BLOB, new BLOB,
  PRIMARY KEY(tab, seq)) WITHOUT ROWID;
CREATE INDEX aged ON records(at);
INSERT INTO meta(k, v) VALUES('id', 0), ('seq', 0);
`

// Options say how a Store is opened. The zero Options are right but for tests.
type Options struct {
	Now      func() time.Time // nil is time.Now
	MaxPages int              // of the file; 0 is no limit. A write beyond is refused as on a full disk.
	Seal     *seal.Box        // what the file is sealed by; nil for none
}

// Store is a store.Tables in one file.
type Store struct {
	path string
	opt  Options
	lock *os.File
	vfs  *vfs.VFS  // nil for a file that is not sealed
	db   *sql.DB   // for reading
	wdb  *sql.DB   // for writing
	w    *sql.Conn // the only connection of wdb, used by the writer

	catalog atomic.Pointer[catalog]
	queue   chan *request
	stop    chan struct{}
	done    chan struct{} // closed when the writer has ended
	once    sync.Once
	leads   sync.Map // name to the chan struct{} that holds a value while somebody leads

	changed struct {
		sync.Mutex
		ch chan struct{}
	}
	gate   sync.Mutex // held while a group is written and answered, and by Hold
	seq    uint64     // of the last Record; the writer's
	nextID int64      // of the last table or index; the writer's
	wstmt  map[string]*sql.Stmt
}

// spec is the stored form of a table.
type spec struct {
	store.Table
	IDs      []int64         `json:"ids,omitempty"`      // of the indexes, in their order
	Building map[string]bool `json:"building,omitempty"` // indexes that do not hold every Item yet
}

// live is a table that stands. It is immutable but for its counts and statements.
type live struct {
	id     int64
	tenant string
	spec   spec
	counts *counts
	stmts  *sync.Map // SQL text to *sql.Stmt of db
}

type counts struct{ items, bytes atomic.Int64 }

type name struct{ tenant, table string }

// catalog is all tables at one moment; immutable.
type catalog struct{ tables map[name]*live }

// Open opens the file at path, or makes it, and starts its writer. Close ends it.
func Open(ctx context.Context, path string, opt Options) (*Store, error) {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	s := &Store{path: path, opt: opt, queue: make(chan *request, 1024), stop: make(chan struct{}), done: make(chan struct{}), wstmt: map[string]*sql.Stmt{}}
	s.changed.ch = make(chan struct{})
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make folder of tables: %w", err)
	}
	err := s.acquire()
	if err == nil {
		err = s.connect(ctx)
	}
	if err == nil {
		err = s.load(ctx)
	}
	if err != nil {
		_ = s.release()
		return nil, fmt.Errorf("open tables %s: %w", path, err)
	}
	go s.write()
	if err := s.rebuild(ctx); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("open tables %s: %w", path, err)
	}
	return s, nil
}

// lockPatience is how long a file may be held by somebody else.
const lockPatience = 3 * time.Second

// acquire keeps other processes out and looks at the file's header before SQLite touches it.
func (s *Store) acquire() error {
	var err error
	if s.lock, err = os.OpenFile(s.path+".lock", os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	err = syscall.Flock(int(s.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	// What a process was about to start when it was killed holds its files for a moment longer.
	for deadline := time.Now().Add(lockPatience); errors.Is(err, syscall.EWOULDBLOCK) && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
		err = syscall.Flock(int(s.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err != nil {
		return errs.New(errs.Conflict, "another process has the file open").WithHint("Stop the other ebb that uses this data directory.")
	}
	head, err := vfs.Head(s.path, s.opt.Seal, 100)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case errors.Is(err, seal.ErrOpen):
		return errs.New(errs.Failed, "the beginning of the file: %w", err).WithHint("Give the key that it was sealed with, or restore this file from a backup.")
	case err != nil:
		return err
	case len(head) == 0:
		return nil // made, and not written to yet
	case len(head) < 100:
		return errs.New(errs.Unsupported, "the file is not a database of tables")
	}
	if string(head[:15]) != "SQLite format 3" || binary.BigEndian.Uint32(head[68:]) != application {
		return errs.New(errs.Unsupported, "the file is not a database of tables").WithHint("Give another data directory, or restore this file from a backup.")
	}
	if v := binary.BigEndian.Uint32(head[60:]); v > format {
		return errs.New(errs.Unsupported, "the file has format %d, and this ebb knows %d", v, format).WithHint("Use the ebb that wrote it, or a newer one.")
	}
	return nil
}

func (s *Store) connect(ctx context.Context) error {
	dsn := func(mode string, pragmas ...string) string {
		q := url.Values{"_pragma": append([]string{"busy_timeout(10000)", "temp_store(MEMORY)"}, pragmas...), "mode": {mode}}
		if s.vfs != nil {
			q.Set("vfs", s.vfs.Name())
		}
		return (&url.URL{Scheme: "file", Path: s.path, RawQuery: q.Encode()}).String()
	}
	if s.opt.Seal != nil {
		var err error
		if s.vfs, err = vfs.New(s.opt.Seal); err != nil {
			return err
		}
	}
	info, err := os.Stat(s.path)
	fresh := err != nil || info.Size() == 0
	writer := []string{"page_size(8192)", "journal_mode(WAL)", "synchronous(FULL)", "cache_size(-24000)", "wal_autocheckpoint(2000)"}
	if s.opt.MaxPages > 0 {
		writer = append(writer, fmt.Sprintf("max_page_count(%d)", s.opt.MaxPages))
	}
	if s.wdb, err = sql.Open("sqlite", dsn("rwc", writer...)); err != nil {
		return err
	}
	s.wdb.SetMaxOpenConns(1)
	if s.w, err = s.wdb.Conn(ctx); err != nil {
		return err
	}
	if fresh {
		// The header goes to the file itself, where the next Open looks first.
		made := fmt.Sprintf("BEGIN IMMEDIATE; PRAGMA application_id=%d; PRAGMA user_version=%d; %s COMMIT; PRAGMA wal_checkpoint(TRUNCATE);", application, format, schema)
		if _, err := s.w.ExecContext(ctx, made); err != nil {
			return err
		}
		if err := os.Chmod(s.path, 0o600); err != nil {
			return err
		}
	}
	if s.db, err = sql.Open("sqlite", dsn("ro", "cache_size(-8000)")); err != nil {
		return err
	}
	n := max(4, runtime.GOMAXPROCS(0))
	s.db.SetMaxOpenConns(n)
	s.db.SetMaxIdleConns(n)
	return nil
}

// load reads the catalog.
func (s *Store) load(ctx context.Context) error {
	var seq int64
	if err := s.w.QueryRowContext(ctx, "SELECT (SELECT v FROM meta WHERE k='seq'), (SELECT v FROM meta WHERE k='id')").Scan(&seq, &s.nextID); err != nil {
		return err
	}
	s.seq = uint64(seq)
	rows, err := s.w.QueryContext(ctx, "SELECT id, tenant, spec, n, bytes FROM tables")
	if err != nil {
		return err
	}
	defer rows.Close()
	c := &catalog{tables: map[name]*live{}}
	for rows.Next() {
		t := newLive()
		var raw []byte
		var n, bytes int64
		if err := rows.Scan(&t.id, &t.tenant, &raw, &n, &bytes); err != nil {
			return err
		}
		if err := json.Unmarshal(raw, &t.spec); err != nil {
			return fmt.Errorf("table %d: %w", t.id, err)
		}
		t.counts.items.Store(n)
		t.counts.bytes.Store(bytes)
		c.tables[name{t.tenant, t.spec.Name}] = t
	}
	s.catalog.Store(c)
	return rows.Err()
}

func newLive() *live { return &live{counts: &counts{}, stmts: &sync.Map{}} }

// Close ends the writer after what it has begun, and closes the file. What waits is refused.
func (s *Store) Close() error {
	var err error
	s.once.Do(func() {
		close(s.stop)
		<-s.done
		err = s.release()
	})
	return err
}

func (s *Store) release() error {
	var all []error
	if s.db != nil {
		all = append(all, s.db.Close())
	}
	for _, st := range s.wstmt { // a connection's own statements keep its files open
		all = append(all, st.Close())
	}
	if s.w != nil {
		all = append(all, s.w.Close())
	}
	if s.wdb != nil {
		all = append(all, s.wdb.Close())
	}
	all = append(all, s.vfs.Close())
	if s.lock != nil {
		// A program that is being started has the file too until it is executed: closing alone would leave it locked.
		_ = syscall.Flock(int(s.lock.Fd()), syscall.LOCK_UN)
		_ = s.lock.Close()
	}
	return errors.Join(all...)
}

// told gives an error of SQLite the code that callers act on.
func told(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code() & 0xff {
	case 13: // SQLITE_FULL
		return errs.New(errs.Unavailable, "the disk with the tables is full: %w", err).WithHint("Free space on the disk of the data directory; what was written before stands.")
	case 10: // SQLITE_IOERR
		return errs.New(errs.Unavailable, "the disk with the tables does not answer: %w", err).WithHint("Look at the disk of the data directory; what was written before stands.")
	}
	return err
}

// Lead calls f while no other call of the same name does: nobody else has the file open.
func (s *Store) Lead(ctx context.Context, name string, f func(context.Context) error) error {
	of, _ := s.leads.LoadOrStore(name, make(chan struct{}, 1))
	turn := of.(chan struct{})
	select {
	case turn <- struct{}{}:
	case <-s.stop:
		return closed()
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-turn }()
	leading, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-s.stop:
			cancel()
		case <-ended:
		}
	}()
	return f(leading)
}

func closed() error { return errs.New(errs.Unavailable, "the tables are closed") }
