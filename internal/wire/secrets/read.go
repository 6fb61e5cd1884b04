package secrets

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/wire"
)

type valueInput struct{ SecretId, VersionId, VersionStage string }

type valueOutput struct {
	ARN, Name, VersionId string
	SecretString         *string
	SecretBinary         []byte
	VersionStages        []string `wire:",always"`
	CreatedDate          time.Time
}

func valued(c *wire.Call, one *Secret, v *Version) *valueOutput {
	out := &valueOutput{ARN: arnOf(c, one), Name: one.Name, VersionId: v.ID, SecretString: v.Text, VersionStages: v.Stages, CreatedDate: v.At}
	if v.Text == nil {
		out.SecretBinary = v.Binary
	}
	return out
}

func (s *service) value(ctx context.Context, c *wire.Call, in *valueInput) (*valueOutput, error) {
	one, err := s.live(ctx, c, in.SecretId)
	if err != nil {
		return nil, err
	}
	v, err := one.version(in.VersionId, in.VersionStage)
	if err != nil {
		return nil, err
	}
	return valued(c, one, v), nil
}

func errorCode(err error, e **wire.Error) string {
	if errors.As(err, e) {
		return (*e).Code
	}
	return ""
}

type filter struct {
	Key    string
	Values []string
}

type valuesInput struct {
	SecretIdList []string
	Filters      []filter
	MaxResults   *int
	NextToken    string
}

type failure struct{ SecretId, ErrorCode, Message string }

type valuesOutput struct {
	SecretValues []valueOutput `wire:",always"`
	Errors       []failure     `wire:",always"`
	NextToken    string
}

func (s *service) values(ctx context.Context, c *wire.Call, in *valuesInput) (*valuesOutput, error) {
	out := &valuesOutput{SecretValues: []valueOutput{}, Errors: []failure{}}
	ids := in.SecretIdList
	switch {
	case len(ids) > 0 && len(in.Filters) > 0:
		return nil, invalid("Either 'SecretIdList' or 'Filters' must be provided, but not both.")
	case len(ids) == 0 && len(in.Filters) == 0:
		return nil, invalid("You must include Filters or SecretIdList.")
	case len(ids) == 0:
		all, err := s.all(ctx, c, in.Filters, false)
		if err != nil {
			return nil, err
		}
		part, next, err := page(all, in.NextToken, in.MaxResults, 20)
		if err != nil {
			return nil, err
		}
		out.NextToken = next
		for _, one := range part {
			ids = append(ids, one.Name)
		}
	}
	for _, id := range ids {
		got, err := s.value(ctx, c, &valueInput{SecretId: id})
		var e *wire.Error
		switch {
		case err == nil:
			out.SecretValues = append(out.SecretValues, *got)
		case errorCode(err, &e) != "":
			out.Errors = append(out.Errors, failure{id, e.Code, e.Message})
		default:
			return nil, err
		}
	}
	return out, nil
}

type described struct {
	ARN, Name, Description, KmsKeyId string
	CreatedDate, LastChangedDate     time.Time
	DeletedDate                      *time.Time
	Tags                             []tag
}

func describedOf(c *wire.Call, one *Secret) described {
	out := described{ARN: arnOf(c, one), Name: one.Name, Description: one.Text, KmsKeyId: one.Key, CreatedDate: one.Created, LastChangedDate: one.Changed, Tags: []tag{}}
	for _, k := range slices.Sorted(maps.Keys(one.Tags)) {
		out.Tags = append(out.Tags, tag{k, one.Tags[k]})
	}
	if !one.Deleted.IsZero() {
		out.DeletedDate = &one.Deleted
	}
	return out
}

// stages lists the versions with labels.
func (s *Secret) stages() map[string][]string {
	out := map[string][]string{}
	for _, v := range s.Versions {
		if len(v.Stages) > 0 {
			out[v.ID] = v.Stages
		}
	}
	return out
}

type describeOutput struct {
	ARN, Name, Description, KmsKeyId string
	CreatedDate, LastChangedDate     time.Time
	DeletedDate                      *time.Time
	Tags                             []tag
	VersionIdsToStages               map[string][]string
}

