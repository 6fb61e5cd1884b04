//go:build !linux

package process_test

import "github.com/ebb-run/ebb/internal/sandbox"

// openV1 is a plain driver: cgroups are Linux's.
func openV1(dir string) (sandbox.Driver, error) { return open(dir) }

// charged reports whether a cgroup counts memory.
func charged(sandbox.Driver) bool { return false }

const asDenied = "deny-namespaces"

func deny() {}

const asContained = "as-in-a-container"

func contain() {}
