// Package cdk reads AWS CDK projects (cdk.json) into an App.
//
// Main type: [Frontend]. The project's own program makes its cloud assembly, as `cdk synth` does: by the project's own CLI where it is
// installed with it, else by its app command itself. The templates of the assembly then go through package cloudformation; the code of
// functions is that of the assembly's assets.
//
// Guarantees:
//
//  1. The project's program runs only through Project.Run.
//  2. All stacks, nested ones too, are one App: a reference from one to another stays one. A stage or stack that the user names is
//     read alone.
//  3. What the CDK adds for its own deploys (the bootstrap version, its metadata) is no part of the App.
//
// It bundles nothing and asks no cloud: what the program could not look up is in cdk.context.json or has a warning.
package cdk

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/frontend"
)

// Frontend reads CDK projects. The zero value is ready.
type Frontend struct{}

var _ frontend.Frontend = Frontend{}

const (
	configFile = "cdk.json"
	outFolder  = "cdk.out"
)

// Name implements [frontend.Frontend].
func (Frontend) Name() string { return "cdk" }

// Detect implements [frontend.Frontend]: a cdk.json that names an app.
func (Frontend) Detect(p frontend.Project) (string, bool) {
	if p.File != "" && filepath.Base(p.File) != configFile {
		return "", false
	}
	if st, err := os.Stat(filepath.Join(p.Root, configFile)); err != nil || !st.Mode().IsRegular() {
		return "", false
	}
	if n, _ := cfn.ReadDoc(p, configFile); n == nil || !n.Get("app").IsNull() {
		return configFile, true
	}
	return "", false
}

// Load implements [frontend.Frontend].
func (f Frontend) Load(ctx context.Context, p frontend.Project, o frontend.Options) (*app.App, diag.List) {
	var l diag.List
	conf, more := cfn.ReadDoc(p, configFile)
	l = append(l, more...)
	if conf == nil {
		return nil, l
	}
	o.Stage, o.Region, o.Account = or(o.Stage, ""), or(o.Region, "us-east-1"), or(o.Account, "000000000000")
	dir, ok := synth(ctx, p, o, conf, &l)
	if !ok {
		return nil, l.Sorted()
	}
	s := &assembly{p: p, l: &l, root: dir}
	s.read(dir, "")
	stacks := s.choose(o.Stage)
	if l.HasErrors() || len(stacks) == 0 {
		return nil, l.Sorted()
	}
	in := cfn.Input{Name: cfn.AppName(p.Root), Stage: or(o.Stage, "dev"), Region: o.Region, Account: o.Account, Source: "CDK", Params: map[string]string{}}
	in.Stack = in.Name + "-" + in.Stage
	var parts []cfn.Part
	for _, st := range stacks {
		if root := s.template(st); root != nil {
			parts = append(parts, cfn.Part{Name: st.name, Root: root})
		}
		for k, v := range st.params {
			in.Params[k] = v
		}
	}
	if len(parts) == 0 {
		return nil, l.Sorted()
	}
	if len(parts) == 1 {
		in.Stack = stacks[0].name
	}
	root := cfn.Merge(parts)
	in.Functions = keys(root)
	for k := range in.Params {
		if root.At("Parameters", k) == nil {
			delete(in.Params, k)
		}
	}
	for k, v := range o.Params {
		in.Params[k] = v
	}
	a, more := cfn.Load(cfn.Template{Root: root}, in)
	l = append(l, more...)
	if l.HasErrors() {
		return nil, l.Sorted()
	}
	a.Description = ""
	return a, l.Sorted()
}

