package build

import (
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/artifact"
	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/runtimes"
)

// supply looks at ready code for SDKs that the cloud's runtime would have.
func (b *builder) supply(f *app.Function, code *artifact.Tree) {
	switch runtimes.Family(f.Runtime) {
	case runtimes.Node:
		b.supplyNode(f, scanNodeImports(code))
	case runtimes.Python:
		b.supplyPython(f, code)
	}
}

// supplyNode gives f the SDK packages, as the cloud's Node runtimes do.
func (b *builder) supplyNode(f *app.Function, names []string) {
	built := b.built[f.Key]
	if built == nil || len(names) == 0 {
		return
	}
	specs := map[string]string{}
	for _, n := range names {
		specs[n] = "latest"
		switch {
		case n == "aws-sdk":
			specs[n] = "^2"
		case strings.HasPrefix(n, "@aws-sdk/"):
			specs[n] = "^3"
		}
	}
	set := b.packages(specs)
	if set.err != nil {
		if b.ctx.Err() == nil {
			b.warnf(diag.Pos{}, "sdk-not-supplied", fmt.Sprintf("Add it to the project: `npm install %s`.", strings.Join(names, " ")),
				"%s, which the cloud's runtime supplies, cannot be installed: %v", strings.Join(names, " and "), set.err)
		}
		return
	}
	tree := b.trees["set:"+set.dir]
	if tree == nil {
		t, err := b.fixed(set.dir, "node_modules", func(p string, d fs.DirEntry) bool {
			switch {
			case p == ".bin", p == ".package-lock.json", p == "aws-sdk/dist":
				return false
			case d.IsDir():
				return d.Name() != "dist-types"
			}
			return !strings.HasSuffix(p, ".d.ts") && !strings.HasSuffix(p, ".map") && path.Ext(p) != ".md"
		})
		if err != nil {
			b.warnf(diag.Pos{}, "sdk-not-supplied", "", "%v", err)
			return
		}
		tree = lazySDK(t, "").Under("nodejs/node_modules")
		b.trees["set:"+set.dir] = tree
	}
	built.Supplied = tree
}
