package build

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/artifact"
	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/runtimes"
)

// provided builds Functions that bring their own program: what is there is taken, Go sources are compiled.
func (b *builder) provided(fs []*app.Function) {
	for _, f := range fs {
		if b.ctx.Err() != nil {
			return
		}
		tree, err := b.program(f)
		if err != nil {
			b.errorf(diag.Pos{}, "build-failed", errs.HintOf(err), "function %q: %v", f.Key, err)
			continue
		}
		if tree != nil {
			b.done(f, tree, f.Handler)
		}
	}
}

// programPath is where the cloud looks for the program in the code.
func programPath(f *app.Function) string {
	if f.Runtime == "go1.x" {
		return path.Clean(f.Handler)
	}
	return "bootstrap"
}

// program gives the code of one Function, with its program executable. A nil Tree has its error said.
func (b *builder) program(f *app.Function) (*artifact.Tree, error) {
	base, name := b.base(f), programPath(f)
	if name == ".." || strings.HasPrefix(name, "../") || path.IsAbs(name) {
		return nil, errs.New(errs.Invalid, "the handler %q leaves the code", f.Handler)
	}
	src := b.goSources(base)
	at := filepath.Join(base, filepath.FromSlash(name))
	if f.Package.Makefile != "" || len(src) > 0 {
		in, err := b.goInputs(base, src)
		if err != nil {
			return nil, err
		}
		made, err := b.makeProgram(f, base, at, in)
		if err != nil {
			return nil, err
		}
		if made != "" && len(src) > 0 && !runsOn(made, b.goArch(f)) {
			made = "" // its Makefile is for the cloud's processor
		} else if made == "" && b.ownProgram(at, b.sourcesOf(in, src)) && runsOn(at, b.goArch(f)) {
			made = at
		}
		if made == "" && len(src) > 0 && f.Package.Makefile == "" {
			if made, err = b.goProgram(f, base, src, in.state); err != nil {
				return nil, err
			}
		}
		if made != "" {
			at = made
		}
	}
	if !isRegular(at) {
		if f.Runtime != "go1.x" && b.inLayers(f, "bootstrap") {
			return b.programFiles(f)
		}
		hint := "Build it first: the file has to be there, executable."
		if near := b.nearestFile(path.Join(f.Package.Root, name), ""); near != "" {
			hint = near
		}
		b.errorf(f.Place, "missing-handler", hint, "function %q: the program %s is not there, and nothing here builds it", f.Key, path.Join(f.Package.Root, name))
		return nil, nil
	}
	return b.programTree(f, at, name)
}

// programTree is the package's files with the program at its place.
func (b *builder) programTree(f *app.Function, at, name string) (*artifact.Tree, error) {
	files, err := b.programFiles(f)
	if err != nil {
		return nil, err
	}
	program, err := b.scan(filepath.Dir(at), func(p string, _ fs.DirEntry) bool { return p == filepath.Base(at) })
	if err != nil {
		return nil, err
	}
	if len(program.Manifest.Entries) != 1 {
		return nil, errs.New(errs.Invalid, "the program %s is no file", b.rel(at))
	}
	sum, err := b.files.Sum(at)
	if err != nil {
		return nil, err
	}
	if e, ok := files.Find(name); ok && e.SHA256 == sum && e.Mode == 0o755 {
		return files, nil
	}
	e := artifact.Entry{Path: name, Mode: 0o755, Size: program.Manifest.Entries[0].Size, SHA256: sum}
	one := &artifact.Tree{Manifest: artifact.Manifest{Format: artifact.Format, Entries: []artifact.Entry{e}},
		Open: func(artifact.Entry) (io.ReadCloser, error) { return os.Open(at) }}
	return artifact.Merge(one, files), nil
}

