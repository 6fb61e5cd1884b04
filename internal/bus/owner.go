package bus

import (
	"context"
	"errors"
	"math"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ebb-run/ebb/internal/errs"
)

// owner serves one Partition under a lease: it folds the log into the index, and delivers what is due.
type owner struct {
	b        *Bus
	p        *partition
	ctx      context.Context // ends when the owner stops
	epoch    uint64
	x        *index
	fold     *folder
	d        *dispatcher
	q        *giver
	s        *streamHub
	blocks   *blocks
	finished chan finished
	asked    chan struct{}
	running  sync.Map   // did → time.Time of the call of Deliver that is under way
	failed   chan error // of what runs beside the loop
	wait     sync.WaitGroup
	sub      *natsgo.Subscription // to questions
	progress progress
	caught   bool            // its own lease was folded: everything of earlier owners was
	replays  map[string]bool // that are being read
	clock    *clock
	from     atomic.Uint64 // the log's head for the index: what is left before it are data, and what stood among them
	began    time.Time     // by the clock that goes on evenly
	anchor   time.Time     // what the other one said then
}

// Pause ends the handing out of deliveries, for good; those that run go on, and their outcomes are recorded.
func (b *Bus) Pause() { b.quiet.Store(true) }

// Run owns Partitions and delivers until ctx ends; running calls of Deliver are then cancelled and waited for.
func (b *Bus) Run(ctx context.Context) error {
	var wait sync.WaitGroup
	for _, p := range b.parts {
		wait.Go(func() { b.own(ctx, p) })
	}
	wait.Wait()
	return nil
}

func (o *owner) stopping() bool { return o.ctx.Err() != nil }

// serve opens the index, follows the log and delivers until ctx ends or something fails.
func (b *Bus) serve(ctx context.Context, p *partition, epoch uint64) (err error) {
	ctx, stop := context.WithCancel(ctx)
	o := &owner{b: b, p: p, ctx: ctx, epoch: epoch, blocks: p.bodies, finished: make(chan finished, 64), failed: make(chan error, 1), asked: make(chan struct{}, 16), replays: map[string]bool{}}
	o.began, o.anchor = time.Now(), b.opt.wall()
	if err := o.open(ctx); err != nil {
		stop()
		return err
	}
	defer func() {
		// Whoever runs has to end before the index is closed; the loop does not take their ends any more.
		stop()
		ended := make(chan struct{})
		go func() { o.wait.Wait(); close(ended) }()
		for done := false; !done; {
			select {
			case <-o.finished:
			case <-ended:
				done = true
			}
		}
		broken := damaged(err)
		if err = errors.Join(err, o.x.close()); broken {
			err = errors.Join(err, removeIndex(o.path()))
		}
	}()
	msgs := make(chan jetstream.Msg, 64)
	end, err := o.follow(ctx, msgs)
	if err != nil {
		return err
	}
	defer end()
	defer o.silence()
	o.wait.Go(func() {
		if _, err := p.log.append(ctx, []item{jsonItem(kindLease, lease{b.opt.Node, epoch})}); err != nil {
			o.fail(err)
		}
	})
	return o.loop(ctx, msgs)
}

// now is the time for what waits: deliveries, and messages that are invisible. A clock that is put back does not hold them up while this Node owns the
// Partition; one that is put ahead, as after a machine has slept, is followed.
func (o *owner) now() time.Time {
	even := o.anchor.Add(time.Since(o.began))
	if w := o.b.opt.wall(); w.After(even) {
		return w
	}
	return even
}

// fail makes the loop return.
func (o *owner) fail(err error) {
	select {
	case o.failed <- err:
	default:
	}
}

func (o *owner) path() string {
	return filepath.Join(o.b.opt.Dir, "p"+strconv.Itoa(o.p.num)+".db")
}

