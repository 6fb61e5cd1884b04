package gateway

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
)

// sink takes the answer of one Invocation. A buffered answer is kept until it is whole, so that a slow client holds no
// Instance; a streamed one goes out as it comes. The Invocation's goroutine uses it as a Sink, the request's goroutine
// waits for its signal and may detach it; mu stands between them. What comes for a buffered answer after that is thrown away
// without an error: the function has done nothing wrong, and its Instance lives on.
type sink struct {
	w      http.ResponseWriter
	cors   *cors
	origin string
	head   bool // the request is a HEAD
	stream bool
	idle   time.Duration // the longest wait for the client to take bytes

	cut    atomic.Bool   // the client has gone: a write that waits for it is to end; not under mu, which a write holds
	values []string      // behind the slices of the answer's header
	signal chan struct{} // holds one: something of complete, over has changed

	mu struct {
		sync.Mutex
		over     bool  // the Invocation has ended
		err      error // with this
		detached bool  // the client has another answer, or is gone
		started  bool
		complete bool
		taken    bool // upgraded
		failed   bool // a write to the client failed
		head     invocation.Head
		body     []byte
		sent     int64
	}
}

func (s *sink) gone() error { return errs.New(errs.Canceled, "the client has gone or has its answer") }

// Start keeps the Head of a buffered answer and sends that of a streamed one.
func (s *sink) Start(h invocation.Head) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.started {
		return errs.New(errs.Internal, "the answer was started twice")
	}
	if s.mu.detached && s.stream {
		return s.gone()
	}
	s.mu.started, s.mu.head = true, h
	s.mu.head.Header = slices.Clone(h.Header)
	if s.stream {
		s.sendHead(-1)
		return s.flush()
	}
	if h.Length > 0 {
		s.mu.body = make([]byte, 0, min(h.Length, 64<<10))
	}
	if h.Length == 0 || s.bodiless() {
		s.finish()
	}
	return nil
}

// Write keeps or sends bytes.
func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.mu.started {
		return 0, errs.New(errs.Internal, "the answer has bytes before its head")
	}
	if s.stream && (s.mu.detached || s.mu.failed) {
		return 0, s.gone()
	}
	if s.bodiless() || s.mu.detached {
		return len(p), nil
	}
	if s.stream {
		n, err := s.deliver(p)
		s.mu.sent += int64(n)
		if err == nil {
			err = s.flush()
		}
		if err != nil {
			s.mu.failed = true
			return n, s.gone()
		}
		return n, nil
	}
	if l := s.mu.head.Length; l >= 0 && int64(len(s.mu.body)+len(p)) > l {
		return 0, errs.New(errs.Internal, "the answer is longer than the %d bytes its head says", l)
	}
	s.mu.body = append(s.mu.body, p...)
	if int64(len(s.mu.body)) == s.mu.head.Length {
		s.finish()
	}
	return len(p), nil
}

// Upgrade answers with the Head and hands the connection over.
func (s *sink) Upgrade(h invocation.Head) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.started {
		return nil, errs.New(errs.Internal, "the answer was started twice")
	}
	if s.mu.detached {
		return nil, s.gone()
	}
	conn, rw, err := http.NewResponseController(s.w).Hijack()
	if err != nil {
		return nil, errs.New(errs.Unsupported, "this connection cannot be upgraded: %w", err)
	}
	s.mu.started, s.mu.taken = true, true
	s.mu.head = h
	fmt.Fprintf(rw, "HTTP/1.1 %d %s\r\n", h.Status, http.StatusText(h.Status))
	for _, f := range h.Header {
		if safe(f) {
			fmt.Fprintf(rw, "%s: %s\r\n", f.Name, f.Value)
		}
	}
	fmt.Fprint(rw, "\r\n")
	if err := rw.Flush(); err != nil {
		conn.Close()
		s.finish()
		return nil, s.gone()
	}
	s.finish()
	if c, ok := conn.(*headConn); ok {
		c.idle = 0 // its deadlines are now those of whoever has it
	}
	_ = conn.SetDeadline(time.Time{})
	if n := rw.Reader.Buffered(); n > 0 {
		return &bufferedConn{conn, rw.Reader}, nil
	}
	return conn, nil
}

// bufferedConn gives the bytes that were read ahead first.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c *bufferedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

func safe(f invocation.Field) bool {
	return f.Name != "" && !strings.ContainsAny(f.Name, "\r\n: ") && !strings.ContainsAny(f.Value, "\r\n")
}

// small is an answer that is written at once, under the one deadline of headConn.Write or limitWrites.
const small = 16 << 10

// deliver writes to the client, which has idle for every part it is to take.
func (s *sink) deliver(p []byte) (n int, err error) {
	if len(p) <= small && !s.stream {
		return s.w.Write(p)
	}
	c := http.NewResponseController(s.w)
	for n < len(p) && err == nil {
		s.allow(c)
		var m int
		m, err = s.w.Write(p[n:min(n+16*small, len(p))])
		n += m
	}
	if err == nil && !s.stream {
		// The rest lies in net/http's buffer: it goes out under a deadline too.
		s.allow(c)
		err = c.Flush()
	}
	_ = c.SetWriteDeadline(time.Time{})
	return n, err
}

