package invocation

import (
	"time"

	"github.com/ebb-run/ebb/internal/event"
)

// Via is the kind of source through which a Batch reached a Function. It decides the form that a guest protocol gives it.
type Via string

// The kinds of source.
const (
	ViaEvent    Via = "event"    // a rule of an event bus; one Item
	ViaSchedule Via = "schedule" // one Item
	ViaTopic    Via = "topic"    // one Item
	ViaBucket   Via = "bucket"   // one Item; its Event's data are the notification's own record
	ViaQueue    Via = "queue"
	ViaStream   Via = "stream" // records of one Shard, in order
	ViaTable    Via = "table"  // changes of a table, of one Shard, in order
)

// Batch is what reaches a Function through one Trigger at once: Events, with what their source says of each.
type Batch struct {
	Via    Via
	Source string // name of the queue, topic, stream, table, bucket, bus or schedule, without account and region
	Shard  string // of a stream or table
	Items  []Item // at least one
}

func (*Batch) payload() {}

// Item is one Event of a Batch. What its kind of source does not have is zero.
type Item struct {
	Event *event.Event // shared; never changed

	Attributes    map[string]Attribute // given by the sender: queue, topic
	Group         string               // message group: queue, topic
	Dedup         string               // deduplication ID: queue, topic
	Key           string               // partition key: stream
	Sequence      string               // decimal, rises within a Shard or group
	Receipt       string               // names this receive of the message: queue
	Receives      int                  // how often it was received, this time included: queue
	FirstReceived time.Time            // queue
	DeadFrom      string               // name of the queue whose dead letter it is
}

// Attribute is a typed value beside the body of a message.
type Attribute struct {
	Type   string // as the sender gave it: "String", "Number.int", "Binary", …
	Text   string // of all but the binary types
	Binary []byte // of the binary types
}

// Verdict says what became of the Items of a Batch.
type Verdict struct {
	Failed []int // indices into Items, rising; the others are done
	Err    error // why, for people: the Function's error, or what is wrong with its answer; nil where it named Items itself
}
