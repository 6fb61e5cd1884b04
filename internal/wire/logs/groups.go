package logs

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/telemetry"
	"github.com/ebb-run/ebb/internal/wire"
)

const (
	maxStreams = 1000 // of a group that clients made
	pageOfList = 50   // CloudWatch Logs API, DescribeLogGroups and DescribeLogStreams, "limit"
	eventHead  = 26   // bytes that are counted for an event beside its message: CloudWatch Logs API, PutLogEvents
)

// record is what clients made of a group.
type record struct {
	ID      string    `json:"id"` // of its events: another group of the name has another
	Name    string    `json:"name"`
	App     string    `json:"app,omitempty"` // whose it is; empty: every App's
	Created time.Time `json:"created"`
	Of      bool      `json:"of,omitempty"` // the App has the group anyway
	Days    *int      `json:"days,omitempty"`
	KeyID   string    `json:"keyId,omitempty"`
	Class   string    `json:"class,omitempty"`
	Streams []stream  `json:"streams,omitempty"`
}

type stream struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
}

// group is one as it is now.
type group struct {
	Group
	rec *record // or nil
	seq uint64
}

func (g *group) stream(name string) *stream {
	if g.rec != nil {
		for i := range g.rec.Streams {
			if g.rec.Streams[i].Name == name {
				return &g.rec.Streams[i]
			}
		}
	}
	return nil
}

// since is what events are told from.
func (g *group) since(now time.Time) time.Time {
	if g.Days == 0 {
		return time.Time{}
	}
	return now.AddDate(0, 0, -g.Days)
}

func groupARN(c *wire.Call, name string) string { return c.ARN("logs", "log-group:"+name) }

func noGroup() error {
	return wire.Errorf("ResourceNotFoundException", "The specified log group does not exist.")
}

func noStream() error {
	return wire.Errorf("ResourceNotFoundException", "The specified log stream does not exist.")
}

// join makes a group of what an App has and what clients made of it; neither may be there. What clients made of one of an App that is gone counts for
// nothing, and seq is then of what comes in its place.
func join(of *Group, rec *record, seq uint64) (group, bool) {
	switch {
	case rec != nil && of == nil && rec.Of, rec != nil && of != nil && rec.App != of.App && rec.App != "":
		rec = nil // of an App that is gone
	}
	out := group{rec: rec, seq: seq}
	switch {
	case of != nil:
		out.Group = *of
	case rec != nil:
		out.Group = Group{App: rec.App, Name: rec.Name, Created: rec.Created}
	default:
		return out, false
	}
	if rec != nil && rec.Days != nil {
		out.Days = *rec.Days
	}
	return out, true
}

// find gives a group that there is, whoever reaches it.
func (s *service) find(ctx context.Context, c *wire.Call, name string) (g group, there bool, err error) {
	list, err := s.Groups(ctx, "")
	if err != nil {
		return g, false, err
	}
	var of *Group
	if i := slices.IndexFunc(list, func(one Group) bool { return one.Name == name }); i >= 0 {
		of = &list[i]
	}
	data, seq, err := s.Store.Get(ctx, c.Caller.Tenant, name)
	if err != nil && errs.CodeOf(err) != errs.NotFound {
		return g, false, err
	}
	var rec *record
	if err == nil {
		if rec, err = read(data); err != nil {
			return g, false, err
		}
	}
	g, there = join(of, rec, seq)
	return g, there, nil
}

func read(data []byte) (*record, error) {
	rec := &record{}
	if err := json.Unmarshal(data, rec); err != nil || rec.ID == "" {
		return nil, errs.New(errs.Failed, "the record of a log group cannot be read")
	}
	return rec, nil
}

// group gives one that the caller reaches.
func (s *service) group(ctx context.Context, c *wire.Call, name string) (group, error) {
	g, there, err := s.find(ctx, c, name)
	switch {
	case err != nil:
		return g, err
	case !there:
		return g, noGroup()
	case c.Caller.App != "" && g.App != "" && g.App != c.Caller.App:
		return g, wire.Errorf("AccessDeniedException", "User: %s is not authorized to perform: logs:%s on resource: %s because no identity-based policy allows the logs:%s action",
			c.Caller.ARN, c.Operation, groupARN(c, name), c.Operation).With(http.StatusBadRequest)
	}
	return g, nil
}

