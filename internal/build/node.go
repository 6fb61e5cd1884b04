package build

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/artifact"
	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/errs"
)

// nodeFunc is a Node Function whose handler file was found.
type nodeFunc struct {
	fn     *app.Function
	base   string // absolute folder of its package
	entry  string // absolute handler file
	module string // handler without the export: "src/a"
	export string
	bundle bool // TypeScript or the like: what runs is made by bundling
}

var (
	plainExts  = []string{"", ".js", ".mjs", ".cjs"}
	bundleExts = []string{".ts", ".tsx", ".mts", ".cts", ".jsx"}
)

// node builds Node Functions: what they need is installed, then those with one package are built together.
func (b *builder) node(fs []*app.Function) {
	var found []*nodeFunc
	wrapped := map[string]string{} // handlers in layers, by key of the Function
	for _, f := range fs {
		if b.handlerInLayer(f) {
			own, ok := wrappedHandler(f)
			if !ok {
				b.wholePackage(f)
				continue
			}
			wrapped[f.Key] = f.Handler
			g := *f
			g.Handler = own
			f = &g
		}
		if nf := b.nodeHandler(f); nf != nil {
			found = append(found, nf)
		}
	}
	dirs := map[string]bool{}
	for _, nf := range found {
		for _, d := range b.packageDirs(nf) {
			if !dirs[d] {
				dirs[d] = true
				if err := b.install(d); err != nil {
					rel := path.Join(b.rel(d), "package.json")
					b.errorf(diag.Pos{File: rel}, "install-failed", errs.HintOf(err), "%v", err)
					return
				}
			}
		}
		if b.ctx.Err() != nil {
			return
		}
	}
	groups := map[string][]*nodeFunc{}
	var order []string
	for _, nf := range found {
		key := fmt.Sprintf("%s\x00%v\x00%q", nf.base, nf.fn.Package.Only, nf.fn.Package.Patterns)
		if nf.fn.Package.Alone {
			key += "\x00" + nf.fn.Key
		}
		if groups[key] == nil {
			order = append(order, key)
		}
		groups[key] = append(groups[key], nf)
	}
	for _, key := range order {
		b.nodeGroup(groups[key])
	}
	for key, handler := range wrapped {
		if built := b.built[key]; built != nil {
			built.Handler = handler
		}
	}
}

// nodeGroup builds Functions of one package.
func (b *builder) nodeGroup(group []*nodeFunc) {
	var plain, bundled []*nodeFunc
	for _, nf := range group {
		if nf.bundle {
			bundled = append(bundled, nf)
		} else {
			plain = append(plain, nf)
		}
	}
	graphs := b.analyse(plain)
	plain = slices.DeleteFunc(plain, func(nf *nodeFunc) bool {
		compiled := graphs[nf.entry] != nil && graphs[nf.entry].Compiled
		if compiled {
			bundled = append(bundled, nf)
		}
		return compiled
	})
	if len(plain) > 0 {
		c := b.newClosure(plain[0].base)
		for _, nf := range plain {
			g := graphs[nf.entry]
			if g == nil {
				continue
			}
			for _, dir := range b.packageDirs(nf) {
				c.addProject(dir)
			}
			for _, x := range g.Externals {
				c.addImport(x)
			}
		}
		tree, err := b.packageTree(plain[0], c, nil)
		if dev := b.developmentTree(plain, graphs); err == nil && dev != nil {
			tree = artifact.Merge(tree, dev)
		}
		if err != nil {
			b.errorf(diag.Pos{}, "package-failed", errs.HintOf(err), "package %s: %v", plain[0].fn.Key, err)
			return
		}
		for _, nf := range plain {
			g := graphs[nf.entry]
			if g == nil {
				continue // has its error
			}
			b.done(nf.fn, tree, nf.fn.Handler)
			b.supplyNode(nf.fn, b.unresolved(g.Externals, c))
		}
	}
	for _, nf := range bundled {
		b.bundleFunc(nf)
	}
}

