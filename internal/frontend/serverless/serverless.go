// Package serverless reads serverless.yml (Serverless Framework, version 3 syntax) into an App.
//
// Main type: [Frontend]. A project file is read, its variables are resolved, and it is compiled to the
// CloudFormation template that Serverless itself would make: the same logical IDs, the same implicit
// resources. Package cloudformation turns that template into the App.
//
// Guarantees:
//
//  1. Logical IDs and function names are those of Serverless 3, so that `resources:` may refer to them. The
//     differences are below.
//  2. A variable without a value is an error at its place; the rest of the file is read all the same.
//  3. An event kind without a form in a template becomes a Trigger with its settings; nothing is dropped.
//  4. Any input ends: nesting, chains of variables and the resolved size are bounded.
//
// What differs from Serverless's own template:
//
//   - IDs that end in a hash or a random number there end without it: a function's Version, a layer that is
//     retained, the deployments of REST and WebSocket APIs. The upload time in a code's S3 key is fixed.
//   - A layer's Content is the folder or zip in the project.
//   - The helper functions that set up existing buckets and user pools and the account's log role are left out,
//     and so is the distribution of cloudFront events; their triggers are declared beside the template.
//   - Routes on an API of another stack get an API of their own, since they could not be served otherwise.
//   - Two routes whose paths give the same logical ID both stay.
//
// It does not run plugins itself. Those that are known have their effect taken or are named in a note. Where others are used and the
// project has Serverless 3 or osls installed, that compiles and packages the project instead.
package serverless

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/frontend"
)

// Frontend reads serverless.yml. The zero value is ready.
type Frontend struct{}

var _ frontend.Frontend = Frontend{}

// Name implements [frontend.Frontend].
func (Frontend) Name() string { return "serverless" }

// fileNames in the order they are looked for.
var fileNames = []string{
	"serverless.yml", "serverless.yaml", "serverless.json", "serverless.js", "serverless.cjs", "serverless.mjs", "serverless.ts",
}

// Detect implements [frontend.Frontend].
func (Frontend) Detect(p frontend.Project) (string, bool) {
	names := fileNames
	if p.File != "" {
		base := filepath.Base(p.File)
		if !strings.HasPrefix(base, "serverless") {
			return "", false
		}
		names = []string{p.File}
	}
	for _, name := range names {
		if st, err := os.Stat(filepath.Join(p.Root, name)); err == nil && st.Mode().IsRegular() {
			return name, true
		}
	}
	return "", false
}

// Load implements [frontend.Frontend].
func (f Frontend) Load(ctx context.Context, p frontend.Project, o frontend.Options) (*app.App, diag.List) {
	var l diag.List
	if p.File == "" {
		p.File, _ = f.Detect(p)
	}
	c, t, in, ok := f.compile(ctx, p, o, &l)
	if c != nil {
		if a, more, done := f.viaPackage(ctx, p, o, c, &l); done {
			return a, once(more)
		}
	}
	if !ok {
		return nil, once(l)
	}
	a, more := cfn.Load(t, in)
	l = once(append(l, more...))
	if l.HasErrors() {
		return nil, l
	}
	for i := range a.Routes {
		if r := &a.Routes[i]; r.API == restAPIID && r.CORS != nil && c.origins[r.Path] != nil {
			cors := *r.CORS
			cors.Origins = c.origins[r.Path]
			r.CORS = &cors
		}
	}
	for i := range a.Resources {
		if r := &a.Resources[i]; r.ID == deploymentBucketID {
			r.Kind = app.Foreign // the framework's own, for its uploads; no function uses it
		}
	}
	a.Description = "" // of the template; a project file has none
	return a, l
}

// once orders the diagnostics and leaves out repetitions: a provider's setting is looked at for each function.
func once(l diag.List) diag.List { return slices.Compact(l.Sorted()) }

// compile makes the template. It says no when something could not be resolved or the file is none of ours;
// faults of single parts still give a template, so that its own faults are told in the same pass.
func (f Frontend) compile(ctx context.Context, p frontend.Project, o frontend.Options, l *diag.List) (*compiler, cfn.Template, cfn.Input, bool) {
	if p.File == "" {
		name, ok := f.Detect(p)
		if !ok {
			l.Errorf(diag.Pos{}, "no-project", "Create a serverless.yml.", "there is no serverless.yml in %s", p.Root)
			return nil, cfn.Template{}, cfn.Input{}, false
		}
		p.File = name
	}
	if o.Account == "" {
		o.Account = "000000000000"
	}
	r := newResolver(ctx, p, o, l, nil)
	root := r.readProject()
	if root == nil {
		return nil, cfn.Template{}, cfn.Input{}, false
	}
	return r.compile(root)
}

