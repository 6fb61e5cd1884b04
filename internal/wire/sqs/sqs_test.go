package sqs_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/wire/sqs"
	"github.com/ebb-run/ebb/internal/wire/wiretest"
)

func endpoint(t *testing.T) *wiretest.Endpoint {
	t.Helper()
	return wiretest.New(t, sqs.New(wiretest.Bus(t, bus.Options{})))
}

// call sends JSON and returns the status and the answer's members.
func call(t *testing.T, e *wiretest.Endpoint, operation string, in map[string]any) (int, map[string]any) {
	t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	resp, text := e.JSON(t, "sqs", "AmazonSQS."+operation, string(body))
	out := map[string]any{}
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatalf("%s: %s: %v", operation, text, err)
	}
	if q := resp.Header.Get("X-Amzn-Query-Error"); q != "" {
		out["query"] = q
	}
	return resp.StatusCode, out
}

// done is call where it has to succeed.
func done(t *testing.T, e *wiretest.Endpoint, operation string, in map[string]any) map[string]any {
	t.Helper()
	status, out := call(t, e, operation, in)
	if status != 200 {
		t.Fatalf("%s: %d %v", operation, status, out)
	}
	return out
}

func create(t *testing.T, e *wiretest.Endpoint, name string, attributes map[string]string) string {
	t.Helper()
	return done(t, e, "CreateQueue", map[string]any{"QueueName": name, "Attributes": attributes})["QueueUrl"].(string)
}

type in = map[string]any

func TestSQS_SendsReceivesAndDeletes(t *testing.T) {
	t.Parallel()
	e := endpoint(t)
	u := create(t, e, "q", nil)
	sent := done(t, e, "SendMessage", in{
		"QueueUrl": u, "MessageBody": "hello",
		"MessageAttributes":       in{"n": in{"DataType": "Number.int", "StringValue": "5"}, "b": in{"DataType": "Binary", "BinaryValue": "AP8="}},
		"MessageSystemAttributes": in{"AWSTraceHeader": in{"DataType": "String", "StringValue": "Root=1-2-3"}},
	})
	if sent["MD5OfMessageBody"] != "5d41402abc4b2a76b9719d911017c592" || sent["MD5OfMessageAttributes"] != "7021aa57cc919a0909fad14c4ac792bd" {
		t.Errorf("digests: %v", sent)
	}
	got := done(t, e, "ReceiveMessage", in{"QueueUrl": strings.Replace(u, "000000000000", "123456789012", 1), "AttributeNames": []string{"All"}, "MessageAttributeNames": []string{"x.*", "n"}, "WaitTimeSeconds": 20})
	m := got["Messages"].([]any)[0].(map[string]any)
	a := m["Attributes"].(map[string]any)
	if m["Body"] != "hello" || m["MessageId"] != sent["MessageId"] || a["AWSTraceHeader"] != "Root=1-2-3" || a["ApproximateReceiveCount"] != "1" || len(m["MessageAttributes"].(map[string]any)) != 1 {
		t.Errorf("received: %v", m)
	}
	done(t, e, "ChangeMessageVisibility", in{"QueueUrl": u, "ReceiptHandle": m["ReceiptHandle"], "VisibilityTimeout": 0})
	got = done(t, e, "ReceiveMessage", in{"QueueUrl": u, "WaitTimeSeconds": 20})
	m = got["Messages"].([]any)[0].(map[string]any)
	if m["Attributes"] != nil || m["MessageAttributes"] != nil {
		t.Errorf("attributes that were not asked for: %v", m)
	}
	done(t, e, "DeleteMessage", in{"QueueUrl": u, "ReceiptHandle": m["ReceiptHandle"]})
	if got := done(t, e, "ReceiveMessage", in{"QueueUrl": u}); got["Messages"] != nil {
		t.Errorf("after its deletion: %v", got)
	}
	attributes := done(t, e, "GetQueueAttributes", in{"QueueUrl": u, "AttributeNames": []string{"All"}})["Attributes"].(map[string]any)
	if attributes["ApproximateNumberOfMessages"] != "0" || attributes["QueueArn"] != "arn:aws:sqs:us-east-1:000000000000:q" {
		t.Errorf("attributes: %v", attributes)
	}
}

