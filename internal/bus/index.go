package bus

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"

	"modernc.org/sqlite" // the driver of database/sql, too

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/seal"
	"github.com/ebb-run/ebb/internal/vfs"
)

// indexFormat rises with any change of the tables or of the fold: an index of another format is made again from the log.
const indexFormat = 4

const schema = `
CREATE TABLE meta(k TEXT PRIMARY KEY, v TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE subs(id INTEGER PRIMARY KEY, name TEXT NOT NULL, spec BLOB NOT NULL, live INTEGER NOT NULL);
-- What stood when: for the base that a purge leaves. A spec of NULL is a deletion.
CREATE TABLE versions(seq INTEGER NOT NULL, idx INTEGER NOT NULL, id INTEGER NOT NULL, name TEXT NOT NULL, spec BLOB, PRIMARY KEY(seq, idx)) WITHOUT ROWID;
CREATE TABLE epochs(seq INTEGER PRIMARY KEY, epoch INTEGER NOT NULL);
CREATE TABLE events(h BLOB PRIMARY KEY, seq INTEGER NOT NULL, idx INTEGER NOT NULL, at INTEGER NOT NULL) WITHOUT ROWID;
-- Events of the log that are duplicates: a replay passes over them.
CREATE TABLE dups(seq INTEGER NOT NULL, idx INTEGER NOT NULL, PRIMARY KEY(seq, idx)) WITHOUT ROWID;
CREATE TABLE deliveries(
  seq INTEGER NOT NULL, idx INTEGER NOT NULL, sub INTEGER NOT NULL,
  eseq INTEGER NOT NULL, eidx INTEGER NOT NULL, -- the event
  key TEXT NOT NULL, state INTEGER NOT NULL, at INTEGER NOT NULL, born INTEGER NOT NULL, due INTEGER NOT NULL, updated INTEGER NOT NULL,
  runs INTEGER NOT NULL, attempt INTEGER NOT NULL, redriven INTEGER NOT NULL, replay TEXT NOT NULL, cause TEXT NOT NULL, log TEXT NOT NULL,
  PRIMARY KEY(seq, idx, sub)) WITHOUT ROWID;
CREATE INDEX due ON deliveries(sub, due, seq, idx) WHERE state = 0;
CREATE INDEX lane ON deliveries(sub, key, seq, idx) WHERE state < 2 AND key <> '';
CREATE INDEX open ON deliveries(eseq) WHERE state IN (0, 1, 4);
CREATE INDEX dead ON deliveries(sub, cause) WHERE state = 4;
CREATE TABLE replays(id TEXT PRIMARY KEY, spec BLOB NOT NULL, sub INTEGER NOT NULL, cursor INTEGER NOT NULL, upto INTEGER NOT NULL, live INTEGER NOT NULL, found INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE schedules(tenant TEXT NOT NULL, name TEXT NOT NULL, gseq INTEGER NOT NULL, gidx INTEGER NOT NULL, anchor INTEGER NOT NULL, since INTEGER NOT NULL,
  last INTEGER NOT NULL, fseq INTEGER NOT NULL, fidx INTEGER NOT NULL, spec BLOB NOT NULL, PRIMARY KEY(tenant, name)) WITHOUT ROWID;
-- What each was when, for the base; a spec is in the row of its put.
CREATE TABLE schedule_log(tenant TEXT NOT NULL, name TEXT NOT NULL, gseq INTEGER NOT NULL, gidx INTEGER NOT NULL, anchor INTEGER NOT NULL, since INTEGER NOT NULL,
  last INTEGER NOT NULL, fseq INTEGER NOT NULL, fidx INTEGER NOT NULL, seq INTEGER NOT NULL, idx INTEGER NOT NULL, live INTEGER NOT NULL, spec BLOB,
  PRIMARY KEY(tenant, name, seq, idx)) WITHOUT ROWID;
`

// index is the fold of one Partition's log. Its writer is used by one goroutine; the reader by any.
type index struct {
	vfs   *vfs.VFS  // nil for a file that is not sealed
	db    *sql.DB   // for reading
	wdb   *sql.DB   // for writing
	w     *sql.Conn // the only connection of wdb
	stmts map[string]*sql.Stmt
	// applied is the last block that the tables hold; epoch the newest lease among them.
	applied, epoch uint64
}

