package sandboxtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attacks are the programs of hostile guests. None does harm when it succeeds, but for those of rows that are not shown where they do not hold.
func attacks() map[string]func(r *report, token string, args []string) {
	return map[string]func(r *report, token string, args []string){
		"bomb": attackBomb, "descriptors": attackDescriptors, "disk": attackDisk, "shm": attackShm, "memfd": attackMemfd,
		"paths": attackPaths, "proc": attackProc, "ptrace": attackPtrace, "mounts": attackMounts, "system": attackSystem,
		"devices": attackDevices, "privileges": attackPrivileges, "keys": attackKeys, "terminal": attackTerminal, "signals": attackSignals,
		"scheduling": attackScheduling, "kernel": attackKernel, "core": attackCore, "mountinfo": attackMountinfo, "figures": attackFigures,
		"sockets": attackSockets, "network": attackNetwork, "dials": attackDials,
		"victim": beVictim, "neighbour": attackNeighbour, "fill": attackFill, "needs": attackNeeds, "link": attackLink,
	}
}

// attackBomb forks until it cannot, each child too, without end.
func attackBomb(r *report, token string, _ []string) {
	for range 4 {
		if err := again(token, &syscall.SysProcAttr{Setsid: true}, "bomb").Start(); err != nil {
			break
		}
	}
	r.say("tried", "fork")
	fmt.Println("lit")
}

func attackDescriptors(r *report, _ string, _ []string) {
	var l syscall.Rlimit
	must(syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l))
	err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 1 << 20, Max: 1 << 20})
	r.refused(err, "raise the limit of descriptors from %d", l.Max)
	n := 0
	var all []int
	for ; n < 1<<16; n++ {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			break
		}
		all = append(all, fd)
	}
	r.holds(n <= 1024, "open %d descriptors", n)
	for _, fd := range all {
		_ = unix.Close(fd)
	}
}

// fill writes to a file until it cannot or there is too much, and gives how much there is.
func fill(path string, most int64) int64 {
	f, err := os.Create(path)
	must(err)
	defer os.Remove(path)
	defer f.Close()
	b := make([]byte, 1<<18)
	var n int64
	for n < most {
		k, err := f.Write(b)
		n += int64(k)
		if err != nil {
			break
		}
	}
	return n
}

// attackDisk fills the temp folder of so many bytes, and its table of files.
func attackDisk(r *report, _ string, args []string) {
	limit := int64(number(args[0]))
	n := fill(filepath.Join(home(), "big"), limit+4<<20)
	r.holds(n <= limit, "write %d bytes to a temp folder of %d", n, limit)
	files(r, home(), 6000, int(max(1024, limit/4096)))
}

func files(r *report, dir string, most, limit int) {
	n := 0
	for ; n < most; n++ {
		if os.WriteFile(filepath.Join(dir, "f"+strconv.Itoa(n)), nil, 0o600) != nil {
			break
		}
	}
	r.holds(n <= limit, "make %d files in %s", n, dir)
	for i := range n {
		_ = os.Remove(filepath.Join(dir, "f"+strconv.Itoa(i)))
	}
}

func attackShm(r *report, _ string, _ []string) {
	const limit = 64 << 20
	if err := os.Mkdir("/dev/shm/"+strconv.Itoa(os.Getpid()), 0o700); errors.Is(err, fs.ErrPermission) {
		r.say("tried", "write to /dev/shm")
		return
	}
	n := fill("/dev/shm/big-"+strconv.Itoa(os.Getpid()), limit+4<<20)
	r.holds(n <= limit, "write %d bytes to /dev/shm", n)
}

// attackMemfd holds memory that is in no process: files without a name.
func attackMemfd(r *report, _ string, args []string) {
	fd, err := unix.MemfdCreate("hog", unix.MFD_CLOEXEC)
	must(err)
	f := os.NewFile(uintptr(fd), "hog")
	b := make([]byte, 1<<20)
	megabytes := number(args[0])
	for i := range megabytes {
		if _, err := f.Write(b); err != nil {
			r.say("tried", "%d MB", i)
			return
		}
	}
	r.holds(false, "hold %d MB in files in memory", megabytes)
}

