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
	// sharedNote is about a host without the rights of root.
	sharedNote = "the namespaces hold, but outside of them all functions are the same user as ebb: run ebb as root to give each its own"
)

// Isolated reports whether guests are cut off from the host, and if not, why.
func (d *Driver) Isolated() (bool, error) { return d.iso != nil, d.why }

// Protections says what bounds guests here, the most important first.
func (d *Driver) Protections() []Protection {
	var all []Protection
	if d.iso == nil {
		all = append(all,
			Protection{Name: "isolation", Mechanism: "none", Note: d.why.Error() + "; " + plainNote, Mend: "run ebb as root on Linux 5.12 or newer, or allow its user to make user namespaces"},
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
