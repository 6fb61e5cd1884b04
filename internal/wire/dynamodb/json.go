package dynamodb

import (
	"errors"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// node is a JSON value. An object keeps the order of its members: messages follow it.
type node struct {
	kind    byte // 's', 'n', 'b', 'o', 'a', or 0 for null
	text    string
	truth   bool
	members []member
	elems   []node
}

type member struct {
	key string
	val node
}

// get returns a member of an object, or nil.
func (n *node) get(key string) *node {
	if n == nil {
		return nil
	}
	for i := len(n.members) - 1; i >= 0; i-- {
		if n.members[i].key == key && n.members[i].val.kind != 0 {
			return &n.members[i].val
		}
	}
	return nil
}

// str returns a text member, or "".
func (n *node) str(key string) string {
	if m := n.get(key); m != nil {
		return m.text
	}
	return ""
}

// flag returns a truth value of a member, or false.
func (n *node) flag(key string) bool {
	m := n.get(key)
	return m != nil && m.truth
}

// num returns a whole number of a member.
func (n *node) num(key string) (int64, bool) {
	m := n.get(key)
	if m == nil {
		return 0, false
	}
	f, err := strconv.ParseFloat(m.text, 64)
	return int64(f), err == nil
}

var errJSON = errors.New("not JSON")

const maxJSONDepth = 400

type jsonReader struct {
	s     string
	at    int
	depth int
}

// parseJSON reads one JSON value and nothing behind it.
func parseJSON(body []byte) (*node, error) {
	r := jsonReader{s: string(body)}
	if !utf8.ValidString(r.s) {
		return nil, errJSON
	}
	var n node
	if err := r.value(&n); err != nil {
		return nil, err
	}
	r.space()
	if r.at != len(r.s) {
		return nil, errJSON
	}
	return &n, nil
}

func (r *jsonReader) space() {
	for r.at < len(r.s) && (r.s[r.at] == ' ' || r.s[r.at] == '\n' || r.s[r.at] == '\t' || r.s[r.at] == '\r') {
		r.at++
	}
}

func (r *jsonReader) next() byte {
	r.space()
	if r.at < len(r.s) {
		return r.s[r.at]
	}
	return 0
}

func (r *jsonReader) take(c byte) bool {
	if r.next() == c {
		r.at++
		return true
	}
	return false
}

func (r *jsonReader) value(n *node) (err error) {
	if r.depth++; r.depth > maxJSONDepth {
		return errJSON
	}
	defer func() { r.depth-- }()
	switch c := r.next(); {
	case c == '"':
		n.kind = 's'
		n.text, err = r.text()
		return err
	case c == '{':
		return r.object(n)
	case c == '[':
		return r.array(n)
	case c == '-' || c >= '0' && c <= '9':
		return r.number(n)
	}
	for word, kind := range map[string]byte{"true": 'b', "false": 'b', "null": 0} {
		if len(r.s)-r.at >= len(word) && r.s[r.at:r.at+len(word)] == word {
			n.kind, n.truth = kind, word == "true"
			r.at += len(word)
			return nil
		}
	}
	return errJSON
}

func (r *jsonReader) object(n *node) error {
	n.kind = 'o'
	r.at++
	if r.take('}') {
		return nil
	}
	for {
		if r.next() != '"' {
			return errJSON
		}
		key, err := r.text()
		if err != nil || !r.take(':') {
			return errJSON
		}
		n.members = append(n.members, member{key: key})
		if err := r.value(&n.members[len(n.members)-1].val); err != nil {
			return err
		}
		if r.take('}') {
			return nil
		}
		if !r.take(',') {
			return errJSON
		}
	}
}

func (r *jsonReader) array(n *node) error {
	n.kind = 'a'
	r.at++
	if r.take(']') {
		return nil
	}
	for {
		n.elems = append(n.elems, node{})
		if err := r.value(&n.elems[len(n.elems)-1]); err != nil {
			return err
		}
		if r.take(']') {
			return nil
		}
		if !r.take(',') {
			return errJSON
		}
	}
}

func (r *jsonReader) number(n *node) error {
	from := r.at
	for r.at < len(r.s) {
		c := r.s[r.at]
		if (c < '0' || c > '9') && c != '-' && c != '+' && c != '.' && c != 'e' && c != 'E' {
			break
		}
		r.at++
	}
	n.kind, n.text = 'n', r.s[from:r.at]
	if _, err := strconv.ParseFloat(n.text, 64); err != nil && !errors.Is(err, strconv.ErrRange) {
		return errJSON
	}
	return nil
}

// text reads a string; one without escapes shares the body's bytes.
func (r *jsonReader) text() (string, error) {
	r.at++
	from := r.at
	for r.at < len(r.s) {
		switch c := r.s[r.at]; {
		case c == '"':
			r.at++
			return r.s[from : r.at-1], nil
		case c == '\\':
			return r.escaped(from)
		case c < ' ':
			return "", errJSON
		}
		r.at++
	}
	return "", errJSON
}

func (r *jsonReader) escaped(from int) (string, error) {
	b := []byte(r.s[from:r.at])
	for r.at < len(r.s) {
		c := r.s[r.at]
		r.at++
		switch {
		case c == '"':
			return string(b), nil
		case c < ' ':
			return "", errJSON
		case c != '\\':
			b = append(b, c)
			continue
		case r.at == len(r.s):
			return "", errJSON
		}
		c = r.s[r.at]
		r.at++
		switch c {
		case '"', '\\', '/':
			b = append(b, c)
		case 'b', 'f', 'n', 'r', 't':
			b = append(b, map[byte]byte{'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}[c])
		case 'u':
			u, ok := r.hex()
			if !ok {
				return "", errJSON
			}
			if utf16.IsSurrogate(u) && len(r.s)-r.at >= 6 && r.s[r.at:r.at+2] == `\u` {
				back := r.at
				r.at += 2
				low, ok := r.hex()
				if u2 := utf16.DecodeRune(u, low); ok && u2 != utf8.RuneError {
					u = u2
				} else {
					r.at = back
				}
			}
			b = utf8.AppendRune(b, u)
		default:
			return "", errJSON
		}
	}
	return "", errJSON
}

func (r *jsonReader) hex() (rune, bool) {
	if len(r.s)-r.at < 4 {
		return 0, false
	}
	u, err := strconv.ParseUint(r.s[r.at:r.at+4], 16, 32)
	r.at += 4
	return rune(u), err == nil
}

// quote appends a JSON string.
func quote(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[from:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		from = i + 1
	}
	return append(append(b, s[from:]...), '"')
}
