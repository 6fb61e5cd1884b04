package lambda

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
)

// maxConns bounds the connections of one guest, and with them what it can make the host hold.
const maxConns = 64

// apiSession serves the Runtime API to one guest (AWS: "Using the Lambda runtime API", 2018-06-01). Each connection has a goroutine that
// reads its requests. The connection whose GET next waits for an Invocation is lent to Invoke, which answers it and goes on reading
// there: a client asks everything on one connection as a rule, and then an Invocation wakes no other goroutine. What comes on another
// connection ends the loan. Invoke is called by one goroutine at a time.
type apiSession struct {
	ln    net.Listener
	unit  *guest.Unit
	pool  *sync.Pool
	alone bool // there are extensions alone: the runtime does not speak this API
	wg    sync.WaitGroup
	done  chan struct{} // closed by Close
	wake  chan struct{} // of room 1: something in mu has changed for whoever waits in Open or Invoke
	spent bool          // only Invoke's

	mu struct {
		sync.Mutex
		conns    map[*apiConn]struct{}
		waiter   *apiConn // has asked for the next Invocation
		lent     *apiConn // Invoke reads it
		recalled bool     // and its read has a deadline for that
		call     *apiCall // given to the guest, which has not asked for the next
		ready    bool     // Init is over
		initErr  *guest.InitError
		closed   bool
		ext      extensions
	}
}

// apiCall is one Invocation in the guest's hands. Its fields are guarded by the session's mu until answered is set; then they
// belong to Invoke.
type apiCall struct {
	id       string
	answered bool
	kind     byte
	media    string
	errType  string // of the header, for an error document that has none
	body     []byte
	buf      *scratch    // that holds body
	stream   *streamBody // in place of body
	over     bool        // the result was over the limit
}

// openAPI serves the guest's requests and waits until it asks for its first Invocation.
func openAPI(ctx context.Context, ln net.Listener, u *guest.Unit, pool *sync.Pool) (guest.Session, error) {
	s := newAPI(ln, u, pool)
	s.wg.Go(s.accept)
	return s.open(ctx)
}

func newAPI(ln net.Listener, u *guest.Unit, pool *sync.Pool) *apiSession {
	s := &apiSession{ln: ln, unit: u, pool: pool, done: make(chan struct{}), wake: make(chan struct{}, 1)}
	s.mu.conns = map[*apiConn]struct{}{}
	return s
}

// open waits until the guest asks for its first Invocation.
func (s *apiSession) open(ctx context.Context) (guest.Session, error) {
	var initErr *guest.InitError
	err := s.wait(ctx, func() bool {
		initErr = s.mu.initErr
		return initErr != nil || s.readyLocked()
	})
	if fault := extensionFault(err); fault != nil && initErr == nil {
		err, initErr = nil, fault
	}
	switch {
	case err != nil:
		s.Close()
		return nil, fmt.Errorf("wait for the guest's init: %w", err)
	case initErr != nil:
		s.Close()
		return nil, initErr
	}
	return s, nil
}

func (s *apiSession) accept() {
	for {
		nc, err := s.ln.Accept()
		if err != nil {
			return
		}
		c := &apiConn{s: s, conn: nc, turn: make(chan struct{}, 1)}
		s.mu.Lock()
		if s.mu.closed || len(s.mu.conns) >= maxConns {
			s.mu.Unlock()
			nc.Close()
			continue
		}
		s.mu.conns[c] = struct{}{}
		s.wg.Go(c.serve)
		s.mu.Unlock()
	}
}

// notify wakes whoever waits in Open or Invoke.
func (s *apiSession) notify() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Concurrency is one: a Lambda execution environment takes one Invocation at a time.
func (s *apiSession) Concurrency() int { return 1 }

// Close closes the listener and all connections, and waits for their goroutines.
func (s *apiSession) Close() error {
	s.mu.Lock()
	if !s.mu.closed {
		s.mu.closed = true
		close(s.done)
	}
	for c := range s.mu.conns {
		c.conn.Close()
	}
	s.mu.Unlock()
	s.ln.Close()
	s.wg.Wait()
	return nil
}

