package fs_test

import (
	"testing"

	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/store/fs"
	"github.com/ebb-run/ebb/internal/store/storetest"
)

func open(t *testing.T, dir string, o fs.Options) *fs.Store {
	t.Helper()
	s, err := fs.Open(t.Context(), dir, o)
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
	storetest.RunObjects(t, func(t *testing.T) store.Objects { return open(t, t.TempDir(), fs.Options{}) })
}
