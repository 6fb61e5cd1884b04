package build

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/artifact"
	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/errs"
)

// layers gives the Functions that were built the layers they name.
func (b *builder) layers() {
	for i := range b.app.Functions {
		f := &b.app.Functions[i]
		built := b.built[f.Key]
		if built == nil {
			continue
		}
		if len(f.Layers) > app.MaxLayers {
			b.errorf(f.Place, "too-many-layers", "Put several into one folder.", "function %q has %d layers; %d are allowed", f.Key, len(f.Layers), app.MaxLayers)
			continue
		}
		built.Layers = b.layersOf(f)
		b.checkSize(f, built)
	}
}

// checkSize holds code and layers against Lambda's quota, which counts files that a later layer covers too.
func (b *builder) checkSize(f *app.Function, built *Built) {
	if len(built.Layers) == 0 {
		return // the code alone is measured where it is stored
	}
	size := built.Code.Manifest.Size()
	parts := []string{fmt.Sprintf("code %d MB", size>>20)}
	for i, t := range built.Layers {
		size += t.Manifest.Size()
		parts = append(parts, fmt.Sprintf("layer %d: %d MB", i+1, t.Manifest.Size()>>20))
	}
	if most := artifact.DefaultLimits().Bytes; size > most {
		b.errorf(f.Place, "too-large", "Leave out of them what the function does not need.", "function %q: code and layers are %d MB unpacked; %d MB are allowed (%s)",
			f.Key, size>>20, most>>20, strings.Join(parts, ", "))
	}
}

// layersOf reads the layers of a Function that are here, in their order. It may be asked for again: each fault is said once.
func (b *builder) layersOf(f *app.Function) []*artifact.Tree {
	var trees []*artifact.Tree
	for _, v := range f.Layers {
		if t := b.layer(f, v); t != nil {
			trees = append(trees, t)
		}
	}
	return trees
}

// inLayers says whether a layer that is here holds a file that one of the patterns of path.Match matches.
func (b *builder) inLayers(f *app.Function, patterns ...string) bool {
	for _, t := range b.layersOf(f) {
		for _, e := range t.Manifest.Entries {
			for _, p := range patterns {
				if ok, _ := path.Match(p, e.Path); ok {
					return true
				}
			}
		}
	}
	return false
}

func (b *builder) layer(f *app.Function, v app.Value) *artifact.Tree {
	if text, ok := v.Literal(); ok {
		name := layerName(text)
		if t, found := b.standIn(name, text, unversioned(text), name); found {
			return t
		}
		b.foreign(f.Place, name, "function %q: the layer %s is in the cloud and not here; it is left out", f.Key, text)
		return nil
	}
	for _, id := range v.Refs() {
		for i := range b.app.Resources {
			if r := &b.app.Resources[i]; r.ID == id && r.Kind == app.Layer {
				return b.declared(r)
			}
		}
	}
	if t, found := b.standIn(v.String(), v.String()); found {
		return t
	}
	b.foreign(f.Place, v.String(), "function %q: the layer %s is not declared here; it is left out", f.Key, v)
	return nil
}

// declared reads a layer that the project declares.
func (b *builder) declared(r *app.Resource) *artifact.Tree {
	name, _ := r.Name.Literal()
	if t, found := b.standIn(r.ID, r.ID, name); found {
		return t
	}
	content := ""
	switch c := r.Properties["Content"].(type) {
	case string:
		content = c
	case app.Value:
		content, _ = c.Literal()
	}
	if content == "" || strings.Contains(content, "://") {
		b.foreign(diag.Pos{}, r.ID, "the content of the layer %s is in S3 and not here; it is left out", r.ID)
		return nil
	}
	var patterns []string
	list, _ := r.Properties["Patterns"].([]any)
	for _, p := range list {
		if s, ok := p.(string); ok {
			patterns = append(patterns, s)
		}
	}
	return b.layerTree(content, "the content of the layer "+r.ID, patterns)
}

// standIn reads the folder or zip that the user gives for a layer. Of several names for it the first given counts.
func (b *builder) standIn(what string, names ...string) (t *artifact.Tree, found bool) {
	for _, files := range []map[string]string{b.o.Layers, b.app.LayerFiles} {
		for _, n := range names {
			if file := files[n]; file != "" && n != "" {
				return b.layerTree(file, "what stands in for the layer "+what, nil), true
			}
		}
	}
	return nil, false
}

