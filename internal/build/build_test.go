package build

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/artifact"
	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/fence"
)

// project is a user's folder under test, with a home and a PATH of its own.
type project struct {
	t     *testing.T
	root  string
	cache string
	work  string        // as Options.Work
	bin   string        // first in PATH
	skip  []fs.FileInfo // as Options.Skip

	layers map[string]string // as Options.Layers
	fence  *fence.Fence      // as Options.Fence

	out strings.Builder
	env map[string]string

	mu    sync.Mutex
	steps []string
}

// newProject writes the files. A text that begins with "-> " makes a link, with "#!" a script.
func newProject(t *testing.T, files map[string]string) *project {
	t.Helper()
	dir := t.TempDir()
	p := &project{t: t, root: filepath.Join(dir, "shop"), cache: filepath.Join(dir, "cache"), bin: filepath.Join(dir, "bin"), env: map[string]string{
		"HOME": filepath.Join(t.TempDir(), "home"), "PATH": filepath.Join(dir, "bin") + ":" + os.Getenv("PATH"), "EBB_CACHE": filepath.Join(dir, "cache"),
		"GOCACHE": goEnv("GOCACHE"), "GOMODCACHE": goEnv("GOMODCACHE"), "GOFLAGS": "-mod=mod", "GOPROXY": "off",
		"npm_config_registry": "http://127.0.0.1:1/", "npm_config_fetch_retries": "0", "PIP_NO_INDEX": "1", "PYENV_ROOT": os.Getenv("PYENV_ROOT"),
	}}
	p.write(files)
	if err := os.MkdirAll(p.bin, 0o755); err != nil {
		t.Fatal(err)
	}
	return p
}

