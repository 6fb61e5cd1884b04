package api

import (
	"io"
	"net/http"
	"time"

	"github.com/ebb-run/ebb/internal/arn"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/identity"
)

// Keyring says who calls from elsewhere.
type Keyring interface {
	Authenticate(r *http.Request) (identity.Principal, error)
}

// route is one thing that the control API does, and the row of identity's table that says who may.
type route struct {
	pattern   string
	operation identity.Operation
	scope     scope
	handle    func(http.ResponseWriter, *http.Request) error
}

// scope says how a key that is for one App is held to it.
type scope int

const (
	undecided scope = iota // the zero value: a test refuses it
	shared                 // the same for every App
	byApp                  // the App that the call names must be the key's
	narrowed               // the answer holds the key's App only
	never                  // it is about all Apps: no key for one App may
)

func (s *Server) routes() []route {
	list := []route{
		{"GET /v1/info", identity.OpInfo, shared, s.info},
		{"POST /v1/artifacts/missing", identity.OpUpload, shared, s.missing},
		{"PUT /v1/blobs/{sha}", identity.OpUpload, shared, s.putBlob},
		{"POST /v1/artifacts", identity.OpUpload, shared, s.putManifest},
		{"POST /v1/deployments", identity.OpDeploy, byApp, s.deploy},
		{"GET /v1/stacks", identity.OpStacks, narrowed, s.stacks},
		{"DELETE /v1/stacks/{app}/{stage}", identity.OpRemove, byApp, s.remove},
		{"GET /v1/stacks/{app}/{stage}/deployments", identity.OpHistory, byApp, s.history},
		{"POST /v1/stacks/{app}/{stage}/rollback", identity.OpRollback, byApp, s.rollback},
		{"POST /v1/functions/{name}/invocations", identity.OpInvoke, byApp, s.invoke},
		{"GET /v1/invocations", identity.OpInvocations, narrowed, s.invocations},
		{"GET /v1/invocations/{id}", identity.OpInvocations, byApp, s.invocation},
		{"POST /v1/invocations/redrive", identity.OpInvoke, byApp, s.redrive},
		{"POST /v1/invocations/cancel", identity.OpInvoke, byApp, s.cancelAsync},
		{"POST /events", identity.OpPublish, never, s.publish},
		{"GET /v1/events", identity.OpEvents, never, s.readEvents},
		{"GET /v1/subscriptions", identity.OpEvents, never, s.subscriptions},
		{"GET /v1/subscriptions/{name}", identity.OpEvents, never, s.subscription},
		{"PUT /v1/subscriptions/{name}", identity.OpSubscribe, never, s.putSubscription},
		{"DELETE /v1/subscriptions/{name}", identity.OpSubscribe, never, s.deleteSubscription},
		{"POST /v1/redrives", identity.OpReplay, never, s.redriveDeliveries},
		{"POST /v1/replays", identity.OpReplay, never, s.replay},
		{"GET /v1/replays/{id}", identity.OpReplay, never, s.replayStatus},
		{"GET /v1/schedules", identity.OpEvents, never, s.schedules},
		{"GET /v1/queues", identity.OpEvents, never, s.queues},
		{"POST /v1/queues/{name}/messages", identity.OpPublish, never, s.sendMessage},
		{"POST /v1/queues/{name}/messages/batch", identity.OpPublish, never, s.sendMessages},
		{"POST /v1/queues/{name}/purge", identity.OpReplay, never, s.purgeQueue},
		{"POST /v1/queues/{name}/redrive", identity.OpReplay, never, s.redriveQueue},
		{"GET /v1/streams", identity.OpEvents, never, s.streams},
		{"POST /v1/streams/{name}/records", identity.OpPublish, never, s.putRecords},
		{"GET /v1/streams/{name}/records", identity.OpEvents, never, s.readRecords},
		{"GET /v1/traces/{id}", identity.OpEvents, never, s.trace},
		{"GET /v1/graph", identity.OpEvents, narrowed, s.graph},
		{"GET /v1/topics", identity.OpEvents, never, s.topics},
		{"GET /v1/topics/{name}/subscriptions", identity.OpEvents, never, s.topicSubscriptions},
		{"POST /v1/topics/{name}/messages", identity.OpPublish, never, s.publishTopic},
		{"GET /v1/logs", identity.OpLogs, narrowed, s.logs},
		{"GET /metrics", identity.OpMetrics, never, s.metrics},
		{"GET /v1/audit", identity.OpAudit, never, s.auditRecords},
		{"POST /v1/audit/verify", identity.OpAudit, never, s.verifyAudit},
		{"GET /v1/ca", identity.OpInfo, shared, s.ca},
		{"GET /v1/keys", identity.OpKeys, never, s.keys},
		{"POST /v1/keys", identity.OpKeys, never, s.createKey},
		{"DELETE /v1/keys/{id}", identity.OpKeys, never, s.revokeKey},
		{"POST /v1/keys/{id}/rotate", identity.OpKeys, never, s.rotateKey},
		{"GET /v1/backup", identity.OpBackup, never, s.backup},
		{"GET /v1/data", identity.OpExport, never, s.exportData},
		{"POST /v1/data", identity.OpImport, never, s.importData},
	}
	for i := range list {
		r := &list[i]
		r.handle = s.audited(r.pattern, r.handle)
		if r.scope == never { // asked before anything is recorded as begun
			handle := r.handle
			r.handle = func(w http.ResponseWriter, req *http.Request) error {
				if p := caller(req); p.App != "" {
					return errs.New(errs.Forbidden, "key %s (%s) is for app %s only, and this is about all apps", p.Key, p.Name, p.App).
						WithHint("Use a key that was made without --app.")
				}
				return handle(w, req)
			}
		}
	}
	return list
}

