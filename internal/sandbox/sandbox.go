// Package sandbox is the contract of isolation boundaries.
//
// Main types: [Driver], which prepares a [Sandbox] without code, and [Conn], over which a guest
// protocol talks to what runs inside. Packages process, wasm and workerd implement it; package
// sandboxtest is the suite every implementation passes.
//
// Guarantees of every implementation:
//
//  1. After Stop has returned nothing that the Sandbox started is left, however it was forked.
//  2. After kill -9 of the host nothing is left once Sweep has run in the next process.
//  3. The environment inside is exactly Code.Env; nothing of the host's environment or descriptors is inherited.
//  4. What is over a limit ends the whole Sandbox, and Exit says which limit.
//  5. Output gets every byte that was written before the end, also when the Sandbox was killed.
//
// It knows nothing of functions, events or HTTP.
package sandbox

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"
)

// Driver creates Sandboxes. Its methods may be called concurrently.
type Driver interface {
	// Name is the driver's name: "process".
	Name() string
	// Traits say what its Sandboxes can do.
	Traits() Traits
	// Prepare makes a Sandbox that holds no code yet. The caller stops it in the end, also when Start failed.
	Prepare(ctx context.Context, s Spec) (Sandbox, error)
	// Sweep ends what earlier processes of this data directory left behind, and returns how many Sandboxes that were.
	Sweep(ctx context.Context) (int, error)
	// Close releases what the driver holds. Sandboxes are stopped before.
	Close() error
}

// Traits are what a driver's Sandboxes can do.
type Traits struct {
	Concurrency int   // Invocations a Sandbox can take at once; 0 means that the protocol decides
	Freezable   bool  // Freeze and Thaw work; both fail where it is not set
	Shared      bool  // several Units may live in one
	FreshMemory bool  // each Invocation starts from the same memory
	Mounts      bool  // has its own files: Code's paths are those inside, where Code.Mounts are to be seen
	OwnBytes    int64 // memory that a Sandbox takes on top of its Limits
	Alone       bool  // takes no programs beside the main one, although it has Mounts
}

// Transport is how host and guest talk.
type Transport uint8

// The transports.
const (
	// Stream: a connected byte stream, inherited by the guest as descriptor 3.
	Stream Transport = iota
	// Listen: the host listens at Sandbox.Addr (host:port, TCP), which the guest dials.
	Listen
	// Dial: the guest listens at Sandbox.Addr (host:port, TCP), which the host dials.
	Dial
)

// Spec is what a Sandbox is made of before it has code.
type Spec struct {
	ID        string // unique on this Node; letters, digits and dashes
	Owner     string // for people: the Unit it will run
	Transport Transport
	// Beside is how many programs Code.Beside will have. With any the host listens at Sandbox.Addr also where the Transport is Stream.
	// Dial takes none, and no Sandbox without Traits.Mounts or with Traits.Alone does.
	Beside int
	// Offline guests reach nothing, whatever Egress allows. A Driver that cannot hold them back refuses: errs.Unsupported.
	Offline bool
	Limits  Limits
	// Output takes what the guest writes to standard output and standard error, in order, from one goroutine at a time.
	Output io.Writer
}

// Limits bound a Sandbox. Zero means no limit.
type Limits struct {
	MemoryBytes int64 // of all processes together
	TmpBytes    int64 // of its /tmp
	Processes   int
	MilliCPU    int64 // thousandths of a processor that all processes together may use, over a tenth of a second or so
	// ShareCPU is what a Sandbox is due when others want the processors too, in the same unit: one with 2000 then gets twice what one
	// with 1000 gets. It takes nothing away while a processor is free. Zero means the same as any other process.
	ShareCPU int64
}

// Code is what runs in a Sandbox.
type Code struct {
	Command []string // the program, as an absolute path, and its arguments
	Env     []string // the whole environment, "K=V"; TMPDIR and HOME are added by the driver where it gives a private folder
	Dir     string   // working directory
	Mounts  []Mount  // what of the host's files is needed beside the system's; Source and Target are the same where Traits.Mounts is not set
	// Beside are programs that run with the main one, which waits for Conn.Proceed then. Their output is the Sandbox's, they have no
	// descriptor 3, and the end of one ends nothing: Conn.Beside tells it.
	Beside []Program
	// Template is a program to take the main one from, where a Driver keeps some that are ready; nil where Command is to be run in any case.
	// What comes from a Template behaves as if Command had been run with Env in Dir, and one that is not ready is not waited for.
	Template *Template
	// Patient has one of the kind Copied waited for while it boots: nobody waits for this guest, which takes less memory as a copy.
	Patient bool
}

