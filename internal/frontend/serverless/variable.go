package serverless

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// A text is a string with variables in it, parsed: what stands between them and the variables
// themselves, in order.
type text []part

// part is either literal text (vr is nil) or a variable.
type part struct {
	lit string
	vr  *variable
}

// variable is one ${…}: sources tried in order until one has a value.
type variable struct {
	raw     string // as written, "${" and "}" included
	sources []source
}

// source is one alternative of a variable: a literal, or a named source with parameters and an address.
type source struct {
	literal any // of a literal: string, float64, int64, bool or nil
	isLit   bool
	name    string // "self", "env", …
	params  []text
	addr    text
	raw     string // as written, for messages
}

// whole returns the variable when the text is nothing but one.
func (t text) whole() *variable {
	if len(t) == 1 {
		return t[0].vr
	}
	return nil
}

// Bounds of one string. Real projects nest three or four deep.
const (
	maxNesting    = 32
	maxTextLength = 1 << 20
)

// parseText parses the variables of s. What looks like ${…} but is no variable (CloudFormation's
// ${AWS::Region} and ${Resource.Arn}) stays text.
func parseText(s string) (text, error) {
	if !strings.Contains(s, "${") {
		return text{{lit: s}}, nil
	}
	if len(s) > maxTextLength {
		return nil, fmt.Errorf("the string is longer than %d bytes", maxTextLength)
	}
	p := parser{s: s}
	var out text
	var lit strings.Builder
	for p.i < len(s) {
		slashes := 0
		for p.i+slashes < len(s) && s[p.i+slashes] == '\\' {
			slashes++
		}
		if slashes > 0 {
			rest := s[p.i+slashes:]
			if !strings.HasPrefix(rest, "${") {
				lit.WriteString(s[p.i : p.i+slashes])
				p.i += slashes
				continue
			}
			// A backslash before ${ makes it plain text; a doubled one is a backslash.
			lit.WriteString(strings.Repeat(`\`, slashes/2))
			p.i += slashes
			if slashes%2 == 1 {
				lit.WriteString("${")
				p.i += 2
			}
			continue
		}
		if !p.atVariable() {
			lit.WriteByte(s[p.i])
			p.i++
			continue
		}
		v, err := p.variable(0)
		if err != nil {
			return nil, err
		}
		if lit.Len() > 0 {
			out = append(out, part{lit: lit.String()})
			lit.Reset()
		}
		out = append(out, part{vr: v})
	}
	if lit.Len() > 0 || len(out) == 0 {
		out = append(out, part{lit: lit.String()})
	}
	return out, nil
}

type parser struct {
	s string
	i int
}

// atVariable says whether a variable starts here: "${", a name that starts in lower case, then ":"
// (but not "::") or "(".
func (p *parser) atVariable() bool {
	rest := p.s[p.i:]
	if !strings.HasPrefix(rest, "${") {
		return false
	}
	name := sourceName(rest[2:])
	if name == "" {
		return false
	}
	rest = rest[2+len(name):]
	return strings.HasPrefix(rest, "(") || strings.HasPrefix(rest, ":") && !strings.HasPrefix(rest, "::")
}

// sourceName returns the source name that s starts with.
func sourceName(s string) string {
	i := 0
	for i < len(s) && (s[i] >= 'a' && s[i] <= 'z' || i > 0 && (s[i] >= 'A' && s[i] <= 'Z' || s[i] >= '0' && s[i] <= '9')) {
		i++
	}
	return s[:i]
}

func (p *parser) fail(format string, args ...any) error {
	return fmt.Errorf("%s at character %d of %.120q", fmt.Sprintf(format, args...), p.i+1, p.s)
}

func (p *parser) spaces() {
	for p.i < len(p.s) && strings.IndexByte(" \t\r\n", p.s[p.i]) >= 0 {
		p.i++
	}
}

// variable parses from "${" to the matching "}".
func (p *parser) variable(depth int) (*variable, error) {
	if depth > maxNesting {
		return nil, p.fail("variables are nested too deep")
	}
	start := p.i
	p.i += 2
	v := &variable{}
	for {
		p.spaces()
		srcs, err := p.alternative(depth)
		if err != nil {
			return nil, err
		}
		v.sources = append(v.sources, srcs...)
		p.spaces()
		if p.i >= len(p.s) {
			return nil, p.fail("a variable is not closed")
		}
		c := p.s[p.i]
		p.i++
		if c == '}' {
			v.raw = p.s[start:p.i]
			return v, nil
		}
		if c != ',' {
			p.i--
			return nil, p.fail("%q is not expected in a variable", string(c))
		}
	}
}

// alternative parses one source. Older projects write a fallback as a variable of its own, ${env:A, ${env:B}}:
// its sources are further alternatives.
func (p *parser) alternative(depth int) ([]source, error) {
	if p.atVariable() {
		v, err := p.variable(depth + 1)
		if err != nil {
			return nil, err
		}
		return v.sources, nil
	}
	src, err := p.source(depth)
	return []source{src}, err
}

func (p *parser) source(depth int) (source, error) {
	start := p.i
	if p.i >= len(p.s) {
		return source{}, p.fail("a variable is not closed")
	}
	if c := p.s[p.i]; c == '\'' || c == '"' {
		str, err := p.quoted()
		return source{isLit: true, literal: str, raw: p.s[start:p.i]}, err
	}
	src := source{name: sourceName(p.s[p.i:])}
	p.i += len(src.name)
	if src.name == "" || p.i >= len(p.s) || p.s[p.i] != ':' && p.s[p.i] != '(' {
		p.i = start
		return p.bareLiteral()
	}
	if p.s[p.i] == '(' {
		p.i++
		params, err := p.params(depth)
		if err != nil {
			return source{}, err
		}
		src.params = params
		p.spaces()
	}
	if p.i < len(p.s) && p.s[p.i] == ':' {
		p.i++
		p.spaces()
		addr, err := p.until(",}", depth)
		if err != nil {
			return source{}, err
		}
		src.addr = addr
	}
	src.raw = strings.TrimSpace(p.s[start:p.i])
	return src, nil
}

// bareLiteral parses true, false, null or a number.
func (p *parser) bareLiteral() (source, error) {
	start := p.i
	for p.i < len(p.s) && p.s[p.i] != ',' && p.s[p.i] != '}' {
		p.i++
	}
	word := strings.TrimSpace(p.s[start:p.i])
	src := source{isLit: true, raw: word}
	switch word {
	case "true", "false":
		src.literal = word == "true"
		return src, nil
	case "null":
		return src, nil
	}
	if i, err := strconv.ParseInt(word, 10, 64); err == nil {
		src.literal = i
		return src, nil
	}
	if f, err := strconv.ParseFloat(word, 64); err == nil && f == f && f-f == 0 {
		src.literal = f
		return src, nil
	}
	p.i = start
	return source{}, p.fail("%q is neither a source (as in env:NAME) nor a literal; put text in quotes", word)
}

// params parses up to the closing parenthesis.
func (p *parser) params(depth int) ([]text, error) {
	var out []text
	for {
		p.spaces()
		t, err := p.until(",)", depth)
		if err != nil {
			return nil, err
		}
		if p.i >= len(p.s) {
			return nil, p.fail("a variable is not closed")
		}
		c := p.s[p.i]
		p.i++
		if c == ')' {
			if len(out) > 0 || len(t) > 1 || t[0].vr != nil || t[0].lit != "" {
				out = append(out, t)
			}
			return out, nil
		}
		out = append(out, t)
	}
}

// until parses an address or a parameter: text with variables in it, or one quoted string, up to
// one of the stop characters.
func (p *parser) until(stop string, depth int) (text, error) {
	if p.i < len(p.s) && (p.s[p.i] == '\'' || p.s[p.i] == '"') {
		str, err := p.quoted()
		if err != nil {
			return nil, err
		}
		p.spaces()
		return text{{lit: str}}, nil
	}
	var out text
	start := p.i
	flush := func(trim bool) {
		lit := p.s[start:p.i]
		if trim {
			lit = strings.TrimRight(lit, " \t\r\n")
		}
		if lit != "" {
			out = append(out, part{lit: lit})
		}
	}
	for p.i < len(p.s) {
		switch {
		case strings.IndexByte(stop, p.s[p.i]) >= 0:
			flush(true)
			if len(out) == 0 {
				out = text{{}}
			}
			return out, nil
		case strings.HasPrefix(p.s[p.i:], "${"):
			if !p.atVariable() {
				return nil, p.fail("a variable inside a variable needs a source, as in ${env:NAME}")
			}
			flush(false)
			v, err := p.variable(depth + 1)
			if err != nil {
				return nil, err
			}
			out = append(out, part{vr: v})
			start = p.i
		case p.s[p.i] == '}':
			return nil, p.fail("a parenthesis is not closed")
		default:
			p.i++
		}
	}
	return nil, p.fail("a variable is not closed")
}

// quoted parses a string in single quotes (as it stands) or double quotes (with JSON's escapes).
func (p *parser) quoted() (string, error) {
	start, q := p.i, p.s[p.i]
	for p.i++; p.i < len(p.s); p.i++ {
		switch {
		case p.s[p.i] == '\\':
			p.i++
		case p.s[p.i] == q:
			p.i++
			raw := p.s[start:p.i]
			if q == '\'' {
				return strings.ReplaceAll(raw[1:len(raw)-1], `\'`, `'`), nil
			}
			var out string
			if err := json.Unmarshal([]byte(raw), &out); err != nil {
				p.i = start
				return "", p.fail("a string literal is not valid")
			}
			return out, nil
		}
	}
	p.i = start
	return "", p.fail("a string literal is not closed")
}
