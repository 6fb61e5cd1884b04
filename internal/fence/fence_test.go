package fence_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/fence"
)

// place writes files into a folder without links; a text that begins with "-> " makes a link.
func place(t *testing.T, files map[string]string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		full := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		to, link := strings.CutPrefix(text, "-> ")
		switch {
		case link:
			err = os.Symlink(strings.ReplaceAll(to, "@", dir), full)
		default:
			err = os.WriteFile(full, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestCheck_Table(t *testing.T) {
	t.Parallel()
	home := map[string]string{
		"me/work/shop/serverless.yml": "", "me/work/shop/.env": "", "me/work/shop/.ebb/data/key": "", "me/work/shop/.ebb/build/pip/x.py": "",
		"me/work/shared/x.yml": "", "me/work/shared/.env": "", "me/work/.secret/x.yml": "",
		"me/.ssh/id_rsa": "", "me/.aws/package.json": "{}", "me/.aws/credentials": "", "me/notes.txt": "", "me/.env": "", "me/mail/inbox.txt": "",
		"me/lib/package.json": "{}", "me/lib/src/index.js": "", "me/lib/.env": "", "me/py/pyproject.toml": "", "me/py/x.py": "", "me/go/pkg/mod/x/go.sum": "", "me/mod/go.mod": "", "me/mod/sub/x.go": "",
		"me/tools/node_modules/x/.hidden/index.js": "", "me/.cache/ebb/node/x.js": "", "me/.local/share/pnpm/store/x.js": "", "me/.local/share/keyrings/login": "",
		"other/work/x.yml": "", "me/work/shop/node_modules/evil": "-> @/me/.ssh", "me/work/shop/key.pem": "-> @/me/.ssh/id_rsa", "me/work/shop/ok.yml": "-> ../shared/x.yml",
		"me/mono/.git/config": "", "me/mono/.git/HEAD": "", "me/mono/.git/modules/x/config": "", "me/mono/svc/api/serverless.yml": "", "me/mono/.shared/x.yml": "", "me/mono/lib/.env": "",
		"me/space/package.json": `{"workspaces":["apps/*"]}`, "me/space/apps/a/serverless.yml": "", "me/space/.config/x.json": "",
		"me/pnpm/pnpm-workspace.yaml": "", "me/pnpm/a/serverless.yml": "", "me/pnpm/.x": "", "me/proj/.git/HEAD": "", "me/proj/x.yml": "", "me/serverless.yml": "",
	}
	for _, c := range []struct {
		project, file string
		want          string // of the reason; "" is inside
	}{
		{"me/work/shop", "me/work/shop/serverless.yml", ""},
		{"me/work/shop", "me/work/shop/.env", ""},
		{"me/work/shop", "me/work/shop", ""},
		{"me/work/shop", "me/work/shop/none.yml", ""},
		{"me/work/shop", "me/work/shop/.ebb/data/key", "ebb keeps keys"},
		{"me/work/shop", "me/work/shop/.ebb/build/pip/x.py", ""},
		{"me/work/shop", "me/work/shop/key.pem", "is outside of"},
		{"me/work/shop", "me/work/shop/node_modules/evil/id_rsa", "is outside of"},
		{"me/work/shop", "me/work/shop/node_modules/evil/none", "is outside of"},
		{"me/work/shop", "me/work/shop/ok.yml", ""},
		{"me/work/shop", "me/work/shared/x.yml", ""},
		{"me/work/shop", "me/work", ""},
		{"me/work/shop", "me/work/shared/.env", "hidden"},
		{"me/work/shop", "me/work/.secret/x.yml", "hidden"},
		{"me/work/shop", "me", "is outside of"},
		{"me/work/shop", "me/notes.txt", "is outside of"},
		{"me/work/shop", "me/mail/inbox.txt", "is outside of"},
		{"me/work/shop", "me/.env", "hidden"},
		{"me/work/shop", "me/.ssh/id_rsa", "hidden"},
		{"me/work/shop", "me/.aws/credentials", "hidden"},
		{"me/work/shop", "me/.aws/package.json", "hidden"},
		{"me/work/shop", "me/lib/src/index.js", ""},
		{"me/work/shop", "me/lib", ""},
		{"me/work/shop", "me/lib/.env", "hidden"},
		{"me/work/shop", "me/py/x.py", ""},
		{"me/work/shop", "me/mod/sub/x.go", ""},
		{"me/work/shop", "me/tools/node_modules/x/.hidden/index.js", ""},
		{"me/work/shop", "me/.cache/ebb/node/x.js", ""},
		{"me/work/shop", "me/.local/share/pnpm/store/x.js", ""},
		{"me/work/shop", "me/.local/share/keyrings/login", "hidden"},
		{"me/work/shop", "other/work/x.yml", "is outside of"},
		{"me/work/shop", "/etc/passwd", "is outside of"},
		{"me/work/shop", "/proc/self/environ", "is outside of"},
		{"me/mono/svc/api", "me/mono/.shared/x.yml", ""},
		{"me/mono/svc/api", "me/mono/lib/.env", ""},
		{"me/mono/svc/api", "me/mono/.git/HEAD", ""},
		{"me/mono/svc/api", "me/mono/.git/config", "credentials"},
		{"me/mono/svc/api", "me/mono/.git/modules/x/config", "credentials"},
		{"me/mono/svc/api", "me/notes.txt", "is outside of"},
		{"me/space/apps/a", "me/space/.config/x.json", ""},
		{"me/pnpm/a", "me/pnpm/.x", ""},
		{"me", "me/serverless.yml", ""},
		{"me", "me/mail/inbox.txt", ""},
		{"me", "me/.ssh/id_rsa", "hidden in a home"},
	} {
		t.Run(c.project+" "+c.file, func(t *testing.T) {
			t.Parallel()
			dir := place(t, home)
			at := func(name string) string {
				if filepath.IsAbs(name) {
					return name
				}
				return filepath.Join(dir, name)
			}
			f := fence.New(fence.Options{Root: at(c.project), Own: []string{at("me/.cache/ebb"), at(c.project + "/.ebb/build")}, Env: func(name string) (string, bool) { return at("me"), name == "HOME" }})
			err := f.Check(at(c.file))
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if err == nil {
				return
			}
			if errs.CodeOf(err) != errs.Forbidden || !strings.Contains(err.Error(), c.file) || !strings.Contains(errs.HintOf(err), "--allow-files") {
				t.Errorf("it is said as %v (%s), hint %s", err, errs.CodeOf(err), errs.HintOf(err))
			}
			if err := f.Allowing(at(c.file)).Check(at(c.file)); err != nil {
				t.Errorf("allowed: %v", err)
			}
		})
	}
}

func TestCheck_WhatEverybodyWritesToIsNotShared(t *testing.T) {
	t.Parallel()
	dir := place(t, map[string]string{"a/b/shop/x": "", "a/b/other/x": "", "a/.git/HEAD": ""})
	shared, other := filepath.Join(dir, "a", "b"), filepath.Join(dir, "a", "b", "other", "x")
	check := func() error {
		return fence.New(fence.Options{Root: filepath.Join(shared, "shop")}).Check(other)
	}
	if err := check(); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(shared, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	if err := check(); err == nil {
		t.Error("a neighbour in a folder like /tmp is the project's, by a repository above it or by the folder itself")
	}
}

func TestAllowing_LeavesTheFirstAsItWas(t *testing.T) {
	t.Parallel()
	dir := place(t, map[string]string{"x/key": ""})
	f := fence.New(fence.Options{Root: "/srv"})
	if f.Allowing(dir).Check(filepath.Join(dir, "x/key")) != nil || f.Check("/etc/hostname") == nil || len(f.Allowed()) != 0 {
		t.Error("what is allowed is not inside, or the Fence has changed")
	}
}
