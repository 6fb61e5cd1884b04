package gateway

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebb-run/ebb/internal/invocation"
)

// maxHead is the most bytes of one head that are kept; net/http refuses longer ones.
const maxHead = 20 << 10

// headConn is a connection that remembers the heads of HTTP/1 requests as the client wrote them, for their header names.
// It follows the framing of RFC 9112 and gives up for good at the first thing it does not understand, or when a head
// does not match what net/http read: the names are then net/http's.
//
// It also gives every write its deadline, so that a client that does not read cannot hold it for ever.
type headConn struct {
	net.Conn
	idle    time.Duration // the longest wait for the client to take what one Write gives; 0 for no limit
	until   atomic.Int64  // the write deadline in Unix nanoseconds, or 0
	severed atomic.Bool   // nobody takes what is written

	mu struct { // reads happen on the connection's goroutine and, while a handler runs, on net/http's background reader
		sync.Mutex
		lost  bool
		state frame
		head  []byte   // of the request that is being read; its array is used again
		heads []string // whole heads that no handler has asked for yet
		left  int64    // bytes of body or chunk still to come
		line  []byte   // of a chunked body
	}
}

type frame uint8

const (
	inHead frame = iota
	inBody
	inChunkSize
	inChunk
	inChunkEnd
	inTrailer
)

type connKey struct{}

// connContext gives a handler its connection.
func connContext(ctx context.Context, c net.Conn) context.Context {
	if hc, ok := c.(*headConn); ok {
		return context.WithValue(ctx, connKey{}, hc)
	}
	return ctx
}

// Read reads and remembers.
func (c *headConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.mu.Lock()
		if !c.mu.lost {
			c.feed(p[:n])
		}
		c.mu.Unlock()
	}
	return n, err
}

// Write writes under a deadline. To set it costs more than a small answer should, so one that has most of its time left
// serves again.
func (c *headConn) Write(p []byte) (int, error) {
	if c.idle > 0 {
		if now := time.Now(); time.Duration(c.until.Load()-now.UnixNano()) < c.idle-c.idle/8 {
			_ = c.SetWriteDeadline(now.Add(c.idle)) // without a deadline it writes as it would have
		}
		if c.severed.Load() {
			_ = c.Conn.SetWriteDeadline(longAgo)
		}
	}
	return c.Conn.Write(p)
}

// SetWriteDeadline sets the deadline; a Write moves one that is near, but longAgo ends all writes.
func (c *headConn) SetWriteDeadline(t time.Time) error {
	if t.Equal(longAgo) {
		c.severed.Store(true)
	}
	c.note(t)
	return c.Conn.SetWriteDeadline(t)
}

// SetDeadline sets both deadlines; a Write moves one that is near.
func (c *headConn) SetDeadline(t time.Time) error {
	c.note(t)
	return c.Conn.SetDeadline(t)
}

func (c *headConn) note(t time.Time) {
	until := int64(0)
	if !t.IsZero() {
		until = t.UnixNano()
	}
	c.until.Store(until)
}

// CloseWrite ends the sending side, which net/http does before it closes on a client that is still sending: without it
// the client would be reset and might never read its answer.
func (c *headConn) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return nil
}

// lose ends the remembering. mu is held.
func (c *headConn) lose() {
	c.mu.lost, c.mu.head, c.mu.heads, c.mu.line = true, nil, nil, nil
}

// feed takes bytes in the order of the wire. mu is held.
func (c *headConn) feed(p []byte) {
	for len(p) > 0 && !c.mu.lost {
		switch c.mu.state {
		case inHead:
			p = c.feedHead(p)
		case inBody, inChunk:
			n := min(c.mu.left, int64(len(p)))
			c.mu.left -= n
			p = p[n:]
			if c.mu.left == 0 {
				if c.mu.state == inChunk {
					c.mu.state = inChunkEnd
				} else {
					c.mu.state = inHead
				}
			}
		default:
			p = c.feedLine(p)
		}
	}
}

// feedHead takes bytes up to the empty line that ends a head.
func (c *headConn) feedHead(p []byte) []byte {
	if len(c.mu.head) == 0 {
		for len(p) > 0 && (p[0] == '\r' || p[0] == '\n') { // RFC 9112, section 2.2: empty lines before a request line
			p = p[1:]
		}
	}
	from := max(0, len(c.mu.head)-3)
	c.mu.head = append(c.mu.head, p...)
	end := headEnd(c.mu.head[from:])
	if end < 0 {
		if len(c.mu.head) > maxHead {
			c.lose()
		}
		return nil
	}
	end += from
	rest := p[len(p)-(len(c.mu.head)-end):]
	head := c.mu.head[:end]
	length, chunked, ok := framing(head)
	if !ok || len(head) > maxHead || len(c.mu.heads) > 64 {
		c.lose()
		return nil
	}
	c.mu.heads = append(c.mu.heads, string(head))
	c.mu.head = c.mu.head[:0]
	switch {
	case chunked:
		c.mu.state, c.mu.line = inChunkSize, c.mu.line[:0]
	case length > 0:
		c.mu.state, c.mu.left = inBody, length
	}
	return rest
}

// headEnd returns the index behind the empty line, or -1.
func headEnd(b []byte) int {
	for i := 0; i < len(b); {
		n := bytes.IndexByte(b[i:], '\n')
		if n < 0 {
			return -1
		}
		i += n + 1
		if i < len(b) && b[i] == '\n' {
			return i + 1
		}
		if i+1 < len(b) && b[i] == '\r' && b[i+1] == '\n' {
			return i + 2
		}
	}
	return -1
}

