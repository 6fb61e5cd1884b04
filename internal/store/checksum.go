package store

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
)

// nvme is the polynomial of CRC-64/NVME, bits reversed.
const nvme = 0x9a6c9329ac4bc9b5

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	nvmeTable  = crc64.MakeTable(nvme)
)

// New returns a hash of the algorithm, or nil where there is none of that name.
func (a Algorithm) New() hash.Hash {
	switch a {
	case CRC32:
		return crc32.NewIEEE()
	case CRC32C:
		return crc32.New(castagnoli)
	case CRC64NVME:
		return crc64.New(nvmeTable)
	case SHA1:
		return sha1.New()
	case SHA256:
		return sha256.New()
	}
	return nil
}

// Whole says whether the checksum of an object can be had from those of its parts.
func (a Algorithm) Whole() bool { return a == CRC32 || a == CRC32C || a == CRC64NVME }

// Compose returns the composite checksum of parts: that over their values.
func (a Algorithm) Compose(parts []PartInfo) (string, error) {
	h := a.New()
	for _, p := range parts {
		raw, err := base64.StdEncoding.DecodeString(p.Checksum)
		if err != nil || len(raw) != h.Size() {
			return "", fmt.Errorf("checksum of part %d: %w", p.Number, ErrPartMissing)
		}
		h.Write(raw)
	}
	return fmt.Sprintf("%s-%d", base64.StdEncoding.EncodeToString(h.Sum(nil)), len(parts)), nil
}

// Combine returns the checksum of the whole from those of its parts, for an algorithm that is Whole.
func (a Algorithm) Combine(parts []PartInfo) (string, error) {
	poly, width := uint64(nvme), 64
	switch a {
	case CRC32:
		poly, width = crc32.IEEE, 32
	case CRC32C:
		poly, width = crc32.Castagnoli, 32
	}
	var sum uint64
	for _, p := range parts {
		raw, err := base64.StdEncoding.DecodeString(p.Checksum)
		if err != nil || len(raw) != width/8 {
			return "", fmt.Errorf("checksum of part %d: %w", p.Number, ErrPartMissing)
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
