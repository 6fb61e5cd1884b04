package events

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/arn"
	"github.com/ebb-run/ebb/internal/wire"
)

// Target is what a rule delivers to. Its members are EventBridge's, and so are their names where it is kept.
type Target struct {
	Id, Arn          string            //nolint:revive // the member's name
	RoleArn          string            `json:",omitempty"`
	Input            *string           `json:",omitempty"`
	InputPath        *string           `json:",omitempty"`
	InputTransformer *InputTransformer `json:",omitempty"`
	RetryPolicy      *RetryPolicy      `json:",omitempty"`
	DeadLetterConfig *DeadLetterConfig `json:",omitempty"`
	SqsParameters    *SqsParameters    `json:",omitempty"`
}

// InputTransformer makes a target's input of parts of the event.
type InputTransformer struct {
	InputPathsMap map[string]string `json:",omitempty"`
	InputTemplate string
}

// RetryPolicy says how often and how long a delivery is tried.
type RetryPolicy struct {
	MaximumRetryAttempts     *int `json:",omitempty"`
	MaximumEventAgeInSeconds *int `json:",omitempty"`
}

// DeadLetterConfig names the queue of what was not delivered.
type DeadLetterConfig struct{ Arn string }

// SqsParameters are those of a FIFO queue.
type SqsParameters struct{ MessageGroupId string } //nolint:revive // the member's name

var targetRE = regexp.MustCompile(`^[.\-_A-Za-z0-9]{1,64}$`)

type targetFailure struct{ TargetId, ErrorCode, ErrorMessage string } //nolint:revive // the member's name

type targetFailures struct {
	FailedEntryCount int             `wire:",always"`
	FailedEntries    []targetFailure `wire:",always"`
}

type putTargetsInput struct {
	Rule, EventBusName string
	Targets            []Target
}

func (t *Target) check() error {
	if err := patterned(targetRE, "targets.1.member.id", t.Id); err != nil {
		return err
	}
	a, err := arn.Parse(t.Arn)
	if err != nil {
		return invalid("Parameter %s is not valid. Reason: Provided Arn is not in correct format.", t.Arn)
	}
	if a.Service == "sqs" && strings.HasSuffix(a.Resource, ".fifo") && (t.SqsParameters == nil || t.SqsParameters.MessageGroupId == "") {
		return invalid("Parameter(s) SqsParameters must be specified for target: %s.", t.Id)
	}
	if t.DeadLetterConfig != nil {
		if a, err := arn.Parse(t.DeadLetterConfig.Arn); err != nil || a.Service != "sqs" {
			return invalid("Parameter %s is not valid. Reason: Dead Letter Queue only supports SQS Queues.", t.DeadLetterConfig.Arn)
		}
	}
	given := 0
	for _, ok := range []bool{t.Input != nil, t.InputPath != nil, t.InputTransformer != nil} {
		if ok {
			given++
		}
	}
	if given > 1 {
		return invalid("Only one of Input, InputPath, or InputTransformer must be provided for target %s.", t.Id)
	}
	return nil
}

func (s *service) putTargets(ctx context.Context, c *wire.Call, in *putTargetsInput) (*targetFailures, error) {
	bus, err := busOf(in.EventBusName)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for i := range in.Targets {
		if err := in.Targets[i].check(); err != nil {
			return nil, err
		}
		if seen[in.Targets[i].Id] {
			return nil, invalid("Parameter Targets contains duplicate target ids.")
		}
		seen[in.Targets[i].Id] = true
	}
	out := &targetFailures{FailedEntries: []targetFailure{}}
	err = s.changeRule(ctx, c, bus, in.Rule, func(r *Rule) error {
		*out = targetFailures{FailedEntries: []targetFailure{}}
		for _, t := range in.Targets {
			if err := s.node.CheckTarget(r, &t); err != nil {
				out.FailedEntries = append(out.FailedEntries, targetFailure{t.Id, "ValidationException", "Parameter(s) of target " + t.Id + " not valid. Reason: " + err.Error()})
				continue
			}
			if i := r.target(t.Id); i >= 0 {
				r.Targets[i] = t
			} else {
				r.Targets = append(r.Targets, t)
			}
		}
		out.FailedEntryCount = len(out.FailedEntries)
		if len(r.Targets) > maxTargets {
			return wire.Errorf("LimitExceededException", "The requested resource exceeds the maximum number allowed.")
		}
		return nil
	})
	return out, err
}

type removeTargetsInput struct {
	Rule, EventBusName string
	Ids                []string
}

func (s *service) removeTargets(ctx context.Context, c *wire.Call, in *removeTargetsInput) (*targetFailures, error) {
	bus, err := busOf(in.EventBusName)
	if err != nil {
		return nil, err
	}
	out := &targetFailures{FailedEntries: []targetFailure{}}
	err = s.changeRule(ctx, c, bus, in.Rule, func(r *Rule) error {
		*out = targetFailures{FailedEntries: []targetFailure{}}
		for _, id := range in.Ids {
			i := r.target(id)
			if i < 0 {
				out.FailedEntries = append(out.FailedEntries, targetFailure{id, "ResourceNotFoundException", "Rule " + r.Name + " does not have a target with the Id " + id + "."})
				continue
			}
			r.Targets = slices.Delete(r.Targets, i, i+1)
		}
		out.FailedEntryCount = len(out.FailedEntries)
		return nil
	})
	return out, err
}

type listTargetsByRuleInput struct {
	Rule, EventBusName, NextToken string
	Limit                         int
}

type listTargetsByRuleOutput struct {
	Targets   []Target `wire:",always"`
	NextToken string
}

func (s *service) listTargetsByRule(ctx context.Context, c *wire.Call, in *listTargetsByRuleInput) (*listTargetsByRuleOutput, error) {
	bus, err := busOf(in.EventBusName)
	if err != nil {
		return nil, err
	}
	r, _, err := s.rule(ctx, c, bus, in.Rule)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(r.Targets, func(a, b Target) int { return strings.Compare(a.Id, b.Id) })
	list, next, err := page(r.Targets, func(t Target) string { return t.Id }, in.Limit, in.NextToken)
	return &listTargetsByRuleOutput{Targets: list, NextToken: next}, err
}

type listRuleNamesByTargetInput struct {
	TargetArn, EventBusName, NextToken string
	Limit                              int
}

type listRuleNamesByTargetOutput struct {
	RuleNames []string `wire:",always"`
	NextToken string
}

// same says whether two ARNs mean the same: any account and region are the caller's own.
func same(a, b string) bool {
	x, errX := arn.Parse(a)
	y, errY := arn.Parse(b)
	return a == b || errX == nil && errY == nil && x.Service == y.Service && x.Resource == y.Resource
}

func (s *service) listRuleNamesByTarget(ctx context.Context, c *wire.Call, in *listRuleNamesByTargetInput) (*listRuleNamesByTargetOutput, error) {
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
	names := []string{}
	for _, r := range list {
		if slices.ContainsFunc(r.Targets, func(t Target) bool { return same(t.Arn, in.TargetArn) }) {
			names = append(names, r.Name)
		}
	}
	names, next, err := page(names, func(n string) string { return n }, in.Limit, in.NextToken)
	return &listRuleNamesByTargetOutput{RuleNames: names, NextToken: next}, err
}
