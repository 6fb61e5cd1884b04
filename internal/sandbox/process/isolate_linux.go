package process

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/sandbox/process/capture"
	"github.com/ebb-run/ebb/internal/sandbox/process/confine"
	"github.com/ebb-run/ebb/internal/sandbox/process/helper"
	"golang.org/x/sys/unix"
)

// The user inside of every Sandbox: that of Lambda, whose number compile caches hold in their paths.
const (
	insideUID  = 993
	insideGID  = 990
	insideName = "sbx_user1051"
	insideHost = "169-254-100-1" // as Lambda's look
)

// Addresses inside: where the host listens with the Listen transport, which is Lambda's own, and where the guest does with Dial.
const (
	apiAddr  = "127.0.0.1:9001"
	dialAddr = "127.0.0.1:9002"
)

// outsideBase begins the range of users that root gives to Sandboxes, one each: above what systems hand out by themselves, and below
// what old programs take for a negative number.
const (
	outsideBase  = 2_000_000_000
	outsideCount = 100_000_000
)

// isolation is how Sandboxes of a Driver are cut off from the host. Immutable.
type isolation struct {
	rooted bool // made with the rights of root; else with those of a new user namespace
	// mapped: by root without the rights to mount, as in a container: in a new user namespace with a user that is not ebb's. As ebb's own it
	// would be root for the kernel, to which settings in /proc belong.
	mapped  bool
	uid     int // the user inside
	gid     int
	keeps   bool // programs keep the rights of their namespaces
	oneUser bool // all Sandboxes are the same user outside
	image   *os.File
	system  system
	staging string // an empty folder, over which each Sandbox mounts its root in its own mount namespace
	etc     string // folder with generated files of /etc
	first   uint32 // user outside of the first Sandbox
	calls   []byte // the filter of system calls
	abi     int    // of Landlock; 0 where the kernel has none

	ipv6     bool
	redirect bool // every connection of a guest can be brought to one place

	connections *capture.Budget // of all guests

	spoil func(steps []byte) // what tests do to lists

	zygotes *zygotes
}

// openIsolation readies what all Sandboxes share, and tries it.
func openIsolation(d *Driver) (*isolation, error) {
	i, err := newIsolation(d)
	if err != nil {
		return nil, err
	}
	i.ipv6 = capture.HasIPv6()
	if err = i.tryNetworks(d); err != nil && i.rooted && !i.keeps {
		i.rooted, i.mapped = false, true
		if i.tryNetworks(d) == nil {
			err = nil
		}
	}
	if err != nil {
		i.close()
		return nil, err
	}
	return i, nil
}

// tryNetworks tries it with every connection brought to one place, and without: perhaps that is all that is denied.
func (i *isolation) tryNetworks(d *Driver) error {
	i.redirect = true
	err := i.try(d)
	if err != nil {
		i.redirect = false
		err = i.try(d)
	}
	return err
}

// newIsolation makes what needs no rights.
func newIsolation(d *Driver) (_ *isolation, err error) {
	dir := d.opts.Dir
	i := &isolation{
		rooted: os.Geteuid() == 0, uid: insideUID, gid: insideGID, keeps: d.opts.Monitors, oneUser: d.opts.OneUser,
		system: findSystem(), staging: filepath.Join(dir, "root"), etc: filepath.Join(dir, "etc"),
	}
	if i.keeps {
		i.uid, i.gid = 0, 0
	}
	defer func() {
		if err != nil {
			i.close()
		}
	}()
	h, seed := fnv.New32a(), d.run
	if i.oneUser {
		seed = d.key
	}
	_, _ = h.Write([]byte(seed))
	i.first = h.Sum32() % outsideCount
	i.abi, i.connections = confine.LandlockABI(), capture.NewBudget(mostConnections())
	if i.calls, err = confine.Seccomp(); err != nil {
		return nil, fmt.Errorf("make the filter of system calls: %w", err)
	}
	if err := os.MkdirAll(i.staging, 0o755); err != nil {
		return nil, err
	}
	if err := writeEtc(i.etc, d.opts.CA, d.opts.Roots, d.opts.Store); err != nil {
		return nil, err
	}
	if len(d.opts.Roots) > 0 {
		i.system.trust(filepath.Join(i.etc, filepath.Base(sandbox.RootsFile)))
	}
	if len(d.opts.Store) > 0 {
		i.system.trustJava(filepath.Join(i.etc, filepath.Base(sandbox.StoreFile)))
	}
	low, err := unix.MemfdCreate("ebb-init", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("hold the helper: %w", err)
	}
	// It is run by its number, in a child whose lowest descriptors are taken for other things by then.
	fd, err := unix.FcntlInt(uintptr(low), unix.F_DUPFD_CLOEXEC, 32)
	_ = unix.Close(low)
	if err != nil {
		return nil, fmt.Errorf("hold the helper: %w", err)
	}
	i.image = os.NewFile(uintptr(fd), "ebb-init")
	if _, err := i.image.Write(helper.Image()); err != nil {
		return nil, fmt.Errorf("hold the helper: %w", err)
	}
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	i.zygotes = newZygotes(d, i)
	return i, nil
}

