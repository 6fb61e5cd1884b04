// Package checksum counts the checksums that S3 knows of objects: S3 guide, "Checking object integrity".
//
// Main functions: [New], a hash; [Compose] and [Combine], which make the checksum of an object of those of its parts.
//
// Hashes are given with the highest byte first, as S3's headers have them in Base64. It keeps nothing and knows nothing of requests.
package checksum

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"

	"github.com/cespare/xxhash/v2"
	"github.com/minio/crc64nvme"
	"github.com/zeebo/xxh3"

	"github.com/ebb-run/ebb/internal/store"
)

// nvme is the polynomial of CRC-64/NVME, bits reversed.
const nvme = 0x9a6c9329ac4bc9b5

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// All gives the algorithms that there are.
func All() []store.Algorithm {
	return []store.Algorithm{
		store.CRC32, store.CRC32C, store.CRC64NVME, store.SHA1, store.SHA256, store.SHA512, store.MD5, store.XXHash64, store.XXHash3, store.XXHash128,
	}
}

// New returns a hash of the algorithm, or nil where there is none of that name.
func New(a store.Algorithm) hash.Hash {
	switch a {
	case store.CRC32:
		return crc32.NewIEEE()
	case store.CRC32C:
		return crc32.New(castagnoli)
	case store.CRC64NVME:
		return crc64nvme.New()
	case store.SHA1:
		return sha1.New()
	case store.SHA256:
		return sha256.New()
	case store.SHA512:
		return sha512.New()
	case store.MD5:
		return md5.New()
	case store.XXHash64:
		return xxhash.New()
	case store.XXHash3:
		return xxh3.New()
	case store.XXHash128:
		return wide{xxh3.New()}
	}
	return nil
}

// wide is XXH3 with 128 bits.
type wide struct{ *xxh3.Hasher }

// Size is in bytes.
func (wide) Size() int { return 16 }

// Sum appends the hash.
func (w wide) Sum(b []byte) []byte {
	sum := w.Sum128().Bytes()
	return append(b, sum[:]...)
}

// Compose returns the composite checksum of parts: that over their values.
func Compose(a store.Algorithm, parts []store.PartInfo) (string, error) {
	h := New(a)
	for _, p := range parts {
		raw, err := base64.StdEncoding.DecodeString(p.Checksum)
		if err != nil || len(raw) != h.Size() {
			return "", fmt.Errorf("checksum of part %d: %w", p.Number, store.ErrPartMissing)
		}
		h.Write(raw)
	}
	return fmt.Sprintf("%s-%d", base64.StdEncoding.EncodeToString(h.Sum(nil)), len(parts)), nil
}

// Combine returns the checksum of the whole from those of its parts, for an algorithm that is [store.Algorithm.Whole].
func Combine(a store.Algorithm, parts []store.PartInfo) (string, error) {
	poly, width := uint64(nvme), 64
	switch a {
	case store.CRC32:
		poly, width = crc32.IEEE, 32
	case store.CRC32C:
		poly, width = crc32.Castagnoli, 32
	}
	var sum uint64
	for _, p := range parts {
		raw, err := base64.StdEncoding.DecodeString(p.Checksum)
		if err != nil || len(raw) != width/8 {
			return "", fmt.Errorf("checksum of part %d: %w", p.Number, store.ErrPartMissing)
		}
		var next uint64
		if width == 32 {
			next = uint64(binary.BigEndian.Uint32(raw))
		} else {
			next = binary.BigEndian.Uint64(raw)
		}
		sum = shift(sum, poly, width, uint64(p.Size)) ^ next
	}
	if width == 32 {
		return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, uint32(sum))), nil
	}
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, sum)), nil
}

// shift returns what a reflected CRC becomes when size zero bytes follow: crc times x^(8*size), modulo the polynomial.
func shift(crc, poly uint64, width int, size uint64) uint64 {
	power := uint64(1) << (width - 1 - 8) // x^8: the highest bit is x^0
	for ; size > 0; size >>= 1 {
		if size&1 == 1 {
			crc = multiply(crc, power, poly, width)
		}
		power = multiply(power, power, poly, width)
	}
	return crc
}

// multiply multiplies two polynomials modulo a third, bits reversed.
func multiply(a, b, poly uint64, width int) uint64 {
	var product uint64
	for mask := uint64(1) << (width - 1); mask != 0; mask >>= 1 { // x^0 first
		if a&mask != 0 {
			product ^= b
		}
		low := b & 1
		b >>= 1 // times x
		if low == 1 {
			b ^= poly
		}
	}
	return product
}
