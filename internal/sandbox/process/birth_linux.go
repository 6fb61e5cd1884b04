package process

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/sandbox/process/capture"
	"github.com/ebb-run/ebb/internal/sandbox/process/confine"
	"github.com/ebb-run/ebb/internal/sandbox/process/helper"
	"golang.org/x/sys/unix"
)

// birth is one Sandbox's start.
type birth struct {
	i       *isolation
	spec    sandbox.Spec
	code    sandbox.Code
	box     *box   // nil for the trial, and where a Template waits
	outside uint32 // the user outside
	list    helper.List
	plan    []capture.Socket
	copied  *footing // of the process that the guest is a copy of; nil where it is executed
	zygote  bool     // what is born is one that makes copies

	template bool                            // what runs is a Template, which finds the host's line at socketsFD as TemplateFD
	late     []string                        // folders on which something is mounted later
	apart    bool                            // no namespaces are made
	files    func() ([]byte, []confine.Rule) // Landlock's, where there is no root to restrict; else nil
}

// user is the user outside of a Sandbox.
func (i *isolation) user(number int) uint32 {
	switch {
	case !i.rooted && !i.mapped:
		return uint32(os.Getuid())
	case i.oneUser:
		number = 0
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
	if b.apart {
		a.Cloneflags = 0
		return a
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
	if b.zygote {
		b.free(a)
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
	if b.copied != nil {
		b.part()
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
			shown = shown || !m.Writable && m.Source == m.Target && strings.HasPrefix(m.Target, s.Target+"/")
		}
		if !shown {
			all = append(all, m)
		}
	}
	for _, target := range b.late {
		all = append(all, sandbox.Mount{Target: target})
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
	if b.copied != nil {
		b.runCopy()
		return
	}
	last := helper.ListFD
	if b.spec.Transport != sandbox.Stream {
		last--
	}
	l.Try("name the helper", unix.SYS_PRCTL, helper.Int(unix.PR_SET_NAME), l.Text("init")) // before anybody can see another name
	main := b.fork(b.code.Command, b.code.Env, b.code.Dir, last)
	if b.spec.Beside == 0 {
		isRunning()
	}
	l.Call("close descriptors", unix.SYS_CLOSE_RANGE, helper.Int(0), helper.Int(helper.ListFD), helper.Int(0))
	if b.template {
		l.Call("close the template's line", unix.SYS_CLOSE, helper.Int(socketsFD))
	}
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
		if b.template {
			l.Call("place the template's line", unix.SYS_DUP3, helper.Int(socketsFD), helper.Int(sandbox.TemplateFD), helper.Int(0))
			last = sandbox.TemplateFD + 1
		}
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
