package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

// dataFormat is the version of the data directory's layout; one whose content is sealed has another, which an ebb without seals refuses.
const (
	dataFormat   = "1"
	sealedFormat = "1 sealed"
)

// RunFile says how to reach the Node that uses a data directory. It is there only while the Node runs.
type RunFile struct {
	PID     int       `json:"pid"`
	API     string    `json:"api"`
	Gateway string    `json:"gateway"`
	Started time.Time `json:"started"`
	Version string    `json:"version"`
}

// ReadRunFile returns how to reach the Node that uses dir, or an errs.NotFound error. A file left by a Node that was killed
// counts as none.
func ReadRunFile(dir string) (*RunFile, error) {
	data, err := os.ReadFile(filepath.Join(dir, "server.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errs.New(errs.NotFound, "no ebb runs on %s", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("read run file: %w", err)
	}
	var r RunFile
	if err := json.Unmarshal(data, &r); err != nil || r.API == "" {
		return nil, errs.New(errs.NotFound, "no ebb runs on %s", dir)
	}
	// The folder may have come with a project: only a Node of this machine holds its lock, and only loopback is called.
	if held, err := isLocked(filepath.Join(dir, "lock")); err != nil || !held {
		return nil, errs.New(errs.NotFound, "no ebb runs on %s", dir)
	}
	if u, err := url.Parse(r.API); err != nil || !OnThisMachine(u.Host) {
		return nil, errs.New(errs.Invalid, "%s names a control API that is not on this machine", filepath.Join(dir, "server.json")).
			WithHint("Delete that file; ebb writes it anew when it starts.")
	}
	return &r, nil
}

// makeDataDir makes the folder, keeps it out of git, and refuses one of a newer format, or one that is sealed where it shall not be, or not
// where it shall.
func makeDataDir(dir string, sealed bool) error {
	format := dataFormat
	if sealed {
		format = sealedFormat
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return errs.New(errs.Invalid, "create data directory: %w", err).WithHint("Choose another with --data DIR.")
	}
	marker := filepath.Join(dir, "FORMAT")
	data, err := os.ReadFile(marker)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := onlyOurs(dir); err != nil {
			return err
		}
		if err := MakeOwnFolder(dir); err != nil {
			return err
		}
		return dataDirError(dir, writeWhole(dir, "FORMAT", format+"\n", 0o644))
	case err != nil:
		return dataDirError(dir, err)
	case string(data) == sealedFormat+"\n" && !sealed:
		return errs.New(errs.Invalid, "the data directory %s is sealed", dir).
			WithHint("Give the file with the key that it was sealed with: --seal-key-file FILE. Nothing in it was changed.")
	case string(data) == dataFormat+"\n" && sealed:
		return errs.New(errs.Invalid, "the data directory %s was made without a seal", dir).
			WithHint("A data directory is sealed from its beginning or not at all: give a new one with --data DIR and deploy there, or start without --seal-key-file. Nothing in it was changed.")
	case string(data) != format+"\n":
		return errs.New(errs.Unsupported, "the data directory %s has format %.20q, this ebb reads %s", dir, data, dataFormat).
			WithHint("Use the ebb that wrote it, or another directory with --data DIR. Nothing in it was changed.")
	}
	return nil
}

// ElsewhereFile, in a project's own folder, names the data directory of a running ebb that keeps it elsewhere.
const ElsewhereFile = "ELSEWHERE"

const ignoreAll = "*\n"

// onlyOurs refuses a folder that holds what ebb did not write, before anything is added to it.
func onlyOurs(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return dataDirError(dir, err)
	}
	for _, e := range entries {
		switch name := e.Name(); name {
		case "build", "lost+found", ElsewhereFile, ".FORMAT.tmp", ".gitignore.tmp", "." + ElsewhereFile + ".tmp":
			continue
		case ".gitignore":
			if data, err := os.ReadFile(filepath.Join(dir, name)); err == nil && string(data) == ignoreAll {
				continue
			}
		}
		return errs.New(errs.Invalid, "%s is not a data directory of ebb: it holds %s and no file FORMAT", dir, e.Name()).
			WithHint("Choose an empty folder with --data DIR; if ebb did write this one, write the line %s into %s. Nothing in it was changed.",
				dataFormat, filepath.Join(dir, "FORMAT"))
	}
	return nil
}