// programFiles are the package's files. Functions of one package get one Tree.
func (b *builder) programFiles(f *app.Function) (*artifact.Tree, error) {
	key := fmt.Sprintf("provided\x00%s\x00%v\x00%q", b.base(f), f.Package.Only, f.Package.Patterns)
	if files := b.trees[key]; files != nil {
		return files, nil
	}
	r := newRules(f.Package.Patterns, f.Package.Only)
	r.modules = func(string, fs.DirEntry) bool { return false }
	files, err := b.scan(b.base(f), func(p string, d fs.DirEntry) bool {
		if d.IsDir() && p == "vendor" && isRegular(filepath.Join(b.base(f), "go.mod")) {
			return false
		}
		return !goOnly(p) && r.keep(p, d)
	})
	if err == nil {
		b.trees[key] = files
	}
	return files, err
}

// goOnly says whether a file is only what a Go program is made of.
func goOnly(p string) bool {
	switch path.Base(p) {
	case "go.mod", "go.sum", "go.work", "go.work.sum", "Gopkg.toml", "Gopkg.lock", "Makefile":
		return true
	}
	return path.Ext(p) == ".go"
}

// goSources lists Go files and what else is compiled with them or says how, absolute. It is empty where there is no Go file.
func (b *builder) goSources(base string) []string {
	var list []string
	code := false
	_ = filepath.WalkDir(base, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return fs.SkipDir
		case d.IsDir():
			if n := d.Name(); p != base && (n == "node_modules" || strings.HasPrefix(n, ".") || n == "testdata") {
				return fs.SkipDir
			}
		case (goOnly(d.Name()) || compiledExt(d.Name())) && !strings.HasSuffix(d.Name(), "_test.go"):
			list = append(list, p)
			code = code || strings.HasSuffix(d.Name(), ".go")
		}
		return nil
	})
	if !code {
		return nil
	}
	for d := filepath.Dir(base); within(d, b.root); d = filepath.Dir(d) {
		for _, n := range []string{"go.mod", "go.sum", "go.work", "Makefile"} {
			if p := filepath.Join(d, n); isRegular(p) {
				list = append(list, p)
			}
		}
	}
	return list
}

func (b *builder) digestOf(files []string) (string, error) {
	var parts []string
	for _, p := range files {
		sum, err := b.files.Sum(p)
		if err != nil {
			return "", err
		}
		parts = append(parts, p, sum)
	}
	return hash(parts...), nil
}

// ownProgram says whether the program was built by other means than these sources, or after their last change: then it
// is taken as it is.
func (b *builder) ownProgram(at string, src []string) bool {
	info, err := os.Stat(at)
	if err != nil {
		return false
	}
	newer := func(p string) bool {
		s, err := os.Stat(p)
		return err == nil && s.ModTime().After(info.ModTime())
	}
	return !slices.ContainsFunc(src, newer) && !slices.ContainsFunc(embedded(src), newer)
}