// attackPaths looks for a file of the host by every path there is.
func attackPaths(r *report, _ string, args []string) {
	path, secret := args[0], unveiled(args[1])
	try := func(p string) {
		text, err := os.ReadFile(p)
		r.holds(err != nil || !strings.Contains(string(text), secret), "read %s: %v", p, err)
	}
	try(path)
	try(strings.Repeat("../", 40) + path)
	link := filepath.Join(home(), "link")
	for _, to := range []string{path, "/proc/1/root" + path, "/proc/self/root/../.." + path} {
		_ = os.Remove(link)
		must(os.Symlink(to, link))
		try(link)
	}
	_ = os.Remove(link)
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	dirs = append(dirs, "/proc/self", "/proc/thread-self")
	for _, d := range dirs {
		try(d + "/root" + path)
		try(d + "/root/.." + path)
		try(d + "/cwd/" + strings.Repeat("../", 40) + path)
		fds, _ := filepath.Glob(d + "/fd/*")
		for _, fd := range fds {
			if info, err := os.Stat(fd); err == nil && info.IsDir() {
				try(fd + "/" + strings.Repeat("../", 40) + path)
			}
		}
	}
	// From a folder that is left: the classic way out of chroot.
	d, err := os.Open("/")
	if errors.Is(err, fs.ErrPermission) {
		return // there is none for this guest
	}
	must(err)
	defer d.Close()
	sub := filepath.Join(home(), "sub")
	must(os.MkdirAll(sub, 0o700))
	r.refused(unix.Chroot(sub), "chroot")
	for range 40 {
		_ = os.Chdir("..")
	}
	try(strings.TrimPrefix(path, "/"))
	fd, err := unix.Openat(int(d.Fd()), strings.Repeat("../", 40)+path, unix.O_RDONLY, 0)
	r.refused(err, "openat from the root")
	if err == nil {
		_ = unix.Close(fd)
	}
}

// writable tries to open for writing, and writes nothing.
func writable(r *report, paths ...string) {
	for _, p := range paths {
		fd, err := unix.Open(p, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		r.refused(err, "open %s for writing", p)
		if err == nil {
			_ = unix.Close(fd)
		}
	}
}

func attackProc(r *report, _ string, _ []string) {
	writable(r, "/proc/sysrq-trigger", "/proc/1/mem", "/proc/self/oom_score_adj", "/proc/1/oom_score_adj", "/proc/self/uid_map", "/proc/self/gid_map",
		"/proc/self/setgroups", "/proc/self/loginuid", "/proc/self/attr/current", "/proc/self/mem", "/proc/mtrr", "/proc/acpi/wakeup", "/proc/irq/default_smp_affinity")
	tried := 0
	_ = filepath.WalkDir("/proc/sys", func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return nil
		}
		tried++
		if fd, err := unix.Open(p, unix.O_WRONLY|unix.O_CLOEXEC, 0); err == nil {
			_ = unix.Close(fd)
			r.holds(false, "open %s for writing", p)
		}
		return nil
	})
	r.holds(tried > 0, "open %d files of /proc/sys for writing", tried)
	for _, p := range []string{"/proc/kcore", "/proc/kmsg", "/proc/kpagecount", "/proc/kpageflags", "/proc/vmallocinfo", "/proc/slabinfo", "/proc/1/mem", "/proc/1/environ", "/proc/1/maps", "/proc/1/stack", "/proc/1/auxv"} {
		text, err := readSome(p)
		r.holds(err != nil || len(text) == 0, "read %s", p)
	}
	for _, p := range []string{"/proc/kallsyms", "/proc/modules"} {
		text, _ := readSome(p)
		r.holds(!kernelAddress(string(text)), "read addresses of the kernel in %s", p)
	}
	for _, p := range []string{"/sys", "/sys/kernel/debug", "/sys/fs/cgroup", "/run", "/home", "/root", "/boot", "/mnt", "/media"} {
		e, err := os.ReadDir(p)
		r.holds(err != nil || len(e) == 0, "list %s", p)
	}
}

func readSome(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	b := make([]byte, 1<<16)
	n, err := unix.Read(fd, b)
	return b[:max(n, 0)], err
}

func kernelAddress(text string) bool {
	return slices.ContainsFunc(strings.Fields(text), func(w string) bool {
		w = strings.TrimPrefix(w, "0x")
		n, err := strconv.ParseUint(w, 16, 64)
		return err == nil && len(w) == 16 && n != 0
	})
}

