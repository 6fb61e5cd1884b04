// Package app is the application model: everything one source project declares.
//
// Main type: [App]. Front-ends write it, the engine side and the targets read
// it; it is plain data with [App.Validate], and JSON is its stored form.
//
// Guarantees:
//
//  1. Nothing in an App tells which source format it came from, but [App.Source],
//     which is for people.
//  2. What the model does not know is kept: a Resource of an unknown type stays as
//     kind [Foreign] with its properties, a Trigger without an engine stays declared.
//  3. An App that passes Validate has unique keys and names, and every reference from a
//     Route or Trigger to a Function or API resolves.
//  4. JSON encoding round-trips: decode(encode(a)) equals a, but for the places in the user's files.
//
// It does no I/O and knows no provider.
package app

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/diag"
)

// App is what one source project declares at one Stage.
type App struct {
	Name        string           `json:"name"`
	Stage       string           `json:"stage"`
	Region      string           `json:"region,omitempty"`
	Description string           `json:"description,omitempty"`
	Source      string           `json:"source"` // the format, for people: "serverless.yml"
	Functions   []Function       `json:"functions,omitempty"`
	APIs        []API            `json:"apis,omitempty"`
	Routes      []Route          `json:"routes,omitempty"`
	Triggers    []Trigger        `json:"triggers,omitempty"`
	Resources   []Resource       `json:"resources,omitempty"`
	Roles       []Role           `json:"roles,omitempty"`
	Outputs     map[string]Value `json:"outputs,omitempty"`

	Exports map[string]string `json:"exports,omitempty"` // name that other Stacks import → key of Outputs
	// LayerFiles are folders or zips of the project that stand in for Layers from elsewhere, by ARN (with or without version) or name.
	LayerFiles map[string]string `json:"layerFiles,omitempty"`
}

// MaxLayers is how many Layers a Function may have: Lambda quotas, "Function layers".
const MaxLayers = 5

