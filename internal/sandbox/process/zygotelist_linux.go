package process

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"syscall"

	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/sandbox/process/helper"
	"golang.org/x/sys/unix"
)

// A zygote runs the host's own code alone, but a language's runtime is much code, and what is installed for it may run at its start. So it has no
// network, sees the files that a Sandbox has before its code is there, and can have no more rights than its copies need to build their Sandboxes. It
// is not in their pid namespace, so that its copies are processes of the host. The host's files are still in its mount namespace, under its working
// directory, where no path leads but those that begin there: its copies go that way, since the files that they show in their Sandboxes are the host's.

// footing is a sandbox.Footing.
type footing = sandbox.Footing

// free changes how a helper is started to how a zygote is.
func (b *birth) free(a *syscall.SysProcAttr) {
	a.Cloneflags &^= unix.CLONE_NEWPID
}

// needs are the capabilities of a zygote whose host is root: those of a new user namespace, and root's rights to files, for ways to code that lead
// through somebody's own folders.
var needs = []uint64{
	unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_NET_BIND_SERVICE, unix.CAP_SETPCAP, unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_SYS_RESOURCE,
	unix.CAP_DAC_OVERRIDE, unix.CAP_DAC_READ_SEARCH,
}

const zygoteTmp = 1 << 20 // bytes

// writeZygote makes out the list of a zygote's own start.
func (b *birth) writeZygote() {
	l := &b.list
	owner := "uid=0,gid=0"
	if !b.i.rooted {
		owner = fmt.Sprintf("uid=%d,gid=%d", insideUID, insideGID)
	}
	// Mounts that come and go on the host do so here too: none is kept busy, and code may be in new ones.
	l.Call("follow the host's mounts", unix.SYS_MOUNT, helper.Int(0), l.Text("/"), helper.Int(0), helper.Int(unix.MS_REC|unix.MS_SLAVE), helper.Int(0))
	root := l.Call("open the host's root", unix.SYS_OPENAT, helper.Int(at), l.Text("/"), helper.Int(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC), helper.Int(0))
	b.i.system.build(l, b.i.staging, b.i.etc, b.needed(), zygoteTmp, owner, false)
	l.Call("change the root", unix.SYS_PIVOT_ROOT, l.Text("."), l.Text("."))
	l.Call("work in the host's root", unix.SYS_FCHDIR, root.Result()) // which is mounted over the new one, where no absolute path leads to
	l.Call("name the host", unix.SYS_SETHOSTNAME, l.Text(insideHost), helper.Int(len(insideHost)))
	for c := range uint64(lastCap + 1) {
		if b.i.rooted && !slices.Contains(needs, c) {
			l.Try("drop a capability", unix.SYS_PRCTL, helper.Int(unix.PR_CAPBSET_DROP), helper.Int(c), helper.Int(0), helper.Int(0), helper.Int(0))
		}
	}
	for _, p := range [][2]uint64{{unix.PR_SET_NO_NEW_PRIVS, 1}, {unix.PR_SET_PDEATHSIG, uint64(unix.SIGKILL)}} {
		l.Call("bind it", unix.SYS_PRCTL, helper.Int(p[0]), helper.Int(p[1]), helper.Int(0), helper.Int(0), helper.Int(0))
	}
	l.Call("set the umask", unix.SYS_UMASK, helper.Int(0o22))
	l.Call("take its line", unix.SYS_DUP3, helper.Int(3), helper.Int(sandbox.TemplateFD), helper.Int(0)) // the list is mapped by now
	l.Call("close descriptors", unix.SYS_CLOSE, helper.Int(3))
	const closeOnExec = 4
	l.Call("close descriptors", unix.SYS_CLOSE_RANGE, helper.Int(helper.ControlFD), helper.Int(helper.ControlFD), helper.Int(closeOnExec))
	l.Call("close descriptors", unix.SYS_CLOSE_RANGE, helper.Int(sandbox.EntryFD+1), helper.Int(uint64(1)<<32-1), helper.Int(closeOnExec))
	l.Call("say that it runs", unix.SYS_WRITE, helper.Int(helper.ControlFD), l.Text(isRunning), helper.Int(1))
	l.Call("run "+b.code.Command[0], unix.SYS_EXECVE, l.Text(b.code.Command[0]), l.Texts(b.code.Command), l.Texts(b.code.Env))
}

