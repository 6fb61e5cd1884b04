// Package identity says who is calling.
//
// Main types: [Token], which lets the user of the Node's own machine in, because whoever can read its file may call; [Key], which lets
// others in from elsewhere, with [Secret] its text, [Ring] those a Node accepts, [Role] and [Principal] what the holder may do; and
// [Throttle].
//
// Guarantees:
//
//  1. A token file is created once, with mode 0600, and is on disk before it is used.
//  2. A token file that others can read or write is refused, with the mend.
//  3. [Token.Matches] and the comparison in [Ring.Authenticate] take the same time whatever they are given.
//  4. Of a key only a hash is kept; a [Secret] that is printed shows its ID alone.
//  5. A Ring refuses a key from the moment that [Ring.Set] has been given its revocation.
//  6. An operation that [Permissions] has no row for is refused to everybody.
//
// It stores no keys (package state does) and knows nothing of HTTP.
package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ebb-run/ebb/internal/errs"
)

// Token is a bearer token of the control API.
type Token string

const tokenBytes = 32

// ReadToken reads the token file at path.
func ReadToken(path string) (Token, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", errs.New(errs.Forbidden, "the token file %s can be read by others (mode %04o)", path, info.Mode().Perm()).
			WithHint("Run `chmod 600 %s`, or delete it and restart ebb for a new one.", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	t := Token(strings.TrimSpace(string(data)))
	if raw, err := base64.RawURLEncoding.DecodeString(string(t)); err != nil || len(raw) != tokenBytes {
		return "", errs.New(errs.Invalid, "the token file %s is damaged", path).
			WithHint("Delete it and restart ebb for a new one.")
	}
	return t, nil
}

// EnsureToken reads the token file at path, or makes it.
func EnsureToken(path string) (Token, error) {
	t, err := ReadToken(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return t, err
	}
	raw := make([]byte, tokenBytes)
	_, _ = rand.Read(raw) // never fails; see crypto/rand
	t = Token(base64.RawURLEncoding.EncodeToString(raw))
	f, err := os.CreateTemp(filepath.Dir(path), ".token-*") // mode 0600
	if err != nil {
		return "", fmt.Errorf("create token: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.WriteString(string(t) + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", fmt.Errorf("create token: %w", err)
	}
	// A link, not a rename: of two processes that come here at once, one token wins and both use it.
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("create token: %w", err)
	}
	return ReadToken(path)
}

// Matches compares the value of an Authorization header with the token.
func (t Token) Matches(authorization string) bool {
	given, ok := strings.CutPrefix(authorization, "Bearer ")
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(t))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1 && ok && t != ""
}
