package bus

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
)

// Large data stand apart from the item that they belong to: in chunks, which are items of the same log, written and durable before the item. The item
// says where they are. So they are as durable as what refers to them, go with the log's head as all else does, and chunks whose item was never written are
// passed over and go too.

const (
	kindChunk kind = 'b' // a part of the data of an item behind it
	kindApart kind = 'B' // an item whose data are in chunks: its kind, its body without the data, and the dataRef
)

const (
	// maxInline bounds the data that stand in their item: what most events have costs one sync, and several fit into one block.
	maxInline = 256 << 10
	// maxChunk keeps a chunk within a block.
	maxChunk = 800 << 10
	// MaxData bounds the data of one item, whatever is set.
	MaxData = 64 << 20
	// DefaultData bounds them where nothing is set: 1 MiB, as Lambda quotas, "Invocation payload (asynchronous)", and SQS quotas, "Message size".
	DefaultData = 1 << 20
	// MaxHead bounds what an item has besides its data, the attributes of an event or message: it stands in one block.
	MaxHead = 512 << 10
)

// dataRef says where the data of an item are.
type dataRef struct {
	size   int
	sum    [sha256.Size]byte
	chunks []spot    // in their order; all before the item
	begun  time.Time // when the first was written; of those of this process alone
}

// chunksKept is how long chunks are kept that nothing refers to: what does may be on its way. It is not written when that has taken half as long.
const chunksKept = 10 * time.Minute

// first is the first block that the data need.
func (r *dataRef) first() uint64 {
	first := r.chunks[0].seq
	for _, c := range r.chunks {
		first = min(first, c.seq)
	}
	return first
}

// refSize is about what a dataRef to n bytes takes.
func refSize(n int) int { return 64 + (n/maxChunk+1)*12 }

// appendApart writes the body of an item whose data stand apart.
func appendApart(b []byte, it item) []byte {
	b = binary.AppendUvarint(append(b, byte(it.kind)), uint64(len(it.body)))
	b = append(b, it.body...)
	b = binary.AppendUvarint(b, uint64(it.ref.size))
	b = append(b, it.ref.sum[:]...)
	for _, c := range it.ref.chunks {
		b = binary.AppendUvarint(binary.AppendUvarint(b, c.seq), uint64(c.idx))
	}
	return b
}

var errApart = errs.New(errs.Failed, "a reference to data in the event log cannot be read")

// parseApart reads what appendApart wrote. The item's body shares b's memory.
func parseApart(b []byte) (item, error) {
	if len(b) == 0 {
		return item{}, errApart
	}
	it := item{kind: kind(b[0])}
	if !it.kind.hasData() {
		return item{}, errApart
	}
	bad := false
	number := func() uint64 {
		n, w := binary.Uvarint(b)
		if bad = bad || w <= 0; bad {
			return 0
		}
		b = b[w:]
		return n
	}
	b = b[1:]
	n := number()
	if bad || n > uint64(len(b)) {
		return item{}, errApart
	}
	it.body, b = b[:n:n], b[n:]
	size := number()
	if bad || size == 0 || size > 2*MaxData || len(b) < sha256.Size {
		return item{}, errApart
	}
	it.ref = &dataRef{size: int(size)}
	b = b[copy(it.ref.sum[:], b):]
	for len(b) > 0 {
		seq, idx := number(), number()
		if bad || seq == 0 || idx >= maxItems {
			return item{}, errApart
		}
		it.ref.chunks = append(it.ref.chunks, spot{seq, int(idx)})
	}
	if len(it.ref.chunks) == 0 || len(it.ref.chunks) > int(size) {
		return item{}, errApart
	}
	return it, nil
}

// hasData says whether items of the kind may have their data apart.
func (k kind) hasData() bool { return k == kindEvent || k == kindSend || k == kindRecord }

// dataSize is the length of the data that stand apart.
func (it item) dataSize() int {
	if it.ref != nil {
		return it.ref.size
	}
	return len(it.apart)
}

// late tells whether a request has waited for so long that chunks of it might be removed before it is in the log.
func (a *appender) late(r *request) bool {
	return slices.ContainsFunc(r.items, func(it item) bool { return it.ref != nil && time.Since(it.ref.begun) > a.kept/2 })
}

