package nats

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ebb-run/ebb/internal/errs"
)

// startTimeout bounds the start of a server whose store has been read; reading itself is bounded by the caller's context.
const startTimeout = 10 * time.Second

// maxMemoryStore bounds streams kept in memory. ebb has none; the default is three quarters of the machine's memory.
const maxMemoryStore = 64 << 20

// room is how much must be free on the disk to start; JetStream turns itself off at the first failed write.
const room = 1 << 20

func (c *Conn) embed(ctx context.Context, o Options) error {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return fmt.Errorf("open store %s: %w", o.Dir, err)
	}
	c.dir = dir
	if o.Dir == "" {
		return errs.New(errs.Invalid, "open store: no folder given")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return diskError(dir, "make", err)
	}
	if c.lock, err = lockDir(dir); err != nil {
		return err
	}
	if err := checkFormat(dir); err != nil {
		return err
	}
	if err := checkRoom(dir, room); err != nil {
		return err
	}
	found, err := inspect(ctx, dir, serverKey(o.Key))
	if err != nil {
		return err
	}
	log := newServerLog(o.Log)
	if err := c.start(ctx, o, log); err != nil {
		return err
	}
	if err := c.dial(o); err != nil {
		return err
	}
	if err := c.check(ctx, found, log); err != nil {
		return err
	}
	c.watch(o, log)
	return nil
}

// start runs the server, and makes it the one that is connected to.
func (c *Conn) start(ctx context.Context, o Options, log *serverLog) error {
	srv, err := natsserver.NewServer(&natsserver.Options{
		ServerName:             o.Name,
		DontListen:             true,
		JetStream:              true,
		StoreDir:               c.dir,
		SyncAlways:             true,
		JetStreamMaxMemory:     maxMemoryStore,
		JetStreamMaxStore:      o.MaxStore,
		NoSigs:                 true,
		DisableJetStreamBanner: true,
		MaxTracedMsgLen:        1,
		JetStreamKey:           serverKey(o.Key),
		JetStreamCipher:        natsserver.ChaCha,
	})
	if err != nil {
		return fmt.Errorf("make embedded nats server: %w", err)
	}
	c.srv.Store(srv)
	srv.SetLoggerV2(log, false, false, false)
	started := make(chan struct{})
	go func() {
		defer close(started)
		srv.Start()
	}()
	select {
	case <-started:
	case <-ctx.Done():
		// Start cannot be interrupted; Shutdown waits for the recovery's locks.
		srv.Shutdown()
		<-started
		return fmt.Errorf("start embedded nats server: %w", ctx.Err())
	}
	if !srv.JetStreamEnabled() {
		return corrupt(c.dir, "the store could not be opened: %s", log.problems())
	}
	if !srv.ReadyForConnections(startTimeout) {
		return errs.New(errs.Unavailable, "embedded nats server in %s did not start in %v", c.dir, startTimeout)
	}
	return nil
}

// dial connects to the server in process, and again to one that takes its place.
func (c *Conn) dial(o Options) (err error) {
	c.nc, err = natsgo.Connect("", append(clientOptions(o),
		natsgo.InProcessServer(door{c}),
		natsgo.MaxReconnects(-1),
		natsgo.ReconnectWait(healPause/4),
		natsgo.ReconnectJitter(0, 0),
		natsgo.ReconnectBufSize(-1), // while there is none, calls fail at once instead of waiting
		// A pipe inside the process cannot go stale; no timer is needed to find out.
		natsgo.PingInterval(time.Hour),
	)...)
	if err != nil {
		return fmt.Errorf("connect to embedded nats server: %w", err)
	}
	if c.js, err = jetstream.New(c.nc); err != nil {
		return fmt.Errorf("open jetstream: %w", err)
	}
	return nil
}

