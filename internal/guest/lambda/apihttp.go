package lambda

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http/httputil"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
)

const (
	// maxHeader bounds a request's line and header, in bytes. Runtimes put whole stack traces into a field.
	maxHeader = 256 << 10
	// maxDrain is how much of a refused body is read so that its sender sees the refusal, in bytes.
	maxDrain = 64 << 20
)

// apiConn is one connection of a guest. It speaks what HTTP/1.1 clients of the Runtime API need and nothing more: RFC 9112 without
// absolute-form targets, upgrades and obsolete line folding. Its fields belong to whoever reads it: its goroutine, or Invoke while it
// is lent.
type apiConn struct {
	s    *apiSession
	conn net.Conn
	br   *bufio.Reader
	turn chan struct{} // of room 1: gets a value when the goroutine of a parked connection is to go on

	over bool // nothing more is read; set before a turn
	last bool // close after this answer

	borrower context.Context // of the Invoke that it is lent to
	inside   bool            // a request has begun to arrive
	flow     *streamBody     // whose end Invoke, to which the connection is lent, has to answer
	speaks   string          // id of the extension that asked last

	streaming context.Context // of the Invoke that copies a streamed answer from it
	until     time.Time       // when that is given up, once nobody reads the answer; zero while somebody may
}

// apiRequest is the head of one request.
type apiRequest struct {
	method  string
	path    string
	length  int64 // -1 with chunked
	chunked bool
	expect  bool
	closes  bool
	errType string
	mode    string
	media   string

	extName, extID, extError, extAccept string // of the Extensions API
}

// Read reads from the guest. A recall that comes inside a request waits for the request's end, unless the borrower's time is over. A
// streamed answer whose reader has gone is read on for a while.
func (c *apiConn) Read(p []byte) (int, error) {
	for {
		n, err := c.conn.Read(p)
		switch {
		case n > 0 || !errors.Is(err, os.ErrDeadlineExceeded):
			return n, err
		case c.lenient():
			_ = c.conn.SetReadDeadline(c.until)
		case c.inside && c.borrower != nil && c.borrower.Err() == nil && c.until.IsZero():
			_ = c.conn.SetReadDeadline(time.Time{})
		default:
			return n, err
		}
	}
}

// lenient says whether the rest of a streamed answer may still come, though nobody reads it.
func (c *apiConn) lenient() bool {
	if c.streaming == nil {
		return false
	}
	if c.until.IsZero() && errors.Is(c.streaming.Err(), context.Canceled) {
		c.until = time.Now().Add(guest.Farewell)
	}
	return time.Now().Before(c.until)
}

func (c *apiConn) serve() {
	defer c.s.gone(c)
	defer c.conn.Close()
	c.br = bufio.NewReaderSize(c, 4<<10)
	for {
		if _, err := c.br.Peek(1); err != nil {
			return
		}
		switch c.once() {
		case ends:
			return
		case parks, waits:
			select {
			case <-c.turn:
			case <-c.s.done:
				return
			}
			if c.over {
				return
			}
		}
	}
}

// step is what follows a request on its connection.
type step uint8

const (
	goes  step = iota // the next
	ends              // nothing
	parks             // its answer, by Invoke: from now on the connection is not its goroutine's
	waits             // the same, for an extension's event
)

// once takes one request, and answers it unless it parks.
func (c *apiConn) once() step {
	c.inside = true
	var q apiRequest
	if st := c.readHead(&q); st != nil {
		_ = c.respond(st, true)
		return ends
	}
	c.last = q.closes
	st, next := c.handle(&q)
	if next == parks || next == waits {
		return next
	}
	c.inside = c.flow != nil
	closes := next == ends || q.closes
	if st != nil && (c.respond(st, closes) != nil || closes) {
		return ends
	}
	return next
}

// streamed answers for a streamed answer that Invoke, to which the connection is lent, has read.
func (c *apiConn) streamed() step {
	b := c.flow
	c.flow, c.inside = nil, false
	c.last = c.last || b.last
	if !b.ok || c.respond(statusAccepted, c.last) != nil || c.last {
		return ends
	}
	return goes
}

