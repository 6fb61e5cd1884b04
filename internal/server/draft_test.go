package server

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/bus/rule"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
	"github.com/ebb-run/ebb/internal/invocation"
)

// drafted reads a draft as a put does, as far as nothing has to stand.
func drafted(doc string, parts bool) (*draft, json.RawMessage, error) {
	d, err := readDraft([]byte(doc), parts)
	if err != nil {
		return nil, nil, err
	}
	if err := d.check("x"); err != nil {
		return nil, nil, err
	}
	filter, err := d.filter("123456789012", "us-east-1")
	if err != nil {
		return nil, nil, err
	}
	return d, filter, d.retry(&bus.Subscription{})
}

func TestDraft_SaysWhatIsWrongAndWhere(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ doc, says, hint string }{
		"no JSON":                    {"{\n  queue: 1}", "line 2, column 3: not JSON: ", ""},
		"nothing":                    {"", "line 1, column 1: not JSON", ""},
		"a list":                     {"[]", "line 1, column 1: not JSON: an object is wanted", ""},
		"two":                        {`{"queue":"q"} {}`, "line 1, column 15: not JSON: more text", ""},
		"an unknown member":          {"{\n  \"queue\": \"q\",\n  \"patern\": {}\n}", `line 3, column 3: a subscription has no "patern"`, `Did you mean "pattern"?`},
		"a member twice":             {`{"queue":"q","queue":"r"}`, `line 1, column 14: "queue" stands there twice`, ""},
		"a number for a string":      {`{"queue":5}`, "line 1, column 10: queue: a string is wanted, not a number", ""},
		"a text for a number":        {`{"queue":"q","retry":{"attempts":"5"}}`, "line 1, column 22: retry: attempts: a whole number is wanted, not a string", ""},
		"an unknown member of retry": {`{"queue":"q","retry":{"tries":5}}`, `line 1, column 22: retry: unknown field "tries"`, ""},
		"another name":               {`{"name":"y","queue":"q"}`, "line 1, column 9: name: it says y", ""},
		"a bus that is none":         {`{"bus":"a b","queue":"q"}`, "line 1, column 8: bus: ", ""},
		"no target":                  {`{}`, "it has no target", "Give one of"},
		"two targets":                {`{"queue":"q","topic":"t"}`, "line 1, column 22: topic: a subscription has one target", ""},
		"an endpoint that is none":   {`{"endpoint":"ftp://x"}`, "endpoint: its endpoint ftp://x is no http:// URL", ""},
		"a format that is none":      {`{"queue":"q","format":"xml"}`, `line 1, column 23: format: "xml" is no format`, ""},
		"binary to a queue":          {`{"queue":"q","format":"binary"}`, "format: binary is for endpoints", ""},
		"an input in another format": {`{"queue":"q","format":"data","input":"{}"}`, "format: an input takes the place", ""},
		"two inputs":                 {`{"queue":"q","input":"{}","inputPath":"$.detail"}`, "its input: ", ""},
		"a template with a variable": {`{"queue":"q","inputTransformer":{"inputTemplate":"<x>"}}`, "its input: ", ""},
		"a pattern":                  {"{\"queue\":\"q\",\n\"pattern\": {\"source\":\n   [{\"prefixx\": \"a\"}]}}", "line 3, column 6: pattern: $.source[0]", "prefix"},
		"a pattern on its line":      {`{"queue":"q","pattern":{"source":"a"}}`, "line 1, column 25: pattern: $.source", ""},
		"filters":                    {"{\"queue\":\"q\",\n\"filters\": [{\"exact\": {\"type\": \"\"}}]}", "line 2, column 32: filters: $[0].exact.type", ""},
		"SQL in filters":             {"{\"queue\":\"q\",\n\"filters\": {\"sql\": \"type =\"}}", "line 2, column 27: filters: $.sql", ""},
		"SQL":                        {"{\"queue\":\"q\",\n\"sql\": \"type LIKEE 'x'\"}", "line 2, column 14: sql: ", ""},
		"SQL without such functions": {`{"queue":"q","sql":"NOPE(type)"}`, "line 1, column 21: sql: ", ""},
		"pattern and SQL":            {`{"queue":"q","sql":"TRUE","pattern":{}}`, "not several of them", ""},
		"a duration":                 {`{"queue":"q","retry":{"maxAge":"2 days"}}`, `line 1, column 22: retry: maxAge is "2 days", not a duration`, ""},
		"a duration below nothing":   {`{"queue":"q","retry":{"minBackoff":"-1s"}}`, "retry: minBackoff", ""},
		"a duration without end":     {`{"queue":"q","retry":{"maxAge":"9999h"}}`, "retry: maxAge", ""},
		"waits the wrong way round":  {`{"queue":"q","retry":{"minBackoff":"2s","maxBackoff":"1s"}}`, "minBackoff is above maxBackoff", ""},
		"attempts below nothing":     {`{"queue":"q","retry":{"attempts":-1}}`, "attempts are 1 to", ""},
	} {
		_, _, err := drafted(row.doc, false)
		if errs.CodeOf(err) != errs.Invalid || !strings.Contains(err.Error(), row.says) || !strings.Contains(errs.HintOf(err), row.hint) {
			t.Errorf("%s: %v (%s), want it to say %q (%s)", name, err, errs.HintOf(err), row.says, row.hint)
		}
	}
	// With parts places are those in what a flag holds.
	for doc, says := range map[string]string{
		"{\"pattern\":{\n \"source\": 1},\"queue\":\"q\"}": "line 2, column 2: pattern: $.source",
		`{"queue":"q","sql":"type LIKEE 'x'"}`:             "line 1, column 6: sql: ",
		`{"queue":"q","filters":{"exakt":{"type":"t"}}}`:   "line 1, column 2: filters: ",
		`{"queue":"q","format":"xml"}`:                     `format: "xml" is no format`,
		`{"queue":"q","sql":"type LIKEE '\u0041\u0042'"}`:  "line 1, column 1: sql: ", // its escapes hide the place
	} {
		if _, _, err := drafted(doc, true); err == nil || !strings.HasPrefix(err.Error(), says) {
			t.Errorf("%s: %v, want %q", doc, err, says)
		}
	}
	for _, name := range []string{"", "a b", "a/b", ".a", strings.Repeat("a", 129)} {
		d, err := readDraft([]byte(`{"queue":"q"}`), false)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.check(name); errs.CodeOf(err) != errs.Invalid {
			t.Errorf("the name %q is taken", name)
		}
	}
}

