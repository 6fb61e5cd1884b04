package server

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/certs"
	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/identity"
	"github.com/ebb-run/ebb/internal/state"
)

// keyring is the keys as this Node knows them: what is on record, and what other Nodes of the Cluster change.
type keyring struct {
	ring     *identity.Ring
	throttle *identity.Throttle
	stale    atomic.Bool // changes are not heard of any more
	change   sync.Mutex  // one change of this Node's at a time
	uses     chan string // IDs of keys whose use is to be recorded
}

func (s *Server) openKeys(ctx context.Context) error {
	k := &s.keyring
	k.ring, k.throttle, k.uses = identity.NewRing(time.Now), identity.NewThrottle(time.Now), make(chan string, 64)
	return s.state.Keys(ctx, tenant, s.keyChanged, s.keyUnreadable)
}

func (s *Server) keyChanged(c state.KeyChange) {
	if c.Key != nil {
		s.keyring.ring.Set(*c.Key, c.Seq)
	} else {
		s.keyring.ring.Used(c.ID, c.Used)
	}
}

func (s *Server) keyUnreadable(err error) { s.o.Log.Error("a key is left out", "error", err) }

// runKeys hears of changes and records uses until ctx ends.
func (s *Server) runKeys(ctx context.Context, wg *sync.WaitGroup) {
	wg.Go(func() {
		if err := s.state.WatchKeys(ctx, tenant, s.keyChanged, s.keyUnreadable); err != nil && ctx.Err() == nil {
			s.keyring.stale.Store(true) // what is deployed serves on; who comes by key is not let in on old knowledge
			s.o.Log.Error("changes of keys are not heard of; the control API takes no keys until a restart", "error", err)
		}
	})
	wg.Go(func() {
		for {
			select {
			case id := <-s.keyring.uses:
				if err := s.state.UseKey(ctx, tenant, id, time.Now().Truncate(time.Hour)); err != nil && ctx.Err() == nil {
					s.o.Log.Warn("the use of a key is not recorded", "key", id, "error", err)
				}
			case <-ctx.Done():
				return
			}
		}
	})
}

// tooMany is an authentication that failed once more than is answered.
type tooMany struct {
	error
	wait time.Duration
}

func (e tooMany) RetryAfter() time.Duration { return e.wait }

func (e tooMany) Unwrap() error { return e.error }

// Authenticate says who calls by key.
func (s *Server) Authenticate(r *http.Request) (identity.Principal, error) {
	if s.keyring.stale.Load() {
		return identity.Principal{}, errs.New(errs.Unavailable, "the server cannot tell which keys hold").WithHint("Its log says why. Start it again once that is mended.")
	}
	p, first, err := s.keyring.ring.Authenticate(r.Header.Get("Authorization"))
	if err == nil {
		if first {
			select {
			case s.keyring.uses <- p.Key:
			default: // it is only told later
			}
		}
		return p, nil
	}
	wait, ok := s.keyring.throttle.Failed(r.RemoteAddr)
	if !ok {
		return p, tooMany{errs.New(errs.Throttled, "too many calls with wrong keys come from this address").WithHint("Mend the key, and wait a little."), wait}
	}
	s.o.Log.Warn("authentication failed", "from", r.RemoteAddr, "method", r.Method, "path", r.URL.Path, "reason", err)
	return p, err
}

// maxKeyName is in bytes.
const maxKeyName = 100

// CreateKey makes a key.
func (s *Server) CreateKey(ctx context.Context, r api.KeyRequest) (*api.NewKey, error) {
	role, err := identity.ParseRole(r.Role)
	if err != nil {
		return nil, err
	}
	switch {
	case strings.TrimSpace(r.Name) == "" || len(r.Name) > maxKeyName || strings.ContainsFunc(r.Name, func(c rune) bool { return c < ' ' || c == 0x7f }):
		return nil, errs.New(errs.Invalid, "a key needs a name of 1 to %d bytes in one line", maxKeyName)
	case r.Life < 0:
		return nil, errs.New(errs.Invalid, "the key would have expired before it is made")
	case role == identity.Admin && r.App != "":
		return nil, errs.New(errs.Invalid, "an admin's key reaches every app").WithHint("Give --role deploy, or leave out --app.")
	}
	k := identity.Key{Name: r.Name, Role: role, App: r.App, Life: r.Life, By: r.By}
	s.keyring.change.Lock()
	defer s.keyring.change.Unlock()
	return s.createKey(ctx, k)
}

