package seal

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ebb-run/ebb/internal/errs"
)

// KeySize is the size of a Key in bytes.
const KeySize = 32

// keyHead is what a key file begins with; the key follows in base64 (RFC 4648, section 5, without padding).
const keyHead = "ebb-seal-key-1:"

// Key is the operator's.
type Key struct{ b [KeySize]byte }

// String hides the key.
func (*Key) String() string { return "seal key" }

// GoString hides the key.
func (*Key) GoString() string { return "seal key" }

// ReadKey reads the key file at path, which only its owner may read. The errors name the file and the mend, never its content.
func ReadKey(path string) (*Key, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errs.New(errs.NotFound, "the seal key file %s does not exist", path).
			WithHint("Give the key that the data directory was sealed with; for a new data directory make one: ebb keys seal-new %s", path)
	}
	if err != nil {
		return nil, errs.New(errs.Invalid, "read seal key: %w", err).WithHint("Make %s readable for the user that runs ebb, and for nobody else.", path)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read seal key: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, errs.New(errs.Invalid, "the seal key %s is not a file", path).WithHint("Make one: ebb keys seal-new FILE")
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return nil, errs.New(errs.Forbidden, "the seal key file %s can be read by others (mode %04o)", path, perm).WithHint("Run: chmod 600 %s", path)
	}
	text, err := io.ReadAll(io.LimitReader(f, 256))
	if err != nil {
		return nil, fmt.Errorf("read seal key: %w", err)
	}
	coded, ok := strings.CutPrefix(strings.TrimSpace(string(text)), keyHead)
	raw, err := base64.RawURLEncoding.DecodeString(coded)
	if !ok || err != nil || len(raw) != KeySize {
		return nil, errs.New(errs.Invalid, "%s does not hold a seal key", path).
			WithHint("A key file is made by: ebb keys seal-new FILE")
	}
	k := new(Key)
	copy(k.b[:], raw)
	return k, nil
}

// NewKeyFile makes a file with a random Key, with mode 0600 and on disk when it returns. A file that is there is errs.Exists.
func NewKeyFile(path string) error {
	raw := make([]byte, KeySize)
	_, _ = rand.Read(raw)                                  // never fails; see crypto/rand
	f, err := os.CreateTemp(filepath.Dir(path), ".seal-*") // mode 0600
	if err != nil {
		return errs.New(errs.Invalid, "make seal key: %w", err).WithHint("Give a file in a folder that is there and writable.")
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.WriteString(keyHead + base64.RawURLEncoding.EncodeToString(raw) + "\n")
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("make seal key: %w", err)
	}
	// A link, not a rename: a key that is there is never replaced.
	if err := os.Link(f.Name(), path); errors.Is(err, fs.ErrExist) {
		return errs.New(errs.Exists, "%s is there already", path).WithHint("Give another file: what a key has sealed is lost with it.")
	} else if err != nil {
		return fmt.Errorf("make seal key: %w", err)
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("make seal key: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}