// What comes with an Assignment, in this order, as descriptors from sandbox.CopyFD on; then the files by which it joins cgroups.
const (
	givenList = sandbox.CopyFD + iota
	givenNull
	givenOutput
	givenLine
	givenControl
	givenMore // what it waits on as a Template, if it does
)

// writeCopy makes out the list that a zygote calls the program with, for one copy. joins is how many version 1 cgroups it joins; tree says that
// there is one of version 2 to be born in.
func (b *birth) writeCopy(joins int, tree bool) {
	l := &b.list
	first := givenMore
	if b.template {
		first++
	}
	args := make([]uint64, 11) // struct clone_args
	// Its parent is that of the zygote, which waits for it as for any other guest.
	args[0] = unix.CLONE_PARENT | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS
	if tree {
		args[0] |= unix.CLONE_INTO_CGROUP
		args[10] = uint64(first + joins)
	}
	clone := l.Try("make its namespaces", unix.SYS_CLONE3, l.Bytes(words(args...)), helper.Int(8*len(args)))
	l.IfZero(clone, func() {
		l.Try("take the control line", unix.SYS_DUP3, helper.Int(givenControl), helper.Int(helper.ControlFD), helper.Int(0))
		l.Call("end with the host", unix.SYS_PRCTL, helper.Int(unix.PR_SET_PDEATHSIG), helper.Int(uint64(unix.SIGKILL)), helper.Int(0), helper.Int(0), helper.Int(0))
		for n := range joins {
			l.Call("enter cgroup", unix.SYS_WRITE, helper.Int(first+n), l.Text("0"), helper.Int(1))
		}
		for to, from := range []int{givenNull, givenOutput, givenOutput, givenLine} {
			l.Call("take descriptors", unix.SYS_DUP3, helper.Int(from), helper.Int(to), helper.Int(0))
		}
		l.Call("close descriptors", unix.SYS_CLOSE_RANGE, helper.Int(helper.ListFD), helper.Int(helper.ListFD), helper.Int(0))
		if b.template {
			l.Call("take the template's line", unix.SYS_DUP3, helper.Int(givenMore), helper.Int(sandbox.TemplateFD), helper.Int(0))
		}
		l.Call("close descriptors", unix.SYS_CLOSE_RANGE, helper.Int(helper.ControlFD+1), helper.Int(uint64(1)<<32-1), helper.Int(0))
		l.Call("return to the host's root", unix.SYS_PIVOT_ROOT, l.Text("."), l.Text("."))
		l.Call("leave the zygote's root", unix.SYS_UMOUNT2, l.Text("."), helper.Int(unix.MNT_DETACH))
		b.write()
		b.run()
	})
	// A new network takes the kernel longest. So the copy has the zygote's, which nobody has used, and the zygote makes itself another one while the
	// copy goes on. It makes no further copy before that, and ends when it cannot.
	l.Call("take another network", unix.SYS_UNSHARE, helper.Int(unix.CLONE_NEWNET|unix.CLONE_NEWIPC))
	l.Return(clone.Result())
}

// part takes a copy out of what it shares with others: the zygote's user namespace where the host is not root, and its process group. Until here the
// host may not know its number. Where it never will it has closed the control line.
func (b *birth) part() {
	l := &b.list
	if !b.i.rooted {
		l.Call("make a user namespace", unix.SYS_UNSHARE, helper.Int(unix.CLONE_NEWUSER))
		for _, f := range [][2]string{{"setgroups", "deny"}, {"uid_map", mapInside(insideUID)}, {"gid_map", mapInside(insideGID)}} {
			fd := l.Call("open "+f[0], unix.SYS_OPENAT, helper.Int(at), l.Text("/proc/self/"+f[0]), helper.Int(unix.O_WRONLY|unix.O_CLOEXEC), helper.Int(0))
			l.Call("write "+f[0], unix.SYS_WRITE, fd.Result(), l.Text(f[1]), helper.Int(len(f[1])))
			l.Call("close", unix.SYS_CLOSE, fd.Result())
		}
	}
	if !b.i.rooted { // else it has waited for its users
		l.EndIfZero(l.Call("wait for the host's word", unix.SYS_READ, helper.Int(helper.ControlFD), l.Bytes(make([]byte, 8)), helper.Int(1)))
	}
	l.Call("begin a session", unix.SYS_SETSID)
}

