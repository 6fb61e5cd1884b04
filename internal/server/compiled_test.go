package server_test

import (
	"os"
	"path/filepath"
	"testing"
)

func TestCompiled_GoesWithItsArtifact(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	n := open(t, dir)
	n.mustDeploy(t, "shop", "dev", says("hello"))
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Join(dir, "artifacts", "manifests"))
	if err != nil || len(entries) == 0 {
		t.Fatal(entries, err)
	}
	stale := filepath.Join(dir, "compiled", "0123456789abcdef")
	kept := map[string]bool{}
	for _, e := range entries {
		name := e.Name()[:64] // a digest in hex
		kept[filepath.Join(dir, "compiled", name, "x")] = true
	}
	for folder := range kept {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(stale, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	n = open(t, dir)
	n.answers(t, "hello")
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stale); !os.IsNotExist(err) {
		t.Errorf("compiled code of an artifact that is not there is left: %v", err)
	}
	for folder := range kept {
		if _, err := os.Stat(folder); err != nil {
			t.Error(err)
		}
	}
}
