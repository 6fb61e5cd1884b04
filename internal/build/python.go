package build

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
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

// pythonSDK are the packages that the cloud's Python runtime supplies, as modules and as distributions.
var (
	pythonSDK     = []string{"boto3", "botocore", "s3transfer", "jmespath", "dateutil", "urllib3", "six"}
	pythonSDKDist = regexp.MustCompile(`(?i)^\s*(boto3|botocore|s3transfer|awscli|aiobotocore)\b[^#\n]*`)
)

// python builds Python Functions: the package's files, and beside them what its requirements name.
func (b *builder) python(fs []*app.Function) {
	for _, f := range fs {
		if b.ctx.Err() != nil {
			return
		}
		own, err := b.pythonSources(f)
		if err != nil {
			b.errorf(diag.Pos{}, "package-failed", errs.HintOf(err), "package %s: %v", f.Key, err)
			continue
		}
		code := own
		if req, text := b.requirements(f); req != "" && strings.TrimSpace(text) != "" {
			deps, err := b.pipTree(f, req, text)
			if err != nil {
				b.errorf(diag.Pos{File: b.rel(req)}, "install-failed", errs.HintOf(err), "%v", err)
				continue
			}
			if deps != nil {
				code = artifact.Merge(own, deps)
			}
		}
		if !b.pythonHandler(f, code) {
			continue
		}
		b.done(f, code, f.Handler)
		b.supplyPython(f, code)
	}
}

// pythonSources scans the package; Functions of one package get one Tree.
func (b *builder) pythonSources(f *app.Function) (*artifact.Tree, error) {
	key := fmt.Sprintf("python\x00%s\x00%v\x00%q", b.base(f), f.Package.Only, f.Package.Patterns)
	if f.Package.Alone {
		key += "\x00" + f.Key
	}
	if t := b.trees[key]; t != nil {
		return t, nil
	}
	r := newRules(f.Package.Patterns, f.Package.Only)
	r.modules = func(string, fs.DirEntry) bool { return false }
	base := b.base(f)
	t, err := b.scan(base, func(p string, d fs.DirEntry) bool {
		if d.IsDir() {
			if _, err := os.Stat(filepath.Join(base, filepath.FromSlash(p), "pyvenv.cfg")); err == nil {
				return false // a virtual environment
			}
		}
		return path.Ext(p) != ".pyc" && r.keep(p, d)
	})
	if err == nil {
		b.trees[key] = t
	}
	return t, err
}

// pythonHandler checks that the handler's module is in the code.
func (b *builder) pythonHandler(f *app.Function, code *artifact.Tree) bool {
	i := strings.LastIndexByte(f.Handler, '.')
	if i <= 0 || i == len(f.Handler)-1 {
		b.errorf(diag.Pos{}, "bad-handler", "A handler is file.function, like src/app.handler.", "function %q: the handler %q names no file and function", f.Key, f.Handler)
		return false
	}
	name := f.Handler[i+1:]
	module := path.Clean(strings.ReplaceAll(f.Handler[:i], ".", "/"))
	for _, p := range []string{module + ".py", module + "/__init__.py"} {
		if code.Has(p) {
			return true
		}
	}
	for _, p := range []string{module + ".py", module + "/__init__.py", module + ".*.so"} {
		if len(f.Layers) > 0 && b.inLayers(f, "python/"+p, "python/lib/python*/site-packages/"+p) {
			return true
		}
	}
	var mods []string
	for _, e := range code.Manifest.Entries {
		if m, ok := strings.CutSuffix(e.Path, ".py"); ok {
			mods = append(mods, m)
			if strings.HasPrefix(e.Path, module+".") { // an extension module
				return true
			}
		} else if strings.HasPrefix(e.Path, module+".") && path.Ext(e.Path) == ".so" {
			return true
		}
	}
	near := diag.Nearest(module, mods)
	if near == "" {
		for _, m := range mods {
			if path.Base(m) == path.Base(module) {
				near = m
			}
		}
	}
	hint := ""
	switch {
	case near != "":
		hint = fmt.Sprintf("The nearest file is %s; its handler would be %q.", path.Join(f.Package.Root, near+".py"), near+"."+name)
	case module == "wsgi_handler":
		hint = "The plugin serverless-wsgi brings that file at deploy: add serverless-wsgi to requirements.txt to have it here."
	}
	b.errorf(f.Place, "missing-handler", hint, "function %q: the handler %q needs a file %s, and there is none", f.Key, f.Handler, path.Join(f.Package.Root, module+".py"))
	return false
}

