package serverless

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"

	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/frontend"
)

// places returns a setter for every Node below n: each gives a copy of the document with that Node replaced.
func places(n *cfn.Node) []func(with *cfn.Node) *cfn.Node {
	var out []func(*cfn.Node) *cfn.Node
	for i, it := range n.Items {
		in := func(v *cfn.Node) *cfn.Node {
			c := *n
			c.Items = slices.Clone(n.Items)
			c.Items[i] = v
			return &c
		}
		out = append(out, in)
		for _, set := range places(it) {
			out = append(out, func(v *cfn.Node) *cfn.Node { return in(set(v)) })
		}
	}
	for _, e := range n.Entries {
		in := func(v *cfn.Node) *cfn.Node { return n.With(e.Key, v) }
		out = append(out, in)
		for _, set := range places(e.Value) {
			out = append(out, func(v *cfn.Node) *cfn.Node { return in(set(v)) })
		}
	}
	return out
}

// Whatever shape a part of a project has, reading it ends in an App or in an error.
func TestLoad_SurvivesAnyShape(t *testing.T) {
	t.Parallel()
	pos := diag.Pos{File: "serverless.yml", Line: 1, Col: 1}
	shapes := []*cfn.Node{
		{Kind: cfn.Null, Pos: pos}, cfn.Str(pos, ""), cfn.Str(pos, "a:b-c/d"), cfn.From(pos, true), cfn.From(pos, 7),
		cfn.NewList(pos), cfn.NewList(pos, cfn.NewMap(pos), cfn.Str(pos, "x")), cfn.NewMap(pos),
		obj(pos, "name", "x", "arn", cfn.NewList(pos)), obj(pos, "Ref", "Nothing"), obj(pos, "Fn::Join", []any{"", []any{}}),
		cfn.Str(pos, "${env:NOT_SET}"),
	}
	files, err := filepath.Glob(filepath.Join("testdata", "*", "serverless.*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no projects: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		root, _ := cfn.ParseDoc("serverless.yml", data)
		if root == nil || filepath.Ext(file) == ".ts" {
			continue
		}
		t.Run(filepath.Base(filepath.Dir(file)), func(t *testing.T) {
			t.Parallel()
			for i, set := range places(root) {
				if i%3 == len(file)%3 { // each project has another third of its places changed; all would take a minute
					survives(t, filepath.Dir(file), set(shapes[i/3%len(shapes)]))
				}
			}
		})
	}
}

func survives(t *testing.T, dir string, doc *cfn.Node) {
	t.Helper()
	var l diag.List
	r := newResolver(context.Background(), frontend.Project{Root: dir, File: "serverless.yml"}, frontend.Options{Account: "000000000000"}, &l, nil)
	_, template, in, ok := r.compile(doc)
	if !ok {
		if !l.HasErrors() {
			t.Errorf("no template and no error: %v", l)
		}
		return
	}
	if a, more := cfn.Load(template, in); a == nil && !more.HasErrors() {
		t.Error("neither an App nor an error")
	}
}
