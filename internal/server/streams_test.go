package server

import (
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/bus"
)

func stream(id string, properties map[string]any) app.Resource {
	return app.Resource{ID: id, Kind: app.Stream, Type: "AWS::Kinesis::Stream", Properties: properties}
}

func TestStreamOf_ReadsWhatTemplatesWrite(t *testing.T) {
	t.Parallel()
	s, d := declaring(t, &app.App{Resources: []app.Resource{
		stream("Plain", nil),
		stream("Full", map[string]any{"ShardCount": "3", "RetentionPeriodHours": 48}),
		stream("Demand", map[string]any{"StreamModeDetails": map[string]any{"StreamMode": "ON_DEMAND"}}),
		stream("Bad", map[string]any{"ShardCount": "many"}),
	}})
	d.App.Resources[2].Retain = true
	owner := map[string]string{ownerTag: "default/shop/dev"}
	for i, w := range []bus.Stream{
		{Tenant: tenant, Name: "shop-dev-Plain", Shards: 1, Tags: owner},
		{Tenant: tenant, Name: "shop-dev-Full", Shards: 3, Retention: 48 * time.Hour, Tags: owner},
		{Tenant: tenant, Name: "shop-dev-Demand", Shards: 4, Tags: map[string]string{ownerTag: "default/shop/dev", retainTag: "true"}},
	} {
		if got, err := s.streamOf(d, &d.App.Resources[i]); err != nil || !sameJSON(got, w) {
			t.Errorf("%s: %+v, %v\nwant %+v", d.App.Resources[i].ID, got, err, w)
		}
	}
	if _, err := s.streamOf(d, &d.App.Resources[3]); err == nil {
		t.Error("a count that is no number is taken")
	}
}

func TestStreamMappingOf_ReadsTheEventSourceMapping(t *testing.T) {
	t.Parallel()
	consumer := app.Resource{ID: "Fan", Kind: app.Foreign, Type: "AWS::Kinesis::StreamConsumer", Properties: map[string]any{"StreamARN": app.Attr("Clicks", "Arn"), "ConsumerName": "fan"}}
	on := func(source app.Value, settings map[string]any) app.Trigger {
		return app.Trigger{Function: "work", Kind: "stream", Enabled: true, Source: source, Settings: settings}
	}
	lit := app.Lit("arn:aws:kinesis:us-east-1:1:stream/other/consumer/fan:1")
	s, d := declaring(t, &app.App{Resources: []app.Resource{stream("Clicks", nil), queue("Lost", nil), consumer}, Triggers: []app.Trigger{
		on(app.Attr("Clicks", "Arn"), map[string]any{
			"BatchSize": 50, "MaximumBatchingWindowInSeconds": "7", "FunctionResponseTypes": []any{"ReportBatchItemFailures"}, "ParallelizationFactor": 4, "StartingPosition": "LATEST",
			"MaximumRetryAttempts": 2, "MaximumRecordAgeInSeconds": "60", "BisectBatchOnFunctionError": "true",
			"DestinationConfig": map[string]any{"OnFailure": map[string]any{"Destination": app.Attr("Lost", "Arn")}},
			"FilterCriteria":    map[string]any{"Filters": []any{map[string]any{"Pattern": `{"data":{"n":[{"numeric":[">",1]}]}}`}}},
		}),
		on(app.Attr("Fan", "Ref"), map[string]any{"StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": 1700000000.5, "MaximumRetryAttempts": -1, "MaximumRecordAgeInSeconds": -1}),
		on(lit, nil),
		{Function: "work", Kind: "stream", Source: lit},
		on(lit, map[string]any{"StartingPosition": "NOW"}),
		on(lit, map[string]any{"StartingPosition": "AT_TIMESTAMP"}),
		on(lit, map[string]any{"TumblingWindowInSeconds": 30}),
		on(lit, map[string]any{"BatchSize": 10_001}),
		on(lit, map[string]any{"DestinationConfig": map[string]any{"OnFailure": map[string]any{"Destination": "arn:aws:s3:::bucket"}}}),
		on(lit, map[string]any{"FilterCriteria": map[string]any{"Filters": []any{map[string]any{"Pattern": `{"data":5}`}}}}),
		on(app.Lit("arn:aws:dynamodb:us-east-1:1:table/users/stream/2026-01-01T00:00:00.000"), nil),
		on(app.Lit("arn:aws:sns:us-east-1:1:topic"), nil),
	}})
	list, faults := s.mappings(d)
	if len(list) != 5 || len(faults) != 7 {
		t.Fatalf("%d mappings, faults %q; want 5 and 7", len(list), faults)
	}
	m := list[0].stream
	if m.Stream != "default/shop-dev-Clicks" || m.Batch != 50 || m.Window != 7*time.Second || m.Parallel != 4 || m.Start.From != bus.Latest || m.Retries == nil || *m.Retries != 2 ||
		m.MaxAge != time.Minute || !m.Bisect || m.Failed == nil || !list[0].report || list[0].function != "shop-dev-work" {
		t.Errorf("%+v", m)
	}
	for data, want := range map[string]bool{`{"n":2}`: true, `{"n":1}`: false, "text": false} {
		b := bus.BatchOfStream(&bus.Stream{Name: "s"}, "shardId-000000000000", []bus.GotRecord{{Record: bus.Record{Key: "k", Data: []byte(data)}, Sequence: "1", Arrived: time.Unix(1, 0)}})
		if got := m.Filter(b); got != want {
			t.Errorf("%s passes: %v, want %v", data, got, want)
		}
	}
	m = list[1].stream
	if m.Stream != "default/shop-dev-Clicks" || m.Start.From != bus.AtTimestamp || m.Start.Time.UnixMilli() != 1700000000500 || m.Retries != nil || m.MaxAge != 0 {
		t.Errorf("%+v", m)
	}
	if m = list[2].stream; m.Stream != "default/other" || m.Start.From != bus.TrimHorizon || m.Batch != 100 {
		t.Errorf("%+v", m)
	}
	if names := s.streamNames(d); len(names) != 12 { // disabled ones keep their place
		t.Errorf("got %q", names)
	}
}
