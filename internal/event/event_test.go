package event_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
)

// object writes a JSON event: the least valid one with members laid over it; a nil value removes one.
func object(t *testing.T, over map[string]any) []byte {
	t.Helper()
	m := map[string]any{"specversion": "1.0", "id": "1", "type": "t", "source": "/s"}
	for k, v := range over {
		if v == nil {
			delete(m, k)
			continue
		}
		m[k] = v
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseJSON_RefusesWhatTheSpecificationForbids(t *testing.T) {
	t.Parallel()
	type over = map[string]any
	for name, c := range map[string]struct {
		over over
		say  string
	}{
		"no specversion":            {over{"specversion": nil}, `"specversion" is missing`},
		"no id":                     {over{"id": nil}, `"id" is missing`},
		"no type":                   {over{"type": nil}, `"type" is missing`},
		"no source":                 {over{"source": nil}, `"source" is missing`},
		"specversion null":          {over{"specversion": json.RawMessage("null")}, `"specversion" is missing`},
		"id null":                   {over{"id": json.RawMessage("null")}, `"id" is missing`},
		"empty id":                  {over{"id": ""}, `"id" is empty`},
		"empty type":                {over{"type": ""}, `"type" is empty`},
		"empty source":              {over{"source": ""}, `"source" is empty`},
		"empty specversion":         {over{"specversion": ""}, `"specversion" is empty`},
		"empty subject":             {over{"subject": ""}, `"subject" is empty`},
		"empty dataschema":          {over{"dataschema": ""}, `"dataschema" is empty`},
		"empty datacontenttype":     {over{"datacontenttype": ""}, `"datacontenttype" is empty`},
		"unknown specversion":       {over{"specversion": "0.9"}, `"0.9"; only "1.0"`},
		"numeric specversion":       {over{"specversion": 1.0}, `"specversion" is 1, not a string`},
		"numeric id":                {over{"id": 25}, `"id" is 25, not a string`},
		"object id":                 {over{"id": over{"a": "b"}}, `"id" is {"a":"b"}, not a string`},
		"boolean type":              {over{"type": true}, `"type" is true, not a string`},
		"time is a word":            {over{"time": "lunchtime"}, `"lunchtime"`},
		"time to the minute":        {over{"time": "2018-04-05T18:31Z"}, "RFC 3339"},
		"time without zone":         {over{"time": "2018-04-05T18:31:00"}, "RFC 3339"},
		"time zone X":               {over{"time": "2018-04-05T18:31:00X"}, "RFC 3339"},
		"time zone out of range":    {over{"time": "2018-04-05T18:31:00+25:00"}, "RFC 3339"},
		"time zone minutes":         {over{"time": "2018-04-05T18:31:00+01:60"}, "RFC 3339"},
		"time zone letters":         {over{"time": "2018-04-05T18:31:00+xx:00"}, "RFC 3339"},
		"time zone hours only":      {over{"time": "2018-04-05T18:31:00+05"}, "RFC 3339"},
		"time with a comma":         {over{"time": "2018-04-05T18:31:00,5Z"}, "RFC 3339"},
		"time, one digit of hour":   {over{"time": "2018-04-05T8:31:00Z"}, "RFC 3339"},
		"time, 30 February":         {over{"time": "2018-02-30T08:31:00Z"}, "RFC 3339"},
		"media type of one word":    {over{"datacontenttype": "xyz"}, "media type"},
		"media type with a space":   {over{"datacontenttype": "text/ plain"}, "media type"},
		"relative dataschema":       {over{"dataschema": "/a"}, "absolute URI"},
		"source with a space":       {over{"source": "a b"}, "URI-reference"},
		"source with a bad escape":  {over{"source": "%zz"}, "URI-reference"},
		"capital extension":         {over{"MyExtension": "bad"}, `"MyExtension" may hold only`},
		"dotted extension":          {over{"my.extension": "bad"}, `"my.extension" may hold only`},
		"dashed extension":          {over{"my-extension": "bad"}, `"my-extension" may hold only`},
		"nameless extension":        {over{"": "bad"}, `"" may hold only`},
		"fraction extension":        {over{"ext": 1.5}, "an integer of 32 bits"},
		"exponent extension":        {over{"ext": json.RawMessage("1e2")}, "an integer of 32 bits"},
		"large integer extension":   {over{"ext": 1 << 31}, "an integer of 32 bits"},
		"object extension":          {over{"ext": over{}}, "an integer of 32 bits"},
		"array extension":           {over{"ext": []int{1}}, "an integer of 32 bits"},
		"data twice":                {over{"data": "x", "data_base64": "eHg="}, `both "data" and "data_base64"`},
		"data_base64 is none":       {over{"data_base64": "%%%"}, "not base64"},
		"data_base64 is a number":   {over{"data_base64": 5}, "not a string"},
		"object data as text":       {over{"datacontenttype": "text/plain", "data": over{}}, `"data" is not a string`},
		"control character":         {over{"subject": "a\u0007b"}, "U+0007"},
		"C1 control character":      {over{"subject": "a\u0085b"}, "U+0085"},
		"noncharacter":              {over{"subject": "a\ufdd0b"}, "U+FDD0"},
		"noncharacter of plane 1":   {over{"ext": "a\U0001fffeb"}, "U+1FFFE"},
		"control character, source": {over{"source": "a\u0001"}, "U+0001"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, err := event.ParseJSON(object(t, c.over), 0)
			if e != nil && err == nil || errs.CodeOf(err) != errs.Invalid || !strings.Contains(err.Error(), c.say) {
				t.Errorf("got %+v, %v; want %q", e, err, c.say)
			}
		})
	}
}

func TestParseJSON_RefusesWhatIsNoEvent(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"", " ", "null", "5", `"x"`, "[]", "{", `{"specversion"`, `{"specversion":"1.0"`, `{"specversion":"1.0","id":"1","type":"t","source":"s"`,
		`{"specversion":"1.0","id":"1","type":"t","source":"s"} x`, `{"specversion":"1.0","id":"1","type":"t","source":"s"}{}`,
		`{"specversion":"1.0","id":"1","id":"2","type":"t","source":"s"}`, `{"specversion":"1.0","id":"1","type":"t","source":"s","data":1,"data":2}`,
		"{\"specversion\":\"1.0\",\"id\":\"\xff\",\"type\":\"t\",\"source\":\"s\"}", `{'specversion':'1.0'}`, strings.Repeat("[", 20000), `{"data":` + strings.Repeat("[", 20000),
	} {
		if e, err := event.ParseJSON([]byte(s), 0); errs.CodeOf(err) != errs.Invalid {
			t.Errorf("%.60q: got %v, %v", s, e, err)
		}
	}
}

