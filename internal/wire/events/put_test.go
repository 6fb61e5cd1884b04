package events

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/event"
)

func TestTraceOf_ReadsXRayHeaders(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]string{
		"Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1":   "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01",
		"Sampled=0; Parent=53995c3f42cd8ad8; Root=1-5759e988-bd862e3fe1be46a994272793": "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-00",
		"Root=1-5759e988-bd862e3fe1be46a994272793":                                     "", // no parent: nothing to hang it on
		"Root=2-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8":             "",
		"Root=1-5759e988-bd862e3fe1be46a99427279x;Parent=53995c3f42cd8ad8":             "",
		"": "",
	} {
		got := traceOf(header)
		if got != want {
			t.Errorf("%q: %q, want %q", header, got, want)
		}
		if _, ok := bus.ParseTrace(got); got != "" && !ok {
			t.Errorf("%q: %q is no traceparent", header, got)
		}
	}
}

func TestPage_GivesAllOnce(t *testing.T) {
	t.Parallel()
	all := []string{"a", "b", "c", "d", "e"}
	var got []string
	for token := ""; ; {
		list, next, err := page(all, func(s string) string { return s }, 2, token)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, list...)
		if token = next; token == "" {
			break
		}
		all = append([]string{"aa"}, all...) // what comes before it later is no trouble
		all[0], all[1] = all[1], all[0]
	}
	if strings.Join(got, "") != "abcde" {
		t.Errorf("%q", got)
	}
}

// Every entry is either refused with a code, or an event that the log takes and whose envelope has what the entry said.
func FuzzEntry_IsRefusedOrComesBack(f *testing.F) {
	f.Add("shop", "Placed", `{"n":1}`, "arn:one", "default", "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8")
	f.Add("a b", "\x00", `{}`, ",", "arn:aws:events:us-east-1:000000000000:event-bus/x", "")
	f.Add("aws.x", "", "[]", "", "\n", "Root")
	f.Fuzz(func(t *testing.T, source, kind, detail, resource, on, trace string) {
		in := entry{Source: source, DetailType: kind, Detail: detail, Resources: []string{resource}, EventBusName: on, TraceHeader: trace}
		e, name, fault := in.event(time.Unix(1_700_000_000, 0))
		if fault != nil {
			if fault.Code == "" || fault.Message == "" || e != nil {
				t.Fatalf("%+v %v", fault, e)
			}
			return
		}
		if err := e.Validate(0); err != nil || name == "" {
			t.Fatal(err, name)
		}
		var back struct {
			Source string `json:"source"`
			Kind   string `json:"detail-type"`
		}
		if err := json.Unmarshal(event.Envelope(nil, e, "0", "r"), &back); err != nil {
			t.Fatal(err)
		}
		if strings.ToValidUTF8(source, "\uFFFD") == source && back.Source != source || strings.ToValidUTF8(kind, "\uFFFD") == kind && back.Kind != kind {
			t.Fatalf("%q %q became %+v", source, kind, back)
		}
	})
}
