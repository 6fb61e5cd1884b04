package bus

import (
	"bytes"
	"crypto/md5" //nolint:gosec // the hash by which Kinesis spreads partition keys
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

// Stream is an ordered stream and its settings.
type Stream struct {
	Tenant    string        `json:"tenant,omitempty"` // empty means DefaultTenant
	Name      string        `json:"name"`
	Shards    int           `json:"shards,omitempty"`    // open ones; 0 means 1, or those that there are
	Retention time.Duration `json:"retention,omitempty"` // of its records; 0 means 24 h; to 365 days
	// Table names the table whose changes the records are: then they reach Functions as those, and Label names the stream among the table's.
	Table string `json:"table,omitempty"`
	Label string `json:"label,omitempty"`
	// Tags are the caller's own, kept and given back.
	Tags map[string]string `json:"tags,omitempty"`
}

// Key names the stream among all: tenant and name. Where a method takes a stream, a name alone means one of the DefaultTenant.
func (s Stream) Key() string { return queueKey(s.Tenant, s.Name) }

func (s *Stream) retention() time.Duration {
	if s.Retention == 0 {
		return 24 * time.Hour
	}
	return s.Retention
}

// Limits of streams, those of Kinesis Data Streams where it has one.
const (
	// MaxRecord bounds a record's data and partition key, whatever is set.
	MaxRecord = 10 << 20
	// MaxPut is how many records one PutRecords takes, MaxGet how many one GetRecords gives, MaxGetBytes the bytes of these.
	MaxPut      = 500
	MaxGet      = 10_000
	MaxGetBytes = 10 << 20
	// MaxShards bounds the open shards of a stream.
	MaxShards = 500

	// TableStream begins the name of the stream of a table's changes, behind which the table's stands: no other stream can have such a name.
	TableStream = "table:"

	maxStreamName      = 255 + len(TableStream)
	maxPartitionKey    = 256 // characters
	maxStreamRetention = 365 * 24 * time.Hour
	// iteratorLife is how long an iterator is good for: that of DynamoDB Streams, which is longer than the 5 minutes of Kinesis.
	iteratorLife = 15 * time.Minute
)

// validate tells what is wrong with the settings.
func (s *Stream) validate() error {
	bad := func(format string, args ...any) error {
		return errs.New(errs.Invalid, "stream %s: %s", clip(s.Name), fmt.Sprintf(format, args...))
	}
	switch {
	case s.Table != "" && s.Name != TableStream+s.Table:
		return bad("the stream of the table %s is named %s", clip(s.Table), clip(TableStream+s.Table))
	case !queueName(strings.ReplaceAll(strings.TrimPrefix(s.Name, TableStream+s.Table), ".", "-")) && s.Table == "" || len(s.Name) > maxStreamName:
		return bad("a name has 1 to %d letters, digits and . - _", maxStreamName)
	case strings.ContainsAny(s.Tenant, "/ \x00") || len(s.Tenant) > maxQueueName:
		return bad("the tenant %q is not a name", clip(s.Tenant))
	case s.Shards < 0 || s.Shards > MaxShards:
		return bad("it has 1 to %d shards", MaxShards)
	case s.retention() < 24*time.Hour || s.retention() > maxStreamRetention:
		return bad("the retention is 24 hours to 365 days")
	case len(s.Tags) > maxQueueTags:
		return bad("it has more than %d tags", maxQueueTags)
	}
	return nil
}

// Record is what is put into a stream.
type Record struct {
	Data    []byte
	Key     string // partition key, 1 to 256 characters: the records of one stand in one shard, in their order
	HashKey string // decimal, to 2^128-1: chooses the shard in place of the Key's MD5
	// ID and Type are those of a table's change; see [invocation.Change].
	ID   string
	Type string
}

func (r *Record) validate(most int) error {
	switch {
	case r.Key == "" || len([]rune(r.Key)) > maxPartitionKey:
		return errs.New(errs.Invalid, "a record's partition key has 1 to %d characters", maxPartitionKey)
	case len(r.Data)+len(r.Key) > most:
		return errs.New(errs.TooLarge, "the record has %d bytes, a stream takes %d", len(r.Data)+len(r.Key), most).
			WithHint("The setting max-event raises that, up to %d bytes for records.", MaxRecord)
	case len(r.ID) > maxGroup || len(r.Type) > maxGroup:
		return errs.New(errs.Invalid, "an ID or type of the record is longer than %d bytes", maxGroup)
	}
	return nil
}

// PutResult is what became of one Record of a PutRecords.
type PutResult struct {
	Shard    string // its ID
	Sequence string
	Err      error
}

// GotRecord is a record as a shard has it. Its data are shared and must not be changed.
type GotRecord struct {
	Record   // GetRecords sets HashKey always; a Consumer has none
	Sequence string
	Arrived  time.Time
	at       pos
}

// Shard is a part of a stream: the records whose keys hash into its range, while it was open.
type Shard struct {
	ID          string
	Parents     []string // that were closed for it; two where it was made by merging
	First, Last string   // hash keys, decimal; both are its own
	Begin       string   // sequence number; its records have greater ones
	End         string   // of a closed one: its records have lesser ones
	Closed      time.Time
}

// StreamStatus is what is known of a stream.
type StreamStatus struct {
	Stream
	Created time.Time
	Changed time.Time
	List    []Shard // open ones, and closed ones whose records may be there yet; by ID
	Records int     // within the retention
}

// pos is where an item stands in the log of its Partition: the block's number and the item's in it, in one number that rises.
type pos int64

func posOf(seq uint64, idx int) pos { return pos(seq)*maxItems + pos(idx) }

func (p pos) seq() uint64 { return uint64(p / maxItems) }

// sequencePrefix makes sequence numbers as long as those of Kinesis and DynamoDB Streams have to be, and lets them begin with no zero.
const sequencePrefix = "49"

// sequence is the sequence number of a record: 22 digits, so that the order of texts is that of numbers.
func (p pos) sequence() string { return fmt.Sprintf(sequencePrefix+"%020d", int64(p)) }

func parseSequence(s string) (pos, error) {
	digits, ok := strings.CutPrefix(s, sequencePrefix)
	n, err := strconv.ParseUint(digits, 10, 63)
	if !ok || len(digits) != 20 || err != nil {
		return 0, errs.New(errs.Invalid, "%q is not a sequence number of a stream", clip(s))
	}
	return pos(n), nil
}

// hashKey is a place in the range of 128 bits over which a stream's records are spread.
type hashKey [16]byte

var lastHash = hashKey(bytes.Repeat([]byte{0xff}, 16))

func hashOfKey(key string) hashKey { return md5.Sum([]byte(key)) } //nolint:gosec // spreads, and protects nothing

func (h hashKey) compare(to hashKey) int { return bytes.Compare(h[:], to[:]) }

// String writes it in decimal.
func (h hashKey) String() string { return new(big.Int).SetBytes(h[:]).String() }

// MarshalText writes it in hexadecimal.
func (h hashKey) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText reads what MarshalText wrote.
func (h *hashKey) UnmarshalText(b []byte) error {
	if len(b) != 2*len(h) {
		return errs.New(errs.Failed, "a hash key has %d digits", len(b))
	}
	_, err := hex.Decode(h[:], b)
	return err
}

func parseHashKey(s string) (h hashKey, err error) {
	n, ok := new(big.Int).SetString(s, 10)
	if !ok || n.Sign() < 0 || n.BitLen() > 128 || s[0] == '+' || s[0] == '-' || len(s) > 39 {
		return h, errs.New(errs.Invalid, "%q is not a hash key: a number from 0 to 2^128-1", clip(s))
	}
	n.FillBytes(h[:])
	return h, nil
}

// hashRanges cuts the range of all hashes into n equal parts.
func hashRanges(n int) (out [][2]hashKey) {
	all := new(big.Int).Lsh(big.NewInt(1), 128)
	at := func(i int) *big.Int {
		v := new(big.Int).Mul(all, big.NewInt(int64(i)))
		return v.Div(v, big.NewInt(int64(n)))
	}
	for i := range n {
		var r [2]hashKey
		at(i).FillBytes(r[0][:])
		new(big.Int).Sub(at(i+1), big.NewInt(1)).FillBytes(r[1][:])
		out = append(out, r)
	}
	return out
}

// streamState is a stream as the fold keeps it.
type streamState struct {
	Stream Stream  `json:"stream"`
	Shards []shard `json:"shards"` // by number
	Next   int     `json:"next"`   // number of the next shard
	// Turning says that the shards are about to change: who puts records has to ask in which they are.
	Turning bool `json:"turning,omitempty"`
}

// shard is one of a stream. It holds what stands behind Begin and, when it is closed, before End.
type shard struct {
	N       int     `json:"n"`
	Parents []int   `json:"p,omitempty"`
	First   hashKey `json:"f"`
	Last    hashKey `json:"l"`
	Begin   pos     `json:"b"`
	End     pos     `json:"e,omitempty"` // 0 while it is open
	Closed  int64   `json:"c,omitempty"` // ms
}

func (s *shard) has(h hashKey) bool { return h.compare(s.First) >= 0 && h.compare(s.Last) <= 0 }

// holds tells whether a record with the hash at the place is the shard's.
func (s *shard) holds(h hashKey, at pos) bool {
	return at > s.Begin && (s.End == 0 || at < s.End) && s.has(h)
}

// shardName is a shard's ID by its number.
func shardName(n int) string { return fmt.Sprintf("shardId-%012d", n) }

func parseShard(id string) (int, error) {
	digits, ok := strings.CutPrefix(id, "shardId-")
	n, err := strconv.ParseUint(digits, 10, 31)
	if !ok || err != nil || shardName(int(n)) != id {
		return 0, errs.New(errs.Invalid, "%q is not the ID of a shard", clip(id))
	}
	return int(n), nil
}

func (s *streamState) shard(n int) *shard {
	i, ok := slices.BinarySearchFunc(s.Shards, n, func(h shard, n int) int { return h.N - n })
	if !ok {
		return nil
	}
	return &s.Shards[i]
}

// open gives the open shard of a hash; there always is one.
func (s *streamState) open(h hashKey) *shard {
	for i := range s.Shards {
		if s.Shards[i].End == 0 && s.Shards[i].has(h) {
			return &s.Shards[i]
		}
	}
	return nil
}

// opened counts the open shards.
func (s *streamState) opened() (n int) {
	for i := range s.Shards {
		if s.Shards[i].End == 0 {
			n++
		}
	}
	return n
}

// spread makes the stream have n open shards of equal ranges, if it has another number: a shard whose range stays is left alone, the others are closed, and
// are the parents of those that take their ranges.
func (s *streamState) spread(at pos, now int64, n int) {
	s.prune(now)
	if s.opened() == n {
		return
	}
	s.replace(at, now, hashRanges(n))
}

// replace closes the open shards that overlap with the ranges and have not just one of them, and opens others in their place.
func (s *streamState) replace(at pos, now int64, ranges [][2]hashKey) {
	old := len(s.Shards)
	for _, r := range ranges {
		fresh := shard{N: s.Next, First: r[0], Last: r[1], Begin: at}
		same := false
		for i := range s.Shards[:old] {
			h := &s.Shards[i]
			if h.End != 0 && h.End != at || h.Last.compare(r[0]) < 0 || h.First.compare(r[1]) > 0 {
				continue
			}
			if same = h.First == r[0] && h.Last == r[1]; same {
				break
			}
			fresh.Parents = append(fresh.Parents, h.N)
			h.End, h.Closed = at, now
		}
		if !same {
			s.Shards = append(s.Shards, fresh)
			s.Next++
		}
	}
	s.Stream.Shards = s.opened()
}

// prune forgets closed shards whose records are older than the retention.
func (s *streamState) prune(now int64) {
	s.Shards = slices.DeleteFunc(s.Shards, func(h shard) bool { return s.dead(&h, now) })
}

func (s *streamState) dead(h *shard, now int64) bool {
	return h.End != 0 && h.Closed < now-s.Stream.retention().Milliseconds()
}

// status gives the shards as callers see them.
func (s *streamState) status(now int64) (out []Shard) {
	for i := range s.Shards {
		h := &s.Shards[i]
		if s.dead(h, now) {
			continue
		}
		v := Shard{ID: shardName(h.N), First: h.First.String(), Last: h.Last.String(), Begin: h.Begin.sequence()}
		for _, p := range h.Parents {
			v.Parents = append(v.Parents, shardName(p))
		}
		if h.End != 0 {
			v.End, v.Closed = h.End.sequence(), time.UnixMilli(h.Closed).UTC()
		}
		out = append(out, v)
	}
	return out
}

// children are the shards that took a closed one's range.
func (s *streamState) children(n int) (out []int) {
	for i := range s.Shards {
		if slices.Contains(s.Shards[i].Parents, n) {
			out = append(out, s.Shards[i].N)
		}
	}
	return out
}

// From says where in a shard reading begins.
type From string

// The beginnings, as Kinesis calls them.
const (
	TrimHorizon   From = "TRIM_HORIZON"
	Latest        From = "LATEST"
	AtSequence    From = "AT_SEQUENCE_NUMBER"
	AfterSequence From = "AFTER_SEQUENCE_NUMBER"
	AtTimestamp   From = "AT_TIMESTAMP"
)

// Start is a place in a shard.
type Start struct {
	From     From
	Sequence string    // of AtSequence and AfterSequence
	Time     time.Time // of AtTimestamp
}

// iterator is what an iterator says.
type iterator struct {
	part   int
	stream int64
	shard  int
	next   pos
	made   int64 // ms
}

func (it iterator) String() string {
	h := func(n int64) string { return strconv.FormatInt(n, 36) }
	return strings.Join([]string{h(int64(it.part)), h(it.stream), h(int64(it.shard)), h(int64(it.next)), h(it.made)}, ".")
}

func parseIterator(s string) (iterator, error) {
	parts := strings.Split(s, ".")
	var n [5]uint64
	bad := len(parts) != len(n) || len(s) > 100
	for i := 0; i < len(n) && !bad; i++ {
		var err error
		n[i], err = strconv.ParseUint(parts[i], 36, 62)
		bad = err != nil
	}
	if bad || n[0] > 1<<20 || n[2] > 1<<31 {
		return iterator{}, errs.New(errs.Invalid, "%q is not an iterator of a stream", clip(s))
	}
	return iterator{int(n[0]), int64(n[1]), int(n[2]), pos(n[3]), int64(n[4])}, nil
}