// openIndex opens the index in a file. One that belongs to another log, is of another format, is ahead of the log or cannot be read is
// removed and made anew, empty.
func openIndex(ctx context.Context, path string, box *seal.Box, logID string, first, last uint64, base *base) (*index, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make folder of the event index: %w", err)
	}
	x, err := tryIndex(ctx, path, box, logID, first, last)
	if err == nil {
		return x, nil
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("open event index: %w", ctx.Err())
	}
	if first > 1 && last >= first && (base == nil || base.Seq < first) {
		return nil, errs.New(errs.Unavailable, "the event log begins at block %d, and what stood before it is not known", first).
			WithHint("A replica of the store may be behind: it is tried again. If it stays so, somebody else has purged the stream.")
	}
	if err := removeIndex(path); err != nil {
		return nil, err
	}
	if x, err = connect(ctx, path, box); err != nil {
		return nil, fmt.Errorf("make event index %s: %w", path, err)
	}
	if err := x.create(ctx, logID, first, base); err != nil {
		_ = x.close()
		return nil, fmt.Errorf("make event index %s: %w", path, err)
	}
	return x, nil
}

func removeIndex(path string) error {
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove unusable event index: %w", err)
		}
	}
	return nil
}

// damaged tells whether an error means that the file is no sound database: SQLITE_CORRUPT, SQLITE_NOTADB.
func damaged(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && (e.Code()&0xff == 11 || e.Code()&0xff == 26)
}

var errUnusable = errors.New("the index does not belong to the log")

func tryIndex(ctx context.Context, path string, box *seal.Box, logID string, first, last uint64) (*index, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	x, err := connect(ctx, path, box)
	if err != nil {
		return nil, err
	}
	meta, err := x.meta(ctx)
	if err == nil {
		x.applied, _ = strconv.ParseUint(meta["applied"], 10, 64)
		x.epoch, _ = strconv.ParseUint(meta["epoch"], 10, 64)
		// What is between the index and the head of the log must not be missing.
		if meta["format"] != strconv.Itoa(indexFormat) || meta["log"] != logID || x.applied > last || x.applied+1 < first {
			err = errUnusable
		}
	}
	if err != nil {
		_ = x.close()
		return nil, err
	}
	return x, nil
}