func (s *service) describe(ctx context.Context, c *wire.Call, in *idInput) (*describeOutput, error) {
	one, err := s.find(ctx, c, in.SecretId)
	if err != nil {
		return nil, err
	}
	d := describedOf(c, one)
	return &describeOutput{d.ARN, d.Name, d.Description, d.KmsKeyId, d.CreatedDate, d.LastChangedDate, d.DeletedDate, d.Tags, one.stages()}, nil
}

// all gives what a caller sees and filters let through, sorted by name.
func (s *service) all(ctx context.Context, c *wire.Call, filters []filter, deleted bool) (list []*Secret, err error) {
	now := s.now()
	err = s.Store.Each(ctx, c.Caller.Tenant, func(data []byte) error {
		one, err := read(data, 0)
		if err == nil && one.mine(c.Caller.App) && !one.gone(now) && (deleted || one.Deleted.IsZero()) &&
			!slices.ContainsFunc(filters, func(f filter) bool { return !f.takes(one) }) {
			list = append(list, one)
		}
		return err
	})
	slices.SortFunc(list, func(a, b *Secret) int { return strings.Compare(a.Name, b.Name) })
	return list, err
}

// takes says whether a filter lets a secret through: Secrets Manager API, "Filter". Values are prefixes; one with ! before it must not fit.
func (f *filter) takes(s *Secret) bool {
	var have []string
	if f.Key == "description" || f.Key == "all" {
		have = append(have, strings.Fields(s.Text)...)
	}
	if f.Key == "name" || f.Key == "all" {
		have = append(have, s.Name)
	}
	for k, v := range s.Tags {
		if f.Key == "tag-key" || f.Key == "all" {
			have = append(have, k)
		}
		if f.Key == "tag-value" || f.Key == "all" {
			have = append(have, v)
		}
	}
	fold := f.Key == "description" || f.Key == "all"
	begins := func(prefix string) bool {
		return slices.ContainsFunc(have, func(one string) bool {
			if fold {
				return strings.HasPrefix(strings.ToLower(one), strings.ToLower(prefix))
			}
			return strings.HasPrefix(one, prefix)
		})
	}
	any, only := false, true
	for _, want := range f.Values {
		if not, ok := strings.CutPrefix(want, "!"); ok {
			if begins(not) {
				return false
			}
			continue
		}
		any, only = any || begins(want), false
	}
	return any || only
}

// page gives the part of a list that a request asks for. A token is the name of the last one before.
func page(list []*Secret, token string, most *int, limit int) (part []*Secret, next string, err error) {
	if most != nil {
		limit = min(*most, limit)
	}
	if token != "" {
		after, err := base64.StdEncoding.DecodeString(token)
		i := slices.IndexFunc(list, func(s *Secret) bool { return s.Name == string(after) })
		if err != nil || i < 0 {
			return nil, "", wire.Errorf("InvalidNextTokenException", "The NextToken value is not valid.")
		}
		list = list[i+1:]
	}
	if len(list) > limit {
		list = list[:limit]
		next = base64.StdEncoding.EncodeToString([]byte(list[limit-1].Name))
	}
	return list, next, nil
}

type listInput struct {
	Filters                []filter
	IncludePlannedDeletion bool
	MaxResults             *int
	NextToken, SortOrder   string
}

type entry struct {
	ARN, Name, Description, KmsKeyId string
	CreatedDate, LastChangedDate     time.Time
	DeletedDate                      *time.Time
	Tags                             []tag
	SecretVersionsToStages           map[string][]string
}

type listOutput struct {
	SecretList []entry `wire:",always"`
	NextToken  string
}

func (s *service) list(ctx context.Context, c *wire.Call, in *listInput) (*listOutput, error) {
	all, err := s.all(ctx, c, in.Filters, in.IncludePlannedDeletion)
	if err != nil {
		return nil, err
	}
	if in.SortOrder == "desc" {
		slices.Reverse(all)
	}
	part, next, err := page(all, in.NextToken, in.MaxResults, 100)
	if err != nil {
		return nil, err
	}
	out := &listOutput{SecretList: []entry{}, NextToken: next}
	for _, one := range part {
		d := describedOf(c, one)
		out.SecretList = append(out.SecretList, entry{d.ARN, d.Name, d.Description, d.KmsKeyId, d.CreatedDate, d.LastChangedDate, d.DeletedDate, d.Tags, one.stages()})
	}
	return out, nil
}

