package lambda

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
)

const (
	// maxResult is the size of a buffered result in bytes: Lambda quotas, "Invocation payload (synchronous)", as the service counts it.
	maxResult = 6291556
	// maxStreamed is the size of a streamed result in bytes: Lambda quotas, "Invocation payload (streamed response)".
	maxStreamed = 200 << 20
	// maxPrelude bounds the head of a streamed HTTP answer, in bytes.
	maxPrelude = 128 << 10

	httpStream  = "application/vnd.awslambda.http-integration-response"
	octetStream = "application/octet-stream" // unless something else is said
)

// The kinds of reply, as a frame's head names them.
const (
	replyResult = 'r'
	replyError  = 'e'
	replyStream = 's'
)

// reply takes what a guest answers to one Invocation and gives it to the Sink: at the end where the answer is buffered, as it
// comes where it is streamed to a Route that allows it.
type reply struct {
	inv   *invocation.Invocation
	sink  invocation.Sink
	kind  byte
	media string // of a streamed reply
	buf   []byte
	size  int
	live  bool  // bytes go to the Sink as they come
	begun bool  // the Sink was started
	over  bool  // it has a whole answer in place of the guest's; what still comes is thrown away
	lost  error // why what still comes is thrown away, after the answer had begun
}

func (r *reply) open(kind byte, media string) {
	r.kind, r.media = kind, media
	if q, ok := r.inv.Payload.(*invocation.Request); ok && kind == replyStream && q.Route != nil {
		r.live = q.Route.Stream
	} else if kind == replyStream && !ok {
		r.live = r.inv.Stream
	}
}

// headed says whether the stream begins with the head of an HTTP answer, which a direct caller reads itself.
func (r *reply) headed() bool {
	_, raw := r.inv.Payload.(invocation.Raw)
	return r.media == httpStream && !raw
}

// write takes bytes; they may be reused after it has returned. An error, given once, means that the reader is gone or the limit passed: the
// guest should be told.
func (r *reply) write(p []byte) error {
	r.size += len(p)
	switch {
	case r.over || r.lost != nil:
	case r.live:
		r.lost = r.pass(p)
		return r.lost
	case r.size <= maxResult:
		r.buf = append(r.buf, p...)
	}
	return nil
}

// pass gives bytes to the Sink at once.
func (r *reply) pass(p []byte) error {
	if r.size > maxStreamed {
		return errs.New(errs.TooLarge, "the streamed answer is over the limit of %d bytes", maxStreamed)
	}
	if r.begun {
		_, err := r.sink.Write(p)
		return err
	}
	if !r.headed() {
		media := r.media
		if media == "" {
			media = octetStream
		}
		r.begun = true
		head := invocation.Head{Status: 200, Length: -1, Header: []invocation.Field{{Name: "Content-Type", Value: media}}}
		if _, ok := r.inv.Payload.(invocation.Raw); ok {
			head.Status = 0
		}
		if err := r.sink.Start(head); err != nil {
			return err
		}
		_, err := r.sink.Write(p)
		return err
	}
	r.buf = append(r.buf, p...)
	head, rest, err := readPrelude(r.buf)
	if err != nil {
		r.begun, r.over, r.buf = true, true, nil
		return r.fault(invocation.FunctionError{Cause: invocation.CauseResponse, Type: "Runtime.InvalidResponse", Message: err.Error()}, nil)
	}
	if head == nil {
		return nil
	}
	r.begun, r.buf = true, nil
	head.Length = -1
	if err := r.sink.Start(*head); err != nil {
		return err
	}
	if len(rest) > 0 {
		_, err = r.sink.Write(rest)
	}
	return err
}

// cut is the error of an answer that was cut, or nil; fe is how the handler failed inside it, where it did.
func (r *reply) cut(fe *invocation.FunctionError) error {
	switch {
	case r.lost != nil:
		return &guest.CutError{Err: r.lost}
	case r.over || fe == nil:
		return nil
	}
	return &guest.CutError{Failure: fe, Err: errs.New(errs.Failed, "the handler failed inside a streamed answer: %s: %s", fe.Type, fe.Message)}
}