func attackPtrace(r *report, token string, _ []string) {
	child := again(token, nil, "sleep")
	must(child.Start())
	pid := child.Process.Pid
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	for _, p := range []int{1, pid} {
		r.refused(unix.PtraceAttach(p), "ptrace process %d", p)
		r.refused(unix.PtraceSeize(p), "seize process %d", p)
		b := make([]byte, 8)
		_, err := unix.ProcessVMReadv(p, []unix.Iovec{{Base: &b[0], Len: 8}}, []unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(&b[0])), Len: 8}}, 0)
		r.holds(errors.Is(err, unix.EPERM), "process_vm_readv of process %d: %v", p, err)
		if fd, err := unix.PidfdOpen(p, 0); err == nil {
			_, err := unix.PidfdGetfd(fd, 0, 0)
			r.refused(err, "take a descriptor of process %d", p)
			r.refused(unix.Setns(fd, unix.CLONE_NEWNET), "enter the network of process %d", p)
			_ = unix.Close(fd)
		}
		writable(r, fmt.Sprintf("/proc/%d/mem", p))
	}
	_, _, errno := unix.RawSyscall6(unix.SYS_KCMP, uintptr(os.Getpid()), 1, 0, 0, 0, 0)
	r.holds(errno != 0, "compare with process 1: %v", errno)
}

func attackMounts(r *report, token string, _ []string) {
	dir := filepath.Join(home(), "at")
	must(os.MkdirAll(dir, 0o700))
	r.refused(unix.Mount("x", dir, "tmpfs", 0, ""), "mount a tmpfs")
	r.refused(unix.Mount("proc", dir, "proc", 0, ""), "mount proc")
	r.refused(unix.Mount("sysfs", dir, "sysfs", 0, ""), "mount sysfs")
	r.refused(unix.Mount("/usr", dir, "", unix.MS_BIND, ""), "bind /usr")
	r.refused(unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND, ""), "make the root writable")
	r.refused(unix.Mount("", "/usr", "", unix.MS_REMOUNT|unix.MS_BIND, ""), "make /usr writable")
	r.refused(unix.Mount("", "/tmp", "", unix.MS_REMOUNT, "size=1g"), "make /tmp larger")
	r.refused(unix.Mount("/tmp", dir, "", unix.MS_MOVE, ""), "move /tmp")
	for _, p := range []string{"/proc", "/tmp", "/usr", "/"} {
		r.refused(unix.Unmount(p, unix.MNT_DETACH), "unmount %s", p)
	}
	r.refused(unix.PivotRoot(dir, dir), "pivot_root")
	_, err := unix.Fsopen("tmpfs", 0)
	r.refused(err, "fsopen")
	_, err = unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE)
	r.refused(err, "open_tree")
	r.refused(unix.MoveMount(unix.AT_FDCWD, "/tmp", unix.AT_FDCWD, dir, 0), "move_mount")
	r.refused(unix.MountSetattr(unix.AT_FDCWD, "/", 0, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}), "mount_setattr")
	for name, flag := range map[string]int{
		"user": unix.CLONE_NEWUSER, "mount": unix.CLONE_NEWNS, "pid": unix.CLONE_NEWPID, "network": unix.CLONE_NEWNET, "ipc": unix.CLONE_NEWIPC,
		"uts": unix.CLONE_NEWUTS, "cgroup": unix.CLONE_NEWCGROUP, "time": unix.CLONE_NEWTIME,
	} {
		r.refused(unix.Unshare(flag), "make a %s namespace", name)
		if flag != unix.CLONE_NEWTIME { // in clone that is part of the signal
			cmd := again(token, &syscall.SysProcAttr{Cloneflags: uintptr(flag)}, "exit", "0")
			r.refused(cmd.Run(), "be born in a %s namespace", name)
		}
	}
	for _, p := range []string{"1", "self"} {
		all, _ := filepath.Glob("/proc/" + p + "/ns/*")
		for _, ns := range all {
			fd, err := unix.Open(ns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err == nil {
				err = unix.Setns(fd, 0)
				_ = unix.Close(fd)
			}
			r.refused(err, "enter %s", ns)
		}
	}
}

