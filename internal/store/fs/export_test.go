package fs

import (
	"database/sql"
	"testing"
)

// SetFormat makes the database in a folder one of another format.
func SetFormat(t *testing.T, dir string, n int) {
	t.Helper()
	db, err := sql.Open("sqlite", (&Store{dir: dir}).dsn("rw", "FULL"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("UPDATE meta SET v = ? WHERE k = 'format'", n); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		t.Fatal(err)
	}
}
