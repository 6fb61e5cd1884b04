package bus

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
)

// DefaultTenant owns queues that are named without a tenant.
const DefaultTenant = "default"

// Queue is a queue and its settings. Fields that are pointers mean their default when they are nil; zero is a value of its own.
type Queue struct {
	Tenant       string         `json:"tenant,omitempty"` // empty means DefaultTenant
	Name         string         `json:"name"`
	FIFO         bool           `json:"fifo,omitempty"`         // the name then ends in ".fifo", and only then
	ContentDedup bool           `json:"contentDedup,omitempty"` // FIFO: a message without a dedup ID has the hash of its body for one
	GroupDedup   bool           `json:"groupDedup,omitempty"`   // FIFO: dedup IDs are looked for in their group alone
	Visibility   *time.Duration `json:"visibility,omitempty"`   // nil means 30 s; to 12 h
	Delay        time.Duration  `json:"delay,omitempty"`        // of messages that do not say; to 15 min
	Wait         time.Duration  `json:"wait,omitempty"`         // of a Receive that does not say; to 20 s
	Retention    time.Duration  `json:"retention,omitempty"`    // 0 means 4 days; 1 min to 14 days
	MaxSize      int            `json:"maxSize,omitempty"`      // bytes of body and attributes; 0 means what Options say; to MaxMessage
	MaxReceives  int            `json:"maxReceives,omitempty"`  // then the message goes to DeadLetters; 0 means never
	DeadLetters  string         `json:"deadLetters,omitempty"`  // a queue of the same kind
	// Tags are the caller's own, kept and given back.
	Tags map[string]string `json:"tags,omitempty"`
}

// Key names the queue among all: tenant and name. Where a method takes a queue, a name alone means one of the DefaultTenant.
func (q Queue) Key() string { return queueKey(q.Tenant, q.Name) }

func queueKey(tenant, name string) string {
	if strings.Contains(name, "/") {
		return name
	}
	if tenant == "" {
		tenant = DefaultTenant
	}
	return tenant + "/" + name
}

// deadKey is the key of the dead-letter queue, or empty.
func (q *Queue) deadKey() string {
	if q.MaxReceives <= 0 || q.DeadLetters == "" {
		return ""
	}
	return queueKey(q.Tenant, q.DeadLetters)
}

func (q *Queue) visibility() time.Duration {
	if q.Visibility == nil {
		return 30 * time.Second
	}
	return *q.Visibility
}

func (q *Queue) retention() time.Duration {
	if q.Retention == 0 {
		return 4 * 24 * time.Hour
	}
	return q.Retention
}

func (q *Queue) maxSize(most int) int {
	if q.MaxSize == 0 {
		return most
	}
	return q.MaxSize
}

// Limits of queues, those of SQS where it has one.
const (
	// MaxMessage bounds a message's body and attributes, whatever its queue says; maxAttributeBytes the attributes alone.
	MaxMessage        = MaxData
	maxAttributeBytes = 256 << 10
	// MaxReceive is how many messages one Receive gives at most.
	MaxReceive = 10_000
	// MaxVisibility, MaxDelay and MaxWait bound these times.
	MaxVisibility = 12 * time.Hour
	MaxDelay      = 15 * time.Minute
	MaxWait       = 20 * time.Second

	fifoSuffix     = ".fifo"
	maxQueueName   = 80
	maxAttributes  = 64
	maxGroup       = 128 // bytes of a group or dedup ID
	maxQueueTags   = 64
	maxRetention   = 14 * 24 * time.Hour
	maxReceiveRule = 1000 // of MaxReceives
)

