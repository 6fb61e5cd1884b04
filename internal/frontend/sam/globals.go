package sam

import (
	"slices"
	"strings"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"
)

// readGlobals reads the section Globals: properties of all resources of a kind.
func (c *compiler) readGlobals() {
	c.globals = map[string]*cfn.Node{}
	n := c.root.Get("Globals")
	if !n.IsNull() && n.Kind != cfn.Map {
		c.l.Errorf(n.Pos, "bad-value", "", "Globals must be a map")
		return
	}
	kinds := strings.Fields("Function Api HttpApi SimpleTable StateMachine LayerVersion CapacityProvider WebSocketApi")
	for _, e := range entries(n) {
		if !slices.Contains(kinds, e.Key) {
			c.l.Errorf(e.Pos, "unknown-key", near(e.Key, kinds, ""), "Globals has no section %q", e.Key)
			continue
		}
		if e.Value.IsNull() {
			continue
		}
		if e.Value.Kind != cfn.Map {
			c.l.Errorf(e.Value.Place(), "bad-value", "", "Globals.%s must be a map", e.Key)
			continue
		}
		c.checkKeys(prefix+e.Key, e.Value)
		c.globals[e.Key] = e.Value
	}
}

// withGlobals is a resource's properties with the Globals of its kind below them.
func (c *compiler) withGlobals(r *resource) *cfn.Node {
	global := c.globals[r.kind]
	if global == nil {
		return r.props
	}
	ignore := r.decl.Get("IgnoreGlobals")
	if text(ignore) == "*" {
		return r.props
	}
	for _, it := range items(ignore) {
		global = without(global, text(it))
	}
	return overlay(global, r.props)
}

// overlay merges as SAM does: maps by key, lists one after the other, anything else is the resource's own.
func overlay(global, local *cfn.Node) *cfn.Node {
	switch {
	case local == nil:
		return global
	case global == nil:
		return local
	case isIntrinsic(global) || isIntrinsic(local):
		return local
	case global.Kind == cfn.Map && local.Kind == cfn.Map:
		out := *global
		out.Pos = local.Pos
		res := &out
		for _, e := range local.Entries {
			res = set(res, e.Key, e, overlay(global.Get(e.Key), e.Value))
		}
		return res
	case global.Kind == cfn.List && local.Kind == cfn.List:
		return cfn.NewList(local.Pos, append(slices.Clone(global.Items), local.Items...)...)
	}
	return local
}

// set is With, and keeps the place of the key.
func set(n *cfn.Node, key string, e cfn.Entry, v *cfn.Node) *cfn.Node {
	n = n.With(key, v)
	for i := range n.Entries {
		if n.Entries[i].Key == key {
			n.Entries[i].Pos = e.Pos
		}
	}
	return n
}
