package api

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// TraceInfo is all that followed from one beginning, as far as the event log has it.
type TraceInfo struct {
	Trace string      `json:"trace"` // 32 hexadecimal digits
	Roots []TraceNode `json:"roots"` // what nothing in the log has caused
	Open  int         `json:"open"`  // invocations and messages that have not ended
	Dead  int         `json:"dead"`  // dead letters
	More  bool        `json:"more,omitempty"`
}

// The kinds of TraceNode.
const (
	TraceEvent      = "event"
	TraceInvocation = "invocation"
	TraceMessage    = "message" // of a queue
)

// TraceNode is an event, a message or an Invocation, and what it caused.
type TraceNode struct {
	Kind string    `json:"kind"`
	ID   string    `json:"id"`
	At   time.Time `json:"at,omitzero"` // published, sent, accepted or begun

	Bus    string `json:"bus,omitempty"`   // event
	Topic  string `json:"topic,omitempty"` // event: a message that was published to it
	Type   string `json:"type,omitempty"`
	Source string `json:"source,omitempty"`

	Queue    string `json:"queue,omitempty"` // message: where it was sent to
	In       string `json:"in,omitempty"`    // message: where it is
	DeadFrom string `json:"deadFrom,omitempty"`
	Receives int    `json:"receives,omitempty"`

	Function    string              `json:"function,omitempty"` // invocation: full name
	Mode        string              `json:"mode,omitempty"`     // invocation: "event", "async", "destination", "queue", "request"
	State       string              `json:"state,omitempty"`    // as of InvocationStatus; of a message "waiting", "in flight", "done" or "dead"
	Cause       string              `json:"cause,omitempty"`
	Due         time.Time           `json:"due,omitzero"`
	Running     time.Time           `json:"running,omitzero"`
	DurationMS  float64             `json:"durationMS,omitempty"` // of its attempts together
	Error       string              `json:"error,omitempty"`      // of the last attempt
	Tries       int                 `json:"tries,omitempty"`
	Attempts    []InvocationAttempt `json:"attempts,omitempty"`
	Redriven    int                 `json:"redriven,omitempty"`
	Replay      string              `json:"replay,omitempty"`
	Delivery    string              `json:"delivery,omitempty"`
	Together    int                 `json:"together,omitempty"`  // messages that it took
	Elsewhere   bool                `json:"elsewhere,omitempty"` // what it caused is shown at another place of the tree
	Subscribed  string              `json:"subscription,omitempty"`
	PublishedBy string              `json:"publishedBy,omitempty"` // event, message: a function's full name

	Children []TraceNode `json:"children,omitempty"`
}

// TraceBackend is what the control API needs to tell what caused what.
type TraceBackend interface {
	// Trace finds a trace by its ID, or that of an event, a message, an Invocation or a delivery.
	Trace(ctx context.Context, id string) (*TraceInfo, error)
	// Graph tells who publishes what to whom; with an app only what touches it.
	Graph(ctx context.Context, app string) (*GraphInfo, error)
}

func (s *Server) trace(w http.ResponseWriter, r *http.Request) error {
	t, err := s.backend.Trace(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	writeJSON(w, 200, t)
	return nil
}

// Trace finds a trace by its ID, or that of an event, a message, an Invocation or a delivery.
func (c *Client) Trace(ctx context.Context, id string) (*TraceInfo, error) {
	var out TraceInfo
	return &out, c.call(ctx, "GET", "/v1/traces/"+url.PathEscape(id), nil, &out)
}
