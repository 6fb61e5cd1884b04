package events

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/arn"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/wire"
)

// eventBus is an event bus that was made, as it is kept.
type eventBus struct {
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	Tags    tags      `json:"tags,omitempty"`
	Made    string    `json:"made,omitempty"` // as a Rule's
}

type tag struct{ Key, Value string }

type tags map[string]string

// maxTags of one resource: AWS's tagging guide.
const maxTags = 50

func (t *tags) put(list []tag) error {
	for _, one := range list {
		if one.Key == "" || len(one.Key) > 128 || len(one.Value) > 256 {
			return invalid("Tag keys have 1 to 128 characters, their values 256.")
		}
		if *t == nil {
			*t = tags{}
		}
		(*t)[one.Key] = one.Value
	}
	if len(*t) > maxTags {
		return wire.Errorf("LimitExceededException", "The requested resource exceeds the maximum number allowed.")
	}
	return nil
}

func (t tags) list() []tag {
	out := []tag{}
	for k, v := range t {
		out = append(out, tag{k, v})
	}
	slices.SortFunc(out, func(a, b tag) int { return strings.Compare(a.Key, b.Key) })
	return out
}

// buses are all names of event buses.
func (s *service) buses(ctx context.Context, c *wire.Call) ([]string, error) {
	list, err := all[eventBus](ctx, s, c, KindBus)
	if err != nil {
		return nil, err
	}
	names := append([]string{DefaultBus}, s.node.DeclaredBuses()...)
	for _, b := range list {
		names = append(names, b.Name)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// stands says whether there is a bus.
func (s *service) stands(ctx context.Context, c *wire.Call, bus string) error {
	if bus == DefaultBus {
		return nil
	}
	names, err := s.buses(ctx, c)
	if err != nil || slices.Contains(names, bus) {
		return err
	}
	return noResource("Event bus %s does not exist.", bus)
}

type createEventBusInput struct {
	Name, EventSourceName string
	Tags                  []tag
}

type createEventBusOutput struct{ EventBusArn string }

func (s *service) createEventBus(ctx context.Context, c *wire.Call, in *createEventBusInput) (*createEventBusOutput, error) {
	if err := patterned(busRE, "name", in.Name); err != nil {
		return nil, err
	}
	if strings.Contains(in.Name, "/") {
		return nil, invalid("Event bus name must not contain '/'.")
	}
	b := eventBus{Name: in.Name, Created: c.Now.UTC(), Made: c.Caller.Maker()}
	if err := b.Tags.put(in.Tags); err != nil {
		return nil, err
	}
	names, err := s.buses(ctx, c)
	if err != nil {
		return nil, err
	}
	if slices.Contains(names, in.Name) {
		return nil, alreadyThere("Event bus %s already exists.", in.Name)
	}
	if err := s.write(ctx, c, KindBus, in.Name, b, 0); errs.CodeOf(err) == errs.Conflict {
		return nil, alreadyThere("Event bus %s already exists.", in.Name)
	} else if err != nil {
		return nil, err
	}
	return &createEventBusOutput{EventBusArn: busARN(c, in.Name)}, nil
}

type busInfo struct{ Name, Arn string }

func (s *service) describeEventBus(ctx context.Context, c *wire.Call, in *struct{ Name string }) (*busInfo, error) {
	bus, err := busOf(in.Name)
	if err != nil {
		return nil, err
	}
	if err := s.stands(ctx, c, bus); err != nil {
		return nil, err
	}
	return &busInfo{Name: bus, Arn: busARN(c, bus)}, nil
}

type listEventBusesInput struct {
	NamePrefix, NextToken string
	Limit                 int
}

type listEventBusesOutput struct {
	EventBuses []busInfo `wire:",always"`
	NextToken  string
}

func (s *service) listEventBuses(ctx context.Context, c *wire.Call, in *listEventBusesInput) (*listEventBusesOutput, error) {
	names, err := s.buses(ctx, c)
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, in.NamePrefix) })
	names, next, err := page(names, func(n string) string { return n }, in.Limit, in.NextToken)
	out := &listEventBusesOutput{NextToken: next, EventBuses: []busInfo{}}
	for _, n := range names {
		out.EventBuses = append(out.EventBuses, busInfo{n, busARN(c, n)})
	}
	return out, err
}

