package guest

import "github.com/ebb-run/ebb/internal/invocation"

// Notifier is a Protocol that knows what its provider sends to others than handlers: of a publication to queues and endpoints, and of what nobody took
// to dead-letter queues. Batches have one Item; of the Unit it needs Region and Account.
type Notifier interface {
	// Event appends what a handler gets of a Batch.
	Event(dst []byte, u *Unit, b *invocation.Batch) ([]byte, error)
	// Notice appends the document about a publication, and NoticeHeader gives the header fields of its POST; raw says that the body is the message alone.
	Notice(dst []byte, u *Unit, b *invocation.Batch) []byte
	NoticeHeader(u *Unit, b *invocation.Batch, raw bool) map[string]string
	// DeadLetter gives the attributes of the message that a dead letter of a Function or of a topic's Subscription is, RuleDeadLetter those of one that
	// a rule's target did not take.
	DeadLetter(e Ending) map[string]invocation.Attribute
	RuleDeadLetter(rule, target string, e Ending) map[string]invocation.Attribute
}
