package api

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

// KeyRequest asks for a key.
type KeyRequest struct {
	Name string        `json:"name"`
	Role string        `json:"role"`
	App  string        `json:"app,omitempty"`  // the only App it reaches
	Life time.Duration `json:"life,omitempty"` // nanoseconds until it expires; 0 means never
	By   string        `json:"by,omitempty"`
}

// KeyInfo describes a key without its secret.
type KeyInfo struct {
	ID      string     `json:"id"`
	Name    string     `json:"name"`
	Role    string     `json:"role"`
	App     string     `json:"app,omitempty"`
	Created time.Time  `json:"created"`
	By      string     `json:"by,omitempty"`
	Expires *time.Time `json:"expires,omitempty"`
	Used    *time.Time `json:"used,omitempty"`  // the last use, to the hour
	Ended   string     `json:"ended,omitempty"` // "revoked" or "expired"
}

// NewKey is a key that was made; its secret is told this once.
type NewKey struct {
	KeyInfo
	Key string `json:"key"`
	// What AWS's clients sign with.
	AccessKeyID     string `json:"accessKeyId,omitempty"`
	SecretAccessKey string `json:"secretAccessKey,omitempty"`
	Replaces        string `json:"replaces,omitempty"` // the ID of the one it was rotated from
}

// CA is the certificate that the Node's own certificates come from.
type CA struct {
	PEM         string `json:"pem"`
	Fingerprint string `json:"fingerprint"` // SHA-256 of its DER form, base64url
}

func (s *Server) keys(w http.ResponseWriter, r *http.Request) error {
	list, err := s.backend.Keys(r.Context())
	if err != nil {
		return err
	}
	writeJSON(w, 200, map[string][]KeyInfo{"keys": list})
	return nil
}

func (s *Server) createKey(w http.ResponseWriter, r *http.Request) error {
	var req KeyRequest
	if err := readJSON(w, r, 1<<16, &req); err != nil {
		return err
	}
	if p := caller(r); p.Key != "" {
		req.By = p.Name
	}
	var k *NewKey
	err := s.recorded(r, "key:create", req.Name+" with the role "+req.Role, req.App, func() (err error) {
		k, err = s.backend.CreateKey(context.WithoutCancel(r.Context()), req)
		return err
	})
	if err != nil {
		return err
	}
	s.log.Info("key created", "key", k.ID, "name", k.Name, "role", k.Role, "by", req.By)
	writeJSON(w, 200, k)
	return nil
}

func (s *Server) revokeKey(w http.ResponseWriter, r *http.Request) error {
	if err := s.backend.RevokeKey(context.WithoutCancel(r.Context()), r.PathValue("id")); err != nil {
		return err
	}
	s.log.Info("key revoked", "key", r.PathValue("id"), "by", caller(r).Name)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) rotateKey(w http.ResponseWriter, r *http.Request) error {
	var req struct {
		Overlap time.Duration `json:"overlap"`
		By      string        `json:"by"`
	}
	if err := readJSON(w, r, 1<<16, &req); err != nil {
		return err
	}
	if req.Overlap < 0 {
		return errs.New(errs.Invalid, "an overlap below zero")
	}
	id, p := r.PathValue("id"), caller(r)
	if p.Key != "" {
		req.By = p.Name
	}
	if id == "self" {
		if id = p.Key; id == "" {
			return errs.New(errs.Invalid, "this call came with the machine's token, which is no key").WithHint("Name the key: `ebb keys rotate ID`.")
		}
	}
	k, err := s.backend.RotateKey(context.WithoutCancel(r.Context()), id, req.Overlap, req.By)
	if err != nil {
		return err
	}
	s.log.Info("key rotated", "key", id, "to", k.ID, "by", req.By)
	writeJSON(w, 200, k)
	return nil
}

func (s *Server) ca(w http.ResponseWriter, _ *http.Request) error {
	ca, err := s.backend.CA()
	if err != nil {
		return err
	}
	writeJSON(w, 200, ca)
	return nil
}

// CreateKey makes a key.
func (c *Client) CreateKey(ctx context.Context, r KeyRequest) (*NewKey, error) {
	var k NewKey
	return &k, c.call(ctx, "POST", "/v1/keys", r, &k)
}

// Keys lists the keys, oldest first.
func (c *Client) Keys(ctx context.Context) ([]KeyInfo, error) {
	var out struct{ Keys []KeyInfo }
	err := c.call(ctx, "GET", "/v1/keys", nil, &out)
	return out.Keys, err
}

// RevokeKey ends a key.
func (c *Client) RevokeKey(ctx context.Context, id string) error {
	return c.call(ctx, "DELETE", "/v1/keys/"+url.PathEscape(id), nil, nil)
}

// RotateKey makes a key like the one with the ID, "self" for the caller's own, which ends after overlap.
func (c *Client) RotateKey(ctx context.Context, id string, overlap time.Duration, by string) (*NewKey, error) {
	var k NewKey
	return &k, c.call(ctx, "POST", "/v1/keys/"+url.PathEscape(id)+"/rotate", map[string]any{"overlap": overlap, "by": by}, &k)
}

// CA returns the Node's own CA.
func (c *Client) CA(ctx context.Context) (*CA, error) {
	var ca CA
	return &ca, c.call(ctx, "GET", "/v1/ca", nil, &ca)
}
