// Package guest is the contract of protocols spoken with a handler over a sandbox's Conn.
//
// Main types: [Protocol] and [Session]. Package lambda speaks AWS Lambda's; package all lists them.
//
// Guarantees of every implementation:
//
//  1. Only a protocol knows the shape of a provider's events, answers and errors.
//  2. Session.Invoke returns when the guest is done with the Invocation, after-response work included.
//  3. A Session's error says whether the guest may have seen the Invocation ([ErrUnseen]).
//  4. What a guest sends is bounded and checked; nonsense becomes a function error, never a panic.
//
// It starts no process (sandbox does) and decides no placement or retry (engine does).
package guest

import (
	"context"
	"errors"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/sandbox"
)

// ErrUnseen marks an error after which the guest cannot have seen the Invocation; it may be tried on another Instance.
var ErrUnseen = errors.New("the guest has not seen the invocation")

// ErrPayload marks an error in the Invocation's own payload (its body was cut, too large or stopped coming). The guest has not seen
// it and can take another; another try is of no use. The error's code says what the caller did.
var ErrPayload = errors.New("the payload cannot be read")

// CutError ends an Invocation whose answer had begun and was cut: its reader has gone, or the handler failed inside it. The guest is done
// with the Invocation and can take another.
type CutError struct {
	Failure *invocation.FunctionError // how the handler failed; nil where its reader had gone
	Err     error
}

// Error gives that of Err.
func (e *CutError) Error() string { return e.Err.Error() }

// Unwrap gives Err.
func (e *CutError) Unwrap() error { return e.Err }

// Farewell is how long Invoke may stay after its context was canceled, where the guest has been told that nobody reads its answer and is
// ending its work.
const Farewell = time.Second

// Compiler is a Protocol whose guests compile code at their first Init, for those after it to load.
type Compiler interface {
	// Compiles says whether the next Init of the Unit does so.
	Compiles(u *Unit) bool
}

// Unit is what an Instance runs, ready to start: paths exist, references are resolved.
type Unit struct {
	Function    string // full name
	Version     string // "$LATEST" or a number
	ARN         string // without qualifier
	Runtime     string // as asked for: "nodejs18.x"
	Handler     string
	Interpreter []string // program and first arguments that run this runtime here; empty for native binaries
	Root        string   // folder with the code
	Layers      string   // folder with its Layers laid over each other, or empty
	Mounts      bool     // the Sandbox has files of its own, sandbox.Traits.Mounts
	Supplied    string   // folder with the supplied SDKs for this runtime, or empty
	Compiled    string   // folder for what the runtime compiles of the code, made by the first Init where it is missing; or empty
	Env         []string // the user's variables, "K=V"
	MemoryMB    int
	Timeout     time.Duration
	Region      string
	Account     string
	LogGroup    string
	LogStream   string // what the Instance is appended to
	Instance    string // its ID, set by who starts it
	Credentials Credentials
	Trust       bool     // the Sandbox has the files sandbox.CAFile and sandbox.RootsFile, which its programs are to trust
	Capture     *Capture // of a guest that shares this machine's network and files; else nil
	Provisioned bool     // started to be kept, not because it was asked for
	Note        string   // shown with an Init error: why this runtime is not the one asked for and how to install it; or empty
}

// Capture is what brings the calls of a provider's services here where no Sandbox does, and keeps the provider's clients from what ebb's own user
// has for the real ones.
type Capture struct {
	URL     string   // where clients find the services that take an address: "http://127.0.0.1:4566"
	Domains []string // whose names are theirs: "amazonaws.com"
	TLS     string   // "127.0.0.1:PORT" that stands for each of the services' names at port 443
	Clear   string   // the same at port 80
	Proxy   string   // URL of the Instance's way to everything else, with its credentials
	CA      string   // file of the certificate that what answers at TLS is known by, PEM
	Roots   string   // file of all certificates to trust; empty where the system's are not known
	Empty   string   // an empty file
}

// Credentials are what a handler's calls of a provider's services are signed with.
type Credentials struct{ AccessKey, Secret, Token string }

// Protocol turns Units into running Sessions. It has no state of its own; methods may be called concurrently.
type Protocol interface {
	// Name is the protocol's name: "lambda".
	Name() string
	// Transport says how a Unit's guest talks.
	Transport(u *Unit) sandbox.Transport
	// Beside says how many programs Code will want beside the main one: sandbox.Spec.Beside.
	Beside(u *Unit) int
	// Code says what to start in a Sandbox with the address (empty for sandbox.Stream with nothing beside). An error is a fault of the Unit, located for its owner.
	Code(u *Unit, addr string) (sandbox.Code, error)
	// Open waits until the guest's Init is over. A failed Init is an *InitError; ctx bounds it.
	Open(ctx context.Context, c sandbox.Conn, u *Unit) (Session, error)
	// Fault writes the answer that a caller of this provider sees when the host ended the Invocation.
	Fault(inv *invocation.Invocation, u *Unit, f Fault, s invocation.Sink) error
}

