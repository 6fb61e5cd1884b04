package fs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/store"
)

// object is a version that is open for reading. Its files are pinned.
type object struct {
	s      *Store
	info   store.ObjectInfo
	pieces []piece
	inline map[int64][]byte // the blobs that are in the database
	once   sync.Once
}

func (o *object) Info() store.ObjectInfo { return o.info }

func (o *object) Close() error {
	o.once.Do(func() { o.s.unpin(o.pieces) })
	return nil
}

func (o *object) Read(ctx context.Context, w io.Writer, offset, length int64) error {
	if offset < 0 || length < 0 || offset+length > o.info.Size {
		return errs.New(errs.Invalid, "the range is not in the object")
	}
	for _, p := range cut(o.pieces, offset, length) {
		if data, ok := o.inline[p.blob]; ok {
			if p.offset+p.length > int64(len(data)) {
				return damaged(p.blob, 0)
			}
			if _, err := w.Write(data[p.offset : p.offset+p.length]); err != nil {
				return err
			}
			continue
		}
		if err := o.s.readFile(ctx, w, p); err != nil {
			return err
		}
	}
	return nil
}

// readFile writes a range of a blob's file to w, every block verified first.
func (s *Store) readFile(ctx context.Context, w io.Writer, p piece) error {
	buf := s.free.Get().(*[frame]byte)
	defer s.free.Put(buf)
	f, err := os.Open(s.path(p.blob))
	if errors.Is(err, os.ErrNotExist) {
		return damaged(p.blob, 0)
	}
	if err != nil {
		return fmt.Errorf("read object: %w", err)
	}
	defer f.Close()
	for p.length > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		index := p.offset / s.frames.block()
		n, err := f.ReadAt(buf[:], index*frame)
		if err != nil && err != io.EOF {
			return fmt.Errorf("read object: %w", err)
		}
		data, err := s.frames.open(buf[:n], p.blob, index)
		if err != nil {
			return err
		}
		from := p.offset - index*s.frames.block()
		if from >= int64(len(data)) {
			return damaged(p.blob, index)
		}
		data = data[from:min(int64(len(data)), from+p.length)]
		if _, err := w.Write(data); err != nil {
			return err
		}
		p.offset += int64(len(data))
		p.length -= int64(len(data))
	}
	return nil
}

// inlined returns those of the pieces' blobs that are in the database, verified.
func (s *Store) inlined(ctx context.Context, pieces []piece) (map[int64][]byte, error) {
	var out map[int64][]byte
	for _, p := range pieces {
		if p.length > inlineMost || out[p.blob] != nil {
			continue
		}
		var data []byte
		if err := s.db.QueryRowContext(ctx, "SELECT data FROM blobs WHERE id = ?", p.blob).Scan(&data); err != nil {
			return nil, fmt.Errorf("blob %d: %w", p.blob, err)
		}
		if data == nil {
			continue // a range of a file
		}
		data, err := verified(data, p.blob, 0)
		if err != nil {
			return nil, err
		}
		if out == nil {
			out = map[int64][]byte{}
		}
		out[p.blob] = data
	}
	return out, nil
}

func verified(buf []byte, blob, index int64) ([]byte, error) {
	if len(buf) <= check || binary.BigEndian.Uint32(buf) != sum(blob, index, buf[check:]) {
		return nil, damaged(blob, index)
	}
	return buf[check:], nil
}

func damaged(blob, index int64) error {
	return fmt.Errorf("block %d of blob %d: %w", index, blob, store.ErrDamaged)
}

// pin keeps the files of pieces. The caller holds the gate.
func (s *Store) pin(pieces []piece) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range pieces {
		s.mu.pins[p.blob]++
	}
}

func (s *Store) unpin(pieces []piece) {
	last := false
	s.mu.Lock()
	for _, p := range pieces {
		if s.mu.pins[p.blob]--; s.mu.pins[p.blob] == 0 {
			delete(s.mu.pins, p.blob)
			_, waited := s.mu.doomed[p.blob]
			last = last || waited
		}
	}
	s.mu.Unlock()
	if last {
		s.wake()
	}
}
