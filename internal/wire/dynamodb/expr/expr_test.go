package expr_test

import (
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire/dynamodb/expr"
)

func text(s string) store.Value { return store.Text(s) }

func num(s string) store.Value { return store.Num(s) }

func list(v ...store.Value) store.Value { return store.Value{Kind: store.L, List: v} }

func object(it store.Item) store.Value { return store.Value{Kind: store.M, Map: it} }

func set(k store.Kind, s ...string) store.Value { return store.Value{Kind: k, Set: s} }

// thing has one of each kind.
func thing() store.Item {
	return store.Item{
		"s": text("hello"), "n": num("5"), "b": store.Bytes([]byte("abc")), "t": {Kind: store.BOOL, Bool: true}, "z": {Kind: store.NULL},
		"l": list(num("1"), object(store.Item{"x": text("deep")}), list(num("7"))), "m": object(store.Item{"k": num("2"), "o": object(store.Item{"p": text("q")})}),
		"ss": set(store.SS, "a", "b"), "ns": set(store.NS, "1", "2"), "bs": set(store.BS, "x"), "dot.ted": text("d"),
	}
}

func scope() *expr.Scope {
	return expr.NewScope(map[string]string{"#s": "s", "#d": "dot.ted", "#x": "x", "#l": "l"}, map[string]store.Value{
		":s": text("hello"), ":h": text("he"), ":n": num("5"), ":five": num("5.0"), ":one": num("1"), ":nine": num("9"), ":a": text("a"), ":S": text("S"), ":B": store.Bytes([]byte("b")),
		":l": list(num("1")), ":set": set(store.SS, "b", "a"), ":more": set(store.SS, "c", "a"), ":nums": set(store.NS, "3"), ":t": {Kind: store.BOOL, Bool: true}, ":m": object(store.Item{"x": text("deep")}),
		":big": num("99999999999999999999999999999999999999"), ":tiny": num("0.1"),
	})
}

