package build

import (
	"context"
	"encoding/base64"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/artifact"
	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/fence"
)

const canary = "canary-of-the-machine"

// sourceMap is a comment with a source map whose one source is a file of the machine.
func sourceMap(file string) string {
	return "\n//# sourceMappingURL=data:application/json;base64," + base64.StdEncoding.EncodeToString([]byte(`{"version":3,"sources":["file://`+file+`"],"names":[],"mappings":"AAAA"}`)) + "\n"
}

// all is the text of all that was built.
func all(t *testing.T, r *Result) string {
	t.Helper()
	var text strings.Builder
	for _, b := range r.Functions {
		for _, tree := range append([]*artifact.Tree{b.Code}, b.Layers...) {
			for _, e := range tree.Manifest.Entries {
				if e.Link != "" {
					continue
				}
				f, err := tree.Open(e)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.Copy(&text, f); err != nil {
					t.Fatal(err)
				}
				f.Close()
			}
		}
	}
	return text.String()
}

func TestBuild_ReadsNoFilesOfTheMachine(t *testing.T) {
	t.Parallel()
	ts, js := []app.Function{node("f", "h.f")}, []app.Function{node("f", "plain.f")}
	packaged := func(p app.Package, runtime, handler string) []app.Function {
		return []app.Function{{Key: "f", Runtime: runtime, Handler: handler, Package: p}}
	}
	plain := "exports.f = () => 1"
	for _, c := range []struct {
		name      string
		files     map[string]string // HOME stands for the home
		functions []app.Function
		app       app.App
		code, at  string // of the error
		harmless  bool   // it would be no harm either if it were allowed
	}{
		{name: "import", files: map[string]string{"h.ts": "import k from 'HOME/.aws/x.json'; export const f = () => k"}, functions: ts, code: "outside", at: "h.ts:1:15"},
		{name: "relative import", files: map[string]string{"h.ts": "import k from './up/x.json'; export const f = () => k", "up": "-> HOME/.aws"}, functions: ts, code: "outside", at: "h.ts:1:15"},
		{name: "text", files: map[string]string{"h.ts": "import k from 'HOME/.ssh/id.pem'; export const f = () => k"}, functions: ts, code: "outside", at: "h.ts:1:15"},
		{name: "glob", files: map[string]string{"h.ts": "export const f = (n: string) => require(`./up/${n}.json`)", "up": "-> HOME/.aws"}, functions: ts, code: "outside", at: "h.ts:1:41"},
		{name: "linked source", files: map[string]string{"h.ts": "import k from './k.json'; export const f = () => k", "k.json": "-> HOME/.aws/x.json"}, functions: ts, code: "outside", at: "h.ts:1:15"},
		{name: "paths", files: map[string]string{"h.ts": "import k from 'k/x.json'; export const f = () => k", "tsconfig.json": `{"compilerOptions":{"paths":{"k/*":["HOME/.aws/*"]}}}`}, functions: ts, code: "outside", at: "h.ts:1:15"},
		{name: "extends", files: map[string]string{"h.ts": "export const f = () => 1", "tsconfig.json": `{"extends":["./base"]}`, "base.json": `{"extends":"HOME/.aws/x.json"}`}, functions: ts, code: "outside", harmless: true},
		{name: "main", files: map[string]string{"h.ts": "import k from 'evil'; export const f = () => k", "node_modules/evil/package.json": `{"main":"../../up/x.json"}`, "up": "-> HOME/.aws"}, functions: ts, code: "outside", at: "h.ts:1:15"},
		{name: "linked package", files: map[string]string{"h.ts": "import k from 'evil/x.json'; export const f = () => k", "node_modules/evil": "-> HOME/.aws"}, functions: ts, code: "outside", at: "h.ts:1:15"},
		{name: "source map", files: map[string]string{"h.ts": "import k from './dist.js'; export const f = () => k", "dist.js": "export default 1" + sourceMap("HOME/.ssh/id.pem")}, functions: ts},
		{name: "link in a package", files: map[string]string{"plain.js": plain, "data": "-> HOME/.ssh"}, functions: js, code: "package-failed"},
		{name: "link through a link", files: map[string]string{"plain.js": plain, "a": "-> up/.ssh", "up": "-> HOME"}, functions: js, code: "package-failed"},
		{name: "link to a key", files: map[string]string{"plain.js": plain, "data/k": "-> HOME/.ssh/id.pem"}, functions: js, code: "package-failed"},
		{name: "link to the home", files: map[string]string{"plain.js": plain, "me": "-> HOME"}, functions: js, code: "package-failed"},
		{name: "dependency", files: map[string]string{"plain.js": plain + "; require('evil')", "package.json": `{"dependencies":{"evil":"*"}}`, "node_modules/evil": "-> HOME/.ssh"}, functions: js, code: "package-failed"},
		{name: "link in Python", files: map[string]string{"h.py": "", "data": "-> HOME/.ssh"}, functions: []app.Function{python("f", "h.f")}, code: "package-failed"},
		{name: "requirements", files: map[string]string{"h.py": "", "requirements.txt": "-> HOME/.ssh/id.pem"}, functions: packaged(app.Package{Patterns: []string{"!requirements.txt"}}, "python3.12", "h.f"), code: "install-failed", at: "requirements.txt"},
		{name: "included requirements", files: map[string]string{"h.py": "", "requirements.txt": "-r HOME/.ssh/id.pem\n"}, functions: []app.Function{python("f", "h.f")}, code: "install-failed", at: "requirements.txt"},
		{name: "constraints of included requirements", files: map[string]string{"h.py": "", "requirements.txt": "-r more.txt\n", "more.txt": "-c HOME/.ssh/id.pem\n"}, functions: []app.Function{python("f", "h.f")}, code: "install-failed", at: "requirements.txt", harmless: true},
		{name: "local requirement", files: map[string]string{"h.py": "", "requirements.txt": "HOME/.ssh\n"}, functions: []app.Function{python("f", "h.f")}, code: "install-failed", at: "requirements.txt"},
		{name: "lock file", files: map[string]string{"h.py": "", "Pipfile.lock": "-> HOME/.aws/lock.json"}, functions: packaged(app.Package{Patterns: []string{"!Pipfile.lock"}}, "python3.12", "h.f"), code: "install-failed", at: "Pipfile.lock"},
		{name: "package folder", functions: packaged(app.Package{Root: "../../001/users/me/.ssh"}, "python3.12", "h.f"), code: "package-failed"},
		{name: "artifact", functions: packaged(app.Package{Artifact: "HOME/.ssh"}, "nodejs22.x", "h.f"), code: "outside", at: "HOME/.ssh"},
		{name: "artifact behind a link", files: map[string]string{"out": "-> HOME/.ssh"}, functions: packaged(app.Package{Artifact: "out"}, "nodejs22.x", "h.f"), code: "outside", at: "out"},
		{name: "zip", files: map[string]string{"out.zip": "-> HOME/.ssh/id.pem"}, functions: packaged(app.Package{Artifact: "out.zip"}, "nodejs22.x", "h.f"), code: "outside", at: "out.zip", harmless: true},
		{name: "program", files: map[string]string{"bootstrap": "-> HOME/.ssh/id.pem"}, functions: packaged(app.Package{}, "provided.al2023", "x"), code: "build-failed"},
		{name: "program that is not packaged", files: map[string]string{"bootstrap": "-> HOME/.ssh/id.pem"}, functions: packaged(app.Package{Only: true, Patterns: []string{"x"}}, "provided.al2023", "x"), code: "build-failed"},
		{name: "link beside a program", files: map[string]string{"bootstrap": "#!/bin/sh", "data": "-> HOME/.ssh"}, functions: packaged(app.Package{}, "provided.al2023", "x"), code: "build-failed"},
		{name: "layer", files: map[string]string{"plain.js": plain, "layer": "-> HOME/.ssh"}, functions: []app.Function{{Key: "f", Runtime: "nodejs22.x", Handler: "plain.f", Layers: []app.Value{app.Attr("L", "Ref")}, Package: app.Package{Only: true, Patterns: []string{"plain.js"}}}},
			app: app.App{Resources: []app.Resource{{ID: "L", Kind: app.Layer, Properties: map[string]any{"Content": "layer"}}}}, code: "bad-artifact", at: "layer"},
		{name: "link in a layer", files: map[string]string{"plain.js": plain, "layer/python/x": "-> HOME/.ssh"}, functions: []app.Function{{Key: "f", Runtime: "nodejs22.x", Handler: "plain.f", Layers: []app.Value{app.Attr("L", "Ref")}, Package: app.Package{Only: true, Patterns: []string{"plain.js"}}}},
			app: app.App{Resources: []app.Resource{{ID: "L", Kind: app.Layer, Properties: map[string]any{"Content": "layer"}}}}, code: "bad-artifact", at: "layer"},
		{name: "stand-in for a layer", files: map[string]string{"plain.js": plain}, functions: []app.Function{{Key: "f", Runtime: "nodejs22.x", Handler: "plain.f", Layers: []app.Value{app.Lit("arn:aws:lambda:us-east-1:1:layer:x:1")}}},
			app: app.App{LayerFiles: map[string]string{"x": "HOME/.ssh"}}, code: "bad-artifact", at: "HOME/.ssh"},
		{name: "npm's settings", files: map[string]string{"plain.js": plain, "package.json": `{"dependencies":{"x":"1"}}`, ".npmrc": "-> HOME/.ssh/id.pem"}, functions: js, code: "install-failed", at: "package.json", harmless: true},
		{name: "Go module", files: map[string]string{"main.go": "package main\n\nfunc main() {}\n", "go.mod": "module x\n\nreplace y => HOME/.ssh\n"}, functions: packaged(app.Package{}, "provided.al2023", "x"), code: "build-failed", harmless: true},
		{name: "embedded before Go modules", files: map[string]string{"main.go": "package main\n\nimport _ \"embed\"\n\n//go:embed data/id.pem\nvar k string\n\nfunc main() { println(k) }\n", "data": "-> HOME/.ssh"},
			functions: packaged(app.Package{Only: true, Patterns: []string{"x"}}, "provided.al2023", "x"), code: "build-failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			try := func(allow bool) (*Result, diag.List, string) {
				p := newProject(t, nil)
				home := filepath.Join(filepath.Dir(p.env["HOME"]), "users", "me")
				p.env["HOME"] = home
				fill := func(s string) string { return strings.ReplaceAll(s, "HOME", home) }
				files := map[string]string{}
				for name, text := range c.files {
					files[name] = fill(text)
					if strings.Contains(text, "sourceMappingURL") {
						files[name] = "export default 1" + sourceMap(home+"/.ssh/id.pem")
					}
				}
				writeFiles(t, home, map[string]string{".aws/x.json": `{"` + canary + `":"` + canary + `"}`, ".aws/lock.json": `{"default":{"` + canary + `":{}}}`, ".ssh/id.pem": canary, ".ssh/h.py": canary, ".ssh/package.json": `{"name":"` + canary + `"}`})
				if err := os.MkdirAll(p.root, 0o755); err != nil {
					t.Fatal(err)
				}
				p.write(files)
				if strings.HasPrefix(c.functions[0].Runtime, "python") {
					p.fakePython("3.12.1", `for a in "$@"; do case $a in *requirements.txt) list=$a;; esac; target=$a; done; if [ -n "$list" ]; then cat $list $(sed -n 's/^-[rc] *//p' $list) > "$(dirname $list)/installed"; [ -d $(head -1 $list) ] && cp -r $(head -1 $list)/. "$(dirname $list)"; fi; exit 0`+"\n")
				}
				a := c.app
				a.Name, a.Stage = "shop", "dev"
				for _, f := range c.functions {
					f.Package.Artifact, f.Package.Root = fill(f.Package.Artifact), strings.Replace(f.Package.Root, "../../001/users/me", home, 1)
					if filepath.IsAbs(f.Package.Root) {
						f.Package.Root, _ = filepath.Rel(p.root, f.Package.Root)
					}
					a.Functions = append(a.Functions, f)
				}
				a.LayerFiles = map[string]string{}
				for name, file := range c.app.LayerFiles {
					a.LayerFiles[name] = fill(file)
				}
				o := fence.Options{Root: p.root, Env: func(k string) (string, bool) { v, ok := p.env[k]; return v, ok }}
				if allow {
					o.Allow = []string{home}
				}
				p.fence = fence.New(o)
				r, l := p.buildApp(context.Background(), &a)
				return r, l, fill(c.at)
			}
			r, l, at := try(false)
			if c.code != "" {
				wantDiag(t, l, diag.Error, c.code, at, "--allow-files")
			}
			if text := all(t, r); strings.Contains(text, canary) {
				t.Errorf("carried away: %s", text)
			}
			for _, d := range l {
				if strings.Contains(d.String(), canary) {
					t.Errorf("told: %s", d)
				}
			}
			if c.code == "" {
				return
			}
			r, l, _ = try(true)
			for _, d := range l {
				if strings.Contains(d.Hint, "--allow-files") {
					t.Errorf("allowed: %s", d)
				}
			}
			if !c.harmless && !strings.Contains(all(t, r), canary) {
				t.Errorf("allowed, it is not there either: %v", l)
			}
		})
	}
}

