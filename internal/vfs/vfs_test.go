package vfs_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"modernc.org/sqlite"

	"github.com/ebb-run/ebb/internal/seal"
	"github.com/ebb-run/ebb/internal/vfs"
)

// database opens one connection to a database; sealed by v unless that is nil.
func database(t *testing.T, path string, v *vfs.VFS, pragmas ...string) *sql.DB {
	t.Helper()
	q := url.Values{"_pragma": append(pragmas, "temp_store(MEMORY)", "journal_mode(WAL)", "busy_timeout(10000)")}
	if v != nil {
		q.Set("vfs", v.Name())
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String())
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func sealed(t *testing.T, s *seal.Sealer) *vfs.VFS {
	t.Helper()
	v, err := vfs.New(s.Box("test"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return v
}

func exec(t *testing.T, db *sql.DB, q string, args ...any) {
	t.Helper()
	if _, err := db.Exec(q, args...); err != nil {
		t.Fatalf("%s: %v", q, err)
	}
}

// digest is one of all rows.
func digest(t *testing.T, db *sql.DB) string {
	t.Helper()
	rows, err := db.Query("SELECT k, v FROM t ORDER BY k")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	h := sha256.New()
	for rows.Next() {
		var k int64
		var v []byte
		if err := rows.Scan(&k, &v); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(h, "%d %x\n", k, v)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// The same random writes, removals, checkpoints, vacuums and reopenings leave the same rows as without a seal, with every size of page.
func TestVFS_KeepsWhatSQLiteKeeps(t *testing.T) {
	t.Parallel()
	for _, page := range []int{4096, 8192, 65536} {
		t.Run(fmt.Sprint(page), func(t *testing.T) {
			t.Parallel()
			v := sealed(t, seal.New())
			dir := t.TempDir()
			pragmas := []string{fmt.Sprintf("page_size(%d)", page), "wal_autocheckpoint(20)", "cache_size(5)"}
			open := func() [2]*sql.DB {
				return [2]*sql.DB{database(t, filepath.Join(dir, "plain.db"), nil, pragmas...), database(t, filepath.Join(dir, "sealed.db"), v, pragmas...)}
			}
			dbs := open()
			both := func(q string, args ...any) {
				for _, db := range dbs {
					exec(t, db, q, args...)
				}
			}
			both("CREATE TABLE t(k INTEGER PRIMARY KEY, v BLOB); CREATE INDEX i ON t(v)")
			r := rand.New(rand.NewPCG(1, uint64(page)))
			for step := range 300 {
				switch n := r.IntN(100); {
				case n < 55:
					data := bytes.Repeat([]byte{byte(step), byte(step >> 8)}, r.IntN(20_000))
					both("INSERT OR REPLACE INTO t VALUES(?, ?)", r.IntN(100), data)
				case n < 80:
					both("DELETE FROM t WHERE k BETWEEN ? AND ?", r.IntN(100), r.IntN(100))
				case n < 88:
					both("PRAGMA wal_checkpoint(TRUNCATE)")

				case n < 94:
					both("VACUUM")
				default:
					for _, db := range dbs {
						if err := db.Close(); err != nil {
							t.Fatal(err)
						}
					}
					dbs = open()
				}
			}
			if a, b := digest(t, dbs[0]), digest(t, dbs[1]); a != b {
				t.Error("the rows differ")
			}
			var ok string
			if err := dbs[1].QueryRow("PRAGMA integrity_check").Scan(&ok); err != nil || ok != "ok" {
				t.Errorf("integrity: %q %v", ok, err)
			}
		})
	}
}

const canary = "CANARY-in-a-row-of-the-database"

// filled makes a database of a few pages, the last of which are in its log, as a kill leaves it.
func filled(t *testing.T, v *vfs.VFS, dir string) {
	t.Helper()
	from := t.TempDir()
	db := database(t, filepath.Join(from, "x.db"), v)
	exec(t, db, "CREATE TABLE t(k INTEGER PRIMARY KEY, v BLOB)")
	for k := range 40 {
		exec(t, db, "INSERT INTO t VALUES(?, ?)", k, strings.Repeat(canary, 100))
	}
	exec(t, db, "PRAGMA wal_checkpoint(TRUNCATE)")
	for k := range 10 {
		exec(t, db, "INSERT INTO t VALUES(?, ?)", 100+k, strings.Repeat(canary, 100))
	}
	// A temporary table and a sort that is larger than the cache.
	exec(t, db, "CREATE TEMP TABLE u AS SELECT v || k AS v FROM t ORDER BY v DESC")
	for _, name := range []string{"x.db", "x.db-wal"} {
		data, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := fs.WalkDir(os.DirFS(from), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(from, name))
		if found := bytes.Contains(data, []byte("CANARY")) || bytes.Contains(data, []byte("SQLite format")); found != (v == nil) && strings.HasPrefix(name, "x.db") && !strings.HasSuffix(name, "-shm") {
			t.Errorf("%s: in clear is %v", name, found)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func TestVFS_WritesNothingInClear(t *testing.T) {
	t.Parallel()
	filled(t, sealed(t, seal.New()), t.TempDir())
	filled(t, nil, t.TempDir()) // what is looked for is found where nothing is sealed
}

// Every byte of the files is changed in turn, a few at a time: rows are what they were, or there is an error, or, in the log, the
// newest transactions are missing.
func TestVFS_NeverGivesOtherData(t *testing.T) {
	t.Parallel()
	s := seal.New()
	v := sealed(t, s)
	golden := t.TempDir()
	filled(t, v, golden)
	files := map[string][]byte{}
	for _, name := range []string{"x.db", "x.db-wal"} {
		files[name], _ = os.ReadFile(filepath.Join(golden, name))
	}
	want := strings.Repeat(canary, 100)
	r := rand.New(rand.NewPCG(5, 6))
	refused, short := 0, 0
	for range 150 {
		dir := t.TempDir()
		name := "x.db"
		if r.IntN(2) == 0 {
			name = "x.db-wal"
		}
		for n, data := range files {
			data = bytes.Clone(data)
			if n == name {
				switch r.IntN(3) {
				case 0:
					data[r.IntN(len(data))] ^= 1 << r.IntN(8)
				case 1: // a part in the place of another
					const part = 4096 + seal.Overhead
					a, b := r.IntN(len(data)/part)*part, r.IntN(len(data)/part)*part
					copy(data[a:a+part], bytes.Clone(data[b:b+part]))
				case 2:
					data = data[:r.IntN(len(data))]
				}
			}
			if err := os.WriteFile(filepath.Join(dir, n), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		db := database(t, filepath.Join(dir, "x.db"), v)
		n, err := check(db, want)
		var other wrong
		switch {
		case errors.As(err, &other):
			t.Errorf("%s: %v", name, err)
		case err != nil:
			refused++
		case n < 40 || n < 50 && name == "x.db":
			t.Errorf("%s: only %d rows, and no error", name, n)
		case n < 50:
			short++
		}
		_ = db.Close()
	}
	if refused < 30 || short == 0 {
		t.Errorf("%d refused, %d without the newest", refused, short)
	}
}

type wrong struct{ error }

func check(db *sql.DB, want string) (n int, err error) {
	rows, err := db.Query("SELECT k, v FROM t")
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var k int
		var v string
		if err := rows.Scan(&k, &v); err != nil {
			return n, err
		}
		if n++; v != want {
			return n, wrong{fmt.Errorf("row %d has other data", k)}
		}
	}
	return n, rows.Err()
}

func TestVFS_RefusesAnotherKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := seal.New()
	filled(t, sealed(t, s), dir)
	other := sealed(t, seal.New())
	_, err := check(database(t, filepath.Join(dir, "x.db"), other), "")
	var e *sqlite.Error
	if !errors.As(err, &e) || e.Code()&0xff != 11 {
		t.Errorf("another key: %v", err)
	}
	if _, err := vfs.Head(filepath.Join(dir, "x.db"), seal.New().Box("test"), 16); !errors.Is(err, seal.ErrOpen) {
		t.Errorf("head with another key: %v", err)
	}
	head, err := vfs.Head(filepath.Join(dir, "x.db"), s.Box("test"), 15)
	if err != nil || string(head) != "SQLite format 3" {
		t.Errorf("head: %q %v", head, err)
	}
}

func TestVFS_RefusesFilesInClear(t *testing.T) {
	t.Parallel()
	v := sealed(t, seal.New())
	path := filepath.Join(t.TempDir(), "x.db")
	db := database(t, path, v)
	exec(t, db, "CREATE TABLE t(k INTEGER PRIMARY KEY, v BLOB)")
	exec(t, db, "INSERT INTO t VALUES(1, ?)", canary)
	conn, err := db.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, q := range []string{"PRAGMA temp_store=FILE", "CREATE TEMP TABLE u(v)"} {
		_, err = conn.ExecContext(t.Context(), q)
	}
	if err == nil {
		for i := range 5000 { // until it no longer fits the cache
			if _, err = conn.ExecContext(t.Context(), "INSERT INTO u VALUES(?)", strings.Repeat(canary, 100+i%3)); err != nil {
				break
			}
		}
	}
	if err == nil {
		t.Error("a temporary file was made")
	}
	if _, err := conn.ExecContext(t.Context(), "PRAGMA journal_mode=DELETE"); err == nil {
		if _, err := conn.ExecContext(t.Context(), "UPDATE t SET v = 'other'"); err == nil {
			t.Error("a page was written to a rollback journal")
		}
	}
}
