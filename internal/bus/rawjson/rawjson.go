// Package rawjson reads JSON text in one pass, without building values: by kind, with the byte offset of everything.
//
// Main type: [Reader]. The bus looks into every event for a few fields; a decoder would allocate all of it.
//
// Guarantees:
//
//  1. What is read to its end is JSON by RFC 8259, and all of that is read: the same texts as encoding/json, but for depth.
//  2. Numbers keep their text. Strings are decoded as encoding/json does: what is not UTF-8 becomes U+FFFD.
//  3. Depth is bounded before it costs stack, and every fault is a [SyntaxError] with its offset.
//
// It knows nothing of events or patterns.
package rawjson

import (
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// DefaultDepth is how many objects and arrays may lie within each other when a Reader's MaxDepth is 0.
const DefaultDepth = 512

// SyntaxError is a fault of the text.
type SyntaxError struct {
	Offset int    // in bytes
	Msg    string // lower-case, no full stop
}

// Error gives the message and the offset.
func (e *SyntaxError) Error() string { return fmt.Sprintf("%s at byte %d", e.Msg, e.Offset) }

// Place is the line and column (both from 1, the column in bytes) of an offset.
func Place(data []byte, offset int) (line, col int) {
	line, col = 1, 1
	for _, c := range data[:min(offset, len(data))] {
		if c == '\n' {
			line, col = line+1, 1
		} else {
			col++
		}
	}
	return line, col
}

// Kind is what a value is.
type Kind byte

// The kinds of values. End is the end of the text, and Bad what starts no value.
const (
	End    Kind = 0
	Bad    Kind = '?'
	Object Kind = '{'
	Array  Kind = '['
	String Kind = '"'
	Number Kind = '0'
	True   Kind = 't'
	False  Kind = 'f'
	Null   Kind = 'n'
)

// Reader reads one text. Its zero value with Data set is ready. After an error it must not be used further.
type Reader struct {
	Data     []byte // not changed
	Pos      int    // the offset of what is read next
	MaxDepth int    // 0 means DefaultDepth

	depth int
}

func (r *Reader) fault(at int, format string, args ...any) error {
	return &SyntaxError{Offset: at, Msg: fmt.Sprintf(format, args...)}
}

func (r *Reader) space() {
	for r.Pos < len(r.Data) {
		switch r.Data[r.Pos] {
		case ' ', '\t', '\n', '\r':
			r.Pos++
		default:
			return
		}
	}
}

// Peek is the kind of the next value; Pos is its first byte then.
func (r *Reader) Peek() Kind {
	r.space()
	if r.Pos >= len(r.Data) {
		return End
	}
	switch c := r.Data[r.Pos]; {
	case c == '{' || c == '[' || c == '"' || c == 't' || c == 'f' || c == 'n':
		return Kind(c)
	case c == '-' || c >= '0' && c <= '9':
		return Number
	}
	return Bad
}

// Unexpected is the error for a value that is not of a kind that was wanted.
func (r *Reader) Unexpected(wanted string) error {
	r.space()
	if r.Pos >= len(r.Data) {
		return r.fault(r.Pos, "the text ends where %s should be", wanted)
	}
	c, _ := utf8.DecodeRune(r.Data[r.Pos:])
	return r.fault(r.Pos, "%s is wanted, not %s", wanted, strconv.QuoteRune(c))
}

// Finish says whether nothing but white space follows.
func (r *Reader) Finish() error {
	if r.space(); r.Pos < len(r.Data) {
		return r.fault(r.Pos, "more text after the value")
	}
	return nil
}

func (r *Reader) enter() error {
	limit := r.MaxDepth
	if limit == 0 {
		limit = DefaultDepth
	}
	if r.depth++; r.depth > limit {
		return r.fault(r.Pos, "more than %d objects and arrays within each other", limit)
	}
	r.Pos++
	return nil
}

// Object reads an object: field is called behind each key's colon and must read the value. at is the key's offset.
func (r *Reader) Object(field func(key []byte, at int) error) error {
	if r.Peek() != Object {
		return r.Unexpected("an object")
	}
	if err := r.enter(); err != nil {
		return err
	}
	defer func() { r.depth-- }()
	if r.space(); r.Pos < len(r.Data) && r.Data[r.Pos] == '}' {
		r.Pos++
		return nil
	}
	for {
		if r.Peek() != String {
			return r.Unexpected("a key in quotes")
		}
		at := r.Pos
		key, err := r.Text()
		if err != nil {
			return err
		}
		if r.space(); r.Pos >= len(r.Data) || r.Data[r.Pos] != ':' {
			return r.Unexpected("a colon")
		}
		r.Pos++
		if err := field(key, at); err != nil {
			return err
		}
		if done, err := r.next('}'); done || err != nil {
			return err
		}
	}
}

// Array reads an array: element is called before each element and must read it.
func (r *Reader) Array(element func(i int) error) error {
	if r.Peek() != Array {
		return r.Unexpected("an array")
	}
	if err := r.enter(); err != nil {
		return err
	}
	defer func() { r.depth-- }()
	if r.space(); r.Pos < len(r.Data) && r.Data[r.Pos] == ']' {
		r.Pos++
		return nil
	}
	for i := 0; ; i++ {
		if err := element(i); err != nil {
			return err
		}
		if done, err := r.next(']'); done || err != nil {
			return err
		}
	}
}

// next reads a comma, or the end of what is being read.
func (r *Reader) next(end byte) (done bool, err error) {
	r.space()
	if r.Pos < len(r.Data) {
		switch r.Data[r.Pos] {
		case ',':
			r.Pos++
			return false, nil
		case end:
			r.Pos++
			return true, nil
		}
	}
	return false, r.Unexpected("a comma or " + strconv.QuoteRune(rune(end)))
}

// Text reads a string. The bytes belong to Data where it holds no escapes; they must not be changed.
func (r *Reader) Text() ([]byte, error) {
	if r.Peek() != String {
		return nil, r.Unexpected("a string")
	}
	start := r.Pos + 1
	plain := true // no escape, nothing that is not ASCII
	for i := start; i < len(r.Data); i++ {
		switch c := r.Data[i]; {
		case c == '"':
			r.Pos = i + 1
			if raw := r.Data[start:i:i]; plain || utf8.Valid(raw) {
				return raw, nil
			}
			return unescape(r.Data[start:i]), nil
		case c == '\\':
			return r.escaped(start, i)
		case c < ' ':
			return nil, r.fault(i, "a control character in a string")
		case c >= utf8.RuneSelf:
			plain = false
		}
	}
	return nil, r.fault(start-1, "a string without its end")
}

// escaped goes on with a string at its first backslash.
func (r *Reader) escaped(start, i int) ([]byte, error) {
	for ; i < len(r.Data); i++ {
		switch c := r.Data[i]; {
		case c == '"':
			r.Pos = i + 1
			return unescape(r.Data[start:i]), nil
		case c < ' ':
			return nil, r.fault(i, "a control character in a string")
		case c == '\\':
			if i++; i >= len(r.Data) {
				break
			}
			switch r.Data[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if _, ok := hex4(r.Data[i+1:]); !ok {
					return nil, r.fault(i-1, `\u without four hexadecimal digits`)
				}
				i += 4
			default:
				return nil, r.fault(i-1, "no such escape in a string")
			}
		}
	}
	return nil, r.fault(start-1, "a string without its end")
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var n rune
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		n = n<<4 | rune(c)
	}
	return n, true
}

