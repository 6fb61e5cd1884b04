package artifact

import (
	"io/fs"
	"syscall"
)

func idOf(info fs.FileInfo) fileID {
	id := fileID{size: info.Size(), mtime: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		id.ctime, id.inode = st.Ctimespec.Nano(), st.Ino
	}
	return id
}
