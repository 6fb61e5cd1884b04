// Package strict decodes the batches of the golden files into the types of aws-lambda-go, unknown fields refused, writes them again, and holds them to
// the samples that come with that library.
package strict

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"
)

var files = map[string]func() any{
	"sqs.json":              func() any { return new(events.SQSEvent) },
	"sqs-fifo.json":         func() any { return new(events.SQSEvent) },
	"sns.json":              func() any { return new(events.SNSEvent) },
	"sns-bare.json":         func() any { return new(events.SNSEvent) },
	"kinesis.json":          func() any { return new(events.KinesisEvent) },
	"dynamodb.json":         func() any { return new(events.DynamoDBEvent) },
	"s3.json":               func() any { return new(events.S3Event) },
	"eventbridge.json":      func() any { return new(events.EventBridgeEvent) },
	"eventbridge-text.json": func() any { return new(events.EventBridgeEvent) },
	"schedule.json":         func() any { return new(events.EventBridgeEvent) },
	"scheduler.json":        func() any { return new(events.EventBridgeEvent) },
}

func TestBatches_DecodeStrictlyAndComeBackTheSame(t *testing.T) {
	found, err := filepath.Glob("../*.json")
	if err != nil || len(found) != len(files) {
		t.Fatalf("%d golden files, %d are read: %v", len(found), len(files), err)
	}
	for name, into := range files {
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile("../" + name)
			if err != nil {
				t.Fatal(err)
			}
			dec := json.NewDecoder(bytes.NewReader(data))
			dec.DisallowUnknownFields()
			v := into()
			if err := dec.Decode(v); err != nil {
				t.Fatal(err)
			}
			again, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			same(t, "", read(t, data), read(t, again))
		})
	}
}

func read(t *testing.T, data []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// same compares what was sent with what the library writes again. It writes fields that were not there as empty ones, null as the empty text, and the
// key of an object of S3 a second time, decoded.
func same(t *testing.T, at string, sent, again any) {
	t.Helper()
	switch sent := sent.(type) {
	case map[string]any:
		again, ok := again.(map[string]any)
		if !ok {
			t.Errorf("%s is %v", at, again)
			return
		}
		for k, v := range again {
			if _, ok := sent[k]; !ok && !reflect.ValueOf(v).IsZero() && k != "urlDecodedKey" {
				t.Errorf("%s.%s has come from nowhere: %v", at, k, v)
			}
		}
		for k, v := range sent {
			same(t, at+"."+k, v, again[k])
		}
	case []any:
		again, _ := again.([]any)
		if len(sent) != len(again) {
			t.Errorf("%s has %d elements, %d again", at, len(sent), len(again))
			return
		}
		for i, v := range sent {
			same(t, at+"["+strconv.Itoa(i)+"]", v, again[i])
		}
	case float64:
		if again, ok := again.(float64); !ok || math.Abs(sent-again) > 1e-6 {
			t.Errorf("%s is %v, %v again", at, sent, again)
		}
	case nil:
		if again != nil && again != "" {
			t.Errorf("%s is null, %v again", at, again)
		}
	default:
		if !reflect.DeepEqual(sent, again) && !(sent == nil && again == "") {
			t.Errorf("%s is %v, %v again", at, sent, again)
		}
	}
}

// The samples have these names where the golden files do not, and the other way round: what a message of a queue may have.
var free = map[string][]string{
	"sqs": {
		".Records[].attributes.AWSTraceHeader string", ".Records[].attributes.SequenceNumber string", ".Records[].attributes.MessageGroupId string",
		".Records[].attributes.MessageDeduplicationId string", ".Records[].attributes.DeadLetterQueueSourceArn string",
		// Values of lists are of the samples alone: SQS has not had them yet.
		".Records[].messageAttributes.*.stringListValues[] string", ".Records[].messageAttributes.*.binaryListValues[] string",
	},
	"sns":      {".Records[].Sns.Subject null"},
	"dynamodb": {".Records[].dynamodb.OldImage image"},
}

// named are members whose own members have names of the user's.
var named = []string{"messageAttributes", "MessageAttributes", "Keys", "NewImage", "OldImage", "responseElements"}

func TestBatches_HaveTheMembersOfTheSamples(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/aws/aws-lambda-go").Output()
	if err != nil {
		t.Fatal(err)
	}
	samples := filepath.Join(strings.TrimSpace(string(out)), "events", "testdata")
	for kind, ours := range map[string][]string{
		"sqs": {"sqs.json", "sqs-fifo.json"}, "sns": {"sns.json", "sns-bare.json"}, "kinesis": {"kinesis.json"}, "dynamodb": {"dynamodb.json"}, "s3": {"s3.json"},
	} {
		t.Run(kind, func(t *testing.T) {
			want, got := map[string]bool{}, map[string]bool{}
			data, err := os.ReadFile(filepath.Join(samples, kind+"-event.json"))
			if err != nil {
				t.Fatal(err)
			}
			members(read(t, data), "", want)
			for _, name := range ours {
				data, err := os.ReadFile("../" + name)
				if err != nil {
					t.Fatal(err)
				}
				members(read(t, data), "", got)
			}
			for m := range want {
				if !got[m] && !slices.Contains(free[kind], m) {
					t.Errorf("the sample alone has %s", m)
				}
			}
			for m := range got {
				if !want[m] && !slices.Contains(free[kind], m) {
					t.Errorf("the golden files alone have %s", m)
				}
			}
		})
	}
}

// members collects the path and type of every value; below an attribute's value nothing is compared.
func members(v any, at string, into map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		last := at[strings.LastIndexByte(at, '.')+1:]
		if last == "Keys" || last == "NewImage" || last == "OldImage" {
			into[at+" image"] = true
			return
		}
		for k, e := range v {
			if slices.Contains(named, last) {
				k = "*"
			}
			members(e, at+"."+k, into)
		}
	case []any:
		for _, e := range v {
			members(e, at+"[]", into)
		}
	case string:
		into[at+" string"] = true
	case float64:
		into[at+" number"] = true
	case bool:
		into[at+" bool"] = true
	case nil:
		into[at+" null"] = true
	}
}
