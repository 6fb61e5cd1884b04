package filter_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/bus/cesql"
	"github.com/ebb-run/ebb/internal/bus/filter"
	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/errs"
)

// lines are diagnostics, one a line: place, severity's first letter, code and message.
func lines(list diag.List) string {
	var all []string
	for _, d := range list {
		all = append(all, fmt.Sprintf("%d:%d %.1s %s %s", d.Line, d.Col, d.Severity, d.Code, d.Message))
	}
	return strings.Join(all, "\n")
}

var message = map[string]filter.Attribute{
	"interests": {"String.Array", `["soccer", "rugby", 5, null, true]`},
	"store":     {"String", "example_corp"},
	"event":     {"String", `say "hi"\now`},
	"price":     {"Number", "210.75"},
	"count":     {"Number", "1e2"},
	"odd":       {"Number", "007"},
	"true":      {"Number", "true"},
	"blob":      {"Binary", "aGk="},
	"list":      {"String.Array", `not a list`},
	"ip":        {"String", "10.0.0.7"},
	"number":    {"String", "5"},
	"custom":    {"String.json", "x"},
	"empty":     {"String", ""},
}

func TestPolicy_MatchesAttributesByTheirTypes(t *testing.T) {
	t.Parallel()
	for policy, want := range map[string]bool{
		`{}`: true, ` { } `: true,
		`{"store":["example_corp"]}`: true, `{"store":["other"]}`: false, `{"store":["Example_corp"]}`: false, `{"absent":["x"]}`: false,
		`{"store":["other",{"prefix":"exam"}],"price":[{"numeric":[">",200,"<=",300]}]}`: true,
		`{"store":[{"prefix":"exam"}],"price":[{"numeric":["<",200]}]}`:                  false,
		`{"interests":["rugby"]}`: true, `{"interests":["hockey"]}`: false, `{"interests":[5]}`: true, `{"interests":[null]}`: true, `{"interests":[true]}`: true, `{"interests":[{"anything-but":["soccer"]}]}`: true,
		`{"price":[210.75]}`: true, `{"price":["210.75"]}`: false, `{"count":[{"numeric":["=",100]}]}`: true, `{"price":[{"anything-but":[210.75]}]}`: false, `{"number":[5]}`: false, `{"number":["5"]}`: true,
		`{"odd":[7]}`: false, `{"odd":[{"exists":false}]}`: true, `{"true":[true]}`: false, `{"blob":[{"exists":true}]}`: false, `{"list":[{"exists":true}]}`: false, `{"store":[{"exists":true}]}`: true, `{"absent":[{"exists":false}]}`: true,
		`{"ip":[{"cidr":"10.0.0.0/24"}]}`: true, `{"event":["say \"hi\"\\now"]}`: true, `{"custom":["x"]}`: true, `{"empty":[""]}`: true, `{"store":[{"suffix":"_corp"}]}`: true, `{"store":[{"equals-ignore-case":"EXAMPLE_CORP"}]}`: true,
		`{"$or":[{"store":["x"]},{"price":[210.75]}]}`: true, `{"$or":[{"store":["x"]},{"price":[1]}]}`: false, `{"store":[{"anything-but":{"prefix":"ex"}}]}`: false,
	} {
		p, list := filter.CompilePolicy([]byte(policy), "", "")
		if p == nil {
			t.Errorf("%s: %v", policy, list)
			continue
		}
		if got, err := p.Match(message, []byte(`{"store":["not looked at"]}`)); got != want || err != nil {
			t.Errorf("%s: %v, %v", policy, got, err)
		}
	}
}

func TestPolicy_MatchesBodies(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		policy, body string
		want         bool
	}{
		{`{"store":["x"]}`, `{"store":"x"}`, true}, {`{"store":["x"]}`, `{"store":["y","x"]}`, true}, {`{"store":["example_corp"]}`, `{}`, false},
		{`{"a":{"b":[{"numeric":[">",1]}]}}`, `{"a":{"b":2}}`, true}, {`{"a":{"b":[1],"c":[2]}}`, `{"a":[{"b":1,"c":3},{"b":1,"c":2}]}`, true}, {`{"a":{"b":[1],"c":[2]}}`, `{"a":[{"b":1,"c":3},{"b":2,"c":2}]}`, false},
		{`{"a":[{"exists":false}]}`, `hello`, false}, {`{"a":[{"exists":false}]}`, `["a"]`, false}, {`{"a":[{"exists":false}]}`, `{}`, true}, {`{"a":[{"exists":false}]}`, `{`, false}, {`{"a":[{"exists":false}]}`, ``, false}, {`{}`, `hello`, true},
	} {
		p, list := filter.CompilePolicy([]byte(c.policy), filter.MessageBody, "")
		if p == nil {
			t.Fatal(list)
		}
		if got, err := p.Match(message, []byte(c.body)); got != c.want || err != nil {
			t.Errorf("%s, %s: %v, %v", c.policy, c.body, got, err)
		}
	}
}

