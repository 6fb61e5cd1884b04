package bus

import (
	"encoding/binary"
	"encoding/json"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
)

// A block is a byte of version and items; an item is a byte of kind, its length as a uvarint, and the body: the log form of an event, JSON for
// the others.

// blockVersion rises with any change that an older ebb would misread.
const blockVersion = 2

// plainVersion is that of blocks without data that stand apart, which every ebb reads.
const plainVersion = 1

// maxItems is how many items a block may have: an item's number in its block is below it.
const maxItems = 4096

type kind byte

const (
	kindEvent    kind = 'e'
	kindOutcome  kind = 'o'
	kindPut      kind = 's' // Subscription
	kindDelete   kind = 'x' // deletion
	kindCancel   kind = 'c' // Selection
	kindRedrive  kind = 'r' // Selection
	kindReplay   kind = 'p' // replay
	kindReplayed kind = 'q' // replayed
	kindLease    kind = 'l' // lease

	kindSchedule   kind = 'h' // schedulePut
	kindUnschedule kind = 'j' // unschedule
	kindFired      kind = 'f' // firing and event
)

// adds says whether items of the kind bring something new, and are refused when the log is full. What ends something is not.
func (k kind) adds() bool {
	return k == kindEvent || k == kindFired || k == kindSend || k == kindRecord || k == kindWork || k == kindChunk
}

type item struct {
	kind kind
	body []byte
	// With one of these the body has no data.
	apart []byte   // data that are stored apart before the item is written
	ref   *dataRef // where they are
}

func (it item) size() int {
	n := len(it.body) + 1 + binary.MaxVarintLen32
	if it.apart != nil || it.ref != nil {
		n += refSize(it.dataSize())
	}
	return n
}

func appendBlock(b []byte, items []item) []byte {
	at := len(b)
	b = append(b, plainVersion)
	for _, it := range items {
		if it.ref != nil {
			b[at] = blockVersion
			it = item{kind: kindApart, body: appendApart(nil, it)}
		}
		if it.kind == kindChunk {
			b[at] = blockVersion
		}
		b = binary.AppendUvarint(append(b, byte(it.kind)), uint64(len(it.body)))
		b = append(b, it.body...)
	}
	return b
}

// parseBlock gives the items of a block, which share its memory.
func parseBlock(b []byte) ([]item, error) {
	if len(b) == 0 || b[0] < plainVersion || b[0] > blockVersion {
		if len(b) > 0 && b[0] > blockVersion {
			return nil, errs.New(errs.Unsupported, "the event log has format %d; this ebb knows up to %d", b[0], blockVersion).
				WithHint("Use the ebb that wrote it, or a newer one. Nothing was changed.")
		}
		return nil, errs.New(errs.Failed, "a block of the event log cannot be read")
	}
	var out []item
	for b = b[1:]; len(b) > 0; {
		k := kind(b[0])
		n, w := binary.Uvarint(b[1:])
		if w <= 0 || n > uint64(len(b)-1-w) {
			return nil, errs.New(errs.Failed, "a block of the event log is cut off")
		}
		b = b[1+w:]
		it := item{kind: k, body: b[:n:n]}
		if k == kindApart {
			var err error
			if it, err = parseApart(it.body); err != nil {
				return nil, err
			}
		}
		out = append(out, it)
		b = b[n:]
	}
	return out, nil
}

func jsonItem(k kind, v any) item {
	b, err := json.Marshal(v)
	if err != nil {
		panic("bus: a record does not encode: " + err.Error()) // plain data of this package
	}
	return item{kind: k, body: b}
}

func eventItem(e *event.Event) item { return eventItemOver(e, maxInline) }

// eventItemOver makes an item whose data stand apart when they have more than inline bytes.
func eventItemOver(e *event.Event, inline int) item {
	if len(e.Data) <= inline {
		return item{kind: kindEvent, body: e.AppendLog(nil)}
	}
	head := *e
	head.Data = nil
	return item{kind: kindEvent, body: head.AppendLog(nil), apart: e.Data}
}

// did names a delivery in its Partition: the item of the log that made it, and the Subscription's number.
type did struct {
	Seq uint64 `json:"q"`
	Idx int    `json:"i"`
	Sub int64  `json:"s"`
}

// outcome is how one attempt ended.
type outcome struct {
	did
	Run    int             `json:"n"` // number of the attempt among all, counted or not, from 1: a repeated outcome is told by it
	Epoch  uint64          `json:"e"`
	State  State           `json:"st"` // Pending: to be tried again
	Free   bool            `json:"f,omitempty"`
	Due    int64           `json:"d,omitempty"` // ms
	Cause  Cause           `json:"c,omitempty"`
	Code   errs.Code       `json:"k,omitempty"`
	Text   string          `json:"t,omitempty"`
	Start  int64           `json:"b"` // ms
	Took   int64           `json:"u"` // µs
	Result json.RawMessage `json:"r,omitempty"`
}

type deletion struct {
	Name string `json:"name"`
}

type lease struct {
	Node  string `json:"node"`
	Epoch uint64 `json:"epoch"`
}

// replay asks for the events of a span of time again.
type replay struct {
	ID     string          `json:"id"`
	Sub    string          `json:"sub"`
	From   int64           `json:"from"` // ms
	To     int64           `json:"to"`   // ms, not included
	Filter json.RawMessage `json:"filter,omitempty"`
}

// replayed is a part of a replay: the events found in [Cursor, Next).
type replayed struct {
	ID     string `json:"id"`
	Cursor uint64 `json:"cursor"`
	Next   uint64 `json:"next"`
	End    bool   `json:"end,omitempty"`
	Refs   []ref  `json:"refs,omitempty"`
}

// ref points to an event of the log.
type ref struct {
	Seq uint64 `json:"q"`
	Idx int    `json:"i"`
	Key string `json:"k,omitempty"`
}

func ms(t time.Time) int64 { return t.UnixMilli() }
