package serverless

import (
	"fmt"
	"slices"
	"strings"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/diag"
)

// compiler turns a resolved document into a template. Each part adds its resources in the order
// Serverless does, and reports what is wrong without stopping.
type compiler struct {
	l        *diag.List
	doc      *cfn.Node
	provider *cfn.Node
	service  string
	stage    string
	region   string

	fns     []*function
	res     []cfn.Entry // of Resources
	outs    []cfn.Entry // of Outputs
	info    map[string]cfn.FunctionInfo
	decl    []app.Trigger
	plugins map[string]bool

	layerRules map[string][]string // patterns of layers' folders, by logical ID

	statements []*cfn.Node         // of the common role
	assumers   []string            // services beside Lambda that assume the common role
	roleless   bool                // no function uses the common role
	origins    map[string][]string // of each REST path with CORS: a template's header has room for one only
}

// function is one entry of `functions:`.
type function struct {
	key    string
	pos    diag.Pos // of the key
	n      *cfn.Node
	name   string // the name the cloud gives
	id     string // logical ID
	alias  string // logical ID of the alias that events go to, or empty
	aliasN string // its name
	events []event
}

// event is one entry of a function's `events:`.
type event struct {
	kind string
	pos  diag.Pos
	v    *cfn.Node
}

// obj builds a Map from keys and values in turn. What is nil or null is left out.
func obj(pos diag.Pos, kv ...any) *cfn.Node {
	n := cfn.NewMap(pos)
	for i := 0; i+1 < len(kv); i += 2 {
		if kv[i+1] == nil {
			continue
		}
		v, isNode := kv[i+1].(*cfn.Node)
		if isNode && v.IsNull() {
			continue
		}
		if !isNode {
			if list, ok := kv[i+1].([]*cfn.Node); ok {
				if list == nil {
					continue
				}
				v = cfn.NewList(pos, list...)
			} else {
				v = cfn.From(pos, kv[i+1])
			}
		}
		n.Entries = append(n.Entries, cfn.Entry{Key: kv[i].(string), Pos: pos, Value: v})
	}
	return n
}

func ref(pos diag.Pos, id string) *cfn.Node { return obj(pos, "Ref", id) }

func getAtt(pos diag.Pos, id, attr string) *cfn.Node {
	return obj(pos, "Fn::GetAtt", []string{id, attr})
}

// join builds Fn::Join with the separator; parts are strings or Nodes.
func join(pos diag.Pos, sep string, parts ...any) *cfn.Node {
	return obj(pos, "Fn::Join", []any{sep, cfn.From(pos, parts)})
}

// put adds a resource; one already there with the same ID is replaced in its place.
func (c *compiler) put(id string, pos diag.Pos, typ string, props *cfn.Node, more ...any) {
	body := append([]any{"Type", typ, "Properties", props}, more...)
	e := cfn.Entry{Key: id, Pos: pos, Value: obj(pos, body...)}
	for i := range c.res {
		if c.res[i].Key == id {
			c.res[i] = e
			return
		}
	}
	c.res = append(c.res, e)
}

func (c *compiler) has(id string) bool {
	return slices.ContainsFunc(c.res, func(e cfn.Entry) bool { return e.Key == id })
}

func (c *compiler) output(name string, pos diag.Pos, description string, value *cfn.Node) {
	o := obj(pos, "Description", nonEmpty(description), "Value", value,
		"Export", obj(pos, "Name", fmt.Sprintf("sls-%s-%s-%s", c.service, c.stage, name)))
	c.outs = append(c.outs, cfn.Entry{Key: name, Pos: pos, Value: o})
}

