// Package ssm answers AWS Systems Manager's Parameter Store.
//
// Main types: [Store], where parameters are kept; [Parameters], what the operations and others read them with; [New] gives the wire.Service.
//
// Guarantees:
//
//  1. What PutParameter acknowledged is durable, as far as the Store is; of two writers of one name each makes a version of its own.
//  2. Values leave the process to the Store only, which seals them.
//  3. A parameter that a Function made is its App's; one that an operator made is every App's of the Tenant.
//
// It has no other parts of Systems Manager.
package ssm

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
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

// Parameter is one parameter with its versions.
type Parameter struct {
	Name     string            `json:"name"`
	App      string            `json:"app,omitempty"` // whose it is; empty: every App's
	Tags     map[string]string `json:"tags,omitempty"`
	Versions []Version         `json:"versions"`           // the oldest first; never empty
	Stack    string            `json:"stack,omitempty"`    // of the one that declares it
	Declared string            `json:"declared,omitempty"` // digest of what it says
	Retain   bool              `json:"retain,omitempty"`   // it outlives its Stack

	seq uint64
}

// Version is one state of a Parameter.
type Version struct {
	N        int64     `json:"n"`
	Type     string    `json:"type"` // "String", "StringList", "SecureString"
	Value    string    `json:"value"`
	Text     string    `json:"text,omitempty"` // the description
	Pattern  string    `json:"pattern,omitempty"`
	KeyID    string    `json:"keyId,omitempty"`
	Tier     string    `json:"tier"`
	DataType string    `json:"dataType"`
	Policies string    `json:"policies,omitempty"`
	Labels   []string  `json:"labels,omitempty"`
	At       time.Time `json:"at"`
	By       string    `json:"by"` // an ARN
}

func (p *Parameter) last() *Version { return &p.Versions[len(p.Versions)-1] }

// Parameters reads and writes parameters.
type Parameters struct{ Store Store }

// Get gives a parameter. errs.NotFound when there is none.
func (p Parameters) Get(ctx context.Context, tenant, name string) (*Parameter, error) {
	data, seq, err := p.Store.Get(ctx, tenant, name)
	if err != nil {
		return nil, err
	}
	return read(data, seq)
}

func read(data []byte, seq uint64) (*Parameter, error) {
	one := &Parameter{seq: seq}
	if err := json.Unmarshal(data, one); err != nil || len(one.Versions) == 0 {
		return nil, errs.New(errs.Failed, "the record of a parameter cannot be read")
	}
	return one, nil
}

// Value gives the value that a name stands for, which may end with :version or :label. errs.NotFound when there is none, or app may not.
func (p Parameters) Value(ctx context.Context, tenant, app, name string) (value, kind string, err error) {
	plain, selector := split(name)
	one, err := p.Get(ctx, tenant, plain)
	if err != nil {
		return "", "", err
	}
	v := one.version(selector)
	if v == nil || !one.mine(app) {
		return "", "", errs.New(errs.NotFound, "parameter %s is not there", name)
	}
	return v.Value, v.Type, nil
}

// Change reads a parameter, lets f change it, and writes it, again when it was changed meanwhile. f gets nil where there is none; what it
// gives is written unless it is nil.
func (p Parameters) Change(ctx context.Context, tenant, name string, f func(*Parameter) (*Parameter, error)) error {
	for {
		old, err := p.Get(ctx, tenant, name)
		if err != nil && errs.CodeOf(err) != errs.NotFound {
			return err
		}
		var seq uint64
		if old != nil {
			seq = old.seq
		}
		now, err := f(old)
		if err != nil || now == nil {
			return err
		}
		data, err := json.Marshal(now)
		if err != nil {
			return err
		}
		if err = p.Store.Put(ctx, tenant, name, data, seq); errs.CodeOf(err) != errs.Conflict {
			return err
		}
	}
}

// all gives what a caller sees, sorted by name.
func (p Parameters) all(ctx context.Context, c *wire.Call) (list []*Parameter, err error) {
	err = p.Store.Each(ctx, c.Caller.Tenant, func(data []byte) error {
		one, err := read(data, 0)
		if err == nil && one.mine(c.Caller.App) {
			list = append(list, one)
		}
		return err
	})
	slices.SortFunc(list, func(a, b *Parameter) int { return strings.Compare(a.Name, b.Name) })
	return list, err
}

