package pattern_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/bus/pattern"
	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/errs"
)

func must(t testing.TB, source string) *pattern.Pattern {
	t.Helper()
	p, list := pattern.Compile([]byte(source), pattern.Options{})
	if p == nil {
		t.Fatalf("%s: %v", source, list)
	}
	return p
}

// matches asks the Pattern alone, a Set with it, and the plain reading of the rules in naive_test.go.
func matches(t testing.TB, source, event string) bool {
	t.Helper()
	p := must(t, source)
	got, err := p.Match([]byte(event))
	if err != nil {
		t.Fatalf("%s against %s: %v", source, event, err)
	}
	set := pattern.NewSet[int]()
	set.Add(1, p)
	ids, err := set.Match([]byte(event), nil)
	if err != nil || (len(ids) == 1) != got {
		t.Fatalf("%s against %s: alone %v, in a Set %v, %v", source, event, got, ids, err)
	}
	if plain := naive(t, source, event); plain != got {
		t.Fatalf("%s against %s: %v, but read plainly %v", source, event, got, plain)
	}
	return got
}

const ec2 = `{"version":"0","id":"6a7e8feb","detail-type":"EC2 Instance State-change Notification","source":"aws.ec2","account":"111122223333",
"time":"2017-12-22T18:43:48Z","region":"us-west-1","resources":["arn:aws:ec2:us-west-1:111122223333:instance/i-1","arn:aws:ec2:us-west-1:111122223333:instance/i-2"],
"detail":{"instance-id":"i-1","state":"terminated","c-count":5,"d-count":3,"x-limit":301.8,"ip":"10.0.0.7","nothing":null,"empty":"","yes":true,
"none":[],"hollow":{},"deep":{"er":{"k":"v"}}}}`

