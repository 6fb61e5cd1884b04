package event_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
)

// enveloped is what EventBridge gives, read strictly.
type enveloped struct {
	Version    string          `json:"version"`
	ID         string          `json:"id"`
	DetailType string          `json:"detail-type"`
	Source     string          `json:"source"`
	Account    string          `json:"account"`
	Time       time.Time       `json:"time"`
	Region     string          `json:"region"`
	Resources  []string        `json:"resources"`
	Detail     json.RawMessage `json:"detail"`
}

func envelope(t testing.TB, e *event.Event) enveloped {
	t.Helper()
	b := event.Envelope([]byte("kept"), e, "123456789012", "eu-central-1")
	if !bytes.HasPrefix(b, []byte("kept{")) {
		t.Fatalf("%.100s", b)
	}
	dec := json.NewDecoder(bytes.NewReader(b[4:]))
	dec.DisallowUnknownFields()
	var v enveloped
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("%v in %q", err, b)
	}
	if dec.More() {
		t.Fatalf("more follows in %s", b)
	}
	return v
}

func TestEnvelope_IsTheFormOfEventBridge(t *testing.T) {
	t.Parallel()
	e := &event.Event{ID: "i\"1", Source: "/shop", Type: "order placed", Time: time.Date(2026, 3, 12, 20, 3, 58, 999e6, time.FixedZone("", 3600)), Subject: "not there", Data: []byte(`{"a": 1}`)}
	event.SetResources(e, []string{"arn:aws:s3:::a", "b,c%2C", "", "é\n"})
	got := string(event.Envelope(nil, e, "123456789012", "eu-central-1"))
	want := `{"version":"0","id":"i\"1","detail-type":"order placed","source":"/shop","account":"123456789012","time":"2026-03-12T19:03:58Z","region":"eu-central-1",` +
		`"resources":["arn:aws:s3:::a","b,c%2C","é\n"],"detail":{"a": 1}}`
	if got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if err := e.Validate(0); err != nil {
		t.Errorf("resources make an event that is not valid: %v", err)
	}
	bare := string(event.Envelope(nil, &event.Event{ID: "1", Source: "s", Type: "t"}, "", ""))
	if want := `{"version":"0","id":"1","detail-type":"t","source":"s","account":"","time":"1970-01-01T00:00:00Z","region":"","resources":[],"detail":{}}`; bare != want {
		t.Errorf("%s\nwant %s", bare, want)
	}
}

func TestEnvelope_DetailIsJSONWhateverTheDataAre(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ media, data, want string }{
		"object":             {"application/json", `{"a":1.50}`, `{"a":1.50}`},
		"no media type":      {"", `[1, 2]`, `[1, 2]`},
		"another JSON":       {"application/vnd.x+json; charset=utf-8", `true`, `true`},
		"JSON that is none":  {"application/json", `{"a":`, `"{\"a\":"`},
		"text":               {"text/plain", "a \"b\"\n", `"a \"b\"\n"`},
		"text that is JSON":  {"text/plain", `{"a":1}`, `"{\"a\":1}"`},
		"bytes":              {"application/octet-stream", "\x00\xff", `"AP8="`},
		"bytes said JSON":    {"application/json", "\"\xff\"", `"Iv8i"`},
		"none":               {"application/json", "", `{}`},
		"white space around": {"application/json", " {} ", ` {} `},
	} {
		b := event.Envelope(nil, &event.Event{ID: "1", Source: "s", Type: "t", DataContentType: c.media, Data: []byte(c.data)}, "a", "r")
		if want := `"detail":` + c.want + `}`; !bytes.HasSuffix(b, []byte(want)) || !json.Valid(b) {
			t.Errorf("%s: %s, want %s", name, b, want)
		}
	}
}

