package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/sandbox"
	"golang.org/x/sys/unix"
)

// marker is the variable by which a Sandbox's processes are found.
const marker = "EBB_SANDBOX"

// minMemory is the smallest memory limit. A thread of the host is in the guest's cgroup while it forks, and what the kernel
// then takes for it must fit, lest the host itself runs out of memory.
const minMemory = 4 << 20

type phase uint8

const (
	prepared phase = iota
	starting
	running // a guest was started; it may have ended
	failed  // Start was tried in vain
)

// box is one Sandbox.
type box struct {
	d       *Driver
	spec    sandbox.Spec
	name    string // value of the marker, part of cgroup names
	number  int    // among the Sandboxes of its Driver
	tmp     string
	fence   *fence // another one from Start on where a stem became this Sandbox; changes with mu, while starting
	line    *line
	network io.Closer // of an isolated guest that can reach something; set before settled is closed
	notices *notices  // of an isolated guest with output; set before settled is closed
	ice     ice

	templated bool // it came from a Template; set before settled is closed

	settled chan struct{} // closed when Start's attempt is over
	done    chan struct{} // closed when the main process has ended and its output is handed on, or Stop is through
	gone    chan struct{} // closed when nothing is left
	sooner  chan struct{} // cap 1: stopBy was moved

	mu struct {
		sync.Mutex
		phase    phase
		guest    *guest
		out      *output
		exit     sandbox.Exit
		over     bool // exit is valid
		oom      bool
		stopping bool
		stopBy   time.Time
		used     sandbox.Usage // the highest seen so far
		isGone   bool
	}
}

var _ sandbox.Sandbox = (*box)(nil)

func newBox(d *Driver, s sandbox.Spec, n int) (_ *box, err error) {
	if s.Limits.MemoryBytes > 0 && s.Limits.MemoryBytes < minMemory {
		return nil, errs.New(errs.Invalid, "a memory limit of %d bytes is too small for a process", s.Limits.MemoryBytes).
			WithHint("Give at least %d MiB.", minMemory>>20)
	}
	if s.Beside > 0 && (d.iso == nil || s.Transport == sandbox.Dial) {
		return nil, errs.New(errs.Unsupported, "programs beside the main one need an isolated sandbox that does not listen itself").
			WithHint("ebb doctor says what this machine allows.")
	}
	if s.Offline && d.iso == nil {
		return nil, errs.New(errs.Unsupported, "a guest can be kept from the network only in an isolated sandbox").WithHint("ebb doctor says what this machine allows.")
	}
	number := strconv.Itoa(n)
	b := &box{
		d: d, spec: s, number: n, name: d.key + "-" + d.run + "-" + number,
		tmp:     filepath.Join(tmpRoot(d.opts.Dir), d.run, number), // short: guests put Unix sockets there
		settled: make(chan struct{}), done: make(chan struct{}), gone: make(chan struct{}), sooner: make(chan struct{}, 1),
	}
	inside := ""
	if d.iso != nil {
		inside = d.iso.addr(s)
	} else if err := os.MkdirAll(b.tmp, 0o700); err != nil {
		return nil, fmt.Errorf("make temp folder: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(b.tmp)
		}
	}()
	if b.line, err = openLine(s, inside); err != nil {
		return nil, err
	}
	limits, heap := s.Limits, int64(0)
	if d.iso != nil && limits.Processes > 0 {
		limits.Processes += d.iso.own(s)
	}
	if d.iso != nil && limits.MemoryBytes > 0 && limits.TmpBytes > 0 {
		heap, limits.MemoryBytes = limits.MemoryBytes, limits.MemoryBytes+limits.TmpBytes
	}
	if b.fence, err = d.fences.make(b.name, limits, heap); err != nil {
		_ = b.line.Close()
		return nil, fmt.Errorf("set limits: %w", err)
	}
	return b, nil
}

// Addr is the address for the Listen and Dial transports.
func (b *box) Addr() string { return b.line.addr }

// Start runs the code.
func (b *box) Start(ctx context.Context, c sandbox.Code) (sandbox.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("start sandbox %s: %w", b.spec.ID, err)
	}
	b.mu.Lock()
	if b.mu.phase != prepared || b.mu.stopping {
		b.mu.Unlock()
		return nil, errs.New(errs.Conflict, "start sandbox %s: it was started or stopped before", b.spec.ID)
	}
	b.mu.phase = starting
	b.mu.Unlock()

	g, out, err := b.launch(ctx, c)

	b.mu.Lock()
	b.mu.phase = failed
	if err == nil {
		b.mu.phase, b.mu.guest, b.mu.out = running, g, out
	}
	b.mu.Unlock()
	if err == nil {
		go out.run()
		go b.attend(g, out)
		if !b.templated { // guarded already
			b.fence.guard(g.pid, b.name, b.memoryExceeded)
		}
	}
	close(b.settled)
	if err != nil {
		return nil, fmt.Errorf("start sandbox %s: %w", b.spec.ID, err)
	}
	return b.line, nil
}