func TestSQS_AnswersTheQueryProtocol(t *testing.T) {
	t.Parallel()
	e := endpoint(t)
	form := func(path string, pairs ...string) string {
		t.Helper()
		v := url.Values{"Version": {"2012-11-05"}}
		for i := 0; i < len(pairs); i += 2 {
			v.Set(pairs[i], pairs[i+1])
		}
		_, body := e.Form(t, "sqs", path, v.Encode())
		return body
	}
	has := func(body string, parts ...string) {
		t.Helper()
		for _, p := range parts {
			if !strings.Contains(body, p) {
				t.Errorf("no %s in %s", p, body)
			}
		}
	}
	has(form("/", "Action", "CreateQueue", "QueueName", "q", "Attribute.1.Name", "VisibilityTimeout", "Attribute.1.Value", "7", "Tag.1.Key", "a", "Tag.1.Value", "b"),
		`<CreateQueueResponse xmlns="http://queue.amazonaws.com/doc/2012-11-05/"><CreateQueueResult><QueueUrl>`+e.URL+`/000000000000/q</QueueUrl></CreateQueueResult><ResponseMetadata><RequestId>`)
	has(form("/000000000000/q", "Action", "SendMessage", "MessageBody", "a<b", "MessageAttribute.1.Name", "k", "MessageAttribute.1.Value.DataType", "String", "MessageAttribute.1.Value.StringValue", "v"),
		"<MD5OfMessageAttributes>0a77b0642718c3d9dd47090567d11e0d</MD5OfMessageAttributes>")
	has(form("/000000000000/q", "Action", "SendMessageBatch", "SendMessageBatchRequestEntry.1.Id", "x", "SendMessageBatchRequestEntry.1.MessageBody", "two",
		"SendMessageBatchRequestEntry.2.Id", "y", "SendMessageBatchRequestEntry.2.MessageBody", "\x01"),
		"<SendMessageBatchResultEntry><Id>x</Id>", "<BatchResultErrorEntry><Id>y</Id><Code>InvalidMessageContents</Code>")
	has(form("/000000000000/q", "Action", "ReceiveMessage", "MaxNumberOfMessages", "10", "AttributeName.1", "ApproximateReceiveCount", "MessageAttributeName.1", "All", "WaitTimeSeconds", "20"),
		"<Body>a&lt;b</Body>", "<Attribute><Name>ApproximateReceiveCount</Name><Value>1</Value></Attribute>",
		"<MessageAttribute><Name>k</Name><Value><DataType>String</DataType><StringValue>v</StringValue></Value></MessageAttribute>")
	has(form("/000000000000/q", "Action", "GetQueueAttributes", "AttributeName.1", "VisibilityTimeout"), "<Attribute><Name>VisibilityTimeout</Name><Value>7</Value></Attribute>")
	has(form("/", "Action", "ListQueueTags", "QueueUrl", "q"), "<Tag><Key>a</Key><Value>b</Value></Tag>")
	has(form("/", "Action", "ListQueues"), "<QueueUrl>"+e.URL+"/000000000000/q</QueueUrl>")
	has(form("/", "Action", "GetQueueUrl", "QueueName", "none"), "<ErrorResponse", "<Type>Sender</Type><Code>AWS.SimpleQueueService.NonExistentQueue</Code><Message>The specified queue does not exist for this wsdl version.</Message>")
	has(form("/", "Action", "SendMessage", "QueueUrl", "q"), "<Code>MissingParameter</Code><Message>The request must contain the parameter MessageBody.</Message>")
}

