package process

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/sandbox"
	"golang.org/x/sys/unix"
)

// fence bounds one Sandbox: its cgroups, or without them the means to find its processes.
type fence struct {
	all     *fences
	name    string
	limits  sandbox.Limits
	own     bool     // the guest has a pid namespace, whose end the host sees to
	heap    int64    // what its programs may use, where limits have room for a temp folder in memory too; else 0
	memory  string   // its folder for memory, or ""
	pids    string   // its folder for the number of processes, or ""
	cpu     string   // its folder for limits and shares of the processors, or ""
	account string   // its version 1 folder for usage of the processors, or ""
	freezer string   // its version 1 folder for freezing, or ""
	tree    string   // its version 2 folder, or ""
	dirs    []string // these, each once

	mu struct {
		sync.RWMutex
		closed bool
		join   []int // `tasks` files to enter by; until entered
		dir    int   // version 2 folder to be born in; until entered; or -1
		use    int   // descriptors read by usage, exceeded and overHeap; -1 where there is none
		stat   int
		peak   int
		cpu    int
		ooms   int
		pid    int      // the main process; 0 before it started
		held   []proc   // stopped by suspend
		bell   *os.File // rings when memory is out; version 1
		most   int64    // the highest sampled memory, where no cgroup keeps it
		frozen bool     // uses no more memory
	}
	bellDone chan struct{} // closed when nobody listens to bell; nil without
}

// make readies the cgroups for a Sandbox.
func (f *fences) make(name string, l sandbox.Limits, heap int64) (*fence, error) {
	c := &fence{all: f, name: name, limits: l, heap: heap}
	c.mu.dir, c.mu.use, c.mu.stat, c.mu.peak, c.mu.cpu, c.mu.ooms = -1, -1, -1, -1, -1, -1
	if err := c.create(); err != nil {
		c.closeFiles()
		c.remove()
		return nil, err
	}
	return c, nil
}

func (c *fence) create() error {
	for _, p := range []struct {
		h   hierarchy
		dir *string
	}{
		{c.all.memory, &c.memory}, {c.all.pids, &c.pids}, {c.all.cpu, &c.cpu}, {c.all.account, &c.account}, {c.all.freezer, &c.freezer},
		{c.all.tree, &c.tree},
	} {
		if !p.h.usable() || p.dir == &c.cpu && !c.boundsCPU() {
			continue
		}
		*p.dir = filepath.Join(p.h.base, "ebb-"+c.name)
		if slices.Contains(c.dirs, *p.dir) {
			continue // one folder for several controllers
		}
		if err := os.Mkdir(*p.dir, 0o755); err != nil {
			return fmt.Errorf("make cgroup: %w", err)
		}
		c.dirs = append(c.dirs, *p.dir)
		if p.h.version == 1 {
			fd, err := unix.Open(filepath.Join(*p.dir, "tasks"), unix.O_WRONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("open cgroup: %w", err)
			}
			c.mu.join = append(c.mu.join, fd)
		}
	}
	if c.tree != "" {
		fd, err := unix.Open(c.tree, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open cgroup: %w", err)
		}
		c.mu.dir = fd
		c.mu.cpu = openRead(c.tree, "cpu.stat")
	} else if c.account != "" {
		c.mu.cpu = openRead(c.account, "cpuacct.usage")
	}
	if err := c.limitMemory(); err != nil {
		return fmt.Errorf("limit memory to %d bytes: %w", c.limits.MemoryBytes, err)
	}
	if c.pids != "" && c.limits.Processes > 0 {
		most := c.limits.Processes
		if c.all.pids.version == 1 {
			most++ // while the launcher's own thread is inside
		}
		if err := writeFile(filepath.Join(c.pids, "pids.max"), strconv.Itoa(most)); err != nil {
			return fmt.Errorf("limit processes to %d: %w", c.limits.Processes, err)
		}
	}
	if c.all.cpu.version == 2 {
		return c.limitCPU()
	}
	return nil
}

