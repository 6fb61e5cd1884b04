package cloudformation

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/frontend"
)

// Part is one of several templates that make one App.
type Part struct {
	Name string // of its stack, for logical IDs that two parts have
	Root *Node
}

// Merge makes one template of several: resources keep their logical IDs unless two parts have the same, and an import of what another
// part exports becomes a reference to it.
func Merge(parts []Part) *Node {
	if len(parts) == 1 {
		return parts[0].Root
	}
	m := &merge{out: map[string]*Node{}}
	var pos diag.Pos
	for i, p := range parts {
		if i == 0 {
			pos = p.Root.Place()
		}
		r := m.renames(p.Root, alphanumerics(p.Name))
		for _, en := range mapEntries(p.Root.Get("Outputs")) {
			if name, ok := en.Value.At("Export", "Name").Text(); ok {
				m.exports = append(m.exports, Entry{Key: name, Pos: en.Pos, Value: r.node(en.Value.Get("Value"))})
			}
		}
		m.add(p.Root, r)
	}
	imports := &renames{imports: map[string]*Node{}}
	for _, e := range m.exports {
		imports.imports[e.Key] = e.Value
	}
	root := NewMap(pos)
	for _, section := range mergedSections() {
		if n := m.out[section]; n != nil {
			root.Entries = append(root.Entries, Entry{Key: section, Pos: n.Pos, Value: imports.node(imports.node(n))}) // an export may be an import
		}
	}
	return root
}

func mergedSections() []string {
	return []string{"Description", "Metadata", "Parameters", "Mappings", "Conditions", "Resources", "Outputs"}
}

func alphanumerics(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return -1
	}, s)
}

// merge collects the sections of several templates.
type merge struct {
	out     map[string]*Node
	exports []Entry
}

// renames gives new names to what two templates call the same.
func (m *merge) renames(root *Node, lead string) *renames {
	r := &renames{ids: map[string]string{}, conds: map[string]string{}, maps: map[string]string{}, values: map[string]*Node{}, attrs: map[string]*Node{}}
	for section, names := range map[string]map[string]string{"Parameters": r.ids, "Resources": r.ids, "Conditions": r.conds, "Mappings": r.maps} {
		for _, en := range mapEntries(root.Get(section)) {
			if have := m.out[section].Get(en.Key); have != nil && (section != "Parameters" || fmt.Sprint(have.Plain()) != fmt.Sprint(en.Value.Plain())) {
				names[en.Key] = lead + en.Key
			}
		}
	}
	return r
}

// add appends the sections of a template.
func (m *merge) add(root *Node, r *renames) {
	for _, section := range mergedSections() {
		n := root.Get(section)
		if n.IsNull() {
			continue
		}
		if n.Kind != Map {
			if m.out[section] == nil {
				m.out[section] = n
			}
			continue
		}
		all := m.out[section]
		if all == nil || all.Kind != Map {
			all = NewMap(n.Pos)
		}
		for _, en := range n.Entries {
			name := en.Key
			switch section {
			case "Parameters", "Resources":
				name = renamed(r.ids, name)
			case "Conditions":
				name = renamed(r.conds, name)
			case "Mappings":
				name = renamed(r.maps, name)
			}
			v := r.node(en.Value)
			if section == "Resources" {
				v = r.resource(v)
			}
			if section == "Outputs" && all.Get(name) != nil {
				name = fmt.Sprintf("%s%d", name, len(all.Entries))
			}
			all = &Node{Kind: Map, Pos: all.Pos, Entries: slices.Clone(all.With(name, v).Entries)}
			for i := range all.Entries {
				if all.Entries[i].Key == name {
					all.Entries[i].Pos = en.Pos
				}
			}
		}
		m.out[section] = all
	}
}

func renamed(names map[string]string, name string) string {
	if to := names[name]; to != "" {
		return to
	}
	return name
}

// renames rewrites the references within a template.
type renames struct {
	ids, conds, maps map[string]string
	values           map[string]*Node // what stands for a Ref: a nested template's parameters
	attrs            map[string]*Node // what stands for "ID.Attribute": a nested template's outputs
	imports          map[string]*Node // what stands for an import
}

// resource rewrites what a resource names outside of calls.
func (r *renames) resource(n *Node) *Node {
	if name, ok := n.Get("Condition").Text(); ok {
		n = n.With("Condition", Str(n.Get("Condition").Pos, renamed(r.conds, name)))
	}
	deps := n.Get("DependsOn")
	if deps.IsNull() {
		return n
	}
	list := deps.Items
	if deps.Kind == Scalar {
		list = []*Node{deps}
	}
	out := NewList(deps.Pos)
	for _, it := range list {
		id, _ := it.Text()
		if r.attrs[id] == nil { // a nested template, whose parts stand here
			out.Items = append(out.Items, Str(it.Pos, renamed(r.ids, id)))
		}
	}
	return n.With("DependsOn", out)
}

