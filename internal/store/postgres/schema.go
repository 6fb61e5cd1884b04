package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ebb-run/ebb/internal/errs"
)

// migrations bring the schema from one format to the next; the first makes it. Those that were released are not changed.
var migrations = []string{`
CREATE SCHEMA IF NOT EXISTS ebb;
CREATE TABLE ebb.meta(one bool PRIMARY KEY DEFAULT true CHECK (one), format int4 NOT NULL, catalog int8 NOT NULL);
CREATE SEQUENCE ebb.ids;
CREATE SEQUENCE ebb.seq;
CREATE TABLE ebb.tables(id int8 PRIMARY KEY, tenant text COLLATE "C" NOT NULL, name text COLLATE "C" NOT NULL, spec json NOT NULL, UNIQUE(tenant, name));
CREATE TABLE ebb.counts(tab int8, slot int4, n int8 NOT NULL, bytes int8 NOT NULL, PRIMARY KEY(tab, slot)) WITH (fillfactor = 50);
CREATE TABLE ebb.items(tab int8, h bytea, r bytea, v bytea NOT NULL, PRIMARY KEY(tab, h, r)) WITH (fillfactor = 90);
CREATE TABLE ebb.entries(idx int8, h bytea, r bytea, o bytea, th bytea, tr bytea, PRIMARY KEY(idx, h, r, o, th, tr));
CREATE TABLE ebb.expiry(idx int8, at int8, h bytea, r bytea, PRIMARY KEY(idx, at, h, r));
CREATE TABLE ebb.records(stream int8, seq int8, at int8 NOT NULL, op text NOT NULL, expired bool NOT NULL, key bytea NOT NULL, old bytea, new bytea, PRIMARY KEY(stream, seq));
CREATE INDEX aged ON ebb.records(at);
CREATE TABLE ebb.garbage(kind text, id int8, PRIMARY KEY(kind, id));
INSERT INTO ebb.meta(format, catalog) VALUES(0, 1);
COMMENT ON SCHEMA ebb IS 'tables of ebb; change nothing here by hand';
`}

// Advisory locks of two numbers are ebb's own; those of Items and streams are one number.
const (
	space       = 0x656262 // "ebb"
	lockSchema  = 1
	lockCatalog = 2
	lockLeads   = 1 << 16 // and behind
)

// migrate makes the schema, or brings it up to date. Of several Nodes that start together one does it, and the others wait.
func (s *Store) migrate(ctx context.Context) error {
	return s.transact(ctx, func(tx pgx.Tx) error {
		var version int
		if err := tx.QueryRow(ctx, "SELECT current_setting('server_version_num')::int4").Scan(&version); err != nil {
			return err
		}
		if version < oldest {
			return &refused{errs.New(errs.Unsupported, "the database of tables at %s is PostgreSQL %d; ebb needs %d or newer", s.where, version/10000, oldest/10000)}
		}
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1, $2)", space, lockSchema); err != nil {
			return err
		}
		var schema, ours bool
		if err := tx.QueryRow(ctx, "SELECT to_regclass('ebb.meta') IS NOT NULL, EXISTS(SELECT FROM pg_class WHERE relnamespace = to_regnamespace('ebb'))").Scan(&ours, &schema); err != nil {
			return err
		}
		format := 0
		switch {
		case ours:
			if err := tx.QueryRow(ctx, "SELECT format FROM ebb.meta").Scan(&format); err != nil {
				return err
			}
		case schema:
			return &refused{errs.New(errs.Unsupported, "the schema ebb of the database at %s is not ebb's tables", s.where).WithHint("Give another database.")}
		}
		if format > len(migrations) {
			return &refused{newer(s.where, format)}
		}
		if format == len(migrations) {
			return nil
		}
		for ; format < len(migrations); format++ {
			if _, err := tx.Exec(ctx, migrations[format]); err != nil {
				return fmt.Errorf("bring the schema from format %d to %d: %w", format, format+1, err)
			}
		}
		_, err := tx.Exec(ctx, "UPDATE ebb.meta SET format = $1, catalog = catalog + 1", format)
		return err
	})
}

func newer(where string, format int) error {
	return errs.New(errs.Unsupported, "the schema ebb of the database at %s has format %d, and this ebb knows %d", where, format, len(migrations)).WithHint("Use the ebb that wrote it, or a newer one.")
}

// Durable says what the server is set to that loses acknowledged writes when its machine fails; empty is well.
func (s *Store) Durable(ctx context.Context) (lacks string, err error) {
	conn, err := s.acquire(ctx, s.reads)
	if err != nil {
		return "", err
	}
	defer conn.Release()
	err = conn.QueryRow(ctx, "SELECT concat_ws(', ', CASE current_setting('fsync') WHEN 'off' THEN 'fsync is off' END, CASE current_setting('full_page_writes') WHEN 'off' THEN 'full_page_writes is off' END)").Scan(&lacks)
	return lacks, s.told(err)
}

// transact runs a transaction, once more where a connection broke before anything was sent to be committed.
func (s *Store) transact(ctx context.Context, f func(pgx.Tx) error) error {
	var err error
	for range 3 {
		var conn *pgxpool.Conn
		if conn, err = s.acquire(ctx, s.writes); err != nil {
			return err
		}
		committing := false
		committing, err = within(ctx, conn, f)
		conn.Release()
		if err == nil || committing || ctx.Err() != nil || !repeat(err) && !broken(err) {
			break
		}
	}
	var no *refused
	if errors.As(err, &no) {
		return no.error
	}
	return s.told(err)
}

// refused is what a transaction ends with that the caller's own function or the contract refuses; the database is well.
type refused struct{ error }

// broken tells whether the connection failed, and not a statement.
func broken(err error) bool {
	var e *pgconn.PgError
	var no *refused
	return err != nil && !errors.As(err, &no) && (!errors.As(err, &e) || e.Severity == "FATAL" || e.Severity == "PANIC")
}

// repeat tells whether PostgreSQL undid a transaction for what others were doing.
func repeat(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Severity == "ERROR" && (e.Code == "40001" || e.Code == "40P01") // serialization failure, deadlock
}

func within(ctx context.Context, conn *pgxpool.Conn, f func(pgx.Tx) error) (committing bool, err error) {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return false, err
	}
	if err := f(tx); err != nil {
		quit, cancel := context.WithTimeout(context.WithoutCancel(ctx), connectIn)
		defer cancel()
		_ = tx.Rollback(quit)
		return false, err
	}
	return true, tx.Commit(ctx)
}

// rowsOf reads all rows of a query.
func rowsOf(found pgx.Rows, err error, each func(pgx.Rows) error) error {
	if err != nil {
		return err
	}
	defer found.Close()
	for found.Next() {
		if err := each(found); err != nil {
			return err
		}
	}
	return found.Err()
}
