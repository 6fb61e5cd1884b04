package seal

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/ebb-run/ebb/internal/errs"
)

// Overhead is how many bytes longer sealed data is: a nonce before it and a tag behind it.
const Overhead = NonceSize + TagSize

// The parts of Overhead.
const (
	NonceSize = chacha20poly1305.NonceSizeX
	TagSize   = chacha20poly1305.Overhead
)

// ErrOpen says that data is not what was sealed, or was sealed by another key.
var ErrOpen = errors.New("sealed data was changed, or was sealed by another key")

// markerFormat is the version of the marker.
const markerFormat = 1

// marker is what the data directory keeps of its seal.
type marker struct {
	Format int    `json:"format"`
	Root   string `json:"root"` // the root key, sealed by the operator's, in base64
}

const rootPlace = "ebb root key"

// Sealer is a data directory's seal, open. It is immutable.
type Sealer struct{ root []byte }

// String hides what it holds.
func (*Sealer) String() string { return "sealer" }

// GoString hides what it holds.
func (*Sealer) GoString() string { return "sealer" }

// New makes a Sealer with a random root key.
func New() *Sealer {
	s := &Sealer{root: make([]byte, KeySize)}
	_, _ = rand.Read(s.root) // never fails; see crypto/rand
	return s
}

// Open opens the Sealer that a marker holds. A marker of another key is errs.Forbidden, one of a newer format errs.Unsupported.
func Open(k *Key, text []byte) (*Sealer, error) {
	var m marker
	err := json.Unmarshal(text, &m)
	sealed, decodeErr := base64.StdEncoding.DecodeString(m.Root)
	switch {
	case err == nil && m.Format > markerFormat:
		return nil, errs.New(errs.Unsupported, "the seal has format %d; this ebb knows up to %d", m.Format, markerFormat).WithHint("Use the newer ebb that wrote it.")
	case err != nil || decodeErr != nil || m.Format < 1:
		return nil, errs.New(errs.Invalid, "the seal is damaged").WithHint("Put it back from a backup: without it the data directory cannot be read.")
	}
	root, err := newBox(k.b[:]).Open(nil, sealed, rootPlace)
	if err != nil || len(root) != KeySize {
		return nil, errs.New(errs.Forbidden, "another key has sealed it").WithHint("Give the file with the key that it was sealed with: --seal-key-file FILE.")
	}
	return &Sealer{root}, nil
}

// Marker is what a Key opens the Sealer from.
func (s *Sealer) Marker(k *Key) []byte {
	out, _ := json.Marshal(marker{markerFormat, base64.StdEncoding.EncodeToString(newBox(k.b[:]).Seal(nil, s.root, rootPlace))}) // cannot fail
	return append(out, '\n')
}

// Key derives 32 bytes for a purpose; nil of a nil Sealer.
func (s *Sealer) Key(purpose string) []byte {
	if s == nil {
		return nil
	}
	key, err := hkdf.Key(sha256.New, s.root, nil, "ebb "+purpose, KeySize)
	if err != nil {
		panic("seal: " + err.Error()) // only where more is asked for than HKDF gives
	}
	return key
}

// Box gives the Box of a purpose; nil of a nil Sealer.
func (s *Sealer) Box(purpose string) *Box {
	if s == nil {
		return nil
	}
	return newBox(s.Key(purpose))
}

// Box seals and opens. It may be used concurrently. A nil Box passes data through.
type Box struct{ aead cipher.AEAD }

func newBox(key []byte) *Box {
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		panic("seal: " + err.Error()) // the key has another size
	}
	return &Box{aead}
}

// String hides what it holds.
func (*Box) String() string { return "box" }

// GoString hides what it holds.
func (*Box) GoString() string { return "box" }

// Overhead is how many bytes longer what the Box seals is.
func (b *Box) Overhead() int {
	if b == nil {
		return 0
	}
	return Overhead
}

// Seal appends data, sealed, to dst. place says where it is kept: only there it opens. dst must not overlap data.
func (b *Box) Seal(dst, data []byte, place string) []byte {
	if b == nil {
		return append(dst, data...)
	}
	var nonce [NonceSize]byte
	_, _ = rand.Read(nonce[:])
	dst = append(dst, nonce[:]...)
	return b.aead.Seal(dst, nonce[:], data, []byte(place))
}

// Open appends what was sealed to dst, which must not overlap it. The error is ErrOpen.
func (b *Box) Open(dst, sealed []byte, place string) ([]byte, error) {
	if b == nil {
		return append(dst, sealed...), nil
	}
	if len(sealed) < Overhead {
		return nil, ErrOpen
	}
	out, err := b.aead.Open(dst, sealed[:NonceSize], sealed[NonceSize:], []byte(place))
	if err != nil {
		return nil, ErrOpen
	}
	return out, nil
}

// SealInPlace seals the bytes of buf behind the first NonceSize, and returns all of it, TagSize longer: buf has that capacity. The Box
// is not nil.
func (b *Box) SealInPlace(buf []byte, place string) []byte {
	_, _ = rand.Read(buf[:NonceSize])
	data := buf[NonceSize:]
	b.aead.Seal(data[:0], buf[:NonceSize], data, []byte(place))
	return buf[:len(buf)+TagSize]
}

// OpenInPlace opens sealed where it stands, and returns the part of it with the data. The Box is not nil.
func (b *Box) OpenInPlace(sealed []byte, place string) ([]byte, error) {
	if len(sealed) < Overhead {
		return nil, ErrOpen
	}
	data := sealed[NonceSize:]
	out, err := b.aead.Open(data[:0], sealed[:NonceSize], data, []byte(place))
	if err != nil {
		return nil, ErrOpen
	}
	return out, nil
}

// OpenFile opens the content of a small file; the error names it.
func (b *Box) OpenFile(path, place string, content []byte) ([]byte, error) {
	out, err := b.Open(nil, content, place)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return out, nil
}
