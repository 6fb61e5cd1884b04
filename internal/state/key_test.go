package state_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/state"
)

func TestLoadKey_MakesItOnceAndForTheOwnerOnly(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "key")
	var keys [16][]byte
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			var err error
			if keys[i], err = state.LoadKey(path); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, k := range keys {
		if len(k) != 32 || !bytes.Equal(k, keys[0]) || bytes.Equal(k, make([]byte, 32)) {
			t.Fatalf("key %x, first %x", k, keys[0])
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*")); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestLoadKey_RefusesWhatIsNoKey(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		make func(path string) error
		code errs.Code
		hint string
	}{
		"readable by others": {func(p string) error { return os.WriteFile(p, make([]byte, 32), 0o644) }, errs.Forbidden, "chmod 600"},
		"readable by group":  {func(p string) error { return os.WriteFile(p, make([]byte, 32), 0o640) }, errs.Forbidden, "chmod 600"},
		"empty":              {func(p string) error { return os.WriteFile(p, nil, 0o600) }, errs.Invalid, "Put back"},
		"short":              {func(p string) error { return os.WriteFile(p, make([]byte, 31), 0o600) }, errs.Invalid, "Put back"},
		"long":               {func(p string) error { return os.WriteFile(p, make([]byte, 33), 0o600) }, errs.Invalid, "Put back"},
		"a folder":           {func(p string) error { return os.Mkdir(p, 0o700) }, errs.Invalid, "Put the key"},
	} {
		path := filepath.Join(t.TempDir(), "key")
		if err := c.make(path); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, func() os.FileMode { i, _ := os.Stat(path); return i.Mode().Perm() }()); err != nil {
			t.Fatal(err)
		}
		_, err := state.LoadKey(path)
		if errs.CodeOf(err) != c.code || !strings.Contains(err.Error(), path) || !strings.Contains(errs.HintOf(err), c.hint) {
			t.Errorf("%s: %v (hint %q)", name, err, errs.HintOf(err))
		}
	}
	if _, err := state.LoadKey(filepath.Join(t.TempDir(), "no", "key")); err == nil {
		t.Error("no folder: no error")
	}
}
