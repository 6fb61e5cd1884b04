package postgres_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/store/postgres"
)

// two opens a database twice, as two Nodes do.
func two(t *testing.T) (url string, nodes [2]*postgres.Store) {
	t.Helper()
	url = fresh(t)
	return url, [2]*postgres.Store{open(t, url), open(t, url)}
}

var errTaken = errors.New("taken")

// Two Nodes write the same few items with conditions: no increment is lost, and of those who claim a name one gets it.
func TestStore_HoldsConditionsOverNodes(t *testing.T) {
	t.Parallel()
	_, nodes := two(t)
	if _, err := nodes[0].Create(t.Context(), "default", simple("t")); err != nil {
		t.Fatal(err)
	}
	const callers, each, counters = 12, 30, 3
	var won atomic.Int64
	var group sync.WaitGroup
	for caller := range callers {
		s := nodes[caller%2]
		group.Go(func() {
			for i := range each {
				add := func(name string) store.Change {
					return store.Change{Table: "t", Key: item(name, 0), Apply: func(old store.Item) (store.Item, error) {
						n, _ := strconv.Atoi(old["n"].Str)
						return item(name, n+1), nil
					}}
				}
				a, b := "c"+strconv.Itoa(i%counters), "c"+strconv.Itoa((i+1)%counters)
				changes := []store.Change{add(a), add(b)}
				if caller%3 == 0 { // the other way round too
					slices.Reverse(changes)
				}
				if err := s.Write(t.Context(), "default", changes); err != nil {
					t.Errorf("caller %d: %v", caller, err)
				}
				claim := store.Change{Table: "t", Key: item("claim"+strconv.Itoa(i), 0), Apply: func(old store.Item) (store.Item, error) {
					if old != nil {
						return nil, errTaken
					}
					return item("claim"+strconv.Itoa(i), caller), nil
				}}
				if err := s.Write(t.Context(), "default", []store.Change{claim}); err == nil {
					won.Add(1)
				} else if !errors.Is(err, errTaken) {
					t.Errorf("caller %d: %v", caller, err)
				}
			}
		})
	}
	group.Wait()
	sum := 0
	for i := range counters {
		got, err := nodes[i%2].Get(t.Context(), "default", []store.Lookup{{Table: "t", Key: item("c"+strconv.Itoa(i), 0)}})
		if err != nil {
			t.Fatal(err)
		}
		n, _ := strconv.Atoi(got[0]["n"].Str)
		sum += n
	}
	if want := callers * each * 2; sum != want || won.Load() != each {
		t.Errorf("counted %d of %d; %d of %d names were claimed", sum, want, won.Load(), each)
	}
	is, err := nodes[1].Table(t.Context(), "default", "t")
	if err != nil || is.Items != each+counters {
		t.Errorf("%d items, want %d; %v", is.Items, each+counters, err)
	}
}

