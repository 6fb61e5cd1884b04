package lambda

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"sync"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/shape"
)

// invokeStream answers with the bytes as they come, in AWS's event stream encoding.
func (s *service) invokeStream(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	q, head := c.Query, c.Request.Header
	in := &invokeInput{
		FunctionName: c.Labels["FunctionName"], Qualifier: q.Get("Qualifier"), InvocationType: head.Get("X-Amz-Invocation-Type"),
		LogType: head.Get("X-Amz-Log-Type"), ClientContext: head.Get("X-Amz-Client-Context"), Payload: c.Body,
	}
	if in.InvocationType == "Event" {
		return nil, wire.Errorf("InvalidParameterValueException", "InvocationType Event is not supported by InvokeWithResponseStream")
	}
	inv, f, err := s.prepare(ctx, c, in)
	if err != nil {
		return nil, err
	}
	a := &shape.Answer{Status: http.StatusOK, Header: http.Header{"X-Amz-Executed-Version": {executed(inv)}, "Content-Type": {"application/vnd.amazon.eventstream"}}}
	if in.InvocationType == "DryRun" {
		a.Status = http.StatusNoContent
		return a, nil
	}
	inv.Stream = true
	r, w := io.Pipe()
	sink := &streamSink{w: w, begun: make(chan struct{})}
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { // the engine waits for it when it drains, and Close ends it
		defer stop()
		err := s.b.Invoke(work, inv, sink)
		if sink.started {
			done := sink.complete(err)
			if in.LogType == "Tail" {
				if lines, err := s.b.Tail(work, f, inv.ID, inv.Received); err == nil {
					done.LogResult = tail(lines)
				}
			}
			text, _ := json.Marshal(done) // text alone
			_, _ = w.Write(message("InvokeComplete", "application/json", text))
		}
		_ = w.Close()
		ended <- err
	}()
	select {
	case <-sink.begun:
	case err := <-ended:
		if err == nil {
			err = errs.New(errs.Internal, "the function gave no answer")
		}
		if !sink.started {
			return nil, err
		}
	case <-ctx.Done():
		stop()
		return nil, <-ended
	}
	a.Stream = &liveReader{r, stop}
	return a, nil
}

// streamSink writes an answer as events.
type streamSink struct {
	w       *io.PipeWriter
	once    sync.Once
	begun   chan struct{}
	started bool
	failed  *invocation.FunctionError
	doc     []byte // of a failure
}

func (s *streamSink) Start(h invocation.Head) error {
	if s.started {
		return errs.New(errs.Internal, "the answer was started twice")
	}
	s.started, s.failed = true, h.Error
	s.once.Do(func() { close(s.begun) })
	return nil
}

func (s *streamSink) Write(p []byte) (int, error) {
	if s.failed != nil {
		s.doc = append(s.doc, p...)
		return len(p), nil
	}
	for rest := p; len(rest) > 0; {
		n := min(len(rest), maxChunk)
		if _, err := s.w.Write(message("PayloadChunk", "application/octet-stream", rest[:n])); err != nil {
			return len(p) - len(rest), errs.New(errs.Canceled, "the caller is gone: %w", err)
		}
		rest = rest[n:]
	}
	return len(p), nil
}

func (s *streamSink) Upgrade(invocation.Head) (net.Conn, error) {
	return nil, errs.New(errs.Unsupported, "a direct invocation has no connection to upgrade")
}

type completed struct {
	ErrorCode    string `json:",omitempty"`
	ErrorDetails string `json:",omitempty"`
	LogResult    string `json:",omitempty"`
}

// complete tells how it went.
func (s *streamSink) complete(err error) *completed {
	var cut *guest.CutError
	switch {
	case s.failed != nil:
		return &completed{ErrorCode: unhandled, ErrorDetails: string(s.doc)}
	case errors.As(err, &cut) && cut.Failure != nil:
		return &completed{ErrorCode: unhandled, ErrorDetails: cut.Failure.Type + ": " + cut.Failure.Message}
	case err != nil:
		return &completed{ErrorCode: unhandled, ErrorDetails: "the stream was cut"}
	}
	return &completed{}
}

// maxChunk bounds the payload of a message, in bytes.
const maxChunk = 256 << 10

// message is one message of the event stream encoding: Amazon Transcribe guide, "Event stream encoding".
func message(event, media string, payload []byte) []byte {
	var headers []byte
	for _, h := range [][2]string{{":message-type", "event"}, {":event-type", event}, {":content-type", media}} {
		headers = append(append(headers, byte(len(h[0]))), h[0]...)
		headers = append(headers, 7) // text
		headers = append(binary.BigEndian.AppendUint16(headers, uint16(len(h[1]))), h[1]...)
	}
	total := 12 + len(headers) + len(payload) + 4
	b := make([]byte, 0, total)
	b = binary.BigEndian.AppendUint32(b, uint32(total))
	b = binary.BigEndian.AppendUint32(b, uint32(len(headers)))
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	b = append(append(b, headers...), payload...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

// liveReader sends what comes at once.
type liveReader struct {
	*io.PipeReader
	stop func()
}

// WriteTo copies all to w, and flushes after each message.
func (r *liveReader) WriteTo(w io.Writer) (n int64, err error) {
	buf := make([]byte, maxChunk+1024)
	flush := func() error { return nil }
	if rw, ok := w.(http.ResponseWriter); ok {
		flush = http.NewResponseController(rw).Flush
	}
	for {
		m, err := r.Read(buf)
		if m > 0 {
			k, werr := w.Write(buf[:m])
			n += int64(k)
			if werr == nil {
				werr = flush()
			}
			if werr != nil {
				return n, werr
			}
		}
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// Close ends the Invocation whose reader is gone.
func (r *liveReader) Close() error {
	err := r.PipeReader.Close()
	r.stop()
	return err
}
