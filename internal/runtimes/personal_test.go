package runtimes_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ebb-run/ebb/internal/runtimes"
)

func TestPersonal_IsWhatHoldsMoreThanAnInterpreter(t *testing.T) {
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real", "ann"), filepath.Join(dir, "home")
	if err := os.MkdirAll(real, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", link)
	for path, want := range map[string]bool{
		link: true, real: true, filepath.Dir(real): true, dir: true, "/": true, "/home": true, "/home/anybody": true, "/Users/anybody": true,
		filepath.Join(real, ".local"): true, "/home/anybody/.local": true,
		filepath.Join(real, ".pyenv", "versions", "3.13"): false, filepath.Join(link, ".nvm"): false, "/opt/python": false, real + "y": false,
	} {
		if got := runtimes.Personal(path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}