// store writes the data of items that are to stand apart, and returns when they are durable: the items then refer to them.
// Their memory is not used any more then, whatever the error.
func (a *appender) store(ctx context.Context, items []item) error {
	old := func(it item) bool { return it.apart != nil && (it.ref == nil || time.Since(it.ref.begun) > a.kept/4) }
	if !slices.ContainsFunc(items, old) {
		return nil
	}
	type waiting struct {
		item int
		r    *request
	}
	var all []waiting
	var failed error
	begun := time.Now()
	for i := range items {
		if !old(items[i]) || failed != nil {
			continue
		}
		data := items[i].apart
		n := (len(data) + maxChunk - 1) / maxChunk
		for part := range slices.Chunk(data, (len(data)+n-1)/n) {
			// What belongs to the end of something is taken when the log is full.
			r := &request{items: []item{{kind: kindChunk, body: part}}, must: !items[0].kind.adds(), done: make(chan struct{})}
			if failed = a.enqueue(ctx, r); failed != nil {
				break
			}
			all = append(all, waiting{i, r})
		}
	}
	refs := make([]*dataRef, len(items))
	for _, w := range all {
		at, err := a.wait(context.WithoutCancel(ctx), w.r)
		if failed == nil {
			failed = err
		}
		if failed != nil {
			continue
		}
		if refs[w.item] == nil {
			data := items[w.item].apart
			refs[w.item] = &dataRef{size: len(data), sum: sha256.Sum256(data), begun: begun}
		}
		refs[w.item].chunks = append(refs[w.item].chunks, spot{at.seq, at.first})
	}
	if failed != nil {
		return errs.New(errs.CodeOf(failed), "store the data: %w", failed)
	}
	for i, r := range refs {
		if r != nil {
			items[i].ref = r
		}
	}
	return nil
}

// load reads data that stand apart. What is not there or not what was written has the code NotFound.
func (b *blocks) load(ctx context.Context, ref *dataRef) ([]byte, error) {
	out := make([]byte, 0, ref.size)
	for _, c := range ref.chunks {
		items, err := b.items(ctx, c.seq)
		if err != nil {
			return nil, err
		}
		if c.idx >= len(items) || items[c.idx].kind != kindChunk || len(out)+len(items[c.idx].body) > ref.size {
			return nil, errs.New(errs.NotFound, "the data are not in the log any more")
		}
		out = append(out, items[c.idx].body...)
	}
	if sum := sha256.Sum256(out); len(out) != ref.size || !bytes.Equal(sum[:], ref.sum[:]) {
		return nil, errs.New(errs.NotFound, "the data in the log are damaged")
	}
	return out, nil
}

// whole gives the event of an item with its data; nil when it has none.
func (b *blocks) whole(ctx context.Context, it item) (*event.Event, error) {
	e, err := it.event()
	if err != nil || e == nil || it.ref == nil {
		return e, err
	}
	e.Data, err = b.load(ctx, it.ref)
	return e, err
}

// item reads one item of the log.
func (b *blocks) item(ctx context.Context, seq uint64, idx int) (item, error) {
	items, err := b.items(ctx, seq)
	if err != nil {
		return item{}, err
	}
	if idx >= len(items) {
		return item{}, errs.New(errs.NotFound, "there is no item %d in block %d", idx, seq)
	}
	return items[idx], nil
}

// dataSchema is the part of the index that says which blocks need earlier ones for their data.
const dataSchema = `
CREATE TABLE data(seq INTEGER PRIMARY KEY, first INTEGER NOT NULL);
CREATE TABLE chunks(seq INTEGER PRIMARY KEY, at INTEGER NOT NULL); -- blocks that have some
`

// needs notes the first block that a block needs.
func (f *folder) needs(ctx context.Context, seq uint64, now int64, items []item) error {
	first, chunk := seq, false
	for _, it := range items {
		chunk = chunk || it.kind == kindChunk
		if it.ref != nil {
			first = min(first, it.ref.first())
		}
	}
	if chunk {
		f.chunks = append(f.chunks, chunkSeen{seq, time.Now()})
		if err := f.x.exec(ctx, "INSERT INTO chunks(seq, at) VALUES(?, ?)", int64(seq), now); err != nil {
			return err
		}
	}
	if first == seq {
		return nil
	}
	return f.x.exec(ctx, "INSERT INTO data(seq, first) VALUES(?, ?)", int64(seq), int64(first))
}

// chunkSeen is a block with chunks, and when the fold came to it, by this process's clock.
type chunkSeen struct {
	seq uint64
	at  time.Time
}

// dataFloor is the first block that has to stay in the log so that what stands from floor on, and what is on its way, has its data.
func (o *owner) dataFloor(ctx context.Context, floor uint64) (uint64, error) {
	v := int64(floor)
	_, err := o.x.one(ctx, []any{&v}, "SELECT coalesce(min(first), ?1) FROM data WHERE seq >= ?1", int64(floor))
	first := min(uint64(v), floor)
	kept := o.b.opt.chunksKept
	young := slices.IndexFunc(o.fold.chunks, func(c chunkSeen) bool { return time.Since(c.at) < kept })
	if young < 0 {
		young = len(o.fold.chunks)
	}
	o.fold.chunks = slices.Clone(o.fold.chunks[young:])
	if len(o.fold.chunks) > 0 {
		first = min(first, o.fold.chunks[0].seq)
	}
	// By the time of the log, too: what refers to them may not be folded yet. How old those are that were there before this owner is not known.
	since := o.fold.q.at - kept.Milliseconds()
	if time.Since(o.began) < kept {
		since = math.MinInt64
	}
	if err == nil {
		_, err = o.x.one(ctx, []any{&v}, "SELECT coalesce(min(seq), ?) FROM chunks WHERE at >= ?", int64(first), since)
	}
	return min(first, uint64(v)), err
}

// chunksSeen has chunks at hand when the fold comes to what refers to them, soon after.
func (f *folder) chunksSeen(seq uint64, items []item, size int) {
	for _, it := range items {
		if it.kind == kindChunk && f.seen != nil {
			f.seen(seq, items, size)
			return
		}
	}
}

// filters says whether a Filter may be asked about an event's data.
func (f *folder) filters(e *event.Event) bool {
	for _, subject := range []string{"", e.Subject} {
		r := f.reading[reading{e.Extension(Channel), subject}]
		if r == nil {
			continue
		}
		if r.index != nil {
			return true
		}
		for _, s := range r.plain {
			if len(s.spec.Filter) > 0 {
				return true
			}
		}
	}
	return false
}

// dataOf reads the data of an event for its Filters. Where they are lost the event is matched without them, and its deliveries end.
func (f *folder) dataOf(ctx context.Context, at did, e *event.Event, ref *dataRef) error {
	if ref == nil || f.fetch == nil || !f.filters(e) {
		return nil
	}
	data, err := f.fetch(ctx, ref)
	if errs.CodeOf(err) == errs.NotFound {
		f.warn("the data of an event are lost", "block", at.Seq, "item", at.Idx, "err", err)
		return nil
	}
	e.Data = data
	return err
}

// maxLarge bounds the large data that one Subscription's calls of Deliver have in memory at once, in one Partition; one call gets what it needs in any case.
const maxLarge = 64 << 20

// eventsOf gives the events of a batch, or why one cannot be read. Large data are read when the others of the Subscription leave room for them; free gives that back.
func (o *owner) eventsOf(ctx context.Context, large *budget, batch []*held) (events []*event.Event, faults []error, free func()) {
	events, faults = make([]*event.Event, len(batch)), make([]error, len(batch))
	refs, size := make([]*dataRef, len(batch)), 0
	for i, h := range batch {
		if events[i] = h.event; h.event != nil {
			continue
		}
		it, err := o.blocks.item(ctx, h.eseq, h.eidx)
		if err == nil {
			events[i], err = it.event()
		}
		if err == nil && events[i] == nil {
			err = errs.New(errs.NotFound, "there is no event at item %d of block %d", h.eidx, h.eseq)
		}
		if faults[i] = err; err == nil && it.ref != nil {
			refs[i], size = it.ref, size+it.ref.size
		}
	}
	if size == 0 {
		return events, faults, func() {}
	}
	err := large.take(ctx, size) // for all at once: those that wait hold nothing
	if err == nil {
		free = func() { large.give(size) }
	} else {
		free = func() {}
	}
	for i, ref := range refs {
		if ref == nil {
			continue
		}
		if faults[i] = err; err == nil {
			events[i].Data, faults[i] = o.blocks.load(ctx, ref)
		}
	}
	return events, faults, free
}
