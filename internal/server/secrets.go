package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/arn"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/state"
	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/secrets"
	"github.com/ebb-run/ebb/internal/wire/ssm"
)

// Kinds of sealed records.
const (
	parameterKind = "parameter"
	secretKind    = "secret"
)

func (s *Server) parameters() ssm.Parameters {
	return ssm.Parameters{Store: sealedRecords{s.state, parameterKind}}
}

func (s *Server) secretStore() secrets.Secrets {
	return secrets.Secrets{Store: sealedRecords{s.state, secretKind}}
}

// referredSecret gives what a parameter refers to in Secrets Manager.
func (s *Server) referredSecret(ctx context.Context, c *wire.Call, id string) (string, error) {
	return s.secretStore().Value(ctx, c.Caller.Tenant, c.Caller.App, id, "", "")
}

// secretOf gives the value of a reference in a project of the App: "ssm:NAME[:VERSION]" or "secretsmanager:ID[:SecretString[:KEY[:STAGE[:VERSION]]]]".
func (s *Server) secretOf(k state.StackKey, name string) (string, error) {
	if s.state == nil {
		return "", errs.New(errs.NotFound, "secret %s is not there", name)
	}
	ctx := context.Background() // every read is bounded
	if rest, ok := strings.CutPrefix(name, "secretsmanager:"); ok {
		value, err := s.secretPart(ctx, k, rest)
		if errs.CodeOf(err) == errs.NotFound {
			err = errs.New(errs.NotFound, "there is no secret %s", rest).WithHint("Make it: aws --endpoint-url … secretsmanager create-secret --name …")
		}
		return value, err
	}
	rest, _ := strings.CutPrefix(name, "ssm:")
	value, _, err := s.parameters().Value(ctx, k.Tenant, k.App, rest)
	if errs.CodeOf(err) == errs.NotFound {
		err = errs.New(errs.NotFound, "there is no parameter %s", rest).WithHint("Make it: aws --endpoint-url … ssm put-parameter --type SecureString --name …")
	}
	return value, err
}

// secretPart reads a reference to a secret: CloudFormation guide, "Get a secret or secret value from Secrets Manager".
func (s *Server) secretPart(ctx context.Context, k state.StackKey, ref string) (string, error) {
	id, rest := ref, ""
	if a, err := arn.Parse(ref); err == nil && strings.HasPrefix(a.Resource, "secret:") {
		name, more, _ := strings.Cut(strings.TrimPrefix(a.Resource, "secret:"), ":")
		a.Resource = "secret:" + name
		id, rest = a.String(), more
	} else {
		id, rest, _ = strings.Cut(ref, ":")
	}
	part := append(strings.SplitN(rest, ":", 4), "", "", "", "")
	value, err := s.secretStore().Value(ctx, k.Tenant, k.App, id, part[2], part[3])
	if err != nil || part[1] == "" {
		return value, err
	}
	var fields map[string]any
	if err := json.Unmarshal([]byte(value), &fields); err != nil {
		return "", errs.New(errs.Invalid, "secret %s is no JSON object, and has no key %s", id, part[1])
	}
	switch v := fields[part[1]].(type) {
	case nil:
		return "", errs.New(errs.NotFound, "secret %s has no key %s", id, part[1])
	case string:
		return v, nil
	default:
		text, err := json.Marshal(v)
		return string(text), err
	}
}

// declareSecrets makes the parameters and secrets that an App declares. One that was changed since it was made stays as it is until its
// declaration changes.
func (s *Server) declareSecrets(ctx context.Context, d *state.Deployment) (faults []string) {
	for i := range d.App.Resources {
		res := &d.App.Resources[i]
		var err error
		switch res.Type {
		case "AWS::SSM::Parameter":
			err = s.declareParameter(ctx, d, res)
		case "AWS::SecretsManager::Secret":
			err = s.declareSecret(ctx, d, res)
		}
		if err != nil {
			faults = append(faults, fmt.Sprintf("%s: %v", res.ID, err))
		}
	}
	return faults
}

