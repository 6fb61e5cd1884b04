package process

import "github.com/ebb-run/ebb/internal/errs"

// Protection is one thing a Driver does, or cannot do, on this machine.
type Protection struct {
	Name      string // "memory limit"
	Mechanism string // "cgroup v1"; "none"
	Strong    bool   // a guest cannot get around it
	Note      string // what it means for the user; may be empty
	Mend      string // what would make it strong; empty when it is, or when nothing would
}

const (
	isolationNote = "functions run as ordinary processes of this user: they can read and write whatever this user can, reach the network, and see each other. Run only code that you trust"
	isolationMend = "there is no mend yet: isolation by namespaces, a read-only root and seccomp is to come"
)

// Protections says what bounds guests here, the most important first.
func (d *Driver) Protections() []Protection {
	all := []Protection{{Name: "isolation", Mechanism: "none", Note: isolationNote, Mend: isolationMend}}
	all = append(all, d.fences.protections()...)
	return append(all, Protection{Name: "temp folder size", Mechanism: "none", Note: "the size of a function's temp folder is not limited"})
}

var errNoIsolation = errs.New(errs.Unsupported, "isolation needs Linux")
