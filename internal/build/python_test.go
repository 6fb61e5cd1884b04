package build

import (
	"archive/zip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/diag"
)

func python(key, handler string) app.Function {
	return app.Function{Key: key, Runtime: "python3.12", Handler: handler}
}

// fakePython is an interpreter that answers as one for its version, and for the rest does what body says.
func (p *project) fakePython(version, body string) {
	p.t.Helper()
	dir := filepath.Join(p.t.TempDir(), "py"+version, "bin")
	name := filepath.Join(dir, "python3")
	script := "#!/bin/sh\ncase \"$*\" in *version_info*) printf '" + version + "\\n" + name + "'; exit 0;; esac\necho \"$*\" >> \"" + filepath.Join(p.cache, "ran") + "\"\n" + body
	writeFiles(p.t, dir, map[string]string{"python3": script})
	if err := os.MkdirAll(p.cache, 0o755); err != nil {
		p.t.Fatal(err)
	}
	p.env["EBB_RUNTIMES"] = strings.Trim(p.env["EBB_RUNTIMES"]+":"+filepath.Dir(dir), ":")
	p.env["PYENV_ROOT"] = p.cache
	p.env["PATH"] = p.bin + ":/bin:/usr/bin"
}

func TestPython_PackagesSources(t *testing.T) {
	t.Parallel()
	p := newProject(t, map[string]string{
		"todos/__init__.py": "", "todos/create.py": "def create(e, c): pass", "app.py": "", "data.json": "{}", "__pycache__/app.pyc": "x", "venv/pyvenv.cfg": "", "venv/lib/x.py": "",
		"node_modules/serverless/index.js": "1", "package.json": "{}",
	})
	r, l := p.build(python("a", "todos/create.create"), python("b", "todos.create.create"), python("c", "app.missing"), python("d", "ap.h"), python("e", "create.create"), python("f", "app"))
	want := "app.py data.json package.json todos/__init__.py todos/create.py"
	for _, k := range []string{"a", "b", "c"} {
		if got := paths(r.Functions[k].Code); got != want {
			t.Errorf("%s: got %s, want %s", k, got, want)
		}
	}
	if r.Functions["a"].Code != r.Functions["c"].Code {
		t.Error("two functions of one package have two trees")
	}
	wantDiag(t, l, diag.Error, "missing-handler", "", `The nearest file is app.py; its handler would be "app.h".`)
	wantDiag(t, l, diag.Error, "missing-handler", "", "The nearest file is todos/create.py")
	wantDiag(t, l, diag.Error, "bad-handler", "", `"app" names no file and function`)
}

func TestPython_InstallsRequirementsOnce(t *testing.T) {
	t.Parallel()
	p := newProject(t, map[string]string{"app.py": "import tiny", "requirements.txt": "tiny==1.0\n"})
	f := python("f", "app.h")
	if _, err := findPython(p, f); err != nil {
		t.Skipf("skipped: this test runs pip, and %v", err)
	}
	wheels := t.TempDir()
	makeWheel(t, filepath.Join(wheels, "tiny-1.0-py3-none-any.whl"))
	p.env["PIP_FIND_LINKS"] = wheels
	b := p.one(f)
	if got := paths(b.Code); !strings.Contains(got, "app.py") || !strings.Contains(got, "tiny.py") || strings.Contains(got, "pyc") {
		t.Errorf("got %s", got)
	}
	p.one(f)
	if len(p.steps) != 0 {
		t.Errorf("a second build took the steps %v", p.steps)
	}
	p.write(map[string]string{"requirements.txt": "tiny==2.0\n"})
	_, l := p.build(f)
	wantDiag(t, l, diag.Error, "install-failed", "requirements.txt", "tiny==2.0")
}

// findPython says whether the interpreter for f has pip.
func findPython(p *project, f app.Function) (string, error) {
	b, err := newBuilder(p.t.Context(), p.root, &app.App{}, Options{Work: p.t.TempDir(), Env: func(k string) (string, bool) { v, ok := p.env[k]; return v, ok && v != "" }, Environ: p.environ})
	if err != nil {
		return "", err
	}
	py, err := b.o.Finder.Resolve(b.ctx, f.Runtime)
	if err != nil {
		return "", err
	}
	return b.run(command{dir: p.root, name: py.Command[0], args: []string{"-m", "pip", "--version"}})
}

