package vfs

import (
	"runtime"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/ebb-run/ebb/internal/seal"
)

// headSize is what a sqlite3_file of this VFS has before SQLite's own.
const headSize = 16

// file is an open file. SQLite uses it from one goroutine at a time.
type file struct {
	v       *VFS
	name    string
	self    uintptr // sqlite3_file
	real    uintptr // SQLite's own, behind it
	methods uintptr // sqlite3_io_methods, in C's memory
	keep    []any
	log     bool
	parts   layout  // nil for a log that has no header yet, and a journal
	scratch uintptr // in C's memory
	room    int64   // of scratch
}

// inClear are the kinds of files that would hold pages as they are.
const inClear = sqlite3.SQLITE_OPEN_TEMP_DB | sqlite3.SQLITE_OPEN_TRANSIENT_DB | sqlite3.SQLITE_OPEN_TEMP_JOURNAL | sqlite3.SQLITE_OPEN_SUBJOURNAL | sqlite3.SQLITE_OPEN_SUPER_JOURNAL

func (v *VFS) openFile(tls *libc.TLS, zName, pFile uintptr, flags int32, pOut uintptr) int32 {
	*at[uintptr](pFile) = 0
	if flags&inClear != 0 || zName == 0 {
		return sqlite3.SQLITE_CANTOPEN
	}
	f := &file{v: v, name: baseName(libc.GoString(zName)), self: pFile, real: pFile + headSize}
	open := call[func(*libc.TLS, uintptr, uintptr, uintptr, int32, uintptr) int32](at[sqlite3.Tsqlite3_vfs](v.real).FxOpen)
	if rc := open(tls, v.real, zName, f.real, flags, pOut); rc != sqlite3.SQLITE_OK {
		return rc
	}
	if f.methods = libc.Xcalloc(tls, 1, libc.Tsize_t(unsafe.Sizeof(sqlite3.Tsqlite3_io_methods{}))); f.methods == 0 {
		f.own().close(tls, f.real)
		return sqlite3.SQLITE_NOMEM
	}
	m := at[sqlite3.Tsqlite3_io_methods](f.methods)
	f.forward(m)
	switch {
	case flags&sqlite3.SQLITE_OPEN_MAIN_DB != 0:
		f.parts = pages{}
		f.seal(m)
	case flags&sqlite3.SQLITE_OPEN_WAL != 0:
		f.log = true
		f.seal(m)
	default:
		f.journal(m)
	}
	v.mu.Lock()
	v.mu.open[f] = struct{}{}
	v.mu.Unlock()
	*at[uintptr](pFile) = f.methods
	return sqlite3.SQLITE_OK
}

func (f *file) function(g any) uintptr {
	f.keep = append(f.keep, g)
	return address(g)
}

