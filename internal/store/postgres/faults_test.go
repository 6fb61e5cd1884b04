package postgres_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/store/postgres"
	"github.com/ebb-run/ebb/internal/testkit/pgserver"
)

// patience bounds every wait.
const patience = 2 * time.Minute

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// whole counts the acknowledged Items that are lost, and checks that rows, index and counts of the table agree.
func whole(t *testing.T, s *postgres.Store, acked []string) {
	t.Helper()
	lost := 0
	for _, id := range acked {
		got, err := s.Get(t.Context(), "default", []store.Lookup{{Table: "t", Key: store.Item{"h": store.Text(id)}}})
		if err != nil {
			t.Fatal(err)
		}
		if got[0] == nil {
			lost++
		}
	}
	found, indexed := 0, 0
	if err := s.Scan(t.Context(), "default", store.Scan{Table: "t"}, func(store.Item) bool { found++; return true }); err != nil {
		t.Fatal(err)
	}
	if err := s.Scan(t.Context(), "default", store.Scan{Table: "t", Index: "by-n"}, func(store.Item) bool { indexed++; return true }); err != nil {
		t.Fatal(err)
	}
	is, err := s.Table(t.Context(), "default", "t")
	if lost > 0 || err != nil || found != indexed || is.Items != int64(found) || len(acked) < 100 {
		t.Errorf("%d of %d acknowledged items are lost; rows %d, index entries %d, count %d, err %v", lost, len(acked), found, indexed, is.Items, err)
	}
	t.Logf("%d acknowledged, %d there", len(acked), found)
}

const crashEnv = "EBB_TEST_TABLES_CRASH"

// A child writes with many callers, says what was acknowledged, and is killed in the middle, three times over.
func TestStore_LosesNothingAcknowledgedInAKill(t *testing.T) {
	if url := os.Getenv(crashEnv); url != "" {
		crashing(url)
		return
	}
	t.Parallel()
	url := fresh(t)
	var acked []string
	for round := range 3 {
		acked = append(acked, crash(t, url, round)...)
	}
	whole(t, open(t, url), acked)
}

func crash(t *testing.T, url string, round int) (acked []string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestStore_LosesNothingAcknowledgedInAKill$")
	cmd.Env = append(os.Environ(), crashEnv+"="+url, "EBB_TEST_ROUND="+strconv.Itoa(round))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if id, ok := strings.CutPrefix(lines.Text(), "acked "); ok {
			acked = append(acked, id)
			if len(acked) == 200+round*150 {
				_ = cmd.Process.Kill()
			}
		}
	}
	_ = cmd.Wait()
	return acked
}

func crashing(url string) {
	s, err := postgres.Open(context.Background(), url, postgres.Options{})
	if err == nil {
		if _, err = s.Create(context.Background(), "default", simple("t")); errs.CodeOf(err) == errs.Exists {
			err = nil
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var callers sync.WaitGroup
	for caller := range 8 {
		callers.Go(func() {
			for i := range 100_000 {
				id := fmt.Sprintf("%s-%d-%d", os.Getenv("EBB_TEST_ROUND"), caller, i)
				if err := s.Write(context.Background(), "default", put(item(id, i))); err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				fmt.Println("acked " + id) // one write of a whole line
			}
		})
	}
	callers.Wait()
}

// PostgreSQL is killed under load, in both ways and again and again, and started again: the same Store goes on, and what it acknowledged is there.
func TestStore_LosesNothingWhenPostgreSQLIsKilled(t *testing.T) {
	t.Parallel()
	pg := pgserver.Start(t)
	s := open(t, pg.URL(pg.Database(t)))
	if _, err := s.Create(t.Context(), "default", simple("t")); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var acked []string
	var failed, other atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	for caller := range 8 {
		callers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				id := fmt.Sprintf("%d-%d", caller, i)
				err := s.Write(context.WithoutCancel(ctx), "default", put(item(id, i)))
				switch {
				case err == nil:
					mu.Lock()
					acked = append(acked, id)
					mu.Unlock()
				case errs.CodeOf(err) == errs.Unavailable && errs.HintOf(err) != "":
					failed.Add(1)
					time.Sleep(5 * time.Millisecond)
				default:
					other.Add(1)
					t.Errorf("while the database is away: %v", err)
				}
			}
		})
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(acked)
	}
	for _, end := range []func(){pg.Kill, pg.Crash, pg.Kill} {
		before := count()
		eventually(t, "writes are acknowledged", func() bool { return count() > before+150 || other.Load() > 0 })
		was := failed.Load()
		end()
		eventually(t, "writes fail while it is away", func() bool { return failed.Load() > was || other.Load() > 0 })
		if err := pg.Start(); err != nil {
			t.Fatal(err)
		}
	}
	before := count()
	eventually(t, "writes are acknowledged again", func() bool { return count() > before+100 || other.Load() > 0 })
	stop()
	callers.Wait()
	whole(t, s, acked)
}

// Readers are told that the database is away, and read again once it is back.
func TestStore_SaysThatTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	pg := pgserver.Start(t)
	s := open(t, pg.URL(pg.Database(t)))
	if _, err := s.Create(t.Context(), "default", simple("t")); err != nil {
		t.Fatal(err)
	}
	if err := s.Write(t.Context(), "default", put(item("a", 1))); err != nil {
		t.Fatal(err)
	}
	get := func() error {
		_, err := s.Get(t.Context(), "default", []store.Lookup{{Table: "t", Key: item("a", 1)}})
		return err
	}
	pg.Crash()
	for what, err := range map[string]error{
		"a read": get(), "a write": s.Write(t.Context(), "default", put(item("b", 2))),
		"a list":      func() error { _, err := s.List(t.Context(), "default"); return err }(),
		"a new table": func() error { _, err := s.Create(t.Context(), "default", simple("u")); return err }(),
	} {
		if errs.CodeOf(err) != errs.Unavailable || errs.HintOf(err) == "" {
			t.Errorf("%s: %v, hint %q", what, err, errs.HintOf(err))
		}
	}
	if err := pg.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "reads are answered again", func() bool { return get() == nil })
	eventually(t, "writes too", func() bool { return s.Write(t.Context(), "default", put(item("b", 2))) == nil })
}