// launch makes the guest's descriptors and its main process.
func (b *box) launch(ctx context.Context, c sandbox.Code) (*guest, *output, error) {
	if len(c.Command) == 0 || !filepath.IsAbs(c.Command[0]) {
		return nil, nil, errs.New(errs.Invalid, "the program must be an absolute path, not %q", strings.Join(c.Command, " "))
	}
	if len(c.Beside) != b.spec.Beside {
		return nil, nil, errs.New(errs.Invalid, "%d programs beside the main one where %d were asked for", len(c.Beside), b.spec.Beside)
	}
	to := b.spec.Output
	if b.d.iso != nil && to != nil {
		b.notices = newNotices(to)
		to = b.notices
	}
	if g, out := b.adopt(c, to); g != nil {
		return g, out, nil
	}
	out, write, err := newOutput(to, &b.d.buffers)
	if err != nil {
		return nil, nil, fmt.Errorf("make output pipe: %w", err)
	}
	defer func() { _ = unix.Close(write) }()
	three, err := b.line.attach()
	if err != nil {
		_ = out.pipe.Close()
		return nil, nil, err
	}
	files := []uintptr{b.d.null.Fd(), uintptr(write), uintptr(write)}
	if three >= 0 {
		defer func() { _ = unix.Close(three) }()
		files = append(files, uintptr(three))
	}
	if b.d.iso != nil {
		b.fence.contained()
		g, err := b.d.iso.start(ctx, b, c, files)
		if err != nil {
			_ = out.pipe.Close()
			return nil, nil, err
		}
		return g, out, nil
	}
	if b.d.walls != nil {
		g, err := b.d.walls.start(b, c, files)
		if err != nil {
			_ = out.pipe.Close()
			return nil, nil, err
		}
		return g, out, nil
	}
	g, err := b.d.launcher.start(&order{path: c.Command[0], argv: c.Command, env: b.environ(c.Env), dir: c.Dir, files: files, fence: b.fence})
	if err != nil {
		_ = out.pipe.Close()
		return nil, nil, explain(c, b.spec.Limits, err)
	}
	return g, out, nil
}

func (b *box) environ(env []string) []string {
	all := make([]string, 0, len(env)+3)
	tmp, home := true, true
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		if name == marker {
			continue
		}
		tmp, home = tmp && name != "TMPDIR", home && name != "HOME"
		all = append(all, kv)
	}
	if tmp {
		all = append(all, "TMPDIR="+b.tmp)
	}
	if home { // without, programs ask the system for that of ebb's user
		all = append(all, "HOME="+b.tmp)
	}
	return append(all, marker+"="+b.name)
}

// explain finds out which of the things an exec needs is the one that is not there.
func explain(c sandbox.Code, l sandbox.Limits, err error) error {
	program := c.Command[0]
	if info, serr := os.Stat(c.Dir); c.Dir != "" && (serr != nil || !info.IsDir()) {
		return errs.New(errs.NotFound, "working directory %s: %w", c.Dir, syscall.ENOENT)
	}
	switch {
	case errors.Is(err, syscall.ENOMEM) && l.MemoryBytes > 0:
		return errs.New(errs.Failed, "run %s within %d bytes of memory: %w", program, l.MemoryBytes, err).WithHint("Raise the memory limit.")
	case errors.Is(err, syscall.ENOENT):
		if _, serr := os.Stat(program); serr == nil {
			return errs.New(errs.Failed, "run %s: %w", program, err).
				WithHint("The program is there, but the interpreter in its first line, or its dynamic loader, is not on this machine.")
		}
		return errs.New(errs.NotFound, "run %s: %w", program, err)
	case errors.Is(err, syscall.EACCES), errors.Is(err, fs.ErrPermission):
		return errs.New(errs.Failed, "run %s: %w", program, err).WithHint("Make the program executable: chmod +x %s", program)
	case errors.Is(err, syscall.ENOEXEC):
		return errs.New(errs.Failed, "run %s: %w", program, err).WithHint("It is built for another processor or system, or is a script without a first line like #!/bin/sh.")
	case errors.Is(err, syscall.E2BIG):
		return errs.New(errs.Invalid, "run %s: %w", program, err).WithHint("Its environment variables and arguments are together too long for this system.")
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return errs.New(errs.Unavailable, "run %s: %w", program, err).WithHint("This machine has no room for another process; see ulimit -u and ulimit -n.")
	}
	return fmt.Errorf("run %s: %w", program, err)
}

// attend waits for the main process and publishes how it ended.
func (b *box) attend(g *guest, out *output) {
	exit := g.wait()
	oom := b.fence.exceeded()
	out.flush()
	b.keepUsage(g)
	b.mu.Lock()
	exit.OOM = oom || b.mu.oom
	exit.Stopped = b.mu.stopping && !exit.OOM
	b.mu.Unlock()
	b.finish(exit)
	b.fence.kill() // what it leaves behind serves nobody; Stop sees to it that it is gone
}

// memoryExceeded is called, once or more, when the Sandbox is over its memory limit.
func (b *box) memoryExceeded() {
	b.mu.Lock()
	late := b.mu.over || b.mu.isGone
	if !late {
		b.mu.oom = true
	}
	b.mu.Unlock()
	if !late {
		b.kill()
	}
}

