package lambda

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
)

// maxEvent is the size of an event in bytes: Lambda quotas, "Invocation payload (synchronous)".
const maxEvent = 6 << 20

// The kinds of API as [invocation.Route.APIKind] names them.
const (
	kindREST = "rest"
	kindHTTP = "http"
	kindURL  = "url"
)

// appendEvent appends the event that the Request is for a handler: payload format 1.0 for REST APIs and
// HTTP APIs that ask for it, else 2.0. It reads the Request's Body to its end. An event over 6 MB is
// errs.TooLarge; an error of the Body is passed on.
func appendEvent(dst []byte, r *invocation.Request, inv *invocation.Invocation) ([]byte, error) {
	if r.Route == nil {
		return dst, errs.New(errs.Internal, "a request without a route")
	}
	start := len(dst)
	e := httpEvent{r: r, inv: inv}
	e.head()
	if e.v1() {
		dst = e.appendV1(dst)
	} else {
		dst = e.appendV2(dst)
	}
	dst, err := e.appendBody(dst)
	if err != nil {
		return dst, err
	}
	dst = append(dst, '}')
	if len(dst)-start > maxEvent {
		return dst, tooLarge(len(dst) - start)
	}
	return dst, nil
}

func tooLarge(n int) error {
	return errs.New(errs.TooLarge, "the event of %d bytes is over the limit of %d", n, maxEvent)
}

// httpEvent is one translation at work.
type httpEvent struct {
	r      *invocation.Request
	inv    *invocation.Invocation
	fields []invocation.Field // the header as the function sees it; equal names stand where they stood
	agent  string
}

func (e *httpEvent) v1() bool {
	return e.r.Route.APIKind == kindREST || e.r.Route.APIKind == kindHTTP && e.r.Route.Format == "1.0"
}

// dropped says which header lines no function sees: those that concern one connection only, and at a REST API
// Content-Length and the lines of "API Gateway important notes for REST APIs", table of headers, that are dropped.
func dropped(kind, name string) bool {
	switch len(name) {
	case 2:
		return strings.EqualFold(name, "TE")
	case 6:
		return strings.EqualFold(name, "Expect") || kind == kindREST && strings.EqualFold(name, "Server")
	case 7:
		return strings.EqualFold(name, "Trailer") || strings.EqualFold(name, "Upgrade")
	case 10:
		return strings.EqualFold(name, "Connection") || strings.EqualFold(name, "Keep-Alive")
	case 11:
		return kind == kindREST && strings.EqualFold(name, "Content-MD5")
	case 12:
		return kind == kindREST && strings.EqualFold(name, "Max-Forwards")
	case 14:
		return kind == kindREST && strings.EqualFold(name, "Content-Length")
	case 16:
		return kind == kindREST && strings.EqualFold(name, "WWW-Authenticate") || strings.EqualFold(name, "Proxy-Connection")
	case 17:
		return strings.EqualFold(name, "Transfer-Encoding")
	case 18:
		return strings.EqualFold(name, "Proxy-Authenticate")
	}
	return false
}

// head collects the header: what the client sent without the dropped lines, and what the front adds.
func (e *httpEvent) head() {
	kind := e.r.Route.APIKind
	lowered := kind != kindREST
	fields := make([]invocation.Field, 0, len(e.r.Header)+6)
	var forwarded, trace string
	var length, host bool
	for _, f := range e.r.Header {
		if dropped(kind, f.Name) {
			continue
		}
		switch len(f.Name) {
		case 4:
			host = host || strings.EqualFold(f.Name, "Host")
		case 10:
			if strings.EqualFold(f.Name, "User-Agent") {
				e.agent = f.Value
			}
		case 14:
			length = length || strings.EqualFold(f.Name, "Content-Length")
		case 15:
			if strings.EqualFold(f.Name, "X-Forwarded-For") {
				if forwarded != "" {
					forwarded += ", "
				}
				forwarded += f.Value
				continue
			}
			if strings.EqualFold(f.Name, "X-Amzn-Trace-Id") {
				trace = f.Value
				continue
			}
		case 16:
			if strings.EqualFold(f.Name, "X-Forwarded-Port") {
				continue
			}
		case 17:
			if strings.EqualFold(f.Name, "X-Forwarded-Proto") {
				continue
			}
		}
		if lowered {
			f.Name = lower(f.Name)
		}
		fields = append(fields, f)
	}
	name := func(s string) string {
		if lowered {
			return lower(s)
		}
		return s
	}
	add := func(n, v string) { fields = append(fields, invocation.Field{Name: name(n), Value: v}) }
	if !host {
		add("Host", e.r.Host)
	}
	if kind == kindHTTP && !length {
		add("Content-Length", strconv.FormatInt(max(e.r.ContentLength, 0), 10))
	}
	if trace == "" {
		trace = traceHeader(e.inv)
	}
	add("X-Amzn-Trace-Id", trace)
	if forwarded != "" {
		forwarded += ", "
	}
	add("X-Forwarded-For", forwarded+e.r.RemoteIP)
	add("X-Forwarded-Port", port(e.r))
	add("X-Forwarded-Proto", e.r.Scheme)
	e.fields = fields
}

