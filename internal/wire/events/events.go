// Package events answers Amazon EventBridge: events, event buses, rules and their targets, archives and replays.
//
// Main types: [Node], what the service needs of what runs it; [Rule] and [Target], what users make; [New] gives the wire.Service.
//
// Guarantees:
//
//  1. An entry with an EventId is durable. One that is refused does not keep back the others of its request.
//  2. A rule is delivered by when PutRule and PutTargets have returned, after a restart too.
//  3. Any account and region in an ARN means the caller's own.
//
// It knows nothing of functions, deployments and how deliveries are made.
package events

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/arn"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
	"github.com/ebb-run/ebb/internal/state"
	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/shape"
)

// Node is what the service needs. Its methods may be called concurrently.
type Node interface {
	Notes
	// PutEvents publishes events on a bus for who asks; Forbidden where it may not.
	PutEvents(ctx context.Context, who wire.Caller, bus string, list []*event.Event) error
	// DeclaredBuses are the event buses that Apps declare, DeclaredRules their rules.
	DeclaredBuses() []string
	DeclaredRules(ctx context.Context) ([]Rule, error)
	// CheckTarget says why nothing could be delivered to a target of a rule; nil where something can, or could once the target is there.
	CheckTarget(r *Rule, t *Target) error
	// Follow brings deliveries up to what a rule is now; one without targets has none.
	Follow(ctx context.Context, r *Rule) error
	// Replay delivers again; Replayed tells how far that is.
	Replay(ctx context.Context, w ReplayWanted) (ids []string, err error)
	Replayed(ctx context.Context, ids []string) (done bool, err error)
}

// Notes keep what users make.
type Notes interface {
	PutNote(ctx context.Context, tenant, kind, name string, data []byte, expect uint64) (uint64, error)
	Note(ctx context.Context, tenant, kind, name string) (state.Note, error)
	Notes(ctx context.Context, tenant, kind string) ([]state.Note, error)
	DeleteNote(ctx context.Context, tenant, kind, name string) error
}

// ReplayWanted says which events are delivered again: those of a bus from From until To that match the Pattern, to what its rules deliver to.
type ReplayWanted struct {
	Bus      string
	Rules    []string // names; nil means all
	From, To time.Time
	Pattern  json.RawMessage // may be nil
}

// DefaultBus is the event bus that is always there.
const DefaultBus = "default"

// The kinds of Notes. A rule's name is that of its bus, a line feed and its own.
const (
	KindRule    = "event-rule"
	KindBus     = "event-bus"
	KindArchive = "event-archive"
	kindReplay  = "event-replay"
)

type service struct {
	node   Node
	change sync.Mutex // one change of this Node's at a time
}

// New returns the service.
func New(n Node) *wire.Service {
	s := &service{node: n}
	return &wire.Service{
		Name: "events", Strict: true, Translate: translate, Subjects: subjects, Fault: fault,
		Operations: map[string]wire.Operation{
			"PutEvents":             wire.Op(s.putEvents),
			"TestEventPattern":      wire.Op(s.testEventPattern),
			"CreateEventBus":        wire.Op(s.createEventBus),
			"DescribeEventBus":      wire.Op(s.describeEventBus),
			"ListEventBuses":        wire.Op(s.listEventBuses),
			"DeleteEventBus":        wire.Op(s.deleteEventBus),
			"PutRule":               wire.Op(s.putRule),
			"DescribeRule":          wire.Op(s.describeRule),
			"ListRules":             wire.Op(s.listRules),
			"DeleteRule":            wire.Op(s.deleteRule),
			"EnableRule":            wire.Op(s.enableRule),
			"DisableRule":           wire.Op(s.disableRule),
			"PutTargets":            wire.Op(s.putTargets),
			"ListTargetsByRule":     wire.Op(s.listTargetsByRule),
			"RemoveTargets":         wire.Op(s.removeTargets),
			"ListRuleNamesByTarget": wire.Op(s.listRuleNamesByTarget),
			"TagResource":           wire.Op(s.tagResource),
			"UntagResource":         wire.Op(s.untagResource),
			"ListTagsForResource":   wire.Op(s.listTagsForResource),
			"CreateArchive":         wire.Op(s.createArchive),
			"DescribeArchive":       wire.Op(s.describeArchive),
			"ListArchives":          wire.Op(s.listArchives),
			"UpdateArchive":         wire.Op(s.updateArchive),
			"DeleteArchive":         wire.Op(s.deleteArchive),
			"StartReplay":           wire.Op(s.startReplay),
			"DescribeReplay":        wire.Op(s.describeReplay),
			"ListReplays":           wire.Op(s.listReplays),
			"CancelReplay":          wire.Op(s.cancelReplay),
		},
	}
}

