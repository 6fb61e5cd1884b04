// Package audit keeps who changed what and who was refused, in logs that only grow.
//
// Main types: [Log], a chain of Records; [Record]; [Denials], which counts what would flood one; [Store], what a Log is kept in.
//
// Guarantees:
//
//  1. What [Log.Append] has returned for is in the Store, behind all that was before it.
//  2. Each Record carries the hash of the one before it and one of its own, under a key: who changes, reorders, inserts or takes away
//     Records without the key is found by [Log.Verify]. Records that the Store has dropped for their age or number are not missed;
//     those at the end that are taken away while nothing is added are found only by who has noted the [Head].
//  3. Of equal denials the first is written at once, and the others as one with their number in each further minute; of different ones
//     a bounded number is written in a minute, and the others are counted.
//
// It knows nothing of HTTP, of AWS and of where Records are kept. What is put into a Record is its caller's care: it hides nothing.
package audit

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

// Format is the version of stored Records. It rises with any change that an older ebb would misread.
const Format = 1

// The outcomes.
const (
	Begun  = "begun"  // of a change that is being made: its end is another Record
	Done   = "done"   // the change is made
	Denied = "denied" // it was refused to who asked
)

// Failed is the outcome of a change that was not made, or not whole.
func Failed(code string) string { return "failed: " + code }

// Record is one thing that happened. It is not changed once it is written.
type Record struct {
	Format  int       `json:"format"`
	Seq     uint64    `json:"seq"` // from 1, without gaps
	Time    time.Time `json:"time"`
	Who     string    `json:"who"`            // "local", "key 4f0c… (ci)", "function shop-dev-hello", "nobody"
	What    string    `json:"what"`           // "deploy", "sqs:PurgeQueue"
	On      string    `json:"on,omitempty"`   // what it is about: an ARN, an app and stage, a key's ID
	App     string    `json:"app,omitempty"`  // of which app that or who asks is
	From    string    `json:"from,omitempty"` // network address
	Outcome string    `json:"outcome"`
	Of      uint64    `json:"of,omitempty"`    // of an end: the Record of the begin
	Count   int       `json:"count,omitempty"` // of a denial: how many this one stands for, where it is more than one
	Text    string    `json:"text,omitempty"`  // why
	Prev    string    `json:"prev"`            // hash of the Record before; of the first: empty
}

// maxField bounds what a Record says of one thing, in bytes: others choose names.
const maxField = 512

// clip keeps a Record of what strangers send small, and of one line.
func (r *Record) clip() {
	for _, s := range []*string{&r.Who, &r.What, &r.On, &r.App, &r.From, &r.Outcome, &r.Text} {
		if len(*s) > maxField {
			*s = (*s)[:maxField] + "…"
		}
		*s = strings.ToValidUTF8(*s, "?")
	}
}

// Store keeps what is appended. Its methods may be called concurrently, from several Nodes too.
type Store interface {
	// Append writes data under the number seq, if the last number is the one before; else it is errs.Conflict. When it returns nil it is durable;
	// after another error it may be written all the same.
	Append(ctx context.Context, seq uint64, data []byte) error
	// Last gives what has the highest number; 0 where there is nothing.
	Last(ctx context.Context) (seq uint64, data []byte, err error)
	// Read calls each for all from a number on, in order; with follow for what comes too, until ctx ends. Less may be there: it begins at the first.
	Read(ctx context.Context, from uint64, follow bool, each func(seq uint64, data []byte) error) error
}

// Log is a chain of Records. Its methods may be called concurrently.
type Log struct {
	store Store
	key   []byte
	turn  chan struct{} // held by who appends
	last  Head          // owned by who has the turn; zero: not known
	known bool
}

// Head names the newest Record of a Log.
type Head struct {
	Seq  uint64 `json:"seq"`
	Hash string `json:"hash,omitempty"`
}

// New returns the Log with a name that is kept in a Store. key is a secret of the Node; Logs with other names have other hashes.
func New(s Store, name string, key []byte) *Log {
	h := hmac.New(sha256.New, key)
	h.Write([]byte("ebb audit log 1 " + name))
	return &Log{store: s, key: h.Sum(nil), turn: make(chan struct{}, 1)}
}

func (l *Log) hash(data []byte) string {
	h := hmac.New(sha256.New, l.key)
	h.Write(data)
	return hex.EncodeToString(h.Sum(nil))
}

// attempts bounds how often a Record is appended behind those that other Nodes append meanwhile.
const attempts = 20

