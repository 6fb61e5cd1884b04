package cloudformation_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/frontend/cloudformation"
)

func TestParseDoc_GivesPlainData(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ doc, want string }{
		"scalars":            {"a: 1\nb: x\nc: true\nd: null\ne: 1.5\nf:", `{"a":1,"b":"x","c":true,"d":null,"e":1.5,"f":null}`},
		"account id":         {"a: 012345678901\nb: 123456789012", `{"a":"012345678901","b":123456789012}`},
		"octal look-alike":   {"a: 0123\nb: 0\nc: 0.5\nd: 007", `{"a":"0123","b":0,"c":0.5,"d":"007"}`},
		"dates stay text":    {"Version: 2012-10-17", `{"Version":"2012-10-17"}`},
		"huge number":        {"a: 99999999999999999999", `{"a":100000000000000000000}`},
		"quoted number":      {`a: "1"`, `{"a":"1"}`},
		"ref":                {"a: !Ref B", `{"a":{"Ref":"B"}}`},
		"getatt dotted":      {"a: !GetAtt B.C.D", `{"a":{"Fn::GetAtt":["B","C.D"]}}`},
		"getatt list":        {"a: !GetAtt [B, C]", `{"a":{"Fn::GetAtt":["B","C"]}}`},
		"sub long":           {"a: !Sub ['${x}', {x: 1}]", `{"a":{"Fn::Sub":["${x}",{"x":1}]}}`},
		"nested tags":        {"a: !If [C, !Ref D, !Ref AWS::NoValue]", `{"a":{"Fn::If":["C",{"Ref":"D"},{"Ref":"AWS::NoValue"}]}}`},
		"tag on a number":    {"a: !Base64 12", `{"a":{"Fn::Base64":"12"}}`},
		"condition":          {"a: !Condition X", `{"a":{"Condition":"X"}}`},
		"anchor":             {"a: &x {k: 1}\nb: *x", `{"a":{"k":1},"b":{"k":1}}`},
		"merge":              {"a: &x {k: 1, l: 2}\nb: {<<: *x, l: 3}", `{"a":{"k":1,"l":2},"b":{"k":1,"l":3}}`},
		"empty":              {"", `null`},
		"json":               {"{\n\t\"a\": [1, 2.5, null, true, \"\\ud83d\\ude00\"]\n}", `{"a":[1,2.5,null,true,"😀"]}`},
		"json beyond":        {`{"a": 1e999}`, `{"a":"1e999"}`},
		"json with a bom":    {"\xef\xbb\xbf{\"a\": 1}", `{"a":1}`},
		"yaml flow, no json": {"{a: 1, b: [x]}", `{"a":1,"b":["x"]}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, l := cloudformation.ParseDoc("t.yaml", []byte(row.doc))
			got, err := json.Marshal(n.Plain())
			if err != nil || len(l) > 0 || string(got) != row.want {
				t.Errorf("got %s, %v, %v\nwant %s", got, err, l, row.want)
			}
		})
	}
}

func TestParseDoc_LocatesFaults(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ file, doc, want string }{
		"tab":           {"t.yaml", "a:\n  b: 1\n\tc: 2\n", "t.yaml:3:1: error: found a tab character that violates indentation [syntax]"},
		"at sign":       {"t.yaml", "a:\n  b: @x\n", "t.yaml:2:6: error: found character that cannot start any token [syntax]"},
		"duplicate":     {"t.yaml", "a: 1\nb: 2\na: 3\n", `t.yaml:3:1: error: the key "a" is there twice [duplicate-key]`},
		"odd key":       {"t.yaml", "? [a]\n: 1\n", "t.yaml:1:3: error: a key must be a plain word [bad-key]"},
		"not text":      {"t.yaml", "a: 1\nb: \xff\xfe\n", "t.yaml:2:4: error: "},
		"json comma":    {"t.json", "{\n  \"a\": 1,\n}", "t.json:3:1: error: invalid character '}'"},
		"json ends":     {"t.json", "{\n  \"a\": [1", "t.json:2:10: error: the document ends too early [syntax]"},
		"json twice":    {"t.json", "{\n  \"a\": 1,\n  \"a\": 2}", `t.json:3:3: error: the key "a" is there twice [duplicate-key]`},
		"json trailing": {"t.json", "{}\n x", "t.json:2:2: error: invalid character 'x'"},
		"unknown tag":   {"t.yaml", "a: !Reff B", "t.yaml:1:4: warning: the YAML tag !Reff is not known"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, l := cloudformation.ParseDoc(row.file, []byte(row.doc))
			if len(l) != 1 || !strings.HasPrefix(l[0].String(), row.want) {
				t.Errorf("got %v, want %s", l, row.want)
			}
		})
	}
}

func TestParseDoc_KnowsThePlaceOfEverything(t *testing.T) {
	t.Parallel()
	for file, doc := range map[string]string{
		"t.yaml": "a:\n  b: [x, {c: 1}]\n",
		"t.json": "{\"a\":\n  {\"b\": [\"x\", {\"c\": 1}]}}",
	} {
		n, l := cloudformation.ParseDoc(file, []byte(doc))
		if len(l) > 0 {
			t.Fatal(l)
		}
		b := n.Get("a").Entries[0]
		c := b.Value.Items[1].Entries[0]
		want := map[string][3]string{
			"t.yaml": {"t.yaml:2:3", "t.yaml:2:7", "t.yaml:2:14"},
			"t.json": {"t.json:2:4", "t.json:2:10", "t.json:2:21"},
		}[file]
		if got := [3]string{b.Pos.String(), b.Value.Items[0].Pos.String(), c.Value.Pos.String()}; got != want {
			t.Errorf("%s: places %v, want %v", file, got, want)
		}
	}
}

func TestParseDoc_EndsOnAliasBombs(t *testing.T) {
	t.Parallel()
	var bomb strings.Builder
	bomb.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 12; i++ {
		fmt.Fprintf(&bomb, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
	}
	for name, doc := range map[string]string{
		"wide aliases": bomb.String(),
		"own alias":    "a: &a [*a, *a]\n",
		"own merge":    "a: &a {<<: *a, b: 1}\n",
		"deep":         strings.Repeat("[", 5000) + strings.Repeat("]", 5000),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, l := cloudformation.ParseDoc("t.yaml", []byte(doc))
			if n != nil || !l.HasErrors() {
				t.Errorf("accepted: %v", l)
			}
			if len(l) > 3 {
				t.Errorf("%d diagnostics for one fault", len(l))
			}
		})
	}
}

func TestNode_FromAndWithKeepValuesAndOrder(t *testing.T) {
	t.Parallel()
	n := cloudformation.From(diag.Pos{}, map[string]any{"b": []string{"x"}, "a": 1.0, "c": json.Number("1.50")})
	if got, _ := n.Get("c").Text(); got != "1.50" {
		t.Errorf("the number's text is %q", got)
	}
	m := n.With("a", cloudformation.Str(diag.Pos{}, "new")).With("z", nil)
	got, _ := json.Marshal(m.Plain())
	if string(got) != `{"a":"new","b":["x"],"c":1.5,"z":null}` {
		t.Errorf("got %s", got)
	}
	if old, _ := n.Get("a").Text(); old != "1" {
		t.Errorf("With changed the original to %q", old)
	}
}
