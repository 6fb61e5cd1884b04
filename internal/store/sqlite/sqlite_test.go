package sqlite_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/seal"
	"github.com/ebb-run/ebb/internal/seal/sealtest"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/store/sqlite"
	"github.com/ebb-run/ebb/internal/store/storetest"
)

func open(t *testing.T, path string, opt sqlite.Options) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), path, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func TestStore_KeepsTheContract(t *testing.T) {
	t.Parallel()
	storetest.Tables(t, func(t *testing.T) store.Tables {
		return open(t, filepath.Join(t.TempDir(), "tables.db"), sqlite.Options{})
	})
}

func TestStore_KeepsTheContractSealed(t *testing.T) {
	t.Parallel()
	storetest.Tables(t, func(t *testing.T) store.Tables {
		return open(t, filepath.Join(t.TempDir(), "tables.db"), sqlite.Options{Seal: seal.New().Box("tables")})
	})
}

func TestOpen_RefusesAnotherKey(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tables.db")
	s := open(t, path, sqlite.Options{Seal: seal.New().Box("tables")})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, box := range []*seal.Box{nil, seal.New().Box("tables")} {
		if _, err := sqlite.Open(t.Context(), path, sqlite.Options{Seal: box}); err == nil || errs.HintOf(err) == "" {
			t.Errorf("%v: %v", box, err)
		}
	}
}

func simple(name string) store.Table {
	return store.Table{Name: name, Key: store.Key{Hash: store.Attr{Name: "h", Kind: store.S}},
		Indexes: []store.Index{{Name: "by-n", All: true, Key: store.Key{Hash: store.Attr{Name: "n", Kind: store.N}}}}}
}

func put(it store.Item) []store.Change {
	return []store.Change{{Table: "t", Key: it, Apply: func(store.Item) (store.Item, error) { return it, nil }}}
}

func item(h string, n int) store.Item {
	return store.Item{"h": store.Text(h), "n": store.Num(strconv.Itoa(n))}
}

const (
	crashEnv = "EBB_TEST_TABLES_CRASH"
	sealEnv  = "EBB_TEST_TABLES_SEAL" // empty for a file that is not sealed
)

// A child writes with many callers, says what was acknowledged, and is killed in the middle, three times over.
func TestStore_LosesNothingAcknowledgedInAKill(t *testing.T) {
	if path := os.Getenv(crashEnv); path != "" {
		crashing(path)
		return
	}
	t.Parallel()
	for name, seals := range map[string]string{"clear": "", "sealed": sealtest.Make(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			losesNothing(t, seals)
		})
	}
}

func losesNothing(t *testing.T, seals string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tables.db")
	acked := map[string]bool{}
	for round := range 3 {
		for _, id := range crash(t, path, seals, round) {
			acked[id] = true
		}
	}
	s := open(t, path, sqlite.Options{Seal: sealtest.Open(seals).Box("tables")})
	lost := 0
	for id := range acked {
		got, err := s.Get(t.Context(), "default", []store.Lookup{{Table: "t", Key: store.Item{"h": store.Text(id)}}})
		if err != nil {
			t.Fatal(err)
		}
		if got[0] == nil {
			lost++
		}
	}
	if lost > 0 || len(acked) < 100 {
		t.Errorf("%d of %d acknowledged items are lost", lost, len(acked))
	}
	rows, entries := 0, 0
	if err := s.Scan(t.Context(), "default", store.Scan{Table: "t"}, func(store.Item) bool { rows++; return true }); err != nil {
		t.Fatal(err)
	}
	if err := s.Scan(t.Context(), "default", store.Scan{Table: "t", Index: "by-n"}, func(store.Item) bool { entries++; return true }); err != nil {
		t.Fatal(err)
	}
	is, err := s.Table(t.Context(), "default", "t")
	if err != nil || rows != entries || is.Items != int64(rows) {
		t.Errorf("rows %d, index entries %d, count %d, err %v", rows, entries, is.Items, err)
	}
	t.Logf("%d acknowledged, %d there", len(acked), rows)
}