// unescape decodes what lies between the quotes; its escapes have been looked at.
func unescape(raw []byte) []byte {
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); {
		c := raw[i]
		if c != '\\' {
			n, size := utf8.DecodeRune(raw[i:])
			out = utf8.AppendRune(out, n)
			i += size
			continue
		}
		i += 2
		switch c := raw[i-1]; c {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			n, _ := hex4(raw[i:])
			i += 4
			if utf16.IsSurrogate(n) {
				low := rune(-1)
				if i+6 <= len(raw) && raw[i] == '\\' && raw[i+1] == 'u' {
					low, _ = hex4(raw[i+2:])
				}
				if n = utf16.DecodeRune(n, low); n != utf8.RuneError {
					i += 6
				}
			}
			out = utf8.AppendRune(out, n)
		default:
			out = append(out, c)
		}
	}
	return out
}

// Literal reads a number, true, false or null and returns its text, which belongs to Data.
func (r *Reader) Literal() ([]byte, error) {
	k := r.Peek()
	start := r.Pos
	word := ""
	switch k {
	case True:
		word = "true"
	case False:
		word = "false"
	case Null:
		word = "null"
	case Number:
		if err := r.number(); err != nil {
			return nil, err
		}
	default:
		return nil, r.Unexpected("a value")
	}
	if len(r.Data)-start < len(word) || word != "" && string(r.Data[start:start+len(word)]) != word {
		return nil, r.Unexpected("a value")
	}
	r.Pos += len(word)
	return r.Data[start:r.Pos:r.Pos], nil
}

func (r *Reader) digits() bool {
	start := r.Pos
	for r.Pos < len(r.Data) && r.Data[r.Pos] >= '0' && r.Data[r.Pos] <= '9' {
		r.Pos++
	}
	return r.Pos > start
}

func (r *Reader) at(set string) bool {
	for i := range len(set) {
		if r.Pos < len(r.Data) && r.Data[r.Pos] == set[i] {
			return true
		}
	}
	return false
}

func (r *Reader) number() error {
	if r.at("-") {
		r.Pos++
	}
	if r.at("0") {
		r.Pos++
	} else if !r.digits() {
		return r.Unexpected("a digit")
	}
	if r.at(".") {
		if r.Pos++; !r.digits() {
			return r.Unexpected("a digit")
		}
	}
	if r.at("eE") {
		if r.Pos++; r.at("+-") {
			r.Pos++
		}
		if !r.digits() {
			return r.Unexpected("a digit")
		}
	}
	return nil
}

// Skip reads any value and returns its text, which belongs to Data.
func (r *Reader) Skip() ([]byte, error) {
	k := r.Peek()
	start := r.Pos
	var err error
	switch k {
	case Object:
		err = r.Object(func([]byte, int) error { _, err := r.Skip(); return err })
	case Array:
		err = r.Array(func(int) error { _, err := r.Skip(); return err })
	case String:
		_, err = r.Text()
	default:
		_, err = r.Literal()
	}
	if err != nil {
		return nil, err
	}
	return r.Data[start:r.Pos:r.Pos], nil
}
