package events

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/arn"
	"github.com/ebb-run/ebb/internal/cron"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/wire"
)

// Rule is a rule of an event bus, as it is kept.
type Rule struct {
	Name     string    `json:"name"`
	Bus      string    `json:"bus"`
	Region   string    `json:"region"` // that its client meant
	Pattern  string    `json:"pattern,omitempty"`
	Schedule string    `json:"schedule,omitempty"`
	Disabled bool      `json:"disabled,omitempty"`
	About    string    `json:"about,omitempty"`
	Role     string    `json:"role,omitempty"`
	Created  time.Time `json:"created"`
	Targets  []Target  `json:"targets,omitempty"`
	Tags     tags      `json:"tags,omitempty"`
	Made     string    `json:"made,omitempty"` // the Stack whose Function has put it

	Declared string `json:"-"` // the App that declares it; it is not kept
	Tenant   string `json:"-"`
}

const (
	// maxRules and maxTargets are the quotas of a bus and of a rule: EventBridge user guide, "Quotas".
	maxRules, maxTargets = 300, 5
)

// NoteName is what a rule's note is called.
func (r *Rule) NoteName() string { return r.Bus + "\n" + r.Name }

// ARN names the rule.
func (r *Rule) ARN(account string) string {
	path := r.Name
	if r.Bus != DefaultBus {
		path = r.Bus + "/" + r.Name
	}
	return arn.New("events", r.Region, account, "rule/"+path).String()
}

func (r *Rule) state() string {
	if r.Disabled {
		return "DISABLED"
	}
	return "ENABLED"
}

func (r *Rule) target(id string) int {
	return slices.IndexFunc(r.Targets, func(t Target) bool { return t.Id == id })
}

type ruleName struct{ Name, EventBusName string }

// rule reads a rule: one that was put, or one that is declared, which has no sequence number.
func (s *service) rule(ctx context.Context, c *wire.Call, bus, name string) (*Rule, uint64, error) {
	r := &Rule{Name: name, Bus: bus}
	seq, ok, err := s.read(ctx, c, KindRule, r.NoteName(), r)
	if err != nil {
		return nil, 0, err
	}
	if ok {
		r.Tenant = c.Caller.Tenant
		return r, seq, nil
	}
	list, err := s.node.DeclaredRules(ctx)
	if err != nil {
		return nil, 0, err
	}
	for i := range list {
		if list[i].Bus == bus && list[i].Name == name {
			list[i].Region = c.Region
			return &list[i], 0, nil
		}
	}
	return nil, 0, noResource("Rule %s does not exist on EventBus %s.", name, bus)
}

// changeRule changes a rule that was put, and what is delivered by it.
func (s *service) changeRule(ctx context.Context, c *wire.Call, bus, name string, change func(r *Rule) error) error {
	s.change.Lock()
	defer s.change.Unlock()
	for range 10 { // other Nodes may change it too
		r, seq, err := s.rule(ctx, c, bus, name)
		if err != nil {
			return err
		}
		if err := r.foreign(); err != nil {
			return err
		}
		if err := change(r); err != nil {
			return err
		}
		if err = s.write(ctx, c, KindRule, r.NoteName(), r, seq); err == nil {
			return s.node.Follow(ctx, r)
		}
		if errs.CodeOf(err) != errs.Conflict {
			return err
		}
	}
	return wire.Errorf("ConcurrentModificationException", "Rule %s was modified concurrently", name)
}

// foreign refuses to change what an App declares.
func (r *Rule) foreign() error {
	if r.Declared == "" {
		return nil
	}
	return wire.Errorf("ManagedRuleException", "Rule %s is declared by app %s: change it there, and deploy that.", r.Name, r.Declared)
}

type putRuleInput struct {
	Name, EventBusName, EventPattern, ScheduleExpression, State, Description, RoleArn string
	Tags                                                                              []tag
}

type putRuleOutput struct{ RuleArn string }

func (in *putRuleInput) check(bus string) error {
	if err := patterned(ruleRE, "name", in.Name); err != nil {
		return err
	}
	if in.EventPattern == "" && in.ScheduleExpression == "" {
		return invalid("Parameter(s) EventPattern or ScheduleExpression must be specified.")
	}
	if in.EventPattern != "" {
		if _, err := patternOf(in.EventPattern); err != nil {
			return err
		}
	}
	if in.ScheduleExpression == "" {
		return nil
	}
	if bus != DefaultBus {
		return invalid("ScheduleExpression is supported only on the default event bus.")
	}
	sched, err := cron.Parse(in.ScheduleExpression, "")
	if err != nil || sched.Once() || !strings.HasPrefix(in.ScheduleExpression, "rate(") && !strings.HasPrefix(in.ScheduleExpression, "cron(") {
		return invalid("Parameter ScheduleExpression is not valid.")
	}
	return nil
}

