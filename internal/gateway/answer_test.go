package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
)

// withURL is an App with one function URL and nothing else.
func withURL(u app.URL) *app.App {
	f := fn("f")
	f.URL = &u
	return &app.App{Name: "shop", Stage: "dev", Functions: []app.Function{f}}
}

func fail(err error) Invoker {
	return invokerFunc(func(context.Context, *invocation.Invocation, invocation.Sink) error { return err })
}

func TestGateway_AnswersErrorsLikeTheKind(t *testing.T) {
	t.Parallel()
	secret := errors.New("secret detail")
	apps := map[string]*app.App{"rest": shop(app.REST, "dev", "ANY /x"), "http": shop(app.HTTP, "$default", "ANY /x"), "url": withURL(app.URL{Auth: "none"})}
	for name, row := range map[string]struct {
		kind   string
		err    error
		status int
		body   string
		typ    string
	}{
		"rest internal":    {"rest", secret, 500, `{"message": "Internal server error"}`, "InternalServerErrorException"},
		"rest throttled":   {"rest", errs.New(errs.Throttled, "%w", secret), 429, `{"message":"Too Many Requests"}`, "TooManyRequestsException"},
		"rest unavailable": {"rest", errs.New(errs.Unavailable, "%w", secret), 503, `{"message":"Service Unavailable"}`, "ServiceUnavailableException"},
		"rest too large":   {"rest", errs.New(errs.TooLarge, "%w", secret), 413, `{"message":"Request Too Long"}`, "RequestTooLargeException"},
		"rest timeout":     {"rest", errs.New(errs.Timeout, "%w", secret), 504, `{"message": "Endpoint request timed out"}`, "InternalServerErrorException"},
		"http internal":    {"http", secret, 500, `{"message":"Internal Server Error"}`, ""},
		"http throttled":   {"http", errs.New(errs.Throttled, "%w", secret), 429, `{"message":"Too Many Requests"}`, ""},
		"http unavailable": {"http", errs.New(errs.Unavailable, "%w", secret), 503, `{"message":"Service Unavailable"}`, ""},
		"http too large":   {"http", errs.New(errs.TooLarge, "%w", secret), 413, `{"message":"Request Entity Too Large"}`, ""},
		"http timeout":     {"http", errs.New(errs.Timeout, "%w", secret), 503, `{"message":"Service Unavailable"}`, ""},
		"http nothing":     {"http", nil, 500, `{"message":"Internal Server Error"}`, ""},
		"url internal":     {"url", secret, 500, `{"Message":"Internal Server Error"}`, ""},
		"url throttled":    {"url", errs.New(errs.Throttled, "%w", secret), 429, `{"Reason":"ConcurrentInvocationLimitExceeded","Type":"User","message":"Rate Exceeded."}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, Options{Invoker: fail(row.err)}, Mount{App: apps[row.kind]})
			status, body, h := ask(t, s, "GET", "/x")
			if status != row.status || body != row.body || h.Get("X-Amzn-Errortype") != row.typ {
				t.Errorf("%d %s %q", status, body, h.Get("X-Amzn-Errortype"))
			}
			if (h.Get("Retry-After") != "") != (status == 429 || strings.Contains(name, "unavailable")) {
				t.Errorf("Retry-After %q", h.Get("Retry-After"))
			}
			if h.Get("Content-Type") != "application/json" {
				t.Errorf("Content-Type %q", h.Get("Content-Type"))
			}
		})
	}
}

func TestGateway_RefusesWhatIsNotProtectedYet(t *testing.T) {
	t.Parallel()
	base := func(change func(a *app.App)) *app.App {
		a := shop(app.REST, "dev", "GET /x")
		change(a)
		return a
	}
	socket := shop(app.WebSocket, "dev", "$connect")
	socket.Routes[0].Method = "ANY"
	for name, row := range map[string]struct {
		app      *app.App
		says     string
		openable bool
	}{
		"authorizer": {base(func(a *app.App) { a.Routes[0].Authorizer = &app.Authorizer{Kind: "jwt", Name: "login"} }), `jwt authorizer "login"`, true},
		"api key":    {base(func(a *app.App) { a.Routes[0].APIKey = true }), "API key", true},
		"policy":     {base(func(a *app.App) { a.APIs[0].Policy = true }), "resource policy", true},
		"url iam":    {withURL(app.URL{Auth: "iam"}), "IAM", true},
		"proxy":      {base(func(a *app.App) { a.Routes[0].Function, a.Routes[0].Proxy = "", "http://example.com" }), "http://example.com", false},
		"async":      {base(func(a *app.App) { a.Routes[0].Async = true }), "Asynchronous", false},
		"templates": {base(func(a *app.App) {
			a.Routes[0].Custom, a.Routes[0].Templates = true, map[string]string{"application/json": "{}"}
		}), "templates", false},
		"websocket": {socket, "WebSocket", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, open := range []bool{false, true} {
				s := start(t, Options{AllowUnprotected: open}, Mount{App: row.app})
				infos := s.Routes("default", "shop", "dev")
				refused := !open || !row.openable
				if len(infos) != 1 || strings.Contains(infos[0].Inactive, row.says) != refused {
					t.Errorf("open %v: routes %+v", open, infos)
				}
				if name == "websocket" {
					continue // its routes have no path
				}
				status, body, _ := ask(t, s, "GET", "/x")
				if refused && (status != 501 || !strings.Contains(body, strings.ReplaceAll(row.says, `"`, `\"`))) || !refused && status != 200 {
					t.Errorf("open %v: %d %s", open, status, body)
				}
			}
		})
	}
}

