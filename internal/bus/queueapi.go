package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/ebb-run/ebb/internal/errs"
)

// knownQueues are the queues that this Node has used lately.
type knownQueues struct {
	mu struct {
		sync.Mutex
		m map[string]*knownQueue
	}
}

// knownQueue is a queue as its owner told of it.
type knownQueue struct {
	spec Queue
	gen  int64
	at   time.Time
	last *atomic.Uint64 // the last block in which this Node wrote of it
}

const (
	// knownFor is how long the settings of a queue are used before they are asked for again; maxKnown how many are kept.
	knownFor = time.Second
	maxKnown = 10_000
)

// queue gives a queue's settings.
func (b *Bus) queue(ctx context.Context, name string, fresh bool) (*knownQueue, error) {
	key := queueKey("", name)
	b.known.mu.Lock()
	k := b.known.mu.m[key]
	b.known.mu.Unlock()
	if k != nil && !fresh && time.Since(k.at) < knownFor {
		return k, nil
	}
	var reach uint64
	last := new(atomic.Uint64)
	if k != nil {
		reach, last = k.last.Load(), k.last
	}
	r, err := b.ask(ctx, b.partitionOfQueue(key), question{Queue: &queueQuestion{Do: "", Key: key, Reach: reach}})
	if err != nil {
		return nil, err
	}
	k = &knownQueue{spec: r.Queue.Queues[0].Spec, gen: r.Queue.Queues[0].Gen, at: time.Now(), last: last}
	b.known.mu.Lock()
	defer b.known.mu.Unlock()
	if b.known.mu.m == nil || len(b.known.mu.m) >= maxKnown {
		b.known.mu.m = map[string]*knownQueue{}
	}
	if old := b.known.mu.m[key]; old != nil { // another call may have asked too, and written since
		k.last = old.last
	}
	b.known.mu.m[key] = k
	return k, nil
}

func (b *Bus) forgetQueue(key string) {
	b.known.mu.Lock()
	defer b.known.mu.Unlock()
	if k := b.known.mu.m[key]; k != nil { // but not what was written
		b.known.mu.m[key] = &knownQueue{last: k.last}
	}
}

// wrote notes that this Node has written of a queue, so that its next question is answered with that in mind.
func (k *knownQueue) wrote(seq uint64) {
	for {
		old := k.last.Load()
		if old >= seq || k.last.CompareAndSwap(old, seq) {
			return
		}
	}
}

// PutQueue makes a queue, or changes the settings of the one with its name. It returns when every Node that asks the owner sees it; others use the old
// settings for up to a second.
func (b *Bus) PutQueue(ctx context.Context, q Queue) error {
	if q.Tenant == "" {
		q.Tenant = DefaultTenant
	}
	if err := q.validate(); err != nil {
		return err
	}
	return b.putQueue(ctx, q.Key(), jsonItem(kindQueuePut, queuePut{q, nonce()}))
}

// DeleteQueue deletes a queue and all its messages. To delete what is not there is an error with the code NotFound.
func (b *Bus) DeleteQueue(ctx context.Context, name string) error {
	if _, err := b.queue(ctx, name, true); err != nil {
		return err
	}
	key := queueKey("", name)
	return b.putQueue(ctx, key, jsonItem(kindQueueDelete, queueDeletion{key, nonce()}))
}

// PurgeQueue deletes all messages that were sent before, those in flight too.
func (b *Bus) PurgeQueue(ctx context.Context, name string) error {
	if _, err := b.queue(ctx, name, true); err != nil {
		return err
	}
	key := queueKey("", name)
	return b.putQueue(ctx, key, jsonItem(kindSettled, settled{Queue: key, Do: settlePurge, Nonce: nonce()}))
}

func (b *Bus) putQueue(ctx context.Context, key string, it item) error {
	p := b.partitionOfQueue(key)
	at, err := p.log.append(ctx, []item{it})
	if err != nil {
		return err
	}
	defer b.forgetQueue(key)
	_, err = b.ask(ctx, p, question{Reach: at.seq})
	return err
}

