package build

import (
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/evanw/esbuild/pkg/api"

	"github.com/ebb-run/ebb/internal/artifact"
	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/runtimes"
)

// bundled is the outcome of bundling one handler, as it is remembered.
type bundled struct {
	Inputs  map[string]string `json:"inputs"` // absolute file → digest
	Files   []string          `json:"files"`  // names below the bundle's folder
	Native  []external        `json:"native"` // packages that stay packages: they hold machine code, or the like
	Missing []external        `json:"missing"`
	Dev     map[string]string `json:"dev"` // development dependencies that the code imports, with their version ranges
}

// esmPrelude gives CommonJS packages inside an ES module the require they call.
const esmPrelude = `import { createRequire as ebbCreateRequire } from "node:module"; globalThis.require ??= ebbCreateRequire(import.meta.url);`

// bundleFunc makes one JavaScript file of a handler in TypeScript and all it imports, beside the package's other files.
func (b *builder) bundleFunc(nf *nodeFunc) {
	b.warnMetadata(nf)
	esm := isModule(nf.entry)
	out := nf.module + ".js"
	switch {
	case esm:
		out = nf.module + ".mjs"
	case filepath.Ext(nf.entry) == ".cts":
		out = nf.module + ".cjs"
	}
	bd := b.bundleOnce(nf, out, esm)
	if bd == nil {
		return
	}
	c := b.newClosure(nf.base)
	for _, x := range bd.Native {
		c.addImport(x)
	}
	assets, err := b.packageTree(nf, c, isSource)
	if err == nil {
		var files *artifact.Tree
		files, err = b.scan(b.bundleDir(nf, out), nil)
		if err == nil {
			b.done(nf.fn, artifact.Merge(files, lazySDK(assets, "node_modules")), nf.module+"."+nf.export)
			b.supplyNode(nf.fn, b.unresolved(bd.Missing, c))
			return
		}
	}
	b.errorf(diag.Pos{}, "package-failed", errs.HintOf(err), "package %s: %v", nf.fn.Key, err)
}

// warnMetadata warns of the one thing of TypeScript that a bundle lacks and code at run time may look for.
func (b *builder) warnMetadata(nf *nodeFunc) {
	var ts struct {
		CompilerOptions struct {
			Metadata bool `json:"emitDecoratorMetadata"`
		} `json:"compilerOptions"`
	}
	file := filepath.Join(nf.base, "tsconfig.json")
	if readJSONC(file, &ts) == nil && ts.CompilerOptions.Metadata {
		b.warnf(diag.Pos{File: b.rel(file)}, "decorator-metadata", "Compile with tsc first and name the compiled file as handler, if the code injects by type.",
			"emitDecoratorMetadata has no effect: types are removed without being written down")
	}
}

// isSource says whether a file is only what a bundle is made of.
func isSource(p string) bool {
	base := path.Base(p)
	return slices.Contains(bundleExts, path.Ext(p)) || strings.HasPrefix(base, "tsconfig") && path.Ext(p) == ".json"
}

func (b *builder) bundleDir(nf *nodeFunc, out string) string {
	return filepath.Join(b.o.Work, "bundles", hash(nf.entry, out, nf.fn.Runtime)[:16])
}

