package sns

import (
	"strings"

	"github.com/ebb-run/ebb/internal/wire"
)

// subjects names the topic, as AWS's "Actions, resources, and condition keys for Amazon SNS" has it. A subscription's ARN begins with its topic's.
func subjects(c *wire.Call, in any) []wire.Subject {
	action := c.Operation
	if action == "PublishBatch" {
		action = "Publish"
	}
	resource := wire.Member(in, "TopicArn", "TargetArn", "ResourceArn")
	if name := wire.Member(in, "Name"); name != "" {
		resource = arnOf(c, name)
	}
	if s := wire.Member(in, "SubscriptionArn"); s != "" {
		resource = s[:max(0, strings.LastIndexByte(s, ':'))]
	}
	if resource == "" {
		resource = "*"
	}
	return []wire.Subject{{Action: "sns:" + action, Resource: resource}}
}