// change lets f change what clients made of a group, again when others did meanwhile, and gives what it is then.
func (s *service) change(ctx context.Context, c *wire.Call, name string, f func(*group) error) (group, error) {
	for {
		g, err := s.group(ctx, c, name)
		if err != nil {
			return g, err
		}
		if g.rec == nil {
			g.rec = &record{ID: rand.Text(), Name: name, App: g.App, Created: c.Now.UTC(), Of: true}
		}
		if err := f(&g); err != nil {
			return g, err
		}
		data, err := json.Marshal(g.rec)
		if err != nil {
			return g, err
		}
		if err = s.Store.Put(ctx, c.Caller.Tenant, name, data, g.seq); errs.CodeOf(err) != errs.Conflict {
			return g, err
		}
	}
}

var groupName = regexp.MustCompile(`^[.\-_/#A-Za-z0-9]+$`)

type createGroupInput struct{ LogGroupName, KmsKeyId, LogGroupClass string } //nolint:revive // the member's name

func (s *service) createGroup(ctx context.Context, c *wire.Call, in *createGroupInput) (*none, error) {
	if !groupName.MatchString(in.LogGroupName) {
		return nil, invalid("1 validation error detected: Value '%s' at 'logGroupName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\.\\-_/#A-Za-z0-9]+", in.LogGroupName)
	}
	if strings.HasPrefix(strings.ToLower(in.LogGroupName), "aws/") {
		return nil, invalid("Log groups starting with AWS/ are reserved for AWS.")
	}
	g, there, err := s.find(ctx, c, in.LogGroupName)
	if err != nil {
		return nil, err
	}
	exists := wire.Errorf("ResourceAlreadyExistsException", "The specified log group already exists")
	if there {
		return nil, exists
	}
	data, err := json.Marshal(record{
		ID: rand.Text(), Name: in.LogGroupName, App: c.Caller.App, Created: c.Now.UTC(), KeyID: in.KmsKeyId, Class: in.LogGroupClass,
	})
	if err != nil {
		return nil, err
	}
	if err = s.Store.Put(ctx, c.Caller.Tenant, in.LogGroupName, data, g.seq); errs.CodeOf(err) == errs.Conflict {
		err = exists
	}
	return nil, err
}

type groupInput struct{ LogGroupName string }

func (s *service) deleteGroup(ctx context.Context, c *wire.Call, in *groupInput) (*none, error) {
	for {
		g, err := s.group(ctx, c, in.LogGroupName)
		switch {
		case err != nil:
			return nil, err
		case g.rec == nil || g.rec.Of:
			return nil, invalid("The log group %s is the app %s's, and goes when that is removed.", g.Name, g.App)
		}
		if err = s.Store.Delete(ctx, c.Caller.Tenant, g.Name, g.seq); errs.CodeOf(err) != errs.Conflict {
			return nil, err
		}
	}
}

type retainInput struct {
	LogGroupName    string
	RetentionInDays int
}

// days are what a retention may be: CloudWatch Logs API, PutRetentionPolicy.
var days = []int{1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653} // never written

func (s *service) retain(ctx context.Context, c *wire.Call, in *retainInput) (*none, error) {
	if !slices.Contains(days, in.RetentionInDays) {
		return nil, invalid("1 validation error detected: Value '%d' at 'retentionInDays' failed to satisfy constraint: Member must satisfy enum value set: %v", in.RetentionInDays, days)
	}
	_, err := s.change(ctx, c, in.LogGroupName, func(g *group) error { g.rec.Days = &in.RetentionInDays; return nil })
	return nil, err
}

func (s *service) forget(ctx context.Context, c *wire.Call, in *groupInput) (*none, error) {
	_, err := s.change(ctx, c, in.LogGroupName, func(g *group) error { g.rec.Days = new(int); return nil })
	return nil, err
}

type describeGroupsInput struct {
	LogGroupNamePrefix, LogGroupNamePattern, NextToken, LogGroupClass string
	Limit                                                             int
}

type groupOutput struct {
	LogGroupName, Arn, LogGroupArn, LogGroupClass, KmsKeyId string //nolint:revive // the members' names
	CreationTime                                            int64
	RetentionInDays                                         int
	MetricFilterCount                                       int   `wire:",always"`
	StoredBytes                                             int64 `wire:",always"`
}

