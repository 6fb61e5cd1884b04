// Package event holds the event that everything but a request is: CloudEvents 1.0.2, its JSON format and its HTTP modes.
//
// Main type: [Event]. [ReadHTTP] reads a request or an answer in binary, structured or batch mode; WriteBinary, [ParseJSON],
// [ParseBatch] and MarshalJSON are the parts. [Envelope] and [FromEntry] are the way to EventBridge's form and from it.
//
// Guarantees:
//
//  1. What a parser returns is valid, and within the [Limits]; what is refused says which attribute is wrong and how.
//  2. An Event written and read again in the same form is equal: attributes, extensions with the type that the form can carry, and data byte for
//     byte. JSON data may lose white space that means nothing.
//  3. What FromEntry makes of an entry with a valid id is valid, and Envelope gives the entry's source, detail type, resources and detail again.
//  4. No input makes a parser fail in any other way than by an error; memory is bounded by the input.
//
// It is written for ebb: the public SDK puts no bound on an event, brings two logging and JSON libraries, and accepts what the
// specification forbids (duplicate members, attribute names in capitals). It knows nothing of the bus.
package event

import (
	"encoding/base64"
	"fmt"
	"maps"
	"mime"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ebb-run/ebb/internal/errs"
)

// SpecVersion is the version of CloudEvents that is spoken.
const SpecVersion = "1.0"

// URI is the value of an extension of type URI, which is absolute.
type URI string

// URIRef is the value of an extension of type URI-reference.
type URIRef string

// Event is one CloudEvent. An empty attribute is an absent one: the specification has no empty attributes.
//
// https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md
type Event struct {
	ID              string
	Source          string // URI-reference
	Type            string
	Subject         string
	Time            time.Time // zero means absent
	DataContentType string    // a media type; absent means JSON
	DataSchema      string    // absolute URI
	// Extensions hold bool, int32, string, []byte, URI, URIRef or time.Time. Forms that do not carry the type give strings.
	Extensions map[string]any
	Data       []byte // nil means no data
}

// Limits bound what is read.
type Limits struct {
	Event  int // bytes of attributes and data of one Event
	Events int // in one batch
	Batch  int // bytes of a batch
}

// DefaultLimits are 256 KiB for an Event, as EventBridge and SQS have it, and 100 Events in 4 MiB for a batch.
func DefaultLimits() Limits { return Limits{Event: 256 << 10, Events: 100, Batch: 4 << 20} }

// orDefaults fills what is zero.
func (l Limits) orDefaults() Limits {
	d := DefaultLimits()
	if l.Event <= 0 {
		l.Event = d.Event
	}
	if l.Events <= 0 {
		l.Events = d.Events
	}
	if l.Batch <= 0 {
		l.Batch = d.Batch
	}
	return l
}

// Size is the number of bytes of all names, values and the data: what the limit of an Event counts.
func (e *Event) Size() int {
	n := 0
	for name, text := range e.attributes() {
		n += len(name) + len(text)
	}
	return n + len(e.Data)
}

// Extension gives an extension in its canonical text, or "".
func (e *Event) Extension(name string) string {
	v, ok := e.Extensions[name]
	if !ok {
		return ""
	}
	return text(v)
}

// Attribute gives any context attribute in its canonical text, or "".
func (e *Event) Attribute(name string) string {
	switch name {
	case "specversion":
		return SpecVersion
	case "id":
		return e.ID
	case "source":
		return e.Source
	case "type":
		return e.Type
	case "subject":
		return e.Subject
	case "datacontenttype":
		return e.DataContentType
	case "dataschema":
		return e.DataSchema
	case "time":
		if e.Time.IsZero() {
			return ""
		}
		return text(e.Time)
	}
	return e.Extension(name)
}

// SetExtension sets an extension; a nil value removes it.
func (e *Event) SetExtension(name string, v any) {
	if v == nil {
		delete(e.Extensions, name)
		return
	}
	if e.Extensions == nil {
		e.Extensions = map[string]any{}
	}
	e.Extensions[name] = v
}

// Clone gives a copy that shares no memory with e but the data, which nobody changes.
func (e *Event) Clone() *Event {
	c := *e
	c.Extensions = maps.Clone(e.Extensions)
	return &c
}

