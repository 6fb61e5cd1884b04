// Package filter decides which events, messages and records a subscriber gets, in the words that each kind of subscriber uses.
//
// Main types: [Policy], the filter policy of an SNS subscription; [Criteria], the filter criteria of a Lambda event source mapping;
// [Filter], a filter of the CloudEvents Subscriptions API. The first two are event patterns (package pattern) over a view of what
// arrives.
//
// Guarantees:
//
//  1. What is refused is refused with every fault, each with its JSON path, line and column.
//  2. What AWS documents of scopes, data types and formats holds: message attributes by their type, bodies and data as JSON or as plain
//     strings, and no match where pattern and data are of different form.
//  3. The dialects exact, prefix, suffix, all, any, not and sql are those of the Subscriptions API 1.0-wip, sql being package cesql.
//  4. Matching changes nothing, never panics, and its errors are of code Invalid or TooLarge.
//
// It knows nothing of queues and topics, nor of what happens with what does not match.
package filter

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/ebb-run/ebb/internal/bus/rawjson"
	"github.com/ebb-run/ebb/internal/diag"
)

// places records faults of one text.
type places struct {
	source []byte
	file   string
	list   diag.List
	at     []string // the JSON path
}

func (p *places) pos(offset int) diag.Pos {
	line, col := rawjson.Place(p.source, offset)
	return diag.Pos{File: p.file, Line: line, Col: col}
}

func (p *places) path() string { return "$" + strings.Join(p.at, "") }

func (p *places) errorf(offset int, code, hint, format string, args ...any) {
	p.list.Errorf(p.pos(offset), code, hint, "%s: "+format, append([]any{p.path()}, args...)...)
}

func (p *places) warnf(offset int, code, hint, format string, args ...any) {
	p.list.Warnf(p.pos(offset), code, hint, "%s: "+format, append([]any{p.path()}, args...)...)
}

// inside runs f with the JSON path lengthened.
func (p *places) inside(part string, f func() error) error {
	p.at = append(p.at, part)
	err := f()
	p.at = p.at[:len(p.at)-1]
	return err
}

func element(i int) string { return "[" + strconv.Itoa(i) + "]" }

// quote writes a JSON string.
func quote(out []byte, text string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(text) // a string always can be
	return append(out, bytes.TrimSuffix(b.Bytes(), []byte("\n"))...)
}

// jsonDepth is how deep data may nest to be seen as JSON; a view adds to it, and package pattern takes 512.
const jsonDepth = 500

// structured says whether a text is a JSON object or list. Other JSON texts (5, "x") are plain strings to a filter.
func structured(text []byte) bool {
	r := rawjson.Reader{Data: text, MaxDepth: jsonDepth}
	if k := r.Peek(); k != rawjson.Object && k != rawjson.Array {
		return false
	}
	if _, err := r.Skip(); err != nil {
		return false
	}
	return r.Finish() == nil
}
