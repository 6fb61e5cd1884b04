package sandboxtest

import (
	"testing"

	"github.com/ebb-run/ebb/internal/sandbox"
)

// Why rows do not hold.
const (
	ordinary     = "functions are ordinary processes of ebb's user here, with its files, network and rights"
	unlimited    = "there is no cgroup to count or bound this here"
	countsOnly   = "without a memory cgroup only the memory of processes is counted, not that of files in memory which no process has mapped"
	oneUser      = "to the kernel all functions and ebb are one user here, whose share of its tables they have together; root gives each its own user"
	ownKernel    = "what this reaches is the kernel that the guest has to itself and that has no rights on the host, nothing of the host's or of another guest's"
	bytesOnly    = "/tmp takes the bytes that its limit says; the number of files is bounded by the memory that they take"
	noNamespaces = "this host denies namespaces: a function has the files that Landlock leaves it, but no network, root or processes of its own"
	oneLoopback  = "this host denies namespaces: functions share its loopback, where one can talk to another's servers; files, environment, memory, sockets and queues of another are out of reach"
	unscoped     = "this host denies namespaces, and its kernel's Landlock does not bound signals, which takes Linux 6.12: guests are one user, who may signal all of its processes"
	noTable      = "the kernel has one such figure for the whole machine, and no namespace for it; it tells of load and hardware, of nobody's data"
)

func always(Options) string { return "" }

func isolated(o Options) string {
	if o.Walled {
		return noNamespaces
	}
	return unless(o.Isolated, ordinary)
}

// confined is for what holds without namespaces too, where guests are confined by what every process can do to itself.
func confined(o Options) string {
	if o.Walled {
		return ""
	}
	return shared(o)
}

// shared is for what holds where guests share the host's kernel.
func shared(o Options) string {
	if why := isolated(o); why != "" {
		return why
	}
	return unless(!o.Kernel, ownKernel)
}

// scoped is confined where signals are bounded too.
func scoped(o Options) string {
	if o.Walled {
		return unless(o.Scoped, unscoped)
	}
	return shared(o)
}

// confinedFiles is confined where a kernel of the guest's own changes nothing.
func confinedFiles(o Options) string {
	if o.Walled {
		return ""
	}
	return isolated(o)
}

func unless(ok bool, why string) string {
	if ok {
		return ""
	}
	return why
}

// single is the test of an attack that needs nothing but itself.
func single(attack string, args ...string) func(*testing.T, *catalogue) []string {
	return func(t *testing.T, c *catalogue) []string {
		_, broken := c.attack(t, sandbox.Spec{Limits: sandbox.Limits{MemoryBytes: 512 << 20}}, attack, args...)
		return broken
	}
}

// rows is the catalogue.
func rows() []row {
	all := resourceRows()
	all = append(all, fileRows()...)
	all = append(all, processRows()...)
	all = append(all, networkRows()...)
	return append(all, otherRows()...)
}

func resourceRows() []row {
	return []row{
		{name: "fork bomb", says: "processes that fork without end meet the Sandbox's limit of processes, and end with it when it stops.",
			lacks: func(o Options) string { return unless(o.Processes, unlimited) }, test: rowBomb},
		{name: "memory hog", says: "a guest that takes more memory than it may is ended as a whole and reported as out of memory, its output kept; the same when a child does.",
			lacks: func(o Options) string { return unless(o.Memory, unlimited) }, of: []string{"Memory_OverLimitEndsAll"}},
		{name: "memory in nameless files", says: "memory that is in no process (memfd, shared memory) counts as well.",
			lacks: func(o Options) string { return unless(o.Charged, countsOnly) }, shown: true, test: rowMemfd},
		{name: "processor hog", says: "all processes of a Sandbox together get the processors that it is limited to.",
			lacks: func(o Options) string { return unless(o.Processors, unlimited) }, of: []string{"Processors_AreLimited"}},
		{name: "descriptor flood", says: "a process has 1,024 descriptors at most and cannot raise that.",
			lacks: confinedFiles, test: single("descriptors")},
		{name: "full /tmp", says: "/tmp takes the bytes and files that its limit says and no more.",
			lacks: func(o Options) string {
				if why := isolated(o); why != "" {
					return why
				}
				return unless(!o.Kernel, bytesOnly)
			}, shown: true, test: rowDisk},
		{name: "full /dev/shm", says: "the only other place that can be written takes 64 MB.",
			lacks: confinedFiles, test: single("shm")},
		{name: "full tables of the kernel", says: "a guest that takes all inotify instances, timers, message queues, pipes and descriptors under way leaves those of others, whose Sandboxes start and work.",
			lacks: func(o Options) string {
				if why := isolated(o); why != "" {
					return why
				}
				return unless(o.Separate, oneUser)
			}, test: rowTables},
		{name: "output without end", says: "a guest that writes megabytes or holds its output open holds up nobody.",
			lacks: always, of: []string{"Output_OfMegabytesHoldsUpNobody", "Done_ClosesWhenMainEndsAndOthersHoldOutput"}},
	}
}

