package api_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/identity"
	"github.com/ebb-run/ebb/internal/invocation"
)

// ring lets in whoever names a role, and after a slash an app: "Bearer deploy/shop".
type ring struct{}

func (ring) Authenticate(r *http.Request) (identity.Principal, error) {
	text, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return identity.Principal{}, errs.New(errs.Unauthenticated, "no key")
	}
	role, app, _ := strings.Cut(text, "/")
	return identity.Principal{Key: "k1", Name: "ci", Role: identity.Role(role), App: app}, nil
}

// remote is a Node's door for others, over TLS.
func remote(t testing.TB) (*backend, *httptest.Server) {
	t.Helper()
	b := &backend{blobs: map[string][]byte{}}
	b.invoke = func(_ *invocation.Invocation, body []byte, s invocation.Sink) error {
		if err := s.Start(invocation.Head{Length: int64(len(body))}); err != nil {
			return err
		}
		_, err := s.Write(body)
		return err
	}
	b.logs = func(_ api.LogQuery, begun func(), _ func(api.LogRecord) error) error { begun(); return nil }
	srv := httptest.NewUnstartedServer(api.NewRemote(b, ring{}, slog.New(slog.NewTextHandler(io.Discard, nil))))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return b, srv
}

func ask(t testing.TB, srv *httptest.Server, as, pattern, body string) (int, string) {
	t.Helper()
	method, path, _ := strings.Cut(pattern, " ")
	path = strings.NewReplacer("{app}", "shop", "{stage}", "dev", "{name}", "hello", "{sha}", strings.Repeat("a", 64), "{id}", "k1").Replace(path)
	req, err := http.NewRequest(method, srv.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if path == "/events" {
		req.Header.Set("Content-Type", "application/cloudevents+json")
	}
	if as != "" {
		req.Header.Set("Authorization", "Bearer "+as)
	}
	resp, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

// may is who may call each route, and what a key for the app "other" gets there: the status, or "narrow" where the answer leaves out
// what is not its own.
var may = map[string]struct {
	roles, body, other string
}{
	"GET /v1/info":                             {"admin deploy invoke read", "", "200"},
	"GET /v1/ca":                               {"admin deploy invoke read", "", "200"},
	"POST /v1/artifacts/missing":               {"admin deploy", `{"format":1,"entries":[]}`, "200"},
	"PUT /v1/blobs/{sha}":                      {"admin deploy", "abc", "204"},
	"POST /v1/artifacts":                       {"admin deploy", `{"format":1,"entries":[]}`, "200"},
	"POST /v1/deployments":                     {"admin deploy", `{"app":{"name":"shop","stage":"dev"},"units":[]}`, "403"},
	"GET /v1/stacks":                           {"admin deploy read", "", "narrow"},
	"DELETE /v1/stacks/{app}/{stage}":          {"admin deploy", "", "403"},
	"GET /v1/stacks/{app}/{stage}/deployments": {"admin deploy read", "", "403"},
	"POST /v1/stacks/{app}/{stage}/rollback":   {"admin deploy", `{"to":"x"}`, "403"},
	"POST /v1/functions/{name}/invocations":    {"admin deploy invoke", "{}", "404"},
	"GET /v1/invocations":                      {"admin deploy invoke read", "", "narrow"},
	"GET /v1/invocations/{id}":                 {"admin deploy invoke read", "", "404"},
	"POST /v1/invocations/redrive":             {"admin deploy invoke", `{"ids":["k1"]}`, "404"},
	"POST /v1/invocations/cancel":              {"admin deploy invoke", `{"ids":["k1"]}`, "404"},
	"POST /events":                             {"admin deploy invoke", `{"specversion":"1.0","id":"1","source":"/s","type":"t"}`, "403"},
	"GET /v1/events":                           {"admin deploy read", "", "403"},
	"GET /v1/subscriptions":                    {"admin deploy read", "", "403"},
	"GET /v1/subscriptions/{name}":             {"admin deploy read", "", "403"},
	"PUT /v1/subscriptions/{name}":             {"admin deploy", `{"queue":"q"}`, "403"},
	"DELETE /v1/subscriptions/{name}":          {"admin deploy", "", "403"},
	"POST /v1/redrives":                        {"admin deploy", `{"all":true}`, "403"},
	"GET /v1/schedules":                        {"admin deploy read", "", "403"},
	"GET /v1/queues":                           {"admin deploy read", "", "403"},
	"POST /v1/queues/{name}/messages":          {"admin deploy invoke", `{"body":"x"}`, "403"},
	"POST /v1/queues/{name}/messages/batch":    {"admin deploy invoke", `[{"body":"x"}]`, "403"},
	"POST /v1/queues/{name}/purge":             {"admin deploy", "{}", "403"},
	"POST /v1/queues/{name}/redrive":           {"admin deploy", "{}", "403"},
	"GET /v1/topics":                           {"admin deploy read", "", "403"},
	"GET /v1/topics/{name}/subscriptions":      {"admin deploy read", "", "403"},
	"POST /v1/topics/{name}/messages":          {"admin deploy invoke", `{"message":"x"}`, "403"},
	"GET /v1/streams":                          {"admin deploy read", "", "403"},
	"POST /v1/streams/{name}/records":          {"admin deploy invoke", `{"records":[{"key":"k","data":"eA=="}]}`, "403"},
	"GET /v1/streams/{name}/records":           {"admin deploy read", "", "403"},
	"POST /v1/replays":                         {"admin deploy", `{"subscription":"s","from":"2026-01-02T03:04:05Z"}`, "403"},
	"GET /v1/replays/{id}":                     {"admin deploy", "", "403"},
	"GET /v1/traces/{id}":                      {"admin deploy read", "", "403"},
	"GET /v1/graph":                            {"admin deploy read", "", "narrow"},
	"GET /v1/logs":                             {"admin deploy read", "", "narrow"},
	"GET /metrics":                             {"admin deploy read", "", "403"},
	"GET /v1/audit":                            {"admin", "", "403"},
	"POST /v1/audit/verify":                    {"admin", `{}`, "403"},
	"GET /v1/keys":                             {"admin", "", "403"},
	"GET /v1/backup":                           {"admin", "", "403"},
	"GET /v1/data":                             {"admin", "", "403"},
	"POST /v1/data":                            {"admin", "", "403"},
	"POST /v1/keys":                            {"admin", `{"name":"x","role":"read"}`, "403"},
	"DELETE /v1/keys/{id}":                     {"admin", "", "403"},
	"POST /v1/keys/{id}/rotate":                {"admin", `{}`, "403"},
}

func TestRemote_EveryRouteAsksForItsRole(t *testing.T) {
	t.Parallel()
	_, srv := remote(t)
	for _, row := range api.RouteRows() {
		want, known := may[row.Pattern]
		if !known || !row.Decided || len(identity.Permissions()[identity.Operation(row.Operation)]) == 0 {
			t.Errorf("%s has no row: in this test %v, operation %q, scope decided %v", row.Pattern, known, row.Operation, row.Decided)
			continue
		}
		for _, role := range append(identity.Roles(), "", "root") {
			status, body := ask(t, srv, string(role), row.Pattern, want.body)
			allowed := role != "" && slices.Contains(strings.Fields(want.roles), string(role))
			if refused := status == 403 || status == 401; refused == allowed || !allowed && !refused {
				t.Errorf("%s as %q: %d %s", row.Pattern, role, status, body)
			}
			if role == "" && status != 401 {
				t.Errorf("%s without a key: %d", row.Pattern, status)
			}
			if allowed && status >= 300 {
				t.Errorf("%s as %q: %d %s", row.Pattern, role, status, body)
			}
		}
	}
	if len(may) != len(api.RouteRows()) {
		t.Errorf("%d rows here, %d routes", len(may), len(api.RouteRows()))
	}
}

func TestRemote_AKeyForOneAppReachesNoOther(t *testing.T) {
	t.Parallel()
	b, srv := remote(t)
	var asked api.LogQuery
	b.logs = func(q api.LogQuery, begun func(), _ func(api.LogRecord) error) error { asked = q; begun(); return nil }
	for _, row := range api.RouteRows() {
		want := may[row.Pattern]
		as := "deploy/other"
		if want.roles == "admin" {
			as = "admin/other"
		}
		status, body := ask(t, srv, as, row.Pattern, want.body)
		switch want.other {
		case "narrow":
			if status != 200 || strings.Contains(body, "shop") {
				t.Errorf("%s: %d %s", row.Pattern, status, body)
			}
		case "200", "204":
			if status >= 300 {
				t.Errorf("%s: %d %s", row.Pattern, status, body)
			}
		default:
			if status != 403 && status != 404 {
				t.Errorf("%s: %d %s", row.Pattern, status, body)
			}
		}
	}
	if asked.App != "other" {
		t.Errorf("logs were asked for app %q", asked.App)
	}
	for pattern, status := range map[string]int{"GET /v1/logs?app=shop": 403, "GET /v1/logs?function=hello": 404, "GET /v1/logs?app=other": 200} {
		if got, body := ask(t, srv, "read/other", pattern, ""); got != status {
			t.Errorf("%s: %d %s", pattern, got, body)
		}
	}
	if status, body := ask(t, srv, "read/shop", "GET /v1/stacks", ""); status != 200 || !strings.Contains(body, `"shop"`) {
		t.Errorf("its own: %d %s", status, body)
	}
	if len(b.deployed) != 0 {
		t.Error("a foreign app was deployed")
	}
}

func TestRemote_TheHistoryNamesTheKeyNotWhatItsHolderSays(t *testing.T) {
	t.Parallel()
	b, srv := remote(t)
	if status, body := ask(t, srv, "deploy", "POST /v1/deployments", `{"app":{"name":"shop","stage":"dev"},"units":[],"by":"the boss"}`); status != 200 {
		t.Fatal(status, body)
	}
	if b.deployed[0].By != "ci" {
		t.Errorf("by %q", b.deployed[0].By)
	}
}

func TestRemote_IsHealthyWithoutAKeyAndHidesTheRest(t *testing.T) {
	t.Parallel()
	_, srv := remote(t)
	for pattern, want := range map[string]int{"GET /healthz": 200, "GET /readyz": 200, "GET /v1/nothing": 401, "POST /v1/info": 401} {
		if status, body := ask(t, srv, "", pattern, ""); status != want {
			t.Errorf("%s: %d %s", pattern, status, body)
		}
	}
	if status, _ := ask(t, srv, "admin", "GET /v1/nothing", ""); status != 404 {
		t.Errorf("with a key: %d", status)
	}
}
