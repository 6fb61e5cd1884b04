package server_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/backup"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/server"
	"github.com/ebb-run/ebb/internal/store"
)

func (n *node) backup(t *testing.T) []byte {
	t.Helper()
	in, err := n.client.Backup(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	data, err := io.ReadAll(in)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestBackup_OfANodeServesElsewhere(t *testing.T) {
	t.Parallel()
	n := open(t, filepath.Join(t.TempDir(), "data"))
	n.deployTable(t, nil)
	n.put(t, "a", 1)
	key := n.key(t, api.KeyRequest{Name: "ci", Role: "deploy"})
	all := n.backup(t)
	n.put(t, "b", 2) // is not in it

	// Everything that a Node writes is either in its backups or named as what they leave out.
	entries, err := os.ReadDir(n.dir)
	if err != nil {
		t.Fatal(err)
	}
	known := server.Entries()
	for _, e := range entries {
		if _, ok := known[e.Name()]; !ok {
			t.Errorf("%s of the data directory is neither in backups nor left out of them", e.Name())
		}
	}
	dir := filepath.Join(t.TempDir(), "elsewhere")
	if _, err := backup.Restore(t.Context(), bytes.NewReader(all), dir, false, nil); err != nil {
		t.Fatal(err)
	}
	restored, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range restored {
		if !known[e.Name()] {
			t.Errorf("the backup holds %s", e.Name())
		}
	}
	m := open(t, dir)
	got, err := server.Tables(m.Server).Get(t.Context(), "default", []store.Lookup{{Table: "orders", Key: store.Item{"id": store.Text("a")}}, {Table: "orders", Key: store.Item{"id": store.Text("b")}}})
	if err != nil || got[0]["n"].Str != "1" || got[1] != nil {
		t.Errorf("got %v, %v", got, err)
	}
	keys, err := m.client.Keys(t.Context())
	if err != nil || len(keys) != 1 || keys[0].ID != key.ID {
		t.Errorf("keys are %+v, %v", keys, err)
	}
	m.put(t, "c", 3)
	eventually(t, m, "a change of the restored table reaches its function", func() bool { return strings.Contains(m.logs(t), "saw INSERT c") })
}

func TestBackup_OneAtATimeAndNothingStaysOfIt(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	n := open(t, dir)
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- n.Backup(t.Context(), w) }()
	if _, err := r.Read(make([]byte, 100)); err != nil { // it has begun, and waits for its reader
		t.Fatal(err)
	}
	if _, err := n.client.Backup(t.Context()); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("a second one: %v", err)
	}
	_ = r.CloseWithError(errors.New("the disk is full"))
	if err := <-ended; err == nil {
		t.Error("a backup that nobody took is whole")
	}
	if _, err := os.Stat(filepath.Join(dir, "backup")); !os.IsNotExist(err) {
		t.Errorf("something stays of it: %v", err)
	}
	n.backup(t) // the next one is taken
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	// What a kill leaves goes with the next start.
	if err := os.MkdirAll(filepath.Join(dir, "backup", "nats"), 0o700); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
	if _, err := os.Stat(filepath.Join(dir, "backup")); !os.IsNotExist(err) {
		t.Errorf("what a killed one left stays: %v", err)
	}
}
