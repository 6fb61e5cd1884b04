package process

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"

	"github.com/ebb-run/ebb/internal/sandbox"
	"golang.org/x/sys/unix"
)

// line is the host's side of a Spec's Transport.
type line struct {
	kind     sandbox.Transport
	api      bool // there is a listener whatever the kind
	addr     string
	inside   bool         // addr is in the guest's own network
	listener net.Listener // Listen; Dial: holds the port until the guest starts

	asking chan struct{}    // cap 1: held while asking for a socket of an isolated guest's network
	owed   bool             // one was asked for and has not come; belongs to who is asking
	beside chan sandbox.End // of the programs beside the guest

	mu struct {
		sync.Mutex
		closed  bool
		stream  net.Conn
		sockets net.Conn     // on which these come
		proceed func() error // lets the guest start; nil once it has
	}
}

var _ sandbox.Conn = (*line)(nil)

// openLine makes a line. inside is the address of a guest that has a network of its own; there is nothing to reserve then.
func openLine(s sandbox.Spec, inside string) (*line, error) {
	kind := s.Transport
	l := &line{kind: kind, addr: inside, inside: inside != "", api: s.Beside > 0, asking: make(chan struct{}, 1)}
	if s.Beside > 0 {
		l.beside = make(chan sandbox.End, s.Beside)
	}
	if kind == sandbox.Stream || inside != "" {
		return l, nil
	}
	ln, err := reserve(kind)
	if err != nil {
		return nil, fmt.Errorf("reserve an address: %w", err)
	}
	l.listener, l.addr = ln, ln.Addr().String()
	return l, nil
}

// Ports that systems do not give out by themselves: Linux begins at 32768, macOS at 49152.
const (
	firstFixed = 15000
	lastFixed  = 32000
)

// reserve takes a port. One that the host dials later lies outside of those that the system gives out: while nobody listens
// there, a stranger could get it, or the host's own dialling, which then would connect to itself.
func reserve(kind sandbox.Transport) (net.Listener, error) {
	for range 100 {
		if kind != sandbox.Dial {
			break
		}
		ln, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", firstFixed+rand.IntN(lastFixed-firstFixed)))
		if err == nil {
			return ln, nil
		}
	}
	return net.Listen("tcp4", "127.0.0.1:0")
}

// attach readies the line for a guest that starts now. It returns the descriptor that becomes 3 in the guest, or -1.
func (l *line) attach() (int, error) {
	switch l.kind {
	case sandbox.Dial:
		if l.listener == nil {
			return -1, nil
		}
		// Given free as late as possible: the guest binds it next.
		return -1, l.listener.Close()
	case sandbox.Listen:
		return -1, nil
	}
	host, guest, err := socketpair()
	if err != nil {
		return -1, fmt.Errorf("make the line to the guest: %w", err)
	}
	f := os.NewFile(uintptr(host), "guest line")
	c, err := net.FileConn(f) // a duplicate that the runtime's poller waits for
	_ = f.Close()
	if err != nil {
		_ = unix.Close(guest)
		return -1, fmt.Errorf("make the line to the guest: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.stream = c
	return guest, nil
}

// take uses the listener that an isolated guest's helper has sent.
func (l *line) take(f *os.File) error {
	defer f.Close()
	ln, err := net.FileListener(f)
	if err != nil {
		return fmt.Errorf("use the listener inside: %w", err)
	}
	l.listener = ln
	return nil
}

// Stream is the byte stream to the guest's descriptor 3.
func (l *line) Stream() net.Conn {
	l.must(sandbox.Stream)
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.stream
}

// Listener takes the guest's connections.
func (l *line) Listener() net.Listener {
	if !l.api {
		l.must(sandbox.Listen)
	}
	return l.listener
}

// Dial connects to the guest.
func (l *line) Dial(ctx context.Context) (net.Conn, error) {
	l.must(sandbox.Dial)
	l.mu.Lock()
	closed := l.mu.closed
	l.mu.Unlock()
	if closed {
		return nil, net.ErrClosed // the port may belong to somebody else by now
	}
	if l.inside {
		return l.dialInside(ctx)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp4", l.addr)
}

// Beside tells of programs that have ended.
func (l *line) Beside() <-chan sandbox.End { return l.beside }

// Proceed lets the guest start.
func (l *line) Proceed() error {
	l.mu.Lock()
	proceed := l.mu.proceed
	l.mu.proceed = nil
	l.mu.Unlock()
	if proceed == nil {
		return nil
	}
	return proceed()
}

func (l *line) must(kind sandbox.Transport) {
	if l.kind != kind {
		panic("sandbox: Conn used for another transport than its Spec's")
	}
}

// Close ends the line; further calls do nothing.
func (l *line) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.closed {
		return nil
	}
	l.mu.closed = true
	if l.listener != nil {
		_ = l.listener.Close()
	}
	if l.mu.sockets != nil {
		_ = l.mu.sockets.Close()
	}
	if l.mu.stream != nil {
		return l.mu.stream.Close()
	}
	return nil
}