type describeGroupsOutput struct {
	LogGroups []groupOutput `wire:",always"`
	NextToken string
}

func (s *service) describeGroups(ctx context.Context, c *wire.Call, in *describeGroupsInput) (*describeGroupsOutput, error) {
	if in.LogGroupNamePrefix != "" && in.LogGroupNamePattern != "" {
		return nil, invalid("LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.")
	}
	all, err := s.all(ctx, c)
	if err != nil {
		return nil, err
	}
	after, err := nameOf(in.NextToken)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(g group) bool {
		return g.Name <= after && after != "" || !strings.HasPrefix(g.Name, in.LogGroupNamePrefix) ||
			!strings.Contains(strings.ToLower(g.Name), strings.ToLower(in.LogGroupNamePattern)) || in.LogGroupClass != "" && g.class() != in.LogGroupClass
	})
	out := &describeGroupsOutput{LogGroups: []groupOutput{}}
	limit := cmp.Or(in.Limit, pageOfList)
	if len(all) > limit {
		all = all[:limit]
		out.NextToken = tokenOf(all[limit-1].Name)
	}
	sizes, err := s.sizes(ctx, c, len(all) > 0)
	if err != nil {
		return nil, err
	}
	for i := range all {
		g := &all[i]
		full := groupARN(c, g.Name)
		one := groupOutput{
			LogGroupName: g.Name, Arn: full + ":*", LogGroupArn: full, LogGroupClass: g.class(), CreationTime: g.Created.UnixMilli(), RetentionInDays: g.Days,
		}
		if g.Function != "" {
			one.StoredBytes = sizes[g.App+"/"+g.Function]
		}
		if g.rec != nil {
			one.KmsKeyId = g.rec.KeyID
			one.StoredBytes += sizes[g.rec.ID]
		}
		out.LogGroups = append(out.LogGroups, one)
	}
	return out, nil
}

func (g *group) class() string {
	if g.rec != nil && g.rec.Class != "" {
		return g.rec.Class
	}
	return "STANDARD"
}

// all gives the groups that the caller reaches, sorted by name.
func (s *service) all(ctx context.Context, c *wire.Call) (out []group, err error) {
	list, err := s.Groups(ctx, "")
	if err != nil {
		return nil, err
	}
	of := map[string]*Group{}
	for i := range list {
		of[list[i].Name] = &list[i]
	}
	add := func(of *Group, rec *record) {
		if g, there := join(of, rec, 0); there && (c.Caller.App == "" || g.App == "" || g.App == c.Caller.App) {
			out = append(out, g)
		}
	}
	err = s.Store.Each(ctx, c.Caller.Tenant, func(data []byte) error {
		rec, err := read(data)
		if err == nil {
			add(of[rec.Name], rec)
			delete(of, rec.Name)
		}
		return err
	})
	for _, one := range of {
		add(one, nil)
	}
	slices.SortFunc(out, func(a, b group) int { return strings.Compare(a.Name, b.Name) })
	return out, err
}

// sizes gives how many bytes the events of groups have, by App and Function, and by the IDs of records.
func (s *service) sizes(ctx context.Context, c *wire.Call, any bool) (map[string]int64, error) {
	out := map[string]int64{}
	if !any {
		return out, nil
	}
	q := telemetry.Query{Tenant: c.Caller.Tenant, App: c.Caller.App}
	err := s.Output.Walk(ctx, q, func(_ telemetry.Position, r telemetry.Record) error {
		out[r.App+"/"+r.Function] += int64(len(r.Text)) + eventHead
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, s.Events.Walk(ctx, telemetry.Query{Tenant: c.Caller.Tenant}, func(_ telemetry.Position, r telemetry.Record) error {
		out[r.Function] += int64(len(r.Text)) + eventHead
		return nil
	})
}

// tokenOf and nameOf write and read the token of a list that goes on behind a name.
func tokenOf(name string) string { return base64.RawURLEncoding.EncodeToString([]byte(name)) }

func nameOf(token string) (string, error) {
	name, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return "", badToken()
	}
	return string(name), nil
}

func badToken() error { return invalid("The specified nextToken is invalid.") }
