package bus

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
	"github.com/ebb-run/ebb/internal/seal"
)

// Options say how to open a Bus.
type Options struct {
	Dir         string        // folder of the index; made when missing
	Node        string        // name of this Node; empty means "ebb"
	Alone       bool          // no other Node can use the store: it is embedded. Leases are then taken at once
	Partitions  int           // of a new bus; 0 means 1 when alone, else 4. An existing one keeps its number
	Replicas    int           // of new streams; 0 means 1
	Limits      event.Limits  // of events; zero fields mean the defaults
	MaxData     int           // bytes of a message, publication or record; 0 means DefaultData, MaxData is the most
	DedupWindow time.Duration // 0 means 5 minutes, as SQS has it. The same on every Node
	Retention   time.Duration // how long the log is kept at least: archive, status, dead letters; 0 means 14 days
	MaxLog      int64         // bytes of each Partition's log; when it is full Publish is refused; 0 means no limit but the store's
	MaxHops     int           // longest chain of causes; 0 means 16. The same on every Node
	Lease       time.Duration // time to live of a lease; 0 means 30 s
	Compile     Compile       // nil: no filters
	Index       func() Index  // of the Filters that it takes; nil: all are asked one by one
	Deliver     Deliverer     // nil: nothing is delivered
	Ended       Ended         // told of each delivery that ends; nil is not
	Log         *slog.Logger  // nil drops it
	Seal        *seal.Box     // what the index is sealed by; nil for none

	// Passing is told of every passage of a Point, and may end the process there; nil in production.
	Passing func(Point)

	// Now is the clock of schedules alone; nil means the system's. It may jump: it is asked again every second or two.
	Now func() time.Time

	wall        func() time.Time // the clock of all but schedules; nil means the system's
	check       time.Duration    // the longest between two looks at Now; 0 means 2 s
	sweepQueues time.Duration    // between looks for messages that have expired; 0 means 30 s
	sendsKept   time.Duration    // how long a block of messages is told from one that was written twice; 0 means 2 minutes
	chunksKept  time.Duration    // how long chunks of data are kept that nothing refers to; 0 means chunksKept
	maxFlows    int              // of a day in one Partition; 0 means maxFlows

	sweep time.Duration // between removals of what is old; 0 means a fiftieth of the retention, between a minute and an hour
}