func fileRows() []row {
	return []row{
		{name: "paths out of the root", says: "no path, symbolic link, /proc/*/root, folder left behind or chroot leads to a file of the host.",
			lacks: confinedFiles, shown: true, test: rowPaths},
		{name: "links for the host to follow", says: "symbolic links that a guest leaves in its temp folder are removed and not followed when the host cleans up.",
			lacks: always, test: rowLinks},
		{name: "settings in /proc", says: "nothing in /proc can be written (/proc/sys, sysrq, oom_score_adj, uid_map, mem), and neither the kernel's memory and addresses nor /sys can be read.",
			lacks: confined, test: single("proc")},
		{name: "code and system files", says: "code, layers, runtime and system are mounted read-only: nothing there can be written, renamed, linked, removed or changed in mode.",
			lacks: isolated, test: rowSystem},
		{name: "device nodes", says: "no device can be made; there are null, zero, full, random and urandom.",
			lacks: confined, test: single("devices")},
		{name: "mounts and namespaces", says: "mount, umount, remount, pivot_root, chroot, unshare, setns and being born in a new namespace are all refused.",
			lacks: confinedFiles, test: single("mounts")},
		{name: "table of mounts", says: "/proc/self/mountinfo tells the host's paths of the code, the layers and ebb's runtime folder, the file systems that they are on with their options, and the Sandbox's user number outside; it tells nothing of other Sandboxes. The kernel shows each mount's root in its file system, and of an overlay the folders that it is made of: only a copy would hide them.",
			lacks: isolated, test: rowMountinfo},
		{name: "figures of the machine", says: "/proc/stat, loadavg, meminfo, diskstats, cpuinfo, interrupts and version are the host's own and can be read.",
			lacks: func(Options) string { return noTable }, shown: true, test: single("figures")},
	}
}

func processRows() []row {
	trees := []string{"Stop_LeavesNothing", "Sweep_AfterKillLeavesNothing"}
	return []row{
		{name: "SIGTERM ignored", says: "a guest that ignores SIGTERM is killed when its grace is over.",
			lacks: always, of: []string{"Stop_GivesGraceAndTakesItBack", "Stop_LeavesNothing"}},
		{name: "double fork and own session", says: "processes that left their parent, session, process group and environment end with the Sandbox, also after kill -9 of ebb.",
			lacks: func(o Options) string {
				return unless(o.Concealed, "without cgroups and namespaces a process that has left its parent and dropped its environment is not found again")
			}, of: trees},
		{name: "output held by a grandchild", says: "a grandchild that holds standard output open keeps neither the answer nor the end waiting.",
			lacks: always, of: []string{"Done_ClosesWhenMainEndsAndOthersHoldOutput"}},
		{name: "inheritance", says: "nothing of the host's environment, descriptors, terminal or session is inherited.",
			lacks: always, of: []string{"Environment_IsExact", "Surroundings_AreNotInherited"}},
		{name: "tracing", says: "ptrace, process_vm_readv, pidfd_getfd and writing /proc/*/mem are refused, for a guest's own children too.",
			lacks: confined, test: single("ptrace")},
		{name: "signals to others", says: "a guest can signal nothing outside of its Sandbox, and what it sends to its own process 1 does not end that.",
			lacks: scoped, test: rowSignals},
		{name: "priority", says: "real time, deadlines, a lower nice value, real-time disk access and higher limits are refused.",
			lacks: confined, test: single("scheduling")},
		{name: "setuid programs", says: "su, sudo, pkexec and a program with its own bits set give nothing: there are no capabilities, none can be gained, and no other user exists.",
			lacks: confinedFiles, test: rowPrivileges},
		{name: "keyrings", says: "the calls for the kernel's keyrings are refused, since these are the user's and not the namespace's.",
			lacks: confinedFiles, test: single("keys")},
		{name: "terminals", says: "there is no terminal to type into (TIOCSTI, TIOCLINUX), and the requests are refused everywhere.",
			lacks: confined, test: single("terminal")},
		{name: "depths of the kernel", says: "bpf, io_uring, perf, userfaultfd, modules, kexec, clocks, swap, file handles and calls that are newer than ebb are refused.",
			lacks: confined, test: single("kernel")},
		{name: "core dumps", says: "a crash leaves no core, neither in a file nor with the host's crash handler, whatever limit the guest sets.",
			lacks: confined, test: single("core")},
	}
}

func networkRows() []row {
	connected := func(o Options) string {
		if why := isolated(o); why != "" {
			return why
		}
		return unless(o.Connected != nil, "this driver gives no network to try it with")
	}
	return []row{
		{name: "raw sockets and other families", says: "only TCP, UDP, Unix sockets and netlink's route family (to read) exist; the network's set-up cannot be changed.",
			lacks: isolated, test: single("sockets")},
		{name: "metadata and the host's loopback", says: "the clouds' metadata addresses and the host's loopback, in each of their spellings and by names that lead there, are not connected to although everything else is allowed.",
			lacks: connected, test: rowForbidden},
		{name: "DNS rebinding", says: "a name whose answer changes to a forbidden address after it was checked leads to checked addresses only.",
			lacks: connected, test: rowRebinding},
		{name: "network where none is given", says: "without egress nothing can be reached: not the host's loopback, nor its other addresses, nor anybody.",
			lacks: isolated, shown: true, test: rowNoNetwork},
	}
}

func otherRows() []row {
	return []row{
		{name: "a neighbour", says: "files, environment, arguments, memory, loopback servers, abstract sockets, shared memory and queues of a Sandbox beside cannot be seen.",
			lacks: func(o Options) string {
				if o.Walled {
					return oneLoopback
				}
				return isolated(o)
			}, shown: true, test: rowNeighbour},
		{name: "a predecessor", says: "what a Sandbox left in /tmp, /dev/shm, shared memory, queues, sockets and its environment is gone for the next one, also where that gets the same user number outside.",
			lacks: confinedFiles, shown: true, test: rowPredecessor},
	}
}
