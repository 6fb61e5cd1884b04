package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// malformed are events that CloudEvents 1.0.2 does not allow. A row is an event that is well formed but for one attribute.
var malformed = []struct {
	rule  string // section of the specification, and what is wrong
	name  string // the attribute
	json  string // its value in JSON; empty means that it is left out
	plain string // its value in a header; "-" where headers cannot say such a thing
	says  string // what the answer names
}{
	{"REQUIRED attributes: no id", "id", "", "", `"id" is missing`},
	{"REQUIRED attributes: no source", "source", "", "", `"source" is missing`},
	{"REQUIRED attributes: no type", "type", "", "", `"type" is missing`},
	{"REQUIRED attributes: no specversion", "specversion", "", "", `specversion" is missing`},
	{"id: empty", "id", `""`, " ", `"id" is empty`},
	{"id: a number", "id", `7`, "-", `"id" is 7, not a string`},
	{"id: null", "id", `null`, "-", `"id" is missing`},
	{"id: an object", "id", `{"a":1}`, "-", `"id" is {"a":1}, not a string`},
	{"source: empty", "source", `""`, " ", `"source" is empty`},
	{"source: with a space", "source", `"/a b"`, "/a%20b", `"source" is "/a b", not a URI-reference`},
	{"source: half an escape", "source", `"/a%2"`, "/a%252", `"source" is "/a%2", not a URI-reference`},
	{"source: characters that no URI has", "source", `"/a<b>"`, "/a<b>", `"source" is "/a<b>", not a URI-reference`},
	{"source: not in ASCII", "source", `"/caf\u00e9"`, "/caf%C3%A9", `"source" is "/café", not a URI-reference`},
	{"source: a boolean", "source", `true`, "-", `"source" is true, not a string`},
	{"specversion: of before 1.0", "specversion", `"0.3"`, "0.3", `"specversion" is "0.3"; only "1.0" is known`},
	{"specversion: unknown", "specversion", `"1.1"`, "1.1", `"specversion" is "1.1"`},
	{"specversion: a number", "specversion", `1.0`, "-", `"specversion" is 1.0, not a string`},
	{"specversion: empty", "specversion", `""`, " ", `"specversion" is empty`},
	{"type: empty", "type", `""`, " ", `"type" is empty`},
	{"type: a list", "type", `["a"]`, "-", `"type" is ["a"], not a string`},
	{"datacontenttype: no media type", "datacontenttype", `"json"`, "json", `"datacontenttype" is "json", not a media type`},
	{"datacontenttype: empty", "datacontenttype", `""`, "-", `"datacontenttype" is empty`},
	{"dataschema: empty", "dataschema", `""`, " ", `"dataschema" is empty`},
	{"dataschema: relative", "dataschema", `"/schema"`, "/schema", `"dataschema" is "/schema", not an absolute URI`},
	{"dataschema: no URI", "dataschema", `"http://[x"`, "http://[x", `"dataschema" is "http://[x"`},
	{"subject: empty", "subject", `""`, " ", `"subject" is empty`},
	{"subject: a number", "subject", `1`, "-", `"subject" is 1, not a string`},
	{"time: a word", "time", `"yesterday"`, "yesterday", `"time" is "yesterday", not a time as in RFC 3339`},
	{"time: a date alone", "time", `"2018-04-05"`, "2018-04-05", `"time" is "2018-04-05"`},
	{"time: without a zone", "time", `"2018-04-05T17:31:00"`, "2018-04-05T17:31:00", `"time" is`},
	{"time: a month that there is not", "time", `"2018-13-05T17:31:00Z"`, "2018-13-05T17:31:00Z", `"time" is`},
	{"time: seconds since 1970", "time", `1522949460`, "1522949460", `"time" is`},
	{"time: empty", "time", `""`, " ", `"time" is empty`},
	{"Naming Conventions: a capital", "myExt", `"x"`, "-", `attribute name "myExt" may hold only a to z and 0 to 9`}, // headers have no case
	{"Naming Conventions: an underscore", "my_ext", `"x"`, "x", `"my_ext" may hold only`},
	{"Naming Conventions: a hyphen", "my-ext", `"x"`, "x", `"my-ext" may hold only`},
	{"Naming Conventions: not in ASCII", "größe", `"x"`, "-", `"größe" may hold only`},
	{"Naming Conventions: no name", "", `"x"`, "x", `"" may hold only`},
	{"Type System: a fraction", "ext", `1.5`, "-", `"ext" is 1.5; a string, a boolean or an integer of 32 bits is allowed`},
	{"Type System: an integer of 33 bits", "ext", `4294967296`, "-", `"ext" is 4294967296`},
	{"Type System: an object", "ext", `{"a":"b"}`, "-", `"ext" is {"a":"b"}`},
	{"Type System: a list", "ext", `[1]`, "-", `"ext" is [1]`},
	{"String: a control character", "ext", `"a\u0000b"`, "a%00b", `"ext" holds the character U+0000`},
	{"String: a control character of C1", "subject", `"a\u0085b"`, "a%C2%85b", `"subject" holds the character U+0085`},
	{"String: a noncharacter", "subject", `"a\uffffb"`, "a%EF%BF%BFb", `"subject" holds the character U+FFFF`},
	{"String: half a surrogate pair", "subject", `"a\ud800b"`, "a%ED%A0%80b", `subject"`},
	{"String: the other half", "ext", `"\udc00"`, "%ED%B0%80", `ext"`},
	{"String: not UTF-8", "subject", "\"a\xffb\"", "a%FFb", "UTF-8"},
	{"Event Data: as an attribute", "data", "-", "x", `"data" is taken by the specification`},
	{"JSON: data twice", "data_base64", `"eA==","data":"x"`, "-", `both "data" and "data_base64" are there`},
	{"JSON: data_base64 is none", "data_base64", `"?"`, "-", `"data_base64" is not base64`},
	{"JSON: data_base64 is a number", "data_base64", `5`, "-", `"data_base64" is not a string`},
	{"JSON: an attribute twice", "subject", `"a","subject":"b"`, "-", `"subject" stands there twice`},
	{"JSON: id twice", "id", `"a","id":"b"`, "-", `"id" stands there twice`},
	{"JSON: cut off", "subject", `"a`, "-", "not JSON"},
	{"JSON: single quotes", "subject", `'a'`, "-", "not JSON"},
}