func TestBuild_ReadsWhatBelongsToAProject(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		files map[string]string // below the folder that holds shop; HOME stands for the home
		fn    app.Function
		want  string
		note  string // of what is left out
	}{
		{"source beside it", map[string]string{"shop/h.ts": "import k from '../lib/k'; export const f = () => k", "lib/k.ts": "export default 'wanted'"}, node("f", "h.f"), "wanted", ""},
		{"repository", map[string]string{".git/HEAD": "", "shop/h.ts": "import k from '../.config/k.json'; export const f = () => k", ".config/k.json": `"wanted"`}, node("f", "h.f"), "wanted", ""},
		{"settings above it", map[string]string{"shop/h.ts": "export const f = () => 'wanted'", "shop/tsconfig.json": `{"extends":"../base.json"}`, "base.json": "{}"}, node("f", "h.f"), "wanted", ""},
		{"settings above all of it", map[string]string{"shop/h.ts": "export const f = () => 'wanted'", "../tsconfig.json": "{}"}, node("f", "h.f"), "wanted", ""},
		{"settings of a package", map[string]string{"shop/h.ts": "export const f = () => 'wanted'", "shop/tsconfig.json": `{"extends":"@tsconfig/node"}`, "shop/node_modules/@tsconfig/node/tsconfig.json": "{}"}, node("f", "h.f"), "wanted", ""},
		{"source map", map[string]string{"shop/h.ts": "export const f = () => 1 // wanted"}, node("f", "h.f"), "// wanted", ""},
		{"linked package of a home", map[string]string{"shop/h.js": "exports.f = () => require('mine')", "shop/package.json": `{"dependencies":{"mine":"*"}}`, "shop/node_modules/mine": "-> HOME/work/mine",
			"HOME/work/mine/package.json": "{}", "HOME/work/mine/index.js": "'wanted'", "HOME/work/mine/.env": canary, "HOME/work/mine/.github/x": canary}, node("f", "h.f"), "wanted", ".env"},
		{"store of pnpm", map[string]string{"shop/h.js": "exports.f = () => require('mine')", "shop/package.json": `{"dependencies":{"mine":"*"}}`, "shop/node_modules/mine": "-> .pnpm/mine@1/node_modules/mine",
			"shop/node_modules/.pnpm/mine@1/node_modules/mine": "-> HOME/.local/share/pnpm/store/v10/mine", "HOME/.local/share/pnpm/store/v10/mine/index.js": "'wanted'"}, node("f", "h.f"), "wanted", ""},
		{"left out", map[string]string{"shop/h.js": "exports.f = () => 'wanted'", "shop/data": "-> HOME/.ssh", "HOME/.ssh/id": canary},
			app.Function{Key: "f", Runtime: "nodejs22.x", Handler: "h.f", Package: app.Package{Patterns: []string{"!data"}}}, "wanted", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newProject(t, nil)
			home := p.env["HOME"]
			files := map[string]string{}
			for name, text := range c.files {
				rest, own := strings.CutPrefix(name, "HOME/")
				text = strings.ReplaceAll(text, "HOME", home)
				if own {
					writeFiles(t, home, map[string]string{rest: text})
				} else {
					files["../"+name] = text
				}
			}
			p.write(files)
			r, l := p.build(c.fn)
			if r.Functions["f"] == nil {
				t.Fatalf("not built: %v", l)
			}
			if text := all(t, r); !strings.Contains(text, c.want) || strings.Contains(text, canary) {
				t.Errorf("got %s", text)
			}
			if c.note != "" {
				wantDiag(t, l, diag.Note, "hidden-left-out", filepath.Join(home, "work/mine"), c.note+" is outside")
			} else if len(l) > 0 {
				t.Errorf("it says %v", l)
			}
		})
	}
}

