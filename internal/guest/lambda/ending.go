package lambda

import (
	"encoding/json"
	"unicode/utf8"

	"github.com/ebb-run/ebb/internal/guest"
)

// Tell appends the record of an asynchronous Invocation that its Destination gets: Lambda guide, "Capturing records of Lambda asynchronous
// invocations", "Destinations". Payloads that are not JSON are strings in it.
func (p *Protocol) Tell(dst []byte, e guest.Ending) []byte {
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
	record := struct {
		Version   string          `json:"version"`
		Timestamp string          `json:"timestamp"`
		Context   context         `json:"requestContext"`
		Request   json.RawMessage `json:"requestPayload"`
		Answer    *answer         `json:"responseContext,omitempty"`
		Response  json.RawMessage `json:"responsePayload,omitempty"`
	}{
		Version: "1.0", Timestamp: e.At.UTC().Format("2006-01-02T15:04:05.000Z"), Request: payloadJSON(e.Request),
		Context: context{RequestID: e.Invocation, ARN: e.ARN + ":$LATEST", Condition: "Success", Count: e.Attempts},
	}
	switch {
	case e.Expired:
		record.Context.Condition = "EventAgeExceeded"
	case e.Failed:
		record.Context.Condition = "RetriesExhausted"
	}
	if e.Response != nil {
		record.Answer, record.Response = &answer{Status: 200, Version: "$LATEST"}, payloadJSON(e.Response)
		if e.Failed {
			record.Answer.Error = "Unhandled"
		}
	}
	out, err := json.Marshal(record)
	if err != nil { // its raw parts are valid
		return append(dst, "{}"...)
	}
	return append(dst, out...)
}

// payloadJSON gives a payload as JSON: itself where it is, a string of it otherwise.
func payloadJSON(p []byte) json.RawMessage {
	if utf8.Valid(p) && json.Valid(p) {
		return p
	}
	text, err := json.Marshal(string(p))
	if err != nil { // a string always encodes
		return json.RawMessage("null")
	}
	return text
}