// translate gives errors of the Node the service's names.
func translate(_ *wire.Call, err error) *wire.Error {
	code := ""
	switch errs.CodeOf(err) {
	case errs.NotFound:
		code = "ResourceNotFoundException"
	case errs.Conflict:
		code = "ConcurrentModificationException"
	case errs.Invalid, errs.Unsupported, errs.TooLarge:
		code = "ValidationException"
	case errs.Forbidden:
		code = "AccessDeniedException"
	case errs.Throttled:
		code = "ThrottlingException"
	default:
		return nil
	}
	return wire.Errorf(code, "%s", err)
}

// fault is what EventBridge says of a request that is not as its model has it.
func fault(_ *wire.Call, f *shape.Fault) *wire.Error {
	if f.Kind == shape.Invalid {
		return wire.Errorf("ValidationException", "%s", f.Error())
	}
	return nil
}

func invalid(format string, args ...any) error {
	return wire.Errorf("ValidationException", format, args...)
}

func noResource(format string, args ...any) error {
	return wire.Errorf("ResourceNotFoundException", format, args...)
}

func alreadyThere(format string, args ...any) error {
	return wire.Errorf("ResourceAlreadyExistsException", format, args...)
}

var (
	ruleRE = regexp.MustCompile(`^[.\-_A-Za-z0-9]{1,64}$`)
	busRE  = regexp.MustCompile(`^[/.\-_A-Za-z0-9]{1,256}$`)
)

// patterned refuses a member that the model has a pattern for: AWS's common validation.
func patterned(re *regexp.Regexp, member, value string) error {
	if re.MatchString(value) {
		return nil
	}
	text := strings.TrimSuffix(strings.TrimPrefix(re.String(), "^"), "$")
	if i := strings.IndexByte(text, '{'); i > 0 {
		text = text[:i] + "+"
	}
	return invalid("1 validation error detected: Value '%s' at '%s' failed to satisfy constraint: Member must satisfy regular expression pattern: %s", value, member, text)
}

// busOf is the name of the bus that a name or ARN means; nothing means the default one.
func busOf(text string) (string, error) {
	if strings.HasPrefix(text, "arn:") {
		a, err := arn.Parse(text)
		name, ok := strings.CutPrefix(a.Resource, "event-bus/")
		if err != nil || a.Service != "events" || !ok {
			return "", invalid("Parameter %s is not valid. Reason: Provided Arn is not in correct format.", text)
		}
		text = name
	}
	if text == "" {
		return DefaultBus, nil
	}
	return text, patterned(busRE, "eventBusName", text)
}

func busARN(c *wire.Call, bus string) string {
	return arn.New("events", c.Region, c.Caller.Account, "event-bus/"+bus).String()
}

// page gives the part of a sorted list that is asked for, and the token of the next.
func page[T any](list []T, name func(T) string, limit int, token string) ([]T, string, error) {
	if token != "" {
		last, err := base64.RawURLEncoding.DecodeString(token)
		if err != nil {
			return nil, "", invalid("Token is invalid.")
		}
		i, found := slices.BinarySearchFunc(list, string(last), func(v T, last string) int { return strings.Compare(name(v), last) })
		if found {
			i++
		}
		list = list[i:]
	}
	if limit <= 0 || limit > 100 {
		limit = 100
	}
	if len(list) <= limit {
		return list, "", nil
	}
	list = list[:limit]
	return list, base64.RawURLEncoding.EncodeToString([]byte(name(list[limit-1]))), nil
}

// read reads a note into v; false where there is none.
func (s *service) read(ctx context.Context, c *wire.Call, kind, name string, v any) (seq uint64, ok bool, err error) {
	n, err := s.node.Note(ctx, c.Caller.Tenant, kind, name)
	if errs.CodeOf(err) == errs.NotFound {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	return n.Seq, true, json.Unmarshal(n.Data, v)
}

func (s *service) write(ctx context.Context, c *wire.Call, kind, name string, v any, seq uint64) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = s.node.PutNote(ctx, c.Caller.Tenant, kind, name, data, seq)
	return err
}

// all reads the notes of a kind.
func all[T any](ctx context.Context, s *service, c *wire.Call, kind string) ([]T, error) {
	notes, err := s.node.Notes(ctx, c.Caller.Tenant, kind)
	if err != nil {
		return nil, err
	}
	out := make([]T, len(notes))
	for i, n := range notes {
		if err := json.Unmarshal(n.Data, &out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// none is an operation's output without members.
type none = struct{}
