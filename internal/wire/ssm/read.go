package ssm

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/wire"
)

type parameter struct {
	Name, Type, Value, Selector, ARN, DataType string
	Version                                    int64
	LastModifiedDate                           time.Time
}

func isMissing(err error) bool {
	var e *wire.Error
	return errors.As(err, &e) && (e.Code == "ParameterNotFound" || e.Code == "ParameterVersionNotFound")
}

// shown is a version as clients read it.
func shown(c *wire.Call, p *Parameter, v *Version, selector string, open bool) parameter {
	out := parameter{Name: p.Name, Type: v.Type, Value: v.shown(p.Name, open), ARN: arnOf(c, p.Name), DataType: v.DataType, Version: v.N, LastModifiedDate: v.At}
	if selector != "" {
		out.Selector = ":" + selector
	}
	return out
}

// shown is the value, or in place of one that is to stay closed a text that says nothing of it but that it has not changed.
func (v *Version) shown(name string, open bool) string {
	if open || v.Type != "SecureString" {
		return v.Value
	}
	sum := sha256.Sum256([]byte(name + "\n" + strconv.FormatInt(v.N, 10) + "\n" + v.At.Format(time.RFC3339Nano)))
	more := sha256.Sum256(sum[:])
	return "AQICAH" + base64.StdEncoding.EncodeToString(append(sum[:], more[:]...))
}

type getInput struct {
	Name           string
	WithDecryption bool
}

type getOutput struct{ Parameter *parameter }

func (s *service) get(ctx context.Context, c *wire.Call, in *getInput) (*getOutput, error) {
	p, err := s.one(ctx, c, in.Name, in.WithDecryption)
	if err != nil {
		return nil, err
	}
	return &getOutput{p}, nil
}

// one gives what a name stands for.
func (s *service) one(ctx context.Context, c *wire.Call, given string, open bool) (*parameter, error) {
	if id, ok := strings.CutPrefix(given, referred); ok && s.secret != nil {
		if !open {
			return nil, wire.Errorf("ValidationException", "WithDecryption flag must be True for retrieving a Secret Manager secret.")
		}
		value, err := s.secret(ctx, c, id)
		if err != nil {
			return nil, missing()
		}
		return &parameter{Name: given, Type: "SecureString", Value: value, ARN: arnOf(c, given), DataType: "text", LastModifiedDate: c.Now}, nil
	}
	name, selector := s.plainName(ctx, c, given)
	p, err := s.find(ctx, c, name)
	if err != nil {
		return nil, err
	}
	v := p.version(selector)
	if v == nil {
		what := "version"
		if _, err := strconv.Atoi(selector); err != nil {
			what = "label"
		}
		return nil, wire.Errorf("ParameterVersionNotFound", "Systems Manager could not find %s %s of %s. Verify the %s and try again.", what, selector, name, what)
	}
	out := shown(c, p, v, selector, open)
	return &out, nil
}

type getSeveralInput struct {
	Names          []string
	WithDecryption bool
}

type getSeveralOutput struct {
	Parameters        []parameter `wire:",always"`
	InvalidParameters []string    `wire:",always"`
}

func (s *service) getSeveral(ctx context.Context, c *wire.Call, in *getSeveralInput) (*getSeveralOutput, error) {
	out := &getSeveralOutput{Parameters: []parameter{}, InvalidParameters: []string{}}
	for _, name := range slices.Compact(slices.Sorted(slices.Values(in.Names))) {
		p, err := s.one(ctx, c, name, in.WithDecryption)
		switch {
		case err == nil:
			out.Parameters = append(out.Parameters, *p)
		case isMissing(err):
			out.InvalidParameters = append(out.InvalidParameters, name)
		default:
			return nil, err
		}
	}
	return out, nil
}

// page gives the part of a sorted list that a request asks for. A token is the name of the last one before.
func page[T any](list []T, name func(T) string, token string, most *int, limit int) (part []T, next string, err error) {
	if most != nil {
		limit = min(*most, limit)
	}
	if token != "" {
		after, err := base64.StdEncoding.DecodeString(token)
		if err != nil {
			return nil, "", wire.Errorf("InvalidNextToken", "The specified token is not valid.")
		}
		i, found := slices.BinarySearchFunc(list, string(after), func(one T, after string) int { return strings.Compare(name(one), after) })
		if found {
			i++
		}
		list = list[i:]
	}
	if len(list) > limit {
		list = list[:limit]
		next = base64.StdEncoding.EncodeToString([]byte(name(list[limit-1])))
	}
	return list, next, nil
}

