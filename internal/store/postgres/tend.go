package postgres

import (
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/store/rows"
)

const (
	leadEvery = time.Second            // between two looks of who leads or would like to
	leadFor   = "10s"                  // after so long without a word PostgreSQL ends a leader's session
	pollEvery = 100 * time.Millisecond // between two looks for changes that other Nodes made
	tendEvery = 5 * time.Second
	sweepRows = 2000 // of discarded sets that one statement removes
)

// Lead calls f while no other Store of the database is in a Lead of the same name.
//
// The name is an advisory lock of a session. PostgreSQL gives it up when the session ends: at once when this process is killed, and after
// [leadFor] when it hangs. f's context ends before that, when the session does not answer for half the time.
func (s *Store) Lead(ctx context.Context, name string, f func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.stop, cancel)()
	for {
		led, err := s.lead(ctx, name, f)
		switch {
		case ctx.Err() != nil && s.stop.Err() != nil:
			return closed()
		case ctx.Err() != nil:
			return ctx.Err()
		case led:
			return err
		case err != nil:
			s.opt.Log.Debug("no lead for now", "of", name, "error", err)
		}
		wait(ctx, leadEvery)
	}
}

// errLed is why f's context ended.
var errLed = errs.New(errs.Unavailable, "the lead is lost")

// lead tries for the lock once. led says that f ended by itself, with err.
func (s *Store) lead(ctx context.Context, name string, f func(context.Context) error) (led bool, err error) {
	conn, err := pgx.ConnectConfig(ctx, s.config)
	if err != nil {
		return false, s.told(err)
	}
	defer func() {
		quit, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(quit)
	}()
	if _, err := conn.Exec(ctx, fmt.Sprintf("SET idle_session_timeout = '%s'; SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3", leadFor), pgx.QueryExecModeSimpleProtocol); err != nil {
		return false, s.told(err)
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(name))
	lock := int32(h.Sum32()&0x7fffffff | lockLeads)
	for have := false; !have; {
		if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1, $2)", space, lock).Scan(&have); err != nil {
			return false, s.told(err)
		}
		if !have && !wait(ctx, leadEvery) {
			return false, ctx.Err()
		}
	}
	leading, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	done := make(chan error, 1)
	go func() { done <- f(leading) }()
	for {
		select {
		case err := <-done:
			return true, err
		case <-ctx.Done():
			<-done
			return false, ctx.Err()
		case <-time.After(leadEvery):
		}
		quick, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err := conn.Exec(quick, "SELECT 1")
		cancel()
		if err != nil {
			stop(errLed)
			<-done
			return false, s.told(err)
		}
	}
}

// wait waits unless ctx ends before.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// watch is what waits for changes of streams.
type watch struct {
	sync.Mutex
	ch   chan struct{}
	seen map[int64]int64 // by stream: its newest Record; nil where it was never asked
}

func (w *watch) wake() {
	w.Lock()
	defer w.Unlock()
	if w.ch != nil {
		close(w.ch)
		w.ch = nil
	}
}

// Changed returns a channel that is closed at the next change of a table with a stream. Those that other Nodes make are seen by looking for them.
func (s *Store) Changed() <-chan struct{} {
	w := &s.changed
	w.Lock()
	known := w.seen != nil
	w.Unlock()
	var seen map[int64]int64
	if !known {
		ctx, cancel := context.WithTimeout(s.stop, connectIn)
		defer cancel()
		seen, _ = s.newest(ctx)
	}
	w.Lock()
	defer w.Unlock()
	if w.seen == nil && !known {
		w.seen = seen // what is not known now is taken for changed at the next look
	}
	if w.ch == nil {
		w.ch = make(chan struct{})
	}
	return w.ch
}

// newest asks for the newest Record of each stream.
func (s *Store) newest(ctx context.Context) (seen map[int64]int64, err error) {
	err = s.read(ctx, func(c *catalog) (*query, error) {
		seen = map[int64]int64{}
		var streams []int64
		for _, l := range c.tables {
			if l.spec.View != "" {
				streams = append(streams, l.spec.Stream)
			}
		}
		return &query{text: lastSQL, args: []any{streams}, each: func(r pgx.Rows) error {
			var stream int64
			var seq *int64
			if err := r.Scan(&stream, &seq); err != nil || seq == nil {
				return err
			}
			seen[stream] = *seq
			return nil
		}}, nil
	})
	return seen, err
}

// poll looks for changes of other Nodes as long as somebody waits for them.
func (s *Store) poll() {
	for wait(s.stop, pollEvery) {
		w := &s.changed
		w.Lock()
		idle := w.ch == nil
		w.Unlock()
		if idle {
			continue
		}
		seen, err := s.newest(s.stop)
		if err != nil {
			continue
		}
		w.Lock()
		changed := w.seen == nil || !maps.Equal(w.seen, seen)
		w.seen = seen
		w.Unlock()
		if changed {
			w.wake()
		}
	}
}

