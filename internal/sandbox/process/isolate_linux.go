package process

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
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
		rooted: os.Geteuid() == 0, uid: insideUID, gid: insideGID, keeps: d.opts.Monitors,
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
	h := fnv.New32a()
	_, _ = h.Write([]byte(d.run))
	i.first = h.Sum32() % outsideCount
	i.abi, i.connections = confine.LandlockABI(), capture.NewBudget(mostConnections())
	if i.calls, err = confine.Seccomp(); err != nil {
		return nil, fmt.Errorf("make the filter of system calls: %w", err)
	}
	if err := os.MkdirAll(i.staging, 0o755); err != nil {
		return nil, err
	}
	if err := writeEtc(i.etc); err != nil {
		return nil, err
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
func (i *isolation) separateUsers() bool { return i.rooted || i.mapped }

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
func (i *isolation) start(box *box, c sandbox.Code, files []uintptr) (*guest, error) {
	b := &birth{i: i, spec: box.spec, code: c, box: box, outside: i.user(box.number), plan: i.plan(box.d.opts.Egress, box.spec.Owner)}
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
	if listens(box.spec) {
		err = box.line.take(received[0])
		received = received[1:]
	}
	if err == nil {
		err = box.connect(b.plan, received)
	}
	if err != nil {
		g.signalGroup(unix.SIGKILL)
		g.wait()
		return nil, fmt.Errorf("serve the network of the sandbox: %w", err)
	}
	return g, nil
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
	g.told, g.first = ctl.status, b.i.keeps
	if b.spec.Beside > 0 {
		g.told = b.watch(ctl)
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
func writeEtc(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"passwd":        fmt.Sprintf("root:x:0:0:root:/root:/sbin/nologin\n%s:x:%d:%d::%s:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n", insideName, insideUID, insideGID, insideHome),
		"group":         fmt.Sprintf("root:x:0:\n%s:x:%d:\nnobody:x:65534:\n", insideName, insideGID),
		"hosts":         "127.0.0.1 localhost " + insideHost + "\n::1 localhost\n",
		"hostname":      insideHost + "\n",
		"resolv.conf":   capture.ResolvConf,
		"nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
	} {
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

// birth is one Sandbox's start.
type birth struct {
	i       *isolation
	spec    sandbox.Spec
	code    sandbox.Code
	box     *box   // nil for the trial
	outside uint32 // the user outside
	list    helper.List
	plan    []capture.Socket
	files   func() ([]byte, []confine.Rule) // Landlock's, where there is no root to restrict; else nil
}

// user is the user outside of a Sandbox.
func (i *isolation) user(number int) uint32 {
	if !i.separateUsers() {
		return uint32(os.Getuid())
	}
	return outsideBase + (i.first+uint32(number))%outsideCount
}

// group is the group outside.
func (b *birth) group() int {
	if b.i.separateUsers() {
		return int(b.outside)
	}
	return os.Getgid()
}

// attr is how the helper is started.
func (b *birth) attr() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{
		Setsid: true, Pdeathsig: syscall.SIGKILL,
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
	}
	if !b.i.rooted {
		a.Cloneflags |= unix.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: b.i.uid, HostID: int(b.outside), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: b.i.gid, HostID: b.group(), Size: 1}}
		if b.i.mapped { // the helper stays root until the root is made, of what only root may see
			a.UidMappings = append(a.UidMappings, syscall.SysProcIDMap{ContainerID: 0, HostID: 0, Size: 1})
			a.GidMappings = append(a.GidMappings, syscall.SysProcIDMap{ContainerID: 0, HostID: 0, Size: 1})
			a.GidMappingsEnableSetgroups = true
			return a
		}
		a.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_NET_BIND_SERVICE, unix.CAP_SETPCAP, unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_SYS_RESOURCE}
	}
	return a
}

