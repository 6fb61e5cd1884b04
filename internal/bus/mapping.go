package bus

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
	"github.com/ebb-run/ebb/internal/invocation"
)

// Mapping says how the messages of a queue reach a Function: AWS's event source mapping.
type Mapping struct {
	Name   string        // for logs
	Queue  string        // name or key
	Batch  int           // most messages at once; 0 means 10; to 10,000
	Window time.Duration // how long a Batch is gathered from its first message on; to 5 min
	// MaxConcurrency is how many calls of Consume this Node has at once; 0 means 1000. The Bus begins with two, and adds as long as Batches come full.
	MaxConcurrency int
	// Turns bounds these calls over all Nodes; nil bounds those of this one alone.
	Turns Turns `json:"-"`
	// Filter keeps the messages that it says yes to; others are deleted, as AWS does. nil keeps all.
	Filter func(m *Received) bool
}

// Consumer takes Batches.
type Consumer interface {
	// Consume returns the Verdict on a Batch: what it does not name as failed is done, and is deleted. What failed is visible again when its visibility
	// timeout has passed; in a FIFO queue so is what comes behind it in its group. A Verdict whose Err has the code Throttled or Unavailable says that nothing was
	// run: the Batch is given again, later, for as long as its messages are invisible. Consume is called concurrently, and returns soon after ctx ended.
	Consume(ctx context.Context, b *invocation.Batch) invocation.Verdict
}

const (
	// maxPayload bounds a Batch: 6 MB, Lambda quotas, "Invocation payload (synchronous)".
	maxPayload = 6 << 20
	// recordSize is about what a record has besides body and attributes.
	recordSize = 1 << 10
	maxWindow  = 5 * time.Minute
	leastPolls = 2
	mostPolls  = 1000
	pollWait   = 10 * time.Second
)

func (m *Mapping) validate() error {
	if m.Batch == 0 {
		m.Batch = 10
	}
	if m.MaxConcurrency == 0 {
		m.MaxConcurrency = mostPolls
	}
	if m.Batch < 1 || m.Batch > MaxReceive || m.Window < 0 || m.Window > maxWindow || m.MaxConcurrency < 1 {
		return errs.New(errs.Invalid, "mapping %s: a batch has 1 to %d messages and is gathered for up to %v; the concurrency is at least 1", clip(m.Name), MaxReceive, maxWindow)
	}
	m.Queue = queueKey("", m.Queue)
	return nil
}

// poller runs one Mapping.
type poller struct {
	b    *Bus
	m    Mapping
	c    Consumer
	wait sync.WaitGroup
	mu   struct {
		sync.Mutex
		all, busy int // loops; those of them in Consume
	}
}

// Poll feeds a Consumer from a queue until ctx ends and running calls of Consume have returned. A queue that does not exist is waited for. What
// was received and not consumed when ctx ends is visible again at once.
func (b *Bus) Poll(ctx context.Context, m Mapping, c Consumer) error {
	if err := m.validate(); err != nil {
		return err
	}
	p := &poller{b: b, m: m, c: c}
	for range min(leastPolls, m.MaxConcurrency) {
		p.start(ctx)
	}
	p.wait.Wait()
	return nil
}

func (p *poller) start(ctx context.Context) {
	p.mu.Lock()
	p.mu.all++
	p.mu.Unlock()
	p.wait.Go(func() { p.loop(ctx) })
}

// leave tells whether a loop that found nothing is one too many.
func (p *poller) leave() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.all <= leastPolls {
		return false
	}
	p.mu.all--
	return true
}

// enter notes a call of Consume, and tells whether there is to be another loop.
func (p *poller) enter(full bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.busy++
	return full && p.mu.busy >= p.mu.all && p.mu.all < p.m.MaxConcurrency
}

func (p *poller) exit() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.busy--
}