// One follows a stream by sequence numbers while two Nodes write: it misses no Record, sees none twice, and those of an item in their order.
func TestStore_NumbersRecordsInTheOrderOfCommits(t *testing.T) {
	t.Parallel()
	_, nodes := two(t)
	table := simple("t")
	table.View, table.Label = store.NewImage, "1"
	if _, err := nodes[0].Create(t.Context(), "default", table); err != nil {
		t.Fatal(err)
	}
	const callers, each = 10, 60
	var group sync.WaitGroup
	for caller := range callers {
		group.Go(func() {
			for i := range each {
				if err := nodes[(caller+i)%2].Write(t.Context(), "default", put(item("k"+strconv.Itoa(caller), i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { group.Wait(); close(done) }()
	last, next := uint64(0), map[string]int{}
	for seen := 0; seen < callers*each; {
		ended := false
		select {
		case <-done:
			ended = true
		default:
		}
		all, err := nodes[0].Records(t.Context(), "default", "t", last, 7)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range all {
			if id := r.Key["h"].Str; r.Seq <= last || r.New["n"].Str != strconv.Itoa(next[id]) {
				t.Fatalf("record %d of %s behind %d shows %s, want %d", r.Seq, id, last, r.New["n"].Str, next[id])
			} else {
				next[id]++
			}
			last = r.Seq
			seen++
		}
		if ended && len(all) == 0 && seen < callers*each {
			t.Fatalf("%d of %d records were seen: %v", seen, callers*each, next)
		}
	}
	<-done
	if n, err := nodes[1].Last(t.Context(), "default", "t"); err != nil || n != last {
		t.Errorf("the last is %d, want %d; %v", n, last, err)
	}
}

// What one Node makes, changes and drops, the other sees at its next call.
func TestStore_SeesWhatOtherNodesChange(t *testing.T) {
	t.Parallel()
	_, nodes := two(t)
	a, b := nodes[0], nodes[1]
	for round := range 3 {
		if _, err := a.Create(t.Context(), "default", simple("t")); err != nil {
			t.Fatal(err)
		}
		if err := b.Write(t.Context(), "default", put(item("x", round))); err != nil {
			t.Fatalf("a write to a table that another made: %v", err)
		}
		changed := a.Changed()
		_, err := b.Alter(t.Context(), "default", "t", func(is store.Table) (store.Table, error) {
			is.View, is.Label = store.KeysOnly, strconv.Itoa(round)
			return is, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Write(t.Context(), "default", put(item("y", 2))); err != nil {
			t.Fatal(err)
		}
		<-changed
		if all, err := a.Records(t.Context(), "default", "t", 0, 10); err != nil || len(all) != 1 {
			t.Errorf("records: %v %v", all, err)
		}
		if is, err := a.Table(t.Context(), "default", "t"); err != nil || is.View != store.KeysOnly || is.Items != 2 {
			t.Errorf("%+v %v", is, err)
		}
		if _, err := b.Drop(t.Context(), "default", "t"); err != nil {
			t.Fatal(err)
		}
		if err := a.Write(t.Context(), "default", put(item("x", 1))); errs.CodeOf(err) != errs.NotFound {
			t.Errorf("a write to a table that another dropped: %v", err)
		}
		if _, err := a.Get(t.Context(), "default", []store.Lookup{{Table: "t", Key: item("x", 1)}}); errs.CodeOf(err) != errs.NotFound {
			t.Errorf("a read: %v", err)
		}
	}
}

// An index is made on one Node while the other writes, moves and removes: it shows what the table holds.
func TestStore_FillsAnIndexWhileOthersWrite(t *testing.T) {
	t.Parallel()
	_, nodes := two(t)
	table := simple("t")
	indexes := table.Indexes
	table.Indexes = nil
	if _, err := nodes[0].Create(t.Context(), "default", table); err != nil {
		t.Fatal(err)
	}
	const items = 1500
	for i := 0; i < items; i += 100 {
		var changes []store.Change
		for j := i; j < i+100; j++ {
			changes = append(changes, put(item("k"+strconv.Itoa(j), j))...)
		}
		if err := nodes[0].Write(t.Context(), "default", changes); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for caller := range 4 {
		group.Go(func() {
			for i := caller; ctx.Err() == nil; i += 7 {
				key := "k" + strconv.Itoa(i*31%items)
				change := put(item(key, -i))
				if i%3 == 0 {
					change = []store.Change{{Table: "t", Key: item(key, 0), Apply: func(store.Item) (store.Item, error) { return nil, nil }}}
				}
				if err := nodes[1].Write(context.WithoutCancel(ctx), "default", change); err != nil {
					t.Error(err)
				}
			}
		})
	}
	_, err := nodes[0].Alter(t.Context(), "default", "t", func(is store.Table) (store.Table, error) { is.Indexes = indexes; return is, nil })
	stop()
	group.Wait()
	if err != nil {
		t.Fatal(err)
	}
	show := func(index string) map[string]string {
		all := map[string]string{}
		if err := nodes[1].Scan(t.Context(), "default", store.Scan{Table: "t", Index: index}, func(it store.Item) bool {
			if _, twice := all[it["h"].Str]; twice {
				t.Errorf("index %q shows %s twice", index, it["h"].Str)
			}
			all[it["h"].Str] = it["n"].Str
			return true
		}); err != nil {
			t.Fatal(err)
		}
		return all
	}
	if table, index := show(""), show("by-n"); !maps.Equal(table, index) {
		t.Errorf("the table holds %d items, the index shows %d, or others", len(table), len(index))
	}
}

// Keys as long as DynamoDB allows, of bytes that nothing makes shorter, in tables and indexes.
func TestStore_TakesTheLongestKeys(t *testing.T) {
	t.Parallel()
	s := open(t, fresh(t))
	noise := func(n int) store.Value {
		b := make([]byte, n)
		_, _ = rand.Read(b)
		return store.Bytes(b)
	}
	attr := func(name string) store.Attr { return store.Attr{Name: name, Kind: store.B} }
	table := store.Table{Name: "t", Key: store.Key{Hash: attr("h"), Range: attr("r")}, Indexes: []store.Index{{Name: "x", All: true, Key: store.Key{Hash: attr("g"), Range: attr("s")}}}}
	if _, err := s.Create(t.Context(), "default", table); err != nil {
		t.Fatal(err)
	}
	h, g := noise(2048), noise(2048)
	prefix := noise(1023).Str
	for i := range 20 {
		r := store.Bytes([]byte(prefix + string(rune('a'+i))))
		if err := s.Write(t.Context(), "default", put(store.Item{"h": h, "r": r, "g": g, "s": r})); err != nil {
			t.Fatal(err)
		}
	}
	// Another key that begins as this one does.
	other := store.Bytes([]byte(h.Str[:2047] + "x"))
	if err := s.Write(t.Context(), "default", put(store.Item{"h": other, "r": noise(1024), "g": noise(2048), "s": noise(1024)})); err != nil {
		t.Fatal(err)
	}
	for _, q := range []store.Query{{Table: "t", Hash: h}, {Table: "t", Index: "x", Hash: g}, {Table: "t", Hash: h, Descending: true}, {Table: "t", Index: "x", Hash: g, Descending: true}} {
		var got []string
		for more := true; more; { // page by page of one
			more = false
			if err := s.Query(t.Context(), "default", q, func(it store.Item) bool {
				got, q.After, more = append(got, it["r"].Str), it, true
				return false
			}); err != nil {
				t.Fatal(err)
			}
		}
		if q.Descending {
			slices.Reverse(got)
		}
		if len(got) != 20 || !slices.IsSorted(got) {
			t.Errorf("%q descending %v: %d items, sorted %v", q.Index, q.Descending, len(got), slices.IsSorted(got))
		}
	}
	for name, it := range map[string]store.Item{"range key": {"h": h, "r": noise(1025)}, "range key of an index": {"h": h, "r": noise(1), "g": g, "s": noise(1025)}} {
		if err := s.Write(t.Context(), "default", put(it)); errs.CodeOf(err) != errs.Invalid {
			t.Errorf("a %s of 1025 bytes: %v", name, err)
		}
	}
}

// One leads, also when its session is ended from outside: then it is told, and the other one's turn comes only after it has stopped.
func TestLead_PassesOnWhenTheSessionEnds(t *testing.T) {
	t.Parallel()
	pg := server.Get(t)
	database := pg.Database(t)
	nodes := [2]*postgres.Store{open(t, pg.URL(database)), open(t, pg.URL(database))}
	ctx, stop := context.WithCancel(t.Context())
	var leading [2]atomic.Bool
	var turns atomic.Int64
	var group sync.WaitGroup
	for i, s := range nodes {
		group.Go(func() {
			err := s.Lead(ctx, "it", func(ctx context.Context) error {
				leading[i].Store(true)
				turns.Add(1)
				<-ctx.Done()
				leading[i].Store(false)
				return nil
			})
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	one := func() bool { return leading[0].Load() != leading[1].Load() }
	eventually(t, "one leads", one)
	ended := pg.SQL(t, database, "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND mode = 'ExclusiveLock' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())")
	if n, _ := strconv.Atoi(ended); n < 1 {
		t.Fatalf("%s sessions of leaders were ended", ended)
	}
	eventually(t, "one leads again", func() bool { return turns.Load() == 2 && one() })
	stop()
	group.Wait()
}

// What a dropped table held is removed in time.
func TestStore_RemovesWhatWasDropped(t *testing.T) {
	t.Parallel()
	pg := server.Get(t)
	database := pg.Database(t)
	s := open(t, pg.URL(database))
	table := simple("t")
	table.View, table.Label, table.TTL = store.BothViews, "1", "n"
	if _, err := s.Create(t.Context(), "default", table); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if err := s.Write(t.Context(), "default", put(item(strconv.Itoa(i), 2_000_000_000+i))); err != nil {
			t.Fatal(err)
		}
	}
	const rows = "SELECT (SELECT count(*) FROM ebb.items) || ' ' || (SELECT count(*) FROM ebb.entries) || ' ' || (SELECT count(*) FROM ebb.expiry) || ' ' || (SELECT count(*) FROM ebb.records) || ' ' || (SELECT count(*) FROM ebb.garbage)"
	if got := pg.SQL(t, database, rows); got != "10 10 10 10 0" {
		t.Errorf("rows: %s", got)
	}
	if _, err := s.Drop(t.Context(), "default", "t"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nothing is left", func() bool { return pg.SQL(t, database, rows) == "0 0 0 0 0" })
}

func TestOpen_RefusesWhatIsNotItsOwn(t *testing.T) {
	t.Parallel()
	pg := server.Get(t)
	for name, row := range map[string]struct {
		before string
		code   errs.Code
		says   string
	}{
		"newer":        {"UPDATE ebb.meta SET format = 99", errs.Unsupported, "format 99"},
		"foreign":      {"DROP SCHEMA ebb CASCADE; CREATE SCHEMA ebb; CREATE TABLE ebb.mine(x int)", errs.Unsupported, "not ebb's"},
		"made by hand": {"DROP SCHEMA ebb CASCADE; CREATE SCHEMA ebb", "", ""},
	} {
		database := pg.Database(t)
		if err := open(t, pg.URL(database)).Close(); err != nil {
			t.Fatal(err)
		}
		pg.SQL(t, database, row.before)
		dump := "SELECT string_agg(relname::text || relkind::text, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace = 'ebb'::regnamespace"
		before := pg.SQL(t, database, dump)
		s, err := postgres.Open(t.Context(), pg.URL(database), postgres.Options{})
		if s != nil {
			_ = s.Close()
		}
		if errs.CodeOf(err) != row.code || err != nil && (!strings.Contains(err.Error(), row.says) || errs.HintOf(err) == "") {
			t.Errorf("%s: %v", name, err)
		}
		if after := pg.SQL(t, database, dump); row.code != "" && after != before {
			t.Errorf("%s: the schema was touched: %s, was %s", name, after, before)
		}
	}
}

// A Node that runs when a newer one changes the schema writes and reads no more.
func TestStore_StopsUnderANewerSchema(t *testing.T) {
	t.Parallel()
	pg := server.Get(t)
	database := pg.Database(t)
	s := open(t, pg.URL(database))
	if _, err := s.Create(t.Context(), "default", simple("t")); err != nil {
		t.Fatal(err)
	}
	pg.SQL(t, database, "UPDATE ebb.meta SET format = 99")
	if err := s.Write(t.Context(), "default", put(item("a", 1))); errs.CodeOf(err) != errs.Unsupported {
		t.Errorf("a write: %v", err)
	}
	if _, err := s.Table(t.Context(), "default", "t"); errs.CodeOf(err) != errs.Unsupported {
		t.Errorf("a read: %v", err)
	}
}

func TestOpen_ManyAtOnceMakeOneSchema(t *testing.T) {
	t.Parallel()
	url := fresh(t)
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			s, err := postgres.Open(t.Context(), url, postgres.Options{})
			if err != nil {
				t.Error(err)
				return
			}
			_ = s.Close()
		})
	}
	group.Wait()
}

// What is wrong with where the database is, is told without its password.
func TestOpen_ShowsNoPassword(t *testing.T) {
	t.Parallel()
	const secret = "s3cret"
	for _, url := range []string{
		"postgres://ebb:" + secret + "@127.0.0.1:1/ebb", "postgres://ebb:" + secret + "%zz@127.0.0.1:1/ebb", "postgres://ebb:" + secret + "@127.0.0.1:port/ebb",
		"postgres://ebb:" + secret + "@[::/ebb", "mysql://ebb:" + secret + "@db/ebb", "host=127.0.0.1 port=1 user=ebb password=" + secret, "host=127.0.0.1 port=one password=" + secret,
		"postgres://ebb:" + secret + "@127.0.0.1:1/ebb?sslmode=perhaps", secret + "://x",
	} {
		s, err := postgres.Open(t.Context(), url, postgres.Options{})
		if s != nil || err == nil {
			t.Errorf("%s was opened", url)
			continue
		}
		if all := fmt.Sprintf("%v %+v %s", err, err, errs.HintOf(err)); strings.Contains(all, "s3cr") || errs.HintOf(err) == "" && !strings.Contains(all, "postgres://") {
			t.Errorf("%s: %s", url, all)
		}
	}
}