// MakeOwnFolder makes a folder of ebb's that git ignores by itself.
func MakeOwnFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return dataDirError(dir, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, ".gitignore")); err == nil {
		return nil
	}
	return dataDirError(dir, writeWhole(dir, ".gitignore", ignoreAll, 0o644))
}

// PointElsewhere tells commands that look in own where the data directory is.
func PointElsewhere(own, data string) error {
	if err := MakeOwnFolder(own); err != nil {
		return err
	}
	return dataDirError(own, writeWhole(own, ElsewhereFile, data+"\n", 0o600))
}

// writeWhole writes a small file so that it is there in full or not at all, also when the disk is full or the power fails.
func writeWhole(dir, name, text string, mode fs.FileMode) error {
	tmp := filepath.Join(dir, "."+strings.TrimPrefix(name, ".")+".tmp")
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(tmp, filepath.Join(dir, name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return nil
}

// keyThere refuses to make a new key beside a store that an older one has sealed.
func keyThere(keyFile, store string) error {
	if _, err := os.Lstat(keyFile); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if _, err := os.Lstat(store); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errs.New(errs.Failed, "%s is missing, which the deployments in %s are sealed with", keyFile, store).
		WithHint("Put the key file back, or move %s away to start empty and deploy again. Nothing was changed.", store)
}

func dataDirError(dir string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC):
		return errs.New(errs.Unavailable, "the disk of %s is full", dir).WithHint("Free some space, or choose another folder with --data DIR.")
	}
	return errs.New(errs.Invalid, "write to data directory: %w", err).WithHint("Make %s writable, or choose another with --data DIR.", dir)
}

// dataLock holds a data directory for this process.
type dataLock struct {
	dir  string
	file *os.File
}

func lockData(dir string) (*dataLock, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, dataDirError(dir, err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	// A command that looks whether somebody is there holds it for an instant.
	// A process that was killed while it started another leaves the lock with that one until it is executed, or has seen that its parent is gone.
	for try := 0; err != nil && (try < 10 || try < 500 && holderGone(dir)); try++ {
		time.Sleep(10 * time.Millisecond)
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err != nil {
		_ = f.Close()
		who := "another ebb"
		if r, err := ReadRunFile(dir); err == nil {
			who = fmt.Sprintf("another ebb (process %d, %s)", r.PID, r.Gateway)
		}
		return nil, errs.New(errs.Exists, "%s is already using %s", who, dir).
			WithHint("Use that one, stop it, or choose another data directory with --data DIR.")
	}
	return &dataLock{dir: dir, file: f}, nil
}

// holderGone says whether the process that announced itself has ended.
func holderGone(dir string) bool {
	var r RunFile
	data, err := os.ReadFile(filepath.Join(dir, "server.json"))
	return err == nil && json.Unmarshal(data, &r) == nil && r.PID > 0 && errors.Is(syscall.Kill(r.PID, 0), syscall.ESRCH)
}

// isLocked says whether some process holds the lock file.
func isLocked(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); err != nil {
		return true, nil
	}
	return false, nil
}

// Unused returns an error where a Node has the data directory.
func Unused(dir string) error {
	held, err := isLocked(filepath.Join(dir, "lock"))
	if err != nil || !held {
		return nil
	}
	return errs.New(errs.Conflict, "an ebb is running on %s", dir).WithHint("Stop it first, or choose another data directory with --data DIR.")
}

// Announce writes the run file.
func (l *dataLock) Announce(r RunFile) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("announce server: %w", err)
	}
	return dataDirError(l.dir, writeWhole(l.dir, "server.json", string(data)+"\n", 0o600))
}

// Release lets go of the directory.
func (l *dataLock) Release() error {
	err := os.Remove(filepath.Join(l.dir, "server.json"))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	// A program that is being started has the file too until it is executed: closing alone would leave it locked.
	_ = syscall.Flock(int(l.file.Fd()), syscall.LOCK_UN)
	return errors.Join(err, l.file.Close())
}

func isInUse(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }
