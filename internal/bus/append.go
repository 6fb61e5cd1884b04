package bus

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ebb-run/ebb/internal/errs"
)

// recordOverhead is what a message takes in the store besides its data, about.
const recordOverhead = 64

const (
	// maxBlock keeps a block below the servers' default payload limit of 1 MB.
	maxBlock = 900 << 10
	// maxWaiting bounds the bytes of a Partition that wait to be written; then publishers wait.
	maxWaiting = 16 << 20
	// answerWait bounds one try of an append; appendWait all of them: the election of a new leader in a cluster takes 4 to 8 s.
	answerWait = 5 * time.Second
	appendWait = 15 * time.Second
)

// appender writes one Partition's log. All that comes while a block is being written goes into the next one.
type appender struct {
	js      jetstream.JetStream
	subject string
	queue   chan *request
	stop    chan struct{} // closed at the end of the Bus
	room    budget
	joined  struct { // events that wait to be written, by hash: a second of them waits for the first
		sync.Mutex
		m map[hash]*request
	}
	limit  int64           // bytes of the log at which events are refused; 0 means none
	used   atomic.Int64    // bytes of the log, roughly
	kept   time.Duration   // how long chunks of data are that nothing refers to
	blocks func(items int) // told of every block; for tests, or nil
}

// request is what one caller appends; it stays together, in one block.
type request struct {
	items []item
	size  int
	hash  hash // of its only event, or zero
	must  bool // it is taken when the log is full
	done  chan struct{}
	// Set before done is closed.
	seq   uint64
	first int // number of the first item in the block
	err   error
}

// place is where an item stands in the log.
type place struct {
	seq   uint64
	first int
}

func newAppender(js jetstream.JetStream, subject string) *appender {
	a := &appender{js: js, subject: subject, kept: chunksKept, queue: make(chan *request, 4096), stop: make(chan struct{})}
	a.room.max = maxWaiting
	a.joined.m = map[hash]*request{}
	return a
}

// errMoved is the answer of an owner that ended while a call waited: another one, here or elsewhere, serves the partition next.
var errMoved = errs.New(errs.Unavailable, "this node does not serve the partition any more").WithHint("Try again in a moment.")

var errClosed = errs.New(errs.Unavailable, "the event bus is closed")

// append returns when the items are durable. Its error leaves open whether they are: a caller may repeat it, and the fold
// drops what stands in the log twice.
func (a *appender) append(ctx context.Context, items []item) (place, error) {
	r := &request{items: items, done: make(chan struct{})}
	if err := a.enqueue(ctx, r); err != nil {
		return place{}, err
	}
	return a.wait(ctx, r)
}

// appendOnce appends an event unless the same one waits to be written already; then it waits with that one.
func (a *appender) appendOnce(ctx context.Context, it item, h hash) (_ place, dup bool, _ error) {
	r := &request{items: []item{it}, hash: h, done: make(chan struct{})}
	a.joined.Lock()
	if first, ok := a.joined.m[h]; ok {
		a.joined.Unlock()
		p, err := a.wait(ctx, first)
		return p, err == nil, err
	}
	a.joined.m[h] = r
	a.joined.Unlock()
	if err := a.enqueue(ctx, r); err != nil {
		// Those that have joined meanwhile get the error too, as a refusal that may be repeated.
		r.err = errs.New(errs.Throttled, "the event bus is full: the same event of another caller was refused")
		a.forget(r)
		close(r.done)
		return place{}, false, err
	}
	p, err := a.wait(ctx, r)
	return p, false, err
}

func (a *appender) forget(r *request) {
	if r.hash == (hash{}) {
		return
	}
	a.joined.Lock()
	defer a.joined.Unlock()
	delete(a.joined.m, r.hash)
}

// enqueue puts a request behind those that wait; large data of its items are durable then.
func (a *appender) enqueue(ctx context.Context, r *request) error {
	if err := a.store(ctx, r.items); err != nil {
		return err
	}
	for _, it := range r.items {
		r.size += it.size()
	}
	// Outcomes and requests are taken up to the stream's own limit: what was accepted must be able to end.
	if used := a.used.Load() + int64(r.size); a.limit > 0 && used > a.limit && !r.must && r.items[0].kind.adds() {
		return errs.New(errs.Unavailable, "the event log is full: it has %d MB, the limit is %d MB", a.used.Load()>>20, a.limit>>20).
			WithHint("It empties as deliveries end and the retention passes. Raise the limit, or mend what does not take its deliveries.")
	}
	if r.size > maxBlock || len(r.items) > maxItems {
		return errs.New(errs.TooLarge, "%d items of %d bytes do not fit into a block of the event log", len(r.items), r.size)
	}
	if err := a.room.take(ctx, r.size); err != nil {
		return errs.New(errs.Throttled, "the event bus is full: %d MB wait to be written: %w", maxWaiting>>20, err).
			WithHint("Try again later, or publish more slowly; the disk may be slow.")
	}
	select {
	case a.queue <- r:
		return nil
	case <-ctx.Done():
		a.room.give(r.size)
		return errs.New(errs.Throttled, "the event bus is full: %w", context.Cause(ctx)).WithHint("Try again later.")
	case <-a.stop:
		a.room.give(r.size)
		return errClosed
	}
}

