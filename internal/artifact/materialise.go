package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
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
	tmp, err := os.MkdirTemp(s.trees, ".tmp-*")
	if err != nil {
		return spaceError(s.dir, err)
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	if err := s.fill(ctx, tmp, m); err != nil {
		return err
	}
	if err := os.Rename(tmp, dir); err == nil {
		return nil
	}
	// A damaged tree stands there: move it away first.
	old, err := os.MkdirTemp(s.trees, ".tmp-*")
	if err != nil {
		return spaceError(s.dir, err)
	}
	defer os.RemoveAll(old)
	if err := os.Rename(dir, filepath.Join(old, "tree")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Rename(tmp, dir)
}

// fill puts the Manifest's files and links into the empty folder dir.
func (s *Store) fill(ctx context.Context, dir string, m *Manifest) error {
	made := map[string]bool{}
	var files, links []Entry
	for _, e := range m.Entries {
		if e.Link != "" {
			links = append(links, e)
			continue
		}
		files = append(files, e)
		if parent := filepath.Join(dir, filepath.FromSlash(path.Dir(e.Path))); !made[parent] {
			if err := os.MkdirAll(parent, 0o755); err != nil {
				return spaceError(s.dir, err)
			}
			made[parent] = true
		}
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	_ = each(files, func(_ int, e Entry) error {
		if ctx.Err() == nil {
			if err := s.place(dir, e); err != nil {
				stop(fmt.Errorf("%s: %w", e.Path, err)) // the first is said, and the rest is not tried
			}
		}
		return nil
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return makeLinks(dir, links)
}

// place puts one file of the tree: a hard link to its blob where modes protect that, else a copy.
func (s *Store) place(dir string, e Entry) error {
	to := filepath.Join(dir, filepath.FromSlash(e.Path))
	blob := s.blob(e.SHA256)
	if err := s.sound(e); err != nil {
		return err
	}
	mode := fs.FileMode(0o444)
	if e.Mode == 0o755 {
		mode = 0o555
	}
	err := errors.ErrUnsupported
	if s.link {
		if e.Mode == 0o755 {
			if blob, err = s.executable(blob); err != nil {
				return err
			}
		}
		err = os.Link(blob, to)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		err = s.copyBlob(blob, to, mode) // or the file system has no more links
	}
	if errors.Is(err, fs.ErrExist) {
		return errs.New(errs.Unsupported, "this disk cannot hold two names that differ only in case").
			WithHint("Rename or exclude one of them.")
	}
	return spaceError(s.dir, err)
}

// sound checks a blob; a damaged one is removed, so that the next deploy brings it again.
func (s *Store) sound(e Entry) error {
	size, ok, err := s.whole(s.blob(e.SHA256))
	if errors.Is(err, fs.ErrNotExist) {
		return errs.New(errs.Internal, "the content %s is lost", e.SHA256[:12]).WithHint("Deploy again.")
	}
	if err != nil {
		return err
	}
	if !ok || size != e.Size {
		s.promote.Lock()
		s.discard(e.SHA256)
		s.promote.Unlock()
		return errs.New(errs.Internal, "the content %s is damaged", e.SHA256[:12]).WithHint("Deploy again.")
	}
	return nil
}

// executable returns the twin of a blob that may be executed: links share their mode.
func (s *Store) executable(blob string) (string, error) {
	twin := blob + ".x"
	if _, ok, err := s.whole(twin); err == nil && ok {
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

// copyBlob copies a file, without its bytes where the file system can share them. It does not sync: a copy that a loss of power has
// spoiled is found when the next process first looks at it, and made again.
func (s *Store) copyBlob(from, to string, mode fs.FileMode) error {
	r, err := s.content(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return spaceError(filepath.Dir(to), err)
	}
	if err = s.share(w, from); err != nil {
		_, err = io.Copy(w, r)
	}
	if err = errors.Join(err, w.Chmod(mode), w.Close()); err == nil && mode&0o111 != 0 {
		awaitWriters(to)
	}
	return spaceError(filepath.Dir(to), err)
}

// share makes w a file of the same bytes as one that is not sealed.
func (s *Store) share(w *os.File, from string) error {
	if s.box != nil {
		return errors.ErrUnsupported
	}
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	return clone(w, r)
}

// intact says whether the folder holds the Manifest's files with their contents and modes. Files beside them do not matter:
// nothing asks for those, and a guest of the same user may have left some.
func (s *Store) intact(dir string, m *Manifest) error {
	if _, err := os.Lstat(dir); err != nil {
		return err
	}
	return each(m.Entries, func(_ int, e Entry) error { return s.intactFile(dir, e) })
}

func (s *Store) intactFile(dir string, e Entry) error {
	p := filepath.Join(dir, filepath.FromSlash(e.Path))
	info, err := os.Lstat(p)
	if err != nil {
		return err
	}
	if e.Link != "" {
		if to, err := os.Readlink(p); err != nil || filepath.ToSlash(to) != e.Link {
			return errs.New(errs.Internal, "%s leads elsewhere", e.Path)
		}
		return nil
	}
	changed := errs.New(errs.Internal, "%s has changed", e.Path)
	if !info.Mode().IsRegular() || info.Size() != e.Size || (e.Mode == 0o755) != (info.Mode()&0o111 != 0) {
		return changed
	}
	blob := s.blob(e.SHA256)
	if e.Mode == 0o755 {
		blob += ".x"
	}
	if at, err := os.Lstat(blob); err == nil && os.SameFile(at, info) {
		if !s.link {
			return changed // a guest's writes would reach the blob
		}
		if _, ok, err := s.whole(blob); err != nil || !ok {
			return errors.Join(err, changed)
		}
		return nil
	}
	if sum, _, err := hashFile(p); err != nil || sum != e.SHA256 {
		return errors.Join(err, changed)
	}
	return nil
}