// core are the attributes of the specification, in the order in which they are written.
var core = []string{"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema"}

// attributes yields all that are present, in canonical text, extensions last and by name.
func (e *Event) attributes() func(yield func(name, text string) bool) {
	return func(yield func(name, text string) bool) {
		for _, name := range core {
			if t := e.Attribute(name); t != "" && !yield(name, t) {
				return
			}
		}
		for _, name := range e.extensionNames() {
			if !yield(name, text(e.Extensions[name])) {
				return
			}
		}
	}
}

func (e *Event) extensionNames() []string {
	if len(e.Extensions) == 0 {
		return nil
	}
	return slices.Sorted(maps.Keys(e.Extensions))
}

// text is the canonical text of a value: spec.md, "Type System".
func text(v any) string {
	switch v := v.(type) {
	case bool:
		return strconv.FormatBool(v)
	case int32:
		return strconv.Itoa(int(v))
	case string:
		return v
	case []byte:
		return base64.StdEncoding.EncodeToString(v)
	case URI:
		return string(v)
	case URIRef:
		return string(v)
	case time.Time:
		return v.Format(time.RFC3339Nano)
	}
	return ""
}

// Validate tells everything that is wrong with e, in one error of code Invalid, or TooLarge where it is over the limit of bytes.
// A limit of 0 means none.
func (e *Event) Validate(limit int) error {
	var p problems
	for _, req := range [][2]string{{"id", e.ID}, {"source", e.Source}, {"type", e.Type}} {
		if req[1] == "" {
			p.add("attribute %q is missing or empty", req[0])
		}
	}
	p.check("id", e.ID)
	p.check("type", e.Type)
	p.check("subject", e.Subject)
	p.check("source", URIRef(e.Source))
	if e.DataSchema != "" {
		p.check("dataschema", URI(e.DataSchema))
	}
	if e.DataContentType != "" {
		p.media(e.DataContentType)
	}
	if !e.Time.IsZero() {
		p.check("time", e.Time)
	}
	for _, name := range e.extensionNames() {
		p.name(name)
		p.check(name, e.Extensions[name])
	}
	if err := p.err(); err != nil {
		return err
	}
	if n := e.Size(); limit > 0 && n > limit {
		return tooLarge("event", n, limit)
	}
	return nil
}

// HintTooLarge is the mend of what is over a limit.
const HintTooLarge = "Put large data into a bucket and send a reference to it, or raise the server's setting max-event."

func tooLarge(what string, n, limit int) error {
	return errs.New(errs.TooLarge, "the %s has %d bytes, the limit is %d", what, n, limit).
		WithHint("%s", HintTooLarge)
}

// problems collects what is wrong.
type problems []string

func (p *problems) add(format string, args ...any) {
	if len(*p) < 10 { // nobody reads more, and names come from outside
		*p = append(*p, fmt.Sprintf(format, args...))
	}
}

func (p problems) err() error {
	if len(p) == 0 {
		return nil
	}
	return errs.New(errs.Invalid, "not a valid CloudEvent: %s", strings.Join(p, "; "))
}

// name checks the name of an extension: spec.md, "Naming Conventions".
func (p *problems) name(s string) {
	switch {
	case s == "data" || s == "specversion" || slices.Contains(core, s):
		p.add("the extension name %q is taken by the specification", s)
	case s == "" || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789") != "":
		p.add("the attribute name %q may hold only a to z and 0 to 9", clip(s))
	default:
		for _, c := range []byte(s) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
				p.add("the attribute name %q may hold only a to z and 0 to 9", clip(s))
				return
			}
		}
	}
}

func (p *problems) media(s string) {
	m, _, err := mime.ParseMediaType(s)
	major, minor, ok := strings.Cut(m, "/")
	if err != nil || !ok || major == "" || minor == "" {
		p.add("attribute \"datacontenttype\" is %q, not a media type such as \"application/json\"", clip(s))
	}
}

