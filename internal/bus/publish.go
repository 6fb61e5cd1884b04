package bus

import (
	"context"
	"fmt"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
)

// Receipt says where a published event stands in the log.
type Receipt struct {
	Partition int
	Seq       uint64 // of the block
	Item      int    // in the block
	// Duplicate says that the same event was published by another caller at the same moment. An earlier one in the window is found only when
	// the log is read; then this is false, and nothing is delivered twice all the same.
	Duplicate bool
}

// Publish returns when every event is durable. The events of one call that go to one Partition stand in the log together and in their order where
// they fit into a block; all of them with the same partitionkey do so in any case.
//
// An event that is not valid or too large is refused before any is written. Any other error leaves open which events are durable:
// publish all again, with the same ids. Publish waits while the bus is full, until ctx ends; the code is then Throttled.
func (b *Bus) Publish(ctx context.Context, events ...*event.Event) ([]Receipt, error) {
	for i, e := range events {
		if e == nil {
			return nil, errs.New(errs.Invalid, "event %d is missing", i)
		}
		err := e.Validate(b.opt.Limits.Event)
		if n := e.Size() - len(e.Data); err == nil && n > MaxHead {
			err = errs.New(errs.TooLarge, "the event's attributes have %d bytes, the limit is %d", n, MaxHead).WithHint("Put them into the data.")
		}
		if err != nil {
			if len(events) > 1 {
				return nil, errs.New(errs.CodeOf(err), "event %d: %w", i, err)
			}
			return nil, err
		}
	}
	if len(events) == 1 {
		h := hashEvent(events[0])
		p := b.partitionOf(events[0], h)
		at, dup, err := p.log.appendOnce(ctx, eventItem(events[0]), h)
		if err != nil {
			return nil, fmt.Errorf("publish: %w", err)
		}
		b.passes(AtAccepted)
		return []Receipt{{p.num, at.seq, at.first, dup}}, nil
	}
	return b.publishMany(ctx, events)
}

// publishMany appends a request for each Partition, or several where a block is full, all under way at once.
func (b *Bus) publishMany(ctx context.Context, events []*event.Event) ([]Receipt, error) {
	type group struct {
		p     *partition
		r     *request
		index []int // of the events
		size  int
	}
	out := make([]Receipt, len(events))
	first := map[hash]int{} // of duplicates within the call
	open := map[*partition]*group{}
	var groups []*group
	for i, e := range events {
		h := hashEvent(e)
		p := b.partitionOf(e, h)
		if _, ok := first[h]; ok && out[first[h]].Partition == p.num {
			out[i] = Receipt{Partition: p.num, Duplicate: true}
			continue
		}
		first[h] = i
		out[i].Partition = p.num
		it := eventItem(e)
		g := open[p]
		if g == nil || g.size+it.size() > maxBlock || len(g.r.items) == maxItems {
			g = &group{p: p, r: &request{done: make(chan struct{})}}
			open[p], groups = g, append(groups, g)
		}
		g.r.items, g.index, g.size = append(g.r.items, it), append(g.index, i), g.size+it.size()
	}
	// The order of the queue is the order of the log.
	for _, g := range groups {
		if err := g.p.log.enqueue(ctx, g.r); err != nil {
			return nil, fmt.Errorf("publish: %w", err)
		}
	}
	for _, g := range groups {
		at, err := g.p.log.wait(ctx, g.r)
		if err != nil {
			return nil, fmt.Errorf("publish: %w", err)
		}
		for k, i := range g.index {
			out[i].Seq, out[i].Item = at.seq, at.first+k
		}
	}
	b.passes(AtAccepted)
	for i, e := range events {
		if out[i].Duplicate {
			f := out[first[hashEvent(e)]]
			out[i].Seq, out[i].Item = f.Seq, f.Item
		}
	}
	return out, nil
}