// Queues gives all queues, by tenant and name, without counts of their messages.
func (b *Bus) Queues(ctx context.Context) ([]Queue, error) {
	var out []Queue
	for _, p := range b.parts {
		r, err := b.ask(ctx, p, question{Queue: &queueQuestion{Do: askList}})
		if err != nil {
			return nil, err
		}
		for _, s := range r.Queue.Queues {
			out = append(out, s.Spec)
		}
	}
	sort.Slice(out, func(i, k int) bool { return out[i].Key() < out[k].Key() })
	return out, nil
}

// QueueStatus tells a queue's settings and counts.
func (b *Bus) QueueStatus(ctx context.Context, name string) (QueueStatus, error) {
	r, _, err := b.askQueue(ctx, name, queueQuestion{Do: askStatus})
	if err != nil {
		return QueueStatus{}, err
	}
	s := r.Queues[0]
	out := QueueStatus{Queue: s.Spec, Created: time.UnixMilli(s.Created).UTC(), Changed: time.UnixMilli(s.Changed).UTC(),
		Visible: max(s.N-s.InFlight-s.Delayed, 0), InFlight: s.InFlight, Delayed: s.Delayed}
	if s.Oldest > 0 {
		out.Oldest = time.UnixMilli(s.Oldest).UTC()
	}
	return out, nil
}

// askQueue asks the owner of a queue, which answers when it has read what this Node wrote of it.
func (b *Bus) askQueue(ctx context.Context, name string, q queueQuestion) (*queueReply, *knownQueue, error) {
	k, err := b.queue(ctx, name, false)
	if err != nil {
		return nil, nil, err
	}
	q.Key, q.Reach = queueKey("", name), max(q.Reach, k.last.Load())
	r, err := b.ask(ctx, b.partitionOfQueue(q.Key), question{Queue: &q})
	if err != nil {
		return nil, nil, err
	}
	k.wrote(r.Queue.Seq)
	return r.Queue, k, nil
}

// Send returns when the messages are durable, with a result for each. Its error is for what concerns all: no such queue, or an owner that does not answer.
// After an error of an entry with the code Unavailable, Throttled or Timeout that one may have been sent all the same.
// The messages of one group stand in the queue in their order.
func (b *Bus) Send(ctx context.Context, name string, messages []Message) ([]Sent, error) {
	k, err := b.queue(ctx, name, false)
	if err != nil {
		return nil, err
	}
	key := queueKey("", name)
	p := b.partitionOfQueue(key)
	out := make([]Sent, len(messages))
	heads := make([]sending, len(messages))
	type part struct {
		r     *request
		index []int
		size  int
	}
	var parts []*part
	for i := range messages {
		m := messages[i]
		if m.ID == "" {
			m.ID = uuid()
		}
		if out[i].Err = m.validate(&k.spec, b.opt.MaxData); out[i].Err != nil {
			continue
		}
		heads[i] = newSending(key, &m, &k.spec)
		it := sendItem(heads[i], m.Body)
		if len(parts) == 0 || parts[len(parts)-1].size+it.size() > maxBlock || len(parts[len(parts)-1].r.items) == maxItems {
			parts = append(parts, &part{r: &request{done: make(chan struct{})}})
		}
		g := parts[len(parts)-1]
		g.r.items, g.index, g.size = append(g.r.items, it), append(g.index, i), g.size+it.size()
		out[i].ID = m.ID
	}
	failed := error(nil)
	for _, g := range parts { // the order of the queue is the order of the log
		if failed == nil {
			failed = p.log.enqueue(ctx, g.r)
		}
		if failed != nil { // else it is the writer's
			g.r.err = failed
			close(g.r.done)
		}
	}
	for _, g := range parts {
		at, err := p.log.wait(ctx, g.r)
		for n, i := range g.index {
			out[i].Err = err
			if k.spec.FIFO && err == nil {
				out[i].Sequence = sequence(at.seq, at.first+n)
			}
		}
		if err == nil {
			k.wrote(at.seq)
		}
	}
	b.passes(AtAccepted)
	if k.spec.FIFO {
		err = b.duplicates(ctx, name, heads, out)
	}
	return out, err
}

