package lambda

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
)

// sample is a Request that matched a Route of the kind, with everything in it that the rules treat in a special way.
func sample(kind, format string) (*invocation.Request, *invocation.Invocation) {
	route := &invocation.Route{
		APIKind: kind, APIID: "abcdefghij", Domain: "abcdefghij.execute-api.us-east-1.amazonaws.com", Account: "123456789012",
		Stage: "dev", StageVars: map[string]string{"zone": "b", "color": "blue"}, Method: "ANY", Pattern: "/users/{id}/{proxy+}",
		ResourceID: "r1e2s3", Format: format,
		Params: []invocation.Param{{Name: "id", Value: "a%20b"}, {Name: "proxy", Value: "x%2Fy/z"}},
	}
	full := "/dev/users/a%20b/x%2Fy/z"
	if kind == "url" {
		route.Stage, route.Pattern, route.Params, route.StageVars, full = "$default", "$default", nil, nil, "/users/a%20b/x%2Fy/z"
	}
	body := `{"name":"zoë"}`
	r := &invocation.Request{
		Method: "POST", Scheme: "http", Proto: "HTTP/1.1", Host: "localhost:3000", Path: "/users/a%20b/x%2Fy/z", FullPath: full,
		Query: "q=1&tag=a%20b&tag=c+d&empty=&bare&%C3%A9=%e2%82%ac&bad=%zz",
		Header: []invocation.Field{
			{Name: "Host", Value: "localhost:3000"}, {Name: "User-Agent", Value: "test/1"}, {Name: "X-GitHub-Event", Value: "push"},
			{Name: "x-amz-meta-filekey", Value: "k\"1"}, {Name: "Accept", Value: "text/html"}, {Name: "accept", Value: "*/*"},
			{Name: "Cookie", Value: "a=1; b=2"}, {Name: "cookie", Value: "c=3"}, {Name: "X-Forwarded-For", Value: "1.2.3.4"},
			{Name: "Content-Type", Value: "application/json"}, {Name: "Content-Length", Value: "15"}, {Name: "Connection", Value: "keep-alive"},
		},
		Body: strings.NewReader(body), ContentLength: int64(len(body)), RemoteIP: "127.0.0.1", Route: route,
	}
	inv := &invocation.Invocation{ID: "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d", Received: time.Date(2026, 3, 12, 19, 3, 58, 638e6, time.UTC), Payload: r}
	return r, inv
}

func mustEvent(t *testing.T, r *invocation.Request, inv *invocation.Invocation) map[string]any {
	t.Helper()
	got, err := appendEvent(nil, r, inv)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(got, &m); err != nil {
		t.Fatalf("%v in %s", err, got)
	}
	return m
}

func TestAppendEvent_IsWhatTheProviderDocuments(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ kind, format string }{
		"rest":    {"rest", "1.0"},
		"http-v1": {"http", "1.0"},
		"http-v2": {"http", "2.0"},
		"url":     {"url", "2.0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, inv := sample(row.kind, row.format)
			r.ContentLength = -1
			full, err := appendEvent([]byte("kept"), r, inv)
			if err != nil || !bytes.HasPrefix(full, []byte("kept")) {
				t.Fatalf("%.200s, %v", full, err)
			}
			golden(t, name+".json", full[4:])
			r, inv = sample(row.kind, row.format)
			r.Method, r.Query, r.Body, r.ContentLength, r.Header, r.Path = "GET", "", strings.NewReader(""), 0, r.Header[:1], "/"
			r.FullPath = strings.TrimSuffix(r.FullPath, "/users/a%20b/x%2Fy/z") + "/"
			inv.Trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
			route := *r.Route
			route.Params, route.StageVars, route.Pattern = nil, nil, "/"
			r.Route = &route
			bare, err := appendEvent(nil, r, inv)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name+"-bare.json", bare)
		})
	}
}

// golden compares got, indented, with the file. EBB_UPDATE_GOLDEN=1 writes it.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	goldenAt(t, filepath.Join("testdata", "http", name), got)
}

func goldenAt(t *testing.T, file string, got []byte) {
	t.Helper()
	var b bytes.Buffer
	if err := json.Indent(&b, got, "", "  "); err != nil {
		t.Fatalf("%v in %s", err, got)
	}
	b.WriteByte('\n')
	if os.Getenv("EBB_UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, b.Bytes()) {
		t.Errorf("%s differs; got\n%s", file, b.Bytes())
	}
}