func (s *service) putRule(ctx context.Context, c *wire.Call, in *putRuleInput) (*putRuleOutput, error) {
	bus, err := busOf(in.EventBusName)
	if err != nil {
		return nil, err
	}
	if err := in.check(bus); err != nil {
		return nil, err
	}
	if err := s.stands(ctx, c, bus); err != nil {
		return nil, err
	}
	s.change.Lock()
	defer s.change.Unlock()
	r, seq, err := s.rule(ctx, c, bus, in.Name)
	if err != nil {
		if e, ok := err.(*wire.Error); !ok || e.Code != "ResourceNotFoundException" {
			return nil, err
		}
		list, err := s.rulesOn(ctx, c, bus)
		if err != nil {
			return nil, err
		}
		if len(list) >= maxRules {
			return nil, wire.Errorf("LimitExceededException", "The requested resource exceeds the maximum number allowed.")
		}
		r = &Rule{Name: in.Name, Bus: bus, Region: c.Region, Created: c.Now.UTC(), Made: c.Caller.Maker(), Tenant: c.Caller.Tenant}
		if err := r.Tags.put(in.Tags); err != nil {
			return nil, err
		}
	}
	if err := r.foreign(); err != nil {
		return nil, err
	}
	r.Pattern, r.Schedule, r.Disabled, r.About, r.Role = in.EventPattern, in.ScheduleExpression, in.State == "DISABLED", in.Description, in.RoleArn
	if err := s.write(ctx, c, KindRule, r.NoteName(), r, seq); err != nil {
		return nil, err
	}
	if err := s.node.Follow(ctx, r); err != nil {
		return nil, err
	}
	return &putRuleOutput{RuleArn: r.ARN(c.Caller.Account)}, nil
}

type describeRuleOutput struct {
	Name, Arn, EventPattern, ScheduleExpression, State, Description, RoleArn, ManagedBy, EventBusName, CreatedBy string
}

func (s *service) describe(c *wire.Call, r *Rule) *describeRuleOutput {
	out := &describeRuleOutput{
		Name: r.Name, Arn: r.ARN(c.Caller.Account), EventPattern: r.Pattern, ScheduleExpression: r.Schedule, State: r.state(), Description: r.About, RoleArn: r.Role,
		EventBusName: r.Bus, CreatedBy: c.Caller.Account,
	}
	return out
}

func (s *service) describeRule(ctx context.Context, c *wire.Call, in *ruleName) (*describeRuleOutput, error) {
	bus, err := busOf(in.EventBusName)
	if err != nil {
		return nil, err
	}
	r, _, err := s.rule(ctx, c, bus, in.Name)
	if err != nil {
		return nil, err
	}
	return s.describe(c, r), nil
}

// rulesOn are a bus's rules, those that are declared too, by name.
func (s *service) rulesOn(ctx context.Context, c *wire.Call, bus string) ([]Rule, error) {
	list, err := all[Rule](ctx, s, c, KindRule)
	if err != nil {
		return nil, err
	}
	declared, err := s.node.DeclaredRules(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range declared {
		r.Region = c.Region
		list = append(list, r)
	}
	list = slices.DeleteFunc(list, func(r Rule) bool { return r.Bus != bus })
	slices.SortStableFunc(list, func(a, b Rule) int { return strings.Compare(a.Name, b.Name) })
	return slices.CompactFunc(list, func(a, b Rule) bool { return a.Name == b.Name }), nil
}

type listRulesInput struct {
	NamePrefix, EventBusName, NextToken string
	Limit                               int
}

type listRulesOutput struct {
	Rules     []ruleInfo `wire:",always"`
	NextToken string
}

type ruleInfo struct {
	Name, Arn, EventPattern, ScheduleExpression, State, Description, RoleArn, ManagedBy, EventBusName string
}

func (s *service) listRules(ctx context.Context, c *wire.Call, in *listRulesInput) (*listRulesOutput, error) {
	bus, err := busOf(in.EventBusName)
	if err != nil {
		return nil, err
	}
	if err := s.stands(ctx, c, bus); err != nil {
		return nil, err
	}
	list, err := s.rulesOn(ctx, c, bus)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(r Rule) bool { return !strings.HasPrefix(r.Name, in.NamePrefix) })
	list, next, err := page(list, func(r Rule) string { return r.Name }, in.Limit, in.NextToken)
	out := &listRulesOutput{NextToken: next, Rules: make([]ruleInfo, len(list))}
	for i := range list {
		d := s.describe(c, &list[i])
		out.Rules[i] = ruleInfo{d.Name, d.Arn, d.EventPattern, d.ScheduleExpression, d.State, d.Description, d.RoleArn, d.ManagedBy, d.EventBusName}
	}
	return out, err
}

func (s *service) deleteRule(ctx context.Context, c *wire.Call, in *ruleName) (*none, error) {
	bus, err := busOf(in.EventBusName)
	if err != nil {
		return nil, err
	}
	s.change.Lock()
	defer s.change.Unlock()
	r, _, err := s.rule(ctx, c, bus, in.Name)
	if e, ok := err.(*wire.Error); ok && e.Code == "ResourceNotFoundException" {
		return nil, s.stands(ctx, c, bus) // to delete what is not there is no error
	}
	if err != nil {
		return nil, err
	}
	if err := r.foreign(); err != nil {
		return nil, err
	}
	if len(r.Targets) > 0 {
		return nil, invalid("Rule can't be deleted since it has targets.")
	}
	if err := s.node.Follow(ctx, r); err != nil {
		return nil, err
	}
	return nil, s.node.DeleteNote(ctx, c.Caller.Tenant, KindRule, r.NoteName())
}

func (s *service) enableRule(ctx context.Context, c *wire.Call, in *ruleName) (*none, error) {
	return s.able(ctx, c, in, false)
}

func (s *service) disableRule(ctx context.Context, c *wire.Call, in *ruleName) (*none, error) {
	return s.able(ctx, c, in, true)
}

func (s *service) able(ctx context.Context, c *wire.Call, in *ruleName, disabled bool) (*none, error) {
	bus, err := busOf(in.EventBusName)
	if err != nil {
		return nil, err
	}
	return nil, s.changeRule(ctx, c, bus, in.Name, func(r *Rule) error {
		r.Disabled = disabled
		return nil
	})
}
