// Package state keeps the control-plane records: which Deployments a Stack has, and which one is current.
//
// Main type: [Store], made by [Open] over a JetStream key-value bucket that all Nodes of a Cluster share.
//
// Guarantees:
//
//  1. A Deployment is immutable once Put has returned, and what Put or SetCurrent acknowledged is on disk
//     (as far as the bucket's server syncs; package nats sees to that for the embedded one).
//  2. The current Deployment of a Stack changes by compare-and-set of one Pointer; a lost race is errs.Conflict.
//  3. What an App holds (environment values, properties, code locations) is sealed with AES-256-GCM under the key given to
//     Open. In clear are names, times, who deployed with which message, counts and digests.
//  4. A record that was changed, moved to another key or cut is refused, never returned in part.
//  5. Bucket and records carry a format version; a newer one is refused untouched. A bucket sealed with another key too.
//  6. Every call ends within a bound of its own when the store does not answer, whatever the context.
//  7. There is no goroutine, watch or consumer per Stack.
//
// It starts no server, stores no code (package artifact does), and does not decide what runs. It does not order a Remove
// against a SetCurrent of the same Stack from another caller: that one's caller does.
package state

import (
	"context"
	"crypto/cipher"
	"errors"
	"fmt"
	"strconv"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/errs"
)

// DefaultTenant owns everything until more Tenants exist.
const DefaultTenant = "default"

// StackKey names one App at one Stage of one Tenant. Any text that is not empty is allowed in each part.
type StackKey struct{ Tenant, App, Stage string }

// String gives the key for people: "app/stage", with the Tenant in front unless it is the default one.
func (k StackKey) String() string {
	if k.Tenant == DefaultTenant {
		return k.App + "/" + k.Stage
	}
	return k.Tenant + "/" + k.App + "/" + k.Stage
}

// Unit is what one Instance of a Deployment runs.
type Unit struct {
	Key      string   `json:"key"`                // of the Function
	Revision string   `json:"revision"`           // digest of code and configuration
	Code     string   `json:"code"`               // digest of the Artifact
	Layers   []string `json:"layers,omitempty"`   // digests, first the one declared first
	Opt      string   `json:"opt,omitempty"`      // digest of Layers laid over each other, or empty where there are none
	Supplied string   `json:"supplied,omitempty"` // digest of the supplied SDKs, or empty
	Runtime  string   `json:"runtime"`
	Handler  string   `json:"handler"`
}

// Deployment is everything a Stack was at one time. It is immutable once written.
type Deployment struct {
	ID      string // sortable by time; made by Put when empty
	Stack   StackKey
	Created time.Time // set by Put when zero
	By      string    // who deployed
	Message string
	Parent  string // ID of the one that was current before, or empty
	App     *app.App
	Units   []Unit
}

// Pointer says which Deployment of a Stack is current. The zero Pointer means that there is none.
type Pointer struct {
	Deployment string
	Previous   string // the one before, or empty
	Changed    time.Time
	Seq        uint64 // of this state of the Pointer, for SetCurrent
}

// Summary is what is known of a Deployment without opening it.
type Summary struct {
	ID        string
	Created   time.Time
	By        string
	Message   string
	Functions int
	Current   bool
}

// Options say how to open a Store.
type Options struct {
	Key      []byte           // 32 bytes, see LoadKey
	Replicas int              // of a new bucket in a Cluster; 0 means 1
	History  int              // Deployments kept per Stack; 0 means 20
	Now      func() time.Time // the clock; nil means time.Now
}

// Store is the open control state. Its methods may be called concurrently, from several Nodes too.
type Store struct {
	kv      jetstream.KeyValue
	stream  jetstream.Stream
	conn    *natsgo.Conn
	aead    cipher.AEAD
	history int
	now     func() time.Time
}

const (
	bucketName = "ebb_state"
	streamName = "KV_" + bucketName // fixed by the key-value layout of JetStream
	subjects   = "$KV." + bucketName + "."

	metaFormat = "ebb.format"
	metaKey    = "ebb.key"
)

// Format is the version of bucket and records. It rises with any change that an older ebb would misread,
// a new field of the App model included.
const Format = 1

// callTimeout bounds each call on the store: the election of a new leader in a Cluster takes 4 to 8 s.
const callTimeout = 15 * time.Second

