// Package transform makes what a target gets out of an event, as EventBridge's target input does: Input, InputPath and
// InputTransformer.
//
// Main types: [Spec], what a rule's target says, and [Transform], made of it by [Compile].
//
// Guarantees:
//
//  1. A Spec with faults is refused with all of them, each with its place in the path or template.
//  2. A template that is JSON gives JSON, minified, whatever the event holds: between quotes values are inserted escaped, elsewhere
//     as they are in the event.
//  3. A path that leads nowhere gives an empty string in a template, and null as InputPath.
//  4. Apply reads the event once, never panics, and gives at most MaxOutput bytes.
//
// Differences: EventBridge says that it does not escape values, so that a quote in one breaks its JSON; and it takes the quotes out
// of objects between quotes. Here both arrive as they are, escaped.
//
// It knows nothing of rules and targets, and it does not check that the event is one.
package transform

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/bus/rawjson"
	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/errs"
)

// Limits: EventBridge API, "InputTransformer" and "Target".
const (
	MaxPaths    = 100
	MaxPath     = 256     // bytes of a path
	MaxTemplate = 8192    // bytes of Input and of a template
	MaxOutput   = 2 << 20 // bytes that Apply gives; ebb's own
	maxDepth    = 512
)

// Spec is a target's input; at most one of its parts is given. None means the event as it is.
type Spec struct {
	Input       *string      `json:"Input,omitempty"`            // JSON text that takes the event's place
	InputPath   *string      `json:"InputPath,omitempty"`        // the part of the event
	Transformer *Transformer `json:"InputTransformer,omitempty"` //
}

// Transformer is a template and the variables in it.
type Transformer struct {
	Paths    map[string]string `json:"InputPathsMap,omitempty"`
	Template string            `json:"InputTemplate"`
}

// Vars are what the reserved variables stand for.
type Vars struct {
	RuleARN   string
	RuleName  string
	Ingestion time.Time // when the bus took the event
}

// reserved are the variables that need no path.
const (
	varRuleARN   = "aws.events.rule-arn"
	varRuleName  = "aws.events.rule-name"
	varIngestion = "aws.events.event.ingestion-time"
	varEvent     = "aws.events.event"
	varEventJSON = "aws.events.event.json"
)

var reserved = []string{varRuleARN, varRuleName, varIngestion, varEvent, varEventJSON} // never written

// Transform is a compiled Spec. It is immutable.
type Transform struct {
	input  []byte // of Input; nil otherwise
	paths  []path
	whole  bool // the first path's value is the output
	pieces []piece
	json   bool
	event  bool // the template asks for the event without its detail
}

// piece is a stretch of a template: literal text, or a variable.
type piece struct {
	text   string
	name   string // of a variable
	path   int    // its index in paths, or -1 for a reserved one
	quoted bool   // it stands between quotes
}

// Compile reads a Spec. File is the File of diagnostics; their lines are those of the path or template that they name.
func Compile(s Spec, file string) (*Transform, diag.List) {
	c := compiler{file: file}
	t := &Transform{json: true}
	given := 0
	if s.Input != nil {
		given++
		c.input(t, *s.Input)
	}
	if s.InputPath != nil {
		given++
		t.whole = true
		t.paths = []path{c.path("InputPath", *s.InputPath)}
	}
	if s.Transformer != nil {
		given++
		c.transformer(t, s.Transformer)
	}
	if given > 1 {
		c.errorf("", 0, "input-twice", "Keep one of them.", "only one of Input, InputPath and InputTransformer may be given")
	}
	if c.list.HasErrors() {
		return nil, c.list
	}
	return t, c.list
}

// JSON says whether the output is always JSON; without it, it is text: a template that is no JSON.
func (t *Transform) JSON() bool { return t.json }

