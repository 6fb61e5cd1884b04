// Package scheduler answers Amazon EventBridge Scheduler: schedules and their groups.
//
// Main types: [Node], what the service needs of what runs it; [Schedule], what users make; [New] gives the wire.Service.
//
// Guarantees:
//
//  1. A schedule fires by what CreateSchedule and UpdateSchedule have said once they have returned, after a restart too.
//  2. Any account and region in an ARN means the caller's own.
//
// It knows nothing of functions, deployments and how slots are fired.
package scheduler

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/arn"
	"github.com/ebb-run/ebb/internal/cron"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/state"
	"github.com/ebb-run/ebb/internal/wire"
)

// Node is what the service needs. Its methods may be called concurrently.
type Node interface {
	PutNote(ctx context.Context, tenant, kind, name string, data []byte, expect uint64) (uint64, error)
	Note(ctx context.Context, tenant, kind, name string) (state.Note, error)
	Notes(ctx context.Context, tenant, kind string) ([]state.Note, error)
	DeleteNote(ctx context.Context, tenant, kind, name string) error

	// CheckSchedule says why a schedule could never fire or be delivered.
	CheckSchedule(s *Schedule) error
	// FollowSchedule brings what fires up to what a schedule is now; ForgetSchedule ends it.
	FollowSchedule(ctx context.Context, s *Schedule) error
	ForgetSchedule(ctx context.Context, s *Schedule) error
	// FiredSchedules are those of the schedules that are to be deleted when they have run their course, and have.
	FiredSchedules(ctx context.Context, list []Schedule) ([]Schedule, error)
}

// DefaultGroup is the group that is always there.
const DefaultGroup = "default"

// The kinds of Notes. A schedule's name is that of its group, a line feed and its own.
const (
	KindSchedule = "schedule"
	KindGroup    = "schedule-group"
)

// Schedule is a schedule as it is kept.
type Schedule struct {
	Group   string    `json:"group"`
	Name    string    `json:"name"`
	Region  string    `json:"region"` // that its client meant
	Created time.Time `json:"created"`
	Changed time.Time `json:"changed"`
	Token   string    `json:"token,omitempty"` // of the request that made it
	Live    bool      `json:"live,omitempty"`  // what fires has followed it
	Made    string    `json:"made,omitempty"`  // the Stack whose Function has made it
	Asked
}

// Asked is what a client says of a schedule. Its members are the service's, and so are their names where it is kept.
type Asked struct {
	ActionAfterCompletion, Description, KmsKeyArn         string              `json:",omitempty"`
	ScheduleExpression, ScheduleExpressionTimezone, State string              `json:",omitempty"`
	StartDate, EndDate                                    *time.Time          `json:",omitempty"`
	FlexibleTimeWindow                                    *FlexibleTimeWindow `json:",omitempty"`
	Target                                                *Target             `json:",omitempty"`
}

// FlexibleTimeWindow is the time in which a slot fires.
type FlexibleTimeWindow struct {
	Mode                   string
	MaximumWindowInMinutes *int `json:",omitempty"`
}

// Target is what a schedule delivers to.
type Target struct {
	Arn, RoleArn     string
	Input            *string           `json:",omitempty"`
	RetryPolicy      *RetryPolicy      `json:",omitempty"`
	DeadLetterConfig *DeadLetterConfig `json:",omitempty"`
	SqsParameters    *SqsParameters    `json:",omitempty"`
}

// RetryPolicy says how often and how long a delivery is tried.
type RetryPolicy struct {
	MaximumRetryAttempts     *int `json:",omitempty"`
	MaximumEventAgeInSeconds *int `json:",omitempty"`
}

// The retries of a target that says none: EventBridge Scheduler API, RetryPolicy.
const (
	retries  = 185
	retryAge = 86400 // seconds
)

