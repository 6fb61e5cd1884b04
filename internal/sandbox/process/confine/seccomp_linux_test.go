package confine

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/errs"
)

const upper = 0xffffffff_00000000 // what an upper half may be, with nothing changed

// decisions are calls with arguments and what becomes of them, on every architecture that has them.
var decisions = []struct {
	name string
	args [6]uint64
	want verdict
}{
	{"read", [6]uint64{}, allow},
	{"openat", [6]uint64{}, allow},
	{"execve", [6]uint64{}, allow},
	{"futex", [6]uint64{}, allow},
	{"exit_group", [6]uint64{}, allow},
	{"seccomp", [6]uint64{1}, allow},
	{"fork", [6]uint64{}, allow},
	{"vfork", [6]uint64{}, allow},
	{"sync", [6]uint64{}, pretend},
	{"syncfs", [6]uint64{}, pretend},

	{"clone", [6]uint64{17}, allow},
	{"clone", [6]uint64{0x01200011}, allow},      // fork of the C library
	{"clone", [6]uint64{0x003d0f00}, allow},      // a thread of the C library
	{"clone", [6]uint64{0x00050f00}, allow},      // a thread of Go
	{"clone", [6]uint64{0x4111}, allow},          // vfork of Go, with what would be CLONE_NEWTIME but is a signal
	{"clone", [6]uint64{0x80 | upper}, allow},    // the kernel takes the lower half
	{"clone", [6]uint64{0x00020000}, eperm},      // mount
	{"clone", [6]uint64{0x02000000}, eperm},      // cgroup
	{"clone", [6]uint64{0x04000000}, eperm},      // uts
	{"clone", [6]uint64{0x08000000}, eperm},      // ipc
	{"clone", [6]uint64{0x10000000 | 17}, eperm}, // user
	{"clone", [6]uint64{0x20000000}, eperm},      // pid
	{"clone", [6]uint64{0x40000000}, eperm},      // net
	{"clone", [6]uint64{0x7e020011}, eperm},      // all
	{"clone", [6]uint64{0x10000000 | upper}, eperm},
	{"clone3", [6]uint64{}, enosys},
	{"unshare", [6]uint64{0}, eperm},
	{"setns", [6]uint64{3}, eperm},

	{"socket", [6]uint64{1, 1, 0}, allow},           // AF_UNIX
	{"socket", [6]uint64{1, 5 | 0x80000, 0}, allow}, // SOCK_SEQPACKET|SOCK_CLOEXEC
	{"socket", [6]uint64{2, 1, 0}, allow},           // TCP
	{"socket", [6]uint64{2, 1 | 0x80800, 6}, allow}, // TCP, SOCK_CLOEXEC|SOCK_NONBLOCK
	{"socket", [6]uint64{2, 2, 0}, allow},           // UDP
	{"socket", [6]uint64{10, 2 | 0x80000, 17}, allow},
	{"socket", [6]uint64{10, 1, 6}, allow},
	{"socket", [6]uint64{2 | upper, 1 | upper, 6 | upper}, allow},
	{"socket", [6]uint64{16, 3 | 0x80000, 0}, allow}, // NETLINK_ROUTE, SOCK_RAW as everybody asks for it
	{"socket", [6]uint64{16, 2, 0}, allow},
	{"socket", [6]uint64{2, 1, 262}, noProto}, // MPTCP
	{"socket", [6]uint64{2, 1, 132}, noProto}, // SCTP
	{"socket", [6]uint64{2, 2, 1}, noProto},   // ping
	{"socket", [6]uint64{2, 2, 136}, noProto}, // UDPLITE
	{"socket", [6]uint64{2, 2, 6}, noProto},
	{"socket", [6]uint64{2, 1, 17}, noProto},
	{"socket", [6]uint64{16, 3, 4}, noProto},  // NETLINK_SOCK_DIAG
	{"socket", [6]uint64{16, 3, 12}, noProto}, // NETLINK_NETFILTER
	{"socket", [6]uint64{2, 3, 1}, eperm},     // SOCK_RAW
	{"socket", [6]uint64{10, 3 | 0x80000, 58}, eperm},
	{"socket", [6]uint64{2, 10, 0x300}, eperm}, // SOCK_PACKET by way of AF_INET
	{"socket", [6]uint64{2, 10 | 0x800, 0}, eperm},
	{"socket", [6]uint64{2, 5, 132}, eperm}, // SCTP
	{"socket", [6]uint64{2, 6, 33}, eperm},  // DCCP
	{"socket", [6]uint64{0, 1, 0}, noAF},
	{"socket", [6]uint64{17, 3, 0}, noAF}, // AF_PACKET
	{"socket", [6]uint64{17, 2, 0}, noAF},
	{"socket", [6]uint64{38, 5, 0}, noAF}, // AF_ALG
	{"socket", [6]uint64{40, 1, 0}, noAF}, // AF_VSOCK
	{"socket", [6]uint64{31, 3, 1}, noAF}, // AF_BLUETOOTH
	{"socket", [6]uint64{44, 3, 0}, noAF}, // AF_XDP
	{"socketpair", [6]uint64{1, 1, 0}, allow},
	{"socketpair", [6]uint64{30, 1, 0}, noAF}, // AF_TIPC

	{"ioctl", [6]uint64{0, 0x5401}, allow},         // TCGETS
	{"ioctl", [6]uint64{0, 0x541b}, allow},         // FIONREAD
	{"ioctl", [6]uint64{0, 0x5412}, eperm},         // TIOCSTI
	{"ioctl", [6]uint64{0, 0x5412 | upper}, eperm}, // the kernel takes the lower half
	{"ioctl", [6]uint64{0, 0x541c}, eperm},         // TIOCLINUX
	{"ioctl", [6]uint64{0, 0x5423}, eperm},         // TIOCSETD
	{"personality", [6]uint64{0}, allow},
	{"personality", [6]uint64{0xffffffff}, allow},
	{"personality", [6]uint64{^uint64(0)}, allow},
	{"personality", [6]uint64{8}, allow},
	{"personality", [6]uint64{0x0040000}, eperm}, // ADDR_NO_RANDOMIZE
	{"personality", [6]uint64{0x0400000}, eperm}, // READ_IMPLIES_EXEC
	{"mknod", [6]uint64{0, 0o010644}, allow},     // FIFO
	{"mknod", [6]uint64{0, 0o020644}, eperm},     // character device
	{"mknod", [6]uint64{0, 0o060644}, eperm},     // block device
	{"setrlimit", [6]uint64{7}, allow},
	{"setrlimit", [6]uint64{4}, pretend},
	{"setrlimit", [6]uint64{4 | upper}, pretend},
	{"prlimit64", [6]uint64{0, 7, 0x1000}, allow},
	{"prlimit64", [6]uint64{0, 4, 0, 0x1000}, allow}, // a question
	{"prlimit64", [6]uint64{0, 4, 0x1000}, pretend},
	{"prlimit64", [6]uint64{0, 4 | upper, 0x1000}, pretend},
	{"prlimit64", [6]uint64{0, 4, 1 << 32}, pretend}, // a pointer whose lower half is 0
	{"mknodat", [6]uint64{0, 0, 0o010600}, allow},
	{"mknodat", [6]uint64{0, 0, 0o100600}, allow},
	{"mknodat", [6]uint64{0, 0, 0o020000}, eperm},
	{"mknodat", [6]uint64{0, 0, 0o060000 | upper | 0xff0000}, eperm}, // the kernel takes 16 bits
}