func TestAppendEvent_SendsBinaryBodiesAsBase64(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		kind, format, typ string
		binary            []string
		want              bool
	}{
		"rest without binary types":  {"rest", "1.0", "image/png", nil, false},
		"rest exact":                 {"rest", "1.0", "image/png", []string{"image/png"}, true},
		"rest other":                 {"rest", "1.0", "image/gif", []string{"image/png"}, false},
		"rest with parameters":       {"rest", "1.0", "IMAGE/png; q=1", []string{"image/png"}, true},
		"rest group":                 {"rest", "1.0", "image/gif", []string{"image/*"}, true},
		"rest all":                   {"rest", "1.0", "application/json", []string{"*/*"}, true},
		"rest all, escaped, no type": {"rest", "1.0", "", []string{"*~1*"}, true},
		"http json":                  {"http", "2.0", "application/json; charset=utf-8", nil, false},
		"http text":                  {"http", "2.0", "text/csv", nil, false},
		"http xml":                   {"http", "1.0", "application/xml", nil, false},
		"http javascript":            {"http", "2.0", "application/javascript", nil, false},
		"http form":                  {"http", "2.0", "application/x-www-form-urlencoded", nil, true},
		"http bytes":                 {"http", "2.0", "application/octet-stream", nil, true},
		"http no type":               {"http", "2.0", "", nil, true},
		"url json":                   {"url", "2.0", "application/json", nil, false},
		"url multipart":              {"url", "2.0", "multipart/form-data; boundary=x", nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, inv := sample(row.kind, row.format)
			r.Route.Binary = row.binary
			r.Header = []invocation.Field{{Name: "content-type", Value: row.typ}}
			r.Body = bytes.NewBufferString("héllo")
			m := mustEvent(t, r, inv)
			want := "héllo"
			if row.want {
				want = "aMOpbGxv"
			}
			if m["isBase64Encoded"] != row.want || m["body"] != want {
				t.Errorf("isBase64Encoded %v, body %q", m["isBase64Encoded"], m["body"])
			}
		})
	}
}

func TestAppendEvent_RefusesWhatIsOverTheLimit(t *testing.T) {
	t.Parallel()
	big := make([]byte, 5<<20) // under 6 MB as it is, over it as base64
	for name, row := range map[string]struct {
		body   io.Reader
		length int64
		code   errs.Code
	}{
		"as base64":         {bytes.NewBuffer(big), int64(len(big)), errs.TooLarge},
		"known length":      {strings.NewReader("x"), maxEvent + 1, errs.TooLarge},
		"unknown length":    {io.MultiReader(bytes.NewReader(big), bytes.NewReader(big)), -1, errs.TooLarge},
		"error of the body": {io.MultiReader(strings.NewReader("x"), failing{}), -1, errs.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, inv := sample("http", "2.0")
			r.Header, r.Body, r.ContentLength = nil, row.body, row.length
			if _, err := appendEvent(nil, r, inv); errs.CodeOf(err) != row.code {
				t.Errorf("error %v", err)
			}
		})
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errs.New(errs.Canceled, "the client went away") }

