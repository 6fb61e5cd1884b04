package event

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"unicode/utf8"

	"github.com/ebb-run/ebb/internal/errs"
)

// Media types of the JSON format: json-format.md.
const (
	ContentType      = "application/cloudevents+json"
	BatchContentType = "application/cloudevents-batch+json"
)

// ParseJSON reads one Event in the JSON format. A limit of 0 means none.
//
// https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
func ParseJSON(b []byte, limit int) (*Event, error) {
	if !utf8.Valid(b) {
		return nil, errs.New(errs.Invalid, "not a valid CloudEvent: the JSON is not valid UTF-8")
	}
	e, err := decodeOne(b)
	if err != nil {
		return nil, err
	}
	if err := e.Validate(limit); err != nil {
		return nil, err
	}
	return e, nil
}

// decodeOne reads the only object of b.
func decodeOne(b []byte) (*Event, error) {
	if json.Valid(b) {
		return decodeValid(bytes.TrimSpace(b))
	}
	// The decoder knows what is wrong.
	dec := json.NewDecoder(bytes.NewReader(b))
	e, err := decode(dec)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errs.New(errs.Invalid, "not a valid CloudEvent: more follows the event at byte %d", dec.InputOffset())
	}
	return e, nil
}

func errNoObject() error {
	return errs.New(errs.Invalid, "not a valid CloudEvent: it is not a JSON object")
}