// refusedCalls must be refused whatever else changes.
var refusedCalls = map[verdict]string{
	eperm: `ptrace process_vm_readv process_vm_writev kcmp pidfd_getfd keyctl add_key request_key bpf perf_event_open userfaultfd
		kexec_load kexec_file_load init_module finit_module delete_module mount umount2 fsopen fsconfig fsmount fspick move_mount open_tree
		open_tree_attr mount_setattr pivot_root chroot swapon swapoff reboot settimeofday clock_settime adjtimex clock_adjtime quotactl quotactl_fd
		acct open_by_handle_at name_to_handle_at fanotify_init fanotify_mark lookup_dcookie iopl ioperm setns unshare sethostname setdomainname
		syslog vhangup move_pages migrate_pages`,
	enosys: `io_uring_setup io_uring_enter io_uring_register clone3 modify_ldt memfd_secret uselib statmount listmount`,
}

func TestSeccomp_DecidesByTable(t *testing.T) {
	t.Parallel()
	for arch, m := range machines {
		t.Run(arch, func(t *testing.T) {
			t.Parallel()
			filter, err := SeccompFor(arch)
			if err != nil {
				t.Fatal(err)
			}
			byName := map[string]int{}
			for _, n := range numbers {
				byName[n.name] = m.number(n)
			}
			try := func(name string, args [6]uint64, want verdict) {
				t.Helper()
				nr, ok := byName[name]
				if !ok {
					t.Errorf("no system call is named %s", name)
				}
				if nr < 0 {
					return
				}
				if got, _ := run(t, filter, call{m.audit, uint32(nr), args}); got != want {
					t.Errorf("%s(%#x) is %v, want %v", name, args, got, want)
				}
			}
			for _, d := range decisions {
				try(d.name, d.args, d.want)
			}
			for want, names := range refusedCalls {
				for name := range strings.FieldsSeq(names) {
					try(name, [6]uint64{}, want)
					try(name, [6]uint64{1, 1, 1, 1, 1, 1}, want)
				}
			}
		})
	}
}