func nonEmpty(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// target is what events of fn invoke: its alias when it has one.
func (c *compiler) target(fn *function, pos diag.Pos) *cfn.Node {
	arn := getAtt(pos, fn.id, "Arn")
	if fn.alias != "" {
		return join(pos, ":", arn, fn.aliasN)
	}
	return arn
}

// permit adds the permission for a service to invoke fn.
func (c *compiler) permit(id string, fn *function, pos diag.Pos, principal any, more ...any) {
	props := obj(pos, append([]any{
		"FunctionName", c.target(fn, pos),
		"Action", "lambda:InvokeFunction",
		"Principal", principal,
	}, more...)...)
	c.put(id, pos, "AWS::Lambda::Permission", props, "DependsOn", nonEmpty(fn.alias))
}

// allow adds a statement to the common role.
func (c *compiler) allow(pos diag.Pos, actions []string, resources ...*cfn.Node) {
	s := obj(pos, "Effect", "Allow", "Action", actions, "Resource", resources)
	for _, have := range c.statements {
		if sameNode(have, s) {
			return
		}
	}
	c.statements = append(c.statements, s)
}

func sameNode(a, b *cfn.Node) bool { return fmt.Sprint(a.Plain()) == fmt.Sprint(b.Plain()) }

// keys warns of keys of a Map that are not among the known ones.
func (c *compiler) keys(n *cfn.Node, where string, known []string) {
	if n == nil || n.Kind != cfn.Map {
		return
	}
	for _, e := range n.Entries {
		if !slices.Contains(known, e.Key) {
			c.unknown(e, where, known)
		}
	}
}

// guards are keys that keep callers out. One that is misspelt would leave open what is meant to be closed.
var guards = words("authorizer authorizers private resourcePolicy")

func (c *compiler) unknown(e cfn.Entry, where string, known []string) {
	hint := "It has no effect here; remove it, or look for it in the reference of serverless.yml."
	if near := diag.Nearest(e.Key, known); near != "" {
		hint = fmt.Sprintf("Did you mean %q?", near)
		if slices.Contains(guards, near) {
			c.l.Errorf(e.Pos, "unknown-key", hint, "unknown key %q %s", e.Key, where)
			return
		}
	}
	c.l.Warnf(e.Pos, "unknown-key", hint, "unknown key %q %s", e.Key, where)
}

// text returns n's text; another kind is a fault and gives "".
func (c *compiler) text(n *cfn.Node, what string) string {
	if n.IsNull() || isPoison(n) {
		return ""
	}
	s, ok := n.Text()
	if !ok {
		c.l.Errorf(n.Pos, "wrong-type", "", "%s must be a text, not %s", what, kindName(n))
	}
	return s
}

// isTrue says whether n is true (as a bool or as a text, which variables give).
func isTrue(n *cfn.Node) bool {
	s, ok := n.Text()
	return ok && strings.EqualFold(s, "true")
}

func isFalse(n *cfn.Node) bool {
	s, ok := n.Text()
	return ok && strings.EqualFold(s, "false")
}

// truthy says whether n counts as given: not null, not false, not empty, not 0.
func truthy(n *cfn.Node) bool {
	if n.IsNull() {
		return false
	}
	if s, ok := n.Text(); ok {
		return s != "" && s != "0" && !isFalse(n)
	}
	return true
}

// or returns the first Node that is given.
func or(ns ...*cfn.Node) *cfn.Node {
	for _, n := range ns {
		if truthy(n) {
			return n
		}
	}
	return nil
}

// orText is or with a text to end with.
func orText(pos diag.Pos, fallback string, ns ...*cfn.Node) *cfn.Node {
	if n := or(ns...); n != nil {
		return n
	}
	return cfn.Str(pos, fallback)
}

// list returns n's items; a single value counts as a list of one.
func list(n *cfn.Node) []*cfn.Node {
	if n.IsNull() {
		return nil
	}
	if n.Kind == cfn.List {
		return n.Items
	}
	return []*cfn.Node{n}
}

// entries returns the entries of a Map; another kind is a fault.
func (c *compiler) entries(n *cfn.Node, what string) []cfn.Entry {
	if n.IsNull() || isPoison(n) {
		return nil
	}
	if n.Kind != cfn.Map {
		c.l.Errorf(n.Pos, "wrong-type", "", "%s must be a map, not %s", what, kindName(n))
		return nil
	}
	return n.Entries
}

// eventsOf calls f for each event of the kind, in the order of the file.
func (c *compiler) eventsOf(kind string, f func(fn *function, e event)) {
	for _, fn := range c.fns {
		for _, e := range fn.events {
			if e.kind == kind && !isPoison(e.v) {
				f(fn, e)
			}
		}
	}
}

// mapEntries returns the entries of a Map, and nothing of any other kind.
func mapEntries(n *cfn.Node) []cfn.Entry {
	if n == nil || n.Kind != cfn.Map {
		return nil
	}
	return n.Entries
}
