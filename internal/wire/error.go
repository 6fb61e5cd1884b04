package wire

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/wire/shape"
)

// Error is what a client is told.
type Error struct {
	Code    string
	Message string
	Status  int            // 0 means 400
	Fields  map[string]any // further members: text, numbers, truth values
	Server  bool           // the fault is not the sender's
}

// Error describes it.
func (e *Error) Error() string { return e.Code + ": " + e.Message }

// Errorf makes an Error with the status 400.
func Errorf(code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// With sets the status.
func (e *Error) With(status int) *Error {
	e.Status, e.Server = status, status >= 500
	return e
}

func (e *Error) status() int {
	if e.Status == 0 {
		return http.StatusBadRequest
	}
	return e.Status
}

// render writes an error as the protocol has it.
func render(c *Call, e *Error) *shape.Answer {
	if c.Service != nil && c.Service.Render != nil {
		return c.Service.Render(c, e)
	}
	if c.Service == nil {
		if a := renderAbsent(c, e); a != nil {
			return a
		}
	}
	a := &shape.Answer{Status: e.status(), Header: http.Header{}}
	switch c.Protocol {
	case shape.Query:
		a.Header.Set("Content-Type", "text/xml")
		a.Body = queryError(c, e)
	case shape.RESTXML:
		a.Header.Set("Content-Type", "application/xml")
		a.Body = restXMLError(c, e)
	default:
		jsonError(c, e, a)
	}
	return a
}

func jsonError(c *Call, e *Error, a *shape.Answer) {
	code, message := e.Code, "message"
	a.Header.Set("Content-Type", "application/json")
	var b strings.Builder
	if c.Protocol == shape.RESTJSON {
		a.Header.Set("X-Amzn-ErrorType", code)
		b.WriteString(`{"Type":` + shape.Quoted(senderOr(e, "User", "Service")))
		message = "Message"
	} else {
		version := "1.0"
		if c.Service != nil {
			code = c.Service.TypePrefix + code
			version = c.Service.table.Metadata.JSONVersion
			if other := c.Service.QueryCodes[e.Code]; other != "" {
				a.Header.Set("X-Amzn-Query-Error", other+";"+senderOr(e, "Sender", "Receiver"))
			} else if c.Service.QueryCodes != nil {
				a.Header.Set("X-Amzn-Query-Error", e.Code+";"+senderOr(e, "Sender", "Receiver"))
			}
		}
		a.Header.Set("Content-Type", "application/x-amz-json-"+version)
		b.WriteString(`{"__type":` + shape.Quoted(code))
	}
	if e.Message != "" {
		b.WriteString(`,"` + message + `":` + shape.Quoted(e.Message))
	}
	for _, k := range names(e.Fields) {
		b.WriteString("," + shape.Quoted(k) + ":")
		switch v := e.Fields[k].(type) {
		case string:
			b.WriteString(shape.Quoted(v))
		case shape.JSONText:
			b.WriteString(string(v))
		default:
			fmt.Fprint(&b, v)
		}
	}
	a.Body = []byte(b.String() + "}")
}

func senderOr(e *Error, sender, receiver string) string {
	if e.Server || e.Status >= 500 {
		return receiver
	}
	return sender
}

func queryError(c *Call, e *Error) []byte {
	code, namespace := e.Code, ""
	if c.Service != nil {
		if other := c.Service.QueryCodes[code]; other != "" {
			code = other
		}
		namespace = ` xmlns="` + c.Service.table.Namespace() + `"`
	}
	return []byte(`<?xml version="1.0" encoding="UTF-8"?>` + "\n<ErrorResponse" + namespace + "><Error><Type>" + senderOr(e, "Sender", "Receiver") + "</Type><Code>" +
		shape.XMLText(code) + "</Code><Message>" + shape.XMLText(e.Message) + "</Message>" + fields(e) + "<Detail/></Error><RequestId>" + c.RequestID + "</RequestId></ErrorResponse>")
}

func restXMLError(c *Call, e *Error) []byte {
	return []byte(`<?xml version="1.0" encoding="UTF-8"?>` + "\n<Error><Code>" + shape.XMLText(e.Code) + "</Code><Message>" + shape.XMLText(e.Message) + "</Message>" + fields(e) +
		"<RequestId>" + c.RequestID + "</RequestId><HostId>" + c.RequestID + "</HostId></Error>")
}

func fields(e *Error) string {
	var b strings.Builder
	for _, k := range names(e.Fields) {
		b.WriteString("<" + k + ">" + shape.XMLText(fmt.Sprint(e.Fields[k])) + "</" + k + ">")
	}
	return b.String()
}

func names(m map[string]any) []string {
	var list []string
	for k := range m {
		list = append(list, k)
	}
	slices.Sort(list)
	return list
}
