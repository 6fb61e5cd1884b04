package serverless

import (
	"regexp"
	"slices"
	"strings"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"

	"github.com/ebb-run/ebb/internal/diag"
)

var templateKeys = words("AWSTemplateFormatVersion Description Metadata Parameters Mappings Conditions Transform Rules Hooks Resources Outputs extensions")

// merge lays the project's own `resources:` over the compiled template, key by key and deep, and then
// applies `resources.extensions`.
func (c *compiler) merge(template *cfn.Node, r *resolver) *cfn.Node {
	var extensions []*cfn.Node
	for _, n := range c.resourceParts(c.doc.Get("resources")) {
		for _, e := range n.Entries {
			switch {
			case e.Key == "extensions":
				extensions = append(extensions, e.Value)
			case e.Value.IsNull():
			case slices.Contains(templateKeys, e.Key):
				if slices.Contains([]string{"Resources", "Outputs", "Parameters", "Mappings", "Conditions"}, e.Key) && e.Value.Kind != cfn.Map {
					if !isPoison(e.Value) {
						c.l.Errorf(e.Value.Pos, "wrong-type", "", "resources.%s must be a map, not %s", e.Key, kindName(e.Value))
					}
					continue
				}
				template = template.With(e.Key, c.deepMerge(template.Get(e.Key), e.Value))
			case e.Value.Kind == cfn.Map && e.Value.Get("Type") != nil:
				c.l.Errorf(e.Pos, "misplaced-resource", "Move it below `resources: Resources:`.", "the resource %q stands directly under resources", e.Key)
			default:
				c.unknown(e, "in resources", templateKeys)
			}
		}
	}
	for _, n := range extensions {
		template = c.extend(template, n)
	}
	for _, e := range mapEntries(c.doc.Get("outputs")) {
		c.l.Warnf(e.Pos, "no-effect", "CloudFormation outputs belong below `resources: Outputs:`.", "the output %q is for Serverless's own dashboard and has no effect", e.Key)
	}
	return pseudoParameters(c.dropNullOutputs(template))
}

// resourceParts gives the maps of `resources:`, which may be one map or a list of them.
func (c *compiler) resourceParts(n *cfn.Node) []*cfn.Node {
	if n.IsNull() || isPoison(n) {
		return nil
	}
	var out []*cfn.Node
	for _, it := range list(n) {
		switch {
		case it.IsNull(), isPoison(it):
		case it.Kind == cfn.List:
			out = append(out, c.resourceParts(it)...)
		case it.Kind == cfn.Map:
			out = append(out, it)
		default:
			c.l.Errorf(it.Pos, "wrong-type", "", "resources must be a map or a list of maps, not %s", kindName(it))
		}
	}
	return out
}

// deepMerge lays over onto base: maps key by key, lists item by item, as Serverless does. Null leaves what is there.
func (c *compiler) deepMerge(base, over *cfn.Node) *cfn.Node {
	switch {
	case over.IsNull():
		if base == nil {
			return over
		}
		return base
	case base != nil && base.Kind == cfn.Map && over.Kind == cfn.Map:
		out := base
		for _, e := range over.Entries {
			out = out.With(e.Key, c.deepMerge(base.Get(e.Key), e.Value))
			for i := range out.Entries {
				if out.Entries[i].Key == e.Key && base.Get(e.Key) == nil {
					out.Entries[i].Pos = e.Pos
				}
			}
		}
		return out
	case base != nil && base.Kind == cfn.List && over.Kind == cfn.List:
		out := &cfn.Node{Kind: cfn.List, Pos: over.Pos, Items: slices.Clone(base.Items)}
		for i, it := range over.Items {
			if i < len(out.Items) {
				out.Items[i] = c.deepMerge(out.Items[i], it)
			} else {
				out.Items = append(out.Items, it)
			}
		}
		return out
	}
	return over
}

