package sqs

import (
	"strings"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/wire"
)

// subjects names the queue. A batch is allowed by what it consists of, as in AWS's "Actions, resources, and condition keys for Amazon SQS".
func subjects(c *wire.Call, in any) []wire.Subject {
	resource := "*"
	if k, err := key(c, wire.Member(in, "QueueUrl", "QueueName", "SourceArn")); err == nil {
		resource = arnOf(c, nameOf(k))
	}
	out := []wire.Subject{{Action: "sqs:" + strings.TrimSuffix(c.Operation, "Batch"), Resource: resource}}
	var also string // where messages of the queue are to go
	switch in := in.(type) {
	case *createQueueInput:
		also = deadLettersIn(in.Attributes)
	case *setAttributesInput:
		also = deadLettersIn(in.Attributes)
	case *startMoveInput:
		also = in.DestinationArn
	}
	if k, err := key(c, also); err == nil {
		out = append(out, wire.Subject{Action: "sqs:SendMessage", Resource: arnOf(c, nameOf(k)), Reach: true})
	}
	return out
}

// deadLettersIn is the queue that attributes name for dead letters.
func deadLettersIn(attributes map[string]string) string {
	var q bus.Queue
	if value := attributes["RedrivePolicy"]; redrive(&q, value) != nil {
		return "" // the operation refuses it
	}
	return q.DeadLetters
}