func TestCondition_HoldsAsItReads(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"s = :s": true, "#s = :s": true, "s <> :s": false, "n = :n": true, "n < :nine": true, "n >= :n": true, "n > :nine": false, "s < :n": false,
		"gone = :s": false, "gone <> :s": true, "gone < :n": false, ":n = n": true, "n between :one and :nine": true, "n BETWEEN :nine AND :nine": false,
		"s in (:a, :h, :s)": true, "s IN (:a)": false, "attribute_exists(m.o.p)": true, "attribute_exists(m.o.gone)": false, "attribute_not_exists(gone)": true, "attribute_exists(l[1].x)": true,
		"attribute_exists(l[9])": false, "attribute_exists(s.x)": false, "attribute_type(s, :S)": true, "attribute_type(n, :S)": false, "begins_with(s, :h)": true, "begins_with(n, :h)": false,
		"contains(s, :h)": true, "contains(ss, :a)": true, "contains(ns, :one)": true, "contains(l, :one)": true, "contains(l, :m)": true, "contains(b, :B)": true, "contains(s, :n)": false,
		"size(s) = :n": true, "size(ss) < :n": true, "size(l) = :n": false, "size(m) < size(l)": true, "size(gone) = :n": false, "ss = :set": true, "t = :t": true, "l[2][0] > :n": true,
		"#d = #d2": false, "not s = :a": true, "NOT (s = :s AND n = :n)": false, "s = :a OR s = :s AND n = :nine": false, "(s = :a OR s = :s) AND n = :n": true, "s = :s or gone = :s and gone = :s": true,
		"not not s = :s": true, "(s) = (:s)": true, "#l[1].#x = :s": false, "n = n": false, "not contains(ss, :h)": true, "not size(s) > :nine": true,
	} {
		sc := scope()
		c, err := expr.ParseCondition(text, sc)
		if err != nil {
			if text != "#d = #d2" && text != "n = n" { // refused, as they must be
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		if got := c.Match(thing()); got != want {
			t.Errorf("%s = %v", text, got)
		}
	}
}

func TestParse_SaysWhatIsWrongAsDynamoDBDoes(t *testing.T) {
	t.Parallel()
	condition := func(s string) error { _, err := expr.ParseCondition(s, scope()); return err }
	update := func(s string) error { _, err := expr.ParseUpdate(s, scope()); return err }
	project := func(s string) error { _, err := expr.ParseProjection(s, scope()); return err }
	for _, c := range []struct {
		parse      func(string) error
		text, want string
	}{
		{condition, "", "The expression can not be empty;"},
		{condition, "s = ", `Syntax error; token: "<EOF>", near: "= "`},
		{condition, "s = :s s", `Syntax error; token: "s", near: ":s s"`},
		{condition, "s", "Syntax error; "},
		{condition, "(s = :s", "Syntax error; "},
		{condition, "s == :s", "Syntax error; "},
		{condition, "a IN ()", "Syntax error; "},
		{condition, "((s = :s))", "The expression has redundant parentheses;"},
		{condition, "((s)) = :s", "The expression has redundant parentheses;"},
		{condition, "foo(s)", "Invalid function name; function: foo"},
		{condition, "size(s)", "The function is not allowed to be used this way in an expression; function: size"},
		{condition, "contains(s, :s) = :s", "The function is not allowed to be used this way in an expression; function: contains"},
		{condition, "abort = :s", "Attribute name is a reserved keyword; reserved keyword: abort"},
		{condition, "#none = :s", "An expression attribute name used in the document path is not defined; attribute name: #none"},
		{condition, "s = :none", "An expression attribute value used in expression is not defined; attribute value: :none"},
		{condition, "begins_with(s)", "Incorrect number of operands for operator or function; operator or function: begins_with, number of operands: 1"},
		{condition, "begins_with(s, :n)", "Incorrect operand type for operator or function; operator or function: begins_with, operand type: N"},
		{condition, "attribute_exists(:s)", "Operator or function requires a document path; operator or function: attribute_exists"},
		{condition, "attribute_type(s, :h)", "Invalid attribute type name found; type: he, valid types: {B,NULL,SS,BOOL,L,BS,N,NS,S,M}"},
		{condition, "m.k = m.k", "The first operand must be distinct from the remaining operands for this operator or function; operator: =, first operand: [m, k]"},
		{condition, "n BETWEEN :nine AND :one", "The BETWEEN operator requires upper bound to be greater than or equal to lower bound; lower bound operand: AttributeValue: {N:9}, upper bound operand: AttributeValue: {N:1}"},
		{condition, strings.Repeat("(", 5000) + "s", "The expression contains too many nested parentheses;"},
		{condition, strings.Repeat("not ", 5000) + "s = :s", "The expression contains too many nested parentheses;"},
		{update, "SET", "Syntax error; "},
		{update, "s = :s", "Syntax error; "},
		{update, "SET s = :s SET n = :n", `The "SET" section can only be used once in an update expression;`},
		{update, "SET s = :s, s = :a", "Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [s], path two: [s]"},
		{update, "SET m.k = :s REMOVE m[1]", "Two document paths conflict with each other; must remove or rewrite one of these paths; path one: [m, k], path two: [m, [1]]"},
		{update, "ADD s :s", "Incorrect operand type for operator or function; operator: ADD, operand type: STRING"},
		{update, "DELETE ss :n", "Incorrect operand type for operator or function; operator: DELETE, operand type: NUMBER"},
		{update, "SET n = n + :s", "Incorrect operand type for operator or function; operator or function: +, operand type: S"},
		{update, "SET n = size(s)", "Invalid function name; function: size"},
		{update, "SET n = if_not_exists(:n, :n)", "Operator or function requires a document path; operator or function: if_not_exists"},
		{project, "a,", "Syntax error; "},
		{project, "a, a.b", "Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [a], path two: [a, b]"},
	} {
		err := c.parse(c.text)
		if err == nil || err.Error() != c.want && (!strings.HasSuffix(c.want, "; ") || !strings.HasPrefix(err.Error(), c.want)) {
			t.Errorf("%.60s: %v, want %s", c.text, err, c.want)
		}
	}
}

func TestUpdate_AppliesToACopy(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		path func(store.Item) store.Value
		want store.Value
	}{
		{"SET s = :a", func(it store.Item) store.Value { return it["s"] }, text("a")},
		{"SET n = n + :five", func(it store.Item) store.Value { return it["n"] }, num("10")},
		{"SET n = :one - n", func(it store.Item) store.Value { return it["n"] }, num("-4")},
		{"SET fresh = if_not_exists(gone, :one) + :one", func(it store.Item) store.Value { return it["fresh"] }, num("2")},
		{"SET s = n, n = s", func(it store.Item) store.Value { return it["s"] }, num("5")},
		{"SET m.o.p = :a, m.k = :one", func(it store.Item) store.Value { return it["m"] }, object(store.Item{"k": num("1"), "o": object(store.Item{"p": text("a")})})},
		{"SET l = list_append(:l, l)", func(it store.Item) store.Value { return it["l"].List[1] }, num("1")},
		{"SET l[1].x = :a", func(it store.Item) store.Value { return it["l"].List[1] }, object(store.Item{"x": text("a")})},
		{"SET l[9] = :a, l[7] = :n", func(it store.Item) store.Value { return list(it["l"].List[3:]...) }, list(num("5"), text("a"))},
		{"REMOVE l[0], l[1]", func(it store.Item) store.Value { return it["l"] }, list(list(num("7")))},
		{"REMOVE l[2][0] SET l[1].y = :a", func(it store.Item) store.Value { return it["l"] }, list(num("1"), object(store.Item{"x": text("deep"), "y": text("a")}), list())},
		{"REMOVE l[2][0], l[0]", func(it store.Item) store.Value { return it["l"] }, list(object(store.Item{"x": text("deep")}), list())},
		{"REMOVE gone, m.k", func(it store.Item) store.Value { return it["m"] }, object(store.Item{"o": object(store.Item{"p": text("q")})})},
		{"ADD ss :more, n :one, fresh :nums", func(it store.Item) store.Value { return it["ss"] }, set(store.SS, "a", "b", "c")},
		{"ADD m.cnt :one", func(it store.Item) store.Value { return it["m"].Map["cnt"] }, num("1")},
		{"DELETE ss :more", func(it store.Item) store.Value { return it["ss"] }, set(store.SS, "b")},
		{"DELETE ss :set", func(it store.Item) store.Value { return it["ss"] }, store.Value{}},
	} {
		u, err := expr.ParseUpdate(c.text, scope())
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		before := thing()
		got, err := u.Apply(before)
		if err != nil || !c.path(got).Equal(c.want) {
			t.Errorf("%s: %+v, want %+v; %v", c.text, c.path(got), c.want, err)
		}
		if !before.Equal(thing()) {
			t.Errorf("%s changed the item that it got", c.text)
		}
	}
}