func TestFromEntry_ComesBackInTheEnvelope(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ source, kind string }{
		"plain":            {"shop.orders", "Order Placed"},
		"path":             {"/shop/orders", "a/b"},
		"ARN":              {"arn:aws:sns:eu:1:x", "arn:aws:x"},
		"spaces":           {"my shop", "  "},
		"percent":          {"50% off", "50%"},
		"percent, encoded": {"a%20b", "a%20b"},
		"broken escape":    {"a%zz", "%"},
		"control":          {"a\nb\x00", "tab\tbed\x7f"},
		"colon first":      {":x", ":"},
		"brackets":         {"http://[", "<&>\"\\"},
		"outside ASCII":    {"größe", "größe \U0001F600"},
		"nonces":           {"\ufffe", "\ufdd0"},
		"looks marked":     {"my%20shop", "a%0Ab"},
	} {
		at := time.Date(2026, 3, 12, 19, 3, 58, 0, time.UTC)
		in := event.Entry{ID: "id", Time: at, Source: c.source, DetailType: c.kind, Resources: []string{"a,b", "%2C", "c"}, Detail: []byte(`{"a":[1,"é"]}`)}
		e, err := event.FromEntry(in)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := e.Validate(0); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if e.DataContentType != "application/json" {
			t.Errorf("%s: media type %q", name, e.DataContentType)
		}
		doc, err := e.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		again, err := event.ParseJSON(doc, 0) // what the log and the network do to it
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, e := range []*event.Event{e, again} {
			v := envelope(t, e)
			out := event.Entry{ID: v.ID, Time: v.Time, Source: v.Source, DetailType: v.DetailType, Resources: v.Resources, Detail: v.Detail}
			if !reflect.DeepEqual(in, out) {
				t.Errorf("%s: %+v\nwant %+v\nas %s", name, out, in, doc)
			}
		}
	}
}

func TestEnvelope_ComesBackAsAnEntry(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ source, kind string }{
		"path": {"/a%20b", "com.example.done"}, "URN": {"urn:x:y", "t%41"}, "URL": {"https://example.com/a?b=c#d", "ü"},
	} {
		in := &event.Event{ID: "1", Source: c.source, Type: c.kind, Time: time.Date(2026, 3, 12, 19, 3, 58, 0, time.UTC), DataContentType: "application/json", Data: []byte(`{}`)}
		event.SetResources(in, []string{"x"})
		v := envelope(t, in)
		out, err := event.FromEntry(event.Entry{ID: v.ID, Time: v.Time, Source: v.Source, DetailType: v.DetailType, Resources: v.Resources, Detail: v.Detail})
		if err != nil || !reflect.DeepEqual(in, out) {
			t.Errorf("%s: %+v, %v\nwant %+v", name, out, err, in)
		}
	}
}

func TestEnvelope_NobodyHidesOneSourceBehindAnother(t *testing.T) {
	t.Parallel()
	e := &event.Event{ID: "1", Source: "aws%2Es3", Type: "Object%20Created", Extensions: map[string]any{"ebbescaped": "source type"}}
	if v := envelope(t, e); v.Source != "aws%2Es3" || v.DetailType != "Object%20Created" {
		t.Errorf("%+v", v)
	}
}

func TestFromEntry_RefusesWhatEventBridgeDoes(t *testing.T) {
	t.Parallel()
	for name, n := range map[string]event.Entry{
		"no source": {DetailType: "t", Detail: []byte(`{}`)}, "no detail type": {Source: "s", Detail: []byte(`{}`)},
		"no detail": {Source: "s", DetailType: "t"}, "detail no JSON": {Source: "s", DetailType: "t", Detail: []byte(`{`)},
		"detail an array": {Source: "s", DetailType: "t", Detail: []byte(` []`)}, "detail text": {Source: "s", DetailType: "t", Detail: []byte(`"{}"`)},
		"detail not UTF-8": {Source: "s", DetailType: "t", Detail: []byte("{\"a\":\"\xff\"}")},
	} {
		if _, err := event.FromEntry(n); errs.CodeOf(err) != errs.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzFromEntry_ComesBack(f *testing.F) {
	f.Add("shop.orders", "Order Placed", "arn:aws:s3:::a", `{"a":1}`)
	f.Add("my shop%20", "\x00", ",%", `{}`)
	f.Fuzz(func(t *testing.T, source, kind, resource, detail string) {
		e, err := event.FromEntry(event.Entry{ID: "1", Source: source, DetailType: kind, Resources: []string{resource}, Detail: []byte(detail)})
		if err != nil {
			return
		}
		if err := e.Validate(0); err != nil {
			t.Fatalf("%+v: %v", e, err)
		}
		v := envelope(t, e)
		if !utf8.ValidString(source) || !utf8.ValidString(kind) || !utf8.ValidString(resource) {
			return // JSON has no text for it
		}
		if v.Source != source || v.DetailType != kind || strings.Join(v.Resources, "") != resource {
			t.Fatalf("%+v from %q %q %q", v, source, kind, resource)
		}
	})
}
