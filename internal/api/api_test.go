package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/artifact"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/identity"
	"github.com/ebb-run/ebb/internal/invocation"
)

const token = identity.Token("dG9rZW4tb2YtdGhlLXRlc3QtdG9rZW4tb2YtdGhlLXRlc3Q")

// backend answers from memory and says what it was asked.
type backend struct {
	mu       sync.Mutex
	blobs    map[string][]byte
	deployed []api.DeployRequest

	published []string
	invoke    func(inv *invocation.Invocation, body []byte, s invocation.Sink) error
	during    func(ctx context.Context, s invocation.Sink) error // in place of invoke
	logs      func(q api.LogQuery, begun func(), each func(api.LogRecord) error) error
	fault     error
	later     error // of a Backup that has begun
	books     books
}

func (b *backend) Info() api.Info { return api.Info{Version: "test", PID: 7, Gateway: "http://gw"} }
func (b *backend) Ready() error   { return b.fault }
func (b *backend) Metrics() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ebb_build 1\n") })
}

func (b *backend) Missing(m *artifact.Manifest) ([]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := []string{}
	for _, e := range m.Entries {
		if _, ok := b.blobs[e.SHA256]; !ok && e.SHA256 != "" {
			list = append(list, e.SHA256)
		}
	}
	return list, b.fault
}

func (b *backend) PutBlob(sha string, size int64, r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil || int64(len(data)) != size {
		return errs.New(errs.Invalid, "blob has %d bytes, want %d", len(data), size)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.blobs[sha] = data
	return nil
}

// stored counts the blobs; a request that its client has given up may still add one.
func (b *backend) stored() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.blobs)
}

func (b *backend) PutManifest(m *artifact.Manifest) (string, error) { return m.Digest(), b.fault }

func (b *backend) Deploy(_ context.Context, r api.DeployRequest) (*api.Deployed, error) {
	if b.fault != nil {
		return nil, b.fault
	}
	b.deployed = append(b.deployed, r)
	return &api.Deployed{App: r.App.Name, Stage: r.App.Stage, Deployment: "d1", Changed: []string{}}, nil
}

func (b *backend) Rollback(_ context.Context, app, stage, to string) (*api.Deployed, error) {
	return &api.Deployed{App: app, Stage: stage, Deployment: to}, b.fault
}
func (b *backend) Remove(context.Context, string, string) error { return b.fault }
func (b *backend) Stacks(context.Context) ([]api.Stack, error) {
	return []api.Stack{{App: "shop", Stage: "dev", Functions: []api.FunctionInfo{{Name: "shop-dev-hello", Key: "hello"}}}}, b.fault
}

func (b *backend) History(_ context.Context, app, _ string) ([]api.Deployment, error) {
	return []api.Deployment{{ID: "d1", Message: app}}, b.fault
}

func (b *backend) Invoke(ctx context.Context, name string, inv *invocation.Invocation, s invocation.Sink) error {
	if name != "hello" && name != "a/b" {
		return errs.New(errs.NotFound, "no function %s is deployed", name).WithHint("Did you mean hello?")
	}
	inv.ID = "id-1"
	raw, ok := inv.Payload.(invocation.Raw)
	if !ok {
		return fmt.Errorf("payload is %T", inv.Payload)
	}
	if b.during != nil {
		return b.during(ctx, s)
	}
	return b.invoke(inv, raw, s)
}

func (b *backend) Logs(_ context.Context, q api.LogQuery, begun func(), each func(api.LogRecord) error) error {
	return b.logs(q, begun, each)
}

func (b *backend) CreateKey(_ context.Context, r api.KeyRequest) (*api.NewKey, error) {
	return &api.NewKey{KeyInfo: api.KeyInfo{ID: "k", Name: r.Name, By: r.By}, Key: "ebb1.k.s"}, b.fault
}
func (b *backend) Keys(context.Context) ([]api.KeyInfo, error) {
	return []api.KeyInfo{{ID: "k"}}, b.fault
}
func (b *backend) RevokeKey(context.Context, string) error { return b.fault }
func (b *backend) RotateKey(_ context.Context, id string, _ time.Duration, by string) (*api.NewKey, error) {
	return &api.NewKey{KeyInfo: api.KeyInfo{ID: "k2", By: by}, Replaces: id}, b.fault
}
func (b *backend) CA() (*api.CA, error) { return &api.CA{PEM: "pem", Fingerprint: "fp"}, b.fault }