// ParseBatch reads a JSON array of Events. An error names the index of the wrong one; nothing of the batch is returned then.
func ParseBatch(b []byte, lim Limits) ([]*Event, error) {
	lim = lim.orDefaults()
	if len(b) > lim.Batch {
		return nil, tooLarge("batch", len(b), lim.Batch)
	}
	if !utf8.Valid(b) {
		return nil, errs.New(errs.Invalid, "not a valid batch of CloudEvents: the JSON is not valid UTF-8")
	}
	if text := bytes.TrimSpace(b); len(text) > 0 && text[0] == '[' && json.Valid(text) {
		return validBatch(text, lim)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if t, err := dec.Token(); err != nil || t != json.Delim('[') {
		return nil, errs.New(errs.Invalid, "not a valid batch of CloudEvents: it is not a JSON array")
	}
	out := []*Event{}
	for dec.More() {
		var err error
		if out, err = oneMore(out, lim, func() (*Event, error) { return decode(dec) }); err != nil {
			return nil, err
		}
	}
	if _, err := dec.Token(); err != nil {
		return nil, errs.New(errs.Invalid, "not a valid batch of CloudEvents: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errs.New(errs.Invalid, "not a valid batch of CloudEvents: more follows it at byte %d", dec.InputOffset())
	}
	return out, nil
}

// oneMore adds an Event to a batch.
func oneMore(out []*Event, lim Limits, read func() (*Event, error)) ([]*Event, error) {
	if len(out) == lim.Events {
		return nil, errs.New(errs.TooLarge, "the batch has more than %d events", lim.Events).WithHint("Send several batches.")
	}
	e, err := read()
	if err == nil {
		err = e.Validate(lim.Event)
	}
	if err != nil {
		return nil, errs.New(errs.CodeOf(err), "event %d of the batch: %w", len(out), err)
	}
	return append(out, e), nil
}

// validBatch reads an array that is valid JSON.
func validBatch(b []byte, lim Limits) ([]*Event, error) {
	out := []*Event{}
	err := elements(b, func(raw []byte) (err error) {
		out, err = oneMore(out, lim, func() (*Event, error) { return decodeValid(raw) })
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// decode reads one object; it does not validate the values that Validate does.
func decode(dec *json.Decoder) (*Event, error) {
	dec.UseNumber() // any number is one
	t, err := dec.Token()
	if err != nil {
		return nil, errs.New(errs.Invalid, "not a valid CloudEvent: not JSON: %w", err)
	}
	if t != json.Delim('{') {
		return nil, errNoObject()
	}
	m := newMembers()
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, errs.New(errs.Invalid, "not a valid CloudEvent: not JSON: %w", err)
		}
		name, _ := t.(string) // the decoder gives nothing else here
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, errs.New(errs.Invalid, "not a valid CloudEvent: not JSON: %w", err)
		}
		m.take(name, raw)
	}
	if _, err := dec.Token(); err != nil {
		return nil, errs.New(errs.Invalid, "not a valid CloudEvent: not JSON: %w", err)
	}
	return m.event()
}

// members gathers those of one object.
type members struct {
	e            *Event
	p            problems
	data, data64 json.RawMessage
	seen         map[string]bool
}

func newMembers() *members { return &members{e: &Event{}, seen: make(map[string]bool, 8)} }

// take takes a member and its value, which is valid JSON without white space around it.
func (m *members) take(name string, raw json.RawMessage) {
	if m.seen[name] {
		m.p.add("%q stands there twice", clip(name))
		return
	}
	m.seen[name] = true
	switch {
	case name == "data":
		m.data = raw
	case name == "data_base64":
		m.data64 = raw
	case string(raw) == "null": // as if it were absent
		m.seen[name] = name != "specversion"
	default:
		m.e.member(name, raw, &m.p)
	}
}

func (m *members) event() (*Event, error) {
	if !m.seen["specversion"] {
		m.p.add("attribute \"specversion\" is missing")
	}
	m.e.payload(m.data, m.data64, &m.p)
	return m.e, m.p.err()
}

// member sets an attribute from its JSON value.
func (e *Event) member(name string, raw json.RawMessage, p *problems) {
	isCore := name == "id" || e.isCore(name)
	if !isCore {
		p.name(name)
	}
	switch raw[0] {
	case '"':
		s, err := unquote(raw)
		if err != nil {
			p.add("attribute %q: %v", clip(name), err)
			return
		}
		e.set(name, s, p)
		return
	case 't', 'f':
		if !isCore {
			e.SetExtension(name, raw[0] == 't')
			return
		}
	case '{', '[':
	default:
		if n, err := strconv.ParseInt(string(raw), 10, 32); err == nil && !isCore {
			e.SetExtension(name, int32(n))
			return
		}
	}
	if isCore {
		p.add("attribute %q is %s, not a string", name, clip(string(raw)))
		return
	}
	p.add("attribute %q is %s; a string, a boolean or an integer of 32 bits is allowed", clip(name), clip(string(raw)))
}

func (e *Event) isCore(name string) bool {
	for _, c := range core {
		if c == name {
			return true
		}
	}
	return false
}

// payload sets the data: json-format.md, "Handling of data".
func (e *Event) payload(data, data64 json.RawMessage, p *problems) {
	switch {
	case data != nil && data64 != nil:
		p.add("both \"data\" and \"data_base64\" are there; one is allowed")
	case data64 != nil:
		if string(data64) == "null" {
			return
		}
		var s string
		if err := json.Unmarshal(data64, &s); err != nil {
			p.add("\"data_base64\" is not a string")
			return
		}
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			p.add("\"data_base64\" is not base64: %v", err)
			return
		}
		e.Data = append([]byte{}, b...)
	case data != nil && e.IsJSON():
		e.Data = bytes.Clone(data)
	case data != nil && string(data) != "null":
		if halfPair(data) {
			p.add("\"data\" holds half a surrogate pair, which is no character")
			return
		}
		var s string
		if err := json.Unmarshal(data, &s); err != nil {
			p.add("\"data\" is not a string although \"datacontenttype\" is %q", clip(e.DataContentType))
			return
		}
		e.Data = []byte(s)
	}
}

// MarshalJSON writes e in the JSON format: JSON data as they are, text as a string, anything else in base64.
func (e *Event) MarshalJSON() ([]byte, error) {
	b := []byte("{")
	for name, t := range e.attributes() {
		b = appendMember(b, name)
		switch v := e.Extensions[name].(type) {
		case bool:
			b = strconv.AppendBool(b, v)
		case int32:
			b = strconv.AppendInt(b, int64(v), 10)
		default:
			b = appendString(b, t)
		}
	}
	switch {
	case e.Data == nil:
	case e.IsJSON() && json.Valid(e.Data) && utf8.Valid(e.Data):
		b = append(appendMember(b, "data"), e.Data...)
	case !e.IsJSON() && e.isText():
		b = appendString(appendMember(b, "data"), string(e.Data))
	default:
		b = append(appendMember(b, "data_base64"), '"')
		b = append(base64.StdEncoding.AppendEncode(b, e.Data), '"')
	}
	return append(b, '}'), nil
}

// UnmarshalJSON reads e as [ParseJSON] does, without a limit.
func (e *Event) UnmarshalJSON(b []byte) error {
	got, err := ParseJSON(b, 0)
	if err != nil {
		return err
	}
	*e = *got
	return nil
}

// FormatBatch writes Events as a JSON array.
func FormatBatch(events []*Event) ([]byte, error) {
	b := []byte("[")
	for i, e := range events {
		if i > 0 {
			b = append(b, ',')
		}
		one, err := e.MarshalJSON()
		if err != nil {
			return nil, err
		}
		b = append(b, one...)
	}
	return append(b, ']'), nil
}

func appendMember(b []byte, name string) []byte {
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	return append(appendString(b, name), ':')
}

func appendString(b []byte, s string) []byte {
	if plain(s) {
		return append(append(append(b, '"'), s...), '"')
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string always encodes
	return append(b, bytes.TrimSuffix(buf.Bytes(), []byte("\n"))...)
}

// plain says that a JSON string holds s as it is.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}
