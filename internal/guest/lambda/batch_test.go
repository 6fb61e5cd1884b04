package lambda

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/bus/filter"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
)

func batchUnit() *guest.Unit {
	return &guest.Unit{Function: "worker", ARN: "arn:aws:lambda:eu-central-1:123456789012:function:worker", Region: "eu-central-1", Account: "123456789012"}
}

// moment is a time of the samples: some seconds and milliseconds after 2026-03-12T19:03:58Z.
func moment(seconds int) time.Time {
	return time.Date(2026, 3, 12, 19, 3, 58, 638e6, time.UTC).Add(time.Duration(seconds) * time.Second)
}

const (
	traced = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	idA    = "059f36b4-87a3-44ab-83d2-661975830a7d"
	idB    = "2e1424d4-f796-459a-8184-9c92662be6da"
)

func occurred(id, kind, data string) *event.Event {
	return &event.Event{ID: id, Source: "/test", Type: kind, Time: moment(0), DataContentType: "application/json", Data: []byte(data)}
}

// Batches are one Batch or two of every kind, by the name of the golden file.
func Batches() map[string]*invocation.Batch {
	full := occurred(idA, "message", "Grüße <&>\n")
	full.SetExtension("traceparent", traced)
	note := occurred(idA, "note", `{"default":"hi"}`)
	note.Subject = "Hello \"you\""
	placed := occurred(idA, "order placed", `{"id": 7, "total":1.50, "tags":["a"]}`)
	placed.Source = "shop.orders"
	placed.SetExtension(event.Resources, "arn:aws:s3:::shop,arn:aws:sns:eu-central-1:123456789012:x%2Cy")
	text := occurred(idB, "text", "plain \"text\"")
	text.DataContentType = "text/plain"
	attributes := map[string]invocation.Attribute{
		"colour": {Type: "String", Text: "blué"}, "count": {Type: "Number.int", Text: "12"}, "picture": {Type: "Binary.gif", Binary: []byte{0, 1, 255}},
	}
	return map[string]*invocation.Batch{
		"sqs": {Via: invocation.ViaQueue, Source: "jobs", Items: []invocation.Item{
			{Event: full, Attributes: attributes, Receipt: "AQEB+/x==", Receives: 3, Arrived: moment(1), FirstReceived: moment(2), Sender: "AIDAEXAMPLE", DeadFrom: "first-jobs"},
			{Event: occurred(idB, "message", "\x00\xff"), Receipt: "r2"},
		}},
		"sqs-fifo": {Via: invocation.ViaQueue, Source: "jobs.fifo", Items: []invocation.Item{
			{Event: occurred(idA, "message", `{"n":1}`), Receipt: "r1", Receives: 1, FirstReceived: moment(2), Sequence: "18849496460467696128", Group: "g 1", Dedup: "d1"},
		}},
		"sns": {Via: invocation.ViaTopic, Source: "news", Label: "21be56ed-a058-49f5-8c98-aedd2564c486", Items: []invocation.Item{
			{Event: note, Attributes: attributes, Arrived: moment(1)},
		}},
		"sns-bare": {Via: invocation.ViaTopic, Source: "news", Items: []invocation.Item{{Event: occurred(idB, "note", "bare")}}},
		"kinesis": {Via: invocation.ViaStream, Source: "clicks", Shard: "6", Items: []invocation.Item{
			{Event: occurred(idA, "record", "Hello"), Key: "k\"1", Sequence: "49590338271490256608559692538361571095921575989136588898", Arrived: moment(0)},
			{Event: occurred(idB, "record", "\x00\xff"), Key: "k2", Sequence: "49590338271490256608559692540925702759324208523137515618", Arrived: moment(0).Truncate(time.Second)},
		}},
		"dynamodb": {Via: invocation.ViaTable, Source: "items", Label: "2026-01-02T03:04:05.678", Shard: "shardId-00000001541626099285-f35f62ef", Items: []invocation.Item{
			{Event: occurred("e1", "table.insert", `{"Keys":{"Id":{"N":"101"}},"NewImage":{"Id":{"N":"101"},"Message":{"S":"New item!"},"Raw":{"B":"AAEqQQ=="}},"StreamViewType":"NEW_AND_OLD_IMAGES"}`), Sequence: "111"},
			{Event: occurred("e2", "table.modify", `{"Keys":{"Id":{"N":"101"}},"NewImage":null,"OldImage":{"Id":{"N":"101"},"Set":{"NS":["1","2"]},"Map":{"M":{"a":{"L":[{"NULL":true},{"BOOL":false}]}}}},"StreamViewType":"OLD_IMAGE"}`), Sequence: "222"},
			{Event: occurred("e3", "table.remove", `{"Keys":{"Id":{"N":"101"}},"OldImage":{"Id":{"N":"101"}},"Expired":true}`), Sequence: "333"},
		}},
		"s3": {Via: invocation.ViaBucket, Source: "photos", Items: []invocation.Item{{Event: occurred(idA, "object", `{"eventVersion":"2.1","eventSource":"aws:s3","awsRegion":"eu-central-1",`+
			`"eventTime":"2026-03-12T19:03:58.638Z","eventName":"ObjectCreated:Put","userIdentity":{"principalId":"A1"},"requestParameters":{"sourceIPAddress":"127.0.0.1"},`+
			`"responseElements":{"x-amz-request-id":"C3D1","x-amz-id-2":"FMyU"},"s3":{"s3SchemaVersion":"1.0","configurationId":"c1","bucket":{"name":"photos","ownerIdentity":{"principalId":"A1"},`+
			`"arn":"arn:aws:s3:::photos"},"object":{"key":"a+b.jpg","size":1024,"eTag":"d41d","versionId":"v1","sequencer":"0C0F"}}}`)}}},
		"eventbridge":      {Via: invocation.ViaEvent, Source: "default", Items: []invocation.Item{{Event: placed}}},
		"eventbridge-text": {Via: invocation.ViaEvent, Source: "default", Items: []invocation.Item{{Event: text}}},
		"schedule":         {Via: invocation.ViaSchedule, Source: "nightly", Items: []invocation.Item{{Event: occurred("nightly/2026-03-12T19:03:58Z", "due", "")}}},
		"scheduler":        {Via: invocation.ViaSchedule, Source: "nightly", Group: "default", Items: []invocation.Item{{Event: occurred(idA, "due", "")}}},
	}
}

