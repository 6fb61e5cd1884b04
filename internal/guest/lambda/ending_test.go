package lambda

import (
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/guest"
)

func TestTell_IsWhatAWSDocuments(t *testing.T) {
	t.Parallel()
	at := time.Date(2019, 11, 14, 18, 16, 5, 568e6, time.UTC)
	const arn, id = "arn:aws:lambda:us-east-2:123456789012:function:my-function", "e4b46cbf-b738-xmpl-8880-a18cdf61200e"
	for name, row := range map[string]struct {
		e    guest.Ending
		want string
	}{
		"failed": {
			guest.Ending{Invocation: id, ARN: arn, At: at, Attempts: 3, Failed: true, Request: []byte(`{"ORDER_IDS":["9e07af03"]}`), Response: []byte(`{"errorMessage":"timed out"}`)},
			`{"version":"1.0","timestamp":"2019-11-14T18:16:05.568Z","requestContext":{"requestId":"` + id + `","functionArn":"` + arn + `:$LATEST","condition":"RetriesExhausted","approximateInvokeCount":3},` +
				`"requestPayload":{"ORDER_IDS":["9e07af03"]},"responseContext":{"statusCode":200,"executedVersion":"$LATEST","functionError":"Unhandled"},"responsePayload":{"errorMessage":"timed out"}}`,
		},
		"succeeded, not JSON": {
			guest.Ending{Invocation: id, ARN: arn, At: at.In(time.FixedZone("x", 3600)), Attempts: 1, Request: []byte("plain <text>\xff"), Response: []byte(`null`)},
			`{"version":"1.0","timestamp":"2019-11-14T18:16:05.568Z","requestContext":{"requestId":"` + id + `","functionArn":"` + arn + `:$LATEST","condition":"Success","approximateInvokeCount":1},` +
				`"requestPayload":"plain \u003ctext\u003e\ufffd","responseContext":{"statusCode":200,"executedVersion":"$LATEST"},"responsePayload":null}`,
		},
		"expired before it ran": {
			guest.Ending{Invocation: id, ARN: arn, At: at, Failed: true, Expired: true, Request: []byte(`1`)},
			`{"version":"1.0","timestamp":"2019-11-14T18:16:05.568Z","requestContext":{"requestId":"` + id + `","functionArn":"` + arn + `:$LATEST","condition":"EventAgeExceeded","approximateInvokeCount":0},"requestPayload":1}`,
		},
	} {
		if got := string((*Protocol)(nil).Tell(nil, row.e)); got != row.want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, row.want)
		}
	}
}
