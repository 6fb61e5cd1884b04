package lambda

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/ebb-run/ebb/internal/invocation"
)

// preludeEnd stands between the head of a streamed HTTP answer and its body.
var preludeEnd = make([]byte, 8)

// readPrelude reads the head of a streamed HTTP answer (AWS: "Response streaming", HttpResponseStream). A nil Head without an
// error means that more bytes are needed.
func readPrelude(b []byte) (*invocation.Head, []byte, error) {
	i := bytes.Index(b, preludeEnd)
	if i < 0 || i > maxPrelude {
		if len(b) > maxPrelude {
			return nil, nil, fmt.Errorf("the stream's head is over %d bytes", maxPrelude)
		}
		return nil, nil, nil
	}
	var p struct {
		Status  json.RawMessage              `json:"statusCode"`
		Headers map[string]json.RawMessage   `json:"headers"`
		Multi   map[string][]json.RawMessage `json:"multiValueHeaders"`
		Cookies []string                     `json:"cookies"`
	}
	if err := json.Unmarshal(b[:i], &p); err != nil {
		return nil, nil, errors.New("the stream's head is not the JSON object that HttpResponseStream.from writes")
	}
	h := &invocation.Head{Status: 200}
	if len(p.Status) > 0 {
		text, _ := scalar(p.Status)
		n, err := strconv.Atoi(text)
		if err != nil || n < 200 || n > 599 {
			return nil, nil, fmt.Errorf("the stream's statusCode %s is no final HTTP status", p.Status)
		}
		h.Status = n
	}
	a := &headFields{h: h}
	for name, v := range p.Headers {
		a.add(name, v)
	}
	for name, vs := range p.Multi {
		for _, v := range vs {
			a.add(name, v)
		}
	}
	for _, c := range p.Cookies {
		a.add("Set-Cookie", appendString(nil, c))
	}
	if a.bad != "" {
		return nil, nil, fmt.Errorf("the stream's header %q is not a string", a.bad)
	}
	return h, b[i+len(preludeEnd):], nil
}

type headFields struct {
	h   *invocation.Head
	bad string
}

func (a *headFields) add(name string, v json.RawMessage) {
	var text string
	if json.Unmarshal(v, &text) != nil {
		var other any
		if json.Unmarshal(v, &other) != nil {
			a.bad = name
			return
		}
		switch other.(type) {
		case float64, bool:
			text = string(v)
		case nil:
			return
		default:
			a.bad = name
			return
		}
	}
	if !token(name) || bytes.ContainsAny([]byte(text), "\r\n\x00") {
		a.bad = name
		return
	}
	a.h.Header = append(a.h.Header, invocation.Field{Name: name, Value: text})
}