// forward gives the methods that do what SQLite's own file does.
func (f *file) forward(m *sqlite3.Tsqlite3_io_methods) {
	own := f.own()
	m.FiVersion = 2 // without mapped memory
	m.FxClose = f.function(func(tls *libc.TLS, _ uintptr) int32 { return f.close(tls) })
	one := func(p uintptr) uintptr {
		return f.function(func(tls *libc.TLS, _ uintptr) int32 { return call[func(*libc.TLS, uintptr) int32](p)(tls, f.real) })
	}
	number := func(p uintptr) uintptr {
		return f.function(func(tls *libc.TLS, _ uintptr, n int32) int32 {
			return call[func(*libc.TLS, uintptr, int32) int32](p)(tls, f.real, n)
		})
	}
	m.FxSync, m.FxLock, m.FxUnlock = number(own.FxSync), number(own.FxLock), number(own.FxUnlock)
	m.FxSectorSize = one(own.FxSectorSize)
	m.FxDeviceCharacteristics = f.function(func(tls *libc.TLS, _ uintptr) int32 {
		// A page is never written at once and whole for the disk, and only what is appended with its size is.
		return call[func(*libc.TLS, uintptr) int32](own.FxDeviceCharacteristics)(tls, f.real) & sqlite3.SQLITE_IOCAP_POWERSAFE_OVERWRITE
	})
	m.FxCheckReservedLock = f.function(func(tls *libc.TLS, _, pOut uintptr) int32 {
		return call[func(*libc.TLS, uintptr, uintptr) int32](own.FxCheckReservedLock)(tls, f.real, pOut)
	})
	m.FxFileControl = f.function(func(tls *libc.TLS, _ uintptr, op int32, arg uintptr) int32 {
		switch op {
		case sqlite3.SQLITE_FCNTL_SIZE_HINT, sqlite3.SQLITE_FCNTL_CHUNK_SIZE, sqlite3.SQLITE_FCNTL_MMAP_SIZE:
			return sqlite3.SQLITE_NOTFOUND // sizes are others in the file
		}
		return call[func(*libc.TLS, uintptr, int32, uintptr) int32](own.FxFileControl)(tls, f.real, op, arg)
	})
	m.FxShmMap = f.function(func(tls *libc.TLS, _ uintptr, region, size, extend int32, pOut uintptr) int32 {
		return call[func(*libc.TLS, uintptr, int32, int32, int32, uintptr) int32](own.FxShmMap)(tls, f.real, region, size, extend, pOut)
	})
	m.FxShmLock = f.function(func(tls *libc.TLS, _ uintptr, offset, n, flags int32) int32 {
		return call[func(*libc.TLS, uintptr, int32, int32, int32) int32](own.FxShmLock)(tls, f.real, offset, n, flags)
	})
	m.FxShmBarrier = f.function(func(tls *libc.TLS, _ uintptr) { call[func(*libc.TLS, uintptr)](own.FxShmBarrier)(tls, f.real) })
	m.FxShmUnmap = number(own.FxShmUnmap)
}

// real methods, by name.
type methods struct{ *sqlite3.Tsqlite3_io_methods }

func (f *file) own() methods {
	return methods{at[sqlite3.Tsqlite3_io_methods](*at[uintptr](f.real))}
}

func (m methods) close(tls *libc.TLS, p uintptr) int32 {
	return call[func(*libc.TLS, uintptr) int32](m.FxClose)(tls, p)
}

func (m methods) read(tls *libc.TLS, p, buf uintptr, n int32, offset int64) int32 {
	return call[func(*libc.TLS, uintptr, uintptr, int32, int64) int32](m.FxRead)(tls, p, buf, n, offset)
}

func (m methods) write(tls *libc.TLS, p, buf uintptr, n int32, offset int64) int32 {
	return call[func(*libc.TLS, uintptr, uintptr, int32, int64) int32](m.FxWrite)(tls, p, buf, n, offset)
}

func (m methods) truncate(tls *libc.TLS, p uintptr, size int64) int32 {
	return call[func(*libc.TLS, uintptr, int64) int32](m.FxTruncate)(tls, p, size)
}

func (m methods) size(tls *libc.TLS, p uintptr) (n int64, rc int32) {
	out := libc.Xmalloc(tls, 8)
	if out == 0 {
		return 0, sqlite3.SQLITE_NOMEM
	}
	defer libc.Xfree(tls, out)
	rc = call[func(*libc.TLS, uintptr, uintptr) int32](m.FxFileSize)(tls, p, out)
	return *at[int64](out), rc
}

func (f *file) close(tls *libc.TLS) int32 {
	rc := f.own().close(tls, f.real)
	libc.Xfree(tls, f.scratch)
	libc.Xfree(tls, f.methods)
	*at[uintptr](f.self) = 0
	f.v.mu.Lock()
	delete(f.v.mu.open, f)
	f.v.mu.Unlock()
	return rc
}

