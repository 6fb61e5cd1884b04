package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
	"github.com/ebb-run/ebb/internal/invocation"
)

// HeaderMode asks for an asynchronous Invocation with the value "async".
const HeaderMode = "Ebb-Invocation-Mode"

// MaxAsyncPayload bounds the payload of an asynchronous Invocation and an event, in bytes, where nothing is set: Lambda quotas, "Invocation payload
// (asynchronous)". MostAsyncPayload is the most that can be.
const (
	MaxAsyncPayload  = 1 << 20
	MostAsyncPayload = 64 << 20
)

// Accepted says that an asynchronous Invocation is durable.
type Accepted struct {
	ID       string `json:"id"`
	Function string `json:"function"` // full name
}

// InvocationStatus is all that is known of an asynchronous Invocation.
type InvocationStatus struct {
	ID       string              `json:"id"`
	Function string              `json:"function"`         // full name
	State    string              `json:"state"`            // "pending", "running", "retrying", "succeeded", "dead", "cancelled"
	Cause    string              `json:"cause,omitempty"`  // of "dead" and "cancelled": "exhausted", "expired", "refused", …
	Accepted time.Time           `json:"accepted"`         // when it was durable
	Updated  time.Time           `json:"updated"`          // when its state changed last
	Due      time.Time           `json:"due,omitzero"`     // when it is tried next
	Running  time.Time           `json:"running,omitzero"` // since when it runs
	Tries    int                 `json:"tries"`            // all attempts, those that were only sent back by a full Node included
	Redriven int                 `json:"redriven,omitempty"`
	Attempts []InvocationAttempt `json:"attempts,omitempty"` // the last ten
	Result   json.RawMessage     `json:"result,omitempty"`   // of the last attempt, where it is JSON of at most 4 KiB
	Delivery string              `json:"delivery,omitempty"` // its ID on the event bus
}

// InvocationAttempt is one try of an asynchronous Invocation.
type InvocationAttempt struct {
	Start      time.Time `json:"start"`
	DurationMS float64   `json:"durationMS"`
	Counts     bool      `json:"counts"`         // against the retries
	Code       string    `json:"code,omitempty"` // empty after success
	Error      string    `json:"error,omitempty"`
}

// InvocationQuery selects asynchronous Invocations for a list. Empty fields select all.
type InvocationQuery struct {
	Function string
	State    string
	Cause    string
	Limit    int // 0 means 100, 1000 is the most
}

// InvocationChoice says which asynchronous Invocations are to be redriven or cancelled: by ID, or all of a Function, of a cause, or all.
type InvocationChoice struct {
	IDs      []string `json:"ids,omitempty"`
	Function string   `json:"function,omitempty"`
	Cause    string   `json:"cause,omitempty"`
	All      bool     `json:"all,omitempty"`
}

// AsyncBackend is what the control API needs for asynchronous Invocations.
type AsyncBackend interface {
	// InvokeAsync returns when the Invocation is durable, and has set its ID and Function.
	InvokeAsync(ctx context.Context, function string, inv *invocation.Invocation) error
	Invocation(ctx context.Context, id string) (*InvocationStatus, error)
	Invocations(ctx context.Context, q InvocationQuery) ([]InvocationStatus, error)
	// RedriveInvocations and CancelInvocations tell how many they changed.
	RedriveInvocations(ctx context.Context, c InvocationChoice) (int, error)
	CancelInvocations(ctx context.Context, c InvocationChoice) (int, error)
}

func (s *Server) invokeAsync(w http.ResponseWriter, r *http.Request, function string) error {
	leave, err := s.intake.enter(w, r, int64(s.intake.event))
	if err != nil {
		return err
	}
	defer leave()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(s.intake.event)))
	var over *http.MaxBytesError
	if errors.As(err, &over) {
		return errs.New(errs.TooLarge, "the payload of an asynchronous invocation has more than %d bytes", over.Limit).WithHint("%s", event.HintTooLarge)
	}
	if err != nil {
		return errs.New(errs.Invalid, "read payload: %w", err)
	}
	inv := &invocation.Invocation{
		Received: time.Now(), ClientContext: r.Header.Get(HeaderClientContext), Trace: r.Header.Get("Traceparent"), Payload: invocation.Raw(body),
	}
	// Whether it was accepted must not be left open by a caller that hangs up while the disk writes.
	if err := s.backend.InvokeAsync(context.WithoutCancel(r.Context()), function, inv); err != nil {
		return err
	}
	w.Header().Set(HeaderInvocation, inv.ID)
	writeJSON(w, http.StatusAccepted, Accepted{ID: inv.ID, Function: inv.Function})
	return nil
}

// mine says whether the caller's key reaches a Function; what it does not reach is as if it were not there.
func (s *Server) mine(r *http.Request) (func(function string) bool, error) {
	p := caller(r)
	if p.App == "" {
		return func(string) bool { return true }, nil
	}
	stacks, err := s.backend.Stacks(r.Context())
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, st := range stacks {
		for _, f := range st.Functions {
			if st.App == p.App {
				names[f.Name] = true
			}
		}
	}
	return func(function string) bool { return names[function] }, nil
}

