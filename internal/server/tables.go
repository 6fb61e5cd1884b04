package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/state"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/store/postgres"
	"github.com/ebb-run/ebb/internal/store/sqlite"
	"github.com/ebb-run/ebb/internal/wire/dynamodb"
)

// openTables opens the store of tables: a file of this Node alone, or a database that many share.
func (s *Server) openTables(ctx context.Context) error {
	dsn, err := s.tablesURL()
	if err != nil {
		return err
	}
	if dsn == "" {
		t, err := sqlite.Open(ctx, filepath.Join(s.o.Config.Data, tablesFile), sqlite.Options{Seal: s.seal.Box("tables")})
		if err != nil {
			return err
		}
		s.tableStore, s.tablesIn = t, tablesFile
		s.closing(t.Close)
		return nil
	}
	t, err := postgres.Open(ctx, dsn, postgres.Options{Log: s.o.Log})
	if err != nil {
		return fmt.Errorf("open tables: %w", err)
	}
	s.tableStore, s.tablesIn = t, "PostgreSQL at "+t.Where()
	s.closing(t.Close)
	lacks, err := t.Durable(ctx)
	if err != nil {
		return fmt.Errorf("open tables: %w", err)
	}
	if lacks != "" {
		s.o.Log.Warn("writes to tables that were acknowledged can be lost when the machine of the database fails", "because", lacks)
	}
	if info, err := os.Stat(filepath.Join(s.o.Config.Data, tablesFile)); err == nil && info.Size() > 0 {
		s.o.Log.Warn("the data directory has tables of its own, which are not shown while tables are kept in PostgreSQL", "file", filepath.Join(s.o.Config.Data, tablesFile))
	}
	return nil
}

// tablesURL is where the database of tables is, or empty.
func (s *Server) tablesURL() (string, error) {
	file := s.o.Config.TablesFile
	if file == "" {
		return s.o.Config.Tables, nil
	}
	info, err := os.Stat(file)
	if err != nil {
		return "", errs.New(errs.Invalid, "--tables-file: %w", err)
	}
	if info.Mode().Perm()&0o004 != 0 {
		s.o.Log.Warn("every user of this machine can read the password of the database of tables", "file", file, "mend", "chmod 600 "+file)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return "", errs.New(errs.Invalid, "--tables-file: %w", err)
	}
	dsn := strings.TrimSpace(string(raw))
	if dsn == "" || strings.ContainsAny(dsn, "\n\r") {
		return "", errs.New(errs.Invalid, "--tables-file: %s does not hold one line with the URL of a database", file)
	}
	return dsn, nil
}

// TablesIn says where tables are kept, without a user or password.
func (s *Server) TablesIn() string { return s.tablesIn }

// tableOf is the table that a Resource declares.
func (s *Server) tableOf(d *state.Deployment, res *app.Resource) (store.Table, error) {
	r := s.resolver(d)
	name, err := r.physicalName(res)
	if err != nil {
		return store.Table{}, err
	}
	var properties json.RawMessage
	if err := r.properties(res.Properties, &properties); err != nil {
		return store.Table{}, err
	}
	t, err := dynamodb.Declared(name, properties)
	t.Owner = stackID(d.Stack)
	t.Extra = map[string]string{}
	if res.Retain {
		t.Extra[retainTag] = "true"
	}
	return t, err
}

// tables makes the tables that an App declares what they are to be.
func (s *Server) tables(ctx context.Context, d *state.Deployment) (faults []string) {
	for i := range d.App.Resources {
		res := &d.App.Resources[i]
		if res.Kind != app.Table {
			continue
		}
		want, err := s.tableOf(d, res)
		if err == nil {
			err = s.settleTable(ctx, want)
		}
		if err != nil {
			faults = append(faults, fmt.Sprintf("table %s: %v", res.ID, err))
		}
	}
	if err := s.tableStreams(ctx); err != nil {
		faults = append(faults, err.Error())
	}
	return faults
}

// settleTable makes a declared table, or brings one that stands up to what is declared. Its Items stay.
func (s *Server) settleTable(ctx context.Context, want store.Table) error {
	old, err := s.tableStore.Table(ctx, tenant, want.Name)
	if errs.CodeOf(err) == errs.NotFound {
		if want.View != "" {
			want.Label = dynamodb.StreamLabel(&store.Table{Made: time.Now()})
		}
		_, err = s.tableStore.Create(ctx, tenant, want)
		return err
	}
	switch {
	case err != nil:
		return err
	case old.Owner != want.Owner && old.Owner != "":
		return errs.New(errs.Conflict, "the table %s belongs to %s, and stays as it is", want.Name, old.Owner)
	case old.Key != want.Key:
		return errs.New(errs.Conflict, "the table %s has another key, and keeps its items and its key", want.Name).WithHint("Delete the table first, or declare it under another name.")
	case sameTable(old, want):
		return nil
	}
	_, err = s.tableStore.Alter(ctx, tenant, want.Name, func(is store.Table) (store.Table, error) {
		if want.Label = is.Label; want.View != "" && (is.View != want.View || is.Label == "") {
			want.Label = dynamodb.StreamLabel(&store.Table{Made: time.Now()})
		}
		return want, nil
	})
	return err
}

