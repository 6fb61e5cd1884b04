package server

import "golang.org/x/sys/unix"

// machineMemoryMB is the machine's memory in MiB.
func machineMemoryMB() int64 {
	n, err := unix.SysctlUint64("hw.memsize")
	if err != nil {
		return 1024
	}
	return int64(n >> 20)
}

// runQueue knows how many threads want a processor, which macOS does not tell.
type runQueue struct{}

func openRunQueue() *runQueue { return nil }

func (q *runQueue) close() error { return nil }

func (q *runQueue) saturated() bool { return false }