// Apply gives a target's input for an event.
func (t *Transform) Apply(event []byte, v Vars) ([]byte, error) {
	if t.input != nil {
		return slices.Clone(t.input), nil
	}
	if !t.whole && t.pieces == nil {
		return slices.Clone(event), nil
	}
	found, err := find(event, t.paths)
	if err != nil {
		return nil, err
	}
	if t.whole {
		if found[0] == nil {
			return []byte("null"), nil
		}
		return slices.Clone(found[0]), nil
	}
	var brief []byte
	if t.event {
		if brief, err = withoutDetail(event); err != nil {
			return nil, err
		}
	}
	out := make([]byte, 0, 512)
	for _, p := range t.pieces {
		out = append(out, p.text...)
		if p.name == "" {
			continue
		}
		var value []byte
		switch {
		case p.path >= 0:
			value = found[p.path]
		case p.name == varEvent:
			value = brief
		case p.name == varEventJSON:
			value = event
		default:
			value = v.json(p.name)
		}
		if out, err = t.insert(out, value, p.quoted); err != nil {
			return nil, err
		}
		if len(out) > MaxOutput {
			return nil, errs.New(errs.TooLarge, "the transformed event has more than %d bytes", MaxOutput)
		}
	}
	if !t.json {
		return out, nil
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, out); err != nil {
		return nil, errs.New(errs.Internal, "the transformed event is not JSON: %w", err)
	}
	return compact.Bytes(), nil
}

// json is a reserved variable's value.
func (v Vars) json(name string) []byte {
	text := v.RuleARN
	switch name {
	case varRuleName:
		text = v.RuleName
	case varIngestion:
		text = v.Ingestion.UTC().Format("2006-01-02T15:04:05Z")
	}
	return quote(text)
}

