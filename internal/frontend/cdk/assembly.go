package cdk

import (
	"encoding/json"
	"path"
	"path/filepath"
	"slices"
	"strings"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"

	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/frontend"
)

// assembly is a cloud assembly: manifest, templates and assets, with those of its stages below it.
type assembly struct {
	p      frontend.Project
	l      *diag.List
	root   string // folder, relative to the project
	stacks []stack
}

// stack is one stack of an assembly.
type stack struct {
	id, name string
	stage    string // the CDK's stage it is in; empty at the top
	file     string // its template, relative to the project
	params   map[string]string
	said     diag.List // by the program, of the stack
}

// manifest is what is read of manifest.json.
// https://github.com/aws/aws-cdk-cli/tree/main/packages/%40aws-cdk/cloud-assembly-schema
type manifest struct {
	Artifacts map[string]struct {
		Type        string
		DisplayName string
		Properties  struct {
			TemplateFile  string
			StackName     string
			DirectoryName string
			Parameters    map[string]string
		}
		Metadata map[string][]struct {
			Type string
			Data any
		}
	}
	Missing []struct{ Key, Provider string }
}

// read collects the stacks of an assembly and of the stages in it.
func (s *assembly) read(dir, stage string) {
	pos := diag.Pos{File: path.Join(dir, "manifest.json")}
	full := filepath.Join(s.p.Root, filepath.FromSlash(pos.File))
	data, err := readManifest(full)
	if err == nil {
		err = s.p.MayRead(full)
	}
	var m manifest
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err != nil {
		s.l.Errorf(pos, "not-an-assembly", "The app of cdk.json has to make a cloud assembly: does it end with app.synth()?", "the CDK app left no cloud assembly that can be read")
		return
	}
	for _, missing := range m.Missing {
		s.l.Warnf(pos, "lookup", "Run `cdk synth` once where it can ask the cloud: it keeps what it learns in cdk.context.json.",
			"the CDK app looks something up in the cloud, and has a made-up value instead: %s", missing.Key)
	}
	var ids []string
	for id := range m.Artifacts {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		a := m.Artifacts[id]
		var said diag.List
		for at, list := range a.Metadata {
			for _, meta := range list {
				text, ok := meta.Data.(string)
				switch {
				case ok && meta.Type == "aws:cdk:warning":
					said.Warnf(diag.Pos{File: configFile}, "cdk-warning", "", "%s: %s", strings.TrimPrefix(at, "/"), text)
				case ok && meta.Type == "aws:cdk:error":
					said.Errorf(diag.Pos{File: configFile}, "cdk-error", "", "%s: %s", strings.TrimPrefix(at, "/"), text)
				}
			}
		}
		switch a.Type {
		case "aws:cloudformation:stack":
			name := a.Properties.StackName
			if name == "" {
				name = id
			}
			s.stacks = append(s.stacks, stack{id: id, name: name, stage: stage, file: path.Join(dir, a.Properties.TemplateFile), params: a.Properties.Parameters, said: said})
		case "cdk:cloud-assembly":
			if sub := a.Properties.DirectoryName; sub != "" && filepath.IsLocal(sub) && strings.Count(dir, "/") < 20 {
				name := or(a.DisplayName, strings.TrimPrefix(id, "assembly-"))
				s.read(path.Join(dir, sub), name)
			}
		}
	}
}

// choose gives the stacks to read: those of the stage, or the one of the name, that the user gives; else all at the top, or those of the
// only stage.
func (s *assembly) choose(wanted string) []stack {
	pos := diag.Pos{File: configFile}
	pick := func(is func(stack) bool) []stack {
		var out []stack
		for _, st := range s.stacks {
			if is(st) {
				out = append(out, st)
			}
		}
		return out
	}
	if wanted != "" {
		for _, is := range []func(stack) bool{
			func(st stack) bool { return strings.EqualFold(st.stage, wanted) },
			func(st stack) bool { return st.id == wanted || st.name == wanted },
			func(st stack) bool {
				return strings.HasPrefix(strings.ToLower(st.name), strings.ToLower(wanted)+"-") || strings.HasSuffix(strings.ToLower(st.name), "-"+strings.ToLower(wanted))
			},
		} {
			if out := pick(is); len(out) > 0 {
				return out
			}
		}
	}
	out := pick(func(st stack) bool { return st.stage == "" })
	var names []string
	for _, st := range s.stacks {
		if !slices.Contains(names, st.stage) && st.stage != "" {
			names = append(names, st.stage)
		}
	}
	switch {
	case len(s.stacks) == 0:
		if !s.l.HasErrors() {
			s.l.Errorf(pos, "no-stack", "", "the CDK app declares no stack")
		}
	case len(out) == 0 && len(names) == 1:
		return s.stacks
	case len(out) == 0:
		s.l.Errorf(pos, "several-stages", "Choose one with --stage "+names[0]+".", "the CDK app has several stages: %s", strings.Join(names, ", "))
	case len(out) > 1:
		var all []string
		for _, st := range out {
			all = append(all, st.name)
		}
		s.l.Notef(pos, "several-stacks", "Choose one with --stage "+all[0]+".", "the stacks %s are read as one app", strings.Join(all, ", "))
	}
	return out
}