// layerTree reads a layer's folder or zip. A folder is taken as it stands, but for what the user's patterns leave out.
func (b *builder) layerTree(rel, what string, patterns []string) *artifact.Tree {
	full := filepath.FromSlash(rel)
	if !path.IsAbs(rel) {
		rel = path.Clean(rel)
		full = filepath.Join(b.root, filepath.FromSlash(rel))
	}
	if !isFolder(full) {
		t, _ := b.readyTree(rel, what)
		return t
	}
	b.watch[full] = true
	key := fmt.Sprintf("layer\x00%s\x00%q", full, patterns)
	if t := b.trees[key]; t != nil {
		return t
	}
	if within(full, b.root) && !b.furnish(full) {
		return nil
	}
	rules := &packageRules{}
	for _, p := range []string{"!**/.git/**", "!**/.DS_Store"} {
		rules.defaults = append(rules.defaults, newRule(p))
	}
	for _, p := range patterns {
		rules.user = append(rules.user, newRule(p))
	}
	t, err := b.scan(full, func(p string, d fs.DirEntry) bool { return rules.keep(p, d) })
	if err != nil {
		b.errorf(diag.Pos{File: rel}, "bad-artifact", errs.HintOf(err), "%s cannot be read: %v", what, err)
		return nil
	}
	if len(t.Manifest.Entries) == 0 {
		b.warnf(diag.Pos{File: rel}, "empty-layer", "Build it first, or look at the package patterns.", "%s holds no files", what)
	}
	b.trees[key] = t
	return t
}

// furnish installs what a layer's package.json names where the user has not, and says what Python needs. It is false after an error.
func (b *builder) furnish(dir string) bool {
	nodejs := filepath.Join(dir, "nodejs")
	var ours string
	if !isFolder(filepath.Join(nodejs, "node_modules")) || b.notes.get("install:"+nodejs, &ours) {
		if err := b.install(nodejs); err != nil {
			b.errorf(diag.Pos{File: b.rel(filepath.Join(nodejs, "package.json"))}, "install-failed", errs.HintOf(err), "%v", err)
			return false
		}
	}
	python := filepath.Join(dir, "python")
	for _, req := range []string{filepath.Join(dir, "requirements.txt"), filepath.Join(python, "requirements.txt")} {
		list, _ := os.ReadDir(python)
		if isRegular(req) && !slices.ContainsFunc(list, func(d fs.DirEntry) bool { return d.IsDir() || path.Ext(d.Name()) == ".py" }) {
			b.warnf(diag.Pos{File: b.rel(req)}, "empty-layer", fmt.Sprintf("Run `pip install --target %s -r %s` in the project's folder.", b.rel(python), b.rel(req)),
				"the layer's requirements are not installed")
		}
	}
	return true
}

// foreign warns of a layer that is not here and says how to have it.
func (b *builder) foreign(pos diag.Pos, name, format string, args ...any) {
	b.warnf(pos, "foreign-layer", foreignHint(name), format, args...)
}

// known says what the layers are that most projects name, and how to have the same here.
var known = []struct {
	name *regexp.Regexp
	mend string
}{
	{regexp.MustCompile(`^AWSLambdaPowertoolsPython`), "`pip install --target layers/powertools/python 'aws-lambda-powertools[all]'` makes it, then give it with `--layer %s=layers/powertools`."},
	{regexp.MustCompile(`^AWSLambdaPowertoolsTypeScript`), "`npm install --prefix layers/powertools/nodejs @aws-lambda-powertools/logger @aws-lambda-powertools/metrics @aws-lambda-powertools/tracer` " +
		"makes it, then give it with `--layer %s=layers/powertools`."},
	{regexp.MustCompile(`^(AWSSDKPandas|AWSDataWrangler)`), "`pip install --target layers/pandas/python awswrangler` makes it, then give it with `--layer %s=layers/pandas`."},
	{regexp.MustCompile(`(?i)sharp`), "`npm install --prefix layers/sharp/nodejs sharp` makes it, then give it with `--layer %s=layers/sharp`."},
	{regexp.MustCompile(`^(AWS-Parameters-and-Secrets|AWS-AppConfig|LambdaInsights)`), "It is an extension of AWS's own: what it serves at localhost is not there, and the function runs without it."},
	{regexp.MustCompile(`(?i)^(Datadog|NewRelic|Dynatrace|aws-otel|opentelemetry|Sentry)`), "It watches functions on AWS; unset its variables (AWS_LAMBDA_EXEC_WRAPPER, a handler of its own) for this stage."},
}

func foreignHint(name string) string {
	for _, k := range known {
		if !k.name.MatchString(name) {
			continue
		}
		if strings.Contains(k.mend, "%s") {
			return fmt.Sprintf(k.mend, name)
		}
		return k.mend
	}
	option := name + "=layers/" + name
	if strings.ContainsAny(name, "${}/ ") {
		option = "'" + name + "=layers/mine'" // a reference, in which a shell would read signs of its own
	}
	return fmt.Sprintf("Give a folder or zip for it: `--layer %s`. `aws lambda get-layer-version-by-arn --arn …` says where to download it.", option)
}

var layerARN = regexp.MustCompile(`^(arn:[a-z-]+:lambda:[^:]*:[^:]*:layer:([^:]+))(:[0-9]+)?$`)

// layerName is the name in a layer's ARN, or the text itself.
func layerName(arn string) string {
	if m := layerARN.FindStringSubmatch(arn); m != nil {
		return m[2]
	}
	return arn
}

// unversioned is a layer's ARN without its version.
func unversioned(arn string) string {
	if m := layerARN.FindStringSubmatch(arn); m != nil {
		return m[1]
	}
	return arn
}