type node struct {
	*backend
	url    string
	client *api.Client
	log    *safeBuffer
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func open(t testing.TB) *node {
	t.Helper()
	b := &backend{blobs: map[string][]byte{}}
	b.invoke = func(_ *invocation.Invocation, body []byte, s invocation.Sink) error {
		if err := s.Start(invocation.Head{Length: -1}); err != nil {
			return err
		}
		_, err := s.Write(body)
		return err
	}
	log := &safeBuffer{}
	srv := httptest.NewServer(api.NewServer(b, token, slog.New(slog.NewTextHandler(log, nil))))
	t.Cleanup(srv.Close)
	return &node{backend: b, url: srv.URL, client: api.NewClient(srv.URL, token), log: log}
}

type answer struct {
	status int
	body   string
	code   errs.Code
	msg    string
	hint   string
}

func (n *node) call(t testing.TB, method, path, body string, change func(*http.Request)) answer {
	t.Helper()
	req, err := http.NewRequest(method, n.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+string(token))
	if change != nil {
		change(req)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var e struct {
		Error struct {
			Code          errs.Code
			Message, Hint string
		}
	}
	_ = json.Unmarshal(data, &e)
	return answer{resp.StatusCode, string(data), e.Error.Code, e.Error.Message, e.Error.Hint}
}

func TestServer_RefusesWhoeverIsNotTheOwner(t *testing.T) {
	t.Parallel()
	n := open(t)
	header := func(k, v string) func(*http.Request) { return func(r *http.Request) { r.Header.Set(k, v) } }
	host := func(h string) func(*http.Request) { return func(r *http.Request) { r.Host = h } }
	for name, row := range map[string]struct {
		path   string
		change func(*http.Request)
		status int
	}{
		"token":                {"/v1/info", nil, 200},
		"no token":             {"/v1/info", func(r *http.Request) { r.Header.Del("Authorization") }, 401},
		"wrong token":          {"/v1/info", header("Authorization", "Bearer wrong"), 401},
		"token without scheme": {"/v1/info", header("Authorization", string(token)), 401},
		"empty bearer":         {"/v1/info", header("Authorization", "Bearer "), 401},
		"metrics, no token":    {"/metrics", func(r *http.Request) { r.Header.Del("Authorization") }, 401},
		"unknown, no token":    {"/nowhere", func(r *http.Request) { r.Header.Del("Authorization") }, 401},
		"health, no token":     {"/healthz", func(r *http.Request) { r.Header.Del("Authorization") }, 200},
		"ready, no token":      {"/readyz", func(r *http.Request) { r.Header.Del("Authorization") }, 200},
		"localhost":            {"/v1/info", host("localhost:1234"), 200},
		"localhost, no port":   {"/v1/info", host("localhost"), 200},
		"IPv6 loopback":        {"/v1/info", host("[::1]:80"), 200},
		"rebound name":         {"/v1/info", host("evil.example:80"), 403},
		"sub-domain":           {"/v1/info", host("localhost.evil.example"), 403},
		"another address":      {"/v1/info", host("10.0.0.1:80"), 403},
		"health, foreign host": {"/healthz", host("evil.example"), 403},
		"own origin":           {"/v1/info", header("Origin", "http://127.0.0.1"), 403},
		"null origin":          {"/v1/info", header("Origin", "null"), 403},
		"fetch from a page":    {"/v1/info", header("Sec-Fetch-Site", "cross-site"), 403},
		"same-origin fetch":    {"/v1/info", header("Sec-Fetch-Site", "same-origin"), 403},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := n.call(t, "GET", row.path, "", row.change)
			if a.status != row.status {
				t.Errorf("status %d, want %d: %s", a.status, row.status, a.body)
			}
			if want := map[int]errs.Code{401: errs.Unauthenticated, 403: errs.Forbidden, 200: ""}[row.status]; a.code != want {
				t.Errorf("code %q, want %q", a.code, want)
			}
			if strings.Contains(a.body, string(token)) {
				t.Error("the answer holds the token")
			}
		})
	}
}

