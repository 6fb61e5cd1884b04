package sign

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// body gives the request's body as what was signed says that it is written.
func (s *Signature) body(r *http.Request, payload string, key []byte, o Options) (*Body, error) {
	b := &Body{Length: r.ContentLength}
	raw := io.Reader(r.Body)
	if raw == nil {
		raw = strings.NewReader("")
	}
	switch payload {
	case unsignedPayload:
		b.Reader = raw
	case streamed, streamedTrailer, unsignedTrailer:
		length, err := strconv.ParseInt(r.Header.Get("X-Amz-Decoded-Content-Length"), 10, 64)
		if err != nil || length < 0 {
			return nil, fault(Incomplete, "You must provide the X-Amz-Decoded-Content-Length HTTP header.")
		}
		b.Length = length
		c := &chunkReader{r: bufio.NewReaderSize(raw, 16<<10), left: length, trailer: http.Header{}, previous: s.value}
		c.signed, c.trailed = payload != unsignedTrailer, payload != streamed
		c.sign = func(kind, rest string) string {
			return hex.EncodeToString(mac(key, kind+"\n"+s.Time.Format(dateForm)+"\n"+s.scope()+"\n"+rest))
		}
		b.chunks, b.Reader = c, c
	default:
		if len(payload) != sha256.Size*2 {
			return nil, fault(Incomplete, "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, or a valid sha256 value.")
		}
		b.Reader = &hashReader{r: raw, h: sha256.New(), want: payload}
	}
	if o.Stream {
		return b, nil
	}
	data, err := ReadBody(b.Reader, b.Length, o.MaxBody, o.Hold)
	if err != nil {
		return nil, err
	}
	b.Data, b.Reader, b.Length = data, nil, int64(len(data))
	return b, nil
}

// hashReader ends in a Fault when what was read has another hash.
type hashReader struct {
	r    io.Reader
	h    hash.Hash
	want string
}

// Read reads and hashes.
func (r *hashReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	_, _ = r.h.Write(p[:n])
	if errors.Is(err, io.EOF) && !hmac.Equal([]byte(hex.EncodeToString(r.h.Sum(nil))), []byte(strings.ToLower(r.want))) {
		err = fault(Payload, "The provided 'x-amz-content-sha256' header does not match what was computed.")
	}
	return n, err
}

const (
	maxLine     = 8 << 10 // of a chunk's head or a trailer
	maxTrailers = 16
)

// chunkReader reads a body in AWS's chunks: S3 API, "Signature calculations: transferring payload in multiple chunks".
type chunkReader struct {
	r        *bufio.Reader
	signed   bool // its chunks are
	trailed  bool
	trailer  http.Header
	left     int64 // of the body, as its length was told
	chunk    int64 // left of the chunk
	inChunk  bool
	h        hash.Hash // of the chunk
	claim    string    // its signature
	previous string
	sign     func(kind, rest string) string
	err      error
}

// Read gives the bytes within the chunks.
func (c *chunkReader) Read(p []byte) (int, error) {
	for c.err == nil {
		if !c.inChunk {
			c.err = c.head()
			continue
		}
		if c.chunk == 0 {
			c.err = c.tail()
			continue
		}
		if len(p) == 0 {
			return 0, nil
		}
		n, err := c.r.Read(p[:min(int64(len(p)), c.chunk)])
		c.chunk -= int64(n)
		if c.signed {
			_, _ = c.h.Write(p[:n])
		}
		if c.chunk == 0 { // what ends it decides whether it is given
			c.err = c.tail()
		} else if err != nil {
			c.err = cutShort()
		}
		if c.err != nil && !errors.Is(c.err, io.EOF) {
			return 0, c.err
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, c.err
}

func cutShort() error {
	return fault(Cut, "You did not provide the number of bytes specified by the Content-Length HTTP header.")
}

func (c *chunkReader) line() (string, error) {
	var b []byte
	for {
		part, err := c.r.ReadSlice('\n')
		b = append(b, part...)
		if err == nil {
			return strings.TrimRight(string(b), "\r\n"), nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) || len(b) > maxLine {
			return "", cutShort()
		}
	}
}

// head reads that of a chunk: "400;chunk-signature=…".
func (c *chunkReader) head() error {
	line, err := c.line()
	if err != nil {
		return err
	}
	size, extension, _ := strings.Cut(line, ";")
	n, err := strconv.ParseInt(strings.TrimSpace(size), 16, 63)
	if err != nil || n < 0 || strings.HasPrefix(size, "+") {
		return fault(Cut, "A chunk of the body has no size.")
	}
	if n > c.left {
		return cutShort()
	}
	if n == 0 && c.left > 0 {
		return cutShort()
	}
	c.claim = ""
	if c.signed {
		claim, ok := strings.CutPrefix(strings.TrimSpace(extension), "chunk-signature=")
		if !ok {
			return fault(Incomplete, "A chunk of the body has no signature.")
		}
		c.claim, c.h = claim, sha256.New()
	}
	c.left -= n
	c.chunk, c.inChunk = n, true
	if n == 0 {
		return c.last()
	}
	return nil
}

// tail checks a chunk behind its bytes.
func (c *chunkReader) tail() error {
	if line, err := c.line(); err != nil || line != "" {
		return fault(Cut, "A chunk of the body is longer than it says.")
	}
	c.inChunk = false
	return c.check()
}

func (c *chunkReader) check() error {
	if !c.signed {
		return nil
	}
	want := c.sign("AWS4-HMAC-SHA256-PAYLOAD", c.previous+"\n"+emptyHash+"\n"+hex.EncodeToString(c.h.Sum(nil)))
	if !hmac.Equal([]byte(want), []byte(c.claim)) {
		return fault(Mismatch, "The signature of a chunk of the body does not match.")
	}
	c.previous = want
	return nil
}

// last reads what is behind the last chunk, which is empty.
func (c *chunkReader) last() error {
	if err := c.check(); err != nil {
		return err
	}
	var canonical strings.Builder
	claim := ""
	for n := 0; ; n++ {
		line, err := c.line()
		if err != nil && !c.trailed {
			return io.EOF // a client that leaves the last empty line out
		}
		if line == "" && err == nil && c.signed && c.trailed && n > 0 && claim == "" {
			continue // AWS documents a line more between the trailers and their signature
		}
		if line == "" {
			break
		}
		name, value, ok := strings.Cut(line, ":")
		if !c.trailed || !ok || n >= maxTrailers {
			return fault(Cut, "What is behind the body cannot be read.")
		}
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
		if name == "x-amz-trailer-signature" {
			claim = value
			continue
		}
		c.trailer.Set(name, value)
		canonical.WriteString(name + ":" + value + "\n")
	}
	if c.signed && c.trailed {
		want := c.sign("AWS4-HMAC-SHA256-TRAILER", c.previous+"\n"+hashOf([]byte(canonical.String())))
		if !hmac.Equal([]byte(want), []byte(claim)) {
			return fault(Mismatch, "The signature of what is behind the body does not match.")
		}
	}
	return io.EOF
}
