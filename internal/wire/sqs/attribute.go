package sqs

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/wire"
)

// seconds are attributes that are a time, with their bounds. AWS: SetQueueAttributes.
var seconds = map[string]struct {
	least, most int
	set         func(*bus.Queue, time.Duration)
}{
	"DelaySeconds":                  {0, 900, func(q *bus.Queue, d time.Duration) { q.Delay = d }},
	"VisibilityTimeout":             {0, 43200, func(q *bus.Queue, d time.Duration) { q.Visibility = &d }},
	"MessageRetentionPeriod":        {60, 1209600, func(q *bus.Queue, d time.Duration) { q.Retention = d }},
	"ReceiveMessageWaitTimeSeconds": {0, 20, func(q *bus.Queue, d time.Duration) { q.Wait = d }},
}

// kept are attributes that are stored and given back, no more.
var kept = map[string]bool{
	"Policy": true, "KmsMasterKeyId": true, "KmsDataKeyReusePeriodSeconds": true, "SqsManagedSseEnabled": true, "RedriveAllowPolicy": true, "FifoThroughputLimit": true,
}

const (
	leastSize = 1024
	mostSize  = 1 << 20 // AWS's; a larger setting than the bus has is its own
)

func badAttribute(name string, value any) *wire.Error {
	return wire.Errorf("InvalidAttributeValue", "Invalid value for the parameter %s. Reason: %v is not one that it can have.", name, value)
}

// apply sets attributes of a queue. create allows those that a queue keeps for its life.
func apply(q *bus.Queue, attributes map[string]string, create bool) error {
	if q.Tags == nil {
		q.Tags = map[string]string{}
	}
	for name, value := range attributes {
		if err := applyOne(q, name, value, create); err != nil {
			return err
		}
	}
	return nil
}

func applyOne(q *bus.Queue, name, value string, create bool) error {
	if t, ok := seconds[name]; ok {
		n, err := strconv.Atoi(value)
		if err != nil || n < t.least || n > t.most {
			return badAttribute(name, value)
		}
		t.set(q, time.Duration(n)*time.Second)
		return nil
	}
	switch name {
	case "MaximumMessageSize":
		n, err := strconv.Atoi(value)
		if err != nil || n < leastSize || n > mostSize {
			return badAttribute(name, value)
		}
		q.MaxSize = min(n, bus.MaxMessage)
		q.Tags[attributeTag+name] = value
	case "RedrivePolicy":
		return redrive(q, value)
	case "FifoQueue":
		fifo, err := strconv.ParseBool(value)
		if err != nil || !create && fifo != q.FIFO || create && !fifo {
			return wire.Errorf("InvalidAttributeName", "Unknown Attribute FifoQueue.")
		}
		q.FIFO = fifo
	case "ContentBasedDeduplication", "DeduplicationScope", "FifoThroughputLimit":
		if !q.FIFO && !strings.HasSuffix(q.Name, ".fifo") {
			return wire.Errorf("InvalidAttributeName", "You can specify the %s only when FifoQueue is set to true.", name)
		}
		return applyFIFO(q, name, value)
	default:
		if !kept[name] {
			return wire.Errorf("InvalidAttributeName", "Unknown Attribute %s.", name)
		}
		if value == "" {
			delete(q.Tags, attributeTag+name)
		} else {
			q.Tags[attributeTag+name] = value
		}
	}
	return nil
}

func applyFIFO(q *bus.Queue, name, value string) error {
	switch name {
	case "ContentBasedDeduplication":
		on, err := strconv.ParseBool(value)
		if err != nil {
			return badAttribute(name, value)
		}
		q.ContentDedup = on
	case "DeduplicationScope":
		if value != "queue" && value != "messageGroup" {
			return badAttribute(name, value)
		}
		q.GroupDedup = value == "messageGroup"
	default:
		if value != "perQueue" && value != "perMessageGroupId" {
			return badAttribute(name, value)
		}
		q.Tags[attributeTag+name] = value
	}
	return nil
}

// count is a number, or its text as older clients write it.
type count int

// UnmarshalJSON reads both.
func (n *count) UnmarshalJSON(data []byte) error {
	v, err := strconv.Atoi(strings.Trim(string(data), `"`))
	*n = count(v)
	return err
}

func redrive(q *bus.Queue, value string) error {
	if value == "" {
		q.DeadLetters, q.MaxReceives = "", 0
		return nil
	}
	var p struct {
		Target string `json:"deadLetterTargetArn"`
		Max    count  `json:"maxReceiveCount"`
	}
	if err := json.Unmarshal([]byte(value), &p); err != nil || p.Target == "" || p.Max < 1 || p.Max > 1000 {
		return wire.Errorf("InvalidParameterValue", "Value %s for parameter RedrivePolicy is invalid. Reason: Redrive policy does not contain mandatory attributes or they are not valid: deadLetterTargetArn, maxReceiveCount from 1 to 1000.", value)
	}
	q.DeadLetters, q.MaxReceives = p.Target[strings.LastIndexByte(p.Target, ':')+1:], int(p.Max)
	return nil
}

// attributesOf are all attributes of a queue.
func attributesOf(c *wire.Call, st *bus.QueueStatus) map[string]string {
	q := &st.Queue
	number := func(n int) string { return strconv.Itoa(n) }
	secs := func(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) }
	visibility, retention, size := 30*time.Second, 4*24*time.Hour, bus.DefaultData
	if q.Visibility != nil {
		visibility = *q.Visibility
	}
	if q.Retention > 0 {
		retention = q.Retention
	}
	if q.MaxSize > 0 {
		size = q.MaxSize
	}
	out := map[string]string{
		"QueueArn": arnOf(c, q.Name), "ApproximateNumberOfMessages": number(st.Visible), "ApproximateNumberOfMessagesNotVisible": number(st.InFlight),
		"ApproximateNumberOfMessagesDelayed": number(st.Delayed), "CreatedTimestamp": strconv.FormatInt(st.Created.Unix(), 10),
		"LastModifiedTimestamp": strconv.FormatInt(st.Changed.Unix(), 10), "VisibilityTimeout": secs(visibility), "MaximumMessageSize": number(size),
		"MessageRetentionPeriod": secs(retention), "DelaySeconds": secs(q.Delay), "ReceiveMessageWaitTimeSeconds": secs(q.Wait), "SqsManagedSseEnabled": "true",
	}
	if q.FIFO {
		scope := "queue"
		if q.GroupDedup {
			scope = "messageGroup"
		}
		out["FifoQueue"], out["ContentBasedDeduplication"], out["DeduplicationScope"] = "true", strconv.FormatBool(q.ContentDedup), scope
		out["FifoThroughputLimit"] = "perQueue"
	}
	if q.DeadLetters != "" {
		out["RedrivePolicy"] = fmt.Sprintf(`{"deadLetterTargetArn":"%s","maxReceiveCount":%d}`, arnOf(c, nameOf(q.DeadLetters)), q.MaxReceives)
	}
	for k, v := range q.Tags {
		if name, ok := strings.CutPrefix(k, attributeTag); ok {
			out[name] = v
		}
	}
	return out
}

// queueAttributes are those that can be asked for.
func isQueueAttribute(name string) bool {
	switch name {
	case "QueueArn", "ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessagesDelayed", "CreatedTimestamp",
		"LastModifiedTimestamp", "MaximumMessageSize", "RedrivePolicy", "FifoQueue", "ContentBasedDeduplication", "DeduplicationScope":
		return true
	}
	_, timed := seconds[name]
	return timed || kept[name]
}