// close ends the reply. last are its final bytes, not yet given to write.
func (r *reply) close(last []byte) error {
	if r.over || r.lost != nil {
		return nil
	}
	if r.live {
		if len(last) > 0 || !r.begun && !r.headed() {
			if err := r.write(last); err != nil {
				return err
			}
		}
		if !r.begun {
			return r.fault(invocation.FunctionError{Cause: invocation.CauseResponse, Type: "Runtime.InvalidResponse", Message: "the stream ended inside its head"}, nil)
		}
		return nil
	}
	body := last
	if len(r.buf) > 0 {
		if r.size+len(last) <= maxResult {
			r.buf = append(r.buf, last...)
		}
		body = r.buf
	}
	r.size += len(last)
	if r.size > maxResult {
		msg := fmt.Sprintf("Response payload size exceeded maximum allowed payload size (%d bytes).", maxResult)
		return r.fault(invocation.FunctionError{Cause: invocation.CauseResponse, Type: "Function.ResponseSizeTooLarge", Message: msg}, nil)
	}
	switch r.kind {
	case replyError:
		return r.fault(handlerError(body), body)
	case replyStream:
		return r.collected(body)
	}
	if q, ok := r.inv.Payload.(*invocation.Request); ok {
		return writeAnswer(q, body, r.sink)
	}
	return raw(r.sink, body, nil)
}

// collected gives a streamed answer that was kept whole.
func (r *reply) collected(body []byte) error {
	q, ok := r.inv.Payload.(*invocation.Request)
	if !ok {
		return raw(r.sink, body, nil)
	}
	if r.media != httpStream {
		return writeAnswer(q, body, r.sink)
	}
	head, rest, err := readPrelude(body)
	if err == nil && head == nil {
		err = errs.New(errs.Failed, "the stream ended inside its head")
	}
	if err != nil {
		return r.fault(invocation.FunctionError{Cause: invocation.CauseResponse, Type: "Runtime.InvalidResponse", Message: err.Error()}, nil)
	}
	head.Length = int64(len(rest))
	if err := r.sink.Start(*head); err != nil || len(rest) == 0 || q.Method == "HEAD" {
		return err
	}
	_, err = r.sink.Write(rest)
	return err
}

// fault gives a function error: for a direct caller the document, or one made of fe where there is none.
func (r *reply) fault(fe invocation.FunctionError, doc []byte) error {
	return writeFault(r.inv, r.sink, fe, doc)
}

func writeFault(inv *invocation.Invocation, s invocation.Sink, fe invocation.FunctionError, doc []byte) error {
	if q, ok := inv.Payload.(*invocation.Request); ok && q.Route != nil {
		return writeFunctionError(q, fe, s)
	}
	if doc == nil {
		doc = errorDocument(fe.Type, fe.Message)
	}
	return raw(s, doc, &fe)
}

// raw gives bytes to a direct caller.
func raw(s invocation.Sink, body []byte, fe *invocation.FunctionError) error {
	if err := s.Start(invocation.Head{Length: int64(len(body)), Error: fe}); err != nil || len(body) == 0 {
		return err
	}
	_, err := s.Write(body)
	return err
}

// errorDocument is AWS's form of an error that the host found.
func errorDocument(kind, message string) []byte {
	b := append([]byte(`{"errorType":`), appendString(nil, kind)...)
	b = append(b, `,"errorMessage":`...)
	b = appendString(b, message)
	return append(b, '}')
}

// handlerError reads type and message from an error document; a document that is none stands for itself.
func handlerError(doc []byte) invocation.FunctionError {
	var d struct {
		Type    string          `json:"errorType"`
		Message json.RawMessage `json:"errorMessage"`
	}
	fe := invocation.FunctionError{Cause: invocation.CauseHandler, Type: "Error"}
	if json.Unmarshal(doc, &d) != nil {
		fe.Message = oneLine(string(doc))
		return fe
	}
	if d.Type != "" {
		fe.Type = d.Type
	}
	var text string
	if json.Unmarshal(d.Message, &text) != nil {
		text = string(d.Message)
	}
	fe.Message = oneLine(text)
	return fe
}

// oneLine cuts a message for people to its first line, at most 1,000 bytes.
func oneLine(s string) string {
	if i := bytes.IndexByte([]byte(s), '\n'); i >= 0 {
		s = s[:i]
	}
	if len(s) > 1000 {
		s = s[:1000]
	}
	return s
}
