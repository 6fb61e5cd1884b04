//go:build !linux

package process_test

import "github.com/ebb-run/ebb/internal/sandbox"

// openV1 is a plain driver: cgroups are Linux's.
func openV1(dir string) (sandbox.Driver, error) { return open(dir) }

func again(sandbox.Driver) {}

// charged reports whether a cgroup counts memory.
func charged(sandbox.Driver) bool { return false }

// openCopies is a plain driver: zygotes are Linux's.
func openCopies(dir string) (sandbox.Driver, error) { return open(dir) }
func openAhead(dir string) (sandbox.Driver, error)  { return open(dir) }

// openStemmed is open: nothing comes from Templates.
func openStemmed(dir string) (sandbox.Driver, error) { return open(dir) }

const asDenied = "deny-namespaces"

func deny() {}

const asContained = "as-in-a-container"

func contain() {}