// attackSystem tries to change what it runs from: its code, runtime and system.
func attackSystem(r *report, _ string, args []string) {
	self, err := os.Executable()
	must(err)
	writable(r, append(args, self, "/etc/passwd", "/etc/resolv.conf", "/usr/bin/env", "/proc/self/exe")...)
	for _, p := range append(args, self) {
		info, err := os.Stat(p)
		must(err)
		r.refused(os.Chmod(p, 0o777), "chmod %s", p)
		r.refused(os.Chtimes(p, info.ModTime(), info.ModTime()), "set times of %s", p)
		r.refused(os.Truncate(p, info.Size()), "truncate %s", p)
		r.refused(os.Rename(p, p+".old"), "rename %s", p)
		r.refused(os.Link(p, filepath.Join(home(), "hard")), "link %s", p)
		r.refused(unix.Setxattr(p, "user.x", []byte("x"), 0), "set an attribute of %s", p)
		r.refused(os.Chown(p, os.Getuid(), os.Getgid()), "chown %s", p)
		r.refused(os.Remove(p), "remove %s", p)
	}
	dirs := []string{"/", "/usr", "/usr/bin", "/usr/lib", "/etc", "/dev", "/var", "/proc", filepath.Dir(self)}
	text, _ := os.ReadFile("/proc/self/mountinfo")
	for l := range strings.Lines(string(text)) {
		if f := strings.Fields(l); len(f) > 4 {
			dirs = append(dirs, f[4])
		}
	}
	for _, dir := range dirs {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() || dir == "/dev/shm" || strings.HasPrefix(dir+"/", "/tmp/") {
			continue // what is mounted below /tmp has folders of /tmp above it
		}
		p := filepath.Join(dir, "hostile")
		r.refused(os.WriteFile(p, nil, 0o600), "write to %s", dir)
		r.refused(os.Mkdir(p, 0o700), "make a folder in %s", dir)
		r.refused(os.Symlink("/", p), "make a link in %s", dir)
	}
}

func attackDevices(r *report, _ string, _ []string) {
	for _, dir := range []string{home(), "/dev/shm", "/dev"} {
		for name, d := range map[string]struct {
			kind uint32
			dev  uint64
		}{
			"memory": {unix.S_IFCHR, unix.Mkdev(1, 1)}, "disk": {unix.S_IFBLK, unix.Mkdev(8, 0)}, "null": {unix.S_IFCHR, unix.Mkdev(1, 3)},
			"whiteout": {unix.S_IFCHR, 0},
		} {
			p := filepath.Join(dir, "device-"+name)
			r.refused(unix.Mknod(p, d.kind|0o600, int(d.dev)), "make the device %s", p)
			r.refused(unix.Mknodat(unix.AT_FDCWD, p, d.kind|0o600, int(d.dev)), "make the device %s by mknodat", p)
		}
	}
	known := strings.Fields("null zero full random urandom fd stdin stdout stderr shm")
	entries, err := os.ReadDir("/dev")
	if !errors.Is(err, fs.ErrPermission) {
		must(err)
	}
	for _, e := range entries {
		r.holds(slices.Contains(known, e.Name()), "see /dev/%s", e.Name())
	}
	for _, p := range []string{"mem", "kmem", "kmsg", "port", "kvm", "fuse", "net/tun", "loop-control", "loop0", "sda", "vda", "mapper/control", "uinput", "console", "hpet", "nvram"} {
		fd, err := unix.Open("/dev/"+p, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		r.refused(err, "open /dev/%s", p)
		if err == nil {
			_ = unix.Close(fd)
		}
	}
	// A device that is given can be used, but not changed.
	r.refused(os.Chmod("/dev/null", 0o777), "chmod /dev/null")
	r.refused(os.Chown("/dev/null", os.Getuid(), os.Getgid()), "chown /dev/null")
	if f, err := os.OpenFile("/dev/random", os.O_WRONLY, 0); err == nil {
		more := int32(8)
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.RNDADDTOENTCNT, uintptr(unsafe.Pointer(&more)))
		r.holds(errno != 0, "claim entropy: %v", errno)
		_ = f.Close()
	}
}

