package confine

// The names of findings, in the order in which Probe gives them.
const (
	UserNamespace  = "user namespace"
	MountNamespace = "mount namespace"
	PIDNamespace   = "pid namespace"
	NetNamespace   = "network namespace"
	IPCNamespace   = "ipc namespace"
	UTSNamespace   = "uts namespace"
	MountTmpfs     = "mounting tmpfs"
	MountProc      = "mounting proc"
	ReadOnlyRoot   = "read-only root" // open_tree and mount_setattr
	NFTables       = "nf_tables redirect"
	NoNewPrivs     = "no_new_privs"
	SeccompFilter  = "seccomp filter"
	LandlockRules  = "landlock"
)

// Cause is why something is denied, as far as can be told from inside.
type Cause string

// The causes.
const (
	// ByKernel: the kernel is too old or was built without it, or a module is missing.
	ByKernel Cause = "kernel"
	// ByLimit: user.max_*_namespaces is used up or 0, here or in what surrounds this process.
	ByLimit Cause = "limit"
	// BySysctl: kernel.unprivileged_userns_clone is 0 (Debian).
	BySysctl Cause = "sysctl"
	// ByAppArmor: kernel.apparmor_restrict_unprivileged_userns is 1 (Ubuntu), and no profile allows it to this program.
	ByAppArmor Cause = "apparmor"
	// ByProfile: this process runs under an AppArmor profile, as Docker's.
	ByProfile Cause = "apparmor profile"
	// BySeccomp: this process runs under a filter of system calls, as of a container or a systemd unit.
	BySeccomp Cause = "seccomp"
	// ByMaskedProc: parts of /proc are covered by other mounts, as in containers; the kernel then mounts no other.
	ByMaskedProc Cause = "masked proc"
	// ByUnknown: none of these; another security module, or a chroot.
	ByUnknown Cause = "unknown"
)

// Host is what the kernel and what surrounds this process allow it to set up. It is data.
type Host struct {
	Kernel      string    `json:"kernel"`              // the release, as of uname
	UID         int       `json:"uid"`                 // the effective user id
	Privileged  bool      `json:"privileged"`          // has CAP_SYS_ADMIN, so that namespaces need no user namespace
	Container   string    `json:"container,omitempty"` // what it runs in: "docker", "kubernetes", "podman", "systemd" (a unit), or another's name
	LandlockABI int       `json:"landlockABI"`         // 0 when there is none
	Yama        int       `json:"yama"`                // kernel.yama.ptrace_scope; -1 when there is none. It denies nothing that ebb needs.
	Findings    []Finding `json:"findings"`
	Mends       []Mend    `json:"mends,omitempty"` // of all findings, each once
}

// Finding is one thing that was tried.
type Finding struct {
	Name   string  `json:"name"`
	OK     bool    `json:"ok"`
	Error  string  `json:"error,omitempty"`  // the step that was refused and the kernel's answer
	Causes []Cause `json:"causes,omitempty"` // those that apply, the most likely first; all of them may have to be mended
	Note   string  `json:"note,omitempty"`
}

// Mend is what somebody who administers the machine can do.
type Mend struct {
	Causes []Cause `json:"causes"`
	Where  string  `json:"where"`          // a file to write, or where to change something
	Text   string  `json:"text"`           // what to put there, exactly; lines end with \n
	Then   string  `json:"then,omitempty"` // a command that puts it to work
}

// Allows reports whether something was tried and worked.
func (h Host) Allows(name string) bool {
	for _, f := range h.Findings {
		if f.Name == name {
			return f.OK
		}
	}
	return false
}

// Denied are the findings that did not work.
func (h Host) Denied() []Finding {
	var all []Finding
	for _, f := range h.Findings {
		if !f.OK {
			all = append(all, f)
		}
	}
	return all
}