// validate tells what is wrong with the settings.
func (q *Queue) validate() error {
	bad := func(format string, args ...any) error {
		return errs.New(errs.Invalid, "queue %s: %s", clip(q.Name), fmt.Sprintf(format, args...))
	}
	between := func(d, least, most time.Duration) bool { return d >= least && d <= most }
	switch {
	case !queueName(strings.TrimSuffix(q.Name, fifoSuffix)) || len(q.Name) > maxQueueName:
		return bad("a name has 1 to %d letters, digits, - and _; that of a FIFO queue ends in %s", maxQueueName, fifoSuffix)
	case strings.ContainsAny(q.Tenant, "/ \x00") || len(q.Tenant) > maxQueueName:
		return bad("the tenant %q is not a name", clip(q.Tenant))
	case q.FIFO != strings.HasSuffix(q.Name, fifoSuffix):
		return bad("the names of FIFO queues end in %s, and no others", fifoSuffix)
	case !q.FIFO && (q.ContentDedup || q.GroupDedup):
		return bad("only FIFO queues know duplicates")
	case !between(q.visibility(), 0, MaxVisibility):
		return bad("the visibility timeout is 0 to %v", MaxVisibility)
	case !between(q.Delay, 0, MaxDelay):
		return bad("the delay is 0 to %v", MaxDelay)
	case !between(q.Wait, 0, MaxWait):
		return bad("the wait of a receive is 0 to %v", MaxWait)
	case !between(q.retention(), time.Minute, maxRetention):
		return bad("the retention is 1 minute to 14 days")
	case q.MaxSize < 0 || q.MaxSize > MaxMessage:
		return bad("the maximum size is 1 to %d bytes", MaxMessage)
	case q.MaxReceives < 0 || q.MaxReceives > maxReceiveRule:
		return bad("the maximum receive count is 0 to %d", maxReceiveRule)
	case len(q.Tags) > maxQueueTags:
		return bad("it has more than %d tags", maxQueueTags)
	case q.DeadLetters != "" && q.FIFO != strings.HasSuffix(q.DeadLetters, fifoSuffix):
		return bad("its dead-letter queue %s is not of the same kind", clip(q.DeadLetters))
	case q.DeadLetters != "" && queueKey(q.Tenant, q.DeadLetters) == q.Key():
		return bad("it cannot be its own dead-letter queue")
	}
	return nil
}

func queueName(s string) bool {
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return s != ""
}

// Message is what is sent to a queue.
type Message struct {
	ID         string // empty: Send makes a UUID. To be unique
	Body       []byte
	Attributes map[string]invocation.Attribute
	Group      string         // FIFO: required, and its messages are received in order
	Dedup      string         // FIFO: a second message with it within 5 minutes is accepted and dropped
	Delay      *time.Duration // nil means the queue's; FIFO queues take only theirs
	Trace      string         // trace context, as the sender gave it
	Sender     string         // who sent it
	Parent     string         // ID of the Invocation that sent it, or empty
	Publisher  string         // name of who did, or empty
	Hops       int            // events and messages in the chain of its causes
}

// Size is what counts against a queue's MaxSize.
func (m *Message) Size() int {
	n := len(m.Body)
	for name, a := range m.Attributes {
		n += len(name) + len(a.Type) + len(a.Text) + len(a.Binary)
	}
	return n
}