func TestMatch_FollowsTheDocumentedOperators(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern string
		want    bool
	}{
		// exact values
		{`{"source":["aws.ec2"]}`, true},
		{`{"source":["aws.s3","aws.ec2"],"detail":{"state":["terminated"]}}`, true},
		{`{"source":["aws.ec2"],"detail":{"state":["running"]}}`, false},
		{`{"source":["AWS.ec2"]}`, false},
		{`{"source":["aws.ec"]}`, false},
		{`{"detail":{"c-count":[5]}}`, true}, {`{"detail":{"c-count":[5.0]}}`, true}, {`{"detail":{"c-count":[0.5e1]}}`, true}, {`{"detail":{"c-count":["5"]}}`, false},
		{`{"detail":{"nothing":[null]}}`, true}, {`{"detail":{"nothing":[""]}}`, false}, {`{"detail":{"nothing":["null"]}}`, false},
		{`{"detail":{"empty":[""]}}`, true}, {`{"detail":{"empty":[null]}}`, false},
		{`{"detail":{"yes":[true]}}`, true}, {`{"detail":{"yes":[false]}}`, false}, {`{"detail":{"yes":["true"]}}`, false},
		{`{"detail":["terminated"]}`, false}, {`{"detail":{"state":{"x":["terminated"]}}}`, false},
		{`{"detail":{"deep":{"er":{"k":["v"]}}}}`, true}, {`{"detail.deep":{"er.k":["v"]}}`, true},
		// arrays in the event
		{`{"resources":["arn:aws:ec2:us-west-1:111122223333:instance/i-2"]}`, true},
		{`{"resources":[{"suffix":"/i-3"}]}`, false},
		{`{"resources":[{"anything-but":"arn:aws:ec2:us-west-1:111122223333:instance/i-2"}]}`, true},
		// prefix, suffix
		{`{"time":[{"prefix":"2017-12"}]}`, true}, {`{"time":[{"prefix":"2018"}]}`, false}, {`{"time":[{"prefix":""}]}`, true},
		{`{"detail":{"c-count":[{"prefix":"5"}]}}`, false}, {`{"detail":{"nothing":[{"prefix":"n"}]}}`, false},
		{`{"source":[{"suffix":"ec2"}]}`, true}, {`{"source":[{"suffix":"EC2"}]}`, false}, {`{"source":[{"suffix":""}]}`, true},
		{`{"source":[{"prefix":{"equals-ignore-case":"AWS."}}]}`, true}, {`{"source":[{"prefix":{"equals-ignore-case":"ec"}}]}`, false},
		{`{"source":[{"suffix":{"equals-ignore-case":"EC2"}}]}`, true}, {`{"source":[{"suffix":{"equals-ignore-case":"s3"}}]}`, false},
		// equals-ignore-case
		{`{"detail":{"state":[{"equals-ignore-case":"TERMinated"}]}}`, true}, {`{"detail":{"state":[{"equals-ignore-case":"TERM"}]}}`, false},
		// anything-but
		{`{"detail":{"state":[{"anything-but":"initializing"}]}}`, true}, {`{"detail":{"state":[{"anything-but":"terminated"}]}}`, false},
		{`{"detail":{"state":[{"anything-but":["stopped","terminated"]}]}}`, false}, {`{"detail":{"state":[{"anything-but":["stopped"]}]}}`, true},
		{`{"detail":{"c-count":[{"anything-but":[100,200]}]}}`, true}, {`{"detail":{"c-count":[{"anything-but":5.0}]}}`, false},
		{`{"detail":{"c-count":[{"anything-but":"5"}]}}`, true}, {`{"detail":{"state":[{"anything-but":5}]}}`, true},
		{`{"detail":{"absent":[{"anything-but":"x"}]}}`, false}, {`{"detail":{"none":[{"anything-but":"x"}]}}`, false}, {`{"detail":{"nothing":[{"anything-but":"x"}]}}`, true},
		{`{"detail":{"state":[{"anything-but":{"prefix":"init"}}]}}`, true}, {`{"detail":{"state":[{"anything-but":{"prefix":["init","term"]}}]}}`, false},
		{`{"detail":{"state":[{"anything-but":{"suffix":"nated"}}]}}`, false}, {`{"detail":{"state":[{"anything-but":{"suffix":["x","y"]}}]}}`, true},
		{`{"detail":{"state":[{"anything-but":{"equals-ignore-case":"TERMINATED"}}]}}`, false},
		{`{"detail":{"state":[{"anything-but":{"equals-ignore-case":["a","B"]}}]}}`, true},
		{`{"detail":{"state":[{"anything-but":{"wildcard":"*min*"}}]}}`, false}, {`{"detail":{"state":[{"anything-but":{"wildcard":["*x*","y*"]}}]}}`, true},
		{`{"detail":{"c-count":[{"anything-but":{"prefix":"5"}}]}}`, true},
		// numeric
		{`{"detail":{"c-count":[{"numeric":[">",0,"<=",5]}]}}`, true}, {`{"detail":{"c-count":[{"numeric":[">",0,"<",5]}]}}`, false},
		{`{"detail":{"c-count":[{"numeric":[">=",5]}]}}`, true}, {`{"detail":{"c-count":[{"numeric":[">",5]}]}}`, false},
		{`{"detail":{"d-count":[{"numeric":["<",10]}]}}`, true}, {`{"detail":{"d-count":[{"numeric":["<=",2.9]}]}}`, false},
		{`{"detail":{"x-limit":[{"numeric":["=",3.018e2]}]}}`, true}, {`{"detail":{"state":[{"numeric":["<",10]}]}}`, false},
		// cidr
		{`{"detail":{"ip":[{"cidr":"10.0.0.0/24"}]}}`, true}, {`{"detail":{"ip":[{"cidr":"10.0.1.0/24"}]}}`, false}, {`{"detail":{"ip":[{"cidr":"0.0.0.0/0"}]}}`, true},
		{`{"detail":{"ip":[{"cidr":"::/0"}]}}`, false}, {`{"detail":{"state":[{"cidr":"0.0.0.0/0"}]}}`, false},
		// exists: leaves only
		{`{"detail":{"c-count":[{"exists":true}]}}`, true}, {`{"detail":{"absent":[{"exists":true}]}}`, false},
		{`{"detail":{"c-count":[{"exists":false}]}}`, false}, {`{"detail":{"absent":[{"exists":false}]}}`, true},
		{`{"detail":{"nothing":[{"exists":true}]}}`, true}, {`{"detail":{"deep":[{"exists":true}]}}`, false}, {`{"detail":{"deep":[{"exists":false}]}}`, true},
		{`{"detail":{"none":[{"exists":true}]}}`, false}, {`{"detail":{"none":[{"exists":false}]}}`, true}, {`{"detail":{"hollow":[{"exists":true}]}}`, false},
		{`{"resources":[{"exists":true}]}`, true}, {`{"other":{"deeper":[{"exists":false}]}}`, true},
		{`{"detail":{"absent":["x",{"exists":false}]}}`, true}, {`{"detail":{"state":["x",{"exists":false}]}}`, false}, {`{"detail":{"state":["terminated",{"exists":false}]}}`, true},
		// wildcard
		{`{"source":[{"wildcard":"aws.*"}]}`, true}, {`{"source":[{"wildcard":"*2"}]}`, true}, {`{"source":[{"wildcard":"*"}]}`, true}, {`{"source":[{"wildcard":"a*.*2"}]}`, true},
		{`{"source":[{"wildcard":"aws"}]}`, false}, {`{"source":[{"wildcard":"aws.ec2"}]}`, true}, {`{"source":[{"wildcard":"aws.ec2*"}]}`, true}, {`{"source":[{"wildcard":"aws.ec2*2"}]}`, false},
		{`{"source":[{"wildcard":"aws.\\*"}]}`, false}, {`{"resources":[{"wildcard":"arn:*:i-2"}]}`, false}, {`{"resources":[{"wildcard":"arn:*/i-2"}]}`, true},
		// $or
		{`{"source":["aws.ec2"],"$or":[{"region":["eu-west-1"]},{"detail":{"state":["terminated"]}}]}`, true},
		{`{"source":["aws.ec2"],"$or":[{"region":["eu-west-1"]},{"detail":{"state":["running"]}}]}`, false},
		{`{"detail":{"$or":[{"state":["running"]},{"c-count":[{"numeric":[">",4]}],"$or":[{"d-count":[1]},{"d-count":[3]}]}]}}`, true},
		{`{"detail":{"$or":[{"state":["running"]},{"c-count":[{"numeric":[">",4]}],"$or":[{"d-count":[1]},{"d-count":[2]}]}]}}`, false},
		{`{"$or":[{"source":["x"]},{"source":["aws.ec2"]}],"detail":{"$or":[{"state":["y"]},{"state":["terminated"]}]}}`, true},
		{`{"$or":[{"source":["x"]},{"source":["aws.ec2"]}],"detail":{"$or":[{"state":["y"]},{"state":["z"]}]}}`, false},
		{`{"$or":[{"a":[{"exists":true}]},{"b":[{"exists":false}]}]}`, true},
	} {
		t.Run(c.pattern, func(t *testing.T) {
			t.Parallel()
			if got := matches(t, c.pattern, ec2); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestMatch_KeepsToOneElementOfAnArray(t *testing.T) {
	t.Parallel()
	const e = `{"a":[{"x":1,"y":1,"n":[{"p":1,"q":2},{"p":3,"q":4}]},{"x":2,"y":2,"n":[{"p":5,"q":6}]},7,[8,{"x":9}]],"b":[{"x":1},{"x":2}],"m":[[{"x":1}],[{"y":1}]]}`
	for _, c := range []struct {
		pattern string
		want    bool
	}{
		{`{"a":{"x":[1],"y":[1]}}`, true},
		{`{"a":{"x":[1],"y":[2]}}`, false},
		{`{"a":{"x":[1,2],"y":[2]}}`, true},
		{`{"a":{"x":[1]},"b":{"x":[2]}}`, true},
		{`{"a":{"n":{"p":[1],"q":[2]}}}`, true},
		{`{"a":{"n":{"p":[1],"q":[4]}}}`, false},
		{`{"a":{"n":{"p":[1],"q":[6]}}}`, false},
		{`{"a":{"n":{"p":[5],"q":[6]},"x":[1]}}`, false},
		{`{"a":{"n":{"p":[5],"q":[6]},"x":[2]}}`, true},
		{`{"a":[7]}`, true}, {`{"a":[8]}`, true}, {`{"a":{"x":[9]}}`, true},
		{`{"m":{"x":[1],"y":[1]}}`, false},
		{`{"a":{"x":[9],"y":[{"exists":false}]}}`, true},
		{`{"a":{"x":[1],"y":[{"exists":false}]}}`, false},
		{`{"a":{"n":{"p":[5]},"x":[1,2],"z":[{"exists":false}]}}`, true},
		{`{"a":[7,8],"a.y":[{"exists":false}]}`, true},
		{`{"a":[7],"a.y":[{"exists":false}]}`, false},
	} {
		t.Run(c.pattern, func(t *testing.T) {
			t.Parallel()
			if got := matches(t, c.pattern, e); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestMatch_ComparesValuesAsAWSDoes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		value, event string
		want         bool
	}{
		{`300`, `3.0e2`, true}, {`300`, `300.0`, true}, {`0`, `-0.0`, true}, {`0.1`, `1e-1`, true}, {`0.1`, `0.10000000000000001`, false},
		{`12345678901234567890123`, `12345678901234567890123`, true}, {`12345678901234567890123`, `12345678901234567890124`, false}, {`9007199254740993`, `9007199254740992`, false},
		{`1e400`, `1e400`, true}, {`1e400`, `1e401`, false}, {`{"numeric":["<",10]}`, `12345678901234567890123`, false}, {`{"numeric":["=",1e3]}`, `1000`, true},
		{`{"numeric":["=",-4]}`, `-4.0`, true}, {`{"numeric":["<",0]}`, `-0.5`, true}, {`{"numeric":[">=",-1,"<=",-1]}`, `-1`, true}, {`{"numeric":["<",0]}`, `0`, false},
		{`{"numeric":[">",1e300]}`, `1e301`, true}, {`{"numeric":["<=",4.5]}`, `4.5`, true}, {`{"numeric":["<",4.5]}`, `4.4999`, true},
		{`{"anything-but":[1,2]}`, `1e0`, false}, {`{"anything-but":[1,2]}`, `12345678901234567890123`, true},
		{`"2001:db8::1"`, `"2001:0db8:0:0::0001"`, true}, {`"2001:db8::1"`, `"2001:db8::2"`, false}, {`{"cidr":"2001:db8::/32"}`, `"2001:DB8:1::"`, true},
		{`{"cidr":"2001:db8::/32"}`, `"2001:db9::"`, false}, {`{"cidr":"10.0.0.0/8"}`, `"::ffff:a01:203"`, true}, {`{"cidr":"10.0.0.0/8"}`, `"10.1.2.3.4"`, false},
		{`{"cidr":"10.0.0.0/8"}`, `10.1`, false}, {`{"anything-but":"10.0.0.1"}`, `"10.0.0.1"`, false}, {`"1.2.3.4"`, `"1.2.3.4"`, true}, {`":"`, `":"`, true},
		{`{"equals-ignore-case":"STRASSE é"}`, `"strasse É"`, true}, {`{"prefix":{"equals-ignore-case":"ÉT"}}`, `"été"`, true}, {`{"suffix":{"equals-ignore-case":"TÉ"}}`, `"été"`, true},
		{`"é\u0041"`, `"\u00e9A"`, true}, {`{"wildcard":"a\\*b\\\\*"}`, `"a*b\\c"`, true}, {`{"wildcard":"a\\*b"}`, `"axb"`, false},
		{`{"wildcard":"*ab*ab*"}`, `"xabxab"`, true}, {`{"wildcard":"ab*ba"}`, `"aba"`, false}, {`{"wildcard":"*aab"}`, `"aaab"`, true}, {`{"wildcard":"*a*b"}`, `"b"`, false},
		{`{"prefix":"` + strings.Repeat("p", 300) + `"}`, `"` + strings.Repeat("p", 301) + `"`, true}, {`{"prefix":"` + strings.Repeat("p", 300) + `"}`, `"` + strings.Repeat("p", 299) + `"`, false},
		{`{"suffix":"` + strings.Repeat("p", 300) + `"}`, `"` + strings.Repeat("p", 301) + `"`, true},
	} {
		t.Run(c.value+" "+c.event, func(t *testing.T) {
			t.Parallel()
			if got := matches(t, `{"f":[`+c.value+`]}`, `{"f":`+c.event+`}`); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestCompile_SaysWhereAndWhatIsWrong(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ pattern, want string }{
		{``, "1:1 pattern-object $: an event pattern must be a JSON object"},
		{`["a"]`, "1:1 pattern-object $: an event pattern must be a JSON object"},
		{`{}`, "1:1 pattern-empty $: an object without fields"},
		{"{\n  \"a\": {}}", "2:8 pattern-empty $.a: an object without fields"},
		{"{\n  \"a\": [1],\n  \"b\": [,]\n}", "3:9 pattern-syntax not JSON: a value is wanted, not ','"},
		{`{"a":[1]} x`, "1:11 pattern-syntax not JSON: more text after the value"},
		{`{"a":[1`, "1:8 pattern-syntax not JSON: the text ends where a comma or ']' should be"},
		{`{"a":"x"}`, "1:2 pattern-value $.a: the value must be a list of what may match, or an object of fields"},
		{`{"a":{"b c":5}}`, `1:7 pattern-value $.a["b c"]: the value must be a list of what may match, or an object of fields`},
		{`{"a":[]}`, "1:6 pattern-empty $.a: an empty list matches nothing"},
		{`{"a":[[1]]}`, "1:7 pattern-value $.a[0]: a list within a list"},
		{`{"a":[1],"a":[2]}`, `1:10 pattern-twice $.a: the field "a" is tested twice`},
		{`{"a":{"b":[1]},"a.b":[2]}`, `1:16 pattern-twice $["a.b"]: the field "a.b" is tested twice`},
		{`{"a":[1],"$or":[{"a":[2]},{"b":[1]}]}`, `1:18 pattern-twice $.$or[0].a: the field "a" is tested twice`},
		{`{"a":[{"perfix":"x"}]}`, `1:8 pattern-operator $.a[0].perfix: unknown operator "perfix"`},
		{`{"a":[{}]}`, "1:7 pattern-operator $.a[0]: an operator is missing"},
		{`{"a":[{"prefix":"x","suffix":"y"}]}`, "1:21 pattern-operator $.a[0].suffix: a second operator in one object"},
		{`{"a":[{"prefix":5}]}`, "1:17 pattern-operand $.a[0].prefix: the operand must be a string"},
		{`{"a":[{"prefix":{"suffix":"x"}}]}`, "1:18 pattern-operator $.a[0].prefix.suffix: prefix may hold equals-ignore-case alone"},
		{`{"a":[{"prefix":{}}]}`, "1:17 pattern-operator $.a[0].prefix: an operator is missing"},
		{`{"a":[{"suffix":{"equals-ignore-case":1}}]}`, "1:39 pattern-operand $.a[0].suffix.equals-ignore-case: the operand must be a string"},
		{`{"a":[{"equals-ignore-case":["x"]}]}`, "1:29 pattern-operand $.a[0].equals-ignore-case: the operand must be a string"},
		{`{"a":[{"exists":"yes"}]}`, "1:17 pattern-exists $.a[0].exists: exists must be true or false"},
		{`{"a":[{"wildcard":"a**b"}]}`, "1:19 pattern-wildcard $.a[0].wildcard: two wildcards in a row"},
		{`{"a":[{"wildcard":"a\\b"}]}`, "1:19 pattern-wildcard $.a[0].wildcard: a backslash before something else than * or a backslash"},
		{`{"a":[{"wildcard":"a\\"}]}`, "1:19 pattern-wildcard $.a[0].wildcard: a backslash before something else than * or a backslash"},
		{`{"a":[{"cidr":"10.0.0.0"}]}`, `1:15 pattern-cidr $.a[0].cidr: "10.0.0.0" is no range of addresses`},
		{`{"a":[{"cidr":"10.0.0.0/32"}]}`, "1:15 pattern-cidr $.a[0].cidr: a range of IPv4 addresses has at most 31 bits"},
		{`{"a":[{"cidr":"::1/128"}]}`, "1:15 pattern-cidr $.a[0].cidr: a range of IPv6 addresses has at most 127 bits"},
		{`{"a":[{"cidr":"300.0.0.0/8"}]}`, `1:15 pattern-cidr $.a[0].cidr: "300.0.0.0/8" is no range of addresses`},
		{`{"a":[{"cidr":"10.0.0.0/-1"}]}`, `1:15 pattern-cidr $.a[0].cidr: "10.0.0.0/-1" is no range of addresses`},
		{`{"a":[{"numeric":5}]}`, "1:18 pattern-numeric $.a[0].numeric: numeric must be a list"},
		{`{"a":[{"numeric":[]}]}`, "1:18 pattern-numeric $.a[0].numeric: a comparison and a number, once or twice"},
		{`{"a":[{"numeric":["<"]}]}`, "1:18 pattern-numeric $.a[0].numeric: a comparison and a number, once or twice"},
		{`{"a":[{"numeric":["!=",5]}]}`, `1:19 pattern-numeric $.a[0].numeric: no such comparison here: "!="`},
		{`{"a":[{"numeric":["<",5,">",1]}]}`, `1:25 pattern-numeric $.a[0].numeric: no such comparison here: ">"`},
		{`{"a":[{"numeric":["<",5,"<",6]}]}`, `1:25 pattern-numeric $.a[0].numeric: no such comparison here: "<"`},
		{`{"a":[{"numeric":["=",5,"<",6]}]}`, `1:25 pattern-numeric $.a[0].numeric: no such comparison here: "<"`},
		{`{"a":[{"numeric":["<","5"]}]}`, "1:23 pattern-numeric $.a[0].numeric: a number is wanted here"},
		{`{"a":[{"numeric":[5,"<"]}]}`, "1:19 pattern-numeric $.a[0].numeric: a comparison is wanted here: =, <, <=, > or >="},
		{`{"a":[{"numeric":[">",5,"<",5]}]}`, "1:18 pattern-numeric $.a[0].numeric: no number lies in this range"},
		{`{"a":[{"numeric":[">",1,"<",5,"<",6]}]}`, "1:31 pattern-numeric $.a[0].numeric: too many elements"},
		{`{"a":[{"numeric":["<",12345678901234567890123]}]}`, "1:23 pattern-numeric $.a[0].numeric: 12345678901234567890123 cannot be compared: it has too many digits"},
		{`{"a":[{"anything-but":[]}]}`, "1:23 pattern-empty $.a[0].anything-but: an empty list"},
		{`{"a":[{"anything-but":[1,"x"]}]}`, "1:26 pattern-operand $.a[0].anything-but[1]: strings and numbers cannot stand in one anything-but"},
		{`{"a":[{"anything-but":true}]}`, "1:23 pattern-operand $.a[0].anything-but: anything-but takes strings and numbers"},
		{`{"a":[{"anything-but":{"numeric":["<",1]}}]}`, `1:24 pattern-operator $.a[0].anything-but.numeric: anything-but may hold one of its operators, not "numeric"`},
		{`{"a":[{"anything-but":{"prefix":""}}]}`, "1:33 pattern-operand $.a[0].anything-but.prefix: every string begins and ends with an empty one"},
		{`{"a":[{"anything-but":{"prefix":["x",1]}}]}`, "1:38 pattern-operand $.a[0].anything-but.prefix[1]: the operand must be a string"},
		{`{"a":[{"anything-but":{"wildcard":"**"}}]}`, "1:35 pattern-wildcard $.a[0].anything-but.wildcard: two wildcards in a row"},
		{`{"a":[{"anything-but":{}}]}`, "1:23 pattern-operator $.a[0].anything-but: an operator is missing"},
		{`{"$or":{"a":[1]}}`, "1:2 pattern-or $.$or: $or must be a list of objects"},
		{`{"$or":[{"a":[1]}]}`, "1:2 pattern-or $.$or: $or needs two alternatives"},
		{`{"$or":[{"a":[1]},5]}`, "1:19 pattern-or $.$or[1]: only objects may stand in $or"},
		{`{"$or":[{"numeric":["<",1]},{"a":[1]}]}`, `1:10 pattern-reserved $.$or[0].numeric: "numeric" cannot be the name of a field within $or`},
		{strings.Repeat(`{"a":`, 65) + `[1]` + strings.Repeat("}", 65), "1:321 pattern-syntax not JSON: more than 64 objects and arrays within each other"},
		{`{"a":["` + strings.Repeat("x", 4096) + `"]}`, "1:1 pattern-too-large $: the pattern has 4106 bytes"},
	} {
		t.Run(c.pattern[:min(60, len(c.pattern))], func(t *testing.T) {
			t.Parallel()
			p, list := pattern.Compile([]byte(c.pattern), pattern.Options{})
			if p != nil || len(list) != 1 {
				t.Fatalf("pattern %v, %v", p, list)
			}
			d := list[0]
			if got := fmt.Sprintf("%d:%d %s %s", d.Line, d.Col, d.Code, d.Message); got != c.want || d.Severity != diag.Error {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if err := pattern.Fault(list); errs.CodeOf(err) != errs.Invalid || errs.HintOf(err) != d.Hint {
				t.Errorf("as an error: %v, hint %q", err, errs.HintOf(err))
			}
		})
	}
}

func TestCompile_CollectsAllFaultsAndHints(t *testing.T) {
	t.Parallel()
	_, list := pattern.Compile([]byte(`{"a":[{"wildcrad":"x"}],"b":"x","c":[{"anything-but":{"sufix":"x"}}]}`), pattern.Options{File: "app.yml"})
	var got []string
	for _, d := range list {
		got = append(got, d.Pos.String()+" "+d.Hint)
	}
	want := `app.yml:1:8 Did you mean "wildcard"?|app.yml:1:25 Values stand in a list: "b": [...].|app.yml:1:55 Did you mean "suffix"?`
	if strings.Join(got, "|") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, "|"), want)
	}
}

func TestCompile_BoundsCombinations(t *testing.T) {
	t.Parallel()
	or := func(n int) string {
		var alts []string
		for i := range n {
			alts = append(alts, fmt.Sprintf(`{"f%d":[1]}`, i))
		}
		return `"$or":[` + strings.Join(alts, ",") + `]`
	}
	nested := func(a, b int) string {
		return `{` + or(a) + `,"x":{` + or(b) + `}}`
	}
	if p, list := pattern.Compile([]byte(nested(25, 40)), pattern.Options{}); p == nil {
		t.Errorf("1,000 combinations are refused: %v", list)
	}
	_, list := pattern.Compile([]byte(nested(25, 41)), pattern.Options{})
	if len(list) != 1 || list[0].Code != "pattern-combinations" {
		t.Errorf("1,025 combinations: %v", list)
	}
	deep := `{` + or(30) + `,"a":{` + or(30) + `},"b":{` + or(30) + `},"c":{` + or(30) + `},"d":{` + or(30) + `}}`
	if _, list := pattern.Compile([]byte(deep), pattern.Options{}); !list.HasErrors() {
		t.Error("24 million combinations are taken")
	}
}

// What a pattern costs must not be its fields multiplied by its combinations.
func TestCompile_BoundsConditions(t *testing.T) {
	t.Parallel()
	fields := func(n int) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf(`"g%d":[1]`, i))
		}
		return strings.Join(all, ",")
	}
	or := func(name string) string {
		return `"` + name + `":{"$or":[` + strings.TrimSuffix(strings.Repeat(`{"x":[1]},`, 10), ",") + `]},`
	}
	o := pattern.Options{MaxBytes: 1 << 20}
	if p, list := pattern.Compile([]byte(`{`+fields(2000)+`}`), o); p == nil {
		t.Error(list)
	}
	for _, source := range []string{`{` + fields(2001) + `}`, `{` + or("a") + or("b") + or("c") + fields(1000) + `}`, `{` + fields(1000) + `,` + or("a") + or("b") + or("c") + `"z":[1]}`} {
		if p, list := pattern.Compile([]byte(source), o); p != nil || len(list) != 1 || list[0].Code != "pattern-fields" {
			t.Error(list)
		}
	}
}

func TestCompile_WarnsOfNumbersBeyondWhatAWSDocuments(t *testing.T) {
	t.Parallel()
	p, list := pattern.Compile([]byte(`{"a":[{"numeric":["<",6e9]}]}`), pattern.Options{})
	if p == nil || len(list) != 1 || list[0].Severity != diag.Warning {
		t.Errorf("%v, %v", p, list)
	}
}

func TestMatch_RefusesWhatIsNoEvent(t *testing.T) {
	t.Parallel()
	p := must(t, `{"a":[1]}`)
	big := string(make([]byte, pattern.MaxEventBytes+1))
	for event, code := range map[string]errs.Code{``: errs.Invalid, `[]`: errs.Invalid, `5`: errs.Invalid, `{"a":1`: errs.Invalid, `{"a":1}}`: errs.Invalid, `{"b":tru}`: errs.Invalid,
		`{"a":` + strings.Repeat("[", 600) + strings.Repeat("]", 600) + `}`: errs.Invalid, big: errs.TooLarge} {
		if ok, err := p.Match([]byte(event)); ok || errs.CodeOf(err) != code {
			t.Errorf("%.40s: %v, %v", event, ok, err)
		}
		set := pattern.NewSet[int]()
		if ids, err := set.Match([]byte(event), nil); len(ids) > 0 || errs.CodeOf(err) != code {
			t.Errorf("%.40s in an empty Set: %v, %v", event, ids, err)
		}
	}
}

// A pattern over several fields of long arrays must not take the product of their lengths.
func TestMatch_IsBoundedOnLongArrays(t *testing.T) {
	t.Parallel()
	long := func(key string, n int) string {
		return `"` + key + `":[` + strings.TrimSuffix(strings.Repeat(`{"x":1,"y":1,"z":2},`, n), ",") + `]`
	}
	p := must(t, `{"a":{"x":[1],"y":[1],"z":[3]},"b":{"x":[1],"y":[1],"z":[2]},"c":{"x":[1],"y":[1]}}`)
	q := must(t, `{"a":{"x":[1],"y":[1],"z":[2]},"b":{"x":[1],"y":[1],"z":[2]},"c":{"x":[1],"y":[1]}}`)
	e := `{` + long("a", 3000) + `,` + long("b", 3000) + `,` + long("c", 3000) + `}`
	if ok, err := p.Match([]byte(e)); ok || err != nil {
		t.Error(ok, err)
	}
	if ok, err := q.Match([]byte(e)); !ok || err != nil {
		t.Error(ok, err)
	}
	// The same array many times under one name cannot be dropped early; it ends with an error, not with an answer.
	var twice []string
	for range 400 {
		twice = append(twice, long("a", 4))
	}
	r := must(t, `{"a":{"w":["no",{"exists":false}],"x":[1],"y":[1],"z":[3,2]}}`)
	if _, err := r.Match([]byte(`{` + strings.Join(twice, ",") + `}`)); err != nil && errs.CodeOf(err) != errs.TooLarge {
		t.Error(err)
	}
}

func FuzzCompile(f *testing.F) {
	for _, s := range []string{`{"a":[1]}`, `{"a":[{"numeric":[">",0,"<=",5]}],"$or":[{"b":[{"prefix":"x"}]},{"c":{"d":[null]}}]}`, `{"a":[{"anything-but":{"wildcard":["*x","y*"]}}]}`,
		`{"a":[{"cidr":"::/0"},{"exists":false},{"suffix":{"equals-ignore-case":"é"}}]}`} {
		f.Add([]byte(s), []byte(ec2))
	}
	f.Fuzz(func(t *testing.T, source, event []byte) {
		p, list := pattern.Compile(source, pattern.Options{})
		if (p == nil) != list.HasErrors() {
			t.Fatalf("pattern %v with %v", p, list)
		}
		for _, d := range list {
			if d.Line < 1 || d.Col < 1 || d.Message == "" {
				t.Fatalf("without a place: %+v", d)
			}
		}
		if p == nil {
			return
		}
		alone, err := p.Match(event)
		set := pattern.NewSet[int]()
		set.Add(1, p)
		ids, err2 := set.Match(event, nil)
		if (err == nil) != (err2 == nil) || err == nil && (len(ids) == 1) != alone {
			t.Fatalf("alone %v %v, in a Set %v %v", alone, err, ids, err2)
		}
	})
}
