package build

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/app"
)

func TestGo_RebuildsWhenAnyInputChanges(t *testing.T) {
	t.Parallel()
	need(t, "go")
	p := newProject(t, map[string]string{
		"api/go.mod":             "module api\n\ngo 1.21\n\nrequire shared v0.0.0\n\nreplace shared => ../../shared\n",
		"api/cmd/main.go":        "package main\n\nimport (\n\t_ \"embed\"\n\t\"shared\"\n)\n\n//go:embed text.txt\nvar text string\n\nfunc add() int\n\nfunc main() { println(text, shared.X, add()) }\n",
		"api/cmd/text.txt":       "first text",
		"api/cmd/add_amd64.s":    "TEXT ·add(SB),4,$0-8\n\tMOVQ $1111111, ret+0(FP)\n\tRET\n",
		"api/cmd/add_arm64.s":    "TEXT ·add(SB),4,$0-8\n\tMOVD $1111111, R0\n\tMOVD R0, ret+0(FP)\n\tRET\n",
		"../shared/go.mod":       "module shared\n\ngo 1.21\n",
		"../shared/shared.go":    "package shared\n\nconst X = \"first shared\"\n",
		"api/cmd/main_test.go":   "package main\n",
		"api/node_modules/x":     "1",
		"api/.serverless/state":  "1",
		"api/cmd/other_thing.md": "1",
	})
	f := program("f", "bootstrap", "provided.al2023")
	f.Package.Root = "api"
	first := content(t, p.one(f).Code, "bootstrap")
	if !strings.Contains(first, "first text") || !strings.Contains(first, "first shared") {
		t.Fatal("the program does not hold its texts")
	}
	for _, row := range []struct{ name, file, text, want string }{
		{"an embedded file", "api/cmd/text.txt", "second text", "second text"},
		{"a replaced module", "../shared/shared.go", "package shared\n\nconst X = \"second shared\"\n", "second shared"},
		{"assembly", "api/cmd/add_amd64.s", "TEXT ·add(SB),4,$0-8\n\tMOVQ $2222222, ret+0(FP)\n\tRET\n", ""},
	} {
		p.write(map[string]string{row.file: row.text})
		got := content(t, p.one(f).Code, "bootstrap")
		if len(p.steps) != 1 || !strings.Contains(got, row.want) {
			t.Errorf("%s: after a change the steps were %v, and the program holds the change: %v", row.name, p.steps, strings.Contains(got, row.want))
		}
	}
	p.write(map[string]string{"api/cmd/main_test.go": "package main\n\n// changed\n", "api/node_modules/x": "2", "api/.serverless/state": "2"})
	if p.one(f); len(p.steps) != 0 {
		t.Errorf("a change of what is no input led to the steps %v", p.steps)
	}
	r, _ := p.build(f)
	if shared := filepath.Join(filepath.Dir(p.root), "shared"); !slices.Contains(r.Watch, shared) {
		t.Errorf("the replaced module is not watched: %v", r.Watch)
	}
}

func TestGo_UserBuiltProgramOlderThanAnEmbeddedFile(t *testing.T) {
	t.Parallel()
	need(t, "go")
	p := newProject(t, map[string]string{
		"go.mod":  "module shop\n\ngo 1.21\n",
		"main.go": "package main\n\nimport _ \"embed\"\n\n//go:embed text.txt\nvar text string\n\nfunc main() { println(text) }\n", "text.txt": "first text",
		"bootstrap": "#!built",
	})
	now := time.Now()
	for name, at := range map[string]time.Time{"main.go": now.Add(-2 * time.Hour), "go.mod": now.Add(-2 * time.Hour), "bootstrap": now.Add(-time.Hour)} {
		if err := os.Chtimes(filepath.Join(p.root, name), at, at); err != nil {
			t.Fatal(err)
		}
	}
	if got := content(t, p.one(program("f", "bootstrap", "provided.al2023")).Code, "bootstrap"); !strings.Contains(got, "first text") {
		t.Error("the stale program was taken")
	}
}

func TestGo_LegacyProjectKeepsWhatItsSourcesNeed(t *testing.T) {
	t.Parallel()
	need(t, "go")
	p := newProject(t, map[string]string{
		"main.go": "package main\n\nimport _ \"embed\"\n\n//go:embed data/*.txt\nvar text string\n\nfunc main() { println(text) }\n", "data/text.txt": "first text", "data/big.bin": "1",
	})
	f := program("f", "bin/shop", "go1.x")
	if got := content(t, p.one(f).Code, "bin/shop"); !strings.Contains(got, "first text") {
		t.Error("the program does not hold its text")
	}
	p.write(map[string]string{"data/text.txt": "second text"})
	if got := content(t, p.one(f).Code, "bin/shop"); !strings.Contains(got, "second text") {
		t.Error("the program does not hold the changed text")
	}
}

