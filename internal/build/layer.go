package build

import (
	"path"
	"strings"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/artifact"
	"github.com/ebb-run/ebb/internal/diag"
)

// layers gives the Functions that were built the layers they name.
func (b *builder) layers() {
	for i := range b.app.Functions {
		f := &b.app.Functions[i]
		built := b.built[f.Key]
		if built == nil {
			continue
		}
		for _, v := range f.Layers {
			if t := b.layer(f, v); t != nil {
				built.Layers = append(built.Layers, t)
			}
		}
	}
}

func (b *builder) layer(f *app.Function, v app.Value) *artifact.Tree {
	refs := v.Refs()
	if len(refs) == 0 {
		b.warnf(diag.Pos{}, "foreign-layer", "Put a copy of it into the project as a layer of its own.", "function %q: the layer %s is in the cloud and not here; it is left out", f.Key, v)
		return nil
	}
	for _, r := range b.app.Resources {
		if r.ID != refs[0] {
			continue
		}
		for _, key := range []string{"Content", "ContentUri", "path"} {
			content := ""
			switch c := r.Properties[key].(type) {
			case string:
				content = c
			case app.Value:
				content, _ = c.Literal()
			}
			if content == "" {
				continue
			}
			if strings.HasPrefix(content, "s3://") {
				b.warnf(diag.Pos{}, "foreign-layer", "", "the layer %s is in S3 and not here; it is left out", r.ID)
				return nil
			}
			if !path.IsAbs(content) {
				content = path.Clean(content)
			}
			t, _ := b.readyTree(content, "the content of the layer "+r.ID)
			return t
		}
		b.warnf(diag.Pos{}, "foreign-layer", "Name a folder of the project as its content.", "the layer %s has no content in the project; it is left out", r.ID)
		return nil
	}
	b.warnf(diag.Pos{}, "foreign-layer", "", "function %q: the layer %s is not declared here; it is left out", f.Key, v)
	return nil
}
