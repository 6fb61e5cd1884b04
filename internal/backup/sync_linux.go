package backup

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// syncTree brings a folder to disk with its file system: one call, however many files there are.
func syncTree(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}
