package scheduler

import (
	"strings"

	"github.com/ebb-run/ebb/internal/arn"
	"github.com/ebb-run/ebb/internal/wire"
)

// subjects names schedules and groups, as AWS's "Actions, resources, and condition keys for Amazon EventBridge Scheduler" has them.
func subjects(c *wire.Call, in any) []wire.Subject {
	of := func(resource string) []wire.Subject {
		if resource != "*" && !strings.HasPrefix(resource, "arn:") {
			resource = c.ARN("scheduler", resource)
		}
		return []wire.Subject{{Action: "scheduler:" + c.Operation, Resource: resource}}
	}
	group, name := wire.Member(in, "GroupName"), wire.Member(in, "Name")
	if group == "" {
		group = DefaultGroup
	}
	switch op := c.Operation; {
	case wire.Member(in, "ResourceArn") != "":
		return of(wire.Member(in, "ResourceArn"))
	case strings.HasSuffix(op, "ScheduleGroup"):
		return of("schedule-group/" + name)
	case strings.HasPrefix(op, "List"):
		return of("*")
	}
	out := of("schedule/" + group + "/" + name)
	if in, ok := in.(*createInput); ok {
		out = append(out, wire.Subject{Action: "scheduler:CreateSchedule", Resource: c.ARN("scheduler", "schedule-group/"+group), Reach: true})
		out = append(out, targeted(in.Target)...)
	}
	return out
}

// targeted is what a schedule is to be sent to.
func targeted(t *Target) (out []wire.Subject) {
	if t == nil {
		return nil
	}
	action := map[string]string{"sqs": "sqs:SendMessage", "sns": "sns:Publish", "lambda": "lambda:InvokeFunction", "events": "events:PutEvents"}
	a, _ := arn.Parse(t.Arn) // what is none is refused by the operation
	out = append(out, wire.Subject{Action: action[a.Service], Resource: t.Arn, Reach: true})
	if t.DeadLetterConfig != nil {
		out = append(out, wire.Subject{Action: "sqs:SendMessage", Resource: t.DeadLetterConfig.Arn, Reach: true})
	}
	return out
}
