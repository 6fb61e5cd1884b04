package process

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// hierarchy is one cgroup tree, and the folder in it below which Sandboxes get theirs.
type hierarchy struct {
	version int    // 1 or 2; 0 when there is none to use
	base    string // absolute folder, or ""
}

func (h hierarchy) usable() bool { return h.base != "" }

// fences know what this machine has to bound guests with. Immutable after openFences but for the watchdog.
type fences struct {
	memory  hierarchy // for limits and usage of memory
	pids    hierarchy // for the number of processes
	cpu     hierarchy // for limits and shares of the processors
	tree    hierarchy // version 2, for killing and freezing everything at once and for usage of the processors
	account hierarchy // version 1 where there is no tree, for usage of the processors
	freezer hierarchy // version 1 where there is no tree, for freezing
	home    []int     // `tasks` files of the version 1 folders that the launcher's thread belongs to
	why     string    // why cgroups are not used, for people

	dog watchdog
}

func openFences(without bool) *fences {
	f := &fences{}
	if without {
		f.why = "control groups are switched off"
		return f
	}
	found := findCgroups()
	f.use(found)
	switch {
	case f.why != "":
	case len(found) == 0:
		f.why = "no writable control group was found"
	case !f.memory.usable():
		f.why = "the memory controller cannot be used"
	}
	return f
}

// use takes the hierarchies that were found.
func (f *fences) use(found map[string]hierarchy) {
	f.memory, f.pids, f.cpu, f.tree = found["memory"], found["pids"], found["cpu"], found["unified"]
	if !f.tree.usable() {
		f.account, f.freezer = found["cpuacct"], found["freezer"]
	}
	for _, h := range f.all() {
		if h.version != 1 {
			continue
		}
		fd, err := unix.Open(filepath.Join(h.base, "tasks"), unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			// Without a way home the launcher would stay in a guest's cgroup.
			f.goHomeless()
			f.memory, f.pids, f.cpu, f.account, f.freezer = hierarchy{}, hierarchy{}, hierarchy{}, hierarchy{}, hierarchy{}
			f.why = "open tasks: " + err.Error()
			return
		}
		f.home = append(f.home, fd)
	}
}

func (f *fences) goHomeless() {
	for _, fd := range f.home {
		_ = unix.Close(fd)
	}
	f.home = nil
}

// all are the hierarchies in use, each folder once: version 1 controllers may be mounted together. The launcher leaves that of pids last,
// because what it gives up there a guest could take.
func (f *fences) all() []hierarchy {
	var all []hierarchy
	for _, h := range []hierarchy{f.memory, f.cpu, f.account, f.freezer, f.pids, f.tree} {
		if h.usable() && !slices.Contains(all, h) {
			all = append(all, h)
		}
	}
	return all
}

// bases are the folders in which Sandboxes have their cgroups.
func (f *fences) bases() []string {
	var all []string
	for _, h := range f.all() {
		all = append(all, h.base)
	}
	return all
}

// leave brings the calling thread back from the version 1 cgroups of a Sandbox.
func (f *fences) leave() {
	for _, fd := range f.home {
		_ = write(fd, self)
	}
}

// self means the writing thread. Its own number would mean the same but makes the kernel wait for all processors first,
// about 10 ms on a quiet machine.
var self = []byte("0")

func (f *fences) close() {
	f.goHomeless()
	f.dog.close()
}

func (f *fences) protections() []Protection {
	const mend = "run ebb as root, or as a service with its own control group (systemd: Delegate=yes)"
	named := func(h hierarchy) string { return "cgroup v" + strconv.Itoa(h.version) }
	mem := Protection{Name: "memory limit", Mechanism: "sampling", Note: f.why + "; memory is looked at about twenty times a second, so a function can go over its limit for a moment", Mend: mend}
	if f.memory.usable() {
		mem = Protection{Name: "memory limit", Mechanism: named(f.memory), Strong: true}
	}
	num := Protection{Name: "process limit", Mechanism: "none", Note: "a function can start as many processes as the machine takes", Mend: mend}
	if f.pids.usable() {
		num = Protection{Name: "process limit", Mechanism: named(f.pids), Strong: true}
	}
	cpu := Protection{Name: "cpu limit", Mechanism: "none", Note: "a function can use all processors of this machine, whatever --cpu-limits says", Mend: mend}
	if f.cpu.usable() {
		cpu = Protection{Name: "cpu limit", Mechanism: named(f.cpu), Strong: true}
	}
	kill := Protection{Name: "tree kill", Mechanism: "process group and marker", Note: f.why + "; processes are looked for by group, session, parent and environment, so a fork bomb can outrun it", Mend: mend}
	switch {
	case f.tree.usable():
		kill = Protection{Name: "tree kill", Mechanism: "cgroup v2", Strong: true}
	case f.memory.usable() || f.pids.usable():
		kill = Protection{Name: "tree kill", Mechanism: "cgroup v1", Strong: true}
	}
	return []Protection{mem, num, cpu, kill, {Name: "parent death", Mechanism: "parent-death signal and sweep", Strong: true}}
}

// The controllers that Sandboxes are bounded by, where they are to be had.
var (
	controllersV1 = []string{"memory", "pids", "cpu", "cpuacct", "freezer"}
	controllersV2 = []string{"memory", "pids", "cpu"} // in the order to hand them out; the others are part of version 2 itself
)

