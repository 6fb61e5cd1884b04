package engine

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
)

// routeKey is how an Invocation names a Function.
type routeKey struct{ tenant, function string }

// route is where Invocations of one Function go. It never changes.
type route struct {
	pool     *pool
	function *Function
	ceiling  *ceiling
}

// routes never changes once it is stored.
type routes struct{ byName map[routeKey]*route }

func (e *Engine) lookup(inv *invocation.Invocation) *route {
	return e.routes.Load().byName[routeKey{inv.Tenant, inv.Function}]
}

func (f *Function) timeout() time.Duration {
	if f.Timeout <= 0 {
		return defaultTimeout
	}
	return f.Timeout
}

// deployed is what a Stack serves. It never changes.
type deployed struct {
	seq   uint64
	units []*Unit
	pools []*pool // of each Unit
}

// find returns the pool of a Revision of a Unit, or the pool of its last Revision with same false, or nil.
func (d *deployed) find(u *Unit) (p *pool, same bool) {
	if d == nil {
		return nil, false
	}
	for k, old := range d.units {
		if old.ID == u.ID {
			return d.pools[k], old.Revision == u.Revision
		}
	}
	return nil, false
}

// Staged is a new state of a Stack that does not serve yet. Either Commit or Abort ends it; further calls do nothing.
type Staged struct {
	e     *Engine
	stack string
	units []*Unit
	fresh map[*Unit]*pool // probed
	fails []error
	once  sync.Once
}

// Failures are those of changed Units that do not start and are let through, because no Revision that starts would be
// replaced by them.
func (s *Staged) Failures() []error { return s.fails }

// Stage prepares a new state of a Stack. With probe it starts one Instance of each changed Unit of a Stack that already
// serves; when one does not start the error is an errs.Failed with a *StartError, and nothing has changed. But a Unit
// that is new, or whose Revision until now does not start either, stops nobody: see Staged.Failures. A Unit that cannot
// be probed because the Node has no room for another Instance now counts as good.
func (e *Engine) Stage(ctx context.Context, stack string, units []*Unit, probe bool) (*Staged, error) {
	if err := check(units); err != nil {
		return nil, err
	}
	s := &Staged{e: e, stack: stack, units: slices.Clone(units), fresh: map[*Unit]*pool{}}
	until := map[*Unit]*pool{} // what a changed Unit would replace
	e.mu.Lock()
	if e.mu.closed || e.closing.Load() {
		e.mu.Unlock()
		return nil, closedErr()
	}
	if current := e.mu.stacks[stack]; current != nil && probe {
		for _, u := range s.units {
			if before, same := current.find(u); !same {
				p := e.newPool(stack, u, before)
				s.fresh[u] = p
				until[u] = before
			}
		}
		e.addPoolsLocked(slices.Collect(maps.Values(s.fresh)))
	}
	e.mu.Unlock()

	var wg sync.WaitGroup
	var mu sync.Mutex
	failed := map[*Unit]error{}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for u, p := range s.fresh {
		wg.Go(func() {
			err := p.probe(ctx)
			if err == nil {
				return
			}
			veto := ctx.Err() != nil || e.closing.Load() || until[u].starts(ctx)
			mu.Lock()
			defer mu.Unlock()
			if veto {
				failed[u] = err
			} else {
				s.fails = append(s.fails, err)
			}
		})
	}
	wg.Wait()
	var all []error
	for _, u := range s.units {
		if err := failed[u]; err != nil {
			all = append(all, err)
		}
	}
	switch len(all) {
	case 0:
		return s, nil
	case 1:
		s.Abort()
		return nil, all[0]
	}
	s.Abort()
	return nil, errs.New(errs.CodeOf(all[0]), "%w", errors.Join(all...))
}

// check refuses what cannot be served.
func check(units []*Unit) error {
	ids, names := map[string]bool{}, map[routeKey]bool{}
	for _, u := range units {
		if ids[u.ID] {
			return errs.New(errs.Invalid, "unit %s is given twice", u.ID)
		}
		ids[u.ID] = true
		if u.Driver == nil || u.Protocol == nil || u.Guest == nil {
			return errs.New(errs.Invalid, "unit %s lacks a driver, a protocol or a guest", u.ID)
		}
		for _, f := range u.Functions {
			k := routeKey{u.Tenant, f.Name}
			if names[k] {
				return errs.New(errs.Invalid, "function %s is given twice", f.Name)
			}
			names[k] = true
		}
	}
	return nil
}

