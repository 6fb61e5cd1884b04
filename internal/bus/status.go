package bus

import (
	"context"
	"encoding/json"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
)

// State is where a delivery stands.
type State int

// The states. Their numbers are stored.
const (
	Pending   State = 0 // due, running, or waiting for its next attempt
	Waiting   State = 1 // for an earlier delivery of the same key
	Done      State = 2
	Cancelled State = 3
	Dead      State = 4 // a dead letter
)

// String names a state for people and APIs.
func (s State) String() string {
	switch s {
	case Pending:
		return "pending"
	case Waiting:
		return "waiting"
	case Done:
		return "done"
	case Cancelled:
		return "cancelled"
	case Dead:
		return "dead"
	}
	return "unknown"
}

// Cause is why a delivery ended without success.
type Cause string

// The causes.
const (
	CauseExhausted    Cause = "exhausted"    // its attempts are spent
	CauseExpired      Cause = "expired"      // it is older than the Subscription allows
	CauseRefused      Cause = "refused"      // the target will not take it however often it is tried
	CauseLoop         Cause = "loop"         // the chain of causes is too long
	CauseLost         Cause = "lost"         // its event is not in the log any more
	CauseCancelled    Cause = "cancelled"    // on request
	CauseUnsubscribed Cause = "unsubscribed" // the Subscription was deleted
)

// Delivery is what a Deliverer gets. Its event is shared and must not be changed.
type Delivery struct {
	ID           string
	Subscription string
	Target       json.RawMessage
	Event        *event.Event
	Published    time.Time // when the event was durable
	Attempt      int       // from 1; tries that did not count are not in it
	Sequence     string    // of the event in its Partition: decimal, of 20 digits
	Replay       string    // ID of the replay that it belongs to, or empty
	Redriven     int       // how often it was a dead letter and was sent again
}

// Outcome is how one attempt of a delivery ended.
type Outcome struct {
	// Err nil is success. Codes Throttled and Unavailable are tried again without counting, up to the Subscription's age; NotFound, Forbidden,
	// Invalid, TooLarge and Unsupported make a dead letter at once; anything else counts as an attempt. Canceled counts as one unless the Bus
	// itself ended the call.
	Err error
	// Result is kept with the attempt, up to 4 KiB; larger ones are dropped.
	Result json.RawMessage
}

// Ended gives events that are published because a delivery ended, in one write with its end: both are durable, or neither. Outcome is that of the
// last attempt; a delivery that was cancelled has none, and is not told of. It is called again with the same delivery where the first call's write
// was lost, so its events should have ids that follow from the delivery.
type Ended func(d *Delivery, s State, c Cause, last Outcome) []*event.Event

// Deliverer runs the target of a Subscription.
type Deliverer interface {
	// Deliver takes 1 to Batch deliveries of one Subscription and returns one Outcome for each, in their order; any other number counts as a failure of
	// all. It may be called concurrently, and returns soon after ctx ended. The same delivery may come again after it succeeded: after a crash.
	Deliver(ctx context.Context, batch []*Delivery) []Outcome
}

// Attempt is one try of a delivery.
type Attempt struct {
	Start  time.Time       `json:"start"`
	Took   time.Duration   `json:"took"`
	Counts bool            `json:"counts"`
	Code   errs.Code       `json:"code,omitempty"` // empty after success
	Error  string          `json:"error,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
}

// Status is all that is known of a delivery.
type Status struct {
	ID           string    `json:"id"`
	Subscription string    `json:"subscription"`
	State        State     `json:"state"`
	Cause        Cause     `json:"cause,omitempty"`
	Source       string    `json:"source,omitempty"` // of the event; in lists only where it is asked for
	EventID      string    `json:"event,omitempty"`
	Subject      string    `json:"subject,omitempty"`
	Key          string    `json:"key,omitempty"`
	Published    time.Time `json:"published"`
	Updated      time.Time `json:"updated"`
	Due          time.Time `json:"due,omitzero"`     // when it is tried next
	Running      time.Time `json:"running,omitzero"` // since when an attempt is under way
	Tries        int       `json:"tries"`            // all attempts, those that do not count included
	Redriven     int       `json:"redriven,omitempty"`
	Replay       string    `json:"replay,omitempty"`
	Attempts     []Attempt `json:"attempts,omitempty"` // the last 10

	eseq uint64 // where the event stands
	eidx int
}

// Selection chooses deliveries. Fields that are set must all hold; one without any is refused.
type Selection struct {
	IDs          []string `json:"ids,omitempty"`
	Subscription string   `json:"sub,omitempty"`
	Cause        Cause    `json:"cause,omitempty"`
	All          bool     `json:"all,omitempty"` // chooses everything
}

func (s Selection) empty() bool {
	return len(s.IDs) == 0 && s.Subscription == "" && s.Cause == "" && !s.All
}