func TestCompilePolicy_RefusesWhatSNSRefuses(t *testing.T) {
	t.Parallel()
	many := func(n int) string { return strings.TrimSuffix(strings.Repeat(`"x",`, n), ",") }
	for _, c := range []struct {
		policy string
		scope  filter.Scope
		want   string
	}{
		{`{"a":{"b":[1]}}`, filter.MessageAttributes, "1:2 e policy-nested $.a: message attributes do not nest"},
		{`{"a":{"b":[1]}}`, filter.MessageBody, ""},
		{`{"a":[1],"b":[1],"c":[1],"d":[1],"e":[1]}`, "", ""},
		{`{"a":[1],"b":[1],"c":[1],"d":[1],"e":[1],"f":[1]}`, "", "1:42 e policy-keys $: a filter policy may have 5 keys"},
		{`{"a":[` + many(15) + `],"b":[` + many(10) + `]}`, "", ""},
		{`{"a":[` + many(15) + `],"b":[` + many(11) + `]}`, "", "1:1 e policy-combinations $: the values make 165 combinations; 150 are allowed"},
		{`{"a":{"b":{"c":[1,2,3,4]}},"d":{"e":[1,2,3]}}`, filter.MessageBody, ""}, // 3 × 4 × 2 × 3 = 72
		{`{"a":{"b":{"c":[1,2,3,4]}},"d":{"e":[1,2,3,4,5,6,7]}}`, filter.MessageBody, "1:1 e policy-combinations $: the values make 168 combinations; 150 are allowed"},
		{`{"$or":[{"a":[` + many(75) + `]},{"b":[` + many(76) + `]}]}`, "", "1:1 e policy-combinations $: the values make 151 combinations; 150 are allowed"},
		{`{"a":[{"numeric":["<",2e9]}]}`, "", "1:23 w pattern-number $.a[0].numeric: AWS documents numbers between -1e+09 and 1e+09 only"},
		{`{"a":[{"perfix":"x"}]}`, "", `1:8 e pattern-operator $.a[0].perfix: unknown operator "perfix"`},
		{`[]`, "", "1:1 e pattern-object $: an event pattern must be a JSON object"},
		{`{"a":[1]}`, "Headers", `1:1 e policy-scope $: there is no filter policy scope "Headers"`},
	} {
		p, list := filter.CompilePolicy([]byte(c.policy), c.scope, "")
		if got := lines(list); got != c.want || (p == nil) != list.HasErrors() {
			t.Errorf("%s\ngot  %s\nwant %s", c.policy, got, c.want)
		}
	}
}

func sqs(body string) string {
	b, _ := json.Marshal(body)
	return `{"messageId":"m-1","body":` + string(b) + `,"attributes":{"SenderId":"s"},"eventSource":"aws:sqs"}`
}

func kinesis(data string) string {
	return `{"kinesis":{"partitionKey":"p1","data":"` + base64.StdEncoding.EncodeToString([]byte(data)) + `"},"eventSource":"aws:kinesis","eventID":"e"}`
}

const dynamo = `{"eventID":"1","eventName":"INSERT","dynamodb":{"Keys":{"Id":{"N":"101"}},"NewImage":{"Message":{"S":"New item!"},"Id":{"N":"101"}},"SizeBytes":26},"eventSource":"aws:dynamodb"}`

