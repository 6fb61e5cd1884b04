package process

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/sandbox/process/capture"
	"github.com/ebb-run/ebb/internal/sandbox/process/helper"
	"golang.org/x/sys/unix"
)

// A zygote is a process of a Template of kind Copied: a language's runtime, booted, its libraries loaded, without anything of a user's. A guest
// that is a copy of one shares its memory until it writes to it, and saves the time that booting takes. The copy works through the same list
// of system calls as the helper's program of a guest that is executed, by the same instructions, so that it ends up behind the same protections;
// zygotelist_linux.go has what differs.
//
// What copies of one zygote have in common is the layout of their addresses, and what their language drew at its boot: in Python the seed
// of hashes. A zygote therefore makes a limited number of copies.

const (
	mostCopies   = 256              // of one zygote
	mostZygotes  = 4                // the one that was not used for the longest time ends before a fifth is started
	zygoteRest   = 10 * time.Minute // without use, until it ends
	copyPatience = time.Second      // to be given a copy; then the Command is run
	bootPatience = 20 * time.Second // until a zygote is ready
	bootPause    = time.Minute      // after one that did not get ready
)

// zygotes are those of a Driver.
type zygotes struct {
	d    *Driver
	i    *isolation
	boot sync.WaitGroup // those that are being started, and the ends of those that run

	copies atomic.Int64 // made so far

	mu struct {
		sync.Mutex
		closed  bool
		ready   map[string]*zygote
		coming  map[*zygote]struct{} // not ready yet
		booting map[string]bool
		failed  map[string]time.Time
		why     map[string]error // with failed
		changed chan struct{}    // closed at the next change; for tests
	}
}

func newZygotes(d *Driver, i *isolation) *zygotes {
	z := &zygotes{d: d, i: i}
	z.mu.ready, z.mu.booting, z.mu.failed, z.mu.changed = map[string]*zygote{}, map[string]bool{}, map[string]time.Time{}, make(chan struct{})
	z.mu.why, z.mu.coming = map[string]error{}, map[*zygote]struct{}{}
	return z
}

// retire ends all zygotes; none is started any more. Their copies live on.
func (i *isolation) retire() {
	z := i.zygotes
	z.mu.Lock()
	z.mu.closed = true
	all := slices.AppendSeq(slices.Collect(maps.Values(z.mu.ready)), maps.Keys(z.mu.coming))
	z.mu.Unlock()
	for _, one := range all {
		one.end()
	}
	z.boot.Wait()
}

// start makes the guest a copy of a zygote where there is one that is ready; else the guest is nil. A zygote that is missing is started.
func (z *zygotes) start(ctx context.Context, box *box, c sandbox.Code, files []uintptr) (*guest, []*os.File, []capture.Socket) {
	if !z.i.templates() || z.d.opts.Ready < 0 || c.Template == nil || c.Template.Kind != sandbox.Copied || box.spec.Transport != sandbox.Stream || box.spec.Beside > 0 || len(c.Template.Command) == 0 {
		return nil, nil, nil
	}
	one := z.take(c.Template)
	if one == nil && c.Patient {
		one = z.await(ctx, c.Template)
	}
	if one == nil {
		return nil, nil, nil
	}
	began := time.Now()
	b := &birth{i: z.i, spec: box.spec, code: c, box: box, outside: z.i.user(box.number), plan: z.i.planOf(box)}
	g, received, err := one.copy(b, sandbox.Assignment{Command: c.Command, Env: append([]string{}, c.Env...), Dir: c.Dir}, box.fence, files)
	if err != nil {
		z.say("a guest is not copied from the template", c.Template.Name, "sandbox", box.spec.ID, "err", err)
		return nil, nil, nil
	}
	box.fence.entered()
	z.copies.Add(1)
	z.say("a guest is a copy of the template", c.Template.Name, "sandbox", box.spec.ID, "took", time.Since(began))
	return g, received, b.plan
}

// wait has a copy made that waits for its Assignment. owner is the process to whose users its mounts belong.
func (z *zygotes) wait(b *birth, t *sandbox.Template, f *fence, files []uintptr) (g *guest, received []*os.File, owner int, err error) {
	one := z.take(t)
	if one == nil {
		return nil, nil, 0, errors.New("it cannot be copied yet")
	}
	if g, received, err = one.copy(b, sandbox.Assignment{Wait: true, Env: t.Ahead.Env}, f, files); err != nil {
		return nil, nil, 0, err
	}
	f.entered()
	return g, received, one.guest.pid, nil
}

