package transform_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/bus/transform"
	"github.com/ebb-run/ebb/internal/errs"
)

const event = `{"version":"0","id":"7bf7","detail-type":"State \"change\"","source":"aws.ec2","time":"2015-11-11T21:29:54Z","resources":["arn:1","arn:2"],
 "detail":{"instance-id":"i-0123","state":"RUNNING","n":5,"on":true,"no":null,"text":"a\"b\nc<d>\u00e9","deep":{"list":[{"a":1},{"a":[2]},{"b":3}]},"with/slash":1}}`

var vars = transform.Vars{RuleARN: "arn:aws:events:us-east-1:123456789012:rule/example", RuleName: "example", Ingestion: time.Date(2026, 1, 2, 4, 4, 5, 6e8, time.FixedZone("", 3600))}

var paths = map[string]string{
	"id": "$.detail.instance-id", "state": "$.detail.state", "n": "$.detail.n", "on": "$.detail.on", "no": "$.detail.no", "text": "$.detail.text", "deep": "$.detail.deep",
	"none": "$.detail.none", "res": "$.resources", "first": "$.resources[0]", "third": "$.resources[2]", "all": "$.resources[*]", "as": "$.detail.deep.list[*].a", "whole": "$",
	"type": "$.detail-type", "quoted": "$['detail']['state']", "members": "$.detail.deep.*", "slash": "$.detail.with/slash", "through": "$.detail.state.x", "at": "$.detail.deep.list[1].a[0]",
}

func TestApply_FillsTemplates(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		template, want string
		text           bool
	}{
		{`"instance <id> is in <state>"`, `"instance i-0123 is in RUNNING"`, false},
		{`"instance \"<id>\" is in <state>"`, `"instance \"i-0123\" is in RUNNING"`, false},
		{"{\n \"instance\" : <id>,\n \"state\": <state>\n}", `{"instance":"i-0123","state":"RUNNING"}`, false},
		{`{"instance": <id>, "state": "<state>", "status": "instance \"<id>\" is in <state>"}`, `{"instance":"i-0123","state":"RUNNING","status":"instance \"i-0123\" is in RUNNING"}`, false},
		{`{"state": [9, <state>, true], "b": "Yes"}`, `{"state":[9,"RUNNING",true],"b":"Yes"}`, false},
		{`{"n":<n>,"on":<on>,"no":<no>,"deep":<deep>}`, `{"n":5,"on":true,"no":null,"deep":{"list":[{"a":1},{"a":[2]},{"b":3}]}}`, false},
		{`{"s":"<n> <on> <no> <deep>"}`, `{"s":"5 true null {\"list\":[{\"a\":1},{\"a\":[2]},{\"b\":3}]}"}`, false},
		{`{"t":<text>,"in":"- <text> -"}`, `{"t":"a\"b\nc<d>\u00e9","in":"- a\"b\nc<d>é -"}`, false},
		{`{"a":<none>,"b":"x<none>y","c":<third>,"d":<through>}`, `{"a":"","b":"xy","c":"","d":""}`, false},
		{`{"r":<res>,"f":<first>,"all":<all>,"as":<as>,"m":<members>}`, `{"r":["arn:1","arn:2"],"f":"arn:1","all":["arn:1","arn:2"],"as":[1,[2]],"m":[[{"a":1},{"a":[2]},{"b":3}]]}`, false},
		{`[<quoted>,<slash>,<at>,<type>]`, `["RUNNING",1,2,"State \"change\""]`, false},
		{`{"arn":<aws.events.rule-arn>,"name":<aws.events.rule-name>,"at":<aws.events.event.ingestion-time>}`,
			`{"arn":"arn:aws:events:us-east-1:123456789012:rule/example","name":"example","at":"2026-01-02T03:04:05Z"}`, false},
		{`"<aws.events.rule-name> triggered"`, `"example triggered"`, false},
		{`{"e":<aws.events.event>}`, `{"e":{"version":"0","id":"7bf7","detailType":"State \"change\"","source":"aws.ec2","time":"2015-11-11T21:29:54Z","resources":["arn:1","arn:2"]}}`, false},
		{`<n>`, `5`, false},
		{`"a < b and c > d, <>"`, `"a < b and c > d, <>"`, false},
		{"\"line <n>\"\n\"line <id>\"", "\"line 5\"\n\"line i-0123\"", true},
		{`<id> is <deep>`, `i-0123 is {"list":[{"a":1},{"a":[2]},{"b":3}]}`, true},
	} {
		t.Run(c.template, func(t *testing.T) {
			t.Parallel()
			tr, list := transform.Compile(transform.Spec{Transformer: &transform.Transformer{Paths: paths, Template: c.template}}, "")
			if tr == nil {
				t.Fatal(list)
			}
			got, err := tr.Apply([]byte(event), vars)
			if err != nil || string(got) != c.want || tr.JSON() == c.text {
				t.Errorf("got  %s, %v, JSON %v\nwant %s", got, err, tr.JSON(), c.want)
			}
		})
	}
}

