package process

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strconv"
	"time"
)

// A /tmp in memory is charged to the guest's cgroup, whose limit therefore has room for a full one. What programs use beside it has
// to be kept to its own limit all the same: the kernel rings when both together exceed that, and then somebody looks which it is.

// hangHeapBell has the bell ring also when the group uses more than the heap's limit; cgroup-v1/memory.rst, "Memory thresholds".
// Version 2 has nothing like it: there only both together are limited.
func (c *fence) hangHeapBell(bell int) error {
	if c.heap == 0 {
		return nil
	}
	c.mu.use = openRead(c.memory, "memory.usage_in_bytes")
	c.mu.stat = openRead(c.memory, "memory.stat")
	return writeFile(filepath.Join(c.memory, "cgroup.event_control"), fmt.Sprintf("%d %d %d", bell, c.mu.use, c.heap))
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
