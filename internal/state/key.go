package state

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ebb-run/ebb/internal/errs"
)

// keySize is that of AES-256.
const keySize = 32

// LoadKey reads the sealing key from a file, which is made with a random key when it is missing. The file holds the 32 bytes
// and must be readable by its owner only.
func LoadKey(path string) ([]byte, error) {
	key, err := readKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeKey(path); err != nil {
			return nil, fmt.Errorf("make sealing key %s: %w", path, err)
		}
		key, err = readKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read sealing key: %w", err)
	}
	return key, nil
}

func readKey(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errs.New(errs.Invalid, "%s is not a file", path).WithHint("Put the key file of this data directory there.")
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return nil, errs.New(errs.Forbidden, "%s can be read by others (mode %04o)", path, perm).
			WithHint("Run: chmod 600 %s", path)
	}
	key, err := io.ReadAll(io.LimitReader(f, keySize+1))
	if err != nil {
		return nil, err
	}
	if len(key) != keySize {
		return nil, errs.New(errs.Invalid, "%s is not a key of %d bytes (it has %d)", path, keySize, info.Size()).
			WithHint("Put back the key file that belongs to this data directory; without it the deployments cannot be read.")
	}
	return key, nil
}

// makeKey links a finished file into place: of two processes that start together one wins, and both then read the same key.
func makeKey(path string) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".key-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	key := make([]byte, keySize)
	rand.Read(key)
	_, err = f.Write(key)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	if len(key) != keySize {
		return nil, errs.New(errs.Invalid, "the sealing key has %d bytes; want %d", len(key), keySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	return cipher.NewGCM(block)
}

// fingerprint tells keys apart without giving them away.
func fingerprint(key []byte) string {
	h := hmac.New(sha256.New, key)
	h.Write([]byte("ebb control state key"))
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// The bucket's keys. The Tenant comes first, so that one subject filter, and one NATS permission, covers all it owns.
const (
	kindPointer = "current"
	kindRecord  = "deployment" // sealed
	kindSummary = "summary"    // written after its record: a Deployment exists when its summary does
)

func (k StackKey) pointer() string          { return k.join(kindPointer) }
func (k StackKey) record(id string) string  { return k.join(kindRecord) + "." + encode(id) }
func (k StackKey) summary(id string) string { return k.join(kindSummary) + "." + encode(id) }
func (k StackKey) join(kind string) string {
	return encode(k.Tenant) + "." + kind + "." + encode(k.App) + "." + encode(k.Stage)
}

// check refuses keys that cannot be written.
func (k StackKey) check() error {
	for _, p := range []struct{ name, v string }{{"tenant", k.Tenant}, {"app", k.App}, {"stage", k.Stage}} {
		if p.v == "" || len(p.v) > 256 {
			return errs.New(errs.Invalid, "stack %s: the %s must have 1 to 256 bytes", k, p.name)
		}
	}
	return nil
}

// encode writes a name with the letters that a subject's element may hold: letters, digits, _ and - stand for
// themselves, every other byte is "=" and two hex digits.
func encode(name string) string {
	var b strings.Builder
	for i := range len(name) {
		if c := name[i]; c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "=%02x", c)
		}
	}
	return b.String()
}

func decode(s string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '=' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", false
		}
		c, err := hex.DecodeString(s[i+1 : i+3])
		if err != nil {
			return "", false
		}
		b.WriteByte(c[0])
		i += 2
	}
	return b.String(), true
}

// stackOf reads a key of the bucket; rest is what follows the stage.
func stackOf(key, kind string) (k StackKey, rest []string, ok bool) {
	parts := strings.Split(key, ".")
	if len(parts) < 4 || parts[1] != kind {
		return k, nil, false
	}
	for i := range parts {
		var fine bool
		if parts[i], fine = decode(parts[i]); !fine {
			return k, nil, false
		}
	}
	return StackKey{parts[0], parts[2], parts[3]}, parts[4:], true
}
