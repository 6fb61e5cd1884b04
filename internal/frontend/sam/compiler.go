package sam

import (
	"crypto/sha1" // as SAM does: a name, not a secret
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"

	"github.com/ebb-run/ebb/internal/diag"
)

const prefix = "AWS::Serverless::"

// compiler turns a SAM template into one of CloudFormation. Each part adds its resources and reports what is wrong without
// stopping.
type compiler struct {
	l       *diag.List
	root    *cfn.Node
	include func(from diag.Pos, path string) *cfn.Node // a document of the project that the template names; nil with its error said
	params  map[string]string                          // values of the Parameters that are known
	globals map[string]*cfn.Node                       // by kind: "Function"

	decls   []*resource
	byID    map[string]*resource
	apis    map[string]*api
	order   []string // of apis
	res     []cfn.Entry
	conds   []cfn.Entry
	renamed map[string]string // "Fn.Alias" → logical ID
	shared  []*cfn.Node       // stages of the usage plan that all share
	plan    *resource         // the API that declares it

	info map[string]cfn.FunctionInfo
}

// resource is one declared resource.
type resource struct {
	id    string
	kind  string // "Function" of AWS::Serverless::Function; empty for a plain one
	pos   diag.Pos
	decl  *cfn.Node
	props *cfn.Node // with the Globals
	cond  string    // name of its Condition
}

// compile makes the template.
func (c *compiler) compile() cfn.Template {
	c.byID, c.apis, c.renamed, c.info = map[string]*resource{}, map[string]*api{}, map[string]string{}, map[string]cfn.FunctionInfo{}
	c.readGlobals()
	c.declare()
	c.findAPIs()
	for _, r := range c.decls {
		c.resource(r)
	}
	for _, id := range c.order {
		c.apis[id].build()
	}
	c.usagePlan()
	root := cfn.NewMap(c.root.Pos)
	for _, e := range c.root.Entries {
		switch e.Key {
		case "Transform":
			if rest := c.otherTransforms(e.Value); rest != nil {
				root.Entries = append(root.Entries, cfn.Entry{Key: e.Key, Pos: e.Pos, Value: rest})
			}
		case "Globals":
		case "Conditions":
			root.Entries = append(root.Entries, cfn.Entry{Key: e.Key, Pos: e.Pos, Value: merged(e.Value, cfn.NewMap(e.Pos, c.conds...))})
			c.conds = nil
		case "Resources":
			root.Entries = append(root.Entries, cfn.Entry{Key: e.Key, Pos: e.Pos, Value: cfn.NewMap(e.Pos, c.res...)})
		default:
			root.Entries = append(root.Entries, e)
		}
	}
	if len(c.conds) > 0 {
		root = root.With("Conditions", cfn.NewMap(c.root.Pos, c.conds...))
	}
	return cfn.Template{Root: c.rewrite(root)}
}

// otherTransforms is the Transform section without SAM's own.
func (c *compiler) otherTransforms(n *cfn.Node) *cfn.Node {
	var rest []*cfn.Node
	for _, t := range items(n) {
		if !strings.HasPrefix(text(t), "AWS::Serverless") {
			rest = append(rest, t)
		}
	}
	if rest == nil {
		return nil
	}
	return cfn.NewList(n.Pos, rest...)
}

// declare collects the resources.
func (c *compiler) declare() {
	for _, e := range entries(c.root.Get("Resources")) {
		typ := text(e.Value.Get("Type"))
		r := &resource{id: e.Key, pos: e.Pos, decl: e.Value, props: e.Value.Get("Properties"), cond: text(e.Value.Get("Condition"))}
		if kind, ok := strings.CutPrefix(typ, prefix); ok {
			r.kind = kind
			if r.props.IsNull() || r.props.Kind != cfn.Map {
				if !r.props.IsNull() {
					c.l.Errorf(r.props.Pos, "bad-value", "", "the Properties of %q must be a map", e.Key)
				}
				r.props = cfn.NewMap(e.Pos)
			}
			c.checkKeys(typ, r.props)
			r.props = c.withGlobals(r)
		}
		c.decls = append(c.decls, r)
		c.byID[e.Key] = r
	}
}

// resource compiles one declared resource. APIs come last, when all their routes are known.
func (c *compiler) resource(r *resource) {
	switch r.kind {
	case "":
		c.res = append(c.res, cfn.Entry{Key: r.id, Pos: r.pos, Value: r.decl})
	case "Function":
		c.function(r)
	case "Api", "HttpApi":
	case "SimpleTable":
		c.simpleTable(r)
	case "LayerVersion":
		c.layer(r)
	case "StateMachine":
		c.stateMachine(r)
	case "Application":
		c.application(r)
	case "Connector":
		c.l.Warnf(r.pos, "connector", "Give the function's role what it needs with Policies.", "the connector %q gives no permissions here", r.id)
		c.foreign(r)
	case "GraphQLApi", "WebSocketApi", "CapacityProvider":
		c.l.Warnf(r.pos, "unsupported", "", "%s%s %q is declared, and nothing here runs it", prefix, r.kind, r.id)
		c.foreign(r)
	default:
		kinds := strings.Fields("Function Api HttpApi SimpleTable LayerVersion StateMachine Application Connector GraphQLApi WebSocketApi CapacityProvider")
		c.l.Errorf(r.decl.Get("Type").Place(), "unknown-type", near(r.kind, kinds, prefix), "SAM has no resource %s%s", prefix, r.kind)
	}
}

// foreign keeps a resource that is not compiled as it is.
func (c *compiler) foreign(r *resource) {
	c.put(r, r.id, prefix+r.kind, r.props)
}