func (p *poller) loop(ctx context.Context) {
	var rest []Received // received, and not in a Batch yet
	pausing := time.Second
	var leave func() // the turn that is held
	done := func() {
		if leave != nil {
			leave()
		}
		leave = nil
	}
	defer done()
	for ctx.Err() == nil {
		var batch []Received
		var err error
		if p.m.Turns != nil && leave == nil {
			leave, err = p.turn(ctx)
		}
		if p.m.Turns == nil || leave != nil {
			batch, rest, err = p.gather(ctx, rest)
		}
		switch {
		case ctx.Err() != nil:
			p.release(append(batch, rest...))
			return
		case err != nil:
			level := slog.LevelDebug
			if pausing == time.Second { // once, and not for every try
				level = slog.LevelWarn
			}
			p.b.opt.Log.Log(ctx, level, "a queue is not polled; it is tried again until it is there", "mapping", p.m.Name, "queue", p.m.Queue, "err", err)
			pause(ctx, pausing)
			pausing = min(2*pausing, 30*time.Second)
		default:
			pausing = time.Second
		}
		if len(batch) == 0 {
			if len(rest) == 0 {
				done()
			}
			if err == nil && len(rest) == 0 && p.leave() {
				return
			}
			continue
		}
		if p.enter(len(batch) >= p.m.Batch || len(rest) > 0) {
			p.start(ctx)
		}
		p.consume(ctx, batch)
		p.exit()
		if len(rest) == 0 {
			done()
		}
	}
	p.release(rest)
}

// release makes messages visible again that are not consumed.
func (p *poller) release(msgs []Received) {
	if len(msgs) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lastWait)
	defer cancel()
	var all []VisibilityChange
	for i := range msgs {
		all = append(all, VisibilityChange{Receipt: msgs[i].Receipt})
	}
	p.b.ChangeVisibility(ctx, p.m.Queue, all) // else their visibility ends by itself
}

// gather receives a Batch, and gives what was received beyond its size.
func (p *poller) gather(ctx context.Context, msgs []Received) (batch, over []Received, err error) {
	size, end := 0, time.Now().Add(p.m.Window)
	wait := pollWait
	if p.m.Turns != nil { // there was something; else others wait for the turn
		wait = 0
	}
	for asked := false; ; {
		for len(msgs) > 0 && len(batch) < p.m.Batch {
			if time.Now().After(msgs[0].Visible) { // it waited here for too long, and is somebody else's
				msgs = msgs[1:]
				continue
			}
			n := recordSize + payloadSize(&msgs[0])
			if len(batch) > 0 && size+n > maxPayload {
				break
			}
			batch, msgs, size = append(batch, msgs[0]), msgs[1:], size+n
		}
		left := time.Until(end)
		if len(msgs) > 0 || len(batch) >= p.m.Batch || len(batch) > 0 && left <= 0 || len(batch) == 0 && asked {
			return batch, msgs, nil
		}
		if len(batch) > 0 {
			wait = min(left, pollWait)
		}
		got, err := p.b.Receive(ctx, p.m.Queue, Receive{Max: p.m.Batch - len(batch), Wait: &wait})
		if err != nil {
			return batch, nil, err
		}
		if len(batch) == 0 { // the window begins with the first message
			end = time.Now().Add(p.m.Window)
		}
		msgs, asked = p.filter(ctx, got), true
	}
}

// payloadSize is about what body and attributes take in JSON.
func payloadSize(m *Received) int {
	n := m.Size()
	for _, c := range m.Body {
		if c == '"' || c == '\\' || c == '\n' {
			n++
		} else if c < ' ' {
			n += 5
		}
	}
	return n
}

// filter deletes what the Mapping does not want.
func (p *poller) filter(ctx context.Context, msgs []Received) []Received {
	if p.m.Filter == nil {
		return msgs
	}
	var keep []Received
	var drop []string
	for i := range msgs {
		if p.m.Filter(&msgs[i]) {
			keep = append(keep, msgs[i])
		} else {
			drop = append(drop, msgs[i].Receipt)
		}
	}
	p.remove(ctx, drop, time.Now().Add(appendWait))
	return keep
}

