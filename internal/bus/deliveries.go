package bus

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/ebb-run/ebb/internal/errs"
)

// parseID reads what did.id wrote.
func parseID(s string) (did, int, error) {
	parts := strings.Split(s, "-")
	var n [4]uint64
	bad := len(parts) != len(n)
	for i := 0; i < len(n) && !bad; i++ {
		var err error
		n[i], err = strconv.ParseUint(parts[i], 16, 63)
		bad = err != nil
	}
	if bad || n[0] > 1<<20 || n[2] > 1<<40 {
		return did{}, 0, errs.New(errs.Invalid, "%q is not the ID of a delivery", clip(s))
	}
	return did{n[1], int(n[2]), int64(n[3])}, int(n[0]), nil
}

// partitionOfID gives the Partition that an ID names.
func (b *Bus) partitionOfID(id string) (*partition, error) {
	_, part, err := parseID(id)
	if err != nil {
		return nil, err
	}
	if part >= len(b.parts) {
		return nil, errs.New(errs.NotFound, "there is no delivery %s", id)
	}
	return b.parts[part], nil
}

// Status tells all that is known of a delivery.
func (b *Bus) Status(ctx context.Context, id string) (Status, error) {
	p, err := b.partitionOfID(id)
	if err != nil {
		return Status{}, err
	}
	r, err := b.ask(ctx, p, question{ID: id})
	if err != nil {
		return Status{}, err
	}
	return r.Statuses[0], nil
}

// StatusOfEvent tells of all deliveries of an event, replayed ones included. None is no error: nothing may have matched, or the event may not be
// folded yet.
func (b *Bus) StatusOfEvent(ctx context.Context, channel, source, id string) ([]Status, error) {
	h := hashOf(channel, source, id)
	return b.gather(ctx, func(int) *question { return &question{Event: h[:]} })
}

// List gives deliveries in the order of Partition and log, or the newest first.
func (b *Bus) List(ctx context.Context, q Query) ([]Status, error) {
	if q.Limit <= 0 {
		q.Limit = 100
	}
	from := 0
	if q.After != "" {
		var err error
		if _, from, err = parseID(q.After); err != nil {
			return nil, err
		}
	}
	list, err := b.gather(ctx, func(part int) *question {
		if part < from {
			return nil
		}
		return &question{Query: &q}
	})
	if q.Newest {
		slices.SortStableFunc(list, func(a, b Status) int { return b.Published.Compare(a.Published) })
		list = list[:min(len(list), max(q.Limit, 1))]
	}
	return list, err
}

func (b *Bus) gather(ctx context.Context, q func(part int) *question) ([]Status, error) {
	var out []Status
	for _, p := range b.parts {
		ask := q(p.num)
		if ask == nil {
			continue
		}
		r, err := b.ask(ctx, p, *ask)
		if err != nil {
			return nil, err
		}
		out = append(out, r.Statuses...)
	}
	return out, nil
}

// Subscriptions gives all that stand, by name.
func (b *Bus) Subscriptions(ctx context.Context) ([]Subscription, error) {
	r, err := b.ask(ctx, b.parts[0], question{Subs: true})
	if err != nil {
		return nil, err
	}
	return r.Subs, nil
}

// Counts counts deliveries. It reads a row of each Subscription and state, however many there are.
func (b *Bus) Counts(ctx context.Context) (Counts, error) {
	out := Counts{}
	for _, p := range b.parts {
		r, err := b.ask(ctx, p, question{Counts: true})
		if err != nil {
			return nil, err
		}
		for name, states := range r.Counts {
			if out[name] == nil {
				out[name] = map[State]int{}
			}
			for s, n := range states {
				out[name][s] += n
			}
		}
	}
	return out, nil
}

// Running tells how many deliveries of each Subscription its target has now.
func (b *Bus) Running(ctx context.Context) (map[string]int, error) {
	out := map[string]int{}
	for _, p := range b.parts {
		r, err := b.ask(ctx, p, question{Running: true})
		if err != nil {
			return nil, err
		}
		for name, n := range r.Running {
			out[name] += n
		}
	}
	return out, nil
}

// Count tells how many of the chosen deliveries stand in one of the states.
func (b *Bus) Count(ctx context.Context, s Selection, states ...State) (int, error) {
	byPart, err := b.split(s)
	if err != nil {
		return 0, err
	}
	all := 0
	for _, p := range b.parts {
		one, ok := byPart[p]
		if !ok {
			continue
		}
		r, err := b.ask(ctx, p, question{Count: &tally{one, states}})
		if err != nil {
			return 0, err
		}
		all += r.Count
	}
	return all, nil
}

// Sync waits until everything that was acknowledged before the call is in the index, so that a question finds it.
func (b *Bus) Sync(ctx context.Context) error {
	for _, p := range b.parts {
		info, err := p.stream.Info(ctx)
		if err != nil {
			return fault("read the state of the event log", err)
		}
		if info.State.LastSeq == 0 {
			continue
		}
		if _, err := b.ask(ctx, p, question{Reach: info.State.LastSeq}); err != nil {
			return err
		}
	}
	return nil
}

// Redrive gives the chosen dead letters all their attempts again. It returns when the request is durable.
func (b *Bus) Redrive(ctx context.Context, s Selection) error { return b.selected(ctx, kindRedrive, s) }

// Cancel ends the chosen deliveries that have not ended; a running call of Deliver is told by its context. It returns when the request is durable.
func (b *Bus) Cancel(ctx context.Context, s Selection) error { return b.selected(ctx, kindCancel, s) }

// maxSelected bounds the IDs of a Selection.
const maxSelected = 10_000

func (b *Bus) selected(ctx context.Context, k kind, s Selection) error {
	byPart, err := b.split(s)
	if err != nil {
		return err
	}
	for p, one := range byPart {
		if _, err := p.log.append(ctx, []item{jsonItem(k, one)}); err != nil {
			return err
		}
		if k == kindRedrive {
			b.passes(AtRedriving)
		}
	}
	return nil
}

// split gives each Partition its part of a Selection.
func (b *Bus) split(s Selection) (map[*partition]Selection, error) {
	if s.empty() {
		return nil, errs.New(errs.Invalid, "nothing is selected").WithHint("Name IDs, a subscription or a cause, or ask for all.")
	}
	if len(s.IDs) > maxSelected {
		return nil, errs.New(errs.TooLarge, "%d IDs are selected, the limit is %d", len(s.IDs), maxSelected)
	}
	byPart := map[*partition]Selection{}
	if len(s.IDs) == 0 {
		for _, p := range b.parts {
			byPart[p] = s
		}
		return byPart, nil
	}
	for _, id := range s.IDs {
		p, err := b.partitionOfID(id)
		if err != nil {
			return nil, err
		}
		one, ok := byPart[p]
		if !ok {
			one = s
			one.IDs = nil
		}
		one.IDs = append(one.IDs, id)
		byPart[p] = one
	}
	return byPart, nil
}
