// Package secrets answers AWS's Secrets Manager.
//
// Main types: [Store], where secrets are kept; [Secrets], what the operations and others read them with; [New] gives the wire.Service.
//
// Guarantees:
//
//  1. What an operation acknowledged is durable, as far as the Store is; two that change one secret both do, one after the other.
//  2. Values leave the process to the Store only, which seals them.
//  3. The label AWSCURRENT is of one version always, once there is one, and AWSPREVIOUS of the one that had it before.
//  4. A secret that a Function made is its App's; one that an operator made is every App's of the Tenant.
//
// It rotates nothing.
package secrets

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/arn"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/wire"
)

// Store keeps records. Put and Delete answer errs.Conflict when the record has not the sequence number expect, which is 0 for none;
// Get answers errs.NotFound.
type Store interface {
	Get(ctx context.Context, tenant, name string) (data []byte, seq uint64, err error)
	Put(ctx context.Context, tenant, name string, data []byte, expect uint64) error
	Delete(ctx context.Context, tenant, name string, expect uint64) error
	Each(ctx context.Context, tenant string, f func(data []byte) error) error
}

// The labels that mean something.
const (
	current  = "AWSCURRENT"
	previous = "AWSPREVIOUS"
)

// Secret is one secret with its versions.
type Secret struct {
	Name     string            `json:"name"`
	Suffix   string            `json:"suffix"`        // six letters at the end of its ARN
	App      string            `json:"app,omitempty"` // whose it is; empty: every App's
	Text     string            `json:"text,omitempty"`
	Key      string            `json:"key,omitempty"` // the KMS key that was named
	Tags     map[string]string `json:"tags,omitempty"`
	Policy   string            `json:"policy,omitempty"`
	Created  time.Time         `json:"created"`
	Changed  time.Time         `json:"changed"`
	Deleted  time.Time         `json:"deleted,omitzero"`   // when it was marked for deletion
	Ends     time.Time         `json:"ends,omitzero"`      // when it is gone then
	Versions []Version         `json:"versions"`           // the oldest first
	Stack    string            `json:"stack,omitempty"`    // of the one that declares it
	Declared string            `json:"declared,omitempty"` // digest of what it says
	Retain   bool              `json:"retain,omitempty"`   // it outlives its Stack

	seq uint64
}

// Version is one value of a Secret.
type Version struct {
	ID     string    `json:"id"`
	Text   *string   `json:"text,omitempty"`
	Binary []byte    `json:"binary,omitempty"`
	Stages []string  `json:"stages,omitempty"` // its labels
	At     time.Time `json:"at"`
}

func (v *Version) same(o *Version) bool {
	if (v.Text == nil) != (o.Text == nil) || v.Text != nil && *v.Text != *o.Text {
		return false
	}
	return bytes.Equal(v.Binary, o.Binary)
}

// Make makes a secret without a value.
func Make(name string, now time.Time) *Secret {
	return &Secret{Name: name, Suffix: suffix(), Tags: map[string]string{}, Created: now, Changed: now}
}

// Set makes a text the current value.
func (s *Secret) Set(text string, now time.Time) {
	v := Version{ID: newID(), Text: &text, At: now}
	s.Versions, s.Changed = append(s.Versions, v), now
	s.move(current, v.ID)
}

// Secrets reads and writes secrets.
type Secrets struct {
	Store Store
	Now   func() time.Time // nil means time.Now
}

func (s Secrets) now() time.Time {
	if s.Now == nil {
		return time.Now()
	}
	return s.Now()
}

// Get gives a secret by its name or ARN, which may lack the letters at its end. errs.NotFound when there is none.
func (s Secrets) Get(ctx context.Context, tenant, id string) (*Secret, error) {
	for _, name := range names(id) {
		data, seq, err := s.Store.Get(ctx, tenant, name.name)
		if errs.CodeOf(err) == errs.NotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
		one, err := read(data, seq)
		if err != nil {
			return nil, err
		}
		if name.suffix != "" && name.suffix != one.Suffix || one.gone(s.now()) {
			continue
		}
		return one, nil
	}
	return nil, errs.New(errs.NotFound, "there is no secret %s", id)
}

func read(data []byte, seq uint64) (*Secret, error) {
	one := &Secret{seq: seq}
	if err := json.Unmarshal(data, one); err != nil {
		return nil, errs.New(errs.Failed, "the record of a secret cannot be read")
	}
	return one, nil
}

