package gateway

import (
	"context"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/invocation"
)

// leash is the context of one Invocation, in one piece with the visit. It has no deadline and no values.
type leash struct {
	invocation.Ending
	all        *leashes
	prev, next *leash
}

// leashes are the contexts that end with the Gateway.
type leashes struct {
	mu struct {
		sync.Mutex
		over  bool
		first *leash
	}
}

// add begins l.
func (a *leashes) add(l *leash) {
	a.mu.Lock()
	defer a.mu.Unlock()
	l.all = a
	if a.mu.over {
		l.End(context.Canceled)
	}
	if l.next = a.mu.first; l.next != nil {
		l.next.prev = l
	}
	a.mu.first = l
}

// end ends all of them, and those that begin later.
func (a *leashes) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.over = true
	for l := a.mu.first; l != nil; l = l.next {
		l.End(context.Canceled)
	}
}

// release ends the context and takes it out of the list. It is called once.
func (l *leash) release() {
	a := l.all
	a.mu.Lock()
	if l.prev != nil {
		l.prev.next = l.next
	} else {
		a.mu.first = l.next
	}
	if l.next != nil {
		l.next.prev = l.prev
	}
	a.mu.Unlock()
	l.End(context.Canceled)
}

// Deadline says that there is none.
func (l *leash) Deadline() (time.Time, bool) { return time.Time{}, false }

// Value has none.
func (l *leash) Value(any) any { return nil }