// Invoke answers the guest's GET next with the Invocation, takes what it posts, and returns when it asks for the next.
func (s *apiSession) Invoke(ctx context.Context, inv *invocation.Invocation, sink invocation.Sink) error {
	if s.spent {
		return fmt.Errorf("the guest's last invocation was given up: %w", guest.ErrUnseen)
	}
	b := s.pool.Get().(*scratch)
	defer keep(s.pool, b)
	body, err := appendPayload(b.in[:0], s.unit, inv)
	b.in = body[:cap(body)]
	if err != nil {
		return err
	}
	b.out = appendNext(b.out[:0], s.unit, inv, len(body))
	b.out = append(b.out, body...)

	c, call, err := s.take(ctx, inv)
	if err != nil {
		s.spent = true
		return err
	}
	defer func() {
		s.mu.Lock()
		s.mu.call = nil
		s.mu.Unlock()
		if call.stream != nil {
			call.stream.release()
		}
		if call.buf != nil {
			keep(s.pool, call.buf)
		}
	}()
	if s.extended() {
		s.tellExtensions(invoked(s.unit, inv), func(x *extension) bool { return x.invoke })
	}
	if _, err := c.conn.Write(b.out); err != nil {
		// The client acts on a whole answer only.
		s.spent = true
		s.giveBack(c, ends)
		return fmt.Errorf("send the invocation: %w: %w", guest.ErrUnseen, err)
	}
	delivered, over, err := s.follow(ctx, c, call, inv, sink)
	if !delivered {
		if err := s.wait(ctx, func() bool { return call.answered }); err != nil {
			s.spent = true
			return fmt.Errorf("wait for the answer: %w", err)
		}
		err = s.deliver(ctx, call, inv, sink)
	}
	cut, isCut := err.(*guest.CutError)
	if err != nil && !isCut {
		s.spent = true
		return ended(ctx, "read the answer", err)
	}
	if over && !s.extended() {
		return err
	}
	err = s.wait(ctx, s.readyLocked)
	if _, fault := err.(*guest.InitError); fault || errors.Is(err, context.DeadlineExceeded) {
		s.spent = true
		return fmt.Errorf("wait for the end of the guest's work after its answer: %w", err)
	}
	// Otherwise the caller or the guest has gone after the answer: a runtime may exit instead of asking for more.
	if isCut {
		return cut
	}
	return nil
}

// follow serves the lent connection for as long as the guest uses only that. delivered says that the Sink has had the answer, with err
// as its outcome; over that the guest has then asked for more. What it leaves open is for wait to see.
func (s *apiSession) follow(ctx context.Context, c *apiConn, call *apiCall, inv *invocation.Invocation, sink invocation.Sink) (delivered, over bool, err error) {
	if c.last {
		s.giveBack(c, ends)
		return false, false, nil
	}
	c.borrower = ctx
	stop := invocation.AfterFunc(ctx, func() { s.recall(c, time.Now().Add(grace)) })
	defer stop()
	next := goes
	for next == goes && (err == nil || delivered && isCut(err)) {
		if _, broken := c.br.Peek(1); broken != nil {
			if !errors.Is(broken, os.ErrDeadlineExceeded) { // lost, and not recalled
				next = ends
			}
			break
		}
		next = c.once()
		if delivered {
			continue
		}
		s.mu.Lock()
		delivered = call.answered
		s.mu.Unlock()
		if delivered {
			err = s.deliver(ctx, call, inv, sink)
			if c.flow != nil {
				next = c.streamed()
			}
		}
	}
	s.giveBack(c, next)
	return delivered, next == parks, err
}

// isCut says that the guest is done with an Invocation all the same.
func isCut(err error) bool {
	_, ok := err.(*guest.CutError)
	return ok
}

// recall cuts the read of a lent connection, so that Invoke looks around.
func (s *apiSession) recall(c *apiConn, by time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.lent == c {
		s.recallLocked(by)
	}
}

