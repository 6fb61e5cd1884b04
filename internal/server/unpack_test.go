package server_test

import (
	"os"
	"path/filepath"
	"testing"
)

// TestDeploy_UnpacksBeforeTheFirstCall: what a first Invocation would wait for otherwise.
func TestDeploy_UnpacksBeforeTheFirstCall(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := open(t, dir)
	n.mustDeploy(t, "shop", "dev", says("one"))
	found, err := filepath.Glob(filepath.Join(dir, "artifacts", "trees", "*", "handler.js"))
	if err != nil || len(found) != 1 {
		entries, _ := os.ReadDir(filepath.Join(dir, "artifacts", "trees"))
		t.Errorf("unpacked are %q (%v) of %v", found, err, entries)
	}
}