func TestServer_SaysWhatIsWrongWithACall(t *testing.T) {
	t.Parallel()
	n := open(t)
	for name, row := range map[string]struct {
		method, path, body string
		status             int
		says               string
	}{
		"unknown path":          {"GET", "/v1/bananas", "", 404, "GET /v1/bananas"},
		"wrong method":          {"PUT", "/v1/info", "", 404, "PUT /v1/info"},
		"broken JSON":           {"POST", "/v1/deployments", "{", 400, "unexpected EOF"},
		"empty body":            {"POST", "/v1/deployments", "", 400, "EOF"},
		"unknown field":         {"POST", "/v1/deployments", `{"apps":{}}`, 400, `unknown field "apps"`},
		"two documents":         {"POST", "/v1/deployments", `{"units":[]} {"units":[]}`, 400, "more follows"},
		"wrong type":            {"POST", "/v1/artifacts/missing", `[]`, 400, "cannot unmarshal"},
		"rollback nonsense":     {"POST", "/v1/stacks/a/b/rollback", `{"too":"x"}`, 400, `unknown field "too"`},
		"rollback too long":     {"POST", "/v1/stacks/a/b/rollback", `{"to":"` + strings.Repeat("x", 1<<16) + `"}`, 413, "65536 bytes"},
		"payload too large":     {"POST", "/v1/functions/hello/invocations", strings.Repeat("x", api.MaxPayload+1), 413, "6291456 bytes"},
		"unknown function":      {"POST", "/v1/functions/helo/invocations", "{}", 404, "no function helo"},
		"bad time":              {"GET", "/v1/logs?since=yesterday", "", 400, "since"},
		"negative tail":         {"GET", "/v1/logs?tail=-1", "", 400, "not a whole number"},
		"blob of unknown size":  {"PUT", "/v1/blobs/abc", "-chunked-", 413, "Content-Length"},
		"deep nesting":          {"POST", "/v1/deployments", `{"app":` + strings.Repeat("[", 20000), 400, ""},
		"deploy without an app": {"POST", "/v1/deployments", `null`, 400, "no app"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := n.call(t, row.method, row.path, row.body, func(r *http.Request) {
				if row.body == "-chunked-" {
					r.ContentLength = -1
				}
			})
			if a.status != row.status || !strings.Contains(a.msg, row.says) || a.code == "" {
				t.Errorf("got %d %s, want %d and %q", a.status, a.body, row.status, row.says)
			}
		})
	}
	if len(n.deployed) > 0 {
		t.Errorf("a wrong call was deployed: %+v", n.deployed)
	}
}

func TestServer_KeepsTheTextOfItsFaultsToItself(t *testing.T) {
	t.Parallel()
	n := open(t)
	n.fault = fmt.Errorf("open /secret/path: broken")
	a := n.call(t, "GET", "/v1/stacks", "", nil)
	if a.status != 500 || a.code != errs.Internal || strings.Contains(a.body, "secret") {
		t.Errorf("got %d %s", a.status, a.body)
	}
	if !strings.Contains(n.log.String(), "/secret/path") {
		t.Errorf("the log lacks the fault: %s", n.log)
	}
	if a := n.call(t, "GET", "/readyz", "", nil); a.status != 503 {
		t.Errorf("readyz: %d", a.status)
	}
}