func (s *apiSession) recallLocked(by time.Time) {
	s.mu.recalled = true
	_ = s.mu.lent.conn.SetReadDeadline(by)
}

// changedLocked tells Invoke what has come on c.
func (s *apiSession) changedLocked(c *apiConn) {
	switch s.mu.lent {
	case c: // Invoke itself has read it
	case nil:
		s.notify()
	default:
		s.recallLocked(past)
	}
}

// giveBack ends the loan of a connection. Where the next GET next is parked there already its goroutine goes on waiting.
func (s *apiSession) giveBack(c *apiConn, next step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.lent = nil
	c.borrower = nil
	if s.mu.recalled {
		s.mu.recalled = false
		_ = c.conn.SetReadDeadline(time.Time{})
	}
	switch next {
	case ends:
		s.endLocked(c)
	case goes:
		c.turn <- struct{}{}
	}
}

// endLocked ends a connection whose goroutine waits for its turn.
func (s *apiSession) endLocked(c *apiConn) {
	if s.mu.waiter == c {
		s.mu.waiter = nil
	}
	c.over = true
	c.conn.Close()
	c.turn <- struct{}{}
}

// take gives the Invocation to the connection that waits for one.
func (s *apiSession) take(ctx context.Context, inv *invocation.Invocation) (*apiConn, *apiCall, error) {
	call := &apiCall{id: inv.ID}
	var c *apiConn
	err := s.wait(ctx, func() bool {
		if !s.readyLocked() {
			return false
		}
		c = s.mu.waiter
		if !c.alive() {
			s.endLocked(c) // the guest will ask again
			return false
		}
		s.mu.waiter, s.mu.call, s.mu.lent = nil, call, c
		return true
	})
	if err != nil {
		return nil, nil, fmt.Errorf("wait until the guest asks for an invocation: %w: %w", guest.ErrUnseen, err)
	}
	return c, call, nil
}

// wait returns when cond, called with mu held, is true. What is true when the context ends counts.
func (s *apiSession) wait(ctx context.Context, cond func() bool) error {
	for {
		over := ctx.Err()
		s.mu.Lock()
		ok, closed, fault := cond(), s.mu.closed, s.mu.ext.fault
		s.mu.Unlock()
		switch {
		case ok && fault == nil:
			return nil
		case fault != nil:
			return fault
		case over != nil:
			return over
		case closed:
			return net.ErrClosed
		}
		select {
		case <-s.wake:
		case <-s.done:
		case <-ctx.Done():
		}
	}
}

// deliver gives the posted answer to the Sink. A reader that is gone is no fault of the guest, unless it still streams.
func (s *apiSession) deliver(ctx context.Context, call *apiCall, inv *invocation.Invocation, sink invocation.Sink) error {
	rep := reply{inv: inv, sink: sink}
	rep.open(call.kind, call.media)
	switch {
	case call.stream != nil:
		return call.stream.copy(ctx, &rep)
	case call.over:
		rep.size = maxResult + 1
		_ = rep.close(nil)
	case call.kind == replyError:
		fe := handlerError(call.body)
		if call.errType != "" && (fe.Type == "Error" || fe.Type == "") {
			fe.Type = call.errType
		}
		doc := call.body
		if len(doc) == 0 {
			doc = nil
		}
		_ = rep.fault(fe, doc)
	default:
		_ = rep.close(call.body)
	}
	return nil
}