// requirements finds what a Function's dependencies are declared in: its own requirements.txt when it is packaged alone, else the
// package's, else what a lock file gives.
func (b *builder) requirements(f *app.Function) (file, text string) {
	base := b.base(f)
	dirs := []string{base}
	if f.Package.Alone {
		dirs = []string{filepath.Join(base, filepath.FromSlash(path.Dir(f.Handler))), base}
	}
	for _, d := range dirs {
		name := filepath.Join(d, "requirements.txt")
		if data, err := os.ReadFile(name); err == nil {
			return name, string(data)
		}
	}
	if lock := filepath.Join(base, "Pipfile.lock"); isRegular(lock) {
		if text, err := pipfileRequirements(lock); err == nil {
			return lock, text
		}
	}
	for _, l := range []struct{ file, mend string }{
		{"poetry.lock", "poetry export -o requirements.txt"}, {"uv.lock", "uv export -o requirements.txt"},
		{"Pipfile", "pipenv requirements > requirements.txt"},
	} {
		if isRegular(filepath.Join(base, l.file)) {
			b.notef(diag.Pos{File: b.rel(filepath.Join(base, l.file))}, "no-requirements", fmt.Sprintf("Write one with `%s`.", l.mend),
				"dependencies are read from requirements.txt, and there is none")
			break
		}
	}
	return "", ""
}

// pipfileRequirements writes a Pipfile.lock as requirements.
func pipfileRequirements(name string) (string, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	var lock struct {
		Default map[string]struct {
			Version string   `json:"version"`
			Markers string   `json:"markers"`
			Extras  []string `json:"extras"`
			Path    string   `json:"path"`
		} `json:"default"`
	}
	if err := json.Unmarshal(data, &lock); err != nil {
		return "", err
	}
	var b strings.Builder
	for _, n := range slices.Sorted(maps.Keys(lock.Default)) {
		p := lock.Default[n]
		if p.Path != "" {
			fmt.Fprintln(&b, p.Path)
			continue
		}
		if len(p.Extras) > 0 {
			n += "[" + strings.Join(p.Extras, ",") + "]"
		}
		n += p.Version
		if p.Markers != "" {
			n += " ; " + p.Markers
		}
		fmt.Fprintln(&b, n)
	}
	return b.String(), nil
}

// pipTree installs requirements into a folder of Work, by their text and the Python version.
func (b *builder) pipTree(f *app.Function, file, text string) (*artifact.Tree, error) {
	py, err := b.o.Finder.Resolve(b.ctx, f.Runtime)
	if err != nil {
		return nil, err
	}
	if err := b.requirementFiles(file, text, 0); err != nil {
		return nil, err
	}
	full := text + b.included(filepath.Dir(file), text, 0)
	parts := []string{full, py.Version, py.Command[0]}
	for _, p := range localRequirements(filepath.Dir(file), full) {
		if err := b.fence.Check(p); err != nil {
			return nil, err
		}
		if !within(p, b.root) {
			b.watch[p] = true
		}
		parts = append(parts, p, b.requirementState(p))
	}
	key := hash(parts...)
	dir := filepath.Join(b.o.Work, "pip-"+key[:16])
	if t := b.trees[dir]; t != nil {
		return t, nil
	}
	if err := b.broken[dir]; err != nil {
		return nil, err
	}
	if !isFolder(dir) {
		end := b.step("install", "", "pip install -r "+b.rel(file))
		err := b.once(dir, func(tmp string) error { return b.pip(py, file, text, tmp) })
		end()
		if err != nil {
			b.broken[dir] = err
			return nil, err
		}
	}
	t, err := b.sitePackages(dir)
	if err == nil {
		b.trees[dir] = t
	}
	return t, err
}

func (b *builder) sitePackages(dir string) (*artifact.Tree, error) {
	return b.fixed(dir, "", func(p string, d fs.DirEntry) bool {
		return p != "bin" && p != "requirements.txt" && d.Name() != "__pycache__"
	})
}

var includeLine = regexp.MustCompile(`(?m)^\s*(?:-r|--requirement|-c|--constraint)[ =]+(\S+)`)

