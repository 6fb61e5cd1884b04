package cloudformation

import (
	"slices"
	"strconv"
	"strings"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/diag"
)

// resource is one declared resource whose condition holds.
type resource struct {
	id, typ string
	pos     diag.Pos // of the logical ID
	decl    *Node    // as declared
	props   *Node    // Properties, evaluated
	modeled bool     // its whole meaning is elsewhere in the App
}

// loader builds the App from the evaluated resources.
type loader struct {
	evaluator
	app       *app.App
	resources []*resource
	byID      map[string]*resource
	runs      map[string]string // logical ID of a function, version or alias → key of the Function
	routePos  map[string]diag.Pos
	rest      map[string]*restAPI
}

// Load evaluates the template and gives the App that it declares. The App is nil when there is an error.
func Load(t Template, in Input) (*app.App, diag.List) {
	l := &loader{
		evaluator: evaluator{in: in, root: t.Root, conds: map[string]condState{}, decls: map[string]Entry{}, off: map[string]bool{}, deps: map[string][]dep{}},
		app:       &app.App{Name: in.Name, Stage: in.Stage, Region: in.Region, Source: in.Source},
		byID:      map[string]*resource{}, runs: map[string]string{}, routePos: map[string]diag.Pos{}, rest: map[string]*restAPI{},
	}
	if t.Root == nil || t.Root.Kind != Map {
		l.diags.Errorf(t.Root.Place(), "not-a-template", "", "a template must be a map with Resources")
		return nil, l.diags
	}
	l.app.Description, _ = t.Root.Get("Description").Text()
	l.sections()
	l.evalParams()
	for _, en := range mapEntries(t.Root.Get("Conditions")) {
		l.condition(en.Pos, en.Key)
	}
	l.declare()
	l.evalResources()
	l.cycles()
	l.model()
	l.outputs()
	l.app.Triggers = append(l.app.Triggers, in.Declared...)
	l.permissions()
	l.keepRest()
	l.layerFiles()
	l.validate()
	if l.diags.HasErrors() {
		return nil, l.diags.Sorted()
	}
	return l.app, l.diags.Sorted()
}

// sections checks the top of the template.
func (l *loader) sections() {
	known := strings.Fields("AWSTemplateFormatVersion Description Metadata Parameters Rules Mappings Conditions Transform Hooks Resources Outputs Globals")
	for _, en := range l.root.Entries {
		if !slices.Contains(known, en.Key) {
			l.diags.Warnf(en.Pos, "unknown-key", nearHint(en.Key, known), "a template has no section %q", en.Key)
		}
	}
	transforms := l.root.Get("Transform")
	if transforms != nil && transforms.Kind != List {
		transforms = NewList(transforms.Pos, transforms)
	}
	if transforms == nil {
		return
	}
	for _, t := range transforms.Items {
		name, _ := t.Text()
		if t.Kind == Map {
			name, _ = t.Get("Name").Text()
		}
		switch {
		case strings.HasPrefix(name, "AWS::Serverless"):
			l.diags.Errorf(t.Pos, "unsupported", "", "a SAM template is none of CloudFormation")
		case strings.HasPrefix(name, "AWS::LanguageExtensions"):
		default:
			l.diags.Warnf(t.Pos, "transform", "", "the transform %q runs only in the cloud and is ignored", name)
		}
	}
}

// maxResources is ten times what CloudFormation takes in one template.
const maxResources = 5000

const samHint = "Add `Transform: AWS::Serverless-2016-10-31` at the top of the template."

// samTypes are those resources of SAM that a template has in another form once it is compiled.
func samTypes() []string {
	return strings.Fields("AWS::Serverless::Function AWS::Serverless::Api AWS::Serverless::HttpApi AWS::Serverless::SimpleTable AWS::Serverless::LayerVersion AWS::Serverless::StateMachine")
}

func resourceKeys() []string {
	return strings.Fields("Type Properties DependsOn Condition DeletionPolicy UpdateReplacePolicy Metadata CreationPolicy UpdatePolicy")
}

// declare collects the resources, so that references between them can be checked.
func (l *loader) declare() {
	all := l.root.Get("Resources")
	if all.IsNull() || all.Kind != Map {
		l.diags.Errorf(l.root.Pos, "not-a-template", "", "the template has no Resources")
		return
	}
	if len(all.Entries) > maxResources {
		l.diags.Errorf(all.Pos, "too-large", "Split the template.", "the template has more than %d resources", maxResources)
		return
	}
	for _, en := range all.Entries {
		if strings.HasPrefix(en.Key, "Fn::") {
			l.misplaced(en)
			continue
		}
		if en.Value.Kind != Map {
			l.diags.Errorf(en.Pos, "bad-value", "", "the resource %q must be a map with a Type", en.Key)
			continue
		}
		l.decls[en.Key] = en
		if c := en.Value.Get("Condition"); c != nil {
			name, ok := c.Text()
			if !ok || !l.condition(c.Pos, name) {
				l.off[en.Key] = true
			}
		}
	}
}

