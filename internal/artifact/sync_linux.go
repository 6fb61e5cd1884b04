package artifact

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncAll brings everything written on dir's file system to disk.
func syncAll(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}
