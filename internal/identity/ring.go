package identity

import (
	"crypto/sha256"
	"crypto/subtle"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

// useStep is how exactly the last use of a key is known.
const useStep = time.Hour

// Ring is the keys that a Node accepts. Its methods may be called concurrently.
type Ring struct {
	now func() time.Time
	mu  struct {
		sync.RWMutex
		keys map[string]held
	}
}

type held struct {
	key  Key
	seq  uint64 // of the record it came from: an older one never replaces a newer one
	used time.Time
}

// NewRing returns an empty Ring. now is the clock.
func NewRing(now func() time.Time) *Ring {
	r := &Ring{now: now}
	r.mu.keys = map[string]held{}
	return r
}

// Set takes in a key as it is in the record with that sequence number.
func (r *Ring) Set(k Key, seq uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.mu.keys[k.ID]
	if h.seq >= seq && h.seq != 0 {
		return
	}
	h.key, h.seq = k, seq
	r.mu.keys[k.ID] = h
}

// Used takes in when a key was last used, as it is on record.
func (r *Ring) Used(id string, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h, ok := r.mu.keys[id]; ok && at.After(h.used) {
		h.used = at
		r.mu.keys[id] = h
	}
}

// List returns the keys, oldest first, and when each was last used, to the hour.
func (r *Ring) List() ([]Key, map[string]time.Time) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var list []Key
	used := map[string]time.Time{}
	for id, h := range r.mu.keys {
		list = append(list, h.key)
		used[id] = h.used
	}
	slices.SortFunc(list, func(a, b Key) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list, used
}

// Get returns a key and the sequence number of its record.
func (r *Ring) Get(id string) (Key, uint64, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	h, ok := r.mu.keys[id]
	return h.key, h.seq, ok
}

// Authenticate says who sends the Authorization header. Whether a key exists cannot be learned from the time it takes; that it was
// revoked or has expired is told only to who has its secret. first says that this is the key's first use for an hour, to be recorded.
func (r *Ring) Authenticate(authorization string) (p Principal, first bool, err error) {
	bearer, isBearer := strings.CutPrefix(authorization, "Bearer ")
	s, formed := parseSecret(bearer)
	r.mu.RLock()
	h, known := r.mu.keys[s.ID]
	r.mu.RUnlock()
	want := h.key.Hash
	if len(want) != sha256.Size {
		want, known = make([]byte, sha256.Size), false
	}
	same := subtle.ConstantTimeCompare(s.Hash(), want) == 1
	now := r.now()
	switch {
	case !isBearer:
		return p, false, errs.New(errs.Unauthenticated, "the call carries no key").
			WithHint("Put it into EBB_KEY or a file for --key-file, or keep it with `ebb login --server URL`.")
	case !same || !known || !formed:
		return p, false, errs.New(errs.Unauthenticated, "this server does not know the key").
			WithHint("`ebb keys list` on the server shows its keys; was this one made for another server, or not copied whole?")
	}
	if why := h.key.Ended(now); why != "" {
		return p, false, ended(h.key, why)
	}
	if now.Sub(h.used) >= useStep {
		r.mu.Lock()
		if h := r.mu.keys[s.ID]; now.Sub(h.used) >= useStep {
			h.used, first = now.Truncate(useStep), true
			r.mu.keys[s.ID] = h
		}
		r.mu.Unlock()
	}
	return Principal{Key: h.key.ID, Name: h.key.Name, Role: h.key.Role, App: h.key.App}, first, nil
}

func ended(k Key, why string) error {
	said := "expired at " + k.Expires.UTC().Format(time.RFC3339)
	if why == revoked {
		said = "was revoked at " + k.Revoked.UTC().Format(time.RFC3339)
	}
	return errs.New(errs.Unauthenticated, "key %s (%s) %s", k.ID, k.Name, said).
		WithHint("An admin makes a new one on the server with `ebb keys create %s --role %s`.", k.Name, k.Role)
}
