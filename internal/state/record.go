package state

import (
	"bytes"
	"compress/flate"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/errs"
)

// A record is one line of JSON, the head, then nonce and ciphertext of the deflated body. Key and head are the cipher's
// additional data: a record cannot be given another head or moved to another key.

// head is what a record shows in clear.
type head struct {
	Format  int       `json:"format"`
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	Digest  string    `json:"digest"` // SHA-256 of what follows the head: tells a damaged record from a wrong key
}

// body is what a record seals.
type body struct {
	By      string          `json:"by,omitempty"`
	Message string          `json:"message,omitempty"`
	Parent  string          `json:"parent,omitempty"`
	App     json.RawMessage `json:"app"`
	Units   []Unit          `json:"units,omitempty"`
}

// summary is the clear record that lists are made from.
type summary struct {
	Format    int       `json:"format"`
	ID        string    `json:"id"`
	Created   time.Time `json:"created"`
	By        string    `json:"by,omitempty"`
	Message   string    `json:"message,omitempty"`
	Functions int       `json:"functions"`
	Artifacts []string  `json:"artifacts,omitempty"` // digests
}

const (
	// maxRecord is below the servers' default payload limit of 1 MB, headers included.
	maxRecord = 900 << 10
	// maxBody bounds what a record may inflate to.
	maxBody = 64 << 20
	// maxText bounds By and Message, which stand in the summary.
	maxText = 4 << 10
)

// seal writes a Deployment as the record under the key.
func (s *Store) seal(key string, d *Deployment) ([]byte, error) {
	a, err := json.Marshal(d.App)
	if err != nil {
		return nil, fmt.Errorf("encode app: %w", err)
	}
	plain, err := json.Marshal(body{By: d.By, Message: d.Message, Parent: d.Parent, App: a, Units: d.Units})
	if err != nil {
		return nil, fmt.Errorf("encode deployment: %w", err)
	}
	if len(plain) > maxBody {
		return nil, tooLarge(d, len(plain), maxBody)
	}
	var small bytes.Buffer
	w, err := flate.NewWriter(&small, flate.DefaultCompression)
	if err != nil {
		return nil, fmt.Errorf("compress deployment: %w", err)
	}
	if _, err := w.Write(plain); err != nil {
		return nil, fmt.Errorf("compress deployment: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("compress deployment: %w", err)
	}
	// The digest cannot be part of the additional data of what it is the digest of.
	h := head{Format: Format, ID: d.ID, Created: d.Created}
	sealed := make([]byte, s.aead.NonceSize(), s.aead.NonceSize()+small.Len()+s.aead.Overhead())
	rand.Read(sealed)
	ad, err := additional(key, h)
	if err != nil {
		return nil, err
	}
	sealed = s.aead.Seal(sealed, sealed, small.Bytes(), ad)
	h.Digest = digest(sealed)
	line, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encode head: %w", err)
	}
	out := slices.Concat(line, []byte("\n"), sealed)
	if len(out) > maxRecord {
		return nil, tooLarge(d, len(out), maxRecord)
	}
	return out, nil
}

func tooLarge(d *Deployment, have, limit int) error {
	return errs.New(errs.TooLarge, "deployment of %s: the app's record has %d KB, the limit is %d KB", d.Stack, have>>10, limit>>10).
		WithHint("Split the app into several, or move large inline documents (state machines, inline code) into files.")
}

func additional(key string, h head) ([]byte, error) {
	h.Digest = ""
	line, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encode head: %w", err)
	}
	return slices.Concat([]byte(key), []byte("\n"), line), nil
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// open reads the record under the key.
func (s *Store) open(key string, k StackKey, data []byte) (*Deployment, error) {
	line, sealed, ok := bytes.Cut(data, []byte("\n"))
	var h head
	if !ok || json.Unmarshal(line, &h) != nil || h.Format < 1 {
		return nil, damaged(k, "it has no head")
	}
	if h.Format > Format {
		return nil, newer("deployment "+h.ID+" of "+k.String(), h.Format)
	}
	if digest(sealed) != h.Digest || len(sealed) < s.aead.NonceSize() {
		return nil, damaged(k, "deployment %s does not match its digest", h.ID)
	}
	ad, err := additional(key, h)
	if err != nil {
		return nil, err
	}
	nonce, text := sealed[:s.aead.NonceSize()], sealed[s.aead.NonceSize():]
	small, err := s.aead.Open(nil, nonce, text, ad)
	if err != nil {
		return nil, damaged(k, "deployment %s cannot be unsealed: it was changed, or written with another key", h.ID)
	}
	plain, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(small)), maxBody+1))
	if err != nil || len(plain) > maxBody {
		return nil, damaged(k, "deployment %s cannot be inflated", h.ID)
	}
	var b body
	if err := json.Unmarshal(plain, &b); err != nil {
		return nil, damaged(k, "deployment %s: %v", h.ID, err)
	}
	d := &Deployment{ID: h.ID, Stack: k, Created: h.Created, By: b.By, Message: b.Message, Parent: b.Parent, Units: b.Units}
	if d.App, err = app.Decode(b.App); err != nil {
		return nil, errs.New(errs.Failed, "deployment %s of %s: %w", h.ID, k, err).
			WithHint("Use the ebb that wrote it, or deploy again.")
	}
	return d, nil
}

func damaged(k StackKey, format string, args ...any) error {
	return errs.New(errs.Failed, "the control state of %s is damaged: %s", k, fmt.Sprintf(format, args...)).
		WithHint("Roll back to another deployment, deploy again, or put back a backup of the data directory.")
}

// summarize gives the clear record of a Deployment.
func summarize(d *Deployment) ([]byte, error) {
	s := summary{Format: Format, ID: d.ID, Created: d.Created, By: d.By, Message: d.Message, Functions: len(d.App.Functions)}
	for _, u := range d.Units {
		s.Artifacts = append(s.Artifacts, u.Code, u.Opt, u.Supplied)
		s.Artifacts = append(s.Artifacts, u.Layers...)
	}
	slices.Sort(s.Artifacts)
	s.Artifacts = slices.DeleteFunc(slices.Compact(s.Artifacts), func(a string) bool { return a == "" })
	data, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode summary: %w", err)
	}
	if len(data) > maxRecord {
		return nil, tooLarge(d, len(data), maxRecord)
	}
	return data, nil
}

// base32 is Crockford's alphabet in lower case: sorts as its values do, and has no letters that are taken for digits.
const base32 = "0123456789abcdefghjkmnpqrstvwxyz"

// newID is the time in milliseconds and 20 random bits, in 13 letters that sort by time until the year 2527.
func newID(t time.Time) string {
	var r [4]byte
	rand.Read(r[:])
	v := uint64(t.UnixMilli())<<20 | uint64(binary.LittleEndian.Uint32(r[:])&(1<<20-1))
	var b [13]byte
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = base32[v&31]
		v >>= 5
	}
	return string(b[:])
}
