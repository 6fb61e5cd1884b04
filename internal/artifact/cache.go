package artifact

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

const cacheHead = "ebb-scan 1"

// ScanCache remembers digests of files, so that an unchanged one is not read again. A nil ScanCache remembers nothing.
// Safe for concurrent use.
//
// A file counts as unchanged when its size, times of modification and of change, and inode are; and when it had not been
// modified in the moment before it was read, where two writes could share one time.
type ScanCache struct {
	file string
	mu   struct {
		sync.Mutex
		known map[string]known
		used  map[string]bool // asked for since the cache was opened
		dirty bool
	}
}

type known struct {
	id   fileID
	size int64
	sha  string
}

type fileID struct {
	size, mtime, ctime int64 // nanoseconds
	inode              uint64
}

// OpenScanCache reads the cache file; a missing or unreadable one is an empty cache.
func OpenScanCache(file string) *ScanCache {
	c := &ScanCache{file: file}
	c.mu.known, c.mu.used = map[string]known{}, map[string]bool{}
	data, err := os.ReadFile(file)
	if err != nil {
		return c
	}
	head, rest, _ := strings.Cut(string(data), "\n")
	if head != cacheHead {
		return c
	}
	for line := range strings.Lines(rest) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 7)
		if len(fields) != 7 || !validSHA(fields[0]) {
			continue
		}
		var n [5]int64
		bad := false
		for i := range n {
			v, err := strconv.ParseInt(fields[i+1], 36, 64)
			n[i], bad = v, bad || err != nil
		}
		if !bad {
			c.mu.known[fields[6]] = known{sha: fields[0], size: n[0], id: fileID{size: n[1], mtime: n[2], ctime: n[3], inode: uint64(n[4])}}
		}
	}
	return c
}

// Save writes the cache file if there is anything new. What was not asked for since the cache was opened stays, unless
// the cache has grown large.
func (c *ScanCache) Save() error {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.mu.dirty {
		return nil
	}
	large := len(c.mu.known) > 100_000
	var b bytes.Buffer
	w := bufio.NewWriter(&b)
	fmt.Fprintln(w, cacheHead)
	for p, k := range c.mu.known {
		if strings.Contains(p, "\n") || large && !c.mu.used[p] {
			continue
		}
		w.WriteString(k.sha)
		for _, n := range []int64{k.size, k.id.size, k.id.mtime, k.id.ctime, int64(k.id.inode)} {
			w.WriteByte(' ')
			w.WriteString(strconv.FormatInt(n, 36))
		}
		w.WriteByte(' ')
		w.WriteString(p)
		w.WriteByte('\n')
	}
	w.Flush()
	if err := replaceFile(c.file, b.Bytes()); err != nil {
		return fmt.Errorf("save scan cache: %w", err)
	}
	c.mu.dirty = false
	return nil
}

func (c *ScanCache) get(name string, info fs.FileInfo) (string, bool) {
	if c == nil {
		return "", false
	}
	id := idOf(info)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.used[name] = true
	k, ok := c.mu.known[name]
	return k.sha, ok && k.id == id && k.size == id.size
}

// put remembers a digest, unless the file is so fresh that a later write could leave the same times.
func (c *ScanCache) put(name string, info fs.FileInfo, size int64, sha string) {
	if c == nil {
		return
	}
	id := idOf(info)
	now := time.Now().UnixNano()
	settle := int64(20 * time.Millisecond) // ticks of a kernel clock
	if id.mtime%int64(time.Second) == 0 && id.ctime%int64(time.Second) == 0 {
		settle = int64(2 * time.Second) // a file system that keeps whole seconds
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if size != id.size || now-max(id.mtime, id.ctime) < settle {
		delete(c.mu.known, name)
		return
	}
	c.mu.known[name] = known{id: id, size: size, sha: sha}
	c.mu.dirty = true
}

// replaceFile writes a file that others see either old or new. Not durable: what it is used for can be made again.
func replaceFile(name string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(name), ".tmp-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), name)
	}
	if err != nil {
		os.Remove(tmp.Name())
	}
	return err
}

// Sum returns the digest of a file's content, without reading it when it is known.
func (c *ScanCache) Sum(name string) (string, error) {
	info, err := os.Stat(name)
	if err != nil {
		return "", err
	}
	if sha, ok := c.get(name, info); ok {
		return sha, nil
	}
	sum, n, err := hashFile(name)
	if err != nil {
		return "", err
	}
	c.put(name, info, n, sum)
	return sum, nil
}
