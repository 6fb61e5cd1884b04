package egress

import (
	"cmp"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebb-run/ebb/internal/sandbox"
)

const (
	pagesOfOwner = 200 // destinations that are counted apart; guests choose their names
	linesOfOwner = 10  // refusals that are logged in a window
	window       = time.Minute
)

// Others is the Destination of what an owner uses beside its first 200.
const Others = "others"

// Usage is what one owner has used of one destination since it was first seen.
type Usage struct {
	Owner       string
	Destination string // "host:port" as the guest asked for it, or Others
	Connections int64  // that were made
	Failures    int64  // allowed, but not made
	Refusals    int64
	Sent        int64 // bytes from guests
	Received    int64 // bytes to guests
}

// books count by owner and destination.
type books struct {
	mu struct {
		sync.Mutex
		owners map[string]*owner
	}
}

type owner struct {
	mu struct {
		sync.Mutex
		pages    map[string]*page
		since    time.Time // start of the window
		lines    int       // logged in it
		unlogged int       // not logged since the last line
	}
}

type page struct {
	owner                                           *owner
	connections, failures, refusals, sent, received atomic.Int64
}

func newBooks() *books {
	b := &books{}
	b.mu.owners = map[string]*owner{}
	return b
}

func (b *books) owner(name string) *owner {
	b.mu.Lock()
	defer b.mu.Unlock()
	o := b.mu.owners[name]
	if o == nil {
		o = &owner{}
		o.mu.pages = map[string]*page{}
		b.mu.owners[name] = o
	}
	return o
}

func (b *books) forget(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.mu.owners, name)
}

func (b *books) page(d sandbox.Destination) *page {
	o := b.owner(d.Owner)
	key := target(d)
	o.mu.Lock()
	defer o.mu.Unlock()
	if p := o.mu.pages[key]; p != nil {
		return p
	}
	if len(o.mu.pages) >= pagesOfOwner {
		key = Others
	}
	p := o.mu.pages[key]
	if p == nil {
		p = &page{owner: o}
		o.mu.pages[key] = p
	}
	return p
}

func (b *books) usage() []Usage {
	b.mu.Lock()
	owners := make(map[string]*owner, len(b.mu.owners))
	for name, o := range b.mu.owners {
		owners[name] = o
	}
	b.mu.Unlock()
	var all []Usage
	for name, o := range owners {
		o.mu.Lock()
		for to, p := range o.mu.pages {
			all = append(all, Usage{
				Owner: name, Destination: to, Connections: p.connections.Load(), Failures: p.failures.Load(), Refusals: p.refusals.Load(),
				Sent: p.sent.Load(), Received: p.received.Load(),
			})
		}
		o.mu.Unlock()
	}
	slices.SortFunc(all, func(x, y Usage) int {
		return cmp.Or(cmp.Compare(x.Owner, y.Owner), cmp.Compare(x.Destination, y.Destination))
	})
	return all
}

// mayLog reports whether a refusal is to be logged now, and how many were not since the last that was.
func (o *owner) mayLog(now time.Time) (ok bool, unlogged int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if now.Sub(o.mu.since) >= window {
		o.mu.since, o.mu.lines = now, 0
	}
	if o.mu.lines >= linesOfOwner {
		o.mu.unlogged++
		return false, 0
	}
	o.mu.lines++
	unlogged, o.mu.unlogged = o.mu.unlogged, 0
	return true, unlogged
}

// count returns the connection with its bytes counted.
func (b *books) count(d sandbox.Destination, c net.Conn) net.Conn {
	p := b.page(d)
	p.connections.Add(1)
	return &counted{Conn: c, page: p}
}

// counted is a connection whose bytes are counted.
type counted struct {
	net.Conn
	page *page
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.page.received.Add(int64(n))
	return n, err
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.page.sent.Add(int64(n))
	return n, err
}

// CloseWrite ends this direction; both where the connection cannot end one alone.
func (c *counted) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return c.Close()
}

// SetLinger is for callers that end the connection by a reset.
func (c *counted) SetLinger(seconds int) error {
	if l, ok := c.Conn.(interface{ SetLinger(int) error }); ok {
		return l.SetLinger(seconds)
	}
	return nil
}
