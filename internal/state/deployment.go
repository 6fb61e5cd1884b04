package state

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ebb-run/ebb/internal/errs"
)

// Put writes a Deployment, and sets its ID and Created where they are empty. It changes nothing of what runs: SetCurrent
// does. errs.Exists when the ID is taken, errs.TooLarge when it cannot be stored.
func (s *Store) Put(ctx context.Context, d *Deployment) error {
	if err := d.Stack.check(); err != nil {
		return err
	}
	if d.App == nil {
		return errs.New(errs.Invalid, "deployment of %s has no app", d.Stack)
	}
	if len(d.By) > maxText || len(d.Message) > maxText || len(d.ID) > 64 {
		return errs.New(errs.Invalid, "deployment of %s: the message and who deploys may have %d bytes, the ID 64", d.Stack, maxText)
	}
	c := *d
	if c.Created.IsZero() {
		c.Created = s.now()
	}
	// As it will be read: UTC, no monotonic part.
	c.Created = c.Created.UTC().Truncate(time.Millisecond)
	if c.ID == "" {
		c.ID = newID(c.Created)
	}
	key := c.Stack.record(c.ID)
	rec, err := s.seal(key, &c)
	if err != nil {
		return err
	}
	sum, err := summarize(&c)
	if err != nil {
		return err
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	step := "write deployment of " + c.Stack.String()
	// A record without a summary, left by a crash between the two, is never listed and cannot become current.
	if _, err := s.kv.Create(ctx, key, rec); err != nil {
		if errors.Is(err, jetstream.ErrKeyExists) {
			return errs.New(errs.Exists, "deployment %s of %s is already there", c.ID, c.Stack)
		}
		return fail(ctx, step, err)
	}
	if _, err := s.kv.Put(ctx, c.Stack.summary(c.ID), sum); err != nil {
		return fail(ctx, step, err)
	}
	d.ID, d.Created = c.ID, c.Created
	return nil
}

// Deployment reads a Deployment. errs.NotFound when there is none, errs.Failed when it is damaged.
func (s *Store) Deployment(ctx context.Context, k StackKey, id string) (*Deployment, error) {
	if err := k.check(); err != nil {
		return nil, err
	}
	if id == "" {
		return nil, noDeployment(k, id)
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	e, err := s.kv.Get(ctx, k.record(id))
	if missing(err) {
		return nil, noDeployment(k, id)
	}
	if err != nil {
		return nil, fail(ctx, "read deployment of "+k.String(), err)
	}
	return s.open(k.record(id), k, e.Value())
}

func missing(err error) bool {
	return errors.Is(err, jetstream.ErrKeyNotFound) // ErrKeyDeleted is one too
}

func noDeployment(k StackKey, id string) error {
	return errs.New(errs.NotFound, "%s has no deployment %q", k, id)
}

// pointer is a Pointer as it is stored.
type pointer struct {
	Format     int       `json:"format"`
	Deployment string    `json:"deployment"`
	Previous   string    `json:"previous,omitempty"`
	Changed    time.Time `json:"changed"`
}

func readPointer(k StackKey, e jetstream.KeyValueEntry) (Pointer, error) {
	var p pointer
	if err := json.Unmarshal(e.Value(), &p); err != nil || p.Format < 1 || p.Deployment == "" {
		return Pointer{}, damaged(k, "the pointer to its deployment cannot be read")
	}
	if p.Format > Format {
		return Pointer{}, newer("the pointer of "+k.String(), p.Format)
	}
	return Pointer{p.Deployment, p.Previous, p.Changed, e.Revision()}, nil
}

// Current reads which Deployment is current. errs.NotFound when the Stack has none.
func (s *Store) Current(ctx context.Context, k StackKey) (Pointer, error) {
	if err := k.check(); err != nil {
		return Pointer{}, err
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	e, err := s.kv.Get(ctx, k.pointer())
	if missing(err) {
		return Pointer{}, errs.New(errs.NotFound, "nothing is deployed as %s", k)
	}
	if err != nil {
		return Pointer{}, fail(ctx, "read current deployment of "+k.String(), err)
	}
	return readPointer(k, e)
}

// SetCurrent makes the Deployment current, if the Pointer still has the Seq expect, or does not exist for 0: else it is
// errs.Conflict and nothing has changed. errs.NotFound when there is no such Deployment. After an error of any other code the
// caller reads Current to learn whether the change was made. Deployments beyond the Store's history are then removed.
func (s *Store) SetCurrent(ctx context.Context, k StackKey, id string, expect uint64) (Pointer, error) {
	if err := k.check(); err != nil {
		return Pointer{}, err
	}
	next := Pointer{Deployment: id, Changed: s.now().UTC().Truncate(time.Millisecond)}
	if expect != 0 {
		cur, err := s.Current(ctx, k)
		if err != nil && errs.CodeOf(err) != errs.NotFound {
			return Pointer{}, err
		}
		if cur.Seq != expect {
			return Pointer{}, conflict(k)
		}
		next.Previous = cur.Deployment
		if cur.Deployment == id {
			next.Previous = cur.Previous
		}
	}
	if err := s.complete(ctx, k, id); err != nil {
		return Pointer{}, err
	}
	data, err := json.Marshal(pointer{Format, next.Deployment, next.Previous, next.Changed})
	if err != nil {
		return Pointer{}, err
	}
	bctx, cancel := bound(ctx)
	defer cancel()
	if expect == 0 {
		next.Seq, err = s.kv.Create(bctx, k.pointer(), data)
	} else {
		next.Seq, err = s.kv.Update(bctx, k.pointer(), data, expect)
	}
	switch {
	case errors.Is(err, jetstream.ErrKeyExists), errors.Is(err, jetstream.ErrKeyRevisionMismatch):
		return Pointer{}, conflict(k)
	case err != nil:
		return Pointer{}, fail(bctx, "change current deployment of "+k.String(), err)
	}
	// What could not be removed now goes with the next change; this one is made.
	_ = s.prune(ctx, k, next)
	return next, nil
}

// complete tells whether a Deployment can become current: both its records are there, and the sealed one can be read in full.
func (s *Store) complete(ctx context.Context, k StackKey, id string) error {
	if _, err := s.Deployment(ctx, k, id); err != nil {
		return err
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	_, err := s.kv.Get(ctx, k.summary(id))
	switch {
	case missing(err):
		return noDeployment(k, id)
	case err != nil:
		return fail(ctx, "read deployment of "+k.String(), err)
	}
	return nil
}

func conflict(k StackKey) error {
	return errs.New(errs.Conflict, "the current deployment of %s was changed meanwhile", k).
		WithHint("Look at what is deployed now, and try again.")
}

// prune removes the oldest Deployments, but never what the Pointer names. The record goes first: a summary without one is
// found again by the next prune, a record without a summary would not be.
func (s *Store) prune(ctx context.Context, k StackKey, p Pointer) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	all, err := s.summaries(ctx, k)
	if err != nil || len(all) <= s.history {
		return err
	}
	for _, e := range all[s.history:] {
		if e.ID == p.Deployment || e.ID == p.Previous {
			continue
		}
		if err := errors.Join(s.purge(ctx, k.record(e.ID)), s.purge(ctx, k.summary(e.ID))); err != nil {
			return err
		}
	}
	return nil
}

// purge removes what is stored under keys that match, without leaving markers.
func (s *Store) purge(ctx context.Context, keys string) error {
	return s.stream.Purge(ctx, jetstream.WithPurgeSubject(subjects+keys))
}

// Remove removes a Stack: first its Pointer, which is what counts, then its Deployments. errs.NotFound when there is
// nothing of it. After an error it can be called again.
func (s *Store) Remove(ctx context.Context, k StackKey) error {
	if err := k.check(); err != nil {
		return err
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	step := "remove " + k.String()
	_, err := s.kv.Get(ctx, k.pointer())
	switch {
	case missing(err):
		all, err := s.summaries(ctx, k)
		if err != nil {
			return err
		}
		if len(all) == 0 {
			return errs.New(errs.NotFound, "nothing is deployed as %s", k)
		}
	case err != nil:
		return fail(ctx, step, err)
	default:
		// Leaves a marker, which watchers see.
		if err := s.kv.Delete(ctx, k.pointer()); err != nil {
			return fail(ctx, step, err)
		}
	}
	for _, kind := range []string{kindRecord, kindSummary} {
		if err := s.purge(ctx, k.join(kind)+".>"); err != nil {
			return fail(ctx, step, err)
		}
	}
	return nil
}

// History lists the Deployments that are kept, newest first. A Stack that was never deployed has none.
func (s *Store) History(ctx context.Context, k StackKey) ([]Summary, error) {
	if err := k.check(); err != nil {
		return nil, err
	}
	cur, err := s.Current(ctx, k)
	if err != nil && errs.CodeOf(err) != errs.NotFound {
		return nil, err
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	all, err := s.summaries(ctx, k)
	if err != nil {
		return nil, err
	}
	out := make([]Summary, 0, len(all))
	for _, e := range all {
		out = append(out, Summary{e.ID, e.Created, e.By, e.Message, e.Functions, e.ID == cur.Deployment})
	}
	return out, nil
}

// summaries reads the summaries of a Stack in the order in which they were written, newest first. The store's own order does
// not depend on clocks.
func (s *Store) summaries(ctx context.Context, k StackKey) ([]summary, error) {
	var out []summary
	var seqs []uint64
	err := s.each(ctx, k.join(kindSummary)+".*", func(e jetstream.KeyValueEntry) error {
		m, err := readSummary(k, e)
		i, _ := slices.BinarySearchFunc(seqs, e.Revision(), func(have, want uint64) int {
			if have > want {
				return -1
			}
			return 1
		})
		out, seqs = slices.Insert(out, i, m), slices.Insert(seqs, i, e.Revision())
		return err
	})
	return out, err
}

func readSummary(k StackKey, e jetstream.KeyValueEntry) (summary, error) {
	var m summary
	if err := json.Unmarshal(e.Value(), &m); err != nil || m.Format < 1 {
		return m, damaged(k, "a summary cannot be read")
	}
	if m.Format > Format {
		return m, newer("deployment "+m.ID+" of "+k.String(), m.Format)
	}
	return m, nil
}