// allow gives the client the time to take some bytes.
func (s *sink) allow(c *http.ResponseController) {
	_ = c.SetWriteDeadline(time.Now().Add(s.idle)) // not every ResponseWriter has deadlines
	if s.cut.Load() {
		_ = c.SetWriteDeadline(longAgo)
	}
}

// leave ends a streamed answer's write that waits for a client that has gone.
func (s *sink) leave() {
	s.cut.Store(true)
	if s.stream {
		_ = http.NewResponseController(s.w).SetWriteDeadline(longAgo)
	}
}

// longAgo is a deadline that has passed, and not the one that net/http uses for reads.
var longAgo = time.Unix(2, 0) // never written

// bodiless says whether the answer has no body whatever the function writes: RFC 9110, section 6.4.1.
func (s *sink) bodiless() bool {
	return s.head || s.mu.head.Status == http.StatusNoContent || s.mu.head.Status == http.StatusNotModified
}

// flush sends what is buffered of a stream.
func (s *sink) flush() error {
	c := http.NewResponseController(s.w)
	s.allow(c)
	err := c.Flush()
	_ = c.SetWriteDeadline(time.Time{})
	return err
}

func (s *sink) finish() {
	if !s.mu.complete {
		s.mu.complete = true
		s.wake()
	}
}

func (s *sink) wake() {
	select {
	case s.signal <- struct{}{}:
	default:
	}
}

// end says that the Invocation has ended.
func (s *sink) end(err error) {
	s.mu.Lock()
	s.mu.over, s.mu.err = true, err
	s.wake()
	s.mu.Unlock()
}

// detach ends the sink for the Invocation unless its answer already goes to the client. It says whether it did.
func (s *sink) detach() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.taken || s.stream && s.mu.started || s.mu.complete {
		return false
	}
	s.mu.detached = true
	return true
}

// release lets nothing of the Invocation reach the ResponseWriter any more.
func (s *sink) release() {
	s.mu.Lock()
	s.mu.detached = true
	s.mu.Unlock()
}

// state says whether the whole answer is there, and whether the Invocation is over and with what error. An answer of
// unknown length, and a streamed one, is whole when the Invocation has ended well.
func (s *sink) state() (whole, over bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	whole = s.mu.complete
	if s.mu.over && s.mu.err == nil && s.mu.started {
		whole = whole || s.stream || s.mu.head.Length <= int64(len(s.mu.body))
	}
	return whole, s.mu.over, s.mu.err
}

// canonical are header names that net/http must find under its own spelling, or it would add a second one.
func canonical(name string) string {
	switch len(name) {
	case 4, 10, 12, 14, 17:
		for _, c := range [...]string{"Date", "Connection", "Content-Type", "Content-Length", "Transfer-Encoding", "Set-Cookie"} {
			if strings.EqualFold(name, c) {
				return c
			}
		}
	case 7:
		if strings.EqualFold(name, "Trailer") {
			return "Trailer"
		}
	}
	return name
}

// value appends a header value; the first one of a name needs no slice of its own.
func (s *sink) value(to []string, v string) []string {
	if len(to) > 0 || len(s.values) == cap(s.values) {
		return append(to, v)
	}
	n := len(s.values)
	s.values = append(s.values, v)
	return s.values[n : n+1 : n+1]
}

// sendHead writes status and header. length is -1 where the body's is not known.
func (s *sink) sendHead(length int64) {
	head := &s.mu.head
	h := s.w.Header()
	s.values = make([]string, 0, len(head.Header)+2)
	for _, f := range head.Header {
		name := canonical(f.Name)
		switch name {
		case "Connection", "Content-Length", "Transfer-Encoding", "Trailer":
			continue // these are the gateway's
		}
		if strings.EqualFold(name, "x-amzn-RequestId") || strings.EqualFold(name, "Apigw-Requestid") {
			continue
		}
		h[name] = s.value(h[name], f.Value)
	}
	if s.cors != nil {
		s.cors.decorate(h, s.origin)
	}
	status := head.Status
	if status == 0 {
		status = http.StatusOK
		if len(h["Content-Type"]) == 0 {
			h["Content-Type"] = s.value(nil, "application/json")
		}
	}
	if len(h["Content-Type"]) == 0 {
		h["Content-Type"] = nil // no guessing
	}
	if length >= 0 && status != http.StatusNoContent && status != http.StatusNotModified && status >= 200 {
		h["Content-Length"] = s.value(nil, strconv.FormatInt(length, 10))
	}
	head.Status = status
	s.w.WriteHeader(status)
}

// send writes a whole buffered answer and returns its status and bytes.
func (s *sink) send() (status int, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.taken || s.stream {
		return s.mu.head.Status, s.mu.sent
	}
	length := int64(len(s.mu.body))
	if s.head {
		length = s.mu.head.Length
	}
	s.sendHead(length)
	if len(s.mu.body) > 0 {
		m, err := s.deliver(s.mu.body)
		s.mu.failed, n = err != nil, int64(m)
	}
	s.mu.detached = true
	return s.mu.head.Status, n
}