// journal lets a rollback journal have its header alone, which making a database writes: of pages, none is ever in one.
func (f *file) journal(m *sqlite3.Tsqlite3_io_methods) {
	own := f.own()
	m.FxRead = f.function(func(tls *libc.TLS, _, buf uintptr, n int32, offset int64) int32 {
		return own.read(tls, f.real, buf, n, offset)
	})
	m.FxTruncate = f.function(func(tls *libc.TLS, _ uintptr, n int64) int32 { return own.truncate(tls, f.real, n) })
	m.FxFileSize = f.function(func(tls *libc.TLS, _, pOut uintptr) int32 {
		return call[func(*libc.TLS, uintptr, uintptr) int32](own.FxFileSize)(tls, f.real, pOut)
	})
	m.FxWrite = f.function(func(tls *libc.TLS, _, buf uintptr, n int32, offset int64) int32 {
		if offset+int64(n) > int64(call[func(*libc.TLS, uintptr) int32](own.FxSectorSize)(tls, f.real)) {
			return sqlite3.SQLITE_IOERR_WRITE
		}
		return own.write(tls, f.real, buf, n, offset)
	})
}

// seal gives the methods of a database or a log.
func (f *file) seal(m *sqlite3.Tsqlite3_io_methods) {
	m.FxRead = f.function(func(tls *libc.TLS, _, buf uintptr, n int32, offset int64) int32 {
		return f.read(tls, bytesAt(buf, n), offset)
	})
	m.FxWrite = f.function(func(tls *libc.TLS, _, buf uintptr, n int32, offset int64) int32 {
		return f.write(tls, bytesAt(buf, n), offset)
	})
	m.FxTruncate = f.function(func(tls *libc.TLS, _ uintptr, n int64) int32 {
		if n == 0 || !f.known(tls) {
			return f.own().truncate(tls, f.real, n)
		}
		last := f.parts.at(n - 1)
		end := last.physical + last.sealed()
		if rc := f.extend(tls, end); rc != sqlite3.SQLITE_OK {
			return rc
		}
		return f.own().truncate(tls, f.real, end)
	})
	m.FxFileSize = f.function(func(tls *libc.TLS, _, pOut uintptr) int32 {
		n, rc := f.own().size(tls, f.real)
		if rc == sqlite3.SQLITE_OK {
			if f.known(tls) {
				n = f.parts.logical(n)
			} else {
				n = 0
			}
			*at[int64](pOut) = n
		}
		return rc
	})
}

// buffer is C's memory of n bytes at least.
func (f *file) buffer(tls *libc.TLS, n int64) bool {
	if n > f.room {
		libc.Xfree(tls, f.scratch)
		f.room = 0
		if f.scratch = libc.Xmalloc(tls, libc.Tsize_t(n)); f.scratch == 0 {
			return false
		}
		f.room = n
	}
	return true
}

// known says whether the file's layout is: a log's header says how large its pages are.
func (f *file) known(tls *libc.TLS) bool {
	if f.parts != nil {
		return true
	}
	if !f.buffer(tls, logHead+seal.Overhead) {
		return false
	}
	if rc := f.own().read(tls, f.real, f.scratch, logHead+seal.Overhead, 0); rc != sqlite3.SQLITE_OK {
		return false
	}
	head, err := f.v.box.OpenInPlace(bytesAt(f.scratch, logHead+seal.Overhead), place(f.name, 0))
	if err != nil {
		return false
	}
	if size := pageSize(head); size > 0 {
		f.parts = size
	}
	return f.parts != nil
}

// tries is how often a part is read that cannot be opened: SQLite reads the first page's head without a lock, when it may be half
// written.
const tries = 20