// mostConnections is how many all guests together have to others: with two descriptors each, half of what this process may open.
func mostConnections() int {
	files := unix.Rlimit{Cur: 1024}
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &files) // can always be asked for
	return int(min(files.Cur, 1<<24)) / 4
}

func (i *isolation) close() {
	if i.image != nil {
		_ = i.image.Close()
	}
}

// separateUsers reports whether each Sandbox has a user of its own outside.
func (i *isolation) separateUsers() bool { return (i.rooted || i.mapped) && !i.oneUser }

// owner is the user outside that all Sandboxes are, -1 where each is another.
func (i *isolation) owner() int {
	if i.separateUsers() {
		return -1
	}
	return int(i.user(0))
}

// templates reports whether guests may come from Templates: programs with rights of their own are run as they are, and a Sandbox of a user
// other than ebb's that root without rights made cannot be entered later.
func (i *isolation) templates() bool { return !i.keeps && !i.mapped }

// landlocked reports whether Landlock is in force.
func (i *isolation) landlocked() bool { rules, _ := confine.Landlock(i.abi); return rules != nil }

// captures reports whether every connection of a guest can be brought to one place.
func (i *isolation) captures() bool { return i.redirect }

// try makes a Sandbox that ends at once.
func (i *isolation) try(d *Driver) error {
	b := &birth{i: i, outside: i.user(0)}
	b.write()
	b.list.Call("say that it runs", unix.SYS_WRITE, helper.Int(helper.ControlFD), b.list.Text(isRunning), helper.Int(1))
	b.list.Call("end", unix.SYS_EXIT_GROUP, helper.Int(0))
	null := d.null.Fd()
	f := &fence{all: d.fences}
	f.mu.dir = -1
	g, _, err := b.start(d, []uintptr{null, null, null}, -1, f)
	if err == nil {
		g.wait()
	}
	return err
}

// addr is where the guest finds the host, or is found; inside.
func (i *isolation) addr(s sandbox.Spec) string {
	switch {
	case listens(s):
		return apiAddr
	case s.Transport == sandbox.Dial:
		return dialAddr
	}
	return ""
}

// own is how many processes in a Sandbox are not the guest's.
func (i *isolation) own(s sandbox.Spec) int {
	if s.Transport == sandbox.Dial {
		return 2
	}
	return 1 + s.Beside
}

// listens reports whether the host listens inside.
func listens(s sandbox.Spec) bool { return s.Transport == sandbox.Listen || s.Beside > 0 }

// start starts the code in a Sandbox of its own; files become 0, 1, 2 and, with a line, 3.
func (i *isolation) start(ctx context.Context, box *box, c sandbox.Code, files []uintptr) (*guest, error) {
	if g, received, plan := i.zygotes.start(ctx, box, c, files); g != nil {
		if err := box.settle(g, plan, received); err != nil {
			return nil, err
		}
		return g, nil
	}
	b := &birth{i: i, spec: box.spec, code: c, box: box, outside: i.user(box.number), plan: i.planOf(box)}
	b.write()
	for n, p := range c.Beside {
		b.accompany(n, p)
	}
	b.run()
	sockets := -1
	if box.spec.Transport == sandbox.Dial {
		fd, err := box.line.askSockets()
		if err != nil {
			return nil, err
		}
		defer func() { _ = unix.Close(fd) }()
		sockets = fd
	}
	g, received, err := b.start(box.d, files, sockets, box.fence)
	var failed *helper.StepError
	switch {
	case errors.As(err, &failed) && strings.HasPrefix(failed.What, "run "), errors.As(err, &failed) && strings.HasPrefix(failed.What, "enter "):
		out := b.outer(besides(c, failed))
		if err := b.hidden(out.Command[0], failed.Errno); err != nil {
			return nil, err
		}
		return nil, explain(out, box.spec.Limits, failed.Errno)
	case err != nil:
		return nil, errs.New(errs.Unavailable, "isolate it: %w", err).WithHint("ebb doctor says what this machine allows.")
	}
	if err := box.settle(g, b.plan, received); err != nil {
		return nil, err
	}
	return g, nil
}

