package lambda

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
)

// scratch is what one Invocation needs for the time it runs, so that idle Sessions hold no buffers.
type scratch struct {
	out []byte
	in  []byte
}

const (
	scratchSize = 16 << 10
	scratchKeep = 256 << 10 // larger ones are not kept
)

// keep gives back what is not too large to be kept.
func keep(pool *sync.Pool, b *scratch) {
	if cap(b.out)+cap(b.in) <= scratchKeep {
		pool.Put(b)
	}
}

// streamSession serves Invocations as frames on one byte stream. Invoke is called by one goroutine at a time.
type streamSession struct {
	line    lineReader
	unit    *guest.Unit
	pool    *sync.Pool // of *scratch
	call    uint16
	streams bool          // the handler streams its answers
	spent   bool          // the guest has ended or is about to
	load    time.Duration // of the user's code

	mu struct {
		sync.Mutex
		call uint16 // whose context may still cut the line, or 0
		sent bool   // the guest has all of it
		told bool   // and knows that nobody reads its answer
	}
}

// past ends all reads and writes.
var past = time.Unix(1, 0)

const (
	// grace is how long the end of a context leaves to take what the guest has already sent: a guest that answers and exits ends both.
	grace = 10 * time.Millisecond
	// graceAll bounds all of that together.
	graceAll = 80 * time.Millisecond
)

// lineReader reads a line. When a context's end has cut it, what has arrived before is read all the same.
type lineReader struct {
	net.Conn
	cut time.Time // when the end was first seen
}

func (l *lineReader) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		return n, err
	}
	now := time.Now()
	if l.cut.IsZero() {
		l.cut = now
	}
	if now.Sub(l.cut) > graceAll {
		return n, err
	}
	// A read looks at the line before it waits.
	_ = l.SetReadDeadline(now.Add(grace))
	return l.Conn.Read(p)
}

// openStream waits for the guest's first frame.
func openStream(ctx context.Context, conn net.Conn, u *guest.Unit, pool *sync.Pool) (guest.Session, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(past) })
	defer stop()
	r := frameReader{r: &lineReader{Conn: conn}, buf: make([]byte, 512)}
	f, err := r.next()
	if err == nil && f.kind == frameKept && f.length <= maxCompiled {
		var p []byte
		if p, err = r.payload(f.length); err == nil {
			_ = keepCompiled(u, p) // it goes as well without
			f, err = r.next()
		}
	}
	if err != nil {
		return nil, ended(ctx, "wait for the guest's init", err)
	}
	switch {
	case f.kind == frameReady && f.length <= maxReady:
		load, err := loaded(&r, f.length)
		if err != nil {
			return nil, ended(ctx, "read how the guest's init went", err)
		}
		if !stop() {
			return nil, ended(ctx, "wait for the guest's init", ctx.Err())
		}
		return &streamSession{line: lineReader{Conn: conn}, unit: u, pool: pool, streams: f.flags&flagStreams != 0, load: load}, nil
	case f.kind == frameFailed && f.length <= maxResult:
		doc, err := r.payload(f.length)
		if err != nil {
			return nil, ended(ctx, "read the guest's init error", err)
		}
		return nil, initError(u, doc)
	}
	return nil, errs.New(errs.Failed, "the guest's first frame is of kind %d", f.kind)
}

// maxReady bounds the payload of frameReady.
const maxReady = 20

// loaded reads how long the user's code took to load, in µs as text. What is no number says nothing.
func loaded(r *frameReader, n int) (time.Duration, error) {
	p, err := r.payload(n)
	if err != nil {
		return 0, err
	}
	us, err := strconv.ParseInt(string(p), 10, 64)
	if err != nil || us < 0 || us > math.MaxInt64/int64(time.Microsecond) {
		return 0, nil
	}
	return time.Duration(us) * time.Microsecond, nil
}

// ended prefers the context's error to that of the line which its end has cut.
func ended(ctx context.Context, step string, err error) error {
	if c := ctx.Err(); c != nil {
		err = c
	}
	return fmt.Errorf("%s: %w", step, err)
}

// initError makes the guest's error document an InitError.
func initError(u *guest.Unit, doc []byte) *guest.InitError {
	fe := handlerError(doc)
	return &guest.InitError{Type: fe.Type, Message: noted(u, fe.Message), Payload: doc}
}

// noted adds the Unit's Note, which may be the reason of a failed Init.
func noted(u *guest.Unit, msg string) string {
	if u.Note == "" {
		return msg
	}
	return msg + " (" + u.Note + ")"
}

// HandlerInit is how long the bootstrap took to load the handler.
func (s *streamSession) HandlerInit() time.Duration { return s.load }

