package events

import (
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/arn"
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
	switch in := in.(type) {
	case *putTargetsInput:
		return append(of(ruleIn(in.EventBusName, in.Rule)), targeted(in.Targets)...)
	case *archiveInput:
		return append(of("archive/"+in.ArchiveName), reach("events:PutEvents", in.EventSourceArn)...)
	case *startReplayInput:
		return append(of("replay/"+in.ReplayName), append(reach("events:StartReplay", in.EventSourceArn), reach("events:PutEvents", in.Destination.Arn)...)...)
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
	return of(ruleIn(wire.Member(in, "EventBusName"), name))
}

func ruleIn(bus, name string) string {
	if b := wire.NameIn(bus, ":event-bus/"); b != "" && b != "default" {
		name = b + "/" + name
	}
	return "rule/" + name
}

func reach(action, arn string) []wire.Subject {
	return []wire.Subject{{Action: action, Resource: arn, Reach: true}}
}

// targeted is what targets are to be sent to.
func targeted(list []Target) (out []wire.Subject) {
	for _, t := range list {
		action := ""
		switch a, _ := arn.Parse(t.Arn); a.Service { // what is no ARN is refused by the operation
		case "sqs":
			action = "sqs:SendMessage"
		case "sns":
			action = "sns:Publish"
		case "lambda":
			action = "lambda:InvokeFunction"
		case "events":
			action = "events:PutEvents"
		}
		out = append(out, reach(action, t.Arn)...)
		if t.DeadLetterConfig != nil {
			out = append(out, reach("sqs:SendMessage", t.DeadLetterConfig.Arn)...)
		}
	}
	return out
}
