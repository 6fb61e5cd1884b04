package server

import (
	"context"
	"encoding/json"

	eventbridge "github.com/ebb-run/ebb/internal/wire/events"
	"github.com/ebb-run/ebb/internal/wire/scheduler"
)

// KeepRule keeps a rule, and nothing follows it: as of a Node that was killed in between.
func KeepRule(ctx context.Context, s *Server, r *eventbridge.Rule) error {
	return keep(ctx, s, eventbridge.KindRule, r.NoteName(), r)
}

// KeepSchedule keeps a schedule that nothing follows.
func KeepSchedule(ctx context.Context, s *Server, v *scheduler.Schedule) error {
	return keep(ctx, s, scheduler.KindSchedule, v.NoteName(), v)
}

func keep(ctx context.Context, s *Server, kind, name string, v any) error {
	data, err := json.Marshal(v)
	if err == nil {
		_, err = s.state.PutNote(ctx, tenant, kind, name, data, 0)
	}
	return err
}

// LeaveSchedule puts what a schedule is on the bus and keeps no schedule: as of a Node that was killed when it deleted one.
func LeaveSchedule(ctx context.Context, s *Server, v *scheduler.Schedule) error {
	return s.followSchedule(ctx, v)
}