func TestParseJSON_ReadsAllThatIsValid(t *testing.T) {
	t.Parallel()
	noon := time.Date(2018, 4, 5, 17, 31, 0, 0, time.UTC)
	type over = map[string]any
	for name, c := range map[string]struct {
		over over
		want event.Event
	}{
		"least": {nil, event.Event{}},
		"nulls": {over{"datacontenttype": json.RawMessage("null"), "dataschema": json.RawMessage("null"), "subject": json.RawMessage("null"), "time": json.RawMessage("null"), "ext": json.RawMessage("null")},
			event.Event{}},
		"all of core": {over{"datacontenttype": "text/plain", "dataschema": "https://e.io/s", "subject": "x", "time": "2018-04-05T17:31:00Z"},
			event.Event{DataContentType: "text/plain", DataSchema: "https://e.io/s", Subject: "x", Time: noon}},
		"nanoseconds":     {over{"time": "2018-04-05T17:31:00.000000000Z"}, event.Event{Time: noon}},
		"positive offset": {over{"time": "2018-04-05T18:31:00+01:00"}, event.Event{Time: noon}},
		"negative offset": {over{"time": "2018-04-05T16:31:00-01:00"}, event.Event{Time: noon}},
		"small letters":   {over{"time": "2018-04-05t17:31:00z"}, event.Event{Time: noon}},
		"text":            {over{"datacontenttype": "text/plain", "data": "Simple text"}, event.Event{DataContentType: "text/plain", Data: []byte("Simple text")}},
		"text, empty":     {over{"datacontenttype": "text/plain", "data": ""}, event.Event{DataContentType: "text/plain", Data: []byte{}}},
		"text, null":      {over{"datacontenttype": "text/plain", "data": json.RawMessage("null")}, event.Event{DataContentType: "text/plain"}},
		"JSON by default": {over{"data": over{"a": 1}}, event.Event{Data: []byte(`{"a":1}`)}},
		"JSON string":     {over{"data": "x"}, event.Event{Data: []byte(`"x"`)}},
		"JSON null":       {over{"data": json.RawMessage("null")}, event.Event{Data: []byte("null")}},
		"JSON suffix":     {over{"datacontenttype": "application/x+json;a=b", "data": 5}, event.Event{DataContentType: "application/x+json;a=b", Data: []byte("5")}},
		"base64":          {over{"datacontenttype": "image/png", "data_base64": "AAE="}, event.Event{DataContentType: "image/png", Data: []byte{0, 1}}},
		"extensions": {over{"extinteger": 10, "extboolean": true, "extstring": "text", "extneg": -1 << 31, "extempty": ""},
			event.Event{Extensions: map[string]any{"extinteger": int32(10), "extboolean": true, "extstring": "text", "extneg": int32(-1 << 31), "extempty": ""}}},
		"astral": {over{"subject": "𝄞 ü"}, event.Event{Subject: "𝄞 ü"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := event.ParseJSON(object(t, c.over), 0)
			if err != nil {
				t.Fatal(err)
			}
			if !got.Time.Equal(c.want.Time) {
				t.Errorf("time is %v", got.Time)
			}
			want := c.want
			want.ID, want.Source, want.Type, want.Time = "1", "/s", "t", got.Time
			if !reflect.DeepEqual(*got, want) {
				t.Errorf("got %+v\nwant %+v", *got, want)
			}
		})
	}
	for _, src := range []string{"#fragment", "https://cloudevents.io", "urn:a:b", "mailto:a@b.c", "/a/b", "1-555-123-4567", "//authority/path"} {
		if _, err := event.ParseJSON(object(t, map[string]any{"source": src}), 0); err != nil {
			t.Errorf("%s: %v", src, err)
		}
	}
}

