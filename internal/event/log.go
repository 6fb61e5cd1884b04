package event

import (
	"encoding/base64"
	"encoding/binary"
	"strconv"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

// The form of the log: fast to write and read, and keeps the type of every extension. A string is its length as a uvarint and its
// bytes; a record is id, source, type, subject, time, datacontenttype, dataschema, the number of extensions, each as name, kind and
// text, and 0 for no data or 1 and the data.

const (
	kindString = iota
	kindBool
	kindInt
	kindBytes
	kindURI
	kindURIRef
	kindTime
)

// AppendLog appends e in the form of the log.
func (e *Event) AppendLog(b []byte) []byte {
	b = appendText(b, e.ID)
	b = appendText(b, e.Source)
	b = appendText(b, e.Type)
	b = appendText(b, e.Subject)
	b = appendText(b, e.Attribute("time"))
	b = appendText(b, e.DataContentType)
	b = appendText(b, e.DataSchema)
	names := e.extensionNames()
	b = binary.AppendUvarint(b, uint64(len(names)))
	for _, n := range names {
		v := e.Extensions[n]
		b = append(appendText(b, n), kindOf(v))
		b = appendText(b, text(v))
	}
	if e.Data == nil {
		return append(b, 0)
	}
	b = binary.AppendUvarint(append(b, 1), uint64(len(e.Data)))
	return append(b, e.Data...)
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func kindOf(v any) byte {
	switch v.(type) {
	case bool:
		return kindBool
	case int32:
		return kindInt
	case []byte:
		return kindBytes
	case URI:
		return kindURI
	case URIRef:
		return kindURIRef
	case time.Time:
		return kindTime
	}
	return kindString
}

// ParseLog reads one Event from the start of b and returns what follows. The Event's data share b's memory.
func ParseLog(b []byte) (*Event, []byte, error) {
	r := logReader{b: b}
	e := &Event{ID: r.text(), Source: r.text(), Type: r.text(), Subject: r.text()}
	if t := r.text(); t != "" {
		e.Time, _ = parseTime(t)
	}
	e.DataContentType, e.DataSchema = r.text(), r.text()
	for n := r.number(); n > 0 && !r.bad; n-- {
		name, kind := r.text(), r.byte()
		e.SetExtension(name, r.value(kind, r.text()))
	}
	if r.byte() == 1 {
		e.Data = r.bytes()
	}
	if r.bad {
		return nil, nil, errs.New(errs.Failed, "a record of the event log cannot be read")
	}
	return e, r.b, nil
}

// logReader reads values until one is not there; then it gives zero values, and bad is set.
type logReader struct {
	b   []byte
	bad bool
}

func (r *logReader) number() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *logReader) fail() { r.bad, r.b = true, nil }

func (r *logReader) bytes() []byte {
	n := r.number()
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *logReader) text() string { return string(r.bytes()) }

func (r *logReader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *logReader) value(kind byte, s string) any {
	switch kind {
	case kindString:
		return s
	case kindBool:
		return s == "true"
	case kindInt:
		n, err := strconv.ParseInt(s, 10, 32)
		if err != nil {
			r.fail()
		}
		return int32(n)
	case kindBytes:
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			r.fail()
		}
		return b
	case kindURI:
		return URI(s)
	case kindURIRef:
		return URIRef(s)
	case kindTime:
		t, ok := parseTime(s)
		if !ok {
			r.fail()
		}
		return t
	}
	r.fail()
	return nil
}
