package engine

import (
	"context"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

// ceiling counts the Invocations of one Function over all its Revisions and holds back those over its limit.
type ceiling struct {
	mu struct {
		sync.Mutex
		limit   int // -1 means none
		running int
		waiters fifo
	}
}

// enter takes a place, or waits for one until the deadline.
func (c *ceiling) enter(ctx context.Context, e *Engine, name string, deadline time.Time) error {
	c.mu.Lock()
	if c.mu.limit < 0 || c.mu.running < c.mu.limit {
		c.mu.running++
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
	c.mu.Unlock()
}

// set changes the limit; nil means none.
func (c *ceiling) set(reserved *int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.limit = -1
	if reserved != nil {
		c.mu.limit = max(*reserved, 0)
	}
	c.pumpLocked()
	if c.mu.limit == 0 {
		for w := c.mu.waiters.pop(); w != nil; w = c.mu.waiters.pop() {
			w.ready <- grant{err: throttled(time.Second, "the reserved concurrency was set to 0")}
		}
	}
}

func (c *ceiling) pumpLocked() {
	for c.mu.waiters.len > 0 && (c.mu.limit < 0 || c.mu.running < c.mu.limit) {
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
