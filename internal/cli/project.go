package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/artifact"
	"github.com/ebb-run/ebb/internal/build"
	"github.com/ebb-run/ebb/internal/config"
	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/fence"
	"github.com/ebb-run/ebb/internal/frontend"
	"github.com/ebb-run/ebb/internal/frontend/all"
	"github.com/ebb-run/ebb/internal/runtimes"
)

// project is a folder on this machine, read, built and sent.
type project struct {
	c         *command
	root      string
	options   frontend.Options
	quiet     map[string]bool // remarks already shown; a reload does not repeat them
	finder    *runtimes.Finder
	layers    map[string]string // as build.Options.Layers
	sent      map[*artifact.Tree]string
	settings  config.Config // those of buildSettings
	tools     tools
	plainJSON bool // standard output holds one document, so remarks go to standard error alone
}

// projectFlags are the choices at load that several commands share.
type projectFlags struct {
	stage, region, envFile string
	params, layers         []string
}

func (f *projectFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.stage, "stage", "s", "", "stage to use (default: the project's)")
	cmd.Flags().StringVar(&f.region, "region", "", "region to show to functions (default: the project's)")
	cmd.Flags().StringArrayVar(&f.params, "param", nil, "parameter `k=v` for the project file; may be repeated")
	cmd.Flags().StringVar(&f.envFile, "env-file", "", "file with further environment variables (dotenv format)")
}

// addBuild adds the choices of commands that build.
func (f *projectFlags) addBuild(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.layers, "layer", nil, "folder or zip in the place of a layer from elsewhere: `name=path`, by its name or ARN; may be repeated")
}

func (c *command) project(dir, account string, f projectFlags) (*project, error) {
	root := c.abs(dir)
	info, err := os.Stat(root)
	if err != nil || !info.IsDir() {
		return nil, errs.New(errs.NotFound, "%s is not a folder", root).WithHint("Name the folder that holds the project file.")
	}
	params := map[string]string{}
	for _, p := range f.params {
		k, v, ok := strings.Cut(p, "=")
		if !ok || k == "" {
			return nil, usageError{fmt.Errorf("--param %q: want k=v", p)}
		}
		params[k] = v
	}
	layers, err := c.layerFiles(f.layers)
	if err != nil {
		return nil, err
	}
	if f.envFile != "" {
		f.envFile = c.abs(f.envFile)
		if _, err := os.Stat(f.envFile); err != nil {
			return nil, errs.New(errs.NotFound, "read --env-file: %w", err)
		}
	}
	if account == "" {
		account = "000000000000"
	}
	return &project{
		c: c, root: root, quiet: map[string]bool{}, finder: runtimes.New(c.Env), sent: map[*artifact.Tree]string{}, layers: layers,
		options: frontend.Options{Stage: f.stage, Region: f.region, Params: params, EnvFile: f.envFile, Account: account},
	}, nil
}

// layerFiles reads --layer. A path is relative to where the command is given.
func (c *command) layerFiles(given []string) (map[string]string, error) {
	files := map[string]string{}
	for _, l := range given {
		name, file, ok := strings.Cut(l, "=")
		if !ok || name == "" || file == "" {
			return nil, usageError{fmt.Errorf("--layer %q: want name=path", l)}
		}
		file = c.abs(file)
		if _, err := os.Stat(file); err != nil {
			return nil, errs.New(errs.NotFound, "read --layer %s: %w", name, err)
		}
		files[name] = filepath.ToSlash(file)
	}
	return files, nil
}

// find says whether the folder holds a project. It only looks, so that nothing is made in a folder that is none.
func (p *project) find() (frontend.Frontend, frontend.Project, error) {
	return all.Frontends().Find(frontend.Project{Root: p.root, Env: p.c.Env, Exec: p.exec, Run: p.makes, Reads: p.fence().Check,
		Script: func(file string) (string, error) { return build.Script(file, p.fence()) }})
}

// fence is what the project may have read.
func (p *project) fence() *fence.Fence {
	allow := make([]string, len(p.settings.AllowFiles))
	for i, file := range p.settings.AllowFiles {
		if rest, ok := strings.CutPrefix(file, "~/"); ok { // of a list, in which a shell writes out the first alone
			if home, ok := p.c.Env("HOME"); ok {
				file = filepath.Join(home, rest)
			}
		}
		allow[i] = p.c.abs(file)
	}
	return fence.New(fence.Options{Root: p.root, Own: []string{filepath.Join(p.root, made)}, Env: p.c.Env, Allow: allow})
}

// load reads the project file and shows what it has to say.
func (p *project) load(ctx context.Context) (*app.App, error) {
	f, fp, err := p.find()
	if err != nil {
		return nil, err
	}
	a, diags := f.Load(ctx, fp, p.options)
	if a != nil && !diags.HasErrors() {
		inactive(a, &diags)
	}
	return a, p.show(diags)
}

