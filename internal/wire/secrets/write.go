package secrets

import (
	"context"
	"regexp"
	"slices"
	"time"

	"github.com/ebb-run/ebb/internal/wire"
)

type tag struct {
	Key, Value string `wire:",always"`
}

type createInput struct {
	Name, Description, KmsKeyId, ClientRequestToken string
	SecretString                                    *string
	SecretBinary                                    []byte
	Tags                                            []tag
}

type named struct{ ARN, Name, VersionId string }

var nameRE = regexp.MustCompile(`^[a-zA-Z0-9/_+=.@-]{1,512}$`)

// versionOf is the version that a request's values make; nil where it has none.
func versionOf(c *wire.Call, token string, text *string, binary []byte) (*Version, error) {
	switch {
	case text != nil && len(binary) > 0:
		return nil, invalid("You can't specify both a binary secret value and a string secret value in the same secret.")
	case text == nil && len(binary) == 0:
		return nil, nil
	}
	if token == "" {
		token = newID()
	}
	return &Version{ID: token, Text: text, Binary: binary, At: c.Now}, nil
}

func (s *service) create(ctx context.Context, c *wire.Call, in *createInput) (*named, error) {
	if !nameRE.MatchString(in.Name) {
		return nil, wire.Errorf("ValidationException", "Invalid name. Must be a valid name containing alphanumeric characters, or any of the following: -/_+=.@!")
	}
	v, err := versionOf(c, in.ClientRequestToken, in.SecretString, in.SecretBinary)
	if err != nil {
		return nil, err
	}
	out := &named{Name: in.Name}
	err = s.Change(ctx, c.Caller.Tenant, in.Name, func(old *Secret) (*Secret, error) {
		if old != nil {
			return nil, in.again(c, old, v, out)
		}
		one := &Secret{Name: in.Name, Suffix: suffix(), App: c.Caller.App, Text: in.Description, Key: in.KmsKeyId, Tags: map[string]string{}, Created: c.Now, Changed: c.Now}
		for _, t := range in.Tags {
			one.Tags[t.Key] = t.Value
		}
		if v != nil {
			one.Versions = []Version{*v}
			one.Versions[0].Stages = []string{current}
			out.VersionId = v.ID
		}
		out.ARN = arnOf(c, one)
		return one, nil
	})
	return out, err
}

// again answers a request to create what is there: well where it is the same request.
func (in *createInput) again(c *wire.Call, old *Secret, v *Version, out *named) error {
	if !old.Deleted.IsZero() {
		return refused("You can't create this secret because a secret with this name is already scheduled for deletion.")
	}
	if old.mine(c.Caller.App) && v != nil && in.ClientRequestToken != "" {
		if was, err := old.version(in.ClientRequestToken, ""); err == nil {
			if !was.same(v) {
				return wire.Errorf("ResourceExistsException", "You can't use ClientRequestToken %s because that value is already in use for a version of secret %s.", in.ClientRequestToken, arnOf(c, old))
			}
			out.ARN, out.VersionId = arnOf(c, old), was.ID
			return nil
		}
	}
	return wire.Errorf("ResourceExistsException", "The operation failed because the secret %s already exists.", old.Name)
}

// add puts a version to a secret at stages.
func (s *Secret) add(c *wire.Call, v *Version, stages []string) (*Version, error) {
	for i := range s.Versions {
		was := &s.Versions[i]
		if was.ID != v.ID {
			continue
		}
		if !was.same(v) {
			return nil, wire.Errorf("ResourceExistsException", "You can't use ClientRequestToken %s because that value is already in use for a version of secret %s.", v.ID, arnOf(c, s))
		}
		return was, nil // the same request again
	}
	if len(s.Versions) == 0 && !slices.Contains(stages, current) {
		stages = append(slices.Clone(stages), current)
	}
	s.Versions = append(s.Versions, *v)
	for _, stage := range stages {
		s.move(stage, v.ID)
	}
	s.Changed = c.Now
	return s.version(v.ID, "")
}