func mapInside(id int) string { return strconv.Itoa(id) + " " + strconv.Itoa(id) + " 1" }

// runCopy is run for a copy: what becomes the guest returns to the zygote's code.
func (b *birth) runCopy() {
	l := &b.list
	dir := b.code.Dir
	if dir == "" {
		dir = "/"
	}
	l.Call("enter "+dir, unix.SYS_CHDIR, l.Text(dir)) // here, where a failure can still be told
	last := helper.ListFD
	if b.template {
		last = sandbox.TemplateFD + 1
	}
	const flags = uint64(unix.CLONE_CHILD_SETTID) | unix.CLONE_CHILD_CLEARTID | uint64(unix.SIGCHLD)
	args := []helper.Arg{helper.Int(flags), helper.Int(0), helper.Int(0), helper.Int(b.copied.TID), helper.Int(0)}
	if runtime.GOARCH != "amd64" {
		args[3], args[4] = args[4], args[3] // clone(2), "C library/kernel differences"
	}
	// Before anybody can see another name; the guest has the zygote's.
	own := l.Bytes(make([]byte, 16))
	l.Try("read the name", unix.SYS_PRCTL, helper.Int(unix.PR_GET_NAME), own)
	l.Try("name the helper", unix.SYS_PRCTL, helper.Int(unix.PR_SET_NAME), l.Text("init"))
	main := l.Fork("fork", unix.SYS_CLONE, args, func() {
		l.Try("name the guest", unix.SYS_PRCTL, helper.Int(unix.PR_SET_NAME), own)
		l.Call("begin a session", unix.SYS_SETSID)
		l.Call("unblock signals", unix.SYS_RT_SIGPROCMASK, helper.Int(setMask), l.Bytes(make([]byte, 8)), helper.Int(0), helper.Int(8))
		l.Call("be what execve makes", unix.SYS_PRCTL, helper.Int(unix.PR_SET_DUMPABLE), helper.Int(1), helper.Int(0), helper.Int(0), helper.Int(0))
		l.Call("close descriptors", unix.SYS_CLOSE_RANGE, helper.Int(last), helper.Int(uint64(1)<<32-1), helper.Int(0))
		l.Return(helper.Int(0))
	})
	l.Call("say that it runs", unix.SYS_WRITE, helper.Int(helper.ControlFD), l.Text(isRunning), helper.Int(1))
	l.Call("close descriptors", unix.SYS_CLOSE_RANGE, helper.Int(0), helper.Int(helper.ListFD), helper.Int(0))
	l.Call("leave "+dir, unix.SYS_CHDIR, l.Text("/"))
	b.shed()
	l.Serve(main)
}

// shed has process 1 let go of the zygote's memory, of which it would keep a page for each that the guest changes. It keeps the program with its list,
// and what is around the thread's number: the kernel writes to the C library's area for restartable sequences there, rseq(2).
func (b *birth) shed() {
	const (
		program = 64 << 10 // with its list
		around  = 32 << 10
		page    = 64 << 10 // the largest
	)
	top := uint64(1) << 48
	if runtime.GOARCH == "amd64" {
		top = 1<<47 - 4<<10
	}
	thread := b.copied.TID &^ (page - 1)
	kept := [][2]uint64{{b.copied.At, b.copied.At + helper.Room + program}, {thread - around, thread + page + around}}
	slices.SortFunc(kept, func(x, y [2]uint64) int { return cmp.Compare(x[0], y[0]) })
	from := uint64(page)
	for _, k := range append(kept, [2]uint64{top, top}) {
		if k[0] > from {
			b.list.Try("let memory go", unix.SYS_MUNMAP, helper.Int(from), helper.Int(k[0]-from))
		}
		from = max(from, k[1])
	}
}

// socketpairOf gives the host's end of a line and the other.
func socketpairOf(kind int) (*net.UnixConn, int, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, -1, err
	}
	f := os.NewFile(uintptr(fds[0]), "line")
	c, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		_ = unix.Close(fds[1])
		return nil, -1, err
	}
	return c.(*net.UnixConn), fds[1], nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}