func (o Options) orDefaults() Options {
	if o.Node == "" {
		o.Node = "ebb"
	}
	if o.Partitions <= 0 {
		o.Partitions = 4
		if o.Alone { // more would share one disk, and make smaller blocks
			o.Partitions = 1
		}
	}
	o.Replicas = max(o.Replicas, 1)
	d := event.DefaultLimits()
	if o.Limits.Event <= 0 {
		o.Limits.Event = d.Event
	}
	if o.Limits.Events <= 0 {
		o.Limits.Events = d.Events
	}
	if o.Limits.Batch <= 0 {
		o.Limits.Batch = d.Batch
	}
	if o.MaxData <= 0 {
		o.MaxData = DefaultData
	}
	o.MaxData = min(o.MaxData, MaxData)
	o.Limits.Event = min(o.Limits.Event, 2*MaxData)
	for _, f := range []struct {
		v   *time.Duration
		def time.Duration
	}{{&o.DedupWindow, 5 * time.Minute}, {&o.Retention, 14 * 24 * time.Hour}, {&o.Lease, 30 * time.Second}} {
		if *f.v <= 0 {
			*f.v = f.def
		}
	}
	o.Retention = max(o.Retention, o.DedupWindow) // what tells duplicates must be in the log
	if o.sweep <= 0 {
		o.sweep = min(max(o.Retention/50, time.Minute), time.Hour)
	}
	if o.sendsKept <= 0 {
		o.sendsKept = 8 * appendWait // who writes a block twice gives up long before
	}
	if o.chunksKept <= 0 {
		o.chunksKept = chunksKept
	}
	if o.sweepQueues <= 0 {
		o.sweepQueues = 30 * time.Second
	}
	if o.maxFlows <= 0 {
		o.maxFlows = maxFlows
	}
	if o.MaxHops <= 0 {
		o.MaxHops = 16
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.wall == nil {
		o.wall = time.Now
	}
	if o.check <= 0 {
		o.check = 2 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Bus is the open event bus. Its methods may be called concurrently.
type Bus struct {
	opt    Options
	js     jetstream.JetStream
	kv     jetstream.KeyValue // leases and bases
	parts  []*partition
	once   sync.Once
	wait   sync.WaitGroup
	end    context.CancelFunc
	quiet  atomic.Bool // nothing more is handed to the Deliverer
	known  knownQueues
	met    knownStreams
	topics knownTopics
}

// partition is one part of the log.
type partition struct {
	num    int
	stream jetstream.Stream
	log    *appender
	bodies *blocks
	mu     struct {
		sync.Mutex
		own *owner // while this Node owns it
	}
}

const (
	bucketName  = "ebb_bus"
	metaFormat  = "ebb.format"
	metaParts   = "ebb.partitions"
	streamName  = "EBB_BUS_"
	logSubject  = "ebb.bus.log."
	asksSubject = "ebb.bus.ask."
)

// Format is the version of streams and bucket.
const Format = 1

// Open opens the streams of the log, making them when they are missing. Publishing works then; Run delivers.
func Open(ctx context.Context, js jetstream.JetStream, o Options) (*Bus, error) {
	o = o.orDefaults()
	if o.Dir == "" {
		return nil, errs.New(errs.Invalid, "open event bus: no folder given for the index")
	}
	b := &Bus{opt: o, js: js}
	if err := b.open(ctx); err != nil {
		return nil, err
	}
	run, end := context.WithCancel(context.Background())
	b.end = end
	for _, p := range b.parts {
		b.wait.Go(func() { p.log.run(run) })
	}
	if o.MaxLog > 0 {
		b.wait.Go(func() { b.measure(run) })
	}
	return b, nil
}

func (b *Bus) open(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*appendWait)
	defer cancel()
	n, err := b.openBucket(ctx)
	if err != nil {
		return err
	}
	for i := range n {
		cfg := jetstream.StreamConfig{
			Name:        streamName + strconv.Itoa(i),
			Description: "ebb event log",
			Subjects:    []string{logSubject + strconv.Itoa(i)},
			Storage:     jetstream.FileStorage,
			Replicas:    b.opt.Replicas,
			MaxBytes:    -1,
			Discard:     jetstream.DiscardNew,
			Duplicates:  time.Second, // message ids are not used
			DenyDelete:  true,
			Metadata:    map[string]string{metaFormat: strconv.Itoa(Format)},
			AllowDirect: b.opt.Replicas == 1, // a copy that is behind would say that a block is not there
		}
		if b.opt.MaxLog > 0 {
			cfg.MaxBytes = b.opt.MaxLog + b.opt.MaxLog/4 + 1<<20 // above it, room for outcomes
		}
		s, err := b.js.Stream(ctx, cfg.Name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			s, err = b.js.CreateStream(ctx, cfg)
			if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // made by another Node meanwhile
				s, err = b.js.Stream(ctx, cfg.Name)
			}
		}
		if err != nil {
			return fault(fmt.Sprintf("open partition %d of the event log", i), err)
		}
		have := s.CachedInfo().Config
		if direct := have.Replicas <= 1; have.MaxBytes != cfg.MaxBytes || have.AllowDirect != direct {
			have.MaxBytes, have.AllowDirect = cfg.MaxBytes, direct
			if s, err = b.js.UpdateStream(ctx, have); err != nil {
				return fault(fmt.Sprintf("set up partition %d of the event log", i), err)
			}
		}
		p := &partition{num: i, stream: s, log: newAppender(b.js, cfg.Subjects[0]), bodies: newBlocks(s)}
		p.log.limit, p.log.kept = b.opt.MaxLog, b.opt.chunksKept
		p.log.used.Store(int64(s.CachedInfo().State.Bytes))
		b.parts = append(b.parts, p)
	}
	return nil
}

// openBucket opens the bucket of leases and tells the number of Partitions, which it records.
func (b *Bus) openBucket(ctx context.Context) (int, error) {
	var err error
	b.kv, err = b.js.KeyValue(ctx, bucketName)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		b.kv, err = b.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: bucketName, Description: "ebb event bus", History: 1, Replicas: b.opt.Replicas,
			Metadata: map[string]string{metaFormat: strconv.Itoa(Format), metaParts: strconv.Itoa(b.opt.Partitions)},
		})
		if errors.Is(err, jetstream.ErrBucketExists) {
			b.kv, err = b.js.KeyValue(ctx, bucketName)
		}
	}
	if err != nil {
		return 0, fault("open event bus", err)
	}
	s, err := b.js.Stream(ctx, "KV_"+bucketName)
	if err != nil {
		return 0, fault("open event bus", err)
	}
	meta := s.CachedInfo().Config.Metadata
	format, err := strconv.Atoi(meta[metaFormat])
	parts, perr := strconv.Atoi(meta[metaParts])
	switch {
	case err != nil || perr != nil || parts < 1:
		return 0, errs.New(errs.Failed, "the bucket %s was not made by ebb", bucketName).
			WithHint("Give ebb a NATS account of its own, or put back a backup.")
	case format > Format:
		return 0, errs.New(errs.Unsupported, "the event bus has format %d; this ebb knows up to %d", format, Format).
			WithHint("Use the ebb that wrote it, or a newer one. Nothing was changed.")
	}
	return parts, nil
}