func (m *Message) validate(q *Queue, most int) error {
	for name := range m.Attributes {
		if name == "" || len(name) > 256 {
			return errs.New(errs.Invalid, "a message attribute's name has 1 to 256 bytes")
		}
	}
	switch {
	case len(m.Body) == 0:
		return errs.New(errs.Invalid, "the message has no body")
	case m.Size() > q.maxSize(most):
		return errs.New(errs.TooLarge, "the message has %d bytes, the queue takes %d", m.Size(), q.maxSize(most)).
			WithHint("Raise the queue's maximum message size, or for all the setting max-event; or send a reference to an object in a bucket.")
	case m.Size()-len(m.Body) > maxAttributeBytes:
		return errs.New(errs.TooLarge, "the message's attributes have %d bytes, the limit is %d", m.Size()-len(m.Body), maxAttributeBytes).WithHint("Put them into the body.")
	case len(m.Attributes) > maxAttributes:
		return errs.New(errs.Invalid, "the message has more than %d attributes", maxAttributes)
	case len(m.Group) > maxGroup || len(m.Dedup) > maxGroup || len(m.ID) > maxGroup || len(m.Trace) > 1024 || len(m.Sender) > 1024:
		return errs.New(errs.Invalid, "an ID, group or dedup ID of the message is longer than %d bytes", maxGroup)
	case q.FIFO && m.Group == "":
		return errs.New(errs.Invalid, "a message to a FIFO queue needs a group")
	case q.FIFO && m.Dedup == "" && !q.ContentDedup:
		return errs.New(errs.Invalid, "a message to this FIFO queue needs a dedup ID").WithHint("Give one, or turn on deduplication by content.")
	case q.FIFO && m.Delay != nil:
		return errs.New(errs.Invalid, "a message to a FIFO queue has no delay of its own")
	case !q.FIFO && m.Dedup != "":
		return errs.New(errs.Invalid, "a message to a standard queue has no dedup ID")
	case m.Delay != nil && (*m.Delay < 0 || *m.Delay > MaxDelay):
		return errs.New(errs.Invalid, "a message's delay is 0 to %v", MaxDelay)
	}
	return nil
}

// dedup gives the message's dedup ID in a FIFO queue.
func (m *Message) dedup(q *Queue) string {
	if !q.FIFO || m.Dedup != "" {
		return m.Dedup
	}
	sum := sha256.Sum256(m.Body)
	return hex.EncodeToString(sum[:])
}

// Sent is what became of one Message of a Send.
type Sent struct {
	ID        string
	Sequence  string // FIFO: decimal, of 20 digits; rises within the queue
	Duplicate bool   // FIFO: it was dropped; ID and Sequence are those of the first
	Err       error
}

// Receive says how to receive.
type Receive struct {
	Max        int            // messages; 0 means 1
	Wait       *time.Duration // for at least one message; nil means the queue's, zero none; to MaxWait
	Visibility *time.Duration // nil means the queue's
}

// Received is a message that was received. It is to be deleted before its visibility ends, or it comes again.
type Received struct {
	Message
	Receipt       string // names this receive; for DeleteMessages and ChangeVisibility
	Receives      int    // this one included
	Sent          time.Time
	FirstReceived time.Time
	Visible       time.Time // when it comes again
	Sequence      string    // FIFO
	DeadFrom      string    // key of the queue whose dead letter it is
}

// QueueStatus is what is known of a queue. The counts are exact when nothing is under way.
type QueueStatus struct {
	Queue
	Created  time.Time
	Changed  time.Time // its settings
	Visible  int       // messages that can be received now
	InFlight int       // received, and neither deleted nor visible again
	Delayed  int
	Oldest   time.Time // when the oldest message was sent; zero without any
}

// receipt is what a receipt says: the message's place and the number of the receive.
type receipt struct {
	part int
	gen  int64
	seq  uint64
	idx  int
	n    int
}

func (r receipt) String() string {
	h := func(n uint64) string { return strconv.FormatUint(n, 16) }
	return strings.Join([]string{h(uint64(r.part)), h(uint64(r.gen)), h(r.seq), h(uint64(r.idx)), h(uint64(r.n))}, "-")
}

func parseReceipt(s string) (receipt, error) {
	parts := strings.Split(s, "-")
	var n [5]uint64
	bad := len(parts) != len(n) || len(s) > 100
	for i := 0; i < len(n) && !bad; i++ {
		var err error
		n[i], err = strconv.ParseUint(parts[i], 16, 63)
		bad = err != nil
	}
	if bad || n[0] > 1<<20 || n[3] >= maxItems || n[4] > 1<<40 {
		return receipt{}, errs.New(errs.Invalid, "%q is not a receipt", clip(s))
	}
	return receipt{int(n[0]), int64(n[1]), n[2], int(n[3]), int(n[4])}, nil
}

// sequence is the sequence number of a message by its place.
func sequence(seq uint64, idx int) string { return fmt.Sprintf("%020d", seq*maxItems+uint64(idx)) }

// uuid makes a random one, version 4.
func uuid() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