func crash(t *testing.T, path, seals string, round int) (acked []string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestStore_LosesNothingAcknowledgedInAKill$")
	cmd.Env = append(os.Environ(), crashEnv+"="+path, sealEnv+"="+seals, "EBB_TEST_ROUND="+strconv.Itoa(round))
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

func crashing(path string) {
	s, err := sqlite.Open(context.Background(), path, sqlite.Options{Seal: sealtest.Open(os.Getenv(sealEnv)).Box("tables")})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if _, err := s.Create(context.Background(), "default", simple("t")); err != nil && errs.CodeOf(err) != errs.Exists {
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

func TestStore_RefusesOnAFullDiskAndKeepsWhatStands(t *testing.T) {
	t.Parallel()
	for name, box := range map[string]*seal.Box{"clear": nil, "sealed": seal.New().Box("tables")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refusesOnAFullDisk(t, box)
		})
	}
}

func refusesOnAFullDisk(t *testing.T, box *seal.Box) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tables.db")
	s := open(t, path, sqlite.Options{MaxPages: 40, Seal: box})
	if _, err := s.Create(t.Context(), "default", simple("t")); err != nil {
		t.Fatal(err)
	}
	var err error
	n := 0
	for ; n < 1000; n++ {
		it := item(strconv.Itoa(n), n)
		it["pad"] = store.Text(strings.Repeat("x", 4000))
		if err = s.Write(t.Context(), "default", put(it)); err != nil {
			break
		}
	}
	if errs.CodeOf(err) != errs.Unavailable || errs.HintOf(err) == "" || n == 0 {
		t.Fatalf("after %d items: %v", n, err)
	}
	is, err := s.Table(t.Context(), "default", "t")
	if err != nil || is.Items != int64(n) {
		t.Errorf("items = %d, want %d; %v", is.Items, n, err)
	}
	// With room again it goes on.
	if err := s.Write(t.Context(), "default", []store.Change{{Table: "t", Key: item("0", 0), Apply: func(store.Item) (store.Item, error) { return nil, nil }}}); err != nil {
		t.Errorf("a removal on the full disk: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, sqlite.Options{Seal: box})
	if err := s.Write(t.Context(), "default", put(item("again", 1))); err != nil {
		t.Error(err)
	}
}

// What is written is in the one file after Close, and none is open.
func TestClose_LeavesOneFile(t *testing.T) {
	t.Parallel()
	for name, box := range map[string]*seal.Box{"clear": nil, "sealed": seal.New().Box("tables")} {
		dir := t.TempDir()
		s := open(t, filepath.Join(dir, "tables.db"), sqlite.Options{Seal: box})
		if _, err := s.Create(t.Context(), "default", simple("t")); err != nil {
			t.Fatal(err)
		}
		if err := s.Write(t.Context(), "default", put(item("a", 1))); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		left, err := filepath.Glob(filepath.Join(dir, "tables.db-*"))
		if err != nil || len(left) > 0 {
			t.Errorf("%s: %v %v", name, left, err)
		}
	}
}

func TestOpen_RefusesWhatIsNotItsOwn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "tables.db")
	s := open(t, path, sqlite.Options{})
	if _, err := sqlite.Open(t.Context(), path, sqlite.Options{}); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("a second opener: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
	if err := s.Write(t.Context(), "default", put(item("x", 1))); errs.CodeOf(err) != errs.Unavailable {
		t.Errorf("a write to a closed store: %v", err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	newer := append([]byte{}, raw...)
	newer[63]++ // the last byte of the user version
	foreign := append([]byte{}, raw...)
	foreign[68] = 0
	for name, content := range map[string][]byte{"newer": newer, "foreign": foreign, "text": []byte("hello, this is not a database, whatever its name says, and it is long enough to have a header in it as well.")} {
		p := filepath.Join(dir, name+".db")
		if err := os.WriteFile(p, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := sqlite.Open(t.Context(), p, sqlite.Options{}); errs.CodeOf(err) != errs.Unsupported {
			t.Errorf("%s: %v", name, err)
		}
		if after, err := os.ReadFile(p); err != nil || string(after) != string(content) {
			t.Errorf("%s: the file was touched", name)
		}
	}
}

func TestStore_StandsAfterBeingOpenedAgain(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tables.db")
	s := open(t, path, sqlite.Options{})
	table := simple("t")
	table.View, table.Label = store.BothViews, "1"
	if _, err := s.Create(t.Context(), "default", table); err != nil {
		t.Fatal(err)
	}
	if err := s.Write(t.Context(), "default", put(item("a", 1))); err != nil {
		t.Fatal(err)
	}
	first, err := s.Records(t.Context(), "default", "t", 0, 10)
	if err != nil || len(first) != 1 {
		t.Fatalf("%v %v", first, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, sqlite.Options{})
	if err := s.Write(t.Context(), "default", put(item("b", 2))); err != nil {
		t.Fatal(err)
	}
	all, err := s.Records(t.Context(), "default", "t", 0, 10)
	if err != nil || len(all) != 2 || all[1].Seq <= first[0].Seq {
		t.Errorf("%+v %v", all, err)
	}
}

func BenchmarkWrite(b *testing.B) {
	s, err := sqlite.Open(b.Context(), filepath.Join(b.TempDir(), "tables.db"), sqlite.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	table := simple("t")
	table.Indexes = nil
	if _, err := s.Create(b.Context(), "default", table); err != nil {
		b.Fatal(err)
	}
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		id := fmt.Sprintf("%p", pb)
		for i := 0; pb.Next(); i++ {
			it := item(id+strconv.Itoa(i), i)
			it["payload"] = store.Text(strings.Repeat("x", 200))
			if err := s.Write(context.Background(), "default", put(it)); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkGet(b *testing.B) {
	s, err := sqlite.Open(b.Context(), filepath.Join(b.TempDir(), "tables.db"), sqlite.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Create(b.Context(), "default", simple("t")); err != nil {
		b.Fatal(err)
	}
	it := item("k", 1)
	it["payload"] = store.Text(strings.Repeat("x", 200))
	if err := s.Write(context.Background(), "default", put(it)); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := s.Get(context.Background(), "default", []store.Lookup{{Table: "t", Key: it}}); err != nil {
			b.Fatal(err)
		}
	}
}