// Close ends publishing. Run has to have returned. What waits to be written gets an error.
func (b *Bus) Close() error {
	b.once.Do(func() {
		for _, p := range b.parts {
			close(p.log.stop)
		}
		b.end()
		b.wait.Wait()
	})
	return nil
}

// measure follows the size of the log, which other Nodes write to and purges make smaller.
func (b *Bus) measure(ctx context.Context) {
	for {
		pause(ctx, time.Second)
		if ctx.Err() != nil {
			return
		}
		for _, p := range b.parts {
			if info, err := p.stream.Info(ctx); err == nil {
				p.log.used.Store(int64(info.State.Bytes))
			}
		}
	}
}

// Partitions is the number of parts of the log.
func (b *Bus) Partitions() int { return len(b.parts) }

// hash names an event by channel, source and id.
type hash [16]byte

func hashOf(channel, source, id string) hash {
	h := sha256.New()
	for _, part := range []string{channel, source, id} {
		var n [8]byte
		binary.LittleEndian.PutUint64(n[:], uint64(len(part)))
		_, _ = h.Write(n[:])
		_, _ = h.Write([]byte(part))
	}
	return hash(h.Sum(nil)[:16])
}

func hashEvent(e *event.Event) hash { return hashOf(e.Extension(Channel), e.Source, e.ID) }

// Channel is the extension that says where an event is published: an event and a Subscription meet only on the same channel. Absent is the
// channel with the empty name.
const Channel = "ebbchannel"

// PartitionKey is the extension by which events are ordered: CloudEvents extension "Partitioning".
const PartitionKey = "partitionkey"

// Hops is the extension that counts the events in the chain of causes of an event, 0 or absent for one without a cause.
const Hops = "ebbhops"

// hops reads the extension; what is no number counts as none.
func hops(e *event.Event) int {
	switch v := e.Extensions[Hops].(type) {
	case int32:
		return int(v)
	case string:
		n, err := strconv.Atoi(v)
		if err != nil {
			return 0
		}
		return n
	}
	return 0
}

// Caused marks e as caused by cause: the chain is one longer, and the trace goes on.
func Caused(e, cause *event.Event) {
	e.SetExtension(Hops, int32(min(hops(cause)+1, 1<<30)))
	if e.Extensions[TraceParent] == nil {
		e.SetExtension(TraceParent, TraceContext(cause))
	}
	if v, ok := cause.Extensions["tracestate"]; ok && e.Extensions["tracestate"] == nil {
		e.SetExtension("tracestate", v)
	}
}

// partitionOf chooses the part of the log.
func (b *Bus) partitionOf(e *event.Event, h hash) *partition {
	if key := e.Extension(PartitionKey); key != "" {
		h = hashOf(PartitionKey, e.Extension(Channel), key)
	}
	return b.parts[binary.LittleEndian.Uint64(h[8:])%uint64(len(b.parts))]
}
