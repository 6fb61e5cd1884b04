package lambda

import (
	"context"
	"encoding/json"
	"fmt"
	"net/rpc"
	"time"

	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/sandbox"
)

// The messages that aws-lambda-go before 1.18 takes by net/rpc. Their field names are the protocol: gob sends them.
type (
	rpcPing struct{}

	rpcRequest struct {
		Payload               []byte
		RequestId             string //nolint:revive // the name on the wire
		XAmznTraceId          string //nolint:revive // the name on the wire
		Deadline              rpcTime
		InvokedFunctionArn    string
		CognitoIdentityId     string //nolint:revive // the name on the wire
		CognitoIdentityPoolId string //nolint:revive // the name on the wire
		ClientContext         []byte
	}

	rpcTime struct{ Seconds, Nanos int64 }

	rpcResponse struct {
		Payload []byte
		Error   *rpcError
	}

	rpcError struct {
		Message    string
		Type       string
		StackTrace []*rpcFrame
		ShouldExit bool
	}

	rpcFrame struct {
		Path  string `json:"path"`
		Line  int32  `json:"line"`
		Label string `json:"label"`
	}
)

// rpcSession calls a Go binary that serves net/rpc.
type rpcSession struct {
	client *rpc.Client
	unit   *guest.Unit
	spent  bool
}

// openRPC dials until the guest listens, and pings it.
func openRPC(ctx context.Context, c sandbox.Conn, u *guest.Unit) (guest.Session, error) {
	pause := time.Millisecond
	for {
		nc, err := c.Dial(ctx)
		if err == nil {
			client := rpc.NewClient(nc)
			s := &rpcSession{client: client, unit: u}
			if err = s.do(ctx, "Function.Ping", &rpcPing{}, &rpcPing{}); err == nil {
				return s, nil
			}
			client.Close()
		}
		wait := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			wait.Stop()
			return nil, fmt.Errorf("wait for the guest's init: %w", ctx.Err())
		case <-wait.C:
		}
		pause = min(pause*2, 50*time.Millisecond)
	}
}

func (s *rpcSession) do(ctx context.Context, method string, in, out any) error {
	call := s.client.Go(method, in, out, make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
		return call.Error
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Concurrency is one: a Lambda execution environment takes one Invocation at a time.
func (s *rpcSession) Concurrency() int { return 1 }

// Close closes the connection.
func (s *rpcSession) Close() error { return s.client.Close() }

// Invoke calls Function.Invoke.
func (s *rpcSession) Invoke(ctx context.Context, inv *invocation.Invocation, sink invocation.Sink) error {
	if s.spent {
		return fmt.Errorf("the guest has ended after its last answer: %w", guest.ErrUnseen)
	}
	payload, err := appendPayload(nil, s.unit, inv)
	if err != nil {
		return err
	}
	end := deadline(s.unit, inv)
	req := &rpcRequest{
		Payload: payload, RequestId: inv.ID, XAmznTraceId: traceHeader(inv), Deadline: rpcTime{end.Unix(), int64(end.Nanosecond())},
		InvokedFunctionArn: string(appendARN(nil, s.unit, inv)), ClientContext: []byte(clientContext(inv)),
	}
	var resp rpcResponse
	if err := s.do(ctx, "Function.Invoke", req, &resp); err != nil {
		s.spent = true
		return fmt.Errorf("call the guest: %w", err)
	}
	rep := reply{inv: inv, sink: sink, kind: replyResult}
	if e := resp.Error; e != nil {
		s.spent = e.ShouldExit
		doc, err := json.Marshal(struct {
			Message string      `json:"errorMessage"`
			Type    string      `json:"errorType"`
			Trace   []*rpcFrame `json:"stackTrace,omitempty"`
		}{e.Message, e.Type, e.StackTrace})
		if err != nil {
			return fmt.Errorf("write the guest's error: %w", err)
		}
		_ = rep.fault(invocation.FunctionError{Cause: invocation.CauseHandler, Type: e.Type, Message: oneLine(e.Message)}, doc)
		return nil
	}
	_ = rep.close(resp.Payload)
	return nil
}
