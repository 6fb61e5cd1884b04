package serverless

import (
	"context"
	"encoding/json"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/frontend"
)

// cli is the Serverless Framework as it is installed in a project.
type cli struct {
	name, version string
	file          string // the program, absolute
}

// installed finds the project's own Serverless: version 3, or its fork osls. Version 4 wants a login, and is left alone.
func installed(p frontend.Project) (c cli, newer bool) {
	for _, name := range []string{"osls", "serverless"} {
		dir := filepath.Join(p.Root, "node_modules", name)
		data, err := readFile(filepath.Join(dir, "package.json"))
		if err != nil || p.MayRead(filepath.Join(dir, "package.json")) != nil {
			continue
		}
		var pkg struct {
			Version string
			Bin     any
		}
		if json.Unmarshal(data, &pkg) != nil {
			continue
		}
		major, _ := strconv.Atoi(strings.Split(pkg.Version, ".")[0])
		if name == "serverless" && major != 3 {
			newer = major > 3
			continue
		}
		bin, _ := pkg.Bin.(string)
		if all, ok := pkg.Bin.(map[string]any); ok {
			bin, _ = all[name].(string)
			if bin == "" {
				bin, _ = all["serverless"].(string)
			}
		}
		if bin = filepath.FromSlash(bin); filepath.IsLocal(bin) {
			return cli{name: name, version: pkg.Version, file: filepath.Join(dir, bin)}, false
		}
	}
	return cli{}, newer
}

// strangePlugins are those whose effect the project needs and that nothing here has.
func (c *compiler) strangePlugins() []diagPlugin {
	var out []diagPlugin
	for _, p := range c.pluginList() {
		if known, ok := plugins[p.name]; !ok || known.missed {
			out = append(out, diagPlugin(p))
		}
	}
	return out
}

type diagPlugin struct {
	name string
	pos  diag.Pos
}

// viaPackage has the project's own Serverless make the template and the packages, where the project uses plugins that are not known. It
// says no where that is not needed, not possible, or has failed; the last has a warning.
func (f Frontend) viaPackage(ctx context.Context, p frontend.Project, o frontend.Options, c *compiler, l *diag.List) (*app.App, diag.List, bool) {
	strange := c.strangePlugins()
	if len(strange) == 0 {
		return nil, nil, false
	}
	var names []string
	for _, s := range strange {
		names = append(names, s.name)
	}
	what, pos := strings.Join(names, ", "), strange[0].pos
	tool, newer := installed(p)
	switch {
	case newer:
		l.Notef(pos, "serverless-package", "Version 3, or osls, compiles without a login: npm install --save-dev osls",
			"the project's Serverless is of version 4, which wants a login; %s has no effect", what)
		return nil, nil, false
	case tool.file == "":
		return nil, nil, false
	case p.Run == nil:
		l.Notef(pos, "serverless-package", "", "%s %s is not run, since running project code is not allowed here; %s has no effect", tool.name, tool.version, what)
		return nil, nil, false
	}
	dir, err := p.Run(ctx, packageTool(p, o, c, tool))
	if err != nil {
		l.Warnf(pos, "serverless-package", orDefault(errs.HintOf(err), "See what `npx "+tool.name+" package` says."),
			"`%s package` of the project's own %s %s failed, so that %s has no effect: %s", tool.name, tool.name, tool.version, what, lastLines(err.Error()))
		return nil, nil, false
	}
	var diags diag.List
	diags.Notef(pos, "serverless-package", "", "compiled and packaged by the project's own %s %s, for the sake of %s", tool.name, tool.version, what)
	a, more := packaged(p, o, path.Join(dir, "package"))
	return a, append(diags, more...), true
}

// packageTool is the call of `serverless package`. Its credentials are made up, and open nothing.
// Serverless makes the folder itself, in place of one that is there.
func packageTool(p frontend.Project, o frontend.Options, c *compiler, tool cli) frontend.Tool {
	t := frontend.Tool{Name: "node", Out: "serverless", Args: []string{tool.file, "package", "--package", frontend.OutDir + "/package", "--config", filepath.Base(p.File)},
		Env: []string{"AWS_ACCESS_KEY_ID=none", "AWS_SECRET_ACCESS_KEY=none", "AWS_EC2_METADATA_DISABLED=true", "AWS_REGION=" + orDefault(c.region, defaultRegion),
			"SLS_TELEMETRY_DISABLED=1", "SLS_NOTIFICATIONS_MODE=off", "SLS_TRACKING_DISABLED=1", "SLS_DISABLE_AUTO_UPDATE=1", "CI=1", "NO_COLOR=1"}}
	if c.stage != "" {
		t.Args = append(t.Args, "--stage", c.stage)
	}
	if o.Region != "" {
		t.Args = append(t.Args, "--region", o.Region)
	}
	for _, k := range sortedNames(o.Params) {
		t.Args = append(t.Args, "--param", k+"="+o.Params[k])
	}
	return t
}

