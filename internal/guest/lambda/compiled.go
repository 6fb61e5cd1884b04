package lambda

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"regexp"

	"github.com/ebb-run/ebb/internal/guest"
)

// Node.js keeps what V8 has compiled in files, and Python its bytecode; a function with megabytes of libraries starts in half the time from them.
// The first Init of a Unit makes them, inside its Sandbox and before any request came near it, and sends them in one frameKept: nobody who calls a
// function can leave something to its next Instance. They are shown read-only to all others. V8 and Python check them and do without those that do
// not fit.

const (
	// keepArg tells the bootstrap that compiled code is wanted.
	keepArg = "keep"
	// maxCompiled bounds the payload of frameKept, in bytes.
	maxCompiled = 16 << 20
	// mostCompiled bounds its files.
	mostCompiled = 10_000
)

// hasCompiled says whether there is compiled code of the Unit.
func hasCompiled(u *guest.Unit) bool { return u.Compiled != "" && isDir(u.Compiled) }

// compiledArg is what the bootstrap is to do about compiled code, "" for nothing. Its files hold the code's paths, so those have to be the same
// in each Sandbox.
func compiledArg(u *guest.Unit) string {
	switch {
	case u.Compiled == "" || !u.Mounts || familyOf(u.Runtime) != node && familyOf(u.Runtime) != python:
		return ""
	case hasCompiled(u):
		return compiledDir
	}
	return keepArg
}

// Compiles says whether the next Init of the Unit compiles its code for those after it.
func (p *Protocol) Compiles(u *guest.Unit) bool { return compiledArg(u) == keepArg }

var errCompiled = errors.New("the guest's compiled code makes no sense")

// compiledName is how they are called: a folder for the interpreter's version and what else counts, in it one file for each module.
var compiledName = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}/[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$`)

// compiledFile is one of them.
type compiledFile struct {
	name  string
	bytes []byte
}

// readCompiled reads the payload of frameKept: files one after the other, as length of the name (uint16, little endian), name, length (uint32)
// and bytes.
func readCompiled(p []byte) ([]compiledFile, error) {
	var all []compiledFile
	for len(p) > 0 {
		if len(p) < 2 || len(all) == mostCompiled {
			return nil, errCompiled
		}
		n := int(binary.LittleEndian.Uint16(p))
		if p = p[2:]; len(p) < n+4 {
			return nil, errCompiled
		}
		name, size := string(p[:n]), int64(binary.LittleEndian.Uint32(p[n:]))
		if p = p[n+4:]; int64(len(p)) < size || !compiledName.MatchString(name) {
			return nil, errCompiled
		}
		all = append(all, compiledFile{name, p[:size]})
		p = p[size:]
	}
	return all, nil
}

// keepCompiled makes the Unit's folder of compiled code, as a whole, unless it is there or none was asked for.
func keepCompiled(u *guest.Unit, payload []byte) error {
	if compiledArg(u) != keepArg {
		return nil
	}
	files, err := readCompiled(payload)
	if err != nil || len(files) == 0 {
		return err
	}
	above := filepath.Dir(u.Compiled)
	if err := os.MkdirAll(above, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(above, ".compiled-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	for _, f := range files {
		at := filepath.Join(tmp, filepath.FromSlash(f.name))
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(at, f.bytes, 0o644); err != nil {
			return err
		}
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	return os.Rename(tmp, u.Compiled) // fails where another Init was faster
}
