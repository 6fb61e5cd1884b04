package fs

import (
	"encoding/binary"
	"fmt"

	"github.com/ebb-run/ebb/internal/seal"
)

// frames are the blocks of files as they are on disk: a checksum and the data; or, where there is a Box, the data sealed. Either is bound
// to the file's number and the block's place. That a file was cut shows by what the database says of it.
type frames struct{ box *seal.Box }

// data is where a block's data are in a buffer.
func (f frames) data(buf *[frame]byte) []byte {
	if f.box == nil {
		return buf[check:]
	}
	return buf[seal.NonceSize : frame-seal.TagSize]
}

// block is how many bytes of data a whole block has.
func (f frames) block() int64 {
	if f.box == nil {
		return frame - check
	}
	return frame - seal.Overhead
}

// finish makes the frame of a buffer that holds n bytes of data.
func (f frames) finish(buf *[frame]byte, n int, blob, index int64) []byte {
	if f.box == nil {
		binary.BigEndian.PutUint32(buf[:], sum(blob, index, buf[check:check+n]))
		return buf[:check+n]
	}
	return f.box.SealInPlace(buf[:seal.NonceSize+n], place(blob, index))
}

// open gives the data of a frame, verified.
func (f frames) open(buf []byte, blob, index int64) ([]byte, error) {
	if f.box == nil {
		return verified(buf, blob, index)
	}
	data, err := f.box.OpenInPlace(buf, place(blob, index))
	if err != nil {
		return nil, damaged(blob, index)
	}
	return data, nil
}

func place(blob, index int64) string { return fmt.Sprintf("blob %d %d", blob, index) }
