package confine

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// causes says what may have refused something.
func (f facts) causes(name string, o outcome) []Cause {
	var all []Cause
	switch o.errno {
	case unix.ENOSPC, unix.EUSERS: // clone(2), of too many or too deeply nested namespaces
		return []Cause{ByLimit}
	case unix.ENOSYS:
		if f.seccomp {
			all = append(all, BySeccomp)
		}
		return append(all, ByKernel)
	case unix.EAGAIN, unix.ENOMEM: // no memory or no processes left: nothing that was tried
		return []Cause{ByUnknown}
	case unix.EPERM, unix.EACCES:
	default:
		return []Cause{ByKernel}
	}
	if f.noClone && !f.admin {
		all = append(all, BySysctl)
	}
	if name == MountProc && f.masked && o.step == "mount proc" {
		all = append(all, ByMaskedProc)
	}
	if f.seccomp && len(all) == 0 {
		all = append(all, BySeccomp)
	}
	if f.profile != "" {
		all = append(all, ByProfile)
	}
	if f.restricted && !f.admin {
		all = append(all, ByAppArmor)
	}
	if len(all) == 0 {
		return []Cause{ByUnknown}
	}
	return all
}

// mends are what to do about what was denied.
func (f facts) mends(denied []Finding) []Mend {
	var causes []Cause
	var limits []string // kinds of namespaces
	for _, d := range denied {
		causes = append(causes, d.Causes...)
		if kind, ok := limitOf[d.Name]; ok && slices.Contains(d.Causes, ByLimit) && d.Note == "" {
			limits = append(limits, kind)
		}
	}
	slices.Sort(causes)
	causes = slices.Compact(causes)
	has := func(c Cause) bool { return slices.Contains(causes, c) }
	var all []Mend
	var lines strings.Builder
	var by []Cause
	if has(ByLimit) {
		by = append(by, ByLimit)
		for _, kind := range limits {
			fmt.Fprintf(&lines, "user.max_%s_namespaces = 15000\n", kind)
		}
	}
	if has(BySysctl) {
		by = append(by, BySysctl)
		lines.WriteString("kernel.unprivileged_userns_clone = 1\n")
	}
	if lines.Len() > 0 {
		all = append(all, Mend{by, f.onHost() + "/etc/sysctl.d/60-ebb.conf", lines.String(), "sysctl --system"})
	}
	if has(ByAppArmor) {
		all = append(all, Mend{[]Cause{ByAppArmor}, f.onHost() + "/etc/apparmor.d/ebb", fmt.Sprintf(appArmor, f.exe), "apparmor_parser -r /etc/apparmor.d/ebb"})
	}
	if has(BySeccomp) || has(ByProfile) || has(ByMaskedProc) {
		all = append(all, f.around(has)...)
	}
	if slices.ContainsFunc(denied, func(d Finding) bool { return d.Name == NFTables && slices.Contains(d.Causes, ByKernel) }) {
		all = append(all, Mend{[]Cause{ByKernel}, f.onHost() + "/etc/modules-load.d/ebb.conf", "nf_tables\nnft_chain_nat\nnft_redir\n",
			"modprobe -a nf_tables nft_chain_nat nft_redir"})
	}
	if f.landlockOff {
		list := "landlock"
		if f.lsm != "" {
			list += "," + f.lsm
		}
		all = append(all, Mend{[]Cause{ByKernel}, f.onHost() + "the kernel's command line (often GRUB_CMDLINE_LINUX in /etc/default/grub)", "lsm=" + list + "\n",
			"update-grub && reboot"})
	}
	return all
}

// limitOf are the sysctls' names of namespaces: user.max_*_namespaces.
var limitOf = map[string]string{
	UserNamespace: "user", MountNamespace: "mnt", PIDNamespace: "pid", NetNamespace: "net", IPCNamespace: "ipc", UTSNamespace: "uts",
}

// onHost says that a file is not the container's.
func (f facts) onHost() string {
	if f.container == "" || f.container == "systemd" {
		return ""
	}
	return "on the host: "
}

// around mends what surrounds this process.
func (f facts) around(has func(Cause) bool) []Mend {
	var by []Cause
	for _, c := range []Cause{BySeccomp, ByProfile, ByMaskedProc} {
		if has(c) {
			by = append(by, c)
		}
	}
	line := func(c Cause, text string) string {
		if has(c) {
			return text
		}
		return ""
	}
	switch f.container {
	case "kubernetes":
		return []Mend{{by, "the pod's spec (a cluster may also have to allow it by its Pod Security level: privileged)",
			"hostUsers: false\ncontainers:\n- name: ebb\n  securityContext:\n" +
				line(BySeccomp, "    seccompProfile:\n      type: Unconfined\n") +
				line(ByProfile, "    appArmorProfile:\n      type: Unconfined\n") +
				line(ByMaskedProc, "    procMount: Unmasked\n"), ""}}
	case "systemd":
		return []Mend{{by, "/etc/systemd/system/ebb.service.d/isolation.conf", "[Service]\n" +
			line(BySeccomp, "RestrictNamespaces=no\nSystemCallFilter=\nSystemCallArchitectures=\nRestrictAddressFamilies=\n") +
			line(ByProfile, "AppArmorProfile=\n") +
			line(ByMaskedProc, "ProtectKernelTunables=no\nProtectKernelLogs=no\nProtectControlGroups=no\nInaccessiblePaths=\nReadOnlyPaths=\n"),
			"systemctl daemon-reload && systemctl restart ebb"}}
	case "podman":
		return []Mend{{by, "the command that starts the container", "podman run" + line(BySeccomp, " --security-opt seccomp=unconfined") +
			line(ByProfile, " --security-opt apparmor=unconfined") + line(ByMaskedProc, " --security-opt unmask=ALL") + " …\n", ""}}
	case "docker":
		return []Mend{{by, "the command that starts the container", "docker run" + line(BySeccomp, " --security-opt seccomp=unconfined") +
			line(ByProfile, " --security-opt apparmor=unconfined") + line(ByMaskedProc, " --security-opt systempaths=unconfined") + " …\n", ""}}
	}
	return nil // whoever put it around this process is not known
}

// appArmor lets one program make user namespaces, as Ubuntu ships it for browsers: it is confined by nothing else.
const appArmor = `abi <abi/4.0>,
include <tunables/global>

profile ebb %s flags=(unconfined) {
  userns,

  include if exists <local/ebb>
}
`