// port is where the client came in: the Host's port, or the scheme's.
func port(r *invocation.Request) string {
	if i := strings.LastIndexByte(r.Host, ':'); i >= 0 && !strings.HasSuffix(r.Host, "]") {
		return r.Host[i+1:]
	}
	if r.Scheme == "https" {
		return "443"
	}
	return "80"
}

// xray gives a W3C traceparent in AWS's form, or "" where it is none.
func xray(t string) string {
	if len(t) < 55 || t[2] != '-' || t[35] != '-' || t[52] != '-' {
		return ""
	}
	b := make([]byte, 0, 80)
	b = append(b, "Root=1-"...)
	b = append(b, t[3:11]...)
	b = append(b, '-')
	b = append(b, t[11:35]...)
	b = append(b, ";Parent="...)
	b = append(b, t[36:52]...)
	b = append(b, ";Sampled="...)
	sampled := byte('0')
	if unhex(t[54])&1 == 1 {
		sampled = '1'
	}
	return string(append(b, sampled))
}

// traceHeader gives an Invocation's trace in AWS's form: Root is the W3C trace id, else made of time and Invocation id.
func traceHeader(inv *invocation.Invocation) string {
	if t := xray(inv.Trace); t != "" {
		return t
	}
	b := make([]byte, 0, 80)
	b = append(b, "Root=1-"...)
	sec := uint32(inv.Received.Unix())
	for shift := 28; shift >= 0; shift -= 4 {
		b = append(b, hexDigits[sec>>shift&15])
	}
	b = append(b, '-')
	n := -8 // of the id's 32 digits the last 24
	for i := 0; i < len(inv.ID); i++ {
		if inv.ID[i] == '-' {
			continue
		}
		if n++; n > 0 && n <= 24 {
			b = append(b, inv.ID[i])
		}
	}
	for ; n < 24; n++ {
		b = append(b, '0')
	}
	return string(b)
}

// eachGroup calls f once for every header name (ignoring case) with the indexes of its lines in order.
func (e *httpEvent) eachGroup(f func(name string, at []int)) {
	var buf [16]int
next:
	for i := range e.fields {
		n := e.fields[i].Name
		for j := range i {
			if sameName(e.fields[j].Name, n) {
				continue next
			}
		}
		at := append(buf[:0], i)
		for j := i + 1; j < len(e.fields); j++ {
			if sameName(e.fields[j].Name, n) {
				at = append(at, j)
			}
		}
		f(n, at)
	}
}

func sameName(a, b string) bool { return len(a) == len(b) && strings.EqualFold(a, b) }

// appendTime appends the time of a request as API Gateway writes it: "12/Mar/2020:19:03:58 +0000".
func appendTime(dst []byte, t time.Time) []byte {
	dst = append(dst, '"')
	dst = t.UTC().AppendFormat(dst, "02/Jan/2006:15:04:05 +0000")
	return append(dst, '"')
}

// pairs splits a query. Names and values are decoded; a name without "=" has an empty value.
func pairs(query string) []invocation.Field {
	if query == "" {
		return nil
	}
	out := make([]invocation.Field, 0, strings.Count(query, "&")+1)
	for query != "" {
		var p string
		p, query, _ = strings.Cut(query, "&")
		if p == "" {
			continue
		}
		k, v, _ := strings.Cut(p, "=")
		out = append(out, invocation.Field{Name: decodePercent(k, true), Value: decodePercent(v, true)})
	}
	return out
}

// eachPair calls f once for every name in q with its values in order.
func eachPair(q []invocation.Field, f func(name string, values []string)) {
	var buf [8]string
next:
	for i := range q {
		for j := range i {
			if q[j].Name == q[i].Name {
				continue next
			}
		}
		values := append(buf[:0], q[i].Value)
		for j := i + 1; j < len(q); j++ {
			if q[j].Name == q[i].Name {
				values = append(values, q[j].Value)
			}
		}
		f(q[i].Name, values)
	}
}