type versionsInput struct {
	SecretId          string
	IncludeDeprecated bool
}

type versionEntry struct {
	VersionId     string
	VersionStages []string
	CreatedDate   time.Time
}

type versionsOutput struct {
	ARN, Name string
	Versions  []versionEntry `wire:",always"`
}

func (s *service) versions(ctx context.Context, c *wire.Call, in *versionsInput) (*versionsOutput, error) {
	one, err := s.find(ctx, c, in.SecretId)
	if err != nil {
		return nil, err
	}
	out := &versionsOutput{ARN: arnOf(c, one), Name: one.Name, Versions: []versionEntry{}}
	for _, v := range one.Versions {
		if len(v.Stages) > 0 || in.IncludeDeprecated {
			out.Versions = append(out.Versions, versionEntry{v.ID, v.Stages, v.At})
		}
	}
	return out, nil
}

type policyOutput struct{ ARN, Name, ResourcePolicy string }

func (s *service) policy(ctx context.Context, c *wire.Call, in *idInput) (*policyOutput, error) {
	one, err := s.find(ctx, c, in.SecretId)
	if err != nil {
		return nil, err
	}
	return &policyOutput{arnOf(c, one), one.Name, one.Policy}, nil
}

type passwordInput struct {
	PasswordLength                                                                       *int64
	ExcludeCharacters                                                                    string
	ExcludeNumbers, ExcludePunctuation, ExcludeUppercase, ExcludeLowercase, IncludeSpace bool
	RequireEachIncludedType                                                              *bool
}

type passwordOutput struct{ RandomPassword string }

func (s *service) password(_ context.Context, _ *wire.Call, in *passwordInput) (*passwordOutput, error) {
	text, err := Password{
		Length: in.PasswordLength, Exclude: in.ExcludeCharacters, NoNumbers: in.ExcludeNumbers, NoPunctuation: in.ExcludePunctuation, NoUpper: in.ExcludeUppercase,
		NoLower: in.ExcludeLowercase, Space: in.IncludeSpace, Each: in.RequireEachIncludedType,
	}.Make()
	return &passwordOutput{text}, err
}

// Password says which random text is wanted: Secrets Manager API, "GetRandomPassword".
type Password struct {
	Length                                            *int64 // nil means 32
	Exclude                                           string
	NoNumbers, NoPunctuation, NoUpper, NoLower, Space bool
	Each                                              *bool // one of each kind at least; nil means so
}

// Make makes one.
func (p Password) Make() (string, error) {
	var kinds []string
	for _, k := range []struct {
		left  bool
		chars string
	}{
		{p.NoLower, "abcdefghijklmnopqrstuvwxyz"}, {p.NoUpper, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}, {p.NoNumbers, "0123456789"},
		{p.NoPunctuation, "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"}, {!p.Space, " "},
	} {
		chars := strings.Map(func(r rune) rune {
			if strings.ContainsRune(p.Exclude, r) {
				return -1
			}
			return r
		}, k.chars)
		if !k.left && chars != "" {
			kinds = append(kinds, chars)
		}
	}
	n := int64(32)
	if p.Length != nil {
		n = *p.Length
	}
	all := strings.Join(kinds, "")
	if all == "" || n < 1 || n > 4096 || n < int64(len(kinds)) {
		return "", invalid("A password of %d characters cannot be made of what is included.", n)
	}
	out := make([]byte, n)
	for i := range out {
		from := all
		if i < len(kinds) && (p.Each == nil || *p.Each) {
			from = kinds[i]
		}
		out[i] = from[below(len(from))]
	}
	for i := len(out) - 1; i > 0; i-- {
		j := below(i + 1)
		out[i], out[j] = out[j], out[i]
	}
	return string(out), nil
}

func below(n int) int {
	v, _ := rand.Int(rand.Reader, big.NewInt(int64(n))) // never fails; see crypto/rand
	return int(v.Int64())
}
