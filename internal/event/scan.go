package event

import (
	"bytes"
	"encoding/json"

	"github.com/ebb-run/ebb/internal/errs"
)

// What json.Valid has taken can be read in one pass without another look at its grammar. It is most of what a publish costs otherwise.

// blank gives the index of the first byte from i on that is no white space.
func blank(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}

// textEnd gives the index behind the string that begins at i.
func textEnd(b []byte, i int) int {
	for i++; b[i] != '"'; i++ {
		if b[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// valueEnd gives the index behind the value that begins at i.
func valueEnd(b []byte, i int) int {
	switch b[i] {
	case '"':
		return textEnd(b, i)
	case '{', '[':
	default:
		for i < len(b) && bytes.IndexByte([]byte(",]} \t\n\r"), b[i]) < 0 {
			i++
		}
		return i
	}
	for depth := 0; ; {
		switch b[i] {
		case '"':
			i = textEnd(b, i)
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
		i++
	}
}

// unquote gives the text of a JSON string of valid UTF-8.
func unquote(raw []byte) (string, error) {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1]), nil
	}
	return unquoteEscapes(raw)
}

// nameOf is the name of a member. What is no character in it becomes one that no attribute may have.
func nameOf(raw []byte) string {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1])
	}
	return nameWithEscapes(raw)
}

func nameWithEscapes(raw []byte) (s string) {
	_ = json.Unmarshal(raw, &s) // it is valid
	return s
}

func unquoteEscapes(raw []byte) (s string, err error) {
	if halfPair(raw) { // which the library would replace by another character
		return "", errs.New(errs.Invalid, "it holds half a surrogate pair, which is no character")
	}
	err = json.Unmarshal(raw, &s)
	return s, err
}

// halfPair says whether a JSON string, which is valid JSON, has an escape of one half of a surrogate pair without the other.
func halfPair(raw []byte) bool {
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		if i++; raw[i] != 'u' {
			continue
		}
		r := hexOf(raw[i+1:])
		i += 4
		if r < 0xd800 || r > 0xdfff {
			continue
		}
		if r > 0xdbff || i+6 >= len(raw) || raw[i+1] != '\\' || raw[i+2] != 'u' {
			return true
		}
		if low := hexOf(raw[i+3:]); low < 0xdc00 || low > 0xdfff {
			return true
		}
		i += 6
	}
	return false
}

// hexOf is the number of the four hexadecimal digits that b begins with.
func hexOf(b []byte) (n int) {
	for _, c := range b[:4] {
		n = n<<4 | unhex(c)
	}
	return n
}

// decodeValid reads what decode reads, from a value that is valid JSON.
func decodeValid(b []byte) (*Event, error) {
	if b[0] != '{' {
		return nil, errNoObject()
	}
	m := newMembers()
	for i := blank(b, 1); b[i] != '}'; {
		end := textEnd(b, i)
		name := nameOf(b[i:end])
		i = blank(b, blank(b, end)+1) // behind the colon
		end = valueEnd(b, i)
		m.take(name, b[i:end:end])
		if i = blank(b, end); b[i] == ',' {
			i = blank(b, i+1)
		}
	}
	return m.event()
}

// elements calls each for the values of an array that is valid JSON.
func elements(b []byte, each func(raw []byte) error) error {
	for i := blank(b, 1); b[i] != ']'; {
		end := valueEnd(b, i)
		if err := each(b[i:end:end]); err != nil {
			return err
		}
		if i = blank(b, end); b[i] == ',' {
			i = blank(b, i+1)
		}
	}
	return nil
}