// compile makes the template of a document.
func (r *resolver) compile(root *cfn.Node) (*compiler, cfn.Template, cfn.Input, bool) {
	r.root = root
	r.decideStage()
	r.loadDotenv()
	r.decideRegion()
	doc := r.document()
	c := &compiler{
		l: r.l, doc: doc, provider: doc.Get("provider"), stage: r.stage, region: r.region,
		info: map[string]cfn.FunctionInfo{}, plugins: map[string]bool{}, origins: map[string][]string{}, layerRules: map[string][]string{},
	}
	t := c.template(r)
	if r.failed || t.Root.Get("Resources") == nil {
		return c, t, cfn.Input{}, false
	}
	stack := c.service + "-" + c.stage
	if s, ok := c.provider.Get("stackName").Text(); ok && s != "" {
		stack = s
	}
	return c, t, cfn.Input{
		Name: c.service, Stage: c.stage, Region: c.region, Account: r.o.Account, Stack: stack,
		Source: filepath.Base(r.p.File), Params: c.templateParams(t, r.o.Params), Functions: c.info, Declared: c.decl,
		Layers: c.layerRules, LayerFiles: c.layerFiles(),
	}, true
}

// templateParams gives the values of the template's own Parameters: the user's, or provider.stackParameters.
// The user's may also be meant for ${param:}, so that only those that the template declares are passed on.
func (c *compiler) templateParams(t cfn.Template, given map[string]string) map[string]string {
	out := map[string]string{}
	for _, it := range list(c.provider.Get("stackParameters")) {
		if key, ok := it.Get("ParameterKey").Text(); ok {
			out[key], _ = it.Get("ParameterValue").Text()
		}
	}
	for _, e := range mapEntries(t.Root.Get("Parameters")) {
		if v, ok := given[e.Key]; ok {
			out[e.Key] = v
		}
	}
	return out
}

// readProject reads the project's main file.
func (r *resolver) readProject() *cfn.Node {
	abs := filepath.Join(r.p.Root, r.p.File)
	pos := diag.Pos{File: filepath.ToSlash(r.p.File)}
	var n *cfn.Node
	switch filepath.Ext(abs) {
	case ".js", ".cjs", ".mjs", ".ts":
		r.stage, r.region = orDefault(r.o.Stage, defaultStage), orDefault(r.o.Region, defaultRegion)
		r.root = cfn.NewMap(pos)
		var m missing
		if n, m = r.script(pos, abs, r.p.File, ""); n == nil {
			r.errorf(pos, m.code(), m.hint, "%s", m.what)
			return nil
		}
		r.stage, r.region = "", ""
	default:
		data, err := r.read(abs)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				r.errorf(pos, "no-project", "", "there is no file %s", r.p.File)
			} else {
				r.errorf(pos, "unreadable", errs.HintOf(err), "%v", err)
			}
			return nil
		}
		var l diag.List
		n, l = cfn.ParseDoc(pos.File, data)
		*r.l = append(*r.l, l...)
		if n == nil {
			return nil
		}
	}
	if n.Kind != cfn.Map {
		r.errorf(pos, "wrong-type", "Start with `service: my-app`.", "the file must be a map with service, provider and functions, not %s", kindName(n))
		return nil
	}
	return n
}

