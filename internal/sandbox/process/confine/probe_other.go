//go:build !linux

package confine

import "os"

// Probe finds that there is nothing of it on this system.
func Probe() Host {
	h := Host{UID: os.Geteuid(), Yama: -1}
	for _, name := range []string{
		UserNamespace, MountNamespace, PIDNamespace, NetNamespace, IPCNamespace, UTSNamespace, MountTmpfs, MountProc, ReadOnlyRoot, NFTables,
		NoNewPrivs, SeccompFilter, LandlockRules,
	} {
		h.Findings = append(h.Findings, Finding{Name: name, Error: "this system is not Linux", Causes: []Cause{ByKernel}})
	}
	return h
}