// sameTable compares what is declared of two tables.
func sameTable(a, b store.Table) bool {
	for _, t := range []*store.Table{&a, &b} {
		t.ID, t.Made, t.Items, t.Bytes, t.Label = "", time.Time{}, 0, 0, ""
		t.Indexes = slices.Clone(t.Indexes)
		for i := range t.Indexes {
			t.Indexes[i].Made = time.Time{}
		}
		if len(t.Extra) == 0 {
			t.Extra = nil
		}
	}
	return sameJSON(a, b)
}

// dropTables deletes the tables of a removed Stack, but for those that are to stay.
func (s *Server) dropTables(ctx context.Context, k state.StackKey) error {
	all, err := s.tableStore.List(ctx, tenant)
	if err != nil {
		return err
	}
	for _, t := range all {
		if t.Owner != stackID(k) || t.Extra[retainTag] != "" {
			continue
		}
		if _, err := s.tableStore.Drop(ctx, tenant, t.Name); err != nil && errs.CodeOf(err) != errs.NotFound {
			return err
		}
	}
	return s.tableStreams(ctx)
}

// relays carry the changes of tables to streams of the bus, where Triggers read them.
type relays struct {
	mu struct {
		sync.Mutex
		at map[string]uint64 // by the table's ID: the last record that the bus has
	}
}

func (r *relays) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.at = nil
}

// relayed is the table of what the relays have done; no client's table can have its name.
const relayed = "$relayed"