// withRetries is the target with what it has where it says nothing.
func (t *Target) withRetries() *Target {
	out, policy := *t, RetryPolicy{}
	if t.RetryPolicy != nil {
		policy = *t.RetryPolicy
	}
	n, age := retries, retryAge
	if policy.MaximumRetryAttempts == nil {
		policy.MaximumRetryAttempts = &n
	}
	if policy.MaximumEventAgeInSeconds == nil {
		policy.MaximumEventAgeInSeconds = &age
	}
	out.RetryPolicy = &policy
	return &out
}

// DeadLetterConfig names the queue of what was not delivered.
type DeadLetterConfig struct{ Arn string }

// SqsParameters are those of a FIFO queue.
type SqsParameters struct{ MessageGroupId string } //nolint:revive // the member's name

// NoteName is what a schedule's note is called.
func (s *Schedule) NoteName() string { return s.Group + "\n" + s.Name }

func (s *Schedule) arn(c *wire.Call) string {
	return arn.New("scheduler", s.Region, c.Caller.Account, "schedule/"+s.Group+"/"+s.Name).String()
}

type service struct {
	node   Node
	change sync.Mutex // one change of this Node's at a time
}

// New returns the service.
func New(n Node) *wire.Service {
	s := &service{node: n}
	return &wire.Service{
		Name: "scheduler", Strict: true, Translate: translate, Subjects: subjects,
		Operations: map[string]wire.Operation{
			"CreateSchedule":      wire.Op(s.createSchedule),
			"UpdateSchedule":      wire.Op(s.updateSchedule),
			"GetSchedule":         wire.Op(s.getSchedule),
			"ListSchedules":       wire.Op(s.listSchedules),
			"DeleteSchedule":      wire.Op(s.deleteSchedule),
			"CreateScheduleGroup": wire.Op(s.createGroup),
			"GetScheduleGroup":    wire.Op(s.getGroup),
			"ListScheduleGroups":  wire.Op(s.listGroups),
			"DeleteScheduleGroup": wire.Op(s.deleteGroup),
			"TagResource":         wire.Op(s.tagResource),
			"UntagResource":       wire.Op(s.untagResource),
			"ListTagsForResource": wire.Op(s.listTags),
		},
	}
}

func invalid(format string, args ...any) *wire.Error {
	return wire.Errorf("ValidationException", format, args...)
}

func notThere(format string, args ...any) *wire.Error {
	return wire.Errorf("ResourceNotFoundException", format, args...).With(http.StatusNotFound)
}

func conflict(format string, args ...any) *wire.Error {
	return wire.Errorf("ConflictException", format, args...).With(http.StatusConflict)
}

// translate gives errors of the Node the service's names.
func translate(_ *wire.Call, err error) *wire.Error {
	switch errs.CodeOf(err) {
	case errs.NotFound:
		return notThere("%s", err)
	case errs.Conflict:
		return conflict("%s", err)
	case errs.Invalid, errs.Unsupported, errs.TooLarge:
		return invalid("%s", err)
	case errs.Forbidden:
		return wire.Errorf("AccessDeniedException", "%s", err).With(http.StatusForbidden)
	case errs.Throttled:
		return wire.Errorf("ThrottlingException", "%s", err).With(http.StatusTooManyRequests)
	}
	return nil
}

var nameRE = regexp.MustCompile(`^[0-9a-zA-Z\-_.]{1,64}$`)

func named(member, value string) error {
	if nameRE.MatchString(value) {
		return nil
	}
	return invalid("1 validation error detected: Value '%s' at '%s' failed to satisfy constraint: Member must satisfy regular expression pattern: ^[0-9a-zA-Z-_.]+$", value, member)
}

// page gives the part of a sorted list that is asked for, and the token of the next.
func page[T any](list []T, name func(T) string, limit int, token string) ([]T, string, error) {
	if token != "" {
		last, err := base64.RawURLEncoding.DecodeString(token)
		if err != nil {
			return nil, "", invalid("Invalid NextToken.")
		}
		i, found := slices.BinarySearchFunc(list, string(last), func(v T, last string) int { return strings.Compare(name(v), last) })
		if found {
			i++
		}
		list = list[i:]
	}
	if limit <= 0 {
		limit = 100
	}
	if len(list) <= limit {
		return list, "", nil
	}
	list = list[:limit]
	return list, base64.RawURLEncoding.EncodeToString([]byte(name(list[limit-1]))), nil
}

