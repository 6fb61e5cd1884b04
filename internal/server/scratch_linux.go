package server

import "golang.org/x/sys/unix"

// inMemory says whether a folder is kept in memory, and programs may be run from it.
func inMemory(dir string) bool {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return false
	}
	return (st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC) && st.Flags&unix.ST_NOEXEC == 0
}
