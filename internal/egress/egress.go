// Package egress decides where guests may connect to, and connects them.
//
// Main type: [Egress], which implements sandbox.Egress for all Sandboxes of a Node. What an owner may reach is its [Policy],
// which the composition root supplies.
//
// Guarantees:
//
//  1. An address of the never-list (this host's loopback, link-local and metadata addresses, multicast and the like; [Never]) is
//     not connected to in any mode, unless an entry names that address, a network within that range, or, exactly, the name that led to it.
//  2. A name is resolved once for a connection, each address is checked, and exactly a checked address is dialled: an answer that
//     changes between check and use changes nothing.
//  3. Addresses in other clothes (IPv4-mapped, NAT64, 6to4, Teredo and the like) are judged as the address that they hold.
//  4. Every refusal says which destination, and which setting allows it.
//
// The host's other addresses, private networks included, are destinations like all others: in mode Anything they are reachable.
//
// It knows nothing of namespaces, sockets inside them, or DNS packets.
package egress

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/sandbox"
)

// Options say what an Egress needs. Only Policy has no default.
type Options struct {
	// Policy returns what an owner may reach; it is asked for each connection and each name, concurrently, and must not block.
	Policy func(owner string) Policy
	// Resolve looks up a name's addresses; nil means the host's resolver.
	Resolve func(ctx context.Context, name string) ([]netip.Addr, error)
	// Dial connects by TCP to an address; nil means net.Dialer's way.
	Dial func(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	// Refused is told of every connection that is refused, concurrently; it must not block. nil: nobody.
	Refused func(d sandbox.Destination)
	// Timeout bounds resolving and connecting together; 0 means 15 seconds.
	Timeout time.Duration
	// Setting is what hints call the allow-list; "" means "egress".
	Setting string
	Log     *slog.Logger
}

// Egress opens connections for guests. Its methods may be called concurrently.
type Egress struct {
	o      Options
	books  *books
	proofs proofsOfNames
}

var _ sandbox.Egress = (*Egress)(nil)

// New returns an Egress.
func New(o Options) *Egress {
	if o.Resolve == nil {
		o.Resolve = func(ctx context.Context, name string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
		}
	}
	if o.Dial == nil {
		var d net.Dialer
		o.Dial = func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			return d.DialContext(ctx, "tcp", to.String())
		}
	}
	if o.Timeout <= 0 {
		o.Timeout = 15 * time.Second
	}
	if o.Setting == "" {
		o.Setting = "egress"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Egress{o: o, books: newBooks()}
}

// Resolves reports whether there is a port on which the name could be dialled. Names are not looked up for it.
func (e *Egress) Resolves(d sandbox.Destination) bool {
	h, err := parseHost(d.Host)
	if err != nil {
		return false
	}
	p := e.o.Policy(d.Owner)
	if h.addr.IsValid() {
		return p.permitsAddr(h.addr, anyPort, unnamed)
	}
	return p.permitsName(h.name, anyPort) != unnamed || p.hasNetworks(anyPort)
}

// Declared lists what entries of the owner's Policy name, so far as they do.
func (e *Egress) Declared(owner string) []sandbox.Destination {
	var all []sandbox.Destination
	for _, d := range e.o.Policy(owner).Declared() {
		all = append(all, sandbox.Destination{Owner: owner, Host: d.Host, Port: d.Port})
	}
	return all
}

// Dial connects to d, or says why not: errs.Forbidden when the owner's Policy does not allow it, errs.Unavailable when the
// destination cannot be reached in time, errs.NotFound when the name has no address. The connection can be half-closed (CloseWrite) and reset
// (SetLinger) if what Options.Dial returned can.
func (e *Egress) Dial(ctx context.Context, d sandbox.Destination) (net.Conn, error) {
	h, err := parseHost(d.Host)
	if err == nil && d.Port == anyPort {
		err = errors.New("there is no port 0")
	}
	if err != nil {
		return nil, e.refuse(d, errs.New(errs.Forbidden, "connection to %s: %w", target(d), err))
	}
	if h.addr.IsValid() {
		d.Host = h.addr.String()
	} else {
		d.Host = h.name
	}
	ctx, cancel := context.WithTimeout(ctx, e.o.Timeout)
	defer cancel()
	to, err := e.candidates(ctx, h, d)
	if err != nil {
		if errs.CodeOf(err) == errs.Forbidden {
			return nil, e.refuse(d, err)
		}
		e.books.page(d).failures.Add(1)
		return nil, err
	}
	c, err := e.connect(ctx, to)
	if err != nil {
		e.books.page(d).failures.Add(1)
		return nil, errs.New(cause(ctx), "connection to %s: %w", target(d), err)
	}
	e.o.Log.Debug("connected for a guest", "owner", d.Owner, "sandbox", d.Sandbox, "to", target(d), "address", c.RemoteAddr())
	return e.books.count(d, c), nil
}

// cause is the code of a failure: the guest's end or the host's, when that was it.
func cause(ctx context.Context) errs.Code {
	if errors.Is(ctx.Err(), context.Canceled) {
		return errs.Canceled
	}
	return errs.Unavailable
}

// candidates are the addresses that may be dialled for a destination: checked, and never none without an error.
func (e *Egress) candidates(ctx context.Context, h host, d sandbox.Destination) ([]netip.AddrPort, error) {
	p := e.o.Policy(d.Owner)
	if h.addr.IsValid() {
		if !p.permitsAddr(h.addr, d.Port, unnamed) {
			return nil, e.forbidden(p, d, h.addr)
		}
		return []netip.AddrPort{netip.AddrPortFrom(h.addr, d.Port)}, nil
	}
	how := p.permitsName(h.name, d.Port)
	if how == unnamed && !p.hasNetworks(d.Port) {
		return nil, e.forbidden(p, d, netip.Addr{})
	}
	addrs, err := e.o.Resolve(ctx, absolute(h.name))
	var missing *net.DNSError
	switch {
	case errors.As(err, &missing) && missing.IsNotFound:
		return nil, errs.New(errs.NotFound, "connection to %s: no such name", target(d))
	case err != nil:
		return nil, errs.New(cause(ctx), "connection to %s: look up: %w", target(d), err)
	}
	var to []netip.AddrPort
	var bad netip.Addr
	for _, a := range addrs {
		a = a.Unmap()
		if p.permitsAddr(a, d.Port, how) {
			to = append(to, netip.AddrPortFrom(a, d.Port))
		} else {
			bad = a
		}
	}
	if len(to) > 0 {
		return to, nil
	}
	if len(addrs) == 0 {
		return nil, errs.New(errs.NotFound, "connection to %s: the name has no address", target(d))
	}
	return nil, e.forbidden(p, d, bad)
}

// absolute keeps the resolver from trying a name below the host's search domains. Short names are for these, or for its hosts file.
func absolute(name string) string {
	if strings.Contains(name, ".") {
		return name + "."
	}
	return name
}

// forbidden says why a destination is refused; at is the address that decided, if one did.
func (e *Egress) forbidden(p Policy, d sandbox.Destination, at netip.Addr) error {
	what := ""
	if range_ := neverRange(at); range_ != "" {
		what = fmt.Sprintf(": %s is %s", at, range_)
	}
	err := errs.New(errs.Forbidden, "connection to %s is not allowed%s", target(d), what)
	if p.mode == Closed {
		return err.WithHint("%s is closed for %s; open it with %q in its allow-list", e.o.Setting, nameOf(d.Owner), target(d))
	}
	if p.mode == Anything {
		return err.WithHint("allow it with %s anything,%s", e.o.Setting, target(d))
	}
	return err.WithHint("add %q to the allow-list of %s for %s", target(d), e.o.Setting, nameOf(d.Owner))
}

func nameOf(owner string) string {
	if owner == "" {
		return "this function"
	}
	return owner
}

// refuse counts and logs a refusal.
func (e *Egress) refuse(d sandbox.Destination, err error) error {
	page := e.books.page(d)
	page.refusals.Add(1)
	if e.o.Refused != nil {
		e.o.Refused(d)
	}
	if ok, before := page.owner.mayLog(time.Now()); ok {
		e.o.Log.Warn("refused a guest's connection", "owner", d.Owner, "sandbox", d.Sandbox, "to", target(d), "error", err, "hint", errs.HintOf(err), "unlogged", before)
	}
	return err
}

// Usage returns what owners have used, ordered by owner and destination.
func (e *Egress) Usage() []Usage { return e.books.usage() }

// Forget drops what is known of an owner that is gone. Its open connections are counted no more.
func (e *Egress) Forget(owner string) { e.books.forget(owner) }

// target is a destination for people, and as an allow-list has it.
func target(d sandbox.Destination) string {
	return net.JoinHostPort(d.Host, strconv.Itoa(int(d.Port)))
}

const (
	fallback = 250 * time.Millisecond // until the next address is tried beside (RFC 8305, section 5)
	most     = 12                     // addresses that are tried
)

// connect tries addresses one after the other, the next one also when the last has not answered for a while, and returns the
// first connection. The other attempts have ended when it returns.
func (e *Egress) connect(ctx context.Context, to []netip.AddrPort) (net.Conn, error) {
	to = interleave(to)
	ctx, cancel := context.WithCancel(ctx)
	type result struct {
		c   net.Conn
		err error
	}
	results, running := make(chan result), 0
	defer func() {
		cancel()
		for ; running > 0; running-- {
			if r := <-results; r.err == nil {
				r.c.Close()
			}
		}
	}()
	next := time.NewTimer(fallback)
	defer next.Stop()
	start := func() {
		if len(to) == 0 {
			return
		}
		at := to[0]
		to, running = to[1:], running+1
		next.Reset(fallback)
		go func() {
			c, err := e.o.Dial(ctx, at)
			results <- result{c, err}
		}()
	}
	var failed error
	for start(); running > 0; {
		select {
		case r := <-results:
			running--
			if r.err == nil {
				return r.c, nil
			}
			failed = errors.Join(failed, r.err)
			start()
		case <-next.C:
			start()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return nil, failed
}

// interleave puts the families in turns, beginning with that of the resolver's first choice.
func interleave(to []netip.AddrPort) []netip.AddrPort {
	var first, second []netip.AddrPort
	for _, a := range to {
		if a.Addr().Is4() == to[0].Addr().Is4() {
			first = append(first, a)
		} else {
			second = append(second, a)
		}
	}
	var all []netip.AddrPort
	for i := range max(len(first), len(second)) {
		if i < len(first) {
			all = append(all, first[i])
		}
		if i < len(second) {
			all = append(all, second[i])
		}
	}
	return all[:min(len(all), most)]
}