// check makes sure that the server has taken up every stream of the folder: it only logs those that it leaves out.
func (c *Conn) check(ctx context.Context, found []string, log *serverLog) error {
	if len(found) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var have []string
	list := c.js.ListStreams(ctx)
	for info := range list.Info() {
		have = append(have, info.Config.Name)
		if l := info.State.Lost; l != nil && len(l.Msgs) > 0 {
			return corrupt(c.dir, "stream %s has lost %d records", info.Config.Name, len(l.Msgs))
		}
	}
	if err := list.Err(); err != nil {
		return fmt.Errorf("list streams of %s: %w", c.dir, err)
	}
	for _, name := range found {
		if !slices.Contains(have, name) {
			return corrupt(c.dir, "stream %s cannot be opened: %s", name, log.problems())
		}
	}
	return nil
}

// corrupt is the error for a store that cannot be read in full.
func corrupt(dir, format string, args ...any) error {
	return errs.New(errs.Failed, "the store in %s is damaged: %s", dir, fmt.Sprintf(format, args...)).
		WithHint("Put back a backup of %s, or move the folder away to start empty and deploy again. Nothing in it was removed.", dir)
}

// diskError gives a failed file operation a code and the mend.
func diskError(dir, step string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		return errs.New(errs.Unavailable, "%s %s: the disk is full: %w", step, dir, err).
			WithHint("Free some space on the disk of %s and start again.", dir)
	case errors.Is(err, fs.ErrPermission):
		return errs.New(errs.Forbidden, "%s %s: %w", step, dir, err).
			WithHint("Give the user that runs ebb write access to %s, or choose another folder with --data.", dir)
	case errors.Is(err, syscall.ENOTDIR):
		return errs.New(errs.Invalid, "%s %s: %w", step, dir, err).WithHint("Choose a folder with --data.")
	case errors.Is(err, syscall.EROFS):
		return errs.New(errs.Forbidden, "%s %s: %w", step, dir, err).WithHint("Choose a folder on a writable disk with --data.")
	}
	return fmt.Errorf("%s %s: %w", step, dir, err)
}

// checkRoom tries to write a little: free space as reported does not count quotas.
func checkRoom(dir string, size int) error {
	// The name is fixed, so that a crash leaves at most one; the lock keeps others away.
	f, err := os.OpenFile(filepath.Join(dir, ".room"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return diskError(dir, "write to", err)
	}
	_, err = f.Write(make([]byte, size))
	err = errors.Join(err, f.Close(), os.Remove(f.Name()))
	if err != nil {
		return diskError(dir, "write to", err)
	}
	return nil
}

// serverLog passes the server's warnings on and keeps the first few, which say why a start failed.
type serverLog struct {
	log    *slog.Logger
	broken chan error // takes the first error of writing
	mu     struct {
		sync.Mutex
		kept []string
	}
}

func newServerLog(log *slog.Logger) *serverLog {
	return &serverLog{log: log, broken: make(chan error, 1)}
}

func (l *serverLog) Noticef(string, ...any) {}
func (l *serverLog) Debugf(string, ...any)  {}
func (l *serverLog) Tracef(string, ...any)  {}

func (l *serverLog) Warnf(format string, v ...any)  { l.keep(slog.LevelWarn, format, v) }
func (l *serverLog) Errorf(format string, v ...any) { l.keep(slog.LevelError, format, v) }

// Fatalf does not end the process: Open finds that the server did not start.
func (l *serverLog) Fatalf(format string, v ...any) { l.keep(slog.LevelError, format, v) }

func (l *serverLog) keep(level slog.Level, format string, v []any) {
	text := strings.TrimSpace(fmt.Sprintf(format, v...))
	for _, arg := range v {
		if err, ok := arg.(error); ok && level == slog.LevelError && writeError(err) {
			select {
			case l.broken <- err:
			default:
			}
		}
	}
	l.log.Log(context.Background(), level, "nats server", "text", text)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.mu.kept) < 8 {
		l.mu.kept = append(l.mu.kept, text)
	}
}

// writeError tells whether an error is one of writing a file.
func writeError(err error) bool {
	var p *fs.PathError
	return errors.As(err, &p) && (p.Op == "write" || p.Op == "sync" || p.Op == "truncate") ||
		errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EIO)
}

func (l *serverLog) problems() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.mu.kept) == 0 {
		return "the server gives no reason"
	}
	return strings.Join(l.mu.kept, "; ")
}
