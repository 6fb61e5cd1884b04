package wire

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	bodyBudget   = 256 << 20
	bodyPatience = 10 * time.Second
	// bodyIdle is how long a client may send nothing of a body: S3 ends such a connection with RequestTimeout, too.
	bodyIdle = time.Minute
)

var errNoRoom = errors.New("the bodies of other requests fill the memory for them")

// budget bounds the memory of the bodies that are held at once. What finds no room waits for some.
type budget struct {
	max      int64
	patience time.Duration

	mu struct {
		sync.Mutex
		used  int64
		freed chan struct{} // closed and replaced when some was given back
	}
}

func newBudget(most int64, patience time.Duration) *budget {
	b := &budget{max: most, patience: patience}
	b.mu.freed = make(chan struct{})
	return b
}

// try takes n bytes, or gives what is closed when there may be room again.
func (b *budget) try(n int64) (ok bool, freed <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.used+n > b.max {
		return false, b.mu.freed
	}
	b.mu.used += n
	return true, nil
}

func (b *budget) give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.used -= n
	close(b.mu.freed)
	b.mu.freed = make(chan struct{})
}

// held is what one request has of a budget. One goroutine uses it.
type held struct {
	ctx context.Context
	b   *budget
	n   int64
}

// grow takes until n bytes are held; it waits for them for as long as the budget has patience.
func (h *held) grow(n int64) error {
	more := n - h.n
	if more <= 0 {
		return nil
	}
	ok, freed := h.b.try(more)
	if !ok {
		t := time.NewTimer(h.b.patience)
		defer t.Stop()
		for !ok {
			select {
			case <-freed:
			case <-t.C:
				return errNoRoom
			case <-h.ctx.Done():
				return h.ctx.Err()
			}
			ok, freed = h.b.try(more)
		}
	}
	h.n = n
	return nil
}

// release gives everything back.
func (h *held) release() {
	if h.n > 0 {
		h.b.give(h.n)
		h.n = 0
	}
}

// idleBody gives each Read its own deadline. After the end there is none: the server goes on listening for whether the client leaves.
type idleBody struct {
	io.ReadCloser
	c *http.ResponseController
}

// Read reads within bodyIdle.
func (b idleBody) Read(p []byte) (int, error) {
	_ = b.c.SetReadDeadline(time.Now().Add(bodyIdle)) // not every ResponseWriter has deadlines
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		_ = b.c.SetReadDeadline(time.Time{})
	}
	return n, err
}

// noRoom answers a request whose body found none. What the client still sends is read, as most read no answer before they have sent all.
func noRoom(c *Call) *Error {
	most := int64(1 << 20)
	if c.Service != nil {
		most = c.Service.MaxBody
	}
	_, _ = io.CopyN(io.Discard, c.Request.Body, most)
	if c.Service != nil && c.Service.Name == "s3" {
		return Errorf("SlowDown", "Please reduce your request rate.").With(http.StatusServiceUnavailable)
	}
	return Errorf("ServiceUnavailable", "The request has failed due to a temporary failure of the server.").With(http.StatusServiceUnavailable)
}