// developmentTree gives the development dependencies that code imports and that are not installed: what runs under every
// local tool should run here, and the cloud's packaging would leave them out.
func (b *builder) developmentTree(group []*nodeFunc, graphs map[string]*graph) *artifact.Tree {
	specs := map[string]string{}
	for _, nf := range group {
		g := graphs[nf.entry]
		if g == nil {
			continue
		}
		for _, d := range b.packageDirs(nf) {
			p, err := readPackage(d)
			if err != nil {
				continue
			}
			for _, x := range g.Externals {
				if _, there := resolvePackage(x.Dir, x.Name); !there && !isSDK(x.Name) && p.Dev[x.Name] != "" {
					specs[x.Name] = p.Dev[x.Name]
				}
			}
		}
	}
	if len(specs) == 0 {
		return nil
	}
	names := strings.Join(slices.Sorted(maps.Keys(specs)), ", ")
	set := b.packages(specs)
	if set.err == nil {
		t, err := b.fixed(set.dir, "node_modules", func(p string, _ fs.DirEntry) bool { return p != ".bin" && p != ".package-lock.json" })
		if err == nil {
			b.notef(diag.Pos{}, "dev-dependency", "Move it to dependencies: the cloud's packaging leaves it out.", "%s is a development dependency, and functions import it", names)
			return t.Under("node_modules")
		}
		set.err = err
	}
	if b.ctx.Err() == nil {
		b.warnf(diag.Pos{}, "dev-dependency", "Run `npm install`.", "%s, a development dependency that functions import, cannot be installed: %v", names, set.err)
	}
	return nil
}

// packageTree is the folder of a package with the user's patterns, and of node_modules what the closure holds.
func (b *builder) packageTree(nf *nodeFunc, c *closure, drop func(p string) bool) (*artifact.Tree, error) {
	r := newRules(nf.fn.Package.Patterns, nf.fn.Package.Only)
	if c.projects > 0 || drop != nil {
		r.modules = c.holds
	}
	keep := r.keep
	if drop != nil {
		keep = func(p string, d fs.DirEntry) bool { return (d.IsDir() || underModules(p) || !drop(p)) && r.keep(p, d) }
	}
	tree, err := b.scan(nf.base, keep)
	if err != nil {
		return nil, err
	}
	trees := []*artifact.Tree{tree}
	if r.modules != nil {
		more, err := c.outside()
		if err != nil {
			return nil, err
		}
		trees = append(trees, more...)
	}
	if len(trees) == 1 {
		return tree, nil
	}
	return artifact.Merge(trees...), nil
}

// splitHandler parts "src/a/b.c.d" into the module src/a/b and the export c.d, as Lambda's own runtime does.
func splitHandler(handler string) (module, export string, ok bool) {
	dir, base := path.Split(strings.TrimPrefix(handler, "./"))
	name, export, ok := strings.Cut(base, ".")
	return path.Join(dir, name), export, ok && name != "" && export != ""
}

// base is the absolute folder of a Function's package.
func (b *builder) base(f *app.Function) string {
	return filepath.Join(b.root, filepath.FromSlash(f.Package.Root))
}

func (b *builder) nodeHandler(f *app.Function) *nodeFunc {
	nf := &nodeFunc{fn: f, base: b.base(f)}
	var ok bool
	if nf.module, nf.export, ok = splitHandler(f.Handler); !ok || path.IsAbs(f.Handler) || strings.HasPrefix(nf.module, "../") {
		if strings.HasPrefix(f.Handler, "/opt/") {
			b.errorf(f.Place, "missing-handler", "Give the layer that holds it a local copy with --layer, or name the project's own handler for this stage.",
				"function %q: no layer that is here holds the handler %q", f.Key, f.Handler)
			return nil
		}
		b.errorf(diag.Pos{}, "bad-handler", "A handler is file.export, like src/index.handler.", "function %q: the handler %q names no file and export", f.Key, f.Handler)
		return nil
	}
	at := filepath.Join(nf.base, filepath.FromSlash(nf.module))
	plain, made := firstFile(at, plainExts), firstFile(at, bundleExts)
	if plain == "" && made == "" {
		plain, made = firstFile(filepath.Join(at, "index"), plainExts), firstFile(filepath.Join(at, "index"), bundleExts)
	}
	if plain == "" && made == "" {
		made = b.sourceOf(nf)
	}
	switch {
	case plain != "" && (made == "" || !newer(made, plain)):
		nf.entry = plain
	case made != "":
		nf.entry, nf.bundle = made, true
	default:
		b.missingHandler(f, nf.module)
		return nil
	}
	return nf
}

