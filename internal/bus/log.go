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
	}
}

// maxBlocks bounds the bytes of blocks that are kept.
const maxBlocks = 8 << 20

func newBlocks(s jetstream.Stream) *blocks {
	b := &blocks{stream: s}
	b.mu.recent = map[uint64][]item{}
	return b
}

func (b *blocks) items(ctx context.Context, seq uint64) ([]item, error) {
	b.mu.Lock()
	items, ok := b.mu.recent[seq]
	b.mu.Unlock()
	if ok {
		return items, nil
	}
	m, err := b.stream.GetMsg(ctx, seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, errs.New(errs.NotFound, "the event is not in the log any more")
	}
	if err != nil {
		return nil, fault("read the event log", err)
	}
	if items, err = parseBlock(m.Data); err != nil {
		return nil, err
	}
	b.keep(seq, items, len(m.Data))
	return items, nil
}

// keep has a block at hand for who reads it soon.
func (b *blocks) keep(seq uint64, items []item, size int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.mu.recent[seq]; !ok {
		b.mu.recent[seq] = items
		b.mu.order = append(b.mu.order, seq)
		b.mu.size += size
	}
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

// event reads one event.
func (b *blocks) event(ctx context.Context, seq uint64, idx int) (*event.Event, error) {
	items, err := b.items(ctx, seq)
	if err != nil {
		return nil, err
	}
	var e *event.Event
	if idx < len(items) {
		e, err = items[idx].event()
	}
	if e == nil && err == nil {
		return nil, errs.New(errs.NotFound, "there is no event at item %d of block %d", idx, seq)
	}
	return e, err
}