func (a *appender) wait(ctx context.Context, r *request) (place, error) {
	select {
	case <-r.done:
		return place{r.seq, r.first}, r.err
	case <-ctx.Done():
		return place{}, errs.New(errs.CodeOf(context.Cause(ctx)), "wait for the event log: %w", context.Cause(ctx))
	case <-a.stop:
		return place{}, errClosed
	}
}

// run writes blocks until the Bus ends.
func (a *appender) run(ctx context.Context) {
	var next *request // did not fit into the block before
	var buf []byte
	for {
		block, size := []*request(nil), 1
		if next == nil {
			select {
			case next = <-a.queue:
			case <-a.stop:
				return
			}
		}
		n := 0
		for next != nil && size+next.size <= maxBlock && n+len(next.items) <= maxItems {
			if a.late(next) {
				a.finish(next, 0, errs.New(errs.Unavailable, "the event log took more than %v to store the data", a.kept/2).WithHint("Try again; the disk may be slow."))
			} else {
				block, size, n = append(block, next), size+next.size, n+len(next.items)
			}
			select {
			case next = <-a.queue:
			default:
				next = nil
			}
		}
		if len(block) == 0 {
			continue
		}
		items := make([]item, 0, n)
		for _, r := range block {
			r.first = len(items)
			items = append(items, r.items...)
		}
		buf = appendBlock(buf[:0], items)
		seq, err := a.write(ctx, buf)
		if a.blocks != nil {
			a.blocks(n)
		}
		for _, r := range block {
			a.finish(r, seq, err)
		}
		if cap(buf) > maxBlock+4096 {
			buf = nil
		}
	}
}

func (a *appender) finish(r *request, seq uint64, err error) {
	r.seq, r.err = seq, err
	a.forget(r)
	a.room.give(r.size)
	close(r.done)
}

// write appends one block, and repeats that while no answer comes and one may.
func (a *appender) write(ctx context.Context, data []byte) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, appendWait)
	defer cancel()
	for {
		try, cancel := context.WithTimeout(ctx, answerWait)
		m := natsgo.NewMsg(a.subject)
		m.Data = data
		ack, err := a.js.PublishMsg(try, m)
		cancel()
		if err == nil {
			a.used.Add(int64(len(data)) + recordOverhead)
			return ack.Sequence, nil
		}
		if !again(err) || ctx.Err() != nil {
			return 0, fault("append to the event log", err)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// again tells whether a call may succeed when it is repeated: a cluster has elections.
func again(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, natsgo.ErrTimeout) || errors.Is(err, natsgo.ErrNoResponders) ||
		errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, natsgo.ErrDisconnected) || errors.Is(err, natsgo.ErrConnectionReconnecting)
}

// Codes of JetStream's API that mean a lack of room: JSInsufficientResourcesErr, JSStorageResourcesExceededErr, JSStreamStoreFailedF.
const (
	apiResources   jetstream.ErrorCode = 10023
	apiStorage     jetstream.ErrorCode = 10047
	apiStoreFailed jetstream.ErrorCode = 10077
)

// fault wraps an error of the store with the step and, where the cause is known, code and mend.
func fault(step string, err error) error {
	const mend = "Its disk may be full or have failed, or a cluster has no majority. Mend that; what was acknowledged is kept."
	var api *jetstream.APIError
	switch {
	case errors.As(err, &api) && (api.ErrorCode == apiResources || api.ErrorCode == apiStorage || api.ErrorCode == apiStoreFailed):
		return errs.New(errs.Unavailable, "%s: the store has no room: %w", step, err).
			WithHint("Free some space on the disk of the data directory, or raise the store's limit, and try again.")
	case errors.Is(err, natsgo.ErrReconnectBufExceeded): // nothing is kept for a store that is gone
		return errs.New(errs.Unavailable, "%s: the store takes no writes now", step).WithHint("%s", mend)
	case again(err), errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, natsgo.ErrConnectionClosed), errors.Is(err, natsgo.ErrConnectionDraining):
		return errs.New(errs.Unavailable, "%s: the store does not answer: %w", step, err).WithHint("%s", mend)
	}
	return errs.New(errs.CodeOf(err), "%s: %w", step, err)
}

// budget bounds bytes. The zero value with max set is ready.
type budget struct {
	max int
	mu  struct {
		sync.Mutex
		used int
		free chan struct{} // closed when some are given back; nil when nobody waits
	}
}

func newBudget(bytes int) *budget { return &budget{max: bytes} }

// take waits until n bytes are free. What is larger than all gets them when nothing else has any.
func (b *budget) take(ctx context.Context, n int) error {
	for {
		b.mu.Lock()
		if b.mu.used == 0 || b.mu.used+n <= b.max {
			b.mu.used += n
			b.mu.Unlock()
			return nil
		}
		if b.mu.free == nil {
			b.mu.free = make(chan struct{})
		}
		free := b.mu.free
		b.mu.Unlock()
		select {
		case <-free:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// try takes n bytes if they are free.
func (b *budget) try(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.used+n > b.max {
		return false
	}
	b.mu.used += n
	return true
}

func (b *budget) give(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.used -= n
	if b.mu.free != nil {
		close(b.mu.free)
		b.mu.free = nil
	}
}
