package lambda

import (
	"fmt"

	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/sandbox"
)

// Fault gives the answer for an Invocation that the host ended: the error document of AWS to a direct caller, the API kind's answer to
// a Request.
func (p *Protocol) Fault(inv *invocation.Invocation, u *guest.Unit, f guest.Fault, s invocation.Sink) error {
	fe := invocation.FunctionError{Cause: f.Cause}
	var doc []byte
	switch f.Cause {
	case invocation.CauseTimeout:
		fe.Type = "Sandbox.Timedout"
		fe.Message = fmt.Sprintf("Task timed out after %.2f seconds", u.Timeout.Seconds())
	case invocation.CauseMemory:
		fe.Type, fe.Message = "Runtime.OutOfMemory", "Runtime exited with error: signal: killed"
	case invocation.CauseInit:
		if f.Init != nil {
			fe.Type, fe.Message, doc = f.Init.Type, f.Init.Message, f.Init.Payload
			if doc == nil {
				doc = errorDocument(fe.Type, fe.Message)
			}
			break
		}
		fe.Type, fe.Message = "Runtime.ExitError", noted(u, exited(f.Exit))
	default:
		fe.Type, fe.Message = "Runtime.ExitError", exited(f.Exit)
		if f.Init != nil {
			fe.Type, fe.Message = f.Init.Type, f.Init.Message
		}
	}
	if doc == nil {
		doc = errorDocument(fe.Type, "RequestId: "+inv.ID+" Error: "+fe.Message)
	}
	return writeFault(inv, s, fe, doc)
}

// exited says how a runtime ended, in AWS's words.
func exited(e sandbox.Exit) string {
	switch {
	case e.Signal != "":
		return "Runtime exited with error: signal: " + e.Signal
	case e.Code != 0:
		return fmt.Sprintf("Runtime exited with error: exit status %d", e.Code)
	}
	return "Runtime exited without providing a reason"
}