// write makes out the list, up to where the guest may run.
func (b *birth) write() {
	l := &b.list
	owner := fmt.Sprintf("uid=%d,gid=%d", b.outside, b.outside)
	if !b.i.rooted {
		owner = fmt.Sprintf("uid=%d,gid=%d", b.i.uid, b.i.gid)
	}
	b.i.system.root(l, b.i.staging, b.i.etc, b.needed(), b.spec.Limits.TmpBytes, owner)
	host := l.Text(insideHost)
	l.Call("name the host", unix.SYS_SETHOSTNAME, host, helper.Int(len(insideHost)))
	b.network()
	if b.i.rooted {
		l.Call("leave the host's groups", unix.SYS_SETGROUPS, helper.Int(0), helper.Int(0))
		b.becomeOutside()
		l.Call("make a user namespace", unix.SYS_UNSHARE, helper.Int(unix.CLONE_NEWUSER))
		l.Call("ask for its users", unix.SYS_WRITE, helper.Int(helper.ControlFD), l.Text(askUsers), helper.Int(1))
		b.await("wait for its users")
	}
	if b.i.mapped {
		l.Call("leave the host's groups", unix.SYS_SETGROUPS, helper.Int(0), helper.Int(0))
		l.Call("keep capabilities", unix.SYS_PRCTL, helper.Int(unix.PR_SET_KEEPCAPS), helper.Int(1), helper.Int(0), helper.Int(0), helper.Int(0))
	}
	if b.i.separateUsers() {
		l.Call("become its group", unix.SYS_SETRESGID, helper.Int(b.i.gid), helper.Int(b.i.gid), helper.Int(b.i.gid))
		l.Call("become its user", unix.SYS_SETRESUID, helper.Int(b.i.uid), helper.Int(b.i.uid), helper.Int(b.i.uid))
	}
	if b.i.mapped {
		b.takeUp(1<<unix.CAP_SETPCAP | 1<<unix.CAP_SYS_RESOURCE)
	}
	b.bound()
	b.renounce()
	b.begin()
	if b.spec.Transport == sandbox.Dial {
		b.makeSockets()
	}
}

// setMask is SIG_SETMASK.
const setMask = 2

// socketsFD is the helper's end of the line on which the host asks for sockets.
const socketsFD = helper.ControlFD + 1

// makeSockets forks off what gives the host a socket of this network for each byte that it writes.
func (b *birth) makeSockets() {
	l := &b.list
	l.Fork("fork", unix.SYS_CLONE, []helper.Arg{helper.Int(int(unix.SIGCHLD))}, func() {
		l.Call("close descriptors", unix.SYS_CLOSE_RANGE, helper.Int(0), helper.Int(helper.ListFD), helper.Int(0))
		l.Forever(func() {
			n := l.Call("read", unix.SYS_READ, helper.Int(socketsFD), l.Bytes(make([]byte, 8)), helper.Int(1))
			l.EndIfZero(n)
			fd := l.Call("make a socket", unix.SYS_SOCKET, helper.Int(unix.AF_INET), helper.Int(unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK), helper.Int(0))
			b.send(socketsFD, fd)
			l.Call("close", unix.SYS_CLOSE, fd.Result())
		})
	})
	l.Call("close", unix.SYS_CLOSE, helper.Int(socketsFD))
}

// needed are the mounts that the system's do not contain already.
func (b *birth) needed() []sandbox.Mount {
	var all []sandbox.Mount
	for _, m := range b.code.Mounts {
		shown := false
		for _, s := range b.i.system.mounts {
			shown = shown || m.Source == m.Target && strings.HasPrefix(m.Target, s.Target+"/")
		}
		if !shown {
			all = append(all, m)
		}
	}
	return all
}

// Messages of the helper, one byte each. A failure and the guest's end are longer.
const (
	askUsers  = "u"
	isBeside  = "b" // a program beside the guest runs; answered, as the guest waits for the last
	sendFiles = "f"
	isRunning = "r"
)

