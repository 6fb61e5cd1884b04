package process

import (
	"slices"

	"github.com/ebb-run/ebb/internal/sandbox/process/confine"
)

// Protection is one thing a Driver does, or cannot do, on this machine.
type Protection struct {
	Name      string // "memory limit"
	Mechanism string // "cgroup v1"; "none"
	Strong    bool   // a guest cannot get around it
	Note      string // what it means for the user; may be empty
	Mend      string // what would make it strong; empty when it is, or when nothing would
}

const (
	plainNote = "functions run as ordinary processes of this user: they can read and write whatever this user can, reach the network, and see each other. Run only code that you trust"
	// namesNote is about the names of a cloud's services, which sandboxes lead here.
	namesNote = "AWS's SDKs, and what honours HTTPS_PROXY, find ebb in the place of AWS; a program that looks names up by itself and honours no proxy still reaches the real AWS, without credentials of this user"
	// sharedNote is about a host without the rights of root.
	sharedNote = "the namespaces hold, but outside of them all functions are the same user as ebb: run ebb as root to give each its own"
)

// Isolated reports whether guests are cut off from the host, and if not, why.
func (d *Driver) Isolated() (bool, error) { return d.iso != nil, d.why }

// Protections says what bounds guests here, the most important first.
func (d *Driver) Protections() []Protection {
	var all []Protection
	if d.iso == nil && d.walls != nil {
		all = append(all, d.wallProtections()...)
	} else if d.iso == nil {
		all = append(all,
			Protection{Name: "isolation", Mechanism: "none", Note: d.why.Error() + "; " + plainNote, Mend: "run ebb as root on Linux 5.12 or newer, or allow its user to make user namespaces"},
			Protection{Name: "names", Mechanism: "variables, hooks in Node.js and Python, a proxy", Note: namesNote},
			Protection{Name: "temp folder size", Mechanism: "none", Note: "the size of a function's temp folder is not limited"})
	} else {
		all = append(all,
			Protection{Name: "isolation", Mechanism: "user, mount, pid, network, ipc and uts namespaces, a read-only root, no capabilities, no new privileges", Strong: true},
			Protection{Name: "system calls", Mechanism: "seccomp", Strong: true},
			Protection{Name: "files", Mechanism: "landlock", Strong: true},
			Protection{Name: "temp folder size", Mechanism: "tmpfs", Strong: true})
		network := Protection{Name: "network", Mechanism: "loopback alone; every connection through ebb's egress rules", Strong: true}
		if !d.iso.captures() {
			network.Mechanism = "loopback alone; declared destinations through ebb's egress rules"
			network.Note = "this kernel has no nf_tables redirect (or does not let this user have it), so functions reach only destinations that the egress setting names with their ports"
			network.Mend = "load the kernel module nf_tables: modprobe nf_tables nft_redir"
		}
		all = append(all, network)
		if !d.iso.landlocked() {
			all[2] = Protection{Name: "files", Mechanism: "read-only mounts", Strong: true, Note: "this kernel has no Landlock as a second line"}
		}
		if !d.iso.separateUsers() {
			all[0].Note = sharedNote
		}
	}
	for _, p := range d.fences.protections() {
		if p.Name == "tree kill" && !p.Strong && d.iso != nil {
			p = Protection{Name: p.Name, Mechanism: "pid namespace", Strong: true}
		}
		all = append(all, p)
	}
	return all
}

// Confined reports whether guests that are not isolated are kept to their own files and from new rights.
func (d *Driver) Confined() bool { return d.walls != nil && d.walls.files() }

// wallProtections are those of guests without namespaces.
func (d *Driver) wallProtections() []Protection {
	files := Protection{Name: "files", Mechanism: "landlock", Strong: true,
		Note: "functions see the system's programs, their code and their temp folder, which TMPDIR names; " + d.walls.tmp()}
	if !d.walls.files() {
		files = Protection{Name: "files", Mechanism: "none", Note: "this kernel has no Landlock: functions can read and write whatever this user can"}
	}
	others := Protection{Name: "other processes", Mechanism: "landlock", Strong: true}
	if !d.walls.scoped() {
		others = Protection{Name: "other processes", Mechanism: "none", Note: "functions can end each other and ebb with a signal", Mend: "Linux 6.12 or newer keeps signals inside, or namespaces"}
	}
	return []Protection{
		{Name: "isolation", Mechanism: "no capabilities, no new privileges, a filter of system calls", Note: d.why.Error() + "; functions share this machine's network and user, and see its processes",
			Mend: "run ebb on Linux 5.12 or newer, as root or as a user that may make namespaces: below is what is denied here"},
		{Name: "system calls", Mechanism: "seccomp", Strong: true}, files, others,
		{Name: "network", Mechanism: "none", Note: "functions reach whatever this machine reaches; only what honours the proxy variables keeps to the egress setting"},
		{Name: "names", Mechanism: "variables, hooks in Node.js and Python, a proxy", Note: namesNote},
		{Name: "temp folder size", Mechanism: "none", Note: "the size of a function's temp folder is not limited"},
	}
}

// Diagnose tries what an isolated Sandbox needs, one thing after the other, and says what this machine denies and how that is mended. It
// takes some 30 ms.
func Diagnose() []Protection {
	host := confine.Probe()
	var all []Protection
	said := map[string]bool{}
	for _, f := range host.Denied() {
		p := Protection{Name: f.Name, Mechanism: "denied", Note: f.Error}
		if f.Note != "" {
			p.Note += "; " + f.Note
		}
		for _, m := range host.Mends {
			if !slices.ContainsFunc(m.Causes, func(c confine.Cause) bool { return slices.Contains(f.Causes, c) }) {
				continue
			}
			text := "In " + m.Where + ":\n" + m.Text
			if m.Then != "" {
				text += "Then: " + m.Then + "\n"
			}
			if !said[text] {
				p.Mend += text
			}
			said[text] = true
		}
		all = append(all, p)
	}
	return all
}
