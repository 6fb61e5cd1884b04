package build

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/evanw/esbuild/pkg/api"

	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/fence"
)

// graph is what a handler file reaches by imports that can be read off the sources.
type graph struct {
	Inputs    map[string]string `json:"inputs"` // absolute file → digest
	Externals []external        `json:"externals"`
	Open      bool              `json:"open"` // something did not resolve: look again next time
	// Compiled says that the sources are ES modules by their syntax and scripts by their name: the project counts on a plugin
	// that bundles them, as Node before 22 refuses such files, and later ones those that leave out extensions.
	Compiled bool `json:"compiled"`
}

// analyse reads the import graphs of plain JavaScript handlers, packages left out. A handler with a syntax error in what it
// reaches gets none, and the error is reported.
func (b *builder) analyse(group []*nodeFunc) map[string]*graph {
	graphs := map[string]*graph{}
	for _, nf := range group {
		if _, done := graphs[nf.entry]; done {
			continue
		}
		key := "graph:" + nf.entry
		var g graph
		if b.notes.get(key, &g) && !g.Open && b.unchanged(g.Inputs) {
			graphs[nf.entry] = &g
			continue
		}
		graphs[nf.entry] = b.analyseEntry(nf.entry, isModule(nf.entry))
		if g := graphs[nf.entry]; g != nil {
			b.notes.put(key, g)
		} else {
			b.notes.drop(key)
		}
	}
	return graphs
}

func (b *builder) analyseEntry(entry string, esm bool) *graph {
	g := &graph{Inputs: map[string]string{}}
	o := api.BuildOptions{
		EntryPoints: []string{entry}, AbsWorkingDir: b.root, Outdir: b.o.Work, Bundle: true, Write: false, Metafile: true,
		Platform: api.PlatformNode, Packages: api.PackagesExternal, Format: api.FormatCommonJS, Target: api.ESNext, LogLevel: api.LogLevelSilent,
		TsconfigRaw: "{}", TreeShaking: api.TreeShakingFalse, Plugins: []api.Plugin{externals(g, b.fence), newSourceFence(b.fence).plugin()},
	}
	if esm {
		o.Format = api.FormatESModule
	}
	r := api.Build(o)
	if len(r.Errors) > 0 {
		// What only the form of the output forbids, sloppy code in a module or the other way round, Node may well run.
		faults := slices.DeleteFunc(r.Errors, func(m api.Message) bool { return strings.Contains(m.Text, "output format") })
		if len(faults) > 0 {
			b.report(faults)
			return nil
		}
		g.Open = true
		return g
	}
	g.Compiled = b.metaInputs(r.Metafile, g.Inputs)
	return g
}

// externals records imports of packages, and leaves alone what does not resolve or is not JavaScript: a plain handler is not made
// from what is found here, so only Node can say that something is missing.
func externals(g *graph, f *fence.Fence) api.Plugin {
	type inner struct{}
	return api.Plugin{Name: "externals", Setup: func(pb api.PluginBuild) {
		pb.OnResolve(api.OnResolveOptions{Filter: ".*"}, func(a api.OnResolveArgs) (api.OnResolveResult, error) {
			if _, own := a.PluginData.(inner); own || a.Kind == api.ResolveEntryPoint {
				return api.OnResolveResult{}, nil
			}
			out := api.OnResolveResult{Path: a.Path, External: true}
			if name := packageName(a.Path); name != "" {
				x := external{Name: name, Dir: a.ResolveDir}
				if !slices.Contains(g.Externals, x) {
					g.Externals = append(g.Externals, x)
				}
				return out, nil
			}
			if !strings.HasPrefix(a.Path, ".") && !strings.HasPrefix(a.Path, "/") {
				return out, nil
			}
			r := pb.Resolve(a.Path, api.ResolveOptions{Importer: a.Importer, ResolveDir: a.ResolveDir, Kind: a.Kind, PluginData: inner{}})
			switch {
			case len(r.Errors) > 0:
				g.Open = true
				return out, nil
			case !slices.Contains([]string{".js", ".mjs", ".cjs", ".json", ""}, filepath.Ext(r.Path)), f.Check(r.Path) != nil:
				return out, nil
			}
			return api.OnResolveResult{Path: r.Path, Namespace: r.Namespace}, nil
		})
	}}
}

// metaInputs adds the files a build read, with their digests. It says whether one is a module that Node would take for a script.
func (b *builder) metaInputs(metafile string, into map[string]string) (disguised bool) {
	var meta struct {
		Inputs map[string]struct {
			Format string `json:"format"`
		} `json:"inputs"`
	}
	if json.Unmarshal([]byte(metafile), &meta) != nil {
		return false
	}
	self := false // something asks for its own place, which only a module can
	for name, in := range meta.Inputs {
		if strings.Contains(name, ":") { // another namespace
			continue
		}
		full := name
		if !filepath.IsAbs(full) {
			full = filepath.Join(b.root, filepath.FromSlash(name))
		}
		sum, err := b.files.Sum(full)
		if err != nil {
			continue
		}
		into[full] = sum
		if !within(full, b.root) {
			b.watch[full] = true
		}
		if in.Format == "esm" && filepath.Ext(full) == ".js" && !underModules(filepath.ToSlash(full)) && !isModule(full) {
			disguised = true
			text, err := os.ReadFile(full)
			self = self || err != nil || strings.Contains(string(text), "import.meta")
		}
	}
	return disguised && !self
}

// unchanged says whether files still have the digests.
func (b *builder) unchanged(inputs map[string]string) bool {
	for name, sum := range inputs {
		if now, err := b.files.Sum(name); err != nil || now != sum {
			return false
		}
		if !within(name, b.root) {
			b.watch[name] = true
		}
	}
	return len(inputs) > 0
}

// report turns esbuild's messages into diagnostics.
func (b *builder) report(ms []api.Message) {
	for _, m := range ms {
		if e, ok := refused(m); ok {
			b.errorf(b.posOf(m.Location), "outside", e.Hint, "%s", e.Msg)
			continue
		}
		pos := b.posOf(m.Location)
		code, hint := "syntax", ""
		if name, ok := strings.CutPrefix(m.Text, "Could not resolve "); ok {
			code = "unresolved-import"
			if p := packageName(strings.Trim(name, `"`)); p != "" {
				hint = "Install it with `npm install " + p + "`."
			}
		}
		for _, n := range m.Notes {
			if hint == "" && n.Location == nil && code != "unresolved-import" {
				hint = n.Text
			}
		}
		b.errorf(pos, code, hint, "%s", lowerFirst(m.Text))
	}
}

func (b *builder) posOf(l *api.Location) diag.Pos {
	if l == nil {
		return diag.Pos{}
	}
	pos := diag.Pos{File: filepath.ToSlash(l.File), Line: l.Line, Col: l.Column + 1}
	if filepath.IsAbs(l.File) {
		pos.File = b.rel(l.File)
	}
	return pos
}

func lowerFirst(s string) string {
	if s == "" || len(s) > 1 && s[1] >= 'A' && s[1] <= 'Z' {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}