func TestParseBatch_TakesAllOrNothing(t *testing.T) {
	t.Parallel()
	ok, bad := string(object(t, nil)), string(object(t, map[string]any{"id": nil}))
	for name, c := range map[string]struct {
		in   string
		n    int
		code errs.Code
		say  string
	}{
		"empty":           {"[]", 0, "", ""},
		"two of the same": {"[" + ok + "," + ok + "]", 2, "", ""},
		"one without id":  {"[" + ok + "," + bad + "]", 0, errs.Invalid, "event 1 of the batch"},
		"mixed versions":  {"[" + ok + "," + string(object(t, map[string]any{"specversion": "0.9"})) + "]", 0, errs.Invalid, "event 1 of the batch"},
		"no object":       {`["x",` + ok + "]", 0, errs.Invalid, "event 0 of the batch"},
		"an object":       {ok, 0, errs.Invalid, "not a JSON array"},
		"open":            {"[" + ok, 0, errs.Invalid, ""},
		"comma":           {"[" + ok + ",]", 0, errs.Invalid, ""},
		"more":            {"[]x", 0, errs.Invalid, "more follows"},
		"too many":        {"[" + ok + strings.Repeat(","+ok, 100) + "]", 0, errs.TooLarge, "more than 100"},
		"one too large": {"[" + string(object(t, map[string]any{"data": strings.Repeat("x", 256<<10)})) + "]", 0, errs.TooLarge,
			"event 0 of the batch"},
		"too large": {"[" + strings.Repeat(" ", 4<<20) + "]", 0, errs.TooLarge, "batch"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := event.ParseBatch([]byte(c.in), event.Limits{})
			if len(got) != c.n || errs.CodeOf(err) != c.code || err != nil && !strings.Contains(err.Error(), c.say) {
				t.Errorf("got %d events, %v", len(got), err)
			}
		})
	}
}

