package api_test

import (
	"context"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/audit"
	"github.com/ebb-run/ebb/internal/errs"
)

// books are what a backend was told to record.
type books struct {
	records []audit.Record
	full    bool // no more can be recorded
}

func (b *backend) BeginChange(_ context.Context, r audit.Record) (func(error) error, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.books.full {
		return nil, errs.New(errs.Unavailable, "no room")
	}
	r.Outcome = audit.Begun
	b.books.records = append(b.books.records, r)
	return func(err error) error {
		b.mu.Lock()
		defer b.mu.Unlock()
		r.Outcome = audit.Done
		if err != nil {
			r.Outcome = audit.Failed(string(errs.CodeOf(err)))
		}
		b.books.records = append(b.books.records, r)
		return nil
	}, nil
}

func (b *backend) Denied(r audit.Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r.Outcome = audit.Denied
	b.books.records = append(b.books.records, r)
}

func (b *backend) AuditRecords(_ context.Context, _ api.AuditQuery, begun func(), each func(api.AuditRecord) error) error {
	begun()
	return each(api.AuditRecord{Log: "changes", Record: audit.Record{Seq: 1, What: "deploy"}})
}

func (b *backend) VerifyAudit(context.Context, map[string]audit.Head) (map[string]*audit.Report, error) {
	return map[string]*audit.Report{"changes": {Records: 1}}, nil
}

func (b *backend) taken() []audit.Record {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := b.books.records
	b.books.records = nil
	return list
}

func TestAudit_EveryChangeIsRecordedBeforeItIsMadeAndAnswered(t *testing.T) {
	t.Parallel()
	b, srv := remote(t)
	changes := api.Changes()
	for _, row := range api.RouteRows() {
		what, decided := changes[row.Pattern]
		if reads := strings.HasPrefix(row.Pattern, "GET "); reads == decided {
			t.Errorf("%s: whether it is a change is not decided once", row.Pattern)
		}
		b.taken()
		status, body := ask(t, srv, "admin", row.Pattern, may[row.Pattern].body)
		list := b.taken()
		if what == "" {
			if len(list) != 0 {
				t.Errorf("%s is no change, and recorded: %+v", row.Pattern, list)
			}
			continue
		}
		if len(list) != 2 || list[0].What != what || list[0].Outcome != audit.Begun || list[1].Outcome == audit.Begun || list[0].Who != "key k1 (ci)" || list[0].From == "" || list[0].On == "" && !strings.Contains(row.Pattern, "redrive") && !strings.Contains(row.Pattern, "replays") && !strings.Contains(row.Pattern, "cancel") {
			t.Errorf("%s: %d %s, records %+v", row.Pattern, status, body, list)
		}
		b.mu.Lock()
		b.books.full = true
		before := len(b.deployed)
		b.mu.Unlock()
		if status, body := ask(t, srv, "admin", row.Pattern, may[row.Pattern].body); status != 503 {
			t.Errorf("%s, which cannot be recorded: %d %s", row.Pattern, status, body)
		}
		b.mu.Lock()
		if b.books.full = false; len(b.deployed) != before {
			t.Errorf("%s was made without a record", row.Pattern)
		}
		b.mu.Unlock()
	}
}

func TestAudit_RefusalsAreNoted(t *testing.T) {
	t.Parallel()
	b, srv := remote(t)
	for _, c := range []struct{ as, pattern, who, what string }{
		{"", "GET /v1/stacks", "nobody", "api: GET /v1/stacks"},
		{"read", "POST /v1/keys", "key k1 (ci)", "api: POST /v1/keys"},
		{"deploy/other", "DELETE /v1/stacks/{app}/{stage}", "key k1 (ci)", "api: DELETE /v1/stacks/{app}/{stage}"},
		{"deploy/other", "GET /v1/queues", "key k1 (ci)", "api: GET /v1/queues"},
		{"", "GET /strange/path", "nobody", "api: GET"},
	} {
		b.taken()
		status, body := ask(t, srv, c.as, c.pattern, "")
		list := b.taken()
		if len(list) != 1 || list[0].Outcome != audit.Denied || list[0].Who != c.who || list[0].What != c.what || list[0].From == "" || list[0].Text == "" {
			t.Errorf("%+v: %d %s, records %+v", c, status, body, list)
		}
	}
}
