package process

import (
	"encoding/binary"
	"strconv"

	"github.com/ebb-run/ebb/internal/sandbox/process/confine"
	"github.com/ebb-run/ebb/internal/sandbox/process/helper"
	"golang.org/x/sys/unix"
)

// becomeOutside makes the helper the Sandbox's user outside, so that the user namespace is that one's and not root's. What the kernel
// counts by user (inotify instances, queued signals and timers, message queues, locked memory) it counts for who made the namespace too,
// and one guest could take all that root has.
func (b *birth) becomeOutside() {
	l := &b.list
	l.Call("keep capabilities", unix.SYS_PRCTL, helper.Int(unix.PR_SET_KEEPCAPS), helper.Int(1), helper.Int(0), helper.Int(0), helper.Int(0))
	l.Call("become the group outside", unix.SYS_SETRESGID, helper.Int(b.outside), helper.Int(b.outside), helper.Int(b.outside))
	l.Call("become the user outside", unix.SYS_SETRESUID, helper.Int(b.outside), helper.Int(b.outside), helper.Int(b.outside))
	b.takeUp(1 << unix.CAP_SYS_ADMIN) // some kernels want it for user namespaces
}

// takeUp makes some of the capabilities that were kept effective, and lets go of the others.
func (b *birth) takeUp(set uint32) {
	l := &b.list
	head := binary.LittleEndian.AppendUint32(nil, unix.LINUX_CAPABILITY_VERSION_3)
	caps := binary.LittleEndian.AppendUint32(nil, set) // effective; permitted follows
	caps = append(append(caps, caps...), make([]byte, 16)...)
	l.Call("take up capabilities", unix.SYS_CAPSET, l.Bytes(binary.LittleEndian.AppendUint32(head, 0)), l.Bytes(caps))
}

// Bounds on what the kernel counts by user, for one Sandbox. Where ebb is not root, all Sandboxes and ebb are one user for the kernel,
// which has 128 inotify instances by default.
const (
	mostInotify = 32
	mostSignals = 1024      // queued, and timers
	mostQueued  = 256 << 10 // bytes in POSIX message queues
)

// bound bounds what the kernel counts by user. Older kernels have no such setting.
func (b *birth) bound() {
	l := &b.list
	text := strconv.Itoa(mostInotify)
	fd := l.Try("find the bound of inotify", unix.SYS_OPENAT, helper.Int(at), l.Text("/proc/sys/user/max_inotify_instances"), helper.Int(unix.O_WRONLY|unix.O_CLOEXEC), helper.Int(0))
	l.Try("bound inotify", unix.SYS_WRITE, fd.Result(), l.Text(text), helper.Int(len(text)))
	l.Try("close", unix.SYS_CLOSE, fd.Result())
}

// lastCap is beyond the highest capability that kernels know.
const lastCap = 63

