package event

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ebb-run/ebb/internal/errs"
)

// Extensions that hold what an EventBridge entry has and a CloudEvent has no attribute for.
const (
	Resources = "ebbresources" // the resources that the event is about, joined by commas; % and commas in them are percent-encoded
	escaped   = "ebbescaped"   // which of "source" and "type" are percent-encoded, as CloudEvents do not allow the text itself; joined by a space
)

// Entry is an event as it is given to EventBridge: API reference, PutEventsRequestEntry.
type Entry struct {
	ID         string    // chosen by the service
	Time       time.Time // of second precision on the service's side
	Source     string    // any text
	DetailType string    // any text
	Resources  []string  // ARNs as a rule
	Detail     []byte    // a JSON object
}

// FromEntry gives the CloudEvent that the entry is, of which [Envelope] makes the entry's text again: source and detail type that a CloudEvent cannot have are
// percent-encoded, and marked so. It shares the Detail. The error is of code Invalid.
func FromEntry(n Entry) (*Event, error) {
	if n.Source == "" || n.DetailType == "" {
		return nil, errs.New(errs.Invalid, "an entry has to have a source and a detail type")
	}
	if !utf8.Valid(n.Detail) || !json.Valid(n.Detail) || firstByte(n.Detail) != '{' {
		return nil, errs.New(errs.Invalid, "the detail of an entry has to be a JSON object")
	}
	e := &Event{ID: n.ID, Source: n.Source, Type: n.DetailType, Time: n.Time.UTC(), DataContentType: "application/json", Data: n.Detail}
	var marks []string
	var p problems
	if p.check("source", URIRef(n.Source)); len(p) > 0 {
		e.Source = escape(n.Source, uriSafe)
		marks = append(marks, "source")
	}
	p = nil
	if p.check("type", n.DetailType); len(p) > 0 {
		e.Type = escape(n.DetailType, textSafe)
		marks = append(marks, "type")
	}
	if len(marks) > 0 {
		e.SetExtension(escaped, strings.Join(marks, " "))
	}
	SetResources(e, n.Resources)
	return e, nil
}

// SetResources puts the extension that [Envelope] gives as "resources".
func SetResources(e *Event, names []string) {
	var all []string
	for _, n := range names {
		if n != "" {
			all = append(all, escape(n, func(c byte) bool { return c != ',' && textSafe(c) }))
		}
	}
	if len(all) == 0 {
		e.SetExtension(Resources, nil)
		return
	}
	e.SetExtension(Resources, strings.Join(all, ","))
}

// Envelope appends the event in the form that EventBridge gives to rules and targets, which patterns are matched against: EventBridge user guide,
// "Events", "AWS service event structure". The account and region are those of the bus.
//
// Of the CloudEvent it has id, source, type, time in whole seconds, the data and the extension [Resources]; other attributes have no place in it. An
// event without a time has that of 1970, one without data an empty object. Data that are not JSON become a string: text as it is, other bytes as base64.
func Envelope(dst []byte, e *Event, account, region string) []byte {
	source, kind := e.Source, e.Type
	if marks := e.Extension(escaped); marks != "" {
		for _, m := range strings.Fields(marks) {
			switch m {
			case "source":
				source = original(source, uriSafe)
			case "type":
				kind = original(kind, textSafe)
			}
		}
	}
	at := e.Time
	if at.IsZero() {
		at = time.Unix(0, 0)
	}
	dst = appendString(append(dst, `{"version":"0","id":`...), e.ID)
	dst = appendString(append(dst, `,"detail-type":`...), kind)
	dst = appendString(append(dst, `,"source":`...), source)
	dst = appendString(append(dst, `,"account":`...), account)
	dst = at.UTC().AppendFormat(append(dst, `,"time":"`...), "2006-01-02T15:04:05Z")
	dst = appendString(append(dst, `","region":`...), region)
	dst = append(dst, `,"resources":[`...)
	if all := e.Extension(Resources); all != "" {
		for i, n := range strings.Split(all, ",") {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendString(dst, unescape(n))
		}
	}
	return append(e.appendDetail(append(dst, `],"detail":`...)), '}')
}

func (e *Event) appendDetail(dst []byte) []byte {
	switch {
	case len(e.Data) == 0:
		return append(dst, "{}"...)
	case !utf8.Valid(e.Data):
		dst = base64.StdEncoding.AppendEncode(append(dst, '"'), e.Data)
		return append(dst, '"')
	case e.IsJSON() && json.Valid(e.Data):
		return append(dst, e.Data...)
	}
	return appendString(dst, string(e.Data))
}

func firstByte(p []byte) byte {
	for _, c := range p {
		if c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			return c
		}
	}
	return 0
}

// textSafe says which bytes of an attribute's text are never encoded.
func textSafe(c byte) bool { return c >= ' ' && c < 0x7f && c != '%' }

// uriSafe says which bytes of a URI-reference are never encoded: those that mean nothing in one, and "/". A colon is not among them, before which
// a reader looks for a scheme.
func uriSafe(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~/", c) >= 0
}

// escape writes bytes that are not safe as %XX. unescape is its inverse.
func escape(s string, safe func(byte) bool) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; safe(c) {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
	}
	return b.String()
}

// original gives what escape was given. Text that escape never writes stays: nobody hides one source behind another.
func original(s string, safe func(byte) bool) string {
	if t := unescape(s); escape(t, safe) == s {
		return t
	}
	return s
}

// unescape replaces %XX; a % before anything else stays.
func unescape(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if hi, lo := unhex(s[i+1]), unhex(s[i+2]); hi >= 0 && lo >= 0 {
				b = append(b, byte(hi<<4|lo))
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}