// sourcesOf adds to Go sources those of the rest of their module and of the local modules it uses.
func (b *builder) sourcesOf(in *inputs, src []string) []string {
	all := slices.Clone(src)
	for _, d := range in.dirs {
		all = append(all, b.goSources(d)...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// makeArtifact runs the Makefile that makes a Function's artifact out of Go sources, when it is not there or older than they are.
func (b *builder) makeArtifact(f *app.Function) {
	full := filepath.Join(b.root, filepath.FromSlash(f.Package.Artifact))
	if runtimes.Family(f.Runtime) != runtimes.Provided || path.IsAbs(f.Package.Artifact) || isFolder(full) || !isRegular(filepath.Join(b.root, "Makefile")) {
		return
	}
	src := b.goSources(b.root)
	if len(src) == 0 {
		return
	}
	if in, err := b.goInputs(b.root, src); err == nil {
		_, _ = b.makeProgram(f, b.root, full, in) // what it did not make is missed by the caller
	}
}

var makeTarget = regexp.MustCompile(`(?m)^([A-Za-z0-9_.-]+)[ \t]*:([^=]|$)`)

// makeProgram runs the project's Makefile where that is what makes the program, and returns the program's path; "" when the
// Makefile is not about it. It is run again when the sources have changed.
func (b *builder) makeProgram(f *app.Function, base, at string, in *inputs) (string, error) {
	dir, text := "", ""
	for d := base; within(d, b.root); d = filepath.Dir(d) {
		if data, err := os.ReadFile(filepath.Join(d, "Makefile")); err == nil {
			dir, text = d, string(data)
			break
		}
	}
	var targets []string
	for _, m := range makeTarget.FindAllStringSubmatch(text, -1) {
		targets = append(targets, m[1])
	}
	target := f.Package.Makefile
	out := at
	env := []string{}
	if target != "" { // ARTIFACTS_DIR is where the target has to put the code: SAM's "BuildMethod: makefile"
		if dir == "" || !slices.Contains(targets, target) {
			return "", errs.New(errs.Invalid, "the Makefile has no target %q", target)
		}
		art := filepath.Join(b.o.Work, "make-"+hash(base, target)[:16])
		if err := os.MkdirAll(art, 0o755); err != nil {
			return "", err
		}
		out, env = filepath.Join(art, filepath.FromSlash(programPath(f))), []string{"ARTIFACTS_DIR=" + art}
	} else {
		rel, err := filepath.Rel(dir, at)
		if dir == "" || err != nil || !slices.Contains(targets, "build") || !strings.Contains(text, filepath.ToSlash(filepath.Dir(rel))) && !strings.Contains(text, path.Base(rel)) {
			return "", nil
		}
		target = "build"
	}
	key := "make:" + dir + ":" + target
	var done string
	if isRegular(out) && (b.notes.get(key, &done) && done == in.state) {
		return out, nil
	}
	if isRegular(out) && f.Package.Makefile == "" && done == "" && b.ownProgram(out, []string{filepath.Join(dir, "Makefile")}) && b.ownProgram(out, b.sourcesOf(in, b.goSources(base))) {
		return out, nil // built by the user
	}
	failed := "make-failed:" + dir + ":" + target + ":" + programPath(f)
	var before madeNothing
	if f.Package.Makefile == "" && b.notes.get(failed, &before) && before.State == in.state {
		b.noteMake(dir, target, before.Why)
		return "", nil // and it would not today
	}
	end := b.step("compile", f.Key, "make "+target)
	run := command{dir: dir, name: "make", args: []string{target}, env: env}
	switch folder := filepath.Dir(out); {
	case f.Package.Makefile != "":
		run.writes = []string{filepath.Join(b.o.Work, "make-"+hash(base, target)[:16])}
	case isFolder(out), folder == dir, folder == b.root:
		run.results = []string{out}
	default:
		run.results = []string{folder} // with the programs of other Functions, and what is beside them
	}
	text, err := b.run(run)
	end()
	in.ran(b)
	if b.ctx.Err() != nil {
		return "", b.ctx.Err()
	}
	if err == nil && isRegular(out) {
		b.notes.put(key, in.state)
		return out, nil
	}
	if f.Package.Makefile != "" {
		b.show(text)
		return "", errs.New(errs.Failed, "make %s: %s", target, lastLine(text, err)).WithHint("Run it in %s and see what it says.", b.place(dir))
	}
	why := "it does not make " + b.rel(at)
	if err != nil {
		why = lastLine(text, err)
		if missing(err) {
			why = "make is not installed"
		}
	}
	b.notes.put(failed, madeNothing{State: in.state, Why: why})
	b.noteMake(dir, target, why)
	return "", nil
}

// madeNothing remembers that a Makefile did not make a program from these sources.
type madeNothing struct {
	State string `json:"state"`
	Why   string `json:"why"`
}

func (b *builder) noteMake(dir, target, why string) {
	b.notef(diag.Pos{File: b.rel(filepath.Join(dir, "Makefile"))}, "make-failed", "", "`make %s` did not do (%s); the sources are compiled directly", target, why)
}
