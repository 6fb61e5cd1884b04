package nats

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/minio/highwayhash"
)

// The server mends a damaged store by cutting it off at the first bad record or by leaving a stream out, and only
// logs that. inspect reads the folder before the server does, changes nothing, and refuses such a store.
//
// Layout (nats-server, server/filestore.go): jetstream/ACCOUNT/streams/NAME holds meta.inf, meta.sum (HighwayHash-64 of
// meta.inf keyed with the SHA-256 of the name) and msgs/N.blk, records one after the other:
// length u32 (top bit: has headers), sequence u64, time i64, subject length u16, subject, [headers], message, hash 8 bytes.

const (
	headerSize = 22
	hashSize   = 8
	headersBit = 1 << 31
	maxRecord  = 32 << 20
)

// scanBudget bounds how much of the blocks is read: at memory speed this takes a tenth of a second. Key-value streams,
// where the control state is, come first.
const scanBudget = 256 << 20

// inspect returns the names of the streams in the folder, or why it is damaged.
func inspect(ctx context.Context, dir, key string) ([]string, error) {
	root := filepath.Join(dir, serverDir)
	accounts, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, diskError(root, "read", err)
	}
	var streams []string
	for _, a := range accounts {
		path := filepath.Join(root, a.Name(), "streams")
		entries, err := os.ReadDir(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, diskError(path, "read", err)
		}
		for _, e := range entries {
			// A leading dot marks a stream whose removal was not finished.
			if !strings.HasPrefix(e.Name(), ".") {
				streams = append(streams, filepath.Join(path, e.Name()))
			}
		}
	}
	slices.SortStableFunc(streams, func(a, b string) int { return rank(a) - rank(b) })
	budget := int64(scanBudget)
	names := make([]string, 0, len(streams))
	for _, s := range streams {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("read store %s: %w", dir, err)
		}
		torn, err := inspectStream(s, blockCipher{key, filepath.Base(filepath.Dir(filepath.Dir(s))), filepath.Base(s)}, &budget)
		if err != nil {
			var d damage
			if errors.As(err, &d) {
				return nil, corrupt(dir, "%s", d)
			}
			return nil, diskError(s, "read", err)
		}
		if !torn {
			names = append(names, filepath.Base(s))
		}
	}
	return names, nil
}

func rank(stream string) int {
	if strings.HasPrefix(filepath.Base(stream), "KV_") {
		return 0
	}
	return 1
}

// damage is what is wrong with a file.
type damage string

func (d damage) Error() string { return string(d) }