// remove deletes messages, again while they are invisible and it does not succeed.
func (p *poller) remove(ctx context.Context, receipts []string, until time.Time) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), max(time.Until(until), lastWait))
	defer cancel()
	for len(receipts) > 0 {
		var left []string
		var last error
		for i, err := range p.b.DeleteMessages(ctx, p.m.Queue, receipts) {
			switch errs.CodeOf(err) {
			case errs.Unavailable, errs.Throttled, errs.Timeout:
				left, last = append(left, receipts[i]), err
			case errs.Conflict:
				p.b.opt.Log.Warn("a message took longer than its visibility timeout, and comes again", "mapping", p.m.Name, "queue", p.m.Queue)
			}
		}
		if receipts = left; len(left) == 0 {
			return
		}
		if pause(ctx, time.Second); ctx.Err() != nil {
			p.b.opt.Log.Warn("messages that are done are not deleted, and come again", "mapping", p.m.Name, "queue", p.m.Queue, "err", last)
			return
		}
	}
}

// consume gives a Batch to the Consumer, and deletes what is done.
func (p *poller) consume(ctx context.Context, msgs []Received) {
	until := msgs[0].Visible
	for i := range msgs {
		if msgs[i].Visible.Before(until) {
			until = msgs[i].Visible
		}
	}
	batch := p.batch(msgs)
	retry := Retry{MinBackoff: 200 * time.Millisecond, MaxBackoff: 10 * time.Second}
	for n := 1; ; n++ {
		p.b.passes(AtDequeued)
		v := p.c.Consume(ctx, batch)
		p.b.passes(AtEnded)
		if code := errs.CodeOf(v.Err); v.Err == nil || code != errs.Throttled && code != errs.Unavailable {
			p.remove(ctx, done(msgs, v), until)
			return
		}
		wait := retry.backoff(n)
		if time.Until(until) <= wait {
			return // visible again soon, for whoever has room then
		}
		if pause(ctx, wait); ctx.Err() != nil {
			p.release(msgs)
			return
		}
	}
}

// done gives the receipts of what is to be deleted. In a FIFO queue a failure keeps what is behind it in its group.
func done(msgs []Received, v invocation.Verdict) []string {
	if v.Err != nil && len(v.Failed) == 0 { // it does not say what is done
		return nil
	}
	failed := map[int]bool{}
	for _, i := range v.Failed {
		failed[i] = true
	}
	stopped := map[string]bool{}
	var out []string
	for i := range msgs {
		fifo := msgs[i].Sequence != ""
		switch {
		case failed[i]:
			stopped[msgs[i].Group] = fifo
		case fifo && stopped[msgs[i].Group]:
		default:
			out = append(out, msgs[i].Receipt)
		}
	}
	return out
}

// MessageType is the type of the Events that messages of a queue become.
const MessageType = "ebb.queue.message"

// batch makes the Payload. A queue in it is named without its tenant.
func (p *poller) batch(msgs []Received) *invocation.Batch { return BatchOf(p.m.Queue, msgs) }

// BatchOf gives the messages of a queue, by name or key, as they reach a Function.
func BatchOf(queue string, msgs []Received) *invocation.Batch {
	bare := func(key string) string { return key[strings.LastIndexByte(key, '/')+1:] }
	b := &invocation.Batch{Via: invocation.ViaQueue, Source: bare(queue)}
	for i := range msgs {
		m := &msgs[i]
		e := &event.Event{ID: m.ID, Source: "/queues/" + queue, Type: MessageType, Time: m.Sent, DataContentType: "text/plain", Data: m.Body}
		if m.Trace != "" {
			e.SetExtension(TraceParent, m.Trace)
		}
		if m.Hops > 0 {
			e.SetExtension(Hops, int32(min(m.Hops, 1<<30)))
		}
		it := invocation.Item{Event: e, Attributes: m.Attributes, Group: m.Group, Dedup: m.Dedup, Sequence: m.Sequence, Receipt: m.Receipt,
			Receives: m.Receives, FirstReceived: m.FirstReceived, Sender: m.Sender, Arrived: m.Sent}
		if m.DeadFrom != "" {
			it.DeadFrom = bare(m.DeadFrom)
		}
		b.Items = append(b.Items, it)
	}
	return b
}
