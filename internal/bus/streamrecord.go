package bus

import (
	"encoding/binary"

	"github.com/ebb-run/ebb/internal/errs"
)

// The items of streams.
const (
	kindStreamPut    kind = 'S' // streamPut
	kindStreamDelete kind = 'D' // streamDeletion
	kindRecord       kind = 't' // logged record
	kindCheckpoint   kind = 'k' // checkpoint
)

// streamPut makes a stream, or changes it; at most one of Split and Merge is set.
type streamPut struct {
	Stream Stream  `json:"stream"`
	Split  *cut    `json:"split,omitempty"`
	Merge  *[2]int `json:"merge,omitempty"`
	Turn   bool    `json:"turn,omitempty"` // only says that the shards are about to change
	Nonce  string  `json:"z"`
}

// cut is a shard, and the hash key with which the second half of its range begins.
type cut struct {
	Shard int     `json:"n"`
	At    hashKey `json:"h"`
}

type streamDeletion struct {
	Stream string `json:"q"`
	Nonce  string `json:"z"`
}

// loggedRecord is a record in the log. Its texts and data share the item's memory.
type loggedRecord struct {
	hash          hashKey
	stream        []byte // key of the stream
	key, id, kind []byte
	nonce         uint64
	data          []byte
}

// recordItem writes a record: the hash, 8 bytes that tell it from one that says the same, texts with their lengths, the data. Binary, because all
// shards of a stream look through a block.
func recordItem(r *loggedRecord) item {
	data, apart := r.data, []byte(nil)
	if len(data) > maxInline {
		data, apart = nil, data
	}
	n := len(r.hash) + 8 + 4*binary.MaxVarintLen32 + len(r.stream) + len(r.key) + len(r.id) + len(r.kind) + len(data)
	b := append(make([]byte, 0, n), r.hash[:]...)
	b = binary.LittleEndian.AppendUint64(b, r.nonce)
	for _, s := range [][]byte{r.stream, r.key, r.id, r.kind} {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	return item{kind: kindRecord, body: append(b, data...), apart: apart}
}

// parseRecord reads what recordItem wrote, without data that stand apart.
func parseRecord(it item) (r loggedRecord, err error) {
	bad := errs.New(errs.Failed, "a record of the log cannot be read")
	b := it.body
	if it.kind != kindRecord || len(b) < len(r.hash)+8 {
		return r, bad
	}
	b = b[copy(r.hash[:], b):]
	r.nonce, b = binary.LittleEndian.Uint64(b), b[8:]
	for _, s := range []*[]byte{&r.stream, &r.key, &r.id, &r.kind} {
		n, w := binary.Uvarint(b)
		if w <= 0 || n > uint64(len(b)-w) {
			return r, bad
		}
		*s, b = b[w:w+int(n):w+int(n)], b[w+int(n):]
	}
	r.data = b
	return r, nil
}

// What a checkpoint item does.
type pointing string

const (
	pointStart pointing = "s" // the Mapping begins
	pointMove  pointing = "c" // everything before Next is done
	pointDrop  pointing = "d" // the Mapping is forgotten
)

// checkpoint is how far a Mapping is. Only the owner's count, of the newest lease, and only forwards.
type checkpoint struct {
	Do      pointing `json:"o"`
	Mapping string   `json:"m"`
	Stream  int64    `json:"q,omitempty"` // its number
	Epoch   uint64   `json:"e,omitempty"`
	// Of a start.
	From From  `json:"f,omitempty"`
	At   int64 `json:"t,omitempty"` // ms, of AtTimestamp
	// Of a move.
	Gen   int64 `json:"g,omitempty"` // number of the start
	Shard int   `json:"n,omitempty"`
	Next  pos   `json:"p,omitempty"`
}