// readHead reads request line and header. A nil status with an empty method does not exist: an end of input gives statusBad, which
// nobody reads.
func (c *apiConn) readHead(q *apiRequest) *apiStatus {
	left := maxHeader
	line, st := c.readLine(&left)
	if st != nil {
		return st
	}
	method, rest, ok := bytes.Cut(line, []byte(" "))
	path, version, ok2 := bytes.Cut(rest, []byte(" "))
	if !ok || !ok2 || len(path) == 0 || !bytes.HasPrefix(version, []byte("HTTP/1.")) {
		return statusBad
	}
	q.closes = bytes.Equal(version, []byte("HTTP/1.0"))
	if path, _, _ = bytes.Cut(path, []byte("?")); true {
		q.method, q.path = string(method), string(path)
	}
	lengths := 0
	for {
		line, st := c.readLine(&left)
		if st != nil {
			return st
		}
		if len(line) == 0 {
			break
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || len(name) == 0 || line[0] == ' ' || line[0] == '\t' {
			return statusBad
		}
		if st := q.field(name, bytes.TrimSpace(value), &lengths); st != nil {
			return st
		}
	}
	if q.chunked && lengths > 0 {
		return statusBad
	}
	return nil
}

// streams says whether the body is a streamed answer. aws-lambda-go asks for no mode: its streams are chunked and have one of two media
// types, which its buffered answers have not.
func (q *apiRequest) streams() bool {
	return strings.EqualFold(q.mode, "streaming") || q.chunked && (q.media == httpStream || q.media == octetStream)
}

// field takes the header fields that matter here.
func (q *apiRequest) field(name, value []byte, lengths *int) *apiStatus {
	is := func(s string) bool { return len(name) == len(s) && bytes.EqualFold(name, []byte(s)) }
	switch {
	case is("Content-Length"):
		n, err := strconv.ParseInt(string(value), 10, 64)
		if err != nil || n < 0 || value[0] == '+' || *lengths > 0 && n != q.length {
			return statusBad
		}
		*lengths++
		q.length = n
	case is("Transfer-Encoding"):
		if !bytes.EqualFold(value, []byte("chunked")) {
			return statusBad
		}
		q.chunked, q.length = true, -1
	case is("Connection"):
		if bytes.EqualFold(value, []byte("close")) {
			q.closes = true
		} else if bytes.EqualFold(value, []byte("keep-alive")) {
			q.closes = false
		}
	case is("Expect"):
		q.expect = bytes.EqualFold(value, []byte("100-continue"))
	case is("Content-Type"):
		q.media = string(value)
	case is("Lambda-Runtime-Function-Error-Type"):
		q.errType = string(value)
	case is("Lambda-Runtime-Function-Response-Mode"):
		q.mode = string(value)
	case is("Lambda-Extension-Name"):
		q.extName = string(value)
	case is(idHeader):
		q.extID = string(value)
	case is("Lambda-Extension-Function-Error-Type"):
		q.extError = string(value)
	case is("Lambda-Extension-Accept-Feature"):
		q.extAccept = string(value)
	}
	return nil
}

// readLine reads one line of a header without its end. Of a line longer than the reader's buffer the rest is dropped: such fields
// carry traces, which nothing here needs.
func (c *apiConn) readLine(left *int) ([]byte, *apiStatus) {
	line, err := c.br.ReadSlice('\n')
	*left -= len(line)
	if errors.Is(err, bufio.ErrBufferFull) {
		line = bytes.Clone(line)
		for errors.Is(err, bufio.ErrBufferFull) && *left > 0 {
			var more []byte
			more, err = c.br.ReadSlice('\n')
			*left -= len(more)
		}
	}
	if *left <= 0 {
		return nil, statusHeader
	}
	if err != nil {
		return nil, statusBad
	}
	return bytes.TrimRight(line, "\r\n"), nil
}

// handle does what a request asks. Without a status nothing is to be answered, or not now.
func (c *apiConn) handle(q *apiRequest) (st *apiStatus, next step) {
	const prefix = "/2018-06-01/"
	rest, ok := strings.CutPrefix(q.path, prefix)
	if !ok {
		c.speaks = q.extID
		return c.extension(q)
	}
	if c.s.alone {
		return c.refuse(q, statusNotFound)
	}
	want := "POST"
	if rest == "runtime/invocation/next" || rest == "ping" {
		want = "GET"
	}
	switch {
	case rest == "ping", rest == "runtime/invocation/next", rest == "runtime/init/error":
	default:
		id, what, _ := strings.Cut(strings.TrimPrefix(rest, "runtime/invocation/"), "/")
		if !strings.HasPrefix(rest, "runtime/invocation/") || id == "" || what != "response" && what != "error" {
			return c.refuse(q, statusNotFound)
		}
		if q.method != want {
			return c.refuse(q, statusMethod)
		}
		return c.post(q, id, what == "error")
	}
	if q.method != want {
		return c.refuse(q, statusMethod)
	}
	switch rest {
	case "ping":
		return c.refuse(q, statusPong)
	case "runtime/init/error":
		b := c.s.pool.Get().(*scratch)
		defer keep(c.s.pool, b)
		doc, _, err := c.readAll(q, b)
		if err != nil {
			return nil, ends
		}
		if st := c.s.initFailed(q.errType, bytes.Clone(doc)); st != nil {
			return st, goes
		}
		return statusAccepted, goes
	}
	if _, next := c.refuse(q, nil); next == ends {
		return nil, ends
	}
	c.inside = false
	if st := c.s.next(c); st != nil {
		return st, goes
	}
	return nil, parks
}

// refuse reads away the body and gives the status.
func (c *apiConn) refuse(q *apiRequest, st *apiStatus) (*apiStatus, step) {
	if q.length == 0 && !q.chunked {
		return st, goes
	}
	if q.expect {
		return st, ends
	}
	if _, err := io.Copy(io.Discard, io.LimitReader(c.body(q), maxDrain)); err != nil {
		return st, ends
	}
	if c.trailer(q, nil) != nil {
		return st, ends
	}
	return st, goes
}

// post is POST response and POST error.
func (c *apiConn) post(q *apiRequest, id string, isError bool) (*apiStatus, step) {
	to := "InvocationResponse"
	if isError {
		to = "InvocationErrorResponse"
	}
	call, st := c.s.claim(id, to)
	if st != nil {
		return c.refuse(q, st)
	}
	if !isError && q.streams() {
		return c.stream(q, call)
	}
	b := c.s.pool.Get().(*scratch)
	doc, over, err := c.readAll(q, b)
	if err != nil {
		keep(c.s.pool, b)
		return nil, ends
	}
	st = c.s.answered(c, call, func(call *apiCall) {
		call.kind, call.body, call.buf, call.over, call.errType = replyResult, doc, b, over, q.errType
		if isError {
			call.kind = replyError
		}
	})
	switch {
	case st != nil:
		keep(c.s.pool, b)
		return st, goes
	case over:
		if q.expect {
			return statusTooLarge, ends
		}
		return statusTooLarge, goes
	}
	return statusAccepted, goes
}

// readAll reads the body into b, or says that it was over the limit.
func (c *apiConn) readAll(q *apiRequest, b *scratch) (doc []byte, over bool, err error) {
	if q.length > maxResult {
		_, _ = c.refuse(q, nil) // the connection's next read finds out
		return nil, true, nil
	}
	if q.expect {
		if _, err := io.WriteString(c.conn, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
			return nil, false, err
		}
	}
	buf := b.in[:0]
	if q.length > int64(cap(buf)) {
		buf = make([]byte, 0, q.length)
	}
	if !q.chunked {
		buf = buf[:q.length]
		_, err := io.ReadFull(c.br, buf)
		b.in = buf[:cap(buf)]
		return buf, false, noEOF(err)
	}
	r := c.body(q)
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if len(buf) > maxResult {
			over, buf = true, buf[:0]
			_, err = io.Copy(io.Discard, io.LimitReader(r, maxDrain))
			if err == nil {
				err = io.EOF
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, false, err
		}
	}
	b.in = buf[:cap(buf)]
	return buf, over, c.trailer(q, nil)
}

// body is the request's body; of a chunked one the trailer stays to be read.
func (c *apiConn) body(q *apiRequest) io.Reader {
	if q.chunked {
		return httputil.NewChunkedReader(c.br)
	}
	return io.LimitReader(c.br, q.length)
}

// trailer reads what follows the chunks.
func (c *apiConn) trailer(q *apiRequest, f func(name, value string)) error {
	if !q.chunked {
		return nil
	}
	left := maxHeader
	for {
		line, err := c.br.ReadBytes('\n')
		if left -= len(line); err != nil || left < 0 {
			return errors.New("a broken trailer")
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			return nil
		}
		if name, value, ok := bytes.Cut(line, []byte(":")); ok && f != nil {
			f(string(name), string(bytes.TrimSpace(value)))
		}
	}
}

// respond writes a status in one go.
func (c *apiConn) respond(st *apiStatus, closes bool) error {
	var room [512]byte
	b := append(room[:0], "HTTP/1.1 "...)
	b = append(b, st.line...)
	b = append(b, "\r\nContent-Type: "...)
	b = append(b, st.kind...)
	b = append(b, "\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(st.body)), 10)
	if closes {
		b = append(b, "\r\nConnection: close"...)
	}
	b = append(append(b, "\r\n"...), st.head...)
	b = append(b, "\r\n"...)
	_, err := c.conn.Write(append(b, st.body...))
	return err
}

// streamBody is a streamed answer that Invoke reads from the guest's connection while the connection's goroutine waits.
type streamBody struct {
	c    *apiConn
	q    *apiRequest
	once sync.Once
	done chan struct{} // closed when Invoke reads no more
	ok   bool          // the body was read to its end; valid after done
	last bool          // and the connection is of no more use
}

func (b *streamBody) release() { b.once.Do(func() { close(b.done) }) }

// stream hands the body to Invoke.
func (c *apiConn) stream(q *apiRequest, call *apiCall) (*apiStatus, step) {
	if q.expect {
		if _, err := io.WriteString(c.conn, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
			return nil, ends
		}
	}
	b := &streamBody{c: c, q: q, done: make(chan struct{})}
	if c.borrower != nil {
		c.flow = b
	}
	if st := c.s.answered(c, call, func(call *apiCall) {
		call.kind, call.media, call.stream = replyStream, q.media, b
	}); st != nil {
		c.flow = nil
		return c.refuse(q, st)
	}
	if c.flow != nil {
		return nil, goes
	}
	<-b.done
	switch {
	case !b.ok:
		return nil, ends
	case b.last:
		return statusAccepted, ends
	}
	return statusAccepted, goes
}

// copy gives the stream to the reply. An error inside the handler comes as trailer. A guest over this API is not told that its reader has
// gone, as on AWS: it has a while to end its answer, which is thrown away.
func (b *streamBody) copy(ctx context.Context, rep *reply) error {
	defer b.release()
	b.c.streaming = ctx
	defer func() { b.c.streaming = nil }()
	stop := invocation.AfterFunc(ctx, func() { _ = b.c.conn.SetReadDeadline(past) })
	defer stop()
	buf := make([]byte, 32<<10)
	r := b.c.body(b.q)
	for {
		n, err := r.Read(buf)
		if n > 0 && rep.write(buf[:n]) != nil && b.c.until.IsZero() {
			b.c.until = time.Now().Add(guest.Farewell)
			_ = b.c.conn.SetReadDeadline(b.c.until)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return noEOF(err)
		}
	}
	var kind string
	var doc []byte
	err := b.c.trailer(b.q, func(name, value string) {
		switch {
		case strings.EqualFold(name, "Lambda-Runtime-Function-Error-Type"):
			kind = value
		case strings.EqualFold(name, "Lambda-Runtime-Function-Error-Body"):
			doc, _ = base64.StdEncoding.DecodeString(value)
		}
	})
	if err != nil {
		return noEOF(err)
	}
	b.ok = true
	// Its reads may be given a deadline at any time from now on.
	b.last = !stop() || !b.c.until.IsZero()
	if kind == "" && doc == nil {
		_ = rep.close(nil)
		return rep.cut(nil)
	}
	fe := handlerError(doc)
	if fe.Type == "Error" && kind != "" {
		fe.Type = kind
	}
	if rep.lost != nil || rep.over || rep.live && rep.begun {
		return rep.cut(&fe)
	}
	_ = rep.fault(fe, doc)
	return nil
}
