package server

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

// line is a listener whose connections are in memory. The zero value is not usable.
type line struct {
	calls chan *call
	done  chan struct{}
	once  sync.Once
}

func newLine() *line { return &line{calls: make(chan *call), done: make(chan struct{})} }

// Accept gives the next connection.
func (l *line) Accept() (net.Conn, error) {
	select {
	case c := <-l.calls:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and dial.
func (l *line) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr names nothing that could be dialled.
func (l *line) Addr() net.Addr { return lineAddr{} }

type lineAddr struct{}

func (lineAddr) Network() string { return "memory" }
func (lineAddr) String() string  { return sinkHost }

// dial makes a connection of an Instance.
func (l *line) dial(ctx context.Context, from *origin) (net.Conn, error) {
	from.mu.Lock()
	full := from.mu.conns >= sinkConns
	if !full {
		from.mu.conns++
	}
	from.mu.Unlock()
	if full {
		return nil, errs.New(errs.Throttled, "connection to %s: %d are open", sinkHost, sinkConns)
	}
	there, here := duplexPair()
	c := &call{duplex: there, from: from}
	select {
	case l.calls <- c:
		return here, nil
	case <-l.done:
	case <-ctx.Done():
	}
	_ = c.Close()
	return nil, errs.New(errs.Unavailable, "connection to %s: ebb is stopping", sinkHost)
}

// call is the near end of a connection, and whose it is.
type call struct {
	*duplex
	from *origin
	once sync.Once
}

// Close ends both directions, and makes room for another.
func (c *call) Close() error {
	c.once.Do(func() {
		c.from.mu.Lock()
		c.from.mu.conns--
		c.from.mu.Unlock()
	})
	return c.duplex.Close()
}

// duplex is one end of a connection in memory whose directions end one by one, as those of TCP do.
type duplex struct{ in, out net.Conn }

func duplexPair() (a, b *duplex) {
	aIn, bOut := net.Pipe()
	bIn, aOut := net.Pipe()
	return &duplex{aIn, aOut}, &duplex{bIn, bOut}
}

func (d *duplex) Read(p []byte) (int, error)  { return d.in.Read(p) }
func (d *duplex) Write(p []byte) (int, error) { return d.out.Write(p) }

// CloseWrite lets the other end read to the end.
func (d *duplex) CloseWrite() error { return d.out.Close() }

// Close ends both directions.
func (d *duplex) Close() error {
	_ = d.in.Close() // a pipe's Close does not fail
	return d.out.Close()
}

func (d *duplex) LocalAddr() net.Addr  { return lineAddr{} }
func (d *duplex) RemoteAddr() net.Addr { return lineAddr{} }

func (d *duplex) SetDeadline(t time.Time) error {
	_ = d.in.SetReadDeadline(t) // fails only where it is closed, and so does the other
	return d.out.SetWriteDeadline(t)
}

func (d *duplex) SetReadDeadline(t time.Time) error  { return d.in.SetReadDeadline(t) }
func (d *duplex) SetWriteDeadline(t time.Time) error { return d.out.SetWriteDeadline(t) }
