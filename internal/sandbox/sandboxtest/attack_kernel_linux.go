package sandboxtest

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attackSignals sends what kills or stops to everything that has a number.
func attackSignals(r *report, _ string, _ []string) {
	signal.Ignore(unix.SIGTERM) // process 1 passes it on to all
	for _, s := range []unix.Signal{unix.SIGKILL, unix.SIGSTOP, unix.SIGTERM, unix.SIGINT, unix.SIGSEGV} {
		_ = unix.Kill(1, s) // of the guest's own: the kernel lets nothing through that its handler does not want
		if fd, err := unix.PidfdOpen(1, 0); err == nil {
			_ = unix.PidfdSendSignal(fd, s, nil, 0)
			_ = unix.Close(fd)
		}
	}
	tasks, _ := filepath.Glob("/proc/self/task/*")
	own := map[int]bool{}
	last := 0
	for _, t := range tasks {
		n := number(filepath.Base(t))
		own[n], last = true, max(last, n)
	}
	reached := 0
	for pid := 2; pid < 1<<16; pid++ {
		if !own[pid] && (pid < last || pid > last+100) && unix.Kill(pid, unix.SIGKILL) == nil {
			reached++
		}
	}
	r.holds(reached == 0, "kill %d processes of others", reached)
	_ = unix.Kill(-1, unix.SIGKILL)
	err := unix.Kill(1, 0)
	r.holds(err == nil || err == unix.EPERM, "kill process 1: %v", err)
}

// attackScheduling tries to be preferred over others.
func attackScheduling(r *report, _ string, _ []string) {
	type param struct{ priority int32 }
	for name, policy := range map[string]uintptr{"FIFO": 1, "RR": 2} {
		_, _, errno := unix.RawSyscall(unix.SYS_SCHED_SETSCHEDULER, 0, policy, uintptr(unsafe.Pointer(&param{1})))
		r.holds(errno != 0, "run in real time, %s: %v", name, errno)
	}
	r.refused(unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_DEADLINE, Runtime: 1e6, Deadline: 1e7, Period: 1e7}, 0), "run by deadline")
	r.refused(unix.Setpriority(unix.PRIO_PROCESS, 0, -5), "be nicer to itself")
	_, _, errno := unix.RawSyscall(unix.SYS_IOPRIO_SET, 1, 0, 1<<13)
	r.holds(errno != 0, "read disks in real time: %v", errno)
	writable(r, "/proc/self/autogroup", "/proc/self/sched", "/proc/self/timerslack_ns", "/proc/self/coredump_filter", "/proc/self/oom_adj")
	for name, what := range map[string]int{"processes": unix.RLIMIT_NPROC, "locked memory": unix.RLIMIT_MEMLOCK, "real time": unix.RLIMIT_RTPRIO, "nice": unix.RLIMIT_NICE} {
		var l unix.Rlimit
		must(unix.Getrlimit(what, &l))
		if l.Max == unix.RLIM_INFINITY {
			continue
		}
		r.refused(unix.Prlimit(0, what, &unix.Rlimit{Cur: l.Max + 1, Max: l.Max + 1}, nil), "raise the limit of %s", name)
	}
}

