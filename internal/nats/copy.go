package nats

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

// held is a connection to the embedded server on which nothing is sent while the Conn is held.
type held struct {
	net.Conn
	gate *sync.RWMutex
}

func (h *held) Write(p []byte) (int, error) {
	h.gate.RLock()
	defer h.gate.RUnlock()
	return h.Conn.Write(p)
}

// Hold keeps everything from being sent to the embedded store until release is called: writes wait, and so do reads. It is for the moment
// at which several stores are seen at once, and is not to be held for long. What was sent before may still be written.
func (c *Conn) Hold() (release func()) {
	c.gate.Lock()
	return sync.OnceFunc(c.gate.Unlock)
}

// Embedded says whether the store is this process's own, in a folder.
func (c *Conn) Embedded() bool { return c.dir != "" }

// settleTime bounds how long the server may be busy with what was sent before Hold.
const settleTime = 10 * time.Second

// Copy makes a folder of the embedded store's files as they are at one moment, which [Open] opens as after a kill at that moment. The caller
// has called Hold, and releases it afterwards; the folder to does not exist. Blocks that are full are hard links where the file system has them.
func (c *Conn) Copy(ctx context.Context, to string) error {
	if !c.Embedded() {
		return errs.New(errs.Unsupported, "the store is in a NATS server elsewhere, and has no files here")
	}
	if err := c.unhealthy(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, settleTime, errs.New(errs.Unavailable, "the store in %s does not come to rest", c.dir))
	defer cancel()
	before, err := listFiles(c.dir)
	if err != nil {
		return err
	}
	for {
		err := copyFiles(c.dir, to, before)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return errors.Join(err, os.RemoveAll(to))
		}
		after, lerr := listFiles(c.dir)
		if lerr != nil {
			return errors.Join(lerr, os.RemoveAll(to))
		}
		if err == nil && maps.Equal(before, after) {
			return nil // nothing changed from before the first file was copied to after the last
		}
		before = after
		if err := os.RemoveAll(to); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(settlePause):
		}
	}
}

// settlePause is between two attempts: longer than the clock of a file system is coarse.
const settlePause = 10 * time.Millisecond

// Check reads the files of a store that is not sealed and that nobody has open, such as a copy, and returns an error when they are damaged.
func Check(ctx context.Context, dir string) error {
	_, err := inspect(ctx, dir, "")
	return err
}

// fileState is what changes when a file does.
type fileState struct {
	size int64
	when time.Time
}

// listFiles lists what the store is made of: not the lock, nor what the server derives from its blocks, nor consumers, of which ebb has none
// that outlive a connection.
func listFiles(dir string) (map[string]fileState, error) {
	out := map[string]fileState{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a file that was replaced
		}
		if err != nil {
			return err
		}
		name := d.Name()
		switch {
		case d.IsDir() && (name == "obs" || path != dir && strings.HasPrefix(name, ".")):
			return fs.SkipDir
		case !d.Type().IsRegular(), name == lockFile, name == "index.db", strings.HasPrefix(name, "."), strings.HasSuffix(name, ".tmp"):
			return nil
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		out[rel] = fileState{info.Size(), info.ModTime()}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list files of store %s: %w", dir, err)
	}
	return out, nil
}

// copyFiles copies the files. The server only appends to a block, or puts another file in its place, and appends to the last one of a stream
// alone: others are linked.
func copyFiles(from, to string, files map[string]fileState) error {
	last := map[string]int{} // by folder
	for rel := range files {
		if n, ok := blockNumber(filepath.Base(rel)); ok {
			last[filepath.Dir(rel)] = max(last[filepath.Dir(rel)], n)
		}
	}
	for _, rel := range slices.Sorted(maps.Keys(files)) {
		target := filepath.Join(to, rel)
		if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
			return fmt.Errorf("copy store: %w", err)
		}
		if n, ok := blockNumber(filepath.Base(rel)); ok && n < last[filepath.Dir(rel)] {
			err := os.Link(filepath.Join(from, rel), target)
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				if err != nil {
					return err
				}
				continue
			}
		}
		if err := copyFile(filepath.Join(from, rel), target); err != nil {
			return fmt.Errorf("copy store: %w", err)
		}
	}
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