// mine says whether an App, or with an empty one an operator, reaches the parameter.
func (p *Parameter) mine(app string) bool { return app == "" || p.App == "" || p.App == app }

// version gives the one that a selector, a number or a label, names; the newest for "".
func (p *Parameter) version(selector string) *Version {
	if selector == "" {
		return p.last()
	}
	n, err := strconv.ParseInt(selector, 10, 64)
	for i := range p.Versions {
		v := &p.Versions[i]
		if err == nil && v.N == n || err != nil && slices.Contains(v.Labels, selector) {
			return v
		}
	}
	return nil
}

// split takes the selector off a name.
func split(name string) (plain, selector string) {
	plain, selector, _ = strings.Cut(name, ":")
	return plain, selector
}

type service struct {
	Parameters
	secret func(ctx context.Context, c *wire.Call, id string) (value string, err error)
}

// referred begins the names of secrets of Secrets Manager: User Guide, "Referencing Secrets Manager secrets".
const referred = "/aws/reference/secretsmanager/"

// New returns the service. secret gives secrets of Secrets Manager, or is nil.
func New(store Store, secret func(ctx context.Context, c *wire.Call, id string) (string, error)) *wire.Service {
	s := &service{Parameters{store}, secret}
	return &wire.Service{
		Name: "ssm", Strict: true, Translate: translate, Subjects: subjects,
		Operations: map[string]wire.Operation{
			"PutParameter":           wire.Op(s.put),
			"GetParameter":           wire.Op(s.get),
			"GetParameters":          wire.Op(s.getSeveral),
			"GetParametersByPath":    wire.Op(s.getByPath),
			"GetParameterHistory":    wire.Op(s.history),
			"DescribeParameters":     wire.Op(s.describe),
			"DeleteParameter":        wire.Op(s.remove),
			"DeleteParameters":       wire.Op(s.removeSeveral),
			"LabelParameterVersion":  wire.Op(s.label),
			"AddTagsToResource":      wire.Op(s.tag),
			"RemoveTagsFromResource": wire.Op(s.untag),
			"ListTagsForResource":    wire.Op(s.tags),
		},
	}
}

func translate(_ *wire.Call, err error) *wire.Error {
	switch errs.CodeOf(err) {
	case errs.Unavailable, errs.Timeout, errs.Canceled:
		return wire.Errorf("InternalServerError", "%s", err).With(http.StatusServiceUnavailable)
	case errs.TooLarge:
		return wire.Errorf("ParameterMaxVersionLimitExceeded", "The versions of the parameter take too much room together.")
	}
	return nil
}

// plainName gives the name that a request means, of a name or an ARN, and its selector.
func (s *service) plainName(ctx context.Context, c *wire.Call, name string) (plain, selector string) {
	if !strings.HasPrefix(name, "arn:") {
		return split(name)
	}
	a, err := arn.Parse(name)
	rest, ok := strings.CutPrefix(a.Resource, "parameter/")
	if err != nil || !ok {
		return name, ""
	}
	plain, selector = split(rest)
	if !strings.Contains(plain, "/") {
		if _, _, err := s.Store.Get(ctx, c.Caller.Tenant, plain); err == nil {
			return plain, selector
		}
	}
	return "/" + plain, selector
}

func arnOf(c *wire.Call, name string) string {
	return arn.New("ssm", c.Region, c.Caller.Account, "parameter/"+strings.TrimPrefix(name, "/")).String()
}

func missing() error { return wire.Errorf("ParameterNotFound", "") }

// find gives a parameter that the caller reaches.
func (s *service) find(ctx context.Context, c *wire.Call, name string) (*Parameter, error) {
	p, err := s.Get(ctx, c.Caller.Tenant, name)
	if errs.CodeOf(err) == errs.NotFound {
		return nil, missing()
	}
	if err != nil {
		return nil, err
	}
	return p, reaches(c, p)
}

func reaches(c *wire.Call, p *Parameter) error {
	if p.mine(c.Caller.App) {
		return nil
	}
	return wire.Errorf("AccessDeniedException", "User: %s is not authorized to perform: ssm:%s on resource: %s because no identity-based policy allows the ssm:%s action",
		c.Caller.ARN, c.Operation, arnOf(c, p.Name), c.Operation)
}
