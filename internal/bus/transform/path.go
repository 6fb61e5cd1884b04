package transform

import (
	"errors"
	"strconv"
	"strings"

	"github.com/ebb-run/ebb/internal/bus/rawjson"
	"github.com/ebb-run/ebb/internal/errs"
)

// path leads to a part of an event: $.detail.lines[0].sku. It is EventBridge's subset of JSONPath: names, indices and *.
type path struct {
	steps []pathStep
	many  bool // has a *, so that it gives a list
}

type pathStep struct {
	name  string
	index int // of an element, when isIndex
	kind  stepKind
}

type stepKind uint8

const (
	byName stepKind = iota
	byIndex
	byAny
)

// path reads a path, named what in diagnostics.
func (c *compiler) path(what, text string) (p path) {
	const hint = "Paths are like $.detail.items[0].name; * stands for every member."
	fault := func(at int, format string, args ...any) path {
		c.errorf(text, at, "input-path", hint, what+": "+format, args...)
		return p
	}
	switch {
	case len(text) > MaxPath:
		return fault(0, "the path has %d bytes; %d are allowed", len(text), MaxPath)
	case text == "":
		return p // as EventBridge takes it: the whole event
	case text[0] != '$':
		return fault(0, "the path must begin with $")
	}
	for i := 1; i < len(text); {
		switch text[i] {
		case '.':
			end := len(text)
			if n := strings.IndexAny(text[i+1:], ".["); n >= 0 {
				end = i + 1 + n
			}
			name := text[i+1 : end]
			if name == "" || strings.ContainsAny(name, " ]'\"()?@,<>") {
				return fault(i, "no name after the dot")
			}
			step := pathStep{name: name}
			if name == "*" {
				step, p.many = pathStep{kind: byAny}, true
			}
			p.steps, i = append(p.steps, step), end
		case '[':
			n := strings.IndexByte(text[i:], ']')
			if n < 0 {
				return fault(i, "a bracket without its end")
			}
			step, ok := bracket(text[i+1 : i+n])
			if !ok {
				return fault(i, "%s is neither an index, nor a name in quotes, nor *", text[i+1:i+n])
			}
			p.many = p.many || step.kind == byAny
			p.steps, i = append(p.steps, step), i+n+1
		default:
			return fault(i, "a dot or a bracket is wanted here")
		}
	}
	return p
}

func bracket(text string) (pathStep, bool) {
	if text == "*" {
		return pathStep{kind: byAny}, true
	}
	if n := len(text); n > 2 && text[0] == text[n-1] && (text[0] == '\'' || text[0] == '"') {
		return pathStep{name: text[1 : n-1]}, true
	}
	n, err := strconv.ParseUint(text, 10, 31)
	return pathStep{kind: byIndex, index: int(n)}, err == nil
}

// cursor is a path on its way: step is what it asks of the value that is read next.
type cursor struct{ path, step int }

// finder reads an event along all paths at once.
type finder struct {
	r     rawjson.Reader
	paths []path
	found [][]byte
}

// find gives each path's value as JSON, or nil where it leads nowhere; a path with * gives a list.
func find(event []byte, paths []path) ([][]byte, error) {
	f := finder{r: rawjson.Reader{Data: event, MaxDepth: maxDepth}, paths: paths, found: make([][]byte, len(paths))}
	at := make([]cursor, len(paths))
	for i := range paths {
		at[i].path = i
		if paths[i].many {
			f.found[i] = []byte{'['}
		}
	}
	err := f.value(at)
	if err == nil {
		err = f.r.Finish()
	}
	var syntax *rawjson.SyntaxError
	if errors.As(err, &syntax) {
		return nil, errs.New(errs.Invalid, "the event is not JSON: %s at byte %d", syntax.Msg, syntax.Offset)
	}
	for i := range paths {
		if paths[i].many {
			f.found[i] = append(f.found[i], ']')
		}
	}
	return f.found, err
}

// value reads a value; at are the paths that have come here.
func (f *finder) value(at []cursor) error {
	kind := f.r.Peek()
	start := f.r.Pos
	var err error
	switch {
	case len(at) == 0 || kind != rawjson.Object && kind != rawjson.Array:
		_, err = f.r.Skip()
	case kind == rawjson.Object:
		err = f.r.Object(func(key []byte, _ int) error {
			return f.value(f.onward(at, func(s pathStep) bool { return s.kind == byAny || s.kind == byName && s.name == string(key) }))
		})
	default:
		err = f.r.Array(func(i int) error {
			return f.value(f.onward(at, func(s pathStep) bool { return s.kind == byAny || s.kind == byIndex && s.index == i }))
		})
	}
	if err != nil {
		return err
	}
	for _, c := range at {
		if c.step < len(f.paths[c.path].steps) {
			continue
		}
		value := f.r.Data[start:f.r.Pos:f.r.Pos]
		if !f.paths[c.path].many {
			f.found[c.path] = value
			continue
		}
		if len(f.found[c.path]) > 1 {
			f.found[c.path] = append(f.found[c.path], ',')
		}
		f.found[c.path] = append(f.found[c.path], value...)
		if len(f.found[c.path]) > MaxOutput {
			return errs.New(errs.TooLarge, "a path gives more than %d bytes", MaxOutput)
		}
	}
	return nil
}

// onward is the paths that go on into a member.
func (f *finder) onward(at []cursor, into func(pathStep) bool) []cursor {
	var next []cursor
	for _, c := range at {
		if steps := f.paths[c.path].steps; c.step < len(steps) && into(steps[c.step]) {
			next = append(next, cursor{c.path, c.step + 1})
		}
	}
	return next
}