func declaration(v any) string {
	text, _ := json.Marshal(v) // of plain values
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// declared is what CloudFormation's name and tags of a Resource say.
type declaredTag struct{ Key, Value string }

func (s *Server) declareParameter(ctx context.Context, d *state.Deployment, res *app.Resource) error {
	r := s.resolver(d)
	var p struct{ Type, Value, Description, AllowedPattern, Tier, DataType string }
	if err := r.properties(res.Properties, &p); err != nil {
		return err
	}
	name, err := r.physicalName(res)
	if err != nil {
		return err
	}
	mark := declaration(p)
	return s.parameters().Change(ctx, d.Stack.Tenant, name, func(old *ssm.Parameter) (*ssm.Parameter, error) {
		one := &ssm.Parameter{Name: name, App: d.Stack.App, Stack: stackID(d.Stack), Declared: mark, Retain: res.Retain}
		if old != nil {
			if old.Stack != stackID(d.Stack) {
				return nil, errs.New(errs.Conflict, "the parameter %s is there already, and stays as it is", name)
			}
			if old.Declared == mark {
				return nil, nil
			}
			one, old.Declared, old.Retain = old, mark, res.Retain
		}
		return one, one.Add(ssm.Version{Type: p.Type, Value: p.Value, Text: p.Description, Pattern: p.AllowedPattern, Tier: p.Tier, DataType: p.DataType, At: time.Now().UTC(), By: stackID(d.Stack)})
	})
}

// generated is what a declared secret's random value is made of.
type generated struct {
	SecretStringTemplate, GenerateStringKey, ExcludeCharacters                           string
	PasswordLength                                                                       number
	ExcludeNumbers, ExcludePunctuation, ExcludeUppercase, ExcludeLowercase, IncludeSpace yes
	RequireEachIncludedType                                                              *yes
}

func (g *generated) text() (string, error) {
	p := secrets.Password{
		Exclude: g.ExcludeCharacters, NoNumbers: bool(g.ExcludeNumbers), NoPunctuation: bool(g.ExcludePunctuation), NoUpper: bool(g.ExcludeUppercase), NoLower: bool(g.ExcludeLowercase),
		Space: bool(g.IncludeSpace), Each: (*bool)(g.RequireEachIncludedType),
	}
	if g.PasswordLength != 0 {
		n := int64(g.PasswordLength)
		p.Length = &n
	}
	word, err := p.Make()
	if err != nil || g.GenerateStringKey == "" {
		return word, err
	}
	fields := map[string]any{}
	if err := json.Unmarshal([]byte(g.SecretStringTemplate), &fields); err != nil {
		return "", errs.New(errs.Invalid, "SecretStringTemplate is no JSON object: %w", err)
	}
	fields[g.GenerateStringKey] = word
	text, err := json.Marshal(fields)
	return string(text), err
}

func (s *Server) declareSecret(ctx context.Context, d *state.Deployment, res *app.Resource) error {
	r := s.resolver(d)
	var p struct {
		Description, KmsKeyId string
		SecretString          *string
		GenerateSecretString  *generated
		Tags                  []declaredTag
	}
	if err := r.properties(res.Properties, &p); err != nil {
		return err
	}
	name, err := r.physicalName(res)
	if err != nil {
		return err
	}
	mark := declaration(p)
	return s.secretStore().Change(ctx, d.Stack.Tenant, name, func(old *secrets.Secret) (*secrets.Secret, error) {
		now := time.Now().UTC()
		one := secrets.Make(name, now)
		one.App, one.Stack = d.Stack.App, stackID(d.Stack)
		if old != nil {
			if old.Stack != stackID(d.Stack) {
				return nil, errs.New(errs.Conflict, "the secret %s is there already, and stays as it is", name)
			}
			if old.Declared == mark && old.Deleted.IsZero() {
				return nil, nil
			}
			one = old
		}
		one.Declared, one.Retain, one.Text, one.Key, one.Deleted, one.Ends = mark, res.Retain, p.Description, p.KmsKeyId, time.Time{}, time.Time{}
		for _, t := range p.Tags {
			one.Tags[t.Key] = t.Value
		}
		value := p.SecretString
		if value == nil && p.GenerateSecretString != nil && len(one.Versions) == 0 {
			text, err := p.GenerateSecretString.text()
			if err != nil {
				return nil, err
			}
			value = &text
		}
		if value != nil {
			one.Set(*value, now)
		}
		return one, nil
	})
}

// dropSecrets removes what a removed Stack had declared.
func (s *Server) dropSecrets(ctx context.Context, k state.StackKey) error {
	parameters, list := sealedRecords{s.state, parameterKind}, map[string]sealedRecords{}
	kept := sealedRecords{s.state, secretKind}
	for _, r := range []sealedRecords{parameters, kept} {
		err := r.Each(ctx, k.Tenant, func(data []byte) error {
			var one struct {
				Name, Stack string
				Retain      bool
			}
			if err := json.Unmarshal(data, &one); err == nil && one.Stack == stackID(k) && !one.Retain {
				list[r.kind+" "+one.Name] = r
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	var all []error
	for at, r := range list {
		name := strings.TrimPrefix(at, r.kind+" ")
		_, seq, err := r.Get(ctx, k.Tenant, name)
		if err == nil {
			err = r.Delete(ctx, k.Tenant, name, seq)
		}
		if errs.CodeOf(err) != errs.NotFound {
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}
