package lambda

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
)

// The frames between host and bootstrap. A frame is length (uint32, little endian), kind (uint8), flags (uint8),
// call (uint16, the number of the Invocation on this line), then length bytes.
//
// An Invocation is frameHead, any number of frameBody, frameEnd; so is its answer, where frameAbort may take the place of
// frameEnd. An Invocation's head is lines: request id, deadline in Unix milliseconds, function ARN, trace header, client
// context. An answer's head is 'r' (result), 'e' (error document) or 's' and a media type (streamed).
// What ends an answer also ends the Invocation: the guest holds it back while its code is at work.
// The guest's first frame is frameReady, with the µs that the user's code took to load as text, or frameFailed with an error document.
// One frameKept may come before it, with what was compiled of the code; see compiled.go.
// frameLeft tells the guest during an Invocation that nobody reads its streamed answer any more.
const (
	frameHead   = 1
	frameBody   = 2
	frameEnd    = 3
	frameReady  = 4
	frameFailed = 5
	frameAbort  = 6
	frameLeft   = 7
	frameKept   = 8

	// flagLast, on any frame of an answer, says that the guest ends after it.
	flagLast = 1
	// flagStreams, on frameReady, says that the handler streams its answers.
	flagStreams = 2

	frameHeader = 8
)

type frame struct {
	length int
	kind   byte
	flags  byte
	call   uint16
}

// openFrame appends a header to be completed by closeFrame, which is given the returned position.
func openFrame(dst []byte, kind byte, call uint16) ([]byte, int) {
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0, kind, 0, 0, 0)
	binary.LittleEndian.PutUint16(dst[at+6:], call)
	return dst, at
}

func closeFrame(dst []byte, at int) {
	binary.LittleEndian.PutUint32(dst[at:], uint32(len(dst)-at-frameHeader))
}

// frameReader reads frames with as few reads as the line allows. What payload and some return is valid until the next call.
type frameReader struct {
	r      io.Reader
	buf    []byte
	lo, hi int
}

// fill has at least n bytes unread in buf.
func (f *frameReader) fill(n int) error {
	if f.hi-f.lo >= n {
		return nil
	}
	if f.lo > 0 {
		f.hi = copy(f.buf, f.buf[f.lo:f.hi])
		f.lo = 0
	}
	if n > len(f.buf) {
		f.buf = append(f.buf[:f.hi], make([]byte, n-f.hi)...)
	}
	for f.hi < n {
		m, err := f.r.Read(f.buf[f.hi:])
		f.hi += m
		if err != nil && f.hi < n {
			if err == io.EOF && f.hi > 0 {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// next reads a header.
func (f *frameReader) next() (frame, error) {
	if err := f.fill(frameHeader); err != nil {
		return frame{}, err
	}
	b := f.buf[f.lo:]
	n := binary.LittleEndian.Uint32(b)
	if n > math.MaxInt32 {
		return frame{}, fmt.Errorf("the guest sent a frame of %d bytes", n)
	}
	f.lo += frameHeader
	return frame{length: int(n), kind: b[4], flags: b[5], call: binary.LittleEndian.Uint16(b[6:])}, nil
}

// payload reads n bytes as a whole.
func (f *frameReader) payload(n int) ([]byte, error) {
	if err := f.fill(n); err != nil {
		return nil, noEOF(err)
	}
	p := f.buf[f.lo : f.lo+n]
	f.lo += n
	return p, nil
}

// some reads at least one and at most n bytes, n > 0.
func (f *frameReader) some(n int) ([]byte, error) {
	if err := f.fill(1); err != nil {
		return nil, noEOF(err)
	}
	n = min(n, f.hi-f.lo)
	p := f.buf[f.lo : f.lo+n]
	f.lo += n
	return p, nil
}

// noEOF makes an end inside a frame an unexpected one.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
