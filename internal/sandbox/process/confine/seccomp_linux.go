package confine

import (
	"fmt"
	"maps"
	"runtime"
	"slices"

	"github.com/ebb-run/ebb/internal/errs"
	"golang.org/x/sys/unix"
)

// Verdicts.
const (
	allow   verdict = 0x7fff0000 // SECCOMP_RET_ALLOW
	kill    verdict = 0x80000000 // SECCOMP_RET_KILL_PROCESS
	pretend         = refuse     // SECCOMP_RET_ERRNO with 0: success, without anything done
	refuse  verdict = 0x00050000 // SECCOMP_RET_ERRNO
	eperm           = refuse | verdict(unix.EPERM)
	enosys          = refuse | verdict(unix.ENOSYS)
	noProto         = refuse | verdict(unix.EPROTONOSUPPORT)
	noAF            = refuse | verdict(unix.EAFNOSUPPORT)
)

const whole = ^uint32(0)

// cloneNew are the flags of clone that make namespaces. CLONE_NEWTIME is not among them: in clone its bit is part of the exit signal.
const cloneNew = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID |
	unix.CLONE_NEWNET

// machine is what differs between architectures.
type machine struct {
	audit  uint32 // AUDIT_ARCH_*: linux/audit.h
	number func(number) int
}

var machines = map[string]machine{
	"amd64": {0xc000003e, func(n number) int { return n.amd64 }},
	"arm64": {0xc00000b7, func(n number) int { return n.arm64 }},
}

// Seccomp is the filter of system calls for this architecture, as SECCOMP_SET_MODE_FILTER takes it: an array of struct sock_filter, 8 bytes
// each, for struct sock_fprog (len: the number of bytes / 8, at offset 0, 16 bits; filter: its address, at offset 8). It is the same at
// each call. The caller must have no_new_privs, and whatever else it has to do of what the filter refuses it must have done.
func Seccomp() ([]byte, error) { return seccompFor(runtime.GOARCH, policies()) }

// SeccompShared is the filter for processes that share the host's IPC namespace: it refuses what that is for as a kernel does that has it not.
func SeccompShared() ([]byte, error) {
	policy := policies()
	for _, name := range harmless[ipc] {
		delete(policy, name)
	}
	return seccompFor(runtime.GOARCH, policy)
}

// SeccompFor is the filter for an architecture: "amd64" or "arm64".
func SeccompFor(arch string) ([]byte, error) { return seccompFor(arch, policies()) }

func seccompFor(arch string, policy map[string]decision) ([]byte, error) {
	m, ok := machines[arch]
	if !ok {
		return nil, errs.New(errs.Unsupported, "no system call filter for %s", arch)
	}
	p := []insn{
		{code: opLoad, k: offsetArch},
		{code: opEqual, k: m.audit, jt: 1},
		{code: opReturn, k: uint32(kill)},
		{code: opLoad, k: offsetNumber},
	}
	p = append(p, search(m.spans(policy))...)
	if len(p) > maxInstructions {
		return nil, fmt.Errorf("system call filter has %d instructions, %d are allowed", len(p), maxInstructions)
	}
	return encode(p), nil
}

// spans are the decisions about all numbers from 0 on, neighbours that are alike in one. What no policy names gets ENOSYS: holes, the future,
// and on amd64 the numbers of the x32 ABI, which have bit 30 set.
func (m machine) spans(policy map[string]decision) []span {
	decided := map[uint32]decision{}
	for _, n := range numbers {
		if d, ok := policy[n.name]; ok && m.number(n) >= 0 {
			decided[uint32(m.number(n))] = d
		}
	}
	spans := []span{{0, enosys}}
	add := func(first uint32, d decision) {
		last := &spans[len(spans)-1]
		switch {
		case last.d == d:
		case last.first == first:
			last.d = d
		default:
			spans = append(spans, span{first, d})
		}
	}
	for _, n := range slices.Sorted(maps.Keys(decided)) {
		add(n, decided[n])
		if _, ok := decided[n+1]; !ok {
			add(n+1, enosys)
		}
	}
	return spans
}

// policies are the decisions by the call's name. What is in none of them gets ENOSYS.
func policies() map[string]decision {
	all := map[string]decision{}
	for _, names := range harmless {
		for _, n := range names {
			all[n] = allow
		}
	}
	for _, names := range dangerous {
		for _, n := range names {
			all[n] = eperm
		}
	}
	for _, n := range pretended {
		all[n] = pretend
	}
	maps.Copy(all, byArguments())
	return all
}

// byArguments are the calls that are harmless with some arguments only.
func byArguments() map[string]decision {
	device := func(arg int) decision { // the permission to make one is the owner's of the host, but overlay's whiteouts are free for all
		return oneOf(arg, unix.S_IFMT, eperm, allow, unix.S_IFCHR, unix.S_IFBLK)
	}
	return map[string]decision{
		// Threads and processes, but no namespaces: in a user namespace of its own a process has all capabilities, and most holes in the kernel
		// that strangers can reach want one.
		"clone": oneOf(0, cloneNew, allow, eperm, 0),
		// Typing into the terminal of the host (TIOCSTI, TIOCLINUX), and loading line disciplines.
		"ioctl": oneOf(1, whole, eperm, allow, unix.TIOCSTI, unix.TIOCLINUX, unix.TIOCSETD),
		// Linux, 32-bit names, an old version's name, both, and the question. Others switch off protections of memory.
		"personality": oneOf(0, whole, allow, eperm, 0, 0x0008, 0x20000, 0x20008, 0xffffffff),
		// The limit of core dumps stays as it is: 1 keeps them from the host's crash handler, and 0, which every process may choose, does not.
		"setrlimit":  oneOf(0, whole, pretend, allow, unix.RLIMIT_CORE),
		"prlimit64":  oneOf(1, whole, null(2, allow, pretend), allow, unix.RLIMIT_CORE),
		"socket":     sockets(),
		"socketpair": oneOf(0, whole, allow, noAF, unix.AF_UNIX),
		"mknod":      device(1),
		"mknodat":    device(2),
	}
}

// sockets leaves the families and protocols that a network namespace with a loopback has a use for. Others are rarely audited code that the
// kernel would load on demand; AF_VSOCK reaches the hypervisor past every namespace. MPTCP is refused like a kernel without: all clients fall
// back to TCP.
func sockets() decision {
	const kind = 0xf // SOCK_TYPE_MASK: the rest are flags
	inet := oneOf(1, kind,
		oneOf(2, whole, allow, noProto, 0, unix.IPPROTO_TCP),
		oneOf(1, kind, oneOf(2, whole, allow, noProto, 0, unix.IPPROTO_UDP), eperm, unix.SOCK_DGRAM), // raw ones are what no capabilities means
		unix.SOCK_STREAM)
	netlink := oneOf(2, whole, allow, noProto, unix.NETLINK_ROUTE) // getifaddrs asks it, by SOCK_RAW
	return oneOf(0, whole, allow, oneOf(0, whole, inet, oneOf(0, whole, netlink, noAF, unix.AF_NETLINK), unix.AF_INET, unix.AF_INET6), unix.AF_UNIX)
}