func (s *Server) invocation(w http.ResponseWriter, r *http.Request) error {
	st, err := s.owned(r, r.PathValue("id"))
	if err != nil {
		return err
	}
	writeJSON(w, 200, st)
	return nil
}

// owned gives an Invocation that the caller's key reaches.
func (s *Server) owned(r *http.Request, id string) (*InvocationStatus, error) {
	st, err := s.backend.Invocation(r.Context(), id)
	if err != nil {
		return nil, err
	}
	mine, err := s.mine(r)
	if err != nil {
		return nil, err
	}
	if !mine(st.Function) {
		return nil, errs.New(errs.NotFound, "no asynchronous invocation has the ID %s", id)
	}
	return st, nil
}

func (s *Server) invocations(w http.ResponseWriter, r *http.Request) error {
	v := r.URL.Query()
	q := InvocationQuery{Function: v.Get("function"), State: v.Get("state"), Cause: v.Get("cause")}
	if text := v.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 1000 {
			return errs.New(errs.Invalid, "limit %q: want a number from 1 to 1000", text)
		}
		q.Limit = n
	}
	mine, err := s.mine(r)
	if err != nil {
		return err
	}
	if q.Function != "" {
		if q.Function, err = s.reachable(r, q.Function); err != nil {
			return err
		}
	}
	list, err := s.backend.Invocations(r.Context(), q)
	if err != nil {
		return err
	}
	out := []InvocationStatus{}
	for _, st := range list {
		if mine(st.Function) {
			out = append(out, st)
		}
	}
	writeJSON(w, 200, map[string][]InvocationStatus{"invocations": out})
	return nil
}

// choice reads and checks what is to be changed: a key for one App chooses by ID or Function.
func (s *Server) choice(w http.ResponseWriter, r *http.Request) (InvocationChoice, error) {
	var c InvocationChoice
	if err := readJSON(w, r, 1<<20, &c); err != nil {
		return c, err
	}
	if caller(r).App == "" {
		return c, nil
	}
	for _, id := range c.IDs {
		if _, err := s.owned(r, id); err != nil {
			return c, err
		}
	}
	switch {
	case c.Function != "":
		var err error
		c.Function, err = s.reachable(r, c.Function)
		return c, err
	case len(c.IDs) == 0:
		return c, errs.New(errs.Forbidden, "a key for one app chooses invocations by ID or function")
	}
	return c, nil
}

func (s *Server) redrive(w http.ResponseWriter, r *http.Request) error {
	return s.change(w, r, s.backend.RedriveInvocations)
}

func (s *Server) cancelAsync(w http.ResponseWriter, r *http.Request) error {
	return s.change(w, r, s.backend.CancelInvocations)
}

func (s *Server) change(w http.ResponseWriter, r *http.Request, do func(context.Context, InvocationChoice) (int, error)) error {
	c, err := s.choice(w, r)
	if err != nil {
		return err
	}
	n, err := do(r.Context(), c)
	if err != nil {
		return err
	}
	writeJSON(w, 200, map[string]int{"changed": n})
	return nil
}

// InvokeAsync asks for an asynchronous Invocation; when it returns, that is durable.
func (c *Client) InvokeAsync(ctx context.Context, function string, payload []byte, clientContext string) (*Accepted, error) {
	header := map[string]string{"Content-Type": "application/octet-stream", HeaderMode: "async"}
	if clientContext != "" {
		header[HeaderClientContext] = clientContext
	}
	resp, err := c.do(ctx, "POST", "/v1/functions/"+url.PathEscape(function)+"/invocations", bytes.NewReader(payload), int64(len(payload)), header)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	var a Accepted
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		return nil, errs.New(errs.Failed, "read answer: %w", err)
	}
	return &a, nil
}

// Invocation tells of an asynchronous Invocation.
func (c *Client) Invocation(ctx context.Context, id string) (*InvocationStatus, error) {
	var st InvocationStatus
	return &st, c.call(ctx, "GET", "/v1/invocations/"+url.PathEscape(id), nil, &st)
}

// Invocations lists asynchronous Invocations, the newest first.
func (c *Client) Invocations(ctx context.Context, q InvocationQuery) ([]InvocationStatus, error) {
	v := url.Values{}
	for k, text := range map[string]string{"function": q.Function, "state": q.State, "cause": q.Cause} {
		if text != "" {
			v.Set(k, text)
		}
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	var out struct{ Invocations []InvocationStatus }
	err := c.call(ctx, "GET", "/v1/invocations?"+v.Encode(), nil, &out)
	return out.Invocations, err
}

// Redrive gives dead Invocations all their attempts again, and tells how many there were.
func (c *Client) Redrive(ctx context.Context, ch InvocationChoice) (int, error) {
	var out struct{ Changed int }
	err := c.call(ctx, "POST", "/v1/invocations/redrive", ch, &out)
	return out.Changed, err
}

// CancelInvocations ends Invocations that have not ended, and tells how many there were.
func (c *Client) CancelInvocations(ctx context.Context, ch InvocationChoice) (int, error) {
	var out struct{ Changed int }
	err := c.call(ctx, "POST", "/v1/invocations/cancel", ch, &out)
	return out.Changed, err
}
