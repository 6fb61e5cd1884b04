package build

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

const memoFormat = 2

// memo remembers small results of earlier builds by key. What it holds can always be made again.
type memo struct {
	file  string
	dirty bool
	data  struct {
		Format int                        `json:"format"`
		Notes  map[string]json.RawMessage `json:"notes"`
	}
}

func openMemo(file string) *memo {
	m := &memo{file: file}
	data, err := os.ReadFile(file)
	if err != nil || json.Unmarshal(data, &m.data) != nil || m.data.Format != memoFormat {
		m.data.Notes = nil
	}
	m.data.Format = memoFormat
	if m.data.Notes == nil {
		m.data.Notes = map[string]json.RawMessage{}
	}
	return m
}

func (m *memo) get(key string, into any) bool {
	raw, ok := m.data.Notes[key]
	return ok && json.Unmarshal(raw, into) == nil
}

func (m *memo) put(key string, v any) {
	raw, err := json.Marshal(v)
	if err != nil || string(m.data.Notes[key]) == string(raw) {
		return
	}
	m.data.Notes[key], m.dirty = raw, true
}

func (m *memo) drop(key string) {
	if _, ok := m.data.Notes[key]; ok {
		delete(m.data.Notes, key)
		m.dirty = true
	}
}

func (m *memo) save() error {
	if !m.dirty {
		return nil
	}
	data, err := json.Marshal(m.data)
	if err != nil {
		return fmt.Errorf("save build notes: %w", err)
	}
	if err := writeFile(m.file, data); err != nil {
		return fmt.Errorf("save build notes: %w", err)
	}
	m.dirty = false
	return nil
}

// writeFile replaces a file whole.
func writeFile(name string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	tmp := fmt.Sprintf("%s.%d.tmp", name, os.Getpid())
	if err := os.WriteFile(tmp, data, 0o644); err != nil {
		os.Remove(tmp)
		return err
	}
	return os.Rename(tmp, name)
}

// hash gives a short digest of texts, each set off from the next.
func hash(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))[:32]
}

// retryAfter is how long a fetch that failed is not tried again: without network every build would wait for it.
const retryAfter = time.Minute

type failure struct {
	At     int64  `json:"at"` // Unix seconds
	Reason string `json:"reason"`
}

// failed remembers that something could not be fetched.
func (b *builder) failed(key string, err error) {
	if b.ctx.Err() == nil {
		b.notes.put("failed:"+key, failure{At: time.Now().Unix(), Reason: err.Error()})
	}
}

// failedLately gives the reason of a fetch that failed a short while ago.
func (b *builder) failedLately(key string) error {
	var f failure
	if b.notes.get("failed:"+key, &f) && time.Since(time.Unix(f.At, 0)) < retryAfter {
		return errs.New(errs.Failed, "%s", f.Reason)
	}
	return nil
}
