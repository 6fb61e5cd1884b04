package build

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ebb-run/ebb/internal/diag"
)

func TestInstall_BringsRuntimeDependencies(t *testing.T) {
	t.Parallel()
	need(t, "npm")
	p := newProject(t, map[string]string{
		"package.json":       `{"name":"shop","dependencies":{"local":"file:./local"},"devDependencies":{"unreachable":"1.2.3"},"optionalDependencies":{"gone":"file:./gone"}}`,
		"index.js":           `exports.h = () => require("local")`,
		"local/package.json": `{"name":"local","version":"1.0.0"}`,
		"local/index.js":     "module.exports = 1",
	})
	f := node("f", "index.h")
	if got := paths(p.one(f).Code); !strings.Contains(got, "node_modules/local") {
		t.Errorf("local is missing: %s", got)
	}
	if _, err := os.Stat(filepath.Join(p.root, "package-lock.json")); err == nil {
		t.Error("a lock file was written into the project")
	}
	p.one(f)
	if len(p.steps) != 0 {
		t.Errorf("a second build took the steps %v", p.steps)
	}
}

func TestInstall_RuntimeDependencyThatCannotBeHad(t *testing.T) {
	t.Parallel()
	p := newProject(t, map[string]string{"package.json": `{"dependencies":{"nope":"9"}}`, "index.js": `require("nope")`})
	writeFiles(t, p.bin, map[string]string{"npm": "#!/bin/sh\necho 'npm error code ETARGET'\necho 'npm error notarget No matching version found for nope@9.'\nexit 1\n"})
	_, l := p.build(node("f", "index.h"))
	wantDiag(t, l, diag.Error, "install-failed", "package.json", "npm cannot install the dependencies: notarget No matching version found for nope@9.")
	if !strings.Contains(p.out.String(), "No matching version") {
		t.Error("npm's output was not shown")
	}
	// With node_modules there, the same failure is a warning.
	p.write(map[string]string{"node_modules/nope/package.json": "{}", "package-lock.json": `{"packages":{"node_modules/nope":{"version":"9.0.0"}}}`})
	r, l := p.build(node("f", "index.h"))
	wantDiag(t, l, diag.Warning, "install-failed", "package.json", "those installed are taken")
	if r.Functions["f"] == nil {
		t.Error("not built")
	}
}

func TestInstall_LeavesOutAnSDKThatCannotBeHad(t *testing.T) {
	t.Parallel()
	p := newProject(t, map[string]string{"package.json": `{"dependencies":{"aws-sdk":"2.9999.0","ok":"1"}}`, "index.js": `exports.h = 1`})
	writeFiles(t, p.bin, map[string]string{"npm": "#!/bin/sh\nif grep -q 9999 package.json; then echo 'npm error notarget No matching version found for aws-sdk@2.9999.0.'; exit 1; fi\nmkdir -p node_modules/ok; echo '{}' > node_modules/ok/package.json\n"})
	r, l := p.build(node("f", "index.h"))
	wantDiag(t, l, diag.Warning, "dependency-left-out", "package.json", "aws-sdk cannot be installed")
	if r.Functions["f"] == nil || !r.Functions["f"].Code.Has("node_modules/ok/package.json") {
		t.Errorf("got %v", l)
	}
}

func TestInstall_WithoutNpm(t *testing.T) {
	t.Parallel()
	p := newProject(t, map[string]string{"package.json": `{"dependencies":{"x":"1"}}`, "index.js": `exports.h = 1`})
	p.env["PATH"] = p.bin
	_, l := p.build(node("f", "index.h"))
	wantDiag(t, l, diag.Error, "install-failed", "package.json", "Install Node with npm")
}

func TestInstall_BrokenPackageJSON(t *testing.T) {
	t.Parallel()
	p := newProject(t, map[string]string{"package.json": `{"dependencies":`, "index.js": `exports.h = 1`})
	_, l := p.build(node("f", "index.h"))
	wantDiag(t, l, diag.Error, "install-failed", "package.json", "not valid JSON")
}