// bundleOnce bundles unless everything is as it was.
func (b *builder) bundleOnce(nf *nodeFunc, out string, esm bool) *bundled {
	dir := b.bundleDir(nf, out)
	key := "bundle:" + hash(append(b.fence.Allowed(), dir)...)
	var bd bundled
	if b.notes.get(key, &bd) && b.unchanged(bd.Inputs) && !b.found(bd.Missing) {
		if _, err := os.Stat(filepath.Join(dir, filepath.FromSlash(out))); err == nil {
			return &bd
		}
	}
	defer b.step("bundle", nf.fn.Key, b.rel(nf.entry))()
	made := &bundled{Inputs: map[string]string{}, Dev: map[string]string{}}
	r := b.bundle(nf, out, esm, made, nil)
	if len(made.Dev) > 0 && len(r.Errors) > 0 {
		set := b.packages(made.Dev)
		if set.err != nil {
			b.warnf(diag.Pos{}, "dev-dependency", "", "%s: the development dependencies it imports cannot be installed: %v", nf.fn.Key, set.err)
		} else {
			again := &bundled{Inputs: map[string]string{}, Dev: map[string]string{}}
			r = b.bundle(nf, out, esm, again, []string{filepath.Join(set.dir, "node_modules")})
			made = again
		}
	}
	if len(r.Errors) > 0 {
		b.report(r.Errors)
		b.notes.drop(key)
		return nil
	}
	b.metaInputs(r.Metafile, made.Inputs)
	loaded := maps.Clone(made.Inputs)
	b.configInputs(nf, made.Inputs)
	if err := os.RemoveAll(dir); err != nil {
		b.errorf(diag.Pos{}, "bundle-failed", "", "%v", err)
		return nil
	}
	for _, f := range r.OutputFiles {
		if filepath.Ext(f.Path) == ".map" {
			f.Contents = withSources(f.Contents, filepath.Dir(f.Path), loaded)
		}
		if err := writeFile(f.Path, f.Contents); err != nil {
			b.errorf(diag.Pos{}, "bundle-failed", "", "write the bundle: %v", err)
			return nil
		}
	}
	b.notes.put(key, made)
	return made
}

// bundle runs esbuild. dev are further folders of packages.
func (b *builder) bundle(nf *nodeFunc, out string, esm bool, bd *bundled, dev []string) api.BuildResult {
	o := api.BuildOptions{
		EntryPoints: []string{nf.entry}, AbsWorkingDir: b.root, Outfile: filepath.Join(b.bundleDir(nf, out), filepath.FromSlash(out)),
		Bundle: true, Write: false, Metafile: true, Platform: api.PlatformNode, Format: api.FormatCommonJS, LogLevel: api.LogLevelSilent,
		Engines: []api.Engine{{Name: api.EngineNode, Version: strconv.Itoa(b.nodeTarget(nf.fn.Runtime))}}, Sourcemap: api.SourceMapLinked, SourcesContent: api.SourcesContentExclude,
		KeepNames: true, NodePaths: dev, Plugins: []api.Plugin{b.packagePlugin(nf, bd, dev), newSourceFence(b.fence).plugin()},
		Loader: map[string]api.Loader{".node": api.LoaderCopy, ".graphql": api.LoaderText, ".gql": api.LoaderText, ".html": api.LoaderText,
			".sql": api.LoaderText, ".pem": api.LoaderText, ".md": api.LoaderText},
	}
	if esm {
		o.Format = api.FormatESModule
		o.Banner = map[string]string{"js": esmPrelude}
	}
	return api.Build(o)
}

// nodeTarget is the Node version that a bundle is written for: the asked one, or the one that will run it when that is older.
func (b *builder) nodeTarget(id string) int {
	want, _ := runtimes.Wanted(id)
	found, err := b.o.Finder.Resolve(b.ctx, id)
	if err == nil {
		major, _, _ := strings.Cut(found.Version, ".")
		if n, err := strconv.Atoi(major); err == nil && (want < 0 || n < want) {
			want = n
		}
	}
	return max(want, 12)
}