func TestGateway_BoundsBodies(t *testing.T) {
	t.Parallel()
	const limit = 1000
	for kind, want := range map[app.APIKind]string{app.REST: `{"message":"Request Too Long"}`, app.HTTP: `{"message":"Request Entity Too Large"}`} {
		inv := invokerFunc(func(_ context.Context, inv *invocation.Invocation, s invocation.Sink) error {
			r := inv.Payload.(*invocation.Request)
			b, err := io.ReadAll(r.Body)
			if err != nil {
				return err
			}
			return text(s, fmt.Sprint(len(b), r.ContentLength))
		})
		s := start(t, Options{Invoker: inv, MaxBody: limit}, Mount{App: shop(kind, "$default", "ANY /x")})
		for name, row := range map[string]struct {
			body   io.Reader
			status int
			want   string
		}{
			"none":         {nil, 200, "0 0"},
			"at the limit": {bytes.NewReader(make([]byte, limit)), 200, "1000 1000"},
			"over":         {bytes.NewReader(make([]byte, limit+1)), 413, want},
			"chunked":      {io.MultiReader(bytes.NewReader(make([]byte, limit))), 200, "1000 1000"},
			"chunked over": {io.MultiReader(bytes.NewReader(make([]byte, limit+1))), 413, want},
		} {
			if status, body, _ := send(t, s, "POST", "/x", row.body); status != row.status || body != row.want {
				t.Errorf("%s %s: %d %s", kind, name, status, body)
			}
		}
		if status, _, _ := ask(t, s, "GET", "/x?"+strings.Repeat("a", maxTarget)); status != 414 {
			t.Errorf("long target: %d", status)
		}
		if status, _, _ := ask(t, s, "GET", "/x", "A", strings.Repeat("a", 20<<10)); status != 431 {
			t.Errorf("long header: %d", status)
		}
	}
}

