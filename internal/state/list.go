package state

import (
	"cmp"
	"context"
	"slices"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ebb-run/ebb/internal/errs"
)

// each calls f for what is stored under keys that match the filter, in the store's order, with one short-lived consumer.
func (s *Store) each(ctx context.Context, filter string, f func(jetstream.KeyValueEntry) error, opts ...jetstream.WatchOpt) error {
	w, err := s.kv.Watch(ctx, filter, append(opts, jetstream.IgnoreDeletes())...)
	if err != nil {
		return fail(ctx, "list control state", err)
	}
	defer func() { _ = w.Stop() }()
	gone := s.conn.StatusChanged(natsgo.CLOSED)
	defer s.conn.RemoveStatusListener(gone)
	for {
		select {
		case e, ok := <-w.Updates():
			switch {
			case !ok:
				return fail(ctx, "list control state", cmp.Or(ctx.Err(), natsgo.ErrConnectionClosed))
			case e == nil: // that was all
				return nil
			}
			if err := f(e); err != nil {
				return err
			}
		case <-gone:
			return fail(ctx, "list control state", natsgo.ErrConnectionClosed)
		case <-ctx.Done():
			return fail(ctx, "list control state", ctx.Err())
		}
	}
}

// Stacks lists what is deployed, sorted by Tenant, App and Stage.
func (s *Store) Stacks(ctx context.Context) ([]StackKey, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	var out []StackKey
	err := s.each(ctx, "*."+kindPointer+".*.*", func(e jetstream.KeyValueEntry) error {
		if k, _, ok := stackOf(e.Key(), kindPointer); ok {
			out = append(out, k)
		}
		return nil
	}, jetstream.MetaOnly())
	if err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(a, b StackKey) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.App, b.App), cmp.Compare(a.Stage, b.Stage))
	})
	return out, nil
}

// Artifacts returns the digests that Deployments which are kept need. One that is being Put at the same time may be missing:
// who removes Artifacts spares young ones.
func (s *Store) Artifacts(ctx context.Context) (map[string]bool, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	out := map[string]bool{}
	err := s.each(ctx, "*."+kindSummary+".*.*.*", func(e jetstream.KeyValueEntry) error {
		k, _, _ := stackOf(e.Key(), kindSummary)
		m, err := readSummary(k, e)
		for _, a := range m.Artifacts {
			out[a] = true
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Watch calls f for every Stack's Pointer as it is, then for every change in order, the zero Pointer when a Stack was removed.
// It blocks until ctx ends, which is no error, or the connection is lost for good. f must not block for long. A Pointer that is
// damaged is left out, so that the other Stacks are served; Current says what is wrong with it.
func (s *Store) Watch(ctx context.Context, f func(StackKey, Pointer)) error {
	w, err := s.kv.Watch(ctx, "*."+kindPointer+".*.*")
	if err != nil {
		return fault("watch control state", err)
	}
	defer func() { _ = w.Stop() }()
	gone := s.conn.StatusChanged(natsgo.CLOSED)
	defer s.conn.RemoveStatusListener(gone)
	if s.conn.IsClosed() {
		return fault("watch control state", natsgo.ErrConnectionClosed)
	}
	for {
		select {
		case e, ok := <-w.Updates():
			if !ok {
				if ctx.Err() != nil {
					return nil
				}
				return fault("watch control state", natsgo.ErrConnectionClosed)
			}
			if e == nil {
				continue
			}
			k, _, ok := stackOf(e.Key(), kindPointer)
			if !ok {
				continue
			}
			if e.Operation() != jetstream.KeyValuePut {
				f(k, Pointer{})
				continue
			}
			p, err := readPointer(k, e)
			if errs.CodeOf(err) == errs.Unsupported {
				return err
			}
			if err == nil {
				f(k, p)
			}
		case <-gone:
			return fault("watch control state", natsgo.ErrConnectionClosed)
		case <-ctx.Done():
			return nil
		}
	}
}