// packagePlugin decides for each imported package whether it goes into the bundle.
func (b *builder) packagePlugin(nf *nodeFunc, bd *bundled, dev []string) api.Plugin {
	devDeps := map[string]string{}
	for _, d := range b.packageDirs(nf) {
		if p, err := readPackage(d); err == nil {
			maps.Copy(devDeps, p.Dev)
		}
	}
	type seen struct{ native, there bool }
	known := map[external]seen{}
	return api.Plugin{Name: "packages", Setup: func(pb api.PluginBuild) {
		pb.OnResolve(api.OnResolveOptions{Filter: `^[^./#]`}, func(a api.OnResolveArgs) (api.OnResolveResult, error) {
			name := packageName(a.Path)
			if a.Kind == api.ResolveEntryPoint || name == "" || filepath.IsAbs(a.Path) {
				return api.OnResolveResult{}, nil
			}
			x := external{Name: name, Dir: a.ResolveDir}
			s, ok := known[x]
			if !ok {
				at, there := resolvePackage(a.ResolveDir, name)
				s = seen{there: there, native: there && isNative(at)}
				for _, d := range dev {
					s.there = s.there || isFolder(filepath.Join(d, filepath.FromSlash(name)))
				}
				known[x] = s
			}
			out := api.OnResolveResult{Path: a.Path, External: true}
			switch {
			case s.native:
				bd.Native = addExternal(bd.Native, x)
				return out, nil
			case s.there:
				return api.OnResolveResult{}, nil
			case isSDK(name):
				bd.Missing = addExternal(bd.Missing, x)
				return out, nil
			case strings.Contains(a.ResolveDir, string(filepath.Separator)+"node_modules"):
				bd.Missing = addExternal(bd.Missing, x)
				return out, nil // a package's optional wish: Node fails, or not, when it is reached
			}
			if spec, ok := devDeps[name]; ok {
				bd.Dev[name] = spec
			} else if len(nf.fn.Layers) > 0 {
				bd.Missing = addExternal(bd.Missing, x)
				if !b.aliased(pb, a) {
					return out, nil // a layer may hold it
				}
			}
			return api.OnResolveResult{}, nil
		})
	}}
}

// aliased says whether tsconfig's paths lead an import to a file.
func (b *builder) aliased(pb api.PluginBuild, a api.OnResolveArgs) bool {
	for dir := a.ResolveDir; ; dir = filepath.Dir(dir) {
		var ts struct {
			CompilerOptions struct {
				Paths   map[string][]string `json:"paths"`
				BaseURL string              `json:"baseUrl"`
			} `json:"compilerOptions"`
		}
		if readJSONC(filepath.Join(dir, "tsconfig.json"), &ts) == nil {
			for p := range ts.CompilerOptions.Paths {
				head, _, star := strings.Cut(p, "*")
				if a.Path == p || star && strings.HasPrefix(a.Path, head) {
					return true
				}
			}
			return ts.CompilerOptions.BaseURL != ""
		}
		if dir == filepath.Dir(dir) || dir == b.root {
			return false
		}
	}
}

func addExternal(list []external, x external) []external {
	if slices.Contains(list, x) {
		return list
	}
	return append(list, x)
}

// isNative says whether a package loads machine code or files of its own folder by computed names, or is more in a bundle than in its files.
func isNative(dir string) bool {
	p, err := readPackage(dir)
	if err != nil {
		return false
	}
	if p.Name == "aws-sdk" { // version 2 loads the descriptions of services one by one; a bundle has all, in 24 MB
		return true
	}
	if p.Gyp || len(p.Binary) > 0 {
		return true
	}
	for _, name := range []string{"bindings", "node-gyp-build", "node-gyp-build-optional-packages", "prebuild-install", "@mapbox/node-pre-gyp", "node-addon-api", "@prisma/engines"} {
		if _, ok := p.Deps[name]; ok {
			return true
		}
	}
	for name := range p.Optional { // @img/sharp-linux-x64, @swc/core-darwin-arm64 …
		if strings.Contains(name, "linux-x64") || strings.Contains(name, "darwin-arm64") {
			return true
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "binding.gyp")); err == nil {
		return true
	}
	return p.Name == "@prisma/client"
}

// configInputs adds the files that decide how a bundle is made.
func (b *builder) configInputs(nf *nodeFunc, into map[string]string) {
	for d := filepath.Dir(nf.entry); within(d, b.root); d = filepath.Dir(d) {
		for _, name := range []string{"package.json", "tsconfig.json"} {
			if sum, err := b.files.Sum(filepath.Join(d, name)); err == nil {
				into[filepath.Join(d, name)] = sum
			}
		}
	}
}

// found says whether a package that was missing is installed now.
func (b *builder) found(list []external) bool {
	for _, x := range list {
		if _, ok := resolvePackage(x.Dir, x.Name); ok {
			return true
		}
	}
	return false
}
