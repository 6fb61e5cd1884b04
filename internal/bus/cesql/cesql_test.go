package cesql_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/bus/cesql"
)

// event has the attributes of an order; what is not in it is missing.
func event(name string) (cesql.Value, bool) {
	v, ok := map[string]cesql.Value{
		"id": cesql.String("o-1"), "source": cesql.String("/shop/berlin"), "type": cesql.String("order.placed"), "specversion": cesql.String("1.0"), "subject": cesql.String("7"),
		"hop": cesql.Integer(3), "ttl": cesql.String("10"), "gift": cesql.Boolean(true), "1a": cesql.String("digits"), "note": cesql.String("50%_off\\now"), "word": cesql.String("grün"),
	}[name]
	return v, ok
}

func TestEval_FollowsTheSpecification(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		expr string
		want any
		kind cesql.Kind
	}{
		// literals, attributes
		{`'it\'s "x"'`, `it's "x"`, ""}, {`"say \"x\" 'y'"`, `say "x" 'y'`, ""}, {`'a\nb\\'`, `a\nb\\`, ""}, {`-2147483648`, int32(-2147483648), ""}, {`+7`, int32(7), ""}, {`tRue`, true, ""},
		{`id`, "o-1", ""}, {`ID`, "o-1", ""}, {`hop`, int32(3), ""}, {`gift`, true, ""}, {`1a`, "digits", ""}, {`nothing`, false, cesql.MissingAttributeError},
		// comparison: the right operand's type rules
		{`hop = '3'`, true, ""}, {`'3' = hop`, true, ""}, {`ttl = 10`, true, ""}, {`10 = ttl`, true, ""}, {`'010' = 10`, true, ""}, {`10 = '010'`, false, ""}, {`'+10' = 10`, true, ""},
		{`gift = 'true'`, true, ""}, {`gift = 'TRUE'`, false, ""}, {`'TRUE' = gift`, true, ""}, {`5 = TRUE`, true, ""}, {`0 = FALSE`, true, ""}, {`TRUE = 1`, true, ""}, {`TRUE = 2`, false, ""},
		{`'x' = 1`, false, cesql.CastError}, {`'x' != 1`, false, cesql.CastError}, {`id != 'x'`, true, ""}, {`id <> 'o-1'`, false, ""}, {`nothing != 2`, false, cesql.MissingAttributeError},
		{`hop < ttl`, true, ""}, {`ttl <= hop`, false, ""}, {`'9' > '10'`, false, ""}, {`TRUE >= FALSE`, true, ""}, {`'a' < 'b'`, false, cesql.CastError},
		// arithmetic
		{`2 + 3 * 4 - 6 / 4 % 2`, int32(13), ""}, {`(2 + 3) * 4`, int32(20), ""}, {`7-1`, int32(6), ""}, {`7 -1`, int32(6), ""}, {`7 - -1`, int32(8), ""}, {`-7 / 2`, int32(-3), ""}, {`-7 % 2`, int32(-1), ""}, {`10 - 3 - 2`, int32(5), ""},
		{`1 / 0`, int32(0), cesql.MathError}, {`1 % 0`, int32(0), cesql.MathError}, {`2147483647 + 1`, int32(0), cesql.MathError}, {`-2147483648 / -1`, int32(0), cesql.MathError}, {`- -2147483648`, int32(0), cesql.MathError},
		{`'5' + TRUE`, int32(6), ""}, {`'1.5' * 2`, int32(0), cesql.CastError}, {`'' + 1`, int32(0), cesql.CastError}, {`'1_0' + 1`, int32(0), cesql.CastError}, {`-'5'`, int32(-5), ""}, {`--5`, int32(5), ""}, {`1 / nothing`, int32(0), cesql.MissingAttributeError},
		// logic: short circuits, from left to right
		{`FALSE AND nothing`, false, ""}, {`TRUE OR nothing`, true, ""}, {`TRUE AND nothing`, false, cesql.MissingAttributeError}, {`FALSE OR nothing`, false, cesql.MissingAttributeError}, {`FALSE XOR nothing`, false, cesql.MissingAttributeError},
		{`TRUE XOR TRUE`, false, ""}, {`TRUE XOR FALSE`, true, ""}, {`FALSE AND TRUE OR TRUE`, true, ""}, {`FALSE AND (TRUE OR TRUE)`, false, ""}, {`TRUE OR TRUE AND FALSE`, false, ""},
		{`1 AND 'true'`, true, ""}, {`'x' AND TRUE`, false, cesql.CastError}, {`NOT TRUE = TRUE`, false, ""}, {`NOT (TRUE = FALSE)`, true, ""}, {`NOT NOT gift`, true, ""}, {`NOT 10`, false, ""}, {`NOT nothing`, false, cesql.MissingAttributeError},
		{`NOT EXISTS nothing`, true, ""}, {`exists subject and not exists time`, true, ""}, {`EXISTS Specversion`, true, ""}, {`EXISTS 1a`, true, ""},
		// LIKE
		{`source LIKE '/shop/%'`, true, ""}, {`source NOT LIKE '%berlin'`, false, ""}, {`source LIKE '/shop/'`, false, ""}, {`word LIKE 'gr_n'`, true, ""}, {`word LIKE 'gr__n'`, false, ""}, {`note LIKE '50\%\_off\now'`, true, ""},
		{`note LIKE '50\_%'`, false, ""}, {`'' LIKE '%'`, true, ""}, {`'' LIKE ''`, true, ""}, {`'aab' LIKE '%ab'`, true, ""}, {`'abcabd' LIKE '%ab%d'`, true, ""}, {`'abc' LIKE '%%c%'`, true, ""}, {`hop LIKE '_'`, true, ""}, {`nothing LIKE 'x'`, false, cesql.MissingAttributeError},
		{`1 + 2 LIKE '2'`, int32(2), ""}, {`-5 LIKE '-5'`, true, ""}, {`'a' LIKE 'a' LIKE 'true'`, true, ""}, {`'%' LIKE '\%'`, true, ""}, {`'x\' LIKE 'x\'`, nil, cesql.ParseError}, {`'x%' LIKE 'x\%'`, true, ""},
		// IN
		{`id IN ('x', 'o-1')`, true, ""}, {`id NOT IN ('x')`, true, ""}, {`hop IN ('3')`, true, ""}, {`'3' IN (hop)`, true, ""}, {`hop IN ('x', 3)`, false, cesql.CastError}, {`hop IN (3, 'x')`, true, ""}, {`nothing IN (1)`, false, cesql.MissingAttributeError},
		{`id IN (nothing)`, false, cesql.MissingAttributeError}, {`1 IN (1) IN (TRUE)`, true, ""}, {`hop in (1 + 2)`, true, ""},
		// functions
		{`LENGTH(word)`, int32(4), ""}, {`length(12345)`, int32(5), ""}, {`CONCAT()`, "", ""}, {`CONCAT(id, 1, TRUE)`, "o-11true", ""}, {`CONCAT_WS('-', 'a', 'b', 3)`, "a-b-3", ""}, {`CONCAT_WS('-')`, "", ""}, {`CONCAT_WS()`, false, cesql.MissingFunctionError},
		{`UPPER(word)`, "GRÜN", ""}, {`LOWER('ÄB')`, "äb", ""}, {"TRIM('\u00a0 a b\t')", "a b", ""}, {`LEFT(word, 3)`, "grü", ""}, {`LEFT('abc', 9)`, "abc", ""}, {`LEFT('abc', -1)`, "abc", cesql.FunctionEvaluationError},
		{`RIGHT(word, 2)`, "ün", ""}, {`RIGHT('abc', 0)`, "", ""}, {`RIGHT('abc', -1)`, "abc", cesql.FunctionEvaluationError}, {`SUBSTRING(word, 3)`, "ün", ""}, {`SUBSTRING(word, -2)`, "ün", ""}, {`SUBSTRING(word, 0)`, "", ""},
		{`SUBSTRING(word, 2, 2)`, "rü", ""}, {`SUBSTRING(word, -3, 99)`, "rün", ""}, {`SUBSTRING(word, 5)`, "", cesql.FunctionEvaluationError}, {`SUBSTRING(word, -5, 1)`, "", cesql.FunctionEvaluationError}, {`SUBSTRING(word, 1, -1)`, "", cesql.FunctionEvaluationError},
		{`SUBSTRING(word, 4, 0)`, "", ""}, {`ABS(-5)`, int32(5), ""}, {`ABS(-2147483648)`, int32(2147483647), cesql.MathError}, {`ABS('x')`, int32(0), cesql.CastError}, {`INT('12') + 1`, int32(13), ""}, {`BOOL('x')`, false, cesql.CastError}, {`STRING(5) = 5`, true, ""},
		{`NOPE(1)`, false, cesql.MissingFunctionError}, {`LENGTH()`, false, cesql.MissingFunctionError}, {`LENGTH('a', 'b')`, false, cesql.MissingFunctionError}, {`LENGTH(nothing)`, int32(0), cesql.MissingAttributeError}, {`NOPE(1) = 1`, false, cesql.MissingFunctionError},
		{`FALSE AND NOPE()`, false, ""}, {`int(hop) < INT(ttl) and int(hop) < 1000`, true, ""},
		// what is no expression
		{``, nil, cesql.ParseError}, {`(`, nil, cesql.ParseError}, {`ABC(`, nil, cesql.ParseError}, {`1 +`, nil, cesql.ParseError}, {`1 2`, nil, cesql.ParseError}, {`x LIKE 5`, nil, cesql.ParseError}, {`x LIKE y`, nil, cesql.ParseError}, {`x IN ()`, nil, cesql.ParseError}, {`x IN 5`, nil, cesql.ParseError},
		{`EXISTS 'x'`, nil, cesql.ParseError}, {`2147483648`, nil, cesql.ParseError}, {`a_b`, nil, cesql.ParseError}, {`a1()`, nil, cesql.ParseError}, {`x # y`, nil, cesql.ParseError}, {`!x`, nil, cesql.ParseError}, {`'a''b'`, nil, cesql.ParseError}, {`AND`, nil, cesql.ParseError}, {`x == y`, nil, cesql.ParseError},
		{"'\xff'", nil, cesql.ParseError}, {`(1, 2)`, nil, cesql.ParseError}, {`f(1,)`, nil, cesql.ParseError}, {`+x`, nil, cesql.ParseError}, {`EXISTS`, nil, cesql.ParseError}, {`x NOT y`, nil, cesql.ParseError},
		{strings.Repeat("(", 150) + "1" + strings.Repeat(")", 150), nil, cesql.ParseError}, {strings.Repeat("NOT ", 300) + "TRUE", nil, cesql.ParseError}, {`'` + strings.Repeat("x", 16<<10) + `'`, nil, cesql.ParseError},
	} {
		t.Run(c.expr[:min(50, len(c.expr))], func(t *testing.T) {
			t.Parallel()
			e, err := cesql.Parse(c.expr)
			var got any
			if err == nil {
				var v cesql.Value
				v, err = e.Eval(event)
				got = v.Any()
				if want := c.want == true && c.kind == ""; e.Matches(event) != want {
					t.Errorf("Matches is not %v", want)
				}
			}
			var kind cesql.Kind
			if err != nil {
				var ce *cesql.Error
				if !errors.As(err, &ce) || ce.Offset < 0 || ce.Offset > len(c.expr) {
					t.Fatalf("%v is no located error", err)
				}
				kind = ce.Kind
			}
			if got != c.want || kind != c.kind {
				t.Errorf("got %#v, %q, want %#v, %q (%v)", got, kind, c.want, c.kind, err)
			}
		})
	}
}

