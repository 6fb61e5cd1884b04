package fs

import (
	"context"
	"crypto/md5"
	"database/sql"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"github.com/ebb-run/ebb/internal/checksum"
	"github.com/ebb-run/ebb/internal/store"
)

const (
	frame      = 64 << 10 // bytes on disk of a block: see frames
	check      = 4        // bytes of the checksum
	inlineMost = 16 << 10 // bytes of data that are kept in the database
	perFolder  = 4096     // files in one folder
	reserve    = 1024     // blob numbers taken at a time
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// piece is a range of a blob. An object's data are its pieces, one after the other.
type piece struct{ blob, offset, length int64 }

func encodePieces(pieces []piece) []byte {
	out := []byte{}
	for _, p := range pieces {
		out = binary.AppendUvarint(out, uint64(p.blob))
		out = binary.AppendUvarint(out, uint64(p.offset))
		out = binary.AppendUvarint(out, uint64(p.length))
	}
	return out
}

func decodePieces(data []byte) ([]piece, error) {
	var out []piece
	for len(data) > 0 {
		var v [3]int64
		for i := range v {
			u, n := binary.Uvarint(data)
			if n <= 0 || u > 1<<62 {
				return nil, fmt.Errorf("list of an object's pieces: %w", store.ErrDamaged)
			}
			v[i], data = int64(u), data[n:]
		}
		out = append(out, piece{v[0], v[1], v[2]})
	}
	return out, nil
}

// cut returns the pieces of a range.
func cut(pieces []piece, offset, length int64) []piece {
	var out []piece
	for _, p := range pieces {
		if offset >= p.length {
			offset -= p.length
			continue
		}
		n := min(p.length-offset, length)
		if n <= 0 {
			break
		}
		out = append(out, piece{p.blob, p.offset + offset, n})
		offset, length = 0, length-n
	}
	return out
}

// sum is the checksum of one block: over the file's number and the block's place too, so that a block found elsewhere is damage.
func sum(blob, index int64, data []byte) uint32 {
	var seed [16]byte
	binary.BigEndian.PutUint64(seed[:], uint64(blob))
	binary.BigEndian.PutUint64(seed[8:], uint64(index))
	return crc32.Update(crc32.Update(0, castagnoli, seed[:]), castagnoli, data)
}

// blob is data that was taken in and is not yet named in the database.
type blob struct {
	id     int64
	inline []byte // what the database is to hold; nil for a file
	size   int64
	sums   store.ObjectSums
	last   string // the checksum of the last algorithm that was asked for
	whole  bool   // all of size 0: there is nothing to store
}

func (b *blob) pieces() []piece {
	if b.whole {
		return nil
	}
	return []piece{{b.id, 0, b.size}}
}

func (s *Store) path(id int64) string {
	return filepath.Join(s.dir, "data", fmt.Sprintf("%010x", id/perFolder), fmt.Sprintf("%03x", id%perFolder))
}

// take stores what comes from r, synced, and counts it; its sums are of the first algorithm. When it fails, nothing is left.
func (s *Store) take(ctx context.Context, r io.Reader, most int64, algorithms ...store.Algorithm) (*blob, error) {
	buf := s.free.Get().(*[frame]byte)
	defer s.free.Put(buf)
	counter := newCounter(algorithms...)
	n, end, err := fill(r, s.frames.data(buf))
	if err != nil {
		return nil, err
	}
	if end && n <= inlineMost {
		return s.inline(ctx, buf, n, counter)
	}
	id, err := s.newID(ctx)
	if err != nil {
		return nil, err
	}
	b := &blob{id: id}
	if err := s.writeFile(ctx, b, buf, n, end, r, most, counter); err != nil {
		s.drop(b)
		return nil, full(err)
	}
	b.sums, b.last = counter.sums(), counter.last()
	return b, nil
}

// fill reads until the buffer is full or the reader ends. It is not io.ReadFull, which gives a reader's end the same error as a body that was
// cut on its way.
func fill(r io.Reader, buf []byte) (n int, end bool, err error) {
	for n < len(buf) {
		m, err := r.Read(buf[n:])
		n += m
		if err == io.EOF {
			return n, true, nil
		}
		if err != nil {
			return n, false, err
		}
	}
	return n, false, nil
}

func (s *Store) inline(ctx context.Context, buf *[frame]byte, n int, counter *counter) (*blob, error) {
	b := &blob{size: int64(n), whole: n == 0}
	data := s.frames.data(buf)[:n]
	counter.Write(data)
	if n > 0 {
		id, err := s.newID(ctx)
		if err != nil {
			return nil, err
		}
		b.id = id
		b.inline = append(binary.BigEndian.AppendUint32(make([]byte, 0, check+n), sum(id, 0, data)), data...)
	}
	b.sums, b.last = counter.sums(), counter.last()
	return b, nil
}

// writeFile writes blocks to the blob's file, of which the first n bytes, all at the end, are in buf.
func (s *Store) writeFile(ctx context.Context, b *blob, buf *[frame]byte, n int, end bool, r io.Reader, most int64, counter *counter) (err error) {
	path := s.path(b.id)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		if err := s.makeFolder(filepath.Dir(path)); err != nil {
			return err
		}
		f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for index := int64(0); n > 0; index++ {
		data := s.frames.data(buf)[:n]
		if b.size += int64(n); b.size > most {
			return store.ErrObjectTooLarge
		}
		counter.Write(data)
		if _, err := f.Write(s.frames.finish(buf, n, b.id, index)); err != nil {
			return err
		}
		if end {
			break
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		if n, end, err = fill(r, s.frames.data(buf)); err != nil {
			return err
		}
	}
	s.opts.Passing("written")
	if err := f.Sync(); err != nil {
		return err
	}
	s.opts.Passing("synced")
	return syncFolder(filepath.Dir(path))
}

func (s *Store) makeFolder(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return syncFolder(filepath.Dir(dir))
}

// newID takes a number for a blob. It counts as pending until settled.
func (s *Store) newID(ctx context.Context) (int64, error) {
	for {
		s.mu.Lock()
		if s.mu.next < s.mu.limit {
			id := s.mu.next
			s.mu.next++
			s.mu.pending[id] = struct{}{}
			s.mu.Unlock()
			return id, nil
		}
		s.mu.Unlock()
		if err := s.reserve(ctx); err != nil {
			return 0, err
		}
	}
}

// reserve makes numbers usable: what a crash leaves of them is looked for between the lowest that was pending and the highest reserved.
func (s *Store) reserve(ctx context.Context) error {
	limit := int64(0)
	err := s.write(ctx, func(t *tx) error {
		s.mu.Lock()
		next, low := s.mu.next, s.mu.next
		limit = s.mu.limit
		for id := range s.mu.pending {
			low = min(low, id)
		}
		s.mu.Unlock()
		if next < limit {
			return nil // another has done it
		}
		limit += reserve
		if err := t.exec("UPDATE meta SET v = ? WHERE k = 'low'", low); err != nil {
			return err
		}
		return t.exec("UPDATE meta SET v = ? WHERE k = 'limit'", limit)
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.mu.limit = max(s.mu.limit, limit)
	s.mu.Unlock()
	return nil
}

// settled says that a blob is named in the database, or is gone.
func (s *Store) settled(ids ...int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		delete(s.mu.pending, id)
	}
}

// drop removes a blob that was not named. What cannot be removed stays pending, for the next Open.
func (s *Store) drop(b *blob) {
	if b == nil || b.whole {
		return
	}
	if b.inline == nil {
		if err := os.Remove(s.path(b.id)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return
		}
	}
	s.settled(b.id)
}

// add names a new blob in the database.
func (t *tx) add(b *blob) error {
	if b.whole {
		return nil
	}
	return t.exec("INSERT INTO blobs(id, refs, data) VALUES(?, 1, ?)", b.id, b.inline)
}

// share counts one more user of each piece.
func (t *tx) share(pieces []piece) error {
	for _, p := range pieces {
		n, err := t.count("UPDATE blobs SET refs = refs + 1 WHERE id = ?", p.blob)
		if err != nil {
			return err
		}
		if n == 0 {
			return errGone // its last user has gone
		}
	}
	return nil
}

// unshare counts one user less, and puts what has none in the trash.
func (t *tx) unshare(pieces []piece) error {
	for _, p := range pieces {
		var refs int
		var file bool
		if err := t.row("UPDATE blobs SET refs = refs - 1 WHERE id = ? RETURNING refs, data IS NULL", []any{p.blob}, &refs, &file); err != nil {
			if errors.Is(err, sql.ErrNoRows) {
				continue
			}
			return err
		}
		if refs > 0 {
			continue
		}
		if err := t.exec("DELETE FROM blobs WHERE id = ?", p.blob); err != nil {
			return err
		}
		if file {
			t.trashed = true
			if err := t.exec("INSERT OR IGNORE INTO trash(id) VALUES(?)", p.blob); err != nil {
				return err
			}
		}
	}
	return nil
}

// counter counts what passes.
type counter struct {
	size int64
	md5  hash.Hash
	sum  []hash.Hash // of the algorithms asked for, nil for none
}

func newCounter(algorithms ...store.Algorithm) *counter {
	c := &counter{md5: md5.New()}
	for i, a := range algorithms {
		switch {
		case a == store.MD5:
			c.sum = append(c.sum, c.md5)
		case i > 0 && a == algorithms[i-1]:
			c.sum = append(c.sum, c.sum[i-1])
		default:
			c.sum = append(c.sum, checksum.New(a))
		}
	}
	return c
}

func (c *counter) Write(p []byte) (int, error) {
	c.size += int64(len(p))
	c.md5.Write(p)
	for i, h := range c.sum {
		if h != nil && h != c.md5 && (i == 0 || h != c.sum[i-1]) {
			h.Write(p)
		}
	}
	return len(p), nil
}

func (c *counter) sums() store.ObjectSums {
	out := store.ObjectSums{Size: c.size, Checksum: text(c.sum[0])}
	c.md5.Sum(out.MD5[:0])
	return out
}

func (c *counter) last() string { return text(c.sum[len(c.sum)-1]) }

func text(h hash.Hash) string {
	if h == nil {
		return ""
	}
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}