// attackKernel makes system calls that reach deep. With these arguments none does anything where it is allowed.
func attackKernel(r *report, _ string, _ []string) {
	var buf [256]byte
	at := uintptr(unsafe.Pointer(&buf[0]))
	empty := uintptr(unsafe.Pointer(new(byte)))
	for name, c := range map[string][4]uintptr{
		"bpf":               {unix.SYS_BPF, 0, at, 72},
		"perf_event_open":   {unix.SYS_PERF_EVENT_OPEN, at, 0, 0},
		"userfaultfd":       {unix.SYS_USERFAULTFD, 0},
		"io_uring_setup":    {unix.SYS_IO_URING_SETUP, 1, at},
		"init_module":       {unix.SYS_INIT_MODULE, 0, 0, empty},
		"finit_module":      {unix.SYS_FINIT_MODULE, ^uintptr(0), empty, 0},
		"delete_module":     {unix.SYS_DELETE_MODULE, empty, 0},
		"kexec_load":        {unix.SYS_KEXEC_LOAD, 0, ^uintptr(0), 0},
		"reboot":            {unix.SYS_REBOOT, 0, 0, 0},
		"settimeofday":      {unix.SYS_SETTIMEOFDAY, empty, 0},
		"swapon":            {unix.SYS_SWAPON, empty, 0},
		"swapoff":           {unix.SYS_SWAPOFF, empty},
		"syslog":            {unix.SYS_SYSLOG, 3, at, 256},
		"fanotify_init":     {unix.SYS_FANOTIFY_INIT, 0, 0},
		"open_by_handle_at": {unix.SYS_OPEN_BY_HANDLE_AT, ^uintptr(99), at, 0},
		"name_to_handle_at": {unix.SYS_NAME_TO_HANDLE_AT, ^uintptr(99), empty, at},
		"sethostname":       {unix.SYS_SETHOSTNAME, empty, 0},
		"setdomainname":     {unix.SYS_SETDOMAINNAME, empty, 0},
		"quotactl":          {unix.SYS_QUOTACTL, 0, 0, 0},
		"lookup_dcookie":    {unix.SYS_LOOKUP_DCOOKIE, 0, at, 256},
		"move_pages":        {unix.SYS_MOVE_PAGES, 1, 0, 0},
		"process_madvise":   {unix.SYS_PROCESS_MADVISE, ^uintptr(0), 0, 0},
		"clone3":            {unix.SYS_CLONE3, 0, 0, 0},
		"memfd_secret":      {unix.SYS_MEMFD_SECRET, 0},
		"a future call":     {1 << 12},
	} {
		_, _, errno := unix.RawSyscall(c[0], c[1], c[2], c[3])
		r.holds(errno == unix.EPERM || errno == unix.ENOSYS, "call %s: %v", name, errno)
	}
	_, _, errno := unix.RawSyscall(unix.SYS_PERSONALITY, 0x0400000, 0, 0) // READ_IMPLIES_EXEC
	r.holds(errno != 0, "switch off protections of memory: %v", errno)
}

// attackCore crashes where it may write, and looks whether somebody kept its memory.
func attackCore(r *report, token string, _ []string) {
	for _, to := range []uint64{unix.RLIM_INFINITY, 0} { // the kernel runs a crash handler at any limit but 1: core(5)
		_ = unix.Prlimit(0, unix.RLIMIT_CORE, &unix.Rlimit{Cur: to, Max: to}, nil)
		_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: to, Max: to})
		var l unix.Rlimit
		must(unix.Getrlimit(unix.RLIMIT_CORE, &l))
		r.holds(l.Cur == 1 && l.Max == 1, "have a core limit of %d, %d", l.Cur, l.Max)
	}
	for _, lower := range []bool{false, true} {
		cmd := again(token, nil, "fault", strconv.FormatBool(lower))
		cmd.Dir = home()
		_ = cmd.Run()
		w := syscall.WaitStatus(cmd.ProcessState.Sys().(syscall.WaitStatus))
		r.holds(w.Signaled(), "end without a signal: %v", cmd.ProcessState)
		r.holds(!w.CoreDump(), "have its memory dumped: %v", cmd.ProcessState)
	}
	found, _ := filepath.Glob(filepath.Join(home(), "*core*"))
	r.holds(len(found) == 0, "leave %q", found)
}

// attackMountinfo says what the table of mounts tells; others' must not be in it.
func attackMountinfo(r *report, _ string, args []string) {
	other := unveiled(args[0])
	n := 0
	for _, p := range []string{"/proc/self/mountinfo", "/proc/1/mountinfo", "/proc/self/mounts", "/proc/mounts"} {
		text, _ := os.ReadFile(p)
		for l := range strings.Lines(string(text)) {
			n++
			r.holds(!strings.Contains(l, other), "see another Sandbox in %s: %s", p, l)
			fmt.Print(l)
		}
	}
	r.holds(n > 0, "read tables of mounts")
}

// attackFigures reads what is the whole machine's.
func attackFigures(r *report, _ string, _ []string) {
	for _, p := range []string{"/proc/stat", "/proc/loadavg", "/proc/meminfo", "/proc/diskstats", "/proc/interrupts", "/proc/cpuinfo", "/proc/uptime", "/proc/version"} {
		text, err := readSome(p)
		r.holds(err != nil || len(text) == 0, "read the machine's %s", p)
	}
}

