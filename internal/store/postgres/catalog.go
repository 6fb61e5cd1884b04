package postgres

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/store"
)

// spec is the stored form of a table. Every set of rows has an ID that is never given again.
type spec struct {
	store.Table
	IDs      []int64        `json:"ids,omitempty"`      // of the indexes, in their order
	Expiry   int64          `json:"expiry,omitempty"`   // of the expiries, where the table has a TTL
	Stream   int64          `json:"stream,omitempty"`   // of the Records of its stream
	Building map[int64]bool `json:"building,omitempty"` // sets that do not hold every Item yet
}

// live is a table that stands. It is immutable.
type live struct {
	id     int64
	tenant string
	spec   spec
}

type name struct{ tenant, table string }

// catalog is all tables at one moment; immutable. Every transaction and every read asks whether its version is still the one.
type catalog struct {
	version int64
	tables  map[name]*live
}

func (c *catalog) find(tenant, table string) (*live, error) {
	if l := c.tables[name{tenant, table}]; l != nil {
		return l, nil
	}
	return nil, errs.New(errs.NotFound, "no table %s", table)
}

// versionSQL is asked by each transaction and read. An ebb that is older than the schema writes no more.
const versionSQL = "SELECT format, catalog FROM ebb.meta"

func (s *Store) checkFormat(format int) error {
	if format > len(migrations) {
		return newer(s.where, format)
	}
	return nil
}

// querier is a connection or a transaction.
type querier interface {
	Query(ctx context.Context, text string, args ...any) (pgx.Rows, error)
}

// loadCatalog reads all tables as of one moment.
func (s *Store) loadCatalog(ctx context.Context, q querier) (*catalog, error) {
	c := &catalog{tables: map[name]*live{}}
	var format int
	found, err := q.Query(ctx, "SELECT m.format, m.catalog, t.id, t.tenant, t.spec FROM ebb.meta AS m LEFT JOIN ebb.tables AS t ON true")
	err = rowsOf(found, err, func(r pgx.Rows) error {
		var id *int64
		var tenant *string
		var raw []byte
		if err := r.Scan(&format, &c.version, &id, &tenant, &raw); err != nil || id == nil {
			return err
		}
		l := &live{id: *id, tenant: *tenant}
		if err := json.Unmarshal(raw, &l.spec); err != nil {
			return errs.New(errs.Internal, "table %d of the database at %s: %w", *id, s.where, err)
		}
		c.tables[name{l.tenant, l.spec.Name}] = l
		return nil
	})
	if err == nil {
		err = s.checkFormat(format)
	}
	return c, err
}

// refresh takes in what other Nodes changed.
func (s *Store) refresh(ctx context.Context) error {
	conn, err := s.acquire(ctx, s.reads)
	if err != nil {
		return err
	}
	defer conn.Release()
	c, err := s.loadCatalog(ctx, conn)
	if err != nil {
		return s.told(err)
	}
	s.show(c)
	return nil
}

// show makes a catalog the one that is used unless a newer one is.
func (s *Store) show(c *catalog) {
	for {
		old := s.catalog.Load()
		if old != nil && old.version >= c.version || s.catalog.CompareAndSwap(old, c) {
			return
		}
	}
}

// errStale is the end of an attempt that was made with an old catalog.
var errStale = errors.New("the catalog changed")

// alteration is a transaction that changes the catalog, alone among all Nodes.
type alteration struct {
	tx  pgx.Tx
	ctx context.Context
	c   *catalog
}

// alter runs a change of the catalog.
func (s *Store) alter(ctx context.Context, f func(a *alteration) error) error {
	err := s.transact(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1, $2)", space, lockCatalog); err != nil {
			return err
		}
		c, err := s.loadCatalog(ctx, tx)
		if err != nil {
			return err
		}
		if err := f(&alteration{tx, ctx, c}); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "UPDATE ebb.meta SET catalog = catalog + 1")
		return err
	})
	if err != nil {
		return err
	}
	// What cannot be read now is read by who needs it next.
	_ = s.refresh(ctx)
	return nil
}

func (a *alteration) newID() (id int64, err error) {
	err = a.tx.QueryRow(a.ctx, "SELECT nextval('ebb.ids')").Scan(&id)
	return id, err
}

// set writes a table's description.
func (a *alteration) set(l *live) error {
	raw, err := json.Marshal(l.spec)
	if err != nil {
		return err
	}
	_, err = a.tx.Exec(a.ctx, "INSERT INTO ebb.tables(id, tenant, name, spec) VALUES($1, $2, $3, $4) ON CONFLICT(id) DO UPDATE SET spec = excluded.spec", l.id, l.tenant, l.spec.Name, raw)
	return err
}

// The kinds of sets, as they stand in the garbage.
const (
	items   = "items"
	entries = "entries"
	expiry  = "expiry"
	records = "records"
)

// discard leaves a set to be removed when there is time: no statement finds it any more.
func (a *alteration) discard(kind string, id int64) error {
	if id == 0 {
		return nil
	}
	_, err := a.tx.Exec(a.ctx, "INSERT INTO ebb.garbage(kind, id) VALUES($1, $2)", kind, id)
	return err
}

// told returns a table's description with its counts.
func (l *live) told(n, bytes int64) store.Table {
	t := l.spec.Table
	t.Items, t.Bytes = n, bytes
	return t
}

// Table describes one.
func (s *Store) Table(ctx context.Context, tenant, table string) (t store.Table, err error) {
	err = s.read(ctx, func(c *catalog) (*query, error) {
		l, err := c.find(tenant, table)
		if err != nil {
			return nil, err
		}
		return &query{text: "SELECT coalesce(sum(n), 0)::int8, coalesce(sum(bytes), 0)::int8 FROM ebb.counts WHERE tab = $1", args: []any{l.id}, each: func(r pgx.Rows) error {
			var n, bytes int64
			err := r.Scan(&n, &bytes)
			t = l.told(n, bytes)
			return err
		}}, nil
	})
	return t, err
}

// List describes all of a tenant, by name.
func (s *Store) List(ctx context.Context, tenant string) (all []store.Table, err error) {
	err = s.read(ctx, func(c *catalog) (*query, error) {
		all = nil
		byID := map[int64]*live{}
		var ids []int64
		for n, l := range c.tables {
			if n.tenant == tenant {
				byID[l.id], ids = l, append(ids, l.id)
			}
		}
		text := "SELECT k.id, coalesce(sum(c.n), 0)::int8, coalesce(sum(c.bytes), 0)::int8 FROM unnest($1::int8[]) AS k(id) LEFT JOIN ebb.counts AS c ON c.tab = k.id GROUP BY k.id"
		return &query{text: text, args: []any{ids}, each: func(r pgx.Rows) error {
			var id, n, bytes int64
			err := r.Scan(&id, &n, &bytes)
			all = append(all, byID[id].told(n, bytes))
			return err
		}}, nil
	})
	slices.SortFunc(all, func(a, b store.Table) int { return cmp.Compare(a.Name, b.Name) })
	return all, err
}
