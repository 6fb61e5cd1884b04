//go:build linux && (amd64 || arm64)

package helper

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"unsafe"
)

// image is the program. It must not be called: it is copied out of the text of this process.
//
//go:noescape
func image()

var _ = image // the assembly alone refers to it

func imageAddr() *byte

// imageEnd is behind the program's last instruction.
var imageEnd = []byte{0xbe, 0x0b, 0xbe, 0x0b, 0xbe, 0x0b, 0xbe, 0x0b}

// Image gives the program as an ELF file.
func Image() []byte {
	const most = 4 << 10
	text := unsafe.Slice(imageAddr(), most)
	end := bytes.Index(text, imageEnd)
	if end < 0 {
		panic("helper: the program's end is not in sight")
	}
	return elf(text[:end])
}

// elf wraps code that begins with its first instruction; elf(5).
func elf(code []byte) []byte {
	const (
		load   = 0x10000000
		header = 64 + 56
		amd64  = 62
		arm64  = 183
	)
	machine := uint16(amd64)
	if runtime.GOARCH == "arm64" {
		machine = arm64
	}
	le := binary.LittleEndian
	b := append(make([]byte, 0, header+len(code)), 0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	b = le.AppendUint16(b, 2) // ET_EXEC
	b = le.AppendUint16(b, machine)
	b = le.AppendUint32(b, 1)
	b = le.AppendUint64(b, load+header) // entry
	b = le.AppendUint64(b, 64)          // program headers
	b = le.AppendUint64(b, 0)           // no sections
	b = le.AppendUint32(b, 0)
	for _, v := range []uint16{64, 56, 1, 64, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	b = le.AppendUint32(b, 1) // PT_LOAD
	b = le.AppendUint32(b, 5) // readable, executable
	size := uint64(header + len(code))
	for _, v := range []uint64{0, load, load, size, size, 0x10000} {
		b = le.AppendUint64(b, v)
	}
	return append(b, code...)
}
