package bus

import (
	"context"
	"errors"
	"sync"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
)

// blocks reads events of the log, and keeps the blocks read last.
type blocks struct {
	stream jetstream.Stream
	mu     struct {
		sync.Mutex
		recent map[uint64][]item
		order  []uint64
		size   int
		under  map[uint64]*fetch // being read
	}
}

// fetch is a block that is being read; who else wants it waits.
type fetch struct {
	done  chan struct{}
	items []item
	err   error
}

// maxBlocks bounds the bytes of blocks that are kept.
const maxBlocks = 8 << 20

func newBlocks(s jetstream.Stream) *blocks {
	b := &blocks{stream: s}
	b.mu.recent, b.mu.under = map[uint64][]item{}, map[uint64]*fetch{}
	return b
}

// items reads a block, once for all that ask for it at the same time: its events become due together.
func (b *blocks) items(ctx context.Context, seq uint64) ([]item, error) {
	for {
		b.mu.Lock()
		items, ok := b.mu.recent[seq]
		f := b.mu.under[seq]
		mine := !ok && f == nil
		if mine {
			f = &fetch{done: make(chan struct{})}
			b.mu.under[seq] = f
		}
		b.mu.Unlock()
		if ok {
			return items, nil
		}
		if mine {
			b.fetch(ctx, seq, f)
			return f.items, f.err
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, fault("read the event log", context.Cause(ctx))
		}
		if f.err == nil || errs.CodeOf(f.err) == errs.NotFound {
			return f.items, f.err
		}
		if ctx.Err() != nil {
			return nil, fault("read the event log", context.Cause(ctx))
		}
		// The other one may have been told to stop; this one tries for itself.
	}
}

func (b *blocks) fetch(ctx context.Context, seq uint64, f *fetch) {
	size := 0
	f.items, size, f.err = b.read(ctx, seq)
	b.mu.Lock()
	defer b.mu.Unlock()
	defer close(f.done)
	delete(b.mu.under, seq)
	if f.err != nil {
		return
	}
	b.keepLocked(seq, f.items, size)
}

// keep has a block at hand for who reads it soon.
func (b *blocks) keep(seq uint64, items []item, size int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keepLocked(seq, items, size)
}

func (b *blocks) keepLocked(seq uint64, items []item, size int) {
	if _, ok := b.mu.recent[seq]; ok {
		return
	}
	b.mu.recent[seq] = items
	b.mu.order = append(b.mu.order, seq)
	b.mu.size += size
	for b.mu.size > maxBlocks && len(b.mu.order) > 1 {
		old := b.mu.order[0]
		for _, it := range b.mu.recent[old] {
			b.mu.size -= it.size()
		}
		delete(b.mu.recent, old)
		b.mu.order = b.mu.order[1:]
	}
	b.mu.size = max(b.mu.size, 0)
}

func (b *blocks) read(ctx context.Context, seq uint64) (items []item, size int, _ error) {
	m, err := b.stream.GetMsg(ctx, seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, 0, errs.New(errs.NotFound, "the event is not in the log any more")
	}
	if err != nil {
		return nil, 0, fault("read the event log", err)
	}
	items, err = parseBlock(m.Data)
	return items, len(m.Data), err
}

// event reads one event, without data that stand apart.
func (b *blocks) event(ctx context.Context, seq uint64, idx int) (*event.Event, error) {
	it, err := b.item(ctx, seq, idx)
	if err != nil {
		return nil, err
	}
	e, err := it.event()
	if e == nil && err == nil {
		return nil, errs.New(errs.NotFound, "there is no event at item %d of block %d", idx, seq)
	}
	return e, err
}
