// Package api is the control API of a Node: how the command line and scripts deploy, invoke and ask.
//
// Main types: [Server], an http.Handler over a [Backend], and [Client].
//
// Guarantees:
//
//  1. Every call but /healthz and /readyz needs the Node's token, or at the door for other machines a key; loopback alone is no
//     authentication. What a key may do is in identity's table, and a route without a row there is nobody's.
//  2. Any Origin is refused, and where the token opens also a foreign Host, so no web page can reach it through a browser.
//  3. Errors are JSON {"error":{"code","message","hint"}} with the code's HTTP status; text of an
//     internal fault stays in the server's log.
//  4. Uploads are bounded and verified before they are used.
//  5. An answer that breaks off half-way is cut, so that no caller takes it for whole.
//
// It runs no project code: builds happen on the client's side.
package api

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/artifact"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
)

// Info describes a running Node.
type Info struct {
	Version string    `json:"version"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	Gateway string    `json:"gateway"`          // URL
	Data    string    `json:"data"`             // data directory
	Sealed  bool      `json:"sealed"`           // whether that is, by the operator's key
	Tables  string    `json:"tables,omitempty"` // where tables are kept: a file, or host and database
	Drivers []Check   `json:"drivers,omitempty"`
	Caller  *Caller   `json:"caller,omitempty"` // who asks, where a key was used
}

// Caller is who a key belongs to.
type Caller struct {
	Key  string `json:"key"`
	Name string `json:"name"`
	Role string `json:"role"`
	App  string `json:"app,omitempty"`
}

// Check is one finding about a machine.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	Mend   string `json:"mend,omitempty"`
}

// Unit is the code of one Function of a Deployment, as Artifact digests that were uploaded before.
type Unit struct {
	Key      string   `json:"key"` // the Function's key in the App
	Code     string   `json:"code"`
	Layers   []string `json:"layers,omitempty"`
	Supplied string   `json:"supplied,omitempty"`
	Runtime  string   `json:"runtime"`
	Handler  string   `json:"handler"`
}

// DeployRequest asks to make an App current.
type DeployRequest struct {
	App     *app.App `json:"app"`
	Units   []Unit   `json:"units"`
	By      string   `json:"by,omitempty"`
	Message string   `json:"message,omitempty"`
}

// Deployed says what is current after a deploy or rollback.
type Deployed struct {
	App        string         `json:"app"`
	Stage      string         `json:"stage"`
	Deployment string         `json:"deployment"`
	Previous   string         `json:"previous,omitempty"`
	Gateway    string         `json:"gateway"` // URL at which the Stack answers
	Changed    []string       `json:"changed"` // keys of Functions with a new Revision
	Functions  []FunctionInfo `json:"functions"`
	Routes     []RouteInfo    `json:"routes"`
	Warnings   []string       `json:"warnings,omitempty"`
	DurationMS int64          `json:"durationMS"`
}

// FunctionInfo describes a deployed Function.
type FunctionInfo struct {
	Name     string `json:"name"`
	Key      string `json:"key"`
	Handler  string `json:"handler"`
	Runtime  string `json:"runtime"`
	URL      string `json:"url,omitempty"`
	Revision string `json:"revision,omitempty"`

	Provisioned      int `json:"provisioned,omitempty"`      // Instances that are to be kept initialised
	ProvisionedReady int `json:"provisionedReady,omitempty"` // of these, how many are
}

// RouteInfo describes a mounted Route.
type RouteInfo struct {
	Method   string `json:"method"`
	Path     string `json:"path"`
	Function string `json:"function"`           // full name
	Key      string `json:"key,omitempty"`      // of the Function
	URL      string `json:"url,omitempty"`      // path on the gateway
	Inactive string `json:"inactive,omitempty"` // why it answers 501
}

// Stack describes one App at one Stage.
type Stack struct {
	App        string         `json:"app"`
	Stage      string         `json:"stage"`
	Deployment string         `json:"deployment"`
	Changed    time.Time      `json:"changed"`
	Gateway    string         `json:"gateway"` // URL at which it answers
	Functions  []FunctionInfo `json:"functions"`
	Routes     []RouteInfo    `json:"routes"`
	Instances  int            `json:"instances"`
	Error      string         `json:"error,omitempty"` // why it is not serving
}

// Deployment is one entry of a Stack's history.
type Deployment struct {
	ID        string    `json:"id"`
	Created   time.Time `json:"created"`
	By        string    `json:"by,omitempty"`
	Message   string    `json:"message,omitempty"`
	Functions int       `json:"functions"`
	Current   bool      `json:"current"`
}

// LogRecord is one line of output.
type LogRecord struct {
	Time       time.Time `json:"time"`
	App        string    `json:"app,omitempty"`
	Stage      string    `json:"stage,omitempty"`
	Function   string    `json:"function"`
	Instance   string    `json:"instance,omitempty"`
	Invocation string    `json:"invocation,omitempty"`
	Kind       string    `json:"kind"` // "line", "start", "end", "report", "init", "platform"
	Text       string    `json:"text"`
}

// LogQuery selects output.
type LogQuery struct {
	App, Stage string
	Function   string // key or full name; empty means all
	Invocation string
	Since      time.Time
	Tail       int // the newest n; 0 means all
	Follow     bool
}

// Backend is what the control API works on.
type Backend interface {
	Info() Info
	Ready() error
	Metrics() http.Handler

	Missing(m *artifact.Manifest) ([]string, error)
	PutBlob(sha string, size int64, r io.Reader) error
	PutManifest(m *artifact.Manifest) (digest string, err error)

	Deploy(ctx context.Context, r DeployRequest) (*Deployed, error)
	Rollback(ctx context.Context, app, stage, to string) (*Deployed, error)
	Remove(ctx context.Context, app, stage string) error
	Stacks(ctx context.Context) ([]Stack, error)
	History(ctx context.Context, app, stage string) ([]Deployment, error)

	// Invoke runs a Function given by full name or key and answers through the Sink.
	Invoke(ctx context.Context, function string, inv *invocation.Invocation, s invocation.Sink) error
	AsyncBackend
	EventBackend
	SubscriptionBackend
	QueueBackend
	StreamBackend
	TraceBackend
	TopicBackend
	DataBackend
	AuditBackend
	// CreateKey makes a key that is durable when it returns.
	CreateKey(ctx context.Context, r KeyRequest) (*NewKey, error)
	Keys(ctx context.Context) ([]KeyInfo, error)
	// RevokeKey ends a key: from its return on no call with it is let in.
	RevokeKey(ctx context.Context, id string) error
	// RotateKey makes a key like the one with the ID, which ends after overlap.
	RotateKey(ctx context.Context, id string, overlap time.Duration, by string) (*NewKey, error)
	// CA returns the certificate of the Node's own CA, PEM, and its fingerprint, or errs.NotFound.
	CA() (*CA, error)

	// Logs calls begun once the query is known to be good, then each for every record.
	Logs(ctx context.Context, q LogQuery, begun func(), each func(LogRecord) error) error
}

// Headers of an invocation call.
const (
	HeaderInvocation    = "Ebb-Invocation"     // its ID
	HeaderFunctionError = "Ebb-Function-Error" // cause, when the function failed
	HeaderErrorMessage  = "Ebb-Error-Message"  // JSON string: type and message of the failure
	HeaderClientContext = "Ebb-Client-Context"
	MaxPayload          = 6 << 20 // bytes: Lambda quotas, "Invocation payload (request and response)"
)

// wireError is the JSON form of an error.
type wireError struct {
	Code    errs.Code `json:"code"`
	Message string    `json:"message"`
	Hint    string    `json:"hint,omitempty"`
}

var statusOf = map[errs.Code]int{
	errs.Invalid: 400, errs.NotFound: 404, errs.Exists: 409, errs.Conflict: 409, errs.Unauthenticated: 401, errs.Forbidden: 403,
	errs.TooLarge: 413, errs.Throttled: 429, errs.Timeout: 504, errs.Canceled: 499, errs.Unavailable: 503, errs.Unsupported: 501,
	errs.Failed: 422, errs.Internal: 500,
}
