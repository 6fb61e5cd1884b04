package sqs

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/wire"
)

// tasks are the moves of messages that this Node has begun. A task ends with the Node; what it has moved stays so.
type tasks struct {
	mu struct {
		sync.Mutex
		list []*task
	}
}

type task struct {
	tenant, source, to string // to: empty for each message's own
	handle             string
	began              time.Time
	all                int64

	mu struct {
		sync.Mutex
		moved  int64
		status string
		why    string
	}
}

const (
	running, completed, failed, cancelling, cancelled = "RUNNING", "COMPLETED", "FAILED", "CANCELLING", "CANCELLED"

	mostTasks = 100 // that are remembered
)

func (t *tasks) init() { t.mu.list = nil }

func (t *tasks) add(one *task) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, o := range t.mu.list {
		if status, _, _ := o.state(); o.tenant == one.tenant && o.source == one.source && (status == running || status == cancelling) {
			return wire.Errorf("UnsupportedOperation", "There is already a task running. Only one active task is allowed for a source queue arn at a given time.")
		}
	}
	t.mu.list = append(t.mu.list, one)
	if len(t.mu.list) > mostTasks {
		t.mu.list = slices.Delete(t.mu.list, 0, 1)
	}
	return nil
}

func (t *task) state() (status, why string, moved int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.status, t.mu.why, t.mu.moved
}

var errCancelled = errors.New("the task was cancelled")

type startMoveInput struct {
	SourceArn, DestinationArn    string
	MaxNumberOfMessagesPerSecond *int
}

type taskHandle struct{ TaskHandle string }

func (s *service) startMessageMoveTask(ctx context.Context, c *wire.Call, in *startMoveInput) (*taskHandle, error) {
	from, err := s.status(ctx, c, in.SourceArn)
	if err != nil {
		return nil, wire.Errorf("ResourceNotFoundException", "The resource that you specified for the SourceArn parameter doesn't exist.").With(404)
	}
	sources, err := s.names(ctx, c, func(q *bus.Queue) bool { return q.DeadLetters != "" && nameOf(q.DeadLetters) == from.Name })
	if err != nil {
		return nil, err
	}
	if len(sources) == 0 {
		return nil, wire.Errorf("InvalidParameterValue", "Source queue must be configured as a Dead Letter Queue.")
	}
	var id [24]byte
	_, _ = rand.Read(id[:]) // never fails; see crypto/rand
	t := &task{tenant: c.Caller.Tenant, source: from.Name, handle: base64.RawURLEncoding.EncodeToString(id[:]), began: c.Now, all: int64(from.Visible)}
	t.mu.status = running
	r := bus.QueueRedrive{From: from.Key(), Moved: func(n int) error {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.mu.moved = int64(n); t.mu.status == cancelling {
			return errCancelled
		}
		return nil
	}}
	if in.DestinationArn != "" {
		to, err := s.status(ctx, c, in.DestinationArn)
		if err != nil {
			return nil, wire.Errorf("ResourceNotFoundException", "The resource that you specified for the DestinationArn parameter doesn't exist.").With(404)
		}
		t.to, r.To = to.Name, to.Key()
	}
	if err := s.tasks.add(t); err != nil {
		return nil, err
	}
	go s.move(context.WithoutCancel(ctx), t, r)
	return &taskHandle{t.handle}, nil
}

// move runs a task. The bus ends it when it closes.
func (s *service) move(ctx context.Context, t *task, r bus.QueueRedrive) {
	n, err := s.bus.RedriveQueue(ctx, r)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.moved = int64(n)
	switch {
	case errors.Is(err, errCancelled) || t.mu.status == cancelling:
		t.mu.status = cancelled
	case err != nil:
		t.mu.status, t.mu.why = failed, err.Error()
	default:
		t.mu.status = completed
	}
}

type listMovesInput struct {
	SourceArn  string
	MaxResults *int
}

type moveResult struct {
	TaskHandle, Status, SourceArn, DestinationArn, FailureReason string

	ApproximateNumberOfMessagesMoved  int64 `wire:",always"`
	ApproximateNumberOfMessagesToMove *int64
	StartedTimestamp                  int64
}

type listMovesOutput struct{ Results []moveResult }

func (s *service) listMessageMoveTasks(ctx context.Context, c *wire.Call, in *listMovesInput) (*listMovesOutput, error) {
	st, err := s.status(ctx, c, in.SourceArn)
	if err != nil {
		return nil, wire.Errorf("ResourceNotFoundException", "The resource that you specified for the SourceArn parameter doesn't exist.").With(404)
	}
	most := 1
	if in.MaxResults != nil {
		if most = *in.MaxResults; most < 1 || most > 10 {
			return nil, invalid(most, "MaxResults", "Must be between 1 and 10, if provided.")
		}
	}
	out := &listMovesOutput{}
	s.tasks.mu.Lock()
	defer s.tasks.mu.Unlock()
	for _, t := range slices.Backward(s.tasks.mu.list) {
		if t.tenant != c.Caller.Tenant || t.source != st.Name || len(out.Results) >= most {
			continue
		}
		status, why, moved := t.state()
		r := moveResult{Status: status, SourceArn: arnOf(c, t.source), FailureReason: why, ApproximateNumberOfMessagesMoved: moved, ApproximateNumberOfMessagesToMove: &t.all, StartedTimestamp: t.began.UnixMilli()}
		if t.to != "" {
			r.DestinationArn = arnOf(c, t.to)
		}
		if status == running {
			r.TaskHandle = t.handle
		}
		out.Results = append(out.Results, r)
	}
	return out, nil
}

type movedOutput struct {
	ApproximateNumberOfMessagesMoved int64 `wire:",always"`
}

func (s *service) cancelMessageMoveTask(_ context.Context, c *wire.Call, in *taskHandle) (*movedOutput, error) {
	s.tasks.mu.Lock()
	defer s.tasks.mu.Unlock()
	for _, t := range s.tasks.mu.list {
		if t.tenant != c.Caller.Tenant || t.handle != in.TaskHandle {
			continue
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.mu.status != running {
			return nil, wire.Errorf("UnsupportedOperation", "Only active tasks can be cancelled.")
		}
		t.mu.status = cancelling
		return &movedOutput{t.mu.moved}, nil
	}
	return nil, wire.Errorf("ResourceNotFoundException", "Task does not exist.").With(404)
}