type putInput struct {
	SecretId, ClientRequestToken string
	SecretString                 *string
	SecretBinary                 []byte
	VersionStages                []string
}

type putOutput struct {
	ARN, Name, VersionId string
	VersionStages        []string
}

func (s *service) put(ctx context.Context, c *wire.Call, in *putInput) (*putOutput, error) {
	v, err := versionOf(c, in.ClientRequestToken, in.SecretString, in.SecretBinary)
	if err == nil && v == nil {
		err = refused("You must provide either SecretString or SecretBinary.")
	}
	if err != nil {
		return nil, err
	}
	stages := in.VersionStages
	if len(stages) == 0 {
		stages = []string{current}
	}
	out := &putOutput{}
	one, err := s.changed(ctx, c, in.SecretId, func(one *Secret) error {
		if !one.Deleted.IsZero() {
			return marked()
		}
		now, err := one.add(c, v, stages)
		if err == nil {
			out.VersionId, out.VersionStages = now.ID, slices.Clone(now.Stages)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	out.ARN, out.Name = arnOf(c, one), one.Name
	return out, nil
}

type updateInput struct {
	SecretId, ClientRequestToken string
	Description, KmsKeyId        *string
	SecretString                 *string
	SecretBinary                 []byte
}

func (s *service) update(ctx context.Context, c *wire.Call, in *updateInput) (*named, error) {
	v, err := versionOf(c, in.ClientRequestToken, in.SecretString, in.SecretBinary)
	if err != nil {
		return nil, err
	}
	out := &named{}
	one, err := s.changed(ctx, c, in.SecretId, func(one *Secret) error {
		if !one.Deleted.IsZero() {
			return marked()
		}
		one.Changed = c.Now
		if in.Description != nil {
			one.Text = *in.Description
		}
		if in.KmsKeyId != nil {
			one.Key = *in.KmsKeyId
		}
		if v == nil {
			return nil
		}
		now, err := one.add(c, v, []string{current})
		if err == nil {
			out.VersionId = now.ID
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	out.ARN, out.Name = arnOf(c, one), one.Name
	return out, nil
}

type stageInput struct{ SecretId, VersionStage, RemoveFromVersionId, MoveToVersionId string }

func (s *service) stage(ctx context.Context, c *wire.Call, in *stageInput) (*plainOutput, error) {
	return s.plainly(ctx, c, in.SecretId, func(one *Secret) error {
		if !one.Deleted.IsZero() {
			return marked()
		}
		return one.restage(in)
	})
}

func (s *Secret) restage(in *stageInput) error {
	has := s.at(in.VersionStage)
	for _, id := range []string{in.RemoveFromVersionId, in.MoveToVersionId} {
		if id == "" {
			continue
		}
		if _, err := s.version(id, ""); err != nil {
			return err
		}
	}
	switch {
	case has != nil && in.RemoveFromVersionId == "" && has.ID != in.MoveToVersionId:
		return invalid("The parameter RemoveFromVersionId can't be empty. Staging label %s is currently attached to version %s, so you must explicitly reference that version in RemoveFromVersionId.", in.VersionStage, has.ID)
	case in.RemoveFromVersionId != "" && (has == nil || has.ID != in.RemoveFromVersionId):
		return invalid("The parameter RemoveFromVersionId must be set to the version that has the staging label %s.", in.VersionStage)
	case in.MoveToVersionId == "" && in.VersionStage == current:
		return invalid("You can't remove the staging label %s; move it to another version.", current)
	case in.MoveToVersionId == "" && has != nil:
		has.Stages = slices.DeleteFunc(has.Stages, func(l string) bool { return l == in.VersionStage })
	case in.MoveToVersionId != "":
		s.move(in.VersionStage, in.MoveToVersionId)
	}
	return nil
}

const day = 24 * time.Hour

type removeInput struct {
	SecretId                   string
	RecoveryWindowInDays       *int64
	ForceDeleteWithoutRecovery bool
}

type removeOutput struct {
	ARN, Name    string
	DeletionDate time.Time
}

func (s *service) remove(ctx context.Context, c *wire.Call, in *removeInput) (*removeOutput, error) {
	days := int64(30)
	if in.RecoveryWindowInDays != nil {
		days = *in.RecoveryWindowInDays
		switch {
		case in.ForceDeleteWithoutRecovery:
			return nil, invalid("You can't use ForceDeleteWithoutRecovery in conjunction with RecoveryWindowInDays.")
		case days < 7 || days > 30:
			return nil, invalid("The RecoveryWindowInDays value must be between 7 and 30 days (inclusive).")
		}
	}
	out := &removeOutput{DeletionDate: c.Now.Add(time.Duration(days) * day)}
	if in.ForceDeleteWithoutRecovery {
		out.DeletionDate = c.Now
	}
	one, err := s.find(ctx, c, in.SecretId)
	if err != nil {
		var e *wire.Error
		if in.ForceDeleteWithoutRecovery && errorCode(err, &e) == "ResourceNotFoundException" { // "if you force delete … nonexistent": no error
			out.Name = in.SecretId
			return out, nil
		}
		return nil, err
	}
	if in.ForceDeleteWithoutRecovery {
		out.ARN, out.Name = arnOf(c, one), one.Name
		return out, s.Store.Delete(ctx, c.Caller.Tenant, one.Name, one.seq)
	}
	one, err = s.changed(ctx, c, in.SecretId, func(one *Secret) error {
		if !one.Deleted.IsZero() {
			return marked()
		}
		one.Deleted, one.Ends = c.Now, out.DeletionDate
		return nil
	})
	if err != nil {
		return nil, err
	}
	out.ARN, out.Name = arnOf(c, one), one.Name
	return out, nil
}

type idInput struct{ SecretId string }

type plainOutput struct{ ARN, Name string }

func (s *service) restore(ctx context.Context, c *wire.Call, in *idInput) (*plainOutput, error) {
	return s.plainly(ctx, c, in.SecretId, func(one *Secret) error {
		one.Deleted, one.Ends = time.Time{}, time.Time{}
		return nil
	})
}

// plainly changes a secret, and tells which.
func (s *service) plainly(ctx context.Context, c *wire.Call, id string, f func(*Secret) error) (*plainOutput, error) {
	one, err := s.changed(ctx, c, id, f)
	if err != nil {
		return nil, err
	}
	return &plainOutput{arnOf(c, one), one.Name}, nil
}

type tagInput struct {
	SecretId string
	Tags     []tag
}

func (s *service) tag(ctx context.Context, c *wire.Call, in *tagInput) (*struct{}, error) {
	_, err := s.changed(ctx, c, in.SecretId, func(one *Secret) error {
		if !one.Deleted.IsZero() {
			return marked()
		}
		if one.Tags == nil {
			one.Tags = map[string]string{}
		}
		for _, t := range in.Tags {
			one.Tags[t.Key] = t.Value
		}
		return nil
	})
	return nil, err
}

type untagInput struct {
	SecretId string
	TagKeys  []string
}

func (s *service) untag(ctx context.Context, c *wire.Call, in *untagInput) (*struct{}, error) {
	_, err := s.changed(ctx, c, in.SecretId, func(one *Secret) error {
		for _, k := range in.TagKeys {
			delete(one.Tags, k)
		}
		return nil
	})
	return nil, err
}

type putPolicyInput struct{ SecretId, ResourcePolicy string }

// putPolicy keeps the text; who may read a secret is not said by it here.
func (s *service) putPolicy(ctx context.Context, c *wire.Call, in *putPolicyInput) (*plainOutput, error) {
	return s.plainly(ctx, c, in.SecretId, func(one *Secret) error { one.Policy = in.ResourcePolicy; return nil })
}

func (s *service) deletePolicy(ctx context.Context, c *wire.Call, in *idInput) (*plainOutput, error) {
	return s.plainly(ctx, c, in.SecretId, func(one *Secret) error { one.Policy = ""; return nil })
}
