package artifact

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ebb-run/ebb/internal/seal"
)

// modesProtect says whether a file's mode keeps this process, and so the guests of its user, from writing to it. It does
// not for root and for some file systems.
func modesProtect(dir string) (bool, error) {
	f, err := os.CreateTemp(dir, ".tmp-*")
	if err != nil {
		return false, err
	}
	defer os.Remove(f.Name())
	if err := f.Chmod(0o444); err != nil {
		f.Close()
		return false, err
	}
	if err := f.Close(); err != nil {
		return false, err
	}
	w, err := os.OpenFile(f.Name(), os.O_WRONLY, 0)
	if err != nil {
		return true, nil //nolint:nilerr // that is the protection
	}
	return false, w.Close()
}

// contentID changes with each write to a file. Times of change are not in it: a new link to the file sets them.
func contentID(info fs.FileInfo) fileID {
	id := idOf(info)
	id.ctime = 0
	return id
}

// whole says whether a file of blobs or pending holds the bytes of its name. It is read once per process, and again only when it
// was written to since.
func (s *Store) whole(file string) (size int64, ok bool, err error) {
	info, err := os.Lstat(file)
	if err != nil {
		return 0, false, err
	}
	if !info.Mode().IsRegular() {
		return 0, false, nil
	}
	name, id := filepath.Base(file), contentID(info)
	s.mu.Lock()
	seen, known := s.mu.whole[name]
	s.mu.Unlock()
	size = s.box.PlainSize(info.Size())
	if known && seen == id {
		return size, true, nil
	}
	sum, _, err := s.hash(file)
	if errors.Is(err, seal.ErrOpen) {
		return size, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	if sum != name[:len(sum)] {
		return size, false, nil
	}
	s.remember(name, id)
	return size, true, nil
}

// hash gives the digest of what a file of blobs or pending holds.
func (s *Store) hash(file string) (sum string, size int64, err error) {
	r, err := s.content(file)
	if err != nil {
		return "", 0, err
	}
	defer r.Close()
	return hashOf(r)
}

func (s *Store) remember(name string, id fileID) {
	s.mu.Lock()
	s.mu.whole[name] = id
	s.mu.Unlock()
}

// discard removes a blob that is damaged, so that it counts as missing and is brought again. promote is held: what stands there
// by now may be a sound one.
func (s *Store) discard(sha string) {
	if _, ok, err := s.whole(s.blob(sha)); err == nil && !ok {
		os.Remove(s.blob(sha))
		os.Remove(s.blob(sha) + ".x")
	}
}