// The golden files are read again by testdata/batch/strict, which compares them with samples and types of AWS.
func TestAppendBatch_IsWhatAWSDocuments(t *testing.T) {
	t.Parallel()
	for name, b := range Batches() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := appendBatch([]byte("kept"), batchUnit(), b)
			if err != nil || !strings.HasPrefix(string(got), "kept") {
				t.Fatalf("%.300s, %v", got, err)
			}
			goldenAt(t, filepath.Join("testdata", "batch", name+".json"), got[4:])
		})
	}
}

func TestAppendBatch_InputTakesThePlaceOfTheItems(t *testing.T) {
	t.Parallel()
	for name, b := range Batches() {
		for input, want := range map[string]string{`{"a": 1}`: `{"a": 1}`, "not JSON\x00": "not JSON\x00", "": "{}"} {
			b.Input = []byte(input)
			if got, err := appendBatch(nil, batchUnit(), b); err != nil || string(got) != want {
				t.Errorf("%s: %q, %v; want %q", name, got, err, want)
			}
		}
	}
}

func TestAppendPayload_RefusesABatchThatHasNoForm(t *testing.T) {
	t.Parallel()
	one := []invocation.Item{{Event: occurred(idA, "x.insert", `{}`)}}
	item := func(kind, data string) []invocation.Item {
		return []invocation.Item{{Event: occurred(idA, kind, data)}}
	}
	big := item("message", strings.Repeat("x", maxEvent-300))
	for name, c := range map[string]struct {
		b    *invocation.Batch
		code errs.Code
		say  string
	}{
		"no items":             {&invocation.Batch{Via: invocation.ViaQueue}, errs.Internal, "0 items"},
		"two events":           {&invocation.Batch{Via: invocation.ViaEvent, Items: append(one, one...)}, errs.Internal, "2 items"},
		"unknown source":       {&invocation.Batch{Via: "post", Items: one}, errs.Internal, `"post"`},
		"record not JSON":      {&invocation.Batch{Via: invocation.ViaBucket, Items: item("object", `{"a":`)}, errs.Invalid, "bucket"},
		"record no object":     {&invocation.Batch{Via: invocation.ViaBucket, Items: item("object", `[1]`)}, errs.Invalid, "bucket"},
		"record empty":         {&invocation.Batch{Via: invocation.ViaBucket, Items: item("object", ``)}, errs.Invalid, "bucket"},
		"change without keys":  {&invocation.Batch{Via: invocation.ViaTable, Items: one}, errs.Invalid, "not the change of a table"},
		"change not JSON":      {&invocation.Batch{Via: invocation.ViaTable, Items: item("x.insert", `{`)}, errs.Invalid, "not the change of a table"},
		"change of no kind":    {&invocation.Batch{Via: invocation.ViaTable, Items: item("x.put", `{"Keys":{}}`)}, errs.Invalid, `"x.put"`},
		"one too large":        {&invocation.Batch{Via: invocation.ViaQueue, Items: big}, errs.TooLarge, "limit of 6291456"},
		"too large together":   {&invocation.Batch{Via: invocation.ViaStream, Items: append(item("r", strings.Repeat("x", 3<<20)), item("r", strings.Repeat("x", 3<<20))...)}, errs.TooLarge, "limit of 6291456"},
		"event too large":      {&invocation.Batch{Via: invocation.ViaEvent, Items: big}, "", ""},
		"event far too large":  {&invocation.Batch{Via: invocation.ViaEvent, Items: item("e", `"`+strings.Repeat("x", maxEvent)+`"`)}, errs.TooLarge, "limit of 6291456"},
		"an input too large":   {&invocation.Batch{Via: invocation.ViaEvent, Items: one, Input: make([]byte, maxResult+1)}, errs.TooLarge, "over the limit"},
		"an input just small":  {&invocation.Batch{Via: invocation.ViaEvent, Items: one, Input: make([]byte, maxResult)}, "", ""},
		"an input of no items": {&invocation.Batch{Via: invocation.ViaEvent, Input: []byte("1")}, "", ""},
	} {
		_, err := appendPayload(nil, batchUnit(), &invocation.Invocation{Payload: c.b})
		if c.say == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if !errors.Is(err, guest.ErrPayload) || errs.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v (code %v), want code %v and %q", name, err, errs.CodeOf(err), c.code, c.say)
		}
	}
}

