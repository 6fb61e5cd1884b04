// Package invocation holds what travels from a front door to a function and back.
//
// Main types: [Invocation] with its [Payload], and [Sink], which takes the answer.
//
// Guarantees:
//
//  1. An Invocation says nothing of any provider's event shape; guest protocols translate it.
//  2. A Request's header keeps the client's names, case and order.
//  3. A Sink gets its Head once, before any byte, and then bytes with back-pressure.
//  4. A Batch and its Events are not changed by whom they are given to; one Batch may be invoked more than once.
//
// It holds no logic of routing, queueing or retrying.
package invocation

import (
	"io"
	"net"
	"strings"
	"time"
)

// Mode says who waits for an Invocation.
type Mode string

// The modes.
const (
	ModeRequest Mode = "request" // the caller waits for the answer
	ModeAsync   Mode = "async"   // queued; the answer is recorded
	ModeStream  Mode = "stream"  // ordered batches
)

// Invocation is one request to run a Function.
type Invocation struct {
	ID            string // UUID, lower case
	Tenant        string
	Function      string // full name
	Qualifier     string // version number, alias, or empty for the newest
	Mode          Mode
	Attempt       int       // from 1
	Received      time.Time // when ebb had it
	Deadline      time.Time // set by the engine when the Invoke phase begins
	Trace         string    // W3C traceparent, or empty
	Hops          int       // events in the chain of causes that led to it
	ClientContext string    // base64 JSON given by a direct caller, or empty
	Stream        bool      // a direct caller takes a streamed answer as it comes
	Payload       Payload
}

// Payload is a *Request, a *Batch or a Raw.
type Payload interface{ payload() }

// Raw is the payload of a direct Invocation: bytes for the handler, as they are.
type Raw []byte

func (Raw) payload() {}

// Field is one header line.
type Field struct{ Name, Value string }

// Request is an HTTP request that matched a Route. The handling goroutine owns Body until Invoke returns.
type Request struct {
	Method        string
	Scheme        string // "http" or "https"
	Proto         string // "HTTP/1.1"
	Host          string // as the client sent it
	Path          string // percent-encoded as sent, without query, after removal of a stage prefix
	FullPath      string // percent-encoded as sent, with the stage prefix if there was one
	Query         string // raw, without "?"
	Header        []Field
	Body          io.Reader // never nil; ends with an errs.TooLarge error where a limit cuts it
	ContentLength int64     // -1 if not known
	RemoteIP      string
	Route         *Route
	Claims        map[string]any // what the Authorizer found, or nil
}

func (*Request) payload() {}

// Get returns the last value of the header, ignoring case, or "".
func (r *Request) Get(name string) string {
	for i := len(r.Header) - 1; i >= 0; i-- {
		if strings.EqualFold(r.Header[i].Name, name) {
			return r.Header[i].Value
		}
	}
	return ""
}

// Route is the rule a Request matched. Everything but Params is shared between Requests and never changes.
type Route struct {
	APIKind    string // "rest", "http", "url"
	APIID      string // ten lower-case letters and digits, stable for an API of a Stack
	Domain     string // the host name to show to the function
	Account    string // AWS account id of the Tenant
	Stage      string // "$default" or the stage's name
	StageVars  map[string]string
	Method     string   // as declared: "GET", "ANY"
	Pattern    string   // as declared: "/users/{id}", "$default"
	ResourceID string   // stable id of the pattern
	Format     string   // payload format "1.0" or "2.0"
	Binary     []string // REST: media types that reach the function as base64
	Stream     bool     // the answer may be streamed
	Params     []Param  // of this Request, percent-encoded as sent, in the order of the pattern
}

// Param is one path parameter.
type Param struct{ Name, Value string }

// Head opens an answer.
type Head struct {
	Status int            // HTTP status; 0 for a direct Invocation
	Header []Field        // names as the function gave them
	Error  *FunctionError // nil when the handler succeeded
	Length int64          // body bytes to come, -1 if not known
}

// FunctionError says that the function, not ebb, failed. The body still carries the answer that its caller should see.
type FunctionError struct {
	Cause   Cause
	Type    string // the error's class name, "Runtime.ExitError"
	Message string // one line for people
}

// Cause is why a function failed.
type Cause string

// The causes.
const (
	CauseHandler  Cause = "handler"  // it returned or threw an error
	CauseInit     Cause = "init"     // Init failed
	CauseTimeout  Cause = "timeout"  // the deadline ended it
	CauseExit     Cause = "exit"     // the guest ended while it ran
	CauseMemory   Cause = "memory"   // over its memory limit
	CauseResponse Cause = "response" // the answer makes no sense or is too large
)

// Sink takes the answer of one Invocation. It is used by one goroutine at a time and not after Invoke returned.
type Sink interface {
	// Start gives the Head. A second call is a fault of the caller.
	Start(h Head) error
	// Write gives body bytes and blocks while the reader is slower. An error means that the
	// reader is gone: stop writing, and end the work where the protocol can.
	io.Writer
	// Upgrade answers with the Head and gives the raw connection to the caller, who closes it.
	// An errs.Unsupported error means that this Sink has no connection to give.
	Upgrade(h Head) (net.Conn, error)
}
