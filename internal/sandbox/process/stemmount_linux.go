package process

import (
	"fmt"
	"os"
	"runtime"
	"strconv"

	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/sandbox/process/helper"
	"golang.org/x/sys/unix"
)

// Mounting in a Sandbox that runs. Its own processes have no right to it, and nothing of the host is there to be mounted. So who mounts
// comes from outside, with a copy of the mount in hand: a thread of the host, where that is root; else a process that takes on the
// Sandbox's user namespace, which is this user's.

// namespaces are a Sandbox's, held open.
type namespaces struct {
	user, mnt int // -1 where it is not held
}

var noNamespaces = namespaces{user: -1, mnt: -1}

// openNamespaces opens those of a Sandbox by its helper, and by the process in whose user namespace its mounts were made.
func openNamespaces(pid, owner int, rooted bool) (namespaces, error) {
	n := noNamespaces
	of := func(pid int, kind string) string { return "/proc/" + strconv.Itoa(pid) + "/ns/" + kind }
	var err error
	if n.mnt, err = unix.Open(of(pid, "mnt"), unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		n.mnt = -1
		return n, fmt.Errorf("open its mounts: %w", err)
	}
	if rooted {
		return n, nil
	}
	if n.user, err = unix.Open(of(owner, "user"), unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		n.user = -1
		return n, fmt.Errorf("open its users: %w", err)
	}
	return n, nil
}

func (n *namespaces) close() {
	for _, fd := range []*int{&n.user, &n.mnt} {
		if *fd >= 0 {
			_ = unix.Close(*fd)
		}
		*fd = -1
	}
}

// mount shows folders of the host inside, as the Sandbox's own list would have.
func (n namespaces) mount(d *Driver, all []sandbox.Mount) error {
	switch {
	case len(all) == 0:
		return nil
	case n.user >= 0:
		return n.mountAsOwner(d, all)
	}
	var trees []int
	defer func() {
		for _, fd := range trees {
			_ = unix.Close(fd)
		}
	}()
	attr := &unix.MountAttr{Attr_set: readOnly, Propagation: unix.MS_PRIVATE}
	for _, m := range all {
		fd, err := unix.OpenTree(unix.AT_FDCWD, m.Source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
		if err != nil {
			return fmt.Errorf("copy %s: %w", m.Source, err)
		}
		trees = append(trees, fd)
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, attr); err != nil {
			return fmt.Errorf("restrict %s: %w", m.Source, err)
		}
	}
	return within(n.mnt, func() error {
		for i, m := range all {
			if err := unix.MoveMount(trees[i], "", unix.AT_FDCWD, m.Target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
				return fmt.Errorf("show %s at %s: %w", m.Source, m.Target, err)
			}
		}
		return nil
	})
}

// within does something on a thread that is in a mount namespace, and ends the thread. That must not be the process's first, by whose
// mounts the whole process is judged.
func within(mnt int, do func() error) error {
	done := make(chan error, 1)
	go enter(mnt, do, done)
	return <-done
}

func enter(mnt int, do func() error, done chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		over := make(chan struct{})
		go func() {
			defer close(over)
			enter(mnt, do, done)
		}()
		<-over // the other one cannot be on this thread as long as it is held here
		runtime.UnlockOSThread()
		return
	}
	// Never unlocked: the thread ends with this goroutine.
	err := unix.Unshare(unix.CLONE_FS)
	if err == nil {
		err = unix.Setns(mnt, unix.CLONE_NEWNS)
	}
	if err == nil {
		err = do()
	}
	done <- err
}

// mountAsOwner mounts by a helper, which is alone in its process as who changes its user namespace has to be.
func (n namespaces) mountAsOwner(d *Driver, all []sandbox.Mount) error {
	b := &birth{i: d.iso, outside: uint32(os.Getuid()), apart: true}
	l := &b.list
	const mnt, user = helper.ListFD - 1, socketsFD
	l.Call("enter its users", unix.SYS_SETNS, helper.Int(user), helper.Int(unix.CLONE_NEWUSER))
	l.Call("make a mount namespace", unix.SYS_UNSHARE, helper.Int(unix.CLONE_NEWNS))
	attr := l.Bytes(words(readOnly, 0, unix.MS_PRIVATE, 0))
	var trees []helper.Step
	for _, m := range all {
		fd := l.Call("copy "+m.Source, unix.SYS_OPEN_TREE, helper.Int(at), l.Text(m.Source), helper.Int(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE))
		l.Call("restrict "+m.Source, unix.SYS_MOUNT_SETATTR, fd.Result(), l.Text(""), helper.Int(unix.AT_EMPTY_PATH|unix.AT_RECURSIVE), attr, helper.Int(32))
		trees = append(trees, fd)
	}
	l.Call("enter its mounts", unix.SYS_SETNS, helper.Int(mnt), helper.Int(unix.CLONE_NEWNS))
	for i, m := range all {
		l.Call("show "+m.Source+" at "+m.Target, unix.SYS_MOVE_MOUNT, trees[i].Result(), l.Text(""), helper.Int(at), l.Text(m.Target), helper.Int(unix.MOVE_MOUNT_F_EMPTY_PATH))
	}
	l.Call("say that it is done", unix.SYS_WRITE, helper.Int(helper.ControlFD), l.Text(isRunning), helper.Int(1))
	l.Call("end", unix.SYS_EXIT_GROUP, helper.Int(0))
	f := &fence{all: d.fences}
	f.mu.dir = -1
	null := d.null.Fd()
	g, _, err := b.start(d, []uintptr{null, null, null, uintptr(n.mnt)}, n.user, f)
	if err != nil {
		return err
	}
	g.wait()
	return nil
}
