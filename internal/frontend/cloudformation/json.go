package cloudformation

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"path"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/ebb-run/ebb/internal/diag"
)

// looksJSON says whether a document is to be read by JSON's own rules: YAML knows neither tabs as white space nor
// surrogate pairs.
func looksJSON(file string, data []byte) bool {
	head := bytes.TrimLeft(data, " \t\r\n")
	if len(head) == 0 || head[0] != '{' && head[0] != '[' {
		return false
	}
	return strings.EqualFold(path.Ext(file), ".json") || json.Valid(data)
}

// jsonReader reads a JSON document with the place of each part.
type jsonReader struct {
	file  string
	data  []byte
	lines []int // offset of each line's first byte
	dec   *json.Decoder
	diags *diag.List
	count int
}

// errStop ends a reading whose fault is already in the diagnostics.
var errStop = errors.New("stop")

func parseJSON(file string, data []byte) (*Node, diag.List) {
	var l diag.List
	r := &jsonReader{file: file, data: data, lines: []int{0}, dec: json.NewDecoder(bytes.NewReader(data)), diags: &l}
	for i, b := range data {
		if b == '\n' {
			r.lines = append(r.lines, i+1)
		}
	}
	r.dec.UseNumber()
	n, err := r.node(0)
	if err == nil {
		if _, err = r.dec.Token(); err == nil {
			err = errors.New("there is more after the end of the document")
		} else if errors.Is(err, io.EOF) {
			err = nil
		}
	}
	if err != nil && !errors.Is(err, errStop) {
		// The whole is read again, since only that gives the exact place.
		at, msg := int64(len(data)), "the document ends too early"
		var whole any
		var se *json.SyntaxError
		if errors.As(json.Unmarshal(data, &whole), &se) && !strings.HasPrefix(se.Error(), "unexpected end") {
			at, msg = max(se.Offset-1, 0), se.Error()
		}
		l.Errorf(r.place(at), "syntax", "", "%s", msg)
	}
	if l.HasErrors() {
		return nil, l
	}
	return n, l
}

func (r *jsonReader) place(offset int64) diag.Pos {
	at := int(offset)
	line := sort.SearchInts(r.lines, at+1)
	return diag.Pos{File: r.file, Line: line, Col: at - r.lines[line-1] + 1}
}

// next is the place where the next token starts.
func (r *jsonReader) next() diag.Pos {
	at := r.dec.InputOffset()
	for int(at) < len(r.data) && strings.IndexByte(" \t\r\n,:", r.data[at]) >= 0 {
		at++
	}
	return r.place(at)
}

func (r *jsonReader) node(depth int) (*Node, error) {
	pos := r.next()
	r.count++
	if depth > maxDepth || r.count > maxNodes {
		r.diags.Errorf(pos, "too-large", "", "the document is nested too deep or too large")
		return nil, errStop
	}
	tok, err := r.dec.Token()
	if err != nil {
		return nil, err
	}
	switch t := tok.(type) {
	case json.Delim:
		if t == '[' {
			return r.list(pos, depth)
		}
		return r.object(pos, depth)
	case string:
		return Str(pos, t), nil
	case json.Number:
		n := From(pos, t)
		n.Raw = t.String()
		return n, nil
	}
	return From(pos, tok), nil
}

func (r *jsonReader) list(pos diag.Pos, depth int) (*Node, error) {
	n := NewList(pos)
	for r.dec.More() {
		it, err := r.node(depth + 1)
		if err != nil {
			return nil, err
		}
		n.Items = append(n.Items, it)
	}
	_, err := r.dec.Token()
	return n, err
}

func (r *jsonReader) object(pos diag.Pos, depth int) (*Node, error) {
	n := NewMap(pos)
	seen := map[string]bool{}
	for r.dec.More() {
		kpos := r.next()
		tok, err := r.dec.Token()
		if err != nil {
			return nil, err
		}
		key, _ := tok.(string)
		v, err := r.node(depth + 1)
		if err != nil {
			return nil, err
		}
		if seen[key] {
			r.diags.Errorf(kpos, "duplicate-key", "Remove one of the two.", "the key %q is there twice", key)
			continue
		}
		seen[key] = true
		n.Entries = append(n.Entries, Entry{Key: key, Pos: kpos, Value: v})
	}
	_, err := r.dec.Token()
	return n, err
}

// syntaxPlace narrows the place of a YAML fault: the reader names a line at best, and often the one where the
// surrounding block began.
func syntaxPlace(pos diag.Pos, msg string, data []byte) (diag.Pos, string) {
	lines := strings.Split(string(data), "\n")
	if pos.Line == 0 {
		pos.Line = 1
	}
	if !utf8.Valid(data) {
		for i, line := range lines {
			if !utf8.ValidString(line) {
				pos.Line, pos.Col = i+1, 1
				for _, c := range line {
					if c == utf8.RuneError {
						break
					}
					pos.Col += utf8.RuneLen(c)
				}
				return pos, "Save the file as UTF-8."
			}
		}
	}
	if strings.Contains(msg, "cannot start any token") || strings.Contains(msg, "tab character") {
		for i := max(pos.Line-1, 0); i < len(lines); i++ {
			indent := lines[i][:len(lines[i])-len(strings.TrimLeft(lines[i], " \t"))]
			if tab := strings.IndexByte(indent, '\t'); tab >= 0 {
				pos.Line, pos.Col = i+1, tab+1
				return pos, "YAML is indented with spaces, not tabs."
			}
			if strings.ContainsAny(strings.TrimLeft(lines[i], " \t"), "@`%") {
				pos.Line, pos.Col = i+1, strings.IndexAny(lines[i], "@`%")+1
				return pos, "Put a text that starts with this character in quotes."
			}
		}
	}
	return pos, ""
}