// Open opens the bucket, making it when it is missing. It holds nothing that needs closing.
func Open(ctx context.Context, js jetstream.JetStream, o Options) (*Store, error) {
	aead, err := newAEAD(o.Key)
	if err != nil {
		return nil, err
	}
	s := &Store{aead: aead, history: o.History, now: o.Now, conn: js.Conn()}
	if s.history <= 0 {
		s.history = 20
	}
	if s.now == nil {
		s.now = time.Now
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s.kv, err = js.KeyValue(ctx, bucketName)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		s.kv, err = js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket:      bucketName,
			Description: "ebb control state",
			History:     1,
			Replicas:    max(o.Replicas, 1),
			Metadata:    map[string]string{metaFormat: strconv.Itoa(Format), metaKey: fingerprint(o.Key)},
		})
		if errors.Is(err, jetstream.ErrBucketExists) { // made by another Node meanwhile
			s.kv, err = js.KeyValue(ctx, bucketName)
		}
	}
	if err != nil {
		return nil, fault("open control state", err)
	}
	if s.stream, err = js.Stream(ctx, streamName); err != nil {
		return nil, fault("open control state", err)
	}
	if err := checkBucket(s.stream.CachedInfo().Config.Metadata, o.Key); err != nil {
		return nil, err
	}
	return s, s.readFromLeader(ctx, js)
}

// readFromLeader makes reads of a replicated bucket see every write that was acknowledged before: with direct gets, which
// key-value buckets have, any replica answers, also one that is behind.
func (s *Store) readFromLeader(ctx context.Context, js jetstream.JetStream) error {
	cfg := s.stream.CachedInfo().Config
	if cfg.Replicas < 2 || !cfg.AllowDirect {
		return nil
	}
	cfg.AllowDirect = false
	_, err := js.UpdateStream(ctx, cfg)
	if err == nil {
		s.kv, err = js.KeyValue(ctx, bucketName)
	}
	if err != nil {
		return fault("open control state", err)
	}
	return nil
}

func checkBucket(meta map[string]string, key []byte) error {
	v, err := strconv.Atoi(meta[metaFormat])
	switch {
	case err != nil:
		return errs.New(errs.Failed, "the bucket %s carries no format version", bucketName).
			WithHint("It was not made by ebb. Give ebb a NATS account of its own, or put back a backup.")
	case v > Format:
		return newer("control state", v)
	case meta[metaKey] != fingerprint(key):
		return errs.New(errs.Forbidden, "the control state was sealed with another key").
			WithHint("Put back the key file that belongs to this data directory; without it the deployments cannot be read.")
	}
	return nil
}

func newer(what string, v int) error {
	return errs.New(errs.Unsupported, "%s has format %d; this ebb knows up to %d", what, v, Format).
		WithHint("Use the ebb that wrote it, or a newer one. Nothing was changed.")
}

// bound limits a call, so that a store that is gone is an error and no hang.
func bound(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, callTimeout, errSilent)
}

var errSilent = errors.New("the store does not answer")

// Codes of JetStream's API that mean a lack of room: JSInsufficientResourcesErr, JSStorageResourcesExceededErr,
// JSStreamStoreFailedF.
const (
	apiResources   jetstream.ErrorCode = 10023
	apiStorage     jetstream.ErrorCode = 10047
	apiStoreFailed jetstream.ErrorCode = 10077
)

// mend is the hint for a store that does not work; the log of the server has the cause.
const mend = "Its disk may be full or have failed, or a Cluster has no majority. Mend that; ebb then goes on by itself, and what was acknowledged is kept."

// fault wraps an error of the store with the step and, where the cause is known, code and mend.
func fault(step string, err error) error {
	var api *jetstream.APIError
	switch {
	case errors.As(err, &api) && (api.ErrorCode == apiResources || api.ErrorCode == apiStorage || api.ErrorCode == apiStoreFailed):
		return errs.New(errs.Unavailable, "%s: the store has no room: %w", step, err).
			WithHint("Free some space on the disk of the data directory, or raise the store's limit, and try again.")
	case errors.Is(err, natsgo.ErrNoResponders), errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrNoStreamResponse):
		return errs.New(errs.Unavailable, "%s: the store takes no calls: %w", step, err).
			WithHint("%s", mend)
	case errors.Is(err, natsgo.ErrReconnectBufExceeded): // nothing is kept for a store that is gone
		return errs.New(errs.Unavailable, "%s: the store takes no writes now", step).WithHint("%s", mend)
	case errors.Is(err, natsgo.ErrConnectionClosed), errors.Is(err, natsgo.ErrConnectionDraining), errors.Is(err, natsgo.ErrDisconnected),
		errors.Is(err, natsgo.ErrTimeout), errors.Is(err, natsgo.ErrConnectionReconnecting):
		return errs.New(errs.Unavailable, "%s: the store is not reachable: %w", step, err).WithHint("%s", mend)
	}
	return fmt.Errorf("%s: %w", step, err)
}

// fail is fault for a call with a bounded context.
func fail(ctx context.Context, step string, err error) error {
	if errors.Is(err, context.DeadlineExceeded) && errors.Is(context.Cause(ctx), errSilent) {
		return errs.New(errs.Unavailable, "%s: %w", step, errSilent).WithHint("%s", mend)
	}
	return fault(step, err)
}
