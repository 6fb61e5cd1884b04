package server

import (
	"bytes"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// machineMemoryMB is the machine's memory in MiB.
func machineMemoryMB() int64 {
	var i unix.Sysinfo_t
	if err := unix.Sysinfo(&i); err != nil {
		return 1024
	}
	return int64(uint64(i.Totalram) * uint64(i.Unit) >> 20)
}

// runQueue knows how many threads want a processor of this machine.
type runQueue struct {
	file *os.File

	mu      sync.Mutex
	average float64
	last    time.Time
}

const (
	// runnableWeight is what the newest reading counts in the average, which lags some eight readings behind.
	runnableWeight = 0.125
	// runnableStale is how long after the last reading the average says nothing any more.
	runnableStale = 100 * time.Millisecond
)

// openRunQueue returns nil where the machine does not tell.
func openRunQueue() *runQueue {
	f, err := os.Open("/proc/loadavg")
	if err != nil {
		return nil
	}
	return &runQueue{file: f}
}

func (q *runQueue) close() error { return q.file.Close() }

// saturated reports whether lately more threads than processors were running or ready to. See proc_loadavg(5): the fourth
// field is runnable entities / all.
func (q *runQueue) saturated() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	var room [64]byte
	n, err := q.file.ReadAt(room[:], 0)
	if n == 0 && err != nil {
		return false
	}
	fields := bytes.Fields(room[:n])
	if len(fields) < 4 {
		return false
	}
	runnable, _, _ := bytes.Cut(fields[3], []byte("/"))
	now, err := strconv.Atoi(string(runnable))
	if err != nil {
		return false
	}
	at := time.Now()
	if at.Sub(q.last) > runnableStale {
		q.average = float64(now)
	}
	q.last = at
	q.average += runnableWeight * (float64(now) - q.average)
	return q.average > float64(runtime.NumCPU())
}
