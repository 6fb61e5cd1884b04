package invocation

import (
	"encoding/json"
	"time"

	"github.com/ebb-run/ebb/internal/event"
)

// Via is the kind of source through which a Batch reached a Function. It decides the form that a guest protocol gives it.
type Via string

// The kinds of source.
const (
	ViaEvent    Via = "event"    // a rule of an event bus; one Item
	ViaSchedule Via = "schedule" // one Item; its Event's time is the time it was due
	ViaTopic    Via = "topic"    // one Item
	ViaBucket   Via = "bucket"   // one Item; its Event's data are the notification's own record
	ViaQueue    Via = "queue"
	ViaStream   Via = "stream" // records of one Shard, in order
	ViaTable    Via = "table"  // changes of a table, of one Shard, in order; see [Change]
)

// Change is how the data of a ViaTable Item's Event are written: a JSON object with these members, whose values the table's own form
// of items has. Absent ones are left out. What was done is the last word of the Event's type after a dot: "insert", "modify" or "remove".
type Change struct {
	Keys     json.RawMessage `json:"Keys"`
	NewImage json.RawMessage `json:"NewImage,omitempty"` // the item after the change
	OldImage json.RawMessage `json:"OldImage,omitempty"` // the item before it
	View     string          `json:"StreamViewType,omitempty"`
	Expired  bool            `json:"Expired,omitempty"` // the item was removed because its time to live was over
}

// Batch is what reaches a Function through one Trigger at once: Events, with what their source says of each.
type Batch struct {
	Via    Via
	Source string // name of the queue, topic, stream, table, bucket, bus or schedule, without account and region
	Label  string // of a table: names its stream of changes, "2026-01-02T03:04:05.678"; of a topic: its Subscription's id
	Group  string // of a schedule that stands in a group of schedules: the group
	Shard  string // of a stream or table: "shardId-000000000000", or its number alone
	Items  []Item // at least one

	// Input is what the handler gets in place of the Items: a constant of the Trigger, or what its transformer made of the Event. nil: the
	// Items, in their source's form. Bytes of the handler's own kind, as in Raw.
	Input []byte
}

func (*Batch) payload() {}

// Item is one Event of a Batch. What its kind of source does not have is zero.
type Item struct {
	Event *event.Event // shared; never changed. Its data are the message's body, the record's bytes; its subject is that of a notification

	Arrived       time.Time            // when the source took it; zero: the Event's time
	Sender        string               // identity of who sent it, as its source names identities; empty: the Tenant's account: queue
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