// send gives descriptors to the host; unix(7), SCM_RIGHTS.
func (b *birth) send(to int, fds ...helper.Step) {
	l := &b.list
	size := unix.CmsgLen(4 * len(fds))
	cmsg := make([]byte, unix.CmsgSpace(4*len(fds))+8)
	binary.LittleEndian.PutUint64(cmsg, uint64(size))
	binary.LittleEndian.PutUint32(cmsg[8:], unix.SOL_SOCKET)
	binary.LittleEndian.PutUint32(cmsg[12:], unix.SCM_RIGHTS)
	control := l.Bytes(cmsg)
	for n, fd := range fds {
		l.Store32(control.At(unix.CmsgLen(0)+4*n), fd)
	}
	iov := l.Bytes(helper.Int(1).Append(l.Text(sendFiles).Append(nil)))
	var m []byte // struct msghdr: name and length, vector and length, control and length, flags
	m = append(m, words(0, 0)...)
	m = helper.Int(1).Append(iov.Append(m))
	m = helper.Int(size).Append(control.Append(m))
	m = append(m, words(0)...)
	l.Call("send descriptors", unix.SYS_SENDMSG, helper.Int(to), l.Bytes(m), helper.Int(0))
}

// begin keeps the helper from signals, which it waits for in the end, and what it forks off too: a guest that is asked to end can still be
// called while it does.
func (b *birth) begin() {
	l := &b.list
	l.Call("block signals", unix.SYS_RT_SIGPROCMASK, helper.Int(setMask), l.Bytes(helper.Blocked()), helper.Int(0), helper.Int(8))
}

// run starts the guest, and takes in orphans until it has ended. A guest that runs beside others waits for the host's word.
func (b *birth) run() {
	l := &b.list
	isRunning := func() {
		l.Call("say that it runs", unix.SYS_WRITE, helper.Int(helper.ControlFD), l.Text(isRunning), helper.Int(1))
	}
	if b.spec.Beside > 0 {
		isRunning()
		b.await("wait for the host's word")
	}
	last := helper.ListFD
	if b.spec.Transport != sandbox.Stream {
		last--
	}
	main := b.fork(b.code.Command, b.code.Env, b.code.Dir, last)
	if b.spec.Beside == 0 {
		isRunning()
	}
	l.Call("close descriptors", unix.SYS_CLOSE_RANGE, helper.Int(0), helper.Int(helper.ListFD), helper.Int(0))
	l.Try("name the helper", unix.SYS_PRCTL, helper.Int(unix.PR_SET_NAME), l.Text("init"))
	l.Serve(main)
}

// fork starts a program as a session of its own, without the descriptors from last on. The helper waits until it has begun to run, so that
// what failed is known before it says that it runs.
func (b *birth) fork(command, environ []string, dir string, last int) helper.Step {
	l := &b.list
	if dir == "" {
		dir = "/"
	}
	path, argv, env := l.Text(command[0]), l.Texts(command), l.Texts(environ)
	return l.Fork("fork", unix.SYS_CLONE, []helper.Arg{helper.Int(uint64(unix.CLONE_VFORK) | uint64(unix.SIGCHLD))}, func() {
		l.Call("begin a session", unix.SYS_SETSID)
		l.Call("unblock signals", unix.SYS_RT_SIGPROCMASK, helper.Int(setMask), l.Bytes(make([]byte, 8)), helper.Int(0), helper.Int(8))
		l.Call("enter "+dir, unix.SYS_CHDIR, l.Text(dir))
		const closeOnExec = 4 // CLOSE_RANGE_CLOEXEC: a failure can still be told
		l.Call("close descriptors", unix.SYS_CLOSE_RANGE, helper.Int(last), helper.Int(uint64(1)<<32-1), helper.Int(closeOnExec))
		l.Call("run "+command[0], unix.SYS_EXECVE, path, argv, env)
	})
}

// listFile gives the list as a file.
func (b *birth) listFile() (*os.File, error) {
	steps, data, err := b.list.Encode()
	if err != nil {
		return nil, err
	}
	if b.i.spoil != nil {
		b.i.spoil(steps)
	}
	fd, err := unix.MemfdCreate("ebb-list", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("hold the list: %w", err)
	}
	f := os.NewFile(uintptr(fd), "ebb-list")
	_, err = f.WriteAt(steps, 0)
	if _, err2 := f.WriteAt(append(data, 0), helper.DataAt); err2 != nil {
		err = errors.Join(err, err2)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("hold the list: %w", err)
	}
	return f, nil
}
