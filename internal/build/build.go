// Package build turns a project's sources into Artifacts.
//
// Main function: [Build]. It runs on the client's side only: it is the one place that runs a project's own tools (npm, pip,
// go, make), and what leaves it are Trees of files.
//
// Guarantees:
//
//  1. Faults in the user's files come back as located diagnostics, all of one pass; a Function with an error has no Built.
//  2. Nothing is run or read again that has not changed: a second Build of an unchanged project runs no tool. A compiler or Makefile
//     runs again when any file has that its module, or a local module or requirement it uses, may be made of.
//  3. A tool gets a cleaned environment (see childEnv), never the user's cloud credentials or tokens; cancelling the context ends it
//     with everything it started. With Options.Runner every tool goes through that, as Jobs that say what may be written and what comes back.
//  4. A project whose dependencies are installed builds without network.
//  5. Functions with equal code share one Tree, unless they are packaged alone.
//  6. Nothing in the project's folder is written but node_modules and what the project's own Makefile or scripts write; the rest
//     is below Options.Work and Options.Cache.
//  7. What is read for the project by this process is inside of Options.Fence, whatever its links, imports and settings name.
//
// It does not start functions, and does not look whether a handler is exported: Init says that.
package build

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/artifact"
	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/fence"
	"github.com/ebb-run/ebb/internal/runtimes"
)

// Options are what a Build may use.
type Options struct {
	Work     string                      // folder of this project for intermediate results: DIR/.ebb/build
	Cache    string                      // folder of the user for supplied SDKs; empty is ebb's cache folder
	Env      func(string) (string, bool) // the user's environment
	Environ  func() []string             // the same as a list, "K=V"; nil is os.Environ
	Finder   *runtimes.Finder
	Progress func(Progress)         // called from one goroutine at a time; may be nil
	Arch     string                 // "x86_64" or "arm64": the processor of the place that runs the code; empty is this machine's
	Stdout   io.Writer              // takes the output of tools that fail; may be nil
	Verbose  bool                   // all tools' output goes to Stdout
	Layers   map[string]string      // folders or zips in the place of layers from elsewhere, as app.App.LayerFiles; before those
	Runner   func() (Runner, error) // gives what runs tools where they can do no harm, with the first tool; without it, or where it gives nil, they are plain programs of this machine
	Pass     []string               // names of further variables that tools see
	Skip     []fs.FileInfo          // files of the project that are in no package and decide no build: what ebb itself writes to
	Fence    *fence.Fence           // what the project may have read; nil is one around its folder. Work, Cache and Layers are inside anyway
}

// Progress is one step's begin, or its end when Done is set.
type Progress struct {
	Step     string // "install", "bundle", "compile", "scan", "supply"
	Function string // key, or "" when the step is for several
	Detail   string
	Done     bool
	Elapsed  time.Duration // when Done
}

// Built is one Function's code.
type Built struct {
	Code     *artifact.Tree
	Layers   []*artifact.Tree // in the order they are declared: a later one covers an earlier one
	Supplied *artifact.Tree   // an SDK the cloud's runtime would have: nodejs/node_modules/… or python/…; nil when none is needed
	Handler  string           // perhaps rewritten
	Runtime  string
}

// Result is what a Build made.
type Result struct {
	Functions map[string]*Built // by app.Function.Key
	Watch     []string          // absolute files and folders whose change matters; below a folder, what .ebb and node_modules hold does not
}

// Build makes every Function's code. Functions it could not build are missing from the Result, each with an error in
// the list; with an unsupported runtime beside others that build, with a warning.
func Build(ctx context.Context, root string, a *app.App, o Options) (*Result, diag.List) {
	b, err := newBuilder(ctx, root, a, o)
	if err != nil {
		var l diag.List
		l.Errorf(diag.Pos{}, "build-failed", errs.HintOf(err), "%v", err)
		return &Result{Functions: map[string]*Built{}}, l
	}
	b.functions()
	b.layers()
	b.share()
	if ctx.Err() != nil {
		b.errorf(diag.Pos{}, "canceled", "", "the build was cancelled")
	}
	if err := b.close(); err != nil {
		b.warnf(diag.Pos{}, "build-cache", "", "%v", err)
	}
	watch := make([]string, 0, len(b.watch))
	for p := range b.watch {
		watch = append(watch, p)
	}
	slices.Sort(watch)
	return &Result{Functions: b.built, Watch: watch}, b.diags
}

// builder is one run of Build.
type builder struct {
	ctx      context.Context
	root     string // absolute, no links
	app      *app.App
	o        Options
	files    *artifact.ScanCache
	notes    *memo
	built    map[string]*Built
	watch    map[string]bool
	diags    diag.List
	said     map[string]bool // diagnostics given, to give each once
	trees    map[string]*artifact.Tree
	sets     map[string]packageSet // Node packages installed in this run, by key
	broken   map[string]error      // folders that could not be made in this run
	runner   Runner                // once asked for; nil where tools are plain programs
	asked    bool
	noRunner error
	below    map[string]map[string]string // filesBelow's results
	fence    *fence.Fence
}

