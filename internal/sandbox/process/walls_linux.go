package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/sandbox/process/confine"
	"github.com/ebb-run/ebb/internal/sandbox/process/helper"
	"golang.org/x/sys/unix"
)

// walls confine guests where a host denies namespaces: with what every process may do to itself. The helper gives up rights as in a namespace,
// then becomes the guest.
type walls struct {
	i      *isolation
	shared string // /tmp, where guests may write there; else empty
}

// sharedTmp is where programs write what is to be gone some day. Handlers name it: without it hardly a function would run as it does on Lambda.
// So it is theirs to write, with all that functions and others leave there, unless what ebb keeps is in it.
const sharedTmp = "/tmp"

// openWalls readies and tries them; nil where they do not work.
func openWalls(d *Driver) *walls {
	i, err := newIsolation(d)
	if err != nil {
		return nil
	}
	if i.calls, err = confine.SeccompShared(); err != nil {
		i.close()
		return nil
	}
	w := &walls{i: i}
	if !strings.HasPrefix(d.opts.Dir+"/", sharedTmp+"/") {
		w.shared = sharedTmp
	}
	if err := w.try(d); err != nil {
		i.close()
		return nil
	}
	return w
}

func (w *walls) close() { w.i.close() }

// files reports whether guests reach only the files that they are given.
func (w *walls) files() bool {
	rules, _ := confine.LandlockFiles(w.i.abi, nil, nil)
	return rules != nil
}

// tmp says what of the shared folder guests have.
func (w *walls) tmp() string {
	if w.shared == "" {
		return "/tmp, where ebb's data is, is not there"
	}
	return "they share /tmp with each other and this machine"
}

// scoped reports whether guests can signal only themselves: Landlock's version 6.
func (w *walls) scoped() bool { return w.i.abi >= 6 }

// try runs the helper, which renounces and ends.
func (w *walls) try(d *Driver) error {
	b := &birth{i: w.i, files: func() ([]byte, []confine.Rule) { return confine.LandlockFiles(w.i.abi, nil, nil) }}
	b.renounce()
	closeFrom(&b.list, helper.ListFD)
	b.list.Call("end", unix.SYS_EXIT_GROUP, helper.Int(0))
	f := &fence{all: d.fences}
	f.mu.dir = -1
	null := d.null.Fd()
	g, err := b.become(d, []uintptr{null, null, null}, f)
	if err != nil {
		return err
	}
	if exit := g.wait(); exit.Code != 0 {
		return errors.New(exit.String())
	}
	return nil
}

// nameFiles are what programs look names up in, for the host's network is the guest's here.
var nameFiles = []string{"/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf", "/etc/passwd", "/etc/group", "/etc/hostname"}

// start starts the code; files become 0, 1, 2 and, with a line, 3.
func (w *walls) start(box *box, c sandbox.Code, files []uintptr) (*guest, error) {
	b := &birth{i: w.i, spec: box.spec, code: c, box: box}
	b.files = func() ([]byte, []confine.Rule) {
		return confine.LandlockFiles(w.i.abi, w.readable(c), w.writable(box))
	}
	b.renounce()
	l := &b.list
	dir := c.Dir
	if dir == "" {
		dir = box.tmp // the host's own folder may be one that a guest must not see
	}
	l.Call("enter "+dir, unix.SYS_CHDIR, l.Text(dir))
	last := helper.ListFD
	if box.spec.Transport != sandbox.Stream {
		last--
	}
	closeFrom(l, last)
	path, argv, env := l.Text(c.Command[0]), l.Texts(c.Command), l.Texts(box.environ(c.Env))
	l.Call("run "+c.Command[0], unix.SYS_EXECVE, path, argv, env)
	g, err := b.become(box.d, files, box.fence)
	var failed *helper.StepError
	switch {
	case errors.As(err, &failed) && (strings.HasPrefix(failed.What, "run ") || strings.HasPrefix(failed.What, "enter ")):
		if failed.Errno == unix.EACCES && w.hidden(c) {
			return nil, errs.New(errs.Failed, "run %s: it is not among the files that functions may see", c.Command[0]).
				WithHint("Package it with the code or a layer; --isolation none runs functions without restrictions.")
		}
		return nil, explain(c, box.spec.Limits, failed.Errno)
	case err != nil:
		return nil, errs.New(errs.Unavailable, "confine it: %w", err).WithHint("ebb doctor says what this machine allows.")
	}
	return g, nil
}

// closeFrom has descriptors close when the guest's program runs, so that a failure can still be told; Linux 5.11.
func closeFrom(l *helper.List, first int) {
	l.Call("close descriptors", unix.SYS_CLOSE_RANGE, helper.Int(first), helper.Int(uint64(1)<<32-1), helper.Int(unix.CLOSE_RANGE_CLOEXEC))
}

// hidden reports whether a program could be run but for Landlock.
func (w *walls) hidden(c sandbox.Code) bool { return unix.Access(c.Command[0], unix.X_OK) == nil }

// readable lists what a guest may read.
func (w *walls) readable(c sandbox.Code) []string {
	var all []string
	add := func(path string) {
		real, err := filepath.EvalSymlinks(path)
		if err != nil {
			return
		}
		if isFolder(real) {
			real = strings.TrimSuffix(real, "/") + "/"
		}
		all = append(all, real)
	}
	for _, m := range w.i.system.mounts {
		add(m.Source)
	}
	for _, f := range nameFiles {
		add(f)
	}
	for _, m := range c.Mounts {
		add(m.Source)
	}
	return all
}

// writable lists what a guest may write.
func (w *walls) writable(box *box) []string {
	if w.shared == "" {
		return []string{box.tmp}
	}
	return []string{box.tmp, w.shared}
}

// become starts the helper with the list and waits until it has become the guest, or has failed.
func (b *birth) become(d *Driver, files []uintptr, f *fence) (*guest, error) {
	list, err := b.listFile()
	if err != nil {
		return nil, err
	}
	defer list.Close()
	ctl, theirs, err := newControl(&b.list)
	if err != nil {
		return nil, err
	}
	defer ctl.conn.Close()
	for len(files) < helper.ListFD {
		files = append(files, d.null.Fd())
	}
	files = append(files, list.Fd(), uintptr(theirs), b.i.image.Fd())
	g, err := d.launcher.start(&order{path: "/proc/self/fd/" + strconv.Itoa(len(files)-1), argv: []string{"ebb-init"}, dir: "/", files: files, fence: f})
	_ = unix.Close(theirs)
	if err != nil {
		return nil, fmt.Errorf("run the helper: %w", err)
	}
	_ = ctl.conn.SetReadDeadline(time.Now().Add(startPatience))
	var buf [helper.FailureSize]byte
	n, err := ctl.conn.Read(buf[:])
	switch {
	case n == helper.FailureSize:
		err = b.list.Failure(buf[:n])
	case n == 0 && !errors.Is(err, os.ErrDeadlineExceeded):
		return g, nil // its end of the line was closed when the guest's program was loaded
	}
	_ = unix.Kill(g.pid, unix.SIGKILL)
	g.wait()
	return nil, err
}
