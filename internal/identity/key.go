package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

// Key is what is kept of a key. The secret is shown once and not kept.
//
// The hash is one round of SHA-256: a slow hash is for passwords, which people choose and others guess. The secret has 256 random
// bits, so nobody who reads the hash finds it by trying, and a slow hash would only make every call slow and every wrong one dear.
type Key struct {
	ID      string        `json:"id"`
	Name    string        `json:"name"`
	Role    Role          `json:"role"`
	App     string        `json:"app,omitempty"` // the only App it reaches, or empty
	Hash    []byte        `json:"hash"`          // SHA-256 of the secret's bytes
	Created time.Time     `json:"created"`
	By      string        `json:"by,omitempty"`   // who made it
	Life    time.Duration `json:"life,omitempty"` // as it was asked for, nanoseconds; 0 means without end
	Expires time.Time     `json:"expires"`        // zero means never
	Revoked time.Time     `json:"revoked"`        // zero means not
}

// Secret is a key as its holder has it: "ebb1.ID.SECRET", and behind a further dot the fingerprint of the CA that the server's
// certificate must come from, where it is the server's own.
type Secret struct {
	ID          string
	Fingerprint string // see package certs; empty where the machine's own roots decide
	secret      string // base64url
}

const (
	keyPrefix   = "ebb1."
	secretBytes = 32
	idBytes     = 8
	revoked     = "revoked"
	expired     = "expired"
)

// NewSecret makes a key's ID and secret.
func NewSecret(fingerprint string) Secret {
	var id [idBytes]byte
	var raw [secretBytes]byte
	_, _ = rand.Read(id[:]) // never fails; see crypto/rand
	_, _ = rand.Read(raw[:])
	return Secret{ID: idEncoding.EncodeToString(id[:]), Fingerprint: fingerprint, secret: base64.RawURLEncoding.EncodeToString(raw[:])}
}

// ParseSecret reads the text of a key.
func ParseSecret(text string) (Secret, error) {
	s, ok := parseSecret(strings.TrimSpace(text))
	if !ok {
		return Secret{}, errs.New(errs.Invalid, "this is not a key of ebb").
			WithHint("A key is one line that begins with %s; `ebb keys create` prints it. Was it copied whole?", keyPrefix)
	}
	return s, nil
}

func parseSecret(text string) (Secret, bool) {
	rest, ok := strings.CutPrefix(text, keyPrefix)
	parts := strings.Split(rest, ".")
	if !ok || len(text) > 256 || len(parts) < 2 || len(parts) > 3 {
		return Secret{}, false
	}
	s := Secret{ID: parts[0], secret: parts[1]}
	// Strict: of the texts that decode to the same bytes only one is a key.
	id, err := idEncoding.DecodeString(s.ID)
	if err != nil || len(id) != idBytes || idEncoding.EncodeToString(id) != s.ID {
		return Secret{}, false
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(s.secret)
	if err != nil || len(raw) != secretBytes || strings.ContainsAny(s.secret, "\r\n") {
		return Secret{}, false
	}
	if len(parts) == 3 {
		sum, err := base64.RawURLEncoding.Strict().DecodeString(parts[2])
		if err != nil || len(sum) != sha256.Size || strings.ContainsAny(parts[2], "\r\n") {
			return Secret{}, false
		}
		s.Fingerprint = parts[2]
	}
	return s, true
}

// Text is the key as its holder keeps it.
func (s Secret) Text() string {
	if s.Fingerprint == "" {
		return s.Bearer()
	}
	return s.Bearer() + "." + s.Fingerprint
}

// Bearer is what a call carries.
func (s Secret) Bearer() string { return keyPrefix + s.ID + "." + s.secret }

// String keeps the secret out of logs and messages.
func (s Secret) String() string { return "key " + s.ID }

// GoString does the same for %#v.
func (s Secret) GoString() string { return s.String() }

// Hash is what is kept of the secret.
func (s Secret) Hash() []byte {
	raw, _ := base64.RawURLEncoding.DecodeString(s.secret)
	sum := sha256.Sum256(raw)
	return sum[:]
}

// Ended says why the key opens nothing any more at the time, or returns the empty text.
func (k Key) Ended(now time.Time) string {
	switch {
	case !k.Revoked.IsZero():
		return revoked
	case !k.Expires.IsZero() && !now.Before(k.Expires):
		return expired
	}
	return ""
}