func TestSeccomp_RefusesWhatHasNoName(t *testing.T) {
	t.Parallel()
	for arch, m := range machines {
		filter, err := SeccompFor(arch)
		if err != nil {
			t.Fatal(err)
		}
		named := map[uint32]bool{}
		for _, n := range numbers {
			named[uint32(m.number(n))] = true
		}
		for nr := range uint32(2048) {
			if named[nr] {
				continue
			}
			if got, _ := run(t, filter, call{arch: m.audit, nr: nr}); got != enosys {
				t.Errorf("%s: number %d is %v", arch, nr, got)
			}
		}
		for _, nr := range []uint32{1 << 30, 1<<30 | 1, 1<<30 | 520, 1<<30 | 59, 1 << 31, ^uint32(0)} { // x32, and nonsense
			if got, _ := run(t, filter, call{arch: m.audit, nr: nr}); got != enosys {
				t.Errorf("%s: number %#x is %v", arch, nr, got)
			}
		}
	}
}

func TestSeccomp_KillsProgramsForAnotherMachine(t *testing.T) {
	t.Parallel()
	for arch, m := range machines {
		filter, err := SeccompFor(arch)
		if err != nil {
			t.Fatal(err)
		}
		others := []uint32{0x40000003, 0x40000028, 0, ^uint32(0)} // i386, ARM
		for _, o := range machines {
			if o.audit != m.audit {
				others = append(others, o.audit)
			}
		}
		for _, o := range others {
			for _, nr := range []uint32{0, 1, 63, 93} {
				if got, _ := run(t, filter, call{arch: o, nr: nr}); got != kill {
					t.Errorf("%s: call %d of architecture %#x is %v", arch, nr, o, got)
				}
			}
		}
	}
}

// All decisions in one file each, so that a review sees what a change of the lists changes.
func TestSeccomp_IsAsReviewed(t *testing.T) {
	t.Parallel()
	for arch, m := range machines {
		filter, err := SeccompFor(arch)
		if err != nil {
			t.Fatal(err)
		}
		conditional := byArguments()
		byVerdict := map[string][]string{}
		longest := 0
		for _, n := range numbers {
			if m.number(n) < 0 {
				continue
			}
			v, steps := run(t, filter, call{arch: m.audit, nr: uint32(m.number(n))})
			key := v.String()
			if _, ok := conditional[n.name]; ok {
				key = "by arguments"
			}
			byVerdict[key] = append(byVerdict[key], n.name)
			longest = max(longest, steps)
			for _, d := range decisions {
				if d.name == n.name {
					_, steps := run(t, filter, call{m.audit, uint32(m.number(n)), d.args})
					longest = max(longest, steps)
				}
			}
		}
		if longest > 32 {
			t.Errorf("%s: a decision takes %d instructions", arch, longest)
		}
		var b strings.Builder
		fmt.Fprintf(&b, "%d instructions, at most %d to a decision\n", len(filter)/8, longest)
		for _, k := range slices.Sorted(maps.Keys(byVerdict)) {
			fmt.Fprintf(&b, "\n%s\n", k)
			for _, n := range byVerdict[k] {
				fmt.Fprintf(&b, "  %s\n", n)
			}
		}
		file := filepath.Join("testdata", "seccomp-"+arch+".txt")
		if *update {
			if err := os.MkdirAll("testdata", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if b.String() != string(want) {
			t.Errorf("%s is not what the filter does; look at it and run the test with -update", file)
		}
	}
}

func TestPolicies_NameEachCallOnce(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, n := range numbers {
		known[n.name] = true
	}
	var all []string
	for _, names := range harmless {
		all = append(all, names...)
	}
	for _, names := range dangerous {
		all = append(all, names...)
	}
	all = append(all, pretended...)
	all = slices.AppendSeq(all, maps.Keys(byArguments()))
	slices.Sort(all)
	for i, n := range all {
		if !known[n] {
			t.Errorf("no system call is named %s", n)
		}
		if i > 0 && all[i-1] == n {
			t.Errorf("%s is in two lists", n)
		}
	}
}

func TestSeccompFor_RefusesOtherArchitectures(t *testing.T) {
	t.Parallel()
	if _, err := SeccompFor("riscv64"); errs.CodeOf(err) != errs.Unsupported {
		t.Errorf("riscv64: %v", err)
	}
}

func FuzzSeccomp_AlwaysDecides(f *testing.F) {
	amd64, err := SeccompFor("amd64")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(0xc000003e), uint32(56), uint64(17), uint64(0), uint64(0))
	f.Fuzz(func(t *testing.T, arch, nr uint32, a, b, c uint64) {
		got, _ := run(t, amd64, call{arch, nr, [6]uint64{a, b, c}})
		if !slices.Contains([]verdict{allow, kill, pretend, eperm, enosys, noProto, noAF}, got) {
			t.Errorf("verdict %v", got)
		}
	})
}
