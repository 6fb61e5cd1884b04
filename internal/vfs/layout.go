package vfs

import (
	"encoding/binary"
	"strconv"

	"github.com/ebb-run/ebb/internal/seal"
)

const (
	// unit is how much of a page is sealed together. Every page is a multiple of it.
	unit = 4096
	// logHead and frameHead are the sizes of a log's header and of a frame's (SQLite's file format, section 4.1, "WAL File Format").
	logHead   = 32
	frameHead = 24
)

// place is what the seal of a part binds it to.
func place(file string, offset int64) string { return file + ":" + strconv.FormatInt(offset, 10) }

// part is bytes of a file that are sealed together.
type part struct {
	logical, physical int64 // where they begin, for SQLite and in the file
	size              int64 // for SQLite
}

func (p part) sealed() int64 { return p.size + seal.Overhead }

// layout finds the parts of a file.
type layout interface {
	// at returns the part that holds the byte at an offset.
	at(offset int64) part
	// logical is the size that SQLite sees of a file: whole parts alone.
	logical(physical int64) int64
}

// pages is the layout of a database.
type pages struct{}

func (pages) at(offset int64) part {
	n := offset / unit
	return part{n * unit, n * (unit + seal.Overhead), unit}
}

func (pages) logical(physical int64) int64 { return physical / (unit + seal.Overhead) * unit }

// frames is the layout of a write-ahead log of pages of that many bytes.
type frames int64

func (f frames) sizes() (logical, physical int64) {
	return frameHead + int64(f), frameHead + seal.Overhead + int64(f)/unit*(unit+seal.Overhead)
}

func (f frames) at(offset int64) part {
	if offset < logHead {
		return part{0, 0, logHead}
	}
	size, sealed := f.sizes()
	n, within := (offset-logHead)/size, (offset-logHead)%size
	p := part{logHead + n*size, logHead + seal.Overhead + n*sealed, frameHead}
	if within >= frameHead {
		i := (within - frameHead) / unit
		p = part{p.logical + frameHead + i*unit, p.physical + frameHead + seal.Overhead + i*(unit+seal.Overhead), unit}
	}
	return p
}

func (f frames) logical(physical int64) int64 {
	if physical < logHead+seal.Overhead {
		return 0
	}
	size, sealed := f.sizes()
	return logHead + (physical-logHead-seal.Overhead)/sealed*size
}

// pageSize reads that of a log from its header, or 0 where it is none that is written here.
func pageSize(head []byte) frames {
	n := binary.BigEndian.Uint32(head[8:])
	if n < unit || n > 64<<10 || n%unit != 0 {
		return 0
	}
	return frames(n)
}