// duplicates finds among what was sent to a FIFO queue that which the fold has dropped.
func (b *Bus) duplicates(ctx context.Context, name string, heads []sending, out []Sent) error {
	var ask []sending
	var index []int
	for i := range out {
		if out[i].Err == nil {
			ask, index = append(ask, sending{Group: heads[i].Group, Dedup: heads[i].Dedup}), append(index, i)
		}
	}
	if len(ask) == 0 {
		return nil
	}
	r, _, err := b.askQueue(ctx, name, queueQuestion{Do: askFirst, First: ask})
	if err != nil {
		return err
	}
	for n, f := range r.Sent {
		s := &out[index[n]]
		if f.ID != "" && f.ID != s.ID {
			s.ID, s.Sequence, s.Duplicate = f.ID, sequence(f.Seq, f.Idx), true
		}
	}
	return nil
}

// askSlice is how long one question to another Node waits for messages; a Receive asks again until its time has passed.
const askSlice = 5 * time.Second

// Receive gives up to Max messages, which are invisible to others until their visibility ends. It waits for at least one. No message is no error.
func (b *Bus) Receive(ctx context.Context, name string, r Receive) ([]Received, error) {
	if r.Max == 0 {
		r.Max = 1
	}
	if r.Max < 0 || r.Max > MaxReceive || r.Wait != nil && (*r.Wait < 0 || *r.Wait > MaxWait) || r.Visibility != nil && (*r.Visibility < 0 || *r.Visibility > MaxVisibility) {
		return nil, errs.New(errs.Invalid, "a receive takes 1 to %d messages, waits up to %v and hides for up to %v", MaxReceive, MaxWait, MaxVisibility)
	}
	k, err := b.queue(ctx, name, false)
	if err != nil {
		return nil, err
	}
	wait := k.spec.Wait
	if r.Wait != nil {
		wait = *r.Wait
	}
	q := giveQuestion{Key: queueKey("", name), Max: r.Max}
	if r.Visibility != nil {
		q.Vis = new(r.Visibility.Milliseconds())
	}
	p := b.partitionOfQueue(q.Key)
	for until := time.Now().Add(wait); ; {
		left := max(time.Until(until), 0)
		q.Wait, q.Reach = left.Milliseconds(), k.last.Load()
		reply, err := b.give(ctx, p, q)
		if err != nil {
			if errs.CodeOf(err) == errs.Unavailable && left > 0 && ctx.Err() == nil { // a new owner may come
				pause(ctx, min(left, 100*time.Millisecond))
				continue
			}
			return nil, err
		}
		out, err := b.received(ctx, p, reply, &k.spec)
		if len(out) > 0 || err != nil || time.Until(until) <= 0 {
			return out, err
		}
	}
}

// give asks the owner for messages, or to move some.
func (b *Bus) give(ctx context.Context, p *partition, q giveQuestion) (giveReply, error) {
	var r giveReply
	for begin := time.Now(); ; {
		p.mu.Lock()
		own := p.mu.own
		p.mu.Unlock()
		if own != nil {
			r = own.give(ctx, q)
			break
		}
		q.ID, q.Wait = strconv.FormatUint(rand.Uint64(), 36), min(q.Wait, askSlice.Milliseconds())
		data, err := json.Marshal(q)
		if err != nil {
			return r, err
		}
		call, cancel := context.WithTimeout(ctx, time.Duration(q.Wait)*time.Millisecond+askWait)
		m, err := b.js.Conn().RequestWithContext(call, giveSubject+strconv.Itoa(p.num), data)
		cancel()
		if errors.Is(err, natsgo.ErrNoResponders) && ctx.Err() == nil && time.Since(begin) < askWait {
			pause(ctx, 20*time.Millisecond)
			continue
		}
		if err != nil && ctx.Err() != nil {
			_ = b.js.Conn().Publish(leaveSubject+strconv.Itoa(p.num), []byte(q.ID)) // else the owner finds out by the end of the wait
			return r, errs.New(errs.CodeOf(context.Cause(ctx)), "wait for messages: %w", context.Cause(ctx))
		}
		if err != nil {
			return r, errs.New(errs.Unavailable, "ask for partition %d of the event bus: no node serves it now: %w", p.num, err).WithHint("Try again in a moment.")
		}
		if err := json.Unmarshal(m.Data, &r); err != nil {
			return r, fmt.Errorf("ask for partition %d of the event bus: %w", p.num, err)
		}
		break
	}
	return r, r.Error.err()
}