// framing reads from a head how its body is delimited. It is not ok for what is not plain HTTP/1.
func framing(head []byte) (length int64, chunked, ok bool) {
	line, rest, _ := bytes.Cut(head, []byte("\n"))
	if !bytes.Contains(line, []byte(" HTTP/1.")) {
		return 0, false, false
	}
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, []byte("\n"))
		if len(line) > 0 && (line[0] == ' ' || line[0] == '\t') {
			return 0, false, false // a folded line
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch len(name) {
		case len("Content-Length"):
			if bytes.EqualFold(name, []byte("Content-Length")) {
				n, err := strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64)
				if err != nil || n < 0 {
					return 0, false, false
				}
				length = n
			}
		case len("Transfer-Encoding"):
			if bytes.EqualFold(name, []byte("Transfer-Encoding")) {
				if !bytes.EqualFold(bytes.TrimSpace(value), []byte("chunked")) {
					return 0, false, false
				}
				chunked = true
			}
		}
	}
	return length, chunked, true
}

// feedLine takes the lines between chunks: RFC 9112, section 7.1.
func (c *headConn) feedLine(p []byte) []byte {
	i := bytes.IndexByte(p, '\n')
	if i < 0 {
		if c.mu.line = append(c.mu.line, p...); len(c.mu.line) > maxHead {
			c.lose()
		}
		return nil
	}
	line := bytes.TrimRight(append(c.mu.line, p[:i]...), "\r")
	c.mu.line = c.mu.line[:0]
	switch c.mu.state {
	case inChunkSize:
		size, _, _ := bytes.Cut(line, []byte(";"))
		n, err := strconv.ParseInt(string(bytes.TrimSpace(size)), 16, 64)
		switch {
		case err != nil || n < 0:
			c.lose()
		case n == 0:
			c.mu.state = inTrailer
		default:
			c.mu.state, c.mu.left = inChunk, n
		}
	case inChunkEnd:
		c.mu.state = inChunkSize
		if len(line) > 0 {
			c.lose()
		}
	case inTrailer:
		if len(line) == 0 {
			c.mu.state = inHead
		}
	}
	return p[i+1:]
}

// take returns the oldest head that was not taken, or "".
func (c *headConn) take() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.mu.heads) == 0 {
		return ""
	}
	head := c.mu.heads[0]
	c.mu.heads = slices.Delete(c.mu.heads, 0, 1)
	return head
}

// takeHead returns the head of the request as the client wrote it, or "". Every request takes its own, used or not.
func takeHead(r *http.Request) string {
	if r.ProtoMajor != 1 {
		return ""
	}
	if c, ok := r.Context().Value(connKey{}).(*headConn); ok {
		return c.take()
	}
	return ""
}

// header returns the request's header lines: as the client wrote them, or net/http's.
func header(r *http.Request, head string) []invocation.Field {
	if head == "" {
		return plainHeader(r)
	}
	if fields, ok := parseHead(head, r); ok {
		return fields
	}
	if c, ok := r.Context().Value(connKey{}).(*headConn); ok {
		c.mu.Lock()
		c.lose() // the framing here and net/http's differ
		c.mu.Unlock()
	}
	return plainHeader(r)
}

// plainHeader gives net/http's names, sorted; lower case for HTTP/2, where the client has no other.
func plainHeader(r *http.Request) []invocation.Field {
	fields := make([]invocation.Field, 0, len(r.Header)+2)
	fields = append(fields, invocation.Field{Name: "Host", Value: r.Host})
	for name, values := range r.Header {
		for _, v := range values {
			fields = append(fields, invocation.Field{Name: name, Value: v})
		}
	}
	if r.ContentLength > 0 && r.Header.Get("Content-Length") == "" {
		fields = append(fields, invocation.Field{Name: "Content-Length", Value: strconv.FormatInt(r.ContentLength, 10)})
	}
	slices.SortStableFunc(fields[1:], func(a, b invocation.Field) int { return strings.Compare(a.Name, b.Name) })
	if r.ProtoMajor >= 2 {
		for i := range fields {
			fields[i].Name = strings.ToLower(fields[i].Name)
		}
	}
	return fields
}

// parseHead splits a head and checks that it is the one net/http read: the same request line and the same lines.
func parseHead(head string, r *http.Request) ([]invocation.Field, bool) {
	line, rest, _ := strings.Cut(head, "\n")
	line = strings.TrimSuffix(line, "\r")
	if len(line) != len(r.Method)+len(r.RequestURI)+len(r.Proto)+2 || !strings.HasPrefix(line, r.Method) ||
		!strings.HasPrefix(line[len(r.Method)+1:], r.RequestURI) {
		return nil, false
	}
	fields := make([]invocation.Field, 0, strings.Count(rest, "\n"))
	seen := 0
	for {
		line, rest, _ = strings.Cut(rest, "\n")
		line = strings.TrimSuffix(line, "\r")
		if line == "" {
			break
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || strings.ContainsAny(name, " \t") {
			return nil, false
		}
		value = strings.Trim(value, " \t")
		key := textproto.CanonicalMIMEHeaderKey(name)
		switch key {
		case "Host", "Transfer-Encoding", "Trailer", "Content-Length", "Connection": // net/http moves these or takes them away
		default:
			if !slices.Contains(r.Header[key], value) {
				return nil, false
			}
			seen++
		}
		fields = append(fields, invocation.Field{Name: name, Value: value})
	}
	want := 0
	for key, values := range r.Header {
		switch key {
		case "Host", "Transfer-Encoding", "Trailer", "Content-Length", "Connection":
		default:
			want += len(values)
		}
	}
	return fields, seen == want
}