func TestMake_RunsAgainWhenAnyInputChanges(t *testing.T) {
	t.Parallel()
	need(t, "make")
	p := newProject(t, map[string]string{
		"src/main.rs": "one", "go.mod": "module shop\n", "main.go": goMain, "data.txt": "one",
		"Makefile": "build-A:\n\tdate +%N > a.log; cat src/main.rs data.txt > $(ARTIFACTS_DIR)/bootstrap\n" +
			"build-B:\n\tdate +%N > b.log; cat src/main.rs data.txt > $(ARTIFACTS_DIR)/bootstrap\n",
	})
	a, b := program("a", "bootstrap", "provided.al2023"), program("b", "bootstrap", "provided.al2023")
	a.Package.Makefile, b.Package.Makefile = "build-A", "build-B"
	if _, l := p.build(a, b); l.HasErrors() {
		t.Fatal(l)
	}
	if p.build(a, b); len(p.steps) != 0 {
		t.Errorf("a second build of an unchanged project took the steps %v", p.steps)
	}
	for _, file := range []string{"src/main.rs", "data.txt"} {
		p.write(map[string]string{file: "two"})
		r, _ := p.build(a)
		if got := content(t, r.Functions["a"].Code, "bootstrap"); !strings.Contains(got, "two") {
			t.Errorf("after a change of %s the program is %q", file, got)
		}
	}
}

func TestLocalModules_Table(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"go.mod": "module x\n\nreplace a => ../a // here\nreplace (\n\tb v1.0.0 => \"./sub b\"\n\tb2 => ./b2\n\tc => example.com/c v1.2.3\n\td => /abs/d\n)\nrequire e v1.0.0\n// replace f => ./f\n",
		"go.work": "go 1.21\nuse .\nuse (\n\t./w\n\t../v\n)\n"})
	above := filepath.Dir(dir)
	for _, row := range []struct {
		file string
		want []string
	}{
		{"go.mod", []string{filepath.Join(above, "a"), filepath.Join(dir, "b2"), "/abs/d"}},
		{"go.work", []string{dir, filepath.Join(dir, "w"), filepath.Join(above, "v")}},
		{"none", nil},
	} {
		got := localModules(filepath.Join(dir, row.file))
		got = slices.DeleteFunc(got, func(p string) bool { return strings.Contains(p, "sub") })
		if !slices.Equal(got, row.want) {
			t.Errorf("%s: got %q, want %q", row.file, got, row.want)
		}
	}
}

func TestPython_InstallsAgainWhenALocalRequirementChanges(t *testing.T) {
	t.Parallel()
	p := newProject(t, map[string]string{
		"app.py": "", "requirements.txt": "-r more.txt\n./lib[extra] ; python_version > '3'\nnamed @ file:./named\n", "more.txt": "-r nested/most.txt\n", "nested/most.txt": "-e ../outside\n",
		"lib/setup.py": "1", "lib/lib/build/x.py": "1", "named/setup.py": "1", "../outside/x.py": "1",
	})
	p.fakePython("3.12.1", "exit 0\n")
	f := python("f", "app.h")
	if p.build(f); !slices.Contains(p.steps, "install") {
		t.Fatalf("the first build took the steps %v:\n%s", p.steps, p.out.String())
	}
	p.write(map[string]string{"lib/build/lib/x.py": "pip's", "lib/lib.egg-info/PKG-INFO": "pip's", "lib/lib/__pycache__/x.pyc": "1"})
	if p.build(f); len(p.steps) != 0 {
		t.Errorf("a second build took the steps %v", p.steps)
	}
	for _, file := range []string{"lib/setup.py", "lib/lib/build/x.py", "named/setup.py", "../outside/x.py", "nested/most.txt"} {
		text := "-e ../outside\n# changed\n"
		if !strings.HasSuffix(file, ".txt") {
			text = "changed"
		}
		p.write(map[string]string{file: text})
		r, _ := p.build(f)
		if !slices.Contains(p.steps, "install") {
			t.Errorf("a change of %s led to the steps %v", file, p.steps)
		}
		if outside := filepath.Join(filepath.Dir(p.root), "outside"); !slices.Contains(r.Watch, outside) {
			t.Errorf("what requirements name outside the project is not watched: %v", r.Watch)
		}
	}
}

func TestBuild_SkipsFilesByIdentity(t *testing.T) {
	t.Parallel()
	p := newProject(t, map[string]string{"index.js": "exports.h = 1", "out.log": "1", "app.py": "", "go/bootstrap": "#!/bin/sh\n", "layer/x": "1", "layer/out.log": "-> ../out.log"})
	info, err := os.Stat(filepath.Join(p.root, "out.log"))
	if err != nil {
		t.Fatal(err)
	}
	p.skip = []os.FileInfo{info}
	g := program("g", "bootstrap", "provided.al2023")
	g.Package.Root = "go"
	r, l := p.buildApp(t.Context(), &app.App{Name: "shop", Functions: []app.Function{node("n", "index.h"), python("p", "app.h"), g}})
	for _, key := range []string{"n", "p", "g"} {
		built := r.Functions[key]
		if built == nil {
			t.Fatalf("%s: %v", key, l)
		}
		if built.Code.Has("out.log") {
			t.Errorf("%s packages %s", key, paths(built.Code))
		}
	}
}
