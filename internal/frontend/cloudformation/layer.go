package cloudformation

import (
	"maps"
	"path"
	"strings"

	"github.com/ebb-run/ebb/internal/app"
)

// layer gives the Resource of a layer its content: a folder or zip of the project, relative to its root, where the template names one.
func (l *loader) layer(r *resource, res *app.Resource) {
	dir, local := res.Properties["Content"].(string)
	if asset, ok := assetOf(r, "Content"); ok && !local {
		dir, local = asset, true
	}
	if !local || strings.Contains(strings.TrimPrefix(dir, "file://"), "://") {
		return
	}
	if res.Properties == nil {
		res.Properties = map[string]any{}
	}
	if dir = strings.TrimPrefix(dir, "file://"); !path.IsAbs(dir) {
		dir = path.Join(path.Dir(r.pos.File), dir)
	}
	res.Properties["Content"] = dir
	if patterns := l.in.Layers[r.id]; len(patterns) > 0 {
		list := make([]any, len(patterns))
		for i, p := range patterns {
			list[i] = p
		}
		res.Properties["Patterns"] = list
	}
}

// layerFiles reads what stands in for layers from elsewhere: the template's Metadata.ebb.layers, and what the project file says.
func (l *loader) layerFiles() {
	files := map[string]string{}
	n := l.root.At("Metadata", "ebb", "layers")
	if !n.IsNull() && n.Kind != Map {
		l.diags.Errorf(n.Pos, "wrong-type", "Write `ARN: folder`, a line for each layer.", "Metadata.ebb.layers must be a map")
	}
	for _, en := range mapEntries(n) {
		file, ok := en.Value.Text()
		if !ok || file == "" {
			l.diags.Errorf(en.Pos, "wrong-type", "", "Metadata.ebb.layers gives no folder or zip for %s", en.Key)
			continue
		}
		if !path.IsAbs(file) {
			file = path.Join(path.Dir(n.Pos.File), file)
		}
		files[en.Key] = file
	}
	maps.Copy(files, l.in.LayerFiles)
	if len(files) > 0 {
		l.app.LayerFiles = files
	}
}