func goEnv(name string) string {
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

func (p *project) write(files map[string]string) { writeFiles(p.t, p.root, files) }

func writeFiles(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		full := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if to, ok := strings.CutPrefix(text, "-> "); ok {
			if err := os.Symlink(to, full); err != nil {
				t.Fatal(err)
			}
			continue
		}
		mode := fs.FileMode(0o644)
		if strings.HasPrefix(text, "#!") && !strings.Contains(name, "plain") {
			mode = 0o755
		}
		if err := os.WriteFile(full, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
}

// build builds Functions; steps are those this build took.
func (p *project) build(fs ...app.Function) (*Result, diag.List) {
	p.t.Helper()
	return p.buildApp(context.Background(), &app.App{Name: "shop", Stage: "dev", Functions: fs})
}

func (p *project) buildApp(ctx context.Context, a *app.App) (*Result, diag.List) {
	p.t.Helper()
	p.steps = nil
	r, l := Build(ctx, p.root, a, Options{
		Cache:   p.cache,
		Work:    p.work,
		Skip:    p.skip,
		Layers:  p.layers,
		Fence:   p.fence,
		Env:     func(k string) (string, bool) { v, ok := p.env[k]; return v, ok && v != "" },
		Environ: p.environ,
		Stdout:  &p.out,
		Progress: func(x Progress) {
			if !x.Done {
				p.mu.Lock()
				p.steps = append(p.steps, x.Step)
				p.mu.Unlock()
			}
		},
	})
	for _, f := range a.Functions {
		if b := r.Functions[f.Key]; b != nil {
			for _, t := range append([]*artifact.Tree{b.Code, b.Supplied}, b.Layers...) {
				if t != nil {
					if err := t.Manifest.Validate(); err != nil {
						p.t.Errorf("%s: %v", f.Key, err)
					}
				}
			}
		}
	}
	return r, l
}

func (p *project) environ() []string {
	var env []string
	for k, v := range p.env {
		if v != "" {
			env = append(env, k+"="+v)
		}
	}
	return env
}

// one builds one Function and wants it to succeed.
func (p *project) one(f app.Function) *Built {
	p.t.Helper()
	r, l := p.build(f)
	if r.Functions[f.Key] == nil {
		p.t.Fatalf("%s was not built: %v\n%s", f.Key, l, p.out.String())
	}
	return r.Functions[f.Key]
}

// need skips where a tool is missing.
func need(t *testing.T, tool string) {
	t.Helper()
	if _, err := exec.LookPath(tool); err != nil {
		t.Skipf("skipped: this test runs %s, which is not installed", tool)
	}
}

func node(key, handler string) app.Function {
	return app.Function{Key: key, Name: "shop-dev-" + key, Runtime: "nodejs22.x", Handler: handler}
}

func paths(t *artifact.Tree) string {
	var list []string
	for _, e := range t.Manifest.Entries {
		list = append(list, e.Path)
	}
	return strings.Join(list, " ")
}

func content(t *testing.T, tree *artifact.Tree, path string) string {
	t.Helper()
	e, ok := tree.Find(path)
	if !ok {
		t.Fatalf("no %s in: %s", path, paths(tree))
	}
	r, err := tree.Open(e)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// wantDiag wants a diagnostic with the code, the place and a part of its message or hint.
func wantDiag(t *testing.T, l diag.List, sev diag.Severity, code, place, part string) {
	t.Helper()
	for _, d := range l {
		if d.Severity == sev && d.Code == code && d.Pos.String() == place && strings.Contains(d.Message+" | "+d.Hint, part) {
			return
		}
	}
	var have strings.Builder
	for _, d := range l {
		fmt.Fprintf(&have, "\n  %s | %s", d, d.Hint)
	}
	t.Errorf("no %s [%s] at %q with %q; have:%s", sev, code, place, part, have.String())
}

func TestBuild_ReadyCode(t *testing.T) {
	t.Parallel()
	p := newProject(t, map[string]string{"out/index.js": "exports.h = 1", "layer/bin/tool": "#!/bin/sh"})
	a := &app.App{Name: "shop", Stage: "dev", Functions: []app.Function{
		{Key: "folder", Runtime: "nodejs22.x", Handler: "index.h", Package: app.Package{Artifact: "out"}, Layers: []app.Value{app.Attr("Tools", "Ref"), app.Lit("arn:aws:lambda:us-east-1:1:layer:x:1")}},
		{Key: "text", Runtime: "python3.12", Handler: "index.h", Package: app.Package{Inline: "def h(e, c): pass"}},
		{Key: "gone", Runtime: "nodejs22.x", Handler: "index.h", Package: app.Package{Artifact: "ouf"}},
	}, Resources: []app.Resource{{ID: "Tools", Kind: app.Layer, Properties: map[string]any{"Content": "layer"}}}}
	r, l := p.buildApp(context.Background(), a)
	if got := paths(r.Functions["folder"].Code); got != "index.js" {
		t.Errorf("folder: %s", got)
	}
	if got := paths(r.Functions["folder"].Layers[0]); got != "bin/tool" || len(r.Functions["folder"].Layers) != 1 {
		t.Errorf("layer: %s", got)
	}
	if got := content(t, r.Functions["text"].Code, "index.py"); got != "def h(e, c): pass" {
		t.Errorf("text: %s", got)
	}
	wantDiag(t, l, diag.Warning, "foreign-layer", "", "layer:x:1")
	wantDiag(t, l, diag.Error, "missing-artifact", "", "The nearest there is: out.")
}

func TestBuild_UnsupportedBesidesOthersIsAWarning(t *testing.T) {
	t.Parallel()
	p := newProject(t, map[string]string{"a.js": "exports.h = 1"})
	java := app.Function{Key: "j", Runtime: "java21", Handler: "x.Y"}
	image := app.Function{Key: "i", Package: app.Package{Image: "repo/x"}}
	_, l := p.build(node("a", "a.h"), java, image)
	wantDiag(t, l, diag.Warning, "unsupported-runtime", "", "java21")
	wantDiag(t, l, diag.Warning, "container-image", "", "left out")
	_, l = p.build(java)
	wantDiag(t, l, diag.Error, "unsupported-runtime", "", "java21")
}

func TestBuild_CancelEndsTheToolsTree(t *testing.T) {
	t.Parallel()
	need(t, "make")
	p := newProject(t, map[string]string{
		"main.go": "package main", "go.mod": "module x\n",
		"Makefile": "build:\n\tsleep 1000 & echo $$! > pid; wait\n\t@echo bootstrap\n",
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan diag.List)
	go func() {
		_, l := p.buildApp(ctx, &app.App{Name: "shop", Stage: "dev", Functions: []app.Function{{Key: "f", Runtime: "provided.al2023", Handler: "bootstrap"}}})
		done <- l
	}()
	pid := ""
	poll(t, func() bool {
		text, _ := os.ReadFile(filepath.Join(p.root, "pid"))
		pid = strings.TrimSpace(string(text))
		return pid != ""
	})
	cancel()
	wantDiag(t, <-done, diag.Error, "canceled", "", "")
	poll(t, func() bool { return exec.Command("kill", "-0", pid).Run() != nil })
}

func TestChildEnv_HoldsNoSecrets(t *testing.T) {
	t.Parallel()
	got := childEnv([]string{
		"PATH=/bin", "HOME=/h", "npm_config_registry=r", "NPM_CONFIG_//r/:_authToken=t", "PIP_INDEX_URL=i", "GOPROXY=g", "GOFLAGS=f", "https_proxy=p", "HTTPS_PROXY=p",
		"NODE_EXTRA_CA_CERTS=c", "AWS_ACCESS_KEY_ID=no", "AWS_PROFILE=no", "GITHUB_TOKEN=no", "NPM_TOKEN=passed", "STRIPE_SECRET=no", "YARN_NPM_AUTH_TOKEN=no",
		"DATABASE_URL=no", "NODE_OPTIONS=no", "PYTHONPATH=no", "odd",
	}, []string{"NPM_TOKEN"})
	want := "PATH=/bin HOME=/h npm_config_registry=r NPM_CONFIG_//r/:_authToken=t PIP_INDEX_URL=i GOPROXY=g GOFLAGS=f https_proxy=p HTTPS_PROXY=p NODE_EXTRA_CA_CERTS=c NPM_TOKEN=passed"
	if strings.Join(got, " ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, " "), want)
	}
}
