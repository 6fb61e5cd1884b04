package postgres

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/store/rows"
)

// Bounds of what a Store asks of its server.
const (
	lanes     = 2                // transactions of Writes at the same time
	spare     = 4                // further connections for changes of tables, filling and tending
	readers   = 8                // connections of reads, unless the URL says otherwise
	patience  = 40 * time.Second // with one exchange; the server's own limits are lower
	connectIn = 5 * time.Second
)

// settings are those of every session. All statements walk an index: the planner is not to guess otherwise of a table that it has not seen filled.
const settings = `SELECT set_config(k, v, false) FROM (VALUES
  ('statement_timeout', '30s'), ('lock_timeout', '10s'), ('idle_in_transaction_session_timeout', '10s'),
  ('enable_seqscan', 'off'), ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off'), ('enable_bitmapscan', 'off'), ('enable_sort', 'off'),
  ('jit', 'off'), ('plan_cache_mode', 'force_generic_plan'), ('default_transaction_isolation', 'read committed'),
  ('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END)) AS s(k, v)`

// oldest is the first major version with idle_session_timeout, by which a leader that hangs is put off.
const oldest = 140000

// Options say how a Store is opened. The zero Options are right but for tests.
type Options struct {
	Now func() time.Time // nil is time.Now
	Log *slog.Logger     // nil is none
}

// Store is a store.Tables in a database.
type Store struct {
	opt    Options
	config *pgx.ConnConfig
	where  string
	reads  *pgxpool.Pool
	writes *pgxpool.Pool
	away   outage

	catalog atomic.Pointer[catalog]
	lanes   [lanes]chan *request
	slot    int // where this Store's lanes begin to count
	stop    context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	ended   chan struct{} // closed when the writers have ended
	once    sync.Once

	changed watch
}

// Open connects to the database at a URL or connection string of libpq, makes the schema or brings it up to date, and starts the writers.
// Close ends them.
func Open(ctx context.Context, dsn string, opt Options) (_ *Store, err error) {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	config, err := parse(dsn)
	if err != nil {
		return nil, err
	}
	s := &Store{opt: opt, config: config.ConnConfig, where: place(config.ConnConfig), slot: rand.IntN(slots), ended: make(chan struct{})}
	s.stop, s.cancel = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	if s.reads, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, s.told(err)
	}
	config = config.Copy()
	config.MaxConns = lanes + spare
	if s.writes, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, s.told(err)
	}
	if err := s.migrate(ctx); err != nil {
		return nil, err
	}
	if err := s.refresh(ctx); err != nil {
		return nil, err
	}
	for i := range s.lanes {
		s.lanes[i] = make(chan *request, 256)
		s.wg.Go(func() { s.write(i) })
	}
	s.wg.Go(s.tend)
	s.wg.Go(s.poll)
	return s, nil
}

// parse reads a connection string. What is wrong with it is told without it: it may hold a password.
func parse(dsn string) (*pgxpool.Config, error) {
	if scheme, _, ok := strings.Cut(dsn, "://"); ok && scheme != "postgres" && scheme != "postgresql" {
		return nil, errs.New(errs.Invalid, "the database of tables is at no postgres:// URL").WithHint("Give postgres://USER@HOST:PORT/DATABASE.")
	}
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		why := "it is not of the form postgres://USER@HOST:PORT/DATABASE"
		var e *url.Error
		if inner := errors.Unwrap(err); inner != nil && !errors.As(err, &e) && !strings.Contains(inner.Error(), "://") {
			why = inner.Error()
		}
		return nil, errs.New(errs.Invalid, "the URL of the database of tables cannot be read: %s", why).
			WithHint("Give postgres://USER@HOST:PORT/DATABASE; characters such as @ or / in a password are written %%40, %%2F.")
	}
	c := config.ConnConfig
	if c.ConnectTimeout == 0 || c.ConnectTimeout > connectIn {
		c.ConnectTimeout = connectIn
	}
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "ebb"
	}
	// A standby would answer reads with what was, and take no writes.
	c.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, settings, pgx.QueryExecModeSimpleProtocol)
		return err
	}
	if !strings.Contains(dsn, "pool_max_conns") {
		config.MaxConns = readers
	}
	return config, nil
}

// place is where a database is, for messages: no user and no password.
func place(c *pgx.ConnConfig) string {
	host := c.Host
	if !strings.HasPrefix(host, "/") { // not a folder with a socket
		host = net.JoinHostPort(host, strconv.Itoa(int(c.Port)))
	}
	return host + "/" + c.Database
}

// Where says where the tables are: host and database.
func (s *Store) Where() string { return s.where }

// Close ends what has begun, and closes the connections. What waits is refused.
func (s *Store) Close() error {
	s.once.Do(s.end)
	return nil
}