// tend goes on with what a Node left half done, and removes what is discarded. One Node does.
func (s *Store) tend() {
	for s.stop.Err() == nil {
		_ = s.Lead(s.stop, " tend", func(ctx context.Context) error {
			for wait(ctx, tendEvery) {
				if err := s.tendOnce(ctx); err != nil && ctx.Err() == nil {
					s.opt.Log.Warn("what was deleted of tables takes room for now", "error", err)
				}
			}
			return ctx.Err()
		})
	}
}

func (s *Store) tendOnce(ctx context.Context) error {
	if err := s.refresh(ctx); err != nil {
		return err
	}
	for _, l := range s.catalog.Load().tables {
		if err := s.fill(ctx, l); err != nil && errs.CodeOf(err) != errs.NotFound {
			return err
		}
	}
	for {
		var kind string
		var id int64
		found := false
		err := s.transact(ctx, func(tx pgx.Tx) error {
			list, err := tx.Query(ctx, "SELECT kind, id FROM ebb.garbage ORDER BY kind, id LIMIT 1")
			return rowsOf(list, err, func(r pgx.Rows) error { found = true; return r.Scan(&kind, &id) })
		})
		if err != nil || !found {
			return err
		}
		if err := s.sweep(ctx, kind, id); err != nil {
			return err
		}
	}
}

// sweep removes one discarded set.
func (s *Store) sweep(ctx context.Context, kind string, id int64) error {
	column := map[string]string{items: "tab", entries: "idx", expiry: "idx", records: "stream"}[kind]
	if column == "" {
		return errs.New(errs.Internal, "the database at %s holds discarded rows of an unknown kind %q", s.where, kind)
	}
	some := fmt.Sprintf("DELETE FROM ebb.%s WHERE ctid = ANY(ARRAY(SELECT ctid FROM ebb.%s WHERE %s = $1 LIMIT $2))", kind, kind, column)
	for n := int64(sweepRows); n == sweepRows; {
		err := s.transact(ctx, func(tx pgx.Tx) error {
			tag, err := tx.Exec(ctx, some, id, sweepRows)
			n = tag.RowsAffected()
			return err
		})
		if err != nil {
			return err
		}
	}
	return s.transact(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "DELETE FROM ebb.garbage WHERE kind = $1 AND id = $2", kind, id)
		return err
	})
}

// expireRows is how many are removed in one transaction.
const expireRows = 200

// Expire removes Items whose time had come, and old Records.
func (s *Store) Expire(ctx context.Context, now time.Time) (more bool, err error) {
	if err := s.refresh(ctx); err != nil {
		return false, err
	}
	for _, l := range slices.Collect(maps.Values(s.catalog.Load().tables)) {
		if l.spec.TTL == "" {
			continue
		}
		m, err := s.expire(ctx, l, now)
		if err != nil {
			return more, err
		}
		more = more || m
	}
	err = s.transact(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, "DELETE FROM ebb.records WHERE ctid = ANY(ARRAY(SELECT ctid FROM ebb.records WHERE at < $1 ORDER BY at LIMIT $2))", now.Add(-rows.KeepRecords).UnixMilli(), sweepRows)
		more = more || tag.RowsAffected() == sweepRows
		return err
	})
	return more, err
}

// expire removes what is due in one table. Between the look and the Write an Item may have got another time: it is asked again.
func (s *Store) expire(ctx context.Context, l *live, now time.Time) (more bool, err error) {
	var changes []store.Change
	err = s.read(ctx, func(c *catalog) (*query, error) {
		changes = nil
		if cur, err := c.find(l.tenant, l.spec.Name); err != nil || cur.spec.Expiry != l.spec.Expiry {
			return nil, errs.New(errs.NotFound, "the table %s was changed meanwhile", l.spec.Name)
		}
		text := "SELECT t.v FROM ebb.expiry AS e JOIN ebb.items AS t ON t.tab = $1 AND t.h = e.h AND t.r = e.r WHERE e.idx = $2 AND e.at <= $3 AND e.at > $4 ORDER BY e.idx, e.at LIMIT $5"
		return &query{text: text, args: []any{l.id, l.spec.Expiry, now.Unix(), now.Add(-rows.TooOld).Unix(), expireRows}, each: func(r pgx.Rows) error {
			it, err := rows.Decode(r.RawValues()[0])
			changes = append(changes, store.Change{Table: l.spec.Name, Key: it, Apply: func(old store.Item) (store.Item, error) {
				if at, ok := rows.Due(&l.spec.Table, old); ok && at <= now.Unix() {
					return nil, nil
				}
				return old, nil
			}})
			return err
		}}, nil
	})
	if errs.CodeOf(err) == errs.NotFound {
		return false, nil
	}
	if err != nil || len(changes) == 0 {
		return false, err
	}
	err = s.submit(&request{ctx: ctx, tenant: l.tenant, changes: changes, expired: true, res: make(chan error, 1)})
	return len(changes) == expireRows, err
}
