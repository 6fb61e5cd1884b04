package capture

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/sandbox"
)

// forward connects a guest's connection to where it wanted to go.
func (n *Net) forward(c net.Conn, where func(net.Conn) (netip.AddrPort, sandbox.Destination, error)) {
	d, ok := n.destination(c, where)
	if !ok {
		n.refused.Add(1)
		reset(c)
		return
	}
	out, err := n.o.Egress.Dial(n.ctx, d)
	if err != nil {
		n.refused.Add(1)
		n.tell(d, err) // first, so that it stands before what the guest says of the reset
		reset(c)
		return
	}
	defer out.Close()
	if !n.follow(c, out) {
		return
	}
	defer n.unfollow(out)
	relay(c, out, &n.sent, &n.received)
}

// mostTold bounds the destinations that are told of; guests choose their names.
const mostTold = 20

// tell says why there is no connection.
func (n *Net) tell(d sandbox.Destination, err error) {
	if n.o.Tell == nil || n.ctx.Err() != nil {
		return
	}
	at := net.JoinHostPort(d.Host, strconv.Itoa(int(d.Port)))
	if first, _ := n.first(at); !first {
		return
	}
	text := err.Error()
	if hint := errs.HintOf(err); hint != "" {
		text += "; " + hint
	}
	n.o.Tell(text)
}

// first reports whether something is to be told, once, and whether there is room for more after it.
func (n *Net) first(what string) (ok, room bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.mu.told) < mostTold && !n.mu.told[what] {
		n.mu.told[what], ok = true, true
	}
	return ok, len(n.mu.told) < mostTold
}

// follow has Close end the far side too.
func (n *Net) follow(c, out net.Conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.closed {
		return false
	}
	n.mu.far[out] = struct{}{}
	return true
}

func (n *Net) unfollow(out net.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.mu.far, out)
}

// destination says where a connection wanted to go: by name where the address stands for one.
func (n *Net) destination(c net.Conn, where func(net.Conn) (netip.AddrPort, sandbox.Destination, error)) (sandbox.Destination, bool) {
	at, d, err := where(c)
	if err != nil {
		return d, false
	}
	if d.Host == "" {
		a := at.Addr().Unmap().WithZone("")
		d.Host, d.Port = a.String(), at.Port()
		if inPool(a) {
			name, ok := n.names.name(a)
			if !ok {
				return d, false // nobody was given this address
			}
			d.Host = name
		} else if a.IsLoopback() || !a.IsValid() {
			return d, false // the listener itself, dialled directly
		}
	}
	d.Owner, d.Sandbox = n.o.Owner, n.o.Sandbox
	return d, true
}

// relay copies both ways until both have ended. An end of one side is passed on and leaves the other direction open; an error
// ends both at once, by a reset where the other side can take one.
func relay(guest, far net.Conn, sent, received *atomic.Int64) {
	var wg sync.WaitGroup
	wg.Go(func() { pass(far, guest, sent) })
	pass(guest, far, received)
	wg.Wait()
}

// pass copies one direction.
func pass(to, from net.Conn, count *atomic.Int64) {
	if err := copyCounted(to, from, count); err != nil {
		reset(to)
		reset(from)
		return
	}
	if c, ok := to.(interface{ CloseWrite() error }); ok {
		c.CloseWrite()
		return
	}
	to.Close()
}

// smallBuffer is what an idle connection costs a direction; large ones are shared between those that have much to say.
const smallBuffer, largeBuffer = 2 << 10, 64 << 10

func copyCounted(to, from net.Conn, count *atomic.Int64) error {
	small := make([]byte, smallBuffer)
	b, large := small, (*[largeBuffer]byte)(nil)
	defer func() {
		if large != nil {
			buffers.Put(large)
		}
	}()
	for {
		size, err := from.Read(b)
		if size > 0 {
			count.Add(int64(size))
			if _, err := to.Write(b[:size]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case size == len(b) && large == nil:
			large, _ = buffers.Get().(*[largeBuffer]byte)
			b = large[:]
		case size <= smallBuffer && large != nil:
			buffers.Put(large)
			b, large = small, nil
		}
	}
}

// buffers holds memory for reuse, no state.
var buffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}

// reset ends a connection so that its peer sees an error and not an end.
func reset(c net.Conn) {
	if l, ok := c.(interface{ SetLinger(int) error }); ok {
		l.SetLinger(0)
	}
	c.Close()
}
