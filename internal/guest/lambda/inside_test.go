package lambda

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestInstallation_ShowsNoHome(t *testing.T) {
	home, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", home)
	at := func(p string) string { return filepath.Join(home, p) }
	for _, file := range []string{"bin/node", ".local/bin/python3.13", ".local/lib/a", ".local/share/keys", ".venv/bin/x", "tools/node", ".nvm/v20/bin/node"} {
		if err := os.MkdirAll(filepath.Dir(at(file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at(file), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{".local/bin/node": at(".nvm/v20/bin/node"), ".venv/bin/python": at(".local/bin/python3.13")} {
		if err := os.Symlink(to, at(link)); err != nil {
			t.Fatal(err)
		}
	}
	for program, want := range map[string][]string{
		"bin/node":              {"bin"},
		"tools/node":            {"tools"},
		".nvm/v20/bin/node":     {".nvm/v20"},
		".local/bin/node":       {".local/bin", ".local/lib", ".nvm/v20"},
		".local/bin/python3.13": {".local/bin", ".local/lib"},
		".venv/bin/python":      {".venv", ".local/bin", ".local/lib"},
	} {
		var got []string
		for _, m := range installation(at(program)) {
			if m.Source != m.Target {
				t.Errorf("%s: %s is shown at %s", program, m.Source, m.Target)
			}
			rel, _ := filepath.Rel(home, m.Source)
			got = append(got, rel)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s shows %q of the home, want %q", program, got, want)
		}
	}
	for _, dir := range []string{"/root/bin/node", "/home/somebody/bin/node", filepath.Dir(home) + "/bin/node"} {
		for _, m := range installation(dir) {
			if m.Source == filepath.Dir(filepath.Dir(dir)) {
				t.Errorf("%s shows %s", dir, m.Source)
			}
		}
	}
}
