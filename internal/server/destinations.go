package server

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/arn"
	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/state"
)

// destination is what is told of the end of an asynchronous Invocation; at most one part is set.
type destination struct {
	Function string `json:"function,omitempty"` // full name
	Bus      string `json:"bus,omitempty"`
}

// destinations gives a Function's, and what of them cannot be told.
func (s *Server) destinations(r resolver, f *app.Function) (success, failure *destination, faults []string) {
	if f.Async == nil {
		return nil, nil, nil
	}
	read := func(what string, v app.Value) *destination {
		if v.IsZero() {
			return nil
		}
		d, err := destinationOf(r, v)
		if err != nil {
			faults = append(faults, fmt.Sprintf("%s of function %s: %v", what, f.Key, err))
		}
		return d
	}
	success, failure = read("the on-success destination", f.Async.OnSuccess), read("the on-failure destination", f.Async.OnFailure)
	if !f.Async.DeadLetter.IsZero() {
		faults = append(faults, fmt.Sprintf("the dead-letter target of function %s is declared, not yet active; `ebb invocations` has what failed", f.Key))
	}
	return success, failure, faults
}

func destinationOf(r resolver, v app.Value) (*destination, error) {
	text, err := v.Resolve(r.values())
	if err != nil {
		return nil, err
	}
	if _, name, ok := strings.Cut(text, ":event-bus/"); ok {
		return &destination{Bus: name}, nil
	}
	if strings.Contains(text, ":lambda:") || !strings.HasPrefix(text, "arn:") {
		name, _, err := arn.FunctionName(text)
		if err != nil {
			return nil, errs.New(errs.Invalid, "%w", err)
		}
		return &destination{Function: name}, nil
	}
	return nil, errs.New(errs.Unsupported, "%s is declared, not yet active: functions and event buses are", text)
}

// reach sees to it that the Functions that are told of Endings can be.
func (s *Server) reach(ctx context.Context, d *state.Deployment, f *app.Function) error {
	success, failure, _ := s.destinations(s.resolver(d), f)
	for _, to := range []*destination{success, failure} {
		if to == nil || to.Function == "" {
			continue
		}
		target, in, err := s.declared(ctx, to.Function)
		if err != nil {
			return err
		}
		if err := s.subscribe(ctx, s.async(in, target)); err != nil {
			return err
		}
	}
	return nil
}

// ended gives what is published because a delivery ended: it is the bus's Ended.
func (s *Server) ended(v *bus.Delivery, st bus.State, cause bus.Cause, last bus.Outcome) []*event.Event {
	var t target
	if json.Unmarshal(v.Target, &t) != nil {
		return nil
	}
	to := t.OnSuccess
	if st != bus.Done {
		to = t.OnFailure
	}
	if to == nil {
		return nil
	}
	now := time.Now().UTC()
	e := guest.Ending{
		Invocation: t.invocation(v), ARN: arn.Function(t.Region, t.Account, t.Function).String(), At: now, Attempts: v.Attempt, Failed: st != bus.Done,
		Expired: cause == bus.CauseExpired, Request: v.Event.Data, Response: last.Result,
	}
	if !t.Raw {
		e.Request = event.Envelope(nil, v.Event, t.Account, t.Region)
	}
	record := s.protocol.Tell(nil, e)
	// The same end, written again after a crash, has the same id, and is dropped.
	id := uuid8("ebb ending", v.ID, v.Published.UnixMilli(), v.Redriven, v.Replay, st)
	out := &event.Event{ID: id, Source: asyncSource, Type: asyncType, Subject: to.Function, Time: now, DataContentType: "application/json", Data: record}
	channel := asyncChannel
	if to.Bus != "" {
		what := "Success"
		if e.Failed {
			what = "Failure"
		}
		var err error
		out, err = event.FromEntry(event.Entry{ID: id, Time: now, Source: "lambda", DetailType: "Lambda Function Invocation Result - " + what, Resources: []string{e.ARN + ":$LATEST"}, Detail: record})
		if err != nil {
			s.o.Log.Error("the end of an invocation is not told", "invocation", e.Invocation, "error", err)
			return nil
		}
		channel = busChannel(to.Bus)
	}
	bus.Caused(out, v.Event)
	out.SetExtension(bus.Parent, e.Invocation)
	out.SetExtension(bus.Publisher, t.Function)
	out.SetExtension(bus.Channel, channel)
	return []*event.Event{out}
}

// invocation is the ID of a delivery's Invocation, the same in all attempts.
func (t *target) invocation(v *bus.Delivery) string {
	if t.Raw {
		return v.Event.ID
	}
	return invocationOf(bus.TraceOf(v.Event), v.ID, v.Published, v.Event.Source, v.Event.ID)
}

// uuid8 makes a UUID of what is given: version 8, which is free for such use.
func uuid8(parts ...any) string {
	b := sha256.Sum256(fmt.Appendf(nil, "%q", parts))
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}
