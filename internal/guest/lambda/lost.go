package lambda

import (
	"encoding/json"
	"time"

	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
)

var _ guest.LostTeller = (*Protocol)(nil)

// TellLost writes what an on-failure destination of a stream or table gets: Lambda guide, "Retain discarded batch records for a Kinesis data stream event source
// in Lambda", "Example invocation record", and the same for DynamoDB.
func (p *Protocol) TellLost(dst []byte, u *guest.Unit, l guest.Lost) []byte {
	type context struct {
		RequestID string `json:"requestId"`
		ARN       string `json:"functionArn"`
		Condition string `json:"condition"`
		Count     int    `json:"approximateInvokeCount"`
	}
	type answer struct {
		Status  int    `json:"statusCode"`
		Version string `json:"executedVersion"`
		Error   string `json:"functionError,omitempty"`
	}
	type info struct {
		Shard  string `json:"shardId"`
		First  string `json:"startSequenceNumber"`
		Last   string `json:"endSequenceNumber"`
		From   string `json:"approximateArrivalOfFirstRecord"`
		To     string `json:"approximateArrivalOfLastRecord"`
		Size   int    `json:"batchSize"`
		Stream string `json:"streamArn"`
	}
	record := struct {
		Context context `json:"requestContext"`
		Answer  *answer `json:"responseContext,omitempty"`
		Version string  `json:"version"`
		At      string  `json:"timestamp"`
		Kinesis *info   `json:"KinesisBatchInfo,omitempty"`
		Table   *info   `json:"DDBStreamBatchInfo,omitempty"`
	}{
		Context: context{RequestID: l.Invocation, ARN: u.ARN, Condition: "RetryAttemptsExhausted", Count: l.Tries},
		Version: "1.0", At: milli(l.At),
	}
	if l.Expired {
		record.Context.Condition = "RecordAgeExceeded"
	}
	if l.Tries > 0 {
		record.Answer = &answer{Status: 200, Version: "$LATEST"}
		if l.Err != nil {
			record.Answer.Error = "Unhandled"
		}
	}
	b := batch{Batch: l.Batch, unit: u}
	first, last := &b.Items[0], &b.Items[len(b.Items)-1]
	i := &info{Shard: shardID(b.Shard), First: first.Sequence, Last: last.Sequence, From: milli(arrived(first)), To: milli(arrived(last)), Size: len(b.Items)}
	if b.Via == invocation.ViaTable {
		i.Stream = b.tableARN()
		record.Table = i
	} else {
		i.Stream = b.arn("kinesis", "stream/"+b.Source)
		record.Kinesis = i
	}
	out, err := json.Marshal(record)
	if err != nil { // texts and numbers always encode
		return append(dst, "{}"...)
	}
	return append(dst, out...)
}

func milli(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