func attackPrivileges(r *report, token string, args []string) {
	status, err := os.ReadFile("/proc/self/status")
	must(err)
	for l := range strings.Lines(string(status)) {
		f := strings.Fields(l)
		switch {
		case len(f) == 2 && f[0] == "CapBnd:" && slices.Contains(args, "unbounded"): // to take from it needs one; with no new privileges it gives nothing
		case len(f) == 2 && strings.HasPrefix(f[0], "Cap"):
			r.holds(strings.Trim(f[1], "0") == "", "have capabilities: %s %s", f[0], f[1])
		case len(f) == 2 && f[0] == "NoNewPrivs:":
			r.holds(f[1] == "1", "gain privileges: NoNewPrivs is %s", f[1])
		case len(f) == 2 && f[0] == "Seccomp:":
			r.holds(f[1] == "2", "make any system call: Seccomp is %s", f[1])
		}
	}
	groups, _ := os.Getgroups()
	r.holds(len(groups) <= 1 && !slices.Contains(groups, 0), "be in the groups %v", groups)
	r.refused(unix.Setuid(0), "become root")
	r.refused(unix.Setgid(0), "become root's group")
	r.refused(unix.Setgroups([]int{0}), "join root's group")
	r.refused(unix.Setresuid(1, 1, 1), "become another user")
	hdr, data := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{{Effective: 1, Permitted: 1}}
	r.refused(unix.Capset(&hdr, &data[0]), "take a capability")
	r.refused(unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, unix.CAP_SYS_ADMIN, 0, 0), "raise an ambient capability")
	var all sync.WaitGroup
	for _, p := range [][]string{{"su", "-c", "id -u"}, {"sudo", "-n", "id", "-u"}, {"pkexec", "id", "-u"}, {"ping", "-c1", "-W1", "127.0.0.1"}} {
		all.Go(func() { // su takes its time to say no
			cmd := exec.Command("/usr/bin/"+p[0], p[1:]...)
			out, err := cmd.CombinedOutput()
			r.holds(err != nil, "gain by %s: %v %.40q", cmd.Path, err, out)
		})
	}
	defer all.Wait()
	for _, dir := range []string{home(), "/dev/shm"} { // a program of its own, with the bits set
		p := filepath.Join(dir, "own")
		self, err := os.Executable()
		must(err)
		text, err := os.ReadFile(self)
		must(err)
		if os.WriteFile(p, text, 0o755) != nil || unix.Chmod(p, 0o6755) != nil {
			r.say("tried", "set the bits of %s", p)
			continue
		}
		out, err := exec.Command(p, asGuest, token, "whoami").Output()
		r.holds(err != nil || string(out) == fmt.Sprintln(os.Getuid(), os.Getgid()), "be %q by %s", out, p)
		_ = os.Remove(p)
	}
}

func attackKeys(r *report, _ string, _ []string) {
	_, err := unix.AddKey("user", "hostile", []byte("x"), unix.KEY_SPEC_USER_KEYRING)
	r.refused(err, "add a key to the user's keyring")
	_, err = unix.RequestKey("user", "hostile", "", unix.KEY_SPEC_PROCESS_KEYRING)
	r.holds(errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS), "ask for a key: %v", err)
	_, err = unix.KeyctlGetKeyringID(unix.KEY_SPEC_USER_SESSION_KEYRING, true)
	r.refused(err, "find the session's keyring")
	_, err = unix.KeyctlJoinSessionKeyring("hostile")
	r.refused(err, "join a keyring")
	text, _ := os.ReadFile("/proc/keys")
	r.holds(len(text) == 0, "list keys: %.80q", text)
}

func attackTerminal(r *report, _ string, _ []string) {
	for _, p := range []string{"/dev/tty", "/dev/console", "/dev/tty0", "/dev/tty1", "/dev/ptmx", "/dev/pts/0", "/dev/pts/ptmx"} {
		fd, err := unix.Open(p, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		r.refused(err, "open the terminal %s", p)
		if err == nil {
			_ = unix.Close(fd)
		}
	}
	b := byte('x')
	for fd := range 4 {
		for name, req := range map[string]uintptr{"TIOCSTI": unix.TIOCSTI, "TIOCLINUX": unix.TIOCLINUX, "TIOCSETD": unix.TIOCSETD} {
			for _, high := range []uintptr{0, 1 << 32} { // the kernel looks at 32 bits only
				_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req|high, uintptr(unsafe.Pointer(&b)))
				r.holds(errno == unix.EPERM, "%s on descriptor %d: %v", name, fd, errno)
			}
		}
	}
}
