package process

import (
	"bytes"
	"os"
	"strconv"
	"sync"
	"time"
)

// sampleEvery is how often memory is looked at where no cgroup limits it.
const sampleEvery = 50 * time.Millisecond

// watchdog bounds memory where there is no cgroup, or one that cannot tell programs from files. Its goroutine lives while there are
// Sandboxes to watch.
type watchdog struct {
	mu struct {
		sync.Mutex
		watched map[*fence]func() // what to call when it is over its limit
		stop    chan struct{}     // nil when no goroutine runs
		ended   chan struct{}
	}
}

func (w *watchdog) add(c *fence, exceeded func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.watched == nil {
		w.mu.watched = map[*fence]func(){}
	}
	w.mu.watched[c] = exceeded
	if w.mu.stop == nil {
		w.mu.stop, w.mu.ended = make(chan struct{}), make(chan struct{})
		go w.run(w.mu.stop, w.mu.ended)
	}
}

func (w *watchdog) drop(c *fence) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.mu.watched, c)
	if len(w.mu.watched) == 0 && w.mu.stop != nil {
		close(w.mu.stop)
		w.mu.stop = nil
	}
}

// close waits for the last goroutine.
func (w *watchdog) close() {
	w.mu.Lock()
	ended := w.mu.ended
	w.mu.Unlock()
	if ended != nil {
		<-ended
	}
}

func (w *watchdog) run(stop, ended chan struct{}) {
	defer close(ended)
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	marks := map[[2]uint64]string{}
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		marks = w.sample(marks)
	}
}

// sample looks at everything once. marks remembers the marks of processes by number and start time; it returns those that still live.
func (w *watchdog) sample(marks map[[2]uint64]string) map[[2]uint64]string {
	w.mu.Lock()
	watched := make(map[*fence]func(), len(w.mu.watched))
	for c, f := range w.mu.watched {
		watched[c] = f
	}
	w.mu.Unlock()
	for c, exceeded := range watched {
		if c.memory == "" {
			continue
		}
		delete(watched, c)
		if c.look() {
			exceeded()
		}
	}
	if len(watched) == 0 {
		return marks
	}
	all, _ := listProcs()
	now := make(map[int]string, len(all))
	kept := make(map[[2]uint64]string, len(all))
	for _, p := range all {
		id := [2]uint64{uint64(p.pid), p.start}
		m, certain := marks[id]
		if !certain {
			m, certain = markOf(p)
		}
		if certain {
			kept[id] = m
		}
		now[p.pid] = m
	}
	for c, exceeded := range watched {
		c.mu.RLock()
		pid := c.mu.pid
		c.mu.RUnlock()
		members := family(all, func(p proc) bool { return now[p.pid] == c.name }, pid)
		used := resident(members)
		if used > c.limits.MemoryBytes {
			used = proportional(members) // slower, but counts shared pages once
		}
		c.mu.Lock()
		c.mu.most = max(c.mu.most, used)
		c.mu.Unlock()
		if used > c.limits.MemoryBytes {
			exceeded()
		}
	}
	return kept
}

// resident sums RSS; proc_pid_statm(5).
func resident(members []proc) int64 {
	var pages int64
	for _, p := range members {
		text, _ := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/statm")
		if f := bytes.Fields(text); len(f) > 1 {
			n, _ := strconv.ParseInt(string(f[1]), 10, 64)
			pages += n
		}
	}
	return pages * int64(os.Getpagesize())
}

// proportional sums PSS; proc_pid_smaps(5).
func proportional(members []proc) int64 {
	var sum int64
	for _, p := range members {
		text, _ := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/smaps_rollup")
		if f := bytes.Fields(lineOf(text, "Pss:")); len(f) > 1 {
			n, _ := strconv.ParseInt(string(f[1]), 10, 64)
			sum += n << 10
		}
	}
	return sum
}

func lineOf(text []byte, name string) []byte {
	for l := range bytes.Lines(text) {
		if bytes.HasPrefix(l, []byte(name)) {
			return l
		}
	}
	return nil
}
