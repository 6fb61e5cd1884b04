package lambda

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/shape"
)

const (
	// maxSync and maxAsync bound payloads: Lambda quotas, "Invocation payload".
	maxSync  = 6 << 20
	maxAsync = 1 << 20
	// maxContext bounds the client context, in base64: Lambda API, "Invoke", "ClientContext".
	maxContext = 3583
	// maxTail is of the log that an answer carries: "LogResult", the last 4 KB.
	maxTail = 4096
	// unhandled is what X-Amz-Function-Error says of whatever went wrong in a function.
	unhandled = "Unhandled"
)

type invokeInput struct {
	FunctionName, Qualifier                string
	InvocationType, LogType, ClientContext string
	Payload                                []byte
}

type invokeOutput struct {
	StatusCode                                int
	FunctionError, LogResult, ExecutedVersion string
	Payload                                   []byte
}

func (s *service) invoke(ctx context.Context, c *wire.Call, in *invokeInput) (*invokeOutput, error) {
	inv, f, err := s.prepare(ctx, c, in)
	if err != nil {
		return nil, err
	}
	switch in.InvocationType {
	case "DryRun":
		return &invokeOutput{StatusCode: http.StatusNoContent, ExecutedVersion: executed(inv)}, nil
	case "Event":
		if err := s.b.InvokeAsync(context.WithoutCancel(ctx), inv, c.Caller.Cause); err != nil {
			return nil, err
		}
		return &invokeOutput{StatusCode: http.StatusAccepted}, nil
	}
	answer, err := s.run(ctx, inv, in.LogType == "Tail")
	if err != nil {
		return nil, err
	}
	out := &invokeOutput{StatusCode: http.StatusOK, ExecutedVersion: executed(inv), Payload: answer.Body.Bytes()}
	if answer.Head.Error != nil {
		out.FunctionError = unhandled
	}
	if in.LogType == "Tail" {
		lines, err := s.b.Tail(ctx, f, inv.ID, inv.Received)
		if err != nil {
			return nil, err
		}
		out.LogResult = tail(lines)
	}
	c.Header.Set("Content-Type", "application/json")
	return out, nil
}

// executed is the version that ran; what an alias names is the only version there is.
func executed(inv *invocation.Invocation) string {
	if inv.Qualifier == "" || inv.Qualifier == latest {
		return latest
	}
	return "1"
}

// prepare checks a request, and makes its Invocation.
func (s *service) prepare(ctx context.Context, c *wire.Call, in *invokeInput) (*invocation.Invocation, Function, error) {
	limit, async := maxSync, in.InvocationType == "Event"
	if async {
		limit = maxAsync
	}
	if len(in.Payload) > limit {
		return nil, Function{}, wire.Errorf("RequestTooLargeException", "Request must be smaller than %d bytes for the InvokeFunction operation", limit).With(http.StatusRequestEntityTooLarge)
	}
	f, qualifier, err := s.find(ctx, c, "lambda:InvokeFunction", in.FunctionName, in.Qualifier)
	if err != nil {
		return nil, f, err
	}
	if qualifier != "" && qualifier != latest {
		if _, _, err := s.described(ctx, c, "lambda:InvokeFunction", in.FunctionName, in.Qualifier); err != nil {
			return nil, f, err
		}
	}
	if len(in.Payload) == 0 {
		in.Payload = []byte("{}")
	}
	if err := checkJSON(in.Payload); err != nil {
		return nil, f, wire.Errorf("InvalidRequestContentException", "Could not parse request body into json: Could not parse payload into json: %s", err)
	}
	if in.ClientContext != "" {
		text, err := base64.StdEncoding.DecodeString(in.ClientContext)
		if err != nil || !json.Valid(text) || len(in.ClientContext) > maxContext {
			return nil, f, wire.Errorf("InvalidRequestContentException", "Client context must be a valid Base64-encoded JSON object.")
		}
	}
	inv := &invocation.Invocation{
		ID: c.RequestID, Tenant: c.Caller.Tenant, Function: f.Name, Qualifier: qualifier, Mode: invocation.ModeRequest, Attempt: 1, Received: c.Now,
		Trace: c.Caller.Cause.Trace, Hops: c.Caller.Cause.Hops, ClientContext: in.ClientContext, Payload: invocation.Raw(in.Payload),
	}
	if qualifier == latest {
		inv.Qualifier = ""
	}
	if async {
		inv.Mode = invocation.ModeAsync
	}
	if c.Caller.Function != "" {
		inv.Hops++
	}
	if inv.Hops > maxHops && !async { // the bus sees to the others
		return nil, f, wire.Errorf("RecursiveInvocationException", "Lambda has detected your function being invoked in a recursive loop with other AWS resources and stopped your function's invocation.")
	}
	return inv, f, nil
}

// maxHops is how long a chain of Invocations may be whose callers wait for each other.
const maxHops = 64

func checkJSON(data []byte) error {
	if json.Valid(data) {
		return nil
	}
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		return err
	}
	return fmt.Errorf("the payload is not one JSON value")
}

// answer is a Sink that tells when its answer is whole, which a guest may go on after.
type answer struct {
	invocation.Buffer
	left  int64
	once  sync.Once
	whole chan struct{}
}

func (a *answer) Start(h invocation.Head) error {
	if err := a.Buffer.Start(h); err != nil {
		return err
	}
	a.left = h.Length
	a.settled()
	return nil
}

func (a *answer) Write(p []byte) (int, error) {
	n, err := a.Buffer.Write(p)
	if a.left > 0 {
		a.left -= int64(n)
		a.settled()
	}
	return n, err
}

func (a *answer) settled() {
	if a.left == 0 {
		a.once.Do(func() { close(a.whole) })
	}
}

// run waits until the answer is whole, with toEnd until the guest has ended its work. A caller that goes before ends the Invocation.
func (s *service) run(ctx context.Context, inv *invocation.Invocation, toEnd bool) (*answer, error) {
	a := &answer{whole: make(chan struct{})}
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { // the engine waits for it when it drains
		defer stop()
		ended <- s.b.Invoke(work, inv, a)
	}()
	whole := a.whole
	if toEnd {
		whole = nil
	}
	select {
	case <-whole:
		return a, nil
	case err := <-ended:
		select {
		case <-a.whole:
			return a, nil // what goes wrong after it is no fault of the answer
		default:
		}
		if err == nil && !a.Started {
			err = errs.New(errs.Internal, "the function gave no answer")
		}
		return a, err
	case <-ctx.Done():
		stop()
		return nil, <-ended
	}
}

// tail gives the end of a log in base64, whole lines where there are any.
func tail(lines []string) string {
	text := strings.Join(lines, "\n") + "\n"
	if len(text) > maxTail {
		text = text[len(text)-maxTail:]
	}
	return base64.StdEncoding.EncodeToString([]byte(text))
}

// invokeAsync is the old form of Invoke with the type Event.
func (s *service) invokeAsync(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	inv, _, err := s.prepare(ctx, c, &invokeInput{FunctionName: c.Labels["FunctionName"], InvocationType: "Event", Payload: c.Body})
	if err != nil {
		return nil, err
	}
	if err := s.b.InvokeAsync(context.WithoutCancel(ctx), inv, c.Caller.Cause); err != nil {
		return nil, err
	}
	return &shape.Answer{Status: http.StatusAccepted, Header: http.Header{}}, nil
}