func TestCriteria_MatchRecordsOfTheSameForm(t *testing.T) {
	t.Parallel()
	order := `{"RecordNumber":1234,"RequestCode":"BBBB"}`
	for _, c := range []struct {
		source   filter.Source
		patterns string // separated by blank bars
		record   string
		want     bool
	}{
		{filter.Queue, ``, sqs("anything"), true},
		{filter.Queue, `{"body":{"RequestCode":["BBBB"]}}`, sqs(order), true},
		{filter.Queue, `{"body":{"RequestCode":["AAAA"]}}`, sqs(order), false},
		{filter.Queue, `{"body":{"RequestCode":["AAAA"]}} | {"body":{"RecordNumber":[{"numeric":[">",1000]}]}}`, sqs(order), true},
		{filter.Queue, `{"body":{"RequestCode":["BBBB"]}}`, sqs("plain"), false},
		{filter.Queue, `{"body":{"x":[{"exists":false}]}}`, sqs("plain"), false},
		{filter.Queue, `{"body":{"x":[{"exists":false}]}}`, sqs(order), true},
		{filter.Queue, `{"body":["plain"]}`, sqs("plain"), true},
		{filter.Queue, `{"body":[{"prefix":"pl"}]}`, sqs("plain"), true},
		{filter.Queue, `{"body":["5"]}`, sqs("5"), true},
		{filter.Queue, `{"body":[{"exists":false}]}`, sqs(order), false},
		{filter.Queue, `{"body":[{"prefix":"{"}]}`, sqs(order), false},
		{filter.Queue, `{"body":[{"prefix":"{"}]}`, sqs("{ no json"), true},
		{filter.Queue, `{"messageId":["m-1"]}`, sqs(order), true},
		{filter.Queue, `{"messageId":["m-1"]}`, sqs("plain"), true},
		{filter.Queue, `{"attributes":{"SenderId":["t"]}}`, sqs("plain"), false},
		{filter.Queue, `{"$or":[{"body":["plain"]},{"body":{"RecordNumber":[1234]}}]}`, sqs("plain"), true},
		{filter.Queue, `{"$or":[{"body":["plain"]},{"body":{"RecordNumber":[1234]}}]}`, sqs(order), true},
		{filter.Queue, `{"body.RecordNumber":[1234]}`, sqs(order), true},
		{filter.Queue, `{"body":{"a":[1]}}`, sqs(`[{"a":2},{"a":1}]`), true},
		{filter.Stream, `{"data":{"City":["Seattle"]}}`, kinesis(`{"City":"Seattle"}`), true},
		{filter.Stream, `{"data":{"City":["Berlin"]}}`, kinesis(`{"City":"Seattle"}`), false},
		{filter.Stream, `{"partitionKey":["p1"],"data":{"City":["Seattle"]}}`, kinesis(`{"City":"Seattle"}`), true},
		{filter.Stream, `{"partitionKey":["p1"]}`, kinesis("\x00\xff"), true},
		{filter.Stream, `{"data":{"x":[{"exists":false}]}}`, kinesis("plain"), false},
		{filter.Table, `{"eventName":["INSERT"]}`, dynamo, true},
		{filter.Table, `{"eventName":["REMOVE"]}`, dynamo, false},
		{filter.Table, `{"dynamodb":{"Keys":{"Id":{"N":["101"]}}}}`, dynamo, true},
		{filter.Table, `{"dynamodb":{"NewImage":{"Id":{"N":[{"numeric":["=",101]}]}}}}`, dynamo, false}, // N holds a string
		{filter.Table, `{"dynamodb":{"OldImage":{"Id":{"N":[{"exists":false}]}}}}`, dynamo, true},
	} {
		var patterns []string
		if c.patterns != "" {
			patterns = strings.Split(c.patterns, " | ")
		}
		k, list := filter.CompileCriteria(patterns, c.source, "")
		if k == nil {
			t.Errorf("%s: %v", c.patterns, list)
			continue
		}
		if got, err := k.Match([]byte(c.record)); got != c.want || err != nil {
			t.Errorf("%s, %s: %v, %v", c.patterns, c.record, got, err)
		}
	}
}

