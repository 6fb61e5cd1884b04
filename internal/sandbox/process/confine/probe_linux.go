package confine

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Probe tries what an isolated Sandbox needs, in children that end at once. Without privileges it tries all of it in a user namespace; with them
// too, as Sandboxes have one then as well, but where there is none the rest is tried without.
func Probe() Host {
	f := readFacts()
	h := Host{Kernel: f.kernel, UID: f.uid, Privileged: f.admin, Container: f.container, LandlockABI: LandlockABI(), Yama: f.yama}
	add := func(name string, o outcome, note string) {
		finding := Finding{Name: name, OK: o.ok(), Error: o.String(), Note: note}
		if !o.ok() {
			finding.Causes = f.causes(name, o)
		}
		h.Findings = append(h.Findings, finding)
	}
	user := inside(0, true).run()
	add(UserNamespace, user, "")
	note := ""
	if !user.ok() && f.admin {
		note = "tried without a user namespace"
	}
	for _, n := range needs {
		switch {
		case user.ok() || f.admin:
			t := inside(n.flags, user.ok())
			if n.steps != nil {
				n.steps(t)
			}
			add(n.name, t.run(), note)
		default:
			add(n.name, user, "needs a user namespace")
		}
	}
	add(NoNewPrivs, noNewPrivs(&trial{}).run(), "")
	add(SeccompFilter, loadFilter(), "")
	add(LandlockRules, restrict(h.LandlockABI), landlockNote(h.LandlockABI))
	h.Mends = f.mends(h.Denied())
	return h
}

// inside is a trial in namespaces, in a user namespace of its own or without one. In it the child is the user that it is outside, by number 0.
func inside(flags uintptr, user bool) *trial {
	t := &trial{flags: flags}
	if !user {
		return t
	}
	t.flags |= unix.CLONE_NEWUSER
	t.write("/proc/self/setgroups", "deny") // user_namespaces(7): without privileges, or no groups can be mapped
	t.write("/proc/self/uid_map", fmt.Sprintf("0 %d 1", os.Geteuid()))
	t.write("/proc/self/gid_map", fmt.Sprintf("0 %d 1", os.Getegid()))
	return t
}

