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
	"github.com/ebb-run/ebb/internal/fence"
)

// maxScript bounds what Script gives, in bytes.
const maxScript = 4 << 20

// ownNames tells a module that declares itself what CommonJS gives each.
var ownNames = regexp.MustCompile(`\b(?:const|let|var|function)\s+(__dirname|__filename)\b`)

// Script makes one CommonJS module of a TypeScript file and what it imports of its project; packages stay packages. It is for files that configure
// a project. Each part of it finds its own __dirname, __filename and import.meta.url, as if it ran from its place. What is outside of the fence is
// refused: it is read here, before anything runs in a sandbox that would not show it.
func Script(file string, f *fence.Fence) (string, error) {
	r := api.Build(api.BuildOptions{
		EntryPoints: []string{file}, Bundle: true, Platform: api.PlatformNode, Format: api.FormatCommonJS, Target: api.ES2022, Packages: api.PackagesExternal,
		AbsWorkingDir: filepath.Dir(file), Charset: api.CharsetUTF8, LogLevel: api.LogLevelSilent, Outdir: filepath.Dir(file), Write: false,
		Define:  map[string]string{"import.meta.url": "__ebbURL"},
		Plugins: []api.Plugin{{Name: "places", Setup: func(b api.PluginBuild) { givePlaces(b, newSourceFence(f)) }}},
	})
	if len(r.Errors) > 0 {
		m, at := r.Errors[0], ""
		if l := m.Location; l != nil {
			at = fmt.Sprintf("%s:%d:%d: ", l.File, l.Line, l.Column+1)
		}
		if e, ok := refused(m); ok {
			return "", errs.New(errs.Forbidden, "%s%s", at, e.Msg).WithHint("%s", e.Hint)
		}
		return "", errs.New(errs.Invalid, "%s%s", at, m.Text)
	}
	if len(r.OutputFiles) != 1 || len(r.OutputFiles[0].Contents) > maxScript {
		return "", errs.New(errs.TooLarge, "%s and what it imports are more than %d bytes", filepath.Base(file), maxScript)
	}
	return string(r.OutputFiles[0].Contents), nil
}

// givePlaces writes the names that depend on a module's place in front of it, on its first line, so that lines keep their numbers.
func givePlaces(b api.PluginBuild, f *sourceFence) {
	b.OnLoad(api.OnLoadOptions{Filter: `.*`, Namespace: "file"}, func(a api.OnLoadArgs) (api.OnLoadResult, error) {
		return refusal(f.check(a.Path)), nil
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