func TestBuild_WhatWasAllowedOnceIsNotRemembered(t *testing.T) {
	t.Parallel()
	p := newProject(t, nil)
	secret := filepath.Join(p.env["HOME"], "x.json")
	writeFiles(t, filepath.Dir(secret), map[string]string{"x.json": `"` + canary + `"`})
	p.write(map[string]string{"h.ts": "import k from '" + secret + "'; export const f = () => k"})
	inside := fence.New(fence.Options{Root: p.root, Env: func(k string) (string, bool) { v, ok := p.env[k]; return v, ok }})
	p.fence = inside.Allowing(secret)
	if r, l := p.build(node("f", "h.f")); r.Functions["f"] == nil || !strings.Contains(all(t, r), canary) {
		t.Fatalf("allowed: %v", l)
	}
	p.fence = inside
	r, l := p.build(node("f", "h.f"))
	wantDiag(t, l, diag.Error, "outside", "h.ts:1:15", "--allow-files")
	if len(r.Functions) > 0 {
		t.Error("it is built")
	}
}

func TestBuild_InstalledPackagesLeadNowhere(t *testing.T) {
	t.Parallel()
	const lie = `{"format":1,"entries":[{"path":"../../../../../../../../../../../../etc/hostname","mode":420,"size":1,"sha256":"0000000000000000000000000000000000000000000000000000000000000000"}]}`
	for name, c := range map[string]struct{ does, want string }{
		"link":         {"ln -s $HOME/.ssh $t/data", "is a link that leads out"},
		"a list of it": {"echo '" + lie + "' > $t/.files.json; echo > $t/mine.py", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProject(t, map[string]string{"h.py": "", "requirements.txt": "mine\n"})
			writeFiles(t, p.env["HOME"], map[string]string{".ssh/id.pem": canary})
			p.fakePython("3.12.1", "for a in \"$@\"; do t=$a; done; "+c.does+"\n")
			r, l := p.build(python("f", "h.f"))
			if c.want != "" {
				wantDiag(t, l, diag.Error, "install-failed", "requirements.txt", c.want)
			} else if r.Functions["f"] == nil || paths(r.Functions["f"].Code) != "h.py mine.py requirements.txt" {
				t.Errorf("got %v, %v", r.Functions["f"], l)
			}
		})
	}
}

func TestModulesAbove_ShowsNoOtherFolders(t *testing.T) {
	t.Parallel()
	p := newProject(t, map[string]string{"../.git/HEAD": "", "x": ""})
	writeFiles(t, p.env["HOME"], map[string]string{".ssh/id.pem": canary, "tools/node_modules/x/index.js": ""})
	root, err := filepath.EvalSymlinks(p.root)
	if err != nil {
		t.Fatal(err)
	}
	f := fence.New(fence.Options{Root: root, Env: func(string) (string, bool) { return p.env["HOME"], true }})
	for to, want := range map[string]int{filepath.Join(p.env["HOME"], ".ssh"): 0, filepath.Join(p.env["HOME"], "tools/node_modules"): 1} {
		link := filepath.Join(filepath.Dir(root), "node_modules")
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
		if got := ModulesAbove(root, f); len(got) != want {
			t.Errorf("%s: got %v", to, got)
		}
		if err := os.Remove(link); err != nil {
			t.Fatal(err)
		}
	}
}