func makeWheel(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(f)
	for p, text := range map[string]string{
		"tiny.py": "x = 1\n", "tiny-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
		"tiny-1.0.dist-info/WHEEL":  "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
		"tiny-1.0.dist-info/RECORD": "tiny.py,,\ntiny-1.0.dist-info/METADATA,,\ntiny-1.0.dist-info/WHEEL,,\ntiny-1.0.dist-info/RECORD,,\n",
	} {
		w, err := z.Create(p)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestPython_PinnedSDKThatCannotBeHadIsLeftOut(t *testing.T) {
	t.Parallel()
	p := newProject(t, map[string]string{"app.py": "x = 1", "requirements.txt": "boto3==1.0.9999\nok==1\n"})
	p.fakePython("3.12.1", `case "$*" in *pip*) r=$(echo "$*" | sed 's/.*-r \([^ ]*\) .*/\1/'); d=$(echo "$*" | sed 's/.*--target //')
if grep -q 9999 "$r"; then echo "ERROR: No matching distribution found for boto3==1.0.9999"; exit 1; fi; echo 1 > "$d/ok.py";; esac`)
	r, l := p.build(python("f", "app.h"))
	wantDiag(t, l, diag.Warning, "dependency-left-out", "requirements.txt", "boto3==1.0.9999")
	if r.Functions["f"] == nil || !r.Functions["f"].Code.Has("ok.py") {
		t.Errorf("got %v", l)
	}
}

func TestPython_SuppliesBoto3(t *testing.T) {
	t.Parallel()
	sources := map[string]string{"app.py": "import json, boto3\n", "plain.py": "# import boto3 is not here\n"}
	has := func(dir string) string {
		return `case "$*" in *pip*) echo "ERROR: No matching distribution found for boto3"; exit 1;; *find_spec*) for m in boto3 botocore; do echo "` + dir + `/$m/__init__.py"; done;; esac`
	}
	site := t.TempDir()
	writeFiles(t, site, map[string]string{"boto3/__init__.py": "1", "boto3/data/x.json": "{}", "botocore/__init__.py": "2"})
	const none = `case "$*" in *pip*) echo "ERROR: No matching distribution found for boto3"; exit 1;; *) exit 1;; esac`
	const want = "python/boto3/__init__.py python/boto3/data/x.json python/botocore/__init__.py"

	t.Run("by pip", func(t *testing.T) {
		t.Parallel()
		p := newProject(t, sources)
		p.fakePython("3.12.1", `case "$*" in *pip*) d=$(echo "$*" | sed 's/.*--target //'); mkdir -p "$d/boto3"; echo 1 > "$d/boto3/__init__.py";; esac`)
		only := python("plain", "plain.h")
		only.Package = app.Package{Only: true, Patterns: []string{"plain.py"}}
		r, l := p.build(python("f", "app.h"), only)
		if r.Functions["f"] == nil || r.Functions["f"].Supplied == nil || paths(r.Functions["f"].Supplied) != "python/boto3/__init__.py" {
			t.Fatal(l)
		}
		if r.Functions["plain"].Supplied != nil {
			t.Error("plain needs none")
		}
	})
	t.Run("from the interpreter", func(t *testing.T) {
		t.Parallel()
		p := newProject(t, sources)
		p.fakePython("3.12.1", has(site))
		if got := paths(p.one(python("f", "app.h")).Supplied); got != want {
			t.Errorf("got %s", got)
		}
	})
	t.Run("from another version, which then runs it", func(t *testing.T) {
		t.Parallel()
		p := newProject(t, sources)
		p.fakePython("3.12.1", none)
		p.fakePython("3.13.0", has(site))
		r, l := p.build(python("f", "app.h"))
		wantDiag(t, l, diag.Warning, "sdk-other-version", "", "run on Python 3.13")
		if f := r.Functions["f"]; f.Runtime != "python3.13" || paths(f.Supplied) != want {
			t.Errorf("got %s %s", f.Runtime, paths(f.Supplied))
		}
	})
	t.Run("from another version, as what is pinned cannot be had either", func(t *testing.T) {
		t.Parallel()
		p := newProject(t, sources)
		p.write(map[string]string{"requirements.txt": "boto3==1.0.9999\n"})
		p.fakePython("3.12.1", none)
		p.fakePython("3.13.0", has(site))
		r, l := p.build(python("f", "app.h"))
		wantDiag(t, l, diag.Warning, "sdk-other-version", "", "run on Python 3.13")
		if f := r.Functions["f"]; f.Runtime != "python3.13" || paths(f.Supplied) != want {
			t.Errorf("got %s %s", f.Runtime, paths(f.Supplied))
		}
	})
	t.Run("nowhere", func(t *testing.T) {
		t.Parallel()
		p := newProject(t, sources)
		p.fakePython("3.99.1", none) // no other version is newer
		f := python("f", "app.h")
		f.Runtime = "python3.99"
		r, l := p.build(f)
		wantDiag(t, l, diag.Warning, "sdk-not-supplied", "", "No matching distribution found for boto3")
		if r.Functions["f"] == nil || r.Functions["f"].Supplied != nil {
			t.Errorf("got %v", r.Functions["f"])
		}
	})
}

func TestPipfile_BecomesRequirements(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"Pipfile.lock": `{"default":{"b":{"version":"==2","markers":"python_version >= '3'"},"a":{"version":"==1","extras":["x"]}},"develop":{"dev":{"version":"==9"}}}`})
	got, err := pipfileRequirements(filepath.Join(dir, "Pipfile.lock"))
	if want := "a[x]==1\nb==2 ; python_version >= '3'\n"; err != nil || got != want {
		t.Errorf("got %q %v, want %q", got, err, want)
	}
}

func TestRequirements_ArePlainOrRunCode(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"six\n": true, "six==1.16.0\n# why\n\nboto3>=1,<2 ; python_version < '3.9'\n": true, "requests[socks,security]~=2.0\n": true,
		"-i https://pypi.example/simple\nsix\n": true, "six==1 \\\n    --hash=sha256:00\n": true, "-r other.txt\n": true,
		"./evil\n": false, "-e .\n": false, "evil @ https://example.com/evil.tar.gz\n": false, "git+https://example.com/evil.git\n": false, "https://example.com/evil.zip\n": false,
		"--no-binary :all:\nsix\n": false, "-f ./links\nsix\n": false, "--find-links=.\n": false, "evil.tar.gz\n": false, "evil@file:///x\n": false, "six --config-settings=a=b\n": false,
		"--only-binary=:none:\n": false,
	} {
		if got := allPlain(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