// kill kills everything inside once. With the first process of a pid namespace the kernel kills all others.
func (b *box) kill() {
	b.mu.Lock()
	g := b.mu.guest
	b.mu.Unlock()
	if g != nil && g.told != nil {
		g.signalGroup(syscall.SIGKILL)
	}
	b.fence.kill()
}

// say adds to the output what the guest cannot say itself.
func (b *box) say(text string) {
	b.mu.Lock()
	out := b.mu.out
	b.mu.Unlock()
	if out != nil {
		out.mu.Lock()
		defer out.mu.Unlock()
		_, _ = io.WriteString(out.w, text)
	}
}

// Flush hands on the output written so far.
func (b *box) Flush() {
	b.mu.Lock()
	out := b.mu.out
	b.mu.Unlock()
	if out != nil {
		out.flush()
	}
}

// Usage is what was used so far.
func (b *box) Usage() sandbox.Usage {
	b.mu.Lock()
	is, g := b.mu.isGone, b.mu.guest
	b.mu.Unlock()
	if !is {
		b.keepUsage(g)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.used
}

// keepUsage notes what is used now: neither cgroups nor the kernel keep it until everybody has asked.
func (b *box) keepUsage(g *guest) {
	b.mu.Lock()
	fence := b.fence
	b.mu.Unlock()
	u := fence.usage()
	if g != nil && (u.CPU == 0 || !fence.counts()) {
		own := g.usage()
		if fence.counts() {
			own.MemoryPeak = 0 // that of all processes is known
		}
		u = most(u, own)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.used = most(b.mu.used, u)
}

func most(a, b sandbox.Usage) sandbox.Usage {
	return sandbox.Usage{MemoryPeak: max(a.MemoryPeak, b.MemoryPeak), CPU: max(a.CPU, b.CPU)}
}

// Done is closed at the end of the main process.
func (b *box) Done() <-chan struct{} { return b.done }

// Exit says how it ended.
func (b *box) Exit() sandbox.Exit {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.exit
}

// Stop ends everything.
func (b *box) Stop(grace time.Duration) {
	by := time.Now().Add(max(grace, 0))
	b.mu.Lock()
	first := !b.mu.stopping
	b.mu.stopping = true
	if first || by.Before(b.mu.stopBy) {
		b.mu.stopBy = by
		select {
		case b.sooner <- struct{}{}:
		default:
		}
	}
	b.mu.Unlock()
	if first {
		b.end()
	}
	<-b.gone
}

// end takes the Sandbox down, in the reverse order of its making.
func (b *box) end() {
	b.mu.Lock()
	phase := b.mu.phase
	b.mu.Unlock()
	if phase != prepared {
		<-b.settled
	}
	b.mu.Lock()
	g, out := b.mu.guest, b.mu.out
	b.mu.Unlock()
	clean := true
	if g != nil {
		b.part(g) // thaws
		b.keepUsage(g)
		b.kill()
		// Clearing takes away what the end of the main process is judged by.
		t := time.NewTimer(b.d.opts.Patience)
		select {
		case <-b.done:
		case <-t.C: // it hangs in the kernel
		}
		t.Stop()
		clean = b.fence.clear(b.d.opts.Patience)
		out.close()
	}
	clean = b.fence.remove() && clean
	_ = b.line.Close()
	if b.network != nil {
		_ = b.network.Close()
	}
	if clean {
		removeAll(b.tmp)
		b.d.forget(b)
	}
	b.finish(sandbox.Exit{Code: -1, Stopped: true}) // when no guest was started, or one hangs in the kernel
	b.mu.Lock()
	b.mu.isGone = true
	b.mu.Unlock()
	close(b.gone)
}

// again tries once more to clear what end had to leave.
func (b *box) again() {
	if b.fence.clear(b.d.opts.Patience) && b.fence.remove() {
		removeAll(b.tmp)
		b.d.forget(b)
	}
}

// finish publishes how the Sandbox ended. The first call counts.
func (b *box) finish(exit sandbox.Exit) {
	b.mu.Lock()
	first := !b.mu.over
	if first {
		b.mu.exit, b.mu.over = exit, true
	}
	b.mu.Unlock()
	if first {
		close(b.done)
	}
}

// part asks the guest to end and waits until it has or its time is over.
func (b *box) part(g *guest) {
	left := func() time.Duration {
		b.mu.Lock()
		defer b.mu.Unlock()
		return time.Until(b.mu.stopBy)
	}
	graceful := left() > 0
	b.unfreeze(graceful)
	if !graceful {
		return
	}
	g.ask()
	for {
		d := left()
		if d <= 0 {
			return
		}
		t := time.NewTimer(d)
		select {
		case <-b.done:
			t.Stop()
			return
		case <-b.sooner:
		case <-t.C:
		}
		t.Stop()
	}
}

// removeAll removes a folder, also when the guest took its own permissions away.
func removeAll(dir string) {
	if os.RemoveAll(dir) == nil {
		return
	}
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if e != nil && e.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	_ = os.RemoveAll(dir)
}