// gone says whether the time to get it back is over.
func (s *Secret) gone(now time.Time) bool { return !s.Ends.IsZero() && !now.Before(s.Ends) }

type meant struct{ name, suffix string }

// names lists what an ID may mean: a name, or the end of an ARN with or without the six letters that AWS puts there.
func names(id string) []meant {
	if !strings.HasPrefix(id, "arn:") {
		return []meant{{id, ""}}
	}
	a, err := arn.Parse(id)
	name, ok := strings.CutPrefix(a.Resource, "secret:")
	if err != nil || !ok {
		return nil
	}
	list := []meant{{name, ""}}
	if i := strings.LastIndex(name, "-"); i > 0 && len(name)-i == 7 {
		list = append([]meant{{name[:i], name[i+1:]}}, list...)
	}
	return list
}

// Value gives what a secret has at a stage or version, which may be empty. errs.NotFound when there is none, or app may not.
func (s Secrets) Value(ctx context.Context, tenant, app, id, stage, version string) (string, error) {
	one, err := s.Get(ctx, tenant, id)
	if err != nil {
		return "", err
	}
	v, err := one.version(version, stage)
	if err != nil || !one.mine(app) || !one.Deleted.IsZero() {
		return "", errs.New(errs.NotFound, "secret %s has no value", id)
	}
	if v.Text == nil {
		return string(v.Binary), nil
	}
	return *v.Text, nil
}

// Change reads a secret, lets f change it, and writes it, again when it was changed meanwhile. f gets nil where there is none; what it
// gives is written unless it is nil.
func (s Secrets) Change(ctx context.Context, tenant, name string, f func(*Secret) (*Secret, error)) error {
	for {
		var old *Secret
		data, seq, err := s.Store.Get(ctx, tenant, name)
		switch {
		case err == nil:
			if old, err = read(data, seq); err != nil {
				return err
			}
			if old.gone(s.now()) {
				old = nil
			}
		case errs.CodeOf(err) != errs.NotFound:
			return err
		}
		now, err := f(old)
		if err != nil || now == nil {
			return err
		}
		now.trim()
		if data, err = json.Marshal(now); err != nil {
			return err
		}
		if err = s.Store.Put(ctx, tenant, name, data, seq); errs.CodeOf(err) != errs.Conflict {
			return err
		}
	}
}

// mine says whether an App, or with an empty one an operator, reaches the secret.
func (s *Secret) mine(app string) bool { return app == "" || s.App == "" || s.App == app }

// version gives the one with an ID, at a stage, or the current one.
func (s *Secret) version(id, stage string) (*Version, error) {
	if id == "" {
		if stage == "" {
			stage = current
		}
		if v := s.at(stage); v != nil {
			return v, nil
		}
		return nil, notThere("Secrets Manager can't find the specified secret value for staging label: %s", stage)
	}
	for i := range s.Versions {
		v := &s.Versions[i]
		if v.ID != id {
			continue
		}
		if stage != "" && !slices.Contains(v.Stages, stage) {
			return nil, refused("You provided a VersionStage that is not associated to the provided VersionId.")
		}
		return v, nil
	}
	return nil, notThere("Secrets Manager can't find the specified secret value for VersionId: %s", id)
}

// at gives the version that has a label, or nil.
func (s *Secret) at(stage string) *Version {
	for i := range s.Versions {
		if slices.Contains(s.Versions[i].Stages, stage) {
			return &s.Versions[i]
		}
	}
	return nil
}

// move gives a label to a version.
func (s *Secret) move(stage, id string) {
	from := s.at(stage)
	if from != nil && from.ID == id {
		return
	}
	if from != nil {
		from.Stages = slices.DeleteFunc(from.Stages, func(l string) bool { return l == stage })
	}
	for i := range s.Versions {
		if s.Versions[i].ID == id {
			s.Versions[i].Stages = append(s.Versions[i].Stages, stage)
		}
	}
	if stage == current && from != nil {
		s.move(previous, from.ID)
	}
}

const (
	// maxVersions is how many are kept, maxBytes of how much: those without labels go first, the oldest of them.
	maxVersions = 100
	maxBytes    = 600 << 10
)

func (s *Secret) trim() {
	for {
		size := 0
		for _, v := range s.Versions {
			size += len(v.Binary)*4/3 + 200
			if v.Text != nil {
				size += len(*v.Text)
			}
		}
		i := slices.IndexFunc(s.Versions, func(v Version) bool { return len(v.Stages) == 0 })
		if i < 0 || len(s.Versions) <= maxVersions && size <= maxBytes {
			return
		}
		s.Versions = slices.Delete(s.Versions, i, i+1)
	}
}