// extend applies resources.extensions: attributes of resources that Serverless makes.
func (c *compiler) extend(template, ext *cfn.Node) *cfn.Node {
	all := template.Get("Resources")
	for _, e := range c.entries(ext, "resources.extensions") {
		have := all.Get(e.Key)
		if have == nil {
			c.unknownResource(e, keysOf(all))
			continue
		}
		for _, attr := range c.entries(e.Value, "an extension") {
			switch attr.Key {
			case "Condition", "CreationPolicy", "DeletionPolicy", "UpdatePolicy", "UpdateReplacePolicy":
				have = have.With(attr.Key, attr.Value)
			case "Properties", "Metadata":
				have = have.With(attr.Key, mergeMaps(have.Get(attr.Key), attr.Value))
			case "DependsOn":
				deps := append(slices.Clone(list(have.Get("DependsOn"))), list(attr.Value)...)
				have = have.With(attr.Key, cfn.NewList(attr.Pos, deps...))
			default:
				c.unknown(attr, "in an extension", words("Condition CreationPolicy DeletionPolicy DependsOn Metadata Properties UpdatePolicy UpdateReplacePolicy"))
			}
		}
		all = all.With(e.Key, have)
	}
	return template.With("Resources", all)
}

func (c *compiler) unknownResource(e cfn.Entry, known []string) {
	hint := "Extensions change resources that the functions bring with them; other resources belong below `Resources:`."
	if near := diag.Nearest(e.Key, known); near != "" {
		hint = "Did you mean \"" + near + "\"?"
	}
	c.l.Errorf(e.Pos, "unknown-resource", hint, "there is no resource %q to extend", e.Key)
}

// dropNullOutputs takes away outputs that a variable made null.
func (c *compiler) dropNullOutputs(template *cfn.Node) *cfn.Node {
	outs := template.Get("Outputs")
	if outs == nil || outs.Kind != cfn.Map {
		return template
	}
	kept := cfn.NewMap(outs.Pos)
	for _, e := range outs.Entries {
		if !e.Value.IsNull() {
			kept.Entries = append(kept.Entries, e)
		}
	}
	return template.With("Outputs", kept)
}

// pseudoParameters turns the #{AWS::Region} of serverless-pseudo-parameters into Fn::Sub, wherever it stands.
func pseudoParameters(n *cfn.Node) *cfn.Node {
	done := map[*cfn.Node]*cfn.Node{}
	var walk func(n *cfn.Node, inSub bool) *cfn.Node
	walk = func(n *cfn.Node, inSub bool) *cfn.Node {
		if n == nil || done[n] != nil {
			return done[n]
		}
		out := n
		switch n.Kind {
		case cfn.Scalar:
			s, ok := stringOf(n)
			if !ok || !strings.Contains(s, "#{") {
				return n
			}
			if sub := hashVariable.ReplaceAllString(s, "${$1}"); sub != s {
				out = cfn.Str(n.Pos, sub)
				if !inSub {
					out = obj(n.Pos, "Fn::Sub", sub)
				}
			}
			return out
		case cfn.List:
			for i, it := range n.Items {
				if w := walk(it, inSub && i == 0); w != it {
					if out == n {
						out = &cfn.Node{Kind: cfn.List, Pos: n.Pos, Items: slices.Clone(n.Items)}
					}
					out.Items[i] = w
				}
			}
		case cfn.Map:
			for i, e := range n.Entries {
				if w := walk(e.Value, e.Key == "Fn::Sub"); w != e.Value {
					if out == n {
						out = &cfn.Node{Kind: cfn.Map, Pos: n.Pos, Entries: slices.Clone(n.Entries)}
					}
					out.Entries[i].Value = w
				}
			}
		}
		done[n] = out
		return out
	}
	return walk(n, false)
}

var hashVariable = regexp.MustCompile(`#\{((?:AWS::)?[A-Za-z0-9.:]+)\}`)