// findCgroups finds, for each controller and for "unified", the hierarchy in which this process may make folders.
func findCgroups() map[string]hierarchy {
	found := map[string]hierarchy{}
	own := ownCgroups()
	for _, m := range cgroupMounts() {
		if m.v2 {
			base, ok := baseV2(m, own[""])
			if !ok {
				continue
			}
			h := hierarchy{version: 2, base: base}
			found["unified"] = h
			for _, c := range controllersV2 {
				if hasWord(filepath.Join(base, "cgroup.subtree_control"), c) {
					found[c] = h
				}
			}
			continue
		}
		for _, c := range controllersV1 {
			if _, has := found[c]; !has && slices.Contains(m.controllers, c) {
				if base := m.folder(own[c]); canMake(base) {
					found[c] = hierarchy{version: 1, base: base}
				}
			}
		}
	}
	return found
}

type cgroupMount struct {
	v2          bool
	point       string
	root        string // the part of the hierarchy that is mounted here
	controllers []string
}

// folder is where the cgroup at path shows in this mount; the mount's own folder when it is outside of it.
func (m cgroupMount) folder(path string) string {
	rel, err := filepath.Rel(m.root, path)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return m.point
	}
	return filepath.Join(m.point, rel)
}

// cgroupMounts reads proc_pid_mountinfo(5).
func cgroupMounts() []cgroupMount {
	var all []cgroupMount
	eachLine("/proc/self/mountinfo", func(line string) {
		left, right, ok := strings.Cut(line, " - ")
		a, b := strings.Fields(left), strings.Fields(right)
		if !ok || len(a) < 6 || len(b) < 3 {
			return
		}
		m := cgroupMount{v2: b[0] == "cgroup2", root: a[3], point: a[4], controllers: strings.Split(b[2], ",")}
		if m.v2 || b[0] == "cgroup" {
			all = append(all, m)
		}
	})
	return all
}

// ownCgroups gives this process's path by controller, and by "" that in version 2; cgroups(7), /proc/pid/cgroup.
func ownCgroups() map[string]string {
	own := map[string]string{}
	eachLine("/proc/self/cgroup", func(line string) {
		parts := strings.SplitN(line, ":", 3)
		if len(parts) == 3 {
			for c := range strings.SplitSeq(parts[1], ",") {
				own[c] = parts[2]
			}
		}
	})
	return own
}

// hostLeaf is the version 2 folder that the host moves itself into when its own folder is to hand out controllers, which
// only folders without processes may (cgroup-v2.rst, "No Internal Process Constraint").
const hostLeaf = "ebb-host"

// baseV2 finds or makes a folder below which Sandboxes can have limits; failing that, one that at least
// takes cgroups, to kill by.
func baseV2(m cgroupMount, path string) (string, bool) {
	own := m.folder(path)
	if filepath.Base(own) == hostLeaf {
		own = filepath.Dir(own)
	}
	if !hasWord(filepath.Join(own, "cgroup.controllers"), "memory") {
		return own, canMake(own)
	}
	if handOut(own) && canMake(own) {
		return own, true
	}
	if alone(own) {
		leaf := filepath.Join(own, hostLeaf)
		_ = os.Mkdir(leaf, 0o755)
		if writeFile(filepath.Join(leaf, "cgroup.procs"), "0") == nil && handOut(own) {
			return own, true
		}
	}
	if os.Geteuid() == 0 {
		top := filepath.Join(m.point, "ebb")
		if err := os.Mkdir(top, 0o755); (err == nil || os.IsExist(err)) && handOut(m.point) && handOut(top) && canMake(top) {
			return top, true
		}
	}
	return own, canMake(own)
}

// handOut enables the controllers for the folders below, where they are not yet: that of memory first, which the kernel refuses to a folder
// with processes. The others it would give that folder, for threads; those below could hold no process then, not even the host's.
func handOut(dir string) bool {
	control := filepath.Join(dir, "cgroup.subtree_control")
	for _, c := range controllersV2 {
		if !hasWord(control, c) {
			_ = writeFile(control, "+"+c)
		}
		if c == "memory" && !hasWord(control, c) {
			return false
		}
	}
	return true
}

// alone reports whether this process is the only one in a folder.
func alone(dir string) bool {
	pids := readPids(filepath.Join(dir, "cgroup.procs"))
	return len(pids) == 1 && pids[0] == os.Getpid()
}

// canMake tries it.
func canMake(dir string) bool {
	probe := filepath.Join(dir, "ebb-probe-"+randomName())
	return os.Mkdir(probe, 0o755) == nil && os.Remove(probe) == nil
}

func hasWord(path, word string) bool {
	text, _ := os.ReadFile(path)
	return slices.Contains(strings.Fields(string(text)), word)
}

func readPids(path string) []int {
	text, _ := os.ReadFile(path)
	var all []int
	for f := range strings.FieldsSeq(string(text)) {
		if n, err := strconv.Atoi(f); err == nil && n > 0 { // 0: not in this pid namespace
			all = append(all, n)
		}
	}
	return all
}

func eachLine(path string, do func(string)) {
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		do(s.Text())
	}
}

// writeFile writes to a file that is there, in one write, as control files want it.
func writeFile(path, text string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return write(fd, []byte(text))
}

// write writes once more where a signal came between, as Go's own do: some control files give up then.
func write(fd int, b []byte) error {
	for {
		if _, err := unix.Write(fd, b); err != unix.EINTR {
			return err
		}
	}
}