// Template is a program that is readied before the code is known that needs it: a language's runtime, booted, its libraries loaded. It is the
// host's own code; a user's has not been near it. A Driver keeps those that were asked for lately, one or more of each that differs.
//
// It finds descriptor [TemplateFD] open, a Unix socket of the kind SOCK_SEQPACKET, says "ready" on it, and reads one [Assignment] as JSON for each
// program that it becomes (Waiting: one, Copied: any number), then goes on as what Command is. One that waits says "taken" and closes the
// descriptor before any of the code runs; what it cannot become it does not say that of, but ends. Code.Mounts that are not Template.Mounts
// are there when it is assigned. With Ahead, copies are also made before they are needed: one whose Assignment says so waits as one of the
// kind Waiting does.
type Template struct {
	Name    string // for people: "nodejs22.x"
	Kind    TemplateKind
	Ahead   *Ahead   // Copied: its copies can wait; else nil
	Command []string // as Code's; with Env and Mounts what tells one Template from another
	Env     []string // the whole environment
	Mounts  []Mount  // as Code's; what it needs beside the system's before it is assigned
}

// Ahead is what copies that wait have beyond others.
type Ahead struct {
	Mounts []Mount  // they see from their start; of Code.Mounts
	Env    []string // as Assignment.Env of that which says that they wait
}

// TemplateKind is how a Template becomes a program.
type TemplateKind uint8

// The kinds.
const (
	// Waiting: it is in a Sandbox already and becomes the program.
	Waiting TemplateKind = iota
	// Copied: one process forks a copy for each, which enters the Sandbox. See [Footing].
	Copied
)

// Footing is what a Copied Template says of itself: behind "ready" and a space comes one as JSON. A Template that cannot be copied says
// "unfit" instead, with the reason behind a space, and ends.
//
// It has one thread. It finds at descriptor [EntryFD] an ELF file of machine code, maps that with the right to be executed, and keeps
// [FootingBytes] of its addresses free. With each Assignment comes a number of descriptors, which become CopyFD, CopyFD+1 and so on. The first of
// them is a file: the Template maps it privately at the address kept, with the right to be read and written, and calls the file's entry as a C
// function with that address as argument. What comes back is, in the Template, the number of the new process, which it says on TemplateFD as a
// decimal, or the negative number of an error; it then closes those descriptors again. In the copy it is 0. That one is in its Sandbox then, with
// all descriptors as Command would find them and no others, in the right folder; its environment and the rest are its own matter.
type Footing struct {
	At  uint64 `json:"at"`  // the address kept
	TID uint64 `json:"tid"` // where the C library has the thread's number: PR_GET_TID_ADDRESS of prctl(2)
}

// What a Copied Template knows beside TemplateFD.
const (
	EntryFD      = 6
	CopyFD       = 64
	FootingBytes = 1 << 20
)

// TemplateFD is the descriptor on which a Template is assigned.
const TemplateFD = 4

// Assignment tells a Template what to become.
type Assignment struct {
	Command []string `json:"command"`
	Env     []string `json:"env"`
	Dir     string   `json:"dir"`
	Wait    bool     `json:"wait,omitempty"` // of a copy: there is more to come on its own TemplateFD, and nothing else is said here
}

// Program is one of Code.Beside.
type Program struct {
	Command []string // as Code's
	Env     []string // the whole environment
}

// End is how a program of Code.Beside ended.
type End struct {
	Program int // its index
	Exit    Exit
}

// Mount shows a file or folder of the host inside a Sandbox. A Target beneath another Mount's has to be there already.
type Mount struct {
	Source string // absolute, on the host
	Target string // absolute, inside
	// Writable lets the guest write there what its user outside may. Nothing there gives rights inside (set-user-id bits, devices); what is left
	// outside is for the host to judge.
	Writable bool
}

