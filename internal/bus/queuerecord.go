package bus

import (
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
)

// The items of queues.
const (
	kindQueuePut    kind = 'Q' // queuePut
	kindQueueDelete kind = 'X' // queueDeletion
	kindSend        kind = 'm' // sending and its body
	kindReceived    kind = 'v' // grant
	kindSettled     kind = 'd' // settled
)

// nonce makes items differ that say the same: what is in the log twice with the same nonce was written twice.
func nonce() string { return strconv.FormatUint(rand.Uint64(), 36) }

type queuePut struct {
	Queue Queue  `json:"queue"`
	Nonce string `json:"z"`
}

type queueDeletion struct {
	Queue string `json:"q"`
	Nonce string `json:"z"`
}

// sending is the head of a message in the log; its body stands behind it.
type sending struct {
	Queue      string                          `json:"q"`
	ID         string                          `json:"i"`
	Attributes map[string]invocation.Attribute `json:"a,omitempty"`
	Group      string                          `json:"g,omitempty"`
	Dedup      string                          `json:"u,omitempty"`
	Delay      *int64                          `json:"d,omitempty"` // ms
	Trace      string                          `json:"t,omitempty"`
	Sender     string                          `json:"s,omitempty"`
	Nonce      string                          `json:"z,omitempty"`
	Parent     string                          `json:"p,omitempty"`
	Publisher  string                          `json:"b,omitempty"`
	Hops       int                             `json:"h,omitempty"`
	// Of one that was moved here from another Partition.
	Move string `json:"mv,omitempty"` // takes the place of the dedup ID
	Sent int64  `json:"at,omitempty"` // ms; 0 means when it is in the log
	Dead string `json:"dd,omitempty"` // the queue it comes from
}

// sendItem writes a message: the length of the head as a uvarint, the head as JSON, the body.
func sendItem(s sending, body []byte) item {
	head := jsonItem(kindSend, s).body
	var apart []byte
	if len(body) > maxInline {
		apart, body = body, nil
	}
	b := binary.AppendUvarint(make([]byte, 0, len(head)+len(body)+binary.MaxVarintLen32), uint64(len(head)))
	return item{kind: kindSend, body: append(append(b, head...), body...), apart: apart}
}

// parseSend reads what sendItem wrote. A body that stands apart is left out; else it shares the item's memory.
func parseSend(it item) (s sending, body []byte, err error) {
	n, w := binary.Uvarint(it.body)
	if it.kind != kindSend || w <= 0 || n > uint64(len(it.body)-w) {
		return s, nil, errs.New(errs.Failed, "a message of the log cannot be read")
	}
	if err := json.Unmarshal(it.body[w:w+int(n)], &s); err != nil {
		return s, nil, errs.New(errs.Failed, "a message of the log cannot be read: %w", err)
	}
	return s, it.body[w+int(n):], nil
}

func newSending(queue string, m *Message, q *Queue) sending {
	s := sending{Queue: queue, ID: m.ID, Attributes: m.Attributes, Group: m.Group, Dedup: m.dedup(q), Trace: m.Trace, Sender: m.Sender, Nonce: nonce(), Parent: m.Parent, Publisher: m.Publisher, Hops: m.Hops}
	if m.Delay != nil {
		s.Delay = new(m.Delay.Milliseconds())
	}
	return s
}

// message gives what was sent.
func (s *sending) message(body []byte) Message {
	m := Message{ID: s.ID, Body: body, Attributes: s.Attributes, Group: s.Group, Dedup: s.Dedup, Trace: s.Trace, Sender: s.Sender, Parent: s.Parent, Publisher: s.Publisher, Hops: s.Hops}
	if s.Delay != nil {
		m.Delay = new(time.Duration(*s.Delay) * time.Millisecond)
	}
	return m
}

// entry names a message by its place, and the receive that it is about.
type entry struct {
	Seq uint64 `json:"s"`
	Idx int    `json:"i"`
	N   int    `json:"n"`
}

// grant gives messages to a receiver. N of its entries is the number of this receive.
type grant struct {
	Gen     int64   `json:"g"`
	Epoch   uint64  `json:"e"`
	Token   uint64  `json:"k"` // for the owner that wrote it
	At      int64   `json:"t"` // ms
	Visible int64   `json:"v"` // ms; when they come again
	Entries []entry `json:"m"`
}

// What a settled item does.
type settling string

const (
	settleDelete     settling = "d"
	settleVisibility settling = "v" // At is when the entries are visible again
	settleMove       settling = "m" // to the queue To; it decides by N whether the message was received meanwhile
	settleDrop       settling = "r" // removes what was sent to another Partition
	settlePurge      settling = "p" // all that stand before it
	settleExpire     settling = "x" // what was sent before At
)

// settled ends what a receive began, and what else happens to messages that are in a queue.
type settled struct {
	Gen     int64    `json:"g,omitempty"`
	Queue   string   `json:"q,omitempty"` // of a purge
	Do      settling `json:"o"`
	Epoch   uint64   `json:"e,omitempty"` // of moves and drops, which only the owner decides
	At      int64    `json:"t,omitempty"` // ms
	To      string   `json:"to,omitempty"`
	Dead    bool     `json:"dd,omitempty"` // it is moved because it was received too often
	Entries []entry  `json:"m,omitempty"`
	Nonce   string   `json:"z,omitempty"`
}
