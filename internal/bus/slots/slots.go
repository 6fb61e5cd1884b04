// Package slots shares ceilings among Nodes: each Node leases a part of a ceiling for as long as it uses it, so that what runs on all
// Nodes together stays within it, and none of them asks another before each run.
//
// Main type: [Slots], made by [Open] over a key-value bucket of JetStream; [Slots.Share] gives the [Pool] of one ceiling.
//
// Guarantees:
//
//  1. The leases of all Nodes on one ceiling are never more than it, as long as the Nodes agree on what the ceiling is.
//  2. A Node that cannot renew its leases starts nothing more after two thirds of their time to live; others take them over after the whole of it.
//     Each counts on its own clock. What runs by then goes on: its own deadline ends it.
//  3. A Node that waits gets a share although others would use all: who has more than its part starts nothing until it has not.
//  4. A ceiling that nobody uses costs no message and no goroutine.
//
// # Design
//
// A ceiling is one key, whose value has each Node's lease, whether that Node waits for more, and a number that rises with each of its writes. A write names the revision
// that it follows, so the sum is checked against what really stands. Who has seen the same number of another Node for the whole time to live takes it for gone.
// What others write is watched, so that a Node that waits, or has to give way, knows within milliseconds.
//
// It knows nothing of what runs: functions, queues and deadlines are the caller's.
package slots

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"regexp"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ebb-run/ebb/internal/errs"
)

const bucketName = "ebb_slots"

// Options say who shares. Node is required.
type Options struct {
	Node     string        // this one's name, its own among all
	TTL      time.Duration // of a lease; default 30 s
	Replicas int           // of the bucket, where it is made; default 1
	Log      *slog.Logger

	idle time.Duration // how long slots that are not used are kept; 0 means TTL, so that a Node which is called now and then outlasts a store without a leader
}

// Slots has a Node's leases.
type Slots struct {
	o    Options
	kv   jetstream.KeyValue
	ctx  context.Context // ends with Close
	stop context.CancelFunc
	wait sync.WaitGroup
	mu   struct {
		sync.Mutex
		pools  map[string]*Pool
		closed bool
	}
}

// Open makes or opens the bucket.
func Open(ctx context.Context, js jetstream.JetStream, o Options) (*Slots, error) {
	if o.TTL <= 0 {
		o.TTL = 30 * time.Second
	}
	if o.idle <= 0 {
		o.idle = o.TTL
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	kv, err := js.KeyValue(ctx, bucketName)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		kv, err = js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: bucketName, Description: "ebb shared ceilings", History: 1, Replicas: max(o.Replicas, 1),
			TTL: max(20*o.TTL, time.Minute), // what a Node left that never came back
		})
		if errors.Is(err, jetstream.ErrBucketExists) {
			kv, err = js.KeyValue(ctx, bucketName)
		}
	}
	if err != nil {
		return nil, errs.New(errs.Unavailable, "open the bucket of shared ceilings: %w", err)
	}
	s := &Slots{o: o, kv: kv}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.mu.pools = map[string]*Pool{}
	return s, nil
}

// Close gives all leases back.
func (s *Slots) Close() error {
	s.mu.Lock()
	s.mu.closed = true
	s.mu.Unlock()
	s.stop()
	s.wait.Wait()
	return nil
}

var keyRE = regexp.MustCompile(`^[-/_a-zA-Z0-9]{1,200}$`)

// keyOf is a name as a key of the bucket, which takes few characters.
func keyOf(name string) string {
	if keyRE.MatchString(name) {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return "=" + hex.EncodeToString(sum[:])
}

// lease is what a Node has of a ceiling.
type lease struct {
	Slots int    `json:"n"`
	Short bool   `json:"w,omitempty"` // something waits for more
	Beat  uint64 `json:"b"`           // rises with each write of this Node
}

// record is the value of a key: leases by Node.
type record map[string]lease

func parse(data []byte) record {
	r := record{}
	_ = json.Unmarshal(data, &r) // what cannot be read counts as empty, and is written anew
	return r
}

// Share begins to share the ceiling of that name among all Nodes that do so. give is called, by one goroutine at a time and never from within a method of Pool, with
// how many may run on this Node from then on and until when that holds; it answers how many do run.
func (s *Slots) Share(name string, ceiling int, give func(n int, until time.Time) (running int)) *Pool {
	p := &Pool{s: s, key: keyOf(name), give: give, poked: make(chan struct{}, 1)}
	p.mu.ceiling = ceiling
	return p
}