type createInput struct {
	Name, GroupName, ClientToken                          string
	ActionAfterCompletion, Description, KmsKeyArn         string
	ScheduleExpression, ScheduleExpressionTimezone, State string
	StartDate, EndDate                                    *time.Time
	FlexibleTimeWindow                                    *FlexibleTimeWindow
	Target                                                *Target
}

func (in *createInput) asked() Asked {
	return Asked{
		in.ActionAfterCompletion, in.Description, in.KmsKeyArn, in.ScheduleExpression, in.ScheduleExpressionTimezone, in.State, in.StartDate, in.EndDate,
		in.FlexibleTimeWindow, in.Target,
	}
}

type createOutput struct{ ScheduleArn string }

// ofOne is a rate of one unit that is written in the plural.
var ofOne = regexp.MustCompile(`^rate\(\s*1\s+(minute|hour|day)s\s*\)$`)

// Expression gives an expression as package cron reads it. Scheduler's rates take plural units for one of them too: EventBridge Scheduler User Guide,
// "Schedule types", "Rate-based schedules".
func Expression(expr string) string { return ofOne.ReplaceAllString(expr, "rate(1 $1)") }

// check says what is wrong with what is asked.
func (in *createInput) check() error {
	if err := named("name", in.Name); err != nil {
		return err
	}
	if in.GroupName == "" {
		in.GroupName = DefaultGroup
	}
	zone := in.ScheduleExpressionTimezone
	if _, err := time.LoadLocation(zone); err != nil || zone == "Local" {
		return invalid("Invalid ScheduleExpressionTimezone %s.", zone)
	}
	expr := in.ScheduleExpression
	known := slices.ContainsFunc([]string{"at(", "rate(", "cron("}, func(p string) bool { return strings.HasPrefix(expr, p) })
	if _, err := cron.Parse(Expression(expr), zone); err != nil || !known {
		return invalid("Invalid Schedule Expression %s.", expr)
	}
	w := in.FlexibleTimeWindow
	switch {
	case w.Mode == "FLEXIBLE" && w.MaximumWindowInMinutes == nil:
		return invalid("MaximumWindowInMinutes must be provided when FlexibleTimeWindow Mode is FLEXIBLE.")
	case w.Mode == "OFF" && w.MaximumWindowInMinutes != nil:
		return invalid("MaximumWindowInMinutes must not be provided when FlexibleTimeWindow Mode is OFF.")
	}
	if in.StartDate != nil && in.EndDate != nil && !in.EndDate.After(*in.StartDate) {
		return invalid("EndDate must be after StartDate.")
	}
	t := in.Target
	a, err := arn.Parse(t.Arn)
	if err != nil {
		return invalid("Provided Arn is not in correct format.")
	}
	if t.DeadLetterConfig != nil {
		if d, err := arn.Parse(t.DeadLetterConfig.Arn); err != nil || d.Service != "sqs" {
			return invalid("DeadLetterConfig Arn is not the ARN of an SQS queue.")
		}
	}
	if a.Service == "lambda" && t.Input != nil && !json.Valid([]byte(*t.Input)) {
		return invalid("The Input of a Lambda function has to be JSON.")
	}
	return nil
}

// read reads a note; false where there is none.
func (s *service) read(ctx context.Context, c *wire.Call, kind, name string, v any) (uint64, bool, error) {
	n, err := s.node.Note(ctx, c.Caller.Tenant, kind, name)
	if errs.CodeOf(err) == errs.NotFound {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	return n.Seq, true, json.Unmarshal(n.Data, v)
}

func (s *service) write(ctx context.Context, c *wire.Call, kind, name string, v any, seq uint64) (uint64, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return 0, err
	}
	return s.node.PutNote(ctx, c.Caller.Tenant, kind, name, data, seq)
}

