package artifact

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// clone makes to share from's bytes until either is written, where the file system can.
func clone(to, from *os.File) error { return unix.IoctlFileClone(int(to.Fd()), int(from.Fd())) }

// awaitWriters waits until nobody has a program open for writing: a child that this process forked while it wrote the file has it open as well until
// it has become its own program, and until then the file cannot be run (ETXTBSY). A lease for reading is granted only when there is no writer
// (fcntl(2)); where there are no leases, nothing is waited for.
func awaitWriters(name string) {
	f, err := os.Open(name)
	if err != nil {
		return
	}
	defer f.Close()
	for range 1000 {
		if _, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK); !errors.Is(err, unix.EAGAIN) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	_, _ = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
}