func sortedNames(m map[string]string) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// lastLines is what a failed program said last, without the advertisement of its makers.
func lastLines(s string) string {
	var lines []string
	for line := range strings.SplitSeq(s, "\n") {
		if line = strings.TrimSpace(line); line != "" && !strings.Contains(line, "https://") && !strings.HasPrefix(line, "at ") {
			lines = append(lines, line)
		}
	}
	if len(lines) > 6 {
		lines = append(lines[:1:1], lines[len(lines)-5:]...)
	}
	return strings.Join(lines, "\n  ")
}

// packageState is what is read of serverless-state.json.
type packageState struct {
	Service struct {
		Service  any
		Provider struct {
			Stage, Region string
			StackName     any
		}
		Functions map[string]struct {
			Package struct{ Artifact string }
		}
	}
	Package struct{ Artifact string }
}

const templateFile = "cloudformation-template-update-stack.json"

// packaged reads what `serverless package` left: the template, the state, the packages.
func packaged(p frontend.Project, o frontend.Options, dir string) (*app.App, diag.List) {
	n, l := cfn.ReadDoc(p, path.Join(dir, templateFile))
	if n == nil {
		return nil, l
	}
	var s packageState
	full := filepath.Join(p.Root, filepath.FromSlash(dir), "serverless-state.json")
	data, err := readFile(full)
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		l.Errorf(diag.Pos{File: path.Join(dir, "serverless-state.json")}, "unreadable", "", "what Serverless left cannot be read")
		return nil, l
	}
	name, _ := s.Service.Service.(string)
	if m, ok := s.Service.Service.(map[string]any); ok {
		name, _ = m["name"].(string)
	}
	in := cfn.Input{Name: name, Stage: orDefault(s.Service.Provider.Stage, orDefault(o.Stage, defaultStage)), Region: orDefault(s.Service.Provider.Region, orDefault(o.Region, defaultRegion)),
		Account: o.Account, Source: filepath.Base(p.File), Params: map[string]string{}, Functions: map[string]cfn.FunctionInfo{}}
	in.Stack = in.Name + "-" + in.Stage
	if stack, ok := s.Service.Provider.StackName.(string); ok && stack != "" {
		in.Stack = stack
	}
	for _, e := range mapEntries(n.Get("Parameters")) {
		if v, ok := o.Params[e.Key]; ok {
			in.Params[e.Key] = v
		}
	}
	for key, fn := range s.Service.Functions {
		file := orDefault(fn.Package.Artifact, s.Package.Artifact)
		if file == "" {
			continue
		}
		at := path.Join(dir, path.Base(filepath.ToSlash(file)))
		if _, err := os.Stat(filepath.Join(p.Root, filepath.FromSlash(at))); err != nil {
			if at = filepath.ToSlash(file); !filepath.IsLocal(file) { // an artifact of the project's own
				rel, err := filepath.Rel(p.Root, file)
				if at = filepath.ToSlash(rel); err != nil || !filepath.IsLocal(rel) {
					continue
				}
			}
		}
		in.Functions[lambdaID(key)] = cfn.FunctionInfo{Key: key, Package: app.Package{Artifact: at}}
	}
	a, more := cfn.Load(cfn.Template{Root: localLayers(p, n, dir)}, in)
	l = append(l, more...)
	if a == nil || l.HasErrors() {
		return nil, l
	}
	a.Description = ""
	for i := range a.Resources {
		if r := &a.Resources[i]; r.ID == deploymentBucketID {
			r.Kind = app.Foreign
		}
	}
	return a, l
}

// localLayers gives layers the zip that was made of them.
func localLayers(p frontend.Project, n *cfn.Node, dir string) *cfn.Node {
	all := n.Get("Resources")
	for _, e := range mapEntries(all) {
		key, ok := e.Value.At("Properties", "Content", "S3Key").Text()
		if typ, _ := e.Value.Get("Type").Text(); typ != "AWS::Lambda::LayerVersion" || !ok {
			continue
		}
		file := path.Base(key)
		if _, err := os.Stat(filepath.Join(p.Root, filepath.FromSlash(dir), file)); err == nil {
			content := cfn.Str(e.Value.Place(), file) // relative to the template
			all = all.With(e.Key, e.Value.With("Properties", e.Value.Get("Properties").With("Content", content)))
		}
	}
	return n.With("Resources", all)
}