func TestRecord_IsWhatFiltersSee(t *testing.T) {
	t.Parallel()
	var p Protocol
	for name, b := range Batches() {
		whole, err := appendBatch(nil, batchUnit(), b)
		if err != nil {
			t.Fatal(err)
		}
		var read struct{ Records []json.RawMessage }
		if err := json.Unmarshal(whole, &read); err != nil {
			t.Fatal(err)
		}
		if read.Records == nil {
			read.Records = []json.RawMessage{whole}
		}
		for i, want := range read.Records {
			if got, err := p.Record([]byte("kept"), batchUnit(), b, i); err != nil || string(got) != "kept"+string(want) {
				t.Errorf("%s, %d: %s, %v; want %s", name, i, got, err, want)
			}
		}
		for _, i := range []int{-1, len(b.Items)} {
			if _, err := p.Record(nil, batchUnit(), b, i); err == nil {
				t.Errorf("%s has an item %d", name, i)
			}
		}
	}
	for _, c := range []struct {
		source  filter.Source
		batch   string
		pattern string
		want    bool
	}{
		{filter.Queue, "sqs-fifo", `{"body":{"n":[1]}}`, true}, {filter.Queue, "sqs-fifo", `{"body":{"n":[2]}}`, false},
		{filter.Stream, "kinesis", `{"partitionKey":["k\"1"]}`, true},
		{filter.Table, "dynamodb", `{"eventName":["INSERT"],"dynamodb":{"NewImage":{"Message":{"S":[{"prefix":"New"}]}}}}`, true},
		{filter.Table, "dynamodb", `{"eventName":["REMOVE"]}`, false},
	} {
		f, list := filter.CompileCriteria([]string{c.pattern}, c.source, "f")
		if list.HasErrors() {
			t.Fatalf("%s: %v", c.pattern, list)
		}
		record, err := p.Record(nil, batchUnit(), Batches()[c.batch], 0)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := f.Match(record); err != nil || got != c.want {
			t.Errorf("%s: %v, %v", c.pattern, got, err)
		}
	}
}

// The sizes of the first three items are those that AWS documents for them.
func TestItemSize_CountsAsDynamoDBDoes(t *testing.T) {
	t.Parallel()
	for item, want := range map[string]int{
		`{"Id":{"N":"101"}}`:                                         5,
		`{"Message":{"S":"New item!"},"Id":{"N":"101"}}`:             21,
		`{"Message":{"S":"This item has changed"},"Id":{"N":"101"}}`: 33,
		`{"k":{"N":"-100.50"}}`:                                      1 + 4,
		`{"k":{"N":"0"}}`:                                            1 + 1,
		`{"k":{"N":"1.5E10"}}`:                                       1 + 2,
		`{"k":{"B":"AAEqQQ=="}}`:                                     1 + 4,
		`{"k":{"BOOL":true},"l":{"NULL":true}}`:                      4,
		`{"k":{"SS":["a","bc"]}}`:                                    1 + 3,
		`{"k":{"NS":["1","22"]}}`:                                    1 + 4,
		`{"k":{"BS":["AA==","AAA="]}}`:                               1 + 3,
		`{"k":{"L":[]}}`:                                             1 + 3,
		`{"k":{"L":[{"S":"ab"},{"BOOL":true}]}}`:                     1 + 3 + 3 + 2,
		`{"k":{"M":{"a":{"S":"b"}}}}`:                                1 + 3 + 1 + 2,
		`{"k":{"S":"é"}}`:                                            1 + 2,
	} {
		if got := itemSize(json.RawMessage(item)); got != want {
			t.Errorf("%s: %d, want %d", item, got, want)
		}
	}
}

// The first sum is one that SQS gave.
func TestSumAttributes_IsThatOfSQS(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		attrs map[string]invocation.Attribute
		names []string
		want  string
	}{
		{map[string]invocation.Attribute{"sample-attribute": {Type: "String", Text: "sample-value"}}, []string{"sample-attribute"}, "7c815262be77a62f56671125069ca888"},
	} {
		if got := sumAttributes(c.names, c.attrs); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}

func TestTraceHeader_GoesFromAnEventToItsMessage(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		traced: "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331;Sampled=1", strings.TrimSuffix(traced, "1") + "0": "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331;Sampled=0",
		"": "", "nonsense": "",
	} {
		if got := xray(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