// put keeps a schedule and brings up what fires.
func (s *service) put(ctx context.Context, c *wire.Call, v *Schedule, seq uint64) (*createOutput, error) {
	if err := s.node.CheckSchedule(v); err != nil {
		return nil, err
	}
	v.Live = false
	seq, err := s.write(ctx, c, KindSchedule, v.NoteName(), v, seq)
	if err != nil {
		return nil, err
	}
	if err := s.node.FollowSchedule(ctx, v); err != nil {
		return nil, err
	}
	v.Live = true
	if _, err = s.write(ctx, c, KindSchedule, v.NoteName(), v, seq); errs.CodeOf(err) == errs.Conflict {
		err = nil // it was followed by a deploy too, which says the same
	}
	return &createOutput{ScheduleArn: v.arn(c)}, err
}

func (s *service) createSchedule(ctx context.Context, c *wire.Call, in *createInput) (*createOutput, error) {
	if err := in.check(); err != nil {
		return nil, err
	}
	if err := s.stands(ctx, c, in.GroupName); err != nil {
		return nil, err
	}
	s.change.Lock()
	defer s.change.Unlock()
	old, _, err := s.schedule(ctx, c, in.GroupName, in.Name)
	if err != nil {
		return nil, err
	}
	if old != nil {
		if in.ClientToken != "" && in.ClientToken == old.Token { // the same request again
			return &createOutput{ScheduleArn: old.arn(c)}, nil
		}
		return nil, conflict("Schedule %s already exists.", in.Name)
	}
	v := &Schedule{Group: in.GroupName, Name: in.Name, Region: c.Region, Created: c.Now.UTC(), Changed: c.Now.UTC(), Token: in.ClientToken, Made: c.Caller.Maker(), Asked: in.asked()}
	out, err := s.put(ctx, c, v, 0)
	if errs.CodeOf(err) == errs.Conflict {
		return nil, conflict("Schedule %s already exists.", in.Name)
	}
	return out, err
}

func (s *service) updateSchedule(ctx context.Context, c *wire.Call, in *createInput) (*createOutput, error) {
	if err := in.check(); err != nil {
		return nil, err
	}
	s.change.Lock()
	defer s.change.Unlock()
	v, seq, err := s.schedule(ctx, c, in.GroupName, in.Name)
	if err != nil {
		return nil, err
	}
	if v == nil {
		return nil, notThere("Schedule %s does not exist.", in.Name)
	}
	v.Asked, v.Changed = in.asked(), c.Now.UTC()
	return s.put(ctx, c, v, seq)
}

// schedule reads one; nil where there is none. One that has run its course and was to be deleted then goes.
func (s *service) schedule(ctx context.Context, c *wire.Call, group, name string) (*Schedule, uint64, error) {
	if group == "" {
		group = DefaultGroup
	}
	v := &Schedule{Group: group, Name: name}
	seq, ok, err := s.read(ctx, c, KindSchedule, v.NoteName(), v)
	if err != nil || !ok {
		return nil, 0, err
	}
	left, err := s.standing(ctx, c, []Schedule{*v})
	if err != nil || len(left) == 0 {
		return nil, 0, err
	}
	return v, seq, nil
}

// standing are those of the schedules that have not run their course; the others go.
func (s *service) standing(ctx context.Context, c *wire.Call, list []Schedule) ([]Schedule, error) {
	fired, err := s.node.FiredSchedules(ctx, list)
	if err != nil {
		return nil, err
	}
	for i := range fired {
		if err := s.node.DeleteNote(ctx, c.Caller.Tenant, KindSchedule, fired[i].NoteName()); err != nil {
			return nil, err
		}
		list = slices.DeleteFunc(list, func(v Schedule) bool { return v.NoteName() == fired[i].NoteName() })
	}
	return list, nil
}

type scheduleName struct{ Name, GroupName string }