func (o *owner) open(ctx context.Context) error {
	info, err := o.p.stream.Info(ctx)
	if err != nil {
		return fault("read the state of the event log", err)
	}
	base, err := o.b.readBase(ctx, o.p)
	if err != nil {
		return err
	}
	// The time of its making tells a log from another one with the same name.
	o.x, err = openIndex(ctx, o.path(), o.b.opt.Seal, info.Created.UTC().Format(time.RFC3339Nano), info.State.FirstSeq, info.State.LastSeq, base)
	if err != nil {
		return indexError(err)
	}
	o.fold = &folder{x: o.x, window: o.b.opt.DedupWindow.Milliseconds(), maxHops: o.b.opt.MaxHops, flows: flowFold{max: o.b.opt.maxFlows}, compile: o.b.compile, index: o.b.opt.Index,
		warn: func(text string, args ...any) { o.b.opt.Log.Warn(text, args...) }}
	o.fold.held = func(seq uint64, items []item, size int) {
		if o.caught && o.s.polled() {
			o.p.bodies.keep(seq, items, size)
		}
	}
	o.fold.seen, o.fold.fetch = o.p.bodies.keep, o.p.bodies.load
	o.from.Store(0)
	if base != nil {
		o.from.Store(base.Seq)
	}
	if err := o.fold.load(ctx); err != nil {
		return errors.Join(indexError(err), o.x.close())
	}
	o.d, o.q, o.s, o.clock = newDispatcher(o), newGiver(o), newStreamHub(), newClock(o)
	return nil
}

// followHeartbeat bounds how long a pull request that was lost goes unnoticed: two of them, in which nobody is answered. The library's own 15 s are
// longer than callers wait.
const followHeartbeat = 5 * time.Second

// follow reads the log from where the index ends. The channel is bounded, so the log is read no faster than it is folded.
func (o *owner) follow(ctx context.Context, msgs chan<- jetstream.Msg) (func(), error) {
	c, err := o.p.stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: o.x.applied + 1})
	if err != nil {
		return nil, fault("read the event log", err)
	}
	cc, err := c.Consume(func(m jetstream.Msg) {
		select {
		case msgs <- m:
		case <-ctx.Done():
		}
	}, jetstream.PullMaxMessages(32), jetstream.PullHeartbeat(followHeartbeat), jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
		o.b.opt.Log.Debug("reading the event log", "partition", o.p.num, "err", err)
	}))
	if err != nil {
		return nil, fault("read the event log", err)
	}
	o.wait.Go(func() { // the reader gives up only when its stream is gone
		select {
		case <-cc.Closed():
			if !o.stopping() {
				o.fail(errs.New(errs.Unavailable, "the event log cannot be read any more"))
			}
		case <-ctx.Done():
		}
	})
	return cc.Stop, nil
}

// Bounds of one transaction of the fold.
const (
	foldBlocks = 64
	foldBytes  = 4 << 20
)

// loop is the owner's goroutine: everything in memory belongs to it.
func (o *owner) loop(ctx context.Context, msgs <-chan jetstream.Msg) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer o.clock.timer.Stop()
	purge := time.NewTicker(o.b.opt.sweep)
	defer purge.Stop()
	sweep := time.NewTicker(o.b.opt.sweepQueues)
	defer sweep.Stop()
	for {
		select {
		case m := <-msgs:
			if err := o.commit(ctx, m, msgs); err != nil {
				return err
			}
		case f := <-o.finished:
			o.d.finish(f)
			o.more()
		case <-timer.C:
		case <-o.clock.timer.C:
		case f := <-o.clock.appended:
			o.clock.settle(f)
		case a := <-o.q.in:
			o.q.accept(a)
		case <-sweep.C:
			o.q.sweep, o.s.sweep = o.caught, o.caught
		case <-purge.C:
			if o.caught {
				if err := o.purge(ctx, time.Now()); err != nil && ctx.Err() == nil {
					o.b.opt.Log.Warn("old events are not removed", "partition", o.p.num, "err", err)
				}
			}
		case err := <-o.failed:
			return err
		case <-ctx.Done():
			return nil
		}
		if err := o.work(ctx, timer); err != nil {
			return err
		}
		o.clock.work()
	}
}

// more takes what else has finished, so that it is dispatched for all at once.
func (o *owner) more() {
	for {
		select {
		case f := <-o.finished:
			o.d.finish(f)
		default:
			return
		}
	}
}