// quote writes a JSON string, without escapes that JSON does not ask for.
func quote(text string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(text) // a string always can be
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// insert appends a value: between quotes and in text as the string that it is or as its JSON, else as JSON.
func (t *Transform) insert(out, value []byte, quoted bool) ([]byte, error) {
	if value == nil {
		value = []byte(`""`)
	}
	if t.json && !quoted {
		return append(out, value...), nil
	}
	r := rawjson.Reader{Data: value, MaxDepth: maxDepth}
	var text string
	if r.Peek() == rawjson.String {
		b, err := r.Text()
		if err != nil {
			return nil, err
		}
		text = string(b)
	} else {
		var compact bytes.Buffer
		if err := json.Compact(&compact, value); err != nil {
			return nil, errs.New(errs.Invalid, "the event is not JSON: %w", err)
		}
		text = compact.String()
	}
	if !t.json {
		return append(out, text...), nil
	}
	q := quote(text)
	return append(out, q[1:len(q)-1]...), nil
}

// withoutDetail is what EventBridge puts for <aws.events.event>: no detail, and detail-type under the name detailType.
func withoutDetail(event []byte) ([]byte, error) {
	r := rawjson.Reader{Data: event, MaxDepth: maxDepth}
	out := []byte{'{'}
	err := r.Object(func(key []byte, _ int) error {
		name := string(key)
		value, err := r.Skip()
		if err != nil || name == "detail" {
			return err
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		if name == "detail-type" {
			name = "detailType"
		}
		out = append(append(append(out, quote(name)...), ':'), value...)
		return nil
	})
	if err == nil {
		err = r.Finish()
	}
	if err != nil {
		return nil, errs.New(errs.Invalid, "the event is not a JSON object: %w", err)
	}
	return append(out, '}'), nil
}

// compiler collects faults.
type compiler struct {
	file string
	list diag.List
}

// errorf records a fault at an offset of a text.
func (c *compiler) errorf(text string, offset int, code, hint, format string, args ...any) {
	line, col := rawjson.Place([]byte(text), offset)
	c.list.Errorf(diag.Pos{File: c.file, Line: line, Col: col}, code, hint, format, args...)
}

func (c *compiler) input(t *Transform, text string) {
	t.input = []byte(text)
	if len(text) > MaxTemplate {
		c.errorf(text, 0, "input-too-large", "", "Input has %d bytes; %d are allowed", len(text), MaxTemplate)
	}
	r := rawjson.Reader{Data: t.input, MaxDepth: maxDepth}
	_, err := r.Skip()
	if err == nil {
		err = r.Finish()
	}
	if s, ok := err.(*rawjson.SyntaxError); ok {
		c.errorf(text, s.Offset, "input-json", `A text stands in quotes: "hello".`, "Input is not JSON: %s", s.Msg)
	}
}

func (c *compiler) transformer(t *Transform, s *Transformer) {
	if len(s.Paths) > MaxPaths {
		c.errorf("", 0, "input-paths", "", "InputPathsMap has %d paths; %d are allowed", len(s.Paths), MaxPaths)
	}
	names := make([]string, 0, len(s.Paths))
	for name := range s.Paths {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		switch {
		case len(name) > 4 && strings.EqualFold(name[:4], "aws."):
			c.errorf("", 0, "input-reserved", "Give the variable another name.", "the variable %q begins with the reserved aws.", name)
		case !isName(name):
			c.errorf("", 0, "input-name", "Use letters, digits, dots, dashes and underscores.", "%q cannot be the name of a variable", name)
		}
		t.paths = append(t.paths, c.path("InputPathsMap."+name, s.Paths[name]))
	}
	c.template(t, s.Template, names)
}

func isName(s string) bool {
	for i := range len(s) {
		if !nameByte(s[i]) {
			return false
		}
	}
	return s != ""
}

func nameByte(b byte) bool {
	return b == '.' || b == '-' || b == '_' || b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
}

// template cuts a template into pieces and checks that what is to be JSON will be.
func (c *compiler) template(t *Transform, text string, names []string) {
	if len(text) > MaxTemplate || text == "" {
		c.errorf(text, 0, "input-template", "", "InputTemplate has %d bytes; 1 to %d are allowed", len(text), MaxTemplate)
		return
	}
	sample := []byte(text) // with values in place of the variables, at the same offsets
	start, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			if quoted {
				i++
			}
		case '"':
			quoted = !quoted
		case '<':
			end := i + 1
			for end < len(text) && nameByte(text[end]) {
				end++
			}
			if end == i+1 || end == len(text) || text[end] != '>' {
				continue
			}
			name := text[i+1 : end]
			at, known := slices.BinarySearch(names, name)
			if !known {
				at = -1
				if !slices.Contains(reserved, name) {
					hint := "Give it a path in InputPathsMap; < and > cannot be escaped."
					if near := diag.Nearest(name, append(slices.Clone(names), reserved...)); near != "" {
						hint = "Did you mean <" + near + ">?"
					}
					c.errorf(text, i, "input-variable", hint, "the variable <%s> is not defined", name)
				}
			}
			t.event = t.event || name == varEvent
			t.pieces = append(t.pieces, piece{text: text[start:i], name: name, path: at, quoted: quoted})
			filler := bytes.Repeat([]byte{'x'}, end+1-i)
			if !quoted { // a list can neither be a key nor run into what stands beside it
				filler = append(append([]byte{'['}, bytes.Repeat([]byte{' '}, end-1-i)...), ']')
			}
			copy(sample[i:], filler)
			i, start = end, end+1
		}
	}
	t.pieces = append(t.pieces, piece{text: text[start:], path: -1})
	r := rawjson.Reader{Data: sample, MaxDepth: maxDepth}
	_, err := r.Skip()
	if err == nil {
		err = r.Finish()
	}
	if err == nil {
		return
	}
	t.json = false
	first := strings.TrimSpace(text)
	if s, ok := err.(*rawjson.SyntaxError); ok && first != "" && (first[0] == '{' || first[0] == '[') {
		c.errorf(text, s.Offset, "input-template", "A variable stands where a value or a part of a string does, not as a key.", "InputTemplate is not JSON: %s", s.Msg)
	}
}
