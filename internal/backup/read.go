package backup

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"strings"

	"github.com/ebb-run/ebb/internal/errs"
)

// Found is what a stream held.
type Found struct {
	Header
	Files int64 `json:"files"` // of the data directory
	Bytes int64 `json:"bytes"`
}

// File is one of the data directory while it is read.
type File struct {
	Name string
	Mode fs.FileMode // permissions alone
	Size int64
}

// bounds of what is not a file of the data directory, in bytes
const (
	maxHeader = 64 << 10
	maxList   = perList * (maxName*6 + 256) // a name may be escaped
	maxFail   = 64 << 10
)

// Read reads a stream to its end and checks all of it; each, if not nil, gets every file, and reads what it wants of it. What each has got is
// known to be whole only when Read returns without an error. The error of a stream that is not is errs.Failed and names the place.
func Read(ctx context.Context, r io.Reader, each func(f File, data io.Reader) error) (Found, error) {
	in := &input{each: each, over: sha256.New(), count: &counter{r: &reader{ctx, r}}}
	in.tar = tar.NewReader(in.count)
	err := in.header()
	for more := true; more && err == nil; {
		more, err = in.next()
	}
	return in.found, err
}

// counter knows how far a stream was read.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// input is a stream while it is read.
type input struct {
	count *counter
	tar   *tar.Reader
	each  func(File, io.Reader) error
	found Found
	sums  []Sum // since the last list
	lists int
	over  hash.Hash
	all   end // as it was counted
}

// broken is the error of a stream that is not as it was written.
func (in *input) broken(format string, args ...any) error {
	return errs.New(errs.Failed, "the backup is damaged at byte %d: %s", in.count.n, fmt.Sprintf(format, args...)).
		WithHint("Take another backup, or another copy of this one. Nothing of this one was used.")
}

// cut is the error of reading a stream further.
func (in *input) cut(err error) error {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return in.broken("it ends here, after %d files", in.all.Files)
	case errors.Is(err, tar.ErrHeader):
		return in.broken("what stands here is no part of a tar file")
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	var e *errs.Error
	if errors.As(err, &e) {
		return err
	}
	return in.broken("%v", err)
}

func (in *input) header() error {
	h, err := in.tar.Next()
	if err != nil || h.Name != headerName || h.Size > maxHeader {
		if errors.Is(err, context.Canceled) {
			return err
		}
		return errs.New(errs.Invalid, "this is no backup of ebb: it does not begin with %s", headerName).
			WithHint("A sealed backup needs --identity; what `ebb data export` wrote is read by `ebb data import`.")
	}
	data, err := in.small(h, maxHeader, true)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, &in.found.Header); err != nil || in.found.Format < 1 {
		return in.broken("%s is not to be understood", headerName)
	}
	if in.found.Format > Format {
		return errs.New(errs.Unsupported, "the backup has format %d; this ebb knows up to %d", in.found.Format, Format).
			WithHint("Use the ebb that wrote it (%s), or a newer one.", in.found.Version)
	}
	return nil
}

// small reads what stands in the stream for its own sake.
func (in *input) small(h *tar.Header, most int64, summed bool) ([]byte, error) {
	if h.Size > most || h.Typeflag != tar.TypeReg {
		return nil, in.broken("%.100q has no place here", h.Name)
	}
	data, err := io.ReadAll(in.tar)
	if err != nil {
		return nil, in.cut(err)
	}
	if summed {
		in.summed(h.Name, h.Size, sha256.Sum256(data))
	}
	return data, nil
}

func (in *input) summed(name string, size int64, sum [32]byte) {
	in.sums = append(in.sums, Sum{name, size, hex.EncodeToString(sum[:])})
	in.all.Files++
	in.all.Bytes += size
}

// next reads one entry; more is false behind the last.
func (in *input) next() (more bool, err error) {
	h, err := in.tar.Next()
	if err != nil {
		return false, in.cut(err)
	}
	switch name, isData := strings.CutPrefix(h.Name, dataFolder); {
	case isData:
		return true, in.file(h, name)
	case strings.HasPrefix(h.Name, listFolder):
		return true, in.list(h)
	case h.Name == endName:
		return false, in.end(h)
	case h.Name == failName:
		why, err := in.small(h, maxFail, false)
		if err != nil {
			return false, err
		}
		return false, errs.New(errs.Failed, "the server could not finish the backup: %s", why)
	}
	return false, in.broken("%.100q has no place in a backup", h.Name)
}

func (in *input) file(h *tar.Header, name string) error {
	if err := checkName(name); err != nil || h.Typeflag != tar.TypeReg {
		return in.broken("%.100q is no plain file of a data directory", h.Name)
	}
	if len(in.sums) >= perList {
		return in.broken("a list of sums is missing before %s", name)
	}
	sum := sha256.New()
	data := io.TeeReader(in.tar, sum)
	if in.each != nil {
		if err := in.each(File{name, fs.FileMode(h.Mode).Perm(), h.Size}, &tarFile{in, data}); err != nil {
			return err
		}
	}
	if _, err := io.Copy(io.Discard, data); err != nil {
		return in.cut(err)
	}
	in.summed(h.Name, h.Size, [32]byte(sum.Sum(nil)))
	in.found.Files++
	in.found.Bytes += h.Size
	return nil
}

// tarFile is a file's data, the errors of which tell the place.
type tarFile struct {
	in *input
	r  io.Reader
}

func (f *tarFile) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && err != io.EOF {
		err = f.in.cut(err)
	}
	return n, err
}

// list compares what was read with what was written.
func (in *input) list(h *tar.Header) error {
	data, err := in.small(h, maxList, false)
	if err != nil {
		return err
	}
	in.lists++
	in.over.Write(data)
	var want []Sum
	if err := json.Unmarshal(data, &want); err != nil || h.Name != fmt.Sprintf("%s%d.json", listFolder, in.lists) || len(want) != len(in.sums) {
		return in.broken("%s is not the list of the %d files before it", h.Name, len(in.sums))
	}
	for i, w := range want {
		if got := in.sums[i]; got != w {
			return in.broken("%s is not what was written: size %d, SHA-256 %s; it was size %d, SHA-256 %s, of %s", got.Name, got.Size, got.SHA256, w.Size, w.SHA256, w.Name)
		}
	}
	in.sums = in.sums[:0]
	return nil
}

func (in *input) end(h *tar.Header) error {
	data, err := in.small(h, maxHeader, false)
	if err != nil {
		return err
	}
	in.all.Lists = hex.EncodeToString(in.over.Sum(nil))
	var want end
	if err := json.Unmarshal(data, &want); err != nil || want != in.all || len(in.sums) > 0 {
		return in.broken("%s does not tell what was read: %d files, %d bytes", endName, in.all.Files, in.all.Bytes)
	}
	if _, err := in.tar.Next(); !errors.Is(err, io.EOF) {
		return in.broken("something stands behind the end")
	}
	_, err = io.Copy(io.Discard, in.count) // what fills the last block of a tape
	return err
}
