package events

import (
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/wire"
)

// subjects names buses, rules, archives and replays, as AWS's "Actions, resources, and condition keys for Amazon EventBridge" has them.
func subjects(c *wire.Call, in any) []wire.Subject {
	of := func(resource string) []wire.Subject {
		if resource != "*" && !strings.HasPrefix(resource, "arn:") {
			resource = c.ARN("events", resource)
		}
		return []wire.Subject{{Action: "events:" + c.Operation, Resource: resource}}
	}
	bus := func(name string) string {
		if name == "" {
			name = "default"
		}
		return "event-bus/" + wire.NameIn(name, ":event-bus/")
	}
	if p, ok := in.(*putEventsInput); ok {
		var out []wire.Subject
		for _, e := range p.Entries {
			if s := of(bus(e.EventBusName)); !slices.ContainsFunc(out, func(o wire.Subject) bool { return o.Resource == s[0].Resource }) {
				out = append(out, s...)
			}
		}
		return out
	}
	name := wire.Member(in, "Name", "Rule")
	switch op := c.Operation; {
	case wire.Member(in, "ResourceARN") != "":
		return of(wire.Member(in, "ResourceARN"))
	case strings.HasPrefix(op, "List") && op != "ListTargetsByRule", op == "TestEventPattern":
		return of("*")
	case strings.HasSuffix(op, "EventBus"):
		return of(bus(name))
	case strings.HasSuffix(op, "Archive"):
		return of("archive/" + wire.Member(in, "ArchiveName"))
	case strings.HasSuffix(op, "Replay"):
		return of("replay/" + wire.Member(in, "ReplayName"))
	}
	if b := wire.NameIn(wire.Member(in, "EventBusName"), ":event-bus/"); b != "" && b != "default" {
		name = b + "/" + name
	}
	return of("rule/" + name)
}