// starts says whether Instances of this Revision start. One that has not been asked to yet is tried.
func (p *pool) starts(ctx context.Context) bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	proven := p.mu.proven
	p.mu.Unlock()
	return proven || p.probe(ctx) == nil
}

// probe starts one Instance, which is Idle afterwards.
func (p *pool) probe(ctx context.Context) error {
	now := time.Now()
	c := &call{e: p.e, arrived: now, by: now.Add(p.e.o.QueueTimeout), run: &run{}}
	p.mu.Lock()
	if p.mu.retired {
		p.mu.Unlock()
		return closedErr()
	}
	g, err := c.queue(ctx, p)
	switch {
	case errs.CodeOf(err) == errs.Throttled, errs.CodeOf(err) == errs.Unavailable && !p.e.closing.Load():
		p.e.o.Log.Warn("no room to try a new revision before it serves", "unit", p.unit.ID, "err", err)
		return nil
	case err != nil:
		return err
	case g.moved:
		return closedErr()
	case g.fail != nil:
		return g.fail.error()
	}
	p.give(c.run, unused, 0, nil)
	return nil
}

// Commit makes the new state serve. Units with the same ID and Revision keep their Instances.
func (s *Staged) Commit() {
	s.once.Do(func() {
		e := s.e
		e.mu.Lock()
		old := e.mu.stacks[s.stack]
		next := &deployed{seq: e.mu.seq, units: s.units}
		e.mu.seq++
		keep := map[*pool]bool{}
		var added, floors []*pool
		for _, u := range s.units {
			p, same := old.find(u)
			if !same {
				before := p
				if p = s.fresh[u]; p == nil {
					p = e.newPool(s.stack, u, before)
					added = append(added, p)
				}
			}
			p.latest.Store(u)
			if u.Provisioned != nil || p.floor.Load() > 0 {
				floors = append(floors, p)
			}
			keep[p] = true
			next.pools = append(next.pools, p)
		}
		e.addPoolsLocked(added)
		var gone []*pool
		for _, p := range s.fresh {
			if !keep[p] {
				gone = append(gone, p)
			}
		}
		if old != nil {
			for _, p := range old.pools {
				if !keep[p] {
					gone = append(gone, p)
				}
			}
		}
		if e.mu.closed {
			gone = append(gone, next.pools...)
		}
		e.mu.stacks[s.stack] = next
		e.rebuildLocked()
		e.mu.Unlock()
		for _, p := range gone {
			p.retire()
		}
		for _, p := range floors {
			p.floorAt(time.Now())
		}
	})
}

// Abort gives the new state up and stops its Instances.
func (s *Staged) Abort() {
	s.once.Do(func() {
		for _, p := range s.fresh {
			p.retire()
		}
	})
}

// Remove makes a Stack serve no more; its Instances drain.
func (e *Engine) Remove(stack string) {
	e.mu.Lock()
	old := e.mu.stacks[stack]
	delete(e.mu.stacks, stack)
	e.rebuildLocked()
	e.mu.Unlock()
	if old != nil {
		for _, p := range old.pools {
			p.retire()
		}
	}
}

// shareOf gives what makes a Function's share of its ceiling, or nil.
func (e *Engine) shareOf(key routeKey, c *ceiling) func(int) Share {
	if e.o.Sharer == nil {
		return nil
	}
	return func(limit int) Share { return e.o.Sharer.Share(key.tenant, key.function, limit, c.give) }
}

// rebuildLocked swaps the routes for those of the Stacks as they are now. Where two Stacks have a Function of the same
// name the later Commit has it.
func (e *Engine) rebuildLocked() {
	stacks := slices.SortedFunc(maps.Values(e.mu.stacks), func(a, b *deployed) int { return cmp.Compare(a.seq, b.seq) })
	byName := map[routeKey]*route{}
	ceilings := map[routeKey]*ceiling{}
	for _, d := range stacks {
		for k, u := range d.units {
			for j := range u.Functions {
				f := &u.Functions[j]
				key := routeKey{u.Tenant, f.Name}
				c := e.mu.ceilings[key]
				if c == nil {
					c = &ceiling{}
				}
				ceilings[key] = c
				c.set(f.Reserved, e.shareOf(key, c))
				byName[key] = &route{pool: d.pools[k], function: f, ceiling: c}
			}
		}
	}
	for key, c := range e.mu.ceilings {
		if ceilings[key] == nil && !c.unused() {
			ceilings[key] = c // what still runs counts when the Function comes back
		}
	}
	e.mu.ceilings = ceilings
	e.routes.Store(&routes{byName})
}