// appendNext appends the answer to GET next without its body.
func appendNext(dst []byte, u *guest.Unit, inv *invocation.Invocation, size int) []byte {
	dst = append(dst, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nLambda-Runtime-Aws-Request-Id: "...)
	dst = append(dst, inv.ID...)
	dst = append(dst, "\r\nLambda-Runtime-Deadline-Ms: "...)
	dst = strconv.AppendInt(dst, deadline(u, inv).UnixMilli(), 10)
	dst = append(dst, "\r\nLambda-Runtime-Invoked-Function-Arn: "...)
	dst = appendARN(dst, u, inv)
	dst = append(dst, "\r\nLambda-Runtime-Trace-Id: "...)
	dst = append(dst, traceHeader(inv)...)
	if cc := clientContext(inv); cc != "" {
		dst = append(dst, "\r\nLambda-Runtime-Client-Context: "...)
		dst = append(dst, cc...)
	}
	dst = append(dst, "\r\nContent-Length: "...)
	dst = strconv.AppendInt(dst, int64(size), 10)
	return append(dst, "\r\n\r\n"...)
}

// next is a connection's GET next. It answers at once only where the guest may not ask.
func (s *apiSession) next(c *apiConn) *apiStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.call != nil && !s.mu.call.answered {
		return transition("Running", "Ready")
	}
	if old := s.mu.waiter; old != nil && old != c {
		s.endLocked(old) // the guest has given it up
	}
	s.mu.ready = true
	s.mu.waiter = c
	s.changedLocked(c)
	return nil
}

// claim gives the call that a request with this id may answer.
func (s *apiSession) claim(id string, to string) (*apiCall, *apiStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	call := s.mu.call
	if call == nil || call.id != id {
		return nil, statusBadID
	}
	if call.answered {
		return nil, transition(call.state(), to)
	}
	return call, nil
}

func (call *apiCall) state() string {
	if call.kind == replyError {
		return "InvocationErrorResponse"
	}
	return "InvocationResponse"
}

// answered completes a claimed call from c, or says why it cannot be any more.
func (s *apiSession) answered(c *apiConn, call *apiCall, set func(*apiCall)) *apiStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.call != call {
		return statusBadID
	}
	if call.answered {
		return transition(call.state(), "InvocationResponse")
	}
	set(call)
	call.answered = true
	s.changedLocked(c)
	return nil
}

// initFailed is POST init/error.
func (s *apiSession) initFailed(errType string, doc []byte) *apiStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.ready || s.mu.initErr != nil {
		return transition("Ready", "InitError")
	}
	e := initError(s.unit, doc)
	if errType != "" && e.Type == "Error" {
		e.Type = errType
	}
	if len(doc) == 0 {
		e.Payload = nil
	}
	s.mu.initErr = e
	s.notify()
	return nil
}

// gone takes a connection out.
func (s *apiSession) gone(c *apiConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.conns, c)
	if s.mu.waiter == c {
		s.mu.waiter = nil
	}
	s.hungUpLocked(c)
}

// apiStatus is an answer of the Runtime API other than an Invocation.
type apiStatus struct {
	line string
	kind string // media type
	body string
	head string // further header lines
}

var (
	statusAccepted = &apiStatus{line: "202 Accepted", kind: "application/json", body: "{\"status\":\"OK\"}\n"}
	statusPong     = &apiStatus{line: "200 OK", kind: "text/plain; charset=utf-8", body: "pong"}
	statusNotFound = &apiStatus{line: "404 Not Found", kind: "text/plain; charset=utf-8", body: "404 page not found\n"}
	statusMethod   = &apiStatus{line: "405 Method Not Allowed", kind: "text/plain; charset=utf-8", body: ""}
	statusBadID    = failure("400 Bad Request", "InvalidRequestID", "Invalid request ID")
	statusTooLarge = failure("413 Request Entity Too Large", "RequestEntityTooLarge", fmt.Sprintf("Exceeded maximum allowed payload size (%d bytes).", maxResult))
	statusHeader   = failure("431 Request Header Fields Too Large", "RequestHeaderTooLarge", fmt.Sprintf("The header is over %d bytes.", maxHeader))
	statusBad      = failure("400 Bad Request", "InvalidRequest", "The request is not valid HTTP/1.1.")
)

func failure(line, kind, msg string) *apiStatus {
	return &apiStatus{line: line, kind: "application/json", body: fmt.Sprintf("{\"errorMessage\":%q,\"errorType\":%q}\n", msg, kind)}
}

func transition(from, to string) *apiStatus {
	return failure("403 Forbidden", "InvalidStateTransition",
		fmt.Sprintf("State transition from %s to %s failed for runtime. Error: State transition is not allowed", from, to))
}
