package event

import (
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/textproto"
	"strings"
	"unicode/utf8"

	"github.com/ebb-run/ebb/internal/errs"
)

// Mode is a content mode of the HTTP binding: http-protocol-binding.md, "HTTP Message Mapping".
type Mode string

// The modes.
const (
	Binary     Mode = "binary"     // attributes in headers, data as the body
	Structured Mode = "structured" // one Event in the JSON format
	Batch      Mode = "batch"      // a JSON array of Events
)

const headerPrefix = "Ce-"

// ModeOf tells in which mode a message is, by its headers alone.
func ModeOf(h http.Header) (Mode, error) {
	m, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	switch {
	case h.Get("Content-Type") != "" && err != nil && strings.HasPrefix(strings.ToLower(h.Get("Content-Type")), "application/cloudevents"):
		return "", errs.New(errs.Invalid, "not a valid CloudEvent: the Content-Type %q cannot be read", clip(h.Get("Content-Type")))
	case m != ContentType && m != BatchContentType && strings.HasPrefix(m, "application/cloudevents"):
		return "", errs.New(errs.Unsupported, "the event format %q is not known", clip(m)).WithHint("Send %s or %s.", ContentType, BatchContentType)
	case m == ContentType || m == BatchContentType:
		if cs := params["charset"]; cs != "" && !strings.EqualFold(cs, "utf-8") {
			return "", errs.New(errs.Unsupported, "CloudEvents in the charset %q cannot be read", clip(cs)).WithHint("JSON is written in UTF-8.")
		}
		if m == ContentType {
			return Structured, nil
		}
		return Batch, nil
	case h.Get(headerPrefix+"specversion") != "" || h.Get(headerPrefix+"id") != "":
		return Binary, nil
	}
	return "", errs.New(errs.Invalid, "not a CloudEvent: there is no header \"ce-specversion\", and the Content-Type is not %s or %s", ContentType, BatchContentType).
		WithHint("Send the headers ce-specversion: 1.0, ce-id, ce-source and ce-type.")
}

// ReadHTTP reads the Events of a request or an answer. It reads no more of the body than the limits allow.
func ReadHTTP(h http.Header, body io.Reader, lim Limits) ([]*Event, Mode, error) {
	lim = lim.orDefaults()
	mode, err := ModeOf(h)
	if err != nil {
		return nil, "", err
	}
	most := lim.Event
	switch mode {
	case Batch:
		most = lim.Batch
	case Structured:
		// Base64 and escapes make the text longer than what the limit counts; six bytes stand for one at most.
		most = 6*lim.Event + 4096
	}
	b, err := io.ReadAll(io.LimitReader(body, int64(most)+1))
	if err != nil {
		return nil, mode, fmt.Errorf("read event: %w", err)
	}
	if len(b) > most {
		what := "event"
		if mode == Batch {
			what = "batch"
		}
		return nil, mode, errs.New(errs.TooLarge, "the %s has more than %d bytes", what, most).
			WithHint("%s", HintTooLarge)
	}
	switch mode {
	case Batch:
		events, err := ParseBatch(b, lim)
		return events, mode, err
	case Structured:
		e, err := ParseJSON(b, lim.Event)
		return []*Event{e}, mode, err
	}
	e, err := readBinary(h, b, lim.Event)
	return []*Event{e}, mode, err
}

func readBinary(h http.Header, body []byte, limit int) (*Event, error) {
	e := &Event{}
	var p problems
	version := false
	for name, values := range h {
		rest, ok := cutPrefixFold(name, headerPrefix)
		if !ok {
			continue
		}
		name = strings.ToLower(rest)
		if len(values) != 1 {
			p.add("the header \"ce-%s\" stands there %d times", clip(name), len(values))
			continue
		}
		if name == "datacontenttype" {
			p.add("the header \"ce-datacontenttype\" is not allowed; Content-Type says it")
			continue
		}
		if !e.isCore(name) {
			p.name(name)
		}
		version = version || name == "specversion"
		v, ok := decodeHeader(values[0])
		if !ok {
			p.add("the header \"ce-%s\" does not decode to UTF-8", clip(name))
			continue
		}
		e.set(name, v, &p)
	}
	if !version {
		p.add("the header \"ce-specversion\" is missing")
	}
	if ct := h.Get("Content-Type"); ct != "" {
		e.DataContentType = ct
	}
	if len(body) > 0 {
		e.Data = body
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	if err := e.Validate(limit); err != nil {
		return nil, err
	}
	return e, nil
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return "", false
	}
	return s[len(prefix):], true
}

// WriteBinary sets the headers of binary mode and returns the body. What is absent in e is removed from h.
func (e *Event) WriteBinary(h http.Header) []byte {
	for name := range h {
		if _, ok := cutPrefixFold(name, headerPrefix); ok {
			delete(h, name)
		}
	}
	for name, t := range e.attributes() {
		if name != "datacontenttype" {
			h[textproto.CanonicalMIMEHeaderKey(headerPrefix+name)] = []string{encodeHeader(t)}
		}
	}
	switch {
	case e.DataContentType != "":
		h.Set("Content-Type", e.DataContentType)
	default:
		h.Del("Content-Type")
	}
	return e.Data
}

// encodeHeader writes a value as http-protocol-binding.md, "HTTP Header Values", has it: spaces, quotes, percent signs and what is not
// printable ASCII are percent-encoded.
func encodeHeader(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c >= 0x7f || c == '"' || c == '%' {
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

// decodeHeader undoes quotes, which older senders use, and then percent-encoding once.
func decodeHeader(s string) (string, bool) {
	if n := len(s); n >= 2 && s[0] == '"' && s[n-1] == '"' {
		var b strings.Builder
		for i := 1; i < n-1; i++ {
			if s[i] == '\\' && i+1 < n-1 {
				i++
			}
			b.WriteByte(s[i])
		}
		s = b.String()
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			hi, lo := unhex(s[i+1]), unhex(s[i+2])
			if hi >= 0 && lo >= 0 {
				b.WriteByte(byte(hi<<4 | lo))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String(), utf8.ValidString(b.String())
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
