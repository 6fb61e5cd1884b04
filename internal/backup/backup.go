// Package backup is the form in which all data of a Node go into one stream and come back.
//
// Main types: [Writer], and what [Read] and [Restore] do with what it wrote.
//
// The stream is a tar archive (POSIX.1-2001, "pax Interchange Format"), in this order:
//
//	ebb-backup.json   the Header
//	data/PATH         files, by their places in the data directory
//	sums/N.json       after every 1,000 files and at the end: size and SHA-256 of each file since the last such list
//	end.json          how many files and bytes there were, and the SHA-256 of all lists
//
// Guarantees:
//
//  1. What Read accepts is byte for byte what was written, and all of it: one that is cut off, changed or put together is refused with the
//     place in the stream.
//
//  2. Restore makes its folder in full or not at all, on disk when it returns, also when it is killed.
//
//  3. A name leads nowhere outside of the folder. Only plain files are taken.
//
//  4. Memory does not grow with the number of files nor with their sizes.
//
//  5. A stream of a newer format is refused.
//
//  6. A stream that is sealed ([Seal]) tells nobody without a key more than its length, and no change of it goes unseen.
//
// It knows nothing of what the files are, or of how they come to be of one moment.
package backup

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

// Format is the version of the stream.
const Format = 1

// Header is what a stream says of itself.
type Header struct {
	Format  int       `json:"format"`
	Version string    `json:"version"` // of the ebb that wrote it
	Moment  time.Time `json:"moment"`  // that the data are of
}

// Sum is a file as the lists have it.
type Sum struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"` // in hex
}

// end is what closes a stream.
type end struct {
	Files int64  `json:"files"`
	Bytes int64  `json:"bytes"`
	Lists string `json:"lists"` // SHA-256 over all lists, in hex
}

const (
	headerName = "ebb-backup.json"
	dataFolder = "data/"
	listFolder = "sums/"
	endName    = "end.json"
	failName   = "failed.txt"
	perList    = 1000
)

// Writer writes a stream.
type Writer struct {
	tar   *tar.Writer
	at    time.Time
	sums  []Sum
	lists int
	over  hash.Hash // of all lists
	end   end
}

// NewWriter begins a stream on w. What w has taken after Close is the whole of it.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	h.Format = Format
	o := &Writer{tar: tar.NewWriter(w), at: h.Moment, over: sha256.New()}
	data, err := json.Marshal(h)
	if err == nil {
		err = o.small(headerName, append(data, '\n'), true)
	}
	if err != nil {
		return nil, fmt.Errorf("begin backup: %w", err)
	}
	return o, nil
}

// small writes a file of the stream's own.
func (o *Writer) small(name string, data []byte, summed bool) error {
	if err := o.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(data)), ModTime: o.at, Format: tar.FormatPAX}); err != nil {
		return err
	}
	if _, err := o.tar.Write(data); err != nil || !summed {
		return err
	}
	return o.summed(name, int64(len(data)), sha256.Sum256(data))
}

func (o *Writer) summed(name string, size int64, sum [32]byte) error {
	o.sums = append(o.sums, Sum{name, size, hex.EncodeToString(sum[:])})
	o.end.Files++
	o.end.Bytes += size
	if len(o.sums) < perList {
		return nil
	}
	return o.list()
}

// list writes the sums of what came since the last list.
func (o *Writer) list() error {
	data, err := json.Marshal(o.sums)
	if err != nil {
		return err
	}
	o.over.Write(data)
	o.lists++
	o.sums = o.sums[:0]
	return o.small(fmt.Sprintf("%s%d.json", listFolder, o.lists), data, false)
}

// File writes the file at from, which nobody changes meanwhile, as the one with the name in the data directory.
func (o *Writer) File(ctx context.Context, name, from string) error {
	if err := o.file(ctx, name, from); err != nil {
		return fmt.Errorf("back up %s: %w", name, err)
	}
	return nil
}

func (o *Writer) file(ctx context.Context, name, from string) error {
	if err := checkName(name); err != nil {
		return err
	}
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errs.New(errs.Invalid, "%s is no plain file", from)
	}
	head := &tar.Header{Name: dataFolder + name, Mode: int64(info.Mode().Perm()), Size: info.Size(), ModTime: o.at, Format: tar.FormatPAX}
	if err := o.tar.WriteHeader(head); err != nil {
		return err
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(o.tar, h), &reader{ctx, io.LimitReader(f, info.Size())})
	if err != nil {
		return err
	}
	if n != info.Size() {
		return errs.New(errs.Conflict, "the file got shorter, from %d to %d bytes", info.Size(), n)
	}
	return o.summed(head.Name, n, [32]byte(h.Sum(nil)))
}

// Fail ends a stream that cannot be finished, and says why: whoever reads it learns that, and refuses it.
func (o *Writer) Fail(cause error) {
	_ = o.small(failName, []byte(cause.Error()), false)
	_ = o.tar.Flush()
}

// Close ends a stream that is whole.
func (o *Writer) Close() error {
	if err := o.list(); err != nil {
		return fmt.Errorf("end backup: %w", err)
	}
	o.end.Lists = hex.EncodeToString(o.over.Sum(nil))
	data, err := json.Marshal(o.end)
	if err == nil {
		err = o.small(endName, append(data, '\n'), false)
	}
	if err == nil {
		err = o.tar.Close()
	}
	if err != nil {
		return fmt.Errorf("end backup: %w", err)
	}
	return nil
}

// maxName bounds the name of a file, in bytes.
const maxName = 1024

// checkName refuses what is no path inside of a folder.
func checkName(name string) error {
	if len(name) > maxName || !fs.ValidPath(name) || name == "." || path.Clean(name) != name {
		return errs.New(errs.Invalid, "%.200q is no path of a file", name)
	}
	return nil
}

// reader ends with its context.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
