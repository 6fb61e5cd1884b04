package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	headerTimeout = 10 * time.Second // for a whole head
	idleTimeout   = 75 * time.Second // between requests of one connection
	// drainWindow is how long connections that wait for their next request are kept when a shutdown begins: a request
	// that is already on its way is answered, with Connection: close, and not reset.
	drainWindow = 300 * time.Millisecond
	// lastWait is how long Invocations have to end after they were told to.
	lastWait = 2 * time.Second
	// maxHeader is the limit of a head in bytes, to which net/http adds 4 KB of its own; more is 431.
	maxHeader = 12 << 10
)

// Serve answers connections of l until ctx ends, then lets the requests in flight end. HTTP/1.1 and HTTP/2, which a client asks for
// by TLS where l accepts *tls.Conn, else by prior knowledge. It is called once. It closes l, and returns nil after a shutdown in which everything was answered.
func (g *Gateway) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{Handler: g, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ConnContext: connContext, ErrorLog: slog.NewLogLogger(g.log.Handler(), slog.LevelDebug), Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetHTTP2(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	var conns atomic.Int64
	srv.ConnState = func(_ net.Conn, st http.ConnState) {
		switch st {
		case http.StateNew:
			conns.Add(1)
		case http.StateClosed, http.StateHijacked:
			conns.Add(-1)
		}
	}
	dl := &listener{Listener: l, idle: g.idle}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(dl) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve http at %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	err := g.drain(srv, dl, ended, &conns)
	return err
}

// drain ends a server without losing what has arrived.
func (g *Gateway) drain(srv *http.Server, l *listener, ended <-chan error, conns *atomic.Int64) error {
	ctx, cancel := context.WithTimeout(context.Background(), g.grace)
	defer cancel()
	g.draining.Store(true)
	l.stop()
	<-ended // nothing new comes in from here on
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(min(drainWindow, g.grace)); conns.Load() > 0 && time.Now().Before(end); {
		<-tick.C
	}
	err := srv.Shutdown(ctx)
	if err == nil && g.settled(ctx) {
		return nil
	}
	g.leashes.end() // what still runs is told to stop
	last, cut := context.WithTimeout(context.Background(), lastWait)
	defer cut()
	settled := g.settled(last)
	if err == nil && settled {
		return nil // every client had its answer before
	}
	_ = srv.Close() // its connections are cut
	if err == nil {
		err = ctx.Err()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("shut the gateway down: requests were still running after %s: %w", g.grace, err)
	}
	return fmt.Errorf("shut the gateway down: %w", err)
}

// settled waits until no Invocation runs any more, also those whose clients have their answers; false when ctx ends first.
func (g *Gateway) settled(ctx context.Context) bool {
	done := make(chan struct{})
	go func() { // ends when the last Invoke does
		g.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}

// How long a stopped listener waits for one further connection before it takes the queue for empty, and in all.
const (
	sweepWait = 5 * time.Millisecond
	sweepAll  = 100 * time.Millisecond
)

// listener wraps connections, and when stopped still accepts what the system has queued.
type listener struct {
	net.Listener
	idle    time.Duration // of the connections' writes
	stopped atomic.Int64  // when, in Unix nanoseconds; 0 while it runs
}

// Accept returns the next connection, or net.ErrClosed after a stop, when the queue is empty.
func (l *listener) Accept() (net.Conn, error) {
	if l.stopped.Load() == 0 {
		if c, err := l.Listener.Accept(); err == nil {
			return l.remember(c), nil
		} else if l.stopped.Load() == 0 {
			return nil, err
		}
		// The deadline that woke this Accept says nothing of the queue.
	}
	if time.Since(time.Unix(0, l.stopped.Load())) < sweepAll {
		if d, ok := l.Listener.(interface{ SetDeadline(time.Time) error }); ok {
			_ = d.SetDeadline(time.Now().Add(sweepWait)) // where it fails the listener is closed, and Accept says so
		}
		if c, err := l.Listener.Accept(); err == nil {
			return l.remember(c), nil
		}
	}
	_ = l.Listener.Close()
	return nil, net.ErrClosed
}

// remember wraps a connection, but not one of TLS, which net/http must know for what it is.
func (l *listener) remember(c net.Conn) net.Conn {
	if _, ok := c.(*tls.Conn); ok {
		return c
	}
	return &headConn{Conn: c, idle: l.idle}
}

// stop lets Accept end once nothing is queued.
func (l *listener) stop() {
	narrow(l.Listener)
	l.stopped.Store(time.Now().UnixNano())
	d, ok := l.Listener.(interface{ SetDeadline(time.Time) error })
	if !ok || d.SetDeadline(time.Now()) != nil {
		_ = l.Listener.Close()
	}
}