// inactive says what is declared and has no engine yet, so that nothing is dropped in silence.
func inactive(a *app.App, diags *diag.List) {
	for _, t := range a.Triggers {
		if api.ActiveTrigger(t.Kind) {
			continue
		}
		what := t.Source.String()
		if len(t.Schedule) > 0 {
			what = strings.Join(t.Schedule, ", ")
		}
		diags.Notef(diag.Pos{}, "not-active", "Run the function by hand with `ebb invoke "+t.Function+"`.",
			"%s trigger of function %s (%s) is declared, not yet active", t.Kind, t.Function, what)
	}
	kinds := map[string][]string{}
	for _, r := range a.Resources {
		if r.Kind != app.Foreign && r.Kind != app.Layer {
			kinds[r.Kind] = append(kinds[r.Kind], r.ID)
		}
	}
	for _, here := range []string{app.Bucket, app.Queue, app.Stream, app.Table, app.Topic} { // and SDKs reach them
		delete(kinds, here)
	}
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		diags.Notef(diag.Pos{}, "not-active", "Calls to it by a cloud's SDK are refused.",
			"%s %s is declared, not yet active", kind, strings.Join(kinds[kind], ", "))
	}
}

// plainEnv is the environment of a program of the project that is one of this machine.
func (p *project) plainEnv() ([]string, error) {
	return build.PlainEnv(os.Environ(), p.settings.BuildEnv, p.tools.dir)
}

// plainExec runs a program of the project as one of this machine, in its folder, without a shell.
func (p *project) plainExec(ctx context.Context, name string, args ...string) ([]byte, error) {
	env, err := p.plainEnv()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = p.root, env
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return out, fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(exit.Stderr)))
	}
	return out, err
}

// show prints diagnostics and returns an error if one of them is.
func (p *project) show(diags diag.List) error {
	failed := diags.HasErrors()
	for _, d := range diags.Sorted() {
		key := d.String()
		if d.Severity != diag.Error {
			if p.quiet[key] {
				continue
			}
			p.quiet[key] = true
			if p.c.json && !p.plainJSON {
				p.c.printJSON(map[string]any{"event": "diagnostic", "diagnostic": d})
			}
		}
		col := map[diag.Severity]color{diag.Error: red, diag.Warning: yellow, diag.Note: dim}[d.Severity]
		place := ""
		if s := d.Pos.String(); s != "" {
			place = p.c.paint(bold, s) + ": "
		}
		p.c.say("%s%s %s %s", place, p.c.paint(col, string(d.Severity)+":"), d.Message, p.c.paint(dim, "["+d.Code+"]"))
		if d.Hint != "" {
			p.c.say("  %s", p.c.paint(cyan, d.Hint))
		}
	}
	if failed {
		return diagError{diags}
	}
	return nil
}

// build turns the App's sources into Artifacts on this machine.
func (p *project) build(ctx context.Context, a *app.App, work string) (*build.Result, error) {
	r, diags := build.Build(ctx, p.root, a, build.Options{
		Work: work, Cache: p.c.cacheDir(), Env: p.c.Env, Finder: p.finder, Progress: p.progress, Stdout: p.c.Stderr, Skip: p.c.outputs, Layers: p.layers,
		Runner: func() (build.Runner, error) { return p.runner(filepath.Join(work, "jobs")) }, Pass: p.settings.BuildEnv,
		Fence: p.fence(),
	})
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return r, p.show(diags)
}

// progress tells of steps that take a while; quick ones are not worth a line.
func (p *project) progress(e build.Progress) {
	if p.c.json {
		return
	}
	if !e.Done || e.Elapsed > 300*time.Millisecond {
		text := e.Step
		if e.Function != "" {
			text += " " + e.Function
		}
		if e.Detail != "" {
			text += " " + e.Detail
		}
		if e.Done {
			p.c.say("  %s", p.c.paint(dim, fmt.Sprintf("%s: %.1f s", text, e.Elapsed.Seconds())))
		} else {
			p.c.say("  %s", p.c.paint(dim, text+" …"))
		}
	}
}

// send uploads what the Node does not have and makes the App current.
func (p *project) send(ctx context.Context, client *api.Client, a *app.App, r *build.Result, message string) (*api.Deployed, error) {
	req := api.DeployRequest{App: a, Message: message, By: userName()}
	up := p.c.uploading()
	defer up.clear()
	put := func(t *artifact.Tree) (string, error) {
		if digest, ok := p.sent[t]; ok {
			return digest, nil
		}
		digest, err := client.PutTree(ctx, t, up.told)
		if err == nil {
			p.sent[t] = digest
		}
		return digest, err
	}
	// Only the newest build's trees are worth remembering.
	p.sent = map[*artifact.Tree]string{}
	nothing := artifact.FromFiles()
	for i := range a.Functions {
		key := a.Functions[i].Key
		b := r.Functions[key]
		if b == nil {
			// A runtime without an engine beside others that have one: the build has said so. It stays declared, without code,
			// and a call says again why it cannot run.
			b = &build.Built{Code: nothing, Runtime: a.Functions[i].Runtime, Handler: a.Functions[i].Handler}
		}
		u := api.Unit{Key: key, Runtime: b.Runtime, Handler: b.Handler}
		var err error
		if u.Code, err = put(b.Code); err != nil {
			return nil, fmt.Errorf("upload %s: %w", key, err)
		}
		for _, l := range b.Layers {
			digest, err := put(l)
			if err != nil {
				return nil, fmt.Errorf("upload layer of %s: %w", key, err)
			}
			u.Layers = append(u.Layers, digest)
		}
		if b.Supplied != nil {
			if u.Supplied, err = put(b.Supplied); err != nil {
				return nil, fmt.Errorf("upload SDK of %s: %w", key, err)
			}
		}
		req.Units = append(req.Units, u)
	}
	up.clear()
	return client.Deploy(ctx, req)
}

// work is where builds of a project keep what they made: in its own .ebb, also when it deploys to another Node.
func (p *project) work() string { return filepath.Join(p.root, ".ebb", "build") }
