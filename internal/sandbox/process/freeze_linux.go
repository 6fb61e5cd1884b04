package process

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"golang.org/x/sys/unix"
)

// freeze stops everything inside: by version 2, whose frozen processes can be killed; else by version 1, whose cannot until they are
// thawed; else one by one.
func (c *fence) freeze() error {
	if c.tree != "" {
		err := writeFile(filepath.Join(c.tree, "cgroup.freeze"), "1")
		if !errors.Is(err, fs.ErrNotExist) { // Linux 5.2
			c.setFrozen(err == nil)
			return err
		}
	}
	if c.freezer != "" {
		return writeFile(filepath.Join(c.freezer, "freezer.state"), "FROZEN")
	}
	return c.suspend()
}

func (c *fence) setFrozen(is bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.frozen = is
}

// thaw undoes freeze.
func (c *fence) thaw() error {
	if c.tree != "" {
		c.setFrozen(false)
		err := writeFile(filepath.Join(c.tree, "cgroup.freeze"), "0")
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if c.freezer != "" {
		return writeFile(filepath.Join(c.freezer, "freezer.state"), "THAWED")
	}
	c.resume()
	return nil
}

// suspendPatience bounds how long suspend looks for processes that do not stand still yet.
const suspendPatience = 2 * time.Second

// suspend stops processes by signal. One that is found may have forked before the signal got to it, so it looks until all that it
// finds stand still. Those that the guest has stopped itself are left to it.
func (c *fence) suspend() error {
	c.mu.RLock()
	pid := c.mu.pid
	c.mu.RUnlock()
	h := c.hunt()
	var held []proc
	quiet := 0
	pause := 20 * time.Microsecond
	for end := time.Now().Add(suspendPatience); time.Now().Before(end); {
		still := true
		found, unsure, vanished := h.find(pid)
		for _, p := range found {
			known := slices.ContainsFunc(held, p.is)
			if !p.stopped && !(known && p.waits) { // a parent in vfork waits for its stopped child, and stops after it
				still = false
			}
			if !known && !p.stopped {
				held = append(held, p)
				signalSame(p, unix.SIGSTOP)
			}
		}
		if quiet++; !still {
			quiet = 0
		}
		// Twice: a process that gets another parent during a look is missed by that one. One that is missed goes on, which does no harm.
		if quiet > 2 || quiet > 1 && unsure+vanished == 0 {
			c.hold(held)
			return nil
		}
		time.Sleep(pause)
		pause = min(2*pause, 5*time.Millisecond)
	}
	c.hold(held)
	c.resume()
	return errs.New(errs.Unavailable, "its processes do not stand still")
}

func (c *fence) hold(held []proc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.held = held
}

// resume lets those go on that suspend has stopped.
func (c *fence) resume() {
	c.mu.Lock()
	held := c.mu.held
	c.mu.held = nil
	c.mu.Unlock()
	for _, p := range held {
		signalSame(p, unix.SIGCONT)
	}
}

// is reports whether q is the same process.
func (p proc) is(q proc) bool { return p.pid == q.pid && p.start == q.start }