// received reads the messages that were given from the log.
func (b *Bus) received(ctx context.Context, p *partition, r giveReply, q *Queue) ([]Received, error) {
	var out []Received
	// They were given: a caller that leaves meanwhile gets them all the same, or nobody has them until their visibility ends.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerWait)
	defer cancel()
	for _, g := range r.Msgs {
		s, body, err := p.bodies.message(ctx, g.Seq, g.Idx)
		if err != nil {
			if len(out) == 0 && ctx.Err() != nil {
				return nil, err
			}
			// It is visible again later.
			b.opt.Log.Warn("a message cannot be read", "queue", q.Key(), "err", err)
			continue
		}
		m := Received{Message: s.message(body), Receipt: receipt{p.num, r.Gen, g.Seq, g.Idx, g.N}.String(), Receives: g.N, Sent: time.UnixMilli(g.Sent).UTC(),
			Visible: time.UnixMilli(g.Visible).UTC(), DeadFrom: g.Dead}
		if g.First > 0 {
			m.FirstReceived = time.UnixMilli(g.First).UTC()
		}
		if q.FIFO {
			m.Sequence = sequence(g.Seq, g.Idx)
		}
		out = append(out, m)
	}
	return out, nil
}

// maxReceipts bounds the receipts of one call.
const maxReceipts = 10_000

// DeleteMessages deletes what was received, with a result for each receipt. It returns when that is durable: the messages do not come again. What is deleted
// already is no error. In a FIFO queue a receipt whose visibility has ended gives the code Conflict; in a standard queue it deletes all the same.
func (b *Bus) DeleteMessages(ctx context.Context, name string, receipts []string) []error {
	out := make([]error, len(receipts))
	fail := func(err error) []error {
		for i := range out {
			if out[i] == nil {
				out[i] = err
			}
		}
		return out
	}
	if len(receipts) > maxReceipts {
		return fail(errs.New(errs.TooLarge, "%d receipts, the limit is %d", len(receipts), maxReceipts))
	}
	k, err := b.queue(ctx, name, false)
	if err != nil {
		return fail(err)
	}
	p := b.partitionOfQueue(queueKey("", name))
	s := settled{Gen: k.gen, Do: settleDelete}
	var ask []receiptFor
	var asked []int
	for i, text := range receipts {
		r, err := parseReceipt(text)
		switch {
		case err != nil:
			out[i] = err
		case k.spec.FIFO || r.gen != k.gen || r.part != p.num:
			ask, asked = append(ask, receiptFor{Receipt: text}), append(asked, i)
		default:
			s.Entries = append(s.Entries, entry{r.seq, r.idx, r.n})
		}
	}
	if len(s.Entries) > 0 {
		at, err := p.log.append(ctx, []item{jsonItem(kindSettled, s)})
		if err != nil {
			return fail(err)
		}
		k.wrote(at.seq)
	}
	if len(ask) > 0 {
		r, _, err := b.askQueue(ctx, name, queueQuestion{Do: askDelete, Changes: ask})
		if err != nil {
			for _, i := range asked {
				out[i] = err
			}
			return out
		}
		for n, e := range r.Errors {
			out[asked[n]] = e.err()
		}
	}
	return out
}

// VisibilityChange sets when a received message comes again: after Visibility from now, zero at once.
type VisibilityChange struct {
	Receipt    string
	Visibility time.Duration
}

