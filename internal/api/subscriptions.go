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
)

// SubscriptionSpec is a Subscription as somebody makes it. Of Pattern, Filters and SQL at most one is given; without any it takes all events of its bus.
// Exactly one of Function, Queue, Topic and Endpoint is.
type SubscriptionSpec struct {
	Name string `json:"name,omitempty"`
	Bus  string `json:"bus,omitempty"` // event bus; empty means the default one

	Pattern json.RawMessage `json:"pattern,omitempty"` // EventBridge's
	Filters json.RawMessage `json:"filters,omitempty"` // of the CloudEvents Subscriptions API: an expression, or a list that must all hold
	SQL     string          `json:"sql,omitempty"`     // a CloudEvents SQL expression

	Function string `json:"function,omitempty"` // full name or key
	Queue    string `json:"queue,omitempty"`
	Topic    string `json:"topic,omitempty"`
	Endpoint string `json:"endpoint,omitempty"` // http:// or https:// URL that is posted to

	// Format is in which form the target gets an event: FormatEventBridge, FormatCloudEvents, FormatBinary or FormatData. Empty means binary for
	// endpoints, and eventbridge for all others.
	Format string `json:"format,omitempty"`
	// At most one of these takes the event's place, as in a target of an EventBridge rule.
	Input            *string           `json:"input,omitempty"` // JSON text
	InputPath        *string           `json:"inputPath,omitempty"`
	InputTransformer *InputTransformer `json:"inputTransformer,omitempty"`

	Retry       *SubscriptionRetry `json:"retry,omitempty"`
	DeadLetters string             `json:"deadLetters,omitempty"` // queue that gets what the target did not take
	Ordered     bool               `json:"ordered,omitempty"`     // events with the same partitionkey one after the other
	Group       string             `json:"group,omitempty"`       // message group in a FIFO queue or topic; empty means the Subscription's name. Ordered takes the partitionkey first
}

// The forms in which a Subscription's target gets an event.
const (
	FormatEventBridge = "eventbridge" // EventBridge's envelope
	FormatCloudEvents = "cloudevents" // CloudEvents' JSON format; to an endpoint in structured mode
	FormatBinary      = "binary"      // CloudEvents in binary mode: of endpoints only
	FormatData        = "data"        // its data alone
)

// InputTransformer is a template and the variables in it: EventBridge's InputTransformer.
type InputTransformer struct {
	Paths    map[string]string `json:"inputPathsMap,omitempty"`
	Template string            `json:"inputTemplate"`
}

// SubscriptionRetry says how often and how long a delivery is tried. What is not given is the Function's own, or 186 attempts in 24 hours with waits
// of 1 s to 5 minutes. Durations are written as "90s" or "1h30m".
type SubscriptionRetry struct {
	Attempts   int    `json:"attempts,omitempty"` // the first included
	MinBackoff string `json:"minBackoff,omitempty"`
	MaxBackoff string `json:"maxBackoff,omitempty"`
	MaxAge     string `json:"maxAge,omitempty"`
}

// The states of a Subscription.
const (
	SubscriptionActive  = "active"
	SubscriptionResting = "resting" // its target is not there: deliveries wait
)

// SubscriptionDetail is all that is known of one Subscription.
type SubscriptionDetail struct {
	SubscriptionInfo
	Spec *SubscriptionSpec `json:"spec,omitempty"` // as it was made; absent for what an App declares
	// DeadLetters are the newest.
	DeadLetters []DeliveryInfo `json:"deadLetters"`
}

// DeliveryInfo describes one event on its way to one Subscription.
type DeliveryInfo struct {
	ID        string    `json:"id"`
	Source    string    `json:"source,omitempty"` // of the event
	Event     string    `json:"event,omitempty"`  // its id
	State     string    `json:"state"`
	Cause     string    `json:"cause,omitempty"`
	Error     string    `json:"error,omitempty"` // of the last attempt
	Tries     int       `json:"tries"`
	Redriven  int       `json:"redriven,omitempty"`
	Published time.Time `json:"published"`
	Updated   time.Time `json:"updated"`
}

// DeliveryChoice says which dead letters are to be sent again: by ID, or all of a Subscription, of a cause, or all but those of asynchronous invocations.
type DeliveryChoice struct {
	IDs          []string `json:"ids,omitempty"`
	Subscription string   `json:"subscription,omitempty"`
	Cause        string   `json:"cause,omitempty"`
	All          bool     `json:"all,omitempty"`
}

