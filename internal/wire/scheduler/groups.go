package scheduler

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/arn"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/wire"
)

// group is a group of schedules, as it is kept.
type group struct {
	Name    string            `json:"name"`
	Created time.Time         `json:"created"`
	Changed time.Time         `json:"changed"`
	Tags    map[string]string `json:"tags,omitempty"`
	Made    string            `json:"made,omitempty"` // as a Schedule's
}

func groupARN(c *wire.Call, name string) string {
	return arn.New("scheduler", c.Region, c.Caller.Account, "schedule-group/"+name).String()
}

// group reads a group, of which the default one is always there.
func (s *service) group(ctx context.Context, c *wire.Call, name string) (*group, uint64, error) {
	g := &group{}
	seq, ok, err := s.read(ctx, c, KindGroup, name, g)
	switch {
	case err != nil || ok:
		return g, seq, err
	case name == DefaultGroup:
		return &group{Name: DefaultGroup}, 0, nil
	}
	return nil, 0, notThere("Schedule group %s does not exist.", name)
}

func (s *service) stands(ctx context.Context, c *wire.Call, name string) error {
	_, _, err := s.group(ctx, c, name)
	return err
}

type tag struct{ Key, Value string }

type createGroupInput struct {
	Name, ClientToken string
	Tags              []tag
}

func (s *service) createGroup(ctx context.Context, c *wire.Call, in *createGroupInput) (*struct{ ScheduleGroupArn string }, error) {
	if err := named("name", in.Name); err != nil {
		return nil, err
	}
	if in.Name == DefaultGroup {
		return nil, conflict("Schedule group %s already exists.", in.Name)
	}
	g := group{Name: in.Name, Created: c.Now.UTC(), Changed: c.Now.UTC(), Made: c.Caller.Maker()}
	g.tag(in.Tags)
	_, err := s.write(ctx, c, KindGroup, in.Name, g, 0)
	if errs.CodeOf(err) == errs.Conflict {
		return nil, conflict("Schedule group %s already exists.", in.Name)
	}
	return &struct{ ScheduleGroupArn string }{groupARN(c, in.Name)}, err
}

func (g *group) tag(list []tag) {
	if g.Tags == nil {
		g.Tags = map[string]string{}
	}
	for _, t := range list {
		g.Tags[t.Key] = t.Value
	}
}

type groupInfo struct {
	Arn, Name, State                   string
	CreationDate, LastModificationDate *time.Time
}

func (g *group) info(c *wire.Call) groupInfo {
	out := groupInfo{Arn: groupARN(c, g.Name), Name: g.Name, State: "ACTIVE"}
	if !g.Created.IsZero() {
		out.CreationDate, out.LastModificationDate = &g.Created, &g.Changed
	}
	return out
}

func (s *service) getGroup(ctx context.Context, c *wire.Call, in *struct{ Name string }) (*groupInfo, error) {
	g, _, err := s.group(ctx, c, in.Name)
	if err != nil {
		return nil, err
	}
	out := g.info(c)
	return &out, nil
}

type listGroupsInput struct {
	NamePrefix, NextToken string
	MaxResults            int
}

type listGroupsOutput struct {
	NextToken      string
	ScheduleGroups []groupInfo `wire:",always"`
}

func (s *service) listGroups(ctx context.Context, c *wire.Call, in *listGroupsInput) (*listGroupsOutput, error) {
	notes, err := s.node.Notes(ctx, c.Caller.Tenant, KindGroup)
	if err != nil {
		return nil, err
	}
	list := []group{{Name: DefaultGroup}}
	for _, n := range notes {
		var g group
		if err := json.Unmarshal(n.Data, &g); err != nil {
			return nil, err
		}
		if g.Name == DefaultGroup { // its tags
			list = list[1:]
		}
		list = append(list, g)
	}
	list = slices.DeleteFunc(list, func(g group) bool { return !strings.HasPrefix(g.Name, in.NamePrefix) })
	slices.SortFunc(list, func(a, b group) int { return strings.Compare(a.Name, b.Name) })
	list, next, err := page(list, func(g group) string { return g.Name }, in.MaxResults, in.NextToken)
	out := &listGroupsOutput{NextToken: next, ScheduleGroups: []groupInfo{}}
	for i := range list {
		out.ScheduleGroups = append(out.ScheduleGroups, list[i].info(c))
	}
	return out, err
}

func (s *service) deleteGroup(ctx context.Context, c *wire.Call, in *struct{ Name string }) (*struct{}, error) {
	if in.Name == DefaultGroup {
		return nil, invalid("The default schedule group cannot be deleted.")
	}
	s.change.Lock()
	defer s.change.Unlock()
	if err := s.stands(ctx, c, in.Name); err != nil {
		return nil, err
	}
	list, err := s.all(ctx, c)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].Group != in.Name {
			continue
		}
		if err := s.drop(ctx, c, &list[i]); err != nil {
			return nil, err
		}
	}
	return nil, s.node.DeleteNote(ctx, c.Caller.Tenant, KindGroup, in.Name)
}

// changeGroup changes the group that an ARN names.
func (s *service) changeGroup(ctx context.Context, c *wire.Call, text string, change func(g *group) bool) error {
	a, err := arn.Parse(text)
	name, ok := strings.CutPrefix(a.Resource, "schedule-group/")
	if err != nil || a.Service != "scheduler" || !ok {
		return invalid("Provided Arn is not in correct format.")
	}
	s.change.Lock()
	defer s.change.Unlock()
	g, seq, err := s.group(ctx, c, name)
	if err != nil {
		return err
	}
	if !change(g) {
		return nil
	}
	_, err = s.write(ctx, c, KindGroup, name, g, seq)
	return err
}

func (s *service) tagResource(ctx context.Context, c *wire.Call, in *struct {
	ResourceArn string
	Tags        []tag
}) (*struct{}, error) {
	return nil, s.changeGroup(ctx, c, in.ResourceArn, func(g *group) bool {
		g.tag(in.Tags)
		return true
	})
}

func (s *service) untagResource(ctx context.Context, c *wire.Call, in *struct {
	ResourceArn string
	TagKeys     []string
}) (*struct{}, error) {
	return nil, s.changeGroup(ctx, c, in.ResourceArn, func(g *group) bool {
		for _, k := range in.TagKeys {
			delete(g.Tags, k)
		}
		return true
	})
}

func (s *service) listTags(ctx context.Context, c *wire.Call, in *struct{ ResourceArn string }) (*struct {
	Tags []tag `wire:",always"`
}, error) {
	out := &struct {
		Tags []tag `wire:",always"`
	}{Tags: []tag{}}
	err := s.changeGroup(ctx, c, in.ResourceArn, func(g *group) bool {
		for k, v := range g.Tags {
			out.Tags = append(out.Tags, tag{k, v})
		}
		return false
	})
	slices.SortFunc(out.Tags, func(a, b tag) int { return strings.Compare(a.Key, b.Key) })
	return out, err
}
