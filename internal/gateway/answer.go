package gateway

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/errs"
)

// statusGone is what the access log shows for a client that left before its answer.
const statusGone = 499

// refusal is an answer that the gateway gives itself.
type refusal struct {
	status int
	typ    string // x-amzn-ErrorType of a REST API
	body   string
	close  bool          // the rest of the request is not read: the connection cannot go on
	retry  time.Duration // Retry-After, or 0 for none
}

// The refusals, with bodies as the API kinds give them ("Gateway response types" for REST APIs).
func notFound(kind app.APIKind) refusal {
	if kind == app.REST {
		return refusal{status: 403, typ: "MissingAuthenticationTokenException", body: `{"message":"Missing Authentication Token"}`}
	}
	return refusal{status: 404, body: `{"message":"Not Found"}`}
}

func bodyTooLarge(kind app.APIKind) refusal {
	switch kind {
	case app.REST:
		return refusal{status: 413, typ: "RequestTooLargeException", body: `{"message":"Request Too Long"}`}
	case app.FuncURL:
		return refusal{status: 413, body: `{"Message":"Request must be smaller than 6291456 bytes for the InvokeFunction operation"}`}
	}
	return refusal{status: 413, body: `{"message":"Request Entity Too Large"}`}
}

func timedOut(kind app.APIKind) refusal {
	if kind == app.REST {
		return refusal{status: 504, typ: "InternalServerErrorException", body: `{"message": "Endpoint request timed out"}`}
	}
	return unavailable(kind)
}

func unavailable(kind app.APIKind) refusal {
	if kind == app.FuncURL {
		return refusal{status: 503, body: `{"Message":"Service Unavailable"}`, retry: retryLater}
	}
	return refusal{status: 503, typ: "ServiceUnavailableException", body: `{"message":"Service Unavailable"}`}
}

func internalError(kind app.APIKind) refusal {
	switch kind {
	case app.REST:
		return refusal{status: 500, typ: "InternalServerErrorException", body: `{"message": "Internal server error"}`}
	case app.FuncURL:
		return refusal{status: 500, body: `{"Message":"Internal Server Error"}`}
	}
	return refusal{status: 500, body: `{"message":"Internal Server Error"}`}
}

func tooManyRequests(kind app.APIKind) refusal {
	if kind == app.FuncURL {
		return refusal{status: 429, body: `{"Reason":"ConcurrentInvocationLimitExceeded","Type":"User","message":"Rate Exceeded."}`, retry: retryLater}
	}
	return refusal{status: 429, typ: "TooManyRequestsException", body: `{"message":"Too Many Requests"}`, retry: retryLater}
}

// refuse maps an error of an Invoke that gave no answer. What the error says stays in the log.
func refuse(kind app.APIKind, err error) refusal {
	switch errs.CodeOf(err) {
	case errs.TooLarge:
		return bodyTooLarge(kind)
	case errs.Throttled:
		r := tooManyRequests(kind)
		r.retry = retryAfter(err)
		return r
	case errs.Unavailable, errs.Canceled:
		r := unavailable(kind)
		r.retry = retryAfter(err)
		return r
	case errs.Timeout:
		return timedOut(kind)
	}
	return internalError(kind)
}

// retryLater is the advice where nobody knows better.
const retryLater = time.Second

// retryAfter is the advice of an error that has one.
func retryAfter(err error) time.Duration {
	var advice interface{ RetryAfter() time.Duration }
	if errors.As(err, &advice) {
		return max(advice.RetryAfter(), retryLater)
	}
	return retryLater
}

func message(status int, text string) refusal {
	b, err := json.Marshal(map[string]string{"message": text})
	if err != nil {
		b = []byte(`{}`)
	}
	return refusal{status: status, body: string(b)}
}

// write sends a refusal and returns the bytes of its body.
func (f refusal) write(w http.ResponseWriter, kind app.APIKind) int64 {
	h := w.Header()
	h["Content-Type"] = []string{"application/json"}
	h["Content-Length"] = []string{strconv.Itoa(len(f.body))}
	if f.typ != "" && kind == app.REST {
		h["x-amzn-ErrorType"] = []string{f.typ}
	}
	if f.retry > 0 {
		h["Retry-After"] = []string{strconv.Itoa(int((f.retry + time.Second - 1) / time.Second))}
	}
	if f.close {
		h["Connection"] = []string{"close"}
	}
	w.WriteHeader(f.status)
	n, _ := w.Write([]byte(f.body)) // the client may be gone, which changes nothing here
	return int64(n)
}

// identify sets the header lines by which a client names its request to its operator. values holds their slices.
func identify(h http.Header, kind app.APIKind, id string, values *[4]string) {
	switch kind {
	case app.REST:
		values[0], values[1] = id, extendedID(id)
		h["x-amzn-RequestId"], h["x-amz-apigw-id"] = values[0:1:1], values[1:2:2]
	case app.HTTP:
		values[0] = extendedID(id)
		h["Apigw-Requestid"] = values[0:1:1]
	default:
		values[0] = id
		h["x-amzn-RequestId"] = values[0:1:1]
	}
}
