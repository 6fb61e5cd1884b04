package workshop

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/ebb-run/ebb/internal/build"
	"github.com/ebb-run/ebb/internal/errs"
)

// bench is a Job's place: a copy of the project, and folders to work in.
type bench struct {
	w       *Workshop
	job     build.Job
	dir     string   // removed in the end
	files   string   // the copy of Root
	cache   string   // the project's own
	modules []string // folders node_modules that are shown and not copied
	size    int64    // of the copy
}

// notCopied are folders of which no tool has to know: what ebb and others keep in projects, and the history.
var notCopied = map[string]bool{".git": true, ".ebb": true, ".serverless": true, ".aws-sam": true}

func (w *Workshop) openBench(j build.Job) (_ *bench, err error) {
	b := &bench{w: w, job: j, cache: filepath.Join(w.o.Dir, "cache")}
	for _, dir := range []string{w.o.Dir, w.o.Shared, b.cache} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	if err := trim(w.o.Shared); err != nil {
		return nil, err
	}
	if err := trim(b.cache); err != nil {
		return nil, err
	}
	for _, dir := range []string{w.o.Shared, b.cache} {
		if err := w.hand(dir); err != nil {
			return nil, err
		}
	}
	w.sweep()
	if b.dir, err = os.MkdirTemp(w.o.Dir, "job-*"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	b.files = filepath.Join(b.dir, "files")
	if j.Root != "" {
		if err := b.copy(j.Root, b.files); err != nil {
			return nil, err
		}
	}
	if git := filepath.Join(j.Root, ".git"); j.Git && isFolder(git) && plain(j.Root, ".git") { // or a link would have any folder shown
		b.modules = append(b.modules, git)
		if err := b.point(git); err != nil {
			return nil, err
		}
	}
	for _, dir := range append(append([]string{}, j.Writes...), j.Shows...) {
		if err := b.point(dir); err != nil {
			return nil, err
		}
	}
	for _, dir := range j.Writes {
		if err := w.handAll(dir); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// close removes the Job's place.
func (b *bench) close() {
	if b.dir == "" {
		return
	}
	removeAll(b.dir)
}

// at is where a path of Root is meanwhile.
func (b *bench) at(path string) string {
	for _, dir := range b.job.Writes {
		if within(path, dir) {
			return path
		}
	}
	return b.copied(path)
}

// copied is where a path of Root is in the copy.
func (b *bench) copied(path string) string {
	rel, err := filepath.Rel(b.job.Root, path)
	if err != nil || b.job.Root == "" || !filepath.IsLocal(rel) {
		return path
	}
	return filepath.Join(b.files, rel)
}

// point makes what a folder or file within Root is mounted on.
func (b *bench) point(path string) error {
	if b.job.Root == "" || !under(path, b.job.Root) {
		return nil
	}
	at := b.copied(path)
	if isFolder(path) {
		return b.w.handNew(b.files, at)
	}
	if err := b.w.handNew(b.files, filepath.Dir(at)); err != nil {
		return err
	}
	f, err := os.OpenFile(at, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// copy copies a folder of the project.
func (b *bench) copy(from, to string) error {
	if err := b.w.makeFolder(to); err != nil {
		return err
	}
	list, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, d := range list {
		name := d.Name()
		source, target := filepath.Join(from, name), filepath.Join(to, name)
		switch {
		case d.IsDir() && (notCopied[name] || isRegular(filepath.Join(source, "pyvenv.cfg"))):
		case d.IsDir() && name == "node_modules" && !b.isResult(source):
			b.modules = append(b.modules, source)
			err = b.w.makeFolder(target)
		case d.IsDir():
			err = b.copy(source, target)
		case d.Type() == fs.ModeSymlink:
			err = b.copyLink(source, target)
		case d.Type().IsRegular():
			err = b.copyFile(source, target)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) isResult(path string) bool {
	for _, r := range b.job.Results {
		if path == r || under(path, r) {
			return true
		}
	}
	return b.job.Modules && filepath.Base(path) == "node_modules" && under(path, b.job.Dir)
}

func (b *bench) copyLink(from, to string) error {
	target, err := os.Readlink(from)
	if err != nil {
		return err
	}
	if err := os.Symlink(target, to); err != nil {
		return err
	}
	return b.w.own(to)
}

// copyFile copies a file with its time, by which make judges, and its right to be run.
func (b *bench) copyFile(from, to string) error {
	r, err := os.OpenFile(from, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // meanwhile
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil // nor could the tool have read it
	}
	if err != nil {
		return err
	}
	defer r.Close()
	info, err := r.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return err
	}
	if b.size += info.Size(); b.size > b.w.o.Limits.DiskBytes {
		return errs.New(errs.Invalid, "%s and what is beside it are larger than the %d MiB that a build may write", b.job.Root, b.w.o.Limits.DiskBytes>>20).
			WithHint("Keep data out of the project's folder.")
	}
	mode := fs.FileMode(0o644)
	if info.Mode()&0o111 != 0 {
		mode = 0o755
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err == nil {
		err = os.Chtimes(to, info.ModTime(), info.ModTime())
	}
	if err == nil {
		err = b.w.own(to)
	}
	return err
}

// settle makes what was written in the Job's Writes this machine's own and harmless. Nothing runs any more.
func (b *bench) settle() {
	for _, dir := range b.job.Writes {
		info, err := os.Stat(filepath.Dir(dir))
		if err == nil {
			_ = b.cleanse(dir, dir, info)
		}
	}
}

// deliver brings the Results to their places.
func (b *bench) deliver() error {
	results, err := b.results()
	if err != nil || len(results) == 0 {
		return err
	}
	owner, err := os.Stat(b.job.Root)
	if err != nil {
		return err
	}
	for _, path := range results {
		rel, err := filepath.Rel(b.job.Root, path)
		if err != nil || !filepath.IsLocal(rel) || rel == "." {
			return errs.New(errs.Invalid, "%s is not in %s", path, b.job.Root)
		}
		from := filepath.Join(b.files, rel)
		if info, err := os.Lstat(from); err != nil || !plain(b.files, rel) || !info.IsDir() && !info.Mode().IsRegular() {
			continue // it made none
		}
		if !plain(b.job.Root, filepath.Dir(rel)) {
			return errs.New(errs.Invalid, "%s is behind a symbolic link; nothing is written there", path)
		}
		if err := b.cleanse(from, b.files, owner); err != nil {
			return err
		}
		if filepath.Base(path) == "node_modules" {
			if err = b.swap(from, path); errors.Is(err, syscall.EXDEV) || errors.Is(err, syscall.EBUSY) {
				err = refill(from, path)
			}
		} else {
			err = merge(from, path, owner)
		}
		if err != nil {
			return fmt.Errorf("put %s in its place: %w", path, err)
		}
	}
	return nil
}

// results lists what is to be brought back.
func (b *bench) results() ([]string, error) {
	all := b.job.Results
	if !b.job.Modules {
		return all, nil
	}
	err := filepath.WalkDir(b.at(b.job.Dir), func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() || d.Name() != "node_modules" {
			return err
		}
		rel, err := filepath.Rel(b.files, p)
		if path := filepath.Join(b.job.Root, rel); err == nil && isFolder(filepath.Dir(path)) {
			all = append(all, path)
		}
		return fs.SkipDir
	})
	return all, err
}

// plain reports whether no part of a path below dir is a link; what is not there is none.
func plain(dir, rel string) bool {
	at := dir
	for part := range strings.SplitSeq(rel, string(filepath.Separator)) {
		at = filepath.Join(at, part)
		if info, err := os.Lstat(at); err == nil && info.Mode()&fs.ModeSymlink != 0 {
			return false
		}
	}
	return true
}

// cleanse makes a tree one that this machine's user may look at: files and folders of his own without special rights, and links that stay
// within bound.
func (b *bench) cleanse(dir, bound string, owner fs.FileInfo) error {
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil && d == nil {
			return err
		}
		if d.Type() == fs.ModeSymlink {
			if !b.staysWithin(p, bound) {
				return os.Remove(p)
			}
			return b.w.giveBack(p, owner)
		}
		info, ierr := d.Info()
		if ierr != nil {
			return ierr
		}
		if !info.IsDir() && !info.Mode().IsRegular() {
			return os.Remove(p)
		}
		mode := info.Mode().Perm() | 0o600
		if info.IsDir() {
			mode |= 0o700
		}
		if err := b.w.giveBack(p, owner); err != nil {
			return err
		}
		if mode &^= 0o022; mode != info.Mode()&^fs.ModeDir {
			return os.Chmod(p, mode)
		}
		return nil
	})
}

// staysWithin reports whether a link leads to something below bound, or to something of the project where it is not in the copy. In the
// copy one that is absolute is made relative.
func (b *bench) staysWithin(link, bound string) bool {
	target, err := os.Readlink(link)
	if err != nil {
		return false
	}
	if bound == b.files && filepath.IsAbs(target) {
		short, err := filepath.Rel(filepath.Dir(link), b.at(target))
		if err != nil || !under(b.at(target), b.files) || os.Remove(link) != nil || os.Symlink(short, link) != nil {
			return false
		}
	}
	real, err := filepath.EvalSymlinks(link)
	if err != nil {
		return false
	}
	for _, dir := range []string{bound, b.job.Root} {
		top, err := filepath.EvalSymlinks(dir)
		if err == nil && dir != "" && (real == top || under(real, top)) {
			return true
		}
		if bound == b.files {
			return false
		}
	}
	return false
}

// swap puts a folder in the place of another, whole.
func (b *bench) swap(from, to string) error {
	old := filepath.Join(b.dir, "old")
	_ = os.RemoveAll(old)
	err := os.Rename(to, old)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	}
	if err := os.Rename(from, to); err != nil {
		_ = os.Rename(old, to)
		return err
	}
	return nil
}

// refill gives a folder that cannot be replaced, since something is mounted on it or it is on another disk, the content of another.
func refill(from, to string) error {
	there, err := os.ReadDir(to)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, d := range there {
		if err := os.RemoveAll(filepath.Join(to, d.Name())); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	return os.CopyFS(to, os.DirFS(from))
}

// merge brings files over, each whole, where they differ.
func merge(from, to string, owner fs.FileInfo) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		info, err := d.Info()
		if err != nil {
			return err
		}
		there, terr := os.Lstat(target)
		switch {
		case d.IsDir() && notCopied[d.Name()]:
			return fs.SkipDir
		case d.IsDir() && terr != nil:
			if err := os.MkdirAll(target, 0o755); err != nil {
				return err
			}
			return chownAs(target, owner)
		case d.IsDir() && !there.IsDir():
			return errs.New(errs.Invalid, "%s is no folder", target)
		case d.IsDir(), terr == nil && there.Mode().IsRegular() && there.Size() == info.Size() && there.ModTime().Equal(info.ModTime()):
			return nil
		case terr == nil && there.IsDir():
			return errs.New(errs.Invalid, "%s is a folder", target)
		}
		return os.Rename(p, target)
	})
}

func under(path, dir string) bool { return strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/") }

func isFolder(p string) bool {
	info, err := os.Stat(p)
	return err == nil && info.IsDir()
}

func isRegular(p string) bool {
	info, err := os.Stat(p)
	return err == nil && info.Mode().IsRegular()
}
