//go:build !linux

package server

// inMemory says that no folder is known to be kept in memory.
func inMemory(string) bool { return false }

// mountedBelow says that nothing is mounted for functions here.
func mountedBelow(string) bool { return false }
