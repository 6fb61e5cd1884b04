package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// A /tmp in memory is charged to the guest's cgroup, whose limit therefore has room for a full one. What programs use beside it has
// to be kept to its own limit all the same: the kernel rings when both together exceed that, and then somebody looks which it is.

// openHeap opens what tells what programs use.
func (c *fence) openHeap() {
	if c.heap > 0 {
		c.mu.use = openRead(c.memory, "memory.usage_in_bytes")
		c.mu.stat = openRead(c.memory, "memory.stat")
	}
}

// hangHeapBell has the bell ring also when the group uses more than the heap's limit; cgroup-v1/memory.rst, "Memory thresholds".
// Version 2 has nothing like it: there only both together are limited. The kernel waits for all processors meanwhile, some ten
// milliseconds, so this is not on the way to a guest's start; whoever calls it looks afterwards whether the limit was exceeded before.
func (c *fence) hangHeapBell(bell *os.File) error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.mu.closed {
		return nil
	}
	raw, err := bell.SyscallConn()
	if err != nil {
		return err
	}
	failed := raw.Control(func(fd uintptr) {
		err = writeFile(filepath.Join(c.memory, "cgroup.event_control"), fmt.Sprintf("%d %d %d", fd, c.mu.use, c.heap))
	})
	return errors.Join(failed, err)
}

// heapPause is how often it is looked at where the kernel does not ring for it.
const heapPause = 100 * time.Millisecond

// watchHeap has the heap's limit watched, and looks at it until the fence is closed where the kernel cannot.
func (c *fence) watchHeap(bell *os.File, exceeded func()) {
	err := c.hangHeapBell(bell)
	for {
		if c.overHeap() {
			exceeded()
		}
		if err == nil || c.isClosed() {
			return
		}
		time.Sleep(heapPause)
	}
}

func (c *fence) isClosed() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.mu.closed
}

// heapLook is how often it is looked at while it might be over its limit.
const heapLook = 10 * time.Millisecond

// overHeap reports whether programs use more than they may. It looks again and again while programs and files together use more.
func (c *fence) overHeap() bool {
	for {
		if c.exceeded() {
			return true
		}
		c.mu.RLock()
		closed := c.mu.closed
		var buf [4096]byte
		used, _ := strconv.ParseInt(string(bytes.TrimSpace(pread(c.mu.use, buf[:]))), 10, 64)
		anonymous := field(pread(c.mu.stat, buf[:]), "rss ")
		c.mu.RUnlock()
		switch {
		case closed || used < c.heap:
			return false
		case anonymous >= c.heap:
			return true
		}
		time.Sleep(heapLook)
	}
}
