package api_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
)

// kept are the asynchronous Invocations that the backend of tests has.
func kept() []api.InvocationStatus {
	return []api.InvocationStatus{{ID: "k1", Function: "shop-dev-hello", State: "dead", Cause: "exhausted"}, {ID: "k2", Function: "other-dev-fn", State: "succeeded"}}
}

func (b *backend) InvokeAsync(_ context.Context, function string, inv *invocation.Invocation) error {
	if b.fault != nil {
		return b.fault
	}
	inv.ID, inv.Function = "k9", function
	return b.invoke(inv, inv.Payload.(invocation.Raw), &invocation.Buffer{})
}

func (b *backend) Invocation(_ context.Context, id string) (*api.InvocationStatus, error) {
	for _, st := range kept() {
		if st.ID == id {
			return &st, nil
		}
	}
	return nil, errs.New(errs.NotFound, "no asynchronous invocation has the ID %s", id)
}

func (b *backend) Invocations(_ context.Context, q api.InvocationQuery) ([]api.InvocationStatus, error) {
	return slices.DeleteFunc(kept(), func(st api.InvocationStatus) bool {
		return q.Function != "" && st.Function != q.Function || q.State != "" && st.State != q.State || q.Cause != "" && st.Cause != q.Cause
	}), b.fault
}

func (b *backend) RedriveInvocations(_ context.Context, c api.InvocationChoice) (int, error) {
	return len(c.IDs) + len(c.Function), b.fault
}

func (b *backend) CancelInvocations(_ context.Context, c api.InvocationChoice) (int, error) {
	return len(c.IDs), b.fault
}

func TestInvokeAsync_AnswersOnceAccepted(t *testing.T) {
	t.Parallel()
	n := open(t)
	var seen *invocation.Invocation
	n.backend.invoke = func(inv *invocation.Invocation, body []byte, _ invocation.Sink) error {
		seen = inv
		if string(body) == "full" {
			return errs.New(errs.Throttled, "full")
		}
		return nil
	}
	got, err := n.client.InvokeAsync(t.Context(), "hello", []byte(`{"a": 1}`), "e30=")
	if err != nil || *got != (api.Accepted{ID: "k9", Function: "hello"}) {
		t.Fatalf("%v, %v", got, err)
	}
	if raw, _ := seen.Payload.(invocation.Raw); string(raw) != `{"a": 1}` || seen.ClientContext != "e30=" {
		t.Errorf("it got %q with %q", raw, seen.ClientContext)
	}
	for payload, want := range map[string]errs.Code{"full": errs.Throttled, strings.Repeat("x", api.MaxAsyncPayload+1): errs.TooLarge} {
		if _, err := n.client.InvokeAsync(t.Context(), "hello", []byte(payload), ""); errs.CodeOf(err) != want {
			t.Errorf("%.10s…: %v, want %s", payload, err, want)
		}
	}
	odd := n.call(t, "POST", "/v1/functions/hello/invocations", "{}", func(r *http.Request) { r.Header.Set(api.HeaderMode, "later") })
	if odd.status != http.StatusBadRequest || !strings.Contains(odd.msg, "later") || odd.hint == "" {
		t.Errorf("an unknown mode: %+v", odd)
	}
}

func TestInvocations_AreListedShownAndChanged(t *testing.T) {
	t.Parallel()
	n := open(t)
	ctx := t.Context()
	if list, err := n.client.Invocations(ctx, api.InvocationQuery{State: "dead", Cause: "exhausted", Limit: 3}); err != nil || len(list) != 1 || list[0].ID != "k1" {
		t.Errorf("%v, %v", list, err)
	}
	if st, err := n.client.Invocation(ctx, "k2"); err != nil || st.State != "succeeded" {
		t.Errorf("%v, %v", st, err)
	}
	if _, err := n.client.Invocation(ctx, "none"); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("%v", err)
	}
	if k, err := n.client.Redrive(ctx, api.InvocationChoice{IDs: []string{"k1", "k2"}}); err != nil || k != 2 {
		t.Errorf("%d, %v", k, err)
	}
	if k, err := n.client.CancelInvocations(ctx, api.InvocationChoice{IDs: []string{"k1"}}); err != nil || k != 1 {
		t.Errorf("%d, %v", k, err)
	}
	for _, limit := range []string{"0", "1001", "many"} {
		if got := n.call(t, "GET", "/v1/invocations?limit="+limit, "", nil); got.status != http.StatusBadRequest {
			t.Errorf("limit %s: %+v", limit, got)
		}
	}
}

func TestInvocations_AKeyForOneAppSeesItsOwn(t *testing.T) {
	t.Parallel()
	_, srv := remote(t)
	for _, row := range []struct {
		as, pattern, body string
		status            int
		has, not          string
	}{
		{"deploy/shop", "GET /v1/invocations", "", 200, "k1", "k2"},
		{"deploy/shop", "GET /v1/invocations/k1", "", 200, "k1", "none"},
		{"deploy/shop", "GET /v1/invocations/k2", "", 404, "no asynchronous", "other-dev"},
		{"deploy/shop", "POST /v1/invocations/redrive", `{"ids":["k1"]}`, 200, `"changed":1`, "none"},
		{"deploy/shop", "POST /v1/invocations/redrive", `{"ids":["k1","k2"]}`, 404, "k2", "changed"},
		{"deploy/shop", "POST /v1/invocations/redrive", `{"function":"other-dev-fn"}`, 404, "other-dev-fn", "changed"},
		{"deploy/shop", "POST /v1/invocations/redrive", `{"function":"hello"}`, 200, `"changed":14`, "none"},
		{"deploy/shop", "POST /v1/invocations/cancel", `{"all":true}`, 403, "by ID or function", "changed"},
		{"deploy", "POST /v1/invocations/cancel", `{"all":true}`, 200, "changed", "none"},
		{"deploy", "POST /v1/invocations/cancel", `{"al":true}`, 400, "al", "changed"},
	} {
		status, body := ask(t, srv, row.as, row.pattern, row.body)
		if status != row.status || !strings.Contains(body, row.has) || strings.Contains(body, row.not) {
			t.Errorf("%s %s as %s: %d %s", row.pattern, row.body, row.as, status, body)
		}
	}
}
