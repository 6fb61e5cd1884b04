package api

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
)

// sinkLimits bound what a function publishes at once. Many do at the same time, in this process's memory.
func (k *Intake) sinkLimits() event.Limits {
	lim := k.limits()
	lim.Batch = max(2<<20, k.event)
	return lim
}

// Sink is where functions publish without a client library: POST of CloudEvents in any mode of their HTTP binding to / for the default event bus, and to
// /buses/NAME. Errors are those of the control API. It asks for no key: whoever serves it knows who calls.
type Sink struct {
	// Publish returns when all of the events are durable. An empty bus is the default one.
	Publish func(ctx context.Context, bus string, events []*event.Event) error
	// Enter waits for a turn of the caller, whose events are in memory from then until leave.
	Enter  func(ctx context.Context) (leave func(), err error)
	Intake *Intake // nil: the usual one
	Log    *slog.Logger
}

// sinkWait bounds the wait for the disk and for a turn.
const sinkWait = 20 * time.Second

// ServeHTTP answers one call.
func (k *Sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	if err := k.serve(w, r); err != nil {
		(&Server{log: k.Log}).fail(w, r, err)
	}
}

func (k *Sink) serve(w http.ResponseWriter, r *http.Request) error {
	to, named := strings.CutPrefix(r.URL.Path, "/buses/")
	if !named {
		to = ""
	}
	switch {
	case r.URL.Path != "" && r.URL.Path != "/" && (!named || to == ""):
		return errs.New(errs.NotFound, "there is nothing at %s", r.URL.Path).WithHint("POST CloudEvents to / or to /buses/NAME.")
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		writeJSON(w, http.StatusMethodNotAllowed, map[string]wireError{"error": {Code: errs.Invalid, Message: "events are published by POST"}})
		return nil
	case r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "":
		return errs.New(errs.Forbidden, "this call comes from a browser")
	}
	ctx, cancel := context.WithTimeout(r.Context(), sinkWait)
	defer cancel()
	leave, err := k.Enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	// Whether they were accepted must not be left open by a caller that hangs up while the disk writes.
	durable, done := context.WithTimeout(context.WithoutCancel(ctx), sinkWait)
	defer done()
	in := k.Intake
	if in == nil {
		in = NewIntake(MaxAsyncPayload)
	}
	return acceptEvents(w, r, in, in.sinkLimits(), to, func(events []*event.Event) error { return k.Publish(durable, to, events) })
}

// acceptEvents reads CloudEvents, publishes them, and says so.
func acceptEvents(w http.ResponseWriter, r *http.Request, in *Intake, lim event.Limits, to string, publish func([]*event.Event) error) error {
	leave, err := in.enter(w, r, int64(lim.Batch))
	if err != nil {
		return err
	}
	defer leave()
	events, _, err := event.ReadHTTP(r.Header, r.Body, lim)
	if errs.CodeOf(err) == errs.Unsupported {
		writeJSON(w, http.StatusUnsupportedMediaType, map[string]wireError{"error": {Code: errs.Unsupported, Message: err.Error(), Hint: errs.HintOf(err)}})
		return nil
	}
	if err != nil {
		return err
	}
	if err := publish(events); err != nil {
		return err
	}
	if to == "" {
		to = "default"
	}
	writeJSON(w, http.StatusAccepted, Published{Bus: to, Events: len(events)})
	return nil
}
