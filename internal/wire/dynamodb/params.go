package dynamodb

import (
	"errors"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire/dynamodb/expr"
)

// exprs are the parsed expressions of a request.
type exprs struct {
	cond, key, filter *expr.Condition
	update            *expr.Update
	proj              *expr.Projection
}

// mixed refuses expressions beside older parameters, and placeholders without expressions.
func mixed(n *node, expressions, others []string) string {
	var used, old []string
	for _, e := range expressions {
		if n.get(e) != nil {
			used = append(used, e)
		}
	}
	if len(used) > 0 {
		for _, o := range others {
			if o == "KeyConditions" && n.get("KeyConditionExpression") == nil {
				continue
			}
			if n.get(o) != nil {
				old = append(old, o)
			}
		}
	}
	if len(old) > 0 {
		return "Can not use both expression and non-expression parameters in the same request: Non-expression parameters: {" + strings.Join(old, ", ") + "} Expression parameters: {" + strings.Join(used, ", ") + "}"
	}
	if n.get("ExpressionAttributeNames") != nil && len(used) == 0 {
		return "ExpressionAttributeNames can only be specified when using expressions"
	}
	var takes []string
	any := false
	for _, e := range expressions {
		if e != "ProjectionExpression" {
			takes = append(takes, e)
			any = any || n.get(e) != nil
		}
	}
	if len(takes) > 0 && n.get("ExpressionAttributeValues") != nil && !any {
		verb := " is"
		if len(takes) > 1 {
			verb = " are"
		}
		return "ExpressionAttributeValues can only be specified when using expressions: " + strings.Join(takes, " and ") + verb + " null"
	}
	return ""
}

