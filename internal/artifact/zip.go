package artifact

import (
	"archive/zip"
	"compress/flate"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/ebb-run/ebb/internal/errs"
)

// maxZip bounds what a zip may unpack to; what passes is still measured against the Store's own limits.
const maxZip = 4 << 30

type zipped struct {
	offset, packed int64
	method         uint16
}

// FromZip reads a zip archive into a Tree. The archive must stay as it is while the Tree is used.
func FromZip(name string) (*Tree, error) {
	z, err := zip.OpenReader(name)
	if err != nil {
		if errors.Is(err, zip.ErrFormat) {
			return nil, errs.New(errs.Invalid, "%s is not a zip archive", name)
		}
		return nil, fmt.Errorf("open zip: %w", err)
	}
	defer z.Close()
	at := make(map[string]zipped, len(z.File))
	entries := make(map[string]Entry, len(z.File))
	var total int64
	for _, f := range z.File {
		if f.FileInfo().IsDir() {
			continue
		}
		p := strings.ReplaceAll(f.Name, "\\", "/")
		if p = path.Clean(p); !cleanPath(p) {
			return nil, errs.New(errs.Invalid, "%s: the path %q leaves the archive", name, f.Name)
		}
		e, err := zipEntry(f, p, maxZip-total)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", name, f.Name, err)
		}
		total += e.Size
		off, err := f.DataOffset()
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", name, f.Name, err)
		}
		entries[p] = e // of two the last counts, as unpacking would have it
		at[p] = zipped{offset: off, packed: int64(f.CompressedSize64), method: f.Method}
	}
	t := &Tree{Manifest: Manifest{Format: Format}, Open: func(e Entry) (io.ReadCloser, error) { return openZipped(name, e, at) }}
	for _, e := range entries {
		t.Manifest.Entries = append(t.Manifest.Entries, e)
	}
	sortEntries(t.Manifest.Entries)
	return t, nil
}

// zipEntry reads one member through, which also checks its CRC.
func zipEntry(f *zip.File, p string, room int64) (Entry, error) {
	r, err := f.Open()
	if err != nil {
		return Entry{}, err
	}
	defer r.Close()
	if f.Mode()&fs.ModeSymlink != 0 {
		target, err := io.ReadAll(io.LimitReader(r, 4096))
		if err != nil {
			return Entry{}, err
		}
		e := Entry{Path: p, Link: path.Clean(string(target))}
		return e, e.check()
	}
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(r, room+1))
	if err != nil {
		return Entry{}, err
	}
	if n > room {
		return Entry{}, errs.New(errs.TooLarge, "the archive unpacks to more than %d MB", int64(maxZip)>>20)
	}
	return Entry{Path: p, Mode: modeOf(f.Mode()), Size: n, SHA256: hex.EncodeToString(h.Sum(nil))}, nil
}

func openZipped(name string, e Entry, at map[string]zipped) (io.ReadCloser, error) {
	m, ok := at[e.Path]
	if !ok {
		return nil, errs.New(errs.NotFound, "no file %q in %s", e.Path, name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	var r io.Reader = io.NewSectionReader(f, m.offset, m.packed)
	switch m.method {
	case zip.Store:
	case zip.Deflate:
		r = flate.NewReader(r)
	default:
		f.Close()
		return nil, errs.New(errs.Unsupported, "%s: %s is packed by method %d", name, e.Path, m.method)
	}
	return struct {
		io.Reader
		io.Closer
	}{r, f}, nil
}
