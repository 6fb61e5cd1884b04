package lambda

import (
	"encoding/base64"
	"strconv"
	"strings"

	"github.com/ebb-run/ebb/internal/invocation"
)

// answer is a handler's result as a proxy integration reads it.
type answer struct {
	status  int
	header  []invocation.Field
	multi   []invocation.Field // of multiValueHeaders; a name here replaces the same name in header
	cookies []invocation.Field
	body    []byte
	base64  bool
	typed   bool // a Content-Type is there
}

// writeAnswer gives the Sink the HTTP answer that a handler's JSON result stands for. A result that is none, by the
// rules of the API kind and payload format, becomes that kind's error answer with Head.Error set, cause "response".
func writeAnswer(r *invocation.Request, payload []byte, s invocation.Sink) error {
	a, why := readAnswer(r, payload)
	if why != "" {
		return writeFunctionError(r, invocation.FunctionError{
			Cause: invocation.CauseResponse, Type: "Runtime.InvalidResponse", Message: why,
		}, s)
	}
	fields := a.fields(r.Route.APIKind)
	if !a.typed {
		fields = append(fields, invocation.Field{Name: "Content-Type", Value: defaultType(r)})
	}
	h := invocation.Head{Status: a.status, Header: fields, Length: int64(len(a.body))}
	bodiless := a.status == 204 || a.status == 304
	if bodiless {
		h.Length = 0
	}
	if err := s.Start(h); err != nil {
		return err
	}
	if bodiless || r.Method == "HEAD" || len(a.body) == 0 {
		return nil
	}
	_, err := s.Write(a.body)
	return err
}

// defaultType is the Content-Type of an answer whose handler gave none.
func defaultType(r *invocation.Request) string {
	if r.Route.APIKind == kindHTTP {
		return "text/plain;charset=utf-8"
	}
	return "application/json"
}

// writeFunctionError gives the Sink what a caller of this API kind sees of a failed function; nothing of its error is in it.
func writeFunctionError(r *invocation.Request, fe invocation.FunctionError, s invocation.Sink) error {
	h := invocation.Head{Error: &fe}
	var body string
	switch r.Route.APIKind {
	case kindREST:
		h.Status, body = 502, `{"message": "Internal server error"}`
		h.Header = []invocation.Field{{Name: "Content-Type", Value: "application/json"}, {Name: "x-amzn-ErrorType", Value: "InternalServerErrorException"}}
	case kindHTTP:
		h.Status, body = 500, `{"message":"Internal Server Error"}`
		h.Header = []invocation.Field{{Name: "Content-Type", Value: "application/json"}}
	default:
		h.Status, body = 502, "Internal Server Error"
		h.Header = []invocation.Field{{Name: "Content-Type", Value: "application/json"}}
	}
	h.Length = int64(len(body))
	if err := s.Start(h); err != nil {
		return err
	}
	if r.Method == "HEAD" {
		return nil
	}
	_, err := s.Write([]byte(body))
	return err
}

// readAnswer reads a result, or says in one line why it is none.
func readAnswer(r *invocation.Request, payload []byte) (*answer, string) {
	doc, ok := document(payload)
	if !ok {
		return nil, "the result is not JSON"
	}
	v1 := r.Route.APIKind == kindREST || r.Route.APIKind == kindHTTP && r.Route.Format == "1.0"
	if !v1 {
		if a := inferred(doc); a != nil {
			return a, ""
		}
	}
	if doc[0] != '{' {
		return nil, "the result is not an object with statusCode, headers and body"
	}
	a := &answer{}
	why := ""
	members(doc, func(name, value []byte) bool {
		why = a.member(r, string(name), value)
		return why == ""
	})
	if why != "" {
		return nil, why
	}
	if a.status == 0 {
		return nil, "the result has no statusCode"
	}
	if a.base64 && a.decodes(r) {
		plain, err := base64.StdEncoding.AppendDecode(nil, a.body)
		if err != nil {
			return nil, "isBase64Encoded is true and body is not base64"
		}
		a.body = plain
	}
	return a, ""
}

// inferred is format 2.0's reading of a result without statusCode: the result itself is the body. A string is taken
// as its text. It is nil where there is a statusCode.
func inferred(doc []byte) *answer {
	a := &answer{status: 200, typed: true, body: doc, header: []invocation.Field{{Name: "Content-Type", Value: "application/json"}}}
	switch doc[0] {
	case '"':
		a.body = unquote(doc)
	case '{':
		found := false
		members(doc, func(name, value []byte) bool {
			found = found || string(name) == "statusCode" && string(value) != "null"
			return true
		})
		if found {
			return nil
		}
	}
	return a
}

// decodes says whether the API turns a base64 body into bytes: an HTTP API and a function URL always, a REST API where
// its binary media types cover the first type of Accept, or the answer's own where the client says none.
func (a *answer) decodes(r *invocation.Request) bool {
	if r.Route.APIKind != kindREST {
		return true
	}
	mt := mediaType(r.Get("Accept"))
	if mt == "" {
		for _, f := range append(a.header, a.multi...) {
			if strings.EqualFold(f.Name, "Content-Type") {
				mt = mediaType(f.Value)
			}
		}
	}
	return mediaMatch(r.Route.Binary, mt)
}

