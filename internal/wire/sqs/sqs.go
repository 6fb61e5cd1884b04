// Package sqs answers Amazon SQS over the bus's queues, in the JSON protocol and the older query one.
//
// Main type: none; [New] gives the wire.Service. Source: Amazon SQS API Reference, 2012-11-05.
//
// Guarantees:
//
//  1. SendMessage and SendMessageBatch answer when the messages are durable, DeleteMessage when the deletion is.
//  2. Digests of bodies and attributes are those that clients compute.
//  3. A queue is found by its name whatever region and account its URL or ARN says: names are the caller's Tenant's.
//  4. A batch is refused whole for what AWS refuses it whole for, and else answers each entry.
//
// Differences: a message has at most 860 KiB, as one has to fit into a block of the log; attributes without meaning here (keys, policies)
// are kept and given back; a purge may be repeated at once.
package sqs

import (
	"context"
	"strings"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/shape"
)

// Hidden begins the tags that hold a queue's attributes which the bus does not know; clients do not see them as tags.
const hidden = "ebb:"

const attributeTag = hidden + "sqs:"

type service struct {
	bus   *bus.Bus
	tasks tasks
}

// New returns the service. bus is asked for with each request, so that it may be opened later.
func New(b *bus.Bus) *wire.Service {
	s := &service{bus: b}
	s.tasks.init()
	return &wire.Service{
		Name: "sqs", Hosts: []string{"queue"}, TypePrefix: "com.amazonaws.sqs#", QueryCodes: queryCodes, MaxBody: 4 << 20,
		Prepare: queueOfPath, Fault: faultOf, Translate: translate,
		Operations: map[string]wire.Operation{
			"CreateQueue":                  wire.Op(s.createQueue),
			"DeleteQueue":                  wire.Op(s.deleteQueue),
			"GetQueueUrl":                  wire.Op(s.getQueueURL),
			"ListQueues":                   wire.Op(s.listQueues),
			"GetQueueAttributes":           wire.Op(s.getQueueAttributes),
			"SetQueueAttributes":           wire.Op(s.setQueueAttributes),
			"AddPermission":                wire.Op(s.addPermission),
			"RemovePermission":             wire.Op(s.removePermission),
			"PurgeQueue":                   wire.Op(s.purgeQueue),
			"ListQueueTags":                wire.Op(s.listQueueTags),
			"TagQueue":                     wire.Op(s.tagQueue),
			"UntagQueue":                   wire.Op(s.untagQueue),
			"ListDeadLetterSourceQueues":   wire.Op(s.listDeadLetterSourceQueues),
			"SendMessage":                  wire.Op(s.sendMessage),
			"SendMessageBatch":             wire.Op(s.sendMessageBatch),
			"ReceiveMessage":               wire.Op(s.receiveMessage),
			"DeleteMessage":                wire.Op(s.deleteMessage),
			"DeleteMessageBatch":           wire.Op(s.deleteMessageBatch),
			"ChangeMessageVisibility":      wire.Op(s.changeMessageVisibility),
			"ChangeMessageVisibilityBatch": wire.Op(s.changeMessageVisibilityBatch),
			"StartMessageMoveTask":         wire.Op(s.startMessageMoveTask),
			"ListMessageMoveTasks":         wire.Op(s.listMessageMoveTasks),
			"CancelMessageMoveTask":        wire.Op(s.cancelMessageMoveTask),
		},
	}
}

