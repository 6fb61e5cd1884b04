package bus

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
)

// Subscription says which events go to a target, and how. It is stored in the log as JSON.
type Subscription struct {
	Name        string          `json:"name"`              // unique; a second one with the name replaces the first for later events
	Channel     string          `json:"channel,omitempty"` // whose events it reads
	Subject     string          `json:"subject,omitempty"` // only those with this subject; empty means any
	Filter      json.RawMessage `json:"filter,omitempty"`  // for Options.Compile; empty matches every event
	Target      json.RawMessage `json:"target,omitempty"`  // for the Deliverer
	Retry       Retry           `json:"retry"`
	Ordered     bool            `json:"ordered,omitempty"`     // by the extension "partitionkey"; events without it are not ordered
	Batch       int             `json:"batch,omitempty"`       // most deliveries in one call of Deliver; 0 means 1
	Concurrency int             `json:"concurrency,omitempty"` // most calls of Deliver at once in one Partition; 0 means 16
	Deadline    time.Duration   `json:"deadline,omitempty"`    // of one call of Deliver; 0 means 15 minutes
}

// reads says whether the event's channel and subject are its own.
func (s Subscription) reads(e *event.Event) bool {
	return e.Extension(Channel) == s.Channel && (s.Subject == "" || e.Subject == s.Subject)
}

// Retry says how often and how long a delivery is tried.
type Retry struct {
	Attempts   int           `json:"attempts,omitempty"`   // counted ones, the first included; 0 means 3: Lambda's 2 retries
	MinBackoff time.Duration `json:"minBackoff,omitempty"` // after the first; doubles; 0 means 1 s
	MaxBackoff time.Duration `json:"maxBackoff,omitempty"` // 0 means 5 minutes
	MaxAge     time.Duration `json:"maxAge,omitempty"`     // 0 means 6 hours, Lambda's limit
}

// orDefaults fills what is zero.
func (s Subscription) orDefaults() Subscription {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&s.Retry.MinBackoff, time.Second)
	def(&s.Retry.MaxBackoff, 5*time.Minute)
	def(&s.Retry.MaxAge, 6*time.Hour)
	def(&s.Deadline, 15*time.Minute)
	if s.Retry.Attempts <= 0 {
		s.Retry.Attempts = 3
	}
	if s.Batch <= 0 {
		s.Batch = 1
	}
	if s.Concurrency <= 0 {
		s.Concurrency = 16
	}
	return s
}

// backoff is the wait after the n-th try: between a half and the whole of the doubled least one, so that what failed together
// does not come back together.
func (r Retry) backoff(n int) time.Duration {
	d := r.MinBackoff
	for i := 1; i < n && d < r.MaxBackoff; i++ {
		d *= 2
	}
	d = min(d, r.MaxBackoff)
	return d/2 + rand.N(d/2+1)
}

// Matcher decides whether an event is for a Subscription. It is used by several goroutines.
type Matcher interface {
	Match(e *event.Event) bool
}

// Compile makes a Matcher of a Subscription's Filter, or says with a code Invalid what is wrong with it.
type Compile func(filter json.RawMessage) (Matcher, error)

// Index finds those of many Filters that an event passes, in less time than to ask each. It is used by one goroutine.
type Index interface {
	// Add files a Filter that Compile took. False says that it is none for this Index, and has to be asked by itself.
	Add(id int64, filter json.RawMessage) bool
	Remove(id int64)
	// Match gives the ids of the Filters that the event passes, in any order.
	Match(e *event.Event) []int64
}

type everything struct{}

func (everything) Match(*event.Event) bool { return true }

type nothing struct{}

func (nothing) Match(*event.Event) bool { return false }

func (b *Bus) compile(filter json.RawMessage) (Matcher, error) {
	if len(filter) == 0 || string(filter) == "null" {
		return everything{}, nil
	}
	if b.opt.Compile == nil {
		return nil, errs.New(errs.Unsupported, "this bus takes no filters")
	}
	return b.opt.Compile(filter)
}

// maxName bounds the name of a Subscription.
const maxName = 256

// Subscribe puts a Subscription. Events published after Subscribe returned are matched by it; what an older one of the same name has
// made is delivered to the new target. An error may leave it put in some Partitions; the call can be repeated.
func (b *Bus) Subscribe(ctx context.Context, s Subscription) error {
	if s.Name == "" || len(s.Name) > maxName {
		return errs.New(errs.Invalid, "a subscription's name has 1 to %d bytes", maxName)
	}
	if s.Retry.Attempts < 0 || s.Batch < 0 || s.Batch > 1000 || s.Concurrency < 0 {
		return errs.New(errs.Invalid, "subscription %s: attempts, batch (to 1000) and concurrency cannot be negative", s.Name)
	}
	if _, err := b.compile(s.Filter); err != nil {
		return errs.New(errs.CodeOf(err), "subscription %s: %w", s.Name, err)
	}
	it := jsonItem(kindPut, s)
	if most := min(b.opt.Limits.Event, maxInline); it.size() > most {
		return errs.New(errs.TooLarge, "subscription %s has %d bytes, the limit is %d", s.Name, it.size(), most)
	}
	return b.everywhere(ctx, it)
}

// Unsubscribe deletes a Subscription; deliveries of it that have not ended are cancelled. To delete what is not there is no error.
func (b *Bus) Unsubscribe(ctx context.Context, name string) error {
	return b.everywhere(ctx, jsonItem(kindDelete, deletion{name}))
}

// everywhere appends an item to the log of every Partition.
func (b *Bus) everywhere(ctx context.Context, it item) error {
	for _, p := range b.parts {
		if _, err := p.log.append(ctx, []item{it}); err != nil {
			return err
		}
	}
	return nil
}
