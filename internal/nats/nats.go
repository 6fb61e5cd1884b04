// Package nats opens the message store that everything durable rests on: an embedded NATS server with
// JetStream in a folder, or a connection to an existing cluster.
//
// Main type: [Conn], made by [Open]. Packages bus, state and store/nats are given what it holds; no other
// place starts a server or dials one.
//
// Guarantees:
//
//  1. The embedded store acknowledges a write after it is on disk: nothing acknowledged is lost to kill -9 or power loss.
//  2. A store that cannot be read in full is refused with an error that names the folder and the mend; nothing in
//     the folder is changed then. A record torn by a crash at the very end of a file was never acknowledged, and is dropped.
//  3. A folder is open in one process at a time, and one written by a newer ebb is refused untouched.
//  4. The embedded server listens on no port.
//  5. When the embedded store cannot write, calls on it fail at once, and Healthy says why. It goes on by itself when the disk takes writes again.
//  6. A copy of the embedded store that is made while it is held has all that was acknowledged, and opens as after a kill at that moment.
//  7. Close is idempotent, and leaves no goroutine of the server's or the connection's.
//
// It creates no streams and knows nothing of what is stored. It cannot set how an external server
// syncs to disk: guarantee 1 is then what that cluster gives.
package nats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ebb-run/ebb/internal/errs"
)

// Options say what to open.
type Options struct {
	Dir      string       // folder of the embedded store; made when missing
	URL      string       // servers to connect to instead, "nats://host:4222,…"; empty means embedded
	Name     string       // of this Node, for the server's own reports
	Key      []byte       // what seals the embedded store's files; nil for none. Another one than it was made with is refused
	MaxStore int64        // bytes the embedded store may hold; 0 means three quarters of the free disk
	Log      *slog.Logger // takes warnings and errors of server and client; nil drops them
}

// Conn is an open connection to JetStream. Its methods may be called concurrently.
type Conn struct {
	nc   *natsgo.Conn
	js   jetstream.JetStream
	srv  atomic.Pointer[natsserver.Server] // nil for an external one
	dir  string
	lock *dirLock
	once sync.Once
	// broken is why the embedded store takes no writes now.
	broken atomic.Pointer[error]
	gate   sync.RWMutex   // held for reading while the client sends, and by Hold
	stop   chan struct{}  // ends the watch for broken
	wait   sync.WaitGroup // for it
}

// connectTimeout bounds dialling an external server, per server.
const connectTimeout = 5 * time.Second

// Open opens the embedded store in o.Dir, or connects to o.URL. It returns when the store can be written to.
// On an error everything that was acquired is released.
func Open(ctx context.Context, o Options) (*Conn, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Name == "" {
		o.Name = "ebb"
	}
	c := &Conn{}
	err := c.open(ctx, o)
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Conn) open(ctx context.Context, o Options) error {
	if o.URL != "" {
		return c.connect(ctx, o)
	}
	return c.embed(ctx, o)
}

func (c *Conn) connect(ctx context.Context, o Options) error {
	shown := redact(o.URL)
	nc, err := natsgo.Connect(o.URL, append(clientOptions(o),
		natsgo.Timeout(connectTimeout),
		// A cluster may be away for long; callers have their own deadlines.
		natsgo.MaxReconnects(-1),
	)...)
	if err != nil {
		return errs.New(errs.Unavailable, "connect to NATS at %s: %w", shown, err).
			WithHint("Check that a NATS server listens there and takes these credentials, or leave the URL empty to use the embedded one.")
	}
	c.nc = nc
	if c.js, err = jetstream.New(nc); err != nil {
		return fmt.Errorf("open jetstream at %s: %w", shown, err)
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if _, err := c.js.AccountInfo(ctx); err != nil {
		if errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) {
			return errs.New(errs.Unsupported, "the NATS server at %s has no JetStream: %w", shown, err).
				WithHint("Start it with -js and a store_dir, and enable JetStream for the account.")
		}
		return errs.New(errs.Unavailable, "ask for jetstream at %s: %w", shown, err)
	}
	return nil
}

func clientOptions(o Options) []natsgo.Option {
	return []natsgo.Option{
		natsgo.Name(o.Name),
		natsgo.ErrorHandler(func(_ *natsgo.Conn, sub *natsgo.Subscription, err error) {
			if sub != nil {
				o.Log.Warn("nats client", "err", err, "subject", sub.Subject)
				return
			}
			o.Log.Warn("nats client", "err", err)
		}),
		natsgo.DisconnectErrHandler(func(_ *natsgo.Conn, err error) {
			if err != nil {
				o.Log.Warn("nats connection lost", "err", err)
			}
		}),
		natsgo.ReconnectHandler(func(nc *natsgo.Conn) {
			o.Log.Warn("nats connection is back", "server", nc.ConnectedServerName())
		}),
	}
}

// JetStream is the store's client.
func (c *Conn) JetStream() jetstream.JetStream { return c.js }

// Conn is the client connection.
func (c *Conn) Conn() *natsgo.Conn { return c.nc }

// Healthy returns nil when the store takes writes, as far as it is known without writing.
func (c *Conn) Healthy() error {
	if err := c.unhealthy(); err != nil {
		return err
	}
	if !c.nc.IsConnected() {
		return errs.New(errs.Unavailable, "the connection to NATS is lost")
	}
	return nil
}

// unhealthy says why the embedded store takes no writes. It does not ask the client, which waits while the Conn is held.
func (c *Conn) unhealthy() error {
	cause := c.broken.Load()
	switch {
	case cause != nil:
		return errs.New(errs.Unavailable, "the store in %s has stopped: %w", c.dir, *cause).
			WithHint("Its disk is full or has failed. Mend that; it then goes on by itself, and what was acknowledged is kept.")
	case c.srv.Load() != nil && !c.srv.Load().JetStreamEnabled():
		return errs.New(errs.Unavailable, "the store in %s has stopped", c.dir)
	}
	return nil
}

// Close ends the connection, and the embedded server where there is one. Further calls wait for the first.
func (c *Conn) Close() error {
	var err error
	c.once.Do(func() {
		if c.stop != nil {
			close(c.stop)
		}
		c.wait.Wait()
		if c.nc != nil {
			c.nc.Close()
		}
		c.end()
		if c.lock != nil {
			err = c.lock.release()
		}
	})
	return err
}

// redact hides credentials in a list of URLs.
func redact(list string) string {
	u, err := url.Parse(list)
	if err != nil {
		return "the configured address"
	}
	return u.Redacted()
}
