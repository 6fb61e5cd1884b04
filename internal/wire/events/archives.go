package events

import (
	"context"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/arn"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/wire"
)

// archive is an archive of a bus, as it is kept. The events are in the event log, which has them all; an archive says which of them are replayed.
type archive struct {
	Name    string    `json:"name"`
	Bus     string    `json:"bus"`
	Pattern string    `json:"pattern,omitempty"`
	About   string    `json:"about,omitempty"`
	Days    int       `json:"days,omitempty"` // 0: as long as the log has them
	Created time.Time `json:"created"`
	Made    string    `json:"made,omitempty"` // as a Rule's
}

var archiveRE = regexp.MustCompile(`^[.\-_A-Za-z0-9]{1,48}$`)

func archiveARN(c *wire.Call, name string) string {
	return arn.New("events", c.Region, c.Caller.Account, "archive/"+name).String()
}

type archiveInput struct {
	ArchiveName, EventSourceArn, Description, EventPattern string
	RetentionDays                                          *int
}

type archiveOutput struct {
	ArchiveArn, State string
	CreationTime      time.Time
}

// sourceBus is the bus of an EventSourceArn.
func sourceBus(text, member string) (string, error) {
	a, err := arn.Parse(text)
	name, ok := strings.CutPrefix(a.Resource, "event-bus/")
	if err != nil || a.Service != "events" || !ok {
		return "", invalid("Parameter %s is not valid. Reason: Must contain an event bus ARN.", member)
	}
	return name, nil
}

func (s *service) createArchive(ctx context.Context, c *wire.Call, in *archiveInput) (*archiveOutput, error) {
	if err := patterned(archiveRE, "archiveName", in.ArchiveName); err != nil {
		return nil, err
	}
	bus, err := sourceBus(in.EventSourceArn, "EventSourceArn")
	if err != nil {
		return nil, err
	}
	if err := s.stands(ctx, c, bus); err != nil {
		return nil, err
	}
	// The log counts in milliseconds: what was published before is outside, what is published once this has returned is in it.
	a := archive{Name: in.ArchiveName, Bus: bus, Made: c.Caller.Maker(), Created: c.Now.UTC().Truncate(time.Millisecond).Add(time.Millisecond)}
	if err := a.set(in); err != nil {
		return nil, err
	}
	if err := s.write(ctx, c, KindArchive, a.Name, a, 0); errs.CodeOf(err) == errs.Conflict {
		return nil, alreadyThere("Archive %s already exists.", a.Name)
	} else if err != nil {
		return nil, err
	}
	time.Sleep(time.Until(a.Created)) // a millisecond at most
	return a.output(c), nil
}

func (a *archive) set(in *archiveInput) error {
	if in.EventPattern != "" {
		if _, err := patternOf(in.EventPattern); err != nil {
			return err
		}
	}
	a.Pattern, a.About = in.EventPattern, in.Description
	if in.RetentionDays != nil {
		a.Days = *in.RetentionDays
	}
	return nil
}

func (a *archive) output(c *wire.Call) *archiveOutput {
	return &archiveOutput{ArchiveArn: archiveARN(c, a.Name), State: "ENABLED", CreationTime: a.Created}
}

func (s *service) archive(ctx context.Context, c *wire.Call, name string) (*archive, uint64, error) {
	a := &archive{}
	seq, ok, err := s.read(ctx, c, KindArchive, name, a)
	if err == nil && !ok {
		err = noResource("Archive %s does not exist.", name)
	}
	return a, seq, err
}

type archiveName struct{ ArchiveName string }

type describeArchiveOutput struct {
	ArchiveArn, ArchiveName, EventSourceArn, Description, EventPattern, State string
	RetentionDays                                                             int `wire:",always"`
	CreationTime                                                              time.Time
}

func (s *service) describeArchive(ctx context.Context, c *wire.Call, in *archiveName) (*describeArchiveOutput, error) {
	a, _, err := s.archive(ctx, c, in.ArchiveName)
	if err != nil {
		return nil, err
	}
	return &describeArchiveOutput{
		ArchiveArn: archiveARN(c, a.Name), ArchiveName: a.Name, EventSourceArn: busARN(c, a.Bus), Description: a.About, EventPattern: a.Pattern, State: "ENABLED",
		RetentionDays: a.Days, CreationTime: a.Created,
	}, nil
}

type listArchivesInput struct {
	NamePrefix, EventSourceArn, State, NextToken string
	Limit                                        int
}

type listArchivesOutput struct {
	Archives  []archiveInfo `wire:",always"`
	NextToken string
}

type archiveInfo struct {
	ArchiveName, EventSourceArn, State string
	RetentionDays                      int `wire:",always"`
	CreationTime                       time.Time
}