func TestClient_GivesCodeMessageAndHintOfAnError(t *testing.T) {
	t.Parallel()
	n := open(t)
	_, err := n.client.Invoke(t.Context(), "helo", nil, "")
	if errs.CodeOf(err) != errs.NotFound || err.Error() != "no function helo is deployed" || errs.HintOf(err) != "Did you mean hello?" {
		t.Errorf("got %v, hint %q", err, errs.HintOf(err))
	}
	for _, code := range []errs.Code{errs.Conflict, errs.Exists, errs.Throttled, errs.Unavailable, errs.Failed, errs.Unsupported} {
		n.fault = errs.New(code, "because")
		if _, err := n.client.Deploy(t.Context(), api.DeployRequest{App: &app.App{}}); errs.CodeOf(err) != code || err.Error() != "because" {
			t.Errorf("%s came as %s: %v", code, errs.CodeOf(err), err)
		}
	}
	_, err = api.NewClient(n.url, "wrong").Stacks(t.Context())
	if errs.CodeOf(err) != errs.Unauthenticated {
		t.Errorf("wrong token: %v", err)
	}
	gone := httptest.NewServer(nil)
	gone.Close()
	_, err = api.NewClient(gone.URL, token).Info(t.Context())
	if errs.CodeOf(err) != errs.Unavailable || errs.HintOf(err) == "" {
		t.Errorf("nobody there: %v", err)
	}
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>", http.StatusTeapot) }))
	defer other.Close()
	if _, err = api.NewClient(other.URL, token).Info(t.Context()); err == nil || !strings.Contains(err.Error(), "418") {
		t.Errorf("another program: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.client.Info(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// advice says when to try again.
type advice time.Duration

func (a advice) Error() string             { return "later" }
func (a advice) RetryAfter() time.Duration { return time.Duration(a) }

func TestServer_SaysWhenToTryAgain(t *testing.T) {
	t.Parallel()
	n := open(t)
	for name, row := range map[string]struct {
		err  error
		want string
	}{
		"throttled":  {errs.New(errs.Throttled, "full: %w", advice(1500*time.Millisecond)), "429 2"},
		"no advice":  {errs.New(errs.Throttled, "full"), "429 "},
		"other code": {errs.New(errs.Conflict, "full: %w", advice(time.Second)), "409 "},
	} {
		n.fault = row.err
		r, err := http.NewRequestWithContext(t.Context(), "GET", n.url+"/v1/stacks", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+string(token))
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if got := fmt.Sprint(resp.StatusCode, " ", resp.Header.Get("Retry-After")); got != row.want {
			t.Errorf("%s: %s, want %s", name, got, row.want)
		}
	}
}

func TestInvoke_IsByteForByteAndTellsAFunctionErrorApart(t *testing.T) {
	t.Parallel()
	n := open(t)
	payload := []byte("\x00{ \"a\" : 1.0 }\r\n\xff")
	a, err := n.client.Invoke(t.Context(), "a/b", payload, "")
	if err != nil || !bytes.Equal(a.Payload, payload) || a.ID != "id-1" || a.Cause != "" {
		t.Errorf("got %+v, %v", a, err)
	}
	long := strings.Repeat("å", 4000) + "\n"
	n.invoke = func(_ *invocation.Invocation, _ []byte, s invocation.Sink) error {
		e := &invocation.FunctionError{Cause: invocation.CauseHandler, Type: "TypeError", Message: "line\r\none " + long}
		if err := s.Start(invocation.Head{Error: e, Length: 2}); err != nil {
			return err
		}
		_, err := io.WriteString(s, "{}")
		return err
	}
	a, err = n.client.Invoke(t.Context(), "hello", nil, "")
	if err != nil || string(a.Payload) != "{}" || a.Cause == "" || !strings.HasPrefix(a.Message, "TypeError: line\r\none å") || !strings.HasSuffix(a.Message, "å…") {
		t.Errorf("got %+v, %v", a, err)
	}
}

func TestServer_CutsAnAnswerThatBreaksOff(t *testing.T) {
	t.Parallel()
	n := open(t)
	n.invoke = func(_ *invocation.Invocation, _ []byte, s invocation.Sink) error {
		if err := s.Start(invocation.Head{Length: -1}); err != nil {
			return err
		}
		if _, err := io.WriteString(s, `{"half":`); err != nil {
			return err
		}
		return errs.New(errs.Failed, "the function ended")
	}
	if a, err := n.client.Invoke(t.Context(), "hello", nil, ""); err == nil {
		t.Errorf("half an answer was taken for whole: %+v", a)
	}
	n.backend.logs = func(_ api.LogQuery, begun func(), each func(api.LogRecord) error) error {
		begun()
		if err := each(api.LogRecord{Text: "one"}); err != nil {
			return err
		}
		return fmt.Errorf("the disk went")
	}
	for _, follow := range []bool{false, true} {
		var lines []string
		err := n.client.Logs(t.Context(), api.LogQuery{Follow: follow}, nil, func(r api.LogRecord) error {
			lines = append(lines, r.Text)
			return nil
		})
		if err == nil || len(lines) > 1 {
			t.Errorf("follow=%v: error %v, lines %q", follow, err, lines)
		}
	}
}

func TestLogs_CarryTheQueryAndFailBeforeTheyBegin(t *testing.T) {
	t.Parallel()
	n := open(t)
	want := api.LogQuery{App: "a&b", Stage: "dev", Function: "f", Invocation: "i", Since: time.Unix(1, 5).UTC(), Tail: 3, Follow: true}
	n.backend.logs = func(q api.LogQuery, begun func(), each func(api.LogRecord) error) error {
		q.Since = q.Since.UTC()
		if q != want {
			return errs.New(errs.Invalid, "got %+v", q)
		}
		begun()
		return each(api.LogRecord{Text: "one", Kind: "line"})
	}
	var got []api.LogRecord
	begun := false
	err := n.client.Logs(t.Context(), want, func() { begun = true }, func(r api.LogRecord) error {
		got = append(got, r)
		return nil
	})
	if err != nil || !begun || len(got) != 1 || got[0].Text != "one" {
		t.Errorf("got %v, begun %v, error %v", got, begun, err)
	}
	n.backend.logs = func(api.LogQuery, func(), func(api.LogRecord) error) error {
		return errs.New(errs.NotFound, "no function f is deployed")
	}
	if err := n.client.Logs(t.Context(), want, nil, nil); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("an unknown function while following: %v", err)
	}
}

func TestPutTree_SendsOnlyWhatIsMissing(t *testing.T) {
	t.Parallel()
	n := open(t)
	tree := artifact.FromFiles(artifact.File{Path: "a.js", Data: []byte("a")}, artifact.File{Path: "b.js", Data: []byte("bb")}, artifact.File{Path: "c.js", Data: []byte("a")})
	var sent int64
	told := func(u api.Upload) { sent = u.Bytes }
	digest, err := n.client.PutTree(t.Context(), tree, told)
	if err != nil || digest != tree.Manifest.Digest() || sent != 3 || len(n.blobs) != 2 {
		t.Fatalf("digest %s, sent %d, blobs %d, error %v", digest, sent, len(n.blobs), err)
	}
	sent = 0
	if _, err := n.client.PutTree(t.Context(), tree, told); err != nil || sent != 0 {
		t.Errorf("again: sent %d, error %v", sent, err)
	}
}

// FuzzServer sends foreign bytes to every call that reads a body.
func FuzzServer(f *testing.F) {
	paths := []string{"/v1/artifacts/missing", "/v1/artifacts", "/v1/deployments", "/v1/stacks/a/b/rollback", "/v1/functions/hello/invocations"}
	for i := range paths {
		f.Add(i, []byte(`{}`), "")
	}
	f.Add(0, []byte(`{"format":1,"entries":[{"path":"../x","sha256":"zz","size":-1}]}`), "since=x")
	f.Add(2, []byte(`{"app":{"name":"x","functions":[{"env":{"A":{"ref":"x"}}}]},"units":null}`), "")
	f.Add(3, []byte(`{"to":"\u0000"}`), "tail=99999999999999999999")
	n := open(f)
	n.backend.logs = func(api.LogQuery, func(), func(api.LogRecord) error) error { return nil }
	handler := api.NewServer(n.backend, token, slog.New(slog.DiscardHandler))
	f.Fuzz(func(t *testing.T, which int, body []byte, query string) {
		if which < 0 {
			which = 0
		}
		for _, row := range [][2]string{{"POST", paths[which%len(paths)]}, {"GET", "/v1/logs"}} {
			req := httptest.NewRequest(row[0], "http://127.0.0.1"+row[1], bytes.NewReader(body))
			req.URL.RawQuery = query
			req.Header.Set("Authorization", "Bearer "+string(token))
			rec := httptest.NewRecorder()
			handler.ServeHTTP(rec, req)
			if rec.Code >= 500 && rec.Code != 501 {
				t.Errorf("%s %s answered %d to %q: %s", row[0], row[1], rec.Code, body, rec.Body)
			}
		}
	})
}
