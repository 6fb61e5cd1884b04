package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// caller posts over one connection, one call after the other. It takes little of the processors that it shares with the server.
type caller struct {
	addr, bearer string
	conn         net.Conn
	in           *bufio.Reader
	out          []byte
}

func dialCaller(addr, bearer string) (*caller, error) {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	return &caller{addr: addr, bearer: bearer, conn: conn, in: bufio.NewReaderSize(conn, 8<<10)}, nil
}

func (c *caller) close() { _ = c.conn.Close() }

// post sends a body and returns the answer's, valid until the next call. A status that is not of the 200s is an error.
func (c *caller) post(path, contentType string, body []byte) ([]byte, error) {
	b := append(c.out[:0], "POST "...)
	b = append(append(b, path...), " HTTP/1.1\r\nHost: "...)
	b = append(append(b, c.addr...), "\r\nContent-Type: "...)
	b = append(b, contentType...)
	if c.bearer != "" {
		b = append(append(b, "\r\nAuthorization: Bearer "...), c.bearer...)
	}
	b = strconv.AppendInt(append(b, "\r\nContent-Length: "...), int64(len(body)), 10)
	c.out = append(append(b, "\r\n\r\n"...), body...)
	_ = c.conn.SetDeadline(time.Now().Add(2 * time.Minute)) // of a connection that is open
	if _, err := c.conn.Write(c.out); err != nil {
		return nil, err
	}
	return c.answer()
}

func (c *caller) answer() ([]byte, error) {
	status, err := c.in.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	ok := bytes.HasPrefix(status, []byte("HTTP/1.1 2"))
	first := strings.TrimSpace(string(status))
	length, chunked := -1, false
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch value = bytes.TrimSpace(value); {
		case bytes.EqualFold(name, []byte("content-length")):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return nil, err
			}
		case bytes.EqualFold(name, []byte("transfer-encoding")):
			chunked = true
		}
	}
	var body []byte
	for {
		if chunked {
			line, err := c.in.ReadSlice('\n')
			if err != nil {
				return nil, err
			}
			size, err := strconv.ParseInt(strings.TrimSpace(string(line)), 16, 32)
			if err != nil {
				return nil, err
			}
			length = int(size)
		}
		at := len(body)
		body = append(body, make([]byte, max(length, 0))...)
		if _, err := io.ReadFull(c.in, body[at:]); err != nil {
			return nil, err
		}
		if !chunked {
			break
		}
		if _, err := c.in.Discard(2); err != nil {
			return nil, err
		}
		if length == 0 {
			break
		}
	}
	if !ok {
		return nil, fmt.Errorf("%s: %.300s", first, body)
	}
	return body, nil
}

// publisher makes one durable publish after the other.
type publisher interface {
	publish(n int64) error
	close()
}

// published is what callers reached.
type published struct {
	n    int
	rate float64
}

// publishFor has callers publish, each the next when it has its answer, for d.
func publishFor(callers int, d time.Duration, open func() (publisher, error)) (published, error) {
	all := make([]publisher, callers)
	defer func() {
		for _, p := range all {
			if p != nil {
				p.close()
			}
		}
	}()
	for i := range all {
		var err error
		if all[i], err = open(); err != nil {
			return published{}, err
		}
	}
	var n atomic.Int64
	var wg sync.WaitGroup
	did := make([]int, callers)
	failed := make([]error, callers)
	begun := time.Now()
	for i, p := range all {
		wg.Go(func() {
			for time.Since(begun) < d {
				if failed[i] = p.publish(n.Add(1)); failed[i] != nil {
					return
				}
				did[i]++
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(begun)
	if err := firstOf(failed); err != nil {
		return published{}, err
	}
	sum := 0
	for _, k := range did {
		sum += k
	}
	return published{sum, float64(sum) / elapsed.Seconds()}, nil
}

// firstOf gives the first error: of many callers all may have the same.
func firstOf(all []error) error {
	for _, err := range all {
		if err != nil {
			return err
		}
	}
	return nil
}

// eventBody is about 256 bytes of data, in JSON.
var eventBody = []byte(`{"sleep":0,"text":"` + strings.Repeat("x", 230) + `"}`)