func newBuilder(ctx context.Context, root string, a *app.App, o Options) (*builder, error) {
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	if abs, err = filepath.EvalSymlinks(abs); err != nil {
		return nil, fmt.Errorf("open project: %w", err)
	}
	if o.Env == nil {
		o.Env = os.LookupEnv
	}
	if o.Environ == nil {
		o.Environ = os.Environ
	}
	if o.Work == "" {
		o.Work = filepath.Join(abs, ".ebb", "build")
	}
	if o.Work, err = filepath.Abs(o.Work); err != nil {
		return nil, err
	}
	if o.Cache == "" {
		o.Cache = runtimes.CacheDir(o.Env)
	}
	if o.Finder == nil {
		o.Finder = runtimes.New(o.Env)
	}
	if o.Stdout == nil {
		o.Stdout = io.Discard
	}
	if err := os.MkdirAll(o.Work, 0o755); err != nil {
		return nil, fmt.Errorf("make build folder: %w", err)
	}
	if o.Fence == nil {
		o.Fence = fence.New(fence.Options{Root: abs, Env: o.Env})
	}
	inside := []string{o.Work, o.Cache}
	for _, file := range o.Layers {
		inside = append(inside, filepath.FromSlash(file))
	}
	return &builder{
		ctx: ctx, root: abs, app: a, o: o, fence: o.Fence.Allowing(inside...),
		files: artifact.OpenScanCache(filepath.Join(o.Work, "scan")),
		notes: openMemo(filepath.Join(o.Work, "memo.json")),
		built: map[string]*Built{}, watch: map[string]bool{abs: true}, said: map[string]bool{},
		trees: map[string]*artifact.Tree{}, sets: map[string]packageSet{}, broken: map[string]error{}, below: map[string]map[string]string{},
	}, nil
}

func (b *builder) close() error {
	if err := b.files.Save(); err != nil {
		return err
	}
	return b.notes.save()
}

// functions builds the code of every Function, family by family.
func (b *builder) functions() {
	families := map[string][]*app.Function{}
	var refused []func(last bool)
	for i := range b.app.Functions {
		f := &b.app.Functions[i]
		family := runtimes.Family(f.Runtime)
		switch {
		case f.Package.Image != "":
			refused = append(refused, func(last bool) {
				b.refuse(last, f.Place, "container-image", "Give the function a handler and a runtime.", "function %q is a container image, which has no engine here", f.Key)
			})
		case family == "":
			_, err := b.o.Finder.Resolve(b.ctx, f.Runtime)
			refused = append(refused, func(last bool) {
				b.refuse(last, f.Place, "unsupported-runtime", errs.HintOf(err), "function %q: %v", f.Key, err)
			})
		default:
			families[family] = append(families[family], f)
		}
	}
	var rest []*app.Function
	for _, family := range []string{runtimes.Node, runtimes.Python, runtimes.Provided} {
		for _, f := range families[family] {
			if !b.ready(f) {
				rest = append(rest, f)
			}
		}
		switch fs := rest; family {
		case runtimes.Node:
			b.node(fs)
		case runtimes.Python:
			b.python(fs)
		case runtimes.Provided:
			b.provided(fs)
		}
		rest = rest[:0]
	}
	for _, say := range refused {
		say(len(families) == 0)
	}
}

// refuse reports a Function that has no engine: an error when the App has no other.
func (b *builder) refuse(last bool, pos diag.Pos, code, hint, format string, args ...any) {
	if last {
		b.errorf(pos, code, hint, format, args...)
		return
	}
	b.warnf(pos, code, hint, format+"; it is left out", args...)
}

// ready takes code that needs no building: a zip, a folder, or the source text itself. It says whether f was such.
func (b *builder) ready(f *app.Function) bool {
	switch {
	case f.Package.Inline != "":
		b.inline(f)
	case f.Package.Artifact != "":
		b.makeArtifact(f)
		tree, ok := b.readyTree(f.Package.Artifact, fmt.Sprintf("the artifact of function %q", f.Key))
		if ok {
			b.done(f, tree, f.Handler)
			b.supply(f, tree)
		}
	default:
		return false
	}
	return true
}

