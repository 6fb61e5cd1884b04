package ssm

import (
	"context"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/wire"
)

const (
	standard, advanced = "Standard", "Advanced"
	// maxStandard and maxAdvanced bound values, in characters: User Guide, "Managing parameter tiers".
	maxStandard, maxAdvanced = 4096, 8192
	// maxVersions is how many are kept: "Working with parameter versions".
	maxVersions = 100
	// maxLevels is of a hierarchy; maxLabels of a version.
	maxLevels, maxLabels = 15, 10
)

var nameRE = regexp.MustCompile(`^(/[a-zA-Z0-9_.-]+)+$|^[a-zA-Z0-9_.-]+$`)

// checkName refuses names that AWS refuses.
func checkName(name string) error {
	lower := strings.ToLower(strings.TrimPrefix(name, "/"))
	switch {
	case strings.HasPrefix(lower, "aws"):
		return wire.Errorf("AccessDeniedException", "No access to reserved parameter name: %s.", name)
	case strings.HasPrefix(lower, "ssm"):
		return wire.Errorf("ValidationException", `Parameter name: can't be prefixed with "ssm" (case-insensitive).`)
	case strings.Contains(name, "/") && !strings.HasPrefix(name, "/"):
		return wire.Errorf("ValidationException", "Parameter name must be a fully qualified name.")
	case !nameRE.MatchString(name):
		return wire.Errorf("ValidationException", "Parameter name: can't be prefixed with \"aws\" or \"ssm\" (case-insensitive). If formed as a path, it can consist of sub-paths divided by slash symbol; each sub-path can be formed as a mix of letters, numbers and the following 3 symbols .-_")
	case strings.Count(name, "/") > maxLevels:
		return wire.Errorf("HierarchyLevelLimitExceededException", "The hierarchy depth of the provided parameter name exceeds the limit of %d levels.", maxLevels)
	case len(name) > 1011:
		return wire.Errorf("ValidationException", "Parameter name is too long.")
	}
	return nil
}

type tag struct {
	Key, Value string `wire:",always"`
}

type putInput struct {
	Name, Value, Type, Description, KeyId, AllowedPattern, Tier, Policies, DataType string
	Overwrite                                                                       bool
	Tags                                                                            []tag
}

type putOutput struct {
	Version int64
	Tier    string
}

