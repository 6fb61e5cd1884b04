// Package gateway is the HTTP front door: it turns requests from the network into Invocations.
//
// Main type: [Gateway]. Apps are mounted; each request is matched to a Route of one of them, becomes an
// invocation.Request and goes to the [Invoker]; the answer comes back through a Sink.
//
// Guarantees:
//
//  1. Routes are chosen, and errors answered, in the way of the API kind that declared them: REST API, HTTP API,
//     function URL. An error answer never holds internal text.
//  2. A Request carries the header names of an HTTP/1 client in their own case and order. Where they cannot be known
//     (HTTP/2 has only lower case; a head that does not match what net/http read) it carries net/http's names, sorted.
//  3. A body is read to its end, within its limits of size and time, before the Invoker is called: a slow client
//     never holds an Instance. A body over the limit is 413 and no Invocation. All bodies together stay within
//     Options.BodyBudget: one that does not fit is 503 with Retry-After and no Invocation.
//  4. An answer reaches the client whole or the client can see that it is not: an Invoke that fails before any byte has
//     left becomes an error answer, one that fails later ends the connection.
//  5. A route behind an authorizer, API key, IAM or resource policy that is not enforced answers 501 and runs
//     nothing, unless Options.AllowUnprotected.
//  6. When the client goes away before it has its answer, the Invocation's context ends. When the integration timeout
//     of an API passes, the client has its 503 or 504 and the Invocation runs on.
//  7. Mount and Unmount swap a whole route table at once; a request sees the old one or the new one.
//  8. Serve returns after every request that had arrived when ctx ended is answered, or after Options.ShutdownGrace.
//  9. A client that takes nothing of its answer for 30 s loses its connection, or in HTTP/2 its stream, however short the
//     answer is.
//  10. A Host leads to one App: <app>.<stage>.localhost, and <app>-<stage>.localhost where no other App has the same.
//
// It does not start or place functions (engine does), translate events (guest does), or serve metrics and health.
package gateway

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
)

// Invoker runs an Invocation. It returns when the function is done; the Sink is not used after that. An error means
// that no answer, or not all of it, was given: errs.Throttled, errs.Unavailable, errs.TooLarge, errs.Canceled, …
type Invoker interface {
	Invoke(ctx context.Context, inv *invocation.Invocation, s invocation.Sink) error
}

// Options configure a Gateway. The zero value of each field but Invoker is usable.
type Options struct {
	Log              *slog.Logger
	Invoker          Invoker
	AllowUnprotected bool  // serve routes whose protection is not enforced
	MaxBody          int64 // bytes of a request body; 0 means 10 MB: API Gateway quotas, "Payload size"
	// BodyBudget is how many bytes of request bodies are held at once, of all Apps, while they come in and until their
	// Invocations end; more is 503. 0 means 256 MB; less than MaxBody means MaxBody.
	BodyBudget    int64
	Access        func(Access)  // called once for each answered request, on the request's goroutine
	NewID         func() string // an Invocation id: UUID, lower case
	ShutdownGrace time.Duration // how long Serve waits for requests in flight; 0 means 30 s
}

// Access is one answered request.
type Access struct {
	Time      time.Time // when the request had arrived
	Tenant    string
	App       string
	Stage     string // of the App
	Function  string // full name, or empty
	Method    string
	Path      string // as sent, without query
	Route     string // "GET /users/{id}", or empty where none matched
	Status    int    // 499 where the client left before its answer
	Bytes     int64  // of the body
	Duration  time.Duration
	RequestID string
}

// Mount is an App to serve.
type Mount struct {
	Tenant    string
	App       *app.App
	Account   string                          // AWS account id of the Tenant
	Region    string                          // shown in domain names; empty means us-east-1
	StageVars func(app.Value) (string, error) // resolves stage variables; nil serves literals only
}

// RouteInfo is a Route as people see it.
type RouteInfo struct {
	Method   string // as declared; "ANY" for a catch-all
	Path     string // as declared, without stage; "*" for a catch-all
	Function string // full name, or empty for a Route without one
	Key      string // the Function's key
	API      app.APIKind
	URL      string // path on this gateway
	Inactive string // why it answers 501, or empty
}

// Gateway serves mounted Apps. Its methods may be called concurrently.
type Gateway struct {
	log     *slog.Logger
	invoker Invoker
	open    bool
	maxBody int64
	budget  int64
	bodies  atomic.Int64 // bytes of budget that are held
	access  func(Access)
	newID   func() string
	grace   time.Duration
	idle    time.Duration // the longest wait for a client to send or take the next bytes; a test shortens it

	mount    sync.Mutex // held while a new host table is made
	hosts    atomic.Pointer[hosts]
	draining atomic.Bool

	leashes leashes        // of every Invocation; they end when the grace is over
	running sync.WaitGroup // Invocations, also those whose client has its answer
	timers  sync.Pool      // of stopped *time.Timer
}

// New returns a Gateway without Apps.
func New(o Options) *Gateway {
	g := &Gateway{log: o.Log, invoker: o.Invoker, open: o.AllowUnprotected, maxBody: o.MaxBody, access: o.Access, newID: o.NewID,
		grace: o.ShutdownGrace, idle: 30 * time.Second}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	if g.maxBody == 0 {
		g.maxBody = 10 << 20
	}
	if o.BodyBudget == 0 {
		o.BodyBudget = 256 << 20
	}
	g.budget = max(o.BodyBudget, g.maxBody)
	if g.newID == nil {
		g.newID = new(ids).next
	}
	if g.grace == 0 {
		g.grace = 30 * time.Second
	}
	g.hosts.Store(newHosts(nil))
	return g
}

// Mount serves an App in place of the one with the same Tenant, name and Stage. The App must not change afterwards.
func (g *Gateway) Mount(m Mount) error {
	if m.App == nil {
		return errs.New(errs.Invalid, "mount without an app")
	}
	s, err := compile(m, g.open)
	if err != nil {
		return err
	}
	g.mount.Lock()
	defer g.mount.Unlock()
	g.hosts.Store(g.hosts.Load().with(s))
	return nil
}

// Unmount serves the App no longer. Requests in flight are answered.
func (g *Gateway) Unmount(tenant, app, stage string) {
	g.mount.Lock()
	defer g.mount.Unlock()
	g.hosts.Store(g.hosts.Load().without(tenant, app, stage))
}

// Routes lists the Routes of a mounted App in the order of its declaration, function URLs last; nil when it is not mounted.
func (g *Gateway) Routes(tenant, app, stage string) []RouteInfo {
	for _, s := range g.hosts.Load().sites {
		if s.tenant == tenant && s.app == app && s.stage == stage {
			return append([]RouteInfo(nil), s.infos...)
		}
	}
	return nil
}