// readyTree reads a zip or folder of the project.
func (b *builder) readyTree(rel, what string) (*artifact.Tree, bool) {
	full := filepath.Join(b.root, filepath.FromSlash(rel))
	if path.IsAbs(rel) {
		full = filepath.FromSlash(rel)
	}
	b.watch[full] = true
	info, err := os.Stat(full)
	if err != nil {
		b.errorf(diag.Pos{}, "missing-artifact", b.nearestFile(rel, "Build it first, or correct the path."), "%s, %s, is not there", what, rel)
		return nil, false
	}
	if err := b.fence.Check(full); err != nil {
		b.errorf(diag.Pos{File: rel}, "outside", errs.HintOf(err), "%s: %v", what, err)
		return nil, false
	}
	key := fmt.Sprintf("ready\x00%s\x00%d\x00%d", full, info.Size(), info.ModTime().UnixNano())
	if t := b.trees[key]; t != nil {
		return t, true
	}
	var t *artifact.Tree
	if info.IsDir() {
		t, err = b.scan(full, nil)
	} else {
		t, err = artifact.FromZip(full)
	}
	if err != nil {
		b.errorf(diag.Pos{File: rel}, "bad-artifact", errs.HintOf(err), "%s cannot be read: %v", what, err)
		return nil, false
	}
	b.trees[key] = t
	return t, true
}

// inline makes the one file CloudFormation makes of a ZipFile text: index.js, index.py.
func (b *builder) inline(f *app.Function) {
	name, mode := "index.js", uint32(0o644)
	switch runtimes.Family(f.Runtime) {
	case runtimes.Python:
		name = "index.py"
	case runtimes.Provided:
		name, mode = "bootstrap", 0o755
	}
	tree := artifact.FromFiles(artifact.File{Path: name, Mode: mode, Data: []byte(f.Package.Inline)})
	b.done(f, tree, f.Handler)
	b.supply(f, tree)
}

func (b *builder) done(f *app.Function, code *artifact.Tree, handler string) {
	b.built[f.Key] = &Built{Code: code, Handler: handler, Runtime: f.Runtime}
}

// share gives Functions with equal code one Tree.
func (b *builder) share() {
	alone := map[string]bool{}
	for _, f := range b.app.Functions {
		alone[f.Key] = f.Package.Alone
	}
	byDigest := map[string]*artifact.Tree{}
	digests := map[*artifact.Tree]string{}
	for _, f := range b.app.Functions {
		built := b.built[f.Key]
		if built == nil || alone[f.Key] {
			continue
		}
		d, ok := digests[built.Code]
		if !ok {
			d = built.Code.Manifest.Digest()
			digests[built.Code] = d
		}
		if t := byDigest[d]; t != nil {
			built.Code = t
		} else {
			byDigest[d] = built.Code
		}
	}
}

// step reports a step's begin and returns the function that reports its end.
func (b *builder) step(step, function, detail string) func() {
	if b.o.Progress == nil {
		return func() {}
	}
	start := time.Now()
	b.o.Progress(Progress{Step: step, Function: function, Detail: detail})
	return func() {
		b.o.Progress(Progress{Step: step, Function: function, Detail: detail, Done: true, Elapsed: time.Since(start)})
	}
}

func (b *builder) add(sev diag.Severity, pos diag.Pos, code, hint, format string, args ...any) {
	d := diag.Diagnostic{Severity: sev, Code: code, Pos: pos, Message: fmt.Sprintf(format, args...), Hint: hint}
	if key := d.String(); !b.said[key] {
		b.said[key] = true
		b.diags.Add(d)
	}
}

func (b *builder) errorf(pos diag.Pos, code, hint, format string, args ...any) {
	b.add(diag.Error, pos, code, hint, format, args...)
}

func (b *builder) warnf(pos diag.Pos, code, hint, format string, args ...any) {
	b.add(diag.Warning, pos, code, hint, format, args...)
}

func (b *builder) notef(pos diag.Pos, code, hint, format string, args ...any) {
	b.add(diag.Note, pos, code, hint, format, args...)
}

// rel gives a path as diagnostics name it: relative to the project where it is inside.
func (b *builder) rel(p string) string {
	if !filepath.IsAbs(p) {
		return filepath.ToSlash(p)
	}
	if r, err := filepath.Rel(b.root, p); err == nil && filepath.IsLocal(r) {
		return filepath.ToSlash(r)
	}
	return p
}

// nearestFile is a hint that names the existing file closest to a missing one, or the given mend.
func (b *builder) nearestFile(rel, mend string) string {
	var names []string
	for dir := path.Dir(rel); ; dir = path.Dir(dir) {
		list, err := os.ReadDir(filepath.Join(b.root, filepath.FromSlash(dir)))
		if err == nil {
			for _, d := range list {
				if d.Name() != "node_modules" && !strings.HasPrefix(d.Name(), ".") {
					names = append(names, path.Join(dir, d.Name()))
				}
			}
			break
		}
		if dir == "." || dir == "/" {
			break
		}
	}
	if near := diag.Nearest(rel, names); near != "" {
		return fmt.Sprintf("The nearest there is: %s.", near)
	}
	return mend
}
