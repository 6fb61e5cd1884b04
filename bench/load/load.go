// Package load sends HTTP requests and times the answers: the client of the benchmarks.
//
// Main type: [Target], with [Closed] and [Open].
//
// Guarantees:
//
//  1. Every answer is checked, status 200 and the expected number of body bytes. The first wrong one ends the run with an error.
//  2. Open's latencies run from the time a request was due, not from when it could be sent, so a server that stalls
//     pays for every request that had to wait (no coordinated omission).
//  3. One thread serves all connections without allocating per request, so that the client takes as little as it can of
//     the processors that it shares with the server.
//
// It speaks what is needed of HTTP/1.1: keep-alive, Content-Length and chunked bodies. It runs on Linux only.
package load

import (
	"bytes"
	"errors"
	"slices"
	"strconv"
	"time"
)

// Target is what is asked, again and again.
type Target struct {
	Addr string // host:port
	Path string
	Body int // bytes of a right answer's body
}

// request is the same for every contender.
func (t Target) request() []byte {
	return []byte("GET " + t.Path + " HTTP/1.1\r\nHost: " + t.Addr + "\r\nUser-Agent: ebb-bench\r\nAccept: application/json\r\n\r\n")
}

// Result is what came of it.
type Result struct {
	Elapsed time.Duration   // until the last answer
	Latency []time.Duration // of every request, sorted
}

// Add takes in what came of the same load at another time.
func (r *Result) Add(other *Result) {
	r.Elapsed += other.Elapsed
	r.Latency = append(r.Latency, other.Latency...)
	r.sort()
}

// Rate is answers a second.
func (r *Result) Rate() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(len(r.Latency)) / r.Elapsed.Seconds()
}

// Quantile gives the latency that the share q of all answers did not exceed.
func (r *Result) Quantile(q float64) time.Duration {
	if len(r.Latency) == 0 {
		return 0
	}
	i := int(q * float64(len(r.Latency)))
	return r.Latency[min(i, len(r.Latency)-1)]
}

func (r *Result) sort() { slices.Sort(r.Latency) }

var (
	okLine    = []byte("HTTP/1.1 200 ")
	headEnd   = []byte("\r\n\r\n")
	lineEnd   = []byte("\r\n")
	lengthKey = []byte("content-length:")
	codingKey = []byte("transfer-encoding:")

	errShort   = errors.New("the answer ended early")
	errStatus  = errors.New("the status is not 200")
	errLength  = errors.New("the body does not have the expected length")
	errFraming = errors.New("the answer's end cannot be known")
	errExcess  = errors.New("bytes after the answer")
)

// whole says whether b holds a whole answer; the error says what is wrong with it. More bytes may be asked for.
func whole(b []byte, want int) (done bool, err error) {
	if len(b) < len(okLine) {
		return false, nil
	}
	if !bytes.HasPrefix(b, okLine) {
		return true, errStatus
	}
	end := bytes.Index(b, headEnd)
	if end < 0 {
		return false, nil
	}
	head, body := b[:end+2], b[end+4:]
	length, chunked := framing(head)
	switch {
	case chunked:
		n, rest, done := chunks(body)
		if !done {
			return false, nil
		}
		if rest != 0 {
			return true, errExcess
		}
		if n != want {
			return true, errLength
		}
		return true, nil
	case length < 0:
		return true, errFraming
	case length != want:
		return true, errLength
	case len(body) > length:
		return true, errExcess
	}
	return len(body) == length, nil
}

// framing finds how the body's length is told.
func framing(head []byte) (length int, chunked bool) {
	length = -1
	for len(head) > 0 {
		line, rest, _ := bytes.Cut(head, lineEnd)
		head = rest
		if v, ok := field(line, lengthKey); ok {
			if n, err := strconv.Atoi(string(v)); err == nil {
				length = n
			}
		} else if v, ok := field(line, codingKey); ok {
			chunked = bytes.EqualFold(v, []byte("chunked"))
		}
	}
	return length, chunked
}

func field(line, key []byte) ([]byte, bool) {
	if len(line) < len(key) || !bytes.EqualFold(line[:len(key)], key) {
		return nil, false
	}
	return bytes.TrimSpace(line[len(key):]), true
}

// chunks counts the bytes in a chunked body, and those behind its end.
func chunks(b []byte) (n, rest int, done bool) {
	for {
		line, after, ok := bytes.Cut(b, lineEnd)
		if !ok {
			return 0, 0, false
		}
		size, err := strconv.ParseInt(string(line), 16, 32)
		if err != nil || len(after) < int(size)+2 {
			return 0, 0, false
		}
		b = after[size+2:]
		if size == 0 {
			return n, len(b), true
		}
		n += int(size)
	}
}