func TestParse_SaysWhere(t *testing.T) {
	t.Parallel()
	for expr, want := range map[string]string{
		`id = `: "the expression ends where a value should be at byte 5", `id = 'x`: "a string without its end at byte 5", `id == 'x'`: `a value is wanted, not "=" at byte 4`,
		`id 'x'`: `an operator is wanted, not "x" at byte 3`, `id LIKE 5`: `a string with the pattern is wanted, not "5" at byte 8`, `id & x`: `'&' has no meaning here at byte 3`, `1 + 2147483648`: "2147483648 is no 32-bit integer at byte 4",
		`f('a' 'b')`: `a comma or a closing parenthesis is wanted, not "b" at byte 6`,
	} {
		if _, err := cesql.Parse(expr); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", expr, err, want)
		}
	}
}

func TestRemarks_NameWhatIsProbablyNotMeant(t *testing.T) {
	t.Parallel()
	for expr, want := range map[string]string{
		`LENGHT(id) = 3`: "cesql-function there is no function LENGHT of 1 arguments Did you mean LENGTH?", `a AND b OR c`: "cesql-mixed OR after AND: they are taken from left to right Put parentheses around what belongs together.",
		`a AND b AND c`: "", `(a AND b) OR c`: "", `LENGTH(id)`: "",
	} {
		e, err := cesql.Parse(expr)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, r := range e.Remarks() {
			got += r.Code + " " + r.Msg + " " + r.Hint
		}
		if got != want {
			t.Errorf("%s: %s, want %s", expr, got, want)
		}
	}
}

