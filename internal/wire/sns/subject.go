package sns

import (
	"encoding/json"
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
	out := []wire.Subject{{Action: "sns:" + action, Resource: resource}}
	switch in := in.(type) {
	case *subscribeInput:
		if in.Protocol == "sqs" || in.Protocol == "lambda" {
			out = append(out, reached(in.Endpoint)...)
		}
		out = append(out, reachedBy(in.Attributes["RedrivePolicy"])...)
	case *setSubscriptionInput:
		if in.AttributeName == "RedrivePolicy" {
			out = append(out, reachedBy(in.AttributeValue)...)
		}
	}
	return out
}

// reached is what a subscription names to be sent to.
func reached(arn string) []wire.Subject {
	if strings.Contains(arn, ":lambda:") {
		return []wire.Subject{{Action: "lambda:InvokeFunction", Resource: arn, Reach: true}}
	}
	return []wire.Subject{{Action: "sqs:SendMessage", Resource: arn, Reach: true}}
}

// reachedBy is the queue in a RedrivePolicy.
func reachedBy(policy string) []wire.Subject {
	var p struct {
		Target string `json:"deadLetterTargetArn"`
	}
	if json.Unmarshal([]byte(policy), &p) != nil || p.Target == "" {
		return nil // the operation refuses it, or there is none
	}
	return reached(p.Target)
}