func (s *Store) end() {
	s.cancel()
	s.wg.Wait()
	close(s.ended)
	for _, p := range []*pgxpool.Pool{s.reads, s.writes} {
		if p != nil {
			p.Close()
		}
	}
}

// outage holds callers off for a moment when a connection could not be had, longer each time up to a second.
type outage struct {
	sync.Mutex
	until time.Time
	delay time.Duration
	err   error
}

func (o *outage) now() error {
	o.Lock()
	defer o.Unlock()
	if time.Now().Before(o.until) {
		return o.err
	}
	return nil
}

// note takes in how it went, and tells whether that is news.
func (o *outage) note(err error) (news bool) {
	o.Lock()
	defer o.Unlock()
	news = (o.err == nil) != (err == nil)
	if err == nil {
		o.delay, o.err, o.until = 0, nil, time.Time{}
		return news
	}
	o.delay = min(max(2*o.delay, 50*time.Millisecond), time.Second)
	o.err, o.until = err, time.Now().Add(o.delay)
	return news
}

// acquire takes a connection of a pool.
func (s *Store) acquire(ctx context.Context, p *pgxpool.Pool) (*pgxpool.Conn, error) {
	if s.stop.Err() != nil {
		return nil, closed()
	}
	if err := s.away.now(); err != nil {
		return nil, err
	}
	waiting, cancel := context.WithTimeout(ctx, 2*connectIn)
	defer cancel()
	conn, err := p.Acquire(waiting)
	switch {
	case err == nil:
		if s.away.note(nil) && s.catalog.Load() != nil {
			s.opt.Log.Warn("the database of tables is back", "at", s.where)
		}
		return conn, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case s.stop.Err() != nil:
		return nil, closed()
	case waiting.Err() != nil && p.Stat().AcquiredConns() == p.Stat().MaxConns():
		return nil, errs.New(errs.Unavailable, "all connections to the database of tables are busy").WithHint("Look for what holds it up in pg_stat_activity and pg_locks.")
	}
	err = s.told(err)
	if s.away.note(err) && s.catalog.Load() != nil { // Open tells its caller
		s.opt.Log.Warn("the database of tables is away; calls that need it fail until it is back", "at", s.where, "error", err)
	}
	return nil, err
}

// told gives an error of PostgreSQL the code that callers act on, and the mend.
func (s *Store) told(err error) error {
	var known *errs.Error
	if err == nil || errors.As(err, &known) || errors.Is(err, rows.ErrDamaged) || err == context.Canceled || err == context.DeadlineExceeded {
		return err
	}
	var e *pgconn.PgError
	found := errors.As(err, &e)
	err = &oneLine{err}
	if !found {
		return errs.New(errs.Unavailable, "the database of tables at %s does not answer: %w", s.where, err).WithHint("Look whether PostgreSQL runs and can be reached; what was acknowledged stands.")
	}
	away := func(what, hint string) error {
		return errs.New(errs.Unavailable, "the database of tables at %s %s: %w", s.where, what, err).WithHint("%s", hint)
	}
	switch {
	case e.Code == "25006":
		return away("cannot be written", "It is a standby, or set to read only; give the address of the primary.")
	case e.Code == "53100":
		return away("has a full disk", "Free space on the disk of PostgreSQL; what was acknowledged stands.")
	case e.Code == "53200":
		return away("has no room for locks or memory", "Raise max_locks_per_transaction in postgresql.conf.")
	case e.Code == "53300":
		return away("takes no more connections", "Each server of ebb opens up to 20; raise max_connections in postgresql.conf.")
	case strings.HasPrefix(e.Code, "28"), e.Code == "3D000":
		return away("refuses ebb", "Look at user, password and database of --tables.")
	case e.Code == "42501":
		return away("does not let ebb do that", "The user of --tables must own the schema ebb: GRANT CREATE ON DATABASE … TO … lets it make one.")
	case strings.HasPrefix(e.Code, "57P"):
		return away("is stopping or starting", "Try again in a moment; what was acknowledged stands.")
	case e.Code == "57014", e.Code == "55P03":
		return away("took too long", "Look for what holds it up in pg_stat_activity and pg_locks.")
	case e.Code == "3F000", e.Code == "42P01":
		return away("has lost ebb's schema", "Restore it from a backup, or start ebb again to have an empty one made.")
	case strings.HasPrefix(e.Code, "22"), strings.HasPrefix(e.Code, "54"):
		return errs.New(errs.Invalid, "the database of tables at %s does not take this: %w", s.where, err)
	}
	return away("does not answer as it should", "Look at PostgreSQL's log; what was acknowledged stands.")
}

// oneLine is an error whose text has no line breaks.
type oneLine struct{ err error }

// Error returns the text.
func (o *oneLine) Error() string { return strings.Join(strings.Fields(o.err.Error()), " ") }

// Unwrap returns the error.
func (o *oneLine) Unwrap() error { return o.err }

func closed() error { return errs.New(errs.Unavailable, "the tables are closed") }
