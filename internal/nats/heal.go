package nats

import (
	"context"
	"net"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

// A stream of the server that has met an error of writing answers nothing until it is opened again. So the server is ended at the first one, and started
// again when the disk takes writes: the same as a new start of ebb, for everything that uses the store.

const (
	// healPause is between two looks at whether the disk takes writes.
	healPause = 500 * time.Millisecond
	// healRoom is how much must be free then, so that it does not break again at once.
	healRoom = 4 << 20
)

// door leads to the server that stands.
type door struct{ c *Conn }

// InProcessConn makes a connection to it.
func (d door) InProcessConn() (net.Conn, error) {
	srv := d.c.srv.Load()
	if srv == nil {
		return nil, errs.New(errs.Unavailable, "the store in %s has stopped", d.c.dir)
	}
	conn, err := srv.InProcessConn()
	if err != nil {
		return nil, err
	}
	return &held{conn, &d.c.gate}, nil
}

// watch waits for the server to say that it cannot write, and mends that. The server calls its log under its own locks, so that nothing can be done there.
func (c *Conn) watch(o Options, log *serverLog) {
	c.stop = make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	c.wait.Go(func() {
		<-c.stop
		cancel()
	})
	c.wait.Go(func() {
		for ctx.Err() == nil {
			select {
			case err := <-log.broken:
				c.fail(err)
				log = c.heal(ctx, o)
			case <-ctx.Done():
			}
		}
	})
}

// fail ends the server after it could not write. Callers get their errors now, and would otherwise wait for their deadlines.
func (c *Conn) fail(cause error) {
	c.broken.Store(&cause)
	srv := c.srv.Swap(nil)
	_ = c.nc.ForceReconnect() // ends what waits for an answer; there is nothing to connect to
	if srv != nil {
		srv.Shutdown()
		srv.WaitForShutdown()
	}
}

// end ends the server, where there is one.
func (c *Conn) end() {
	if srv := c.srv.Swap(nil); srv != nil {
		srv.Shutdown()
		srv.WaitForShutdown()
	}
}

// heal starts the server again as soon as the disk takes writes, and returns its log.
func (c *Conn) heal(ctx context.Context, o Options) *serverLog {
	for {
		select {
		case <-time.After(healPause):
		case <-ctx.Done():
			return newServerLog(o.Log)
		}
		if checkRoom(c.dir, healRoom) != nil {
			continue
		}
		log := newServerLog(o.Log)
		found, err := inspect(ctx, c.dir, serverKey(o.Key))
		if err == nil {
			err = c.start(ctx, o, log)
		}
		for err == nil && !c.nc.IsConnected() && ctx.Err() == nil {
			time.Sleep(healPause / 50) // the client tries again by itself
		}
		if err == nil {
			err = c.check(ctx, found, log)
		}
		if err == nil {
			c.broken.Store(nil)
			o.Log.Warn("the store takes writes again", "dir", c.dir)
			return log
		}
		c.end()
		if ctx.Err() == nil {
			c.broken.Store(&err)
			o.Log.Error("the store cannot be opened again; it is tried again", "err", err)
		}
	}
}