func (r *renames) node(n *Node) *Node {
	if n == nil {
		return nil
	}
	switch n.Kind {
	case List:
		out := NewList(n.Pos)
		for _, it := range n.Items {
			out.Items = append(out.Items, r.node(it))
		}
		return out
	case Map:
		if len(n.Entries) == 1 {
			if v := r.call(n, n.Entries[0]); v != nil {
				return v
			}
		}
		out := NewMap(n.Pos)
		for _, en := range n.Entries {
			out.Entries = append(out.Entries, Entry{Key: en.Key, Pos: en.Pos, Value: r.node(en.Value)})
		}
		return out
	}
	return n
}

// call rewrites one reference, nil when the Map is none.
func (r *renames) call(n *Node, en Entry) *Node {
	with := func(v *Node) *Node { return NewMap(n.Pos, Entry{Key: en.Key, Pos: en.Pos, Value: v}) }
	name, isText := en.Value.Text()
	switch en.Key {
	case "Ref":
		if v := r.values[name]; v != nil {
			return v
		}
		return with(Str(en.Value.Place(), renamed(r.ids, name)))
	case "Condition":
		if isText {
			return with(Str(en.Value.Pos, renamed(r.conds, name)))
		}
	case "Fn::ImportValue":
		if v := r.imports[name]; isText && v != nil {
			return v
		}
	case "Fn::GetAtt":
		id, attr := attPair(en.Value)
		if v := r.attrs[id+"."+attr]; v != nil {
			return v
		}
		if to := r.ids[id]; to != "" {
			return with(From(en.Value.Pos, []string{to, attr}))
		}
	case "Fn::If", "Fn::FindInMap":
		if en.Value.Kind == List && len(en.Value.Items) > 0 {
			names := r.conds
			if en.Key == "Fn::FindInMap" {
				names = r.maps
			}
			out := r.node(en.Value)
			if s, ok := out.Items[0].Text(); ok {
				out.Items[0] = Str(out.Items[0].Pos, renamed(names, s))
			}
			return with(out)
		}
	case "Fn::Sub":
		return with(r.sub(en.Value))
	}
	return nil
}

// attPair is the argument of Fn::GetAtt.
func attPair(n *Node) (id, attr string) {
	if s, ok := n.Text(); ok {
		id, attr, _ = strings.Cut(s, ".")
		return id, attr
	}
	if n.Kind != List || len(n.Items) < 2 {
		return "", ""
	}
	id, _ = n.Items[0].Text()
	var rest []string
	for _, it := range n.Items[1:] {
		s, _ := it.Text()
		rest = append(rest, s)
	}
	return id, strings.Join(rest, ".")
}

// sub rewrites the variables of Fn::Sub.
func (r *renames) sub(n *Node) *Node {
	text, vars := n, NewMap(n.Place())
	if n.Kind == List && len(n.Items) > 0 {
		text = n.Items[0]
		if len(n.Items) > 1 && n.Items[1].Kind == Map {
			vars = r.node(n.Items[1])
		}
	}
	s, ok := text.Text()
	if !ok {
		return r.node(n)
	}
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, "${")
		b.WriteString(before)
		if !found {
			break
		}
		name, rest, closed := strings.Cut(after, "}")
		if !closed {
			b.WriteString("${" + after)
			break
		}
		s = rest
		id, attr, dotted := strings.Cut(strings.TrimSpace(name), ".")
		stands := r.values[id]
		if dotted {
			stands = r.attrs[id+"."+attr]
		}
		switch {
		case strings.HasPrefix(name, "!") || vars.Get(name) != nil:
		case stands != nil:
			name = fmt.Sprintf("ebb%d", len(vars.Entries))
			vars = vars.With(name, stands)
		default:
			if name = renamed(r.ids, id); dotted {
				name += "." + attr
			}
		}
		b.WriteString("${" + name + "}")
	}
	if len(vars.Entries) == 0 {
		return Str(text.Pos, b.String())
	}
	return NewList(n.Pos, Str(text.Pos, b.String()), vars)
}

// nesting puts nested templates in the place of the resources that name them.
type nesting struct {
	l     *diag.List
	read  func(file string) *Node
	depth int
}

// mostNested is how deep templates may be within each other.
const mostNested = 10

// Nest puts the nested stacks whose templates are files of the project into the template: their resources get the nested stack's logical
// ID in front where the template has theirs already. A nested stack from elsewhere stays, with a warning.
func Nest(p frontend.Project, root *Node, l *diag.List) *Node {
	return NestWith(root, l, func(file string) *Node {
		doc, more := ReadDoc(p, file)
		*l = append(*l, more...)
		return Include(p, doc, l)
	})
}

// NestWith is Nest with a reader of its own: of a file, relative to the project, it gives the template, or nil with the reason said.
func NestWith(root *Node, l *diag.List, read func(file string) *Node) *Node {
	return (&nesting{l: l, read: read}).template(root)
}

