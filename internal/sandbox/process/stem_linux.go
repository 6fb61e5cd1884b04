package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ebb-run/ebb/internal/sandbox"
	"golang.org/x/sys/unix"
)

// What a Template says on its descriptor: that it is ready, and that it has become what it was told to.
const (
	stemReady = "ready"
	stemTaken = "taken"
)

const (
	// stemBoot bounds how long a Template may take to be ready.
	stemBoot = 30 * time.Second
	// stemAnswer bounds how long a stem may take to become what it was told to, which takes a millisecond. The Command is run then.
	stemAnswer = time.Second
	// mostAssignment is the longest Assignment: what a socket takes at once, with some room.
	mostAssignment = 96 << 10
	// unknownStem is what a stem is believed to use where nobody counts.
	unknownStem = 64 << 20
)

// stemCell is a Sandbox in which a Template waits.
type stemCell struct {
	d      *Driver
	number int
	guest  *guest
	out    *output
	fence  *fence
	stream net.Conn      // descriptor 3 inside
	assign *net.UnixConn // TemplateFD inside
	files  []*os.File    // of its network, as its seed's plan
	spaces namespaces    // in which its mounts are made
	weight int64
	owner  atomic.Pointer[box] // the Sandbox that it became

	watched chan struct{} // closed when nobody reads from assign any more
	over    bool          // it has ended by itself; valid when watched is closed
}

// openStems makes what keeps a Driver's stems.
func openStems(d *Driver) *stems {
	ctx, cancel := context.WithCancel(context.Background())
	s := &stems{budget: d.opts.Ready}
	s.mu.pools = map[string]*stemPool{}
	s.sow = func(k *seed, f *fence) (cell, error) {
		c, err := d.sow(ctx, k, f)
		if err != nil {
			d.debug("a template cannot be readied", "template", k.template.Name, "error", err.Error())
			return nil, err
		}
		return c, nil
	}
	s.drop = func(f *fence) { f.remove() }
	s.cancel = cancel
	if d.iso == nil || !d.iso.templates() {
		s.budget = 0
	} else if s.budget == 0 {
		s.budget = defaultReady()
	}
	return s
}

// defaultReady is a sixteenth of the machine's memory.
func defaultReady() int64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return int64(info.Totalram) * int64(info.Unit) / 16
}

func (d *Driver) debug(msg string, args ...any) {
	if d.opts.Log != nil {
		d.opts.Log.Debug(msg, args...)
	}
}

// seedOf is the kind of stem that could become the code in this Sandbox; nil where none can.
func (b *box) seedOf(c sandbox.Code) *seed {
	t := c.Template
	if t == nil || t.Kind == sandbox.Copied && t.Ahead == nil || b.d.iso == nil || b.spec.Transport != sandbox.Stream || b.spec.Beside > 0 || len(t.Command) == 0 {
		return nil
	}
	k := &seed{
		template: *t, limits: b.fence.limits, tmp: b.spec.Limits.TmpBytes, heap: b.fence.heap,
		plan: b.d.iso.planOf(b),
	}
	for _, m := range early(t) {
		if !slices.Contains(c.Mounts, m) {
			return nil // it would show more than the Command sees
		}
	}
	late := lateMounts(b.d.iso, c)
	for _, m := range late {
		within := func(o sandbox.Mount) bool {
			return o != m && (strings.HasPrefix(o.Target+"/", m.Target+"/") || strings.HasPrefix(m.Target, o.Target+"/"))
		}
		if !isFolder(m.Source) || slices.ContainsFunc(c.Mounts, within) {
			return nil
		}
		k.late = append(k.late, m.Target)
	}
	k.name()
	return k
}

// early are the mounts that a Template has that waits.
func early(t *sandbox.Template) []sandbox.Mount {
	if t.Ahead == nil {
		return t.Mounts
	}
	return slices.Concat(t.Mounts, t.Ahead.Mounts)
}

// lateMounts are what the Code has beyond its Template, sorted.
func lateMounts(i *isolation, c sandbox.Code) []sandbox.Mount {
	all := slices.DeleteFunc((&birth{i: i, code: c}).needed(), func(m sandbox.Mount) bool { return slices.Contains(early(c.Template), m) })
	slices.SortFunc(all, func(x, y sandbox.Mount) int { return strings.Compare(x.Target, y.Target) })
	return all
}

// adopt starts the code in a stem that is ready, which becomes this Sandbox. It gives nil where Command is to be run.
func (b *box) adopt(c sandbox.Code, to io.Writer) (*guest, *output) {
	k := b.seedOf(c)
	if k == nil {
		return nil, nil
	}
	text, err := json.Marshal(sandbox.Assignment{Command: c.Command, Env: c.Env, Dir: c.Dir})
	if err != nil || len(text) > mostAssignment {
		return nil, nil
	}
	taken := b.d.stems.take(k)
	if taken == nil {
		return nil, nil
	}
	s := taken.(*stemCell)
	if err := s.become(b, c, k, text); err != nil {
		b.d.debug("a template did not become its program", "template", k.template.Name, "sandbox", b.spec.ID, "error", err.Error())
		b.d.stems.unfit(k, s)
		return nil, nil
	}
	b.mu.Lock()
	own := b.fence
	s.owner.Store(b)
	b.fence, b.templated = s.fence, true
	b.mu.Unlock()
	b.d.stems.recycle(k, own)
	b.line.mu.Lock()
	b.line.mu.stream = s.stream
	b.line.mu.Unlock()
	s.spaces.close()
	_ = s.assign.Close()
	if to != nil {
		s.out.w = to
	}
	return s.guest, s.out
}

