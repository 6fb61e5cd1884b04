//go:build !linux

package process

// hunt would look for processes.
type hunt struct{}

// sweep finds nothing: without /proc and cgroups there is nothing to find guests by.
func (l *leftovers) sweep() bool { return true }