func TestDraft_FiltersByEachKindOfExpression(t *testing.T) {
	t.Parallel()
	e := &event.Event{ID: "1", Source: "/shop/orders", Type: "order.paid", Data: []byte(`{"total":12}`)}
	e.SetExtension("tenant", "ann")
	for doc, want := range map[string]bool{
		`{"queue":"q"}`: true,
		`{"queue":"q","pattern":{"detail":{"total":[{"numeric":[">",10]}]}}}`:                         true,
		`{"queue":"q","pattern":{"detail-type":[{"anything-but":"order.paid"}]}}`:                     false,
		`{"queue":"q","sql":"type LIKE 'order.%' AND EXISTS tenant"}`:                                 true,
		`{"queue":"q","sql":"tenant = 'bob'"}`:                                                        false,
		`{"queue":"q","filters":[{"prefix":{"source":"/shop/"}},{"not":{"exact":{"tenant":"bob"}}}]}`: true,
		`{"queue":"q","filters":{"any":[{"suffix":{"type":".lost"}},{"sql":"INT(id) = 1"}]}}`:         true,
		`{"queue":"q","filters":{"all":[{"suffix":{"type":".paid"}},{"exact":{"source":"/shop"}}]}}`:  false,
		`{"queue":"q","filters":[]}`: true,
		`{"queue":"q","endpoint":"","pattern":{"source":[{"wildcard":"/shop/*"}]},"retry":null}`: true,
	} {
		_, filter, err := drafted(doc, false)
		if err != nil {
			t.Errorf("%s: %v", doc, err)
			continue
		}
		if len(filter) == 0 {
			filter = json.RawMessage("{}")
		}
		m, err := rule.Compile(filter)
		if err != nil || m.Match(e) != want {
			t.Errorf("%s: %v, want %v", doc, err, want)
		}
	}
}