func orDefault(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

// decideStage finds the stage in force: the command line's, the file's, or dev.
func (r *resolver) decideStage() {
	r.stage = r.o.Stage
	if r.stage == "" {
		r.stage = r.decide("stage", defaultStage)
	}
}

// decideRegion is decideStage for the region.
func (r *resolver) decideRegion() {
	r.region = r.o.Region
	if r.region == "" {
		r.region = r.decide("region", defaultRegion)
	}
}

// decide reads provider.KEY. What cannot be resolved yet is told when the whole document is.
func (r *resolver) decide(key, fallback string) string {
	quiet := newResolver(r.ctx, r.p, r.o, &diag.List{}, r.root)
	quiet.dotenv, quiet.stage = r.dotenv, r.stage
	n := quiet.shallow(quiet.shallow(r.root.Get("provider")).Get(key))
	if s, ok := n.Text(); ok && s != "" && !isPoison(n) {
		return s
	}
	return fallback
}

// loadDotenv reads what the project or the user asks for: --env-file; with useDotenv (or the plugin)
// .env.STAGE, or else .env.
func (r *resolver) loadDotenv() {
	r.dotenv, r.dotenvUnused = map[string]string{}, map[string]string{}
	read := func(name string, from func(string) ([]byte, error)) map[string]string {
		abs := name
		if !filepath.IsAbs(abs) {
			abs = filepath.Join(r.p.Root, name)
		}
		data, err := from(abs)
		if errs.CodeOf(err) == errs.Forbidden {
			r.errorf(diag.Pos{File: name}, "outside", errs.HintOf(err), "%v", err)
		}
		if err != nil {
			return nil
		}
		return parseDotenv(string(data), r.p.Env)
	}
	if r.o.EnvFile != "" {
		// The user's own folder first, as for any path on a command line.
		abs, err := filepath.Abs(r.o.EnvFile)
		if err != nil {
			abs = r.o.EnvFile
		}
		vars := read(abs, readFile)
		if vars == nil {
			vars = read(r.o.EnvFile, readFile)
		}
		if vars == nil {
			r.errorf(diag.Pos{File: filepath.ToSlash(r.o.EnvFile)}, "unreadable", "Correct the path given with --env-file.", "there is no such file")
		}
		maps.Copy(r.dotenv, vars)
	}
	vars := read(".env."+r.stage, r.read)
	if vars == nil {
		vars = read(".env", r.read)
	}
	into := r.dotenvUnused
	if isTrue(r.shallow(r.root.Get("useDotenv"))) || r.usesPlugin("serverless-dotenv-plugin") {
		into = r.dotenv
	}
	for k, v := range vars {
		if _, have := into[k]; !have {
			into[k] = v
		}
	}
}

func (r *resolver) usesPlugin(name string) bool {
	n := r.shallow(r.root.Get("plugins"))
	if m := n.Get("modules"); m != nil {
		n = r.shallow(m)
	}
	return slices.ContainsFunc(list(n), func(it *cfn.Node) bool {
		s, _ := it.Text()
		return s == name
	})
}

// template compiles every part, in Serverless's order.
func (c *compiler) template(r *resolver) cfn.Template {
	if !c.readService() {
		return cfn.Template{Root: cfn.NewMap(c.doc.Pos)}
	}
	c.readPlugins()
	c.dotenvPlugin(r)
	c.checkKeys()
	c.readFunctions()
	c.core()
	c.functionResources()
	c.constructs()
	c.events()
	c.role()
	root := obj(c.doc.Pos,
		"AWSTemplateFormatVersion", "2010-09-09",
		"Description", "The AWS CloudFormation template for this Serverless application",
		"Resources", &cfn.Node{Kind: cfn.Map, Pos: c.doc.Pos, Entries: c.res},
		"Outputs", &cfn.Node{Kind: cfn.Map, Pos: c.doc.Pos, Entries: c.outs})
	return cfn.Template{Root: c.merge(root, r)}
}

var serviceName = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_-]*$`)

// readService reads what the project is called and where it is meant to run. It says no when that is another
// provider's cloud, whose keys mean other things.
func (c *compiler) readService() bool {
	n := c.doc.Get("service")
	if n != nil && n.Kind == cfn.Map {
		c.keys(n, "in service", []string{"name", "awsKmsKeyArn"})
		n = n.Get("name")
	}
	c.service = c.text(n, "service")
	if c.service == "" && !isPoison(n) {
		c.l.Errorf(orPos(n, c.doc).Pos, "missing-key", "Add `service: my-app` at the top.", "the project has no name: the key service is missing")
	}
	if c.service != "" && !serviceName.MatchString(c.service) {
		c.l.Errorf(n.Pos, "bad-value", "Use a letter first, then letters, digits and dashes.", "%q cannot be the name of an app", c.service)
		c.service = "app"
	}
	if v := c.provider.Get("variableSyntax"); v != nil {
		c.l.Warnf(v.Pos, "no-effect", "Write variables as ${source:address}.", "variables are always read as ${…}, whatever variableSyntax says")
	}
	if c.provider.IsNull() {
		c.l.Errorf(c.doc.Pos, "missing-key", "Add `provider:` with `name: aws` and a runtime.", "the key provider is missing")
	}
	if s, ok := c.provider.Text(); ok && !isPoison(c.provider) { // `provider: aws`
		c.provider = obj(c.provider.Pos, "name", s)
	}
	if name := c.provider.Get("name"); name != nil {
		if s := c.text(name, "provider.name"); s != "" && s != "aws" {
			c.l.Errorf(name.Pos, "unknown-provider", "Only `name: aws` is read from serverless.yml.", "the provider %q is not known", s)
			return false
		}
	}
	return true
}

func orPos(ns ...*cfn.Node) *cfn.Node {
	for _, n := range ns {
		if n != nil {
			return n
		}
	}
	return &cfn.Node{}
}

func (c *compiler) where(what string, name string) string { return fmt.Sprintf("in %s %q", what, name) }
