package workshop

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/build"
	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/sandbox/process"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// open gives a Workshop and a project's folder.
func open(t *testing.T, l Limits) (*Workshop, string) {
	t.Helper()
	dir := t.TempDir()
	d, err := process.Open(process.Options{Dir: filepath.Join(dir, "run"), OneUser: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	if ok, why := d.Isolated(); !ok {
		t.Skipf("no isolation on this machine: %v", why)
	}
	root := filepath.Join(dir, "shop")
	write(t, filepath.Join(root, "source"), "theirs")
	return New(Options{
		Driver: d, User: d.User(), Dir: filepath.Join(root, ".ebb", "jobs"), Shared: filepath.Join(dir, "shared"), Limits: l,
		Env: func(name string) (string, bool) { return filepath.Join(dir, "home"), name == "HOME" },
	}), root
}

// sh is a step that runs a script.
func sh(script string) build.Step {
	return build.Step{Command: []string{"/bin/sh", "-ec", script}, Env: []string{"PATH=/usr/bin:/bin"}}
}

func TestRun_BringsBackResultsAlone(t *testing.T) {
	t.Parallel()
	w, root := open(t, Limits{})
	write(t, filepath.Join(root, "bin", "kept"), "kept")
	write(t, filepath.Join(root, "node_modules", "old", "index.js"), "old")
	work := filepath.Join(root, ".ebb", "made")
	write(t, filepath.Join(work, "before"), "")
	err := w.Run(context.Background(), build.Job{
		Root: root, Dir: root, Modules: true, Results: []string{filepath.Join(root, "bin"), filepath.Join(root, "one"), filepath.Join(root, "none")}, Writes: []string{work},
		Steps: []build.Step{sh(`
test -f node_modules/old/index.js; rm -r node_modules/old; mkdir node_modules/new; echo new > node_modules/new/index.js
echo changed > source; echo more > other; echo made > bin/made; echo one > one; echo done > ` + work + `/after
mkdir -p packages/a/node_modules; ln -s ../packages/a node_modules/a; ln -s /etc/passwd node_modules/out; ln -s ../../../../etc/passwd node_modules/up; ln -s ` + root + `/source node_modules/abs
cp /bin/true bin/suid; chmod 6755 bin/suid; mkdir bin/sgid; chmod 2777 bin/sgid; mkfifo bin/pipe; ln -s /etc ` + work + `/link; chmod 000 bin/made`)},
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"source": "theirs", "bin/kept": "kept", "bin/made": "made\n", "one": "one\n", "node_modules/new/index.js": "new\n", "node_modules/abs": "theirs", ".ebb/made/after": "done\n",
	} {
		if got := read(t, filepath.Join(root, path)); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	for _, path := range []string{"other", "node_modules/old", "node_modules/out", "node_modules/up", "bin/pipe", "none", ".ebb/made/link", "packages"} {
		if _, err := os.Lstat(filepath.Join(root, path)); err == nil {
			t.Errorf("%s came back", path)
		}
	}
	if info, err := os.Lstat(filepath.Join(root, "bin", "suid")); err != nil || info.Mode() != 0o755 {
		t.Errorf("a set-user-id program came back as %v (%v)", info.Mode(), err)
	}
	if info, err := os.Lstat(filepath.Join(root, "bin", "sgid")); err != nil || info.Mode() != os.ModeDir|0o755 {
		t.Errorf("a set-group-id folder that all may write came back as %v (%v)", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(root, ".ebb", "jobs", "job-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestRun_WritesThroughNoLinkOfTheProject(t *testing.T) {
	t.Parallel()
	w, root := open(t, Limits{})
	outside := filepath.Join(t.TempDir(), "outside")
	write(t, filepath.Join(outside, "bin", "x"), "")
	if err := os.Symlink(outside, filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	err := w.Run(context.Background(), build.Job{
		Root: root, Dir: root, Results: []string{filepath.Join(root, "link", "bin")}, Steps: []build.Step{sh("rm link; mkdir -p link/bin; echo evil > link/bin/x")},
	})
	if err == nil || !strings.Contains(err.Error(), "behind a symbolic link") || read(t, filepath.Join(outside, "bin", "x")) != "" {
		t.Errorf("got %v", err)
	}
}

func TestRun_AFailureBringsNothing(t *testing.T) {
	t.Parallel()
	w, root := open(t, Limits{})
	err := w.Run(context.Background(), build.Job{Root: root, Dir: root, Results: []string{filepath.Join(root, "bin")}, Steps: []build.Step{sh("mkdir bin; echo x > bin/x"), sh("exit 3"), sh("echo y > bin/y")}})
	if err == nil || err.Error() != "exit status 3" {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(root, "bin")); err == nil {
		t.Error("something came back")
	}
}

func TestRun_BoundsStepsAndSaysWhich(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		limits       Limits
		script, want string
	}{
		"memory": {Limits{MemoryBytes: 64 << 20}, "exec python3 -c 'x = bytearray(900 << 20)'", "more memory than the 64 MiB"},
		"disk":   {Limits{DiskBytes: 32 << 20}, "dd if=/dev/zero of=big bs=1M count=4000 2>/dev/null; sync; sleep 60", "written more than 32 MiB"},
		"time":   {Limits{Time: 300e6}, "sleep 60", "ended after 300ms"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, root := open(t, c.limits)
			err := w.Run(context.Background(), build.Job{Root: root, Dir: root, Steps: []build.Step{sh(c.script)}})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestRun_KeepsCachesApart(t *testing.T) {
	t.Parallel()
	w, root := open(t, Limits{})
	fetch := sh(`test ! -e "$npm_config_cache/mine"; mkdir -p "$npm_config_cache"; echo shared > "$npm_config_cache/shared"`)
	fetch.Fetches = true
	script := sh(`test ! -e "$npm_config_cache/shared"; mkdir -p "$npm_config_cache"; echo mine > "$npm_config_cache/mine"`)
	for range 2 {
		if err := w.Run(context.Background(), build.Job{Root: root, Dir: root, Steps: []build.Step{fetch, script, fetch}}); err != nil {
			t.Error(err)
		}
	}
	if got := read(t, filepath.Join(w.o.Shared, "npm", "shared")); got != "shared\n" {
		t.Errorf("the shared cache holds %q", got)
	}
}

func TestRun_ShowsNothingWithoutARoot(t *testing.T) {
	t.Parallel()
	w, root := open(t, Limits{})
	dir := filepath.Join(t.TempDir(), "set")
	write(t, filepath.Join(dir, "in"), "in")
	if err := w.Run(context.Background(), build.Job{Dir: dir, Writes: []string{dir}, Steps: []build.Step{sh("test ! -e " + root + "; cp in out")}}); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(dir, "out")); got != "in" {
		t.Errorf("got %q", got)
	}
}

func TestEnvironment_ScriptsSeeNoCredentials(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	write(t, filepath.Join(home, ".npmrc"), "registry=https://me:canary@npm.example/\n//npm.example/:_authToken=canary\n_auth=canary\ncafile=/ca.pem\nhttps-proxy=http://u:canary@proxy\n//npm.example/:certfile=/canary\nemail=canary@example.com\n")
	write(t, filepath.Join(home, ".config", "pip", "pip.conf"), "[global]\nindex-url = https://me:canary@pip.example/simple\nextra-index-url =\n    https://a.example/\n    https://me:canary@b.example/\n[list]\nformat = json\n")
	write(t, filepath.Join(home, ".config", "go", "env"), "GOPROXY=https://me:canary@go.example,direct\nGOSUMDB=off\n")
	env := func(name string) (string, bool) { return home, name == "HOME" }
	dir := t.TempDir()
	b := &bench{w: New(Options{Env: env, User: -1}), dir: dir, job: build.Job{Root: "/shop"}}
	step := build.Step{Command: []string{"/bin/sh"}, Keep: []string{"DEPLOY_TOKEN"}, Env: []string{
		"PATH=.:/shop/bin:node_modules/.bin:/bin", "HOME=" + home, "HTTPS_PROXY=http://u:canary@proxy:1", "npm_config_//npm.example/:_authToken=canary", "GOPROXY=https://x:canary@go.example", "SSH_AUTH_SOCK=/canary", "NPM_TOKEN=canary",
		"DEPLOY_TOKEN=kept", "YARN_REGISTRY=https://me:canary@yarn.example/",
	}}
	for _, fetches := range []bool{false, true} {
		step.Fetches = fetches
		at, all, err := b.furnish(step)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Join(all, "\n") + read(t, filepath.Join(at, "home", ".npmrc"))
		if strings.Contains(text, "canary") != fetches {
			t.Errorf("fetches %v: got\n%s", fetches, text)
		}
		for _, want := range []string{"HOME=/ebb-build/home", "PATH=/bin\n", "registry=https://", "cafile=/ca.pem", "DEPLOY_TOKEN=kept", "PIP_INDEX_URL=https://", "PIP_EXTRA_INDEX_URL=https://a.example/ https://", "go.example,direct", "GOSUMDB=off"} {
			if !strings.Contains(text, want) {
				t.Errorf("fetches %v: %s is not in\n%s", fetches, want, text)
			}
		}
		if strings.Contains(text, "PIP_FORMAT") || strings.Contains(text, "SSH_AUTH_SOCK") {
			t.Errorf("fetches %v: got\n%s", fetches, text)
		}
	}
	got := Registries(env)
	for _, want := range []string{"npm.example:443", "pip.example:443", "a.example:443", "b.example:443", "go.example:443", "pypi.org:443"} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is not in %v", want, got)
		}
	}
	if strings.Contains(strings.Join(got, " "), "canary") {
		t.Errorf("got %v", got)
	}
}

func TestEgress_IsRegistriesUnlessWidened(t *testing.T) {
	t.Parallel()
	env := func(name string) (string, bool) {
		v, ok := map[string]string{"HTTPS_PROXY": "http://proxy.example:3128", "npm_config_registry": "http://localhost:4873/"}[name]
		return v, ok
	}
	for _, c := range []struct {
		allow, owner, host string
		port               uint16
		want               bool
	}{
		{"", online, "registry.npmjs.org", 443, true}, {"", online, "registry.npmjs.org", 80, false}, {"", online, "localhost", 4873, true}, {"", online, "example.com", 443, false},
		{"", online, "proxy.example", 3128, false}, {"", fetching, "proxy.example", 3128, true}, {"", offline, "registry.npmjs.org", 443, false}, {"", "", "registry.npmjs.org", 443, false},
		{"example.com:443", online, "example.com", 443, true}, {"example.com:443", offline, "example.com", 443, false}, {"anything", online, "anywhere.example", 1, true},
	} {
		e, err := NewEgress(env, c.allow)
		if err != nil {
			t.Fatal(err)
		}
		got := false
		for _, d := range e.Declared(c.owner) {
			got = got || d.Host == c.host && d.Port == c.port
		}
		if c.allow == "anything" {
			got = e.Resolves(sandbox.Destination{Owner: c.owner, Host: c.host, Port: c.port})
		}
		if got != c.want {
			t.Errorf("%q allows %s %s:%d: %v", c.allow, c.owner, c.host, c.port, got)
		}
	}
	for _, bad := range []string{"closed", "a//b", "*.x.*"} {
		if _, err := NewEgress(env, bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestRun_ShowsNoFolderInThePlaceOfTheHistory(t *testing.T) {
	t.Parallel()
	w, root := open(t, Limits{})
	keys := filepath.Join(filepath.Dir(root), "keys")
	write(t, filepath.Join(keys, "id"), "")
	job := build.Job{Root: root, Dir: root, Git: true, Steps: []build.Step{sh("! test -e .git/id")}}
	if err := os.Symlink(keys, filepath.Join(root, ".git")); err != nil {
		t.Fatal(err)
	}
	if err := w.Run(context.Background(), job); err != nil {
		t.Errorf("a link: %v", err)
	}
	if err := os.Rename(filepath.Join(root, ".git"), filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, ".git", "HEAD"), "")
	job.Steps = []build.Step{sh("test -e .git/HEAD; ! test -e link/id")}
	if err := w.Run(context.Background(), job); err != nil {
		t.Errorf("a history: %v", err)
	}
}
