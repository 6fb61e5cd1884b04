//go:build !linux && !darwin

package artifact

import "io/fs"

func idOf(info fs.FileInfo) fileID {
	return fileID{size: info.Size(), mtime: info.ModTime().UnixNano()}
}
