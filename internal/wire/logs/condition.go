package logs

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
)

// condition is one of a pattern for JSON: { $.a = "b" && ($.c > 1 || $.d[0] NOT EXISTS) }.
type condition struct {
	and, or []*condition // or one comparison:

	path []step
	op   string // "=", "!=", "<", "<=", ">", ">=", "IS", "EXISTS", "NOT EXISTS"
	want operand
}

// step goes from a value to one in it, or with any to each.
type step struct {
	key   string
	index int // of a list, where key is empty
	any   bool
}

// operand is what a value is compared with.
type operand struct {
	text   string
	number *float64
	re     *regexp.Regexp
	is     any // of IS: true, false, nil
}

// maxDepth bounds how deep parentheses stand in each other.
const maxDepth = 32

type conditionReader struct {
	text  string
	depth int
}

func parseCondition(text string) (*condition, error) {
	body, ok := strings.CutSuffix(strings.TrimSpace(text), "}")
	if !ok {
		return nil, badPattern("a { is not closed: %s", clip(text))
	}
	r := &conditionReader{text: body[1:]}
	c, err := r.or()
	if err != nil {
		return nil, err
	}
	if r.space(); r.text != "" {
		return nil, badPattern("%s is not understood", clip(r.text))
	}
	return c, nil
}

func (r *conditionReader) space() { r.text = strings.TrimLeft(r.text, " \t\r\n") }

func (r *conditionReader) take(word string) bool {
	r.space()
	rest, ok := strings.CutPrefix(r.text, word)
	if ok {
		r.text = rest
	}
	return ok
}

func (r *conditionReader) or() (*condition, error) {
	c := &condition{}
	for {
		one, err := r.and()
		if err != nil {
			return nil, err
		}
		if c.or = append(c.or, one); !r.take("||") {
			return c, nil
		}
	}
}

func (r *conditionReader) and() (*condition, error) {
	c := &condition{}
	for {
		one, err := r.one()
		if err != nil {
			return nil, err
		}
		if c.and = append(c.and, one); !r.take("&&") {
			return c, nil
		}
	}
}

func (r *conditionReader) one() (*condition, error) {
	if !r.take("(") {
		return r.comparison()
	}
	if r.depth++; r.depth > maxDepth {
		return nil, badPattern("more than %d parentheses stand in each other", maxDepth)
	}
	c, err := r.or()
	if err != nil {
		return nil, err
	}
	r.depth--
	if !r.take(")") {
		return nil, badPattern("a ( is not closed before %s", clip(r.text))
	}
	return c, nil
}

func (r *conditionReader) comparison() (c *condition, err error) {
	c = &condition{}
	if c.path, err = r.path(); err != nil {
		return nil, err
	}
	r.space()
	for _, word := range []string{"NOT EXISTS", "EXISTS"} {
		if len(r.text) >= len(word) && strings.EqualFold(r.text[:len(word)], word) {
			c.op, r.text = word, r.text[len(word):]
			return c, nil
		}
	}
	if len(r.text) > 3 && strings.EqualFold(r.text[:3], "IS ") {
		c.op, r.text = "IS", strings.TrimLeft(r.text[3:], " ")
		for word, is := range map[string]any{"NULL": nil, "TRUE": true, "FALSE": false} {
			if len(r.text) >= len(word) && strings.EqualFold(r.text[:len(word)], word) {
				c.want.is, r.text = is, r.text[len(word):]
				return c, nil
			}
		}
		return nil, badPattern("IS is followed by NULL, TRUE or FALSE, not by %s", clip(r.text))
	}
	for _, op := range []string{"!=", "<=", ">=", "=", "<", ">"} {
		if r.take(op) {
			c.op = op
			return c, r.operand(c)
		}
	}
	return nil, badPattern("there is no comparison at %s", clip(r.text))
}

// path reads $.a.b[0].c, $.a[*], $["a b"].
func (r *conditionReader) path() (path []step, err error) {
	if !r.take("$") {
		return nil, badPattern("a selector begins with $, not %s", clip(r.text))
	}
	for {
		switch {
		case strings.HasPrefix(r.text, "."):
			r.text = r.text[1:]
			if strings.HasPrefix(r.text, "[") {
				continue // $.["a"] is written too
			}
			end := strings.IndexFunc(r.text, func(c rune) bool { return !isWord(c) && c != '-' && c != '@' && c != '*' && c != ':' && c != '/' })
			if end < 0 {
				end = len(r.text)
			}
			if end == 0 {
				return nil, badPattern("a selector has no name before %s", clip(r.text))
			}
			path = append(path, step{key: r.text[:end], any: r.text[:end] == "*"})
			r.text = r.text[end:]
		case strings.HasPrefix(r.text, "["):
			one, err := r.bracket()
			if err != nil {
				return nil, err
			}
			path = append(path, one)
		case len(path) == 0:
			return nil, badPattern("$ is followed by a name: $.a")
		default:
			return path, nil
		}
	}
}

