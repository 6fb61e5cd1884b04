package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/audit"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/identity"
)

// AuditBackend records who changes what and who is refused.
type AuditBackend interface {
	// BeginChange records, durably, a change that is about to be made; where it cannot, the change is not to be made. end records what became of it,
	// before the caller is told.
	BeginChange(ctx context.Context, r audit.Record) (end func(error) error, err error)
	// Denied notes a refusal.
	Denied(r audit.Record)
	// AuditRecords calls begun once the query is known to be good, then each for every record.
	AuditRecords(ctx context.Context, q AuditQuery, begun func(), each func(AuditRecord) error) error
	// VerifyAudit checks all logs; heads are the heads that were noted before, by log.
	VerifyAudit(ctx context.Context, heads map[string]audit.Head) (map[string]*audit.Report, error)
}

// AuditQuery selects records.
type AuditQuery struct {
	Since   time.Time // zero: all
	App     string    // of one app
	Denials bool      // refusals alone
	Follow  bool
}

// AuditRecord is a record and the log that it is in: changes, functions or denials.
type AuditRecord struct {
	Log string `json:"log"`
	audit.Record
}

// changes says how a change is named in the audit log, by route. What is "" is no change: it reads, or it is about data and not about what there is. A
// route that reads neither stands here nor is asked for.
var changes = map[string]string{
	"POST /v1/deployments":                   "deploy",
	"DELETE /v1/stacks/{app}/{stage}":        "remove",
	"POST /v1/stacks/{app}/{stage}/rollback": "rollback",
	"PUT /v1/subscriptions/{name}":           "subscription:put",
	"DELETE /v1/subscriptions/{name}":        "subscription:delete",
	"POST /v1/redrives":                      "deliveries:redrive",
	"POST /v1/replays":                       "events:replay",
	"POST /v1/queues/{name}/purge":           "queue:purge",
	"POST /v1/queues/{name}/redrive":         "queue:redrive",
	"POST /v1/keys":                          "key:create",
	"DELETE /v1/keys/{id}":                   "key:revoke",
	"POST /v1/keys/{id}/rotate":              "key:rotate",
	"POST /v1/invocations/redrive":           "invocations:redrive",
	"POST /v1/invocations/cancel":            "invocations:cancel",
	"POST /v1/data":                          "data:import",
	"POST /v1/artifacts/missing":             "",
	"PUT /v1/blobs/{sha}":                    "",
	"POST /v1/artifacts":                     "",
	"POST /v1/functions/{name}/invocations":  "",
	"POST /events":                           "",
	"POST /v1/queues/{name}/messages":        "",
	"POST /v1/queues/{name}/messages/batch":  "",
	"POST /v1/streams/{name}/records":        "",
	"POST /v1/topics/{name}/messages":        "",
	"POST /v1/audit/verify":                  "",
}

// namedInBody are the changes that say elsewhere than in their path what they are about: their handlers record them.
var namedInBody = map[string]bool{"deploy": true, "key:create": true, "data:import": true}

// who names a caller for the audit log.
func who(p identity.Principal) string {
	switch {
	case p.Key != "":
		return "key " + p.Key + " (" + p.Name + ")"
	case p.Role != "":
		return "local"
	}
	return "nobody"
}

// from is a caller's address. Its port would make each call of one caller another's.
func from(r *http.Request) string {
	if h, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		return h
	}
	return r.RemoteAddr
}

// recorded runs a change between its records: it is not begun where it cannot be recorded, and who asked hears of it once its end is.
func (s *Server) recorded(r *http.Request, what, on, app string, change func() error) error {
	end, err := s.backend.BeginChange(r.Context(), audit.Record{Who: who(caller(r)), What: what, On: on, App: app, From: from(r)})
	if err != nil {
		return err
	}
	err = change()
	if failed := end(err); failed != nil && err == nil {
		return failed
	}
	return err
}

// audited wraps the handler of a change. Its answer is held back until its end is recorded.
func (s *Server) audited(pattern string, handle func(http.ResponseWriter, *http.Request) error) func(http.ResponseWriter, *http.Request) error {
	what := changes[pattern]
	if what == "" || namedInBody[what] {
		return handle
	}
	return func(w http.ResponseWriter, r *http.Request) error {
		if app := r.PathValue("app"); app != "" {
			if err := caller(r).Reaches(app); err != nil {
				return err
			}
		}
		held := &heldAnswer{ResponseWriter: w}
		err := s.recorded(r, what, about(r), r.PathValue("app"), func() error { return handle(held, r) })
		if err == nil {
			held.send()
		}
		return err
	}
}