// evalResources evaluates the properties of what remains.
func (l *loader) evalResources() {
	for _, en := range mapEntries(l.root.Get("Resources")) {
		if _, ok := l.decls[en.Key]; !ok || l.off[en.Key] {
			continue
		}
		typ, ok := en.Value.Get("Type").Text()
		if !ok || typ == "" {
			l.diags.Errorf(en.Pos, "missing-key", "", "the resource %q has no Type", en.Key)
			continue
		}
		if slices.Contains(samTypes(), typ) {
			l.diags.Errorf(en.Value.Get("Type").Pos, "unsupported", samHint, "%s is a SAM resource, and the template is none of SAM", typ)
			continue
		}
		for _, k := range en.Value.Entries {
			if !slices.Contains(resourceKeys(), k.Key) {
				l.diags.Warnf(k.Pos, "unknown-key", nearHint(k.Key, resourceKeys()), "a resource has no key %q", k.Key)
			}
		}
		if !strings.HasPrefix(typ, "AWS::Serverless::") { // of which the transform makes several resources, that may need others in between
			l.at = en.Key
		}
		props := l.eval(en.Value.Get("Properties"))
		if props.IsNull() {
			props = NewMap(en.Pos)
		}
		if props.Kind != Map {
			l.diags.Errorf(props.Pos, "bad-value", "", "the Properties of %q must be a map", en.Key)
			props = NewMap(en.Pos)
		}
		l.dependsOn(en.Value.Get("DependsOn"))
		l.at = ""
		r := &resource{id: en.Key, typ: typ, pos: en.Pos, decl: en.Value, props: props}
		l.checkKeys(typ, props)
		l.resources = append(l.resources, r)
		l.byID[en.Key] = r
	}
}

func (l *loader) dependsOn(n *Node) {
	if n == nil {
		return
	}
	list := n.Items
	if n.Kind == Scalar {
		list = []*Node{n}
	}
	for _, it := range list {
		if id, ok := it.Text(); ok && !l.off[id] {
			l.reaches(it.Pos, id, "DependsOn")
		}
	}
}

// cycles reports resources that need each other.
func (l *loader) cycles() {
	const busy, done = 1, 2
	state := map[string]int{}
	var path []string
	var visit func(id string)
	visit = func(id string) {
		state[id] = busy
		path = append(path, id)
		for _, d := range l.deps[id] {
			switch state[d.to] {
			case 0:
				visit(d.to)
			case busy:
				round := append(slices.Clone(path[slices.Index(path, d.to):]), d.to)
				l.diags.Errorf(d.pos, "cycle", "Break the circle at one of these references.", "resources need each other: %s", strings.Join(round, " → "))
			}
		}
		path = path[:len(path)-1]
		state[id] = done
	}
	for _, r := range l.resources {
		if state[r.id] == 0 {
			visit(r.id)
		}
	}
}

func (l *loader) outputs() {
	for _, en := range mapEntries(l.root.Get("Outputs")) {
		if c := en.Value.Get("Condition"); c != nil {
			if name, ok := c.Text(); !ok || !l.condition(c.Pos, name) {
				continue
			}
		}
		n := l.eval(en.Value.Get("Value"))
		if isFaulty(n) {
			continue
		}
		v, ok := asText(n)
		if !ok && n != nil && n.Kind == List && !slices.ContainsFunc(n.Items, func(it *Node) bool { return it.Kind != Scalar }) {
			v, ok = l.joined(n, ","), true
		}
		if !ok && isPending(n) {
			if sep, w, is := pendingSplit(n); is {
				v, ok = app.Replace(w, sep, ","), true
			}
		}
		if !ok {
			l.diags.Errorf(en.Value.Place(), "bad-value", "", "the output %q has no Value that is one text", en.Key)
			continue
		}
		if l.app.Outputs == nil {
			l.app.Outputs = map[string]app.Value{}
		}
		l.app.Outputs[en.Key] = v
		if export := en.Value.Get("Export"); export != nil {
			l.export(en.Key, export)
		}
	}
}

// export records the name under which other Stacks import an output.
func (l *loader) export(output string, export *Node) {
	name := l.object(l.eval(export)).str("Name")
	switch other := l.app.Exports[name]; {
	case name == "":
		return
	case other != "":
		l.diags.Errorf(export.Pos, "duplicate-export", "Rename one of the two.", "the outputs %q and %q are both exported as %q", other, output, name)
		return
	}
	if l.app.Exports == nil {
		l.app.Exports = map[string]string{}
	}
	l.app.Exports[name] = output
}

// validate asks the model itself and places what it finds.
func (l *loader) validate() {
	for _, msg := range l.app.Validate() {
		l.diags.Errorf(l.blame(msg), "invalid-app", "", "%s", msg)
	}
}

// blame finds the place of the thing that a message of App.Validate names.
func (l *loader) blame(msg string) diag.Pos {
	if rest, ok := strings.CutPrefix(msg, "route "); ok {
		best := ""
		for key := range l.routePos {
			if (strings.HasPrefix(rest, key+":") || strings.HasPrefix(rest, key+" ")) && len(key) > len(best) {
				best = key
			}
		}
		if best != "" {
			return l.routePos[best]
		}
	}
	// The last quoted names in a message are the most telling: `functions "a" and "b" share the name "b"`.
	var names []string
	for rest := msg; ; {
		i := strings.IndexByte(rest, '"')
		if i < 0 {
			break
		}
		q, err := strconv.QuotedPrefix(rest[i:])
		if err != nil {
			break
		}
		s, _ := strconv.Unquote(q)
		names = append(names, s)
		rest = rest[i+len(q):]
	}
	for _, name := range slices.Backward(names) {
		for _, f := range slices.Backward(l.app.Functions) {
			if r := l.byID[f.ID]; r != nil && (f.Key == name || f.Name == name) {
				return r.pos
			}
		}
		if r := l.byID[name]; r != nil {
			return r.pos
		}
	}
	return diag.Pos{File: l.root.Pos.File}
}
