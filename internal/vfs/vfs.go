package vfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/ebb-run/ebb/internal/seal"
)

// VFS is one registration with SQLite. Databases opened by it are closed before it is.
type VFS struct {
	box  *seal.Box
	name string
	tls  *libc.TLS
	own  uintptr // sqlite3_vfs, in C's memory
	real uintptr // SQLite's own
	keep []any   // functions that C's memory leads to

	mu struct {
		sync.Mutex
		open map[*file]struct{} // which C's memory leads to
	}
}

// New registers a VFS that seals by box.
func New(box *seal.Box) (*VFS, error) {
	if box == nil {
		return nil, errors.New("a vfs needs a key")
	}
	v := &VFS{box: box, tls: libc.NewTLS()}
	v.mu.open = map[*file]struct{}{}
	v.real = sqlite3.Xsqlite3_vfs_find(v.tls, 0)
	v.own = libc.Xmalloc(v.tls, libc.Tsize_t(unsafe.Sizeof(sqlite3.Tsqlite3_vfs{})))
	if v.real == 0 || v.own == 0 {
		v.tls.Close()
		return nil, errors.New("register vfs: out of memory")
	}
	v.name = fmt.Sprintf("ebb-sealed-%x", v.own) // an address is one registration's
	name, err := libc.CString(v.name)
	if err != nil {
		libc.Xfree(v.tls, v.own)
		v.tls.Close()
		return nil, fmt.Errorf("register vfs: %w", err)
	}
	own := at[sqlite3.Tsqlite3_vfs](v.own)
	*own = *at[sqlite3.Tsqlite3_vfs](v.real)
	own.FiVersion = 2 // without the replacement of system calls
	own.FszOsFile += headSize
	own.FpNext, own.FzName = 0, name
	own.FxOpen = v.function(func(tls *libc.TLS, _, zName, pFile uintptr, flags int32, pOut uintptr) int32 {
		return v.openFile(tls, zName, pFile, flags, pOut)
	})
	v.forward(own)
	if rc := sqlite3.Xsqlite3_vfs_register(v.tls, v.own, 0); rc != sqlite3.SQLITE_OK {
		v.free()
		return nil, fmt.Errorf("register vfs: SQLite's error %d", rc)
	}
	return v, nil
}

// Name is the value of the parameter "vfs"; "" of a nil VFS.
func (v *VFS) Name() string {
	if v == nil {
		return ""
	}
	return v.name
}

// Close takes the registration back.
func (v *VFS) Close() error {
	if v == nil || v.own == 0 {
		return nil
	}
	v.mu.Lock()
	n := len(v.mu.open)
	v.mu.Unlock()
	if n > 0 {
		return fmt.Errorf("close vfs: %d files are open by it", n)
	}
	sqlite3.Xsqlite3_vfs_unregister(v.tls, v.own)
	v.free()
	return nil
}

func (v *VFS) free() {
	libc.Xfree(v.tls, at[sqlite3.Tsqlite3_vfs](v.own).FzName)
	libc.Xfree(v.tls, v.own)
	v.own = 0
	v.tls.Close()
}

// forward gives the methods that need no more than SQLite's own VFS in the place of this one.
func (v *VFS) forward(own *sqlite3.Tsqlite3_vfs) {
	real := v.real
	r := at[sqlite3.Tsqlite3_vfs](real)
	own.FxDelete = v.function(func(tls *libc.TLS, _, zName uintptr, sync int32) int32 {
		return call[func(*libc.TLS, uintptr, uintptr, int32) int32](r.FxDelete)(tls, real, zName, sync)
	})
	own.FxAccess = v.function(func(tls *libc.TLS, _, zName uintptr, flags int32, pOut uintptr) int32 {
		return call[func(*libc.TLS, uintptr, uintptr, int32, uintptr) int32](r.FxAccess)(tls, real, zName, flags, pOut)
	})
	own.FxFullPathname = v.function(func(tls *libc.TLS, _, zName uintptr, n int32, zOut uintptr) int32 {
		return call[func(*libc.TLS, uintptr, uintptr, int32, uintptr) int32](r.FxFullPathname)(tls, real, zName, n, zOut)
	})
	own.FxDlOpen, own.FxDlError, own.FxDlSym, own.FxDlClose = 0, 0, 0, 0
	own.FxRandomness = v.function(func(tls *libc.TLS, _ uintptr, n int32, zOut uintptr) int32 {
		return call[func(*libc.TLS, uintptr, int32, uintptr) int32](r.FxRandomness)(tls, real, n, zOut)
	})
	own.FxSleep = v.function(func(tls *libc.TLS, _ uintptr, micros int32) int32 {
		return call[func(*libc.TLS, uintptr, int32) int32](r.FxSleep)(tls, real, micros)
	})
	own.FxCurrentTime = v.function(func(tls *libc.TLS, _, pOut uintptr) int32 {
		return call[func(*libc.TLS, uintptr, uintptr) int32](r.FxCurrentTime)(tls, real, pOut)
	})
	own.FxCurrentTimeInt64 = v.function(func(tls *libc.TLS, _, pOut uintptr) int32 {
		return call[func(*libc.TLS, uintptr, uintptr) int32](r.FxCurrentTimeInt64)(tls, real, pOut)
	})
	own.FxGetLastError = v.function(func(tls *libc.TLS, _ uintptr, n int32, zOut uintptr) int32 {
		return call[func(*libc.TLS, uintptr, int32, uintptr) int32](r.FxGetLastError)(tls, real, n, zOut)
	})
}

// function makes what C's memory calls f by, and keeps f as long as v.
func (v *VFS) function(f any) uintptr {
	v.keep = append(v.keep, f)
	return address(f)
}

// address is a function value as the translated C holds it: where its closure is. The caller keeps f.
func address(f any) uintptr {
	return (*[2]uintptr)(unsafe.Pointer(&f))[1]
}

// call makes a function of what address made.
func call[F any](p uintptr) F {
	return *(*F)(unsafe.Pointer(&p))
}

// at is a value in C's memory.
func at[T any](p uintptr) *T { return *(**T)(unsafe.Pointer(&p)) }

// bytesAt are n bytes of C's memory.
func bytesAt(p uintptr, n int32) []byte { return unsafe.Slice(at[byte](p), n) }

// Head returns up to n of the first bytes of a database's file, at most [unit]; seal.ErrOpen where they were not sealed by box. A nil box
// reads a file that is not sealed.
func Head(path string, box *seal.Box, n int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	buf := make([]byte, unit+box.Overhead())
	got, err := io.ReadFull(f, buf)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	buf = buf[:got]
	if box != nil && got > 0 {
		if buf, err = box.OpenInPlace(buf, place(filepath.Base(path), 0)); err != nil {
			return nil, err
		}
	}
	return buf[:min(n, len(buf))], nil
}

// baseName is the name of a file without its folder, which may be moved.
func baseName(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }
