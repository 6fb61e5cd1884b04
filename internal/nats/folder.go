package nats

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

// The folder holds the files "format" and "lock" and what the server keeps under "jetstream".
const (
	formatFile = "format"
	lockFile   = "lock"
	serverDir  = "jetstream"
)

// Format is the version of the folder's layout. A newer one is refused untouched.
const Format = 1

const formatPrefix = "ebb-nats "

// checkFormat reads the version, or writes it to an empty folder.
func checkFormat(dir string) error {
	path := filepath.Join(dir, formatFile)
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(filepath.Join(dir, serverDir)); err == nil {
			return corrupt(dir, "%s is missing", path)
		}
		return writeFile(dir, path, fmt.Sprintf("%s%d\n", formatPrefix, Format))
	case err != nil:
		return diskError(path, "read", err)
	}
	num, ok := strings.CutPrefix(strings.TrimSpace(string(data)), formatPrefix)
	v, err := strconv.Atoi(num)
	switch {
	case !ok || err != nil || v < 1:
		return corrupt(dir, "%s does not hold a version", path)
	case v > Format:
		return errs.New(errs.Unsupported, "the store in %s has format %d; this ebb knows up to %d", dir, v, Format).
			WithHint("Use the ebb that wrote it, or a newer one. Nothing was changed.")
	}
	return nil
}

// writeFile writes a small file so that it is there in full or not at all.
func writeFile(dir, path, text string) error {
	f, err := os.OpenFile(filepath.Join(dir, ".new"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return diskError(dir, "write to", err)
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return diskError(path, "write", err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return diskError(dir, "open", err)
	}
	err = errors.Join(d.Sync(), d.Close())
	if err != nil {
		return diskError(dir, "sync", err)
	}
	return nil
}

// dirLock keeps other processes out of a folder. The kernel lets go of it when the process ends, however that is.
type dirLock struct{ f *os.File }

func lockDir(dir string) (*dirLock, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, diskError(dir, "lock", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	holder := func() int {
		buf := make([]byte, 32)
		n, _ := f.ReadAt(buf, 0)
		pid, _ := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
		return pid
	}
	// A process that was killed while it started another leaves the lock with that one until it is executed, or has seen that its parent is gone.
	for end := time.Now().Add(leftLock); errors.Is(err, syscall.EWOULDBLOCK) && gone(holder()) && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, diskError(dir, "lock", err)
		}
		by := "another process"
		if pid := holder(); pid > 0 {
			by = "process " + strconv.Itoa(pid)
		}
		return nil, errs.New(errs.Conflict, "the store in %s is in use by %s", dir, by).
			WithHint("Stop that one first, or choose another folder with --data.")
	}
	// The number is for people; the lock holds without it.
	_ = f.Truncate(0)
	_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return &dirLock{f}, nil
}

// leftLock bounds the wait for a lock whose process is gone.
const leftLock = 5 * time.Second

// gone tells whether the process has ended.
func gone(pid int) bool { return pid > 0 && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

func (l *dirLock) release() error {
	// A program that is being started has the file too until it is executed: closing alone would leave it locked.
	_ = syscall.Flock(int(l.f.Fd()), syscall.LOCK_UN)
	return l.f.Close()
}