func TestSQS_RefusesWhatAWSRefuses(t *testing.T) {
	t.Parallel()
	e := endpoint(t)
	u := create(t, e, "q", nil)
	f := create(t, e, "f.fifo", map[string]string{"FifoQueue": "true"})
	entries := func(n int) (list []in) {
		for i := range n {
			list = append(list, in{"Id": fmt.Sprint("e", i), "MessageBody": "x"})
		}
		return list
	}
	for _, c := range []struct {
		name, operation string
		in              in
		code, query     string
	}{
		{"no such queue", "SendMessage", in{"QueueUrl": "none", "MessageBody": "x"}, "QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue;Sender"},
		{"no body", "SendMessage", in{"QueueUrl": u}, "MissingParameter", "MissingParameter;Sender"},
		{"empty body", "SendMessage", in{"QueueUrl": u, "MessageBody": ""}, "MissingParameter", ""},
		{"body is a number", "SendMessage", in{"QueueUrl": u, "MessageBody": 5}, "SerializationException", ""},
		{"control character", "SendMessage", in{"QueueUrl": u, "MessageBody": "\x01"}, "InvalidMessageContents", ""},
		{"too long", "SendMessage", in{"QueueUrl": u, "MessageBody": strings.Repeat("x", 1<<20+1)}, "InvalidParameterValue", ""},
		{"delay", "SendMessage", in{"QueueUrl": u, "MessageBody": "x", "DelaySeconds": 901}, "InvalidParameterValue", ""},
		{"dedup on a standard queue", "SendMessage", in{"QueueUrl": u, "MessageBody": "x", "MessageDeduplicationId": "d"}, "InvalidParameterValue", ""},
		{"attribute without type", "SendMessage", in{"QueueUrl": u, "MessageBody": "x", "MessageAttributes": in{"a": in{"StringValue": "v"}}}, "MissingParameter", ""},
		{"attribute of no known type", "SendMessage", in{"QueueUrl": u, "MessageBody": "x", "MessageAttributes": in{"a": in{"DataType": "Map", "StringValue": "v"}}}, "InvalidParameterValue", ""},
		{"no group", "SendMessage", in{"QueueUrl": f, "MessageBody": "x"}, "MissingParameter", ""},
		{"no dedup", "SendMessage", in{"QueueUrl": f, "MessageBody": "x", "MessageGroupId": "g"}, "InvalidParameterValue", ""},
		{"empty batch", "SendMessageBatch", in{"QueueUrl": u, "Entries": []in{}}, "EmptyBatchRequest", "AWS.SimpleQueueService.EmptyBatchRequest;Sender"},
		{"large batch", "SendMessageBatch", in{"QueueUrl": u, "Entries": entries(11)}, "TooManyEntriesInBatchRequest", ""},
		{"ids twice", "DeleteMessageBatch", in{"QueueUrl": u, "Entries": []in{{"Id": "a", "ReceiptHandle": "x"}, {"Id": "a", "ReceiptHandle": "y"}}}, "BatchEntryIdsNotDistinct", ""},
		{"id of other characters", "DeleteMessageBatch", in{"QueueUrl": u, "Entries": []in{{"Id": "a b", "ReceiptHandle": "x"}}}, "InvalidBatchEntryId", ""},
		{"too many messages", "ReceiveMessage", in{"QueueUrl": u, "MaxNumberOfMessages": 11}, "InvalidParameterValue", ""},
		{"too long a wait", "ReceiveMessage", in{"QueueUrl": u, "WaitTimeSeconds": 21}, "InvalidParameterValue", ""},
		{"unknown attribute", "ReceiveMessage", in{"QueueUrl": u, "AttributeNames": []string{"Nope"}}, "InvalidAttributeName", ""},
		{"receipt", "DeleteMessage", in{"QueueUrl": u, "ReceiptHandle": "nonsense"}, "ReceiptHandleIsInvalid", ""},
		{"name", "CreateQueue", in{"QueueName": "a b"}, "InvalidParameterValue", ""},
		{"other attributes", "CreateQueue", in{"QueueName": "q", "Attributes": in{"DelaySeconds": "5"}}, "QueueNameExists", "QueueAlreadyExists;Sender"},
		{"attribute's value", "SetQueueAttributes", in{"QueueUrl": u, "Attributes": in{"DelaySeconds": "901"}}, "InvalidAttributeValue", ""},
		{"attribute's name", "SetQueueAttributes", in{"QueueUrl": u, "Attributes": in{"Nope": "1"}}, "InvalidAttributeName", ""},
		{"move from what is no dead-letter queue", "StartMessageMoveTask", in{"SourceArn": "arn:aws:sqs:us-east-1:000000000000:q"}, "InvalidParameterValue", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			status, out := call(t, e, c.operation, c.in)
			if status < 400 || status > 404 || out["__type"] != "com.amazonaws.sqs#"+c.code || out["message"] == "" || c.query != "" && out["query"] != c.query {
				t.Errorf("%d %v, want %s", status, out, c.code)
			}
		})
	}
}

