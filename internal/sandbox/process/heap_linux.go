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
// to be kept to its own limit all the same: the kernel rings when both together exceed that, and then somebody looks which it is. In
// version 2 it does not ring, and the watchdog looks at both.

// openHeap opens what tells what programs use.
func (c *fence) openHeap() {
	v2 := c.all.memory.version == 2
	if c.heap > 0 || v2 && c.mu.peak < 0 { // memory.peak came with Linux 5.19
		c.mu.use = openRead(c.memory, map[bool]string{false: "memory.usage_in_bytes", true: "memory.current"}[v2])
	}
	if c.heap > 0 {
		c.mu.stat = openRead(c.memory, "memory.stat")
	}
}

// sampledLocked reports whether the watchdog has to look at the cgroup: for the heap, or for the highest use.
func (c *fence) sampledLocked() bool {
	return c.memory != "" && c.all.memory.version == 2 && (c.heap > 0 || c.mu.peak < 0)
}

// look is the watchdog's at a version 2 cgroup, and reports whether programs use more than they may.
func (c *fence) look() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.closed || c.mu.frozen {
		return false
	}
	used := c.usedMemoryLocked()
	if c.mu.peak < 0 {
		c.mu.most = max(c.mu.most, used)
	}
	return c.heap > 0 && used >= c.heap && c.anonymousLocked() >= c.heap
}

// usedMemoryLocked is what programs and files use together.
func (c *fence) usedMemoryLocked() int64 {
	var buf [32]byte
	used, _ := strconv.ParseInt(string(bytes.TrimSpace(pread(c.mu.use, buf[:]))), 10, 64)
	return used
}

// anonymousLocked is what programs use; memory.stat of both versions.
func (c *fence) anonymousLocked() int64 {
	var buf [4096]byte
	name := "rss "
	if c.all.memory.version == 2 {
		name = "anon "
	}
	return field(pread(c.mu.stat, buf[:]), name)
}

// hangHeapBell has the bell ring also when the group uses more than the heap's limit; cgroup-v1/memory.rst, "Memory thresholds".
// Version 2 has nothing like it. The kernel waits for all processors meanwhile, some ten milliseconds, so this is not on the way to a
// guest's start; whoever calls it looks afterwards whether the limit was exceeded before.
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
		closed, used, anonymous := c.mu.closed, c.usedMemoryLocked(), c.anonymousLocked()
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