type getOutput struct {
	Arn, GroupName, Name                                  string
	CreationDate, LastModificationDate                    time.Time
	ActionAfterCompletion, Description, KmsKeyArn         string
	ScheduleExpression, ScheduleExpressionTimezone, State string
	StartDate, EndDate                                    *time.Time
	FlexibleTimeWindow                                    *FlexibleTimeWindow
	Target                                                *Target
}

func (v *Schedule) state() string {
	if v.State == "" {
		return "ENABLED"
	}
	return v.State
}

func (s *service) getSchedule(ctx context.Context, c *wire.Call, in *scheduleName) (*getOutput, error) {
	v, _, err := s.schedule(ctx, c, in.GroupName, in.Name)
	if err != nil {
		return nil, err
	}
	if v == nil {
		return nil, notThere("Schedule %s does not exist.", in.Name)
	}
	out := &getOutput{
		v.arn(c), v.Group, v.Name, v.Created, v.Changed, v.ActionAfterCompletion, v.Description, v.KmsKeyArn, v.ScheduleExpression, v.ScheduleExpressionTimezone, v.state(),
		v.StartDate, v.EndDate, v.FlexibleTimeWindow, v.Target,
	}
	if out.ActionAfterCompletion == "" {
		out.ActionAfterCompletion = "NONE"
	}
	if out.ScheduleExpressionTimezone == "" {
		out.ScheduleExpressionTimezone = "UTC"
	}
	out.Target = out.Target.withRetries()
	return out, nil
}

func (s *service) all(ctx context.Context, c *wire.Call) ([]Schedule, error) {
	notes, err := s.node.Notes(ctx, c.Caller.Tenant, KindSchedule)
	if err != nil {
		return nil, err
	}
	list := make([]Schedule, len(notes))
	for i, n := range notes {
		if err := json.Unmarshal(n.Data, &list[i]); err != nil {
			return nil, err
		}
	}
	return s.standing(ctx, c, list)
}

type listInput struct {
	GroupName, NamePrefix, State, NextToken string
	MaxResults                              int
}

type listOutput struct {
	NextToken string
	Schedules []summary `wire:",always"`
}

type summary struct {
	Arn, GroupName, Name, State        string
	CreationDate, LastModificationDate time.Time
	Target                             struct{ Arn string }
}

func (s *service) listSchedules(ctx context.Context, c *wire.Call, in *listInput) (*listOutput, error) {
	if in.GroupName != "" {
		if err := s.stands(ctx, c, in.GroupName); err != nil {
			return nil, err
		}
	}
	list, err := s.all(ctx, c)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(v Schedule) bool {
		return in.GroupName != "" && v.Group != in.GroupName || !strings.HasPrefix(v.Name, in.NamePrefix) || in.State != "" && v.state() != in.State
	})
	slices.SortFunc(list, func(a, b Schedule) int { return strings.Compare(a.NoteName(), b.NoteName()) })
	list, next, err := page(list, func(v Schedule) string { return v.NoteName() }, in.MaxResults, in.NextToken)
	out := &listOutput{NextToken: next, Schedules: []summary{}}
	for i := range list {
		v := &list[i]
		one := summary{Arn: v.arn(c), GroupName: v.Group, Name: v.Name, State: v.state(), CreationDate: v.Created, LastModificationDate: v.Changed}
		one.Target.Arn = v.Target.Arn
		out.Schedules = append(out.Schedules, one)
	}
	return out, err
}

func (s *service) deleteSchedule(ctx context.Context, c *wire.Call, in *scheduleName) (*struct{}, error) {
	s.change.Lock()
	defer s.change.Unlock()
	v, _, err := s.schedule(ctx, c, in.GroupName, in.Name)
	if err != nil {
		return nil, err
	}
	if v == nil {
		return nil, notThere("Schedule %s does not exist.", in.Name)
	}
	return nil, s.drop(ctx, c, v)
}

func (s *service) drop(ctx context.Context, c *wire.Call, v *Schedule) error {
	if err := s.node.DeleteNote(ctx, c.Caller.Tenant, KindSchedule, v.NoteName()); err != nil {
		return err
	}
	return s.node.ForgetSchedule(ctx, v)
}
