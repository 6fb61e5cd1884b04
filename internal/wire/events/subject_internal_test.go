package events

import (
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/wire"
)

func TestSubjects_NameBusesAndRules(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		operation string
		in        any
		want      string
	}{
		{"PutEvents", &putEventsInput{Entries: []entry{{}, {EventBusName: "default"}, {EventBusName: "arn:aws:events:eu-west-1:9:event-bus/own"}}}, "events:PutEvents event-bus/default, events:PutEvents event-bus/own"},
		{"PutRule", &struct{ Name, EventBusName string }{"r", "default"}, "events:PutRule rule/r"},
		{"PutTargets", &struct{ Rule, EventBusName string }{"r", "own"}, "events:PutTargets rule/own/r"},
		{"ListRules", nil, "events:ListRules *"},
		{"StartReplay", &struct{ ReplayName string }{"x"}, "events:StartReplay replay/x"},
		{"CreateEventBus", &struct{ Name string }{"x"}, "events:CreateEventBus event-bus/x"},
	} {
		var got []string
		for _, s := range subjects(&wire.Call{Operation: c.operation, Region: "us-east-1", Caller: wire.Caller{Account: "1"}}, c.in) {
			got = append(got, s.Action+" "+strings.TrimPrefix(s.Resource, "arn:aws:events:us-east-1:1:"))
		}
		if text := strings.Join(got, ", "); text != c.want {
			t.Errorf("%s: got %s", c.operation, text)
		}
	}
}