// createKey gives k ID, secret and time, and keeps it. It is on disk before anybody sees its text. change is held.
func (s *Server) createKey(ctx context.Context, k identity.Key) (*api.NewKey, error) {
	fingerprint := ""
	if s.doors.certs != nil && s.doors.certs.CA() != nil {
		fingerprint = certs.Fingerprint(s.doors.certs.CA())
	}
	secret := identity.NewSecret(fingerprint)
	k.ID, k.Hash, k.Created = secret.ID, secret.Hash(), time.Now().UTC().Truncate(time.Millisecond)
	if k.Life > 0 {
		k.Expires = k.Created.Add(k.Life)
	}
	seq, err := s.state.PutKey(ctx, tenant, k, 0)
	if err != nil {
		return nil, err
	}
	s.keyring.ring.Set(k, seq)
	made := &api.NewKey{KeyInfo: keyInfo(k, time.Time{}), Key: secret.Text()}
	s.wires.addAWS(made)
	return made, nil
}

// Keys lists the keys, oldest first.
func (s *Server) Keys(context.Context) ([]api.KeyInfo, error) {
	list, used := s.keyring.ring.List()
	out := make([]api.KeyInfo, 0, len(list))
	for _, k := range list {
		out = append(out, keyInfo(k, used[k.ID]))
	}
	return out, nil
}

func keyInfo(k identity.Key, used time.Time) api.KeyInfo {
	at := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		t = t.UTC()
		return &t
	}
	return api.KeyInfo{
		ID: k.ID, Name: k.Name, Role: string(k.Role), App: k.App, Created: k.Created, By: k.By, Expires: at(k.Expires), Used: at(used), Ended: k.Ended(time.Now()),
	}
}

// RevokeKey ends a key.
func (s *Server) RevokeKey(ctx context.Context, id string) error {
	s.keyring.change.Lock()
	defer s.keyring.change.Unlock()
	return s.changeKey(ctx, id, func(k *identity.Key) {
		if k.Revoked.IsZero() {
			k.Revoked = time.Now().UTC().Truncate(time.Second)
		}
	})
}

// changeKey changes a key's record, then what this Node knows. change is held.
func (s *Server) changeKey(ctx context.Context, id string, change func(*identity.Key)) error {
	k, seq, err := s.keyOf(id)
	if err != nil {
		return err
	}
	change(&k)
	next, err := s.state.PutKey(ctx, tenant, k, seq)
	if err != nil {
		return err
	}
	s.keyring.ring.Set(k, next)
	return nil
}

func (s *Server) keyOf(id string) (identity.Key, uint64, error) {
	if k, seq, ok := s.keyring.ring.Get(id); ok {
		return k, seq, nil
	}
	list, _ := s.keyring.ring.List()
	var ids []string
	for _, k := range list {
		if k.Name == id {
			return k, 0, errs.New(errs.NotFound, "%s is a key's name; keys are told apart by ID", id).WithHint("`ebb keys list` shows them; perhaps it is %s.", k.ID)
		}
		ids = append(ids, k.ID)
	}
	e := errs.New(errs.NotFound, "there is no key %s", id)
	if near := diag.Nearest(id, ids); near != "" {
		return identity.Key{}, 0, e.WithHint("Did you mean %s?", near)
	}
	return identity.Key{}, 0, e.WithHint("`ebb keys list` shows the keys.")
}

// RotateKey makes a key like the one with the ID, for as long again, and lets that one end after overlap. The new one is kept first:
// a stop between the two leaves both.
func (s *Server) RotateKey(ctx context.Context, id string, overlap time.Duration, by string) (*api.NewKey, error) {
	s.keyring.change.Lock()
	defer s.keyring.change.Unlock()
	old, _, err := s.keyOf(id)
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC().Truncate(time.Second)
	if why := old.Ended(now); why != "" {
		return nil, errs.New(errs.Conflict, "key %s is %s already", id, why).WithHint("Make a new one with `ebb keys create %s --role %s`.", old.Name, old.Role)
	}
	k, err := s.createKey(ctx, identity.Key{Name: old.Name, Role: old.Role, App: old.App, Life: old.Life, By: by})
	if err != nil {
		return nil, err
	}
	err = s.changeKey(ctx, id, func(k *identity.Key) {
		if end := now.Add(overlap); overlap == 0 {
			k.Revoked = now
		} else if k.Expires.IsZero() || end.Before(k.Expires) {
			k.Expires = end
		}
	})
	if err != nil {
		return nil, err
	}
	k.Replaces = id
	return k, nil
}

// CA returns the Node's own CA.
func (s *Server) CA() (*api.CA, error) {
	if s.doors.certs == nil || s.doors.certs.CA() == nil {
		return nil, errs.New(errs.NotFound, "this server has no CA of its own").WithHint("One that is started with --tls-self-signed has.")
	}
	ca := s.doors.certs.CA()
	return &api.CA{PEM: certs.PEM(ca), Fingerprint: certs.Fingerprint(ca)}, nil
}
