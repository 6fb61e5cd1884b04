package seal

import (
	"encoding/binary"
	"fmt"
	"io"
)

// segment is how many bytes of a stream are sealed together; the last segment has fewer, or none.
const segment = 64 << 10

// StreamSize is the size of a stream of n bytes when a Box that is not nil has sealed it.
func StreamSize(n int64) int64 { return n + (n/segment+1)*Overhead }

// PlainSize is the size of what is in a sealed stream of n bytes, or -1 where none has that size.
func (b *Box) PlainSize(n int64) int64 {
	if b == nil {
		return n
	}
	segments := n / (segment + Overhead)
	rest := n % (segment + Overhead)
	if rest < Overhead {
		return -1
	}
	return segments*segment + rest - Overhead
}

// segmentPlace is unique for each segment; the last of a stream is told from the others, so that a stream that was cut does not open.
func segmentPlace(place string, index uint64, last bool) string {
	b := binary.BigEndian.AppendUint64([]byte(place), index)
	if last {
		return string(append(b, 1))
	}
	return string(append(b, 0))
}

// writer seals a stream.
type writer struct {
	b     *Box
	w     io.Writer
	place string
	index uint64
	buf   []byte // a nonce's room, and what waits
	err   error
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// Writer seals what is written to it, in constant memory. Close writes the end, and does not close w: without it the stream does
// not open.
func (b *Box) Writer(w io.Writer, place string) io.WriteCloser {
	if b == nil {
		return nopCloser{w}
	}
	return &writer{b: b, w: w, place: place, buf: make([]byte, NonceSize, segment+Overhead)}
}

func (s *writer) Write(p []byte) (n int, err error) {
	for len(p) > 0 && s.err == nil {
		m := min(len(p), NonceSize+segment-len(s.buf))
		s.buf = append(s.buf, p[:m]...)
		p, n = p[m:], n+m
		if len(s.buf) == NonceSize+segment {
			s.flush(false)
		}
	}
	return n, s.err
}

func (s *writer) flush(last bool) {
	_, s.err = s.w.Write(s.b.SealInPlace(s.buf, segmentPlace(s.place, s.index, last)))
	s.index++
	s.buf = s.buf[:NonceSize]
}

func (s *writer) Close() error {
	if s.err == nil {
		s.flush(true)
		if s.err == nil {
			s.err = io.ErrClosedPipe
			return nil
		}
	}
	return s.err
}

// reader opens a stream.
type reader struct {
	b     *Box
	r     io.Reader
	place string
	index uint64
	buf   []byte
	data  []byte // opened, and not read yet
	last  bool
	err   error
}

// Reader gives what a Writer of the same place has sealed, in constant memory: each byte is verified before it is given. The error
// is ErrOpen where the stream was changed or cut.
func (b *Box) Reader(r io.Reader, place string) io.Reader {
	if b == nil {
		return r
	}
	return &reader{b: b, r: r, place: place, buf: make([]byte, segment+Overhead)}
}

func (s *reader) Read(p []byte) (int, error) {
	for len(s.data) == 0 && s.err == nil {
		s.next()
	}
	if len(s.data) == 0 {
		return 0, s.err
	}
	n := copy(p, s.data)
	s.data = s.data[n:]
	return n, nil
}

func (s *reader) next() {
	if s.last {
		s.err = io.EOF
		return
	}
	n, err := io.ReadFull(s.r, s.buf)
	switch err {
	case nil:
	case io.ErrUnexpectedEOF, io.EOF:
		s.last = true
	default:
		s.err = fmt.Errorf("read sealed data: %w", err)
		return
	}
	s.data, s.err = s.b.OpenInPlace(s.buf[:n], segmentPlace(s.place, s.index, s.last))
	s.index++
}
