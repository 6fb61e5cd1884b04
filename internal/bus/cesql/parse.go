package cesql

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// kind of a token.
type tokenKind uint8

const (
	tEnd tokenKind = iota
	tNumber
	tString
	tName    // letters and digits
	tCall    // a name with an underscore, which only functions have
	tKeyword // upper case in text
	tSymbol
)

type token struct {
	kind tokenKind
	at   int
	text string // of a string: decoded
}

var keywords = map[string]bool{"AND": true, "OR": true, "XOR": true, "NOT": true, "LIKE": true, "EXISTS": true, "IN": true, "TRUE": true, "FALSE": true} // never written

func letter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }
func digit(c byte) bool  { return c >= '0' && c <= '9' }

type parser struct {
	src     string
	tokens  []token
	pos     int
	depth   int
	remarks []Remark
}

// fault is how parsing ends early; Parse catches it.
func fault(at int, hint, format string, args ...any) *Error {
	return &Error{Kind: ParseError, Offset: at, Msg: fmt.Sprintf(format, args...), Hint: hint}
}

// scan cuts the source into tokens.
func (p *parser) scan() *Error {
	for i := 0; i < len(p.src); {
		c := p.src[i]
		start := i
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
			continue
		case c == '\'' || c == '"':
			for i++; i < len(p.src) && p.src[i] != c; i++ {
				if p.src[i] == '\\' {
					i++
				}
			}
			if i >= len(p.src) {
				return fault(start, "", "a string without its end")
			}
			i++
			text := strings.ReplaceAll(p.src[start+1:i-1], `\`+string(c), string(c))
			if !utf8.ValidString(text) {
				return fault(start, "", "a string that is not UTF-8")
			}
			p.tokens = append(p.tokens, token{tString, start, text})
			continue
		case letter(c) || digit(c):
			kind := tNumber
			for ; i < len(p.src) && (letter(p.src[i]) || digit(p.src[i]) || p.src[i] == '_'); i++ {
				if p.src[i] == '_' {
					kind = tCall
				} else if letter(p.src[i]) && kind == tNumber {
					kind = tName
				}
			}
			text := p.src[start:i]
			if kind == tName && keywords[strings.ToUpper(text)] {
				kind, text = tKeyword, strings.ToUpper(text)
			}
			p.tokens = append(p.tokens, token{kind, start, text})
			continue
		}
		n := 1
		if i+1 < len(p.src) {
			switch p.src[i : i+2] {
			case "!=", "<>", "<=", ">=":
				n = 2
			}
		}
		if n == 1 && strings.IndexByte("()+-*/%=<>,", c) < 0 {
			r, _ := utf8.DecodeRuneInString(p.src[i:])
			return fault(i, "", "%q has no meaning here", r)
		}
		p.tokens = append(p.tokens, token{tSymbol, i, p.src[i : i+n]})
		i += n
	}
	p.tokens = append(p.tokens, token{kind: tEnd, at: len(p.src)})
	return nil
}

// Parse reads an expression. The error is an *Error of kind ParseError.
func Parse(source string) (*Expr, error) {
	if len(source) > MaxBytes {
		return nil, fault(0, "", "the expression has %d bytes; %d are allowed", len(source), MaxBytes)
	}
	p := &parser{src: source}
	if err := p.scan(); err != nil {
		return nil, err
	}
	root, err := p.logic()
	if err == nil && p.peek().kind != tEnd {
		err = p.unexpected("an operator")
	}
	if err != nil {
		return nil, err
	}
	return &Expr{source: source, root: root, remarks: p.remarks}, nil
}

func (p *parser) peek() token { return p.tokens[p.pos] }

func (p *parser) next() token {
	t := p.tokens[p.pos]
	if t.kind != tEnd {
		p.pos++
	}
	return t
}

// is says whether the next token is one of some symbols or keywords.
func (p *parser) is(texts ...string) bool {
	t := p.peek()
	if t.kind != tSymbol && t.kind != tKeyword {
		return false
	}
	for _, text := range texts {
		if t.text == text {
			return true
		}
	}
	return false
}

func (p *parser) unexpected(wanted string) *Error {
	t := p.peek()
	if t.kind == tEnd {
		return fault(t.at, "", "the expression ends where %s should be", wanted)
	}
	return fault(t.at, "", "%s is wanted, not %.40q", wanted, t.text)
}

func (p *parser) expect(symbol string) *Error {
	if !p.is(symbol) {
		return p.unexpected(strconv.Quote(symbol))
	}
	p.next()
	return nil
}

// logic reads operands joined by AND, OR and XOR, from left to right.
func (p *parser) logic() (node, *Error) {
	if p.depth++; p.depth > maxDepth {
		return nil, fault(p.peek().at, "", "more than %d parts within each other", maxDepth)
	}
	defer func() { p.depth-- }()
	left, err := p.comparison()
	before := ""
	for n := 0; err == nil && p.is("AND", "OR", "XOR"); n++ {
		op := p.next()
		if before != "" && before != op.text {
			p.remarks = append(p.remarks, Remark{op.at, "cesql-mixed", fmt.Sprintf("%s after %s: they are taken from left to right", op.text, before), "Put parentheses around what belongs together."})
		}
		before = op.text
		var right node
		if right, err = p.comparison(); err == nil {
			left = &binary{op: op.text, at: op.at, left: left, right: right}
		}
	}
	return left, err
}

// level reads operands of the next higher precedence joined by some operators, from left to right.
func (p *parser) level(operand func() (node, *Error), ops ...string) (node, *Error) {
	left, err := operand()
	for err == nil && p.is(ops...) {
		op := p.next()
		var right node
		if right, err = operand(); err == nil {
			left = &binary{op: op.text, at: op.at, left: left, right: right}
		}
	}
	return left, err
}

func (p *parser) comparison() (node, *Error) {
	return p.level(p.sum, "=", "!=", "<>", ">=", "<=", "<", ">")
}
func (p *parser) sum() (node, *Error)     { return p.level(p.product, "+", "-") }
func (p *parser) product() (node, *Error) { return p.level(p.member, "*", "/", "%") }

// member reads an operand with LIKE and IN behind it.
func (p *parser) member() (node, *Error) {
	left, err := p.unary()
	for err == nil {
		start := p.pos
		not := p.is("NOT")
		if not {
			p.next()
		}
		switch {
		case p.is("LIKE"):
			op := p.next()
			if p.peek().kind != tString {
				return nil, p.unexpected("a string with the pattern")
			}
			left = &like{at: op.at, not: not, left: left, pattern: likePattern(p.next().text)}
		case p.is("IN"):
			op := p.next()
			in := &in{at: op.at, not: not, left: left}
			if in.set, err = p.list(false); err == nil {
				left = in
			}
		default:
			p.pos = start
			return left, nil
		}
	}
	return nil, err
}

// list reads expressions in parentheses.
func (p *parser) list(empty bool) (all []node, err *Error) {
	if err = p.expect("("); err != nil {
		return nil, err
	}
	if empty && p.is(")") {
		p.next()
		return nil, nil
	}
	for {
		n, err := p.logic()
		if err != nil {
			return nil, err
		}
		all = append(all, n)
		if p.is(",") {
			p.next()
			continue
		}
		if !p.is(")") {
			return nil, p.unexpected("a comma or a closing parenthesis")
		}
		p.next()
		return all, nil
	}
}

// unary reads NOT, a sign, or an operand.
func (p *parser) unary() (node, *Error) {
	if p.depth++; p.depth > maxDepth {
		return nil, fault(p.peek().at, "", "more than %d parts within each other", maxDepth)
	}
	defer func() { p.depth-- }()
	t := p.peek()
	switch {
	case p.is("NOT"):
		p.next()
		x, err := p.unary()
		return &not{at: t.at, x: x}, err
	case p.is("-", "+") && p.tokens[p.pos+1].kind == tNumber && p.tokens[p.pos+1].at == t.at+1:
		p.next()
		return p.number(t.text, t.at)
	case p.is("-"):
		p.next()
		x, err := p.unary()
		return &minus{at: t.at, x: x}, err
	}
	return p.primary()
}

func (p *parser) number(sign string, at int) (node, *Error) {
	text := sign + p.next().text
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return nil, fault(at, "Integers lie between -2147483648 and 2147483647.", "%.40s is no 32-bit integer", text)
	}
	return literal{Integer(int32(n))}, nil
}

func (p *parser) primary() (node, *Error) {
	t := p.peek()
	switch {
	case p.is("("):
		p.next()
		x, err := p.logic()
		if err == nil {
			err = p.expect(")")
		}
		return x, err
	case p.is("TRUE", "FALSE"):
		p.next()
		return literal{Boolean(t.text == "TRUE")}, nil
	case p.is("EXISTS"):
		p.next()
		name := p.peek()
		if name.kind != tName && name.kind != tNumber {
			return nil, p.unexpected("the name of an attribute")
		}
		p.next()
		return exists{strings.ToLower(name.text)}, nil
	}
	switch t.kind {
	case tNumber:
		return p.number("", t.at)
	case tString:
		p.next()
		return literal{String(t.text)}, nil
	case tName, tCall:
		p.next()
		if p.is("(") {
			return p.call(t)
		}
		if t.kind == tName {
			return &attribute{at: t.at, name: strings.ToLower(t.text)}, nil
		}
		return nil, fault(t.at, "Names of attributes have letters and digits.", "%.40q cannot be the name of an attribute", t.text)
	}
	return nil, p.unexpected("a value")
}

func (p *parser) call(name token) (node, *Error) {
	for i := range len(name.text) {
		if digit(name.text[i]) || i == 0 && name.text[i] == '_' {
			return nil, fault(name.at, "", "%.40q cannot be the name of a function", name.text)
		}
	}
	args, err := p.list(true)
	if err != nil {
		return nil, err
	}
	c := &call{at: name.at, name: strings.ToUpper(name.text), args: args}
	c.fn = lookup(c.name, len(args))
	if c.fn == nil {
		p.remarks = append(p.remarks, Remark{name.at, "cesql-function", fmt.Sprintf("there is no function %.40s of %d arguments", c.name, len(args)), functionHint(c.name)})
	}
	return c, nil
}