// check checks a value of an attribute.
func (p *problems) check(name string, v any) {
	switch v := v.(type) {
	case bool, int32, []byte:
	case string:
		p.text(name, v)
	case URIRef:
		p.uri(name, string(v), false)
	case URI:
		p.uri(name, string(v), true)
	case time.Time:
		if y := v.Year(); y < 0 || y > 9999 {
			p.add("attribute %q has the year %d, which RFC 3339 cannot write", name, y)
		} else if _, off := v.Zone(); off%60 != 0 || off <= -24*3600 || off >= 24*3600 {
			p.add("attribute %q has a zone offset that RFC 3339 cannot write", name)
		}
	default:
		p.add("attribute %q has a value of type %T, which CloudEvents does not know", name, v)
	}
}

func (p *problems) text(name, s string) {
	if !utf8.ValidString(s) {
		p.add("attribute %q is not valid UTF-8", name)
		return
	}
	for _, r := range s {
		if r < 0x20 || r >= 0x7f && r <= 0x9f || r >= 0xfdd0 && r <= 0xfdef || r&0xfffe == 0xfffe {
			p.add("attribute %q holds the character U+%04X, which is not allowed", name, r)
			return
		}
	}
}

func (p *problems) uri(name, s string, absolute bool) {
	before := len(*p)
	p.text(name, s)
	if len(*p) > before {
		return
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || strings.ContainsFunc(s, noURI):
		p.add("attribute %q is %q, not a URI-reference", name, clip(s))
	case absolute && u.Scheme == "":
		p.add("attribute %q is %q, not an absolute URI", name, clip(s))
	}
}

// noURI says whether a character stands in no URI: RFC 3986, "Characters".
func noURI(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune("\"<>\\^`{|}", r) }

// clip shortens what is shown of foreign text.
func clip(s string) string {
	if len(s) <= 100 {
		return s
	}
	return strings.ToValidUTF8(s[:100], "") + "…"
}

// parseTime reads RFC 3339 as written in https://www.rfc-editor.org/rfc/rfc3339#section-5.6, which allows small letters.
func parseTime(s string) (time.Time, bool) {
	t, err := time.Parse(time.RFC3339Nano, strings.ToUpper(s))
	if err != nil || strings.Contains(s, ",") || s[13] != ':' { // the library takes an hour of one digit
		return time.Time{}, false
	}
	if n := len(s); n > 6 && (s[n-6] == '+' || s[n-6] == '-') && (s[n-5:n-3] > "23" || s[n-2:] > "59") {
		return time.Time{}, false
	}
	return t, true
}

// set puts an attribute that came as text, of core or an extension.
func (e *Event) set(name, v string, p *problems) {
	if v == "" && slices.Contains(core, name) {
		p.add("attribute %q is empty", name)
		return
	}
	switch name {
	case "id":
		e.ID = v
	case "source":
		e.Source = v
	case "type":
		e.Type = v
	case "subject":
		e.Subject = v
	case "datacontenttype":
		e.DataContentType = v
	case "dataschema":
		e.DataSchema = v
	case "time":
		var ok bool
		if e.Time, ok = parseTime(v); !ok || e.Time.IsZero() {
			p.add("attribute \"time\" is %q, not a time as in RFC 3339 (\"2018-04-05T17:31:00Z\")", clip(v))
		}
	case "specversion":
		if v != SpecVersion {
			p.add("attribute \"specversion\" is %q; only %q is known", clip(v), SpecVersion)
		}
	default:
		e.SetExtension(name, v)
	}
}

// IsJSON tells whether the data are JSON: so says the media type, or there is none.
func (e *Event) IsJSON() bool {
	if e.DataContentType == "" || e.DataContentType == "application/json" {
		return true
	}
	m, _, err := mime.ParseMediaType(e.DataContentType)
	_, minor, _ := strings.Cut(m, "/")
	return err == nil && (minor == "json" || strings.HasSuffix(minor, "+json"))
}

// isText tells whether the data are text that JSON can carry as a string.
func (e *Event) isText() bool {
	m, params, err := mime.ParseMediaType(e.DataContentType)
	if cs := params["charset"]; err != nil || cs != "" && !strings.EqualFold(cs, "utf-8") {
		return false
	}
	return (strings.HasPrefix(m, "text/") || m == "application/xml" || strings.HasSuffix(m, "+xml")) && utf8.Valid(e.Data)
}
