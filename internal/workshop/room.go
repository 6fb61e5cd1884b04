package workshop

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// own gives a file to the user that Sandboxes are outside.
func (w *Workshop) own(path string) error {
	if !w.changes() {
		return nil
	}
	return os.Lchown(path, w.o.User, w.o.User)
}

// changes reports whether that is another than this process's.
func (w *Workshop) changes() bool {
	return w.o.User >= 0 && os.Geteuid() == 0 && w.o.User != os.Geteuid()
}

// giveBack gives a file to the owner of what it is beside.
func (w *Workshop) giveBack(path string, owner fs.FileInfo) error {
	if !w.changes() {
		return nil
	}
	return chownAs(path, owner)
}

// makeFolder makes one that guests may write to.
func (w *Workshop) makeFolder(path string) error {
	if err := os.Mkdir(path, 0o755); err != nil {
		if info, there := os.Lstat(path); there != nil || !info.IsDir() { // a link of the project's, perhaps
			return err
		}
	}
	if err := os.Chmod(path, 0o755); err != nil {
		return err
	}
	return w.own(path)
}

// hand gives a folder, not what it holds, to guests: it is theirs already.
func (w *Workshop) hand(path string) error {
	if err := os.Chmod(path, 0o755); err != nil {
		return err
	}
	return w.own(path)
}

// handAll gives a folder and what it holds to guests.
func (w *Workshop) handAll(dir string) error {
	return filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return w.own(p)
	})
}

// handNew makes a folder below dir, with those above it.
func (w *Workshop) handNew(dir, path string) error {
	rel, err := filepath.Rel(dir, path)
	if err != nil {
		return err
	}
	at := dir
	for part := range strings.SplitSeq(rel, string(filepath.Separator)) {
		at = filepath.Join(at, part)
		if info, err := os.Lstat(at); err == nil && info.IsDir() {
			continue
		}
		if err := w.makeFolder(at); err != nil {
			return err
		}
	}
	return nil
}

const (
	mostCached = 4 << 30 // bytes in a folder of caches; more of it is dropped whole, for it can be had again
	lookAgain  = 24 * time.Hour
)

// trim drops a folder of caches that has become too large. It looks once a day.
func trim(dir string) error {
	stamp := dir + ".looked"
	if info, err := os.Stat(stamp); err == nil && time.Since(info.ModTime()) < lookAgain {
		return nil
	}
	var size int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				size += info.Size()
			}
		}
		return nil
	})
	if size > mostCached {
		list, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, d := range list {
			removeAll(filepath.Join(dir, d.Name()))
		}
	}
	return os.WriteFile(stamp, nil, 0o644)
}

// sweep removes what Jobs left that were killed with this program.
func (w *Workshop) sweep() {
	list, _ := filepath.Glob(filepath.Join(w.o.Dir, "job-*"))
	for _, dir := range list {
		if info, err := os.Lstat(dir); err == nil && time.Since(info.ModTime()) > lookAgain {
			removeAll(dir)
		}
	}
}

// removeAll removes a folder, also where its rights were taken away.
func removeAll(dir string) {
	if os.RemoveAll(dir) == nil {
		return
	}
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(p, 0o700)
		}
		return nil
	})
	_ = os.RemoveAll(dir)
}
