// Package lambda answers AWS's Lambda API as functions and tools call it: invoking, and reading what is deployed.
//
// Main types: [Backend], what it needs of a Node; [New] gives the wire.Service.
//
// Guarantees:
//
//  1. A Function is found by name, partial ARN and ARN, whatever region and account they say.
//  2. Credentials of a Function reach the Functions of its own App, those of its Stage first, and others only where the Backend
//     says that they may.
//  3. An answer of 202 is given after the Invocation is durable.
//  4. Operations that change Functions are refused by name.
//
// It knows nothing of how Functions run.
package lambda

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/arn"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/wire"
)

// Backend is what the operations need. An error of code NotFound says that there is no such Function.
type Backend interface {
	// Function gives the Function with the full name, or the one with the key where no other has it.
	Function(ctx context.Context, name string) (Function, error)
	// Describe lists the Functions of a Stack as they are deployed, sorted by name; empty fields select all Stacks.
	Describe(ctx context.Context, app, stage string) ([]Description, error)
	Mappings(ctx context.Context, app, stage string) ([]Mapping, error)
	// May says whether a Function of another App may use f: "lambda:InvokeFunction".
	May(ctx context.Context, who *wire.Caller, action string, f Function) bool
	// Invoke runs the Invocation, whose Function is a full name and whose ID is set.
	Invoke(ctx context.Context, inv *invocation.Invocation, s invocation.Sink) error
	// InvokeAsync returns when the Invocation is durable.
	InvokeAsync(ctx context.Context, inv *invocation.Invocation, cause wire.Cause) error
	// Tail gives the lines of an Invocation that has ended, those around it included.
	Tail(ctx context.Context, f Function, id string, since time.Time) ([]string, error)
}

// Function is a deployed Function.
type Function struct{ App, Stage, Name, Region string }

// Description is a Function with its configuration.
type Description struct {
	Function
	Text, Runtime, Handler, Role string
	Arch                         string // "x86_64" or "arm64"
	MemoryMB, TimeoutSec, TmpMB  int
	Env                          map[string]string
	Layers                       []string // ARNs
	DeadLetter                   string   // ARN
	Reserved                     *int
	Tags                         map[string]string
	Changed                      time.Time
	Revision                     string // digest of code and configuration, in hex
	Code                         string // digest of the code, in hex
	CodeSize                     int64
	URL, URLAuth                 string // its own address and who may use it, or empty
	URLStream                    bool
	MaxRetries                   *int // of asynchronous Invocations
	MaxAgeSec                    int
	OnSuccess, OnFailure         string // ARNs
	Aliases                      []string
	Provisioned                  int
}

// Mapping is an event source mapping.
type Mapping struct {
	ID       string // UUID
	Function string // full name
	Source   string // ARN
	Enabled  bool
	Settings map[string]any // as CloudFormation has them: BatchSize, FunctionResponseTypes …
	Changed  time.Time
}

type service struct{ b Backend }

// New returns the service.
func New(b Backend) *wire.Service {
	s := &service{b}
	return &wire.Service{
		Name: "lambda", Strict: true, MaxBody: 8 << 20, Translate: translate, Subjects: subjects,
		Operations: map[string]wire.Operation{
			"Invoke":                       wire.Op(s.invoke),
			"InvokeAsync":                  wire.Raw(false, s.invokeAsync),
			"InvokeWithResponseStream":     wire.Raw(false, s.invokeStream),
			"GetFunction":                  wire.Op(s.getFunction),
			"GetFunctionConfiguration":     wire.Op(s.getConfiguration),
			"GetFunctionConcurrency":       wire.Op(s.getConcurrency),
			"GetFunctionEventInvokeConfig": wire.Op(s.getEventInvoke),
			"GetFunctionUrlConfig":         wire.Op(s.getURL),
			"GetAlias":                     wire.Op(s.getAlias),
			"ListFunctions":                wire.Op(s.listFunctions),
			"ListVersionsByFunction":       wire.Op(s.listVersions),
			"ListAliases":                  wire.Op(s.listAliases),
			"ListTags":                     wire.Op(s.listTags),
			"GetEventSourceMapping":        wire.Op(s.getMapping),
			"ListEventSourceMappings":      wire.Op(s.listMappings),
			"GetPolicy":                    wire.Op(s.getPolicy),
		},
	}
}

// latest is the qualifier of the newest Revision.
const latest = "$LATEST"

// find gives the Function that a request names, and the qualifier that it names with it.
func (s *service) find(ctx context.Context, c *wire.Call, action, name, qualifier string) (Function, string, error) {
	short, own, err := arn.FunctionName(name)
	if err != nil || strings.Contains(own, ":") {
		return Function{}, "", wire.Errorf("InvalidParameterValueException", "Invalid function name: %s", name)
	}
	switch {
	case own != "" && qualifier != "" && own != qualifier:
		return Function{}, "", wire.Errorf("InvalidParameterValueException", "The derived qualifier from the function name does not match the specified qualifier.")
	case qualifier == "":
		qualifier = own
	}
	f, err := s.b.Function(ctx, short)
	if errs.CodeOf(err) == errs.NotFound || errs.CodeOf(err) == errs.Conflict {
		return f, "", notFound(c, short, qualifier)
	}
	if err != nil {
		return f, "", err
	}
	if w := &c.Caller; w.App != "" && w.App != f.App && !s.b.May(ctx, w, action, f) {
		return f, "", wire.Errorf("AccessDeniedException", "User: %s is not authorized to perform: %s on resource: %s because no identity-based policy allows the %s action",
			w.ARN, action, functionARN(c, f), action).With(http.StatusForbidden)
	}
	return f, qualifier, nil
}

// described is find, with the configuration, and with a qualifier that is known.
func (s *service) described(ctx context.Context, c *wire.Call, action, name, qualifier string) (*Description, string, error) {
	f, qualifier, err := s.find(ctx, c, action, name, qualifier)
	if err != nil {
		return nil, "", err
	}
	list, err := s.b.Describe(ctx, f.App, f.Stage)
	if err != nil {
		return nil, "", err
	}
	for i := range list {
		d := &list[i]
		if d.Name != f.Name {
			continue
		}
		if !d.has(qualifier) {
			return nil, "", notFound(c, f.Name, qualifier)
		}
		return d, qualifier, nil
	}
	return nil, "", notFound(c, f.Name, qualifier)
}

// has says whether a qualifier means something. What is deployed is $LATEST; where an alias is declared it is version 1 too.
func (d *Description) has(qualifier string) bool {
	switch qualifier {
	case "", latest:
		return true
	case "1":
		return len(d.Aliases) > 0
	}
	for _, a := range d.Aliases {
		if a == qualifier {
			return true
		}
	}
	return false
}

func functionARN(c *wire.Call, f Function) string {
	return arn.Function(c.Region, c.Caller.Account, f.Name).String()
}

func notFound(c *wire.Call, name, qualifier string) error {
	full := arn.Function(c.Region, c.Caller.Account, name).String()
	if qualifier != "" {
		full += ":" + qualifier
	}
	return wire.Errorf("ResourceNotFoundException", "Function not found: %s", full).With(http.StatusNotFound)
}

// translate tells of errors of the engine and the bus in Lambda's words: Lambda API, "Invoke", "Errors".
func translate(c *wire.Call, err error) *wire.Error {
	switch errs.CodeOf(err) {
	case errs.NotFound:
		return wire.Errorf("ResourceNotFoundException", "%s", err).With(http.StatusNotFound)
	case errs.Throttled:
		var when interface{ RetryAfter() time.Duration }
		if errors.As(err, &when) {
			c.Header.Set("Retry-After", strconv.Itoa(int(max(when.RetryAfter(), time.Second)/time.Second)))
		}
		e := wire.Errorf("TooManyRequestsException", "Rate Exceeded.").With(http.StatusTooManyRequests)
		e.Fields = map[string]any{"Reason": "ConcurrentInvocationLimitExceeded"}
		return e
	case errs.TooLarge:
		return wire.Errorf("RequestTooLargeException", "%s", err).With(http.StatusRequestEntityTooLarge)
	case errs.Invalid:
		return wire.Errorf("InvalidParameterValueException", "%s", err)
	case errs.Canceled, errs.Timeout, errs.Unavailable:
		return wire.Errorf("ServiceException", "%s", err).With(http.StatusServiceUnavailable)
	}
	return nil
}