// renounce gives up all rights for good. A monitor keeps those of its namespaces, which begin where a guest's end.
func (b *birth) renounce() {
	l := &b.list
	if b.i.keeps {
		l.Call("hide from others", unix.SYS_PRCTL, helper.Int(unix.PR_SET_DUMPABLE), helper.Int(0), helper.Int(0), helper.Int(0), helper.Int(0))
		l.Call("end with the host", unix.SYS_PRCTL, helper.Int(unix.PR_SET_PDEATHSIG), helper.Int(uint64(unix.SIGKILL)), helper.Int(0), helper.Int(0), helper.Int(0))
		l.Try("limit a resource", unix.SYS_PRLIMIT64, helper.Int(0), helper.Int(unix.RLIMIT_CORE), l.Bytes(words(1, 1)), helper.Int(0))
		l.Call("set the umask", unix.SYS_UMASK, helper.Int(0o22))
		return
	}
	prctl := func(what string, args ...uint64) {
		a := []helper.Arg{}
		for _, v := range args {
			a = append(a, helper.Int(v))
		}
		l.Call(what, unix.SYS_PRCTL, append(a, helper.Int(0), helper.Int(0), helper.Int(0))[:5]...)
	}
	for c := range uint64(lastCap + 1) {
		l.Try("drop a capability", unix.SYS_PRCTL, helper.Int(unix.PR_CAPBSET_DROP), helper.Int(c), helper.Int(0), helper.Int(0), helper.Int(0))
	}
	l.Try("drop ambient capabilities", unix.SYS_PRCTL, helper.Int(unix.PR_CAP_AMBIENT), helper.Int(unix.PR_CAP_AMBIENT_CLEAR_ALL), helper.Int(0), helper.Int(0), helper.Int(0))
	head := binary.LittleEndian.AppendUint32(nil, unix.LINUX_CAPABILITY_VERSION_3)
	l.Call("drop all capabilities", unix.SYS_CAPSET, l.Bytes(binary.LittleEndian.AppendUint32(head, 0)), l.Bytes(make([]byte, 24)))
	prctl("forbid new privileges", unix.PR_SET_NO_NEW_PRIVS, 1)
	// The guest is the same user: without this it could read and write the helper's memory, and with that fake its own end. Where the user
	// changed the kernel has done it already. Ends with execve.
	prctl("hide from the guest", unix.PR_SET_DUMPABLE, 0)
	prctl("end with the host", unix.PR_SET_PDEATHSIG, uint64(unix.SIGKILL)) // forgotten when the user changed
	for _, r := range [][3]uint64{
		// A limit of 0 keeps cores from files, but not from the host's crash handler; 1 does from both (core(5), and do_coredump).
		{unix.RLIMIT_CORE, 1, 1}, {unix.RLIMIT_NOFILE, 1024, 1024}, {unix.RLIMIT_MEMLOCK, 64 << 10, 64 << 10},
		{unix.RLIMIT_SIGPENDING, mostSignals, mostSignals}, {unix.RLIMIT_MSGQUEUE, mostQueued, mostQueued},
	} {
		l.Try("limit a resource", unix.SYS_PRLIMIT64, helper.Int(0), helper.Int(r[0]), l.Bytes(words(r[1], r[2])), helper.Int(0))
	}
	l.Call("set the umask", unix.SYS_UMASK, helper.Int(0o22))
	b.landlock()
	filter := binary.LittleEndian.AppendUint64(nil, uint64(len(b.i.calls)/8)) // struct sock_fprog
	filter = l.Bytes(b.i.calls).Append(filter)
	l.Call("filter system calls", unix.SYS_SECCOMP, helper.Int(unix.SECCOMP_SET_MODE_FILTER), helper.Int(0), l.Bytes(filter))
}

// landlock restricts files once more, also where a mount should be left writable. A rule that cannot be made allows nothing.
func (b *birth) landlock() {
	l := &b.list
	var writable []string
	for _, m := range b.code.Mounts {
		if m.Writable {
			writable = append(writable, m.Target)
		}
	}
	attr, rules := confine.Landlock(b.i.abi, writable...)
	if b.files != nil {
		attr, rules = b.files()
	}
	if attr == nil {
		return
	}
	set := l.Call("make Landlock's rules", unix.SYS_LANDLOCK_CREATE_RULESET, l.Bytes(attr), helper.Int(len(attr)), helper.Int(0))
	for _, r := range rules {
		rule := l.Bytes(append(r.Attr, make([]byte, 4)...))
		fd := l.Try("open "+r.Path, unix.SYS_OPENAT, helper.Int(at), l.Text(r.Path), helper.Int(unix.O_PATH|unix.O_CLOEXEC), helper.Int(0))
		l.Store32(rule.At(confine.RuleFD), fd)
		l.Try("allow "+r.Path, unix.SYS_LANDLOCK_ADD_RULE, set.Result(), helper.Int(unix.LANDLOCK_RULE_PATH_BENEATH), rule, helper.Int(0))
		l.Try("close", unix.SYS_CLOSE, fd.Result())
	}
	l.Call("restrict files", unix.SYS_LANDLOCK_RESTRICT_SELF, set.Result(), helper.Int(0))
	l.Call("close", unix.SYS_CLOSE, set.Result())
}
