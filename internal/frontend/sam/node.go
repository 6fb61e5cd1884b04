package sam

import (
	"strings"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"

	"github.com/ebb-run/ebb/internal/diag"
)

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
		if list, ok := kv[i+1].([]*cfn.Node); ok {
			if list == nil {
				continue
			}
			v = cfn.NewList(pos, list...)
		} else if !isNode {
			v = cfn.From(pos, kv[i+1])
		}
		n.Entries = append(n.Entries, cfn.Entry{Key: kv[i].(string), Pos: pos, Value: v})
	}
	return n
}

func ref(pos diag.Pos, id string) *cfn.Node { return obj(pos, "Ref", id) }

func getAtt(pos diag.Pos, id, attr string) *cfn.Node {
	return obj(pos, "Fn::GetAtt", []string{id, attr})
}

func sub(pos diag.Pos, text string) *cfn.Node { return obj(pos, "Fn::Sub", text) }

// subWith is Fn::Sub with a variable of its own.
func subWith(pos diag.Pos, text string, kv ...any) *cfn.Node {
	return obj(pos, "Fn::Sub", []*cfn.Node{cfn.Str(pos, text), obj(pos, kv...)})
}

// when puts n under a condition; without one it is n itself.
func when(condition string, n *cfn.Node) *cfn.Node {
	if condition == "" {
		return n
	}
	return obj(n.Pos, "Fn::If", []*cfn.Node{cfn.Str(n.Pos, condition), n, ref(n.Pos, "AWS::NoValue")})
}

// merged is n with what more adds: entries of n that are there already stay.
func merged(n, more *cfn.Node) *cfn.Node {
	for _, e := range entries(more) {
		if n.Get(e.Key) == nil {
			n = n.With(e.Key, e.Value)
		}
	}
	return n
}

// without is the Map n without some keys.
func without(n *cfn.Node, keys ...string) *cfn.Node {
	out := cfn.NewMap(n.Place())
	for _, e := range entries(n) {
		if !contains(keys, e.Key) {
			out.Entries = append(out.Entries, e)
		}
	}
	return out
}

func contains(list []string, s string) bool {
	for _, it := range list {
		if it == s {
			return true
		}
	}
	return false
}

func entries(n *cfn.Node) []cfn.Entry {
	if n == nil {
		return nil
	}
	return n.Entries
}

// items is a List's items; anything else but null stands for a list of one.
func items(n *cfn.Node) []*cfn.Node {
	switch {
	case n.IsNull():
		return nil
	case n.Kind == cfn.List:
		return n.Items
	}
	return []*cfn.Node{n}
}

func text(n *cfn.Node) string {
	s, _ := n.Text()
	return s
}

func isTrue(n *cfn.Node) bool { return strings.EqualFold(text(n), "true") }

// isIntrinsic says whether n is a call of a CloudFormation function.
func isIntrinsic(n *cfn.Node) bool {
	if n == nil || n.Kind != cfn.Map || len(n.Entries) != 1 {
		return false
	}
	key := n.Entries[0].Key
	return key == "Ref" || key == "Condition" || strings.HasPrefix(key, "Fn::")
}

// target is the logical ID that a Ref, a Fn::GetAtt or a plain text names; empty when it is none of these.
func target(n *cfn.Node) string {
	if s, ok := n.Text(); ok {
		return s
	}
	if s, ok := n.Get("Ref").Text(); ok {
		return s
	}
	if at := n.Get("Fn::GetAtt"); at != nil {
		if at.Kind == cfn.List && len(at.Items) > 0 {
			return text(at.Items[0])
		}
		id, _, _ := strings.Cut(text(at), ".")
		return id
	}
	return ""
}

func isNoValue(n *cfn.Node) bool { return text(n.Get("Ref")) == "AWS::NoValue" }

func or(ns ...*cfn.Node) *cfn.Node {
	for _, n := range ns {
		if !n.IsNull() {
			return n
		}
	}
	return nil
}