// copied is how many guests were copies.
func (i *isolation) copied() int { return int(i.zygotes.copies.Load()) }

// mothers counts the zygotes that are ready, and their share of the memory that they have.
func (i *isolation) mothers() (count int, bytes int64) {
	z := i.zygotes
	var found []proc
	z.mu.Lock()
	for _, one := range z.mu.ready {
		found = append(found, proc{pid: one.guest.pid})
	}
	z.mu.Unlock() // reading takes a while, and starts wait for the mutex
	return len(found), proportional(found)
}

func (z *zygotes) say(what, name string, more ...any) {
	if log := z.d.opts.Log; log != nil {
		log.Log(context.Background(), slog.LevelDebug, what, append([]any{"template", name}, more...)...)
	}
}

// keyOf tells Templates apart.
func keyOf(t *sandbox.Template) string {
	text, err := json.Marshal([]any{t.Command, t.Env, t.Mounts})
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(text)
	return string(sum[:])
}

// take gives a zygote that is ready, or nil. It sees to a successor where there is none or this one has made many copies.
func (z *zygotes) take(t *sandbox.Template) *zygote {
	key := keyOf(t)
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.takeLocked(key, t)
}

func (z *zygotes) takeLocked(key string, t *sandbox.Template) *zygote {
	one := z.mu.ready[key]
	if one != nil {
		one.made++
		one.used = time.Now()
		one.rest.Reset(zygoteRest)
	}
	if (one == nil || one.made >= mostCopies) && !z.mu.closed && !z.mu.booting[key] && time.Since(z.mu.failed[key]) > bootPause {
		z.mu.booting[key] = true
		z.boot.Go(func() { z.bring(key, *t) })
	}
	return one
}

