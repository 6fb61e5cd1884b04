package server

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// inMemory says whether a folder is kept in memory, and programs may be run from it.
func inMemory(dir string) bool {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return false
	}
	return (st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC) && st.Flags&unix.ST_NOEXEC == 0
}

// mountedBelow says whether something is mounted below a folder, or that is not known.
func mountedBelow(dir string) bool {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return true
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") { // the fifth is the mount point: proc(5)
			return true
		}
	}
	return false
}
