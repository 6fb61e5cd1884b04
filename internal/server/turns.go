package server

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/bus/slots"
)

// turns are this Node's part of the maximum concurrency of a mapping, which all Nodes share.
type turns struct {
	pool *slots.Pool
	mu   struct {
		sync.Mutex
		most    int // on all Nodes
		may     int // here
		until   time.Time
		running int
		waiters []chan struct{} // each closed when it has its turn
	}
}

// turnsOf gives the turns of a mapping; nil where it has no maximum, or this Node is alone and the maximum is its own.
func (s *Server) turnsOf(m *mapping) *turns {
	if s.slots == nil || m.MaxConcurrency <= 0 {
		return nil
	}
	// What an earlier deploy still runs counts too.
	v, _ := s.turns.LoadOrStore(m.Name, &turns{})
	t := v.(*turns)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.most = m.MaxConcurrency
	if t.pool == nil {
		t.pool = s.slots.Share("mapping/"+tenant+"/"+m.Name, m.MaxConcurrency, t.give)
	}
	t.pool.Ceiling(m.MaxConcurrency)
	return t
}

// Take waits for a turn.
func (t *turns) Take(ctx context.Context) (leave func(), err error) {
	t.mu.Lock()
	in := make(chan struct{})
	t.mu.waiters = append(t.mu.waiters, in)
	t.pump()
	t.mu.Unlock()
	select {
	case <-in:
		return t.leave, nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	at := slices.Index(t.mu.waiters, in)
	if at >= 0 {
		t.mu.waiters = slices.Delete(t.mu.waiters, at, at+1)
		t.pump()
	}
	t.mu.Unlock()
	if at < 0 { // it came meanwhile
		t.leave()
	}
	return nil, context.Cause(ctx)
}

func (t *turns) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.running--
	t.pump()
}

// pump lets in who may run, and tells what runs and waits. mu is held.
func (t *turns) pump() {
	for len(t.mu.waiters) > 0 && t.mu.running < min(t.mu.may, t.mu.most) && time.Now().Before(t.mu.until) {
		t.mu.running++
		close(t.mu.waiters[0])
		t.mu.waiters = t.mu.waiters[1:]
	}
	t.pool.Tell(t.mu.running, len(t.mu.waiters))
}

// give takes this Node's part.
func (t *turns) give(n int, until time.Time) (running int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.may, t.mu.until = n, until
	t.pump()
	return t.mu.running
}