func nameOf(p *Parameter) string { return p.Name }

type filterInput struct {
	Key, Option string
	Values      []string
}

type byPathInput struct {
	Path, NextToken           string
	Recursive, WithDecryption bool
	MaxResults                *int
	ParameterFilters          []filterInput
}

type byPathOutput struct {
	Parameters []parameter `wire:",always"`
	NextToken  string
}

func (s *service) getByPath(ctx context.Context, c *wire.Call, in *byPathInput) (*byPathOutput, error) {
	if !strings.HasPrefix(in.Path, "/") {
		return nil, wire.Errorf("ValidationException", `The parameter doesn't meet the parameter name requirements. The parameter name must begin with a forward slash "/". It can't be prefixed with "aws" or "ssm" (case-insensitive). It must use only letters, numbers, or the following symbols: . (period), - (hyphen), _ (underscore). Special characters are not allowed. All sub-paths, if specified, must use the forward slash symbol "/". Valid example: /get/parameters2-/by1./path0_.`)
	}
	all, err := s.all(ctx, c)
	if err != nil {
		return nil, err
	}
	label := ""
	for _, f := range in.ParameterFilters {
		switch {
		case f.Key == "Label" && len(f.Values) == 1:
			label = f.Values[0]
		case f.Key != "Type" && f.Key != "KeyId":
			return nil, wire.Errorf("InvalidFilterKey", "The following filter key is not valid: %s. Valid filter keys include: [Type, KeyId, Label].", f.Key)
		}
	}
	all = slices.DeleteFunc(all, func(p *Parameter) bool {
		if !below(p.Name, in.Path, in.Recursive) || p.version(label) == nil {
			return true
		}
		return slices.ContainsFunc(in.ParameterFilters, func(f filterInput) bool { return f.Key != "Label" && !f.takes(p) })
	})
	part, next, err := page(all, nameOf, in.NextToken, in.MaxResults, 10)
	if err != nil {
		return nil, err
	}
	out := &byPathOutput{Parameters: []parameter{}, NextToken: next}
	for _, p := range part {
		out.Parameters = append(out.Parameters, shown(c, p, p.version(label), label, in.WithDecryption))
	}
	return out, nil
}

// below says whether a name is in a path.
func below(name, path string, recursive bool) bool {
	rest, ok := strings.CutPrefix(name, strings.TrimSuffix(path, "/")+"/")
	if path == "/" && !strings.HasPrefix(name, "/") {
		rest, ok = name, true
	}
	return ok && (recursive || !strings.Contains(rest, "/"))
}

// takes says whether a filter lets a parameter through: Systems Manager API, "ParameterStringFilter".
func (f *filterInput) takes(p *Parameter) bool {
	v := p.last()
	var have []string
	key, tagged := strings.CutPrefix(f.Key, "tag:")
	switch {
	case tagged:
		value, ok := p.Tags[key]
		if !ok || len(f.Values) == 0 {
			return ok
		}
		have = []string{value}
	case f.Key == "Name":
		have = []string{p.Name}
	case f.Key == "Path":
		return slices.ContainsFunc(f.Values, func(path string) bool { return below(p.Name, path, f.Option == "Recursive") })
	case f.Key == "Label":
		for _, v := range p.Versions {
			have = append(have, v.Labels...)
		}
	default:
		have = []string{map[string]string{"Type": v.Type, "KeyId": v.KeyID, "Tier": v.Tier, "DataType": v.DataType}[f.Key]}
	}
	return slices.ContainsFunc(have, func(one string) bool {
		return slices.ContainsFunc(f.Values, func(want string) bool {
			switch f.Option {
			case "BeginsWith":
				return strings.HasPrefix(strings.TrimPrefix(one, "/"), strings.TrimPrefix(want, "/"))
			case "Contains":
				return strings.Contains(one, want)
			}
			return one == want
		})
	})
}

var filterKeys = []string{"Name", "Type", "KeyId", "Path", "Label", "Tier", "DataType"} // never written

type oldFilter struct {
	Key    string
	Values []string
}

type describeInput struct {
	Filters          []oldFilter
	ParameterFilters []filterInput
	MaxResults       *int
	NextToken        string
}

type policy struct{ PolicyText, PolicyType, PolicyStatus string }

