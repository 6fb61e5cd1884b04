package artifact

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/ebb-run/ebb/internal/errs"
)

// Tree is an Artifact on the machine that built it. Immutable; Open may be called concurrently.
type Tree struct {
	Manifest Manifest
	// Open gives the content of a file entry. A file that changed since the scan gives its new bytes, which the
	// Store then refuses.
	Open func(e Entry) (io.ReadCloser, error)
}

// File is a file made in memory.
type File struct {
	Path string
	Mode uint32 // 0644 or 0755
	Data []byte
}

// FromFiles returns a Tree of files in memory. Of two with one path the last counts.
func FromFiles(files ...File) *Tree {
	data := make(map[string]File, len(files))
	for _, f := range files {
		data[f.Path] = f
	}
	t := &Tree{Manifest: Manifest{Format: Format}}
	for _, f := range data {
		sum := sha256.Sum256(f.Data)
		t.Manifest.Entries = append(t.Manifest.Entries, Entry{Path: f.Path, Mode: f.Mode, Size: int64(len(f.Data)), SHA256: hex.EncodeToString(sum[:])})
	}
	sortEntries(t.Manifest.Entries)
	t.Open = func(e Entry) (io.ReadCloser, error) {
		f, ok := data[e.Path]
		if !ok {
			return nil, errs.New(errs.NotFound, "no file %q in the tree", e.Path)
		}
		return io.NopCloser(bytes.NewReader(f.Data)), nil
	}
	return t
}

// Under returns the Tree with every path below prefix.
func (t *Tree) Under(prefix string) *Tree {
	if prefix = path.Clean(prefix); prefix == "." {
		return t
	}
	moved := &Tree{Manifest: Manifest{Format: Format, Entries: make([]Entry, len(t.Manifest.Entries))}}
	for i, e := range t.Manifest.Entries {
		e.Path = path.Join(prefix, e.Path)
		moved.Manifest.Entries[i] = e
	}
	sortEntries(moved.Manifest.Entries)
	moved.Open = func(e Entry) (io.ReadCloser, error) {
		if len(e.Path) > len(prefix)+1 {
			e.Path = e.Path[len(prefix)+1:]
		}
		return t.Open(e)
	}
	return moved
}

// Merge returns the union of the Trees. Where two hold the same path the earlier Tree wins, and what another Tree has
// below a file or link of an earlier one is left out.
func Merge(trees ...*Tree) *Tree {
	owner := map[string]*Tree{}
	dirs := map[string]bool{}
	m := &Tree{Manifest: Manifest{Format: Format}}
	for _, t := range trees {
	entries:
		for _, e := range t.Manifest.Entries {
			if owner[e.Path] != nil || dirs[e.Path] {
				continue
			}
			for d := path.Dir(e.Path); d != "."; d = path.Dir(d) {
				if o := owner[d]; o != nil {
					continue entries
				}
			}
			owner[e.Path] = t
			m.Manifest.Entries = append(m.Manifest.Entries, e)
			for d := path.Dir(e.Path); d != "." && !dirs[d]; d = path.Dir(d) {
				dirs[d] = true
			}
		}
	}
	sortEntries(m.Manifest.Entries)
	m.Open = func(e Entry) (io.ReadCloser, error) {
		t := owner[e.Path]
		if t == nil {
			return nil, errs.New(errs.NotFound, "no file %q in the tree", e.Path)
		}
		return t.Open(e)
	}
	return m
}

// Has says whether the Tree has a file or link at p.
func (t *Tree) Has(p string) bool {
	_, ok := t.Find(p)
	return ok
}

// Find returns the entry at p.
func (t *Tree) Find(p string) (Entry, bool) {
	es := t.Manifest.Entries
	lo, hi := 0, len(es)
	for lo < hi {
		mid := (lo + hi) / 2
		if es[mid].Path < p {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(es) && es[lo].Path == p {
		return es[lo], true
	}
	return Entry{}, false
}

// Unpack writes the Tree below dir, which is made. It is for the client's own folders: no blobs, no sharing.
func (t *Tree) Unpack(dir string) error {
	var links []Entry
	for _, e := range t.Manifest.Entries {
		if err := e.check(); err != nil {
			return err
		}
		if e.Link != "" {
			links = append(links, e)
			continue
		}
		if err := t.unpackFile(dir, e); err != nil {
			return fmt.Errorf("unpack %s: %w", e.Path, err)
		}
	}
	return makeLinks(dir, links)
}

func (t *Tree) unpackFile(dir string, e Entry) error {
	to := filepath.Join(dir, filepath.FromSlash(e.Path))
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return spaceError(dir, err)
	}
	r, err := t.Open(e)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	w, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, fs.FileMode(e.Mode))
	if err != nil {
		return spaceError(dir, err)
	}
	if _, err := io.Copy(w, r); err != nil {
		w.Close()
		return spaceError(dir, err)
	}
	if err := w.Close(); err != nil {
		return spaceError(dir, err)
	}
	if e.Mode&0o111 != 0 {
		awaitWriters(to)
	}
	return nil
}

// makeLinks makes symbolic links after all files, so that no file is ever written through one.
func makeLinks(dir string, links []Entry) error {
	for _, e := range links {
		at := filepath.Join(dir, filepath.FromSlash(e.Path))
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return fmt.Errorf("link %s: %w", e.Path, spaceError(dir, err))
		}
		if err := os.Symlink(filepath.FromSlash(e.Link), at); err != nil {
			return fmt.Errorf("link %s: %w", e.Path, spaceError(dir, err))
		}
	}
	return nil
}