func TestEvent_IsTheSameAfterEachForm(t *testing.T) {
	t.Parallel()
	full := event.Event{
		ID: "a b%\"é", Source: "/s?x=%20", Type: "t", Subject: "ü 𝄞", Time: time.Date(2020, 1, 2, 3, 4, 5, 600, time.UTC), DataSchema: "https://e.io/s",
		Extensions: map[string]any{"a": true, "b": int32(-7), "c": "x\"y\\", "d": "", "partitionkey": "<k>"},
	}
	for name, c := range map[string]struct {
		ct   string
		data []byte
	}{
		"none":        {"", nil},
		"json":        {"application/json", []byte(`{"a":[1,2,"é"]}`)},
		"default":     {"", []byte(`"x"`)},
		"broken json": {"application/json", []byte(`{"a"`)},
		"text":        {"text/plain", []byte("line\nline\x00")},
		"latin text":  {"text/plain; charset=iso-8859-1", []byte("\xe9")},
		"not UTF-8":   {"text/plain", []byte("\xe9")},
		"binary":      {"image/png", []byte{0, 255, 1}},
		"string json": {"application/json", []byte("\"\xff\"")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := full
			e.DataContentType, e.Data = c.ct, c.data
			if err := e.Validate(0); err != nil {
				t.Fatal(err)
			}
			b, err := e.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			got, err := event.ParseJSON(b, 0)
			if err != nil || !reflect.DeepEqual(*got, e) {
				t.Errorf("JSON: got %+v, %v\nof %s", got, err, b)
			}
			log, rest, err := event.ParseLog(append(e.AppendLog(nil), 'x'))
			if err != nil || string(rest) != "x" || !reflect.DeepEqual(*log, e) {
				t.Errorf("log: got %+v, %q, %v", log, rest, err)
			}
			h := http.Header{"Ce-Old": {"x"}}
			body := e.WriteBinary(h)
			events, mode, err := event.ReadHTTP(h, bytes.NewReader(body), event.Limits{})
			if err != nil || mode != event.Binary || len(events) != 1 {
				t.Fatalf("got %v, %v", mode, err)
			}
			want := e
			want.Extensions = map[string]any{"a": "true", "b": "-7", "c": "x\"y\\", "d": "", "partitionkey": "<k>"}
			if !reflect.DeepEqual(*events[0], want) {
				t.Errorf("HTTP: got %+v\nof %v", events[0], h)
			}
		})
	}
}

func TestAppendLog_KeepsEveryType(t *testing.T) {
	t.Parallel()
	e := event.Event{ID: "1", Source: "s", Type: "t", Data: []byte{}, Extensions: map[string]any{
		"a": true, "b": int32(5), "c": "x", "d": []byte{1, 2}, "e": event.URI("a:b"), "f": event.URIRef("/x"), "g": time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
	}}
	got, _, err := event.ParseLog(e.AppendLog(nil))
	if err != nil || !reflect.DeepEqual(*got, e) {
		t.Errorf("got %+v, %v", got, err)
	}
	b, _ := e.MarshalJSON()
	if want := `{"specversion":"1.0","id":"1","source":"s","type":"t","a":true,"b":5,"c":"x","d":"AQI=","e":"a:b","f":"/x","g":"2020-01-01T00:00:00Z","data_base64":""}`; string(b) != want {
		t.Errorf("got %s", b)
	}
}

