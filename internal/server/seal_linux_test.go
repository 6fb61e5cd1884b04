package server

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/errs"
)

func TestScratch_IsThisUsersAloneAndInMemory(t *testing.T) {
	t.Parallel()
	given, data := t.TempDir(), t.TempDir()
	none := func(string) (string, bool) { return "", false }
	dir, err := scratch(given, data, none)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 || filepath.Dir(dir) != given {
		t.Errorf("%s: %v %v", dir, info, err)
	}
	if again, err := scratch(given, data, none); err != nil || again != dir {
		t.Errorf("again: %s %v", again, err)
	}
	if other, err := scratch(given, t.TempDir(), none); err != nil || other == dir {
		t.Errorf("of another data directory: %s %v", other, err)
	}
	if _, err := scratch(filepath.Join(data, "x"), data, none); errs.CodeOf(err) != errs.Invalid || errs.HintOf(err) == "" {
		t.Errorf("in the data directory: %v", err)
	}
	if _, err := scratch(filepath.Join(given, "none"), data, none); errs.CodeOf(err) != errs.Invalid || errs.HintOf(err) == "" {
		t.Errorf("missing: %v", err)
	}
	for name, harm := range map[string]func() error{
		"open to others": func() error { return os.Chmod(dir, 0o755) },
		"a link":         func() error { return os.Symlink(data, dir) },
		"a file":         func() error { return os.WriteFile(dir, nil, 0o600) },
	} {
		if name != "open to others" {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}
		if err := harm(); err != nil {
			t.Fatal(err)
		}
		if _, err := scratch(given, data, none); errs.CodeOf(err) != errs.Forbidden || errs.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := scratch(given, data, none); err != nil {
			t.Fatal(err)
		}
	}
	if !inMemory("/dev/shm") {
		t.Skip("/dev/shm is not in memory here, or no programs run from it")
	}
	own, err := scratch("", data, none)
	if err != nil || !strings.HasPrefix(own, "/dev/shm/ebb-") {
		t.Errorf("by itself: %s %v", own, err)
	}
	if err := os.RemoveAll(own); err != nil {
		t.Error(err)
	}
	if inMemory("/proc") || mountedBelow(own) || !mountedBelow("") {
		t.Error("what is mounted is not told")
	}
}