// attributes of an event that is well formed.
func wellFormed() map[string]string {
	return map[string]string{"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
}

// structuredText writes the event with a member in place of, or beside, its own.
func structuredText(name, value string) string {
	var members []string
	for k, v := range wellFormed() {
		if k != name {
			members = append(members, fmt.Sprintf("%q:%q", k, v))
		}
	}
	if value != "" {
		key, _ := json.Marshal(name)
		members = append(members, string(key)+":"+value) // last: what is behind it may be cut off
	}
	return "{" + strings.Join(members, ",") + "}"
}

func TestPublish_RefusesEventsThatTheSpecificationForbids(t *testing.T) {
	t.Parallel()
	n := open(t)
	typed := func(kind string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Content-Type", kind) }
	}
	const structured, batch = "application/cloudevents+json", "application/cloudevents-batch+json"
	good := structuredText("", "")
	refused := func(rule string, got answer, says ...string) {
		t.Helper()
		if got.status < 400 || got.status >= 500 {
			t.Errorf("%s: %d %s", rule, got.status, got.body)
		}
		for _, s := range says {
			if !strings.Contains(got.msg, s) {
				t.Errorf("%s: it says %q, and not %q", rule, got.msg, s)
			}
		}
	}
	for _, row := range malformed {
		if row.json != "-" {
			text := structuredText(row.name, row.json)
			refused(row.rule+", structured", n.call(t, "POST", "/events", text, typed(structured)), row.says)
			got := n.call(t, "POST", "/events", "["+good+","+text+","+good+"]", typed(batch))
			if strings.Contains(row.rule, "UTF-8") { // the text as a whole is none
				refused(row.rule+", batch", got, row.says)
			} else {
				refused(row.rule+", batch", got, row.says, "event 1 of the batch")
			}
		}
		if row.plain != "-" {
			refused(row.rule+", binary", n.call(t, "POST", "/events", "{}", func(r *http.Request) {
				r.Header.Set("Content-Type", "application/json")
				for k, v := range wellFormed() {
					r.Header.Set("Ce-"+k, v)
				}
				switch {
				case row.name == "datacontenttype":
					r.Header.Set("Content-Type", row.plain)
				case row.plain == "":
					r.Header.Del("Ce-" + row.name)
				default:
					r.Header["Ce-"+row.name] = nil
					r.Header.Set("Ce-"+row.name, row.plain)
				}
			}), row.says)
		}
	}
	if len(n.backend.published) > 0 {
		t.Errorf("published: %q", n.backend.published)
	}
	// What the rows leave out is taken, in each mode.
	if got := n.call(t, "POST", "/events", good, typed(structured)); got.status != http.StatusAccepted {
		t.Errorf("structured: %d %s", got.status, got.body)
	}
	if got := n.call(t, "POST", "/events", "["+good+"]", typed(batch)); got.status != http.StatusAccepted {
		t.Errorf("batch: %d %s", got.status, got.body)
	}
	if got := n.call(t, "POST", "/events", "{}", func(r *http.Request) {
		for k, v := range wellFormed() {
			r.Header.Set("Ce-"+k, v)
		}
	}); got.status != http.StatusAccepted {
		t.Errorf("binary: %d %s", got.status, got.body)
	}
}

// What is no event at all is refused in each mode, with what is wrong of the whole.
func TestPublish_RefusesBodiesThatAreNoEvents(t *testing.T) {
	t.Parallel()
	n := open(t)
	good := structuredText("", "")
	const structured, batch = "application/cloudevents+json", "application/cloudevents-batch+json"
	for name, row := range map[string]struct{ kind, body, says string }{
		"no content type":               {"", good, `there is no header "ce-specversion"`},
		"of JSON only":                  {"application/json", good, `there is no header "ce-specversion"`},
		"an unknown format":             {"application/cloudevents+xml", "<event/>", `"application/cloudevents+xml" is not known`},
		"an unknown batch format":       {"application/cloudevents-batch+avro", "x", "is not known"},
		"no format":                     {"application/cloudevents", good, `"application/cloudevents" is not known`},
		"an unreadable content type":    {"application/cloudevents+json; =", good, "Content-Type"},
		"another charset":               {structured + "; charset=utf-16", good, "utf-16"},
		"nothing":                       {structured, "", "not JSON"},
		"nothing as a batch":            {batch, "", "not a JSON array"},
		"a list as structured":          {structured, "[" + good + "]", "not a JSON object"},
		"an event as a batch":           {batch, good, "not a JSON array"},
		"a text":                        {structured, `"x"`, "not a JSON object"},
		"null":                          {structured, "null", "not a JSON object"},
		"a byte order mark":             {structured, "\ufeff" + good, "not JSON"},
		"cut off":                       {structured, good[:len(good)-1], "not JSON"},
		"two events":                    {structured, good + good, "more follows"},
		"a comma too many":              {structured, good[:len(good)-1] + ",}", "not JSON"},
		"nested too deep":               {structured, `{"data":` + strings.Repeat("[", 20000), "not JSON"},
		"a batch with null":             {batch, "[" + good + ",null]", "event 1 of the batch"},
		"a batch in a batch":            {batch, "[[" + good + "]]", "event 0 of the batch"},
		"a batch that is cut off":       {batch, "[" + good, "not a valid batch"},
		"a batch with a comma too many": {batch, "[" + good + ",]", "event 1 of the batch"},
		"two batches":                   {batch, "[" + good + "][]", "more follows"},
		"a batch with more events":      {batch, "[" + strings.Repeat(good+",", 1000) + good + "]", "more than 1000 events"},
		"an event that is too large":    {structured, structuredText("data", `"`+strings.Repeat("x", 1100<<10)+`"`), "bytes"},
		"one of a batch is too large":   {batch, "[" + good + "," + structuredText("data", `"`+strings.Repeat("x", 1100<<10)+`"`) + "]", "event 1 of the batch"},
	} {
		got := n.call(t, "POST", "/events", row.body, func(r *http.Request) {
			r.Header.Del("Content-Type")
			if row.kind != "" {
				r.Header.Set("Content-Type", row.kind)
			}
		})
		if got.status < 400 || got.status >= 500 || !strings.Contains(got.msg, row.says) {
			t.Errorf("%s: %d %s, want it to say %q", name, got.status, got.body, row.says)
		}
	}
	if len(n.backend.published) > 0 {
		t.Errorf("published: %q", n.backend.published)
	}
}