func TestSQS_KeepsOrderAndDropsDuplicatesOfFIFO(t *testing.T) {
	t.Parallel()
	e := endpoint(t)
	u := create(t, e, "f.fifo", map[string]string{"FifoQueue": "true", "ContentBasedDeduplication": "true"})
	first := done(t, e, "SendMessage", in{"QueueUrl": u, "MessageBody": "a", "MessageGroupId": "g"})
	again := done(t, e, "SendMessage", in{"QueueUrl": u, "MessageBody": "a", "MessageGroupId": "g"})
	if first["MessageId"] != again["MessageId"] || first["SequenceNumber"] == nil || first["SequenceNumber"] != again["SequenceNumber"] {
		t.Errorf("%v %v", first, again)
	}
	done(t, e, "SendMessage", in{"QueueUrl": u, "MessageBody": "b", "MessageGroupId": "g"})
	got := done(t, e, "ReceiveMessage", in{"QueueUrl": u, "MaxNumberOfMessages": 10, "WaitTimeSeconds": 20})["Messages"].([]any)
	if len(got) != 2 || got[0].(map[string]any)["Body"] != "a" || got[1].(map[string]any)["Body"] != "b" {
		t.Errorf("%v", got)
	}
}

func TestSQS_MovesDeadLetters(t *testing.T) {
	t.Parallel()
	e := endpoint(t)
	dead := create(t, e, "dead", nil)
	u := create(t, e, "q", map[string]string{"VisibilityTimeout": "0", "RedrivePolicy": `{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:dead","maxReceiveCount":"1"}`})
	done(t, e, "SendMessage", in{"QueueUrl": u, "MessageBody": "x"})
	if got := done(t, e, "ReceiveMessage", in{"QueueUrl": u, "WaitTimeSeconds": 20}); got["Messages"] == nil {
		t.Fatal("it did not come")
	}
	done(t, e, "ReceiveMessage", in{"QueueUrl": u}) // a receive beyond the last moves it
	m := done(t, e, "ReceiveMessage", in{"QueueUrl": dead, "VisibilityTimeout": 0, "WaitTimeSeconds": 20, "AttributeNames": []string{"DeadLetterQueueSourceArn"}})["Messages"].([]any)[0].(map[string]any)
	if a, _ := m["Attributes"].(map[string]any); a["DeadLetterQueueSourceArn"] != "arn:aws:sqs:us-east-1:000000000000:q" {
		t.Errorf("%v", m)
	}
	sources := done(t, e, "ListDeadLetterSourceQueues", in{"QueueUrl": dead})
	if list := sources["queueUrls"].([]any); len(list) != 1 || list[0] != u {
		t.Errorf("%v", sources)
	}
	done(t, e, "StartMessageMoveTask", in{"SourceArn": "arn:aws:sqs:us-east-1:000000000000:dead"})
	back := done(t, e, "ReceiveMessage", in{"QueueUrl": u, "WaitTimeSeconds": 20})
	if back["Messages"] == nil {
		t.Errorf("it did not come back: %v", done(t, e, "ListMessageMoveTasks", in{"SourceArn": "arn:aws:sqs:us-east-1:000000000000:dead"}))
	}
}
