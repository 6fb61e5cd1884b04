package lambda

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/event"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
)

// As the Lambda guide shows it: "Retain discarded batch records", "Example invocation record".
func TestTellLost_WritesTheRecordOfTheGuide(t *testing.T) {
	t.Parallel()
	p, err := New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2019, 11, 14, 0, 38, 4, 835e6, time.UTC)
	item := func(seq string, at time.Time) invocation.Item {
		return invocation.Item{Event: &event.Event{ID: "e"}, Arrived: at, Sequence: seq}
	}
	u := &guest.Unit{Function: "f", ARN: "arn:aws:lambda:us-east-2:123456789012:function:f", Region: "us-east-2", Account: "123456789012"}
	b := &invocation.Batch{Via: invocation.ViaStream, Source: "s", Shard: "shardId-000000000001", Items: []invocation.Item{item("1", at), item("2", at.Add(time.Second))}}
	l := guest.Lost{Invocation: "id", At: at.Add(2 * time.Second), Tries: 3, Err: errors.New("boom"), Batch: b}
	const info = `{"shardId":"shardId-000000000001","startSequenceNumber":"1","endSequenceNumber":"2","approximateArrivalOfFirstRecord":"2019-11-14T00:38:04.835Z",` +
		`"approximateArrivalOfLastRecord":"2019-11-14T00:38:05.835Z","batchSize":2,"streamArn":`
	want := `{"requestContext":{"requestId":"id","functionArn":"arn:aws:lambda:us-east-2:123456789012:function:f","condition":"RetryAttemptsExhausted","approximateInvokeCount":3},` +
		`"responseContext":{"statusCode":200,"executedVersion":"$LATEST","functionError":"Unhandled"},"version":"1.0","timestamp":"2019-11-14T00:38:06.835Z","KinesisBatchInfo":` + info +
		`"arn:aws:kinesis:us-east-2:123456789012:stream/s"}}`
	if got := string(p.TellLost(nil, u, l)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	table := *b
	table.Via, table.Label = invocation.ViaTable, "2019"
	want = `{"requestContext":{"requestId":"id","functionArn":"arn:aws:lambda:us-east-2:123456789012:function:f","condition":"RecordAgeExceeded","approximateInvokeCount":0},` +
		`"version":"1.0","timestamp":"2019-11-14T00:38:06.835Z","DDBStreamBatchInfo":` + info + `"arn:aws:dynamodb:us-east-2:123456789012:table/s/stream/2019"}}`
	l.Tries, l.Expired, l.Err, l.Batch = 0, true, nil, &table
	if got := string(p.TellLost(nil, u, l)); got != want || !json.Valid([]byte(got)) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