// work dispatches what is due, once the index is up to date.
func (o *owner) work(ctx context.Context, timer *time.Timer) error {
	if !o.caught || ctx.Err() != nil {
		return nil
	}
	now := o.now()
	next, err := o.q.work(ctx, ms(now))
	if err != nil {
		return indexError(err)
	}
	if next, err = o.sweepDue(ctx, ms(now), next); err != nil {
		return indexError(err)
	}
	if o.b.opt.Deliver != nil && !o.b.quiet.Load() {
		due, err := o.d.dispatch(ctx, ms(now))
		if err != nil {
			return indexError(err)
		}
		next = min(next, due)
	}
	wait := time.Hour
	if next < math.MaxInt64 {
		wait = min(max(time.UnixMilli(next).Sub(now), 0), wait)
	}
	timer.Reset(wait)
	return nil
}

// commit folds the block and what else has come into one transaction.
func (o *owner) commit(ctx context.Context, m jetstream.Msg, msgs <-chan jetstream.Msg) error {
	// A transaction that was begun is ended: only then is the index in use by nobody.
	ctx = context.WithoutCancel(ctx)
	if err := o.x.begin(ctx); err != nil {
		return indexError(err)
	}
	o.fold.out = effects{}
	bytes := 0
	for n := 1; ; n++ {
		meta, err := m.Metadata()
		if err == nil {
			err = o.leftOut(ctx, o.x.applied+1, meta.Sequence.Stream)
		}
		if err == nil {
			err = o.fold.block(ctx, meta.Sequence.Stream, meta.Timestamp, m.Data())
		}
		if err != nil {
			return indexError(err) // the index is opened anew, and stands where it was
		}
		bytes += len(m.Data())
		if n == foldBlocks || bytes > foldBytes {
			break
		}
		select {
		case m = <-msgs:
			continue
		default:
		}
		break
	}
	if len(o.fold.out.ready) > 0 || len(o.fold.out.queues.touched) > 0 {
		o.b.passes(AtMatched)
	}
	if err := o.x.commit(ctx); err != nil {
		return indexError(err)
	}
	o.progress.set(o.x.applied)
	return o.apply()
}

// leftOut returns an error where blocks from next on and before this one are in the log, and have not come: the server leaves out of a consumer what it
// cannot load at that moment. What is read is then read anew: by the fold from the last block that it has, by a replay from its last part.
func (o *owner) leftOut(ctx context.Context, next, seq uint64) error {
	for missing := next; missing < seq; missing++ {
		_, _, err := o.blocks.read(ctx, missing)
		switch {
		case errs.CodeOf(err) == errs.NotFound:
			o.b.opt.Log.Warn("a block of the event log is gone", "partition", o.p.num, "block", missing)
		case err != nil:
			return err
		default:
			return errs.New(errs.Unavailable, "block %d of the event log did not come before block %d", missing, seq)
		}
	}
	return nil
}

// apply brings memory up to the commit.
func (o *owner) apply() error {
	out := &o.fold.out
	if !o.caught {
		if o.caught = out.epochs[o.epoch]; !o.caught {
			return nil
		}
		if err := o.answer(); err != nil {
			return err
		}
		// Everything that is due is in the index; nothing of it is in memory yet.
		out = &effects{subs: true, replays: true, queues: queueEffects{changed: true}, streams: streamEffects{changed: true}}
	}
	o.d.take(out, ms(o.now()))
	o.clock.take(out)
	o.q.take(&out.queues)
	o.s.take(&out.streams)
	if out.replays {
		o.startReplays()
	}
	return nil
}

// progress tells readers how far the index is.
type progress struct {
	mu struct {
		sync.Mutex
		applied uint64
		moved   chan struct{} // closed by the next step, where somebody waits
	}
}

func (p *progress) set(applied uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.applied = applied
	if p.mu.moved != nil {
		close(p.mu.moved)
		p.mu.moved = nil
	}
}

// reach waits until the index holds a block.
func (p *progress) reach(ctx, owner context.Context, seq uint64) error {
	for {
		p.mu.Lock()
		if p.mu.applied >= seq {
			p.mu.Unlock()
			return nil
		}
		if p.mu.moved == nil {
			p.mu.moved = make(chan struct{})
		}
		moved := p.mu.moved
		p.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-owner.Done():
			return errMoved
		}
	}
}