// Where isolated guests find certificates, of Drivers that were given some: one that is ebb's own, and all that they are to trust, the latter also in
// the form that Java reads.
const (
	CAFile    = "/etc/ebb-ca.pem"
	RootsFile = "/etc/ebb-roots.pem"
	StoreFile = "/etc/ebb-roots.p12"
)

// Destination is where a guest wants to connect to.
type Destination struct {
	Owner   string // Spec.Owner of its Sandbox
	Sandbox string // Spec.ID
	Host    string // a DNS name without a final dot, or an IP address
	Port    uint16
}

// Egress opens connections for guests, which have no network of their own. Drivers get it from the composition root; where they have
// none, guests reach nothing.
type Egress interface {
	// Dial connects by TCP, or says why not: errs.Forbidden when the Destination is not allowed.
	Dial(ctx context.Context, d Destination) (net.Conn, error)
	// Resolves reports whether a name may be looked up: guests get an address for it, which Dial is then asked for by name.
	Resolves(d Destination) bool
	// Missing reports whether a name that Resolves certainly does not exist, so that a guest may be told at once. It may look the name up,
	// for no longer than ctx lasts; what it cannot say for certain by then is not missing, and Dial will see.
	Missing(ctx context.Context, d Destination) bool
	// Declared lists what an owner is known to connect to, Host "" meaning any: for Drivers that cannot bring every connection here, and
	// for destinations on the host's loopback, which the guest then finds on its own. Sandbox is empty in them.
	Declared(owner string) []Destination
}

// Sandbox is one isolation boundary. Start is called at most once; all other methods at any time, concurrently.
type Sandbox interface {
	// Addr is the TCP address for the Listen and Dial transports, known before Start; "" for Stream, unless Spec.Beside asks for one.
	Addr() string
	// Start attaches code and starts it; of code with programs beside it, those. The Conn lives as long as the Sandbox.
	Start(ctx context.Context, c Code) (Conn, error)
	// Flush returns when Output has been given every byte that the guest had written before the call.
	Flush()
	// Usage is what the Sandbox has used so far.
	Usage() Usage
	// Done is closed when the guest's main process has ended, or Stop has.
	Done() <-chan struct{}
	// Exit says how it ended; valid after Done is closed.
	Exit() Exit
	// Freeze takes the processor away from everything inside, until Thaw. It does not wait until the last process stands still.
	// Output written before is delivered, what is sent to the guest waits, and its clocks go on: timers fire when it is thawed. A
	// frozen Sandbox is frozen already; one that has not been started, or has ended or been stopped, gives errs.Conflict.
	Freeze() error
	// Thaw undoes Freeze and returns at once. After an error the Sandbox may be frozen for good: stop it. One that is not frozen
	// needs nothing.
	Thaw() error
	// Stop asks the guest to end, waits up to grace, then kills. It returns when nothing is left. Further calls wait for the first
	// but shorten its grace to theirs. A frozen Sandbox is thawed when there is grace, and killed as it is when there is none.
	Stop(grace time.Duration)
}

// Conn is the host's side of the line to a guest. A method that does not fit the Spec's Transport panics.
type Conn interface {
	Stream() net.Conn                           // Stream
	Listener() net.Listener                     // Listen, or any with Spec.Beside
	Dial(ctx context.Context) (net.Conn, error) // Dial; refused until the guest listens
	// Beside tells of each program of Code.Beside that has ended. It has room for all, is never closed, and is nil where there are none.
	Beside() <-chan End
	// Proceed lets the main program start that waits beside others; further calls, and those where nothing waits, do nothing. That it
	// cannot be started then is its end, with the reason in Output.
	Proceed() error
	Close() error
}

// Usage is what a Sandbox has used.
type Usage struct {
	MemoryPeak int64         // bytes, of all its processes together
	CPU        time.Duration // user and system
}

// Exit says how a guest ended.
type Exit struct {
	Code    int    // exit code, or -1 after a signal
	Signal  string // "killed", or ""
	OOM     bool   // ended because of Limits.MemoryBytes
	Stopped bool   // ended because of Stop
}

// String gives the Exit for people.
func (e Exit) String() string {
	switch {
	case e.OOM:
		return "out of memory"
	case e.Stopped:
		return "stopped"
	case e.Signal != "":
		return "signal: " + e.Signal
	}
	return fmt.Sprintf("exit status %d", e.Code)
}