func (s *service) listArchives(ctx context.Context, c *wire.Call, in *listArchivesInput) (*listArchivesOutput, error) {
	list, err := all[archive](ctx, s, c, KindArchive)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(a archive) bool {
		return !strings.HasPrefix(a.Name, in.NamePrefix) || in.EventSourceArn != "" && !same(busARN(c, a.Bus), in.EventSourceArn) || in.State != "" && in.State != "ENABLED"
	})
	list, next, err := page(list, func(a archive) string { return a.Name }, in.Limit, in.NextToken)
	out := &listArchivesOutput{NextToken: next, Archives: []archiveInfo{}}
	for _, a := range list {
		out.Archives = append(out.Archives, archiveInfo{a.Name, busARN(c, a.Bus), "ENABLED", a.Days, a.Created})
	}
	return out, err
}

func (s *service) updateArchive(ctx context.Context, c *wire.Call, in *struct {
	ArchiveName, Description, EventPattern string
	RetentionDays                          *int
}) (*archiveOutput, error) {
	a, seq, err := s.archive(ctx, c, in.ArchiveName)
	if err != nil {
		return nil, err
	}
	if err := a.set(&archiveInput{Description: in.Description, EventPattern: in.EventPattern, RetentionDays: in.RetentionDays}); err != nil {
		return nil, err
	}
	return a.output(c), s.write(ctx, c, KindArchive, a.Name, a, seq)
}

func (s *service) deleteArchive(ctx context.Context, c *wire.Call, in *archiveName) (*none, error) {
	if _, _, err := s.archive(ctx, c, in.ArchiveName); err != nil {
		return nil, err
	}
	return nil, s.node.DeleteNote(ctx, c.Caller.Tenant, KindArchive, in.ArchiveName)
}

// replay is a replay of an archive, as it is kept.
type replay struct {
	Name     string    `json:"name"`
	Archive  string    `json:"archive"`
	Bus      string    `json:"bus"`
	Rules    []string  `json:"rules,omitempty"` // ARNs
	About    string    `json:"about,omitempty"`
	From     time.Time `json:"from"`
	To       time.Time `json:"to"`
	Started  time.Time `json:"started"`
	Ended    time.Time `json:"ended,omitzero"`
	IDs      []string  `json:"ids,omitempty"` // of the bus's
	Prepared bool      `json:"prepared"`      // all of those have begun
}

func replayARN(c *wire.Call, name string) string {
	return arn.New("events", c.Region, c.Caller.Account, "replay/"+name).String()
}

type replayDestination struct {
	Arn        string
	FilterArns []string
}

type startReplayInput struct {
	ReplayName, Description, EventSourceArn string
	EventStartTime, EventEndTime            time.Time
	Destination                             replayDestination
}

type startReplayOutput struct {
	ReplayArn, State, StateReason string
	ReplayStartTime               time.Time
}

// wanted checks a replay, and says what it delivers.
func (s *service) wanted(ctx context.Context, c *wire.Call, in *startReplayInput) (w ReplayWanted, from *archive, err error) {
	if err := patterned(ruleRE, "replayName", in.ReplayName); err != nil {
		return w, nil, err
	}
	to, err := sourceBus(in.Destination.Arn, "Destination.Arn")
	if err != nil {
		return w, nil, err
	}
	if err := s.stands(ctx, c, to); err != nil {
		return w, nil, err
	}
	at, err := arn.Parse(in.EventSourceArn)
	name, ok := strings.CutPrefix(at.Resource, "archive/")
	if err != nil || at.Service != "events" || !ok {
		return w, nil, invalid("Parameter EventSourceArn is not valid. Reason: Must contain an archive ARN.")
	}
	if from, _, err = s.archive(ctx, c, name); err != nil {
		return w, nil, err
	}
	if from.Bus != to {
		return w, nil, invalid("Parameter Destination.Arn is not valid. Reason: Cross event bus replay is not permitted.")
	}
	if !in.EventStartTime.Before(in.EventEndTime) {
		return w, nil, invalid("Parameter EventEndTime is not valid. Reason: EventStartTime must be before EventEndTime.")
	}
	w = ReplayWanted{Bus: to, From: in.EventStartTime, To: in.EventEndTime}
	if from.Pattern != "" {
		w.Pattern = json.RawMessage(from.Pattern)
	}
	if from.Created.After(w.From) { // what came before is not in it
		w.From = from.Created
	}
	if oldest := c.Now.AddDate(0, 0, -from.Days); from.Days > 0 && oldest.After(w.From) {
		w.From = oldest
	}
	for _, text := range in.Destination.FilterArns {
		rule := text[strings.LastIndexByte(text, '/')+1:]
		if _, _, err := s.rule(ctx, c, to, rule); err != nil {
			return w, nil, err
		}
		w.Rules = append(w.Rules, rule)
	}
	return w, from, nil
}

