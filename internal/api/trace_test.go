package api_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
)

func TestTrace_IsToldById(t *testing.T) {
	t.Parallel()
	n := open(t)
	got, err := n.client.Trace(t.Context(), "a/b c")
	if err != nil || got.Trace != "a/b c" || len(got.Roots) != 1 || got.Roots[0].Children[0].Kind != api.TraceInvocation {
		t.Errorf("%+v, %v", got, err)
	}
	if g, err := n.client.Graph(t.Context(), "x&y"); err != nil || len(g.Nodes) != 3 || g.Nodes[0].App != "x&y" || len(g.Edges) != 2 {
		t.Errorf("%+v, %v", g, err)
	}
	n.fault = errs.New(errs.NotFound, "nothing").WithHint("Look elsewhere.")
	if _, err := n.client.Trace(t.Context(), "a"); errs.CodeOf(err) != errs.NotFound || errs.HintOf(err) == "" {
		t.Errorf("%v", err)
	}
	if _, err := n.client.Graph(t.Context(), ""); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("%v", err)
	}
}

func TestGraph_OfAKeyForOneAppHasNoOthers(t *testing.T) {
	t.Parallel()
	_, srv := remote(t)
	for as, want := range map[string][]string{"read/other": {`"function:f"`, "-shop-dev-a"}, "read/shop": {`"shop-dev-a"`}, "read": {`"shop-dev-a"`}} {
		status, body := ask(t, srv, as, "GET /v1/graph", "")
		for _, w := range want {
			if without, ok := strings.CutPrefix(w, "-"); status != 200 || ok && strings.Contains(body, without) || !ok && !strings.Contains(body, w) {
				t.Errorf("%s: %d %s; want %s", as, status, body, w)
			}
		}
	}
	if status, body := ask(t, srv, "read/other", "GET /v1/graph?app=shop", ""); status != 403 {
		t.Errorf("%d %s", status, body)
	}
}

func TestSink_TellsWhatItRefuses(t *testing.T) {
	t.Parallel()
	published, turns := 0, 0
	fault := error(nil)
	k := &api.Sink{
		Publish: func(_ context.Context, bus string, events []*event.Event) error {
			published += len(events)
			return fault
		},
		Enter: func(context.Context) (func(), error) {
			if turns++; turns == 1 {
				return nil, errs.New(errs.Throttled, "full")
			}
			return func() {}, nil
		},
	}
	post := func(path, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), "POST", path, strings.NewReader(body))
		r.Header.Set("Content-Type", event.ContentType)
		w := httptest.NewRecorder()
		k.ServeHTTP(w, r)
		return w
	}
	const good = `{"specversion":"1.0","id":"1","source":"/s","type":"t"}`
	if got := post("/", good); got.Code != http.StatusTooManyRequests || published != 0 {
		t.Errorf("without room: %d %s", got.Code, got.Body)
	}
	if got := post("/buses/b", good); got.Code != http.StatusAccepted || !strings.Contains(got.Body.String(), `"bus":"b"`) || published != 1 {
		t.Errorf("%d %s", got.Code, got.Body)
	}
	fault = errs.New(errs.Unavailable, "the disk is full")
	if got := post("/", good); got.Code != http.StatusServiceUnavailable || !strings.Contains(got.Body.String(), "the disk is full") {
		t.Errorf("%d %s", got.Code, got.Body)
	}
	for _, path := range []string{"/v1/info", "/bus/b", "/buses", "/buses/"} {
		if got := post(path, good); got.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, got.Code)
		}
	}
}
