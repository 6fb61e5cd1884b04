package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/ebb-run/ebb/internal/errs"
)

// materialising is one unpacking that several callers wait for.
type materialising struct {
	done chan struct{}
	err  error // valid after done
}

// Materialise returns the folder with the Artifact's files, read-only and shared by all who ask for it. It lasts until
// Collect is told that the Artifact is not kept.
func (s *Store) Materialise(ctx context.Context, digest string) (dir string, err error) {
	if err := validDigest(digest); err != nil {
		return "", err
	}
	dir = s.tree(digest)
	for {
		s.mu.Lock()
		if s.mu.ready[digest] {
			s.mu.Unlock()
			return dir, nil
		}
		run, running := s.mu.trees[digest]
		if !running {
			run = &materialising{done: make(chan struct{})}
			s.mu.trees[digest] = run
		}
		s.mu.Unlock()
		if !running {
			run.err = s.materialise(ctx, digest)
			s.mu.Lock()
			delete(s.mu.trees, digest)
			s.mu.ready[digest] = run.err == nil
			s.mu.Unlock()
			close(run.done)
			if run.err != nil {
				return "", fmt.Errorf("unpack artifact %s: %w", digest[:12], run.err)
			}
			return dir, nil
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-run.done:
		}
		// The one who unpacked may have gone away in the middle: then this caller goes on.
		if run.err != nil && !errors.Is(run.err, context.Canceled) && !errors.Is(run.err, context.DeadlineExceeded) {
			return "", fmt.Errorf("unpack artifact %s: %w", digest[:12], run.err)
		}
	}
}

func (s *Store) materialise(ctx context.Context, digest string) error {
	m, err := s.Manifest(digest)
	if err != nil {
		return err
	}
	dir := s.tree(digest)
	if err := s.intact(dir, m); err == nil {
		return nil
	}
	tmp, err := os.MkdirTemp(filepath.Join(s.dir, "trees"), ".tmp-*")
	if err != nil {
		return spaceError(s.dir, err)
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	made := map[string]bool{}
	var links []Entry
	for i, e := range m.Entries {
		if i%64 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if e.Link != "" {
			links = append(links, e)
			continue
		}
		if err := s.place(tmp, e, made); err != nil {
			return fmt.Errorf("%s: %w", e.Path, err)
		}
	}
	if err := makeLinks(tmp, links); err != nil {
		return err
	}
	if err := os.Rename(tmp, dir); err == nil {
		return nil
	}
	// A damaged tree stands there: move it away first.
	old, err := os.MkdirTemp(filepath.Join(s.dir, "trees"), ".tmp-*")
	if err != nil {
		return spaceError(s.dir, err)
	}
	defer os.RemoveAll(old)
	if err := os.Rename(dir, filepath.Join(old, "tree")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Rename(tmp, dir)
}

// place puts one file of the tree: a hard link to its blob, or a copy where the file system has no more links.
func (s *Store) place(dir string, e Entry, made map[string]bool) error {
	to := filepath.Join(dir, filepath.FromSlash(e.Path))
	if parent := filepath.Dir(to); !made[parent] {
		if err := os.MkdirAll(parent, 0o755); err != nil {
			return spaceError(s.dir, err)
		}
		made[parent] = true
	}
	blob := s.blob(e.SHA256)
	if err := s.sound(blob, e); err != nil {
		return err
	}
	mode := fs.FileMode(0o444)
	if e.Mode == 0o755 {
		mode = 0o555
		exec, err := s.executable(blob, e)
		if err != nil {
			return err
		}
		blob = exec
	}
	err := os.Link(blob, to)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrExist):
		return errs.New(errs.Unsupported, "this disk cannot hold two names that differ only in case").
			WithHint("Rename or exclude one of them.")
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return spaceError(s.dir, err)
	}
	return s.copyBlob(blob, to, mode)
}

// sound checks a blob's size; a damaged one is removed, so that the next deploy brings it again.
func (s *Store) sound(blob string, e Entry) error {
	info, err := os.Lstat(blob)
	if errors.Is(err, fs.ErrNotExist) {
		return errs.New(errs.Internal, "the content %s is lost", e.SHA256[:12]).WithHint("Deploy again.")
	}
	if err != nil {
		return err
	}
	if info.Size() != e.Size || !info.Mode().IsRegular() {
		os.Remove(blob)
		os.Remove(blob + ".x")
		return errs.New(errs.Internal, "the content %s is damaged", e.SHA256[:12]).WithHint("Deploy again.")
	}
	return nil
}

// executable returns the twin of a blob that may be executed: links share their mode.
func (s *Store) executable(blob string, e Entry) (string, error) {
	twin := blob + ".x"
	if info, err := os.Lstat(twin); err == nil && info.Size() == e.Size {
		return twin, nil
	}
	tmp, err := os.CreateTemp(filepath.Dir(blob), ".tmp-*")
	if err != nil {
		return "", spaceError(s.dir, err)
	}
	name := tmp.Name()
	tmp.Close()
	os.Remove(name)
	if err := s.copyBlob(blob, name, 0o555); err != nil {
		os.Remove(name)
		return "", err
	}
	return twin, os.Rename(name, twin)
}

// copyBlob copies with a sync: what stands at its final name must be whole after a loss of power.
func (s *Store) copyBlob(from, to string, mode fs.FileMode) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return spaceError(s.dir, err)
	}
	_, err = io.Copy(w, r)
	return spaceError(s.dir, errors.Join(err, w.Chmod(mode), w.Sync(), w.Close()))
}

// intact says whether the folder holds the Manifest's files with their sizes and modes. Files beside them do not matter:
// nothing asks for those, and a guest of the same user may have left some.
func (s *Store) intact(dir string, m *Manifest) error {
	if _, err := os.Lstat(dir); err != nil {
		return err
	}
	for _, e := range m.Entries {
		p := filepath.Join(dir, filepath.FromSlash(e.Path))
		info, err := os.Lstat(p)
		if err != nil {
			return err
		}
		if e.Link != "" {
			if to, err := os.Readlink(p); err != nil || filepath.ToSlash(to) != e.Link {
				return errs.New(errs.Internal, "%s leads elsewhere", e.Path)
			}
			continue
		}
		if !info.Mode().IsRegular() || info.Size() != e.Size || (e.Mode == 0o755) != (info.Mode()&0o111 != 0) {
			return errs.New(errs.Internal, "%s has changed", e.Path)
		}
	}
	return nil
}