// Concurrency is one: a Lambda execution environment takes one Invocation at a time.
func (s *streamSession) Concurrency() int { return 1 }

// Close closes the line.
func (s *streamSession) Close() error { return s.line.Close() }

// Invoke writes the Invocation in one go and reads the answer.
func (s *streamSession) Invoke(ctx context.Context, inv *invocation.Invocation, sink invocation.Sink) error {
	if s.spent {
		return fmt.Errorf("the guest has ended after its last answer: %w", guest.ErrUnseen)
	}
	b := s.pool.Get().(*scratch)
	defer keep(s.pool, b)
	if s.call++; s.call == 0 {
		s.call = 1
	}
	out, at := openFrame(b.out[:0], frameHead, s.call)
	out = appendMeta(out, s.unit, inv)
	closeFrame(out, at)
	out, at = openFrame(out, frameEnd, s.call)
	out, err := appendPayload(out, s.unit, inv)
	b.out = out
	if err != nil {
		return err
	}
	closeFrame(out, at)

	defer s.watch(ctx)()
	if _, err := s.line.Write(out); err != nil {
		// A guest acts on the last byte only.
		s.spent = true
		if c := ctx.Err(); c != nil {
			err = c
		}
		return fmt.Errorf("send the invocation: %w: %w", guest.ErrUnseen, err)
	}
	s.mu.Lock()
	s.mu.sent = true
	s.mu.Unlock()
	r := frameReader{r: &s.line, buf: b.in}
	err = s.answer(&r, inv, sink)
	b.in = r.buf
	if _, ok := err.(*guest.CutError); ok {
		return err
	}
	if err != nil {
		s.spent = true
		return ended(ctx, "read the answer", err)
	}
	return nil
}

// watch lets the end of ctx cut the line, until the returned function is called; what was cut by then is whole again. A guest that streams
// is told first that its reader has gone.
func (s *streamSession) watch(ctx context.Context) func() {
	mine := s.call
	s.mu.Lock()
	s.mu.call = mine
	s.mu.Unlock()
	stop := invocation.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case s.mu.call != mine:
		case s.streams && s.mu.sent && errors.Is(ctx.Err(), context.Canceled):
			s.tellLocked()
		default:
			_ = s.line.SetDeadline(past)
		}
	})
	return func() {
		stopped := stop()
		s.mu.Lock()
		defer s.mu.Unlock()
		told := s.mu.told
		s.mu.call, s.mu.sent, s.mu.told = 0, false, false
		if !stopped || told {
			s.line.cut = time.Time{}
			_ = s.line.SetDeadline(time.Time{})
		}
	}
}

// tellLocked tells the guest that nobody reads its answer, and bounds the time that it then has.
func (s *streamSession) tellLocked() {
	if s.mu.told {
		return
	}
	s.mu.told = true
	_ = s.line.SetDeadline(time.Now().Add(guest.Farewell))
	var room [frameHeader]byte
	p, at := openFrame(room[:0], frameLeft, s.mu.call)
	closeFrame(p, at)
	_, _ = s.line.Write(p) // where this fails reading does too
}

func (s *streamSession) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tellLocked()
}

func (s *streamSession) told() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.told
}

// answer reads one answer into the Sink.
func (s *streamSession) answer(r *frameReader, inv *invocation.Invocation, sink invocation.Sink) error {
	rep := reply{inv: inv, sink: sink}
	for open := false; ; {
		f, err := r.next()
		if err != nil {
			return noEOF(err)
		}
		if f.call != s.call || (f.kind == frameHead) == open {
			return errs.New(errs.Failed, "the guest sent a frame of kind %d for call %d during call %d", f.kind, f.call, s.call)
		}
		s.spent = s.spent || f.flags&flagLast != 0
		switch f.kind {
		case frameHead:
			if f.length == 0 || f.length > 1024 {
				return errs.New(errs.Failed, "the guest sent an answer's head of %d bytes", f.length)
			}
			p, err := r.payload(f.length)
			if err != nil {
				return err
			}
			open = true
			media := ""
			if p[0] == replyStream {
				media = string(p[1:])
			}
			rep.open(p[0], media)
		case frameBody:
			if err := s.body(r, &rep, f.length); err != nil {
				return err
			}
		case frameEnd:
			if err := s.end(r, &rep, f.length); err != nil {
				return err
			}
			return rep.cut(nil)
		case frameAbort:
			return s.abort(r, &rep, f.length)
		default:
			return errs.New(errs.Failed, "the guest sent a frame of unknown kind %d", f.kind)
		}
	}
}