// ChangeVisibility has a result for each change. A message that is not in flight any more gives the code Conflict, one that is deleted NotFound.
func (b *Bus) ChangeVisibility(ctx context.Context, name string, changes []VisibilityChange) []error {
	out := make([]error, len(changes))
	var ask []receiptFor
	var asked []int
	for i, c := range changes {
		switch {
		case c.Visibility < 0 || c.Visibility > MaxVisibility:
			out[i] = errs.New(errs.Invalid, "the visibility timeout is 0 to %v", MaxVisibility)
		case i >= maxReceipts:
			out[i] = errs.New(errs.TooLarge, "%d changes, the limit is %d", len(changes), maxReceipts)
		default:
			ask, asked = append(ask, receiptFor{c.Receipt, c.Visibility.Milliseconds()}), append(asked, i)
		}
	}
	if len(ask) == 0 {
		return out
	}
	r, _, err := b.askQueue(ctx, name, queueQuestion{Do: askVisibility, Changes: ask})
	for n, i := range asked {
		if out[i] = err; err == nil {
			out[i] = r.Errors[n].err()
		}
	}
	return out
}

// PeekQueue shows messages in the order of the log without receiving them; it goes on behind the Receipt of the last one seen. A Receipt from it
// is good for nothing else. Limit is 1 to 1000; of large messages fewer are shown at once, and at least one.
func (b *Bus) PeekQueue(ctx context.Context, name, after string, limit int) ([]Received, error) {
	q := queueQuestion{Do: askPeek, Limit: min(max(limit, 1), 1000)}
	if after != "" {
		r, err := parseReceipt(after)
		if err != nil {
			return nil, err
		}
		q.After = &entry{Seq: r.seq, Idx: r.idx}
	}
	r, k, err := b.askQueue(ctx, name, q)
	if err != nil {
		return nil, err
	}
	out, err := b.received(ctx, b.partitionOfQueue(queueKey("", name)), giveReply{Gen: r.Gen, Msgs: r.Msgs}, &k.spec)
	for i := range out {
		parts := strings.Split(out[i].Receipt, "-")
		parts[0], parts[1] = "fffff", "0" // of no queue
		out[i].Receipt = strings.Join(parts, "-")
	}
	return out, err
}

// QueueRedrive says which messages go from one queue to another.
type QueueRedrive struct {
	From string
	To   string   // empty: each to the queue whose dead letter it is
	IDs  []string // of messages; empty: all that are visible when it begins
	// Moved is told after each step, or nil; an error of it ends the redrive.
	Moved func(n int) error
}

// RedriveQueue moves messages that are visible, usually dead letters back to their queue, where they have all their receives again. It returns how many
// when all are moved; ended early, those that were moved stay so.
func (b *Bus) RedriveQueue(ctx context.Context, r QueueRedrive) (int, error) {
	st, err := b.QueueStatus(ctx, r.From)
	if err != nil {
		return 0, err
	}
	q := giveQuestion{Key: queueKey("", r.From), Move: true, IDs: r.IDs}
	if r.To != "" {
		q.To = queueKey("", r.To)
		if q.To == q.Key {
			return 0, errs.New(errs.Invalid, "a queue's messages cannot be moved to itself")
		}
		if _, err := b.queue(ctx, r.To, true); err != nil {
			return 0, err
		}
	}
	left := st.Visible
	if len(r.IDs) > 0 {
		left = len(r.IDs)
	}
	if len(r.IDs) > maxSelected {
		return 0, errs.New(errs.TooLarge, "%d IDs are selected, the limit is %d", len(r.IDs), maxSelected)
	}
	sum := 0
	for left > 0 {
		q.Max = min(left, maxMove)
		k, err := b.queue(ctx, r.From, false)
		if err != nil {
			return sum, err
		}
		q.Reach = k.last.Load()
		got, err := b.give(ctx, b.partitionOfQueue(q.Key), q)
		sum, left = sum+got.Moved, left-got.Moved
		if err == nil && got.Moved > 0 && r.Moved != nil {
			err = r.Moved(got.Moved)
		}
		if err != nil || got.Moved == 0 {
			return sum, err
		}
	}
	return sum, nil
}

// QueueSettings gives a queue's settings, up to a second old.
func (b *Bus) QueueSettings(ctx context.Context, name string) (*Queue, error) {
	k, err := b.queue(ctx, name, false)
	if err != nil {
		return nil, err
	}
	q := k.spec
	return &q, nil
}