// inspectStream tells whether the stream's making was cut short (it then holds nothing), or how it is damaged.
func inspectStream(dir string, c blockCipher, budget *int64) (torn bool, err error) {
	blocks, err := blockFiles(filepath.Join(dir, "msgs"))
	if err != nil {
		return false, err
	}
	meta, err := os.ReadFile(filepath.Join(dir, "meta.inf"))
	sum, serr := os.ReadFile(filepath.Join(dir, "meta.sum"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(serr, fs.ErrNotExist) {
		if empty(blocks) {
			return true, nil
		}
		return false, damage(filepath.Join(dir, "meta.inf") + " or meta.sum is missing")
	}
	if err := errors.Join(err, serr); err != nil {
		return false, err
	}
	h, err := newHash(filepath.Base(dir))
	if err != nil {
		return false, err
	}
	_, _ = h.Write(meta)
	if hex.EncodeToString(h.Sum(nil)) != string(sum) {
		return false, damage(filepath.Join(dir, "meta.inf") + " does not match its checksum")
	}
	if _, err := os.Stat(filepath.Join(dir, "msgs", "index.db")); err == nil && len(blocks) == 0 {
		return false, damage("the blocks of " + filepath.Join(dir, "msgs") + " are missing")
	}
	for i, b := range blocks {
		if *budget -= b.size; *budget < 0 {
			return false, nil
		}
		if err := inspectBlock(b, c, i == len(blocks)-1); err != nil {
			return false, err
		}
	}
	return false, nil
}

type block struct {
	path string
	num  int
	size int64
}

func empty(blocks []block) bool {
	return !slices.ContainsFunc(blocks, func(b block) bool { return b.size > 0 })
}

func blockFiles(dir string) ([]block, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out []block
	for _, e := range entries {
		n, ok := blockNumber(e.Name())
		if !ok {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() {
			return nil, damage(filepath.Join(dir, e.Name()) + " is not a file")
		}
		out = append(out, block{filepath.Join(dir, e.Name()), n, info.Size()})
	}
	slices.SortFunc(out, func(a, b block) int { return a.num - b.num })
	return out, nil
}

// blockNumber is the number in the name of a block's file.
func blockNumber(name string) (int, bool) {
	num, ok := strings.CutSuffix(name, ".blk")
	n, err := strconv.Atoi(num)
	return n, ok && err == nil
}

// inspectBlock checks every record's length and hash. In the last block the end may be torn: one record that was being
// written, or zeros that a file system leaves after power loss.
func inspectBlock(b block, c blockCipher, last bool) error {
	data, err := os.ReadFile(b.path)
	if err != nil {
		return err
	}
	zeros := len(data) - len(bytes.TrimRight(data, "\x00")) // at the end, before they are deciphered
	if err := c.open(data, b); err != nil {
		return err
	}
	if bytes.HasPrefix(data, []byte("cmp")) {
		return nil // compressed as a whole; the server does not cut such blocks
	}
	h, err := newHash(fmt.Sprintf("%s-%d", c.stream, b.num))
	if err != nil {
		return err
	}
	for at := 0; at < len(data); {
		n := record(data[at:])
		if n == 0 || !whole(h, data[at:at+n]) {
			if last && (len(data)-at <= zeros || tornEnd(h, data[at:], n)) {
				return nil
			}
			return damage(fmt.Sprintf("%s is damaged at byte %d of %d", b.path, at, len(data)))
		}
		at += n
	}
	return nil
}

// newHash makes the hash that the server keys with the name of a stream, or of stream and block.
func newHash(name string) (hash.Hash64, error) {
	key := sha256.Sum256([]byte(name))
	return highwayhash.New64(key[:])
}

// whole tells whether a record matches its hash.
func whole(h hash.Hash64, rec []byte) bool {
	slen := int(binary.LittleEndian.Uint16(rec[20:]))
	body := rec[headerSize+slen : len(rec)-hashSize]
	if binary.LittleEndian.Uint32(rec)&headersBit != 0 {
		body = body[4:]
	}
	var sum [hashSize]byte
	h.Reset()
	_, _ = h.Write(rec[4:20])
	_, _ = h.Write(rec[headerSize : headerSize+slen])
	_, _ = h.Write(body)
	return bytes.Equal(h.Sum(sum[:0]), rec[len(rec)-hashSize:])
}

// record returns the length of the record at the start of data, or 0 when it cannot be one.
func record(data []byte) int {
	if len(data) < headerSize {
		return 0
	}
	rl := binary.LittleEndian.Uint32(data)
	slen := int(binary.LittleEndian.Uint16(data[20:]))
	if rl&headersBit != 0 {
		slen += 4
	}
	n := int(rl &^ headersBit)
	if n > maxRecord || n > len(data) || n < headerSize+slen+hashSize {
		return 0
	}
	return n
}

// tornEnd tells whether data can be what a crash left of one record that was being written: then no whole record follows.
func tornEnd(h hash.Hash64, data []byte, n int) bool {
	if len(bytes.Trim(data, "\x00")) == 0 {
		return true
	}
	rl := int(binary.LittleEndian.Uint32(append(data[:min(4, len(data)):4], 0, 0, 0, 0)) &^ headersBit)
	if rl > maxRecord || n > 0 && len(bytes.Trim(data[n:], "\x00")) > 0 || n == 0 && rl <= len(data) {
		return false
	}
	for at := 1; at < len(data); at++ {
		if n := record(data[at:]); n > 0 && whole(h, data[at:at+n]) {
			return false
		}
	}
	return true
}