// settle serves the network of a guest that runs with what its helper has sent; a guest whose network cannot be served is ended.
func (b *box) settle(g *guest, plan []capture.Socket, received []*os.File) (err error) {
	if listens(b.spec) {
		err = b.line.take(received[0])
		received = received[1:]
	}
	if err == nil {
		err = b.connect(plan, received)
	}
	if err != nil {
		g.signalGroup(unix.SIGKILL)
		g.wait()
		return fmt.Errorf("serve the network of the sandbox: %w", err)
	}
	return nil
}

// outer is the code with its paths as the host has them, for explanations.
func (b *birth) outer(c sandbox.Code) sandbox.Code {
	out := func(path string) string {
		for _, m := range b.code.Mounts {
			if rest, ok := strings.CutPrefix(path, m.Target); ok && (rest == "" || rest[0] == '/') {
				return m.Source + rest
			}
		}
		return path
	}
	c.Command = append([]string{out(c.Command[0])}, c.Command[1:]...)
	if c.Dir != "" {
		c.Dir = out(c.Dir)
	}
	return c
}

// start starts the helper with the list and follows it until the guest runs. sockets becomes socketsFD unless it is -1.
func (b *birth) start(d *Driver, files []uintptr, sockets int, f *fence) (*guest, []*os.File, error) {
	list, err := b.listFile()
	if err != nil {
		return nil, nil, err
	}
	defer list.Close()
	ctl, theirs, err := newControl(&b.list)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = unix.Close(theirs) }()
	if b.spec.Beside > 0 {
		ctl.tell = b.box.line.tell
	}
	for len(files) < helper.ListFD {
		files = append(files, d.null.Fd())
	}
	files = append(files, list.Fd(), uintptr(theirs))
	if sockets < 0 {
		sockets = int(d.null.Fd())
	}
	// The helper's own file comes last and is run by the number that it has then: any other may be reused in the child before that.
	files = append(files, uintptr(sockets), b.i.image.Fd())
	g, err := d.launcher.start(&order{
		path: "/proc/self/fd/" + strconv.Itoa(len(files)-1), argv: []string{"ebb-init"}, dir: "/", files: files, fence: f, attr: b.attr(),
	})
	if err != nil {
		_ = ctl.conn.Close()
		return nil, nil, fmt.Errorf("make its namespaces: %w", err)
	}
	_ = unix.Close(theirs)
	theirs = -1
	_ = ctl.conn.SetReadDeadline(time.Now().Add(startPatience))
	received, err := ctl.follow(func() error { return b.mapUsers(g.pid) }, b.i.outcomes)
	if most := b.sockets(); err == nil && len(received) != most {
		err = fmt.Errorf("%d descriptors came of %d", len(received), most)
	}
	_ = ctl.conn.SetReadDeadline(time.Time{})
	if err != nil {
		_ = ctl.conn.Close()
		_ = unix.Kill(g.pid, unix.SIGKILL)
		g.wait()
		return nil, nil, err
	}
	g.first = b.i.keeps
	if b.spec.Beside > 0 {
		g.told = b.watch(ctl)
	} else {
		g.told = ctl.running()
	}
	return g, received, nil
}

// sockets is how many the helper sends.
func (b *birth) sockets() int {
	if listens(b.spec) {
		return len(b.plan) + 1
	}
	return len(b.plan)
}

// startPatience bounds how long a helper may take, which needs some milliseconds.
const startPatience = 30 * time.Second

// writeEtc makes the files of /etc that are the same in every Sandbox. The user's home is not there and cannot be made, as on Lambda: what
// fails there for that fails here.
func writeEtc(dir string, ca, roots, store []byte) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	files := map[string]string{
		"passwd":        fmt.Sprintf("root:x:0:0:root:/root:/sbin/nologin\n%s:x:%d:%d::%s:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n", insideName, insideUID, insideGID, insideHome),
		"group":         fmt.Sprintf("root:x:0:\n%s:x:%d:\nnobody:x:65534:\n", insideName, insideGID),
		"hosts":         "127.0.0.1 localhost " + insideHost + "\n::1 localhost\n",
		"hostname":      insideHost + "\n",
		"resolv.conf":   capture.ResolvConf,
		"nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
	}
	if len(roots) > 0 {
		files[filepath.Base(sandbox.CAFile)], files[filepath.Base(sandbox.RootsFile)] = string(ca), string(roots)
	}
	if len(store) > 0 {
		files[filepath.Base(sandbox.StoreFile)] = string(store)
	}
	for name, text := range files {
		tmp := filepath.Join(dir, "."+name)
		if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
			return err
		}
		if err := os.Rename(tmp, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}
