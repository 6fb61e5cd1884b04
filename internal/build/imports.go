package build

import (
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/artifact"
)

// maxSource is the largest file that is looked through for imports.
const maxSource = 8 << 20

var jsImport = regexp.MustCompile(`(?:\brequire\s*\(\s*|\bfrom\s*|\bimport\s*\(?\s*)["'](aws-sdk|@aws-sdk/[^"'/]+|@smithy/[^"'/]+)(?:/[^"']*)?["']`)

// scanNodeImports gives the SDK packages that ready code imports and does not hold.
func scanNodeImports(t *artifact.Tree) []string {
	need := map[string]bool{}
	eachSource(t, []string{".js", ".mjs", ".cjs"}, func(p string, text []byte) {
		if strings.Contains(p, "node_modules/") {
			return
		}
		for _, m := range jsImport.FindAllSubmatch(text, -1) {
			need[string(m[1])] = true
		}
	})
	for name := range need {
		if t.Has("node_modules/" + name + "/package.json") {
			delete(need, name)
		}
	}
	return slices.Sorted(maps.Keys(need))
}

// eachSource calls f with the files of the Tree that have one of the extensions.
func eachSource(t *artifact.Tree, exts []string, f func(p string, text []byte)) {
	for _, e := range t.Manifest.Entries {
		if e.Link != "" || e.Size > maxSource || !slices.Contains(exts, path.Ext(e.Path)) {
			continue
		}
		r, err := t.Open(e)
		if err != nil {
			continue // what cannot be read fails where it is needed
		}
		text, err := io.ReadAll(io.LimitReader(r, maxSource))
		r.Close()
		if err == nil {
			f(e.Path, text)
		}
	}
}