// member reads one member of the result and says what is wrong with it.
func (a *answer) member(r *invocation.Request, name string, value []byte) string {
	null := string(value) == "null"
	switch name {
	case "statusCode":
		text, ok := scalar(value)
		n, err := strconv.Atoi(text)
		if !ok || err != nil || n < 200 || n > 599 {
			return "statusCode is not an HTTP status from 200 to 599"
		}
		a.status = n
	case "headers":
		if null {
			return ""
		}
		return a.readHeaders(value)
	case "multiValueHeaders":
		if null {
			return ""
		}
		return a.readMulti(value)
	case "body":
		if null {
			a.body = nil
			return ""
		}
		if value[0] != '"' {
			return "body is not a string"
		}
		a.body = unquote(value)
	case "isBase64Encoded", "base64Encoded":
		switch string(value) {
		case "true", `"true"`:
			a.base64 = true
		case "false", `"false"`, "null":
		default:
			return name + " is neither true nor false"
		}
	case "cookies":
		if null || r.Route.APIKind == kindREST || r.Route.APIKind == kindHTTP && r.Route.Format == "1.0" {
			return ""
		}
		return a.readCookies(value)
	default:
		if r.Route.APIKind == kindREST {
			return "the result has a member " + strconv.Quote(name) + ", which a REST API does not take"
		}
	}
	return ""
}

func (a *answer) readHeaders(value []byte) string {
	why := ""
	ok := members(value, func(name, v []byte) bool {
		if string(v) == "null" {
			return true
		}
		text, ok := scalar(v)
		if !ok {
			why = "the header " + strconv.Quote(string(name)) + " is not a string, number or boolean"
			return false
		}
		why = a.add(&a.header, string(name), text)
		return why == ""
	})
	if !ok && why == "" {
		return "headers is not an object"
	}
	return why
}

func (a *answer) readMulti(value []byte) string {
	why := ""
	ok := members(value, func(name, v []byte) bool {
		if string(v) == "null" {
			return true
		}
		fine := elements(v, func(v []byte) bool {
			text, ok := scalar(v)
			if ok {
				why = a.add(&a.multi, string(name), text)
			}
			return ok && why == ""
		})
		if !fine && why == "" {
			why = "the entry " + strconv.Quote(string(name)) + " of multiValueHeaders is not a list of strings"
		}
		return why == ""
	})
	if !ok && why == "" {
		return "multiValueHeaders is not an object"
	}
	return why
}

func (a *answer) readCookies(value []byte) string {
	why := ""
	ok := elements(value, func(v []byte) bool {
		if v[0] != '"' {
			return false
		}
		why = a.add(&a.cookies, "Set-Cookie", string(unquote(v)))
		return why == ""
	})
	if !ok && why == "" {
		return "cookies is not a list of strings"
	}
	return why
}

// add appends a header line, or says why it cannot be one.
func (a *answer) add(to *[]invocation.Field, name, value string) string {
	value = strings.TrimSpace(value)
	if !token(name) {
		return "the header name " + strconv.Quote(name) + " cannot be sent"
	}
	for i := 0; i < len(value); i++ {
		if c := value[i]; c < 0x20 && c != '\t' || c == 0x7f {
			return "the header " + strconv.Quote(name) + " holds a control character"
		}
	}
	a.typed = a.typed || strings.EqualFold(name, "Content-Type")
	*to = append(*to, invocation.Field{Name: name, Value: value})
	return ""
}

// token says whether s can be a header name: RFC 9110, section 5.6.2.
func token(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0 {
			continue
		}
		return false
	}
	return s != ""
}

// scalar gives the text of a string, number or boolean.
func scalar(v []byte) (string, bool) {
	switch v[0] {
	case '"':
		return string(unquote(v)), true
	case '{', '[', 'n':
		return "", false
	}
	return string(v), true
}

// fields puts the header lines together in the way of the API kind.
func (a *answer) fields(kind string) []invocation.Field {
	out := make([]invocation.Field, 0, len(a.header)+len(a.multi)+len(a.cookies)+1)
	put := func(f invocation.Field) {
		switch fate(kind, f.Name) {
		case drop:
			return
		case remap:
			f.Name = "x-amzn-Remapped-" + f.Name
		}
		out = append(out, f)
	}
	for _, f := range a.header {
		replaced := false
		for _, m := range a.multi {
			replaced = replaced || sameName(m.Name, f.Name)
		}
		if !replaced {
			put(f)
		}
	}
	for _, f := range a.multi {
		put(f)
	}
	return append(out, a.cookies...)
}

// What becomes of a header line of a handler.
const (
	pass  = iota
	drop  // the client does not get it
	remap // the client gets it as x-amzn-Remapped-…
)

// fate follows "API Gateway important notes for REST APIs", table of headers, which function URLs share. An HTTP API
// drops what concerns the connection and counts the length itself.
func fate(kind, name string) int {
	switch lower(name) {
	case "expect", "keep-alive", "proxy-authenticate", "proxy-connection", "te", "trailer", "upgrade":
		return drop
	case "connection", "content-length", "transfer-encoding":
		if kind == kindHTTP {
			return drop
		}
		return remap
	case "date", "host", "server", "www-authenticate", "authorization", "user-agent", "content-md5", "max-forwards":
		if kind != kindHTTP {
			return remap
		}
	case "via":
		if kind != kindHTTP {
			return drop
		}
	}
	return pass
}
