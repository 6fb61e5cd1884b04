package artifact

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Collect removes Artifacts that keep refuses, their trees, and the blobs that no Artifact needs any more. keep must
// accept what is running, for its folder goes otherwise. What is younger than ten minutes, or was asked for by Missing
// since then, stays. It returns the bytes of the blobs removed.
func (s *Store) Collect(keep func(digest string) bool) (freed int64, err error) {
	s.promote.Lock()
	defer s.promote.Unlock()
	if freed, err = s.collect(keep, time.Now().Add(-young)); err != nil {
		return freed, fmt.Errorf("collect artifacts: %w", err)
	}
	return freed, nil
}

func (s *Store) collect(keep func(string) bool, before time.Time) (freed int64, err error) {
	list, err := os.ReadDir(filepath.Join(s.dir, "manifests"))
	if err != nil {
		return 0, err
	}
	needed, kept := map[string]bool{}, map[string]bool{}
	for _, d := range list {
		digest, ok := strings.CutSuffix(d.Name(), ".json")
		if !ok || !validSHA(digest) {
			continue
		}
		if !keep(digest) && older(d, before) {
			if err := os.Remove(s.manifestFile(digest)); err != nil {
				return 0, err
			}
			continue
		}
		m, err := s.Manifest(digest)
		if err != nil {
			return 0, err // what it needs is not known: remove nothing
		}
		kept[digest] = true
		for _, e := range m.Entries {
			needed[e.SHA256] = true
		}
	}
	if err := s.dropTrees(kept); err != nil {
		return 0, err
	}
	s.mu.Lock()
	for sha, at := range s.mu.asked {
		if at.Before(before) {
			delete(s.mu.asked, sha)
		} else {
			needed[sha] = true
		}
	}
	s.mu.Unlock()
	return s.dropBlobs(needed, before)
}

func (s *Store) dropTrees(kept map[string]bool) error {
	list, err := os.ReadDir(s.trees)
	if err != nil {
		return err
	}
	for _, d := range list {
		if !validSHA(d.Name()) || kept[d.Name()] {
			continue
		}
		s.mu.Lock()
		_, busy := s.mu.trees[d.Name()]
		delete(s.mu.ready, d.Name())
		s.mu.Unlock()
		if busy {
			continue
		}
		gone, err := os.MkdirTemp(s.trees, ".tmp-*")
		if err != nil {
			return err
		}
		err = os.Rename(s.tree(d.Name()), filepath.Join(gone, "tree"))
		if err = errors.Join(err, os.RemoveAll(gone)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) dropBlobs(needed map[string]bool, before time.Time) (freed int64, err error) {
	drop := func(dir string) error {
		list, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, d := range list {
			sha := strings.TrimSuffix(d.Name(), ".x")
			info, err := d.Info()
			if err != nil || needed[sha] || !validSHA(sha) || !info.ModTime().Before(before) {
				continue
			}
			if err := os.Remove(filepath.Join(dir, d.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			freed += info.Size()
			s.mu.Lock()
			delete(s.mu.whole, d.Name())
			s.mu.Unlock()
		}
		return nil
	}
	fans, err := os.ReadDir(filepath.Join(s.dir, "blobs"))
	if err != nil {
		return 0, err
	}
	for _, fan := range fans {
		if err := drop(filepath.Join(s.dir, "blobs", fan.Name())); err != nil {
			return freed, err
		}
	}
	return freed, drop(s.pending(""))
}

func older(d fs.DirEntry, before time.Time) bool {
	info, err := d.Info()
	return err == nil && info.ModTime().Before(before)
}