func (c *fence) limitMemory() error {
	if c.memory == "" {
		return nil
	}
	limit := strconv.FormatInt(c.limits.MemoryBytes, 10)
	if c.all.memory.version == 2 {
		c.mu.peak = openRead(c.memory, "memory.peak")
		c.mu.ooms = openRead(c.memory, "memory.events")
		c.openHeap()
		if c.limits.MemoryBytes == 0 {
			return nil
		}
		_ = writeFile(filepath.Join(c.memory, "memory.oom.group"), "1")
		_ = writeFile(filepath.Join(c.memory, "memory.swap.max"), "0") // not there without swap
		return writeFile(filepath.Join(c.memory, "memory.max"), limit)
	}
	c.mu.peak = openRead(c.memory, "memory.max_usage_in_bytes")
	c.mu.ooms = openRead(c.memory, "memory.oom_control")
	if c.limits.MemoryBytes == 0 {
		return nil
	}
	if err := writeFile(filepath.Join(c.memory, "memory.limit_in_bytes"), limit); err != nil {
		return err
	}
	_ = writeFile(filepath.Join(c.memory, "memory.memsw.limit_in_bytes"), limit) // not there without swap accounting
	return c.hangBell()
}

// hangBell has the kernel tell when the group runs out of memory, since it may kill another process than the main one;
// cgroup-v1/memory.rst, "OOM Control". (Version 2 kills the whole group by itself.)
func (c *fence) hangBell() error {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(c.memory, "cgroup.event_control"), fmt.Sprintf("%d %d", fd, c.mu.ooms)); err != nil {
		_ = unix.Close(fd)
		return err
	}
	c.mu.bell = os.NewFile(uintptr(fd), "oom bell")
	c.openHeap()
	return nil
}

func openRead(dir, file string) int {
	fd, err := unix.Open(filepath.Join(dir, file), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return fd
}

// cgroup is the folder that a guest is to be born in, or -1.
func (c *fence) cgroup() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.mu.dir
}

// entries are what enter and cgroup use, for somebody else who enters: descriptors of version 1 files to write 0 to, and the version 2 folder to be
// born in, or -1. They are good until entered.
func (c *fence) entries() (join []int, dir int) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return slices.Clone(c.mu.join), c.mu.dir
}

// enter brings the calling thread into the version 1 cgroups.
func (c *fence) enter() error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, fd := range c.mu.join {
		if err := write(fd, self); err != nil {
			return errs.New(errs.Unavailable, "enter cgroup: %w", err)
		}
	}
	return nil
}

// entered lets go of what enter needed, when the thread has left again.
func (c *fence) entered() {
	c.mu.Lock()
	c.closeEntry()
	c.mu.Unlock()
	if c.pids != "" && c.limits.Processes > 0 && c.all.pids.version == 1 {
		// An isolated guest of root has not begun, since its helper waits for an answer that comes later. A plain one may have, and then has
		// one process too many if it forked that fast.
		_ = writeFile(filepath.Join(c.pids, "pids.max"), strconv.Itoa(c.limits.Processes))
	}
	if c.all.cpu.version == 1 {
		// Not before the launcher has left: throttled in here it would hold up the start of all others. What can fail is that a
		// group above allows less, which then holds.
		_ = c.limitCPU()
	}
}

func (c *fence) closeEntry() {
	for _, fd := range c.mu.join {
		_ = unix.Close(fd)
	}
	c.mu.join = nil
	if c.mu.dir >= 0 {
		_ = unix.Close(c.mu.dir)
	}
	c.mu.dir = -1
}

// guard watches over the memory of a guest that has just started.
func (c *fence) guard(pid int, _ string, exceeded func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.closed {
		return
	}
	c.mu.pid = pid
	if bell := c.mu.bell; bell != nil {
		c.bellDone = make(chan struct{})
		go func() {
			defer close(c.bellDone)
			if c.heap > 0 {
				c.watchHeap(bell, exceeded)
			}
			var b [8]byte
			for {
				if _, err := bell.Read(b[:]); err != nil {
					return
				}
				if c.heap == 0 || c.overHeap() {
					exceeded()
				}
			}
		}()
	}
	if c.memory == "" && c.limits.MemoryBytes > 0 || c.sampledLocked() {
		c.all.dog.add(c, exceeded)
	}
}

// exceeded reports whether the kernel has killed something here because of the memory limit.
func (c *fence) exceeded() bool {
	if c.limits.MemoryBytes == 0 {
		return false
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	var buf [512]byte
	text := pread(c.mu.ooms, buf[:])
	return field(text, "oom_kill ") > 0
}

// contained says that the Sandbox has a pid namespace.
func (c *fence) contained() { c.own = true }

// counts reports whether usage has the memory of all processes, at its highest.
func (c *fence) counts() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.memory != "" && (c.mu.closed || c.mu.peak >= 0)
}