// missingHandler names the file that was looked for, and the nearest there is.
func (b *builder) missingHandler(f *app.Function, module string) {
	dir := path.Join(f.Package.Root, path.Dir(module))
	hint := ""
	var mods []string
	byMod := map[string]string{}
	_ = filepath.WalkDir(b.base(f), func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && (d.Name() == "node_modules" || strings.HasPrefix(d.Name(), ".") && p != b.base(f)) {
			return fs.SkipDir
		}
		rel := b.rel(p)
		if r, err := filepath.Rel(b.base(f), p); err == nil {
			rel = filepath.ToSlash(r)
		}
		if ext := path.Ext(rel); slices.Contains(plainExts[1:], ext) || slices.Contains(bundleExts, ext) {
			mod := strings.TrimSuffix(rel, ext)
			mods, byMod[mod] = append(mods, mod), path.Join(f.Package.Root, rel)
		}
		if len(mods) > 2000 {
			return fs.SkipAll
		}
		return nil
	})
	near := diag.Nearest(module, mods)
	if near == "" {
		for _, m := range mods {
			if path.Base(m) == path.Base(module) {
				near = m
			}
		}
	}
	if near != "" {
		hint = fmt.Sprintf("The nearest file is %s; its handler would be %q.", byMod[near], near+"."+suffixOf(f.Handler))
	}
	b.errorf(f.Place, "missing-handler", hint, "function %q: the handler %q needs a file %s.js (or .mjs, .cjs, .ts), and there is none",
		f.Key, f.Handler, path.Join(dir, path.Base(module)))
}

func suffixOf(handler string) string {
	_, export, _ := splitHandler(handler)
	return export
}

// sourceOf finds the TypeScript source of a handler that names a file the compiler would write: dist/a.handler, where
// tsconfig.json says that dist is made from src.
func (b *builder) sourceOf(nf *nodeFunc) string {
	var ts struct {
		CompilerOptions struct {
			OutDir  string `json:"outDir"`
			RootDir string `json:"rootDir"`
		} `json:"compilerOptions"`
	}
	outs := []string{"dist", "build", "lib", "out", ".build"}
	ins := []string{"src", "."}
	if readJSONC(filepath.Join(nf.base, "tsconfig.json"), &ts) == nil {
		if o := ts.CompilerOptions; o.OutDir != "" {
			outs = append([]string{path.Clean(o.OutDir)}, outs...)
			if o.RootDir != "" {
				ins = append([]string{path.Clean(o.RootDir)}, ins...)
			}
		}
	}
	for _, out := range outs {
		rest, ok := strings.CutPrefix(nf.module, out+"/")
		if !ok {
			continue
		}
		for _, in := range ins {
			if p := firstFile(filepath.Join(nf.base, filepath.FromSlash(path.Join(in, rest))), bundleExts); p != "" {
				return p
			}
		}
	}
	return ""
}

func firstFile(stem string, exts []string) string {
	for _, ext := range exts {
		if info, err := os.Stat(stem + ext); err == nil && info.Mode().IsRegular() {
			return stem + ext
		}
	}
	return ""
}

func newer(a, b string) bool {
	ia, err1 := os.Stat(a)
	ib, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && ia.ModTime().After(ib.ModTime())
}

// packageDirs are the folders with a package.json from the handler's up to the project's root.
func (b *builder) packageDirs(nf *nodeFunc) []string {
	var dirs []string
	top := b.root
	if !within(nf.entry, top) {
		top = nf.base
	}
	for d := filepath.Dir(nf.entry); within(d, top); d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "package.json")); err == nil {
			dirs = append(dirs, d)
		}
		if d == filepath.Dir(d) {
			break
		}
	}
	return dirs
}

// within says whether p is dir or below it.
func within(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, string(filepath.Separator))+string(filepath.Separator))
}
