// Package capture is one Instance's side of the network: what a guest in a network namespace with nothing but loopback gets
// instead of the world.
//
// Main type: [Net]. Whoever makes the namespace sends it [SetupMessages] and, where the kernel has nf_tables, [RedirectMessage],
// creates the sockets that [Plan] lists, and hands them to [Open] as files. From then on every name has an address, and every
// TCP connection to anywhere but the namespace's own loopback ends in one call of sandbox.Egress.Dial.
//
// Guarantees:
//
//  1. A name has the same addresses for the life of a Net, in 198.18.0.0/15 and in fd65:6262::/96, given out in the order of
//     first use; a Net hands out no more than Options.Names of them. A name that is known within a second to be missing has none.
//  2. A connection reaches nothing but what Egress.Dial returned for it; one that is refused is reset.
//  3. The guest's traffic to its own loopback is not touched, but for that to port 53.
//  4. After Close has returned there is no goroutine and no open descriptor of the Net.
//  5. No bytes that a guest sends make it panic, and none make it hold more than its bounds.
//
// It knows nothing of which destinations are allowed, and creates no namespace.
package capture

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebb-run/ebb/internal/sandbox"
)

// Resolver looks up what has no substitute address. *net.Resolver is one.
type Resolver interface {
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
	LookupTXT(ctx context.Context, name string) ([]string, error)
	LookupMX(ctx context.Context, name string) ([]*net.MX, error)
}

// Options say what a Net serves.
type Options struct {
	Owner   string // Destination.Owner
	Sandbox string // Destination.Sandbox
	Egress  sandbox.Egress

	Sockets []Socket   // as planned
	Files   []*os.File // one for each of Sockets, or nil where it could not be made; Open closes them

	Resolver    Resolver // of SRV, TXT and MX records; nil means net.DefaultResolver
	Names       int      // the most names that get addresses; 0 means 4096
	Connections int      // the most connections at once; 0 means 1024
	Budget      *Budget  // shared with other Nets; nil bounds nothing more
	Log         *slog.Logger

	// Tell gets a line for each destination that could not be connected or sent to, once for its first refusal or failure: the guest sees no
	// more than a reset, or that it may not. It may be called concurrently; nil means nobody is told.
	Tell func(text string)
}

// Budget bounds the connections of many Nets together: each takes two descriptors of the host, which all that it does else needs too. Safe
// for concurrent use.
type Budget struct{ left atomic.Int64 }

// NewBudget returns one for so many connections.
func NewBudget(most int) *Budget {
	b := &Budget{}
	b.left.Store(int64(most))
	return b
}

func (b *Budget) take() bool {
	if b == nil || b.left.Add(-1) >= 0 {
		return true
	}
	b.left.Add(1)
	return false
}

func (b *Budget) give() {
	if b != nil {
		b.left.Add(1)
	}
}

// Stats are the counts of one Net since Open.
type Stats struct {
	Names       int   // that have an address
	Connections int64 // that were accepted, DNS over TCP included
	Open        int64 // of these, those still there
	Refused     int64 // of these, those that were reset because Egress refused or could not connect, or there were too many
	Sent        int64 // bytes from the guest
	Received    int64 // bytes to the guest
}

// Net serves one Instance's network. Its methods may be called concurrently.
type Net struct {
	o      Options
	names  *names
	ipv6   bool
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	look   chan struct{} // one token for each lookup that runs

	accepted, refused, sent, received atomic.Int64
	crowded                           atomic.Bool // that there are too many connections has been logged

	mu struct {
		sync.Mutex
		closed  bool
		sockets []closer
		told    map[string]bool       // destinations that Tell was given
		conns   map[net.Conn]struct{} // the guest's
		far     map[net.Conn]struct{} // what Egress returned for them
	}
}

type closer interface{ Close() error }