func TestCriteria_RefuseWhatLambdaRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		source   filter.Source
		patterns []string
		want     string
	}{
		{filter.Stream, []string{`{"data":["x"]}`}, `1:2 e criteria-form filter 1: $.data: the pattern for data must be JSON`},
		{filter.Table, []string{`{"eventName":["x"]}`, `{"dynamodb":[{"prefix":"x"}]}`}, `1:2 e criteria-form filter 2: $.dynamodb: the pattern for dynamodb must be JSON`},
		{filter.Queue, []string{`{"body":{"a":[1]}}`, `{"body":{"a":1}}`}, `1:10 e pattern-value filter 2: $.body.a: the value must be a list of what may match, or an object of fields`},
		{filter.Queue, []string{`{"eventSource":["x"]}`}, `1:2 w criteria-metadata filter 1: $.eventSource: AWS filters messages of a queue by their body alone`},
		{"mq", nil, `0:0 e criteria-source records of "mq" cannot be filtered`},
		{filter.Queue, strings.Split(strings.Repeat(`{"body":["x"]} `, 11), " ")[:11], "0:0 e criteria-count 11 filters; 10 are allowed"},
	} {
		k, list := filter.CompileCriteria(c.patterns, c.source, "")
		if got := lines(list); got != c.want || (k == nil) != list.HasErrors() {
			t.Errorf("%s\ngot  %s\nwant %s", c.patterns, got, c.want)
		}
	}
}

func TestCriteria_SayWhatIsNoRecord(t *testing.T) {
	t.Parallel()
	for source, records := range map[filter.Source][]string{
		filter.Queue:  {``, `[]`, `{"body":"x"`, `{"body":"x"} y`},
		filter.Stream: {`{}`, `{"kinesis":5}`, `{"kinesis":{"data":"###"}}`, `{"kinesis":{"data":"eA=="}} x`},
		filter.Table:  {`{`, `5`, `{} {}`},
	} {
		k, list := filter.CompileCriteria([]string{`{"x":[1]}`}, source, "")
		if k == nil {
			t.Fatal(list)
		}
		for _, r := range records {
			if ok, err := k.Match([]byte(r)); ok || errs.CodeOf(err) != errs.Invalid {
				t.Errorf("%s, %q: %v, %v", source, r, ok, err)
			}
		}
	}
}

func order(name string) (cesql.Value, bool) {
	v, ok := map[string]cesql.Value{"id": cesql.String("o-1"), "source": cesql.String("/shop/berlin"), "type": cesql.String("order.placed"), "n": cesql.Integer(12), "gift": cesql.Boolean(true)}[name]
	return v, ok
}

func TestFilter_FollowsTheSubscriptionsAPI(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]bool{
		`[]`: true, `{"exact":{"type":"order.placed"}}`: true, `{"exact":{"type":"order"}}`: false, `{"exact":{"type":"order.placed","id":"x"}}`: false, `{"exact":{"subject":"x"}}`: false, `{"exact":{"n":"12","gift":"true"}}`: true,
		`{"prefix":{"type":"order.","source":"/shop"}}`: true, `{"prefix":{"type":"ORDER"}}`: false, `{"suffix":{"type":".placed"}}`: true, `{"suffix":{"source":"paris"}}`: false, `{"prefix":{"subject":"x"}}`: false,
		`{"all":[{"prefix":{"type":"order"}},{"exact":{"id":"o-1"}}]}`: true, `{"all":[{"prefix":{"type":"order"}},{"exact":{"id":"o-2"}}]}`: false,
		`{"any":[{"prefix":{"type":"x"}},{"exact":{"id":"o-1"}}]}`: true, `{"any":[{"prefix":{"type":"x"}}]}`: false, `{"not":{"exact":{"id":"o-1"}}}`: false, `{"not":{"exact":{"subject":"x"}}}`: true,
		`{"sql":"source LIKE '/shop/%' AND n > 10"}`: true, `{"sql":"n"}`: false, `{"sql":"nothing = 1"}`: false, `{"not":{"sql":"nothing = 1"}}`: true, `{"sql":"type = \"order.placed\""}`: true,
		`[{"exact":{"id":"o-1"}},{"not":{"any":[{"sql":"n = 1"},{"suffix":{"type":"x"}}]}}]`: true, `[{"exact":{"id":"o-1"}},{"exact":{"id":"o-2"}}]`: false,
	} {
		f, list := filter.CompileFilter([]byte(source), "")
		if f == nil {
			t.Errorf("%s: %v", source, list)
			continue
		}
		if got := f.Match(order); got != want {
			t.Errorf("%s: %v", source, got)
		}
	}
}