type service struct{ Secrets }

// New returns the service.
func New(store Store) *wire.Service {
	s := &service{Secrets{Store: store}}
	return &wire.Service{
		Name: "secretsmanager", Strict: true, Translate: translate, Subjects: subjects,
		Operations: map[string]wire.Operation{
			"CreateSecret":             wire.Op(s.create),
			"PutSecretValue":           wire.Op(s.put),
			"UpdateSecret":             wire.Op(s.update),
			"UpdateSecretVersionStage": wire.Op(s.stage),
			"GetSecretValue":           wire.Op(s.value),
			"BatchGetSecretValue":      wire.Op(s.values),
			"DescribeSecret":           wire.Op(s.describe),
			"ListSecrets":              wire.Op(s.list),
			"ListSecretVersionIds":     wire.Op(s.versions),
			"DeleteSecret":             wire.Op(s.remove),
			"RestoreSecret":            wire.Op(s.restore),
			"TagResource":              wire.Op(s.tag),
			"UntagResource":            wire.Op(s.untag),
			"GetResourcePolicy":        wire.Op(s.policy),
			"PutResourcePolicy":        wire.Op(s.putPolicy),
			"DeleteResourcePolicy":     wire.Op(s.deletePolicy),
			"GetRandomPassword":        wire.Op(s.password),
		},
	}
}

func translate(_ *wire.Call, err error) *wire.Error {
	switch errs.CodeOf(err) {
	case errs.Unavailable, errs.Timeout, errs.Canceled:
		return wire.Errorf("InternalServiceError", "%s", err).With(http.StatusServiceUnavailable)
	case errs.TooLarge:
		return wire.Errorf("LimitExceededException", "The versions of the secret take too much room together.")
	}
	return nil
}

func notThere(format string, args ...any) error {
	return wire.Errorf("ResourceNotFoundException", format, args...)
}

func refused(format string, args ...any) error {
	return wire.Errorf("InvalidRequestException", format, args...)
}

func invalid(format string, args ...any) error {
	return wire.Errorf("InvalidParameterException", format, args...)
}

func arnOf(c *wire.Call, s *Secret) string {
	return arn.New("secretsmanager", c.Region, c.Caller.Account, "secret:"+s.Name+"-"+s.Suffix).String()
}

// find gives a secret that the caller reaches, one that is marked for deletion too.
func (s *service) find(ctx context.Context, c *wire.Call, id string) (*Secret, error) {
	one, err := s.Get(ctx, c.Caller.Tenant, id)
	if errs.CodeOf(err) == errs.NotFound {
		return nil, notThere("Secrets Manager can't find the specified secret.")
	}
	if err != nil {
		return nil, err
	}
	return one, reaches(c, one)
}

// live is find for what is not marked for deletion.
func (s *service) live(ctx context.Context, c *wire.Call, id string) (*Secret, error) {
	one, err := s.find(ctx, c, id)
	if err == nil && !one.Deleted.IsZero() {
		return nil, marked()
	}
	return one, err
}

func marked() error {
	return refused("You can't perform this operation on the secret because it was marked for deletion.")
}

func reaches(c *wire.Call, s *Secret) error {
	if s.mine(c.Caller.App) {
		return nil
	}
	return wire.Errorf("AccessDeniedException", "User: %s is not authorized to perform: secretsmanager:%s on resource: %s because no identity-based policy allows the secretsmanager:%s action",
		c.Caller.ARN, c.Operation, arnOf(c, s), c.Operation)
}

// changed lets f change what a request names.
func (s *service) changed(ctx context.Context, c *wire.Call, id string, f func(*Secret) error) (*Secret, error) {
	found, err := s.find(ctx, c, id)
	if err != nil {
		return nil, err
	}
	var out *Secret
	err = s.Change(ctx, c.Caller.Tenant, found.Name, func(one *Secret) (*Secret, error) {
		if one == nil {
			return nil, notThere("Secrets Manager can't find the specified secret.")
		}
		if err := reaches(c, one); err != nil {
			return nil, err
		}
		out = one
		return one, f(one)
	})
	return out, err
}

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

// suffix is what AWS puts at the end of an ARN.
func suffix() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails; see crypto/rand
	for i := range b {
		b[i] = letters[int(b[i])%len(letters)]
	}
	return string(b[:])
}

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails; see crypto/rand
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