// nestedFile is the local template of a nested stack.
func nestedFile(en Entry) (file string, nested bool) {
	if typ, _ := en.Value.Get("Type").Text(); typ != "AWS::CloudFormation::Stack" {
		return "", false
	}
	from := path.Dir(en.Pos.File)
	if meta := en.Value.Get("Metadata"); meta != nil {
		if of, _ := meta.Get("aws:asset:property").Text(); of == "TemplateURL" {
			s, _ := meta.Get("aws:asset:path").Text()
			return path.Join(from, s), s != "" && !path.IsAbs(s)
		}
	}
	s, ok := en.Value.At("Properties", "TemplateURL").Text()
	if !ok || strings.Contains(s, "://") || path.IsAbs(s) || s == "" {
		return "", true
	}
	return path.Join(from, s), true
}

func (n *nesting) template(root *Node) *Node {
	var nested []Entry
	for _, en := range mapEntries(root.Get("Resources")) {
		file, is := nestedFile(en)
		switch {
		case !is:
		case file == "":
			n.l.Warnf(en.Pos, "nested-stack", "Name a template of the project as TemplateURL.", "the nested stack %q is not in the project: what it declares is not here", en.Key)
		default:
			nested = append(nested, en)
		}
	}
	if len(nested) == 0 {
		return root
	}
	if n.depth >= mostNested {
		n.l.Errorf(nested[0].Pos, "cycle", "", "templates are nested more than %d deep, or in themselves", mostNested)
		return root
	}
	m := &merge{out: map[string]*Node{}}
	own := &renames{values: map[string]*Node{}, attrs: map[string]*Node{}}
	bare := root.With("Resources", NewMap(root.Get("Resources").Pos, slices.DeleteFunc(slices.Clone(root.Get("Resources").Entries), func(en Entry) bool {
		return slices.ContainsFunc(nested, func(x Entry) bool { return x.Key == en.Key })
	})...))
	m.add(bare, own)
	for _, en := range nested {
		n.one(m, own, en)
	}
	// References to what nested templates give stand in the parent, and in the parameters of other nested templates.
	out := NewMap(root.Pos)
	for _, en := range root.Entries {
		if !slices.Contains(mergedSections(), en.Key) {
			out.Entries = append(out.Entries, en)
		}
	}
	for _, section := range mergedSections() {
		v := m.out[section]
		if v == nil {
			continue
		}
		for range len(nested) { // an output of one may be a parameter of the next
			v = own.node(v)
		}
		if section == "Resources" {
			all := NewMap(v.Pos)
			for _, en := range v.Entries {
				all.Entries = append(all.Entries, Entry{Key: en.Key, Pos: en.Pos, Value: own.resource(en.Value)})
			}
			v = all
		}
		out.Entries = append(out.Entries, Entry{Key: section, Pos: v.Pos, Value: v})
	}
	return out
}

// one adds a nested template.
func (n *nesting) one(m *merge, own *renames, en Entry) {
	file, _ := nestedFile(en)
	doc := n.read(file)
	if doc == nil || doc.Kind != Map {
		return
	}
	n.depth++
	doc = n.template(doc)
	n.depth--
	params := doc.Get("Parameters")
	doc = doc.With("Parameters", NewMap(doc.Pos))
	r := m.renames(doc, en.Key)
	given := en.Value.At("Properties", "Parameters")
	for _, p := range mapEntries(params) {
		v := given.Get(p.Key)
		if v == nil {
			v = p.Value.Get("Default")
		}
		if v == nil {
			n.l.Errorf(en.Pos, "missing-parameter", "Add it to Parameters.", "the nested stack %q gives no value for the parameter %q", en.Key, p.Key)
			v = Str(en.Pos, "")
		}
		r.values[p.Key] = v
	}
	maps.Copy(r.values, map[string]*Node{"AWS::StackName": Str(en.Pos, en.Key)})
	for _, o := range mapEntries(doc.Get("Outputs")) {
		own.attrs[en.Key+".Outputs."+o.Key] = r.node(o.Value.Get("Value"))
	}
	own.attrs[en.Key] = Str(en.Pos, "")
	rest := NewMap(doc.Pos)
	for _, e := range doc.Entries {
		if e.Key == "Outputs" || e.Key == "Description" || e.Key == "Metadata" {
			continue
		}
		rest.Entries = append(rest.Entries, e)
	}
	m.add(rest, r)
	if cond, ok := en.Value.Get("Condition").Text(); ok {
		for _, res := range mapEntries(doc.Get("Resources")) {
			m.guard(renamed(r.ids, res.Key), cond)
		}
	}
}

// guard puts a resource under one more condition.
func (m *merge) guard(id, cond string) {
	res := m.out["Resources"].Get(id)
	if own, ok := res.Get("Condition").Text(); ok {
		both := cond + "And" + own
		and := NewList(res.Pos)
		for _, c := range []string{cond, own} {
			and.Items = append(and.Items, NewMap(res.Pos, Entry{Key: "Condition", Pos: res.Pos, Value: Str(res.Pos, c)}))
		}
		m.out["Conditions"] = m.out["Conditions"].With(both, NewMap(res.Pos, Entry{Key: "Fn::And", Pos: res.Pos, Value: and}))
		cond = both
	}
	m.out["Resources"] = m.out["Resources"].With(id, res.With("Condition", Str(res.Pos, cond)))
}
