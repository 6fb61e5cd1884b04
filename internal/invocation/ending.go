package invocation

import (
	"context"
	"sync"
)

// Ending is how a context ends: the part of one that its owner embeds to implement context.Context itself, because a context
// made of package context's parts costs several allocations on every Invocation. The zero value has not ended.
type Ending struct {
	mu    sync.Mutex
	err   error
	done  chan struct{} // made when somebody asks
	first *func()       // to be called at the end; the only one as a rule
	more  map[*func()]struct{}
}

// End ends the context with err. Only the first end counts.
func (e *Ending) End(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err != nil {
		return
	}
	e.err = err
	if e.done != nil {
		close(e.done)
	}
	if e.first != nil {
		go (*e.first)()
	}
	for f := range e.more {
		go (*f)()
	}
	e.first, e.more = nil, nil
}

// Err is what the context ended with, or nil.
func (e *Ending) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

// Done is closed at the end.
func (e *Ending) Done() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.done == nil {
		e.done = make(chan struct{})
		if e.err != nil {
			close(e.done)
		}
	}
	return e.done
}

// AfterFunc calls f in a goroutine of its own at the end, unless stop is called before, which then returns true. Package context
// looks for this method.
func (e *Ending) AfterFunc(f func()) (stop func() bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err != nil {
		go f()
		return func() bool { return false }
	}
	key := &f
	if e.first == nil {
		e.first = key
	} else {
		if e.more == nil {
			e.more = map[*func()]struct{}{}
		}
		e.more[key] = struct{}{}
	}
	return func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.first == key {
			e.first = nil
			return true
		}
		_, waits := e.more[key]
		delete(e.more, key)
		return waits
	}
}

// AfterFunc is context.AfterFunc without a context of its own where ctx needs none.
func AfterFunc(ctx context.Context, f func()) (stop func() bool) {
	if c, ok := ctx.(interface{ AfterFunc(func()) func() bool }); ok {
		return c.AfterFunc(f)
	}
	return context.AfterFunc(ctx, f)
}