func TestEval_BoundsStrings(t *testing.T) {
	t.Parallel()
	long := cesql.String(strings.Repeat("x", 1<<19))
	e, err := cesql.Parse(`LENGTH(CONCAT(x, x, x)) = 1572864`)
	if err != nil {
		t.Fatal(err)
	}
	_, err = e.Eval(func(string) (cesql.Value, bool) { return long, true })
	var ce *cesql.Error
	if !errors.As(err, &ce) || ce.Kind != cesql.FunctionEvaluationError {
		t.Error(err)
	}
}

func TestEval_BoundsLike(t *testing.T) {
	t.Parallel()
	long := cesql.String(strings.Repeat("a", 1<<19))
	e, err := cesql.Parse(`x LIKE '%` + strings.Repeat("a", 8000) + `b%'`)
	if err != nil {
		t.Fatal(err)
	}
	_, err = e.Eval(func(string) (cesql.Value, bool) { return long, true })
	var ce *cesql.Error
	if !errors.As(err, &ce) || ce.Kind != cesql.FunctionEvaluationError {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{`int(hop) < int(ttl) and int(hop) < 1000`, `source NOT LIKE '%\_x_' OR id IN ('a', "b", 3)`, `-5 + 'x' * (NOT EXISTS y)`, `SUBSTRING(id, -2, 1) <> CONCAT_WS(',', 1, TRUE)`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := cesql.Parse(s)
		var ce *cesql.Error
		if err != nil {
			if !errors.As(err, &ce) || ce.Kind != cesql.ParseError || ce.Offset > len(s) {
				t.Fatal(err)
			}
			return
		}
		v, err := e.Eval(event)
		if err != nil && (!errors.As(err, &ce) || ce.Kind == cesql.ParseError) {
			t.Fatal(err)
		}
		if e.Matches(event) != (err == nil && v.Any() == true) {
			t.Fatal("Matches and Eval differ")
		}
		again, err2 := e.Eval(event)
		if again != v || (err == nil) != (err2 == nil) {
			t.Fatal("not the same twice")
		}
	})
}

func BenchmarkMatches(b *testing.B) {
	e, err := cesql.Parse(`source LIKE '/shop/%' AND (hop < ttl OR NOT EXISTS subject) AND type IN ('order.placed', 'order.paid')`)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		e.Matches(event)
	}
}