func TestReadHTTP_KnowsTheMode(t *testing.T) {
	t.Parallel()
	ok := string(object(t, nil))
	binary := func(more ...string) http.Header {
		h := http.Header{"Ce-Specversion": {"1.0"}, "Ce-Id": {"1"}, "Ce-Source": {"/s"}, "Ce-Type": {"t"}}
		for i := 0; i < len(more); i += 2 {
			h[more[i]] = append(h[more[i]], more[i+1])
		}
		return h
	}
	typed := func(ct string) http.Header { return http.Header{"Content-Type": {ct}} }
	without := func(name string) http.Header { h := binary(); delete(h, name); return h }
	for name, c := range map[string]struct {
		h    http.Header
		body string
		mode event.Mode
		code errs.Code
		say  string
	}{
		"binary":                    {binary("Content-Type", "application/json; charset=utf-8"), "{}", event.Binary, "", ""},
		"binary, other case":        {http.Header{"Ce-Specversion": {"1.0"}, "CE-ID": {"1"}, "ce-source": {"/s"}, "cE-tYpe": {"t"}}, "", event.Binary, "", ""},
		"structured":                {typed("application/cloudevents+json"), ok, event.Structured, "", ""},
		"structured, charset":       {typed("Application/CloudEvents+JSON; charset=UTF-8"), ok, event.Structured, "", ""},
		"batch":                     {typed("application/cloudevents-batch+json"), "[" + ok + "]", event.Batch, "", ""},
		"structured wins":           {binary("Content-Type", "application/cloudevents+json"), ok, event.Structured, "", ""},
		"other format":              {typed("application/cloudevents+avro"), "", "", errs.Unsupported, "avro"},
		"other charset":             {typed("application/cloudevents+json; charset=utf-16"), ok, "", errs.Unsupported, "utf-16"},
		"unreadable type":           {typed("application/cloudevents+json; ="), ok, "", errs.Invalid, "Content-Type"},
		"no event":                  {typed("application/json"), "{}", "", errs.Invalid, "ce-specversion"},
		"nothing":                   {http.Header{}, "", "", errs.Invalid, "ce-specversion"},
		"batch sent as structured":  {typed("application/cloudevents+json"), "[" + ok + "]", event.Structured, errs.Invalid, "object"},
		"structured sent as batch":  {typed("application/cloudevents-batch+json"), ok, event.Batch, errs.Invalid, "array"},
		"no version":                {without("Ce-Specversion"), "", event.Binary, errs.Invalid, "ce-specversion"},
		"no source":                 {without("Ce-Source"), "", event.Binary, errs.Invalid, `"source" is missing`},
		"a header twice":            {binary("Ce-Id", "2"), "", event.Binary, errs.Invalid, "2 times"},
		"datacontenttype":           {binary("Ce-Datacontenttype", "a/b"), "", event.Binary, errs.Invalid, "Content-Type says it"},
		"name with a dot":           {binary("Ce-My.ext", "a"), "", event.Binary, errs.Invalid, `"my.ext"`},
		"data as a header":          {binary("Ce-Data", "a"), "", event.Binary, errs.Invalid, `"data"`},
		"value that is not UTF-8":   {binary("Ce-Subject", "%ff"), "", event.Binary, errs.Invalid, "UTF-8"},
		"encoded control character": {binary("Ce-Subject", "%07"), "", event.Binary, errs.Invalid, "U+0007"},
		"bad content type":          {binary("Content-Type", "xyz"), "", event.Binary, errs.Invalid, "media type"},
		"large body":                {binary(), strings.Repeat("x", 256<<10+1), event.Binary, errs.TooLarge, "262144"},
		"large body and attributes": {binary(), strings.Repeat("x", 256<<10), event.Binary, errs.TooLarge, "262144"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			events, mode, err := event.ReadHTTP(c.h, strings.NewReader(c.body), event.Limits{})
			if mode != c.mode || errs.CodeOf(err) != c.code || err != nil && !strings.Contains(err.Error(), c.say) {
				t.Errorf("got %v, %v", mode, err)
			}
			if err == nil && (len(events) != 1 || events[0].ID != "1") {
				t.Errorf("got %+v", events)
			}
		})
	}
}

func TestReadHTTP_DecodesHeaderValues(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"Euro%20%E2%82%AC%20%F0%9F%98%80": "Euro € 😀", "plain": "plain", `"quoted \"x\" %41"`: `quoted "x" A`, "100%": "100%", "%zz": "%zz", "%2541": "%41", "%4": "%4", `"`: `"`,
		"%e2%82%ac": "€",
	} {
		h := http.Header{"Ce-Specversion": {"1.0"}, "Ce-Id": {"1"}, "Ce-Source": {"/s"}, "Ce-Type": {"t"}, "Ce-Subject": {in}}
		e, _, err := event.ReadHTTP(h, strings.NewReader(""), event.Limits{})
		if err != nil || e[0].Subject != want {
			t.Errorf("%s: got %v, %v", in, e[0], err)
		}
	}
}