func TestUpdate_RefusesWhatTheItemDoesNotAllow(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"SET x.y = :a":              "The document path provided in the update expression is invalid for update",
		"SET s.y = :a":              "The document path provided in the update expression is invalid for update",
		"SET m[0] = :a":             "The document path provided in the update expression is invalid for update",
		"SET a = gone":              "The provided expression refers to an attribute that does not exist in the item",
		"SET n = s + :one":          "An operand in the update expression has an incorrect data type",
		"SET l = list_append(s, l)": "An operand in the update expression has an incorrect data type",
		"ADD s :one":                "An operand in the update expression has an incorrect data type",
		"SET n = :big + :tiny":      "Attempting to store more than 38 significant digits in a Number",
	} {
		u, err := expr.ParseUpdate(text, scope())
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if _, err := u.Apply(thing()); err == nil || err.Error() != want {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestProjection_PicksPartsAndClosesGaps(t *testing.T) {
	t.Parallel()
	p, err := expr.ParseProjection("l[2], l[0], m.o, #d, gone.x, s", scope())
	if err != nil {
		t.Fatal(err)
	}
	want := store.Item{"l": list(num("1"), list(num("7"))), "m": object(store.Item{"o": object(store.Item{"p": text("q")})}), "dot.ted": text("d"), "s": text("hello")}
	if got := p.Of(thing()); !got.Equal(want) {
		t.Errorf("%+v", got)
	}
}

func TestKeyTests_AllowOneConditionForEachKey(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"s = :s and n > :n":      "",
		":s = s AND (:n < n)":    "",
		"begins_with(s, :h)":     "",
		"s = :s or n = :n":       "Invalid operator used in KeyConditionExpression: OR",
		"s <> :s":                "Invalid operator used in KeyConditionExpression: <>",
		"contains(s, :s)":        "Invalid operator used in KeyConditionExpression: contains",
		"s = :s and s > :h":      "KeyConditionExpressions must only contain one condition per key",
		"m.k = :n":               "KeyConditionExpressions cannot have conditions on nested attributes",
		"size(s) = :n":           "KeyConditionExpressions cannot contain nested operations",
		"s = n":                  "Invalid condition in KeyConditionExpression: Multiple attribute names used in one condition",
		":s = :a":                "Invalid condition in KeyConditionExpression: No key attribute specified",
		":n between n and :nine": "Invalid condition in KeyConditionExpression: BETWEEN operator must have the key attribute as its first operand",
	} {
		c, err := expr.ParseCondition(text, scope())
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got := ""
		if _, err := c.KeyTests(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"s = :s", "a.b[1].#x between :n and size(c)", "NOT (a IN (:s,:n) OR begins_with(s,:h))", "SET a = b + :n, l[3] = list_append(l, :l) REMOVE m.k ADD n :n DELETE ss :set", "l[0], m.o.p", "((("} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if c, err := expr.ParseCondition(s, scope()); err == nil {
			c.Match(thing())
			_, _ = c.KeyTests()
		}
		if u, err := expr.ParseUpdate(s, scope()); err == nil {
			_, _ = u.Apply(thing())
			u.Touched().Of(thing())
		}
		if p, err := expr.ParseProjection(s, scope()); err == nil {
			p.Of(thing())
		}
	})
}