// included gives the text of files that requirements refer to, and those that these refer to.
func (b *builder) included(dir, text string, depth int) string {
	var s strings.Builder
	for _, m := range includeLine.FindAllStringSubmatch(text, 20) {
		name := m[1]
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		data, err := os.ReadFile(name)
		if err != nil || depth > 5 {
			continue
		}
		s.WriteByte('\n')
		s.Write(data)
		s.WriteString(b.included(filepath.Dir(name), string(data), depth+1))
	}
	return s.String()
}

var (
	editableOption = regexp.MustCompile(`^(?:-e|--editable)[ =]*`)
	namedPath      = regexp.MustCompile(`^[\w.-]+(?:\[[^\]]*\])?\s*@\s*`)
	pathExtras     = regexp.MustCompile(`\[[\w\s,.-]*\]$`)
)

// localRequirements lists the files and folders that requirements name, absolute. pip takes them from the folder it runs in, dir.
func localRequirements(dir, text string) []string {
	var list []string
	for line := range strings.Lines(text) {
		l := strings.TrimSpace(line)
		if i := strings.Index(l, " #"); i >= 0 {
			l = l[:i]
		}
		l, _, _ = strings.Cut(l, ";")
		l = strings.TrimSpace(namedPath.ReplaceAllString(editableOption.ReplaceAllString(l, ""), ""))
		if l == "" || l[0] == '-' || l[0] == '#' {
			continue
		}
		path, isURL := strings.CutPrefix(l, "file:")
		if isURL {
			path, _, _ = strings.Cut(path, "#")
			path = strings.TrimPrefix(path, "//localhost")
			if strings.HasPrefix(path, "///") {
				path = path[2:]
			}
			if plain, err := url.PathUnescape(path); err == nil {
				path = plain
			}
		}
		path, _, _ = strings.Cut(path, " --")
		path = pathExtras.ReplaceAllString(strings.Trim(strings.TrimSpace(path), `"'`), "")
		if !isURL && !strings.ContainsAny(path, `/\.`) {
			continue // the name of a package, even where a folder has it too
		}
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		if _, err := os.Stat(path); err == nil {
			list = append(list, path)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// requirementState changes with the files of a local requirement; what pip itself leaves in its folder does not count.
func (b *builder) requirementState(p string) string {
	if !isFolder(p) {
		return b.identity(p)
	}
	var parts []string
	_ = filepath.WalkDir(p, func(q string, d fs.DirEntry, err error) error {
		name := ""
		if d != nil {
			name = d.Name()
		}
		switch {
		case err != nil, d.IsDir():
			own := filepath.Dir(q) == p && (name == "build" || name == "dist")
			if err != nil || q != p && (own || notInput(name) || name == "__pycache__" || name == ".venv" || strings.HasSuffix(name, ".egg-info") || strings.HasSuffix(name, ".dist-info")) {
				return fs.SkipDir
			}
		case path.Ext(name) != ".pyc":
			parts = append(parts, q, b.identity(q))
		}
		return nil
	})
	return hash(parts...)
}

// pip installs requirements into dir. Pinned SDKs that cannot be had are left out: the supplied one takes their place.
func (b *builder) pip(py runtimes.Found, file, text, dir string) error {
	install := func(text string) (string, error) {
		list := filepath.Join(dir, "requirements.txt")
		if err := os.WriteFile(list, []byte(absolute(filepath.Dir(file), text)), 0o644); err != nil {
			return "", err
		}
		return b.pipRun(py, filepath.Dir(file), text+b.included(filepath.Dir(file), text, 0), dir, "-r", list)
	}
	out, err := install(text)
	if err == nil || b.ctx.Err() != nil {
		return err
	}
	if sdk, left := withoutSDK(text); len(sdk) > 0 {
		again, err2 := "", error(nil)
		if hasRequirement(left) {
			again, err2 = install(left)
		}
		if err2 == nil {
			b.warnf(diag.Pos{File: b.rel(file)}, "dependency-left-out", "", "%s cannot be installed, the supplied version is taken: %s", strings.Join(sdk, ", "), pipReason(out, err))
			return nil
		}
		out, err = again, err2
	}
	b.show(out)
	e := errs.New(errs.Failed, "pip cannot install the requirements: %s", pipReason(out, err))
	switch {
	case strings.Contains(out, "No module named pip"):
		return e.WithHint("Install pip for %s: `%s -m ensurepip`.", py.Command[0], py.Command[0])
	case strings.Contains(out, "NewConnectionError"), strings.Contains(out, "Retrying ("), strings.Contains(out, "ProxyError"), strings.Contains(out, "SSLError"):
		return e.WithHint("The package index cannot be reached: check the network, HTTPS_PROXY and pip's index-url.")
	}
	return e.WithHint("Run `%s -m pip install -r %s` and see what it says.", py.Command[0], b.rel(file))
}

// withoutSDK parts the SDK's own lines from other requirements.
func withoutSDK(text string) (sdk []string, rest string) {
	for line := range strings.Lines(text) {
		if m := pythonSDKDist.FindString(line); m != "" {
			sdk = append(sdk, strings.TrimSpace(m))
		} else {
			rest += line
		}
	}
	return sdk, rest
}

func hasRequirement(text string) bool {
	for line := range strings.Lines(text) {
		if l := strings.TrimSpace(line); l != "" && !strings.HasPrefix(l, "#") && !strings.HasPrefix(l, "-i") && !strings.HasPrefix(l, "--") {
			return true
		}
	}
	return false
}

var relativeOption = regexp.MustCompile(`(?m)^(\s*(?:-r|--requirement|-c|--constraint|-f|--find-links)[ =]+)(\.?[^\s:/][^\s:]*)\s*$`)

// absolute makes references to files absolute, for a list that stands in another folder.
func absolute(dir, text string) string {
	return relativeOption.ReplaceAllStringFunc(text, func(s string) string {
		m := relativeOption.FindStringSubmatch(s)
		return m[1] + filepath.Join(dir, m[2])
	})
}

// pipReason gives pip's reason in one line.
func pipReason(out string, err error) string {
	reason := ""
	for line := range strings.Lines(out) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "ERROR: "); ok {
			reason = rest
			if strings.Contains(rest, "No matching distribution") || strings.Contains(rest, "Could not find a version") {
				break
			}
		}
	}
	if reason == "" {
		reason = lastLine(out, err)
	}
	if len(reason) > 300 {
		reason = reason[:300] + "…"
	}
	return reason
}

func isRegular(p string) bool {
	info, err := os.Stat(p)
	return err == nil && info.Mode().IsRegular()
}

var pyImport = regexp.MustCompile(`(?m)^[ \t]*(?:import[ \t]+(?:[\w., \t]*\b)?|from[ \t]+)(boto3|botocore)\b`)

// supplyPython gives f boto3 and botocore when its code imports them and does not hold them.
func (b *builder) supplyPython(f *app.Function, code *artifact.Tree) {
	built := b.built[f.Key]
	if built == nil || code.Has("boto3/__init__.py") && code.Has("botocore/__init__.py") {
		return
	}
	wanted := false
	eachSource(code, []string{".py"}, func(_ string, text []byte) { wanted = wanted || pyImport.Match(text) })
	if !wanted {
		return
	}
	py, err := b.o.Finder.Resolve(b.ctx, f.Runtime)
	if err != nil {
		return // said where the Function is started
	}
	tree, err := b.boto(py, true)
	if err == nil {
		built.Supplied = tree
		return
	}
	if b.ctx.Err() != nil {
		return
	}
	// Another version may have it. Packages that pip chose for this one keep the Function where it is; the SDK is not one of them, or it would be here.
	_, text := b.requirements(f)
	if _, rest := withoutSDK(text); f.Package.Artifact != "" || !hasRequirement(rest) {
		others, _ := b.o.Finder.List(b.ctx)
		slices.Reverse(others) // the oldest first, so that the nearest newer comes first
		for _, o := range others {
			if o.Family != runtimes.Python || !olderPython(py.Version, o.Version) {
				continue
			}
			if tree, other := b.boto(o, false); other == nil {
				built.Supplied, built.Runtime = tree, "python"+minorOf(o.Version)
				b.warnf(diag.Pos{}, "sdk-other-version", "Add boto3 to requirements.txt, or install it for "+py.Command[0]+".",
					"boto3 cannot be had for Python %s (%v); functions that import it run on Python %s, which has it", py.Version, err, minorOf(o.Version))
				return
			}
		}
	}
	b.warnf(diag.Pos{}, "sdk-not-supplied", "Add boto3 to requirements.txt, or install it for "+py.Command[0]+".",
		"boto3, which the cloud's runtime supplies, cannot be had for Python %s: %v", py.Version, err)
}

// boto gives the SDK for an interpreter; without fetch only what is on this machine.
func (b *builder) boto(py runtimes.Found, fetch bool) (*artifact.Tree, error) {
	dir := filepath.Join(b.o.Cache, "python", hash("boto3 with bytecode", minorOf(py.Version))[:16])
	if tree := b.trees[dir]; tree != nil {
		return tree, nil
	}
	key := fmt.Sprintf("%s:%v", dir, fetch)
	if !isFolder(dir) {
		if err := b.failedLately(key); err != nil {
			return nil, err
		}
	}
	if err := b.once(dir, func(tmp string) error {
		if err := b.fetchBoto(py, tmp, fetch); err != nil {
			return err
		}
		b.compileBoto(py, tmp)
		return nil
	}); err != nil {
		b.failed(key, err)
		return nil, err
	}
	tree, err := b.fixed(dir, "", func(p string, d fs.DirEntry) bool { return p != "bin" })
	if err != nil {
		return nil, err
	}
	b.trees[dir] = tree.Under("python")
	return b.trees[dir], nil
}

// compileBoto puts bytecode next to the SDK's sources, good for these whenever they are unpacked: a function that imports the SDK starts in half
// the time. What is not compiled is at its import.
func (b *builder) compileBoto(py runtimes.Found, dir string) {
	_, _ = b.run(command{dir: dir, name: py.Command[0], args: []string{"-I", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "."}, outside: true, writes: []string{dir}})
}

func olderPython(a, b string) bool {
	var x, y [3]int
	fmt.Sscanf(a, "%d.%d.%d", &x[0], &x[1], &x[2])
	fmt.Sscanf(b, "%d.%d.%d", &y[0], &y[1], &y[2])
	return slices.Compare(x[:], y[:]) < 0
}

func minorOf(version string) string {
	parts := strings.SplitN(version, ".", 3)
	return strings.Join(parts[:min(2, len(parts))], ".")
}

// fetchBoto installs boto3 with pip, or copies it from an interpreter of that version that has it.
func (b *builder) fetchBoto(py runtimes.Found, dir string, fetch bool) error {
	defer b.step("supply", "", "boto3 for Python "+minorOf(py.Version))()
	reason := errs.New(errs.NotFound, "no Python %s here has boto3", minorOf(py.Version))
	if fetch {
		out, err := b.pipRun(py, dir, "", dir, "boto3")
		if err == nil || b.ctx.Err() != nil {
			return err
		}
		reason = errs.New(errs.Failed, "%s", pipReason(out, err))
	}
	all, _ := b.o.Finder.List(b.ctx)
	for _, from := range slices.Concat([]runtimes.Found{py}, all) {
		if from.Family == runtimes.Python && minorOf(from.Version) == minorOf(py.Version) && b.copyBoto(from, dir) == nil {
			return nil
		}
	}
	return reason
}

// copyBoto copies the SDK's modules out of an interpreter's own packages.
func (b *builder) copyBoto(from runtimes.Found, dir string) error {
	list := `import importlib.util as u, sys
for n in sys.argv[1:]:
    s = u.find_spec(n)
    if s is None and n in ("boto3", "botocore"): sys.exit(1)
    if s is not None: print(s.origin)`
	out, err := b.run(command{dir: dir, name: from.Command[0], args: append([]string{"-I", "-B", "-c", list}, pythonSDK...), plain: true})
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		src := strings.TrimSpace(line)
		if !filepath.IsAbs(src) {
			continue
		}
		to := dir
		keep := func(p string, d fs.DirEntry) bool { return p == filepath.Base(src) }
		if filepath.Base(src) == "__init__.py" {
			to = filepath.Join(dir, filepath.Base(filepath.Dir(src)))
			keep = func(p string, d fs.DirEntry) bool { return d.Name() != "__pycache__" }
		}
		t, err := artifact.Scan(filepath.Dir(src), nil, keep)
		if err != nil {
			return err
		}
		if err := t.Unpack(to); err != nil {
			return err
		}
	}
	return nil
}