func TestGateway_AnswersCORS(t *testing.T) {
	t.Parallel()
	own := invokerFunc(func(_ context.Context, inv *invocation.Invocation, s invocation.Sink) error {
		return s.Start(invocation.Head{Status: 200, Header: []invocation.Field{{Name: "access-control-allow-origin", Value: "http://own"}, {Name: "X-A", Value: "1"}}})
	})
	open := &app.CORS{Origins: []string{"*"}, Methods: []string{"GET", "POST"}, Headers: []string{"x-a"}, Expose: []string{"x-b"}, MaxAgeSec: 60}
	listed := &app.CORS{Origins: []string{"https://a.example", "http://*.dev"}, Methods: []string{"*"}, Credentials: true}
	httpAPI := func(c *app.CORS) *app.App {
		a := shop(app.HTTP, "$default", "ANY /x")
		a.APIs[0].CORS = c
		return a
	}
	restAPI := shop(app.REST, "dev", "GET /x")
	restAPI.Routes[0].CORS = &app.CORS{Origins: []string{"http://a", "http://b"}, Methods: []string{"OPTIONS", "GET"}, Headers: []string{"X-A", "X-B"}}
	for name, row := range map[string]struct {
		app    *app.App
		method string
		path   string
		header []string
		status int
		want   string // Access-Control- headers without that prefix
	}{
		"preflight": {httpAPI(open), "OPTIONS", "/x", []string{"Origin", "http://o", "Access-Control-Request-Method", "GET"}, 204,
			"Allow-Headers=x-a Allow-Methods=GET,POST Allow-Origin=* Expose-Headers=x-b Max-Age=60"},
		"preflight of an unknown path":        {httpAPI(open), "OPTIONS", "/none", []string{"Origin", "http://o", "Access-Control-Request-Method", "GET"}, 204, "Allow-Headers=x-a Allow-Methods=GET,POST Allow-Origin=* Expose-Headers=x-b Max-Age=60"},
		"preflight of a listed origin":        {httpAPI(listed), "OPTIONS", "/x", []string{"Origin", "https://A.example", "Access-Control-Request-Method", "GET"}, 204, "Allow-Credentials=true Allow-Methods=* Allow-Origin=https://A.example"},
		"preflight of a pattern":              {httpAPI(listed), "OPTIONS", "/x", []string{"Origin", "http://x.dev", "Access-Control-Request-Method", "GET"}, 204, "Allow-Credentials=true Allow-Methods=* Allow-Origin=http://x.dev"},
		"preflight of another origin":         {httpAPI(listed), "OPTIONS", "/x", []string{"Origin", "https://b.example", "Access-Control-Request-Method", "GET"}, 204, ""},
		"OPTIONS that is no preflight":        {httpAPI(open), "OPTIONS", "/x", nil, 200, ""},
		"answer":                              {httpAPI(open), "GET", "/x", []string{"Origin", "http://o"}, 200, "Allow-Origin=* Expose-Headers=x-b"},
		"answer without origin":               {httpAPI(open), "GET", "/x", nil, 200, ""},
		"error answer":                        {httpAPI(open), "GET", "/none", []string{"Origin", "http://o"}, 404, "Allow-Origin=* Expose-Headers=x-b"},
		"answer of an API without CORS":       {httpAPI(nil), "GET", "/x", []string{"Origin", "http://o"}, 200, "Allow-Origin=http://own"},
		"preflight at an API without CORS":    {httpAPI(nil), "OPTIONS", "/x", []string{"Origin", "http://o", "Access-Control-Request-Method", "GET"}, 200, "Allow-Origin=http://own"},
		"url preflight":                       {withURL(app.URL{Auth: "none", CORS: open}), "OPTIONS", "/any", []string{"Origin", "http://o", "Access-Control-Request-Method", "GET"}, 204, "Allow-Headers=x-a Allow-Methods=GET,POST Allow-Origin=* Expose-Headers=x-b Max-Age=60"},
		"url answer":                          {withURL(app.URL{Auth: "none", CORS: listed}), "GET", "/", []string{"Origin", "https://a.example"}, 200, "Allow-Credentials=true Allow-Origin=https://a.example"},
		"rest OPTIONS":                        {restAPI, "OPTIONS", "/dev/x", []string{"Origin", "http://b"}, 200, "Allow-Headers=X-A,X-B Allow-Methods=OPTIONS,GET Allow-Origin=http://b"},
		"rest OPTIONS of another origin":      {restAPI, "OPTIONS", "/x", []string{"Origin", "http://c"}, 200, "Allow-Headers=X-A,X-B Allow-Methods=OPTIONS,GET Allow-Origin=http://a"},
		"rest answer is the function's alone": {restAPI, "GET", "/x", []string{"Origin", "http://b"}, 200, "Allow-Origin=http://own"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, Options{Invoker: own}, Mount{App: row.app})
			status, _, h := ask(t, s, row.method, row.path, row.header...)
			var got []string
			for _, n := range []string{"Allow-Credentials", "Allow-Headers", "Allow-Methods", "Allow-Origin", "Expose-Headers", "Max-Age"} {
				for _, v := range h.Values("Access-Control-" + n) {
					got = append(got, n+"="+v)
				}
			}
			if status != row.status || strings.Join(got, " ") != row.want {
				t.Errorf("%d %v", status, got)
			}
		})
	}
}