// needs are what is tried beside the user namespace.
var needs = []struct {
	name  string
	flags uintptr
	steps func(*trial)
}{
	{MountNamespace, unix.CLONE_NEWNS, func(t *trial) { private(t) }},
	{PIDNamespace, unix.CLONE_NEWPID, nil},
	{NetNamespace, unix.CLONE_NEWNET, nil},
	{IPCNamespace, unix.CLONE_NEWIPC, nil},
	{UTSNamespace, unix.CLONE_NEWUTS, nil},
	{MountTmpfs, unix.CLONE_NEWNS, func(t *trial) {
		private(t).call("mount tmpfs", unix.SYS_MOUNT, "tmpfs", "/proc", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=4096")
	}},
	{MountProc, unix.CLONE_NEWNS | unix.CLONE_NEWPID, func(t *trial) {
		private(t).call("mount proc", unix.SYS_MOUNT, "proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, 0)
	}},
	{ReadOnlyRoot, unix.CLONE_NEWNS, func(t *trial) {
		attr := binary.LittleEndian.AppendUint64(nil, unix.MOUNT_ATTR_RDONLY) // struct mount_attr: attr_set, and 24 bytes more
		attr = append(attr, make([]byte, 24)...)
		private(t).call("open_tree", unix.SYS_OPEN_TREE, unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
		t.call("mount_setattr", unix.SYS_MOUNT_SETATTR, opened{}, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, attr, len(attr))
	}},
	{NFTables, unix.CLONE_NEWNET, redirect},
}

func private(t *trial) *trial {
	return t.call("make mounts private", unix.SYS_MOUNT, 0, "/", 0, unix.MS_REC|unix.MS_PRIVATE, 0)
}

func noNewPrivs(t *trial) *trial {
	return t.call("no_new_privs", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}

func loadFilter() outcome {
	filter, err := Seccomp()
	if err != nil {
		return outcome{"filter for this architecture", unix.ENOSYS}
	}
	t := &trial{}
	prog := make([]byte, unsafe.Sizeof(unix.SockFprog{}))
	binary.LittleEndian.PutUint16(prog, uint16(len(filter)/insnSize))
	binary.LittleEndian.PutUint64(prog[unsafe.Offsetof(unix.SockFprog{}.Filter):], uint64(t.address(filter)))
	return noNewPrivs(t).call("seccomp", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, prog).run()
}

func restrict(abi int) outcome {
	ruleset, _ := Landlock(abi)
	if ruleset == nil {
		return outcome{"landlock_create_ruleset", unix.ENOSYS}
	}
	t := noNewPrivs(&trial{})
	t.call("landlock_create_ruleset", unix.SYS_LANDLOCK_CREATE_RULESET, ruleset, len(ruleset), 0)
	return t.call("landlock_restrict_self", unix.SYS_LANDLOCK_RESTRICT_SELF, opened{}, 0).run()
}

func landlockNote(abi int) string {
	switch {
	case abi == 0:
		return "not in this kernel, or not in its lsm= list"
	case abi < leastLandlock:
		return "version 1 would break renames between folders"
	case abi < 6:
		return fmt.Sprintf("version %d: signals and abstract sockets are bounded by namespaces alone", abi)
	}
	return fmt.Sprintf("version %d", abi)
}

// facts are what is read rather than tried.
type facts struct {
	kernel     string
	uid        int
	admin      bool
	seccomp    bool   // under a filter
	profile    string // the AppArmor profile that this process is under, "" when none
	restricted bool   // kernel.apparmor_restrict_unprivileged_userns
	noClone    bool   // kernel.unprivileged_userns_clone is 0
	masked     bool   // something is mounted beneath /proc
	yama       int

	landlockOff bool   // built in, but not switched on at boot
	lsm         string // what is switched on
	container   string
	exe         string
}

func readFacts() facts {
	f := facts{uid: os.Geteuid(), yama: -1, container: surroundings(os.Getenv, exists), exe: "/usr/local/bin/ebb"}
	if exe, err := os.Executable(); err == nil && strings.HasSuffix(exe, "/ebb") {
		f.exe = exe
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		f.kernel = unix.ByteSliceToString(u.Release[:])
	}
	for line := range strings.Lines(read("/proc/thread-self/status")) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		switch name {
		case "Seccomp":
			f.seccomp = value == "2" // SECCOMP_MODE_FILTER
		case "CapEff":
			caps, _ := strconv.ParseUint(value, 16, 64)
			f.admin = caps&(1<<unix.CAP_SYS_ADMIN) != 0
		}
	}
	if label, _, _ := strings.Cut(read("/proc/self/attr/current"), " ("); label != "unconfined" && strings.TrimSpace(read("/sys/module/apparmor/parameters/enabled")) == "Y" {
		f.profile = strings.TrimSpace(label)
	}
	f.restricted = read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1"
	f.noClone = read("/proc/sys/kernel/unprivileged_userns_clone") == "0"
	if n, err := strconv.Atoi(read("/proc/sys/kernel/yama/ptrace_scope")); err == nil {
		f.yama = n
	}
	_, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	f.landlockOff, f.lsm = errno == unix.EOPNOTSUPP, read("/sys/kernel/security/lsm")
	for line := range strings.Lines(read("/proc/self/mountinfo")) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], "/proc/") && fields[4] != "/proc/sys/fs/binfmt_misc" {
			f.masked = true
		}
	}
	return f
}

func read(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// surroundings says what this process runs in, as those tell that start it. Variables come first: the files are part of an image, which
// can also be a virtual machine's.
func surroundings(env func(string) string, exists func(path string) bool) string {
	switch {
	case env("KUBERNETES_SERVICE_HOST") != "":
		return "kubernetes"
	case env("container") != "": // systemd's Container Interface
		return env("container")
	case env("SYSTEMD_EXEC_PID") == strconv.Itoa(os.Getpid()): // systemd.exec(5); a child of a unit's has another id
		return "systemd"
	case exists("/run/.containerenv"):
		return "podman"
	case exists("/.dockerenv"):
		return "docker"
	}
	return ""
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
