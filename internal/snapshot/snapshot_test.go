package snapshot_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/ebb-run/ebb/internal/snapshot"
)

func open(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func exec(t *testing.T, db *sql.DB, q string, args ...any) {
	t.Helper()
	if _, err := db.Exec(q, args...); err != nil {
		t.Fatal(err)
	}
}

func count(t *testing.T, db *sql.DB) (n, sum int) {
	t.Helper()
	if err := db.QueryRow("SELECT count(*), coalesce(sum(n), 0) FROM t").Scan(&n, &sum); err != nil {
		t.Fatal(err)
	}
	return n, sum
}

func TestCopy_HoldsTheMomentOfOpenWhateverIsWrittenMeanwhile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db := open(t, filepath.Join(dir, "a.db"))
	exec(t, db, "CREATE TABLE t(n INTEGER, pad BLOB)")
	exec(t, db, "INSERT INTO t WITH RECURSIVE c(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM c WHERE n < 2999) SELECT n, randomblob(2000) FROM c")
	s, err := snapshot.Open(t.Context(), filepath.Join(dir, "a.db"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	// Written after the moment, and before and while the copy is made.
	exec(t, db, "UPDATE t SET n = n + 1000000")
	exec(t, db, "DELETE FROM t WHERE rowid % 2 = 0")
	done := make(chan error, 1)
	go func() {
		for i := range 300 {
			if _, err := db.Exec("INSERT INTO t VALUES(?, randomblob(2000))", -i); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	if err := s.Copy(t.Context(), filepath.Join(dir, "b.db")); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	got := open(t, filepath.Join(dir, "b.db"))
	if n, sum := count(t, got); n != 3000 || sum != 2999*3000/2 {
		t.Errorf("the copy has %d rows with sum %d, want 3000 with %d", n, sum, 2999*3000/2)
	}
	var sound string
	if err := got.QueryRow("PRAGMA integrity_check").Scan(&sound); err != nil || sound != "ok" {
		t.Errorf("the copy is %s (%v)", sound, err)
	}
	rows, err := s.Query(t.Context(), "SELECT count(*) FROM t")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var n int
	if !rows.Next() || rows.Scan(&n) != nil || n != 3000 {
		t.Errorf("it sees %d rows afterwards, want 3000", n)
	}
}

func TestCopy_LeavesNoFileWhenItIsGivenUp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db := open(t, filepath.Join(dir, "a.db"))
	exec(t, db, "CREATE TABLE t(n INTEGER)")
	s, err := snapshot.Open(t.Context(), filepath.Join(dir, "a.db"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	to := filepath.Join(dir, "b.db")
	if err := s.Copy(ctx, to); err == nil {
		t.Error("a copy that nobody wants is made")
	}
	if _, err := os.Stat(to); !os.IsNotExist(err) {
		t.Error(fmt.Sprint("a part of the copy is left: ", err))
	}
}
