// Package sam reads SAM templates (AWS Serverless Application Model) into an App.
//
// Main type: [Frontend]. The template is compiled to the CloudFormation template that SAM's own transform makes: the same logical
// IDs, the same implicit resources. Package cloudformation turns that template into the App.
//
// Guarantees:
//
//  1. Logical IDs and the properties an App is made of are those of SAM's transform, so that the rest of the template may refer to
//     them. The differences are below.
//  2. Every place in a diagnostic is one of the project's own files.
//  3. A resource that is not compiled stays in the template as it is, and there is a warning.
//
// What differs from the transform's own result:
//
//   - IDs that end in a hash of the content there end without it: a function's Version, a layer, the deployment of a REST API.
//   - Code and Content are the folder or zip in the project, where `sam build` has the place it uploaded to.
//   - The second stage, called Stage, that a REST API has there by an old mistake is left out.
//   - State machines keep their Definition as written.
//
// Values of parameters come from the user, then from samconfig.toml (or .yaml), then from the template's Defaults.
//
// It does not run `sam build`: package build makes the code.
package sam

import (
	"context"
	"maps"
	"os"
	"path"
	"path/filepath"
	"strings"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/frontend"
)

// Frontend reads SAM templates. The zero value is ready.
type Frontend struct{}

var _ frontend.Frontend = Frontend{}

// Name implements [frontend.Frontend].
func (Frontend) Name() string { return "sam" }

// Detect implements [frontend.Frontend]: a template by its usual names that asks for SAM's transform.
func (Frontend) Detect(p frontend.Project) (string, bool) {
	names := []string{"template.yaml", "template.yml", "template.json", "sam.yaml", "sam.yml", "template.sam.yaml"}
	if p.File != "" {
		names = []string{p.File}
	}
	for _, name := range names {
		if st, err := os.Stat(filepath.Join(p.Root, filepath.FromSlash(name))); err != nil || !st.Mode().IsRegular() {
			continue
		}
		n, _ := cfn.ReadDoc(p, name)
		if n == nil && cfn.Says(p, name, prefix[:len(prefix)-2]) || isSAM(n) { // its faults are told when it is read
			return name, true
		}
	}
	return "", false
}

// isSAM says whether a template asks for the transform, or has resources that are nothing without it.
func isSAM(n *cfn.Node) bool {
	for _, t := range items(n.Get("Transform")) {
		if strings.HasPrefix(text(t), "AWS::Serverless") {
			return true
		}
	}
	for _, e := range entries(n.Get("Resources")) {
		if strings.HasPrefix(text(e.Value.Get("Type")), prefix) {
			return true
		}
	}
	return false
}

// Load implements [frontend.Frontend].
func (f Frontend) Load(_ context.Context, p frontend.Project, o frontend.Options) (*app.App, diag.List) {
	var l diag.List
	t, in, ok := f.compile(p, o, &l)
	if !ok {
		return nil, l.Sorted()
	}
	t.Root = cfn.NestWith(t.Root, &l, func(file string) *cfn.Node { return nested(p, o, file, in.Functions, &l) })
	a, more := cfn.Load(t, in)
	l = append(l, more...)
	if l.HasErrors() {
		return nil, l.Sorted()
	}
	return a, l.Sorted()
}

// nested reads the template of a nested stack, compiled where it is one of SAM, and adds what it says of functions.
func nested(p frontend.Project, o frontend.Options, file string, info map[string]cfn.FunctionInfo, l *diag.List) *cfn.Node {
	doc, more := cfn.ReadDoc(p, file)
	*l = append(*l, more...)
	doc = cfn.Include(p, doc, l)
	if !isSAM(doc) || doc.Kind != cfn.Map {
		return doc
	}
	o.Params = nil // they are the outer template's
	t, in := compileDoc(p, o, doc, l)
	for id, one := range in.Functions {
		if _, taken := info[id]; !taken {
			info[id] = one
		}
	}
	return t.Root
}

// compile makes the CloudFormation template. Faults of single parts still give one, so that its own faults are told in the same pass.
func (f Frontend) compile(p frontend.Project, o frontend.Options, l *diag.List) (cfn.Template, cfn.Input, bool) {
	file := p.File
	if file == "" {
		var ok bool
		if file, ok = f.Detect(p); !ok {
			l.Errorf(diag.Pos{}, "no-project", "Name the template's file.", "there is no SAM template in %s", p.Root)
			return cfn.Template{}, cfn.Input{}, false
		}
	}
	root, more := cfn.ReadDoc(p, file)
	*l = append(*l, more...)
	if root == nil || root.Kind != cfn.Map {
		if root != nil {
			l.Errorf(root.Place(), "not-a-template", "", "a template must be a map with Resources")
		}
		return cfn.Template{}, cfn.Input{}, false
	}
	t, in := compileDoc(p, o, cfn.Include(p, root, l), l)
	return t, in, true
}

// compileDoc makes the CloudFormation template of a document.
func compileDoc(p frontend.Project, o frontend.Options, root *cfn.Node, l *diag.List) (cfn.Template, cfn.Input) {
	given := configured(p, root, o, l)
	maps.Copy(given, o.Params)
	known := pseudo(o)
	for _, e := range entries(root.Get("Parameters")) {
		if v, ok := given[e.Key]; ok {
			known[e.Key] = v
		} else if d := e.Value.Get("Default"); d != nil && d.Kind == cfn.Scalar && !strings.HasPrefix(text(e.Value.Get("Type")), "AWS::SSM::") {
			known[e.Key] = text(d)
		}
	}
	c := &compiler{l: l, root: root, params: known, include: func(from diag.Pos, name string) *cfn.Node {
		doc, more := cfn.ReadDoc(p, path.Join(path.Dir(from.File), name))
		for i := range more {
			if more[i].Pos.Line == 0 {
				more[i].Message, more[i].Pos = more[i].Pos.File+": "+more[i].Message, from
			}
		}
		*l = append(*l, more...)
		return cfn.Include(p, doc, l)
	}}
	t := c.compile()
	in := cfn.Input{Name: cfn.AppName(p.Root), Stage: or2(o.Stage, "dev"), Region: or2(o.Region, "us-east-1"), Account: or2(o.Account, "000000000000"),
		Source: "SAM", Params: given, Functions: c.info}
	in.Stack = in.Name + "-" + in.Stage
	return t, in
}

// pseudo are the parameters that every template has.
func pseudo(o frontend.Options) map[string]string {
	return map[string]string{"AWS::Region": or2(o.Region, "us-east-1"), "AWS::AccountId": or2(o.Account, "000000000000"), "AWS::Partition": "aws"}
}

func or2(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}