func (r *conditionReader) bracket() (one step, err error) {
	text := r.text[1:]
	if strings.HasPrefix(text, `"`) {
		if one.key, text, err = readQuoted(text); err != nil {
			return one, err
		}
		rest, ok := strings.CutPrefix(text, "]")
		if r.text = rest; !ok || one.key == "" {
			return one, badPattern("a [ is not closed: %s", clip(text))
		}
		return one, nil
	}
	inside, rest, ok := strings.Cut(text, "]")
	if r.text = rest; ok && strings.TrimSpace(inside) == "*" {
		return step{any: true}, nil
	}
	one.index, err = strconv.Atoi(strings.TrimSpace(inside))
	if !ok || err != nil || one.index < 0 {
		return one, badPattern("[ is followed by the number of an element and ], not by %s", clip(text))
	}
	return one, nil
}

// operand reads what stands behind an operator.
func (r *conditionReader) operand(c *condition) (err error) {
	r.space()
	equal := c.op == "=" || c.op == "!="
	switch {
	case equal && strings.HasPrefix(r.text, `"`):
		c.want.text, r.text, err = readQuoted(r.text)
		return err
	case equal && strings.HasPrefix(r.text, "%"):
		c.want.re, r.text, err = readRegexp(r.text)
		return err
	}
	end := strings.IndexAny(r.text, " \t\r\n)&|")
	if end < 0 {
		end = len(r.text)
	}
	word := r.text[:end]
	if word == "" {
		return badPattern("there is no value behind %s", c.op)
	}
	r.text = r.text[end:]
	if n, err := strconv.ParseFloat(word, 64); err == nil {
		c.want.number = &n
	} else if !equal {
		return badPattern("%s compares numbers, and %s is none", c.op, clip(word))
	}
	c.want.text = word
	return nil
}

// holds says whether it holds for a value.
func (c *condition) holds(v any) bool {
	switch {
	case len(c.or) > 0:
		for _, one := range c.or {
			if one.holds(v) {
				return true
			}
		}
		return false
	case len(c.and) > 0:
		for _, one := range c.and {
			if !one.holds(v) {
				return false
			}
		}
		return true
	}
	there, holds := false, false
	each(v, c.path, func(v any) {
		there = true
		holds = holds || c.compare(v)
	})
	switch c.op {
	case "EXISTS":
		return there
	case "NOT EXISTS":
		return !there
	}
	return holds
}

// each calls f for the values that a path leads to.
func each(v any, path []step, f func(v any)) {
	if len(path) == 0 {
		f(v)
		return
	}
	s := path[0]
	switch in := v.(type) {
	case map[string]any:
		switch next, ok := in[s.key]; {
		case s.any:
			for _, next := range in {
				each(next, path[1:], f)
			}
		case ok && s.key != "":
			each(next, path[1:], f)
		}
	case []any:
		switch {
		case s.any:
			for _, next := range in {
				each(next, path[1:], f)
			}
		case s.key == "" && s.index < len(in):
			each(in[s.index], path[1:], f)
		}
	}
}

func (c *condition) compare(v any) bool {
	if c.op == "IS" {
		return v == c.want.is
	}
	if n, ok := v.(json.Number); ok && c.want.number != nil {
		f, err := n.Float64()
		return err == nil && compareNumbers(f, c.op, *c.want.number)
	}
	var text string
	switch v := v.(type) {
	case string:
		text = v
	case json.Number:
		text = v.String()
	default:
		return false
	}
	switch c.op {
	case "=":
		return c.want.takes(text)
	case "!=":
		return !c.want.takes(text)
	}
	return false
}

func compareNumbers(a float64, op string, b float64) bool {
	switch op {
	case "=":
		return a == b
	case "!=":
		return a != b
	case "<":
		return a < b
	case "<=":
		return a <= b
	case ">":
		return a > b
	}
	return a >= b
}

// takes says whether a text is the operand's, in which * stands for anything.
func (o *operand) takes(text string) bool {
	if o.re != nil {
		return o.re.MatchString(text)
	}
	parts := strings.Split(o.text, "*")
	if len(parts) == 1 {
		return text == o.text
	}
	if !strings.HasPrefix(text, parts[0]) {
		return false
	}
	text = text[len(parts[0]):]
	for _, part := range parts[1 : len(parts)-1] {
		_, rest, ok := strings.Cut(text, part)
		if !ok {
			return false
		}
		text = rest
	}
	return strings.HasSuffix(text, parts[len(parts)-1])
}
