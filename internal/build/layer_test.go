package build

import (
	"archive/zip"
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/artifact"
	"github.com/ebb-run/ebb/internal/diag"
)

const powertools = "arn:aws:lambda:eu-west-1:017000801446:layer:AWSLambdaPowertoolsPythonV3-python312-x86_64:7"

// layered is an App of one Function with these layers.
func layered(f app.Function, resources []app.Resource, layers ...app.Value) *app.App {
	f.Layers = layers
	return &app.App{Name: "shop", Stage: "dev", Functions: []app.Function{f}, Resources: resources}
}

func layerOf(id string, properties map[string]any) app.Resource {
	return app.Resource{ID: id, Kind: app.Layer, Name: app.Lit("name-" + id), Properties: properties}
}

func TestLayers_ComeFromFoldersAndZipsInTheirOrder(t *testing.T) {
	t.Parallel()
	var packed bytes.Buffer
	z := zip.NewWriter(&packed)
	w, err := z.Create("bin/zipped")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(w, "x")
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	p := newProject(t, map[string]string{
		"a.js": "exports.h = 1", "l/one/bin/a": "1", "l/one/.git/x": "1", "l/one/node_modules/p/.bin/x": "1", "l/two/keep/a": "1", "l/two/drop/a": "1", "l/two/drop/b": "1", "ready.zip": packed.String(),
	})
	a := layered(node("f", "a.h"), []app.Resource{
		layerOf("Zip", map[string]any{"Content": "ready.zip"}), layerOf("One", map[string]any{"Content": "l/one"}),
		layerOf("Two", map[string]any{"Content": "./l/two", "Patterns": []any{"!drop/**", "drop/b"}}),
	}, app.Attr("Two", "Ref"), app.Attr("Zip", "Ref"), app.Attr("One", "Ref"))
	r, l := p.buildApp(context.Background(), a)
	if len(l) > 0 {
		t.Errorf("diagnostics: %v", l)
	}
	var got []string
	for _, tree := range r.Functions["f"].Layers {
		got = append(got, paths(tree))
	}
	if want := "drop/b keep/a | bin/zipped | bin/a node_modules/p/.bin/x"; strings.Join(got, " | ") != want {
		t.Errorf("got %q, want %q", strings.Join(got, " | "), want)
	}
}

func TestLayers_ThatAreNotHereAreLeftOutOrStoodInFor(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		layer    app.Value
		flags    map[string]string
		files    map[string]string // of the App
		want     string            // what the layer holds
		says     string
		mendsHow string
	}{
		{"powertools", app.Lit(powertools), nil, nil, "", "AWSLambdaPowertoolsPythonV3-python312-x86_64:7 is in the cloud", "aws-lambda-powertools"},
		{"another", app.Lit("arn:aws:lambda:eu-west-1:1:layer:thing:2"), nil, nil, "", "layer:thing:2 is in the cloud", "--layer thing=layers/thing"},
		{"an extension", app.Lit("arn:aws:lambda:eu-west-1:1:layer:AWS-Parameters-and-Secrets-Lambda-Extension:2"), nil, nil, "", "is in the cloud", "runs without it"},
		{"in S3", app.Attr("S3", "Ref"), nil, nil, "", "content of the layer S3 is in S3", "--layer S3=layers/S3"},
		{"imported", app.Import("shared"), nil, nil, "", "${import:shared} is not declared here", "--layer '${import:shared}=layers/mine'"},
		{"by name", app.Lit(powertools), nil, map[string]string{"AWSLambdaPowertoolsPythonV3-python312-x86_64": "l/a"}, "a", "", ""},
		{"by ARN without version", app.Lit(powertools), nil, map[string]string{strings.TrimSuffix(powertools, ":7"): "l/a"}, "a", "", ""},
		{"by ARN before name", app.Lit(powertools), nil, map[string]string{powertools: "l/a", "AWSLambdaPowertoolsPythonV3-python312-x86_64": "l/b"}, "a", "", ""},
		{"of another version", app.Lit(powertools), nil, map[string]string{strings.TrimSuffix(powertools, ":7") + ":8": "l/a"}, "", "is in the cloud", ""},
		{"a flag before the project's", app.Lit(powertools), map[string]string{"AWSLambdaPowertoolsPythonV3-python312-x86_64": "l/b"}, map[string]string{powertools: "l/a"}, "b", "", ""},
		{"declared, by ID", app.Attr("S3", "Ref"), nil, map[string]string{"S3": "l/a"}, "a", "", ""},
		{"declared, by name", app.Attr("S3", "Ref"), map[string]string{"name-S3": "l/a"}, nil, "a", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newProject(t, map[string]string{"a.js": "exports.h = 1", "l/a/a": "1", "l/b/b": "1"})
			a := layered(node("f", "a.h"), []app.Resource{layerOf("S3", map[string]any{"Content": map[string]any{"S3Bucket": "b"}})}, c.layer)
			a.LayerFiles, p.layers = c.files, c.flags
			r, l := p.buildApp(context.Background(), a)
			got := ""
			if built := r.Functions["f"]; built == nil {
				t.Fatalf("not built: %v", l)
			} else if len(built.Layers) > 0 {
				got = paths(built.Layers[0])
			}
			if got != c.want {
				t.Errorf("it holds %q, want %q", got, c.want)
			}
			if c.says != "" {
				wantDiag(t, l, diag.Warning, "foreign-layer", "", c.says)
				wantDiag(t, l, diag.Warning, "foreign-layer", "", c.mendsHow)
			} else if len(l) > 0 {
				t.Errorf("diagnostics: %v", l)
			}
		})
	}
}