// appendStageVars appends the stage's variables in the order of their names.
func appendStageVars(dst []byte, vars map[string]string) []byte {
	dst = append(dst, '{')
	for _, k := range slices.Sorted(maps.Keys(vars)) {
		if dst[len(dst)-1] != '{' {
			dst = append(dst, ',')
		}
		dst = appendString(dst, k)
		dst = append(dst, ':')
		dst = appendString(dst, vars[k])
	}
	return append(dst, '}')
}

// appendParams appends the path parameters. A REST API gives them as the client sent them, an HTTP API decoded.
func (e *httpEvent) appendParams(dst []byte) []byte {
	dst = append(dst, '{')
	for i, p := range e.r.Route.Params {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, p.Name)
		dst = append(dst, ':')
		if e.r.Route.APIKind == kindREST {
			dst = appendString(dst, p.Value)
		} else {
			dst = appendString(dst, decodePercent(p.Value, false))
		}
	}
	return append(dst, '}')
}

// appendJSON appends any value of an authorizer; what JSON cannot hold becomes null.
func appendJSON(dst []byte, v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		return append(dst, "null"...)
	}
	return append(dst, b...)
}

// appendBody appends "body" and "isBase64Encoded", reading the Body to its end.
func (e *httpEvent) appendBody(dst []byte) ([]byte, error) {
	if e.r.ContentLength == 0 {
		return e.appendNoBody(dst), nil
	}
	body, err := readBody(e.r)
	if err != nil {
		return dst, err
	}
	if len(body) == 0 {
		return e.appendNoBody(dst), nil
	}
	dst = appendKey(dst, "body")
	if !e.binary() {
		dst = appendString(dst, body)
		return append(dst, `,"isBase64Encoded":false`...), nil
	}
	dst = append(dst, '"')
	dst = base64.StdEncoding.AppendEncode(dst, body)
	return append(dst, `","isBase64Encoded":true`...), nil
}

// readBody reads the Body to its end. A Body that already is in memory is not copied.
func readBody(r *invocation.Request) ([]byte, error) {
	if b, ok := r.Body.(interface{ Bytes() []byte }); ok {
		if body := b.Bytes(); len(body) <= maxEvent {
			return body, nil
		}
		return nil, tooLarge(len(b.Bytes()))
	}
	if r.ContentLength > maxEvent {
		return nil, tooLarge(int(r.ContentLength))
	}
	buf := bytes.NewBuffer(make([]byte, 0, max(r.ContentLength, 0)+bytes.MinRead))
	if _, err := buf.ReadFrom(io.LimitReader(r.Body, maxEvent+1)); err != nil {
		return nil, fmt.Errorf("read request body: %w", err)
	}
	if buf.Len() > maxEvent {
		return nil, tooLarge(buf.Len())
	}
	return buf.Bytes(), nil
}

func (e *httpEvent) appendNoBody(dst []byte) []byte {
	if e.v1() {
		dst = appendNull(dst, "body")
	}
	return append(dst, `,"isBase64Encoded":false`...)
}

// binary says whether the body goes as base64. A REST API compares its binary media types. HTTP APIs and function URLs
// take text/* and JSON, XML and JavaScript for text and nothing else, forms and a missing type included.
func (e *httpEvent) binary() bool {
	mt := mediaType(e.r.Get("Content-Type"))
	if e.r.Route.APIKind == kindREST {
		return mediaMatch(e.r.Route.Binary, mt)
	}
	switch mt {
	case "application/json", "application/xml", "application/javascript":
		return false
	}
	return !strings.HasPrefix(mt, "text/")
}

// mediaType gives type/subtype in lower case without parameters.
func mediaType(s string) string {
	if i := strings.IndexAny(s, ";,"); i >= 0 {
		s = s[:i]
	}
	return strings.ToLower(strings.TrimSpace(s))
}

// mediaMatch says whether one of the patterns, "image/png", "image/*" or "*/*", covers the media type.
func mediaMatch(patterns []string, mt string) bool {
	for _, p := range patterns {
		p = strings.ToLower(strings.ReplaceAll(p, "~1", "/"))
		if p == "*/*" || p == mt && mt != "" {
			return true
		}
		if main, ok := strings.CutSuffix(p, "/*"); ok && strings.HasPrefix(mt, main+"/") {
			return true
		}
	}
	return false
}
