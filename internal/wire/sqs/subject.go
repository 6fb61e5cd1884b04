package sqs

import (
	"strings"

	"github.com/ebb-run/ebb/internal/wire"
)

// subjects names the queue. A batch is allowed by what it consists of, as in AWS's "Actions, resources, and condition keys for Amazon SQS".
func subjects(c *wire.Call, in any) []wire.Subject {
	resource := "*"
	if k, err := key(c, wire.Member(in, "QueueUrl", "QueueName", "SourceArn")); err == nil {
		resource = arnOf(c, nameOf(k))
	}
	return []wire.Subject{{Action: "sqs:" + strings.TrimSuffix(c.Operation, "Batch"), Resource: resource}}
}