type metadata struct {
	Name, ARN, Type, KeyId, LastModifiedUser, Description, AllowedPattern, Tier, DataType string
	LastModifiedDate                                                                      time.Time
	Version                                                                               int64
	Policies                                                                              []policy `wire:",always"`
}

type describeOutput struct {
	Parameters []metadata `wire:",always"`
	NextToken  string
}

func (s *service) describe(ctx context.Context, c *wire.Call, in *describeInput) (*describeOutput, error) {
	filters := in.ParameterFilters
	for _, f := range in.Filters { // the older form
		filters = append(filters, filterInput{Key: f.Key, Option: map[bool]string{true: "BeginsWith"}[f.Key == "Name"], Values: f.Values})
	}
	for _, f := range filters {
		if !slices.Contains(filterKeys, f.Key) && !strings.HasPrefix(f.Key, "tag:") {
			return nil, wire.Errorf("InvalidFilterKey", "The following filter key is not valid: %s. Valid filter keys include: [%s, tag:].", f.Key, strings.Join(filterKeys, ", "))
		}
	}
	all, err := s.all(ctx, c)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(p *Parameter) bool {
		return slices.ContainsFunc(filters, func(f filterInput) bool { return !f.takes(p) })
	})
	part, next, err := page(all, nameOf, in.NextToken, in.MaxResults, 50)
	if err != nil {
		return nil, err
	}
	out := &describeOutput{Parameters: []metadata{}, NextToken: next}
	for _, p := range part {
		v := p.last()
		out.Parameters = append(out.Parameters, metadata{
			Name: p.Name, ARN: arnOf(c, p.Name), Type: v.Type, KeyId: v.KeyID, LastModifiedUser: v.By, Description: v.Text, AllowedPattern: v.Pattern, Tier: v.Tier,
			DataType: v.DataType, LastModifiedDate: v.At, Version: v.N, Policies: []policy{},
		})
	}
	return out, nil
}

type historyInput struct {
	Name, NextToken string
	WithDecryption  bool
	MaxResults      *int
}

type past struct {
	Name, Type, KeyId, LastModifiedUser, Description, Value, AllowedPattern, Tier, DataType string
	LastModifiedDate                                                                        time.Time
	Version                                                                                 int64
	Labels                                                                                  []string `wire:",always"`
	Policies                                                                                []policy `wire:",always"`
}

type historyOutput struct {
	Parameters []past `wire:",always"`
	NextToken  string
}

func (s *service) history(ctx context.Context, c *wire.Call, in *historyInput) (*historyOutput, error) {
	name, _ := s.plainName(ctx, c, in.Name)
	p, err := s.find(ctx, c, name)
	if err != nil {
		return nil, err
	}
	sortable := func(v Version) string { return strconv.FormatInt(v.N+1<<40, 10) } // all of one length
	part, next, err := page(p.Versions, sortable, in.NextToken, in.MaxResults, 50)
	if err != nil {
		return nil, err
	}
	out := &historyOutput{Parameters: []past{}, NextToken: next}
	for i := range part {
		v := &part[i]
		one := past{
			Name: p.Name, Type: v.Type, KeyId: v.KeyID, LastModifiedUser: v.By, Description: v.Text, Value: v.shown(p.Name, in.WithDecryption), AllowedPattern: v.Pattern,
			Tier: v.Tier, DataType: v.DataType, LastModifiedDate: v.At, Version: v.N, Labels: v.Labels, Policies: []policy{},
		}
		if one.Labels == nil {
			one.Labels = []string{}
		}
		out.Parameters = append(out.Parameters, one)
	}
	return out, nil
}

type tagsInput struct{ ResourceType, ResourceId string }

type tagsOutput struct {
	TagList []tag `wire:",always"`
}

func (s *service) tags(ctx context.Context, c *wire.Call, in *tagsInput) (*tagsOutput, error) {
	if err := ofParameters(in.ResourceType); err != nil {
		return nil, err
	}
	name, _ := s.plainName(ctx, c, in.ResourceId)
	p, err := s.find(ctx, c, name)
	if isMissing(err) {
		return nil, noResource(in.ResourceId)
	}
	if err != nil {
		return nil, err
	}
	out := &tagsOutput{TagList: []tag{}}
	for _, k := range slices.Sorted(maps.Keys(p.Tags)) {
		out.TagList = append(out.TagList, tag{k, p.Tags[k]})
	}
	return out, nil
}
