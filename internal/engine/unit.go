package engine

import (
	"context"
	"time"

	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/sandbox"
)

// Function is a Function inside a Unit.
type Function struct {
	Name     string        // full name, unique in its Tenant
	Timeout  time.Duration // of one Invocation; 0 means 3 s
	Reserved *int          // ceiling of Invocations at once over all Revisions; nil means none, 0 that it never runs
}

// Unit is what one Instance runs. It never changes once given to Stage.
type Unit struct {
	ID          string // "tenant/app/stage/key": what stays the same over Revisions
	Revision    string // digest of code and configuration
	Tenant      string
	Functions   []Function
	MemoryMB    int           // what an Instance takes from the Node's budget; 0 means 128
	KeepAlive   time.Duration // of an idle Instance; 0 means 5 min
	Learned     bool          // how long Instances are kept follows from when the Unit is called; KeepAlive where that says nothing
	MaxAge      time.Duration // of an Instance, after which another takes its place; 0 means no bound
	InitTimeout time.Duration // 0 means the longest timeout of its Functions, but at least 10 s
	Driver      sandbox.Driver
	Protocol    guest.Protocol
	Limits      sandbox.Limits
	// Provisioned says how many Instances are to be kept past Init from now on, and until when that holds; the zero time is for
	// good. It is called under no lock and must answer at once. nil means none.
	Provisioned func(now time.Time) (n int, until time.Time)
	// Guest materialises the code and unseals the environment. It is called for each Instance, concurrently. Of Units with
	// the same ID and Revision that of the last one committed is called.
	Guest func(ctx context.Context) (*guest.Unit, error)
	// Env gives variables, "K=V", that differ between Instances; Guest's come after them. nil means none.
	Env func(instance string) []string
	// Own changes, before Env is added, what one Instance is started from, which is the Instance's own copy of what Guest gave. nil changes nothing.
	Own func(instance string, g *guest.Unit)
	// Given is told, before the guest is, that an Instance gets an Invocation; also where another had it before, which the Observer is not told of. It
	// must answer at once. nil is not told.
	Given func(instance string, inv *invocation.Invocation)
}

const (
	defaultTimeout   = 3 * time.Second
	defaultKeepAlive = 5 * time.Minute
	defaultMemoryMB  = 128
	leastInitTimeout = 10 * time.Second
)

func (u *Unit) initTimeout() time.Duration {
	if u.InitTimeout > 0 {
		return u.InitTimeout
	}
	longest := leastInitTimeout
	for _, f := range u.Functions {
		longest = max(longest, f.Timeout)
	}
	return longest
}

// State is where an Instance is in its life.
type State string

// The states.
const (
	Starting State = "starting"
	Idle     State = "idle"
	Busy     State = "busy"
	Draining State = "draining" // takes nothing more; being stopped
	Stopped  State = "stopped"
)

// Observer is told what happens. Calls for one Instance come one after the other, in the order of what they tell; calls
// for different Instances are concurrent. It must not block long, nor call the Engine (Stats excepted). Lines are not
// kept by the Engine; the Observer may.
type Observer interface {
	// InvocationStarted is called once for an Invocation that reached an Instance, or whose Instance failed to start.
	InvocationStarted(u *Unit, instance string, inv *invocation.Invocation)
	// Output gives one line without its newline. Between two Invocations, and after the last, the invocationID is that of
	// the one which ended last, whose code may still write after InvocationEnded. It is empty before the first, in Init
	// for instance, and where several run at once.
	Output(u *Unit, instance, invocationID string, at time.Time, line []byte)
	// InvocationEnded is called once for each InvocationStarted.
	InvocationEnded(u *Unit, r Report)
	InstanceChanged(u *Unit, instance string, s State)
}

// Report says how an Invocation went.
type Report struct {
	InvocationID, Function, Instance string

	Mode       invocation.Mode
	Started    time.Time     // when the guest got it
	Duration   time.Duration // from then until the guest was done; the timeout where that ended it
	FirstByte  time.Duration // from Started until a streamed answer began; 0 where none did
	Queued     time.Duration // from arrival to Started, without Sandbox and Init
	Sandbox    time.Duration // when Cold: from the decision to start an Instance until its guest ran
	Init       time.Duration // when Cold: from then until the guest was past Init
	Handler    time.Duration // of Init: loading the user's code, as the guest says; 0 where it does not
	Cold       bool          // it waited for Init
	MemoryPeak int64         // bytes; of the Instance so far, up to 100 ms old
	// Error is how the function failed, or nil.
	Error *invocation.FunctionError
	// Err is what Invoke returns, or what the Session said beside Error; for operators, not for callers.
	Err error
}

// silent is the Observer of an Engine that was given none.
type silent struct{}

func (silent) InvocationStarted(*Unit, string, *invocation.Invocation) {}
func (silent) Output(*Unit, string, string, time.Time, []byte)         {}
func (silent) InvocationEnded(*Unit, Report)                           {}
func (silent) InstanceChanged(*Unit, string, State)                    {}
