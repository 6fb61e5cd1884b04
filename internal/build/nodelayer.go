package build

import (
	"path"
	"path/filepath"
	"strings"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/errs"
)

// What watches functions on AWS often is their handler itself, in a layer, and gets the name of the project's handler in a variable.
var handlerVars = []string{"DD_LAMBDA_HANDLER", "NEW_RELIC_LAMBDA_HANDLER"}

// handlerInLayer says whether a Function's handler is a file of its layers.
func (b *builder) handlerInLayer(f *app.Function) bool {
	if len(f.Layers) == 0 {
		return false
	}
	module, _, ok := splitHandler(f.Handler)
	if !ok {
		return false
	}
	if rest, abs := strings.CutPrefix(module, "/opt/"); abs {
		return b.inLayers(f, globEscape(rest)+".*js")
	}
	if firstFile(filepath.Join(b.base(f), filepath.FromSlash(module)), append(plainExts[1:], bundleExts...)) != "" {
		return false
	}
	module = globEscape(path.Clean(module))
	var patterns []string
	for _, dir := range []string{"nodejs/node_modules/", "nodejs/node[0-9]*/node_modules/"} {
		patterns = append(patterns, dir+module+".*js", dir+module+"/package.json", dir+module+"/index.*js")
	}
	return b.inLayers(f, patterns...)
}

func globEscape(s string) string { return globMeta.ReplaceAllString(s, `\$0`) }

// wrappedHandler gives the project's own handler of a Function whose handler is in a layer, if one is named.
func wrappedHandler(f *app.Function) (string, bool) {
	for _, name := range handlerVars {
		if h, ok := f.Env[name].Literal(); ok && h != "" {
			return h, true
		}
	}
	return "", false
}

// wholePackage is for a Function of which nothing says where its code begins: the folder with all its dependencies, as it stands.
func (b *builder) wholePackage(f *app.Function) {
	nf := &nodeFunc{fn: f, base: b.base(f)}
	c := b.newClosure(nf.base)
	if isRegular(filepath.Join(nf.base, "package.json")) {
		if err := b.install(nf.base); err != nil {
			b.errorf(diag.Pos{File: path.Join(b.rel(nf.base), "package.json")}, "install-failed", errs.HintOf(err), "%v", err)
			return
		}
		c.addProject(nf.base)
	}
	tree, err := b.packageTree(nf, c, nil)
	if err != nil {
		b.errorf(diag.Pos{}, "package-failed", errs.HintOf(err), "package %s: %v", f.Key, err)
		return
	}
	b.done(f, tree, f.Handler)
	b.supplyNode(f, scanNodeImports(tree))
}