func TestNpmReason_IsOneLine(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, out, want string }{
		{"404", "npm error code E404\nnpm error 404 Not Found - GET https://r/x - Not found\nnpm error 404\n", "404 Not Found - GET https://r/x - Not found"},
		{"old style", "npm ERR! code ETARGET\nnpm ERR! notarget No matching version found for a@9.\n", "notarget No matching version found for a@9."},
		{"code kept", "npm error code EUSAGE\nnpm error\nnpm error The command does not fit\n", "EUSAGE: The command does not fit"},
		{"install script", "npm error code 1\nnpm error path /w/node_modules/sharp\nnpm error command failed\nnpm error command sh -c x\nnpm error Error: getaddrinfo ENOTFOUND github.com\n", "the install script of sharp fails: Error: getaddrinfo ENOTFOUND github.com"},
		{"nothing known", "something\nlast words\n", "last words"},
	} {
		if got := npmReason(row.out); got != row.want {
			t.Errorf("%s: got %q, want %q", row.name, got, row.want)
		}
	}
}

func TestOffender_IsADependencyOfTheProject(t *testing.T) {
	t.Parallel()
	p := &packageJSON{Deps: stringMap{"a": "1", "@s/b": "1"}, Optional: stringMap{"opt": "1"}}
	for out, want := range map[string]string{
		"npm error notarget No matching version found for @s/b@^9.0.0.":        "@s/b",
		"npm error 404  'a@1' is not in this registry.":                        "a",
		"npm error 404 Not Found - GET https://r/@s%2fb - Not found":           "@s/b",
		"npm error path /w/node_modules/opt\nnpm error command failed":         "opt",
		"npm error 404 Not Found - GET https://r/of-somebody-else - Not found": "",
	} {
		if got := offender(out, p); got != want {
			t.Errorf("%q: got %q, want %q", out, got, want)
		}
	}
}

func TestInstall_MovesModulesAcrossDisks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	from, to := filepath.Join(dir, "work", "stage", "node_modules"), filepath.Join(dir, "shop", "node_modules")
	writeFiles(t, from, map[string]string{"a/package.json": "{}", "a/bin/run": "#!/bin/sh\n", ".bin/run": "-> ../a/bin/run", "local": "-> ../../../shop/local"})
	writeFiles(t, filepath.Join(dir, "shop"), map[string]string{"local/package.json": `{"name":"local"}`})
	rename := func(a, b string) error { // as if work and shop were on two disks
		if strings.HasPrefix(a, filepath.Join(dir, "work")) != strings.HasPrefix(b, filepath.Join(dir, "work")) {
			return &os.LinkError{Op: "rename", Old: a, New: b, Err: syscall.EXDEV}
		}
		return os.Rename(a, b)
	}
	if err := moveModules(rename, from, to); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(to, "local", "package.json")); err != nil || string(text) != `{"name":"local"}` {
		t.Errorf("the link to a folder of the project: %q %v", text, err)
	}
	if info, err := os.Stat(filepath.Join(to, ".bin", "run")); err != nil || info.Mode()&0o111 == 0 {
		t.Errorf("the program: %v %v", info, err)
	}
	if info, err := os.Lstat(filepath.Join(to, ".bin", "run")); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link to the program: %v %v", info, err)
	}
	if list, err := os.ReadDir(filepath.Dir(to)); err != nil || len(list) != 2 {
		t.Errorf("the project holds %v, %v", list, err)
	}
}

func TestInstall_WorkOnAnotherDisk(t *testing.T) {
	t.Parallel()
	p := newProject(t, map[string]string{"package.json": `{"dependencies":{"ok":"1"}}`, "index.js": `exports.h = () => require("ok")`})
	work, err := os.MkdirTemp("/dev/shm", "ebb-test-*")
	if err != nil {
		t.Skipf("skipped: there is no other disk to write to: %v", err)
	}
	defer os.RemoveAll(work)
	a, errA := os.Stat(work)
	b, errB := os.Stat(p.root)
	if errA != nil || errB != nil || a.Sys().(*syscall.Stat_t).Dev == b.Sys().(*syscall.Stat_t).Dev {
		t.Skip("skipped: /dev/shm is the same disk as the folder for tests")
	}
	p.work = work
	writeFiles(t, p.bin, map[string]string{"npm": "#!/bin/sh\nmkdir -p node_modules/ok; echo '{}' > node_modules/ok/package.json; echo > node_modules/ok/index.js\n"})
	if b := p.one(node("f", "index.h")); !b.Code.Has("node_modules/ok/package.json") {
		t.Errorf("got %s", paths(b.Code))
	}
}