// Open takes the sockets over and serves them until Close. Files are closed in every case.
func Open(o Options) (*Net, error) {
	if o.Names <= 0 || o.Names > maxNames {
		o.Names = 4096
	}
	if o.Connections <= 0 {
		o.Connections = 1024
	}
	if o.Resolver == nil {
		o.Resolver = net.DefaultResolver
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	n := &Net{o: o, names: newNames(o.Names), look: make(chan struct{}, lookups)}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.mu.told = map[string]bool{}
	n.mu.conns, n.mu.far = map[net.Conn]struct{}{}, map[net.Conn]struct{}{}
	for _, s := range o.Sockets {
		// Addresses that sockets are bound to belong to their names before the guest asks for any.
		if s.Host != "" && inPool(s.Addr.Addr()) {
			n.names.index(s.Host)
		}
	}
	for i, f := range o.Files {
		// IPv6 addresses are only given to a guest whose connections to them are captured.
		n.ipv6 = n.ipv6 || f != nil && o.Sockets[i].Role == Captured && o.Sockets[i].Addr.Addr().Is6()
	}
	var failed error
	for i, f := range o.Files {
		if f == nil {
			continue
		}
		if err := n.adopt(o.Sockets[i], f); err != nil {
			failed = errors.Join(failed, err)
		}
		if o.Sockets[i].Role != Refusals {
			f.Close()
		}
	}
	if failed != nil {
		n.Close()
		return nil, failed
	}
	return n, nil
}

// adopt starts to serve a socket.
func (n *Net) adopt(s Socket, f *os.File) error {
	switch s.Role {
	case Refusals:
		n.keep(f) // it is in the poller already
		n.wg.Go(func() { n.hearRefusals(f) })
		return nil
	case DNSPackets:
		c, err := net.FilePacketConn(f)
		if err != nil {
			return err
		}
		n.keep(c)
		n.wg.Go(func() { n.servePackets(c) })
		return nil
	}
	l, err := net.FileListener(f)
	if err != nil {
		return err
	}
	n.keep(l)
	switch s.Role {
	case DNSStreams:
		n.wg.Go(func() { n.accept(l, n.serveStream) })
	case Captured:
		n.wg.Go(func() {
			n.accept(l, func(c net.Conn) { n.forward(c, original) })
		})
	default:
		d := sandbox.Destination{Host: s.Host, Port: s.Addr.Port()}
		n.wg.Go(func() {
			n.accept(l, func(c net.Conn) { n.forward(c, declared(d)) })
		})
	}
	return nil
}

func (n *Net) keep(c closer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.sockets = append(n.mu.sockets, c)
}

// declared gives the destination of a connection to a socket that was bound for it alone.
func declared(d sandbox.Destination) func(net.Conn) (netip.AddrPort, sandbox.Destination, error) {
	return func(c net.Conn) (netip.AddrPort, sandbox.Destination, error) {
		if d.Host != "" {
			return netip.AddrPort{}, d, nil
		}
		a, _ := netip.ParseAddrPort(c.LocalAddr().String())
		return a, sandbox.Destination{}, nil
	}
}

// Stats returns the counts so far.
func (n *Net) Stats() Stats {
	n.mu.Lock()
	open := len(n.mu.conns)
	n.mu.Unlock()
	return Stats{
		Names: n.names.len(), Connections: n.accepted.Load(), Open: int64(open), Refused: n.refused.Load(),
		Sent: n.sent.Load(), Received: n.received.Load(),
	}
}

// Close ends everything and waits for it. It may be called more than once.
func (n *Net) Close() error {
	n.cancel()
	n.mu.Lock()
	n.mu.closed = true
	for _, s := range n.mu.sockets {
		s.Close()
	}
	n.mu.sockets = nil
	for c := range n.mu.conns {
		c.Close()
	}
	for c := range n.mu.far {
		c.Close()
	}
	n.mu.Unlock()
	n.wg.Wait()
	return nil
}

// track adds a connection that Close ends, unless there are too many or Close has begun.
func (n *Net) track(c net.Conn) (ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.closed || len(n.mu.conns) >= n.o.Connections || !n.o.Budget.take() {
		return false
	}
	n.mu.conns[c] = struct{}{}
	return true
}

func (n *Net) untrack(c net.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.mu.conns, c)
}

// pause waits when the host is out of descriptors or memory: what ends gives some back.
func (n *Net) pause() {
	select {
	case <-n.ctx.Done():
	case <-time.After(50 * time.Millisecond):
	}
}

// accept takes connections until the listener is closed, and gives each a goroutine.
func (n *Net) accept(l net.Listener, serve func(net.Conn)) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) || n.ctx.Err() != nil {
			if err == nil {
				c.Close()
			}
			return
		}
		if err != nil {
			n.pause()
			continue
		}
		n.accepted.Add(1)
		if !n.track(c) {
			n.refused.Add(1)
			reset(c)
			if n.ctx.Err() == nil && !n.crowded.Swap(true) {
				n.o.Log.Warn("a guest, or all together, have too many connections; more are reset", "owner", n.o.Owner, "sandbox", n.o.Sandbox, "limit", n.o.Connections)
			}
			continue
		}
		n.wg.Go(func() {
			defer n.o.Budget.give() // when its descriptors are free
			defer n.untrack(c)
			defer c.Close()
			serve(c)
		})
	}
}