func TestGateway_ServesMocksAndPassthrough(t *testing.T) {
	t.Parallel()
	a := shop(app.REST, "dev", "GET /mock", "POST /raw")
	a.Routes[0].Function, a.Routes[0].Mock = "", &app.Mock{Status: 418, Header: map[string]string{"X-A": "1", "Content-Type": "text/x"}, Body: "tea"}
	a.Routes[1].Custom = true
	inv := invokerFunc(func(_ context.Context, inv *invocation.Invocation, s invocation.Sink) error {
		b := inv.Payload.(invocation.Raw)
		if err := s.Start(invocation.Head{Length: int64(len(b))}); err != nil {
			return err
		}
		_, err := s.Write(b)
		return err
	})
	s := start(t, Options{Invoker: inv}, Mount{App: a})
	if status, body, h := ask(t, s, "GET", "/mock"); status != 418 || body != "tea" || h.Get("X-A") != "1" || h.Get("Content-Type") != "text/x" {
		t.Errorf("mock: %d %s %v", status, body, h)
	}
	for in, want := range map[string]string{`{"a":1}`: `200 {"a":1} application/json`, "": "200 {} application/json", "x": `400 {"message":"Could not parse request body into json"} application/json`} {
		status, body, h := send(t, s, "POST", "/raw", strings.NewReader(in))
		if got := fmt.Sprint(status, " ", body, " ", h.Get("Content-Type")); got != want {
			t.Errorf("%q: %s", in, got)
		}
	}
}

func TestGateway_SendsAnswersAsGiven(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		method string
		head   invocation.Head
		body   string
		want   string // status, Content-Length, Content-Type, Set-Cookie, body
	}{
		"known length":   {"GET", invocation.Head{Status: 200, Length: 2, Header: []invocation.Field{{Name: "content-type", Value: "a/b"}}}, "hi", "200 [2] [a/b] [] hi"},
		"unknown length": {"GET", invocation.Head{Status: 200, Length: -1}, "hi", "200 [2] [] [] hi"},
		"no guessed type": {"GET", invocation.Head{Status: 200, Length: 6, Header: []invocation.Field{{Name: "Content-Length", Value: "99"}, {Name: "Connection", Value: "close"}}},
			"<html>", "200 [6] [] [] <html>"},
		"cookies":          {"GET", invocation.Head{Status: 404, Header: []invocation.Field{{Name: "set-cookie", Value: "a"}, {Name: "Set-Cookie", Value: "b"}}}, "", "404 [0] [] [a b] "},
		"HEAD":             {"HEAD", invocation.Head{Status: 200, Length: 7}, "", "200 [7] [] [] "},
		"HEAD that writes": {"HEAD", invocation.Head{Status: 200, Length: 7}, "1234567", "200 [7] [] [] "},
		"204":              {"GET", invocation.Head{Status: 204, Length: 2}, "hi", "204 [] [] [] "},
		"304":              {"GET", invocation.Head{Status: 304}, "", "304 [] [] [] "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inv := invokerFunc(func(_ context.Context, _ *invocation.Invocation, s invocation.Sink) error {
				if err := s.Start(row.head); err != nil {
					return err
				}
				if row.body == "" {
					return nil
				}
				_, err := io.WriteString(s, row.body)
				return err
			})
			s := start(t, Options{Invoker: inv}, Mount{App: shop(app.HTTP, "$default", "$default")})
			status, body, h := ask(t, s, row.method, "/")
			if got := fmt.Sprint(status, " ", h["Content-Length"], " ", h["Content-Type"], " ", h["Set-Cookie"], " ", body); got != row.want {
				t.Errorf("got %s, want %s", got, row.want)
			}
		})
	}
}

func TestGateway_BreaksOffNothingSilently(t *testing.T) {
	t.Parallel()
	broken := errors.New("the guest died")
	for name, row := range map[string]struct {
		stream bool
		length int64
		write  string
		err    error
		want   int // status; 0: the client sees an error
	}{
		"buffered, short, failed":  {false, 10, "abc", broken, 500},
		"buffered, short, ended":   {false, 10, "abc", nil, 500},
		"buffered, no length":      {false, -1, "abc", broken, 500},
		"buffered, whole, failed":  {false, 3, "abc", broken, 200},
		"streamed, failed":         {true, -1, "abc", broken, 0},
		"streamed, ended":          {true, -1, "abc", nil, 200},
		"streamed, nothing, fails": {true, -1, "", broken, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inv := invokerFunc(func(_ context.Context, _ *invocation.Invocation, s invocation.Sink) error {
				if err := s.Start(invocation.Head{Status: 200, Length: row.length}); err != nil {
					return err
				}
				if _, err := io.WriteString(s, row.write); err != nil {
					return err
				}
				return row.err
			})
			s := start(t, Options{Invoker: inv}, Mount{App: withURL(app.URL{Auth: "none", Stream: row.stream})})
			resp, err := http.Get("http://" + s.addr)
			status := 0
			if err == nil {
				defer resp.Body.Close()
				if _, err = io.ReadAll(resp.Body); err == nil {
					status = resp.StatusCode
				}
			}
			if status != row.want {
				t.Errorf("status %d, want %d (%v)", status, row.want, err)
			}
		})
	}
}