// await is take, but waits as long as a zygote boots.
func (z *zygotes) await(ctx context.Context, t *sandbox.Template) *zygote {
	key := keyOf(t)
	for {
		z.mu.Lock()
		one := z.takeLocked(key, t)
		booting, changed := z.mu.booting[key], z.mu.changed
		z.mu.Unlock()
		if one != nil || !booting {
			return one
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// bring starts a zygote and puts it in the place of the one before.
func (z *zygotes) bring(key string, t sandbox.Template) {
	began := time.Now()
	one, err := z.bear(t)
	if err != nil {
		z.say("no copies can be had of the template", t.Name, "err", err)
	} else {
		z.say("copies can be had of the template", t.Name, "took", time.Since(began))
	}
	if old := z.put(key, one, err); old != nil {
		old.end()
	}
}

// put puts a zygote, or that there is none, into its place, and gives the one that has to end for it.
func (z *zygotes) put(key string, one *zygote, err error) (old *zygote) {
	z.mu.Lock()
	defer z.mu.Unlock()
	delete(z.mu.booting, key)
	defer z.tellLocked()
	if err != nil {
		z.mu.failed[key], z.mu.why[key] = time.Now(), err
		return nil
	}
	z.boot.Go(func() { z.attend(key, one) })
	one.used, one.rest = time.Now(), time.AfterFunc(zygoteRest, one.end)
	if z.mu.closed {
		return one
	}
	old = z.mu.ready[key]
	if old == nil && len(z.mu.ready) >= mostZygotes {
		var oldest string
		for k, other := range z.mu.ready {
			if old == nil || other.used.Before(old.used) {
				oldest, old = k, other
			}
		}
		delete(z.mu.ready, oldest)
	}
	z.mu.ready[key] = one
	return old
}

func (z *zygotes) tellLocked() {
	close(z.mu.changed)
	z.mu.changed = make(chan struct{})
}

// attend waits for a zygote's end and cleans up behind it.
func (z *zygotes) attend(key string, one *zygote) {
	one.guest.await()
	z.mu.Lock()
	if z.mu.ready[key] == one {
		delete(z.mu.ready, key)
	}
	one.rest.Stop()
	z.tellLocked()
	z.mu.Unlock()
	one.bury()
}

// zygote is one process.
type zygote struct {
	name    string // of its Template
	guest   *guest // the process
	conn    *net.UnixConn
	footing footing
	out     *output
	turn    chan struct{} // cap 1: held while it makes a copy

	made int // belongs, with the next two, to the mutex of zygotes
	used time.Time
	rest *time.Timer

	births sync.RWMutex // held for reading until a copy is on its own
}

// end has the process end. It may be called again and again.
func (one *zygote) end() {
	_ = one.conn.Close()
	one.guest.signalGroup(unix.SIGKILL)
}

// bury cleans up behind a process that has ended. A copy that nobody knows the number of, because the zygote ended before it said that, is still
// in its process group.
func (one *zygote) bury() {
	one.births.Lock()
	defer one.births.Unlock()
	g := one.guest
	g.mu.Lock()
	g.mu.reaped = true
	_ = unix.Kill(-g.pid, unix.SIGKILL) // as long as the process is not reaped the group's number is nobody else's
	g.mu.Unlock()
	for {
		if _, err := unix.Wait4(-g.pid, nil, 0, nil); err != nil && err != unix.EINTR {
			break
		}
	}
	g.told() // ends its line
	_ = one.conn.Close()
	one.out.close()
}

// reporter puts what zygotes write into the log.
type reporter struct {
	z    *zygotes
	name string
}

func (r reporter) Write(p []byte) (int, error) {
	r.z.say("a template wrote", r.name, "text", string(p))
	return len(p), nil
}

// bear starts a zygote and waits until it is ready.
func (z *zygotes) bear(t sandbox.Template) (*zygote, error) {
	if z.i.rooted {
		if err := trusted(t); err != nil {
			return nil, err
		}
	}
	host, theirs, err := socketpairOf(unix.SOCK_SEQPACKET)
	if err != nil {
		return nil, fmt.Errorf("make its line: %w", err)
	}
	out, write, err := newOutput(reporter{z, t.Name}, &z.d.buffers)
	if err != nil {
		_ = host.Close()
		_ = unix.Close(theirs)
		return nil, fmt.Errorf("make its output: %w", err)
	}
	b := &birth{i: z.i, code: sandbox.Code{Command: t.Command, Env: t.Env, Mounts: t.Mounts}, outside: z.i.user(0), zygote: true}
	b.writeZygote()
	f := &fence{all: z.d.fences}
	f.mu.dir = -1
	g, _, err := b.start(z.d, []uintptr{z.d.null.Fd(), uintptr(write), uintptr(write), uintptr(theirs)}, int(z.i.image.Fd()), f)
	_ = unix.Close(write)
	_ = unix.Close(theirs)
	if err != nil {
		_ = host.Close()
		_ = out.pipe.Close()
		return nil, err
	}
	go out.run()
	one := &zygote{name: t.Name, guest: g, conn: host, out: out, turn: make(chan struct{}, 1)}
	z.mu.Lock()
	z.mu.coming[one] = struct{}{}
	closed := z.mu.closed
	z.mu.Unlock()
	if closed {
		one.end()
	}
	err = one.listen()
	z.mu.Lock()
	delete(z.mu.coming, one)
	z.mu.Unlock()
	if err != nil {
		one.end()
		g.await()
		one.bury()
		return nil, err
	}
	return one, nil
}

// listen waits until the process is ready.
func (one *zygote) listen() error {
	_ = one.conn.SetReadDeadline(time.Now().Add(bootPatience))
	var buf [1024]byte
	n, err := one.conn.Read(buf[:])
	if err != nil {
		return fmt.Errorf("wait until it is ready: %w", err)
	}
	word, rest, _ := bytes.Cut(buf[:n], []byte(" "))
	if string(word) != "ready" {
		return fmt.Errorf("it says %q", buf[:n])
	}
	if err := json.Unmarshal(rest, &one.footing); err != nil || one.footing.At == 0 || one.footing.TID == 0 {
		return fmt.Errorf("it says %q: %w", buf[:n], err)
	}
	return nil
}

// trusted says why a Template may not be run with the rights of root, which zygotes have some of: somebody else can change what it is made of.
func trusted(t sandbox.Template) error {
	real, err := filepath.EvalSymlinks(t.Command[0])
	if err != nil {
		return err
	}
	files := []string{real}
	for _, m := range t.Mounts {
		files = append(files, m.Source)
	}
	for _, file := range files {
		for at := file; ; at = filepath.Dir(at) {
			info, err := os.Stat(at)
			if err != nil {
				return err
			}
			st, ok := info.Sys().(*syscall.Stat_t)
			// In a folder like /tmp others can make files, but not take away root's.
			open := info.Mode().Perm()&0o022 != 0 && info.Mode()&os.ModeSticky == 0
			if !ok || st.Uid != 0 || open {
				return fmt.Errorf("others than root can change %s", at)
			}
			if at == filepath.Dir(at) {
				break
			}
		}
	}
	return nil
}

// copy makes a copy that is the guest. files become 0, 1, 2, 3 and, where it waits, TemplateFD.
func (one *zygote) copy(b *birth, a sandbox.Assignment, f *fence, files []uintptr) (*guest, []*os.File, error) {
	end := time.NewTimer(copyPatience)
	defer end.Stop()
	until := time.Now().Add(copyPatience)
	one.births.RLock()
	defer one.births.RUnlock()
	b.copied, b.list = &one.footing, helper.ListAt(one.footing.At)
	joins, dir := f.entries()
	b.writeCopy(len(joins), dir >= 0)
	list, err := b.listFile()
	if err != nil {
		return nil, nil, err
	}
	defer list.Close()
	ctl, theirs, err := newControl(&b.list)
	if err != nil {
		return nil, nil, err
	}
	given := []int{int(list.Fd()), int(files[0]), int(files[1]), int(files[3]), theirs}
	for _, more := range files[sandbox.TemplateFD:] {
		given = append(given, int(more))
	}
	given = append(given, joins...)
	if dir >= 0 {
		given = append(given, dir)
	}
	pid := 0
	select {
	case one.turn <- struct{}{}:
		pid, err = one.ask(a, given, until)
		<-one.turn
	case <-end.C:
		err = errors.New("it makes other copies")
	}
	_ = unix.Close(theirs)
	if err != nil {
		_ = ctl.conn.Close()
		return nil, nil, err
	}
	return one.raise(b, ctl, pid)
}

// ask has the process make a copy and gives its number. A process that does not answer is ended.
func (one *zygote) ask(a sandbox.Assignment, given []int, until time.Time) (int, error) {
	text, err := json.Marshal(a)
	if err != nil {
		return 0, err
	}
	_ = one.conn.SetDeadline(until)
	if _, _, err := one.conn.WriteMsgUnix(text, unix.UnixRights(given...), nil); err != nil {
		if !errors.Is(err, unix.EMSGSIZE) {
			one.end()
		}
		return 0, fmt.Errorf("ask for a copy: %w", err)
	}
	var buf [64]byte
	n, err := one.conn.Read(buf[:])
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		one.end()
		return 0, fmt.Errorf("wait for a copy: %w", err)
	}
	pid, err := strconv.Atoi(string(buf[:n]))
	if err != nil {
		one.end()
		return 0, fmt.Errorf("understand %q: %w", buf[:n], err)
	}
	if pid <= 0 {
		return 0, fmt.Errorf("make its namespaces: %w", syscall.Errno(-pid))
	}
	return pid, nil
}

// raise follows a copy until it runs.
func (one *zygote) raise(b *birth, ctl *control, pid int) (*guest, []*os.File, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		pidfd = -1
	}
	g := newGuest(pid, pidfd)
	_ = ctl.conn.SetReadDeadline(time.Now().Add(startPatience))
	if !b.i.rooted { // else it waits for its users
		err = ctl.answer()
	}
	if err == nil {
		var received []*os.File
		received, err = ctl.follow(func() error { return b.mapUsers(pid) }, b.i.outcomes)
		if most := b.sockets(); err == nil && len(received) != most {
			err = fmt.Errorf("%d descriptors came of %d", len(received), most)
		}
		if err == nil {
			_ = ctl.conn.SetReadDeadline(time.Time{})
			g.told = ctl.running()
			return g, received, nil
		}
		closeAll(received)
	}
	_ = ctl.conn.Close()
	_ = unix.Kill(pid, unix.SIGKILL)
	g.wait()
	return nil, nil, err
}
