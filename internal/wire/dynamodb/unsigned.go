package dynamodb

import (
	"net/http"
	"strings"

	"github.com/ebb-run/ebb/internal/wire"
)

// unsigned says what DynamoDB says of a request whose signature is not there or not whole: which parts are missing, all at once.
// An operation that is not there is told before that. ok is false for other errors.
func unsigned(c *wire.Call, e *wire.Error) (code, msg string, ok bool) {
	if e.Code != "MissingAuthenticationTokenException" && e.Code != "IncompleteSignatureException" {
		return "", "", false
	}
	if _, known := c.Service.Operations[c.Operation]; !known {
		return "UnknownOperationException", "", true
	}
	header, query := c.Request.Header.Get("Authorization"), c.Request.URL.Query()
	switch {
	case header != "" && query.Has("X-Amz-Algorithm"):
		return "InvalidSignatureException", "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header.", true
	case query.Has("X-Amz-Algorithm"):
		msg = missingQuery(query)
	case !strings.HasPrefix(header, "AWS4-"):
		return "MissingAuthenticationTokenException", "Request is missing Authentication Token", true
	default:
		msg = missingHeader(header, c.Request.Header)
	}
	if msg == "" {
		return e.Code, e.Message, true
	}
	return "IncompleteSignatureException", msg, true
}

func missingQuery(query map[string][]string) (msg string) {
	for _, name := range []string{"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature", "X-Amz-SignedHeaders", "X-Amz-Date"} {
		if len(query[name]) == 0 || query[name][0] == "" {
			msg += "AWS query-string parameters must include '" + name + "'. "
		}
	}
	if msg != "" {
		msg += "Re-examine the query-string parameters."
	}
	return msg
}

func missingHeader(authorization string, h http.Header) (msg string) {
	have := map[string]bool{}
	for _, part := range strings.FieldsFunc(authorization, func(r rune) bool { return r == ',' || r == ' ' }) {
		name, value, _ := strings.Cut(part, "=")
		have[name] = value != ""
	}
	for _, name := range []string{"Credential", "Signature", "SignedHeaders"} {
		if !have[name] {
			msg += "Authorization header requires '" + name + "' parameter. "
		}
	}
	if h.Get("X-Amz-Date") == "" && h.Get("Date") == "" {
		msg += "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. "
	}
	if msg != "" {
		msg += "Authorization=" + authorization
	}
	return msg
}