func TestLayers_LimitsAreLambdas(t *testing.T) {
	t.Parallel()
	p := newProject(t, map[string]string{"a.js": "exports.h = 1", "l/a": "1"})
	tools := []app.Resource{layerOf("L", map[string]any{"Content": "l"}), layerOf("Gone", map[string]any{"Content": "m"})}
	ref := app.Attr("L", "Ref")
	if _, l := p.buildApp(context.Background(), layered(node("f", "a.h"), tools, ref, ref, ref, ref, ref)); len(l) > 0 {
		t.Errorf("five: %v", l)
	}
	_, l := p.buildApp(context.Background(), layered(node("f", "a.h"), tools, ref, ref, ref, ref, ref, ref))
	wantDiag(t, l, diag.Error, "too-many-layers", "", "6 layers; 5 are allowed")
	_, l = p.buildApp(context.Background(), layered(node("f", "a.h"), tools, app.Attr("Gone", "Ref")))
	wantDiag(t, l, diag.Error, "missing-artifact", "", "the content of the layer Gone, m, is not there")

	b := &builder{said: map[string]bool{}}
	large := func(mb int64) *artifact.Tree {
		return &artifact.Tree{Manifest: artifact.Manifest{Entries: []artifact.Entry{{Path: "x", Size: mb << 20}}}}
	}
	f := app.Function{Key: "f"}
	b.checkSize(&f, &Built{Code: large(50), Layers: []*artifact.Tree{large(100), large(100)}})
	if len(b.diags) > 0 {
		t.Errorf("250 MB: %v", b.diags)
	}
	b.checkSize(&f, &Built{Code: large(51), Layers: []*artifact.Tree{large(100), large(100)}})
	wantDiag(t, b.diags, diag.Error, "too-large", "", "code and layers are 251 MB unpacked; 250 MB are allowed (code 51 MB, layer 1: 100 MB, layer 2: 100 MB)")
}