func TestReadHTTP_PassesOnAReadError(t *testing.T) {
	t.Parallel()
	why := errors.New("gone")
	_, _, err := event.ReadHTTP(http.Header{"Content-Type": {event.ContentType}}, iotest.ErrReader(why), event.Limits{})
	if !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
}

func TestValidate_TellsEverythingAtOnce(t *testing.T) {
	t.Parallel()
	e := event.Event{Source: "a b", DataSchema: "x", Extensions: map[string]any{"A": 1, "id": "x", "t": time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC), "u": event.URI("x")}}
	err := e.Validate(0)
	for _, say := range []string{`"id" is missing`, `"type" is missing`, "URI-reference", `"dataschema" is "x"`, `"A" may hold`, "type int", `"id" is taken`, "year 20000", `"u" is "x"`} {
		if err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("%q is not in %v", say, err)
		}
	}
}

func FuzzParseJSON(f *testing.F) {
	f.Add([]byte(`{"specversion":"1.0","id":"1","type":"t","source":"/s","time":"2018-04-05T17:31:00+01:00","datacontenttype":"text/plain","data":"x","a":1,"b":false}`))
	f.Add([]byte(`{"specversion":"1.0","id":"1","type":"t","source":"/s","data_base64":"AA=="}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := event.ParseJSON(b, 0)
		if err != nil {
			return
		}
		same(t, e)
	})
}

// same writes a valid Event in each form and reads it again.
func same(t *testing.T, e *event.Event) {
	t.Helper()
	out, err := e.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	again, err := event.ParseJSON(out, 0)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	two, err := again.MarshalJSON()
	if err != nil || !bytes.Equal(out, two) {
		t.Fatalf("%s\n%s\n%v", out, two, err)
	}
	log, rest, err := event.ParseLog(e.AppendLog(nil))
	if err != nil || len(rest) > 0 {
		t.Fatal(err)
	}
	if three, err := log.MarshalJSON(); err != nil || !bytes.Equal(out, three) {
		t.Fatalf("%s\n%s\n%v", out, three, err)
	}
}

func FuzzReadHTTP(f *testing.F) {
	f.Add("application/cloudevents+json", "x%20", "y", []byte(`{}`))
	f.Add("application/cloudevents-batch+json", "x", "y", []byte(`[{"specversion":"1.0","id":"1","type":"t","source":"/s"}]`))
	f.Add("text/plain", `"a\"b"`, "/s", []byte("x"))
	f.Fuzz(func(t *testing.T, ct, id, source string, body []byte) {
		h := http.Header{"Content-Type": {ct}, "Ce-Specversion": {"1.0"}, "Ce-Id": {id}, "Ce-Source": {source}, "Ce-Type": {"t"}}
		events, _, err := event.ReadHTTP(h, bytes.NewReader(body), event.Limits{})
		if err != nil {
			return
		}
		for _, e := range events {
			same(t, e)
			h := http.Header{}
			out := e.WriteBinary(h)
			again, _, err := event.ReadHTTP(h, bytes.NewReader(out), event.Limits{Event: 1 << 30})
			if err != nil || again[0].ID != e.ID || again[0].Source != e.Source || !bytes.Equal(again[0].Data, e.Data) {
				t.Fatalf("%+v\n%+v\n%v", again, e, err)
			}
		}
	})
}

func FuzzParseLog(f *testing.F) {
	f.Add((&event.Event{ID: "1", Source: "s", Type: "t", Data: []byte("x"), Extensions: map[string]any{"a": int32(1), "b": []byte("x")}}).AppendLog(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, _, err := event.ParseLog(b); err == nil {
			_ = e.Size()
		}
	})
}