// SubscriptionBackend is what the control API needs for Subscriptions that somebody makes.
type SubscriptionBackend interface {
	// PutSubscription takes the JSON text of a SubscriptionSpec, so that what is wrong is told with its place: its line and column in the text, or
	// with parts in the pattern, the filters or the expression. It returns when the Subscription stands.
	PutSubscription(ctx context.Context, name string, doc []byte, parts bool) (*SubscriptionInfo, error)
	// Subscription tells of one by its name, by the end of a declared one's, or by its function's, with up to dead of its dead letters.
	Subscription(ctx context.Context, name string, dead int) (*SubscriptionDetail, error)
	// DeleteSubscription deletes one that was put; what it has not delivered is cancelled.
	DeleteSubscription(ctx context.Context, name string) error
	// RedriveDeliveries tells how many there were.
	RedriveDeliveries(ctx context.Context, c DeliveryChoice) (int, error)
}

// MaxSubscription bounds the text of a SubscriptionSpec, in bytes.
const MaxSubscription = 256 << 10

func (s *Server) putSubscription(w http.ResponseWriter, r *http.Request) error {
	doc, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxSubscription))
	if err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return err
		}
		return errs.New(errs.Invalid, "read body: %w", err)
	}
	// Whether it stands must not be left open by a caller that hangs up while the disk writes.
	info, err := s.backend.PutSubscription(context.WithoutCancel(r.Context()), r.PathValue("name"), doc, r.URL.Query().Get("places") == "parts")
	if err != nil {
		return err
	}
	writeJSON(w, 200, info)
	return nil
}

func (s *Server) subscription(w http.ResponseWriter, r *http.Request) error {
	dead := 20
	if text := r.URL.Query().Get("dead"); text != "" {
		var err error
		if dead, err = strconv.Atoi(text); err != nil || dead < 0 || dead > 1000 {
			return errs.New(errs.Invalid, "dead: %q is not a number from 0 to 1000", text)
		}
	}
	d, err := s.backend.Subscription(r.Context(), r.PathValue("name"), dead)
	if err != nil {
		return err
	}
	writeJSON(w, 200, d)
	return nil
}

func (s *Server) deleteSubscription(w http.ResponseWriter, r *http.Request) error {
	if err := s.backend.DeleteSubscription(context.WithoutCancel(r.Context()), r.PathValue("name")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) redriveDeliveries(w http.ResponseWriter, r *http.Request) error {
	var c DeliveryChoice
	if err := readJSON(w, r, 1<<20, &c); err != nil {
		return err
	}
	n, err := s.backend.RedriveDeliveries(r.Context(), c)
	if err != nil {
		return err
	}
	writeJSON(w, 200, map[string]int{"changed": n})
	return nil
}

// PutSubscription makes a Subscription, or changes it, of the JSON text of a SubscriptionSpec; when it returns, it stands. Errors name places in the
// text, or with parts in the pattern, the filters or the expression.
func (c *Client) PutSubscription(ctx context.Context, name string, doc []byte, parts bool) (*SubscriptionInfo, error) {
	path := "/v1/subscriptions/" + url.PathEscape(name)
	if parts {
		path += "?places=parts"
	}
	resp, err := c.do(ctx, "PUT", path, bytes.NewReader(doc), int64(len(doc)), map[string]string{"Content-Type": "application/json"})
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	var out SubscriptionInfo
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		return nil, errs.New(errs.Failed, "read answer: %w", err)
	}
	return &out, nil
}

// Subscription tells of one Subscription, with up to dead of its dead letters.
func (c *Client) Subscription(ctx context.Context, name string, dead int) (*SubscriptionDetail, error) {
	var out SubscriptionDetail
	return &out, c.call(ctx, "GET", "/v1/subscriptions/"+url.PathEscape(name)+"?dead="+strconv.Itoa(dead), nil, &out)
}

// DeleteSubscription deletes a Subscription that was put.
func (c *Client) DeleteSubscription(ctx context.Context, name string) error {
	return c.call(ctx, "DELETE", "/v1/subscriptions/"+url.PathEscape(name), nil, nil)
}

// RedriveDeliveries sends dead letters again, and tells how many there were.
func (c *Client) RedriveDeliveries(ctx context.Context, ch DeliveryChoice) (int, error) {
	var out struct{ Changed int }
	err := c.call(ctx, "POST", "/v1/redrives", ch, &out)
	return out.Changed, err
}
