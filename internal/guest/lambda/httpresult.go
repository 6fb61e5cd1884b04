package lambda

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth bounds the nesting of what a handler may return.
const maxDepth = 1000

// scanner reads JSON that a guest wrote: every byte is checked, nothing is built but what is asked for.
type scanner struct {
	data []byte
	i    int
}

func (s *scanner) space() {
	for s.i < len(s.data) {
		switch s.data[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

// value returns the next value's bytes.
func (s *scanner) value(depth int) ([]byte, bool) {
	s.space()
	start := s.i
	if s.i >= len(s.data) || depth > maxDepth {
		return nil, false
	}
	ok := false
	switch c := s.data[s.i]; {
	case c == '"':
		ok = s.str()
	case c == '{':
		ok = s.object(depth, nil)
	case c == '[':
		ok = s.array(depth, nil)
	case c == 't':
		ok = s.word("true")
	case c == 'f':
		ok = s.word("false")
	case c == 'n':
		ok = s.word("null")
	default:
		ok = s.number()
	}
	return s.data[start:s.i], ok
}

func (s *scanner) word(w string) bool {
	if len(s.data)-s.i < len(w) || string(s.data[s.i:s.i+len(w)]) != w {
		return false
	}
	s.i += len(w)
	return true
}

func (s *scanner) digits() bool {
	start := s.i
	for s.i < len(s.data) && s.data[s.i] >= '0' && s.data[s.i] <= '9' {
		s.i++
	}
	return s.i > start
}

func (s *scanner) number() bool {
	if s.i < len(s.data) && s.data[s.i] == '-' {
		s.i++
	}
	if s.i < len(s.data) && s.data[s.i] == '0' {
		s.i++
	} else if !s.digits() {
		return false
	}
	if s.i < len(s.data) && s.data[s.i] == '.' {
		s.i++
		if !s.digits() {
			return false
		}
	}
	if s.i < len(s.data) && s.data[s.i]|0x20 == 'e' {
		s.i++
		if s.i < len(s.data) && (s.data[s.i] == '+' || s.data[s.i] == '-') {
			s.i++
		}
		return s.digits()
	}
	return true
}

// str passes a string, quotes included.
func (s *scanner) str() bool {
	for s.i++; s.i < len(s.data); s.i++ {
		switch c := s.data[s.i]; {
		case c == '"':
			s.i++
			return true
		case c < 0x20:
			return false
		case c == '\\':
			s.i++
			if s.i >= len(s.data) {
				return false
			}
			switch s.data[s.i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if _, ok := hex4(s.data, s.i+1); !ok {
					return false
				}
				s.i += 4
			default:
				return false
			}
		}
	}
	return false
}

func hex4(b []byte, at int) (rune, bool) {
	if at+4 > len(b) {
		return 0, false
	}
	var r rune
	for _, c := range b[at : at+4] {
		h := unhex(c)
		if h < 0 {
			return 0, false
		}
		r = r<<4 | rune(h)
	}
	return r, true
}

// object passes an object and gives each member to f: the name as text, the value as JSON. f returning false ends it.
func (s *scanner) object(depth int, f func(name, value []byte) bool) bool {
	s.i++
	s.space()
	if s.i < len(s.data) && s.data[s.i] == '}' {
		s.i++
		return true
	}
	for {
		s.space()
		start := s.i
		if s.i >= len(s.data) || s.data[s.i] != '"' || !s.str() {
			return false
		}
		name := s.data[start:s.i]
		s.space()
		if s.i >= len(s.data) || s.data[s.i] != ':' {
			return false
		}
		s.i++
		v, ok := s.value(depth + 1)
		if !ok || f != nil && !f(unquote(name), v) {
			return false
		}
		s.space()
		if s.i >= len(s.data) {
			return false
		}
		s.i++
		switch s.data[s.i-1] {
		case '}':
			return true
		case ',':
		default:
			return false
		}
	}
}

// array passes an array and gives each element to f. f returning false ends it.
func (s *scanner) array(depth int, f func(value []byte) bool) bool {
	s.i++
	s.space()
	if s.i < len(s.data) && s.data[s.i] == ']' {
		s.i++
		return true
	}
	for {
		v, ok := s.value(depth + 1)
		if !ok || f != nil && !f(v) {
			return false
		}
		s.space()
		if s.i >= len(s.data) {
			return false
		}
		s.i++
		switch s.data[s.i-1] {
		case ']':
			return true
		case ',':
		default:
			return false
		}
	}
}

// document returns the one value that data is, without the space around it.
func document(data []byte) ([]byte, bool) {
	s := scanner{data: data}
	v, ok := s.value(0)
	if !ok {
		return nil, false
	}
	s.space()
	return v, s.i == len(s.data)
}

// members gives each member of a checked object to f.
func members(object []byte, f func(name, value []byte) bool) bool {
	s := scanner{data: object}
	return len(object) > 0 && object[0] == '{' && s.object(0, f)
}

// elements gives each element of a checked array to f.
func elements(array []byte, f func(value []byte) bool) bool {
	s := scanner{data: array}
	return len(array) > 0 && array[0] == '[' && s.array(0, f)
}

// unquote returns the text of a checked JSON string. Without escapes it is part of q itself. A lone half of a
// surrogate pair and bytes that are not UTF-8 become U+FFFD.
func unquote(q []byte) []byte {
	q = q[1 : len(q)-1]
	if bytes.IndexByte(q, '\\') < 0 && utf8.Valid(q) {
		return q
	}
	out := make([]byte, 0, len(q))
	for i := 0; i < len(q); {
		c := q[i]
		if c != '\\' {
			if c < utf8.RuneSelf {
				out = append(out, c)
				i++
				continue
			}
			r, n := utf8.DecodeRune(q[i:])
			out = utf8.AppendRune(out, r)
			i += n
			continue
		}
		i += 2
		switch q[i-1] {
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
			r, _ := hex4(q, i)
			i += 4
			if utf16.IsSurrogate(r) {
				low, ok := rune(0), false
				if i+1 < len(q) && q[i] == '\\' && q[i+1] == 'u' {
					low, ok = hex4(q, i+2)
				}
				if both := utf16.DecodeRune(r, low); ok && both != utf8.RuneError {
					r = both
					i += 6
				} else {
					r = utf8.RuneError
				}
			}
			out = utf8.AppendRune(out, r)
		default:
			out = append(out, q[i-1])
		}
	}
	return out
}