func TestLayers_MayHoldTheHandlerOrTheProgram(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		f       app.Function
		layer   map[string]string
		code    string // files of the code; empty when the build fails
		handler string
		says    string
	}{
		{"bootstrap", app.Function{Runtime: "provided.al2023", Handler: "x"}, map[string]string{"bootstrap": "#!/bin/sh"}, "a.js src/b.js", "x", ""},
		{"no bootstrap", app.Function{Runtime: "provided.al2023", Handler: "x"}, map[string]string{"bin/bootstrap": "#!/bin/sh"}, "", "", "the program bootstrap is not there"},
		{"go1.x has none in a layer", app.Function{Runtime: "go1.x", Handler: "bootstrap"}, map[string]string{"bootstrap": "#!/bin/sh"}, "", "", "the program bootstrap is not there"},
		{"python module", app.Function{Runtime: "python3.12", Handler: "watch.core.h"}, map[string]string{"python/watch/core.py": ""}, "a.js src/b.js", "watch.core.h", ""},
		{"python package for a version", app.Function{Runtime: "python3.12", Handler: "watch.h"}, map[string]string{"python/lib/python3.12/site-packages/watch/__init__.py": ""}, "a.js src/b.js", "watch.h", ""},
		{"python, elsewhere", app.Function{Runtime: "python3.12", Handler: "watch.h"}, map[string]string{"watch.py": ""}, "", "", "needs a file watch.py"},
		{"node, by path", app.Function{Runtime: "nodejs22.x", Handler: "/opt/nodejs/node_modules/dd/h.handler", Env: map[string]app.Value{"DD_LAMBDA_HANDLER": app.Lit("src/b.h")}},
			map[string]string{"nodejs/node_modules/dd/h.mjs": ""}, "a.js src/b.js", "/opt/nodejs/node_modules/dd/h.handler", ""},
		{"node, by name", app.Function{Runtime: "nodejs22.x", Handler: "nr.handler", Env: map[string]app.Value{"NEW_RELIC_LAMBDA_HANDLER": app.Lit("src/b.h")}},
			map[string]string{"nodejs/node_modules/nr/package.json": "{}"}, "a.js src/b.js", "nr.handler", ""},
		{"node, without a word of its own", app.Function{Runtime: "nodejs22.x", Handler: "nr.handler"}, map[string]string{"nodejs/node_modules/nr/package.json": "{}"}, "a.js src/b.js", "nr.handler", ""},
		{"node, its own handler is not there", app.Function{Runtime: "nodejs22.x", Handler: "nr.handler", Env: map[string]app.Value{"NEW_RELIC_LAMBDA_HANDLER": app.Lit("src/c.h")}},
			map[string]string{"nodejs/node_modules/nr/package.json": "{}"}, "", "", "needs a file src/c.js"},
		{"node, in no layer", app.Function{Runtime: "nodejs22.x", Handler: "/opt/nodejs/node_modules/dd/h.handler"}, map[string]string{"x": ""}, "", "", "no layer that is here holds the handler"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newProject(t, map[string]string{"a.js": "exports.h = 1", "src/b.js": "exports.h = 1"})
			writeFiles(t, filepath.Join(p.root, "layer"), c.layer)
			c.f.Key, c.f.Package.Patterns = "f", []string{"!layer/**"}
			r, l := p.buildApp(context.Background(), layered(c.f, []app.Resource{layerOf("L", map[string]any{"Content": "layer"})}, app.Attr("L", "Ref")))
			built := r.Functions["f"]
			if c.code == "" {
				wantDiag(t, l, diag.Error, "missing-handler", "", c.says)
				return
			}
			if built == nil || paths(built.Code) != c.code || built.Handler != c.handler {
				t.Errorf("built %+v, %v", built, l)
			}
		})
	}
}

func TestLayers_DependenciesAreInstalledUnlessTheUserHas(t *testing.T) {
	t.Parallel()
	p := newProject(t, map[string]string{
		"a.js": "exports.h = 1", "l/nodejs/package.json": `{"dependencies":{"ok":"1"}}`, "l/requirements.txt": "x", "own/nodejs/package.json": `{"dependencies":{"other":"1"}}`,
		"own/nodejs/node_modules/mine/i.js": "1", "own/python/requirements.txt": "x", "own/python/x/__init__.py": "",
	})
	writeFiles(t, p.bin, map[string]string{"npm": "#!/bin/sh\nmkdir -p node_modules/ok; echo '{\"version\":\"1.0.0\"}' > node_modules/ok/package.json\n"})
	f := node("f", "a.h")
	f.Package.Patterns = []string{"!l/**", "!own/**"}
	a := layered(f, []app.Resource{layerOf("L", map[string]any{"Content": "l"}), layerOf("Own", map[string]any{"Content": "own"})}, app.Attr("L", "Ref"), app.Attr("Own", "Ref"))
	r, l := p.buildApp(context.Background(), a)
	if len(l) != 1 {
		t.Errorf("diagnostics: %v", l)
	}
	wantDiag(t, l, diag.Warning, "empty-layer", "l/requirements.txt", "pip install --target l/python -r l/requirements.txt")
	layers := r.Functions["f"].Layers
	if !layers[0].Has("nodejs/node_modules/ok/package.json") {
		t.Errorf("not installed: %s", paths(layers[0]))
	}
	if layers[1].Has("nodejs/node_modules/ok/package.json") || !layers[1].Has("nodejs/node_modules/mine/i.js") {
		t.Errorf("the user's own: %s", paths(layers[1]))
	}
	if p.buildApp(context.Background(), a); len(p.steps) != 0 {
		t.Errorf("a second build took the steps %v", p.steps)
	}
	writeFiles(t, p.bin, map[string]string{"npm": "#!/bin/sh\necho 'npm error notarget No matching version found for ok@2.'\nexit 1\n"})
	writeFiles(t, p.root, map[string]string{"bad/nodejs/package.json": `{"dependencies":{"ok":"2"}}`})
	_, l = p.buildApp(context.Background(), layered(f, []app.Resource{layerOf("Bad", map[string]any{"Content": "bad"})}, app.Attr("Bad", "Ref")))
	wantDiag(t, l, diag.Error, "install-failed", "bad/nodejs/package.json", "No matching version")
}