// Function is a named unit of code with one Handler.
type Function struct {
	Key         string            `json:"key"`          // short name in the project file
	Name        string            `json:"name"`         // the name the cloud would give
	ID          string            `json:"id,omitempty"` // logical ID, what a Value refers to
	Description string            `json:"description,omitempty"`
	Runtime     string            `json:"runtime"` // as asked for: "nodejs22.x"
	Handler     string            `json:"handler"`
	Place       diag.Pos          `json:"-"`               // where the project file names the handler; known only where it was read
	Arch        string            `json:"arch,omitempty"`  // "x86_64" or "arm64"; empty means any
	MemoryMB    int               `json:"memoryMB"`        // MiB
	TimeoutSec  int               `json:"timeoutSec"`      // seconds
	TmpMB       int               `json:"tmpMB,omitempty"` // MiB of /tmp; 0 means 512
	Env         map[string]Value  `json:"env,omitempty"`
	Package     Package           `json:"package"`
	Layers      []Value           `json:"layers,omitempty"`      // logical IDs of layer Resources or foreign ARNs
	Role        string            `json:"role,omitempty"`        // ID of a Role, or empty for the App's own
	Reserved    *int              `json:"reserved,omitempty"`    // reserved concurrency; 0 means never run
	Provisioned int               `json:"provisioned,omitempty"` // Instances kept initialised
	Schedule    []Scaling         `json:"schedule,omitempty"`    // when Provisioned changes
	Isolation   string            `json:"isolation,omitempty"`   // Strong, or empty for what the server gives
	URL         *URL              `json:"url,omitempty"`
	Async       *Async            `json:"async,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	Extra       map[string]any    `json:"extra,omitempty"` // declared properties without a meaning here, for targets
}

// Strong is the Isolation of a Function that is to have a kernel of its own.
const Strong = "strong"

// Scaling sets the Provisioned of a Function at certain times.
type Scaling struct {
	When        string `json:"when"`               // "cron(0 8 ? * MON-FRI *)" or "at(2030-01-02T15:04:05)", as EventBridge has them
	TimeZone    string `json:"timeZone,omitempty"` // IANA name; empty means UTC
	Provisioned int    `json:"provisioned"`
}

// Package says which files of the project are a Function's code.
type Package struct {
	Root     string   `json:"root,omitempty"`     // folder relative to the project's root; empty is the root
	Artifact string   `json:"artifact,omitempty"` // a ready zip or folder relative to the project's root; nothing is built then
	Patterns []string `json:"patterns,omitempty"` // globs in order, "!" excludes; the last match wins
	Only     bool     `json:"only,omitempty"`     // nothing is in unless a pattern includes it
	Alone    bool     `json:"alone,omitempty"`    // packaged by itself, not with the App's other Functions
	Makefile string   `json:"makefile,omitempty"` // target to run, for a source built by its own Makefile
	Image    string   `json:"image,omitempty"`    // container image; has no engine yet
	Inline   string   `json:"inline,omitempty"`   // the handler's source text itself
}

// URL is a Function's own HTTPS address (AWS "function URL").
type URL struct {
	Auth   string `json:"auth"` // "none" or "iam"
	CORS   *CORS  `json:"cors,omitempty"`
	Stream bool   `json:"stream,omitempty"` // invoke mode RESPONSE_STREAM
}

// Async configures asynchronous Invocations of a Function.
type Async struct {
	MaxRetries *int  `json:"maxRetries,omitempty"`
	MaxAgeSec  int   `json:"maxAgeSec,omitempty"`
	OnSuccess  Value `json:"onSuccess,omitzero"`
	OnFailure  Value `json:"onFailure,omitzero"`
	DeadLetter Value `json:"deadLetter,omitzero"`
}

// APIKind is the flavour of a gateway API; it decides the payload, the error bodies and the route rules.
type APIKind string

// The kinds of API.
const (
	REST      APIKind = "rest"      // API Gateway REST API, payload format 1.0
	HTTP      APIKind = "http"      // API Gateway HTTP API, payload format 2.0 unless a Route says 1.0
	WebSocket APIKind = "websocket" // API Gateway WebSocket API
	FuncURL   APIKind = "url"       // Lambda function URL, payload format 2.0
)

// API groups Routes behind one front.
type API struct {
	ID          string           `json:"id"` // logical ID, unique in the App
	Kind        APIKind          `json:"kind"`
	Name        string           `json:"name"`
	Stage       string           `json:"stage"` // "$default" has no path prefix
	StageVars   map[string]Value `json:"stageVars,omitempty"`
	CORS        *CORS            `json:"cors,omitempty"`        // answered by the gateway itself (HTTP APIs, function URLs)
	Binary      []string         `json:"binary,omitempty"`      // REST: media types sent to the Function as base64
	Policy      bool             `json:"policy,omitempty"`      // a resource policy is declared
	Endpoint    string           `json:"endpoint,omitempty"`    // "edge", "regional", "private"
	MinCompress int              `json:"minCompress,omitempty"` // bytes; 0 is off
}

// CORS is cross-origin resource sharing as a front declares it.
type CORS struct {
	Origins     []string `json:"origins,omitempty"`
	Methods     []string `json:"methods,omitempty"`
	Headers     []string `json:"headers,omitempty"`
	Expose      []string `json:"expose,omitempty"`
	MaxAgeSec   int      `json:"maxAgeSec,omitempty"`
	Credentials bool     `json:"credentials,omitempty"`
}

// Route is an HTTP matching rule to a Function.
type Route struct {
	API        string            `json:"api"`                 // ID of an API
	Method     string            `json:"method"`              // upper case, or "ANY"
	Path       string            `json:"path"`                // as declared: "/users/{id}", "/{proxy+}", "$default", a WebSocket route key
	Function   string            `json:"function,omitempty"`  // key of a Function; empty when Mock or Proxy is set
	Format     string            `json:"format,omitempty"`    // "1.0" or "2.0"
	Stream     bool              `json:"stream,omitempty"`    // REST: response transfer mode STREAM
	TimeoutMS  int               `json:"timeoutMS,omitempty"` // integration timeout; 0 means the API kind's default
	CORS       *CORS             `json:"cors,omitempty"`      // REST: an OPTIONS mock beside this path
	Authorizer *Authorizer       `json:"authorizer,omitempty"`
	APIKey     bool              `json:"apiKey,omitempty"` // an API key is required
	Async      bool              `json:"async,omitempty"`  // the caller does not wait
	Mock       *Mock             `json:"mock,omitempty"`
	Proxy      string            `json:"proxy,omitempty"`     // URL of an HTTP integration
	Custom     bool              `json:"custom,omitempty"`    // REST non-proxy integration: the Function gets a mapped template
	Templates  map[string]string `json:"templates,omitempty"` // request templates of a Custom integration by content type
	Schemas    bool              `json:"schemas,omitempty"`   // request validation is declared

	Passthrough string   `json:"passthrough,omitempty"` // Custom: "NEVER", "WHEN_NO_TEMPLATES" or "WHEN_NO_MATCH"; what an unmapped content type gets
	Answers     []Answer `json:"answers,omitempty"`     // Custom: how the Function's answer becomes a response, the first match wins
}

// Answer is one response of a Custom integration.
type Answer struct {
	Status    int               `json:"status"`
	Pattern   string            `json:"pattern,omitempty"`   // regular expression on the error message; empty is the default answer
	Header    map[string]string `json:"header,omitempty"`    // 'literal' in quotes, or integration.response.…
	Templates map[string]string `json:"templates,omitempty"` // response templates by content type
}

// Mock is an answer given without a Function.
type Mock struct {
	Status int               `json:"status"`
	Header map[string]string `json:"header,omitempty"`
	Body   string            `json:"body,omitempty"`
}

// Authorizer decides on a Request before Invocation.
type Authorizer struct {
	Kind     string   `json:"kind"` // "iam", "jwt", "cognito", "token", "request"
	Name     string   `json:"name,omitempty"`
	Function string   `json:"function,omitempty"` // key of the Function, for "token" and "request"
	Source   Value    `json:"source,omitzero"`    // ARN or issuer
	Identity []string `json:"identity,omitempty"`
	Audience []Value  `json:"audience,omitempty"`
	Scopes   []string `json:"scopes,omitempty"`
	TTLSec   int      `json:"ttlSec,omitempty"`
	Simple   bool     `json:"simple,omitempty"` // answers {isAuthorized}, payload 2.0
	Format   string   `json:"format,omitempty"` // payload format of a "request" authorizer of an HTTP API: "1.0" or "2.0"
}

// Trigger says that Events of a Source invoke a Function.
type Trigger struct {
	ID       string         `json:"id,omitempty"`
	Function string         `json:"function"`           // key of a Function
	Kind     string         `json:"kind"`               // "schedule", "s3", "sqs", "sns", "stream", "eventBridge", …
	Source   Value          `json:"source,omitzero"`    // the resource events come from
	Schedule []string       `json:"schedule,omitempty"` // rate() and cron() expressions
	Enabled  bool           `json:"enabled"`
	Settings map[string]any `json:"settings,omitempty"` // the rest as declared: scalars, lists, maps, Values
}

// The kinds of Resource the model knows. Any other type is Foreign.
const (
	Table    = "table"
	Bucket   = "bucket"
	Queue    = "queue"
	Topic    = "topic"
	Stream   = "stream"
	EventBus = "eventbus"
	Secret   = "secret"
	Layer    = "layer"
	Foreign  = "foreign"
)

// Resource is something declared beside Functions that persists.
type Resource struct {
	ID         string         `json:"id"`
	Kind       string         `json:"kind"`
	Type       string         `json:"type"`          // the declared type: "AWS::DynamoDB::Table"
	Name       Value          `json:"name,omitzero"` // its own name where one is declared
	Retain     bool           `json:"retain,omitempty"`
	Properties map[string]any `json:"properties,omitempty"` // scalars, lists, maps, and Values where only the deploy knows
}

// Role is an identity a Function runs as.
type Role struct {
	ID         string           `json:"id"`
	Name       string           `json:"name,omitempty"`
	Statements []map[string]any `json:"statements,omitempty"` // policy statements as declared
	Managed    []Value          `json:"managed,omitempty"`    // ARNs of managed policies
	Trust      []map[string]any `json:"trust,omitempty"`      // statements of the trust policy as declared
	ARN        Value            `json:"arn,omitzero"`         // of a role that exists outside the App
}

// Function returns the Function with the key or the full name, or nil.
func (a *App) Function(name string) *Function {
	for i := range a.Functions {
		if f := &a.Functions[i]; f.Key == name || f.Name == name {
			return f
		}
	}
	return nil
}

// API returns the API with the ID, or nil.
func (a *App) API(id string) *API {
	for i := range a.APIs {
		if a.APIs[i].ID == id {
			return &a.APIs[i]
		}
	}
	return nil
}

var (
	nameRE = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_-]{0,127}$`)
	funcRE = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,140}$`)
)

// Validate returns every rule the App breaks, empty when it breaks none. Front-ends call it
// last and locate what they can; the server calls it again on what it is sent.
func (a *App) Validate() []string {
	var v []string
	bad := func(format string, args ...any) { v = append(v, fmt.Sprintf(format, args...)) }
	if !nameRE.MatchString(a.Name) {
		bad("app name %q: want a letter, then letters, digits, _ or -", a.Name)
	}
	if !funcRE.MatchString(a.Stage) {
		bad("stage %q: want letters, digits, _ or -", a.Stage)
	}
	seen := map[string]string{}
	for i := range a.Functions {
		f := &a.Functions[i]
		if !funcRE.MatchString(f.Name) {
			bad("function %q: the name %q may hold only letters, digits, _ and - (1 to 140)", f.Key, f.Name)
		}
		if f.Key == "" {
			bad("function %q has no key", f.Name)
		}
		for _, n := range slices.Compact([]string{f.Key, f.Name}) {
			if other, dup := seen[n]; dup {
				bad("functions %q and %q share the name %q", other, f.Key, n)
			}
			seen[n] = f.Key
		}
		if f.Isolation != "" && f.Isolation != Strong {
			bad("function %q: isolation %q is not known", f.Key, f.Isolation)
		}
		if f.MemoryMB < 1 || f.MemoryMB > 1<<20 {
			bad("function %q: memory %d MiB is out of range", f.Key, f.MemoryMB)
		}
		if f.TimeoutSec < 1 || f.TimeoutSec > 24*3600 {
			bad("function %q: timeout %d s is out of range", f.Key, f.TimeoutSec)
		}
	}
	apis := map[string]bool{}
	for _, api := range a.APIs {
		if apis[api.ID] {
			bad("two APIs have the ID %q", api.ID)
		}
		apis[api.ID] = true
	}
	key := func(k string) bool {
		return slices.ContainsFunc(a.Functions, func(f Function) bool { return f.Key == k })
	}
	for _, r := range a.Routes {
		if !apis[r.API] {
			bad("route %s %s: no API %q", r.Method, r.Path, r.API)
		}
		if r.Function == "" && r.Mock == nil && r.Proxy == "" {
			bad("route %s %s leads nowhere", r.Method, r.Path)
		}
		if r.Function != "" && !key(r.Function) {
			bad("route %s %s: no function %q", r.Method, r.Path, r.Function)
		}
		if r.Method == "" || r.Method != strings.ToUpper(r.Method) {
			bad("route %s %s: the method must be upper case", r.Method, r.Path)
		}
	}
	for _, t := range a.Triggers {
		if !key(t.Function) {
			bad("trigger %s: no function %q", t.Kind, t.Function)
		}
	}
	ids := map[string]bool{}
	for _, r := range a.Resources {
		if ids[r.ID] {
			bad("two resources have the ID %q", r.ID)
		}
		ids[r.ID] = true
	}
	return v
}

// Decode reads an App from its JSON form; unknown fields are refused.
func Decode(data []byte) (*App, error) {
	dec := json.NewDecoder(strings.NewReader(string(data)))
	dec.DisallowUnknownFields()
	var a App
	if err := dec.Decode(&a); err != nil {
		return nil, fmt.Errorf("decode app: %w", err)
	}
	for i := range a.Resources {
		a.Resources[i].Properties, _ = revive(a.Resources[i].Properties).(map[string]any)
	}
	for i := range a.Triggers {
		a.Triggers[i].Settings, _ = revive(a.Triggers[i].Settings).(map[string]any)
	}
	for i := range a.Functions {
		a.Functions[i].Extra, _ = revive(a.Functions[i].Extra).(map[string]any)
	}
	for _, r := range a.Roles {
		for _, st := range [][]map[string]any{r.Statements, r.Trust} {
			for i := range st {
				st[i], _ = revive(st[i]).(map[string]any)
			}
		}
	}
	return &a, nil
}