// usage is what the cgroups have counted, zero for what they have not.
func (c *fence) usage() sandbox.Usage {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var buf [512]byte
	u := sandbox.Usage{MemoryPeak: c.mu.most}
	if n, err := strconv.ParseInt(string(bytes.TrimSpace(pread(c.mu.peak, buf[:]))), 10, 64); err == nil {
		u.MemoryPeak = n
	}
	if c.memory != "" && c.mu.peak < 0 {
		u.MemoryPeak = max(u.MemoryPeak, c.usedMemoryLocked())
	}
	u.CPU = c.usedCPULocked()
	return u
}

func pread(fd int, buf []byte) []byte {
	if fd < 0 {
		return nil
	}
	n, err := unix.Pread(fd, buf, 0)
	if err != nil {
		return nil
	}
	return buf[:n]
}

// field gives the number behind a name at the head of a line, 0 when there is none.
func field(text []byte, name string) int64 {
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte(name)); ok {
			n, _ := strconv.ParseInt(string(bytes.TrimSpace(rest)), 10, 64)
			return n
		}
	}
	return 0
}

// kill kills everything inside once. What forks meanwhile is clear's. After remove it does nothing: the cgroups' names may be another's then.
func (c *fence) kill() {
	if len(c.dirs) == 0 {
		c.killOnce(c.hunt())
		return
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	if !c.mu.closed {
		killCgroups(c.dirs)
	}
}

// killOnce reports whether nothing is left, as far as it looks.
func (c *fence) killOnce(h *hunt) bool {
	if len(c.dirs) > 0 {
		killCgroups(c.dirs)
		return false
	}
	if c.own {
		return true
	}
	c.mu.RLock()
	pid := c.mu.pid
	c.mu.RUnlock()
	return h.pass(pid)
}

func (c *fence) hunt() *hunt { return &hunt{wanted: func(m string) bool { return m == c.name }} }

// killCgroups kills the processes in the cgroups of one Sandbox.
func killCgroups(dirs []string) {
	for _, dir := range dirs {
		if writeFile(filepath.Join(dir, "cgroup.kill"), "1") == nil {
			return // version 2, Linux 5.14: all at once
		}
	}
	for _, dir := range dirs {
		_ = writeFile(filepath.Join(dir, "pids.max"), "0") // nothing can fork away any more
	}
	for _, dir := range dirs {
		for _, pid := range readPids(filepath.Join(dir, "cgroup.procs")) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	for _, dir := range dirs {
		_ = writeFile(filepath.Join(dir, "freezer.state"), "THAWED") // version 1: nobody dies frozen
	}
}

// clear kills until nothing is left, and reports whether it came to that.
func (c *fence) clear(patience time.Duration) bool {
	h, end := c.hunt(), time.Now().Add(patience)
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, 20*time.Millisecond) {
		if c.killOnce(h) || len(c.dirs) > 0 && removeDirs(c.dirs) {
			return true
		}
		if time.Now().After(end) {
			return false
		}
		time.Sleep(pause)
	}
}

// remove lets go of everything. It reports whether nothing is left of the cgroups.
func (c *fence) remove() bool {
	c.all.dog.drop(c)
	c.closeFiles()
	if c.bellDone != nil {
		<-c.bellDone
	}
	return removeDirs(c.dirs)
}

func (c *fence) closeFiles() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.closed {
		return
	}
	c.mu.closed = true
	c.closeEntry()
	if c.mu.bell != nil {
		_ = c.mu.bell.Close()
	}
	for _, fd := range []*int{&c.mu.use, &c.mu.stat, &c.mu.peak, &c.mu.cpu, &c.mu.ooms} {
		if *fd >= 0 {
			_ = unix.Close(*fd)
		}
		*fd = -1
	}
}

// removeDirs removes cgroups, which the kernel allows when no process is inside.
func removeDirs(dirs []string) bool {
	all := true
	for _, d := range dirs {
		if err := unix.Rmdir(d); err != nil && err != unix.ENOENT {
			all = false
		}
	}
	return all
}
