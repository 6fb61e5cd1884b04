package engine

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/sandbox"
)

// retryAfter is the part of a Throttled error that says when to try again. Who answers a client finds it with errors.As
// as an interface{ RetryAfter() time.Duration }.
type retryAfter struct{ after time.Duration }

func (r *retryAfter) Error() string { return fmt.Sprintf("retry after %v", r.after) }

// RetryAfter returns when to try again, in whole seconds, at least one.
func (r *retryAfter) RetryAfter() time.Duration { return r.after }

// maxRetryAfter bounds the advice.
const maxRetryAfter = 30 * time.Second

func throttled(after time.Duration, format string, args ...any) error {
	after = min(max(after.Round(time.Second), time.Second), maxRetryAfter)
	return errs.New(errs.Throttled, format+": %w", append(args, &retryAfter{after})...)
}

// ended gives the error of a caller's context, whose Code is Canceled or Timeout.
func ended(ctx context.Context) error {
	err := context.Cause(ctx)
	if code := errs.CodeOf(err); code != errs.Internal {
		return fmt.Errorf("the caller ended the invocation: %w", err)
	}
	return errs.New(errs.CodeOf(ctx.Err()), "the caller ended the invocation: %w", err)
}

// startFailure is why an Instance did not start: a Fault of the guest, or err, which is ours or the machine's.
type startFailure struct {
	inst  *instance
	fault guest.Fault
	err   error
	took  time.Duration
	tail  []string
	// exited says that fault.Exit is how the guest ended by itself.
	exited bool
}

// StartError says why a Unit's guest did not start, for the owner of the code.
type StartError struct {
	Unit    string
	Type    string        // as the guest reported it, or empty
	Message string        // as the guest reported it, or how it ended
	Exit    *sandbox.Exit // when it ended by itself
	Output  []string      // the last lines that it wrote
}

// Error gives the guest's message and, on lines of their own, its last output.
func (s *StartError) Error() string {
	var b strings.Builder
	b.WriteString(s.Unit + " does not start: ")
	if s.Type != "" {
		b.WriteString(s.Type + ": ")
	}
	b.WriteString(s.Message)
	if s.Exit != nil && s.Type != "" {
		b.WriteString(" (" + s.Exit.String() + ")")
	}
	for _, line := range s.Output {
		b.WriteString("\n  | " + line)
	}
	return b.String()
}

// error gives the failure for whoever asked for the start.
func (f *startFailure) error() error {
	u := f.inst.pool.unit
	if f.err != nil {
		return fmt.Errorf("start an instance of %s: %w", u.ID, f.err)
	}
	s := &StartError{Unit: u.ID, Output: f.tail}
	if f.exited {
		exit := f.fault.Exit
		s.Exit = &exit
	}
	switch {
	case f.fault.Init != nil:
		s.Type, s.Message = f.fault.Init.Type, f.fault.Init.Message
	case !f.exited:
		s.Message = fmt.Sprintf("init was not over after %v", f.took.Round(time.Millisecond))
	default:
		s.Message = "the guest ended during init: " + f.fault.Exit.String()
	}
	return errs.New(errs.Failed, "%w", s)
}
