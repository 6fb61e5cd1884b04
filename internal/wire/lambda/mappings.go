package lambda

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/arn"
	"github.com/ebb-run/ebb/internal/wire"
)

type mappingFilter struct{ Pattern string }

type mappingFilters struct{ Filters []mappingFilter }

type mappingScaling struct{ MaximumConcurrency *int }

type mappingOutput struct {
	UUID, EventSourceArn, FunctionArn, State, StateTransitionReason, LastProcessingResult, StartingPosition                                    string
	LastModified                                                                                                                               time.Time
	BatchSize, MaximumBatchingWindowInSeconds, ParallelizationFactor, MaximumRecordAgeInSeconds, MaximumRetryAttempts, TumblingWindowInSeconds *int
	BisectBatchOnFunctionError                                                                                                                 *bool
	FunctionResponseTypes                                                                                                                      []string
	FilterCriteria                                                                                                                             *mappingFilters
	ScalingConfig                                                                                                                              *mappingScaling
	DestinationConfig                                                                                                                          *destinations
}

// mappingDefaults are what AWS tells of a mapping that does not say: Lambda API, "CreateEventSourceMapping".
var mappingDefaults = map[string]string{ // by the service of the source; never written
	"sqs":      `{"BatchSize":10,"MaximumBatchingWindowInSeconds":0}`,
	"kinesis":  `{"BatchSize":100,"MaximumBatchingWindowInSeconds":0,"ParallelizationFactor":1,"MaximumRecordAgeInSeconds":-1,"MaximumRetryAttempts":-1,"BisectBatchOnFunctionError":false,"TumblingWindowInSeconds":0,"DestinationConfig":{"OnFailure":{}}}`,
	"dynamodb": `{"BatchSize":100,"MaximumBatchingWindowInSeconds":0,"ParallelizationFactor":1,"MaximumRecordAgeInSeconds":-1,"MaximumRetryAttempts":-1,"BisectBatchOnFunctionError":false,"TumblingWindowInSeconds":0,"DestinationConfig":{"OnFailure":{}}}`,
}

// mapped writes a mapping as clients read it.
func mapped(c *wire.Call, m *Mapping) *mappingOutput {
	out := &mappingOutput{}
	source, _ := arn.Parse(m.Source)
	if text := mappingDefaults[source.Service]; text != "" {
		_ = json.Unmarshal([]byte(text), out) // a constant
	}
	for k, v := range m.Settings { // one at a time: a setting of another form keeps the others in
		if one, err := json.Marshal(map[string]any{k: v}); err == nil {
			_ = json.Unmarshal(one, out)
		}
	}
	out.UUID, out.EventSourceArn, out.FunctionArn, out.LastModified = m.ID, m.Source, arn.Function(c.Region, c.Caller.Account, m.Function).String(), m.Changed
	out.State, out.StateTransitionReason = "Enabled", "USER_INITIATED"
	if !m.Enabled {
		out.State = "Disabled"
	}
	if out.FunctionResponseTypes == nil {
		out.FunctionResponseTypes = []string{}
	}
	return out
}

type mappingInput struct{ UUID string }

func (s *service) getMapping(ctx context.Context, c *wire.Call, in *mappingInput) (*mappingOutput, error) {
	list, err := s.b.Mappings(ctx, c.Caller.App, "")
	if err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].ID == in.UUID {
			return mapped(c, &list[i]), nil
		}
	}
	return nil, wire.Errorf("ResourceNotFoundException", "The resource you requested does not exist.").With(http.StatusNotFound)
}

type mappingsInput struct {
	EventSourceArn, FunctionName, Marker string
	MaxItems                             *int
}

type mappingsOutput struct {
	EventSourceMappings []mappingOutput `wire:",always"`
	NextMarker          string
}

func (s *service) listMappings(ctx context.Context, c *wire.Call, in *mappingsInput) (*mappingsOutput, error) {
	list, err := s.b.Mappings(ctx, c.Caller.App, "")
	if err != nil {
		return nil, err
	}
	if in.FunctionName != "" {
		f, _, err := s.find(ctx, c, "lambda:ListEventSourceMappings", in.FunctionName, "")
		if err != nil {
			return nil, err
		}
		in.FunctionName = f.Name
	}
	var of []Mapping
	for _, m := range list {
		if (in.FunctionName == "" || m.Function == in.FunctionName) && (in.EventSourceArn == "" || sameSource(m.Source, in.EventSourceArn)) {
			of = append(of, m)
		}
	}
	from, to, next, err := page(len(of), in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	out := &mappingsOutput{EventSourceMappings: []mappingOutput{}, NextMarker: next}
	for i := range of[from:to] {
		out.EventSourceMappings = append(out.EventSourceMappings, *mapped(c, &of[from+i]))
	}
	return out, nil
}

// sameSource says whether two ARNs name the same, whatever region and account they say.
func sameSource(a, b string) bool {
	x, err := arn.Parse(a)
	y, again := arn.Parse(b)
	return err == nil && again == nil && x.Service == y.Service && strings.EqualFold(x.Resource, y.Resource)
}
