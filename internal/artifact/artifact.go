// Package artifact is the content-addressed store of code.
//
// Main types: [Manifest], the list of files that is an Artifact, [Tree], a Manifest with access to its
// bytes on the machine that built it, and [Store], which holds Artifacts on a server. A client scans or
// builds a Tree, asks the Store what is missing, sends that, and puts the Manifest.
//
// Guarantees:
//
//  1. A Manifest's digest depends on paths, modes, contents and links alone; never on times, owners or the order of a walk.
//  2. A Manifest that passes Validate cannot place or reach anything outside the folder it is unpacked in.
//  3. A blob is given out or counted as here only when it holds exactly the bytes of its name: each process reads it once to see, and
//     again when it was written to; a damaged one is dropped and counts as missing. A Manifest that PutManifest has accepted is on
//     disk together with all its blobs, also after a loss of power.
//  4. After kill -9 at any moment the Store opens, and nothing half-written is visible in it.
//  5. A folder that Materialise returns for the first time in a process holds the Manifest's files exactly; concurrent callers share
//     one. Where modes do not keep a guest from writing to its files (it is root), these are copies: what it writes is seen by
//     those who share the folder until the process ends, and never reaches a blob or another Artifact.
//  6. Collect removes nothing that a kept Manifest needs and nothing younger than ten minutes.
//
// It does not withstand a guest that is the same user as the server and changes the modes of files to write to them: what such a
// one spoils is noticed as in 3, no sooner. It knows nothing of projects, builds or functions. Names that differ only in case are allowed, as the cloud allows them;
// unpacking them on a file system that cannot hold both is refused there.
package artifact

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/errs"
)

// Format is the version of the Manifest's form that this package writes. A newer one is refused.
const Format = 1

// Entry is one file or symbolic link of an Artifact.
type Entry struct {
	Path   string `json:"path"`             // slash-separated, clean, relative
	Mode   uint32 `json:"mode,omitempty"`   // 0644 or 0755; without meaning for a link
	Size   int64  `json:"size"`             // bytes
	SHA256 string `json:"sha256,omitempty"` // of the content, lower-case hex; empty for a link
	Link   string `json:"link,omitempty"`   // target of a symbolic link, relative to the link's folder, inside the tree
}

// Manifest lists an Artifact's files, sorted by path. Immutable once built.
type Manifest struct {
	Format  int     `json:"format"`
	Entries []Entry `json:"entries"`
}

// Limits bound an Artifact.
type Limits struct {
	Bytes   int64 // of all files together
	Entries int
}

// DefaultLimits are Lambda's: quotas, "Deployment package (.zip file archive) size", 250 MB unzipped.
func DefaultLimits() Limits { return Limits{Bytes: 250 << 20, Entries: 200_000} }

// Digest returns the hex SHA-256 of the canonical form.
func (m *Manifest) Digest() string {
	h := sha256.New()
	fmt.Fprintf(h, "ebb-artifact %d\n", m.Format)
	var b []byte
	for _, e := range m.Entries {
		b = b[:0]
		if e.Link != "" {
			b = fmt.Appendf(b, "link %q %q\n", e.Path, e.Link)
		} else {
			b = fmt.Appendf(b, "file %q %o %d %s\n", e.Path, e.Mode, e.Size, e.SHA256)
		}
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Size returns the bytes of all files together.
func (m *Manifest) Size() int64 {
	var n int64
	for _, e := range m.Entries {
		n += e.Size
	}
	return n
}

// Validate checks the Manifest against the default limits.
func (m *Manifest) Validate() error { return m.ValidateWithin(DefaultLimits()) }

// ValidateWithin says what is wrong with the Manifest: its form, a path that leaves the tree, a file under another
// file or under a link, two entries of one path, or a limit that is passed.
func (m *Manifest) ValidateWithin(l Limits) error {
	if m.Format > Format {
		return errs.New(errs.Unsupported, "artifact format %d is newer than this ebb knows (%d)", m.Format, Format).WithHint("Update ebb.")
	}
	if m.Format < 1 {
		return errs.New(errs.Invalid, "artifact format %d does not exist", m.Format)
	}
	if len(m.Entries) > l.Entries {
		return errs.New(errs.TooLarge, "the code has %d files; %d are allowed", len(m.Entries), l.Entries).
			WithHint("Exclude what the function does not need with package patterns.")
	}
	var size int64
	dirs := map[string]bool{} // folders that entries need
	for i, e := range m.Entries {
		if err := e.check(); err != nil {
			return err
		}
		if i > 0 && m.Entries[i-1].Path >= e.Path {
			if m.Entries[i-1].Path == e.Path {
				return errs.New(errs.Invalid, "the file %q is listed twice", e.Path)
			}
			return errs.New(errs.Invalid, "files are not sorted at %q", e.Path)
		}
		for d := path.Dir(e.Path); d != "." && !dirs[d]; d = path.Dir(d) {
			dirs[d] = true
		}
		if e.Size > l.Bytes-size {
			return errs.New(errs.TooLarge, "the code is larger than %d MB unpacked", l.Bytes>>20).
				WithHint("Exclude what the function does not need with package patterns.")
		}
		size += e.Size
	}
	for _, e := range m.Entries {
		if dirs[e.Path] {
			return errs.New(errs.Invalid, "%q is a file and a folder at once", e.Path)
		}
	}
	return nil
}

// check says what is wrong with one entry alone.
func (e Entry) check() error {
	switch {
	case !cleanPath(e.Path):
		return errs.New(errs.Invalid, "the path %q does not stay inside the code", e.Path)
	case len(e.Path) > 4000:
		return errs.New(errs.Invalid, "the path %.60q… is too long", e.Path)
	case e.Size < 0:
		return errs.New(errs.Invalid, "the file %q has a size below zero", e.Path)
	case e.Link != "":
		if !linkInside(e.Path, e.Link) || e.Size != 0 || e.SHA256 != "" {
			return errs.New(errs.Invalid, "the link %q to %q does not stay inside the code", e.Path, e.Link)
		}
	case !validSHA(e.SHA256):
		return errs.New(errs.Invalid, "the file %q has no valid digest", e.Path)
	case e.Mode != 0o644 && e.Mode != 0o755:
		return errs.New(errs.Invalid, "the file %q has mode %o; 644 and 755 exist", e.Path, e.Mode)
	}
	return nil
}

// cleanPath says whether p is relative, in its shortest form and below the folder it starts from.
func cleanPath(p string) bool {
	return p != "" && p != "." && p == path.Clean(p) && !path.IsAbs(p) && p != ".." && !strings.HasPrefix(p, "../") &&
		!strings.ContainsAny(p, "\\\x00")
}

// linkInside says whether the target of the link at p stays in the tree whatever other links it passes: names may not
// be followed by "..", and the folders above p are no links themselves (an entry has no file or link above it).
func linkInside(p, target string) bool {
	if target != path.Clean(target) || path.IsAbs(target) || strings.ContainsAny(target, "\\\x00") {
		return false
	}
	at := path.Join(path.Dir(p), target)
	return at != ".." && !strings.HasPrefix(at, "../")
}

func validSHA(s string) bool {
	if len(s) != 64 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func validDigest(s string) error {
	if !validSHA(s) {
		return errs.New(errs.Invalid, "%.80q is not an artifact digest", s)
	}
	return nil
}

func sortEntries(es []Entry) {
	slices.SortFunc(es, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
}