func (s *service) startReplay(ctx context.Context, c *wire.Call, in *startReplayInput) (*startReplayOutput, error) {
	w, from, err := s.wanted(ctx, c, in)
	if err != nil {
		return nil, err
	}
	r := &replay{
		Name: in.ReplayName, Archive: from.Name, Bus: w.Bus, Rules: in.Destination.FilterArns, About: in.Description, From: in.EventStartTime, To: in.EventEndTime, Started: c.Now.UTC(),
	}
	if err := s.write(ctx, c, kindReplay, r.Name, r, 0); errs.CodeOf(err) == errs.Conflict {
		return nil, alreadyThere("Replay %s already exists.", r.Name)
	} else if err != nil {
		return nil, err
	}
	if w.From.Before(w.To) {
		if r.IDs, err = s.node.Replay(ctx, w); err != nil {
			return nil, err
		}
	}
	r.Prepared = true
	seq, _, err := s.read(ctx, c, kindReplay, r.Name, &replay{})
	if err != nil {
		return nil, err
	}
	return &startReplayOutput{ReplayArn: replayARN(c, r.Name), State: "STARTING", ReplayStartTime: r.Started}, s.write(ctx, c, kindReplay, r.Name, r, seq)
}

// replay reads a replay and how far it is.
func (s *service) replay(ctx context.Context, c *wire.Call, r *replay) (state string, err error) {
	switch {
	case !r.Ended.IsZero():
		return "COMPLETED", nil
	case !r.Prepared && c.Now.Sub(r.Started) > time.Minute: // who started it was killed
		return "FAILED", nil
	case !r.Prepared:
		return "STARTING", nil
	}
	if len(r.IDs) > 0 {
		done, err := s.node.Replayed(ctx, r.IDs)
		if err != nil || !done {
			return "RUNNING", err
		}
	}
	r.Ended = c.Now.UTC()
	seq, ok, err := s.read(ctx, c, kindReplay, r.Name, &replay{})
	if err == nil && ok {
		if err = s.write(ctx, c, kindReplay, r.Name, r, seq); errs.CodeOf(err) == errs.Conflict {
			err = nil // somebody else has seen it too
		}
	}
	return "COMPLETED", err
}

type replayName struct{ ReplayName string }

type describeReplayOutput struct {
	ReplayArn, ReplayName, Description, EventSourceArn, State string
	Destination                                               *replayDestination
	EventStartTime, EventEndTime                              time.Time
	ReplayStartTime, ReplayEndTime, EventLastReplayedTime     *time.Time
}

func ended(r *replay) *time.Time {
	if r.Ended.IsZero() {
		return nil
	}
	return &r.Ended
}

func (s *service) describeReplay(ctx context.Context, c *wire.Call, in *replayName) (*describeReplayOutput, error) {
	r := &replay{}
	_, ok, err := s.read(ctx, c, kindReplay, in.ReplayName, r)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, noResource("Replay %s does not exist.", in.ReplayName)
	}
	st, err := s.replay(ctx, c, r)
	if err != nil {
		return nil, err
	}
	out := &describeReplayOutput{
		ReplayArn: replayARN(c, r.Name), ReplayName: r.Name, Description: r.About, EventSourceArn: archiveARN(c, r.Archive), State: st,
		Destination:    &replayDestination{Arn: busARN(c, r.Bus), FilterArns: r.Rules},
		EventStartTime: r.From, EventEndTime: r.To, ReplayStartTime: &r.Started, ReplayEndTime: ended(r),
	}
	if st == "COMPLETED" {
		out.EventLastReplayedTime = &r.To
	}
	return out, nil
}

type listReplaysInput struct {
	NamePrefix, EventSourceArn, State, NextToken string
	Limit                                        int
}

type listReplaysOutput struct {
	Replays   []replayInfo `wire:",always"`
	NextToken string
}

type replayInfo struct {
	ReplayName, EventSourceArn, State string
	EventStartTime, EventEndTime      time.Time
	ReplayStartTime, ReplayEndTime    *time.Time
}

func (s *service) listReplays(ctx context.Context, c *wire.Call, in *listReplaysInput) (*listReplaysOutput, error) {
	list, err := all[replay](ctx, s, c, kindReplay)
	if err != nil {
		return nil, err
	}
	infos := []replayInfo{}
	for i := range list {
		r := &list[i]
		source := archiveARN(c, r.Archive)
		if !strings.HasPrefix(r.Name, in.NamePrefix) || in.EventSourceArn != "" && !same(source, in.EventSourceArn) {
			continue
		}
		st, err := s.replay(ctx, c, r)
		if err != nil {
			return nil, err
		}
		if in.State == "" || in.State == st {
			infos = append(infos, replayInfo{r.Name, source, st, r.From, r.To, &r.Started, ended(r)})
		}
	}
	infos, next, err := page(infos, func(r replayInfo) string { return r.ReplayName }, in.Limit, in.NextToken)
	return &listReplaysOutput{Replays: infos, NextToken: next}, err
}

func (s *service) cancelReplay(ctx context.Context, c *wire.Call, in *replayName) (*struct{ ReplayArn, State string }, error) {
	d, err := s.describeReplay(ctx, c, in)
	if err != nil {
		return nil, err
	}
	if d.State == "RUNNING" || d.State == "STARTING" {
		return nil, wire.Errorf("IllegalStatusException", "Replay %s cannot be cancelled: ebb has begun to deliver it.", in.ReplayName)
	}
	return nil, wire.Errorf("IllegalStatusException", "Replay %s is not in a valid state for this operation.", in.ReplayName)
}
