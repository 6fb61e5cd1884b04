package artifact

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/ebb-run/ebb/internal/errs"
)

// maxLinkDepth ends a walk through folders that link to each other outside the tree.
const maxLinkDepth = 16

// Scan reads the folder root into a Tree. keep is asked for every file, link and folder (path relative to root, with
// slashes); a folder that is not kept is not entered. Nil keeps all. cache may be nil.
//
// A link whose target is in the Tree stays a link. Any other link is followed, and its content is taken as if it stood
// there; one that leads nowhere is left out. Sockets, devices and pipes are left out.
func Scan(root string, cache *ScanCache, keep func(path string, d fs.DirEntry) bool) (*Tree, error) {
	return ScanWithin(root, cache, keep, nil)
}

// ScanWithin is Scan of a folder that others have made. reads is asked whether root may be read, then what a link that is followed leads to, and
// each file and folder whose name begins with a dot; path is its place in the tree, and met says that it was come upon in a folder, not led to. An error
// of it ends the scan, but for fs.SkipDir, which leaves that one out. What keep refuses is not asked about. Nil lets all be read.
func ScanWithin(root string, cache *ScanCache, keep func(path string, d fs.DirEntry) bool, reads func(file, path string, met bool) error) (*Tree, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	real, err := filepath.EvalSymlinks(root)
	if err != nil {
		return nil, fmt.Errorf("scan %s: %w", root, err)
	}
	if keep == nil {
		keep = func(string, fs.DirEntry) bool { return true }
	}
	if reads == nil {
		reads = func(string, string, bool) error { return nil }
	}
	s := &scanner{root: real, keep: keep, reads: reads, source: map[string]string{}}
	if err := reads(real, ".", false); err != nil {
		return nil, fmt.Errorf("scan %s: %w", root, err)
	}
	if err := s.walk(real, ".", 0); err != nil {
		return nil, fmt.Errorf("scan %s: %w", root, err)
	}
	if err := s.follow(); err != nil {
		return nil, fmt.Errorf("scan %s: %w", root, err)
	}
	t := &Tree{Manifest: Manifest{Format: Format}}
	if t.Manifest.Entries, err = s.entries(cache); err != nil {
		return nil, fmt.Errorf("scan %s: %w", root, err)
	}
	source := s.source
	t.Open = func(e Entry) (io.ReadCloser, error) {
		from, ok := source[e.Path]
		if !ok {
			from = filepath.Join(real, filepath.FromSlash(e.Path))
		}
		return os.Open(from)
	}
	return t, nil
}

type scanned struct {
	path string // in the tree
	from string // on disk
	link string
	info fs.FileInfo
}

type scanner struct {
	root   string
	keep   func(string, fs.DirEntry) bool
	reads  func(file, path string, met bool) error
	found  []scanned
	source map[string]string // where a file of the tree is on disk when not at its own place
}

// walk reads the folder dir on disk as the folder rel of the tree.
func (s *scanner) walk(dir, rel string, depth int) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, d := range list {
		p := d.Name()
		if rel != "." {
			p = rel + "/" + p
		}
		if strings.ContainsAny(d.Name(), "\\\x00") || !s.keep(p, d) {
			continue
		}
		from := dir + string(filepath.Separator) + d.Name()
		if strings.HasPrefix(d.Name(), ".") && d.Type()&fs.ModeSymlink == 0 {
			err = s.reads(from, p, true)
		}
		switch {
		case err != nil:
		case d.IsDir():
			err = s.walk(from, p, depth)
		case d.Type()&fs.ModeSymlink != 0:
			err = s.link(from, p, depth)
		case d.Type().IsRegular():
			err = s.file(from, p)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.SkipDir) { // what vanishes during a walk was not there
			return err
		}
		err = nil
	}
	return nil
}

func (s *scanner) file(from, p string) error {
	info, err := os.Lstat(from)
	if err != nil || !info.Mode().IsRegular() {
		return err
	}
	s.found = append(s.found, scanned{path: p, from: from, info: info})
	return nil
}