func TestCompileFilter_SaysWhereAndWhatIsWrong(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]string{
		``: "1:1 e filter-syntax not JSON: the text ends where a value should be", `"x"`: "1:1 e filter-expression $: a filter expression must be an object", `{}`: "1:1 e filter-expression $: a filter expression without a dialect",
		`{"exakt":{"type":"x"}}`: `1:2 e filter-dialect $.exakt: unknown filter dialect "exakt"`, `{"exact":{"type":"x"},"not":{}}`: "1:23 e filter-expression $.not: a second dialect in one filter expression",
		`{"exact":{}}`: "1:10 e filter-attributes $.exact: no attribute is named", `{"exact":"x"}`: "1:10 e filter-attributes $.exact: an object of attributes is wanted", `{"exact":{"type":""}}`: "1:18 e filter-value $.exact.type: the value must be a string that is not empty",
		`{"exact":{"type":5}}`: "1:18 e filter-value $.exact.type: the value must be a string that is not empty", `{"exact":{"Type":"x"}}`: `1:11 e filter-name $.exact.Type: "Type" cannot be the name of an attribute`,
		`{"all":[]}`: "1:8 e filter-list $.all: the list needs a filter expression", `{"any":{"exact":{"id":"x"}}}`: "1:8 e filter-list $.any: a list of filter expressions is wanted", `{"all":[{"exact":{"id":"x"}},5]}`: "1:30 e filter-expression $.all[1]: a filter expression must be an object",
		`{"not":[]}`: "1:8 e filter-expression $.not: a filter expression must be an object", `{"sql":5}`: "1:8 e filter-sql $.sql: a CESQL expression in a string is wanted", `{"sql":"id = "}`: "1:14 e filter-sql $.sql: the expression ends where a value should be",
		"[\n {\"sql\":\"LENGHT(id) = 1\"}]": "2:10 e cesql-function $[0].sql: there is no function LENGHT of 1 arguments", `{"sql":"a AND b OR c"}`: "1:17 w cesql-mixed $.sql: OR after AND: they are taken from left to right",
		`{"sql":"\u0069d # 1"}`: "1:8 e filter-sql $.sql: '#' has no meaning here", `{"exact":{"id":"x"}} x`: "1:22 e filter-syntax not JSON: more text after the value",
		strings.Repeat(`{"not":`, 70): "1:449 e filter-syntax not JSON: more than 64 objects and arrays within each other",
	} {
		f, list := filter.CompileFilter([]byte(source), "")
		if got := lines(list); got != want || (f == nil) != list.HasErrors() {
			t.Errorf("%s\ngot  %s\nwant %s", source, got, want)
		}
	}
}

func FuzzFilters(f *testing.F) {
	f.Add([]byte(`{"any":[{"exact":{"type":"x"}},{"not":{"sql":"id LIKE '%x'"}}]}`), []byte(sqs(`{"a":1}`)))
	f.Add([]byte(`{"body":{"a":[1]},"data":{"x":[{"exists":false}]}}`), []byte(kinesis(`{"x":1}`)))
	f.Add([]byte(`{"$or":[{"a":["x"]},{"b":[{"prefix":"y"}]}]}`), []byte(dynamo))
	f.Fuzz(func(t *testing.T, source, record []byte) {
		if x, list := filter.CompileFilter(source, ""); (x == nil) != list.HasErrors() {
			t.Fatal(x, list)
		} else if x != nil {
			x.Match(order)
		}
		for _, s := range []filter.Source{filter.Queue, filter.Stream, filter.Table} {
			k, list := filter.CompileCriteria([]string{string(source)}, s, "")
			if (k == nil) != list.HasErrors() {
				t.Fatal(k, list)
			}
			if k == nil {
				continue
			}
			if _, err := k.Match(record); err != nil && errs.CodeOf(err) != errs.Invalid && errs.CodeOf(err) != errs.TooLarge {
				t.Fatal(err)
			}
		}
		for _, s := range []filter.Scope{filter.MessageAttributes, filter.MessageBody} {
			p, list := filter.CompilePolicy(source, s, "")
			if (p == nil) != list.HasErrors() {
				t.Fatal(p, list)
			}
			if p == nil {
				continue
			}
			attributes := map[string]filter.Attribute{"a": {"String", string(record)}, "b": {"String.Array", string(record)}, "c": {"Number", string(record)}}
			if _, err := p.Match(attributes, record); err != nil && errs.CodeOf(err) != errs.TooLarge {
				t.Fatalf("%q %q: %v", source, record, err)
			}
		}
	})
}