func TestOwnOf_SetsTriesAndFormsByTarget(t *testing.T) {
	t.Parallel()
	s, d := declaring(t, &app.App{})
	retries := 1
	f := &d.App.Functions[0]
	f.Async = &app.Async{MaxRetries: &retries, MaxAgeSec: 60}
	for name, row := range map[string]struct {
		spec api.SubscriptionSpec
		want func(sub bus.Subscription, to target) bool
	}{
		"function": {api.SubscriptionSpec{Function: f.Name}, func(sub bus.Subscription, to target) bool {
			return sub.Retry.Attempts == 2 && sub.Retry.MaxAge == time.Minute && to.Function == f.Name && sub.Channel == "default/bus/default" && sub.Subject == "" && !to.Raw
		}},
		"function, otherwise": {api.SubscriptionSpec{Function: f.Name, Retry: &api.SubscriptionRetry{Attempts: 5, MinBackoff: "2h"}}, func(sub bus.Subscription, _ target) bool {
			return sub.Retry.Attempts == 5 && sub.Retry.MaxAge == time.Minute && sub.Retry.MinBackoff == 2*time.Hour && sub.Retry.MaxBackoff == 2*time.Hour
		}},
		"queue": {api.SubscriptionSpec{Queue: "q", Ordered: true, DeadLetters: "d", Bus: "b"}, func(sub bus.Subscription, to target) bool {
			return sub.Retry.Attempts == 186 && sub.Retry.MaxAge == 24*time.Hour && sub.Ordered && sub.Batch == 10 && to.Dead.Queue == "d" && to.MessageGroup == "x" && sub.Channel == "default/bus/b"
		}},
		"group": {api.SubscriptionSpec{Queue: "q", Group: "g", Retry: &api.SubscriptionRetry{MaxBackoff: "10ms"}}, func(sub bus.Subscription, to target) bool {
			return to.MessageGroup == "g" && sub.Retry.MinBackoff == 10*time.Millisecond
		}},
		"endpoint": {api.SubscriptionSpec{Endpoint: "https://u:p@x/"}, func(sub bus.Subscription, to target) bool {
			return to.Format == "binary" && to.Owner == "default/subscription/x" && sub.Deadline == postWaitMost && sub.Batch == 0
		}},
	} {
		spec := row.spec
		spec.Name = "x"
		var of *app.Function
		if spec.Function != "" {
			of = f
		}
		sub, to, err := s.ownOf(&spec, of, d)
		if err != nil || sub.Name != "own/default/x" || !row.want(sub, to) {
			t.Errorf("%s: %+v %+v, %v", name, sub, to, err)
		}
	}
}

