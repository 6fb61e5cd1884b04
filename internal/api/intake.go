package api

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
)

// Intake bounds what callers publish, and the memory that all of them take with it at once. Several handlers may share one; the zero value is not ready.
type Intake struct {
	event int // bytes
	mu    struct {
		sync.Mutex
		used  int64
		queue []*turn // who waits, in the order of their coming
	}
}

type turn struct {
	size int64
	in   chan struct{} // closed when there is room
}

const (
	// intakeBytes bounds the bodies of callers that are in memory at once. One that is larger than all is taken alone.
	intakeBytes = 32 << 20
	// freeBytes is what a body may have without waiting for room.
	freeBytes = 64 << 10
	// intakeWait bounds the wait for room, and bodyWait the time that a caller may take to send a body for which others wait.
	intakeWait = 20 * time.Second
	bodyWait   = time.Minute
)

// NewIntake bounds an event, or the payload of an asynchronous Invocation, to some bytes.
func NewIntake(event int) *Intake { return &Intake{event: event} }

// limits are those of one call.
func (k *Intake) limits() event.Limits {
	return event.Limits{Event: k.event, Events: 1000, Batch: max(8<<20, 2*k.event)}
}

// call bounds the body of a call with one message in JSON, in bytes: escapes and base64 make it longer than what counts.
func (k *Intake) call() int64 { return int64(2*k.event) + 1<<20 }

// calls bounds that of a call with several.
func (k *Intake) calls() int64 { return max(8<<20, k.call()) }

// readJSON is that of bodies with data: they wait for room in memory until leave is called.
func (k *Intake) readJSON(w http.ResponseWriter, r *http.Request, limit int64, v any) (leave func(), err error) {
	if leave, err = k.enter(w, r, limit); err != nil {
		return nil, err
	}
	if err := readJSON(w, r, limit, v); err != nil {
		leave()
		return nil, err
	}
	return leave, nil
}

// enter waits until there is room in memory for a body of the call, of at most some bytes where it does not say; leave gives it back.
func (k *Intake) enter(w http.ResponseWriter, r *http.Request, most int64) (leave func(), err error) {
	size := r.ContentLength
	if size < 0 || size > most {
		size = most
	}
	if size <= freeBytes {
		return func() {}, nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), intakeWait)
	defer cancel()
	if err := k.take(ctx, size); err != nil {
		return nil, err
	}
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Now().Add(bodyWait)) // one that cannot has none in tests
	return func() {
		_ = c.SetReadDeadline(time.Time{})
		k.give(size)
	}, nil
}

func (k *Intake) take(ctx context.Context, size int64) error {
	k.mu.Lock()
	if len(k.mu.queue) == 0 && k.fits(size) {
		k.mu.used += size
		k.mu.Unlock()
		return nil
	}
	t := &turn{size: size, in: make(chan struct{})}
	k.mu.queue = append(k.mu.queue, t)
	k.mu.Unlock()
	select {
	case <-t.in:
		return nil
	case <-ctx.Done():
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, o := range k.mu.queue {
		if o == t {
			k.mu.queue = append(k.mu.queue[:i:i], k.mu.queue[i+1:]...)
			k.admit()
			return errs.New(errs.Throttled, "too much is being published at once").WithHint("Try again in a moment, or publish more slowly.")
		}
	}
	return nil // it came in meanwhile
}

// fits says whether there is room. mu is held.
func (k *Intake) fits(size int64) bool { return k.mu.used == 0 || k.mu.used+size <= intakeBytes }

// admit lets in who has room now. mu is held.
func (k *Intake) admit() {
	for len(k.mu.queue) > 0 && k.fits(k.mu.queue[0].size) {
		t := k.mu.queue[0]
		k.mu.queue = k.mu.queue[1:]
		k.mu.used += t.size
		close(t.in)
	}
}

func (k *Intake) give(size int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mu.used -= size
	k.admit()
}

// Take sets the Server's bounds; before it serves.
func (s *Server) Take(k *Intake) *Server {
	s.intake = k
	return s
}