func (s *service) deleteEventBus(ctx context.Context, c *wire.Call, in *struct{ Name string }) (*none, error) {
	bus, err := busOf(in.Name)
	if err != nil {
		return nil, err
	}
	if bus == DefaultBus {
		return nil, invalid("Cannot delete event bus default.")
	}
	if slices.Contains(s.node.DeclaredBuses(), bus) {
		return nil, invalid("Event bus %s is declared by an app: take it out there, and deploy that.", bus)
	}
	s.change.Lock()
	defer s.change.Unlock()
	rules, err := s.rulesOn(ctx, c, bus)
	if err != nil {
		return nil, err
	}
	if len(rules) > 0 {
		return nil, invalid("Event bus %s can't be deleted since it has rules.", bus)
	}
	return nil, s.node.DeleteNote(ctx, c.Caller.Tenant, KindBus, bus)
}

// changeTags changes what an ARN names: a rule or an event bus.
func (s *service) changeTags(ctx context.Context, c *wire.Call, text string, change func(t *tags) error) error {
	gone := noResource("Resource %s does not exist.", text)
	a, err := arn.Parse(text)
	kind, path, _ := strings.Cut(a.Resource, "/")
	if err != nil || a.Service != "events" {
		return invalid("Parameter %s is not valid. Reason: Provided Arn is not in correct format.", text)
	}
	switch kind {
	case "rule":
		bus, name := DefaultBus, path
		if i := strings.LastIndexByte(path, '/'); i >= 0 {
			bus, name = path[:i], path[i+1:]
		}
		return s.changeRule(ctx, c, bus, name, func(r *Rule) error { return change(&r.Tags) })
	case "event-bus":
		s.change.Lock()
		defer s.change.Unlock()
		var b eventBus
		seq, ok, err := s.read(ctx, c, KindBus, path, &b)
		if err != nil {
			return err
		}
		if !ok {
			if path != DefaultBus && !slices.Contains(s.node.DeclaredBuses(), path) {
				return gone
			}
			b = eventBus{Name: path, Created: c.Now.UTC()}
		}
		if err := change(&b.Tags); err != nil {
			return err
		}
		return s.write(ctx, c, KindBus, path, b, seq)
	}
	return gone
}

func (s *service) tagResource(ctx context.Context, c *wire.Call, in *struct {
	ResourceARN string
	Tags        []tag
}) (*none, error) {
	return nil, s.changeTags(ctx, c, in.ResourceARN, func(t *tags) error { return t.put(in.Tags) })
}

func (s *service) untagResource(ctx context.Context, c *wire.Call, in *struct {
	ResourceARN string
	TagKeys     []string
}) (*none, error) {
	return nil, s.changeTags(ctx, c, in.ResourceARN, func(t *tags) error {
		for _, k := range in.TagKeys {
			delete(*t, k)
		}
		return nil
	})
}

type tagsOutput struct {
	Tags []tag `wire:",always"`
}

// errLook ends a change that only looks.
var errLook = errs.New(errs.Canceled, "only looked")

func (s *service) listTagsForResource(ctx context.Context, c *wire.Call, in *struct{ ResourceARN string }) (*tagsOutput, error) {
	out := &tagsOutput{}
	err := s.changeTags(ctx, c, in.ResourceARN, func(t *tags) error {
		out.Tags = t.list()
		return errLook
	})
	if err == errLook {
		err = nil
	}
	if e, ok := err.(*wire.Error); ok && e.Code == "ManagedRuleException" { // declared: it has none here
		return &tagsOutput{Tags: []tag{}}, nil
	}
	return out, err
}
