package expr

import (
	"maps"
	"slices"

	"github.com/ebb-run/ebb/internal/store"
)

// Test is one entry of the older parameters Expected, KeyConditions, QueryFilter and ScanFilter: an attribute compared with values.
type Test struct {
	Attr string
	Op   string // "EQ", "NE", …; "NULL" and "NOT_NULL" have no values
	With []store.Value
}

// legacyOps are the older operators as the language has them.
var legacyOps = map[string]string{
	"EQ": "=", "NE": "<>", "LE": "<=", "LT": "<", "GE": ">=", "GT": ">", "NOT_NULL": "attribute_exists", "NULL": "attribute_not_exists",
	"CONTAINS": "contains", "NOT_CONTAINS": "not_contains", "BEGINS_WITH": "begins_with", "IN": "in", "BETWEEN": "between",
}

// Tests makes a Condition of the older parameters: all of them must hold, or any.
func Tests(tests []Test, anyOf bool) *Condition {
	if len(tests) == 0 {
		return nil
	}
	c := &Condition{root: &node{op: "all"}, heads: map[string]bool{}}
	if anyOf {
		c.root.op = "any"
	}
	for _, t := range tests {
		n := &node{op: legacyOps[t.Op], args: []operand{{form: document, path: Path{{Name: t.Attr}}}}}
		for _, v := range t.With {
			n.args = append(n.args, operand{form: literal, lit: v})
		}
		c.heads[t.Attr] = true
		c.root.sub = append(c.root.sub, n)
	}
	return c
}

// AttrUpdate is one entry of the older parameter AttributeUpdates.
type AttrUpdate struct {
	Attr   string
	Action string      // "PUT", "ADD" or "DELETE"; empty means PUT
	Value  store.Value // None for a DELETE of the whole attribute
}

const mismatch = "Type mismatch for attribute to update"

// ApplyAttrs returns the Item after the updates.
func ApplyAttrs(it store.Item, updates []AttrUpdate) (store.Item, error) {
	out := maps.Clone(it)
	if out == nil {
		out = store.Item{}
	}
	for _, u := range updates {
		old := out[u.Attr]
		switch {
		case u.Action == "DELETE" && u.Value.Kind == store.None:
			delete(out, u.Attr)
		case u.Action == "ADD" && u.Value.Kind == store.L:
			if old.Kind != store.None && old.Kind != store.L {
				return nil, fault(mismatch)
			}
			out[u.Attr] = store.Value{Kind: store.L, List: slices.Concat(old.List, u.Value.List)}
		case u.Action == "ADD" || u.Action == "DELETE":
			v, f := combine(u.Action, old, u.Value)
			if f != nil {
				if f.Msg == wrongOperand {
					f = fault(mismatch)
				}
				return nil, f
			}
			if v.Kind == store.None {
				delete(out, u.Attr)
			} else {
				out[u.Attr] = v
			}
		default:
			out[u.Attr] = u.Value
		}
	}
	return out, nil
}

// KeyTests makes the tests of a parsed key condition: at most one for each key attribute, of those operators that a key allows.
func (c *Condition) KeyTests() ([]Test, error) {
	var tests []Test
	if f := keyTests(c.root, &tests); f != nil {
		return nil, f
	}
	return tests, nil
}

// turned are comparators seen from the other side.
var turned = map[string]string{"=": "=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}

var keyOps = map[string]string{"=": "EQ", "<": "LT", "<=": "LE", ">": "GT", ">=": "GE", "between": "BETWEEN", "begins_with": "BEGINS_WITH"}

func keyTests(n *node, tests *[]Test) *Fault {
	const invalid = "Invalid condition in KeyConditionExpression: "
	switch n.op {
	case "or", "not", "in", "<>":
		return fault("Invalid operator used in KeyConditionExpression: %s", map[string]string{"or": "OR", "not": "NOT", "in": "IN", "<>": "<>"}[n.op])
	case "attribute_exists", "attribute_not_exists", "attribute_type", "contains":
		return fault("Invalid operator used in KeyConditionExpression: %s", n.op)
	case "between", "begins_with":
		if n.args[0].form != document {
			return fault(invalid+"%s operator must have the key attribute as its first operand", map[string]string{"between": "BETWEEN", "begins_with": "begins_with"}[n.op])
		}
	case "and":
		for _, s := range n.sub {
			if f := keyTests(s, tests); f != nil {
				return f
			}
		}
		return nil
	}
	at := -1
	for i := range n.args {
		switch a := &n.args[i]; {
		case a.form == document && at >= 0:
			return fault(invalid + "Multiple attribute names used in one condition")
		case a.form == document && len(a.path) > 1:
			return fault("KeyConditionExpressions cannot have conditions on nested attributes")
		case a.form == document:
			at = i
		case a.form == function:
			return fault("KeyConditionExpressions cannot contain nested operations")
		}
	}
	if at < 0 {
		return fault(invalid + "No key attribute specified")
	}
	name := n.args[at].path[0].Name
	if slices.ContainsFunc(*tests, func(t Test) bool { return t.Attr == name }) {
		return fault("KeyConditionExpressions must only contain one condition per key")
	}
	op := n.op
	if at == 1 {
		op = turned[op]
	}
	t := Test{Attr: name, Op: keyOps[op]}
	for i := range n.args {
		if i != at {
			t.With = append(t.With, n.args[i].lit)
		}
	}
	*tests = append(*tests, t)
	return nil
}

// testOps are the operators of conditions as tests have them.
var testOps = map[string]string{"=": "EQ", "<": "LT", "<=": "LE", ">": "GT", ">=": "GE", "between": "BETWEEN", "begins_with": "BEGINS_WITH"}

// Conjuncts returns tests that must hold for the condition to hold: those that compare an attribute with values. There may be more that must hold.
func (c *Condition) Conjuncts() []Test {
	var all []Test
	var walk func(n *node)
	walk = func(n *node) {
		if n.op == "and" {
			walk(n.sub[0])
			walk(n.sub[1])
			return
		}
		op := testOps[n.op]
		if op == "" || n.args[0].form != document || len(n.args[0].path) != 1 {
			return
		}
		t := Test{Attr: n.args[0].path[0].Name, Op: op}
		for _, a := range n.args[1:] {
			if a.form != literal {
				return
			}
			t.With = append(t.With, a.lit)
		}
		all = append(all, t)
	}
	if c != nil {
		walk(c.root)
	}
	return all
}