// become makes the stem what the Code says. After an error it is of no use.
func (s *stemCell) become(b *box, c sandbox.Code, k *seed, assignment []byte) error {
	if err := s.spaces.mount(s.d, lateMounts(s.d.iso, c)); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	_ = s.assign.SetDeadline(time.Now().Add(stemAnswer))
	if _, err := s.assign.Write(assignment); err != nil {
		return err
	}
	files := s.files
	s.files = nil // the network's from now on
	if err := b.connect(k.plan, files); err != nil {
		return fmt.Errorf("serve its network: %w", err)
	}
	err := s.hear(stemTaken)
	if err != nil && b.network != nil {
		_ = b.network.Close()
		b.network = nil
	}
	return err
}

// hear waits for a word of the Template's.
func (s *stemCell) hear(word string) error {
	var buf [64]byte
	n, err := s.assign.Read(buf[:])
	switch {
	case errors.Is(err, io.EOF) || err == nil && n == 0:
		return errors.New("it ended")
	case err != nil:
		return err
	case string(buf[:n]) != word:
		return fmt.Errorf("it said %q", buf[:n])
	}
	return nil
}

// sow makes a stem and waits until it is ready. It takes over the fence.
func (d *Driver) sow(ctx context.Context, k *seed, f *fence) (_ *stemCell, err error) {
	d.mu.Lock()
	d.mu.next++
	number := d.mu.next
	d.mu.Unlock()
	if f == nil {
		if f, err = d.fences.make(d.key+"-"+d.run+"-"+strconv.Itoa(number), k.limits, k.heap); err != nil {
			return nil, fmt.Errorf("set limits: %w", err)
		}
	}
	s := &stemCell{d: d, number: number, fence: f, watched: make(chan struct{}), spaces: noNamespaces}
	f.contained()
	if err := s.start(k); err != nil {
		s.end()
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.assign.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	_ = s.assign.SetReadDeadline(time.Now().Add(stemBoot))
	if ctx.Err() != nil {
		err = ctx.Err()
	} else {
		err = s.hear(stemReady)
	}
	if err != nil {
		s.end()
		return nil, fmt.Errorf("boot: %w", err)
	}
	s.weight = unknownStem
	if u := f.usage(); f.counts() && u.MemoryPeak > 0 {
		s.weight = u.MemoryPeak
	}
	_ = s.assign.SetReadDeadline(time.Time{})
	return s, nil
}

// start makes its Sandbox and starts the Template inside.
func (s *stemCell) start(k *seed) error {
	d := s.d
	out, write, err := newOutput(nil, &d.buffers)
	if err != nil {
		return fmt.Errorf("make output pipe: %w", err)
	}
	s.out = out
	defer func() { _ = unix.Close(write) }()
	l := &line{kind: sandbox.Stream}
	three, err := l.attach()
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(three) }()
	s.stream = l.mu.stream
	four, err := l.askSockets()
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(four) }()
	s.assign = l.mu.sockets.(*net.UnixConn)
	b := &birth{
		i: d.iso, outside: d.iso.user(s.number), plan: k.plan, template: true, late: k.late,
		spec: sandbox.Spec{Transport: sandbox.Stream, Limits: sandbox.Limits{TmpBytes: k.tmp}},
		code: sandbox.Code{Command: k.template.Command, Env: k.template.Env, Mounts: early(&k.template)},
	}
	files, owner := []uintptr{d.null.Fd(), uintptr(write), uintptr(write), uintptr(three)}, 0
	if k.template.Kind == sandbox.Copied {
		s.guest, s.files, owner, err = d.iso.zygotes.wait(b, &k.template, s.fence, append(files, uintptr(four)))
	} else {
		b.write()
		b.run()
		if s.guest, s.files, err = b.start(d, files, four, s.fence); err == nil {
			owner = s.guest.pid
		}
	}
	if err != nil {
		return err
	}
	s.fence.guard(s.guest.pid, "", func() {
		if b := s.owner.Load(); b != nil {
			b.memoryExceeded()
		}
	})
	s.spaces, err = openNamespaces(s.guest.pid, owner, d.iso.rooted)
	return err
}

// watch returns when the stem has ended by itself, or was claimed or ended.
func (s *stemCell) watch() {
	defer close(s.watched)
	err := s.hear("")
	s.over = !errors.Is(err, os.ErrDeadlineExceeded)
}

// claim ends the watch.
func (s *stemCell) claim() bool {
	_ = s.assign.SetReadDeadline(time.Unix(1, 0))
	<-s.watched
	return !s.over
}

func (s *stemCell) bytes() int64 { return s.weight }

// end ends the stem.
func (s *stemCell) end() {
	if s.assign != nil {
		_ = s.assign.SetReadDeadline(time.Unix(1, 0))
	}
	if s.guest != nil {
		s.guest.signalGroup(unix.SIGKILL)
		s.fence.kill()
		s.guest.wait()
		s.d.fenceLeft(s.fence)
	} else {
		s.fence.remove()
	}
	s.spaces.close()
	for _, f := range s.files {
		_ = f.Close()
	}
	if s.out != nil {
		_ = s.out.pipe.Close()
	}
	if s.stream != nil {
		_ = s.stream.Close()
	}
	if s.assign != nil {
		_ = s.assign.Close()
	}
}

// fenceLeft takes a fence away whose main process has ended.
func (d *Driver) fenceLeft(f *fence) {
	clean := f.clear(d.opts.Patience)
	if !f.remove() || !clean {
		d.debug("something of a template is left", "cgroups", filepath.Join(f.dirs...))
	}
}