type callerKey struct{}

// caller is who the guard let in; nobody, who may nothing, where it did not.
func caller(r *http.Request) identity.Principal {
	p, _ := r.Context().Value(callerKey{}).(identity.Principal)
	return p
}

func byToken(t identity.Token, r *http.Request) (identity.Principal, error) {
	given := r.Header.Get("Authorization")
	if t.Matches(given) {
		return identity.Local(), nil
	}
	e := errs.New(errs.Unauthenticated, "the call carries no valid token")
	if len(given) > 12 && given[:12] == "Bearer ebb1." {
		return identity.Principal{}, e.WithHint("Keys open the https:// address of the control API; this one is for the machine's own user, by the token file.")
	}
	return identity.Principal{}, e.WithHint("Send the text of the file `token` in the data directory as `Authorization: Bearer …`.")
}

// reachable returns the Function to invoke by its full name where the caller's key is for one App: what other Apps have is then as
// if it were not there.
func (s *Server) reachable(r *http.Request, name string) (string, error) {
	p := caller(r)
	if p.App == "" {
		return name, nil
	}
	bare, qualifier, err := arn.FunctionName(name)
	if err != nil {
		return "", errs.New(errs.Invalid, "%w", err)
	}
	stacks, err := s.backend.Stacks(r.Context())
	if err != nil {
		return "", err
	}
	var byKey []string
	for _, st := range stacks {
		for _, f := range st.Functions {
			if st.App == p.App && f.Name == bare {
				return qualified(f.Name, qualifier), nil
			}
			if st.App == p.App && f.Key == bare {
				byKey = append(byKey, f.Name)
			}
		}
	}
	switch len(byKey) {
	case 1:
		return qualified(byKey[0], qualifier), nil
	case 0:
		return "", errs.New(errs.NotFound, "app %s has no function %s", p.App, bare).WithHint("The key is for app %s only.", p.App)
	}
	return "", errs.New(errs.Conflict, "several functions have the key %s", bare).WithHint("Give the full name.")
}

func qualified(name, qualifier string) string {
	if qualifier == "" {
		return name
	}
	return name + ":" + qualifier
}

// narrow holds a query of logs to the App of the caller's key.
func (s *Server) narrow(r *http.Request, q *LogQuery) error {
	p := caller(r)
	if p.App == "" {
		return nil
	}
	if q.App == "" {
		q.App = p.App
	}
	if err := p.Reaches(q.App); err != nil {
		return err
	}
	if q.Function == "" {
		return nil
	}
	var err error
	q.Function, err = s.reachable(r, q.Function)
	return err
}

func (s *Server) metrics(w http.ResponseWriter, r *http.Request) error {
	s.backend.Metrics().ServeHTTP(w, r)
	return nil
}

// bodyPause is how long a caller may send nothing of a body that it has announced.
const bodyPause = 30 * time.Second

// pacedBody ends a body that does not come on, however long the whole may take.
type pacedBody struct {
	io.ReadCloser
	control *http.ResponseController
}

func (b *pacedBody) Read(p []byte) (int, error) {
	_ = b.control.SetReadDeadline(time.Now().Add(bodyPause)) // not every ResponseWriter has deadlines
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		// The connection is watched for the caller's leaving while the call is worked on: that takes as long as it takes.
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}