func or(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

// synth has the project make its cloud assembly, and gives the folder of it, relative to the project.
func synth(ctx context.Context, p frontend.Project, o frontend.Options, conf *cfn.Node, l *diag.List) (string, bool) {
	pos := conf.Get("app").Place()
	command, ok := conf.Get("app").Text()
	if !ok || command == "" {
		l.Errorf(conf.Pos, "missing-key", "Add `\"app\": \"node bin/app.js\"`.", "cdk.json names no app")
		return "", false
	}
	if isFolder(filepath.Join(p.Root, filepath.FromSlash(command))) { // an assembly that is there already
		return filepath.ToSlash(filepath.Clean(command)), true
	}
	if p.Run == nil {
		l.Errorf(pos, "exec-not-allowed", "Allow it, or name a ready cdk.out as app.", "a CDK project is a program, and running project code is not allowed here")
		return "", false
	}
	tool := frontend.Tool{Out: outFolder, Env: []string{
		"CDK_DEFAULT_ACCOUNT=" + o.Account, "CDK_DEFAULT_REGION=" + o.Region, "AWS_REGION=" + o.Region, "AWS_DEFAULT_REGION=" + o.Region,
		"AWS_EC2_METADATA_DISABLED=true", "CDK_DISABLE_CLI_TELEMETRY=true", "CI=true", "NO_COLOR=1",
	}}
	cli := filepath.Join(p.Root, "node_modules", "aws-cdk", "bin", "cdk")
	if _, err := os.Stat(cli); err == nil {
		tool.Name = "node"
		tool.Args = []string{cli, "synth", "--quiet", "--no-notices", "--no-lookups", "--no-version-reporting", "--no-color", "--output", frontend.OutDir}
		for _, k := range sortedKeys(o.Params) {
			tool.Args = append(tool.Args, "--context", k+"="+o.Params[k])
		}
		if o.Stage != "" {
			tool.Args = append(tool.Args, "--context", "stage="+o.Stage)
		}
	} else {
		tool.Name, tool.Args = "sh", []string{"-c", command}
		tool.Env = append(tool.Env, "CDK_OUTDIR="+frontend.OutDir, "CDK_CONTEXT_JSON="+contextOf(p, o, conf, l))
	}
	dir, err := p.Run(ctx, tool)
	if err != nil {
		hint := errs.HintOf(err)
		switch s := err.Error(); {
		case hint != "":
		case strings.Contains(s, "Cannot find module"), strings.Contains(s, "MODULE_NOT_FOUND"), strings.Contains(s, "not found"), strings.Contains(s, "No module named"):
			hint = "Install the project's packages first: npm install"
		case strings.Contains(s, "lookup"):
			hint = "Run `cdk synth` once where it can ask the cloud: it keeps what it learns in cdk.context.json."
		case strings.Contains(strings.ToLower(s), "docker"):
			hint = "Bundling in containers is not done here; esbuild in the project's packages bundles without one."
		}
		l.Errorf(pos, "synth-failed", hint, "the CDK app did not run: %s", told(err.Error()))
		return "", false
	}
	return dir, true
}

// told is what a program said of its failure, short enough for a message: without npm's remarks and the stack.
func told(s string) string {
	var lines []string
	for line := range strings.SplitSeq(s, "\n") {
		if at := strings.Index(line, "npm warn"); at >= 0 {
			line = line[:at]
		}
		if bare := strings.TrimSpace(line); bare != "" && !strings.HasPrefix(bare, "at ") && !strings.HasPrefix(bare, "Node.js v") {
			lines = append(lines, strings.TrimRight(line, " "))
		}
	}
	if len(lines) > 12 {
		lines = append(append(lines[:6:6], "…"), lines[len(lines)-5:]...)
	}
	return strings.Join(lines, "\n  ")
}

// contextOf is the context that the CLI gives an app.
func contextOf(p frontend.Project, o frontend.Options, conf *cfn.Node, l *diag.List) string {
	all := map[string]any{"aws:cdk:enable-asset-metadata": true, "aws:cdk:enable-path-metadata": true, "aws:cdk:bundling-stacks": []string{"**"}}
	add := func(n *cfn.Node) {
		if m, ok := n.Plain().(map[string]any); ok {
			for k, v := range m {
				all[k] = v
			}
		}
	}
	add(conf.Get("context"))
	const learned = "cdk.context.json"
	if _, err := os.Stat(filepath.Join(p.Root, learned)); err == nil {
		n, more := cfn.ReadDoc(p, learned)
		*l = append(*l, more...)
		add(n)
	}
	for k, v := range o.Params {
		all[k] = v
	}
	if o.Stage != "" {
		all["stage"] = o.Stage
	}
	data, err := json.Marshal(all)
	if err != nil {
		return "{}"
	}
	return string(data)
}

func sortedKeys(m map[string]string) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func isFolder(name string) bool {
	st, err := os.Stat(name)
	return err == nil && st.IsDir()
}

// maxManifest is the most bytes of a manifest that are read.
const maxManifest = 64 << 20

func readManifest(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, maxManifest))
}