// body gives n bytes to the reply as they come. The rest of an answer that nobody reads any more is thrown away, while the guest ends it.
func (s *streamSession) body(r *frameReader, rep *reply, n int) error {
	for n > 0 {
		p, err := r.some(n)
		if err != nil {
			return err
		}
		n -= len(p)
		if rep.write(p) != nil {
			s.tell()
		}
	}
	return nil
}

// end gives the last n bytes; a small answer goes to the Sink from the read buffer.
func (s *streamSession) end(r *frameReader, rep *reply, n int) error {
	var p []byte
	if rep.live || rep.size+n > maxResult {
		// What a frame's length says is not believed for the size of a buffer.
		if err := s.body(r, rep, n); err != nil {
			return err
		}
	} else if n > 0 {
		var err error
		if p, err = r.payload(n); err != nil {
			return err
		}
	}
	if r.hi != r.lo {
		return errs.New(errs.Failed, "the guest sent %d bytes after its answer", r.hi-r.lo)
	}
	// The guest has done its part: a reader that is gone now is no fault of it.
	_ = rep.close(p)
	return nil
}

// abort ends a streamed answer with the error document. What its reader already has cannot be taken back: then the answer is cut.
func (s *streamSession) abort(r *frameReader, rep *reply, n int) error {
	if n > maxResult {
		return errs.New(errs.Failed, "the guest sent an error document of %d bytes", n)
	}
	doc, err := r.payload(n)
	if err != nil {
		return err
	}
	if r.hi != r.lo {
		return errs.New(errs.Failed, "the guest sent %d bytes after its answer", r.hi-r.lo)
	}
	fe := handlerError(doc)
	if rep.lost == nil && s.told() {
		rep.lost = errs.New(errs.Canceled, "the reader of the answer has gone")
	}
	if rep.lost != nil || rep.over || rep.live && rep.begun {
		return rep.cut(&fe)
	}
	_ = rep.fault(fe, doc) // a reader that is gone now is no fault of the guest
	return nil
}

// appendMeta appends an Invocation's head.
func appendMeta(dst []byte, u *guest.Unit, inv *invocation.Invocation) []byte {
	dst = append(dst, inv.ID...)
	dst = append(dst, '\n')
	dst = strconv.AppendInt(dst, deadline(u, inv).UnixMilli(), 10)
	dst = append(dst, '\n')
	dst = appendARN(dst, u, inv)
	dst = append(dst, '\n')
	dst = append(dst, traceHeader(inv)...)
	dst = append(dst, '\n')
	return append(dst, clientContext(inv)...)
}

// appendARN appends the ARN that was invoked, which has the qualifier the caller used.
func appendARN(dst []byte, u *guest.Unit, inv *invocation.Invocation) []byte {
	dst = append(dst, u.ARN...)
	if inv.Qualifier != "" {
		dst = append(dst, ':')
		dst = append(dst, inv.Qualifier...)
	}
	return dst
}

// deadline is the Invocation's, or what the Unit's timeout makes of now.
func deadline(u *guest.Unit, inv *invocation.Invocation) time.Time {
	if inv.Deadline.IsZero() {
		return time.Now().Add(u.Timeout)
	}
	return inv.Deadline
}

// clientContext is the caller's client context as one line of JSON, or "".
func clientContext(inv *invocation.Invocation) string {
	if inv.ClientContext == "" {
		return ""
	}
	b, err := base64.StdEncoding.DecodeString(inv.ClientContext)
	if err != nil {
		return ""
	}
	// Line ends in JSON stand between tokens only.
	return strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, string(b))
}

// appendPayload appends the event. Its error is about the Invocation: the guest is as it was.
func appendPayload(dst []byte, u *guest.Unit, inv *invocation.Invocation) ([]byte, error) {
	var err error
	switch p := inv.Payload.(type) {
	case invocation.Raw:
		dst, err = appendRaw(dst, p)
	case *invocation.Request:
		dst, err = appendEvent(dst, p, inv)
	case *invocation.Batch:
		dst, err = appendBatch(dst, u, p)
	default:
		err = errs.New(errs.Internal, "a payload of type %T", inv.Payload)
	}
	if err != nil {
		return dst, fmt.Errorf("%w: %w", guest.ErrPayload, err)
	}
	return dst, nil
}

// appendRaw appends bytes as they are; none at all are an empty object.
func appendRaw(dst, p []byte) ([]byte, error) {
	if len(p) > maxResult {
		return dst, tooLarge(len(p))
	}
	if len(p) == 0 {
		return append(dst, "{}"...), nil
	}
	return append(dst, p...), nil
}