func TestApply_PutsTheWholeEvent(t *testing.T) {
	t.Parallel()
	tr, list := transform.Compile(transform.Spec{Transformer: &transform.Transformer{Template: `{"e":<aws.events.event.json>,"s":"<aws.events.event.json>"}`}}, "")
	if tr == nil {
		t.Fatal(list)
	}
	out, err := tr.Apply([]byte(event), vars)
	var got struct {
		E any
		S string
	}
	if err == nil {
		err = json.Unmarshal(out, &got)
	}
	var again, want any
	_ = json.Unmarshal([]byte(got.S), &again)
	_ = json.Unmarshal([]byte(event), &want)
	if err != nil || fmt.Sprint(got.E) != fmt.Sprint(want) || fmt.Sprint(again) != fmt.Sprint(want) {
		t.Errorf("%s, %v", out, err)
	}
}

func TestApply_TakesInputAndPaths(t *testing.T) {
	t.Parallel()
	s := func(s string) *string { return &s }
	for _, c := range []struct {
		spec transform.Spec
		want string
	}{
		{transform.Spec{}, event},
		{transform.Spec{Input: s(`{"fixed": 1}`)}, `{"fixed": 1}`},
		{transform.Spec{InputPath: s("$.detail.deep")}, `{"list":[{"a":1},{"a":[2]},{"b":3}]}`},
		{transform.Spec{InputPath: s("$.detail.state")}, `"RUNNING"`},
		{transform.Spec{InputPath: s("$")}, event},
		{transform.Spec{InputPath: s("")}, event},
		{transform.Spec{InputPath: s("$.nowhere.at.all")}, `null`},
		{transform.Spec{InputPath: s("$.nowhere[*]")}, `[]`},
	} {
		tr, list := transform.Compile(c.spec, "")
		if tr == nil {
			t.Fatal(list)
		}
		if got, err := tr.Apply([]byte(event), vars); err != nil || string(got) != c.want {
			t.Errorf("got %s, %v, want %s", got, err, c.want)
		}
	}
}

func TestCompile_SaysWhereAndWhatIsWrong(t *testing.T) {
	t.Parallel()
	s := func(s string) *string { return &s }
	tmpl := func(text string, kv ...string) transform.Spec {
		m := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = kv[i+1]
		}
		return transform.Spec{Transformer: &transform.Transformer{Paths: m, Template: text}}
	}
	for _, c := range []struct {
		spec       transform.Spec
		want, hint string
	}{
		{transform.Spec{Input: s("hello")}, "1:1 input-json Input is not JSON: a value is wanted, not 'h'", "A text stands"},
		{transform.Spec{Input: s(`"` + strings.Repeat("x", 8192) + `"`)}, "1:1 input-too-large Input has 8194 bytes; 8192 are allowed", ""},
		{transform.Spec{Input: s("{}"), InputPath: s("$")}, "1:1 input-twice only one of Input, InputPath and InputTransformer may be given", ""},
		{transform.Spec{InputPath: s("detail")}, "1:1 input-path InputPath: the path must begin with $", ""},
		{transform.Spec{InputPath: s("$detail")}, "1:2 input-path InputPath: a dot or a bracket is wanted here", ""},
		{transform.Spec{InputPath: s("$.a..b")}, "1:4 input-path InputPath: no name after the dot", ""},
		{transform.Spec{InputPath: s("$.a[?(@.x)]")}, "1:4 input-path InputPath: ?(@.x) is neither an index, nor a name in quotes, nor *", ""},
		{transform.Spec{InputPath: s("$.a[-1]")}, "1:4 input-path InputPath: -1 is neither an index, nor a name in quotes, nor *", ""},
		{transform.Spec{InputPath: s("$.a[0")}, "1:4 input-path InputPath: a bracket without its end", ""},
		{transform.Spec{InputPath: s("$." + strings.Repeat("x", 255))}, "1:1 input-path InputPath: the path has 257 bytes; 256 are allowed", ""},
		{tmpl("{\n  \"a\": <stat>}", "state", "$.detail.state"), "2:8 input-variable the variable <stat> is not defined", "Did you mean <state>?"},
		{tmpl(`"<aws.events.rulename>"`), "1:2 input-variable the variable <aws.events.rulename> is not defined", "Did you mean <aws.events.rule-name>?"},
		{tmpl(`"<b>"`), "1:2 input-variable the variable <b> is not defined", "Give it a path"},
		{tmpl(`"x"`, "aws.x", "$.a"), `1:1 input-reserved the variable "aws.x" begins with the reserved aws.`, ""},
		{tmpl(`"x"`, "a b", "$.a"), `1:1 input-name "a b" cannot be the name of a variable`, ""},
		{tmpl(`"<x>"`, "x", "a"), "1:1 input-path InputPathsMap.x: the path must begin with $", ""},
		{tmpl(``), "1:1 input-template InputTemplate has 0 bytes; 1 to 8192 are allowed", ""},
		{tmpl(`{"a": 1,}`), "1:9 input-template InputTemplate is not JSON: a key in quotes is wanted, not '}'", ""},
		{tmpl(`{<x>: 1}`, "x", "$.a"), "1:2 input-template InputTemplate is not JSON: a key in quotes is wanted, not '['", "not as a key"},
		{tmpl(`{"a": <x><x>}`, "x", "$.a"), "1:10 input-template InputTemplate is not JSON: a comma or '}' is wanted, not '['", ""},
		{tmpl(`[1<x>]`, "x", "$.a"), "1:3 input-template InputTemplate is not JSON: a comma or ']' is wanted, not '['", ""},
		{tmpl(`["a]`), "1:2 input-template InputTemplate is not JSON: a string without its end", ""},
	} {
		tr, list := transform.Compile(c.spec, "")
		if tr != nil || len(list) != 1 {
			t.Errorf("%s: %v", c.want, list)
			continue
		}
		d := list[0]
		if got := fmt.Sprintf("%d:%d %s %s", d.Line, d.Col, d.Code, d.Message); got != c.want || !strings.Contains(d.Hint, c.hint) {
			t.Errorf("got  %s (%s)\nwant %s (%s)", got, d.Hint, c.want, c.hint)
		}
	}
	many := map[string]string{}
	for i := range 101 {
		many[fmt.Sprint("v", i)] = "$.a"
	}
	if _, list := transform.Compile(transform.Spec{Transformer: &transform.Transformer{Paths: many, Template: `"x"`}}, ""); len(list) != 1 || list[0].Code != "input-paths" {
		t.Error(list)
	}
}

