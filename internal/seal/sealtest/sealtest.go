// Package sealtest gives tests seals that outlast a process: those that kill one open its data again.
//
// It is used by tests alone.
package sealtest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ebb-run/ebb/internal/seal"
)

// Make makes a key and a Sealer in a folder, and returns that.
func Make(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	Into(t, dir)
	return dir
}

// Into is Make for a folder that is given, and made where it is not there.
func Into(t testing.TB, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "key")
	if err := seal.NewKeyFile(path); err != nil {
		t.Fatal(err)
	}
	k, err := seal.ReadKey(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "marker"), seal.New().Marker(k), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Open opens what Make or Into has made; a nil Sealer where dir is empty or not there. It panics on another error, as it is used by killed
// processes too.
func Open(dir string) *seal.Sealer {
	if _, err := os.Stat(dir); err != nil {
		return nil
	}
	k, err := seal.ReadKey(filepath.Join(dir, "key"))
	if err != nil {
		panic(err)
	}
	marker, err := os.ReadFile(filepath.Join(dir, "marker"))
	if err != nil {
		panic(err)
	}
	s, err := seal.Open(k, marker)
	if err != nil {
		panic(err)
	}
	return s
}