// about is what the path of a call names.
func about(r *http.Request) string {
	var parts []string
	for _, name := range []string{"app", "stage", "name", "id"} {
		if v := r.PathValue(name); v != "" {
			parts = append(parts, v)
		}
	}
	return strings.Join(parts, "/")
}

// heldAnswer keeps an answer, which is small, until it is sent.
type heldAnswer struct {
	http.ResponseWriter
	status int
	body   []byte
}

func (h *heldAnswer) WriteHeader(status int) { h.status = status }

func (h *heldAnswer) Write(p []byte) (int, error) {
	h.body = append(h.body, p...)
	return len(p), nil
}

func (h *heldAnswer) send() {
	if h.status != 0 {
		h.ResponseWriter.WriteHeader(h.status)
	}
	if len(h.body) > 0 {
		_, _ = h.ResponseWriter.Write(h.body) // whose caller has left, has left
	}
}

// refused notes a call that was not let in, or not let do what it asked.
func (s *Server) refused(r *http.Request, p identity.Principal, err error) {
	switch errs.CodeOf(err) {
	case errs.Unauthenticated, errs.Forbidden, errs.Throttled:
	default:
		return
	}
	pattern := r.Pattern
	if pattern == "" || pattern == "/" {
		pattern = r.Method // paths that are none are strangers' to choose
	}
	if p.Role == "" && errs.CodeOf(err) == errs.Throttled {
		pattern = "control API" // too many from one address: one record for all that they ask
	}
	s.backend.Denied(audit.Record{Who: who(p), What: "api: " + pattern, On: from(r), App: p.App, From: from(r), Text: err.Error()})
}

func (s *Server) auditRecords(w http.ResponseWriter, r *http.Request) error {
	v := r.URL.Query()
	q := AuditQuery{App: v.Get("app"), Denials: v.Get("denials") == "true", Follow: v.Get("follow") == "true"}
	if t := v.Get("since"); t != "" {
		at, err := time.Parse(time.RFC3339Nano, t)
		if err != nil {
			return errs.New(errs.Invalid, "since: %w", err)
		}
		q.Since = at
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(w)
	flush := http.NewResponseController(w)
	begun := func() {
		if q.Follow {
			_ = flush.Flush() // the caller learns that following has begun
		}
	}
	return s.backend.AuditRecords(r.Context(), q, begun, func(rec AuditRecord) error {
		if err := enc.Encode(rec); err != nil {
			return err
		}
		if q.Follow {
			return flush.Flush()
		}
		return nil
	})
}

func (s *Server) verifyAudit(w http.ResponseWriter, r *http.Request) error {
	var req struct {
		Heads map[string]audit.Head `json:"heads"`
	}
	if err := readJSON(w, r, 1<<16, &req); err != nil {
		return err
	}
	reports, err := s.backend.VerifyAudit(r.Context(), req.Heads)
	if err != nil {
		return err
	}
	writeJSON(w, 200, map[string]any{"logs": reports})
	return nil
}

// AuditRecords calls ready once the server has taken the query, then each for every record.
func (c *Client) AuditRecords(ctx context.Context, q AuditQuery, ready func(), each func(AuditRecord) error) error {
	v := url.Values{}
	if !q.Since.IsZero() {
		v.Set("since", q.Since.Format(time.RFC3339Nano))
	}
	if q.App != "" {
		v.Set("app", q.App)
	}
	for k, set := range map[string]bool{"denials": q.Denials, "follow": q.Follow} {
		if set {
			v.Set(k, "true")
		}
	}
	resp, err := c.do(ctx, "GET", "/v1/audit?"+v.Encode(), nil, -1, nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if ready != nil {
		ready()
	}
	return eachLine(ctx, resp.Body, "audit records", each)
}

// VerifyAudit checks the audit logs; heads are those that were noted before, by log.
func (c *Client) VerifyAudit(ctx context.Context, heads map[string]audit.Head) (map[string]*audit.Report, error) {
	var out struct {
		Logs map[string]*audit.Report `json:"logs"`
	}
	err := c.call(ctx, "POST", "/v1/audit/verify", map[string]any{"heads": heads}, &out)
	if err == nil && len(out.Logs) == 0 {
		err = fmt.Errorf("read the answer: it names no logs")
	}
	return out.Logs, err
}
