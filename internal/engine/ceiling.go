package engine

import (
	"context"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

// Sharer shares the Reserved ceilings of Functions among Nodes.
type Sharer interface {
	// Share begins. give says how many Invocations may run on this Node from then on, and until when that holds; it answers how many do. It is called from
	// a goroutine of the Sharer's, one call at a time, and never from within a Share's methods.
	Share(tenant, function string, ceiling int, give func(n int, until time.Time) (running int)) Share
}

// Share is this Node's part of a ceiling. Its methods are called under locks, and return at once.
type Share interface {
	Tell(running, waiting int) // what runs and waits here now
	Ceiling(n int)             // changes it
}

// ceiling counts the Invocations of one Function over all its Revisions and holds back those over its limit.
type ceiling struct {
	mu struct {
		sync.Mutex
		limit   int // -1 means none
		running int
		waiters fifo
		share   Share // nil where this Node is alone
		may     int   // with a share: how many may run on this Node
		until   time.Time
	}
}

func (c *ceiling) roomLocked() bool {
	switch {
	case c.mu.limit < 0:
		return true
	case c.mu.share == nil || c.mu.limit == 0:
		return c.mu.running < c.mu.limit
	}
	return c.mu.running < min(c.mu.may, c.mu.limit) && time.Now().Before(c.mu.until)
}

// tellLocked lets the share know what runs and waits.
func (c *ceiling) tellLocked() {
	if c.mu.share != nil && c.mu.limit != 0 {
		c.mu.share.Tell(c.mu.running, c.mu.waiters.len)
	}
}

// give takes this Node's part.
func (c *ceiling) give(n int, until time.Time) (running int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.may, c.mu.until = n, until
	c.pumpLocked()
	c.tellLocked()
	return c.mu.running
}

// enter takes a place, or waits for one until the deadline.
func (c *ceiling) enter(ctx context.Context, e *Engine, name string, deadline time.Time) error {
	c.mu.Lock()
	if c.mu.waiters.len == 0 && c.roomLocked() {
		c.mu.running++
		c.tellLocked()
		c.mu.Unlock()
		return nil
	}
	limit := c.mu.limit
	if limit == 0 || c.mu.waiters.len >= e.o.Queue {
		c.mu.Unlock()
		return throttled(time.Second, "%s is at its reserved concurrency of %d", name, limit)
	}
	w := &waiter{ready: make(chan grant, 1)}
	c.mu.waiters.push(w)
	c.tellLocked()
	c.mu.Unlock()

	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	var err error
	select {
	case g := <-w.ready:
		return g.err
	case <-ctx.Done():
		err = ended(ctx)
	case <-e.dead:
		err = closedErr()
	case <-timer.C:
		err = throttled(time.Second, "%s was at its reserved concurrency of %d for %v", name, limit, e.o.QueueTimeout)
	}
	c.mu.Lock()
	left := c.mu.waiters.remove(w)
	if left {
		c.tellLocked()
	}
	c.mu.Unlock()
	if !left {
		if g := <-w.ready; g.err == nil {
			c.leave()
		}
	}
	return err
}

// leave gives a place back.
func (c *ceiling) leave() {
	c.mu.Lock()
	c.mu.running--
	c.pumpLocked()
	c.tellLocked()
	c.mu.Unlock()
}

// set changes the limit; nil means none. share makes a share where there is none yet; nil where this Node is alone.
func (c *ceiling) set(reserved *int, share func(limit int) Share) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if reserved == nil {
		if c.mu.share != nil {
			c.mu.share.Tell(0, 0)
		}
		c.mu.limit, c.mu.share = -1, nil
	} else {
		c.mu.limit = max(*reserved, 0)
	}
	if c.mu.limit > 0 && share != nil {
		if c.mu.share == nil {
			c.mu.share, c.mu.may = share(c.mu.limit), 0
		}
		c.mu.share.Ceiling(c.mu.limit)
	}
	c.pumpLocked()
	c.tellLocked()
	if c.mu.limit == 0 {
		for w := c.mu.waiters.pop(); w != nil; w = c.mu.waiters.pop() {
			w.ready <- grant{err: throttled(time.Second, "the reserved concurrency was set to 0")}
		}
	}
}

func (c *ceiling) pumpLocked() {
	for c.mu.waiters.len > 0 && c.roomLocked() {
		c.mu.running++
		c.mu.waiters.pop().ready <- grant{}
	}
}

func (c *ceiling) unused() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.running == 0 && c.mu.waiters.len == 0
}

// waiter is an Invocation in a queue. Whoever removes it from the queue, and nobody else, sends one grant.
type waiter struct {
	ready      chan grant
	run        *run
	seq        uint64
	queued     bool
	next, prev *waiter
}

// grant is what an Invocation waited for: an Instance, or the reason why there is none.
type grant struct {
	inst  *instance
	cold  bool
	moved bool          // the pool is retired: look up the Function again
	fail  *startFailure // the Instance it waited for failed to start
	err   error
}

// fifo is a queue of waiters from which any can be removed.
type fifo struct {
	head, tail *waiter
	len        int
}

func (q *fifo) push(w *waiter) {
	w.queued = true
	w.prev, w.next = q.tail, nil
	if q.tail != nil {
		q.tail.next = w
	} else {
		q.head = w
	}
	q.tail = w
	q.len++
}

func (q *fifo) remove(w *waiter) bool {
	if !w.queued {
		return false
	}
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		q.head = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		q.tail = w.prev
	}
	w.queued, w.next, w.prev = false, nil, nil
	q.len--
	return true
}

func (q *fifo) pop() *waiter {
	w := q.head
	if w != nil {
		q.remove(w)
	}
	return w
}

func closedErr() error { return errs.New(errs.Unavailable, "the server is shutting down") }
