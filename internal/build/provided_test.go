package build

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/diag"
)

func program(key, handler, runtime string) app.Function {
	return app.Function{Key: key, Runtime: runtime, Handler: handler}
}

func TestProvided_ScriptIsMadeExecutable(t *testing.T) {
	t.Parallel()
	p := newProject(t, map[string]string{"plain-handler.sh": "x", "other/x": "1"})
	if err := os.WriteFile(filepath.Join(p.root, "bootstrap"), []byte("#!/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	b := p.one(program("f", "handler.hello", "provided"))
	if e, ok := b.Code.Find("bootstrap"); !ok || e.Mode != 0o755 || paths(b.Code) != "bootstrap other/x plain-handler.sh" {
		t.Errorf("got %+v in %s", e, paths(b.Code))
	}
}

func TestProvided_MissingProgram(t *testing.T) {
	t.Parallel()
	p := newProject(t, map[string]string{"src/main.rs": "fn main() {}"})
	_, l := p.build(program("f", "x", "provided.al2023"), program("g", "bin/hello", "go1.x"), program("h", "../../x", "go1.x"))
	wantDiag(t, l, diag.Error, "missing-handler", "", "the program bootstrap is not there")
	wantDiag(t, l, diag.Error, "missing-handler", "", "the program bin/hello is not there")
	wantDiag(t, l, diag.Error, "build-failed", "", "leaves the code")
}

const goMain = "package main\n\nfunc main() { println(1) }\n"

func TestGo_CompilesTheMeantProgram(t *testing.T) {
	t.Parallel()
	need(t, "go")
	p := newProject(t, map[string]string{
		"go.mod": "module shop\n\ngo 1.21\n", "cmd/hello/main.go": goMain, "cmd/world/main.go": goMain, "lib/lib.go": "package lib\n", "todos/a.go": goMain, "todos/b.go": goMain, "data.txt": "x",
	})
	fs := []app.Function{program("hello", "bin/hello", "go1.x"), program("b", "bin/b", "go1.x"), program("world", "world", "provided.al2")}
	r, l := p.build(fs...)
	if l.HasErrors() {
		t.Fatalf("%v\n%s", l, p.out.String())
	}
	for key, want := range map[string]string{"hello": "bin/hello data.txt", "b": "bin/b data.txt", "world": "bootstrap data.txt"} {
		if got := paths(r.Functions[key].Code); got != want {
			t.Errorf("%s: got %s, want %s", key, got, want)
		}
	}
	if text := content(t, r.Functions["hello"].Code, "bin/hello"); !strings.HasPrefix(text, "\x7fELF") {
		t.Errorf("the program begins with %q", text[:min(4, len(text))])
	}
	if p.build(fs...); len(p.steps) != 0 {
		t.Errorf("a second build took the steps %v", p.steps)
	}
	p.write(map[string]string{"cmd/hello/main.go": "package main\n\nfunc main() {\n\tx := 1\n}\n"})
	r, l = p.build(fs...)
	wantDiag(t, l, diag.Error, "compile", "cmd/hello/main.go:4:2", "declared and not used: x")
	if r.Functions["b"] == nil {
		t.Error("the others were not built")
	}
}

func TestGo_UsesTheMakefile(t *testing.T) {
	t.Parallel()
	need(t, "make")
	p := newProject(t, map[string]string{
		"go.mod": "module shop\n", "hello/main.go": goMain, "fails/Makefile": "build:\n\tfalse bootstrap\n", "fails/go.mod": "module fails\n\ngo 1.21\n", "fails/main.go": goMain,
		"Makefile": ".PHONY: build\nbuild:\n\tmkdir -p bin && echo made > bin/hello\n",
	})
	f := program("f", "bin/hello", "go1.x")
	f.Package.Patterns = []string{"!**", "bin/**"}
	b := p.one(f)
	if got := content(t, b.Code, "bin/hello"); got != "made\n" || paths(b.Code) != "bin/hello" {
		t.Errorf("got %q in %s", got, paths(b.Code))
	}
	if p.one(f); len(p.steps) != 0 {
		t.Errorf("a second build took the steps %v", p.steps)
	}
	p.write(map[string]string{"hello/main.go": goMain + "\n// changed\n"})
	if p.one(f); len(p.steps) != 1 {
		t.Errorf("a change led to the steps %v", p.steps)
	}
	g := program("g", "bootstrap", "provided.al2023")
	g.Package.Root = "fails"
	r, l := p.build(g)
	wantDiag(t, l, diag.Note, "make-failed", "fails/Makefile", "compiled directly")
	if r.Functions["g"] == nil {
		t.Errorf("got %v", l)
	}
	if p.build(g); len(p.steps) != 0 {
		t.Errorf("after a failed make, a second build took the steps %v", p.steps)
	}
	s := program("s", "x", "provided.al2023")
	s.Package.Makefile = "build-Nothing"
	_, l = p.build(s)
	wantDiag(t, l, diag.Error, "build-failed", "", `no target "build-Nothing"`)
}

func TestGo_TakesWhatTheUserBuilt(t *testing.T) {
	t.Parallel()
	p := newProject(t, map[string]string{"go.mod": "module shop\n", "main.go": goMain})
	p.write(map[string]string{"bin/hello": "#!built"})
	b := p.one(program("f", "bin/hello", "go1.x"))
	if got := content(t, b.Code, "bin/hello"); got != "#!built" || len(p.steps) != 0 {
		t.Errorf("got %q after %v", got, p.steps)
	}
}

func TestGo_ProjectFromBeforeModules(t *testing.T) {
	t.Parallel()
	need(t, "go")
	p := newProject(t, map[string]string{
		"Gopkg.toml": "", "main.go": "package main\n\nimport (\n\t\"example.com/me/shop/lib\"\n)\n\nfunc main() { println(lib.X) }\n", "lib/lib.go": "package lib\n\nconst X = 1\n",
	})
	r, l := p.build(program("f", "bin/shop", "go1.x"))
	if r.Functions["f"] == nil {
		t.Fatalf("%v\n%s", l, p.out.String())
	}
	wantDiag(t, l, diag.Note, "no-go-module", ".", "no go.mod")
	if _, err := os.Stat(filepath.Join(p.root, "go.mod")); err == nil {
		t.Error("a go.mod was written into the project")
	}
}

func TestGo_WithoutGo(t *testing.T) {
	t.Parallel()
	p := newProject(t, map[string]string{"go.mod": "module shop\n", "main.go": goMain})
	p.env["PATH"] = p.bin
	_, l := p.build(program("f", "bootstrap", "provided.al2023"))
	wantDiag(t, l, diag.Error, "build-failed", "", "Install Go")
}

func TestGo_MakefileMakesTheArtifact(t *testing.T) {
	t.Parallel()
	need(t, "make")
	p := newProject(t, map[string]string{"main.go": goMain, "go.mod": "module shop\n", "Makefile": "build:\n\tmkdir -p out/f && cp main.go out/f/bootstrap\n"})
	f := program("f", "bootstrap", "provided.al2023")
	f.Package.Artifact = "out/f"
	if b := p.one(f); paths(b.Code) != "bootstrap" {
		t.Errorf("got %s", paths(b.Code))
	}
}

func TestGo_IsCompiledForTheMachineThatRunsIt(t *testing.T) {
	t.Parallel()
	need(t, "go")
	p := newProject(t, map[string]string{"main.go": goMain, "go.mod": "module shop\n\ngo 1.21\n", "Makefile": "build:\n\tCGO_ENABLED=0 GOOS=linux GOARCH=" + foreignArch() + " go build -o bootstrap .\n"})
	f := program("f", "bootstrap", "provided.al2023")
	f.Arch = map[string]string{"arm64": "arm64", "amd64": "x86_64"}[foreignArch()]
	r, l := p.build(f)
	if r.Functions["f"] == nil {
		t.Fatalf("%v\n%s", l, p.out.String())
	}
	wantDiag(t, l, diag.Note, "other-processor", "", "it is compiled for "+runtime.GOARCH)
	name := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(name, []byte(content(t, r.Functions["f"].Code, "bootstrap")), 0o644); err != nil {
		t.Fatal(err)
	}
	if runsOn(name, foreignArch()) || !runsOn(name, runtime.GOARCH) {
		t.Error("the program is for another processor")
	}
}

func foreignArch() string {
	if runtime.GOARCH == "arm64" {
		return "amd64"
	}
	return "arm64"
}