// Append writes a Record behind all others and returns its number. It sets the fields of the chain, and the time where there is none.
func (l *Log) Append(ctx context.Context, r Record) (uint64, error) {
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return 0, fmt.Errorf("record %s: %w", r.What, ctx.Err())
	}
	defer func() { <-l.turn }()
	r.clip()
	if r.Format = Format; r.Time.IsZero() {
		r.Time = time.Now().UTC()
	}
	for range attempts {
		if !l.known {
			if err := l.load(ctx); err != nil {
				return 0, fmt.Errorf("record %s: %w", r.What, err)
			}
		}
		r.Seq, r.Prev = l.last.Seq+1, l.last.Hash
		data, err := json.Marshal(r)
		if err != nil {
			return 0, fmt.Errorf("record %s: %w", r.What, err)
		}
		sum := l.hash(data)
		err = l.store.Append(ctx, r.Seq, append(append(data, '\n'), sum...))
		if err == nil {
			l.last = Head{r.Seq, sum}
			return r.Seq, nil
		}
		l.known = false // it may have been written
		if errs.CodeOf(err) != errs.Conflict {
			return 0, fmt.Errorf("record %s: %w", r.What, err)
		}
	}
	return 0, errs.New(errs.Unavailable, "record %s: other nodes write without a pause", r.What)
}

// load finds the end of the chain.
func (l *Log) load(ctx context.Context) error {
	seq, data, err := l.store.Last(ctx)
	if err != nil {
		return err
	}
	l.last = Head{Seq: seq}
	if seq > 0 {
		_, sum, err := l.open(data)
		if err != nil { // what comes is chained to what is there: Verify says what is wrong with it
			sum = l.hash(data)
		}
		l.last.Hash = sum
	}
	l.known = true
	return nil
}

// open reads a Record that is stored. It is whole where err is nil.
func (l *Log) open(data []byte) (r Record, sum string, err error) {
	i := len(data) - hex.EncodedLen(sha256.Size) - 1
	if i < 0 || data[i] != '\n' {
		return r, "", errs.New(errs.Failed, "it is no record")
	}
	body := data[:i]
	sum = string(data[i+1:])
	if json.Unmarshal(body, &r) != nil {
		return r, "", errs.New(errs.Failed, "it is no record")
	}
	if !hmac.Equal([]byte(l.hash(body)), []byte(sum)) {
		return r, "", errs.New(errs.Failed, "its hash is not that of what it says")
	}
	return r, sum, nil
}

// Read calls each for the Records from a number on, those of a time and later; with follow for those that come too, until ctx ends. What is no whole
// Record is told by its Outcome.
func (l *Log) Read(ctx context.Context, from uint64, since time.Time, follow bool, each func(Record) error) error {
	return l.store.Read(ctx, from, follow, func(seq uint64, data []byte) error {
		r, _, err := l.open(data)
		if err != nil {
			r = Record{Seq: seq, Time: r.Time, What: "audit:damaged", Outcome: Failed("damaged"), Text: err.Error()}
		}
		if err == nil && r.Time.Before(since) {
			return nil
		}
		return each(r)
	})
}

// Report is what Verify finds.
type Report struct {
	Records int      `json:"records"`
	First   uint64   `json:"first"` // number of the first that is kept; those before it were dropped for their age or the number of all
	Head    Head     `json:"head"`
	Faults  []string `json:"faults,omitempty"` // what was tampered with, at most 20
}

// maxFaults is how many a Report names.
const maxFaults = 20

// Verify reads the whole chain and says where it does not hold. noted is a Head that was seen before, or zero: it has to be in the chain still.
// dropped says whether the Store may have dropped some for their age or number.
func (l *Log) Verify(ctx context.Context, noted Head, dropped bool) (*Report, error) {
	out := &Report{}
	fault := func(format string, args ...any) {
		if len(out.Faults) < maxFaults {
			out.Faults = append(out.Faults, fmt.Sprintf(format, args...))
		}
	}
	last, _, err := l.store.Last(ctx)
	if err != nil {
		return nil, err
	}
	if last == 0 {
		if noted.Seq > 0 {
			fault("record %d is gone, and all others", noted.Seq)
		}
		return out, nil
	}
	seen := noted.Seq == 0
	err = l.store.Read(ctx, 1, false, func(seq uint64, data []byte) error {
		r, sum, err := l.open(data)
		switch {
		case err != nil:
			fault("record %d: %v", seq, err)
			sum = l.hash(data)
		case r.Seq != seq:
			fault("record %d stands at the place of record %d", r.Seq, seq)
		case out.Records == 0 && seq == 1 && r.Prev != "":
			fault("record 1 follows another")
		case out.Records == 0 && seq > 1 && !dropped:
			fault("the records before %d are gone, for no reason of age or number", seq)
		case out.Records > 0 && seq != out.Head.Seq+1:
			fault("the records between %d and %d are gone", out.Head.Seq, seq)
		case out.Records > 0 && r.Prev != out.Head.Hash:
			fault("record %d does not follow the one before it", seq)
		}
		if out.Records == 0 {
			out.First = seq
		}
		if seq == noted.Seq {
			if seen = true; sum != noted.Hash {
				fault("record %d is not the one that was noted", seq)
			}
		}
		out.Records++
		out.Head = Head{seq, sum}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if out.Records == 0 && dropped {
		out.First, out.Head.Seq = last+1, last
	}
	if out.Head.Seq < last {
		fault("the records between %d and %d are gone", out.Head.Seq, last+1)
	}
	if !seen && (noted.Seq > out.Head.Seq || noted.Seq >= out.First) {
		fault("record %d, which was noted, is gone", noted.Seq)
	}
	return out, nil
}