func near(name string, names []string, lead string) string {
	if n := diag.Nearest(name, names); n != "" {
		return fmt.Sprintf("Did you mean %s?", lead+n)
	}
	return ""
}

// put adds a resource that owner makes. It has the owner's condition and policies.
func (c *compiler) put(owner *resource, id, typ string, props *cfn.Node, more ...any) {
	n := obj(owner.pos, "Type", typ, "Properties", props)
	for _, key := range []string{"Condition", "DeletionPolicy", "UpdateReplacePolicy"} {
		if v := owner.decl.Get(key); !v.IsNull() {
			n = n.With(key, v)
		}
	}
	if id == owner.id {
		for _, key := range []string{"DependsOn", "Metadata"} {
			if v := owner.decl.Get(key); !v.IsNull() {
				n = n.With(key, v)
			}
		}
	}
	for i := 0; i+1 < len(more); i += 2 {
		if v := obj(owner.pos, more[i], more[i+1]); len(v.Entries) > 0 {
			n = n.With(v.Entries[0].Key, v.Entries[0].Value)
		}
	}
	for i := range c.res {
		if c.res[i].Key == id {
			c.res[i].Value = n
			return
		}
	}
	c.res = append(c.res, cfn.Entry{Key: id, Pos: owner.pos, Value: n})
}

// change replaces a resource's declaration, be it compiled already or not.
func (c *compiler) change(id string, with func(*cfn.Node) *cfn.Node) bool {
	r := c.byID[id]
	if r == nil || r.kind != "" {
		return false
	}
	r.decl = with(r.decl)
	for i := range c.res {
		if c.res[i].Key == id {
			c.res[i].Value = r.decl
		}
	}
	return true
}

// known is a text that the template itself gives: written out, or by a parameter with a value.
func (c *compiler) known(n *cfn.Node) (string, bool) {
	if s, ok := n.Text(); ok {
		return s, true
	}
	if s, ok := n.Get("Ref").Text(); ok {
		v, ok := c.params[s]
		return v, ok
	}
	return "", false
}

// hashed is SAM's way to put any text into a logical ID.
func hashed(lead, data string) string {
	sum := sha1.Sum([]byte(data))
	return lead + hex.EncodeToString(sum[:])[:10]
}

func alphanumeric(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
	})
}

// anyOf is the name of a condition that holds when one of names does; empty when there is none of them.
func (c *compiler) anyOf(id string, names []string) string {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	pos := c.root.Pos
	var list []*cfn.Node
	for _, n := range names {
		list = append(list, obj(pos, "Condition", n))
	}
	for len(list) > 10 { // as many as Fn::Or takes
		list = append(list[10:], obj(pos, "Fn::Or", list[:10:10]))
	}
	c.conds = append(c.conds, cfn.Entry{Key: id, Pos: pos, Value: obj(pos, "Fn::Or", list)})
	return id
}

// rewrite gives references to what SAM makes of a resource ("Fn.Alias") the logical ID of that.
func (c *compiler) rewrite(n *cfn.Node) *cfn.Node {
	if n == nil || len(c.renamed) == 0 {
		return n
	}
	switch n.Kind {
	case cfn.List:
		out := cfn.NewList(n.Pos)
		for _, it := range n.Items {
			out.Items = append(out.Items, c.rewrite(it))
		}
		return out
	case cfn.Map:
		if len(n.Entries) == 1 {
			if v := c.rewriteCall(n.Entries[0]); v != nil {
				return cfn.NewMap(n.Pos, cfn.Entry{Key: n.Entries[0].Key, Pos: n.Entries[0].Pos, Value: v})
			}
		}
		out := cfn.NewMap(n.Pos)
		for _, e := range n.Entries {
			out.Entries = append(out.Entries, cfn.Entry{Key: e.Key, Pos: e.Pos, Value: c.rewrite(e.Value)})
		}
		return out
	}
	return n
}

// rewriteCall is the new argument of an intrinsic, or nil.
func (c *compiler) rewriteCall(e cfn.Entry) *cfn.Node {
	switch e.Key {
	case "Ref":
		if id := c.renamed[text(e.Value)]; id != "" {
			return cfn.Str(e.Value.Pos, id)
		}
	case "Fn::GetAtt":
		parts := strings.Split(text(e.Value), ".")
		if e.Value.Kind == cfn.List {
			parts = nil
			for _, it := range e.Value.Items {
				parts = append(parts, strings.Split(text(it), ".")...)
			}
		}
		if len(parts) > 2 {
			if id := c.renamed[parts[0]+"."+parts[1]]; id != "" {
				return cfn.From(e.Value.Pos, append([]string{id}, strings.Join(parts[2:], ".")))
			}
		}
	case "Fn::Sub":
		s, ok := e.Value.Text()
		list := e.Value.Kind == cfn.List && len(e.Value.Items) > 0
		if list {
			s, ok = e.Value.Items[0].Text()
		}
		if !ok {
			return nil
		}
		for from, to := range c.renamed {
			s = strings.ReplaceAll(strings.ReplaceAll(s, "${"+from+"}", "${"+to+"}"), "${"+from+".", "${"+to+".")
		}
		if !list {
			return cfn.Str(e.Value.Pos, s)
		}
		out := cfn.NewList(e.Value.Pos, cfn.Str(e.Value.Items[0].Pos, s))
		for _, it := range e.Value.Items[1:] {
			out.Items = append(out.Items, c.rewrite(it))
		}
		return out
	}
	return nil
}
