package build

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/evanw/esbuild/pkg/api"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/runtimes"
)

// maxScript bounds what Script gives, in bytes.
const maxScript = 4 << 20

// ownNames tells a module that declares itself what CommonJS gives each.
var ownNames = regexp.MustCompile(`\b(?:const|let|var|function)\s+(__dirname|__filename)\b`)

// Script makes one CommonJS module of a TypeScript file and what it imports of its project; packages stay packages. It is for files that configure
// a project. Each part of it finds its own __dirname, __filename and import.meta.url, as if it ran from its place.
func Script(file string) (string, error) {
	r := api.Build(api.BuildOptions{
		EntryPoints: []string{file}, Bundle: true, Platform: api.PlatformNode, Format: api.FormatCommonJS, Target: api.ES2022, Packages: api.PackagesExternal,
		AbsWorkingDir: filepath.Dir(file), Charset: api.CharsetUTF8, LogLevel: api.LogLevelSilent, Outdir: filepath.Dir(file), Write: false,
		Define:  map[string]string{"import.meta.url": "__ebbURL"},
		Plugins: []api.Plugin{{Name: "places", Setup: func(b api.PluginBuild) { givePlaces(b, home(filepath.Dir(file))) }}},
	})
	if len(r.Errors) > 0 {
		m, at := r.Errors[0], ""
		if l := m.Location; l != nil {
			at = fmt.Sprintf("%s:%d:%d: ", l.File, l.Line, l.Column+1)
		}
		return "", errs.New(errs.Invalid, "%s%s", at, m.Text)
	}
	if len(r.OutputFiles) != 1 || len(r.OutputFiles[0].Contents) > maxScript {
		return "", errs.New(errs.TooLarge, "%s and what it imports are more than %d bytes", filepath.Base(file), maxScript)
	}
	return string(r.OutputFiles[0].Contents), nil
}

// home is the folder that holds all of a project: that with its repository, or its own where there is none. It has no links in its path.
func home(dir string) string {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	for at := dir; !runtimes.Personal(at) && at != filepath.Dir(at); at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, ".git")); err == nil {
			return at
		}
	}
	return dir
}

// givePlaces writes the names that depend on a module's place in front of it, on its first line, so that lines keep their numbers.
// Files outside of root are refused: they are read here, before anything runs in a sandbox that would not show them.
func givePlaces(b api.PluginBuild, root string) {
	refused := func(p string) error {
		if within(p, root) {
			return nil
		}
		return errs.New(errs.Forbidden, "%s is outside of %s", p, root)
	}
	b.OnLoad(api.OnLoadOptions{Filter: `.*`}, func(a api.OnLoadArgs) (api.OnLoadResult, error) {
		return api.OnLoadResult{}, refused(a.Path)
	})
	b.OnLoad(api.OnLoadOptions{Filter: `\.[cm]?[jt]sx?$`}, func(a api.OnLoadArgs) (api.OnLoadResult, error) {
		if strings.Contains(filepath.ToSlash(a.Path), "/node_modules/") {
			return api.OnLoadResult{}, nil
		}
		text, err := os.ReadFile(a.Path)
		if err != nil {
			return api.OnLoadResult{}, err
		}
		prefix := fmt.Sprintf("const __ebbURL = %q", (&url.URL{Scheme: "file", Path: filepath.ToSlash(a.Path)}).String())
		own := map[string]bool{}
		for _, m := range ownNames.FindAllSubmatch(text, -1) {
			own[string(m[1])] = true
		}
		for name, value := range map[string]string{"__dirname": filepath.Dir(a.Path), "__filename": a.Path} {
			if !own[name] {
				prefix += fmt.Sprintf(", %s = %q", name, value)
			}
		}
		contents := prefix + "; " + string(text)
		loader := map[string]api.Loader{".ts": api.LoaderTS, ".mts": api.LoaderTS, ".cts": api.LoaderTS, ".tsx": api.LoaderTSX, ".jsx": api.LoaderJSX}[filepath.Ext(a.Path)]
		if loader == api.LoaderNone {
			loader = api.LoaderJS
		}
		return api.OnLoadResult{Contents: &contents, Loader: loader, ResolveDir: filepath.Dir(a.Path)}, nil
	})
}