func TestApply_BoundsItsOutput(t *testing.T) {
	t.Parallel()
	big := `{"detail":"` + strings.Repeat("x", 1<<20) + `"}`
	for _, tmpl := range []string{`[<aws.events.event.json>,<aws.events.event.json>,<aws.events.event.json>]`, `"<d><d><d>"`} {
		tr, list := transform.Compile(transform.Spec{Transformer: &transform.Transformer{Paths: map[string]string{"d": "$.detail"}, Template: tmpl}}, "")
		if tr == nil {
			t.Fatal(list)
		}
		if _, err := tr.Apply([]byte(big), vars); errs.CodeOf(err) != errs.TooLarge {
			t.Error(err)
		}
	}
}

func TestApply_RefusesWhatIsNoEvent(t *testing.T) {
	t.Parallel()
	tr, _ := transform.Compile(transform.Spec{Transformer: &transform.Transformer{Paths: map[string]string{"d": "$.detail"}, Template: `{"d":<d>,"e":<aws.events.event>}`}}, "")
	for _, e := range []string{``, `{`, `{"detail":tru}`, `{} x`, `[1]`} {
		if out, err := tr.Apply([]byte(e), vars); errs.CodeOf(err) != errs.Invalid {
			t.Errorf("%q: %s, %v", e, out, err)
		}
	}
}

func FuzzApply(f *testing.F) {
	f.Add(`{"a":<x>,"b":"in <x> <aws.events.event>"}`, "$.detail", event)
	f.Add(`"<x>"`, "$.resources[*]", event)
	f.Add(`[<x>, <aws.events.event.json>]`, "$.detail.*.list[1]", event)
	f.Fuzz(func(t *testing.T, template, path, event string) {
		tr, list := transform.Compile(transform.Spec{Transformer: &transform.Transformer{Paths: map[string]string{"x": path}, Template: template}}, "")
		if (tr == nil) != list.HasErrors() {
			t.Fatal(tr, list)
		}
		if tr == nil {
			return
		}
		out, err := tr.Apply([]byte(event), vars)
		if err != nil {
			if code := errs.CodeOf(err); code != errs.Invalid && code != errs.TooLarge {
				t.Fatalf("%q %q %q: %v", template, path, event, err)
			}
			return
		}
		if tr.JSON() && !json.Valid(out) {
			t.Fatalf("%q %q %q gives %s", template, path, event, out)
		}
	})
}