// notifier begins the logical IDs of the function that sets up notifications of buckets in the cloud, and of its role.
const notifier = "BucketNotificationsHandler050a0587b7544547bf325f094a3db834"

// template reads a stack's template, without what the CDK adds for its own deploys.
func (s *assembly) template(st stack) *cfn.Node {
	*s.l = append(*s.l, st.said...)
	if !filepath.IsLocal(filepath.FromSlash(st.file)) {
		s.l.Errorf(diag.Pos{File: configFile}, "outside", "", "the template of the stack %s is outside of the project", st.name)
		return nil
	}
	n, more := cfn.ReadDoc(s.p, st.file)
	*s.l = append(*s.l, more...)
	if n == nil || n.Kind != cfn.Map {
		return nil
	}
	n = cfn.Nest(s.p, n, s.l)
	out := cfn.NewMap(n.Pos)
	for _, e := range n.Entries {
		switch e.Key {
		case "Rules", "Transform":
			continue
		case "Parameters":
			e.Value = filter(e.Value, func(p cfn.Entry) bool { return p.Key != "BootstrapVersion" })
		case "Conditions":
			e.Value = filter(e.Value, func(p cfn.Entry) bool { return p.Key != "CDKMetadataAvailable" })
		case "Resources":
			e.Value = resources(e.Value)
		}
		out.Entries = append(out.Entries, e)
	}
	return out
}

// resources leaves out what only the CDK's own deploys need. Notifications of buckets are read themselves, without their helper.
func resources(n *cfn.Node) *cfn.Node {
	out := filter(n, func(e cfn.Entry) bool {
		typ, _ := e.Value.Get("Type").Text()
		roles := e.Value.At("Properties", "Roles")
		helps := typ == "AWS::IAM::Policy" && roles != nil && len(roles.Items) == 1 && isNotifier(roles.Items[0].Get("Ref"))
		return typ != "AWS::CDK::Metadata" && !strings.HasPrefix(e.Key, notifier) && !helps
	})
	for i, r := range out.Entries {
		if typ, _ := r.Value.Get("Type").Text(); typ == "Custom::S3BucketNotifications" {
			props := filter(r.Value.Get("Properties"), func(p cfn.Entry) bool { return p.Key != "ServiceToken" })
			out.Entries[i].Value = filter(r.Value, func(k cfn.Entry) bool { return k.Key != "DependsOn" }).With("Properties", props)
		}
	}
	return out
}

func isNotifier(n *cfn.Node) bool {
	id, _ := n.Text()
	return strings.HasPrefix(id, notifier)
}

func filter(n *cfn.Node, keep func(cfn.Entry) bool) *cfn.Node {
	out := cfn.NewMap(n.Place())
	if n == nil {
		return out
	}
	for _, e := range n.Entries {
		if keep(e) {
			out.Entries = append(out.Entries, e)
		}
	}
	return out
}

// keys gives functions the names they have in the program: "Web/Hello/Resource" is Hello. Where two would have the same, and where the
// template does not say, they keep their logical IDs.
func keys(root *cfn.Node) map[string]cfn.FunctionInfo {
	ids, taken := map[string]string{}, map[string]int{}
	for _, e := range root.Get("Resources").Entries {
		at, ok := e.Value.At("Metadata", "aws:cdk:path").Text()
		if typ, _ := e.Value.Get("Type").Text(); typ != "AWS::Lambda::Function" || !ok {
			continue
		}
		parts := strings.Split(at, "/")
		if len(parts) < 3 || parts[len(parts)-1] != "Resource" {
			continue
		}
		name := parts[len(parts)-2]
		ids[e.Key] = name
		taken[name]++
	}
	info := map[string]cfn.FunctionInfo{}
	for id, name := range ids {
		if taken[name] == 1 && root.At("Resources", name) == nil {
			info[id] = cfn.FunctionInfo{Key: name}
		}
	}
	return info
}