func (f *file) read(tls *libc.TLS, out []byte, offset int64) int32 {
	if !f.known(tls) {
		clear(out)
		return sqlite3.SQLITE_IOERR_SHORT_READ
	}
	// Recovery reads a frame with its header; there what does not open is the log's end.
	recovery := f.log && (offset < logHead || f.parts.at(offset).size == frameHead)
	for len(out) > 0 {
		p := f.parts.at(offset)
		if !f.buffer(tls, p.sealed()) {
			return sqlite3.SQLITE_IOERR_NOMEM
		}
		var data []byte
		for try := 1; data == nil; try++ {
			if rc := f.own().read(tls, f.real, f.scratch, int32(p.sealed()), p.physical); rc != sqlite3.SQLITE_OK {
				if rc == sqlite3.SQLITE_IOERR_SHORT_READ {
					clear(out)
				}
				return rc
			}
			var err error
			if data, err = f.v.box.OpenInPlace(bytesAt(f.scratch, int32(p.sealed())), place(f.name, p.physical)); err == nil {
				break
			}
			if recovery {
				clear(out)
				return sqlite3.SQLITE_OK
			}
			if data = nil; try == tries {
				return sqlite3.SQLITE_CORRUPT
			}
			runtime.Gosched()
		}
		n := copy(out, data[offset-p.logical:])
		out, offset = out[n:], offset+int64(n)
	}
	return sqlite3.SQLITE_OK
}

func (f *file) write(tls *libc.TLS, in []byte, offset int64) int32 {
	if f.log && offset == 0 && len(in) == logHead {
		size := pageSize(in)
		if size == 0 {
			return sqlite3.SQLITE_IOERR_WRITE // pages that are not of whole units
		}
		f.parts = size
	}
	if !f.known(tls) {
		return sqlite3.SQLITE_IOERR_WRITE
	}
	// What SQLite writes is whole parts, one after the other, in the file too.
	first, total := f.parts.at(offset), int64(0)
	for at, left := offset, int64(len(in)); left > 0; {
		p := f.parts.at(at)
		if p.logical != at || p.size > left {
			return sqlite3.SQLITE_IOERR_WRITE
		}
		at, left, total = at+p.size, left-p.size, total+p.sealed()
	}
	if !f.buffer(tls, total) {
		return sqlite3.SQLITE_IOERR_NOMEM
	}
	buf := bytesAt(f.scratch, int32(total))
	for done := int64(0); len(in) > 0; {
		p := f.parts.at(offset)
		sealed := buf[done : done+seal.NonceSize+p.size : done+p.sealed()]
		copy(sealed[seal.NonceSize:], in[:p.size])
		f.v.box.SealInPlace(sealed, place(f.name, p.physical))
		in, offset, done = in[p.size:], offset+p.size, done+p.sealed()
	}
	if rc := f.extend(tls, first.physical); rc != sqlite3.SQLITE_OK {
		return rc
	}
	return f.own().write(tls, f.real, f.scratch, int32(total), first.physical)
}

// extend makes a database's file reach to an offset. SQLite leaves pages out that hold nothing, and would find a hole there, which cannot be
// told from what somebody has wiped out.
func (f *file) extend(tls *libc.TLS, to int64) int32 {
	if f.log {
		return sqlite3.SQLITE_OK
	}
	size, rc := f.own().size(tls, f.real)
	if rc != sqlite3.SQLITE_OK {
		return rc
	}
	const sealed = unit + seal.Overhead
	if size/sealed*sealed >= to {
		return sqlite3.SQLITE_OK
	}
	buf := libc.Xmalloc(tls, sealed)
	if buf == 0 {
		return sqlite3.SQLITE_IOERR_NOMEM
	}
	defer libc.Xfree(tls, buf)
	for at := size / sealed * sealed; at < to; at += sealed {
		b := bytesAt(buf, sealed)
		clear(b)
		f.v.box.SealInPlace(b[:seal.NonceSize+unit], place(f.name, at))
		if rc := f.own().write(tls, f.real, buf, sealed, at); rc != sqlite3.SQLITE_OK {
			return rc
		}
	}
	return sqlite3.SQLITE_OK
}
