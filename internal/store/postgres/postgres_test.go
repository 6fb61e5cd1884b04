package postgres_test

import (
	"os"
	"strconv"
	"testing"

	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/store/postgres"
	"github.com/ebb-run/ebb/internal/store/storetest"
	"github.com/ebb-run/ebb/internal/testkit/pgserver"
)

var server pgserver.Shared

func TestMain(m *testing.M) {
	code := m.Run()
	server.Stop()
	os.Exit(code)
}

// open opens a database that the test has to itself.
func open(t testing.TB, url string) *postgres.Store {
	t.Helper()
	s, err := postgres.Open(t.Context(), url, postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func fresh(t testing.TB) (url string) {
	t.Helper()
	s := server.Get(t)
	return s.URL(s.Database(t))
}

func TestStore_KeepsTheContract(t *testing.T) {
	t.Parallel()
	storetest.Tables(t, func(t *testing.T) store.Tables { return open(t, fresh(t)) })
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
