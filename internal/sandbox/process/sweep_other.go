//go:build !linux

package process

// sweep finds nothing: without /proc and cgroups there is nothing to find guests by.
func (l *leftovers) sweep() bool { return true }
