package confine

// ipc is the kind of calls that an IPC namespace is for.
const ipc = "between processes"

// harmless calls do nothing that a process without capabilities could use against the host, as far as is known. Some do nothing at all
// without a capability but are tried by programs that bear a refusal of the kernel's own.
var harmless = map[string][]string{
	"files": {
		"access", "chdir", "chmod", "chown", "close", "close_range", "copy_file_range", "creat", "dup", "dup2", "dup3", "faccessat",
		"faccessat2", "fadvise64", "fallocate", "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown", "fchownat", "fcntl", "fdatasync", "flock",
		"fstat", "fstatfs", "fsync", "ftruncate", "futimesat", "getcwd", "getdents", "getdents64", "lchown", "link", "linkat", "lseek", "lstat",
		"mkdir", "mkdirat", "newfstatat", "open", "openat", "openat2", "pipe", "pipe2", "pread64", "preadv", "preadv2", "pwrite64", "pwritev",
		"pwritev2", "read", "readahead", "readlink", "readlinkat", "readv", "rename", "renameat", "renameat2", "rmdir", "sendfile", "splice",
		"stat", "statfs", "statx", "symlink", "symlinkat", "sync_file_range", "tee", "truncate", "umask", "unlink", "unlinkat", "utime", "utimensat",
		"utimes", "vmsplice", "write", "writev", "cachestat",
	},
	"extended attributes": {
		"fgetxattr", "flistxattr", "fremovexattr", "fsetxattr", "getxattr", "getxattrat", "lgetxattr", "listxattr", "listxattrat", "llistxattr",
		"lremovexattr", "lsetxattr", "removexattr", "removexattrat", "setxattr", "setxattrat",
	},
	"waiting": {
		"epoll_create", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd", "eventfd2", "inotify_add_watch",
		"inotify_init", "inotify_init1", "inotify_rm_watch",
		"pause", "poll", "ppoll", "pselect6", "select", "signalfd", "signalfd4",
	},
	"time": {
		"alarm", "clock_getres", "clock_gettime", "clock_nanosleep", "getitimer", "gettimeofday", "nanosleep", "setitimer", "time",
		"timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_settime", "timerfd_create", "timerfd_gettime",
		"timerfd_settime", "times",
	},
	"memory": {
		"brk", "get_mempolicy", "madvise", "map_shadow_stack", "membarrier", "memfd_create", "mincore", "mlock", "mlock2", "mlockall", "mmap",
		"mprotect", "mremap", "mseal", "msync", "munlock", "munlockall", "munmap", "pkey_alloc", "pkey_free", "pkey_mprotect", "remap_file_pages",
	},
	// The IPC namespace is the Sandbox's own.
	ipc: {
		"mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedsend", "mq_unlink", "msgctl", "msgget", "msgrcv", "msgsnd",
		"semctl", "semget", "semop", "semtimedop", "shmat", "shmctl", "shmdt", "shmget",
	},
	"network": {
		"accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recvfrom", "recvmmsg", "recvmsg",
		"sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown",
	},
	"processes": {
		"arch_prctl", "execve", "execveat", "exit", "exit_group", "fork", "getcpu", "getpgid", "getpgrp", "getpid", "getppid", "getpriority",
		"getrlimit", "getrusage", "getsid", "gettid", "ioprio_get", "ioprio_set", "pidfd_open", "prctl",
		"sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity", "sched_getattr", "sched_getparam", "sched_getscheduler",
		"sched_rr_get_interval", "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler", "sched_yield", "set_tid_address",
		"setpgid", "setpriority", "setsid", "vfork", "wait4", "waitid",
	},
	"threads": {
		"futex", "futex_requeue", "futex_wait", "futex_waitv", "futex_wake", "get_robust_list", "rseq", "set_robust_list",
	},
	"signals": {
		"kill", "pidfd_send_signal", "restart_syscall", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn",
		"rt_sigsuspend", "rt_sigtimedwait", "rt_tgsigqueueinfo", "sigaltstack", "tgkill", "tkill",
	},
	// They can only give up what the process has.
	"identity": {
		"capget", "capset", "getegid", "geteuid", "getgid", "getgroups", "getresgid", "getresuid", "getuid", "setfsgid", "setfsuid", "setgid",
		"setgroups", "setregid", "setresgid", "setresuid", "setreuid", "setuid",
	},
	// A program may confine itself and its children further.
	"more confinement": {"landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "seccomp"},
	"machine":          {"getrandom", "sysinfo", "uname"},
	// Placed in a program by the kernel for who watches it from outside; anywhere else they end the caller.
	"probes": {"uprobe", "uretprobe"},
}

// dangerous calls are known to the kernel and need a capability, or have been a way out. Programs that try them expect EPERM.
var dangerous = map[string][]string{
	"mounts": {
		"chroot", "fsconfig", "fsmount", "fsopen", "fspick", "mount", "mount_setattr", "move_mount", "open_tree", "open_tree_attr", "pivot_root",
		"umount2",
	},
	"namespaces": {"setns", "unshare"},
	// Debuggers, strace and crash handlers that attach to another process find that they may not; a core dump is the kernel's and is not affected.
	"other processes": {"kcmp", "pidfd_getfd", "process_vm_readv", "process_vm_writev", "ptrace"},
	// Neither knows of namespaces in full: keys are the user's, and file handles get around every path.
	"keys":         {"add_key", "keyctl", "request_key"},
	"file handles": {"fanotify_init", "fanotify_mark", "lookup_dcookie", "name_to_handle_at", "open_by_handle_at"},
	"code in the kernel": {
		"bpf", "delete_module", "finit_module", "init_module", "kexec_file_load", "kexec_load", "perf_event_open", "userfaultfd",
	},
	"memory of other nodes": {"mbind", "migrate_pages", "move_pages", "set_mempolicy", "set_mempolicy_home_node"},
	"clock":                 {"adjtimex", "clock_adjtime", "clock_settime", "settimeofday"},
	"machine": {
		"acct", "ioperm", "iopl", "quotactl", "quotactl_fd", "reboot", "setdomainname", "sethostname", "swapoff", "swapon", "syslog", "vhangup",
	},
}

// pretended calls succeed and do nothing. They would write out what all of the machine has in memory, again and again if the caller likes, and
// the file systems that a Sandbox writes to do not outlive it. fsync of a file works.
var pretended = []string{"sync", "syncfs"}

// Among those that get ENOSYS because they are in no list, on purpose:
//
//   - io_uring_*: its operations never pass this filter (it opens sockets and files by itself), and it has had more holes than anything beside it;
//     libuv, Go, Java and all others fall back.
//   - io_setup and the other calls of old asynchronous I/O: the whole machine shares 65,536 operations (fs.aio-max-nr), and one guest
//     could take all of them from the databases and hypervisors beside it. The C library's aio_* are threads.
//   - clone3: its flags are in memory, where the filter cannot read them. With ENOSYS the C libraries use clone.
//   - memfd_secret, process_madvise, statmount, listmount, listns, file_setattr and what comes after: new, with fallbacks.
//   - modify_ldt, uselib, ustat, sysfs, nfsservctl: old, with no users here.