// Batcher is a Protocol that gives its handlers Batches in the form of a provider's sources, and whose handlers can say which Items they failed on.
type Batcher interface {
	// Record appends the i-th Item of the Batch in the form in which filters of a Trigger see it: on AWS one element of the event's Records, or the
	// event itself where its source has none. Of the Unit it needs Function, ARN, Region and Account.
	Record(dst []byte, u *Unit, b *invocation.Batch, i int) ([]byte, error)
	// Verdict says what became of a Batch that Invoke gave to the handler. report says whether its Trigger wants single Items named; failed is the
	// answer's Head.Error, or that of Fault. It never fails: an answer that makes no sense fails the whole Batch, and Err says why. The Verdict
	// shares no memory with the answer.
	Verdict(b *invocation.Batch, report bool, answer []byte, failed *invocation.FunctionError) invocation.Verdict
}

// Ending is how an asynchronous Invocation ended, for its Destination.
type Ending struct {
	Invocation string    // ID
	ARN        string    // of the Function, without qualifier
	At         time.Time // when it ended
	Attempts   int       // that counted
	Failed     bool
	Expired    bool      // Failed because it was too old
	Spent      bool      // Failed because its attempts are
	Code       errs.Code // of the last error, where it Failed
	Error      string    // and its text
	Request    []byte    // payload
	Response   []byte    // of the last attempt; nil where there is none
}

// Teller is a Protocol with a form in which a Destination is told of an Ending.
type Teller interface {
	// Tell appends that form, a JSON object.
	Tell(dst []byte, e Ending) []byte
}

// Lost is a part of a Batch of a stream or table that its Trigger has given up, for its Destination.
type Lost struct {
	Invocation string // ID of the last one that had to do with it
	At         time.Time
	Tries      int
	Expired    bool  // its Items became too old; else the tries are spent
	Err        error // of the last try; nil where the handler named Items
	Batch      *invocation.Batch
}

// LostTeller is a Protocol with a form in which a Destination is told of what is Lost.
type LostTeller interface {
	// TellLost appends that form, a JSON object. Of the Unit it needs Function, ARN, Region and Account.
	TellLost(dst []byte, u *Unit, l Lost) []byte
}

// Session is a guest that has been initialised.
type Session interface {
	// Invoke gives the Invocation to the guest and its answer to the Sink. nil means that the guest answered (with a result or with a
	// function error, see Head.Error) and can take another. An ErrPayload says the same without an answer, a *CutError with half of one. Any
	// other error means that this Instance is to be discarded, also where the answer has already begun. When ctx ends, Invoke
	// returns soon with its error, or within Farewell where ctx was canceled; the caller then ends the Sandbox.
	Invoke(ctx context.Context, inv *invocation.Invocation, s invocation.Sink) error
	// Concurrency is how many Invocations it takes at once, at least 1.
	Concurrency() int
	// Close lets go of the connection. It does not end the guest.
	Close() error
}

// Shutter is a Session whose guest has parts that want to know when it ends.
type Shutter interface {
	// Shutdown tells them, and returns when they have ended their work or ctx has ended; at once where there are none.
	Shutdown(ctx context.Context, why Reason)
}

// Reason is why a guest is ended.
type Reason string

// The reasons.
const (
	Spindown Reason = "spindown" // it is not needed any more
	Timeout  Reason = "timeout"  // the deadline of its Invocation has passed
	Failure  Reason = "failure"  // it does not work
)

// Timed is a Session whose guest may say how long parts of its Init took.
type Timed interface {
	// HandlerInit is how long the user's code took to load, by the guest's own clock and word; 0 where it does not say.
	HandlerInit() time.Duration
}

// InitError is a failed Init as the guest reported it. As an error of Session.Invoke it says why the guest has to end: a part of it has.
type InitError struct {
	Type    string // "Runtime.ImportModuleError"
	Message string
	Payload []byte // the provider's error document, or nil
}

// Error gives type and message.
func (e *InitError) Error() string { return e.Type + ": " + e.Message }

// Fault is why the host ended an Invocation.
type Fault struct {
	Cause invocation.Cause
	Init  *InitError    // for CauseInit and CauseExit, where the guest reported one
	Exit  sandbox.Exit  // for CauseExit and CauseMemory; for CauseInit without Init, Stopped where Init was not over in time
	After time.Duration // how long the Invocation ran
}