// connect opens the file. The write-ahead log without syncs keeps every transaction whole in a crash of ebb, and some earlier state whole in a
// loss of power; either is folded on from.
func connect(ctx context.Context, path string, box *seal.Box) (*index, error) {
	x := &index{stmts: map[string]*sql.Stmt{}}
	var err error
	if box != nil {
		if x.vfs, err = vfs.New(box); err != nil {
			return nil, err
		}
	}
	dsn := func(mode string) string {
		q := url.Values{"_pragma": {"busy_timeout(10000)", "temp_store(MEMORY)", "journal_mode(WAL)", "synchronous(NORMAL)", "cache_size(-16000)", "wal_autocheckpoint(4000)"}, "mode": {mode}}
		if x.vfs != nil {
			q.Set("vfs", x.vfs.Name())
		}
		return (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String()
	}
	if x.wdb, err = sql.Open("sqlite", dsn("rwc")); err != nil {
		return nil, errors.Join(err, x.vfs.Close())
	}
	x.wdb.SetMaxOpenConns(1)
	if x.w, err = x.wdb.Conn(ctx); err != nil {
		return nil, errors.Join(err, x.wdb.Close(), x.vfs.Close())
	}
	if x.db, err = sql.Open("sqlite", dsn("ro")); err != nil {
		_ = x.close()
		return nil, err
	}
	x.db.SetMaxOpenConns(2)
	return x, nil
}

func (x *index) create(ctx context.Context, logID string, first uint64, b *base) error {
	x.applied = max(first, 1) - 1
	if err := x.begin(ctx); err != nil {
		return err
	}
	if _, err := x.w.ExecContext(ctx, schema+countSchema+queueSchema+streamSchema+traceSchema+flowSchema+topicSchema+dataSchema); err != nil {
		return err
	}
	for k, v := range map[string]string{"format": strconv.Itoa(indexFormat), "log": logID, "epoch": "0"} {
		if err := x.exec(ctx, "INSERT INTO meta(k, v) VALUES(?, ?)", k, v); err != nil {
			return err
		}
	}
	if b != nil {
		x.applied = max(x.applied, b.Seq-1)
		x.epoch = b.Epoch
		if err := x.exec(ctx, "INSERT INTO epochs(seq, epoch) VALUES(?, ?)", int64(b.Seq)-1, int64(b.Epoch)); err != nil {
			return err
		}
		for i, s := range b.Subs {
			if err := x.exec(ctx, "INSERT INTO versions(seq, idx, id, name, spec) VALUES(?, ?, ?, ?, ?)", int64(b.Seq)-1, i, s.ID, s.Name, []byte(s.Spec)); err != nil {
				return err
			}
			if err := x.exec(ctx, "INSERT INTO subs(id, name, spec, live) VALUES(?, ?, ?, 1)", s.ID, s.Name, []byte(s.Spec)); err != nil {
				return err
			}
		}
		if err := x.setSchedules(ctx, b.Seq, b.schedules); err != nil {
			return err
		}
		if err := errors.Join(x.putDrops(ctx, b.drops), x.putBase(ctx, b), x.setStreams(ctx, b), x.setTopics(ctx, b)); err != nil {
			return err
		}
	}
	return x.commit(ctx)
}

func (x *index) meta(ctx context.Context) (map[string]string, error) {
	rows, err := x.w.QueryContext(ctx, "SELECT k, v FROM meta")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[string]string{}
	for rows.Next() {
		var k, v string
		if err := rows.Scan(&k, &v); err != nil {
			return nil, err
		}
		out[k] = v
	}
	return out, rows.Err()
}

func (x *index) close() error {
	var err error
	for _, s := range x.stmts {
		err = errors.Join(err, s.Close())
	}
	if x.w != nil {
		err = errors.Join(err, x.w.Close())
	}
	err = errors.Join(err, x.wdb.Close())
	if x.db != nil {
		err = errors.Join(err, x.db.Close())
	}
	return errors.Join(err, x.vfs.Close())
}

// begin, commit and rollback bound a transaction of the writer.
func (x *index) begin(ctx context.Context) error {
	_, err := x.w.ExecContext(ctx, "BEGIN IMMEDIATE")
	return err
}

func (x *index) commit(ctx context.Context) error {
	for k, v := range map[string]uint64{"applied": x.applied, "epoch": x.epoch} {
		if err := x.exec(ctx, "INSERT OR REPLACE INTO meta(k, v) VALUES(?, ?)", k, strconv.FormatUint(v, 10)); err != nil {
			return err
		}
	}
	_, err := x.w.ExecContext(ctx, "COMMIT")
	return err
}

// stmt prepares a statement of the writer once.
func (x *index) stmt(ctx context.Context, q string) (*sql.Stmt, error) {
	if s, ok := x.stmts[q]; ok {
		return s, nil
	}
	s, err := x.w.PrepareContext(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("%w in %q", err, q)
	}
	x.stmts[q] = s
	return s, nil
}

func (x *index) exec(ctx context.Context, q string, args ...any) error {
	_, err := x.changed(ctx, q, args...)
	return err
}

// changed executes and tells how many rows changed.
func (x *index) changed(ctx context.Context, q string, args ...any) (int64, error) {
	s, err := x.stmt(ctx, q)
	if err != nil {
		return 0, err
	}
	r, err := s.ExecContext(ctx, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

func (x *index) query(ctx context.Context, q string, args ...any) (*sql.Rows, error) {
	s, err := x.stmt(ctx, q)
	if err != nil {
		return nil, err
	}
	return s.QueryContext(ctx, args...)
}

// one reads one row; found is false where there is none.
func (x *index) one(ctx context.Context, dest []any, q string, args ...any) (found bool, err error) {
	s, err := x.stmt(ctx, q)
	if err != nil {
		return false, err
	}
	err = s.QueryRowContext(ctx, args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// base is what was purged from the head of a log: the Subscriptions, Schedules, queues, streams and topics that stood at Seq, the first block that is left,
// and which items from there on are duplicates of some before.
type base struct {
	Seq    uint64      `json:"seq"`
	Epoch  uint64      `json:"epoch"`
	Subs   []baseSub   `json:"subs"`
	Queues []baseQueue `json:"queues,omitempty"`
	Topics []baseTopic `json:"topics,omitempty"`
	Parts  int         `json:"parts,omitempty"` // keys that hold the Schedules
	Drops  int         `json:"drops,omitempty"` // keys that hold the duplicates

	Streams int `json:"streams,omitempty"` // keys that hold one each

	schedules []baseSchedule
	streams   []baseStream
	drops     []baseDrop
}

type baseSub struct {
	ID   int64  `json:"id"`
	Name string `json:"name"`
	Spec []byte `json:"spec"`
}

// indexError says what failed; a disk that is full is the usual cause.
func indexError(err error) error {
	return errs.New(errs.Unavailable, "event index: %w", err).WithHint("The disk may be full. The index is made again from the log when it is deleted.")
}
