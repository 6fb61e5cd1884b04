package oci

// calls is a filter of system calls as the runtime specification has it:
// https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#seccomp
type calls struct {
	Default string `json:"defaultAction"`
	Rules   []rule `json:"syscalls"`
}

// rule says what becomes of some calls.
type rule struct {
	Names  []string `json:"names"`
	Action string   `json:"action"`
	Args   []match  `json:"args,omitempty"`
}

// match compares an argument.
type match struct {
	Index uint   `json:"index"`
	Value uint64 `json:"value"`
	Two   uint64 `json:"valueTwo,omitempty"`
	Op    string `json:"op"`
}

// refused are calls that the runtime's kernel has and no guest needs: less of it is to be trusted then, and it behaves as the outer driver does.
// What it has not it refuses by itself. It refuses with EPERM whatever a filter says, which is why nothing is listed that programs do
// without only after ENOSYS, such as clone3.
var refused = []string{
	"chroot", "fsconfig", "fsmount", "fsopen", "fspick", "mount", "mount_setattr", "move_mount", "open_tree", "pivot_root", "umount2", // mounts
	"setns", "unshare", // namespaces
	"kcmp", "pidfd_getfd", "process_vm_readv", "process_vm_writev", "ptrace", // other processes
	"add_key", "keyctl", "request_key", // keys
	"fanotify_init", "fanotify_mark", "name_to_handle_at", "open_by_handle_at", // file handles
	"bpf", "delete_module", "finit_module", "init_module", "kexec_file_load", "kexec_load", "perf_event_open", "userfaultfd", // code
	"io_uring_enter", "io_uring_register", "io_uring_setup", "io_submit", "io_setup",
	"adjtimex", "clock_adjtime", "clock_settime", "settimeofday", // clocks
	"acct", "ioperm", "iopl", "quotactl", "reboot", "setdomainname", "sethostname", "swapoff", "swapon", "syslog", "vhangup",
}

// namespaceFlags are those of clone: linux/sched.h, CLONE_NEW*.
var namespaceFlags = []uint64{0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000}

// filter is what guests may ask of the runtime's kernel.
func filter() *calls {
	const errno = "SCMP_ACT_ERRNO"
	all := &calls{Default: "SCMP_ACT_ALLOW", Rules: []rule{{Names: refused, Action: errno}}}
	for _, flag := range namespaceFlags {
		all.Rules = append(all.Rules, rule{Names: []string{"clone"}, Action: errno, Args: []match{{Index: 0, Value: flag, Two: flag, Op: "SCMP_CMP_MASKED_EQ"}}})
	}
	for _, request := range []uint64{0x5412, 0x541c, 0x5423} { // TIOCSTI, TIOCLINUX, TIOCSETD: ioctl_tty(2)
		all.Rules = append(all.Rules, rule{Names: []string{"ioctl"}, Action: errno, Args: []match{{Index: 1, Value: request, Op: "SCMP_CMP_EQ"}}})
	}
	const netlink, route = 16, 0
	all.Rules = append(all.Rules, rule{Names: []string{"socket"}, Action: errno, Args: []match{
		{Index: 0, Value: netlink, Op: "SCMP_CMP_EQ"}, {Index: 2, Value: route, Op: "SCMP_CMP_NE"},
	}})
	return all
}