// attackFill fills tables of the kernel that are counted by user or machine, and holds them.
func attackFill(r *report, token string, args []string) {
	note := func(what string, n int) { r.say("tried", "hold %d %s", n, what) }
	var l unix.Rlimit
	must(unix.Getrlimit(unix.RLIMIT_NOFILE, &l))
	_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: min(l.Max, 4096), Max: l.Max})
	watch := 0
	for ; watch < 300; watch++ {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		if err != nil {
			break
		}
		for _, p := range []string{"/", "/tmp", "/usr", "/usr/bin", "/usr/lib", "/proc"} {
			_, _ = unix.InotifyAddWatch(fd, p, unix.IN_ALL_EVENTS)
		}
	}
	note("inotify instances", watch)
	timers := 0
	for ; timers < 100_000; timers++ {
		var id int32
		if _, _, errno := unix.RawSyscall(unix.SYS_TIMER_CREATE, 1, 0, uintptr(unsafe.Pointer(&id))); errno != 0 {
			break
		}
	}
	note("timers", timers)
	queues := 0
	for ; queues < 200; queues++ {
		if _, err := openQueue(fmt.Sprintf("q%d", queues), unix.O_CREAT|unix.O_RDWR); err != nil {
			break
		}
	}
	note("message queues", queues)
	flying := 0
	if pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err == nil {
		fds := make([]int, 250)
		for i := range fds {
			fds[i] = pair[0]
		}
		for ; flying < 40 && unix.Sendmsg(pair[0], []byte("x"), unix.UnixRights(fds...), nil, 0) == nil; flying++ {
			if p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err == nil && flying%5 == 4 {
				pair = p
			}
		}
	}
	note("descriptors under way, in hundreds", flying*25/10)
	var pipes [][2]int
	for len(pipes) < 1<<13 {
		var pipe [2]int
		if unix.Pipe2(pipe[:], unix.O_CLOEXEC) != nil {
			break
		}
		_, _ = unix.FcntlInt(uintptr(pipe[0]), unix.F_SETPIPE_SZ, 1<<20)
		pipes = append(pipes, pipe)
	}
	note("pipes", len(pipes))
	for _, pipe := range pipes[max(0, len(pipes)-20):] { // it has to live to hold the rest
		_, _ = unix.Close(pipe[0]), unix.Close(pipe[1])
	}
	if len(args) > 0 { // and so do its children
		for range number(args[0]) {
			_ = again(token, nil, "fill").Start()
		}
	}
}

// openQueue opens a POSIX message queue. Landlock lets none be made, since they are files of no folder that a rule allows.
func openQueue(name string, flags int) (int, error) {
	b, err := unix.BytePtrFromString(name)
	must(err)
	fd, _, errno := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(b)), uintptr(flags), 0o600, 0, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// attackNeeds is no attack: it takes a little of everything that attackFill takes all of.
func attackNeeds(r *report, _ string, _ []string) {
	_, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	r.holds(err == nil, "keep others from inotify: %v", err)
	_, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	r.holds(err == nil, "keep others from epoll: %v", err)
	var id int32
	_, _, errno := unix.RawSyscall(unix.SYS_TIMER_CREATE, 1, 0, uintptr(unsafe.Pointer(&id)))
	r.holds(errno == 0, "keep others from timers: %v", errno)
	_, err = openQueue("needs", unix.O_CREAT|unix.O_RDWR)
	r.holds(err == nil || errors.Is(err, unix.EACCES), "keep others from message queues: %v", err)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	r.holds(err == nil, "keep others from sockets: %v", err)
	err = unix.Sendmsg(pair[0], []byte("x"), unix.UnixRights(pair[0]), nil, 0)
	r.holds(err == nil, "keep others from passing descriptors: %v", err)
	var pipe [2]int
	r.holds(unix.Pipe2(pipe[:], unix.O_CLOEXEC) == nil, "keep others from pipes")
}

// attackLink leaves links to something of the host's where the host cleans up.
func attackLink(r *report, _ string, args []string) {
	for i, to := range args {
		r.say("tried", "link to %s", to)
		must(os.Symlink(to, filepath.Join(home(), "link"+strconv.Itoa(i))))
	}
}