// link takes a link as one when it stands at its own place and points into the tree, and follows it otherwise.
func (s *scanner) link(from, p string, depth int) error {
	target, err := os.Readlink(from)
	if err != nil {
		return err
	}
	if _, err := os.Stat(from); err != nil {
		return nil //nolint:nilerr // leads nowhere, or in a circle: there is nothing to take
	}
	inPlace := from == filepath.Join(s.root, filepath.FromSlash(p))
	if slash := filepath.ToSlash(target); inPlace && linkInside(p, slash) {
		s.found = append(s.found, scanned{path: p, from: from, link: slash})
		return nil
	}
	if inPlace { // an absolute or winding way to a place in the tree
		if end, err := filepath.EvalSymlinks(from); err == nil {
			if in, err := filepath.Rel(s.root, end); err == nil && filepath.IsLocal(in) {
				if short, err := filepath.Rel(filepath.Dir(from), end); err == nil {
					s.found = append(s.found, scanned{path: p, from: from, link: filepath.ToSlash(short)})
					return nil
				}
			}
		}
	}
	return s.through(from, p, depth)
}

// through takes what a link leads to as if it stood at p.
func (s *scanner) through(from, p string, depth int) error {
	if depth >= maxLinkDepth {
		return errs.New(errs.Invalid, "%s: links lead to each other", p).WithHint("Exclude it with a package pattern.")
	}
	end, err := filepath.EvalSymlinks(from)
	if err != nil {
		return nil //nolint:nilerr // leads nowhere: there is nothing to take
	}
	info, err := os.Stat(end)
	if err != nil {
		return err
	}
	if info.IsDir() && (end == s.root || strings.HasPrefix(s.root, end+string(filepath.Separator))) {
		return nil // a folder that holds the tree itself
	}
	if err := s.reads(end, p, false); err != nil {
		return err
	}
	switch {
	case info.IsDir():
		return s.walk(end, p, depth+1)
	case info.Mode().IsRegular():
		s.found = append(s.found, scanned{path: p, from: end, info: info})
	}
	return nil
}

// follow replaces links to what is not in the tree by what they lead to.
func (s *scanner) follow() error {
	for round := 0; round < maxLinkDepth; round++ {
		have := map[string]bool{".": true}
		for _, f := range s.found {
			for p := f.path; !have[p]; p = path.Dir(p) {
				have[p] = true
			}
		}
		var dangling []scanned
		kept := s.found[:0]
		for _, f := range s.found {
			if f.link != "" && !have[path.Join(path.Dir(f.path), f.link)] {
				dangling = append(dangling, f)
			} else {
				kept = append(kept, f)
			}
		}
		s.found = kept
		if len(dangling) == 0 {
			return nil
		}
		for _, f := range dangling {
			if err := s.through(f.from, f.path, 1); err != nil && !errors.Is(err, fs.SkipDir) {
				return err
			}
		}
	}
	return nil
}

// entries hashes what was found, in as many goroutines as there are processors.
func (s *scanner) entries(cache *ScanCache) ([]Entry, error) {
	es := make([]Entry, len(s.found))
	var todo []int
	for i, f := range s.found {
		es[i] = Entry{Path: f.path, Link: f.link}
		if f.link != "" {
			continue
		}
		if f.from != filepath.Join(s.root, filepath.FromSlash(f.path)) {
			s.source[f.path] = f.from
		}
		es[i].Mode, es[i].Size = modeOf(f.info.Mode()), f.info.Size()
		if sha, ok := cache.get(f.from, f.info); ok {
			es[i].SHA256 = sha
		} else {
			todo = append(todo, i)
		}
	}
	if err := s.hash(es, todo, cache); err != nil {
		return nil, err
	}
	sortEntries(es)
	return es, nil
}

func (s *scanner) hash(es []Entry, todo []int, cache *ScanCache) error {
	var wg sync.WaitGroup
	next := make(chan int)
	fails := make([]error, len(es))
	for range min(len(todo), 2*runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for i := range next {
				f := s.found[i]
				sum, n, err := hashFile(f.from)
				if err != nil {
					fails[i] = fmt.Errorf("read %s: %w", f.path, err)
					continue
				}
				es[i].SHA256, es[i].Size = sum, n
				cache.put(f.from, f.info, n, sum)
			}
		})
	}
	for _, i := range todo {
		next <- i
	}
	close(next)
	wg.Wait()
	return errors.Join(fails...)
}

func modeOf(m fs.FileMode) uint32 {
	if m&0o111 != 0 {
		return 0o755
	}
	return 0o644
}

func hashFile(name string) (sum string, size int64, err error) {
	f, err := os.Open(name)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	return hashOf(f)
}

func hashOf(r io.Reader) (sum string, size int64, err error) {
	h := sha256.New()
	if size, err = io.Copy(h, r); err != nil {
		return "", 0, err
	}
	return hex.EncodeToString(h.Sum(nil)), size, nil
}