// placeholder tells whether a name of one is well formed.
func placeholder(sign byte, s string) bool {
	if len(s) < 2 || s[0] != sign {
		return false
	}
	for _, c := range []byte(s[1:]) {
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return true
}

// scopeOf reads the placeholders of a request.
func scopeOf(n *node) (*expr.Scope, string) {
	names, values := n.get("ExpressionAttributeNames"), n.get("ExpressionAttributeValues")
	s := expr.NewScope(map[string]string{}, map[string]store.Value{})
	if names != nil {
		if len(names.members) == 0 {
			return nil, "ExpressionAttributeNames must not be empty"
		}
		for _, m := range names.members {
			if !placeholder('#', m.key) {
				return nil, `ExpressionAttributeNames contains invalid key: Syntax error; key: "` + m.key + `"`
			}
			s.Names[m.key] = m.val.text
		}
	}
	if values != nil {
		if len(values.members) == 0 {
			return nil, "ExpressionAttributeValues must not be empty"
		}
		for _, m := range values.members {
			if !placeholder(':', m.key) {
				return nil, `ExpressionAttributeValues contains invalid key: Syntax error; key: "` + m.key + `"`
			}
		}
		for i := range values.members {
			m := &values.members[i]
			v, msg := valueOf(&m.val, 1)
			if msg != "" {
				return nil, "ExpressionAttributeValues contains invalid value: " + msg + " for key " + m.key
			}
			s.Values[m.key] = v
		}
	}
	return s, ""
}

// parse reads the expressions of a request. Every placeholder must be used.
func parse(n *node) (x exprs, msg string) {
	scope, msg := scopeOf(n)
	if msg != "" {
		return x, msg
	}
	read := func(name string, f func(string) error) {
		m := n.get(name)
		if m == nil || msg != "" {
			return
		}
		err := f(m.text)
		var bad *expr.Fault
		if errors.As(err, &bad) {
			msg = "Invalid " + name + ": " + bad.Msg
		}
	}
	var err error
	read("UpdateExpression", func(t string) error { x.update, err = expr.ParseUpdate(t, scope); return err })
	read("ConditionExpression", func(t string) error { x.cond, err = expr.ParseCondition(t, scope); return err })
	read("KeyConditionExpression", func(t string) error { x.key, err = expr.ParseCondition(t, scope); return err })
	read("FilterExpression", func(t string) error { x.filter, err = expr.ParseCondition(t, scope); return err })
	read("ProjectionExpression", func(t string) error { x.proj, err = expr.ParseProjection(t, scope); return err })
	if msg != "" {
		return x, msg
	}
	if unused := unused(n.get("ExpressionAttributeNames"), scope.UsedName); unused != "" {
		return x, "Value provided in ExpressionAttributeNames unused in expressions: keys: {" + unused + "}"
	}
	if unused := unused(n.get("ExpressionAttributeValues"), scope.UsedValue); unused != "" {
		return x, "Value provided in ExpressionAttributeValues unused in expressions: keys: {" + unused + "}"
	}
	return x, ""
}

func unused(n *node, used func(string) bool) string {
	if n == nil {
		return ""
	}
	var list []string
	for _, m := range n.members {
		if !used(m.key) {
			list = append(list, m.key)
		}
	}
	return strings.Join(list, ", ")
}

// attributesOf reads the older parameter AttributesToGet.
func attributesOf(n *node) (*expr.Projection, string) {
	list := n.get("AttributesToGet")
	if list == nil {
		return nil, ""
	}
	var attrs []string
	for _, e := range list.elems {
		if slices.Contains(attrs, e.text) {
			return nil, invalidPrefix + "Duplicate value in attribute name: " + e.text
		}
		attrs = append(attrs, e.text)
	}
	return expr.Attributes(attrs), ""
}

func valuesOf(list *node) (all []store.Value, msg string) {
	if list == nil {
		return nil, ""
	}
	for i := range list.elems {
		v, msg := valueOf(&list.elems[i], 1)
		if msg != "" {
			return nil, msg
		}
		all = append(all, v)
	}
	return all, ""
}

// arity says how many values an older operator takes: least and most.
func arity(op string) (least, most int) {
	switch op {
	case "NULL", "NOT_NULL":
		return 0, 0
	case "BETWEEN":
		return 2, 2
	case "IN":
		return 1, 1 << 20
	}
	return 1, 1
}

func sameKind(values []store.Value) bool {
	return !slices.ContainsFunc(values, func(v store.Value) bool { return v.Kind != values[0].Kind })
}

const (
	notSameKind = invalidPrefix + "AttributeValues inside AttributeValueList must be of same type"
	wrongBounds = "The BETWEEN condition was provided a range where the lower bound is greater than the upper bound"
)

// expectedOf reads the older parameter Expected; the message says what is wrong.
func expectedOf(n *node) (tests []expr.Test, msg string) {
	list := n.get("Expected")
	if list == nil {
		return nil, ""
	}
	for i := range list.members {
		t, msg := expectation(list.members[i].key, &list.members[i].val)
		if msg != "" {
			return nil, msg
		}
		tests = append(tests, t)
	}
	return tests, ""
}

func expectation(attr string, n *node) (t expr.Test, msg string) {
	values, one, op, exists := n.get("AttributeValueList"), n.get("Value"), n.str("ComparisonOperator"), n.get("Exists")
	t = expr.Test{Attr: attr, Op: op}
	if values != nil && one != nil {
		return t, invalidPrefix + "Value and AttributeValueList cannot be used together for Attribute: " + attr
	}
	if op == "" {
		return oldExpectation(attr, values, one, exists)
	}
	if exists != nil {
		return t, invalidPrefix + "Exists and ComparisonOperator cannot be used together for Attribute: " + attr
	}
	if op != "NULL" && op != "NOT_NULL" && values == nil && one == nil {
		return t, invalidPrefix + "Value or AttributeValueList must be used with ComparisonOperator: " + op + " for Attribute: " + attr
	}
	if one != nil {
		values = &node{kind: 'a', elems: []node{*one}}
	}
	count := 0
	if values != nil {
		count = len(values.elems)
	}
	if least, most := arity(op); count < least || count > most {
		return t, invalidPrefix + "Invalid number of argument(s) for the " + op + " ComparisonOperator"
	}
	if t.With, msg = valuesOf(values); msg != "" {
		return t, msg
	}
	if count > 0 && !sameKind(t.With) {
		return t, notSameKind
	}
	if op == "BETWEEN" {
		if c, _ := t.With[0].Compare(t.With[1]); c > 0 {
			return t, wrongBounds
		}
	}
	return t, ""
}

// oldExpectation is the oldest form: a value, or that there is none.
func oldExpectation(attr string, values, one, exists *node) (t expr.Test, msg string) {
	if values != nil {
		return t, invalidPrefix + "AttributeValueList can only be used with a ComparisonOperator for Attribute: " + attr
	}
	switch {
	case (exists == nil || exists.truth) && one == nil:
		return t, invalidPrefix + "Value must be provided when Exists is " + told(exists) + " for Attribute: " + attr
	case exists != nil && !exists.truth && one != nil:
		return t, invalidPrefix + "Value cannot be used when Exists is false for Attribute: " + attr
	case one == nil:
		return expr.Test{Attr: attr, Op: "NULL"}, ""
	}
	v, msg := valueOf(one, 1)
	return expr.Test{Attr: attr, Op: "EQ", With: []store.Value{v}}, msg
}

// conditionsOf reads the older parameters KeyConditions, QueryFilter and ScanFilter.
func conditionsOf(list *node) (tests []expr.Test, msg string) {
	if list == nil {
		return nil, ""
	}
	for i := range list.members {
		m := &list.members[i]
		t := expr.Test{Attr: m.key, Op: m.val.str("ComparisonOperator")}
		if t.With, msg = valuesOf(m.val.get("AttributeValueList")); msg != "" {
			return nil, msg
		}
		if msg = checkTest(t); msg != "" {
			return nil, msg
		}
		tests = append(tests, t)
	}
	return tests, ""
}

func checkTest(t expr.Test) string {
	if least, most := arity(t.Op); len(t.With) < least || len(t.With) > most {
		return invalidPrefix + "Invalid number of argument(s) for the " + t.Op + " ComparisonOperator"
	}
	if len(t.With) > 0 && !sameKind(t.With) {
		return notSameKind
	}
	allowed := []store.Kind{store.S, store.N, store.B}
	switch t.Op {
	case "EQ", "NE":
		allowed = append(allowed, store.SS, store.NS, store.BS)
	case "BEGINS_WITH":
		allowed = []store.Kind{store.S, store.B}
	}
	for _, v := range t.With {
		if !slices.Contains(allowed, v.Kind) {
			return invalidPrefix + "ComparisonOperator " + t.Op + " is not valid for " + v.Kind.String() + " AttributeValue type"
		}
	}
	if t.Op == "BETWEEN" {
		if c, _ := t.With[0].Compare(t.With[1]); c > 0 {
			return wrongBounds
		}
	}
	return ""
}