// tableStreams makes the streams of the bus those that tables have, so that Triggers find them.
func (s *Server) tableStreams(ctx context.Context) error {
	tables, err := s.tableStore.List(ctx, tenant)
	if err != nil {
		return err
	}
	want := map[string]store.Table{}
	for _, t := range tables {
		if t.View != "" {
			want[bus.TableStream+t.Name] = t
		}
	}
	if err := s.events.bus.Sync(ctx); err != nil {
		return err
	}
	standing, err := s.events.bus.Streams(ctx)
	if err != nil {
		return err
	}
	for _, st := range standing {
		t, ok := want[st.Name]
		switch {
		case st.Table == "":
		case !ok, st.Tags[tableTag] != t.ID:
			if err := s.events.bus.DeleteStream(ctx, st.Key()); err != nil && errs.CodeOf(err) != errs.NotFound {
				return err
			}
		case st.Label == t.Label:
			delete(want, st.Name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		t := want[name]
		if err := s.events.bus.PutStream(ctx, bus.Stream{Tenant: tenant, Name: name, Table: t.Name, Label: t.Label, Tags: map[string]string{tableTag: t.ID}}); err != nil {
			return err
		}
	}
	return nil
}

// tableTag is on the stream of a table's changes and holds the table's ID: one made again has another stream.
const tableTag = "ebb:table"

// runTables expires items and relays changes until ctx ends. Of Nodes that share their tables one does.
func (s *Server) runTables(ctx context.Context, wg *sync.WaitGroup) {
	wg.Go(func() { s.lead(ctx, "expire", s.expireTables) })
	wg.Go(func() { s.lead(ctx, "relay", s.relayTables) })
}

func (s *Server) lead(ctx context.Context, name string, f func(context.Context) error) {
	for ctx.Err() == nil {
		if err := s.tableStore.Lead(ctx, name, f); err != nil && ctx.Err() == nil {
			s.o.Log.Warn("the upkeep of tables waits", "of", name, "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
}

func (s *Server) expireTables(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		for more := true; more && ctx.Err() == nil; {
			var err error
			if more, err = s.tableStore.Expire(ctx, time.Now()); err != nil && ctx.Err() == nil {
				s.o.Log.Warn("items whose time has come stay for now", "error", err)
			}
		}
	}
}

func (s *Server) relayTables(ctx context.Context) error {
	s.relays.forget() // another Node may have led meanwhile
	for {
		changed := s.tableStore.Changed()
		wait := time.Minute
		if err := s.relay(ctx); err != nil && ctx.Err() == nil {
			s.o.Log.Warn("changes of tables wait", "error", err)
			wait = time.Second
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-time.After(wait):
		}
	}
}

// relay carries all changes that are not on the bus yet.
func (s *Server) relay(ctx context.Context) error {
	tables, err := s.tableStore.List(ctx, tenant)
	if err != nil {
		return err
	}
	var all []error
	for i := range tables {
		if tables[i].View == "" {
			continue
		}
		for more := true; more; {
			if more, err = s.relayTable(ctx, &tables[i]); err != nil {
				all = append(all, fmt.Errorf("table %s: %w", tables[i].Name, err))
				break
			}
		}
	}
	return errors.Join(all...)
}

// relayRecords is how many changes are carried at once.
const relayRecords = 100

func (s *Server) relayTable(ctx context.Context, t *store.Table) (more bool, err error) {
	after, err := s.relayedTo(ctx, t)
	if err != nil {
		return false, err
	}
	records, err := s.tableStore.Records(ctx, tenant, t.Name, after, relayRecords)
	if err != nil || len(records) == 0 {
		return false, err
	}
	stream := tenant + "/" + bus.TableStream + t.Name
	put := make([]bus.Record, len(records))
	for i := range records {
		put[i] = changeRecord(t, &records[i])
	}
	results, err := s.events.bus.PutRecords(ctx, stream, put)
	if errs.CodeOf(err) == errs.NotFound { // made by a client since the last deploy
		if err = s.tableStreams(ctx); err == nil {
			results, err = s.events.bus.PutRecords(ctx, stream, put)
		}
	}
	if err != nil {
		return false, err
	}
	for i, r := range results {
		if r.Err != nil && errs.CodeOf(r.Err) != errs.TooLarge {
			return false, r.Err // those behind it are put again: a change may come twice, none is lost
		}
		if r.Err != nil {
			s.o.Log.Error("a change of a table is too large for its stream, and is left out", "table", t.Name, "error", r.Err)
		}
		after = records[i].Seq
	}
	return len(records) == relayRecords, s.setRelayed(ctx, t, after)
}

// changeRecord is a change as the bus carries it. Of one that would be too large the old image is left out.
func changeRecord(t *store.Table, r *store.Record) bus.Record {
	c := invocation.Change{Keys: dynamodb.ItemJSON(r.Key), View: string(t.View), Expired: r.Expired}
	if r.New != nil {
		c.NewImage = dynamodb.ItemJSON(r.New)
	}
	if r.Old != nil && len(c.NewImage) < bus.MaxRecord/2 {
		c.OldImage = dynamodb.ItemJSON(r.Old)
	}
	data, err := json.Marshal(c)
	if err != nil { // JSON already
		panic(fmt.Sprintf("encode change: %v", err))
	}
	id := dynamodb.EventID(t, r)
	key := dynamodb.EventID(t, &store.Record{Seq: 0}) // one order for all changes of the table
	return bus.Record{Data: data, Key: key, ID: id, Type: "ebb.table." + string(r.Op)}
}

// relayedTo tells the last record that the bus has.
func (s *Server) relayedTo(ctx context.Context, t *store.Table) (uint64, error) {
	s.relays.mu.Lock()
	at, ok := s.relays.mu.at[t.ID]
	s.relays.mu.Unlock()
	if ok {
		return at, nil
	}
	got, err := s.tableStore.Get(ctx, tenant, []store.Lookup{{Table: relayed, Key: store.Item{"table": store.Text(t.ID)}}})
	if errs.CodeOf(err) == errs.NotFound {
		_, err = s.tableStore.Create(ctx, tenant, store.Table{Name: relayed, Key: store.Key{Hash: store.Attr{Name: "table", Kind: store.S}}})
		if errs.CodeOf(err) == errs.Exists {
			err = nil
		}
		return 0, err
	}
	if err != nil || got[0] == nil {
		return 0, err
	}
	var seq uint64
	_, err = fmt.Sscan(got[0]["seq"].Str, &seq)
	return seq, err
}

func (s *Server) setRelayed(ctx context.Context, t *store.Table, seq uint64) error {
	it := store.Item{"table": store.Text(t.ID), "seq": store.Num(fmt.Sprint(seq))}
	err := s.tableStore.Write(ctx, tenant, []store.Change{{Table: relayed, Key: it, Apply: func(old store.Item) (store.Item, error) {
		if old["seq"].Kind == store.N && old["seq"].Number().Compare(it["seq"].Number()) > 0 {
			return old, nil // of a Node that leads now, where this one did
		}
		return it, nil
	}}})
	if err != nil {
		return err
	}
	s.relays.mu.Lock()
	defer s.relays.mu.Unlock()
	if s.relays.mu.at == nil {
		s.relays.mu.at = map[string]uint64{}
	}
	s.relays.mu.at[t.ID] = seq
	return nil
}
