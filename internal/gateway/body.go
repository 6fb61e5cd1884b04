package gateway

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/errs"
)

// smallBody is how much of a body is read before the memory for all of it is taken: who announces much and sends
// nothing holds no more than this.
const smallBody = 64 << 10

// firstGuess is how much memory a body of unknown length gets at first; it doubles.
const firstGuess = 4 << 10

// held is a part of Options.BodyBudget. One goroutine at a time uses it.
type held struct {
	g *Gateway
	n int64
}

// grow takes until n bytes are held, or leaves it as it was where that is over the budget.
func (h *held) grow(n int64) error {
	more := n - h.n
	if h.g.bodies.Add(more) > h.g.budget {
		h.g.bodies.Add(-more)
		return errs.New(errs.Unavailable, "%d bytes of request bodies are held already", h.g.budget)
	}
	h.n = n
	return nil
}

// release gives everything back.
func (h *held) release() {
	if h.n > 0 {
		h.g.bodies.Add(-h.n)
		h.n = 0
	}
}

// readBody reads the request's body to its end. Each read may wait g.idle. When there is no error v.held has the memory.
func (v *visit) readBody() (*bytes.Buffer, error) {
	n := v.r.ContentLength
	if n > v.g.maxBody {
		return nil, errs.New(errs.TooLarge, "the body of %d bytes is over the limit of %d", n, v.g.maxBody)
	}
	if n == 0 || v.r.Body == nil || v.r.Body == http.NoBody {
		return new(bytes.Buffer), nil
	}
	v.held.g = v.g
	src := &idleReader{r: v.r.Body, c: http.NewResponseController(v.w), idle: v.g.idle}
	b, err := v.fill(src, n)
	if err != nil {
		v.held.release()
		return nil, err
	}
	_ = src.c.SetReadDeadline(time.Time{}) // not every ResponseWriter has deadlines
	return bytes.NewBuffer(b), nil
}

// fill reads n bytes, or to the end where n is negative, into memory of that size.
func (v *visit) fill(src io.Reader, n int64) ([]byte, error) {
	size := int64(firstGuess)
	if n > 0 {
		size = min(n, smallBody)
	}
	var b []byte
	for {
		if err := v.held.grow(size); err != nil {
			return nil, err
		}
		bigger := make([]byte, size)
		got, err := len(b), error(nil)
		copy(bigger, b)
		b = bigger
		for got < len(b) && err == nil {
			var m int
			m, err = src.Read(b[got:])
			got += m
		}
		full := got == len(b)
		switch {
		case err != nil && !errors.Is(err, io.EOF):
			return nil, err
		case full && size == n:
			if err == nil {
				err = atEnd(src)
			}
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return b, err
		case n < 0 && int64(got) > v.g.maxBody:
			return nil, errs.New(errs.TooLarge, "the body is over the limit of %d bytes", v.g.maxBody)
		case err != nil && n < 0:
			return b[:got:got], nil
		case err != nil:
			return nil, io.ErrUnexpectedEOF
		case n > 0:
			size = n
		default:
			size = min(2*size, v.g.maxBody+1)
		}
	}
}

// atEnd gives io.EOF where src has nothing more; HTTP/2 says so behind the last byte.
func atEnd(src io.Reader) error {
	var more [1]byte
	for {
		switch n, err := src.Read(more[:]); {
		case n > 0:
			return errs.New(errs.Invalid, "the body is longer than its length")
		case err != nil:
			return err
		}
	}
}

// idleReader gives each Read its own deadline.
type idleReader struct {
	r    io.Reader
	c    *http.ResponseController
	idle time.Duration
}

func (i *idleReader) Read(p []byte) (int, error) {
	_ = i.c.SetReadDeadline(time.Now().Add(i.idle)) // not every ResponseWriter has deadlines
	return i.r.Read(p)
}

func (v *visit) refuseBody(kind app.APIKind, err error) {
	f := message(http.StatusBadRequest, "Bad Request")
	f.close = true
	switch {
	case errs.CodeOf(err) == errs.TooLarge:
		f = bodyTooLarge(kind)
		f.close = true
	case errs.CodeOf(err) == errs.Unavailable:
		v.g.log.Debug("read body", "request", v.id, "error", err)
		f = refuse(kind, err)
		f.close = !v.skipBody()
	case errors.Is(err, os.ErrDeadlineExceeded):
		f = message(http.StatusRequestTimeout, "Request Timeout")
		f.close = true
	case v.r.Context().Err() != nil:
		v.status = statusGone
		return
	}
	v.refuse(f)
}

// skipBody reads what is left of a body that found no room, and says whether it came to its end: most clients read no
// answer before they have sent everything, and one that is cut off would not see that it can try again.
func (v *visit) skipBody() bool {
	src := &idleReader{r: v.r.Body, c: http.NewResponseController(v.w), idle: v.g.idle}
	n, err := io.Copy(io.Discard, io.LimitReader(src, v.g.maxBody+1))
	if err != nil || n > v.g.maxBody {
		return false
	}
	_ = src.c.SetReadDeadline(time.Time{}) // not every ResponseWriter has deadlines
	return true
}