// queryCodes are the error codes of the query protocol that differ from those of JSON.
var queryCodes = map[string]string{
	"BatchEntryIdsNotDistinct":     "AWS.SimpleQueueService.BatchEntryIdsNotDistinct",
	"BatchRequestTooLong":          "AWS.SimpleQueueService.BatchRequestTooLong",
	"EmptyBatchRequest":            "AWS.SimpleQueueService.EmptyBatchRequest",
	"InvalidBatchEntryId":          "AWS.SimpleQueueService.InvalidBatchEntryId",
	"MessageNotInflight":           "AWS.SimpleQueueService.MessageNotInflight",
	"PurgeQueueInProgress":         "AWS.SimpleQueueService.PurgeQueueInProgress",
	"QueueDeletedRecently":         "AWS.SimpleQueueService.QueueDeletedRecently",
	"QueueDoesNotExist":            "AWS.SimpleQueueService.NonExistentQueue",
	"QueueNameExists":              "QueueAlreadyExists",
	"TooManyEntriesInBatchRequest": "AWS.SimpleQueueService.TooManyEntriesInBatchRequest",
	"UnsupportedOperation":         "AWS.SimpleQueueService.UnsupportedOperation",
}

// queueOfPath takes the queue of requests that are sent to its URL, as old clients do.
func queueOfPath(c *wire.Call) {
	if c.Protocol == shape.Query && strings.Count(c.Path, "/") >= 2 && !c.Query.Has("QueueUrl") {
		c.Query.Set("QueueUrl", c.Path)
	}
}

func faultOf(_ *wire.Call, f *shape.Fault) *wire.Error {
	if f.Kind == shape.Invalid && f.Problems[0].Missing {
		return missing(f.Problems[0].Member)
	}
	return nil
}

func missing(parameter string) *wire.Error {
	return wire.Errorf("MissingParameter", "The request must contain the parameter %s.", parameter)
}

func invalid(value any, parameter, reason string) *wire.Error {
	return wire.Errorf("InvalidParameterValue", "Value %v for parameter %s is invalid. Reason: %s", value, parameter, reason)
}

func noQueue(c *wire.Call) *wire.Error {
	if c.Protocol == shape.Query {
		return wire.Errorf("QueueDoesNotExist", "The specified queue does not exist for this wsdl version.")
	}
	return wire.Errorf("QueueDoesNotExist", "The specified queue does not exist.")
}

// translate tells of errors of the bus.
func translate(c *wire.Call, err error) *wire.Error {
	switch errs.CodeOf(err) {
	case errs.NotFound:
		return noQueue(c)
	case errs.Invalid:
		return wire.Errorf("InvalidParameterValue", "%s", err.Error())
	case errs.TooLarge:
		return wire.Errorf("InvalidParameterValue", "One or more parameters are invalid. Reason: %s", err.Error())
	case errs.Throttled:
		return wire.Errorf("RequestThrottled", "%s", err.Error()).With(403)
	case errs.Unavailable, errs.Timeout, errs.Canceled:
		return wire.Errorf("ServiceUnavailable", "The queue cannot be reached now. Please try again.").With(503)
	}
	return nil
}

// key is the queue that a URL, an ARN or a name means, among those of the caller.
func key(c *wire.Call, queue string) (string, error) {
	name := strings.TrimRight(queue, "/")
	name = name[strings.LastIndexAny(name, "/:")+1:]
	if name == "" {
		return "", wire.Errorf("InvalidAddress", "The address %s is not valid for this endpoint.", queue)
	}
	return c.Caller.Tenant + "/" + name, nil
}

func nameOf(key string) string { return key[strings.LastIndexByte(key, '/')+1:] }

func arnOf(c *wire.Call, name string) string {
	return "arn:aws:sqs:" + c.Region + ":" + c.Caller.Account + ":" + name
}

func urlOf(c *wire.Call, name string) string {
	return c.BaseURL() + "/" + c.Caller.Account + "/" + name
}

// status gives a queue as it is.
func (s *service) status(ctx context.Context, c *wire.Call, queue string) (bus.QueueStatus, error) {
	k, err := key(c, queue)
	if err != nil {
		return bus.QueueStatus{}, err
	}
	return s.bus.QueueStatus(ctx, k)
}

type none struct{}

type queueInput struct{ QueueUrl string } //nolint:revive // the member's name