func TestAppendEvent_ShowsClaims(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		kind, format string
		claims       map[string]any
		want         string
	}{
		"rest":        {"rest", "1.0", map[string]any{"principalId": "ann"}, `{"principalId":"ann"}`},
		"http jwt":    {"http", "2.0", map[string]any{"jwt": map[string]any{"claims": map[string]any{"sub": "1"}}}, `{"jwt":{"claims":{"sub":"1"}}}`},
		"http lambda": {"http", "2.0", map[string]any{"user": "ann"}, `{"lambda":{"user":"ann"}}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, inv := sample(row.kind, row.format)
			r.Claims = row.claims
			got, _ := json.Marshal(mustEvent(t, r, inv)["requestContext"].(map[string]any)["authorizer"])
			if string(got) != row.want {
				t.Errorf("authorizer %s", got)
			}
		})
	}
}

type answerRow struct {
	kind, format, method, accept, result string
	binary                               []string
	status                               int
	header                               string // "name: value" joined with "; "
	body                                 string
	failed                               bool
}

func TestWriteAnswer_ReadsResultsAsTheKindDoes(t *testing.T) {
	t.Parallel()
	const rest502 = `{"message": "Internal server error"}`
	const http500 = `{"message":"Internal Server Error"}`
	bad := func(kind, format, result string) answerRow {
		row := answerRow{kind: kind, format: format, result: result, failed: true, status: 502, body: rest502,
			header: "Content-Type: application/json; x-amzn-ErrorType: InternalServerErrorException"}
		switch kind {
		case "http":
			row.status, row.body, row.header = 500, http500, "Content-Type: application/json"
		case "url":
			row.body, row.header = "Internal Server Error", "Content-Type: application/json"
		}
		return row
	}
	rows := map[string]answerRow{
		"rest plain":             {kind: "rest", result: `{"statusCode":201,"headers":{"X-a":"1"},"body":"hi"}`, status: 201, header: "X-a: 1; Content-Type: application/json", body: "hi"},
		"rest status as text":    {kind: "rest", result: `{"statusCode":"404"}`, status: 404, header: "Content-Type: application/json"},
		"rest scalars in header": {kind: "rest", result: `{"statusCode":200,"headers":{"a":1,"b":true,"c":1.50,"d":null}}`, status: 200, header: "a: 1; b: true; c: 1.50; Content-Type: application/json"},
		"rest multi wins":        {kind: "rest", result: `{"statusCode":200,"headers":{"Set-Cookie":"x","y":"1"},"multiValueHeaders":{"set-cookie":["a","b"]}}`, status: 200, header: "y: 1; set-cookie: a; set-cookie: b; Content-Type: application/json"},
		"rest remapped": {kind: "rest", result: `{"statusCode":200,"headers":{"Date":"d","content-length":"9","Connection":"c","WWW-Authenticate":"w","Trailer":"t","content-type":"text/html"},"body":"x"}`,
			status: 200, header: "x-amzn-Remapped-Date: d; x-amzn-Remapped-content-length: 9; x-amzn-Remapped-Connection: c; x-amzn-Remapped-WWW-Authenticate: w; content-type: text/html", body: "x"},
		"rest base64 not asked for": {kind: "rest", result: `{"statusCode":200,"isBase64Encoded":true,"body":"aGk="}`, status: 200, header: "Content-Type: application/json", body: "aGk="},
		"rest base64":               {kind: "rest", accept: "image/png, */*", binary: []string{"image/*"}, result: `{"statusCode":200,"isBase64Encoded":true,"body":"aGk="}`, status: 200, header: "Content-Type: application/json", body: "hi"},
		"rest base64 by own type":   {kind: "rest", binary: []string{"image/*"}, result: `{"statusCode":200,"headers":{"content-type":"image/gif"},"isBase64Encoded":true,"body":"aGk="}`, status: 200, header: "content-type: image/gif", body: "hi"},
		"rest HEAD":                 {kind: "rest", method: "HEAD", result: `{"statusCode":200,"body":"hi"}`, status: 200, header: "Content-Type: application/json"},
		"rest 204":                  {kind: "rest", result: `{"statusCode":204,"body":"hi"}`, status: 204, header: "Content-Type: application/json"},
		"rest unknown member":       bad("rest", "1.0", `{"statusCode":200,"message":"x"}`),
		"rest no status":            bad("rest", "1.0", `{"body":"x"}`),
		"rest null":                 bad("rest", "1.0", `null`),
		"rest text":                 bad("rest", "1.0", `"hello"`),
		"rest list":                 bad("rest", "1.0", `[]`),
		"rest object as body":       bad("rest", "1.0", `{"statusCode":200,"body":{"a":1}}`),
		"rest number as body":       bad("rest", "1.0", `{"statusCode":200,"body":1}`),
		"rest list as header":       bad("rest", "1.0", `{"statusCode":200,"headers":{"a":["1"]}}`),
		"rest headers a list":       bad("rest", "1.0", `{"statusCode":200,"headers":[]}`),
		"rest status word":          bad("rest", "1.0", `{"statusCode":"ok"}`),
		"rest status 100":           bad("rest", "1.0", `{"statusCode":100}`),
		"rest header with newline":  bad("rest", "1.0", `{"statusCode":200,"headers":{"a":"b\r\nc: d"}}`),
		"rest header name":          bad("rest", "1.0", `{"statusCode":200,"headers":{"a b":"c"}}`),
		"rest not JSON":             bad("rest", "1.0", `{"statusCode":200`),
		"rest empty":                bad("rest", "1.0", ``),
		"http v1 no status":         bad("http", "1.0", `{"body":"x"}`),
		"http v1 null":              bad("http", "1.0", `null`),
		"http v1 unknown member":    {kind: "http", format: "1.0", result: `{"statusCode":200,"x":1,"body":"y"}`, status: 200, header: "Content-Type: text/plain;charset=utf-8", body: "y"},
		"http v1 cookies ignored":   {kind: "http", format: "1.0", result: `{"statusCode":200,"cookies":["a"]}`, status: 200, header: "Content-Type: text/plain;charset=utf-8"},
		"http plain":                {kind: "http", result: `{"statusCode":200,"body":"a\"\u00e9\ud83d\ude00\n"}`, status: 200, header: "Content-Type: text/plain;charset=utf-8", body: "a\"é😀\n"},
		"http cookies":              {kind: "http", result: `{"statusCode":200,"cookies":["a=1","b=2"],"headers":{"connection":"x"},"body":""}`, status: 200, header: "Set-Cookie: a=1; Set-Cookie: b=2; Content-Type: text/plain;charset=utf-8"},
		"http inferred object":      {kind: "http", result: ` {"message": "x"} `, status: 200, header: "Content-Type: application/json", body: `{"message": "x"}`},
		"http inferred text":        {kind: "http", result: `"Hello"`, status: 200, header: "Content-Type: application/json", body: `Hello`},
		"http inferred list":        {kind: "http", result: `[1]`, status: 200, header: "Content-Type: application/json", body: `[1]`},
		"http inferred null":        {kind: "http", result: `null`, status: 200, header: "Content-Type: application/json", body: `null`},
		"http base64":               {kind: "http", result: `{"statusCode":200,"isBase64Encoded":true,"body":"aGk="}`, status: 200, header: "Content-Type: text/plain;charset=utf-8", body: "hi"},
		"http bad base64":           bad("http", "2.0", `{"statusCode":200,"isBase64Encoded":true,"body":"*"}`),
		"http object as body":       bad("http", "2.0", `{"statusCode":200,"body":{"a":1}}`),
		"http status 600":           bad("http", "2.0", `{"statusCode":600}`),
		"http cookies no list":      bad("http", "2.0", `{"statusCode":200,"cookies":"a"}`),
		"url plain":                 {kind: "url", result: `{"statusCode":200,"headers":{"www-authenticate":"w"},"body":"x"}`, status: 200, header: "x-amzn-Remapped-www-authenticate: w; Content-Type: application/json", body: "x"},
		"url inferred":              {kind: "url", result: `{"a":1}`, status: 200, header: "Content-Type: application/json", body: `{"a":1}`},
		"url status word":           bad("url", "2.0", `{"statusCode":"x"}`),
		"http body twice":           {kind: "http", result: `{"statusCode":200,"body":"a","body":null}`, status: 200, header: "Content-Type: text/plain;charset=utf-8"},
		"http deep":                 bad("http", "2.0", strings.Repeat("[", 5000)+strings.Repeat("]", 5000)),
		"http no answer but braces": {kind: "http", result: `{}`, status: 200, header: "Content-Type: application/json", body: `{}`},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checkAnswer(t, row)
		})
	}
}

func checkAnswer(t *testing.T, row answerRow) {
	t.Helper()
	format := row.format
	if format == "" {
		format = map[string]string{"rest": "1.0"}[row.kind]
	}
	r, _ := sample(row.kind, format)
	r.Header, r.Route.Binary = nil, row.binary
	if row.accept != "" {
		r.Header = []invocation.Field{{Name: "ACCEPT", Value: row.accept}}
	}
	if row.method != "" {
		r.Method = row.method
	}
	var b invocation.Buffer
	if err := writeAnswer(r, []byte(row.result), &b); err != nil {
		t.Fatal(err)
	}
	var header []string
	for _, f := range b.Head.Header {
		header = append(header, f.Name+": "+f.Value)
	}
	if b.Head.Status != row.status || strings.Join(header, "; ") != row.header || b.Body.String() != row.body {
		t.Errorf("answer %d, %q, %q", b.Head.Status, header, b.Body.String())
	}
	if (b.Head.Error != nil) != row.failed {
		t.Errorf("error %v", b.Head.Error)
	}
	if row.failed && b.Head.Error != nil && (b.Head.Error.Cause != invocation.CauseResponse || b.Head.Error.Message == "") {
		t.Errorf("error %+v", b.Head.Error)
	}
	if row.method == "" && row.status != 204 && b.Head.Length != int64(b.Body.Len()) {
		t.Errorf("length %d of %d bytes", b.Head.Length, b.Body.Len())
	}
}

func TestWriteAnswer_PassesOnThatTheReaderIsGone(t *testing.T) {
	t.Parallel()
	r, _ := sample("http", "2.0")
	gone := errors.New("gone")
	if err := writeAnswer(r, []byte(`"x"`), brokenSink{&invocation.Buffer{}, gone}); !errors.Is(err, gone) {
		t.Errorf("error %v", err)
	}
}

type brokenSink struct {
	*invocation.Buffer
	err error
}

func (b brokenSink) Write([]byte) (int, error) { return 0, b.err }

func FuzzDocument_AgreesWithEncodingJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,-0.5e+3,"\ud83d\ude00\u00zz"],"b":null}`, `"\ud800x"`, `[]`, `{"a":1,}`, "\"\xff\"", `01`, ` "a" "b"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		doc, ok := document(data)
		if want := json.Valid(data); ok != want && bytes.Count(data, []byte("["))+bytes.Count(data, []byte("{")) < maxDepth {
			t.Fatalf("document says %v, encoding/json %v", ok, want)
		}
		if !ok {
			return
		}
		if doc[0] == '"' {
			var want string
			if err := json.Unmarshal(doc, &want); err != nil || string(unquote(doc)) != want {
				t.Fatalf("unquote = %q, want %q (%v)", unquote(doc), want, err)
			}
		}
		for _, kind := range []string{"rest", "http", "url"} {
			r, _ := sample(kind, "")
			b := invocation.Buffer{}
			if err := writeAnswer(r, data, &b); err != nil || !b.Started || b.Head.Status < 200 || b.Head.Status > 599 {
				t.Fatalf("%s: %v, %+v", kind, err, b.Head)
			}
		}
	})
}

func FuzzAppendEvent_IsAlwaysJSON(f *testing.F) {
	f.Add("/a%2", "a=%f&&=", "X", "\xff\x00", "a=b;;c", []byte("\xed\xa0\x80"))
	f.Fuzz(func(t *testing.T, path, query, name, value, cookie string, body []byte) {
		for _, kind := range []string{"rest", "http", "url"} {
			for _, format := range []string{"1.0", "2.0"} {
				r, inv := sample(kind, format)
				r.Path, r.FullPath, r.Query = path, path, query
				r.Header = append(r.Header, invocation.Field{Name: name, Value: value}, invocation.Field{Name: "cookie", Value: cookie})
				r.Body, r.ContentLength = bytes.NewBuffer(body), int64(len(body))
				got, err := appendEvent(nil, r, inv)
				if err != nil && errs.CodeOf(err) != errs.TooLarge {
					t.Fatal(err)
				}
				if err == nil && !json.Valid(got) {
					t.Fatalf("not JSON: %s", got)
				}
			}
		}
	})
}

func BenchmarkAppendEvent(b *testing.B) {
	for _, kind := range []string{"rest", "http"} {
		b.Run(kind, func(b *testing.B) {
			r, inv := sample(kind, "2.0")
			body := []byte(`{"name":"zoe"}`)
			var dst []byte
			b.ReportAllocs()
			for b.Loop() {
				r.Body, r.ContentLength = bytes.NewBuffer(body), int64(len(body))
				dst, _ = appendEvent(dst[:0], r, inv)
			}
		})
	}
}

func BenchmarkWriteAnswer(b *testing.B) {
	r, _ := sample("http", "2.0")
	result := []byte(`{"statusCode":200,"headers":{"content-type":"application/json"},"body":"{\"hello\":\"ann\"}"}`)
	b.ReportAllocs()
	for b.Loop() {
		var s invocation.Buffer
		if err := writeAnswer(r, result, &s); err != nil {
			b.Fatal(err)
		}
	}
}