func (s *service) put(ctx context.Context, c *wire.Call, in *putInput) (*putOutput, error) {
	name, selector := s.plainName(ctx, c, in.Name)
	if selector != "" {
		return nil, wire.Errorf("ValidationException", "Parameter name can't contain a version or a label.")
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	if in.Overwrite && len(in.Tags) > 0 {
		return nil, wire.Errorf("ValidationException", "Invalid request: tags and overwrite can't be used together. To create a parameter with tags, please remove overwrite flag. To update tags for an existing parameter, please use AddTagsToResource or RemoveTagsFromResource.")
	}
	out := &putOutput{}
	err := s.Change(ctx, c.Caller.Tenant, name, func(old *Parameter) (*Parameter, error) {
		p, err := in.next(c, name, old)
		if err == nil {
			out.Version, out.Tier = p.last().N, p.last().Tier
		}
		return p, err
	})
	return out, err
}

// next is the parameter with the version that a request asks for.
func (in *putInput) next(c *wire.Call, name string, old *Parameter) (*Parameter, error) {
	v := Version{N: 1, Type: in.Type, Value: in.Value, Text: in.Description, Pattern: in.AllowedPattern, KeyID: in.KeyId, Tier: in.Tier, DataType: in.DataType, Policies: in.Policies, At: c.Now, By: c.Caller.ARN}
	p := &Parameter{Name: name, App: c.Caller.App, Tags: map[string]string{}}
	for _, t := range in.Tags {
		p.Tags[t.Key] = t.Value
	}
	if old != nil {
		if err := reaches(c, old); err != nil {
			return nil, err
		}
		if !in.Overwrite {
			return nil, wire.Errorf("ParameterAlreadyExists", "The parameter already exists. To overwrite this value, set the overwrite option in the request to true.")
		}
		p = old
		v.follow(old.last())
	}
	if err := v.check(); err != nil {
		return nil, err
	}
	if v.Type != "SecureString" {
		v.KeyID = ""
	} else if v.KeyID == "" {
		v.KeyID = "alias/aws/ssm"
	}
	if old != nil && old.last().Type != v.Type {
		return nil, wire.Errorf("HierarchyTypeMismatchException", "Parameter store does not support changing a parameter type in a hierarchy. For example, you can't change a parameter from a String type to a SecureString type.")
	}
	return p, p.add(v)
}

// follow takes over what a new version does not say.
func (v *Version) follow(last *Version) {
	v.N = last.N + 1
	for _, one := range []struct{ to, from *string }{
		{&v.Type, &last.Type}, {&v.Text, &last.Text}, {&v.Pattern, &last.Pattern}, {&v.KeyID, &last.KeyID}, {&v.DataType, &last.DataType},
	} {
		if *one.to == "" {
			*one.to = *one.from
		}
	}
	if v.Tier == "" || last.Tier == advanced {
		v.Tier = last.Tier
	}
}

// check refuses values that AWS refuses, and settles what is not said.
func (v *Version) check() error {
	if v.Type == "" {
		return wire.Errorf("ValidationException", "A parameter type is required when you create a parameter.")
	}
	if v.DataType == "" {
		v.DataType = "text"
	}
	size := len([]rune(v.Value))
	switch v.Tier {
	case "":
		v.Tier = standard
	case "Intelligent-Tiering":
		if v.Tier = standard; size > maxStandard || v.Policies != "" {
			v.Tier = advanced
		}
	}
	switch {
	case v.Value == "":
		return wire.Errorf("ValidationException", "1 validation error detected: Value '' at 'value' failed to satisfy constraint: Member must have length greater than or equal to 1.")
	case v.Tier == standard && size > maxStandard:
		return wire.Errorf("ValidationException", "Standard tier parameters support a maximum parameter value of %d characters. To create a larger parameter value, upgrade the parameter to use the advanced-parameter tier.", maxStandard)
	case size > maxAdvanced:
		return wire.Errorf("ValidationException", "Advanced tier parameters support a maximum parameter value of %d characters.", maxAdvanced)
	case v.Type == "StringList" && slices.Contains(strings.Split(v.Value, ","), ""):
		return wire.Errorf("ValidationException", "StringList parameter values can't have empty items.")
	}
	if v.Pattern == "" {
		return nil
	}
	re, err := regexp.Compile("^(?:" + v.Pattern + ")$")
	if err != nil {
		return wire.Errorf("InvalidAllowedPatternException", "The request does not meet the regular expression requirement.")
	}
	for _, one := range v.items() {
		if !re.MatchString(one) {
			return wire.Errorf("ParameterPatternMismatchException", "Parameter value, cannot be validated against allowedPattern: %s", v.Pattern)
		}
	}
	return nil
}

// Add adds a version that says what it is to be, checked and settled as PutParameter does it.
func (p *Parameter) Add(v Version) error {
	if err := checkName(p.Name); err != nil {
		return err
	}
	v.N = 1
	if len(p.Versions) > 0 {
		v.follow(p.last())
	}
	if err := v.check(); err != nil {
		return err
	}
	return p.add(v)
}

// items are what a pattern must match.
func (v *Version) items() []string {
	if v.Type == "StringList" {
		return strings.Split(v.Value, ",")
	}
	return []string{v.Value}
}

// add adds a version; the oldest goes where there are too many.
func (p *Parameter) add(v Version) error {
	if len(p.Versions) >= maxVersions {
		if len(p.Versions[0].Labels) > 0 {
			return wire.Errorf("ParameterMaxVersionLimitExceeded", "You attempted to create a new version of %s by calling the PutParameter API with the overwrite flag. Version %d, the oldest version, can't be deleted because it has a label associated with it. Move the label to another version of the parameter, and try again.", p.Name, p.Versions[0].N)
		}
		p.Versions = slices.Delete(p.Versions, 0, 1)
	}
	p.Versions = append(p.Versions, v)
	return nil
}

type nameInput struct{ Name string }

func (s *service) remove(ctx context.Context, c *wire.Call, in *nameInput) (*struct{}, error) {
	name, _ := s.plainName(ctx, c, in.Name)
	return nil, s.delete(ctx, c, name)
}

func (s *service) delete(ctx context.Context, c *wire.Call, name string) error {
	for {
		p, err := s.find(ctx, c, name)
		if err != nil {
			return err
		}
		if err := s.Store.Delete(ctx, c.Caller.Tenant, name, p.seq); errs.CodeOf(err) != errs.Conflict {
			return err
		}
	}
}

type namesInput struct{ Names []string }

type removedOutput struct {
	DeletedParameters []string `wire:",always"`
	InvalidParameters []string `wire:",always"`
}

func (s *service) removeSeveral(ctx context.Context, c *wire.Call, in *namesInput) (*removedOutput, error) {
	out := &removedOutput{DeletedParameters: []string{}, InvalidParameters: []string{}}
	for _, given := range in.Names {
		name, _ := s.plainName(ctx, c, given)
		switch err := s.delete(ctx, c, name); {
		case err == nil:
			out.DeletedParameters = append(out.DeletedParameters, given)
		case isMissing(err):
			out.InvalidParameters = append(out.InvalidParameters, given)
		default:
			return nil, err
		}
	}
	return out, nil
}

type labelInput struct {
	Name             string
	ParameterVersion *int64
	Labels           []string
}

type labelOutput struct {
	InvalidLabels    []string `wire:",always"`
	ParameterVersion int64
}

var (
	labelRE    = regexp.MustCompile(`^[a-zA-Z_.-][a-zA-Z0-9_.-]{0,99}$`)
	reservedRE = regexp.MustCompile(`(?i)^(aws|ssm)`)
)

func (s *service) label(ctx context.Context, c *wire.Call, in *labelInput) (*labelOutput, error) {
	name, _ := s.plainName(ctx, c, in.Name)
	out := &labelOutput{InvalidLabels: []string{}}
	err := s.Change(ctx, c.Caller.Tenant, name, func(p *Parameter) (*Parameter, error) {
		out.InvalidLabels = []string{}
		if p == nil {
			return nil, missing()
		}
		if err := reaches(c, p); err != nil {
			return nil, err
		}
		v := p.last()
		if in.ParameterVersion != nil {
			i := slices.IndexFunc(p.Versions, func(v Version) bool { return v.N == *in.ParameterVersion })
			if i < 0 {
				return nil, wire.Errorf("ParameterVersionNotFound", "Systems Manager could not find version %d of %s. Verify the version and try again.", *in.ParameterVersion, name)
			}
			v = &p.Versions[i]
		}
		out.ParameterVersion = v.N
		var good []string
		for _, l := range in.Labels {
			if labelRE.MatchString(l) && !reservedRE.MatchString(l) {
				good = append(good, l)
			} else {
				out.InvalidLabels = append(out.InvalidLabels, l)
			}
		}
		for i := range p.Versions { // a label is of one version
			p.Versions[i].Labels = slices.DeleteFunc(p.Versions[i].Labels, func(l string) bool { return slices.Contains(good, l) })
		}
		v.Labels = append(v.Labels, good...)
		if len(v.Labels) > maxLabels {
			return nil, wire.Errorf("ParameterVersionLabelLimitExceeded", "A parameter version can have maximum %d labels. Move one or more labels to another version and try again.", maxLabels)
		}
		return p, nil
	})
	return out, err
}

type tagInput struct {
	ResourceType, ResourceId string
	Tags                     []tag
}

// changeTags lets f change the tags of what a request names.
func (s *service) changeTags(ctx context.Context, c *wire.Call, kind, id string, f func(map[string]string)) error {
	if err := ofParameters(kind); err != nil {
		return err
	}
	name, _ := s.plainName(ctx, c, id)
	return s.Change(ctx, c.Caller.Tenant, name, func(p *Parameter) (*Parameter, error) {
		if p == nil {
			return nil, noResource(id)
		}
		if p.Tags == nil {
			p.Tags = map[string]string{}
		}
		f(p.Tags)
		return p, reaches(c, p)
	})
}

func ofParameters(kind string) error {
	if kind == "Parameter" {
		return nil
	}
	return wire.Errorf("InvalidResourceType", "ebb has no %s of Systems Manager", kind)
}

func noResource(id string) error {
	return wire.Errorf("InvalidResourceId", "The resource ID %q is not valid. Verify that you entered the correct ID and try again.", id).With(http.StatusBadRequest)
}

func (s *service) tag(ctx context.Context, c *wire.Call, in *tagInput) (*struct{}, error) {
	return nil, s.changeTags(ctx, c, in.ResourceType, in.ResourceId, func(tags map[string]string) {
		for _, t := range in.Tags {
			tags[t.Key] = t.Value
		}
	})
}

type untagInput struct {
	ResourceType, ResourceId string
	TagKeys                  []string
}

func (s *service) untag(ctx context.Context, c *wire.Call, in *untagInput) (*struct{}, error) {
	return nil, s.changeTags(ctx, c, in.ResourceType, in.ResourceId, func(tags map[string]string) {
		for _, k := range in.TagKeys {
			delete(tags, k)
		}
	})
}