func TestFitting_FindsTheOneThatIsMeant(t *testing.T) {
	t.Parallel()
	sub := func(name, target string) bus.Subscription {
		return bus.Subscription{Name: name, Target: json.RawMessage(target)}
	}
	list := []bus.Subscription{
		sub("own/default/bill", `{"function":"shop-dev-ship"}`), sub("trigger/default/shop/dev/Rule/bill", `{"function":"shop-dev-bill"}`),
		sub("trigger/default/shop/dev/Rule/ship", `{"function":"shop-dev-ship"}`), sub("trigger/default/other/dev/Rule/ship", `{"function":"other-dev-ship"}`),
		sub("async/default/shop-dev-bill", `{"function":"shop-dev-bill","raw":true}`), sub("odd", `5`),
	}
	for name, want := range map[string]string{
		"bill": "own/default/bill", "own/default/bill": "own/default/bill", "Rule/bill": "trigger/default/shop/dev/Rule/bill", "shop-dev-bill": "trigger/default/shop/dev/Rule/bill",
		"other-dev-ship": "trigger/default/other/dev/Rule/ship", "odd": "odd", "async/default/shop-dev-bill": "async/default/shop-dev-bill", "ship": "conflict", "shop-dev-ship": "conflict", "nobody": "not_found",
	} {
		got, err := fitting(list, name)
		text := string(errs.CodeOf(err))
		if err == nil {
			text = got.Name
		}
		if strings.ReplaceAll(text, "-", "_") != strings.ReplaceAll(want, "-", "_") {
			t.Errorf("%s: %s, %v, want %s", name, text, err, want)
		}
	}
}

func FuzzReadDraft(f *testing.F) {
	for _, s := range []string{`{"queue":"q","pattern":{"a":["b"]}}`, `{"sql":"a = 'b'","endpoint":"http://x"}`, `{"filters":[{"not":{"exact":{"a":"b"}}}],"retry":{"maxAge":"1h"}}`, "{\n\"sql\":\n\"\\u0041 =\"}"} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, doc []byte, parts bool) {
		d, err := readDraft(doc, parts)
		if err == nil {
			var filter json.RawMessage
			if filter, err = d.filter("1", "us-east-1"); err == nil && len(filter) > 0 {
				if _, err := rule.Compile(filter); err != nil {
					t.Errorf("what is stored of %q does not compile: %v", doc, err)
				}
			}
			_ = d.check("x")
			_ = d.retry(&bus.Subscription{})
		}
		if err != nil && errs.CodeOf(err) != errs.Invalid {
			t.Errorf("%q: %v", doc, err)
		}
	})
}

func TestTarget_GivesFunctionsAndQueuesTheFormat(t *testing.T) {
	t.Parallel()
	s, _ := declaring(t, &app.App{})
	e := &event.Event{ID: "1", Source: "/s", Type: "t", Data: []byte(`{"b": 1, "a": 2}`)}
	e.SetExtension(bus.Channel, "default/bus/default")
	e.SetExtension(bus.PartitionKey, "k")
	v := &bus.Delivery{ID: "0-1-0-1", Subscription: "own/default/x", Event: e}
	const whole = `{"specversion":"1.0","id":"1","source":"/s","type":"t","partitionkey":"k","data":{"b": 1, "a": 2}}`
	for format, want := range map[string]string{api.FormatCloudEvents: whole, api.FormatData: `{"b": 1, "a": 2}`} {
		to := target{Function: "f", Format: format, Via: invocation.ViaEvent, Own: &api.SubscriptionSpec{Name: "x"}}
		p, err := to.takes(v)
		if raw, ok := p.(invocation.Raw); err != nil || !ok || string(raw) != want {
			t.Errorf("%s to a function: %s, %v", format, p, err)
		}
		if got := s.request(&to, v); string(got) != want {
			t.Errorf("%s to a destination: %s", format, got)
		}
		for ordered, group := range map[bool]string{true: "k", false: "x"} {
			to := target{Queue: "q.fifo", Format: format, Via: invocation.ViaEvent, MessageGroup: "x", Own: &api.SubscriptionSpec{Ordered: ordered}}
			m, err := deliverer{s}.message(&to, v)
			if err != nil || string(m.Body) != want || m.Group != group || m.Dedup == "" {
				t.Errorf("%s to a queue: %+v, %v", format, m, err)
			}
		}
	}
	if e.Extension(bus.Channel) == "" {
		t.Error("the event was changed, which others see too")
	}
}
